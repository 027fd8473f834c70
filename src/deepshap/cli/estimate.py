"""How long a run will take, from a few of its rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

FEW = 64  # rows that are not worth an estimate
LONG = 60.0  # seconds from which people want to know


def estimated(explained: Callable[[int], Any], rows: int) -> float | None:
    """Seconds that a run will take, about, if that is long; a hundredth of the rows is explained to know it."""
    if rows < FEW:
        return None
    explained(1)  # what is found out once
    some, start = max(1, rows // 100), time.perf_counter()
    explained(some)
    seconds = (time.perf_counter() - start) * rows / some
    return seconds if seconds >= LONG else None
