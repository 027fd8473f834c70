"""The cells of ``formulas.cells``, with a forward step that writes into the trace.

A row of the trace holds the columns that a step computes side by side, as the fused kernels read them. A step therefore
allocates nothing and copies nothing. For few rows each call of torch takes as long as its work, so views and weights are
prepared once for all steps. The tests compare the steps with ``forward`` of ``formulas.cells``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ....formulas import cells
from ....formulas.cells import Columns, Weights

Cell = Any  # one of the classes below
PRODUCT_BYTES = 2**23  # of one product; torch computes it in a buffer before it copies it into columns of the trace


class _Traced:
    gates: ClassVar[int]
    columns: ClassVar[dict[str, int]]

    @classmethod
    def width(cls, units: int) -> int:
        """Return the length of a row of the trace."""
        return sum(cls.columns.values()) * units

    @classmethod
    def split(cls, rows: Tensor) -> Columns:
        """Return views of the columns of rows (..., width)."""
        units = rows.shape[-1] // sum(cls.columns.values())
        return dict(zip(cls.columns, rows.split([units * n for n in cls.columns.values()], -1), strict=True))

    @classmethod
    def read(cls, x: Tensor, w: Weights, rows: Tensor) -> None:
        """Write the input's contribution to z into the ``rows`` of the trace, plus all biases that are added to it."""
        bias, weights, width = cls.bias(w), w.w_ih.T, w.w_ih.shape[0]
        z_columns = rows.narrow(1, width, width)  # z follows the gates, which have the same width
        limit = max(1, PRODUCT_BYTES // (width * rows.itemsize))
        fits = x.shape[0] <= limit
        for part, z in ((x, z_columns),) if fits else zip(x.split(limit), z_columns.split(limit), strict=True):
            torch.mm(part, weights, out=z) if bias is None else torch.addmm(bias, part, weights, out=z)

    @staticmethod
    def bias(w: Weights) -> Tensor | None:
        """Return the sum of the biases, which is added to z besides the contributions of input and state."""
        return w.b_ih if w.b_hh is None else w.b_hh if w.b_ih is None else w.b_ih + w.b_hh


class LSTM(_Traced, cells.LSTM):
    """See ``formulas.cells``."""

    @staticmethod
    def views(rows: Tensor) -> list[Tensor]:
        """Return the views of the trace that ``step`` fills."""
        i, f, g, o, _, _, z_g, _, before, tanh_c, new = rows.chunk(11, -1)
        gates, z = rows.narrow(1, 0, 4 * i.shape[1]), rows.narrow(1, 4 * i.shape[1], 4 * i.shape[1])
        return [gates, z, z_g, i, f, g, o, before, tanh_c, new]

    @staticmethod
    def transposed(w: Weights) -> list[Any]:
        """Return the transposed weights that ``step`` uses."""
        return [w.w_hh.T, None if w.w_hr is None else w.w_hr.T]

    @classmethod
    def step(cls, state: list[Tensor], weights: list[Any], views: Sequence[Tensor], output: Tensor) -> list[Tensor]:
        """Compute the new state from the input's part of z; fills the ``views`` of the trace and the output."""
        cls._open(state[0], weights[0], views)
        return cls._pass(state[1], weights[1], views, output)

    @classmethod
    def all_steps(cls, h: Tensor, c: Tensor, w: Weights, rows: Tensor, output: Tensor, order: range) -> None:
        """Fill the trace of all steps at once, given the old ``h`` of each step; ``c`` is the state before the first."""
        weights, views = cls.transposed(w), cls.views(rows)
        cls._open(h, weights[0], views)
        forget_gates, added = (v.unflatten(0, (len(order), -1)).numpy() for v in (views[4], views[3] * views[5]))
        old, new = np.empty_like(added), c.detach().numpy()
        for t in order:
            old[t] = new
            new = forget_gates[t] * new + added[t]
        cls._pass(torch.from_numpy(old).flatten(0, 1), weights[1], views, output)

    @staticmethod
    def _open(h: Tensor, w_hh: Tensor, views: Sequence[Tensor]) -> None:
        """Compute the gates."""
        gates, z, z_g, _, _, g, *_ = views
        torch.sigmoid(z.addmm_(h, w_hh), out=gates)
        torch.tanh(z_g, out=g)

    @staticmethod
    def _pass(c: Tensor, w_hr: Tensor | None, views: Sequence[Tensor], output: Tensor) -> list[Tensor]:
        """Compute the new state from the old c and the gates."""
        _, _, _, i, f, g, o, before, tanh_c, new = views
        before.copy_(c)
        torch.mul(f, c, out=new).addcmul_(i, g)
        torch.tanh(new, out=tanh_c)
        h = torch.mul(o, tanh_c, out=output) if w_hr is None else torch.mm(o * tanh_c, w_hr, out=output)
        return [h, new]


class GRU(_Traced, cells.GRU):
    """See ``formulas.cells``."""

    @staticmethod
    def bias(w: Weights) -> Tensor | None:
        """Return the sum of the biases, which is added to z; the last part of ``b_hh`` belongs to q."""
        if w.b_hh is None:
            return w.b_ih
        bias, gate_columns = torch.zeros_like(w.b_hh) if w.b_ih is None else w.b_ih.clone(), 2 * w.w_hh.shape[1]
        bias[:gate_columns].add_(w.b_hh[:gate_columns])
        return bias

    @staticmethod
    def views(rows: Tensor) -> list[Tensor]:
        """Return the views of the trace that ``step`` fills."""
        reset, update, n, _, _, z_n, q, before = rows.chunk(8, -1)
        units = n.shape[1]
        return [rows.narrow(1, 0, 2 * units), reset, update, n, rows.narrow(1, 3 * units, 2 * units), z_n, q, before]

    @staticmethod
    def transposed(w: Weights) -> list[Any]:
        """Return the transposed weights that ``step`` uses."""
        gates, new = w.w_hh.T.tensor_split([2 * w.w_hh.shape[1]], 1)
        return [gates, new, None if w.b_hh is None else w.b_hh[-w.w_hh.shape[1] :]]

    @staticmethod
    def step(state: list[Tensor], weights: list[Any], views: Sequence[Tensor], output: Tensor) -> list[Tensor]:
        """Compute the new state from the input's part of z; fills the ``views`` of the trace and the output."""
        (h,), (w_gates, w_new, bias) = state, weights
        gates, reset, update, n, z, z_n, q, before = views
        torch.sigmoid(z.addmm_(h, w_gates), out=gates)
        torch.mm(h, w_new, out=q) if bias is None else torch.addmm(bias, h, w_new, out=q)
        torch.tanh(z_n.addcmul_(reset, q), out=n)
        before.copy_(h)
        return [torch.addcmul(n, update, h - n, out=output)]  # the order of torch, for equal rounding


class _RNN(_Traced):
    activation: ClassVar[str]

    @staticmethod
    def views(rows: Tensor) -> list[Tensor]:
        """Return the views of the trace that ``step`` fills."""
        return list(rows.chunk(2, -1))

    @staticmethod
    def transposed(w: Weights) -> list[Any]:
        """Return the transposed weights that ``step`` uses."""
        return [w.w_hh.T]

    @classmethod
    def step(cls, state: list[Tensor], weights: list[Any], views: Sequence[Tensor], output: Tensor) -> list[Tensor]:
        """Compute the new state from the input's part of z; fills the ``views`` of the trace and the output."""
        a, z = views
        h = getattr(torch, cls.activation)(z.addmm_(state[0], weights[0]))
        a.copy_(h)
        return [output.copy_(h)]


class TanhRNN(_RNN, cells.TanhRNN):
    """See ``formulas.cells``."""


class ReluRNN(_RNN, cells.ReluRNN):
    """See ``formulas.cells``."""
