"""The cells of ``mathematics.cells`` with their forward step in place, into the trace.

The columns that a step leaves lie side by side in a row of the trace, which the fused kernels read. So a step takes no memory
and no pass of its own; the mathematics' own ``forward`` is what it is tested against.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ....mathematics import cells
from ....mathematics.cells import Columns, Weights

Cell = Any  # one of the classes below


class _Traced:
    gates: ClassVar[int]
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


class LSTM(_Traced, cells.LSTM):
    """See ``mathematics.cells``."""

    @staticmethod
    def step(state: list[Tensor], w: Weights, rows: Tensor) -> list[Tensor]:
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


class GRU(_Traced, cells.GRU):
    """See ``mathematics.cells``."""

    @staticmethod
    def bias(w: Weights) -> Tensor | None:
        """What is added to z beside the shares of input and state; the last part of ``b_hh`` belongs to q."""
        if w.b_hh is None:
            return w.b_ih
        units = w.w_hh.shape[1]
        of_gates = F.pad(w.b_hh[: 2 * units], (0, units))
        return of_gates if w.b_ih is None else w.b_ih + of_gates

    @staticmethod
    def step(state: list[Tensor], w: Weights, rows: Tensor) -> list[Tensor]:
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


class _RNN(_Traced):
    activation: ClassVar[str]

    @classmethod
    def step(cls, state: list[Tensor], w: Weights, rows: Tensor) -> list[Tensor]:
        """One step from what was read of the input to the new state; fills the ``rows`` of the trace."""
        a, z = rows.chunk(2, -1)
        h = getattr(torch, cls.activation)(z.addmm_(state[0], w.w_hh.T))
        a.copy_(h)
        return [h]


class TanhRNN(_RNN, cells.TanhRNN):
    """See ``mathematics.cells``."""


class ReluRNN(_RNN, cells.ReluRNN):
    """See ``mathematics.cells``."""
