"""The backward recursion of recurrent networks in compiled kernels, on the CPU and on a GPU.

On the CPU, pairs run in blocks that fit into its cache, and blocks run in threads. On a GPU all pairs are one block. Each
step is a kernel and matrix products, which ``products_of`` lists. ``THRESHOLD`` decides when a kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from ....formulas.cells import Weights
from ....kernels import steps
from ....kernels import steps as on_cpu
from ....kernels.jit_threshold import JitThreshold
from .._compat import triton_is_safe
from ..kernel_dispatch import in_threads
from .cells import GRU, LSTM, Cell
from .context import Network
from .sequence import Level, Steps, Trace

STEP_WORK = 10_000  # multipliers of units; a step without a kernel takes at least as long as this work
THRESHOLD = JitThreshold(1_000_000)  # multipliers of units; about 30 ms without a kernel


class Product(NamedTuple):
    """Multiply some columns of ``m_z`` by weights, into some columns of the multipliers of (old h, x)."""

    source: slice
    weights: Tensor
    target: slice


def products_of(cell: Cell, w: Weights) -> list[Product]:
    """Return the matrix products that complete a step after the kernel of the cell."""
    units, features = w.w_hh.shape[1], w.w_ih.shape[1]
    if cell is not GRU:
        return [Product(slice(0, len(w.w_hh)), torch.cat([w.w_hh, w.w_ih], 1), slice(0, units + features))]
    # m_z holds n, r, z and q, the part of n from the old h: x contributes to the first three, the old h to the last three.
    reset, update, new = (slice(k * units, (k + 1) * units) for k in range(3))
    x_weights = torch.cat([w.w_ih[new], w.w_ih[reset], w.w_ih[update]])
    return [
        Product(slice(units, 4 * units), w.w_hh, slice(0, units)),
        Product(slice(0, 3 * units), x_weights, slice(units, units + features)),
    ]


def is_worth_compiling(cell: Cell, weights: Weights, work: int, least: int = 0) -> bool:
    """Return whether there is a fused step for a cell, and enough work so far to be worth its compilation.

    ``work`` is units times steps times pairs of this call. ``least`` is what the steps cost at least, which counts for the
    kernel that accepts any number of units.
    """
    units, dtype = weights.w_hh.shape[1], weights.w_hh.dtype
    if not steps.has(cell.__name__) or weights.w_hr is not None or dtype not in (torch.float32, torch.float64):
        return False
    specialized = THRESHOLD.reached((cell, units, dtype), work)
    return THRESHOLD.reached((cell, dtype), max(work, least)) or specialized


def kernel_units(cell: Cell, weights: Weights) -> int:
    """Return the number of units that the cell's kernel is compiled for; 0 for a kernel that accepts any number."""
    units = weights.w_hh.shape[1]
    return units if THRESHOLD.reached((cell, units, weights.w_hh.dtype), 0) else 0


BLOCK_BYTES = 2**20  # the multipliers of one step's gates in a block
Receive = Callable[[int, Tensor, Any, int], None]  # step, products (the array too), the input's first column
THREADS_BEYOND = 500_000  # multipliers of units; starting a thread takes a millisecond
NEIGHBOURS = 8  # examples paired with each reference while it is in the cache
Kernels = Any  # a module of kernels


def available(network: Network, outputs: int) -> bool:
    """Return whether there are kernels for all levels, and enough work to be worth compiling them."""
    if _kernels_for(network.device) is None:
        return False
    sizes = network.steps.sizes
    pairs, least = sum(sizes) * outputs, len(sizes) * STEP_WORK
    enough = [
        is_worth_compiling(level.cell, level.weights, pairs * level.units, least) for level in network.flat_levels
    ]
    return all(enough)


def _kernels_for(device: torch.device) -> Kernels | None:
    if device.type == "cpu":
        return None if numba.config.DISABLE_JIT else on_cpu  # type: ignore[attr-defined]
    if device.type != "cuda" or not triton_is_safe():
        return None
    from ....kernels import steps_on_gpu

    return steps_on_gpu if steps_on_gpu.works(device) else None


def run(
    network: Network, m_output: Tensor, m_states: list[Tensor], summed: bool, at: dict[int, int] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Compute what ``stepwise.run`` does, with the references on an axis of their own.

    ``m_output`` and the input's multipliers are (outputs, references, flat, features), and the flat sequence is that of the
    examples. If ``m_output`` has only some steps, time first, ``at`` maps each of these to its position; the others are 0.
    """
    all_rows, on = np.arange(network.steps.rows), _kernels_for(network.device)
    outputs, references = m_output.shape[:2]
    steps = network.steps.shared_by(references)
    source_steps = steps if at is None else Steps((steps.rows,) * len(at))
    source = _Sequence(on, m_output.flatten(1, 2).contiguous(), source_steps, all_rows, references, at).only_nonzero()
    m_x = None
    if not summed:
        values = m_output.new_zeros(outputs, references * sum(steps.sizes), network.features)
        m_x = _Sequence(on, values, steps, all_rows, references)
    products = [products_of(level.cell, level.weights) for level in network.flat_levels]
    ends = _ends(network, source, m_states)
    tiles = [
        rows[np.argsort(-ends[rows], kind="stable")]
        for rows in (_tiles(network, outputs) if on is on_cpu else [all_rows])
    ]
    blocks = [_Block(on, network, rows, ends[rows], source, m_states, products, m_x) for rows in tiles]
    results = in_threads([block.run for block in blocks])
    rows = torch.as_tensor(np.concatenate(tiles)).argsort()
    states = [torch.cat(parts, 2)[:, :, rows] for parts in zip(*(final for _, final in results), strict=True)]
    if m_x is not None:
        return m_x.values, states
    sums = network.new_sums(m_output)
    for block, (total, _) in zip(blocks, results, strict=True):
        sums[:, block.examples] += total.permute(1, 2, 0, 3)
    return sums, states


def _tiles(network: Network, outputs: int) -> list[np.ndarray]:
    """Return blocks of pairs that fit the cache, at least one per thread: a few references for a few examples each."""
    rows, per_row = network.steps.rows, network.pairing.per_row
    units = max(level.units for level in network.flat_levels)
    threads = torch.get_num_threads() if outputs * units * sum(network.steps.sizes) >= THREADS_BEYOND else 1
    fitting = max(1, BLOCK_BYTES // (4 * units * network.flat_levels[0].weights.w_hh.itemsize * outputs))
    if per_row == 1:  # packed sequences have the longest first: keep their order
        return np.array_split(np.arange(rows), min(rows, max(threads, -(-rows // fitting))))
    examples = rows // per_row
    wide = min(examples, max(NEIGHBOURS, fitting // per_row))
    columns = -(-examples // wide)
    count = min(per_row, max(-(-per_row * wide // fitting), -(-threads // columns)))
    references, examples_of = np.array_split(np.arange(per_row), count), np.array_split(np.arange(examples), columns)
    return [(tile[:, None] + per_row * members).ravel() for members in examples_of for tile in references]


def _ends(network: Network, source: _Sequence, m_states: list[Tensor]) -> np.ndarray:
    """Return how many steps each pair goes back through: all that it has, or on the CPU up to the last nonzero multiplier."""
    count, sizes = len(network.steps), np.array(network.steps.sizes)
    directed = any(len(directions) > 1 or directions[0].backwards for directions in network.levels)
    if directed or source.on is not on_cpu or sizes.min() < sizes.max():
        return (np.arange(len(source.pair_indices)) < sizes[:, None]).sum(0)
    ends = np.zeros(len(source.pair_indices), np.int64)
    source.find_ends(ends)
    for states in m_states:
        if states.any():
            ends[states.ne(0).any(3).any(1).any(0).numpy()] = count
    return ends


# ---------------------------------------------------------------------- a block of pairs
@dataclass
class _Sequence:
    """Multipliers of a sequence, (outputs, references * flat, features), and which of its rows are the pairs of a block.

    ``steps`` are those of the sequence for one reference. ``at`` maps each step that is stored to its position; the
    multipliers of other steps are 0.
    """

    on: Kernels
    values: Tensor
    steps: Steps
    pair_indices: np.ndarray
    references: int = 1
    at: dict[int, int] | None = None

    def __post_init__(self) -> None:
        self._flat = self.on.view(self.values.view(-1, self.values.shape[-1]))
        self._zeros = self.on.view(self.values.new_zeros(1, self.values.shape[-1]))
        rows, reference = np.divmod(self.pair_indices, self.references)
        origins = rows * self.steps.stride + reference * (self.values.shape[1] // self.references)
        self.rows = self.on.index(origins, self.values.device)

    def only_nonzero(self) -> _Sequence:
        """Return the sequence restricted to the steps with nonzero multipliers, so that kernels do not read the others.

        Often only the last step is used. On a GPU the question would wait for the device.
        """
        if self.at is not None or not self.steps.batch_first or self.on is not on_cpu:
            return self
        marks = np.zeros(len(self.steps), bool)
        on_cpu.mark_steps(marks, self._flat)
        return replace(self, at={t: t for t in np.flatnonzero(marks).tolist()})

    def find_ends(self, ends: np.ndarray) -> None:
        """Write into ``ends`` the number of steps of each row up to the last nonzero multiplier."""
        steps = sorted(range(len(self.steps)) if self.at is None else self.at, reverse=True)
        located = [self.located(step)[1] for step in steps]
        on_cpu.find_ends(
            ends,
            self._flat,
            self.rows,
            np.array(steps, np.int64),
            np.array(located, np.int64),
            len(self.values),
            self.values.shape[1],
        )

    def of(self, pair_indices: np.ndarray) -> _Sequence:
        """Return the sequence for another block."""
        return replace(self, pair_indices=pair_indices)

    def located(self, step: int) -> tuple[Any, int, int, int]:
        """Return all rows, where those of a step start, 1 if pairs have rows of their own, and the distance between outputs."""
        position = step if self.at is None else self.at.get(step)
        if position is None:
            return self._zeros, 0, 0, 0
        return self._flat, self.steps.start(position), 1, self.values.shape[1]

    def add(self, step: int, values: Tensor) -> None:
        """Add to the multipliers of one step; ``values`` is (outputs, pairs, features)."""
        rows = torch.as_tensor(self.rows[: values.shape[1]])
        self.values.index_add_(1, rows + self.steps.start(step), values)


@dataclass
class _Block:
    on: Kernels
    network: Network
    pair_indices: np.ndarray
    ends: np.ndarray
    source: _Sequence
    m_states: list[Tensor]
    products: list[list[Product]]
    m_x: _Sequence | None

    def __post_init__(self) -> None:
        self.outputs = len(self.source.values)
        x_rows, r_rows = self.network.pairing.rows_of(self.pair_indices)
        self.examples = slice(int(x_rows.min()), int(x_rows.max()) + 1)
        self.x_rows, self.r_rows = (self.on.index(rows, self.network.device) for rows in (x_rows, r_rows))
        count = len(self.network.steps)
        pairs_left = np.bincount(self.ends, minlength=count + 1)[::-1].cumsum()[::-1]  # pairs that reach each step
        self.steps = Steps(tuple(pairs_left[1 : count + 1].tolist()))
        self.numbers = np.arange(len(self.pair_indices))

    @torch.no_grad()
    def run(self) -> tuple[Tensor | None, list[Tensor]]:
        """Go through all levels; return the input's contributions (steps, outputs, examples, features) and the states."""
        network, source, index = self.network, self.source.of(self.pair_indices), len(self.network.flat_levels)
        states = [s[:, :, self.pair_indices] for s in self.m_states]
        totals = None
        for depth, directions in reversed(list(enumerate(network.levels))):
            index -= len(directions)
            features = network.example.traces[index].inputs.shape[1]
            if depth:
                values = source.values.new_zeros(self.outputs, sum(self.steps.sizes), features)
                target = _Sequence(self.on, values, self.steps, self.numbers)
                receive = self._adding(target)
            elif self.m_x is not None:
                receive = self._adding(self.m_x.of(self.pair_indices))
            else:
                shape = len(self.steps), self.outputs, self.examples.stop - self.examples.start, features
                totals = source.values.new_zeros(shape, dtype=torch.float64)
                receive = self._summing(totals)
            for k, level in enumerate(directions):
                self._level(level, index + k, source, k * level.units, states, receive)
            source = target if depth else source
        return totals, states

    def _level(
        self, level: Level, index: int, source: _Sequence, column: int, states: list[Tensor], receive: Receive
    ) -> None:
        """Propagate through one layer and direction; ``column`` is where its multipliers begin in those of the layer's output."""
        units = kernel_units(level.cell, level.weights) if self.on is on_cpu else level.units
        kernel, outputs, products = self.on.kernel_of(level.cell.__name__, units), self.outputs, self.products[index]
        m_h, *m_c = (s[:, index].transpose(0, 1).flatten(0, 1) for s in states)
        back = m_h.new_zeros(len(m_h), products[-1].target.stop)
        back[:, : level.units] = m_h
        carry = m_c[0].clone() if m_c else torch.zeros_like(m_h)
        m_z = m_h.new_empty(len(m_h), max(product.source.stop for product in products))
        x, r = (_Rows(self.on, side.traces[index]) for side in (self.network.example, self.network.reference))
        arrays, pairs = [self.on.view(values) for values in (back, carry, m_z)], None
        for t in reversed(level.order(len(self.steps))):
            if pairs != self.steps.sizes[t]:  # the pairs that end first come last
                pairs = self.steps.sizes[t]
                rows = self.x_rows[:pairs], self.r_rows[:pairs], source.rows[:pairs]
                z, z_back = m_z[: pairs * outputs], back[: pairs * outputs]
                operands = [(z[:, columns], weights, z_back[:, target]) for columns, weights, target in products]
            if not pairs:
                continue
            at = x.values, r.values, x.first[t], r.first[t]
            kernel(arrays[0], *source.located(t), column, outputs, arrays[1], arrays[2], *at, *rows)
            for left, right, result in operands:
                torch.mm(left, right, out=result)
            receive(t, z_back, arrays[0], level.units)
        m_h = back[:, : level.units] + carry if level.cell is GRU else back[:, : level.units]
        for state, new in zip(states, (m_h, carry) if level.cell is LSTM else (m_h,), strict=True):
            state[:, index] = new.unflatten(0, (-1, outputs)).transpose(0, 1)

    def _adding(self, target: _Sequence) -> Receive:
        def receive(t: int, back: Tensor, _: np.ndarray, units: int) -> None:
            target.add(t, back[:, units:].unflatten(0, (-1, self.outputs)).transpose(0, 1))

        return receive

    def _summing(self, totals: Tensor) -> Receive:
        sums, start, network = self.on.view(totals), self.examples.start, self.network
        x, r = (_Rows(self.on, side.traces[0], "inputs") for side in (network.example, network.reference))

        def receive(t: int, m_inputs: Tensor, back: Any, units: int) -> None:
            pairs = len(m_inputs) // self.outputs
            at = x.values, r.values, x.first[t], r.first[t], self.x_rows[:pairs], self.r_rows[:pairs]
            self.on.add_contributions(sums[t], start, back, units, self.outputs, *at)

        return receive


class _Rows:
    """The rows of a trace as kernels read them: all rows, and where each step begins."""

    def __init__(self, on: Kernels, trace: Trace, what: str = "rows") -> None:
        self.values = on.view(getattr(trace, what))
        self.first = [trace.steps.start(t) for t in range(len(trace.steps))]
