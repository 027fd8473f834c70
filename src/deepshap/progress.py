"""A bar that shows how far a call is, once that takes a while."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

PATIENCE = 3.0  # seconds


class Progress:
    """Counts pairs that are done. A bar shows them: always, never, or (None) after some seconds; most calls need none."""

    def __init__(self, total: int, shown: bool | None) -> None:
        self._total, self._shown, self._done, self._begun = total, shown, 0, time.monotonic()
        self._bar: Any = self._opened() if shown else None

    def _opened(self) -> Any:
        from tqdm.auto import tqdm  # which takes time

        return tqdm(total=self._total, initial=self._done, unit="pair", leave=bool(self._shown))

    def update(self, pairs: int) -> None:
        """So many more are done."""
        self._done += pairs
        if self._bar is not None:
            self._bar.update(pairs)
        elif self._shown is None and time.monotonic() - self._begun > PATIENCE:
            self._bar = self._opened()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
