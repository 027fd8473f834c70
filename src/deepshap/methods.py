"""Methods: which pairs of points are compared, and with which weights.

A method takes a comparison, of examples with a background or with a reference each, and refines it into parts that add up
to it: whatever the parts, their weighted contributions sum to the difference of outputs that the comparison is about. To
write one takes a class with all that ``Method`` has; docs/architecture.md has an example, and own_methods.py checks it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .engines.api import Comparison, Points
from .players import Players


@dataclass(frozen=True)
class Term:
    """Pairs to compare, and what their contributions count.

    Attributes
    ----------
    comparison : the pairs.
    rows : which explained row each of its examples belongs to, (examples,).
    weights : what the contributions of each example count, (examples,); those of an example that is compared with many
        references are summed over them before.
    replicates : which half of which replicate each example belongs to, (examples,): 2 r and 2 r + 1 are the halves of
        replicate r, an order and its reverse; None if to all of them. What belongs to all sums to the whole comparison. A
        replicate is an independent estimate of it less what belongs to all: its parts, of both halves and of every row,
        sum to 0, for instance those of a path and, with weights of the other sign, those of what it corrects. The values
        are the parts of all and the mean of the replicates. Replicates need players, and come one after the other.
    """

    comparison: Comparison
    rows: np.ndarray
    weights: np.ndarray
    replicates: np.ndarray | None = None

    def apart(self) -> Term:
        """Points on ways as pairs like any others, but for those that are beside themselves."""
        before = self.comparison.before
        if before is None:
            return self
        moving = np.flatnonzero(before != np.arange(len(before)))
        pairs, replicates = self.comparison.apart().part(moving), self.replicates
        return Term(pairs, self.rows[moving], self.weights[moving], None if replicates is None else replicates[moving])


@dataclass(frozen=True)
class Evaluation:
    """Points whose outputs a method wants to know."""

    points: Points


@dataclass(frozen=True)
class Known:
    """Contributions that a method has made of outputs: ``values`` (examples, players, k), and the rest as in ``Term``."""

    values: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    replicates: np.ndarray | None = None


# What a method asks for. A term is answered with its contributions by players, (examples, players, k), an evaluation with
# the outputs of its points, (points, outputs), what is known with None.
Request = Term | Evaluation | Known
Parts = Generator[Request, Any, None]


class Method(Protocol):
    """Which pairs of points are compared, and with which weights."""

    @property
    def description(self) -> str:
        """What is done, in a sentence."""

    @property
    def players(self) -> Players | None:
        """Whose contributions are added up; None for each cell of what is explained by itself."""

    @property
    def shrinks(self) -> bool:
        """Whether the mean of replicates is drawn towards what is not random as far as its noise demands."""

    def pairs(self, whole: Comparison) -> int:
        """How many pairs and points are run, for the progress that is shown."""

    def parts(self, whole: Comparison) -> Parts:
        """Refine a comparison into parts whose contributions sum to the same difference of outputs."""


@dataclass(frozen=True)
class DeepShap:
    """Deep SHAP: every pair once, the mean over the references (Lundberg & Lee 2017)."""

    players: Players | None = None
    shrinks: bool = False
    description: str = "Deep SHAP"

    def pairs(self, whole: Comparison) -> int:
        """Every pair once."""
        return whole.pairs

    def parts(self, whole: Comparison) -> Parts:
        """One term, the comparison itself."""
        count = len(whole.examples)
        share = 1 / len(whole.references) if whole.crossed else 1.0
        yield Term(whole, np.arange(count), np.full(count, share))
