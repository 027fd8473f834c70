"""A model with several inputs: all of them in one picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..errors import InputError
from ..explanation.core import Attributions
from . import style
from .documentation import picture
from .reading import Sequences, read_row
from .timeline import Timeline, timeline


@picture("row", ", or there is no such row")
def inputs(
    explanation: Attributions,
    row: int | None = None,
    *,
    max_display: int = 20,
    robust: bool = False,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what all inputs of a model contributed to one output, one below the other, on one scale.

    Sequences are maps of features over time, static inputs cells, whose values stand at their names; beside them the sum of each
    feature. The sums of all inputs add up to the output minus the base value. Dots cover what is below two standard errors, where
    these are known.

    Parameters
    ----------
    explanation : Explanation
        Of one output; a JointExplanation, of any number of rows.
    row : int, optional
        The row that is drawn, if there are several.
    """
    parts = _parts(explanation, row, max_display)
    heights = [max(0.5, 0.24 * len(one.features)) for one, _ in parts.values()]
    ax = style.new_axes(ax, 10, sum(heights) + 0.75 * len(heights) + 0.8)
    panels = style.Panels(ax, heights, [6.4, 2.0, 0.14], gaps=(0.75, 0.15))
    matrices = [time.sums(one.values[0]).T for one, time in parts.values()]
    named = [matrix[one.named].ravel() for matrix, (one, _) in zip(matrices, parts.values(), strict=True)]
    limit = style.limit_of(*named, robust=robust)
    sums = np.concatenate([one.per_feature[0, one.named] for one, _ in parts.values()])
    reach = style.limit_of(sums, robust=robust)
    for place, (name, (one, time)) in enumerate(parts.items()):
        left = panels(place, label=name)
        errors = one.error_of(lambda array, time=time: time.sums(array[0]).T)  # type: ignore[misc]
        mesh = style.draw_evidence(left, time.edges, matrices[place], limit, errors)
        left.set_title(f"{name}: {style.number(one.per_feature.sum())}", fontsize=10, loc="left")
        _label(left, one, time, time_label)
        _draw_sums(panels(place, 1, label=f"sums of {name}"), one, np.clip([sums.min(), sums.max()], -reach, reach))
    label = style.with_unit("attribution", unit)
    style.evidence_bar(mesh, np.concatenate(named), label, panels.bar(0, 2, "scale of attributions"))
    one, total = next(iter(parts.values()))[0], sum(float(part.per_feature.sum()) for part, _ in parts.values())
    base = f"base value {style.number(one.base[0], False)}"
    output = one.base[0] + total if one.outputs is None else one.outputs[0]
    style.write_title(ax, one.rows[0], one.output, base, f"output {style.number(output, False)}", pad=24)
    return ax


def _parts(explanation: Attributions, row: int | None, max_display: int) -> dict[str, tuple[Sequences, Timeline]]:
    """Each input of the row: its strongest features, as many in all as are to be drawn, and where its steps lie."""
    if row is None and any(part._rows and len(part.values) > 1 for _, part in explanation.items()):
        raise InputError("plots.inputs draws a single row: say which, plots.inputs(explanation, row=0).")
    count = min(len(part.values) if part._rows else 1 for _, part in explanation.items())
    if row is not None and not -count <= row < count:
        raise InputError(f"plots.inputs: there is no row {row} among {count}.")
    place = slice(None) if row is None else slice(row % count, row % count + 1)
    read = {
        "input" if key is None else f"input {key}" if isinstance(key, int) else str(key): read_row(
            part[place] if part._rows else part, "inputs", table=True
        )
        for key, part in explanation.items()
    }
    sizes = np.sort(np.concatenate([np.abs(one.values[0]).mean(0) for one in read.values()]))[::-1]
    least = sizes[min(max_display, len(sizes)) - 1]
    parts = {}
    for name, one in read.items():
        one = one.folded(max(1, int((np.abs(one.values[0]).mean(0) >= least).sum())))
        parts[name] = (one, timeline(one.labels, one.values.shape[1], None, one.time_label))
    return parts


def _label(ax: Axes, one: Sequences, time: Timeline, time_label: str | None) -> None:
    """Name the features of an input and its steps; without steps, say what values they have."""
    names = one.features
    if not one.has_steps and one.data is not None:
        told = [style.equals(value) for value in one.data[0, 0]]
        names = [
            style.short(name, style.LONGEST_NAME - len(value)) + value for name, value in zip(names, told, strict=True)
        ]
    style.label_rows(ax, names)
    if not one.has_steps:
        ax.set_xticks([])
        return
    time.dress(ax)
    if time_label is not None:
        ax.set_xlabel(time_label, fontsize=style.SMALL + 1)


def _draw_sums(ax: Axes, one: Sequences, reach: Any) -> None:
    style.leave_room(ax, min(0.0, reach[0]), max(0.0, reach[1]))
    style.draw_lying_bars(ax, np.clip(one.per_feature[0], *reach), one.error_of(lambda array: array.sum((0, 1))))
    style.write_at_end(ax, one.per_feature[0])
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel("sum", fontsize=style.SMALL)
    style.bare(ax)
