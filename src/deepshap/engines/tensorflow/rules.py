"""Rules of TensorFlow's operations, and the choice of the rule for an operation of the table.

A rule maps an ``OperationRecord`` and the multipliers of its results to the multipliers of its varying operands. The
mathematics is in ``formulas/rules.py``; the rules here bring operands into the form of the formulas and multipliers back
into that of the operands. Rules along axes are in ``axes.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import InputError, UnsupportedOperationError, not_a_multiplier
from ...formulas import rules, secants
from ...formulas.rules import SMOOTH_NODES
from ...formulas.secants import Secant
from ...formulas.traced import cached
from ..operation_record import Rule, along_segment, local_gap, of_operands, polynomial, rescale, values
from . import adjoints, kernel_dispatch
from .operations import (
    CUSTOM,
    ELEMENTWISE,
    IDENTITY,
    LINEAR,
    MULTILINEAR,
    QUADRATIC,
    SMOOTH,
    Operation,
    emit,
    is_registered,
)
from .pairing import OperationRecord, Unpaired, Value

__all__ = ["local_gap", "polynomial", "product", "product_or_zero", "quotient", "quotient_or_zero"]

product, product_or_zero = of_operands(cached(rules.product)), of_operands(cached(rules.product_or_zero))
quotient, quotient_or_zero = of_operands(cached(rules.quotient)), of_operands(cached(rules.quotient_or_zero))


def pull(record: OperationRecord, operation: Operation, multipliers: Sequence[Any]) -> list[Any]:
    """Return the multipliers of the varying operands, from those of the results (None where there is none)."""
    if operation.kind in (LINEAR, IDENTITY, MULTILINEAR):
        input_multipliers, varying = adjoints.pull(record, multipliers), sum(record.varying)
        if input_multipliers is not None:
            return input_multipliers
        if operation.kind == MULTILINEAR and varying > 1:
            return along_segment((varying + 1) // 2)(record, *multipliers)
        return record.vjp(record.points(), multipliers)
    if operation.kind in (QUADRATIC, SMOOTH):
        return along_segment(1 if operation.kind == QUADRATIC else SMOOTH_NODES)(record, *multipliers)
    if operation.kind == ELEMENTWISE:
        return adjoints.pull_on_slice(record, multipliers[0], partial(_elementwise, operation))
    assert operation.kind == CUSTOM
    return _custom(record, operation, multipliers)


def _elementwise(operation: Operation, record: OperationRecord, m: Any) -> list[Any]:
    if (multiplier := kernel_dispatch.elementwise(operation.secant, record, m)) is not None:
        return [multiplier]
    return record.unbroadcast(rescale(_secant(record, operation))(record, m))


def _secant(record: OperationRecord, operation: Operation) -> Secant | None:
    """Return the closed form of an elementwise function's slope, if it has one, in the form for XLA or for kernels."""
    secant = operation.secant
    if secant is not None and record.run.pairing.compiles:
        secant = secants.FUSED.get(secant, secant)
    return secant and cached(secant)


def pull_zero_unreached(record: OperationRecord, operation: Operation, multipliers: Sequence[Any]) -> list[Any]:
    """Return the same as ``pull``, with 0 where the multiplier is 0 and the slope is not finite."""
    pulled = pull(record, operation, multipliers)
    return [_where_reached(multipliers[0], m) for m in pulled] if len(multipliers) == 1 else pulled


def _where_reached(reached: Any, multiplier: Any) -> Any:
    """Apply ``rules.where_reached``, if the elements are those of the output, which sizes may show only at run time."""
    if multiplier is None or not reached.shape.is_compatible_with(multiplier.shape):
        return multiplier
    multiplier = tf.convert_to_tensor(multiplier)
    alike = tf.reduce_all(tf.equal(tf.shape(reached), tf.shape(multiplier)))
    return tf.cond(alike, lambda: rules.where_reached(reached, multiplier), lambda: multiplier)


def _custom(record: OperationRecord, operation: Operation, multipliers: Sequence[Any]) -> list[Any]:
    assert operation.rule is not None
    filled = [
        record.run.pairing.blank(v, record.run.float_of(v)) if m is None else m
        for v, m in zip(record.results, multipliers, strict=True)
    ]
    result = operation.rule(record, *filled)
    result = list(result) if isinstance(result, (list, tuple)) else [result]
    if len(result) != sum(record.varying):
        raise InputError(
            f"the rule of {record.name} returned {len(result)} multipliers for {sum(record.varying)} inputs."
        )
    of_user = is_registered(operation)
    return [
        _checked(record, m, v, of_user) for m, v in zip(result, [v for v in record.operands if v.active], strict=True)
    ]


def mismatch(result: Any, value: Any) -> str:
    """Say why something cannot be a multiplier of a value; "" if it can."""
    if result is None:
        return ""
    if not isinstance(result, (tf.Tensor, np.ndarray)):
        return type(result).__name__
    dtype = tf.as_dtype(result.dtype)
    return "" if dtype.is_floating or dtype.is_complex else f"a tensor of {dtype.name}"


MISFIT = "deepshap, of a rule: "  # marks errors of a run


def _checked(record: OperationRecord, m: Any, value: Value, of_user: bool) -> Any:
    """Return a multiplier of a rule that has its value's shape; shapes of a user's rule are checked at run time."""
    if kind := mismatch(m, value):
        raise not_a_multiplier(f"the rule of {record.name}", kind)
    if m is None:
        return m
    words = f"the rule of {record.name} returned a multiplier of shape", "for an input of shape"
    if not value.x.shape.is_compatible_with(m.shape):
        raise InputError(f"{words[0]} {m.shape} {words[1]} {value.x.shape}: they must be equal.")
    if not of_user:
        return m
    shapes = tf.shape(m), record.run.pairing.shape(value)
    fits = tf.raw_ops.Equal(x=shapes[0], y=shapes[1], incompatible_shape_error=False)
    check = tf.debugging.Assert(tf.reduce_all(fits), [MISFIT + words[0], shapes[0], words[1], shapes[1]])
    with tf.control_dependencies([check]):
        return tf.identity(m)


def total(*signs: int) -> Rule:
    """Build the rule of a sum of operands with signs: each gets the multiplier."""

    def rule(record: OperationRecord, multiplier: Any) -> list[Any]:
        all_signs = signs or (1,) * len(record.operands)
        return record.shares(*(multiplier if sign > 0 else -multiplier for sign in all_signs))

    return rule


def cast(record: OperationRecord, multiplier: Any) -> list[Any]:
    """Apply the rule of a cast: the identity, unless it rounds or tests for 0."""
    source, target = record.operands[0].x.dtype, record.results[0].x.dtype
    rounds = source.is_floating and not (target.is_floating or target.is_complex)
    if rounds or (target == tf.bool and source != tf.bool):
        return rescale()(record, multiplier)
    return [tf.cast(multiplier, record.inputs[0].dtype)]


def select(record: OperationRecord, multiplier: Any) -> list[Any]:
    """Apply ``rules.select``. The old Select takes a vector as a condition for complete rows."""
    condition, a, b = record.sides()
    if record.name == "Select":
        condition = tuple(_as_rows(v, a[0]) for v in condition)
    if not record.varying[0]:
        chosen, zeros = condition[0] != 0, tf.zeros_like(multiplier)
        return record.shares(zeros, tf.where(chosen, multiplier, zeros), tf.where(chosen, zeros, multiplier))
    of_condition, *of_branches = cached(rules.select)(multiplier, condition, a, b)
    if record.name == "Select" and record.inputs[0].shape.rank != of_condition.shape.rank:
        of_condition = tf.reduce_sum(of_condition, list(range(1, of_condition.shape.rank)))
    return record.shares(of_condition, *of_branches)


def _as_rows(condition: Any, like: Any) -> Any:
    missing = like.shape.rank - condition.shape.rank
    return tf.reshape(condition, tf.concat([tf.shape(condition), [1] * missing], 0)) if missing else condition


# ---------------------------------------------------------------------- ids and positions
def lookup(record: OperationRecord, multiplier: Any) -> list[Any]:
    """Apply the rule of table rows chosen by ids: two-player Shapley of table and ids; the share of ids goes to their change."""
    if not record.varying[1]:
        return record.vjp(record.points(), [multiplier])
    ids, ids_r = record.sides()[1]
    axis, batch_dims = _gather_axes(record, ids)
    _require_no_row_axis(record, record.operands[0], range(axis, axis + 1))
    by_table, explained = _at_both_sides(record, multiplier)
    of_ids = set(range(batch_dims)) | set(range(axis, axis + ids.shape.rank - batch_dims))
    share = tf.reduce_sum(explained, [k for k in range(explained.shape.rank) if k not in of_ids])
    if axis != batch_dims:
        share = tf.reshape(share, tf.shape(ids))
    return [*by_table, rules.per_change(share, ids, ids_r)]


def lookup_nd(record: OperationRecord, multiplier: Any) -> list[Any]:
    """Apply the rule of ``lookup`` to positions with several coordinates."""
    if not record.varying[1]:
        return record.vjp(record.points(), [multiplier])
    ids = record.sides()[1]
    _require_no_row_axis(record, record.operands[0], range(ids[0].shape[-1]))
    by_table, explained = _at_both_sides(record, multiplier)
    return [*by_table, _by_coordinates(explained, ids)]


def _require_no_row_axis(record: OperationRecord, value: Value, axes: Iterable[int]) -> None:
    """Raise ``Unpaired`` if values that depend on the input choose among rows; that is possible on all pairs only."""
    if record.run.pairing.is_separate and value.layout is not None and value.layout.axis in axes:
        raise Unpaired(value.x.name)


def _at_both_sides(record: OperationRecord, multiplier: Any) -> tuple[list[Any], Any]:
    """Return the table's multiplier, if it varies, and the share of the ids in each looked-up number."""
    tables = record.sides()[0] if record.varying[0] or record.name != "ResourceGather" else (record.operands[0].p,) * 2
    sides = record.run.pairing.spread(record.operands[1])

    def look_up(table: Any, ids: Any) -> Any:
        (entries,) = emit(record.op, [table, ids, *(v.p for v in record.operands[2:])], retyped=True)
        return entries

    by_table = []
    if record.varying[0]:
        for side in sides:
            point = tf.identity(tables[0])
            (back,) = tf.gradients(look_up(point, side), point, multiplier)
            by_table.append(tf.convert_to_tensor(back) / 2)
    jump = rules.lookup_change([[look_up(table, side) for side in sides] for table in tables])
    return [sum(by_table)] if by_table else [], rules.contribution_of(multiplier, tf.cast(jump, multiplier.dtype))


def _by_coordinates(explained: Any, ids: tuple[Any, Any]) -> Any:
    """Return the multipliers of coordinates, from the share of each number that lies there."""
    share = tf.reduce_sum(explained, list(range(ids[0].shape.rank - 1, explained.shape.rank)))
    return tf.stack(
        rules.share_coordinates(share, list(zip(*(tf.unstack(side, axis=-1) for side in ids), strict=True))), -1
    )


def _gather_axes(record: OperationRecord, ids: Any) -> tuple[int, int]:
    if record.name == "ResourceGather" or len(record.operands) < 3:
        return 0, 0
    rank, batch_dims = record.operands[0].x.shape.rank, record.op.get_attr("batch_dims")
    return int(record.static(2)) % rank, batch_dims % (ids.shape.rank + 1) if batch_dims < 0 else batch_dims


def added(values_at: int, places_at: int, sign: int = 1) -> Rule:
    """Build the rule of values that are added at positions: they get the mean multiplier of both choices of positions."""

    def rule(record: OperationRecord, multiplier: Any) -> list[Any]:
        if not record.varying[places_at]:
            return record.vjp(record.points(), [multiplier])
        ids, sides = record.sides()[places_at], record.run.pairing.spread(record.operands[places_at])
        single = record.name.endswith("SegmentSum")  # places without an axis of coordinates
        if single:
            (ids, sides) = (tuple(tf.expand_dims(v, -1) for v in pair) for pair in (ids, sides))
        _require_no_row_axis(record, record.results[0], range(ids[0].shape[-1]))
        at, at_r = (sign * tf.gather_nd(multiplier, side) for side in sides)
        change = rules.contribution_of(at - at_r, rules.mean(record.sides()[values_at]))
        by_places = _by_coordinates(change, ids)
        by_operand = {values_at: (at + at_r) / 2, places_at: by_places[..., 0] if single else by_places}
        return [by_operand.get(k, multiplier) for k, varies in enumerate(record.varying) if varies]

    return rule


def one_hot(record: OperationRecord, multiplier: Any) -> list[Any]:
    """Apply the rule of rows of the identity chosen by ids: their share is put on the ids' change."""
    if record.varying != (True, False, False, False):
        raise UnsupportedOperationError(
            f"OneHot in {record.place} with on or off values that depend on the input has no rule."
        )
    ids, ids_r, rows, rows_r = values(record)
    return [rules.per_change(tf.reduce_sum(multiplier * (rows - rows_r), record.op.get_attr("axis")), ids, ids_r)]


# ---------------------------------------------------------------------- softmax
def _softmax_rule(formula: Callable[..., Any]) -> Rule:
    """Build a rule whose formula also takes the logsumexp of both sides."""
    plain, fused = cached(formula), cached(partial(formula, slope=secants.exponential_fused))

    def rule(record: OperationRecord, multiplier: Any) -> list[Any]:
        by_kernel = kernel_dispatch.softmax(formula.__name__, formula, record, multiplier)
        suited = fused if record.run.pairing.compiles else plain
        return [suited(multiplier, *values(record), *_totals(record)) if by_kernel is None else by_kernel]

    return rule


def _totals(record: OperationRecord) -> Sequence[Any]:
    """Return the logsumexp of both sides, computed on each side's own rows unless these are the last axis."""
    operand, layout = record.operands[0], record.operands[0].layout
    if layout is None or layout.axis == len(layout.shape) - 1:
        return [_total(side) for side in record.sides()[0]]
    totals = Value(_total(operand.x), _total(operand.r), True, layout=replace(layout, shape=(*layout.shape[:-1], 1)))
    return record.run.pairing.spread(totals)


def _total(z: Any) -> Any:
    return tf.reduce_logsumexp(z, -1, keepdims=True)


softmax, log_softmax = _softmax_rule(rules.softmax), _softmax_rule(rules.log_softmax)


def cross_entropy(record: OperationRecord, multiplier: Any, _: Any) -> list[Any]:
    """Apply the rule of -sum(labels * log_softmax(logits)): half-splits of the products, then that of log_softmax."""
    (z, zr), (labels, labels_r) = record.sides()[:2]
    if record.name.startswith("Sparse"):
        if record.varying[1]:
            raise UnsupportedOperationError(
                f"{record.name} in {record.place} with labels that depend on the input has no rule."
            )
        labels = labels_r = tf.one_hot(record.operands[1].p, tf.shape(z)[-1], dtype=z.dtype)
    u, ur = (tf.nn.log_softmax(side) for side in (z, zr))
    by_labels, by_logs = rules.product(-tf.expand_dims(multiplier, -1), (labels, labels_r), (u, ur))
    of_logits = rules.log_softmax(by_logs, z, zr, u, ur, _total(z), _total(zr))
    return record.shares(of_logits, by_labels * tf.ones_like(labels))
