"""Read and write explanations as Parquet: one long table for every reader, and its metadata for an exact copy.

Files of ``Explanation.save``, the parts of a data-set run and the output of the command line have the same columns:

================== ============================ =========================================================================
input_name         text                         the model's input, where there are several
row                as the ids are               id of the row, or its number
step               as the labels are            label or number of the time step (``window`` or ``group`` for such players)
axis_1, ...        int                          positions on further axes, such as those of an image
feature            text or int                  its name or number
output             text or int                  its name or number, where there are several outputs
value              as the input is              the raw input where it is known, else the model's input
input              as the input is              the model's input, where ``value`` is the raw one
attribution        float                        contribution of the value to the output
standard_error     float                        of the attribution, where it is estimated
replicate_0, ...   float                        independent estimates of the attribution (not in the parts of a run)
base_value         float                        mean output over the background
model_output       float                        the model's output
gap                float                        what the attributions miss of output minus base value, relative to the scale
target             as the targets are           true class or value
converged          bool                         whether the requested accuracy was reached
error              text                         parts of a run only: why the row could not be explained
================== ============================ =========================================================================

Columns that do not apply are left out; padded steps have no lines. The metadata holds three entries: ``deepshap`` is a JSON text
with the version of the format and everything small, ``deepshap.arrays`` is an .npz archive (base64) of the arrays that the
columns do not give back exactly, and ``deepshap.checksum`` covers both. Nothing is pickled.
"""

from __future__ import annotations

import base64
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from slicer import Alias, Obj

from ..errors import InputError, import_pyarrow
from ._compat import tracked_arrays
from .core import Attributions
from .long_form import Column, LongForm, facts, rebuild, sort_columns

FORMAT = 3
LINES_PER_BLOCK = 2**21
MOST_BYTES, MOST_BYTES_OF_A_LINE = 2**26, 2**13  # of arrays that are read beside a table
CHANGED = "the table is not the one that was saved: it was filtered, sorted or damaged since."
UNITS = ("ms", "us", "ns")  # of times that both Parquet and pandas know

Parts = Sequence[tuple[Any, Attributions]]
Dtypes = dict[str, np.dtype[Any]]


# ---------------------------------------------------------------------- write
def save(explanation: Attributions, path: str | os.PathLike[str]) -> None:
    """Write an explanation to a Parquet file; see ``Explanation.save``."""
    schema, tables = long_tables(explanation)
    with replacing(Path(path)) as temporary:
        write(temporary, schema, tables)


def write(file: Any, schema: Any, tables: Iterator[Any]) -> None:
    """Write tables of one schema to a Parquet file, with dictionaries only for columns that repeat their values."""
    pa = import_pyarrow()
    repeating = [f.name for f in schema if pa.types.is_dictionary(f.type) or f.name in ("row", "step")]
    options = {"compression": "zstd", "use_dictionary": repeating, "write_page_checksum": True}
    with pa.parquet.ParquetWriter(file, schema, **options) as writer:
        for table in tables:
            writer.write_table(table)


def long_tables(explanation: Attributions, failed: int | None = None, **metadata: str) -> tuple[Any, Iterator[Any]]:
    """Return the schema of an explanation's table, metadata included, and the table in blocks.

    ``failed`` is the number of lines that the caller appends for rows without explanation; a number adds the column ``error``.

    Raises
    ------
    InputError
        If something in the explanation cannot be written without pickle.
    """
    pa = import_pyarrow()
    parts = explanation.items()
    dtypes = _dtypes(parts)
    arrays: dict[str, np.ndarray] = {}
    header = {
        "format": FORMAT,
        "joint": parts[0][0] is not None,
        "named": isinstance(parts[0][0], str),
        "failed": failed or 0,
        "parts": [_describe(key, part, dtypes, f"{i}/", arrays) for i, (key, part) in enumerate(parts)],
    }
    try:
        text = json.dumps(header, default=np.generic.item)
    except TypeError as error:
        message = f"the background, model or names are not plain enough to be written as JSON: {error}."
        raise InputError(message) from None
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    packed = base64.b64encode(stream.getvalue())
    checksum = str(zlib.crc32(text.encode() + packed))
    texts = pa.dictionary(pa.int32(), pa.string())
    fields = [(name, texts if d.kind == "U" else pa.array(np.empty(0, d)).type) for name, d in dtypes.items()]
    fields += [] if failed is None else [("error", pa.string())]
    entries = {"deepshap": text, "deepshap.arrays": packed, "deepshap.checksum": checksum}
    schema = pa.schema(fields, {**entries, **metadata})
    return schema, (_table(schema, key, lines) for key, part in parts for lines in _blocks(part))


def _dtypes(parts: Parts) -> Dtypes:
    """Return the type of each column, common to all inputs; text where they have nothing else in common."""
    dtypes: dict[str, list[np.dtype[Any]]] = {"input_name": [np.dtype("U")]} if len(parts) > 1 else {}
    for _, part in parts:
        for column in LongForm(part, whole=True).columns:
            dtype = np.dtype("U") if column.categories is not None else _readable(column.array.dtype)
            dtypes.setdefault(column.name, []).append(dtype)
    common = {}
    for name in sort_columns(dtypes):
        kinds = {dtype.kind if dtype.kind in "UmM" else "number" for dtype in dtypes[name]}
        common[name] = np.result_type(*dtypes[name]) if len(kinds) == 1 else np.dtype("U")
    return common


def _readable(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the nearest type that every reader of Parquet knows."""
    if dtype.kind in "mM":
        return dtype if np.datetime_data(dtype)[0] in UNITS else np.dtype(f"{dtype.kind}8[ms]")
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def _describe(
    key: Any, part: Attributions, dtypes: Dtypes, prefix: str, arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Return what the header says of an explanation; arrays that no column gives back exactly are added to ``arrays``."""
    form, columns, tracked = LongForm(part), _columns_of_arrays(part), {}
    if form.valid is not None:
        arrays[f"{prefix}shown"] = form.valid
    for name, parallel in tracked_arrays(part._s).items():
        if parallel.o is None:
            continue
        tracked[name] = entry = {"axes": list(parallel.dim), "alias": isinstance(parallel, Alias)}
        if not isinstance(parallel.o, (np.ndarray, np.generic)) and name not in columns:
            entry["json"] = _plain(parallel.o)
            continue
        array = np.asarray(parallel.o)
        if array.dtype == object:
            if not all(isinstance(value, str) for value in array.flat):
                raise InputError(f"{name} holds Python objects, which cannot be written: make it numbers or str.")
            array = array.astype(str)
        if name in columns and _fits(array.dtype, dtypes[columns[name]]):
            entry.update(column=columns[name], dtype=array.dtype.str, shape=list(array.shape))
            if form.valid is not None:
                arrays[f"{prefix}{name}"] = np.moveaxis(array, part._steps_at or 0, part._rows)[~form.valid]  # padding
        else:
            arrays[f"{prefix}{name}"] = array
    checksum = zlib.crc32(np.ascontiguousarray(part.values).tobytes())
    described = {"key": key, "lines": form.count, "tracked": tracked, "output_axes": list(part.output_dims)}
    return {**described, "rows": part._rows, "checksum": checksum, "attributes": facts(part)}


def _columns_of_arrays(part: Attributions) -> dict[str, str]:
    """Return the columns that hold whole arrays, one line per value, by the arrays' names."""
    raw = part.display_data is not None
    columns = {"values": "attribution", "data": "input" if raw else "value", "display_data": "value"}
    columns |= {"standard_errors": "standard_error", **{name: name for name in part._error_names[1:]}}
    return {name: column for name, column in columns.items() if part._tracked(name) is not None}


def _plain(value: Any) -> Any:
    """Return names as JSON has them."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _fits(dtype: np.dtype[Any], column: np.dtype[Any]) -> bool:
    """Return whether a column gives back every value exactly."""
    same = dtype.kind == column.kind and dtype.kind in "fiubU"
    return same and (dtype.kind == "U" or np.can_cast(dtype, column))


def _blocks(part: Attributions) -> Iterator[list[tuple[Column, np.ndarray]]]:
    form = LongForm(part, whole=True)
    if not part._rows:
        yield list(form.lines())
        return
    rows = form.shape[0]
    size = max(1, LINES_PER_BLOCK * rows // max(1, form.count))
    for start in range(0, rows, size):
        yield list(form.lines(slice(start, start + size)))


def _table(schema: Any, key: Any, lines: list[tuple[Column, np.ndarray]]) -> Any:
    pa = import_pyarrow()
    count = len(lines[-1][1])
    columns = {column.name: _arrow(schema.field(column.name).type, column, line) for column, line in lines}
    columns["input_name"] = pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), pa.array([str(key)]))
    arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _arrow(kind: Any, column: Column, line: np.ndarray) -> Any:
    pa = import_pyarrow()
    if column.categories is not None:
        return pa.DictionaryArray.from_arrays(line, pa.array(column.categories, pa.string()))
    return as_column(line, kind)


def as_column(values: np.ndarray, kind: Any) -> Any:
    """Return values as a pyarrow array of the type of a column."""
    pa = import_pyarrow()
    if pa.types.is_dictionary(kind):
        return pa.array(values.astype(str)).dictionary_encode()
    if values.dtype.kind in "mM":
        return pa.array(values.astype(_readable(values.dtype))).cast(kind)
    return pa.array(values.astype(kind.to_pandas_dtype(), copy=False), kind)


# ---------------------------------------------------------------------- read
def read(path: str | os.PathLike[str], kind: type[Attributions]) -> Any:
    """Read a file: an explanation of that kind, or a list or dict of them if it holds those of several inputs."""
    with import_pyarrow().OSFile(os.fspath(path)) as stream:  # a missing file is Python's own error
        return parse(stream, kind, path)


def parse(stream: Any, kind: type[Attributions], path: Any) -> Any:
    """Read a stream of pyarrow over memory of its own or a file; ``path`` names it in errors.

    Threads of pyarrow may let a stream go when the program has ended. If it holds an object of Python, that aborts the process.
    """
    pa = import_pyarrow()
    try:
        file = pa.parquet.ParquetFile(stream, page_checksum_verification=True)
        metadata = file.schema_arrow.metadata or {}
        numeric = ("attribution", "value", "input", "standard_error")
        table = file.read([c for c in file.schema_arrow.names if c in numeric or c.startswith("replicate_")])
    except Exception as error:  # of whatever kind what is wrong with it
        reason = "a .csv file holds the table alone" if str(path).lower().endswith(".csv") else error
        raise InputError(f"{path} is no Parquet file that can be read: {reason}") from error
    if b"deepshap" not in metadata:
        raise InputError(f"{path} is a table, but no explanation: it was not written by Explanation.save.")
    try:
        return _from(table, metadata, kind)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:
        raise InputError(f"{path}: {CHANGED} ({type(error).__name__}: {error})") from error


def _from(table: Any, metadata: dict[bytes, bytes], kind: type[Attributions]) -> Any:
    """Return what a table with its metadata holds."""
    header = json.loads(metadata[b"deepshap"])
    if header["format"] > FORMAT:
        raise InputError(f"it was written by a newer deepshap (format {header['format']}, this one reads {FORMAT}).")
    if int(metadata[b"deepshap.checksum"]) != zlib.crc32(metadata[b"deepshap"] + metadata[b"deepshap.arrays"]):
        raise InputError(CHANGED)
    lines = [part["lines"] for part in header["parts"]]
    if table.num_rows != sum(lines) + header["failed"]:
        raise InputError(CHANGED)
    arrays = _unpack(metadata[b"deepshap.arrays"], MOST_BYTES + table.num_rows * MOST_BYTES_OF_A_LINE)
    explanations, starts = {}, [0, *accumulate(lines)]
    for position, (part, start) in enumerate(zip(header["parts"], starts, strict=False)):
        explanations[part["key"]] = _restore(part, table.slice(start, part["lines"]), f"{position}/", arrays, kind)
    if not header["joint"]:
        return explanations[None]
    return explanations if header["named"] else list(explanations.values())


def _unpack(packed: bytes, most: int) -> dict[str, np.ndarray]:
    stream = io.BytesIO(base64.b64decode(packed, validate=True))
    with zipfile.ZipFile(stream) as archive:
        size = sum(info.file_size for info in archive.infolist())
    if size > most:
        raise InputError(f"its arrays would unpack to {size:,} bytes, which so small a table has no use for.")
    with np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)


def _restore(
    part: dict[str, Any], table: Any, prefix: str, arrays: dict[str, np.ndarray], kind: type[Attributions]
) -> Attributions:
    tracked: dict[str, Alias | Obj] = {}
    for name, entry in part["tracked"].items():
        if "json" in entry:
            value = entry["json"]
        elif "column" in entry:
            value = _from_column(name, entry, part, table[entry["column"]], prefix, arrays)
        else:
            value = arrays[f"{prefix}{name}"][()]
        tracked[name] = (Alias if entry["alias"] else Obj)(value, entry["axes"])
    if zlib.crc32(np.ascontiguousarray(tracked["values"].o).tobytes()) != part["checksum"]:
        raise InputError(CHANGED)
    explanation = rebuild(kind, tracked, part["output_axes"], part["attributes"])
    explanation._has_rows = bool(part["rows"])
    return explanation


def _from_column(
    name: str, entry: dict[str, Any], part: dict[str, Any], column: Any, prefix: str, arrays: dict[str, np.ndarray]
) -> Any:
    """Return an array from its lines, of which there is one for each output, and its padding."""
    shape, full = entry["shape"], part["tracked"]["values"]["shape"]
    outputs = int(np.prod(full[len(shape) :]))
    lines = column.to_numpy()[::outputs].astype(entry["dtype"], copy=False)
    if f"{prefix}shown" not in arrays:
        return lines.reshape(shape)[()]
    shown = arrays[f"{prefix}shown"]
    rows = shown.ndim - 1
    steps = part["tracked"]["steps"]["axes"][0]
    array = np.empty(shape, entry["dtype"])
    moved = np.moveaxis(array, steps, rows)
    moved[shown] = lines.reshape(-1, *moved.shape[rows + 1 :])
    moved[~shown] = arrays[f"{prefix}{name}"]
    return array


# ---------------------------------------------------------------------- files
def check_folder(path: Path) -> None:
    """Raise unless there is a folder for a file."""
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; its file replaces another when all went well.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    check_folder(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
