"""Methods: which pairs of points are compared, and with which weights.

A method takes a comparison, of examples with a background or with a reference each, and refines it into terms that add up
to it: whatever the terms, their weighted contributions sum to the difference of outputs that the comparison is about. To
write one takes a class with ``terms`` and ``description``; see docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .engines.api import Comparison


@dataclass(frozen=True)
class Term:
    """Part of an explanation.

    Attributes
    ----------
    comparison : the pairs.
    rows : which explained row each of its examples belongs to, (examples,).
    weights : what the contributions of each example count, (examples,); those of an example that is compared with many
        references are summed over them before.
    replicate : which of the independent estimates of the whole it belongs to, terms of one after those of another; None if
        to all of them.
    """

    comparison: Comparison
    rows: np.ndarray
    weights: np.ndarray
    replicate: int | None = None


class Estimate(Protocol):
    """What a method sees of the explanation while it is made, to decide whether to go on."""

    @property
    def replicates(self) -> np.ndarray:
        """How many independent estimates each row has, (rows,)."""

    def relative_errors(self) -> np.ndarray:
        """Largest standard error over largest attribution of each row, (rows,)."""


class Method(Protocol):
    """Which pairs of points are compared, and with which weights."""

    @property
    def description(self) -> str:
        """What is done, in a sentence."""

    def terms(self, whole: Comparison, so_far: Estimate) -> Iterator[Term]:
        """Refine a comparison into terms whose contributions sum to the same difference of outputs."""


@dataclass(frozen=True)
class DeepShap:
    """Deep SHAP: every pair once, the mean over the references (Lundberg & Lee 2017)."""

    description: str = "Deep SHAP"

    def terms(self, whole: Comparison, so_far: Estimate) -> Iterator[Term]:
        """One term, the comparison itself."""
        count = len(whole.examples)
        share = 1 / len(whole.references) if whole.crossed else 1.0
        yield Term(whole, np.arange(count), np.full(count, share))
