"""Choose the method that an effort buys: the one whose expected distance to the Shapley values is the smallest.

An effort is a time over that of Deep SHAP. If all coalitions can be tried within it, they are. If every (row, reference) pair
can have an order and its reverse, outputs alone are used (``Sweeps``). Otherwise Deep SHAP is corrected on some references
(``Paths``), by the number of segments whose bias and noise together are expected to be the smallest. Where Deep SHAP is off by
1, paths of K segments leave a bias of about 1 / K; see docs/mathematics-of-effort.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from .coalitions import AllCoalitions
from .comparisons import DeepShap, Method
from .estimates import student_factor
from .paths import Paths
from .players import Players
from .sweeps import TWICE, Sweeps

OF_REFERENCES, OF_ORDERS = 3.0, 2.2  # noise of one replicate by what it draws, over the distance of Deep SHAP
WITHIN = 1.3  # times the effort may be taken
AT_FIRST = 2.0  # the same for a sweep where the effort is small: little that takes less comes as near
LEAST = 4  # replicates, of which a standard error can be told
MOST_SEGMENTS = 64
FROM_DEEP_SHAP = 6.0  # effort from which sweeps are drawn towards Deep SHAP, whose time is little then
REPEATED, PATIENCE = 3, 0.25  # times that each method is measured, if that takes less seconds
MEASURED_POINTS = 300  # for each row
LEAST_DISTANCE = 1 / 16  # squared, of what Deep SHAP is taken to be off, over what it seems to be
MOST_NOISE = 16.0  # and its reciprocal the least, over what is expected
STEPS_OF_COSTS = 4  # per doubling: costs are rounded to these, so that they do not change with the noise of the clock


@dataclass(frozen=True)
class Costs:
    """What the parts of an effort take and bring for a model; times are over that of Deep SHAP on the same rows.

    Attributes
    ----------
    call : time of whatever every call takes.
    pairs : time that pairs of their own take beside Deep SHAP, however few they are.
    pair : time of Deep SHAP for a pair of its own in each row, a reference beside the row.
    output : time of the outputs of one point for each row.
    noise : of replicates, over what is expected where Deep SHAP is off by as much.
    """

    call: float
    pairs: float
    pair: float
    output: float
    noise: float = 1.0


Timed = Callable[[Method], tuple[float, np.ndarray, np.ndarray | None]]


def measure(timed: Timed, players: Players, references: int) -> Costs:
    """Measure costs, rounded so that they do not change with the noise of the clock.

    Parameters
    ----------
    timed : callable
        Returns the seconds that a method takes on a few rows, their values and standard errors.
    players : Players
        Who enters coalitions.
    references : int
        How many each row is compared with.
    """
    count = players.count
    if count < 2:
        return Costs(1.0, 0.0, 1.0 / references, 1.0 / references)
    nobody = Players(tuple(np.zeros_like(cells) for cells in players.cells), ("all",), "groups")

    def least(method: Method) -> tuple[float, np.ndarray, np.ndarray | None]:
        measurements = [timed(method)]
        while len(measurements) < REPEATED and sum(measurement[0] for measurement in measurements) < PATIENCE:
            measurements.append(timed(method))
        return min(measurements, key=lambda measurement: measurement[0])

    def paths(segments: int, replicates: float) -> Paths:
        number = int(np.clip(replicates, 3 * LEAST, max(4 * references, 3 * LEAST)))
        return Paths(players, segments, number, shrinkage=False)

    def cost(method: Paths) -> tuple[float, tuple[float, np.ndarray, np.ndarray | None]]:
        """Return the seconds of a replicate, and what the method took and found."""
        fewest = replace(method, replicates=LEAST)
        timed(fewest)  # compiles what later calls use again
        less, result = least(fewest)[0], least(method)
        return max((result[0] - less) / (method.replicates - LEAST), 0.1 * less / LEAST), result

    timed(DeepShap(players))
    single, few = paths(count, MEASURED_POINTS / (count - 1)), paths(2, references / 3)
    by_rules, (of_few, *_) = cost(few)
    by_outputs, (_, nearer, errors) = cost(single)
    call, (deep, values, _) = least(Sweeps(nobody, references))[0], least(DeepShap(players))
    assert errors is not None
    by_outputs, by_rules = by_outputs / deep, by_rules / deep
    pair = by_rules / 5 if count > 2 else by_outputs / 3
    output = max(by_outputs - pair, 0.2 * by_outputs) / 2 / (count - 1)
    pairs = max(of_few / deep - 1 - few.replicates * by_rules, 0.01)
    number, correction = single.replicates, nearer - values
    expected = math.sqrt(_noise(number, references)) * student_factor(number - 1)
    noise, size = np.square(errors).sum(), np.square(correction).sum()
    away = max(size - noise, LEAST_DISTANCE * size)  # squared distance of Deep SHAP, without what is noise
    noise_ratio = math.sqrt(noise / away) / expected if away > 0 else 1.0
    noise_ratio = min(max(noise_ratio, 1 / MOST_NOISE), MOST_NOISE)
    return Costs(
        min(_round_cost(call / deep), 1.0),
        _round_cost(pairs),
        _round_cost(pair),
        _round_cost(output),
        2 ** round(math.log2(noise_ratio)),
    )


def _round_cost(cost: float) -> float:
    return float(2 ** (round(STEPS_OF_COSTS * math.log2(cost)) / STEPS_OF_COSTS))


def choose(effort: float, players: Players, references: int, seed: int, costs: Costs | None) -> Method:
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
        Of the model; they are not needed for an effort of 1.
    """
    if effort == 1 or costs is None:
        return DeepShap(players)
    expected_distances = candidates(effort, players, references, seed, costs)
    return min(expected_distances, key=lambda candidate: candidate[1])[0]


def candidates(
    effort: float, players: Players, references: int, seed: int, costs: Costs
) -> Iterator[tuple[Method, float]]:
    """Yield methods that an effort buys, and their expected distances over that of Deep SHAP."""
    count = players.count
    every = costs.call + 2**count * references * costs.output if count < 64 else math.inf
    if every <= WITHIN * effort:
        yield AllCoalitions(players), 0.0
        return
    price = 2 * costs.output * (count - 1)  # of an order and its reverse, for each row
    sweep, most = (references + TWICE) * price, effort * (WITHIN if effort >= FROM_DEEP_SHAP else AT_FIRST)
    if costs.call + sweep <= most:
        prior = effort >= FROM_DEEP_SHAP and costs.call + 1 + sweep <= most
        base = costs.call + prior
        replicates = max(round((effort - base) / price), references + TWICE)
        method = Sweeps(players, replicates, seed, base + replicates * price, prior)
        yield method, _shrunken(0.0, (costs.noise * OF_ORDERS) ** 2 / replicates)
        return
    prices = {k: costs.pair * (1 + 2 * k) for k in range(2, min(count, MOST_SEGMENTS + 1))}
    prices[count] = costs.pair + price
    cheapest = min(prices.values())
    for segments, price in prices.items():
        number = max(LEAST, int((effort - 1 - costs.pairs) / price))
        if price == cheapest or LEAST * price <= effort - 1 - costs.pairs:
            paths = Paths(players, segments, number, seed, effort=1 + costs.pairs + number * price)
            yield paths, _shrunken(part_left(paths), costs.noise**2 * _noise(number, references))


def _shrunken(bias: float, noise: float) -> float:
    """Return the expected distance, where Deep SHAP's is 1, of a correction that leaves a bias and has a variance."""
    share = (1 - bias) ** 2 / ((1 - bias) ** 2 + noise)
    return math.hypot(1 - share * (1 - bias), share * math.sqrt(noise))


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


def parse_method(text: str, players: Players) -> Method:
    """Return the method that a description is of, as ``explanation.method`` holds it.

    Raises
    ------
    InputError
        If it describes no method of deepshap, or several.
    """
    if text == DeepShap.description:
        return DeepShap(players)
    if text == AllCoalitions(players).description:
        return AllCoalitions(players)
    if match := re.fullmatch(
        r"permutation sampling, (\d+) orders .*(drawn towards .*)?, seed (\d+)(, about .*)?", text
    ):
        return Sweeps(players, int(match[1]), int(match[3]), shrinkage="drawn towards Deep SHAP" in text)
    if match := re.fullmatch(r"Deep SHAP corrected by (\d+) paths of (\d+|single) .*, seed (\d+)(, about .*)?", text):
        segments = players.count if match[2] == "single" else int(match[2])
        return Paths(players, segments, int(match[1]), int(match[3]))
    raise InputError(
        f"method={text!r} describes no single method for {players.count} players: give explanation.method of a call whose rows "
        "were all explained in one way, and the same players=."
    )
