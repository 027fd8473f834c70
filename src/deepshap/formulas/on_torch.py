"""What the mathematics asks of PyTorch's tensors; see ``namespace``. Forms in place save passes over the memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WITHOUT_DERIVATIVE = ("not implemented", "no autograd formula")  # how torch says so

exp, expm1, log1p, tanh, sigmoid, sqrt, erfc = (
    torch.exp, torch.expm1, torch.log1p, torch.tanh, torch.sigmoid, torch.sqrt, torch.erfc,
)  # fmt: skip
relu, where, equal = torch.relu, torch.where, torch.eq
isnan, isfinite = torch.isnan, torch.isfinite
maximum, minimum, zeros_like, ones_like = torch.maximum, torch.minimum, torch.zeros_like, torch.ones_like
conj, real, linear = torch.conj, torch.real, F.linear


# ---------------------------------------------------------------------- numbers and dtypes
def tiny(x: Tensor) -> float:
    """The least normal number."""
    return torch.finfo(x.dtype).tiny


def eps(x: Tensor) -> float:
    """The rounding unit."""
    return torch.finfo(x.dtype).eps


def lowest(x: Tensor) -> float:
    """The number below all others but -inf."""
    return torch.finfo(x.dtype).min


def is_complex(x: Tensor) -> bool:
    """Whether its numbers are complex."""
    return x.is_complex()


def cast(x: Tensor, like: Tensor) -> Tensor:
    """In the dtype of another."""
    return x.to(like.dtype)


def matched(x: Tensor, like: Tensor) -> Tensor:
    """As it can be combined with another: torch promotes by itself."""
    return x


def constant(values: np.ndarray, like: Tensor) -> Tensor:
    """Numbers, in the dtype and on the device of another."""
    return torch.as_tensor(values).to(like)


def broadcast(x: Tensor, *like: Tensor) -> Tensor:
    """Repeated to the shape that others have together."""
    return x.expand(torch.broadcast_shapes(*(v.shape for v in like)))


# ---------------------------------------------------------------------- in place
def clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Within bounds."""
    return x.clamp(low, high)


def at_least_tiny_(x: Tensor) -> Tensor:
    """At least the least normal number; that number for NaN too, which is how far equal infinities are apart."""
    return x.nan_to_num_(tiny(x), math.inf).clamp_min_(tiny(x))


def neg_(x: Tensor) -> Tensor:
    """-x."""
    return x.neg_()


def mul_(x: Tensor, y: Tensor) -> Tensor:
    """x y."""
    return x.mul_(y)


def div_(x: Tensor, y: Tensor) -> Tensor:
    """x / y."""
    return x.div_(y)


def finite_(x: Tensor) -> Tensor:
    """0 for infinities; NaN stays."""
    return x.masked_fill_(torch.isinf(x), 0) if x.is_complex() else x.nan_to_num_(math.nan, 0.0, 0.0)


def half_sum(x: Tensor, r: Tensor) -> Tensor:
    """(x + r) / 2."""
    return x if x is r else torch.add(x * 0.5, r, alpha=0.5)


def lerp(r: Tensor, x: Tensor, t: Any) -> Tensor:
    """r + t (x - r)."""
    return torch.lerp(r, x, t)


# ---------------------------------------------------------------------- the last axis
def concat(parts: list[Tensor]) -> Tensor:
    """Parts side by side."""
    return torch.cat(parts, -1)


def split(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """Equal parts."""
    return x.chunk(count, -1)


def sum_last(x: Tensor) -> Tensor:
    """The sum, its axis kept."""
    return x.sum(-1, keepdim=True)


def mean_last(x: Tensor) -> Tensor:
    """The mean, its axis kept."""
    return x.mean(-1, keepdim=True)


def softmax(x: Tensor) -> Tensor:
    """Over the last axis."""
    return torch.softmax(x, -1)


def log_softmax(x: Tensor) -> Tensor:
    """Over the last axis."""
    return torch.log_softmax(x, -1)


def sum_rows(x: Tensor) -> Tensor:
    """The sum over the last axis but one."""
    return x.sum(-2)


def take(x: Tensor, index: Tensor) -> Tensor:
    """The elements at positions; all other axes broadcast."""
    return torch.take_along_dim(x, index, -1)


def put(like: Tensor, *parts: tuple[Tensor, Tensor]) -> Tensor:
    """Sums of (positions, values) on a last axis as long as another's."""
    _, values = parts[0]
    found = values.new_zeros(*values.shape[:-1], like.shape[-1])
    for index, values in parts:
        found.scatter_add_(-1, index.expand_as(values), values)
    return found


def columns(x: Tensor, index: np.ndarray) -> Tensor:
    """The same positions of all rows."""
    return x[..., torch.as_tensor(index, device=x.device)]


def max_last(x: Tensor) -> Tensor:
    """The greatest value, its axis kept."""
    return x.amax(-1, keepdim=True)


def count_up(x: Tensor) -> Tensor:
    """How many conditions hold up to each position."""
    return x.cumsum(-1)


def sort(x: Tensor) -> Tensor:
    """Ascending."""
    return x.sort(-1)[0]


def argsort(x: Tensor) -> Tensor:
    """The ascending order; of equal ones the first comes first."""
    return torch.argsort(x, dim=-1, stable=True)


def unsorted(order: Tensor, values: Tensor) -> Tensor:
    """Each value at the position that an order names for it."""
    return torch.empty_like(values).scatter_(-1, order, values)


# ---------------------------------------------------------------------- formulas made once
def once(formula: Callable[..., Any]) -> Callable[..., Any]:
    """The formula itself: nothing has to be made."""
    return formula


# ---------------------------------------------------------------------- control and derivatives
def anywhere(condition: Tensor) -> bool:
    """Whether a condition holds for any element."""
    return bool(condition.any())


def all_finite(x: Tensor) -> bool:
    """Whether all numbers are finite; False for some whose sum is beyond all numbers, too."""
    return math.isfinite(x.sum())


def cond(condition: bool, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """One value if a single condition holds, else another; only one of them is computed."""
    return if_true() if condition else if_false()


def fold(turn: Callable[[Any, Any], Any], count: int, start: Tensor) -> Tensor:
    """``turn(k, value)``, again and again, for k below a count."""
    for k in range(count):
        start = turn(k, start)
    return start


def total(x: Tensor) -> Tensor:
    """The sum of all elements, in double precision."""
    return x.sum(dtype=torch.float64)


def derivative(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Elementwise derivative, of complex functions too; 0 where the function is a step."""
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
