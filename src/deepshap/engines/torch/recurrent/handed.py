"""What a recurrent layer may know of the run that it is part of: repeated rows, and sums that are all that is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..operations import Pairs, Sums
from .begun import Begun


@dataclass
class Handed:
    """The values that the model was handed, with where their contributions go, summed over references.

    ``begun`` are runs of recurrent layers in other runs of the model on the same rows.
    """

    pairs: Pairs
    sums: list[tuple[Tensor, Sums]] = field(default_factory=list)
    begun: Begun = field(default_factory=Begun)

    def repeats(self, *values: tuple[Tensor, int]) -> int:
        """Of how many consecutive rows each is the same example, so that forward values are computed once for all.

        ``values`` are tensors, each with the axis of its rows.
        """
        repeats, rows = self.pairs.references, self.pairs.rows
        if self.pairs.crossed or repeats == 1 or any(t.shape[axis] != rows for t, axis in values):
            return 1
        with torch._C.DisableTorchFunction():
            # What was handed to the model to be summed over references was made of repeated rows.
            known = [inside for inside, _ in self.sums if not inside._version]
            unsure = [(t, axis) for t, axis in values if not any(t is inside for inside in known)]
            return repeats if all(_rows_repeat(t, axis, repeats) for t, axis in unsure) else 1

    def sums_of(self, data: Tensor, batch_first: bool, repeats: int) -> Sums | None:
        """Where contributions of an explained input go, if ``data`` is one, as it came or with rows and steps exchanged."""
        if repeats != (1 if self.pairs.crossed else self.pairs.references):
            return None
        with torch._C.DisableTorchFunction():
            return next((sums for inside, sums in self.sums if _is_untouched(inside, data, batch_first)), None)


def _rows_repeat(tensor: Tensor, axis: int, repeats: int) -> bool:
    grouped = tensor.detach().unflatten(axis, (-1, repeats))
    return torch.equal(grouped, grouped.narrow(axis + 1, 0, 1).expand_as(grouped))


def _is_untouched(inside: Tensor, data: Tensor, batch_first: bool) -> bool:
    if inside._version or inside.dim() != 3:
        return False
    if batch_first:
        return data is inside
    turned = inside.transpose(0, 1)
    same = data.shape == turned.shape and data.stride() == turned.stride()
    return same and data._base is inside and data.storage_offset() == 0
