"""Secant slopes (f(x) - f(r)) / (x - r) without cancellation, for TensorFlow.

The formulas are those of ``deepshap.engines.torch.secants`` (docs/mathematics.md); a test ties the two together. Each takes the
example's and the reference's value and output, ``(x, r, y, y_r)``, and tends to the derivative as x tends to r.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import tensorflow as tf


def _ones(d: Any) -> Any:
    return tf.ones_like(d)


def guarded(condition: Any, a: Any, b: Any, otherwise: Any) -> Any:
    """The quotient a / b where the condition holds, else another value; b may be 0 elsewhere."""
    return tf.where(condition, a / tf.where(condition, b, tf.ones_like(b)), otherwise)


def tanhc(d: Any) -> Any:
    """tanh(d) / d, which is even, and 1 at d = 0."""
    size = tf.maximum(tf.abs(d), _tiny(d.dtype))
    return tf.tanh(size) / size


def _tiny(dtype: tf.DType) -> Any:
    return tf.constant(ml_dtypes.finfo(dtype.as_numpy_dtype).tiny, dtype)


def eps(dtype: tf.DType) -> float:
    """Rounding unit of a dtype."""
    return float(ml_dtypes.finfo(dtype.as_numpy_dtype).eps)


def expm1c(d: Any) -> Any:
    """(exp(d) - 1) / d, which is 1 at d = 0."""
    return guarded(d != 0, tf.math.expm1(d), d, _ones(d))


def log1pc(d: Any) -> Any:
    """log(1 + d) / d, which is 1 at d = 0."""
    return guarded(d != 0, tf.math.log1p(d), d, _ones(d))


def tanh(x: Any, r: Any, y: Any, yr: Any) -> Any:
    """(1 - tanh x tanh r) tanhc(x - r)."""
    return (1 - y * yr) * tanhc(x - r)


def sigmoid(x: Any, r: Any, y: Any, yr: Any) -> Any:
    """[y (1 - y_r) + y_r (1 - y)] / 2 * tanhc((x - r) / 2)."""
    return 0.5 * (y * (1 - yr) + yr * (1 - y)) * tanhc((x - r) / 2)


def exp(x: Any, r: Any, y: Any, yr: Any) -> Any:
    """The larger of the two exponentials times expm1c of the distance down to the smaller."""
    return tf.maximum(y, yr) * expm1c(-tf.abs(x - r))


def expm1(x: Any, r: Any, y: Any, yr: Any) -> Any:
    """As exp, whose values are these plus one."""
    return exp(x, r, tf.exp(x), tf.exp(r))


def log(x: Any, r: Any, y: Any, yr: Any) -> Any:
    """log1p(d / lower) / d, d the distance up from the smaller argument."""
    return _log_secant(tf.minimum(x, r), tf.abs(x - r), tf.abs(y - yr))


def _log_secant(lower: Any, distance: Any, difference: Any) -> Any:
    near = distance <= lower  # beyond that the quotient is exact, and the ratio might overflow
    ratio = guarded(near, distance, lower, tf.zeros_like(distance))
    return tf.where(near, log1pc(ratio) / lower, guarded(~near, difference, distance, tf.zeros_like(distance)))


def log1p(x: Any, r: Any, y: Any, yr: Any) -> Any:
    """As log, at arguments plus one."""
    return _log_secant(1 + tf.minimum(x, r), tf.abs(x - r), tf.abs(y - yr))


def sqrt(x: Any, r: Any, y: Any, yr: Any) -> Any:
    """1 / (sqrt x + sqrt r)."""
    return 1 / (y + yr)


def rsqrt(x: Any, r: Any, y: Any, yr: Any) -> Any:
    """-y y_r / (sqrt x + sqrt r), with y = 1 / sqrt x."""
    return -y * yr / (tf.sqrt(x) + tf.sqrt(r))


def square(x: Any, r: Any, y: Any, yr: Any) -> Any:
    """The sum x + r."""
    return x + r


def reciprocal(x: Any, r: Any, y: Any, yr: Any) -> Any:
    """-1 / (x r)."""
    return -y * yr


def relu(x: Any, r: Any, y: Any, yr: Any) -> Any:
    """The slope of the piece both points lie on, else the exact quotient."""
    apart = (x > 0) != (r > 0)
    return guarded(apart, y - yr, x - r, tf.cast(x > 0, x.dtype))


def of(function: Callable[[Any], Any]) -> Callable[[Any, Any, Any, Any], Any]:
    """Secant of any elementwise function.

    The derivative at the midpoint wherever it explains the difference to rounding error, the quotient elsewhere.
    So the slope times ``x - r`` always is the difference of the outputs to a few units in the last place of the
    outputs, for kinks and steps too, and close points get a derivative instead of a quotient of rounding errors.
    Where the derivative is chosen, its distance to the true secant is at most ``8 eps (|y| + |y_r|) / |x - r|``.
    """

    def secant(x: Any, r: Any, y: Any, yr: Any) -> Any:
        slope = derivative(function, (x + r) / 2)
        distance, difference = x - r, y - yr
        rounding = tf.cast(8 * eps(y.dtype), y.dtype) * (tf.abs(y) + tf.abs(yr))
        explained = tf.abs(difference - slope * distance) <= rounding
        still = tf.equal(distance, 0)
        slope = tf.where(explained, slope, difference / tf.where(still, _ones(distance), distance))
        return tf.where(still & ~tf.math.is_finite(slope), tf.zeros_like(slope), slope)

    return secant


def derivative(function: Callable[[Any], Any], at: Any) -> Any:
    """Elementwise derivative by TensorFlow; 0 where the function is a step."""
    point = tf.identity(at)
    try:
        (slope,) = tf.gradients(function(point), point)
    except LookupError:  # TensorFlow knows no derivative
        slope = None
    return tf.zeros_like(at) if slope is None else slope
