"""What a Keras forecast of tomorrow's temperature rests on.

`python examples/keras_weather.py` trains an LSTM in Keras on three years of Seattle's weather to forecast the highest
temperature of the next day, from the last two weeks and the time of the year. It explains the forecasts of the fourth
year, in °C, and draws which measurement of which day they rest on.

The model has two inputs, so the explanation has two parts, for the history and for the season. The layer that
standardises the inputs is part of the model: inputs and attributions are in the units of the measurements.

Needs the extra `deepshap[keras,plots]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers

import deepshap
from deepshap import plots
from deepshap.datasets import SeattleWeather, seattle_weather

HISTORY = 14
COLUMNS = ["temp_max", "temp_min", "precipitation", "wind"]
TEST_YEAR = np.datetime64("2015-01-01")


@dataclass(frozen=True)
class Days:
    """Days on whose evening a forecast is made.

    date: (N,). history: (N, 14, 4), the weather up to that day; the columns are `COLUMNS`.
    season: (N, 2), sine and cosine of the time of the year. tomorrow: (N,), the highest temperature that came, in °C.
    """

    date: np.ndarray
    history: np.ndarray
    season: np.ndarray
    tomorrow: np.ndarray

    def __len__(self) -> int:
        return len(self.date)

    def __getitem__(self, rows: np.ndarray | slice) -> Days:
        return Days(self.date[rows], self.history[rows], self.season[rows], self.tomorrow[rows])

    @property
    def inputs(self) -> list[np.ndarray]:
        """What the model reads."""
        return [self.history, self.season]


def days_of(weather: SeattleWeather) -> Days:
    """Cut the record into days with a full history and a day after them."""
    measured = np.stack([getattr(weather, column) for column in COLUMNS], axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(measured, HISTORY, axis=0)[:-1].transpose(0, 2, 1)
    date = weather.date[HISTORY - 1 : -1]
    angle = 2 * np.pi * (date - date.astype("datetime64[Y]")).astype(int) / 365.25
    season = np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
    return Days(date, windows.copy(), season, weather.temp_max[HISTORY:])


def train(days: Days, epochs: int, seed: int) -> keras.Model:
    """Train a new forecaster."""
    keras.utils.set_random_seed(seed)
    standardise = layers.Normalization()
    standardise.adapt(days.history)
    history, season = keras.Input((HISTORY, len(COLUMNS)), name="history"), keras.Input((2,), name="season")
    state = layers.Dropout(0.1)(layers.LSTM(16)(standardise(history)))
    hidden = layers.Dense(16, activation="tanh")(layers.Concatenate()([state, season]))
    model = keras.Model([history, season], layers.Dense(1)(hidden))
    model.layers[-1].bias.assign([days.tomorrow.mean()])
    model.compile(keras.optimizers.Adam(5e-3), "mae")
    model.fit(days.inputs, days.tomorrow, batch_size=64, epochs=epochs, verbose=0)
    return model


def explain(model: keras.Model, days: Days, background: Days) -> deepshap.Explanation:
    """Explain the forecasts: parts "history" (N, 14, 4) and "season" (N, 2), in °C."""
    explainer = deepshap.DeepExplainer(
        model,
        background.inputs,
        feature_names=[COLUMNS, ["sine of the year", "cosine of the year"]],
        output_names=["tomorrow"],
    )
    return explainer(days.inputs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, explain, report, draw."""
    options = _options(arguments)
    days = days_of(seattle_weather())
    past, test = days[days.date < TEST_YEAR], days[days.date >= TEST_YEAR][:: options.every]
    model = train(past, options.epochs, options.seed)
    background = past[np.random.default_rng(options.seed).choice(len(past), options.background, replace=False)]

    explanation = explain(model, test, background)
    history, season = (explanation[part].output("tomorrow") for part in range(2))
    forecast = model.predict(test.inputs, verbose=0)[:, 0]
    average = model.predict(background.inputs, verbose=0).mean()
    report(test, forecast, average, history.values, season.values)

    options.output.mkdir(parents=True, exist_ok=True)
    days_ago = np.arange(1 - HISTORY, 1)
    history.step_labels = days_ago
    coldest = history[int(np.argmin(forecast))]
    coldest.step_labels = test.date[np.argmin(forecast)] + days_ago
    for name, draw in {
        "days": lambda: plots.importance_map(history, unit="°C", time_label="days from today"),
        "coldest": lambda: plots.heatmap(coldest, unit="°C"),
    }.items():
        figure = draw().figure
        figure.savefig(options.output / f"{name}.png", dpi=150)
        plt.close(figure)
    print(f"pictures are in {options.output}")


def report(test: Days, forecast: np.ndarray, average: float, history: np.ndarray, season: np.ndarray) -> None:
    """Print how good the forecast is, and what it rests on."""
    print(f"mean absolute error of the forecast: {np.abs(forecast - test.tomorrow).mean():.2f} °C")
    print(f"mean absolute error of today's temperature as the forecast: {_as_today(test):.2f} °C")
    parts = {
        "today": history[:, -1].sum(1),
        "earlier days": history[:, :-1].sum((1, 2)),
        "the season": season.sum(1),
    }
    for part, values in parts.items():
        print(f"share of {part} in a forecast, on average: ±{np.abs(values).mean():.2f} °C")
    gap = np.abs(sum(parts.values()) - (forecast - average)).max()
    print(f"largest additivity gap: {gap:.1e} °C")


def _as_today(test: Days) -> float:
    return float(np.abs(test.history[:, -1, 0] - test.tomorrow).mean())


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What does a Keras forecast of tomorrow's temperature rest on?")
    parser.add_argument("--output", type=Path, default=Path("keras-weather-output"), help="where the pictures go")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training and of the background")
    parser.add_argument("--epochs", type=int, default=30, help="how long to train")
    parser.add_argument("--background", type=int, default=100, help="number of reference days")
    parser.add_argument("--every", type=int, default=1, help="explain only every so manieth day")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
