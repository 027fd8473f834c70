"""Nodes of autograd's graph whose backward pass is a rule, and multipliers of single entries, which bypass autograd.

Every nonlinear operation that the tracer meets becomes a ``Node``: its forward pass runs the operation, its backward pass
applies the operation's rule to the multipliers (``pairing.multipliers``). Autograd then carries multipliers instead of
gradients.

A model may select entries of a value one after the other, as ``x[:, t]`` in a loop over time. Autograd would embed the
multiplier of each entry in zeros for all other entries and sum these: as much work for each step as there are steps.
``Selections`` passes such multipliers on by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function, once_differentiable

from ...errors import UnsupportedOperationError
from ...formulas.rules import where_reached
from . import pairing, rules
from ._compat import (
    entry_of,
    from_vmap,
    innermost_vmap,
    inside_transform,
    is_view,
    outside_innermost_vmap,
    to_vmap,
    version_of,
)
from .calls import detached, is_continuous, tensors
from .operations import BackwardOptions, Operation, OperationRecord

PullBack = Callable[[list[Any]], list[Any]]  # from multipliers of an operation's outputs to those of its inputs


class Node(Function):
    """Runs an operation forward and its rule backward."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, options: BackwardOptions, record: OperationRecord, operation: Operation, *inputs: Tensor
    ) -> Any:
        ctx.options, ctx.record, ctx.operation = options, record, operation
        ctx.set_materialize_grads(False)
        versions = [version_of(i) for i in inputs]
        result = record.evaluate(*inputs)  # steps of a loop look up their predecessors
        if [version_of(i) for i in inputs] != versions:
            raise UnsupportedOperationError(
                f"{record.name} at {record.place} has a rule or handler of its own and overwrites its input, whose old value "
                "the rule needs. Let it work out of place (inplace=False)."
            )
        if operation.keeps_memory:
            result, record.memory = result
        memory = {i.untyped_storage().data_ptr() for i in inputs}
        outputs = tuple([_without_view(o, memory) for o in tensors(result)])
        ctx.floating = [is_continuous(o.dtype) for o in outputs]
        if not all(ctx.floating):
            ctx.mark_non_differentiable(*[o for o, floating in zip(outputs, ctx.floating, strict=True) if not floating])
        record.outputs = tuple([o.detach() for o, floating in zip(outputs, ctx.floating, strict=True) if floating])
        record.form = detached(result)
        return outputs

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> Any:  # noqa: D102
        # once_differentiable takes as long as a rule for few numbers.
        return (_back_once if torch.is_grad_enabled() else _back)(ctx, *multipliers)


def _back(ctx: Any, *multipliers: Tensor) -> Any:
    """Return the multipliers of a node's inputs."""
    record, options = ctx.record, ctx.options
    if record.known_multipliers is not None:
        return None, None, None, *_take_known_multipliers(record)
    m_outputs: list[Any] = [m for m, floating in zip(multipliers, ctx.floating, strict=True) if floating]
    if not ctx.operation.batched_rule:
        m_outputs = [torch.zeros_like(o) if m is None else m for m, o in zip(m_outputs, record.outputs, strict=True)]
    pull_back, record, m_outputs = _pull_back_of(ctx, m_outputs)
    in_dtypes = partial(_in_dtypes_of_inputs, pull_back, record.inputs)
    several = several_at_once()
    result = (
        for_several(f"{record.name} at {record.place}", in_dtypes, m_outputs)
        if several
        else for_one(in_dtypes, m_outputs)
    )
    if options.zero_unreached and len(m_outputs) == 1:
        result = tuple(
            m if m is None or m.shape != m_outputs[0].shape else where_reached(m_outputs[0], m) for m in result
        )
    if options.diagnosis is not None:
        options.diagnosis.append((record, *rules.local_gap(record, m_outputs[: len(record.outputs)], result)))
    return None, None, None, *result


_back_once = once_differentiable(_back)


def _pull_back_of(ctx: Any, m_outputs: list[Any]) -> tuple[PullBack, OperationRecord, list[Any]]:
    """Return the function that applies a node's rule, the record as it sees it, and the multipliers that it takes."""
    record, options, operation = ctx.record, ctx.options, ctx.operation
    if operation.batched_rule:
        m_outputs = _with_selections(record, m_outputs)
    if options.references is not None:
        record = pairing.with_references(record, options.references)
    return partial(pairing.multipliers, record, operation), record, m_outputs


def _take_known_multipliers(record: OperationRecord) -> tuple[Tensor | None, ...]:
    """Return the multipliers of a record's inputs that another record's rule has computed."""
    assert record.known_multipliers is not None
    m_inputs = [
        None if m is None else _cast_like(m, i) for m, i in zip(record.known_multipliers, record.inputs, strict=True)
    ]
    record.known_multipliers = None
    if not several_at_once():
        return tuple(None if m is None else m.squeeze(0) for m in m_inputs)
    return tuple(None if m is None else to_vmap(m) for m in m_inputs)


def applied(function: type[Function], *arguments: Any) -> Any:
    """Apply a custom function without the handling of ``torch.func`` transforms, none of which is active."""
    return super(Function, function).apply(*arguments)  # type: ignore[misc]


def _in_dtypes_of_inputs(pull_back: PullBack, values: Sequence[Tensor], m_outputs: list[Any]) -> list[Tensor | None]:
    """Return the multipliers of inputs in the inputs' dtypes."""
    return [None if m is None else _cast_like(m, v) for m, v in zip(pull_back(m_outputs), values, strict=True)]


def _cast_like(multiplier: Tensor, value: Tensor) -> Tensor:
    """Return a multiplier in the dtype of its value; that of a real value is real."""
    if multiplier.dtype is value.dtype:
        return multiplier
    real = multiplier.is_complex() and not value.is_complex()
    return (multiplier.real if real else multiplier).to(value.dtype)


def _with_selections(record: OperationRecord, m_outputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the multipliers of all outputs, the first of which may be None, then those of entries of the first output."""
    selections, record.selections = record.selections, []
    record.selected = tuple((axis, index) for axis, index, _ in selections)
    outputs = [
        torch.zeros_like(o) if m is None and i else m
        for i, (m, o) in enumerate(zip(m_outputs, record.outputs, strict=True))
    ]
    return [*outputs, *(m for _, _, m in selections)]


class UsageCounter:
    """How calls use the outputs of recurrent networks."""

    def __init__(self) -> None:
        self.has_recurrent = False  # whether the model has called recurrent networks
        self._used_whole: set[OperationRecord] = set()  # records whose output is used as a whole

    def count(self, values: Iterable[Tensor], options: BackwardOptions) -> None:
        """Count the calls that use each recurrent output; not if rules are diagnosed one by one."""
        for value in () if options.zero_unreached or not self.has_recurrent else values:
            if (record := record_of_node(value.grad_fn)) is not None:
                record.use_count += 1

    def count_whole(self, values: Iterable[Tensor]) -> int:
        """Note values that are used as a whole; return the bytes of those that were not before."""
        if not self.has_recurrent:
            return 0
        records = {record for record in map(recurrent_record, values) if record is not None} - self._used_whole
        self._used_whole |= records
        return sum(record.outputs[0].nbytes for record in records)


def recurrent_record(value: Tensor, position: int = 0) -> OperationRecord | None:
    """Return the record of the recurrent network whose output at a position a tensor is, or None."""
    return record_of_node(value.grad_fn) if value.output_nr == position else None


def record_of_node(node: Any) -> OperationRecord | None:
    """Return the record of the recurrent network that a node of autograd's graph belongs to, or None."""
    if not isinstance(node, BackwardCFunction) or not isinstance(
        record := getattr(node, "record", None), OperationRecord
    ):
        return None
    return record if node.operation.batched_rule else None  # type: ignore[attr-defined]


def several_at_once() -> bool:
    """Return whether a transform of ``torch.func`` is active: vmap over explained outputs and references, or one of the model."""
    return inside_transform()


def for_one(pull_back: PullBack, m_outputs: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Pull the multipliers of one output back, as those of several."""
    m_inputs = pull_back([None if m is None else m.unsqueeze(0) for m in m_outputs])
    return tuple(None if m is None else m.squeeze(0) for m in m_inputs)


def for_several(name: str, pull_back: PullBack, m_outputs: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Pull back the multipliers of all pairs, (seeds, *shape of a value), under ``torch.vmap``."""
    if (mapped := innermost_vmap()) is None:
        raise UnsupportedOperationError(f"{name} has no second derivative.")
    level, size = mapped
    with outside_innermost_vmap():
        m_inputs = pull_back(
            [None if m is None else _move_mapped_axis_first(*from_vmap(m, level), size) for m in m_outputs]
        )
        return tuple([None if m is None else to_vmap(m, level) for m in m_inputs])


def _move_mapped_axis_first(m: Tensor, axis: int | None, size: int) -> Tensor:
    return m.expand(size, *m.shape) if axis is None else m.movedim(axis, 0) if axis else m


def _without_view(output: Tensor, storages: set[int]) -> Tensor:
    """Return an output as no view: autograd functions must not return views of their inputs or of others."""
    if output.untyped_storage().data_ptr() in storages:
        return output.clone()
    return output.detach() if is_view(output) else output


TRANSPARENT_NODES = (
    "SliceBackward0",
    "UnsqueezeBackward0",
    "AliasBackward0",
)  # x[:, -1, :4] and x[:, -1, None] select entries too
_ENTRIES, _TAKEN = "deepshap_entries", "deepshap_taken"  # keys in the metadata of nodes


Selection = tuple[int, int, Tensor]  # axis, index and multiplier


class Entries:
    """Collects the multipliers of entries of a node's output, to add them all at once.

    In each backward pass the first multiplier goes through autograd: without it autograd would not call the node.
    """

    def __init__(self, position: int, sizes: Sequence[int]) -> None:
        self._position, self._sizes = position, sizes
        self.forget()

    def forget(self) -> None:
        """Drop all collected multipliers."""
        self._has_first = False
        self._selections: list[Selection] = []

    def take(self, selection: Selection) -> bool:
        """Store a multiplier, unless it is the first one."""
        if self._has_first:
            self._selections.append(selection)
        has_first, self._has_first = self._has_first, True
        return has_first

    def added(self, m_outputs: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        """Return the multipliers of the node's outputs, with the collected ones added."""
        selections = self._selections
        self.forget()
        m_first = m_outputs[self._position]
        if not selections:
            return m_outputs
        assert m_first is not None, "autograd was given a multiplier for the first one"

        def add(rows: list[Any]) -> list[Any]:
            total = rows[0].clone(memory_format=torch.contiguous_format)
            for (axis, index, _), m in zip(selections, rows[1:], strict=True):
                total.select(axis + 1, index).add_(m)
            return [total]

        parts = [m_first, *(m for _, _, m in selections)]
        (total,) = for_several("a selection", add, parts) if several_at_once() else for_one(add, parts)
        return *m_outputs[: self._position], total, *m_outputs[self._position + 1 :]


class Selections:
    """The entries of values that a run selects."""

    def __init__(self) -> None:
        self._entries: list[Entries] = []

    def bypass(self, result: Any) -> bool:
        """Let the multiplier of a result that is an entry of another tensor (or all of a tuple) bypass autograd.

        The result stays a view. A recurrent network's rule takes such multipliers as they are; other nodes get their sum.

        Returns whether all results are such entries.
        """
        if isinstance(result, tuple):
            return sum(map(self.bypass, result)) == len(result)
        node_of_entry: Any = result.grad_fn if isinstance(result, Tensor) else None
        while node_of_entry is not None and node_of_entry.name() in TRANSPARENT_NODES:
            node_of_entry = node_of_entry.next_functions[0][0]
        if (
            node_of_entry is None
            or node_of_entry.name() != "SelectBackward0"
            or (entry := entry_of(node_of_entry)) is None
        ):
            return False
        marks = node_of_entry.metadata  # a hook that holds the node would keep the run alive until garbage collection
        if _TAKEN in marks:
            return True
        marks[_TAKEN] = True
        (sizes, axis, index), (node, position) = entry, node_of_entry.next_functions[0]
        record = record_of_node(node)
        collector = self._of(node, position, sizes) if position or record is None else record

        def take(m_outputs: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
            if (entries_of_entry := marks.get(_ENTRIES)) is not None:  # entries of this entry
                m_outputs = entries_of_entry[0].added(m_outputs)
            bypasses = m_outputs[0] is not None and collector.take((axis, index, m_outputs[0]))
            return (None,) if bypasses else m_outputs

        node_of_entry.register_prehook(take)
        return True

    def _of(self, node: Any, position: int, sizes: Sequence[int]) -> Entries:
        collectors: dict[int, Entries] = node.metadata.setdefault(_ENTRIES, {})
        if position not in collectors:
            collectors[position] = Entries(position, sizes)
            if _TAKEN not in node.metadata:  # else it collects them in its own hook
                node.register_prehook(collectors[position].added)
            self._entries.append(collectors[position])
        return collectors[position]

    def forget(self) -> None:
        """Drop what a failed backward pass left."""
        for entries in self._entries:
            entries.forget()
