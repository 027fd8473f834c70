"""The rules for TensorFlow's operations: each maps a step and its output multipliers to input multipliers.

The formulas are those of ``deepshap.engines.torch.rules`` (docs/mathematics.md). Every rule keeps
``sum_k m_k * (input_k - reference_input_k) = m_out * (output - reference_output)``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import UnsupportedOperationError
from . import secants
from .operations import (
    CUSTOM,
    ELEMENTWISE,
    LINEAR,
    MULTILINEAR,
    QUADRATIC,
    SAME,
    SMOOTH,
    Operation,
    Rule,
    Secant,
    Step,
)

SMOOTH_NODES = 32
MASKED = 1e4  # logits below its negative are masked


def pull(step: Step, operation: Operation, multipliers: Sequence[Any]) -> list[Any]:
    """Multipliers of a step's varying inputs, from those of its outputs (None where there is none)."""
    if operation.kind in (LINEAR, SAME):
        return linear(step, *multipliers)
    if operation.kind == MULTILINEAR:
        varying = sum(step.varying)
        return linear(step, *multipliers) if varying == 1 else along_segment((varying + 1) // 2)(step, *multipliers)
    if operation.kind == QUADRATIC:
        return along_segment(1)(step, *multipliers)
    if operation.kind == SMOOTH:
        return along_segment(SMOOTH_NODES)(step, *multipliers)
    if operation.kind == ELEMENTWISE:
        return rescale(operation.secant)(step, *multipliers)
    assert operation.kind == CUSTOM
    assert operation.rule is not None
    given = [
        step.walk.pairing.blank(v, step.walk.float_of(v)) if m is None else m
        for v, m in zip(step.results, multipliers, strict=True)
    ]
    result = operation.rule(step, *given)
    result = list(result) if isinstance(result, (list, tuple)) else [result]
    if len(result) != sum(step.varying):
        raise TypeError(f"the rule of {step.name} returned {len(result)} multipliers for {sum(step.varying)} inputs")
    for m, x in zip(result, step.inputs, strict=True):
        if m is not None and not x.shape.is_compatible_with(m.shape):
            raise TypeError(
                f"the rule of {step.name} returned a multiplier of shape {m.shape} for an input of shape {x.shape}"
            )
    return result


def linear(step: Step, *multipliers: Any) -> list[Any]:
    """The adjoint: the ordinary gradient."""
    points = step.points()
    return _gradients(step, step.linearised(*points), points, multipliers)


def _gradients(step: Step, values: Sequence[Any], points: list[Any], multipliers: Sequence[Any]) -> list[Any]:
    pairs = [(v, tf.cast(m, v.dtype)) for v, m in zip(values, multipliers, strict=True) if m is not None]
    try:
        gradients = tf.gradients([v for v, _ in pairs], points, [m for _, m in pairs])
    except LookupError as error:
        raise UnsupportedOperationError(
            f"the rule of {step.name} in {step.place} asks for its derivative, and TensorFlow has none ({error}). Register it "
            'as "elementwise", or with a rule of its own.'
        ) from error
    return [None if g is None else tf.convert_to_tensor(g) for g in gradients]


def along_segment(nodes: int) -> Rule:
    """The gradient averaged along the segment from reference to example, by Gauss-Legendre nodes.

    Exact for polynomials of degree ``2 * nodes``: one node, the midpoint, does products and everything quadratic.
    For other smooth functions this is the Aumann-Shapley rule (Sundararajan et al. 2017).
    """

    def rule(step: Step, *multipliers: Any) -> list[Any]:
        total: list[Any] = [None] * len(step.inputs)
        for position, weight in _gauss_legendre(nodes):
            points = [
                0.5 * (x + r) if nodes == 1 else r + tf.constant(position, x.dtype) * (x - r)
                for x, r in zip(step.inputs, step.reference_inputs, strict=True)
            ]
            for i, gradient in enumerate(_gradients(step, step.linearised(*points), points, multipliers)):
                if gradient is not None:
                    share = gradient if nodes == 1 else tf.constant(weight, gradient.dtype) * gradient
                    total[i] = share if total[i] is None else total[i] + share
        return total

    return rule


@cache
def _gauss_legendre(nodes: int) -> tuple[tuple[float, float], ...]:
    positions, weights = np.polynomial.legendre.leggauss(nodes)
    return tuple(((1 + float(p)) / 2, float(w) / 2) for p, w in zip(positions, weights, strict=True))


def rescale(secant: Secant | None = None) -> Rule:
    """Elementwise functions: the multiplier times the secant slope (Shrikumar et al. 2017).

    With several varying operands each gets its Shapley share: its function averaged over the other operands being at
    the example and at the reference.
    """

    def rule(step: Step, multiplier: Any) -> list[Any]:
        if len(step.inputs) > 1:
            return [_share(step, multiplier, player) for player in range(len(step.inputs))]
        (x,), (r,), (y,), (yr,) = step.inputs, step.reference_inputs, step.outputs, step.reference_outputs
        if x.dtype.is_complex:
            raise UnsupportedOperationError(
                f"{step.name} of complex numbers in {step.place} has no rule: write it with real and imaginary parts."
            )
        if len(step.operands) > 1:
            x, r = (tf.broadcast_to(v, tf.shape(y)) for v in (x, r))
        slope = (secant or secants.of(step.evaluate))(x, r, *(tf.cast(v, x.dtype) for v in (y, yr)))
        share = tf.cast(multiplier, x.dtype) * (slope if secant else finite(slope))
        return [share if len(step.operands) == 1 else step.unbroadcast(share, _varying(step)[0])]

    return rule


def _varying(step: Step) -> list[Any]:
    return [v for v in step.operands if v.active]


def _share(step: Step, multiplier: Any, player: int) -> Any:
    """Shapley share of one operand: its secant, averaged over the sides of the others in all orders."""
    players, shape = len(step.inputs), tf.shape(step.outputs[0])
    sides = list(zip(step.reference_inputs, step.inputs, strict=True))
    others = [k for k in range(players) if k != player]

    def averaged(own: Any) -> Any:
        total: Any = 0
        for choice in itertools.product((0, 1), repeat=len(others)):
            weight = tf.constant(1 / (players * math.comb(players - 1, sum(choice))), own.dtype)
            values = {k: sides[k][side] for k, side in zip(others, choice, strict=True)} | {player: own}
            total = total + weight * tf.cast(step.evaluate(*(values[k] for k in range(players))), own.dtype)
        return total

    r, x = (tf.broadcast_to(side, shape) for side in sides[player])
    slope = secants.of(averaged)(x, r, averaged(x), averaged(r))
    return step.unbroadcast(tf.cast(multiplier, x.dtype) * finite(slope), _varying(step)[player])


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


def product(step: Step, multiplier: Any) -> list[Any]:
    """Two factors, element by element: each gets the mean of the other (half-split)."""
    (a, ar), (b, br) = (step.operand(k) for k in range(2))
    return step.shares(
        *(multiplier * (v if v is vr else 0.5 * (v + vr)) for v, vr in ((b, br), (a, ar))),
    )


def quotient(step: Step, multiplier: Any) -> list[Any]:
    """A / b as the product of a and 1 / b: m (1/b + 1/b_r) / 2 and -m (a + a_r) / (2 b b_r)."""
    (a, ar), (b, br) = (step.operand(k) for k in range(2))
    by_a, by_b = (1 / b + 1 / br) / 2, -(a + ar) / (2 * b * br)
    return step.shares(multiplier * tf.math.conj(by_a), multiplier * tf.math.conj(by_b))


def quotient_or_zero(step: Step, multiplier: Any) -> list[Any]:
    """As the quotient, but 0 where the divisor is 0: the product of a and that reciprocal."""
    (a, ar), (b, br) = (step.operand(k) for k in range(2))
    inverse, inverse_r = (tf.math.divide_no_nan(tf.ones_like(v), v) for v in (b, br))
    slope = secants.guarded(b != br, inverse - inverse_r, b - br, -inverse * inverse_r)
    slope = tf.where((b != 0) & (br != 0), -inverse * inverse_r, slope)
    return step.shares(multiplier * (inverse + inverse_r) / 2, multiplier * (a + ar) / 2 * slope)


def product_or_zero(step: Step, multiplier: Any) -> list[Any]:
    """A product that is 0 wherever the second factor is."""
    (a, ar), (b, br) = (step.operand(k) for k in range(2))
    (a, ar) = (tf.where(zero == 0, tf.zeros_like(v), v) for v, zero in ((a, b), (ar, br)))
    return step.shares(multiplier * 0.5 * (b + br), multiplier * 0.5 * (a + ar))


def select(step: Step, multiplier: Any) -> list[Any]:
    """C a + (1 - c) b with a condition c in {0, 1} that depends on the input: half-splits of two products."""
    (c, cr), (a, ar), (b, br) = (step.operand(k) for k in range(3))
    if step.name == "Select":
        c, cr = (_as_rows(v, a) for v in (c, cr))
    if not step.varying[0]:
        c, nothing = c != 0, tf.zeros_like(multiplier)
        return step.shares(nothing, tf.where(c, multiplier, nothing), tf.where(c, nothing, multiplier))
    chosen = tf.cast(c + cr, multiplier.dtype) / 2
    jump = tf.where(c == cr, tf.zeros((), a.dtype), (a + ar - b - br) / 2)
    of_condition = multiplier * jump
    if step.name == "Select" and step.inputs[0].shape.rank != of_condition.shape.rank:
        of_condition = tf.reduce_sum(of_condition, list(range(1, of_condition.shape.rank)))
    return step.shares(of_condition, multiplier * chosen, multiplier * (1 - chosen))


def _as_rows(condition: Any, like: Any) -> Any:
    """The old Select takes a vector as a condition for whole rows."""
    missing = like.shape.rank - condition.shape.rank
    return tf.reshape(condition, tf.concat([tf.shape(condition), [1] * missing], 0)) if missing else condition


def lookup(step: Step, multiplier: Any) -> list[Any]:
    """Rows of a table, chosen by ids: two-player Shapley of table and ids, the ids' share put on their change."""
    by_table = []
    if not step.varying[1]:
        return linear(step, multiplier)
    ids, ids_r = step.operand(1)
    sides = step.walk.pairing.spread(step.operands[1])
    tables = step.walk.pairing.spread(step.operands[0]) if step.varying[0] else (step.operands[0].p,) * 2
    if step.varying[0]:
        for side in sides:
            point = tf.identity(tables[0])
            (back,) = tf.gradients(_looked_up(step, point, side), point, multiplier)
            by_table.append(tf.convert_to_tensor(back) / 2)
    rows = [[_looked_up(step, table, side) for side in sides] for table in tables]
    jump = (rows[0][0] - rows[0][1] + rows[1][0] - rows[1][1]) / 2
    axis, batch_dims = _gather_axes(step, ids)
    width = ids.shape.rank - batch_dims
    own = set(range(batch_dims)) | set(range(axis, axis + width))
    share = tf.reduce_sum(multiplier * jump, [k for k in range(jump.shape.rank) if k not in own])
    moved = tf.where(ids == ids_r, tf.ones_like(ids), ids - ids_r)
    if axis != batch_dims:
        share = tf.reshape(share, tf.shape(ids))
    explained = tf.cast(share, ids.dtype) / moved
    return [*([sum(by_table)] if by_table else []), explained]


def _looked_up(step: Step, table: Any, ids: Any) -> Any:
    (found,) = step.walk.emit(step.op, [table, ids, *(v.p for v in step.operands[2:])])
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
    ids, ids_r = step.operand(0)
    axis = step.op.get_attr("axis")
    change = multiplier * (step.outputs[0] - step.reference_outputs[0])
    moved = tf.where(ids == ids_r, tf.ones_like(ids), ids - ids_r)
    return [tf.cast(tf.reduce_sum(change, axis), ids.dtype) / moved]


# ---------------------------------------------------------------------- softmax and logsumexp
def logsumexp_weights(z: Any, r: Any, total: Any, total_r: Any) -> Any:
    """Slope of logsumexp with regard to each term; see ``deepshap.engines.torch.rules.logsumexp_weights``.

    The normalised terms exp(z - total) are softmax's, which keeps their digits when all logits are large.
    """
    d = tf.where(z == r, tf.zeros_like(z), z - r)  # masked terms are -inf on both sides
    D = total - total_r
    rising, grown = d >= 0, D >= 0
    base = tf.where(rising, tf.nn.softmax(z), tf.nn.softmax(r)) * secants.expm1c(-tf.abs(d))
    crossing = tf.where(tf.equal(rising, grown), tf.ones_like(d), tf.exp(-tf.abs(D)) * tf.ones_like(d))
    return base * crossing / secants.expm1c(-tf.abs(D))


def log_softmax(step: Step, multiplier: Any) -> list[Any]:
    """Z - logsumexp(z) over the last axis."""
    return [_normalise(step.inputs[0], step.reference_inputs[0], multiplier)]


def softmax(step: Step, multiplier: Any) -> list[Any]:
    """exp(log_softmax(z)) over the last axis: independent of a shift of both sides, finite under -inf masks."""
    (z,), (r,), (p,), (pr,) = step.inputs, step.reference_inputs, step.outputs, step.reference_outputs
    return [_softmax(z, r, p, pr, multiplier)]


def _softmax(z: Any, r: Any, p: Any, pr: Any, multiplier: Any) -> Any:
    u, ur = (tf.nn.log_softmax(side) for side in (z, r))
    u, ur = (tf.where(tf.math.is_finite(side), side, tf.zeros_like(side)) for side in (u, ur))
    masked = (p == 0) & (pr == 0)
    slope = tf.where(masked, tf.zeros_like(p), secants.exp(u, ur, p, pr))
    return _normalise(z, r, multiplier * slope)


def _normalise(z: Any, r: Any, multiplier: Any) -> Any:
    totals = (tf.reduce_logsumexp(side, -1, keepdims=True) for side in (z, r))
    weights = logsumexp_weights(z, r, *totals)
    found = multiplier - weights * tf.reduce_sum(multiplier, -1, keepdims=True)
    sides = [tf.reduce_all(side < -MASKED, -1, keepdims=True) for side in (z, r)]
    return tf.cond(
        tf.reduce_any(sides[0] | sides[1]), lambda: _of_masked_rows(z, r, multiplier, sides, found), lambda: found
    )


def _of_masked_rows(z: Any, r: Any, multiplier: Any, masked: Sequence[Any], otherwise: Any) -> Any:
    """Rows of logits that are masked as a whole, by a number that stands for -inf and has swallowed the logits.

    Masked on one side, the row jumps by that number: each logit answers for its own output, and all that jump for those
    of the logits that were masked before. Masked on both, none has an influence. See ``deepshap.engines.torch.rules``.
    """
    u, ur = (tf.nn.log_softmax(side) for side in (z, r))
    jumps, nothing = z != r, tf.zeros_like(z)
    shares = multiplier * tf.where(u == ur, nothing, u - ur)
    others = tf.reduce_sum(tf.where(jumps, nothing, shares), -1, keepdims=True)
    count = tf.reduce_sum(tf.cast(jumps, z.dtype), -1, keepdims=True)
    own = secants.guarded(jumps, shares + others / tf.maximum(count, 1), z - r, nothing)
    swallowed = masked[0] & masked[1] & (count == 0)
    return tf.where(masked[0] != masked[1], own, tf.where(swallowed, nothing, otherwise))


def cross_entropy(step: Step, multiplier: Any, _: Any) -> list[Any]:
    """-sum(labels * log_softmax(logits)): half-splits of the products, then the rule of log_softmax."""
    (z, zr), (labels, labels_r) = (step.operand(k) for k in range(2))
    if step.name.startswith("Sparse"):
        if step.varying[1]:
            raise UnsupportedOperationError(
                f"{step.name} in {step.place} with labels that depend on the input has no rule."
            )
        labels = labels_r = tf.one_hot(step.operands[1].p, tf.shape(z)[-1], dtype=z.dtype)
    u, ur = (tf.nn.log_softmax(side) for side in (z, zr))
    m = tf.expand_dims(multiplier, -1)
    of_logits = _normalise(z, zr, -m * (labels + labels_r) / 2)
    return step.shares(of_logits, -m * (u + ur) / 2 * tf.ones_like(labels))


# ---------------------------------------------------------------------- checks
def finite(slope: Any) -> Any:
    """An infinite slope belongs to an operand that did not change (sqrt at 0 on both sides): it explains nothing."""
    return tf.where(tf.math.is_inf(slope), tf.zeros_like(slope), slope)


def local_gap(step: Step, multipliers: Sequence[Any], result: Sequence[Any]) -> tuple[Any, Any]:
    """How far one step is from explaining its own outputs, and the size of what it explains."""
    explained = [
        _inner(m, x, r) for m, x, r in zip(result, step.inputs, step.reference_inputs, strict=True) if m is not None
    ]
    wanted = [
        _inner(m, y, yr)
        for m, y, yr in zip(multipliers, step.outputs, step.reference_outputs, strict=True)
        if m is not None
    ]
    gap = sum(tf.reduce_sum(e) for e in explained) - sum(tf.reduce_sum(w) for w in wanted)
    return tf.abs(gap), sum(tf.reduce_sum(tf.abs(w)) for w in wanted)


def _inner(multiplier: Any, x: Any, r: Any) -> Any:
    product = tf.math.conj(multiplier) * tf.cast(tf.where(x == r, tf.zeros_like(x), x - r), multiplier.dtype)
    return tf.cast(tf.math.real(product), tf.float64)
