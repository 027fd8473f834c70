"""Pictures of forecasts: the numbers that are drawn, and what they refuse."""

import numpy as np
import pytest
import torch
from plotting import explanation, image, no_window, panel, row_names  # noqa: F401
from torch import nn

from deepshap import plots
from deepshap.errors import InputError
from deepshap.forecasting import explain_forecast

LAGS, AHEAD, DAYS = 5, 3, 40
DATES = np.datetime64("2024-01-01") + np.arange(DAYS)
pytestmark = pytest.mark.usefixtures("no_window")


class Model(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.outputs, self.head = outputs, nn.Linear(LAGS * 4 + AHEAD, int(np.prod(outputs)))

    def forward(self, past, known):
        return torch.tanh(self.head(torch.cat([past.flatten(1), known.flatten(1)], 1))).unflatten(1, self.outputs)


class Frame:
    """As much of a table as explain_forecast needs."""

    def __init__(self, values):
        self.values, self.index, self.columns = values, DATES[: len(values)], ["level", "rain", "wind", "holiday"]

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype)


def explained(forecasts=6, outputs=(AHEAD,), **options):
    torch.manual_seed(0)
    frame = Frame(np.random.default_rng(0).normal(size=(DAYS, 4)))
    told = {"lags": LAGS, "horizon": AHEAD, "known": ["holiday"], "forecasts": forecasts, "references": 8}
    return explain_forecast(Model(outputs), frame, **told, **options)


def test_a_map_of_horizons_over_lags_for_each_column():
    one = explained(1)
    ax = plots.horizons(one, max_display=8)
    np.testing.assert_allclose(image(panel(ax, "rain")), one["past"].values[0, :, 1].T)
    past, ahead = panel(ax, "holiday (past)"), panel(ax, "holiday (future covariates)")
    np.testing.assert_allclose(image(past), one["past"].values[0, :, 3].T)
    np.testing.assert_allclose(image(ahead), one["future_covariates"].values[0, :, 0].T)
    assert past.get_xlim() == ahead.get_xlim() == (-4.5, 3.5)
    assert row_names(panel(ax, "rain")) == ["+1", "+2", "+3"]


def test_of_many_forecasts_mean_sizes():
    many = explained(6)
    ax = plots.horizons(many, max_display=8)
    np.testing.assert_allclose(image(panel(ax, "wind")), np.abs(many["past"].values[:, :, 2].astype(float)).mean(0).T)


def test_weak_columns_are_summed():
    one = explained(1)
    ax = plots.horizons(one, max_display=2)
    names = ["level", "rain", "wind", "holiday (past)"]
    columns = {name: one["past"].values[0, :, i] for i, name in enumerate(names)}  # (lags, horizons)
    columns["holiday (future covariates)"] = one["future_covariates"].values[0, :, 0]
    drawn = {child.get_label() for child in ax.child_axes} & set(columns)
    sizes = sorted(columns, key=lambda name: -np.abs(columns[name]).sum())
    assert drawn == set(sizes[:2])
    rest = sum(columns[name].sum(0) for name in sizes[2:])
    np.testing.assert_allclose(image(panel(ax, "other 3"))[:, 0], rest, atol=1e-6)


def lines(ax):
    return {line.get_label(): line.get_ydata() for line in ax.lines}


def test_one_forecast_with_its_drivers():
    made = explained(6)
    ax = plots.forecast(made, 2)
    drawn = lines(panel(ax, "forecast"))
    np.testing.assert_allclose(drawn["forecast"], made.outputs[2])
    np.testing.assert_allclose(drawn["what came"], made.targets[2])
    np.testing.assert_allclose(drawn["level, as it was"], made["past"].data[2, :, 0])
    below = panel(ax, "drivers")
    heights = np.array([[bar.get_height() for bar in bars] for bars in below.containers])
    np.testing.assert_allclose(heights.sum(0), made.outputs[2] - made["past"].base_values[2], atol=1e-5)
    np.testing.assert_allclose(heights[1], made["past"].values[2, :, 1].sum(0), atol=1e-6)
    np.testing.assert_allclose(lines(below)["sum"], heights.sum(0), atol=1e-6)


def test_forecasts_over_time():
    made = explained(6)
    ax = plots.forecasts_over_time(made, horizon=2)
    drawn = lines(panel(ax, "forecasts"))
    np.testing.assert_allclose(drawn["forecast"], made.outputs[:, 1])
    heights = np.array([[bar.get_height() for bar in bars] for bars in panel(ax, "drivers").containers])
    np.testing.assert_allclose(heights.sum(0), made.outputs[:, 1] - made["past"].base_values[:, 1], atol=1e-5)


def test_quantiles_are_a_band_around_the_median():
    made = explained(4, (AHEAD, 3), parameters=["q0.1", "q0.5", "q0.9"])
    top = panel(plots.forecast(made, 0), "forecast")
    (band,) = top.collections
    ends = band.get_paths()[0].vertices[:, 1]
    told = made.outputs[0].reshape(AHEAD, 3)
    assert {round(float(v), 5) for v in ends} == {round(float(v), 5) for v in told[:, [0, 2]].ravel()}
    np.testing.assert_allclose(lines(top)["forecast"], told[:, 1])


def test_what_is_no_forecast_is_refused():
    for plot in (plots.horizons, plots.forecast, plots.forecasts_over_time):
        with pytest.raises(InputError, match="explain_forecast returns"):
            plot(explanation(outputs=3))
    made = explained(3)
    with pytest.raises(InputError, match="draws a single forecast"):
        plots.forecast(made)
    with pytest.raises(InputError, match="no row 7"):
        plots.forecast(made, 7)
    with pytest.raises(InputError, match="no horizon 4"):
        plots.forecasts_over_time(made, 4)
    several = explained(2, (AHEAD, 2), target=["level", "rain"])
    with pytest.raises(InputError, match="needs series="):
        plots.horizons(several)
    assert plots.horizons(several, "rain").get_title().startswith("what forecasts of rain rest on")
