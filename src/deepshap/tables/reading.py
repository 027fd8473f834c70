"""A table's lines as rows: wide, a line per row, or long, a line per row id and time.

What could misplace a value is decided once, from the schema of the whole data set (``decide``), and used for every part of
it (``read``): which columns are id, time, features and targets, how times are read, and the type of the values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, check_names, check_options, import_pyarrow
from ..explanation.labels import as_texts, first_few
from .columns import (
    Table,
    as_table,
    check_columns_exist,
    decoded,
    ids,
    is_number,
    is_text,
    labels,
    matrix,
    nested,
    numbers,
)
from .files import read_file
from .inputs import Labels
from .times import Times, decide_times


@dataclass(frozen=True)
class Sequences:
    """Padded sequences with their names; ``DeepExplainer`` takes them as background and as rows to explain.

    ``sequences[rows]`` takes some of them, such as a background; ``len(sequences)`` counts them.

    Attributes
    ----------
    values : array (rows, steps, features)
        Behind a row's length comes padding.
    lengths : array (rows,) of int
        Steps that are no padding.
    row_ids : array (rows,)
        The ids.
    step_labels : array (steps,) or (rows, steps)
        The times, if all rows have the same in the same places (steps,). Padding has NaT, NaN, "" or -1.
    feature_names : list of str
        The columns.
    time_label : str, optional
        Name of the axis of steps: the column of the times.

    Examples
    --------
    >>> table = pd.DataFrame({"who": ["ann", "ann", "bob"], "day": [2, 1, 1], "pulse": [71.0, 70.0, 64.0]})
    >>> rows = deepshap.sequences(table, id="who", time="day")
    >>> len(rows), rows.lengths.tolist(), rows.feature_names
    (2, [2, 1], ['pulse'])
    """

    values: np.ndarray
    lengths: np.ndarray
    row_ids: np.ndarray
    step_labels: np.ndarray
    feature_names: list[str]
    time_label: str | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> Sequences:
        if isinstance(rows, (int, np.integer)):
            rows = [rows]
        labels = self.step_labels if self.step_labels.ndim == 1 else self.step_labels[rows]
        chosen = {name: getattr(self, name)[rows] for name in ("values", "lengths", "row_ids")}
        return replace(self, **chosen, step_labels=labels)

    @property
    def labels(self) -> Labels:
        """Names and lengths alone."""
        return Labels(self.row_ids, self.step_labels, self.feature_names, self.lengths, self.time_label)


@dataclass(frozen=True)
class Wide:
    """Rows of a wide table: values (rows, features) or (rows, *shape), ids and names where there are some."""

    values: np.ndarray
    row_ids: np.ndarray | None = None
    feature_names: list[str] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> Wide:
        row_ids = None if self.row_ids is None else self.row_ids[rows]
        return replace(self, values=self.values[rows], row_ids=row_ids)

    @property
    def labels(self) -> Labels:
        """Ids and names alone."""
        return Labels(self.row_ids, feature_names=self.feature_names)


@dataclass(frozen=True)
class Rows:
    """Rows as they were read: ``X`` is what explainers take, and beside it stands what other columns say of the rows."""

    X: Sequences | Wide
    lengths: np.ndarray | None = None
    targets: np.ndarray | None = None
    groups: np.ndarray | None = None


@dataclass(frozen=True)
class Columns:
    """Which columns are what, as the user says; ``long`` None means "if there is a column of times"."""

    id: str | None = None
    time: str | None = None
    features: Sequence[str] | None = None
    targets: Sequence[str] = ()
    groups: Sequence[str] = ()
    lengths: str | None = None
    variable: str | None = None
    value: str | None = None
    shape: Sequence[int] | None = None
    long: bool | None = None


@dataclass(frozen=True)
class Decided:
    """What was decided of a data set, before its first row was read."""

    long: bool
    id: str | None
    time: str | None
    features: list[str]
    targets: list[str]
    groups: list[str]
    lengths: str | None
    variable: str | None
    value: str | None
    shape: list[int] | None
    times: Times | None
    dtype: str | None

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        features = self.features if self.variable is None else [self.variable, self.value]
        named = [self.id, self.time, *features, *self.targets, *self.groups, self.lengths]
        return list(dict.fromkeys(name for name in named if name is not None))

    def as_dict(self) -> dict[str, Any]:
        """Return what was decided as plain values, to be stored with a run."""
        times = None if self.times is None else self.times.as_dict()
        return {name: value for name, value in {**asdict(self), "times": times}.items() if value not in (None, [])}


def describe(read_as: Mapping[str, Any]) -> str:
    """Return how a data set is read, of what was decided of it, in a line for people."""
    features, time = read_as["features"], read_as.get("time")
    names = ", ".join(features[:6]) + (f", ... ({len(features)})" if len(features) > 6 else "")
    told = [f"id {read_as['id']!r}"] if "id" in read_as else []
    if read_as["long"]:
        told.append(f"time {time!r} as {Times(**read_as['times'])}" if time else "steps in the order of the lines")
    return "; ".join([*told, f"features {names}"])


# ---------------------------------------------------------------------- deciding
def check_counted(schema: Any, name: str, before: int = 0) -> None:
    """Raise if pandas left out an index of row numbers that are not those of the lines.

    pandas writes a range as its start and step alone. Rows are counted where there are no ids, so other numbers would be lost.

    Raises
    ------
    InputError
        If the range neither begins at 0 nor at the number of lines before, or has another step than 1.
    """
    for index in (schema.pandas_metadata or {}).get("index_columns", []):
        if isinstance(index, dict) and (index["step"] != 1 or index["start"] not in (0, before)):
            raise InputError(
                f"the rows of {name} are numbered from {index['start']} in steps of {index['step']} by their index, which pandas "
                "did not write as a column: their ids would be lost. Write it with frame.to_parquet(path, index=True), or give "
                "the ids as a column."
            )


def decide(
    table: Table, columns: Columns, chunks: Callable[[str], Iterable[Any]] | None = None, nulls: Sequence[str] = ()
) -> Decided:
    """Decide how a data set is read.

    Parameters
    ----------
    table : Table
        The data set, or as much of it as shows its columns.
    columns : Columns
        What the user says of the columns.
    chunks : callable, optional
        Returns a column of the whole data set in pieces; by default that of ``table``.
    nulls : sequence of str
        Columns in which values are missing.

    Raises
    ------
    InputError
        If a column is missing or is not what it is named as, or there are no features.
    """
    schema, known = table.columns.schema, table.names
    if table.implied and columns.id is None and columns.time is None and columns.long is None:
        columns = replace(columns, id=table.implied["id"], time=table.implied["time"])
    index = [name for name in (schema.pandas_metadata or {}).get("index_columns", []) if isinstance(name, str)]
    if columns.id is None:
        check_counted(schema, table.name)
    long = columns.time is not None if columns.long is None else columns.long
    id = columns.id
    if id is None and not long and len(index) == 1:
        id = index[0]
    if long and id is None:
        raise InputError(
            f"{table.name} is a long table and needs the id, the column that says which lines belong together. A single series "
            "has none: explain a forecast of it with deepshap.forecasting.explain_forecast."
        )
    special = [id, columns.time, columns.lengths, columns.variable, columns.value]
    targets, groups = (resolved(names, known) for names in (columns.targets, columns.groups))
    check_columns_exist([*special, *targets, *groups], known, table.name)
    if columns.variable is not None:
        features = _variables(table, columns, chunks)
    elif columns.features is None:
        others = [*special, *targets, *groups, *index, table.implied.get("label")]
        features = [name for name in known if name not in others]
    else:
        features = resolved([columns.features] if isinstance(columns.features, str) else columns.features, known)
        check_columns_exist(features, known, table.name)
    check_names("features", features)
    if not features:
        raise InputError(f"{table.name} has no columns to explain beside {', '.join(map(str, known))}.")
    times = None
    if columns.time is not None:
        pieces = [table.columns[columns.time]] if chunks is None else chunks(columns.time)
        times = decide_times(schema.field(columns.time).type, pieces, columns.time, table.decimal or ".")
    dtype = None if columns.variable is not None else _dtype(table, features, nulls)
    shape = None if columns.shape is None else list(map(int, columns.shape))
    return Decided(
        long,
        id,
        columns.time,
        features,
        targets,
        groups,
        columns.lengths,
        columns.variable,
        columns.value,
        shape,
        times,
        dtype,
    )


def resolved(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return names as the table has them, where those with commas in them may have been taken apart at the commas."""
    found, at = [], 0
    while at < len(names):
        ends = range(len(names), at, -1)
        candidates = ((comma.join(map(str, names[at:end])), end) for end in ends for comma in (",", ", "))
        name, at = next(((n, end) for n, end in candidates if n in known), (names[at], at + 1))
        found.append(name)
    return found


def _variables(table: Table, columns: Columns, chunks: Callable[[str], Iterable[Any]] | None) -> list[str]:
    """Return the features of a table with a variable and a value in each line, in the order in which they appear."""
    name = columns.variable
    if columns.value is None or columns.time is None or name is None:
        raise InputError("a table with a column of variables needs value=, the column of their values, and time=.")
    found: dict[str, None] = {}
    for chunk in [table.columns[name]] if chunks is None else chunks(name):
        found.update(dict.fromkeys(ids(decoded(chunk), name, table, "variable").astype(str).tolist()))
    if columns.features is None:
        return list(found)
    wanted = resolved(columns.features, list(found))
    check_columns_exist(wanted, list(found), f"the column {name!r} of {table.name}")
    return wanted


def _dtype(table: Table, features: list[str], nulls: Sequence[str]) -> str | None:
    """Return the type of the values, by the schema; None for the texts of a file, of which all are read at once."""
    pa, schema = import_pyarrow(), table.columns.schema
    kinds = [schema.field(name).type for name in features]
    kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds]
    if any(is_text(kind) for kind in kinds) and table.decimal is not None:
        return None
    if len(features) == 1 and pa.types.is_nested(getattr(kinds[0], "storage_type", kinds[0])):
        return None
    for name in features:  # an error names a column that holds no numbers
        empty = schema.field(name).type
        if not (is_number(empty) or pa.types.is_dictionary(empty)):
            numbers(table.columns[name], name, table)
    whole = [
        not (pa.types.is_integer(k) or pa.types.is_boolean(k)) or n in nulls
        for k, n in zip(kinds, features, strict=True)
    ]
    if any(whole):
        return "float32" if set(kinds) == {pa.float32()} else "float64"
    return str(kinds[0].to_pandas_dtype().__name__).rstrip("_") if len(set(kinds)) == 1 else "int64"


# ---------------------------------------------------------------------- reading
def read(
    table: Table, decided: Decided, steps: int | None = None, pad: float | str = 0.0, complete: bool = True
) -> Rows:
    """Read the rows of a table, or of a part of a data set, as was decided.

    Parameters
    ----------
    table : Table
        The lines.
    decided : Decided
        How the data set is read.
    steps : int, optional
        Pad the rows of a long table to that many steps; by default to the longest.
    pad : float or "last"
        What stands behind the last step.
    complete : bool
        Raise where a value is missing or infinite.

    Raises
    ------
    InputError
        If a line cannot be read; it says which.
    """
    return (_read_long if decided.long else _read_wide)(table, decided, steps, pad, complete)


def _read_wide(table: Table, decided: Decided, steps: int | None, pad: float | str, complete: bool) -> Rows:
    columns, names = table.columns, decided.features
    is_nested = len(names) == 1 and _is_nested(columns[names[0]])
    values = nested(columns[names[0]], names[0], decided.shape, table) if is_nested else matrix(table, names)
    if not is_nested and decided.dtype is not None and (values.dtype.kind != "f" or decided.dtype[0] == "f"):
        values = values.astype(decided.dtype)
    wrong = ~np.isfinite(values.reshape(len(values), -1)) if complete and values.dtype.kind == "f" else np.zeros((0, 1))
    if wrong.any():
        line, column = np.argwhere(wrong)[0]
        name, what = names[0 if is_nested else column], values.reshape(len(values), -1)[line, column]
        raise InputError(
            f"{table.name}: {name!r} is {'missing' if np.isnan(what) else 'infinite'} in {table.place(int(line))}: fill or drop "
            "it first."
        )
    row_ids = None if decided.id is None else ids(columns[decided.id], decided.id, table)
    if decided.shape is not None and not is_nested:
        try:
            values = values.reshape(len(values), *decided.shape)
        except ValueError:
            raise InputError(
                f"{table.name}: {len(names)} columns ({first_few(names)}) for the {int(np.prod(decided.shape))} values of a row "
                f"of shape {tuple(decided.shape)}: rows cannot have this shape; choose the columns, features=."
            ) from None
    named = None if is_nested or decided.shape is not None else list(names)
    lengths = None if decided.lengths is None else _labels(table, decided.lengths, "length")
    targets, groups = _beside(table, decided.targets, "target"), _beside(table, decided.groups)
    return Rows(Wide(values, row_ids, named), lengths, targets, groups)


def _is_nested(column: Any) -> bool:
    types = import_pyarrow().types
    return bool(types.is_nested(getattr(column.type, "storage_type", column.type)))


def _labels(table: Table, name: str, required: str = "") -> np.ndarray:
    """Return a column as labels of rows; where ``required`` says what they are, each line must have one."""
    column = table.columns[name]
    if not required:
        return labels(column, name, table)
    empty = np.asarray(decoded(column).is_null(nan_is_null=True))
    if not empty.any():
        values = labels(column, name, table)
        empty = values != values if values.dtype.kind == "f" else values == "" if values.dtype.kind == "U" else empty
        if not empty.any():
            return values
    raise InputError(
        f"{table.name}: {required} empty in {table.place(int(empty.argmax()))} (column {name!r}): fill it or drop the line."
    )


def _beside(table: Table, names: Sequence[str], required: str = "") -> np.ndarray | None:
    """Return columns beside the features, (rows,) or (rows, columns)."""
    arrays = [_labels(table, name, required) for name in names]
    return None if not arrays else arrays[0] if len(arrays) == 1 else np.stack(arrays, 1)


def _read_long(table: Table, decided: Decided, steps: int | None, pad: float | str, complete: bool) -> Rows:
    columns, names = table.columns, decided.features
    assert decided.id is not None
    if not len(columns):
        return Rows(_no_rows(table, decided), targets=_beside(table, decided.targets))
    all_ids = ids(columns[decided.id], decided.id, table)
    coded = decoded(columns[decided.id]).dictionary_encode()
    codes = coded.indices.to_numpy(zero_copy_only=False)
    row_ids = all_ids[np.unique(codes, return_index=True)[1]]
    if decided.times is None:  # lines are numbered in their order
        order = np.argsort(codes, kind="stable")
        ranks = np.empty(len(codes), np.int64)
        counts = np.bincount(codes)
        ranks[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
        stamps = ranks
    else:
        stamps, ranks = decided.times.read(columns[str(decided.time)], str(decided.time), table)
        if decided.times.kind == "text":
            _check_in_order(codes, ranks, stamps, str(decided.time))
    lines = np.arange(len(codes))
    if decided.variable is not None:
        values, lines = _pivoted(table, decided, codes, ranks)
    elif len(names) == 1 and _is_nested(columns[names[0]]):
        raise InputError(
            f"{table.name}: column {names[0]!r} holds arrays, and a long table holds a number in each cell."
        )
    else:
        values = matrix(table, names)
    targets = _of_each(table, codes, decided.targets, "targets", "target")
    groups = _of_each(table, codes, decided.groups, "groups")
    codes, ranks, stamps = codes[lines], ranks[lines], stamps[lines]
    order = np.lexsort((ranks, codes))
    codes, ranks, stamps, values, lines = codes[order], ranks[order], stamps[order], values[order], lines[order]
    again = (codes[1:] == codes[:-1]) & (ranks[1:] == ranks[:-1])
    if again.any():
        one = int(again.argmax())
        raise InputError(
            f"{decided.id} {row_ids[codes[one]]} has two lines for {decided.time} {as_texts(stamps[one])} "
            f"({table.place(int(lines[one]))}, {table.place(int(lines[one + 1]))}); drop one, or choose the right columns."
        )
    if complete and not np.isfinite(values).all():
        line, column = np.argwhere(~np.isfinite(values))[0]
        raise InputError(
            f"{names[column]!r} is missing or infinite at {row_ids[codes[line]]}, {as_texts(stamps[line])} "
            f"({table.place(int(lines[line]))}). Fill or drop such values first."
        )
    lengths = np.bincount(codes)
    count = int(lengths.max()) if steps is None else steps
    if lengths.max() > count:
        raise InputError(
            f"{decided.id} {row_ids[lengths.argmax()]} has {lengths.max()} lines, more than {count} steps."
        )
    at = np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    padded = np.zeros((len(row_ids), count, len(names)))
    padded[codes, at] = values
    _pad(padded, lengths, pad)
    steps_ = _step_labels(codes, at, stamps, (len(row_ids), count))
    return Rows(Sequences(padded, lengths, row_ids, steps_, list(names), decided.time), None, targets, groups)


def _no_rows(table: Table, decided: Decided) -> Sequences:
    """Return no rows, with ids and steps of the columns' types."""
    row_ids = ids(table.columns[decided.id], str(decided.id), table)
    times = np.zeros(0, int)
    if decided.times is not None:
        times, _ = decided.times.read(table.columns[str(decided.time)], str(decided.time), table)
    count = len(decided.features)
    values = np.zeros((0, 0, count))
    return Sequences(values, np.zeros(0, int), row_ids, times.reshape(0, 0), list(decided.features), decided.time)


def _check_in_order(codes: np.ndarray, ranks: np.ndarray, stamps: np.ndarray, name: str) -> None:
    """Raise unless the lines of each id are in the order of their texts already."""
    order = np.argsort(codes, kind="stable")
    turned = (codes[order][1:] == codes[order][:-1]) & (ranks[order][1:] < ranks[order][:-1])
    if turned.any():
        at = int(turned.argmax())
        raise InputError(
            f"column {name!r} is text, in no clear order: {str(stamps[order][at])!r} stands before "
            f"{str(stamps[order][at + 1])!r}. Use numbers or dates (2024-03-01), or sort the lines and leave it out."
        )


def _pivoted(table: Table, decided: Decided, codes: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of all variables at each id and time, NaN where there is none, and a line of each."""
    variable, value = str(decided.variable), str(decided.value)
    names = ids(table.columns[variable], variable, table, "variable").astype(str)
    cells = numbers(table.columns[value], value, table)
    places = {name: at for at, name in enumerate(decided.features)}
    column = np.array([places.get(name, -1) for name in names.tolist()], np.int64)
    _, first, moment = np.unique(np.stack([codes, ranks]), axis=1, return_index=True, return_inverse=True)
    moment = moment.reshape(-1)
    wanted = column >= 0
    keys = moment[wanted] * len(places) + column[wanted]
    unique, counts = np.unique(keys, return_counts=True)
    if (counts > 1).any():
        twice = np.flatnonzero(wanted)[keys == unique[counts.argmax()]][:2].tolist()
        raise InputError(
            f"{table.name} has two values of {str(names[twice[0]])!r} for one {decided.id} and {decided.time}: "
            f"{table.place(twice[0])} and {table.place(twice[1])}. Drop one of them."
        )
    found = np.full((len(first), len(places)), np.nan)
    found[moment[wanted], column[wanted]] = cells[wanted]
    return found, first


def _of_each(
    table: Table, codes: np.ndarray, names: Sequence[str], option: str, required: str = ""
) -> np.ndarray | None:
    """Return columns of a long table that have one value for each id, (ids,) or (ids, columns)."""
    arrays = []
    first = np.unique(codes, return_index=True)[1]
    for name in names:
        array = _labels(table, name, required)
        each = array[first][codes]
        if ((array != each) & ~((array != array) & (each != each))).any():
            raise InputError(f"{option}: {name!r} changes within a row; it needs one value for each id.")
        arrays.append(array[first])
    return None if not arrays else arrays[0] if len(arrays) == 1 else np.stack(arrays, 1)


def _pad(values: np.ndarray, lengths: np.ndarray, pad: float | str) -> None:
    rows, count = values.shape[:2]
    padding = np.arange(count) >= lengths[:, None]
    if pad == "last":
        values[padding] = np.repeat(values[np.arange(rows), lengths - 1], count - lengths, axis=0)
    else:
        values[padding] = pad


def _step_labels(codes: np.ndarray, at: np.ndarray, stamps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return times in their places: one label for each step where all rows agree, else one for each row and step."""
    fillers = {"M": "NaT", "m": "NaT", "f": np.nan, "i": -1, "U": ""}
    labels = np.full(shape, fillers.get(stamps.dtype.kind, 0), stamps.dtype)
    labels[codes, at] = stamps
    longest = labels[np.bincount(codes).argmax()]
    return longest if (labels[codes, at] == longest[at]).all() else labels


def sequences(
    frame: Any,
    id: str,
    time: str | None = None,
    features: Sequence[str] | None = None,
    *,
    steps: int | None = None,
    pad: float | str = 0.0,
    variable: str | None = None,
    value: str | None = None,
) -> Sequences:
    """Turn a table in long form, a line per row id and time, into padded arrays.

    Parameters
    ----------
    frame : pandas.DataFrame, polars.DataFrame, pyarrow.Table or path
        Columns for the id, the time and the features; its lines may stand in any order. Id and time may be levels of
        pandas' index. Or the path of a file: Parquet, Feather, text (.csv, .tsv), Excel, JSON Lines.
    id : str
        The column that says which lines belong together. Rows stand in the order in which the ids first appear.
    time : str, optional
        The column that orders the lines of an id; by default they stay in their order and are numbered. Numbers, dates,
        durations and ordered categories have an order. Texts are dates if their year has four digits and there is one
        reading for all of them; other texts must be in order already. Times with a time zone become the clock times
        there, or those of UTC if the zone's clocks are ever changed.
    features : sequence of str, optional
        The columns of the features, by default all others; or the variables to take.
    steps : int, optional
        Pad all rows to that many steps, as those of another table; by default to the longest.
    pad : float or "last", default 0.0
        What stands behind the last step: a number, or "last" to repeat it, as suits a background, whose rows are compared
        with longer ones.
    variable, value : str, optional
        Columns with the name and the value of one feature in each line, instead of a column for each feature.

    Returns
    -------
    Sequences
        ``values`` (rows, steps, features) in float64, and what is known of them.

    Raises
    ------
    InputError
        If a column is missing, named twice or not numeric, a value is missing (NaN), two lines of an id have the same time,
        times are text that is neither dates nor in order, or a row is longer than ``steps``.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"who": ["ann", "ann", "bob"], "day": [2, 1, 1], "pulse": [71.0, 70.0, 64.0]})
    >>> sequences(table, id="who", time="day").values[..., 0].tolist()
    [[70.0, 71.0], [64.0, 0.0]]
    """
    check_options(id=id, time=time, features=features, steps=steps, pad=pad, variable=variable, value=value)
    if isinstance(frame, (str, os.PathLike)):
        table = read_file(Path(frame), named=[str(name) for name in (id, time, variable) if name is not None])
    else:
        table = as_table(frame, index=[name for name in (id, time) if name is not None])
    columns = Columns(_text(id), _text(time), features, variable=variable, value=value, long=True)
    if isinstance(features, str):
        columns = replace(columns, features=[features])
    elif features is not None:
        columns = replace(columns, features=[_text(name) for name in features])
    check_columns_exist([columns.id, columns.time], table.names, "the table")
    if not len(table.columns):
        raise InputError("the table has 0 lines: there is nothing to read.")
    found = read(table, decide(table, columns), steps, pad).X
    assert isinstance(found, Sequences)
    return found


def _text(name: Any) -> Any:
    """Return the name of a column as a table of pyarrow has it: text."""
    return name if name is None else ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)
