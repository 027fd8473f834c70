"""Functions, loops, branches and lists of tensors, for both sides of the pairs at once.

A loop runs forward as one ``tf.while_loop`` over both sides and keeps the values at the beginning of each turn. Backward,
another loop runs over the turns in reverse: it computes a turn again from what was kept, and pulls the multipliers
through it. Lists of tensors are linear, and their multipliers are lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import tensorflow as tf

from ...errors import UnsupportedOperationError
from .graph_analysis import ACTIVE, ROW_COUNT, STATIC
from .graphs import Body, source
from .operations import emit
from .pairing import Unpaired, Value
from .tracer import DIVERGED, Diagnosis, Tape, Tracer

KEEPS = ("TensorListSetItem", "TensorListPushBack", "TensorListResize")  # of a list that they write to


def analysis_flags(values: Sequence[Value]) -> list[str]:
    """Return the flags of the graph analysis for these values."""
    return [ACTIVE if v.active else STATIC if v.x is v.r else ROW_COUNT for v in values]


def call(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
    """Run a function as a part of the graph that calls it."""
    return tracer.run(tracer.library.body(op, "f"), inputs, tape)


# ---------------------------------------------------------------------- variables
def read(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
    """Return a variable's value, or what the model has written to it before."""
    handle = inputs[0].x.ref()
    if handle in tracer.lost:
        raise UnsupportedOperationError(
            f"{tracer.library.place(op)} reads a variable that the model writes to in a loop or a branch, which cannot be "
            "followed. Keep such a state in the loop's own variables."
        )
    written = tracer.written.get(handle)
    if written is not None:
        return [written]
    value = emit(op, [inputs[0].x])[0]
    return [Value(value, value)]


def write(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
    """Note what is written to a variable, for later reads; the variable itself does not change."""
    handle, value = inputs[0].x.ref(), inputs[1]
    if op.type != "AssignVariableOp":
        before = tracer.written.get(handle)
        if before is None:
            stored = tf.raw_ops.ReadVariableOp(resource=inputs[0].x, dtype=value.x.dtype)
            before = Value(stored, stored)
        if before.active or value.active:
            raise UnsupportedOperationError(
                f"{op.type} in {tracer.library.place(op)} adds what depends on the input to a variable."
            )
        change = 1 if op.type == "AssignAddVariableOp" else -1
        x, r, p = (getattr(before, side) + change * getattr(value, side) for side in "xrp")
        value = Value(x, r, p=p)
    tracer.written[handle] = value
    return []


# ---------------------------------------------------------------------- values as tensors
class ValuePacking:
    """Pass values through a loop or a branch as plain tensors: as many for each as it needs."""

    def __init__(self, tracer: Tracer, flags: Sequence[str], layouts: Sequence[Any]) -> None:
        self.tracer, self.active, self.layouts = tracer, [f == ACTIVE for f in flags], list(layouts)
        several = 3 if tracer.constants_differ else 1
        self.counts = [2 if f == ACTIVE else 1 if f == STATIC else several for f in flags]

    def pack(self, values: Sequence[Value], op: Any) -> list[Any]:
        """Return the tensors of all values."""
        return [t for v, count in zip(values, self.counts, strict=True) for t in self.pack_value(v, count, op)]

    def pack_value(self, value: Value, count: int, op: Any) -> list[Any]:
        """Return the tensors of one value."""
        value = self.tracer.require_equal_positions(value, op)
        return [tf.identity(t) for t in (value.x, value.r, value.p)[:count]]

    def unpack(self, parts: Sequence[Any]) -> list[Value]:
        """Return the values of tensors."""
        waiting = iter(parts)
        values = []
        for active, count, layout in zip(self.active, self.counts, self.layouts, strict=True):
            x, *rest = (next(waiting) for _ in range(count))
            r, p = (*rest, *((x,) * 2))[:2] if count == 1 else (*rest, None)[:2]
            values.append(self.tracer.require_layout(Value(x, r, active, p, layout if active else None)))
        return values


# ---------------------------------------------------------------------- branches
def branch(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
    """Run a condition, which must take the same branch on both sides; that is checked."""
    which, arguments = _condition(tracer, op, inputs[0]), inputs[1:]
    bodies, choose = tracer.analysis.branches(op), partial(_choose, op, which.x)
    flags = tracer.analysis.run_all(bodies, analysis_flags(arguments))
    packing = ValuePacking(tracer, flags, [tracer.layouts.of(t) for t in op.outputs])

    def forward(body: Any) -> list[Any]:
        with tracer.count_separately() as inside:
            parts = packing.pack(tracer.run_inside(body, arguments, None), op)
        return [*parts, inside.turn_vector([])]

    *parts, taken = choose([partial(forward, b) for b in bodies])
    outputs = packing.unpack(parts)
    tracer.bytes.add_branch(taken)
    if tape is not None and any(packing.active):
        varying = [v for v in arguments if v.active]

        def pull(*multipliers: Any) -> None:
            outside, tracer.diagnosis = tracer.diagnosis, None  # what happens in there stays there

            def backward(body: Any) -> list[Any]:
                entries = [replace(v) for v in arguments]
                inner = Tape(tracer)
                with tracer.count_separately():
                    for value, m in zip(tracer.run_inside(body, entries, inner), multipliers, strict=True):
                        inner.add(value, m)
                    inner.pull()
                return [_multiplier_or_zero(tracer, inner, e) for e in entries if e.active]

            input_multipliers = choose([partial(backward, b) for b in bodies])
            tracer.diagnosis = outside
            tape.add_all(varying, input_multipliers)

        tape.record(outputs, pull)
    return outputs


def _condition(tracer: Tracer, op: Any, which: Value) -> Value:
    """Return the value that decides between the branches, with a check that it is equal on both sides."""
    if which.x is which.r:
        return which
    if tracer.pairing.is_separate and not (which.active or which.origin):
        raise Unpaired(which.x.name)  # the branch depends on the number of rows
    if not op.type.endswith("Case"):
        which = replace(which, **{side: tf.cast(getattr(which, side), tf.bool) for side in "xrp"})
    text = f"a condition ({op.type}) in {tracer.library.place(op)} takes another branch for the example than for the reference"
    return tracer.require_equal(which, text)


def _choose(op: Any, which: Any, ways: list[Any]) -> list[Any]:
    if op.type.endswith("Case"):
        return list(tf.nest.flatten(tf.switch_case(which, ways)))
    return list(tf.nest.flatten(tf.cond(tf.cast(which, tf.bool), *ways)))


# ---------------------------------------------------------------------- multipliers that may be nothing yet
def zero_multiplier(tracer: Tracer, value: Value) -> Any:
    """Return a multiplier of 0."""
    return empty_list(tracer, value) if value.is_list else tf.zeros(tracer.pairing.shape(value), tracer.float_of(value))


def _multiplier_or_zero(tracer: Tracer, tape: Tape, value: Value) -> Any:
    multiplier = tape.multipliers.get(value)
    return zero_multiplier(tracer, value) if multiplier is None else multiplier


# ---------------------------------------------------------------------- loops
class Loop:
    """Run a loop of the traced graph on both sides, and pull multipliers through it."""

    def __init__(self, tracer: Tracer, op: Any, inputs: list[Value]) -> None:
        self.tracer, self.op = tracer, op
        self.inputs = [tracer.require_equal_positions(v, op) for v in inputs]
        self.body, self.condition = (tracer.library.body(op, name) for name in ("body", "cond"))
        self.flags = tracer.analysis.loop(op, analysis_flags(self.inputs))
        self.active = [f == ACTIVE for f in self.flags]
        fixed = [self.body.position(k) == k for k in range(len(inputs))]
        self.varying = [k for k in range(len(inputs)) if not fixed[k]]
        self.moving = [k for k in self.varying if self.active[k]]
        self.constant = [k for k in range(len(inputs)) if fixed[k] and self.active[k]]
        self.saved = [k for k in self.varying if self.body.reads(k, KEEPS if self.inputs[k].is_list else ())]
        self.packing, self.saved_packing = self._packing(self.varying), self._packing(self.saved)
        for k in (k for k in self.moving if self.inputs[k].is_list):  # one body may be that of several loops
            (tracer.writes_over if self.inputs[k].active else tracer.writes_once).add(single_write(self.body, k))
        # Lists that hold what a variable holds, at one place: that variable takes what reaches it, before the way back.
        self.copies = {
            k: copied
            for k in self.moving
            if self.inputs[k].is_list
            and not self.inputs[k].active
            and (copied := copied_variable(self.body, k)) is not None
            and copied[1] in self.moving
        }
        self.turns: Any = None
        self.stacks: list[Any] = []

    def _packing(self, which: list[int]) -> ValuePacking:
        return ValuePacking(self.tracer, [self.flags[k] for k in which], [self._layout(k) for k in which])

    def _layout(self, k: int) -> Any:
        return self.tracer.layouts.of(self.body.inputs[k])

    def _entry(self, k: int) -> Value:
        value = self.inputs[k]
        return replace(value, active=self.active[k], layout=self._layout(k) if self.active[k] else None)

    def _arguments(self, which: list[int], values: Sequence[Value]) -> list[Value]:
        """Return all inputs of the body: those that vary, and those that do not."""
        by_position = dict(zip(which, values, strict=True))
        return [by_position.get(k) or self._entry(k) for k in range(len(self.inputs))]

    def _chosen(self, values: Sequence[Value], which: list[int]) -> list[Value]:
        return [values[k] for k in which]

    def _shapes(self, which: list[int], counts: Sequence[int]) -> list[tf.TensorShape]:
        """Return shapes that hold in every turn."""
        return [self.op.outputs[k].shape for k, count in zip(which, counts, strict=True) for _ in range(count)]

    # ------------------------------------------------------------------ forward
    def forward(self, save: bool) -> list[Value]:
        """Run the loop on both sides; with ``save``, store what every turn begins with."""
        parts = self.packing.pack([self._entry(k) for k in self.varying], self.op)
        stacks = self._new_stacks() if save else []

        def goes_on(turn: Any, parts: Any, stacks: Any, taken: Any) -> Any:
            with self.tracer.count_separately():
                (decision,) = self.tracer.run(
                    self.condition, self._arguments(self.varying, self.packing.unpack(parts)), None
                )
            return decision.x

        def turn_of(turn: Any, parts: Any, stacks: Any, taken: Any) -> Any:
            arguments = self._arguments(self.varying, self.packing.unpack(parts))
            with tf.control_dependencies(self._checks(arguments, True)):
                turn = tf.identity(turn)
            saved = self._chosen(arguments, self.saved)
            if save:
                stacks = [
                    s.write(turn, t) for s, t in zip(stacks, self.saved_packing.pack(saved, self.op), strict=True)
                ]
            with self.tracer.count_separately(of_loop=True) as inside:
                outputs = self.tracer.run_inside(self.body, arguments, None)
            taken = tf.maximum(taken, inside.turn_vector([v.x for v in saved if v.active and not v.is_list]))
            return turn + 1, self.packing.pack(self._chosen(outputs, self.varying), self.op), stacks, taken

        shapes = self._shapes(self.varying, self.packing.counts)
        self.turns, parts, self.stacks, taken = tf.while_loop(
            goes_on,
            turn_of,
            (tf.constant(0), parts, stacks, tf.zeros([4], tf.float64)),
            shape_invariants=(tf.TensorShape([]), shapes, [tf.TensorShape(None) for _ in stacks], tf.TensorShape([4])),
        )
        self.tracer.bytes.add_loop(self.turns, taken)
        values = self.packing.unpack(parts)
        checks = self._checks(self._arguments(self.varying, values), False)
        if checks:
            with tf.control_dependencies(checks):
                self.turns = tf.identity(self.turns)
                values = self.packing.unpack([tf.identity(t) for t in parts])
        by_position = dict(zip(self.varying, values, strict=True))
        return [by_position.get(k, v) for k, v in enumerate(self.inputs)]

    def _new_stacks(self) -> list[tf.TensorArray]:
        limit = self.inputs[1].x
        size = tf.maximum(limit, 0) if limit.dtype == tf.int32 and limit.shape.rank == 0 else tf.constant(0)
        shapes = self._shapes(self.saved, self.saved_packing.counts)
        dtypes = [
            self.inputs[k].x.dtype
            for k, count in zip(self.saved, self.saved_packing.counts, strict=True)
            for _ in range(count)
        ]
        return [
            tf.TensorArray(d, size, dynamic_size=True, clear_after_read=False, infer_shape=False, element_shape=s)
            for d, s in zip(dtypes, shapes, strict=True)
        ]

    def _checks(self, arguments: list[Value], expected: bool) -> list[Any]:
        """Return checks that the reference continues (or stops) when the example does."""
        (flag,) = self.tracer.analysis.run(self.condition, self.flags)
        if flag != ACTIVE:
            if flag != STATIC and self.tracer.pairing.is_separate:
                raise Unpaired(self.op.name)  # turns that depend on the number of rows
            if flag == STATIC or not self.tracer.constants_differ:
                return []
        with self.tracer.count_separately():
            (decision,) = self.tracer.run(self.condition, arguments, None)
        self.tracer.checks = True
        text = (
            f"{DIVERGED}a loop in {self.tracer.library.place(self.op)} makes more turns on one side than on the other"
        )
        return [tf.debugging.Assert(tf.reduce_all(tf.equal(decision.r, expected)), [text])]

    # ------------------------------------------------------------------ backward
    def backward(self, multipliers: Sequence[Any], final: list[Value]) -> list[Any]:
        """Return the multipliers of the loop's inputs, None where there is none."""
        entries, moving = {k: self._entry(k) for k in self.constant}, [k for k in self.moving if k not in self.copies]
        multipliers = self._without_copies(multipliers, final)
        carried, summed = (
            [zero_multiplier(self.tracer, values[k]) if multipliers[k] is None else multipliers[k] for k in which]
            for which, values in ((moving, final), (self.constant, entries))
        )

        outside, self.tracer.diagnosis = self.tracer.diagnosis, None if self.tracer.diagnosis is None else []

        def turn_of(turn: Any, carried: Any, summed: Any, gaps: Any) -> Any:
            turn = turn - 1
            arguments = self._arguments(self.saved, self._saved_values(turn))
            tape = Tape(self.tracer)
            for k, m in zip(self.constant, summed, strict=True):
                tape.add(arguments[k], m)
            with self.tracer.count_separately():
                outputs = self.tracer.run_inside(self.body, arguments, tape)
                for k, m in zip(moving, carried, strict=True):
                    tape.add(outputs[k], m)
                tape.pull()
            before, constant = (
                [_multiplier_or_zero(self.tracer, tape, arguments[k]) for k in which]
                for which in (moving, self.constant)
            )
            return turn, before, constant, self._diagnosed(gaps)

        shapes = [self._shapes(which, [1] * len(which)) for which in (moving, self.constant)]
        _, carried, summed, gaps = tf.while_loop(
            lambda turn, *_: turn > 0,
            turn_of,
            (self.turns, carried, summed, tf.zeros([2, 0], tf.float64)),
            shape_invariants=(tf.TensorShape([]), *shapes, tf.TensorShape([2, None])),
            parallel_iterations=1,  # else turns that wait take memory too
        )
        if outside is not None:
            outside.append(Diagnosis([step for d in self.tracer.diagnosis or () for step in d.steps], gaps))
        self.tracer.diagnosis = outside
        by_position = dict(zip([*moving, *self.constant], [*carried, *summed], strict=True))
        return [by_position.get(k) for k in range(len(self.inputs))]

    def _without_copies(self, multipliers: Sequence[Any], final: list[Value]) -> list[Any]:
        """Return the multipliers of all variables; those of lists are added to the variables that the lists copy."""
        totals = list(multipliers)
        for k, (place, j) in self.copies.items():
            if totals[k] is not None:
                # Without a turn the list may be empty.
                copied = partial(list_item, self.tracer, totals[k], place, final[j])
                item = tf.cond(self.turns > 0, copied, partial(zero_multiplier, self.tracer, final[j]))
                totals[j] = item if totals[j] is None else totals[j] + item
        return totals

    def _diagnosed(self, before: Any) -> Any:
        """Return the largest gaps of all turns so far."""
        if self.tracer.diagnosis is None:
            return before
        now = Diagnosis.of_all(self.tracer.diagnosis).gaps
        before = tf.pad(before, [[0, 0], [0, tf.shape(now)[1] - tf.shape(before)[1]]])
        return tf.where(now[:1] > before[:1], now, before)

    def _saved_values(self, turn: Any) -> list[Value]:
        parts = [stack.read(turn) for stack in self.stacks]
        for part, shape in zip(parts, self._shapes(self.saved, self.saved_packing.counts), strict=True):
            part.set_shape(shape)
        return self.saved_packing.unpack(parts)


def loop(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
    """Run a while loop."""
    run, tracer.loops = Loop(tracer, op, inputs), True
    outputs = run.forward(save=tape is not None and any(run.active))
    if tape is not None and any(run.active):
        # what passes a loop unchanged is another value behind it: its multiplier goes through the loop
        outputs = [replace(v) for v in outputs]

        def pull(*multipliers: Any) -> None:
            for value, m in zip(run.inputs, run.backward(multipliers, outputs), strict=True):
                tape.add(value, m)

        tape.record(outputs, pull)
    return outputs


# ---------------------------------------------------------------------- lists of tensors
def list_operation(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
    """Run an operation on lists of tensors; the multipliers of a list are a list, of the tracer's float dtype."""
    if not any(v.active for v in inputs):
        return tracer.run_constant(op, inputs)
    places = [v for v in inputs[1:] if v.active and v.x.dtype == tf.int32]
    once = op in tracer.writes_once and op not in tracer.writes_over
    adjoint = _set_item_once if once else ADJOINTS.get(op.type)
    if adjoint is None or (places and op.type in ("TensorListGetItem", "TensorListGather")):
        raise UnsupportedOperationError(
            f"{op.type} in {tracer.library.place(op)} of values that depend on the input has no rule."
        )
    x, r = (emit(op, [getattr(v, side) for v in inputs]) for side in "xr")
    outputs = tracer.active_values(op, x, r)
    length = tf.raw_ops.TensorListLength(input_handle=x[0]) if op.type == "TensorListSetItem" else None
    for item in inputs:
        if item.active and not item.is_list:
            tracer.bytes.add_item(item.x, length)
    if tape is not None:
        tape.record(outputs, lambda *m: adjoint(tracer, tape, inputs, outputs, m))
    return outputs


def empty_list(tracer: Tracer, items: Value) -> Any:
    """Return a list of multipliers that are 0."""
    length = tf.raw_ops.TensorListLength(input_handle=items.x)
    shape = tracer.pairing.element_shape(items)
    if shape is None:
        return tf.raw_ops.TensorListReserve(
            element_shape=-1, num_elements=length, element_dtype=tracer.multiplier_dtype
        )
    return _from_items(tracer, tf.zeros(tf.concat([[length], shape], 0), tracer.multiplier_dtype))


def _item(tracer: Tracer, multipliers: Any, index: Any, like: Value) -> Any:
    return tf.raw_ops.TensorListGetItem(
        input_handle=multipliers,
        index=index,
        element_shape=tracer.pairing.shape(like),
        element_dtype=tracer.multiplier_dtype,
    )


def list_item(tracer: Tracer, multipliers: Any, place: int, like: Value) -> Any:
    """Return the multiplier of the item at a position of a list."""
    return tf.cast(_item(tracer, multipliers, place, like), tracer.float_of(like))


def _get_item(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    items, index = inputs[0], inputs[1].x
    before = tape.multipliers.get(items)
    before = empty_list(tracer, items) if before is None else before
    item = tf.cast(m[0], tracer.multiplier_dtype) + _item(tracer, before, index, outputs[0])
    tape.multipliers[items] = tf.raw_ops.TensorListSetItem(input_handle=before, index=index, item=item)


def _set_item(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    items, index, item = inputs
    tape.add(item, _item(tracer, m[0], index.x, item))
    if items.active:
        zero = tf.zeros(tracer.pairing.shape(item), tracer.multiplier_dtype)
        tape.add(items, tf.raw_ops.TensorListSetItem(input_handle=m[0], index=index.x, item=zero))


def _set_item_once(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    """Pull like ``_set_item`` if nobody reads this position again; XLA would copy the list in every turn to write a 0."""
    tape.add(inputs[2], _item(tracer, m[0], inputs[1].x, inputs[2]))
    tape.add(inputs[0], m[0])


def _writer(body: Body, k: int) -> Any:
    """Return the operation by which alone a loop touches its variable k, a list, and writes to it; else None."""
    entering = {id(t) for t in body.inputs}

    def users(tensor: Any) -> list[Any]:
        used = (op for op in body.operations if op.type != "Identity")
        return [op for op in used for t in op.inputs if source(t, entering) is tensor]

    op = body.sources[k].op
    written = body.sources[k]
    if op.type != "TensorListSetItem" or users(body.inputs[k]) != [op] or users(written):
        return None
    if source(op.inputs[0], entering) is not body.inputs[k] or sum(written is s for s in body.sources) > 1:
        return None
    return op


def copied_variable(body: Body, k: int) -> tuple[int, int] | None:
    """Return a position of list k to which a loop writes the new value of variable j in each turn, and j; else None."""
    op, entering = _writer(body, k), {id(t) for t in body.inputs}
    place = op and tf.get_static_value(op.inputs[1])
    if place is None:
        return None
    item = source(op.inputs[2], entering)
    return next(((int(place), j) for j, result in enumerate(body.sources) if result is item and j != k), None)


def single_write(body: Body, k: int) -> Any:
    """Return the operation by which alone a loop touches its list k and writes each position once; else None."""
    op, entering = _writer(body, k), {id(t) for t in body.inputs}
    if op is None:
        return None
    place = source(op.inputs[1], entering)
    turn = next((s.op for t, s in zip(body.inputs, body.sources, strict=True) if t is place), None)
    if turn is None or turn.type not in ("AddV2", "Add"):
        return None
    added = [t for t in turn.inputs if source(t, entering) is not place]
    return op if len(added) == 1 and tf.get_static_value(added[0]) not in (None, 0) else None


def _from_items(tracer: Tracer, stacked: Any) -> Any:
    return tf.raw_ops.TensorListFromTensor(
        tensor=tf.cast(stacked, tracer.multiplier_dtype), element_shape=tf.shape(stacked)[1:]
    )


def _stack(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    tape.add(inputs[0], _from_items(tracer, m[0]))


def _from_tensor(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    shape = tracer.pairing.shape(inputs[0])
    stacked = tf.raw_ops.TensorListStack(
        input_handle=m[0], element_shape=shape[1:], element_dtype=tracer.multiplier_dtype
    )
    tape.add(inputs[0], tf.reshape(stacked, shape))


def _push(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    items, item = inputs
    rest, last = tf.raw_ops.TensorListPopBack(
        input_handle=m[0], element_shape=tracer.pairing.shape(item), element_dtype=tracer.multiplier_dtype
    )
    tape.add(items, rest)
    tape.add(item, last)


def _pop(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    rest, item = m
    rest = empty_list(tracer, outputs[0]) if rest is None else rest
    item = (
        tf.zeros(tracer.pairing.shape(outputs[1]), tracer.multiplier_dtype)
        if item is None
        else tf.cast(item, tracer.multiplier_dtype)
    )
    tape.add(inputs[0], tf.raw_ops.TensorListPushBack(input_handle=rest, tensor=item))


def _resize(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    length = tf.raw_ops.TensorListLength(input_handle=inputs[0].x)
    tape.add(inputs[0], tf.raw_ops.TensorListResize(input_handle=m[0], size=length))


def _gather(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    length = tf.raw_ops.TensorListLength(input_handle=inputs[0].x)
    tape.add(inputs[0], _from_items(tracer, tf.math.unsorted_segment_sum(m[0], inputs[1].x, length)))


def _scatter(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    value, indices = inputs[0], inputs[1].x
    items = tf.raw_ops.TensorListGather(
        input_handle=m[0],
        indices=indices,
        element_shape=tracer.pairing.shape(value)[1:],
        element_dtype=tracer.multiplier_dtype,
    )
    tape.add(value, items)


ADJOINTS = {
    "TensorListGetItem": _get_item,
    "TensorListSetItem": _set_item,
    "TensorListStack": _stack,
    "TensorListFromTensor": _from_tensor,
    "TensorListPushBack": _push,
    "TensorListPopBack": _pop,
    "TensorListResize": _resize,
    "TensorListGather": _gather,
    "TensorListScatter": _scatter,
    "TensorListScatterV2": _scatter,
}
