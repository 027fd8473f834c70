"""Pictures of a single sequence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from deepshap.plots.style import add_colorbar, draw_evidence, label_rows, names_or_numbers, panels


def sequence_heatmap(
    values: np.ndarray,
    signal: np.ndarray,
    *,
    feature_names: Sequence[str] | None = None,
    feature_label: str = "feature",
    time: tuple[float, float] | None = None,
    time_label: str = "time step",
    signal_label: str = "signal",
    value_label: str = "attribution",
    limit: float | None = None,
    ax: Sequence[Axes] | None = None,
) -> tuple[Axes, Axes]:
    """Draw one sequence and, beside it, what each of its values contributed to the output.

    values, signal: (time steps, features), without padding.
    time: where the sequence starts and ends on the time axis; by default 0 and the number of steps.
    limit: the attribution that has the full colour; by default the largest.
    ax: two axes to draw into, for the signal and for the attributions.
    """
    if values.shape != signal.shape or values.ndim != 2:
        raise ValueError(f"values {values.shape} and signal {signal.shape} must both be (time steps, features)")
    left, right = panels(2, (12, 4.4), sharey=True) if ax is None else ax
    start, end = time or (0, len(values))
    extent = (start, end, values.shape[1] - 0.5, -0.5)
    image = left.imshow(signal.T, cmap="Greys", aspect="auto", interpolation="nearest", extent=extent)
    add_colorbar(image, signal_label)
    add_colorbar(draw_evidence(right, values.T, limit, extent=extent), value_label)
    names = names_or_numbers(feature_names, values.shape[1])
    label_rows(left, names, feature_label)
    label_rows(right, names)
    for axes in (left, right):
        axes.set_xlabel(time_label)
    return left, right
