# %% [markdown]
# # A recurrent model of neuralforecast, explained in three lines
#
# neuralforecast's own explanations leave recurrent models out with integrated gradients. Here an LSTM forecasts three series of
# Seattle's weather, at very different scales, five days ahead. `explain_forecast` makes the library's own windows, undoes the
# scaling of each series, and returns attributions in the units of the data. It runs in half a minute on a laptop.

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
# One LSTM for all series. Rain is known up to today, the time of the year beforehand.

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
# Rows are forecasts of all series. The mean sizes of what the columns add to the median, in each series' own unit:

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
# The map of horizons over lags, of the mean sizes over all rows. Its white corner is no mistake: the library decodes the horizons
# from the LSTM's last five states, one for each, so the forecast of tomorrow knows nothing of the last four days. With
# `recurrent=True` it does.

# %%
ax = plots.horizons(explanation)

# %% [markdown]
# One forecast of the highest temperature, between its quantiles:

# %%
ax = plots.forecast(explanation, row=int(np.flatnonzero(of_series == "highest (°F)")[0]), unit="°F")

# %% [markdown]
# And how one lag after another makes it up, of the first horizon:

# %%
row = explanation["target"].forecast(parameter="q0.5")[0].output("+1 q0.5")
ax = plots.signal(row, unit="°F")

# %% [markdown]
# Everything in one page, for people without Python: `explanation.report("why.html")`.
