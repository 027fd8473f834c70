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
from .compiled import compiled, exponentials, half_sum, relu, sigmoid, tanh
from .operations import Operation, Step
from .threads import in_threads

RELU, TANH, SIGMOID, REGULAR, SOFTMAX, LOG_SOFTMAX, GREATEST = range(7)
ELEMENTWISE = {secants.relu: RELU, secants.tanh: TANH, secants.sigmoid: SIGMOID}
OVER_LAST: dict[Any, int] = {rules.softmax: SOFTMAX, rules.log_softmax: LOG_SOFTMAX, rules.greatest: GREATEST}
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
def _regular() -> Any:
    """Of any function by its derivatives: their mean where it explains the difference to rounding, else the quotient."""

    @compiled
    def kernel(m, found, x, r, y, y_r, s, s_r, first, last):
        outputs, _, ahead, examples, behind = m.shape
        number, slopes = m.dtype.type, np.empty(behind, m.dtype)
        rounding = number(np.finfo(m.dtype).eps)
        close = number(
            4 * np.sqrt(np.finfo(m.dtype).eps)
        )  # the mean is exact there, and gelu itself is off by 3 roundings
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    xs, rs, ys, y_rs, one, two = x[p, n], r[p, b], y[p, n], y_r[p, b], s[p, n], s_r[p, b]
                    for q in range(behind):
                        distance, difference, mean = xs[q] - rs[q], ys[q] - y_rs[q], half_sum(one[q], two[q])
                        size = abs(xs[q]) + abs(rs[q]) + abs(ys[q]) + abs(y_rs[q])  # tails of y are rounded as x is
                        size *= number(4) * rounding if abs(distance) < close else rounding
                        near = abs(difference - mean * distance) <= size
                        slopes[q] = (mean if near else difference) / (number(1) if near else distance)
                    for k in range(outputs):
                        given, made = m[k, b, p, n], found[k, b, p, n]
                        for q in range(behind):
                            made[q] = given[q] * slopes[q]

    return kernel


@compiled
def _decides(x, r, y, y_r):
    """Whether an element of a window has the greatest value of the side that decides."""
    return x == y if y > y_r else r == y_r if y < y_r else x == y and r == y_r


@compiled
def _share(m, found, x, r, y, y_r, elements):
    """Of a window in which elements tie; m is (outputs,), found (outputs, elements), y and y_r are the greatest values."""
    number = m.dtype.type
    count = number(0)
    for e in elements:
        if e >= 0 and _decides(x[e], r[e], y, y_r):
            count += number(1)
    for e in elements:
        if e >= 0 and _decides(x[e], r[e], y, y_r):
            share = (number(1) if y == y_r else (y - y_r) / (x[e] - r[e])) / count
            for k in range(len(m)):
                found[k, e] += m[k] * share


@cache
def _greatest() -> Any:
    """Of the greatest values of windows, with their marked positions i and j, and the positions of all elements."""

    @compiled
    def kernel(m, found, x, r, i, j, elements, first, last):
        outputs, _, ahead, examples, behind, windows = m.shape
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    for q in range(behind):
                        xs, rs, at, at_r = x[p, n, q], r[p, b, q], i[p, n, q], j[p, b, q]
                        for k in range(outputs):
                            found[k, b, p, n, q, :] = 0
                        for w in range(windows):
                            one, two = max(at[w], ~at[w]), max(at_r[w], ~at_r[w])
                            y, y_r = xs[one], rs[two]
                            several, several_r = at[w] < 0 and y >= y_r, at_r[w] < 0 and y <= y_r
                            if several or several_r:
                                _share(m[:, b, p, n, q, w], found[:, b, p, n, q], xs, rs, y, y_r, elements[w])
                            elif one == two or y != y_r:
                                to = two if y < y_r else one
                                share = (y - y_r) / (xs[to] - rs[to]) if one != two else m.dtype.type(1)
                                for k in range(outputs):
                                    found[k, b, p, n, q, to] += m[k, b, p, n, q, w] * share

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
        return _run(_elementwise(kind), m, torch.empty_like(m), axis, sides)
    slopes = [_derivative(side) for side in (step, step.reference)]
    if not all(bool(torch.isfinite(v).all()) for v in (*sides, *slopes)):
        return None
    return _run(_regular(), m, torch.empty_like(m), axis, [*sides, *slopes])


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
        return _run(_greatest(), m, found, axis, [*sides, *memories], 1, [step.arguments[1].positions])
    if not _are_plain(axis, *sides, *memories):
        return None
    sides += [step.outputs[0], step.reference.outputs[0], *memories]
    return _run(_over_last(kind), m, torch.empty_like(m), axis, sides, last=1)


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
