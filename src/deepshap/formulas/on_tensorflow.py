"""Array functions of the formulas for TensorFlow, see ``namespace``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import tensorflow as tf

from .traced import cached

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
    """Return whether each element is NaN."""
    return tf.math.is_nan(tf.abs(x))


def isfinite(x: Any) -> Any:
    """Return whether each element is finite."""
    return tf.math.is_finite(tf.abs(x))


def tiny(x: Any) -> Any:
    """Return the smallest positive normal number of the dtype."""
    return tf.constant(_numbers(x).tiny, x.dtype)


def rounding(dtype: tf.DType) -> float:
    """Return the rounding unit of a dtype."""
    return float(ml_dtypes.finfo(dtype.real_dtype.as_numpy_dtype).eps)


def eps(x: Any) -> float:
    """Return the rounding unit of the dtype."""
    return rounding(x.dtype)


def lowest(x: Any) -> float:
    """Return the lowest finite number of the dtype."""
    return float(_numbers(x).min)


def is_complex(x: Any) -> bool:
    """Return whether the dtype is complex."""
    return x.dtype.is_complex


def cast(x: Any, like: Any) -> Any:
    """Cast a tensor to the dtype of another."""
    return tf.cast(x, like.dtype)


match_dtype = cast  # TensorFlow promotes nothing


def constant(values: np.ndarray, like: Any) -> Any:
    """Return numbers as a tensor with the dtype of another."""
    return tf.constant(values, like.dtype)


def where(condition: Any, a: Any, b: Any) -> Any:
    """Select elements of a or b by a condition; a number gets the dtype of the other argument."""
    dtype = a.dtype if tf.is_tensor(a) else b.dtype
    return tf.where(condition, *(v if tf.is_tensor(v) else tf.constant(v, dtype) for v in (a, b)))


def broadcast(x: Any, *like: Any) -> Any:
    """Broadcast a tensor to the common shape of others."""
    shape = tf.shape(like[0])
    for tensor in like[1:]:
        shape = tf.broadcast_dynamic_shape(shape, tf.shape(tensor))
    return tf.broadcast_to(x, shape)


# ---------------------------------------------------------------------- in place in torch, not here
def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    """Limit values to bounds."""
    x = x if low is None else tf.maximum(x, low)
    return x if high is None else tf.minimum(x, high)


neg_, mul_, div_ = tf.negative, tf.multiply, tf.divide


def at_least_tiny_(x: Any) -> Any:
    """Raise values to the smallest normal number, NaN too, the difference of equal infinities."""
    least = tiny(x)
    return tf.where(x > least, x, least)


def zero_infinities_(x: Any) -> Any:
    """Replace infinities by 0 and keep NaN."""
    return tf.where(tf.math.is_inf(tf.abs(x)), tf.zeros_like(x), x)


def half_sum(x: Any, r: Any) -> Any:
    """Return (x + r) / 2."""
    return x if x is r else cached(_half_sum)(x, r)


def _half_sum(x: Any, r: Any) -> Any:
    return 0.5 * (x + r)


def lerp(r: Any, x: Any, t: Any) -> Any:
    """Return r + t (x - r)."""
    return r + t * (x - r)


# ---------------------------------------------------------------------- the last axis
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """Return the product with a matrix (outputs, inputs), plus a bias."""
    product = tf.matmul(x, weight, transpose_b=True)
    return product if bias is None else product + bias


def concat(parts: list[Any]) -> Any:
    """Concatenate along the last axis."""
    return tf.concat(parts, -1)


def split(x: Any, count: int) -> list[Any]:
    """Split the last axis into equal parts."""
    return tf.split(x, count, -1)


def sum_last(x: Any) -> Any:
    """Return the sum over the last axis, with the axis."""
    return tf.reduce_sum(x, -1, keepdims=True)


def mean_last(x: Any) -> Any:
    """Return the mean over the last axis, with the axis."""
    return tf.reduce_mean(x, -1, keepdims=True)


def sum_rows(x: Any) -> Any:
    """Return the sum over the second to last axis."""
    return tf.reduce_sum(x, -2)


def take(x: Any, index: Any) -> Any:
    """Return the elements at positions of the last axis; the other axes must be equal."""
    return tf.gather(x, index, batch_dims=x.shape.rank - 1)


def scatter_add(like: Any, *parts: tuple[Any, Any]) -> Any:
    """Add up values at their positions of a last axis as long as that of ``like``, for parts (positions, values)."""
    size = tf.shape(like)[-1]
    placed = [tf.one_hot(index, size, dtype=values.dtype) * values[..., None] for index, values in parts]
    return tf.reduce_sum(tf.concat(placed, -2), -2)


def columns(x: Any, index: np.ndarray) -> Any:
    """Return the same positions of the last axis for all rows."""
    return tf.gather(x, index, axis=-1)


def max_last(x: Any) -> Any:
    """Return the maximum over the last axis, with the axis."""
    return tf.reduce_max(x, -1, keepdims=True)


def cumsum(x: Any) -> Any:
    """Return the cumulative sum over the last axis; for conditions, how many hold up to each position."""
    return tf.cumsum(tf.cast(x, tf.int32), -1)


def argsort(x: Any) -> Any:
    """Return the positions that sort the last axis in ascending order, stable for equal values."""
    return tf.argsort(x, stable=True)


def unsort(order: Any, values: Any) -> Any:
    """Put each value at the position that an order, see ``argsort``, names for it."""
    return tf.gather(values, tf.argsort(order, stable=True), batch_dims=values.shape.rank - 1)


# ---------------------------------------------------------------------- control and derivatives
def any_element(condition: Any) -> Any:
    """Return whether a condition holds for any element."""
    return tf.reduce_any(condition)


def all_finite(x: Any) -> Any:
    """Return whether all numbers are finite."""
    return tf.reduce_all(isfinite(x))


def cond(condition: Any, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """Compute one value if a scalar condition holds, else the other."""
    return tf.cond(condition, if_true, if_false)


def fori_loop(body: Callable[[Any, Any], Any], count: int, start: Any) -> Any:
    """Return the value after ``value = body(k, value)`` for k = 0, ..., count - 1."""
    return tf.while_loop(lambda k, _: k < count, lambda k, value: (k + 1, body(k, value)), (0, start))[1]


def total(x: Any) -> Any:
    """Return the sum of all elements in double precision."""
    return tf.reduce_sum(tf.cast(x, tf.float64))


def derivative(function: Callable[[Any], Any], at: Any) -> Any:
    """Return the elementwise derivative of a real or complex function, 0 for piecewise constant functions."""
    point = tf.identity(at)
    try:
        value = function(point)
        (slope,) = tf.gradients(value, point, tf.ones_like(value))
    except LookupError:  # TensorFlow has no derivative for it
        slope = None
    return tf.zeros_like(at) if slope is None else tf.math.conj(slope)
