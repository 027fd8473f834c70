"""Views, choices by conditions, and lookups by fixed indices and ids."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....errors import UnsupportedOperationError
from ....formulas.rules import clip_infinities
from .. import rules
from ..calls import is_continuous
from ..operations import ELEMENTWISE, Operation, linear, primitive
from .arithmetic import quotient
from .positions import lookup
from .reductions import amax


@primitive(rules.select, broadcastable=True)
def select(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return ``a`` where the condition holds and ``b`` elsewhere; the condition is the floating-point surrogate of a mask.

    -inf becomes a number whose exponential is 0, because an infinite difference has no multiplier.
    """
    return torch.where(condition != 0, clip_infinities(a), clip_infinities(b))


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Return consecutive parts."""
    size = tensor.shape[dim]
    if isinstance(split_size_or_sections, int):
        starts = list(range(0, size, max(split_size_or_sections, 1)))
        return views(tensor, dim, [*starts, size])
    return views(tensor, dim, [0, *itertools.accumulate(split_size_or_sections)])


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Return a number of equal parts."""
    return split(input, max(1, -(-input.shape[dim] // chunks)), dim)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Return the parts between positions, or a number of nearly equal parts."""
    size = input.shape[dim]
    if isinstance(indices_or_sections, int):
        small, larger = divmod(size, indices_or_sections)
        sizes = [small + (k < larger) for k in range(indices_or_sections)]
        return views(input, dim, [0, *itertools.accumulate(sizes)])
    within = [min(max(int(p) + (size if p < 0 else 0), 0), size) for p in indices_or_sections]
    return views(input, dim, [0, *within, size])


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Return all slices along an axis."""
    return views(input, dim, None)


@linear
def views(tensor: Tensor, dim: int, bounds: list[int] | None) -> tuple[Tensor, ...]:
    """Return all entries of an axis, or all parts between bounds, as separate views.

    torch forbids in-place operations on views that one call made together.
    """
    if bounds is None:
        return tuple([tensor.select(dim, k) for k in range(tensor.shape[dim])])
    return tuple([tensor.narrow(dim, a, max(b - a, 0)) for a, b in itertools.pairwise(bounds)])


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """Choose between two branches; the condition may depend on the explained input."""
    if input is None:
        return torch.nonzero(condition, as_tuple=True)
    if not getattr(condition, "_deepshap", None):
        return _where(condition, input, other)
    dtype = torch.result_type(input, other)
    if not is_continuous(dtype):
        input, other = (torch.as_tensor(v, device=condition.device).to(torch.float64) for v in (input, other))
        return where(condition, input, other).to(dtype)
    branches = (torch.as_tensor(v, dtype=dtype, device=condition.device) for v in (input, other))
    return select(condition.to(torch.float64), *branches)


@primitive(lambda record, m: record.shares(m, *_branches(record, m)), broadcastable=True)
def _where(condition: Tensor, a: Any, b: Any) -> Tensor:
    return torch.where(condition, a, b)


def _branches(record: Any, m: Tensor) -> tuple[Tensor, Tensor]:
    condition = record.arguments[0]
    return torch.where(condition, m, 0.0), torch.where(condition, 0.0, m)


def searchsorted(sorted_sequence: Tensor, input: Any, **options: Any) -> Tensor:
    """Return the positions at which values sort into fixed bounds."""
    if sorted_sequence.grad_fn is not None:
        raise UnsupportedOperationError("searchsorted in bounds that depend on the input has no rule.")
    return _searchsorted(sorted_sequence, input, options)


@primitive(rules.rescale())
def _searchsorted(bounds: Tensor, values: Any, options: dict[str, Any]) -> Tensor:
    return torch.searchsorted(bounds, values, **options)


_searchsorted.operation = Operation(ELEMENTWISE, function=_searchsorted.operation.function)  # type: ignore[attr-defined]


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """Return the value where the mask is true, else the input."""
    return where(mask, value, input)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: Any = None,
    max_norm: Any = None,
    norm_type: float = 2.0,
    *_: Any,
    **__: Any,
) -> Tensor:
    """Return rows of the table, for both ``F.embedding(ids, weight)`` and ``torch.embedding(weight, ids)``."""
    ids, table = (weight, input) if input.is_floating_point() else (input, weight)
    return lookup(torch.renorm(table, norm_type, 0, max_norm) if max_norm else table, ids)


def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """Return rows of the identity matrix; without ``num_classes`` their number must be the same in example and reference."""
    if num_classes < 0:
        num_classes = int(input.max()) + 1
    return lookup(torch.eye(num_classes, dtype=torch.float64, device=input.device), input).to(torch.int64)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Any = None,
    max_norm: Any = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Return the sum, mean or maximum of the rows of each bag."""
    if offsets is not None or (mode == "max" and padding_idx is not None):
        raise UnsupportedOperationError("embedding_bag: pass ids (rows, bag size), and no padding_idx with mode 'max'.")
    rows = embedding(input, weight, None, max_norm, norm_type)
    if mode == "max":
        return amax(rows, -2)
    included = torch.ones_like(rows[..., 0])
    if padding_idx is not None:
        included = (input != padding_idx).to(rows.dtype)
    weights = included if per_sample_weights is None else included * per_sample_weights
    total = (rows * weights.unsqueeze(-1)).sum(-2)
    return total if mode == "sum" else quotient(total, included.sum(-1, keepdim=True).clamp_min(1))


def grid_sample(input: Tensor, grid: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Interpolate at fixed points."""
    if grid.grad_fn is not None:
        raise UnsupportedOperationError("grid_sample at points that depend on the input has no exact rule.")
    return _grid_sample(input, grid, *args, **kwargs)


@primitive(rules.along_segment(nodes=1))
def _grid_sample(input: Tensor, grid: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return F.grid_sample(input, grid, *args, **kwargs)
