"""Curves of what the output does when inputs are taken away."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .documentation import checked
from .style import BLUE, RED, apart, new_axes, open_frame, points, with_unit

GREY = "0.45"
STYLES = ((RED, "-", "o"), (GREY, ":", "s"), (BLUE, "--", "^"))


@checked
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
    ax = new_axes(ax, 7, 4.5)
    shares = 100 * result.removed
    means = [curve.mean(0) for curve in result.deletion.values()]
    middle = len(shares) // 2
    for mean, (color, line, marker) in zip(means, STYLES, strict=True):
        ax.plot(shares, mean, color=color, linestyle=line, marker=marker, markersize=5, linewidth=2)
    ax.set(
        xlabel=f"{result.players} that are replaced by those of the references (%)",
        ylabel=with_unit("mean output", unit),
    )
    ax.margins(x=0.02, y=0.12)
    open_frame(ax)
    _, height = points(ax)
    low, high = ax.get_ylim()
    gap = 15 / height * (high - low)
    heights = apart(np.array([mean[middle] for mean in means]), gap)
    for name, y, (color, *_) in zip(
        result.deletion, heights, STYLES, strict=True
    ):  # beside falling curves, not on them
        below = color == RED
        place: dict[str, Any] = {"xytext": (-8, -12) if below else (8, 3), "ha": "right" if below else "left"}
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
        ax.annotate(name, (shares[middle], y), textcoords="offset points", color=color, bbox=box, **place)
    found = [f"separation {np.mean(result.separation):.2f}"]
    if np.isfinite(result.agreement).any():
        found.append(f"agreement {np.nanmean(result.agreement):.2f}")
    if np.isfinite(result.doubtful).all():
        found.append(f"{np.mean(result.doubtful):.0%} of |attribution| of doubtful sign")
    ax.set_title(f"{result.explained}: {', '.join(found)}", fontsize=10)
    return ax
