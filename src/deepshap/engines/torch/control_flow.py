"""Models whose Python code decides by values: examples and references that take different branches."""

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
    """Finds how both sides of a model take the same way.

    What a model decides by all of its rows, by the greatest of their lengths or by whether one of them is padded, does not
    differ where either side has the rows of both, if in another order. Places that it finds by conditions are positions, or all
    places are taken (``composites/mask_indices.py``).

    Parameters
    ----------
    evaluate : the model's outputs by itself.
    own : the engine's own operations.
    """

    def __init__(self, evaluate: Callable[[Points], np.ndarray], own: dict[Any, Operation]) -> None:
        self._evaluate, self._own = evaluate, own
        self.together = False  # whether either side runs on the rows of both
        self._apart = False  # whether every pair runs by itself
        self._places = 0  # which of the ways to find places by masks that differ
        self._refusal: ControlFlowError | None = None  # what happens to the model as it is

    @property
    def found(self) -> bool:
        """Whether the model does not run as it is."""
        return self.together or self._places > 0

    def operations(self, points: Points) -> dict[Any, Operation]:
        """The engine's own operations, and those that find places in rows that run."""
        if not self._places:
            return self._own
        places = equal_count_positions(len(points)) if self._places == 1 else all_positions
        return {**position_operations(places), **lengths.length_operations(OPERATIONS), **self._own}

    def find(self, run: Callable[[], T]) -> T:
        """Run both sides; where they differ, by other ways, of which the first that works is kept."""
        before, refusal = (self.together, self._places), self._refusal
        while True:
            try:
                found = run()
                self._refusal = refusal
                return found
            except TraceMismatch as error:
                refusal = refusal or _refusal(error)
                another = self._another_way(isinstance(error, IndexMismatch))
            except torch.OutOfMemoryError:
                raise
            except (DeepShapError, RuntimeError, IndexError, ValueError):
                if refusal is None:
                    raise
                another = self._another_way(self._places > 0)
            if not another:
                self.together, self._places = before
                raise refusal from None

    def _another_way(self, by_places: bool) -> bool:
        if by_places and self._places < 2:
            self._places += 1
        elif not self.together:
            self.together = True
        else:
            return False
        return True

    def sides(self, examples: Points, references: Points) -> tuple[Points, Points]:
        """Rows to run beside each other. Together, those of the references follow, beside those of the examples."""
        references = references.described_by(examples)
        if not self.together:
            return examples, references
        return Points.joined([examples, references]), Points.joined([references, examples])

    def explained(self, beside: Run, whole: Comparison, eps: float) -> Contributions:
        """Contributions of rows beside rows, which must not have met others, as they do where a model sorts its whole batch.

        Else every pair runs by itself, if that adds up.
        """
        if self._apart and (found := _pair_by_pair(beside, whole, eps)):
            return found
        together = self.find(lambda: self._checked(beside(whole), whole, eps))
        if self.found or _add_up(together, whole, eps):
            return together
        apart = _pair_by_pair(beside, whole, eps)
        self._apart = apart is not None
        return apart or together

    def _checked(self, found: Contributions, whole: Comparison, eps: float) -> Contributions:
        if self.found and not _add_up(found, whole, eps):
            raise self._failed("rows meet others")
        return found

    def _failed(self, why: str) -> TraceMismatch:
        return IndexMismatch(why) if self._places else TraceMismatch(why)

    def check(self, outputs: Sequence[Tensor], examples: Points, references: Points, eps: float) -> None:
        """Outputs of both sides must be those of the rows by themselves."""
        if not self.found:
            return
        alone = [self._evaluate(side) for side in (examples, references.described_by(examples))]
        for output, native in zip(map(as_numpy, outputs), alone, strict=True):
            own = output[: len(native)]
            gap, scale = spread([own, native]) if own.shape == native.shape else (np.inf, 0.0)
            if not gap <= eps**0.5 * scale:
                raise self._failed("rows decide otherwise by themselves")


def _add_up(found: Contributions, whole: Comparison, eps: float) -> bool:
    return adds_up(found, whole.outputs, eps**0.5, len(whole.references) if whole.all_pairs else 1)


def _pair_by_pair(beside: Run, whole: Comparison, eps: float) -> Contributions | None:
    """What runs on single pairs find; None where that does not add up, or the sides of one do not fit together."""
    parts, single = [], [slice(b, b + 1) for b in range(len(whole.references) if whole.all_pairs else 1)]
    for n in range(len(whole.examples)):
        of_example = whole.part(slice(n, n + 1))
        try:
            parts.append(Contributions.of_references([beside(of_example.part(slice(0, 1), b)) for b in single]))
        except TraceMismatch:
            return None
        if not _add_up(parts[-1], of_example, eps):
            return None
    return Contributions.of_examples(parts)


def _refusal(error: TraceMismatch) -> ControlFlowError:
    if isinstance(error, IndexMismatch):
        return ControlFlowError(str(error))
    return ControlFlowError(control_flow_message(str(error), "torch.where"))
