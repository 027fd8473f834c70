"""Standard errors of values and of their sums, whose terms may have dependent errors.

Methods that sample return independent estimates (replicates) of all values. The standard error of a sum is computed from the sums
of the replicates, which accounts for every dependence among its terms. What an error holds beyond the spread of the replicates
is treated as bias of unknown sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


def noise(replicates: Sequence[np.ndarray]) -> np.ndarray:
    """Return the standard error of the mean of independent estimates: their standard deviation / sqrt(their number)."""
    return np.std(replicates, axis=0, ddof=1, dtype=np.float64) / np.sqrt(len(replicates))


def spread_over(replicates: Sequence[np.ndarray], number: int) -> list[np.ndarray]:
    """Return ``number`` estimates of the same mean, at least as many as before, whose sums keep their standard errors.

    Their deviations from the mean are turned into the space of more estimates, at right angles to the mean as before.
    """
    count = len(replicates)
    if count == number:
        return list(replicates)
    scale = math.sqrt(number * (number - 1) / (count * (count - 1)))
    turn = scale * _contrasts(number)[:, : count - 1] @ _contrasts(count).T
    mean = np.mean(replicates, axis=0, dtype=np.float64)
    away, dtype = [replicate - mean for replicate in replicates], np.result_type(replicates[0], np.float32)
    # one product after the other: those of whole arrays are rounded in ways that depend on the number of rows
    return [(mean + sum(w * d for w, d in zip(weights, away, strict=True))).astype(dtype) for weights in turn]


def _contrasts(number: int) -> np.ndarray:
    """Return orthonormal columns that sum to 0, (number, number - 1)."""
    place, frequency = np.arange(number)[:, None] + 0.5, np.arange(1, number)
    return math.sqrt(2 / number) * np.cos(np.pi * place * frequency / number)


@dataclass(frozen=True)
class Errors:
    """Standard errors of values, and independent estimates of these (as many as are known, or none).

    The spread of the estimates is noise. What an error holds beyond it is bias, whose sign is not known. Where there are no
    estimates, all is taken for bias, so that errors of sums are upper bounds.
    """

    errors: np.ndarray
    replicates: Sequence[np.ndarray] = ()

    def of(self, total: Callable[[np.ndarray], np.ndarray]) -> Errors:
        """Return the errors of sums ``total(values)``, of which each value is a term or none.

        The noise of a sum is the spread of the replicates' own sums, whatever its terms have to do with each other. Biases have
        signs that are not known, as often one as the other: their squares add up. Without replicates nothing is known of the
        terms, and errors add up (triangle inequality).
        """
        if not len(self.replicates):
            return Errors(total(self.bias))
        sums = [total(np.asarray(replicate, np.float64)) for replicate in self.replicates]
        return Errors(np.hypot(noise(sums), np.sqrt(total(self.bias**2))), sums)

    @classmethod
    def beside(cls, parts: Sequence[Errors]) -> Errors:
        """Put errors of the same rows side by side, along the last axis."""
        count = min(len(part.replicates) for part in parts)
        joined = [np.concatenate([part.replicates[i] for part in parts], -1) for i in range(count)]
        return cls(np.concatenate([part.errors for part in parts], -1), joined)

    def of_rows(self, rows: Any) -> Errors:
        """Return those of a row, or of some."""
        return Errors(self.errors[rows], [replicate[rows] for replicate in self.replicates])

    def of_mean(self) -> np.ndarray:
        """Return the errors of means over rows, the first axis (NaN: not there): noise is independent, bias may not be."""
        count = np.isfinite(self.errors).sum(0)
        spread = np.sqrt(np.nansum(noise(self.replicates) ** 2, 0)) if len(self.replicates) else 0.0
        return np.hypot(spread, np.nansum(self.bias, 0)) / np.maximum(count, 1)

    @property
    def bias(self) -> np.ndarray:
        """What the errors hold beyond the noise, of the values' shape."""
        if not len(self.replicates):
            return np.asarray(self.errors, np.float64)
        return np.sqrt(np.maximum(np.square(self.errors, dtype=np.float64) - noise(self.replicates) ** 2, 0))
