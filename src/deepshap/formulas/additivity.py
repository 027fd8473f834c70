"""How far attributions miss the sum that they should have, and sums that stay."""

from __future__ import annotations

import numpy as np

# How far sums may be off, by the names of dtypes: float32 and float64 as the rules promise, the lower precisions as their own
# rounding allows. The least precise dtype that the signal passes through decides.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}
# The distance of neighbouring numbers at 1.
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SMALL = 1e-3  # of the largest output of a row and its references: a smaller one is measured against that


def output_scale(outputs: np.ndarray, expected: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Size of each row's outputs and what they are compared with, (rows, k), not less than a thousandth of the largest."""
    scale = np.maximum(np.maximum(np.abs(outputs), np.abs(expected)), SMALL * largest[:, None])
    return scale + np.finfo(np.float32).tiny


def chosen(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Of each row's outputs, (rows, outputs), those of its own columns, (rows, k)."""
    found: np.ndarray = values[np.arange(values.shape[0])[:, None], columns]
    return found


def additivity_gap(
    values: list[np.ndarray],
    outputs: np.ndarray,
    expected: np.ndarray,
    largest: np.ndarray,
    tolerance: float,
    eps: float,
) -> np.ndarray:
    """|sum of attributions - (output - expected output)| over the scale of the outputs, (rows, k).

    The scale depends on the row, the model and the background alone. To it comes what rounding of the summands can make of
    their sum, so that outputs of 0 have a scale too; but never more than ``largest``, so that attributions which explode do
    not excuse themselves.

    Parameters
    ----------
    values : list of arrays
        Attributions of each input, (rows, ..., k).
    outputs, expected : array
        Of the model, (rows, k).
    largest : array
        Of all outputs of each row and its references, (rows,).
    tolerance, eps : float
        What the dtype allows, and its rounding unit.
    """
    flat = [v.reshape(len(v), -1, v.shape[-1]) for v in values]
    explained, summands = sum(v.sum(1) for v in flat), sum(np.abs(v).sum(1) for v in flat)
    most = np.where(largest > 0, largest, np.inf)[:, None]
    rounding = np.minimum(64 * eps / tolerance * summands, most)
    return np.abs(explained - (outputs - expected)) / (output_scale(outputs, expected, largest) + rounding)


def cleared(values: np.ndarray, nothing: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Values that are exactly 0 where ``nothing`` holds, with the same sums over the axes.

    What rounding had put there goes to the other values, by their size.
    """
    kept = np.where(nothing, 0, values)
    size, lost = np.abs(kept), np.where(nothing, values, 0).sum(axes, keepdims=True)
    total = size.sum(axes, keepdims=True)
    share: np.ndarray = np.divide(size, total, out=np.zeros_like(size), where=total > 0)
    return kept + lost * share
