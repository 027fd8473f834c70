"""What a model's answers for a data set rest on: per feature, per step, per feature and step; a point per row."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..errors import InputError
from ..explanation.core import Attributions
from ..explanation.uncertainty import Errors
from . import style
from .documentation import picture
from .reading import Sequences, fold_as, fold_sorted, read_rows
from .timeline import Align, Timeline, aligned, mean_of_known

BINS = 120  # in which points lie beside each other
SPREAD = "0.15"  # colour of what tells how rows differ
SPAN = "0.62"  # of what tells how exact means are


@picture("rows")
def importance(explanation: Attributions, *, max_display: int = 20, unit: str = "", ax: Axes | None = None) -> Axes:
    """Draw how much each feature moves one output: the mean over the rows of its |attribution|, summed over time.

    The parts of a bar say how much of that is upwards and how much downwards; the line, where the middle half of the rows
    lies. The largest come first, the last bar is the contribution of all others together. Where standard errors are known,
    whiskers below the line show two of them to either side of the mean.
    """
    rows = read_rows(explanation, "importance")
    values, names, kept = fold_sorted(rows.per_feature, rows.features, max_display)
    up, down = np.maximum(values, 0).mean(0), np.maximum(-values, 0).mean(0)
    low, high = np.quantile(np.abs(values), (0.25, 0.75), axis=0)
    ax = style.new_axes(ax, 8, 0.27 * len(names) + 1.4)
    places = np.arange(len(names))
    ax.barh(places, up, 0.72, **style.UP)
    ax.barh(places, down, 0.72, left=up, **style.DOWN)
    ends, marks = up + down, []
    if len(values) > 1:
        ax.hlines(places, low, high, color=SPREAD, linewidth=1.4)
        ax.plot(np.stack([low, high]), np.stack([places, places]), "|", color=SPREAD, markersize=6)
        ends = np.maximum(ends, high)
        marks = [Line2D([], [], color=SPREAD, marker="|", label="middle half of the rows")]
    errors = rows.errors_of(lambda array: fold_as(array.sum(1), kept, len(names)))
    if errors is not None:
        style.whiskers(ax, places, up + down, errors.of_mean(), lying=True, shift=0.22)
        ends = np.maximum(ends, up + down + style.ERRORS * errors.of_mean())
        marks.append(style.WHISKER)
    for place, end, text in zip(places, ends, style.fixed(up + down, sign=False), strict=True):
        ax.annotate(text, (end, place), (5, 0), textcoords="offset points", va="center", fontsize=style.SMALL)
    style.leave_room(ax, 0, ends.max())
    style.frame_lines(ax, names)
    ax.set_xlabel(style.with_unit("mean |attribution|", unit), fontsize=style.SMALL + 1)
    style.write_title(ax, rows.output, pad=20)
    style.sign_legend(ax, *marks)
    return ax


@picture("rows")
def importance_over_time(
    explanation: Attributions,
    *,
    align: Align = "start",
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how much each step moves one output, averaged over the rows that have this step.

    The bars say how much it moves it up and down; the line is their sum, the mean attribution; half of the rows lie
    between the dashed lines. A band around the line shows two standard errors, where these are known. If sequences differ in
    length, a panel below counts the rows.
    """
    rows = read_rows(explanation, "importance_over_time")

    def in_columns(array: np.ndarray) -> np.ndarray:  # (rows, columns)
        return aligned(array.sum(2, keepdims=True), rows.lengths, rows.labels, align, time_label)[0][..., 0]

    values, time = in_columns(rows.values), aligned(rows.values, rows.lengths, rows.labels, align, time_label)[1]
    counts = np.isfinite(values).sum(0)
    differ = bool((counts < len(values)).any())
    heights = [2.8, 0.5] if differ else [2.8]
    ax = style.new_axes(ax, 9, sum(heights) + 1)
    panels = style.Panels(ax, heights)
    top = panels(0, label="importance")
    _draw_means(top, time, values, rows.errors_of(in_columns))
    top.set_ylabel(style.with_unit("mean attribution", unit), fontsize=style.SMALL + 1)
    style.write_title(top, rows.output, pad=20)
    if not differ:
        time.dress(top)
        return ax
    top.tick_params(labelbottom=False)
    bottom = panels(1, sharex=top, label="rows")
    bottom.stairs(counts, time.edges, fill=True, color="0.75")
    bottom.set_ylabel("rows", fontsize=style.SMALL)
    bottom.set_yticks([0, counts.max()])
    style.open_frame(bottom)
    time.dress(bottom)
    return ax


def _draw_means(ax: Axes, time: Timeline, values: np.ndarray, errors: Errors | None) -> None:
    """Draw what the columns (rows, columns) push up and down, their mean, and how rows differ."""
    for part in (np.maximum(values, 0), np.minimum(values, 0)):
        style.draw_signed_bars(ax, time.edges, mean_of_known(part))
    mean = mean_of_known(values)
    low, high = np.nanquantile(values, (0.25, 0.75), axis=0)
    dashes: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": (0, (2, 1.5))}
    marks: list[Any] = [
        Line2D([], [], color="black", label="mean"),
        Line2D([], [], label="quartiles of the rows", **dashes),
    ]
    marker = "o" if len(mean) == 1 else ""
    if errors is not None:
        span = style.ERRORS * errors.of_mean()
        if len(mean) == 1:
            ax.errorbar(time.centers, mean, span, color="black", capsize=3)
        ax.fill_between(time.centers, mean - span, mean + span, color=SPAN, alpha=0.6, linewidth=0)
        marks.append(Patch(color=SPAN, alpha=0.6, label=style.WITHIN))
    ax.plot(time.centers, np.stack([low, high], 1), marker=marker, **dashes)
    ax.plot(time.centers, mean, color="black", linewidth=1.6, marker=marker)
    if not np.nan_to_num(values).any():
        ax.set(ylim=(-1, 1), yticks=[0])  # otherwise the rounding errors of bars without height set the scale
    style.open_frame(ax)
    style.sign_legend(ax, *marks)


@picture("rows")
def importance_map(
    explanation: Attributions,
    *,
    align: Align = "start",
    max_display: int = 20,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how each feature at each step moves one output: the mean attribution, and below it how far rows differ.

    A step is averaged over the rows that have it. Dots cover means below two standard errors, where these are known.
    """
    rows = read_rows(explanation, "importance_map").folded(max_display)

    def in_columns(array: np.ndarray) -> np.ndarray:  # (rows, columns, features)
        return aligned(array, rows.lengths, rows.labels, align, time_label)[0]

    values, time = aligned(rows.values, rows.lengths, rows.labels, align, time_label)
    errors = rows.errors_of(in_columns)
    mean, spread = mean_of_known(values).T, np.nanstd(values, 0).T  # (features, columns)
    height = float(np.clip(0.23 * len(mean), 0.9, 8))
    ax = style.new_axes(ax, 9, 2 * height + 1.3)
    panels = style.Panels(ax, [height, height], [7.5, 0.14], gaps=(0.35, 0.1))
    top = panels(0, label="mean")
    limit = style.limit_of(mean[rows.named])
    mesh = style.draw_evidence(top, time.edges, mean, limit, None if errors is None else errors.of_mean().T)
    style.evidence_bar(mesh, mean, style.with_unit("mean attribution", unit), panels.bar(0, 1, "scale of means"))
    style.write_title(top, "mean of the attributions", rows.output, length=40)
    bottom = panels(1, sharex=top, label="spread")
    limit = style.limit_of(spread[rows.named])
    shades = style.draw_map(bottom, time.edges, spread, cmap="Greys", vmin=0, vmax=limit)
    extend = "max" if spread.max() > limit else "neither"
    label = style.with_unit("standard deviation", unit)
    style.color_bar(shades, label, panels.bar(1, 1, "scale of deviations"), extend=extend)
    bottom.set_title("standard deviation over the rows", fontsize=11)
    for panel in (top, bottom):
        style.label_rows(panel, rows.features)
    time.dress(bottom)
    top.tick_params(labelbottom=False)
    return ax


# ---------------------------------------------------------------------- spread
@picture("rows", ", or there is no such step")
def beeswarm(
    explanation: Attributions, *, step: Any = None, max_display: int = 20, unit: str = "", ax: Axes | None = None
) -> Axes:
    """Draw a point for every row and feature: to the right if it pushed the output up; the colour is the input's value.

    Parameters
    ----------
    step : int or label, optional
        A step, by its number (-1 is the last of each row) or label. By default attributions are summed over time, and the
        colour is the mean of the inputs over time.
    """
    rows = read_rows(explanation, "beeswarm")
    values, data, when = _over_time(rows) if step is None else _at(rows, step)
    values, names, kept = fold_sorted(values, rows.features, max_display)
    ax = style.new_axes(ax, 8, 0.36 * len(names) + 1.2)
    ax.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    scale = (values.min(), values.max())
    size = float(np.clip(900 / len(values), 4, 16))
    look: dict[str, Any] = {"s": size, "linewidth": 0, "rasterized": True}
    coloured = None
    for place, column in enumerate(values.T):
        heights = place + _beside_each_other(column, scale)
        if data is None or place == len(kept):
            ax.scatter(column, heights, color=style.GREY, **look)
        else:
            shades = _ranked(data[:, kept[place]])
            coloured = ax.scatter(
                column, heights, c=shades, cmap=style.LOW_HIGH, vmin=0, vmax=1, plotnonfinite=True, **look
            )
    style.frame_lines(ax, names)
    ax.set_xlabel(style.with_unit(f"attribution {when}", unit), fontsize=style.SMALL + 1)
    style.write_title(ax, rows.output)
    if coloured is not None:
        bar = style.color_bar(coloured, "value of the input")
        bar.set_ticks([0, 1], labels=["low", "high"])
    return ax


def _over_time(rows: Sequences) -> tuple[np.ndarray, np.ndarray | None, str]:
    data = rows.data
    if data is not None:
        known = (np.arange(data.shape[1]) < rows.lengths[:, None])[..., None] & np.isfinite(data)
        counts = known.sum(1)
        data = np.where(counts > 0, np.where(known, data, 0).sum(1) / np.maximum(counts, 1), np.nan)
    return rows.per_feature, data, "summed over time"


def _at(rows: Sequences, step: Any) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Take one step; rows that do not reach it are left out."""
    number = _step_number(rows, step)
    places = rows.lengths + number if number < 0 else np.full(len(rows.lengths), number)
    chosen = np.flatnonzero((places >= 0) & (places < rows.lengths))
    if not len(chosen):
        raise InputError(f"plots.beeswarm: no row has step {step!r}; the longest has {rows.lengths.max()} steps.")
    place = (chosen, places[chosen])
    return rows.values[place], None if rows.data is None else rows.data[place], _when(step)


def _when(step: Any) -> str:
    if isinstance(step, (int, np.integer)) and step < 0:
        return "at the last step" if step == -1 else f"{-step - 1} steps before the last"
    return f"at step {style.short(step)}"


def _step_number(rows: Sequences, step: Any) -> int:
    if isinstance(step, (int, np.integer)) and not isinstance(step, bool):
        return int(step)
    labels = rows.labels
    if labels is not None and labels.ndim == 1:
        wanted = np.datetime64(step) if labels.dtype.kind == "M" else step
        found = np.flatnonzero(labels == wanted)
        if len(found):
            return int(found[0])
    raise InputError(f"plots.beeswarm: there is no step {step!r}: give its number, or a label that the rows share.")


def _ranked(data: np.ndarray) -> np.ndarray:
    """Bring values to 0 ... 1, without the outermost ones; what is missing stays NaN."""
    known = data[np.isfinite(data)]
    if not len(known):
        return data
    low, high = np.quantile(known, (0.05, 0.95))
    if high == low:
        low, high = known.min(), known.max()
    return np.clip((data - low) / (high - low), 0, 1) if high > low else np.where(np.isfinite(data), 0.5, np.nan)


def _beside_each_other(column: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Return how far up or down each point moves, for points of nearly the same value to be seen all."""
    low, high = scale
    bins = np.minimum((column - low) / ((high - low) or 1.0) * BINS, BINS - 1).astype(int)
    order = np.argsort(bins, kind="stable")
    ranks = np.empty(len(column), dtype=int)
    starts = np.searchsorted(bins[order], bins[order])
    ranks[order] = np.arange(len(column)) - starts
    shifts = (ranks + 1) // 2 * np.where(ranks % 2, 1, -1)
    return shifts * min(0.07, 0.42 / max(np.abs(shifts).max(), 1))
