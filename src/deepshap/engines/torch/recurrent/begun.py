"""Runs of recurrent layers that are the beginning of a longer one: the same rows, that end earlier.

So references run once for examples of different lengths, where their layers go one way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._compat import version_of
from .cells import LSTM
from .sequence import Level, Memory, Steps, Trace, run

Result = tuple[Tensor, list[Tensor], Memory]


@dataclass
class Run:
    """What went into a run over padded steps, and what came out."""

    levels: list[list[Level]]
    x: Tensor
    states: list[Tensor]
    rows: int
    output: Tensor
    memory: Memory

    def __post_init__(self) -> None:
        self.versions = self._versions()

    def _versions(self) -> list[int]:
        return [version_of(v) for v in (self.x, self.output, *self.states)]

    def begins_with(self, levels: list[list[Level]], x: Tensor, states: list[Tensor], rows: int) -> bool:
        """Whether another run would be the beginning of this one."""
        if rows != self.rows or len(x) > len(self.x) or self._versions() != self.versions:
            return False
        if _weights(levels) != _weights(self.levels) or x.shape[1] != self.x.shape[1] or x.dtype != self.x.dtype:
            return False
        return torch.equal(x, self.x[: len(x)]) and all(map(torch.equal, states, self.states))

    def beginning(self, steps: Steps) -> Result:
        """What a run over its first steps gives."""
        end, last = sum(steps.sizes), slice(-self.rows, None)
        memory = Memory([Trace(steps, t.inputs[:end], t.rows[:end]) for t in self.memory.traces])
        output = self.output[:end].clone()
        return output, states_after(memory, output, last, len(self.states)), memory


@dataclass
class Begun:
    """The runs so far; None where no other run of the model follows, so that none is kept."""

    runs: list[Run] | None = None

    def run(self, levels: list[list[Level]], x: Tensor, states: list[Tensor], steps: Steps) -> Result:
        """As ``sequence.run``."""
        one_way = all(len(directions) == 1 and not directions[0].backwards for directions in levels)
        if self.runs is None or not one_way or len(set(steps.sizes)) > 1:
            return run(levels, x, states, steps)
        for known in self.runs:
            if known.begins_with(levels, x, states, steps.rows):
                return known.beginning(steps)
        output, last, memory = run(levels, x, states, steps)
        self.runs.append(Run(levels, x, states, steps.rows, output, memory))
        return output, last, memory


def states_after(memory: Memory, output: Tensor, places: Tensor | slice, count: int) -> list[Tensor]:
    """The states, one or two, after some flat places of a run whose layers go one way."""
    h = [*(trace.inputs[places] for trace in memory.traces[1:]), output[places]]
    states = [torch.stack(h)]
    if count == 2:
        states.append(torch.stack([LSTM.split(trace.rows)["c"][places] for trace in memory.traces]))
    return states


def _weights(levels: list[list[Level]]) -> list[object]:
    weights = [level.weights for directions in levels for level in directions]
    return [(w.data_ptr(), version_of(w), w.shape) if isinstance(w, Tensor) else w for each in weights for w in each]
