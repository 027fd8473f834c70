"""Rules of pairs in one pass on the CPU, compiled by Numba: each slope is computed once and multiplied for all outputs.

Multipliers are (outputs, references, ahead, examples, behind), x is (ahead, examples, behind), r (ahead, references, behind).
"""

# The bodies are Numba's, which has types of its own.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from .numbers import exponentials, half_sum, jit, relu, sigmoid, softmax_factors, tanh

RELU, TANH, SIGMOID, SMOOTH, SOFTMAX, LOG_SOFTMAX, WINDOW_MAX, LAYER_NORM = range(8)


@jit
def _slope(kind, x, r, y, y_r):
    """Return the slope of relu, tanh or sigmoid; relu computes its values from its operands instead of reading them."""
    if kind == RELU:
        zero = type(x)(0)
        return relu(x, r, max(x, zero), max(r, zero))
    return tanh(x, r, y, y_r) if kind == TANH else sigmoid(x, r, y, y_r)


@jit
def _multiply(result, multipliers, slopes):
    for q in range(len(slopes)):
        result[q] = multipliers[q] * slopes[q]


@cache
def elementwise(kind: int) -> Any:
    """Return the kernel of relu, tanh or sigmoid; the kind is a constant to the compiler."""

    @jit
    def kernel(m, result, x, r, y, y_r, first, last):
        outputs, _, ahead, examples, behind = m.shape
        slopes = np.empty(behind, m.dtype)
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    xs, rs, ys, y_rs = x[p, n], r[p, b], y[p, n], y_r[p, b]
                    if outputs == 1:
                        multipliers, row = m[0, b, p, n], result[0, b, p, n]
                        for q in range(behind):
                            row[q] = multipliers[q] * _slope(kind, xs[q], rs[q], ys[q], y_rs[q])
                        continue
                    for q in range(behind):
                        slopes[q] = _slope(kind, xs[q], rs[q], ys[q], y_rs[q])
                    for k in range(outputs):
                        _multiply(result[k, b, p, n], m[k, b, p, n], slopes)

    return kernel


@cache
def smooth() -> Any:
    """Return the kernel of any function with finite derivatives.

    The slope is the mean of the derivatives where that explains the difference to rounding, else the quotient.
    """

    @jit
    def kernel(m, result, x, r, y, y_r, s, s_r, first, last):
        outputs, _, ahead, examples, behind = m.shape
        number, slopes = m.dtype.type, np.empty(behind, m.dtype)
        rounding, tail = number(np.finfo(m.dtype).eps), number(8)
        # Closer than that the mean is exact, and gelu itself is off by 3 roundings.
        close = number(4 * np.sqrt(np.finfo(m.dtype).eps))
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    xs, rs, ys, y_rs, slope_x, slope_r = x[p, n], r[p, b], y[p, n], y_r[p, b], s[p, n], s_r[p, b]
                    for q in range(behind):
                        distance, difference, mean = xs[q] - rs[q], ys[q] - y_rs[q], half_sum(slope_x[q], slope_r[q])
                        # Tails of y are rounded as x is, as far as they reach; beyond, y is what it tends to.
                        size = min(abs(xs[q]), tail) + min(abs(rs[q]), tail) + abs(ys[q]) + abs(y_rs[q])
                        size *= number(4) * rounding if abs(distance) < close else rounding
                        near = abs(difference - mean * distance) <= size
                        slopes[q] = (mean if near else difference) / (number(1) if near else distance)
                    for k in range(outputs):
                        _multiply(result[k, b, p, n], m[k, b, p, n], slopes)

    return kernel


@jit
def _position(marked):
    """Return the position of a window's first maximum; a negative mark says that several elements tie."""
    return max(marked, ~marked)


@jit
def _ties(y, y_r, i, j):
    """Return whether elements of a window tie on the side with the larger maximum."""
    return ((i < 0) & (y >= y_r)) | ((j < 0) & (y <= y_r))


@jit
def _decides(x, r, y, y_r):
    """Return whether an element of a window has the maximum of the side whose maximum is larger."""
    return x == y if y > y_r else r == y_r if y < y_r else x == y and r == y_r


@jit
def _find_shares(x, r, y, y_r, i, j, to, share, below, ties):
    """Write the target of each window's multiplier and its share, 0 for windows with ties; return the number of these.

    Each loop is vector code or follows positions, not both.
    """
    number, count = share.dtype.type, 0
    for w in range(len(to)):
        max_x, max_r = _position(i[w]), _position(j[w])
        to[w] = max_r if y[w] < y_r[w] else max_x
        share[w] = number(0) if y[w] == y_r[w] else y[w] - y_r[w]
    for w in range(len(to)):
        below[w] = x[to[w]] - r[to[w]]
    for w in range(len(to)):
        same = _position(i[w]) == _position(j[w])
        quotient = (number(1) if same else share[w]) / (number(1) if same else below[w])
        ties[w] = _ties(y[w], y_r[w], i[w], j[w])
        share[w] = number(0) if ties[w] else quotient
    for w in range(len(to)):
        tied = ties[w]
        ties[count] = w
        count += tied
    return count


@cache
def window_max() -> Any:  # noqa: C901  (a kernel is one nest of loops)
    """Return the kernel of the maxima of windows, with their marked positions i and j, and the positions of all elements."""

    @jit
    def kernel(m, result, x, r, y, y_r, i, j, elements, first, last):
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
                            multipliers, row = m[k, b, p, n, q], result[k, b, p, n, q]
                            row[:] = 0
                            for w in range(windows):
                                row[to[w]] += multipliers[w] * share[w]
                        for w in ties[:count]:
                            deciding = number(0)
                            for e in elements[w]:
                                deciding += number(e >= 0 and _decides(xs[e], rs[e], ys[w], y_rs[w]))
                            for e in elements[w]:
                                if e >= 0 and _decides(xs[e], rs[e], ys[w], y_rs[w]):
                                    slope = number(1) if ys[w] == y_rs[w] else (ys[w] - y_rs[w]) / (xs[e] - rs[e])
                                    for k in range(outputs):
                                        result[k, b, p, n, q, e] += m[k, b, p, n, q, w] * (slope / deciding)

    return kernel


@jit
def fold(result, columns, stride, padding, dilation):
    """Add columns (rows, channels, *kernel, *positions) of a convolution to the image (rows, channels, *sizes)."""
    rows, channels, high, wide = result.shape
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
                            target = result[n, c, to, first + shift : last + shift]
                            for q in range(len(source)):
                                target[q] += source[q]
                        else:
                            source, target = columns[n, c, i, j, line], result[n, c, to]
                            for q in range(places):
                                if 0 <= q * stride[1] + shift < wide:
                                    target[q * stride[1] + shift] += source[q]


@cache
def softmax(kind: int) -> Any:
    """Return the kernel of softmax or its logarithm; ``total`` holds logsumexp, with a last axis of size 1."""

    @jit
    def kernel(m, result, x, r, y, y_r, total, total_r, first, last):
        outputs, _, ahead, examples, behind, size = m.shape
        number = m.dtype.type
        slopes, weights = np.empty(size, m.dtype), np.empty(size, m.dtype)
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    for q in range(behind):
                        xs, rs, ys, y_rs = x[p, n, q], r[p, b, q], y[p, n, q], y_r[p, b, q]
                        D = total[p, n, q, 0] - total_r[p, b, q, 0]
                        rising, falling = softmax_factors(D)
                        for i in range(size):
                            d = xs[i] - rs[i] if xs[i] != rs[i] else number(0)
                            if kind == SOFTMAX:
                                slopes[i] = exponentials(d - D, ys[i], y_rs[i])
                                weights[i] = exponentials(d, ys[i] * rising, y_rs[i] * falling)
                            else:
                                slopes[i] = number(1)
                                weights[i] = exponentials(d, math.exp(ys[i]) * rising, math.exp(y_rs[i]) * falling)
                        for k in range(outputs):
                            multipliers, row = m[k, b, p, n, q], result[k, b, p, n, q]
                            of_all = number(0)
                            for i in range(size):
                                row[i] = multipliers[i] * slopes[i]
                                of_all += row[i]
                            for i in range(size):
                                row[i] -= weights[i] * of_all

    return kernel


@cache
def layer_norm(centred: bool) -> Any:
    """Return the kernel of values standardised over the last axis times a weight; ``size`` is their divisor."""

    @jit
    def kernel(m, result, y, y_r, size, size_r, weight, first, last):
        outputs, _, ahead, examples, behind, width = m.shape
        number = m.dtype.type
        mean, share = np.empty(width, m.dtype), number(1) / number(width)
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    for q in range(behind):
                        ys, y_rs, divisor_x, divisor_r = y[p, n, q], y_r[p, b, q], size[p, n, q, 0], size_r[p, b, q, 0]
                        scale = half_sum(number(1) / divisor_x, number(1) / divisor_r)
                        part, part_r = divisor_x / (divisor_x + divisor_r), divisor_r / (divisor_x + divisor_r)
                        for i in range(width):
                            mean[i] = ys[i] * part + y_rs[i] * part_r
                        for k in range(outputs):
                            multipliers, row = m[k, b, p, n, q], result[k, b, p, n, q]
                            along, total = number(0), number(0)
                            for i in range(width):
                                row[i] = multipliers[i] * weight[i]
                                along += row[i] * mean[i]
                                total += row[i]
                            along *= share
                            shift = total * share if centred else number(0)
                            for i in range(width):
                                row[i] = scale * (row[i] - shift - mean[i] * along)

    return kernel


@jit
def _add_contributions(sums, m, x, r):
    """Add multipliers times differences, in float64; equal infinities, as in masks, do not differ."""
    for i in range(len(sums)):
        sums[i] += m[i] * (x[i] - r[i] if x[i] != r[i] else m.dtype.type(0))


@jit
def add_contributions(totals, m, x, r):
    """Add multipliers (references, ahead, examples, behind) times differences to sums over the references."""
    _, ahead, examples, _ = m.shape
    for b in range(len(m)):
        for p in range(ahead):
            for n in range(examples):
                _add_contributions(totals[p, n], m[b, p, n], x[p, n], r[p, b])


@cache
def sum_contributions() -> Any:
    """Return the kernel that adds multipliers (examples, references, numbers) times differences to float64 sums."""

    @jit
    def kernel(m, x, r, totals, first, last):
        for n in range(first, last):
            xs, sums = x[n], totals[n]
            for b in range(len(r)):
                multipliers, rs = m[n, b], r[b]
                _add_contributions(sums, multipliers, xs, rs)

    return kernel
