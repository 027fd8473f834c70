"""Nodes of autograd's graph whose backward pass is a rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch import pyfunctorch
from torch.autograd.function import Function, once_differentiable

from ...errors import UnsupportedOperationError
from . import pairing, rules
from .operations import Operation, Reading, Step
from .tree import detached, tensors

BESIDE_SELECTION = (
    "SliceBackward0",
    "UnsqueezeBackward0",
    "AliasBackward0",
)  # x[:, -1, :4] and x[:, -1, None] select too


class Node(Function):
    """Runs a step's function forward and its rule backward."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, reading: Reading, step: Step, operation: Operation, *inputs: Tensor
    ) -> Any:
        ctx.reading, ctx.step, ctx.operation = reading, step, operation
        ctx.set_materialize_grads(not operation.pairs_itself)
        versions = [i._version for i in inputs]
        result = step.evaluate(*inputs)
        if [i._version for i in inputs] != versions:
            raise UnsupportedOperationError(
                f"{step.name} at {step.place} has a rule or handler of its own and overwrites its input, whose old value that "
                "needs. Let it work out of place (inplace=False)."
            )
        if operation.keeps_memory:
            result, step.memory = result
        outputs = tuple(_fresh(o, inputs) for o in tensors(result))
        ctx.floating = [is_continuous(o.dtype) for o in outputs]
        floats = tuple(o for o, floating in zip(outputs, ctx.floating, strict=True) if floating)
        ctx.mark_non_differentiable(*(o for o, floating in zip(outputs, ctx.floating, strict=True) if not floating))
        step.inputs = tuple(i.detach() for i in inputs)
        step.outputs = tuple(o.detach() for o in floats)
        ctx.step.form = detached(result)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *multipliers: Tensor) -> Any:  # noqa: D102
        step, reading = ctx.step, ctx.reading
        given: list[Any] = [m for m, floating in zip(multipliers, ctx.floating, strict=True) if floating]
        if ctx.operation.pairs_itself:
            given = _with_selections(step, given)
        step = step if reading.references is None else pairing.among(step, reading.references)
        result = (_for_several if several_at_once() else _for_one)(step, ctx.operation, given)
        result = tuple(None if m is None else _like(m, i) for m, i in zip(result, step.inputs, strict=True))
        if reading.careful and len(given) == 1:
            result = tuple(None if m is None else _where_reached(m, given[0]) for m in result)
        if reading.diagnosis is not None:
            reading.diagnosis.append((step, *rules.local_gap(step, given[: len(step.outputs)], result)))
        return None, None, None, *result


def _where_reached(found: Tensor, given: Tensor) -> Tensor:
    """0 where nothing reaches an element, whose slope may be no number."""
    return torch.where((given == 0) & found.isnan(), 0.0, found) if found.shape == given.shape else found


def _like(multiplier: Tensor, value: Tensor) -> Tensor:
    """A multiplier in the dtype of its value: that of a real one is real."""
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


def select_apart(result: Any) -> bool:
    """If a tensor is an entry of a recurrent network's output, its last step for instance, hand on its multiplier by itself.

    Autograd would put it among zeros for all other steps, of every pair. The tensor remains a view like any other.
    """
    select: Any = result.grad_fn if isinstance(result, Tensor) else None
    while select is not None and select.name() in BESIDE_SELECTION:
        select = select.next_functions[0][0]
    if select is None or select.name() != "SelectBackward0":
        return False
    step = _step_of(*select.next_functions[0])
    if step is None:
        return False
    axis, index = _signed(select._saved_dim), _signed(select._saved_index)
    axis %= step.outputs[0].dim()
    index %= step.outputs[0].shape[axis]

    def take(given: tuple[Tensor | None]) -> tuple[None]:
        if given[0] is not None:
            step.selections.append((axis, index, given[0]))
        return (None,)

    select.register_prehook(take)
    return True


def recurrent_step(value: Tensor) -> Step | None:
    """The step of the recurrent network whose output a tensor is."""
    return None if value.grad_fn is None else _step_of(value.grad_fn, value.output_nr)


def _step_of(node: Any, position: int) -> Step | None:
    ours = position == 0 and isinstance(node, Node._backward_cls)
    made: Any = node  # what Node's context holds
    return made.step if ours and made.operation.pairs_itself else None


def _signed(number: int) -> int:
    """Autograd shows negative numbers as 64 bits without a sign."""
    return number - 2**64 if number >= 2**63 else number


def several_at_once() -> bool:
    """Whether a transform of ``torch.func`` is at work: vmap, over explained outputs and references, or one of the model."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _for_one(step: Step, operation: Operation, given: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    found = pairing.multipliers(step, operation, [None if m is None else m.unsqueeze(0) for m in given])
    return tuple(None if m is None else m.squeeze(0) for m in found)


def _for_several(step: Step, operation: Operation, given: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Under ``torch.vmap``: apply the rule to the multipliers of all pairs.

    Torch has custom functions for this, which take ten times as long to get there as their rule takes for a small layer.
    """
    mapped = pyfunctorch.retrieve_current_functorch_interpreter()
    if not isinstance(mapped, pyfunctorch.VmapInterpreter):
        raise UnsupportedOperationError(f"{step.name} at {step.place} has no second derivative.")
    level, size = mapped.level(), mapped.batch_size()
    with mapped.lower():
        rows = [None if m is None else _laid_out(*torch._C._functorch._unwrap_batched(m, level), size) for m in given]
        found = pairing.multipliers(step, operation, rows)
        return tuple(None if m is None else torch._C._functorch._add_batch_dim(m, 0, level) for m in found)


def _laid_out(m: Tensor, axis: int | None, size: int) -> Tensor:
    return m.expand(size, *m.shape) if axis is None else m.movedim(axis, 0)


def _fresh(output: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """A custom function must not hand out views, of its inputs or of others: in-place code after it would break."""
    storages = {i.untyped_storage().data_ptr() for i in inputs}
    if output.untyped_storage().data_ptr() in storages:
        return output.clone()
    return output.detach() if output._is_view() else output


def is_continuous(dtype: torch.dtype) -> bool:
    """Whether values of this type are followed by autograd."""
    return dtype.is_floating_point or dtype.is_complex
