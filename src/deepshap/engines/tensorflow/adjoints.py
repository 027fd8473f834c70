"""The adjoints of common linear and bilinear operations, in few operations.

TensorFlow's own gradients compute the same. They run the operation once more and look at shapes at run time, which takes
several times as long to trace; the shapes are known here. ``pull`` returns None for a case that it does not cover, and
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


def pull(record: OperationRecord, multipliers: Sequence[Any]) -> list[Any] | None:
    """Return the multipliers of the varying operands, from those of the output; None if TensorFlow's gradient has to be used."""
    adjoint = ADJOINTS.get(record.name)
    computed = [v.x for v, varies in zip(record.operands, record.varying, strict=True) if varies] + list(multipliers)
    if adjoint is None or not all(t.dtype.is_floating and t.dtype == computed[0].dtype for t in computed):
        return None
    return adjoint(record, multipliers[0])


def _reshape(record: OperationRecord, multiplier: Any) -> list[Any]:
    """Return the multiplier of an operand of which only the shape changes."""
    return [tf.reshape(multiplier, record.run.pairing.shape(record.operands[0]))]


def _transpose(record: OperationRecord, multiplier: Any) -> list[Any] | None:
    order = record.static(1)
    return None if order is None else [tf.transpose(multiplier, np.argsort(np.asarray(order) % len(order)))]


def _crop(record: OperationRecord, multiplier: Any) -> list[Any] | None:
    """Return the multiplier of what is padded."""
    if (pad := record.static(1)) is None:
        return None
    shape = record.run.pairing.shape(record.operands[0])
    return [tf.slice(multiplier, tf.cast(pad[:, 0], shape.dtype), shape)]


def _unslice_step(record: OperationRecord, multiplier: Any) -> list[Any] | None:
    """Return the multiplier of what a slice is taken from: zeros around that of the slice."""
    if (padded_part := _unslice_static(record, multiplier)) is not None:
        return [padded_part]
    masks = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    begin, end, strides = (v.p for v in record.operands[1:])
    shape = tf.cast(record.run.pairing.shape(record.operands[0]), begin.dtype)
    gradient = tf.raw_ops.StridedSliceGrad(
        shape=shape, begin=begin, end=end, strides=strides, dy=multiplier, **{m: record.op.get_attr(m) for m in masks}
    )
    return [gradient]


def _unslice_static(record: OperationRecord, multiplier: Any) -> Any | None:
    """Return the same as one ``tf.pad`` if the bounds of the slice are known while tracing, else None."""
    bounds = [record.static(k) for k in (1, 2, 3)]
    shape, op = record.operands[0].x.shape, record.op
    if shape.rank is None or any(v is None for v in bounds) or (bounds[2] != 1).any():
        return None
    if op.get_attr("ellipsis_mask") or op.get_attr("new_axis_mask"):
        return None
    begins, ends, drops = (
        [bool(op.get_attr(name) >> axis & 1) for axis in range(len(bounds[0]))]
        for name in ("begin_mask", "end_mask", "shrink_axis_mask")
    )
    slices = []
    for begin, end, *masks in zip(bounds[0].tolist(), bounds[1].tolist(), begins, ends, drops, strict=True):
        if masks[2]:
            slices.append(slice(begin, begin + 1 or None))
        else:
            slices.append(slice(None if masks[0] else begin, None if masks[1] else end))
    return unslice(multiplier, slices, shape.as_list(), {axis for axis, drop in enumerate(drops) if drop})


def _bias(record: OperationRecord, multiplier: Any) -> list[Any] | None:
    """Pass the multiplier on, if the bias does not vary."""
    return None if record.varying[1] else [multiplier]


def _reduction(mean_of: bool) -> Callable[[OperationRecord, Any], list[Any] | None]:
    """Build the adjoint of a sum over axes, or of a mean: every element gets the multiplier, or its share."""

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
        spread_out = tf.broadcast_to(multiplier, record.run.pairing.shape(operand))
        return [spread_out / float(np.prod(sizes)) if mean_of else spread_out]

    return adjoint


# ---------------------------------------------------------------------- products: the gradient at the midpoint
def _factor(record: OperationRecord, k: int, order: Sequence[int] | None = None) -> Any:
    """Return a factor of a product: the mean of both sides if it varies.

    With ``order``, its axes are permuted. Sides are permuted before they are laid out for all pairs.
    """
    operand = record.operands[k]
    order = None if order is None or list(order) == sorted(order) else order
    if order is not None and order[0] == 0 and operand.active:
        sides = {side: tf.transpose(getattr(operand, side), order) for side in "xr"}
        factor = kernel_dispatch.mean(record, replace(operand, **sides, p=None))
        if factor is not None:
            return factor
    factor = _mean(record, operand) if operand.active else operand.p
    return factor if order is None else tf.transpose(factor, order)


def _mean(record: OperationRecord, value: Value) -> Any:
    averaged = kernel_dispatch.mean(record, value)
    return mean(record.run.pairing.spread(value)) if averaged is None else averaged


def _matmul(record: OperationRecord, m: Any) -> list[Any] | None:
    """Return the multipliers of a matrix product, unless a factor that varies is broadcast along other axes."""
    result_batch, *batches = (v.x.shape[:-2] for v in (record.results[0], *record.operands))
    if any(
        varies and not _equal_shapes(result_batch, batch) for varies, batch in zip(record.varying, batches, strict=True)
    ):
        return None
    names = ("transpose_a", "transpose_b") if record.name == "MatMul" else ("adj_x", "adj_y")
    ta, tb = map(record.op.get_attr, names)
    multipliers = []
    if record.varying[0]:
        b, turned = _untransposed_factor(record, 1, tb)
        factors = (b, m, turned, True) if ta else (m, b, False, not turned)
        multipliers.append(tf.matmul(*factors))
    if record.varying[1]:
        a, turned = _untransposed_factor(record, 0, ta)
        factors = (m, a, True, turned) if tb else (a, m, not turned, False)
        multipliers.append(tf.matmul(*factors))
    return multipliers


def _untransposed_factor(record: OperationRecord, k: int, turned: bool) -> tuple[Any, bool]:
    """Return a factor, and whether its product takes it transposed.

    If the model has transposed the factor itself, use it as it was before. Compilers would transpose it for all pairs.
    """
    operand, layout = record.operands[k], record.operands[k].layout
    operations = {t.op.type for t in (operand.x, operand.r)}
    if not operand.active or operations != {"Transpose"} or layout is None or layout.axis >= len(layout.shape) - 2:
        return _factor(record, k), turned
    *before, last = range(len(layout.shape))
    swapped = [*before[:-1], last, before[-1]]
    orders = [tf.get_static_value(t.op.inputs[1]) for t in (operand.x, operand.r)]
    if any(order is None or [*order] != swapped for order in orders):
        return _factor(record, k), turned
    x, r = (t.op.inputs[0] for t in (operand.x, operand.r))
    shape = *layout.shape[:-2], layout.shape[-1], layout.shape[-2]
    return _mean(record, Value(x, r, True, layout=replace(layout, shape=shape))), not turned


def _equal_shapes(a: tf.TensorShape, b: tf.TensorShape) -> bool:
    """Return whether shapes are equal and at most one size, the number of rows, is unknown."""
    return a.rank is not None and b.rank is not None and a.as_list() == b.as_list() and a.as_list().count(None) <= 1


def _einsum(record: OperationRecord, m: Any) -> list[Any] | None:
    """Return the multipliers of an einsum, if no index is repeated, summed within one factor, or left to dots."""
    equation = record.op.get_attr("equation").decode()
    operands, _, result = equation.partition("->")
    names = operands.split(",")
    if len(names) != 2 or "." in equation or any(len(set(name)) < len(name) for name in names):
        return None
    a, b = names
    if not set(a) <= set(b + result) or not set(b) <= set(a + result):
        return None

    multipliers = []
    for k, (wanted, factor_names) in enumerate(((a, b), (b, a))):
        if record.varying[k]:
            order = matrix_order(f"{result},{factor_names}->{wanted}")
            factor = _factor(record, 1 - k, [factor_names.index(name) for name in order])
            multipliers.append(einsum(m, factor, f"{result},{order}->{wanted}"))
    return multipliers


ADJOINTS: dict[str, Callable[[OperationRecord, Any], list[Any] | None]] = {
    **dict.fromkeys(("Reshape", "ExpandDims", "Squeeze"), _reshape),
    "Transpose": _transpose,
    "Pad": _crop,
    "StridedSlice": _unslice_step,
    "BiasAdd": _bias,
    "Sum": _reduction(False),
    "Mean": _reduction(True),
    **dict.fromkeys(("MatMul", "BatchMatMulV2"), _matmul),
    "Einsum": _einsum,
}


# ---------------------------------------------------------------------- einsums as matrix products
def einsum(left: Any, right: Any, equation: str) -> Any:
    """Return the product of two tensors by an equation such as ``"abc,acd->abd"``, as a matrix product.

    TensorFlow's own operation takes three to six times as long. No index is repeated in a tensor, and each is in at least two
    tensors: in both factors and the product (``batch``), in both factors only (``summed``), or in one factor and the product.
    """
    a, b, result = equation.replace("->", ",").split(",")
    batch, summed, rows, columns = _roles(a, b, result)
    sizes = {k: size for names, t in ((a, left), (b, right)) for k, size in zip(names, _sizes(t), strict=True)}
    first, first_turned = _to_matrix(left, a, batch, rows, summed, sizes)
    second, second_turned = _to_matrix(right, b, batch, summed, columns, sizes)
    if result.startswith(batch + columns) and result != batch + rows + columns:
        matrices = tf.matmul(second, first, transpose_a=not second_turned, transpose_b=not first_turned)
        rows, columns = columns, rows
    else:
        matrices = tf.matmul(first, second, transpose_a=first_turned, transpose_b=second_turned)
    order = batch + rows + columns
    return _transpose_to(tf.reshape(matrices, [sizes[k] for k in order]), order, result)


def matrix_order(equation: str) -> str:
    """Return the order of axes in which ``einsum`` takes its second factor without a transposition."""
    a, b, result = equation.replace("->", ",").split(",")
    batch, summed, _, columns = _roles(a, b, result)
    return b if b == batch + columns + summed else batch + summed + columns


def _roles(a: str, b: str, result: str) -> tuple[str, str, str, str]:
    """Return the indices of all three tensors, of the factors only, and of either factor and the product."""
    batch, summed = ("".join(k for k in a if k in b and (k in result) == in_result) for in_result in (True, False))
    rows, columns = ("".join(k for k in result if k in factor and k not in batch) for factor in (a, b))
    return batch, summed, rows, columns


def _sizes(tensor: Any) -> list[Any]:
    """Return the sizes of axes, as numbers where they are known."""
    return [tf.shape(tensor)[k] if size is None else size for k, size in enumerate(tensor.shape)]


def _to_matrix(tensor: Any, names: str, batch: str, rows: str, columns: str, sizes: dict[str, Any]) -> tuple[Any, bool]:
    """Return a tensor as a batch of matrices, and whether they are transposed, which needs no work."""
    is_transposed = names == batch + columns + rows
    if is_transposed:
        rows, columns = columns, rows
    tensor = _transpose_to(tensor, names, batch + rows + columns)
    shape = [*(sizes[k] for k in batch), prod(sizes[k] for k in rows), prod(sizes[k] for k in columns)]
    return tf.reshape(tensor, shape), is_transposed


def _transpose_to(tensor: Any, names: str, wanted: str) -> Any:
    """Return a tensor with its axes in another order."""
    return tensor if names == wanted else tf.transpose(tensor, [names.index(k) for k in wanted])


# ---------------------------------------------------------------------- multipliers that are 0 outside of a slice
Margins = list[list[int]]  # numbers of zeros at the beginning and at the end of each axis
MOST_AXES = 6  # that ``tf.pad`` takes


def unslice(m: Any, slices: list[slice], sizes: list[int | None], dropped: set[int]) -> Any | None:
    """Return the multiplier of what a slice without the ``dropped`` axes is taken from.

    None if the slice is not known, is empty, or cuts the channels.
    """
    ends: Margins = []
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
    return pad(m, ends)


def pad(m: Any, ends: Margins) -> Any:
    """Return a multiplier with zeros around it."""
    return tf.pad(m, ends) if np.any(ends) else m


def nonzero_slice(m: Any) -> tuple[Any, Margins] | None:
    """Return the part of a multiplier that is not 0, and the zeros around it; None if no zeros are known.

    The rows are the first axis.
    """
    if m is None or m.op.type != "Pad":
        return None
    inner, ends = m.op.inputs[0], tf.get_static_value(m.op.inputs[1])
    if ends is None or ends[0].any() or inner.shape.rank is None or None in inner.shape[1:]:
        return None
    return inner, ends.tolist()


def slice_value(value: Value, inner: Any, ends: Margins) -> Value | None:
    """Return the part of a value that a slice of a multiplier covers; None if the rows are not its first axis."""
    layout = value.layout
    if layout is None or layout.axis != 0 or len(layout.shape) != len(ends):
        return None
    first, sizes = [lead for lead, _ in ends], [-1, *inner.shape[1:]]
    x, r = (tf.slice(side, first, sizes) for side in (value.x, value.r))
    return Value(x, r, value.active, layout=replace(layout, shape=(layout.shape[0], *sizes[1:])))


def pull_on_slice(record: OperationRecord, m: Any, rule: Callable[[OperationRecord, Any], list[Any]]) -> list[Any]:
    """Apply an elementwise rule to a multiplier, on its nonzero slice only if there is one."""
    single = type(record) is OperationRecord and len(record.operands) == len(record.results) == 1
    part = nonzero_slice(m) if single else None
    if part is None:
        return rule(record, m)
    operand, result = (slice_value(v, *part) for v in (*record.operands, *record.results))
    if operand is None or result is None:
        return rule(record, m)
    inner, ends = part
    return [
        pad(multiplier, ends) for multiplier in rule(OperationRecord(record.run, record.op, [operand], [result]), inner)
    ]


def add_multipliers(a: Any, b: Any) -> Any:
    """Return the sum of two multipliers, on the smallest slice that covers both."""
    first, second = nonzero_slice(a), nonzero_slice(b)
    if first is None or second is None or len(first[1]) != len(second[1]):
        return a + b
    common = np.minimum(first[1], second[1])
    total = sum(pad(inner, (np.array(margins) - common).tolist()) for inner, margins in (first, second))
    return pad(total, common.tolist())
