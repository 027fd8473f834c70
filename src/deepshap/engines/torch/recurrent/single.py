"""The rule of a single step by the CPU's compiled kernels, for loops of cells: in place of sequences of one.

Multipliers stay as they come, (outputs, references, examples, units): each row of theirs is a pair of its own to the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from ..kernels import steps
from ..threads import in_threads
from .cells import GRU, LSTM
from .fused import BLOCK_BYTES, THREADS_BEYOND
from .pairing import Network
from .products import products_of
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
    places = np.arange(network.steps.rows).reshape(-1, references).T.ravel()
    rows = [np.tile(side, outputs) for side in network.pairing.rows_of(places)]
    m, found = None if m_output is None else m_output.flatten(0, 2), []
    for depth, level in reversed(list(enumerate(network.flat_levels))):
        states = [s.select(2, depth).flatten(0, 2) for s in m_states]
        traces = [side.traces[depth] for side in (network.example, network.reference)]
        m, *first = _level(level, m, states, traces, rows)
        found.append([s.unflatten(0, (outputs, references, examples)) for s in first])
    assert m is not None
    first = [torch.stack(levels, 2) for levels in zip(*reversed(found), strict=True)]
    return m.unflatten(0, (outputs, references, examples)), first


def _level(
    level: Level, m_output: Tensor | None, m_states: list[Tensor], traces: list[Trace], rows: list[np.ndarray]
) -> list[Tensor]:
    """One layer: the multipliers of its input, and of its states."""
    m_h, units = m_states[0].contiguous(), level.units
    products = products_of(level.cell, level.weights)
    carry = m_states[1].clone() if level.cell is LSTM else torch.zeros_like(m_h)
    m_y, stride = (m_h.new_zeros(1, units), 0) if m_output is None else (m_output.contiguous(), 1)
    back = m_h.new_empty(len(m_h), products[-1].given.stop)
    width = max(product.taken.stop for product in products)
    kernel, sides = steps.kernel_of(level.cell.__name__, units), [trace.rows.numpy() for trace in traces]

    def run(block: slice) -> None:
        x_rows, r_rows = (side[block] for side in rows)
        m_z, places = m_h.new_empty(len(x_rows), width), _numbers(len(x_rows))
        arrays = m_h[block].numpy(), m_y[block if stride else slice(None)].numpy()
        own = carry[block].numpy(), m_z.numpy(), *sides
        kernel(*arrays, 0, stride, 0, 0, 1, *own, 0, 0, x_rows, r_rows, places)
        for taken, weights, given in products:
            torch.mm(m_z[:, taken], weights, out=back[block, given])

    _in_blocks(run, len(m_h), width * m_h.itemsize, units)
    of_h, of_x = back[:, :units], back[:, units:]
    return [of_x, of_h + carry] if level.cell is GRU else [of_x, of_h, carry][: 1 + len(m_states)]


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
