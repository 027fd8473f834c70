"""What stands between libraries of forecasters and explanations: windows of series, and the interface of an adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from ..explanation.labels import as_labels, as_texts


@dataclass(frozen=True)
class Input:
    """One kind of input of all windows, such as the past of the target.

    Attributes
    ----------
    values : array of shape (rows, steps, features), or (rows, features) of what does not change
        As the model reads them.
    shown : array of that shape
        The same in the units of the data.
    features : list of str
        Their names.
    times : array of shape (rows, steps), optional
        Time stamps of the steps; None of what does not change.
    ahead : int
        How many of the steps lie behind the last known one.
    gap : int
        How many steps are left out between the last known one and those.
    """

    values: np.ndarray
    shown: np.ndarray
    features: list[str]
    times: np.ndarray | None = None
    ahead: int = 0
    gap: int = 0

    @property
    def lags(self) -> np.ndarray:
        """Steps from the last known one, (steps,)."""
        lags = np.arange(self.values.shape[1]) - (self.values.shape[1] - 1 - self.ahead)
        return lags + self.gap * (lags > 0)


@dataclass(frozen=True)
class Windows:
    """Windows of series, one for each forecast.

    Attributes
    ----------
    inputs : dict of Input
        By their kinds: "target", "past_covariates", "future_covariates", "static_covariates".
    ids : array of shape (rows,)
        What each forecast is called.
    times : array of shape (rows, horizons)
        What times are forecast.
    predicted : array of shape (rows, outputs)
        What the library forecasts by itself, in the units of the data.
    actual : array of shape (rows, outputs), optional
        What came, NaN where it is not known; None where nothing is.
    extra : tuple of arrays of shape (rows, ...)
        What else the explained function takes, and what describes each row, such as the scale of its series.
    """

    inputs: dict[str, Input]
    ids: np.ndarray
    times: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray | None = None
    extra: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What a forecaster returns for a window: each parameter of each series at each horizon, in this order, in one axis.

    ``gap``: how many steps are left out between the last known one and the first horizon.
    """

    horizons: int
    series: Sequence[str]
    parameters: Sequence[str] = ("forecast",)
    gap: int = 0

    def _spread(self, labels: Any, axis: int) -> np.ndarray:
        """Return labels of one of the three axes, for each output."""
        shape = [self.horizons, len(self.series), len(self.parameters)]
        places = [-1 if k == axis else 1 for k in range(3)]
        return np.broadcast_to(np.asarray(labels).reshape(places), shape).reshape(-1)

    @property
    def horizon_of(self) -> np.ndarray:
        """How many steps ahead each output is, (outputs,)."""
        return self._spread(self.gap + np.arange(1, self.horizons + 1), 0)

    @property
    def series_of(self) -> np.ndarray:
        """Names of the series, (outputs,)."""
        return self._spread(list(self.series), 1)

    @property
    def parameter_of(self) -> np.ndarray:
        """Names of the parameters, (outputs,)."""
        return self._spread(list(self.parameters), 2)

    @property
    def names(self) -> list[str]:
        """A name for each output, as short as it can be."""
        several, has_parameters = len(self.series) > 1, len(self.parameters) > 1
        described = zip(self.series_of, self.horizon_of, self.parameter_of, strict=True)
        return [
            (f"{series} " if several else "") + f"+{horizon}" + (f" {parameter}" if has_parameters else "")
            for series, horizon, parameter in described
        ]


class Forecaster(Protocol):
    """What an adapter knows of a fitted model: made of what ``explain_forecast`` is given."""

    name: str
    outputs: Outputs
    function: Callable[
        ..., Any
    ]  # of the inputs by their kinds, and of what is extra: (rows, outputs) in the units of the data

    def windows(self) -> Windows:
        """Return the windows to explain, with the library's forecasts for them."""
        ...

    def references(self, most: int) -> Mapping[str, np.ndarray]:
        """Return at most ``most`` windows of the training data, evenly spread, by kinds of inputs, as the model reads them."""
        ...


@dataclass(frozen=True)
class ForecastRequest:
    """Which forecasts are to be explained, and against what.

    Attributes
    ----------
    forecasts, stride : int
        How many of each series, the last ones, and how many steps they are apart.
    background : object
        Series in the library's form whose windows are the references; None for those that the model was trained on.
    options : dict
        What else the adapter takes.
    """

    forecasts: int = 1
    stride: int = 1
    background: Any = None
    options: Mapping[str, Any] | None = None

    def read_options(self, library: str, *names: str) -> dict[str, Any]:
        """Return the options by their names, None where they are not given.

        Raises
        ------
        InputError
            If there are others.
        """
        options = dict(self.options or {})
        unknown = sorted(set(options) - set(names))
        if unknown:
            accepted = f"it takes {', '.join(names)}" if names else "it takes none beside the parameters that it names"
            raise InputError(f"explain_forecast of {library} knows no option {unknown[0]!r}; {accepted}.")
        return {name: options.get(name) for name in names}

    def ends(self, length: int, most: int | None = None) -> list[int]:
        """Return the ends of the known parts of a series of ``length`` steps, one for each forecast, the earliest first.

        most: the last possible end, if that is not the end of the series.
        """
        last = length if most is None else most
        return [last - k * self.stride for k in reversed(range(self.forecasts))]


def stacked(rows: Sequence[Any]) -> np.ndarray:
    """Return rows of equal shape as an array."""
    return np.stack([np.asarray(row) for row in rows])


def ids_of(series: Sequence[Any], last: Sequence[Any], several: bool, rolling: bool) -> np.ndarray:
    """Return names of forecasts: the series and the last known step, as far as they differ."""
    if not rolling:
        return np.asarray([str(name) for name in series])
    times = as_texts(as_labels(last, "times"))
    return np.asarray([f"{name} {time}" if several else str(time) for name, time in zip(series, times, strict=True)])
