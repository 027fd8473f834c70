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


@compiled
def _slope(kind, x, r, y, y_r):
    """Of relu, tanh or sigmoid; relu's values are those of its operands, and not read a second time."""
    if kind == RELU:
        zero = type(x)(0)
        return relu(x, r, max(x, zero), max(r, zero))
    return tanh(x, r, y, y_r) if kind == TANH else sigmoid(x, r, y, y_r)


@compiled
def _multiply(made, given, slopes):
    for q in range(len(slopes)):
        made[q] = given[q] * slopes[q]


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
                    if outputs == 1:
                        given, made = m[0, b, p, n], found[0, b, p, n]
                        for q in range(behind):
                            made[q] = given[q] * _slope(kind, xs[q], rs[q], ys[q], y_rs[q])
                        continue
                    for q in range(behind):
                        slopes[q] = _slope(kind, xs[q], rs[q], ys[q], y_rs[q])
                    for k in range(outputs):
                        _multiply(found[k, b, p, n], m[k, b, p, n], slopes)

    return kernel


@cache
def finite_everywhere() -> Any:
    """Of any function by its derivatives: their mean where it explains the difference to rounding, else the quotient."""

    @compiled
    def kernel(m, found, x, r, y, y_r, s, s_r, first, last):
        outputs, _, ahead, examples, behind = m.shape
        number, slopes = m.dtype.type, np.empty(behind, m.dtype)
        rounding, tail = number(np.finfo(m.dtype).eps), number(8)
        # Closer than that the mean is exact, and gelu itself is off by 3 roundings.
        close = number(4 * np.sqrt(np.finfo(m.dtype).eps))
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    xs, rs, ys, y_rs, one, two = x[p, n], r[p, b], y[p, n], y_r[p, b], s[p, n], s_r[p, b]
                    for q in range(behind):
                        distance, difference, mean = xs[q] - rs[q], ys[q] - y_rs[q], half_sum(one[q], two[q])
                        # Tails of y are rounded as x is, as far as they reach; beyond, y is what it tends to.
                        size = min(abs(xs[q]), tail) + min(abs(rs[q]), tail) + abs(ys[q]) + abs(y_rs[q])
                        size *= number(4) * rounding if abs(distance) < close else rounding
                        near = abs(difference - mean * distance) <= size
                        slopes[q] = (mean if near else difference) / (number(1) if near else distance)
                    for k in range(outputs):
                        _multiply(found[k, b, p, n], m[k, b, p, n], slopes)

    return kernel


@compiled
def _place(marked):
    """What a mark says of the first greatest element of a window: where it is. Several are marked by negative numbers."""
    return max(marked, ~marked)


@compiled
def _ties(y, y_r, i, j):
    """Whether elements of a window tie on the side that decides."""
    return ((i < 0) & (y >= y_r)) | ((j < 0) & (y <= y_r))


@compiled
def _decides(x, r, y, y_r):
    """Whether an element of a window has the greatest value of the side that decides."""
    return x == y if y > y_r else r == y_r if y < y_r else x == y and r == y_r


@compiled
def _find_shares(x, r, y, y_r, i, j, to, share, below, ties):
    """Fill in where each window's multiplier goes, and its share; of those that tie the share is 0, and their number comes back.

    Each loop is vector code or follows positions, not both.
    """
    number, count = share.dtype.type, 0
    for w in range(len(to)):
        one, two = _place(i[w]), _place(j[w])
        to[w] = two if y[w] < y_r[w] else one
        share[w] = number(0) if y[w] == y_r[w] else y[w] - y_r[w]
    for w in range(len(to)):
        below[w] = x[to[w]] - r[to[w]]
    for w in range(len(to)):
        same = _place(i[w]) == _place(j[w])
        quotient = (number(1) if same else share[w]) / (number(1) if same else below[w])
        ties[w] = _ties(y[w], y_r[w], i[w], j[w])
        share[w] = number(0) if ties[w] else quotient
    for w in range(len(to)):
        tied = ties[w]
        ties[count] = w
        count += tied
    return count


@cache
def greatest() -> Any:  # noqa: C901  (a kernel is one nest of loops)
    """Of the greatest values of windows, with their marked positions i and j, and the positions of all elements."""

    @compiled
    def kernel(m, found, x, r, y, y_r, i, j, elements, first, last):
        outputs, _, ahead, examples, behind, windows = m.shape
        number, to, ties = m.dtype.type, np.empty(windows, np.int32), np.empty(windows, np.int32)
        share, below = np.empty(windows, m.dtype), np.empty(windows, m.dtype)
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    for q in range(behind):
                        xs, rs, ys, y_rs = x[p, n, q], r[p, b, q], y[p, n, q], y_r[p, b, q]
                        count = _find_shares(xs, rs, ys, y_rs, i[p, n, q], j[p, b, q], to, share, below, ties)
                        for k in range(outputs):
                            given, made = m[k, b, p, n, q], found[k, b, p, n, q]
                            made[:] = 0
                            for w in range(windows):
                                made[to[w]] += given[w] * share[w]
                        for w in ties[:count]:
                            deciding = number(0)
                            for e in elements[w]:
                                deciding += number(e >= 0 and _decides(xs[e], rs[e], ys[w], y_rs[w]))
                            for e in elements[w]:
                                if e >= 0 and _decides(xs[e], rs[e], ys[w], y_rs[w]):
                                    slope = number(1) if ys[w] == y_rs[w] else (ys[w] - y_rs[w]) / (xs[e] - rs[e])
                                    for k in range(outputs):
                                        found[k, b, p, n, q, e] += m[k, b, p, n, q, w] * (slope / deciding)

    return kernel


@compiled
def fold(found, columns, stride, padding, dilation):
    """Add what each place of a convolution saw, (rows, channels, *kernel, *places), where it saw it: (rows, channels, *sizes)."""
    rows, channels, high, wide = found.shape
    _, _, down, across, lines, places = columns.shape
    for n in range(rows):
        for c in range(channels):
            for i in range(down):
                for j in range(across):
                    shift = j * dilation[1] - padding[1]
                    first, last = max(0, -shift), min(places, wide - shift)
                    for line in range(lines):
                        to = line * stride[0] + i * dilation[0] - padding[0]
                        if not 0 <= to < high:
                            continue
                        if stride[1] == 1:
                            source = columns[n, c, i, j, line, first:last]
                            target = found[n, c, to, first + shift : last + shift]
                            for q in range(len(source)):
                                target[q] += source[q]
                        else:
                            source, target = columns[n, c, i, j, line], found[n, c, to]
                            for q in range(places):
                                if 0 <= q * stride[1] + shift < wide:
                                    target[q * stride[1] + shift] += source[q]


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


@compiled
def _explain(sums, m, x, r):
    """Add multipliers times differences, in float64; equal infinities, as in masks, do not differ."""
    for i in range(len(sums)):
        sums[i] += m[i] * (x[i] - r[i] if x[i] != r[i] else m.dtype.type(0))


@compiled
def explain(totals, m, x, r):
    """Add multipliers (references, ahead, examples, behind) times differences to sums over the references."""
    _, ahead, examples, _ = m.shape
    for b in range(len(m)):
        for p in range(ahead):
            for n in range(examples):
                _explain(totals[p, n], m[b, p, n], x[p, n], r[p, b])


@cache
def explained() -> Any:
    """Multipliers (examples, references, numbers) times differences, added to sums over the references in float64."""

    @compiled
    def kernel(m, x, r, found, first, last):
        for n in range(first, last):
            xs, sums = x[n], found[n]
            for b in range(len(r)):
                given, rs = m[n, b], r[b]
                _explain(sums, given, xs, rs)

    return kernel
