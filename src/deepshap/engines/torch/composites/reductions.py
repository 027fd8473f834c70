"""Extremes, sorting, products and cumulative results along axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import rules
from .._compat import interception_off
from ..operations import primitive
from ..windows import Options, Windows, split_ties
from .positions import top_positions, window_argmax


@primitive(rules.logsumexp, broadcastable=True)
def logsumexp_last(z: Tensor) -> Tensor:
    """Return the logsumexp over the last axis."""
    return z.logsumexp(-1)


@primitive(rules.window_max, keeps_memory=True, broadcastable=True)
def window_max(x: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """Return the maximum of each window of the last axis, and the mask of its elements for the rule."""
    maximal = windows.marked(x)
    return x.gather(-1, split_ties(maximal)[0]), maximal


def logsumexp(input: Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Return the logarithm of a sum of exponentials."""
    if input.is_complex():
        return input.exp().sum(dim, keepdim).log()
    return over_axes(logsumexp_last, input, dim, keepdim)


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """Return the logsumexp of two tensors."""
    if input.is_complex():  # torch does not reduce the imaginary part to between -pi and pi
        return _complex_logaddexp(input, other)
    return logsumexp_last(torch.stack(torch.broadcast_tensors(input, other), -1))


@primitive(rules.rescale(), broadcastable=True)
def _complex_logaddexp(input: Tensor, other: Tensor) -> Tensor:
    return torch.logaddexp(input, other)


def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """Return the logsumexp of two tensors to base 2."""
    return logaddexp(input * math.log(2), other * math.log(2)) / math.log(2)


def over_axes(function: Callable[[Tensor], Tensor], input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Apply a function of the last axis over one axis, several axes or all axes."""
    dims = axes_of(input, dim)
    if not dims:
        return function(input.unsqueeze(-1))
    moved = input.movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims))
    result = function(moved)
    for axis in sorted(dims) if keepdim else ():
        result = result.unsqueeze(axis)
    return result


def axes_of(input: Tensor, dim: Any) -> tuple[int, ...]:
    """Return the nonnegative axes for one axis, several, or None, which means all."""
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(input.dim()))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(d % max(input.dim(), 1) for d in dims) if input.dim() else ()


@primitive(rules.maximum, broadcastable=True)
def _maximum_last(x: Tensor) -> Tensor:
    return x.amax(-1)


def amax(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Return the maximum over axes."""
    return over_axes(_maximum_last, input, dim, keepdim)


def amin(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Return the minimum over axes."""
    negative = torch.logical_not if input.dtype == torch.bool else torch.neg
    return negative(amax(negative(input), dim, keepdim))


def maximum_of(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Compute ``torch.max`` in its three forms: over all, over an axis (with positions), of two tensors."""
    return _extreme(amax, torch.argmax, torch.maximum, torch.return_types.max, input, dim, keepdim, other)


def minimum_of(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Compute ``torch.min`` in its three forms: over all, over an axis (with positions), of two tensors."""
    return _extreme(amin, torch.argmin, torch.minimum, torch.return_types.min, input, dim, keepdim, other)


def _extreme(over: Any, arg: Any, of_two: Any, form: Any, input: Any, dim: Any, keepdim: bool, other: Any) -> Any:
    other = dim if isinstance(dim, Tensor) else other
    if other is not None:
        return of_two(input, other)
    if dim is None:
        return over(input)
    return form((over(input, dim, keepdim), arg(input, dim, keepdim)))


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return minimum and maximum."""
    return torch.return_types.aminmax((amin(input, dim, keepdim), amax(input, dim, keepdim)))


def any_of(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Return whether any condition is true, as the maximum of the conditions."""
    return amax((input != 0).to(torch.float64), dim, keepdim).to(torch.bool)


def all_of(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Return whether all conditions are true, as the minimum of the conditions."""
    return amin((input != 0).to(torch.float64), dim, keepdim).to(torch.bool)


def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """Return the number of nonzero values."""
    return (input != 0).sum(axes_of(input, dim))


def max_pool(spatial: int, adaptive: bool = False) -> Callable[..., Any]:
    """Build the max pooling over one, two or three axes. Tied elements of a window share its multiplier."""
    native = getattr(F, f"adaptive_max_pool{spatial}d" if adaptive else f"max_pool{spatial}d")

    def pool(input: Tensor, *args: Any, return_indices: bool = False, **kwargs: Any) -> Any:
        options = None if adaptive else _pooling(spatial, *args, **kwargs)
        pooled = partial(native, return_indices=True)
        windows = Windows(lambda x: pooled(x, *args, **kwargs), tuple(input.shape[-spatial:]), options)
        flat = input.flatten(-spatial)
        values = window_max(flat, windows).unflatten(-1, windows.grid)
        if not return_indices:
            return values
        return values, window_argmax(flat, windows).unflatten(-1, windows.grid)

    return pool


def _pooling(
    spatial: int, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Options:
    """Return the options of a pooling for each axis."""

    def per_axis(value: Any) -> tuple[int, ...]:
        values = (value,) if isinstance(value, int) else tuple(value)
        return values * spatial if len(values) == 1 else values

    return per_axis(kernel_size), per_axis(stride or kernel_size), per_axis(padding), per_axis(dilation)


@primitive(rules.sort)
def sorted_last(x: Tensor) -> Tensor:
    """Sort along the last axis, ascending."""
    return x.sort(-1)[0]


def _sort_last(input: Tensor, dim: int, descending: bool = False) -> tuple[Tensor, Tensor]:
    """Move the axis to the end, sort along it, and return values and positions."""
    last = input.movedim(dim, -1) if input.dim() else input.unsqueeze(0)
    values = -sorted_last(-last) if descending else sorted_last(last)
    return values, top_positions(last, last.shape[-1], descending)


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """Return sorted values and positions."""
    values, index = _sort_last(input, dim, descending)
    return torch.return_types.sort((values.movedim(-1, dim), index.movedim(-1, dim)))


def msort(input: Tensor) -> Tensor:
    """Sort along the first axis."""
    return sort(input, 0)[0]


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """Return the k largest (or smallest) values in order, and their positions."""
    if k == 1:
        return torch.return_types.topk((maximum_of if largest else minimum_of)(input, dim, True))
    values, index = _sort_last(input, dim, descending=largest)
    return torch.return_types.topk((values[..., :k].movedim(-1, dim), index[..., :k].movedim(-1, dim)))


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """Return the k-th smallest value and its position."""
    values, index = _sort_last(input, dim)
    pair = [v[..., k - 1 : k].movedim(-1, dim) for v in (values, index)]
    value, index = pair if keepdim else (v.squeeze(dim) for v in pair)
    return torch.return_types.kthvalue((value, index))


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the lower median."""
    if dim is None:
        return kthvalue(input.flatten(), (input.numel() + 1) // 2)[0]
    return torch.return_types.median(kthvalue(input, (input.shape[dim] + 1) // 2, dim, keepdim))


def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the lower median of the values that are not NaN."""
    if dim is None:
        return nanmedian(input.flatten(), 0)[0]
    if not input.dim():
        return torch.return_types.nanmedian(kthvalue(input, 1, dim, keepdim))
    last, counts = _replace_nans(input.movedim(dim, -1))
    values, index = _sort_last(last, -1)
    middle = ((counts - 1) // 2).clamp_min(0)
    medians = torch.where(counts > 0, values.gather(-1, middle), torch.nan), index.gather(-1, middle)
    value, position = (v.movedim(-1, dim) if keepdim else v.squeeze(-1) for v in medians)
    return torch.return_types.nanmedian((value, position))


def _replace_nans(input: Tensor) -> tuple[Tensor, Tensor]:
    """Replace NaN by a number that sorts last; also return the count of the other values along the last axis."""
    with interception_off(), torch.no_grad():
        missing = input.detach().isnan()
        counts = (~missing).sum(-1, keepdim=True)
    return torch.where(missing, torch.finfo(input.dtype).max / 8, input), counts


def quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """Return quantiles."""
    last = input.flatten() if dim is None else input.movedim(dim, -1)
    counts = torch.full_like(last[..., :1], last.shape[-1], dtype=torch.int64)
    return _quantile(last, counts, q, input.dim(), dim, keepdim, interpolation)


def nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """Return quantiles of the values that are not NaN."""
    last, counts = _replace_nans(input.flatten() if dim is None else input.movedim(dim, -1))
    return _quantile(last, counts, q, input.dim(), dim, keepdim, interpolation)


def _quantile(
    last: Tensor, counts: Tensor, q: Any, axes: int, dim: int | None, keepdim: bool, interpolation: str
) -> Tensor:
    """Return quantiles of the first ``counts`` sorted values along the last axis."""
    values, _ = _sort_last(last, -1)
    q = torch.as_tensor(q, dtype=last.dtype, device=last.device)
    position = q.reshape(-1) * (counts - 1).clamp_min(0)
    below, above = (values.gather(-1, bound.long()) for bound in (position.floor(), position.ceil()))
    weight = {
        "linear": position - position.floor(),
        "lower": torch.zeros_like(position),
        "higher": torch.ones_like(position),
        "midpoint": torch.full_like(position, 0.5),
        "nearest": (position - position.floor()).round(),
    }[interpolation]
    result = torch.where(counts > 0, below + (above - below) * weight, torch.nan).movedim(-1, 0)
    if keepdim:
        result = result.unsqueeze(1 + dim % axes) if dim is not None else result.reshape(-1, *[1] * axes)
    return result if q.dim() else result[0]


def _scan(combine: Callable[[Tensor, Tensor], Tensor], input: Tensor, dim: int) -> Tensor:
    results = list(input.unbind(dim))
    for k in range(1, len(results)):
        results[k] = combine(results[k - 1], results[k])
    return torch.stack(results, dim)


def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Return the cumulative product."""
    return _scan(torch.mul, input if dtype is None else input.to(dtype), dim)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """Return the cumulative logsumexp."""
    return _scan(logaddexp, input, dim)


def cummax(input: Tensor, dim: int) -> Any:
    """Return the cumulative maximum and the last position of it."""
    return torch.return_types.cummax(_cumulative_extreme(torch.maximum, torch.ge, input, dim))


def cummin(input: Tensor, dim: int) -> Any:
    """Return the cumulative minimum and the last position of it."""
    return torch.return_types.cummin(_cumulative_extreme(torch.minimum, torch.le, input, dim))


def _cumulative_extreme(extreme: Any, replaces: Any, input: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    if not input.dim():
        return input.clone(), torch.zeros_like(input, dtype=torch.int64)
    values = list(input.unbind(dim))
    positions = [torch.zeros_like(value, dtype=torch.int64) for value in values]
    for k in range(1, len(values)):
        positions[k] = torch.where(replaces(values[k], values[k - 1]), k, positions[k - 1])
        values[k] = extreme(values[k - 1], values[k])
    return torch.stack(values, dim), torch.stack(positions, dim)


@primitive(rules.polynomial)
def product_last(x: Tensor) -> Tensor:
    """Return the product over the last axis."""
    return x.prod(-1)


def prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Return the product over an axis."""
    return over_axes(product_last, input if dtype is None else input.to(dtype), dim, keepdim)
