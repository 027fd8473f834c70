"""What a weather forecast rests on, for tomorrow and for a week ahead.

`python examples/forecast.py` trains a GRU on three years of Seattle's weather to forecast the highest
temperature of each of the next seven days, from the last thirty days and the time of the year. It then
explains the seven outputs on every day of the fourth year, in °C, and draws what they rest on.

The model has two inputs, so the attributions are a list of two arrays, for the history and for the season.

Needs the extra `deepshap[torch,plots]`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import deepshap
from deepshap import plots
from deepshap.datasets import SeattleWeather, seattle_weather

HISTORY, HORIZON = 30, 7
COLUMNS = ["temp_max", "temp_min", "precipitation", "wind"]
COLORS = {
    "today's temperature": plots.RED,
    "earlier temperatures": "#ff9ab8",
    "precipitation": plots.BLUE,
    "wind": "#e69f00",
    "season": "#444444",
}
TEST_YEAR = np.datetime64("2015-01-01")


@dataclass(frozen=True)
class Days:
    """Days on whose evening a forecast is made.

    date: (N,). history: (N, 30, 4), the weather up to that day; the columns are `COLUMNS`.
    season: (N, 2), sine and cosine of the time of the year.
    coming: (N, 7), the highest temperatures that followed, in °C.
    """

    date: np.ndarray
    history: np.ndarray
    season: np.ndarray
    coming: np.ndarray

    def __len__(self) -> int:
        return len(self.date)

    def __getitem__(self, rows: np.ndarray | slice) -> Days:
        return Days(self.date[rows], self.history[rows], self.season[rows], self.coming[rows])

    @property
    def inputs(self) -> list[np.ndarray]:
        """What the model reads."""
        return [self.history, self.season]


class Forecaster(nn.Module):
    """A GRU reads the history; its last state and the season give seven temperatures."""

    def __init__(self, days: Days, hidden: int = 24):
        super().__init__()
        self.gru = nn.GRU(len(COLUMNS), hidden, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Sequential(nn.Linear(hidden + 2, hidden), nn.Tanh(), nn.Linear(hidden, HORIZON))
        measured = days.history.reshape(-1, len(COLUMNS))
        self.register_buffer("mean", torch.as_tensor(measured.mean(axis=0)))
        self.register_buffer("scale", torch.as_tensor(measured.std(axis=0)))

    def forward(self, history: Tensor, season: Tensor) -> Tensor:
        """Forecast (N, 7) from (N, 30, 4) and (N, 2)."""
        states, _ = self.gru((history - self.mean) / self.scale)
        standardised = self.head(self.dropout(torch.cat([states[:, -1], season], dim=1)))
        return standardised * self.scale[0] + self.mean[0]


def days_of(weather: SeattleWeather) -> Days:
    """Cut the record into days with a full history and a full week after them."""
    measured = np.stack([getattr(weather, column) for column in COLUMNS], axis=1)
    windows = np.lib.stride_tricks.sliding_window_view
    day_of_year = (weather.date - weather.date.astype("datetime64[Y]")).astype(int)
    angle = 2 * np.pi * day_of_year / 365.25
    season = np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
    known = slice(HISTORY - 1, -HORIZON)
    return Days(
        date=weather.date[known],
        history=windows(measured, HISTORY, axis=0)[:-HORIZON].transpose(0, 2, 1).copy(),
        season=season[known],
        coming=windows(weather.temp_max[HISTORY:], HORIZON).copy(),
    )


def train(days: Days, epochs: int, seed: int) -> Forecaster:
    """Train a new forecaster; the same seed gives the same one."""
    torch.manual_seed(seed)
    model = Forecaster(days)
    history, season, coming = map(torch.as_tensor, (*days.inputs, days.coming))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(days)).split(64):
            loss = nn.functional.l1_loss(model(history[rows], season[rows]), coming[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def explain(model: Forecaster, days: Days, background: Days) -> dict[str, np.ndarray]:
    """Explain the seven outputs of every day: by how much each part of `COLORS` moves them (N, 7), in °C."""
    explainer = deepshap.DeepExplainer(model, background.inputs)
    history, season = explainer.shap_values(days.inputs)  # (N, 30, 4, 7) and (N, 2, 7)
    temperature = history[:, :, :2].sum(axis=2)
    parts = (
        temperature[:, -1],
        temperature[:, :-1].sum(axis=1),
        history[:, :, 2].sum(axis=1),
        history[:, :, 3].sum(axis=1),
        season.sum(axis=1),
    )
    return dict(zip(COLORS, parts, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, explain, report, draw."""
    options = _options(arguments)
    days = days_of(seattle_weather())
    past = days[days.date + HORIZON < TEST_YEAR]
    test = days[days.date + 1 >= TEST_YEAR][:: options.every]
    model = train(past, options.epochs, options.seed)
    background = past[np.random.default_rng(options.seed).choice(len(past), options.background, replace=False)]

    start = time.perf_counter()
    attributions = explain(model, test, background)
    seconds = time.perf_counter() - start

    forecast = predict(model, test)
    average = predict(model, background).mean(axis=0)
    report(past, test, forecast)
    gap = np.abs(sum(attributions.values()) - (forecast - average)).max()
    print(f"explained: {len(test)} days × {HORIZON} outputs × {len(background)} references, {seconds:.1f} s")
    print(f"largest additivity gap: {gap:.1e} °C")

    options.output.mkdir(parents=True, exist_ok=True)
    figures = {
        "year": draw_year(test, forecast[:, 0], attributions, average[0]),
        "horizon": draw_horizon(attributions),
    }
    for name, figure in figures.items():
        figure.savefig(options.output / f"{name}.png", dpi=150)
        plt.close(figure)
    print(f"pictures are in {options.output}")


@torch.no_grad()
def predict(model: Forecaster, days: Days) -> np.ndarray:
    """Forecast (N, 7), in °C."""
    return model(*map(torch.as_tensor, days.inputs)).numpy()


def report(past: Days, test: Days, forecast: np.ndarray) -> None:
    """Print the mean absolute errors of the model and of two simple forecasts."""
    rivals = {
        "GRU": forecast,
        "as today": test.history[:, -1:, 0],
        "usual for the season": usual(past, test),
    }
    print("mean absolute error (°C)  tomorrow  in a week")
    for name, values in rivals.items():
        error = np.abs(values - test.coming).mean(axis=0)
        print(f"{name:24}  {error[0]:8.2f}  {error[-1]:9.2f}")


def usual(past: Days, test: Days) -> np.ndarray:
    """Average what followed in past years within ten days of the same time of the year (N, 7)."""
    near = test.season @ past.season.T > np.cos(2 * np.pi * 10.5 / 365.25)
    return near @ past.coming / near.sum(axis=1, keepdims=True)


def draw_year(test: Days, forecast: np.ndarray, attributions: dict[str, np.ndarray], average: float) -> Figure:
    """Draw the forecasts for tomorrow through the year, and below what makes them up."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 7), sharex=True, layout="constrained")
    tomorrow = test.date + 1
    top.plot(tomorrow, test.coming[:, 0], color="darkgrey", linewidth=0.9, label="what came")
    top.plot(tomorrow, forecast, color="black", linewidth=1.6, label="forecast on the evening before")
    top.axhline(average, color="grey", linestyle=":", label=f"average forecast ({average:.1f} °C)")
    for part, values in attributions.items():
        bottom.plot(tomorrow, values[:, 0], color=COLORS[part], linewidth=1.6, label=part)
    bottom.axhline(0, color="grey", linestyle=":")
    top.set_ylabel("highest temperature (°C)")
    bottom.set_ylabel("attribution (°C)")
    titles = (
        "Tomorrow's highest temperature in Seattle",
        "What lifts the forecast above its average, or lowers it",
    )
    for ax, title in zip((top, bottom), titles, strict=True):
        ax.set_title(title, pad=26)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5, frameon=False)
    return figure


def draw_horizon(attributions: dict[str, np.ndarray]) -> Figure:
    """Draw how much each part moves the forecast, one to seven days ahead."""
    figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    ahead = np.arange(1, HORIZON + 1)
    for part, values in attributions.items():
        ax.plot(ahead, np.abs(values).mean(axis=0), color=COLORS[part], marker="o", linewidth=2, label=part)
    ax.set(
        xlabel="days ahead",
        ylabel="mean |attribution| (°C)",
        ylim=(0, None),
        title="What the forecast rests on, the further it looks",
    )
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return figure


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What does a weather forecast rest on?")
    parser.add_argument("--output", type=Path, default=Path("forecast-output"), help="where the pictures go")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training and of the background")
    parser.add_argument("--epochs", type=int, default=30, help="how long to train")
    parser.add_argument("--background", type=int, default=100, help="number of reference days")
    parser.add_argument("--every", type=int, default=1, help="explain only every so manieth day")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
