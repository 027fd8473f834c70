# %% [markdown]
# # A forecast of darts, explained in three lines
#
# A GRU of darts forecasts the highest temperature of the next five days from three weeks of weather. What do its forecasts rest
# on? `explain_forecast` takes the fitted model as it is, with the scalers as darts keeps them: everything below is in °C. It runs
# in half a minute on a laptop.

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
# A GRU with quantiles, fitted to three years. Scalers stand outside of it, as is usual with darts.

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
# The last forty forecasts, each as if it were made on its evening. The forecasts that are explained are those of `model.predict`,
# or it would be an error.

# %%
explanation = explain_forecast(
    model, rest, past_covariates=sky, data_transformers=scalers, background=train, background_past_covariates=sky, forecasts=40,
    references=50, progress=False,
)
explanation

# %% [markdown]
# Everything adds up, in °C:

# %%
sums = sum(part.values.reshape(40, -1, 15).sum(1) for _, part in explanation.items())
gap = np.abs(explanation["target"].base_values + sums - explanation.outputs).max()
print(f"difference from the model's output: {gap:.1e}")

# %% [markdown]
# Which lags drive which horizon? Here of the median; `parameter="q0.9"` asks for the upper quantile.

# %%
ax = plots.horizons(explanation, unit="°C")

# %% [markdown]
# The white corner says that the forecast of tomorrow knows nothing of the last four days: darts decodes the horizons from the
# GRU's last five states, one for each. Its own `predict` agrees: with another value today, only the last horizon moves.

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
# One of the forecasts, between its quantiles, and what each column adds to each horizon:

# %%
ax = plots.forecast(explanation, row=20, unit="°C")

# %% [markdown]
# And from day to day, three days ahead:

# %%
ax = plots.forecasts_over_time(explanation, horizon=3, unit="°C")

# %% [markdown]
# What makes the forecast uncertain? The difference of two quantiles is explained by the difference of their explanations.

# %%
upper, lower = (explanation.forecast("temp", name) for name in ("q0.9", "q0.1"))
width = {
    name: np.abs((upper[kind].values - lower[kind].values)[:, :, i].sum(1)).mean()
    for kind, part in explanation.items()
    for i, name in enumerate(part.feature_names)
}
pd.Series(width, name="mean effect on the width (°C)").round(2).to_frame()

# %% [markdown]
# Everything in one page, for people without Python: `explanation.report("why.html")`.
