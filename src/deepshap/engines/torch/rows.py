"""Where the rows of the two sides lie, of which each runs on its own: on an axis, or on one together with something else.

Models often join rows with steps, channels, heads or windows, ``x.reshape(rows * channels, steps)``. Each row then has several
entries on an axis, one after the other; a model that joins them in another order runs on all pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .operations import Misaligned, Pairs


def row_axis(x: Tensor, r: Tensor, pairs: Pairs) -> int:
    """Find the one axis on which crossed sides differ: it holds the rows."""
    axis, entries = row_place(x, r, pairs)
    if entries != 1:
        raise _misaligned(x, r)
    return axis


def row_place(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[int, int]:
    """The axis that holds the rows of crossed sides, and how many entries each has there, one after the other."""
    own, other, (n, b) = x.shape, r.shape, pairs.grid
    if own and other and (own[0], other[0]) == (n, b) and own[1:] == other[1:]:  # where most models have them
        return 0, 1
    differing = [axis for axis, sizes in enumerate(zip(own, other, strict=False)) if sizes[0] != sizes[1]]
    if x.dim() != r.dim() or len(differing) != 1:
        raise _misaligned(x, r)
    (axis,) = differing
    entries, rest = divmod(own[axis], n)
    if rest or entries * b != other[axis]:
        raise _misaligned(x, r)
    return axis, entries


def _misaligned(x: Tensor, r: Tensor) -> Misaligned:
    return Misaligned(f"shape {tuple(x.shape)} beside {tuple(r.shape)}")


def row_before(x: Tensor, one: Tensor, before: Tensor) -> Tensor:
    """Of every row of a run the one that it is compared with; ``one`` is the same value of a run on a single row."""
    axis, entries = row_place(x, one, Pairs(len(before), 1))
    if entries == 1:
        return x.index_select(axis, before)
    return x.unflatten(axis, (-1, entries)).index_select(axis, before).flatten(axis, axis + 1)


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
    axis, entries = row_place(x, r, pairs)
    shape = [*x.shape[:axis], *pairs.grid, entries, *x.shape[axis + 1 :]]
    sides = x.unflatten(axis, (-1, 1, entries)), r.unflatten(axis, (1, -1, entries))
    return tuple(t.expand(shape).flatten(axis, axis + 2) for t in sides)


def _alike(x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape != r.shape:
        raise _misaligned(x, r)
    return x, r


def unmerged(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """View both sides so that their rows have an axis of their own."""
    axis, entries = row_place(x, r, pairs)
    if entries == 1:
        return x, r
    return x.unflatten(axis, (-1, entries)), r.unflatten(axis, (-1, entries))


def to_rows(m: Tensor, axis: int | None, entries: int = 1) -> Tensor:
    """From (outputs, references, *shape of an example's value) to (outputs, *shape of all pairs)."""
    if axis is None:
        return m.squeeze(1)
    return m.unflatten(axis + 2, (-1, entries)).movedim(1, axis + 2).flatten(axis + 1, axis + 3)


def from_rows(m: Tensor, pairs: Pairs, axis: int | None, entries: int = 1) -> Tensor:
    """The way back."""
    if axis is None:
        return m.unsqueeze(1)
    return m.unflatten(axis + 1, (-1, pairs.references, entries)).movedim(axis + 2, 1).flatten(axis + 2, axis + 3)


def scattered(rows: Tensor) -> Tensor:
    """Rows near some others, whose entries differ: larger ones, or integers in another order."""
    if not rows.is_floating_point():
        return rows.roll(1, -1)
    noise = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0)).to(rows)
    size = rows.abs().nan_to_num(0, 0, 0).amax()
    return rows + noise * (0.1 * rows.abs() + 0.01 * torch.where(size > 0, size, torch.ones_like(size)))
