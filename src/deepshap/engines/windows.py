"""Windows of a pooling, as positions in what is pooled."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def joined(axes: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """Return flat positions of the elements of each window, (windows, elements of a window), -1 outside.

    Parameters
    ----------
    axes : sequence of arrays
        Positions along each axis, (windows, elements), -1 outside.
    sizes : sequence of int
        Of the axes.
    """
    rows = []
    for window in itertools.product(*axes):
        inside = np.meshgrid(*window, indexing="ij")
        outside = np.any([i < 0 for i in inside], 0)
        flat = np.ravel_multi_index([np.maximum(i, 0) for i in inside], sizes)
        rows.append(np.where(outside, -1, flat).ravel())
    return np.array(rows)


def within(positions: np.ndarray, size: int) -> np.ndarray:
    """Return positions along an axis, -1 where they lie outside."""
    return np.where((positions >= 0) & (positions < size), positions, -1)
