"""Attributions in Parquet files: the long table that everyone can read, and in its metadata all the rest, bit by bit.

The metadata hold three entries: ``deepshap``, a JSON text with the version of the format and everything small,
``deepshap.arrays``, the other arrays as an .npz archive (base64), and ``deepshap.checksum`` of both. Nothing is pickled.
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

from ..errors import InputError
from ..optional import import_pyarrow
from .core import Attributions
from .long_form import Column, LongForm, facts, in_order, rebuilt

FORMAT = 2  # 1 knows no standard errors
LINES_PER_BLOCK = 2**21
MOST_BYTES, MOST_BYTES_OF_A_LINE = 2**26, 2**13  # of arrays that are read beside a table
CHANGED = "the table is not the one that was saved: it was filtered, sorted or damaged since."
UNITS = ("ms", "us", "ns")  # of times, as Parquet and pandas both know them

Parts = Sequence[tuple[Any, Attributions]]


def save(explanation: Attributions, path: str | os.PathLike[str]) -> None:
    """See ``Explanation.save``."""
    parquet = import_pyarrow().parquet
    parts = explanation.items()
    joint, named = parts[0][0] is not None, isinstance(parts[0][0], str)
    types = _types(parts)
    arrays: dict[str, np.ndarray] = {}
    described = [_described(key, part, types, f"{i}/", arrays) for i, (key, part) in enumerate(parts)]
    try:
        header = json.dumps(
            {"format": FORMAT, "joint": joint, "named": named, "parts": described}, default=np.generic.item
        )
    except TypeError as error:
        raise InputError(
            f"the background, model or names are not plain enough to be written as JSON: {error}."
        ) from None
    packed = _packed(arrays)
    checksum = str(zlib.crc32(header.encode() + packed))
    metadata = {"deepshap": header, "deepshap.arrays": packed, "deepshap.checksum": checksum}
    schema = _schema(types).with_metadata(metadata)
    texts = [name for name, dtype in types.items() if dtype.kind == "U"]
    with (
        replacing(Path(path)) as temporary,
        parquet.ParquetWriter(
            temporary, schema, compression="zstd", use_dictionary=[*texts, "row", "step"], write_page_checksum=True
        ) as writer,
    ):
        for key, part in parts:
            for lines in _blocks(part):
                writer.write_table(_table(schema, key, lines))


def read(path: str | os.PathLike[str], kind: type[Attributions]) -> Any:
    """Read a file: an explanation of that kind, or a list or dict of them if it holds those of several inputs."""
    pa = import_pyarrow()
    with open(path, "rb") as stream:  # a missing file is Python's own error
        try:
            file = pa.parquet.ParquetFile(stream, page_checksum_verification=True)
            metadata = file.schema_arrow.metadata or {}
            whole = ("attribution", "value", "input", "standard_error")
            table = file.read([c for c in file.schema_arrow.names if c in whole or c.startswith("replicate_")])
        except Exception as error:  # of whatever kind what is wrong with it
            told = "a .csv file holds the table alone" if str(path).lower().endswith(".csv") else error
            raise InputError(f"{path} is no Parquet file that can be read: {told}") from error
    if b"deepshap" not in metadata:
        raise InputError(f"{path} is a table, but no explanation: it was not written by Explanation.save.")
    try:
        return _from(table, metadata, kind)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:
        raise InputError(f"{path}: {CHANGED} ({type(error).__name__}: {error})") from error


def _from(table: Any, metadata: dict[bytes, bytes], kind: type[Attributions]) -> Any:
    """What a table with its metadata holds."""
    header = json.loads(metadata[b"deepshap"])
    if header["format"] > FORMAT:
        raise InputError(f"it was written by a newer deepshap (format {header['format']}, this one reads {FORMAT}).")
    checksum = metadata.get(b"deepshap.checksum")  # files of before have none
    if checksum is not None and int(checksum) != zlib.crc32(metadata[b"deepshap"] + metadata[b"deepshap.arrays"]):
        raise InputError(CHANGED)
    lines = [part["lines"] for part in header["parts"]]
    if table.num_rows != sum(lines):
        raise InputError(CHANGED)
    arrays = _unpacked(metadata[b"deepshap.arrays"], MOST_BYTES + table.num_rows * MOST_BYTES_OF_A_LINE)
    found, starts = {}, [0, *accumulate(lines)]
    for position, (part, start) in enumerate(zip(header["parts"], starts, strict=False)):
        part_of_table = table.slice(start, part["lines"])
        found[part["key"]] = _restored(part, part_of_table, f"{position}/", arrays, kind)
    if not header["joint"]:
        return found[None]
    return found if header["named"] else list(found.values())


# ---------------------------------------------------------------------- what goes where
def _in_table(part: Attributions) -> dict[str, str]:
    """Columns that hold whole arrays of an explanation, by the arrays' names."""
    columns = {
        "values": "attribution",
        "data": "value" if part.display_data is None else "input",
        "display_data": "value",
        "standard_errors": "standard_error",
        **{name: name for name in part._error_names[1:]},
    }
    return {name: column for name, column in columns.items() if part._tracked(name) is not None}


def _types(parts: Parts) -> dict[str, np.dtype[Any]]:
    """The columns of the table, each of a type for all inputs; texts where they have nothing else in common."""
    found: dict[str, list[np.dtype[Any]]] = {"input_name": [np.dtype("U")]} if len(parts) > 1 else {}
    for _, part in parts:
        for column in LongForm(part, replicates=True).columns:
            found.setdefault(column.name, []).append(
                np.dtype("U") if column.categories else _readable(column.array.dtype)
            )
    return {name: _common(found[name]) for name in in_order(found)}


def _readable(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of a column for values of a type."""
    if dtype.kind in "mM":
        unit = np.datetime_data(dtype)[0]
        return dtype if unit in UNITS else np.dtype(f"{dtype.kind}8[ms]")
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def _common(dtypes: list[np.dtype[Any]]) -> np.dtype[Any]:
    kinds = {dtype.kind if dtype.kind in "UmM" else "number" for dtype in dtypes}
    return np.result_type(*dtypes) if len(kinds) == 1 else np.dtype("U")


def _described(
    key: Any, part: Attributions, types: dict[str, np.dtype[Any]], prefix: str, arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    """What the header says of an explanation; arrays that the table does not hold exactly are put among ``arrays``."""
    form, columns, tracked = LongForm(part, replicates=True), _in_table(part), {}
    if form.valid is not None:
        arrays[f"{prefix}shown"] = form.valid
    for name, one in part._s._iter_tracked(include_aliases=True):
        if one.o is None:
            continue
        tracked[name] = entry = {"axes": list(one.dim), "alias": isinstance(one, Alias)}
        if not isinstance(one.o, (np.ndarray, np.generic)) and name not in columns:
            entry["json"] = _plain(one.o)
            continue
        array = _exact(name, one.o)
        if name in columns and _fits(array.dtype, types[columns[name]]):
            entry.update(column=columns[name], dtype=array.dtype.str, shape=list(array.shape))
            if form.valid is not None:
                arrays[f"{prefix}{name}"] = np.moveaxis(array, part._steps_at or 0, part._rows)[~form.valid]  # padding
        else:
            arrays[f"{prefix}{name}"] = array
    values = np.ascontiguousarray(part.values)
    return {
        "key": key,
        "lines": form.count,
        "tracked": tracked,
        "output_axes": list(part.output_dims),
        "rows": part._rows,
        "checksum": zlib.crc32(values.view(np.uint8).data if values.size and values.ndim else values.tobytes()),
        "attributes": facts(part),
    }


def _exact(name: str, array: Any) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype == object:
        if not all(isinstance(value, str) for value in array.flat):
            raise InputError(f"{name} holds Python objects, which cannot be written: make it numbers or str.")
        return array.astype(str)
    return array


def _plain(value: Any) -> Any:
    """Names as JSON has them."""
    return (
        [_plain(v) for v in value]
        if isinstance(value, (list, tuple))
        else value.item()
        if hasattr(value, "item")
        else value
    )


def _fits(dtype: np.dtype[Any], column: np.dtype[Any]) -> bool:
    """Whether a column gives back every value exactly."""
    return dtype.kind == column.kind and dtype.kind in "fiubU" and (dtype.kind == "U" or np.can_cast(dtype, column))


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return base64.b64encode(stream.getvalue())


def _unpacked(packed: bytes, most: int) -> dict[str, np.ndarray]:
    stream = io.BytesIO(base64.b64decode(packed, validate=True))
    with zipfile.ZipFile(stream) as archive:
        size = sum(info.file_size for info in archive.infolist())
    if size > most:
        raise InputError(f"its arrays would unpack to {size:,} bytes, which so small a table has no use for.")
    with np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)


# ---------------------------------------------------------------------- the table
def _schema(types: dict[str, np.dtype[Any]]) -> Any:
    pa = import_pyarrow()

    def kind(dtype: np.dtype[Any]) -> Any:
        return pa.dictionary(pa.int32(), pa.string()) if dtype.kind == "U" else pa.array(np.empty(0, dtype)).type

    return pa.schema([(name, kind(dtype)) for name, dtype in types.items()])


def _blocks(part: Attributions) -> Iterator[list[tuple[Column, np.ndarray]]]:
    form = LongForm(part, replicates=True)
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
    name = pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), pa.array([str(key)]))
    found = [
        columns[field.name]
        if field.name in columns
        else name
        if field.name == "input_name"
        else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(found, schema=schema)


def _arrow(kind: Any, column: Column, line: np.ndarray) -> Any:
    pa = import_pyarrow()
    if column.categories is not None:
        return pa.DictionaryArray.from_arrays(line, pa.array(column.categories, pa.string()))
    if pa.types.is_dictionary(kind):
        return pa.array(line.astype(str)).dictionary_encode()
    if line.dtype.kind in "mM":
        return pa.array(line.astype(_readable(line.dtype))).cast(kind)
    return pa.array(line.astype(kind.to_pandas_dtype(), copy=False), kind)


# ---------------------------------------------------------------------- back
def _restored(
    part: dict[str, Any], table: Any, prefix: str, arrays: dict[str, np.ndarray], kind: type[Attributions]
) -> Attributions:
    tracked = {name: _tracked(name, entry, part, table, prefix, arrays) for name, entry in part["tracked"].items()}
    values = np.ascontiguousarray(tracked["values"].o)
    if zlib.crc32(values.tobytes()) != part["checksum"]:
        raise InputError(CHANGED)
    explanation = rebuilt(kind, tracked, part["output_axes"], part["attributes"])
    explanation._has_rows = bool(part.get("rows", 1))  # files of before do not say
    return explanation


def _tracked(
    name: str, entry: dict[str, Any], part: dict[str, Any], table: Any, prefix: str, arrays: dict[str, np.ndarray]
) -> Alias | Obj:
    if "json" in entry:
        value = entry["json"]
    elif "column" in entry:
        value = _from_column(name, entry, part, table[entry["column"]], prefix, arrays)
    else:
        value = arrays[f"{prefix}{name}"][()]
    return Alias(value, entry["axes"]) if entry["alias"] else Obj(value, entry["axes"])


def _from_column(
    name: str, entry: dict[str, Any], part: dict[str, Any], column: Any, prefix: str, arrays: dict[str, np.ndarray]
) -> Any:
    """An array from its lines, of which there is one for each output, and its padding."""
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
    """A path to write to, that takes the place of another when all went well.

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
