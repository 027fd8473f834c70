"""The two sides of a traced model laid beside each other, one row for each pair.

Forward values belong to an example or to a reference, and are computed once for each. Where a rule needs a pair, the two
are laid side by side along the axis of their rows (``layouts.py`` finds it). Where an axis is not found the whole model
runs on pairs from the start.
"""

from __future__ import annotations

from typing import Any, Protocol

import tensorflow as tf

from .values import Layout, Value


class Unpaired(Exception):
    """It is not known where the rows of a value lie. Then the whole model runs on pairs, where that is never asked."""


class Pairing(Protocol):
    """Lays the two sides of a value beside each other, one row for each pair.

    ``apart``: whether examples and references run by themselves.
    """

    apart: bool

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

    apart = False

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

    def __init__(self, examples: Any, references: Any) -> None:
        self.references = references
        self.of_example = tf.repeat(tf.range(examples), references)
        self.of_reference = tf.tile(tf.range(references), [examples])

    def spread(self, value: Value) -> tuple[Any, Any]:
        """Both sides, repeated: examples outermost."""
        if value.x is value.r:
            return value.x, value.r
        layout = _known(value)
        axis, inner = layout.axis, layout.inner
        places = (self.of_example, self.of_reference)
        if inner > 1:
            places = tuple(tf.reshape(place[:, None] * inner + tf.range(inner), [-1]) for place in places)
        x, r = (tf.gather(side, place, axis=axis) for side, place in zip((value.x, value.r), places, strict=True))
        return x, r

    def blank(self, value: Value, dtype: tf.DType) -> Any:
        """Zeros."""
        return tf.zeros(self.shape(value), dtype)

    def shape(self, value: Value) -> Any:
        """That of the example side, with as many rows as there are pairs."""
        shape, layout = tf.shape(value.x), _known(value)
        times = [self.references if k == layout.axis else 1 for k in range(len(layout.shape))]
        known = [None if k == layout.axis else s for k, s in enumerate(value.x.shape)]
        return tf.stack([shape[k] * t if s is None else s for k, (s, t) in enumerate(zip(known, times, strict=True))])

    def element_shape(self, value: Value) -> Any:
        """From its layout."""
        layout = value.layout
        if layout is None or any(size is None for k, size in enumerate(layout.shape) if k != layout.axis):
            return None
        pairs = tf.size(self.of_example) * layout.inner
        return tf.stack([pairs if k == layout.axis else size for k, size in enumerate(layout.shape)])


def _known(value: Value) -> Layout:
    if value.layout is None:
        raise Unpaired(f"{value.x.name} {value.x.shape}")
    return value.layout
