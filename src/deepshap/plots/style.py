"""Colours, labels and panels that all plots share.

Red pushes the output up, blue pushes it down. Both are equally light and would be the same grey in print: where position does
not tell them apart, blue is hatched as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

RED, BLUE, GREY = "#ff0051", "#008bfb", "#8c8c8c"
EVIDENCE = LinearSegmentedColormap.from_list("evidence", [BLUE, "white", RED])
EVIDENCE_LINE = LinearSegmentedColormap.from_list("evidence_line", ["#0050b0", "#808080", RED])  # on a white ground
# Of inputs, darker where they are higher; those that are missing are grey.
LOW_HIGH = LinearSegmentedColormap.from_list("low_high", ["#6fbcff", "#a97fd6", "#d8206e", "#9e0038"]).with_extremes(
    bad=GREY
)
STEPS = LinearSegmentedColormap.from_list("steps", ["#3b0f70", "#b5367a", "#fb8761", "#f5b041"])  # early to late
UP: dict[str, Any] = {"facecolor": RED, "edgecolor": "white", "linewidth": 0}
DOWN: dict[str, Any] = {"facecolor": BLUE, "edgecolor": "white", "linewidth": 0, "hatch": "////"}
EMPTY = "#ececec"  # behind cells without a value

# For curves, in colours that the colour-blind tell apart; the dashes are for print.
CURVES = (
    ("#000000", "-"),
    ("#d55e00", (0, (5, 1.5))),
    ("#0072b2", (0, (1.5, 1))),
    ("#009e73", (0, (6, 1.5, 1.5, 1.5))),
    ("#cc79a7", (0, (8, 2))),
    ("#e69f00", (0, (3, 1, 1, 1, 1, 1))),
)
SMALL = 8.5
LONGEST_NAME = 28
MOST_BARS = 100
ERRORS = 2  # standard errors that whiskers show, and below which values are dotted
WITHIN = f"± {ERRORS} standard errors"
WHISKER = Line2D([], [], color="black", linewidth=0.9, marker="|", markersize=5, label=WITHIN)
DOTTED = f"dotted: less than {ERRORS} standard errors from 0"
SATURATED = 0.6  # of the full colour, from where letters are white
NEW_WIDTH = 558  # of the axes of a new picture of 10 inches, in points
LONGEST_BAR = 2.2  # colour bar, in inches where the panels are


def new_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or the axes of a new figure of the given size in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def get_figure(ax: Axes) -> Figure:
    """Return the whole figure that the axes are in."""
    figure = ax.figure
    while not isinstance(figure, Figure):
        figure = figure.figure
    return figure


def panel_widths(ax: Axes, widths: Sequence[float], gap: float) -> list[float]:
    """Return widths of panels such that in narrower axes the first one shrinks and the others keep their sizes."""
    sides = sum(widths[1:]) + gap * (len(widths) - 1)
    width = (widths[0] + sides) * min(1.0, points(ax)[0] / NEW_WIDTH)
    return [max(width - sides, 0.5 * sides), *widths[1:]]


class Panels:
    """Panels in the box of `ax`, which stays inside its place in whatever layout it is part of.

    heights, widths: the sizes of rows (from the top) and columns, in any unit; gaps have the same unit.
    """

    def __init__(self, ax: Axes, heights: Sequence[float], widths: Sequence[float] = (1,), gaps: Any = (0.1, 0.1)):
        ax.axis("off")
        self.ax = ax
        self._heights = heights
        self._columns = _places(widths, gaps[1])
        self._rows = [(1 - start - size, size) for start, size in _places(heights, gaps[0])]

    def __call__(self, row: int, column: int = 0, rows: int = 1, **options: Any) -> Axes:
        """Make the axes in a row and column, over ``rows`` rows."""
        (left, width), (top, height) = self._columns[column], self._rows[row]
        bottom = self._rows[row + rows - 1][0]
        return self.ax.inset_axes((left, bottom, width, top + height - bottom), **options)

    def bar(self, row: int, column: int, label: str) -> Axes:
        """Make the axes of a colour bar at the top of a row, not too long."""
        (left, width), (bottom, height) = self._columns[column], self._rows[row]
        size = min(height, height * LONGEST_BAR / self._heights[row])
        return self.ax.inset_axes((left, bottom + height - size, width, size), label=label)


def _places(sizes: Sequence[float], gap: float) -> list[tuple[float, float]]:
    total = sum(sizes) + gap * (len(sizes) - 1)
    starts = np.cumsum([0.0, *(size + gap for size in sizes[:-1])])
    return [(float(start / total), size / total) for start, size in zip(starts, sizes, strict=True)]


# ---------------------------------------------------------------------- maps
def color_limit(*matrices: np.ndarray, robust: bool = False) -> float:
    """Return the attribution that gets the full colour: the largest, but for one in five hundred; robust: not far out."""
    sizes = np.abs(np.concatenate([matrix[np.isfinite(matrix)] for matrix in matrices]))
    sizes = sizes[~is_outlier(sizes)] if robust else sizes
    return float(np.quantile(sizes, 0.998, method="higher")) or float(sizes.max()) or 1.0


def is_outlier(sizes: np.ndarray) -> np.ndarray:
    """Return which sizes are more than three interquartile ranges above the quartiles of the nonzero ones (Tukey 1977)."""
    nonzero = sizes[sizes > 0]
    low, high = np.quantile(nonzero, (0.25, 0.75)) if len(nonzero) else (0.0, 0.0)
    return sizes > high + 3 * (high - low)


def draw_evidence(
    ax: Axes, edges: np.ndarray, matrix: np.ndarray, limit: float | None = None, errors: np.ndarray | None = None
) -> QuadMesh:
    """Draw `matrix` (rows, columns) from blue over white to red, zero exactly white, the first row on top.

    edges: (columns + 1,), where columns begin and end. NaN is left empty.
    limit: the absolute value that has the full colour. errors: standard errors; dots cover what is below two of them.
    """
    limit = color_limit(matrix) if limit is None else limit
    mesh = draw_map(ax, edges, matrix, cmap=EVIDENCE, vmin=-limit, vmax=limit)
    _hatch(ax, edges, matrix < -limit / 8, edgecolor="white", hatch="////")
    if errors is not None:
        _hatch(ax, edges, np.abs(matrix) < ERRORS * errors, edgecolor="0.35", hatch="....")
        ax.annotate(
            DOTTED, (1, 1), (0, 2), textcoords="offset points", xycoords="axes fraction", ha="right", fontsize=7
        )
    return mesh


def draw_map(ax: Axes, edges: np.ndarray, matrix: np.ndarray, **options: Any) -> QuadMesh:
    """Draw `matrix` (rows, columns) with the first row on top; NaN is left empty."""
    ax.set_facecolor(EMPTY)
    heights = np.arange(len(matrix) + 1) - 0.5
    mesh = ax.pcolormesh(edges, heights, np.ma.masked_invalid(matrix), rasterized=True, **options)
    ax.set_ylim(len(matrix) - 0.5, -0.5)
    ax.set_xlim(edges[0], edges[-1])
    ax.tick_params(length=0, labelsize=SMALL)
    ax.spines[:].set(color="0.8", linewidth=0.6)
    return mesh


def write_in_cells(ax: Axes, centers: np.ndarray, matrix: np.ndarray, limit: float, sign: bool = True) -> None:
    """Write the numbers into a map, if its cells have room for them."""
    width, height = points(ax)
    texts = format_fixed(matrix.ravel(), sign)
    if width / matrix.shape[1] < 4.6 * max(map(len, texts)) + 4 or height / len(matrix) < 10:
        return
    for ((row, column), value), text in zip(np.ndenumerate(matrix), texts, strict=True):
        behind = {"facecolor": EVIDENCE(0.5 + value / limit / 2), "linewidth": 0, "pad": 1.2}  # no hatch there
        look: dict[str, Any] = {"color": "white", "fontweight": "bold"} if abs(value) > SATURATED * limit else {}
        label = text if np.isfinite(value) else ""
        ax.text(float(centers[column]), row, label, ha="center", va="center", fontsize=7.5, bbox=behind, **look)


def _hatch(ax: Axes, edges: np.ndarray, mask: np.ndarray, **look: Any) -> None:
    """Hatch the cells of a map."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return
    left, right, top, bottom = edges[columns], edges[columns + 1], rows - 0.5, rows + 0.5
    corners = np.stack([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    path = Path(corners.transpose(2, 0, 1).reshape(-1, 2), codes * len(rows))
    ax.add_patch(PathPatch(path, facecolor="none", linewidth=0, **look))


def evidence_bar(image: Any, values: np.ndarray, label: str, cax: Axes | None = None, **options: Any) -> None:
    """Draw the colour bar of attributions, cut to zero and the values that occur."""
    limit = image.get_clim()[1]
    values = np.append(values[np.isfinite(values)], 0)
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    extend = ends[bool(values.min() < -limit), bool(values.max() > limit)]
    bar = color_bar(image, label, cax, extend=extend, **options)
    lying = bar.orientation == "horizontal"
    if image.get_cmap() is EVIDENCE:
        span = bar.ax.axvspan if lying else bar.ax.axhspan
        span(-limit, 0, facecolor="none", edgecolor="white", linewidth=0, hatch="////")
    low, high = np.clip([values.min(), values.max()], -limit, limit)
    if low < high:
        (bar.ax.set_xlim if lying else bar.ax.set_ylim)(low, high)
    if lying or low == high:  # no room for many numbers, and no use of those that do not occur
        ticks = [0.0, *(end for end in (low, high) if abs(end) > 0.15 * (high - low))]
        bar.set_ticks(ticks, labels=[number(tick) for tick in ticks])


def color_bar(image: Any, label: str, cax: Axes | None = None, **options: Any) -> Any:
    """Draw a slim colour bar, in ``cax`` or else beside the image."""
    place = {"ax": image.axes, "fraction": 0.05, "pad": 0.02, "aspect": 30} if cax is None else {"cax": cax}
    bar = get_figure(image.axes if cax is None else cax).colorbar(image, **place, **options)
    if bar.orientation == "vertical" and len(label) * 0.6 * SMALL > points(bar.ax)[1]:
        label = label.replace(" (", "\n(", 1)
    bar.set_label(label, size=SMALL)
    bar.ax.tick_params(labelsize=SMALL, length=2)
    bar.outline.set_visible(False)
    return bar


# ---------------------------------------------------------------------- bars and lines
def draw_signed_bars(ax: Axes, edges: np.ndarray, values: np.ndarray, errors: np.ndarray | None = None) -> None:
    """Draw a bar up or down from zero for each column, and whiskers of two standard errors."""
    values = np.nan_to_num(values)
    for chosen, look in ((values >= 0, UP), (values < 0, DOWN)):
        ax.bar(edges[:-1][chosen], values[chosen], np.diff(edges)[chosen], align="edge", **look)
    ax.axhline(0, color="0.4", linewidth=0.6)
    whiskers(ax, (edges[:-1] + edges[1:]) / 2, values, errors)


def mark_cut(ax: Axes, places: np.ndarray, values: np.ndarray, lying: bool = False) -> None:
    """Mark the bars or points that go beyond the axis, by a triangle at its end."""
    ends, markers = (ax.get_xlim(), "<>") if lying else (ax.get_ylim(), "v^")
    for end, marker, beyond in zip(ends, markers, (-values, values), strict=True):
        there = beyond > abs(end) * (1 + 1e-9)
        if not there.any():
            continue  # what holds no points lies at the corner of the figure for layouts, and has them shrink the axes
        place, at = places[there], np.full(there.sum(), end)
        ax.plot(*((at, place) if lying else (place, at)), marker, color="black", markersize=4, clip_on=False)


def draw_lying_bars(ax: Axes, values: np.ndarray, errors: np.ndarray | None = None) -> None:
    """Draw a bar to the right or left of zero for each line of a map, and whiskers of two standard errors."""
    places = np.arange(len(values))
    for chosen, look in ((values >= 0, UP), (values < 0, DOWN)):
        ax.barh(places[chosen], values[chosen], 0.72, **look)
    ax.axvline(0, color="0.4", linewidth=0.6)
    ax.set_ylim(len(values) - 0.5, -0.5)
    whiskers(ax, places, values, errors, lying=True)


def draw_sums(
    ax: Axes, values: np.ndarray, reach: tuple[float, float], errors: np.ndarray | None = None, label: str = "sum"
) -> None:
    """Draw a bare column of bars beside a map, cut where they go beyond the reach, with their numbers if there is room."""
    low, high = min(0.0, reach[0]), max(0.0, reach[1])
    leave_room(ax, low, high)
    draw_lying_bars(ax, np.clip(values, low, high), errors)
    if len(values) * 8 < 1.2 * points(ax)[1]:
        write_at_end(ax, values)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(label, fontsize=SMALL)
    bare(ax)


def whiskers(
    ax: Axes, places: np.ndarray, ends: np.ndarray, errors: np.ndarray | None, lying: bool = False, shift: float = 0
) -> None:
    """Draw two standard errors to either side of the ends of bars, if they are known and there is room."""
    if errors is None or points(ax)[lying] / len(places) < 3.5:
        return
    (x, y), sizes = ((ends, places + shift) if lying else (places, ends)), ERRORS * np.nan_to_num(errors)
    look: dict[str, Any] = {"fmt": "none", "ecolor": "black", "elinewidth": 0.9, "capsize": 1.8, "capthick": 0.9}
    ax.errorbar(x, y, **{"xerr" if lying else "yerr": sizes}, **look, zorder=3)


def leave_room(ax: Axes, low: float, high: float) -> None:
    """Set the limits of the horizontal axis, with room for the numbers at its end."""
    ax.set_xlim(low, low + ((high - low) or 1.0) / (1 - min(0.5, 36 / points(ax)[0])))


def write_at_end(ax: Axes, values: np.ndarray, sign: bool = True) -> None:
    """Write the numbers of lines at the right edge."""
    for place, text in enumerate(format_fixed(values, sign)):
        ax.text(1, place, text, transform=ax.get_yaxis_transform(), va="center", ha="right", fontsize=7.5)


def write_beyond(ax: Axes, end: float, place: float, text: str, reach: float) -> None:
    """Write the number of a lying bar behind its end, or at the edge if the bar is cut there."""
    if end <= reach * (1 + 1e-9):
        ax.annotate(text, (end, place), (5, 0), textcoords="offset points", va="center", fontsize=SMALL)
        return
    ground = {"facecolor": "white", "linewidth": 0, "pad": 1}
    look: dict[str, Any] = {"va": "center", "ha": "right", "fontsize": SMALL, "bbox": ground}
    ax.text(1, place, f"{text} \N{BLACK RIGHT-POINTING SMALL TRIANGLE}", transform=ax.get_yaxis_transform(), **look)


def sign_legend(ax: Axes, *more: Any, **options: Any) -> None:
    """Explain the two colours, and whatever else; by default above the axes, in smaller letters if these are narrow."""
    handles = [Patch(label="pushes the output up", **UP), Patch(label="pushes it down", **DOWN), *more]
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2, **options}
    size = font_size(ax, " " * sum(len(handle.get_label()) + 9 for handle in handles), SMALL)
    ax.legend(handles=handles, ncols=len(handles), frameon=False, fontsize=size, handlelength=1.6, **place)


def bare(ax: Axes) -> None:
    """Take away the frame and the tick marks."""
    ax.tick_params(length=0, labelsize=SMALL)
    ax.spines[:].set_visible(False)


def frame_lines(ax: Axes, names: Sequence[str]) -> None:
    """Let an axes have a line for each name, the first on top."""
    ax.set_ylim(len(names) - 0.5, -0.5)
    open_frame(ax)
    label_rows(ax, names)
    ax.tick_params(axis="y", length=0)


def write_title(ax: Axes, *parts: str, length: int = 60, pad: float = 6) -> None:
    """Write those parts of a title that are there."""
    ax.set_title(" · ".join(short(part, length) for part in parts if part), fontsize=11, pad=pad)


def open_frame(ax: Axes) -> None:
    """Take away the frame above and to the right; a power of ten goes left of the axis, as a legend may be above it."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=SMALL)
    ax.yaxis.get_offset_text().set(ha="right", fontsize=SMALL)


def date_axis(ax: Axes, most: int) -> None:
    """Write dates as short as can be, at most ``most``."""
    ax.xaxis_date()
    locator = AutoDateLocator(minticks=3, maxticks=most)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ax.xaxis.get_offset_text().set_fontsize(SMALL)


def spread_apart(positions: np.ndarray, gap: float) -> np.ndarray:
    """Move positions as little as needed for neighbours to be `gap` apart."""
    order = np.argsort(positions, kind="stable")
    moved = positions[order].astype(float)
    for _ in range(200):
        close = np.diff(moved) < gap * 0.999
        if not close.any():
            break
        missing = np.where(close, gap - np.diff(moved), 0) / 2
        moved[:-1] -= missing
        moved[1:] += missing
    result = np.empty_like(moved)
    result[order] = moved
    return result


def points(ax: Axes) -> tuple[float, float]:
    """Return the width and height of the axes in points, as far as known before the layout."""
    box = ax.get_window_extent()
    scale = 72 / get_figure(ax).dpi
    return box.width * scale, box.height * scale


# ---------------------------------------------------------------------- words and numbers
def wrap(ax: Axes, text: str, size: float) -> str:
    """Break a text into lines that are no wider than the axes."""
    return fill(text, max(12, int(points(ax)[0] / (0.6 * size))))


def font_size(ax: Axes, text: str, size: float) -> float:
    """Return a size of letters with which a text fits the axes, if it stays readable; at most ``size``."""
    return float(np.clip(points(ax)[0] / (0.58 * len(text)), 4, size))


def label_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name the rows of a map, or as many of them as there is room for."""
    crowd = len(names) * 1.15 * SMALL / max(points(ax)[1], 1)
    steps = [1, *(round(size * 10**power) for power in range(7) for size in (2, 5, 10))]
    every = 1 if crowd <= 1 else next(step for step in steps if step >= 1.5 * crowd)
    ax.set_yticks(range(0, len(names), every), [short(name) for name in names[::every]], fontsize=SMALL)


def label_columns(ax: Axes, names: Sequence[str]) -> None:
    """Name the columns of a map that lie at 0, 1, ..., aslant if they are too long."""
    longest = max(len(short(name, 20)) for name in names)
    limit = points(ax)[0] / len(names) / (0.6 * SMALL)  # characters
    slant: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if longest > limit else {}
    ax.set_xticks(range(len(names)), [short(name, 20) for name in names], fontsize=SMALL, **slant)


def short(name: Any, length: int = LONGEST_NAME) -> str:
    """Return a name as a label: not too long, and dollars no formula."""
    text = " ".join(str(name).split())
    if len(text) > length:
        text = f"{text[: length - length // 3 - 1]}…{text[-(length // 3) :]}"
    return text.replace("$", r"\$")


def number(value: float, sign: bool = True) -> str:
    """Write a number with three digits and a true minus sign."""
    if value == 0 or not np.isfinite(value):
        return "0" if value == 0 else str(value)
    text = f"{value:.3g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.1e}"
    return ("+" if sign and value > 0 else "") + text.replace("-", "\N{MINUS SIGN}")


def equals(value: float) -> str:
    """Write what follows a name whose value is known."""
    return f" = {number(value, False)}" if np.isfinite(value) else ""


def format_fixed(values: np.ndarray, sign: bool = True) -> list[str]:
    """Write numbers with the same decimals, three digits for the largest."""
    size = float(np.abs(values[np.isfinite(values)]).max(initial=0))
    if not 1e-3 <= size < 1e5:
        return [number(value, sign) for value in values]
    decimals = max(0, 2 - int(np.floor(np.log10(size))))
    rounded = values.round(decimals) + 0.0  # no minus zero
    texts = [f"{value:{'+' if sign and value else ''}.{decimals}f}" for value in rounded]
    return [text.replace("-", "\N{MINUS SIGN}") for text in texts]


def with_unit(what: str, unit: str) -> str:
    """Return what is drawn, with its unit in brackets."""
    return f"{what} ({short(unit)})" if unit else what
