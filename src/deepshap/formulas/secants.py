"""Secant slopes (f(x) - f(r)) / (x - r) without cancellation.

Each takes the example's and the reference's value and output, ``(x, r, y, y_r)``, any shapes that broadcast, and returns the
slope, which tends to the derivative as x tends to r. The closed forms lose no digits however close the two points are.
Formulas: docs/mathematics.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .namespace import Array, namespace

Secant = Callable[[Array, Array, Array, Array], Array]


def _apart(x: Array, r: Array) -> Array:
    """x - r, and 0 for equal infinities: logits that are masked on both sides do not differ."""
    xp = namespace(x)
    return xp.where(xp.equal(x, r), 0.0, x - r)


def tanhc(d: Array) -> Array:
    """tanh(d) / d, which is even, and 1 at d = 0."""
    xp = namespace(d)
    size = xp.at_least_tiny_(abs(d))
    return xp.div_(xp.tanh(size), size)


def decay(d: Array) -> Array:
    """(1 - exp(-|d|)) / |d|, which is 1 at d = 0."""
    xp = namespace(d)
    fall = xp.neg_(xp.at_least_tiny_(abs(d)))
    return xp.div_(xp.expm1(fall), fall)


def log1pc(d: Array) -> Array:
    """log(1 + d) / d, which is 1 at d = 0."""
    xp = namespace(d)
    return quotient_where(~xp.equal(d, 0), xp.log1p(d), d, 1.0)


def quotient_where(condition: Array, a: Array, b: Array, otherwise: Array | float = 0.0) -> Array:
    """a / b where a condition holds, else another value; b may be 0 there."""
    xp = namespace(b)
    return xp.where(condition, a / b, otherwise)


def tanh(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """(1 - y y_r) tanhc(x - r)."""
    return (1 - y * yr) * tanhc(x - r)


def sigmoid(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """[y (1 - y_r) + y_r (1 - y)] / 2 * tanhc((x - r) / 2)."""
    return _sigmoid(x - r, y, yr)


def _sigmoid(d: Array, y: Array, yr: Array) -> Array:
    """As ``sigmoid``, of the difference of the arguments."""
    return _mean_slope(y, yr) * tanhc(d / 2)


def _mean_slope(y: Array, yr: Array) -> Array:
    return 0.5 * (y * (1 - yr) + yr * (1 - y))


def tanh_fused(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """As tanh."""
    return _fused(x - r, 1.0, 1 - y * yr, y - yr)


def sigmoid_fused(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """As sigmoid."""
    return _fused(x - r, 0.5, 0.5 * (y + yr) - y * yr, y - yr)


def _fused(d: Array, scale: float, product: Array, difference: Array) -> Array:
    """difference / d, which is product tanhc(scale d), and is taken so where that is near: there is a Padé approximant of tanhc.

    One division, and nothing transcendental.
    """
    xp = namespace(d)
    far, above, below = _tanhc_near(d * d * scale**2)
    return xp.where(far, difference, product * above) / xp.where(far, d, below)


def _tanhc_near(u: Array) -> tuple[Array, Array, Array]:
    """Of squared sizes, which are beyond 1/2, and above / below, which is tanhc of the others to their last digit.

    NaN, which is how far equal infinities are apart, is taken for 0.
    """
    xp = namespace(u)
    far, u = u > 0.25, xp.where(u <= 0.25, u, 0.0)
    if xp.eps(u) > 1e-8:  # float32, for which 3e-8 is nothing
        return far, 1 + u * (2 / 21), 1 + u * (3 / 7 + u * (1 / 105))
    above = 1 + u * (5 / 39 + u * (2 / 715 + u * (1 / 135135)))
    return far, above, 1 + u * (6 / 13 + u * (10 / 429 + u * (4 / 19305)))


# For compilers that make one pass of all operations.
FUSED: dict[Secant, Secant] = {tanh: tanh_fused, sigmoid: sigmoid_fused}


def exp(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """The larger of the two exponentials times the decay of their distance."""
    return finite(exponential(x - r, y, yr))


def exponential(d: Array, y: Array, yr: Array) -> Array:
    """Of two exponentials whose arguments are d apart: the larger one times the decay."""
    xp = namespace(d)
    return xp.mul_(xp.maximum(y, yr), decay(d))


def exponential_fused(d: Array, y: Array, yr: Array) -> Array:
    """As exponential: the decay of a distance 2 t is tanhc(t) / (1 + tanh(t)), and far ones are a quotient of differences."""
    xp = namespace(d)
    size = xp.at_least_tiny_(abs(d) * 0.5)
    far, above, below = _tanhc_near(size * size)
    return xp.where(far, y - yr, xp.maximum(y, yr) * above) / xp.where(far, d, below + size * above)


def expm1(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """As exp, whose values are these plus one."""
    xp = namespace(x)
    return exp(x, r, xp.exp(x), xp.exp(r))


def log(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """log1p(d / lower) / d, where d is the distance up from the smaller argument."""
    return _log_secant(namespace(x).minimum(x, r), abs(_apart(x, r)), abs(_apart(y, yr)))


def _log_secant(lower: Array, distance: Array, difference: Array) -> Array:
    near = distance <= lower  # beyond that the quotient is exact, and the ratio might overflow
    ratio = namespace(lower).where(near, distance / lower, 0.0)
    return finite(quotient_where(~near, difference, distance, log1pc(ratio) / lower))


def log1p(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """As log, at arguments plus one."""
    return _log_secant(1 + namespace(x).minimum(x, r), abs(_apart(x, r)), abs(_apart(y, yr)))


def sqrt(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """1 / (y + y_r)."""
    return finite(1 / (y + yr))


def rsqrt(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """-y y_r / (sqrt x + sqrt r), where y = 1 / sqrt x."""
    xp = namespace(x)
    return finite(-y * yr / (xp.sqrt(x) + xp.sqrt(r)))


def square(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """x + r."""
    return x + r


def reciprocal(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """-1 / (x r)."""
    return finite(-y * yr)


def relu(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """The slope of the piece both points lie on, else the exact quotient."""
    xp = namespace(x)
    # On one piece the quotient is that slope, to the last digit: both differences are rounded alike.
    return xp.where(xp.equal(x, r), xp.cast(x > 0, x), xp.div_(y - yr, x - r))


def silu(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Of the product x sigmoid(x): mean sigmoid plus mean x times the secant of sigmoid."""
    xp = namespace(x)
    s, sr, d = xp.sigmoid(x), xp.sigmoid(r), x - r
    return _quotient_beyond_one(d, y, yr, xp.half_sum(s, sr) + xp.half_sum(x, r) * _sigmoid(d, s, sr))


def gelu(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Of the product x Phi(x) with the normal distribution function Phi, like silu."""
    return namespace(x).once(_gelu)(x, r, y, yr, _normal(x), _normal(r))


def _gelu(x: Array, r: Array, y: Array, yr: Array, s: Array, sr: Array) -> Array:
    """The secant of Phi, whose values are s and s_r, is its derivative where that explains their change to rounding error."""
    xp, d, both, change, middle = namespace(x), x - r, s + sr, s - sr, namespace(x).half_sum(x, r)
    density = xp.exp(middle * middle * -0.5) * (2 * math.pi) ** -0.5
    explained = abs(change - density * d) <= 8 * xp.eps(s) * both
    return _quotient_beyond_one(d, y, yr, both / 2 + middle * xp.where(explained, density, change / d))


def _normal(x: Array) -> Array:
    return namespace(x).erfc(x * -(0.5**0.5)) / 2  # keeps its digits in the lower tail


def gelu_tanh(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Of x sigmoid(u) with the cubic u = sqrt(8 / pi) (x + 0.044715 x^3)."""
    xp, scale, cubic = namespace(x), (8 / math.pi) ** 0.5, 0.044715
    u, ur = (scale * (v + cubic * v**3) for v in (x, r))
    s, sr = xp.sigmoid(u), xp.sigmoid(ur)
    steepness = sigmoid(u, ur, s, sr) * scale * (1 + cubic * (x * x + x * r + r * r))
    return _quotient_beyond_one(x - r, y, yr, xp.half_sum(s, sr) + xp.half_sum(x, r) * steepness)


def _quotient_beyond_one(d: Array, y: Array, yr: Array, near: Array) -> Array:
    """The two halves of a product's secant cancel in the tails; for points that are d apart the quotient is exact there."""
    return quotient_where(abs(d) > 1, y - yr, d, near)


def tanhshrink(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Of x - tanh x: 1 minus the secant of tanh."""
    xp = namespace(x)
    return 1 - tanh(x, r, xp.tanh(x), xp.tanh(r))


def cube(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """x^2 + x r + r^2."""
    return x * x + (x + r) * r


def jump(x: Array, r: Array, y: Array, yr: Array) -> Array:
    """Of functions that are constant between jumps: the quotient."""
    return finite(quotient_where(~namespace(x).equal(y, yr), y - yr, x - r))


def of(function: Callable[[Array], Array]) -> Secant:
    """Secant of any elementwise function.

    The derivative at the midpoint wherever it explains the difference to rounding error, the quotient elsewhere.
    So the slope times ``x - r`` always is the difference of the outputs to a few units in the last place of the
    outputs, for kinks and steps too, and close points get a derivative instead of a quotient of rounding errors.
    Where the derivative is chosen, its distance to the true secant is at most ``8 eps (|y| + |y_r|) / |x - r|``.
    """

    def secant(x: Array, r: Array, y: Array, yr: Array) -> Array:
        xp = namespace(x)
        return xp.once(_slope_or_quotient)(xp.derivative(function, (x + r) / 2), x, r, y, yr)

    return secant


def _slope_or_quotient(slope: Array, x: Array, r: Array, y: Array, yr: Array) -> Array:
    """A slope where it explains the difference to rounding error, the quotient elsewhere."""
    xp, distance, difference = namespace(x), _apart(x, r), _apart(y, yr)
    rounding = 8 * xp.eps(y) * (abs(y) + abs(yr))
    explained, still = abs(difference - slope * distance) <= rounding, xp.equal(distance, 0)
    slope = xp.where(explained, slope, difference / distance)
    return finite(xp.where(still & xp.isnan(slope), 0.0, slope))


def finite(slope: Array) -> Array:
    """0 for an infinite slope: its operand did not change (sqrt at 0 on both sides), and it explains nothing."""
    return namespace(slope).finite_(slope)
