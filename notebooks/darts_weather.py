# %% [markdown]
# # Tutorial: explain a darts model
#
# This tutorial is for people who forecast with darts. A GRU forecasts the highest temperature of the next five days from three
# weeks of weather. `explain_forecast` explains the fitted model and undoes the scaling by darts, so all values on this page are
# in °C. The notebook takes half a minute on a laptop. [Forecasting libraries](../guide/forecasting-libraries.md) describes all
# options.

# %%
import logging
import warnings

import numpy as np
import pandas as pd
from darts import TimeSeries
from darts.dataprocessing.transformers import Scaler
from darts.models import BlockRNNModel
from darts.utils.likelihood_models import QuantileRegression

from deepshap import plots
from deepshap.datasets import seattle_weather
from deepshap.forecasting import explain_forecast

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")
weather = seattle_weather()
frame = pd.DataFrame(
    {"temp": weather.temp_max, "rain": weather.precipitation, "wind": weather.wind}, index=weather.date
)
temp = TimeSeries.from_series(frame["temp"])
sky = TimeSeries.from_dataframe(frame[["rain", "wind"]])
train, rest = temp[:1096], temp[:-60]

# %% [markdown]
# ## The model
#
# The model is a GRU that forecasts quantiles, fitted to three years. The scalers are separate objects, as is usual in darts.

# %%
scalers = {"series": Scaler(), "past_covariates": Scaler()}
quiet = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False, "enable_model_summary": False}
model = BlockRNNModel(
    input_chunk_length=21, output_chunk_length=5, model="GRU", hidden_dim=16, batch_size=64, n_epochs=8,
    optimizer_kwargs={"lr": 0.01}, likelihood=QuantileRegression([0.1, 0.5, 0.9]), random_state=0, pl_trainer_kwargs=quiet,
)
model.fit(
    scalers["series"].fit_transform(train),
    past_covariates=scalers["past_covariates"].fit_transform(sky),
)

# %% [markdown]
# ## Why these forecasts?
#
# We explain the last forty forecasts. `explain_forecast` raises an error if the explained forecasts differ from those of
# `model.predict`.

# %%
explanation = explain_forecast(
    model, rest, past_covariates=sky, data_transformers=scalers, background=train, background_past_covariates=sky, forecasts=40,
    references=50, progress=False,
)
explanation

# %% [markdown]
# The attributions of all inputs add up, in °C:

# %%
sums = sum(part.values.reshape(40, -1, 15).sum(1) for _, part in explanation.items())
gap = np.abs(explanation["target"].base_values + sums - explanation.outputs).max()
print(f"difference from the model's output: {gap:.1e}")

# %% [markdown]
# Which lags drive which horizon? The plot shows the median; `parameter="q0.9"` selects the upper quantile.

# %%
ax = plots.horizons(explanation, unit="°C")

# %% [markdown]
# The white corner shows that tomorrow's forecast does not use the last four days. darts decodes the five horizons from the
# GRU's last five states, one state per horizon. `predict` confirms this: if today's value changes, only the last horizon
# changes.

# %%
scaled, covariates = scalers["series"].transform(rest), scalers["past_covariates"].transform(sky)
other = scaled.values().copy()
other[-1] += 1
changed = scaled.with_values(other)
moved, as_it_was = (
    model.predict(5, series, past_covariates=covariates, predict_likelihood_parameters=True, verbose=False).values()[:, 1]
    for series in (changed, scaled)
)
print("moved by today's value:", np.abs(moved - as_it_was) > 1e-6)

# %% [markdown]
# The next plot shows one forecast between its quantiles, and the contribution of each column to each horizon:

# %%
ax = plots.forecast(explanation, row=20, unit="°C")

# %% [markdown]
# The next plot shows forecasts three days ahead, from day to day:

# %%
ax = plots.forecasts_over_time(explanation, horizon=3, unit="°C")

# %% [markdown]
# What makes the forecast uncertain? The difference of two explanations explains the difference of two quantiles, which is the
# width of the interval.

# %%
upper, lower = (explanation.forecast("temp", name) for name in ("q0.9", "q0.1"))
width = {
    name: np.abs((upper[kind].values - lower[kind].values)[:, :, i].sum(1)).mean()
    for kind, part in explanation.items()
    for i, name in enumerate(part.feature_names)
}
pd.Series(width, name="mean effect on the width (°C)").round(2).to_frame()

# %% [markdown]
# `explanation.report("why.html")` writes a report for people who do not use Python.
