"""Explained rows as columns of Parquet, a line per row, and back.

The schema, with one column of each kind marked * for each input of the model (of several, ``values_0`` or ``values_name``):

=================== ================= =====================================================================================
id                  int, text or time the id, or the row's place in the data set
length              int32             valid steps, of rows that have different ones; else null
values*             list of float     attributions (steps, features, outputs) of a row, the last axis fastest
standard_errors*    list of float     of the values, where the method estimates them; else null
data*               list              the input (steps, features)
raw*                list of double    the input before scaling (or words: text), where it is known; else null
step                list              labels of the steps, where the data have some; else null
base_value          list of double    mean output over the background, of each output
output              list of double    the model's output
output_name         list of text      names of the outputs, where each row has its own (ranked outputs); else null
prediction          list of double    all outputs, where only some of them are explained; else null
gap                 list of double    what the attributions miss of output minus base value, of the outputs' scale
converged           bool              whether the wanted accuracy was reached, where one was asked for; else null
target              as targets are    true class or value, of several outputs a list; null where none are given
error               text              why the row could not be explained (all else but the id is null then); else null
=================== ================= =====================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..names import as_labels, numbered
from ..optional import import_pyarrow
from ..options import check_choice
from ..results import Explanation, JointExplanation
from ..results.assembly import assemble
from ..tables import plain
from .batches import Batch

OF_INPUTS = {"values": "values", "standard_errors": "standard_errors", "data": "data", "raw": "display_data"}
DESCRIBING = ("background", "model", "method", "players", "explained", "classes")
Dtypes = dict[str, np.dtype[Any]]
Layout = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """How results are written: ``kind`` "values" or "long", floats as ``dtype``."""

    kind: str = "values"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_choice("form", self.kind, ("values", "long"))  # a line per row, or per value
        check_choice("dtype", self.dtype, ("float32", "float64"))

    @property
    def floats(self) -> Any:
        """The type of attributions."""
        return getattr(import_pyarrow(), self.dtype)()


# ---------------------------------------------------------------------- inputs by the ends of their columns' names
def parts_of(explanation: Explanation) -> dict[str, Explanation]:
    """The explanation of each input, by what its columns' names end with."""
    if not isinstance(explanation, JointExplanation):
        return {"": explanation}
    return {f"_{key}": part for key, part in explanation.items()}


def dtypes_of(X: Any) -> Dtypes:
    """The types of inputs, by what their columns' names end with."""
    values = plain(X, "the data")[0]
    if isinstance(values, Mapping):
        return {f"_{key}": _dtype(value) for key, value in values.items()}
    if isinstance(values, list):
        return {f"_{key}": _dtype(value) for key, value in enumerate(values)}
    return {"": _dtype(values)}


def _dtype(array: Any) -> np.dtype[Any]:
    dtype = getattr(array, "dtype", None)
    return dtype if isinstance(dtype, np.dtype) else np.dtype(str(dtype).rpartition(".")[2].replace("bfloat", "float"))


# ---------------------------------------------------------------------- the schema
def schema(form: Form, batch: Batch, dtypes: Dtypes, raws: Dtypes, steps: np.ndarray | None) -> Any:
    """The columns of a batch with inputs, inputs before scaling and labels of steps of these types."""
    pa = import_pyarrow()
    doubles, floats = pa.list_(pa.float64()), pa.list_(form.floats)
    fields = [("id", label_type(batch.ids)), ("length", pa.int32())]
    fields += [(f"values{end}", floats) for end in dtypes]
    fields += [(f"standard_errors{end}", floats) for end in dtypes]
    fields += [(f"data{end}", pa.list_(data_type(form, dtype))) for end, dtype in dtypes.items()]
    fields += [(f"raw{end}", pa.list_(raw_type(raws.get(end)))) for end in dtypes]
    fields += [("step", pa.list_(pa.null() if steps is None else label_type(steps)))]
    fields += [("base_value", doubles), ("output", doubles), ("output_name", pa.list_(pa.string()))]
    fields += [("prediction", doubles), ("gap", doubles), ("converged", pa.bool_())]
    return pa.schema([*fields, ("target", target_type(batch.targets)), ("error", pa.string())])


def schema_of(form: Form, batch: Batch, raws: Dtypes) -> Any:
    """The columns for a batch of which nothing was explained yet."""
    labels = plain(batch.X, "the data")[1]
    return schema(form, batch, dtypes_of(batch.X), raws, getattr(labels, "step_labels", None))


def label_type(labels: np.ndarray) -> Any:
    """The type of a column of ids or labels."""
    pa = import_pyarrow()
    kinds = {"i": pa.int64(), "u": pa.uint64(), "f": pa.float64(), "b": pa.bool_()}
    if labels.dtype.kind == "M":
        unit = np.datetime_data(labels.dtype)[0]
        return pa.timestamp(unit if unit in ("ms", "us", "ns") else "ms")
    return kinds.get(labels.dtype.kind, pa.string())


def raw_type(dtype: np.dtype[Any] | None) -> Any:
    """The type of a column of inputs before scaling: numbers, or words."""
    pa = import_pyarrow()
    return pa.string() if dtype is not None and dtype.kind in "OSU" else pa.float64()


def target_type(targets: np.ndarray | None) -> Any:
    """The type of the column of targets."""
    pa = import_pyarrow()
    if targets is None:
        return pa.string()
    return label_type(targets) if targets.ndim == 1 else pa.list_(label_type(targets))


def target_array(targets: np.ndarray, kind: Any) -> Any:
    """The column of targets, (rows,) or (rows, outputs)."""
    return labels_array(targets, kind) if targets.ndim == 1 else _lists(targets, None, kind)


def data_type(form: Form, dtype: np.dtype[Any]) -> Any:
    """The type of a column of inputs."""
    pa = import_pyarrow()
    return {"f": form.floats, "b": pa.bool_()}.get(dtype.kind, pa.int64())


# ---------------------------------------------------------------------- explained rows as a table
def layout_of(explanation: Explanation, ragged: bool) -> Layout:
    """What all rows have in common: shapes (None for the steps of rows of different lengths), names, the background."""
    parts, inputs = parts_of(explanation), {}
    for end, part in parts.items():
        shape: list[int | None] = list(part.values.shape[1 : part._inputs])
        inputs[end] = {"shape": [None, *shape[1:]] if ragged else shape, "feature_names": part.feature_names}
    first = next(iter(parts.values()))
    names = first.output_names if np.ndim(first.output_names) < 2 else None
    return {
        "named": isinstance(explanation, JointExplanation) and isinstance(explanation.parts, dict),
        "inputs": inputs,
        "outputs": list(first.values.shape[first._inputs :]),
        "output_names": names,
        "ranked": np.ndim(first.output_names) == 2,
        "steps": first.step_labels is not None,
        "targets": None if first.targets is None else np.ndim(first.targets),
        **{name: getattr(explanation, name) for name in DESCRIBING},
    }


def table_of(explanation: Explanation, batch: Batch, form: Form) -> tuple[Any, np.ndarray]:
    """The rows of a batch as lines, and the row of each line; of rows with lengths, their valid steps alone."""
    pa, parts = import_pyarrow(), parts_of(explanation)
    first, rows = next(iter(parts.values())), len(batch)
    valid = None if batch.lengths is None else np.arange(first.values.shape[1]) < batch.lengths[:, None]
    steps = first.step_labels
    raws = {end: part.display_data.dtype for end, part in parts.items() if part.display_data is not None}
    known = schema(form, batch, {end: part.data.dtype for end, part in parts.items()}, raws, steps)
    found: dict[str, Any] = {"id": labels_array(batch.ids, known.field("id").type)}
    found["length"] = pa.nulls(rows, pa.int32()) if valid is None else pa.array(batch.lengths, pa.int32())
    for end, part in parts.items():
        for name, field in OF_INPUTS.items():
            array = getattr(part, field)
            if array is not None:
                found[name + end] = _lists(array, valid, known.field(name + end).type)
    if steps is not None:
        wide = np.broadcast_to(steps, (rows, np.shape(steps)[-1]))
        found["step"] = _lists(wide, valid, known.field("step").type)
    for name, array in (("base_value", first.base_values), ("output", first.outputs), ("gap", first.gap)):
        found[name] = _lists(np.asarray(array), None, known.field(name).type)
    if first.predictions is not None and (first.explained is not None or np.ndim(first.output_names) == 2):
        found["prediction"] = _lists(first.predictions, None, known.field("prediction").type)
    if batch.targets is not None:
        found["target"] = target_array(batch.targets, known.field("target").type)
    if first.converged is not None:
        found["converged"] = pa.array(first.converged)
    if np.ndim(first.output_names) == 2:
        found["output_name"] = _lists(np.asarray(first.output_names), None, known.field("output_name").type)
    columns = [found.get(field.name, pa.nulls(rows, field.type)) for field in known]
    return pa.Table.from_arrays(columns, schema=known), np.arange(rows)


def failed_table(batch: Batch, error: str, known: Any) -> Any:
    """Lines of rows that could not be explained."""
    pa, rows = import_pyarrow(), len(batch)
    found = {"id": labels_array(batch.ids, known.field("id").type), "error": pa.array([error] * rows)}
    return pa.Table.from_arrays([found.get(f.name, pa.nulls(rows, f.type)) for f in known], schema=known)


def labels_array(labels: np.ndarray, kind: Any) -> Any:
    """Labels as a column of a type."""
    pa = import_pyarrow()
    if pa.types.is_timestamp(kind):
        return pa.array(labels.astype(f"M8[{kind.unit}]")).cast(kind)
    return pa.array(labels.astype(str) if pa.types.is_string(kind) else labels, kind)


def _lists(array: np.ndarray, valid: np.ndarray | None, kind: Any) -> Any:
    """A list for each row: its values, or those at its valid steps."""
    pa, rows = import_pyarrow(), len(array)
    if valid is None:
        flat, sizes = array.reshape(-1), np.full(rows, math.prod(array.shape[1:]))
    else:
        flat, sizes = array[valid].reshape(-1), valid.sum(1) * math.prod(array.shape[2:])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    if offsets[-1] >= 2**31:
        raise InputError(f"a part of {rows} rows has {offsets[-1]} values: take fewer rows_per_part.")
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), labels_array(flat, kind.value_type), type=kind)


# ---------------------------------------------------------------------- and back
def explanation_of(table: Any, layout: Layout) -> Explanation:
    """The explanation of rows none of which failed; shorter ones are padded with zeros."""
    lengths = None if table["length"].null_count else table["length"].to_numpy()
    values, errors, data, raw = (
        {end: _arrays(table, name + end, layout, end, lengths) for end in layout["inputs"]} for name in OF_INPUTS
    )
    base, outputs, gap = (
        _flat(table[name]).reshape(len(table), *layout["outputs"]) for name in ("base_value", "output", "gap")
    )
    names = {end: one["feature_names"] for end, one in layout["inputs"].items()}
    ranked = None if table["output_name"].null_count else _flat(table["output_name"]).reshape(len(table), -1)
    several = list(values) != [""]
    explanation = assemble(
        [array for array in values.values() if array is not None],
        base,
        [array for array in data.values() if array is not None],
        outputs,
        gap,
        keys=([end[1:] for end in values] if layout["named"] else list(range(len(values)))) if several else None,
        feature_names=_formed(names, layout["named"]),
        output_names=layout["output_names"] if ranked is None else ranked,
    )
    for name in DESCRIBING:
        setattr(explanation, name, layout[name])
    if table["converged"].null_count == 0:
        explanation.converged = table["converged"].to_numpy()
    explanation.row_ids = as_labels(table["id"].to_numpy(), "ids")
    _judge(explanation, table, layout)
    for end, part in parts_of(explanation).items():
        if errors[end] is not None:
            part.standard_errors = errors[end]
        if raw[end] is not None:
            part.display_data = as_labels(raw[end], "raw")
            _as_words(part)
        if table["step"].null_count == 0 and len(table):
            part.step_labels = _step_labels(table, lengths)
        if lengths is not None:
            part.lengths = lengths
    return explanation


def _as_words(part: Explanation) -> None:
    """Take rows of words without other names for sequences of them."""
    if part.display_data.dtype.kind == "U" and part.feature_names == numbered("Feature", part.data.shape[-1]):
        part.feature_names, part.step_labels = None, range(part.data.shape[1])


def _judge(explanation: Explanation, table: Any, layout: Layout) -> None:
    """Add what the model predicted, and what is true."""
    if table["prediction"].null_count == 0 and len(table):
        explanation.predictions = _flat(table["prediction"]).reshape(len(table), -1)
    elif len(layout["outputs"]) < 2 and not layout["ranked"]:
        explanation.predictions = np.reshape(explanation.outputs, (len(table), -1))
    if layout["targets"] is not None:
        targets = table["target"].to_numpy() if layout["targets"] == 1 else _flat(table["target"])
        explanation.targets = as_labels(
            targets.reshape(len(table), *layout["outputs"][: layout["targets"] - 1]), "targets"
        )


def _formed(of_inputs: dict[str, Any], named: bool) -> Any:
    """What belongs to each input in the form of the inputs: one, a list, a dict by name."""
    if list(of_inputs) == [""]:
        return of_inputs[""]
    return {end[1:]: one for end, one in of_inputs.items()} if named else list(of_inputs.values())


def _flat(column: Any) -> np.ndarray:
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False)


def _arrays(table: Any, name: str, layout: Layout, end: str, lengths: np.ndarray | None) -> np.ndarray | None:
    """A column as one array (rows, ...); None if it is empty."""
    if table[name].null_count:
        return None
    shape = layout["inputs"][end]["shape"] + ([] if name.startswith(("data", "raw")) else layout["outputs"])
    flat = _flat(table[name])
    return _padded(flat, shape, len(table), lengths, "" if flat.dtype == object else 0)


def _padded(flat: np.ndarray, shape: Sequence[Any], rows: int, lengths: np.ndarray | None, fill: Any = 0) -> np.ndarray:
    if lengths is None or shape[0] is not None:
        return flat.reshape(rows, *shape)
    steps = int(lengths.max(initial=0))
    found = np.full((rows, steps, *shape[1:]), fill, flat.dtype)
    found[np.arange(steps) < lengths[:, None]] = flat.reshape(-1, *shape[1:])
    return found


def _step_labels(table: Any, lengths: np.ndarray | None) -> np.ndarray:
    """Labels (steps,) where all rows agree on those that they have, else (rows, steps)."""
    flat = as_labels(_flat(table["step"]), "the steps")
    assert flat is not None
    fill: Any = {"M": np.datetime64("NaT"), "f": np.nan, "i": -1, "U": ""}.get(flat.dtype.kind, 0)
    shape = [None] if lengths is not None else [-1]
    found = _padded(flat, shape, len(table), lengths, fill)
    known = (found == found) & (found != fill)
    longest = found[known.sum(1).argmax()]
    return longest if (found == longest)[known].all() else found
