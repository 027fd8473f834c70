"""Where the rows of the two sides lie, of which each runs on its own: on an axis, or on one together with something else.

Models often join rows with steps, channels, heads or windows, ``x.reshape(rows * channels, steps)``. Each row then has several
entries on an axis, ``(outer, rows, inner)``: one after the other, as here, or one in each step of a model that takes these first,
``x.reshape(steps * rows, channels)``. Sizes do not tell how many are outer, a run on two rows does (``merged.py``). A model that
joins rows in any other order runs on all pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .operations import Misaligned, Pairs


class Place(NamedTuple):
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


class Chosen(NamedTuple):
    """Some rows of several parts, the same of each."""

    rows: slice
    parts: int = 1


FIRST = Place(0)  # where most models have them


def row_axis(x: Tensor, r: Tensor, pairs: Pairs) -> int:
    """Find the one axis on which crossed sides differ: it holds the rows."""
    place = row_place(x, r, pairs)
    if place.entries != 1:
        raise _misaligned(x, r)
    return place.axis


def row_place(x: Tensor, r: Tensor, pairs: Pairs) -> Place:
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
    return Place(axis, outer, entries // outer)


def _misaligned(x: Tensor, r: Tensor) -> Misaligned:
    return Misaligned(f"shape {tuple(x.shape)} beside {tuple(r.shape)}")


def beside(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """View both sides so that they broadcast to (references, *x.shape), or (1, *x.shape) where they are not crossed."""
    axis, r = rows_first(x, r, pairs)
    return x.unsqueeze(0), r.unsqueeze(axis)


def rows_first(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[int, Tensor]:
    """The reference side with its rows on the first axis, and the axis to be put in for it to broadcast."""
    if not pairs.crossed:
        return 0, _alike(x, r)[1]
    axis = row_axis(x, r, pairs)
    return axis + 1, r.movedim(axis, 0) if axis else r


def repeated(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Repeat both sides to all pairs, examples outermost."""
    if not pairs.crossed:
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


def some_of(r: Tensor, place: Place, chosen: slice) -> Tensor:
    """Some rows of the reference side."""
    count = chosen.stop - chosen.start
    if place.entries == 1:
        return r.narrow(place.axis, chosen.start, count)
    return place.spread(r).narrow(place.axis + 1, chosen.start, count).flatten(place.axis, place.axis + 2)


def to_rows(m: Tensor, place: Place | None) -> Tensor:
    """From (outputs, references, *shape of an example's value) to (outputs, *shape of all pairs)."""
    if place is None:
        return m.squeeze(1)
    return place.spread(m, 2).movedim(1, place.axis + 3).flatten(place.axis + 1, place.axis + 4)


def from_rows(m: Tensor, pairs: Pairs, place: Place | None) -> Tensor:
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
