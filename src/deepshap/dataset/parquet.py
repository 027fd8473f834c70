"""Parquet files larger than memory as rows: a line per row, or several lines of one id, read as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..names import as_labels
from ..optional import import_pyarrow
from ..tables import Sequences, as_columns, of_each, read_sequences
from .batches import Batch
from .fingerprint import digest, source_digest
from .sources import Range, Ranged, batch_of, check_columns_exist, rows_of_table

LINES_AT_ONCE = 2**16


class Lines:
    """The lines of some files, one after the other."""

    def __init__(self, paths: Sequence[Path], columns: Sequence[str] | None) -> None:
        self.paths, self._pa = list(paths), import_pyarrow()
        names = self._file(self.paths[0]).schema_arrow.names
        check_columns_exist(columns or [], names, self.paths[0])
        self.columns = list(names if columns is None else columns)
        self.counts = [self._file(path).metadata.num_rows for path in self.paths]
        self.count = sum(self.counts)

    def read(self, ranges: Iterable[Range], columns: Sequence[str] | None = None) -> Iterator[Any]:
        """A table for each of some ranges of lines, which must ascend."""
        wanted = [0]
        pieces = self._pieces(columns or self.columns, wanted)
        start, piece = 0, None
        for first, last in ranges:
            wanted[0], parts = first, []
            while first < last:
                if piece is None or start + piece.num_rows <= first:
                    start, piece = next(pieces)
                    continue
                parts.append(piece.slice(first - start, last - first))
                first += parts[-1].num_rows
            yield self._pa.Table.from_batches(parts) if parts else self._none(columns or self.columns)

    def take(self, ranges: Sequence[Range]) -> Any:
        """One table of some ranges of lines, which must ascend."""
        return self._pa.concat_tables(self.read(ranges or [(0, 0)]))

    def _pieces(self, columns: Sequence[str], wanted: list[int]) -> Iterator[tuple[int, Any]]:
        """Lines with the place of their first; row groups that end before the wanted line are passed over unread."""
        start = 0
        for path, count in zip(self.paths, self.counts, strict=True):
            if start + count <= wanted[0]:
                start += count
                continue
            file = self._file(path)
            for group in range(file.num_row_groups):
                at, start = start, start + file.metadata.row_group(group).num_rows
                if start > wanted[0]:
                    for piece in file.iter_batches(LINES_AT_ONCE, [group], self._known(path, file, columns)):
                        yield at, piece
                        at += piece.num_rows

    def _none(self, columns: Sequence[str]) -> Any:
        """No lines, of the columns' types, as far as whoever wrote no lines knew them."""
        types, table = self._pa.types, self._file(self.paths[0]).schema_arrow.empty_table().select(columns)
        fields = [field.with_type(self._pa.float64()) if types.is_null(field.type) else field for field in table.schema]
        return self._pa.schema(fields).empty_table()

    def _known(self, path: Path, file: Any, columns: Sequence[str]) -> list[str]:
        missing = [column for column in columns if column not in file.schema_arrow.names]
        if missing:
            raise InputError(f"{path} has no column {missing[0]!r}, which {self.paths[0]} has.")
        return list(columns)

    def _file(self, path: Path) -> Any:
        try:
            return self._pa.parquet.ParquetFile(path)
        except self._pa.ArrowInvalid as error:
            raise InputError(f"{path} is no Parquet file that can be read: {error}") from None


class WideTable(Ranged):
    """A line per row; the columns are the features, or one column holds an array of each row."""

    def __init__(
        self,
        paths: Sequence[Path],
        id: str | None,
        features: Sequence[str] | None,
        shape: Sequence[int] | None,
        lengths: Any,
        targets: Sequence[str],
    ) -> None:
        if lengths is not False and not isinstance(lengths, str):
            raise InputError(
                "lengths of a table with a line per row: name their column; of a long table name time= too."
            )
        others = [name for name in (id, lengths, *targets) if isinstance(name, str)]
        names = [c for c in Lines(paths, None).columns if c not in others and not c.startswith("__index_level_")]
        self.features = names if features is None else list(features)
        self.lines = Lines(paths, [*others, *self.features])
        self.id, self.shape, self.lengths, self.targets = id, shape, lengths or None, list(targets)
        self.rows = self.lines.count

    def digest(self) -> str:
        """Of the files' contents."""
        return source_digest(self.lines.paths)

    def read(self, ranges: Sequence[Range]) -> Iterator[Batch]:
        """The rows of some ranges."""
        for (start, _), table in zip(ranges, self.lines.read(ranges), strict=True):
            yield self._batch(table, start)

    def take(self, rows: np.ndarray) -> Batch:
        """The rows at some places, which must ascend."""
        return self._batch(self.lines.take([(int(row), int(row) + 1) for row in rows]), 0)

    def _batch(self, table: Any, start: int) -> Batch:
        rows, ids = rows_of_table(table, self.id, self.features, self.shape)
        lengths = None if self.lengths is None else table[self.lengths].to_numpy()
        targets = as_columns(table.select(self.targets).to_pandas()) if self.targets else None
        return Batch(0, rows, ids + start if self.id is None else ids, lengths, as_labels(targets, "targets"))


class LongTable(Ranged):
    """A line per id and time, the lines of an id together and the ids in order; each id is a row.

    Models that take lengths get them. All others read the padding, so that every row is padded to the longest of all:
    results must not depend on the part.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        id: str,
        time: str,
        features: Sequence[str] | None,
        lengths: bool,
        targets: Sequence[str],
    ) -> None:
        everything = Lines(paths, None).columns
        names = [c for c in everything if c not in (id, time, *targets)] if features is None else list(features)
        self.lines = Lines(paths, [id, time, *names, *targets])
        self.id, self.time, self.features, self.lengths, self.targets = id, time, names, lengths, list(targets)
        self._starts = self._find_rows()
        self.rows = len(self._starts) - 1
        self.steps = int(np.diff(self._starts).max(initial=0))

    def digest(self) -> str:
        """Of the files' contents."""
        return digest((source_digest(self.lines.paths), self.steps))

    def read(self, ranges: Sequence[Range]) -> Iterator[Batch]:
        """The rows of some ranges."""
        return map(self._batch, self.lines.read(self._lines_of(ranges)))

    def take(self, rows: np.ndarray) -> Batch:
        """The rows at some places, which must ascend."""
        return self._batch(self.lines.take(self._lines_of([(row, row + 1) for row in rows])))

    def _lines_of(self, ranges: Sequence[Range]) -> list[Range]:
        return [(int(self._starts[first]), int(self._starts[last])) for first, last in ranges]

    def _none(self, frame: Any) -> Sequences:
        """No rows, with ids and steps of the columns' types."""
        ids, times = (np.asarray(as_labels(frame[name], name)) for name in (self.id, self.time))
        values = np.zeros((0, 0, len(self.features)))
        return Sequences(values, np.zeros(0, int), ids, times.reshape(0, 0), list(self.features), self.time)

    def _batch(self, table: Any) -> Batch:
        frame = table.to_pandas(ignore_metadata=True)
        if self.rows:
            rows = read_sequences(frame, self.id, self.time, self.features, self.steps, 0.0, complete=False)
        else:
            rows = self._none(frame)
        targets = of_each(frame, self.id, self.targets, "targets") if self.targets else None
        return replace(batch_of(rows, 0, self.lengths), targets=as_labels(targets, "targets"))

    def _find_rows(self) -> np.ndarray:
        """Where the lines of each id begin, and the end of all: one pass over the ids, which must ascend."""
        pa, count = import_pyarrow(), self.lines.count
        starts, last, line = [np.zeros(1, np.int64)], None, 0
        ranges = [(a, min(a + LINES_AT_ONCE, count)) for a in range(0, count, LINES_AT_ONCE)]
        for table in self.lines.read(ranges, [self.id]):
            ids = table[self.id].combine_chunks()
            ids = ids.dictionary_decode() if pa.types.is_dictionary(ids.type) else ids
            if ids.null_count:
                raise InputError(f"column {self.id!r} is empty in a line: every line needs the id of its row.")
            known = ids if last is None else pa.concat_arrays([last, ids])
            before, after = known.slice(0, len(known) - 1), known.slice(1)
            down = np.asarray(pa.compute.less(after, before))
            if down.any():
                at = int(down.argmax())
                raise InputError(
                    f"the lines are not sorted by {self.id!r}: {before[at]} stands before {after[at]}. Sort them, so that the "
                    "lines of a row can be read together."
                )
            changes = np.flatnonzero(np.asarray(pa.compute.not_equal(after, before)))
            starts.append(changes + line + (last is None))
            last, line = known.slice(len(known) - 1), line + len(ids)
        return np.concatenate([*starts, [count]]) if count else starts[0]
