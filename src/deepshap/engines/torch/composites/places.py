"""Places told by conditions that depend on the input: masks as indices, ``nonzero``, loops over what belongs to each expert.

Where each row has as many places on either side, they are positions like others. Else all places are taken, and what is
computed there counts where the condition holds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import rules
from .._compat import interception_off
from ..activity import Tag, give, is_lost, is_varying_mask, tag_of, unsettled
from ..operations import COMPOSITE, INDEX, LINEAR, Operation, primitive
from ..tree import replace
from .positions import chosen

Places = Callable[[Tensor], tuple[Tensor, ...]]
READING = ("__getitem__", "gather", "index_select", "take", "take_along_dim", "index")


@primitive(rules.topk_indices)
def _counts(mask: Tensor) -> Tensor:
    return mask.sum(1)


_counts.operation = Operation(INDEX, function=_counts.operation.function)  # type: ignore[attr-defined]


def as_many_in_each_row(rows: int) -> Places:
    """Build what finds places of which each row has as many on either side: those of the greatest values of the mask."""

    def places(mask: Tensor) -> tuple[Tensor, ...]:
        flat = mask.reshape(len(mask), -1)
        counts = _counts(flat)
        if len(mask) != rows or is_lost(counts):
            raise unsettled("the numbers of places of a mask")
        inside = torch.arange(int(counts.max()), device=mask.device) < counts[:, None]
        row = torch.arange(rows, device=mask.device)[:, None].expand(inside.shape)[inside]
        if mask.dim() == 1:
            return (row,)
        place = chosen(flat.to(torch.float64), inside.shape[1])[inside]
        rest = []
        for size in reversed(mask.shape[2:]):
            rest.append(place % size)
            place = torch.div(place, size, rounding_mode="floor")
        return row, place, *reversed(rest)

    return places


def all_of_them(mask: Tensor) -> tuple[Tensor, ...]:
    """All places, which know where the mask holds."""
    present = mask.to(torch.float64).flatten()
    with interception_off():
        found = torch.ones_like(mask, dtype=torch.bool).nonzero(as_tuple=True)
    return tuple(give(coordinate, Tag(present=present)) for coordinate in found)


def operations(places: Places) -> dict[Any, Operation]:
    """What stands in for operations that find places, or take masks for them."""
    options: dict[str, Any] = {"indices": True, "masks": partial(by_mask, places)}
    return {
        "nonzero": Operation(COMPOSITE, function=partial(nonzero, places)),
        "argwhere": Operation(COMPOSITE, function=partial(nonzero, places)),
        "__getitem__": Operation(LINEAR, **options),
        "__setitem__": Operation(LINEAR, **options),
    }


def nonzero(places: Places, input: Tensor, *, as_tuple: bool = False) -> Any:
    """Coordinates of what is not 0."""
    found = places(input if input.dtype == torch.bool else input != 0)
    if as_tuple:
        return found
    if (tag := tag_of(found[0])) is None or tag.present is None:
        return torch.stack(found, 1)
    with interception_off():
        return give(torch.stack(found, 1), tag)


def by_mask(places: Places, input: Tensor, index: Any, *value: Any, **options: Any) -> Any:
    """``input[index]`` and ``input[index] = value``, where masks among the indices become the places that they tell."""
    entries = index if isinstance(index, (tuple, list)) else (index,)
    spelled = tuple(p for e in entries for p in (places(e) if is_varying_mask(e) else (e,)))
    if value:
        input[spelled] = value[0]
        return None
    found = input[spelled]
    if (present := present_of(spelled[0])) is None:
        return found
    return torch.where(_along(present, 0, found), found, 0.0)


# ---------------------------------------------------------------------- all places as indices
def present_of(index: Any) -> Tensor | None:
    """Where the condition holds that told an index of all places."""
    tag = tag_of(index)
    return None if tag is None else tag.present


def at_all(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Build what an operation does at all places: what it writes counts where the condition holds."""
    if name in READING:
        return lambda *args, **kwargs: function(*replace(args, _plain), **replace(kwargs, _plain))
    if name not in WRITING:
        raise unsettled(f"the places that {name} takes")
    return WRITING[name]


def _plain(index: Tensor) -> Tensor:
    if present_of(index) is None:
        return index
    with interception_off():
        return index.clone()


def _along(present: Any, axis: int, values: Tensor) -> Tensor:
    if present is None or values.shape[axis] != len(present):
        raise unsettled("places that are not in their order")
    return present.reshape([-1 if k == axis else 1 for k in range(values.dim())]) != 0


def _index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    counted = torch.where(_along(present_of(index), dim % input.dim(), source), source, 0.0)
    return torch.index_add(input, dim, _plain(index), counted, alpha=alpha)


def _scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    counted = torch.where(_along(present_of(index), dim % input.dim(), src), src, 0.0)
    return torch.scatter_add(input, dim, _plain(index), counted)


def _setitem(input: Tensor, index: Any, value: Any) -> None:
    entries = index if isinstance(index, tuple) else (index,)
    at = tuple(_plain(e) if isinstance(e, Tensor) else e for e in entries)
    before = input[at]
    input[at] = torch.where(_along(present_of(entries[0]), 0, before), value, before)


def _index_put(input: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    before = input[tuple(map(_plain, indices))]
    counted = torch.where(_along(present_of(indices[0]), 0, before), values, 0.0 if accumulate else before)
    return torch.index_put(input, tuple(map(_plain, indices)), counted, accumulate)


WRITING: dict[str, Callable[..., Any]] = {
    "index_add": _index_add,
    "scatter_add": _scatter_add,
    "__setitem__": _setitem,
    "index_put": _index_put,
}
