"""How far a run is: a bar in a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tqdm.auto import tqdm

from ..names import duration

EVERY = 30.0  # seconds between lines


@dataclass
class Statistics:
    """Counts of a run, and how long it took; ``as_dict`` is what goes into its last line."""

    folder: str
    rows: int = 0
    parts: int = 0
    resumed_rows: int = 0
    resumed_parts: int = 0
    damaged_parts: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    largest_gap: float = 0.0
    seconds: float = 0.0

    @property
    def rows_per_second(self) -> float:
        """Of the rows that were explained now."""
        return (self.rows - self.resumed_rows) / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        seconds, rate = round(self.seconds, 3), round(self.rows_per_second, 1)
        return {**vars(self), "errors": dict(self.errors), "seconds": seconds, "rows_per_second": rate}


class Progress:
    """Says how far a run is; ``shown`` None: in a terminal at once, else when it takes longer than a line's time."""

    def __init__(self, statistics: Statistics, rows: int | None, shown: bool | None) -> None:
        self.statistics, self.rows = statistics, rows
        self._start = self._said = time.monotonic()  # no clock that can be set
        terminal = sys.stderr.isatty()
        self._lines = shown is not False and not terminal
        self._bar = tqdm(
            total=rows, initial=statistics.rows, unit="row", unit_scale=True, disable=shown is False or not terminal
        )

    def add(self, rows: int) -> None:
        """Count rows that are written."""
        now = time.monotonic()
        self.statistics.seconds = now - self._start
        self._bar.update(rows)
        if self._lines and now - self._said >= EVERY:
            self._said = now
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """Rows, rows per second, what is left."""
        found, rate = self.statistics, self.statistics.rows_per_second
        of, left = "", ""
        if self.rows is not None:
            of = f" of {self.rows}"
            left = f", {duration(round((self.rows - found.rows) / rate))} left" if rate else ""
        failed = f", {found.errors.total()} could not be explained" if found.errors else ""
        return f"deepshap: {found.rows}{of} rows, {rate:.3g} rows/s{left}{failed}"

    def close(self) -> None:
        """End the bar."""
        self.statistics.seconds = time.monotonic() - self._start
        self._bar.close()
