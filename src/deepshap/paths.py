"""From Deep SHAP to the Shapley values: paths of coalitions, and all coalitions where they are few.

A path takes the players from the reference to the example in a random order, cut into consecutive blocks, and each of its
segments is explained by Deep SHAP's rules: the contributions of a path add up to the difference of outputs whatever the
number of segments. One segment is Deep SHAP itself, segments of one player are permutation sampling (Castro et al. 2009);
in between the rules share only the interactions within a block. An order and its reverse are one replicate (Mitchell et
al. 2022). Paths of a few references correct Deep SHAP over all of them, which serves as their control variate.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .engines.api import Comparison, Points
from .methods import DeepShap, Evaluation, Known, Parts, Request, Term
from .players import Players

MOST_POINTS, MOST_CELLS = 4096, 2**24  # that a method prepares at a time


def _batch(players: Players) -> int:
    """Points of so many players that are prepared at a time."""
    return max(1, min(MOST_POINTS, MOST_CELLS // max(1, len(players.flat))))


# ---------------------------------------------------------------------- paths
@dataclass(frozen=True)
class Paths:
    """Deep SHAP over all references, corrected by paths of coalitions on some of them.

    Attributes
    ----------
    players : who enters coalitions.
    segments : of each path; as many as there are players for permutation sampling, which needs model outputs only.
    replicates : pairs of an order and its reverse for each row, each with a reference.
    seed : of the orders and references, together with the content of the row.
    shrinks : whether the correction is drawn towards 0 as far as its noise demands; without that it is unbiased where
        segments are single players.
    effort : about the time that all this takes, over that of Deep SHAP; None where that is not known.
    """

    players: Players
    segments: int
    replicates: int
    seed: int = 0
    shrinks: bool = False
    effort: float | None = None

    @property
    def by_outputs(self) -> bool:
        """Whether segments are single players, so that outputs alone tell what they contribute."""
        return self.segments >= self.players.count

    @property
    def description(self) -> str:
        """What is done, in a sentence."""
        segments = "single players (permutation sampling)" if self.by_outputs else f"{self.segments} segments"
        told = "" if self.effort is None else f", about {self.effort:.2g} times the time of Deep SHAP"
        return (
            f"Deep SHAP corrected by {self.replicates} paths of {segments} and their reverses for each row, "
            f"seed {self.seed}{told}"
        )

    def pairs(self, whole: Comparison) -> int:
        """Those of Deep SHAP, and what each replicate takes."""
        each = 2 * (self.players.count + 1) if self.by_outputs else 2 * self.segments
        return whole.pairs + len(whole.examples) * self.replicates * (1 + each)

    def parts(self, whole: Comparison) -> Parts:
        """Deep SHAP over all references, and then paths minus Deep SHAP on sampled ones."""
        yield from DeepShap(self.players).parts(whole)
        draws = [_Draws(self, whole, row) for row in range(len(whole.examples))]
        each = self.players.count if self.by_outputs else 2 * self.segments  # points of a pair
        size = max(1, _batch(self.players) // (len(draws) * each))
        for start in range(0, self.replicates, size):
            some = np.arange(start, min(start + size, self.replicates))
            at, replicates = np.tile(np.arange(len(draws)), len(some)), np.repeat(some, len(draws))
            others = np.stack([own.references(some) for own in draws], 1).ravel()
            orders = np.stack([own.orders(some) for own in draws], 1).reshape(len(at), -1)
            beside = Comparison(whole.examples[at], whole.references[others], False, whole.outputs[at])
            weight = np.full(len(at), -0.5)
            of_rules = yield Term(beside, at, weight, 2 * replicates)
            yield Known(of_rules, at, weight, 2 * replicates + 1)
            if not self.by_outputs:
                yield self._segments(beside, at, replicates, orders, np.abs(of_rules).sum(2))
                continue
            for half, direction in enumerate((orders, orders[:, ::-1])):
                yield from self._marginal(beside, at, 2 * replicates + half, direction)

    def _segments(
        self, beside: Comparison, rows: np.ndarray, replicates: np.ndarray, orders: np.ndarray, weights: np.ndarray
    ) -> Term:
        """From each reference two ways to its example, in an order and its reverse, every point beside the one before."""
        blocks = np.stack([cut(order, weights, self.segments) for order in (orders, orders[:, ::-1])], 1)
        entered = blocks[:, :, None] <= np.arange(self.segments)[:, None]  # (pairs, 2, segments, players)
        moves = (blocks[:, :, None] == np.arange(self.segments)[:, None]).any(3)  # a block may be empty
        count, *_, players = entered.shape
        inside = np.concatenate([np.zeros((count, 1, players), bool), entered.reshape(count, -1, players)], 1)
        there = np.concatenate([np.ones((count, 1), bool), moves.reshape(count, -1)], 1)
        pair, place = np.nonzero(there)
        half, starts = (place > self.segments).astype(int), np.flatnonzero(place == 0)
        before = np.arange(-1, len(pair) - 1)
        before[(place == 0) | (np.diff(half, prepend=0) > 0)] = np.repeat(starts, 2)  # where either order begins
        points = beside.examples[pair].mixed(beside.references[pair], self.players.spread(inside[there]))
        ways = Comparison.of_way(points, before, beside.outputs[pair])
        return Term(ways, rows[pair], np.where(place > 0, 0.5, 0.0), 2 * replicates[pair] + half)

    def _marginal(self, beside: Comparison, rows: np.ndarray, replicates: np.ndarray, orders: np.ndarray) -> Parts:
        """What each player adds when it enters, from the outputs of all points on the way."""
        count, players = orders.shape
        place = np.argsort(orders, 1)
        entered = place[:, None, :] < np.arange(players + 1)[None, :, None]  # (pairs, points, players)
        flat = entered.reshape(-1, players)
        at = np.repeat(np.arange(count), players + 1)
        points = beside.examples[at].mixed(beside.references[at], self.players.spread(flat))
        outputs = (yield Evaluation(points)).reshape(count, players + 1, -1)
        outputs = np.take_along_axis(outputs, beside.outputs[:, None, :], 2)
        gains = np.take_along_axis(np.diff(outputs, axis=1), place[..., None], 1)
        yield Known(gains, rows, np.full(count, 0.5), replicates)


def cut(orders: np.ndarray, weights: np.ndarray, segments: int) -> np.ndarray:
    """Blocks of about the same weight: the number of each player's block, (pairs, players).

    The orders are cut where the running sum of the weights passes multiples of the total over ``segments``, so that strong
    players stand in short blocks.
    """
    along = np.take_along_axis(weights, orders, 1)
    total = along.sum(1, keepdims=True)
    even = np.ones_like(along)
    along = np.where(total > 0, along, even)
    middle = (np.cumsum(along, 1) - along / 2) / along.sum(1, keepdims=True)
    blocks = np.minimum((middle * segments).astype(int), segments - 1)
    placed = np.empty_like(blocks)
    np.put_along_axis(placed, orders, blocks, 1)
    return placed


@dataclass
class _Draws:
    """Orders and references of one row, from its content and the seed alone."""

    method: Paths
    whole: Comparison
    row: int

    @cached_property
    def _seed(self) -> int:
        return content(self.whole.examples, self.row) ^ self.method.seed

    def orders(self, replicates: np.ndarray) -> np.ndarray:
        """Of the players, by a number that each draws: more of them behind (padding) leave the order of the others."""
        return np.argsort(_drawn(self._seed, replicates, self.method.players.count), 1, kind="stable")

    def references(self, replicates: np.ndarray) -> np.ndarray:
        """Without replacement, and again from the start when all have had their turn."""
        if not self.whole.crossed:
            return np.full(len(replicates), self.row)
        turns, places = np.divmod(replicates, len(self.whole.references))
        return np.array([self._turn(int(turn))[place] for turn, place in zip(turns, places, strict=True)])

    def _turn(self, turn: int) -> np.ndarray:
        if turn not in self._turns:
            generator = np.random.default_rng([self._seed, 2, turn])
            self._turns[turn] = generator.permutation(len(self.whole.references))
        return self._turns[turn]

    @cached_property
    def _turns(self) -> dict[int, np.ndarray]:
        return {}


def _drawn(seed: int, replicates: np.ndarray, players: int) -> np.ndarray:
    """Random numbers (replicates, players) of which each depends on the seed and its own two numbers alone.

    The finalizer of SplitMix64 (Steele, Lea & Flood 2014), once for each replicate and once for each of its players.
    """

    def mixed(z: np.ndarray) -> np.ndarray:
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    step = np.uint64(0x9E3779B97F4A7C15)
    own = mixed(np.uint64(seed % 2**64) + step * (replicates.astype(np.uint64) + np.uint64(1)))
    return mixed(own[:, None] + step * (np.arange(players, dtype=np.uint64) + np.uint64(1)))


def content(points: Points, row: int) -> int:
    """A number made of what a row holds, the same in every chunk, process and framework, whatever its padding.

    A whole number that describes a row is taken for its length, and zeros at the end for padding: what stands there must
    not matter, and where it is none a little less is looked at.
    """
    described = [_plain(e[row]) for e in points.extra if points.form.has_rows(e)]
    lengths = [int(e) for e in described if e.ndim == 0 and e >= 1 and e == np.floor(e)]
    digest = hashlib.blake2b(digest_size=8)
    for one in (*(_plain(array[row]) for array in points.inputs), *described):
        fitting = [length for length in lengths if one.ndim and length <= len(one)]
        known = one[: max(fitting, default=None)] if one.ndim else one
        digest.update(np.trim_zeros(known.ravel(), "b").tobytes() + b"|")
    return int.from_bytes(digest.digest(), "little")


def _plain(one: Any) -> np.ndarray:
    """An entry of a row as numbers, without negative zeros."""
    return (one.detach().cpu().double().numpy() if hasattr(one, "detach") else np.asarray(one, np.float64)) + 0.0


# ---------------------------------------------------------------------- all coalitions
@dataclass(frozen=True)
class AllCoalitions:
    """The Shapley values by their definition: outputs of all coalitions on all references (Shapley 1953)."""

    players: Players
    shrinks: bool = False

    @property
    def description(self) -> str:
        """What is done, in a sentence."""
        return f"Shapley values from all {2**self.players.count} coalitions of {self.players.count} players"

    def pairs(self, whole: Comparison) -> int:
        """All coalitions for each pair."""
        return whole.pairs * 2**self.players.count

    def parts(self, whole: Comparison) -> Parts:
        """Outputs of all coalitions of some pairs at a time."""
        count = self.players.count
        inside = (np.arange(2**count)[:, None] >> np.arange(count)) & 1 > 0  # (coalitions, players)
        weights, references = _shapley_weights(inside), len(whole.references) if whole.crossed else 1
        size = max(1, _batch(self.players) // len(inside))
        for start in range(0, whole.pairs, size):
            number = np.arange(start, min(start + size, whole.pairs))
            rows = number // references
            others = number % references if whole.crossed else rows
            outputs = yield from self._outputs(whole.examples[rows], whole.references[others], inside)
            chosen = np.take_along_axis(outputs, whole.outputs[rows][:, None, :], 2)
            values = np.tensordot(chosen, weights, (1, 1)).swapaxes(1, 2)
            yield Known(values, rows, np.full(len(rows), 1 / references))

    def _outputs(self, examples: Points, references: Points, inside: np.ndarray) -> Generator[Request, Any, np.ndarray]:
        """Those of each coalition of each pair, (pairs, coalitions, outputs)."""
        pairs, coalitions, found, size = len(examples), len(inside), [], _batch(self.players)
        for start in range(0, pairs * coalitions, size):
            pair, coalition = np.divmod(np.arange(start, min(start + size, pairs * coalitions)), coalitions)
            own = self.players.spread(inside[coalition])
            found.append((yield Evaluation(examples[pair].mixed(references[pair], own))))
        return np.concatenate(found).reshape(pairs, coalitions, -1)


def _shapley_weights(inside: np.ndarray) -> np.ndarray:
    """What the value of each coalition counts for each player, (players, coalitions)."""
    count, sizes = inside.shape[1], inside.sum(1)
    own = np.array([math.factorial(s - 1) * math.factorial(count - s) if s else 0 for s in range(count + 1)])
    others = np.array([math.factorial(s) * math.factorial(count - s - 1) if s < count else 0 for s in range(count + 1)])
    return (np.where(inside, own[sizes][:, None], -others[sizes][:, None]) / math.factorial(count)).T
