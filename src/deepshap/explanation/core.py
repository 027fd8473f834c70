"""What ``DeepExplainer.__call__`` returns: shap's Explanation, with sums over time and over features."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shap
from slicer import Alias, Obj

from ..errors import InputError
from ..tables import check_names
from . import long_form
from .fields import Fields, as_texts

if TYPE_CHECKING:
    import pandas as pd

Summary = Callable[..., Any] | np.ndarray | Sequence[Any] | None


class Explanation(Fields, shap.Explanation):
    """A ``shap.Explanation``, in every respect, that knows about sequences.

    ``values`` has shape (rows, ..., outputs): the rows, the other axes of the input, the axes of the output (none, if
    the model returns one number per row). ``base_values`` has shape (rows, outputs), ``data`` that of the input. For
    every row and output the values sum to the model's output minus the base value, and so they do after ``over_time``
    and ``over_features``.

    shap's plots want a matrix: one output, one value per row and feature. ::

        explanation = explainer(x)                              # (rows, steps, features, outputs)
        per_feature = explanation.over_time().output(2)         # (rows, features)
        per_step = explanation.over_features().output(2)        # (rows, steps)
        shap.plots.beeswarm(per_feature)
        shap.plots.waterfall(per_step[0])

    What slicing and arithmetic return is an ``Explanation`` again. Names may be assigned: they go to the last axis of
    the input (``feature_names``) and of the output (``output_names``). So may ``row_ids``, ``step_labels``, ``lengths``,
    ``targets``, ``display_data`` (the raw inputs), ``background`` and ``model``; ``outputs`` and ``gap`` are there to be
    read. They are kept by slices, copies, sums and files as far as they still hold. ::

        explanation.step_labels = frame.index                   # dates, for tables and pictures
        explanation.to_dataframe()                              # a line per row, step, feature and output
        explanation.save("why.parquet")                         # deepshap.load reads it again
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.feature_names = self.feature_names  # shap takes them for those of the first axis behind the rows
        if self._inputs - self._rows == 2:
            self._count_steps(self._rows)

    def over_time(self, data: Summary = np.mean) -> Explanation:
        """Sum the attributions over the steps: what each feature contributed over the whole sequence.

        The sums are taken, and returned, in float64; no contribution is lost.

        Parameters
        ----------
        data : callable, array or None
            What plots show as the value of a feature: a function of the data, called with ``axis=`` the steps (by
            default their mean; without padding where ``lengths`` are known), an array (rows, features), or None for
            nothing.

        Returns
        -------
        Explanation
            ``values`` (rows, features[, outputs]); (features[, outputs]) for a single row.

        Raises
        ------
        InputError
            If this is not the explanation of sequences (rows, steps, features[, outputs]).
        """
        axis = self._steps_axis("over_time")
        names = self.feature_names
        summed = self._summed(axis, data)
        summed._forget("step_labels", "valid_steps")
        summed.feature_names = numbered("Feature", summed.values.shape[axis]) if names is None else names
        return summed

    def over_features(self, data: Summary = None, step_names: Sequence[str] | None = None) -> Explanation:
        """Sum the attributions over the features: what each step contributed.

        The sums are taken, and returned, in float64; no contribution is lost.

        Parameters
        ----------
        data : callable, array or None
            What plots show as the value of a step: a function of the data, called with ``axis=`` the features, such as
            ``np.mean`` where all have one unit, or an array (rows, steps), such as the words of texts. By default nothing,
            but of a single feature its values.
        step_names : sequence of str, optional
            Labels of the steps: they become the ``feature_names``. By default the ``step_labels``, if all rows have the
            same, else "Step 0", "Step 1", ...

        Returns
        -------
        Explanation
            ``values`` (rows, steps[, outputs]); (steps[, outputs]) for a single row.

        Raises
        ------
        InputError
            If this is not the explanation of sequences (rows, steps, features[, outputs]), or if there are not as many
            names as steps, in a list.
        """
        axis = self._steps_axis("over_features")
        steps = self.values.shape[axis]
        names = self._step_names() if step_names is None else step_names
        check_names("step_names", names, distinct=False)
        names = list(names)
        check_count("step_names", names, steps, distinct=False)  # words may come again
        alone = data is None and self.values.shape[axis + 1] == 1
        summed = self._summed(axis + 1, np.max if alone else data)
        summed.feature_names = names
        return summed

    def output(self, key: int | str | tuple[int | str, ...]) -> Explanation:
        """Pick one output, by its index or name.

        Parameters
        ----------
        key : int, str or tuple of them
            One index or name for each axis of the output; names are those of the last axis. As ``explanation[..., key]``
            of shap, but checked.

        Returns
        -------
        Explanation
            ``values`` without the output's axes, ``base_values`` (rows,).

        Raises
        ------
        InputError
            If there is no such output, or only one, or not one key for each axis of the output.
        """
        keys = key if isinstance(key, tuple) else (key,)
        shape = tuple(self.values.shape[axis] for axis in self.output_dims)
        if not shape:
            raise InputError("there is one output only: leave out .output(...).")
        if len(keys) != len(shape):
            raise InputError(f"the outputs have shape {shape}: give a tuple of {len(shape)} keys, not {key!r}.")
        names = self.output_names if isinstance(self.output_names, (list, tuple)) else []
        *first, last = zip(keys, shape, strict=True)
        return self[(..., *(_output_index(*k, names=[]) for k in first), _output_index(*last, names=list(names)))]

    def hstack(self, other: shap.Explanation) -> Explanation:
        """Put the features of another explanation of the same rows and outputs beside these.

        Unlike shap's, keeps the data and the names of both.

        Parameters
        ----------
        other : shap.Explanation
            Of the same shape but for the features; the same base values.

        Returns
        -------
        Explanation
            ``values`` (rows, all features[, outputs]).

        Raises
        ------
        InputError
            If rows, outputs or base values differ.
        """
        axis = self._inputs - 1
        mine, others = list(self.values.shape), list(other.values.shape)
        if mine[:axis] + mine[axis + 1 :] != others[:axis] + others[axis + 1 :]:
            raise InputError(f"hstack needs equal shapes but for axis {axis}, not {tuple(mine)} and {tuple(others)}.")
        if not np.allclose(self.base_values, other.base_values, atol=1e-6):
            raise InputError("hstack needs the same base values: those of one explanation, one model, one background.")
        both = copy.copy(self)
        both._forget("steps", "step_labels", "valid_steps", "display_data")
        both._track(feature_names=Obj(None))
        both.values = np.concatenate([self.values, other.values], axis)
        both._track(data=Obj(_beside(self.data, other.data, axis)))
        both.feature_names = _beside(self.feature_names, other.feature_names, 0)
        return both

    # ------------------------------------------------------------------ for people
    def report(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        max_megabytes: float = 64.0,
        seed: int = 0,
    ) -> Path:
        """Write a report that a browser shows: one HTML file, which needs no network (and here the extra `deepshap[report]`).

        See ``deepshap.report.write_report`` for the parameters and errors, and docs/report.md for what it shows.
        """
        from ..report import write_report

        return write_report(self, path, title=title, max_megabytes=max_megabytes, seed=seed)

    def _repr_html_(self) -> str:
        """What notebooks show."""
        from .html import summary

        return summary(self)

    # ------------------------------------------------------------------ tables and files
    def to_dataframe(self, outputs: int | str | Sequence[int | str] | None = None) -> pd.DataFrame:
        """Lay the attributions out in long form: a line for each row, step, feature and output.

        Parameters
        ----------
        outputs : int, str or sequence of them, optional
            Indexes or names of the outputs to take, by default all.

        Returns
        -------
        pandas.DataFrame
            Columns ``row``, ``step``, ``feature`` and ``output``, as far as there are such axes (further ones are numbered),
            with ids, labels and names where they are known; ``value``, the raw input if it is known; ``input``, what the
            model got, if that is something else; ``attribution``. Padded steps have no lines. A JointExplanation also has
            the column ``input_name``.

        Raises
        ------
        InputError
            If there are no such outputs, or more than one axis of them.
        """
        if outputs is None:
            return long_form.to_dataframe(self)
        if len(self.output_dims) != 1:
            raise InputError("outputs= needs exactly one axis of outputs; pick with .output(...) first.")
        size, names = self.values.shape[-1], self.output_names if isinstance(self.output_names, list) else []
        keys = [outputs] if isinstance(outputs, (int, str)) else outputs
        return long_form.to_dataframe(self[(..., [_output_index(key, size, names) for key in keys])])

    def to_xarray(self) -> Any:
        """As an ``xarray.Dataset`` with the variables ``attribution``, ``value``, ``base_value``, ``model_output`` and others.

        Returns
        -------
        xarray.Dataset
            The dimensions are row, step, feature and output, with ids, labels and names as coordinates. A list or dict of
            them for a JointExplanation.

        Raises
        ------
        ImportError
            If xarray is missing.
        """
        return long_form.to_xarray(self)

    @classmethod
    def from_xarray(cls, dataset: Any) -> Explanation:
        """Make an explanation of a dataset from ``to_xarray``.

        Raises
        ------
        InputError
            If it is no such dataset.
        """
        return long_form.from_xarray(cls, dataset)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a Parquet file, without pickle.

        Any reader of Parquet shows the table of ``to_dataframe``; ``deepshap.load`` gives back the whole explanation, bit by
        bit. The file is complete or not there at all.

        Raises
        ------
        ImportError
            If pyarrow is missing.
        InputError
            If ``background`` cannot be written as JSON.
        """
        from .storage import save

        save(self, path)

    # ------------------------------------------------------------------ names, on the axis they belong to
    @property
    def feature_names(self) -> Any:
        """Names for the last axis of the input."""
        return self._s.feature_names

    @feature_names.setter
    def feature_names(self, names: Any) -> None:
        if names is None:
            self._track(feature_names=Obj(None))
        elif self._inputs > self._rows and _names_for(names, self.values.shape[self._inputs - 1]):
            self._track(feature_names=Alias(list(names), self._inputs - 1))
        else:
            self._s.feature_names = names

    @property
    def output_names(self) -> Any:
        """Names for the last axis of the output."""
        return self._s.output_names

    @output_names.setter
    def output_names(self, names: Any) -> None:
        if names is None:
            self._track(output_names=Obj(None))
        elif self.output_dims and _names_for(names, self.values.shape[-1]):
            self._track(output_names=Alias(list(names), self.output_dims[-1]))
        elif self.output_dims and np.shape(names) == (len(self.values), self.values.shape[-1]):  # each row has its own
            self._track(output_names=Obj(np.asarray(names), [0, self.output_dims[-1]]))
        elif isinstance(names, str):
            self._track(output_names=Obj(names))
        else:
            self._s.output_names = names

    # ------------------------------------------------------------------ copies and slices
    def __copy__(self) -> Explanation:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__, op_history=list(self.op_history))
        twin._track()
        return twin

    def __getitem__(self, item: Any) -> Any:
        part = super().__getitem__(_without_ellipsis(item, np.ndim(self.values)))
        if isinstance(part, Explanation):
            part.output_dims = part._find_outputs()
        return part

    # ------------------------------------------------------------------ shap's arithmetic
    def _apply_binary_operator(self, *args: Any) -> Explanation:
        result: Explanation = super()._apply_binary_operator(*args)
        result._forget("outputs", "gap")
        return result

    def _numpy_func(self, fname: str, **kwargs: Any) -> Explanation:
        result: Explanation = super()._numpy_func(fname, **kwargs)
        if fname == "abs":
            result._forget("outputs", "gap")
            return result
        return result._without_rows(kwargs.get("axis"))

    def percentile(self, q: float, axis: int | None = None) -> Explanation:
        """As shap's."""
        return super().percentile(q, axis)._without_rows(axis)

    def _without_rows(self, axis: int | None) -> Explanation:
        """Forget what described single rows and, unless the rows were aggregated, the steps."""
        labels = self._s._objects.get("step_labels")
        shared = axis == 0 and labels is not None and labels.dim == [0]
        steps = () if shared else ("step_labels",) if axis == 0 else ("step_labels", "steps")
        self._forget("row_ids", "targets", "valid_steps", "outputs", "gap", "display_data", *steps)
        return self

    # ------------------------------------------------------------------ axes
    def _find_outputs(self) -> tuple[int, ...]:
        """Axes of the output: those that the data do not have, or else those of the base values but the rows."""
        axes = np.ndim(self.values)
        if self.data is not None:
            return tuple(range(np.ndim(self.data), axes))
        return tuple(axis for axis in self._s._objects["base_values"].dim if axis)

    def _steps_axis(self, what: str) -> int:
        if self._inputs - self._rows != 2:
            raise InputError(
                f"{what}() is for sequences, values of shape (rows, steps, features[, outputs]); here the input has shape "
                f"{self.values.shape[: self._inputs]}. If each value belongs to a step or a feature of its own, there is "
                "nothing to sum; other axes can be summed in explanation.values."
            )
        return self._rows

    def _step_names(self) -> list[str]:
        labels, positions = self.step_labels, self._tracked("steps")
        if np.ndim(labels) == 1 and self._s._objects["step_labels"].dim == [self._rows]:
            return list(map(str, as_texts(labels)))
        return [f"Step {i}" for i in (positions if np.ndim(positions) else range(self.values.shape[self._rows]))]

    def _summed(self, axis: int, data: Summary) -> Explanation:
        summed = self[(*(slice(None),) * axis, 0)]
        summed.values = self.values.sum(axis, dtype=np.float64)
        shape = summed.values.shape[: summed._inputs]
        display = None
        if callable(data):
            data, display = (self._summary(data, source, axis) for source in (self.data, self.display_data))
        elif data is not None and np.shape(data) != shape:
            raise InputError(f"data has shape {np.shape(data)}; the explained rows have shape {shape}.")
        summed._track(data=Obj(data if data is None else np.asarray(data)))
        summed.display_data = display
        return summed

    def _summary(self, function: Callable[..., Any], source: Any, axis: int) -> Any:
        """What a function makes of the data along an axis; along the steps, of those that are no padding."""
        if source is None or np.asarray(source).dtype.kind not in "fiub":
            return None
        valid = self._valid if axis == self._steps_at else None
        if valid is None:
            return function(source, axis=axis)
        rows = zip(source, valid, strict=True) if self._rows else [(source, valid)]
        found = [function(row[mask], axis=0) if mask.any() else np.full(row.shape[1:], np.nan) for row, mask in rows]
        return np.stack(found) if self._rows else found[0]


def _shared(name: str) -> Any:
    """Make a property that is the same for all inputs."""

    def get(joint: JointExplanation) -> Any:
        return getattr(joint[joint._keys[0]], name)

    def set_(joint: JointExplanation, value: Any) -> None:
        joint._each(lambda part: setattr(part, name, value))

    own = getattr(Fields, name)
    settable = not isinstance(own, property) or own.fset is not None
    return property(get, set_ if settable else None, doc=own.__doc__)


class JointExplanation(Explanation):
    """The explanation of a model with several inputs: one ``Explanation`` for each of them.

    ``explanation[0]`` (or ``explanation["name"]``, for inputs by keyword) is the ``Explanation`` of one input, for
    slices, sums and plots. ``values`` and ``data`` are lists (dicts) over the inputs; the values of all inputs together
    sum to the model's output minus ``base_values``. Everything else raises an InputError that says so.

    Parameters
    ----------
    parts : list or dict of Explanation
        One for each input.
    """

    row_ids = _shared("row_ids")
    targets = _shared("targets")
    outputs = _shared("outputs")
    gap = _shared("gap")
    background = _shared("background")
    model = _shared("model")

    def __init__(self, parts: list[Explanation] | dict[str, Explanation]) -> None:
        self.parts = parts
        self.compute_time = self[self._keys[0]].compute_time

    def output(self, key: int | str | tuple[int | str, ...]) -> JointExplanation:
        """Pick one output, by its index or name, for every input; see ``Explanation.output``."""
        return JointExplanation(self._each(lambda part: part.output(key)))

    @property
    def values(self) -> Any:
        """Attributions to each input."""
        return self._each(lambda part: part.values)

    @property
    def data(self) -> Any:
        """Each input."""
        return self._each(lambda part: part.data)

    @property
    def base_values(self) -> Any:
        """Mean output over the background, (rows, outputs)."""
        return self[self._keys[0]].base_values

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, (int, str)) and item in self._keys:
            return self.parts[item]  # type: ignore[index]
        raise InputError(f"choose one of the inputs {self._keys} first: explanation[{self._keys[0]!r}][...].")

    def to_dataframe(self, outputs: int | str | Sequence[int | str] | None = None) -> pd.DataFrame:
        """As ``Explanation.to_dataframe``, of all inputs: their index or name is in the first column, ``input_name``."""
        return long_form.joined((key, part.to_dataframe(outputs)) for key, part in self.items())

    def to_xarray(self) -> Any:
        """As ``Explanation.to_xarray``, a list (dict) of datasets."""
        return self._each(Explanation.to_xarray)

    def items(self) -> list[tuple[Any, Explanation]]:
        """Pairs of an input's index or name and its explanation."""
        return [(key, self.parts[key]) for key in self._keys]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __copy__(self) -> JointExplanation:
        return JointExplanation(self._each(copy.copy))

    @property
    def _keys(self) -> list[Any]:
        return list(self.parts) if isinstance(self.parts, dict) else list(range(len(self.parts)))

    def _each(self, function: Callable[[Explanation], Any]) -> Any:
        if isinstance(self.parts, dict):
            return {key: function(part) for key, part in self.parts.items()}
        return [function(part) for part in self.parts]

    def __getattr__(self, name: str) -> Any:
        if name not in ("_s", "op_history"):  # what everything else reads
            raise AttributeError(name)
        raise InputError(
            f"this explanation is of {len(self.parts)} inputs, whose shapes differ: choose one, explanation[{self._keys[0]!r}], "
            "or put their features side by side: explanation[...].hstack(explanation[...])."
        )


# ---------------------------------------------------------------------- helpers
def _output_index(key: int | str, size: int, names: list[str]) -> int:
    if isinstance(key, str) and key in names:
        return names.index(key)
    if isinstance(key, (int, np.integer)) and -size <= key < size:
        return int(key) % size
    raise InputError(f"there is no output {key!r} among {size} outputs" + (f" named {names}." if names else "."))


def _without_ellipsis(item: Any, axes: int) -> tuple[Any, ...]:
    """Write an ellipsis out; shap miscounts the axes behind it when it resolves a name there."""
    items = item if isinstance(item, tuple) else (item,)
    at = next((position for position, i in enumerate(items) if i is Ellipsis), None)
    if at is None:
        return items
    return (*items[:at], *[slice(None)] * (axes - len(items) + 1), *items[at + 1 :])


def check_count(what: str, names: Sequence[str], size: int, distinct: bool = True) -> None:
    """Raise unless there are as many names as the axis is long, no two of them alike if they must be distinct."""
    check_names(what, names, distinct)
    if isinstance(names, Mapping) or len(names) != size:
        raise InputError(f"{what} holds {len(names)} names for an axis of {size}.")


def numbered(kind: str, count: int) -> list[str]:
    """Return names that count."""
    return [f"{kind} {i}" for i in range(count)]


def _names_for(names: Any, size: int) -> bool:
    return not isinstance(names, str) and np.ndim(names) == 1 and len(names) == size


def _beside(one: Any, two: Any, axis: int) -> Any:
    """Concatenate two arrays or lists of names; None if either is missing."""
    if one is None or two is None:
        return None
    return [*one, *two] if isinstance(one, list) else np.concatenate([one, two], axis)
