"""Finds out what a user names as a data set: files, arrays and tables, or batches that pass by."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..tables import Columns, Sequences, Wide, as_table, decide, is_frame, plain, read
from ..tables.files import PARQUET, kind_of, read_file
from .sources import Beside, Files, Indexed, Passing, Ranged, Source, Window


def open_source(
    data: Any,
    *,
    id: str | None = None,
    time: str | None = None,
    features: Sequence[str] | None = None,
    shape: Sequence[int] | None = None,
    lengths: Any = False,
    targets: Any = None,
    raw: Any = None,
    rows: Sequence[int] | None = None,
) -> Source:
    """Make a source of what a user names; see ``explain_dataset`` for the parameters.

    Raises
    ------
    InputError
        If there is no such file, or the options do not fit the data.
    """
    source = _opened(data, id, time, features, shape, lengths, targets)
    if raw is None and rows is None:
        return source
    if not isinstance(source, Ranged):
        raise InputError("raw= and rows= are for files and arrays: of batches that pass by no rows can be taken.")
    if raw is not None:
        source = Beside(source, _opened(raw, id, time, features, shape, lengths, targets))
    return source if rows is None else Window(source, *rows)


def _opened(
    data: Any,
    id: str | None,
    time: str | None,
    features: Sequence[str] | None,
    shape: Sequence[int] | None,
    lengths: Any,
    targets: Any,
) -> Source:
    paths = _paths(data)
    if paths is not None and all(path.suffix.lower() in PARQUET for path in paths):
        if time is not None and shape is not None:
            raise InputError("a long table has its shape from its lines: leave shape= out.")
        column = lengths if isinstance(lengths, str) else None
        names = [features] if isinstance(features, str) else features
        return Files(paths, Columns(id, time, names, _columns(targets), lengths=column, shape=shape), lengths)
    named = any(option is not None for option in (id, time, features))
    of_file = paths is not None and len(paths) == 1 and kind_of(paths[0]) is not None
    if of_file or (is_frame(data) and (named or isinstance(targets, str))):
        columns = [name for name in (id, time) if name is not None]
        table = read_file(paths[0], named=columns) if paths and of_file else as_table(data, "the data", columns)
        column = lengths if isinstance(lengths, str) else None
        names = [features] if isinstance(features, str) else features
        of_columns = _columns(targets) if isinstance(targets, (str, list)) else []
        read_as = decide(table, Columns(id, time, names, of_columns, lengths=column, shape=shape))
        rows = read(table, read_as, complete=False)
        beside = targets if rows.targets is None else rows.targets
        return Indexed(rows.X, None, lengths if column is None else rows.lengths, beside, read_as)
    if named:
        raise InputError("id=, time= and features= name columns of tables; of other data leave them out.")
    if paths is not None:
        data = _mapped(paths)
    data = _rows(data)
    if _is_indexed(data):
        return Indexed(data, shape, lengths, targets)
    if not isinstance(data, Iterable):
        raise InputError(
            f"a {type(data).__name__} is no data set: give arrays, tables, paths, or an iterable of batches."
        )
    if targets is not None:
        raise InputError("targets= of batches that pass by: give a file, or arrays.")
    return Passing(map(_rows, data), lengths)


def _mapped(paths: list[Path]) -> np.ndarray:
    """The array of a file, mapped into memory."""
    other = next((path for path in paths if path.suffix.lower() != ".npy"), None)
    if other is not None:
        raise InputError(f"{other} is neither a table (.parquet, .csv, .xlsx) nor an array (.npy).")
    if len(paths) != 1:
        raise InputError(
            "several .npy files: for a model of several inputs give a list of np.load(file, mmap_mode='r')."
        )
    try:
        found: np.ndarray = np.load(paths[0], mmap_mode="r")
    except ValueError as error:
        raise InputError(f"{paths[0]} is no array that can be read: {error}") from None
    return found


def _rows(data: Any) -> Any:
    """A table of any library as rows with names; anything else as it is."""
    if not is_frame(data):
        return data
    values, labels = plain(data, "the data")
    return Wide(values, labels.row_ids, labels.feature_names)


def check_apart(folder: Path, data: Any) -> None:
    """Refuse a folder that is a file, or in which the data are looked for: parts would be read as data.

    Raises
    ------
    InputError
        If it is.
    """
    named = data if isinstance(data, (list, tuple)) else [data]
    places = {Path(one).resolve() for one in named if isinstance(one, (str, os.PathLike))}
    if folder.is_file() or places & {folder.resolve(), *folder.resolve().parents}:
        raise InputError(f"{folder} must be a folder of its own, apart from the data.")


def _columns(targets: Any) -> list[str]:
    """The columns of Parquet that hold the targets."""
    names = [] if targets is None else [targets] if isinstance(targets, str) else list(targets)
    if not all(isinstance(name, str) for name in names):
        raise InputError("targets of Parquet files: name their column, or the column of each output.")
    return names


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
        return bool(data) and all(hasattr(value, "shape") or isinstance(value, (Sequences, Wide)) for value in data)
    return hasattr(data, "shape") or isinstance(data, (Sequences, Wide))
