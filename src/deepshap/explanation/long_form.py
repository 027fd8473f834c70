"""Explanations as long tables (a line for each row, step, feature and output) and as xarray datasets."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from slicer import Alias, Obj

from ..errors import InputError, needed
from ..explanation.labels import as_labels
from ._compat import tracked_arrays, tracked_objects
from .core import Attributions
from .fields import FACTS

if TYPE_CHECKING:
    import pandas as pd
    import xarray


Kind = TypeVar("Kind", bound=Attributions)
ORDER = ["input_name", "row", "step", "axis", "window", "group", "feature", "output_axis", "output", "value", "input"]
ORDER += ["attribution", "standard_error", "replicate"]
OF_ROWS = {"base_value": "base_values", "model_output": "outputs", "gap": "gap", "target": "targets"}
OF_ROWS |= {"converged": "converged"}
ORDER += OF_ROWS


@dataclass(frozen=True)
class Column:
    """A column of the long form, before it is laid out: it has the axes of ``values``, most of them of size 1.

    With ``categories`` the array holds their numbers.
    """

    name: str
    array: np.ndarray
    categories: list[str] | None = None

    def expanded(self, shape: Sequence[int], shown: np.ndarray | None, rows: slice) -> np.ndarray:
        """Return the lines of some rows, without padding."""
        array = self.array[rows] if self.array.ndim and len(self.array) > 1 else self.array
        wide = np.broadcast_to(array, shape)
        return wide.ravel() if shown is None else wide[shown]


class LongForm:
    """The columns of an explanation, to be laid out for some of its rows or all of them.

    With ``whole`` they include what files hold beside the table: replicates, and the outputs, targets and gap of each row.
    """

    def __init__(self, explanation: Attributions, whole: bool = False) -> None:
        self.explanation = explanation
        self.shape = explanation.values.shape
        self.valid = _valid(explanation)
        self.columns = [*_index_columns(explanation), *self._value_columns()]
        if whole:
            self.columns += [Column(f"replicate_{i}", array) for i, array in enumerate(explanation._replicates)]
            self.columns += self._columns_of_rows()

    def _value_columns(self) -> Iterator[Column]:
        data, raw = self.explanation.data, self.explanation.display_data
        outputs = (1,) * len(self.explanation.output_dims)
        for name, array in (("value", data if raw is None else raw), ("input", None if raw is None else data)):
            if array is not None:
                array = np.asarray(array)
                array, categories = encode_texts(array.astype(str) if array.dtype == object else array)
                yield Column(name, array.reshape((*array.shape, *outputs)), categories)
        yield Column("attribution", np.asarray(self.explanation.values))
        if self.explanation.standard_errors is not None:
            yield Column("standard_error", self.explanation.standard_errors)

    def _columns_of_rows(self) -> Iterator[Column]:
        for name, field in OF_ROWS.items():
            tracked = tracked_objects(self.explanation._s).get(field)
            if tracked is not None and tracked.o is not None:
                array, categories = encode_texts(np.asarray(tracked.o))
                place = [size if axis in tracked.dim else 1 for axis, size in enumerate(self.shape)]
                yield Column(name, array.reshape(place), categories)

    @property
    def count(self) -> int:
        """How many lines there are."""
        if self.valid is None:
            return math.prod(self.shape)
        return int(self.valid.sum()) * math.prod(self.shape[self.valid.ndim :])

    def lines(self, rows: slice = slice(None)) -> Iterator[tuple[Column, np.ndarray]]:
        """Yield each column with its lines."""
        shape = (len(range(*rows.indices(self.shape[0]))), *self.shape[1:]) if self.shape else ()
        shown = None
        if self.valid is not None:
            valid = self.valid[rows] if self.explanation._rows else self.valid
            shown = np.broadcast_to(valid.reshape(*valid.shape, *(1,) * (len(shape) - valid.ndim)), shape)
        for column in self.columns:
            yield column, column.expanded(shape, shown, rows)


def to_dataframe(explanation: Attributions) -> pd.DataFrame:
    """Return the long table of an explanation; see ``Explanation.to_dataframe``."""
    pd = needed("pandas", "tables need pandas")
    frames = {key: _frame(pd, part) for key, part in explanation.items()}
    if None in frames:
        return frames[None]
    both = pd.concat([frame.assign(input_name=key) for key, frame in frames.items()], ignore_index=True)
    return both[sort_columns(both.columns)]


def _frame(pd: Any, explanation: Attributions) -> pd.DataFrame:

    def series(column: Column, lines: np.ndarray) -> Any:
        return lines if column.categories is None else pd.Categorical.from_codes(lines, column.categories)

    return pd.DataFrame({column.name: series(column, lines) for column, lines in LongForm(explanation).lines()})


def sort_columns(names: Iterable[str]) -> list[str]:
    """Sort the names of columns in the order of the long form."""
    return sorted(names, key=lambda name: ORDER.index(name.rstrip("_0123456789")))


# ---------------------------------------------------------------------- axes
def axis_names(explanation: Attributions) -> list[str]:
    """Return what each axis of ``values`` is: "row", "step", "feature", "output"; further axes are numbered."""
    steps, inputs = explanation._steps_at, explanation._inputs
    names = ["row"] * explanation._rows + [""] * (inputs - explanation._rows)
    if steps is not None:
        names[steps] = "step"
    others = [axis for axis, name in enumerate(names) if not name]
    for axis in others:
        lone = len(others) == 1 or (axis == others[-1] and explanation.feature_names is not None)
        names[axis] = "feature" if lone else f"axis_{axis}"
    outputs = len(explanation.output_dims)
    return names + [f"output_axis_{i}" for i in range(outputs - 1)] + ["output"] * bool(outputs)


LABELS = {"row": "row_ids", "step": "step_labels", "feature": "feature_names", "output": "output_names"}


def known_labels(explanation: Attributions, name: str) -> tuple[np.ndarray, list[int]] | None:
    """Return the labels of an axis, or of its one selected position, and the axes that they run along, or None."""
    tracked = tracked_arrays(explanation._s).get(LABELS.get(name, ""))
    if tracked is None or tracked.o is None:
        return None
    labels, shape = as_labels(tracked.o, name), explanation.values.shape
    belongs = name in axis_names(explanation) or tracked.dim in ([], [0] * explanation._rows)
    if labels is None or not belongs or labels.shape != tuple(shape[axis] for axis in tracked.dim):
        return None
    return labels, list(tracked.dim)


def labels_or_positions(explanation: Attributions, name: str) -> tuple[np.ndarray, list[int]] | None:
    """Return the known labels of an axis, or else the numbers of its positions; and the axes that they run along."""
    labels, names = known_labels(explanation, name), axis_names(explanation)
    if labels is not None or name not in names:
        return labels
    axis = names.index(name)
    return explanation._tracked("steps") if name == "step" else np.arange(explanation.values.shape[axis]), [axis]


def _index_columns(explanation: Attributions) -> Iterator[Column]:
    shape, names = explanation.values.shape, axis_names(explanation)
    for name in dict.fromkeys(["row", "step", *names[: explanation._inputs], "feature", *names, "output"]):
        labels = labels_or_positions(explanation, name)
        if labels is not None:
            array, categories = encode_texts(labels[0])
            place = [shape[axis] if axis in labels[1] else 1 for axis in range(len(shape))]
            yield Column(column_name(name, explanation.players), array.reshape(place), categories)


def column_name(name: str, players: str | None) -> str:
    """Return the name of an axis's column; an axis of players is named after their kind."""
    kind = str(players).partition(" ")[0].removesuffix("s")  # of "steps", "window of 3 steps", "groups"
    return kind if name == "feature" and kind in ORDER else name


def encode_texts(labels: np.ndarray) -> tuple[np.ndarray, list[str] | None]:
    """Return texts as numbers of categories, in the order in which they appear; other labels unchanged."""
    if labels.dtype.kind not in "US":
        return labels, None
    texts, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return np.argsort(order)[codes].reshape(labels.shape).astype(np.int32), texts[order].tolist()


def _valid(explanation: Attributions) -> np.ndarray | None:
    """Return which steps get lines, (rows, steps): all but padding, if that is known and has no attributions."""
    valid, steps = explanation._valid, explanation._steps_at
    if valid is None or steps is None or valid.all():
        return None
    padded = np.moveaxis(explanation.values, steps, explanation._rows)[~valid]
    return None if padded.any() else valid


# ---------------------------------------------------------------------- xarray
VARIABLES = {
    **OF_ROWS,
    "standard_error": "standard_errors",
    "lag": "lags",
    "horizon": "horizons",
    "forecast_series": "forecast_series",
    "forecast_parameter": "forecast_parameters",
    "forecast_time": "forecast_times",
}


def to_xarray(explanation: Attributions) -> xarray.Dataset:
    """Return an explanation as a dataset; see ``Explanation.to_xarray``."""
    xr = needed("xarray", "datasets need xarray")
    dims = axis_names(explanation)
    inputs = dims[: explanation._inputs]
    variables: dict[str, Any] = {"attribution": (dims, explanation.values)}
    data, raw = explanation.data, explanation.display_data
    for name, array in (("value", data if raw is None else raw), ("input", None if raw is None else data)):
        if array is not None:
            variables[name] = (inputs, array)
    for name, field in VARIABLES.items():
        tracked = tracked_objects(explanation._s).get(field)
        if tracked is not None and tracked.o is not None:
            variables[name] = ([dims[axis] for axis in tracked.dim], tracked.o)
    if explanation.replicates is not None:
        variables["replicates"] = (["replicate", *dims], explanation.replicates)
    if explanation.lengths is not None:
        variables["length"] = (dims[: explanation._rows], explanation.lengths)
    if explanation.predictions is not None:
        variables["prediction"] = ([*dims[: explanation._rows], "class"], explanation.predictions)
    coordinates = {}
    for name in LABELS:
        labels = known_labels(explanation, name)
        if labels is not None:
            along = [dims[axis] for axis in labels[1]]
            coordinates[name if along in ([name], []) else f"{name}_label"] = (along, labels[0])
    attributes = facts(explanation)
    attributes["background"] = None if explanation.background is None else json.dumps(explanation.background)
    return xr.Dataset(variables, coordinates, {key: value for key, value in attributes.items() if value is not None})


def from_xarray(kind: type[Kind], dataset: xarray.Dataset) -> Kind:
    """Return the explanation of a dataset; see ``Explanation.from_xarray``."""
    if isinstance(dataset, (list, dict)):
        raise InputError(
            "from_xarray reads one dataset, and these are those of several inputs: read each, and put them together again with "
            "JointExplanation({name: Explanation.from_xarray(one) for name, one in datasets.items()}), or of a list."
        )
    if "attribution" not in getattr(dataset, "variables", ()):
        raise InputError("the dataset has no variable 'attribution': it does not come from Explanation.to_xarray.")
    dims = [str(dim) for dim in dataset["attribution"].dims]

    def along(name: str) -> Obj:
        if name not in dataset.variables:
            return Obj(None)
        return Obj(dataset[name].to_numpy()[()], [dims.index(str(dim)) for dim in dataset[name].dims])

    raw = "input" in dataset.variables
    tracked = {field: along(name) for name, field in VARIABLES.items()}
    tracked |= {"values": along("attribution"), "data": along("input" if raw else "value")}
    tracked |= {"display_data": along("value") if raw else Obj(None), "valid_steps": along("length")}
    attributes = dataset.attrs
    explanation = rebuild(
        kind, tracked, [axis for axis, dim in enumerate(dims) if dim.startswith("output")], attributes
    )
    explanation._has_rows = "row" in dims
    if "replicates" in dataset.variables:
        explanation.replicates = dataset["replicates"].transpose("replicate", *dims).to_numpy()
    if "prediction" in dataset.variables:
        explanation.predictions = dataset["prediction"].to_numpy()
    if "step" in dims:
        explanation._count_steps(dims.index("step"))
    for name, field in LABELS.items():
        for variable in (name, f"{name}_label"):
            if variable in dataset.variables:
                labels = as_labels(dataset[variable].to_numpy(), variable)
                assert labels is not None
                setattr(explanation, field, labels.tolist() if field.endswith("names") and labels.ndim < 2 else labels)
    return explanation


def rebuild(kind: type[Kind], tracked: dict[str, Alias | Obj], output_dims: Sequence[int], attributes: Any) -> Kind:
    """Return an explanation made of its parallel arrays and its facts."""
    explanation = kind(tracked["values"].o)
    explanation.output_dims = tuple(output_dims)
    explanation._track(**{"steps": Obj(None), "output_names": Obj(None), **tracked})
    background = attributes.get("background")
    explanation.background = json.loads(background) if isinstance(background, str) else background
    for name in FACTS[1:]:
        setattr(explanation, name, attributes.get(name))
    return explanation


def facts(explanation: Attributions) -> dict[str, Any]:
    """Return the facts that hold for the whole explanation."""
    return {name: getattr(explanation, name) for name in FACTS}
