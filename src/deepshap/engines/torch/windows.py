"""The windows of a max pooling, and which of their elements are the greatest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..windows import joined, within

Options = tuple[tuple[int, ...], ...]  # kernel, stride, padding and dilation along each axis


class Windows:
    """Pools values that hold the pooled axes as one, the last.

    Parameters
    ----------
    pool : torch's function; it returns the greatest values and their positions.
    sizes : of the pooled axes.
    options : of the pooling; None where it is adaptive.
    """

    def __init__(self, pool: Callable[[Tensor], Any], sizes: tuple[int, ...], options: Options | None) -> None:
        self._pool, self.sizes, self._options = pool, sizes, options
        self.grid: tuple[int, ...] = ()  # of the windows, known when something was pooled

    def first(self, x: Tensor) -> Tensor:
        """Position of the first greatest element of each window, (..., windows)."""
        index = self._pool(x.unflatten(-1, self.sizes))[1]
        self.grid = tuple(index.shape[-len(self.sizes) :])
        return index.flatten(-len(self.sizes))

    def marked(self, x: Tensor) -> Tensor:
        """As ``first``, of several greatest ones the complement of it, which is negative; see ``told``."""
        first = self.first(x)
        greatest = x.gather(-1, first)
        counts = [taken(x, own).eq(greatest[..., at, None]).sum(-1) for at, own in self.parts(x)]
        return torch.where(torch.cat(counts, -1) > 1, ~first, first)

    @property
    def positions(self) -> np.ndarray:
        """Of the elements of each window, (windows, elements), -1 outside."""
        return _positions(self.sizes, self.grid, self._options)

    def parts(self, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Some windows and the positions of their elements, about as many elements as there are to pool at a time."""
        positions = self.positions
        count = max(1, x.shape[-1] // max(1, positions.shape[1]))
        for start in range(0, len(positions), count):
            at = slice(start, start + count)
            yield at, torch.as_tensor(positions[at], device=x.device)


def taken(x: Tensor, positions: Tensor) -> Tensor:
    """Elements along the last axis, the least number outside."""
    return x[..., positions.clamp(0)].masked_fill(positions < 0, -torch.inf)


def given_back(found: Tensor, positions: Tensor, values: Tensor) -> None:
    """Add values to elements along the last axis."""
    inside = values.masked_fill(positions < 0, 0)
    found.index_add_(-1, positions.clamp(0).flatten(), inside.flatten(-2))


def told(marked: Tensor) -> tuple[Tensor, Tensor]:
    """First positions, and whether there are several."""
    several = marked < 0
    return torch.where(several, ~marked, marked), several


@lru_cache(64)
def _positions(sizes: tuple[int, ...], grid: tuple[int, ...], options: Options | None) -> np.ndarray:
    if options is None:
        return joined([_adaptive(*axis) for axis in zip(sizes, grid, strict=True)], sizes)
    return joined([_regular(*axis) for axis in zip(sizes, grid, *options, strict=True)], sizes)


def _regular(size: int, count: int, kernel: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    return within(np.arange(count)[:, None] * stride - padding + np.arange(kernel) * dilation, size)


def _adaptive(size: int, count: int) -> np.ndarray:
    numbers = np.arange(count)[:, None]
    start, end = numbers * size // count, -(-(numbers + 1) * size // count)
    positions = start + np.arange((end - start).max(initial=0))
    return np.where(positions < end, positions, -1)
