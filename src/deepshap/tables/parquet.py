"""The lines of Parquet files, read as a stream: several files have one schema, which is decided before the first line is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, import_pyarrow
from .columns import Table, counted

PARQUET = (".parquet", ".pq")
LINES_AT_ONCE = 2**16
Range = tuple[int, int]  # the first row, or line, and the one behind the last


def list_files(path: Path) -> list[Path]:
    """Return a file, or all Parquet files below a folder in the order of their names.

    Raises
    ------
    InputError
        If there is none.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}.")
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in PARQUET and not p.name.startswith((".", "_")))
    if not files:
        raise InputError(f"there are no Parquet files in {path}.")
    return files


class ParquetLines:
    """The lines of some Parquet files, one file after the other.

    Attributes
    ----------
    paths : list of Path
        The files.
    name : str
        What they are, for errors.
    schema : pyarrow.Schema
        The columns, with one type for all files.
    counts : list of int
        The lines of each file.

    Parameters
    ----------
    paths : sequence of Path
        The files, of which all have the columns of the first.
    labels : sequence of str
        The columns of ids and times, whose types must be of one kind in all files.
    """

    def __init__(self, paths: Sequence[Path], labels: Sequence[str | None]) -> None:
        self.paths, self._pa = list(paths), import_pyarrow()
        self.name = str(self.paths[0]) if len(self.paths) == 1 else "the files"
        self.schema = self._common_schema(labels)
        self.counts = [self.file(path).metadata.num_rows for path in self.paths]

    def __len__(self) -> int:
        return sum(self.counts)

    def file(self, path: Path) -> Any:
        """Open one of the files.

        Raises
        ------
        InputError
            If it is no Parquet file.
        """
        try:
            return self._pa.parquet.ParquetFile(path)
        except (self._pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path} cannot be read as a table: {error}") from None

    def place(self, line: int, behind: int = 0) -> str:
        """Return where a line stands, ``behind`` lines after another: its file, and its position there counted from 1."""
        line += behind
        if len(self.paths) == 1:
            return counted(line)
        ends = np.cumsum(self.counts)
        file = int(np.searchsorted(ends, line, side="right"))
        return f"row {line - ends[file] + self.counts[file] + 1} of {self.paths[file]} (counted from 1)"

    def table(self) -> Table:
        """Return all lines at once."""
        (lines,) = self.read([(0, len(self))], self.schema.names)
        return Table(lines, self.name, self.place)

    def chunks(self, names: Sequence[str]) -> Iterator[Any]:
        """Yield some columns of all lines, a table after the other."""
        return self.read([(a, min(a + LINES_AT_ONCE, len(self))) for a in range(0, len(self), LINES_AT_ONCE)], names)

    def columns_with_nulls(self) -> list[str]:
        """Return the columns in which, as far as the files say, values may be missing."""
        nullable: set[str] = set()
        for path in self.paths:
            metadata = self.file(path).metadata
            for group in (metadata.row_group(at) for at in range(metadata.num_row_groups)):
                for column in (group.column(at) for at in range(group.num_columns)):
                    is_counted = column.statistics is not None and column.statistics.has_null_count
                    if not is_counted or column.statistics.null_count:
                        nullable.add(column.path_in_schema)
        return list(nullable)

    def read(self, ranges: Iterable[Range], names: Sequence[str]) -> Iterator[Any]:
        """Yield a table for each of some ranges of lines, which must ascend."""
        schema = self._pa.schema([self.schema.field(name) for name in names], metadata=self.schema.metadata)
        wanted = [0]
        pieces = self._pieces(names, wanted)
        start, piece = 0, None
        for first, last in ranges:
            wanted[0], parts = first, []
            while first < last:
                if piece is None or start + piece.num_rows <= first:
                    start, piece = next(pieces)
                    continue
                lines = piece.slice(first - start, last - first)
                arrays = [self._cast(lines.column(name), schema.field(name).type) for name in names]
                parts.append(self._pa.Table.from_arrays(arrays, schema=schema))
                first += parts[-1].num_rows
            yield self._pa.concat_tables(parts) if parts else schema.empty_table()

    def _cast(self, array: Any, kind: Any) -> Any:
        """Return a column in the type of all files: whole numbers as the nearest fractions, where these are in other files."""
        to_fractions = self._pa.types.is_integer(array.type) and self._pa.types.is_floating(kind)
        return array.cast(kind, safe=not to_fractions)

    def _pieces(self, names: Sequence[str], wanted: list[int]) -> Iterator[tuple[int, Any]]:
        """Return lines with the place of their first; row groups that end before the wanted line are passed over unread."""
        start = 0
        for path, count in zip(self.paths, self.counts, strict=True):
            if start + count <= wanted[0]:
                start += count
                continue
            file = self.file(path)
            for group in range(file.num_row_groups):
                at, start = start, start + file.metadata.row_group(group).num_rows
                if start > wanted[0]:
                    for piece in file.iter_batches(LINES_AT_ONCE, [group], list(names)):
                        yield at, piece.select(list(names))
                        at += piece.num_rows

    # ------------------------------------------------------------------ one schema
    def _common_schema(self, labels: Sequence[str | None]) -> Any:
        """Return one schema for all files, whose columns are found by name; ``labels`` are the columns of ids and times."""
        first, *others = [self.file(path).schema_arrow for path in self.paths]
        for path, schema in zip(self.paths[1:], others, strict=True):
            missing = [name for name in first.names if name not in schema.names]
            if missing:
                raise InputError(f"{path} has no column {missing[0]!r}, which {self.paths[0]} has.")
            extra = [name for name in schema.names if name not in first.names]
            if extra:
                raise InputError(f"{path} has a column {extra[0]!r}, which {self.paths[0]} has not.")
        fields = [
            self._pa.field(
                name, self._common_type(name, [s.field(name).type for s in (first, *others)], name in labels)
            )
            for name in first.names
        ]
        return self._pa.schema(fields, metadata=first.metadata)

    def _common_type(self, name: str, kinds: list[Any], is_label: bool) -> Any:
        """Return the type of a column in all files; ids and times must be of one kind, since a conversion could change them.

        Raises
        ------
        InputError
            If there is none; it says which files differ.
        """
        pa, types = self._pa, self._pa.types
        if not all(map(types.is_dictionary, kinds)):
            kinds = [kind.value_type if types.is_dictionary(kind) else kind for kind in kinds]
        common, first = pa.null(), self.paths[0]
        for path, kind in zip(self.paths, kinds, strict=True):
            try:
                both = [pa.schema([(name, other)]) for other in (common, kind)]
                unified = pa.unify_schemas(both, promote_options="permissive").field(name).type
                tests = (types.is_floating, types.is_unsigned_integer, types.is_signed_integer, types.is_decimal)
                if is_label and not types.is_null(common) and any(test(common) != test(kind) for test in tests):
                    raise pa.ArrowTypeError("two kinds of numbers")
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                zones = {getattr(other, "tz", None) for other in (common, kind)}
                hint = "one time zone, such as UTC" if types.is_timestamp(kind) and len(zones) > 1 else "one type"
                raise InputError(
                    f"column {name!r} is {common} in {first} and {kind} in {path}: write it in {hint}, in all files."
                ) from None
            first = path if types.is_null(common) else first
            common = unified
        return pa.float64() if types.is_null(common) else common  # whoever wrote no lines may not have known the types
