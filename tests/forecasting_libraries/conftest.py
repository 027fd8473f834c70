"""Weather-like series, small models and what every explanation of a forecast must hold."""

import logging

import numpy as np
import pandas as pd
import pytest

DAYS = 70
DATES = pd.date_range("2020-01-01", periods=DAYS, freq="D")


@pytest.fixture(autouse=True)
def quiet():
    """Lightning tells what it runs on."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def waves():
    """Two series (days, 2) at different levels, and three further columns (days, 3)."""
    rng = np.random.default_rng(0)
    day = np.arange(DAYS)
    series = np.stack([10 + 3 * np.sin(day / 5), 200 + 50 * np.cos(day / 4)], 1) + rng.normal(size=(DAYS, 2))
    return series.astype(np.float32), rng.normal(size=(DAYS, 3)).astype(np.float32)


@pytest.fixture
def complete():
    """Check that what all inputs add sums to the forecast, minus the mean over the background."""

    def check(explanation):
        parts = [part.values.astype(float) for _, part in explanation.items()]
        sums = sum(values.reshape(len(values), -1, values.shape[-1]).sum(1) for values in parts)
        first = explanation.items()[0][1]
        scale = np.abs(explanation.outputs).max()
        np.testing.assert_allclose(sums, explanation.outputs - first.base_values, atol=2e-5 * scale)

    return check
