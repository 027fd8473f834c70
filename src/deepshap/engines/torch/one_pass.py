"""Rules in one pass on the CPU: slopes of pairs, made once for all explained outputs, times multipliers.

The plain rules (``steps.rescale``, ``mathematics.rules.softmax``) do the same in several passes over all pairs. They stay: for
what has no kernel, and as the oracle of these.
"""

# The bodies of kernels are Numba's, which has types of its own.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ...mathematics import secants
from ...mathematics.rules import MASKED
from . import rules
from .compiled import compiled, exponentials, relu, sigmoid, tanh
from .operations import Operation, Step
from .threads import in_threads

RELU, TANH, SIGMOID, SOFTMAX, LOG_SOFTMAX = range(5)
ELEMENTWISE = {secants.relu: RELU, secants.tanh: TANH, secants.sigmoid: SIGMOID}
OVER_LAST: dict[Any, int] = {rules.softmax: SOFTMAX, rules.log_softmax: LOG_SOFTMAX}
COMPILE_BEYOND = 20_000_000  # multipliers, some 40 ms without a kernel; compiling one takes a second
THREADS_BEYOND = 2_000_000  # multipliers; to start a thread takes a millisecond
_work: dict[Any, int] = {}


# ---------------------------------------------------------------------- kernels
# Multipliers are (outputs, references, ahead, examples, behind), x is (ahead, examples, behind), r (ahead, references, behind).
# The kind is a constant to the compiler.
@cache
def _elementwise(kind: int) -> Any:
    @compiled
    def kernel(m, found, x, r, y, y_r, first, last):
        outputs, _, ahead, examples, behind = m.shape
        slopes = np.empty(behind, m.dtype)
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    xs, rs, ys, y_rs = x[p, n], r[p, b], y[p, n], y_r[p, b]
                    for q in range(behind):
                        if kind == RELU:
                            slopes[q] = relu(xs[q], rs[q], ys[q], y_rs[q])
                        elif kind == TANH:
                            slopes[q] = tanh(xs[q], rs[q], ys[q], y_rs[q])
                        else:
                            slopes[q] = sigmoid(xs[q], rs[q], ys[q], y_rs[q])
                    for k in range(outputs):
                        given, made = m[k, b, p, n], found[k, b, p, n]
                        for q in range(behind):
                            made[q] = given[q] * slopes[q]

    return kernel


@cache
def _over_last(kind: int) -> Any:
    """Of softmax or its logarithm; ``total`` has logsumexp where the others have their last axis."""

    @compiled
    def kernel(m, found, x, r, y, y_r, total, total_r, first, last):
        outputs, _, ahead, examples, behind, size = m.shape
        number = m.dtype.type
        slopes, weights = np.empty(size, m.dtype), np.empty(size, m.dtype)
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    for q in range(behind):
                        xs, rs, ys, y_rs = x[p, n, q], r[p, b, q], y[p, n, q], y_r[p, b, q]
                        D = total[p, n, q, 0] - total_r[p, b, q, 0]
                        fall = -math.expm1(-abs(D)) / abs(D) if D != 0 else 1.0
                        rising, falling = number(math.exp(min(D, 0.0)) / fall), number(math.exp(min(-D, 0.0)) / fall)
                        for i in range(size):
                            d = xs[i] - rs[i] if xs[i] != rs[i] else number(0)
                            if kind == SOFTMAX:
                                slopes[i] = exponentials(d - D, ys[i], y_rs[i])
                                weights[i] = exponentials(d, ys[i] * rising, y_rs[i] * falling)
                            else:
                                slopes[i] = number(1)
                                weights[i] = exponentials(d, math.exp(ys[i]) * rising, math.exp(y_rs[i]) * falling)
                        for k in range(outputs):
                            given, made = m[k, b, p, n, q], found[k, b, p, n, q]
                            of_all = number(0)
                            for i in range(size):
                                made[i] = given[i] * slopes[i]
                                of_all += made[i]
                            for i in range(size):
                                made[i] -= weights[i] * of_all

    return kernel


# ---------------------------------------------------------------------- when, and on what
def multipliers(step: Step, operation: Operation, m: Tensor, axis: int) -> Tensor | None:
    """Those of a step's only input, from its output's (outputs, references, *shape of x), which has the rows on an axis.

    None where there is no kernel, or has not been enough work to be worth its compilation.
    """
    kind = ELEMENTWISE.get(operation.secant, OVER_LAST.get(operation.rule))  # type: ignore[arg-type]
    x, y = step.inputs[0], step.outputs[0]
    if kind is None or m.device.type != "cpu" or numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return None
    if (
        m.dtype not in (torch.float32, torch.float64)
        or {x.dtype, y.dtype} != {m.dtype}
        or not m.shape[2:] == x.shape == y.shape
    ):
        return None
    key = kind, m.dtype
    _work[key] = _work.get(key, 0) + m.numel()
    if _work[key] < COMPILE_BEYOND:
        return None
    assert step.reference is not None
    sides = [x, step.reference.inputs[0], y, step.reference.outputs[0]]
    if kind in (RELU, TANH, SIGMOID):
        return _run(_elementwise(kind), m, axis, sides)
    totals = [step.memory, step.reference.memory]
    if axis == x.dim() - 1 or not _are_plain(axis, *sides[:2], *totals):
        return None
    return _run(_over_last(kind), m, axis, [*sides, *totals], last=1)


def _are_plain(axis: int, x: Tensor, r: Tensor, total: Tensor, total_r: Tensor) -> bool:
    """Whether no logits are masked as a whole, and the same are masked in all rows."""
    if bool((total < -MASKED).any()) or bool((total_r < -MASKED).any()):
        return False
    masked = [v < -MASKED for v in (x, r)]
    somewhere, everywhere = ([getattr(m, name)(axis) for m in masked] for name in ("any", "all"))
    return all(torch.equal(somewhere[0], v) for v in (somewhere[1], *everywhere))


def _run(kernel: Any, m: Tensor, axis: int, sides: Sequence[Tensor], last: int = 0) -> Tensor:
    """Run a kernel in threads, each for some references; ``last`` axes stay apart from those behind the rows."""
    m = m.contiguous()
    found, references = torch.empty_like(m), m.shape[1]

    def laid_out(v: Tensor, ahead: int = 0) -> np.ndarray:
        first, shape = ahead + axis, v.shape[v.dim() - last :] if last else ()
        behind = math.prod(v.shape[first + 1 : v.dim() - last])
        return v.reshape(*v.shape[:ahead], math.prod(v.shape[ahead:first]), v.shape[first], behind, *shape).numpy()

    arrays = [laid_out(m, 2), laid_out(found, 2), *(laid_out(v.contiguous()) for v in sides)]
    threads = torch.get_num_threads() if m.numel() >= THREADS_BEYOND else 1
    blocks = [(int(b[0]), int(b[-1]) + 1) for b in np.array_split(np.arange(references), min(threads, references))]
    in_threads([partial(kernel, *arrays, *block) for block in blocks])
    return found
