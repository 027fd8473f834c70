"""The rule of single steps in the CPU's compiled kernels, for loops of cells.

Multipliers keep their layout (outputs, references, examples, units): the kernels see each of their rows as a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from ....kernels import steps
from ..kernel_dispatch import in_threads
from .cells import GRU, LSTM
from .context import Network
from .fused import BLOCK_BYTES, THREADS_BEYOND, kernel_units, products_of
from .sequence import Level, Trace


def is_possible(network: Network) -> bool:
    """Return whether the network is one step, in one direction, on the CPU."""
    one_direction = all(len(directions) == 1 for directions in network.levels)
    return one_direction and len(network.steps) == 1 and network.device.type == "cpu"


def run(network: Network, m_output: Tensor | None, m_states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the multipliers of the input (outputs, references, examples, features), and those of the first states.

    ``m_output`` (outputs, references, examples, units) belongs to the step's output, and ``m_states`` (outputs, references,
    levels, examples, units) to the last states.
    """
    outputs, references, _, examples = m_states[0].shape[:4]
    rows = rows_of(network, outputs, references)
    m, first_states = None if m_output is None else m_output.flatten(0, 2), []
    for depth, level in reversed(list(enumerate(network.flat_levels))):
        states = [s.select(2, depth).flatten(0, 2) for s in m_states]
        traces = network.example.traces[depth], network.reference.traces[depth]
        (m,), first = back_through(level, [traces], rows, states, m)
        first_states.append([s.unflatten(0, (outputs, references, examples)) for s in first])
    assert m is not None
    first = [torch.stack(levels, 2) for levels in zip(*reversed(first_states), strict=True)]
    return m.unflatten(0, (outputs, references, examples)), first


def rows_of(network: Network, outputs: int, references: int) -> list[np.ndarray]:
    """Return for each row of multipliers its rows in both traces."""
    pairs = np.arange(network.steps.rows).reshape(-1, references).T.ravel()
    return [np.tile(side, outputs) for side in network.pairing.rows_of(pairs)]


def back_through(
    level: Level,
    traces: Sequence[tuple[Trace, Trace]],
    rows: list[np.ndarray],
    m_states: list[Tensor],
    m_output: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Propagate through steps of one layer, the last one first, each from the states that the step before computed.

    ``m_states`` (rows, units) belong to the states after these steps, ``m_output`` to the last one's output. Returns the
    multipliers of the steps' inputs (steps, rows, features) and of the states before them.
    """
    units, products = level.units, products_of(level.cell, level.weights)
    kernel = steps.kernel_of(level.cell.__name__, kernel_units(level.cell, level.weights))
    width = max(product.source.stop for product in products)
    back = m_states[0].new_empty(len(m_states[0]), products[-1].target.stop)
    back[:, :units] = m_states[0]
    carry = m_states[1].clone() if level.cell is LSTM else torch.zeros_like(m_states[0])
    m_inputs = back.new_empty(len(traces), len(back), back.shape[1] - units)
    no_output = back.new_zeros(1, units).numpy(), 0, 0
    sides = [[*(trace.rows.numpy() for trace in pair), *(trace.steps.start(0) for trace in pair)] for pair in traces]

    def run(block: slice) -> None:
        x_rows, r_rows = (side[block] for side in rows)
        m_z, m_back, m_carry = back.new_empty(len(x_rows), width), back[block], carry[block].numpy()
        operands = [(m_z[:, source], weights, m_back[:, target]) for source, weights, target in products]
        m, z, numbers = m_back.numpy(), m_z.numpy(), _numbers(len(x_rows))
        m_out = no_output if m_output is None else (m_output[block].numpy(), 0, 1)
        for pair, inputs in zip(sides, m_inputs, strict=True):
            kernel(m, *m_out, 0, 0, 1, m_carry, z, *pair, x_rows, r_rows, numbers)
            for left, right, result in operands:
                torch.mm(left, right, out=result)
            inputs[block] = m_back[:, units:]
            m_out = no_output

    _in_blocks(run, len(back), width * back.itemsize, units * len(traces))
    m_h = back[:, :units]
    return m_inputs, [m_h + carry] if level.cell is GRU else [m_h, carry][: len(m_states)]


@cache
def _numbers(count: int) -> np.ndarray:
    return np.arange(count)


def _in_blocks(run: Callable[[slice], None], count: int, row_bytes: int, units: int) -> None:
    """Run blocks that fit the cache, in threads if there is enough work."""
    size = max(1, BLOCK_BYTES // row_bytes)
    blocks = [slice(first, min(first + size, count)) for first in range(0, count, size)]

    def run_all() -> None:
        for block in blocks:
            run(block)

    in_threads([run_all] if count * units < THREADS_BEYOND else [partial(run, block) for block in blocks])
