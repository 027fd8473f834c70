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
from .adjoints import added
from .batch_axes import Layouts
from .fused_adjoints import match_attention, match_convolution
from .graph_analysis import Survey
from .graphs import Body, emit
from .handlers import Region, RegionStep, marker
from .operations import (
    COMPOSITE,
    CONSTANT,
    CONTROL,
    INDEX,
    LINEAR,
    MULTILINEAR,
    RANDOM,
    SAME,
    SIZES,
    VARIABLE,
    Operation,
    is_of_user,
    places,
)
from .pairing import OperationRecord, Pairing, Unpaired, Value

# ---------------------------------------------------------------------- memory
RULE = 3  # tensors of the pairs' size that a rule works with for each value: both sides of it, and its multiplier
LIST = 2  # the same of what a list holds: its multipliers, and the tensor that they are stacked to
KEPT = 2  # what a loop keeps of its turns takes so many times its size, as measured


class Bytes:
    """Bytes per row of what a tracer meets: numbers where shapes are known while tracing, else tensors of TensorFlow.

    Attributes
    ----------
    side : of values that an example, or a reference, keeps until the multipliers have come back.
    pair : of what a pair of them takes on that way.
    items : of what is put into lists at every turn of a loop, which outlives it.
    """

    def __init__(self, of_loop: bool = False) -> None:
        self.of_loop = of_loop  # whether this is about one turn
        self.side: Any = 0
        self.pair: Any = 0
        self.items: Any = 0

    def value(self, value: Value) -> None:
        """Count a value that depends on the input."""
        numbers = value.layout.numbers if value.layout is not None else None
        size = size_of(value.x) if numbers is None else numbers * value.x.dtype.size
        self.side, self.pair = plus(self.side, size), plus(self.pair, RULE * size)

    def item(self, tensor: Any, length: Any) -> None:
        """Count what is put into a list; of a list whose length is given, and which a loop writes to, all that it holds."""
        if length is None or not self.of_loop:
            self.items = plus(self.items, size_of(tensor))
        else:
            whole = tf.cast(length, tf.float64) * size_of(tensor)
            self.side, self.pair = plus(self.side, whole), plus(self.pair, LIST * whole)

    def turns(self, count: Any, vector: Any) -> None:
        """Count a loop, from what ``of_turn`` has said of its largest turn."""
        side, pair, items, kept = tf.unstack(vector)
        count = tf.cast(count, tf.float64)
        self.side, self.pair = plus(self.side, side + KEPT * count * kept), plus(self.pair, pair)
        self.items = plus(self.items, count * items)

    def of_turn(self, kept: list[Any]) -> Any:
        """What a turn takes, and what of it is kept for the way back, as a tensor (4,)."""
        numbers = (self.side, self.pair, self.items, sum(map(size_of, kept), 0))
        return as_vector(numbers)

    def branch(self, vector: Any) -> None:
        """Count a branch, from its ``of_turn``."""
        side, pair, items, _ = tf.unstack(vector)
        self.side, self.pair, self.items = plus(self.side, side), plus(self.pair, pair), plus(self.items, items)

    def footprint(self, apart: bool) -> tuple[Any, Any, Any]:
        """What each reference, each example and each pair takes."""
        side, pair = plus(self.side, self.items), plus(self.pair, LIST * self.items)
        return (side, side, pair) if apart else (0, 0, plus(2 * side, pair))


def plus(a: Any, b: Any) -> Any:
    """The sum of numbers or tensors."""
    if tf.is_tensor(a) or tf.is_tensor(b):
        a, b = (tf.cast(v, tf.float64) for v in (a, b))
    return a + b


def size_of(tensor: Any) -> Any:
    """Bytes of one row; a tensor where more than the number of rows is unknown. Then there is one row alone."""
    sizes = tensor.shape.as_list() if tensor.shape.rank is not None else [None, None]
    if sizes.count(None) > 1:
        return tf.cast(tf.size(tensor), tf.float64) * tensor.dtype.size
    count = tensor.dtype.size
    for size in sizes:
        count *= 1 if size is None else size
    return count


def as_vector(numbers: Sequence[Any]) -> Any:
    """Numbers in one array, or tensor where some of them are known when the function runs."""
    if is_known(numbers):
        return np.array(numbers, np.float64)
    return tf.stack([tf.cast(number, tf.float64) for number in numbers])


def is_known(numbers: Sequence[Any]) -> bool:
    """Whether nothing depends on more than shapes."""
    return not any(map(tf.is_tensor, numbers))


def as_footprint(numbers: Any) -> Footprint:
    """Whole bytes."""
    return Footprint(*(int(number) for number in numbers))


# ---------------------------------------------------------------------- tape
class Tape:
    """What a run leaves behind: how multipliers get from the outputs of each operation to its inputs."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.records: list[tuple[Sequence[Value], Callable[..., None]]] = []
        self.multipliers: dict[Value, Any] = {}
        self.makers: dict[Value, OperationRecord] = {}  # steps with rules of the table, by what they return

    def record(self, outputs: Sequence[Value], pull: Callable[..., None]) -> None:
        """Remember how to pull the outputs' multipliers (None where there is none) back."""
        self.records.append((outputs, pull))

    def add(self, value: Value, multiplier: Any) -> None:
        """Add to the multiplier of a value."""
        if not value.active or multiplier is None:
            return
        if not value.is_list:
            multiplier = tf.cast(multiplier, self.tracer.float_of(value))
        before = self.multipliers.get(value)
        if before is not None:
            multiplier = tf.raw_ops.AddN(inputs=[before, multiplier]) if value.is_list else added(before, multiplier)
        self.multipliers[value] = multiplier

    def add_all(self, values: Sequence[Value], multipliers: Sequence[Any]) -> None:
        """Add to the multipliers of several values."""
        for value, m in zip(values, multipliers, strict=True):
            self.add(value, m)

    def pull(self) -> None:
        """Carry all multipliers back to where the run began."""
        for outputs, pull in reversed(self.records):
            found = [self.multipliers.get(v) for v in outputs]
            if any(m is not None for m in found):
                pull(*found)


class Tracer:
    """Runs functions of a traced model on pairs."""

    def __init__(
        self,
        survey: Survey,
        pairing: Pairing,
        layouts: Layouts,
        carrier: tf.DType,
        diagnosis: list[Diagnosis] | None = None,
        zero_unreached: bool = False,
    ) -> None:
        self.library, self.survey, self.pairing, self.layouts = survey.library, survey, pairing, layouts
        self.carrier = carrier  # dtype of the multipliers of what is no float
        self.regions: Sequence[Region] = ()
        self.leaves: list[Value] = []  # the inputs of the layer that is explained
        self.constants_differ = pairing.apart  # whether constants may differ between the sides
        self._entered: dict[int, list[Value]] = {}
        self._depth = 0  # of layers that are treated as a whole
        self.lost: set[Any] = set()  # variables that were written where that cannot be followed
        self.written: dict[Any, Value] = {}  # what the model has written to its variables, by their handles
        self.diagnosis = diagnosis
        self.pull = rules.pull_carefully if zero_unreached else rules.pull
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
        """Integers and booleans as floats."""
        return tensor if tensor.dtype.is_floating or tensor.dtype.is_complex else tf.cast(tensor, self.carrier)

    def float_of(self, value: Value) -> tf.DType:
        """Dtype of a value's multipliers."""
        return value.x.dtype if value.x.dtype.is_floating or value.x.dtype.is_complex else self.carrier

    # ------------------------------------------------------------------ running functions
    def run(self, body: Body, arguments: Sequence[Value], tape: Tape | None) -> list[Value]:
        """Run a function; returns its outputs."""
        found: dict[int, Value] = {id(t): v for t, v in zip(body.inputs, arguments, strict=True)}
        for op in body.operations:
            inputs = [found[id(t)] for t in op.inputs]
            mark = marker(op)
            if mark is None:
                outputs = self.step(op, inputs, None if self._depth else tape)
            else:
                outputs = (self._enter if mark[0] else self._leave)(mark[1], op, inputs, tape)
            found.update((id(t), v) for t, v in zip(op.outputs, outputs, strict=True))
        return [found[id(t)] for t in body.outputs]

    def run_inside(self, body: Body, arguments: Sequence[Value], tape: Tape | None) -> list[Value]:
        """Run the body of a loop or a branch; what it writes to variables cannot be read any more."""
        before = dict(self.written)
        outputs = self.run(body, arguments, tape)
        self.lost |= {handle for handle, value in self.written.items() if before.get(handle) is not value}
        self.written = before
        return outputs

    def step(self, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
        """Run one operation."""
        operation = self.survey.operation(op)
        if op.type.startswith("ResourceGather") and inputs[0].x.ref() in {*self.written, *self.lost}:
            raise UnsupportedOperationError(
                f"{op.type} in {self.library.place(op)} reads a variable that the model writes to."
            )
        if operation is None or operation.kind == RANDOM:  # the survey has seen that no signal passes
            return self.constant(op, [self.settled(v, op) for v in inputs])
        if operation.kind == CONSTANT:
            inputs = [self.counted_alike(v, op) for v in inputs]
        if operation.kind in (CONTROL, VARIABLE):
            assert operation.function is not None
            return operation.function(self, op, inputs, tape)
        if operation.kind == SAME and len(op.outputs) == len(inputs):
            return list(inputs)
        if not any(v.active or v.origin for v in inputs) or operation.kind == CONSTANT:
            return self.constant(op, inputs)
        if operation.kind == LINEAR and not any(v.active for v in inputs):
            return self._positions(op, inputs)
        if operation.kind in (LINEAR, MULTILINEAR) or op.type in SIZES:
            inputs = [
                replace(v, active=False, origin=v.origin or "values that depend on the input")
                if v.active and fixed
                else v
                for v, fixed in zip(inputs, places(op), strict=True)
            ]
        inputs = [self.settled(v, op) for v in inputs]
        if not any(v.active for v in inputs):
            return self.constant(op, inputs)
        if operation.kind == INDEX:
            return self._positions(op, inputs)
        if operation.kind == COMPOSITE:
            assert operation.function is not None
            return operation.function(self, op, inputs, tape)
        return self.active(op, operation, inputs, tape)

    # ------------------------------------------------------------------ layers as a whole
    def _enter(self, number: int, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
        region = self.regions[number]
        if region.operation is None:
            self.leaves = [
                Value(v.x, v.r, True, layout=self.layouts.of(t))
                for v, t in zip(inputs, op.outputs, strict=True)
                if v.x.dtype.is_floating
            ]
            self.note(self.leaves)
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
        region, entered = self.regions[number], self._entered[number]
        assert region.operation is not None
        self._depth -= 1
        if not any(v.active for v in entered) or region.operation.kind == CONSTANT:
            return [replace(v, active=False) for v in inputs]
        outputs = self.outputs(op, [v.x for v in inputs], [v.r for v in inputs])
        if tape is not None and not self._depth:
            self.record(tape, RegionStep(self, region, entered, outputs), region.operation)
        return outputs

    # ------------------------------------------------------------------ single operations
    def constant(self, op: Any, inputs: Sequence[Value], origin: str = "") -> list[Value]:
        """Run an operation that carries no signal."""
        sides = [[v.x for v in inputs], [v.r for v in inputs], [self.at_pairs(v) for v in inputs]]
        x = emit(op, sides[0])
        r, p = (x if _same(side, sides[0]) else emit(op, side) for side in sides[1:])
        return [Value(*t, origin="" if r is x else origin) for t in zip(x, r, [False] * len(x), p, strict=True)]

    def _positions(self, op: Any, inputs: Sequence[Value]) -> list[Value]:
        """Indices, which may be used where they are the same on both sides."""
        origin = f"{op.type} in {self.library.place(op)}"
        found = self.constant(op, inputs, origin=origin)
        sized = origin if op.type in COUNTS else next((v.sized for v in inputs if v.sized), "")
        return [replace(v, layout=self.layouts.of(t), sized=sized) for v, t in zip(found, op.outputs, strict=True)]

    def at_pairs(self, value: Value) -> Any:
        """What a constant is for all pairs; of an active value something of its shape."""
        return self.pairing.blank(value, value.x.dtype) if value.active and not value.is_list else value.p

    def active(self, op: Any, operation: Operation, inputs: list[Value], tape: Tape | None) -> list[Value]:
        """Run an operation on both sides, and let its rule pull multipliers back."""
        x, r = (emit(op, [getattr(v, side) for v in inputs]) for side in "xr")
        outputs = self.outputs(op, x, r)
        if tape is not None:
            self.record(tape, OperationRecord(self, op, inputs, outputs), operation)
        return outputs

    def record(self, tape: Tape, record: OperationRecord, operation: Operation) -> None:
        """Let the rule of an operation pull the multipliers of a step's outputs back."""
        whole = self._whole(tape, record) if type(record) is OperationRecord and not is_of_user(operation) else None
        if whole is None:
            tape.record(record.results, lambda *m: self._pull(tape, record, operation, m))
        else:
            tape.record(record.results, lambda m: tape.add_all(whole.operands, whole.pulled(m)))

    def _whole(self, tape: Tape, record: OperationRecord) -> Any:
        """Several operations that a step ends and that go back as one, where kernels may run."""
        tape.makers.update(dict.fromkeys(record.results, record))
        if not self.has_kernels:
            return None
        return match_attention(record, tape.makers) or match_convolution(record, tape.makers)

    def outputs(self, op: Any, x: Sequence[Any], r: Sequence[Any]) -> list[Value]:
        """What an operation returns on both sides, as values that depend on the input."""
        found = [Value(a, b, True, layout=self.layouts.of(t)) for a, b, t in zip(x, r, op.outputs, strict=True)]
        for value in found:
            if value.layout is not None and not value.is_list:  # it knows more than the operations themselves
                value.x.set_shape(value.layout.static)
                value.r.set_shape(value.layout.static)
        self.note(found)
        return found

    def note(self, values: Sequence[Value]) -> None:
        """Take note of values that depend on the input."""
        for value in values:
            if value.is_list:
                continue
            self.placed(value)
            self.dtypes.add(value.x.dtype)
            self.bytes.value(value)

    def count_inputs(self, values: Sequence[Value]) -> None:
        """Count the inputs, whose multipliers are multiplied by their differences in the end, in their own precision."""
        for value in values:
            if value.active:
                self.dtypes.add(value.x.dtype)
                self.bytes.value(value)

    @contextmanager
    def counted(self, of_loop: bool = False) -> Iterator[Bytes]:
        """Count what one turn of a loop, or a branch, takes by itself."""
        outside, self.bytes = self.bytes, Bytes(of_loop or self.bytes.of_loop)
        try:
            yield self.bytes
        finally:
            self.bytes = outside

    def placed(self, value: Value) -> Value:
        """An active value whose rows can be found, as pairing it takes; else ``Unpaired``."""
        if self.pairing.apart and value.active and not value.is_list and value.layout is None:
            raise Unpaired(f"{value.x.name} {value.x.shape}")
        return value

    def _pull(self, tape: Tape, record: OperationRecord, operation: Operation, multipliers: Sequence[Any]) -> None:
        result = self.pull(record, operation, multipliers)
        if self.diagnosis is not None:
            around = [v for v in record.operands if not v.active and v.r is not v.x and not v.is_list]
            gap, size = _differing(around) if around else rules.local_gap(record, multipliers, result)
            place = AROUND + record.place if around else record.place
            self.diagnosis.append(Diagnosis([(record.name, place)], tf.stack([[gap], [size]])))
        tape.add_all([v for v in record.operands if v.active], result)

    def settled(self, value: Value, op: Any) -> Value:
        """Indices that are about to be used: they must be the same on both sides."""
        if not value.origin:
            return value
        text = f"the positions from {value.origin} differ between example and reference, and {op.type} in "
        return self.agreed(self.counted_alike(value, op), text + f"{self.library.place(op)} uses them")

    def counted_alike(self, value: Value, op: Any) -> Value:
        """What values have counted, and is about to be used: its size must be the same on both sides."""
        if not value.sized:
            return value
        if self.pairing.apart:  # rows are counted on both sides
            raise Unpaired(f"{value.x.name} {value.x.shape}")
        text = f"the number of entries from {value.sized} differs between example and reference, and {op.type} in "
        sides, self.checks = (tf.shape(value.x), tf.shape(value.r)), True
        alike = tf.debugging.Assert(
            tf.reduce_all(tf.equal(*sides)), [DIVERGED + text + f"{self.library.place(op)} uses it"]
        )
        with tf.control_dependencies([alike]):
            return replace(value, x=tf.identity(value.x), r=tf.identity(value.r), p=None, sized="")

    def agreed(self, value: Value, text: str) -> Value:
        """What must be the same on both sides; ``text`` says what is wrong where it is not."""
        sides, self.checks = self.pairing.spread(value), True
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(tf.equal(*sides)), [DIVERGED + text])]):
            return Value(tf.identity(value.x), tf.identity(value.r), p=tf.identity(sides[0]))


DIVERGED = "deepshap: "
AROUND = "around: "  # marks operations that no rule is to blame for
COUNTS = "Where", "Unique", "UniqueV2"


@dataclass
class Diagnosis:
    """How far operations are from explaining their own outputs: their names and places, and gaps and sizes (2, operations)."""

    steps: list[tuple[str, str]]
    gaps: Any

    @staticmethod
    def of_all(found: Sequence[Diagnosis]) -> Diagnosis:
        """Several, as one."""
        nothing = tf.zeros([2, 0], tf.float64)
        return Diagnosis([s for d in found for s in d.steps], tf.concat([nothing, *(d.gaps for d in found)], 1))


def _differing(values: Sequence[Value]) -> tuple[Any, Any]:
    """How many numbers differ between the sides, of values that reach an operation around the explained layer."""
    counts = [tf.reduce_sum(tf.cast(tf.not_equal(v.x, v.r), tf.float64)) for v in values]
    return tf.add_n(counts), tf.zeros([], tf.float64)


def _same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return all(s is t for s, t in zip(a, b, strict=True))
