"""The rules of PyTorch's operations: what the mathematics wants of a step, and what of the layout is torch's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...formulas import rules, secants
from ...formulas.namespace import namespace
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
    """y = a b over the last two axes: m mean(b)^H and mean(a)^H m."""
    a, b = (_turned(rules.mean(side)) for side in record.sides())
    return [multiplier @ b, a @ multiplier]


def _turned(matrix: Any) -> Any:
    """The conjugate transpose."""
    return namespace(matrix).conj(matrix.swapaxes(-2, -1))


def quotient(record: OperationRecord, multiplier: Any) -> list[Any]:
    """See ``rules.quotient``; either operand may be a number, or of integers."""
    a, b = (tuple(_in_dtype_of(multiplier, v) for v in sides) for sides in record.sides())
    return record.shares(*rules.quotient(multiplier, a, b))


def _in_dtype_of(like: Any, values: Any) -> Any:
    """Numbers in the dtype of others."""
    if isinstance(like, np.ndarray):
        return np.asarray(values, like.dtype)
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def power(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """By the closed form, where the exponent has one."""
    exponent = record.arguments[1] if len(record.arguments) == 2 else None
    closed = isinstance(exponent, (int, float)) and not hasattr(record.function, "wraps_around")
    return _POWERS.get(exponent if closed else None, _POWERS[None])(record, multiplier)


def ratio(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """See ``rules.ratio``."""
    _, norm = record.sides()
    return record.shares(*rules.ratio(multiplier, norm, (record.outputs[0], record.reference_outputs[0])))


def lookup(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """Rows of a table, chosen by ids: two-player Shapley of table and ids, the ids' share put on their change."""
    (table, table_r), (ids, ids_r) = record.sides()
    i, j = ids.long(), ids_r.long()
    jump = rules.lookup_change([[t[i], t[j]] for t in (table, table_r)])
    explained = rules.per_change(rules.contribution_of(multiplier, jump).sum(-1), ids, ids_r)
    half = multiplier.flatten(0, -2) / 2
    back = torch.zeros_like(table).index_add(0, i.flatten(), half).index_add(0, j.flatten(), half)
    return record.shares(back, explained)


def rows(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """As ``lookup``, in a table that does not depend on what is explained."""
    (table, _), sides = record.sides()
    ids, ids_r = (side.flatten(0, table.dim() - 1) for side in sides)  # without the axes for which ids have none
    jump = table[ids.long()] - table[ids_r.long()]
    return rules.per_change(rules.contribution_of(multiplier, jump).sum(-1), ids, ids_r)


def topk_indices(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """See ``rules.topk_indices``."""
    return rules.topk_indices(multiplier, *values(record))


def share_coordinates(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """See ``rules.share_coordinates``."""
    explained = multiplier * (record.outputs[0] - record.reference_outputs[0])
    return record.shares(*rules.share_coordinates(explained, record.sides()))


def gathered(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """Values at positions along an axis: as ``lookup``, with a table for each row."""
    (v, v_r), (p, p_r), (dim, _) = record.sides()
    i, j = p.long(), p_r.long()
    jump = rules.lookup_change([[t.gather(dim, i), t.gather(dim, j)] for t in (v, v_r)])
    half = multiplier / 2
    back = half.new_zeros(v.shape)
    back = back.scatter_add(dim, i, half).scatter_add(dim, j, half)
    return record.shares(back, rules.per_change(rules.contribution_of(multiplier, jump), p, p_r))


def added(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """Values added at positions along an axis: the values meet the mean multiplier of both choices."""
    values_, (p, p_r), (dim, _), _ = record.sides()
    at, at_r = (multiplier.gather(dim, q.long()) for q in (p, p_r))
    return record.shares(
        (at + at_r) / 2, rules.per_change(rules.contribution_of(at - at_r, rules.mean(values_)), p, p_r)
    )


def logsumexp(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Over the last axis."""
    z, r, *totals = values(record)
    return rules.logsumexp(multiplier[..., None], z, r, *[t[..., None] for t in totals])


def log_softmax(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Over the last axis; the step's memory is logsumexp(z)."""
    return rules.log_softmax(multiplier, *values(record), *record.memories)


def softmax(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Over the last axis; the step's memory is logsumexp(z)."""
    return rules.softmax(multiplier, *values(record), *record.memories)


def standardize(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Over the last axis, times a weight; the step's memory is the standardised values and what they were divided by."""
    _, weight, _, _, centred = record.arguments
    m = multiplier if weight is None else multiplier * weight
    y, size = zip(*record.memories, strict=True)
    return rules.standardize(m, y, size, centred)


def attention(record: OperationRecord, multiplier: Tensor) -> list[Tensor]:
    """y = softmax(scale q k^T + mask) v: the rules of two products and of softmax, one after the other."""
    (q, k, v), (z, *rest) = (list(map(rules.mean, record.sides()[:3])), zip(*record.memories, strict=True))
    p, total = rest
    m = rules.softmax(multiplier @ v.swapaxes(-2, -1), *z, *p, *total) * record.arguments[3]
    return record.shares(m @ k, m.swapaxes(-2, -1) @ q, rules.mean(p).swapaxes(-2, -1) @ multiplier)


def window_max(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """In windows of the last axis; the step's memory is ``Windows.marked``."""
    x, r, y, yr = values(record)
    (i, several), (j, several_r) = map(windows.told, record.memories)
    if not (several & (y >= yr) | several_r & (y <= yr)).any():
        return rules.window_max(multiplier, x, r, i, j)
    found = multiplier.new_zeros(*multiplier.shape[:-1], x.shape[-1])
    for at, positions in record.arguments[1].parts(x):
        sides = (windows.taken(v, positions) for v in (x, r))
        windows.given_back(found, positions, rules.maximum(multiplier[..., at, None], *sides))
    return found


def group_max(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Along the last axis; the step's memory is the number of each element's group."""
    x, r, y, yr = values(record)
    groups, _ = record.memories

    def of_own(v: Tensor) -> Tensor:
        return torch.take_along_dim(v, groups[(None,) * (v.dim() - groups.dim())], -1)

    def counted(v: Tensor) -> Tensor:
        return of_own(v.new_zeros(*v.shape[:-1], y.shape[-1]).scatter_add_(-1, groups.expand_as(v), v))

    return of_own(multiplier) * rules.max_slopes(x, r, of_own(y), of_own(yr), counted)


def maximum(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Over the last axis, which is gone."""
    return rules.maximum(multiplier[..., None], record.inputs[0], record.reference_inputs[0])


def sort(record: OperationRecord, multiplier: Tensor) -> Tensor:
    """Along the last axis."""
    return rules.sort(multiplier, record.inputs[0], record.reference_inputs[0])


def local_gap(
    record: OperationRecord, multipliers: Sequence[Tensor | None], result: Sequence[Tensor | None]
) -> tuple[float, float]:
    """How far one step is from explaining its own outputs, and the size of what it explains."""
    gap, size = operation_record.local_gap(record, multipliers, result)
    return float(gap), float(size)
