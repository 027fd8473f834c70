"""The rules of PyTorch's operations: the formulas of ``formulas.rules``, applied to the layout of torch's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...formulas import namespace, rules, secants
from ...formulas.rules import SMOOTH_NODES
from .. import operation_record
from ..operation_record import along_segment, of_operands, polynomial, rescale, values
from . import windows
from .operations import OperationRecord

__all__ = ["SMOOTH_NODES", "along_segment", "polynomial", "product", "quotient", "ratio", "rescale", "select"]

product, select = of_operands(rules.product), of_operands(rules.select)

_BY_EXPONENT = {
    2: secants.square,
    3: secants.cube,
    0.5: secants.sqrt,
    -0.5: secants.rsqrt,
    -1: secants.reciprocal,
    None: None,
}
_POWERS = {exponent: rescale(secant) for exponent, secant in _BY_EXPONENT.items()}


def matrix_product(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """Apply y = a b over the last two axes: m mean(b)^H and mean(a)^H m."""
    a, b = (_conjugate_transpose(rules.mean(side)) for side in record.sides())
    return [multiplier @ b, a @ multiplier]


def _conjugate_transpose(matrix: Any) -> Any:
    """Return the conjugate transpose."""
    return namespace(matrix).conj(matrix.swapaxes(-2, -1))


def quotient(record: OperationRecord, multiplier: Any) -> list[Any]:
    """Apply ``rules.quotient``; either operand may be a number or an integer tensor."""
    a, b = (tuple(_as_dtype_of(multiplier, v) for v in sides) for sides in record.sides())
    return record.shares(*rules.quotient(multiplier, a, b))


def _as_dtype_of(like: Any, values: Any) -> Any:
    """Convert numbers to the dtype of others."""
    if isinstance(like, np.ndarray):
        return np.asarray(values, like.dtype)
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def power(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """Apply the closed form of the exponent, if it has one."""
    exponent = record.arguments[1] if len(record.arguments) == 2 else None
    closed = isinstance(exponent, (int, float)) and not hasattr(record.function, "wraps_around")
    return _POWERS.get(exponent if closed else None, _POWERS[None])(record, multiplier)


def ratio(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """Apply ``rules.ratio``."""
    _, norm = record.sides()
    return record.shares(*rules.ratio(multiplier, norm, (record.outputs[0], record.reference_outputs[0])))


def lookup(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """Apply the two-player Shapley value of a table and ids that select its rows; the ids' share belongs to their change."""
    (table, table_r), (ids, ids_r) = record.sides()
    i, j = ids.long(), ids_r.long()
    jump = rules.lookup_change([[t[i], t[j]] for t in (table, table_r)])
    explained = rules.per_change(rules.contribution_of(multiplier, jump).sum(-1), ids, ids_r)
    half = multiplier.flatten(0, -2) / 2
    back = torch.zeros_like(table).index_add(0, i.flatten(), half).index_add(0, j.flatten(), half)
    return record.shares(back, explained)


def rows(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Apply ``lookup`` to a table that does not depend on the explained input."""
    (table, _), sides = record.sides()
    ids, ids_r = (side.flatten(0, table.dim() - 1) for side in sides)  # without the axes that only the table has
    jump = table[ids.long()] - table[ids_r.long()]
    return rules.per_change(rules.contribution_of(multiplier, jump).sum(-1), ids, ids_r)


def topk_indices(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Apply ``rules.topk_indices``."""
    return rules.topk_indices(multiplier, *values(record))


def share_coordinates(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """Apply ``rules.share_coordinates``."""
    explained = multiplier * (record.outputs[0] - record.reference_outputs[0])
    return record.shares(*rules.share_coordinates(explained, record.sides()))


def gathered(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """Apply ``lookup`` to values at positions along an axis, with a table for each row."""
    (v, v_r), (p, p_r), (dim, _) = record.sides()
    i, j = p.long(), p_r.long()
    jump = rules.lookup_change([[t.gather(dim, i), t.gather(dim, j)] for t in (v, v_r)])
    half = multiplier / 2
    back = half.new_zeros(v.shape)
    back = back.scatter_add(dim, i, half).scatter_add(dim, j, half)
    return record.shares(back, rules.per_change(rules.contribution_of(multiplier, jump), p, p_r))


def added(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """Apply the rule of values added at positions: their multiplier is the mean of both choices."""
    values_, (p, p_r), (dim, _), _ = record.sides()
    at, at_r = (multiplier.gather(dim, q.long()) for q in (p, p_r))
    return record.shares(
        (at + at_r) / 2, rules.per_change(rules.contribution_of(at - at_r, rules.mean(values_)), p, p_r)
    )


def logsumexp(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Apply ``rules.logsumexp`` over the last axis."""
    z, r, *totals = values(record)
    return rules.logsumexp(multiplier[..., None], z, r, *[t[..., None] for t in totals])


def log_softmax(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Apply ``rules.log_softmax`` over the last axis; the record's memory is logsumexp(z)."""
    return rules.log_softmax(multiplier, *values(record), *record.memories)


def softmax(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Apply ``rules.softmax`` over the last axis; the record's memory is logsumexp(z)."""
    return rules.softmax(multiplier, *values(record), *record.memories)


def standardize(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Apply ``rules.standardize`` over the last axis, times a weight; the record's memory is (standardized values, divisors)."""
    _, weight, _, _, centred = record.arguments
    m = multiplier if weight is None else multiplier * weight
    y, size = zip(*record.memories, strict=True)
    return rules.standardize(m, y, size, centred)


def attention(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """Apply the rules of two products and of softmax to y = softmax(scale q k^T + mask) v."""
    (q, k, v), (z, *rest) = (list(map(rules.mean, record.sides()[:3])), zip(*record.memories, strict=True))
    p, total = rest
    m = rules.softmax(multiplier @ v.swapaxes(-2, -1), *z, *p, *total) * record.arguments[3]
    return record.shares(m @ k, m.swapaxes(-2, -1) @ q, rules.mean(p).swapaxes(-2, -1) @ multiplier)


def window_max(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Apply the maximum in windows of the last axis; the record's memory is ``Windows.marked``."""
    x, r, y, yr = values(record)
    (i, several), (j, several_r) = map(windows.split_ties, record.memories)
    if not (several & (y >= yr) | several_r & (y <= yr)).any():
        return rules.window_max(multiplier, x, r, i, j)
    m_x = multiplier.new_zeros(*multiplier.shape[:-1], x.shape[-1])
    for at, positions in record.arguments[1].parts(x):
        sides = (windows.gather_positions(v, positions) for v in (x, r))
        windows.scatter_back(m_x, positions, rules.maximum(multiplier[..., at, None], *sides))
    return m_x


def group_max(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Apply the maximum of groups along the last axis; the record's memory is the number of each element's group."""
    x, r, y, yr = values(record)
    groups, _ = record.memories

    def at_groups(v: Tensor) -> Tensor:
        return torch.take_along_dim(v, groups[(None,) * (v.dim() - groups.dim())], -1)

    def group_sums(v: Tensor) -> Tensor:
        return at_groups(v.new_zeros(*v.shape[:-1], y.shape[-1]).scatter_add_(-1, groups.expand_as(v), v))

    return at_groups(multiplier) * rules.max_slopes(x, r, at_groups(y), at_groups(yr), group_sums)


def maximum(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Apply the maximum over the last axis, which is reduced."""
    return rules.maximum(multiplier[..., None], record.inputs[0], record.reference_inputs[0])


def sort(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Apply sorting along the last axis."""
    return rules.sort(multiplier, record.inputs[0], record.reference_inputs[0])


def local_gap(
    record: OperationRecord, multipliers: Sequence[Tensor | None], result: Sequence[Tensor | None]
) -> tuple[float, float]:
    """Return how far one operation is from explaining its own outputs, and the size of what it explains."""
    gap, size = operation_record.local_gap(record, multipliers, result)
    return float(gap), float(size)
