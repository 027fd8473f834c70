"""Coalitions of players: all of them where they are few, and random orders in which players join.

The game of a row x and a reference b has the value v(S) = f(x on S, b elsewhere) for each coalition S of players. A player's
Shapley value is the mean, over all orders in which players can join, of what it adds to v when it joins (Shapley 1953).
``AllCoalitions`` computes the mean exactly from the 2^n values. ``Draws`` draws orders for the methods that sample, and
``gains`` evaluates what each player adds along an order and along its reverse: an order and its reverse together are exact
for all interactions of two players (Mitchell et al. 2022).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..engines.interface import Comparison, Points
from .comparisons import GROUPS, Evaluation, KnownContribution, Parts, Request, Uncertainty
from .players import Players

MOST_POINTS, MOST_CELLS = 4096, 2**24  # that a method prepares at a time


def batch_size(players: Players) -> int:
    """Return how many points are prepared at a time."""
    return max(1, min(MOST_POINTS, MOST_CELLS // max(1, len(players.flat))))


# ---------------------------------------------------------------------- all coalitions
@dataclass(frozen=True)
class AllCoalitions:
    """The Shapley values by their definition (Shapley 1953), from the outputs of all coalitions on all references.

    Parameters
    ----------
    players : Players
        Who joins coalitions; of n players there are 2^n.

    Examples
    --------
    >>> from deepshap.sampling import AllCoalitions, Players
    >>> by_feature = Players((np.tile(np.arange(3), (5, 1)),), ("pulse", "pressure", "temperature"), "features")
    >>> explainer(x, method=AllCoalitions(by_feature)).values.shape  # 6 rows, 3 players, 1 output
    (6, 3, 1)
    """

    players: Players

    @property
    def description(self) -> str:
        """What is done, in a sentence."""
        return f"Shapley values from all {2**self.players.count} coalitions of {self.players.count} players"

    def pairs(self, comparison: Comparison) -> int:
        """Return the number of points."""
        return comparison.pairs * 2**self.players.count

    def parts(self, comparison: Comparison) -> Parts:
        """Evaluate all coalitions of some pairs at a time."""
        count = self.players.count
        inside = (np.arange(2**count)[:, None] >> np.arange(count)) & 1 > 0  # (coalitions, players)
        weights, references = _shapley_weights(inside), len(comparison.references) if comparison.all_pairs else 1
        size = max(1, batch_size(self.players) // len(inside))
        for start in range(0, comparison.pairs, size):
            number = np.arange(start, min(start + size, comparison.pairs))
            rows = number // references
            others = number % references if comparison.all_pairs else rows
            outputs = yield from self._outputs(comparison.examples[rows], comparison.references[others], inside)
            chosen = np.take_along_axis(outputs, comparison.outputs[rows][:, None, :], 2)
            values = np.tensordot(chosen, weights, (1, 1)).swapaxes(1, 2)
            yield KnownContribution(values, rows, np.full(len(rows), 1 / references))
        nothing = np.zeros((len(comparison.examples), count, comparison.outputs.shape[1]))
        yield Uncertainty(nothing, np.zeros((GROUPS, *nothing.shape)))

    def _outputs(self, examples: Points, references: Points, inside: np.ndarray) -> Generator[Request, Any, np.ndarray]:
        """Return the outputs of each coalition of each pair, (pairs, coalitions, outputs)."""
        pairs, coalitions, outputs, size = len(examples), len(inside), [], batch_size(self.players)
        for start in range(0, pairs * coalitions, size):
            pair, coalition = np.divmod(np.arange(start, min(start + size, pairs * coalitions)), coalitions)
            cells = self.players.spread(inside[coalition])
            outputs.append((yield Evaluation(examples[pair].mixed(references[pair], cells))))
        return np.concatenate(outputs).reshape(pairs, coalitions, -1)


def _shapley_weights(inside: np.ndarray) -> np.ndarray:
    """Return the weight of each coalition's value for each player, (players, coalitions)."""
    count, sizes = inside.shape[1], inside.sum(1)
    of_members = np.array([math.factorial(s - 1) * math.factorial(count - s) if s else 0 for s in range(count + 1)])
    of_others = np.array(
        [math.factorial(s) * math.factorial(count - s - 1) if s < count else 0 for s in range(count + 1)]
    )
    return (np.where(inside, of_members[sizes][:, None], -of_others[sizes][:, None]) / math.factorial(count)).T


# ---------------------------------------------------------------------- gains along orders
def endpoints(comparison: Comparison, players: Players) -> Generator[Request, Any, tuple[np.ndarray, np.ndarray]]:
    """Return the explained outputs of the examples, (rows, k), and of each row's references, (rows, references, k)."""
    examples = np.take_along_axis((yield Evaluation(comparison.examples)), comparison.outputs, 1)
    count, references = len(comparison.examples), len(comparison.references) if comparison.all_pairs else 1
    if comparison.all_pairs and not comparison.examples.extra:
        outputs = yield Evaluation(comparison.references)
        return examples, outputs[np.arange(references)[:, None], comparison.outputs[:, None, :]]
    reference_outputs, size = [], batch_size(players)
    for start in range(0, count * references, size):
        row, reference = np.divmod(np.arange(start, min(start + size, count * references)), references)
        points = comparison.references[reference if comparison.all_pairs else row].described_by(
            comparison.examples[row]
        )
        reference_outputs.append(np.take_along_axis((yield Evaluation(points)), comparison.outputs[row], 1))
    return examples, np.concatenate(reference_outputs).reshape(count, references, -1)


def gains(
    pairs: Comparison, ends: tuple[np.ndarray, np.ndarray], orders: np.ndarray, players: Players
) -> Generator[Request, Any, np.ndarray]:
    """Return what each player adds when it joins, along orders and along their reverses.

    Parameters
    ----------
    pairs : Comparison
        Row k with row k.
    ends : pair of arrays
        Explained outputs of the examples and of the references of the pairs, (pairs, k).
    orders : array
        Orders of the players for each pair, (pairs, orders, players).
    players : Players
        Who joins.

    Returns
    -------
    array
        (pairs, orders, 2, players, k), an order and its reverse along the third axis.
    """
    orders = np.stack([orders, orders[:, :, ::-1]], 2)  # (pairs, orders, 2, players)
    count, number, _, size = orders.shape
    position = np.argsort(orders, -1)
    joined = position[..., None, :] < np.arange(1, size)[:, None]  # (pairs, orders, 2, points between, players)
    between = np.empty((count, number, 2, size + 1, pairs.outputs.shape[1]))
    between[..., 0, :], between[..., -1, :] = (end[:, None, None] for end in ends[::-1])
    if size > 1:
        masks = [cells.reshape(count, -1, *cells.shape[1:]) for cells in players.spread(joined.reshape(-1, size))]
        outputs = yield Evaluation(pairs.examples.coalitions(pairs.references, masks))
        outputs = np.take_along_axis(outputs, pairs.outputs.repeat(2 * number * (size - 1), 0), 1)
        between[..., 1:-1, :] = outputs.reshape(count, number, 2, size - 1, -1)
    return np.take_along_axis(np.diff(between, axis=3), position[..., None], 3)


# ---------------------------------------------------------------------- random draws
@dataclass(frozen=True)
class Draws:
    """Orders and references for each row, from the content of the row and a seed alone.

    Replicate r of a row takes an order of its own, and reference r of a random sequence in which every reference stands
    once; behind the last reference the sequence begins again.
    """

    comparison: Comparison
    players: Players
    seed: int

    @cached_property
    def _seeds(self) -> list[int]:
        return [content(self.comparison.examples, row) ^ self.seed for row in range(len(self.comparison.examples))]

    def orders(self, rows: np.ndarray, replicates: np.ndarray) -> np.ndarray:
        """Return the order of the players in replicates of rows, (..., players), from the numbers of both, (...).

        Each player draws a number: more players behind the others (padding) leave the order of the others as it is.
        """
        seeds = np.array([seed % 2**64 for seed in self._seeds], np.uint64)[rows]
        return np.argsort(_random_numbers(seeds, replicates, self.players.count), -1, kind="stable")

    @cached_property
    def references(self) -> np.ndarray:
        """Numbers of the references in the order in which each row takes them, (rows, references)."""
        if not self.comparison.all_pairs:
            return np.arange(len(self.comparison.examples))[:, None]
        count = len(self.comparison.references)
        return np.stack([np.random.default_rng([seed, 2]).permutation(count) for seed in self._seeds])


def _random_numbers(seeds: np.ndarray, replicates: np.ndarray, players: int) -> np.ndarray:
    """Return random numbers (..., players), each a function of a seed, a replicate, both (...), and a player alone.

    The finalizer of SplitMix64 (Steele, Lea & Flood 2014), once for each replicate and once for each of its players.
    """

    def mixed(z: np.ndarray) -> np.ndarray:
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    step = np.uint64(0x9E3779B97F4A7C15)
    streams = mixed(seeds + step * (replicates.astype(np.uint64) + np.uint64(1)))
    return mixed(streams[..., None] + step * (np.arange(players, dtype=np.uint64) + np.uint64(1)))


def content(points: Points, row: int) -> int:
    """Return a number made of what a row holds: the same in every chunk, process and framework, whatever its padding.

    A whole number that describes a row is taken for its length, and zeros at the end for padding. What stands in the padding
    must not matter; in a row without padding a little less is looked at.
    """
    described = [_plain(e[row]) for e in points.extra if points.form.has_rows(e)]
    lengths = [int(e) for e in described if e.ndim == 0 and e >= 1 and e == np.floor(e)]
    digest = hashlib.blake2b(digest_size=8)
    for entry in (*(_plain(array[row]) for array in points.inputs), *described):
        fitting = [length for length in lengths if entry.ndim and length <= len(entry)]
        unpadded = entry[: max(fitting, default=None)] if entry.ndim else entry
        digest.update(np.trim_zeros(unpadded.ravel(), "b").tobytes() + b"|")
    return int.from_bytes(digest.digest(), "little")


def _plain(entry: Any) -> np.ndarray:
    """Return an entry of a row as numbers, without negative zeros."""
    return (entry.detach().cpu().double().numpy() if hasattr(entry, "detach") else np.asarray(entry, np.float64)) + 0.0
