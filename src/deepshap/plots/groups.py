"""Pictures of many sequences at once, group by group (class by class, say)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from deepshap.plots.style import add_colorbar, draw_evidence, label_columns, label_rows, names_or_numbers


def feature_importance_by_group(
    values: np.ndarray,
    groups: np.ndarray,
    *,
    group_names: Sequence[str] | None = None,
    group_label: str = "group",
    feature_names: Sequence[str] | None = None,
    feature_label: str = "feature",
    value_label: str = "mean attribution",
    ax: Axes | None = None,
) -> Axes:
    """Draw what each feature contributes in each group: summed over time, averaged over the group's examples.

    A row adds up to the group's mean output difference, so that rows can be compared.

    values: (examples, time steps, features); padding must be zero.
    groups: (examples,), each example's group as an integer from 0 on.
    """
    ax = ax or plt.subplots(figsize=(7, 4.5), layout="constrained")[1]
    group_names = names_or_numbers(group_names, groups.max() + 1)
    matrix = _group_means(values.sum(axis=1), groups, len(group_names))
    add_colorbar(draw_evidence(ax, matrix), value_label)
    _write_numbers(ax, matrix)
    label_rows(ax, group_names, group_label)
    label_columns(ax, names_or_numbers(feature_names, matrix.shape[1]), feature_label)
    return ax


def importance_over_time(
    values: np.ndarray,
    lengths: np.ndarray,
    groups: np.ndarray,
    *,
    bins: int = 10,
    group_names: Sequence[str] | None = None,
    group_label: str = "group",
    time_label: str = "part of the sequence (%)",
    value_label: str = "mean attribution",
    ax: Axes | None = None,
) -> Axes:
    """Draw when in a sequence the attribution falls, from its start (0 %) to its end (100 %), group by group.

    values: (examples, time steps, features).
    lengths: (examples,), the number of time steps that are no padding.
    groups: (examples,), each example's group as an integer from 0 on.
    """
    ax = ax or plt.subplots(figsize=(7, 4.5), layout="constrained")[1]
    group_names = names_or_numbers(group_names, groups.max() + 1)
    matrix = _group_means(relative_time_profile(values.sum(axis=2), lengths, bins), groups, len(group_names))
    add_colorbar(draw_evidence(ax, matrix, extent=(0, 100, len(matrix) - 0.5, -0.5)), value_label)
    label_rows(ax, group_names, group_label)
    ax.set_xlabel(time_label)
    return ax


def relative_time_profile(values: np.ndarray, lengths: np.ndarray, bins: int) -> np.ndarray:
    """Stretch sequences of different lengths to the same number of bins, keeping each one's sum.

    values: (examples, time steps); lengths: (examples,). Returns (examples, bins).
    """
    edges = np.linspace(0, 1, bins + 1)
    profile = np.empty((len(values), bins))
    for row, (sequence, length) in enumerate(zip(values, lengths, strict=True)):
        total = np.concatenate([[0], np.cumsum(sequence[:length], dtype=np.float64)])
        profile[row] = np.diff(np.interp(edges * length, np.arange(length + 1), total))
    return profile


def _group_means(rows: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, groups, rows)
    return sums / np.maximum(np.bincount(groups, minlength=count), 1)[:, None]


def _write_numbers(ax: Axes, matrix: np.ndarray) -> None:
    strong = 0.6 * np.abs(matrix).max()
    for (row, column), value in np.ndenumerate(matrix.round(1) + 0.0):  # + 0.0 makes −0.0 a plain 0.0
        color = "white" if abs(value) > strong else "black"
        ax.text(column, row, f"{value:.1f}", ha="center", va="center", color=color, fontsize=8)
