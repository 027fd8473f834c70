"""Running sums of contributions: what is not random, and means over independent replicates with their standard errors."""

from __future__ import annotations

import math

import numpy as np

from .engines.api import Comparison, Contributions
from .explanation.uncertainty import spread_over
from .mathematics.additivity import chosen
from .methods import Known, Term
from .players import Players

FEWEST = 4  # groups from which a spread is told
GROUPS = 8  # means of so many groups of replicates are kept, from which the noise of any sum of values is told


class RunningEstimate:
    """Attributions of some rows while their parts come in.

    A part belongs to all replicates (what is not random) or each of its examples to one of them. Replicates come in pairs,
    an order and its reverse with numbers 2 r and 2 r + 1, and a pair's parts come together. The pairs' mean and the squared
    deviations from it are carried along (Welford 1962).

    Parameters
    ----------
    whole : Comparison
        What is explained. Replicate r takes one of a row's references, and none again before all have had their turn.
    players : Players or None
        Who is attributed to; None for each cell by itself.
    shrinks : bool
        Whether the mean is drawn towards 0, where the part that is not random stands, as far as its noise demands (James
        and Stein 1961): of few replicates it would be further away than without them.

    Attributes
    ----------
    difference : sum of the weighted differences of outputs that the parts explain, (rows, k).
    beyond : the most that any replicate explains beyond what belongs to all, which should be nothing, (rows, k).
    expected : mean output of the references, (rows, k); None unless the whole comparison was one of the terms.
    """

    def __init__(self, whole: Comparison, players: Players | None, shrinks: bool = False) -> None:
        self.difference, self.beyond = np.zeros(whole.outputs.shape), np.zeros(whole.outputs.shape)
        self.expected: np.ndarray | None = None
        self._whole, self._players, self._shrinks = whole, players, shrinks
        self._references = len(whole.references) if whole.crossed else 1
        self._fixed: list[np.ndarray] = []  # (rows, ..., k) for each explained tensor
        self._open: dict[int, np.ndarray] = {}  # sums of halves of replicates, (rows, players, k)
        self._count = 0
        self._mean = np.zeros(())
        self._squares = np.zeros(())  # summed deviations from the mean
        self._orders = np.zeros(())  # summed squares of what an order and its reverse differ by
        self._turn = np.zeros(())  # sum of the replicates since all references had as many turns
        self._turns, self._turn_mean, self._turn_squares = 0, np.zeros(()), np.zeros(())  # of the means of whole turns
        self._groups: list[tuple[int, np.ndarray]] = []

    # ------------------------------------------------------------------ adding
    def begin(self, part: Term | Known) -> None:
        """Take the open replicates for complete if a part belongs to later ones."""
        numbers = part.replicates
        if numbers is not None and self._open and numbers.min() // 2 > max(self._open) // 2:
            self.close()

    def add(self, term: Term, at: slice, columns: np.ndarray, found: Contributions, share: float) -> np.ndarray | None:
        """Add what some examples of a term gave; ``share`` is the part of its references that they were compared with.

        Returns the contributions by players, (examples, players, k), of terms of replicates.
        """
        rows, weights = term.rows[at], term.weights[at]
        values = [value.transpose(*range(1, value.ndim), 0) for value in found.values]
        by_players = None
        if term.replicates is not None:
            assert self._players is not None
            by_players = self._players.summed(values)
            self._to_replicates(by_players, rows, weights, term.replicates[at])
        else:
            self._to_all(values if self._players is None else [self._players.summed(values)], rows, weights)
        references = len(term.comparison.references) * share if term.comparison.crossed else 1
        output = chosen(found.outputs, columns) * weights[:, None]
        reference = chosen(found.reference_outputs, columns) * weights[:, None]
        if term.replicates is None:  # what a replicate explains beyond what all do is nothing: its terms cancel
            with np.errstate(invalid="ignore"):  # of infinite outputs, which the model's own are compared with
                np.add.at(self.difference, rows, output * references - reference)
        if term.comparison is self._whole:
            self.expected = np.zeros_like(self.difference) if self.expected is None else self.expected
            np.add.at(self.expected, rows, reference)
        return by_players

    def add_known(self, known: Known) -> None:
        """Add contributions that a method has made of outputs."""
        if known.replicates is None:
            self._to_all([known.values], known.rows, known.weights)
            np.add.at(self.difference, known.rows, known.values.sum(1) * known.weights[:, None])
        else:
            self._to_replicates(known.values, known.rows, known.weights, known.replicates)

    def _to_all(self, values: list[np.ndarray], rows: np.ndarray, weights: np.ndarray) -> None:
        if not self._fixed:
            self._fixed = [np.zeros((len(self.difference), *v.shape[1:])) for v in values]
        for total, value in zip(self._fixed, values, strict=True):
            np.add.at(total, rows, value * weights.reshape(-1, *[1] * (value.ndim - 1)))

    def _to_replicates(self, values: np.ndarray, rows: np.ndarray, weights: np.ndarray, replicates: np.ndarray) -> None:
        starts = np.flatnonzero(np.diff(replicates, prepend=-1) | np.diff(rows, prepend=-1))  # of what adds up at once
        sums = np.add.reduceat(values * weights[:, None, None], starts)
        rows, replicates = rows[starts], replicates[starts]
        for replicate in np.unique(replicates):
            mine = replicates == replicate
            if replicate not in self._open:
                self._open[replicate] = np.zeros((len(self.difference), *values.shape[1:]))
            np.add.at(self._open[replicate], rows[mine], sums[mine])

    def close(self) -> None:
        """Take the open replicates for complete."""
        for number in sorted({half // 2 for half in self._open}):
            one, reverse = self._open.pop(2 * number), self._open.pop(2 * number + 1)
            value = one + reverse
            self.beyond = np.maximum(self.beyond, np.abs(value.sum(1)))
            self._count += 1
            away = value - self._mean
            self._mean = self._mean + away / self._count
            self._squares = self._squares + away * (value - self._mean)
            self._orders = self._orders + (one - reverse) ** 2
            self._count_turn(value)
            group = number % GROUPS
            while len(self._groups) <= group:
                self._groups.append((0, np.zeros_like(value)))
            count, total = self._groups[group]
            self._groups[group] = count + 1, total + value

    def _count_turn(self, value: np.ndarray) -> None:
        self._turn = self._turn + value
        if self._count % self._references == 0:
            self._turns += 1
            mean = self._turn / self._references
            away = mean - self._turn_mean
            self._turn_mean = self._turn_mean + away / self._turns
            self._turn_squares = self._turn_squares + away * (mean - self._turn_mean)
            self._turn = np.zeros(())

    # ------------------------------------------------------------------ results
    @property
    def count(self) -> int:
        """How many replicates there are."""
        return self._count

    @property
    def correction(self) -> np.ndarray:
        """Mean of the replicates, (rows, players, k)."""
        return self._mean

    @property
    def kept(self) -> np.ndarray:
        """How much of the correction is believed, (rows, 1, k): all of it where there is no noise, or it is not shrunk."""
        noise = self.noise()
        if not self._shrinks or noise is None:
            return np.ones_like(self.difference)[:, None]
        size = (self._mean**2).sum(1, keepdims=True)
        share = np.divide((noise**2).sum(1, keepdims=True), size, out=np.zeros_like(size), where=size > 0)
        return np.clip(1 - share, 0, 1)

    def values(self) -> list[np.ndarray]:
        """Attributions: of each explained tensor (rows, ..., k), or by players (rows, players, k)."""
        return [self._fixed[0] + self.kept * self._mean] if self._count else self._fixed

    def noise(self) -> np.ndarray | None:
        """Standard error of the replicates' mean, (rows, players, k); None where nothing is random.

        Replicates differ by their references, which are drawn without replacement and cancel once all have had their turn,
        and by their orders. What an order and its reverse differ by is more than that, for they make up for one another: how much
        more, the means of whole turns tell once there are two.
        """
        if self._count < 2:
            return None
        spread = self._squares / (self._count - 1)
        if self._references == 1:
            return np.sqrt(spread / self._count)
        orders = np.minimum(self._orders / self._count, spread) * self._orders_share()
        rest = self._count % self._references
        left = rest * (1 - rest / self._references) / self._count**2
        return np.sqrt(orders / self._count + (spread - orders) * left)

    def _orders_share(self) -> np.ndarray | float:
        """Of what orders and their reverses tell of noise, what whole turns show, (rows, 1, k), and its own error more."""
        if self._turns < 2 or self._references == 1:
            return 1.0
        found = (self._turn_squares / (self._turns - 1) * self._references).sum(1, keepdims=True)
        told = np.minimum(self._orders / self._count, self._squares / (self._count - 1)).sum(1, keepdims=True)
        free = (self._turns - 1) * max(1, np.size(self._mean, 1) - 1)
        share = np.divide(found, told, out=np.ones_like(told), where=told > 0)
        return np.minimum(1.0, share * (1 + 2 * math.sqrt(2 / free)))

    def groups(self) -> list[np.ndarray]:
        """Independent estimates of the values, each from a part of the replicates; none if too few to tell noise."""
        if len(self._groups) < FEWEST:
            return []
        return [self._fixed[0] + total / count for count, total in self._groups]

    def spread_groups(self) -> list[np.ndarray]:
        """``GROUPS`` estimates around the values, as far apart as their noise is, which is less than that of groups tells.

        They are as many of however few replicates, so that rows that took more of them stand beside those that took less.
        """
        noise, groups = self.noise(), self.groups()
        if not groups or noise is None:
            return []
        plain = np.sqrt(self._squares / (self._count - 1) / self._count)
        narrowed = self.kept * np.divide(noise, plain, out=np.ones_like(noise), where=plain > 0)
        raw, whole = self._fixed[0] + self._mean, self.values()[0]
        return spread_over([whole + narrowed * (group - raw) for group in groups], GROUPS)
