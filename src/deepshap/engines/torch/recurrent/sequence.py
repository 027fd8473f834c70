"""Sequences with their steps, and a layer's forward run over them, once per example and once per reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from ....formulas.cells import Columns, Weights
from ..batch_axes import Chosen
from .cells import LSTM, Cell

FEW = 1024  # units of the rows of a step, of which its calls take longer than its work
MOST = 2**15  # units of all rows and steps: what is made for all at once is no part of the budget


@dataclass(frozen=True)
class Steps:
    """Where the rows of each step lie in a flat sequence (sum of sizes, features), step after step as torch packs it.

    A padded sequence is the case in which all steps have all rows. Where each row's steps follow one another
    (``batch_first``), the flat sequence is that of (rows, steps). These may be a part of a padded sequence that has ``beside``
    rows in each step, from the ``first`` one on.
    """

    sizes: tuple[int, ...]
    batch_first: bool = False
    beside: int | None = None
    first: int = 0

    @property
    def rows(self) -> int:
        """Rows of the longest step."""
        return self.sizes[0]

    def __len__(self) -> int:
        return len(self.sizes)

    def shared_by(self, references: int) -> Steps:
        """Those of the examples alone, each of which is in as many pairs as there are references."""
        return replace(self, sizes=tuple(size // references for size in self.sizes))

    @cached_property
    def _offsets(self) -> list[int]:
        return [0, *accumulate(self.sizes if self.beside is None else (self.beside,) * len(self.sizes))]

    @property
    def stride(self) -> int:
        """Flat distance between neighbouring rows of a step."""
        return len(self.sizes) if self.batch_first else 1

    def start(self, step: int, row: int = 0) -> int:
        """Flat position of a row of a step."""
        return row * len(self.sizes) + step if self.batch_first else self._offsets[step] + self.first + row

    def at(self, flat: Tensor, step: int, first: int = 0, end: int | None = None) -> Tensor:
        """View the rows of a step (..., rows, features); beyond its size there are none."""
        end = self.sizes[step] if end is None else min(end, self.sizes[step])
        start = self.start(step, first)
        return flat[..., start : start + (max(end, first) - first) * self.stride : self.stride, :]

    def ends(self) -> Tensor:
        """Flat position of the last step of every row, of a sequence with time first."""
        lengths = (torch.arange(self.rows) < torch.tensor(self.sizes)[:, None]).sum(0)
        return torch.tensor(self._offsets)[lengths - 1] + torch.arange(self.rows)

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Views of the rows of every step, of a sequence with time first."""
        if self.beside is None:
            return flat.split(self.sizes)
        return tuple(step.narrow(0, self.first, self.rows) for step in flat.split(self.beside))


@dataclass(frozen=True)
class Level:
    """One layer and direction of a recurrent network."""

    cell: Cell
    weights: Weights
    backwards: bool = False

    @property
    def units(self) -> int:
        """Units of the hidden state before any projection."""
        return len(self.weights.w_hh) // self.cell.gates

    def order(self, count: int) -> range:
        """The order in which it takes the steps."""
        return range(count - 1, -1, -1) if self.backwards else range(count)


@dataclass
class Trace:
    """What one level's forward run leaves for the rule: its input and the columns of its cell, flat, time first."""

    steps: Steps
    inputs: Tensor
    rows: Tensor

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.rows.nbytes + self.inputs.nbytes

    def among(self, chosen: Chosen) -> Trace:
        """That of some rows of a padded sequence; what does not lie together is copied."""
        (some, parts), steps = chosen, self.steps
        count = some.stop - some.start
        beside = steps.rows if steps.beside is None else steps.beside
        if parts == 1:
            return replace(self, steps=Steps((count,) * len(steps), False, beside, steps.first + some.start))

        def copied(flat: Tensor) -> Tensor:
            own = flat.unflatten(0, (-1, beside)).narrow(1, steps.first, steps.rows).unflatten(1, (parts, -1))
            return own.narrow(2, some.start, count).flatten(0, 2)

        return Trace(Steps((parts * count,) * len(steps)), copied(self.inputs), copied(self.rows))

    def columns(self, level: Level) -> list[Columns]:
        """All values of each step, by name."""
        views = {name: self.steps.split(column) for name, column in level.cell.split(self.rows).items()}
        return [dict(zip(views, step, strict=True)) for step in zip(*views.values(), strict=True)]


class Left(Protocol):
    """What a network leaves for its rule on one side."""

    @property
    def traces(self) -> list[Trace]:
        """Those of all levels."""

    @property
    def nbytes(self) -> int:
        """Memory that they take."""


@dataclass
class Memory:
    """The traces of all levels of a network, on one side."""

    traces: list[Trace] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return sum(trace.nbytes for trace in self.traces)

    def among(self, chosen: Chosen) -> Memory:
        """That of some rows of a padded sequence."""
        return Memory([trace.among(chosen) for trace in self.traces])

    def save_from_overwriting(self, storage: int) -> None:
        """Keep copies of inputs whose memory, that of the layer's own input, is about to be overwritten in place."""
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
    """Run a single step on (rows, features): the new states, and what the rule needs."""
    cell, weights, rows = level.cell, level.weights, x.shape[0]
    trace = Trace(_single_step(rows), x, x.new_empty(rows, cell.width(level.units)))
    cell.read(x, weights, trace.rows)
    output = torch.empty_like(state[0], memory_format=torch.contiguous_format)
    return cell.step(list(state), cell.turned(weights), cell.views(trace.rows), output), trace


@cache
def _single_step(rows: int) -> Steps:
    return Steps((rows,))


def _level(level: Level, x: Tensor, state: list[Tensor], steps: Steps) -> tuple[Tensor, list[Tensor], Trace]:
    cell, weights = level.cell, level.weights
    trace = Trace(steps, x, x.new_empty(len(x), cell.width(level.units)))
    cell.read(x, weights, trace.rows)
    output = x.new_empty(len(x), state[0].shape[-1])
    if _are_few(level, x, steps):
        return output, _all_steps(level, trace, state, output), trace
    views = list(zip(*map(steps.split, cell.views(trace.rows)), strict=True))
    outputs = steps.split(output)
    state, padded, turned = [s.clone() for s in state], min(steps.sizes) == steps.rows, cell.turned(weights)
    for t in level.order(len(steps)):
        size = steps.sizes[t]
        given = state if padded else [s[:size] for s in state]
        new = cell.step(given, turned, views[t], outputs[t])
        if padded:
            state = new
            continue
        for old, value in zip(state, new, strict=True):
            old[:size] = value
    return output, state, trace


def _are_few(level: Level, x: Tensor, steps: Steps) -> bool:
    """Whether a step's calls take longer than its work, and torch has a quick layer that tells the states."""
    w, plain = level.weights, min(steps.sizes) == steps.rows and steps.beside is None
    of_torch = level.cell is LSTM and w.w_hr is None and (w.b_ih is None) == (w.b_hh is None)
    few = steps.rows * level.units <= FEW and len(x) * level.units <= MOST
    return plain and of_torch and x.is_cpu and x.dtype is torch.float32 and few


def _all_steps(level: Level, trace: Trace, state: list[Tensor], output: Tensor) -> list[Tensor]:
    """Fill trace and output, all steps at once by the states that torch's own layer tells; returns the last ones."""
    steps, weights = trace.steps, [w for w in level.weights[:4] if w is not None]
    x = trace.inputs.unflatten(0, (len(steps), steps.rows))
    x, first = x.flip(0) if level.backwards else x, [s.unsqueeze(0) for s in state]
    made, *last = torch.lstm(x, first, weights, len(weights) > 2, 1, 0.0, False, False, False)
    old = torch.cat([first[0], made[:-1]])
    old = old.flip(0) if level.backwards else old
    LSTM.all_steps(old.flatten(0, 1), state[1], level.weights, trace.rows, output, level.order(len(steps)))
    return [s[0] for s in last]
