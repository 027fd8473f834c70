"""Choose the method that an effort buys: the one whose expected distance to the Shapley values is the smallest.

An effort is a time over that of Deep SHAP. If all coalitions can be tried within it, they are. If every (row, reference) pair
can have an order and its reverse, outputs alone are used (``Sweeps``). Otherwise Deep SHAP is corrected on some references
(``Paths``), by the number of segments whose bias and noise together are expected to be the smallest. Where Deep SHAP is off by
1, paths of K segments leave a bias of about 1 / K; see docs/mathematics-of-effort.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..engines.api import Profile
from ..errors import InputError
from .coalitions import AllCoalitions
from .comparisons import DeepShap, Method
from .paths import Paths
from .players import Players
from .sweeps import TWICE, Sweeps

OF_REFERENCES, OF_ORDERS = 3.0, 2.2  # noise of one replicate by what it draws, over the distance of Deep SHAP
WITHIN = 1.3  # times the effort may be taken
LEAST = 4  # replicates, of which a standard error can be told
MOST_SEGMENTS = 64


class Costs(NamedTuple):
    """Times over that of Deep SHAP for one of the pairs in which every example meets every reference.

    Attributes
    ----------
    pair : of Deep SHAP for a pair of its own, a row beside a row.
    output : of the outputs of one point.
    """

    pair: float
    output: float


# Medians over models and lengths on PyTorch; on Keras all are within a third of these.
OF_LAYERS, OF_RECURRENCE = Costs(1.8, 0.37), Costs(4.2, 0.55)


def costs_of(profile: Profile) -> Costs:
    """Return what the parts of an effort take for a model."""
    return OF_RECURRENCE if profile.recurrent else OF_LAYERS


def choose(effort: float, players: Players, references: int, seed: int, costs: Costs) -> Method:
    """Return the method that is expected to come nearest to the Shapley values within an effort.

    Parameters
    ----------
    effort : float
        The time over that of Deep SHAP, at least 1.
    players : Players
        Who enters coalitions.
    references : int
        How many each row is compared with.
    seed : int
        Of orders and references.
    costs : Costs
        Of the model.
    """
    if effort == 1:
        return DeepShap(players)
    found = candidates(effort, players, references, seed, costs)
    return min(found, key=lambda one: one[1])[0]


def candidates(
    effort: float, players: Players, references: int, seed: int, costs: Costs
) -> Iterator[tuple[Method, float]]:
    """Yield methods that an effort buys, and their expected distances over that of Deep SHAP."""
    count = players.count
    if count <= math.log2(WITHIN * effort / costs.output):
        yield AllCoalitions(players), 0.0
        return
    price = 2 * costs.output * (count - 1) / references  # of an order and its reverse, for each row
    if (replicates := round(effort / price)) >= references + TWICE:
        yield Sweeps(players, replicates, seed, replicates * price), OF_ORDERS / math.sqrt(replicates)
        return
    prices = {k: costs.pair * (1 + 2 * k) / references for k in range(2, min(count, MOST_SEGMENTS + 1))}
    prices[count] = costs.pair / references + price
    cheapest = min(prices.values())
    for segments, price in prices.items():
        replicates = max(LEAST, int((effort - 1) / price))
        if price == cheapest or LEAST * price <= effort - 1:
            method = Paths(players, segments, replicates, seed, effort=1 + replicates * price)
            noise = _noise(replicates, references)
            yield method, math.hypot(0 if method.by_outputs else 1 / segments, math.sqrt(noise / (1 + noise)))


def _noise(replicates: int, references: int) -> float:
    """Return the expected variance of the correction over the squared distance of Deep SHAP."""
    rest = replicates % references  # references that have had one turn more than the others
    turns = rest * (1 - rest / references) / replicates**2
    return OF_REFERENCES**2 * turns + OF_ORDERS**2 / replicates


def part_left(method: Method) -> float:
    """Return the part of Deep SHAP's distance that is expected to be left beside the noise."""
    return 0.0 if not isinstance(method, Paths) or method.by_outputs else 1 / method.segments


def check_effort(effort: float, tolerance: float | None, max_effort: float | None) -> None:
    """Raise InputError for settings of the dial that make no sense."""
    for name, value in (("effort", effort), ("max_effort", 1 if max_effort is None else max_effort)):
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 1 <= value < math.inf:
            raise InputError(f"{name} must be a number of at least 1, the time that Deep SHAP takes, not {value!r}.")
    if tolerance is None and max_effort is not None:
        raise InputError("max_effort= is the most effort for tolerance=, which is missing; effort= is taken as it is.")
    if tolerance is None:
        return
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float, np.number)) or not 0 < tolerance < 1:
        raise InputError(f"tolerance must lie between 0 and 1, a share of the row's largest value, not {tolerance!r}.")
    if effort != 1:
        raise InputError("give effort= or tolerance=, not both: a tolerance takes as much effort as it needs.")
