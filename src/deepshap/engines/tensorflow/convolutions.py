"""Convolutions with what TensorFlow puts around them, padding and blocks for dilation, pulled back by a single one.

The adjoint of a convolution is one with the filters turned round. What that one pads takes the place of what was padded and cut,
and its dilation that of blocks, so that multipliers of pairs are laid out only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from . import bands, kernel_dispatch
from .bands import Ends
from .step import OperationRecord
from .values import Value


@dataclass(frozen=True)
class Convolution:
    """What is convolved, the filters (high, wide, channels, filters), their dilations, and how multipliers are padded."""

    operands: tuple[Value]
    filters: Any
    dilations: list[int]
    paddings: Ends

    def pulled(self, m: Any) -> list[Any]:
        """The multiplier of the operand, from that of the result."""
        single = m.shape.rank == 3
        inner, paddings, ends = self._within(m, single)
        made = tf.raw_ops.Conv2D(
            input=tf.expand_dims(inner, 1) if single else inner,
            filter=tf.reverse(tf.transpose(self.filters, [0, 1, 3, 2]), [0, 1]),
            strides=[1] * 4,
            padding="EXPLICIT",
            explicit_paddings=[0, 0, *(size for both in paddings for size in both), 0, 0],
            dilations=[1, *self.dilations, 1],
        )
        return [bands.padded(tf.squeeze(made, 1) if single else made, ends)]

    def _within(self, m: Any, single: bool) -> tuple[Any, Ends, Ends]:
        """What is not 0 in a multiplier, how that is padded, and the zeros around what is made of it."""
        band = bands.band(m)
        if band is None or np.any(band[1][-1]):
            return m, self.paddings, [[0, 0]] * m.shape.rank
        inner, zeros = band
        axes = len(zeros) - 2
        paddings, ends = self.paddings[: 2 - axes], [[0, 0]]
        for k, (around, own) in enumerate(zip(zeros[1:-1], self.paddings[2 - axes :], strict=True), 2 - axes):
            reach = (self.filters.shape[k] - 1) * self.dilations[k]
            spare = [max(0, outer + size - reach) for outer, size in zip(around, own, strict=True)]
            paddings.append([outer + size - more for outer, size, more in zip(around, own, spare, strict=True)])
            ends.append(spare)
        return inner, paddings, [*ends, [0, 0]]


def ended_by(record: OperationRecord, makers: Mapping[Value, OperationRecord]) -> Convolution | None:
    """The convolution whose last operation a step is; ``makers`` are the steps with rules of the table, by what they return."""

    def before(at: OperationRecord | None, name: str) -> OperationRecord | None:
        found = None if at is None else makers.get(at.operands[0])
        return found if found is not None and found.name == name else None

    joined = record if record.name == "BatchToSpaceND" else None
    inner = record if joined is None else makers.get(record.operands[0])
    squeezed = inner if inner is not None and inner.name == "Squeeze" else None
    conv = inner if squeezed is None else before(squeezed, "Conv2D")
    if conv is None or conv.name != "Conv2D" or not _is_plain(conv):
        return None
    first, split = conv, None
    if squeezed is not None:
        expanded = before(first, "ExpandDims")
        if expanded is None or conv.operands[1].x.shape[0] != 1 or conv.operands[0].x.shape[1] != 1:
            return None
        first = expanded
    if joined is not None:
        split = before(first, "SpaceToBatchND")
        if split is None or conv.op.get_attr("padding") != b"VALID":
            return None
        first = split
    pad = before(first, "Pad")
    return _whole((pad or first).operands[0], pad, split, conv, joined, record.results[0])


def _is_plain(conv: OperationRecord) -> bool:
    """Whether it goes step by step, over channels that stand last, with filters that do not vary."""
    x, filters = conv.operands
    if conv.varying != (True, False) or conv.op.get_attr("data_format") != b"NHWC":
        return False
    each = *conv.op.get_attr("strides"), *conv.op.get_attr("dilations")
    return set(each) == {1} and filters.x.shape.is_fully_defined() and x.x.shape[-1] == filters.x.shape[2]


def _whole(
    operand: Value,
    pad: OperationRecord | None,
    split: OperationRecord | None,
    conv: OperationRecord,
    joined: OperationRecord | None,
    result: Value,
) -> Convolution | None:
    """Several operations as one convolution, where all sizes are known, and rows stand by themselves."""
    given, made = (kernel_dispatch.rows_alone(v)[1:-1] for v in (operand, result))
    axes = len(given)
    if axes not in (1, 2) or len(made) != axes or None in (*given, *made):
        return None
    blocks, again = (_numbers(step, 1, axes, 1) for step in (split, joined))
    padded = None if pad is None else pad.static(1)
    added, cut = (_numbers(step, 2, axes, [0, 0]) for step in (split, joined))
    if blocks is None or blocks != again or added is None or cut is None:
        return None
    if pad is not None and (padded is None or padded[[0, -1]].any()):
        return None
    of_pad: Ends = [[0, 0]] * axes if padded is None else padded[1:-1].tolist()
    sizes = conv.operands[1].x.shape.as_list()[2 - axes : 2]
    paddings = []
    for k, (own, size) in enumerate(zip(_own(conv)[-axes:], sizes, strict=True)):
        reach = (size - 1) * blocks[k]
        lead = own + of_pad[k][0] + added[k][0] - cut[k][0]
        paddings.append([reach - lead, lead + given[k] - made[k]])
    if min(map(min, paddings)) < 0:
        return None
    missing = 2 - axes
    return Convolution((operand,), conv.operands[1].p, [1] * missing + blocks, [[0, 0]] * missing + paddings)


def _numbers(record: OperationRecord | None, operand: int, axes: int, nothing: Any) -> list[Any] | None:
    """What an operand says of each axis, which may be of the first axes alone; None if that is not known."""
    found = np.array([]) if record is None else record.static(operand)
    return None if found is None else [*found.tolist(), *[nothing] * (axes - len(found))]


def _own(conv: OperationRecord) -> list[int]:
    """What a convolution itself pads ahead of each of its two axes."""
    kind = conv.op.get_attr("padding")
    if kind == b"EXPLICIT":
        return list(conv.op.get_attr("explicit_paddings"))[2:6:2]
    return [(size - 1) // 2 if kind == b"SAME" else 0 for size in conv.operands[1].x.shape.as_list()[:2]]
