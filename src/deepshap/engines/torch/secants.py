"""Secant slopes (f(x) - f(r)) / (x - r) without cancellation.

Each takes the example's and the reference's value and output, ``(x, r, y, y_r)``, any broadcastable shapes, and
returns the slope, which tends to the derivative as x tends to r. The closed forms lose no digits however close the
two points are. Formulas: docs/mathematics.md.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WITHOUT_DERIVATIVE = ("not implemented", "no autograd formula")  # how torch says so


def tanhc(d: Tensor) -> Tensor:
    """tanh(d) / d, which is even, and 1 at d = 0."""
    size = d.abs().clamp_(min=torch.finfo(d.dtype).tiny)
    return torch.tanh(size).div_(size)


def decay(d: Tensor) -> Tensor:
    """expm1c(-|d|) = (1 - exp(-|d|)) / |d|, which is 1 at d = 0."""
    fall = d.abs().neg_().clamp_(max=-torch.finfo(d.dtype).tiny)
    return torch.expm1(fall).div_(fall)


def log1pc(d: Tensor) -> Tensor:
    """log(1 + d) / d, which is 1 at d = 0."""
    return torch.where(d == 0, 1.0, torch.log1p(d) / torch.where(d == 0, 1.0, d))


def tanh(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """(1 - tanh x tanh r) tanhc(x - r)."""
    return (1 - y * yr) * tanhc(x - r)


def sigmoid(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """[y (1 - y_r) + y_r (1 - y)] / 2 * tanhc((x - r) / 2)."""
    return 0.5 * (y * (1 - yr) + yr * (1 - y)) * tanhc((x - r) / 2)


def exp(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """The larger of the two exponentials times the decay of their distance."""
    return finite(torch.maximum(y, yr) * decay(x - r))


def expm1(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """As exp, whose values are these plus one."""
    return exp(x, r, torch.exp(x), torch.exp(r))


def log(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """log1p(d / lower) / d, d the distance up from the smaller argument."""
    return _log_secant(torch.minimum(x, r), (x - r).abs(), (y - yr).abs())


def _log_secant(lower: Tensor, distance: Tensor, difference: Tensor) -> Tensor:
    near = distance <= lower  # beyond that the quotient is exact, and the ratio might overflow
    ratio = torch.where(near, distance / lower, 0.0)
    return finite(torch.where(near, log1pc(ratio) / lower, difference / torch.where(near, 1.0, distance)))


def log1p(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """As log, at arguments plus one."""
    return _log_secant(1 + torch.minimum(x, r), (x - r).abs(), (y - yr).abs())


def sqrt(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """1 / (sqrt x + sqrt r)."""
    return finite(1 / (y + yr))


def rsqrt(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """-y y_r / (sqrt x + sqrt r), with y = 1 / sqrt x."""
    return finite(-y * yr / (x.sqrt() + r.sqrt()))


def square(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """The sum x + r."""
    return x + r


def reciprocal(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """-1 / (x r)."""
    return finite(-y * yr)


def relu(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """The slope of the piece both points lie on, else the exact quotient."""
    # On one piece the quotient is that slope, to the last digit: both differences are rounded alike.
    return torch.where(x == r, (x > 0).to(x.dtype), (y - yr).div_(x - r))


def silu(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """Of the product x sigmoid(x): mean sigmoid plus mean x times the secant of sigmoid."""
    s, sr = torch.sigmoid(x), torch.sigmoid(r)
    return _quotient_beyond_one(x, r, y, yr, (s + sr) / 2 + (x + r) / 2 * sigmoid(x, r, s, sr))


def gelu(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """Of the product x Phi(x) with the normal distribution function Phi, like silu."""
    s, sr = _normal(x), _normal(r)
    return _quotient_beyond_one(x, r, y, yr, (s + sr) / 2 + (x + r) / 2 * of(_normal)(x, r, s, sr))


def _normal(x: Tensor) -> Tensor:
    return torch.erfc(-x * 0.5**0.5) / 2  # keeps its digits in the lower tail, unlike torch.special.ndtr


def gelu_tanh(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """Of x sigmoid(u) with the cubic u = sqrt(8 / pi) (x + 0.044715 x^3)."""
    scale, cubic = (8 / torch.pi) ** 0.5, 0.044715
    u, ur = (scale * (v + cubic * v**3) for v in (x, r))
    s, sr = torch.sigmoid(u), torch.sigmoid(ur)
    steepness = sigmoid(u, ur, s, sr) * scale * (1 + cubic * (x * x + x * r + r * r))
    return _quotient_beyond_one(x, r, y, yr, (s + sr) / 2 + (x + r) / 2 * steepness)


def _quotient_beyond_one(x: Tensor, r: Tensor, y: Tensor, yr: Tensor, near: Tensor) -> Tensor:
    """The two halves of a product's secant cancel in the tails; for distant points the quotient is exact there."""
    far = (x - r).abs() > 1
    return torch.where(far, (y - yr) / torch.where(far, x - r, 1.0), near)


def tanhshrink(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
    """Of x - tanh x: 1 minus the secant of tanh."""
    return 1 - tanh(x, r, torch.tanh(x), torch.tanh(r))


def of(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Secant of any elementwise function.

    The derivative at the midpoint wherever it explains the difference to rounding error, the quotient elsewhere.
    So the slope times ``x - r`` always is the difference of the outputs to a few units in the last place of the
    outputs, for kinks and steps too, and close points get a derivative instead of a quotient of rounding errors.
    Where the derivative is chosen, its distance to the true secant is at most ``8 eps (|y| + |y_r|) / |x - r|``.
    """

    def secant(x: Tensor, r: Tensor, y: Tensor, yr: Tensor) -> Tensor:
        slope = derivative(function, (x + r) / 2)
        distance, difference = x - r, y - yr
        rounding = 8 * torch.finfo(y.dtype).eps * (y.abs() + yr.abs())
        explained = (difference - slope * distance).abs() <= rounding
        quotient = difference / torch.where(distance == 0, 1.0, distance)
        slope = torch.where(explained, slope, quotient)
        return finite(torch.where(distance == 0, torch.nan_to_num(slope, 0.0, 0.0, 0.0), slope))

    return secant


def finite(slope: Tensor) -> Tensor:
    """An infinite slope belongs to an operand that did not change (sqrt at 0 on both sides): it explains nothing."""
    return slope.masked_fill_(slope.isinf(), 0)


def derivative(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Elementwise derivative by autograd; 0 where the function is a step."""
    with torch.enable_grad():
        point = at.detach().requires_grad_()
        value = function(point)
    if not value.requires_grad:
        return torch.zeros_like(at)
    try:
        (slope,) = torch.autograd.grad(value, point, torch.ones_like(value))
    except RuntimeError as error:
        if not any(text in str(error) for text in WITHOUT_DERIVATIVE):
            raise
        return torch.zeros_like(at)
    return slope
