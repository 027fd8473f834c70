"""Where the rows lie in the values of a traced model.

The model's inputs get a number of rows that no other size has, a prime, and TensorFlow infers the shapes of all values.
The axis whose size is a multiple of that prime holds the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from .graph_analysis import GraphAnalysis
from .graphs import Body
from .operations import LOOPS, emit
from .pairing import ROWS, Layout


class Layouts:
    """Store the layouts of tensors of traced graphs."""

    def __init__(self) -> None:
        self._found: dict[int, Layout | None] = {}
        self._kept: list[Any] = []  # keeps ids unique

    def of(self, tensor: Any) -> Layout | None:
        """Return the layout of a tensor of a traced graph."""
        return self._found.get(id(tensor))

    def note(self, tensor: Any, layout: Layout | None) -> None:
        """Store a layout; a function that is called with different layouts has none."""
        self._kept.append(tensor)
        before = self._found.setdefault(id(tensor), layout)
        if before != layout:
            self._found[id(tensor)] = None

    def scan(self, analysis: GraphAnalysis, body: Body, inputs: Sequence[Any]) -> None:
        """Find the layouts of all values of a function, from placeholders for its inputs with ``ROWS`` rows."""
        _Scan(self, analysis).run(body, list(inputs))


@dataclass
class _List:
    """A list of tensors, while layouts are searched for."""

    element: Any = None  # a tensor like its elements
    length: int | None = None


class _Scan:
    """Walk through graphs with tensors that have ``ROWS`` rows."""

    def __init__(self, layouts: Layouts, analysis: GraphAnalysis) -> None:
        self.layouts, self.analysis, self.library = layouts, analysis, analysis.library

    def run(self, body: Body, inputs: list[Any]) -> list[Any]:
        tensors: dict[int, Any] = {}
        for tensor, value in zip(body.inputs, inputs, strict=True):
            tensors[id(tensor)] = value
            self._note(tensor, value, ())
        for op in body.operations:
            inputs_of_op = [tensors[id(t)] for t in op.inputs]
            outputs = self._step(op, inputs_of_op)
            for tensor, value in zip(op.outputs, outputs, strict=True):
                tensors[id(tensor)] = value
                self._note(tensor, value, inputs_of_op, op)
        return [tensors[id(t)] for t in body.outputs]

    def _note(self, tensor: Any, value: Any, inputs: Sequence[Any], op: Any = None) -> None:
        element = value.element if isinstance(value, _List) else value
        if element is None:
            return
        before = [self.layouts.of(t) for t in op.inputs] if op is not None else []
        several = {(1, 1), *((b.inner, b.outer) for b in before if b is not None)}
        moved = None if op is None else MOVED.get(op.type)
        self.layouts.note(
            tensor, _layout(element, several) if moved is None else moved(before[0], element, *inputs[1:2])
        )

    def _step(self, op: Any, inputs: list[Any]) -> list[Any]:
        if op.type in LISTS:
            return LISTS[op.type](op, inputs)
        if op.type in LOOPS:
            return self._loop(op, inputs)
        if op.type in ("If", "StatelessIf", "Case", "StatelessCase"):
            ways = [self.run(body, inputs[1:]) for body in self.analysis.branches(op)]
            return [_merged(values) for values in zip(*ways, strict=True)]
        if op.type in ("PartitionedCall", "StatefulPartitionedCall"):
            return self.run(self.library.body(op, "f"), inputs)
        if len(op.outputs) == 0:
            return []
        if op.type in ("Identity", "IdentityN", "StopGradient"):
            return inputs
        if any(isinstance(v, _List) for v in inputs):
            return [_unknown(t) for t in op.outputs]
        return emit(op, inputs)

    def _loop(self, op: Any, inputs: list[Any]) -> list[Any]:
        body = self.library.body(op, "body")
        stays = [source is entry for source, entry in zip(body.sources, body.inputs, strict=True)]
        # A counter is not what the first turn finds: else parts that it cuts have the size of the first.
        inputs = [v if same or isinstance(v, _List) else _unknown(v) for v, same in zip(inputs, stays, strict=True)]
        outputs = self.run(body, inputs)
        entries = [_merged(pair) for pair in zip(inputs, outputs, strict=True)]
        if any(a is not b for a, b in zip(entries, inputs, strict=True)):
            outputs = self.run(body, entries)
        self.run(self.library.body(op, "cond"), entries)
        return [_merged(pair) for pair in zip(entries, outputs, strict=True)]


def _merged(values: Sequence[Any]) -> Any:
    """Return what the results of two branches or turns have in common; the first result if they agree."""
    first, *rest = values
    if isinstance(first, _List):
        elements = [v.element for v in values if isinstance(v, _List) and v.element is not None]
        alike = all(isinstance(v, _List) and v.length == first.length for v in rest)
        if alike and (first.element is not None or not elements):
            return first
        return _List(elements[0] if elements else None, first.length if alike else None)
    if (
        all(v.shape.as_list() == first.shape.as_list() for v in rest if v.shape.rank is not None)
        and first.shape.rank is not None
    ):
        return first
    return tf.raw_ops.Placeholder(dtype=first.dtype, shape=first.shape.most_specific_compatible_shape(rest[0].shape))


def _unknown(tensor: Any) -> Any:
    return tf.raw_ops.Placeholder(dtype=tensor.dtype, shape=tensor.shape)


def _axis(tensor: Any) -> int | None:
    """Return the axis that holds the rows, if there is exactly one."""
    sizes = tensor.shape.as_list() if tensor.shape.rank is not None else []
    axes = [k for k, size in enumerate(sizes) if size and size % ROWS == 0]
    return axes[0] if len(axes) == 1 else None


def _layout(tensor: Any, several: set[tuple[int, int]]) -> Layout | None:
    axis = _axis(tensor)
    if axis is None:
        return None
    sizes = tensor.shape.as_list()
    fitting = [(inner, outer) for inner, outer in several if inner * outer * ROWS == sizes[axis]]
    return Layout(tuple(sizes), axis, *fitting[0]) if len(fitting) == 1 else None


def _reshaped(before: Layout | None, after: Any, *_: Any) -> Layout | None:
    """Return the layout after a reshape: rows stay rows if the sizes before and after their axis stay together."""
    axis = _axis(after)
    if before is None or before.outer > 1 or axis is None:
        return None
    sizes = after.shape.as_list()
    ahead: list[Any] = sizes[:axis]
    ahead_before: list[Any] = list(before.shape[: before.axis])
    if None in ahead or None in ahead_before or np.prod(ahead) != np.prod(ahead_before):
        return None
    return Layout(tuple(sizes), axis, sizes[axis] // ROWS)


def _to_rows(before: Layout | None, after: Any, block: Any) -> Layout | None:
    """Return the layout after ``space_to_batch``: parts of space become rows, ahead of those that there are."""
    block = tf.get_static_value(block)
    if block is None or before is None or before.axis or _axis(after) != 0:
        return None
    return replace(before, shape=tuple(after.shape.as_list()), outer=before.outer * int(np.prod(block)))


def _from_rows(before: Layout | None, after: Any, block: Any) -> Layout | None:
    """Return the layout after ``batch_to_space``."""
    block = tf.get_static_value(block)
    if block is None or before is None or before.axis or before.outer % np.prod(block) or _axis(after) != 0:
        return None
    return replace(before, shape=tuple(after.shape.as_list()), outer=before.outer // int(np.prod(block)))


MOVED = {"Reshape": _reshaped, "SpaceToBatchND": _to_rows, "BatchToSpaceND": _from_rows}


# ---------------------------------------------------------------------- lists
def _from_tensor(op: Any, inputs: list[Any]) -> list[Any]:
    (tensor, _) = inputs
    return [_List(tensor[0], tensor.shape[0])] if tensor.shape.rank else [_List()]


def _reserve(op: Any, inputs: list[Any]) -> list[Any]:
    length = tf.get_static_value(inputs[-1])
    return [_List(None, None if length is None or op.type == "EmptyTensorList" else int(length))]


def _get(op: Any, inputs: list[Any]) -> list[Any]:
    element = inputs[0].element
    return [_unknown(op.outputs[0]) if element is None else tf.identity(element)]


def _set(op: Any, inputs: list[Any]) -> list[Any]:
    item = inputs[2] if op.type == "TensorListSetItem" else inputs[1]
    grows = op.type != "TensorListSetItem" or op.get_attr("resize_if_index_out_of_bounds")
    return [_List(item, None if grows else inputs[0].length)]


def _stacked(op: Any, inputs: list[Any]) -> list[Any]:
    items = inputs[0]
    if items.element is None or items.element.shape.rank is None:
        return [_unknown(op.outputs[0])]
    shape = [items.length if op.type == "TensorListStack" else None, *items.element.shape.as_list()]
    return [tf.raw_ops.Placeholder(dtype=items.element.dtype, shape=tf.TensorShape(shape))]


LISTS = {
    "TensorListFromTensor": _from_tensor,
    "TensorListReserve": _reserve,
    "EmptyTensorList": _reserve,
    "TensorListGetItem": _get,
    "TensorListSetItem": _set,
    "TensorListPushBack": _set,
    "TensorListPopBack": lambda op, inputs: [inputs[0], *_get(op, inputs)],
    "TensorListStack": _stacked,
    "TensorListGather": _stacked,
    "TensorListResize": lambda op, inputs: [_List(inputs[0].element)],
    "TensorListLength": lambda op, inputs: [_unknown(op.outputs[0])],
    "TensorListScatterV2": lambda op, inputs: _from_tensor(op, inputs[:2]),
    "TensorListScatter": lambda op, inputs: _from_tensor(op, inputs[:2]),
}
