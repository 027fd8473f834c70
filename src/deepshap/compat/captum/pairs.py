"""Explain rows against references, and keep of it what captum's users ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...attribution import AttributionRequest, run
from ...engines.interface import Comparison, Contributions, Points
from ...engines.torch.engine import TorchEngine
from ...memory import memory_budget
from . import arguments

ATTRIBUTIONS, MULTIPLIERS = 0, 1  # places in the first axis of what is kept
AT_ONCE = 4096  # rows of the model by itself


class Explained:
    """Rows explained against their references.

    ``all_pairs``: every row is compared with all references, otherwise with the one in its own place. ``shape`` is (rows,
    references of each); arrays of pairs have these two axes first.
    """

    def __init__(
        self,
        engine: TorchEngine,
        inputs: Sequence[Tensor],
        references: Sequence[Tensor],
        args: Any,
        target: Any,
        all_pairs: bool,
    ) -> None:
        self.engine, self.target = engine, target
        self.references = engine.read_background(list(references))
        self.rows, _ = engine.read(list(inputs), args, self.references)
        self.all_pairs = all_pairs
        self.shape = (len(self.rows), len(self.references) if self.all_pairs else 1)
        self._sums = np.zeros(())
        self._means: list[np.ndarray] = []
        self._kept: list[np.ndarray] = []

    def attributions(
        self, multiply_by_inputs: bool, custom: Callable[..., Any] | None
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return attributions or multipliers, or what the user's function makes of them.

        One array (rows, ...) per explained tensor, the mean over the references, and the sums of each pair.
        """
        self._run(keep=custom is not None)
        if custom is None:
            kind = ATTRIBUTIONS if multiply_by_inputs else MULTIPLIERS
            return [mean[kind] for mean in self._means], self._sums[kind]
        like = torch.empty((), dtype=getattr(torch, self.engine.dtype), device=self.rows.inputs[0].device)
        sides = [torch.from_numpy(m).flatten(0, 1).to(like) for m in self._kept], *self._sides()
        placed_sides = [[t.movedim(0, axis) for t, axis in zip(side, self.axes, strict=True)] for side in sides]
        contributions = arguments.custom(custom, self.axes, *placed_sides)
        pairs = [a.movedim(axis, 0).unflatten(0, self.shape) for a, axis in zip(contributions, self.axes, strict=True)]
        arrays = [p.to("cpu", torch.float64).numpy() for p in pairs]
        return [a.mean(1) for a in arrays], np.sum([a.reshape(*self.shape, -1).sum(2) for a in arrays], 0)

    @property
    def axes(self) -> Sequence[int]:
        """Where the rows lie in each explained tensor."""
        return self._found.profile.axes

    def _run(self, keep: bool) -> None:
        """Run everything, with the checks of ``DeepExplainer``."""

        def collect(part: Comparison, at: slice, block: slice, contributions: Contributions) -> None:
            assert contributions.multipliers is not None
            explained = [m[:, 0] for m in contributions.multipliers[: self._explained_tensors]]
            if not (at.start or block.start):  # once more, where it begins again in float64
                self._sums = np.zeros((2, *self.shape))
                self._means = [np.zeros((2, self.shape[0], *v.shape[3:])) for v in explained]
                self._kept = [np.zeros((*self.shape, *v.shape[3:])) for v in explained if keep]
            for mean, value in zip(self._means, explained, strict=True):
                mean[:, at] += value.sum(2) / self.shape[1]
                self._sums[:, at, block] += value.reshape(*value.shape[:3], -1).sum(3)
            for pairs, value in zip(self._kept, explained, strict=False):
                pairs[at, block] = value[MULTIPLIERS]

        def choose(outputs: np.ndarray, profile: Any) -> np.ndarray:
            return arguments.columns(self.target, profile.output_shape, len(outputs))

        request = AttributionRequest(
            self.rows,
            self.references,
            choose,
            self.all_pairs,
            memory=memory_budget(None, self.engine.free_memory()),
            progress=False,
            collect=collect,
        )
        self._found = run(self.engine, request)
        if isinstance(self._found.engine, TorchEngine):
            self.engine = self._found.engine

    @property
    def _explained_tensors(self) -> int:
        """How many there are, before what goes around the layer."""
        return len(self.rows.inputs) if self.engine.layer is None else len(self.engine.layer_axes)

    # ------------------------------------------------------------------ the model by itself
    def differences(self) -> np.ndarray:
        """Return the output of each pair minus the output of its reference, (rows, references)."""
        columns = self._found.columns[..., None].repeat(self.shape[1], 1)
        outputs = self.engine.outputs(self._beside, AT_ONCE).reshape(*self.shape, -1)
        return self._found.outputs - np.take_along_axis(outputs, columns, 2)[..., 0]

    @cached_property
    def _beside(self) -> Points:
        """The references of every row, which share the row's arguments, (rows * references, ...)."""
        if not self.all_pairs:
            return self.references.described_by(self.rows)
        rows = np.repeat(np.arange(self.shape[0]), self.shape[1])
        return self.references[np.tile(np.arange(self.shape[1]), self.shape[0])].described_by(self.rows[rows])

    def _sides(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the explained values of the rows and of the references of every pair, (rows * references, ...)."""
        rows = self._explained(self.rows)
        return [x.repeat_interleave(self.shape[1], 0) for x in rows], self._explained(self._beside)

    def _explained(self, points: Points) -> list[Tensor]:
        """Return the inputs, or the values of the inner layer for these, rows first."""
        if self.engine.layer is None:
            return list(points.inputs)
        parts = [self.engine.layer_values(points[i : i + AT_ONCE]) for i in range(0, len(points), AT_ONCE)]
        tensors = zip(zip(*parts, strict=True), self.axes, strict=True)
        return [torch.cat([v.movedim(axis, 0) for v in part]) for part, axis in tensors]
