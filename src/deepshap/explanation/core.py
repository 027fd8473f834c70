"""Attributions with names: ``shap.Explanation`` with sums over time and features, and slices that keep all fields.

shap stores arrays that run parallel to ``values`` and slices them together. The sums here are taken in float64 and drop what
belonged to the summed axis; standard errors follow by ``uncertainty.Errors``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import shap
from slicer import Alias, Obj

from ..errors import InputError, check_count, check_names, check_number, check_types, is_whole
from ..explanation.labels import as_array, as_texts, names_for, numbered
from ._compat import tracked_arrays, tracked_objects
from .fields import Fields

if TYPE_CHECKING:
    from typing_extensions import Self

Summary = Callable[..., Any] | np.ndarray | Sequence[Any] | None

OF_INSTANCES = ("op_history", "compute_time", "output_dims", "parts")  # attributes that no class declares
REDUCTIONS = ("sum", "mean", "max", "min")  # of shap, which take an axis away
LINEAR = ("sum", "mean")
OF_ROWS = ("row_ids", "targets", "predictions", "valid_steps", "converged", "display_data", "forecast_times")
OF_STEPS = ("steps", "step_labels", "lags", "valid_steps")


class Attributions(Fields, shap.Explanation):
    """What an explanation is without what is made of it: arrays that are sliced, named and summed together."""

    _unchecked = False  # while shap assigns arrays

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.feature_names = self.feature_names  # shap takes them for those of the first axis behind the rows
        if self._inputs - self._rows == 2:
            self._count_steps(self._rows)

    def over_time(self, data: Summary = np.mean) -> Self:
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
        summed = self._sum_axis(axis, data)
        summed._forget("step_labels", "valid_steps", "lags")
        summed.feature_names = numbered("Feature", summed.values.shape[axis]) if names is None else names
        return summed

    def over_features(self, data: Summary = None, step_names: Sequence[str] | None = None) -> Self:
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
        summed = self._sum_axis(axis + 1, np.max if alone else data)
        summed.feature_names = names
        return summed

    def output(self, key: int | str | tuple[int | str, ...]) -> Self:
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
        *first, last = zip(keys, shape, strict=True)
        index = (*(_output_index(*k, names=[]) for k in first), _output_index(*last, self._output_list))
        picked = self[(..., *index)]
        if np.ndim(self.output_names) < 2:  # else each row has an output of its own, and ``explained`` says which
            name = self._output_list[index[-1]] if self._output_list else f"output {index[-1]}"
            picked.explained = ", ".join(map(str, (*index[:-1], name)))
        return picked

    def some_outputs(self, keys: int | str | Sequence[int | str]) -> Self:
        """Pick outputs by their indexes or names, and keep their axis.

        Raises
        ------
        InputError
            If there are no such outputs, or not exactly one axis of them.
        """
        if len(self.output_dims) != 1:
            raise InputError("outputs= needs exactly one axis of outputs; pick with .output(...) first.")
        keys = list(keys) if np.iterable(keys) and not isinstance(keys, str) else [keys]
        return self[(..., [_output_index(key, self.values.shape[-1], self._output_list) for key in keys])]

    def items(self) -> list[tuple[Any, Attributions]]:
        """Return pairs of an input's index or name and its attributions; a single input has the name None."""
        return [(None, self)]

    def _each(self, function: Callable[[Any], Any]) -> Any:
        return function(self)

    def hstack(self, other: shap.Explanation) -> Self:
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
        check_types("what is put beside an explanation", other, shap.Explanation, "an explanation")
        axis = self._inputs - 1
        if axis < self._rows:
            raise InputError(f"hstack puts features side by side, and values of shape {self.values.shape} have none.")
        mine, others = list(self.values.shape), list(other.values.shape)
        if mine[:axis] + mine[axis + 1 :] != others[:axis] + others[axis + 1 :]:
            raise InputError(f"hstack needs equal shapes but for axis {axis}, not {tuple(mine)} and {tuple(others)}.")
        bases = self.base_values, other.base_values
        if (bases[0] is None) != (bases[1] is None) or (bases[0] is not None and not np.allclose(*bases, atol=1e-6)):
            raise InputError("hstack needs the same base values: those of one explanation, one model, one background.")
        both = copy.copy(self)
        both._forget("steps", "step_labels", "valid_steps", "lags", "display_data", *self._error_names)
        both._track(feature_names=Obj(None))
        both.values = np.concatenate([self.values, other.values], axis)
        both._track(data=Obj(_append_arrays(self.data, other.data, axis)))
        if isinstance(other, Attributions):
            both.standard_errors = _append_arrays(self.standard_errors, other.standard_errors, axis)
            if both.standard_errors is not None and len(self._replicates) == len(other._replicates):
                both.replicates = [
                    _append_arrays(*pair, axis) for pair in zip(self._replicates, other._replicates, strict=True)
                ]
        both.feature_names = _append_arrays(self.feature_names, other.feature_names, 0)
        return both

    # ------------------------------------------------------------------ what may be assigned
    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute that there is."""
        if not (name.startswith("_") or name in OF_INSTANCES or name in self.__dict__ or hasattr(type(self), name)):
            near = get_close_matches(
                name, [attribute for attribute in dir(type(self)) if not attribute.startswith("_")], 1
            )
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"an explanation has no attribute {name!r}{hint}")
        super().__setattr__(name, value)

    def _by_shap(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of shap, which assigns arrays of a copy one after the other: they fit together in the end."""
        self._unchecked = True
        try:
            result = method(*args, **kwargs)
        finally:
            self._unchecked = False
        if isinstance(result, Attributions):
            result._unchecked = False
        return result

    @property
    def base_values(self) -> Any:
        """Mean output over the background, (rows, outputs), or (outputs,) of a single row."""
        return self._s.base_values

    @base_values.setter
    def base_values(self, values: Any) -> None:
        if self._unchecked:
            self._s.base_values = values
            return
        tracked, array = tracked_objects(self._s)["base_values"], np.asarray(values)
        shape = tuple(self.values.shape[axis] for axis in (*range(self._rows), *self.output_dims))
        if tracked.o is not None and array.shape != np.shape(tracked.o):
            raise InputError(f"base_values has shape {array.shape}; here it must be {np.shape(tracked.o)}.")
        if tracked.o is None and values is not None and array.shape != shape:
            raise InputError(f"base_values has shape {array.shape}; here it must be {shape}.")
        dims = list(tracked.dim) if tracked.o is not None else [*range(self._rows), *self.output_dims]
        self._track(base_values=Obj(None) if values is None else Obj(values, dims))

    @property
    def data(self) -> Any:
        """The explained inputs, of the shape of ``values`` without the axes of the outputs."""
        return self._s.data

    @data.setter
    def data(self, values: Any) -> None:
        if self._unchecked:
            self._s.data = values
            return
        if values is None:
            self._track(data=Obj(None))
            return
        shape = self.values.shape[: self._inputs]
        if np.shape(values) != shape:
            raise InputError(f"data has shape {np.shape(values)}; here it must be {shape}.")
        self._track(data=Obj(values, list(range(self._inputs))))

    # ------------------------------------------------------------------ names, on the axis they belong to
    @property
    def feature_names(self) -> Any:
        """Names for the last axis of the input."""
        return self._s.feature_names

    @feature_names.setter
    def feature_names(self, names: Any) -> None:
        if names is None:
            self._track(feature_names=Obj(None))
            return
        if self._inputs > self._rows and not self._unchecked:
            _check_size("feature_names", names, "features", self.values.shape[self._inputs - 1])
        if self._inputs > self._rows and names_for(names, self.values.shape[self._inputs - 1]):
            self._track(feature_names=Alias(list(names), self._inputs - 1))
        else:
            self._assign("feature_names", names)

    @property
    def output_names(self) -> Any:
        """Names for the last axis of the output."""
        return self._s.output_names

    @output_names.setter
    def output_names(self, names: Any) -> None:
        if names is None:
            self._track(output_names=Obj(None))
            return
        if self.output_dims and not self._unchecked:
            _check_size("output_names", names, "outputs", self.values.shape[-1])
        if self.output_dims and names_for(names, self.values.shape[-1]):
            self._track(output_names=Alias(list(names), self.output_dims[-1]))
        elif self.output_dims and np.shape(names) == (len(self.values), self.values.shape[-1]):  # each row has its own
            self._track(output_names=Obj(np.asarray(names), [0, self.output_dims[-1]]))
        elif isinstance(names, str):
            self._track(output_names=Obj(names))
        else:
            self._assign("output_names", names)

    # ------------------------------------------------------------------ copies and slices
    def __copy__(self) -> Self:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__, op_history=list(self.op_history))
        twin._copy_arrays()
        return twin

    def __getitem__(self, item: Any) -> Any:
        items = _expand_ellipsis(item, np.ndim(self.values))
        if self._rows and _takes_none(items[0], len(self.values)):  # slicer would lose the other axes
            one_row = self._of_rows(lambda array: np.zeros((1, *array.shape[1:]), array.dtype))
            part = one_row[(slice(None), *items[1:])]._of_rows(lambda array: array[:0])
        else:
            part = self._by_shap(super().__getitem__, items)
        if isinstance(part, Attributions):
            part.output_dims = part._find_outputs()
            part._has_rows = bool(self._rows) and not (is_whole(items[0]) or isinstance(items[0], str))
            if self._rows and self.compute_time is not None:  # that of its rows
                part.compute_time = (
                    self.compute_time * (len(part.values) if part._rows else 1) / max(len(self.values), 1)
                )
        return part

    def _of_rows(self, function: Callable[[np.ndarray], np.ndarray]) -> Self:
        """Return a copy with ``function`` applied to all arrays that have rows, which are their first axis."""
        result, arrays = copy.copy(self), tracked_arrays(self._s)
        with_rows = {name: tracked for name, tracked in arrays.items() if tracked.o is not None and 0 in tracked.dim}
        result._track(
            **{
                name: type(tracked)(function(np.asarray(tracked.o)), list(tracked.dim))
                for name, tracked in with_rows.items()
            }
        )
        return result

    # ------------------------------------------------------------------ shap's arithmetic
    def _apply_binary_operator(self, *args: Any) -> Self:
        return self._forget_outputs(self._by_shap(super()._apply_binary_operator, *args))

    def _numpy_func(self, fname: str, **kwargs: Any) -> Self:
        if fname in REDUCTIONS and not self._joins_names(kwargs["axis"]):
            return self._aggregate(fname, getattr(np, fname), kwargs["axis"])
        result: Self = self._forget_outputs(self._by_shap(super()._numpy_func, fname, **kwargs))
        if fname != "abs":
            result._forget(*OF_ROWS, "step_labels", "lags", *(() if kwargs.get("axis") == 0 else ("steps",)))
        return result

    def percentile(self, q: float, axis: int | None = None) -> Self:
        """Return a percentile along an axis, as shap's method does."""
        check_number("q", q, 0, 100)
        if self._joins_names(axis):
            return self._forget_outputs(self._by_shap(super().percentile, q, axis))
        return self._aggregate("percentile", lambda array, axis: np.percentile(array, q, axis), axis)

    def _aggregate(self, name: str, function: Callable[..., Any], axis: int | None) -> Self:
        """Aggregate an axis, or all: drop what belonged to its positions, and keep the base values as far as they hold."""
        axes = self._inputs + len(self.output_dims)
        if axis is not None and not (is_whole(axis) and -axes <= axis < axes):
            raise InputError(f"axis must be one of values of shape {self.values.shape}, not {axis!r}.")
        if not self.values.size or not axes:
            raise InputError(f"there is nothing to take the {name} of: values have shape {self.values.shape}.")
        axis = axis if axis is None else axis % axes
        objects = tracked_arrays(self._s)
        gone = [key for key, tracked in objects.items() if axis is None or axis in tracked.dim]
        gone += OF_STEPS if axis in (None, self._steps_at) else ()
        base, dims = self.base_values, objects["base_values"].dim
        if axis is not None and axis in dims and (axis == 0 or name in LINEAR):
            base = function(base, axis=dims.index(axis))
        elif axis is None or axis in dims or name != "sum":
            base, dims = None, []  # of a sum over inputs it is what it was
        left = self[(slice(None),) * axis + (0,) if axis is not None else (0,) * axes]
        left.op_history[-1] = replace(
            left.op_history[-1], name=name, args=(), kwargs={"axis": axis}, collapsed_instances=axis == 0
        )
        left.values = function(self.values, axis=axis)
        left._forget_outputs(left)._track(
            **{key: Obj(None) for key in gone if key not in ("values", "data", "base_values")}
        )
        left._track(base_values=Obj(base, _remaining_axes(axis, dims)), data=Obj(self._aggregate_data(function, axis)))
        left.output_dims = tuple(_remaining_axes(axis, self.output_dims))
        left.compute_time = self.compute_time
        return left

    def _aggregate_data(self, function: Callable[..., Any], axis: int | None) -> Any:
        """Return the data aggregated along an axis; None if the function does not apply to the data."""
        if axis is not None and axis >= self._inputs:
            return self.data
        try:
            return None if self.data is None else function(np.asarray(self.data), axis=axis)
        except (TypeError, ValueError):
            return None

    def _joins_names(self, axis: Any) -> bool:
        """Return whether rows are aggregated whose features differ, as texts in shap, which joins them by name."""
        names = self.feature_names
        if not is_whole(axis) or axis != 0:
            return False
        return isinstance(names, (list, np.ndarray)) and len(names) > 0 and isinstance(names[0], (list, np.ndarray))

    @staticmethod
    def _forget_outputs(result: Any) -> Any:
        """Forget the fields that do not hold for other values."""
        result._forget("outputs", "gap", *result._error_names)
        return result

    # ------------------------------------------------------------------ axes
    def _find_outputs(self) -> tuple[int, ...]:
        """Return the axes of the output: those that the data lack, or else those of the base values without the rows."""
        axes = np.ndim(self.values)
        if self.data is not None:
            return tuple(range(np.ndim(self.data), axes))
        return tuple(axis for axis in tracked_objects(self._s)["base_values"].dim if axis)

    @property
    def _output_list(self) -> Sequence[str]:
        """Names of the outputs, if they are the same for all rows and there is more than one."""
        return self.output_names if isinstance(self.output_names, (list, tuple)) else []

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
        if np.ndim(labels) == 1 and tracked_objects(self._s)["step_labels"].dim == [self._rows]:
            return list(map(str, as_texts(labels)))
        return [f"Step {i}" for i in (positions if np.ndim(positions) else range(self.values.shape[self._rows]))]

    def _sum_axis(self, axis: int, data: Summary) -> Self:
        summed = self[(*(slice(None),) * axis, 0)]
        summed.values = self.values.sum(axis, dtype=np.float64)
        if self._errors is not None:
            errors = self._errors.of(lambda array: array.sum(axis))
            summed.replicates, summed.standard_errors = errors.replicates, errors.errors
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
        """Return the data summarised along an axis; along the steps without padding."""
        if source is None or np.asarray(source).dtype.kind not in "fiub":
            return None
        valid = self._valid if axis == self._steps_at else None
        if valid is None or not valid.size:
            return function(source, axis=axis)
        rows = zip(source, valid, strict=True) if self._rows else [(source, valid)]
        summaries = [
            function(row[mask], axis=0) if mask.any() else np.full(row.shape[1:], np.nan) for row, mask in rows
        ]
        return np.stack(summaries) if self._rows else summaries[0]


# ---------------------------------------------------------------------- helpers
def _check_size(what: str, names: Any, of: str, size: int) -> None:
    """Raise if a list of texts has not one for each place of an axis."""
    array = as_array(names, what)
    if array.ndim == 1 and array.dtype.kind in "US" and len(array) != size:
        raise InputError(f"{what} holds {len(array)} names for {size} {of}.")


def _remaining_axes(axis: int | None, dims: Sequence[int]) -> list[int]:
    """Return the numbers of axes after one of them, or all, were removed."""
    return [] if axis is None else [dim - (dim > axis) for dim in dims if dim != axis]


def _output_index(key: int | str, size: int, names: Sequence[str]) -> int:
    if isinstance(key, str) and key in names:
        return list(names).index(key)
    if isinstance(key, (int, np.integer)) and -size <= key < size:
        return int(key) % size
    raise InputError(f"there is no output {key!r} among {size} outputs" + (f" named {names}." if names else "."))


def _takes_none(item: Any, rows: int) -> bool:
    """Return whether an item selects nothing from an axis, or the axis has no entries."""
    if isinstance(item, slice):
        return not range(*item.indices(rows))
    array = np.asarray(item) if isinstance(item, (list, np.ndarray)) else np.ones(1)
    return not (array.any() if array.dtype == bool else array.size)


def _expand_ellipsis(item: Any, axes: int) -> tuple[Any, ...]:
    """Write an ellipsis out; shap miscounts the axes behind it when it resolves a name there."""
    items = item if isinstance(item, tuple) else (item,)
    at = next((position for position, i in enumerate(items) if i is Ellipsis), None)
    if at is None:
        return items
    return (*items[:at], *[slice(None)] * (axes - len(items) + 1), *items[at + 1 :])


def _append_arrays(first: Any, second: Any, axis: int) -> Any:
    """Concatenate two arrays or lists of names; None if either is missing."""
    if first is None or second is None:
        return None
    return [*first, *second] if isinstance(first, list) else np.concatenate([first, second], axis)
