"""Scattering to fixed positions: write, sum, multiply, or take the maximum at each position."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ....errors import UnsupportedOperationError
from .. import rules
from ..calls import place_of_call
from ..operations import LINEAR, TO_PYTHON, Operation, OperationRecord, primitive


def scatter(input: Tensor, dim: int, index: Tensor, *args: Any, reduce: str | None = None, **kwargs: Any) -> Tensor:
    """Scatter values. A source is cropped to the shape of the index, which torch's gradient requires."""
    source = _crop_to_index(kwargs.get("src", kwargs.get("value", args[0] if args else None)), index)
    if reduce == "multiply":
        raise UnsupportedOperationError(
            f"scatter with reduce='multiply' at {place_of_call()} has no rule: write scatter_reduce(..., 'prod'), which has."
        )
    return torch.scatter(input, dim, index, source) if reduce is None else torch.scatter_add(input, dim, index, source)


def expand_index(index: Tensor, dim: int, source: Tensor) -> Tensor:
    """Expand the index of slices along an axis to an index of every value of a source."""
    return index.reshape([-1 if axis == dim % source.dim() else 1 for axis in range(source.dim())]).expand(source.shape)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Return sums of scattered values."""
    return torch.scatter_add(input, dim, index, _crop_to_index(src, index))


@primitive(lambda record, m: m)
def _scatter_linear(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, include_self: bool) -> Tensor:
    return torch.scatter_reduce(input, dim, index, _crop_to_index(src, index), reduce, include_self=include_self)


_scatter_linear.operation = Operation(LINEAR, function=_scatter_linear.operation.function, indices=True)  # type: ignore[attr-defined]


@primitive(lambda record, m: m)
def require_equal_index(index: Tensor) -> Tensor:
    """Return an index that must be the same in example and reference."""
    return index


require_equal_index.operation = Operation(TO_PYTHON, function=require_equal_index.operation.function)  # type: ignore[attr-defined]


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Return sums, means, products or extremes of scattered values."""
    if reduce in ("sum", "mean"):
        return _scatter_linear(input, dim, index, src, reduce, include_self)
    if reduce == "amin":
        return -scatter_reduce(-input, dim, index, -src, "amax", include_self=include_self)
    index = require_equal_index(index)
    if reduce == "prod":
        return _scatter_product(input, dim, index, src, include_self)
    inner = tuple(slice(size) for axis, size in enumerate(index.shape) if axis != dim % input.dim())
    index_last, sources, targets = (t.movedim(dim, -1) for t in (index, _crop_to_index(src, index), input))
    own_positions = torch.arange(targets.shape[-1], device=index.device).expand(*index_last.shape[:-1], -1)
    to, among = torch.cat([own_positions, index_last], -1), torch.cat([targets[inner], sources], -1)
    if not include_self:  # values of the input count only where nothing is scattered
        to = _drop_overwritten(to, targets.shape[-1])
    extremes = _group_max(among, to, targets.shape[-1] + 1)[..., :-1]
    if extremes.shape != targets.shape:  # the index is smaller than the input
        result = targets.clone()
        result[inner] = extremes
        extremes = result
    return extremes.movedim(-1, dim)


def _product_rule(record: OperationRecord, multiplier: Tensor) -> Any:
    """Apply the rule of a polynomial, whose degree is the largest number of factors of one product."""
    input, dim, index, *_ = record.arguments
    counts = torch.ones(input.shape, device=index.device).scatter_add(
        dim, index, torch.ones(index.shape, device=index.device)
    )
    return rules.along_segment((int(counts.max()) + 1) // 2)(record, multiplier)


@primitive(_product_rule)
def _scatter_product(input: Tensor, dim: int, index: Tensor, src: Tensor, include_self: bool) -> Tensor:
    return torch.scatter_reduce(input, dim, index, _crop_to_index(src, index), "prod", include_self=include_self)


def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Return means, products or extremes of slices at positions."""
    return torch.scatter_reduce(input, dim, expand_index(index, dim, source), source, reduce, include_self=include_self)


def segment_reduce(
    data: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    offsets: Any = None,
    indices: None = None,
    dim: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Tensor:
    """Return sums, means, products or extremes of consecutive parts of an axis."""
    lengths = require_equal_index(offsets.diff(dim=-1) if lengths is None else lengths)
    ends, numbers = lengths.cumsum(-1).unsqueeze(-2), torch.arange(data.shape[dim], device=lengths.device)
    index = (numbers.unsqueeze(-1) >= ends).sum(-1)
    index = index.reshape(*index.shape, *[1] * (data.dim() - index.dim())).expand(data.shape)
    name = {"mean": "sum", "max": "amax", "min": "amin"}.get(reduce, reduce)
    start = _NEUTRAL[name] if initial is None else initial
    shape = *lengths.shape, *data.shape[dim + 1 :]
    reduced = torch.scatter_reduce(data.new_full(shape, start), dim, index, data, name)
    if reduce != "mean":
        return reduced
    counts = lengths.reshape(*lengths.shape, *[1] * (reduced.dim() - lengths.dim()))
    return torch.where(counts > 0, reduced / counts.clamp_min(1), torch.nan if initial is None else initial)


_NEUTRAL = {"sum": 0.0, "prod": 1.0, "amax": -math.inf, "amin": math.inf}


@primitive(rules.group_max, keeps_memory=True, broadcastable=True)
def _group_max(x: Tensor, groups: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the maximum of each group along the last axis; -inf for an empty group."""
    groups = groups.expand(x.shape)
    return x.new_full((*x.shape[:-1], count), -torch.inf).scatter_reduce(-1, groups, x, "amax"), groups


def _drop_overwritten(to: Tensor, targets: int) -> Tensor:
    """Send those of the first ``targets`` values that share a group with others to an extra group."""
    unshared = torch.ones_like(to[..., :targets], dtype=torch.bool).scatter(-1, to[..., targets:], False)
    return torch.cat([torch.where(unshared, to[..., :targets], targets), to[..., targets:]], -1)


def _crop_to_index(source: Any, index: Tensor) -> Any:
    return source[tuple(slice(size) for size in index.shape)] if isinstance(source, Tensor) else source
