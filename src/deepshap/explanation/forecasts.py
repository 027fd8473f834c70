"""Fields of an explanation of forecasts beside those of any sequence: lags, horizons, times, series and parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..explanation.labels import as_labels

if TYPE_CHECKING:
    from typing_extensions import Self


def _along(name: str, of_outputs: bool, doc: str) -> property:
    """Make a property that is an array along the axis of the outputs, or of the steps, or None."""

    def get(self: Any) -> Any:
        return self._tracked(name)

    def set_(self: Any, labels: Any) -> None:
        self._set(name, as_labels(labels, name), self.output_dims if of_outputs else (self._axis_of_steps(),))

    return property(get, set_, doc=doc)


class Forecasts:
    """The axes of a forecast; all of them None where nothing is forecast.

    The outputs of a forecast are its horizons, times its series, times what is told of each (a quantile, a parameter), in one
    axis. ``horizons``, ``forecast_series`` and ``forecast_parameters`` tell what each of them is.
    """

    output_dims: Any
    _tracked: Callable[[str], Any]
    _set: Callable[..., None]
    some_outputs: Callable[..., Any]

    if TYPE_CHECKING:

        @property
        def _rows(self) -> int: ...

    lags = _along("lags", False, "Steps from the last known one, (steps,) int: 0 is that one, -1 the one before.")
    horizons = _along("horizons", True, "How many steps ahead each output is, (outputs,) int, from 1.")
    forecast_series = _along("forecast_series", True, "Of which series each output is, (outputs,) str.")
    forecast_parameters = _along(
        "forecast_parameters",
        True,
        "What each output tells, (outputs,) str, such as 'q0.9'; 'forecast' where it is all.",
    )

    @property
    def forecast_times(self) -> Any:
        """What time each output is of, (rows, outputs)."""
        return self._tracked("forecast_times")

    @forecast_times.setter
    def forecast_times(self, times: Any) -> None:
        self._set("forecast_times", as_labels(times, "forecast_times"), (*range(self._rows), *self.output_dims))

    def forecast(self, series: str | None = None, parameter: str | None = None) -> Self:
        """Pick one series and one parameter of it: what is left has one output for each horizon.

        Parameters
        ----------
        series : str, optional
            One of ``forecast_series``; needed where there are several.
        parameter : str, optional
            One of ``forecast_parameters``. By default the median, or the mean, or the only one.

        Returns
        -------
        Explanation
            A JointExplanation of such.

        Raises
        ------
        InputError
            If this is no explanation of forecasts, or there is no such series or parameter, or none is told of several.
        """
        if self.horizons is None:
            raise InputError(
                "forecast() is for what deepshap.forecasting.explain_forecast returns, with all its outputs."
            )
        if np.ndim(self.horizons) == 0:
            raise InputError("one output is picked already: there is nothing left for forecast() to choose.")
        chosen = _label_mask("series", series, self.forecast_series) & _label_mask(
            "parameter", parameter, self.forecast_parameters, ("q0.5", "median", "mean", "mu", "loc", "forecast")
        )
        return self.some_outputs(np.flatnonzero(chosen).tolist())


def _label_mask(what: str, wanted: str | None, labels: Any, usual: tuple[str, ...] = ()) -> np.ndarray:
    """Return which outputs belong to one series or parameter."""
    names = list(dict.fromkeys(map(str, labels)))
    if wanted is None:
        candidates = [name for name in usual if name in names] or names
        if len(names) > 1 and (not usual or candidates is names):
            raise InputError(f"forecast() needs {what}=, one of {names}.")
        wanted = candidates[0]
    if wanted not in names:
        raise InputError(f"there is no {what} {wanted!r} among {names}.")
    return np.asarray(labels).astype(str) == wanted
