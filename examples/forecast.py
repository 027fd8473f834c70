"""What does a weather forecast rest on, for tomorrow and for a week ahead?

`python examples/forecast.py` trains a GRU on three years of Seattle's weather to forecast the highest temperature of each
of the next seven days from the last thirty days and the time of the year. It then explains all seven outputs for every
day of the fourth year, in °C, and draws what the forecasts rest on.

The model has two inputs, so the attributions are a list of two arrays: one for the history, one for the season.

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
from torch import Tensor, nn

import deepshap
from deepshap import plots
from deepshap.datasets import SeattleWeather, seattle_weather

HISTORY, HORIZON = 30, 7
MEASURED = ["highest temperature", "lowest temperature", "precipitation", "wind"]
PARTS = {"temperature": plots.RED, "precipitation": plots.BLUE, "wind": "#00a087", "season": "#333333"}
TEST_YEAR = np.datetime64("2015")


@dataclass(frozen=True)
class Days:
    """Days on which a forecast is made (evenings, when the day's own weather is known).

    date: (N,). history: (N, 30, 4), the weather up to that day. season: (N, 2), a point on the circle of the year.
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
        self.gru = nn.GRU(len(MEASURED), hidden, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Sequential(nn.Linear(hidden + 2, hidden), nn.Tanh(), nn.Linear(hidden, HORIZON))
        measured = days.history.reshape(-1, len(MEASURED))
        self.register_buffer("mean", torch.as_tensor(measured.mean(axis=0)))
        self.register_buffer("scale", torch.as_tensor(measured.std(axis=0)))

    def forward(self, history: Tensor, season: Tensor) -> Tensor:
        """Forecast (N, 7) from (N, 30, 4) and (N, 2)."""
        states, _ = self.gru((history - self.mean) / self.scale)
        standardised = self.head(self.dropout(torch.cat([states[:, -1], season], dim=1)))
        return standardised * self.scale[0] + self.mean[0]


def days_of(weather: SeattleWeather) -> Days:
    """Cut the record into days with a full history and a full week after them."""
    measured = np.stack([weather.temp_max, weather.temp_min, weather.precipitation, weather.wind], axis=1)
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


