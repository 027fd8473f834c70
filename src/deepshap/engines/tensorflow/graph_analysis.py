"""Analyze a traced model before it runs: which values depend on the inputs, and which operations on these have no rule.

``deepshap.check`` lists the operations by the same analysis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ...errors import UnsupportedOperationError
from ..operation_record import UNSUPPORTED, OperationSummary, treatment_of
from .graphs import READS, Body, Library
from .handlers import LayerCall, parse_mark
from .operations import (
    CONSTANT,
    CONTROL,
    IDENTITY,
    INDEX,
    LINEAR,
    LOOPS,
    MULTILINEAR,
    POSITIONS,
    RANDOM,
    SIZES,
    VARIABLE,
    Operation,
    fixed_operands,
)

# Flags of a value: a constant, depends on the inputs, on the number of rows, is an index, is random.
STATIC, ACTIVE, ROW_COUNT, POSITION, DRAWN = "", "active", "counted", "position", "drawn"
Flags = tuple[str, ...]
IS_RANDOM = " (random)"  # behind an operation's name
BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
SIZED_BY_VALUES = ("Where", "Unique", "UniqueV2", "DynamicPartition", "Range")  # how long their outputs are
OF_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")  # read no values


class GraphAnalysis:
    """Follow through graphs which values depend on the explained inputs; collect the operations that have no rule."""

    def __init__(
        self, library: Library, operations: dict[str, Operation], layer_calls: Sequence[LayerCall] = ()
    ) -> None:
        self.library, self.operations, self.layer_calls = library, operations, layer_calls
        self._entered: dict[int, Flags] = {}
        self._outside: dict[int, dict[tuple[str, str], None]] = {}
        self.unsupported: dict[tuple[str, str], None] = {}
        self.met: set[str] = set()
        self._known: dict[tuple[int, Flags], Flags] = {}
        self._loops: dict[tuple[int, Flags], Flags] = {}
        self._written: dict[int, str] = {}

    def operation(self, op: Any) -> Operation | None:
        """Return the line of the table, if there is one."""
        return self.operations.get(op.type)

    def refuse(self) -> None:
        """Raise an error that lists all operations without a rule."""
        if not self.unsupported:
            return
        listed = "\n".join(f"  {name} in {place}" for name, place in self.unsupported)
        ruleless = [name for name, _ in self.unsupported if not name.endswith(IS_RANDOM)]
        lines = ["the model cannot be explained with these operations in it, nothing was computed:", listed]
        if ruleless:
            lines = [
                "the model uses operations for which no rule is known:",
                listed,
                f'Say how to explain them with deepshap.register_rule("{ruleless[0]}", rule), where rule is "linear", '
                '"constant", "elementwise", "quadratic", "smooth" or a function; see docs/adding-a-rule.md.',
            ]
        if len(ruleless) < len(self.unsupported):
            lines.append(
                "Random operations must be switched off or moved out of the model, since example and reference have to see the "
                "same function: a layer such as keras.layers.Dropout draws only where it is called with training=True, and "
                "tf.nn.dropout always."
            )
        raise UnsupportedOperationError("\n".join(lines))

    def run(self, body: Body, flags: Sequence[str]) -> Flags:
        """Return flags of a function's outputs, from those of its inputs."""
        key = id(body), tuple(flags)
        if key not in self._known:
            analysis_flags = {id(t): f for t, f in zip(body.inputs, flags, strict=True)}
            for op in body.operations:
                flags_in, mark = tuple(analysis_flags[id(t)] for t in op.inputs), parse_mark(op)
                outputs = self._step(op, flags_in) if mark is None else self._mark(*mark, op, flags_in)
                analysis_flags.update((id(t), f) for t, f in zip(op.outputs, outputs, strict=True))
            self._known[key] = tuple(analysis_flags[id(t)] for t in body.outputs)
        return self._known[key]

    def _mark(self, enters: bool, number: int, op: Any, flags: Flags) -> Flags:
        """Return flags at a mark of a layer; a layer that is one operation may contain operations without a rule."""
        operation = self.layer_calls[number].operation
        if operation is None:
            return tuple(ACTIVE if t.dtype.is_floating else f for t, f in zip(op.inputs, flags, strict=True))
        if enters:
            self._entered[number] = flags
            self._outside[number] = dict(self.unsupported)
            return flags
        self.unsupported = self._outside[number]
        varies = ACTIVE in self._entered[number] and operation.kind != CONSTANT
        return (ACTIVE if varies else ROW_COUNT,) * len(flags)

    def _step(self, op: Any, flags: Flags) -> Flags:
        operation = self.operation(op)
        kind = operation.kind if operation else None
        self._check_resources(op, kind)
        if any(f in (ACTIVE, POSITION) for f in flags):
            self.met.add(op.type)
        if kind == CONTROL:
            return self._control(op, flags)
        if kind == VARIABLE:
            return self._variable(op, flags)
        if kind == IDENTITY and len(flags) == len(op.outputs):
            return flags
        if kind == CONSTANT:
            return (ROW_COUNT if any(flags) else STATIC,) * len(op.outputs)
        if kind == RANDOM and ACTIVE not in flags:
            return (f"{DRAWN}{op.type}{IS_RANDOM}|{self.library.place(op)}",) * len(op.outputs)
        # where to look must be the same on both sides
        if (kind in (LINEAR, MULTILINEAR) or op.type in SIZES) and ACTIVE in flags:
            flags = tuple(
                ROW_COUNT if fixed and f == ACTIVE else f for f, fixed in zip(flags, fixed_operands(op), strict=True)
            )
        drawn = next((f for f in flags if f.startswith(DRAWN)), STATIC)
        if ACTIVE not in flags:
            flag = POSITION if POSITION in flags and kind == LINEAR else drawn or (ROW_COUNT if any(flags) else STATIC)
            return (flag,) * len(op.outputs)
        if drawn:
            name, _, place = drawn.removeprefix(DRAWN).partition("|")
            self.unsupported[name, place] = None
        if kind is None or kind == RANDOM:
            self.unsupported[op.type + (IS_RANDOM if kind == RANDOM else ""), self.library.place(op)] = None
        refused = operation.positions if operation and POSITIONS in self.operations else ()
        positions = range(len(op.outputs)) if kind == INDEX else refused
        return tuple(POSITION if k in positions else ACTIVE for k in range(len(op.outputs)))

    def _check_resources(self, op: Any, kind: str | None) -> None:
        """Refuse writes to a part of a variable, or to a table: later reads would not see them."""
        if kind is None and op.type not in READS and any(t.dtype == tf.resource for t in op.inputs):
            self.unsupported[op.type, self.library.place(op)] = None

    def _variable(self, op: Any, flags: Flags) -> Flags:
        if op.type == "ReadVariableOp":
            return (self._written.get(id(op.inputs[0]), STATIC),)
        if len(flags) > 1 and flags[0] == STATIC:
            self._written[id(op.inputs[0])] = flags[1]
        return (STATIC,) * len(op.outputs)

    def _control(self, op: Any, flags: Flags) -> Flags:
        if op.type in LOOPS:
            return self.loop(op, flags)
        if op.type in BRANCHES:
            return self.run_all(self.branches(op), flags[1:])
        if op.type in ("PartitionedCall", "StatefulPartitionedCall"):
            return self.run(self.library.body(op, "f"), flags)
        flag = next((f for f in (ACTIVE, POSITION) if f in flags), max(flags, default=STATIC))
        return (flag,) * len(op.outputs)  # lists of tensors

    def run_all(self, bodies: Sequence[Body], flags: Sequence[str]) -> Flags:
        """Return flags of outputs that come from any of several functions."""
        return _either([self.run(body, flags) for body in bodies])

    def branches(self, op: Any) -> list[Body]:
        """Return the branches of a condition, the one for true (or 0) first."""
        if op.type.endswith("Case"):
            return [self.library.named(f.name) for f in op.get_attr("branches")]
        return [self.library.body(op, name) for name in ("then_branch", "else_branch")]

    def loop(self, op: Any, flags: Sequence[str]) -> Flags:
        """Return flags of a loop's variables, once they do not change any more."""
        key = id(op), tuple(flags)
        if key not in self._loops:
            body, before = self.library.body(op, "body"), tuple(flags)
            while (after := _either([before, self.run(body, before)])) != before:
                before = after
            self._loops[key] = before
        return self._loops[key]


def _either(ways: Sequence[Flags]) -> Flags:
    order = (ACTIVE, POSITION, ROW_COUNT)
    return tuple(next((f for f in order if f in flags), max(flags)) for flags in zip(*ways, strict=True))


class DecisionSearch(GraphAnalysis):
    """Find out whether a branch or a loop of the graph decides by values of the inputs, not only by their shapes.

    Such a decision is taken for all rows of a batch at once. ACTIVE is what depends on values, POSITION what has a size
    that does.
    """

    is_found = False

    def _mark(self, enters: bool, number: int, op: Any, flags: Flags) -> Flags:
        return flags

    def _step(self, op: Any, flags: Flags) -> Flags:
        operation = self.operation(op)
        if operation is not None and operation.kind == CONTROL:
            self.is_found |= op.type in BRANCHES and flags[0] != STATIC
            return self._control(op, flags)
        if operation is not None and operation.kind == VARIABLE:
            return self._variable(op, flags)
        if op.type in OF_SHAPES:
            return (ACTIVE if POSITION in flags else STATIC,) * len(op.outputs)
        if POSITION in flags or (op.type in SIZED_BY_VALUES and ACTIVE in flags):
            return (POSITION,) * len(op.outputs)
        return (ACTIVE if ACTIVE in flags else STATIC,) * len(op.outputs)

    def loop(self, op: Any, flags: Sequence[str]) -> Flags:
        """Return flags of a loop's variables; note whether the number of turns depends on values."""
        flags = super().loop(op, flags)
        self.is_found |= self.run(self.library.body(op, "cond"), flags) != (STATIC,)
        return flags


class OperationCollector(GraphAnalysis):
    """Collect every operation on values that depend on the inputs; functions and loops by their parts."""

    def __init__(self, library: Library, operations: dict[str, Operation]) -> None:
        super().__init__(library, operations)
        self._noted: dict[Any, tuple[str, str, str]] = {}  # the parts of a loop are met again with other flags

    @property
    def uses(self) -> list[OperationSummary]:
        """One summary for each name and treatment."""
        summaries: dict[tuple[str, str], OperationSummary] = {}
        for name, treatment, place in self._noted.values():
            summaries.setdefault((name, treatment), OperationSummary(name, treatment)).places.append(place)
        return list(summaries.values())

    def _step(self, op: Any, flags: Flags) -> Flags:
        before = set(self.unsupported)
        outputs = super()._step(op, flags)
        operation, place = self.operation(op), self.library.place(op)
        kind = operation.kind if operation else None
        if kind == CONTROL:
            return outputs
        for refused in set(self.unsupported) - before:
            self._noted[refused] = (refused[0], UNSUPPORTED, refused[1])
        if ACTIVE in flags and kind not in (CONSTANT, IDENTITY, RANDOM) and (op.type, place) not in self.unsupported:
            self._noted[id(op)] = (op.type, treatment_of(kind, flags.count(ACTIVE)), place)
        return outputs
