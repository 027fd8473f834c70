"""Make explanations of what an explainer found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from slicer import Obj

from ..errors import InputError
from .core import Explanation, JointExplanation, check_count, numbered


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
