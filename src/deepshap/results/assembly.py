"""Assemble explanations from the arrays of an attribution, and add names and labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from slicer import Obj

from ..errors import InputError, check_count
from ..explanation.labels import numbered
from ..tables import Labels, common_ids
from ..tables.several import names_of_inputs, per_input, unscaled
from . import Explanation, JointExplanation


def assemble(
    values: Sequence[np.ndarray],
    base_values: np.ndarray,
    data: Sequence[np.ndarray],
    outputs: np.ndarray,
    gap: np.ndarray,
    *,
    keys: Sequence[Any] | None = None,
    feature_names: Any = None,
    output_names: Any = None,
    errors: Sequence[np.ndarray] | None = None,
    replicates: Sequence[Sequence[np.ndarray]] | None = None,
    compute_time: float | None = None,
) -> Explanation:
    """Make an explanation, a JointExplanation for several inputs.

    Parameters
    ----------
    values, data, errors, replicates : sequence of array
        One array for each input, the rows first.
    base_values, outputs, gap : array
        (rows, outputs), with as many axes of outputs as the model has.
    keys : sequence of str or int, optional
        Names or numbers of several inputs; None for a single one.
    feature_names, output_names
        As for ``DeepExplainer``.
    compute_time : float, optional
        In seconds.

    Raises
    ------
    InputError
        If there are not as many names as there is to name.
    """
    names = [feature_names] if keys is None else names_of_inputs(feature_names, keys)
    parts = []
    for at, named in enumerate(names):
        explanation = Explanation(values[at], base_values, data[at], compute_time=compute_time)
        key = None if keys is None else keys[at]
        kind = "Feature" if key is None else f"Input {key}, feature" if isinstance(key, int) else f"{key}, feature"
        _name(explanation, named, output_names, kind)
        axes_of_outputs = [0, *explanation.output_dims]
        explanation._track(outputs=Obj(outputs, axes_of_outputs), gap=Obj(gap, axes_of_outputs))
        if errors is not None:
            explanation.standard_errors = errors[at]
        if replicates:
            explanation.replicates = [replicate[at] for replicate in replicates]
        parts.append(explanation)
    if keys is None:
        return parts[0]
    return JointExplanation(parts if isinstance(keys[0], int) else dict(zip(keys, parts, strict=True)))


def _name(explanation: Explanation, features: Any, outputs: Any, kind: str) -> None:
    """Name the last axis of the input (table and sequence inputs by default with numbers) and of the output."""
    shape = explanation.values.shape
    size = (
        shape[explanation._inputs - 1] if explanation._inputs > 1 else 1
    )  # ids of categories, (rows,), are one feature
    if features is not None:
        check_count("feature_names", features, size)
        explanation.feature_names = features if explanation._inputs > 1 else features[0]
    elif explanation._inputs == 2 and explanation.data is not None and explanation.data.dtype.kind in "iu":
        explanation._axis_of_steps()  # ids of words: their places are no features
    elif explanation._inputs in (2, 3):
        explanation.feature_names = numbered(kind, size)
    if outputs is not None and not isinstance(outputs, str) and np.ndim(outputs) < 2:
        check_count("output_names", outputs, shape[-1] if explanation.output_dims else 1)
        outputs = outputs if explanation.output_dims else outputs[0]
    if outputs is not None:
        explanation.output_names = outputs


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
    inverses = per_input(inverse, keys, "inverse_transform of several inputs: one, or None,")
    for key, inverse_of_input in zip(keys, inverses, strict=True):
        _describe(explanation[key], replace(labels[key], row_ids=common_ids(labels)), inverse_of_input)


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
