"""Plots of forecasts: the lags and covariates that drive each horizon, one forecast, and forecasts over time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.patches import Patch

from ..errors import InputError, check_whole
from ..explanation.core import Attributions
from . import style
from .reading import fold_smallest, plot

OTHERS = "0.72"  # grey of the drivers that are summed up
BAND = "0.82"  # between quantiles


@dataclass(frozen=True)
class Driver:
    """What a column of an input contributed: values (rows, steps, horizons), and lags (steps,) of what changes over time."""

    name: str
    values: np.ndarray
    lags: np.ndarray | None

    @property
    def sums(self) -> np.ndarray:
        """Over its steps, (rows, horizons)."""
        return self.values.sum(1)


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of one series: drivers; horizons (h,); times, outputs and actual (rows, h); base (rows, h).

    The times are numbers of an axis, as dates if they are ``dates``. ``past`` is the target before the forecasts, (rows, steps),
    at ``past_times``, if it is known; ``band`` the lowest and highest quantile, (rows, h, 2).
    """

    name: str
    drivers: list[Driver]
    horizons: np.ndarray
    times: np.ndarray
    dates: bool
    outputs: np.ndarray
    base: np.ndarray
    actual: np.ndarray | None
    rows: list[str]
    past: np.ndarray | None = None
    past_times: np.ndarray | None = None
    band: np.ndarray | None = None


# ---------------------------------------------------------------------- reading
def read_forecasts(
    explanation: Attributions, what: str, series: str | None, parameter: str | None, most: int
) -> Forecasts:
    """Return arrays of one series and parameter: the ``most`` strongest drivers, and the sum of the others.

    Raises
    ------
    InputError
        If these are no forecasts, or one has to be chosen.
    """
    if getattr(explanation, "horizons", None) is None:
        raise InputError(
            f"plots.{what} draws what deepshap.forecasting.explain_forecast returns, with all its horizons."
        )
    chosen = explanation.forecast(series, parameter)
    name = str(chosen.forecast_series[0])
    drivers = _drivers(chosen)
    times, are_dates = _numbers(chosen.forecast_times)
    base = np.atleast_2d(np.asarray(chosen.items()[0][1].base_values, np.float64))
    outputs = base + sum(driver.sums for driver in drivers)
    outputs = outputs if chosen.outputs is None else np.atleast_2d(chosen.outputs)
    past, past_times = _past(explanation, name)
    return Forecasts(
        name=name,
        drivers=_keep_largest(drivers, most),
        horizons=np.asarray(chosen.horizons),
        times=times,
        dates=are_dates,
        outputs=outputs,
        base=np.broadcast_to(base, outputs.shape),
        actual=None if chosen.targets is None else np.atleast_2d(chosen.targets),
        rows=[str(i) for i in (range(len(outputs)) if chosen.row_ids is None else np.atleast_1d(chosen.row_ids))],
        past=past,
        past_times=past_times,
        band=_band(explanation, name),
    )


def _drivers(chosen: Attributions) -> list[Driver]:
    """Return the columns of all inputs, with the input's name if several have the same; static columns have one step."""
    named_drivers = []
    for kind, part in chosen.items():
        values = np.asarray(part.values, dtype=np.float64)
        values = values if part._rows else values[None]
        static = values.ndim == 3
        values = values[:, None] if static else values  # (rows, steps, features, horizons)
        lags = None if static or part.lags is None else np.asarray(part.lags)
        names = part.feature_names or [f"{kind} {i}" for i in range(values.shape[2])]
        named_drivers += [(kind, Driver(str(name), values[:, :, i], lags)) for i, name in enumerate(names)]
    count = Counter(driver.name for _, driver in named_drivers)
    return [
        replace(driver, name=f"{driver.name} ({str(kind).replace('_', ' ')})") if count[driver.name] > 1 else driver
        for kind, driver in named_drivers
    ]


def _keep_largest(drivers: list[Driver], most: int) -> list[Driver]:
    """Return the strongest drivers, and the sum of the others, whose lags do not matter."""
    sizes = np.stack([np.abs(driver.values).sum(1).mean(0) for driver in drivers], -1)
    _, names, largest = fold_smallest(sizes, [driver.name for driver in drivers], most)
    rest = [driver.sums for i, driver in enumerate(drivers) if i not in largest]
    others = [Driver(f"other {len(rest)}", np.sum(rest, 0)[:, None], None)] if len(largest) < len(names) else []
    return [*(drivers[i] for i in largest), *others]


def _numbers(times: Any) -> tuple[np.ndarray, bool]:
    """Return times as numbers of an axis, and whether these are dates."""
    times = np.atleast_2d(times)
    if times.dtype.kind not in "Miuf":
        raise InputError("the times of the forecasts are words, and have no place on an axis.")
    are_dates = times.dtype.kind == "M"
    return (date2num(times) if are_dates else times.astype(float)), are_dates


def _past(explanation: Attributions, name: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the forecast series before the forecasts, and its times, if it is among the inputs."""
    for _, part in explanation.items():
        names = part.feature_names
        if part.lags is not None and names is not None and name in names and part.step_labels is not None:
            shown = part.data if part.display_data is None else part.display_data
            past_steps = np.flatnonzero(np.asarray(part.lags) <= 0)
            values = np.asarray(shown)[..., past_steps, list(names).index(name)]
            return np.atleast_2d(values), _numbers(np.asarray(part.step_labels)[..., past_steps])[0]
    return None, None


def _band(explanation: Attributions, name: str) -> np.ndarray | None:
    """Return the lowest and highest quantile of a series, if there are several."""
    parameters = [str(parameter) for parameter in explanation.forecast_parameters]
    quantiles = sorted(
        {parameter for parameter in parameters if parameter[:1] == "q" and parameter[1:].replace(".", "").isdigit()},
        key=lambda q: float(q[1:]),
    )
    if len(quantiles) < 2 or explanation.outputs is None:
        return None
    ends = [np.atleast_2d(explanation.forecast(name, parameter).outputs) for parameter in (quantiles[0], quantiles[-1])]
    return np.stack(ends, -1)


# ---------------------------------------------------------------------- lags by horizons
@plot("rows", ", or they are no forecasts")
def horizons(
    explanation: Attributions,
    series: str | None = None,
    parameter: str | None = None,
    *,
    max_display: int = 5,
    robust: bool = False,
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw which lags and covariates drive each horizon: for each column of the inputs a map of horizons over lags.

    Of one forecast the attributions, of several their mean sizes. Lag 0 is the last known step; what is known beforehand has lags
    above it. What does not change over time, and the sum of other columns, has one cell for each horizon.

    Parameters
    ----------
    explanation : Explanation
        As from ``deepshap.forecasting.explain_forecast``.
    series, parameter : str, optional
        Which forecasts, where there are several series, or quantiles; by default the median or mean.
    """
    forecasts = read_forecasts(explanation, "horizons", series, parameter, max_display)
    alone, h = len(forecasts.rows) == 1, len(forecasts.horizons)
    maps = [(d.values[0] if alone else np.abs(d.values).mean(0)).T for d in forecasts.drivers]  # (horizons, steps)
    height = float(np.clip(0.2 * h, 0.55, 2.2))
    ax = style.new_axes(ax, 9.5, (height + 0.55) * len(maps) + 0.7)
    panels = style.Panels(ax, [height] * len(maps), [8, 0.14], gaps=(0.55, 0.15))
    named = [m for m, d in zip(maps, forecasts.drivers, strict=True) if d.lags is not None] or maps
    limit = style.color_limit(*named, robust=robust)
    lags = [d.lags for d in forecasts.drivers if d.lags is not None]
    ends = (
        (min(of_driver.min() for of_driver in lags) - 0.5, max(of_driver.max() for of_driver in lags) + 0.5)
        if lags
        else (-0.5, 0.5)
    )
    for place, (driver, matrix) in enumerate(zip(forecasts.drivers, maps, strict=True)):
        panel = panels(place, label=driver.name)
        mesh = _draw_lags(panel, driver, matrix, limit, alone, ends)
        style.label_rows(panel, [f"+{k}" for k in forecasts.horizons])
        if place == len(maps) - 1:
            panel.set_xlabel("lag (0: the last known step)", fontsize=style.SMALL + 1)
    label = style.with_unit("attribution" if alone else "mean |attribution|", unit)
    everything, bar = np.concatenate([m.ravel() for m in maps]), panels.bar(0, 1, "scale of attributions")
    if alone:
        style.evidence_bar(mesh, everything, label, bar)
    else:
        style.color_bar(mesh, label, bar, extend="max" if everything.max() > limit else "neither")
    style.write_title(
        ax,
        f"what forecasts of {forecasts.name} rest on",
        forecasts.rows[0] if alone else f"{len(forecasts.rows)} forecasts",
        pad=22,
    )
    return ax


def _draw_lags(
    ax: Axes, driver: Driver, matrix: np.ndarray, limit: float, signed: bool, ends: tuple[float, float]
) -> Any:
    """Draw a map of one column; without lags it is as wide as all of them."""
    first = ends[0] + 0.5 if driver.lags is None else driver.lags[0]
    edges = np.asarray(ends) if driver.lags is None else np.arange(first, first + len(driver.lags) + 1) - 0.5
    if signed:
        mesh = style.draw_evidence(ax, edges, matrix, limit)
        style.write_in_cells(ax, (edges[:-1] + edges[1:]) / 2, matrix, limit)
    else:
        mesh = style.draw_map(ax, edges, matrix, cmap="Greys", vmin=0, vmax=limit)
    ax.set_xlim(*ends)
    ax.set_title(
        style.short(driver.name) + ("" if driver.lags is not None else " (all of it)"), fontsize=10, loc="left"
    )
    ax.xaxis.set_major_locator(ticker.MaxNLocator(10, integer=True))
    if driver.lags is None:
        ax.set_xticks([])
    elif ends[1] > 0.5:
        ax.axvline(0.5, color="black", linewidth=0.9)
    return mesh


# ---------------------------------------------------------------------- one forecast
@plot("row", ", or it is no forecast", example="explanation, row=0")
def forecast(
    explanation: Attributions,
    row: int | None = None,
    series: str | None = None,
    parameter: str | None = None,
    *,
    max_display: int = 5,
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw one forecast with its drivers: the past, the forecast and what came, and below what each column adds to each horizon.

    The bars of a horizon sum to the forecast minus the base value, the mean forecast over the background (dotted). A band lies
    between the lowest and the highest quantile, where there are any.

    Parameters
    ----------
    explanation : Explanation
        As from ``deepshap.forecasting.explain_forecast``.
    row : int, optional
        Which forecast, if there are several.
    series, parameter : str, optional
        Which series, where there are several; which quantile or parameter, by default the median or mean.
    """
    forecasts = read_forecasts(explanation, "forecast", series, parameter, max_display)
    count = len(forecasts.rows)
    if row is None and count > 1:
        raise InputError("plots.forecast draws a single forecast: say which, plots.forecast(explanation, row=0).")
    if row is not None and not -count <= row < count:
        raise InputError(f"plots.forecast: there is no row {row} among {count}.")
    place = (row or 0) % count
    ax = style.new_axes(ax, 9, 6)
    panels = style.Panels(ax, [3, 2.4], gaps=(0.75, 0.1))
    top, below = panels(0, label="forecast"), panels(1, label="drivers")
    if forecasts.past is not None and forecasts.past_times is not None:
        when = forecasts.past_times[place if len(forecasts.past_times) > 1 else 0]
        top.plot(
            when, forecasts.past[place], color="0.45", linewidth=1.2, label=f"{style.short(forecasts.name)}, as it was"
        )
    _draw_lines(top, forecasts, forecasts.times[place], place, unit, {"marker": "o", "markersize": 4})
    _stack(below, forecasts.horizons.astype(float), forecasts.drivers, place, 0.72, unit)
    below.set_xticks(forecasts.horizons, [f"+{k}" for k in forecasts.horizons])
    below.set_xlabel("steps ahead", fontsize=style.SMALL + 1)
    style.write_title(ax, f"forecast of {forecasts.name}", forecasts.rows[place] if count > 1 else "", pad=24)
    return ax


def _draw_lines(
    ax: Axes, forecasts: Forecasts, times: np.ndarray, at: Any, unit: str, marker: dict[str, Any] | None = None
) -> None:
    """Draw forecasts, their band, their base value and what came, at an index of (rows, horizons)."""
    marker = marker or {}
    if forecasts.band is not None:
        ax.fill_between(times, *forecasts.band[at].T, color=BAND, linewidth=0, label="between the outer quantiles")
    if forecasts.actual is not None and np.isfinite(forecasts.actual[at]).any():
        came = marker | ({"markersize": 3} if marker else {})
        ax.plot(times, forecasts.actual[at], color="0.45", linewidth=1.1, **came, label="what came")
    ax.plot(times, forecasts.base[at], color=style.GREY, linestyle=":", label="base value")
    ax.plot(times, forecasts.outputs[at], color="black", linewidth=1.7, **marker, label="forecast")
    if forecasts.dates:
        style.date_axis(ax, 9)
    ax.set_ylabel(style.with_unit(style.short(forecasts.name), unit), fontsize=style.SMALL + 1)
    style.open_frame(ax)
    _legend(ax)


def _legend(ax: Axes, handles: list[Any] | None = None) -> None:
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2, "frameon": False}
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    ax.legend(handles=handles, **place, ncols=6, fontsize=style.SMALL, handlelength=1.6, columnspacing=1.2)


def _stack(ax: Axes, places: np.ndarray, drivers: list[Driver], at: Any, width: float, unit: str) -> None:
    """Draw bars that are stacked up and down from zero, one part for each driver, and a line for their sum."""
    up, down, handles = np.zeros(len(places)), np.zeros(len(places)), list[Any]()
    for i, driver in enumerate(drivers):
        values = driver.sums[at]
        color = OTHERS if driver.name.startswith("other ") else style.CURVES[1 + i % (len(style.CURVES) - 1)][0]
        bottom = np.where(values >= 0, up, down)
        ax.bar(places, values, width, bottom=bottom, color=color, edgecolor="white", linewidth=0.3, label=driver.name)
        up, down = up + np.maximum(values, 0), down + np.minimum(values, 0)
        handles.append(Patch(color=color, label=style.short(driver.name)))
    handles += ax.plot(places, up + down, color="black", marker="o", markersize=3, linewidth=1.2, label="sum")
    ax.axhline(0, color="0.4", linewidth=0.6)
    ax.set_ylabel(style.with_unit("attribution", unit), fontsize=style.SMALL + 1)
    style.open_frame(ax)
    _legend(ax, handles)


# ---------------------------------------------------------------------- over time
@plot("rows", ", or they are no forecasts")
def forecasts_over_time(
    explanation: Attributions,
    horizon: int = 1,
    series: str | None = None,
    parameter: str | None = None,
    *,
    max_display: int = 5,
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw the forecasts of one horizon over time, with what came, and below what each column adds to each of them.

    Parameters
    ----------
    explanation : Explanation
        As from ``deepshap.forecasting.explain_forecast``, of several forecasts of one series.
    horizon : int
        How many steps ahead.
    series, parameter : str, optional
        Which series, where there are several; which quantile or parameter, by default the median or mean.
    """
    forecasts = read_forecasts(explanation, "forecasts_over_time", series, parameter, max_display)
    check_whole("horizon", horizon, 1)
    if horizon not in forecasts.horizons:
        raise InputError(
            f"there is no horizon {horizon}: forecasts go from +{forecasts.horizons[0]} to +{forecasts.horizons[-1]}."
        )
    ahead = int(np.flatnonzero(forecasts.horizons == horizon)[0])
    order = np.argsort(forecasts.times[:, ahead], kind="stable")
    at, times = (order, ahead), forecasts.times[order, ahead]
    if (np.diff(times) <= 0).any():
        raise InputError("there are several forecasts of the same time: take the rows of one series.")
    ax = style.new_axes(ax, 10.5, 6)
    panels = style.Panels(ax, [2.7, 2.7], gaps=(0.5, 0.1))
    top = panels(0, label="forecasts")
    below = panels(1, sharex=top, label="drivers")
    _draw_lines(top, forecasts, times, at, unit)
    _stack(below, times, forecasts.drivers, at, np.diff(times).min() * 0.9 if len(times) > 1 else 0.9, unit)
    if forecasts.dates:
        style.date_axis(below, 9)
    top.tick_params(labelbottom=False)
    style.write_title(ax, f"forecasts of {forecasts.name}", f"{horizon} step{'s' * (horizon > 1)} ahead", pad=24)
    return ax
