"""Run a traced model on both sides of the pairs, and pull multipliers back through its rules.

``Tracer`` emits every operation of the graph again, for the examples and for the references. ``Tape`` records what the
rules need, and carries multipliers from the outputs back to the inputs. ``Bytes`` counts the memory of each value meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import UnsupportedOperationError
from ..interface import Footprint
from . import rules
from .adjoints import add_multipliers
from .batch_axes import Layouts
from .fused_adjoints import match_attention, match_convolution
from .graph_analysis import GraphAnalysis
from .graphs import Body
from .handlers import LayerCall, LayerRecord, parse_mark
from .operations import (
    COMPOSITE,
    CONSTANT,
    CONTROL,
    IDENTITY,
    INDEX,
    LINEAR,
    MULTILINEAR,
    RANDOM,
    SIZES,
    VARIABLE,
    Operation,
    emit,
    fixed_operands,
    is_registered,
)
from .pairing import OperationRecord, Pairing, Unpaired, Value

# ---------------------------------------------------------------------- memory
RULE = 3  # tensors of the pairs' size that a rule works with for each value: both sides of it, and its multiplier
LIST = 2  # the same of what a list holds: its multipliers, and the tensor that they are stacked to
KEPT = 2  # what a loop stores of its iterations takes this many times its size, as measured


class Bytes:
    """Count bytes per row of values: numbers if shapes are known while tracing, else tensors of TensorFlow.

    Attributes
    ----------
    side : bytes of values that an example, or a reference, keeps until the multipliers have come back.
    pair : bytes that a pair needs in the backward pass.
    items : bytes of items put into lists at every turn of a loop, which outlive it.
    """

    def __init__(self, of_loop: bool = False) -> None:
        self.of_loop = of_loop  # whether this is about one turn
        self.side: Any = 0
        self.pair: Any = 0
        self.items: Any = 0

    def add_value(self, value: Value) -> None:
        """Count a value that depends on the input."""
        numbers = value.layout.numbers if value.layout is not None else None
        size = size_of(value.x) if numbers is None else numbers * value.x.dtype.size
        self.side, self.pair = add_numbers(self.side, size), add_numbers(self.pair, RULE * size)

    def add_item(self, tensor: Any, length: Any) -> None:
        """Count an item of a list; for a list of known length that a loop writes to, the whole list."""
        if length is None or not self.of_loop:
            self.items = add_numbers(self.items, size_of(tensor))
        else:
            list_bytes = tf.cast(length, tf.float64) * size_of(tensor)
            self.side, self.pair = add_numbers(self.side, list_bytes), add_numbers(self.pair, LIST * list_bytes)

    def add_loop(self, count: Any, vector: Any) -> None:
        """Count a loop, from the ``turn_vector`` of its largest turn."""
        side, pair, items, saved = tf.unstack(vector)
        count = tf.cast(count, tf.float64)
        self.side, self.pair = add_numbers(self.side, side + KEPT * count * saved), add_numbers(self.pair, pair)
        self.items = add_numbers(self.items, count * items)

    def turn_vector(self, saved: list[Any]) -> Any:
        """Return the bytes of a turn, and those of the values that are kept of it, as a tensor (4,)."""
        numbers = (self.side, self.pair, self.items, sum(map(size_of, saved), 0))
        return as_vector(numbers)

    def add_branch(self, vector: Any) -> None:
        """Count a branch, from its ``turn_vector``."""
        side, pair, items, _ = tf.unstack(vector)
        self.side, self.pair, self.items = (
            add_numbers(self.side, side),
            add_numbers(self.pair, pair),
            add_numbers(self.items, items),
        )

    def footprint(self, is_separate: bool) -> tuple[Any, Any, Any]:
        """Return the bytes of each reference, each example and each pair."""
        side, pair = add_numbers(self.side, self.items), add_numbers(self.pair, LIST * self.items)
        return (side, side, pair) if is_separate else (0, 0, add_numbers(2 * side, pair))


def add_numbers(a: Any, b: Any) -> Any:
    """Return the sum of numbers or tensors."""
    if tf.is_tensor(a) or tf.is_tensor(b):
        a, b = (tf.cast(v, tf.float64) for v in (a, b))
    return a + b


def size_of(tensor: Any) -> Any:
    """Return bytes of one row; a tensor if more than the number of rows is unknown. Then there is one row only."""
    sizes = tensor.shape.as_list() if tensor.shape.rank is not None else [None, None]
    if sizes.count(None) > 1:
        return tf.cast(tf.size(tensor), tf.float64) * tensor.dtype.size
    count = tensor.dtype.size
    for size in sizes:
        count *= 1 if size is None else size
    return count


def as_vector(numbers: Sequence[Any]) -> Any:
    """Return numbers as an array, or as a tensor if some of them are known only at run time."""
    if is_known(numbers):
        return np.array(numbers, np.float64)
    return tf.stack([tf.cast(number, tf.float64) for number in numbers])


def is_known(numbers: Sequence[Any]) -> bool:
    """Return whether nothing depends on more than shapes."""
    return not any(map(tf.is_tensor, numbers))


def as_footprint(numbers: Any) -> Footprint:
    """Return a footprint of whole bytes."""
    return Footprint(*(int(number) for number in numbers))


# ---------------------------------------------------------------------- tape
class Tape:
    """Record how multipliers pass from the outputs of each operation to its inputs."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.records: list[tuple[Sequence[Value], Callable[..., None]]] = []
        self.multipliers: dict[Value, Any] = {}
        self.makers: dict[Value, OperationRecord] = {}  # steps with rules of the table, by what they return

    def record(self, outputs: Sequence[Value], pull: Callable[..., None]) -> None:
        """Record how to pull the outputs' multipliers (None where there is none) back."""
        self.records.append((outputs, pull))

    def add(self, value: Value, multiplier: Any) -> None:
        """Add to the multiplier of a value."""
        if not value.active or multiplier is None:
            return
        if not value.is_list:
            multiplier = tf.cast(multiplier, self.tracer.float_of(value))
        before = self.multipliers.get(value)
        if before is not None:
            multiplier = (
                tf.raw_ops.AddN(inputs=[before, multiplier]) if value.is_list else add_multipliers(before, multiplier)
            )
        self.multipliers[value] = multiplier

    def add_all(self, values: Sequence[Value], multipliers: Sequence[Any]) -> None:
        """Add to the multipliers of several values."""
        for value, m in zip(values, multipliers, strict=True):
            self.add(value, m)

    def pull(self) -> None:
        """Pull all multipliers back to the inputs of the run."""
        for outputs, pull in reversed(self.records):
            multipliers = [self.multipliers.get(v) for v in outputs]
            if any(m is not None for m in multipliers):
                pull(*multipliers)


class Tracer:
    """Run functions of a traced model on both sides of the pairs."""

    def __init__(
        self,
        analysis: GraphAnalysis,
        pairing: Pairing,
        layouts: Layouts,
        multiplier_dtype: tf.DType,
        diagnosis: list[Diagnosis] | None = None,
        zero_unreached: bool = False,
    ) -> None:
        self.library, self.analysis, self.pairing, self.layouts = analysis.library, analysis, pairing, layouts
        self.multiplier_dtype = multiplier_dtype  # dtype of the multipliers of what is no float
        self.layer_calls: Sequence[LayerCall] = ()
        self.leaves: list[Value] = []  # the inputs of the layer that is explained
        self.constants_differ = pairing.is_separate  # whether constants may differ between the sides
        self._entered: dict[int, list[Value]] = {}
        self._depth = 0  # of layers that are treated as a whole
        self.lost: set[Any] = set()  # variables that were written where that cannot be followed
        self.written: dict[Any, Value] = {}  # what the model has written to its variables, by their handles
        self.diagnosis = diagnosis
        self.pull = rules.pull_zero_unreached if zero_unreached else rules.pull
        self.dtypes: set[tf.DType] = set()  # of values that depend on the input
        self.bytes = Bytes()  # what these take
        self.checks = False  # whether something is checked while it runs
        self.loops = False
        self.has_kernels = False  # whether rules may run in one pass
        # Operations that write each place of a list once in a loop, and those of a loop that finds something in its list.
        self.writes_once: set[Any] = set()
        self.writes_over: set[Any] = set()

    # ------------------------------------------------------------------ what rules ask
    def floating(self, tensor: Any) -> Any:
        """Return integers and booleans as floats."""
        return tensor if tensor.dtype.is_floating or tensor.dtype.is_complex else tf.cast(tensor, self.multiplier_dtype)

    def float_of(self, value: Value) -> tf.DType:
        """Return the dtype of a value's multipliers."""
        return value.x.dtype if value.x.dtype.is_floating or value.x.dtype.is_complex else self.multiplier_dtype

    # ------------------------------------------------------------------ running functions
    def run(self, body: Body, arguments: Sequence[Value], tape: Tape | None) -> list[Value]:
        """Run a function and return its outputs."""
        values: dict[int, Value] = {id(t): v for t, v in zip(body.inputs, arguments, strict=True)}
        for op in body.operations:
            inputs = [values[id(t)] for t in op.inputs]
            mark = parse_mark(op)
            if mark is None:
                outputs = self.run_operation(op, inputs, None if self._depth else tape)
            else:
                outputs = (self._enter if mark[0] else self._leave)(mark[1], op, inputs, tape)
            values.update((id(t), v) for t, v in zip(op.outputs, outputs, strict=True))
        return [values[id(t)] for t in body.outputs]

    def run_inside(self, body: Body, arguments: Sequence[Value], tape: Tape | None) -> list[Value]:
        """Run the body of a loop or a branch; variables that it writes to cannot be read any more."""
        before = dict(self.written)
        outputs = self.run(body, arguments, tape)
        self.lost |= {handle for handle, value in self.written.items() if before.get(handle) is not value}
        self.written = before
        return outputs

    def run_operation(self, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
        """Run one operation."""
        operation = self.analysis.operation(op)
        if op.type.startswith("ResourceGather") and inputs[0].x.ref() in {*self.written, *self.lost}:
            raise UnsupportedOperationError(
                f"{op.type} in {self.library.place(op)} reads a variable that the model writes to."
            )
        if operation is None or operation.kind == RANDOM:  # the analysis has shown that no signal passes
            return self.run_constant(op, [self.require_equal_positions(v, op) for v in inputs])
        if operation.kind == CONSTANT:
            inputs = [self.require_equal_size(v, op) for v in inputs]
        if operation.kind in (CONTROL, VARIABLE):
            assert operation.function is not None
            return operation.function(self, op, inputs, tape)
        if operation.kind == IDENTITY and len(op.outputs) == len(inputs):
            return list(inputs)
        if not any(v.active or v.origin for v in inputs) or operation.kind == CONSTANT:
            return self.run_constant(op, inputs)
        if operation.kind == LINEAR and not any(v.active for v in inputs):
            return self.run_indices(op, inputs)
        if operation.kind in (LINEAR, MULTILINEAR) or op.type in SIZES:
            inputs = [
                replace(v, active=False, origin=v.origin or "values that depend on the input")
                if v.active and fixed
                else v
                for v, fixed in zip(inputs, fixed_operands(op), strict=True)
            ]
        inputs = [self.require_equal_positions(v, op) for v in inputs]
        if not any(v.active for v in inputs):
            return self.run_constant(op, inputs)
        if operation.kind == INDEX:
            return self.run_indices(op, inputs)
        if operation.kind == COMPOSITE:
            assert operation.function is not None
            return operation.function(self, op, inputs, tape)
        return self.run_active(op, operation, inputs, tape)

    # ------------------------------------------------------------------ layers as a whole
    def _enter(self, number: int, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
        layer_call = self.layer_calls[number]
        if layer_call.operation is None:
            self.leaves = [
                Value(v.x, v.r, True, layout=self.layouts.of(t))
                for v, t in zip(inputs, op.outputs, strict=True)
                if v.x.dtype.is_floating
            ]
            self.note_values(self.leaves)
            leaves = iter(self.leaves)
            return [next(leaves) if v.x.dtype.is_floating else v for v in inputs]
        entered = [replace(v) for v in inputs]
        self._entered[number] = entered
        if tape is not None and not self._depth:

            def pull(*multipliers: Any) -> None:
                tape.add_all(inputs, multipliers)

            tape.record(entered, pull)
        self._depth += 1
        return entered

    def _leave(self, number: int, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
        layer_call, entered = self.layer_calls[number], self._entered[number]
        assert layer_call.operation is not None
        self._depth -= 1
        if not any(v.active for v in entered) or layer_call.operation.kind == CONSTANT:
            return [replace(v, active=False) for v in inputs]
        outputs = self.active_values(op, [v.x for v in inputs], [v.r for v in inputs])
        if tape is not None and not self._depth:
            self.record(tape, LayerRecord(self, layer_call, entered, outputs), layer_call.operation)
        return outputs

    # ------------------------------------------------------------------ single operations
    def run_constant(self, op: Any, inputs: Sequence[Value], origin: str = "") -> list[Value]:
        """Run an operation that does not depend on the explained inputs."""
        sides = [[v.x for v in inputs], [v.r for v in inputs], [self.value_at_pairs(v) for v in inputs]]
        x = emit(op, sides[0])
        r, p = (x if _same(side, sides[0]) else emit(op, side) for side in sides[1:])
        return [Value(*t, origin="" if r is x else origin) for t in zip(x, r, [False] * len(x), p, strict=True)]

    def run_indices(self, op: Any, inputs: Sequence[Value]) -> list[Value]:
        """Run an operation that yields indices, which may be used if they are equal on both sides."""
        origin = f"{op.type} in {self.library.place(op)}"
        indices = self.run_constant(op, inputs, origin=origin)
        sized = origin if op.type in COUNTS else next((v.sized for v in inputs if v.sized), "")
        return [replace(v, layout=self.layouts.of(t), sized=sized) for v, t in zip(indices, op.outputs, strict=True)]

    def value_at_pairs(self, value: Value) -> Any:
        """Return the value of a constant on all pairs; for an active value a tensor of that shape."""
        return self.pairing.blank(value, value.x.dtype) if value.active and not value.is_list else value.p

    def run_active(self, op: Any, operation: Operation, inputs: list[Value], tape: Tape | None) -> list[Value]:
        """Run an operation on both sides, and record its rule."""
        x, r = (emit(op, [getattr(v, side) for v in inputs]) for side in "xr")
        outputs = self.active_values(op, x, r)
        if tape is not None:
            self.record(tape, OperationRecord(self, op, inputs, outputs), operation)
        return outputs

    def record(self, tape: Tape, record: OperationRecord, operation: Operation) -> None:
        """Record that the rule of an operation pulls its multipliers back."""
        fused = (
            self._fused_adjoint(tape, record)
            if type(record) is OperationRecord and not is_registered(operation)
            else None
        )
        if fused is None:
            tape.record(record.results, lambda *m: self._pull(tape, record, operation, m))
        else:
            tape.record(record.results, lambda m: tape.add_all(fused.operands, fused.pull(m)))

    def _fused_adjoint(self, tape: Tape, record: OperationRecord) -> Any:
        """Return the adjoint of several operations that a record ends, if kernels may run."""
        tape.makers.update(dict.fromkeys(record.results, record))
        if not self.has_kernels:
            return None
        return match_attention(record, tape.makers) or match_convolution(record, tape.makers)

    def active_values(self, op: Any, x: Sequence[Any], r: Sequence[Any]) -> list[Value]:
        """Return the results of both sides as values that depend on the input."""
        values = [Value(a, b, True, layout=self.layouts.of(t)) for a, b, t in zip(x, r, op.outputs, strict=True)]
        for value in values:
            if value.layout is not None and not value.is_list:  # it knows more than the operations themselves
                value.x.set_shape(value.layout.static)
                value.r.set_shape(value.layout.static)
        self.note_values(values)
        return values

    def note_values(self, values: Sequence[Value]) -> None:
        """Note dtypes and bytes of values that depend on the input."""
        for value in values:
            if value.is_list:
                continue
            self.require_layout(value)
            self.dtypes.add(value.x.dtype)
            self.bytes.add_value(value)

    def count_inputs(self, values: Sequence[Value]) -> None:
        """Count the inputs, whose multipliers are multiplied by differences in the precision of the inputs."""
        for value in values:
            if value.active:
                self.dtypes.add(value.x.dtype)
                self.bytes.add_value(value)

    @contextmanager
    def count_separately(self, of_loop: bool = False) -> Iterator[Bytes]:
        """Count the bytes of one turn of a loop, or of a branch, by themselves."""
        outside, self.bytes = self.bytes, Bytes(of_loop or self.bytes.of_loop)
        try:
            yield self.bytes
        finally:
            self.bytes = outside

    def require_layout(self, value: Value) -> Value:
        """Return a value; raise ``Unpaired`` if the pairing needs to know the axis of its rows and it is unknown."""
        if self.pairing.is_separate and value.active and not value.is_list and value.layout is None:
            raise Unpaired(f"{value.x.name} {value.x.shape}")
        return value

    def _pull(self, tape: Tape, record: OperationRecord, operation: Operation, multipliers: Sequence[Any]) -> None:
        result = self.pull(record, operation, multipliers)
        if self.diagnosis is not None:
            around = [v for v in record.operands if not v.active and v.r is not v.x and not v.is_list]
            gap, size = _count_differences(around) if around else rules.local_gap(record, multipliers, result)
            place = AROUND + record.place if around else record.place
            self.diagnosis.append(Diagnosis([(record.name, place)], tf.stack([[gap], [size]])))
        tape.add_all([v for v in record.operands if v.active], result)

    def require_equal_positions(self, value: Value, op: Any) -> Value:
        """Return indices that an operation uses, with a check that they are equal on both sides."""
        if not value.origin:
            return value
        text = f"the positions from {value.origin} differ between example and reference, and {op.type} in "
        return self.require_equal(self.require_equal_size(value, op), text + f"{self.library.place(op)} uses them")

    def require_equal_size(self, value: Value, op: Any) -> Value:
        """Return a value whose size depends on values, with a check that its size is equal on both sides."""
        if not value.sized:
            return value
        if self.pairing.is_separate:  # rows are counted on both sides
            raise Unpaired(f"{value.x.name} {value.x.shape}")
        text = f"the number of entries from {value.sized} differs between example and reference, and {op.type} in "
        sides, self.checks = (tf.shape(value.x), tf.shape(value.r)), True
        alike = tf.debugging.Assert(
            tf.reduce_all(tf.equal(*sides)), [DIVERGED + text + f"{self.library.place(op)} uses it"]
        )
        with tf.control_dependencies([alike]):
            return replace(value, x=tf.identity(value.x), r=tf.identity(value.r), p=None, sized="")

    def require_equal(self, value: Value, text: str) -> Value:
        """Return a value with a check that it is equal on both sides; ``text`` is the message if it is not."""
        sides, self.checks = self.pairing.spread(value), True
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(tf.equal(*sides)), [DIVERGED + text])]):
            return Value(tf.identity(value.x), tf.identity(value.r), p=tf.identity(sides[0]))


DIVERGED = "deepshap: "
AROUND = "around: "  # marks operations that no rule is to blame for
COUNTS = "Where", "Unique", "UniqueV2"


@dataclass
class Diagnosis:
    """How far rules are from explaining their outputs: names and places of operations, gaps and sizes (2, operations)."""

    steps: list[tuple[str, str]]
    gaps: Any

    @staticmethod
    def of_all(diagnoses: Sequence[Diagnosis]) -> Diagnosis:
        """Join several diagnoses."""
        empty = tf.zeros([2, 0], tf.float64)
        return Diagnosis([s for d in diagnoses for s in d.steps], tf.concat([empty, *(d.gaps for d in diagnoses)], 1))


def _count_differences(values: Sequence[Value]) -> tuple[Any, Any]:
    """Count the numbers that differ between the sides in values that reach an operation around the explained layer."""
    counts = [tf.reduce_sum(tf.cast(tf.not_equal(v.x, v.r), tf.float64)) for v in values]
    return tf.add_n(counts), tf.zeros([], tf.float64)


def _same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return all(s is t for s, t in zip(a, b, strict=True))
