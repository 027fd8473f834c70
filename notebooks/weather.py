# %% [markdown]
# # Tutorial: from your time series to a report (PyTorch)
#
# This tutorial is for people who have a table of measurements over time and want to know what a forecast of them depends on.
# You train a GRU in PyTorch, explain its forecasts, check the explanation, draw it, and write a report. The notebook takes half
# a minute on a laptop. The [same tutorial for Keras](weather_keras.md) differs in the model only.

# %%
import numpy as np
import pandas as pd
import torch
from torch import nn

import deepshap
from deepshap import plots
from deepshap.datasets import seattle_weather

# %% [markdown]
# ## 1. Load the table
#
# The table has one line per day and one column per measurement. To use your own data, replace the definition of `frame` by
# `frame = pd.read_csv("yours.csv", index_col=0, parse_dates=True)`, and set `TARGET` to the column to forecast.

# %%
weather = seattle_weather()
columns = ["temp_max", "temp_min", "precipitation", "wind"]
frame = pd.DataFrame({name: getattr(weather, name) for name in columns}, index=pd.DatetimeIndex(weather.date))
TARGET = "temp_max"

angle = 2 * np.pi * frame.index.day_of_year / 365.25
frame["sine of year"], frame["cosine of year"] = np.sin(angle), np.cos(angle)
frame.head(3).round(2)

# %% [markdown]
# ## 2. Cut windows
#
# Each row of the model's input is a window of 30 days. The model forecasts the target on the seven days after the window. The
# last year is for testing.

# %%
HISTORY, HORIZON = 30, 7
windows = np.lib.stride_tricks.sliding_window_view
x = windows(frame.to_numpy("float32"), HISTORY, axis=0)[:-HORIZON].transpose(0, 2, 1).copy()
y = windows(frame[TARGET].to_numpy("float32")[HISTORY:], HORIZON).copy()
dates = windows(frame.index.to_numpy(), HISTORY)[:-HORIZON]
train, test = np.arange(len(x) - 365 - HORIZON), np.arange(len(x) - 365, len(x))
print(x.shape, "rows, days, columns;", y.shape, "rows, days ahead")

# %% [markdown]
# ## 3. Train the model
#
# The model scales its inputs and its output itself. Inputs, forecasts and attributions then have the units of the table.


# %%
class Forecaster(nn.Module):
    def __init__(self, mean, scale, target):
        super().__init__()
        self.target = target
        self.register_buffer("mean", torch.as_tensor(mean))
        self.register_buffer("scale", torch.as_tensor(scale))
        self.gru, self.dropout = nn.GRU(len(mean), 24, batch_first=True), nn.Dropout(0.1)
        self.head = nn.Linear(24, HORIZON)

    def forward(self, x):
        states, _ = self.gru((x - self.mean) / self.scale)
        scaled = self.head(self.dropout(states[:, -1]))
        return scaled * self.scale[self.target] + self.mean[self.target]


torch.manual_seed(0)
model = Forecaster(x[train].mean((0, 1)), x[train].std((0, 1)), list(frame).index(TARGET))
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
inputs, targets = torch.as_tensor(x[train]), torch.as_tensor(y[train])
for epoch in range(20):
    for rows in torch.randperm(len(train)).split(64):
        loss = nn.functional.l1_loss(model(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    schedule.step()
model.eval()

with torch.no_grad():
    forecast = model(torch.as_tensor(x[test])).numpy()

# %% [markdown]
# Explain a model only if it is useful. From two days ahead on, this model is better than a forecast that repeats today's
# temperature. For the next day, both are about equally good.

# %%
ahead = [f"+{days} days" for days in range(1, HORIZON + 1)]
today = x[test, -1:, list(frame).index(TARGET)]
errors = {"GRU": np.abs(forecast - y[test]).mean(0), "as today": np.abs(today - y[test]).mean(0)}
pd.DataFrame(errors, index=ahead).T.rename_axis("mean absolute error (°C)").round(2)

# %% [markdown]
# ## 4. Explain
#
# The background is a sample of the training data. Each forecast is explained relative to the mean forecast for the background.
# See [how to choose a background](../guide/background.md).

# %%
background = x[np.random.default_rng(0).choice(train, 60, replace=False)]
explainer = deepshap.DeepExplainer(model, background, feature_names=list(frame), output_names=ahead, progress=False)

shown = test[::3]  # every third day
explanation = explainer(x[shown])
explanation.row_ids = np.datetime_as_string(dates[shown, -1], unit="D")
explanation.step_labels = dates[shown]
explanation.targets = y[shown]
print(explanation.values.shape, "rows, days, columns, days ahead")

# %% [markdown]
# ## 5. Check
#
# The attributions of each forecast sum to the forecast minus the base value. deepshap checks the sums in each call.

# %%
total = explanation.base_values + explanation.values.sum((1, 2))
print(f"largest difference from the model's output: {np.abs(total - forecast[::3]).max():.1e} °C")

# %% [markdown]
# Correct sums do not show that the model needs the inputs with high attributions. `faithfulness` replaces inputs by those of
# the background and measures the change of the output ([details](../guide/faithfulness.md)).

# %%
deepshap.faithfulness(explainer, x[shown[::6]], target="+1 days")

# %% [markdown]
# ## 6. Look at one forecast
#
# What raises or lowers the forecast for the next day? Red raises it, blue lowers it. We take the highest forecast.

# %%
tomorrow = explanation.output("+1 days")
row = int(forecast[::3, 0].argmax())
plots.heatmap(tomorrow[row], unit="°C");

# %%
plots.buildup(tomorrow[row], unit="°C");

# %% [markdown]
# The next map has one line per day ahead and one column per day of the past. It shows one measurement:

# %%
plots.output_matrix(explanation[row], "temp_max", unit="°C");

# %% [markdown]
# ## 7. Look at all forecasts
#
# Which columns matter, and on which days? A bar has the mean absolute attribution of a column.

# %%
plots.importance(tomorrow, unit="°C");

# %%
plots.importance_over_time(tomorrow, unit="°C");

# %%
plots.importance_over_time(explanation.output("+7 days"), unit="°C");

# %% [markdown]
# Summer and winter differ in what they use. For the forecast seven days ahead:

# %%
month = pd.DatetimeIndex(dates[shown, -1]).month
plots.difference(
    explanation.output("+7 days"), np.isin(month, (6, 7, 8)), np.isin(month, (12, 1, 2)), names=("summer", "winter"), unit="°C"
);

# %% [markdown]
# ## 8. Save, and write the report
#
# `to_dataframe` returns one line per attribution. `save` writes Parquet, and `deepshap.load` reads it. `report` writes one HTML
# file that opens in a browser without a network connection ([what it shows](../report.md)).

# %%
table = tomorrow.to_dataframe()
table.nlargest(3, "attribution")

# %%
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())  # your folder
explanation.save(folder / "forecasts.parquet")
page = explanation.report(folder / "forecasts.html", title="What the forecasts depend on (°C)")
print(f"{page.name}: {page.stat().st_size / 1e6:.1f} MB")
