"""List the operations that a PyTorch model uses, from one run that explains nothing; see ``deepshap.check``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..interface import Points
from ..operation_record import UNSUPPORTED, OperationSummary, treatment_of
from .activity import is_active
from .calls import place_of_call, tensors
from .operations import Call, Operation, Pairs
from .tracer import Tracer


class OperationLister(Tracer):
    """Lists every operation that the model itself calls; does not refuse those without a rule."""

    def __init__(self, operations: dict[Any, Operation]) -> None:
        super().__init__(Pairs(1, 1), operations=operations)
        self.summaries: dict[tuple[str, str], OperationSummary] = {}
        self._depth = 0
        self._refused: str | None = None

    def _active(self, call: Call) -> Any:
        if self._depth:  # inside a composite operation
            return super()._active(call)
        place, self._refused = place_of_call(), None
        treatment = _treatment(call.operation, sum(is_active(t) for t in tensors((call.args, call.kwargs))))
        self._depth += 1
        try:
            return super()._active(call)
        finally:
            self._depth -= 1
            self._note(self._refused or call.name, UNSUPPORTED if self._refused else treatment, place)

    def _refuse(self, name: str, call: Call) -> Any:
        if self._depth:
            self._refused = self._refused or name
        else:
            self._note(name, UNSUPPORTED, place_of_call())
        return super()._refuse(name, call)

    def _note(self, name: str, treatment: str, place: str) -> None:
        self.summaries.setdefault((name, treatment), OperationSummary(name, treatment)).places.append(place)

    def finish(self) -> None:
        """Accept calls without a rule: they are in the list."""


def list_operations(
    operations: dict[Any, Operation], trace: Callable[[Tracer, Points], Any], points: Points
) -> list[OperationSummary]:
    """Return the operations of a run under the tracer."""
    lister = OperationLister(operations)
    trace(lister, points)
    return list(lister.summaries.values())


def _treatment(operation: Operation | None, varying: int) -> str:
    if operation is not None and operation.recurrent:
        return "recurrent layer: exact recursion"
    return treatment_of(operation.kind if operation else None, varying)
