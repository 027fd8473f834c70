"""Data and background from files, as arrays with their names."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..names import check_names
from ..tables import as_columns, counted, numeric, of_each, read_sequences

TEXTS = (".csv", ".tsv", ".csv.gz")
TABLES = (".parquet", ".pq", *TEXTS)


@dataclass(frozen=True)
class Source:
    """How the files of a call are to be read: its options."""

    id_column: str | None = None
    time_column: str | None = None
    features: list[str] | None = None
    form: str | None = None
    arrays: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    lengths: str | None = None
    targets: str | None = None
    groups: str | None = None
    is_background: bool = False

    @property
    def beside(self) -> dict[str, str]:
        """What is named of the rows beside their inputs."""
        named = {"targets": self.targets, "groups": self.groups}
        return {option: name for option, name in named.items() if name is not None}

    @property
    def long(self) -> bool:
        """Whether tables hold a line per id and time."""
        return self.form == "long" or (self.form is None and self.time_column is not None)


@dataclass(frozen=True)
class Data:
    """Inputs (each with the rows first) and what is known of them."""

    inputs: list[np.ndarray]
    lengths: np.ndarray | None = None
    row_ids: np.ndarray | None = None
    step_labels: np.ndarray | None = None
    feature_names: list[str] | None = None
    targets: np.ndarray | None = None
    time_label: str | None = None
    groups: np.ndarray | None = None  # a label of each row, to compare
    passes_lengths: bool = False  # whether the lengths are an argument of the model

    def __len__(self) -> int:
        return len(self.inputs[0])

    def __getitem__(self, rows: Any) -> Data:
        def some(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[rows]

        labels = self.step_labels
        return replace(
            self,
            inputs=[one[rows] for one in self.inputs],
            lengths=some(self.lengths),
            row_ids=some(self.row_ids),
            step_labels=labels[rows] if labels is not None and labels.ndim == 2 else labels,
            targets=some(self.targets),
            groups=some(self.groups),
        )


def read_data(path: Path, source: Source, pad: float | str = 0.0, steps: int | None = None) -> Data:
    """Read a file.

    Raises
    ------
    InputError
        If it does not hold what the options name, or values are missing.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}.")
    if path.name.lower().endswith(TABLES):
        data = _from_table(path, source, pad, steps)
    elif path.suffix.lower() in (".npy", ".npz"):
        data = _from_arrays(path, source)
    else:
        raise InputError(
            f"{path} is neither a table (.parquet, .csv) nor an array (.npy, .npz); MODEL comes before DATA."
        )
    return _checked(data, source, path)


def _checked(data: Data, source: Source, path: Path) -> Data:
    if source.shape is not None:
        data = replace(data, inputs=[_reshaped(one, source.shape) for one in data.inputs], feature_names=None)
    for one in data.inputs:
        if not len(one):
            raise InputError(f"{path} has no rows.")
        if one.dtype.kind not in "fiub":
            raise InputError(f"{path} holds {one.dtype}, not numbers.")
        if one.dtype.kind == "f" and not np.isfinite(one).all():
            place = np.argwhere(~np.isfinite(one))[0].tolist()
            name = "" if data.feature_names is None else f", feature {data.feature_names[place[-1]]!r}"
            raise InputError(
                f"{path} has a missing or infinite value in {_row(path, data, place[0])}{name}: fill or drop it first."
            )
    if source.lengths == "table" and data.lengths is None:
        raise InputError(
            "--lengths table is for long tables (--id and --time); name a column, an array of the .npz file, or a .npy file."
        )
    if source.lengths is not None and data.lengths is None:
        data = replace(data, lengths=row_array(source.lengths, "--lengths"), passes_lengths=True)
    for option, name in source.beside.items():
        if getattr(data, option) is None and not source.is_background:
            data = replace(data, **{option: row_array(name, f"--{option}")})  # type: ignore[arg-type]
    for what, array in (("--lengths", data.lengths), ("--targets", data.targets), ("--groups", data.groups)):
        if array is not None and (array.shape[:1] != (len(data),) or (array.ndim > 1 and what != "--targets")):
            raise InputError(f"{what}: shape {array.shape} does not fit {len(data)} rows, it must be ({len(data)},).")
    if data.passes_lengths and data.lengths is not None:
        _check_lengths(data, data.lengths, path)
    return data


def _check_lengths(data: Data, lengths: np.ndarray, path: Path) -> None:
    """Lengths for the model must be numbers of steps that the rows have."""
    if lengths.dtype.kind not in "iu":
        raise InputError(f"--lengths must be whole numbers, one for each row, and these are {lengths.dtype}.")
    steps = max((size for one in data.inputs for size in one.shape[1:]), default=None)  # wherever a model has its steps
    wrong = np.flatnonzero((lengths < 0) | (lengths > (np.inf if steps is None else steps)))
    if len(wrong):
        raise InputError(
            f"--lengths says {lengths[wrong[0]]} for {_row(path, data, wrong[0])} of {path}, whose rows have {steps} steps "
            "at most."
        )


def _row(path: Path, data: Data, row: int) -> str:
    """A row by its id, or else where it stands in its table, or its index in an array."""
    if data.row_ids is None and path.name.lower().endswith(TABLES):
        return _place(path, row)
    return f"row {row if data.row_ids is None else data.row_ids[row]}"


def _reshaped(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return array.reshape(len(array), *shape)
    except ValueError:
        raise InputError(f"--shape: rows of {array[0].size} values cannot have shape {shape}.") from None


# ---------------------------------------------------------------------- tables
def _from_table(path: Path, source: Source, pad: float | str, steps: int | None) -> Data:
    if source.arrays:
        raise InputError("--array is for .npz files; choose the columns of a table with --features.")
    frame = _frame(path)
    return _long(frame, source, path, pad, steps) if source.long else _wide(frame, source, path)


def _frame(path: Path) -> Any:
    import pandas as pd

    try:
        frame = pd.read_csv(path, sep=_separator(path)) if _is_text(path) else pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from None
    marks = ";\t|,".replace(_separator(path), "") if _is_text(path) else ""
    other = next((mark for mark in marks if mark in str(frame.columns[0])), None)
    if other is not None and frame.shape[1] == 1:
        raise InputError(
            f"{path} has one column, {str(frame.columns[0])[:40]!r}: its cells seem to stand between {other!r}. Write it with "
            f"{'tabs' if path.suffix.lower() == '.tsv' else 'commas'} (.tsv with tabs)."
        )
    return frame


def _is_text(path: Path) -> bool:
    return path.name.lower().endswith(TEXTS)


def _separator(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _place(path: Path, position: int) -> str:
    """A row of a table, as people find it."""
    return f"line {_line(path, position)}" if _is_text(path) else counted(position)


def _line(path: Path, position: int) -> int:
    """The line in which a row of a text file begins: rows stand below the names, and pandas leaves out empty lines."""
    opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as stream:
        filled = (begin for begin, cells in _records(stream, _separator(path)) if "".join(cells).strip() or cells[1:])
        return next(islice(filled, position + 1, None))


def _records(stream: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """The records of a text file, each with its first line."""
    records, begin = csv.reader(stream, delimiter=separator), 1
    for cells in records:
        yield begin, cells
        begin = records.line_num + 1


def _long(frame: Any, source: Source, path: Path, pad: float | str, steps: int | None) -> Data:
    if source.id_column is None:
        raise InputError("a long table needs --id, the column that says which lines belong together.")
    if source.lengths not in (None, "table"):
        raise InputError(
            f"--lengths {source.lengths}: in a long table a row is as long as its id has lines: --lengths table hands that on."
        )
    beside, frame = _beside(frame, source, path, partial(of_each, frame, source.id_column))
    columns = source.id_column, source.time_column, source.features
    table = read_sequences(frame, *columns, steps, pad, partial(_place, path))
    return Data(
        [table.values],
        table.lengths,
        table.row_ids,
        table.step_labels,
        table.feature_names,
        time_label=table.time_label,
        passes_lengths=source.lengths == "table",
        **beside,
    )


def _beside(
    frame: Any, source: Source, path: Path, read: Callable[[list[str], str], np.ndarray]
) -> tuple[dict[str, Any], Any]:
    """Targets and groups, from columns of a table, and what is left of it: a group may be a feature, too, if it is named so."""
    found, used = {}, []
    for option, text in source.beside.items():
        names = [text] if text in frame.columns else [name.strip() for name in text.split(",")]
        if set(names) <= set(frame.columns):
            found[option] = read(names, f"--{option}")
            used += [name for name in names if option == "targets" or name not in (source.features or [])]
        elif not source.is_background and not text.endswith(".npy"):
            raise InputError(f"--{option}: {path} has no column {text!r}; it has {', '.join(map(str, frame.columns))}.")
    return found, frame.drop(columns=used)


def _wide(frame: Any, source: Source, path: Path) -> Data:
    special: dict[str, np.ndarray] = {}
    beside, frame = _beside(frame, source, path, lambda names, _: as_columns(frame[names]))
    for option, name in (("id", source.id_column), ("lengths", source.lengths)):
        if name is not None and name in frame.columns:
            special[option] = frame[name].to_numpy()
            if option == "id" and frame[name].duplicated().any():
                again = frame[name][frame[name].duplicated()].iloc[0]
                raise InputError(
                    f"{path}: the id {str(again)!r} stands in several lines. If they are the times of one row, name the column "
                    "of the times with --time, or say --format long."
                )
            frame = frame.drop(columns=name)
        elif name is not None and name != "table" and not name.endswith(".npy"):
            raise InputError(f"--{option}: {path} has no column {name!r}; it has {', '.join(map(str, frame.columns))}.")
    missing = [name for name in source.features or [] if name not in frame.columns]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; it has {', '.join(map(str, frame.columns))}.")
    frame = frame if source.features is None else frame[source.features]
    return Data(
        [numeric(frame, str(path)).astype(np.float64)],
        special.get("lengths"),
        special.get("id"),
        feature_names=[str(name) for name in frame.columns],
        passes_lengths="lengths" in special,
        **beside,
    )


# ---------------------------------------------------------------------- arrays
def _from_arrays(path: Path, source: Source) -> Data:
    if source.id_column or source.time_column or source.features or source.long:
        raise InputError(f"--id, --time, --features and --format are for tables; {path} is an array.")
    loaded = _load(path)
    if not isinstance(loaded, dict):
        return Data([_with_rows(loaded, str(path))])
    options = source.beside | ({} if source.lengths is None else {"lengths": source.lengths})
    special: dict[str, Any] = {option: loaded[name] for option, name in options.items() if name in loaded}
    rest = [name for name in loaded if name not in options.values()]
    for option, name in options.items():
        elsewhere = source.is_background or name.endswith(".npy") or (option, name) == ("lengths", "table")
        if name not in loaded and not elsewhere:
            raise InputError(f"--{option}: {path} has no array {name!r}; it has {', '.join(loaded)}.")
    names = list(source.arrays) or (rest if len(rest) == 1 else [])
    missing = [name for name in names if name not in loaded]
    if not names or missing:
        wanted = f"no array {missing[0]!r}; it has" if missing else "several arrays, choose with --array:"
        raise InputError(f"{path} has {wanted} {', '.join(rest)}.")
    inputs = [_with_rows(loaded[name], f"{path}, array {name!r},") for name in names]
    if len({len(one) for one in inputs}) > 1:
        raise InputError(f"the arrays of {path} have different numbers of rows: {[len(one) for one in inputs]}.")
    return Data(inputs, **special, passes_lengths="lengths" in special)


def _with_rows(array: np.ndarray, what: str) -> np.ndarray:
    if not array.ndim:
        raise InputError(f"{what} holds a single value without an axis of rows: give an array (rows, ...).")
    return array


def _load(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        return dict(loaded) if path.suffix.lower() == ".npz" else loaded
    except (ValueError, OSError, EOFError) as error:
        told = " ".join(str(error).split())
        why = "it was not written by numpy.save, or holds Python objects." if "allow_pickle" in told else told
        raise InputError(f"{path} cannot be read as an array of numbers: {why}") from None


def row_array(name: str, option: str) -> np.ndarray:
    """An array with an entry for each row, from a file of its own."""
    path = Path(name)
    if path.suffix.lower() == ".npy":
        if not path.exists():
            raise InputError(f"{option}: there is no file {name}.")
        return _load(path)
    raise InputError(f"{option}: {name!r} is neither a column or array of the data nor a .npy file.")


# ---------------------------------------------------------------------- names and rows
def listed(text: str | None, option: str) -> list[str] | None:
    """Names between commas, or the lines of a file; each name once."""
    if text is None:
        return None
    parts = Path(text).read_text(encoding="utf-8").splitlines() if Path(text).is_file() else text.split(",")
    names = [part.strip() for part in parts if part.strip()]
    check_names(option, names)
    return names


def sizes(text: str | None, option: str) -> tuple[int, ...] | None:
    """Numbers between commas."""
    if text is None:
        return None
    try:
        found = tuple(int(size) for size in text.replace("x", ",").split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise InputError(f"{option} must be whole numbers between commas, such as 30,4, not {text!r}.")
    return found


def taken(data: Data, rows: str | None) -> Data:
    """The rows N (that many) or A:B."""
    return data if rows is None else data[slice(*bounds(rows, len(data)))]


def bounds(rows: str, count: int) -> tuple[int, int]:
    """The first row of N (that many) or A:B, and the one behind the last."""
    first, colon, last = rows.partition(":")
    try:
        start, stop = (int(first or 0), int(last) if last else count) if colon else (0, int(first))
    except ValueError:
        raise InputError(f"--rows must be a number or A:B, not {rows!r}.") from None
    if not 0 <= start < min(stop, count):
        raise InputError(f"--rows {rows} takes none of the {count} rows.")
    return start, stop


# ---------------------------------------------------------------------- background
def read_background(text: str, source: Source, data: Data, path: Path, seed: int) -> tuple[list[np.ndarray], str]:
    """The background as the option names it, and its description.

    Where the model gets lengths, rows hold their last step to the end: they are compared with longer ones.
    """
    lengths = data.lengths if data.passes_lengths else None
    if text in ("zeros", "mean"):
        return _baseline(text, data), f"one row, {'every input 0' if text == 'zeros' else 'every feature at its mean'}"
    if text.isdecimal():
        count = min(int(text), len(data))
        if not int(text):
            raise InputError("--background 0: there must be at least one row to compare with.")
        if len(data) < 2:
            why = "one row, which cannot be its own background: its attributions would all be 0"
            raise InputError(
                f"{path} has {why if len(data) else 'no rows to draw one from'}. Give --background a file, 'zeros' or 'mean'."
            )
        drawn = np.sort(np.random.default_rng(seed).choice(len(data), count, replace=False))
        chosen = [_held(one[drawn], None if lengths is None else lengths[drawn]) for one in data.inputs]
        return chosen, f"{count} rows of {path.name}, drawn with seed {seed}"
    other = Path(text)
    if not other.exists() and not other.suffix:
        raise InputError(f"--background {text!r} is no file, number, 'zeros' or 'mean'.")
    steps = data.inputs[0].shape[1] if source.long else None
    found = read_data(
        other, replace(source, lengths=None, is_background=True), "last" if data.passes_lengths else 0.0, steps
    )
    if found.feature_names != data.feature_names:
        mine, theirs = (one.feature_names or "not named" for one in (data, found))
        raise InputError(f"the columns of {other} are {theirs}, those of the data {mine}.")
    return found.inputs, f"{len(found)} rows of {other.name}"


def _baseline(kind: str, data: Data) -> list[np.ndarray]:
    if kind == "zeros":
        return [np.zeros((1, *one.shape[1:]), one.dtype) for one in data.inputs]
    if any(one.dtype.kind != "f" for one in data.inputs):
        raise InputError("--background mean is for numbers; ids of words or classes have no mean.")
    found = []
    for one in data.inputs:
        if one.ndim == 3:
            steps = np.arange(one.shape[1]) < (one.shape[1] if data.lengths is None else data.lengths[:, None])
            mean = one[np.broadcast_to(steps, one.shape[:2])].mean(0)
        else:
            mean = one.mean(0)
        found.append(np.broadcast_to(mean, (1, *one.shape[1:])).copy())
    return found


def _held(array: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """Repeat the last valid step of every row to the end."""
    if lengths is None or array.ndim < 2:
        return array
    steps = np.minimum(np.arange(array.shape[1]), np.maximum(lengths, 1)[:, None] - 1)
    return np.take_along_axis(array, steps.reshape(*steps.shape, *(1,) * (array.ndim - 2)), axis=1)
