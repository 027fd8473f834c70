"""``explain_forecast``: which adapter takes a model, and the explanation of its windows."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from ..engines.callables import packages
from ..errors import InputError, check_whole
from ..explainer import DeepExplainer
from ..results import JointExplanation
from .units import check_same
from .windows import Forecaster, ForecastRequest, Input, Windows

# Roots of packages in the order in which a model's classes are asked for them, and the modules that adapt them.
ADAPTERS = {"darts": "on_darts", "neuralforecast": "on_neuralforecast", "pytorch_forecasting": "on_pytorch_forecasting"}


def explain_forecast(
    model: Any,
    series: Any = None,
    *,
    forecasts: int = 1,
    stride: int = 1,
    background: Any = None,
    references: int = 100,
    effort: float = 1,
    tolerance: float | None = None,
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> JointExplanation:
    """Explain the forecasts of a fitted model: what each lag and covariate adds to each horizon, in the units of the data.

    Parameters
    ----------
    model : object
        A fitted model: any torch model of darts; a NeuralForecast, with one model or ``alias=`` its name; a TFT, DeepAR,
        RecurrentNetwork or N-HiTS of pytorch-forecasting; or a Keras or torch model of one's own, which takes windows (rows,
        lags, columns) and returns (rows, horizons), (rows, horizons, series) or (rows, horizons, series, parameters).
    series : object, optional
        What to forecast, as the library's ``predict`` takes it: TimeSeries or a list of them; a long DataFrame; a
        TimeSeriesDataSet; of a model of one's own a DataFrame or an array (times, columns), or a dict of such. By default
        what the model was trained on, where the library keeps it. The index of a DataFrame must rise from row to row, and
        where most times are equally far apart, none may be missing: neighbouring rows are read as neighbouring times.
        Calendars (months, working days) are known, and days without Saturdays and Sundays are working days, whose holidays are
        no gaps; where hardly two steps are alike, all are taken as they come. Rows without times are numbered.
    forecasts, stride : int, default 1
        How many forecasts of each series are explained, the last ones, and how many steps they are apart. Each is a row.
    background : object, optional
        Series whose windows are the references, in the form of ``series``. By default those that the model was trained on.
    references : int, default 100
        At most this many windows of them, evenly spread.
    effort, tolerance, seed, progress
        As for ``DeepExplainer``.
    **options
        What the library's own ``predict`` is given besides. Of darts: ``horizon`` (its ``n``), ``past_covariates``,
        ``future_covariates``, ``background_past_covariates``, ``background_future_covariates``, and ``data_transformers``, a
        dict as ``historical_forecasts`` takes it. Of neuralforecast: ``alias``, ``futr_df``, ``static_df``,
        ``background_static_df``. Of models of one's own: ``lags``, how many steps the model reads; ``target``, the forecast
        columns, by default the first; ``scaler`` of all columns, with ``transform`` and ``inverse_transform``; ``known``, columns
        that are known beforehand and passed as a second input (rows, ``horizon``, columns); ``parameters``, names of quantiles.

    Returns
    -------
    JointExplanation
        ``explanation["target"]`` (of models of one's own ``"past"``, all columns), and "past_covariates",
        "future_covariates" and "static_covariates" where there are such,
        each (rows, steps, features, outputs); an output for each horizon, series and parameter, which ``horizons``,
        ``forecast_series``, ``forecast_parameters`` and ``forecast_times`` describe, as ``lags`` and ``step_labels`` the steps.
        ``explanation.forecast(series, parameter)`` picks.

    Raises
    ------
    InputError
        If the model is of no known library, is not fitted, or draws at random; a series is too short, is not in
        order or has gaps; a transform of the target is not known; or what is explained is not what the library predicts by
        itself.

    Examples
    --------
    >>> class LastDays(torch.nn.Module):  # forecasts two days from the last three
    ...     def forward(self, past):  # (rows, 3, 1)
    ...         return past[:, -2:, 0] * torch.tensor([0.9, 0.5])
    >>> days = pd.date_range("2024-01-01", periods=30)
    >>> series = pd.DataFrame({"sales": np.arange(30.0)}, index=days)
    >>> explanation = deepshap.forecasting.explain_forecast(LastDays(), series, lags=3, background=series[:20], forecasts=5)
    >>> explanation["past"].values.shape  # rows, lags, columns, horizons
    (5, 3, 1, 2)
    """
    for name, value in (("forecasts", forecasts), ("stride", stride), ("references", references)):
        check_whole(name, value, 1)
    forecaster = adapter_of(model)(model, series, ForecastRequest(forecasts, stride, background, options))
    windows = forecaster.windows()
    outputs = forecaster.outputs
    explainer = DeepExplainer(
        forecaster.function,
        forecaster.references(references),
        feature_names={kind: entry.features for kind, entry in windows.inputs.items()},
        output_names=outputs.names,
        progress=progress,
    )
    values = {kind: entry.values for kind, entry in windows.inputs.items()}
    explanation = explainer(
        values, additional_forward_args=windows.extra or None, effort=effort, tolerance=tolerance, seed=seed
    )
    check_same(windows.predicted, explanation.outputs, forecaster.name, explanation.items()[0][1].values.dtype)
    return _described(explanation, forecaster, windows)


def adapter_of(model: Any) -> Callable[..., Forecaster]:
    """Return the adapter for a model: that of its library, or that for the user's own models."""
    if isinstance(model, type):
        raise InputError(f"explain_forecast takes a fitted model, not the class {model.__name__}.")
    roots = packages(model)
    adapter = next((module for root, module in ADAPTERS.items() if root in roots), "own")
    return import_module(f".{adapter}", __package__).forecaster


def _described(explanation: Any, forecaster: Forecaster, windows: Windows) -> JointExplanation:
    """Put on an explanation what is known of its rows, steps and outputs."""
    outputs = forecaster.outputs
    for kind, windows_input in windows.inputs.items():
        part = explanation[kind]
        _describe_steps(part, windows_input)
        part.horizons, part.forecast_series = outputs.horizon_of, outputs.series_of
        part.forecast_parameters = outputs.parameter_of
        part.forecast_times = np.repeat(windows.times, len(outputs.names) // outputs.horizons, 1)
    explanation.row_ids = windows.ids
    explanation.model = forecaster.name
    explanation.background = {**explanation.background, "description": "windows of the training series"}
    if windows.actual is not None:
        explanation.targets = windows.actual
    return explanation


def _describe_steps(part: Any, source: Input) -> None:
    """Set lags, time stamps and values in the units of the data."""
    if source.times is not None:
        part.lags, part.step_labels = source.lags, source.times
        part.time_label = "time"
    if not np.array_equal(source.values, source.shown):
        part.display_data = source.shown
