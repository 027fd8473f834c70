"""Rules of operations along axes: maxima, products, order statistics, pooling.

Each rule maps a record and its output multipliers to the multipliers of the operands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import UnsupportedOperationError
from ...formulas import rules
from ...formulas.traced import cached
from ..operation_record import Rule, along_segment, values
from ..windows import joined, within
from .graphs import static_value
from .pairing import OperationRecord


def _windows(record: OperationRecord, x: Any) -> Callable[[Any], Any]:
    """Return the function that takes the elements of every window, on a new last axis, and the least number for padding."""
    names = [n for n in ("ksize", "strides", "padding", "data_format") if n in record.op.node_def.attr]
    options = {n: record.op.get_attr(n) for n in names}
    padding, channels_last = options["padding"].decode(), not options.get("data_format", b"NHWC").startswith(b"NC")
    if padding not in ("SAME", "VALID"):
        raise UnsupportedOperationError(f"{record.name} in {record.place} with padding {padding} has no rule.")
    kernel = options["ksize"] if "ksize" in options else record.static(1).tolist()
    strides = options["strides"] if "strides" in options else record.static(2).tolist()
    space = slice(1, -1) if channels_last else slice(2, None)
    sizes = x.shape.as_list()[space]
    if None in sizes:
        raise UnsupportedOperationError(f"{record.name} in {record.place} over axes of unknown size has no rule.")
    if kernel[0] != 1 or kernel[-1 if channels_last else 1] != 1:
        raise UnsupportedOperationError(f"{record.name} in {record.place} over rows or channels has no rule.")
    axes = [_positions(*axis, padding) for axis in zip(sizes, kernel[space], strides[space], strict=True)]
    positions, rank = joined(axes, sizes), x.shape.rank  # (windows, elements of each), -1 outside

    def take(x: Any) -> Any:
        x = tf.transpose(x, [0, rank - 1, *range(1, rank - 1)]) if channels_last else x
        rows = tf.shape(x)[:2]
        taken = tf.gather(tf.reshape(x, tf.concat([rows, [-1]], 0)), np.maximum(positions, 0), axis=2)
        if (positions < 0).any():
            taken = tf.where(positions >= 0, taken, tf.cast(-math.inf, x.dtype))
        taken = tf.reshape(taken, tf.concat([rows, [*map(len, axes), positions.shape[1]]], 0))
        return tf.transpose(taken, [0, *range(2, rank), 1, rank]) if channels_last else taken

    return take


def _positions(size: int, kernel: int, stride: int, padding: str) -> np.ndarray:
    """Return positions along one axis, (windows, elements of each), -1 outside."""
    count = -(-size // stride) if padding == "SAME" else (size - kernel) // stride + 1
    before = max((count - 1) * stride + kernel - size, 0) // 2 if padding == "SAME" else 0
    positions = np.arange(count)[:, None] * stride - before + np.arange(kernel)
    return within(positions, size)


class Folding:
    """Move the axes of a reduction to the end, as one axis."""

    def __init__(self, tensor: Any, axes: Any) -> None:
        rank = tensor.shape.rank
        self.axes = sorted({int(a) % rank for a in np.reshape(axes, -1)}) if rank else []
        remaining = [k for k in range(rank) if k not in self.axes]
        self.order = remaining + self.axes
        moved = tf.shape(tensor)
        self.shape = tf.gather(moved, self.order)
        self.folded = tf.concat([tf.gather(moved, remaining), [-1]], 0)

    def fold(self, tensor: Any) -> Any:
        """Return a tensor as (other axes, reduced axes as one)."""
        return tf.reshape(tf.transpose(tensor, self.order), self.folded)

    def unfold(self, tensor: Any) -> Any:
        """Undo ``fold``."""
        return tf.transpose(tf.reshape(tensor, self.shape), np.argsort(self.order).tolist())

    def result(self, tensor: Any) -> Any:
        """Return what the reduction returned, or its multiplier, as (other axes, 1)."""
        return tf.reshape(tensor, tf.concat([self.folded[:-1], [1]], 0))


def _folding(record: OperationRecord) -> Folding:
    axes = static_value(record.operands[1].p)
    if axes is None:
        raise UnsupportedOperationError(
            f"{record.name} in {record.place} over axes that are not known while tracing has no rule."
        )
    return Folding(record.inputs[0], axes)


def cross_max(sign: int = 1) -> Rule:
    """Build the cross-max rule over axes (of the negatives for the minimum)."""

    def rule(record: OperationRecord, multiplier: Any) -> list[Any]:
        folding = _folding(record)
        x, r = (sign * folding.fold(v[0]) for v in (record.inputs, record.reference_inputs))
        return [folding.unfold(cached(rules.maximum)(folding.result(multiplier), x, r))]

    return rule


def product_over_axes(record: OperationRecord, multiplier: Any) -> list[Any]:
    """Apply the rule of a product over axes: a polynomial of their size, exact along the segment."""
    folding, sizes = _folding(record), record.inputs[0].shape
    if all(sizes[k] for k in folding.axes):
        return along_segment((math.prod(sizes[k] for k in folding.axes) + 1) // 2)(record, multiplier)
    x, r = (folding.fold(v[0]) for v in (record.inputs, record.reference_inputs))
    return [folding.unfold(folding.result(multiplier) * _product_slopes(x, r))]


def _product_slopes(x: Any, r: Any) -> Any:
    """Return the slope of each element along the last axis: the product of all others, averaged along the segment."""
    positions, weights = gauss_legendre((tf.shape(x)[-1] + 1) // 2)

    def at(k: Any, total: Any) -> Any:
        point = r + tf.cast(positions[k], x.dtype) * (x - r)
        before, behind = (tf.math.cumprod(point, -1, exclusive=True, reverse=turned) for turned in (False, True))
        return k + 1, total + tf.cast(weights[k], x.dtype) * tf.math.conj(before * behind)

    return tf.while_loop(lambda k, _: k < tf.size(positions), at, (0, tf.zeros_like(x)))[1]


def gauss_legendre(nodes: Any) -> tuple[Any, Any]:
    """Return nodes in [0, 1] and weights that sum to 1, for a number of nodes in a tensor (Golub & Welsch 1969)."""
    k = tf.range(tf.maximum(nodes, 1), dtype=tf.int32)
    later = tf.cast(tf.maximum(k[:, None], k), tf.float64)
    beside = 1 / tf.sqrt(4 - 1 / tf.square(tf.maximum(later, 1)))
    values, vectors = tf.linalg.eigh(tf.where(tf.abs(k[:, None] - k) == 1, beside, tf.zeros_like(beside)))
    return (1 + values) / 2, tf.square(vectors[0])


def product_or_normalization(otherwise: Rule) -> Rule:
    """Build the rule of products: ``otherwise``, or ``rules.normalize`` for vectors times the reciprocals of their norms.

    TensorFlow and Keras compose the normalization of other operations.
    """

    def rule(record: OperationRecord, multiplier: Any) -> list[Any]:
        for k, vectors in enumerate(record.op.inputs):
            over = _match_euclidean_norm(vectors, record.op.inputs[1 - k].op)
            if over is not None and all(record.varying):
                axes, bound = over
                folding = Folding(record.inputs[k], axes)
                x, y = (
                    (folding.fold(v), folding.fold(vr))
                    for v, vr in (record.sides()[k], (record.outputs[0], record.reference_outputs[0]))
                )
                input_multiplier = folding.unfold(rules.normalize(folding.fold(multiplier), x, y, bound))
                return [
                    None if k else input_multiplier,
                    input_multiplier if k else None,
                ]  # the norm's own part is in it
        return otherwise(record, multiplier)

    return rule


def quotient_or_normalization(otherwise: Rule) -> Rule:
    """Build the rule of quotients: ``otherwise``, or ``rules.ratio`` for vectors over their norms of another order."""

    def rule(record: OperationRecord, multiplier: Any) -> list[Any]:
        vectors, norm = record.op.inputs
        if not (all(record.varying) and _is_norm(vectors, norm.op)):
            return otherwise(record, multiplier)
        ratios = rules.ratio(multiplier, record.sides()[1], (record.outputs[0], record.reference_outputs[0]))
        return record.shares(*ratios)

    return rule


def _is_norm(vectors: Any, op: Any) -> bool:
    """Return whether an operation is max(sum(|x|^p)^(1/p), c) of some vectors, as Keras writes a norm."""
    op, bound = _split_bound(op, "Maximum")
    for kind in ("Pow", "Sum", "Pow", "Abs"):
        if op.type != kind:
            return False
        before, op = op.inputs[0], op.inputs[0].op
    return bound is not None and before is vectors


def _match_euclidean_norm(vectors: Any, reciprocal: Any) -> tuple[Any, float] | None:
    """Return the axes of vectors and their least norm if an operation is the reciprocal of their Euclidean norm.

    That is 1 / sqrt(max(sum(x^2), c)), as ``tf.math.l2_normalize`` writes it, or min(1 / sqrt(sum(x^2)), c), as Keras does.
    """
    bounded, bound = _split_bound(reciprocal, "Minimum")
    if bounded.type != "Rsqrt" or not vectors.dtype.is_floating:
        return None
    squares, least = _split_bound(bounded.inputs[0].op, "Maximum")
    if squares.type != "Sum" or not squares.get_attr("keep_dims") or squares.inputs[0].op.type != "Square":
        return None
    if squares.inputs[0].op.inputs[0] is not vectors or (bound is None) == (least is None):
        return None
    axes = static_value(squares.inputs[1])
    return None if axes is None else (axes, least**0.5 if bound is None else 1 / bound)


def _split_bound(op: Any, by: str) -> tuple[Any, Any]:
    """Return the operation that a positive number bounds, and the number; the operation itself and None without a bound."""
    bound = static_value(op.inputs[1]) if op.type == by else None
    return (op, None) if bound is None or bound.ndim or not bound > 0 else (op.inputs[0].op, float(bound))


def max_pool(record: OperationRecord, multiplier: Any) -> list[Any]:
    """Apply the cross-max rule to every window of a max pooling."""
    x, r = record.inputs[0], record.reference_inputs[0]
    take, point = _windows(record, x), tf.identity(x)
    of_x = take(point)
    slopes = cached(rules.maximum)(tf.expand_dims(multiplier, -1), of_x, take(r))
    return tf.gradients(of_x, point, slopes)


def arg_position(sign: int = 1) -> Rule:
    """Build the rule of the position of the maximum along an axis (or of the minimum), see ``rules.topk_indices``."""

    def rule(record: OperationRecord, multiplier: Any) -> list[Any]:
        folding = _folding(record)
        x, r = (sign * folding.fold(v[0]) for v in (record.inputs, record.reference_inputs))
        p, pr = (folding.result(v[0]) for v in (record.outputs, record.reference_outputs))
        return [sign * folding.unfold(rules.topk_indices(folding.result(multiplier), x, r, p, pr))]

    return rule


def top_positions(record: OperationRecord, multiplier: Any) -> list[Any]:
    """Apply the rule of the positions of the k largest values, see ``rules.topk_indices``."""
    return [rules.topk_indices(multiplier, *values(record))]


def top_values(record: OperationRecord, multiplier: Any) -> list[Any]:
    """Apply the rule of the k largest values in order: their negatives ascend."""
    (x,), (r,) = record.inputs, record.reference_inputs
    if int(multiplier.shape[-1] or 0) == 1:
        return [cached(rules.maximum)(multiplier, x, r)]
    if x.shape[-1] is None:
        raise UnsupportedOperationError(f"{record.name} in {record.place} over an axis of unknown size has no rule.")
    rest = tf.shape(x)[-1] - tf.shape(multiplier)[-1]
    m = tf.concat([multiplier, tf.zeros(tf.concat([tf.shape(x)[:-1], [rest]], 0), multiplier.dtype)], -1)
    return [rules.sort(m, -x, -r)]
