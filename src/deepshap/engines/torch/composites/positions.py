"""Values at positions that depend on the input: values and positions are two players, as in a table and its ids."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ....errors import UnsupportedOperationError
from .. import rules
from ..operations import COMPOSITE, Operation, primitive


@primitive(rules.chosen)
def positions(x: Tensor, count: int) -> Tensor:
    """Of the greatest values along the last axis, in descending order, as floats."""
    index = (
        x.argmax(-1, keepdim=True)
        if count == 1
        else torch.argsort(x, dim=-1, descending=True, stable=True)[..., :count]
    )
    return index.to(torch.float64)


def chosen(input: Tensor, count: int, largest: bool = True) -> Tensor:
    """Positions of the greatest values, or of the least, along the last axis."""
    floats = input if input.is_floating_point() else input.to(torch.float64)
    return positions(floats if largest else -floats, count).to(torch.int64)


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False, *, largest: bool = True) -> Tensor:
    """Position of the greatest value."""
    if dim is None:
        found = chosen(input.flatten(), 1, largest)
        return found.reshape([1] * input.dim()) if keepdim else found.squeeze(0)
    if not input.dim():
        return chosen(input.unsqueeze(0), 1, largest).squeeze(0)
    found = chosen(input.movedim(dim, -1), 1, largest).movedim(-1, dim)
    return found if keepdim else found.squeeze(dim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Position of the least value."""
    return argmax(input, dim, keepdim, largest=False)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Positions of the sorted values."""
    last = input.movedim(dim, -1) if input.dim() else input.unsqueeze(0)
    return chosen(last, last.shape[-1], descending).movedim(-1, dim).reshape(input.shape)


# ---------------------------------------------------------------------- taking
@primitive(rules.lookup)
def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of a table."""
    return table[ids.long()]


@primitive(rules.gathered)
def _gathered(values: Tensor, index: Tensor, dim: int) -> Tensor:
    return values.gather(dim, index.long())


@primitive(rules.coordinates)
def _place(*coordinates: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The place in the flattened axes; coordinates may count from the end."""
    steps = [math.prod(sizes[k + 1 :]) for k in range(len(sizes))]
    return sum(torch.remainder(c, n) * s for c, n, s in zip(coordinates, sizes, steps, strict=True))  # type: ignore[return-value]


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """Values at positions along an axis."""
    return _typed(_gathered(_float(input), index.to(torch.float64), dim), input)


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """As ``gather``, broadcast over the other axes."""
    if dim is None:
        return gather(input.flatten(), 0, indices.flatten())
    dim %= input.dim()
    common = torch.broadcast_shapes(*((*t.shape[:dim], 1, *t.shape[dim + 1 :]) for t in (input, indices)))
    whole = [t.expand(*common[:dim], t.shape[dim], *common[dim + 1 :]) for t in (input, indices)]
    return gather(whole[0], dim, whole[1])


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Slices at positions."""
    return getitem(input, (*[slice(None)] * (dim % max(input.dim(), 1)), index))


def take(input: Tensor, index: Tensor) -> Tensor:
    """Values at positions of the flattened tensor."""
    return getitem(input.flatten(), index)


def getitem(input: Tensor, index: Any) -> Tensor:
    """``input[index]``, where some of the indices are positions: a lookup in the axes that they stand for."""
    entries = _spelled_out(input, index)
    advanced = [k for k, e in enumerate(entries) if isinstance(e, (Tensor, int))]
    left = input[tuple(slice(None) if isinstance(e, Tensor) else e for e in entries)]
    kept = [e for e in entries if isinstance(e, Tensor) or not isinstance(e, int)]  # the axes of what is left
    axes = [k for k, e in enumerate(kept) if isinstance(e, Tensor)]
    moved, size = left.movedim(axes, tuple(range(len(axes)))), [left.shape[a] for a in axes]
    rest = moved.shape[len(axes) :]
    found = lookup(_float(moved.reshape(math.prod(size), math.prod(rest))), _joined([kept[a] for a in axes], size))
    shape = found.shape[:-1]
    found = found.reshape(*shape, *rest)
    if advanced == list(range(advanced[0], advanced[-1] + 1)):  # else the positions' axes come first
        found = found.movedim(tuple(range(len(shape))), tuple(range(axes[0], axes[0] + len(shape))))
    return _typed(found, input)


def _joined(indices: list[Tensor], sizes: list[int]) -> Tensor:
    floats = [i.to(torch.float64) for i in torch.broadcast_tensors(*indices)]
    return _place(*floats, sizes=tuple(sizes))


def _spelled_out(input: Tensor, index: Any) -> list[Any]:
    """One entry for each axis; the ellipsis stands for whole ones."""
    entries = list(index) if isinstance(index, tuple) else [index]
    whole = [slice(None)] * (input.dim() - sum(e is not None and e is not Ellipsis for e in entries))
    at = next((k for k, e in enumerate(entries) if e is Ellipsis), None)
    return [*entries, *whole] if at is None else [*entries[:at], *whole, *entries[at + 1 :]]


# ---------------------------------------------------------------------- putting
@primitive(rules.added)
def _added(source: Tensor, index: Tensor, dim: int, size: int) -> Tensor:
    """Sums of values at positions along an axis."""
    shape = [size if axis == dim else n for axis, n in enumerate(index.shape)]
    return source.new_zeros(shape).scatter_add(dim, index.long(), source)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Values added at positions along an axis."""
    dim %= input.dim()
    sums = _added(_float(src)[tuple(map(slice, index.shape))], index.to(torch.float64), dim, input.shape[dim])
    inner = tuple(slice(None) if axis == dim else slice(n) for axis, n in enumerate(index.shape))
    return _typed(_with(input, inner, sums), input)


def _with(input: Tensor, inner: tuple[slice, ...], sums: Tensor) -> Tensor:
    if sums.shape == input.shape:
        return _float(input) + sums
    whole = _float(input).clone()
    whole[inner] = whole[inner] + sums
    return whole


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """Slices added at positions."""
    along = index.reshape([-1 if axis == dim % input.dim() else 1 for axis in range(input.dim())])
    return scatter_add(input, dim, along.expand(source.shape), source * alpha)


def scatter(input: Tensor, dim: int, index: Tensor, *args: Any, reduce: str | None = None, **kwargs: Any) -> Tensor:
    """Values put at positions, each at a place of its own: what is added there is the difference from what there was."""
    source: Any = kwargs.get("src", kwargs.get("value", args[0] if args else None))
    if reduce not in (None, "add"):
        raise UnsupportedOperationError(
            f"scatter with reduce={reduce!r} at positions that depend on the input has no rule."
        )
    if not isinstance(source, Tensor):
        source = torch.full(index.shape, source, dtype=_float(input).dtype, device=input.device)
    source = _float(source)[tuple(map(slice, index.shape))]
    if reduce is None:
        if _twice(index, dim):
            raise UnsupportedOperationError(
                "scatter to one position twice has no rule where positions depend on the input."
            )
        source = source - _float(gather(input, dim, index))
    return scatter_add(input, dim, index, source)


def _twice(index: Tensor, dim: int) -> bool:
    with torch._C.DisableTorchFunction():  # a look at the numbers, which the tracer need not follow
        return bool((index.sort(dim)[0].diff(dim=dim) == 0).any())


def _float(values: Tensor) -> Tensor:
    return values if values.is_floating_point() or values.is_complex() else values.to(torch.float64)


def _typed(values: Tensor, like: Tensor) -> Tensor:
    return values if values.dtype == like.dtype else values.to(like.dtype)


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "gather": gather,
    "take_along_dim": take_along_dim,
    "index_select": index_select,
    "take": take,
    "__getitem__": getitem,
    "scatter_add": scatter_add,
    "scatter": scatter,
    "index_add": index_add,
}
AT_POSITIONS = {name: Operation(COMPOSITE, function=function) for name, function in _FUNCTIONS.items()}
