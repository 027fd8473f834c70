"""When a compiled kernel applies a rule to all pairs in one pass, and on what; work in threads of our own."""

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
from ...kernels.pairs import GREATEST, LOG_SOFTMAX, REGULAR, RELU, SIGMOID, SOFTMAX, STANDARDISED, TANH
from . import rules
from ._compat import dismiss_waiting_threads
from .operations import Operation, OperationRecord

ATTENTION, SUMS, FOLDED = -1, -2, -3
ELEMENTWISE = {secants.relu: RELU, secants.tanh: TANH, secants.sigmoid: SIGMOID}
OVER_LAST: dict[Any, int] = {
    rules.softmax: SOFTMAX,
    rules.log_softmax: LOG_SOFTMAX,
    rules.window_max: GREATEST,
    rules.standardize: STANDARDISED,
}
FEWEST_QUERIES = 8  # at once; with less, larger products in several passes are quicker
WEIGHTS = {ATTENTION: 8, GREATEST: 8, SUMS: 2}  # passes over queries times keys, elements of windows, differences
WINDOWS_AT_ONCE = 512  # by which loops over them are long, and in the cache
NUMBERS = {torch.float32, torch.float64}  # that kernels take


# ---------------------------------------------------------------------- when, and on what
def multipliers(record: OperationRecord, operation: Operation, m: Tensor, axis: int) -> list[Tensor | None] | None:
    """Those of a step's inputs, from its output's (outputs, references, *shape of y), which has the rows on an axis.

    None where there is no kernel, or has not been enough work to be worth its compilation.
    """
    kind = _worthwhile(record, operation, m)
    if kind is None or m.shape[2:] != record.outputs[0].shape:
        return None
    if kind == ATTENTION:
        return _attention(record, m, axis)
    if len(record.inputs) > 1:
        return None
    if kind in OVER_LAST.values():
        found = _by_last_axis(kind, record, m, axis)
    else:
        found = _by_element(kind, record, m, axis) if record.inputs[0].shape == record.outputs[0].shape else None
    return None if found is None else [found]


def contributions(m: Tensor, x: Tensor, r: Tensor, axis: int) -> Tensor | None:
    """Multipliers (references, *shape of x) times differences, summed over the references: (examples, *rest of x).

    None where there is no kernel, or has not been enough work.
    """
    if not _is_worthwhile(SUMS, m, (x, r)):
        return None
    totals = x.new_zeros(x.shape, dtype=torch.float64)
    sides = [_laid_out(v.detach().contiguous(), axis) for v in (x, r)]
    kernels.explain(_laid_out(totals, axis), _laid_out(m.contiguous(), axis, 0, 1), *sides)
    return totals.movedim(axis, 0)


def folded(columns: Tensor, into: Tensor, geometry: Sequence[tuple[int, ...]]) -> bool:
    """Add what places of a convolution saw, (rows, channels, *kernel, *places), to zeros; stride, padding and dilation as given.

    False where nothing is done: there is no kernel, or has not been enough work.
    """
    if not _is_worthwhile(FOLDED, columns, (into,)):
        return False
    kernels.fold(into.numpy(), columns.numpy(), *geometry)
    return True


def _worthwhile(record: OperationRecord, operation: Operation, m: Tensor) -> int | None:
    """The kind of an operation for which there is a kernel, and has been work enough for it."""
    if (kind := _kind(operation)) is None:
        return None
    return kind if _is_worthwhile(kind, m, (*record.inputs, record.outputs[0])) else None


def _is_worthwhile(kind: int, m: Tensor, values: Sequence[Tensor]) -> bool:
    """Whether a kernel takes multipliers of such values, and there has been work enough for it."""
    dtype = m.dtype
    if not m.is_cpu or dtype not in NUMBERS or {v.dtype for v in values} != {dtype}:
        return False
    if not jit_threshold.PAIRS.reached((kind, dtype), m.numel() * WEIGHTS.get(kind, 1)):
        return False
    return not numba.config.DISABLE_JIT  # type: ignore[attr-defined]


def _kind(operation: Operation) -> int | None:
    if operation.finite_everywhere:
        return REGULAR
    if operation.rule is rules.attention:
        return ATTENTION
    return ELEMENTWISE.get(operation.secant, OVER_LAST.get(operation.rule))  # type: ignore[arg-type]


def _attention(record: OperationRecord, m: Tensor, axis: int) -> list[Tensor | None] | None:
    """Where rows come first, of all operands alike, and products are not so large that queries go one by one."""
    assert record.reference is not None
    (q, k, v), (z, p, total) = (list(zip(*sides, strict=True)) for sides in _sides_of(record))
    queries, keys, width = q[0].shape[-2], k[0].shape[-2], max(q[0].shape[-1], v[0].shape[-1])
    at_once = attention.queries_at_once(queries, keys, width)
    alike = q[0].dim() > 2 and q[0].shape[:-2] == k[0].shape[:-2] == v[0].shape[:-2]
    if axis or not alike or at_once < min(queries, FEWEST_QUERIES) or not _are_plain(axis, *z, *total):
        return None
    found = [_like(i, m.shape[:2]) for i in record.inputs]
    turned = [side.mT for side in v]
    sides = [_by_heads(s).contiguous().numpy() for both in (q, k, turned, z, p) for s in both]
    sides += [_by_heads(s).squeeze(-1).contiguous().numpy() for s in total]
    placed = [part for values in found for part in _placed(values)]
    kernel, number = attention.kernel_of(sides[0].dtype), sides[0].dtype.type
    given = *_placed(m), *sides, *placed, len(m), number(record.arguments[3]), at_once
    _in_blocks(partial(kernel, *given), m)
    return list(found)


def _sides_of(record: OperationRecord) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    assert record.reference is not None
    return (record.inputs, record.reference.inputs), (record.memory, record.reference.memory)


def _by_heads(v: Tensor, ahead: int = 0) -> Tensor:
    """As (..., rows, heads, queries or keys, width), whatever there is in the place of heads."""
    return v.unsqueeze(ahead + 1) if v.dim() == ahead + 3 else v.flatten(ahead + 1, -3)


def _placed(multipliers: Tensor) -> tuple[np.ndarray, tuple[int, ...]]:
    """The numbers as they lie in memory, those of the last axis together, and the strides along the other axes."""
    m = _by_heads(multipliers if multipliers.stride(-1) == 1 else multipliers.contiguous(), 2)
    reach = 1 + sum((size - 1) * stride for size, stride in zip(m.shape, m.stride(), strict=True))
    return m.as_strided((reach,), (1,)).numpy(), m.stride()[:-1]


def _like(value: Tensor, ahead: torch.Size) -> Tensor:
    """Memory for multipliers of a value, whose axes lie as its own do: so the product that made it can take them as they are."""
    if value.dim() > 4:  # axes that the kernel takes as one lie together
        return value.new_empty(*ahead, *value.shape)
    strides = value.stride()
    order = sorted(range(value.dim() - 1), key=lambda axis: -strides[axis])
    back = [order.index(axis) for axis in range(value.dim() - 1)]
    made = value.new_empty(*ahead, *(value.shape[axis] for axis in order), value.shape[-1])
    return made.permute(0, 1, *(axis + 2 for axis in back), -1)


def _by_element(kind: int, record: OperationRecord, m: Tensor, axis: int) -> Tensor | None:
    assert record.reference is not None
    sides = [record.inputs[0], record.reference.inputs[0], record.outputs[0], record.reference.outputs[0]]
    if kind != REGULAR:
        return _run(kernels.elementwise(kind), m, torch.empty_like(m), axis, sides)
    slopes = [_derivative(side) for side in (record, record.reference)]
    if not all(bool(torch.isfinite(v).all()) for v in (*sides, *slopes)):
        return None
    return _run(kernels.finite_everywhere(), m, torch.empty_like(m), axis, [*sides, *slopes])


def _derivative(side: OperationRecord) -> Tensor:
    """Of an elementwise function, on one side."""
    (found,) = side.vjp(side.inputs, [torch.ones_like(side.outputs[0])])
    return torch.zeros_like(side.inputs[0]) if found is None else found


def _by_last_axis(kind: int, record: OperationRecord, m: Tensor, axis: int) -> Tensor | None:
    """Of functions of the whole last axis."""
    assert record.reference is not None
    sides, memories = [record.inputs[0], record.reference.inputs[0]], [record.memory, record.reference.memory]
    if axis == m.dim() - 3:
        return None
    if kind == GREATEST:
        return _greatest(record, m, axis)
    if kind == STANDARDISED:
        return _standardised(record, m, axis)
    if not _are_plain(axis, *sides, *memories):
        return None
    sides += [record.outputs[0], record.reference.outputs[0], *memories]
    return _run(kernels.over_last(kind), m, torch.empty_like(m), axis, sides, last=1)


def _greatest(record: OperationRecord, m: Tensor, axis: int) -> Tensor:
    """Rows of few windows, as of small pictures of many channels, several at once."""
    assert record.reference is not None
    windows, size, behind = m.shape[-1], record.inputs[0].shape[-1], math.prod(m.shape[axis + 3 : -1])
    count = max(n for n in range(1, max(1, WINDOWS_AT_ONCE // max(1, windows)) + 1) if behind % n == 0)
    begin = np.arange(count)[:, None, None] * size
    places, shift = record.arguments[1].positions, torch.as_tensor(begin).flatten().repeat_interleave(windows)

    def joined(v: Tensor, ahead: int = 0) -> Tensor:
        return v.reshape(*v.shape[: ahead + axis + 1], behind // count, count * v.shape[-1])

    sides = [
        joined(v)
        for v in (record.inputs[0], record.reference.inputs[0], record.outputs[0], record.reference.outputs[0])
    ]
    for marked in (joined(record.memory), joined(record.reference.memory)):
        sides.append(torch.where(marked < 0, marked - shift, marked + shift).int())
    elements = np.where(places < 0, -1, places + begin).reshape(-1, places.shape[1])
    found = m.new_empty(*m.shape[: axis + 3], behind // count, count * size)
    return _run(kernels.greatest(), joined(m, 2), found, axis, sides, 1, [elements]).view(*m.shape[:-1], size)


def _standardised(record: OperationRecord, m: Tensor, axis: int) -> Tensor:
    assert record.reference is not None
    _, weight, _, _, centred = record.arguments
    sides = [v for both in zip(record.memory, record.reference.memory, strict=True) for v in both]
    weights = m.new_ones(m.shape[-1]) if weight is None else weight.detach().to(m.dtype)
    kernel = kernels.standardised(centred)
    return _run(kernel, m, torch.empty_like(m), axis, sides, 1, [weights.numpy()])


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
    m, found = m.contiguous(), found.contiguous()
    arrays = [_laid_out(v, axis, last, 2) for v in (m, found)]
    arrays += [_laid_out(v.contiguous(), axis, last) for v in sides]
    _in_blocks(partial(kernel, *arrays, *constants), m)
    return found


def _laid_out(v: Tensor, axis: int, last: int = 0, ahead: int = 0) -> np.ndarray:
    """As (..., ahead, rows, behind, the last axes), where so many axes come before those of a value."""
    first, shape = ahead + axis, v.shape[v.dim() - last :] if last else ()
    behind = math.prod(v.shape[first + 1 : v.dim() - last])
    return v.reshape(*v.shape[:ahead], math.prod(v.shape[ahead:first]), v.shape[first], behind, *shape).numpy()


def _in_blocks(kernel: Callable[[int, int], None], m: Tensor) -> None:
    """Some references in each thread."""
    blocks = jit_threshold.blocks(m.shape[1], m.numel(), torch.get_num_threads())
    in_threads([partial(kernel, *block) for block in blocks])


TINY, ONE = 1e-310, 1.0  # whose product a processor may take for 0


def in_threads(tasks: list[Callable[[], Any]]) -> list[Any]:
    """Run tasks, each on one core, in this thread and in others. Were those to stay, they would slow down torch's own."""
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
        others = [pool.submit(work) for _ in range(min(threads, len(tasks)) - 1)]
        work()
        for other in others:
            other.result()
    torch.set_num_threads(threads)  # new threads of the user's take the number that was set last
    return results


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this thread to itself, and let it take numbers below 1e-38 for 0: multipliers fade over many steps."""
    threads, flushes = torch.get_num_threads(), TINY * ONE == 0
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushes)
