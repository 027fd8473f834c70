"""Sweeps: permutation sampling over all references, by outputs alone (Castro et al. 2009).

In one sweep every (row, reference) pair has a random order of the players and its reverse, a *replicate*. The value of a
row is the mean over its references of the mean over their replicates. All references count alike, so nothing depends on
which references are drawn, and the values are unbiased and add up exactly. Beyond whole sweeps the remaining replicates go to
a random part of the references. Deep SHAP as a control variate would cancel, but where the noise of the orders is large,
values between the two are nearer to the Shapley values than either (``shrinkage``).

The noise is that of the orders. Where a reference has several replicates, it is told by their differences. Where a
reference has one, by what the order and its reverse differ by, which is too much, since they make up for each other; how
much too much is measured on the row's references with several replicates.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engines.interface import Comparison
from .coalitions import Draws, batch_size, endpoints, gains
from .comparisons import GROUPS, Attribution, KnownContribution, Parts, Request
from .estimates import shrink, student_factor, uncertainty
from .players import Players

TWICE = 4  # references with a second replicate, at least, from which the noise of the others is told


@dataclass(frozen=True)
class Sweeps:
    """Orders and their reverses for all references of each row.

    Parameters
    ----------
    players : Players
        Who joins coalitions.
    replicates : int
        Orders for each row, at least one for each reference.
    seed : int
        Seed of the orders, together with the content of the row.
    effort : float or None
        About how many times the time of Deep SHAP the method takes; None where that is not known.
    shrinkage : bool
        Whether values move towards Deep SHAP as far as their noise demands. That takes the time of Deep SHAP, and matters where
        the noise of the orders is larger than Deep SHAP's distance to the Shapley values.
    """

    players: Players
    replicates: int
    seed: int = 0
    effort: float | None = None
    shrinkage: bool = False

    @property
    def description(self) -> str:
        """What is done, in a sentence."""
        time = "" if self.effort is None else f", about {self.effort:.2g} times the time of Deep SHAP"
        return (
            f"permutation sampling, {self.replicates} orders of single players and their reverses for each row, over all "
            f"references{', drawn towards Deep SHAP by their noise' if self.shrinkage else ''}, seed {self.seed}{time}"
        )

    def pairs(self, comparison: Comparison) -> int:
        """Return the number of points."""
        points = 2 * self.replicates * max(self.players.count - 1, 1)
        of_references = comparison.pairs if comparison.examples.extra else len(comparison.references)
        return len(comparison.examples) * (points + 1) + of_references

    def parts(self, comparison: Comparison) -> Parts:
        """Evaluate the orders, starting with the references that have more replicates, and sum the gains."""
        rows, references = len(comparison.examples), len(comparison.references) if comparison.all_pairs else 1
        draws = Draws(comparison, self.players, self.seed)
        ends = yield from endpoints(comparison, self.players)
        values = np.zeros((rows, self.players.count, comparison.outputs.shape[1]))
        noise = _Noise(values, references)
        least, more = divmod(max(self.replicates, references), references)
        for number, positions in ((least + 1, np.arange(more)), (least, np.arange(more, references))):
            position, row = (a.ravel() for a in np.meshgrid(positions, np.arange(rows), indexing="ij"))
            size = max(1, batch_size(self.players) // (2 * number * max(self.players.count - 1, 1)))
            for start in range(0, len(position), size):
                chunk = slice(start, start + size)
                player_gains = yield from self._gains(comparison, draws, ends, row[chunk], position[chunk], number)
                np.add.at(values, row[chunk], player_gains.mean((1, 2)) / references)
                noise.add(player_gains, row[chunk], position[chunk])
        degrees = self.replicates - references
        factor = student_factor(degrees) if degrees > 0 else 1.0
        if not self.shrinkage:
            yield KnownContribution(values, np.arange(rows), np.ones(rows))
            yield uncertainty(noise.spread, noise.groups, factor)
            return
        deep = yield Attribution(comparison)
        correction, errors = shrink(values - deep / references, noise.spread, noise.groups, factor)
        yield KnownContribution(deep / references + correction, np.arange(rows), np.ones(rows))
        yield errors

    def _gains(
        self,
        comparison: Comparison,
        draws: Draws,
        ends: tuple[np.ndarray, np.ndarray],
        row: np.ndarray,
        position: np.ndarray,
        number: int,
    ) -> Generator[Request, Any, np.ndarray]:
        """Return the gains of ``number`` replicates for the references at these positions of their rows' sequences."""
        reference = draws.references[row, position]
        pairs = Comparison(comparison.examples[row], comparison.references[reference], False, comparison.outputs[row])
        references = ends[1].shape[1]
        orders = draws.orders(row[:, None], position[:, None] + references * np.arange(number))
        explained = ends[0][row], ends[1][row, reference if comparison.all_pairs else 0]
        return (yield from gains(pairs, explained, orders, self.players))


class _Noise:
    """Sums of squared deviations, and sums of deviations in groups, while the gains come in."""

    def __init__(self, nothing: np.ndarray, references: int) -> None:
        self._squares, self._groups = nothing.copy(), np.zeros((GROUPS, *nothing.shape))
        self._between, self._within = nothing.copy(), nothing.copy()  # replicates; orders and their reverses
        self._references = references

    def add(self, player_gains: np.ndarray, row: np.ndarray, position: np.ndarray) -> None:
        """Add gains (pairs, orders, 2, players, k)."""
        number = player_gains.shape[1]
        half = (player_gains[:, :, 0] - player_gains[:, :, 1]) / 2
        if number > 1:
            values = player_gains.mean(2)
            away = (values - values.mean(1, keepdims=True)) / math.sqrt(number * (number - 1))
            np.add.at(self._between, row, number * (away**2).sum(1))
            np.add.at(self._within, row, (half**2).mean(1))
        else:
            away = half * np.sqrt(self._share())[row][:, None]
        away = away / self._references
        np.add.at(self._squares, row, (away**2).sum(1))
        group = (position[:, None] + np.arange(number)) % GROUPS
        np.add.at(self._groups, (group, row[:, None]), away)

    def _share(self) -> np.ndarray:
        """Return how much of what orders and reverses differ by is noise of their means, in each row: (rows, 1, k)."""
        between, within = self._between.sum(1, keepdims=True), self._within.sum(1, keepdims=True)
        return np.divide(between, within, out=np.ones_like(within), where=within > 0)

    @property
    def spread(self) -> np.ndarray:
        """Standard error of the values."""
        return np.sqrt(self._squares)

    @property
    def groups(self) -> np.ndarray:
        """Independent deviations of the values."""
        return self._groups * GROUPS
