"""Make explanations of what an explainer found."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import numpy as np
from slicer import Obj

from ..errors import InputError
from ..names import check_count, numbered
from ..tables import Labels, common_ids
from . import Explanation, JointExplanation


@dataclass(frozen=True)
class Found:
    """What was found, in the form of the input.

    Attributes
    ----------
    values, data : array, or list or dict of arrays
        Attributions and explained inputs, as given and returned to the user; or (rows, players, outputs).
    axes : list of int
        Where the rows lie in each input; explanations have them first.
    base_values, outputs, gap : array of shape (rows, outputs)
        Mean output over the background, the model's output, and how far the attributions miss their difference, relative to
        the outputs' scale. The outputs' axes may be any number.
    errors, replicates : in the form of the values, and a list of that
        Standard errors, and independent estimates, of what is estimated.
    converged : array of shape (rows,), optional
        Whether the standard errors are within the tolerance that was asked.
    method : str, optional
        What was done, in words.
    players : str, optional
        What the values belong to, if not to cells.
    """

    values: Any
    data: Any
    axes: Sequence[int]
    base_values: np.ndarray
    outputs: np.ndarray
    gap: np.ndarray
    errors: Any = None
    replicates: list[Any] | None = None
    converged: np.ndarray | None = None
    method: str | None = None
    players: str | None = None


def assemble(found: Found, feature_names: Any, output_names: Any, compute_time: float | None = None) -> Explanation:
    """Make an explanation of what an explainer found, a JointExplanation for several inputs.

    Raises
    ------
    InputError
        If there are not as many names as there is to name.
    """

    def one(pick: Callable[[Any], Any], axis: int, names: Any, kind: str) -> Explanation:
        values, data = (np.moveaxis(pick(array), axis, 0) for array in (found.values, found.data))
        explanation = Explanation(values, found.base_values, data, compute_time=compute_time)
        _name(explanation, names, output_names, kind)
        axes_of_outputs = [0, *explanation.output_dims]
        explanation._track(outputs=Obj(found.outputs, axes_of_outputs), gap=Obj(found.gap, axes_of_outputs))
        if found.errors is not None:
            explanation.standard_errors = np.moveaxis(pick(found.errors), axis, 0)
        if found.replicates is not None:
            explanation.replicates = [np.moveaxis(pick(each), axis, 0) for each in found.replicates]
        explanation.method, explanation.converged = found.method, found.converged
        explanation.players = found.players
        return explanation

    if isinstance(found.values, np.ndarray):
        return one(lambda array: array, found.axes[0], feature_names, "Feature")
    mapped = isinstance(found.values, dict)
    keys: list[Any] = list(found.values) if mapped else list(range(len(found.values)))
    names = names_of_inputs(feature_names, keys)
    parts = [
        one(itemgetter(key), axis, named, f"Input {key}, feature" if isinstance(key, int) else f"{key}, feature")
        for key, axis, named in zip(keys, found.axes, names, strict=True)
    ]
    return JointExplanation(dict(zip(keys, parts, strict=True)) if mapped else parts)


def _name(explanation: Explanation, features: Any, outputs: Any, kind: str) -> None:
    """Name the last axis of the input (table and sequence inputs by default with numbers) and of the output."""
    shape = explanation.values.shape
    size = shape[explanation._inputs - 1] if explanation._inputs > 1 else 0
    if features is not None:
        check_count("feature_names", features, size)
        explanation.feature_names = features
    elif explanation._inputs == 2 and explanation.data is not None and explanation.data.dtype.kind in "iu":
        explanation._axis_of_steps()  # ids of words: their places are no features
    elif explanation._inputs in (2, 3):
        explanation.feature_names = numbered(kind, size)
    if outputs is not None and not isinstance(outputs, str) and np.ndim(outputs) < 2:
        check_count("output_names", outputs, shape[-1] if explanation.output_dims else 1)
        outputs = outputs if explanation.output_dims else outputs[0]
    if outputs is not None:
        explanation.output_names = outputs


def names_of_inputs(names: Any, keys: Sequence[Any]) -> list[Any]:
    """Names for each input, from a list or dict over the inputs."""
    return _per_input(names, keys, "feature_names of several inputs: give a list of names")


def _per_input(given: Any, keys: Sequence[Any], message: str) -> list[Any]:
    """What is given for each of several inputs, in a list or dict over them; None where nothing is."""
    if given is None:
        return [None] * len(keys)
    if isinstance(given, Mapping) and set(given) <= set(keys):
        return [given.get(key) for key in keys]
    if isinstance(given, (list, tuple)) and len(given) == len(keys) and not any(isinstance(one, str) for one in given):
        return list(given)
    raise InputError(f"{message} for each of the inputs {list(keys)}.")


# ---------------------------------------------------------------------- onto explanations
def describe(explanation: Explanation, labels: Any, inverse: Any) -> None:
    """Put labels, and inputs before scaling, on an explanation (on the parts of a joint one).

    Parameters
    ----------
    explanation : Explanation
        It has feature names already.
    labels : Labels, or list or dict of them
        As from ``plain``.
    inverse : callable, or list or dict of them, or None
        Inverse transforms of the inputs; some may be None.

    Raises
    ------
    InputError
        If the transforms do not fit the inputs.
    """
    if isinstance(labels, Labels):
        if inverse is not None and not callable(inverse):
            raise InputError(f"inverse_transform must be one function for one input, not a {type(inverse).__name__}.")
        _describe(explanation, labels, inverse)
        return
    keys = list(labels) if isinstance(labels, dict) else list(range(len(labels)))
    inverses = _per_input(inverse, keys, "inverse_transform of several inputs: one, or None,")
    for key, one in zip(keys, inverses, strict=True):
        _describe(explanation[key], replace(labels[key], row_ids=common_ids(labels)), one)


def _describe(explanation: Explanation, labels: Labels, inverse: Callable[[Any], Any] | None) -> None:
    if labels.row_ids is not None:
        explanation.row_ids = labels.row_ids
    if labels.step_labels is not None:
        explanation.step_labels = labels.step_labels
    if labels.time_label is not None:
        explanation.time_label = labels.time_label
    if labels.lengths is not None:
        try:
            explanation.lengths = labels.lengths
        except InputError as error:
            warnings.warn(f"{error} Here they were left out.", stacklevel=5)
    if inverse is not None:
        explanation.display_data = unscaled(explanation.data, inverse)


# ---------------------------------------------------------------------- raw inputs
def check_transforms(inverse: Any) -> None:
    """Raise unless inverse transforms are functions, or a list or dict of them and None."""
    each = (
        inverse.values()
        if isinstance(inverse, Mapping)
        else inverse
        if isinstance(inverse, (list, tuple))
        else [inverse]
    )
    wrong = [one for one in each if one is not None and not callable(one)]
    if wrong:
        raise InputError(
            f"inverse_transform must be a function, such as scaler.inverse_transform, or one for each input, not {wrong[0]!r}."
        )


def unscaled(data: np.ndarray, inverse: Callable[[Any], Any]) -> np.ndarray:
    """Apply an inverse transform, of arrays (n, features), to the last axis of the data.

    Raises
    ------
    InputError
        If it fails, or does not return as many real numbers or words.
    """
    flat = data.reshape(-1, data.shape[-1])
    try:
        raw = np.asarray(inverse(flat.copy()))
    except Exception as error:
        raise InputError(f"inverse_transform fails on shape {flat.shape}: {type(error).__name__}: {error}") from error
    if raw.shape != flat.shape:
        raise InputError(
            f"inverse_transform returned shape {raw.shape} for {flat.shape}: it must map (n, features) to (n, features)."
        )
    shown = raw.dtype.kind in "fiubU"  # ids of tokens have been words
    if not shown or (raw.dtype.kind == "f" and raw.size and np.isnan(raw).all()):
        found = "NaN alone" if shown else f"values of dtype {raw.dtype}"
        raise InputError(f"inverse_transform returned {found}: it must return the inputs as they were before scaling.")
    return raw.reshape(data.shape)
