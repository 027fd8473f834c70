"""Recurrent layers and cells: forward values once per example and once per reference, multipliers per pair.

Index letters: n example, b reference, t step, h unit. A sequence is kept flat, step after step, as torch packs it:
``(sum of batch_sizes, features)`` where step t has ``batch_sizes[t]`` rows. A padded sequence is the case in which
all steps have all rows. Formulas: docs/mathematics.md, "Recurrent cells".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UnsupportedOperationError
from . import secants
from .operations import Misaligned, Step, primitive

Cell = Any  # the classes below: forward, multipliers, number of states


class Weights(NamedTuple):
    """Parameters of one layer and direction, named as torch names them."""

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None = None
    b_hh: Tensor | None = None
    w_hr: Tensor | None = None


@dataclass(frozen=True)
class Settings:
    """Everything about one layer and direction that is not a varying tensor."""

    cell: Cell
    weights: Weights
    batch_sizes: list[int]
    order: list[int]
    repeats: int = 1


@dataclass
class Trace:
    """What one side's forward recursion leaves for the rule, each of shape (sum of batch_sizes, units)."""

    settings: Settings
    batch_sizes: list[int]
    values: dict[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Memory that the values take."""
        return sum(v.nbytes for v in self.values.values())

    def at(self, step: int) -> dict[str, Tensor]:
        """All values of one step."""
        start = self.offsets[step]
        return {name: v[start : start + self.batch_sizes[step]] for name, v in self.values.items()}

    @cached_property
    def offsets(self) -> list[int]:
        """Where the steps begin."""
        return [0, *accumulate(self.batch_sizes)]


class LSTM:
    """c = f c- + i g and h = o tanh c, with gates i, f, g, o in torch's order."""

    states: ClassVar[int] = 2

    @staticmethod
    def forward(x: Tensor, state: list[Tensor], w: Weights) -> tuple[list[Tensor], dict[str, Tensor]]:
        """One step from the input's share of the gates."""
        h, c = state
        z = x + F.linear(h, w.w_hh, w.b_hh)
        i, f, g, o = z.chunk(4, -1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        new = f * c + i * g
        tanh_c = new.tanh()
        h = o * tanh_c
        kept = {"z": z, "a": torch.cat([i, f, g, o], -1), "c_before": c, "c": new, "tanh_c": tanh_c}
        return [h if w.w_hr is None else F.linear(h, w.w_hr), new], kept

    @staticmethod
    def multipliers(
        m: list[Tensor], x: dict[str, Tensor], r: dict[str, Tensor], w: Weights
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
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


class GRU:
    """n = tanh(x_n + r q) with q = U_n h + b, and h = (1 - z) n + z h-, with gates r, z, n in torch's order."""

    states: ClassVar[int] = 1

    @staticmethod
    def forward(x: Tensor, state: list[Tensor], w: Weights) -> tuple[list[Tensor], dict[str, Tensor]]:
        """One step from the input's share of the gates."""
        (h,) = state
        x_rz, x_n = x.tensor_split([2 * h.shape[-1]], -1)
        h_rz, q = F.linear(h, w.w_hh, w.b_hh).tensor_split([2 * h.shape[-1]], -1)
        rz = x_rz + h_rz
        r, z = rz.sigmoid().chunk(2, -1)
        n_in = x_n + r * q
        n = n_in.tanh()
        kept = {"z": torch.cat([rz, n_in], -1), "a": torch.cat([r, z, n], -1), "q": q, "h_before": h}
        return [(1 - z) * n + z * h], kept

    @staticmethod
    def multipliers(
        m: list[Tensor], x: dict[str, Tensor], r: dict[str, Tensor], w: Weights
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """From the multiplier of h to those of the gates' inputs and of the old h."""
        (m_h,) = m
        reset, update, new = ((x["a"] + r["a"]) / 2).chunk(3, -1)
        s_r, s_z, s_n = _gate_slopes(x, r, gates=3)
        m_z = m_h * ((x["h_before"] + r["h_before"]) / 2 - new) * s_z
        m_n = m_h * (1 - update) * s_n
        m_r = m_n * (x["q"] + r["q"]) / 2 * s_r
        from_h = torch.cat([m_r, m_z, m_n * reset], -1)
        return torch.cat([m_r, m_z, m_n], -1), from_h @ w.w_hh + m_h * update, []


class _RNN:
    states: ClassVar[int] = 1
    activation: ClassVar[Any]
    secant: ClassVar[Any]

    @classmethod
    def forward(cls, x: Tensor, state: list[Tensor], w: Weights) -> tuple[list[Tensor], dict[str, Tensor]]:
        """One step from the input's share."""
        z = x + F.linear(state[0], w.w_hh, w.b_hh)
        h = cls.activation(z)
        return [h], {"z": z, "a": h}

    @classmethod
    def multipliers(
        cls, m: list[Tensor], x: dict[str, Tensor], r: dict[str, Tensor], w: Weights
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
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


def _gate_slopes(x: dict[str, Tensor], r: dict[str, Tensor], gates: int) -> tuple[Tensor, ...]:
    """Secants of all gates at once: sigmoid gates, and in third place the tanh gate, with one tanhc for all."""
    halves = [0.5, 0.5, 1.0, 0.5][:gates]  # sigmoid takes half the distance, tanh the whole
    units = x["z"].shape[-1] // gates
    scale = torch.tensor(halves, dtype=x["z"].dtype, device=x["z"].device).repeat_interleave(units)
    shared = secants.tanhc((x["z"] - r["z"]) * scale).split(units, -1)
    y, yr = x["a"].split(units, -1), r["a"].split(units, -1)
    slopes = [s * ((a + b) / 2 - a * b) for s, a, b in zip(shared, y, yr, strict=True)]
    slopes[2] = shared[2] * (1 - y[2] * yr[2])
    return tuple(slopes)


# ---------------------------------------------------------------------- one layer, one direction
def _rule(step: Step, *multipliers: Tensor) -> list[Tensor]:
    x_trace: Trace = step.memory
    settings = x_trace.settings
    cell, weights, batch_sizes, order = settings.cell, settings.weights, settings.batch_sizes, settings.order
    assert step.reference is not None
    r_trace: Trace = step.reference.memory
    rows = batch_sizes[0]
    m_sequence, *m_states = multipliers
    if len(x_trace.batch_sizes) != len(r_trace.batch_sizes):
        raise Misaligned(f"{len(x_trace.batch_sizes)} recurrent steps beside {len(r_trace.batch_sizes)}")
    state = [m.clone() for m in m_states]
    m_x = torch.empty_like(step.inputs[0] if step.varying[0] else step.arguments[0])
    offsets = [0, *accumulate(batch_sizes)]
    for t in reversed(order):
        size, at = batch_sizes[t], slice(offsets[t], offsets[t + 1])
        x, r, shape = _beside(x_trace.at(t), r_trace.at(t), size, rows)
        m = [s[:size] for s in state]
        m[0] = m[0] + m_sequence[at]
        m_z, m_h, rest = cell.multipliers([v.reshape(*shape, -1) for v in m], x, r, weights)
        torch.mm(m_z.reshape(size, -1), weights.w_ih, out=m_x[at])
        for s, new in zip(state, [m_h, *rest], strict=True):
            s[:size] = new.reshape(size, -1)
    everything = [m_x, *state]
    return [m for m, varies in zip(everything, step.varying, strict=False) if varies]


def _beside(x: dict[str, Tensor], r: dict[str, Tensor], size: int, rows: int) -> Any:
    """View one step's values so that they broadcast to the pairs: examples (n, 1, h), references (1 or n, b, h)."""
    n, b = len(next(iter(x.values()))), len(next(iter(r.values())))
    if n == size and b == size:
        shape = (size, 1)
        return _views(x, shape), _views(r, shape), shape
    if size % n or size != rows or b not in (size // n, size):
        raise Misaligned(f"{size} recurrent rows beside {n} and {b}")
    return _views(x, (n, 1)), _views(r, (b // (size // n), size // n)), (n, size // n)


def _views(values: dict[str, Tensor], shape: tuple[int, int]) -> dict[str, Tensor]:
    return {name: v.reshape(*shape, -1) for name, v in values.items()}


@primitive(_rule, keeps_memory=True)
def recurrence(x: Tensor, *rest: Any) -> Any:
    """Run one layer in one direction.

    ``x`` (sum of batch_sizes, features), then one tensor (rows, units) per state, then the settings. Returns the flat
    outputs and the last states.
    """
    *states, settings = rest
    cell, weights, repeats, batch_sizes = settings.cell, settings.weights, settings.repeats, settings.batch_sizes
    if repeats > 1:
        x, *states = (_once(v, repeats) for v in (x, *states))
        batch_sizes = [size // repeats for size in batch_sizes]
    z = F.linear(x, weights.w_ih, weights.b_ih)
    offsets = [0, *accumulate(batch_sizes)]
    state = [s.clone() for s in states]
    outputs: list[Any] = [None] * len(batch_sizes)
    kept: list[Any] = [None] * len(batch_sizes)
    for t in settings.order:
        size = batch_sizes[t]
        new, kept[t] = cell.forward(z[offsets[t] : offsets[t + 1]], [s[:size] for s in state], weights)
        outputs[t] = new[0]
        state = [n if size == len(s) else torch.cat([n, s[size:]]) for n, s in zip(new, state, strict=True)]
    trace = Trace(settings, batch_sizes, {name: torch.cat([k[name] for k in kept]) for name in kept[0]})
    result = (torch.cat(outputs), *state)
    return tuple(_repeated(v, repeats) for v in result), trace


def _once(v: Tensor, repeats: int) -> Tensor:
    return v.unflatten(0, (-1, repeats))[:, 0]


def _repeated(v: Tensor, repeats: int) -> Tensor:
    return v if repeats == 1 else v.repeat_interleave(repeats, 0)


# ---------------------------------------------------------------------- layers
def layer(cell: Cell) -> Callable[..., Any]:
    """Build ``torch.lstm``, ``torch.gru``, ``torch.rnn_tanh`` or ``torch.rnn_relu``, padded and packed."""

    def run(*args: Any, repeats: Callable[..., int]) -> Any:
        packed = isinstance(args[1], Tensor) and not args[1].is_floating_point() and not args[1].is_complex()
        if packed:
            data, batch_sizes, hx, weights, biases, layers, dropout, training, bidirectional = args
            sizes, batch_first = batch_sizes.tolist(), False
        else:
            data, hx, weights, biases, layers, dropout, training, bidirectional, batch_first = args
            data = data.transpose(0, 1) if batch_first else data
            sizes = [data.shape[1]] * data.shape[0]
            data = data.flatten(0, 1)
        if training and dropout and layers > 1:
            raise UnsupportedOperationError("dropout between recurrent layers is random: put the model into eval mode.")
        states = [hx] if cell.states == 1 else list(hx)
        directions = 2 if bidirectional else 1
        stack = _stack(weights, biases, states, cell)
        last: list[list[Tensor]] = []
        for _ in range(layers):
            outputs = []
            for direction in range(directions):
                parameters, *initial = next(stack)
                order = list(range(len(sizes)))[:: 1 - 2 * direction]
                settings = Settings(cell, parameters, sizes, order, 1 if packed else repeats(data, sizes[0], *initial))
                output, *final = recurrence(data, *initial, settings)
                outputs.append(output)
                last.append(final)
            data = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        finals = [torch.stack(s) for s in zip(*last, strict=True)]
        if not packed:
            data = data.unflatten(0, (len(sizes), sizes[0]))
            data = data.transpose(0, 1) if batch_first else data
        return (data, *finals)

    return run


def _stack(weights: Any, biases: bool, states: list[Tensor], cell: Cell) -> Iterator[Any]:
    """Weights and initial states of every layer and direction, in torch's order."""
    if any(w.grad_fn is not None for w in weights):
        raise UnsupportedOperationError("recurrent weights that depend on the input have no rule; write the cell out.")
    count = len(states[0])
    size = len(weights) // count
    for k in range(count):
        group = list(weights[k * size : (k + 1) * size])
        w_ih, w_hh, *others = group
        b = (others.pop(0), others.pop(0)) if biases else (None, None)
        yield Weights(w_ih, w_hh, *b, *others), *(s[k] for s in states)


def single_step(cell: Cell) -> Callable[..., Any]:
    """Build ``torch.lstm_cell``, ``torch.gru_cell``, ``torch.rnn_tanh_cell`` or ``torch.rnn_relu_cell``."""

    def run(
        x: Tensor,
        hx: Any,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Any = None,
        b_hh: Any = None,
        *,
        repeats: Callable[..., int],
    ) -> Any:
        if w_ih.grad_fn is not None or w_hh.grad_fn is not None:
            raise UnsupportedOperationError(
                "recurrent weights that depend on the input have no rule; write the cell out."
            )
        states = [hx] if cell.states == 1 else list(hx)
        settings = Settings(cell, Weights(w_ih, w_hh, b_ih, b_hh), [len(x)], [0], repeats(x, len(x), *states))
        _, *final = recurrence(x, *states, settings)
        return final[0] if cell.states == 1 else tuple(final)

    return run
