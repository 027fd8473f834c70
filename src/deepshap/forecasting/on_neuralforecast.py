"""Fitted models of neuralforecast: windows as its own ``predict`` makes them, its own code as the function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from coreforecast.grouped_array import GroupedArray
from neuralforecast import NeuralForecast
from torch import Tensor, nn

from ..errors import InputError
from ..memory import evenly
from .units import Step, affine_of, numbers_of, scaling, undo_steps, without_inference
from .windows import ForecastRequest, Input, Outputs, Windows, ids_of

MASK = "available_mask"


def forecaster(model: Any, series: Any, request: ForecastRequest) -> NeuralForecaster:
    """Return the adapter of a fitted NeuralForecast.

    Raises
    ------
    InputError
        If it is none, or not fitted, or its model is multivariate.
    """
    if not isinstance(model, NeuralForecast):
        kind = type(model).__name__
        raise InputError(f"explain_forecast takes the NeuralForecast that holds a model, not a {kind}.")
    if not getattr(model, "_fitted", False):
        raise InputError("the NeuralForecast is not fitted.")
    return NeuralForecaster(model, series, request)


@dataclass(frozen=True)
class _Recorded:
    """What a model was handed when it forecast, and the scalers of that time.

    temporal: (rows, lags + horizon, columns). static: (rows, columns) or None. forecasts: the library's DataFrame.
    """

    temporal: np.ndarray
    columns: list[str]
    static: np.ndarray | None
    static_columns: list[str]
    scalers: Mapping[str, Any]
    static_scalers: Mapping[str, Any]
    forecasts: pd.DataFrame


class NeuralForecaster:
    """See ``windows.Forecaster``."""

    def __init__(self, library: Any, series: Any, request: ForecastRequest) -> None:
        self.options = request.read_options("neuralforecast", "alias", "futr_df", "static_df", "background_static_df")
        self.library, self.request, self.series = library, request, series
        self.model, self.name = _chosen(library, self.options["alias"])
        if self.model.MULTIVARIATE:
            raise InputError(
                f"{self.name} forecasts all series from all of them; multivariate models are not supported."
            )
        loss = self.model.loss
        self.drawn = bool(loss.is_distribution_output)
        if self.drawn and library.local_scaler_type is not None:
            raise InputError("parameters of a distribution have no form in other units: fit without local_scaler_type.")
        if self.drawn and not hasattr(loss, "_base_distribution"):
            raise InputError(f"mixtures ({type(loss).__name__}) are not supported; a DistributionLoss is.")
        self.outputs = Outputs(library.h, [library.target_col], _parameters(loss, self.drawn))
        self.past = [c for c in self.model.hist_exog_list if c not in self.model.futr_exog_list]
        self.future, self.static = list(self.model.futr_exog_list), list(self.model.stat_exog_list)
        for name, table in (("series", series), ("background", request.background)):
            if table is not None and not isinstance(table, pd.DataFrame):
                raise InputError(
                    f"{name} must be a pandas.DataFrame in long form, as fit takes it, not a {type(table).__name__}."
                )

    # ------------------------------------------------------------------ the interface
    def windows(self) -> Windows:
        """Return the windows to explain."""
        rows = self._stored_rows() if self.series is None else self._rows(self.series)
        recorded = self._recorded(rows)
        h, lags = self.library.h, recorded.temporal.shape[1] - self.library.h
        short = (recorded.temporal[:, :lags, recorded.columns.index(MASK)] == 0).any(1)
        if short.any():
            raise InputError(
                f"series {rows[int(short.argmax())].name} has fewer than the {lags} steps that {self.name} reads, or gaps: "
                "what is not there cannot be explained."
            )
        forecasts = recorded.forecasts
        times = forecasts[self.library.time_col].to_numpy().reshape(len(rows), h)
        before = [np.asarray(row.times)[-lags:] for row in rows]
        full = np.concatenate([np.stack(before), times], 1)
        scales = {column: self._scale(recorded, column, len(rows)) for column in self._columns}
        inputs = {kind: self._input(kind, recorded, scales, full, lags) for kind in self.kinds}
        spread = np.zeros(len(self.outputs.parameters), bool)
        target = [[scaling(scale[[k]], shift[[k]], spread)] for scale, shift in [scales["y"]] for k in range(len(rows))]
        chains: list[list[Step]] = target if self.library.scalers_ else [[] for _ in rows]
        several = len({row.name for row in rows}) > 1
        ids = ids_of([row.name for row in rows], [row.times[-1] for row in rows], several, self.request.forecasts > 1)
        predicted = forecasts.drop(columns=[self.library.id_col, self.library.time_col]).to_numpy(np.float64)
        predicted = predicted[:, -len(self.outputs.parameters) :].reshape(len(rows), -1)
        return Windows(inputs, ids, times, predicted, self._actual(rows), numbers_of(chains, np.float32))

    def references(self, most: int) -> Mapping[str, np.ndarray]:
        """Return windows of the training data."""
        if self.request.background is None:
            dataset: Any = getattr(self.library, "dataset", None)
            if not hasattr(dataset, "indptr"):
                raise InputError(
                    "this NeuralForecast has no training series with it: give background=, a DataFrame of them."
                )
        else:
            with self._scalers_kept():
                dataset = self._prepared(self.request.background, self.options["background_static_df"])
        length, mask = self.function.input_length + self.library.h, list(dataset.temporal_cols).index(MASK)
        temporal, indptr = dataset.temporal.numpy(), dataset.indptr
        there = np.concatenate([[0], np.cumsum(temporal[:, mask] > 0)])
        ends = [(g, end) for g in range(len(indptr) - 1) for end in range(indptr[g] + length, indptr[g + 1] + 1)]
        ends = [(g, end) for g, end in ends if there[end] - there[end - length] == length]
        if not ends:
            raise InputError(f"no series of the background has {length} steps without gaps.")
        chosen = [ends[i] for i in evenly(len(ends), most)]
        windows = np.stack([temporal[end - length : end] for _, end in chosen])
        static = None if dataset.static is None else dataset.static.numpy()[[g for g, _ in chosen]]
        recorded = _Recorded(
            windows, list(dataset.temporal_cols), static, _listed(dataset.static_cols), {}, {}, pd.DataFrame()
        )
        return {kind: self._values(kind, recorded, self.function.input_length) for kind in self.kinds}

    @cached_property
    def function(self) -> _Function:
        """The explained function."""
        return _Function(self)

    # ------------------------------------------------------------------ inputs
    @property
    def kinds(self) -> list[str]:
        """The kinds of inputs that the model has."""
        used = {
            "target": not self.model.exclude_insample_y,
            "past_covariates": self.past,
            "future_covariates": self.future,
            "static_covariates": self.static,
        }
        return [kind for kind, is_used in used.items() if is_used]

    def names(self, kind: str) -> list[str]:
        """Return the columns of one kind of input."""
        columns = {"past_covariates": self.past, "future_covariates": self.future, "static_covariates": self.static}
        return columns.get(kind, ["y"])

    @property
    def _columns(self) -> list[str]:
        return ["y", *self.past, *self.future]

    def _values(self, kind: str, recorded: _Recorded, lags: int) -> np.ndarray:
        """Return one kind of input of all rows, as the model reads it."""
        names = self.names(kind)
        if kind == "static_covariates":
            assert recorded.static is not None
            return recorded.static[:, [recorded.static_columns.index(name) for name in names]].astype(np.float32)
        places = [_place(recorded.columns, name, self.library.target_col) for name in names]
        steps = slice(None) if kind == "future_covariates" else slice(lags)
        return recorded.temporal[:, steps, places].astype(np.float32)

    def _input(self, kind: str, recorded: _Recorded, scales: Mapping[str, Any], times: np.ndarray, lags: int) -> Input:
        values, names = self._values(kind, recorded, lags), self.names(kind)
        if kind == "static_covariates":
            return Input(values, self._unscaled_static(values, recorded), names)
        shown = np.stack(
            [values[..., i] * scales[n][0][:, None] + scales[n][1][:, None] for i, n in enumerate(names)], -1
        )
        features = [self.library.target_col] if kind == "target" else names
        ahead = values.shape[1] - lags
        return Input(values, shown.astype(values.dtype), features, times[:, : values.shape[1]], ahead)

    # ------------------------------------------------------------------ units of the data
    def _scale(self, recorded: _Recorded, column: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scale and shift of a column of each row, (rows,)."""
        scaler = recorded.scalers.get(self.library.target_col if column == "y" else column)
        if scaler is None:
            return np.ones(rows), np.zeros(rows)
        affine = affine_of(lambda values: _unscaled(scaler, values), rows)
        if affine is None:
            raise InputError(
                f"local_scaler_type={self.library.local_scaler_type!r} is no affine scaling; this is not supported."
            )
        return affine

    def _unscaled_static(self, values: np.ndarray, recorded: _Recorded) -> np.ndarray:
        shown = values.copy()
        for i, name in enumerate(self.static):
            scaler = recorded.static_scalers.get(name)
            if scaler is not None:
                shown[:, i] = scaler.inverse_transform(GroupedArray(values[:, i].copy(), np.array([0, len(values)])))
        return shown

    # ------------------------------------------------------------------ rows
    def _rows(self, frame: pd.DataFrame) -> list[Row]:
        """Return a row for each forecast of each series."""
        library, rows = self.library, []
        for name, part in frame.sort_values(library.time_col).groupby(library.id_col, sort=True):
            for end in self.request.ends(len(part)):
                if end < 1:
                    raise InputError(f"series {name} is too short for {self.request.forecasts} forecasts.")
                rows.append(Row(str(name), part[library.time_col].to_numpy()[:end], part, end))
        return rows

    def _stored_rows(self) -> list[Row]:
        library = self.library
        if self.request.forecasts > 1 or not hasattr(getattr(library, "dataset", None), "indptr"):
            raise InputError(
                "give the series to explain: a NeuralForecast can only forecast once from what it has stored."
            )
        starts = library.dataset.indptr
        return [Row(str(name), library.ds[starts[k] : starts[k + 1]]) for k, name in enumerate(library.uids)]

    def _actual(self, rows: Sequence[Row]) -> np.ndarray | None:
        """Return the actual values, (rows, outputs), NaN where they are unknown."""
        h, actual = self.library.h, []
        for row in rows:
            coming = np.full(h, np.nan) if row.table is None else row.coming(self.library.target_col, h)
            actual.append(np.repeat(coming, len(self.outputs.parameters)))
        outputs = np.stack(actual)
        return None if np.isnan(outputs).all() else outputs

    # ------------------------------------------------------------------ the library's own forecast
    def _recorded(self, rows: Sequence[Row]) -> _Recorded:
        """Let the library forecast, and note what it hands to the model."""
        arguments = {"futr_df": self.options["futr_df"], "static_df": self.options["static_df"]}
        if self.series is not None:
            arguments = self._tables(rows)
        seen: list[Any] = []
        library, model = self.library, self.model
        original = model._create_windows

        def record(batch: Any, step: str) -> Any:
            windows = original(batch, step)
            seen.append(
                (windows[0].clone(), windows[1], windows[2], windows[5], library.scalers_, library.static_scalers_)
            )
            return windows

        models = library.models
        try:
            library.models, model._create_windows = [entry for entry in models if _inner(entry) is model], record
            with _returning_parameters(model.loss, self.drawn):
                forecasts = library.predict(**arguments)
        except (ValueError, KeyError) as error:
            raise InputError(f"neuralforecast: {error}") from error
        finally:
            library.models = models
            del model._create_windows
        temporal = np.concatenate([entry[0].squeeze(-1).cpu().numpy() for entry in seen])
        statics = [entry[1].cpu().numpy() for entry in seen if entry[1] is not None]
        _, _, names, columns, scalers, static_scalers = seen[0]
        return _Recorded(
            temporal,
            list(columns),
            np.concatenate(statics) if statics else None,
            list(names if statics else []),
            scalers,
            static_scalers,
            forecasts,
        )

    def _tables(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the tables for the library's predict: each row is a series, which ends where its forecast begins."""
        library, futr, static = self.library, self.options["futr_df"], self.options["static_df"]
        ids = [f"{i:09d}" for i in range(len(rows))]
        pasts = [row.past().assign(**{library.id_col: name}) for name, row in zip(ids, rows, strict=True)]
        tables: dict[str, Any] = {"df": pd.concat(pasts, ignore_index=True)}
        if self.future:
            coming = [row.coming_table(futr, library, self.future) for row in rows]
            named = [table.assign(**{library.id_col: name}) for name, table in zip(ids, coming, strict=True)]
            tables["futr_df"] = pd.concat(named, ignore_index=True)
        if static is not None:
            static_table = static.set_index(library.id_col)
            static_table.index = static_table.index.astype(str)
            tables["static_df"] = (
                static_table.loc[[row.name for row in rows]].assign(**{library.id_col: ids}).reset_index(drop=True)
            )
        return tables

    def _prepared(self, frame: pd.DataFrame, static: pd.DataFrame | None) -> Any:
        library = self.library
        return library._prepare_fit(frame, static, library.id_col, library.time_col, library.target_col)[0]

    @contextmanager
    def _scalers_kept(self) -> Iterator[None]:
        scalers = self.library.scalers_, self.library.static_scalers_
        try:
            yield
        finally:
            self.library.scalers_, self.library.static_scalers_ = scalers


class _Function(nn.Module):
    """What neuralforecast does with windows: scaling of windows, the model, and back."""

    def __init__(self, adapter: NeuralForecaster) -> None:
        super().__init__()
        self.model, self.h = without_inference(adapter.model), adapter.library.h
        recurrent = self.model.RECURRENT
        self.input_length = self.model.inference_input_size if recurrent else self.model.input_size
        self.past, self.future, self.static = adapter.past, adapter.future, adapter.static
        self.drawn, self.parameter_count = adapter.drawn, len(adapter.outputs.parameters)
        self.steps = [scaling(np.ones(1), np.zeros(1), np.zeros(1, bool))]

    def forward(self, *numbers: Tensor, **inputs: Tensor) -> Tensor:
        """Forecast (rows, outputs)."""
        model = self.model
        model.explain, model.input_size, model.predict_horizon = False, self.input_length, self.h
        columns = pd.Index(["y", *self.past, *self.future, MASK])
        windows = {
            "temporal": self._temporal(inputs)[..., None],
            "temporal_cols": columns,
            "static": None,
            "static_cols": None,
        }
        if self.static:
            windows |= {"static": inputs["static_covariates"], "static_cols": pd.Index(self.static)}
        windows = model._normalization(windows=windows, y_idx=0)
        y, mask, _, _, past, future, static = model._parse_windows({"y_idx": 0}, windows)
        forecast = model._predict_step_recurrent_batch if model.RECURRENT else model._predict_step_direct_batch
        with _returning_parameters(model.loss, self.drawn, empty=True):
            forecasts = forecast(
                insample_y=y, insample_mask=mask, futr_exog=future, hist_exog=past, stat_exog=static, y_idx=0
            )
        forecasts = forecasts.reshape(len(forecasts), self.h, 1, -1)[..., -self.parameter_count :]
        return undo_steps(forecasts, self.steps if numbers else [], numbers).flatten(1)

    def _temporal(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the table of a window, (rows, lags + horizon, columns)."""
        first = next(iter(inputs.values()))
        target = inputs.get("target", first.new_zeros(len(first), self.input_length, 1))
        coming = target.new_zeros(len(target), self.h, 1 + len(self.past))
        past = torch.cat([target, *([inputs["past_covariates"]] if self.past else [])], 2)
        parts = [torch.cat([past, coming], 1)]
        if self.future:
            parts.append(inputs["future_covariates"])
        return torch.cat([*parts, torch.ones_like(parts[0][..., :1])], 2)


# ---------------------------------------------------------------------- helpers
def _inner(model: Any) -> Any:
    """Return the model that an automatic model has found."""
    return getattr(model, "model", model) if type(model).__name__.startswith("Auto") else model


def _chosen(library: Any, name: str | None) -> tuple[Any, str]:
    names = list(library._get_model_names())
    if name is None and len(library.models) == 1:
        return _inner(library.models[0]), repr(library.models[0])
    by_name = {repr(model): model for model in library.models}
    if name not in by_name:
        raise InputError(f"this NeuralForecast holds {names}: say which, alias={names[0]!r}.")
    return _inner(by_name[name]), str(name)


def _parameters(loss: Any, drawn: bool) -> tuple[str, ...]:
    """Return the names of what is forecast for each step."""
    if drawn:
        return tuple(name.lstrip("-") for name in loss.param_names)
    quantiles = getattr(loss, "quantiles", None)
    if quantiles is not None and len(quantiles) == len(loss.output_names):
        return tuple(f"q{round(float(q), 6):g}" for q in quantiles)
    if len(loss.output_names) > 1:
        return tuple(name.strip("-_") for name in loss.output_names)
    return ("forecast",)


@contextmanager
def _returning_parameters(loss: Any, drawn: bool, empty: bool = False) -> Iterator[None]:
    """Let a distribution tell its parameters; if ``empty``, nothing is drawn from it."""
    if not drawn:
        yield
        return
    original, names = loss.return_params, list(loss.output_names)
    output_names = names if original else [*names, *loss.param_names]
    try:
        loss.return_params, loss.output_names = True, ["", *loss.param_names] if empty else output_names
        if empty:
            loss.sample = lambda distr_args, num_samples=None: _distribution_mean(loss, distr_args)
        yield
    finally:
        loss.return_params, loss.output_names = original, names
        if empty:
            del loss.sample


def _distribution_mean(loss: Any, arguments: Sequence[Tensor]) -> tuple[None, Tensor, Tensor]:
    """Return the mean of the distribution instead of samples, their mean and their quantiles."""
    mean = loss._base_distribution(*arguments, validate_args=False, **loss.distribution_kwargs).mean
    loss.distr_mean = mean
    return None, mean.unsqueeze(-1), mean.new_zeros(*mean.shape, 0)


def _listed(columns: Any) -> list[str]:
    return [] if columns is None else list(columns)


def _place(columns: list[str], name: str, target: str) -> int:
    return columns.index(target if name == "y" and "y" not in columns else name)


def _unscaled(scaler: Any, values: np.ndarray) -> np.ndarray:
    """Undo a local scaling of (probes, series)."""
    probes, series = values.shape
    indptr = np.arange(series + 1, dtype=np.int32) * probes
    flat = np.ascontiguousarray(values.T, dtype=np.float32).reshape(-1)
    return scaler.inverse_transform(GroupedArray(flat, indptr)).reshape(series, probes).T


@dataclass(frozen=True)
class Row:
    """A series up to where its forecast begins: name, times until then, its whole table and how much of it is known."""

    name: str
    times: Any
    table: pd.DataFrame | None = None
    end: int = 0

    def past(self) -> pd.DataFrame:
        """Return the table of the series up to the end."""
        assert self.table is not None
        return self.table.iloc[: self.end]

    def coming(self, column: str, h: int) -> np.ndarray:
        """Return the values behind the end, (h,), NaN where they are unknown."""
        assert self.table is not None
        values = self.table[column].to_numpy(np.float64)[self.end : self.end + h]
        return np.concatenate([values, np.full(h - len(values), np.nan)])

    def coming_table(self, futr: pd.DataFrame | None, library: Any, columns: list[str]) -> pd.DataFrame:
        """Return covariates known beforehand, behind the end: those of the series, then those of the user's table."""
        assert self.table is not None
        names = [library.time_col, *columns]
        own_rows = self.table.iloc[self.end : self.end + library.h][names]
        if futr is None:
            return own_rows
        given_rows = futr[futr[library.id_col].astype(str) == self.name].sort_values(library.time_col)[names]
        given_rows = given_rows[given_rows[library.time_col] > self.table[library.time_col].iloc[-1]]
        return pd.concat([own_rows, given_rows]).iloc[: library.h]
