"""Sequences with an output at every step: which inputs each output rests on."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from deepshap.errors import InputError
from deepshap.explanation.core import Attributions
from deepshap.plots.reading import check, read_row
from deepshap.plots.style import (
    SMALL,
    draw_evidence,
    evidence_bar,
    label_rows,
    new_axes,
    short,
    with_unit,
    write_in_cells,
)
from deepshap.plots.timeline import timeline


def output_matrix(
    explanation: Attributions,
    feature: int | str | None = None,
    *,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what the input at every step contributed to the output at every step, a map of outputs over inputs.

    Parameters
    ----------
    explanation : Explanation
        Of one row of a model with an output per step (or forecasts for several days, say): values
        (steps, features, outputs).
    feature : int or str, optional
        Index or name of a feature. By default the features are summed.
    unit : str, optional
        Of the outputs, and so of the attributions.
    time_label : str, optional
        Label of the input's time axis.
    ax : Axes, optional
        Where to draw. By default a new figure.

    Returns
    -------
    Axes
        ``ax``, or the axes of the new figure.

    Raises
    ------
    InputError
        If there are several rows, not exactly one axis of outputs, no such feature, or this is not a sequence.
    """
    check(explanation, "output_matrix")
    if len(explanation.output_dims) != 1:
        raise InputError(
            "plots.output_matrix needs values of shape (steps, features, outputs); these have shape "
            f"{np.shape(explanation.values)}, the outputs {len(explanation.output_dims)} axes. Choose among several "
            "outputs per step by index, explanation[..., 0]; for one output in all use plots.heatmap."
        )
    one = read_row(explanation.output(0), "output_matrix")
    _, steps, features = one.values.shape
    values = np.asarray(explanation.values, dtype=np.float64)
    values = (values[0] if explanation._rows else values)[:steps].reshape(steps, features, -1)
    chosen = range(features) if feature is None else [_feature_index(feature, one.features)]
    inputs = timeline(one.labels, steps, time_label)
    outputs = timeline(None, values.shape[2], "output")
    matrix = outputs.means(inputs.sums(values[:, chosen].sum(1)).T)  # (outputs, steps)

    names = explanation.output_names
    named = isinstance(names, (list, tuple, np.ndarray)) and len(names) == values.shape[2]
    ax = new_axes(ax, 9, float(np.clip(0.25 * len(matrix) + 1.2, 2.6, 6.5)))
    mesh = draw_evidence(ax, inputs.edges, matrix)
    write_in_cells(ax, inputs.centers, matrix, mesh.get_clim()[1])
    evidence_bar(mesh, matrix, with_unit("attribution", unit))
    label_rows(ax, [str(names[start]) if named else str(start) for start in outputs.starts])
    inputs.dress(ax)
    ax.set_ylabel(_output_label(len(matrix), values.shape[2]), fontsize=SMALL + 1)
    ax.set_title("all features" if feature is None else short(one.features[chosen[0]]), fontsize=11)
    return ax


def _output_label(drawn: int, outputs: int) -> str:
    return "output" if drawn == outputs else f"output (averages of {int(np.ceil(outputs / drawn))})"


def _feature_index(feature: int | str, names: list[str]) -> int:
    if isinstance(feature, str) and feature in names:
        return names.index(feature)
    if isinstance(feature, (int, np.integer)) and -len(names) <= feature < len(names):
        return int(feature) % len(names)
    raise InputError(f"there is no feature {feature!r} among {len(names)} features: {', '.join(names[:20])}.")
