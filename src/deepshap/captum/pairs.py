"""Explain rows against references and keep what captum's users ask for: multipliers, and sums of single pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import attribution
from ..attribution import Chunk
from ..pytorch.engine import TorchEngine
from . import arguments

ATTRIBUTIONS, MULTIPLIERS = 0, 1  # places in the first axis of what is found
Part = tuple[list[np.ndarray], np.ndarray, np.ndarray, slice, slice]


@dataclass
class Found:
    """What explaining rows gives: the first axis holds attributions and multipliers.

    ``means``, one array (2, rows, ...) per explained tensor, are means over the references; ``sums`` (2, rows, references)
    are taken over all features of each pair; ``multipliers``, if kept, holds those of each pair (rows, references, ...).
    """

    sums: np.ndarray
    means: list[np.ndarray] = field(default_factory=list)
    multipliers: list[np.ndarray] = field(default_factory=list)


class Comparison:
    """Rows and their references, the outputs to explain, and the engine that compares them.

    ``crosswise``: every row is compared with all references; otherwise with the one in its own place.
    """

    def __init__(self, engine: TorchEngine, inputs: Sequence[Tensor], args: Any, target: Any, crosswise: bool) -> None:
        self.engine, self.crosswise = engine, crosswise
        self.rows, self.extra = engine.read(list(inputs), args)
        self.references = engine.inputs.background
        self.shape = (len(self.rows[0]), len(self.references[0]) if crosswise else 1)
        needed = engine.prepare(self.rows, self.extra)
        budget = attribution.memory_budget(None, engine.free_memory())
        sizes = self.shape if crosswise else self.shape[::-1]  # a row with a reference of its own counts as one
        self.sizes = attribution.chunk_sizes(*sizes, *needed, budget)
        self.columns = arguments.columns(target, engine.output_shape, self.shape[0])

    # ------------------------------------------------------------------ the explanation
    def explain(self, keep_multipliers: bool) -> Found:
        """Explain everything, and check it as ``DeepExplainer`` does."""
        found = Found(np.zeros((2, *self.shape)))
        outputs, expected = np.zeros((2, *self.columns.shape))
        native = self.outputs
        for values, fx, fr, at, block in self._parts():
            if not found.means:
                found.means = [np.zeros((2, self.shape[0], *v.shape[3:])) for v in values]
                found.multipliers = [np.zeros((*self.shape, *v.shape[3:])) for v in values if keep_multipliers]
            for mean, value in zip(found.means, values, strict=True):
                mean[:, at] += value.sum(2) / self.shape[1]
                found.sums[:, at, block] += value.reshape(*value.shape[:3], -1).sum(3)
            for kept, value in zip(found.multipliers, values, strict=False):
                kept[at, block] = value[MULTIPLIERS]
            outputs[at] = np.take_along_axis(fx, self.columns[at], 1)
            expected[at] += np.take_along_axis(fr, self.columns[at], 1) / self.shape[1]
        attributions = [mean[ATTRIBUTIONS, ..., None] for mean in found.means]
        attribution.verified(self.engine, attributions, outputs, native, expected, self._pair)
        return found

    def _parts(self) -> Iterator[Part]:
        """Per explained tensor (2, rows, references, ...) of some rows and references; outputs of the rows, and of the
        references, summed; which rows and which references.
        """
        if self.crosswise:
            given = (self.rows, self.references, self.extra, self.columns, self.sizes)
            for chunk, at in attribution.chunks(*given):
                values, fx, fr = self.engine.attribute(chunk, _both)
                yield [v[0] for v in values], fx, fr, at, slice(*chunk.block)
            return
        for start in range(0, self.shape[0], self.sizes[1]):
            at = slice(start, start + self.sizes[1])
            values, fx, fr = self.engine.attribute_rows(self._chunk(at), _both)
            yield [v[0].swapaxes(1, 2) for v in values], fx, fr, at, slice(None)

    def _chunk(self, at: slice) -> Chunk:
        references = [r[at] for r in self.references]
        extra = self.engine.inputs.rows_of(self.extra, at)
        return Chunk([x[at] for x in self.rows], references, extra, self.columns[at], (-1, -1))

    def _pair(self, row: int) -> Chunk:
        """One row and a reference of its."""
        first = 0 if self.crosswise else row
        references = [r[first:] for r in self.references]
        return self.engine.single_pair(self.rows, references, self.extra, self.columns, row)

    # ------------------------------------------------------------------ values on either side of the pairs
    @property
    def outputs(self) -> np.ndarray:
        """The explained output of every row, by the untouched model, (rows, 1)."""
        return np.take_along_axis(self.engine.outputs(self.rows, self.extra, self.sizes), self.columns, 1)

    def reference_outputs(self) -> np.ndarray:
        """The output that explains the row, of each of its references, (rows, references)."""
        (outputs,) = self._beside(lambda *given: [torch.from_numpy(self.engine.outputs(*given, self.sizes))])
        columns = torch.from_numpy(self.columns).expand(self.shape)
        return outputs.unflatten(0, self.shape).gather(2, columns[..., None])[..., 0].numpy()

    def sides(self) -> tuple[list[Tensor], list[Tensor]]:
        """What is explained, on the side of the rows and on that of the references, (rows * references, ...)."""
        rows = [x.repeat_interleave(self.shape[1], 0) for x in self._explained(self.rows, self.extra)]
        return rows, self._beside(self._explained)

    def _explained(self, rows: list[Tensor], extra: Sequence[Any]) -> list[Tensor]:
        if self.engine.layer is None:
            return rows
        step = self.sizes[0] * self.sizes[1]
        parts = [
            self.engine.layer_values(
                [x[i : i + step] for x in rows], self.engine.inputs.rows_of(extra, slice(i, i + step))
            )
            for i in range(0, len(rows[0]), step)
        ]
        return [
            torch.cat([v.movedim(a, 0) for v in p]) for p, a in zip(zip(*parts, strict=True), self.axes, strict=True)
        ]

    def _beside(self, run: Callable[[list[Tensor], Sequence[Any]], list[Tensor]]) -> list[Tensor]:
        """Run on the references of every row, with the row's own arguments, (rows * references, ...)."""
        if not self.crosswise:
            return run(self.references, self.extra)
        count, inputs = self.shape[1], self.engine.inputs
        if not self.extra:
            return [v.repeat(self.shape[0], *[1] * (v.dim() - 1)) for v in run(self.references, ())]
        each = [inputs.rows_of(self.extra, slice(row, row + 1)) for row in range(self.shape[0])]
        runs = [run(self.references, inputs.repeat_rows(one, count)) for one in each]
        return [torch.cat(parts) for parts in zip(*runs, strict=True)]

    @property
    def axes(self) -> list[int]:
        """Where the rows lie in each explained tensor."""
        return [0] * len(self.rows) if self.engine.layer is None else self.engine.layer_axes


def _both(multipliers: Tensor, differences: Tensor) -> Tensor:
    """Attributions and multipliers of each pair."""
    return torch.stack([multipliers * differences, multipliers]).double()
