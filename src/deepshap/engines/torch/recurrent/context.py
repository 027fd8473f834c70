"""What a recurrent layer knows of the run around it: repeated rows, earlier runs, sums, and which rows make the pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....formulas.cells import Columns
from .._compat import base_of, interception_off, is_view, version_of
from ..operations import Pairs, Sums, TraceMismatch
from .cells import LSTM
from .sequence import Left, Level, Memory, Steps, Trace, run

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
class PrefixCache:
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


@dataclass(frozen=True)
class RepeatedRows:
    """Which rows of a run are alike: ``each`` consecutive ones, or, where ``every`` is given, all that are so far apart.

    Rows of packed sequences are alike as far as they both go.
    """

    each: int = 1
    every: int | None = None

    def once(self, v: Tensor, axis: int) -> Tensor:
        """Of rows that are alike, one, off the graph."""
        if self.each == 1 and self.every is None:
            return v.detach()
        if self.every is not None:
            return v.narrow(axis, 0, self.every)
        return v[(slice(None),) * axis + (slice(None, None, self.each),)]

    def all_of(self, v: Tensor, axis: int, rows: int) -> Tensor:
        """So many rows, from those ``once``; no view, and in order: in-place code may follow."""
        if self.each == 1 and self.every is None and not is_view(v) and v.is_contiguous():
            return v
        if self.every is not None:
            return v.repeat(*[rows // self.every if k == axis else 1 for k in range(v.dim())])
        if self.each == 1:
            return v.clone(memory_format=torch.contiguous_format)
        return v.repeat_interleave(self.each, axis)

    def places(self, sizes: Sequence[int]) -> Tensor:
        """Of every row of a packed sequence its place where each step has ``every`` rows."""
        assert self.every is not None
        return torch.cat([torch.arange(size) % self.every + t * self.every for t, size in enumerate(sizes)])


@dataclass
class RecurrentContext:
    """The values that the model was handed, with where their contributions go, summed over references.

    ``begun`` are runs of recurrent layers in other runs of the model on the same rows. ``again``: the rows are all references,
    again and again for each example. ``together``: by their weights, the steps of cells of this run.
    """

    pairs: Pairs
    again: bool = False
    sums: list[tuple[Tensor, Sums]] = field(default_factory=list)
    begun: PrefixCache = field(default_factory=PrefixCache)
    together: dict[Any, Any] = field(default_factory=dict)

    def finish(self) -> None:
        """Make what steps have left for later, while the model still has the weights of this run."""
        for steps in self.together.values():
            steps.make()

    @classmethod
    def of_references(cls, rows: int, each: int | None, begun: PrefixCache | None) -> RecurrentContext:
        """Of a run on so many references, ``each`` of which come again and again if that is given."""
        again = each is not None and each < rows
        return cls(Pairs(rows // each, each) if each and again else Pairs(rows, 1), again, begun=begun or PrefixCache())

    def alike(self, *values: tuple[Tensor, int], sizes: Sequence[int] | None = None) -> RepeatedRows:
        """Which rows are the same example or reference, so that forward values are computed once for all.

        ``values`` are tensors, each with the axis of its rows; of packed sequences, with ``sizes``, the first one is flat.
        """
        references, rows = self.pairs.references, self.pairs.rows
        if self.pairs.all_pairs or references == 1:
            return RepeatedRows()
        ends = list(sizes or ())
        whole = all(t.shape[axis] == rows for t, axis in values[1 if ends else 0 :]) and ends[:1] in ([], [rows])
        if not whole or any(size % references for size in ends):
            return RepeatedRows()
        with interception_off():
            pieces = [*((step, 0) for step in values[0][0].split(ends)), *values[1:]] if ends else values
            # What was handed to the model to be summed over references was made of repeated rows.
            known = [inside for inside, _ in self.sums if not version_of(inside)]
            unsure = [(t, axis) for t, axis in pieces if not any(t is inside for inside in known)]
            if all(
                _are_alike(t.detach().unflatten(axis, (-1, references)), axis + (not self.again)) for t, axis in unsure
            ):
                return RepeatedRows(every=references) if self.again else RepeatedRows(references)
            return RepeatedRows()

    def sums_of(self, data: Tensor, batch_first: bool, repeats: int) -> Sums | None:
        """Where contributions of an explained input go, if ``data`` is one, as it came or with rows and steps exchanged."""
        if repeats != (1 if self.pairs.all_pairs else self.pairs.references):
            return None
        with interception_off():
            return next((sums for inside, sums in self.sums if _is_untouched(inside, data, batch_first)), None)


def _are_alike(grouped: Tensor, axis: int) -> bool:
    return torch.equal(grouped, grouped.narrow(axis, 0, 1).expand_as(grouped))


def _is_untouched(inside: Tensor, data: Tensor, batch_first: bool) -> bool:
    if version_of(inside) or inside.dim() != 3:
        return False
    if batch_first:
        return data is inside
    turned = inside.transpose(0, 1)
    same = data.shape == turned.shape and data.stride() == turned.stride()
    return same and base_of(data) is inside and data.storage_offset() == 0


@dataclass
class Pairing:
    """Rows are pairs, examples outermost; ``per`` consecutive ones have the same row of the example's trace.

    Where rows share their axis with something
    else, all rows of the model come ``outer`` times on either side, with so many ``inner`` entries each, which meet their like.
    """

    steps: Steps
    per: int
    references: int
    outer: int = 1
    inner: int = 1

    @classmethod
    def of(cls, pairs: Pairs, steps: Steps, example: Steps, reference: Steps, again: bool = False) -> Pairing:
        """Lay the reference beside the example; ``again``: it ran once for all pairs, as far as the longest goes."""
        if len(example) != len(reference):
            raise TraceMismatch(f"{len(example)} recurrent steps beside {len(reference)}")
        rows, n, b = steps.rows, example.rows, reference.rows
        per = rows // n
        padded = again or min(steps.sizes) == rows
        if pairs.all_pairs and padded:
            inner = n // (pairs.outer * pairs.examples)
            if (n, b) != tuple(pairs.outer * inner * count for count in pairs.grid):
                raise TraceMismatch(f"{n} recurrent rows beside {b}")
            return cls(steps, per, pairs.references, pairs.outer, inner)
        fits = b in (per, rows) or (again and per == 1) if padded else reference.sizes == steps.sizes
        if not fits or any(size != per * own for size, own in zip(steps.sizes, example.sizes, strict=True)):
            raise TraceMismatch(f"{rows} recurrent rows beside {n} and {b}")
        return cls(steps, per, b)

    def rows_of(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the example's and of the reference's trace that make some pairs."""
        rows, references = pairs // self.per, pairs % self.references
        parts = rows // (self.steps.rows // (self.per * self.outer))
        return rows, (parts * self.references + references) * self.inner + rows % self.inner

    def beside(self, x: Columns, r: Columns) -> tuple[Columns, Columns]:
        """View one step's values so that they broadcast to (rows of the example, pairs of each)."""
        rows = len(next(iter(x.values())))
        if self.outer * self.inner > 1:
            r = {name: self._laid_out(v, rows) for name, v in r.items()}
        elif self.per == 1 and rows > self.references:
            r = {name: v.repeat(rows // self.references, 1) for name, v in r.items()}
        return _views(x, 1), _views(r, self.per)

    def _laid_out(self, v: Tensor, rows: int) -> Tensor:
        """For each row of the example's the references' entries that it meets."""
        own = v.unflatten(0, (self.outer, 1, -1, self.inner)).transpose(2, 3)
        return own.expand(-1, rows // (self.outer * self.inner), -1, -1, -1).flatten(0, 3)


def _views(values: Columns, per: int) -> Columns:
    return {name: v.unflatten(0, (-1, per)) for name, v in values.items()}


@dataclass
class Network:
    """A recurrent network after its run on both sides, for the rule; ``levels`` has a list of directions per layer."""

    levels: list[list[Level]]
    example: Left
    reference: Left
    pairing: Pairing

    @property
    def steps(self) -> Steps:
        """Where the pairs of each step lie in the multipliers."""
        return self.pairing.steps

    @cached_property
    def flat_levels(self) -> list[Level]:
        """All levels, in the order of the traces and states."""
        return [level for directions in self.levels for level in directions]

    @property
    def device(self) -> torch.device:
        """Where the traces are."""
        return self.example.traces[0].inputs.device

    @property
    def features(self) -> int:
        """Width of the input."""
        return self.example.traces[0].inputs.shape[1]

    def new_sums(self, like: Tensor) -> Tensor:
        """Zeros for contributions summed over references, (outputs, rows of the example, steps, features)."""
        shape = len(like), self.example.traces[0].steps.rows, len(self.steps), self.features
        return like.new_zeros(shape, dtype=torch.float64)
