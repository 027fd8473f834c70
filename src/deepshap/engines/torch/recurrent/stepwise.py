"""The rule of recurrent networks written out in torch, step after step, for all pairs at once and on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from .context import Network
from .sequence import Level


def run(network: Network, m_output: Tensor, m_states: list[Tensor], summed: bool) -> tuple[Tensor, list[Tensor]]:
    """Take multipliers of the output (outputs, flat, features) and of the last states (outputs, levels, rows, units) back.

    Returns those of the input, flat as the output's, and of the first states. With ``summed`` it is not the input's
    multipliers but its contributions, summed over references: (outputs, rows of the example, steps, features).
    """
    m = m_output
    states = [s.clone() for s in m_states]
    index = len(network.flat_levels)
    for depth, directions in reversed(list(enumerate(network.levels))):
        index -= len(directions)
        last = summed and depth == 0
        found = (
            network.new_sums(m) if last else m.new_zeros(*m.shape[:2], network.example.traces[index].inputs.shape[1])
        )
        width = m.shape[-1] // len(directions)
        for k, level in enumerate(directions):
            own = [s[:, index + k] for s in states]
            _level(network, level, index + k, m[..., k * width : (k + 1) * width], own, found, last)
        m = found
    return m, states


def _level(
    network: Network, level: Level, index: int, m_output: Tensor, states: list[Tensor], found: Tensor, summed: bool
) -> None:
    """One layer and direction; updates the states' multipliers and adds to what is found for the input."""
    steps, pairing = network.steps, network.pairing
    x, r = network.example.traces[index], network.reference.traces[index]
    x_columns, r_columns = x.columns(level), r.columns(level)
    for t in reversed(level.order(len(steps))):
        sides = pairing.beside(x_columns[t], r_columns[t])
        m = [s[:, : steps.sizes[t]] for s in states]
        m[0] = m[0] + steps.at(m_output, t)
        m_z, m_h, rest = level.cell.multipliers([v.unflatten(1, (-1, pairing.per)) for v in m], *sides, level.weights)
        m_x = m_z @ level.weights.w_ih
        if summed:
            given, other = pairing.beside(*({"x": side.steps.at(side.inputs, t)} for side in (x, r)))
            difference = given["x"] - other["x"]
            found[:, :, t] += (m_x * difference).sum(2, dtype=torch.float64)
        else:
            steps.at(found, t).add_(m_x.flatten(1, 2))
        for state, new in zip(states, [m_h, *rest], strict=True):
            state[:, : steps.sizes[t]] = new.flatten(1, 2)
