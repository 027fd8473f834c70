"""The dial: which method, with how many segments and replicates, an effort buys; and how far Deep SHAP can be trusted.

What the choice rests on was measured on trained networks, see docs/dial.md: where Deep SHAP is off by 1, paths of K segments
leave a bias of about 1 / K. The noise of replicates comes nearly all from their references, so that it is gone when each
has had a turn; before that the correction is shrunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .engines.api import Profile
from .errors import InputError
from .estimates import GROUPS, RunningEstimate
from .methods import DeepShap, Method
from .paths import AllCoalitions, Paths
from .players import Players

OF_REFERENCES, OF_ORDERS = 3.0, 2.2  # noise of one replicate by what it draws, over the distance of Deep SHAP
WITHIN = 1.5  # times the effort may be taken
LEAST = 4  # replicates, of which a standard error can be told
STILL = 1e-6  # of a row's largest value: who moves less than that does not play
GOOD = 0.05  # a distance to the Shapley values that needs no remark


# ---------------------------------------------------------------------- what an effort buys
class Costs(NamedTuple):
    """Times over that of a pair of each with each: of a row beside a row, of a point on a way, and of an output alone."""

    beside: float
    segment: float
    output: float

    def of_replicate(self, segments: int, players: int) -> float:
        """Deep SHAP on its reference, an order and its reverse."""
        return self.beside + 2 * (self.segment * segments if segments < players else self.output * (players + 1))


# Medians over models and lengths on PyTorch; on Keras all three are within a third of these.
OF_LAYERS, OF_RECURRENCE = Costs(1.8, 1.7, 0.37), Costs(4.2, 3.3, 0.55)


def costs_of(profile: Profile) -> Costs:
    """What the parts of an effort take for a model."""
    return OF_RECURRENCE if profile.recurrent else OF_LAYERS


def method_for(effort: float, players: Players, references: int, seed: int, costs: Costs) -> Method:
    """The method that comes nearest to the Shapley values within an effort, the time over that of Deep SHAP.

    Parameters
    ----------
    effort : float
        At least 1.
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
    if players.count <= math.log2(WITHIN * effort / costs.output):
        return AllCoalitions(players)
    choices = _choices((effort - 1) * references, players.count, costs, references)
    segments, replicates = min(choices, key=lambda choice: _error(choice[0], choice[1], players.count, references))
    taken = 1 + replicates * costs.of_replicate(segments, players.count) / references
    return Paths(players, segments, replicates, seed, shrinks=True, effort=taken)


def _choices(budget: float, players: int, costs: Costs, references: int) -> Iterator[tuple[int, int]]:
    """Numbers of segments and replicates that cost about a budget, in pairs of each with each; the cheapest whatever it costs."""
    prices = {k: costs.of_replicate(k, players) for k in (*range(2, min(players, 65)), players)}
    cheapest = min(prices, key=lambda segments: prices[segments])
    for segments, price in prices.items():
        if segments == cheapest or LEAST * price <= budget:
            yield segments, _whole(budget / price, references)


def _whole(replicates: float, references: int) -> int:
    """As many as that, or so many fewer that all references have had as many turns, if that is less noisy."""
    count = max(LEAST, int(replicates))
    even = count - count % references
    return min((c for c in (count, even) if c >= LEAST), key=lambda c: _noise(c, references))


def _noise(replicates: int, references: int) -> float:
    """Expected variance of the correction over the squared distance of Deep SHAP."""
    rest = replicates % references  # references that have had one turn more than the others
    turns = rest * (1 - rest / references) / replicates**2
    return OF_REFERENCES**2 * turns + OF_ORDERS**2 / replicates


def _error(segments: int, replicates: int, players: int, references: int) -> float:
    """Expected distance to the Shapley values over that of Deep SHAP, the correction shrunk as its noise demands."""
    bias = 0.0 if segments >= players else 1 / segments
    noise = _noise(replicates, references)
    return math.sqrt(bias**2 + noise / (1 + noise))


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


# ---------------------------------------------------------------------- standard errors
def standard_errors(method: Method, estimate: RunningEstimate) -> np.ndarray | None:
    """Of the values, (rows, players, k): the noise of orders and references, and the bias that is left of Deep SHAP's.

    The mean of the paths' corrections is what the segments have removed of Deep SHAP's distance; with a bias that falls as
    1 / segments, ``1 / (segments - 1)`` of it is left, and so is what of it was not believed for its noise. Of each value
    that is taken from its own correction or, where larger, from the root mean square of its row's. Of few replicates the
    noise is widened as Student's distribution is. None for Deep SHAP, which has no such estimate; 0 where all coalitions
    were tried.
    """
    if isinstance(method, AllCoalitions):
        return np.zeros_like(estimate.values()[0])
    noise = estimate.noise()
    if not isinstance(method, Paths) or noise is None:
        return None
    kept, correction = estimate.kept, estimate.correction
    moved = np.abs(estimate.values()[0]) + np.abs(correction) + noise
    plays = moved > STILL * moved.max(1, keepdims=True)  # padding, say, does not
    common = np.sqrt((correction**2).sum(1, keepdims=True) / np.maximum(plays.sum(1, keepdims=True), 1))
    size = np.maximum(np.abs(correction), common)
    left = 0.0 if method.by_outputs else 1 / (method.segments - 1)
    noise = _widened(estimate.count) * noise
    believed, doubted = np.hypot(noise, left * size), np.hypot(noise, size)
    return plays * np.hypot(kept * believed, (1 - kept) * doubted)


def replicates(method: Method, estimate: RunningEstimate) -> list[np.ndarray]:
    """Estimates of the values whose spread is their noise, the same number whatever was run; none where it is not known.

    Where all coalitions were tried they are the values.
    """
    if isinstance(method, AllCoalitions):
        return [estimate.values()[0]] * GROUPS
    return estimate.spread_groups()


def _widened(replicates: int) -> float:
    """Quantile 0.975 of Student's t over that of the normal distribution (Cornish and Fisher's expansion)."""
    z, nu = 1.96, replicates - 1
    return 1 + (z**2 + 1) / (4 * nu) + (5 * z**4 + 16 * z**2 + 3) / (96 * nu**2)


def largest_errors(errors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Largest standard error of each row over its largest value, (rows,)."""
    flat = errors.reshape(len(errors), -1).max(1), np.abs(values).reshape(len(values), -1).max(1)
    return np.divide(*flat, out=np.zeros(len(errors)), where=flat[1] > 0)


# ---------------------------------------------------------------------- reliability
@dataclass(frozen=True)
class Reliability:
    """How far plain Deep SHAP is from the Shapley values.

    Attributes
    ----------
    distance : float
        Root mean square of the difference over that of the Shapley values, estimated.
    error : float
        Standard error of the distance.
    rows, references : int
        On how many rows it was estimated, and against how many different references of each.
    effort : float
        Setting of the dial that is expected to come within 5 %; 1 if Deep SHAP does.
    """

    distance: float
    error: float
    rows: int
    references: int
    effort: float

    @property
    def verdict(self) -> str:
        """In plain words, with the error taken for the worse."""
        most = self.distance + self.error
        told = f"{100 * most:.0f} %" if most >= 0.01 else "1 %"
        if most <= GOOD:
            return f"Deep SHAP's shares are good to {told}"
        if self.effort <= 64:
            return (
                f"Deep SHAP's shares are good to {told} only: turn the dial to {self.effort:g} (effort={self.effort:g})"
            )
        return (
            f"Deep SHAP's shares are {told} off: turn the dial far (effort=64 or more, or tolerance=), or take fewer players "
            "(players='steps' or 'features')"
        )

    def __str__(self) -> str:
        return (
            f"{self.verdict}. Estimated distance to the Shapley values {100 * self.distance:.1f} % "
            f"± {100 * self.error:.1f} %, from {self.rows} rows with {self.references} references each."
        )


def probing(players: Players, seed: int) -> Paths:
    """What Deep SHAP is compared with to tell how far it is off."""
    return Paths(players, players.count if players.count <= 10 else 4, 2 * GROUPS, seed)


def reliability_of(
    values: np.ndarray, method: Paths, groups: list[np.ndarray], correction: np.ndarray, costs: Costs
) -> Reliability:
    """From the corrections that paths make to Deep SHAP, in independent groups of replicates.

    ``values`` are the corrected attributions (rows, players, k). The square of the distance is a ratio of sums over rows; its
    standard error is that of leaving out rows, and groups, in turn (jackknife).
    """
    estimates = np.stack(groups)
    corrections = estimates - (values - correction)
    whole = 1.0 if method.by_outputs else method.segments / (method.segments - 1)

    def squared(parts: np.ndarray, rows: np.ndarray) -> float:
        size = _squared_mean(estimates[parts][:, rows])
        size = size if size > 0 else max((values[rows] ** 2).sum(), np.finfo(float).tiny)
        return whole**2 * _squared_mean(corrections[parts][:, rows]) / size

    parts, rows = np.arange(len(estimates)), np.arange(len(values))
    square = max(squared(parts, rows), 0.0)
    without_row = [squared(parts, np.delete(rows, row)) for row in rows if len(rows) > 1]
    without_part = [squared(np.delete(parts, part), rows) for part in parts]
    spread = math.hypot(_jackknife(without_row), _jackknife(without_part))
    distance = math.sqrt(square)
    error = math.sqrt(square + spread) - distance  # of the root, also where the square is not beyond its noise
    effort = _effort_for(distance + error, method.players.count, costs)
    return Reliability(distance, error, len(rows), method.replicates, effort)


def _squared_mean(estimates: np.ndarray) -> float:
    """Squared norm of what independent estimates (n, rows, players, k) have in common, unbiased."""
    count = len(estimates)
    products = estimates.sum(0) ** 2 - (estimates**2).sum(0)  # of different estimates
    return float(products.sum()) / (count * (count - 1))


def _jackknife(without: Sequence[float]) -> float:
    """Standard error of an estimate, from its values without each of the parts, widened where these are few; 0 of one."""
    return _widened(len(without)) * math.sqrt((len(without) - 1) * np.var(without)) if without else 0.0


def _effort_for(distance: float, players: int, costs: Costs) -> float:
    """The first power of two at which the expected distance is good, with a hundred references."""
    if distance <= GOOD:
        return 1.0
    for power in range(1, 12):
        effort = 2.0**power
        choices = list(_choices((effort - 1) * 100, players, costs, 100))
        if distance * min(_error(*choice, players, 100) for choice in choices) <= GOOD:
            return effort
    return 2.0**12
