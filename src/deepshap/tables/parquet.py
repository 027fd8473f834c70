"""Parquet files larger than memory as rows, read as a stream: what they hold is decided once, from all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, import_pyarrow
from .columns import Table, counted, decoded, ids
from .reading import Columns, Decided, Rows, check_counted, decide, read

LINES_AT_ONCE = 2**16
Range = tuple[int, int]  # the first row, or line, and the one behind the last


class ParquetRows:
    """The rows of some Parquet files, one after the other.

    A line is a row; or, with a column of times, the lines of one id are. Such lines must be sorted by id.

    Attributes
    ----------
    rows : int
        How many there are.
    decided : Decided
        How they are read.
    steps : int or None
        Of a long table, the most lines of an id: every row is padded to them, since results must not depend on the part.
    """

    def __init__(self, paths: Sequence[Path], columns: Columns) -> None:
        self.paths, self._pa = list(paths), import_pyarrow()
        self._schema = self._common_schema()
        self._counts = [self._file(path).metadata.num_rows for path in self.paths]
        if columns.id is None:
            for path, before in zip(self.paths, np.cumsum([0, *self._counts]).tolist(), strict=False):
                check_counted(self._file(path).schema_arrow, str(path), before)
        empty = Table(self._schema.empty_table(), str(self.paths[0]))
        self._names = self._schema.names
        self.decided: Decided = decide(empty, columns, self._chunks, self._with_nulls())
        self._names, self.steps = self.decided.columns, None
        self._starts = self._find_rows() if self.decided.long else np.arange(sum(self._counts) + 1)
        self.rows = len(self._starts) - 1
        if self.decided.long:
            self.steps = int(np.diff(self._starts).max(initial=0))

    def read(self, ranges: Sequence[Range]) -> Iterator[Rows]:
        """Return the rows of some ranges, which must ascend."""
        lines = self._lines_of(ranges)
        for (first, _), table in zip(lines, self._read(lines, self._names), strict=True):
            yield self._rows(table, lambda at, first=first: counted(first + at))

    def take(self, rows: np.ndarray) -> Rows:
        """Return the rows at some places, which must ascend."""
        lines = self._lines_of([(int(row), int(row) + 1) for row in rows])
        places = np.concatenate([np.arange(*one) for one in lines] or [np.zeros(0, int)])
        table = self._pa.concat_tables(self._read(lines or [(0, 0)], self._names))
        return self._rows(table, lambda at: counted(int(places[at])))

    def _rows(self, table: Any, place: Any) -> Rows:
        name = str(self.paths[0]) if len(self.paths) == 1 else "the files"
        return read(Table(table, name, place), self.decided, self.steps, complete=False)

    def _lines_of(self, ranges: Sequence[Range]) -> list[Range]:
        return [(int(self._starts[first]), int(self._starts[last])) for first, last in ranges]

    # ------------------------------------------------------------------ what is in the files
    def _common_schema(self) -> Any:
        """Return one schema for all files, whose columns are found by name."""
        first, types = self._file(self.paths[0]).schema_arrow, self._pa.types
        schemas = [first]
        for path in self.paths[1:]:
            schema = self._file(path).schema_arrow
            missing = [name for name in first.names if name not in schema.names]
            if missing:
                raise InputError(f"{path} has no column {missing[0]!r}, which {self.paths[0]} has.")
            extra = [name for name in schema.names if name not in first.names]
            if extra:
                raise InputError(f"{path} has a column {extra[0]!r}, which {self.paths[0]} has not.")
            schemas.append(self._pa.schema([schema.field(name) for name in first.names]))
        try:
            schema = self._pa.unify_schemas(schemas, promote_options="permissive")
        except self._pa.ArrowInvalid as error:
            raise InputError(f"columns of the files have different types: {error}") from None
        nothing = self._pa.float64()  # whoever wrote no lines may not have known the types
        fields = [field.with_type(nothing) if types.is_null(field.type) else field for field in schema]
        return self._pa.schema(fields, metadata=first.metadata)

    def _with_nulls(self) -> list[str]:
        """Return the columns in which, as far as the files say, values may be missing."""
        found: set[str] = set()
        for path in self.paths:
            metadata = self._file(path).metadata
            for group in (metadata.row_group(at) for at in range(metadata.num_row_groups)):
                for column in (group.column(at) for at in range(group.num_columns)):
                    known = column.statistics is not None and column.statistics.has_null_count
                    if not known or column.statistics.null_count:
                        found.add(column.path_in_schema)
        return list(found)

    def _chunks(self, name: str) -> Iterator[Any]:
        return (table[name] for table in self._tables([name]))

    def _tables(self, names: Sequence[str]) -> Iterator[Any]:
        count = sum(self._counts)
        return self._read([(a, min(a + LINES_AT_ONCE, count)) for a in range(0, count, LINES_AT_ONCE)], names)

    def _find_rows(self) -> np.ndarray:
        """Return where the lines of each id begin, and the end of all: one pass over the ids, which must ascend."""
        pa, count, name = self._pa, sum(self._counts), str(self.decided.id)
        starts, last, line = [np.zeros(1, np.int64)], None, 0
        for table in self._tables([name]):
            each, before = decoded(table[name]), line
            ids(each, name, Table(table, str(self.paths[0]), lambda at, before=before: counted(before + at)))  # type: ignore[misc]
            known = each if last is None else pa.concat_arrays([last, each])
            one, other = known.slice(0, len(known) - 1), known.slice(1)
            down = np.asarray(pa.compute.less(other, one))
            if down.any():
                at = int(down.argmax())
                raise InputError(
                    f"the lines are not sorted by {name!r}: {one[at]} stands before {other[at]}. Sort them, so that the "
                    "lines of a row can be read together."
                )
            changes = np.flatnonzero(np.asarray(pa.compute.not_equal(other, one)))
            starts.append(changes + line + (last is None))
            last, line = known.slice(len(known) - 1), line + len(each)
        return np.concatenate([*starts, [count]]) if count else starts[0]

    # ------------------------------------------------------------------ lines
    def _read(self, ranges: Iterable[Range], names: Sequence[str]) -> Iterator[Any]:
        """Return a table for each of some ranges of lines, which must ascend."""
        schema = self._pa.schema([self._schema.field(name) for name in names])
        wanted = [0]
        pieces = self._pieces(names, wanted)
        start, piece = 0, None
        for first, last in ranges:
            wanted[0], parts = first, []
            while first < last:
                if piece is None or start + piece.num_rows <= first:
                    start, piece = next(pieces)
                    continue
                parts.append(self._pa.Table.from_batches([piece.slice(first - start, last - first)]).cast(schema))
                first += parts[-1].num_rows
            yield self._pa.concat_tables(parts) if parts else schema.empty_table()

    def _pieces(self, names: Sequence[str], wanted: list[int]) -> Iterator[tuple[int, Any]]:
        """Return lines with the place of their first; row groups that end before the wanted line are passed over unread."""
        start = 0
        for path, count in zip(self.paths, self._counts, strict=True):
            if start + count <= wanted[0]:
                start += count
                continue
            file = self._file(path)
            for group in range(file.num_row_groups):
                at, start = start, start + file.metadata.row_group(group).num_rows
                if start > wanted[0]:
                    for piece in file.iter_batches(LINES_AT_ONCE, [group], list(names)):
                        yield at, piece.select(list(names))
                        at += piece.num_rows

    def _file(self, path: Path) -> Any:
        try:
            return self._pa.parquet.ParquetFile(path)
        except self._pa.ArrowInvalid as error:
            raise InputError(f"{path} is no Parquet file that can be read: {error}") from None
