"""Where the two sides meet: a rule is applied to the multipliers of all pairs.

Multipliers have the shape (outputs * references, *shape on the example side) if each side ran on its own rows
(``all_pairs``), and (outputs, *shape) if both ran on all pairs. ``torch.vmap`` carries the first axis through everything
linear. A rule sees the two sides in one of three layouts, in order of preference: as they are (``batched_rule``),
broadcast to one another (``BroadcastView``), or repeated to all pairs.
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
    batch_axis_of,
    flatten_pairs,
    repeat_pairs,
    row_axis,
    rows_first,
    select_references,
    unflatten_pairs,
    unfold_rows,
)
from .calls import replace, tensors
from .operations import Operation, OperationRecord, Pairs, TraceMismatch

BLOCK_BYTES = 2**18  # multipliers per call of a rule, so that its temporaries stay in the processor's cache

Multipliers = list[Tensor | None]
Layout = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # from both sides as they ran to what a rule sees


def multipliers(record: OperationRecord, operation: Operation, m_outputs: Sequence[Tensor | None]) -> Multipliers:
    """Apply a rule to multipliers of all pairs and outputs; return those of its inputs."""
    references = record.pairs.references if record.pairs.all_pairs else 1
    rows = [None if m is None else m.view(m.shape[0] // references, references, *m.shape[1:]) for m in m_outputs]
    return [None if m is None else m.flatten(0, 1) for m in of_pairs(record, operation, rows)]


def of_pairs(record: OperationRecord, operation: Operation, m_outputs: list[Any]) -> Multipliers:
    """Apply a rule to multipliers with outputs and references on axes of their own."""
    assert record.reference is not None
    if len(record.reference.varying) != len(record.varying):
        raise TraceMismatch(f"{len(record.varying)} tensors in {record.name} beside {len(record.reference.varying)}")
    if operation.batched_rule:
        assert operation.rule is not None
        return _as_list(record, operation.rule(record, *m_outputs))
    apply = _apply_broadcast if operation.broadcastable else _apply_repeated
    try:
        return apply(record, operation, m_outputs)
    except TraceMismatch:  # no matter if all multipliers are 0, as for an unused mean of a batch
        if any(bool(m.any()) for m in m_outputs):
            return _with_scalars(record, m_outputs, partial(apply, operation=operation))
        return [m_outputs[0].new_zeros(*m_outputs[0].shape[:2], *i.shape) for i in record.inputs]


def _with_scalars(record: OperationRecord, m_outputs: list[Any], apply: Callable[..., Multipliers]) -> Multipliers:
    """Apply a rule to an operation with an input that is one number for all rows of a run, such as the mean of a batch.

    Raises
    ------
    TraceMismatch
        If this input gets a nonzero multiplier: then the output of a row depends on other rows.
    """
    assert record.reference is not None
    scalars = [x.dim() == r.dim() == 0 for x, r in zip(record.inputs, record.reference.inputs, strict=True)]
    if not any(scalars):
        raise TraceMismatch(f"no axis of rows in {record.name}")
    axis = batch_axis_of(record.outputs[0], record.reference.outputs[0], record.pairs).axis

    def with_rows(side: OperationRecord) -> OperationRecord:
        like = side.outputs[0]
        shape = [size if k == axis else 1 for k, size in enumerate(like.shape)]
        return side.with_changes(inputs=tuple(v.expand(shape) if v.dim() == 0 else v for v in side.inputs))

    m_inputs = apply(with_rows(record).with_changes(reference=with_rows(record.reference)), m_outputs=m_outputs)
    if any(bool(m.any()) for m, scalar in zip(m_inputs, scalars, strict=True) if scalar and m is not None):
        raise TraceMismatch(f"rows depend on a number in {record.name} that is one for all of them")
    return [
        m.sum((*range(2, m.dim()),)) if scalar and m is not None else m
        for m, scalar in zip(m_inputs, scalars, strict=True)
    ]


def with_references(record: OperationRecord, selection: slice) -> OperationRecord:
    """Return a record restricted to some of the references."""
    reference, pairs = record.reference, record.pairs
    assert reference is not None

    def select(x: Tensor, r: Tensor) -> Tensor:
        return select_references(r, batch_axis_of(x, r, pairs), selection)

    def select_all(values: Sequence[Tensor], references: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(map(select, values, references))

    operands, memory = (
        iter(tensors((record.arguments, record.keywords))),
        _select_memory(select, record.memory, reference.memory),
    )
    if hasattr(memory, "among"):  # of a recurrent network, where each reference may have several rows
        inner = memory.traces[0].steps.rows // (pairs.references * pairs.outer)
        memory = memory.among(RowSelection(slice(selection.start * inner, selection.stop * inner), pairs.outer))
    arguments, keywords = replace(
        (reference.arguments, reference.keywords),
        lambda t: t if (x := next(operands)).shape == t.shape else select(x, t),
    )
    inputs, outputs = select_all(record.inputs, reference.inputs), select_all(record.outputs, reference.outputs)
    attributes = {"arguments": arguments, "keywords": keywords, "inputs": inputs, "outputs": outputs, "memory": memory}
    fewer = Pairs(pairs.examples, selection.stop - selection.start, True, outer=pairs.outer)
    return record.with_changes(pairs=fewer, reference=reference.with_changes(**attributes))


def _select_memory(function: Callable[[Tensor, Tensor], Any], memory: Any, reference_memory: Any) -> Any:
    """Apply a function to both sides of a record's memory, if it holds tensors; otherwise return the reference's memory."""
    if isinstance(memory, tuple):
        return tuple(map(function, memory, reference_memory))
    return function(memory, reference_memory) if isinstance(memory, Tensor) else reference_memory


def _as_list(record: OperationRecord, result: Tensor | Sequence[Tensor | None] | None) -> Multipliers:
    """Return the result of a rule as one multiplier per input."""
    m_inputs: Multipliers = list(result) if isinstance(result, (tuple, list)) else [result]  # type: ignore[list-item]
    inputs = record.inputs
    if len(m_inputs) != len(inputs):
        raise InputError(f"the rule of {record.name} returned {len(m_inputs)} multipliers for {len(inputs)} inputs.")
    for m, value in zip(m_inputs, inputs, strict=True):
        if problem := mismatch(m, value):
            raise not_a_multiplier(f"the rule of {record.name}", problem)
    return m_inputs


def mismatch(result: Any, value: Tensor) -> str:
    """Return what is wrong with a multiplier of a value, or ""."""
    if result is None:
        return ""
    if not isinstance(result, Tensor):
        return type(result).__name__
    if result.is_nested or result.layout != torch.strided:
        return "a nested tensor" if result.is_nested else f"a tensor of layout {result.layout}"
    if result.device != value.device:
        return f"a tensor on the device {result.device}"
    return "" if result.is_floating_point() or result.is_complex() else f"a tensor of {result.dtype}"


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
    """Show a record to its rule with both sides in one layout: all active values, and constants that have rows."""
    reference = record.reference
    assert reference is not None

    def lay_out(values: Sequence[Tensor], references: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], ...]:
        return tuple(zip(*map(layout, values, references), strict=True))

    inputs, outputs = lay_out(record.inputs, reference.inputs), lay_out(record.outputs, reference.outputs)
    memory: tuple[Any, ...] = record.memories
    if isinstance(memory[0], Tensor):
        memory = layout(*memory)
    elif isinstance(memory[0], tuple):
        memory = lay_out(*memory)
    arguments, keywords = _call_of(record, inputs[0], layout)
    reference_side = reference.with_changes(inputs=inputs[1], outputs=outputs[1], memory=memory[1])
    attributes = {"inputs": inputs[0], "outputs": outputs[0], "memory": memory[0], "reference": reference_side}
    return record.with_changes(arguments=arguments, keywords=keywords, pairs=Pairs(*record.pairs.grid), **attributes)


def _call_of(record: OperationRecord, inputs: Sequence[Tensor], constants: Layout) -> tuple[Any, Any]:
    """Return arguments and keywords of a record, with other inputs and laid out constants."""
    reference = record.reference
    assert reference is not None
    operands = iter(zip(tensors((reference.arguments, reference.keywords)), record.varying, strict=True))
    new_inputs = iter(inputs)

    def operand(t: Tensor) -> Tensor:
        reference_value, varies = next(operands)
        if varies:
            return next(new_inputs)
        return t if t.shape == reference_value.shape else constants(t, reference_value)[0]

    return replace(record.arguments, operand), replace(record.keywords, operand)


# ---------------------------------------------------------------------- rules that broadcast
class BroadcastView(OperationRecord):
    """A record as broadcastable rules see it: both sides broadcast to each other, computed on demand.

    Every value has as many axes as the output, after one of references. The arguments are those of the example side.

    Attributes
    ----------
    record : the record itself.
    selection : the references in view; None for all.
    """

    record: OperationRecord
    selection: slice | None
    width: int

    @classmethod
    def of(cls, record: OperationRecord, selection: slice | None = None) -> BroadcastView:
        """Return the view of a record."""
        view, width = object.__new__(cls), max([o.ndim for o in record.outputs]) + 1
        view.__dict__.update(record.__dict__, record=record, selection=selection, width=width)
        return view

    def _examples(self, values: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return the example's values."""
        width = self.width
        expanded = [v.unsqueeze(0) for v in values]
        return tuple([v if v.ndim >= width else _widen(v, width) for v in expanded])

    def _references(self, values: Sequence[Tensor], references: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return the reference's values, beside the example's as it ran."""
        views, width = [], self.width
        for x, r in zip(values, references, strict=True):
            axis, laid_out = rows_first(x, r, self.pairs)
            v = (laid_out if self.selection is None else laid_out[self.selection]).unsqueeze(axis)
            views.append(v if v.ndim >= width else _widen(v, width))
        return tuple(views)

    @property
    def inputs(self) -> tuple[Any, ...]:  # type: ignore[override]
        """Return the inputs on the example side."""
        return self._examples(self.record.inputs)

    @property
    def outputs(self) -> tuple[Any, ...]:  # type: ignore[override]
        """Return the outputs on the example side."""
        return self._examples(self.record.outputs)

    @property
    def reference_inputs(self) -> tuple[Any, ...]:
        """Return the inputs on the reference side."""
        assert self.reference is not None
        return self._references(self.record.inputs, self.reference.inputs)

    @property
    def reference_outputs(self) -> tuple[Any, ...]:
        """Return the outputs on the reference side."""
        assert self.reference is not None
        return self._references(self.record.outputs, self.reference.outputs)

    @property
    def memories(self) -> tuple[Any, Any]:
        """Return the memory of both sides."""
        memory, reference_memory = self.record.memories
        if isinstance(memory, Tensor):
            return *self._examples([memory]), *self._references([memory], [reference_memory])
        return (
            (self._examples(memory), self._references(memory, reference_memory))
            if isinstance(memory, tuple)
            else (memory, reference_memory)
        )


def _widen(v: Any, width: int) -> Any:
    """Insert axes of size 1 after the first one, up to this number of axes."""
    return v[(slice(None), *[None] * (width - v.ndim))]


def _apply_broadcast(record: OperationRecord, operation: Operation, m_outputs: list[Tensor]) -> Multipliers:
    """Apply a rule to the sides as they are, a few references at a time, or by a kernel for all at once."""
    if record.pairs.all_pairs and _is_folded(record):
        return _apply_unfolded(record, operation, m_outputs)
    if (m_kernel := _apply_kernel(record, operation, m_outputs)) is not None:
        return m_kernel
    count = m_outputs[0].shape[1]
    blocks = _blocks(m_outputs, count)
    if len(blocks) == 1:
        return _apply_block(BroadcastView.of(record), operation, m_outputs)
    results: Multipliers = []
    for selection in blocks:
        m_inputs = _apply_block(BroadcastView.of(record, selection), operation, [m[:, selection] for m in m_outputs])
        results = results or [None if m is None else m.new_empty(len(m), count, *m.shape[2:]) for m in m_inputs]
        for target, m in zip(results, m_inputs, strict=True):
            if target is not None and m is not None:
                target[:, selection] = m
    return results


def _apply_block(record: BroadcastView, operation: Operation, m_outputs: list[Tensor]) -> Multipliers:
    assert operation.rule is not None
    m_inputs = _as_list(record.record, operation.rule(record, *m_outputs))
    return [_sum_broadcast_axes(m, i) for m, i in zip(m_inputs, record.record.inputs, strict=True)]


def _apply_kernel(record: OperationRecord, operation: Operation, m_outputs: list[Tensor]) -> Multipliers | None:
    """Return the multipliers of the inputs, if a kernel computes them."""
    if len(m_outputs) != 1 or not record.pairs.all_pairs:
        return None
    assert record.reference is not None
    axis = row_axis(record.inputs[0], record.reference.inputs[0], record.pairs)
    return kernel_dispatch.multipliers(record, operation, m_outputs[0], axis)


def _blocks(m_outputs: list[Tensor], count: int) -> list[slice]:
    nbytes = sum([m.nbytes for m in m_outputs]) if m_outputs[0].is_cpu else 0
    if nbytes <= BLOCK_BYTES:
        return [slice(0, count)]
    size = max(1, BLOCK_BYTES * count // nbytes)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _sum_broadcast_axes(m: Tensor | None, like: Tensor) -> Tensor | None:
    """Sum over the axes along which an input was broadcast."""
    if m is None or m.shape[2:] == like.shape:
        return m
    missing = m.dim() - 2 - like.dim()
    return m.sum_to_size(*m.shape[:2], *[1] * missing, *like.shape).reshape(*m.shape[:2], *like.shape)


def _is_folded(record: OperationRecord) -> bool:
    """Return whether rows share an axis with something else."""
    assert record.reference is not None
    return batch_axis_of(record.outputs[0], record.reference.outputs[0], record.pairs).entries > 1


def _apply_unfolded(record: OperationRecord, operation: Operation, m_outputs: list[Tensor]) -> Multipliers:
    """Apply a rule to sides whose rows get an axis of their own."""
    assert record.reference is not None
    pairs, values = record.pairs, [*record.inputs, *record.outputs]
    references = [*record.reference.inputs, *record.reference.outputs]
    axes = [batch_axis_of(x, r, pairs) for x, r in zip(values, references, strict=True)]
    constants = [
        t for t, varies in zip(tensors((record.arguments, record.keywords)), record.varying, strict=True) if not varies
    ]
    batch_axis, widths = axes[0], {v.dim() for v in values}
    if len({*axes}) > 1 or (batch_axis.axis and (len(widths) > 1 or any(t.dim() > 0 for t in constants))):
        raise TraceMismatch(f"rows at {axes} of what {record.name} takes and returns")
    view = _view(record, lambda x, r: unfold_rows(x, r, pairs))
    m_inputs = _apply_broadcast(view.with_changes(pairs=pairs), operation, [batch_axis.unfold(m, 2) for m in m_outputs])
    return [None if m is None else batch_axis.fold(m, 2) for m in m_inputs]


# ---------------------------------------------------------------------- rules that want the rows of pairs
def _apply_repeated(record: OperationRecord, operation: Operation, m_outputs: list[Tensor]) -> Multipliers:
    """Apply a rule to both sides repeated to all pairs, as if both had run on them."""
    rule, pairs, reference = operation.rule, record.pairs, record.reference
    assert rule is not None
    assert reference is not None
    view = _view(record, lambda x, r: repeat_pairs(x, r, pairs))
    y_axes = [_batch_axis(*sides, pairs) for sides in zip(record.outputs, reference.outputs, strict=True)]
    rows = [flatten_pairs(m, axis) for m, axis in zip(m_outputs, y_axes, strict=True)]
    m_by_input = zip(*(_as_list(record, rule(view, *m)) for m in zip(*rows, strict=True)), strict=True)
    m_inputs = [None if m[0] is None else torch.stack(m) for m in m_by_input]
    x_axes = [_batch_axis(*sides, pairs) for sides in zip(record.inputs, reference.inputs, strict=True)]
    summed = [
        None if m is None else _sum_to_size(record, m, (len(m), *i.shape))
        for m, i in zip(m_inputs, view.inputs, strict=True)
    ]
    return [None if m is None else unflatten_pairs(m, pairs, axis) for m, axis in zip(summed, x_axes, strict=True)]


def _batch_axis(x: Tensor, r: Tensor, pairs: Pairs) -> BatchAxis | None:
    return batch_axis_of(x, r, pairs) if pairs.all_pairs else None
