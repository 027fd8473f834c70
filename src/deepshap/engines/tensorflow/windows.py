"""The windows of a max pooling, as positions that are known while tracing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import UnsupportedOperationError
from ..windows import joined, within


class Windows:
    """Takes the elements of every window, padding with the least number."""

    def __init__(self, record: Any, x: Any) -> None:
        names = [n for n in ("ksize", "strides", "padding", "data_format") if n in record.op.node_def.attr]
        options = {n: record.op.get_attr(n) for n in names}
        padding, layout = options["padding"].decode(), options.get("data_format", b"NHWC").decode()
        if padding not in ("SAME", "VALID"):
            raise UnsupportedOperationError(f"{record.name} in {record.place} with padding {padding} has no rule.")
        kernel = options["ksize"] if "ksize" in options else record.static(1).tolist()
        strides = options["strides"] if "strides" in options else record.static(2).tolist()
        self.channels_last = not layout.startswith("NC")
        inner = slice(1, -1) if self.channels_last else slice(2, None)
        sizes = x.shape.as_list()[inner]
        if None in sizes:
            raise UnsupportedOperationError(f"{record.name} in {record.place} over axes of unknown size has no rule.")
        if kernel[0] != 1 or kernel[-1 if self.channels_last else 1] != 1:
            raise UnsupportedOperationError(f"{record.name} in {record.place} over rows or channels has no rule.")
        axes = [_positions(*one, padding) for one in zip(sizes, kernel[inner], strides[inner], strict=True)]
        self.size, self.rank = math.prod(sizes), len(sizes)
        self.grid = [len(a) for a in axes]
        self.positions = joined(axes, sizes)

    def take(self, x: Any) -> Any:
        """The elements of the windows on a new last axis."""
        shape = tf.shape(x)
        rows, axis = shape[:1], 1 if self.channels_last else 2
        grid = self.grid
        if self.channels_last:
            flat = tf.reshape(x, tf.concat([rows, [self.size], shape[-1:]], 0))
        else:
            flat = tf.reshape(x, tf.concat([shape[:2], [self.size]], 0))
        found = tf.gather(flat, np.maximum(self.positions, 0), axis=axis)
        if self.channels_last:
            found = tf.transpose(found, (0, 1, 3, 2))
            found = tf.reshape(found, tf.concat([rows, grid, shape[-1:], [self.positions.shape[1]]], 0))
            inside = (self.positions >= 0).reshape(*grid, 1, -1)
        else:
            found = tf.reshape(found, tf.concat([shape[:2], grid, [self.positions.shape[1]]], 0))
            inside = (self.positions >= 0).reshape(*grid, -1)
        return found if inside.all() else tf.where(inside, found, tf.cast(-math.inf, x.dtype))


def _positions(size: int, kernel: int, stride: int, padding: str) -> np.ndarray:
    """Positions along one axis, (windows, kernel), -1 outside."""
    count = -(-size // stride) if padding == "SAME" else (size - kernel) // stride + 1
    before = max((count - 1) * stride + kernel - size, 0) // 2 if padding == "SAME" else 0
    positions = np.arange(count)[:, None] * stride - before + np.arange(kernel)
    return within(positions, size)
