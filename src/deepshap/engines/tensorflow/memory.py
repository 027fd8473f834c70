"""How much memory explaining takes: counted while a model is traced, value by value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..interface import Footprint
from .values import Value

RULE = 3  # tensors of the pairs' size that a rule works with for each value: both sides of it, and its multiplier
LIST = 2  # the same of what a list holds: its multipliers, and the tensor that they are stacked to
KEPT = 2  # what a loop keeps of its turns takes so many times its size, as measured


class Bytes:
    """Bytes per row of what a tracer meets: numbers where shapes are known while tracing, else tensors of TensorFlow.

    Attributes
    ----------
    side : of values that an example, or a reference, keeps until the multipliers have come back.
    pair : of what a pair of them takes on that way.
    items : of what is put into lists at every turn of a loop, which outlives it.
    """

    def __init__(self, of_loop: bool = False) -> None:
        self.of_loop = of_loop  # whether this is about one turn
        self.side: Any = 0
        self.pair: Any = 0
        self.items: Any = 0

    def value(self, value: Value) -> None:
        """Count a value that depends on the input."""
        numbers = value.layout.numbers if value.layout is not None else None
        size = size_of(value.x) if numbers is None else numbers * value.x.dtype.size
        self.side, self.pair = plus(self.side, size), plus(self.pair, RULE * size)

    def item(self, tensor: Any, length: Any) -> None:
        """Count what is put into a list; of a list whose length is given, and which a loop writes to, all that it holds."""
        if length is None or not self.of_loop:
            self.items = plus(self.items, size_of(tensor))
        else:
            whole = tf.cast(length, tf.float64) * size_of(tensor)
            self.side, self.pair = plus(self.side, whole), plus(self.pair, LIST * whole)

    def turns(self, count: Any, vector: Any) -> None:
        """Count a loop, from what ``of_turn`` has said of its largest turn."""
        side, pair, items, kept = tf.unstack(vector)
        count = tf.cast(count, tf.float64)
        self.side, self.pair = plus(self.side, side + KEPT * count * kept), plus(self.pair, pair)
        self.items = plus(self.items, count * items)

    def of_turn(self, kept: list[Any]) -> Any:
        """What a turn takes, and what of it is kept for the way back, as a tensor (4,)."""
        numbers = (self.side, self.pair, self.items, sum(map(size_of, kept), 0))
        return as_vector(numbers)

    def branch(self, vector: Any) -> None:
        """Count a branch, from its ``of_turn``."""
        side, pair, items, _ = tf.unstack(vector)
        self.side, self.pair, self.items = plus(self.side, side), plus(self.pair, pair), plus(self.items, items)

    def footprint(self, apart: bool) -> tuple[Any, Any, Any]:
        """What each reference, each example and each pair takes."""
        side, pair = plus(self.side, self.items), plus(self.pair, LIST * self.items)
        return (side, side, pair) if apart else (0, 0, plus(2 * side, pair))


def plus(a: Any, b: Any) -> Any:
    """The sum of numbers or tensors."""
    if tf.is_tensor(a) or tf.is_tensor(b):
        a, b = (tf.cast(v, tf.float64) for v in (a, b))
    return a + b


def size_of(tensor: Any) -> Any:
    """Bytes of one row; a tensor where more than the number of rows is unknown. Then there is one row alone."""
    sizes = tensor.shape.as_list() if tensor.shape.rank is not None else [None, None]
    if sizes.count(None) > 1:
        return tf.cast(tf.size(tensor), tf.float64) * tensor.dtype.size
    count = tensor.dtype.size
    for size in sizes:
        count *= 1 if size is None else size
    return count


def as_vector(numbers: Sequence[Any]) -> Any:
    """Numbers in one array, or tensor where some of them are known when the function runs."""
    if is_known(numbers):
        return np.array(numbers, np.float64)
    return tf.stack([tf.cast(number, tf.float64) for number in numbers])


def is_known(numbers: Sequence[Any]) -> bool:
    """Whether nothing depends on more than shapes."""
    return not any(map(tf.is_tensor, numbers))


def as_footprint(numbers: Any) -> Footprint:
    """Whole bytes."""
    return Footprint(*(int(number) for number in numbers))
