"""What the mathematics asks of NumPy's arrays; see ``namespace``. Of few numbers each function takes half of what torch's takes.

The caller wants no warnings (``np.errstate``). torch is imported by what needs it alone: TensorFlow's engine works without it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

exp, expm1, log1p, tanh, sqrt = np.exp, np.expm1, np.log1p, np.tanh, np.sqrt
equal, isnan, isfinite = np.equal, np.isnan, np.isfinite
maximum, minimum, zeros_like, ones_like = np.maximum, np.minimum, np.zeros_like, np.ones_like
real = np.real

Array = Any


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def erfc(x: Array) -> Array:
    """The complementary error function, which NumPy does not have."""
    import torch

    return torch.erfc(torch.from_numpy(x)).numpy()


def conj(x: Array) -> Array:
    """The complex conjugate."""
    return x.conj() if is_complex(x) else x


# ---------------------------------------------------------------------- numbers and dtypes
@functools.cache
def _numbers(dtype: Any) -> tuple[float, float, float]:
    limits = np.finfo(dtype)
    return float(limits.tiny), float(limits.eps), float(limits.min)


def tiny(x: Array) -> float:
    """The least normal number."""
    return _numbers(x.dtype)[0]


def eps(x: Array) -> float:
    """The rounding unit."""
    return _numbers(x.dtype)[1]


def lowest(x: Array) -> float:
    """The number below all others but -inf."""
    return _numbers(x.dtype)[2]


def is_complex(x: Array) -> bool:
    """Whether its numbers are complex."""
    return x.dtype.kind == "c"


def cast(x: Array, like: Array) -> Array:
    """In the dtype of another."""
    return x.astype(like.dtype)


def matched(x: Array, like: Array) -> Array:
    """As it can be combined with another: NumPy promotes by itself."""
    return x


def where(condition: Array, a: Any, b: Any) -> Array:
    """Chosen element by element; numbers take the dtype of the other."""
    if isinstance(a, float):
        return np.where(condition, b.dtype.type(a), b)
    return np.where(condition, a, a.dtype.type(b) if isinstance(b, float) else b)


def broadcast(x: Array, *like: Array) -> Array:
    """Repeated to the shape that others have together."""
    return np.array(np.broadcast_to(x, np.broadcast_shapes(*(v.shape for v in like))))


# ---------------------------------------------------------------------- in place
def clip(x: Array, low: float | None = None, high: float | None = None) -> Array:
    """Within bounds."""
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def at_least_tiny_(x: Array) -> Array:
    """At least the least normal number; that number for NaN too, which is how far equal infinities are apart."""
    return np.fmax(x, tiny(x), out=x)


def neg_(x: Array) -> Array:
    """-x."""
    return np.negative(x, out=x)


def mul_(x: Array, y: Array) -> Array:
    """x y."""
    return np.multiply(x, y, out=x)


def div_(x: Array, y: Array) -> Array:
    """x / y."""
    return np.divide(x, y, out=x)


def finite_(x: Array) -> Array:
    """0 for infinities; NaN stays."""
    np.copyto(x, 0, where=np.isinf(x))
    return x


def half_sum(x: Array, r: Array) -> Array:
    """(x + r) / 2."""
    return x if x is r else x * 0.5 + r * 0.5


# ---------------------------------------------------------------------- the last axis
def sum_last(x: Array) -> Array:
    """The sum, its axis kept."""
    return np.add.reduce(x, -1, keepdims=True)


def mean_last(x: Array) -> Array:
    """The mean, its axis kept."""
    return sum_last(x) / x.shape[-1]


def softmax(x: Array) -> Array:
    """Over the last axis."""
    return np.exp(log_softmax(x))


def log_softmax(x: Array) -> Array:
    """Over the last axis."""
    below = x - max_last(x)
    return below - np.log(sum_last(np.exp(below)))


def max_last(x: Array) -> Array:
    """The greatest value, its axis kept."""
    return np.maximum.reduce(x, -1, keepdims=True)


# ---------------------------------------------------------------------- formulas made once
def once(formula: Callable[..., Any]) -> Callable[..., Any]:
    """The formula itself: nothing has to be made."""
    return formula


# ---------------------------------------------------------------------- control and derivatives
def anywhere(condition: Array) -> bool:
    """Whether a condition holds for any element."""
    return bool(condition.any())


def all_finite(x: Array) -> bool:
    """Whether all numbers are finite; False for some whose sum is beyond all numbers, too."""
    return math.isfinite(np.add.reduce(x, None))


def cond(condition: bool, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """One value if a single condition holds, else another; only one of them is computed."""
    return if_true() if condition else if_false()


def derivative(function: Callable[[Any], Any], at: Array) -> Array:
    """Elementwise derivative of a function that takes torch's tensors; 0 where it is a step."""
    import torch

    from . import on_torch

    return on_torch.derivative(function, torch.from_numpy(at)).numpy(force=True)
