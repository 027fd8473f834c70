"""Sources of the rows of a run: Parquet files, arrays and tables, in memory or mapped from disk.

``open_source`` returns a ``Source``, from which any rows can be read as a ``Batch``. How tables are read is decided once for the
whole data set, so that a row does not depend on its part.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, import_pyarrow
from ..explanation.labels import as_labels
from ..tables import (
    Columns,
    Decided,
    Sequences,
    Table,
    Wide,
    as_table,
    columns_of,
    common_ids,
    decide,
    is_dataset,
    is_frame,
    is_xarray,
    plain,
    read,
)
from ..tables.columns import decoded, ids
from ..tables.files import kind_of, read_file
from ..tables.parquet import PARQUET, ParquetLines, Range, list_files
from ..tables.reading import check_counted
from .fingerprint import digest, source_digest


@dataclass(frozen=True)
class Batch:
    """The rows of one part.

    Attributes
    ----------
    number : int
        The part, counted from 0.
    X : array, Wide, Sequences, or list or dict of them
        The rows, rows first; as ``DeepExplainer`` takes them, but for the place of the rows.
    ids : array (rows,)
        The ids, or the rows' places in the data set.
    lengths : array (rows,) of int, optional
        Valid steps, for models that take them as their last argument.
    targets : array (rows,) or (rows, outputs), optional
        True classes or values.
    raw : in the form of X, optional
        The rows before scaling.
    """

    number: int
    X: Any
    ids: np.ndarray
    lengths: np.ndarray | None = None
    targets: np.ndarray | None = None
    raw: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> Batch:
        beside = {name: _take(getattr(self, name), rows) for name in ("lengths", "targets", "raw")}
        return replace(self, X=_take(self.X, rows), ids=self.ids[rows], **beside)


def _take(X: Any, rows: Any) -> Any:
    """Return some rows of an input, or of each of several; None of None."""
    if X is None:
        return None
    if isinstance(X, Mapping):
        return {key: _take(value, rows) for key, value in X.items()}
    if isinstance(X, (list, tuple)):
        return [_take(value, rows) for value in X]
    return X[rows]


def _counts(X: Any) -> list[int]:
    """Return how many rows each input has."""
    inputs = list(X.values()) if isinstance(X, Mapping) else X if isinstance(X, (list, tuple)) else [X]
    return [len(rows) for rows in inputs]


def count_parts(rows: int, size: int) -> int:
    """Return the number of parts of ``size`` rows; no rows make one part, which shows the columns."""
    return max(1, -(-rows // size))


def make_batch(X: Any, start: int, lengths: Any, targets: Any = None) -> Batch:
    """Return rows with their ids, or their places from a start on.

    Raises
    ------
    InputError
        If ``lengths`` is True and the rows do not know theirs.
    """
    ids = common_ids(plain(X, "the data")[1])
    if lengths is True:
        if not isinstance(X, Sequences):
            raise InputError("lengths=True is for long tables and deepshap.Sequences; of other data give the lengths.")
        lengths = X.lengths
    row_ids = np.arange(start, start + _counts(X)[0]) if ids is None else np.asarray(ids)
    return Batch(0, X, row_ids, None if lengths is False else lengths, targets)


def read_rows(
    table: Any, id: str | None, features: Sequence[str], shape: Sequence[int] | None
) -> tuple[Any, np.ndarray]:
    """Return rows and their ids of a pyarrow.Table with a line for each; the ids are places where no column has them.

    Raises
    ------
    InputError
        If an id is missing, or the features are no numbers or do not have the shape.
    """
    opened = Table(table)
    rows = read(opened, decide(opened, Columns(id, features=features, shape=shape)), complete=False).X
    return rows, np.arange(len(table)) if rows.row_ids is None else rows.row_ids


# ---------------------------------------------------------------------- sources
class Source(ABC):
    """Rows of which any can be read."""

    rows: int

    @abstractmethod
    def digest(self) -> str:
        """Return what the data are, in every process the same."""

    @abstractmethod
    def read(self, ranges: Sequence[Range]) -> Iterator[Batch]:
        """Yield the rows of some ranges, which ascend."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> Batch:
        """Return the rows at some places, which ascend."""

    def read_as(self) -> dict[str, Any]:
        """Return what was decided of how the data are read, in every part the same."""
        return {}

    def batches(self, size: int, done: set[int]) -> Iterator[Batch]:
        """Yield the parts that are not done."""
        numbers = [n for n in range(count_parts(self.rows, size)) if n not in done]
        ranges = [(n * size, min((n + 1) * size, self.rows)) for n in numbers]
        for number, batch in zip(numbers, self.read(ranges), strict=True):
            yield replace(batch, number=number)


class Indexed(Source):
    """Arrays, tables or ``Sequences`` in memory or mapped into it."""

    def __init__(
        self, X: Any, shape: Sequence[int] | None, lengths: Any, targets: Any, decided: Decided | None = None
    ) -> None:
        self.X, self.decided = X if shape is None else _reshape(X, shape), decided
        counts = _counts(X)
        if len(set(counts)) > 1:
            raise InputError(f"the inputs have {', '.join(map(str, counts))} rows.")
        self.rows, self.targets = counts[0], as_labels(targets, "targets")
        self.lengths = lengths if isinstance(lengths, bool) else np.asarray(lengths)
        if not isinstance(lengths, bool) and np.shape(self.lengths) != (self.rows,):
            raise InputError(f"lengths has shape {np.shape(lengths)} for {self.rows} rows.")
        if self.targets is not None and np.shape(self.targets)[:1] != (self.rows,):
            raise InputError(f"targets has shape {np.shape(targets)} for {self.rows} rows.")

    def digest(self) -> str:
        """Return the digest of the values and their labels."""
        values, labels = plain(self.X, "the data")
        of_inputs = labels.values() if isinstance(labels, dict) else labels if isinstance(labels, list) else [labels]
        return digest((values, *(vars(input_labels) for input_labels in of_inputs)))

    def read_as(self) -> dict[str, Any]:
        """Return what was decided of a table, or the names of its features."""
        if self.decided is not None:
            return self.decided.as_dict()
        names = columns_of(plain(self.X, "the data")[1])
        return {"features": names} if names else {}

    def read(self, ranges: Sequence[Range]) -> Iterator[Batch]:
        """Yield the rows of some ranges."""
        return (self._batch(slice(first, last), first) for first, last in ranges)

    def take(self, rows: np.ndarray) -> Batch:
        """Return the rows at some places."""
        return self._batch(rows, 0)

    def _batch(self, rows: Any, start: int) -> Batch:
        lengths = self.lengths if isinstance(self.lengths, bool) else self.lengths[rows]
        return make_batch(_take(self.X, rows), start, lengths, _take(self.targets, rows))


class ParquetRows(Source):
    """The rows of Parquet files larger than memory, one file after the other.

    A line is a row; or, with a column of times, the lines of one id are. Such lines must be sorted by id. Every row of a long
    table is padded to the longest one, since results must not depend on the part.
    """

    def __init__(self, paths: Sequence[Path], columns: Columns, lengths: Any = False) -> None:
        if lengths is not False and not (isinstance(lengths, str) or (lengths is True and columns.time is not None)):
            raise InputError(
                "lengths of a table with a line per row: name their column; of a long table name time= too."
            )
        self.lengths, self.lines = lengths, ParquetLines(paths, [columns.id, columns.time])
        if columns.id is None:
            for path, before in zip(paths, np.cumsum([0, *self.lines.counts]).tolist(), strict=False):
                check_counted(self.lines.file(path).schema_arrow, str(path), before)
        empty = Table(self.lines.schema.empty_table(), str(paths[0]))
        self.decided: Decided = decide(empty, columns, self._chunks, self.lines.columns_with_nulls())
        self._starts = self._find_rows() if self.decided.long else np.arange(len(self.lines) + 1)
        self.rows = len(self._starts) - 1
        self.steps = int(np.diff(self._starts).max(initial=0)) if self.decided.long else None

    def digest(self) -> str:
        """Return the digest of the files' contents."""
        return digest((source_digest(self.lines.paths), self.steps))

    def read_as(self) -> dict[str, Any]:
        """Return what was decided of the columns."""
        return self.decided.as_dict()

    def read(self, ranges: Sequence[Range]) -> Iterator[Batch]:
        """Yield the rows of some ranges."""
        lines = self._lines_of(ranges)
        tables = self.lines.read(lines, self.decided.columns)
        for (row, _), (line, _), table in zip(ranges, lines, tables, strict=True):
            yield self._batch(table, partial(self.lines.place, line), row)

    def take(self, rows: np.ndarray) -> Batch:
        """Return the rows at some places, which must ascend."""
        lines = self._lines_of([(int(row), int(row) + 1) for row in rows])
        places = np.concatenate([np.arange(*ends) for ends in lines] or [np.zeros(0, int)])
        tables = list(self.lines.read(lines or [(0, 0)], self.decided.columns))
        return self._batch(import_pyarrow().concat_tables(tables), lambda at: self.lines.place(int(places[at])), 0)

    def _batch(self, table: Any, place: Callable[[int], str], start: int) -> Batch:
        rows = read(Table(table, self.lines.name, place), self.decided, self.steps, complete=False)
        lengths = rows.lengths if isinstance(self.lengths, str) else self.lengths
        return make_batch(rows.X, start, lengths, as_labels(rows.targets, "targets"))

    def _chunks(self, name: str) -> Iterator[Any]:
        return (table[name] for table in self.lines.chunks([name]))

    def _lines_of(self, ranges: Sequence[Range]) -> list[Range]:
        return [(int(self._starts[first]), int(self._starts[last])) for first, last in ranges]

    def _find_rows(self) -> np.ndarray:
        """Return where the lines of each id begin, and the end of all: one pass over the ids, which must ascend."""
        pa, count, name = import_pyarrow(), len(self.lines), str(self.decided.id)
        starts, last, line = [np.zeros(1, np.int64)], None, 0
        for table in self.lines.chunks([name]):
            column = decoded(table[name])
            ids(column, name, Table(table, self.lines.name, partial(self.lines.place, line)))
            column = column if last is None else pa.concat_arrays([last, column])
            before, after = column.slice(0, len(column) - 1), column.slice(1)
            down = np.asarray(pa.compute.less(after, before))
            if down.any():
                at = int(down.argmax())
                raise InputError(
                    f"the lines are not sorted by {name!r}: {before[at]} stands before {after[at]}. Sort them, so that the "
                    "lines of a row can be read together."
                )
            changes = np.flatnonzero(np.asarray(pa.compute.not_equal(after, before)))
            starts.append(changes + line + (last is None))
            last, line = column.slice(len(column) - 1), line + len(table)
        return np.concatenate([*starts, [count]]) if count else starts[0]


class Window(Source):
    """The rows from one to before another of a source, with what they are before scaling, if another source has that."""

    def __init__(self, source: Source, raw: Source | None, rows: Sequence[int] | None) -> None:
        first, last = (0, source.rows) if rows is None else rows
        if rows is not None and not 0 <= first < min(last, source.rows):
            raise InputError(f"rows={(first, last)} takes none of the {source.rows} rows.")
        if raw is not None and raw.rows != source.rows:
            raise InputError(f"raw= must have the rows of the data, {source.rows}; it has {raw.rows}.")
        self.source, self.raw, self.first, self.rows = source, raw, first, min(last, source.rows) - first

    def digest(self) -> str:
        """Return the digest of all rows."""
        return self.source.digest() if self.raw is None else digest((self.source.digest(), self.raw.digest()))

    def read_as(self) -> dict[str, Any]:
        """Return what was decided of the rows themselves."""
        return self.source.read_as()

    def read(self, ranges: Sequence[Range]) -> Iterator[Batch]:
        """Yield the rows of some ranges."""
        moved = [(first + self.first, last + self.first) for first, last in ranges]
        batches = self.source.read(moved)
        return batches if self.raw is None else map(_with_raw, batches, self.raw.read(moved))

    def take(self, rows: np.ndarray) -> Batch:
        """Return the rows at some places."""
        batch = self.source.take(rows + self.first)
        return batch if self.raw is None else _with_raw(batch, self.raw.take(rows + self.first))


def _with_raw(batch: Batch, raw: Batch) -> Batch:
    if not np.array_equal(batch.ids, raw.ids):
        raise InputError("raw= must have the rows of the data in their order, and its ids are others.")
    (_, labels), (_, others) = plain(batch.X, "the data"), plain(raw.X, "raw=")
    times, their_times = (getattr(side, "step_labels", None) for side in (labels, others))
    if times is not None and their_times is not None and not np.array_equal(times.astype(str), their_times.astype(str)):
        raise InputError("raw= must have the rows of the data at the same times, and its times are others.")
    return replace(batch, raw=raw.X)


# ---------------------------------------------------------------------- what a user names
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
    variable: str | None = None,
    value: str | None = None,
) -> Source:
    """Return a source of what a user names; see ``explain_dataset`` for the parameters.

    Raises
    ------
    InputError
        If there is no such file, or the options do not fit the data.
    """
    reading = (id, time, features, shape, lengths, targets, variable, value)
    source = _open(data, *reading)
    return Window(source, None if raw is None else _open(raw, *reading), rows)


def _open(
    data: Any,
    id: str | None,
    time: str | None,
    features: Sequence[str] | None,
    shape: Sequence[int] | None,
    lengths: Any,
    targets: Any,
    variable: str | None,
    value: str | None,
) -> Source:
    paths = _paths(data)
    column = lengths if isinstance(lengths, str) else None
    names = [features] if isinstance(features, str) else features
    named = any(option is not None for option in (id, time, features, variable, value))
    if (variable is None) != (value is None):
        raise InputError(
            "variable= and value= belong together: the columns of the names and of the values of features."
        )
    are_parquet = paths is not None and all(path.suffix.lower() in PARQUET for path in paths)
    if paths is not None and are_parquet and variable is None:
        if time is not None and shape is not None:
            raise InputError("a long table has its shape from its lines: leave shape= out.")
        return ParquetRows(paths, Columns(id, time, names, _columns(targets), lengths=column, shape=shape), lengths)
    of_file = paths is not None and (are_parquet or (len(paths) == 1 and kind_of(paths[0]) is not None))
    if of_file or (is_frame(data) and (named or isinstance(targets, str))):
        columns = [name for name in (id, time, variable) if name is not None]
        if paths is None or not of_file:
            table = as_table(data, "the data", columns)
        elif are_parquet:
            table = ParquetLines(paths, columns).table()
        else:
            table = read_file(paths[0], named=columns, features=names or [])
        of_columns = _columns(targets) if isinstance(targets, (str, list)) else []
        read_as = decide(
            table, Columns(id, time, names, of_columns, lengths=column, shape=shape, variable=variable, value=value)
        )
        rows = read(table, read_as, complete=False)
        beside = targets if rows.targets is None else rows.targets
        return Indexed(rows.X, None, lengths if column is None else rows.lengths, beside, read_as)
    if variable is not None and paths is not None:
        raise InputError("variable= and value= are for a table in memory, a single file or several Parquet files.")
    if named:
        raise InputError("id=, time= and features= name columns of tables; of other data leave them out.")
    if paths is not None:
        data = _memory_map(paths)
    data = _to_rows(data)
    if not _is_indexed(data):
        raise InputError(
            f"a {type(data).__name__} is no data set: give arrays, tables or paths. Put batches together first, or write them "
            "to Parquet files."
        )
    return Indexed(data, shape, lengths, targets)


def check_separate(folder: Path, data: Any) -> None:
    """Refuse a folder that is a file, or in which the data are looked for: parts would be read as data.

    Raises
    ------
    InputError
        If it is.
    """
    named = data if isinstance(data, (list, tuple)) else [data]
    places = {Path(path).resolve() for path in named if isinstance(path, (str, os.PathLike))}
    if folder.is_file() or places & {folder.resolve(), *folder.resolve().parents}:
        raise InputError(f"{folder} must be a folder of its own, apart from the data.")


def _columns(targets: Any) -> list[str]:
    """Return the columns of a table that hold the targets."""
    names = [] if targets is None else [targets] if isinstance(targets, str) else list(targets)
    if not all(isinstance(name, str) for name in names):
        raise InputError("targets of Parquet files: name their column, or the column of each output.")
    return names


def _paths(data: Any) -> list[Path] | None:
    """Return the files that data name: themselves, those in a list, or all Parquet files below a folder; else None."""
    if isinstance(data, (str, os.PathLike)):
        return list_files(Path(data))
    if isinstance(data, (list, tuple)) and data and all(isinstance(path, (str, os.PathLike)) for path in data):
        return [path for folder in data for path in list_files(Path(folder))]
    return None


def _memory_map(paths: list[Path]) -> np.ndarray:
    """Return the array of a file, mapped into memory."""
    unknown = next((path for path in paths if path.suffix.lower() != ".npy"), None)
    if unknown is not None:
        raise InputError(f"{unknown} is neither a table (.parquet, .csv, .xlsx) nor an array (.npy).")
    if len(paths) != 1:
        raise InputError(
            "several .npy files: for a model of several inputs give a list of np.load(file, mmap_mode='r')."
        )
    try:
        array: np.ndarray = np.load(paths[0], mmap_mode="r")
    except ValueError as error:
        raise InputError(f"{paths[0]} is no array that can be read: {error}") from None
    return array


def _to_rows(data: Any) -> Any:
    """Return tables and arrays of xarray as rows with their names, of each of several inputs; other data as they are."""
    if isinstance(data, Mapping) and not is_dataset(data):
        return {key: _to_rows(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_to_rows(value) for value in data]
    if not is_frame(data) and not is_xarray(data):
        return data
    values, labels = plain(data, "the data")
    if labels.step_labels is None:
        return Wide(values, labels.row_ids, labels.feature_names)
    ids = np.arange(len(values)) if labels.row_ids is None else labels.row_ids
    lengths = np.full(len(values), values.shape[1])
    return Sequences(values, lengths, ids, labels.step_labels, labels.feature_names, labels.time_label)


def _is_indexed(data: Any) -> bool:
    if isinstance(data, Mapping):
        return bool(data) and all(_is_indexed(value) for value in data.values())
    if isinstance(data, (list, tuple)):
        return bool(data) and all(_is_indexed(value) for value in data)
    return hasattr(data, "shape") or isinstance(data, (Sequences, Wide))


def _reshape(X: Any, shape: Sequence[int]) -> np.ndarray:
    """Return rows in another shape; the columns of a table become an array."""
    array = plain(X, "the data")[0]
    try:
        return array.reshape(len(array), *shape)
    except (ValueError, AttributeError):
        raise InputError(f"rows of this data cannot have the shape {tuple(shape)}.") from None
