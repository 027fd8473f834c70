"""The rules of TensorFlow's operations: what the mathematics wants of a step, and what of the layout is TensorFlow's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ...errors import InputError, UnsupportedOperationError
from ...mathematics import rules
from ...mathematics.rules import SMOOTH_NODES
from ..steps import Rule, along_segment, local_gap, of_operands, polynomial, rescale, values
from .operations import CUSTOM, ELEMENTWISE, LINEAR, MULTILINEAR, QUADRATIC, SAME, SMOOTH, Operation
from .step import Step

__all__ = ["local_gap", "polynomial", "product", "product_or_zero", "quotient", "quotient_or_zero"]

product, product_or_zero = of_operands(rules.product), of_operands(rules.product_or_zero)
quotient, quotient_or_zero = of_operands(rules.quotient), of_operands(rules.quotient_or_zero)


def pull(step: Step, operation: Operation, multipliers: Sequence[Any]) -> list[Any]:
    """Multipliers of a step's varying inputs, from those of its outputs (None where there is none)."""
    if operation.kind in (LINEAR, SAME):
        return step.vjp(step.points(), multipliers)
    if operation.kind == MULTILINEAR:
        varying = sum(step.varying)
        return (
            step.vjp(step.points(), multipliers)
            if varying == 1
            else along_segment((varying + 1) // 2)(step, *multipliers)
        )
    if operation.kind in (QUADRATIC, SMOOTH):
        return along_segment(1 if operation.kind == QUADRATIC else SMOOTH_NODES)(step, *multipliers)
    if operation.kind == ELEMENTWISE:
        return step.unbroadcast(rescale(operation.secant)(step, *multipliers))
    assert operation.kind == CUSTOM
    return _own(step, operation, multipliers)


def _own(step: Step, operation: Operation, multipliers: Sequence[Any]) -> list[Any]:
    assert operation.rule is not None
    given = [
        step.run.pairing.blank(v, step.run.float_of(v)) if m is None else m
        for v, m in zip(step.results, multipliers, strict=True)
    ]
    result = operation.rule(step, *given)
    result = list(result) if isinstance(result, (list, tuple)) else [result]
    if len(result) != sum(step.varying):
        raise InputError(f"the rule of {step.name} returned {len(result)} multipliers for {sum(step.varying)} inputs.")
    for m, x in zip(result, [v.x for v in step.operands if v.active], strict=True):
        if m is not None and not isinstance(m, tf.Tensor):
            raise InputError(f"the rule of {step.name} returned {type(m).__name__}; a multiplier is a tensor or None.")
        if m is not None and not x.shape.is_compatible_with(m.shape):
            raise InputError(
                f"the rule of {step.name} returned a multiplier of shape {m.shape} for an input of shape {x.shape}: it must "
                "be of the input's shape."
            )
    return result


def total(*signs: int) -> Rule:
    """Build the sum of operands with signs: each gets the multiplier."""

    def rule(step: Step, multiplier: Any) -> list[Any]:
        given = signs or (1,) * len(step.operands)
        return step.shares(*(multiplier if sign > 0 else -multiplier for sign in given))

    return rule


def cast(step: Step, multiplier: Any) -> list[Any]:
    """The identity; a step where it rounds or asks whether a number is not 0."""
    given, made = step.operands[0].x.dtype, step.results[0].x.dtype
    rounds = given.is_floating and not (made.is_floating or made.is_complex)
    if rounds or (made == tf.bool and given != tf.bool):
        return rescale()(step, multiplier)
    return [tf.cast(multiplier, step.inputs[0].dtype)]


def select(step: Step, multiplier: Any) -> list[Any]:
    """See ``rules.select``. The old Select takes a vector as a condition for whole rows."""
    condition, a, b = step.sides()
    if step.name == "Select":
        condition = tuple(_as_rows(v, a[0]) for v in condition)
    if not step.varying[0]:
        chosen, nothing = condition[0] != 0, tf.zeros_like(multiplier)
        return step.shares(nothing, tf.where(chosen, multiplier, nothing), tf.where(chosen, nothing, multiplier))
    of_condition, *of_branches = rules.select(multiplier, condition, a, b)
    if step.name == "Select" and step.inputs[0].shape.rank != of_condition.shape.rank:
        of_condition = tf.reduce_sum(of_condition, list(range(1, of_condition.shape.rank)))
    return step.shares(of_condition, *of_branches)


def _as_rows(condition: Any, like: Any) -> Any:
    missing = like.shape.rank - condition.shape.rank
    return tf.reshape(condition, tf.concat([tf.shape(condition), [1] * missing], 0)) if missing else condition


# ---------------------------------------------------------------------- ids
def lookup(step: Step, multiplier: Any) -> list[Any]:
    """Rows of a table, chosen by ids: two-player Shapley of table and ids, the ids' share put on their change."""
    if not step.varying[1]:
        return step.vjp(step.points(), [multiplier])
    (ids, ids_r), pairing = step.sides()[1], step.run.pairing
    sides = pairing.spread(step.operands[1])
    tables = pairing.spread(step.operands[0]) if step.varying[0] else (step.operands[0].p,) * 2
    by_table = []
    if step.varying[0]:
        for side in sides:
            point = tf.identity(tables[0])
            (back,) = tf.gradients(_looked_up(step, point, side), point, multiplier)
            by_table.append(tf.convert_to_tensor(back) / 2)
    jump = rules.jump_of_lookup([[_looked_up(step, table, side) for side in sides] for table in tables])
    axis, batch_dims = _gather_axes(step, ids)
    own = set(range(batch_dims)) | set(range(axis, axis + ids.shape.rank - batch_dims))
    share = tf.reduce_sum(multiplier * jump, [k for k in range(jump.shape.rank) if k not in own])
    if axis != batch_dims:
        share = tf.reshape(share, tf.shape(ids))
    return [*([sum(by_table)] if by_table else []), rules.on_change(share, ids, ids_r)]


def _looked_up(step: Step, table: Any, ids: Any) -> Any:
    (found,) = step.run.emit(step.op, [table, ids, *(v.p for v in step.operands[2:])])
    return found


def _gather_axes(step: Step, ids: Any) -> tuple[int, int]:
    if step.name == "ResourceGather" or len(step.operands) < 3:
        return 0, 0
    rank, batch_dims = step.operands[0].x.shape.rank, step.op.get_attr("batch_dims")
    return int(step.static(2)) % rank, batch_dims % (ids.shape.rank + 1) if batch_dims < 0 else batch_dims


def one_hot(step: Step, multiplier: Any) -> list[Any]:
    """Rows of the identity, chosen by ids: what the multipliers explain of the change, put on the ids' change."""
    if step.varying != (True, False, False, False):
        raise UnsupportedOperationError(
            f"OneHot in {step.place} with on or off values that depend on the input has no rule."
        )
    ids, ids_r, made, made_r = values(step)
    return [rules.on_change(tf.reduce_sum(multiplier * (made - made_r), step.op.get_attr("axis")), ids, ids_r)]


# ---------------------------------------------------------------------- softmax
def _with_totals(rule: Callable[..., Any]) -> Rule:
    """Build a rule that takes the logsumexp of both sides as well."""

    def run(step: Step, multiplier: Any) -> list[Any]:
        z, r, y, yr = values(step)
        return [rule(multiplier, z, r, y, yr, *map(_total, (z, r)))]

    return run


def _total(z: Any) -> Any:
    return tf.reduce_logsumexp(z, -1, keepdims=True)


softmax, log_softmax = _with_totals(rules.softmax), _with_totals(rules.log_softmax)


def cross_entropy(step: Step, multiplier: Any, _: Any) -> list[Any]:
    """-sum(labels * log_softmax(logits)): half-splits of the products, then the rule of log_softmax."""
    (z, zr), (labels, labels_r) = step.sides()[:2]
    if step.name.startswith("Sparse"):
        if step.varying[1]:
            raise UnsupportedOperationError(
                f"{step.name} in {step.place} with labels that depend on the input has no rule."
            )
        labels = labels_r = tf.one_hot(step.operands[1].p, tf.shape(z)[-1], dtype=z.dtype)
    u, ur = (tf.nn.log_softmax(side) for side in (z, zr))
    by_labels, by_logs = rules.product(-tf.expand_dims(multiplier, -1), (labels, labels_r), (u, ur))
    of_logits = rules.log_softmax(by_logs, z, zr, u, ur, _total(z), _total(zr))
    return step.shares(of_logits, by_labels * tf.ones_like(labels))
