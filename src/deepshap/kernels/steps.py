"""Fused steps for the CPU: a time step without its matrix products, over a block of pairs, compiled by Numba.

Each kernel computes what ``multipliers`` of its cell computes, in one pass over the pairs and without transcendental
functions. With several outputs there are two passes: one computes the slopes of a pair, the other takes the multipliers of all
outputs through them. Kernels release the interpreter's lock, so that blocks of pairs run in threads.

All kernels have the same arguments. The multipliers of pair p and output k are in row ``p * outputs + k``.

m_h (rows, at least units) : multipliers from the following step, in the first columns.
m_y, start, stride, leap, column : multipliers of the layer's output, in row ``start + places[p] * stride + k * leap`` from
    ``column`` on; the stride is 0 if all pairs have the same row, of zeros.
carry (rows, units) : multipliers that reach the previous step without a matrix product; updated.
m_z (rows, width) : multipliers of the results of matrix products, see ``products``; written.
x, r, x_first, r_first, x_rows, r_rows : the two traces, the rows at which the step begins in them, and the rows of each pair.
places : positions of the pairs in ``m_y``.
"""

# The bodies are Numba's, which has types of its own.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .numbers import half_sum, jit, relu, sigmoid, tanh


# ---------------------------------------------------------------------- cells
# There is one kernel for each number of units, because constant offsets let LLVM vectorize a loop over many arrays; and one for
# any number (``units`` is 0), half as fast, which serves all models with little to compute.
# Slopes belong to a pair, whatever is explained: with several outputs one kernel writes them (``slopes_only``, instead of
# ``m_z``), and another kernel takes the multipliers of all outputs through them.
@jit
def _lstm_multipliers(z, carried, h, units, of_i, of_f, of_g, of_o, of_c, of_before):
    """Write the multipliers of a unit's gates; that of the new h is where the output gate's will be."""
    m = z[3 * units + h]
    m_c = carried[h] + m * of_c
    z[h] = m_c * of_i
    z[units + h] = m_c * of_f
    z[2 * units + h] = m_c * of_g
    z[3 * units + h] = m * of_o
    carried[h] = m_c * of_before


def _lstm(units: int, slopes_only: bool) -> Any:
    """Return the kernel of ``LSTM``; the carry is the cell state's multiplier."""

    @jit
    def kernel(
        m_h, m_y, start, stride, leap, column, outputs, carry, m_z, x, r, x_first, r_first, x_rows, r_rows, places
    ):
        n = units or carry.shape[1]
        f, g, o, zi, zf, zg, zo, before, tanh_c, c = n, 2 * n, 3 * n, 4 * n, 5 * n, 6 * n, 7 * n, 8 * n, 9 * n, 10 * n
        for p in range(len(x_rows)):
            a, b, z, carried = x[x_first + x_rows[p]], r[r_first + r_rows[p]], m_z[p], carry[p]
            if not slopes_only:
                back, y = m_h[p], m_y[start + places[p] * stride, column : column + n]
                for h in range(n):
                    z[o + h] = back[h] + y[h]
            for h in range(n):
                of_i = half_sum(a[g + h], b[g + h]) * sigmoid(a[zi + h], b[zi + h], a[h], b[h])
                of_f = half_sum(a[before + h], b[before + h]) * sigmoid(a[zf + h], b[zf + h], a[f + h], b[f + h])
                of_g = half_sum(a[h], b[h]) * tanh(a[zg + h], b[zg + h], a[g + h], b[g + h])
                of_o = half_sum(a[tanh_c + h], b[tanh_c + h]) * sigmoid(a[zo + h], b[zo + h], a[o + h], b[o + h])
                of_c = half_sum(a[o + h], b[o + h]) * tanh(a[c + h], b[c + h], a[tanh_c + h], b[tanh_c + h])
                of_before = half_sum(a[f + h], b[f + h])
                if slopes_only:
                    z[h] = of_i
                    z[f + h] = of_f
                    z[g + h] = of_g
                    z[o + h] = of_o
                    z[zi + h] = of_c
                    z[zf + h] = of_before
                else:
                    _lstm_multipliers(z, carried, h, n, of_i, of_f, of_g, of_o, of_c, of_before)

    return kernel


def _apply_lstm_slopes(units: int) -> Any:
    """Return the kernel that takes multipliers through slopes that ``_lstm`` wrote."""

    @jit
    def kernel(m_h, m_y, start, stride, leap, column, outputs, carry, m_z, slopes, places):
        n = units or carry.shape[1]
        f, g, o, zi, zf = n, 2 * n, 3 * n, 4 * n, 5 * n
        for row in range(len(slopes) * outputs):
            p, k = row // outputs, row % outputs
            back, y = m_h[row], m_y[start + places[p] * stride + k * leap, column : column + n]
            z, carried, s = m_z[row], carry[row], slopes[p]
            for h in range(n):
                z[o + h] = back[h] + y[h]
            for h in range(n):
                _lstm_multipliers(z, carried, h, n, s[h], s[f + h], s[g + h], s[o + h], s[zi + h], s[zf + h])

    return kernel


@jit
def _gru_multipliers(z, carried, h, units, of_n, of_r, of_u, of_q, update):
    """Write the multipliers of a unit's gates; that of the new h has been added to the carry."""
    m = carried[h]
    z[h] = m * of_n
    z[units + h] = m * of_r
    z[2 * units + h] = m * of_u
    z[3 * units + h] = m * of_q
    carried[h] = m * update


def _gru(units: int, slopes_only: bool) -> Any:
    """Return the kernel of ``GRU``; the carry is what passes the update gate."""

    @jit
    def kernel(
        m_h, m_y, start, stride, leap, column, outputs, carry, m_z, x, r, x_first, r_first, x_rows, r_rows, places
    ):
        u = units or carry.shape[1]
        n, zr, zu, zn, q, before = 2 * u, 3 * u, 4 * u, 5 * u, 6 * u, 7 * u
        for p in range(len(x_rows)):
            a, b, z, carried = x[x_first + x_rows[p]], r[r_first + r_rows[p]], m_z[p], carry[p]
            if not slopes_only:
                back, y = m_h[p], m_y[start + places[p] * stride, column : column + u]
                for h in range(u):
                    carried[h] += back[h] + y[h]
            for h in range(u):
                update = half_sum(a[u + h], b[u + h])
                of_n = (x.dtype.type(1) - update) * tanh(a[zn + h], b[zn + h], a[n + h], b[n + h])
                of_r = of_n * half_sum(a[q + h], b[q + h]) * sigmoid(a[zr + h], b[zr + h], a[h], b[h])
                of_u = half_sum(a[before + h], b[before + h]) - half_sum(a[n + h], b[n + h])
                of_u *= sigmoid(a[zu + h], b[zu + h], a[u + h], b[u + h])
                of_q = of_n * half_sum(a[h], b[h])
                if slopes_only:
                    z[h] = of_n
                    z[u + h] = of_r
                    z[n + h] = of_u
                    z[zr + h] = of_q
                    z[zu + h] = update
                else:
                    _gru_multipliers(z, carried, h, u, of_n, of_r, of_u, of_q, update)

    return kernel


def _apply_gru_slopes(units: int) -> Any:
    """Return the kernel that takes multipliers through slopes that ``_gru`` wrote."""

    @jit
    def kernel(m_h, m_y, start, stride, leap, column, outputs, carry, m_z, slopes, places):
        u = units or carry.shape[1]
        n, zr, zu = 2 * u, 3 * u, 4 * u
        for row in range(len(slopes) * outputs):
            p, k = row // outputs, row % outputs
            back, y = m_h[row], m_y[start + places[p] * stride + k * leap, column : column + u]
            z, carried, s = m_z[row], carry[row], slopes[p]
            for h in range(u):
                carried[h] += back[h] + y[h]
            for h in range(u):
                _gru_multipliers(z, carried, h, u, s[h], s[u + h], s[n + h], s[zr + h], s[zu + h])

    return kernel


def _with_shared_slopes(kernel: Callable[..., Any], again: Callable[[int], Any], slopes: int, units: int) -> Any:
    """Return a kernel that computes ``slopes`` slopes of each unit once for all outputs."""
    single_output, write_slopes, apply_slopes = kernel(units, False), kernel(units, True), again(units)

    def run(*arguments: Any) -> None:
        *multipliers, outputs, carry, m_z, x, r, x_first, r_first, x_rows, r_rows, places = arguments
        if outputs == 1:
            return single_output(*arguments)
        slope_rows = np.empty((len(x_rows), slopes * carry.shape[1]), x.dtype)
        write_slopes(*multipliers, outputs, carry, slope_rows, x, r, x_first, r_first, x_rows, r_rows, places)
        return apply_slopes(*multipliers, outputs, carry, m_z, slope_rows, places)

    return run


def _rnn(rectified: bool, units: int) -> Any:
    """Return the kernel of ``ReluRNN`` or ``TanhRNN``, which carry nothing; ``rectified`` is a constant to the compiler."""

    @jit
    def kernel(
        m_h, m_y, start, stride, leap, column, outputs, carry, m_z, x, r, x_first, r_first, x_rows, r_rows, places
    ):
        n = units or carry.shape[1]
        for row in range(len(x_rows) * outputs):
            p, k = row // outputs, row % outputs
            back, y = m_h[row], m_y[start + places[p] * stride + k * leap, column : column + n]
            a, b, z = x[x_first + x_rows[p]], r[r_first + r_rows[p]], m_z[row]
            for h in range(n):
                slope = relu(a[n + h], b[n + h], a[h], b[h]) if rectified else tanh(a[n + h], b[n + h], a[h], b[h])
                z[h] = (back[h] + y[h]) * slope

    return kernel


# ---------------------------------------------------------------------- the layer's input
@jit
def add_contributions(totals, base, m, first, outputs, x, r, x_first, r_first, x_rows, r_rows):
    """Add multiplier times difference of the input to ``totals`` (outputs, examples, features), over the references.

    ``m`` (rows, columns) has the input's multipliers from column ``first`` on; ``base`` is the first of the examples.
    """
    features = totals.shape[2]
    for p in range(len(x_rows)):
        example, reference = x[x_first + x_rows[p]], r[r_first + r_rows[p]]
        for k in range(outputs):
            row, total = m[p * outputs + k], totals[k, x_rows[p] - base]
            for f in range(features):
                total[f] += row[first + f] * (example[f] - reference[f])


@jit
def mark_steps(marks, m_y):
    """Mark the steps at which some multiplier of ``m_y`` (rows * steps, features), steps innermost, is not 0."""
    for row in range(len(m_y)):
        t = row % len(marks)
        if not marks[t]:
            y = m_y[row]
            size = y.dtype.type(0)
            for h in range(len(y)):
                size += abs(y[h])
            marks[t] = size != 0  # NaN counts


@jit
def find_ends(ends, m_y, rows, steps, starts, outputs, leap):
    """Write for each row the step behind which all is 0; ``steps`` come last first, and each starts somewhere in ``m_y``."""
    for p in range(len(rows)):
        for s in range(len(steps)):
            size = m_y.dtype.type(0)
            for k in range(outputs):
                y = m_y[starts[s] + rows[p] + k * leap]
                for h in range(len(y)):
                    size += abs(y[h])
            if size != 0:  # NaN counts
                ends[p] = steps[s] + 1
                break


def view(values: Tensor) -> np.ndarray:
    """Return values as kernels read them."""
    return values.numpy()


def index(places: np.ndarray, _: torch.device) -> np.ndarray:
    """Return rows as kernels read them."""
    return places


_KERNELS: dict[str, Callable[[int], Any]] = {
    "LSTM": partial(_with_shared_slopes, _lstm, _apply_lstm_slopes, 6),
    "GRU": partial(_with_shared_slopes, _gru, _apply_gru_slopes, 5),
    "TanhRNN": partial(_rnn, False),
    "ReluRNN": partial(_rnn, True),
}


def has(cell: str) -> bool:
    """Return whether there is a fused step for a cell of that name."""
    return cell in _KERNELS


@cache
def kernel_of(cell: str, units: int) -> Any:
    """Return the fused step of a cell with this number of units; 0 means any number."""
    return _KERNELS[cell](units)
