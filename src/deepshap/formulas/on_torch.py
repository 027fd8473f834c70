"""Array functions of the formulas for PyTorch, see ``namespace``. In-place forms save passes over the memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WITHOUT_DERIVATIVE = ("not implemented", "no autograd formula")  # parts of torch's error messages

exp, expm1, log1p, tanh, sigmoid, sqrt, erfc = (
    torch.exp, torch.expm1, torch.log1p, torch.tanh, torch.sigmoid, torch.sqrt, torch.erfc,
)  # fmt: skip
relu, where, equal = torch.relu, torch.where, torch.eq
isnan, isfinite = torch.isnan, torch.isfinite
maximum, minimum, zeros_like, ones_like = torch.maximum, torch.minimum, torch.zeros_like, torch.ones_like
conj, real, linear = torch.conj, torch.real, F.linear


# ---------------------------------------------------------------------- numbers and dtypes
def tiny(x: Tensor) -> float:
    """Return the smallest positive normal number of the dtype."""
    return torch.finfo(x.dtype).tiny


def eps(x: Tensor) -> float:
    """Return the rounding unit of the dtype."""
    return torch.finfo(x.dtype).eps


def lowest(x: Tensor) -> float:
    """Return the lowest finite number of the dtype."""
    return torch.finfo(x.dtype).min


def is_complex(x: Tensor) -> bool:
    """Return whether the dtype is complex."""
    return x.is_complex()


def cast(x: Tensor, like: Tensor) -> Tensor:
    """Cast a tensor to the dtype of another."""
    return x.to(like.dtype)


def match_dtype(x: Tensor, like: Tensor) -> Tensor:
    """Return the tensor: torch promotes dtypes by itself."""
    return x


def constant(values: np.ndarray, like: Tensor) -> Tensor:
    """Return numbers as a tensor with the dtype and device of another."""
    return torch.as_tensor(values).to(like)


def broadcast(x: Tensor, *like: Tensor) -> Tensor:
    """Broadcast a tensor to the common shape of others."""
    return x.expand(torch.broadcast_shapes(*(v.shape for v in like)))


# ---------------------------------------------------------------------- in place
def clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Limit values to bounds."""
    return x.clamp(low, high)


def at_least_tiny_(x: Tensor) -> Tensor:
    """Raise values to the smallest normal number, NaN too, the difference of equal infinities."""
    return x.nan_to_num_(tiny(x), math.inf).clamp_min_(tiny(x))


def neg_(x: Tensor) -> Tensor:
    """Return -x."""
    return x.neg_()


def mul_(x: Tensor, y: Tensor) -> Tensor:
    """Return x y."""
    return x.mul_(y)


def div_(x: Tensor, y: Tensor) -> Tensor:
    """Return x / y."""
    return x.div_(y)


def zero_infinities_(x: Tensor) -> Tensor:
    """Replace infinities by 0 and keep NaN."""
    return x.masked_fill_(torch.isinf(x), 0) if x.is_complex() else x.nan_to_num_(math.nan, 0.0, 0.0)


def half_sum(x: Tensor, r: Tensor) -> Tensor:
    """Return (x + r) / 2."""
    return x if x is r else torch.add(x * 0.5, r, alpha=0.5)


def lerp(r: Tensor, x: Tensor, t: Any) -> Tensor:
    """Return r + t (x - r)."""
    return torch.lerp(r, x, t)


# ---------------------------------------------------------------------- the last axis
def concat(parts: list[Tensor]) -> Tensor:
    """Concatenate along the last axis."""
    return torch.cat(parts, -1)


def split(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """Split the last axis into equal parts."""
    return x.chunk(count, -1)


def sum_last(x: Tensor) -> Tensor:
    """Return the sum over the last axis, with the axis."""
    return x.sum(-1, keepdim=True)


def mean_last(x: Tensor) -> Tensor:
    """Return the mean over the last axis, with the axis."""
    return x.mean(-1, keepdim=True)


def softmax(x: Tensor) -> Tensor:
    """Return the softmax over the last axis."""
    return torch.softmax(x, -1)


def log_softmax(x: Tensor) -> Tensor:
    """Return the logarithm of the softmax over the last axis."""
    return torch.log_softmax(x, -1)


def sum_rows(x: Tensor) -> Tensor:
    """Return the sum over the second to last axis."""
    return x.sum(-2)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Return the elements at positions of the last axis; the other axes broadcast."""
    return torch.take_along_dim(x, index, -1)


def scatter_add(like: Tensor, *parts: tuple[Tensor, Tensor]) -> Tensor:
    """Add up values at their positions of a last axis as long as that of ``like``, for parts (positions, values)."""
    _, values = parts[0]
    sums = values.new_zeros(*values.shape[:-1], like.shape[-1])
    for index, values in parts:
        sums.scatter_add_(-1, index.expand_as(values), values)
    return sums


def columns(x: Tensor, index: np.ndarray) -> Tensor:
    """Return the same positions of the last axis for all rows."""
    return x[..., torch.as_tensor(index, device=x.device)]


def max_last(x: Tensor) -> Tensor:
    """Return the maximum over the last axis, with the axis."""
    return x.amax(-1, keepdim=True)


def cumsum(x: Tensor) -> Tensor:
    """Return the cumulative sum over the last axis; for conditions, how many hold up to each position."""
    return x.cumsum(-1)


def sort(x: Tensor) -> Tensor:
    """Sort the last axis in ascending order."""
    return x.sort(-1)[0]


def argsort(x: Tensor) -> Tensor:
    """Return the positions that sort the last axis in ascending order, stable for equal values."""
    return torch.argsort(x, dim=-1, stable=True)


def unsort(order: Tensor, values: Tensor) -> Tensor:
    """Put each value at the position that an order, see ``argsort``, names for it."""
    return torch.empty_like(values).scatter_(-1, order, values)


# ---------------------------------------------------------------------- tracing
def cached(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Return the formula: torch runs it eagerly."""
    return formula


# ---------------------------------------------------------------------- control and derivatives
def any_element(condition: Tensor) -> bool:
    """Return whether a condition holds for any element."""
    return bool(condition.any())


def all_finite(x: Tensor) -> bool:
    """Return whether all numbers are finite; also False if their sum overflows."""
    return math.isfinite(x.sum())


def cond(condition: bool, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """Compute one value if a scalar condition holds, else the other."""
    return if_true() if condition else if_false()


def fori_loop(body: Callable[[Any, Any], Any], count: int, value: Tensor) -> Tensor:
    """Return the value after ``value = body(k, value)`` for k = 0, ..., count - 1."""
    for k in range(count):
        value = body(k, value)
    return value


def total(x: Tensor) -> Tensor:
    """Return the sum of all elements in double precision."""
    return x.sum(dtype=torch.float64)


def derivative(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Return the elementwise derivative of a real or complex function, 0 for piecewise constant functions."""
    with torch.enable_grad():
        point = at.detach().requires_grad_()
        value = function(point)
        number = value.real.sum() if value.is_complex() else value.sum()
    if not value.requires_grad:
        return torch.zeros_like(at)
    try:
        (slope,) = torch.autograd.grad(number, point)
    except RuntimeError as error:
        if not any(text in str(error) for text in WITHOUT_DERIVATIVE):
            raise
        return torch.zeros_like(at)
    return slope.conj()
