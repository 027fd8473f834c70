"""Finds out what a user names as a data set: files, arrays and tables, or batches that pass by."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..tables import Sequences
from .parquet import LongTable, WideTable
from .sources import Indexed, Passing, Source

PARQUET = (".parquet", ".pq")


def open_source(
    data: Any,
    *,
    id: str | None = None,
    time: str | None = None,
    features: Sequence[str] | None = None,
    shape: Sequence[int] | None = None,
    lengths: Any = False,
) -> Source:
    """Make a source of what a user names; see ``explain_dataset`` for the parameters.

    Raises
    ------
    InputError
        If there is no such file, or the options do not fit the data.
    """
    paths = _paths(data)
    if paths is not None and all(path.suffix.lower() in PARQUET for path in paths):
        if time is None:
            if lengths:
                raise InputError(
                    "lengths=True is for long tables, whose rows have as many steps as lines: name time= too."
                )
            return WideTable(paths, id, features, shape)
        if id is None or shape is not None:
            raise InputError("a long table needs id=, the column that says which lines belong together, and no shape=.")
        return LongTable(paths, id, time, features, lengths)
    if any(option is not None for option in (id, time, features)):
        raise InputError("id=, time= and features= name columns of Parquet files; of other data leave them out.")
    if paths is not None:
        if len(paths) != 1 or paths[0].suffix.lower() != ".npy":
            raise InputError(f"{paths[0]} is neither Parquet (.parquet) nor an array (.npy).")
        data = np.load(paths[0], mmap_mode="r")
    if _is_indexed(data):
        return Indexed(data, shape, lengths)
    if not isinstance(data, Iterable):
        raise InputError(
            f"a {type(data).__name__} is no data set: give arrays, tables, paths, or an iterable of batches."
        )
    return Passing(data, lengths)


def _paths(data: Any) -> list[Path] | None:
    """The files that data name: themselves, those in a list, or all Parquet files below a folder; None if they name none."""
    if isinstance(data, (str, os.PathLike)):
        path = Path(data)
        if path.is_dir():
            found = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in PARQUET and not p.name.startswith((".", "_"))
            )
            if not found:
                raise InputError(f"there are no Parquet files in {path}.")
            return found
        if not path.exists():
            raise InputError(f"there is no file {path}.")
        return [path]
    if isinstance(data, (list, tuple)) and data and all(isinstance(one, (str, os.PathLike)) for one in data):
        return [path for one in data for path in _paths(one) or []]
    return None


def _is_indexed(data: Any) -> bool:
    if isinstance(data, Mapping):
        return bool(data) and all(_is_indexed(value) for value in data.values())
    if isinstance(data, (list, tuple)):
        return bool(data) and all(hasattr(value, "shape") or isinstance(value, Sequences) for value in data)
    return hasattr(data, "shape") or isinstance(data, Sequences)
