"""How the output for one sequence builds up, step by step."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from deepshap.explanation.core import Attributions
from deepshap.plots.example import title, write_beside, write_ends
from deepshap.plots.reading import Sequences, read_row
from deepshap.plots.style import (
    CURVES,
    DOWN,
    SMALL,
    UP,
    Panels,
    apart,
    fixed,
    new_axes,
    number,
    open_frame,
    points,
    short,
    sign_legend,
    with_unit,
)
from deepshap.plots.timeline import Timeline, timeline

MOST_BARS = 100
FEW_BARS = 15  # so few that all their numbers are written


def buildup(
    explanation: Attributions,
    *,
    max_display: int = 5,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how one output builds up from the base value: a waterfall over time, and the running sums of the features.

    Parameters
    ----------
    explanation : Explanation
        Of one row and one output: values (steps, features).
    max_display : int
        How many features get a curve of their own, 5 at most; the others are summed in one more.
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
        If there are several rows or outputs, or this is not a sequence.
    """
    one = read_row(explanation, "buildup").folded(min(max_display, len(CURVES) - 1))
    time = timeline(one.labels, one.values.shape[1], time_label, MOST_BARS)
    single = len(one.features) == 1
    heights = [2.6] if single else [2.6, 2.2]
    ax = new_axes(ax, 10, sum(heights) + 1.3)
    panels = Panels(ax, heights, [8.2, 1.4], gaps=(0.3, 0))
    top = panels(0, label="output")
    _draw_waterfall(top, time, one, unit)
    title(top, one, pad=20)
    if single:
        time.dress(top)
        return ax
    bottom = panels(1, sharex=top, label="features")
    _draw_running_sums(bottom, time, one, unit)
    time.dress(bottom)
    top.tick_params(labelbottom=False)
    return ax


def _draw_waterfall(ax: Axes, time: Timeline, one: Sequences, unit: str) -> None:
    per_step = time.sums(one.values[0]).sum(1)
    base = float(one.base[0])
    after = base + np.cumsum(per_step)
    before = after - per_step
    widths = np.diff(time.edges)
    gap = 0.12 * widths if len(widths) <= MOST_BARS / 2 else 0 * widths
    for chosen, look in ((per_step >= 0, UP), (per_step < 0, DOWN)):
        left, height = (time.edges[:-1] + gap)[chosen], per_step[chosen]
        ax.bar(left, height, (widths - 2 * gap)[chosen], bottom=before[chosen], align="edge", **look)
    ax.hlines(after[:-1], time.centers[:-1], time.centers[1:], color="0.35", linewidth=0.6)
    ax.axhline(base, color="0.5", linewidth=0.8, linestyle=":")
    ax.use_sticky_edges = False
    ax.margins(x=0, y=0.12)
    if not per_step.any():  # otherwise the rounding errors of bars without height set the scale
        ax.set_ylim(base - (abs(base) or 1), base + (abs(base) or 1))
    _write_steps(ax, time, per_step, before, after)
    open_frame(ax)
    ax.set_ylabel(with_unit("output", unit), fontsize=SMALL + 1)
    write_ends(ax, one)
    sign_legend(ax)


def _write_steps(ax: Axes, time: Timeline, per_step: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
    """Write the numbers of all steps, or of the largest where there are many; none too near another, or if all are 0."""
    size = np.abs(per_step)
    if not size.any():
        return
    texts = fixed(per_step)
    room = (4.6 * max(map(len, texts)) + 4) / max(points(ax)[0], 1) * (time.edges[-1] - time.edges[0])
    places = np.clip(
        time.centers, time.edges[0] + room / 2, time.edges[-1] - room / 2
    )  # what is beside the axes stays free
    written: list[float] = []
    for i in np.argsort(-size, kind="stable"):
        many = len(size) > FEW_BARS
        if many and (len(written) == 8 or size[i] < size.max() / 20):
            break
        if any(abs(places[i] - other) < room for other in written):
            continue
        written.append(places[i])
        up = per_step[i] >= 0
        near = np.abs(time.centers - places[i]) < (room + np.diff(time.edges)) / 2
        end = max(before[near].max(), after[near].max()) if up else min(before[near].min(), after[near].min())
        ax.annotate(
            texts[i],
            (places[i], end),
            (0, 2 if up else -2),
            textcoords="offset points",
            ha="center",
            va="bottom" if up else "top",
            fontsize=7.5,
        )


def _draw_running_sums(ax: Axes, time: Timeline, one: Sequences, unit: str) -> None:
    """Draw the running sum of each feature; their last values add up to the output minus the base value."""
    curves = np.cumsum(time.sums(one.values[0]), 0)
    curves = np.concatenate([np.zeros((1, curves.shape[1])), curves])
    ax.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
    for curve, (color, dashes) in zip(curves.T, CURVES, strict=False):
        ax.plot(time.edges, curve, color=color, linestyle=dashes, linewidth=1.7)
    ax.margins(y=0.08)
    low, high = ax.get_ylim()
    places = apart(curves[-1], (high - low) * 1.35 * SMALL / max(points(ax)[1], 1))
    for place, name, value, (color, _) in zip(places, one.features, curves[-1], CURVES, strict=False):
        write_beside(ax, place, f"{short(name, 18)} {number(value)}", color=color)
    open_frame(ax)
    ax.set_ylabel(with_unit("running sum\nof attributions", unit), fontsize=SMALL + 1)
