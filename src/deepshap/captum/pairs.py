"""Explain rows against references, and keep of it what captum's users ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import execution
from ..engines.torch.engine import TorchEngine
from ..execution import Chunk
from . import arguments

ATTRIBUTIONS, MULTIPLIERS = 0, 1  # places in the first axis of what a run gives
Run = Callable[[list[Tensor], Sequence[Any]], list[Tensor]]


class Comparison:
    """Rows, their references, and the outputs to explain.

    ``crosswise``: every row is compared with all references, otherwise with the one in its own place. ``shape`` is (rows,
    references of each); arrays of pairs have these two axes first.
    """

    def __init__(self, engine: TorchEngine, inputs: Sequence[Tensor], args: Any, target: Any, crosswise: bool) -> None:
        self.engine, self.crosswise = engine, crosswise
        self.rows, self.extra = engine.read(list(inputs), args)
        self.references = engine.inputs.background
        self.shape = (len(self.rows[0]), len(self.references[0]) if crosswise else 1)
        footprint = engine.prepare(self.rows, self.extra)
        budget = execution.memory_budget(None, engine.free_memory())
        sides = self.shape if crosswise else self.shape[::-1]  # where each row has its own reference, a pair takes both
        self.sizes = execution.chunk_sizes(*sides, footprint, budget)
        self.columns = arguments.columns(target, engine.output_shape, self.shape[0])

    @property
    def axes(self) -> list[int]:
        """Where the rows lie in each explained tensor."""
        return [0] * len(self.rows) if self.engine.layer is None else self.engine.layer_axes

    # ------------------------------------------------------------------ explaining
    def attributions(
        self, multiply_by_inputs: bool, custom: Callable[..., Any] | None
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return attributions or multipliers, or what the user's function makes of them.

        One array (rows, ...) per explained tensor, the mean over the references, and the sums of each pair.
        """
        means, sums, multipliers = self._explain(keep_multipliers=custom is not None)
        if custom is None:
            kind = ATTRIBUTIONS if multiply_by_inputs else MULTIPLIERS
            return [mean[kind] for mean in means], sums[kind]
        sides = [torch.from_numpy(m).flatten(0, 1).to(self._like) for m in multipliers], *self._sides()
        given = [[t.movedim(0, axis) for t, axis in zip(side, self.axes, strict=True)] for side in sides]
        made = arguments.custom(custom, self.axes, *given)
        pairs = [a.movedim(axis, 0).unflatten(0, self.shape) for a, axis in zip(made, self.axes, strict=True)]
        arrays = [p.to("cpu", torch.float64).numpy() for p in pairs]
        return [a.mean(1) for a in arrays], np.sum([a.reshape(*self.shape, -1).sum(2) for a in arrays], 0)

    def _explain(self, keep_multipliers: bool) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
        """Run everything, and check it as ``DeepExplainer`` does.

        Per explained tensor the means over references of attributions and multipliers (2, rows, ...); their sums over all
        features (2, rows, references); the multipliers of each pair, if they are to be kept.
        """
        means: list[np.ndarray] = []
        kept: list[np.ndarray] = []
        sums, outputs, expected = np.zeros((2, *self.shape)), *np.zeros((2, *self.columns.shape))
        for values, fx, fr, at, block in self._parts():
            explained = values[: len(self.axes)]  # and then what goes around the layer
            if not means:
                means = [np.zeros((2, self.shape[0], *v.shape[3:])) for v in values]
                kept = [np.zeros((*self.shape, *v.shape[3:])) for v in explained if keep_multipliers]
            for mean, value in zip(means, values, strict=True):
                mean[:, at] += value.sum(2) / self.shape[1]
            for value in explained:
                sums[:, at, block] += value.reshape(*value.shape[:3], -1).sum(3)
            for whole, value in zip(kept, explained, strict=False):
                whole[at, block] = value[MULTIPLIERS]
            outputs[at] = np.take_along_axis(fx, self.columns[at], 1)
            expected[at] += np.take_along_axis(fr, self.columns[at], 1) / self.shape[1]
        attributions = [mean[ATTRIBUTIONS, ..., None] for mean in means]
        execution.verified(self.engine, attributions, outputs, self._outputs, expected, self._pair)
        return means[: len(self.axes)], sums, kept

    def _parts(self) -> Iterator[tuple[list[np.ndarray], np.ndarray, np.ndarray, slice, slice]]:
        """Yield the results for some rows and references, and which these are.

        Results are arrays (2, rows, references, ...) per explained tensor, the outputs of the rows, and those of their
        references, summed.
        """
        if self.crosswise:
            for chunk, at in execution.chunks(self.rows, self.references, self.extra, self.columns, self.sizes):
                values, fx, fr = self.engine.attribute(chunk, _both)
                yield [v[0] for v in values], fx, fr, at, slice(*chunk.block)
            return
        for start in range(0, self.shape[0], self.sizes[1]):
            at = slice(start, start + self.sizes[1])
            values, fx, fr = self.engine.attribute_rows(self._own(at), _both)
            yield [v[0].swapaxes(1, 2) for v in values], fx, fr, at, slice(None)

    def _own(self, at: slice) -> Chunk:
        """Some rows, each beside its own reference."""
        rows, references = ([t[at] for t in side] for side in (self.rows, self.references))
        return Chunk(rows, references, self.engine.inputs.rows_of(self.extra, at), self.columns[at], (-1, -1))

    def _pair(self, row: int) -> Chunk:
        """One row beside a reference of its."""
        references = self.references if self.crosswise else [r[row:] for r in self.references]
        return execution.single_pair(self.engine, self.rows, references, self.extra, self.columns, row)

    # ------------------------------------------------------------------ the model by itself
    def differences(self) -> np.ndarray:
        """What each pair has to explain, output minus output of the reference, (rows, references)."""
        (outputs,) = self._beside(lambda rows, extra: [torch.from_numpy(self.engine.outputs(rows, extra, self.sizes))])
        columns = self.columns[..., None].repeat(self.shape[1], 1)
        return self._outputs - np.take_along_axis(outputs.unflatten(0, self.shape).numpy(), columns, 2)[..., 0]

    @cached_property
    def _outputs(self) -> np.ndarray:
        """The explained output of every row, (rows, 1)."""
        return np.take_along_axis(self.engine.outputs(self.rows, self.extra, self.sizes), self.columns, 1)

    def _sides(self) -> tuple[list[Tensor], list[Tensor]]:
        """What is explained, of the rows and of the references of every pair, (rows * references, ...)."""
        rows = self._explained(self.rows, self.extra)
        return [x.repeat_interleave(self.shape[1], 0) for x in rows], self._beside(self._explained)

    def _explained(self, rows: list[Tensor], extra: Sequence[Any]) -> list[Tensor]:
        """The inputs, or the values of the inner layer on them, rows first."""
        if self.engine.layer is None:
            return rows
        step = self.sizes[0] * self.sizes[1]
        places = [slice(start, start + step) for start in range(0, len(rows[0]), step)]
        select = self.engine.inputs.rows_of
        parts = [self.engine.layer_values([x[at] for x in rows], select(extra, at)) for at in places]
        return [
            torch.cat([v.movedim(a, 0) for v in p]) for p, a in zip(zip(*parts, strict=True), self.axes, strict=True)
        ]

    def _beside(self, run: Run) -> list[Tensor]:
        """Run on the references of every row, which share the row's arguments, (rows * references, ...)."""
        if not self.crosswise:
            return run(self.references, self.extra)
        if not self.extra:
            return [v.repeat(self.shape[0], *[1] * (v.dim() - 1)) for v in run(self.references, ())]
        inputs = self.engine.inputs
        each = [inputs.rows_of(self.extra, slice(row, row + 1)) for row in range(self.shape[0])]
        parts = [run(self.references, inputs.repeat_rows(extra, self.shape[1])) for extra in each]
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    @property
    def _like(self) -> Tensor:
        """A tensor of the output's dtype, where the model is."""
        return torch.empty((), dtype=self.engine.dtype, device=self.rows[0].device)


def _both(multipliers: Tensor, differences: Tensor) -> Tensor:
    """Attributions and multipliers of each pair."""
    return torch.stack([multipliers * differences, multipliers]).double()
