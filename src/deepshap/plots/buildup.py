"""How the output for one sequence builds up, step by step."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from ..explanation.core import Attributions
from . import style
from .documentation import picture
from .example import title, write_beside, write_ends
from .reading import Sequences, read_row
from .timeline import Timeline, timeline

MOST_BARS = 100
FEW_BARS = 15  # so few that all their numbers are written


@picture("row")
def buildup(
    explanation: Attributions,
    *,
    max_display: int = 5,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how one output builds up from the base value: a waterfall over time, and the running sums of the features.

    Up to 5 features have a curve of their own. Whiskers show two standard errors of the steps, where these are known.
    """
    one = read_row(explanation, "buildup").folded(min(max_display, len(style.CURVES) - 1))
    time = timeline(one.labels, one.values.shape[1], time_label, MOST_BARS)
    single = len(one.features) == 1
    heights = [2.6] if single else [2.6, 2.2]
    ax = style.new_axes(ax, 10, sum(heights) + 1.3)
    panels = style.Panels(ax, heights, [8.2, 1.4], gaps=(0.3, 0))
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
    for chosen, look in ((per_step >= 0, style.UP), (per_step < 0, style.DOWN)):
        left, height = (time.edges[:-1] + gap)[chosen], per_step[chosen]
        ax.bar(left, height, (widths - 2 * gap)[chosen], bottom=before[chosen], align="edge", **look)
    ax.hlines(after[:-1], time.centers[:-1], time.centers[1:], color="0.35", linewidth=0.6)
    ax.axhline(base, color="0.5", linewidth=0.8, linestyle=":")
    ax.use_sticky_edges = False
    ax.margins(x=0, y=0.12)
    if not per_step.any():  # otherwise the rounding errors of bars without height set the scale
        ax.set_ylim(base - (abs(base) or 1), base + (abs(base) or 1))
    errors = one.error_of(lambda array: time.sums(array[0]).sum(1))
    style.whiskers(ax, time.centers, after, errors)
    reach = 0 if errors is None else style.ERRORS * errors
    _write_steps(ax, time, per_step, np.maximum(before, after + reach), np.minimum(before, after - reach))
    style.open_frame(ax)
    ax.set_ylabel(style.with_unit("output", unit), fontsize=style.SMALL + 1)
    write_ends(ax, one)
    style.sign_legend(ax, *([] if errors is None else [style.WHISKER]))


def _write_steps(ax: Axes, time: Timeline, per_step: np.ndarray, tops: np.ndarray, bottoms: np.ndarray) -> None:
    """Write the numbers of all steps, or of the largest where there are many; none too near another, or if all are 0."""
    size = np.abs(per_step)
    if not size.any():
        return
    texts = style.fixed(per_step)
    room = (4.6 * max(map(len, texts)) + 4) / max(style.points(ax)[0], 1) * (time.edges[-1] - time.edges[0])
    places = np.clip(time.centers, time.edges[0] + room / 2, time.edges[-1] - room / 2)  # free: what is beside the axes
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
        end, shift, va = (tops[near].max(), 2, "bottom") if up else (bottoms[near].min(), -2, "top")
        ax.annotate(
            texts[i], (places[i], end), (0, shift), textcoords="offset points", ha="center", va=va, fontsize=7.5
        )


def _draw_running_sums(ax: Axes, time: Timeline, one: Sequences, unit: str) -> None:
    """Draw the running sum of each feature; their last values add up to the output minus the base value."""
    curves = np.cumsum(time.sums(one.values[0]), 0)
    curves = np.concatenate([np.zeros((1, curves.shape[1])), curves])
    ax.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
    for curve, (color, dashes) in zip(curves.T, style.CURVES, strict=False):
        ax.plot(time.edges, curve, color=color, linestyle=dashes, linewidth=1.7)
    ax.margins(y=0.08)
    low, high = ax.get_ylim()
    places = style.apart(curves[-1], (high - low) * 1.35 * style.SMALL / max(style.points(ax)[1], 1))
    for place, name, value, (color, _) in zip(places, one.features, curves[-1], style.CURVES, strict=False):
        write_beside(ax, place, f"{style.short(name, 18)} {style.number(value)}", color=color)
    style.open_frame(ax)
    ax.set_ylabel(style.with_unit("running sum\nof attributions", unit), fontsize=style.SMALL + 1)
