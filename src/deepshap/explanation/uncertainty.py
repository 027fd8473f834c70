"""Standard errors of sums of values, whose errors are not independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def noise(replicates: Sequence[np.ndarray]) -> np.ndarray:
    """Standard error of the mean of independent estimates: their standard deviation / sqrt(their number)."""
    return np.std(replicates, axis=0, ddof=1, dtype=np.float64) / np.sqrt(len(replicates))


def error_of(
    total: Callable[[np.ndarray], np.ndarray], errors: np.ndarray, replicates: Sequence[np.ndarray]
) -> np.ndarray:
    """Standard errors of sums, from those of their terms.

    With replicates the noise of a sum is the spread of the replicates' own sums, whatever the terms have to do with each
    other. What the terms' errors hold beyond the noise is bias, of any sign, and adds up (triangle inequality). Without
    replicates all is taken for bias: an upper bound. The two parts are independent and join as ``sqrt(noise² + bias²)``.

    Parameters
    ----------
    total : callable
        A sum with weights that are not negative, over axes counted from the front.
    errors : array
        Standard errors of the terms.
    replicates : sequence of array
        Independent estimates of the terms; may be empty.
    """
    if not len(replicates):
        return total(np.asarray(errors, np.float64))
    return np.hypot(noise([total(np.asarray(r, np.float64)) for r in replicates]), total(_bias(errors, replicates)))


def error_of_mean(errors: np.ndarray, replicates: Sequence[np.ndarray]) -> np.ndarray:
    """Standard error of the mean over rows, the first axis: their noise is independent, their bias may not be."""
    if not len(replicates):
        return np.asarray(np.mean(errors, 0, dtype=np.float64))
    spread = np.sqrt(np.sum(noise(replicates) ** 2, 0)) / len(errors)
    return np.hypot(spread, np.mean(_bias(errors, replicates), axis=0))


def _bias(errors: np.ndarray, replicates: Sequence[np.ndarray]) -> np.ndarray:
    return np.sqrt(np.maximum(np.square(errors, dtype=np.float64) - noise(replicates) ** 2, 0))
