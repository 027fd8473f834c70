"""Keras forecasters of one's own."""

import keras
import numpy as np
import pytest

from deepshap.forecasting import explain_forecast

LAGS, AHEAD = 4, 2


@pytest.fixture(scope="module")
def series():
    return np.random.default_rng(0).normal(size=(30, 2)).astype("float32") * [5, 1] + [20, 0]


class Scaler:
    def __init__(self, values):
        self.mean, self.scale = values.mean(0), values.std(0)

    def transform(self, values):
        return (values - self.mean) / self.scale

    def inverse_transform(self, values):
        return values * self.scale + self.mean


def test_a_linear_forecaster(series):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((LAGS, 2)), keras.layers.Flatten(), keras.layers.Dense(AHEAD)])
    scaler = Scaler(series)
    explanation = explain_forecast(model, series, lags=LAGS, scaler=scaler, forecasts=3, references=100)
    weights = model.get_weights()[0].reshape(LAGS, 2, AHEAD) / scaler.scale[:, None] * scaler.scale[0]
    windows = np.stack([series[i : i + LAGS] for i in range(len(series) - LAGS + 1)])
    expected = (windows[-3:] - windows.mean(0))[..., None] * weights
    np.testing.assert_allclose(explanation["past"].values, expected, atol=2e-5)
    assert explanation["past"].lags.tolist() == [-3, -2, -1, 0]
    assert explanation.forecast_times.tolist() == [[28, 29], [29, 30], [30, 31]]


def test_two_inputs(series):
    keras.utils.set_random_seed(0)
    past, known = keras.Input((LAGS, 2)), keras.Input((AHEAD, 1))
    hidden = keras.layers.Concatenate()([keras.layers.LSTM(3)(past), keras.layers.Flatten()(known)])
    model = keras.Model([past, known], keras.layers.Dense(AHEAD)(hidden))
    explanation = explain_forecast(model, series, lags=LAGS, horizon=AHEAD, known=["Column 1"], references=10)
    own = model([series[None, -LAGS - AHEAD : -AHEAD], series[None, -AHEAD:, 1:]])
    np.testing.assert_allclose(explanation.outputs, own, rtol=1e-5)
    sums = sum(part.values.sum((1, 2)) for _, part in explanation.items())
    np.testing.assert_allclose(sums, explanation.outputs - explanation["past"].base_values, atol=1e-5)
