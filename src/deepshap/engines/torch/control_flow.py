"""Models whose Python code decides by values, so that example and reference may take different branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...errors import ControlFlowError, DeepShapError
from ..base import control_flow_message, spread
from ..interface import Comparison, Contributions, Points
from .backward import adds_up, as_numpy
from .composites import lengths
from .composites.mask_indices import all_positions, equal_count_positions, position_operations
from .operations import IndexMismatch, Operation, TraceMismatch
from .table import OPERATIONS

T = TypeVar("T")
Run = Callable[[Comparison], Contributions]


class ControlFlowComparison:
    """Makes both sides of a model take the same branches, by other runs of the model if necessary.

    A decision about the whole batch (the greatest length, whether any row is padded) is the same on both sides if each side has
    the rows of both, in another order. Positions that the model finds by masks are handled as indices, or the model runs at
    all positions (``composites/mask_indices.py``).

    Parameters
    ----------
    evaluate : the outputs of the unmodified model.
    rules : the operations that the user registered for this engine.
    """

    def __init__(self, evaluate: Callable[[Points], np.ndarray], rules: dict[Any, Operation]) -> None:
        self._evaluate, self._rules = evaluate, rules
        self.joins_sides = False  # whether each side runs on the rows of both
        self._runs_single_pairs = False
        self._position_mode = 0  # for masks that differ: 0 unsupported, 1 equal counts in each row, 2 all positions
        self._refusal: ControlFlowError | None = None  # the error of the model without adaptation

    @property
    def is_adapted(self) -> bool:
        """Return whether the model runs with an adaptation."""
        return self.joins_sides or self._position_mode > 0

    def operations(self, points: Points) -> dict[Any, Operation]:
        """Return the registered operations, and those that find positions in these rows."""
        if not self._position_mode:
            return self._rules
        positions = equal_count_positions(len(points)) if self._position_mode == 1 else all_positions
        return {**position_operations(positions), **lengths.length_operations(OPERATIONS), **self._rules}

    def run(self, run_sides: Callable[[], T]) -> T:
        """Run both sides; if they differ, with the next adaptation, until one works."""
        before, refusal = (self.joins_sides, self._position_mode), self._refusal
        while True:
            try:
                result = run_sides()
                self._refusal = refusal
                return result
            except TraceMismatch as error:
                refusal = refusal or _refusal(error)
                has_next = self._adapt(isinstance(error, IndexMismatch))
            except torch.OutOfMemoryError:
                raise
            except (DeepShapError, RuntimeError, IndexError, ValueError):
                if refusal is None:
                    raise
                has_next = self._adapt(self._position_mode > 0)
            if not has_next:
                self.joins_sides, self._position_mode = before
                raise refusal from None

    def _adapt(self, by_positions: bool) -> bool:
        if by_positions and self._position_mode < 2:
            self._position_mode += 1
        elif not self.joins_sides:
            self.joins_sides = True
        else:
            return False
        return True

    def sides(self, examples: Points, references: Points) -> tuple[Points, Points]:
        """Return the rows to run next to each other. With joined sides, the references follow the examples, and vice versa."""
        references = references.described_by(examples)
        if not self.joins_sides:
            return examples, references
        return Points.joined([examples, references]), Points.joined([references, examples])

    def explain(self, explain_rows: Run, comparison: Comparison, eps: float) -> Contributions:
        """Return contributions of aligned rows, after a check that rows do not affect each other (as in a sorted batch).

        If the check fails, every pair runs by itself, if that adds up.
        """
        if self._runs_single_pairs and (pairwise := _explain_single_pairs(explain_rows, comparison, eps)):
            return pairwise
        contributions = self.run(lambda: self._checked(explain_rows(comparison), comparison, eps))
        if self.is_adapted or _add_up(contributions, comparison, eps):
            return contributions
        pairwise = _explain_single_pairs(explain_rows, comparison, eps)
        self._runs_single_pairs = pairwise is not None
        return pairwise or contributions

    def _checked(self, contributions: Contributions, comparison: Comparison, eps: float) -> Contributions:
        if self.is_adapted and not _add_up(contributions, comparison, eps):
            raise self._mismatch("rows meet others")
        return contributions

    def _mismatch(self, why: str) -> TraceMismatch:
        return IndexMismatch(why) if self._position_mode else TraceMismatch(why)

    def check(self, outputs: Sequence[Tensor], examples: Points, references: Points, eps: float) -> None:
        """Raise an error if outputs of the sides are not those of the rows by themselves."""
        if not self.is_adapted:
            return
        alone = [self._evaluate(side) for side in (examples, references.described_by(examples))]
        for output, native in zip(map(as_numpy, outputs), alone, strict=True):
            rules = output[: len(native)]
            gap, scale = spread([rules, native]) if rules.shape == native.shape else (np.inf, 0.0)
            if not gap <= eps**0.5 * scale:
                raise self._mismatch("rows decide otherwise by themselves")


def _add_up(contributions: Contributions, comparison: Comparison, eps: float) -> bool:
    return adds_up(
        contributions, comparison.outputs, eps**0.5, len(comparison.references) if comparison.all_pairs else 1
    )


def _explain_single_pairs(explain_rows: Run, comparison: Comparison, eps: float) -> Contributions | None:
    """Return the contributions of single pairs; None if they do not add up, or if the sides of a pair do not match."""
    parts, single = [], [slice(b, b + 1) for b in range(len(comparison.references) if comparison.all_pairs else 1)]
    for n in range(len(comparison.examples)):
        of_example = comparison.part(slice(n, n + 1))
        try:
            parts.append(Contributions.of_references([explain_rows(of_example.part(slice(0, 1), b)) for b in single]))
        except TraceMismatch:
            return None
        if not _add_up(parts[-1], of_example, eps):
            return None
    return Contributions.of_examples(parts)


def _refusal(error: TraceMismatch) -> ControlFlowError:
    if isinstance(error, IndexMismatch):
        return ControlFlowError(str(error))
    return ControlFlowError(control_flow_message(str(error), "torch.where"))
