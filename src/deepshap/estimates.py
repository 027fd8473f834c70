"""Running sums of contributions: what is not random, and means over independent replicates with their standard errors."""

from __future__ import annotations

import copy

import numpy as np

from .engines.api import Comparison, Contributions
from .methods import Known, Term
from .players import Players

FEWEST = 4  # groups from which a spread is told
GROUPS = 8  # means of so many groups of replicates are kept, from which the noise of any sum of values is told


class RunningEstimate:
    """Attributions of some rows while their parts come in.

    A part belongs to all replicates (what is not random) or each of its examples to one of them; a replicate's parts come
    together. The replicates' mean and the squared deviations from it are carried along (Welford 1962).

    Attributes
    ----------
    difference : sum of the weighted differences of outputs that the parts explain, (rows, k).
    expected : mean output of the references, (rows, k); None unless the whole comparison was one of the terms.
    """

    def __init__(self, whole: Comparison, players: Players | None) -> None:
        self.difference = np.zeros(whole.outputs.shape)
        self.expected: np.ndarray | None = None
        self._whole, self._players = whole, players
        self._fixed: list[np.ndarray] = []  # (rows, ..., k) for each explained tensor
        self._open: dict[int, np.ndarray] = {}  # sums of replicates, (rows, players, k)
        self._count = 0
        self._mean = np.zeros(())
        self._squares = np.zeros(())  # summed deviations from the mean
        self._groups: list[tuple[int, np.ndarray]] = []

    # ------------------------------------------------------------------ adding
    def add(self, term: Term, at: slice, columns: np.ndarray, found: Contributions, share: float) -> np.ndarray | None:
        """Add what some examples of a term gave; ``share`` is the part of its references that they were compared with.

        Returns the contributions by players, (examples, players, k), of terms of replicates.
        """
        rows, weights = term.rows[at], term.weights[at]
        values = [np.moveaxis(value, 0, -1) for value in found.values]
        by_players = None
        if term.replicates is not None:
            assert self._players is not None
            by_players = self._players.summed(values)
            self._to_replicates(by_players, rows, weights, term.replicates[at])
        else:
            self._to_all(values if self._players is None else [self._players.summed(values)], rows, weights)
        references = len(term.comparison.references) * share if term.comparison.crossed else 1
        output = np.take_along_axis(found.outputs, columns, 1) * weights[:, None]
        reference = np.take_along_axis(found.reference_outputs, columns, 1) * weights[:, None]
        np.add.at(self.difference, rows, self._averaged(output * references - reference, term.replicates))
        if term.comparison is self._whole:
            self.expected = np.zeros_like(self.difference) if self.expected is None else self.expected
            np.add.at(self.expected, rows, reference)
        return by_players

    def add_known(self, known: Known) -> None:
        """Add contributions that a method has made of outputs."""
        if known.replicates is None:
            self._to_all([known.values], known.rows, known.weights)
        else:
            self._to_replicates(known.values, known.rows, known.weights, known.replicates)
        change = known.values.sum(1) * known.weights[:, None]
        np.add.at(self.difference, known.rows, self._averaged(change, known.replicates))

    def _averaged(self, change: np.ndarray, replicates: np.ndarray | None) -> np.ndarray:
        """What a replicate explains beyond what all do is nothing: its terms cancel, and are left out."""
        return change if replicates is None else np.zeros_like(change)

    def _to_all(self, values: list[np.ndarray], rows: np.ndarray, weights: np.ndarray) -> None:
        if not self._fixed:
            self._fixed = [np.zeros((len(self.difference), *v.shape[1:])) for v in values]
        for total, value in zip(self._fixed, values, strict=True):
            np.add.at(total, rows, value * weights.reshape(-1, *[1] * (value.ndim - 1)))

    def _to_replicates(self, values: np.ndarray, rows: np.ndarray, weights: np.ndarray, replicates: np.ndarray) -> None:
        if self._open and replicates.min() > max(self._open):  # a new batch
            self.close()
        for replicate in np.unique(replicates):
            mine = replicates == replicate
            if replicate not in self._open:
                self._open[replicate] = np.zeros((len(self.difference), *values.shape[1:]))
            np.add.at(self._open[replicate], rows[mine], values[mine] * weights[mine, None, None])

    def close(self) -> None:
        """Take the open replicates for complete."""
        for number in sorted(self._open):
            value = self._open.pop(number)
            self._count += 1
            away = value - self._mean
            self._mean = self._mean + away / self._count
            self._squares = self._squares + away * (value - self._mean)
            group = number % GROUPS
            while len(self._groups) <= group:
                self._groups.append((0, np.zeros_like(value)))
            count, total = self._groups[group]
            self._groups[group] = count + 1, total + value

    # ------------------------------------------------------------------ results
    def of_rows(self, rows: np.ndarray) -> RunningEstimate:
        """That of some rows."""
        part = copy.copy(self)
        part._fixed = [v[rows] for v in self._fixed]
        if self._count:
            part._mean, part._squares = self._mean[rows], self._squares[rows]
            part._groups = [(count, total[rows]) for count, total in self._groups]
        return part

    @property
    def count(self) -> int:
        """How many replicates there are."""
        return self._count

    @property
    def correction(self) -> np.ndarray:
        """Mean of the replicates, (rows, players, k)."""
        return self._mean

    def values(self) -> list[np.ndarray]:
        """Attributions: of each explained tensor (rows, ..., k), or by players (rows, players, k)."""
        return [self._fixed[0] + self._mean] if self._count else self._fixed

    def noise(self) -> np.ndarray | None:
        """Standard error of the replicates' mean, (rows, players, k); None where nothing is random."""
        return np.sqrt(self._squares / (self._count - 1) / self._count) if self._count > 1 else None

    @property
    def group_count(self) -> int:
        """How many groups of replicates there are; 0 if too few to tell noise."""
        return len(self._groups) if len(self._groups) >= FEWEST else 0

    def groups(self, number: int) -> list[np.ndarray]:
        """So many independent estimates of the values, each from a part of the replicates."""
        parts = [self._groups[first::number] for first in range(number)]
        return [self._fixed[0] + sum(total for _, total in part) / sum(count for count, _ in part) for part in parts]
