"""Attention in one pass: of a pair and a head, scores and weights never leave the processor's cache."""

# The bodies of kernels are Numba's, which has types of its own.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype, types

from .numbers import compiled, exponentials, half_sum, of_totals

LARGEST_PRODUCT = 2**18  # multiplications of a product that BLAS does in the thread that asks for it


@compiled
def _weigh(z, z_r, p, p_r, total, total_r, slopes, weights, means):
    """Of one row of scores what its multipliers are made of, see ``one_pass``."""
    number = type(total)
    D = total - total_r
    rising, falling = of_totals(D)
    for s in range(len(z)):
        d = z[s] - z_r[s] if z[s] != z_r[s] else number(0)
        slopes[s] = exponentials(d - D, p[s], p_r[s])
        weights[s] = exponentials(d, p[s] * rising, p_r[s] * falling)
        means[s] = half_sum(p[s], p_r[s])


@compiled
def _means(a, b, found):
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            found[i, j] = half_sum(a[i, j], b[i, j])


@compiled
def _write(values, target, more):
    """Copy, or add to what is there; assigning whole arrays takes seconds to compile."""
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            target[i, j] = values[i, j] + (target[i, j] if more else type(values[0, 0])(0))


@compiled
def _normalise(rows, slopes, weights, scale):
    """From the multipliers of attention weights to those of products of queries and keys, in place."""
    for t in range(rows.shape[0]):
        row, total = rows[t], type(scale)(0)
        for s in range(rows.shape[1]):
            row[s] *= slopes[t, s]
            total += row[s]
        for s in range(rows.shape[1]):
            row[s] = scale * (row[s] - weights[t, s] * total)


@cache
def kernel_of(dtype: Any) -> Any:
    """Arrays are (rows, heads, queries or keys, width); multipliers have outputs and references before that."""

    def kernel(m, q, q_r, k, k_r, v, v_r, z, z_r, p, p_r, total, total_r, m_q, m_k, m_v, scale, at_once, first, last):
        outputs, _, examples, heads, queries, width = m.shape
        keys, inner, dtype = k.shape[2], k.shape[3], m.dtype
        mean_q, mean_k = np.empty((queries, inner), dtype), np.empty((keys, inner), dtype)
        mean_v, means = np.empty((keys, width), dtype), np.empty((at_once, keys), dtype)
        given = np.empty((at_once, width), dtype)
        slopes, weights = np.empty((at_once, keys), dtype), np.empty((at_once, keys), dtype)
        for b in range(first, last):
            for n in range(examples):
                for h in range(heads):
                    _means(q[n, h], q_r[b, h], mean_q)
                    _means(k[n, h], k_r[b, h], mean_k)
                    _means(v[n, h], v_r[b, h], mean_v)
                    for start in range(0, queries, at_once):
                        end = min(queries, start + at_once)
                        size = end - start
                        for t in range(size):
                            sides = z[n, h, start + t], z_r[b, h, start + t], p[n, h, start + t], p_r[b, h, start + t]
                            totals = total[n, h, start + t, 0], total_r[b, h, start + t, 0]
                            _weigh(*sides, *totals, slopes[t], weights[t], means[t])
                        for o in range(outputs):
                            _write(m[o, b, n, h, start:end], given, False)
                            rows = np.dot(given[:size], mean_v.T)
                            _normalise(rows, slopes, weights, scale)
                            _write(np.dot(rows, mean_k), m_q[o, b, n, h, start:end], False)
                            _write(np.dot(rows.T, mean_q[start:end]), m_k[o, b, n, h], start > 0)
                            _write(np.dot(means[:size].T, given[:size]), m_v[o, b, n, h], start > 0)

    number = from_dtype(np.dtype(dtype))
    value, paired = (types.Array(number, axes, "A") for axes in (4, 6))  # however they lie in memory
    return compiled(kernel, types.void(paired, *[value] * 12, *[paired] * 3, number, *[types.intp] * 3))


def queries_at_once(queries: int, keys: int, width: int) -> int:
    """How many queries the kernel should take at a time."""
    return max(1, min(queries, LARGEST_PRODUCT // (keys * width)))
