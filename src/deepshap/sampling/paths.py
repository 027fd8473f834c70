"""Paths from a reference to an example: what Deep SHAP's rules miss, estimated on some of the references.

A path takes the players from the reference to the example in a random order, cut into consecutive blocks, and each of its
segments is explained by Deep SHAP's rules. The contributions of a path add up to the difference of outputs whatever the
number of segments. One segment is Deep SHAP itself; segments of one player are permutation sampling (Castro et al. 2009),
which needs outputs alone; in between the rules share only the interactions within a block, so that a bias of about one over
the number of segments is left of Deep SHAP's distance.

Attributions differ much from reference to reference, the *error* of Deep SHAP differs little. So Deep SHAP explains all
references, and paths of a few references correct it: a cheap level everywhere and an expensive one on a sample (Giles 2008).
An order and its reverse are one replicate (Mitchell et al. 2022). The mean correction is drawn towards 0 as far as its noise
demands (James & Stein 1961), because the correction from few replicates would be further away than none.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engines.interface import Comparison
from .coalitions import Draws, batch_size, endpoints, gains
from .comparisons import GROUPS, Attribution, DeepShap, KnownContribution, Parts, Request, Uncertainty
from .estimates import shrink, student_factor, uncertainty
from .players import Players


@dataclass(frozen=True)
class Paths:
    """Deep SHAP over all references, corrected by paths of coalitions on some of them.

    Parameters
    ----------
    players : Players
        Who joins coalitions.
    segments : int
        Segments of each path; as many as there are players for permutation sampling.
    replicates : int
        Pairs of an order and its reverse for each row, each with a reference.
    seed : int
        Seed of the orders and references, together with the content of the row.
    effort : float or None
        About how many times the time of Deep SHAP the method takes; None where that is not known.
    shrinkage : bool
        Whether the correction is drawn towards 0 by its noise (James & Stein 1961). Without it the correction is unbiased where
        segments are single players.
    """

    players: Players
    segments: int
    replicates: int
    seed: int = 0
    effort: float | None = None
    shrinkage: bool = True

    @property
    def by_outputs(self) -> bool:
        """Whether segments are single players, so that outputs alone tell what they contribute."""
        return self.segments >= self.players.count

    @property
    def description(self) -> str:
        """What is done, in a sentence."""
        segments = "single players (permutation sampling)" if self.by_outputs else f"{self.segments} segments"
        time = "" if self.effort is None else f", about {self.effort:.2g} times the time of Deep SHAP"
        return (
            f"Deep SHAP corrected by {self.replicates} paths of {segments} and their reverses for each row, "
            f"seed {self.seed}{time}"
        )

    def pairs(self, comparison: Comparison) -> int:
        """Return the number of pairs of Deep SHAP, and those of the replicates."""
        points = 2 * (self.players.count - 1) if self.by_outputs else 2 * self.segments
        return comparison.pairs + len(comparison.examples) * self.replicates * (1 + points)

    def parts(self, comparison: Comparison) -> Parts:
        """Explain all references by Deep SHAP, and then correct it by paths minus Deep SHAP on some references."""
        yield from DeepShap(self.players).parts(comparison)
        rows = len(comparison.examples)
        draws = Draws(comparison, self.players, self.seed)
        ends = (yield from endpoints(comparison, self.players)) if self.by_outputs else None
        corrections = _Corrections((rows, self.players.count, comparison.outputs.shape[1]), draws.references.shape[1])
        points = 2 * (self.players.count - 1 if self.by_outputs else self.segments)
        size = max(1, batch_size(self.players) // max(rows * points, 1))
        for start in range(0, self.replicates, size):
            replicates = np.arange(start, min(start + size, self.replicates))
            corrections.add(replicates, (yield from self._corrections(comparison, draws, ends, replicates)))
        correction, errors = corrections.result(
            0.0 if self.by_outputs else 1 / max(self.segments - 1, 1), self.shrinkage
        )
        yield KnownContribution(correction, np.arange(rows), np.ones(rows))
        yield errors

    def _corrections(
        self, comparison: Comparison, draws: Draws, ends: tuple[np.ndarray, np.ndarray] | None, replicates: np.ndarray
    ) -> Generator[Request, Any, np.ndarray]:
        """Return paths minus Deep SHAP for an order and its reverse, (replicates, rows, 2, players, k)."""
        row = np.tile(np.arange(len(comparison.examples)), len(replicates))
        position = np.repeat(replicates % draws.references.shape[1], len(comparison.examples))
        reference = draws.references[row, position]
        orders = draws.orders(row, np.repeat(replicates, len(comparison.examples)))
        pairs = Comparison(
            comparison.examples[row],
            comparison.references[reference].described_by(comparison.examples[row]),
            False,
            comparison.outputs[row],
        )
        of_rules = yield Attribution(pairs)
        if ends is not None:
            explained = ends[0][row], ends[1][row, reference if comparison.all_pairs else 0]
            of_paths = (yield from gains(pairs, explained, orders[:, None], self.players))[:, 0]
        else:
            of_paths = yield from self._segments(pairs, orders, np.abs(of_rules).sum(2))
        return (of_paths - of_rules[:, None]).reshape(len(replicates), len(comparison.examples), *of_paths.shape[1:])

    def _segments(
        self, pairs: Comparison, orders: np.ndarray, weights: np.ndarray
    ) -> Generator[Request, Any, np.ndarray]:
        """Return the contributions along an order and its reverse, segment by segment: (pairs, 2, players, k)."""
        blocks = np.stack([cut(order, weights, self.segments) for order in (orders, orders[:, ::-1])], 1)
        ends = np.arange(self.segments)[:, None]
        pair, half, segment = np.nonzero((blocks[:, :, None] == ends).any(3))  # a block may be empty
        block = blocks[pair, half]
        examples, references = pairs.examples[pair], pairs.references[pair]
        after, before = (
            examples.mixed(references, self.players.spread(inside))
            for inside in (block <= segment[:, None], block < segment[:, None])
        )
        values = yield Attribution(Comparison(after, before, False, pairs.outputs[pair]))
        contributions = np.zeros((len(orders), 2, *values.shape[1:]))
        np.add.at(contributions, (pair, half), values)
        return contributions


def cut(orders: np.ndarray, weights: np.ndarray, segments: int) -> np.ndarray:
    """Return the number of each player's block, (pairs, players), in blocks of about the same weight.

    The orders are cut where the running sum of the weights passes multiples of the total over ``segments``, so that strong
    players stand in short blocks.
    """
    along = np.take_along_axis(weights, orders, 1)
    total = along.sum(1, keepdims=True)
    even = np.ones_like(along)
    along = np.where(total > 0, along, even)
    middle = (np.cumsum(along, 1) - along / 2) / along.sum(1, keepdims=True)
    blocks = np.minimum((middle * segments).astype(int), segments - 1)
    block_numbers = np.empty_like(blocks)
    np.put_along_axis(block_numbers, orders, blocks, 1)
    return block_numbers


class _Corrections:
    """Mean and spread of the corrections, (rows, players, k), while replicates come in (Welford 1962)."""

    def __init__(self, shape: tuple[int, ...], references: int) -> None:
        self._references, self._count = references, 0
        self._mean, self._squares, self._orders = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._sums, self._counts = np.zeros((GROUPS, *shape)), np.zeros(GROUPS, int)

    def add(self, numbers: np.ndarray, corrections: np.ndarray) -> None:
        """Add replicates (replicates, rows, 2, players, k)."""
        for number, (forward, reverse) in zip(numbers, corrections.swapaxes(1, 2), strict=True):
            value = (forward + reverse) / 2
            self._count += 1
            away = value - self._mean
            self._mean += away / self._count
            self._squares += away * (value - self._mean)
            self._orders += (forward - reverse) ** 2 / 4
            self._sums[number % GROUPS] += value
            self._counts[number % GROUPS] += 1

    def noise(self) -> np.ndarray:
        """Return the standard error of the mean.

        Replicates differ by their references, which are drawn without replacement and cancel once all have had their turn,
        and by their orders, of which an order and its reverse tell.
        """
        spread = self._squares / (self._count - 1)
        if self._references == 1:
            return np.sqrt(spread / self._count)
        orders = np.minimum(self._orders / self._count, spread)
        rest = self._count % self._references
        left = rest * (1 - rest / self._references) / self._count**2
        return np.sqrt(orders / self._count + (spread - orders) * left)

    def result(self, bias: float, shrinkage: bool) -> tuple[np.ndarray, Uncertainty]:
        """Return the correction and its errors; what the segments have removed of Deep SHAP's distance leaves ``bias`` of it."""
        noise, factor = self.noise(), student_factor(self._count - 1)
        groups = self._sums[self._counts > 0] / self._counts[self._counts > 0][:, None, None, None] - self._mean
        if shrinkage:
            return shrink(self._mean, noise, groups, factor, bias)
        return self._mean, uncertainty(noise, groups, factor, bias * np.abs(self._mean))
