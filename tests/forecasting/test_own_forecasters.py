"""Forecasters of one's own: windows, scalers, axes, errors; truth is a linear model, and the model itself."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import deepshap
from deepshap.errors import InputError
from deepshap.forecasting import explain_forecast
from deepshap.forecasting.windows import ForecastRequest

LAGS, AHEAD, DAYS = 5, 3, 60
DATES = pd.date_range("2024-01-01", periods=DAYS, freq="D")


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    day = np.arange(DAYS)
    level = 20 + 8 * np.sin(day / 6) + rng.normal(size=DAYS)
    return pd.DataFrame(
        {"level": level, "wind": rng.normal(size=DAYS) * 3, "holiday": (day % 7 == 0) * 1.0}, index=DATES
    )


class Scaler:
    def __init__(self, frame):
        self.mean, self.scale = frame.to_numpy().mean(0), frame.to_numpy().std(0)

    def transform(self, values):
        return (values - self.mean) / self.scale

    def inverse_transform(self, values):
        return values * self.scale + self.mean


class Linear(nn.Module):
    def __init__(self, outputs=(AHEAD,), columns=3):
        super().__init__()
        self.outputs, self.weights = outputs, nn.Linear(LAGS * columns, int(np.prod(outputs)), dtype=torch.float64)

    def forward(self, x):
        return self.weights(x.flatten(1)).unflatten(1, self.outputs)


class Recurrent(nn.Module):
    """Reads the past of all columns, and those that are known beforehand."""

    def __init__(self):
        super().__init__()
        self.past, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4 + AHEAD, AHEAD)

    def forward(self, past, known):
        return self.head(torch.cat([self.past(past)[0][:, -1], known.flatten(1)], 1))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def windows_of(values):
    return np.stack([values[i : i + LAGS] for i in range(len(values) - LAGS + 1)])


def test_linear_forecasters_get_weight_times_distance_in_units_of_the_data(frame):
    scaler, model = Scaler(frame), Linear()
    explanation = explain_forecast(model, frame, lags=LAGS, scaler=scaler, forecasts=2, references=1000)
    weights = model.weights.weight.detach().numpy().reshape(AHEAD, LAGS, 3) / scaler.scale * scaler.scale[0]
    raw = windows_of(frame.to_numpy())
    expected = (raw[-2:] - raw.mean(0))[:, None] * weights  # (rows, horizons, lags, columns)
    np.testing.assert_allclose(explanation["past"].values, np.moveaxis(expected, 1, -1), rtol=1e-9)
    np.testing.assert_allclose(explanation["past"].display_data, raw[-2:], rtol=1e-12)
    scaled = torch.as_tensor(scaler.transform(raw[-2:]))
    own = model(scaled).detach().numpy() * scaler.scale[0] + scaler.mean[0]
    np.testing.assert_allclose(explanation.outputs, own, rtol=1e-12)


@pytest.mark.fast
def test_axes_have_lags_times_and_names(frame):
    explanation = explain_forecast(Linear(), frame, lags=LAGS, forecasts=3, stride=2, references=10)
    past = explanation["past"]
    assert past.feature_names == ["level", "wind", "holiday"]
    assert past.lags.tolist() == [-4, -3, -2, -1, 0]
    assert explanation.horizons.tolist() == [1, 2, 3]
    assert past.output_names == ["+1", "+2", "+3"]
    assert explanation.row_ids.tolist() == ["2024-02-25", "2024-02-27", "2024-02-29"]
    assert (explanation.lags.tolist(), explanation.output_names) == (past.lags.tolist(), past.output_names)
    assert past.step_labels[0].astype("M8[D]").tolist() == DATES[51:56].to_numpy().astype("M8[D]").tolist()
    last = explanation.forecast_times[2].astype("M8[D]").astype(str).tolist()
    assert last == ["2024-03-01", "2024-03-02", "2024-03-03"]
    level = frame["level"].to_numpy()
    np.testing.assert_array_equal(explanation.targets[0], level[56:59])
    np.testing.assert_array_equal(explanation.targets[1], [*level[58:60], np.nan])


def test_what_is_known_beforehand_is_a_second_input(frame):
    model = Recurrent()
    explanation = explain_forecast(
        model, frame, lags=LAGS, horizon=AHEAD, known=["holiday"], forecasts=2, references=20
    )
    past, future = explanation["past"], explanation["future_covariates"]
    assert (future.feature_names, future.lags.tolist()) == (["holiday"], [1, 2, 3])
    end = DAYS - AHEAD
    np.testing.assert_allclose(future.data[1, :, 0], frame["holiday"].to_numpy()[end:])
    x = torch.tensor(frame.to_numpy(), dtype=torch.float32)
    own = model(x[None, end - LAGS : end], x[None, end:, 2:]).detach().numpy()
    np.testing.assert_allclose(explanation.outputs[1:], own, rtol=1e-5)
    sums = past.values.sum((1, 2)) + future.values.sum((1, 2))
    np.testing.assert_allclose(sums, explanation.outputs - past.base_values, atol=1e-6)


def test_several_series_and_parameters(frame):
    tables = {"north": frame, "south": frame.iloc[::-1].set_axis(DATES)}
    model = Linear((AHEAD, 2, 3))
    explanation = explain_forecast(
        model, tables, lags=LAGS, target=["wind", "level"], parameters=["q0.1", "q0.5", "q0.9"], references=10
    )
    assert explanation.row_ids.tolist() == ["north", "south"]
    assert explanation.forecast_series.tolist()[::3] == ["wind", "level"] * AHEAD
    picked = explanation.forecast("level", "q0.9")
    own = model(torch.as_tensor(np.stack([table.to_numpy()[-LAGS:] for table in tables.values()]))).detach().numpy()
    np.testing.assert_allclose(picked.outputs, own[:, :, 1, 2], rtol=1e-12)
    assert explanation.forecast("level").forecast_parameters.tolist() == ["q0.5"] * AHEAD
    with pytest.raises(InputError, match=r"needs series=, one of \['wind', 'level'\]"):
        explanation.forecast()
    with pytest.raises(InputError, match=r"no parameter 'q0\.7'"):
        explanation.forecast("level", "q0.7")


def test_fields_travel(frame, tmp_path):
    explanation = explain_forecast(Linear(), frame, lags=LAGS, forecasts=4, references=10)
    explanation.save(tmp_path / "why.parquet")
    read = deepshap.load(tmp_path / "why.parquet")
    part, again = explanation["past"], read["past"]
    for name in ("lags", "horizons", "forecast_times", "forecast_series", "forecast_parameters", "step_labels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(part, name))
    both = deepshap.Explanation.concat([part[:1], part[1:]])
    np.testing.assert_array_equal(both.forecast_times, part.forecast_times)
    sliced = part[1:3, 2:]
    assert sliced.lags.tolist() == [-2, -1, 0]
    np.testing.assert_array_equal(sliced.forecast_times, part.forecast_times[1:3])
    summed = part.over_time()
    assert summed.lags is None
    assert summed.horizons.tolist() == [1, 2, 3]
    assert part.output("+2").horizons == 2
    back = deepshap.Explanation.from_xarray(part.to_xarray())
    assert (back.lags.tolist(), back.horizons.tolist()) == (part.lags.tolist(), [1, 2, 3])
    with pytest.raises(InputError, match="nothing left"):
        part.output("+2").forecast()


def test_a_report_is_written(frame, tmp_path):
    explanation = explain_forecast(Linear(), frame, lags=LAGS, forecasts=4, references=10)
    page = explanation.report(tmp_path / "why.html")
    assert "+3" in page.read_text(encoding="utf-8")


REFUSED = {
    "no callable": (lambda frame: (3, frame, {"lags": LAGS}), "is none of them"),
    "a class": (lambda frame: (Linear, frame, {"lags": LAGS}), "not the class Linear"),
    "no series": (lambda frame: (Linear(), None, {"lags": LAGS}), "give the series"),
    "no lags": (lambda frame: (Linear(), frame, {}), "lags"),
    "an unknown option": (lambda frame: (Linear(), frame, {"lags": LAGS, "lag": 3}), "no option 'lag'"),
    "an unknown column": (lambda frame: (Linear(), frame, {"lags": LAGS, "target": "rain"}), "no column 'rain'"),
    "gaps": (lambda frame: (Linear(), frame.mask(frame["wind"] > 2), {"lags": LAGS}), "gaps"),
    "too short": (lambda frame: (Linear(), frame[:7], {"lags": LAGS, "forecasts": 4}), "too short"),
    "words": (lambda frame: (Linear(), frame.assign(wind="strong"), {"lags": LAGS}), "table of numbers"),
    "outputs": (lambda frame: (Linear((AHEAD, 2)), frame, {"lags": LAGS}), r"returns \(3, 2\) for each window"),
    "times that fall": (
        lambda frame: (Linear(), frame[::-1], {"lags": LAGS}),
        "must rise from row to row, and 2024-02-28 stands behind 2024-02-29",
    ),
    "numbers out of order": (
        lambda frame: (Linear(), frame.set_axis([*range(1, DAYS), 0]), {"lags": LAGS}),
        "0 stands behind 59",
    ),
    "a time twice": (lambda frame: (Linear(), pd.concat([frame, frame[-1:]]), {"lags": LAGS}), "is there twice"),
    "days that are missing": (
        lambda frame: (Linear(), frame.drop(DATES[[20, 21, 40]]), {"lags": LAGS}),
        "some are missing: 2024-01-21 00:00:00, 2024-01-22 00:00:00, 2024-02-10 00:00:00. .* fill it",
    ),
    "days that the background lacks": (
        lambda frame: (Linear(), frame, {"lags": LAGS, "background": frame.drop(DATES[9])}),
        "^background: most times are 1 days .* 2024-01-10",
    ),
    "times of words": (
        lambda frame: (Linear(), frame.set_axis([f"day {i}" for i in range(DAYS)]), {"lags": LAGS}),
        "of times or numbers, .* not 'day 0'",
    ),
    "another number of columns": (
        lambda frame: (Linear(columns=2), frame, {"lags": LAGS}),
        r"^Linear, called with windows .* of shape \(5, 3\) for each row, failed: RuntimeError: mat1",
    ),
    "arrays of NumPy": (
        lambda frame: (lambda x: x.numpy()[:, -1], frame, {"lags": LAGS}),
        "returns a ndarray for windows that are tensors of torch",
    ),
    "another background": (
        lambda frame: (Linear(), frame, {"lags": LAGS, "background": frame[["wind"]]}),
        "the background has columns",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_explained_is_refused(case, frame):
    given, message = REFUSED[case]
    model, series, options = given(frame)
    with pytest.raises(InputError, match=message):
        explain_forecast(model, series, **options)


WEEKDAYS = pd.bdate_range("2024-01-01", periods=DAYS + 3)
CALENDARS = {
    "months": (pd.date_range("2020-01-31", periods=DAYS, freq="ME"), ["2025-01-31", "2025-02-28", "2025-03-31"]),
    "working days": (WEEKDAYS[:DAYS], ["2024-03-25", "2024-03-26", "2024-03-27"]),
    "working days and holidays": (WEEKDAYS.delete([5, 20, 33]), ["2024-03-28", "2024-03-29", "2024-04-01"]),
    "days where clocks are changed": (
        pd.date_range("2024-02-01", periods=DAYS, tz="Europe/Berlin"),
        ["2024-04-01", "2024-04-02", "2024-04-03"],
    ),
    "periods": (pd.period_range("2020-01", periods=DAYS, freq="M"), ["2025-01-01", "2025-02-01", "2025-03-01"]),
    "times without a rhythm": (
        pd.DatetimeIndex(DATES[0] + pd.to_timedelta(np.cumsum(np.arange(DAYS) % 7 + 1), unit="D")),
        ["2024-08-26", "2024-08-30", "2024-09-03"],
    ),
}


@pytest.mark.parametrize("case", CALENDARS)
def test_the_calendar_goes_on_behind_the_end(case, frame):
    index, coming = CALENDARS[case]
    explanation = explain_forecast(Linear(), frame.set_axis(index), lags=LAGS, references=10)
    assert explanation.forecast_times[0].astype("M8[D]").astype(str).tolist() == coming


def test_hours_are_neighbours_where_clocks_are_changed(frame):
    index = pd.date_range("2024-03-30", periods=DAYS, freq="h", tz="Europe/Berlin")
    explanation = explain_forecast(Linear(), frame.set_axis(index), lags=LAGS, references=10)
    ahead = explanation.forecast_times[0] - explanation["past"].step_labels[0][-1]
    assert (ahead / np.timedelta64(1, "h")).tolist() == [1, 2, 3]


def test_an_adapter_without_options_says_so():
    with pytest.raises(InputError, match="knows no option 'lags'; it takes none beside the parameters"):
        ForecastRequest(options={"lags": 3}).read_options("a library")


def test_scalers_that_are_not_affine_are_refused(frame):
    class Logarithm:
        transform, inverse_transform = staticmethod(np.cbrt), staticmethod(lambda x: x**3)

    with pytest.raises(InputError, match="not affine"):
        explain_forecast(Linear(), frame, lags=LAGS, scaler=Logarithm())


def test_a_forecast_that_is_not_the_models_own_is_an_error(frame):
    class Strange(Scaler):
        def inverse_transform(self, values):  # affine where it is tried, and another one where it is used
            return super().inverse_transform(values) + (len(values) == AHEAD)

    with pytest.raises(InputError, match="what would be explained is not what the library forecasts"):
        explain_forecast(Linear(), frame, lags=LAGS, scaler=Strange(frame))


def test_the_model_keeps_its_mode(frame):
    model = nn.Sequential(nn.Flatten(1), nn.Dropout(), nn.Linear(LAGS * 3, AHEAD)).train()
    explain_forecast(model, frame, lags=LAGS, references=10)
    assert all(part.training for part in model.modules())
