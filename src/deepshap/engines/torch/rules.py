"""The rules: each maps a step and its output multipliers to input multipliers.

Every rule keeps ``sum_k m_k * (input_k - reference_input_k) = m_out * (output - reference_output)``; that is all it
takes for a whole model to be complete. Formulas and sources: docs/mathematics.md.
"""

from __future__ import annotations

import itertools
from functools import cache
from math import comb
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import UnsupportedOperationError
from . import secants
from .operations import Rule, Secant, Step

SMOOTH_NODES = 32
MASKED = 1e4  # logits below its negative are masked


def rescale(secant: Secant | None = None) -> Rule:
    """Elementwise functions: the multiplier times the secant slope (Shrikumar et al. 2017).

    With several varying operands each gets its two-player Shapley share: its function averaged over the other
    operands being at the example and at the reference.
    """

    def rule(step: Step, multiplier: Tensor) -> list[Tensor]:
        if len(step.inputs) == 1:
            (x,), (r,), (y,), (yr,) = step.inputs, step.reference_inputs, step.outputs, step.reference_outputs
            if x.is_complex():
                raise UnsupportedOperationError(
                    f"{step.name} of complex numbers at {step.place} has no rule: write it with real and imaginary parts."
                )
            x, r = x.expand_as(y), r.expand_as(yr)
            slope = (secant or secants.of(step.evaluate))(x, r, y, yr)
            return [multiplier * slope]
        return [_share(step, multiplier, player) for player in range(len(step.inputs))]

    return rule


def _share(step: Step, multiplier: Tensor, player: int) -> Tensor:
    """Shapley share of one operand: its secant, averaged over the sides of the others in all orders."""
    players, sides = len(step.inputs), list(zip(step.reference_inputs, step.inputs, strict=True))
    others = [k for k in range(players) if k != player]

    def averaged(own: Tensor) -> Tensor:
        total = torch.zeros((), dtype=own.dtype, device=own.device)
        for choice in itertools.product((0, 1), repeat=len(others)):
            weight = 1 / (players * comb(players - 1, sum(choice)))
            values = {k: sides[k][side] for k, side in zip(others, choice, strict=True)} | {player: own}
            total = total + weight * step.evaluate(*(values[k] for k in range(players)))
        return total

    shape = torch.broadcast_shapes(step.outputs[0].shape, step.reference_outputs[0].shape)
    r, x = (side.expand(shape) for side in sides[player])
    return multiplier * secants.of(averaged)(x, r, averaged(x), averaged(r))


def along_segment(nodes: int) -> Rule:
    """The gradient averaged along the segment from reference to example, by Gauss-Legendre nodes.

    Exact for polynomials of degree ``2 * nodes``: one node, the midpoint, does products and everything quadratic.
    For other smooth functions this is the Aumann-Shapley rule (Sundararajan et al. 2017).
    """

    def rule(step: Step, *multipliers: Tensor) -> list[Tensor | None]:
        total: list[Tensor | None] = [None] * len(step.inputs)
        for position, weight in _gauss_legendre(nodes):
            with torch.enable_grad():
                points = [
                    torch.lerp(r, x, position).requires_grad_()
                    for x, r in zip(step.inputs, step.reference_inputs, strict=True)
                ]
                values = step.evaluate(*points)
            values = values if isinstance(values, (tuple, list)) else (values,)
            floats = [v for v in values if v.is_floating_point() or v.is_complex()]
            outputs = [(v, m) for v, m in zip(floats, multipliers, strict=True) if v.requires_grad]
            gradients = _gradient(step, outputs, points)
            for i, gradient in enumerate(gradients):
                if gradient is not None:
                    before = total[i]
                    total[i] = weight * gradient if before is None else before + weight * gradient
        return total

    return rule


def _gradient(step: Step, outputs: list[tuple[Tensor, Tensor]], points: list[Tensor]) -> tuple[Tensor | None, ...]:
    try:
        values, multipliers = zip(*outputs, strict=True)
        return torch.autograd.grad(values, points, multipliers, allow_unused=True)
    except (ValueError, RuntimeError) as error:
        raise UnsupportedOperationError(
            f"the rule of {step.name} at {step.place} asks for its derivative, and torch has none ({error}). Register it as "
            '"elementwise", or with a rule of its own.'
        ) from error


@cache
def _gauss_legendre(nodes: int) -> tuple[tuple[float, float], ...]:
    positions, weights = np.polynomial.legendre.leggauss(nodes)
    return tuple(((1 + float(p)) / 2, float(w) / 2) for p, w in zip(positions, weights, strict=True))


def product(step: Step, multiplier: Tensor) -> list[Tensor]:
    """A b, element by element: m mean(b) and m mean(a)."""
    (a, ar), (b, br) = step.operands()
    return [multiplier * _mean(b, br).conj(), multiplier * _mean(a, ar).conj()]


def matrix_product(step: Step, multiplier: Tensor) -> list[Tensor]:
    """A B over the last two axes: m mean(B)^T and mean(A)^T m."""
    (a, ar), (b, br) = step.operands()
    return [multiplier @ _mean(b, br).mH, _mean(a, ar).mH @ multiplier]


def _mean(x: Tensor, r: Tensor) -> Tensor:
    return torch.add(x, r).mul_(0.5)


def quotient(step: Step, multiplier: Tensor) -> list[Tensor]:
    """A / b as the product of a and 1 / b: m (1/b + 1/b_r) / 2 and -m (a + a_r) / (2 b b_r)."""
    (a, ar), (b, br) = (
        [torch.as_tensor(v, dtype=multiplier.dtype, device=multiplier.device) for v in sides]
        for sides in step.operands()
    )
    by_a, by_b = (1 / b + 1 / br) / 2, -(a + ar) / (2 * b * br)
    return step.shares(multiplier * by_a.conj(), multiplier * by_b.conj())


def ratio(step: Step, multiplier: Tensor) -> list[Tensor]:
    """A / b as what times b is a, for a vector over its norm: m / mean(b) and -m mean(y) / mean(b).

    As complete as ``quotient``, and bounded where the norm of one side vanishes.
    """
    _, (b, br) = step.operands()
    (y,), (yr,) = step.outputs, step.reference_outputs
    share = multiplier * 2 / (b + br)
    return step.shares(share, -share * (y + yr) / 2)


def select(step: Step, multiplier: Tensor) -> list[Tensor]:
    """C a + (1 - c) b with a condition c in {0, 1} that depends on the input: half-splits of two products."""
    (c, cr), (a, ar), (b, br) = step.operands()
    chosen = (c + cr).to(multiplier.dtype) / 2
    jump = torch.where(c == cr, 0.0, (a + ar - b - br) / 2)
    return step.shares(multiplier * jump, multiplier * chosen, multiplier * (1 - chosen))


def lookup(step: Step, multiplier: Tensor) -> list[Tensor]:
    """Rows of a table, chosen by ids: two-player Shapley of table and ids, the ids' share put on their change."""
    (table, table_r), (ids, ids_r) = step.operands()
    i, j = ids.long(), ids_r.long()
    jump = (table[i] - table[j] + table_r[i] - table_r[j]) / 2
    moved = torch.where(ids == ids_r, 1.0, ids - ids_r)
    explained = (multiplier * jump).sum(-1) / moved
    half = multiplier.flatten(0, -2) / 2
    back = torch.zeros_like(table).index_add(0, i.flatten(), half).index_add(0, j.flatten(), half)
    return [m for m, varies in zip((back, explained), step.varying, strict=True) if varies]


def logsumexp_weights(z: Tensor, r: Tensor, total: Tensor, total_r: Tensor) -> Tensor:
    """Slope of logsumexp with regard to each term.

    The slope of term i is ``secant_log(S, S_r) * secant_exp(z_i, r_i)`` with S the sum of exponentials. It is written
    with the normalised terms p = exp(z - total) of either side, so that no shift is needed and nothing overflows:
    ``p decay(d) / decay(D)`` with d = z - r and D = total - total_r, or the same with the sides exchanged, whichever has
    only decaying exponentials.
    """
    return _weights(_difference(z, r), torch.exp(z - total), torch.exp(r - total_r), total - total_r)


def _weights(d: Tensor, p: Tensor, pr: Tensor, D: Tensor) -> Tensor:
    scale = secants.decay(D)
    rising, falling = (torch.exp(side.clamp(max=0)) / scale for side in (D, -D))
    return torch.maximum(p * rising, pr * falling).mul_(secants.decay(d))


def _difference(z: Tensor, r: Tensor) -> Tensor:
    """Logits minus logits of the reference; those masked by -inf on both sides do not differ."""
    lowest = torch.finfo(z.dtype).min / 2
    return z.clamp(min=lowest) - r.clamp(min=lowest)


def logsumexp(step: Step, multiplier: Tensor) -> Tensor:
    """Over the last axis."""
    (z,), (r,), (total,), (total_r,) = step.inputs, step.reference_inputs, step.outputs, step.reference_outputs
    weights = logsumexp_weights(z, r, total.unsqueeze(-1), total_r.unsqueeze(-1))
    return multiplier.unsqueeze(-1) * weights


def log_softmax(step: Step, multiplier: Tensor) -> Tensor:
    """Z - logsumexp(z) over the last axis."""
    (z,), (r,), (u,), (ur,) = step.inputs, step.reference_inputs, step.outputs, step.reference_outputs
    assert step.reference is not None
    weights = _weights(_difference(z, r), torch.exp(u), torch.exp(ur), step.memory - step.reference.memory)
    return _normalise(step, multiplier, weights)


def softmax(step: Step, multiplier: Tensor) -> Tensor:
    """exp(log_softmax(z)) over the last axis: independent of a shift of both sides, finite under -inf masks."""
    (z,), (r,), (p,), (pr,) = step.inputs, step.reference_inputs, step.outputs, step.reference_outputs
    assert step.reference is not None
    d, D = _difference(z, r), step.memory - step.reference.memory
    change = d - D
    masked, masked_r = _masked_rows(step)
    if bool((masked | masked_r).any()):  # there the logits' own digits are lost in both terms
        change = torch.where(masked | masked_r, _change(z, r), change)
    slopes = torch.maximum(p, pr).mul_(secants.decay(change))
    return _normalise(step, multiplier * slopes, _weights(d, p, pr, D))


def _masked_rows(step: Step) -> tuple[Tensor, Tensor]:
    """Whether a row is masked as a whole, on either side; the step's memory is logsumexp(z)."""
    assert step.reference is not None
    return step.memory < -MASKED, step.reference.memory < -MASKED


def _change(z: Tensor, r: Tensor) -> Tensor:
    """Normalised logits minus those of the reference."""
    u, ur = (torch.log_softmax(side, -1) for side in (z, r))
    return torch.where(u == ur, 0.0, u - ur)


def _normalise(step: Step, multiplier: Tensor, weights: Tensor) -> Tensor:
    """Of the normalised logits."""
    (z,), (r,) = step.inputs, step.reference_inputs
    masked, masked_r = _masked_rows(step)
    found = multiplier - weights * multiplier.sum(-1, keepdim=True)
    if not bool((masked | masked_r).any()):
        return found
    # What stands for infinity has swallowed all logits of a row that is masked as a whole. Masked on one side, the row jumps
    # by it: each logit answers for its own output, and all that jump for those of the logits that were masked before. Masked
    # on both, none has an influence.
    jumps, shares = z != r, multiplier * _change(z, r)
    rest = shares.masked_fill(jumps, 0).sum(-1, keepdim=True) / jumps.sum(-1, keepdim=True).clamp(min=1)
    own = torch.where(jumps, (shares + rest) / torch.where(jumps, z - r, 1.0), 0.0)
    swallowed = masked & masked_r & ~jumps.any(-1, keepdim=True)
    return torch.where(masked != masked_r, own, torch.where(swallowed, 0.0, found))


def ordered(step: Step, multiplier: Tensor) -> Tensor:
    """Values sorted along the last axis: the share of the way from reference to example that an element holds a rank.

    Along the segment sorting only permutes, and the permutation changes where two elements cross; between crossings an
    element's slope is the multiplier of its rank. So the path integral (Aumann-Shapley) is a finite sum, and exact.
    """
    (x,), (r,) = step.inputs, step.reference_inputs
    result = torch.zeros_like(x)
    times = _crossings(r, x - r)
    for k in range(times.shape[-1] - 1):
        start, end = times[..., k : k + 1], times[..., k + 1 : k + 2]
        if not bool((end > start).any()):
            continue
        order = torch.argsort(torch.lerp(r, x, (start + end) / 2), dim=-1, stable=True)
        result.scatter_add_(-1, order, (end - start) * multiplier)
    return result


def _crossings(r: Tensor, change: Tensor) -> Tensor:
    """Sorted times in [0, 1], both ends included, at which two elements of ``r + t change`` are equal."""
    i, j = torch.triu_indices(r.shape[-1], r.shape[-1], 1, device=r.device)
    closing, apart = change[..., i] - change[..., j], r[..., j] - r[..., i]
    times = torch.where(closing == 0, 1.0, apart / torch.where(closing == 0, 1.0, closing))
    times = torch.where((times > 0) & (times < 1), times, 1.0)
    ends = [torch.zeros_like(r[..., :1]), torch.ones_like(r[..., :1])]
    return torch.cat([*ends, times], -1).sort(-1)[0]


def polynomial(step: Step, multiplier: Tensor) -> Any:
    """A polynomial whose degree is the size of the last axis (products, determinants), exact along the segment."""
    return along_segment(nodes=(step.inputs[0].shape[-1] + 1) // 2)(step, multiplier)


def greatest(step: Step, multiplier: Tensor) -> Tensor:
    """Cross-max over the last axis, for one greatest value or one per window.

    With ``y = x_i`` and ``y_r = r_j`` a rise goes to i and a fall to j; there the input changed at least as much as
    the output, so the slope is at most 1.
    """
    (x,), (r,), (y,), (yr,) = step.inputs, step.reference_inputs, step.outputs, step.reference_outputs
    assert step.reference is not None
    i, j = step.memory, step.reference.memory
    change, shape = y - yr, torch.broadcast_shapes(x.shape, r.shape)
    r_i, x_j = (v.expand(shape).gather(-1, at.expand_as(change)) for v, at in ((r, i), (x, j)))
    to_i = torch.where(i == j, 1.0, _quotient_where(change > 0, change, y - r_i))
    to_j = torch.where(i == j, 0.0, _quotient_where(change < 0, change, x_j - yr))
    result = multiplier.new_zeros(*multiplier.shape[:-1], shape[-1])
    result.scatter_add_(-1, i.expand_as(multiplier), multiplier * to_i)
    return result.scatter_add_(-1, j.expand_as(multiplier), multiplier * to_j)


def _quotient_where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a / torch.where(condition, b, 1.0), 0.0)


def local_gap(step: Step, multipliers: list[Tensor], result: tuple[Tensor | None, ...]) -> tuple[float, float]:
    """How far one step is from explaining its own outputs, and the size of what it explains."""
    explained = [
        inner(m, x - r) for m, x, r in zip(result, step.inputs, step.reference_inputs, strict=True) if m is not None
    ]
    wanted = [inner(m, y - yr) for m, y, yr in zip(multipliers, step.outputs, step.reference_outputs, strict=True)]
    gap = sum(float(e.sum()) for e in explained) - sum(float(w.sum()) for w in wanted)
    return abs(gap), sum(float(w.abs().sum()) for w in wanted)


def inner(multiplier: Tensor, difference: Tensor) -> Tensor:
    """What a multiplier explains of a difference; autograd's multipliers of complex values are conjugated."""
    product = multiplier.conj() * difference
    return product.real if product.is_complex() else product
