"""Fitted torch models of darts: windows, scalers and likelihoods as darts keeps them, its own code as the function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from darts.dataprocessing.pipeline import Pipeline
from darts.dataprocessing.transformers import BoxCox, Diff, InvertibleDataTransformer, InvertibleMapper, Scaler
from darts.models.forecasting.torch_forecasting_model import TorchForecastingModel
from darts.timeseries import TimeSeries
from darts.utils.data.torch_datasets.utils import TorchInferenceBatch
from darts.utils.utils import generate_index
from torch import Tensor, nn

from ..errors import InputError
from ..memory import evenly
from .units import Step, affine_of, numbers_of, on_torch, scaling, undo_steps, without_inference
from .windows import ForecastRequest, Input, Outputs, Windows, ids_of, stacked

COVARIATES = ("past_covariates", "future_covariates")
# Likelihoods whose parameters move and stretch with the data, and which of these parameters only stretch.
SPREADS = {"gaussian": ("sigma",), "laplace": ("b",), "cauchy": ("gamma",), "gumbel": ("beta",), "quantile": ()}


def forecaster(model: Any, series: Any, request: ForecastRequest) -> DartsForecaster:
    """Return the adapter of a fitted model.

    Raises
    ------
    InputError
        If it is none of darts' torch models, or not fitted.
    """
    if not isinstance(model, TorchForecastingModel):
        raise InputError(f"explain_forecast takes darts' torch models; {type(model).__name__} is none of them.")
    if model.model is None:
        raise InputError(f"the {type(model).__name__} is not fitted.")
    return DartsForecaster(model, series, request)


class DartsForecaster:
    """See ``windows.Forecaster``."""

    def __init__(self, model: Any, series: Any, request: ForecastRequest) -> None:
        names = ("horizon", *COVARIATES, *(f"background_{name}" for name in COVARIATES), "data_transformers")
        self.options = request.read_options("darts", *names)
        self.model, self.request = model, request
        self.name = type(model).__name__
        self.horizon = self.options["horizon"] or model.output_chunk_length
        self.raw = _listed(model.training_series if series is None else series, "series")
        self.transformers = _transformers(self.options["data_transformers"])
        likelihood = model.likelihood
        if likelihood is not None and self.horizon > model.output_chunk_length:
            raise InputError(
                f"beyond output_chunk_length ({model.output_chunk_length}) a probabilistic model feeds on what it draws at "
                f"random: explain a horizon of at most {model.output_chunk_length}."
            )
        parameters = ("forecast",) if likelihood is None else tuple(map(_shorter, likelihood.parameter_names))
        self.outputs = Outputs(self.horizon, list(self.raw[0].components), parameters, model.output_chunk_shift)

        if self.outputs.gap and any(
            isinstance(transformer, Diff) for transformer in self.transformers.get("series", ())
        ):
            raise InputError(
                "differences of the target are summed from the last known step on, and output_chunk_shift leaves out the steps "
                "after it: leave the Diff out."
            )

    # ------------------------------------------------------------------ the interface
    def windows(self) -> Windows:
        """Return the windows to explain."""
        read: dict[str, Any] = {"series": self._transformed("series", self.raw)}
        for name in COVARIATES:
            covariates = self.options[name]
            read[name] = None if covariates is None else self._transformed(name, _listed(covariates, name))
        rows = [(k, end) for k, series in enumerate(read["series"]) for end in self.request.ends(len(series))]
        cut = self._cut(read, rows)
        samples, names = self._samples(cut)
        inputs = {kind: self._input(kind, samples, cut, names) for kind in self.kinds}
        last = [series.end_time() for series in cut["series"]]
        times = stacked([_ahead(series, self.horizon, self.outputs.gap) for series in cut["series"]])
        ids = ids_of([f"series {k}" for k, _ in rows], last, len(self.raw) > 1, self.request.forecasts > 1)
        shown = self._shown(inputs, rows)
        predicted = self._predicted(cut, rows)
        numbers = numbers_of(self._chains(cut, rows), self._dtype)
        return Windows(shown, ids, times, predicted, self._actual(rows, times), numbers)

    def references(self, most: int) -> Mapping[str, np.ndarray]:
        """Return windows of the training series."""
        read: dict[str, Any] = {}
        for name in ("series", *COVARIATES):
            option = self.request.background if name == "series" else self.options[f"background_{name}"]
            stored_as = {
                "series": "training_series",
                **{c: c.replace("covariates", "covariate_series") for c in COVARIATES},
            }
            if option is not None:
                read[name] = self._transformed(name, _listed(option, name))
            else:
                trained = getattr(self.model, stored_as[name])
                read[name] = None if trained is None or self.request.background is not None else [trained]
        if read["series"] is None:
            raise InputError(
                "darts keeps the training series of models that were trained on one; give background=, one or several "
                "series (and background_past_covariates=, background_future_covariates=)."
            )
        horizon = self.outputs.gap + max(self.horizon, self.model.output_chunk_length)
        longest = self.model.input_chunk_length
        rows = [
            (k, end) for k, series in enumerate(read["series"]) for end in range(longest, len(series) - horizon + 1)
        ]
        if not rows:
            raise InputError(f"no series of the background has {longest + horizon} steps.")
        cut = self._cut(read, [rows[i] for i in evenly(len(rows), most)])
        samples, _ = self._samples(cut)
        return {kind: _values(kind, samples) for kind in self.kinds}

    @cached_property
    def function(self) -> nn.Module:
        """The explained function."""
        return _Function(self.model, self.outputs, self._chain(0, self.raw[0].end_time()))

    # ------------------------------------------------------------------ windows
    @property
    def kinds(self) -> list[str]:
        """The kinds of inputs that the model has."""
        model = self.model
        used = (True, model.uses_past_covariates, model.uses_future_covariates, model.uses_static_covariates)
        kinds = ("target", *COVARIATES, "static_covariates")
        return [kind for kind, is_used in zip(kinds, used, strict=True) if is_used]

    @property
    def _dtype(self) -> Any:
        module = self.model.model  # naive models have no parameters
        return next(module.parameters(), torch.empty(0, dtype=module.dtype)).detach().cpu().numpy().dtype

    def _transformed(self, name: str, series: list[Any]) -> list[Any]:
        """Return series as the model reads them."""
        pipeline = self.transformers.get(name)
        if pipeline is None:
            return [entry.astype(self._dtype) for entry in series]
        gone = sum(sum(entry._lags) for entry in pipeline if isinstance(entry, Diff) and not entry._dropna)
        return [entry[gone:].astype(self._dtype) for entry in pipeline.transform(series)]

    def _cut(self, read: Mapping[str, Any], rows: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Return a series for each row, which ends where its forecast begins, and its covariates."""
        shortest = self.model.input_chunk_length
        early = next((k for k, end in rows if end < shortest), None)
        if early is not None:
            raise InputError(
                f"series {early} is too short for {self.request.forecasts} forecasts, {self.request.stride} steps apart: each "
                f"reads {shortest} steps."
            )
        cut: dict[str, Any] = {"series": [read["series"][k][:end] for k, end in rows]}
        for name in COVARIATES:
            covariates = read[name]
            if covariates is not None and len(covariates) not in (1, len(read["series"])):
                raise InputError(f"{name}: {len(covariates)} of them for {len(read['series'])} series.")
            cut[name] = None if covariates is None else [covariates[k if len(covariates) > 1 else 0] for k, _ in rows]
        return cut

    def _samples(self, cut: Mapping[str, Any]) -> tuple[list[Any], dict[str, list[str]]]:
        """Return the arguments that darts passes to its module for each row, and names of features."""
        params = self._with_library(
            self.model._setup_for_predict_from_dataset,
            n=self.horizon,
            **cut,
            predict_likelihood_parameters=self.model.likelihood is not None,
            show_warnings=False,
        )
        dataset, first = params["dataset"], cut["series"][0]
        names = {"target": list(first.components)}
        for kind in COVARIATES:
            if kind in self.kinds:
                names[kind] = list(getattr(dataset, kind)[0].components)
        if "static_covariates" in self.kinds:
            table = first.static_covariates
            alone = len(table) == 1
            names["static_covariates"] = [
                str(column) if alone else f"{row} {column}" for row in table.index for column in table.columns
            ]
        return [dataset[i] for i in range(len(dataset))], names

    def _input(self, kind: str, samples: list[Any], cut: Mapping[str, Any], names: Mapping[str, list[str]]) -> Input:
        values = _values(kind, samples)
        if np.isnan(values).any():
            raise InputError(f"{kind}: there are gaps (NaN) in the windows that are read; fill them first.")
        if kind == "static_covariates":
            return Input(values, values, names[kind])
        lags = self.model.input_chunk_length
        ahead = values.shape[1] - lags
        gap = self.outputs.gap
        times = [np.concatenate([part.time_index[-lags:], _ahead(part, ahead, gap)]) for part in cut["series"]]
        return Input(values, values, names[kind], stacked(times), ahead, gap)

    # ------------------------------------------------------------------ units of the data
    def _shown(self, inputs: dict[str, Input], rows: Sequence[tuple[int, int]]) -> dict[str, Input]:
        """Return inputs in the units of the data, where they were transformed."""
        shown = dict(inputs)
        for kind, entry in inputs.items():
            name = "series" if kind == "target" else kind
            if name not in self.transformers:
                continue
            raw = self.raw if kind == "target" else _listed(self.options[kind], kind)
            if entry.times is None or raw[0].n_components != entry.values.shape[2]:
                continue
            values = [
                _at(raw[k if len(raw) > 1 else 0], times) for (k, _), times in zip(rows, entry.times, strict=True)
            ]
            shown[kind] = replace(entry, shown=np.stack(values))
        return shown

    @cached_property
    def _stages(self) -> list[list[Any]]:
        """The series that each transformer of the target is given, and last what becomes of them."""
        stages = [[part.astype(np.float64) for part in self.raw]]
        for transformer in self.transformers.get("series", ()):
            stages.append(transformer.transform(stages[-1]))
        return stages

    def _chains(self, cut: Mapping[str, Any], rows: Sequence[tuple[int, int]]) -> list[list[Step]]:
        """Return the inverse of the transforms of the target in each row."""
        return [self._chain(k, series.end_time()) for (k, _), series in zip(rows, cut["series"], strict=True)]

    def _chain(self, k: int, last: Any) -> list[Step]:
        """Return the inverse of the target's transforms for a series whose last known step is at this time."""
        steps: list[Step] = []
        for transformer, stage in zip(self.transformers.get("series", ()), self._stages, strict=False):
            summed = isinstance(transformer, Diff) and self.model.likelihood is None
            steps += _sums(transformer, _until(stage[k], last), k) if summed else [self._step(transformer, k)]
        return steps[::-1]

    def _step(self, transformer: Any, k: int) -> Step:
        likelihood, parameters = self.model.likelihood, self.outputs.parameters
        kind = None if likelihood is None else likelihood.type.value
        if kind is not None and kind not in SPREADS:
            raise InputError(
                f"parameters of the {kind} likelihood have no form in other units: leave the transforms out."
            )
        spreads = np.isin(parameters, SPREADS.get(kind or "quantile", ()))
        if isinstance(transformer, InvertibleMapper) and not spreads.any():
            undo = on_torch(transformer._inverse_fn, f"inverse_fn of {transformer.name}")
            return Step(lambda y: undo(y))
        if isinstance(transformer, BoxCox) and not spreads.any():
            fitted = transformer._fitted_params
            power = np.asarray(fitted[k if len(fitted) > 1 else 0], dtype=np.float64)
            return Step(_unboxed, (np.repeat(power[None, :, None], len(parameters), 2),))
        if isinstance(transformer, Scaler):
            affine = affine_of(lambda values: self._inverse_of(transformer, values, k), len(self.outputs.series))
            if affine is not None:
                return scaling(*affine, spreads)
        raise InputError(
            f"the transform {type(transformer).__name__} of the target cannot be made part of the explained function: it must be "
            "an affine Scaler or, of quantiles and models without likelihood, an InvertibleMapper or BoxCox, or, of models "
            "without likelihood, a Diff."
        )

    def _inverse_of(self, transformer: Any, values: np.ndarray, k: int) -> np.ndarray:
        series = TimeSeries(
            generate_index(start=0, length=len(values)), values[..., None], components=self.raw[0].components
        )
        return transformer.inverse_transform([series], series_idx=[k]).pop().values()

    # ------------------------------------------------------------------ what darts forecasts, and what came
    def _predicted(self, cut: Mapping[str, Any], rows: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return the forecasts (rows, outputs), in the units of the data."""
        likelihood = self.model.likelihood is not None
        forecasts = self._with_library(
            self.model.predict,
            self.horizon,
            **cut,
            verbose=False,
            predict_likelihood_parameters=likelihood,
            show_warnings=False,
        )
        pipeline = self.transformers.get("series")
        if pipeline is None:
            return np.stack([forecast.values().reshape(-1) for forecast in forecasts])
        if not likelihood:
            last = [series.end_time() for series in cut["series"]]
            pasts = [_until(self._stages[-1][k], end) for (k, _), end in zip(rows, last, strict=True)]
            joined = (
                forecasts
                if self.outputs.gap
                else [past.append(ahead) for past, ahead in zip(pasts, forecasts, strict=True)]
            )
            back = self._with_library(pipeline.inverse_transform, joined, series_idx=[k for k, _ in rows])
            return np.stack([series.values()[-self.horizon :].reshape(-1) for series in back])
        shape = (len(rows), self.horizon, len(self.outputs.series), -1)
        y = torch.as_tensor(np.stack([forecast.values() for forecast in forecasts]).reshape(shape), dtype=torch.float64)
        chains = self._chains(cut, rows)
        numbers = [torch.as_tensor(number) for number in numbers_of(chains, np.float64)]
        return undo_steps(y, chains[0], numbers).numpy().reshape(len(rows), -1)

    def _actual(self, rows: Sequence[tuple[int, int]], times: np.ndarray) -> np.ndarray | None:
        """Return the actual values, (rows, outputs), NaN where they are unknown."""
        actual = np.stack([_at(self.raw[k], row) for (k, _), row in zip(rows, times, strict=True)])
        if np.isnan(actual).all():
            return None
        return np.repeat(actual[..., None], len(self.outputs.parameters), -1).reshape(len(rows), -1)

    @staticmethod
    def _with_library(function: Any, *arguments: Any, **options: Any) -> Any:
        """Call darts; what it does not take is an InputError."""
        try:
            return function(*arguments, **options)
        except ValueError as error:
            raise InputError(f"darts: {error}") from error


class _Function(nn.Module):
    """What darts does with a batch of windows, and the way back to the units of the data."""

    def __init__(self, model: Any, outputs: Outputs, steps: list[Step]) -> None:
        super().__init__()
        self.module = without_inference(model.model)
        self.outputs, self.steps, self.input_length = outputs, steps, model.input_chunk_length
        self.likelihood, self.chunk = model.likelihood is not None, model.output_chunk_length
        self.components = len(model.static_covariates) if model.uses_static_covariates else 1

    def forward(self, *numbers: Tensor, **inputs: Tensor) -> Tensor:
        """Forecast (rows, outputs)."""
        n = self.outputs.horizons
        self.module.set_predict_parameters(n, 1, self.chunk, len(inputs["target"]), self.likelihood, False)
        y = self.module._get_batch_prediction(n, self._batch(inputs), self.chunk)
        y = y.reshape(len(y), n, len(self.outputs.series), len(self.outputs.parameters))
        return undo_steps(y, self.steps, numbers).flatten(1)

    def _batch(self, inputs: Mapping[str, Tensor]) -> Any:
        past, future = inputs.get("past_covariates"), inputs.get("future_covariates")
        static = inputs.get("static_covariates")
        rolled = past is not None and past.shape[1] > self.input_length
        return TorchInferenceBatch(
            past_target=inputs["target"],
            past_covariates=None if past is None else past[:, : self.input_length],
            future_past_covariates=past[:, self.input_length :] if past is not None and rolled else None,
            historic_future_covariates=None if future is None else future[:, : self.input_length],
            future_covariates=None if future is None else future[:, self.input_length :],
            static_covariates=None if static is None else static.reshape(len(static), self.components, -1),
        )


# ---------------------------------------------------------------------- helpers
def _unboxed(y: Tensor, power: Tensor) -> Tensor:
    """Undo a Box-Cox transform."""
    safe = torch.where(power == 0, torch.ones_like(power), power)
    return torch.where(power == 0, torch.exp(y), (y * safe + 1) ** (1 / safe))


def _sums(transformer: Any, past: Any, k: int) -> list[Step]:
    """Return the inverse of the differences of a series, known to its last step, in the order in which they were taken."""
    fitted = transformer._fitted_params
    component_mask = fitted[k if len(fitted) > 1 else 0][1]
    differenced = (
        torch.ones(past.n_components, dtype=torch.bool) if component_mask is None else torch.as_tensor(component_mask)
    )
    steps, values = [], past.values()
    for lag in transformer._lags:
        steps.append(Step(partial(_summed, differenced=differenced[:, None]), (values[-lag:, :, None],)))
        values = values[lag:] - values[:-lag]
    return steps


def _summed(y: Tensor, last_values: Tensor, differenced: Tensor) -> Tensor:
    """Undo differences, where they were taken, from the last steps, as many as the lag."""
    blocks, before = [], last_values
    for block in y.split(last_values.shape[1], 1):
        before = before[:, : block.shape[1]] + block
        blocks.append(before)
    return torch.where(differenced.to(y.device), torch.cat(blocks, 1), y)


def _shorter(parameter: str) -> str:
    """Return names of quantiles without zeros at the end: q0.5 for q0.500."""
    return f"q{float(parameter[1:]):g}" if parameter[:1] == "q" and parameter[1:2].isdigit() else str(parameter)


def _listed(series: Any, what: str) -> list[Any]:
    if series is None:
        raise InputError("give the series to explain: darts keeps those of models that were trained on a single one.")
    listed = [series] if isinstance(series, TimeSeries) else list(series)
    if not listed or not all(isinstance(entry, TimeSeries) for entry in listed):
        raise InputError(f"{what} must be a darts TimeSeries or a list of them.")
    return listed


def _transformers(pipelines: Any) -> dict[str, Any]:
    """Return a pipeline for each kind of series, as ``historical_forecasts`` expects them."""
    kinds = ("series", *COVARIATES)
    if pipelines is not None and (not isinstance(pipelines, Mapping) or not set(pipelines) <= set(kinds)):
        raise InputError(f"data_transformers must be a dict of fitted transformers, by {', '.join(kinds)}.")
    by_kind = {
        name: pipeline if isinstance(pipeline, Pipeline) else Pipeline([pipeline])
        for name, pipeline in dict(pipelines or {}).items()
    }
    if "series" in by_kind and not all(
        isinstance(pipeline, InvertibleDataTransformer) for pipeline in by_kind["series"]
    ):
        raise InputError("the transforms of the target must have inverses.")
    return by_kind


def _until(series: Any, last: Any) -> Any:
    """Return the series up to and including a time."""
    return series.drop_after(last, keep_point=True)


def _ahead(series: Any, steps: int, gap: int) -> np.ndarray:
    """Return time stamps after the end of a series and a gap."""
    start = series.end_time() + (gap + 1) * series.freq
    return np.asarray(generate_index(start=start, length=steps, freq=series.freq)) if steps else series.time_index[:0]


def _at(series: Any, times: np.ndarray) -> np.ndarray:
    """Return values at times, (times, components); NaN where the series has none."""
    places = series.time_index.get_indexer(times)
    return np.where(places[:, None] < 0, np.nan, series.values()[places])


def _values(kind: str, samples: list[Any]) -> np.ndarray:
    """Return one kind of input of all rows."""
    fields = {
        "target": ("past_target",),
        "past_covariates": ("past_covariates", "future_past_covariates"),
        "future_covariates": ("historic_future_covariates", "future_covariates"),
        "static_covariates": ("static_covariates",),
    }[kind]
    rows = [[getattr(sample, field) for field in fields if getattr(sample, field) is not None] for sample in samples]
    values = stacked([np.concatenate(row) for row in rows])
    return values.reshape(len(values), -1) if kind == "static_covariates" else values
