"""Nodes of autograd's graph whose backward pass is a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function, once_differentiable

from ...errors import UnsupportedOperationError
from ...mathematics.rules import where_reached
from . import pairing, rules
from ._compat import (
    from_vmap,
    innermost_vmap,
    inside_transform,
    is_view,
    outside_innermost_vmap,
    to_vmap,
    version_of,
)
from .operations import Operation, Reading, Step
from .tree import detached, tensors

Find = Callable[[list[Any]], list[Any]]  # from the multipliers of a step's results to those of its inputs


class Node(Function):
    """Runs a step's function forward and its rule backward."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, reading: Reading, step: Step, operation: Operation, *inputs: Tensor
    ) -> Any:
        ctx.reading, ctx.step, ctx.operation = reading, step, operation
        ctx.set_materialize_grads(False)
        versions = [version_of(i) for i in inputs]
        result = step.evaluate(*inputs)  # steps of a loop ask what made them
        if [version_of(i) for i in inputs] != versions:
            raise UnsupportedOperationError(
                f"{step.name} at {step.place} has a rule or handler of its own and overwrites its input, whose old value that "
                "needs. Let it work out of place (inplace=False)."
            )
        if operation.keeps_memory:
            result, step.memory = result
        memory = {i.untyped_storage().data_ptr() for i in inputs}
        outputs = tuple([_fresh(o, memory) for o in tensors(result)])
        ctx.floating = [is_continuous(o.dtype) for o in outputs]
        if not all(ctx.floating):
            ctx.mark_non_differentiable(*[o for o, floating in zip(outputs, ctx.floating, strict=True) if not floating])
        step.outputs = tuple([o.detach() for o, floating in zip(outputs, ctx.floating, strict=True) if floating])
        step.form = detached(result)
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
    if not ctx.operation.pairs_itself:
        given = [torch.zeros_like(o) if m is None else m for m, o in zip(given, step.outputs, strict=True)]
    find, step, given = _found_by(ctx, given)
    alike = partial(_alike, find, step.inputs)
    several = several_at_once()
    result = for_several(f"{step.name} at {step.place}", alike, given) if several else for_one(alike, given)
    if reading.careful and len(given) == 1:
        result = tuple(m if m is None or m.shape != given[0].shape else where_reached(given[0], m) for m in result)
    if reading.diagnosis is not None:
        reading.diagnosis.append((step, *rules.local_gap(step, given[: len(step.outputs)], result)))
    return None, None, None, *result


_back_once = once_differentiable(_back)


def _found_by(ctx: Any, given: list[Any]) -> tuple[Find, Step, list[Any]]:
    """What goes back through a node, the step as it sees it, and the multipliers that it takes."""
    step, reading, operation = ctx.step, ctx.reading, ctx.operation
    if operation.pairs_itself:
        given = _with_selections(step, given)
    if reading.references is not None:
        step = pairing.among(step, reading.references)
    return partial(pairing.multipliers, step, operation), step, given


def _known(step: Step) -> tuple[Tensor | None, ...]:
    """What another step's rule has found of a step's inputs already."""
    assert step.known is not None
    known = [None if m is None else _like(m, i) for m, i in zip(step.known, step.inputs, strict=True)]
    step.known = None
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


def _with_selections(step: Step, given: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The multipliers of all outputs but perhaps the first, then those of entries of the first one."""
    selections, step.selections = step.selections, []
    step.selected = tuple((axis, index) for axis, index, _ in selections)
    outputs = [
        torch.zeros_like(o) if m is None and i else m for i, (m, o) in enumerate(zip(given, step.outputs, strict=True))
    ]
    return [*outputs, *(m for _, _, m in selections)]


class Uses:
    """How calls use what recurrent networks made."""

    def __init__(self) -> None:
        self.begun = False  # whether there are recurrent networks
        self._whole: set[Step] = set()  # of whose output not only single steps are used

    def count(self, values: Iterable[Tensor], reading: Reading) -> None:
        """Count what a call takes, of all outputs; not where each step is looked at by itself."""
        for value in () if reading.careful or not self.begun else values:
            if (step := made_by(value.grad_fn)) is not None:
                step.uses += 1

    def whole(self, values: Iterable[Tensor]) -> int:
        """Note what is used as it is; returns the bytes of what was not before."""
        if not self.begun:
            return 0
        steps = {step for step in map(recurrent_step, values) if step is not None} - self._whole
        self._whole |= steps
        return sum(step.outputs[0].nbytes for step in steps)


def recurrent_step(value: Tensor, position: int = 0) -> Step | None:
    """The step of the recurrent network of whose outputs a tensor is the one in some position."""
    return made_by(value.grad_fn) if value.output_nr == position else None


def made_by(node: Any) -> Step | None:
    """The step of a recurrent network that a node of autograd's graph is."""
    if not isinstance(node, BackwardCFunction) or not isinstance(step := getattr(node, "step", None), Step):
        return None
    return step if node.operation.pairs_itself else None  # type: ignore[attr-defined]


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


def is_continuous(dtype: torch.dtype) -> bool:
    """Whether values of this type are followed by autograd."""
    return dtype.is_floating_point or dtype.is_complex
