"""Thresholds of work above which compiling a kernel, or starting threads, saves time."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import pairwise

THREADS_BEYOND = 2_000_000  # multipliers; to start a thread takes up to a millisecond

_compile_all = False  # whether kernels are used whatever the work


@dataclass
class JitThreshold:
    """The work seen for each key; above ``threshold`` a kernel is worth its compilation, which takes a second or two."""

    threshold: float
    work: dict[Hashable, int] = field(default_factory=dict)

    def reached(self, key: Hashable, work: int) -> bool:
        """Add this work to that of the key, and return whether the sum reaches the threshold."""
        self.work[key] = self.work.get(key, 0) + work
        return _compile_all or self.work[key] >= self.threshold


def compile_all() -> None:
    """Use every kernel from its first call on, so that results do not depend on what this process has done before."""
    global _compile_all
    _compile_all = True


PAIRS = JitThreshold(20_000_000)  # multipliers, some 40 ms without a kernel


def blocks(rows: int, work: int, threads: int) -> list[tuple[int, int]]:
    """Return the first and last rows of each thread; one thread gets all rows if there is little work."""
    count = min(threads, rows) if work >= THREADS_BEYOND else 1
    return list(pairwise(rows * k // count for k in range(count + 1)))
