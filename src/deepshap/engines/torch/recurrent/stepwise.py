"""The rule of recurrent networks in plain torch, step after step, for all pairs at once and on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from .context import Network
from .sequence import Level


def run(network: Network, m_output: Tensor, m_states: list[Tensor], summed: bool) -> tuple[Tensor, list[Tensor]]:
    """Propagate multipliers of the output (outputs, flat, features) and of the last states (outputs, levels, rows, units) back.

    Returns those of the input, flat as the output's, and of the first states. With ``summed`` the first result is instead the
    input's contributions, summed over references: (outputs, rows of the example, steps, features).
    """
    m = m_output
    states = [s.clone() for s in m_states]
    index = len(network.flat_levels)
    for depth, directions in reversed(list(enumerate(network.levels))):
        index -= len(directions)
        last = summed and depth == 0
        m_input = (
            network.new_sums(m) if last else m.new_zeros(*m.shape[:2], network.example.traces[index].inputs.shape[1])
        )
        width = m.shape[-1] // len(directions)
        for k, level in enumerate(directions):
            level_states = [s[:, index + k] for s in states]
            _level(network, level, index + k, m[..., k * width : (k + 1) * width], level_states, m_input, last)
        m = m_input
    return m, states


def _level(
    network: Network, level: Level, index: int, m_output: Tensor, states: list[Tensor], target: Tensor, summed: bool
) -> None:
    """Propagate through one layer and direction: update the states' multipliers and add to the result of the input."""
    steps, pairing = network.steps, network.pairing
    x, r = network.example.traces[index], network.reference.traces[index]
    x_columns, r_columns = x.columns(level), r.columns(level)
    for t in reversed(level.order(len(steps))):
        sides = pairing.broadcast(x_columns[t], r_columns[t])
        m = [s[:, : steps.sizes[t]] for s in states]
        m[0] = m[0] + steps.at(m_output, t)
        m_z, m_h, rest = level.cell.multipliers(
            [v.unflatten(1, (-1, pairing.per_row)) for v in m], *sides, level.weights
        )
        m_x = m_z @ level.weights.w_ih
        if summed:
            x_inputs, r_inputs = pairing.broadcast(*({"x": side.steps.at(side.inputs, t)} for side in (x, r)))
            difference = x_inputs["x"] - r_inputs["x"]
            target[:, :, t] += (m_x * difference).sum(2, dtype=torch.float64)
        else:
            steps.at(target, t).add_(m_x.flatten(1, 2))
        for state, new in zip(states, [m_h, *rest], strict=True):
            state[:, : steps.sizes[t]] = new.flatten(1, 2)
