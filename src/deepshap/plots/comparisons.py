"""Groups of rows beside each other, and rows that are unlike the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from deepshap.errors import InputError
from deepshap.explanation.core import Attributions
from deepshap.plots.reading import Sequences, fold, read_rows, strongest
from deepshap.plots.style import (
    DOWN,
    GREY,
    SMALL,
    UP,
    Panels,
    bare,
    draw_evidence,
    evidence_bar,
    fixed,
    label_columns,
    label_rows,
    new_axes,
    open_frame,
    points,
    short,
    with_unit,
    write_in_cells,
)
from deepshap.plots.timeline import Align, Timeline, aligned, mean_of_known

Per = Literal["feature", "step"]
OTHER_ROWS = "other rows"


def importance_by_group(
    explanation: Attributions,
    groups: Sequence[Any] | np.ndarray,
    *,
    per: Per = "feature",
    align: Align = "relative",
    max_display: int = 20,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what moves one output in each group of rows: the mean attribution per feature, or per step.

    The numbers of a group add up to its mean output, less the base value.

    Parameters
    ----------
    explanation : Explanation
        Of one output: values (rows, steps, features).
    groups : sequence of str or numbers, (rows,)
        The group of each row: its class, say.
    per : "feature" or "step"
        Sum over time, or over features.
    align : "start", "end" or "relative"
        With ``per="step"``: how sequences of different lengths are laid over each other, by default stretched to the same
        length. Steps that a row does not have count as zero.
    max_display : int
        How many features get a column; the others are summed in one more.
    unit : str, optional
        Of the output, and so of the attributions.
    time_label : str, optional
        Label of the time axis.
    ax : Axes, optional
        Where to draw. By default a new figure.

    Returns
    -------
    Axes
        ``ax``, or the axes of the new figure.

    Raises
    ------
    InputError
        If there are several outputs, not one group for each row, or these are not sequences.
    """
    rows = read_rows(explanation, "importance_by_group")
    labels = np.asarray(groups)
    if labels.shape != (len(rows.values),):
        raise InputError(f"groups must have one label for each of {len(rows.values)} rows, not shape {labels.shape}.")
    names, numbers = np.unique(labels, return_inverse=True)
    table, columns = _table(rows, per, align, time_label)
    matrix = np.stack([table[numbers == group].mean(0) for group in range(len(names))])
    ax = new_axes(ax, 9, float(np.clip(0.3 * len(names), 1.2, 9)) + 1.2)
    _draw_table(ax, matrix, columns, max_display, [str(name) for name in names], with_unit("mean attribution", unit))
    ax.set_title(short(rows.output, 60), fontsize=11)
    return ax


def difference(
    explanation: Attributions,
    rows: Sequence[Any] | np.ndarray,
    others: Sequence[Any] | np.ndarray | None = None,
    *,
    names: tuple[str, str] = ("chosen rows", OTHER_ROWS),
    align: Align = "start",
    max_display: int = 20,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw by how much the mean attributions of two groups of rows differ, per feature and step, and in sum.

    The line at each sum is its 95 % confidence interval: where it holds zero, the difference may be chance.

    Parameters
    ----------
    explanation : Explanation
        Of one output: values (rows, steps, features).
    rows, others : mask (rows,) or numbers of rows
        The two groups; by default the others are all other rows. Drawn are the first less the second.
    names : pair of str
        What the groups are called.
    align : "start", "end" or "relative"
        How sequences of different lengths are laid over each other. A step is averaged over the rows that have it.
    max_display : int
        How many features get a line, those that differ most; the others are summed in one more.
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
        If there are several outputs, a group is empty or has a row that does not exist, or these are not sequences.
    """
    all_rows = read_rows(explanation, "difference")
    first = _mask(rows, len(all_rows.values), "rows")
    second = ~first if others is None else _mask(others, len(all_rows.values), "others")
    if not second.any():
        raise InputError("plots.difference compares with the other rows, and there are none.")
    keep, rest = strongest(_difference(all_rows.per_feature, first, second)[None], max_display)
    sums, features = fold(all_rows.per_feature, all_rows.features, keep, rest)
    values, _ = fold(all_rows.values, all_rows.features, keep, rest)
    values, time = aligned(values, all_rows.lengths, all_rows.labels, align, time_label)
    matrix = _difference(values, first, second).T  # (features, columns)

    height = float(np.clip(0.27 * len(features), 1.1, 9))
    ax = new_axes(ax, 10, height + 1.4)
    panels = Panels(ax, [height], [6.6, 2.2, 0.14], gaps=(0, 0.25))
    left = panels(0, label="differences")
    mesh = draw_evidence(left, time.edges, matrix)
    label_rows(left, features)
    evidence_bar(mesh, matrix, with_unit("difference of means", unit), panels.bar(0, 2, "scale of differences"))
    time.dress(left)
    counts = [f"{short(name)} ({mask.sum()})" for name, mask in zip(names, (first, second), strict=True)]
    left.set_title(" minus ".join(counts), fontsize=11)
    _draw_sums(panels(0, 1, label="sums"), sums[first], sums[second])
    return ax


def outliers(
    explanation: Attributions,
    *,
    rows: int = 10,
    per: Per = "feature",
    align: Align = "start",
    max_display: int = 20,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the rows whose attributions deviate most from those of a typical row, and where they do.

    A row's deviation is the sum of |attribution - median over the rows|, per feature or per step; it is written beside the
    row. Few rows that stand out may be errors in the data, or cases that the model treats in a way of their own.

    Parameters
    ----------
    explanation : Explanation
        Of one output: values (rows, steps, features).
    rows : int
        How many rows are drawn, the most deviant first.
    per : "feature" or "step"
        Sum attributions over time, or over features.
    align : "start", "end" or "relative"
        With ``per="step"``: how sequences of different lengths are laid over each other. Steps that a row does not have
        count as zero.
    max_display : int
        How many features get a column; the others are summed in one more, after the rows are chosen.
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
        If there are several outputs, or these are not sequences.
    """
    all_rows = read_rows(explanation, "outliers")
    table, columns = _table(all_rows, per, align, time_label)
    deviations = table - np.median(table, 0)
    sizes = np.abs(deviations).sum(1)
    chosen = np.argsort(-sizes, kind="stable")[: max(1, rows)]
    height = float(np.clip(0.3 * len(chosen), 0.9, 9))
    ax = new_axes(ax, 10, height + 1.4)
    panels = Panels(ax, [height], [7.2, 1.2, 0.14], gaps=(0, 0.12))
    left = panels(0, label="deviations")
    names = [all_rows.rows[row] for row in chosen]
    label = with_unit("deviation from the median", unit)
    _draw_table(left, deviations[chosen], columns, max_display, names, label, panels.bar(0, 2, "scale of deviations"))
    left.set_title(
        " · ".join(filter(None, [f"{len(chosen)} of {len(table)} rows", short(all_rows.output, 40)])), fontsize=11
    )
    _draw_sizes(panels(0, 1, label="sums"), sizes[chosen])
    return ax


# ---------------------------------------------------------------------- tables of rows or groups
def _table(rows: Sequences, per: Per, align: Align, time_label: str | None) -> tuple[np.ndarray, list[str] | Timeline]:
    """Sum over time or over features (rows, columns); columns are named features or lie on a time axis."""
    if per == "feature":
        return rows.per_feature, rows.features
    if per != "step":
        raise InputError(f"per must be 'feature' or 'step', not {per!r}.")
    values, time = aligned(rows.values.sum(2, keepdims=True), rows.lengths, rows.labels, align, time_label)
    return np.nan_to_num(values[..., 0]), time


def _draw_table(
    ax: Axes,
    matrix: np.ndarray,
    columns: list[str] | Timeline,
    max_display: int,
    names: list[str],
    label: str,
    cax: Axes | None = None,
) -> None:
    if isinstance(columns, Timeline):
        edges, centers = columns.edges, columns.centers
    else:
        matrix, columns = fold(matrix, columns, *strongest(matrix, max_display))
        edges, centers = np.arange(len(columns) + 1) - 0.5, np.arange(len(columns))
    mesh = draw_evidence(ax, edges, matrix)
    evidence_bar(mesh, matrix, label, cax)
    write_in_cells(ax, centers, matrix, mesh.get_clim()[1])
    label_rows(ax, names)
    if isinstance(columns, Timeline):
        columns.dress(ax)
    else:
        label_columns(ax, columns)


def _draw_sizes(ax: Axes, sizes: np.ndarray) -> None:
    places = np.arange(len(sizes))
    ax.barh(places, sizes, 0.72, color=GREY)
    ax.set_xlim(0, (sizes.max() or 1.0) / (1 - min(0.5, 36 / points(ax)[0])))
    ax.set_ylim(len(sizes) - 0.5, -0.5)
    for place, text in enumerate(fixed(sizes, sign=False)):
        ax.text(1, place, text, transform=ax.get_yaxis_transform(), va="center", ha="right", fontsize=7.5)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel("deviation", fontsize=SMALL)
    bare(ax)


# ---------------------------------------------------------------------- two groups
def _difference(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return mean_of_known(values[first]) - mean_of_known(values[second])


def _draw_sums(ax: Axes, first: np.ndarray, second: np.ndarray) -> None:
    """Draw the differences of two groups' means, both (rows, features), and their confidence intervals."""
    sums = first.mean(0) - second.mean(0)
    places = np.arange(len(sums))
    for chosen, look in ((sums >= 0, UP), (sums < 0, DOWN)):
        ax.barh(places[chosen], sums[chosen], 0.72, **look)
    label = "difference of sums"
    if min(len(first), len(second)) > 1:
        error = 1.96 * np.sqrt(first.var(0, ddof=1) / len(first) + second.var(0, ddof=1) / len(second))
        ax.hlines(places, sums - error, sums + error, color="0.15", linewidth=1.3)
        label += "\nand 95 % interval"
    ax.axvline(0, color="0.4", linewidth=0.6)
    ax.set_ylim(len(sums) - 0.5, -0.5)
    ax.set_yticks([])
    ax.locator_params(axis="x", nbins=4)
    open_frame(ax)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(label, fontsize=SMALL)


def _mask(chosen: Sequence[Any] | np.ndarray, rows: int, what: str) -> np.ndarray:
    """Turn a mask or numbers of rows into a mask."""
    chosen = np.asarray(chosen)
    mask = np.zeros(rows, dtype=bool)
    is_mask = chosen.dtype == bool
    fits = (
        chosen.shape == (rows,)
        if is_mask
        else chosen.dtype.kind in "iu" and ((-rows <= chosen) & (chosen < rows)).all()
    )
    if not fits:
        raise InputError(f"plots.difference: {what} must be a mask of {rows} rows, or numbers of rows below {rows}.")
    mask[chosen] = True
    if not mask.any():
        raise InputError(f"plots.difference: {what} is empty.")
    return mask
