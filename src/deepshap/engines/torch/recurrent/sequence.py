"""The layout of flat sequences, and the forward run of a recurrent network, once per example and once per reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from ....formulas.cells import Columns, Weights
from ..batch_axes import RowSelection
from .cells import LSTM, Cell

FEW_UNITS = 1024  # rows times units of a step below which calls take longer than their work
MOST_UNITS = 2**15  # rows times steps times units; arrays for all steps at once are not in the memory budget


@dataclass(frozen=True)
class Steps:
    """Where the rows of each step lie in a flat sequence (sum of sizes, features), step after step as torch packs it.

    In a padded sequence all steps have all rows. With ``batch_first`` the flat sequence is that of (rows, steps). If
    ``stored_rows`` is set, the steps are a part of a padded sequence with that many rows per step, from row ``first`` on.
    """

    sizes: tuple[int, ...]
    batch_first: bool = False
    stored_rows: int | None = None
    first: int = 0

    @property
    def rows(self) -> int:
        """Return the number of rows of the longest step."""
        return self.sizes[0]

    def __len__(self) -> int:
        return len(self.sizes)

    def shared_by(self, references: int) -> Steps:
        """Return the steps of the examples alone, each of which is in as many pairs as there are references."""
        return replace(self, sizes=tuple(size // references for size in self.sizes))

    @cached_property
    def _offsets(self) -> list[int]:
        return [0, *accumulate(self.sizes if self.stored_rows is None else (self.stored_rows,) * len(self.sizes))]

    @property
    def stride(self) -> int:
        """Return the flat distance between neighbouring rows of a step."""
        return len(self.sizes) if self.batch_first else 1

    def start(self, step: int, row: int = 0) -> int:
        """Return the flat position of a row of a step."""
        return row * len(self.sizes) + step if self.batch_first else self._offsets[step] + self.first + row

    def at(self, flat: Tensor, step: int, first: int = 0, end: int | None = None) -> Tensor:
        """View the rows of a step (..., rows, features), as far as the step has them."""
        end = self.sizes[step] if end is None else min(end, self.sizes[step])
        start = self.start(step, first)
        return flat[..., start : start + (max(end, first) - first) * self.stride : self.stride, :]

    def ends(self) -> Tensor:
        """Return the flat position of the last step of every row, for a sequence with time first."""
        lengths = (torch.arange(self.rows) < torch.tensor(self.sizes)[:, None]).sum(0)
        return torch.tensor(self._offsets)[lengths - 1] + torch.arange(self.rows)

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Return views of the rows of every step, for a sequence with time first."""
        if self.stored_rows is None:
            return flat.split(self.sizes)
        return tuple(step.narrow(0, self.first, self.rows) for step in flat.split(self.stored_rows))


@dataclass(frozen=True)
class Level:
    """One layer and direction of a recurrent network."""

    cell: Cell
    weights: Weights
    backwards: bool = False

    @property
    def units(self) -> int:
        """Return the number of units of the hidden state before any projection."""
        return len(self.weights.w_hh) // self.cell.gates

    def order(self, count: int) -> range:
        """Return the order in which the level runs through the steps."""
        return range(count - 1, -1, -1) if self.backwards else range(count)


@dataclass
class Trace:
    """What the forward run of one level keeps for the rule: its input and the columns of its cell, flat, time first."""

    steps: Steps
    inputs: Tensor
    rows: Tensor

    @property
    def nbytes(self) -> int:
        """Return the size in bytes."""
        return self.rows.nbytes + self.inputs.nbytes

    def among(self, selection: RowSelection) -> Trace:
        """Return the trace of some rows of a padded sequence; rows that are not adjacent are copied."""
        (rows, parts), steps = selection, self.steps
        count = rows.stop - rows.start
        stored_rows = steps.rows if steps.stored_rows is None else steps.stored_rows
        if parts == 1:
            return replace(self, steps=Steps((count,) * len(steps), False, stored_rows, steps.first + rows.start))

        def copied(flat: Tensor) -> Tensor:
            grouped = flat.unflatten(0, (-1, stored_rows)).narrow(1, steps.first, steps.rows).unflatten(1, (parts, -1))
            return grouped.narrow(2, rows.start, count).flatten(0, 2)

        return Trace(Steps((parts * count,) * len(steps)), copied(self.inputs), copied(self.rows))

    def columns(self, level: Level) -> list[Columns]:
        """Return all values of each step, by name."""
        views = {name: self.steps.split(column) for name, column in level.cell.split(self.rows).items()}
        return [dict(zip(views, step, strict=True)) for step in zip(*views.values(), strict=True)]


class HasTraces(Protocol):
    """What a network keeps for its rule on one side."""

    @property
    def traces(self) -> list[Trace]:
        """Return the traces of all levels."""

    @property
    def nbytes(self) -> int:
        """Return the size in bytes."""


@dataclass
class Memory:
    """The traces of all levels of a network on one side."""

    traces: list[Trace] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Return the size in bytes."""
        return sum(trace.nbytes for trace in self.traces)

    def among(self, selection: RowSelection) -> Memory:
        """Return the traces of some rows of a padded sequence."""
        return Memory([trace.among(selection) for trace in self.traces])

    def save_from_overwriting(self, storage: int) -> None:
        """Copy the inputs in a storage that the model is about to overwrite in place."""
        for trace in self.traces:
            if trace.inputs.untyped_storage().data_ptr() == storage:
                trace.inputs = trace.inputs.clone()


def run(
    levels: list[list[Level]], x: Tensor, states: list[Tensor], steps: Steps
) -> tuple[Tensor, list[Tensor], Memory]:
    """Run a network on a flat sequence, time first.

    ``levels`` holds for each layer one level per direction, ``states`` (layers * directions, rows, units) the initial
    states. Returns the flat output, the last states and what the rule needs.
    """
    memory, last = Memory(), []
    initial: Iterator[tuple[Tensor, ...]] = zip(*states, strict=True)
    for directions in levels:
        outputs = []
        for level in directions:
            output, final, trace = _level(level, x, list(next(initial)), steps)
            outputs.append(output)
            last.append(final)
            memory.traces.append(trace)
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
    return x, [torch.stack(state) for state in zip(*last, strict=True)], memory


def one_step(level: Level, x: Tensor, *state: Tensor) -> tuple[list[Tensor], Trace]:
    """Run a single step on (rows, features); return the new states and what the rule needs."""
    cell, weights, rows = level.cell, level.weights, x.shape[0]
    trace = Trace(_single_step(rows), x, x.new_empty(rows, cell.width(level.units)))
    cell.read(x, weights, trace.rows)
    output = torch.empty_like(state[0], memory_format=torch.contiguous_format)
    return cell.step(list(state), cell.transposed(weights), cell.views(trace.rows), output), trace


@cache
def _single_step(rows: int) -> Steps:
    return Steps((rows,))


def _level(level: Level, x: Tensor, state: list[Tensor], steps: Steps) -> tuple[Tensor, list[Tensor], Trace]:
    cell, weights = level.cell, level.weights
    trace = Trace(steps, x, x.new_empty(len(x), cell.width(level.units)))
    cell.read(x, weights, trace.rows)
    output = x.new_empty(len(x), state[0].shape[-1])
    if _runs_native(level, x, steps):
        return output, _all_steps(level, trace, state, output), trace
    views = list(zip(*map(steps.split, cell.views(trace.rows)), strict=True))
    outputs = steps.split(output)
    state, padded, weights_t = [s.clone() for s in state], min(steps.sizes) == steps.rows, cell.transposed(weights)
    for t in level.order(len(steps)):
        size = steps.sizes[t]
        old = state if padded else [s[:size] for s in state]
        new = cell.step(old, weights_t, views[t], outputs[t])
        if padded:
            state = new
            continue
        for target, value in zip(state, new, strict=True):
            target[:size] = value
    return output, state, trace


def _runs_native(level: Level, x: Tensor, steps: Steps) -> bool:
    """Return whether a step's calls take longer than its work, and torch has a fast layer that returns its states."""
    w, plain = level.weights, min(steps.sizes) == steps.rows and steps.stored_rows is None
    has_native = level.cell is LSTM and w.w_hr is None and (w.b_ih is None) == (w.b_hh is None)
    is_small = steps.rows * level.units <= FEW_UNITS and len(x) * level.units <= MOST_UNITS
    return plain and has_native and x.is_cpu and x.dtype is torch.float32 and is_small


def _all_steps(level: Level, trace: Trace, state: list[Tensor], output: Tensor) -> list[Tensor]:
    """Fill trace and output for all steps at once from the states of torch's own layer; return the last states."""
    steps, weights = trace.steps, [w for w in level.weights[:4] if w is not None]
    x = trace.inputs.unflatten(0, (len(steps), steps.rows))
    x, first = x.flip(0) if level.backwards else x, [s.unsqueeze(0) for s in state]
    outputs, *last = torch.lstm(x, first, weights, len(weights) > 2, 1, 0.0, False, False, False)
    old = torch.cat([first[0], outputs[:-1]])
    old = old.flip(0) if level.backwards else old
    LSTM.all_steps(old.flatten(0, 1), state[1], level.weights, trace.rows, output, level.order(len(steps)))
    return [s[0] for s in last]
