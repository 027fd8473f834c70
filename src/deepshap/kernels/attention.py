"""Attention in one pass: the scores and weights of a pair and a head never leave the processor's cache.

Loops run over arrays whose last axis is contiguous, because LLVM vectorizes only these.
"""

# The bodies of kernels are Numba's, which has types of its own.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype, types

from .numbers import exponentials, half_sum, jit, softmax_factors

LARGEST_PRODUCT = 2**18  # multiplications of a product that BLAS does in the thread that asks for it


@jit
def _weigh(z, z_r, p, p_r, total, total_r, slopes, weights, means):
    """Write the slopes, weights and means of rows of scores, of which their multipliers are made."""
    number = z.dtype.type
    for t in range(z.shape[0]):
        zs, z_rs, ps, p_rs, slope, weight, mean = z[t], z_r[t], p[t], p_r[t], slopes[t], weights[t], means[t]
        D = total[t] - total_r[t]
        rising, falling = softmax_factors(D)
        for s in range(z.shape[1]):
            d = zs[s] - z_rs[s] if zs[s] != z_rs[s] else number(0)
            slope[s] = exponentials(d - D, ps[s], p_rs[s])
            weight[s] = exponentials(d, ps[s] * rising, p_rs[s] * falling)
            mean[s] = half_sum(ps[s], p_rs[s])


@jit
def _means(a, b, means):
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            means[i, j] = half_sum(a[i, j], b[i, j])


@jit
def _read(values, start, stride, rows):
    """Copy rows of ``values`` that begin a stride apart."""
    for i in range(rows.shape[0]):
        row, source = rows[i], values[start + i * stride : start + i * stride + rows.shape[1]]
        for j in range(rows.shape[1]):
            row[j] = source[j]


@jit
def _write(rows, values, start, stride, more):
    """Write rows to ``values``, where they begin a stride apart, or add them to what is there."""
    for i in range(rows.shape[0]):
        row, target = rows[i], values[start + i * stride : start + i * stride + rows.shape[1]]
        if more:
            for j in range(rows.shape[1]):
                target[j] += row[j]
        else:
            for j in range(rows.shape[1]):
                target[j] = row[j]


@jit
def _normalise(rows, slopes, weights, scale):
    """Turn multipliers of attention weights into those of products of queries and keys, in place."""
    for t in range(rows.shape[0]):
        row, slope, weight, total = rows[t], slopes[t], weights[t], type(scale)(0)
        for s in range(rows.shape[1]):
            row[s] *= slope[s]
            total += row[s]
        for s in range(rows.shape[1]):
            row[s] = scale * (row[s] - weight[s] * total)


@jit
def _start(strides, o, b, n, h):
    return o * strides[0] + b * strides[1] + n * strides[2] + h * strides[3]


def _attend(
    m, at, q, q_r, k, k_r, v, v_r, z, z_r, p, p_r, total, total_r,
    m_q, at_q, m_k, at_k, m_v, at_v, outputs, scale, at_once, first, last,
):  # fmt: skip
    examples, heads, queries, keys = z.shape
    inner, width, dtype = k.shape[3], v.shape[2], m.dtype
    mean_q, mean_k = np.empty((queries, inner), dtype), np.empty((keys, inner), dtype)
    mean_v, all_multipliers = np.empty((width, keys), dtype), np.empty((at_once, width), dtype)
    all_slopes, all_weights = np.empty((at_once, keys), dtype), np.empty((at_once, keys), dtype)
    all_means, all_rows = np.empty((at_once, keys), dtype), np.empty((at_once, keys), dtype)
    of_q, of_k, of_v = np.empty((at_once, inner), dtype), np.empty((keys, inner), dtype), np.empty((keys, width), dtype)
    for b in range(first, last):
        for n in range(examples):
            for h in range(heads):
                _means(q[n, h], q_r[b, h], mean_q)
                _means(k[n, h], k_r[b, h], mean_k)
                _means(v[n, h], v_r[b, h], mean_v)
                for start in range(0, queries, at_once):
                    end = min(queries, start + at_once)
                    size = end - start
                    slopes, weights, means = all_slopes[:size], all_weights[:size], all_means[:size]
                    multipliers, rows, more = all_multipliers[:size], all_rows[:size], start > 0
                    scores = z[n, h, start:end], z_r[b, h, start:end], p[n, h, start:end], p_r[b, h, start:end]
                    _weigh(*scores, total[n, h, start:end], total_r[b, h, start:end], slopes, weights, means)
                    for o in range(outputs):
                        _read(m, _start(at, o, b, n, h) + start * at[4], at[4], multipliers)
                        np.dot(multipliers, mean_v, rows)
                        _normalise(rows, slopes, weights, scale)
                        np.dot(rows, mean_k, of_q[:size])
                        _write(of_q[:size], m_q, _start(at_q, o, b, n, h) + start * at_q[4], at_q[4], False)
                        np.dot(rows.T, mean_q[start:end], of_k)
                        _write(of_k, m_k, _start(at_k, o, b, n, h), at_k[4], more)
                        np.dot(means.T, multipliers, of_v)
                        _write(of_v, m_v, _start(at_v, o, b, n, h), at_v[4], more)


@cache
def kernel_of(dtype: Any) -> Any:
    """Compile attention for a type of numbers.

    Sides are (rows, heads, queries or keys, width), v is transposed, and totals have no last axis. Multipliers m, m_q,
    m_k and m_v are flat memory, with their strides along outputs, references, examples, heads, and queries or keys.
    """
    number, index = from_dtype(np.dtype(dtype)), types.intp
    flat, rows, side = (types.Array(number, axes, "C") for axes in (1, 3, 4))
    placed = flat, types.UniTuple(index, 5)
    sides = [*[side] * 10, rows, rows]
    return jit(_attend, types.void(*placed, *sides, *placed * 3, index, number, index, index, index))


def queries_at_once(queries: int, keys: int, width: int) -> int:
    """Return the number of queries that the kernel takes at a time."""
    return max(1, min(queries, LARGEST_PRODUCT // (keys * width)))
