"""Plots of many rows: importance by feature, by step, and by both; faithfulness; interactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..errors import InputError, check_whole
from ..explanation.core import Attributions
from ..explanation.uncertainty import Errors
from . import style
from .reading import Sequences, check_arguments, fold_smallest, plot, read_features, read_rows
from .timeline import Align, Timeline, align_sequences, nan_mean

if TYPE_CHECKING:
    from ..explanation.interactions import Interactions

SPREAD = "0.15"  # colour of what tells how rows differ
SPAN = "0.62"  # of what tells how exact means are

ORDERS = ((style.RED, "-", "o"), ("0.45", ":", "s"), (style.BLUE, "--", "^"))  # of faithfulness


@plot("rows")
def importance(
    explanation: Attributions, *, max_display: int = 20, robust: bool = False, unit: str = "", ax: Axes | None = None
) -> Axes:
    """Draw how much each feature moves one output: the mean over the rows of its |attribution|, summed over time.

    The parts of a bar say how much of that is upwards and how much downwards; the line, where the middle half of the rows
    lies. The largest come first, the last bar is the contribution of all others together. Where standard errors are known,
    whiskers below the line show two of them to either side of the mean.
    """
    rows = read_features(explanation, "importance")
    fold, names, largest = fold_smallest(rows.per_feature, rows.features, max_display, by_size=True)
    errors = rows.errors_of(lambda array: fold(array.sum(1)))
    ax = style.new_axes(ax, 8, 0.27 * len(names) + 1.4)
    bars = Bars(fold(rows.per_feature), None if errors is None else errors.of_mean())
    marks = bars.draw(ax, names, bars.reach(len(largest), robust))
    label = style.with_unit(mean_size(rows), unit)
    ax.set_xlabel(style.wrap(ax, label, style.SMALL + 1), fontsize=style.SMALL + 1)
    style.write_title(ax, rows.output, pad=20)
    style.sign_legend(ax, *marks)
    return ax


def mean_size(rows: Sequences) -> str:
    """Return the label of bars of features."""
    return "mean |attribution summed over time|" if rows.has_steps or rows.is_summed else "mean |attribution|"


@dataclass(frozen=True)
class Bars:
    """What each feature moves upwards and downwards, of attributions (rows, features) and the errors of their means."""

    values: np.ndarray
    errors: np.ndarray | None

    @property
    def sizes(self) -> np.ndarray:
        """Lengths of the bars."""
        return np.abs(self.values).mean(0)

    @property
    def middle(self) -> np.ndarray:
        """Where the middle half of the rows lies, (2, features)."""
        return np.quantile(np.abs(self.values), (0.25, 0.75), axis=0)

    @property
    def ends(self) -> np.ndarray:
        """How far bars go with what is drawn over them."""
        ends = np.maximum(self.sizes, self.middle[1]) if len(self.values) > 1 else self.sizes
        return ends if self.errors is None else np.maximum(ends, self.sizes + style.ERRORS * self.errors)

    def reach(self, named: int, robust: bool) -> float:
        """Return the end of the axis: the longest of the first ``named`` features, with ``robust`` without outlying rows."""
        limit = style.color_limit(self.values[:, :named], robust=True) if robust else np.inf
        errors = None if self.errors is None else self.errors[:named]
        return float(Bars(np.clip(self.values[:, :named], -limit, limit), errors).ends.max())

    def draw(self, ax: Axes, names: list[str], reach: float) -> list[Any]:
        """Draw the bars, and return their entries of the legend; bars that go beyond the reach are cut."""
        places, up, marks = np.arange(len(names)), np.maximum(self.values, 0).mean(0), []
        ax.barh(places, up, 0.72, **style.UP)
        ax.barh(places, self.sizes - up, 0.72, left=up, **style.DOWN)
        if len(self.values) > 1:
            ax.hlines(places, *self.middle, color=SPREAD, linewidth=1.4)
            ax.plot(self.middle, np.stack([places, places]), "|", color=SPREAD, markersize=6)
            marks.append(Line2D([], [], color=SPREAD, marker="|", label="middle half of the rows"))
        if self.errors is not None:
            style.whiskers(ax, places, self.sizes, self.errors, lying=True, shift=0.22)
            marks.append(style.WHISKER)
        style.leave_room(ax, 0, reach)
        for place, (end, text) in enumerate(zip(self.ends, style.format_fixed(self.sizes, sign=False), strict=True)):
            style.write_beyond(ax, end, place, text, reach)
        style.frame_lines(ax, names)
        return marks


@plot("rows")
def importance_over_time(
    explanation: Attributions,
    *,
    align: Align = "start",
    robust: bool = False,
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

    def in_columns(array: np.ndarray) -> tuple[np.ndarray, Timeline]:  # (rows, columns)
        place = (rows.lengths, rows.labels, align, time_label, rows.time_label, style.MOST_BARS)
        values, time = align_sequences(array.sum(2, keepdims=True), *place)
        return values[..., 0], time

    values, time = in_columns(rows.values)
    counts = np.isfinite(values).sum(0)
    differ = bool((counts < len(values)).any())
    heights = [2.8, 0.5] if differ else [2.8]
    ax = style.new_axes(ax, 9, sum(heights) + 1)
    panels = style.Panels(ax, heights)
    top = panels(0, label="importance")
    _draw_means(top, time, values, rows.errors_of(lambda array: in_columns(array)[0]), robust)
    top.set_ylabel(style.with_unit("mean attribution", unit), fontsize=style.SMALL + 1)
    style.write_title(top, rows.output, pad=20)
    if not differ:
        time.format_axis(top)
        return ax
    top.tick_params(labelbottom=False)
    bottom = panels(1, sharex=top, label="rows")
    bottom.stairs(counts, time.edges, fill=True, color="0.75")
    bottom.set_ylabel("rows", fontsize=style.SMALL)
    bottom.set_yticks([0, counts.max()])
    style.open_frame(bottom)
    time.format_axis(bottom)
    return ax


def _draw_means(ax: Axes, time: Timeline, values: np.ndarray, errors: Errors | None, robust: bool) -> None:
    """Draw what the columns (rows, columns) push up and down, their mean, and how rows differ."""
    parts = [nan_mean(part) for part in (np.maximum(values, 0), np.minimum(values, 0))]
    for part in parts:
        style.draw_signed_bars(ax, time.edges, part)
    mean = nan_mean(values)
    marks: list[Any] = [Line2D([], [], color="black", label="mean")]
    marker = "o" if len(mean) == 1 else ""
    if errors is not None:
        span = style.ERRORS * errors.of_mean()
        if len(mean) == 1:
            ax.errorbar(time.centers, mean, span, color="black", capsize=3)
        ax.fill_between(time.centers, mean - span, mean + span, color=SPAN, alpha=0.6, linewidth=0)
        marks.append(Patch(color=SPAN, alpha=0.6, label=style.WITHIN))
    quartiles = np.nanquantile(values, (0.25, 0.75), axis=0)
    if len(values) > 1:
        dashes: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": (0, (2, 1.5))}
        ax.plot(time.centers, quartiles.T, marker=marker, **dashes)
        marks.insert(1, Line2D([], [], label="quartiles of the rows", **dashes))
    ax.plot(time.centers, mean, color="black", linewidth=1.6, marker=marker)
    if robust:
        limit = style.color_limit(*parts, quartiles, robust=True)
        ax.set_ylim(*np.clip(ax.get_ylim(), -1.05 * limit, 1.05 * limit))
        for part in parts:
            style.mark_cut(ax, time.centers, part)
    if not np.nan_to_num(values).any():
        ax.set(ylim=(-1, 1), yticks=[0])  # otherwise the rounding errors of bars without height set the scale
    style.open_frame(ax)
    style.sign_legend(ax, *marks)


@plot("rows")
def importance_map(
    explanation: Attributions,
    *,
    align: Align = "start",
    max_display: int = 20,
    robust: bool = False,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how each feature at each step moves one output: the mean attribution, and below it how far rows differ.

    A step is averaged over the rows that have it. Dots cover means below two standard errors, where these are known.
    """
    rows = read_rows(explanation, "importance_map").keep_largest(max_display)
    place = (rows.lengths, rows.labels, align, time_label, rows.time_label)

    def in_columns(array: np.ndarray) -> np.ndarray:  # (rows, columns, features)
        return align_sequences(array, *place)[0]

    values, time = align_sequences(rows.values, *place)
    errors = rows.errors_of(in_columns)
    mean, spread = nan_mean(values).T, np.nanstd(values, 0).T  # (features, columns)
    height = float(np.clip(0.23 * len(mean), 0.9, 8))
    panels_at = [height, height] if len(values) > 1 else [height]  # one row does not differ
    ax = style.new_axes(ax, 9, sum(panels_at) + 1.3)
    panels = style.Panels(ax, panels_at, [7.5, 0.14], gaps=(0.35, 0.1))
    top = panels(0, label="mean")
    limit = style.color_limit(mean[rows.named], robust=robust)
    mesh = style.draw_evidence(top, time.edges, mean, limit, None if errors is None else errors.of_mean().T)
    style.evidence_bar(mesh, mean, style.with_unit("mean attribution", unit), panels.bar(0, 1, "scale of means"))
    style.write_title(top, "mean of the attributions", rows.output, length=40)
    style.label_rows(top, rows.features)
    if len(values) == 1:
        time.format_axis(top)
        return ax
    bottom = panels(1, sharex=top, label="spread")
    limit = style.color_limit(spread[rows.named], robust=robust)
    shades = style.draw_map(bottom, time.edges, spread, cmap="Greys", vmin=0, vmax=limit)
    extend = "max" if spread.max() > limit else "neither"
    label = style.with_unit("standard deviation", unit)
    style.color_bar(shades, label, panels.bar(1, 1, "scale of deviations"), extend=extend)
    bottom.set_title("standard deviation over the rows", fontsize=11)
    style.label_rows(bottom, rows.features)
    time.format_axis(bottom)
    top.tick_params(labelbottom=False)
    return ax


@check_arguments
def faithfulness(result: Any, *, unit: str = "", ax: Axes | None = None) -> Axes:
    """Draw how the mean output moves when players are taken away, by the order in which they go.

    The further the two outer curves are from each other, and from the random one, the more the model agrees with its
    explanation.

    Parameters
    ----------
    result : Faithfulness
        What ``deepshap.faithfulness`` returns.
    unit : str, optional
        Of the output.
    ax : Axes, optional
        Where to draw. By default a new figure.

    Returns
    -------
    Axes
        ``ax``, or the axes of the new figure.

    Raises
    ------
    InputError
        If ``unit`` is no text or ``ax`` no axes.
    """
    ax = style.new_axes(ax, 7, 4.5)
    shares = 100 * result.removed
    means = [curve.mean(0) for curve in result.deletion.values()]
    middle = len(shares) // 2
    for mean, (color, line, marker) in zip(means, ORDERS, strict=True):
        ax.plot(shares, mean, color=color, linestyle=line, marker=marker, markersize=5, linewidth=2)
    ax.set(
        xlabel=f"{result.players} that are replaced by those of the references (%)",
        ylabel=style.with_unit("mean output", unit),
    )
    ax.margins(x=0.02, y=0.12)
    style.open_frame(ax)
    _, height = style.points(ax)
    low, high = ax.get_ylim()
    gap = 15 / height * (high - low)
    heights = style.spread_apart(np.array([mean[middle] for mean in means]), gap)
    for name, y, (color, *_) in zip(
        result.deletion, heights, ORDERS, strict=True
    ):  # beside falling curves, not on them
        below = color == style.RED
        place: dict[str, Any] = {"xytext": (-8, -12) if below else (8, 3), "ha": "right" if below else "left"}
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
        ax.annotate(name, (shares[middle], y), textcoords="offset points", color=color, bbox=box, **place)
    measures = [f"separation {np.mean(result.separation):.2f}"]
    if np.isfinite(result.agreement).any():
        measures.append(f"agreement {np.nanmean(result.agreement):.2f}")
    if np.isfinite(result.doubtful).all():
        measures.append(f"{np.mean(result.doubtful):.0%} of |attribution| of doubtful sign")
    ax.set_title(f"{result.explained}: {', '.join(measures)}", fontsize=10)
    return ax


def interactions(result: Interactions, row: int | None = None, *, most: int = 12, ax: Axes | None = None) -> Axes:
    """Draw which pairs of players add something together, a map of players by players.

    The diagonal shows what each player adds by itself, a cell beside it the whole interaction of a pair, each pair once.

    Parameters
    ----------
    result : Interactions
        From ``explainer.interactions``.
    row : int, optional
        The row to draw; by default the mean size over all rows.
    most : int, default 12
        The most players that are shown, those with the largest values.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If there is no such row.

    Examples
    --------
    >>> ax = deepshap.plots.interactions(explainer.interactions(x[:1], players="features"))
    """
    if row is not None and not -len(result) <= row < len(result):
        raise InputError(f"there is no row {row} among {len(result)}.")
    check_whole("most", most, 2)
    count = len(result.names)
    values = result.values * (2 - np.eye(count))
    matrix = np.abs(values).mean(0) if row is None else values[row]
    sizes = np.abs(matrix).sum(1)
    shown = np.argsort(-sizes, kind="stable")[:most]
    matrix = np.where(np.tri(len(shown), dtype=bool), matrix[np.ix_(shown, shown)], np.nan)
    names = [result.names[k] for k in shown]
    ax = style.new_axes(ax, 2.5 + 0.55 * len(names), 1.6 + 0.4 * len(names))
    mesh = style.draw_evidence(ax, np.arange(len(names) + 1) - 0.5, matrix)
    style.write_in_cells(ax, np.arange(len(names)), matrix, mesh.get_clim()[1], sign=row is not None)
    style.evidence_bar(mesh, matrix, "mean |interaction|" if row is None else "interaction")
    style.label_rows(ax, names)
    style.label_columns(ax, names)
    more = f"{len(names)} of {count} players" if len(names) < count else ""
    style.write_title(ax, "" if row is None else f"row {row % len(result)}", "" if result.exact else "estimated", more)
    return ax
