"""shap's own plots for sequences: bar, waterfall, force, beeswarm, scatter and the heat map of many rows.

shap draws matrices (rows, features). Attributions of a sequence are first summed over time, or taken at one ``step``; players
stay unchanged; the inputs of a JointExplanation are concatenated. Labels, units and a robust scale are those of the other
plots. If standard errors are known, bars get whiskers of two standard errors, and points below two standard errors are hollow.

shap places points with NumPy's global generator. The generator is seeded for the plot and its state is restored, so that a
plot is the same each time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import shap
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from ..errors import InputError
from ..explanation.core import Attributions
from ..explanation.labels import as_texts
from ..explanation.uncertainty import Errors
from . import style
from .reading import Sequences, check_arguments, check_single, fold_smallest, plot, read_features

UNSURE = f"hollow: less than {style.ERRORS} standard errors from 0"
ALL = "attribution"


@contextmanager
def _shap_draws(ax: Axes) -> Iterator[None]:
    """Let shap draw into axes, without changing the figure's size or the state of NumPy's generator."""
    figure, state = style.get_figure(ax), np.random.get_state()
    size = figure.get_size_inches()
    np.random.seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that the generator was seeded
            warnings.simplefilter("ignore", RuntimeWarning)  # of columns that are all zero, or unknown
            plt.sca(ax)
            yield
    finally:
        np.random.set_state(state)
        figure.set_size_inches(*size)


class _Table:
    """A matrix of attributions (rows, features) for shap, with the errors of its cells.

    when: what was summed or chosen, in words. named: how many features are no sum of others.
    """

    def __init__(self, explanation: Attributions, what: str, step: Any = None, max_display: int | None = None):
        rows = read_features(explanation, what)
        cells = _over_time(rows) if step is None else _at_step(rows, step, what)
        values, data, errors, self.when = cells
        count = max_display if max_display is not None else values.shape[1]
        fold, names, largest = fold_smallest(values, rows.features, count, by_size=True)
        self.values = fold(values)
        self.names = [style.short(name) for name in names]
        self.named, self.rows = len(largest), rows
        self.data = None
        if data is not None:
            self.data = np.full(self.values.shape, np.nan)
            self.data[:, : self.named] = data[:, largest]
        self.errors: Errors | None = None if errors is None else errors.of(fold)

    @property
    def unsure(self) -> np.ndarray | None:
        """Return which values are below two standard errors."""
        return None if self.errors is None else np.abs(self.values) < style.ERRORS * self.errors.errors

    def for_shap(self, row: int | None = None) -> shap.Explanation:
        """Return the matrix as shap's Explanation, of all rows or of one."""
        at: Any = slice(None) if row is None else row
        bounds = {}
        if self.errors is not None:
            reach = style.ERRORS * self.errors.errors
            bounds = {"lower_bounds": (self.values - reach)[at], "upper_bounds": (self.values + reach)[at]}
        data = None if self.data is None else self.data[at]
        base = self.rows.base[: len(self.values)]
        return shap.Explanation(self.values[at], base[at], data, feature_names=self.names, **bounds)


def _finish(ax: Axes, label: str, unit: str, *title: str) -> Axes:
    """Label the values, in letters as in our other pictures."""
    ax.set_xlabel(style.with_unit(label.strip(), unit), fontsize=style.SMALL + 1)
    ax.tick_params(labelsize=style.SMALL)
    style.write_title(ax, *title)
    return ax


# ---------------------------------------------------------------------- bars
@plot("rows", ", or there is no such step")
def bar(
    explanation: Attributions, *, step: Any = None, max_display: int = 20, unit: str = "", ax: Axes | None = None
) -> Axes:
    """Draw shap's bar plot: the mean |attribution| of each feature, of a single row the attributions, with whiskers.

    ``importance`` also tells how much of a bar is upwards and how rows differ.

    Parameters
    ----------
    explanation : Explanation
        Of one output and one row or several: a table, a sequence, or players.
    step : int or label, optional
        A step, by its number (-1 is the last of each row) or label. By default attributions are summed over time.
    """
    table = _Table(explanation, "bar", step, max_display)
    alone = not explanation.items()[0][1]._rows
    values, count = (table.values[0] if alone else np.abs(table.values).mean(0)), len(table.names)
    ax = style.new_axes(ax, 8, 0.36 * count + 1.2)
    with _shap_draws(ax):
        shown = shap.Explanation(values, feature_names=table.names)
        shap.plots.bar(shown, max_display=count, order=np.arange(count), ax=ax, show=False)
    names = table.names
    if alone and table.data is not None:
        names = [name + style.equals(value) for name, value in zip(names, table.data[0], strict=True)]
    ax.set_yticks(np.arange(count, 0, -1), names)  # shap writes each twice
    ax.tick_params(axis="y", labelcolor="black")
    if table.errors is not None:
        errors = table.errors.errors[0] if alone else table.errors.of_mean()
        style.whiskers(ax, np.arange(count, 0, -1), values, errors, lying=True, shift=-0.22)
        reach, (low, high) = style.ERRORS * errors, ax.get_xlim()
        ax.set_xlim(min(low, 1.05 * (values - reach).min()), max(high, 1.05 * (values + reach).max()))
        for text in ax.texts:
            text.set_bbox({"facecolor": "white", "linewidth": 0, "alpha": 0.7, "pad": 1})
    label = f"{ALL if alone else 'mean |attribution|'} {table.when}"
    title = table.rows.rows[0] if alone else ""
    return _finish(ax, label, unit, title, table.rows.output, "" if table.errors is None else style.WITHIN)


@plot("row", ", or there is no such step")
def waterfall(
    explanation: Attributions, *, step: Any = None, max_display: int = 10, unit: str = "", ax: Axes | None = None
) -> Axes:
    """Draw shap's waterfall plot: how the features of one row lead from the base value to the output.

    ``buildup`` shows how the steps do. Whiskers show two standard errors, where these are known.

    Parameters
    ----------
    explanation : Explanation
        Of one row and one output: a table, a sequence, or players.
    step : int or label, optional
        A step, by its number (-1 is the last) or label; the sum is then not the output. By default attributions are summed over
        time.
    """
    table = _Table(explanation, "waterfall", step)
    check_single(len(table.values), "waterfall")
    ax = style.new_axes(ax, 8, 0.5 * min(max_display, len(table.names)) + 1.5)
    with _shap_draws(ax):
        shap.plots.waterfall(table.for_shap(0), max_display=max_display, show=False)
    label = style.with_unit(f"{ALL} {table.when}".strip(), unit)
    return _finish(ax, "", "", table.rows.rows[0], table.rows.output, label)  # shap writes where the label would be


@check_arguments
def force(explanation: Attributions, *, matplotlib: bool = False, max_display: int = 20) -> Any:
    """Draw shap's force plot: for notebooks, of one row or of several; with ``matplotlib=True`` as a picture of one row.

    Parameters
    ----------
    explanation : Explanation
        Of one output and one row or several: a table, a sequence, which is summed over time, or players.
    matplotlib : bool
        Whether to draw a picture instead of a page that answers to the mouse, which needs ``shap.initjs()`` in a notebook.
    max_display : int
        How many features are drawn, those with the largest values; the others are summed in one more.

    Returns
    -------
    shap's visualizer or Figure
        What a notebook shows.

    Raises
    ------
    InputError
        If there are several outputs, or several rows where a picture is wanted.

    Examples
    --------
    >>> ax = deepshap.plots.force(explanation[0], matplotlib=True)
    """
    table = _Table(explanation, "force", None, max_display)
    single = len(table.values) == 1
    if matplotlib:
        check_single(len(table.values), "force")
    shown = table.for_shap(0 if single else None)
    if table.data is not None:
        digits = [[float(f"{value:.4g}") for value in line] for line in table.data]
        shown.data = np.array(digits[0] if single else digits)
    return shap.plots.force(shown, matplotlib=matplotlib, show=False)


def heatmap_of_rows(explanation: Attributions, max_display: int, unit: str, ax: Axes | None) -> Axes:
    """Draw shap's heat map: a column for each row, in the order of a clustering, and a line for each feature."""
    table = _Table(explanation, "heatmap", None, max_display)
    ax = style.new_axes(ax, 9, 0.4 * len(table.names) + 2)
    order = np.arange(len(table.names))
    with _shap_draws(ax):
        options = {"feature_order": order, "max_display": len(order), "show": False, "ax": ax}
        if len(table.values) < 3:  # too few to cluster
            options["instance_order"] = np.arange(len(table.values))
        shap.plots.heatmap(table.for_shap(), **options)
    ax.set_aspect("auto")
    bar = style.get_figure(ax).axes[-1]
    bar.set_ylabel(style.with_unit(f"{ALL} {table.when}".strip(), unit), fontsize=style.SMALL)
    bar.tick_params(labelsize=style.SMALL)
    _finish(ax, "rows, in the order of a clustering", "", table.rows.output)
    ax.set_yticks([-1.5, *order], ["output − base value", *table.names], fontsize=style.SMALL)
    return ax


# ---------------------------------------------------------------------- points
@plot("rows", ", or there is no such step")
def beeswarm(
    explanation: Attributions,
    *,
    step: Any = None,
    max_display: int = 20,
    robust: bool = False,
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw shap's beeswarm plot: a point for every row and feature, to the right if it pushed the output up.

    The colour is the input's value. Triangles at the edge mark what lies beyond it. Points below two standard errors are
    hollow, where these are known.

    Parameters
    ----------
    step : int or label, optional
        A step, by its number (-1 is the last of each row) or label. By default attributions are summed over time, and the
        colour is the mean of the inputs over time.
    """
    table = _Table(explanation, "beeswarm", step, max_display)
    count = len(table.names)
    ax = style.new_axes(ax, 8, 0.36 * count + 1.2)
    has_data = table.data is not None
    with _shap_draws(ax):
        look: dict[str, Any] = {"color": style.LOW_HIGH} if has_data else {"color": style.GREY, "color_bar": False}
        look |= {"s": float(np.clip(900 / len(table.values), 4, 16)), "color_bar_label": "value of the input"}
        order, shown = np.arange(count), table.for_shap()
        shap.plots.beeswarm(shown, max_display=count, order=order, plot_size=None, show=False, **look)
    named = table.values[:, : table.named]
    inside = named[~style.is_outlier(np.abs(named))] if robust else named
    low, high = min(0.0, inside.min()), max(0.0, inside.max())
    margin = 0.05 * ((high - low) or 1.0)
    ax.set_xlim(low - margin, high + margin)
    for place, column in enumerate(table.values.T):
        style.mark_cut(ax, np.full(len(column), count - 1 - place), column, lying=True)
    unsure = table.unsure
    if unsure is not None:
        for points in (collection for collection in ax.collections if isinstance(collection, PathCollection)):
            at = np.ma.getdata(points.get_offsets())
            if len(at):
                place = count - 1 - round(float(np.median(at[:, 1])))
                _hollow_out(points, unsure[_match_points(table.values[:, [place, place]], at[:, [0, 0]]), place])
    if has_data:
        style.get_figure(ax).axes[-1].yaxis.label.set_fontsize(style.SMALL)
        style.get_figure(ax).axes[-1].tick_params(labelsize=style.SMALL)
    _finish(ax, f"{ALL} {table.when}", unit, table.rows.output, "" if unsure is None else UNSURE)
    return ax


@plot(
    "rows",
    ", the inputs are unknown or no numbers, or there is no such feature or step",
    example='explanation, feature="pulse"',
)
def scatter(
    explanation: Attributions,
    feature: int | str | None = None,
    *,
    step: Any = None,
    robust: bool = False,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw shap's scatter plot: the values of a feature and what they contributed, a point for every row and step.

    The colour is the step. Points below two standard errors are hollow, where these are known. Triangles at the edge mark what
    lies beyond it. Grey bars at the bottom count the points.

    Parameters
    ----------
    feature : int or str, optional
        Index or name of a feature, by default that of the largest mean |attribution|.
    step : int or label, optional
        One step alone, by its number (-1 is the last of each row) or label.
    """
    rows = read_features(explanation, "scatter")
    if rows.data is None:
        raise InputError(
            "plots.scatter draws values, and this explanation has none that are numbers: set display_data."
        )
    best = int(np.abs(rows.per_feature).mean(0).argmax())
    chosen = best if feature is None else rows.index_of(feature)
    there = (
        np.arange(rows.values.shape[1]) < rows.lengths[:, None] if step is None else _step_mask(rows, step, "scatter")
    )
    there &= np.isfinite(rows.data[..., chosen])
    pairs = np.stack([rows.data[there][:, chosen], rows.values[there][:, chosen]], 1)
    steps = np.nonzero(there)[1]
    errors = rows.error_of(lambda array: array[there][:, chosen])
    ax = style.new_axes(ax, 7, 4.5)
    name = style.short(rows.features[chosen])
    if len(pairs):
        with _shap_draws(ax):
            column = shap.Explanation(pairs[:, 1], data=pairs[:, 0], feature_names=name)
            size, shade = float(np.clip(6000 / len(pairs), 4, 20)), style.STEPS(0.3)
            shap.plots.scatter(column, color=shade, dot_size=size, x_jitter=0, ax=ax, show=False)
        points = next(collection for collection in ax.collections if isinstance(collection, PathCollection))
        order = _match_points(pairs, np.ma.getdata(points.get_offsets()))
        if step is None and steps.any():
            _colour_by_step(points, steps[order], rows, time_label)
        if errors is not None:
            _hollow_out(points, (np.abs(pairs[:, 1]) < style.ERRORS * errors)[order])
        if robust:
            limit = style.color_limit(pairs[:, 1], robust=True)
            ax.set_ylim(*np.clip(ax.get_ylim(), -1.05 * limit, 1.05 * limit))
            style.mark_cut(ax, *pairs.T)
    ax.set_ylabel(style.with_unit(ALL, unit), fontsize=style.SMALL + 1)
    return _finish(
        ax, name, "", rows.output, "" if step is None else _describe_step(step), "" if errors is None else UNSURE
    )


def _colour_by_step(points: PathCollection, steps: np.ndarray, rows: Sequences, time_label: str | None) -> None:
    """Shade points by their steps, and explain it by a colour bar with the steps' labels."""
    points.set(array=steps, cmap=style.STEPS)
    points.set_clim(0, steps.max())
    bar = style.color_bar(points, (rows.time_label or "step") if time_label is None else time_label)
    labels = rows.labels
    if labels is not None and labels.ndim == 1:
        ticks = np.unique(np.linspace(0, steps.max(), 5).astype(int))
        texts = [f"{label:.4g}" for label in labels[ticks]] if labels.dtype.kind == "f" else as_texts(labels[ticks])
        bar.set_ticks(ticks, labels=[style.short(text, 16) for text in texts])


def _match_points(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return which of the values (rows, 2) each drawn point (points, 2) is; shap draws them in another order."""
    points, wanted = values @ [1, 1j], drawn @ [1, 1j]
    order = np.argsort(points)
    return order[np.searchsorted(points[order], wanted).clip(max=len(order) - 1)]


def _hollow_out(points: PathCollection, hollow: np.ndarray) -> None:
    """Draw only the outline of some points."""
    if not hollow.any():
        return
    points.set_alpha(None)  # of all points, which would fill them
    points.update_scalarmappable()
    colours = np.broadcast_to(points.get_facecolor(), (len(hollow), 4))
    points.set(array=None, edgecolor=colours.copy(), linewidth=0.7)
    points.set(facecolor=np.where(hollow[:, None], 0.0, colours))


# ---------------------------------------------------------------------- steps
Cells = tuple[np.ndarray, "np.ndarray | None", "Errors | None", str]


def _over_time(rows: Sequences) -> Cells:
    when = "summed over time" if rows.has_steps or rows.is_summed else ""
    return rows.per_feature, rows.mean_data, rows.errors_of(lambda array: array.sum(1)), when


def _at_step(rows: Sequences, step: Any, what: str) -> Cells:
    there = _step_mask(rows, step, what)
    data = None if rows.data is None else rows.data[there]
    return rows.values[there], data, rows.errors_of(lambda array: array[there]), _describe_step(step)


def _step_mask(rows: Sequences, step: Any, what: str) -> np.ndarray:
    """Mark one step of each row, (rows, steps); rows that do not reach it have none."""
    number = _step_number(rows, step, what)
    places = rows.lengths + number if number < 0 else np.full(len(rows.lengths), number)
    marked = (np.arange(rows.values.shape[1]) == places[:, None]) & (places < rows.lengths)[:, None]
    if not marked.any():
        raise InputError(f"plots.{what}: no row has step {step!r}; the longest has {rows.lengths.max()} steps.")
    return marked


def _describe_step(step: Any) -> str:
    if isinstance(step, (int, np.integer)) and step < 0:
        return "at the last step" if step == -1 else f"{-step - 1} steps before the last"
    return f"at step {style.short(step)}"


def _step_number(rows: Sequences, step: Any, what: str) -> int:
    if isinstance(step, (int, np.integer)) and not isinstance(step, bool):
        return int(step)
    labels = rows.labels
    if labels is not None and labels.ndim == 1:
        wanted = np.datetime64(step) if labels.dtype.kind == "M" else step
        positions = np.flatnonzero(labels == wanted)
        if len(positions):
            return int(positions[0])
    raise InputError(f"plots.{what}: there is no step {step!r}: give its number, or a label that the rows share.")
