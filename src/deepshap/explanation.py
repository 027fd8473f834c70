"""What ``DeepExplainer.__call__`` returns: shap's Explanation, with sums over time and over features."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import shap
from slicer import Alias, Obj, Slicer

from .errors import InputError

Summary = Callable[..., Any] | np.ndarray | Sequence[Any] | None


class Explanation(shap.Explanation):
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
    the input (``feature_names``) and of the output (``output_names``).
    """

    _s: Any  # shap's parallel arrays: values, data, base values, names

    def over_time(self, data: Summary = np.mean) -> Explanation:
        """Sum the attributions over the steps: what each feature contributed over the whole sequence.

        The sums are taken, and returned, in float64; no contribution is lost.

        Parameters
        ----------
        data : callable, array or None
            What plots show as the value of a feature: a function of the data, called with ``axis=`` the steps (by
            default their mean; padded steps count), an array (rows, features), or None for nothing.

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
        summed.feature_names = _numbered("Feature", summed.values.shape[axis]) if names is None else names
        return summed

    def over_features(self, data: Summary = np.mean, step_names: Sequence[str] | None = None) -> Explanation:
        """Sum the attributions over the features: what each step contributed.

        The sums are taken, and returned, in float64; no contribution is lost.

        Parameters
        ----------
        data : callable, array or None
            What plots show as the value of a step: a function of the data, called with ``axis=`` the features (by
            default their mean), an array (rows, steps), such as the words of texts, or None for nothing.
        step_names : sequence of str, optional
            Labels of the steps, by default "Step 0", "Step 1", ...: they become the ``feature_names``.

        Returns
        -------
        Explanation
            ``values`` (rows, steps[, outputs]); (steps[, outputs]) for a single row.

        Raises
        ------
        InputError
            If this is not the explanation of sequences (rows, steps, features[, outputs]), or if there are not as many
            names as steps.
        """
        axis = self._steps_axis("over_features")
        steps = self.values.shape[axis]
        names = _numbered("Step", steps) if step_names is None else list(step_names)
        _check_count("step_names", names, steps)
        summed = self._summed(axis + 1, data)
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
        both._track(feature_names=Obj(None), display_data=Obj(None))
        both.values = np.concatenate([self.values, other.values], axis)
        both._track(data=Obj(_beside(self.data, other.data, axis)))
        both.feature_names = _beside(self.feature_names, other.feature_names, 0)
        return both

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

    def _track(self, **replaced: Alias | Obj) -> None:
        """Replace some of the parallel arrays, each with the axes of ``values`` that it follows."""
        self._s = Slicer.from_slicer(**{**dict(self._s._iter_tracked(include_aliases=True)), **replaced})

    # ------------------------------------------------------------------ axes
    @property
    def _inputs(self) -> int:
        """Number of axes before those of the output."""
        return np.ndim(self._s.values) - len(self.output_dims)

    @property
    def _rows(self) -> int:
        """1 if there is an axis of rows, 0 for the explanation of a single row."""
        return int(self.base_values is None or np.ndim(self.base_values) > len(self.output_dims))

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

    def _summed(self, axis: int, data: Summary) -> Explanation:
        summed = self[(*(slice(None),) * axis, 0)]
        summed.values = self.values.sum(axis, dtype=np.float64)
        shape = summed.values.shape[: summed._inputs]
        if callable(data):
            data = None if self.data is None else data(self.data, axis=axis)
        elif data is not None and np.shape(data) != shape:
            raise InputError(f"data has shape {np.shape(data)}; the explained rows have shape {shape}.")
        summed._track(data=Obj(data if data is None else np.asarray(data)), display_data=Obj(None))
        return summed


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


# ---------------------------------------------------------------------- from the explainer's results
def assemble(
    values: Any,
    data: Any,
    axes: Sequence[int],
    base_values: np.ndarray,
    feature_names: Any = None,
    output_names: Any = None,
    compute_time: float | None = None,
) -> Explanation:
    """Make explanations of what an explainer found.

    Parameters
    ----------
    values, data : array, or list or dict of arrays
        Attributions and explained inputs, as given and returned to the user.
    axes : sequence of int
        Where the rows lie in each input; explanations have them first.
    base_values : array of shape (rows, outputs)
        The outputs' axes may be any number.
    feature_names, output_names : sequence of str, optional
        For the last axes; the feature names of several inputs in a list or dict.
    compute_time : float, optional
        Seconds.

    Returns
    -------
    Explanation
        A JointExplanation for several inputs.

    Raises
    ------
    InputError
        If there are not as many names as there is to name.
    """

    def one(values: Any, data: Any, axis: int, names: Any, kind: str) -> Explanation:
        explanation = Explanation(
            np.moveaxis(values, axis, 0), base_values, np.moveaxis(data, axis, 0), compute_time=compute_time
        )
        _name(explanation, names, output_names, kind)
        return explanation

    if isinstance(values, np.ndarray):
        return one(values, data, axes[0], feature_names, "Feature")
    keys: list[Any] = list(values) if isinstance(values, dict) else list(range(len(values)))
    names = _names_of_inputs(feature_names, keys)
    parts = [
        one(values[key], data[key], axis, named, f"Input {key}, feature" if isinstance(key, int) else f"{key}, feature")
        for key, axis, named in zip(keys, axes, names, strict=True)
    ]
    return JointExplanation(dict(zip(keys, parts, strict=True)) if isinstance(values, dict) else parts)


def _name(explanation: Explanation, features: Any, outputs: Any, kind: str) -> None:
    """Name the last axis of the input (table and sequence inputs by default with numbers) and of the output."""
    shape = explanation.values.shape
    size = shape[explanation._inputs - 1] if explanation._inputs > 1 else 0
    if features is not None:
        _check_count("feature_names", features, size)
        explanation.feature_names = features
    elif explanation._inputs in (2, 3):
        explanation.feature_names = _numbered(kind, size)
    if outputs is not None and not isinstance(outputs, str):
        _check_count("output_names", outputs, shape[-1] if explanation.output_dims else 1)
        outputs = outputs if explanation.output_dims else outputs[0]
    if outputs is not None:
        explanation.output_names = outputs


def _output_index(key: int | str, size: int, names: list[str]) -> int:
    if isinstance(key, str) and key in names:
        return names.index(key)
    if isinstance(key, (int, np.integer)) and -size <= key < size:
        return int(key) % size
    raise InputError(f"there is no output {key!r} among {size} outputs" + (f" named {names}." if names else "."))


def _names_of_inputs(names: Any, keys: Sequence[Any]) -> list[Any]:
    """Names for each input, from a list or dict over the inputs."""
    if names is None:
        return [None] * len(keys)
    if isinstance(names, Mapping) and set(names) <= set(keys):
        return [names.get(key) for key in keys]
    if not isinstance(names, Mapping) and len(names) == len(keys) and not any(isinstance(n, str) for n in names):
        return list(names)
    raise InputError(f"feature_names of several inputs: give a list of names for each of the inputs {list(keys)}.")


def _without_ellipsis(item: Any, axes: int) -> tuple[Any, ...]:
    """Write an ellipsis out; shap miscounts the axes behind it when it resolves a name there."""
    items = item if isinstance(item, tuple) else (item,)
    at = next((position for position, i in enumerate(items) if i is Ellipsis), None)
    if at is None:
        return items
    return (*items[:at], *[slice(None)] * (axes - len(items) + 1), *items[at + 1 :])


def _check_count(what: str, names: Sequence[str], size: int) -> None:
    if isinstance(names, (str, Mapping)) or len(names) != size:
        raise InputError(f"{what} holds {1 if isinstance(names, str) else len(names)} names for an axis of {size}.")


def _numbered(kind: str, count: int) -> list[str]:
    return [f"{kind} {i}" for i in range(count)]


def _names_for(names: Any, size: int) -> bool:
    return not isinstance(names, str) and np.ndim(names) == 1 and len(names) == size


def _beside(one: Any, two: Any, axis: int) -> Any:
    """Concatenate two arrays or lists of names; None if either is missing."""
    if one is None or two is None:
        return None
    return [*one, *two] if isinstance(one, list) else np.concatenate([one, two], axis)
