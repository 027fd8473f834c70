"""Where rows share an axis with something else, and that each has its entries there one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..api import Points
from .operations import Misaligned, Pairs
from .rows import row_place, scattered
from .tape import Tape, equal_or_nan


@dataclass
class Merged:
    """Rows that share an axis with something else, as a run on two rows shows them.

    ``unsure`` are the places of values whose entries may lie in several orders, since they are alike; ``calls`` those of the run.
    """

    calls: list[str]
    unsure: set[int]

    @classmethod
    def find(cls, both: Points, alone: Sequence[Tape], record: Callable[[Points], Tape], eps: float) -> Merged | None:
        """Look at a run on two rows, and where entries are alike, at one on others; None where all rows have axes of their own.

        Raises
        ------
        Misaligned
            If the rows do not lie one after the other.
        """
        merged = cls._shown_by(record(both), alone, eps)
        if merged is not None and merged.unsure:
            both = replace(both, inputs=tuple(map(scattered, both.inputs)))
            other = cls._shown_by(record(both), [record(both[[row]]) for row in (0, 1)], eps)
            merged.unsure &= merged.unsure if other is None else other.unsure
        return merged

    @classmethod
    def _shown_by(cls, both: Tape, alone: Sequence[Tape], eps: float) -> Merged | None:
        """Compare a run on two rows with those of each alone.

        Raises
        ------
        Misaligned
            If the rows do not lie one after the other, each with all of its entries, or if a single row takes another way.
        """
        calls = both.names
        if any(tape.names != calls for tape in alone):
            raise Misaligned("a single row makes other calls than two")
        found = [_orders(own, (one, two), eps) for own, one, two in zip(*map(_values, (both, *alone)), strict=True)]
        several = any(entries > 1 for entries, _ in found)
        return cls(calls, {k for k, (_, orders) in enumerate(found) if orders > 1}) if several else None

    def check(self, own: Tape) -> None:
        """Of values whose order of rows is not sure, those of the references must be the same for all: any order is right then.

        Raises
        ------
        Misaligned
            If they are not, or the run is another one than that which showed the order.
        """
        assert own.reference is not None
        if own.names != self.calls:
            raise Misaligned("other calls than those of two rows")
        for place, (x, r) in enumerate(zip(_values(own), _values(own.reference), strict=True)):
            if place not in self.unsure:
                continue
            before = own.pairs.before
            axis, _ = row_place(x, r, own.pairs if before is None else Pairs(len(before), 1))
            side = (r if before is None else x).movedim(axis, 0)
            if not equal_or_nan(side, side[:1].expand_as(side)):
                raise Misaligned(f"how the rows of shape {tuple(x.shape)} lie is not known")


def _values(tape: Tape) -> list[Tensor]:
    """All that rules look at."""
    return [v for step in tape.steps for v in (*step.inputs, *step.outputs)]


def _orders(both: Tensor, alone: tuple[Tensor, Tensor], eps: float) -> tuple[int, int]:
    """How many entries each row has on the axis of the rows, and in how many orders these may lie."""
    try:
        axis, entries = row_place(both, alone[0], Pairs(2, 1))
    except Misaligned:  # for other reasons, which show when it matters
        return 1, 1
    outer = [size for size in range(1, entries + 1) if entries % size == 0]
    orders = [both.unflatten(axis, (size, 2, entries // size)).unbind(axis + 1) for size in outer]
    fits = [all(map(partial(_is_close, eps, axis), rows, alone)) for rows in orders]
    if not fits[0]:
        raise Misaligned(f"the rows of shape {tuple(both.shape)} lie in another order")
    return entries, sum(fits)


def _is_close(eps: float, axis: int, own: Tensor, alone: Tensor) -> bool:
    """Whether values are the same but for rounding, which may have grown on the way; ``own`` has the axis in two.

    Rounding is on the scale of most values: those that mask others are larger by far.
    """
    sizes = alone.abs().nan_to_num(0, 0, 0)
    common = sizes[sizes > 0].median() if bool((sizes > 0).any()) else sizes.new_zeros(())
    limits = eps**0.5 * torch.maximum(sizes, 10 * common)
    own = own.flatten(axis, axis + 1)
    return bool(((own == alone) | ((own != own) & (alone != alone)) | ((own - alone).abs() <= limits)).all())
