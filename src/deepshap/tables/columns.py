"""Columns of any table as arrays: frames become ``pyarrow.Table``, and each column is numbers, ids or labels, or an error.

narwhals turns a frame of pandas, polars or any other library that it knows into a table of pyarrow. From there on there is
one way: a cell that is no number where numbers must stand, or an id that is missing, is named with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from numbers import Number
from typing import Any

import numpy as np

from ..errors import InputError, check_names, import_pyarrow, needed
from ..explanation.labels import as_labels, first_few

MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "-nan", "#n/a", "<na>")  # cells of text files without a number
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?inf(inity)?$"


def counted(position: int) -> str:
    """Return the place of a line in a table, counted from 1."""
    return f"row {position + 1} (counted from 1)"


@dataclass(frozen=True)
class Table:
    """A table that was opened.

    Attributes
    ----------
    columns : pyarrow.Table
        The columns.
    name : str
        What it is, for errors: a file, or "the table".
    place : callable
        Names a line, given its position, as it is found in the file.
    decimal : str, optional
        Set if all cells are the texts of a file, in which numbers have this decimal mark.
    said : list of str
        How the file was read: separator, encoding, lines that were passed over.
    implied : dict
        Columns that the format itself names: "id", "time", "label".
    mixed : dict
        Of columns in which texts stand among other values, the place of the first such cell.
    """

    columns: Any
    name: str = "the table"
    place: Callable[[int], str] = counted
    decimal: str | None = None
    said: list[str] = field(default_factory=list)
    implied: dict[str, str] = field(default_factory=dict)
    mixed: dict[str, int] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.columns.column_names)


# ---------------------------------------------------------------------- frames
def is_frame(value: Any) -> bool:
    """Return whether a value is a table with named columns, in memory or yet to be computed."""
    has_columns = hasattr(type(value), "columns") and not is_lazy(value)
    return is_lazy(value) or (has_columns and hasattr(value, "schema" if hasattr(value, "num_rows") else "shape"))


def is_lazy(value: Any) -> bool:
    """Return whether a value is a frame of polars or narwhals whose lines are yet to be computed."""
    return hasattr(value, "collect_schema") and callable(getattr(value, "collect", None))


def collected(value: Any) -> Any:
    """Return a lazy frame as a frame in memory, and any other value as it is."""
    return value.collect() if is_lazy(value) else value


def joined(names: Any) -> list[str]:
    """Return names as texts, those of several levels in one."""
    return [", ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in names]


def as_table(frame: Any, what: str = "the table", index: Sequence[Any] = ()) -> Table:
    """Return a frame of any library as a ``Table``; levels of pandas' index that are named in ``index`` become columns.

    Raises
    ------
    InputError
        If it is no frame in memory, two columns have one name, or a column holds values of several kinds.
    """
    pa, nw = import_pyarrow(), needed("narwhals", "tables need narwhals")
    frame = collected(frame)
    if isinstance(frame, pa.RecordBatch):
        frame = pa.Table.from_batches([frame])
    if isinstance(frame, pa.Table):
        check_names(f"the columns of {what}", frame.column_names)
        return Table(frame, what)
    if hasattr(frame, "index") and hasattr(frame, "iloc"):  # pandas, whose index may hold columns
        levels = [level for level in index if level in frame.index.names and level not in list(frame.columns)]
        frame = frame.reset_index(levels) if levels else frame
        check_names(f"the columns of {what}", joined(frame.columns))
        frame = frame.set_axis(joined(frame.columns), axis=1)
        periods = {name: frame[name].dt.to_timestamp() for name in frame if hasattr(frame[name].dtype, "freq")}
        frame = frame.assign(**periods)
    try:
        frame = nw.from_native(frame, eager_only=True)
    except (TypeError, ValueError):
        raise InputError(
            f"{what} must be a pandas.DataFrame, or a frame of polars or pyarrow in memory, not a {type(frame).__name__}."
        ) from None
    check_names(f"the columns of {what}", frame.columns)
    arrays = {name: _as_arrow(frame[name], name, what) for name in frame.columns}
    return Table(pa.table(arrays) if arrays else pa.table({}), what)


def _as_arrow(column: Any, name: str, what: str) -> Any:
    pa, nw = import_pyarrow(), needed("narwhals", "tables need narwhals")
    try:
        found = column.to_arrow()
    except (pa.ArrowException, TypeError, OverflowError):
        found = None
    if found is not None and not (column.dtype == nw.Object and pa.types.is_temporal(found.type)):
        return found
    cells = column.to_list()
    kinds = list(dict.fromkeys(_kind(cell) for cell in cells if not _is_missing(cell)))
    if found is not None and len(kinds) == 1:
        return found  # of several kinds, pyarrow drops the hours of some or the time zones of others
    if all(isinstance(cell, np.ndarray) for cell in cells):  # of several axes, which pyarrow takes as lists alone
        return pa.array([cell.tolist() for cell in cells])
    if len(kinds) == 1:
        dtype = getattr(column.to_native(), "dtype", column.dtype)
        raise InputError(
            f"{what}: column {name!r} is of dtype {dtype} with values of type {kinds[0]}, which cannot be read: convert it to "
            "numbers, dates or texts."
        )
    at = first_of_another_kind(cells)
    raise InputError(
        f"{what}: column {name!r} holds values of several kinds ({', '.join(kinds[:4])}), the first of another kind is "
        f"{cells[at]!r} in {counted(at)}: make them one kind."
    )


def first_of_another_kind(cells: Sequence[Any]) -> int:
    """Return the place of the first cell that is no number in a column that holds some, or else is of another type."""
    present = [(at, cell) for at, cell in enumerate(cells) if not _is_missing(cell)]
    are_numbers = [isinstance(cell, Number) and not isinstance(cell, (bool, np.bool_)) for _, cell in present]
    first = _kind(present[0][1])
    odd = [
        not number if any(are_numbers) else _kind(cell) != first
        for (_, cell), number in zip(present, are_numbers, strict=True)
    ]
    return present[odd.index(True) if True in odd else 0][0]


def _kind(cell: Any) -> str:
    """Return the type of a cell, and of a time whether it has a zone."""
    if isinstance(cell, datetime):
        return "datetime" if cell.tzinfo is None else "datetime with a time zone"
    return type(cell).__name__


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, (float, datetime)) and cell != cell)


# ---------------------------------------------------------------------- kinds of columns
def decoded(column: Any) -> Any:
    """Return a column in one piece, without dictionary or extension."""
    pa = import_pyarrow()
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    column = column.storage if isinstance(column.type, pa.ExtensionType) else column
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def is_text(kind: Any) -> bool:
    """Return whether a type of pyarrow is text."""
    types = import_pyarrow().types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def is_number(kind: Any) -> bool:
    """Return whether a type of pyarrow is numbers, or true and false, or nothing at all."""
    types = import_pyarrow().types
    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    return any(test(kind) for test in tests)


def parsed(column: Any, decimal: str) -> tuple[Any, Any]:
    """Return the numbers of texts, and which texts are neither a number nor missing."""
    pa = import_pyarrow()
    pc = pa.compute
    texts = pc.utf8_trim_whitespace(column.cast(pa.string()))
    missing = pc.fill_null(pc.is_in(pc.utf8_lower(texts), pa.array(MISSING)), True)
    texts = pc.if_else(missing, pa.scalar(None, pa.string()), texts)
    values = pc.unique(pc.utf8_lower(texts.drop_null()))
    if len(values) and set(values.to_pylist()) <= {"true", "false"}:
        return pc.equal(pc.utf8_lower(texts), "true"), np.zeros(len(texts), bool)
    if decimal != ".":
        pointed = pc.fill_null(pc.match_substring(texts, "."), False)
        texts = pc.if_else(pointed, "x", pc.replace_substring(texts, decimal, "."))
    wrong = np.asarray(pc.invert(pc.fill_null(pc.match_substring_regex(texts, NUMBER), True)))
    if wrong.any():
        return None, wrong
    texts = pc.replace_substring_regex(texts, r"^\+", "")
    try:
        return texts.cast(pa.int64()), wrong
    except pa.ArrowInvalid:
        return texts.cast(pa.float64()), wrong


def numbers(column: Any, name: str, table: Table) -> np.ndarray:
    """Return a column as numbers, in float64 with NaN where some are missing.

    Raises
    ------
    InputError
        If it holds anything else; of texts, the first that is no number.
    """
    pa = import_pyarrow()
    column = decoded(column)
    if is_text(column.type) and table.decimal is not None:
        found, wrong = parsed(column, table.decimal)
        if found is None:
            at = int(wrong.argmax())
            cell = column[at].as_py()
            hint = "numbers have no thousands separators, units or currencies"
            if table.decimal == "." and "," in cell and "." not in cell:
                hint = "if the comma is the decimal mark, read it with pandas.read_csv(path, decimal=',')"
            raise InputError(f"{table.name}: column {name!r} is not numeric: {cell!r} in {table.place(at)}; {hint}.")
        column = found
    if not is_number(column.type):
        kind, first = str(column.type), ""
        if is_text(column.type):
            wrong = parsed(column, ".")[1]
            cells = np.flatnonzero(wrong if wrong.any() else np.asarray(column.is_valid()))
            kind, at = "text", table.mixed.get(name, int(cells[0]) if len(cells) else 0)
            first = f", {column[at].as_py()!r} in {table.place(at)}" if column.null_count < len(column) else ""
        raise InputError(
            f"{table.name}: column {name!r} is {kind}{first}, not numeric. Encode it, or choose the columns to explain."
        )
    if column.null_count or pa.types.is_decimal(column.type) or pa.types.is_null(column.type):
        column = column.cast(pa.float64(), safe=False)
    found = np.asarray(column.to_numpy(zero_copy_only=False))
    return found


def matrix(table: Table, names: Sequence[str]) -> np.ndarray:
    """Return numeric columns side by side: in their own type if it is one, else in float64."""
    arrays = [numbers(table.columns[name], name, table) for name in names]
    kinds = {array.dtype for array in arrays}
    kind = (
        kinds.pop() if len(kinds) == 1 else np.dtype(np.int64) if {k.kind for k in kinds} == {"i"} else np.dtype(float)
    )
    return np.stack([array.astype(kind, copy=False) for array in arrays], 1)


def ids(column: Any, name: str, table: Table, what: str = "id") -> np.ndarray:
    """Return a column as the ids of rows, or what else stands in each line, none of which is missing.

    Raises
    ------
    InputError
        If an id is missing or empty; it says where.
    """
    pa = import_pyarrow()
    column = decoded(column)
    empty = np.asarray(column.is_null(nan_is_null=True))
    if is_text(column.type):
        empty |= np.asarray(pa.compute.fill_null(pa.compute.equal(pa.compute.utf8_trim_whitespace(column), ""), True))
    if empty.any():
        raise InputError(
            f"{table.name}: {what} empty in {table.place(int(empty.argmax()))} (column {name!r}): every line needs one."
        )
    return _array(column, name, table)


def labels(column: Any, name: str, table: Table) -> np.ndarray:
    """Return a column as labels of rows, such as classes: numbers where all cells are numbers, none of which begins with 0s."""
    column = decoded(column)
    if is_text(column.type) and table.decimal is not None and not has_codes(column):
        values, _ = parsed(column, table.decimal)
        column = column if values is None else values
    return numbers(column, name, table) if is_number(column.type) else _array(column, name, table)


def has_codes(texts: Any) -> bool:
    """Return whether some texts begin with a 0 and another digit: 0100 and 01052024 are no quantities."""
    pc = import_pyarrow().compute
    return bool(pc.any(pc.match_substring_regex(texts, r"^\s*[+-]?0\d")).as_py())


def is_missing(texts: Any) -> np.ndarray:
    """Return which texts are none: empty, or a word for a missing value."""
    pa = import_pyarrow()
    pc = pa.compute
    words = pc.utf8_lower(pc.utf8_trim_whitespace(texts.cast(pa.string())))
    return np.asarray(pc.fill_null(pc.is_in(words, pa.array((*MISSING, "nat"))), True))


def _array(column: Any, name: str, table: Table) -> np.ndarray:
    pa = import_pyarrow()
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        raise InputError(f"{table.name}: column {name!r} is {column.type}, which cannot name rows.")
    if pa.types.is_decimal(column.type) or pa.types.is_time(column.type):
        column = column.cast(pa.string())
    found = as_labels(column.to_numpy(zero_copy_only=False), name)
    assert found is not None
    return found


def nested(column: Any, name: str, shape: Sequence[int] | None, table: Table) -> np.ndarray:
    """Return a column that holds an array of one shape in each line.

    Raises
    ------
    InputError
        If the shape is not given, or an array has another one.
    """
    pa = import_pyarrow()
    column = decoded(column)
    if shape is None:
        raise InputError(f"{table.name}: column {name!r} holds arrays: give their shape=, which all rows must have.")
    level, lengths = column, []  # of the lists at each depth, with the line in which each stands
    lines = np.arange(len(column))
    while pa.types.is_nested(level.type) and not pa.types.is_struct(level.type):
        sizes = np.asarray(pa.compute.fill_null(pa.compute.list_value_length(level), 0))
        lengths.append((lines, sizes))
        lines, level = np.repeat(lines, sizes), level.flatten()
    count = int(np.prod(shape))
    wanted = [count] if len(lengths) == 1 else list(shape)
    if len(lengths) not in (1, len(shape)):
        raise InputError(
            f"{table.name}: column {name!r} holds arrays of {len(lengths)} axes, and the shape {tuple(shape)} has {len(shape)}."
        )
    for depth, ((owners, sizes), size) in enumerate(zip(lengths, wanted, strict=True)):
        if (sizes != size).any():
            at = int((sizes != size).argmax())
            what = (
                f"{sizes[at]} number{'s' * int(sizes[at] != 1)}" if depth == len(lengths) - 1 else f"{sizes[at]} lists"
            )
            whole = "" if depth == 0 else "a list of "
            raise InputError(
                f"{table.name}: column {name!r} holds {whole}{what} in {table.place(int(owners[at]))}, and the shape "
                f"{tuple(shape)} has {size}. If rows have different lengths, write a line for each step, with columns of ids and "
                "times."
            )
    return numbers(level, name, table).reshape(len(column), *shape)


def check_columns_exist(wanted: Sequence[str | None], known: Sequence[str], where: Any) -> None:
    """Raise unless a table has these columns; ``where`` says which table.

    Raises
    ------
    InputError
        If one is missing.
    """
    missing = next((name for name in wanted if name is not None and name not in known), None)
    if missing is not None:
        has = ", ".join(map(str, known)) if len(known) < 30 else first_few(list(known))
        raise InputError(f"{where} has no column {missing!r}; it has {has}.")
