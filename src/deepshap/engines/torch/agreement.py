"""What is done where the two sides decide differently in Python: either side runs on the rows of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from torch import Tensor

from ...errors import ControlFlowError
from ..api import Comparison, Contributions, Points
from ..shell import control_flow_message, spread
from .contributions import adds_up, as_numpy
from .operations import Misaligned

T = TypeVar("T")


class Agreement:
    """Finds how both sides of a model take the same way.

    What a model decides by all of its rows, by the greatest of their lengths or by whether one of them is padded, does not
    differ where either side has the rows of both, if in another order.

    Parameters
    ----------
    evaluate : the model's outputs by itself.
    """

    def __init__(self, evaluate: Callable[[Points], np.ndarray]) -> None:
        self._evaluate = evaluate
        self.refusal: ControlFlowError | None = None  # where the sides differed when they ran on rows of their own

    @property
    def together(self) -> bool:
        """Whether either side runs on the rows of both."""
        return self.refusal is not None

    def find(self, run: Callable[[], T]) -> T:
        """Run both sides; where they differ, once more on the rows of both."""
        try:
            return run()
        except Misaligned as error:
            refusal = ControlFlowError(control_flow_message(str(error), "torch.where", "lengths, masks, flags"))
        if self.refusal is not None:
            raise self.refusal
        self.refusal = refusal
        try:
            return run()
        except Misaligned:
            self.refusal = None
            raise refusal from None

    def sides(self, examples: Points, references: Points) -> tuple[Points, Points]:
        """Rows to run beside each other. Together, those of the references follow, beside those of the examples."""
        references = references.described_by(examples)
        if not self.together:
            return examples, references
        return Points.joined([examples, references]), Points.joined([references, examples])

    def check_sums(self, found: Contributions, whole: Comparison, eps: float) -> None:
        """Rows must not have met others when they ran together, as rows that the model sorts do."""
        references = len(whole.references) if whole.crossed else 1
        if self.refusal is not None and not adds_up(found, whole.outputs, eps**0.5, references):
            raise self.refusal

    def check(self, output: Tensor, examples: Points, references: Points, eps: float) -> None:
        """Rows that ran together must have the outputs that they have without each other."""
        if not self.together:
            return
        alone = [self._evaluate(side) for side in (examples, references.described_by(examples))]
        parts = np.split(as_numpy(output), [len(alone[0])])
        for runs in zip(parts, alone, strict=True):
            gap, scale = spread(runs) if runs[0].shape == runs[1].shape else (np.inf, 0.0)
            if not gap <= eps**0.5 * scale:
                raise Misaligned("rows decide otherwise by themselves")
