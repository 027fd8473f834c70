"""Secants of single numbers, compiled by Numba for the CPU: the parts of fused kernels.

They need no transcendental functions: for distant points they are quotients of differences, for near points a rational
function of the distance.
"""

# The bodies are Numba's, which has types of its own.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import numba

# As fast as it gets without assuming that there are no infinities; a quotient by zero is no exception, as in torch.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": {"contract", "arcp", "nsz", "reassoc"},
    "error_model": "numpy",
}


def jit(function: Any, signature: Any = None) -> Any:
    """Compile at the first call, or for a signature now, or read what an earlier process compiled."""
    try:
        return numba.njit(signature, cache=True, **_OPTIONS)(function)
    except RuntimeError:  # there is no folder to keep compiled code in
        return numba.njit(signature, **_OPTIONS)(function)


# ---------------------------------------------------------------------- secants
@jit
def _tanhc(distance):
    """Return numerator and denominator of a Padé approximant of tanhc, exact to 2e-16 up to 0.5."""
    number = type(distance)
    u = distance * distance
    above = number(135135) + u * (number(17325) + u * (number(378) + u))
    return above, number(135135) + u * (number(62370) + u * (number(3150) + u * number(28)))


@jit
def slope(distance, difference, product):
    """Return the quotient of differences; for near points ``product`` times tanhc."""
    near = abs(distance) <= type(distance)(0.5)
    above, below = _tanhc(distance)
    return (product * above if near else difference) / (below if near else distance)


@jit
def exponentials(distance, y, y_r):
    """Return the quotient of differences of two exponentials; for near points the larger times (1 - exp(-t)) / t.

    That is tanhc(t / 2) / (1 + tanh(t / 2)).
    """
    half = type(distance)(0.5) * abs(distance)
    near = half <= type(distance)(0.5)
    above, below = _tanhc(half)
    return (max(y, y_r) * above if near else y - y_r) / (below + half * above if near else distance)


@jit
def tanh(x, r, y, y_r):
    """Return the slope of ``secants.tanh``."""
    return slope(x - r, y - y_r, type(x)(1) - y * y_r)


@jit
def sigmoid(x, r, y, y_r):
    """Return the slope of ``secants.sigmoid``."""
    half = type(x)(0.5)
    return slope(half * (x - r), half * (y - y_r), half * (y + y_r) - y * y_r)


@jit
def relu(x, r, y, y_r):
    """Return the slope of ``secants.relu``."""
    number = type(x)
    same = (x > number(0)) == (r > number(0))
    return (number(x > number(0)) if same else y - y_r) / (number(1) if same else x - r)


@jit
def half_sum(a, b):
    """Return the mean of two numbers."""
    return type(a)(0.5) * (a + b)


@jit
def softmax_factors(D):
    """Return the factors of either side's probabilities in the weights of softmax; D is the difference of logsumexp."""
    number = type(D)
    less = math.exp(-abs(D))
    fall = exponentials(abs(D), number(1), less)
    of_larger, of_smaller = number(1) / fall, less / fall
    return (of_larger, of_smaller) if D > 0 else (of_smaller, of_larger)
