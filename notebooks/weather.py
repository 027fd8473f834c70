# %% [markdown]
# # What does a weather forecast rest on?
#
# A GRU reads thirty days of Seattle's weather and the time of the year, and forecasts the highest temperature of each of the next
# seven days. How does it come to its forecasts, and does it look at the right things?
#
# Its inputs are sequences with time stamps, it has two inputs and seven outputs: explanations have the shape (rows, steps,
# features, outputs). This notebook shows how to look at that. It runs in half a minute on a laptop.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn

import deepshap
from deepshap import plots
from deepshap.datasets import seattle_weather

HISTORY, HORIZON = 30, 7
COLUMNS = ["temp_max", "temp_min", "precipitation", "wind"]

weather = seattle_weather()
frame = pd.DataFrame({name: getattr(weather, name) for name in COLUMNS}, index=weather.date)
frame.describe().loc[["mean", "std", "min", "max"]].round(1)

# %% [markdown]
# ## The model
#
# It learns from three years and forecasts the fourth.

# %%
windows = np.lib.stride_tricks.sliding_window_view
history = windows(frame.to_numpy(), HISTORY, axis=0)[:-HORIZON].transpose(0, 2, 1).copy()  # (days, 30, 4)
coming = windows(weather.temp_max[HISTORY:], HORIZON).copy()  # (days, 7)
today = weather.date[HISTORY - 1 : -HORIZON]
angle = 2 * np.pi * (today - today.astype("datetime64[Y]")).astype(int) / 365.25
season = np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
past, test = np.flatnonzero(today < np.datetime64("2014-12-25")), np.flatnonzero(today >= np.datetime64("2014-12-31"))


class Forecaster(nn.Module):
    def __init__(self, mean, scale):
        super().__init__()
        self.gru, self.dropout = nn.GRU(4, 24, batch_first=True), nn.Dropout(0.1)
        self.head = nn.Sequential(nn.Linear(26, 24), nn.Tanh(), nn.Linear(24, HORIZON))
        self.register_buffer("mean", torch.as_tensor(mean))
        self.register_buffer("scale", torch.as_tensor(scale))

    def forward(self, history, season):
        state = self.gru((history - self.mean) / self.scale)[0][:, -1]
        return self.head(self.dropout(torch.cat([state, season], 1))) * self.scale[0] + self.mean[0]


torch.manual_seed(0)
model = Forecaster(history[past].mean((0, 1)), history[past].std((0, 1)))
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
x, s, y = (torch.as_tensor(array[past]) for array in (history, season, coming))
for epoch in range(30):
    for rows in torch.randperm(len(past)).split(64):
        loss = nn.functional.l1_loss(model(x[rows], s[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    schedule.step()
model.eval()

with torch.no_grad():
    forecast = model(torch.as_tensor(history[test]), torch.as_tensor(season[test])).numpy()
error = {"GRU": np.abs(forecast - coming[test]).mean(0), "as today": np.abs(history[test, -1:, 0] - coming[test]).mean(0)}
days = ["in 1 day"] + [f"in {k} days" for k in range(2, HORIZON + 1)]
pd.DataFrame(error, index=days).T.rename_axis("mean absolute error (°C)").round(2)

# %% [markdown]
# ## The explanation
#
# Every second day of 2015, all seven outputs, against 60 days of the past. The model has two inputs, so the explanation has two
# parts. The dates of the steps go into the first one: pictures and tables show them.

# %%
shown = test[::2]
background = np.random.default_rng(0).choice(past, 60, replace=False)
explainer = deepshap.DeepExplainer(
    model,
    [history[background], season[background]],
    feature_names=[COLUMNS, ["season (sine)", "season (cosine)"]],
    output_names=days,
    progress=False,
)
explanation = explainer([history[shown], season[shown]])
explanation.row_ids = today[shown].astype(str)

by_weather, by_season = explanation
by_weather.step_labels = today[shown, None] - np.arange(HISTORY)[::-1]
print(by_weather.values.shape, "(days, steps, features, outputs) and", by_season.values.shape)

# %% [markdown]
# Attributions are in °C, and they **add up**: weather and season together make the difference between a forecast and the average
# forecast.

# %%
total = by_weather.values.sum((1, 2)) + by_season.values.sum(1)
difference = forecast[::2] - by_weather.base_values
print(f"forecasts are up to {np.abs(difference).max():.1f} °C from the average")
print(f"sums of attributions miss that by {np.abs(total - difference).max():.1e} °C at most")

# %% [markdown]
# ## One forecast
#
# 29 June 2015, in a heat wave. What lifts the forecast for the next day above the average?

# %%
tomorrow = by_weather.output("in 1 day")
row = int(np.flatnonzero(today[shown] == np.datetime64("2015-06-29"))[0])
plots.buildup(tomorrow[row], unit="°C");

# %% [markdown]
# Above all the heat of the day itself; the warm nights of the month before add to it. What is missing from the sum of what is
# shown to the output is the season, the other input. The same on the signals themselves:

# %%
plots.signal(tomorrow[row], unit="°C");

# %% [markdown]
# How does that change for the days to come? A row for each day ahead, a column for each day of the past:

# %%
plots.output_matrix(by_weather[row], "temp_max", unit="°C");

# %% [markdown]
# ## The whole year
#
# The further the model looks, the less today's weather counts, and the more the weeks before and the season. Nobody told it to;
# a meteorologist would do the same.

# %%
parts = {
    "today's weather": by_weather.values[:, -1].sum(1),
    "the 29 days before": by_weather.values[:, :-1].sum((1, 2)),
    "the season": by_season.values.sum(1),
}  # each (days, outputs)
strength = pd.DataFrame({name: np.abs(values).mean(0) for name, values in parts.items()}, index=days)

ax = strength.plot(marker="o", color=[plots.RED, "#d55e00", "black"], figsize=(8, 3.6))
ax.set(ylabel="mean |attribution| (°C)", ylim=0)
ax.spines[["top", "right"]].set_visible(False)

# %%
strength.round(2)

# %% [markdown]
# What is it in the weather? Red parts of a bar lift the forecast, hatched blue ones lower it. For the next day it is the last
# maximum; for the day in a week, the minima of the weeks before, which change more slowly.

# %%
week = by_weather.output("in 7 days")
figure, axes = plt.subplots(2, 2, figsize=(14, 8), layout="constrained")
for (left, right), part in zip(axes, (tomorrow, week), strict=True):
    plots.importance(part, unit="°C", ax=left)
    plots.importance_over_time(part, align="end", unit="°C", ax=right)

# %% [markdown]
# Do summer and winter differ in what they make of it? For the day in a week:

# %%
month = pd.DatetimeIndex(today[shown]).month
plots.difference(
    week,
    np.isin(month, (6, 7, 8)),
    np.isin(month, (12, 1, 2)),
    names=("summer", "winter"),
    align="end",
    unit="°C",
);

# %% [markdown]
# Both inputs in one picture, with shap's own beeswarm: sums over time are a matrix that it can draw.

# %%
import shap

both = week.over_time().hstack(by_season.output("in 7 days"))
shap.plots.beeswarm(both, show=False)
plt.gcf().axes[0].set_xlabel("attribution for the temperature in 7 days (°C)");

# %% [markdown]
# ## To take away
#
# A table of every attribution, with dates, for whatever comes next:

# %%
table = by_weather.to_dataframe()
heat = table[(table["row"] == "2015-06-29") & (table["output"] == "in 1 day")]
heat.nlargest(5, "attribution")

# %% [markdown]
# A file, and a page for colleagues who do not program:

# %%
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    explanation.save(Path(folder) / "forecasts.parquet")
    page = explanation.report(Path(folder) / "forecasts.html", title="What the forecasts rest on")
    print(f"a page for the browser, without network: {page.stat().st_size / 1e6:.1f} MB")
