"""Additivity: the gap between the sum of a row's attributions and the change of its output.

Attributions are complete if their sum equals the output minus the expected output. ``additivity_gap`` measures how far they
are from it, relative to the size of the outputs, and ``TOLERANCE`` says how large that gap may be in each dtype.
"""

from __future__ import annotations

import numpy as np

# The largest relative gap by the name of the dtype: the promise of the rules for float32 and float64, and what rounding allows
# for lower precisions. The least precise dtype between inputs and outputs decides.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}
# The rounding unit: the distance between 1 and the next larger number.
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SMALL = 1e-3  # outputs below this fraction of the largest output are measured against the fraction


def output_scale(outputs: np.ndarray, expected: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Return the scale of each output and its expected value, (rows, k), at least a thousandth of the largest output."""
    scale = np.maximum(np.maximum(np.abs(outputs), np.abs(expected)), SMALL * largest[:, None])
    return scale + np.finfo(np.float32).tiny


def select_columns(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return for each row the values, (rows, outputs), in its columns, (rows, k)."""
    selected: np.ndarray = values[np.arange(values.shape[0])[:, None], columns]
    return selected


def additivity_gap(
    values: list[np.ndarray],
    outputs: np.ndarray,
    expected: np.ndarray,
    largest: np.ndarray,
    tolerance: float,
    eps: float,
) -> np.ndarray:
    """Return |sum of attributions - (output - expected output)| divided by the scale of the outputs, (rows, k).

    The scale depends only on the row, the model and the background. The rounding error of the sum is added to it, so that
    outputs of 0 have a scale too. This error counts up to ``largest``, so that exploding attributions do not widen
    their own tolerance.

    Parameters
    ----------
    values : list of array
        Attributions of each input, (rows, ..., k).
    outputs, expected : array
        Outputs of the model for the rows, and their expected values, (rows, k).
    largest : array
        The largest absolute output of each row and its references, (rows,).
    tolerance, eps : float
        Tolerance and rounding unit of the dtype.
    """
    flattened = [v.reshape(len(v), -1, v.shape[-1]) for v in values]
    explained, summands = sum(v.sum(1) for v in flattened), sum(np.abs(v).sum(1) for v in flattened)
    limit = np.where(largest > 0, largest, np.inf)[:, None]
    rounding = np.minimum(64 * eps / tolerance * summands, limit)
    return np.abs(explained - (outputs - expected)) / (output_scale(outputs, expected, largest) + rounding)


def zero_and_redistribute(values: np.ndarray, mask: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Set values to 0 where ``mask`` holds and keep the sums over the axes.

    The removed rounding errors are distributed over the remaining values in proportion to their size.
    """
    remaining = np.where(mask, 0, values)
    size, removed = np.abs(remaining), np.where(mask, values, 0).sum(axes, keepdims=True)
    total = size.sum(axes, keepdims=True)
    share: np.ndarray = np.divide(size, total, out=np.zeros_like(size), where=total > 0)
    return remaining + removed * share
