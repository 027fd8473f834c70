"""The rule of single steps by the CPU's compiled kernels, for loops of cells: in place of sequences of one.

Multipliers stay as they come, (outputs, references, examples, units): each row of theirs is a pair of its own to the kernels.
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
from .fused import BLOCK_BYTES, THREADS_BEYOND, products_of, units_of_kernel
from .sequence import Level, Trace


def is_possible(network: Network) -> bool:
    """Whether it is one step, in one direction, on the CPU."""
    alone = all(len(directions) == 1 for directions in network.levels)
    return alone and len(network.steps) == 1 and network.device.type == "cpu"


def run(network: Network, m_output: Tensor | None, m_states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Multipliers of the input (outputs, references, examples, features), and those of the first states.

    ``m_output`` (outputs, references, examples, units) is that of the step's output, and ``m_states`` are like those of the first
    states, (outputs, references, levels, examples, units).
    """
    outputs, references, _, examples = m_states[0].shape[:4]
    rows = rows_of(network, outputs, references)
    m, found = None if m_output is None else m_output.flatten(0, 2), []
    for depth, level in reversed(list(enumerate(network.flat_levels))):
        states = [s.select(2, depth).flatten(0, 2) for s in m_states]
        traces = network.example.traces[depth], network.reference.traces[depth]
        (m,), first = back_through(level, [traces], rows, states, m)
        found.append([s.unflatten(0, (outputs, references, examples)) for s in first])
    assert m is not None
    first = [torch.stack(levels, 2) for levels in zip(*reversed(found), strict=True)]
    return m.unflatten(0, (outputs, references, examples)), first


def rows_of(network: Network, outputs: int, references: int) -> list[np.ndarray]:
    """Of each row of multipliers the rows of both traces."""
    places = np.arange(network.steps.rows).reshape(-1, references).T.ravel()
    return [np.tile(side, outputs) for side in network.pairing.rows_of(places)]


def back_through(
    level: Level,
    traces: Sequence[tuple[Trace, Trace]],
    rows: list[np.ndarray],
    m_states: list[Tensor],
    m_output: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Steps of one layer, the last one first, each from the states that the one before left.

    Multipliers (rows, units) are of the states behind these steps, and of the last one's output; returns those of the steps'
    inputs (steps, rows, features) and of the states before them.
    """
    units, products = level.units, products_of(level.cell, level.weights)
    kernel = steps.kernel_of(level.cell.__name__, units_of_kernel(level.cell, level.weights))
    width = max(product.taken.stop for product in products)
    back = m_states[0].new_empty(len(m_states[0]), products[-1].given.stop)
    back[:, :units] = m_states[0]
    carry = m_states[1].clone() if level.cell is LSTM else torch.zeros_like(m_states[0])
    found = back.new_empty(len(traces), len(back), back.shape[1] - units)
    nothing = back.new_zeros(1, units).numpy(), 0, 0
    sides = [[*(trace.rows.numpy() for trace in both), *(trace.steps.start(0) for trace in both)] for both in traces]

    def run(block: slice) -> None:
        x_rows, r_rows = (side[block] for side in rows)
        m_z, m_back, own = back.new_empty(len(x_rows), width), back[block], carry[block].numpy()
        operands = [(m_z[:, taken], weights, m_back[:, given]) for taken, weights, given in products]
        m, z, places = m_back.numpy(), m_z.numpy(), _numbers(len(x_rows))
        given = nothing if m_output is None else (m_output[block].numpy(), 0, 1)
        for both, inputs in zip(sides, found, strict=True):
            kernel(m, *given, 0, 0, 1, own, z, *both, x_rows, r_rows, places)
            for left, right, result in operands:
                torch.mm(left, right, out=result)
            inputs[block] = m_back[:, units:]
            given = nothing

    _in_blocks(run, len(back), width * back.itemsize, units * len(traces))
    of_h = back[:, :units]
    return found, [of_h + carry] if level.cell is GRU else [of_h, carry][: len(m_states)]


@cache
def _numbers(count: int) -> np.ndarray:
    return np.arange(count)


def _in_blocks(run: Callable[[slice], None], count: int, row_bytes: int, units: int) -> None:
    """Blocks that stay in the cache, in threads where there is work for them."""
    size = max(1, BLOCK_BYTES // row_bytes)
    blocks = [slice(first, min(first + size, count)) for first in range(0, count, size)]

    def every() -> None:
        for block in blocks:
            run(block)

    in_threads([every] if count * units < THREADS_BEYOND else [partial(run, block) for block in blocks])
