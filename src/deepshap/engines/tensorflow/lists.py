"""Lists of tensors: linear, with multipliers that are lists themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ...errors import UnsupportedOperationError
from .graphs import Body, source
from .tracer import Tape, Tracer
from .values import Value


def list_operation(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
    """Lists of tensors are linear; the multipliers of a list are a list, of the tracer's float dtype."""
    if not any(v.active for v in inputs):
        return tracer.constant(op, inputs)
    places = [v for v in inputs[1:] if v.active and v.x.dtype == tf.int32]
    once = op in tracer.writes_once and op not in tracer.writes_over
    adjoint = _set_item_once if once else ADJOINTS.get(op.type)
    if adjoint is None or (places and op.type in ("TensorListGetItem", "TensorListGather")):
        raise UnsupportedOperationError(
            f"{op.type} in {tracer.place(op)} of values that depend on the input has no rule."
        )
    x, r = (tracer.emit(op, [getattr(v, side) for v in inputs]) for side in "xr")
    outputs = tracer.outputs(op, x, r)
    length = tf.raw_ops.TensorListLength(input_handle=x[0]) if op.type == "TensorListSetItem" else None
    for item in inputs:
        if item.active and not item.is_list:
            tracer.bytes.item(item.x, length)
    if tape is not None:
        tape.record(outputs, lambda *m: adjoint(tracer, tape, inputs, outputs, m))
    return outputs


def empty_list(tracer: Tracer, items: Value) -> Any:
    """A list of multipliers that are 0."""
    length = tf.raw_ops.TensorListLength(input_handle=items.x)
    shape = tracer.pairing.element_shape(items)
    if shape is None:
        return tf.raw_ops.TensorListReserve(element_shape=-1, num_elements=length, element_dtype=tracer.carrier)
    return _from_items(tracer, tf.zeros(tf.concat([[length], shape], 0), tracer.carrier))


def _item(tracer: Tracer, multipliers: Any, index: Any, like: Value) -> Any:
    return tf.raw_ops.TensorListGetItem(
        input_handle=multipliers, index=index, element_shape=tracer.pairing.shape(like), element_dtype=tracer.carrier
    )


def item_of(tracer: Tracer, multipliers: Any, place: int, like: Value) -> Any:
    """The multiplier of what is at a place of a list."""
    return tf.cast(_item(tracer, multipliers, place, like), tracer.float_of(like))


def _get_item(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    items, index = inputs[0], inputs[1].x
    before = tape.multipliers.get(items)
    before = empty_list(tracer, items) if before is None else before
    item = tf.cast(m[0], tracer.carrier) + _item(tracer, before, index, outputs[0])
    tape.multipliers[items] = tf.raw_ops.TensorListSetItem(input_handle=before, index=index, item=item)


def _set_item(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    items, index, item = inputs
    tape.add(item, _item(tracer, m[0], index.x, item))
    if items.active:
        zero = tf.zeros(tracer.pairing.shape(item), tracer.carrier)
        tape.add(items, tf.raw_ops.TensorListSetItem(input_handle=m[0], index=index.x, item=zero))


def _set_item_once(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    """As ``_set_item``, where nobody reads this place again: XLA would copy the list in every turn to write a 0 to it."""
    tape.add(inputs[2], _item(tracer, m[0], inputs[1].x, inputs[2]))
    tape.add(inputs[0], m[0])


def _writer(body: Body, k: int) -> Any:
    """The operation by which alone a loop touches its variable k, a list, and writes to it; else None."""
    entering = {id(t) for t in body.inputs}

    def users(tensor: Any) -> list[Any]:
        used = (op for op in body.operations if op.type != "Identity")
        return [op for op in used for t in op.inputs if source(t, entering) is tensor]

    op = body.sources[k].op
    made = body.sources[k]
    if op.type != "TensorListSetItem" or users(body.inputs[k]) != [op] or users(made):
        return None
    if source(op.inputs[0], entering) is not body.inputs[k] or sum(made is s for s in body.sources) > 1:
        return None
    return op


def copied_from(body: Body, k: int) -> tuple[int, int] | None:
    """A place to which a loop writes, in each turn and to no other, what its variable j takes too, and j; else None."""
    op, entering = _writer(body, k), {id(t) for t in body.inputs}
    place = op and tf.get_static_value(op.inputs[1])
    if place is None:
        return None
    item = source(op.inputs[2], entering)
    return next(((int(place), j) for j, made in enumerate(body.sources) if made is item and j != k), None)


def written_once(body: Body, k: int) -> Any:
    """The operation by which alone a loop touches its variable k, a list, and writes each place of it once; else None."""
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
    return tf.raw_ops.TensorListFromTensor(tensor=tf.cast(stacked, tracer.carrier), element_shape=tf.shape(stacked)[1:])


def _stack(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    tape.add(inputs[0], _from_items(tracer, m[0]))


def _from_tensor(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    shape = tracer.pairing.shape(inputs[0])
    stacked = tf.raw_ops.TensorListStack(input_handle=m[0], element_shape=shape[1:], element_dtype=tracer.carrier)
    tape.add(inputs[0], tf.reshape(stacked, shape))


def _push(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    items, item = inputs
    rest, last = tf.raw_ops.TensorListPopBack(
        input_handle=m[0], element_shape=tracer.pairing.shape(item), element_dtype=tracer.carrier
    )
    tape.add(items, rest)
    tape.add(item, last)


def _pop(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    rest, item = m
    rest = empty_list(tracer, outputs[0]) if rest is None else rest
    item = tf.zeros(tracer.pairing.shape(outputs[1]), tracer.carrier) if item is None else tf.cast(item, tracer.carrier)
    tape.add(inputs[0], tf.raw_ops.TensorListPushBack(input_handle=rest, tensor=item))


def _resize(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    length = tf.raw_ops.TensorListLength(input_handle=inputs[0].x)
    tape.add(inputs[0], tf.raw_ops.TensorListResize(input_handle=m[0], size=length))


def _gather(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    length = tf.raw_ops.TensorListLength(input_handle=inputs[0].x)
    tape.add(inputs[0], _from_items(tracer, tf.math.unsorted_segment_sum(m[0], inputs[1].x, length)))


def _scatter(tracer: Tracer, tape: Tape, inputs: list[Value], outputs: list[Value], m: Sequence[Any]) -> None:
    value, indices = inputs[0], inputs[1].x
    found = tf.raw_ops.TensorListGather(
        input_handle=m[0], indices=indices, element_shape=tracer.pairing.shape(value)[1:], element_dtype=tracer.carrier
    )
    tape.add(value, found)


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
