"""Apply rules in one pass over the pairs on the CPU: kernels instead of several operations of TensorFlow.

Kernels combine examples and references without laying them out for all pairs. The plain rules do the same in several
passes. They remain for operations without a kernel, for too little work to compile one, and for graphs that XLA compiles.
Tests compare the kernels with them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
import tensorflow as tf

from ...formulas import secants
from ...formulas.rules import MASKED
from ...kernels import jit_threshold
from .pairing import OperationRecord, Value

Sides = tuple[np.ndarray, np.ndarray]
Plain = Callable[..., Any]  # of a multiplier (examples, references, entries of a row, ...) and of both sides


def elementwise(secant: Any, record: OperationRecord, m: Any) -> Any:
    """Return the multiplier of the operand of relu, tanh or sigmoid; None without a kernel."""
    if secant not in (secants.relu, secants.tanh, secants.sigmoid) or not _is_covered(record, m):
        return None
    return _dispatch(secant.__name__, _times(secant), record, m, [])


def softmax(name: str, plain: Plain, record: OperationRecord, m: Any) -> Any:
    """Return the multiplier of the operand of softmax, or of its logarithm; None without a kernel."""
    operand = record.operands[0]
    if not _is_covered(record, m) or (operand.x.shape.rank or 0) < 2:
        return None
    return _dispatch(
        name, plain, record, m, [tf.reduce_logsumexp(side, -1, keepdims=True) for side in (operand.x, operand.r)]
    )


def mean(record: OperationRecord, value: Value) -> Any:
    """Return the mean of both sides of all pairs; None if it cannot be computed in one pass."""
    if not _is_paired_by_rows(record, value):
        return None
    averaged = tf.numpy_function(_mean(_inner(value)), [value.x, value.r], value.x.dtype, stateful=False)
    return tf.ensure_shape(averaged, [None, *value.x.shape[1:]])


def attributions(m: Any, value: Value) -> Any:
    """Return multipliers of an input times its differences, summed over the references of each example; None without a kernel."""
    if m.dtype != value.x.dtype or not has_kernels(m.dtype) or _inner(value) != 1:
        return None
    sums = tf.numpy_function(_sum_attributions, [m, value.x, value.r], tf.float64, stateful=False)
    return tf.ensure_shape(sums, value.x.shape)


# ---------------------------------------------------------------------- in the graph
@cache
def has_kernels(dtype: tf.DType) -> bool:
    """Return whether there are kernels for a dtype, on this machine."""
    return dtype in (tf.float32, tf.float64) and not tf.config.list_physical_devices("GPU")


def row_shape(value: Value) -> tuple[int | None, ...]:
    """Return the shape of a value whose rows, and nothing else, are its first axis; else an empty tuple."""
    layout = value.layout
    return layout.shape if layout is not None and (layout.axis, layout.inner, layout.outer) == (0, 1, 1) else ()


def _inner(value: Value) -> int:
    return value.layout.inner if value.layout is not None else 1


def _is_paired_by_rows(record: OperationRecord, value: Value) -> bool:
    """Return whether all examples meet all references in rows of their own, and kernels may run."""
    layout, dtypes = value.layout, {value.x.dtype, value.r.dtype}
    together = layout is not None and layout.axis == 0 and layout.outer == 1
    return record.run.has_kernels and together and all(map(has_kernels, dtypes))


def _is_covered(record: OperationRecord, m: Any) -> bool:
    (operand, *others), (result, *more) = record.operands, record.results
    alike = operand.layout == result.layout and {m.dtype, operand.x.dtype, result.x.dtype} == {m.dtype}
    return not others and not more and alike and _is_paired_by_rows(record, operand)


def _dispatch(name: str, plain: Plain, record: OperationRecord, m: Any, more: Sequence[Any]) -> Any:
    """Return the multiplier by a kernel, or by the plain rule if there is too little work for a kernel."""
    (operand,), (result,) = record.operands, record.results
    run = _rule(name, plain, _inner(operand), int(bool(more)))
    multiplier = tf.numpy_function(run, [m, operand.x, operand.r, result.x, result.r, *more], m.dtype, stateful=False)
    return tf.ensure_shape(multiplier, m.shape)


# ---------------------------------------------------------------------- when it runs
# TensorFlow keeps these for ever, once for each graph that calls one: so they hold nothing of a model.
@cache
def _times(secant: Any) -> Plain:
    def plain(m: Any, *sides: Any) -> Any:
        return m * secant(*sides)

    return plain


@cache
def _rule(name: str, plain: Plain, inner: int, last: int) -> Callable[..., np.ndarray]:
    def run(m: np.ndarray, *sides: np.ndarray) -> np.ndarray:
        fits = not last or is_unmasked(*sides[:2], *sides[4:])
        if fits and jit_threshold.PAIRS.reached((name, m.dtype), m.size) and is_compiled():
            return _by_kernel(name, m, sides, inner, last)
        pairs: list[Any] = [_as_grid(x, r, inner, last) for x, r in zip(sides[::2], sides[1::2], strict=True)]
        if last:  # the formula chooses places, which are not broadcast
            pairs = [np.broadcast_arrays(*pair) for pair in pairs]
        grid = m.reshape(len(pairs[0][0]), pairs[0][1].shape[1], *pairs[0][0].shape[2:])
        with np.errstate(all="ignore"):  # of few numbers in a fourth of the time that TensorFlow takes
            multiplier: np.ndarray = plain(grid, *(v for pair in pairs for v in pair))
        return multiplier.reshape(m.shape)

    return run


@cache
def _mean(inner: int) -> Callable[..., np.ndarray]:
    def run(x: np.ndarray, r: np.ndarray) -> np.ndarray:
        pairs: np.ndarray = np.add(*_as_grid(x, r, inner, 0))
        pairs *= 0.5
        return pairs.reshape(len(x) * len(r) // inner, *x.shape[1:])

    return run


def _sum_attributions(m: np.ndarray, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    n, b, size = len(x), len(r), math.prod(x.shape[1:])
    sums, arrays = np.zeros((n, size)), (m.reshape(n, b, size), x.reshape(n, size), r.reshape(b, size))
    if not (jit_threshold.PAIRS.reached(("explained", m.dtype), m.size) and is_compiled()):
        return (arrays[0] * (arrays[1][:, None] - arrays[2])).sum(1, dtype=np.float64).reshape(x.shape)
    in_blocks(partial(_kernels().sum_contributions(), *arrays, sums), n, m.size)
    return sums.reshape(x.shape)


def _kernels() -> Any:
    from ...kernels import pairs

    return pairs


@cache
def is_compiled() -> bool:
    """Return whether Numba compiles functions."""
    import numba  # takes half a second

    return not numba.config.DISABLE_JIT  # type: ignore[attr-defined]


def _as_grid(x: np.ndarray, r: np.ndarray, inner: int, last: int) -> Sides:
    """Return both sides, to be broadcast to (examples, references, entries of a row on its axis, all other axes but the last)."""
    cut = x.ndim - last  # TensorFlow broadcasts no more than eight axes
    behind = inner, math.prod(x.shape[1:cut]), *x.shape[cut:]
    return x.reshape(len(x) // inner, 1, *behind), r.reshape(1, len(r) // inner, *behind)


def _by_kernel(name: str, m: np.ndarray, sides: Sequence[np.ndarray], inner: int, last: int) -> np.ndarray:
    """Apply a rule that is symmetric in its sides: kernels have the other side outermost."""
    pairs = _kernels()
    kind = getattr(pairs, name.upper())
    kernel = pairs.softmax(kind) if last else pairs.elementwise(kind)
    n, b = (len(side) // inner for side in sides[:2])

    def laid_out(v: np.ndarray, *rows: int) -> np.ndarray:
        tail = v.shape[v.ndim - last :] if last else ()
        return v.reshape(*rows, math.prod(v.shape[: v.ndim - last]) // math.prod(rows), *tail)

    multipliers = np.empty_like(m)
    arrays = [laid_out(v, 1, n, 1, b) for v in (m, multipliers)]
    for x, r in zip(sides[::2], sides[1::2], strict=True):
        arrays += [laid_out(r, 1, b), laid_out(x, 1, n)]
    in_blocks(partial(kernel, *arrays), n, m.size)
    return multipliers


def is_unmasked(x: np.ndarray, r: np.ndarray, *totals: np.ndarray) -> bool:
    """Return whether no logits are masked completely, and the same ones are masked in all rows."""
    if any((total < -MASKED).any() for total in totals):
        return False
    masked = [v < -MASKED for v in (x, r)]
    return all((m == masked[0][:1]).all() for m in masked)


def in_blocks(kernel: Callable[[int, int], None], rows: int, work: int) -> None:
    """Run a kernel on some rows in each thread."""
    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
    blocks = jit_threshold.blocks(rows, work, threads)
    if len(blocks) == 1:
        kernel(0, rows)
        return
    with ThreadPoolExecutor(len(blocks), "deepshap") as pool:
        for part in [pool.submit(kernel, *block) for block in blocks]:
            part.result()
