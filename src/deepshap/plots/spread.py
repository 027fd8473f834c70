"""A point for each row: what features contributed, and how that depends on their values."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..errors import InputError
from ..explanation.core import Attributions
from ..names import as_texts
from . import style
from .documentation import picture
from .reading import Sequences, fold_as, fold_sorted, read_features, strongest

BINS = 120  # in which points lie beside each other
EASILY_SEEN = 30  # area of a triangle, in square points
UNSURE = f"hollow: less than {style.ERRORS} standard errors from 0"


@picture("rows", ", or there is no such step")
def beeswarm(
    explanation: Attributions,
    *,
    step: Any = None,
    max_display: int = 20,
    robust: bool = False,
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw a point for every row and feature: to the right if it pushed the output up; the colour is the input's value.

    Triangles at the edge lie beyond it. Points below two standard errors are hollow, where these are known.

    Parameters
    ----------
    step : int or label, optional
        A step, by its number (-1 is the last of each row) or label. By default attributions are summed over time, and the
        colour is the mean of the inputs over time.
    """
    rows = read_features(explanation, "beeswarm")
    values, data, errors, when = _summed(rows) if step is None else _at(rows, step)
    values, names, kept = fold_sorted(values, rows.features, max_display)
    unsure = None if errors is None else np.abs(values) < style.ERRORS * errors.of(_folding(kept, len(names))).errors
    ax = style.new_axes(ax, 8, 0.36 * len(names) + 1.2)
    ax.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    named = values[:, : len(kept)]
    shown = named[~style.far_out(np.abs(named))] if robust else named
    coloured = None
    for place, column in enumerate(values.T):
        is_known = data is not None and place < len(kept)
        shades = _ranked(data[:, kept[place]]) if data is not None and is_known else None
        hollow = np.zeros(len(column), bool) if unsure is None else unsure[:, place]
        drawn = _draw_points(ax, place, column, (shown.min(), shown.max()), shades, hollow)
        coloured = drawn if is_known else coloured
    style.frame_lines(ax, names)
    ax.set_xlabel(style.with_unit(f"attribution {when}".strip(), unit), fontsize=style.SMALL + 1)
    style.write_title(ax, rows.output, "" if unsure is None else UNSURE)
    if coloured is not None:
        bar = style.color_bar(coloured, "value of the input")
        bar.set_ticks([0, 1], labels=["low", "high"])
    return ax


@picture("rows", ", the inputs are unknown or no numbers, or there is no such feature or step")
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
    """Draw the values of a feature and what they contributed: a point for every row and step, whose colour is the step.

    Points below two standard errors are hollow, where these are known. Triangles at the edge lie beyond it.

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
    chosen = int(strongest(rows.per_feature, 1)[0][0]) if feature is None else rows.index_of(feature)
    there = np.arange(rows.values.shape[1]) < rows.lengths[:, None] if step is None else _only(rows, step, "scatter")
    column, data, steps = rows.values[there][:, chosen], rows.data[there][:, chosen], np.nonzero(there)[1]
    errors = rows.error_of(lambda array: array[there][:, chosen])
    hollow = np.zeros(len(column), bool) if errors is None else np.abs(column) < style.ERRORS * errors
    ax = style.new_axes(ax, 7, 4.5)
    ax.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    _draw_steps(ax, rows, (data, column, steps if step is None else 0 * steps), hollow, time_label)
    if robust:
        limit = style.limit_of(column, robust=True)
        ax.set_ylim(*np.clip(ax.get_ylim(), -1.05 * limit, 1.05 * limit))
        style.mark_cut(ax, data, column)
    style.open_frame(ax)
    ax.set_xlabel(style.short(rows.features[chosen]), fontsize=style.SMALL + 1)
    ax.set_ylabel(style.with_unit("attribution", unit), fontsize=style.SMALL + 1)
    style.write_title(ax, rows.output, "" if step is None else _when(step), "" if errors is None else UNSURE)
    return ax


# ---------------------------------------------------------------------- points
def _draw_points(
    ax: Axes,
    place: int,
    column: np.ndarray,
    scale: tuple[float, float],
    shades: np.ndarray | None,
    hollow: np.ndarray,
) -> Any:
    """Draw the points of a feature beside each other; those beyond the scale are triangles at its ends."""
    inside = np.clip(column, *scale)
    heights = place + _beside_each_other(inside, scale)
    look: dict[str, Any] = {"s": float(np.clip(900 / len(column), 4, 16)), "linewidth": 0, "rasterized": True}
    colours: dict[str, Any] = {"cmap": style.LOW_HIGH, "vmin": 0, "vmax": 1, "plotnonfinite": True}
    drawn = None
    for marker, mask in (("o", inside == column), ("<", inside > column), (">", inside < column)):
        if marker != "o" and not mask.any():
            continue
        own = {"color": style.GREY} if shades is None else {"c": shades[mask], **colours}
        size = look["s"] if marker == "o" else max(3 * look["s"], EASILY_SEEN)
        points = ax.scatter(inside[mask], heights[mask], marker=marker, **{**look, "s": size}, **own)
        _hollow_out(points, hollow[mask])
        drawn = drawn or points
    return drawn


def _hollow_out(points: Any, hollow: np.ndarray) -> None:
    """Leave the outline alone of some points."""
    if not hollow.any():
        return
    points.update_scalarmappable()
    colours = np.broadcast_to(points.get_facecolor(), (len(hollow), 4))
    points.set(array=None, edgecolor=colours.copy(), linewidth=0.7)
    points.set_facecolor(np.where(hollow[:, None], 0.0, colours))


def _draw_steps(
    ax: Axes,
    rows: Sequences,
    points: tuple[np.ndarray, np.ndarray, np.ndarray],
    hollow: np.ndarray,
    time_label: str | None,
) -> None:
    """Draw points (values, attributions, steps), in the colour of their steps if these differ."""
    data, column, steps = points
    size = float(np.clip(6000 / len(column), 4, 20))
    look: dict[str, Any] = {"s": size, "linewidth": 0, "rasterized": True}
    if not steps.any():
        _hollow_out(ax.scatter(data, column, color=style.STEPS(0.3), **look), hollow)
        return
    order = np.random.default_rng(0).permutation(len(steps))  # no step lies on all others
    drawn = ax.scatter(data[order], column[order], c=steps[order], cmap=style.STEPS, **look)
    own = rows.time_label or "step"
    bar = style.color_bar(drawn, own if time_label is None else time_label)
    _hollow_out(drawn, hollow[order])
    labels = rows.labels
    if labels is not None and labels.ndim == 1:
        ticks = np.unique(np.linspace(0, steps.max(), 5).astype(int))
        texts = [f"{label:.4g}" for label in labels[ticks]] if labels.dtype.kind == "f" else as_texts(labels[ticks])
        texts = [style.short(text, 16) for text in texts]
        bar.set_ticks(ticks, labels=texts)


# ---------------------------------------------------------------------- steps
def _summed(rows: Sequences) -> tuple[np.ndarray, np.ndarray | None, Any, str]:
    when = "summed over time" if rows.has_steps or rows.is_summed else ""
    return rows.per_feature, rows.mean_data, rows.errors_of(lambda array: array.sum(1)), when


def _folding(kept: np.ndarray, count: int) -> Any:
    return lambda array: fold_as(array, kept, count)


def _only(rows: Sequences, step: Any, what: str) -> np.ndarray:
    """Mark one step of each row, (rows, steps); rows that do not reach it have none."""
    number = _step_number(rows, step, what)
    places = rows.lengths + number if number < 0 else np.full(len(rows.lengths), number)
    marked = (np.arange(rows.values.shape[1]) == places[:, None]) & (places < rows.lengths)[:, None]
    if not marked.any():
        raise InputError(f"plots.{what}: no row has step {step!r}; the longest has {rows.lengths.max()} steps.")
    return marked


def _at(rows: Sequences, step: Any) -> tuple[np.ndarray, np.ndarray | None, Any, str]:
    """Take one step."""
    there = _only(rows, step, "beeswarm")
    data = None if rows.data is None else rows.data[there]
    return rows.values[there], data, rows.errors_of(lambda array: array[there]), _when(step)


def _when(step: Any) -> str:
    if isinstance(step, (int, np.integer)) and step < 0:
        return "at the last step" if step == -1 else f"{-step - 1} steps before the last"
    return f"at step {style.short(step)}"


def _step_number(rows: Sequences, step: Any, what: str) -> int:
    if isinstance(step, (int, np.integer)) and not isinstance(step, bool):
        return int(step)
    labels = rows.labels
    if labels is not None and labels.ndim == 1:
        wanted = np.datetime64(step) if labels.dtype.kind == "M" else step
        found = np.flatnonzero(labels == wanted)
        if len(found):
            return int(found[0])
    raise InputError(f"plots.{what}: there is no step {step!r}: give its number, or a label that the rows share.")


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
