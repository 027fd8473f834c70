"""Forecasts of Seattle's temperatures in three lines: what each day and column adds to each day ahead.

`python examples/explain_forecast.py` trains a GRU to forecast the highest temperature of the next five days from three weeks of
weather, explains its last sixty forecasts with `explain_forecast`, in °C, and writes a report and three pictures.

Needs the extra `deepshap[torch,plots,tables,report]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

import deepshap
from deepshap import plots
from deepshap.datasets import seattle_weather
from deepshap.forecasting import explain_forecast

LAGS, HORIZON, KNOWN = 21, 5, 1096  # three years are known when it is trained


class Forecaster(nn.Module):
    """Reads windows in the units of the data, and forecasts in these units."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", known.mean(0))
        self.register_buffer("scale", known.std(0))
        self.gru, self.head = nn.GRU(known.shape[1], 16, batch_first=True), nn.Linear(16, HORIZON)

    def forward(self, past: Tensor) -> Tensor:
        """Forecast (N, 5) from (N, 21, columns)."""
        state = self.gru((past - self.mean) / self.scale)[0][:, -1]
        return self.head(state) * self.scale[0] + self.mean[0]


def train(known: Tensor, steps: int) -> Forecaster:
    """Train a forecaster of the first column."""
    torch.manual_seed(0)
    model, starts = Forecaster(known), torch.arange(len(known) - LAGS - HORIZON)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(steps):
        first = starts[torch.randint(len(starts), (128,))][:, None]
        loss = nn.functional.l1_loss(
            model(known[first + torch.arange(LAGS)]), known[first + LAGS + torch.arange(HORIZON), 0]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def main(arguments: Sequence[str] | None = None) -> deepshap.JointExplanation:
    """Train, explain, write."""
    parser = argparse.ArgumentParser(description="What do forecasts of the weather rest on?")
    parser.add_argument("--output", type=Path, default=Path("forecast-output"), help="where the report and pictures go")
    parser.add_argument("--steps", type=int, default=200, help="how long to train")
    options = parser.parse_args(arguments)
    weather = seattle_weather()
    columns = {name: getattr(weather, name) for name in ("temp_max", "temp_min", "precipitation", "wind")}
    frame = pd.DataFrame(columns, index=weather.date)
    model = train(torch.tensor(frame.to_numpy()[:KNOWN], dtype=torch.float32), options.steps)

    explanation = explain_forecast(model, frame, lags=LAGS, background=frame[:KNOWN], forecasts=60, progress=False)
    options.output.mkdir(parents=True, exist_ok=True)
    explanation.report(options.output / "why.html")

    pictures = {
        "horizons": plots.horizons(explanation, unit="°C"),
        "forecast": plots.forecast(explanation, row=30, unit="°C"),
        "over_time": plots.forecasts_over_time(explanation, unit="°C"),
    }
    for name, ax in pictures.items():
        ax.figure.savefig(options.output / f"{name}.png", dpi=150)
    print(f"a report and pictures are in {options.output}")
    return explanation


if __name__ == "__main__":
    main()
