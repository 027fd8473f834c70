"""Nodes of autograd's graph whose backward pass is a rule, and entries of values whose multipliers go past autograd.

Every nonlinear operation that the tracer meets becomes a ``Node``: its forward pass runs the operation, its backward pass applies
the operation's rule to the multipliers (``pairing.multipliers``). So autograd carries multipliers instead of gradients.

A model may take single entries of a value one by one, as ``x[:, t]`` in a loop over time. Autograd would put the multiplier of
each among zeros for all other entries and add these up: as much work for each step as there are steps. ``Selections`` hands such
multipliers on by themselves.
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
from .operations import BackwardOptions, Operation, OperationRecord
from .tree import detached, is_continuous, tensors

Find = Callable[[list[Any]], list[Any]]  # from the multipliers of a step's results to those of its inputs


class Node(Function):
    """Runs a step's function forward and its rule backward."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, reading: BackwardOptions, record: OperationRecord, operation: Operation, *inputs: Tensor
    ) -> Any:
        ctx.reading, ctx.step, ctx.operation = reading, record, operation
        ctx.set_materialize_grads(False)
        versions = [version_of(i) for i in inputs]
        result = record.evaluate(*inputs)  # steps of a loop ask what made them
        if [version_of(i) for i in inputs] != versions:
            raise UnsupportedOperationError(
                f"{record.name} at {record.place} has a rule or handler of its own and overwrites its input, whose old value "
                "the rule needs. Let it work out of place (inplace=False)."
            )
        if operation.keeps_memory:
            result, record.memory = result
        memory = {i.untyped_storage().data_ptr() for i in inputs}
        outputs = tuple([_fresh(o, memory) for o in tensors(result)])
        ctx.floating = [is_continuous(o.dtype) for o in outputs]
        if not all(ctx.floating):
            ctx.mark_non_differentiable(*[o for o, floating in zip(outputs, ctx.floating, strict=True) if not floating])
        record.outputs = tuple([o.detach() for o, floating in zip(outputs, ctx.floating, strict=True) if floating])
        record.form = detached(result)
        return outputs

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> Any:  # noqa: D102
        # What torch does for a derivative that is to have one itself takes as long as a rule for few numbers.
        return (_back_once if torch.is_grad_enabled() else _back)(ctx, *multipliers)


def _back(ctx: Any, *multipliers: Tensor) -> Any:
    """The multipliers of a node's inputs."""
    step, reading = ctx.step, ctx.reading
    if step.known is not None:
        return None, None, None, *_known(step)
    given: list[Any] = [m for m, floating in zip(multipliers, ctx.floating, strict=True) if floating]
    if not ctx.operation.batched_rule:
        given = [torch.zeros_like(o) if m is None else m for m, o in zip(given, step.outputs, strict=True)]
    find, step, given = _found_by(ctx, given)
    alike = partial(_alike, find, step.inputs)
    several = several_at_once()
    result = for_several(f"{step.name} at {step.place}", alike, given) if several else for_one(alike, given)
    if reading.zero_unreached and len(given) == 1:
        result = tuple(m if m is None or m.shape != given[0].shape else where_reached(given[0], m) for m in result)
    if reading.diagnosis is not None:
        reading.diagnosis.append((step, *rules.local_gap(step, given[: len(step.outputs)], result)))
    return None, None, None, *result


_back_once = once_differentiable(_back)


def _found_by(ctx: Any, given: list[Any]) -> tuple[Find, OperationRecord, list[Any]]:
    """What goes back through a node, the step as it sees it, and the multipliers that it takes."""
    step, reading, operation = ctx.step, ctx.reading, ctx.operation
    if operation.batched_rule:
        given = _with_selections(step, given)
    if reading.references is not None:
        step = pairing.among(step, reading.references)
    return partial(pairing.multipliers, step, operation), step, given


def _known(record: OperationRecord) -> tuple[Tensor | None, ...]:
    """What another step's rule has found of a step's inputs already."""
    assert record.known is not None
    known = [None if m is None else _like(m, i) for m, i in zip(record.known, record.inputs, strict=True)]
    record.known = None
    if not several_at_once():
        return tuple(None if m is None else m.squeeze(0) for m in known)
    return tuple(None if m is None else to_vmap(m) for m in known)


def applied(function: type[Function], *given: Any) -> Any:
    """Apply a custom function; without what ``apply`` does for transforms of ``torch.func``, of which none is at work."""
    return super(Function, function).apply(*given)  # type: ignore[misc]


def _alike(find: Find, values: Sequence[Tensor], given: list[Any]) -> list[Tensor | None]:
    """What is found of values, in their dtypes."""
    return [None if m is None else _like(m, v) for m, v in zip(find(given), values, strict=True)]


def _like(multiplier: Tensor, value: Tensor) -> Tensor:
    """A multiplier in the dtype of its value: that of a real one is real."""
    if multiplier.dtype is value.dtype:
        return multiplier
    real = multiplier.is_complex() and not value.is_complex()
    return (multiplier.real if real else multiplier).to(value.dtype)


def _with_selections(record: OperationRecord, given: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The multipliers of all outputs but perhaps the first, then those of entries of the first one."""
    selections, record.selections = record.selections, []
    record.selected = tuple((axis, index) for axis, index, _ in selections)
    outputs = [
        torch.zeros_like(o) if m is None and i else m
        for i, (m, o) in enumerate(zip(given, record.outputs, strict=True))
    ]
    return [*outputs, *(m for _, _, m in selections)]


class Uses:
    """How calls use what recurrent networks made."""

    def __init__(self) -> None:
        self.begun = False  # whether there are recurrent networks
        self._whole: set[OperationRecord] = set()  # of whose output not only single steps are used

    def count(self, values: Iterable[Tensor], reading: BackwardOptions) -> None:
        """Count what a call takes, of all outputs; not where each step is looked at by itself."""
        for value in () if reading.zero_unreached or not self.begun else values:
            if (step := made_by(value.grad_fn)) is not None:
                step.uses += 1

    def whole(self, values: Iterable[Tensor]) -> int:
        """Note what is used as it is; returns the bytes of what was not before."""
        if not self.begun:
            return 0
        steps = {step for step in map(recurrent_step, values) if step is not None} - self._whole
        self._whole |= steps
        return sum(step.outputs[0].nbytes for step in steps)


def recurrent_step(value: Tensor, position: int = 0) -> OperationRecord | None:
    """The step of the recurrent network of whose outputs a tensor is the one in some position."""
    return made_by(value.grad_fn) if value.output_nr == position else None


def made_by(node: Any) -> OperationRecord | None:
    """The step of a recurrent network that a node of autograd's graph is."""
    if not isinstance(node, BackwardCFunction) or not isinstance(step := getattr(node, "step", None), OperationRecord):
        return None
    return step if node.operation.batched_rule else None  # type: ignore[attr-defined]


def several_at_once() -> bool:
    """Whether a transform of ``torch.func`` is at work: vmap, over explained outputs and references, or one of the model."""
    return inside_transform()


def for_one(find: Find, given: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Go back with the multipliers of one output, as of several."""
    found = find([None if m is None else m.unsqueeze(0) for m in given])
    return tuple(None if m is None else m.squeeze(0) for m in found)


def for_several(what: str, find: Find, given: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Under ``torch.vmap``: go back with the multipliers of all pairs, (seeds, *shape of a value)."""
    if (mapped := innermost_vmap()) is None:
        raise UnsupportedOperationError(f"{what} has no second derivative.")
    level, size = mapped
    with outside_innermost_vmap():
        found = find([None if m is None else _laid_out(*from_vmap(m, level), size) for m in given])
        return tuple([None if m is None else to_vmap(m, level) for m in found])


def _laid_out(m: Tensor, axis: int | None, size: int) -> Tensor:
    return m.expand(size, *m.shape) if axis is None else m.movedim(axis, 0) if axis else m


def _fresh(output: Tensor, memory: set[int]) -> Tensor:
    """A custom function must not hand out views, of its inputs' memory or others: in-place code after it would break."""
    if output.untyped_storage().data_ptr() in memory:
        return output.clone()
    return output.detach() if is_view(output) else output


BESIDE_SELECTION = (
    "SliceBackward0",
    "UnsqueezeBackward0",
    "AliasBackward0",
)  # x[:, -1, :4] and x[:, -1, None] select too
_ENTRIES, _TAKEN = "deepshap_entries", "deepshap_taken"  # what nodes are marked with


Selection = tuple[int, int, Tensor]  # axis, index and multiplier


class Entries:
    """Takes multipliers of entries of a node's output, in some position and of some sizes, to add them all at once.

    In each backward pass the first one goes by autograd all the same: that calls for the others only where something comes.
    """

    def __init__(self, position: int, sizes: Sequence[int]) -> None:
        self._position, self._sizes = position, sizes
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._begun = False
        self._selections: list[Selection] = []

    def take(self, selection: Selection) -> bool:
        """Take a multiplier, if autograd has been given another one."""
        if self._begun:
            self._selections.append(selection)
        begun, self._begun = self._begun, True
        return begun

    def added(self, given: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        """What reaches the node, with what came past autograd."""
        selections = self._selections
        self.forget()
        own = given[self._position]
        if not selections:
            return given
        assert own is not None, "autograd was given a multiplier for the first one"

        def find(rows: list[Any]) -> list[Any]:
            whole = rows[0].clone(memory_format=torch.contiguous_format)
            for (axis, index, _), m in zip(selections, rows[1:], strict=True):
                whole.select(axis + 1, index).add_(m)
            return [whole]

        parts = [own, *(m for _, _, m in selections)]
        (whole,) = for_several("a selection", find, parts) if several_at_once() else for_one(find, parts)
        return *given[: self._position], whole, *given[self._position + 1 :]


class Selections:
    """All entries that a run takes of values."""

    def __init__(self) -> None:
        self._entries: list[Entries] = []

    def take_apart(self, result: Any) -> bool:
        """If a tensor, or each of several, is an entry of another, hand on its multiplier by itself; it remains a view.

        A recurrent network's rule takes that as it is, and other nodes get all of them together.
        """
        if isinstance(result, tuple):
            return sum(map(self.take_apart, result)) == len(result)
        select: Any = result.grad_fn if isinstance(result, Tensor) else None
        while select is not None and select.name() in BESIDE_SELECTION:
            select = select.next_functions[0][0]
        if select is None or select.name() != "SelectBackward0" or (entry := entry_of(select)) is None:
            return False
        marks = select.metadata  # a hook that held the node itself would keep the whole run until garbage is collected
        if _TAKEN in marks:
            return True
        marks[_TAKEN] = True
        (sizes, axis, index), (node, position) = entry, select.next_functions[0]
        step = made_by(node)
        taken = self._of(node, position, sizes) if position or step is None else step

        def take(given: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
            if (own := marks.get(_ENTRIES)) is not None:  # entries of this entry
                given = own[0].added(given)
            past = given[0] is not None and taken.take((axis, index, given[0]))
            return (None,) if past else given

        select.register_prehook(take)
        return True

    def _of(self, node: Any, position: int, sizes: Sequence[int]) -> Entries:
        known: dict[int, Entries] = node.metadata.setdefault(_ENTRIES, {})
        if position not in known:
            known[position] = Entries(position, sizes)
            if _TAKEN not in node.metadata:  # else it asks for them before it hands on its own multiplier
                node.register_prehook(known[position].added)
            self._entries.append(known[position])
        return known[position]

    def forget(self) -> None:
        """Forget what a backward pass left that failed."""
        for entries in self._entries:
            entries.forget()
