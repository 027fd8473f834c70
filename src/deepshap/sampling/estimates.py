"""Running sums of contributions, and the errors of values that are estimated from random draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..engines.interface import Comparison, Contributions
from ..explanation.uncertainty import noise, spread_over
from ..formulas.additivity import select_columns
from .comparisons import GROUPS, KnownContribution, Uncertainty, WeightedComparison
from .players import Players

STILL = 1e-6  # of a row's largest value: a player that moves less does not play


class RunningEstimate:
    """Attributions of some rows while their contributions come in.

    Parameters
    ----------
    comparison : Comparison
        The examples and their references.
    players : Players or None
        Who is attributed to; None for each cell by itself.

    Attributes
    ----------
    difference : sum of the weighted differences of outputs that are explained, (rows, k).
    expected : mean output of the references, (rows, k); None unless the whole comparison was one of the parts.
    standard_errors : of the values, (rows, players, k); None where nothing is said of them.
    """

    def __init__(self, comparison: Comparison, players: Players | None) -> None:
        self.difference = np.zeros(comparison.outputs.shape)
        self.expected: np.ndarray | None = None
        self.standard_errors: np.ndarray | None = None
        self._deviations: Sequence[np.ndarray] = ()
        self._comparison, self._players = comparison, players
        self._values: list[np.ndarray] = []  # (rows, ..., k) for each explained tensor

    # ------------------------------------------------------------------ adding
    def sum_by_players(self, contributions: Contributions) -> list[np.ndarray]:
        """Return contributions, summed over the cells of each player if there are players.

        Parameters
        ----------
        contributions : Contributions
            What the engine returned for some examples; each of its values has shape (k, examples, ...).

        Returns
        -------
        list of array
            (examples, ..., k) for each input, or one array (examples, players, k).
        """
        values = [value.transpose(*range(1, value.ndim), 0) for value in contributions.values]
        return values if self._players is None else [self._players.summed(values)]

    def add(
        self, term: WeightedComparison, at: slice, columns: np.ndarray, contributions: Contributions, share: float
    ) -> None:
        """Add the contributions of some examples.

        Parameters
        ----------
        term : WeightedComparison
            The comparison that they are a part of.
        at : slice
            Which of its examples.
        columns : array
            The explained outputs of each of these examples, (examples, k).
        contributions : Contributions
            What the engine returned for them.
        share : float
            The part of the references that they were compared with.
        """
        rows, weights = term.rows[at], term.weights[at]
        self._add(self.sum_by_players(contributions), rows, weights)
        references = len(term.comparison.references) * share if term.comparison.all_pairs else 1
        output = select_columns(contributions.outputs, columns) * weights[:, None]
        reference = select_columns(contributions.reference_outputs, columns) * weights[:, None]
        with np.errstate(invalid="ignore"):  # of infinite outputs, which the model's own are compared with
            np.add.at(self.difference, rows, output * references - reference)
        if term.comparison is self._comparison:
            self.expected = np.zeros_like(self.difference) if self.expected is None else self.expected
            np.add.at(self.expected, rows, reference)

    def add_known(self, contribution: KnownContribution) -> None:
        """Add contributions that a method has computed.

        Parameters
        ----------
        contribution : KnownContribution
            Values with their rows and weights.
        """
        self._add([contribution.values], contribution.rows, contribution.weights)
        np.add.at(self.difference, contribution.rows, contribution.values.sum(1) * contribution.weights[:, None])

    def _add(self, values: list[np.ndarray], rows: np.ndarray, weights: np.ndarray) -> None:
        if not self._values:
            self._values = [np.zeros((len(self.difference), *v.shape[1:])) for v in values]
        for total, value in zip(self._values, values, strict=True):
            np.add.at(total, rows, value * weights.reshape(-1, *[1] * (value.ndim - 1)))

    def add_uncertainty(self, errors: Uncertainty) -> None:
        """Take what a method knows about the errors of its values.

        Parameters
        ----------
        errors : Uncertainty
            Standard errors, and deviations of independent estimates.
        """
        self.standard_errors, self._deviations = errors.standard_errors, list(errors.deviations)

    # ------------------------------------------------------------------ results
    def values(self) -> list[np.ndarray]:
        """Return the attributions.

        Returns
        -------
        list of array
            (rows, ..., k) for each explained tensor, or one array by players, (rows, players, k).
        """
        return self._values

    def replicates(self) -> list[np.ndarray]:
        """Return estimates of the values whose spread is their noise.

        Returns
        -------
        list of array
            (rows, players, k) each; an empty list where the noise is not known.
        """
        return [self._values[0] + away for away in self._deviations]


# ---------------------------------------------------------------------- standard errors
def uncertainty(spread: np.ndarray, groups: np.ndarray, factor: float, bias: np.ndarray | float = 0.0) -> Uncertainty:
    """Return standard errors, and deviations whose spread is their noise.

    Parameters
    ----------
    spread : array
        Standard deviation of the values, (rows, players, k), as few draws tell it.
    groups : array
        Independent deviations of the values, (groups, rows, players, k). Only how they vary together counts: their size is
        made that of ``spread``.
    factor : float
        What errors from so few draws are widened by.
    bias : array
        What is expected to be missing beside the noise, of the shape of ``spread``.
    """
    noise_ = factor * spread
    groups = np.stack(spread_over(list(groups), GROUPS)) if len(groups) < GROUPS else groups
    plain = noise(list(groups))
    scale = np.divide(noise_, plain, out=np.zeros_like(noise_), where=plain > 0)
    return Uncertainty(np.hypot(noise_, bias), (groups - groups.mean(0)) * scale)


def shrink(
    correction: np.ndarray, noise: np.ndarray, groups: np.ndarray, factor: float, bias: float = 0.0
) -> tuple[np.ndarray, Uncertainty]:
    """Draw a correction of Deep SHAP towards 0 as far as its noise demands (James & Stein 1961), and tell its errors.

    What of the correction is not believed for its noise is expected to be missing. Of each value that is taken from its own
    correction or, where larger, from the root mean square of its row's.

    Parameters
    ----------
    correction, noise : array
        Estimated correction and its standard error, (rows, players, k).
    groups : array
        Independent deviations of the correction, (groups, rows, players, k).
    factor : float
        What noise from so few draws is widened by.
    bias : float
        What is left of Deep SHAP's distance beside the correction, over the correction.
    """
    size = (correction**2).sum(1, keepdims=True)
    share = np.divide(((factor * noise) ** 2).sum(1, keepdims=True), size, out=np.zeros_like(size), where=size > 0)
    believed = np.clip(1 - share, 0, 1)
    moved = np.abs(correction) + noise
    plays = moved > STILL * moved.max(1, keepdims=True)  # padding, say, does not
    common = np.sqrt(size / np.maximum(plays.sum(1, keepdims=True), 1))
    left = plays * np.maximum(np.abs(correction), common)
    noise = plays * noise
    missing = np.hypot(believed * bias * left, (1 - believed) * np.hypot(left, factor * noise))
    return believed * correction, uncertainty(believed * noise, groups, factor, missing)


def student_factor(degrees: float) -> float:
    """Return the quantile 0.975 of Student's t over that of the normal distribution (Cornish and Fisher's expansion)."""
    z, nu = 1.96, degrees
    return 1 + (z**2 + 1) / (4 * nu) + (5 * z**4 + 16 * z**2 + 3) / (96 * nu**2)


def largest_errors(errors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the largest standard error of each row over its largest value, (rows,)."""
    flat = errors.reshape(len(errors), -1).max(1), np.abs(values).reshape(len(values), -1).max(1)
    return np.divide(*flat, out=np.zeros(len(errors)), where=flat[1] > 0)
