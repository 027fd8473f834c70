"""Recurrent cells: one time step forward, and the rule that carries multipliers back through it.

``forward`` computes a step for the examples or for the references and returns the values that the rule needs, the *columns*
of the cell. ``Cell.columns`` maps the name of each column to its width in units. ``multipliers`` maps the multipliers of the
new state of (example, reference) pairs to those of the gates' inputs and of the old state. Weights have PyTorch's layout.
Formulas: docs/mathematics.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from . import Array, namespace, secants

Columns = dict[str, Array]
AnyCell = Any  # a class below


class Weights(NamedTuple):
    """Parameters of one layer and direction, under torch's names; ``w_ih`` is (gates * units, input)."""

    w_ih: Array
    w_hh: Array
    b_ih: Array | None = None
    b_hh: Array | None = None
    w_hr: Array | None = None


class Cell:
    """Attributes of every cell: the numbers of states and gates, and the columns of a step."""

    states: ClassVar[int] = 1
    gates: ClassVar[int] = 1
    columns: ClassVar[dict[str, int]]


class LSTM(Cell):
    """LSTM: c = f c- + i g and h = o tanh c, with gates i, f, g, o in torch's order, and h projected if there is ``w_hr``."""

    states = 2
    gates = 4
    columns: ClassVar = {"a": 4, "z": 4, "c_before": 1, "tanh_c": 1, "c": 1}

    @staticmethod
    def forward(x: Array, state: Sequence[Array], w: Weights) -> tuple[list[Array], Columns]:
        """Return the new state, and the columns of the step."""
        xp, (h, c) = namespace(x), state
        z = xp.linear(x, w.w_ih, w.b_ih) + xp.linear(h, w.w_hh, w.b_hh)
        i, f, g, o = (xp.tanh(v) if k == 2 else xp.sigmoid(v) for k, v in enumerate(xp.split(z, 4)))
        c_new = f * c + i * g
        tanh_c = xp.tanh(c_new)
        h = o * tanh_c if w.w_hr is None else xp.linear(o * tanh_c, w.w_hr)
        return [h, c_new], {"a": xp.concat([i, f, g, o]), "z": z, "c_before": c, "tanh_c": tanh_c, "c": c_new}

    @staticmethod
    def multipliers(m: Sequence[Array], x: Columns, r: Columns, w: Weights) -> tuple[Array, Array, list[Array]]:
        """Return the multipliers of the gates' inputs, of the old h and of the old c from those of the new h and c."""
        m_h, m_c = m
        m_h = m_h if w.w_hr is None else m_h @ w.w_hr
        xp, activations = namespace(m_h), (x["a"] + r["a"]) / 2
        i, f, g, o = xp.split(activations, 4)
        s_i, s_f, s_g, s_o = _gate_slopes(x, r, gates=4)
        m_c = m_c + m_h * o * secants.tanh(x["c"], r["c"], x["tanh_c"], r["tanh_c"])
        m_z = xp.concat(
            [
                m_c * g * s_i,
                m_c * (x["c_before"] + r["c_before"]) / 2 * s_f,
                m_c * i * s_g,
                m_h * (x["tanh_c"] + r["tanh_c"]) / 2 * s_o,
            ]
        )
        return m_z, m_z @ w.w_hh, [m_c * f]


class GRU(Cell):
    """GRU: n = tanh(x_n + r q) with q = U_n h- + b, and h = (1 - z) n + z h-, with gates r, z, n in torch's order."""

    gates = 3
    columns: ClassVar = {"a": 3, "z": 3, "q": 1, "h_before": 1}

    @staticmethod
    def forward(x: Array, state: Sequence[Array], w: Weights) -> tuple[list[Array], Columns]:
        """Return the new state, and the columns of the step."""
        xp, (h,) = namespace(x), state
        (x_r, x_z, x_n), (h_r, h_z, q) = (
            xp.split(xp.linear(v, *wb), 3) for v, wb in ((x, (w.w_ih, w.b_ih)), (h, (w.w_hh, w.b_hh)))
        )
        z = [x_r + h_r, x_z + h_z]
        reset, update = (xp.sigmoid(v) for v in z)
        z.append(x_n + reset * q)
        new = xp.tanh(z[2])
        columns = {"a": xp.concat([reset, update, new]), "z": xp.concat(z), "q": q, "h_before": h}
        return [new + update * (h - new)], columns

    @staticmethod
    def multipliers(m: Sequence[Array], x: Columns, r: Columns, w: Weights) -> tuple[Array, Array, list[Array]]:
        """Return the multipliers of the gates' inputs and of the old h from those of the new h."""
        (m_h,) = m
        xp, activations = namespace(m_h), (x["a"] + r["a"]) / 2
        reset, update, new = xp.split(activations, 3)
        s_r, s_z, s_n = _gate_slopes(x, r, gates=3)
        m_z = m_h * ((x["h_before"] + r["h_before"]) / 2 - new) * s_z
        m_n = m_h * (1 - update) * s_n
        m_r = m_n * (x["q"] + r["q"]) / 2 * s_r
        from_h = xp.concat([m_r, m_z, m_n * reset])
        return xp.concat([m_r, m_z, m_n]), from_h @ w.w_hh + m_h * update, []


class RNN(Cell):
    """Plain recurrent cell with a single gate: h = activation(W x + U h-)."""

    columns: ClassVar = {"a": 1, "z": 1}
    activation: ClassVar[str]
    secant: ClassVar[Any]

    @classmethod
    def forward(cls, x: Array, state: Sequence[Array], w: Weights) -> tuple[list[Array], Columns]:
        """Return the new state, and the columns of the step."""
        xp, (h,) = namespace(x), state
        z = xp.linear(x, w.w_ih, w.b_ih) + xp.linear(h, w.w_hh, w.b_hh)
        a = getattr(xp, cls.activation)(z)
        return [a], {"a": a, "z": z}

    @classmethod
    def multipliers(cls, m: Sequence[Array], x: Columns, r: Columns, w: Weights) -> tuple[Array, Array, list[Array]]:
        """Return the multipliers of the gate's input and of the old h from those of the new h."""
        m_z = m[0] * cls.secant(x["z"], r["z"], x["a"], r["a"])
        return m_z, m_z @ w.w_hh, []


class TanhRNN(RNN):
    """Recurrent cell with tanh: h = tanh(W x + U h-)."""

    activation = "tanh"
    secant = staticmethod(secants.tanh)


class ReluRNN(RNN):
    """Recurrent cell with relu: h = relu(W x + U h-)."""

    activation = "relu"
    secant = staticmethod(secants.relu)


class SigmoidRNN(RNN):
    """Recurrent cell with sigmoid: h = sigmoid(W x + U h-), for the gates of composed cells."""

    activation = "sigmoid"
    secant = staticmethod(secants.sigmoid)


def _gate_slopes(x: Columns, r: Columns, gates: int) -> list[Array]:
    """Return the secant slopes of the gates; the third is the tanh gate, the others are sigmoids. One tanhc serves all gates."""
    xp, units = namespace(x["z"]), x["z"].shape[-1] // gates
    halves = np.repeat([0.5, 0.5, 1.0, 0.5][:gates], units)  # sigmoid needs half the distance, tanh all of it
    shared = xp.split(secants.tanhc((x["z"] - r["z"]) * xp.constant(halves, x["z"])), gates)
    y, yr = xp.split(x["a"], gates), xp.split(r["a"], gates)
    slopes = [s * ((a + b) / 2 - a * b) for s, a, b in zip(shared, y, yr, strict=True)]
    slopes[2] = shared[2] * (1 - y[2] * yr[2])
    return slopes


# ---------------------------------------------------------------------- sequences
def run(cell: AnyCell, xs: Sequence[Array], state: Sequence[Array], w: Weights) -> list[Columns]:
    """Run the steps of the examples or of the references; return the columns of each step."""
    all_columns = []
    for x in xs:
        state, columns = cell.forward(x, state, w)
        all_columns.append(columns)
    return all_columns


def back(
    cell: AnyCell, m_h: Sequence[Array], m_state: Sequence[Array], x: list[Columns], r: list[Columns], w: Weights
) -> tuple[list[Array], list[Array]]:
    """Return the multipliers of every input and of the first state from those of h at every step and of the last state."""
    m_x, (last_h, *others) = [], m_state
    for m, *sides in zip(reversed(m_h), reversed(x), reversed(r), strict=True):
        m_z, last_h, others = cell.multipliers([last_h + m, *others], *sides, w)
        m_x.append(m_z @ w.w_ih)
    return m_x[::-1], [last_h, *others]
