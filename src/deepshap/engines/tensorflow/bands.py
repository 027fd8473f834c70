"""Multipliers that are 0 but for some steps, as before ``x[:, -1]``: rules run on these steps alone.

They are what ``tf.pad`` makes of their other part, so that a tensor itself tells that it is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from .step import OperationRecord
from .values import Value

Ends = list[list[int]]  # numbers of zeros at the beginning and at the end of each axis
MOST_AXES = 6  # that ``tf.pad`` takes


def put_back(m: Any, slices: list[slice], sizes: list[int | None], dropped: set[int]) -> Any | None:
    """The multiplier of what a part was taken from, without the ``dropped`` axes.

    None where the part is not known, is empty, or is one of the channels.
    """
    ends: Ends = []
    for part, size in zip(slices, sizes, strict=False):
        if size is None and part != slice(None):
            return None
        first, last, _ = part.indices(1 if size is None else size)
        if first >= last:
            return None
        ends.append([first, (1 if size is None else size) - last])
    ends += [[0, 0]] * (len(sizes) - len(ends))
    channels = len(ends) > 2 and any(ends[-1])  # TensorFlow joins convolutions with what pads these, and fails
    if channels or len(ends) > MOST_AXES:
        return None
    for axis in sorted(dropped):
        m = tf.expand_dims(m, axis)
    return padded(m, ends)


def padded(m: Any, ends: Ends) -> Any:
    """A multiplier with zeros around it."""
    return tf.pad(m, ends) if np.any(ends) else m


def band(m: Any) -> tuple[Any, Ends] | None:
    """What is not 0 in a multiplier, whose rows are its first axis, and the zeros around it; None where none are known."""
    if m is None or m.op.type != "Pad":
        return None
    inner, ends = m.op.inputs[0], tf.get_static_value(m.op.inputs[1])
    if ends is None or ends[0].any() or inner.shape.rank is None or None in inner.shape[1:]:
        return None
    return inner, ends.tolist()


def within(value: Value, inner: Any, ends: Ends) -> Value | None:
    """The steps of a value that a band covers; None where its rows are not its first axis."""
    layout = value.layout
    if layout is None or layout.axis != 0 or len(layout.shape) != len(ends):
        return None
    first, sizes = [lead for lead, _ in ends], [-1, *inner.shape[1:]]
    x, r = (tf.slice(side, first, sizes) for side in (value.x, value.r))
    return Value(x, r, value.active, layout=replace(layout, shape=(layout.shape[0], *sizes[1:])))


def pulled(record: OperationRecord, m: Any, rule: Callable[[OperationRecord, Any], list[Any]]) -> list[Any]:
    """What an elementwise rule makes of a multiplier, on its band alone if there is one."""
    alone = type(record) is OperationRecord and len(record.operands) == len(record.results) == 1
    found = band(m) if alone else None
    if found is None:
        return rule(record, m)
    operand, result = (within(v, *found) for v in (*record.operands, *record.results))
    if operand is None or result is None:
        return rule(record, m)
    inner, ends = found
    return [padded(made, ends) for made in rule(OperationRecord(record.run, record.op, [operand], [result]), inner)]


def added(a: Any, b: Any) -> Any:
    """The sum of two multipliers, in the band that covers both."""
    one, two = band(a), band(b)
    if one is None or two is None or len(one[1]) != len(two[1]):
        return a + b
    ends = np.minimum(one[1], two[1])
    made = sum(padded(inner, (np.array(own) - ends).tolist()) for inner, own in (one, two))
    return padded(made, ends.tolist())
