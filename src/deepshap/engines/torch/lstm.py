"""An LSTM of PyTorch as a handler: ``deepshap.LSTMShapHandler`` for ``nn.LSTMCell`` and ``nn.LSTM``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ...errors import InputError
from ...handlers import ModuleCall
from .recurrent import LSTM, Weights


def multipliers(call: ModuleCall) -> list[Tensor]:
    """Multipliers of x and, where they are given, of h and c."""
    weights = _lstm_weights(call)
    cell, batch_first = isinstance(call.module, nn.LSTMCell), getattr(call.module, "batch_first", False)

    def time_first(sequence: Tensor) -> Tensor:
        return sequence.transpose(0, 1) if batch_first else sequence

    def steps(inputs: tuple[Tensor, ...]) -> list[dict[str, Tensor]]:
        x, *state = (v.unsqueeze(0) for v in inputs) if cell else inputs
        return _forward(time_first(x), [s[0] for s in state], weights)

    x, *state = call.multipliers
    m_output, m_h, m_c = (x.new_zeros(1, *x.shape), x, *state) if cell else (time_first(x), *(s[0] for s in state))
    m_x, *m_state = _backward(m_output, [m_h, m_c], steps(call.inputs), steps(call.reference_inputs), weights)
    if cell:
        return [m_x[0], *m_state][: len(call.inputs)]
    return [time_first(m_x), *(m.unsqueeze(0) for m in m_state)][: len(call.inputs)]


def _lstm_weights(call: ModuleCall) -> Weights:
    module = call.module
    if isinstance(module, nn.LSTMCell):
        return Weights(module.weight_ih, module.weight_hh, module.bias_ih, module.bias_hh)
    packed = any(isinstance(a, PackedSequence) for a in call.arguments)
    if not isinstance(module, nn.LSTM) or module.num_layers > 1 or module.bidirectional or packed:
        raise InputError(
            f"LSTMShapHandler explains nn.LSTMCell, and nn.LSTM with one layer and one direction on padded sequences; "
            f"{call.name!r} is {module}. Unregister it there: the built-in treatment knows all recurrent layers."
        )
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0")
    return Weights(*(getattr(module, name, None) for name in names))  # type: ignore[arg-type]


def _forward(x: Tensor, state: list[Tensor], weights: Weights) -> list[dict[str, Tensor]]:
    """Run the steps of ``x`` (steps, rows, input); returns what each leaves for its rule."""
    sizes = weights.w_hh.shape[1], len(weights.w_hh) // 4
    state = state or [x.new_zeros(x.shape[1], size) for size in sizes]
    kept: list[dict[str, Tensor]] = []
    for step in x:
        rows = step.new_empty(len(step), LSTM.width(sizes[1]))
        LSTM.read(step, weights, rows)
        state = LSTM.forward(state, weights, rows)
        kept.append(LSTM.split(rows))
    return kept


def _backward(
    m_output: Tensor, m_state: list[Tensor], example: list[Any], reference: list[Any], weights: Weights
) -> tuple[Tensor, Tensor, Tensor]:
    """Multipliers of the input (steps, rows, input) and of the first states, from the last step to the first."""
    m_h, m_c = m_state
    m_x: list[Tensor] = []
    for m, a, b in zip(m_output.flip(0), reversed(example), reversed(reference), strict=True):
        m_z, m_h, (m_c,) = LSTM.multipliers([m_h + m, m_c], a, b, weights)
        m_x.append(m_z @ weights.w_ih)
    return torch.stack(m_x[::-1]), m_h, m_c
