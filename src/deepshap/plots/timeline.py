"""The time axis of plots: numbers, dates or labels, with several steps in a column if there are too many to draw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from matplotlib import dates, ticker
from matplotlib.axes import Axes

from deepshap.explanation.labels import as_texts
from deepshap.plots.style import SMALL, date_axis, points, short

Align = Literal["start", "end", "relative"]
MOST_COLUMNS = 400
PARTS = 20  # of a sequence, where sequences are stretched to the same length


@dataclass(frozen=True)
class Timeline:
    """Where steps are drawn.

    edges: (columns + 1,), where the columns begin and end, as numbers of the axis.
    starts: (columns,), the first step of each column. steps: how many steps there are.
    label: the axis' label. names: labels of the columns, instead of numbers. dates: whether the numbers are dates.
    """

    edges: np.ndarray
    starts: np.ndarray
    steps: int
    label: str
    names: list[str] | None = None
    dates: bool = False

    @property
    def centers(self) -> np.ndarray:
        """Middle of each column."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    @property
    def binned(self) -> bool:
        """Whether a column stands for several steps."""
        return len(self.starts) < self.steps

    def sums(self, values: np.ndarray, axis: int = 0) -> np.ndarray:
        """Sum over the steps of each column; NaN where all are."""
        if not self.binned:
            return values
        finite = np.isfinite(values)
        sums = np.add.reduceat(np.where(finite, values, 0), self.starts, axis)
        return np.where(np.logical_or.reduceat(finite, self.starts, axis), sums, np.nan)

    def means(self, values: np.ndarray, axis: int = 0) -> np.ndarray:
        """Average over the steps of each column; NaN where all are."""
        return self.sums(values, axis) / np.maximum(self._reduce(np.add, np.isfinite(values).astype(int), axis), 1)

    def envelope(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest value (columns,) in each column."""
        return self._reduce(np.fmin, values, 0), self._reduce(np.fmax, values, 0)

    def _reduce(self, function: np.ufunc, values: np.ndarray, axis: int) -> np.ndarray:
        return function.reduceat(values, self.starts, axis) if self.binned else values

    def format_axis(self, ax: Axes) -> None:
        """Put limits, ticks and the label on the horizontal axis."""
        ax.set_xlim(self.edges[0], self.edges[-1])
        ax.set_xlabel(self.label, fontsize=SMALL + 1)
        ax.tick_params(axis="x", labelsize=SMALL)
        if self.dates:
            most = int(np.clip(points(ax)[0] / (6 * SMALL), 3, 8))  # a date has six letters at most: Mar-01, 14:30
            date_axis(ax, most)
        elif self.names is not None:
            self._write_names(ax, self.names)
        elif len(self.starts) <= 12 and not self.binned and np.allclose(np.diff(self.centers), 1):
            ax.xaxis.set_major_locator(ticker.FixedLocator(self.centers.tolist()))
        else:
            is_integer = np.allclose(self.edges % 0.5, 0)
            ax.xaxis.set_major_locator(ticker.MaxNLocator(8, steps=[1, 2, 5, 10], integer=is_integer))

    def _write_names(self, ax: Axes, names: list[str]) -> None:
        """Write as many names as there is room for, aslant if they are too long."""
        longest = max(map(len, names))
        letters = points(ax)[0] / len(names) / SMALL  # for each name, in units of the size of the font
        slant = letters < 0.6 * longest + 1 and longest > 3
        every = max(1, int(np.ceil((1.3 if slant else 0.6 * longest + 1) / letters)))
        style: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slant else {}
        ax.set_xticks(self.centers[::every], names[::every], fontsize=SMALL, **style)


def timeline(
    labels: np.ndarray | None,
    steps: int,
    time_label: str | None,
    default_label: str | None = None,
    columns: int = MOST_COLUMNS,
) -> Timeline:
    """Lay out steps with their labels, (steps,) or None: numbers and time stamps if they rise, or else words.

    time_label: what the axis is to be called; own: what it is called otherwise.
    """
    size = int(np.ceil(steps / columns))
    starts = np.arange(0, steps, size)
    numbers, are_dates = _as_numbers(labels)
    names = None
    if numbers is None:
        numbers = np.arange(steps, dtype=float)
        names = None if labels is None else [short(text, 16) for text in as_texts(labels[starts])]
    default = (
        default_label
        if default_label is not None
        else "step"
        if labels is None or labels.dtype.kind in "iu"
        else ""
        if are_dates or names
        else "time"
    )
    label = default if time_label is None else short(time_label, 60)
    time = Timeline(_edges(numbers)[np.append(starts, steps)], starts, steps, label, names, are_dates)
    return replace(time, label=_add_bin_size(time.label, size)) if time.binned else time


def _add_bin_size(label: str, size: int) -> str:
    return f"{label} (attributions summed over {size} steps each)".strip()


def _as_numbers(labels: np.ndarray | None) -> tuple[np.ndarray | None, bool]:
    """Return labels as rising numbers of an axis, if they are, and whether they are dates."""
    if labels is None or labels.dtype.kind not in "iufM":
        return None, False
    are_dates = labels.dtype.kind == "M"
    if are_dates and (np.isnat(labels).any() or len(labels) == 1):  # one alone does not tell how long a step is
        return None, False
    numbers = dates.date2num(labels) if are_dates else labels.astype(float)
    rising = np.isfinite(numbers).all() and (np.diff(numbers) > 0).all()
    return (numbers, are_dates) if rising else (None, False)


def _edges(centers: np.ndarray) -> np.ndarray:
    """Return where steps begin and end: half-way to the next one."""
    if len(centers) == 1:
        return centers[0] + np.array([-0.5, 0.5])
    middles = (centers[:-1] + centers[1:]) / 2
    return np.concatenate([[2 * centers[0] - middles[0]], middles, [2 * centers[-1] - middles[-1]]])


# ---------------------------------------------------------------------- many sequences
def align_sequences(
    values: np.ndarray,
    lengths: np.ndarray,
    labels: np.ndarray | None,
    align: Align,
    time_label: str | None,
    default_label: str | None = None,
    columns: int = MOST_COLUMNS,
) -> tuple[np.ndarray, Timeline]:
    """Lay sequences of different lengths over each other.

    values: (rows, steps, features); lengths: (rows,); labels: (steps,) or (rows, steps) or None.
    Returns the values (rows, columns, features), NaN where a sequence has no step, and where the columns lie.
    """
    longest = lengths.max()
    if labels is not None:
        same = labels.ndim == 1 or (labels == labels[:1]).all()
        labels = (labels if labels.ndim == 1 else labels[0])[:longest] if same else None
    values = values[:, :longest]
    if align == "relative":
        return _relative(values, lengths, time_label)
    if align == "start" or ((lengths == longest).all() and labels is not None):
        time = timeline(labels, longest, time_label, default_label, columns)
        present = np.arange(longest) < lengths[:, None]
        return time.sums(np.where(present[..., None], values, np.nan), 1), time
    return _from_end(values, lengths, time_label, columns)


def _from_end(
    values: np.ndarray, lengths: np.ndarray, time_label: str | None, columns: int
) -> tuple[np.ndarray, Timeline]:
    steps = values.shape[1]
    source = np.arange(steps) - (steps - lengths[:, None])  # the step that moves to each place
    moved = np.take_along_axis(values, np.maximum(source, 0)[..., None], 1)
    label = "steps before the end (0: the last)" if time_label is None else time_label
    time = timeline(np.arange(1 - steps, 1), steps, label, columns=columns)
    return time.sums(np.where((source >= 0)[..., None], moved, np.nan), 1), time


def _relative(values: np.ndarray, lengths: np.ndarray, time_label: str | None) -> tuple[np.ndarray, Timeline]:
    edges = np.linspace(0, 100, PARTS + 1)
    label = f"part of the sequence (%, {PARTS} parts)" if time_label is None else time_label
    time = Timeline(edges, np.arange(PARTS), PARTS, short(label, 60))
    return stretch(values, lengths, PARTS), time


def stretch(values: np.ndarray, lengths: np.ndarray, parts: int) -> np.ndarray:
    """Stretch sequences (rows, steps, features) to the same number of parts, keeping each one's sums.

    Returns (rows, parts, features); a step that lies in two parts is shared between them.
    """
    edges = np.linspace(0, 1, parts + 1)
    result = np.empty((len(values), parts, values.shape[2]))
    for row, length in enumerate(lengths):
        total = np.concatenate([np.zeros((1, values.shape[2])), np.cumsum(values[row, :length], 0)])
        place = edges * length
        below = np.minimum(place.astype(int), length - 1)
        part = (place - below)[:, None]
        result[row] = np.diff(total[below] * (1 - part) + total[below + 1] * part, axis=0)
    return result


def nan_mean(values: np.ndarray) -> np.ndarray:
    """Average over the rows that have a value; NaN where none has."""
    counts = np.isfinite(values).sum(0)
    return np.where(counts > 0, np.nansum(values, 0) / np.maximum(counts, 1), np.nan)
