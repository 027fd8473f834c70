"""Where rows share an axis with something else, and in which order their entries lie there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..api import Points
from .nodes import is_continuous
from .operations import Misaligned, Pairs, Step
from .rows import Place, row_place, scattered
from .tape import Orders, Tape, equal_or_nan
from .tree import tensors

Fits = set[int] | None  # of a value, how often all rows may come on their axis; None where they have it for themselves


@dataclass
class Merged:
    """Rows that share an axis with something else, as a run on two rows shows them: with the ``calls`` of that run.

    Attributes
    ----------
    steps : of the values of each step, how often all rows may come.
    orders : the same of constants, and of values that Python has seen.
    """

    calls: list[str]
    steps: list[list[Fits]]
    orders: Orders

    @classmethod
    def find(cls, both: Points, alone: Sequence[Tape], record: Callable[[Points], Tape], eps: float) -> Merged | None:
        """Look at a run on two rows, and where entries are alike, at one on others; None where all rows have axes of their own.

        Raises
        ------
        Misaligned
            If the rows lie in no order that is known.
        """
        merged = cls._shown_by(record(both), alone, eps)
        if all(fits is None for step in merged.steps for fits in step):
            return None
        if any(fits and len(fits) > 1 for step in merged.steps for fits in step):
            both = replace(both, inputs=tuple(map(scattered, both.inputs)))
            other = cls._shown_by(record(both), [record(both[[row]]) for row in (0, 1)], eps)
            merged.steps = [
                [None if own is None or new is None else own & new for own, new in zip(*values, strict=True)]
                for values in zip(merged.steps, other.steps, strict=True)
            ]
        for step in merged.steps:
            _common(step)
        return merged

    @classmethod
    def _shown_by(cls, both: Tape, alone: Sequence[Tape], eps: float) -> Merged:
        """Compare a run on two rows with those of each alone.

        Raises
        ------
        Misaligned
            If the rows lie in no order that is known, each with all of its entries, or if a single row takes another way.
        """
        calls, one = both.names, alone[-1]  # which keeps its constants, as the other one may not: they are the same
        if any(tape.names != calls for tape in alone):
            raise Misaligned("a single row makes other calls than two")
        runs = [both.steps, *(tape.steps for tape in alone)]
        steps = [_fits([*map(_values, each)], eps) for each in zip(*runs, strict=True)]
        if any(fits is not None and not fits for step in steps for fits in step):
            raise Misaligned("rows lie in no order that is known")
        constants = [
            _first(_fits([own.tensors, single.tensors, single.tensors], eps))
            for own, single in zip(both.constants, one.constants, strict=True)
        ]
        seen = [
            _first(_fits([tensors(own), tensors(single), tensors(single)], eps))
            for own, single in zip(both.values, one.values, strict=True)
        ]
        return cls(calls, steps, Orders(constants, seen))

    def show(self, own: Tape) -> None:
        """Tell the steps of a run in which order their rows lie.

        Where that is not sure, the values of the references must be the same for all: any order is right then.

        Raises
        ------
        Misaligned
            If they are not, or the run is another one than that which showed the order.
        """
        assert own.reference is not None
        if own.names != self.calls:
            raise Misaligned("other calls than those of two rows")
        for step, found in zip(own.steps, self.steps, strict=True):
            if any(found):
                step.pairs = step.pairs._replace(outer=_common(found))
            for x, r, fits in zip(_values(step), _values(step.reference), found, strict=True):
                if fits and len(fits) > 1:
                    _check_alike(x, r, step.pairs)


def _check_alike(x: Tensor, r: Tensor, pairs: Pairs) -> None:
    side = r.movedim(row_place(x, r, pairs).axis, 0)
    if not equal_or_nan(side, side[:1].expand_as(side)):
        raise Misaligned(f"how the rows of shape {tuple(x.shape)} lie is not known")


def _values(step: Step | None) -> tuple[Tensor, ...]:
    """All that a rule looks at."""
    assert step is not None
    return *step.inputs, *step.outputs


def _common(found: Sequence[Fits]) -> int:
    """How often all rows come in all values of a step.

    Raises
    ------
    Misaligned
        If they lie in different orders.
    """
    if not (known := [fits for fits in found if fits is not None]):
        return 1
    if not (common := set.intersection(*known)):
        raise Misaligned("the rows of what a call takes and returns lie in different orders")
    return min(common)


def _first(found: Sequence[Fits]) -> int:
    """As ``_common``; 0 where that is not known."""
    known = [fits for fits in found if fits is not None]
    return min(set.intersection(*known), default=0) if known else 1


def _fits(runs: Sequence[Sequence[Tensor]], eps: float) -> list[Fits]:
    """Of values of a run on two rows, which come first, beside those of each row alone."""
    return [_orders(both, alone, eps) for both, *alone in zip(*runs, strict=True)]


def _orders(both: Tensor, alone: Sequence[Tensor], eps: float) -> Fits:
    """In which orders the entries of rows may lie on their axis; single ones have none, if they are in their places."""
    if both.is_nested or both.layout != torch.strided:
        return None
    try:
        place = row_place(both, alone[0], Pairs(2, 1))
    except Misaligned:  # for other reasons, which show when it matters
        return None
    places = [Place(place.axis, n, place.entries // n) for n in range(1, place.entries + 1) if place.entries % n == 0]
    rows = [(p, p.spread(both).unbind(p.axis + 1)) for p in places]
    fits = {p.outer for p, each in rows if all(_is_close(eps, p.axis, *two) for two in zip(each, alone, strict=True))}
    return None if fits and place.entries == 1 else fits


def _is_close(eps: float, axis: int, own: Tensor, alone: Tensor) -> bool:
    """Whether values are the same but for rounding, which may have grown on the way; ``own`` has the axis in two.

    Rounding is on the scale of most values: those that mask others are larger by far.
    """
    own = own.flatten(axis, axis + 1)
    if not is_continuous(own.dtype):
        return torch.equal(own, alone)
    sizes = alone.abs().nan_to_num(0, 0, 0)
    common = sizes[sizes > 0].median() if bool((sizes > 0).any()) else sizes.new_zeros(())
    limits = eps**0.5 * torch.maximum(sizes, 10 * common)
    return bool(((own == alone) | ((own != own) & (alone != alone)) | ((own - alone).abs() <= limits)).all())
