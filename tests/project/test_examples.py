"""The examples run, in short, and what they explain adds up."""

import importlib.util
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from deepshap.datasets import seattle_weather

EXAMPLES = Path(__file__).parents[2] / "examples"


def loaded(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def forecast():
    return loaded("forecast")


@pytest.fixture(scope="module")
def days(forecast):
    return forecast.days_of(seattle_weather())


def test_a_day_has_its_past_and_its_coming_week(days):
    weather = seattle_weather()
    row = 100
    today = np.flatnonzero(weather.date == days.date[row])[0]
    np.testing.assert_array_equal(days.history[row, :, 0], weather.temp_max[today - 29 : today + 1])
    np.testing.assert_array_equal(days.history[row, :, 3], weather.wind[today - 29 : today + 1])
    np.testing.assert_array_equal(days.coming[row], weather.temp_max[today + 1 : today + 8])


def test_the_parts_of_every_forecast_add_up(forecast, days):
    model = forecast.train(days[:200], epochs=2, seed=0)
    test, background = days[1000::60], days[:200:20]
    parts = forecast.explain(model, test, background)
    assert list(parts) == list(forecast.COLORS)
    difference = forecast.predict(model, test) - forecast.predict(model, background).mean(axis=0)
    assert difference.shape == (len(test), 7)
    np.testing.assert_allclose(sum(parts.values()), difference, atol=1e-4)


def test_a_short_run_reports_and_draws(forecast, tmp_path, capsys):
    forecast.main(["--epochs", "2", "--every", "60", "--background", "10", "--output", str(tmp_path)])
    report = capsys.readouterr().out
    assert "as today" in report
    gap = next(line for line in report.splitlines() if line.startswith("largest additivity gap"))
    assert float(gap.split()[3]) < 1e-3
    for name in ("year", "horizon"):
        assert matplotlib.image.imread(tmp_path / f"{name}.png").std() > 0.05


# ---------------------------------------------------------------------- Keras
def printed(report, beginning):
    """The first number of the line that begins so."""
    line = next(line for line in report.splitlines() if line.startswith(beginning))
    return float(line.removeprefix(beginning).strip(" :%").split()[0].strip("%"))


@pytest.mark.wide
def test_the_keras_forecast_in_short(tmp_path, capsys):
    options = ["--epochs", "2", "--every", "30", "--background", "10", "--output", str(tmp_path)]
    loaded("keras_weather").main(options)
    report = capsys.readouterr().out
    assert printed(report, "largest additivity gap") < 1e-3
    for name in ("days", "coldest"):
        assert matplotlib.image.imread(tmp_path / f"{name}.png").std() > 0.05


@pytest.mark.wide
def test_the_keras_speakers_in_short(tmp_path, capsys):
    options = ["--epochs", "2", "--every", "30", "--background", "10", "--output", str(tmp_path)]
    loaded("keras_speakers").main(options)
    report = capsys.readouterr().out
    assert printed(report, "recordings whose speaker is named right") > 30
    assert printed(report, "largest additivity gap") < 1e-3
    assert printed(report, "largest attribution behind the end of a recording") == 0
    for name in ("recording", "moments"):
        assert matplotlib.image.imread(tmp_path / f"{name}.png").std() > 0.05


def test_forecasts_are_explained_in_three_lines(tmp_path):
    explanation = loaded("explain_forecast").main(["--steps", "5", "--output", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"why.html", "horizons.png", "forecast.png", "over_time.png"}
    past = explanation["past"]
    sums = past.values.sum((1, 2), dtype=float)
    np.testing.assert_allclose(sums, explanation.outputs - past.base_values, atol=1e-4)
    np.testing.assert_array_equal(explanation.targets[0], seattle_weather().temp_max[-59:-54])
