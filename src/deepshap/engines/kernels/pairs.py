"""Rules of pairs in one pass on the CPU, compiled by Numba: the slope once for all outputs, times multipliers.

Multipliers are (outputs, references, ahead, examples, behind), x is (ahead, examples, behind), r (ahead, references, behind).
"""

# The bodies are Numba's, which has types of its own.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from .numbers import compiled, exponentials, half_sum, of_totals, relu, sigmoid, tanh

RELU, TANH, SIGMOID, REGULAR, SOFTMAX, LOG_SOFTMAX, GREATEST, STANDARDISED = range(8)


@cache
def elementwise(kind: int) -> Any:
    """Of relu, tanh or sigmoid; the kind is a constant to the compiler."""

    @compiled
    def kernel(m, found, x, r, y, y_r, first, last):
        outputs, _, ahead, examples, behind = m.shape
        slopes = np.empty(behind, m.dtype)
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    xs, rs, ys, y_rs = x[p, n], r[p, b], y[p, n], y_r[p, b]
                    for q in range(behind):
                        if kind == RELU:
                            slopes[q] = relu(xs[q], rs[q], ys[q], y_rs[q])
                        elif kind == TANH:
                            slopes[q] = tanh(xs[q], rs[q], ys[q], y_rs[q])
                        else:
                            slopes[q] = sigmoid(xs[q], rs[q], ys[q], y_rs[q])
                    for k in range(outputs):
                        given, made = m[k, b, p, n], found[k, b, p, n]
                        for q in range(behind):
                            made[q] = given[q] * slopes[q]

    return kernel


@cache
def regular() -> Any:
    """Of any function by its derivatives: their mean where it explains the difference to rounding, else the quotient."""

    @compiled
    def kernel(m, found, x, r, y, y_r, s, s_r, first, last):
        outputs, _, ahead, examples, behind = m.shape
        number, slopes = m.dtype.type, np.empty(behind, m.dtype)
        rounding = number(np.finfo(m.dtype).eps)
        close = number(
            4 * np.sqrt(np.finfo(m.dtype).eps)
        )  # the mean is exact there, and gelu itself is off by 3 roundings
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    xs, rs, ys, y_rs, one, two = x[p, n], r[p, b], y[p, n], y_r[p, b], s[p, n], s_r[p, b]
                    for q in range(behind):
                        distance, difference, mean = xs[q] - rs[q], ys[q] - y_rs[q], half_sum(one[q], two[q])
                        size = abs(xs[q]) + abs(rs[q]) + abs(ys[q]) + abs(y_rs[q])  # tails of y are rounded as x is
                        size *= number(4) * rounding if abs(distance) < close else rounding
                        near = abs(difference - mean * distance) <= size
                        slopes[q] = (mean if near else difference) / (number(1) if near else distance)
                    for k in range(outputs):
                        given, made = m[k, b, p, n], found[k, b, p, n]
                        for q in range(behind):
                            made[q] = given[q] * slopes[q]

    return kernel


@compiled
def _decides(x, r, y, y_r):
    """Whether an element of a window has the greatest value of the side that decides."""
    return x == y if y > y_r else r == y_r if y < y_r else x == y and r == y_r


@compiled
def _share(m, found, x, r, y, y_r, elements):
    """Of a window in which elements tie; m is (outputs,), found (outputs, elements), y and y_r are the greatest values."""
    number = m.dtype.type
    count = number(0)
    for e in elements:
        if e >= 0 and _decides(x[e], r[e], y, y_r):
            count += number(1)
    for e in elements:
        if e >= 0 and _decides(x[e], r[e], y, y_r):
            share = (number(1) if y == y_r else (y - y_r) / (x[e] - r[e])) / count
            for k in range(len(m)):
                found[k, e] += m[k] * share


@cache
def greatest() -> Any:
    """Of the greatest values of windows, with their marked positions i and j, and the positions of all elements."""

    @compiled
    def kernel(m, found, x, r, i, j, elements, first, last):
        outputs, _, ahead, examples, behind, windows = m.shape
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    for q in range(behind):
                        xs, rs, at, at_r = x[p, n, q], r[p, b, q], i[p, n, q], j[p, b, q]
                        for k in range(outputs):
                            found[k, b, p, n, q, :] = 0
                        for w in range(windows):
                            one, two = max(at[w], ~at[w]), max(at_r[w], ~at_r[w])
                            y, y_r = xs[one], rs[two]
                            several, several_r = at[w] < 0 and y >= y_r, at_r[w] < 0 and y <= y_r
                            if several or several_r:
                                _share(m[:, b, p, n, q, w], found[:, b, p, n, q], xs, rs, y, y_r, elements[w])
                            elif one == two or y != y_r:
                                to = two if y < y_r else one
                                share = (y - y_r) / (xs[to] - rs[to]) if one != two else m.dtype.type(1)
                                for k in range(outputs):
                                    found[k, b, p, n, q, to] += m[k, b, p, n, q, w] * share

    return kernel


@cache
def over_last(kind: int) -> Any:
    """Of softmax or its logarithm; ``total`` has logsumexp where the others have their last axis."""

    @compiled
    def kernel(m, found, x, r, y, y_r, total, total_r, first, last):
        outputs, _, ahead, examples, behind, size = m.shape
        number = m.dtype.type
        slopes, weights = np.empty(size, m.dtype), np.empty(size, m.dtype)
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    for q in range(behind):
                        xs, rs, ys, y_rs = x[p, n, q], r[p, b, q], y[p, n, q], y_r[p, b, q]
                        D = total[p, n, q, 0] - total_r[p, b, q, 0]
                        rising, falling = of_totals(D)
                        for i in range(size):
                            d = xs[i] - rs[i] if xs[i] != rs[i] else number(0)
                            if kind == SOFTMAX:
                                slopes[i] = exponentials(d - D, ys[i], y_rs[i])
                                weights[i] = exponentials(d, ys[i] * rising, y_rs[i] * falling)
                            else:
                                slopes[i] = number(1)
                                weights[i] = exponentials(d, math.exp(ys[i]) * rising, math.exp(y_rs[i]) * falling)
                        for k in range(outputs):
                            given, made = m[k, b, p, n, q], found[k, b, p, n, q]
                            of_all = number(0)
                            for i in range(size):
                                made[i] = given[i] * slopes[i]
                                of_all += made[i]
                            for i in range(size):
                                made[i] -= weights[i] * of_all

    return kernel


@cache
def standardised(centred: bool) -> Any:
    """Of values standardised over the last axis, times a weight; ``size`` is what they were divided by."""

    @compiled
    def kernel(m, found, y, y_r, size, size_r, weight, first, last):
        outputs, _, ahead, examples, behind, width = m.shape
        number = m.dtype.type
        mean, share = np.empty(width, m.dtype), number(1) / number(width)
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    for q in range(behind):
                        ys, y_rs, one, two = y[p, n, q], y_r[p, b, q], size[p, n, q, 0], size_r[p, b, q, 0]
                        scale = half_sum(number(1) / one, number(1) / two)
                        part, part_r = one / (one + two), two / (one + two)
                        for i in range(width):
                            mean[i] = ys[i] * part + y_rs[i] * part_r
                        for k in range(outputs):
                            given, made = m[k, b, p, n, q], found[k, b, p, n, q]
                            along, total = number(0), number(0)
                            for i in range(width):
                                made[i] = given[i] * weight[i]
                                along += made[i] * mean[i]
                                total += made[i]
                            along *= share
                            shift = total * share if centred else number(0)
                            for i in range(width):
                                made[i] = scale * (made[i] - shift - mean[i] * along)

    return kernel
