"""The values of a traced model on both sides of the pairs, and where their rows lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

ROWS = 7919  # a prime, for a number of rows that nothing else has


@dataclass(frozen=True)
class Layout:
    """The shape of a value with ``ROWS`` rows, their axis, and how often each row has how many entries on that axis.

    The axis is (outer, rows, inner), as one. Of a list of tensors: the shape of its elements.
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
        """How many numbers a row has, if that is known."""
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
