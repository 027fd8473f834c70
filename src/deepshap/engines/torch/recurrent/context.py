"""What a recurrent layer needs to know about the run: repeated rows, earlier runs, sums, and how rows form pairs."""

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
from .sequence import HasTraces, Level, Memory, Steps, Trace, run

Result = tuple[Tensor, list[Tensor], Memory]


@dataclass
class Run:
    """Input and results of a run over padded steps."""

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

    def has_prefix(self, levels: list[list[Level]], x: Tensor, states: list[Tensor], rows: int) -> bool:
        """Return whether these inputs are the first steps of this run's."""
        if rows != self.rows or len(x) > len(self.x) or self._versions() != self.versions:
            return False
        if (
            _weight_keys(levels) != _weight_keys(self.levels)
            or x.shape[1] != self.x.shape[1]
            or x.dtype != self.x.dtype
        ):
            return False
        return torch.equal(x, self.x[: len(x)]) and all(map(torch.equal, states, self.states))

    def prefix(self, steps: Steps) -> Result:
        """Return the result of a run over the first steps."""
        end, last = sum(steps.sizes), slice(-self.rows, None)
        memory = Memory([Trace(steps, t.inputs[:end], t.rows[:end]) for t in self.memory.traces])
        output = self.output[:end].clone()
        return output, states_after(memory, output, last, len(self.states)), memory


@dataclass
class PrefixCache:
    """The runs so far, of which a later run may be the beginning; ``runs`` is None if no later run follows."""

    runs: list[Run] | None = None

    def run(self, levels: list[list[Level]], x: Tensor, states: list[Tensor], steps: Steps) -> Result:
        """Run a network like ``sequence.run``, or return the beginning of an earlier run."""
        one_way = all(len(directions) == 1 and not directions[0].backwards for directions in levels)
        if self.runs is None or not one_way or len(set(steps.sizes)) > 1:
            return run(levels, x, states, steps)
        for earlier in self.runs:
            if earlier.has_prefix(levels, x, states, steps.rows):
                return earlier.prefix(steps)
        output, last, memory = run(levels, x, states, steps)
        self.runs.append(Run(levels, x, states, steps.rows, output, memory))
        return output, last, memory


def states_after(memory: Memory, output: Tensor, positions: Tensor | slice, count: int) -> list[Tensor]:
    """Return the states, one or two, at some flat positions of a run whose layers have one direction."""
    h = [*(trace.inputs[positions] for trace in memory.traces[1:]), output[positions]]
    states = [torch.stack(h)]
    if count == 2:
        states.append(torch.stack([LSTM.split(trace.rows)["c"][positions] for trace in memory.traces]))
    return states


def _weight_keys(levels: list[list[Level]]) -> list[object]:
    weights = [level.weights for directions in levels for level in directions]
    return [(w.data_ptr(), version_of(w), w.shape) if isinstance(w, Tensor) else w for group in weights for w in group]


@dataclass(frozen=True)
class RepeatedRows:
    """Which rows of a run are equal: ``consecutive`` neighbours, or, if ``period`` is set, all rows that far apart.

    Rows of packed sequences are equal as far as both reach.
    """

    consecutive: int = 1
    period: int | None = None

    def distinct(self, v: Tensor, axis: int) -> Tensor:
        """Return one of each group of equal rows, detached from the graph."""
        if self.consecutive == 1 and self.period is None:
            return v.detach()
        if self.period is not None:
            return v.narrow(axis, 0, self.period)
        return v[(slice(None),) * axis + (slice(None, None, self.consecutive),)]

    def expand(self, v: Tensor, axis: int, rows: int) -> Tensor:
        """Return as many rows as there were before ``distinct``, contiguous and no view, because in-place code may follow."""
        if self.consecutive == 1 and self.period is None and not is_view(v) and v.is_contiguous():
            return v
        if self.period is not None:
            return v.repeat(*[rows // self.period if k == axis else 1 for k in range(v.dim())])
        if self.consecutive == 1:
            return v.clone(memory_format=torch.contiguous_format)
        return v.repeat_interleave(self.consecutive, axis)

    def positions(self, sizes: Sequence[int]) -> Tensor:
        """Return the position of every row of a packed sequence in a sequence with ``period`` rows at each step."""
        assert self.period is not None
        return torch.cat([torch.arange(size) % self.period + t * self.period for t, size in enumerate(sizes)])


@dataclass
class RecurrentContext:
    """The rows of a run, the explained inputs of which contributions are summed over references, and its recurrent runs.

    Attributes
    ----------
    pairs : how rows form pairs.
    tiled : whether the rows are all references, repeated for each example.
    sums : explained inputs with the sums of their contributions over references.
    prefix_cache : runs of recurrent layers in other runs of the model on the same rows.
    sequences : the steps of cells in this run, by the cell's weights.
    """

    pairs: Pairs
    tiled: bool = False
    sums: list[tuple[Tensor, Sums]] = field(default_factory=list)
    prefix_cache: PrefixCache = field(default_factory=PrefixCache)
    sequences: dict[Any, Any] = field(default_factory=dict)

    def finish(self) -> None:
        """Compute the deferred traces while the model still has the weights of this run."""
        for steps in self.sequences.values():
            steps.build_traces()

    @classmethod
    def of_references(cls, rows: int, distinct: int | None, prefix_cache: PrefixCache | None) -> RecurrentContext:
        """Return the context of a run on references, ``distinct`` of which are repeated if that is set."""
        tiled = distinct is not None and distinct < rows
        return cls(
            Pairs(rows // distinct, distinct) if distinct and tiled else Pairs(rows, 1),
            tiled,
            prefix_cache=prefix_cache or PrefixCache(),
        )

    def repeated_rows(self, *values: tuple[Tensor, int], sizes: Sequence[int] | None = None) -> RepeatedRows:
        """Return which rows are equal, so that their forward values are computed once.

        ``values`` are tensors, each with the axis of its rows; for packed sequences, with ``sizes``, the first one is flat.
        """
        references, rows = self.pairs.references, self.pairs.rows
        if self.pairs.all_pairs or references == 1:
            return RepeatedRows()
        ends = list(sizes or ())
        aligned = all(t.shape[axis] == rows for t, axis in values[1 if ends else 0 :]) and ends[:1] in ([], [rows])
        if not aligned or any(size % references for size in ends):
            return RepeatedRows()
        with interception_off():
            pieces = [*((step, 0) for step in values[0][0].split(ends)), *values[1:]] if ends else values
            # Explained inputs whose contributions are summed over references have repeated rows by construction.
            untouched = [inside for inside, _ in self.sums if not version_of(inside)]
            unsure = [(t, axis) for t, axis in pieces if not any(t is inside for inside in untouched)]
            if all(
                _are_equal(t.detach().unflatten(axis, (-1, references)), axis + (not self.tiled)) for t, axis in unsure
            ):
                return RepeatedRows(period=references) if self.tiled else RepeatedRows(references)
            return RepeatedRows()

    def sums_of(self, data: Tensor, batch_first: bool, repeats: int) -> Sums | None:
        """Return the sums of an explained input if ``data`` is that input, unchanged or with rows and steps exchanged."""
        if repeats != (1 if self.pairs.all_pairs else self.pairs.references):
            return None
        with interception_off():
            return next((sums for inside, sums in self.sums if _is_untouched(inside, data, batch_first)), None)


def _are_equal(grouped: Tensor, axis: int) -> bool:
    return torch.equal(grouped, grouped.narrow(axis, 0, 1).expand_as(grouped))


def _is_untouched(inside: Tensor, data: Tensor, batch_first: bool) -> bool:
    if version_of(inside) or inside.dim() != 3:
        return False
    if batch_first:
        return data is inside
    transposed = inside.transpose(0, 1)
    same = data.shape == transposed.shape and data.stride() == transposed.stride()
    return same and base_of(data) is inside and data.storage_offset() == 0


@dataclass
class Pairing:
    """How rows of the multipliers, examples outermost, pair rows of the two traces.

    ``per_row`` consecutive pairs share a row of the example's trace. If rows share their axis with something else, all rows
    of the model occur ``outer`` times on either side with ``inner`` entries each, and equal entries form pairs.
    """

    steps: Steps
    per_row: int
    references: int
    outer: int = 1
    inner: int = 1

    @classmethod
    def of(cls, pairs: Pairs, steps: Steps, example: Steps, reference: Steps, tiled: bool = False) -> Pairing:
        """Match the traces of example and reference; ``tiled``: the reference side ran once for all pairs, up to the longest."""
        if len(example) != len(reference):
            raise TraceMismatch(f"{len(example)} recurrent steps beside {len(reference)}")
        rows, n, b = steps.rows, example.rows, reference.rows
        per_row = rows // n
        padded = tiled or min(steps.sizes) == rows
        if pairs.all_pairs and padded:
            inner = n // (pairs.outer * pairs.examples)
            if (n, b) != tuple(pairs.outer * inner * count for count in pairs.grid):
                raise TraceMismatch(f"{n} recurrent rows beside {b}")
            return cls(steps, per_row, pairs.references, pairs.outer, inner)
        fits = b in (per_row, rows) or (tiled and per_row == 1) if padded else reference.sizes == steps.sizes
        if not fits or any(size != per_row * count for size, count in zip(steps.sizes, example.sizes, strict=True)):
            raise TraceMismatch(f"{rows} recurrent rows beside {n} and {b}")
        return cls(steps, per_row, b)

    def rows_of(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the example's and of the reference's trace that form some pairs."""
        rows, references = pairs // self.per_row, pairs % self.references
        parts = rows // (self.steps.rows // (self.per_row * self.outer))
        return rows, (parts * self.references + references) * self.inner + rows % self.inner

    def broadcast(self, x: Columns, r: Columns) -> tuple[Columns, Columns]:
        """View the values of one step so that they broadcast to (rows of the example, pairs of each)."""
        rows = len(next(iter(x.values())))
        if self.outer * self.inner > 1:
            r = {name: self._expand_references(v, rows) for name, v in r.items()}
        elif self.per_row == 1 and rows > self.references:
            r = {name: v.repeat(rows // self.references, 1) for name, v in r.items()}
        return _unflatten(x, 1), _unflatten(r, self.per_row)

    def _expand_references(self, v: Tensor, rows: int) -> Tensor:
        """Return for each row of the example the entries of all references that it is paired with."""
        grouped = v.unflatten(0, (self.outer, 1, -1, self.inner)).transpose(2, 3)
        return grouped.expand(-1, rows // (self.outer * self.inner), -1, -1, -1).flatten(0, 3)


def _unflatten(values: Columns, per_row: int) -> Columns:
    return {name: v.unflatten(0, (-1, per_row)) for name, v in values.items()}


@dataclass
class Network:
    """A recurrent network after its runs on both sides; ``levels`` has a list of directions per layer."""

    levels: list[list[Level]]
    example: HasTraces
    reference: HasTraces
    pairing: Pairing

    @property
    def steps(self) -> Steps:
        """Return where the pairs of each step lie in the multipliers."""
        return self.pairing.steps

    @cached_property
    def flat_levels(self) -> list[Level]:
        """Return all levels in the order of the traces and states."""
        return [level for directions in self.levels for level in directions]

    @property
    def device(self) -> torch.device:
        """Return the device of the traces."""
        return self.example.traces[0].inputs.device

    @property
    def features(self) -> int:
        """Return the width of the input."""
        return self.example.traces[0].inputs.shape[1]

    def new_sums(self, like: Tensor) -> Tensor:
        """Return zeros for contributions summed over references, (outputs, rows of the example, steps, features)."""
        shape = len(like), self.example.traces[0].steps.rows, len(self.steps), self.features
        return like.new_zeros(shape, dtype=torch.float64)
