"""Make explanations of what an explainer found."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from slicer import Obj

from ..errors import InputError
from ..names import check_count, numbered
from ..tables import Labels, common_ids
from . import Explanation, JointExplanation


def assemble(
    values: Any,
    data: Any,
    axes: Sequence[int],
    base_values: np.ndarray,
    outputs: np.ndarray,
    gap: np.ndarray,
    feature_names: Any = None,
    output_names: Any = None,
    compute_time: float | None = None,
) -> Explanation:
    """Make explanations of what an explainer found.

    Parameters
    ----------
    values, data : array, or list or dict of arrays
        Attributions and explained inputs, as given and returned to the user.
    axes : sequence of int
        Where the rows lie in each input; explanations have them first.
    base_values, outputs, gap : array of shape (rows, outputs)
        Mean output over the background, the model's output, and how far the attributions miss their difference, relative to
        the outputs' scale. The outputs' axes may be any number.
    feature_names, output_names : sequence of str, optional
        For the last axes; the feature names of several inputs in a list or dict.
    compute_time : float, optional
        Seconds.

    Returns
    -------
    Explanation
        A JointExplanation for several inputs.

    Raises
    ------
    InputError
        If there are not as many names as there is to name.
    """

    def one(values: Any, data: Any, axis: int, names: Any, kind: str) -> Explanation:
        explanation = Explanation(
            np.moveaxis(values, axis, 0), base_values, np.moveaxis(data, axis, 0), compute_time=compute_time
        )
        _name(explanation, names, output_names, kind)
        axes_of_outputs = [0, *explanation.output_dims]
        explanation._track(outputs=Obj(outputs, axes_of_outputs), gap=Obj(gap, axes_of_outputs))
        return explanation

    if isinstance(values, np.ndarray):
        return one(values, data, axes[0], feature_names, "Feature")
    keys: list[Any] = list(values) if isinstance(values, dict) else list(range(len(values)))
    names = _names_of_inputs(feature_names, keys)
    parts = [
        one(values[key], data[key], axis, named, f"Input {key}, feature" if isinstance(key, int) else f"{key}, feature")
        for key, axis, named in zip(keys, axes, names, strict=True)
    ]
    return JointExplanation(dict(zip(keys, parts, strict=True)) if isinstance(values, dict) else parts)


def _name(explanation: Explanation, features: Any, outputs: Any, kind: str) -> None:
    """Name the last axis of the input (table and sequence inputs by default with numbers) and of the output."""
    shape = explanation.values.shape
    size = shape[explanation._inputs - 1] if explanation._inputs > 1 else 0
    if features is not None:
        check_count("feature_names", features, size)
        explanation.feature_names = features
    elif explanation._inputs in (2, 3):
        explanation.feature_names = numbered(kind, size)
    if outputs is not None and not isinstance(outputs, str) and np.ndim(outputs) < 2:
        check_count("output_names", outputs, shape[-1] if explanation.output_dims else 1)
        outputs = outputs if explanation.output_dims else outputs[0]
    if outputs is not None:
        explanation.output_names = outputs


def _names_of_inputs(names: Any, keys: Sequence[Any]) -> list[Any]:
    """Names for each input, from a list or dict over the inputs."""
    if names is None:
        return [None] * len(keys)
    if isinstance(names, Mapping) and set(names) <= set(keys):
        return [names.get(key) for key in keys]
    if not isinstance(names, Mapping) and len(names) == len(keys) and not any(isinstance(n, str) for n in names):
        return list(names)
    raise InputError(f"feature_names of several inputs: give a list of names for each of the inputs {list(keys)}.")


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
        _describe(explanation, labels, inverse)
        return
    keys = list(labels) if isinstance(labels, dict) else list(range(len(labels)))
    inverses: list[Any]
    if inverse is None:
        inverses = [None] * len(keys)
    elif isinstance(inverse, Mapping) and set(inverse) <= set(keys):
        inverses = [inverse.get(key) for key in keys]
    elif isinstance(inverse, (list, tuple)) and len(inverse) == len(keys):
        inverses = list(inverse)
    else:
        raise InputError(f"inverse_transform of several inputs: one, or None, for each of the inputs {keys}.")
    for key, one in zip(keys, inverses, strict=True):
        _describe(explanation[key], replace(labels[key], row_ids=common_ids(labels)), one)


def _describe(explanation: Explanation, labels: Labels, inverse: Callable[[Any], Any] | None) -> None:
    if labels.row_ids is not None:
        explanation.row_ids = labels.row_ids
    if labels.step_labels is not None:
        explanation.step_labels = labels.step_labels
    if labels.lengths is not None:
        try:
            explanation.lengths = labels.lengths
        except InputError as error:
            warnings.warn(f"{error} Here they were left out.", stacklevel=5)
    if inverse is not None:
        explanation.display_data = unscaled(explanation.data, inverse)


# ---------------------------------------------------------------------- raw inputs
def unscaled(data: np.ndarray, inverse: Callable[[Any], Any]) -> np.ndarray:
    """Apply an inverse transform, of arrays (n, features), to the last axis of the data.

    Raises
    ------
    InputError
        If it does not return as many values.
    """
    flat = data.reshape(-1, data.shape[-1])
    raw = np.asarray(inverse(flat))
    if raw.shape != flat.shape:
        raise InputError(
            f"inverse_transform returned shape {raw.shape} for {flat.shape}: it must map (n, features) to (n, features)."
        )
    return raw.reshape(data.shape)
