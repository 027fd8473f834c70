"""Where the two sides meet: a rule is applied to the multipliers of all pairs.

Multipliers come and go as (outputs * references, *shape on the example side) where the sides are crossed, and as (outputs,
*shape) where both ran on all pairs: ``torch.vmap`` carries the first axis through everything linear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError, not_a_multiplier
from . import kernel_dispatch
from .batch_axes import (
    BatchAxis,
    RowSelection,
    from_rows,
    repeated,
    row_axis,
    row_place,
    rows_first,
    some_of,
    to_rows,
    unmerged,
)
from .operations import Operation, OperationRecord, Pairs, TraceMismatch
from .tree import replace, tensors

BLOCK_BYTES = 2**18  # of multipliers that a rule takes at a time, so that its temporaries stay in the processor's cache

Found = list[Tensor | None]
Layout = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # from both sides as they ran to how a rule sees them


def multipliers(record: OperationRecord, operation: Operation, given: Sequence[Tensor | None]) -> Found:
    """Apply a rule to multipliers of all pairs and outputs; returns those of its inputs."""
    references = record.pairs.references if record.pairs.all_pairs else 1
    rows = [None if m is None else m.view(m.shape[0] // references, references, *m.shape[1:]) for m in given]
    return [None if m is None else m.flatten(0, 1) for m in of_pairs(record, operation, rows)]


def of_pairs(record: OperationRecord, operation: Operation, given: list[Any]) -> Found:
    """As ``multipliers``, with the outputs and the references on axes of their own."""
    assert record.reference is not None
    if len(record.reference.varying) != len(record.varying):
        raise TraceMismatch(f"{len(record.varying)} tensors in {record.name} beside {len(record.reference.varying)}")
    if operation.batched_rule:
        return _pairing_itself(record, operation, given)
    apply = _broadcast if operation.broadcastable else _repeated
    try:
        return apply(record, operation, given)
    except TraceMismatch:  # which is no matter where nothing comes back, as to the mean of a batch that no row takes
        if any(bool(m.any()) for m in given):
            return _beside_scalars(record, given, partial(apply, operation=operation))
        return [given[0].new_zeros(*given[0].shape[:2], *i.shape) for i in record.inputs]


def _beside_scalars(record: OperationRecord, given: list[Any], apply: Callable[..., Found]) -> Found:
    """Apply a rule where an input is one number for all rows of a run, the mean of a batch for instance.

    Raises
    ------
    TraceMismatch
        If anything comes back to it: rows depend on their company then.
    """
    assert record.reference is not None
    scalars = [x.dim() == r.dim() == 0 for x, r in zip(record.inputs, record.reference.inputs, strict=True)]
    if not any(scalars):
        raise TraceMismatch(f"no axis of rows in {record.name}")
    axis = row_place(record.outputs[0], record.reference.outputs[0], record.pairs).axis

    def with_rows(side: OperationRecord) -> OperationRecord:
        like = side.outputs[0]
        shape = [size if k == axis else 1 for k, size in enumerate(like.shape)]
        return side.changed(inputs=tuple(v.expand(shape) if v.dim() == 0 else v for v in side.inputs))

    found = apply(with_rows(record).changed(reference=with_rows(record.reference)), given=given)
    if any(bool(m.any()) for m, scalar in zip(found, scalars, strict=True) if scalar and m is not None):
        raise TraceMismatch(f"rows depend on a number in {record.name} that is one for all of them")
    return [
        m.sum((*range(2, m.dim()),)) if scalar and m is not None else m
        for m, scalar in zip(found, scalars, strict=True)
    ]


def among(record: OperationRecord, chosen: slice) -> OperationRecord:
    """Show a step with some of the references that its examples are crossed with."""
    reference, pairs = record.reference, record.pairs
    assert reference is not None

    def part(x: Tensor, r: Tensor) -> Tensor:
        return some_of(r, row_place(x, r, pairs), chosen)

    def parts(values: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(map(part, values, others))

    given, memory = iter(tensors((record.arguments, record.keywords))), _kept(part, record.memory, reference.memory)
    if hasattr(memory, "among"):  # of a recurrent network, whose rows may be several of each reference
        inner = memory.traces[0].steps.rows // (pairs.references * pairs.outer)
        memory = memory.among(RowSelection(slice(chosen.start * inner, chosen.stop * inner), pairs.outer))
    arguments, keywords = replace(
        (reference.arguments, reference.keywords), lambda t: t if (x := next(given)).shape == t.shape else part(x, t)
    )
    inputs, outputs = parts(record.inputs, reference.inputs), parts(record.outputs, reference.outputs)
    own = {"arguments": arguments, "keywords": keywords, "inputs": inputs, "outputs": outputs, "memory": memory}
    fewer = Pairs(pairs.examples, chosen.stop - chosen.start, True, outer=pairs.outer)
    return record.changed(pairs=fewer, reference=reference.changed(**own))


def _kept(of_sides: Callable[[Tensor, Tensor], Any], memory: Any, other: Any) -> Any:
    """Make something of both sides of what a step keeps, if that is a tensor, or several; else it is the reference's."""
    if isinstance(memory, tuple):
        return tuple(map(of_sides, memory, other))
    return of_sides(memory, other) if isinstance(memory, Tensor) else other


def _listed(record: OperationRecord, result: Tensor | Sequence[Tensor | None] | None) -> Found:
    """What a rule returned, one multiplier per input."""
    found: Found = list(result) if isinstance(result, (tuple, list)) else [result]  # type: ignore[list-item]
    inputs = record.inputs
    if len(found) != len(inputs):
        raise InputError(f"the rule of {record.name} returned {len(found)} multipliers for {len(inputs)} inputs.")
    for m, given in zip(found, inputs, strict=True):
        if other := misfit(m, given):
            raise not_a_multiplier(f"the rule of {record.name}", other)
    return found


def misfit(found: Any, value: Tensor) -> str:
    """What cannot be a multiplier of a value, in words; "" for what can be one."""
    if found is None:
        return ""
    if not isinstance(found, Tensor):
        return type(found).__name__
    if found.is_nested or found.layout != torch.strided:
        return "a nested tensor" if found.is_nested else f"a tensor of layout {found.layout}"
    if found.device != value.device:
        return f"a tensor on the device {found.device}"
    return "" if found.is_floating_point() or found.is_complex() else f"a tensor of {found.dtype}"


def _sum_to_size(record: OperationRecord, m: Tensor, shape: Sequence[int]) -> Tensor:
    """Sum a rule's multiplier to the shape of its input."""
    try:
        return m.sum_to_size(*shape)
    except RuntimeError:
        raise InputError(
            f"the rule of {record.name} returned a multiplier of shape {tuple(m.shape[1:])} for an input of shape "
            f"{tuple(shape[1:])}: it must be of the input's shape."
        ) from None


def _view(record: OperationRecord, layout: Layout) -> OperationRecord:
    """Show a step to its rule with both sides in one layout: all that varies, and constants that have rows."""
    reference = record.reference
    assert reference is not None

    def laid_out(values: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], ...]:
        return tuple(zip(*map(layout, values, others), strict=True))

    inputs, outputs = laid_out(record.inputs, reference.inputs), laid_out(record.outputs, reference.outputs)
    memory: tuple[Any, ...] = record.memories
    if isinstance(memory[0], Tensor):
        memory = layout(*memory)
    elif isinstance(memory[0], tuple):
        memory = laid_out(*memory)
    arguments, keywords = _call_of(record, inputs[0], layout)
    other_side = reference.changed(inputs=inputs[1], outputs=outputs[1], memory=memory[1])
    own = {"inputs": inputs[0], "outputs": outputs[0], "memory": memory[0], "reference": other_side}
    return record.changed(arguments=arguments, keywords=keywords, pairs=Pairs(*record.pairs.grid), **own)


def _call_of(record: OperationRecord, inputs: Sequence[Tensor], constants: Layout) -> tuple[Any, Any]:
    """Arguments and keywords of a step, with other inputs and constants in a layout."""
    reference = record.reference
    assert reference is not None
    places = iter(zip(tensors((reference.arguments, reference.keywords)), record.varying, strict=True))
    given = iter(inputs)

    def operand(t: Tensor) -> Tensor:
        beside_it, varies = next(places)
        if varies:
            return next(given)
        return t if t.shape == beside_it.shape else constants(t, beside_it)[0]

    return replace(record.arguments, operand), replace(record.keywords, operand)


# ---------------------------------------------------------------------- rules that know of pairs
def _pairing_itself(record: OperationRecord, operation: Operation, given: Found) -> Found:
    """Apply a rule to multipliers, and to the sides, as they are."""
    assert operation.rule is not None
    return _listed(record, operation.rule(record, *given))


# ---------------------------------------------------------------------- rules that broadcast
class Beside(OperationRecord):
    """A step as rules that broadcast see it, among some of the references, whose values are laid out when they are asked for.

    Every value has as many axes as the output. The arguments stay as they are: they are of the example's side.

    Attributes
    ----------
    whole : the step itself.
    some : the references; None for all.
    """

    whole: OperationRecord
    some: slice | None
    width: int

    @classmethod
    def of(cls, record: OperationRecord, some: slice | None = None) -> Beside:
        """Show a step."""
        other, width = object.__new__(cls), max([o.ndim for o in record.outputs]) + 1
        other.__dict__.update(record.__dict__, whole=record, some=some, width=width)
        return other

    def _own(self, values: Sequence[Tensor]) -> tuple[Any, ...]:
        """The example's values."""
        width = self.width
        ahead = [v.unsqueeze(0) for v in values]
        return tuple([v if v.ndim >= width else _widened(v, width) for v in ahead])

    def _other(self, values: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[Any, ...]:
        """The reference's values, beside the example's as it ran."""
        found, width = [], self.width
        for x, r in zip(values, others, strict=True):
            axis, laid_out = rows_first(x, r, self.pairs)
            v = (laid_out if self.some is None else laid_out[self.some]).unsqueeze(axis)
            found.append(v if v.ndim >= width else _widened(v, width))
        return tuple(found)

    @property
    def inputs(self) -> tuple[Any, ...]:  # type: ignore[override]
        """As of any step."""
        return self._own(self.whole.inputs)

    @property
    def outputs(self) -> tuple[Any, ...]:  # type: ignore[override]
        """As of any step."""
        return self._own(self.whole.outputs)

    @property
    def reference_inputs(self) -> tuple[Any, ...]:
        """As of any step."""
        assert self.reference is not None
        return self._other(self.whole.inputs, self.reference.inputs)

    @property
    def reference_outputs(self) -> tuple[Any, ...]:
        """As of any step."""
        assert self.reference is not None
        return self._other(self.whole.outputs, self.reference.outputs)

    @property
    def memories(self) -> tuple[Any, Any]:
        """As of any step."""
        own, other = self.whole.memories
        if isinstance(own, Tensor):
            return *self._own([own]), *self._other([own], [other])
        return (self._own(own), self._other(own, other)) if isinstance(own, tuple) else (own, other)


def _widened(v: Any, width: int) -> Any:
    """With axes of size 1 behind the first one, so that there are so many."""
    return v[(slice(None), *[None] * (width - v.ndim))]


def _broadcast(record: OperationRecord, operation: Operation, given: list[Tensor]) -> Found:
    """Apply a rule to the sides as they are, a few references at a time, or by a kernel all at once."""
    if record.pairs.all_pairs and _is_merged(record):
        return _of_merged(record, operation, given)
    if (at_once := _in_one_pass(record, operation, given)) is not None:
        return at_once
    count = given[0].shape[1]
    blocks = _blocks(given, count)
    if len(blocks) == 1:
        return _of_block(Beside.of(record), operation, given)
    parts: Found = []
    for part in blocks:
        found = _of_block(Beside.of(record, part), operation, [m[:, part] for m in given])
        parts = parts or [None if m is None else m.new_empty(len(m), count, *m.shape[2:]) for m in found]
        for target, m in zip(parts, found, strict=True):
            if target is not None and m is not None:
                target[:, part] = m
    return parts


def _of_block(record: Beside, operation: Operation, given: list[Tensor]) -> Found:
    assert operation.rule is not None
    found = _listed(record.whole, operation.rule(record, *given))
    return [_summed(m, i) for m, i in zip(found, record.whole.inputs, strict=True)]


def _in_one_pass(record: OperationRecord, operation: Operation, given: list[Tensor]) -> Found | None:
    """The multipliers of a step's inputs, where a kernel makes them."""
    if len(given) != 1 or not record.pairs.all_pairs:
        return None
    assert record.reference is not None
    axis = row_axis(record.inputs[0], record.reference.inputs[0], record.pairs)
    return kernel_dispatch.multipliers(record, operation, given[0], axis)


def _blocks(given: list[Tensor], count: int) -> list[slice]:
    nbytes = sum([m.nbytes for m in given]) if given[0].is_cpu else 0
    if nbytes <= BLOCK_BYTES:
        return [slice(0, count)]
    size = max(1, BLOCK_BYTES * count // nbytes)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _summed(m: Tensor | None, like: Tensor) -> Tensor | None:
    """Sum over the axes along which an input was broadcast."""
    if m is None or m.shape[2:] == like.shape:
        return m
    missing = m.dim() - 2 - like.dim()
    return m.sum_to_size(*m.shape[:2], *[1] * missing, *like.shape).reshape(*m.shape[:2], *like.shape)


def _is_merged(record: OperationRecord) -> bool:
    """Whether rows share an axis with something else."""
    assert record.reference is not None
    return row_place(record.outputs[0], record.reference.outputs[0], record.pairs).entries > 1


def _of_merged(record: OperationRecord, operation: Operation, given: list[Tensor]) -> Found:
    """Apply a rule to sides whose rows get an axis of their own."""
    assert record.reference is not None
    pairs, values = record.pairs, [*record.inputs, *record.outputs]
    others = [*record.reference.inputs, *record.reference.outputs]
    places = [row_place(x, r, pairs) for x, r in zip(values, others, strict=True)]
    constants = [
        t for t, varies in zip(tensors((record.arguments, record.keywords)), record.varying, strict=True) if not varies
    ]
    place, widths = places[0], {v.dim() for v in values}
    if len({*places}) > 1 or (place.axis and (len(widths) > 1 or any(t.dim() > 0 for t in constants))):
        raise TraceMismatch(f"rows at {places} of what {record.name} takes and returns")
    view = _view(record, lambda x, r: unmerged(x, r, pairs))
    found = _broadcast(view.changed(pairs=pairs), operation, [place.apart(m, 2) for m in given])
    return [None if m is None else place.joined(m, 2) for m in found]


# ---------------------------------------------------------------------- rules that want the rows of pairs
def _repeated(record: OperationRecord, operation: Operation, given: list[Tensor]) -> Found:
    """Apply a rule to both sides repeated to all pairs: it sees what it would if both had run on them."""
    rule, pairs, reference = operation.rule, record.pairs, record.reference
    assert rule is not None
    assert reference is not None
    view = _view(record, lambda x, r: repeated(x, r, pairs))
    y_places = [_place(*sides, pairs) for sides in zip(record.outputs, reference.outputs, strict=True)]
    rows = [to_rows(m, place) for m, place in zip(given, y_places, strict=True)]
    each = zip(*(_listed(record, rule(view, *one)) for one in zip(*rows, strict=True)), strict=True)
    found = [None if m[0] is None else torch.stack(m) for m in each]
    x_places = [_place(*sides, pairs) for sides in zip(record.inputs, reference.inputs, strict=True)]
    whole = [
        None if m is None else _sum_to_size(record, m, (len(m), *i.shape))
        for m, i in zip(found, view.inputs, strict=True)
    ]
    return [None if m is None else from_rows(m, pairs, place) for m, place in zip(whole, x_places, strict=True)]


def _place(x: Tensor, r: Tensor, pairs: Pairs) -> BatchAxis | None:
    return row_place(x, r, pairs) if pairs.all_pairs else None
