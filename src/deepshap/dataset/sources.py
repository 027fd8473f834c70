"""Where the rows of a run come from: arrays and tables in memory or mapped from disk, Parquet files, any iterable."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from ..names import as_labels
from ..optional import import_pyarrow
from ..tables import Sequences, columns_of, common_ids, numeric, plain
from .batches import Batch, count, take
from .fingerprint import digest

Range = tuple[int, int]  # the first row, or line, and the one behind the last


class Source(Protocol):
    """Rows in parts of a size; ``rows`` is None where nobody knows how many there are."""

    @property
    def rows(self) -> int | None:
        """How many there are."""

    def digest(self) -> str:
        """What the data are, in every process the same."""

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

    def __init__(self, X: Any, shape: Sequence[int] | None, lengths: Any, targets: Any) -> None:
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


class Beside(Ranged):
    """Rows with what they are before scaling, which another source has."""

    def __init__(self, source: Ranged, raw: Source) -> None:
        if not isinstance(raw, Ranged) or raw.rows != source.rows:
            raise InputError(f"raw= must have the rows of the data, {source.rows}; it has {raw.rows}.")
        self.source, self.raw, self.rows = source, raw, source.rows

    def digest(self) -> str:
        """Of both."""
        return digest((self.source.digest(), self.raw.digest()))

    def read(self, ranges: Sequence[Range]) -> Iterator[Batch]:
        """The rows of some ranges."""
        return map(_beside, self.source.read(ranges), self.raw.read(ranges))

    def take(self, rows: np.ndarray) -> Batch:
        """The rows at some places."""
        return _beside(self.source.take(rows), self.raw.take(rows))


def _beside(batch: Batch, other: Batch) -> Batch:
    if not np.array_equal(batch.ids, other.ids):
        raise InputError("raw= must have the rows of the data in their order, and its ids are others.")
    (_, labels), (raw, raw_labels) = plain(batch.X, "the data"), plain(other.X, "raw")
    if columns_of(labels) != columns_of(raw_labels):
        raise InputError(f"the columns of raw= are {columns_of(raw_labels)}, those of the data {columns_of(labels)}.")
    return replace(batch, raw=raw)


class Window(Ranged):
    """The rows from one to before another of a source."""

    def __init__(self, source: Ranged, first: int, last: int) -> None:
        if not 0 <= first < min(last, source.rows):
            raise InputError(f"rows={(first, last)} takes none of the {source.rows} rows.")
        self.source, self.first, self.rows = source, first, min(last, source.rows) - first

    def digest(self) -> str:
        """Of all rows."""
        return self.source.digest()

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
    return Batch(0, X, found, None if lengths is False else lengths)


def check_columns_exist(wanted: Iterable[str], known: Sequence[str], where: Any) -> None:
    """Raise unless a table has these columns; ``where`` says which table.

    Raises
    ------
    InputError
        If one is missing.
    """
    missing = next((name for name in wanted if name not in known), None)
    if missing is not None:
        raise InputError(f"{where} has no column {missing!r}; it has {', '.join(known)}.")


def rows_of_table(
    table: Any, id: str | None, features: Sequence[str], shape: Sequence[int] | None
) -> tuple[Any, np.ndarray]:
    """Rows and their ids of a pyarrow.Table with a line for each; the ids are places where no column has them.

    Raises
    ------
    InputError
        If an id is missing, or the features are no numbers or do not have the shape.
    """
    rows = _features(table, features, shape)
    if id is None:
        return rows, np.arange(len(table))
    ids = as_labels(table[id].to_pandas(), "ids")
    if table[id].null_count or ids is None:
        raise InputError(f"column {id!r} is empty in a row: every row needs an id.")
    return rows, ids


def _features(table: Any, features: Sequence[str], shape: Sequence[int] | None) -> Any:
    pa = import_pyarrow()
    if len(features) > 1 or not pa.types.is_nested(table.schema.field(features[0]).type):
        frame = table.select(features).to_pandas(ignore_metadata=True)
        numeric(frame, "the table")
        return frame if shape is None else reshaped(frame, shape)
    column = table[features[0]].combine_chunks()
    column = column.storage if isinstance(column.type, pa.ExtensionType) else column
    while pa.types.is_nested(column.type) and not pa.types.is_struct(column.type):
        column = column.flatten()
    flat, rows = column.to_numpy(zero_copy_only=False), len(table)
    if shape is None or len(flat) != rows * math.prod(shape):
        raise InputError(f"column {features[0]!r} holds arrays: give their shape=, which all rows must have.")
    return flat.reshape(rows, *shape)


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
