"""The windows of a max pooling, and which of their elements are maximal."""

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
    """The windows of a pooling over values whose pooled axes are flattened into the last one.

    Parameters
    ----------
    pool : torch's function; it returns the maxima and their positions.
    sizes : sizes of the pooled axes.
    options : of the pooling; None if it is adaptive.
    """

    def __init__(self, pool: Callable[[Tensor], Any], sizes: tuple[int, ...], options: Options | None) -> None:
        self._pool, self.sizes, self._options = pool, sizes, options
        self.grid: tuple[int, ...] = ()  # numbers of windows, known after the first pooling

    def first(self, x: Tensor) -> Tensor:
        """Return the position of the first maximal element of each window, (..., windows)."""
        index = self._pool(x.unflatten(-1, self.sizes))[1]
        self.grid = tuple(index.shape[-len(self.sizes) :])
        return index.flatten(-len(self.sizes))

    def marked(self, x: Tensor) -> Tensor:
        """Return the positions of ``first``; where several elements tie, its (negative) complement, see ``split_ties``."""
        first = self.first(x)
        maxima = x.gather(-1, first)
        counts = [gather_positions(x, positions).eq(maxima[..., at, None]).sum(-1) for at, positions in self.parts(x)]
        return torch.where(torch.cat(counts, -1) > 1, ~first, first)

    @property
    def positions(self) -> np.ndarray:
        """Return the positions of the elements of each window, (windows, elements), -1 outside."""
        return _positions(self.sizes, self.grid, self._options)

    def parts(self, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield blocks of windows with the positions of their elements, about as many elements per block as are pooled."""
        positions = self.positions
        count = max(1, x.shape[-1] // max(1, positions.shape[1]))
        for start in range(0, len(positions), count):
            at = slice(start, start + count)
            yield at, torch.as_tensor(positions[at], device=x.device)


def gather_positions(x: Tensor, positions: Tensor) -> Tensor:
    """Return elements along the last axis, -inf outside."""
    return x[..., positions.clamp(0)].masked_fill(positions < 0, -torch.inf)


def scatter_back(target: Tensor, positions: Tensor, values: Tensor) -> None:
    """Add values to elements along the last axis."""
    inside = values.masked_fill(positions < 0, 0)
    target.index_add_(-1, positions.clamp(0).flatten(), inside.flatten(-2))


def split_ties(marked: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first positions, and whether several elements tie."""
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
