"""What users give for a single recurrent cell: numbers, rows and batches, read alike in both frameworks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ...errors import InputError


class Rows(ABC):
    """Reads what users give as x and the states: numbers, single rows, or batches. One for each framework."""

    @abstractmethod
    def tensor(self, value: Any, cell: Any) -> Any:
        """Return a copy with the dtype and the device of the cell's weights."""

    @abstractmethod
    def expand(self, row: Any, shape: tuple[int, ...]) -> Any:
        """Return the value repeated to a shape."""

    @abstractmethod
    def is_finite(self, row: Any) -> bool:
        """Return whether there is neither NaN nor infinity."""

    def read(self, cell: Any, values: Sequence[Any], suffix: str = "") -> list[Any]:
        """Return tensors (batch, features) with the weights' dtype and device; a single row is (features,)."""
        if "c" not in cell.takes and any(v is not None for v in values[2:]):
            raise InputError(f"this cell has no cell state: leave c{suffix} out.")
        return [self._row(cell, name, name + suffix, value) for name, value in zip(cell.takes, values, strict=False)]

    def _row(self, cell: Any, part: str, name: str, value: Any) -> Any:
        width = cell.widths[part]
        if value is None:
            raise InputError(f"{name} is missing: pass a tensor (batch, {width}) or ({width},), or 0.0 for zeros.")
        row = self.tensor(value, cell)
        if row.ndim == 0:
            row = self.expand(row, (width,))
        if row.ndim > 2 or row.shape[-1] != width:
            raise InputError(
                f"{name} has shape {tuple(row.shape)}; this cell takes (batch, {width}), or ({width},) for a single row."
            )
        if not self.is_finite(row):
            raise InputError(f"{name} has NaN or infinite values.")
        return row

    def beside(self, *sides: list[Any]) -> tuple[list[list[Any]], bool]:
        """Broadcast all sides to one batch; also say whether all of the first were single rows, and so is the result."""
        rows = {len(t) for side in sides for t in side if t.ndim == 2}
        batch = max(rows - {1}, default=1)
        if rows - {1, batch}:
            raise InputError(
                f"the inputs and the baseline have {', '.join(map(str, sorted(rows)))} rows: give all the same number of rows, "
                "or a single row to be used for all."
            )
        single = batch == 1 and all(t.ndim == 1 for t in sides[0])
        return [[self.expand(t, (batch, t.shape[-1])) for t in side] for side in sides], single
