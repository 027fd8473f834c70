"""Where the rows of a run come from: arrays and tables in memory or mapped from disk, Parquet files, any iterable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from ..names import as_labels
from ..tables import Columns, Decided, Sequences, Table, Wide, columns_of, common_ids, decide, plain, read
from ..tables.parquet import ParquetRows
from .batches import Batch, count, take
from .fingerprint import digest, source_digest

Range = tuple[int, int]  # the first row, or line, and the one behind the last


class Source(Protocol):
    """Rows in parts of a size; ``rows`` is None where nobody knows how many there are."""

    @property
    def rows(self) -> int | None:
        """How many there are."""

    def digest(self) -> str:
        """What the data are, in every process the same."""

    def read_as(self) -> dict[str, Any]:
        """What was decided of how the data are read, in every part the same."""

    def batches(self, size: int, done: set[int]) -> Iterator[Batch]:
        """The parts that are not done, in order; also those that are, where the rows can only be passed by."""

    def take(self, rows: np.ndarray) -> Batch:
        """The rows at some places, which ascend."""


class Ranged(ABC):
    """Rows of which any can be read."""

    rows: int

    @abstractmethod
    def digest(self) -> str:
        """What the data are, in every process the same."""

    @abstractmethod
    def read(self, ranges: Sequence[Range]) -> Iterator[Batch]:
        """The rows of some ranges, which ascend."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> Batch:
        """The rows at some places, which ascend."""

    def read_as(self) -> dict[str, Any]:
        """What was decided of how the data are read, in every part the same."""
        return {}

    def batches(self, size: int, done: set[int]) -> Iterator[Batch]:
        """The parts that are not done."""
        numbers = [n for n in range(parts_for(self.rows, size)) if n not in done]
        ranges = [(n * size, min((n + 1) * size, self.rows)) for n in numbers]
        for number, batch in zip(numbers, self.read(ranges), strict=True):
            yield replace(batch, number=number)


def parts_for(rows: int, size: int) -> int:
    """How many parts so many rows make; none make one, which shows the columns."""
    return max(1, -(-rows // size))


class Indexed(Ranged):
    """Arrays, tables or ``Sequences`` in memory or mapped into it."""

    def __init__(
        self, X: Any, shape: Sequence[int] | None, lengths: Any, targets: Any, decided: Decided | None = None
    ) -> None:
        self.decided = decided
        self.X, self.rows = X if shape is None else reshaped(X, shape), count(X)
        each = X.values() if isinstance(X, dict) else X if isinstance(X, (list, tuple)) else []
        if len({count(one) for one in each}) > 1:
            counts = ", ".join(str(count(one)) for one in each)
            raise InputError(
                f"the inputs have {counts} rows. If they are batches of one, give an iterator, iter(batches)."
            )
        self.lengths = lengths if isinstance(lengths, bool) else np.asarray(lengths)
        self.targets = as_labels(targets, "targets")
        if not isinstance(lengths, bool) and np.shape(self.lengths) != (self.rows,):
            raise InputError(f"lengths has shape {np.shape(lengths)} for {self.rows} rows.")
        if self.targets is not None and np.shape(self.targets)[:1] != (self.rows,):
            raise InputError(f"targets has shape {np.shape(targets)} for {self.rows} rows.")

    def read_as(self) -> dict[str, Any]:
        """What was decided of a table, or the names of its features."""
        names = {} if self.decided is not None else columns_of(plain(self.X, "the data")[1])
        return self.decided.as_dict() if self.decided is not None else {"features": names} if names else {}

    def digest(self) -> str:
        """Of the values and their labels."""
        return digest_of(self.X)

    def read(self, ranges: Sequence[Range]) -> Iterator[Batch]:
        """The rows of some ranges."""
        return (self._batch(slice(first, last), first) for first, last in ranges)

    def take(self, rows: np.ndarray) -> Batch:
        """The rows at some places."""
        return self._batch(rows, 0)

    def _batch(self, rows: Any, start: int) -> Batch:
        lengths = self.lengths if isinstance(self.lengths, bool) else self.lengths[rows]
        return replace(batch_of(take(self.X, rows), start, lengths), targets=take(self.targets, rows))


class Files(Ranged):
    """Parquet files larger than memory."""

    def __init__(self, paths: Sequence[Path], columns: Columns, lengths: Any) -> None:
        if lengths is not False and not (isinstance(lengths, str) or (lengths is True and columns.time is not None)):
            raise InputError(
                "lengths of a table with a line per row: name their column; of a long table name time= too."
            )
        self.table, self.lengths = ParquetRows(paths, columns), lengths
        self.rows = self.table.rows

    def digest(self) -> str:
        """Of the files' contents."""
        return digest((source_digest(self.table.paths), self.table.steps))

    def read_as(self) -> dict[str, Any]:
        """What was decided of the columns."""
        return self.table.decided.as_dict()

    def read(self, ranges: Sequence[Range]) -> Iterator[Batch]:
        """The rows of some ranges."""
        for (first, _), rows in zip(ranges, self.table.read(ranges), strict=True):
            yield self._batch(rows, first)

    def take(self, rows: np.ndarray) -> Batch:
        """The rows at some places, which must ascend."""
        return self._batch(self.table.take(rows), 0)

    def _batch(self, rows: Any, start: int) -> Batch:
        lengths = rows.lengths if isinstance(self.lengths, str) else self.lengths
        return replace(batch_of(rows.X, start, lengths), targets=as_labels(rows.targets, "targets"))


class Beside(Ranged):
    """Rows with what they are before scaling, which another source has."""

    def __init__(self, source: Ranged, raw: Source) -> None:
        if not isinstance(raw, Ranged) or raw.rows != source.rows:
            raise InputError(f"raw= must have the rows of the data, {source.rows}; it has {raw.rows}.")
        self.source, self.raw, self.rows = source, raw, source.rows

    def digest(self) -> str:
        """Of both."""
        return digest((self.source.digest(), self.raw.digest()))

    def read_as(self) -> dict[str, Any]:
        """As the rows themselves."""
        return self.source.read_as()

    def read(self, ranges: Sequence[Range]) -> Iterator[Batch]:
        """The rows of some ranges."""
        return map(_beside, self.source.read(ranges), self.raw.read(ranges))

    def take(self, rows: np.ndarray) -> Batch:
        """The rows at some places."""
        return _beside(self.source.take(rows), self.raw.take(rows))


def _beside(batch: Batch, other: Batch) -> Batch:
    if not np.array_equal(batch.ids, other.ids):
        raise InputError("raw= must have the rows of the data in their order, and its ids are others.")
    return replace(batch, raw=other.X)


class Window(Ranged):
    """The rows from one to before another of a source."""

    def __init__(self, source: Ranged, first: int, last: int) -> None:
        if not 0 <= first < min(last, source.rows):
            raise InputError(f"rows={(first, last)} takes none of the {source.rows} rows.")
        self.source, self.first, self.rows = source, first, min(last, source.rows) - first

    def digest(self) -> str:
        """Of all rows."""
        return self.source.digest()

    def read_as(self) -> dict[str, Any]:
        """As all rows."""
        return self.source.read_as()

    def read(self, ranges: Sequence[Range]) -> Iterator[Batch]:
        """The rows of some ranges."""
        return self.source.read([(first + self.first, last + self.first) for first, last in ranges])

    def take(self, rows: np.ndarray) -> Batch:
        """The rows at some places."""
        return self.source.take(rows + self.first)


class Passing:
    """Batches that come by once, each a part."""

    rows: int | None = None

    def __init__(self, data: Iterable[Any], lengths: Any) -> None:
        if not isinstance(lengths, bool):
            raise InputError("lengths of batches that pass by: make the batches deepshap.Sequences, and lengths=True.")
        self.data, self.lengths = data, lengths

    def read_as(self) -> dict[str, Any]:
        """Nothing: each batch is read as it comes."""
        return {}

    def digest(self) -> str:
        """The same for all: each part keeps the digest of its own rows."""
        return "batches that pass by"

    def batches(self, size: int, done: set[int]) -> Iterator[Batch]:
        """All parts, each a batch as it comes."""
        start = 0
        for number, X in enumerate(self.data):
            batch = batch_of(X, start, self.lengths)
            start += len(batch)
            yield replace(batch, number=number)

    def take(self, rows: np.ndarray) -> Batch:
        """Cannot be done."""
        raise InputError("of batches that pass by no rows can be taken: give a file, or arrays.")


def batch_of(X: Any, start: int, lengths: Any) -> Batch:
    """Rows that know their ids, or begin at a place of the data set.

    Raises
    ------
    InputError
        If ``lengths`` is True and the rows do not know theirs.
    """
    ids = common_ids(plain(X, "the data")[1])
    found = np.arange(start, start + count(X)) if ids is None else np.asarray(ids)
    if lengths is True:
        if not isinstance(X, Sequences):
            raise InputError("lengths=True is for long tables and deepshap.Sequences; of other data give the lengths.")
        lengths = X.lengths
    X = X.values if isinstance(X, Wide) and X.feature_names is None else X
    return Batch(0, X, found, None if lengths is False else lengths)


def rows_of_table(
    table: Any, id: str | None, features: Sequence[str], shape: Sequence[int] | None
) -> tuple[Any, np.ndarray]:
    """Rows and their ids of a pyarrow.Table with a line for each; the ids are places where no column has them.

    Raises
    ------
    InputError
        If an id is missing, or the features are no numbers or do not have the shape.
    """
    opened = Table(table)
    rows = read(opened, decide(opened, Columns(id, features=features, shape=shape)), complete=False).X
    return rows, np.arange(len(table)) if rows.row_ids is None else rows.row_ids


def digest_of(X: Any) -> str:
    """Digest of rows and their labels."""
    values, labels = plain(X, "the data")
    return digest((values, *(vars(one) for one in _each(labels))))


def _each(labels: Any) -> list[Any]:
    return list(labels.values()) if isinstance(labels, dict) else labels if isinstance(labels, list) else [labels]


def reshaped(X: Any, shape: Sequence[int]) -> np.ndarray:
    """Rows in another shape; the columns of a table become an array."""
    array = plain(X, "the data")[0]
    try:
        return array.reshape(len(array), *shape)
    except (ValueError, AttributeError):
        raise InputError(f"rows of this data cannot have the shape {tuple(shape)}.") from None
