"""Explained rows in long form, a line per value, as columns of Parquet; and back.

==================== ============== ===============================================================
id                   as ids are     the id, or the row's place in the data set; its lines together
input                text           which input, of several; else null
step                 label, int     label or number of the step; null where there are no steps
feature              text           its name, or that of any player; null where there are none
output               text           name or number of the output; null where there is only one
value                float or int   the input
raw                  double         the input before scaling (or a word: text), where it is known; else null
attribution          float          what the value contributed to the output
standard_error       float          of the attribution, where the method estimates it; else null
base_value           double         mean output over the background
model_output         double         the model's output
gap                  double         what the attributions miss of output minus base value
target               as targets are true class or value, of several outputs that of the output; null where none are given
error                text           why the row could not be explained: its only line; else null
==================== ============== ===============================================================
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import InputError
from ..explanation.long_form import column_of
from ..optional import import_pyarrow
from ..results import Explanation
from ..tables import plain
from .batches import Batch
from .columns import Dtypes, Form, Layout, data_type, dtypes_of, label_type, labels_array, parts_of, raw_type

OF_OUTPUTS = {"base_value": "base_values", "model_output": "outputs", "gap": "gap"}


def schema(form: Form, batch: Batch, value: np.dtype[Any], raw: np.dtype[Any] | None, step: Any) -> Any:
    """The columns of a batch with inputs, inputs before scaling and steps of these types."""
    pa = import_pyarrow()
    target = pa.string() if batch.targets is None else label_type(batch.targets)
    fields: dict[str, Any] = {"id": label_type(batch.ids), "input": pa.string(), "step": step, "feature": pa.string()}
    fields |= {"output": pa.string(), "value": data_type(form, value), "raw": raw_type(raw), "attribution": form.floats}
    fields |= {"standard_error": form.floats, **dict.fromkeys(OF_OUTPUTS, pa.float64())}
    return pa.schema([*fields.items(), ("target", target), ("error", pa.string())])


def schema_of(form: Form, batch: Batch, raws: Dtypes) -> Any:
    """The columns for a batch of which nothing was explained yet."""
    pa, labels = import_pyarrow(), getattr(plain(batch.X, "the data")[1], "step_labels", None)
    step = pa.int64() if labels is None else label_type(labels)
    return schema(form, batch, _common(dtypes_of(batch.X)), _common(raws) if raws else None, step)


def table_of(explanation: Explanation, batch: Batch, form: Form) -> tuple[Any, np.ndarray]:
    """The rows of a batch as lines, and the row of each line; of rows with lengths, their valid steps alone."""
    import pandas as pd

    pa, parts = import_pyarrow(), parts_of(explanation)
    frames = [_lines(part).assign(at=_rows(part, batch), input=end[1:]) for end, part in parts.items()]
    frame = pd.concat(frames, ignore_index=True).sort_values("at", kind="stable")
    rows, first = frame["at"].to_numpy(), next(iter(parts.values()))
    steps = _labels(frame["step"]) if "step" in frame else np.empty(0, np.int64)
    raw = frame["raw"].to_numpy().dtype if "raw" in frame else None
    known = schema(form, batch, frame["value"].to_numpy().dtype, raw, label_type(steps))
    found: dict[str, Any] = {"id": labels_array(batch.ids[rows], known.field("id").type)}
    if "step" in frame:
        found["step"] = labels_array(steps, known.field("step").type)
    for name in ("input", "feature", "output"):
        if name in frame and not (name == "input" and len(parts) == 1):
            found[name] = pa.array(_labels(frame[name]).astype(str))
    for name in ("value", "attribution", "standard_error"):
        if name in frame:
            found[name] = pa.array(frame[name].to_numpy(), known.field(name).type)
    if "raw" in frame:
        found["raw"] = pa.Array.from_pandas(frame["raw"]).cast(known.field("raw").type)
    places = np.arange(len(frame)) % _outputs(first.values.shape[first._inputs :])
    for name, field in OF_OUTPUTS.items():
        found[name] = pa.array(np.asarray(getattr(first, field)).reshape(len(batch), -1)[rows, places])
    if batch.targets is not None:
        each = batch.targets[rows] if batch.targets.ndim == 1 else batch.targets.reshape(len(batch), -1)[rows, places]
        found["target"] = labels_array(each, known.field("target").type)
    return pa.Table.from_arrays([found.get(f.name, pa.nulls(len(frame), f.type)) for f in known], schema=known), rows


def _lines(part: Explanation) -> Any:
    """A line per value: what the model got is the value, and what people know of it is raw."""
    frame = part.to_dataframe()
    names = {column_of("feature", part.players): "feature"}
    return frame.rename(columns={**names, "value": "raw", "input": "value"} if "input" in frame else names)


def _common(dtypes: Dtypes) -> np.dtype[Any]:
    return np.result_type(*dtypes.values())


def _rows(part: Explanation, batch: Batch) -> np.ndarray:
    """The row of each line."""
    if part._inputs > 3:
        raise InputError("the long form is for tables and sequences; write this input with form='values'.")
    each = math.prod(part.values.shape[1:])
    if batch.lengths is None:
        return np.repeat(np.arange(len(batch)), each)
    return np.repeat(np.arange(len(batch)), batch.lengths * (each // part.values.shape[1]))


def _labels(column: Any) -> np.ndarray:
    return np.asarray(column.astype(str) if column.dtype == "category" else column)


def _outputs(shape: Any) -> int:
    return math.prod(shape)


# ---------------------------------------------------------------------- and back
def widened(table: Any, layout: Layout) -> Any:
    """A line per row, as ``columns`` has them, of the lines of rows none of which failed.

    Raises
    ------
    InputError
        If rows that stand together have the same id, so that nobody can tell them apart.
    """
    pa = import_pyarrow()
    found: dict[str, Any] = {}
    outputs = _outputs(layout["outputs"])
    for end, one in layout["inputs"].items():
        lines = table if end == "" else table.filter(pa.compute.equal(table["input"], end[1:]))
        starts = _starts(lines["id"])
        each = outputs * math.prod(size for size in one["shape"] if size is not None)
        sizes = np.diff(starts)
        if (sizes % each).any() or (None not in one["shape"] and (sizes != each).any()):
            raise InputError("rows with the same id stand together, and the long form does not tell them apart.")
        found[f"values{end}"] = _listed(starts, lines["attribution"])
        for name, column in (("data", "value"), ("raw", "raw")):
            if lines[column].null_count == 0:
                found[name + end] = _listed(starts // outputs, lines[column].take(np.arange(0, len(lines), outputs)))
        if lines["standard_error"].null_count == 0:
            found[f"standard_errors{end}"] = _listed(starts, lines["standard_error"])
        firsts = np.add.outer(starts[:-1], np.arange(outputs)).ravel()
        counted = np.arange(len(starts)) * outputs
        for name, column in (("base_value", "base_value"), ("output", "model_output"), ("gap", "gap")):
            found[name] = _listed(counted, lines[column].take(firsts))
        if layout["targets"] is not None:
            several = layout["targets"] > 1
            found["target"] = (
                _listed(counted, lines["target"].take(firsts)) if several else lines["target"].take(starts[:-1])
            )
        found["id"] = lines["id"].take(starts[:-1])
        if None in one["shape"]:
            found["length"] = pa.array(sizes // each, pa.int32())
        if layout["ranked"]:
            found["output_name"] = _listed(counted, lines["output"].take(firsts))
        if layout["steps"]:
            per_step = outputs * math.prod(one["shape"][1:])
            found["step"] = _listed(starts // per_step, lines["step"].take(np.arange(0, len(lines), per_step)))
    rows = len(found["id"])
    of_inputs = (f"{name}{end}" for name in ("standard_errors", "raw") for end in layout["inputs"])
    for name in ("length", "step", "output_name", "prediction", "converged", "target", *of_inputs):
        found.setdefault(name, pa.nulls(rows))
    return pa.table(found)


def _starts(ids: Any) -> np.ndarray:
    """Where the lines of each row begin, and the end of all."""
    ids = ids.combine_chunks()
    changes = import_pyarrow().compute.not_equal(ids.slice(1), ids.slice(0, max(0, len(ids) - 1)))
    return np.concatenate([[0], np.flatnonzero(np.asarray(changes)) + 1, [len(ids)]])


def _listed(starts: np.ndarray, column: Any) -> Any:
    pa = import_pyarrow()
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), column.combine_chunks())
