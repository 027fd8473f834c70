"""Draw the figures in benchmarks/results, and write them into the pages that show them."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tables
from explainers import YARDSTICKS, DeepShap, Native
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from problems import ACCURACY

from deepshap.plots.style import CURVES, GREY, RED, SMALL, open_frame, spread_apart

ROOT = Path(__file__).parent.parent
FIGURES = "peers", "accuracy", "scaling", "ground_truth", "dial", "gradients", "gradients_keras", "gpu", "forecasters"
DOCS = ROOT / "docs"
PAGES = ROOT / "README.md", DOCS / "benchmarks.md", DOCS / "time-against-accuracy.md", DOCS / "guide" / "gpu.md"
Row = dict[str, Any]

# Colours for kinds of methods, marks for the methods of a kind.
DEEPLIFT, PATHS, COALITIONS = (CURVES[k][0] for k in (1, 2, 3))
LOOKS = {
    DeepShap.name: (RED, "*"),
    "shap.DeepExplainer": (DEEPLIFT, "o"),
    "captum.DeepLiftShap": (DEEPLIFT, "s"),
    "captum.IntegratedGradients": (PATHS, "o"),
    "captum.GradientShap": (PATHS, "s"),
    "shap.GradientExplainer": (PATHS, "^"),
    "shap.KernelExplainer": (COALITIONS, "o"),
    "shap.PermutationExplainer": (COALITIONS, "s"),
    "captum.ShapleyValueSampling": (COALITIONS, "^"),
    "captum.KernelShap": (COALITIONS, "v"),
    "shap.SamplingExplainer": (COALITIONS, "D"),
    "shap.ExactExplainer": (COALITIONS, "P"),
    "permutation sampling": ("black", "o"),
    "shapiq.KernelSHAP": (PATHS, "o"),
    "shapiq.PermutationSamplingSV": (PATHS, "s"),
}
LABELS = 9.5  # points between labels
NO_GAP = 1e-8  # smaller gaps are drawn there
DISTANCES = 1e-3, 3.0  # distances beyond are drawn at these ends


# ---------------------------------------------------------------------- time against accuracy
def draw_accuracy(rows: list[Row], problem: str) -> Figure:
    """What time buys: distance to the exact Shapley values, and gap of the sums; along a curve the budget grows."""
    rows = [row for row in rows if row["problem"] == problem and "distance" in row]
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.3), layout="constrained", sharex=True)
    heads = (
        "distance to the exact Shapley values\n(relative)",
        "missed by the sum of attributions\n(relative, worst example)",
    )
    for ax, what, head in zip(panels, ("distance", "gap"), heads, strict=True):
        ax.set(xscale="log", yscale="log", xlabel="time, as a multiple of forward + gradient")
        ax.set_title(head, loc="left", fontsize=10)
        ends = {}
        for peer in dict.fromkeys(row["peer"] for row in rows if row["peer"] not in YARDSTICKS):
            points = [(row["ratio"], max(row[what], NO_GAP)) for row in rows if row["peer"] == peer]
            color, mark = LOOKS[peer]
            size = 13 if peer == DeepShap.name else 5.5
            ax.plot(*zip(*points, strict=True), color=color, marker=mark, markersize=size, linewidth=1.2, zorder=3)
            ends[peer] = points[-1]
        _plain_ticks(ax)
        _name_ends(ax, ends)
        ax.grid(color="0.92", linewidth=0.6)
        open_frame(ax)
    panels[1].yaxis.set_major_formatter(FuncFormatter(_power))
    return figure


def draw_dial(rows: list[Row]) -> Figure:
    """Distance to the Shapley values against time over that of Deep SHAP, a panel for each game."""
    rows = [row for row in rows if "distance" in row]
    games = list(dict.fromkeys((row["problem"], row["players"]) for row in rows))
    across = min(4, len(games))
    down = -(-len(games) // across)
    figure, panels = plt.subplots(
        down, across, figsize=(2.7 * across, 2.1 * down + 0.6), layout="constrained", squeeze=False
    )
    for ax in panels.flat[len(games) :]:
        ax.set_axis_off()
    for ax, (problem, players) in zip(panels.flat, games, strict=False):
        _dial_panel(ax, [row for row in rows if row["problem"] == problem])
        ax.set_title(f"{problem.replace(' of two layers', '')}, {players}", fontsize=SMALL - 1)
    figure.supxlabel("time over that of Deep SHAP, one thread", fontsize=SMALL)
    figure.supylabel("distance to the Shapley values", fontsize=SMALL)
    handles = {h.get_label(): h for ax in panels.flat for h in ax.get_lines() if h.get_label() in LOOKS}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=4, frameon=False, fontsize=SMALL)
    return figure


def _dial_panel(ax: Axes, rows: list[Row]) -> None:
    ax.set(xscale="log", yscale="log", ylim=(DISTANCES[0] / 1.3, DISTANCES[1] * 1.3))
    for method in dict.fromkeys(row["method"] for row in rows):
        found = [row for row in rows if row["method"] == method]
        points = [(row["ratio"], float(np.clip(row["distance"], *DISTANCES))) for row in found]
        color, mark = LOOKS[method]
        own = method == DeepShap.name
        look = {"linewidth": 2.0, "markersize": 8, "zorder": 4} if own else {"linewidth": 0.9, "markersize": 3.5}
        ax.plot(*zip(*points, strict=True), color=color, marker=mark, label=method, **look)
    noise = max((row["noise"] or 0.0 for row in rows), default=0.0)
    if noise:
        ax.axhline(noise, color=GREY, linewidth=0.9, linestyle=":")
    _plain_ticks(ax)
    ax.tick_params(labelsize=SMALL)
    ax.grid(color="0.92", linewidth=0.6)
    open_frame(ax)


def _power(value: float, _: int) -> str:
    return f"{'≤ ' if value <= NO_GAP else ''}$10^{{{round(math.log10(value))}}}$"


def _name_ends(ax: Axes, ends: dict[str, tuple[float, float]]) -> None:
    """Name curves in a column on the right, each beside the end of its curve as far as there is room."""
    figure = ax.figure
    figure.draw_without_rendering()
    height = ax.get_window_extent().height * 72 / figure.dpi
    peers = list(ends)
    across = ax.transAxes.inverted()
    heights = [across.transform(ax.transData.transform(ends[peer]))[1] for peer in peers]
    places = spread_apart(np.array(heights), LABELS / height)
    places -= max(0.0, places.max() - 1)
    places += max(0.0, -places.min())
    for peer, place in zip(peers, places, strict=True):
        color = LOOKS[peer][0]
        ax.annotate(
            peer,
            ends[peer],
            (1.05, place),
            textcoords="axes fraction",
            color=color,
            fontsize=SMALL,
            fontweight="bold" if peer == DeepShap.name else "normal",
            va="center",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "alpha": 0.6, "shrinkB": 4},
        )


# ---------------------------------------------------------------------- cost against size
def draw_scaling(rows: list[Row]) -> Figure:
    """Time and memory against steps, examples and references, with lines of what is proportional."""
    axes = {"steps": "steps T", "examples": "examples N", "references": "references B"}
    figure, panels = plt.subplots(2, 3, figsize=(10.5, 5.6), layout="constrained", sharex="col", sharey="row")
    for column, (axis, label) in enumerate(axes.items()):
        for ax, what, unit in zip(panels[:, column], ("seconds", "memory_bytes"), (1, 2**20), strict=True):
            _curves(ax, [row for row in rows if row["axis"] == axis and what in row], what, unit)
        panels[1, column].set_xlabel(label)
    panels[0, 0].legend(frameon=False, loc="upper left", fontsize=SMALL)
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("peak extra memory (MiB)")
    return figure


def _curves(ax: Axes, rows: list[Row], what: str, unit: float) -> None:
    ax.set(xscale="log", yscale="log")
    looks = ((Native.name, CURVES[0][0], "o", 4, CURVES[1][1]), (DeepShap.name, RED, "*", 9, "-"))
    for peer, color, mark, size, line in looks:
        points = [(row["size"], row[what] / unit) for row in rows if row["peer"] == peer]
        if not points:
            continue
        look = {"color": color, "marker": mark, "markersize": size, "linestyle": line}
        ax.plot(*zip(*points, strict=True), linewidth=1.3, label=peer, **look)
    sizes = np.array([points[0][0], points[-1][0]])
    proportional = points[-1][1] * sizes / sizes[-1]
    ax.plot(sizes, proportional, color=GREY, linewidth=0.9, linestyle=":", zorder=0, label="proportional")
    _plain_ticks(ax)
    ax.grid(color="0.92", linewidth=0.6)
    open_frame(ax)


def _plain_ticks(ax: Axes) -> None:
    """Numbers as one writes them, not powers of ten."""
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        subs = (1.0,) if high / low > 300 else (1.0, 2.0, 5.0)
        axis.set_major_locator(LogLocator(subs=subs, numticks=12))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < 1e4 else f"{value:.0f}"))
        axis.set_minor_formatter(NullFormatter())


# ---------------------------------------------------------------------- files
def main(arguments: list[str] | None = None) -> None:
    """Draw the pictures and fill the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--pages", type=Path, nargs="*", default=PAGES)
    options = parser.parse_args(arguments)
    found = {name: json.loads((options.results / f"{name}.json").read_text("utf-8")) for name in FIGURES}
    near = found["accuracy"]["accuracy"]
    drawn = next((p.name for p in ACCURACY if any(row["problem"] == p.name for row in near)), near[0]["problem"])
    pictures = {
        "accuracy": draw_accuracy(near, drawn),
        "scaling": draw_scaling(found["scaling"]["points"]),
        "dial": draw_dial(found["dial"]["rows"]),
    }
    for name, figure in pictures.items():
        options.images.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.images / f"benchmark-{name}.png", dpi=150)
    for page in options.pages:
        tables.fill(page, tables.contents(found))


if __name__ == "__main__":
    main()
