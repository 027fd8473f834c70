"""Where the rows of a run come from: arrays and tables in memory or mapped from disk, Parquet files, any iterable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from ..names import as_labels
from ..optional import import_pyarrow
from ..tables import Sequences, common_ids, numeric, plain
from .batches import Batch, count, take
from .fingerprint import digest


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


class Indexed:
    """Arrays, tables or ``Sequences`` of which any rows can be taken."""

    def __init__(self, X: Any, shape: Sequence[int] | None, lengths: Any) -> None:
        self.X, self.rows = X if shape is None else reshaped(X, shape), count(X)
        self.lengths = lengths if isinstance(lengths, bool) else np.asarray(lengths)
        if np.shape(self.lengths) not in ((), (self.rows,)):
            raise InputError(f"lengths has shape {np.shape(lengths)} for {self.rows} rows.")

    def digest(self) -> str:
        """Of the values, their labels and lengths."""
        return digest((digest_of(self.X), self.lengths))

    def batches(self, size: int, done: set[int]) -> Iterator[Batch]:
        """The parts that are not done."""
        for number in range(-(-self.rows // size)):
            if number not in done:
                rows = slice(number * size, min((number + 1) * size, self.rows))
                lengths = self.lengths if isinstance(self.lengths, bool) else self.lengths[rows]
                yield batch_of(number, take(self.X, rows), rows.start, lengths)

    def take(self, rows: np.ndarray) -> Batch:
        """The rows at some places."""
        lengths = self.lengths if isinstance(self.lengths, bool) else self.lengths[rows]
        return batch_of(0, take(self.X, rows), 0, lengths)


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
            batch = batch_of(number, X, start, self.lengths)
            start += len(batch)
            yield batch

    def take(self, rows: np.ndarray) -> Batch:
        """Cannot be done."""
        raise InputError("of batches that pass by no rows can be taken: give a file, or arrays.")


def batch_of(number: int, X: Any, start: int, lengths: Any) -> Batch:
    """A part of rows that know their ids, or begin at a place of the data set.

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
    return Batch(number, X, found, None if lengths is False else lengths)


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
