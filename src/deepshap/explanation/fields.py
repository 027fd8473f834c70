"""Fields of an explanation beside values, data and names: ids, labels, lengths, targets, outputs, gap, standard errors.

A field of arrays declares the axes of ``values`` that it runs along; its setter checks the shape. Facts that hold for the whole
explanation (``FACTS``) are plain attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from slicer import Alias, Obj, Slicer

from ..errors import InputError
from ..explanation.labels import as_array, as_labels, to_python_texts
from ..formulas.additivity import zero_and_redistribute
from ._compat import tracked_arrays, tracked_labels, tracked_objects
from .forecasts import Forecasts
from .uncertainty import Errors, noise

# What is known of an explanation as a whole; all but the last three are the same in explanations that can be put together.
FACTS = (
    "background",
    "model",
    "players",
    "explained",
    "classes",
    "time_label",
    "method",
    "reliability",
    "compute_time",
)

ROUNDINGS = 64  # units of it that outputs may be off by, as in additivity_gap


class Fields(Forecasts):
    """The fields of an ``Explanation`` that describe its rows and steps; all of them may be None (not known).

    Arrays run beside ``values`` along the axes named here, are sliced with it, and may be assigned as any sequence.
    """

    background: dict[str, Any] | None = None  # describes the background, such as {"rows": 100, "description": "..."}
    model: str | None = None  # name of the model
    method: str | None = None  # what was done, in words
    reliability: str | None = None  # how far Deep SHAP can be trusted, in words
    explained: str | None = None  # which output the values are of, in words, where one was picked: "predicted"
    classes: list[str] | None = None  # names of all outputs of the model, in the order of ``predictions``
    time_label: str | None = None  # name and unit of the axis of steps
    _has_rows: bool = True  # where there are no base values, which tell
    players: str | None = None  # what a value belongs to, such as "steps", where it is not a cell of the input
    _s: Any  # shap's parallel arrays
    values: Any
    base_values: Any
    output_dims: tuple[int, ...]

    # ------------------------------------------------------------------ rows
    @property
    def row_ids(self) -> Any:
        """Ids of the rows, (rows,); texts are str of Python in an array that is read only."""
        return to_python_texts(self._tracked("row_ids"))

    @row_ids.setter
    def row_ids(self, ids: Any) -> None:
        self._set("row_ids", as_labels(ids, "row_ids"), range(self._rows))

    @property
    def targets(self) -> Any:
        """True class (index or name) or true value of each row, (rows,); of each output where they are (rows, outputs)."""
        return self._tracked("targets")

    @targets.setter
    def targets(self, targets: Any) -> None:
        targets = as_labels(targets, "targets")
        of_outputs = targets is not None and targets.ndim > self._rows
        self._set("targets", targets, (*range(self._rows), *(self.output_dims if of_outputs else ())))

    @property
    def outputs(self) -> Any:
        """The model's outputs, (rows[, outputs]); read only."""
        return self._tracked("outputs")

    @property
    def predictions(self) -> Any:
        """All outputs of the model for each row, (rows, outputs of the model), whichever of them are explained."""
        return self._tracked("predictions")

    @predictions.setter
    def predictions(self, outputs: Any) -> None:
        if outputs is None:
            self._track(predictions=Obj(None))
            return
        array = as_array(outputs, "predictions")
        rows = self.values.shape[: self._rows]
        _check_shape("predictions", array, (*rows, *array.shape[self._rows :][-1:]))
        self._track(predictions=Obj(array, list(range(self._rows))))

    @property
    def gap(self) -> Any:
        """How far the attributions miss output minus base value, relative to the outputs' scale, (rows[, outputs]).

        Of the explanation as a whole, all inputs and steps together; read only.
        """
        return self._tracked("gap")

    @property
    def converged(self) -> Any:
        """Whether the wanted accuracy was reached, (rows,) bool."""
        return self._tracked("converged")

    @converged.setter
    def converged(self, reached: Any) -> None:
        reached = None if reached is None else as_array(reached, "converged")
        if reached is not None and reached.dtype != bool:
            raise InputError(f"converged must be True or False for each row, not {reached.dtype}.")
        self._set("converged", reached, range(self._rows))

    # ------------------------------------------------------------------ accuracy
    @property
    def standard_errors(self) -> Any:
        """Standard errors of the values, of their shape; 0 where a value is exact."""
        return self._tracked("standard_errors")

    @standard_errors.setter
    def standard_errors(self, errors: Any) -> None:
        errors = None if errors is None else as_array(errors, "standard_errors")
        if errors is not None and (errors.dtype.kind != "f" or not (np.isfinite(errors) & (errors >= 0)).all()):
            raise InputError("standard_errors must be finite numbers that are not negative.")
        self._set("standard_errors", errors, range(np.ndim(self.values)))

    @property
    def replicates(self) -> Any:
        """Independent estimates of all values, (replicates, *values.shape), whose spread is the noise of any sum of them.

        Assigned where there are no ``standard_errors``, they set these: standard deviation / sqrt(replicates).
        """
        estimates = self._replicates
        return np.stack(estimates) if estimates else None

    @replicates.setter
    def replicates(self, estimates: Any) -> None:
        if estimates is not None and not isinstance(estimates, Iterable):
            raise InputError(f"replicates must be a list of estimates, not {estimates!r}.")
        estimates = [] if estimates is None else [as_array(estimate, "replicates") for estimate in estimates]
        if len(estimates) == 1:
            raise InputError("replicates: one alone has no spread; give two or more, or None.")
        self._forget(*self._error_names[1:])
        for i, estimate in enumerate(estimates):
            self._set(f"replicate_{i}", estimate, range(np.ndim(self.values)))
        if estimates and self.standard_errors is None:
            self.standard_errors = noise(estimates)

    @property
    def _errors(self) -> Errors | None:
        """The standard errors with what tells of their sums, if they are known."""
        return None if self.standard_errors is None else Errors(self.standard_errors, self._replicates)

    @property
    def _replicates(self) -> list[Any]:
        return [self._tracked(name) for name in self._error_names[1:]]

    @property
    def _error_names(self) -> list[str]:
        """The parallel arrays that tell how exact the values are."""
        names = [
            name
            for name, tracked in tracked_objects(self._s).items()
            if name.startswith("replicate_") and tracked.o is not None
        ]
        return ["standard_errors", *sorted(names, key=lambda name: int(name.removeprefix("replicate_")))]

    # ------------------------------------------------------------------ steps
    @property
    def step_labels(self) -> Any:
        """Labels or time stamps of the steps, (steps,) or (rows, steps): str, numbers or datetime64."""
        return self._tracked("step_labels")

    @step_labels.setter
    def step_labels(self, labels: Any) -> None:
        labels = as_labels(labels, "step_labels")
        if labels is not None:
            axis = self._axis_of_steps()
            self._set("step_labels", labels, (axis,) if labels.ndim < 2 else (*range(self._rows), axis))
        else:
            self._track(step_labels=Obj(None))

    @property
    def lengths(self) -> Any:
        """Number of valid steps of each row, (rows,) int; what follows is padding.

        The attribution of padding is 0, except in texts (token ids or words), where references may be longer than the row.
        """
        valid = self._valid
        if valid is None:
            return None
        lengths = valid.sum(-1)
        prefix = np.arange(valid.shape[-1]) < lengths[..., None]
        return lengths if np.array_equal(valid, prefix) else None  # steps were taken in another order

    @lengths.setter
    def lengths(self, lengths: Any) -> None:
        shown = self._tracked("data") if self.display_data is None else self.display_data
        is_text = self._inputs - self._rows == 1 and shown is not None and np.asarray(shown).dtype.kind in "iuOUS"
        self._set_lengths(lengths, longer_references=is_text)

    def _set_lengths(self, lengths: Any, *, longer_references: bool = False) -> None:
        """Set the lengths; longer references may give padding an attribution, which otherwise is an error."""
        if lengths is None:
            self._track(valid_steps=Obj(None))
            return
        axis, counts = self._axis_of_steps(), as_array(lengths, "lengths")
        if counts.dtype.kind not in "iu" or (counts.size and not 0 <= counts.min() <= counts.max() <= self._steps):
            raise InputError(f"lengths must be whole numbers from 0 to {self._steps}, the number of steps.")
        _check_shape("lengths", counts, self.values.shape[: self._rows])
        self._clear(np.arange(self._steps) >= counts[..., None], axis, longer_references)
        positions = np.concatenate([[0], self._s.steps + 1])
        self._track(valid_steps=Obj(positions[counts], list(range(self._rows))))

    def _clear(self, padded: np.ndarray, axis: int, longer_references: bool) -> None:
        """Take out of padded steps, (rows, steps), what rounding of outputs put there.

        More than that remains where references may be longer than the row, and is an error elsewhere.
        """
        behind = padded.reshape(
            [size if i < self._rows or i == axis else 1 for i, size in enumerate(self.values.shape)]
        )
        axes = tuple(range(self._rows, self._inputs))
        attributions = np.abs(np.where(behind, self.values, 0))
        if not attributions.any():
            return
        if self.standard_errors is None or (attributions.sum(axes, keepdims=True) > self._rounding(axes)).any():
            if longer_references:
                return
            raise InputError(
                f"steps behind the lengths have attributions, up to {attributions.max():.3g}: the model reads its "
                "padding, or references are longer than the row. Pass the model the lengths (additional_forward_args), "
                "or leave them out here: every step counts then."
            )
        for name in ("values", *self._error_names):
            tracked = tracked_objects(self._s)[name]
            self._track(**{name: Obj(zero_and_redistribute(np.asarray(tracked.o), behind, axes), list(tracked.dim))})

    def _rounding(self, axes: tuple[int, ...]) -> np.ndarray:
        """Return the rounding error of a row's outputs as it appears in values estimated from differences of outputs."""
        base = 0 if self.base_values is None else np.expand_dims(np.abs(self.base_values), axes)
        eps: float = np.finfo(np.result_type(self.values, np.float32)).eps
        return ROUNDINGS * eps * (base + np.abs(self.values).sum(axes, keepdims=True))

    # ------------------------------------------------------------------ inputs
    @property
    def display_data(self) -> Any:
        """The inputs as people know them (before scaling; words for token ids), of the shape of ``data``."""
        return self._tracked("display_data")

    @display_data.setter
    def display_data(self, data: Any) -> None:
        if data is not None:
            data = data.to_numpy() if hasattr(data, "to_numpy") else as_array(data, "display_data")
        self._set("display_data", data, range(self._inputs))

    # ------------------------------------------------------------------ where arrays belong
    def _tracked(self, name: str) -> Any:
        """Return one of the parallel arrays, or None."""
        tracked = tracked_objects(self._s).get(name)
        return None if tracked is None else tracked.o

    def _track(self, **replaced: Alias | Obj) -> None:
        """Replace some of the parallel arrays, each with the axes of ``values`` that it follows."""
        if any(name in tracked_labels(self._s) for name in replaced):  # slicer would look names up that are gone
            self._copy_arrays(**replaced)
            return
        for name, tracked in replaced.items():
            if isinstance(tracked, Alias) and name in tracked_objects(self._s):  # slicer would still return the object
                delattr(self._s, name)
            setattr(self._s, name, tracked)

    def _copy_arrays(self, **replaced: Alias | Obj) -> None:
        """Copy the parallel arrays, some of them replaced, from the explanation that this one is a copy of."""
        self._s = Slicer.from_slicer(**{**tracked_arrays(self._s), **replaced})

    def _assign(self, name: str, names: Any) -> None:
        """Let shap assign names to an axis, and raise InputError if none has their number."""
        before = tracked_arrays(self._s)
        try:
            setattr(self._s, name, names)
        except (AttributeError, TypeError, ValueError):
            self._s = Slicer.from_slicer(**before)
            raise InputError(f"{name} {names!r} fits no axis of values of shape {np.shape(self.values)}.") from None

    def _forget(self, *names: str) -> None:
        """Drop these parallel arrays, which no longer hold."""
        self._track(**{name: Obj(None) for name in names if self._tracked(name) is not None})

    def _set(self, name: str, array: np.ndarray | None, axes: Sequence[int]) -> None:
        """Let an array run along the given axes of ``values``."""
        if array is None:
            self._track(**{name: Obj(None)})
            return
        _check_shape(name, array, [self.values.shape[axis] for axis in axes])
        self._track(**{name: Obj(array if axes else array[()], list(axes))})

    @property
    def _inputs(self) -> int:
        """Number of axes before those of the output."""
        return np.ndim(self._s.values) - len(self.output_dims)

    @property
    def _rows(self) -> int:
        """1 if there is an axis of rows, 0 for the explanation of a single row."""
        if self.base_values is None:
            return int(self._has_rows)
        return int(np.ndim(self.base_values) > len(self.output_dims))

    @property
    def _steps_at(self) -> int | None:
        """The axis of the steps; None if there is none."""
        tracked = tracked_objects(self._s).get("steps")
        return tracked.dim[0] if tracked is not None and tracked.dim else None

    @property
    def _steps(self) -> int:
        axis = self._steps_at
        return 1 if axis is None else self.values.shape[axis]

    @property
    def _valid(self) -> Any:
        """Which steps are no padding, (rows, steps); None if that is not known."""
        lengths, axis = self._tracked("valid_steps"), self._steps_at
        return None if lengths is None or axis is None else self._s.steps < np.asarray(lengths)[..., None]

    @property
    def _reached(self) -> Any:
        """How many steps of each row are valid or have attributions, (rows,); None if the lengths are not known."""
        lengths, axis = self.lengths, self._steps_at
        if lengths is None or axis is None:
            return None
        used = np.moveaxis(np.asarray(self.values) != 0, axis, self._rows)
        used = used.any(tuple(range(self._rows + 1, used.ndim)))
        return np.maximum(lengths, (used * np.arange(1, self._steps + 1)).max(-1, initial=0))

    def _axis_of_steps(self) -> int:
        """Return the axis of the steps; a single axis behind the rows, as that of token ids, becomes this axis."""
        if self._steps_at is None:
            if self._inputs - self._rows != 1 or self._tracked("steps") is not None:
                raise InputError(f"there are no steps in an explanation of shape {self.values.shape}.")
            self._count_steps(self._rows)
        axis = self._steps_at
        assert axis is not None
        return axis

    def _count_steps(self, axis: int) -> None:
        """Make an axis that of the steps; their positions stay known when steps are taken out."""
        self._track(steps=Obj(np.arange(np.shape(self.values)[axis]), [axis]))


def _check_shape(what: str, array: np.ndarray, shape: Sequence[int]) -> None:
    if array.shape != tuple(shape):
        raise InputError(f"{what} has shape {array.shape}; here it must be {tuple(shape)}.")
