"""Forecasters of one's own, of Keras or torch: windows are cut here, and a scaler stands around the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..engines.callables import is_keras
from ..engines.registry import takes_keras
from ..errors import InputError, check_names, check_whole, of_user
from ..explanation.labels import model_name, numbered
from ..memory import evenly
from ..tables import collected, is_frame, plain
from .units import affine_of, read_times
from .windows import ForecastRequest, Input, Outputs, Windows, ids_of

OPTIONS = ("lags", "horizon", "target", "known", "scaler", "parameters")
PAST, FUTURE = "past", "future_covariates"


def forecaster(model: Any, series: Any, request: ForecastRequest) -> OwnForecaster:
    """Return the adapter of a model that is not of a library.

    Raises
    ------
    InputError
        If it is no callable, or there are no series.
    """
    if not callable(model):
        raise InputError(
            "explain_forecast knows fitted models of darts, neuralforecast and pytorch-forecasting, and torch and Keras models "
            f"of your own; a {type(model).__name__} is none of them."
        )
    if series is None:
        raise InputError("give the series to forecast: a DataFrame or an array (times, columns), or a dict of them.")
    return OwnForecaster(model, series, request)


@dataclass(frozen=True)
class _Table:
    """A series: its name, values (times, columns) in the units of the data, times, and how a calendar counts on from them."""

    name: str
    values: np.ndarray
    times: np.ndarray
    frequency: Any = None

    def ahead(self, end: int, steps: int) -> np.ndarray:
        """Return times of the steps behind an end; beyond the table by the calendar, or as far apart as the last ones."""
        in_table, missing = self.times[end : end + steps], max(0, end + steps - len(self.times))
        if self.frequency is not None:
            import pandas as pd

            coming = pd.date_range(self.times[-1], periods=missing + 1, freq=self.frequency)[1:]
            return np.concatenate([in_table, coming.to_numpy(self.times.dtype)])
        step = self.times[-1] - self.times[-2]
        return np.concatenate([in_table, self.times[-1] + step * np.arange(1, missing + 1)])


class OwnForecaster:
    """See ``windows.Forecaster``."""

    def __init__(self, model: Any, series: Any, request: ForecastRequest) -> None:
        self.model, self.request, self.name = model, request, model_name(model) or "the model"
        options = request.read_options("models of one's own", *OPTIONS)
        check_whole("lags, the steps that the model reads,", options["lags"], 1)
        self.lags, self.scaler = options["lags"], options["scaler"]
        self.columns, self.tables = _tables(series, "series")
        background = series if request.background is None else request.background
        columns, self.training = _tables(background, "background")
        if columns != self.columns:
            raise InputError(f"the background has columns {columns}, the series {self.columns}.")
        self.target = self._places("target", options["target"] or self.columns[:1])
        self.future_columns = self._places("known", options["known"] or [])
        self.horizon = options["horizon"]
        if self.future_columns:
            check_whole("horizon, as far ahead as known columns are read,", self.horizon, 1)
        shape = self._run(self._cut(self.training[0], self.lags)).shape[1:]
        self.outputs = _outputs(shape, [self.columns[i] for i in self.target], options["parameters"], self.horizon)
        self.horizon = self.outputs.horizons

    # ------------------------------------------------------------------ the interface
    def windows(self) -> Windows:
        """Return the windows to explain."""
        rows = []
        for table in self.tables:
            ends = self.request.ends(
                len(table.values), len(table.values) - (self.horizon if self.future_columns else 0)
            )
            if ends[0] < self.lags:
                raise InputError(
                    f"series {table.name} is too short for {self.request.forecasts} forecasts, {self.request.stride} steps "
                    f"apart, of windows of {self.lags} steps."
                )
            rows += [(table, end) for end in ends]
        read = {kind: np.stack([self._cut(*row)[kind][0] for row in rows]) for kind in self.kinds}
        shown = {kind: np.stack([self._cut(*row, scaled=False)[kind][0] for row in rows]) for kind in self.kinds}
        past = np.stack([table.times[end - self.lags : end] for table, end in rows])
        times = np.stack([table.ahead(end, self.horizon) for table, end in rows])
        inputs = {PAST: Input(read[PAST], shown[PAST], self.columns, past)}
        if self.future_columns:
            named = [self.columns[i] for i in self.future_columns]
            inputs[FUTURE] = Input(read[FUTURE], shown[FUTURE], named, times, self.horizon)
        several = len(self.tables) > 1
        ids = ids_of([table.name for table, _ in rows], list(past[:, -1]), several, self.request.forecasts > 1)
        return Windows(inputs, ids, times, self._predicted(read), self._actual(rows))

    def references(self, most: int) -> Mapping[str, np.ndarray]:
        """Return windows of the background."""
        ahead = self.horizon if self.future_columns else 0
        rows = [(table, end) for table in self.training for end in range(self.lags, len(table.values) - ahead + 1)]
        if not rows:
            raise InputError(f"no series of the background has {self.lags + ahead} steps.")
        cut = [self._cut(*rows[i]) for i in evenly(len(rows), most)]
        return {kind: np.concatenate([window[kind] for window in cut]) for kind in self.kinds}

    @cached_property
    def function(self) -> Any:
        """The explained function."""
        if self._takes_keras:
            return _OfKeras(self.model, *self.scaling)
        from .own_torch import OfTorch

        return OfTorch(self.model, *self.scaling)

    # ------------------------------------------------------------------ windows
    @cached_property
    def dtype(self) -> Any:
        """The precision in which the model reads numbers."""
        if self._takes_keras:
            return np.dtype(np.float32)
        from .own_torch import dtype_of

        return dtype_of(self.model)

    @cached_property
    def _takes_keras(self) -> bool:
        return takes_keras(self.model)

    @property
    def kinds(self) -> list[str]:
        """The kinds of inputs that the model has."""
        return [PAST, FUTURE] if self.future_columns else [PAST]

    def _places(self, option: str, names: Any) -> list[int]:
        names = [names] if isinstance(names, str) else names
        check_names(option, names)
        unknown = [name for name in names if name not in self.columns]
        if unknown:
            raise InputError(f"{option}: there is no column {unknown[0]!r} among {self.columns}.")
        return [self.columns.index(name) for name in names]

    def _cut(self, table: _Table, end: int, scaled: bool = True) -> dict[str, np.ndarray]:
        """Return the window that ends there, as one row of each input."""
        values = table.values[end - self.lags : end + (self.horizon or 0 if self.future_columns else 0)]
        if np.isnan(values).any():
            raise InputError(f"series {table.name} has gaps (NaN) in a window that is read; fill them first.")
        if scaled and self.scaler is not None:
            values = np.asarray(self.scaler.transform(values))
        values = values.astype(self.dtype)[None]
        window = {PAST: values[:, : self.lags]}
        return {**window, FUTURE: values[:, self.lags :, self.future_columns]} if self.future_columns else window

    # ------------------------------------------------------------------ units of the data
    @cached_property
    def scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """What the model's output is multiplied by, and what is added, (horizons, series, parameters).

        Raises
        ------
        InputError
            If the scaler is not affine.
        """
        shape = (self.horizon, len(self.outputs.series), len(self.outputs.parameters))
        if self.scaler is None:
            return np.ones(shape, self.dtype), np.zeros(shape, self.dtype)
        affine = affine_of(self.scaler.inverse_transform, len(self.columns))
        if affine is None:
            raise InputError(
                "the scaler is not affine: make its inverse the last step of the model, so that it is part of what is explained."
            )
        scale, shift = (np.broadcast_to(numbers[self.target][:, None], shape).astype(self.dtype) for numbers in affine)
        return scale, shift

    # ------------------------------------------------------------------ what the model forecasts, and what came
    def _run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Call the model as its user does."""
        values = [inputs[kind] for kind in self.kinds]
        shapes = " and ".join(str(value.shape[1:]) for value in values)
        with of_user(f"{self.name}, called with windows (lags, columns) of shape {shapes} for each row,"):
            return self._called(values)

    def _called(self, values: list[np.ndarray]) -> np.ndarray:
        if is_keras(self.model) and hasattr(self.model, "predict_on_batch"):
            return np.asarray(self.model.predict_on_batch(values if len(values) > 1 else values[0]))
        if self._takes_keras:
            return np.asarray(self.model(*values))
        from .own_torch import run

        return run(self.model, values)

    def _predicted(self, read: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the forecasts (rows, outputs) in the units of the data, by the scaler's inverse."""
        y = self._run(read).astype(np.float64)
        rows, parameters = len(y), len(self.outputs.parameters)
        if self.scaler is None:
            return y.reshape(rows, -1)
        y = y.reshape(rows, self.horizon, len(self.target), parameters).swapaxes(2, 3)
        full = np.zeros((*y.shape[:3], len(self.columns)))
        full[..., self.target] = y
        raw = np.asarray(self.scaler.inverse_transform(full.reshape(-1, len(self.columns)))).reshape(full.shape)
        return raw[..., self.target].swapaxes(2, 3).reshape(rows, -1)

    def _actual(self, rows: list[tuple[_Table, int]]) -> np.ndarray | None:
        """Return the actual values, (rows, outputs), NaN where they are unknown."""
        actual = np.full((len(rows), self.horizon, len(self.target)), np.nan)
        for row, (table, end) in enumerate(rows):
            values = table.values[end : end + self.horizon, self.target]
            actual[row, : len(values)] = values
        if np.isnan(actual).all():
            return None
        return np.repeat(actual[..., None], len(self.outputs.parameters), -1).reshape(len(rows), -1)


class _OfKeras:
    """A Keras forecaster in the units of the data."""

    def __init__(self, model: Any, scale: np.ndarray, shift: np.ndarray) -> None:
        self.model, self.scale, self.shift = model, scale.reshape(-1), shift.reshape(-1)
        self.__name__ = model_name(model)

    def __call__(self, **inputs: Any) -> Any:
        """Forecast (rows, outputs)."""
        from keras import ops

        values = list(inputs.values())
        arguments = [values] if is_keras(self.model) and len(values) > 1 else values
        return ops.reshape(self.model(*arguments), (-1, len(self.scale))) * self.scale + self.shift


# ---------------------------------------------------------------------- helpers
def _tables(series: Any, what: str) -> tuple[list[str], list[_Table]]:
    """Return the names of the columns, and the series."""
    several = series if isinstance(series, Mapping) else {what: series}
    if not several:
        raise InputError(f"{what} is an empty dict.")
    several = {name: collected(series) for name, series in several.items()}
    tables = [(_columns(frame), _table(str(name), frame, what)) for name, frame in several.items()]
    if any(columns != tables[0][0] for columns, _ in tables):
        raise InputError(f"{what}: all must have the same columns.")
    return tables[0][0], [table for _, table in tables]


def _columns(frame: Any) -> list[str]:
    names = getattr(frame, "columns", None)
    return (
        numbered("Column", np.shape(frame)[-1] if np.ndim(frame) > 1 else 1)
        if names is None
        else [str(n) for n in names]
    )


def _table(name: str, frame: Any, what: str) -> _Table:
    try:
        values = np.asarray(plain(frame, what)[0] if is_frame(frame) else frame, dtype=np.float64)
    except InputError as error:
        why = "A column of times belongs into the index: frame.set_index(...), in pandas."
        raise InputError(f"{what} {name} must be a table of numbers: {error} {why}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} {name} must be a table of numbers: {error}") from error
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) < 2:
        raise InputError(
            f"{what} {name} must have shape (times, columns), with two times at least, not {values.shape}."
        )
    index = getattr(frame, "index", None)
    if index is None or callable(index):  # of a list it is a method
        return _Table(name, values, np.arange(len(values)))
    return _Table(name, values, *read_times(index, f"{what} {name}" if name != what else what))


def _outputs(shape: tuple[int, ...], series: list[str], parameters: Any, horizon: int | None) -> Outputs:
    """Return the axes of a model's output.

    Raises
    ------
    InputError
        If they do not fit the series and parameters.
    """
    parameter_names = ["forecast"] if parameters is None else list(parameters)
    wanted = [
        axis for axis, size in ((len(series), len(series)), (len(parameter_names), len(parameter_names))) if size > 1
    ]
    sizes = [size for size in shape[1:] if size > 1] if len(shape) > 1 else []
    if not shape or sizes != wanted or (horizon is not None and shape[0] != horizon):
        raise InputError(
            f"the model returns {shape} for each window; it must be (horizons,), (horizons, series) or (horizons, series, "
            f"parameters) of {len(series)} series (target=) and {len(parameter_names)} parameters (parameters=)."
        )
    return Outputs(shape[0], series, parameter_names)
