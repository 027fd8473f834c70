"""What a fused step leaves to matrix products, and when it is worth compiling."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ....mathematics.cells import Weights
from ...kernels import steps
from ...kernels.worth import Worth
from .cells import GRU, Cell

STEP = 10_000  # a step without a kernel takes as long as so many of them, however few it has
WORTH = Worth(1_000_000)  # multipliers of units, about 30 ms without a kernel


class Product(NamedTuple):
    """Takes some columns of ``m_z`` to some columns of the multipliers of (old h, x)."""

    taken: slice
    weights: Tensor
    given: slice


def products_of(cell: Cell, w: Weights) -> list[Product]:
    """What the kernel of a cell leaves to do."""
    units, features = w.w_hh.shape[1], w.w_ih.shape[1]
    if cell is not GRU:
        return [Product(slice(0, len(w.w_hh)), torch.cat([w.w_hh, w.w_ih], 1), slice(0, units + features))]
    # In m_z are n, r, z and q, the share of the old h in n: x makes the first three, the old h the last three.
    reset, update, new = (slice(k * units, (k + 1) * units) for k in range(3))
    of_x = torch.cat([w.w_ih[new], w.w_ih[reset], w.w_ih[update]])
    return [
        Product(slice(units, 4 * units), w.w_hh, slice(0, units)),
        Product(slice(0, 3 * units), of_x, slice(units, units + features)),
    ]


def worthwhile(cell: Cell, weights: Weights, work: int, least: int = 0) -> bool:
    """Whether there is a fused step for a cell, and there has been enough work to be worth its compilation.

    ``work`` is the number of units times steps times pairs at hand, ``least`` what the steps take whatever they hold: that counts
    for the kernel that takes any number of units.
    """
    units, dtype = weights.w_hh.shape[1], weights.w_hh.dtype
    if not steps.has(cell.__name__) or weights.w_hr is not None or dtype not in (torch.float32, torch.float64):
        return False
    of_its_own = WORTH.reached((cell, units, dtype), work)
    return WORTH.reached((cell, dtype), max(work, least)) or of_its_own


def units_of_kernel(cell: Cell, weights: Weights) -> int:
    """For how many units the kernel is that takes a cell's steps; 0 for any number."""
    units = weights.w_hh.shape[1]
    return units if WORTH.reached((cell, units, weights.w_hh.dtype), 0) else 0
