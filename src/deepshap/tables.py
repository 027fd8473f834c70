"""Sequences in long form (a line per id and time) as padded arrays, and labels that come with tables."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .names import as_labels, check_names, is_whole, shortened
from .optional import needed
from .options import check_options

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Labels:
    """What a table says of the rows, steps and features that it holds; None where it says nothing."""

    row_ids: Any = None
    step_labels: Any = None
    feature_names: list[str] | None = None
    lengths: np.ndarray | None = None
    time_label: str | None = None


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


def sequences(
    frame: pd.DataFrame,
    id: str,
    time: str | None = None,
    features: Sequence[str] | None = None,
    *,
    steps: int | None = None,
    pad: float | str = 0.0,
) -> Sequences:
    """Turn a table in long form, a line per row id and time, into padded arrays.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns for the id, the time and the features; its lines may stand in any order.
    id : str
        The column that says which lines belong together. Rows stand in the order in which the ids first appear.
    time : str, optional
        The column that orders the lines of an id, of numbers or dates; by default they stay in their order and are numbered.
        Times with a time zone become the clock times there, or UTC where the clocks are changed meanwhile.
    features : sequence of str, optional
        The columns of the features, by default all others.
    steps : int, optional
        Pad all rows to that many steps, as those of another table; by default to the longest.
    pad : float or "last", default 0.0
        What stands behind the last step: a number, or "last" to repeat it, as suits a background, whose rows are compared
        with longer ones.

    Returns
    -------
    Sequences
        ``values`` (rows, steps, features) in float64, and what is known of them.

    Raises
    ------
    InputError
        If a column is missing, named twice or not numeric, a value is missing (NaN), two lines of an id have the same time,
        times are text that is neither dates nor in order, or a row is longer than ``steps``.
    """
    return read_sequences(frame, id, time, features, steps, pad)


def counted(position: int) -> str:
    """A line of a table, as people count."""
    return f"row {position + 1} (counted from 1)"


def read_sequences(
    frame: pd.DataFrame,
    id: str,
    time: str | None,
    features: Sequence[str] | None,
    steps: int | None,
    pad: float | str,
    place: Callable[[int], str] = counted,
    complete: bool = True,
) -> Sequences:
    """As ``sequences``, but errors name a line of the table as ``place`` does, from its position.

    Values may be missing where they need not be ``complete``.
    """
    pd = needed("pandas", "pandas is needed for this")
    frame = frame.to_pandas() if hasattr(frame, "to_pandas") else frame
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"a long table is a pandas.DataFrame, not a {type(frame).__name__}.")
    check_options(id=id, time=time, features=features, steps=steps, pad=pad)
    given = [column for column in frame.columns if column not in (id, time)] if features is None else features
    names = [given] if isinstance(given, str) else list(given)
    _check_columns(frame, [id, *([time] if time is not None else []), *names])
    check_names("features", names)
    if not len(frame) or not names:
        raise InputError(f"the table has {len(frame)} lines and {len(names)} features: there is nothing to read.")
    table = numeric(frame[names], "the table")
    codes, ids = pd.factorize(frame[id])
    if (codes < 0).any():
        raise InputError(f"column {id!r} is empty in {place(int((codes < 0).argmax()))}.")
    times = _times(frame[time], codes, time) if time is not None else frame.groupby(codes).cumcount()
    if times.isna().any():
        raise InputError(f"column {time!r} is empty in {place(int(times.isna().argmax()))}.")
    order = np.lexsort((pd.factorize(times, sort=True)[0], codes))
    codes, table, stamps = codes[order], table[order], np.asarray(as_labels(times, "the times"))[order]
    lengths = np.bincount(codes)
    at = np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    again = (codes[1:] == codes[:-1]) & (stamps[1:] == stamps[:-1])
    if again.any():
        first = int(again.argmax())
        raise InputError(
            f"{id} {ids[codes[first]]} has two lines for {time} {stamps[first]}; drop one of them, or choose the right columns."
        )
    if complete:
        _check_complete(table, names, ids[codes], stamps)
    count = int(lengths.max()) if steps is None else steps
    if lengths.max() > count:
        raise InputError(f"{id} {ids[lengths.argmax()]} has {lengths.max()} lines, more than steps={steps}.")
    values = np.zeros((len(ids), count, len(names)))
    values[codes, at] = table
    _pad(values, lengths, pad)
    labels = _step_labels(codes, at, stamps, (len(ids), count))
    ids = np.asarray(as_labels(ids, "ids"))
    return Sequences(values, lengths, ids, labels, [str(name) for name in names], None if time is None else str(time))


def _pad(values: np.ndarray, lengths: np.ndarray, pad: float | str) -> None:
    rows, count = values.shape[:2]
    padding = np.arange(count) >= lengths[:, None]
    if pad == "last":
        values[padding] = np.repeat(values[np.arange(rows), lengths - 1], count - lengths, axis=0)
    else:
        values[padding] = pad


def _times(column: Any, codes: np.ndarray, name: str) -> Any:
    """Times in a form that can be ordered: text is read as dates, those with a time zone become the clock times there.

    Text that is no dates must stand in order already: "day 10" would come before "day 9".
    """
    if getattr(column.dtype, "kind", "O") not in "iufmM" and not column.isna().any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how the format is guessed
            column = _dates(column, name)
    if getattr(column.dtype, "tz", None) is not None:
        clock = column.dt.tz_localize(None)
        shifts = clock - column.dt.tz_convert("UTC").dt.tz_localize(None)
        return clock if shifts.nunique() < 2 else column.dt.tz_convert("UTC").dt.tz_localize(None)
    if getattr(column.dtype, "kind", "O") not in "iufmM" and not column.isna().any():
        values = np.asarray(column, dtype=str)
        order = np.lexsort((np.arange(len(codes)), codes))
        turned = (codes[order][1:] == codes[order][:-1]) & (values[order][1:] < values[order][:-1])
        if turned.any():
            line = int(turned.argmax())
            raise InputError(
                f"column {name!r} is text, in no clear order: {str(values[order][line])!r} stands before "
                f"{str(values[order][line + 1])!r}. Use numbers or dates (2024-03-01), or sort the lines and leave it out."
            )
    return column


def _dates(column: Any, name: str) -> Any:
    """Text as the dates that it can only mean; other text as it is."""
    month_first, day_first = (_read_dates(column, dayfirst) for dayfirst in (False, True))
    if column.astype(str).str.match(r"\s*\d{4}").all():  # pandas turns dates around that begin with the year, too
        day_first = None
    if month_first is None or day_first is None:
        found = day_first if month_first is None else month_first
        return _zoned(column) if found is None else found
    differing = np.asarray(month_first != day_first)
    if differing.any():
        line = int(differing.argmax())
        raise InputError(
            f"the dates in column {name!r} can be read in two ways: {str(column.iloc[line])!r} is "
            f"{month_first.iloc[line]:%Y-%m-%d} or {day_first.iloc[line]:%Y-%m-%d}. Write year, month and day "
            f"(2024-03-01), or convert the column: pandas.to_datetime(..., dayfirst=True)."
        )
    return month_first


def _read_dates(column: Any, dayfirst: bool) -> Any:
    try:
        return needed("pandas", "pandas is needed for this").to_datetime(column, dayfirst=dayfirst)
    except (ValueError, TypeError):
        return None


def _zoned(column: Any) -> Any:
    """Dates with different offsets from UTC, as around a change of the clocks, in UTC; other text as it is."""
    try:
        return needed("pandas", "pandas is needed for this").to_datetime(column, utc=True)
    except (ValueError, TypeError):
        return column


def of_each(frame: pd.DataFrame, id: str, names: Sequence[str], option: str) -> np.ndarray:
    """Columns of a table in long form that have one value for each id, (ids,) or (ids, columns), in the ids' order.

    Raises
    ------
    InputError
        If one has several.
    """
    each = frame.groupby(id, sort=False)[list(names)]
    changing = (each.nunique(dropna=False) > 1).any()
    if changing.any():
        raise InputError(f"{option}: {changing.idxmax()!r} changes within a row; it needs one value for each id.")
    return as_columns(each.first())


def as_columns(columns: pd.DataFrame) -> np.ndarray:
    """A value for each row, (rows,), or several (rows, columns)."""
    return columns.iloc[:, 0].to_numpy() if columns.shape[1] == 1 else columns.to_numpy()


def _check_columns(frame: pd.DataFrame, columns: Sequence[Any]) -> None:
    if missing := [column for column in columns if column not in frame.columns]:
        raise InputError(f"the table has no column {missing[0]!r}; it has {', '.join(map(str, frame.columns))}.")


def _check_complete(table: np.ndarray, names: Sequence[str], ids: Any, stamps: np.ndarray) -> None:
    if not np.isfinite(table).all():
        line, column = np.argwhere(~np.isfinite(table))[0]
        raise InputError(
            f"{names[column]!r} is missing or infinite at {ids[line]}, {stamps[line]}. Fill or drop such values first."
        )


def _step_labels(codes: np.ndarray, at: np.ndarray, stamps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Times in their places: one label for each step where all rows agree, else one for each row and step."""
    fillers = {"M": np.datetime64("NaT"), "m": np.timedelta64("NaT"), "f": np.nan, "i": -1, "U": ""}
    labels = np.full(shape, fillers.get(stamps.dtype.kind, 0), stamps.dtype)
    labels[codes, at] = stamps
    longest = labels[np.bincount(codes).argmax()]
    return longest if (labels[codes, at] == longest[at]).all() else labels


def numeric(frame: pd.DataFrame, what: str) -> np.ndarray:
    """The numbers of a table; missing ones are NaN.

    Raises
    ------
    InputError
        If a column is not numeric.
    """
    text = [column for column, dtype in frame.dtypes.items() if getattr(dtype, "kind", "O") not in "fiub"]
    if text:
        raise InputError(
            f"{what}: column {text[0]!r} is {frame.dtypes[text[0]]}, not numeric. Encode it, or choose the columns to explain."
        )
    table = frame.to_numpy(None if frame.dtypes.nunique() == 1 and not frame.isna().any(axis=None) else np.float64)
    return table.astype(np.float64) if table.dtype == object else table


# ---------------------------------------------------------------------- tables as inputs
def plain(inputs: Any, what: str, batch_axis: int | Sequence[int] = 0) -> tuple[Any, Any]:
    """Take the labels off an input (each of several): what remains are tensors and arrays.

    Parameters
    ----------
    inputs : table, array, tensor, or list, tuple or dict of them
        What the user explains, or the background.
    what : str
        Its name in messages.
    batch_axis : int or sequence of int
        Where the model wants the rows; tables that know their axes are turned that way.

    Returns
    -------
    tuple
        The inputs in their form and, as a single one, list or dict, their ``Labels``.

    Raises
    ------
    InputError
        If a table is not numeric or has two columns of one name, or the rows of two inputs have different ids.
    """
    if isinstance(inputs, Mapping):
        axes = _axes(batch_axis, len(inputs))
        both = {key: _plain(inputs[key], f"{what}[{key!r}]", axis) for key, axis in zip(inputs, axes, strict=True)}
        found: Any = {key: labels for key, (_, labels) in both.items()}
        values: Any = {key: value for key, (value, _) in both.items()}
    elif isinstance(inputs, (list, tuple)) and not hasattr(inputs, "batch_sizes"):
        axes = _axes(batch_axis, len(inputs))
        pairs = [_plain(value, f"{what}[{i}]", axes[i]) for i, value in enumerate(inputs)]
        values, found = [value for value, _ in pairs], [labels for _, labels in pairs]
    else:
        return _plain(inputs, what, _axes(batch_axis, 1)[0])
    ids = [labels.row_ids for labels in (found.values() if isinstance(found, dict) else found)]
    known = [i for i in ids if i is not None]
    if any(not np.array_equal(known[0], other) for other in known):
        raise InputError(f"the inputs of {what} have different row ids, or in another order: bring their rows in line.")
    return values, found


def _axes(batch_axis: int | Sequence[int], count: int) -> list[int]:
    axes: list[Any] = list(batch_axis) if isinstance(batch_axis, (list, tuple)) else [batch_axis] * count
    fits = len(axes) == count and all(map(is_whole, axes))
    return axes if fits else [0] * count  # others are refused where the inputs are read


def _plain(value: Any, what: str, axis: int) -> tuple[Any, Labels]:
    if isinstance(value, Sequences):
        return np.moveaxis(value.values, 0, axis), value.labels
    if hasattr(value, "batch_sizes"):  # a PackedSequence
        return value, Labels(lengths=_packed_lengths(value))
    if hasattr(value, "columns") and hasattr(value, "index"):
        columns = _joined(value.columns)
        check_names(f"the columns of {what}", columns)
        return numeric(value, what), Labels(row_ids=_index_ids(value.index), feature_names=columns)
    if hasattr(value, "dims") and hasattr(value, "coords"):
        return _plain_xarray(value, axis)
    return value, Labels()


def _index_ids(index: Any) -> np.ndarray | None:
    """An index as row ids; None if it only counts."""
    if not len(index) or (getattr(index, "start", None) == 0 and getattr(index, "step", None) == 1):
        return None
    return as_labels(_joined(index) if isinstance(index[0], tuple) else index, "the index")


def _joined(names: Any) -> list[str]:
    """Names as str, those of several levels in one."""
    return [", ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in names]


def _packed_lengths(packed: Any) -> np.ndarray:
    sizes = np.asarray(packed.batch_sizes)
    lengths = (np.arange(sizes[0])[:, None] < sizes).sum(1)
    return lengths if packed.unsorted_indices is None else lengths[np.asarray(packed.unsorted_indices.cpu())]


def _plain_xarray(value: Any, axis: int) -> tuple[np.ndarray, Labels]:
    """A DataArray (row, step, feature) or (row, feature), by these names or else in this order, but the rows at ``axis``."""
    standard = ("row", "step", "feature")
    if set(value.dims) <= set(standard):
        dims = [dim for dim in standard if dim in value.dims]
    else:
        dims = list(value.dims)
        dims.insert(0, dims.pop(axis))
    value, last = value.transpose(*dims), dims[-1]
    named: dict[str, Any] = {"row_ids": _coordinate(value, dims[0])}
    if value.ndim > 1 and last != "step":
        names = _coordinate(value, last)
        named["feature_names"] = None if names is None else [str(name) for name in names]
    if value.ndim == 3 or (value.ndim == 2 and last == "step"):
        named["step_labels"] = _coordinate(value, dims[1])
        named["time_label"] = None if dims[1] == "step" else str(dims[1])
    return np.moveaxis(value.to_numpy(), 0, axis), Labels(**named)


def _coordinate(value: Any, dim: Any) -> np.ndarray | None:
    return as_labels(value.coords[dim].to_numpy(), str(dim)) if dim in value.coords else None


def common_ids(labels: Any) -> Any:
    """The row ids of an input, or of the first of several that has some."""
    if isinstance(labels, Labels):
        return labels.row_ids
    each = labels.values() if isinstance(labels, dict) else labels
    return next((one.row_ids for one in each if one.row_ids is not None), None)


def columns_of(labels: Any) -> Any:
    """Feature names of an input, or of each of several; None if no table names any."""
    if isinstance(labels, Labels):
        return labels.feature_names
    each = {key: labels[key].feature_names for key in (labels if isinstance(labels, dict) else range(len(labels)))}
    if all(names is None for names in each.values()):
        return None
    return each if isinstance(labels, dict) else list(each.values())


def each_of(columns: Any) -> list[Any]:
    """Feature names of each input, from those of one, a list or a dict."""
    if isinstance(columns, dict):
        return list(columns.values())
    return columns if columns and not isinstance(columns[0], str) else [columns]


def check_columns(mine: Any, background: Any) -> None:
    """Raise if the columns of rows, where they are known, are not those of the background."""
    for own, theirs in zip(each_of(mine), each_of(background), strict=False):
        if own is None or theirs is None or own == theirs:
            continue
        missing, other = [c for c in theirs if c not in own], [c for c in own if c not in theirs]
        what = (
            f"{missing[0]!r} is missing"
            if missing
            else f"{other[0]!r} is not among these"
            if other
            else "the order differs"
        )
        raise InputError(
            f"the columns of X must be those of the background: {what}. X has {len(own)}, {shortened(own)}; "
            f"{len(theirs)} are expected, {shortened(theirs)}."
        )
