"""The batch axis of values: where the rows of the example run and of the reference run are in each value.

The two sides ran on different numbers of rows, n and b. The axis on which their shapes differ is therefore the batch axis.
It may hold more than rows, where a model folds steps or channels into it, ``x.reshape(rows * channels, steps)``. It then
has k n and k b entries, in the order (outer, rows, inner). ``BatchAxis`` says where the rows are. ``broadcast_pairs`` and
``repeat_pairs`` lay both sides out for a rule. Shapes do not determine ``outer``: ``FoldedBatch`` finds it by comparing a
run on two rows with runs on each alone. A model that folds rows in any other order runs on all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..interface import Points
from .calls import is_continuous, tensors
from .operations import OperationRecord, Pairs, TraceMismatch


class BatchAxis(NamedTuple):
    """Where the rows of a value are: on an axis, where all rows occur ``outer`` times, each time with ``inner`` entries."""

    axis: int
    outer: int = 1
    inner: int = 1

    @property
    def entries(self) -> int:
        """Return the number of entries of each row."""
        return self.outer * self.inner

    def split(self, v: Tensor, ahead: int = 0) -> Tensor:
        """View the batch axis, after ``ahead`` other axes, as three axes of which the second holds the rows."""
        return v.unflatten(ahead + self.axis, (self.outer, -1, self.inner))

    def unfold(self, v: Tensor, ahead: int = 0) -> Tensor:
        """View the batch axis like ``split``, without axes of size one."""
        return v if self.entries == 1 else v.unflatten(ahead + self.axis, self._sizes)

    def fold(self, v: Tensor, ahead: int = 0) -> Tensor:
        """Undo ``unfold``."""
        return v if self.entries == 1 else v.flatten(ahead + self.axis, ahead + self.axis + len(self._sizes) - 1)

    @property
    def _sizes(self) -> list[int]:
        return [size for size in (self.outer, -1, self.inner) if size != 1]


class RowSelection(NamedTuple):
    """Some rows of each of several parts."""

    rows: slice
    parts: int = 1


FIRST = BatchAxis(0)  # where most models have them


def row_axis(x: Tensor, r: Tensor, pairs: Pairs) -> int:
    """Return the axis of the rows, where it holds nothing else."""
    axis = batch_axis_of(x, r, pairs)
    if axis.entries != 1:
        raise _misaligned(x, r)
    return axis.axis


def batch_axis_of(x: Tensor, r: Tensor, pairs: Pairs) -> BatchAxis:
    """Return the batch axis of a value, from the shapes of sides that ran on different numbers of rows."""
    shape, reference_shape, (n, b) = x.shape, r.shape, pairs.grid
    if shape and reference_shape and (shape[0], reference_shape[0]) == (n, b) and shape[1:] == reference_shape[1:]:
        return FIRST
    differing = [axis for axis, sizes in enumerate(zip(shape, reference_shape, strict=False)) if sizes[0] != sizes[1]]
    if x.dim() != r.dim() or len(differing) != 1:
        raise _misaligned(x, r)
    (axis,) = differing
    entries, rest = divmod(shape[axis], n)
    if rest or entries * b != reference_shape[axis]:
        raise _misaligned(x, r)
    outer = pairs.outer if entries > 1 else 1
    if not outer or entries % outer:
        raise _misaligned(x, r)
    return BatchAxis(axis, outer, entries // outer)


def _misaligned(x: Tensor, r: Tensor) -> TraceMismatch:
    return TraceMismatch(f"shape {tuple(x.shape)} beside {tuple(r.shape)}")


def broadcast_pairs(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """View both sides so that they broadcast to (references, *x.shape), or (1, *x.shape) without ``all_pairs``."""
    axis, r = rows_first(x, r, pairs)
    return x.unsqueeze(0), r.unsqueeze(axis)


def rows_first(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[int, Tensor]:
    """Return the axis to insert for the reference side to broadcast, and the reference side with its rows first."""
    if not pairs.all_pairs:
        return 0, _check_equal_shapes(x, r)[1]
    axis = row_axis(x, r, pairs)
    return axis + 1, r.movedim(axis, 0) if axis else r


def repeat_pairs(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Repeat both sides to all pairs, examples outermost."""
    if not pairs.all_pairs:
        return _check_equal_shapes(x, r)
    axis, outer, inner = batch_axis = batch_axis_of(x, r, pairs)
    shape = [*x.shape[:axis], outer, *pairs.grid, inner, *x.shape[axis + 1 :]]
    sides = batch_axis.split(x).unsqueeze(axis + 2), batch_axis.split(r).unsqueeze(axis + 1)
    examples, references = (t.expand(shape).flatten(axis, axis + 3) for t in sides)
    return examples, references


def _check_equal_shapes(x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape != r.shape:
        raise _misaligned(x, r)
    return x, r


def unfold_rows(x: Tensor, r: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """View both sides with their rows on an axis of their own."""
    axis = batch_axis_of(x, r, pairs)
    return axis.unfold(x), axis.unfold(r)


def select_references(r: Tensor, batch_axis: BatchAxis, selection: slice) -> Tensor:
    """Return some rows of the reference side."""
    count = selection.stop - selection.start
    if batch_axis.entries == 1:
        return r.narrow(batch_axis.axis, selection.start, count)
    return (
        batch_axis.split(r)
        .narrow(batch_axis.axis + 1, selection.start, count)
        .flatten(batch_axis.axis, batch_axis.axis + 2)
    )


def flatten_pairs(m: Tensor, batch_axis: BatchAxis | None) -> Tensor:
    """Reshape (outputs, references, *shape of an example's value) to (outputs, *shape of all pairs)."""
    if batch_axis is None:
        return m.squeeze(1)
    return batch_axis.split(m, 2).movedim(1, batch_axis.axis + 3).flatten(batch_axis.axis + 1, batch_axis.axis + 4)


def unflatten_pairs(m: Tensor, pairs: Pairs, batch_axis: BatchAxis | None) -> Tensor:
    """Undo ``flatten_pairs``."""
    if batch_axis is None:
        return m.unsqueeze(1)
    axis, outer, inner = batch_axis
    unfolded = m.unflatten(axis + 1, (outer, -1, pairs.references, inner))
    return unfolded.movedim(axis + 3, 1).flatten(axis + 2, axis + 4)


def perturbed(rows: Tensor) -> Tensor:
    """Return rows near others with different entries: larger ones, or integers in another order."""
    if not rows.is_floating_point():
        return rows.roll(1, -1)
    noise = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0)).to(rows)
    size = rows.abs().nan_to_num(0, 0, 0).amax()
    return rows + noise * (0.1 * rows.abs() + 0.01 * torch.where(size > 0, size, torch.ones_like(size)))


class RowOrders(NamedTuple):
    """The ``outer`` of the batch axes (see ``BatchAxis``) of constants and of Python values, by their position on a tape.

    0 stands for an unknown order.
    """

    constants: Sequence[int] = ()
    values: Sequence[int] = ()


def equal_or_nan(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are equal, with NaN at the same positions."""
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


PossibleOrders = set[int] | None  # possible ``outer`` of a value; None for rows with an axis of their own


@dataclass
class FoldedBatch:
    """The order of rows that share an axis with something else, found in a run on two rows that made these ``calls``.

    Attributes
    ----------
    records : for each operation record, the possible orders of its values.
    orders : the orders of constants and of Python values.
    """

    calls: list[str]
    records: list[list[PossibleOrders]]
    orders: RowOrders

    @classmethod
    def find(
        cls, both: Points, alone: Sequence[Any], record: Callable[[Points], Any], eps: float
    ) -> FoldedBatch | None:
        """Compare a run on two rows with runs on each; return None if all rows have axes of their own.

        If entries of a row are equal, several orders are possible, and a run on perturbed rows decides.

        Raises
        ------
        TraceMismatch
            If the rows are in no known order.
        """
        folded = cls._compare(record(both), alone, eps)
        if all(orders is None for record_orders in folded.records for orders in record_orders):
            return None
        if any(orders and len(orders) > 1 for record_orders in folded.records for orders in record_orders):
            both = replace(both, inputs=tuple(map(perturbed, both.inputs)))
            second = cls._compare(record(both), [record(both[[row]]) for row in (0, 1)], eps)
            folded.records = [
                [None if a is None or b is None else a & b for a, b in zip(*values, strict=True)]
                for values in zip(folded.records, second.records, strict=True)
            ]
        for record_orders in folded.records:
            _common_order(record_orders)
        return folded

    @classmethod
    def _compare(cls, both: Any, alone: Sequence[Any], eps: float) -> FoldedBatch:
        """Compare a run on two rows with those of each alone.

        Raises
        ------
        TraceMismatch
            If the rows are in no known order, each with all of its entries, or if a single row takes another branch.
        """
        calls, single = both.names, alone[-1]  # the last tape keeps its constants
        if any(tape.names != calls for tape in alone):
            raise TraceMismatch("a single row makes other calls than two")
        runs = [both.records, *(tape.records for tape in alone)]
        records = [
            _possible_orders_of_all([*map(_values, records_of_call)], eps)
            for records_of_call in zip(*runs, strict=True)
        ]
        if any(orders is not None and not orders for record_orders in records for orders in record_orders):
            raise TraceMismatch("rows lie in no order that is known")
        constants = [
            _first_order(_possible_orders_of_all([two.tensors, row.tensors, row.tensors], eps))
            for two, row in zip(both.constants, single.constants, strict=True)
        ]
        seen = [
            _first_order(_possible_orders_of_all([tensors(two), tensors(row), tensors(row)], eps))
            for two, row in zip(both.values, single.values, strict=True)
        ]
        return cls(calls, records, RowOrders(constants, seen))

    def apply(self, tape: Any) -> None:
        """Set the order of the rows in the records of a tape.

        If several orders are possible, the references' values must be equal for all rows: any order is right then.

        Raises
        ------
        TraceMismatch
            If they are not, or if the tape has other calls than the run that showed the order.
        """
        assert tape.reference is not None
        if tape.names != self.calls:
            raise TraceMismatch("other calls than those of two rows")
        for record, possible in zip(tape.records, self.records, strict=True):
            if any(possible):
                record.pairs = record.pairs._replace(outer=_common_order(possible))
            for x, r, orders in zip(_values(record), _values(record.reference), possible, strict=True):
                if orders and len(orders) > 1:
                    _check_rows_equal(x, r, record.pairs)


def _check_rows_equal(x: Tensor, r: Tensor, pairs: Pairs) -> None:
    side = r.movedim(batch_axis_of(x, r, pairs).axis, 0)
    if not equal_or_nan(side, side[:1].expand_as(side)):
        raise TraceMismatch(f"how the rows of shape {tuple(x.shape)} lie is not known")


def _values(record: OperationRecord | None) -> tuple[Tensor, ...]:
    """Return all values that a rule uses."""
    assert record is not None
    return *record.inputs, *record.outputs


def _common_order(possible: Sequence[PossibleOrders]) -> int:
    """Return the smallest order that all values of a record may have.

    Raises
    ------
    TraceMismatch
        If they have different orders.
    """
    if not (restricted := [orders for orders in possible if orders is not None]):
        return 1
    if not (common := set.intersection(*restricted)):
        raise TraceMismatch("the rows of what a call takes and returns lie in different orders")
    return min(common)


def _first_order(possible: Sequence[PossibleOrders]) -> int:
    """Return the smallest common order; 0 if there is none."""
    restricted = [orders for orders in possible if orders is not None]
    return min(set.intersection(*restricted), default=0) if restricted else 1


def _possible_orders_of_all(runs: Sequence[Sequence[Tensor]], eps: float) -> list[PossibleOrders]:
    """Return the possible orders of values of a run on two rows, which come first, and of runs on each row alone."""
    return [_possible_orders(both, alone, eps) for both, *alone in zip(*runs, strict=True)]


def _possible_orders(both: Tensor, alone: Sequence[Tensor], eps: float) -> PossibleOrders:
    """Return the orders in which the entries of rows may be on their axis; None for single entries in their positions."""
    if both.is_nested or both.layout != torch.strided:
        return None
    try:
        batch_axis = batch_axis_of(both, alone[0], Pairs(2, 1))
    except TraceMismatch:  # for other reasons, which are reported where they matter
        return None
    candidates = [
        BatchAxis(batch_axis.axis, n, batch_axis.entries // n)
        for n in range(1, batch_axis.entries + 1)
        if batch_axis.entries % n == 0
    ]
    rows = [(p, p.split(both).unbind(p.axis + 1)) for p in candidates]
    orders = {
        p.outer for p, parts in rows if all(_is_close(eps, p.axis, *two) for two in zip(parts, alone, strict=True))
    }
    return None if orders and batch_axis.entries == 1 else orders


def _is_close(eps: float, axis: int, values: Tensor, alone: Tensor) -> bool:
    """Return whether values are equal up to rounding, which may have grown; ``values`` has the batch axis in two.

    Rounding is relative to most values, because those that mask others are much larger.
    """
    values = values.flatten(axis, axis + 1)
    if not is_continuous(values.dtype):
        return torch.equal(values, alone)
    sizes = alone.abs().nan_to_num(0, 0, 0)
    common = sizes[sizes > 0].median() if bool((sizes > 0).any()) else sizes.new_zeros(())
    limits = eps**0.5 * torch.maximum(sizes, 10 * common)
    return bool(
        ((values == alone) | ((values != values) & (alone != alone)) | ((values - alone).abs() <= limits)).all()
    )
