"""The operations that a Keras model uses, from its graph; see ``deepshap.check``."""

from __future__ import annotations

from typing import Any

from ..operation_summary import UNSUPPORTED, OperationSummary, treatment_of
from .graphs import Library
from .operations import CONSTANT, CONTROL, RANDOM, SAME, Operation
from .survey import ACTIVE, Flags, Survey


class Witness(Survey):
    """Notes every operation on what depends on the inputs; functions and loops by their parts."""

    def __init__(self, library: Library, operations: dict[str, Operation]) -> None:
        super().__init__(library, operations)
        self._noted: dict[Any, tuple[str, str, str]] = {}  # the parts of a loop are met again with other flags

    @property
    def uses(self) -> list[OperationSummary]:
        """One for each name and treatment."""
        found: dict[tuple[str, str], OperationSummary] = {}
        for name, treatment, place in self._noted.values():
            found.setdefault((name, treatment), OperationSummary(name, treatment)).places.append(place)
        return list(found.values())

    def _step(self, op: Any, flags: Flags) -> Flags:
        before = set(self.unsupported)
        outputs = super()._step(op, flags)
        operation, place = self.operation(op), self.library.place(op)
        kind = operation.kind if operation else None
        if kind == CONTROL:
            return outputs
        for refused in set(self.unsupported) - before:
            self._noted[refused] = (refused[0], UNSUPPORTED, refused[1])
        if ACTIVE in flags and kind not in (CONSTANT, SAME, RANDOM) and (op.type, place) not in self.unsupported:
            self._noted[id(op)] = (op.type, treatment_of(kind, flags.count(ACTIVE)), place)
        return outputs
