"""Rules in one pass on the CPU: slopes of pairs, made once for all explained outputs, times multipliers.

The plain rules (``steps.rescale``, ``mathematics.rules.softmax``) do the same in several passes over all pairs. They stay: for
what has no kernel, and as the oracle of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ...mathematics import secants
from ...mathematics.rules import MASKED
from . import rules
from .kernels import pairs as kernels
from .kernels.pairs import GREATEST, LOG_SOFTMAX, REGULAR, RELU, SIGMOID, SOFTMAX, TANH
from .operations import Operation, Step
from .threads import in_threads

ELEMENTWISE = {secants.relu: RELU, secants.tanh: TANH, secants.sigmoid: SIGMOID}
OVER_LAST: dict[Any, int] = {rules.softmax: SOFTMAX, rules.log_softmax: LOG_SOFTMAX, rules.greatest: GREATEST}
COMPILE_BEYOND = 20_000_000  # multipliers, some 40 ms without a kernel; compiling one takes a second
THREADS_BEYOND = 2_000_000  # multipliers; to start a thread takes a millisecond
_work: dict[Any, int] = {}


# ---------------------------------------------------------------------- when, and on what
def multipliers(step: Step, operation: Operation, m: Tensor, axis: int) -> Tensor | None:
    """Those of a step's only input, from its output's (outputs, references, *shape of y), which has the rows on an axis.

    None where there is no kernel, or has not been enough work to be worth its compilation.
    """
    kind = _kind(operation)
    x, y = step.inputs[0], step.outputs[0]
    if kind is None or m.device.type != "cpu" or numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return None
    if m.dtype not in (torch.float32, torch.float64) or {x.dtype, y.dtype} != {m.dtype} or m.shape[2:] != y.shape:
        return None
    key = kind, m.dtype
    _work[key] = _work.get(key, 0) + m.numel()
    if _work[key] < COMPILE_BEYOND:
        return None
    if kind in OVER_LAST.values():
        return _by_last_axis(kind, step, m, axis)
    return _by_element(kind, step, m, axis) if x.shape == y.shape else None


def _kind(operation: Operation) -> int | None:
    if operation.regular:
        return REGULAR
    return ELEMENTWISE.get(operation.secant, OVER_LAST.get(operation.rule))  # type: ignore[arg-type]


def _by_element(kind: int, step: Step, m: Tensor, axis: int) -> Tensor | None:
    """Of functions of each element."""
    assert step.reference is not None
    sides = [step.inputs[0], step.reference.inputs[0], step.outputs[0], step.reference.outputs[0]]
    if kind != REGULAR:
        return _run(kernels.elementwise(kind), m, torch.empty_like(m), axis, sides)
    slopes = [_derivative(side) for side in (step, step.reference)]
    if not all(bool(torch.isfinite(v).all()) for v in (*sides, *slopes)):
        return None
    return _run(kernels.regular(), m, torch.empty_like(m), axis, [*sides, *slopes])


def _derivative(side: Step) -> Tensor:
    """Of an elementwise function, on one side."""
    (found,) = side.vjp(side.inputs, [torch.ones_like(side.outputs[0])])
    return torch.zeros_like(side.inputs[0]) if found is None else found


def _by_last_axis(kind: int, step: Step, m: Tensor, axis: int) -> Tensor | None:
    """Of functions of the whole last axis."""
    assert step.reference is not None
    sides, memories = [step.inputs[0], step.reference.inputs[0]], [step.memory, step.reference.memory]
    if axis == m.dim() - 3:
        return None
    if kind == GREATEST:
        found = m.new_empty(*m.shape[:-1], sides[0].shape[-1])
        return _run(kernels.greatest(), m, found, axis, [*sides, *memories], 1, [step.arguments[1].positions])
    if not _are_plain(axis, *sides, *memories):
        return None
    sides += [step.outputs[0], step.reference.outputs[0], *memories]
    return _run(kernels.over_last(kind), m, torch.empty_like(m), axis, sides, last=1)


def _are_plain(axis: int, x: Tensor, r: Tensor, total: Tensor, total_r: Tensor) -> bool:
    """Whether no logits are masked as a whole, and the same are masked in all rows."""
    if bool((total < -MASKED).any()) or bool((total_r < -MASKED).any()):
        return False
    masked = [v < -MASKED for v in (x, r)]
    somewhere, everywhere = ([getattr(m, name)(axis) for m in masked] for name in ("any", "all"))
    return all(torch.equal(somewhere[0], v) for v in (somewhere[1], *everywhere))


def _run(
    kernel: Any,
    m: Tensor,
    found: Tensor,
    axis: int,
    sides: Sequence[Tensor],
    last: int = 0,
    constants: Sequence[np.ndarray] = (),
) -> Tensor:
    """Run a kernel in threads, each for some references; ``last`` axes stay apart from those behind the rows."""
    m, found, references = m.contiguous(), found.contiguous(), m.shape[1]

    def laid_out(v: Tensor, ahead: int = 0) -> np.ndarray:
        first, shape = ahead + axis, v.shape[v.dim() - last :] if last else ()
        behind = math.prod(v.shape[first + 1 : v.dim() - last])
        return v.reshape(*v.shape[:ahead], math.prod(v.shape[ahead:first]), v.shape[first], behind, *shape).numpy()

    arrays = [laid_out(m, 2), laid_out(found, 2), *(laid_out(v.contiguous()) for v in sides), *constants]
    threads = torch.get_num_threads() if m.numel() >= THREADS_BEYOND else 1
    blocks = [(int(b[0]), int(b[-1]) + 1) for b in np.array_split(np.arange(references), min(threads, references))]
    in_threads([partial(kernel, *arrays, *block) for block in blocks])
    return found
