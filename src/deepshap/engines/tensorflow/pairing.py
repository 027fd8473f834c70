"""The two sides of a traced model laid beside each other, one row for each pair.

Forward values belong to an example or to a reference, and are computed once for each. Where a rule needs a pair, the two
are laid side by side along the axis of their rows (``layouts.py`` finds it). Where an axis is not found the whole model
runs on pairs from the start.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import tensorflow as tf

from ...formulas.traced import once
from .values import Layout, Value


class Unpaired(Exception):
    """It is not known where the rows of a value lie. Then the whole model runs on pairs, where that is never asked."""


class Pairing(Protocol):
    """Lays the two sides of a value beside each other, one row for each pair.

    ``apart``: whether examples and references run by themselves. ``compiles``: whether XLA may compile what is made of them,
    whose vector code fuses and broadcasts, and gathers number by number.
    """

    apart: bool
    compiles: bool

    def spread(self, value: Value) -> tuple[Any, Any]:
        """Both sides, row by row of the pairs."""

    def blank(self, value: Value, dtype: tf.DType) -> Any:
        """A tensor of the pairs' shape, whose values do not matter."""

    def shape(self, value: Value) -> Any:
        """The pairs' shape."""

    def element_shape(self, value: Value) -> Any:
        """That of the elements of a list, if it is known."""


class Pairwise:
    """Both sides run on the pairs from the start."""

    apart = compiles = False

    def spread(self, value: Value) -> tuple[Any, Any]:
        """Both sides, as they are."""
        return value.x, value.r

    def blank(self, value: Value, dtype: tf.DType) -> Any:
        """The example side itself."""
        return tf.cast(value.x, dtype) if value.x.dtype != dtype else tf.identity(value.x)

    def shape(self, value: Value) -> Any:
        """Of the example side."""
        return tf.shape(value.x)

    def element_shape(self, value: Value) -> Any:
        """Not known."""
        return None


class Crossed:
    """Examples and references run by themselves; every example meets every reference."""

    apart = True

    def __init__(self, examples: Any, references: Any, compiles: bool) -> None:
        self.compiles = compiles
        self.examples, self.references, self.pairs = examples, references, examples * references
        self.of_example = tf.range(self.pairs) // references  # tf.repeat is twenty operations
        self.of_reference = tf.tile(tf.range(references), [examples])
        self._made: dict[Any, Any] = {}  # what several steps ask for

    def _once(self, make: Callable[[], Any], *key: Any) -> Any:
        """What is made once in each graph."""
        key = tf.compat.v1.get_default_graph(), *key
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def spread(self, value: Value) -> tuple[Any, Any]:
        """Both sides, repeated: examples outermost."""
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
        """Of the entries of pairs, those of either side."""
        sides = (self.of_example, self.examples), (self.of_reference, self.references)
        return tuple(tf.reshape(self._entries(*side, layout), [-1]) for side in sides)

    def _entries(self, row: Any, rows: Any, layout: Layout) -> Any:
        if layout.inner > 1:
            row = row[:, None] * layout.inner + tf.range(layout.inner)
        if layout.outer > 1:
            row = row[None] + tf.reshape(tf.range(layout.outer) * rows * layout.inner, [-1] + [1] * row.shape.rank)
        return row

    def blank(self, value: Value, dtype: tf.DType) -> Any:
        """Zeros."""
        return tf.identity(self._once(lambda: tf.zeros(self.shape(value), dtype), "blank", _shaped(value), dtype))

    def shape(self, value: Value) -> Any:
        """That of the example side, with as many rows as there are pairs."""
        layout, told = _known(value), _shaped(value)
        return self._once(
            lambda: self._sizes(layout, tf.shape(value.x) if told is value else layout.shape), "shape", told
        )

    def _sizes(self, layout: Layout, sizes: Any) -> Any:
        each = layout.inner * layout.outer
        rows = self.pairs if each == 1 else self.pairs * each
        return tf.stack([rows if k == layout.axis else sizes[k] for k in range(len(layout.shape))])

    def element_shape(self, value: Value) -> Any:
        """From its layout."""
        layout = value.layout
        return None if layout is None or layout.numbers is None else self.shape(value)


@cache
def _taken(axis: int) -> Callable[..., Any]:
    """Entries of both sides on an axis."""

    def taken(x: Any, r: Any, at: Any, at_r: Any) -> list[Any]:
        return [tf.gather(x, at, axis=axis), tf.gather(r, at_r, axis=axis)]

    return once(taken)


@cache
def _broadcast(axis: int, inner: int, outer: int) -> Callable[..., Any]:
    """Both sides repeated along an axis, which is (outer, rows, inner), as one."""

    def repeated(x: Any, r: Any) -> list[Any]:
        sizes = [tf.shape(v) for v in (x, r)]
        rows = [s[axis] // (outer * inner) for s in sizes]

        def laid_out(v: Any, s: Any, ahead: Any) -> Any:
            around, behind = s[:axis], s[axis + 1 :]
            alone = tf.reshape(v, tf.concat([around, [outer, *ahead, inner], behind], 0))
            together = tf.broadcast_to(alone, tf.concat([around, [outer, *rows, inner], behind], 0))
            return tf.reshape(together, tf.concat([around, [outer * rows[0] * rows[1] * inner], behind], 0))

        return [laid_out(v, s, a) for v, s, a in zip((x, r), sizes, ([-1, 1], [1, -1]), strict=True)]

    return once(repeated)


def _known(value: Value) -> Layout:
    if value.layout is None:
        raise Unpaired(f"{value.x.name} {value.x.shape}")
    return value.layout


def _shaped(value: Value) -> Layout | Value:
    """What tells a value's shape: its layout, if all of its sizes are known."""
    layout = _known(value)
    return value if layout.numbers is None else layout
