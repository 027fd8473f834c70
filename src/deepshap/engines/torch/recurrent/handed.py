"""What a recurrent layer may know of the run that it is part of: repeated rows, and sums that are all that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .._compat import base_of, interception_off, is_view, version_of
from ..operations import Pairs, Sums
from .begun import Begun


@dataclass(frozen=True)
class Alike:
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
class Handed:
    """The values that the model was handed, with where their contributions go, summed over references.

    ``begun`` are runs of recurrent layers in other runs of the model on the same rows. ``again``: the rows are all references,
    again and again for each example. ``together``: by their weights, the steps of cells of this run.
    """

    pairs: Pairs
    again: bool = False
    sums: list[tuple[Tensor, Sums]] = field(default_factory=list)
    begun: Begun = field(default_factory=Begun)
    together: dict[Any, Any] = field(default_factory=dict)

    def finish(self) -> None:
        """Make what steps have left for later, while the model still has the weights of this run."""
        for steps in self.together.values():
            steps.make()

    @classmethod
    def of_references(cls, rows: int, each: int | None, begun: Begun | None) -> Handed:
        """Of a run on so many references, ``each`` of which come again and again if that is given."""
        again = each is not None and each < rows
        return cls(Pairs(rows // each, each) if each and again else Pairs(rows, 1), again, begun=begun or Begun())

    def alike(self, *values: tuple[Tensor, int], sizes: Sequence[int] | None = None) -> Alike:
        """Which rows are the same example or reference, so that forward values are computed once for all.

        ``values`` are tensors, each with the axis of its rows; of packed sequences, with ``sizes``, the first one is flat.
        """
        references, rows = self.pairs.references, self.pairs.rows
        if self.pairs.crossed or references == 1:
            return Alike()
        ends = list(sizes or ())
        whole = all(t.shape[axis] == rows for t, axis in values[1 if ends else 0 :]) and ends[:1] in ([], [rows])
        if not whole or any(size % references for size in ends):
            return Alike()
        with interception_off():
            pieces = [*((step, 0) for step in values[0][0].split(ends)), *values[1:]] if ends else values
            # What was handed to the model to be summed over references was made of repeated rows.
            known = [inside for inside, _ in self.sums if not version_of(inside)]
            unsure = [(t, axis) for t, axis in pieces if not any(t is inside for inside in known)]
            if all(
                _are_alike(t.detach().unflatten(axis, (-1, references)), axis + (not self.again)) for t, axis in unsure
            ):
                return Alike(every=references) if self.again else Alike(references)
            return Alike()

    def sums_of(self, data: Tensor, batch_first: bool, repeats: int) -> Sums | None:
        """Where contributions of an explained input go, if ``data`` is one, as it came or with rows and steps exchanged."""
        if repeats != (1 if self.pairs.crossed else self.pairs.references):
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
