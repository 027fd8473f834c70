# %% [markdown]
# # Tutorial: explain a neuralforecast model
#
# This tutorial is for people who forecast with neuralforecast. An LSTM forecasts three series of Seattle's weather five days
# ahead. The series have very different scales. `explain_forecast` uses the library's windows, undoes the scaling of each
# series, and returns attributions in the units of the data. The notebook takes half a minute on a laptop. [Forecasting
# libraries](../guide/forecasting-libraries.md) describes all options.

# %%
import logging
import warnings

logging.disable(logging.WARNING)  # Ray speaks when it is imported
warnings.simplefilter("ignore")

# %%
import numpy as np
import pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MQLoss
from neuralforecast.models import LSTM

from deepshap import plots
from deepshap.datasets import seattle_weather
from deepshap.forecasting import explain_forecast

weather = seattle_weather()
angle = 2 * np.pi * (weather.date - weather.date.astype("M8[Y]")).astype(int) / 365.25
table = pd.concat(
    pd.DataFrame(
        {
            "unique_id": name,
            "ds": weather.date,
            "y": series.astype(float),
            "rain": weather.precipitation.astype(float),
            "sine": np.sin(angle),
            "cosine": np.cos(angle),
        }
    )
    for name, series in {
        "highest (°F)": weather.temp_max * 1.8 + 32,
        "lowest (°C)": weather.temp_min,
        "wind": weather.wind,
    }.items()
)
known = table[table["ds"] < "2015-11-01"]

# %% [markdown]
# ## The model
#
# One LSTM forecasts all series. Rain is known up to today. The time of the year is known in advance.

# %%
quiet = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False, "enable_model_summary": False}
model = LSTM(
    h=5,
    input_size=21,
    encoder_hidden_size=16,
    decoder_hidden_size=16,
    encoder_n_layers=1,
    loss=MQLoss(quantiles=[0.1, 0.5, 0.9]),
    hist_exog_list=["rain"],
    futr_exog_list=["sine", "cosine"],
    scaler_type="identity",
    max_steps=200,
    learning_rate=0.005,
    random_seed=0,
    enable_checkpointing=False,
    **quiet,
)
library = NeuralForecast([model], freq="D", local_scaler_type="standard")
library.fit(known[known["ds"] < "2015-01-01"])

# %% [markdown]
# ## Why these forecasts?

# %%
ahead = table[table["ds"] >= "2015-11-01"].drop(columns=["y", "rain"])
explanation = explain_forecast(library, known, futr_df=ahead, forecasts=15, references=50, progress=False)
explanation

# %%
sums = sum(part.values.reshape(45, -1, 15).sum(1) for _, part in explanation.items())
gap = np.abs(explanation["target"].base_values + sums - explanation.outputs).max()
print(f"difference from the model's output: {gap:.1e}")

# %% [markdown]
# The rows contain the forecasts of all series. The table has the mean absolute contribution of each column to the median, in
# the unit of each series:

# %%
of_series = np.array([name.rsplit(" ", 1)[0] for name in explanation.row_ids])
sizes = {
    (name, column): np.abs(part.values[of_series == name][:, :, i, 1::3].sum(1)).mean()
    for kind, part in explanation.items()
    for i, column in enumerate(part.feature_names)
    for name in dict.fromkeys(of_series)
}
pd.Series(sizes, name="mean |attribution|").unstack().round(2)

# %% [markdown]
# The map shows mean absolute attributions over all rows. The white corner is correct: the library decodes the five horizons
# from the LSTM's last five states, one state per horizon. Tomorrow's forecast therefore does not use the last four days. With
# `recurrent=True` it does.

# %%
ax = plots.horizons(explanation)

# %% [markdown]
# The next plot shows one forecast of the highest temperature between its quantiles:

# %%
ax = plots.forecast(explanation, row=int(np.flatnonzero(of_series == "highest (°F)")[0]), unit="°F")

# %% [markdown]
# The last plot shows the contribution of each lag to the first horizon:

# %%
row = explanation["target"].forecast(parameter="q0.5")[0].output("+1 q0.5")
ax = plots.signal(row, unit="°F")

# %% [markdown]
# `explanation.report("why.html")` writes a report for people who do not use Python.
