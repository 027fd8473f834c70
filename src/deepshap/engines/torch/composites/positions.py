"""Indexing by positions that depend on the explained input.

Values and positions share a change as two players (Shapley values), like a table and its ids in an embedding. The
functions here replace torch's wherever an index is a surrogate, see ``activity.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....errors import UnsupportedOperationError
from .. import rules
from .._compat import interception_off
from ..operations import COMPOSITE, Operation, primitive
from ..windows import Windows, gather_positions
from .scatter import expand_index


@primitive(rules.topk_indices)
def positions(x: Tensor, count: int) -> Tensor:
    """Return the positions of the largest values along the last axis, in descending order, as floats."""
    index = (
        x.argmax(-1, keepdim=True)
        if count == 1
        else torch.argsort(x, dim=-1, descending=True, stable=True)[..., :count]
    )
    return index.to(torch.float64)


def top_positions(input: Tensor, count: int, largest: bool = True) -> Tensor:
    """Return the positions of the largest or smallest values along the last axis."""
    floats = input if input.is_floating_point() else input.to(torch.float64)
    return positions(floats if largest else -floats, count).to(torch.int64)


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False, *, largest: bool = True) -> Tensor:
    """Return the position of the largest value."""
    if dim is None:
        position = top_positions(input.flatten(), 1, largest)
        return position.reshape([1] * input.dim()) if keepdim else position.squeeze(0)
    if not input.dim():
        return top_positions(input.unsqueeze(0), 1, largest).squeeze(0)
    position = top_positions(input.movedim(dim, -1), 1, largest).movedim(-1, dim)
    return position if keepdim else position.squeeze(dim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the position of the smallest value."""
    return argmax(input, dim, keepdim, largest=False)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Return the positions of the sorted values."""
    last = input.movedim(dim, -1) if input.dim() else input.unsqueeze(0)
    return top_positions(last, last.shape[-1], descending).movedim(-1, dim).reshape(input.shape)


def window_argmax(x: Tensor, windows: Windows) -> Tensor:
    """Return the position of the maximum of each window of the last axis."""
    members = torch.as_tensor(windows.positions, device=x.device)
    best = top_positions(gather_positions(x, members), 1)
    return torch.gather(members.expand(*best.shape[:-1], -1), -1, best).squeeze(-1)


# ---------------------------------------------------------------------- taking
def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """Return rows of a table."""
    with interception_off():  # a question about the graph, not part of the model
        varies = table.grad_fn is not None
    return _lookup(table, ids) if varies else _lookup_constant(table, ids)


@primitive(rules.lookup)
def _lookup(table: Tensor, ids: Tensor) -> Tensor:
    return table[ids.long()]


@primitive(rules.rows, broadcastable=True)
def _lookup_constant(table: Tensor, ids: Tensor) -> Tensor:
    return table[ids.long()]


@primitive(rules.gathered)
def _gather(values: Tensor, index: Tensor, dim: int) -> Tensor:
    return values.gather(dim, index.long())


@primitive(rules.share_coordinates)
def _flat_position(*coordinates: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return the position in the flattened axes; coordinates may be negative."""
    steps = [math.prod(sizes[k + 1 :]) for k in range(len(sizes))]
    return sum(torch.remainder(c, n) * s for c, n, s in zip(coordinates, sizes, steps, strict=True))  # type: ignore[return-value]


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """Return the values at positions along an axis."""
    return _cast_like(_gather(_to_float(input), index.to(torch.float64), dim), input)


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Return the values at positions along an axis, broadcast over the other axes."""
    if dim is None:
        return gather(input.flatten(), 0, indices.flatten())
    dim %= input.dim()
    common = torch.broadcast_shapes(*((*t.shape[:dim], 1, *t.shape[dim + 1 :]) for t in (input, indices)))
    expanded = [t.expand(*common[:dim], t.shape[dim], *common[dim + 1 :]) for t in (input, indices)]
    return gather(expanded[0], dim, expanded[1])


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Return the slices at positions."""
    return getitem(input, (*[slice(None)] * (dim % max(input.dim(), 1)), index.reshape(-1)))


def select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Return the slice at a position."""
    return getitem(input, (*[slice(None)] * (dim % input.dim()), index))


def narrow(input: Tensor, dim: int, start: Tensor, length: int) -> Tensor:
    """Return the slices from a position on."""
    return index_select(input, dim, start + torch.arange(length, device=start.device))


def take(input: Tensor, index: Tensor) -> Tensor:
    """Return the values at positions of the flattened tensor."""
    return getitem(input.flatten(), index)


def getitem(input: Tensor, index: Any) -> Tensor:
    """Return ``input[index]``, a lookup in those axes whose indices are positions."""
    entries = _normalize_index(input, index)
    advanced = [k for k, e in enumerate(entries) if isinstance(e, (Tensor, int))]
    sliced = input[tuple(slice(None) if isinstance(e, Tensor) else e for e in entries)]
    axis_entries = [
        e for e in entries if isinstance(e, Tensor) or not isinstance(e, int)
    ]  # one for each axis of sliced
    axes = [k for k, e in enumerate(axis_entries) if isinstance(e, Tensor)]
    moved, size = sliced.movedim(axes, tuple(range(len(axes)))), [sliced.shape[a] for a in axes]
    rest = moved.shape[len(axes) :]
    indices = [i.to(torch.float64) for i in torch.broadcast_tensors(*(axis_entries[a] for a in axes))]
    flat_positions = _flat_position(*indices, sizes=tuple(size))
    shape = flat_positions.shape
    values = lookup(_to_float(moved.reshape(math.prod(size), math.prod(rest))), torch.atleast_1d(flat_positions))
    values = values.reshape((*shape, *rest))
    if advanced == list(range(advanced[0], advanced[-1] + 1)):  # otherwise the axes of the positions come first
        values = values.movedim(tuple(range(len(shape))), tuple(range(axes[0], axes[0] + len(shape))))
    return _cast_like(values, input)


def _normalize_index(input: Tensor, index: Any) -> list[Any]:
    """Return one entry per axis, with the ellipsis expanded and lists converted to tensors."""
    entries = list(index) if isinstance(index, (tuple, list)) else [index]
    entries = [
        torch.stack([torch.as_tensor(i, device=input.device) for i in e]) if isinstance(e, list) else e for e in entries
    ]
    full_slices = [slice(None)] * (input.dim() - sum(e is not None and e is not Ellipsis for e in entries))
    at = next((k for k, e in enumerate(entries) if e is Ellipsis), None)
    return [*entries, *full_slices] if at is None else [*entries[:at], *full_slices, *entries[at + 1 :]]


# ---------------------------------------------------------------------- putting
@primitive(rules.added)
def _scatter_sum(source: Tensor, index: Tensor, dim: int, size: int) -> Tensor:
    """Sum values at positions along an axis."""
    shape = [size if axis == dim else n for axis, n in enumerate(index.shape)]
    return source.new_zeros(shape).scatter_add(dim, index.long(), source)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Add values at positions along an axis."""
    dim %= input.dim()
    sums = _scatter_sum(_to_float(src)[tuple(map(slice, index.shape))], index.to(torch.float64), dim, input.shape[dim])
    inner = tuple(slice(None) if axis == dim else slice(n) for axis, n in enumerate(index.shape))
    return _cast_like(_add_inside(input, inner, sums), input)


def _add_inside(input: Tensor, inner: tuple[slice, ...], sums: Tensor) -> Tensor:
    if sums.shape == input.shape:
        return _to_float(input) + sums
    result = _to_float(input).clone()
    result[inner] = result[inner] + sums
    return result


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """Add slices at positions."""
    return scatter_add(input, dim, expand_index(index, dim, source), source * alpha)


def scatter(input: Tensor, dim: int, index: Tensor, *args: Any, reduce: str | None = None, **kwargs: Any) -> Tensor:
    """Write values at distinct positions, by adding the difference from the previous values."""
    source: Any = kwargs.get("src", kwargs.get("value", args[0] if args else None))
    if reduce not in (None, "add"):
        raise UnsupportedOperationError(
            f"scatter with reduce={reduce!r} at positions that depend on the input has no rule."
        )
    if not isinstance(source, Tensor):
        source = torch.full(index.shape, source, dtype=_to_float(input).dtype, device=input.device)
    source = _to_float(source)[tuple(map(slice, index.shape))]
    if reduce is None:
        if _has_duplicates(index, dim):
            raise UnsupportedOperationError(
                "scatter to one position twice has no rule where positions depend on the input."
            )
        if bool(input.isinf().any()):  # differences from infinity are NaN
            hit, zeros = torch.ones_like(source), torch.zeros_like(_to_float(input))
            hit, put = (scatter_add(zeros, dim, index, values) for values in (hit, source))
            return _cast_like(torch.where(hit > 0, put, _to_float(input)), input)
        source = source - _to_float(gather(input, dim, index))
    return scatter_add(input, dim, index, source)


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Write slices at positions."""
    return scatter(input, dim, expand_index(index, dim, source), source)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """Write one value at positions."""
    shape = [index.numel() if axis == dim % input.dim() else n for axis, n in enumerate(input.shape)]
    return index_copy(input, dim, index, torch.as_tensor(value, dtype=input.dtype).expand(shape))


def index_put(input: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """Write or add values at positions along several axes.

    The flat positions are found by indexing a tensor of all flat positions in the same way.
    """
    flat_positions = torch.arange(input.numel(), device=input.device).reshape(input.shape)[tuple(indices)]
    values = torch.as_tensor(values, dtype=input.dtype, device=input.device).expand(flat_positions.shape).flatten()
    put = scatter_add if accumulate else scatter
    return put(input.flatten(), 0, flat_positions.flatten(), values).reshape(input.shape)


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """Run ``input[index] = value``."""
    input[...] = index_put(input, index if isinstance(index, (tuple, list)) else (index,), value)


def max_unpool(native: Callable[..., Tensor], spatial: int) -> Callable[..., Tensor]:
    """Build the function that writes values at the positions of a max pooling."""

    def unpool(input: Tensor, indices: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with interception_off(), torch.no_grad():
            shape = native(input, indices, *args, **kwargs).shape
        axes = len(shape) - spatial
        flat = torch.zeros(*shape[:axes], math.prod(shape[axes:]), dtype=input.dtype, device=input.device)
        return scatter(flat, -1, indices.flatten(axes), input.flatten(axes)).reshape(shape)

    return unpool


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Reduce values at positions by sum, mean, maximum or minimum."""
    if reduce == "amin":
        return -scatter_reduce(-input, dim, index, -src, "amax", include_self=include_self)
    if reduce not in ("sum", "mean", "amax"):
        raise UnsupportedOperationError(
            f"scatter_reduce with reduce={reduce!r} has no rule; sum, mean, amax, amin have."
        )
    src, ones = src[tuple(map(slice, index.shape))], torch.ones(index.shape, dtype=input.dtype, device=input.device)
    counts = scatter_add(torch.zeros_like(input), dim, index, ones)
    initial = input if include_self else torch.where(counts > 0, -torch.inf if reduce == "amax" else 0.0, input)
    if reduce == "amax":
        return _scatter_max(initial, dim, index, src)
    total = scatter_add(initial, dim, index, src)
    if reduce == "sum":
        return total
    return total / (counts + 1 if include_self else counts.clamp_min(1))


def _scatter_max(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Return the maximum of the value at each position along an axis and the values scattered to it."""
    inner = tuple(slice(None) if axis == dim % input.dim() else slice(n) for axis, n in enumerate(index.shape))
    index_last, values = index.movedim(dim, -1).unsqueeze(-2), src.movedim(dim, -1).unsqueeze(-2)
    candidates = torch.arange(input.shape[dim], device=input.device).unsqueeze(-1)
    scattered = torch.where(index_last == candidates, values, -torch.inf)
    result = input.clone()
    result[inner] = torch.cat([input[inner].movedim(dim, -1).unsqueeze(-1), scattered], -1).amax(-1).movedim(-1, dim)
    return result


def _has_duplicates(index: Tensor, dim: int) -> bool:
    with interception_off():  # a question about the values, not part of the model
        return bool((index.sort(dim)[0].diff(dim=dim) == 0).any())


def _to_float(values: Tensor) -> Tensor:
    return values if values.is_floating_point() or values.is_complex() else values.to(torch.float64)


def _cast_like(values: Tensor, like: Tensor) -> Tensor:
    return values if values.dtype == like.dtype else values.to(like.dtype)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "gather": gather,
    "take_along_dim": take_along_dim,
    "index_select": index_select,
    "take": take,
    "select": select,
    "narrow": narrow,
    "__getitem__": getitem,
    "scatter_add": scatter_add,
    "scatter": scatter,
    "scatter_reduce": scatter_reduce,
    "index_add": index_add,
    "index_copy": index_copy,
    "index_fill": index_fill,
    "index_put": index_put,
    "__setitem__": setitem,
    "max_unpool1d": max_unpool(F.max_unpool1d, 1),
    "max_unpool2d": max_unpool(F.max_unpool2d, 2),
    "max_unpool3d": max_unpool(F.max_unpool3d, 3),
    "aten.max_unpool2d": max_unpool(torch.ops.aten.max_unpool2d, 2),
    "aten.max_unpool3d": max_unpool(torch.ops.aten.max_unpool3d, 3),
}
AT_POSITIONS = {name: Operation(COMPOSITE, function=function) for name, function in _FUNCTIONS.items()}
