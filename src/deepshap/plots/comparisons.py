"""Plots that compare groups of rows, and that find rows unlike the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from ..errors import InputError, check_whole
from ..explanation.core import Attributions
from . import style
from .overview import Bars, mean_size
from .reading import Sequences, fold_smallest, plot, read_features, read_rows
from .timeline import Align, Timeline, align_sequences, nan_mean

Total = Callable[[np.ndarray], np.ndarray]
Per = Literal["feature", "step"]
OTHER_ROWS = "other rows"


@plot(
    "rows",
    ", or not one group for each row",
    example='explanation, groups=["ward", "ward", "home", "home", "home", "ward"]',
)
def importance_by_group(
    explanation: Attributions,
    groups: Sequence[Any] | np.ndarray,
    *,
    per: Per = "feature",
    align: Align = "relative",
    max_display: int = 20,
    robust: bool = False,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what moves one output in each group of rows: the mean attribution per feature, or per step.

    The numbers of a group add up to its mean output, less the base value; steps that a row does not have count as zero. Dots
    cover means below two standard errors, where these are known.

    Parameters
    ----------
    groups : sequence of str or numbers, (rows,)
        The group of each row: its class, say.
    per : "feature" or "step"
        Sum over time, or over features.
    """
    rows = (read_features if per == "feature" else read_rows)(explanation, "importance_by_group")
    labels = np.asarray(groups)
    if labels.shape != (len(rows.values),):
        raise InputError(f"groups must have one label for each of {len(rows.values)} rows, not shape {labels.shape}.")
    names, numbers = np.unique(labels, return_inverse=True)
    total, columns = _table(rows, per, align, time_label)
    groups = [numbers == group for group in range(len(names))]
    values, errors = total(rows.values), rows.errors_of(total)
    matrix = np.stack([values[group].mean(0) for group in groups])
    matrix, columns, named, fold_up = _keep_largest(matrix, columns, max_display)
    unsure = None if errors is None else np.stack([errors.of(_of_rows(fold_up, group)).of_mean() for group in groups])
    ax = style.new_axes(ax, 9, float(np.clip(0.3 * len(names), 1.2, 9)) + 1.2)
    label = style.with_unit("mean attribution", unit)
    _draw_table(ax, matrix, columns, named, [str(name) for name in names], label, errors=unsure, robust=robust)
    style.write_title(ax, rows.output)
    return ax


@plot(
    "rows",
    ", or a group is empty or has a row that does not exist",
    example='explanation, rows=[0, 1, 5], names=("ward", "home")',
)
def difference(
    explanation: Attributions,
    rows: Sequence[Any] | np.ndarray,
    others: Sequence[Any] | np.ndarray | None = None,
    *,
    names: tuple[str, str] = ("chosen rows", OTHER_ROWS),
    align: Align = "start",
    max_display: int = 20,
    robust: bool = False,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw by how much the mean attributions of two groups of rows differ, per feature and step, and in sum.

    A step is averaged over the rows that have it. The line at each sum is its 95 % confidence interval: where it holds zero,
    the difference may be chance.

    Parameters
    ----------
    rows, others : mask (rows,) or numbers of rows
        The two groups; by default the others are all other rows. Drawn are the first less the second.
    names : pair of str
        What the groups are called.
    """
    all_rows = read_rows(explanation, "difference")
    first, second = _two_groups(rows, others, len(all_rows.values), "difference")
    fold, features, keep = fold_smallest(
        _difference(all_rows.per_feature, first, second)[None], all_rows.features, max_display
    )
    sums = fold(all_rows.per_feature)
    values, time = align_sequences(
        fold(all_rows.values), all_rows.lengths, all_rows.labels, align, time_label, all_rows.time_label
    )
    matrix = _difference(values, first, second).T  # (features, columns)

    height = float(np.clip(0.27 * len(features), 1.1, 9))
    ax = style.new_axes(ax, 10, height + 1.4)
    panels = style.Panels(ax, [height], [6.6, 2.2, 0.14], gaps=(0, 0.25))
    left = panels(0, label="differences")
    limit = style.color_limit(matrix[: len(keep)], robust=robust)
    mesh = style.draw_evidence(left, time.edges, matrix, limit)
    style.label_rows(left, features)
    style.evidence_bar(
        mesh, matrix, style.with_unit("difference of means", unit), panels.bar(0, 2, "scale of differences")
    )
    time.format_axis(left)
    style.write_title(left, " minus ".join(_with_counts(names, (first, second))), all_rows.output, length=80)
    _draw_sums(panels(0, 1, label="sums"), sums[first], sums[second], len(keep))
    return ax


@plot(
    "rows",
    ", or a group is empty or has a row that does not exist",
    example='explanation, rows=[0, 1, 5], names=("ward", "home")',
)
def cohorts(
    explanation: Attributions,
    rows: Sequence[Any] | np.ndarray,
    others: Sequence[Any] | np.ndarray | None = None,
    *,
    names: tuple[str, str] = ("chosen rows", OTHER_ROWS),
    max_display: int = 20,
    robust: bool = False,
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw what matters in two groups of rows, side by side on one scale: mean |attribution| per feature, as ``importance``.

    Parameters
    ----------
    rows, others : mask (rows,) or numbers of rows
        The two groups; by default the others are all other rows.
    names : pair of str
        What the groups are called.
    """
    all_rows = read_features(explanation, "cohorts")
    groups = _two_groups(rows, others, len(all_rows.values), "cohorts")
    table = all_rows.per_feature
    sizes = np.stack([np.abs(table[group]).mean(0) for group in groups])
    fold, features, largest = fold_smallest(sizes, all_rows.features, max_display, by_size=True)
    errors, summed = all_rows.errors_of(lambda array: fold(array.sum(1))), fold(table)
    both = [Bars(summed[group], None if errors is None else errors.of_rows(group).of_mean()) for group in groups]
    reach = max(bars.reach(len(largest), robust) for bars in both)
    height = 0.27 * len(features) + 1
    ax = style.new_axes(ax, 10, height + 0.6)
    panels = style.Panels(ax, [0.05, height], [1, 1], gaps=(0.2, 0.06))  # below a legend and titles
    for place, (bars, name) in enumerate(zip(both, _with_counts(names, groups), strict=True)):
        panel = panels(1, place, label=name)
        marks = bars.draw(panel, features if place == 0 else [""] * len(features), reach)
        panel.set_title(name, fontsize=style.font_size(panel, name, 11))
        label = style.with_unit(mean_size(all_rows), unit)
        panel.set_xlabel(style.wrap(panel, label, style.SMALL + 1), fontsize=style.SMALL + 1)
    style.write_title(ax, all_rows.output, pad=20)
    style.sign_legend(ax, *marks)
    return ax


@plot("rows", ", or there is one row only", example="explanation, rows=3")
def outliers(
    explanation: Attributions,
    *,
    rows: int = 10,
    per: Per = "feature",
    align: Align = "start",
    max_display: int = 20,
    robust: bool = False,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the rows whose attributions deviate most from those of a typical row, and where they do.

    A row's deviation is the sum of |attribution - median over the rows|, per feature or per step; it is written beside the
    row. Few rows that stand out may be errors in the data, or cases that the model treats in a way of their own. Steps that a
    row does not have count as zero; features are summed up after the rows are chosen. Dots cover deviations below two
    standard errors of the row's attributions, where these are known.

    Parameters
    ----------
    rows : int
        How many rows are drawn, the most deviant first.
    per : "feature" or "step"
        Sum attributions over time, or over features.
    """
    check_whole("plots.outliers: rows", rows, 1)
    all_rows = (read_features if per == "feature" else read_rows)(explanation, "outliers")
    if len(all_rows.values) == 1:
        raise InputError("plots.outliers compares rows, and there is one only.")
    total, columns = _table(all_rows, per, align, time_label)
    table = total(all_rows.values)
    deviations = table - np.median(table, 0)
    sizes = np.abs(deviations).sum(1)
    chosen = np.argsort(-sizes, kind="stable")[: max(1, rows)]
    height = float(np.clip(0.3 * len(chosen), 0.9, 9))
    ax = style.new_axes(ax, 10, height + 1.4)
    panels = style.Panels(ax, [height], [7.2, 1.2, 0.14], gaps=(0, 0.12))
    left = panels(0, label="deviations")
    names = [all_rows.rows[row] for row in chosen]
    label = style.with_unit("deviation from the median", unit)
    matrix, columns, named, fold_up = _keep_largest(deviations[chosen], columns, max_display)
    unsure = all_rows.error_of(lambda array: fold_up(total(array)[chosen]))
    _draw_table(left, matrix, columns, named, names, label, panels.bar(0, 2, "scale of deviations"), unsure, robust)
    style.write_title(left, f"{len(chosen)} of {len(table)} rows", all_rows.output, length=40)
    _draw_sizes(panels(0, 1, label="sums"), sizes[chosen])
    return ax


# ---------------------------------------------------------------------- tables of rows or groups
def _table(rows: Sequences, per: Per, align: Align, time_label: str | None) -> tuple[Total, list[str] | Timeline]:
    """Return the function that sums values over time or features, (rows, columns), and the columns: names or a time axis."""
    if per == "feature":
        return lambda array: array.sum(1), rows.features

    def in_columns(array: np.ndarray) -> tuple[np.ndarray, Timeline]:
        summed = array.sum(2, keepdims=True)
        return align_sequences(summed, rows.lengths, rows.labels, align, time_label, rows.time_label)

    return lambda array: np.nan_to_num(in_columns(array)[0][..., 0]), in_columns(rows.values)[1]


def _keep_largest(
    matrix: np.ndarray, columns: list[str] | Timeline, max_display: int
) -> tuple[np.ndarray, list[str] | Timeline, int, Total]:
    """Return the matrix and its columns with small features summed, the number of others, and the function that does so."""
    if isinstance(columns, Timeline):
        return matrix, columns, matrix.shape[1], lambda array: array
    fold, names, largest = fold_smallest(matrix, columns, max_display)
    return fold(matrix), names, len(largest), fold


def _of_rows(total: Total, rows: np.ndarray) -> Total:
    return lambda array: total(array[rows])


def _draw_table(
    ax: Axes,
    matrix: np.ndarray,
    columns: list[str] | Timeline,
    named: int,
    names: list[str],
    label: str,
    cax: Axes | None = None,
    errors: np.ndarray | None = None,
    robust: bool = False,
) -> None:
    edges = columns.edges if isinstance(columns, Timeline) else np.arange(len(columns) + 1) - 0.5
    mesh = style.draw_evidence(ax, edges, matrix, style.color_limit(matrix[:, :named], robust=robust), errors)
    style.evidence_bar(mesh, matrix, label, cax)
    style.write_in_cells(ax, (edges[:-1] + edges[1:]) / 2, matrix, mesh.get_clim()[1])
    style.label_rows(ax, names)
    if isinstance(columns, Timeline):
        columns.format_axis(ax)
    else:
        style.label_columns(ax, columns)


def _draw_sizes(ax: Axes, sizes: np.ndarray) -> None:
    ax.barh(np.arange(len(sizes)), sizes, 0.72, color=style.GREY)
    style.leave_room(ax, 0, sizes.max())
    ax.set_ylim(len(sizes) - 0.5, -0.5)
    style.write_at_end(ax, sizes, sign=False)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel("deviation", fontsize=style.SMALL)
    style.bare(ax)


# ---------------------------------------------------------------------- two groups
def _difference(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return nan_mean(values[first]) - nan_mean(values[second])


def _draw_sums(ax: Axes, first: np.ndarray, second: np.ndarray, named: int) -> None:
    """Draw differences of two groups' means, (rows, features) both, and their confidence intervals; named ones set the scale."""
    sums = first.mean(0) - second.mean(0)
    error, label = np.zeros(len(sums)), "difference of sums"
    if min(len(first), len(second)) > 1:
        error = 1.96 * np.sqrt(first.var(0, ddof=1) / len(first) + second.var(0, ddof=1) / len(second))
        label += "\nand 95 % interval"
    style.draw_lying_bars(ax, sums)
    ax.hlines(np.arange(len(sums)), sums - error, sums + error, color="0.15", linewidth=1.3)
    low, high = min(0.0, (sums - error)[:named].min()), max(0.0, (sums + error)[:named].max())
    margin = 0.05 * (high - low) or 1.0
    ax.set_xlim(low - margin, high + margin)
    style.mark_cut(ax, np.arange(len(sums)), sums, lying=True)
    ax.set_yticks([])
    ax.locator_params(axis="x", nbins=4)
    style.open_frame(ax)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(label, fontsize=style.SMALL)


def _two_groups(first: Any, second: Any, rows: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks of two groups; the second group is by default all rows that are not in the first."""
    chosen = _mask(first, rows, f"plots.{what}: rows")
    others = ~chosen if second is None else _mask(second, rows, f"plots.{what}: others")
    if not others.any():
        raise InputError(f"plots.{what} compares with the other rows, and there are none.")
    return chosen, others


def _with_counts(names: Sequence[str], groups: Sequence[np.ndarray]) -> list[str]:
    return [f"{style.short(name)} ({group.sum()})" for name, group in zip(names, groups, strict=True)]


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
        raise InputError(f"{what} must be a mask of {rows} rows, or numbers of rows below {rows}.")
    mask[chosen] = True
    if not mask.any():
        raise InputError(f"{what} is empty.")
    return mask
