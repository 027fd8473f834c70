"""What the mathematics asks of TensorFlow's tensors; see ``namespace``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import tensorflow as tf

from .traced import once

exp, expm1, log1p, tanh, sigmoid, sqrt, erfc = (
    tf.exp, tf.math.expm1, tf.math.log1p, tf.tanh, tf.sigmoid, tf.sqrt, tf.math.erfc,
)  # fmt: skip
relu, equal = tf.nn.relu, tf.equal
maximum, minimum, zeros_like, ones_like = tf.maximum, tf.minimum, tf.zeros_like, tf.ones_like
conj, real = tf.math.conj, tf.math.real
softmax, log_softmax, sort = tf.nn.softmax, tf.nn.log_softmax, tf.sort


# ---------------------------------------------------------------------- numbers and dtypes
def _numbers(x: Any) -> Any:
    return ml_dtypes.finfo(x.dtype.as_numpy_dtype)


def isnan(x: Any) -> Any:
    """Whether it is no number."""
    return tf.math.is_nan(tf.abs(x))


def isfinite(x: Any) -> Any:
    """Whether a number is finite."""
    return tf.math.is_finite(tf.abs(x))


def tiny(x: Any) -> Any:
    """The least normal number."""
    return tf.constant(_numbers(x).tiny, x.dtype)


def rounding(dtype: tf.DType) -> float:
    """The rounding unit of a dtype."""
    return float(ml_dtypes.finfo(dtype.real_dtype.as_numpy_dtype).eps)


def eps(x: Any) -> float:
    """The rounding unit."""
    return rounding(x.dtype)


def lowest(x: Any) -> float:
    """The number below all others but -inf."""
    return float(_numbers(x).min)


def is_complex(x: Any) -> bool:
    """Whether its numbers are complex."""
    return x.dtype.is_complex


def cast(x: Any, like: Any) -> Any:
    """In the dtype of another."""
    return tf.cast(x, like.dtype)


matched = cast  # TensorFlow promotes nothing


def constant(values: np.ndarray, like: Any) -> Any:
    """Numbers, in the dtype of another."""
    return tf.constant(values, like.dtype)


def where(condition: Any, a: Any, b: Any) -> Any:
    """Chosen element by element; numbers take the dtype of the other."""
    dtype = a.dtype if tf.is_tensor(a) else b.dtype
    return tf.where(condition, *(v if tf.is_tensor(v) else tf.constant(v, dtype) for v in (a, b)))


def broadcast(x: Any, *like: Any) -> Any:
    """Repeated to the shape that others have together."""
    shape = tf.shape(like[0])
    for other in like[1:]:
        shape = tf.broadcast_dynamic_shape(shape, tf.shape(other))
    return tf.broadcast_to(x, shape)


# ---------------------------------------------------------------------- nothing is in place here
def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    """Within bounds."""
    x = x if low is None else tf.maximum(x, low)
    return x if high is None else tf.minimum(x, high)


neg_, mul_, div_ = tf.negative, tf.multiply, tf.divide


def at_least_tiny_(x: Any) -> Any:
    """At least the least normal number; that number for NaN too, which is how far equal infinities are apart."""
    least = tiny(x)
    return tf.where(x > least, x, least)


def finite_(x: Any) -> Any:
    """0 for infinities; NaN stays."""
    return tf.where(tf.math.is_inf(tf.abs(x)), tf.zeros_like(x), x)


def half_sum(x: Any, r: Any) -> Any:
    """(x + r) / 2."""
    return x if x is r else once(_half_sum)(x, r)


def _half_sum(x: Any, r: Any) -> Any:
    return 0.5 * (x + r)


def lerp(r: Any, x: Any, t: Any) -> Any:
    """r + t (x - r)."""
    return r + t * (x - r)


# ---------------------------------------------------------------------- the last axis
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """Product with a matrix (outputs, inputs), and a bias."""
    made = tf.matmul(x, weight, transpose_b=True)
    return made if bias is None else made + bias


def concat(parts: list[Any]) -> Any:
    """Parts side by side."""
    return tf.concat(parts, -1)


def split(x: Any, count: int) -> list[Any]:
    """Equal parts."""
    return tf.split(x, count, -1)


def sum_last(x: Any) -> Any:
    """The sum, its axis kept."""
    return tf.reduce_sum(x, -1, keepdims=True)


def mean_last(x: Any) -> Any:
    """The mean, its axis kept."""
    return tf.reduce_mean(x, -1, keepdims=True)


def sum_rows(x: Any) -> Any:
    """The sum over the last axis but one."""
    return tf.reduce_sum(x, -2)


def take(x: Any, index: Any) -> Any:
    """The elements at positions; all other axes are equal."""
    return tf.gather(x, index, batch_dims=x.shape.rank - 1)


def put(like: Any, *parts: tuple[Any, Any]) -> Any:
    """Sums of (positions, values) on a last axis as long as another's."""
    size = tf.shape(like)[-1]
    placed = [tf.one_hot(index, size, dtype=values.dtype) * values[..., None] for index, values in parts]
    return tf.reduce_sum(tf.concat(placed, -2), -2)


def columns(x: Any, index: np.ndarray) -> Any:
    """The same positions of all rows."""
    return tf.gather(x, index, axis=-1)


def max_last(x: Any) -> Any:
    """The greatest value, its axis kept."""
    return tf.reduce_max(x, -1, keepdims=True)


def count_up(x: Any) -> Any:
    """How many conditions hold up to each position."""
    return tf.cumsum(tf.cast(x, tf.int32), -1)


def argsort(x: Any) -> Any:
    """The ascending order; of equal ones the first comes first."""
    return tf.argsort(x, stable=True)


def unsorted(order: Any, values: Any) -> Any:
    """Each value at the position that an order names for it."""
    return tf.gather(values, tf.argsort(order, stable=True), batch_dims=values.shape.rank - 1)


# ---------------------------------------------------------------------- control and derivatives
def anywhere(condition: Any) -> Any:
    """Whether a condition holds for any element."""
    return tf.reduce_any(condition)


def all_finite(x: Any) -> Any:
    """Whether all numbers are finite."""
    return tf.reduce_all(isfinite(x))


def cond(condition: Any, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """One value if a single condition holds, else another; only one of them is computed."""
    return tf.cond(condition, if_true, if_false)


def fold(turn: Callable[[Any, Any], Any], count: int, start: Any) -> Any:
    """``turn(k, value)``, again and again, for k below a count."""
    return tf.while_loop(lambda k, _: k < count, lambda k, value: (k + 1, turn(k, value)), (0, start))[1]


def total(x: Any) -> Any:
    """The sum of all elements, in double precision."""
    return tf.reduce_sum(tf.cast(x, tf.float64))


def derivative(function: Callable[[Any], Any], at: Any) -> Any:
    """Elementwise derivative, of complex functions too; 0 where the function is a step."""
    point = tf.identity(at)
    try:
        value = function(point)
        (slope,) = tf.gradients(value, point, tf.ones_like(value))
    except LookupError:  # TensorFlow knows no derivative
        slope = None
    return tf.zeros_like(at) if slope is None else tf.math.conj(slope)
