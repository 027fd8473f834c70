"""Which rows belong together: where the rows lie in a value of the example's run and of the reference's.

The two sides ran on different numbers of rows, n and b. So the axis on which their shapes differ is the axis of the rows. It may
hold more than rows, where a model joined rows with steps or channels, ``x.reshape(rows * channels, steps)``: then it has k n and
k b entries, laid out as (outer, rows, inner). ``BatchAxis`` says where the rows are; ``beside`` and ``repeated`` lay both
sides out for a rule. Sizes do not tell ``outer``: ``FoldedBatch`` finds it by comparing a run on two rows with runs of each
alone. A model that joins rows in any other order runs on all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..interface import Points
from .operations import OperationRecord, Pairs, TraceMismatch
from .tree import is_continuous, tensors


class BatchAxis(NamedTuple):
    """Where the rows of a value lie: an axis, where all come ``outer`` times, each time with ``inner`` entries of each."""

    axis: int
    outer: int = 1
    inner: int = 1

    @property
    def entries(self) -> int:
        """Of each row."""
        return self.outer * self.inner

    def spread(self, v: Tensor, ahead: int = 0) -> Tensor:
        """View a value with its axis, behind so many others, as three of which the second holds the rows."""
        return v.unflatten(ahead + self.axis, (self.outer, -1, self.inner))

    def apart(self, v: Tensor, ahead: int = 0) -> Tensor:
        """As ``spread``, without axes of a single entry."""
        return v if self.entries == 1 else v.unflatten(ahead + self.axis, self._sizes)

    def joined(self, v: Tensor, ahead: int = 0) -> Tensor:
        """The way back from ``apart``."""
        return v if self.entries == 1 else v.flatten(ahead + self.axis, ahead + self.axis + len(self._sizes) - 1)

    @property
    def _sizes(self) -> list[int]:
        return [size for size in (self.outer, -1, self.inner) if size != 1]


class RowSelection(NamedTuple):
    """Some rows of several parts, the same of each."""

    rows: slice
    parts: int = 1


FIRST = BatchAxis(0)  # where most models have them


def row_axis(x: Tensor, r: Tensor, pairs: Pairs) -> int:
    """Find the one axis on which crossed sides differ: it holds the rows."""
    place = row_place(x, r, pairs)
    if place.entries != 1:
        raise _misaligned(x, r)
    return place.axis


def row_place(x: Tensor, r: Tensor, pairs: Pairs) -> BatchAxis:
    """Where the rows lie of sides that ran apart."""
    own, other, (n, b) = x.shape, r.shape, pairs.grid
    if own and other and (own[0], other[0]) == (n, b) and own[1:] == other[1:]:
        return FIRST
    differing = [axis for axis, sizes in enumerate(zip(own, other, strict=False)) if sizes[0] != sizes[1]]
    if x.dim() != r.dim() or len(differing) != 1:
        raise _misaligned(x, r)
    (axis,) = differing
    entries, rest = divmod(own[axis], n)
    if rest or entries * b != other[axis]:
        raise _misaligned(x, r)
    outer = pairs.outer if entries > 1 else 1
    if not outer or entries % outer:
        raise _misaligned(x, r)
    return BatchAxis(axis, outer, entries // outer)


def _misaligned(x: Tensor, r: Tensor) -> TraceMismatch:
    return TraceMismatch(f"shape {tuple(x.shape)} beside {tuple(r.shape)}")


def beside(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """View both sides so that they broadcast to (references, *x.shape), or (1, *x.shape) where they are not crossed."""
    axis, r = rows_first(x, r, pairs)
    return x.unsqueeze(0), r.unsqueeze(axis)


def rows_first(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[int, Tensor]:
    """The reference side with its rows on the first axis, and the axis to be put in for it to broadcast."""
    if not pairs.all_pairs:
        return 0, _alike(x, r)[1]
    axis = row_axis(x, r, pairs)
    return axis + 1, r.movedim(axis, 0) if axis else r


def repeated(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Repeat both sides to all pairs, examples outermost."""
    if not pairs.all_pairs:
        return _alike(x, r)
    axis, outer, inner = place = row_place(x, r, pairs)
    shape = [*x.shape[:axis], outer, *pairs.grid, inner, *x.shape[axis + 1 :]]
    sides = place.spread(x).unsqueeze(axis + 2), place.spread(r).unsqueeze(axis + 1)
    own, other = (t.expand(shape).flatten(axis, axis + 3) for t in sides)
    return own, other


def _alike(x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape != r.shape:
        raise _misaligned(x, r)
    return x, r


def unmerged(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """View both sides so that their rows have an axis of their own."""
    place = row_place(x, r, pairs)
    return place.apart(x), place.apart(r)


def some_of(r: Tensor, place: BatchAxis, chosen: slice) -> Tensor:
    """Some rows of the reference side."""
    count = chosen.stop - chosen.start
    if place.entries == 1:
        return r.narrow(place.axis, chosen.start, count)
    return place.spread(r).narrow(place.axis + 1, chosen.start, count).flatten(place.axis, place.axis + 2)


def to_rows(m: Tensor, place: BatchAxis | None) -> Tensor:
    """From (outputs, references, *shape of an example's value) to (outputs, *shape of all pairs)."""
    if place is None:
        return m.squeeze(1)
    return place.spread(m, 2).movedim(1, place.axis + 3).flatten(place.axis + 1, place.axis + 4)


def from_rows(m: Tensor, pairs: Pairs, place: BatchAxis | None) -> Tensor:
    """The way back."""
    if place is None:
        return m.unsqueeze(1)
    axis, outer, inner = place
    spread = m.unflatten(axis + 1, (outer, -1, pairs.references, inner))
    return spread.movedim(axis + 3, 1).flatten(axis + 2, axis + 4)


def scattered(rows: Tensor) -> Tensor:
    """Rows near some others, whose entries differ: larger ones, or integers in another order."""
    if not rows.is_floating_point():
        return rows.roll(1, -1)
    noise = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0)).to(rows)
    size = rows.abs().nan_to_num(0, 0, 0).amax()
    return rows + noise * (0.1 * rows.abs() + 0.01 * torch.where(size > 0, size, torch.ones_like(size)))


class Orders(NamedTuple):
    """How often all rows come on the axis that they share with something else, see ``BatchAxis``; 0 where that is not known.

    In ``constants`` and in ``values`` that Python has seen, by their places in a tape.
    """

    constants: Sequence[int] = ()
    values: Sequence[int] = ()


def equal_or_nan(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same, or no numbers in the same places."""
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


Fits = set[int] | None  # of a value, how often all rows may come on their axis; None where they have it for themselves


@dataclass
class FoldedBatch:
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
    def find(
        cls, both: Points, alone: Sequence[Any], record: Callable[[Points], Any], eps: float
    ) -> FoldedBatch | None:
        """Look at a run on two rows, and where entries are alike, at one on others; None where all rows have axes of their own.

        Raises
        ------
        TraceMismatch
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
    def _shown_by(cls, both: Any, alone: Sequence[Any], eps: float) -> FoldedBatch:
        """Compare a run on two rows with those of each alone.

        Raises
        ------
        TraceMismatch
            If the rows lie in no order that is known, each with all of its entries, or if a single row takes another way.
        """
        calls, one = both.names, alone[-1]  # which keeps its constants, as the other one may not: they are the same
        if any(tape.names != calls for tape in alone):
            raise TraceMismatch("a single row makes other calls than two")
        runs = [both.steps, *(tape.steps for tape in alone)]
        steps = [_fits([*map(_values, each)], eps) for each in zip(*runs, strict=True)]
        if any(fits is not None and not fits for step in steps for fits in step):
            raise TraceMismatch("rows lie in no order that is known")
        constants = [
            _first(_fits([own.tensors, single.tensors, single.tensors], eps))
            for own, single in zip(both.constants, one.constants, strict=True)
        ]
        seen = [
            _first(_fits([tensors(own), tensors(single), tensors(single)], eps))
            for own, single in zip(both.values, one.values, strict=True)
        ]
        return cls(calls, steps, Orders(constants, seen))

    def show(self, own: Any) -> None:
        """Tell the steps of a run in which order their rows lie.

        Where that is not sure, the values of the references must be the same for all: any order is right then.

        Raises
        ------
        TraceMismatch
            If they are not, or the run is another one than that which showed the order.
        """
        assert own.reference is not None
        if own.names != self.calls:
            raise TraceMismatch("other calls than those of two rows")
        for step, found in zip(own.steps, self.steps, strict=True):
            if any(found):
                step.pairs = step.pairs._replace(outer=_common(found))
            for x, r, fits in zip(_values(step), _values(step.reference), found, strict=True):
                if fits and len(fits) > 1:
                    _check_alike(x, r, step.pairs)


def _check_alike(x: Tensor, r: Tensor, pairs: Pairs) -> None:
    side = r.movedim(row_place(x, r, pairs).axis, 0)
    if not equal_or_nan(side, side[:1].expand_as(side)):
        raise TraceMismatch(f"how the rows of shape {tuple(x.shape)} lie is not known")


def _values(record: OperationRecord | None) -> tuple[Tensor, ...]:
    """All that a rule looks at."""
    assert record is not None
    return *record.inputs, *record.outputs


def _common(found: Sequence[Fits]) -> int:
    """How often all rows come in all values of a step.

    Raises
    ------
    TraceMismatch
        If they lie in different orders.
    """
    if not (known := [fits for fits in found if fits is not None]):
        return 1
    if not (common := set.intersection(*known)):
        raise TraceMismatch("the rows of what a call takes and returns lie in different orders")
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
    except TraceMismatch:  # for other reasons, which show when it matters
        return None
    places = [
        BatchAxis(place.axis, n, place.entries // n) for n in range(1, place.entries + 1) if place.entries % n == 0
    ]
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
