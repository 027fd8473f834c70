"""Find the axis of the channels of images and grids."""

from __future__ import annotations

import numpy as np

from ..errors import InputError


def channel_axis(shape: tuple[int, ...], channels: str | None = None) -> int | None:
    """Return the axis of an image's channels: 0 or 2, or None for an image with two axes.

    channels: "first" or "last"; by default the shorter one of the two.

    Raises
    ------
    InputError
        If there are other axes, or the first and the last one are equally long and nothing is said.
    """
    if channels not in (None, "first", "last"):
        raise InputError(f"channels must be 'first' or 'last', not {channels!r}.")
    if len(shape) == 2:
        return None
    if len(shape) != 3:
        raise InputError(f"an image has shape (height, width), with an axis of channels or without, not {shape}.")
    if channels is None and shape[0] == shape[2]:
        raise InputError(f"images of shape {shape} may have their channels first or last: say channels='first'.")
    return 0 if channels == "first" or (channels is None and shape[0] < shape[2]) else 2


def channels_last(array: np.ndarray, axis: int | None) -> np.ndarray:
    """Transpose images (rows, ...) to (rows, height, width, channels)."""
    return array[..., None] if axis is None else np.moveaxis(array, 1 + axis, 3)
