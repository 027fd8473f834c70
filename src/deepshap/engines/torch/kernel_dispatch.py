"""Compiled kernels that apply a rule to all pairs in one pass: when they are used, how arrays are laid out, and threads."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ...formulas import secants
from ...formulas.rules import MASKED
from ...kernels import attention, jit_threshold
from ...kernels import pairs as kernels
from ...kernels.pairs import LAYER_NORM, LOG_SOFTMAX, RELU, SIGMOID, SMOOTH, SOFTMAX, TANH, WINDOW_MAX
from . import rules
from ._compat import dismiss_waiting_threads
from .operations import Operation, OperationRecord

ATTENTION, SUMS, FOLDED = -1, -2, -3
ELEMENTWISE = {secants.relu: RELU, secants.tanh: TANH, secants.sigmoid: SIGMOID}
OVER_LAST: dict[Any, int] = {
    rules.softmax: SOFTMAX,
    rules.log_softmax: LOG_SOFTMAX,
    rules.window_max: WINDOW_MAX,
    rules.standardize: LAYER_NORM,
}
FEWEST_QUERIES = 8  # at once; with fewer, larger products in several passes are faster
WEIGHTS = {
    ATTENTION: 8,
    WINDOW_MAX: 8,
    SUMS: 2,
}  # work per multiplier, 1 by default
WINDOWS_AT_ONCE = 512  # so that loops over windows are long, and stay in the cache
DTYPES = {torch.float32, torch.float64}  # that kernels accept


# ---------------------------------------------------------------------- when, and on what
def multipliers(record: OperationRecord, operation: Operation, m: Tensor, axis: int) -> list[Tensor | None] | None:
    """Return the multipliers of an operation's inputs, from its output's (outputs, references, *shape of y).

    ``axis`` is the batch axis of the output. Returns None if there is no kernel, or not enough work so far to be worth its
    compilation.
    """
    kind = _kernel_kind(record, operation, m)
    if kind is None or m.shape[2:] != record.outputs[0].shape:
        return None
    if kind == ATTENTION:
        return _attention(record, m, axis)
    if len(record.inputs) > 1:
        return None
    if kind in OVER_LAST.values():
        m_x = _by_last_axis(kind, record, m, axis)
    else:
        m_x = _by_element(kind, record, m, axis) if record.inputs[0].shape == record.outputs[0].shape else None
    return None if m_x is None else [m_x]


def contributions(m: Tensor, x: Tensor, r: Tensor, axis: int) -> Tensor | None:
    """Return multipliers (references, *shape of x) times differences, summed over the references: (examples, *rest of x).

    Returns None if there is no kernel, or not enough work so far.
    """
    if not _reaches_threshold(SUMS, m, (x, r)):
        return None
    totals = x.new_zeros(x.shape, dtype=torch.float64)
    sides = [_lay_out(v.detach().contiguous(), axis) for v in (x, r)]
    kernels.add_contributions(_lay_out(totals, axis), _lay_out(m.contiguous(), axis, 0, 1), *sides)
    return totals.movedim(axis, 0)


def fold(columns: Tensor, into: Tensor, geometry: Sequence[tuple[int, ...]]) -> bool:
    """Add the columns of a convolution, (rows, channels, *kernel, *positions), to zeros.

    ``geometry`` is stride, padding and dilation. Returns False, without adding anything, if there is no kernel or not enough
    work so far.
    """
    if not _reaches_threshold(FOLDED, columns, (into,)):
        return False
    kernels.fold(into.numpy(), columns.numpy(), *geometry)
    return True


def _kernel_kind(record: OperationRecord, operation: Operation, m: Tensor) -> int | None:
    """Return the kind of kernel for an operation, or None if there is none or not enough work so far."""
    if (kind := _kind(operation)) is None:
        return None
    return kind if _reaches_threshold(kind, m, (*record.inputs, record.outputs[0])) else None


def _reaches_threshold(kind: int, m: Tensor, values: Sequence[Tensor]) -> bool:
    """Return whether a kernel accepts multipliers of such values, and there has been enough work to compile it."""
    dtype = m.dtype
    if not m.is_cpu or dtype not in DTYPES or {v.dtype for v in values} != {dtype}:
        return False
    if not jit_threshold.PAIRS.reached((kind, dtype), m.numel() * WEIGHTS.get(kind, 1)):
        return False
    return not numba.config.DISABLE_JIT  # type: ignore[attr-defined]


def _kind(operation: Operation) -> int | None:
    if operation.finite_everywhere:
        return SMOOTH
    if operation.rule is rules.attention:
        return ATTENTION
    return ELEMENTWISE.get(operation.secant, OVER_LAST.get(operation.rule))  # type: ignore[arg-type]


def _attention(record: OperationRecord, m: Tensor, axis: int) -> list[Tensor | None] | None:
    """Return the multipliers of attention; None if rows are not first in all operands, or products are large."""
    assert record.reference is not None
    q, k, v = zip(record.inputs, record.reference.inputs, strict=True)
    z, p, total = zip(record.memory, record.reference.memory, strict=True)
    queries, keys, width = q[0].shape[-2], k[0].shape[-2], max(q[0].shape[-1], v[0].shape[-1])
    at_once = attention.queries_at_once(queries, keys, width)
    same_shapes = q[0].dim() > 2 and q[0].shape[:-2] == k[0].shape[:-2] == v[0].shape[:-2]
    if axis or not same_shapes or at_once < min(queries, FEWEST_QUERIES) or not _masks_are_equal(axis, *z, *total):
        return None
    m_inputs = [_empty_like(i, m.shape[:2]) for i in record.inputs]
    transposed = [side.mT for side in v]
    sides = [_by_heads(s).contiguous().numpy() for pair in (q, k, transposed, z, p) for s in pair]
    sides += [_by_heads(s).squeeze(-1).contiguous().numpy() for s in total]
    memory = [part for values in m_inputs for part in _memory_and_strides(values)]
    kernel, number = attention.kernel_of(sides[0].dtype), sides[0].dtype.type
    arguments = *_memory_and_strides(m), *sides, *memory, len(m), number(record.arguments[3]), at_once
    _in_blocks(partial(kernel, *arguments), m)
    return list(m_inputs)


def _by_heads(v: Tensor, ahead: int = 0) -> Tensor:
    """Reshape to (..., rows, heads, queries or keys, width), whatever the axes of heads are."""
    return v.unsqueeze(ahead + 1) if v.dim() == ahead + 3 else v.flatten(ahead + 1, -3)


def _memory_and_strides(multipliers: Tensor) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the memory of multipliers as a flat array with a contiguous last axis, and the strides of the other axes."""
    m = _by_heads(multipliers if multipliers.stride(-1) == 1 else multipliers.contiguous(), 2)
    reach = 1 + sum((size - 1) * stride for size, stride in zip(m.shape, m.stride(), strict=True))
    return m.as_strided((reach,), (1,)).numpy(), m.stride()[:-1]


def _empty_like(value: Tensor, ahead: torch.Size) -> Tensor:
    """Return memory for multipliers with the axis order of a value, so that matrix products use them without a copy."""
    if value.dim() > 4:  # the kernel flattens these axes
        return value.new_empty(*ahead, *value.shape)
    strides = value.stride()
    order = sorted(range(value.dim() - 1), key=lambda axis: -strides[axis])
    back = [order.index(axis) for axis in range(value.dim() - 1)]
    empty = value.new_empty(*ahead, *(value.shape[axis] for axis in order), value.shape[-1])
    return empty.permute(0, 1, *(axis + 2 for axis in back), -1)


def _by_element(kind: int, record: OperationRecord, m: Tensor, axis: int) -> Tensor | None:
    assert record.reference is not None
    sides = [record.inputs[0], record.reference.inputs[0], record.outputs[0], record.reference.outputs[0]]
    if kind != SMOOTH:
        return _run(kernels.elementwise(kind), m, torch.empty_like(m), axis, sides)
    slopes = [_derivative(side) for side in (record, record.reference)]
    if not all(bool(torch.isfinite(v).all()) for v in (*sides, *slopes)):
        return None
    return _run(kernels.smooth(), m, torch.empty_like(m), axis, [*sides, *slopes])


def _derivative(side: OperationRecord) -> Tensor:
    """Return the derivative of an elementwise function on one side."""
    (gradient,) = side.vjp(side.inputs, [torch.ones_like(side.outputs[0])])
    return torch.zeros_like(side.inputs[0]) if gradient is None else gradient


def _by_last_axis(kind: int, record: OperationRecord, m: Tensor, axis: int) -> Tensor | None:
    """Return the multipliers of a function of the whole last axis."""
    assert record.reference is not None
    sides, memories = [record.inputs[0], record.reference.inputs[0]], [record.memory, record.reference.memory]
    if axis == m.dim() - 3:
        return None
    if kind == WINDOW_MAX:
        return _window_max(record, m, axis)
    if kind == LAYER_NORM:
        return _standardize(record, m, axis)
    if not _masks_are_equal(axis, *sides, *memories):
        return None
    sides += [record.outputs[0], record.reference.outputs[0], *memories]
    return _run(kernels.softmax(kind), m, torch.empty_like(m), axis, sides, last=1)


def _window_max(record: OperationRecord, m: Tensor, axis: int) -> Tensor:
    """Return the multipliers of a maximum over windows; rows of few windows are processed several at once."""
    assert record.reference is not None
    windows, size, inner_rows = m.shape[-1], record.inputs[0].shape[-1], math.prod(m.shape[axis + 3 : -1])
    count = max(n for n in range(1, max(1, WINDOWS_AT_ONCE // max(1, windows)) + 1) if inner_rows % n == 0)
    begin = np.arange(count)[:, None, None] * size
    positions, shift = record.arguments[1].positions, torch.as_tensor(begin).flatten().repeat_interleave(windows)

    def join_rows(v: Tensor, ahead: int = 0) -> Tensor:
        return v.reshape(*v.shape[: ahead + axis + 1], inner_rows // count, count * v.shape[-1])

    sides = [
        join_rows(v)
        for v in (record.inputs[0], record.reference.inputs[0], record.outputs[0], record.reference.outputs[0])
    ]
    for positions_of_max in (join_rows(record.memory), join_rows(record.reference.memory)):
        sides.append(torch.where(positions_of_max < 0, positions_of_max - shift, positions_of_max + shift).int())
    elements = np.where(positions < 0, -1, positions + begin).reshape(-1, positions.shape[1])
    m_x = m.new_empty(*m.shape[: axis + 3], inner_rows // count, count * size)
    return _run(kernels.window_max(), join_rows(m, 2), m_x, axis, sides, 1, [elements]).view(*m.shape[:-1], size)


def _standardize(record: OperationRecord, m: Tensor, axis: int) -> Tensor:
    assert record.reference is not None
    _, weight, _, _, centred = record.arguments
    sides = [v for pair in zip(record.memory, record.reference.memory, strict=True) for v in pair]
    weights = m.new_ones(m.shape[-1]) if weight is None else weight.detach().to(m.dtype)
    kernel = kernels.layer_norm(centred)
    return _run(kernel, m, torch.empty_like(m), axis, sides, 1, [weights.numpy()])


def _masks_are_equal(axis: int, x: Tensor, r: Tensor, total: Tensor, total_r: Tensor) -> bool:
    """Return whether no row of logits is masked completely, and all rows have the same mask."""
    if bool((total < -MASKED).any()) or bool((total_r < -MASKED).any()):
        return False
    masked = [v < -MASKED for v in (x, r)]
    somewhere, everywhere = ([getattr(m, name)(axis) for m in masked] for name in ("any", "all"))
    return all(torch.equal(somewhere[0], v) for v in (somewhere[1], *everywhere))


def _run(
    kernel: Any,
    m: Tensor,
    result: Tensor,
    axis: int,
    sides: Sequence[Tensor],
    last: int = 0,
    constants: Sequence[np.ndarray] = (),
) -> Tensor:
    """Run a kernel in threads, each for some references; the ``last`` axes stay separate from those after the rows."""
    m, result = m.contiguous(), result.contiguous()
    arrays = [_lay_out(v, axis, last, 2) for v in (m, result)]
    arrays += [_lay_out(v.contiguous(), axis, last) for v in sides]
    _in_blocks(partial(kernel, *arrays, *constants), m)
    return result


def _lay_out(v: Tensor, axis: int, last: int = 0, ahead: int = 0) -> np.ndarray:
    """Reshape to (*ahead, axes before the rows, rows, axes after the rows, *last axes), with ``ahead`` and ``last`` axes kept."""
    first, shape = ahead + axis, v.shape[v.dim() - last :] if last else ()
    after = math.prod(v.shape[first + 1 : v.dim() - last])
    return v.reshape(*v.shape[:ahead], math.prod(v.shape[ahead:first]), v.shape[first], after, *shape).numpy()


def _in_blocks(kernel: Callable[[int, int], None], m: Tensor) -> None:
    """Run a kernel on blocks of references, in threads."""
    blocks = jit_threshold.blocks(m.shape[1], m.numel(), torch.get_num_threads())
    in_threads([partial(kernel, *block) for block in blocks])


TINY, ONE = 1e-310, 1.0  # their product is 0 if the processor flushes denormal numbers


def in_threads(tasks: list[Callable[[], Any]]) -> list[Any]:
    """Run tasks, each on one core, in this thread and in temporary ones, which would slow down torch's own if they stayed."""
    threads = torch.get_num_threads()
    if threads == 1 or len(tasks) == 1:
        with _one_core():
            return [task() for task in tasks]
    results: list[Any] = [None] * len(tasks)
    waiting = deque(range(len(tasks)))

    def work() -> None:
        with _one_core():
            while waiting:
                try:
                    k = waiting.popleft()
                except IndexError:  # another thread was faster
                    return
                results[k] = tasks[k]()

    dismiss_waiting_threads()
    with ThreadPoolExecutor(threads - 1, "deepshap") as pool:
        futures = [pool.submit(work) for _ in range(min(threads, len(tasks)) - 1)]
        work()
        for future in futures:
            future.result()
    torch.set_num_threads(threads)  # new threads of the user inherit the number that was set last
    return results


@contextmanager
def _one_core() -> Iterator[None]:
    """Use one core in this context, and flush numbers below 1e-38 to 0: multipliers fade over many steps."""
    threads, flushes = torch.get_num_threads(), TINY * ONE == 0
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushes)
