"""Positions selected by masks that depend on the explained input: mask indices, ``nonzero``, loops over experts.

If every row has the same number of positions in example and reference, they are positions like others. Otherwise the
model runs at all positions, and results count only where the mask is true.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import rules
from .._compat import interception_off
from ..activity import Surrogate, attach, index_mismatch, is_active_mask, lacks_values, surrogate_of
from ..calls import replace
from ..operations import COMPOSITE, INDEX, LINEAR, Operation, primitive
from .positions import top_positions

Positions = Callable[[Tensor], tuple[Tensor, ...]]
READING = ("__getitem__", "gather", "index_select", "take", "take_along_dim", "index")


@primitive(rules.topk_indices)
def _counts(mask: Tensor) -> Tensor:
    return mask.sum(1)


_counts.operation = Operation(INDEX, function=_counts.operation.function)  # type: ignore[attr-defined]


def equal_count_positions(rows: int) -> Positions:
    """Build the function that finds positions of a mask with as many in each row of example and reference.

    These are the positions of the largest values of the mask.
    """

    def positions(mask: Tensor) -> tuple[Tensor, ...]:
        flat = mask.reshape(len(mask), -1)
        counts = _counts(flat)
        if len(mask) != rows or lacks_values(counts):
            raise index_mismatch("the numbers of places of a mask")
        inside = torch.arange(int(counts.max()), device=mask.device) < counts[:, None]
        row = torch.arange(rows, device=mask.device)[:, None].expand(inside.shape)[inside]
        if mask.dim() == 1:
            return (row,)
        position = top_positions(flat.to(torch.float64), inside.shape[1])[inside]
        rest = []
        for size in reversed(mask.shape[2:]):
            rest.append(position % size)
            position = torch.div(position, size, rounding_mode="floor")
        return row, position, *reversed(rest)

    return positions


def all_positions(mask: Tensor) -> tuple[Tensor, ...]:
    """Return all positions, with the mask beside them as floats."""
    present = mask.to(torch.float64).flatten()
    with interception_off():
        coordinates = torch.ones_like(mask, dtype=torch.bool).nonzero(as_tuple=True)
    return tuple(attach(coordinate, Surrogate(present=present)) for coordinate in coordinates)


def position_operations(positions: Positions) -> dict[Any, Operation]:
    """Return the operations that replace those that find positions or index by masks."""
    options: dict[str, Any] = {"indices": True, "masks": partial(by_mask, positions)}
    return {
        "nonzero": Operation(COMPOSITE, function=partial(nonzero, positions)),
        "argwhere": Operation(COMPOSITE, function=partial(nonzero, positions)),
        "__getitem__": Operation(LINEAR, **options),
        "__setitem__": Operation(LINEAR, **options),
    }


def nonzero(positions: Positions, input: Tensor, *, as_tuple: bool = False) -> Any:
    """Return the coordinates of nonzero values."""
    coordinates = positions(input if input.dtype == torch.bool else input != 0)
    if as_tuple:
        return coordinates
    if (surrogate := surrogate_of(coordinates[0])) is None or surrogate.present is None:
        return torch.stack(coordinates, 1)
    with interception_off():
        return attach(torch.stack(coordinates, 1), surrogate)


def by_mask(positions: Positions, input: Tensor, index: Any, *value: Any, **options: Any) -> Any:
    """Run ``input[index]`` or ``input[index] = value`` with the masks of the index replaced by their positions."""
    entries = index if isinstance(index, (tuple, list)) else (index,)
    indices = tuple(p for e in entries for p in (positions(e) if is_active_mask(e) else (e,)))
    if value:
        input[indices] = value[0]
        return None
    values = input[indices]
    if (present := presence_of(indices[0])) is None:
        return values
    return torch.where(_presence_mask(present, 0, values), values, 0.0)


# ---------------------------------------------------------------------- all places as indices
def presence_of(index: Any) -> Tensor | None:
    """Return the mask, as floats, of an index of all positions; None for another index."""
    surrogate = surrogate_of(index)
    return None if surrogate is None else surrogate.present


def at_all_positions(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Build an operation that runs at all positions; what it writes counts only where the mask is true."""
    if name in READING:
        return lambda *args, **kwargs: function(
            *replace(args, _without_surrogate), **replace(kwargs, _without_surrogate)
        )
    if name not in WRITING:
        raise index_mismatch(f"the places that {name} takes")
    return WRITING[name]


def _without_surrogate(index: Tensor) -> Tensor:
    if presence_of(index) is None:
        return index
    with interception_off():
        return index.clone()


def _presence_mask(present: Any, axis: int, values: Tensor) -> Tensor:
    if present is None or values.shape[axis] != len(present):
        raise index_mismatch("places that are not in their order")
    return present.reshape([-1 if k == axis else 1 for k in range(values.dim())]) != 0


def _index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    masked = torch.where(_presence_mask(presence_of(index), dim % input.dim(), source), source, 0.0)
    return torch.index_add(input, dim, _without_surrogate(index), masked, alpha=alpha)


def _scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    masked = torch.where(_presence_mask(presence_of(index), dim % input.dim(), src), src, 0.0)
    return torch.scatter_add(input, dim, _without_surrogate(index), masked)


def _setitem(input: Tensor, index: Any, value: Any) -> None:
    entries = index if isinstance(index, tuple) else (index,)
    at = tuple(_without_surrogate(e) if isinstance(e, Tensor) else e for e in entries)
    before = input[at]
    input[at] = torch.where(_presence_mask(presence_of(entries[0]), 0, before), value, before)


def _index_put(input: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    before = input[tuple(map(_without_surrogate, indices))]
    masked = torch.where(_presence_mask(presence_of(indices[0]), 0, before), values, 0.0 if accumulate else before)
    return torch.index_put(input, tuple(map(_without_surrogate, indices)), masked, accumulate)


WRITING: dict[str, Callable[..., Any]] = {
    "index_add": _index_add,
    "scatter_add": _scatter_add,
    "__setitem__": _setitem,
    "index_put": _index_put,
}
