"""How the attributions of each feature are spread over a data set."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..errors import InputError
from ..explanation.core import Attributions
from . import style
from .documentation import picture
from .reading import Sequences, fold_sorted, read_rows

BINS = 120  # in which points lie beside each other


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
