"""Sequences with an output at every step: which inputs each output rests on."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from ..errors import InputError
from ..explanation.core import Attributions
from ..names import names_for
from . import style
from .documentation import picture
from .reading import check, read_row
from .timeline import timeline


@picture("row")
def output_matrix(
    explanation: Attributions,
    feature: int | str | None = None,
    *,
    robust: bool = False,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what the input at every step contributed to the output at every step, a map of outputs over inputs.

    Parameters
    ----------
    feature : int or str, optional
        Index or name of a feature. By default the features are summed.
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
    chosen = range(features) if feature is None else [one.index_of(feature)]
    count, errors = explanation.values.shape[-1], explanation._errors
    inputs, outputs = timeline(one.labels, steps, time_label, one.time_label), timeline(None, count, "output")

    def in_cells(array: np.ndarray) -> np.ndarray:  # (outputs, steps)
        row = (array[0] if explanation._rows else array)[:steps].reshape(steps, features, count)
        return outputs.means(inputs.sums(row[:, chosen].sum(1)).T)

    matrix = in_cells(np.asarray(explanation.values, dtype=np.float64))
    names = names_for(explanation.output_names, count) or list(map(str, range(count)))
    ax = style.new_axes(ax, 9, float(np.clip(0.25 * len(matrix) + 1.2, 2.6, 6.5)))
    unsure = None if errors is None else errors.of(in_cells).errors
    mesh = style.draw_evidence(ax, inputs.edges, matrix, style.limit_of(matrix, robust=robust), unsure)
    style.write_in_cells(ax, inputs.centers, matrix, mesh.get_clim()[1])
    style.evidence_bar(mesh, matrix, style.with_unit("attribution", unit))
    style.label_rows(ax, [names[start] for start in outputs.starts])
    inputs.dress(ax)
    ax.set_ylabel(_output_label(len(matrix), count), fontsize=style.SMALL + 1)
    style.write_title(ax, "all features" if feature is None else one.features[chosen[0]], length=style.LONGEST_NAME)
    return ax


def _output_label(drawn: int, outputs: int) -> str:
    return "output" if drawn == outputs else f"output (averages of {int(np.ceil(outputs / drawn))})"
