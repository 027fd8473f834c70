"""How far plain Deep SHAP is from the Shapley values, estimated on a few rows.

The difference of the two is the correction that a method nearer to the Shapley values makes to Deep SHAP. From its independent
estimates the squared length of the correction is told without the part that is noise: the mean of the products of different
estimates has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..explanation.labels import verdict_as_html
from .estimates import student_factor

GOOD = 0.1  # a distance to the Shapley values that suffices to show one prediction and its largest reasons


@dataclass(frozen=True, repr=False)
class Reliability:
    """How far plain Deep SHAP is from the Shapley values.

    Attributes
    ----------
    distance : float
        Root mean square of the difference over that of the Shapley values, estimated.
    error : float
        Standard error of the distance; 0 where all coalitions were tried for all rows.
    rows, references : int
        On how many rows it was estimated, and against how many different references of each.
    effort : float
        Setting of the dial that is expected to come within 10 %; 1 if Deep SHAP does.
    players : int
        How many share an output.
    """

    distance: float
    error: float
    rows: int
    references: int
    effort: float
    players: int

    @property
    def verdict(self) -> str:
        """In plain words, with the error taken for the worse."""
        most = self.distance + self.error
        percent = f"{100 * most:.0f} %" if most >= 0.01 else "1 %"
        if most <= GOOD:
            return f"Deep SHAP's shares are good to {percent}"
        if self.error > self.distance:
            return (
                f"Deep SHAP's shares may be off by up to {percent}; this cannot be told from {self.rows} rows: use "
                f"rows={4 * self.rows}"
            )
        if self.effort <= 64:
            return (
                f"Deep SHAP's shares are off by {percent}: use effort={self.effort:g} to come within {100 * GOOD:.0f} %"
            )
        return (
            f"Deep SHAP's shares are off by {percent}: to come within {100 * GOOD:.0f} % takes effort={self.effort:g}; fewer "
            f"than {self.players} players (players=) take less"
        )

    def __repr__(self) -> str:
        exact = self.error < 1e-6
        distance = f"{100 * self.distance:.1f} %" + ("" if exact else f" ± {100 * self.error:.1f} %")
        return (
            f"{self.verdict}. {'Distance' if exact else 'Estimated distance'} to the Shapley values {distance}, from {self.rows} "
            f"rows with {self.references} references each."
        )

    def _repr_html_(self) -> str:
        return verdict_as_html(self.verdict, repr(self).removeprefix(f"{self.verdict}. "))


def distance(
    deep: np.ndarray, values: np.ndarray, estimates: Sequence[np.ndarray], left: float, looked_at: float
) -> tuple[float, float]:
    """Return the distance of Deep SHAP to the Shapley values, relative to these, and its standard error.

    The square of the distance is a ratio of sums over rows; its standard error is that of leaving out rows, and estimates,
    in turn (jackknife).

    Parameters
    ----------
    deep, values : array
        Attributions of Deep SHAP, and of the method that comes nearer, (rows, players, k).
    estimates : sequence of array
        Independent estimates of the latter, all equal where nothing is random.
    left : float
        The part of Deep SHAP's distance that the method leaves.
    looked_at : float
        The part of the rows in question that the arrays hold.
    """
    stacked = np.stack(estimates)

    def squared(parts: np.ndarray, rows: np.ndarray) -> float:
        size = _squared_mean(stacked[parts][:, rows])
        size = size if size > 0 else max((values[rows] ** 2).sum(), np.finfo(float).tiny)
        return _squared_mean((stacked - deep)[parts][:, rows]) / size / (1 - left) ** 2

    parts, rows = np.arange(len(stacked)), np.arange(len(values))
    square = max(squared(parts, rows), 0.0)
    without_row = [squared(parts, np.delete(rows, row)) for row in rows if len(rows) > 1]
    without_part = [squared(np.delete(parts, part), rows) for part in parts]
    spread = math.hypot(math.sqrt(1 - looked_at) * _jackknife(without_row), _jackknife(without_part))
    size = math.sqrt(square)
    return size, math.sqrt(square + spread) - size  # of the root, also where the square is not beyond its noise


def _squared_mean(estimates: np.ndarray) -> float:
    """Return the squared norm of what independent estimates (n, rows, players, k) have in common, unbiased."""
    count = len(estimates)
    products = estimates.sum(0) ** 2 - (estimates**2).sum(0)  # of different estimates
    return float(products.sum()) / (count * (count - 1))


def _jackknife(without: Sequence[float]) -> float:
    """Return the standard error of an estimate from its values without each of the parts; 0 of one part."""
    if not without:
        return 0.0
    return student_factor(len(without) - 1) * math.sqrt((len(without) - 1) * float(np.var(without)))


def effort_for(distance: float, expected: Callable[[float], float]) -> float:
    """Return the first power of two whose expected distance, relative to that of Deep SHAP, is good enough."""
    efforts = [2.0**power for power in range(13)]
    return next(
        (effort for effort in efforts if distance * (1 if effort == 1 else expected(effort)) <= GOOD), efforts[-1]
    )
