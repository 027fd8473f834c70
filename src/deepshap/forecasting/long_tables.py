"""Long tables of several series, cut where forecasts begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Row:
    """A series up to where its forecast begins: name, times until then, its whole table and how much of it is known."""

    name: str
    times: Any
    table: pd.DataFrame | None = None
    end: int = 0

    def past(self) -> pd.DataFrame:
        """Return the table of the series up to the end."""
        assert self.table is not None
        return self.table.iloc[: self.end]

    def coming(self, column: str, h: int) -> np.ndarray:
        """Return the values behind the end, (h,), NaN where they are unknown."""
        assert self.table is not None
        values = self.table[column].to_numpy(np.float64)[self.end : self.end + h]
        return np.concatenate([values, np.full(h - len(values), np.nan)])

    def coming_table(self, futr: pd.DataFrame | None, library: Any, columns: list[str]) -> pd.DataFrame:
        """Return covariates known beforehand, behind the end: those of the series, then those of the user's table."""
        assert self.table is not None
        names = [library.time_col, *columns]
        own_rows = self.table.iloc[self.end : self.end + library.h][names]
        if futr is None:
            return own_rows
        given_rows = futr[futr[library.id_col].astype(str) == self.name].sort_values(library.time_col)[names]
        given_rows = given_rows[given_rows[library.time_col] > self.table[library.time_col].iloc[-1]]
        return pd.concat([own_rows, given_rows]).iloc[: library.h]
