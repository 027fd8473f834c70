"""The adjoints of common linear and bilinear operations, in few operations.

TensorFlow's own gradients compute the same. They run the operation once more and look at shapes at run time, which takes
several times as long to trace; the shapes are known here. ``pulled`` returns None for a case that it does not cover, and
the caller asks TensorFlow.

A multiplier that is zero outside of a slice, as behind ``x[:, -1]``, is kept as the ``tf.pad`` of the slice. The tensor
itself shows that, and rules run on the slice alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf

from ...formulas.rules import mean
from . import kernel_dispatch
from .pairing import OperationRecord, Value


def pulled(record: OperationRecord, multipliers: Sequence[Any]) -> list[Any] | None:
    """Multipliers of the varying operands, from those of the output; None where TensorFlow's gradient is to be asked."""
    adjoint = ADJOINTS.get(record.name)
    computed = [v.x for v, varies in zip(record.operands, record.varying, strict=True) if varies] + list(multipliers)
    if adjoint is None or not all(t.dtype.is_floating and t.dtype == computed[0].dtype for t in computed):
        return None
    return adjoint(record, multipliers[0])


def _in_place(record: OperationRecord, multiplier: Any) -> list[Any]:
    """Of what changes the shape alone."""
    return [tf.reshape(multiplier, record.run.pairing.shape(record.operands[0]))]


def _transposed(record: OperationRecord, multiplier: Any) -> list[Any] | None:
    order = record.static(1)
    return None if order is None else [tf.transpose(multiplier, np.argsort(np.asarray(order) % len(order)))]


def _cut(record: OperationRecord, multiplier: Any) -> list[Any] | None:
    """Of what is padded."""
    if (padded := record.static(1)) is None:
        return None
    shape = record.run.pairing.shape(record.operands[0])
    return [tf.slice(multiplier, tf.cast(padded[:, 0], shape.dtype), shape)]


def _put_back(record: OperationRecord, multiplier: Any) -> list[Any] | None:
    """Of a part: zeros around it."""
    if (found := _around(record, multiplier)) is not None:
        return [found]
    masks = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    begin, end, strides = (v.p for v in record.operands[1:])
    shape = tf.cast(record.run.pairing.shape(record.operands[0]), begin.dtype)
    made = tf.raw_ops.StridedSliceGrad(
        shape=shape, begin=begin, end=end, strides=strides, dy=multiplier, **{m: record.op.get_attr(m) for m in masks}
    )
    return [made]


def _around(record: OperationRecord, multiplier: Any) -> Any | None:
    """The same where it is known which steps the part has, in one piece."""
    given = [record.static(k) for k in (1, 2, 3)]
    shape, op = record.operands[0].x.shape, record.op
    if shape.rank is None or any(v is None for v in given) or (given[2] != 1).any():
        return None
    if op.get_attr("ellipsis_mask") or op.get_attr("new_axis_mask"):
        return None
    begins, ends, drops = (
        [bool(op.get_attr(name) >> axis & 1) for axis in range(len(given[0]))]
        for name in ("begin_mask", "end_mask", "shrink_axis_mask")
    )
    slices = []
    for first, last, *masks in zip(given[0].tolist(), given[1].tolist(), begins, ends, drops, strict=True):
        if masks[2]:
            slices.append(slice(first, first + 1 or None))
        else:
            slices.append(slice(None if masks[0] else first, None if masks[1] else last))
    return put_back(multiplier, slices, shape.as_list(), {axis for axis, drop in enumerate(drops) if drop})


def _passed(record: OperationRecord, multiplier: Any) -> list[Any] | None:
    """Of a bias that does not vary."""
    return None if record.varying[1] else [multiplier]


def _reduced(mean_of: bool) -> Callable[[OperationRecord, Any], list[Any] | None]:
    """Build the adjoint of a sum over axes, or of their mean: every element gets the multiplier, or its share."""

    def adjoint(record: OperationRecord, multiplier: Any) -> list[Any] | None:
        operand, axes = record.operands[0], record.static(1)
        if axes is None or operand.x.shape.rank is None:
            return None
        reduced = sorted({int(axis) % operand.x.shape.rank for axis in np.ravel(axes)})
        sizes = [operand.x.shape[axis] for axis in reduced]
        if mean_of and None in sizes:
            return None
        if not record.op.get_attr("keep_dims"):
            for axis in reduced:
                multiplier = tf.expand_dims(multiplier, axis)
        found = tf.broadcast_to(multiplier, record.run.pairing.shape(operand))
        return [found / float(np.prod(sizes)) if mean_of else found]

    return adjoint


# ---------------------------------------------------------------------- products: the gradient at the midpoint
def _factor(record: OperationRecord, k: int, order: Sequence[int] | None = None) -> Any:
    """A factor: the mean of both sides of one that varies; with its axes in another order, which sides take before they meet."""
    operand = record.operands[k]
    order = None if order is None or list(order) == sorted(order) else order
    if order is not None and order[0] == 0 and operand.active:
        sides = {side: tf.transpose(getattr(operand, side), order) for side in "xr"}
        found = kernel_dispatch.mean(record, replace(operand, **sides, p=None))
        if found is not None:
            return found
    found = _mean(record, operand) if operand.active else operand.p
    return found if order is None else tf.transpose(found, order)


def _mean(record: OperationRecord, value: Value) -> Any:
    found = kernel_dispatch.mean(record, value)
    return mean(record.run.pairing.spread(value)) if found is None else found


def _matmul(record: OperationRecord, m: Any) -> list[Any] | None:
    """Where no factor that varies is repeated along other axes."""
    whole, *batches = (v.x.shape[:-2] for v in (record.results[0], *record.operands))
    if any(varies and not _alike(whole, batch) for varies, batch in zip(record.varying, batches, strict=True)):
        return None
    names = ("transpose_a", "transpose_b") if record.name == "MatMul" else ("adj_x", "adj_y")
    ta, tb = map(record.op.get_attr, names)
    found = []
    if record.varying[0]:
        b, turned = _as_it_lay(record, 1, tb)
        made = (b, m, turned, True) if ta else (m, b, False, not turned)
        found.append(tf.matmul(*made))
    if record.varying[1]:
        a, turned = _as_it_lay(record, 0, ta)
        made = (m, a, True, turned) if tb else (a, m, not turned, False)
        found.append(tf.matmul(*made))
    return found


def _as_it_lay(record: OperationRecord, k: int, turned: bool) -> tuple[Any, bool]:
    """A factor, and whether its product takes it turned round; where it has been transposed by itself, as it was before.

    Compilers would transpose it for all pairs.
    """
    operand, layout = record.operands[k], record.operands[k].layout
    made = {t.op.type for t in (operand.x, operand.r)}
    if not operand.active or made != {"Transpose"} or layout is None or layout.axis >= len(layout.shape) - 2:
        return _factor(record, k), turned
    *before, last = range(len(layout.shape))
    swapped = [*before[:-1], last, before[-1]]
    orders = [tf.get_static_value(t.op.inputs[1]) for t in (operand.x, operand.r)]
    if any(order is None or [*order] != swapped for order in orders):
        return _factor(record, k), turned
    x, r = (t.op.inputs[0] for t in (operand.x, operand.r))
    shape = *layout.shape[:-2], layout.shape[-1], layout.shape[-2]
    return _mean(record, Value(x, r, True, layout=replace(layout, shape=shape))), not turned


def _alike(a: tf.TensorShape, b: tf.TensorShape) -> bool:
    """Whether shapes are the same, of which one size at most, the number of rows, is unknown."""
    return a.rank is not None and b.rank is not None and a.as_list() == b.as_list() and a.as_list().count(None) <= 1


def _einsum(record: OperationRecord, m: Any) -> list[Any] | None:
    """Where no index is repeated, summed by itself or left to dots."""
    equation = record.op.get_attr("equation").decode()
    before, _, made = equation.partition("->")
    names = before.split(",")
    if len(names) != 2 or "." in equation or any(len(set(name)) < len(name) for name in names):
        return None
    a, b = names
    if not set(a) <= set(b + made) or not set(b) <= set(a + made):
        return None

    found = []
    for k, (own, other) in enumerate(((a, b), (b, a))):
        if record.varying[k]:
            order = as_matrices(f"{made},{other}->{own}")
            factor = _factor(record, 1 - k, [other.index(name) for name in order])
            found.append(product(m, factor, f"{made},{order}->{own}"))
    return found


ADJOINTS: dict[str, Callable[[OperationRecord, Any], list[Any] | None]] = {
    **dict.fromkeys(("Reshape", "ExpandDims", "Squeeze"), _in_place),
    "Transpose": _transposed,
    "Pad": _cut,
    "StridedSlice": _put_back,
    "BiasAdd": _passed,
    "Sum": _reduced(False),
    "Mean": _reduced(True),
    **dict.fromkeys(("MatMul", "BatchMatMulV2"), _matmul),
    "Einsum": _einsum,
}


# ---------------------------------------------------------------------- einsums as matrix products
def product(left: Any, right: Any, equation: str) -> Any:
    """The product of two tensors by an equation such as ``"abc,acd->abd"``.

    No index is repeated in a tensor, and each is in two tensors at least: in both factors and the product (``batch``), in both
    factors alone (``summed``), or in one of them and the product.
    """
    a, b, made = equation.replace("->", ",").split(",")
    batch, summed, rows, columns = _roles(a, b, made)
    sizes = {k: size for names, t in ((a, left), (b, right)) for k, size in zip(names, _sizes(t), strict=True)}
    first, turned = _as_matrix(left, a, batch, rows, summed, sizes)
    second, other_turned = _as_matrix(right, b, batch, summed, columns, sizes)
    if made.startswith(batch + columns) and made != batch + rows + columns:
        found = tf.matmul(second, first, transpose_a=not other_turned, transpose_b=not turned)
        rows, columns = columns, rows
    else:
        found = tf.matmul(first, second, transpose_a=turned, transpose_b=other_turned)
    order = batch + rows + columns
    return _ordered(tf.reshape(found, [sizes[k] for k in order]), order, made)


def as_matrices(equation: str) -> str:
    """The order of axes in which a product takes its second factor without work."""
    a, b, made = equation.replace("->", ",").split(",")
    batch, summed, _, columns = _roles(a, b, made)
    return b if b == batch + columns + summed else batch + summed + columns


def _roles(a: str, b: str, made: str) -> tuple[str, str, str, str]:
    """Indices of all three, of the factors alone, of the first and of the second factor and the product."""
    batch, summed = ("".join(k for k in a if k in b and (k in made) == kept) for kept in (True, False))
    rows, columns = ("".join(k for k in made if k in own and k not in batch) for own in (a, b))
    return batch, summed, rows, columns


def _sizes(tensor: Any) -> list[Any]:
    """Sizes of axes, numbers where they are known."""
    return [tf.shape(tensor)[k] if size is None else size for k, size in enumerate(tensor.shape)]


def _as_matrix(tensor: Any, names: str, batch: str, rows: str, columns: str, sizes: dict[str, Any]) -> tuple[Any, bool]:
    """A tensor as matrices, and whether they lie there transposed, which needs no work."""
    turned = names == batch + columns + rows
    if turned:
        rows, columns = columns, rows
    tensor = _ordered(tensor, names, batch + rows + columns)
    shape = [*(sizes[k] for k in batch), prod(sizes[k] for k in rows), prod(sizes[k] for k in columns)]
    return tf.reshape(tensor, shape), turned


def _ordered(tensor: Any, names: str, wanted: str) -> Any:
    """A tensor with its axes in another order."""
    return tensor if names == wanted else tf.transpose(tensor, [names.index(k) for k in wanted])


# ---------------------------------------------------------------------- multipliers that are 0 outside of a slice
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


def pull_on_slice(record: OperationRecord, m: Any, rule: Callable[[OperationRecord, Any], list[Any]]) -> list[Any]:
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
