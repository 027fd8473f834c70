"""Secant slopes (f(x) - f(r)) / (x - r) without cancellation, the multipliers of DeepLIFT's rescale rule.

Each secant takes the example's and the reference's value and output, ``(x, r, y, y_r)``, in any shapes that broadcast, and
returns the slope, which tends to the derivative as x tends to r. The closed forms lose no digits, however close x and r are;
``from_function`` is for functions without a closed form. Formulas: docs/mathematics.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from . import Array, namespace

Secant = Callable[[Array, Array, Array, Array], Array]


def _difference(x: Array, r: Array) -> Array:
    """Return x - r, and 0 for equal infinities: logits masked on both sides do not differ."""
    xp = namespace(x)
    return xp.where(xp.equal(x, r), 0.0, x - r)


def tanhc(d: Array) -> Array:
    """Return tanh(d) / d, an even function that is 1 at d = 0."""
    xp = namespace(d)
    size = xp.at_least_tiny_(abs(d))
    return xp.div_(xp.tanh(size), size)


def decay(d: Array) -> Array:
    """Return (1 - exp(-|d|)) / |d|, and 1 at d = 0."""
    xp = namespace(d)
    negative = xp.neg_(xp.at_least_tiny_(abs(d)))
    return xp.div_(xp.expm1(negative), negative)


def log1pc(d: Array) -> Array:
    """Return log(1 + d) / d, and 1 at d = 0."""
    xp = namespace(d)
    return quotient_where(~xp.equal(d, 0), xp.log1p(d), d, 1.0)


def quotient_where(condition: Array, a: Array, b: Array, otherwise: Array | float = 0.0) -> Array:
    """Return a / b where a condition holds, else ``otherwise``; there b may be 0."""
    xp = namespace(b)
    return xp.where(condition, a / b, otherwise)


def tanh(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return (1 - y y_r) tanhc(x - r)."""
    return (1 - y * yr) * tanhc(x - r)


def sigmoid(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return [y (1 - y_r) + y_r (1 - y)] / 2 * tanhc((x - r) / 2)."""
    return _sigmoid(x - r, y, yr)


def _sigmoid(d: Array, y: Array, yr: Array) -> Array:
    """Return the secant of sigmoid from the difference d = x - r."""
    return _mean_slope(y, yr) * tanhc(d / 2)


def _mean_slope(y: Array, yr: Array) -> Array:
    return 0.5 * (y * (1 - yr) + yr * (1 - y))


def tanh_fused(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return the secant of tanh by ``_fused``."""
    return _fused(x - r, 1.0, 1 - y * yr, y - yr)


def sigmoid_fused(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return the secant of sigmoid by ``_fused``."""
    return _fused(x - r, 0.5, 0.5 * (y + yr) - y * yr, y - yr)


def _fused(d: Array, scale: float, product: Array, difference: Array) -> Array:
    """Return difference / d for distant points and the equal ``product tanhc(scale d)`` for near ones.

    A Padé approximant replaces tanhc, so that this takes one division and no transcendental function.
    """
    xp = namespace(d)
    far, above, below = _tanhc_near(d * d * scale**2)
    return xp.where(far, difference, product * above) / xp.where(far, d, below)


def _tanhc_near(u: Array) -> tuple[Array, Array, Array]:
    """Return whether sqrt(u) > 1/2, and numerator and denominator of tanhc(sqrt(u)) elsewhere, exact to rounding.

    NaN, the difference of equal infinities, counts as 0.
    """
    xp = namespace(u)
    far, u = u > 0.25, xp.where(u <= 0.25, u, 0.0)
    if xp.eps(u) > 1e-8:  # float32 or less: an error of 3e-8 is below rounding
        return far, 1 + u * (2 / 21), 1 + u * (3 / 7 + u * (1 / 105))
    numerator = 1 + u * (5 / 39 + u * (2 / 715 + u * (1 / 135135)))
    return far, numerator, 1 + u * (6 / 13 + u * (10 / 429 + u * (4 / 19305)))


# For compilers that fuse all operations into one pass.
FUSED: dict[Secant, Secant] = {tanh: tanh_fused, sigmoid: sigmoid_fused}


def exp(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return the larger of the two exponentials times ``decay(x - r)``."""
    return zero_infinities(exponential(x - r, y, yr))


def exponential(d: Array, y: Array, yr: Array) -> Array:
    """Return the secant of exp from the difference d of the arguments: the larger exponential times ``decay(d)``."""
    xp = namespace(d)
    return xp.mul_(xp.maximum(y, yr), decay(d))


def exponential_fused(d: Array, y: Array, yr: Array) -> Array:
    """Return the same as ``exponential`` by a Padé approximant.

    For near points decay(2 t) = tanhc(t) / (1 + tanh(t)); for distant ones the slope is the quotient of differences.
    """
    xp = namespace(d)
    size = xp.at_least_tiny_(abs(d) * 0.5)
    far, numerator, denominator = _tanhc_near(size * size)
    return xp.where(far, y - yr, xp.maximum(y, yr) * numerator) / xp.where(far, d, denominator + size * numerator)


def expm1(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return the secant of exp: the functions differ by a constant."""
    xp = namespace(x)
    return exp(x, r, xp.exp(x), xp.exp(r))


def log(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return log1p(d / lower) / d, where d = |x - r| and ``lower`` is the smaller argument."""
    return _log_secant(namespace(x).minimum(x, r), abs(_difference(x, r)), abs(_difference(y, yr)))


def _log_secant(lower: Array, distance: Array, difference: Array) -> Array:
    near = distance <= lower  # elsewhere the quotient is exact, and the ratio might overflow
    ratio = namespace(lower).where(near, distance / lower, 0.0)
    return zero_infinities(quotient_where(~near, difference, distance, log1pc(ratio) / lower))


def log1p(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return the secant of log at 1 + x and 1 + r."""
    return _log_secant(1 + namespace(x).minimum(x, r), abs(_difference(x, r)), abs(_difference(y, yr)))


def sqrt(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return 1 / (y + y_r)."""
    return zero_infinities(1 / (y + yr))


def rsqrt(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return -y y_r / (sqrt x + sqrt r), where y = 1 / sqrt x."""
    xp = namespace(x)
    return zero_infinities(-y * yr / (xp.sqrt(x) + xp.sqrt(r)))


def square(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return x + r."""
    return x + r


def reciprocal(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return -1 / (x r)."""
    return zero_infinities(-y * yr)


def relu(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return the slope of the linear piece if both points lie on one, else the quotient."""
    xp = namespace(x)
    # On a piece the quotient equals its slope exactly: both differences round alike.
    return xp.where(xp.equal(x, r), xp.cast(x > 0, x), xp.div_(y - yr, x - r))


def silu(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return the secant of the product x sigmoid(x): the mean of sigmoid plus the mean of x times the secant of sigmoid."""
    xp = namespace(x)
    s, sr, d = xp.sigmoid(x), xp.sigmoid(r), x - r
    return _quotient_beyond_one(d, y, yr, xp.half_sum(s, sr) + xp.half_sum(x, r) * _sigmoid(d, s, sr))


def gelu(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return the secant of the product x Phi(x), where Phi is the normal distribution function, as in ``silu``."""
    return namespace(x).cached(_gelu)(x, r, y, yr, _normal(x), _normal(r))


def _gelu(x: Array, r: Array, y: Array, yr: Array, s: Array, sr: Array) -> Array:
    """Return the secant of gelu, given s = Phi(x) and s_r = Phi(r).

    The secant of Phi is its derivative at the midpoint where that explains s - s_r to rounding error.
    """
    xp, d, total, difference, midpoint = namespace(x), x - r, s + sr, s - sr, namespace(x).half_sum(x, r)
    density = xp.exp(midpoint * midpoint * -0.5) * (2 * math.pi) ** -0.5
    explained = abs(difference - density * d) <= 8 * xp.eps(s) * total
    return _quotient_beyond_one(d, y, yr, total / 2 + midpoint * xp.where(explained, density, difference / d))


def _normal(x: Array) -> Array:
    return namespace(x).erfc(x * -(0.5**0.5)) / 2  # exact in the lower tail


def gelu_tanh(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return the secant of x sigmoid(u), where u = sqrt(8 / pi) (x + 0.044715 x^3)."""
    xp, scale, cubic = namespace(x), (8 / math.pi) ** 0.5, 0.044715
    u, ur = (scale * (v + cubic * v**3) for v in (x, r))
    s, sr = xp.sigmoid(u), xp.sigmoid(ur)
    steepness = sigmoid(u, ur, s, sr) * scale * (1 + cubic * (x * x + x * r + r * r))
    return _quotient_beyond_one(x - r, y, yr, xp.half_sum(s, sr) + xp.half_sum(x, r) * steepness)


def _quotient_beyond_one(d: Array, y: Array, yr: Array, near: Array) -> Array:
    """Return ``near``, or the quotient for |d| > 1: there it is exact, and the terms of ``near`` cancel in the tails."""
    return quotient_where(abs(d) > 1, y - yr, d, near)


def tanhshrink(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return the secant of x - tanh x, 1 minus that of tanh."""
    xp = namespace(x)
    return 1 - tanh(x, r, xp.tanh(x), xp.tanh(r))


def cube(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return x^2 + x r + r^2."""
    return x * x + (x + r) * r


def piecewise_constant(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return the quotient of differences, the secant of a piecewise constant function."""
    return zero_infinities(quotient_where(~namespace(x).equal(y, yr), y - yr, x - r))


def from_function(function: Callable[[Array], Array]) -> Secant:
    """Return the secant of any elementwise function.

    The slope is the derivative at the midpoint where that explains the difference of the outputs to rounding error, else the
    quotient of differences. So the slope times ``x - r`` equals the difference of the outputs to a few units in the last
    place, at kinks and steps too, and near points do not get a quotient of rounding errors. The error of the derivative is
    at most ``8 eps (|y| + |y_r|) / |x - r|``.
    """

    def secant(x: Array, r: Array, y: Array, yr: Array) -> Array:
        xp = namespace(x)
        return xp.cached(_slope_or_quotient)(xp.derivative(function, (x + r) / 2), x, r, y, yr)

    return secant


def _slope_or_quotient(slope: Array, x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return a slope where it explains the difference to rounding error, else the quotient."""
    xp, distance, difference = namespace(x), _difference(x, r), _difference(y, yr)
    rounding = 8 * xp.eps(y) * (abs(y) + abs(yr))
    explained, equal = abs(difference - slope * distance) <= rounding, xp.equal(distance, 0)
    slope = xp.where(explained, slope, difference / distance)
    return zero_infinities(xp.where(equal & xp.isnan(slope), 0.0, slope))


def zero_infinities(slope: Array) -> Array:
    """Replace infinite slopes by 0: their operand did not change, as of sqrt at 0 on both sides, and explains nothing."""
    return namespace(slope).zero_infinities_(slope)
