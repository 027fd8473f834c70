"""Methods: which pairs of points are compared, and with which weights.

An explanation compares each example with its references. A *method* refines this comparison: it yields requests, which the
engine answers, and contributions, which are added up. Whatever a method does, its contributions must sum to the difference
of outputs that the comparison is about; ``check_sums`` compares the two in every call. A method is any object that has what
``Method`` lists; docs/architecture.md shows one of twenty lines.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..engines.interface import Comparison, Points
from ..errors import AdditivityError, InputError
from .players import Players

GROUPS = 8  # estimates whose spread tells the noise of sums of values


@dataclass(frozen=True)
class WeightedComparison:
    """Pairs whose contributions are added to the values.

    Attributes
    ----------
    comparison : the pairs.
    rows : which explained row each of its examples belongs to, (examples,).
    weights : factor of each example's contributions, (examples,). The contributions of an example that is compared with many
        references are summed over the references before.
    """

    comparison: Comparison
    rows: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class KnownContribution:
    """Contributions that a method has computed itself.

    Attributes
    ----------
    values : contributions of each example, (examples, players, k).
    rows, weights : as in ``WeightedComparison``.
    """

    values: np.ndarray
    rows: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """A request for outputs of the model.

    Attributes
    ----------
    points : rows of the model's inputs. Their outputs, (points, outputs), answer the request.
    """

    points: Points


@dataclass(frozen=True)
class Attribution:
    """A request for contributions, which are not added to the values.

    Attributes
    ----------
    comparison : the pairs. Their contributions by players, (examples, players, k), answer the request.
    """

    comparison: Comparison


@dataclass(frozen=True)
class Uncertainty:
    """What a method knows about the errors of its values; yielded at most once.

    Attributes
    ----------
    standard_errors : of the values, (rows, players, k).
    deviations : of independent estimates from the values, (estimates, rows, players, k). Their spread is the part of the
        standard errors that is noise: the standard error of any sum of values is that of the estimates' sums.
    """

    standard_errors: np.ndarray
    deviations: np.ndarray


# Evaluations and attributions are answered with arrays, everything else with None.
Request = WeightedComparison | KnownContribution | Evaluation | Attribution | Uncertainty
Parts = Generator[Request, Any, None]


class Method(Protocol):
    """Which pairs of points are compared, and with which weights: what every object given as ``method=`` must have."""

    @property
    def description(self) -> str:
        """What is done, in a sentence."""

    @property
    def players(self) -> Players | None:
        """Whose contributions are added up; None for each cell of what is explained by itself."""

    def pairs(self, comparison: Comparison) -> int:
        """Return the number of pairs and points that are run, for the progress bar.

        Parameters
        ----------
        comparison : Comparison
            The examples, their references and the explained outputs.

        Returns
        -------
        int
        """

    def parts(self, comparison: Comparison) -> Parts:
        """Yield requests and contributions.

        Parameters
        ----------
        comparison : Comparison
            The examples, their references and the explained outputs.

        Yields
        ------
        WeightedComparison, KnownContribution, Evaluation, Attribution or Uncertainty
            The weighted contributions must sum to each example's output minus the mean output of its references.
        """


@dataclass(frozen=True)
class DeepShap:
    """Deep SHAP: every pair once, the mean over the references (Lundberg & Lee 2017).

    Parameters
    ----------
    players : Players or None
        Whose contributions are added up; None for each cell by itself.
    description : str
        What explanations call the method.

    Examples
    --------
    >>> from deepshap.sampling import DeepShap
    >>> explainer(x, method=DeepShap()).method
    'Deep SHAP'
    """

    players: Players | None = None
    description: str = "Deep SHAP"

    def pairs(self, comparison: Comparison) -> int:
        """Return the number of pairs."""
        return comparison.pairs

    def parts(self, comparison: Comparison) -> Parts:
        """Yield the comparison itself."""
        count = len(comparison.examples)
        share = 1 / len(comparison.references) if comparison.all_pairs else 1.0
        yield WeightedComparison(comparison, np.arange(count), np.full(count, share))


@dataclass(frozen=True)
class WeightedDeepShap:
    """Deep SHAP against references of different weights.

    Parameters
    ----------
    weights : array
        Weight of each reference, (references,); the weights sum to 1.
    players, description
        As in ``DeepShap``.
    """

    weights: np.ndarray
    players: Players | None = None
    description: str = "Deep SHAP with a weighted background"

    def pairs(self, comparison: Comparison) -> int:
        """Return the number of pairs."""
        return comparison.pairs

    def parts(self, comparison: Comparison) -> Parts:
        """Yield the references one weight after the other."""
        rows, changes = np.arange(len(comparison.examples)), np.flatnonzero(np.diff(self.weights)) + 1
        for start, stop in zip([0, *changes], [*changes, len(self.weights)], strict=True):
            same_weight = Comparison(comparison.examples, comparison.references[start:stop], True, comparison.outputs)
            yield WeightedComparison(same_weight, rows, np.full(len(rows), self.weights[start]))


def check_method(method: Any) -> None:
    """Raise InputError unless an object has what a method needs."""
    kind = f"{method.__name__} is a class" if isinstance(method, type) else f"{type(method).__name__}"
    lacks = [name for name in ("description", "players", "pairs", "parts") if not hasattr(method, name)]
    if lacks or isinstance(method, type):
        why = f"{kind} has no {', '.join(lacks)}" if lacks else f"{kind}, not one of its objects"
        raise InputError(f"method must be an object with all that deepshap.sampling.Method has: {why}.")


def check_sums(method: Method, sums: np.ndarray, differences: np.ndarray, allowed: np.ndarray) -> None:
    """Raise AdditivityError if the contributions of a user's method do not sum to the differences of outputs, (rows, k)."""
    if type(method).__module__.startswith(f"{__package__}."):
        return  # of these the model is the cause, which has a message of its own
    missed = np.nan_to_num(np.abs(sums - differences) - allowed, nan=np.inf)
    if (missed > 0).any():
        at = np.unravel_index(np.argmax(missed), missed.shape)
        raise AdditivityError(
            f"the parts of the method ({method.description}) sum to {sums[at]:.6g} for row {at[0]}, output {at[1]}, where the "
            f"outputs differ by {differences[at]:.6g}: weighted, the contributions must add up to the row's output minus the "
            "mean output of its references. Look at the weights and rows. (If they are right, the model's output depends on "
            "the batch, on random numbers or on state kept between calls.)"
        )
