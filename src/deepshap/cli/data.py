"""Read data and background from files, as arrays with their names."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, check_names
from ..explanation.labels import first_few, plural
from ..tables import Columns, Sequences, Table, decide, describe, order_of, read, resolved
from ..tables.files import AS_FOUND, FileOptions, kind_of, read_file
from .files import parse_rows


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
    variable: str | None = None
    value: str | None = None
    written: FileOptions = AS_FOUND
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
    said: list[str] = field(default_factory=list)  # how the file was read

    def __len__(self) -> int:
        return len(self.inputs[0])

    def __getitem__(self, rows: Any) -> Data:
        def select(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[rows]

        labels = self.step_labels
        return replace(
            self,
            inputs=[array[rows] for array in self.inputs],
            lengths=select(self.lengths),
            row_ids=select(self.row_ids),
            step_labels=labels[rows] if labels is not None and labels.ndim == 2 else labels,
            targets=select(self.targets),
            groups=select(self.groups),
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
    if kind_of(path) is not None or path.is_dir():
        data = _from_table(path, source, pad, steps)
    elif path.suffix.lower() in (".npy", ".npz"):
        data = _from_arrays(path, source)
    else:
        raise InputError(
            f"{path} is neither a table (.parquet, .csv, .xlsx) nor an array (.npy, .npz); MODEL comes before DATA."
        )
    return _check_data(data, source, path)


def _check_data(data: Data, source: Source, path: Path) -> Data:
    if source.shape is not None and kind_of(path) is None and not path.is_dir():
        data = replace(data, inputs=[_reshape(array, source.shape) for array in data.inputs], feature_names=None)
    _check_numbers(data, path)
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


def _check_numbers(data: Data, path: Path) -> None:
    """Raise unless the inputs hold rows of finite numbers."""
    for array in data.inputs:
        if not len(array):
            raise InputError(f"{path} has no rows.")
        if array.dtype.kind not in "fiub":
            raise InputError(f"{path} holds {array.dtype}, not numbers.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0].tolist()
            name = "" if data.feature_names is None else f", feature {data.feature_names[place[-1]]!r}"
            raise InputError(
                f"{path} has a missing or infinite value in {_row(path, data, place[0])}{name}: fill or drop it first."
            )


def _check_lengths(data: Data, lengths: np.ndarray, path: Path) -> None:
    """Raise unless lengths for the model are numbers of steps that the rows have."""
    if lengths.dtype.kind not in "iu":
        raise InputError(f"--lengths must be whole numbers, one for each row, and these are {lengths.dtype}.")
    steps = max(
        (size for array in data.inputs for size in array.shape[1:]), default=None
    )  # wherever a model has its steps
    wrong = np.flatnonzero((lengths < 0) | (lengths > (np.inf if steps is None else steps)))
    if len(wrong):
        raise InputError(
            f"--lengths says {lengths[wrong[0]]} for {_row(path, data, wrong[0])} of {path}, whose rows have {steps} steps "
            "at most."
        )


def _row(path: Path, data: Data, row: int) -> str:
    """Return the name of a row: its id, or its index in an array."""
    return f"row {row if data.row_ids is None else data.row_ids[row]}"


def _reshape(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return array.reshape(len(array), *shape)
    except ValueError:
        raise InputError(f"--shape: rows of {array[0].size} values cannot have shape {shape}.") from None


# ---------------------------------------------------------------------- tables
def _from_table(path: Path, source: Source, pad: float | str, steps: int | None) -> Data:
    if source.arrays:
        raise InputError("--array is for .npz files; choose the columns of a table with --features.")
    named = [name for name in (source.id_column, source.time_column, source.variable) if name is not None]
    table = read_file(path, source.written, named, source.features or [])
    columns = _columns(table, source, path)
    decided = decide(table, columns)
    if source.lengths not in (None, "table") and columns.lengths is None and decided.long:
        raise InputError(
            f"--lengths {source.lengths}: in a long table a row is as long as its id has lines: --lengths table hands that on."
        )
    if not decided.long and decided.id is not None:
        _check_once(table, decided.id, path)
    rows = read(table, decided, steps, pad)
    inputs, X = [rows.X.values], rows.X
    said = [f"{path}: {', '.join([*table.said, plural(len(X), 'row')])}", describe(decided.as_dict())]
    if isinstance(X, Sequences):
        shortest, longest = int(X.lengths.min()), int(X.lengths.max())
        said[0] += f" of {'' if shortest == longest else f'{shortest} to '}{plural(longest, 'step')}"
        more: dict[str, Any] = {"lengths": X.lengths, "step_labels": X.step_labels, "time_label": X.time_label}
        more["passes_lengths"] = source.lengths == "table"
    else:
        inputs = [array.astype(np.float64) if X.feature_names else array for array in inputs]
        more = {"lengths": rows.lengths, "passes_lengths": rows.lengths is not None}
    beside: dict[str, Any] = {"targets": rows.targets, "groups": rows.groups, "said": said}
    return Data(inputs, row_ids=X.row_ids, feature_names=X.feature_names, **more, **beside)


def _columns(table: Table, source: Source, path: Path) -> Columns:
    """Return the roles of the columns, from the options or as the format itself names them."""
    implied = {} if source.id_column or source.time_column or source.form else table.implied
    beside: dict[str, list[str]] = {"targets": [], "groups": []}
    for option, text in source.beside.items():
        names = [text] if text in table.names else resolved([name.strip() for name in text.split(",")], table.names)
        if set(names) <= set(table.names):
            beside[option] = names
        elif not source.is_background and not text.endswith(".npy"):
            raise InputError(f"--{option}: {path} has no column {text!r}; it has {', '.join(table.names)}.")
    lengths = source.lengths if source.lengths in table.names and not source.long else None
    elsewhere = source.lengths is None or lengths or source.lengths == "table" or source.lengths.endswith(".npy")
    if not elsewhere and not source.long and not implied:
        raise InputError(f"--lengths: {path} has no column {source.lengths!r}; it has {', '.join(table.names)}.")
    if source.long and source.id_column is None and not implied:
        raise InputError(
            "a long table needs --id, the column that says which lines belong together. A single series has none: a forecast of "
            "it is explained in Python, by deepshap.forecasting.explain_forecast."
        )
    id_column = source.id_column
    if source.is_background and not source.long and id_column not in table.names:
        id_column = None  # the rows of a background need no ids
    return Columns(
        id_column,
        source.time_column,
        source.features,
        **beside,
        lengths=lengths,
        variable=source.variable,
        value=source.value,
        shape=source.shape,
        long=None if source.form is None else source.form == "long",
    )


def _check_once(table: Table, name: str, path: Path) -> None:
    """Raise if an id stands in several lines of a wide table."""
    counts = table.columns[name].value_counts()
    again = next(
        (entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1 and entry["values"].is_valid), None
    )
    if again not in (None, ""):
        raise InputError(
            f"{path}: the id {str(again)!r} stands in several lines. If they are the times of one row, name the column "
            "of the times with --time, or say --format long."
        )


# ---------------------------------------------------------------------- arrays
def _from_arrays(path: Path, source: Source) -> Data:
    if source.id_column or source.time_column or source.features or source.long:
        raise InputError(f"--id, --time, --features and --format are for tables; {path} is an array.")
    loaded = _load(path)
    if not isinstance(loaded, dict):
        return Data([_check_has_rows(loaded, str(path))])
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
    inputs = [_check_has_rows(loaded[name], f"{path}, array {name!r},") for name in names]
    if len({len(array) for array in inputs}) > 1:
        raise InputError(f"the arrays of {path} have different numbers of rows: {[len(array) for array in inputs]}.")
    return Data(inputs, **special, passes_lengths="lengths" in special)


def _check_has_rows(array: np.ndarray, what: str) -> np.ndarray:
    if not array.ndim:
        raise InputError(f"{what} holds a single value without an axis of rows: give an array (rows, ...).")
    return array


def _load(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        return dict(loaded) if path.suffix.lower() == ".npz" else loaded
    except (ValueError, OSError, EOFError) as error:
        message = " ".join(str(error).split())
        why = "it was not written by numpy.save, or holds Python objects." if "allow_pickle" in message else message
        raise InputError(f"{path} cannot be read as an array of numbers: {why}") from None


def row_array(name: str, option: str) -> np.ndarray:
    """Return an array with an entry for each row, from a file of its own."""
    path = Path(name)
    if path.suffix.lower() == ".npy":
        if not path.exists():
            raise InputError(f"{option}: there is no file {name}.")
        return _load(path)
    raise InputError(f"{option}: {name!r} is neither a column or array of the data nor a .npy file.")


# ---------------------------------------------------------------------- names and rows
def split_names(text: str | None, option: str) -> list[str] | None:
    """Return names between commas, or the lines of a file; each name once."""
    if text is None:
        return None
    in_line = next(csv.reader([text], skipinitialspace=True), [])  # names with commas in quotes
    parts = Path(text).read_text(encoding="utf-8").splitlines() if Path(text).is_file() else in_line
    names = [part.strip() for part in parts if part.strip()]
    check_names(option, names)
    return names


def select_rows(data: Data, rows: str | None) -> Data:
    """Return the rows N (that many) or A:B."""
    return data if rows is None else data[slice(*row_bounds(rows, len(data)))]


def row_bounds(rows: str, count: int) -> tuple[int, int]:
    """Return the first row of N (that many) or A:B, and the row behind the last."""
    start, last = parse_rows(rows)
    stop = count if last is None else last
    if not 0 <= start < min(stop, count):
        raise InputError(f"--rows {rows} takes none of the {count} rows.")
    return start, stop


# ---------------------------------------------------------------------- background
def read_background(text: str, source: Source, data: Data, path: Path, seed: int) -> tuple[list[np.ndarray], str]:
    """Return the background that the option names, and its description.

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
        chosen = [_hold_last_step(array[drawn], None if lengths is None else lengths[drawn]) for array in data.inputs]
        return chosen, f"{count} rows of {path.name}, drawn with seed {seed}"
    file = Path(text)
    if not file.exists() and not file.suffix:
        raise InputError(f"--background {text!r} is no file, number, 'zeros' or 'mean'.")
    steps = data.inputs[0].shape[1] if source.long else None
    background = read_data(
        file, replace(source, lengths=None, is_background=True), "last" if data.passes_lengths else 0.0, steps
    )
    reordered = reorder_features(background, data, str(file))
    if reordered is not background:
        raise InputError(
            f"the features stand in the order {first_few(background.feature_names or [])} in {file}, and in the order "
            f"{first_few(data.feature_names or [])} in {path}: name them in the model's order, with --features."
        )
    return background.inputs, f"{plural(len(background), 'row')} of {file.name}"


def reorder_features(data: Data, like: Data, what: str) -> Data:
    """Return data with their features in the order of others, which must have the same names."""
    own, names = data.feature_names, like.feature_names
    if own is None or names is None:
        if own is names:
            return data
        width = data.inputs[0].shape[-1] if data.inputs[0].ndim > 1 else None
        if names is not None and width not in (None, len(names)):
            raise InputError(
                f"the data have {len(names)} columns ({first_few(names)}) for the {plural(width, 'feature')} of {what}: choose "
                "with --features."
            )
        named, of_data = ("has", "have none") if names is None else ("has no", "have some")
        raise InputError(f"{what} {named} names of features, and the data {of_data}: give both in one form.")
    if set(own) < set(names):
        more = next(name for name in names if name not in own)
        raise InputError(
            f"the data have {len(names)} columns ({first_few(names)}) for the {plural(len(own), 'feature')} of {what} "
            f"({first_few(own)}): {more!r} is not among these. Choose with --features {','.join(own)}."
        )
    order = order_of(own, names, what)
    if order is None:
        return data
    return replace(data, inputs=[array[..., order] for array in data.inputs], feature_names=names)


def _baseline(kind: str, data: Data) -> list[np.ndarray]:
    if kind == "zeros":
        return [np.zeros((1, *array.shape[1:]), array.dtype) for array in data.inputs]
    if any(array.dtype.kind != "f" for array in data.inputs):
        raise InputError("--background mean is for numbers; ids of words or classes have no mean.")
    means = []
    for array in data.inputs:
        if array.ndim == 3:
            steps = np.arange(array.shape[1]) < (array.shape[1] if data.lengths is None else data.lengths[:, None])
            mean = array[np.broadcast_to(steps, array.shape[:2])].mean(0)
        else:
            mean = array.mean(0)
        means.append(np.broadcast_to(mean, (1, *array.shape[1:])).copy())
    return means


def _hold_last_step(array: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """Repeat the last valid step of every row to the end."""
    if lengths is None or array.ndim < 2:
        return array
    steps = np.minimum(np.arange(array.shape[1]), np.maximum(lengths, 1)[:, None] - 1)
    return np.take_along_axis(array, steps.reshape(*steps.shape, *(1,) * (array.ndim - 2)), axis=1)
