"""Forecasts explained: fitted models of darts, neuralforecast and pytorch-forecasting, and models of one's own.

``explain_forecast(fitted_model, series)`` returns an explanation with lags, horizons, times and names on its axes.
"""

from .api import explain_forecast

__all__ = ["explain_forecast"]


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
