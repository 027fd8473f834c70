"""When there is work enough for a kernel to be compiled, and for threads to be started."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import pairwise

THREADS_BEYOND = 2_000_000  # multipliers; to start a thread takes up to a millisecond

_all = False  # whether work is no longer asked for


@dataclass
class Worth:
    """Work so far, by keys; ``beyond`` so much a kernel is worth its compilation, which takes a second or two."""

    beyond: float
    done: dict[Hashable, int] = field(default_factory=dict)

    def reached(self, key: Hashable, work: int) -> bool:
        """Whether there has been enough of a key, with the work at hand."""
        self.done[key] = self.done.get(key, 0) + work
        return _all or self.done[key] >= self.beyond


def take_all() -> None:
    """From now on every kernel is taken from its first call on, so no last bit tells what this process has done before."""
    global _all
    _all = True


PAIRS = Worth(20_000_000)  # multipliers, some 40 ms without a kernel


def blocks(rows: int, work: int, threads: int) -> list[tuple[int, int]]:
    """The first and last rows of each thread, if there is work enough for several."""
    count = min(threads, rows) if work >= THREADS_BEYOND else 1
    return list(pairwise(rows * k // count for k in range(count + 1)))
