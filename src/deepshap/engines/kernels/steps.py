"""Fused steps for the CPU: everything of a step but its matrix products, over a block of pairs, compiled by Numba.

Each kernel does what ``multipliers`` of its cell does, in one pass over the pairs and without transcendental functions.
Kernels run without the interpreter's lock, so that blocks of pairs run in threads.

All kernels take the same arguments. Of pair p and output k the multipliers are in row ``p * outputs + k``.

m_h (rows, at least units) : from the step that follows, in its first columns.
m_y, start, stride, leap, column : of the layer's output, in row ``start + places[p] * stride + k * leap`` from the column on;
    the stride is 0 where all pairs have the same row, of zeros.
carry (rows, units) : what reaches the step before without a matrix product; updated.
m_z (rows, width) : of everything that a matrix product made, see ``products``; written.
x, r, x_first, r_first, x_rows, r_rows : the two traces, where the step begins in them, and which of its rows are a pair.
places : where the pairs are in ``m_y``.
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

from .numbers import compiled, half_sum, relu, sigmoid, tanh


# ---------------------------------------------------------------------- cells
# One kernel for each number of units: offsets that are constants let LLVM make vector code of a loop over many arrays.
def _lstm(units: int) -> Any:
    """Of ``LSTM``; the carry is the cell state's multiplier."""
    f, g, o, zi, zf = units, 2 * units, 3 * units, 4 * units, 5 * units
    zg, zo, before, tanh_c, c = 6 * units, 7 * units, 8 * units, 9 * units, 10 * units

    @compiled
    def kernel(
        m_h, m_y, start, stride, leap, column, outputs, carry, m_z, x, r, x_first, r_first, x_rows, r_rows, places
    ):
        for row in range(len(x_rows) * outputs):
            p, k = row // outputs, row % outputs
            back, y = m_h[row], m_y[start + places[p] * stride + k * leap, column : column + units]
            a, b, z, kept = x[x_first + x_rows[p]], r[r_first + r_rows[p]], m_z[row], carry[row]
            for h in range(units):
                z[o + h] = back[h] + y[h]
            for h in range(units):
                m = z[o + h]
                m_c = kept[h] + m * half_sum(a[o + h], b[o + h]) * tanh(
                    a[c + h], b[c + h], a[tanh_c + h], b[tanh_c + h]
                )
                s_i = sigmoid(a[zi + h], b[zi + h], a[h], b[h])
                s_f = sigmoid(a[zf + h], b[zf + h], a[f + h], b[f + h])
                s_g = tanh(a[zg + h], b[zg + h], a[g + h], b[g + h])
                s_o = sigmoid(a[zo + h], b[zo + h], a[o + h], b[o + h])
                z[h] = m_c * half_sum(a[g + h], b[g + h]) * s_i
                z[f + h] = m_c * half_sum(a[before + h], b[before + h]) * s_f
                z[g + h] = m_c * half_sum(a[h], b[h]) * s_g
                z[o + h] = m * half_sum(a[tanh_c + h], b[tanh_c + h]) * s_o
                kept[h] = m_c * half_sum(a[f + h], b[f + h])

    return kernel


def _gru(units: int) -> Any:
    """Of ``GRU``; the carry is what the update gate lets through."""
    u, n, zr, zu, zn, q, before = units, 2 * units, 3 * units, 4 * units, 5 * units, 6 * units, 7 * units

    @compiled
    def kernel(
        m_h, m_y, start, stride, leap, column, outputs, carry, m_z, x, r, x_first, r_first, x_rows, r_rows, places
    ):
        number = x.dtype.type
        for row in range(len(x_rows) * outputs):
            p, k = row // outputs, row % outputs
            back, y = m_h[row], m_y[start + places[p] * stride + k * leap, column : column + units]
            a, b, z, kept = x[x_first + x_rows[p]], r[r_first + r_rows[p]], m_z[row], carry[row]
            for h in range(units):
                kept[h] += back[h] + y[h]
            for h in range(units):
                m, update = kept[h], half_sum(a[u + h], b[u + h])
                s_r = sigmoid(a[zr + h], b[zr + h], a[h], b[h])
                s_u = sigmoid(a[zu + h], b[zu + h], a[u + h], b[u + h])
                s_n = tanh(a[zn + h], b[zn + h], a[n + h], b[n + h])
                m_n = m * (number(1) - update) * s_n
                z[h] = m_n
                z[u + h] = m_n * half_sum(a[q + h], b[q + h]) * s_r
                z[n + h] = m * (half_sum(a[before + h], b[before + h]) - half_sum(a[n + h], b[n + h])) * s_u
                z[zr + h] = m_n * half_sum(a[h], b[h])
                kept[h] = m * update

    return kernel


def _rnn(rectified: bool, units: int) -> Any:
    """Of ``ReluRNN`` or ``TanhRNN``, which carry nothing; which of them is a constant to the compiler."""

    @compiled
    def kernel(
        m_h, m_y, start, stride, leap, column, outputs, carry, m_z, x, r, x_first, r_first, x_rows, r_rows, places
    ):
        for row in range(len(x_rows) * outputs):
            p, k = row // outputs, row % outputs
            back, y = m_h[row], m_y[start + places[p] * stride + k * leap, column : column + units]
            a, b, z = x[x_first + x_rows[p]], r[r_first + r_rows[p]], m_z[row]
            for h in range(units):
                if rectified:
                    slope = relu(a[units + h], b[units + h], a[h], b[h])
                else:
                    slope = tanh(a[units + h], b[units + h], a[h], b[h])
                z[h] = (back[h] + y[h]) * slope

    return kernel


# ---------------------------------------------------------------------- the layer's input
@compiled
def add_contributions(totals, base, m, first, outputs, x, r, x_first, r_first, x_rows, r_rows):
    """Add multiplier times difference of the input to ``totals`` (outputs, examples, features), over the references.

    ``m`` (rows, columns) has the input's multipliers from column ``first`` on; ``base`` is the first of the examples.
    """
    features = totals.shape[2]
    for p in range(len(x_rows)):
        side, other = x[x_first + x_rows[p]], r[r_first + r_rows[p]]
        for k in range(outputs):
            row, total = m[p * outputs + k], totals[k, x_rows[p] - base]
            for f in range(features):
                total[f] += row[first + f] * (side[f] - other[f])


@compiled
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


@compiled
def find_ends(ends, m_y, rows, steps, starts, outputs, leap):
    """Write for each row behind which step nothing is but 0; ``steps`` come last first, and each starts somewhere in ``m_y``."""
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
    """As kernels take it."""
    return values.numpy()


def index(places: np.ndarray, _: torch.device) -> np.ndarray:
    """Rows, as kernels take them."""
    return places


_KERNELS: dict[str, Callable[[int], Any]] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "TanhRNN": partial(_rnn, False),
    "ReluRNN": partial(_rnn, True),
}


def has(cell: str) -> bool:
    """Whether there is a fused step for a cell of that name."""
    return cell in _KERNELS


@cache
def kernel_of(cell: str, units: int) -> Any:
    """The fused step of a cell."""
    return _KERNELS[cell](units)
