"""Values scattered to positions: written, summed, or the greatest of each position."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ....errors import UnsupportedOperationError
from .. import rules
from ..calls import place_of_call
from ..operations import LINEAR, VALUE, Operation, OperationRecord, primitive


def scatter(input: Tensor, dim: int, index: Tensor, *args: Any, reduce: str | None = None, **kwargs: Any) -> Tensor:
    """Scattered values; only what the index covers of a source counts, which torch's gradient insists on."""
    source = _covered(kwargs.get("src", kwargs.get("value", args[0] if args else None)), index)
    if reduce == "multiply":
        raise UnsupportedOperationError(
            f"scatter with reduce='multiply' at {place_of_call()} has no rule: write scatter_reduce(..., 'prod'), which has."
        )
    return torch.scatter(input, dim, index, source) if reduce is None else torch.scatter_add(input, dim, index, source)


def along(index: Tensor, dim: int, source: Tensor) -> Tensor:
    """The index of slices along an axis, for each value of a source."""
    return index.reshape([-1 if axis == dim % source.dim() else 1 for axis in range(source.dim())]).expand(source.shape)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Sums of scattered values."""
    return torch.scatter_add(input, dim, index, _covered(src, index))


@primitive(lambda record, m: m)
def _summed(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, include_self: bool) -> Tensor:
    return torch.scatter_reduce(input, dim, index, _covered(src, index), reduce, include_self=include_self)


_summed.operation = Operation(LINEAR, function=_summed.operation.function, indices=True)  # type: ignore[attr-defined]


@primitive(lambda record, m: m)
def settled(index: Tensor) -> Tensor:
    """An index that must be the same for example and reference."""
    return index


settled.operation = Operation(VALUE, function=settled.operation.function)  # type: ignore[attr-defined]


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Sums, means and extremes of scattered values."""
    if reduce in ("sum", "mean"):
        return _summed(input, dim, index, src, reduce, include_self)
    if reduce == "amin":
        return -scatter_reduce(-input, dim, index, -src, "amax", include_self=include_self)
    index = settled(index)
    if reduce == "prod":
        return _multiplied(input, dim, index, src, include_self)
    inner = tuple(slice(size) for axis, size in enumerate(index.shape) if axis != dim % input.dim())
    places, sources, targets = (t.movedim(dim, -1) for t in (index, _covered(src, index), input))
    own = torch.arange(targets.shape[-1], device=index.device).expand(*places.shape[:-1], -1)
    to, among = torch.cat([own, places], -1), torch.cat([targets[inner], sources], -1)
    if not include_self:  # own values count where nothing else does
        to = _apart_if_hidden(to, targets.shape[-1])
    found = _greatest_of_groups(among, to, targets.shape[-1] + 1)[..., :-1]
    if found.shape != targets.shape:  # the index does not reach all that the input has
        whole = targets.clone()
        whole[inner] = found
        found = whole
    return found.movedim(-1, dim)


def _of_products(record: OperationRecord, multiplier: Tensor) -> Any:
    """A polynomial, whose degree is the number of factors of the product that has most."""
    input, dim, index, *_ = record.arguments
    counts = torch.ones(input.shape, device=index.device).scatter_add(
        dim, index, torch.ones(index.shape, device=index.device)
    )
    return rules.along_segment((int(counts.max()) + 1) // 2)(record, multiplier)


@primitive(_of_products)
def _multiplied(input: Tensor, dim: int, index: Tensor, src: Tensor, include_self: bool) -> Tensor:
    return torch.scatter_reduce(input, dim, index, _covered(src, index), "prod", include_self=include_self)


def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Means, products and extremes of slices put at positions."""
    return torch.scatter_reduce(input, dim, along(index, dim, source), source, reduce, include_self=include_self)


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
    """Sums, means, products and extremes of consecutive parts of an axis."""
    lengths = settled(offsets.diff(dim=-1) if lengths is None else lengths)
    ends, places = lengths.cumsum(-1).unsqueeze(-2), torch.arange(data.shape[dim], device=lengths.device)
    index = (places.unsqueeze(-1) >= ends).sum(-1)
    index = index.reshape(*index.shape, *[1] * (data.dim() - index.dim())).expand(data.shape)
    name = {"mean": "sum", "max": "amax", "min": "amin"}.get(reduce, reduce)
    start = _NEUTRAL[name] if initial is None else initial
    shape = *lengths.shape, *data.shape[dim + 1 :]
    found = torch.scatter_reduce(data.new_full(shape, start), dim, index, data, name)
    if reduce != "mean":
        return found
    counts = lengths.reshape(*lengths.shape, *[1] * (found.dim() - lengths.dim()))
    return torch.where(counts > 0, found / counts.clamp_min(1), torch.nan if initial is None else initial)


_NEUTRAL = {"sum": 0.0, "prod": 1.0, "amax": -math.inf, "amin": math.inf}


@primitive(rules.group_max, keeps_memory=True, broadcastable=True)
def _greatest_of_groups(x: Tensor, groups: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The greatest value of each group along the last axis; of one without elements -inf."""
    groups = groups.expand(x.shape)
    return x.new_full((*x.shape[:-1], count), -torch.inf).scatter_reduce(-1, groups, x, "amax"), groups


def _apart_if_hidden(to: Tensor, targets: int) -> Tensor:
    """Targets of values, the first of which are their own: those with others beside them go to a group of no use."""
    alone = torch.ones_like(to[..., :targets], dtype=torch.bool).scatter(-1, to[..., targets:], False)
    return torch.cat([torch.where(alone, to[..., :targets], targets), to[..., targets:]], -1)


def _covered(source: Any, index: Tensor) -> Any:
    return source[tuple(slice(size) for size in index.shape)] if isinstance(source, Tensor) else source
