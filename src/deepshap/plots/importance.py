"""What a model's answers for a data set rest on: per feature, per step, per feature and step."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from deepshap.explanation.core import Attributions
from deepshap.plots.reading import fold_sorted, read_rows
from deepshap.plots.style import (
    DOWN,
    SMALL,
    UP,
    Panels,
    color_bar,
    draw_evidence,
    draw_map,
    draw_signed_bars,
    evidence_bar,
    fixed,
    label_rows,
    limit_of,
    new_axes,
    open_frame,
    points,
    short,
    sign_legend,
    with_unit,
)
from deepshap.plots.timeline import Align, aligned, mean_of_known

SPREAD = "0.15"  # colour of what tells how rows differ


def importance(explanation: Attributions, *, max_display: int = 20, unit: str = "", ax: Axes | None = None) -> Axes:
    """Draw how much each feature moves one output: the mean over the rows of its |attribution|, summed over time.

    The parts of a bar say how much of that is upwards and how much downwards; the line, where the middle half of the rows
    lies.

    Parameters
    ----------
    explanation : Explanation
        Of one output: values (rows, steps, features).
    max_display : int
        How many features get a bar, the largest first; the last bar is the contribution of all others together.
    unit : str, optional
        Of the output, and so of the attributions.
    ax : Axes, optional
        Where to draw. By default a new figure.

    Returns
    -------
    Axes
        ``ax``, or the axes of the new figure.

    Raises
    ------
    InputError
        If there are several outputs, or these are not sequences.
    """
    rows = read_rows(explanation, "importance")
    values, names, _ = fold_sorted(rows.per_feature, rows.features, max_display)
    up, down = np.maximum(values, 0).mean(0), np.maximum(-values, 0).mean(0)
    low, high = np.quantile(np.abs(values), (0.25, 0.75), axis=0)
    ax = new_axes(ax, 8, 0.27 * len(names) + 1.4)
    places = np.arange(len(names))
    ax.barh(places, up, 0.72, **UP)
    ax.barh(places, down, 0.72, left=up, **DOWN)
    many = len(values) > 1
    if many:
        ax.hlines(places, low, high, color=SPREAD, linewidth=1.4)
        ax.plot(np.stack([low, high]), np.stack([places, places]), "|", color=SPREAD, markersize=6)
    ends = np.maximum(up + down, high if many else 0)
    for place, end, text in zip(places, ends, fixed(up + down, sign=False), strict=True):
        ax.annotate(text, (end, place), (5, 0), textcoords="offset points", va="center", fontsize=SMALL)
    ax.set_xlim(0, (ends.max() or 1.0) / (1 - min(0.5, 36 / points(ax)[0])))
    ax.set_ylim(len(names) - 0.5, -0.5)
    open_frame(ax)
    label_rows(ax, names)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(with_unit("mean |attribution|", unit), fontsize=SMALL + 1)
    ax.set_title(short(rows.output, 60), fontsize=11, pad=20)
    line = [Line2D([], [], color=SPREAD, marker="|", label="middle half of the rows")] if many else []
    sign_legend(ax, *line)
    return ax


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
    between the dashed lines. If sequences differ in length, a panel below counts the rows.

    Parameters
    ----------
    explanation : Explanation
        Of one output: values (rows, steps, features).
    align : "start", "end" or "relative"
        How sequences of different lengths are laid over each other: by their first steps, by their last steps, or stretched
        to the same length.
    unit : str, optional
        Of the output, and so of the attributions.
    time_label : str, optional
        Label of the time axis.
    ax : Axes, optional
        Where to draw; the panels (``ax.child_axes``) share its place. By default a new figure.

    Returns
    -------
    Axes
        ``ax``, or the axes of the new figure.

    Raises
    ------
    InputError
        If there are several outputs, these are not sequences, or ``align`` is something else.
    """
    rows = read_rows(explanation, "importance_over_time")
    values, time = aligned(rows.values.sum(2, keepdims=True), rows.lengths, rows.labels, align, time_label)
    values = values[..., 0]  # (rows, columns)
    counts = np.isfinite(values).sum(0)
    differ = bool((counts < len(values)).any())
    heights = [2.8, 0.5] if differ else [2.8]
    ax = new_axes(ax, 9, sum(heights) + 1)
    panels = Panels(ax, heights)
    top = panels(0, label="importance")
    for part in (np.maximum(values, 0), np.minimum(values, 0)):
        draw_signed_bars(top, time.edges, mean_of_known(part))
    mean = mean_of_known(values)
    low, high = np.nanquantile(values, (0.25, 0.75), axis=0)
    dashes: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": (0, (2, 1.5))}
    marker = "o" if len(mean) == 1 else ""
    top.plot(time.centers, np.stack([low, high], 1), marker=marker, **dashes)
    top.plot(time.centers, mean, color="black", linewidth=1.6, marker=marker)
    if not np.nan_to_num(values).any():
        top.set(ylim=(-1, 1), yticks=[0])  # otherwise the rounding errors of bars without height set the scale
    open_frame(top)
    top.set_ylabel(with_unit("mean attribution", unit), fontsize=SMALL + 1)
    top.set_title(short(rows.output, 60), fontsize=11, pad=20)
    lines = [Line2D([], [], color="black", label="mean"), Line2D([], [], label="quartiles of the rows", **dashes)]
    sign_legend(top, *lines)
    if not differ:
        time.dress(top)
        return ax
    top.tick_params(labelbottom=False)
    bottom = panels(1, sharex=top, label="rows")
    bottom.stairs(counts, time.edges, fill=True, color="0.75")
    bottom.set_ylabel("rows", fontsize=SMALL)
    bottom.set_yticks([0, counts.max()])
    open_frame(bottom)
    time.dress(bottom)
    return ax


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

    Parameters
    ----------
    explanation : Explanation
        Of one output: values (rows, steps, features).
    align : "start", "end" or "relative"
        How sequences of different lengths are laid over each other: by their first steps, by their last steps, or stretched
        to the same length. A step is averaged over the rows that have it.
    max_display : int
        How many features get a line of their own; the others are summed in one more.
    unit : str, optional
        Of the output, and so of the attributions.
    time_label : str, optional
        Label of the time axis.
    ax : Axes, optional
        Where to draw; the panels (``ax.child_axes``) share its place. By default a new figure.

    Returns
    -------
    Axes
        ``ax``, or the axes of the new figure.

    Raises
    ------
    InputError
        If there are several outputs, these are not sequences, or ``align`` is something else.
    """
    rows = read_rows(explanation, "importance_map").folded(max_display)
    values, time = aligned(rows.values, rows.lengths, rows.labels, align, time_label)
    mean, spread = mean_of_known(values).T, np.nanstd(values, 0).T  # (features, columns)
    height = float(np.clip(0.23 * len(mean), 0.9, 8))
    ax = new_axes(ax, 9, 2 * height + 1.3)
    panels = Panels(ax, [height, height], [7.5, 0.14], gaps=(0.35, 0.1))
    top = panels(0, label="mean")
    mesh = draw_evidence(top, time.edges, mean, limit_of(mean[rows.named]))
    evidence_bar(mesh, mean, with_unit("mean attribution", unit), panels.bar(0, 1, "scale of means"))
    top.set_title(" · ".join(filter(None, ["mean of the attributions", short(rows.output, 40)])), fontsize=11)
    bottom = panels(1, sharex=top, label="spread")
    limit = limit_of(spread[rows.named])
    shades = draw_map(bottom, time.edges, spread, cmap="Greys", vmin=0, vmax=limit)
    extend = "max" if spread.max() > limit else "neither"
    color_bar(shades, with_unit("standard deviation", unit), panels.bar(1, 1, "scale of deviations"), extend=extend)
    bottom.set_title("standard deviation over the rows", fontsize=11)
    for panel in (top, bottom):
        label_rows(panel, rows.features)
    time.dress(bottom)
    top.tick_params(labelbottom=False)
    return ax
