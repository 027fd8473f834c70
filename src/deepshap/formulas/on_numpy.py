"""Array functions of the formulas for NumPy, see ``namespace``.

Callers silence NumPy's warnings with ``np.errstate``. Only the functions that need torch import it, because the TensorFlow
engine works without torch.
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
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def erfc(x: Array) -> Array:
    """Return the complementary error function, which NumPy lacks."""
    import torch

    return torch.erfc(torch.from_numpy(x)).numpy()


def conj(x: Array) -> Array:
    """Return the complex conjugate."""
    return x.conj() if is_complex(x) else x


# ---------------------------------------------------------------------- numbers and dtypes
@functools.cache
def _numbers(dtype: Any) -> tuple[float, float, float]:
    limits = np.finfo(dtype)
    return float(limits.tiny), float(limits.eps), float(limits.min)


def tiny(x: Array) -> float:
    """Return the smallest positive normal number of the dtype."""
    return _numbers(x.dtype)[0]


def eps(x: Array) -> float:
    """Return the rounding unit of the dtype."""
    return _numbers(x.dtype)[1]


def lowest(x: Array) -> float:
    """Return the lowest finite number of the dtype."""
    return _numbers(x.dtype)[2]


def is_complex(x: Array) -> bool:
    """Return whether the dtype is complex."""
    return x.dtype.kind == "c"


def cast(x: Array, like: Array) -> Array:
    """Cast an array to the dtype of another."""
    return x.astype(like.dtype)


def match_dtype(x: Array, like: Array) -> Array:
    """Return the array: NumPy promotes dtypes by itself."""
    return x


def where(condition: Array, a: Any, b: Any) -> Array:
    """Select elements of a or b by a condition; a number gets the dtype of the other argument."""
    if isinstance(a, float):
        return np.where(condition, b.dtype.type(a), b)
    return np.where(condition, a, a.dtype.type(b) if isinstance(b, float) else b)


def broadcast(x: Array, *like: Array) -> Array:
    """Broadcast an array to the common shape of others."""
    return np.array(np.broadcast_to(x, np.broadcast_shapes(*(v.shape for v in like))))


# ---------------------------------------------------------------------- in place
def clip(x: Array, low: float | None = None, high: float | None = None) -> Array:
    """Limit values to bounds."""
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def at_least_tiny_(x: Array) -> Array:
    """Raise values to the smallest normal number, NaN too, the difference of equal infinities."""
    return np.fmax(x, tiny(x), out=x)


def neg_(x: Array) -> Array:
    """Return -x."""
    return np.negative(x, out=x)


def mul_(x: Array, y: Array) -> Array:
    """Return x y."""
    return np.multiply(x, y, out=x)


def div_(x: Array, y: Array) -> Array:
    """Return x / y."""
    return np.divide(x, y, out=x)


def zero_infinities_(x: Array) -> Array:
    """Replace infinities by 0 and keep NaN."""
    np.copyto(x, 0, where=np.isinf(x))
    return x


def half_sum(x: Array, r: Array) -> Array:
    """Return (x + r) / 2."""
    return x if x is r else x * 0.5 + r * 0.5


# ---------------------------------------------------------------------- the last axis
def sum_last(x: Array) -> Array:
    """Return the sum over the last axis, with the axis."""
    return np.add.reduce(x, -1, keepdims=True)


def mean_last(x: Array) -> Array:
    """Return the mean over the last axis, with the axis."""
    return sum_last(x) / x.shape[-1]


def softmax(x: Array) -> Array:
    """Return the softmax over the last axis."""
    return np.exp(log_softmax(x))


def log_softmax(x: Array) -> Array:
    """Return the logarithm of the softmax over the last axis."""
    below = x - max_last(x)
    return below - np.log(sum_last(np.exp(below)))


def max_last(x: Array) -> Array:
    """Return the maximum over the last axis, with the axis."""
    return np.maximum.reduce(x, -1, keepdims=True)


# ---------------------------------------------------------------------- tracing
def cached(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Return the formula: NumPy traces nothing."""
    return formula


# ---------------------------------------------------------------------- control and derivatives
def any_element(condition: Array) -> bool:
    """Return whether a condition holds for any element."""
    return bool(condition.any())


def all_finite(x: Array) -> bool:
    """Return whether all numbers are finite; also False if their sum overflows."""
    return math.isfinite(np.add.reduce(x, None))


def cond(condition: bool, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """Compute one value if a scalar condition holds, else the other."""
    return if_true() if condition else if_false()


def derivative(function: Callable[[Any], Any], at: Array) -> Array:
    """Return the elementwise derivative of a function of torch tensors, 0 for piecewise constant functions."""
    import torch

    from . import on_torch

    return on_torch.derivative(function, torch.from_numpy(at)).numpy(force=True)
