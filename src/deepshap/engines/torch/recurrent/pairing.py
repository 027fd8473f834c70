"""Which rows of an example's and a reference's trace make the pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ....mathematics.cells import Columns
from ..operations import Misaligned, Pairs
from .sequence import Left, Level, Steps


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
            raise Misaligned(f"{len(example)} recurrent steps beside {len(reference)}")
        rows, n, b = steps.rows, example.rows, reference.rows
        per = rows // n
        padded = again or min(steps.sizes) == rows
        if pairs.crossed and padded:
            inner = n // (pairs.outer * pairs.examples)
            if (n, b) != tuple(pairs.outer * inner * count for count in pairs.grid):
                raise Misaligned(f"{n} recurrent rows beside {b}")
            return cls(steps, per, pairs.references, pairs.outer, inner)
        fits = b in (per, rows) or (again and per == 1) if padded else reference.sizes == steps.sizes
        if not fits or any(size != per * own for size, own in zip(steps.sizes, example.sizes, strict=True)):
            raise Misaligned(f"{rows} recurrent rows beside {n} and {b}")
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
