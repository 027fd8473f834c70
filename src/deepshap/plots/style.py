"""Colours and small helpers that every picture shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine

RED = "#ff0051"
BLUE = "#008bfb"
EVIDENCE = LinearSegmentedColormap.from_list("evidence", [BLUE, "white", RED])


def panels(count: int, size: tuple[float, float], **options: Any) -> Sequence[Axes]:
    """Return axes side by side in a new figure, with room for colour bars; `options` as in `plt.subplots`."""
    layout = ConstrainedLayoutEngine(wspace=0.06)
    return plt.subplots(1, count, figsize=size, layout=layout, **options)[1]


def draw_evidence(ax: Axes, matrix: np.ndarray, limit: float | None = None, **options: Any) -> AxesImage:
    """Draw `matrix` (rows, columns) from blue over white to red, with zero exactly white.

    limit: the absolute value that has the full colour; by default the largest in `matrix`.
    """
    limit = limit or float(np.abs(matrix).max()) or 1.0
    return ax.imshow(matrix, cmap=EVIDENCE, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest", **options)


def add_colorbar(image: AxesImage, label: str) -> None:
    """Put a slim colour bar beside the image, cut to zero and the values that occur."""
    bar = image.axes.figure.colorbar(image, ax=image.axes, label=label, fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    values = np.append(np.asarray(image.get_array()), 0)
    if values.any():
        bar.ax.set_ylim(*np.clip([values.min(), values.max()], *image.get_clim()))


def label_rows(ax: Axes, names: Sequence[str], label: str = "") -> None:
    """Name every row of a drawn matrix."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylabel(label)
    tidy(ax)


def label_columns(ax: Axes, names: Sequence[str], label: str = "") -> None:
    """Name every column of a drawn matrix."""
    ax.set_xticks(range(len(names)), names)
    ax.set_xlabel(label)
    tidy(ax)


def tidy(ax: Axes) -> None:
    """Take away the frame and the tick marks."""
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def names_or_numbers(names: Sequence[str] | None, count: int) -> list[str]:
    """Return the given names, or the numbers from 0 on where there are none."""
    return [str(i) for i in range(count)] if names is None else [str(name) for name in names]
