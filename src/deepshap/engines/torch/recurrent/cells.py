"""One step of a recurrent cell: forward values of one side, multipliers of pairs. Formulas: docs/mathematics.md.

What a step leaves for its rule are the ``columns`` of its cell, blocks of one or more times the units; side by side they
make a row of the trace that the fused kernels read.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import secants

Cell = Any  # one of the classes below
Columns = dict[str, Tensor]


class Weights(NamedTuple):
    """Parameters of one layer and direction, named as torch names them."""

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None = None
    b_hh: Tensor | None = None
    w_hr: Tensor | None = None


class _Cell:
    states: ClassVar[int] = 1
    gates: ClassVar[int] = 1
    columns: ClassVar[dict[str, int]]

    @classmethod
    def width(cls, units: int) -> int:
        """Length of a row of the trace."""
        return sum(cls.columns.values()) * units

    @classmethod
    def split(cls, rows: Tensor) -> Columns:
        """Views of the columns of some rows (..., width)."""
        units = rows.shape[-1] // sum(cls.columns.values())
        return dict(zip(cls.columns, rows.split([units * n for n in cls.columns.values()], -1), strict=True))

    @classmethod
    def read(cls, x: Tensor, w: Weights, rows: Tensor) -> None:
        """Fill z in the ``rows`` of the trace with what the input adds to it, and every bias that is added to that."""
        bias, z = cls.bias(w), cls.split(rows)["z"]
        torch.mm(x, w.w_ih.T, out=z) if bias is None else torch.addmm(bias, x, w.w_ih.T, out=z)

    @staticmethod
    def bias(w: Weights) -> Tensor | None:
        """What is added to z beside the shares of input and state."""
        return w.b_ih if w.b_hh is None else w.b_hh if w.b_ih is None else w.b_ih + w.b_hh


class LSTM(_Cell):
    """c = f c- + i g and h = o tanh c, with gates i, f, g, o in torch's order."""

    states = 2
    gates = 4
    columns: ClassVar = {"a": 4, "z": 4, "c_before": 1, "tanh_c": 1, "c": 1}

    @staticmethod
    def forward(state: list[Tensor], w: Weights, rows: Tensor) -> list[Tensor]:
        """One step from what was read of the input to the new state; fills the ``rows`` of the trace."""
        h, c = state
        units = c.shape[-1]
        gates, z, before, tanh_c, new = LSTM.split(rows).values()
        i, f, g, o = torch.sigmoid(z.addmm_(h, w.w_hh.T), out=gates).chunk(4, -1)
        torch.tanh(z.narrow(-1, 2 * units, units), out=g)
        before.copy_(c)
        torch.mul(f, c, out=new).addcmul_(i, g)
        h = o * torch.tanh(new, out=tanh_c)
        return [h if w.w_hr is None else F.linear(h, w.w_hr), new]

    @staticmethod
    def multipliers(m: list[Tensor], x: Columns, r: Columns, w: Weights) -> tuple[Tensor, Tensor, list[Tensor]]:
        """From the multipliers of h and c to those of the gates' inputs, from x and from h, and of the old c."""
        m_h, m_c = m
        m_h = m_h if w.w_hr is None else m_h @ w.w_hr
        i, f, g, o = ((x["a"] + r["a"]) / 2).chunk(4, -1)
        s_i, s_f, s_g, s_o = _gate_slopes(x, r, gates=4)
        m_c = m_c + m_h * o * secants.tanh(x["c"], r["c"], x["tanh_c"], r["tanh_c"])
        m_z = torch.cat(
            [
                m_c * g * s_i,
                m_c * (x["c_before"] + r["c_before"]) / 2 * s_f,
                m_c * i * s_g,
                m_h * (x["tanh_c"] + r["tanh_c"]) / 2 * s_o,
            ],
            -1,
        )
        return m_z, m_z @ w.w_hh, [m_c * f]


class GRU(_Cell):
    """n = tanh(x_n + r q) with q = U_n h + b, and h = (1 - z) n + z h-, with gates r, z, n in torch's order."""

    gates = 3
    columns: ClassVar = {"a": 3, "z": 3, "q": 1, "h_before": 1}

    @staticmethod
    def bias(w: Weights) -> Tensor | None:
        """What is added to z beside the shares of input and state; the last part of ``b_hh`` belongs to q."""
        if w.b_hh is None:
            return w.b_ih
        units = w.w_hh.shape[1]
        of_gates = F.pad(w.b_hh[: 2 * units], (0, units))
        return of_gates if w.b_ih is None else w.b_ih + of_gates

    @staticmethod
    def forward(state: list[Tensor], w: Weights, rows: Tensor) -> list[Tensor]:
        """One step from what was read of the input to the new state; fills the ``rows`` of the trace."""
        (h,) = state
        units = h.shape[-1]
        both = [2 * units, units]  # gates, and what is new
        gates, n, z, z_n, q, before = rows.split([*both, *both, units, units], -1)
        share, share_n = torch.mm(h, w.w_hh.T).split(both, -1)
        r, update = torch.sigmoid(z.add_(share), out=gates).chunk(2, -1)
        q.copy_(share_n) if w.b_hh is None else torch.add(share_n, w.b_hh.narrow(0, 2 * units, units), out=q)
        torch.tanh(z_n.addcmul_(r, q), out=n)
        before.copy_(h)
        return [torch.addcmul(n, update, h - n)]  # in the order in which torch rounds

    @staticmethod
    def multipliers(m: list[Tensor], x: Columns, r: Columns, w: Weights) -> tuple[Tensor, Tensor, list[Tensor]]:
        """From the multiplier of h to those of the gates' inputs and of the old h."""
        (m_h,) = m
        reset, update, new = ((x["a"] + r["a"]) / 2).chunk(3, -1)
        s_r, s_z, s_n = _gate_slopes(x, r, gates=3)
        m_z = m_h * ((x["h_before"] + r["h_before"]) / 2 - new) * s_z
        m_n = m_h * (1 - update) * s_n
        m_r = m_n * (x["q"] + r["q"]) / 2 * s_r
        from_h = torch.cat([m_r, m_z, m_n * reset], -1)
        return torch.cat([m_r, m_z, m_n], -1), from_h @ w.w_hh + m_h * update, []


class _RNN(_Cell):
    columns: ClassVar = {"a": 1, "z": 1}
    activation: ClassVar[Any]
    secant: ClassVar[Any]

    @classmethod
    def forward(cls, state: list[Tensor], w: Weights, rows: Tensor) -> list[Tensor]:
        """One step from what was read of the input to the new state; fills the ``rows`` of the trace."""
        a, z = rows.chunk(2, -1)
        h = cls.activation(z.addmm_(state[0], w.w_hh.T))
        a.copy_(h)
        return [h]

    @classmethod
    def multipliers(cls, m: list[Tensor], x: Columns, r: Columns, w: Weights) -> tuple[Tensor, Tensor, list[Tensor]]:
        """From the multiplier of h to those of the old h and x."""
        m_z = m[0] * cls.secant(x["z"], r["z"], x["a"], r["a"])
        return m_z, m_z @ w.w_hh, []


class TanhRNN(_RNN):
    """h = tanh(W x + U h-)."""

    activation = staticmethod(torch.tanh)
    secant = staticmethod(secants.tanh)


class ReluRNN(_RNN):
    """h = relu(W x + U h-)."""

    activation = staticmethod(torch.relu)
    secant = staticmethod(secants.relu)


def _gate_slopes(x: Columns, r: Columns, gates: int) -> tuple[Tensor, ...]:
    """Secants of all gates at once: sigmoid gates, and in third place the tanh gate, with one tanhc for all."""
    halves = [0.5, 0.5, 1.0, 0.5][:gates]  # sigmoid takes half the distance, tanh the whole
    units = x["z"].shape[-1] // gates
    scale = torch.tensor(halves, dtype=x["z"].dtype, device=x["z"].device).repeat_interleave(units)
    shared = secants.tanhc((x["z"] - r["z"]) * scale).split(units, -1)
    y, yr = x["a"].split(units, -1), r["a"].split(units, -1)
    slopes = [s * ((a + b) / 2 - a * b) for s, a, b in zip(shared, y, yr, strict=True)]
    slopes[2] = shared[2] * (1 - y[2] * yr[2])
    return tuple(slopes)
