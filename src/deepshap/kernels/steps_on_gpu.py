"""Fused steps for a GPU, compiled by Triton, with the signatures and the layout of ``steps``.

One launch computes all pairs of a step; each program computes a tile, some rows of multipliers by some units.
"""

# The bodies are Triton's, which has types of its own.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE, WIDTH = 512, 64  # multipliers per program, and the most units of a row
REFERENCES, FEATURES = 32, 32  # at a time, of a sum
# Numbers that change from step to step: no program of its own for each that is 1 or divisible by 16.
_OF_STEPS = ["count", "start", "stride", "leap", "column", "outputs", "x_first", "r_first"]


@triton.jit
def _nothing(values):
    tl.store(values, tl.load(values))


@cache
def works(device: torch.device) -> bool:
    """Return whether Triton can compile here: it needs a C compiler, and Python's headers."""
    try:
        _nothing[(1,)](torch.zeros(1, device=device))
    except Exception as error:  # whatever a compiler says
        warnings.warn(
            f"Triton does not work on this machine ({type(error).__name__}: {error}): recurrent networks are explained without "
            "its kernels, with the same numbers, more slowly.",
            stacklevel=2,
        )
        return False
    return True


# ---------------------------------------------------------------------- secants
@triton.jit
def _slope(distance, difference, product):
    """Return the quotient of differences; for near points ``product`` times a Padé approximant of tanhc."""
    u = distance * distance
    near = tl.abs(distance) <= 0.5
    above = 135135.0 + u * (17325.0 + u * (378.0 + u))
    below = 135135.0 + u * (62370.0 + u * (3150.0 + u * 28.0))
    return tl.where(near, product * above, difference) / tl.where(near, below, distance)


@triton.jit
def _tanh(x, r, y, y_r):
    return _slope(x - r, y - y_r, 1.0 - y * y_r)


@triton.jit
def _sigmoid(x, r, y, y_r):
    return _slope(0.5 * (x - r), 0.5 * (y - y_r), 0.5 * (y + y_r) - y * y_r)


@triton.jit
def _relu(x, r, y, y_r):
    same = (x > 0) == (r > 0)
    return tl.where(same, tl.where(x > 0, 1.0, 0.0).to(y.dtype), y - y_r) / tl.where(same, 1.0, x - r)


@triton.jit
def _half_sum(a, b):
    return 0.5 * (a + b)


# ---------------------------------------------------------------------- cells
@triton.jit
def _tile(count, outputs, units: tl.constexpr, rows: tl.constexpr, width: tl.constexpr):
    """Return this program's rows with their pairs and outputs, its units, and masks of the rows and of the tile."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)[:, None]
    h = tl.program_id(1) * width + tl.arange(0, width)[None, :]
    return row.to(tl.int64), row // outputs, row % outputs, h, row < count, (row < count) & (h < units)


@triton.jit(do_not_specialize=_OF_STEPS)
def _lstm(
    m_h, m_h_row, m_y, m_y_row, start, stride, leap, column, outputs, carry, carry_row, m_z, m_z_row,
    x, x_row, r, r_row, x_first, r_first, x_rows, r_rows, places, count, units: tl.constexpr,
    rows: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Run a step of ``LSTM``; the carry is the cell state's multiplier."""
    row, p, k, h, in_rows, in_tile = _tile(count, outputs, units, rows, width)
    a = x + (x_first + tl.load(x_rows + p, in_rows, 0)) * x_row + h
    b = r + (r_first + tl.load(r_rows + p, in_rows, 0)) * r_row + h
    y = m_y + (start + tl.load(places + p, in_rows, 0) * stride + k * leap) * m_y_row + column + h
    z, carried = m_z + row * m_z_row + h, carry + row * carry_row + h
    i, i_r = tl.load(a, in_tile, 0.0), tl.load(b, in_tile, 0.0)
    f, f_r = tl.load(a + units, in_tile, 0.0), tl.load(b + units, in_tile, 0.0)
    g, g_r = tl.load(a + 2 * units, in_tile, 0.0), tl.load(b + 2 * units, in_tile, 0.0)
    o, o_r = tl.load(a + 3 * units, in_tile, 0.0), tl.load(b + 3 * units, in_tile, 0.0)
    tanh_c, tanh_c_r = tl.load(a + 9 * units, in_tile, 0.0), tl.load(b + 9 * units, in_tile, 0.0)
    before = _half_sum(tl.load(a + 8 * units, in_tile, 0.0), tl.load(b + 8 * units, in_tile, 0.0))
    m = tl.load(m_h + row * m_h_row + h, in_tile, 0.0) + tl.load(y, in_tile, 0.0)
    s_c = _tanh(tl.load(a + 10 * units, in_tile, 0.0), tl.load(b + 10 * units, in_tile, 0.0), tanh_c, tanh_c_r)
    m_c = tl.load(carried, in_tile, 0.0) + m * _half_sum(o, o_r) * s_c
    s_i = _sigmoid(tl.load(a + 4 * units, in_tile, 0.0), tl.load(b + 4 * units, in_tile, 0.0), i, i_r)
    s_f = _sigmoid(tl.load(a + 5 * units, in_tile, 0.0), tl.load(b + 5 * units, in_tile, 0.0), f, f_r)
    s_g = _tanh(tl.load(a + 6 * units, in_tile, 0.0), tl.load(b + 6 * units, in_tile, 0.0), g, g_r)
    s_o = _sigmoid(tl.load(a + 7 * units, in_tile, 0.0), tl.load(b + 7 * units, in_tile, 0.0), o, o_r)
    tl.store(z, m_c * _half_sum(g, g_r) * s_i, in_tile)
    tl.store(z + units, m_c * before * s_f, in_tile)
    tl.store(z + 2 * units, m_c * _half_sum(i, i_r) * s_g, in_tile)
    tl.store(z + 3 * units, m * _half_sum(tanh_c, tanh_c_r) * s_o, in_tile)
    tl.store(carried, m_c * _half_sum(f, f_r), in_tile)


@triton.jit(do_not_specialize=_OF_STEPS)
def _gru(
    m_h, m_h_row, m_y, m_y_row, start, stride, leap, column, outputs, carry, carry_row, m_z, m_z_row,
    x, x_row, r, r_row, x_first, r_first, x_rows, r_rows, places, count, units: tl.constexpr,
    rows: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Run a step of ``GRU``; the carry is what passes the update gate."""
    row, p, k, h, in_rows, in_tile = _tile(count, outputs, units, rows, width)
    a = x + (x_first + tl.load(x_rows + p, in_rows, 0)) * x_row + h
    b = r + (r_first + tl.load(r_rows + p, in_rows, 0)) * r_row + h
    y = m_y + (start + tl.load(places + p, in_rows, 0) * stride + k * leap) * m_y_row + column + h
    z, carried = m_z + row * m_z_row + h, carry + row * carry_row + h
    reset, reset_r = tl.load(a, in_tile, 0.0), tl.load(b, in_tile, 0.0)
    update, update_r = tl.load(a + units, in_tile, 0.0), tl.load(b + units, in_tile, 0.0)
    new, new_r = tl.load(a + 2 * units, in_tile, 0.0), tl.load(b + 2 * units, in_tile, 0.0)
    q = _half_sum(tl.load(a + 6 * units, in_tile, 0.0), tl.load(b + 6 * units, in_tile, 0.0))
    before = _half_sum(tl.load(a + 7 * units, in_tile, 0.0), tl.load(b + 7 * units, in_tile, 0.0))
    m = tl.load(carried, in_tile, 0.0) + tl.load(m_h + row * m_h_row + h, in_tile, 0.0) + tl.load(y, in_tile, 0.0)
    s_r = _sigmoid(tl.load(a + 3 * units, in_tile, 0.0), tl.load(b + 3 * units, in_tile, 0.0), reset, reset_r)
    s_u = _sigmoid(tl.load(a + 4 * units, in_tile, 0.0), tl.load(b + 4 * units, in_tile, 0.0), update, update_r)
    s_n = _tanh(tl.load(a + 5 * units, in_tile, 0.0), tl.load(b + 5 * units, in_tile, 0.0), new, new_r)
    through = _half_sum(update, update_r)
    m_n = m * (1.0 - through) * s_n
    tl.store(z, m_n, in_tile)
    tl.store(z + units, m_n * q * s_r, in_tile)
    tl.store(z + 2 * units, m * (before - _half_sum(new, new_r)) * s_u, in_tile)
    tl.store(z + 3 * units, m_n * _half_sum(reset, reset_r), in_tile)
    tl.store(carried, m * through, in_tile)


@triton.jit(do_not_specialize=_OF_STEPS)
def _rnn(
    m_h, m_h_row, m_y, m_y_row, start, stride, leap, column, outputs, carry, carry_row, m_z, m_z_row,
    x, x_row, r, r_row, x_first, r_first, x_rows, r_rows, places, count, units: tl.constexpr,
    rows: tl.constexpr, width: tl.constexpr, secant: tl.constexpr,
):  # fmt: skip
    """Run a step of ``TanhRNN`` or ``ReluRNN``, which carry nothing."""
    row, p, k, h, in_rows, in_tile = _tile(count, outputs, units, rows, width)
    a = x + (x_first + tl.load(x_rows + p, in_rows, 0)) * x_row + h
    b = r + (r_first + tl.load(r_rows + p, in_rows, 0)) * r_row + h
    y = m_y + (start + tl.load(places + p, in_rows, 0) * stride + k * leap) * m_y_row + column + h
    m = tl.load(m_h + row * m_h_row + h, in_tile, 0.0) + tl.load(y, in_tile, 0.0)
    z, z_r = tl.load(a + units, in_tile, 0.0), tl.load(b + units, in_tile, 0.0)
    slope = secant(z, z_r, tl.load(a, in_tile, 0.0), tl.load(b, in_tile, 0.0))
    tl.store(m_z + row * m_z_row + h, m * slope, in_tile)


_KERNELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "LSTM": (_lstm, {}),
    "GRU": (_gru, {}),
    "TanhRNN": (_rnn, {"secant": _tanh}),
    "ReluRNN": (_rnn, {"secant": _relu}),
}


def kernel_of(cell: str, units: int) -> Any:
    """Return the fused step of a cell."""
    function, options = _KERNELS[cell]
    width = min(triton.next_power_of_2(units), WIDTH)

    def launch(
        m_h, m_y, start, stride, leap, column, outputs, carry, m_z, x, r, x_first, r_first, x_rows, r_rows, places
    ):
        count = len(x_rows) * outputs
        of_output = (m_y, m_y.stride(0), start, stride, leap, column, outputs)
        multipliers = (m_h, m_h.stride(0), *of_output, carry, carry.stride(0), m_z, m_z.stride(0))
        traces = (x, x.stride(0), r, r.stride(0), x_first, r_first)
        grid = (triton.cdiv(count, TILE // width), triton.cdiv(units, width))
        function[grid](*multipliers, *traces, x_rows, r_rows, places, count, units, TILE // width, width, **options)

    return launch


# ---------------------------------------------------------------------- the layer's input
@triton.jit(do_not_specialize=["first", "outputs", "x_first", "r_first", "per"])
def _contributions(
    totals, m, m_row, first, outputs, x, x_row, r, r_row, x_first, r_first, x_rows, r_rows, per, examples, features,
    references: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    n, k = tl.program_id(0).to(tl.int64), tl.program_id(1)
    f = tl.program_id(2) * width + tl.arange(0, width)
    inside = f < features
    example = tl.load(x + (x_first + tl.load(x_rows + n * per)) * x_row + f, inside, 0.0)
    total = tl.zeros([width], tl.float64)
    for first_reference in range(0, per, references):
        b = first_reference + tl.arange(0, references)
        pair, there = n * per + b, (b < per)[:, None] & inside[None, :]
        weight = tl.load(m + (pair * outputs + k)[:, None] * m_row + first + f[None, :], there, 0.0)
        row = r_first + tl.load(r_rows + pair, b < per, 0)
        reference = tl.load(r + row[:, None] * r_row + f[None, :], there, 0.0)
        total += tl.sum((weight * (example[None, :] - reference)).to(tl.float64), 0)
    at = totals + (k * examples + n) * features + f
    tl.store(at, tl.load(at, inside, 0.0) + total, inside)


def add_contributions(totals, base, m, first, outputs, x, r, x_first, r_first, x_rows, r_rows):
    """Add multiplier times difference of the input to ``totals`` (outputs, examples, features), over the references.

    Of each example the pairs follow one another; in a packed sequence it is one pair.
    """
    _, examples, features = totals.shape
    per = max(1, len(x_rows) // examples)
    grid = (len(x_rows) // per, outputs, triton.cdiv(features, FEATURES))
    rows = (m, m.stride(0), first, outputs, x, x.stride(0), r, r.stride(0), x_first, r_first, x_rows, r_rows)
    _contributions[grid](totals, *rows, per, examples, features, references=REFERENCES, width=FEATURES)


def view(values: Tensor) -> Tensor:
    """Return values as kernels read them."""
    return values


def index(places: Any, device: torch.device) -> Tensor:
    """Return rows as kernels read them."""
    return torch.as_tensor(places, device=device)
