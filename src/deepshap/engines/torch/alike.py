"""What runs at once: rows that have the same row arguments (lengths, masks), which references need to run with once for all
of them; and multipliers in a backward pass.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..api import Footprint, Plan, Points
from .recurrent import LEFT
from .tape import Tape

WORTHWHILE = 50  # pairs of a group, below which running all pairs at once is quicker than group by group
# What a backward pass makes, at least and for each call that the model makes: more neither fits the caches nor is at hand
# already, and with less the calls themselves take the time.
PASS_BYTES, CALL_BYTES = 192 * 2**20, 5 * 2**20


def groups_of(points: Points) -> list[np.ndarray]:
    """Numbers of the rows of each group, of those with the largest arguments first: where these are lengths, the longest."""
    described = [_bytes(e) for e in points.extra if points.form.has_rows(e)]
    if not described:
        return [np.arange(len(points))]
    _, first, number = np.unique(np.concatenate(described, 1), axis=0, return_index=True, return_inverse=True)
    sizes = np.sum([_totals(e) for e in points.extra if points.form.has_rows(e)], axis=0)
    return [np.flatnonzero(number.ravel() == group) for group in np.argsort(-sizes[first], kind="stable")]


def quicker_together(pairs: int, groups: int, recurrent: bool) -> bool:
    """Whether all pairs are better run at once: there are few, or recurrent layers, which run rows once, do most of the work."""
    return recurrent or pairs < WORTHWHILE * groups


def footprint_of(reference: Tape, example: Tape, leaves: list[Tensor]) -> tuple[Footprint, bool]:
    """What is kept of a reference and an example, and made of a pair; and whether recurrent layers keep most of it.

    The multipliers of a pair are taken to be twice as large as what was computed on the way forward: they do not all live at the
    same time, and rules make some more. What a recurrent layer returns was in another order before.
    """
    kept, own, entered = reference.memory, example.nbytes, sum(leaf.nbytes for leaf in leaves)
    recurrent = [s for s in reference.steps if isinstance(s.memory, LEFT)]
    most = sum(s.memory.nbytes for s in recurrent) > reference.nbytes
    twice = max((s.outputs[0].nbytes for s in recurrent), default=0)
    return Footprint(reference.nbytes + kept + twice, own + kept, 2 * (own + entered)), most


def multipliers_of_pass(plan: Plan, footprint: Footprint | None, calls: int, device: torch.device | None) -> int:
    """How many a backward pass of so many calls takes: what fits into memory, and on the CPU passes through it quickly."""
    if footprint is None or (device and device.type != "cpu"):
        return plan.multipliers
    return max(1, min(plan.multipliers, max(PASS_BYTES, CALL_BYTES * calls) // footprint.pair))


def _totals(values: Tensor) -> np.ndarray:
    numbers = values.detach().cpu()
    return (numbers.abs() if numbers.is_complex() else numbers).double().reshape(len(numbers), -1).sum(1).numpy()


def _bytes(values: Tensor) -> np.ndarray:
    """Of each row, (rows, bytes)."""
    given = values.detach().cpu().reshape(len(values), -1)
    rows = given.new_empty(given.shape).copy_(
        given
    )  # a column of a table lies far apart, and contiguous() lets a single one so
    return rows.view(torch.uint8).numpy() if rows.shape[1] else np.zeros((len(rows), 0), np.uint8)
