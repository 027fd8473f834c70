"""The two sides of a traced model, and how a rule sees an operation on all pairs of them.

A ``Value`` is a tensor of the model on the examples and on the references, which are computed once for each. Where a rule
needs a pair, a ``Pairing`` lays the two sides beside each other along the axis of their rows (``batch_axes.py`` finds the
axis). If the axis of some value is not found, the whole model runs on all pairs from the start. An ``OperationRecord`` is
an operation with its operands and results, as its rule sees them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import tensorflow as tf

from ...errors import UnsupportedOperationError
from ...formulas.traced import cached
from .operations import emit

ROWS = 7919  # a prime, for a number of rows that nothing else has


@dataclass(frozen=True)
class Layout:
    """The shape of a value with ``ROWS`` rows, the axis of the rows, and how many entries each row has on that axis.

    The axis is (outer, rows, inner), as one axis. For a list of tensors: the shape of its elements.
    """

    shape: tuple[int | None, ...]
    axis: int
    inner: int = 1
    outer: int = 1

    @property
    def static(self) -> tuple[int | None, ...]:
        """The shape for any number of rows."""
        return tuple(None if k == self.axis else size for k, size in enumerate(self.shape))

    @property
    def numbers(self) -> int | None:
        """The number of elements of a row, if it is known."""
        if None in self.shape:
            return None
        return self.outer * self.inner * math.prod(1 if size is None else size for size in self.static)


@dataclass(eq=False)
class Value:
    """A tensor of the model on both sides of the pairs.

    Attributes
    ----------
    x, r : on the example side and on the reference side; one and the same tensor where they cannot differ.
    active : whether it depends on the explained inputs.
    p : of a constant: what it is when the model runs on all pairs; ``x`` by default.
    layout : of an active value: where the rows lie in ``x`` and ``r``, if that is known.
    origin : of indices that may differ between the sides: where they come from.
    sized : of what has as many entries as values decide: what has counted them.
    """

    x: Any
    r: Any
    active: bool = False
    p: Any = None
    layout: Layout | None = None
    origin: str = ""
    sized: str = ""

    def __post_init__(self) -> None:
        self.p = self.x if self.p is None else self.p

    @property
    def is_list(self) -> bool:
        """Whether it is a list of tensors."""
        return self.x.dtype == tf.variant


class Unpaired(Exception):
    """The axis of the rows of a value is not known. Then the whole model runs on all pairs, where no axis is needed."""


class Pairing:
    """Lay the two sides of a value beside each other, one row for each pair. Here both run on the pairs from the start.

    ``is_separate``: whether each side runs on its own rows. ``compiles``: whether XLA may compile the graph; its vector code
    fuses and broadcasts, but gathers number by number.
    """

    is_separate = compiles = False

    def spread(self, value: Value) -> tuple[Any, Any]:
        """Return both sides, row by row of the pairs."""
        return value.x, value.r

    def blank(self, value: Value, dtype: tf.DType) -> Any:
        """Return a tensor of the pairs' shape, whose values do not matter."""
        return tf.cast(value.x, dtype) if value.x.dtype != dtype else tf.identity(value.x)

    def shape(self, value: Value) -> Any:
        """Return the pairs' shape."""
        return tf.shape(value.x)

    def element_shape(self, value: Value) -> Any:
        """Return the shape of the elements of a list, if it is known."""
        return None


class AllPairs(Pairing):
    """Run each side on its own rows; every example meets every reference."""

    is_separate = True

    def __init__(self, examples: Any, references: Any, compiles: bool) -> None:
        self.compiles = compiles
        self.examples, self.references, self.pairs = examples, references, examples * references
        self.of_example = tf.range(self.pairs) // references  # tf.repeat is twenty operations
        self.of_reference = tf.tile(tf.range(references), [examples])
        self._made: dict[Any, Any] = {}  # what several steps ask for

    def _once(self, make: Callable[[], Any], *key: Any) -> Any:
        """Return what is computed once in each graph."""
        key = tf.compat.v1.get_default_graph(), *key
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def spread(self, value: Value) -> tuple[Any, Any]:
        """Return both sides, repeated: examples outermost."""
        if value.x is value.r:
            return value.x, value.r
        layout = _known(value)
        return self._once(lambda: self._spread(value, layout), value)

    def _spread(self, value: Value, layout: Layout) -> tuple[Any, Any]:
        if self.compiles:
            x, r = _broadcast(layout.axis, layout.inner, layout.outer)(value.x, value.r)
            return x, r
        places = self._once(lambda: self._places(layout), "places", layout.inner, layout.outer)
        x, r = _taken(layout.axis)(value.x, value.r, *places)
        return x, r

    def _places(self, layout: Layout) -> tuple[Any, ...]:
        """Return the entries of both sides for the entries of pairs."""
        sides = (self.of_example, self.examples), (self.of_reference, self.references)
        return tuple(tf.reshape(self._entries(*side, layout), [-1]) for side in sides)

    def _entries(self, row: Any, rows: Any, layout: Layout) -> Any:
        if layout.inner > 1:
            row = row[:, None] * layout.inner + tf.range(layout.inner)
        if layout.outer > 1:
            row = row[None] + tf.reshape(tf.range(layout.outer) * rows * layout.inner, [-1] + [1] * row.shape.rank)
        return row

    def blank(self, value: Value, dtype: tf.DType) -> Any:
        """Return zeros."""
        return tf.identity(self._once(lambda: tf.zeros(self.shape(value), dtype), "blank", _shaped(value), dtype))

    def shape(self, value: Value) -> Any:
        """Return the shape of the example side, with as many rows as there are pairs."""
        layout, source = _known(value), _shaped(value)
        return self._once(
            lambda: self._sizes(layout, tf.shape(value.x) if source is value else layout.shape), "shape", source
        )

    def _sizes(self, layout: Layout, sizes: Any) -> Any:
        entries = layout.inner * layout.outer
        rows = self.pairs if entries == 1 else self.pairs * entries
        return tf.stack([rows if k == layout.axis else sizes[k] for k in range(len(layout.shape))])

    def element_shape(self, value: Value) -> Any:
        """Return the shape of elements from their layout."""
        layout = value.layout
        return None if layout is None or layout.numbers is None else self.shape(value)


@cache
def _taken(axis: int) -> Callable[..., Any]:
    """Build the function that gathers entries of both sides on an axis."""

    def taken(x: Any, r: Any, at: Any, at_r: Any) -> list[Any]:
        return [tf.gather(x, at, axis=axis), tf.gather(r, at_r, axis=axis)]

    return cached(taken)


@cache
def _broadcast(axis: int, inner: int, outer: int) -> Callable[..., Any]:
    """Build the function that repeats both sides along an axis, which is (outer, rows, inner), as one axis."""

    def repeated(x: Any, r: Any) -> list[Any]:
        sizes = [tf.shape(v) for v in (x, r)]
        rows = [s[axis] // (outer * inner) for s in sizes]

        def laid_out(v: Any, s: Any, ahead: Any) -> Any:
            around, behind = s[:axis], s[axis + 1 :]
            alone = tf.reshape(v, tf.concat([around, [outer, *ahead, inner], behind], 0))
            together = tf.broadcast_to(alone, tf.concat([around, [outer, *rows, inner], behind], 0))
            return tf.reshape(together, tf.concat([around, [outer * rows[0] * rows[1] * inner], behind], 0))

        return [laid_out(v, s, a) for v, s, a in zip((x, r), sizes, ([-1, 1], [1, -1]), strict=True)]

    return cached(repeated)


def _known(value: Value) -> Layout:
    if value.layout is None:
        raise Unpaired(f"{value.x.name} {value.x.shape}")
    return value.layout


def _shaped(value: Value) -> Layout | Value:
    """Return what determines a value's shape: its layout, if all of its sizes are known, else the value."""
    layout = _known(value)
    return value if layout.numbers is None else layout


class OperationRecord:
    """One operation of the model on the pairs, as its rule sees it.

    Attributes
    ----------
    op : the operation in the traced graph; ``op.get_attr`` has its attributes.
    name : type of the operation, as in docs/supported-keras.md.
    place : the layer it belongs to.
    varying : of each operand, whether it depends on what is explained.
    """

    def __init__(self, run: Any, op: Any, operands: Sequence[Value], results: Sequence[Value]) -> None:
        self.run, self.op, self.operands, self.results = run, op, list(operands), list(results)
        self.name, self.place = op.type, run.library.place(op)
        self.varying = tuple(v.active for v in operands)

    @cached_property
    def _inputs(self) -> list[tuple[Any, ...]]:
        return [self._spread(v) for v in self.operands if v.active]

    @cached_property
    def _outputs(self) -> list[tuple[Any, ...]]:
        return [self._spread(v) for v in self.results]

    def _spread(self, value: Value) -> tuple[Any, ...]:
        return tuple(map(self.run.floating, self.run.pairing.spread(value)))

    @property
    def inputs(self) -> tuple[Any, ...]:
        """Varying operands on the example side, row by row of the pairs, integers and booleans as floats."""
        return tuple(x for x, _ in self._inputs)

    @property
    def reference_inputs(self) -> tuple[Any, ...]:
        """The varying operands on the reference side."""
        return tuple(r for _, r in self._inputs)

    @property
    def outputs(self) -> tuple[Any, ...]:
        """Results on the example side."""
        return tuple(y for y, _ in self._outputs)

    @property
    def reference_outputs(self) -> tuple[Any, ...]:
        """Results on the reference side."""
        return tuple(yr for _, yr in self._outputs)

    def sides(self) -> list[tuple[Any, Any]]:
        """Return both sides of every operand as floats; a constant is the same on both."""
        varying = iter(self._inputs)
        constants = (self.run.floating(v.p) for v in self.operands)
        return [next(varying) if v.active else (c, c) for v, c in zip(self.operands, constants, strict=True)]

    def static(self, k: int) -> Any:
        """Return the value of a constant operand that is known while tracing, as an array; else None."""
        return tf.get_static_value(self.operands[k].p)

    def points(self) -> list[Any]:
        """Return tensors of the shapes of the varying operands, whose values do not matter."""
        return [self.run.pairing.blank(v, self.run.float_of(v)) for v in self.operands if v.active]

    def _filled(self, inputs: Sequence[Any]) -> list[Any]:
        replacements = iter(inputs)
        return [next(replacements) if v.active else v.p for v in self.operands]

    def evaluate(self, *inputs: Any) -> Any:
        """Return the operation's output for varying inputs, or a list of several outputs."""
        cast = [tf.cast(t, v.x.dtype) for t, v in zip(self._filled(inputs), self.operands, strict=True)]
        floats = [self.run.floating(r) for r in emit(self.op, cast)]
        return floats[0] if len(floats) == 1 else floats

    def linearised(self, *inputs: Any) -> list[Any]:
        """Return the same, computed in floats throughout, so that gradients reach the inputs."""
        return emit(self.op, self._filled(inputs), retyped=True)

    def vjp(self, points: Sequence[Any], multipliers: Sequence[Any]) -> list[Any]:
        """Return the gradient at some points, from the multipliers of the outputs that have one."""
        pairs = zip(self.linearised(*points), multipliers, strict=True)
        reached = [(v, tf.cast(m, v.dtype)) for v, m in pairs if m is not None]
        try:
            gradients = tf.gradients([v for v, _ in reached], points, [m for _, m in reached])
        except LookupError as error:
            raise UnsupportedOperationError(
                f"the rule of {self.name} in {self.place} asks for its derivative, and TensorFlow has none ({error}). Register "
                'it as "elementwise", or with a rule of its own.'
            ) from error
        return [None if g is None else tf.convert_to_tensor(g) for g in gradients]

    def shares(self, *multipliers: Any) -> list[Any]:
        """Keep the multipliers of the varying operands, summed over broadcast axes."""
        return self.unbroadcast([m for m, v in zip(multipliers, self.operands, strict=False) if v.active])

    def unbroadcast(self, multipliers: Sequence[Any]) -> list[Any]:
        """Sum multipliers of the varying operands over the axes along which they were broadcast."""
        varying = [v for v in self.operands if v.active]
        single = len(self.operands) == 1
        return [m if single else self._unbroadcast(m, v) for m, v in zip(multipliers, varying, strict=True)]

    def _unbroadcast(self, multiplier: Any, operand: Value) -> Any:
        result, wanted = self.results[0].layout, operand.layout
        if (
            result
            and wanted
            and None not in (result.numbers, wanted.numbers)
            and multiplier.shape.rank == len(result.shape)
        ):
            return _summed(multiplier, result.static, wanted.static, lambda: self.run.pairing.shape(operand))
        shape_wanted, actual = operand.x.shape, multiplier.shape
        if shape_wanted.is_fully_defined() and actual.is_fully_defined() and shape_wanted == actual:
            return multiplier
        shape = self.run.pairing.shape(operand)
        _, axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(multiplier), s1=shape)
        return tf.reshape(tf.reduce_sum(multiplier, axes), shape)


def _summed(tensor: Any, result: Sequence[Any], wanted: Sequence[Any], shape: Callable[[], Any]) -> Any:
    """Return a tensor summed over the axes along which a shape was broadcast to another one; None are the rows."""
    missing = len(result) - len(wanted)
    axes = [k for k, size in enumerate(result) if k < missing or size != wanted[k - missing]]
    return tf.reshape(tf.reduce_sum(tensor, axes), shape()) if axes else tensor
