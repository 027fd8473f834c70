"""Plots of a single row: its inputs, attributions over time, how they build up the output, and all outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from ..errors import InputError
from ..explanation.core import Attributions
from ..explanation.joint import JointAttributions
from ..explanation.labels import names_for
from . import style
from .reading import Sequences, check, plot, read_row
from .shap_plots import heatmap_of_rows
from .timeline import Timeline, timeline

FEW_BARS = 15  # so few that all their numbers are written


@plot("row")
def heatmap(
    explanation: Attributions,
    *,
    max_display: int = 20,
    robust: bool = False,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw when which feature pushed one output up or down: a map of features over time.

    Above it, the base value plus the attributions so far, whose end is the output (it is not the output over time); beside it,
    the sum of each feature; below it, the inputs. Where
    standard errors are known, dots cover what is below two of them, and sums have whiskers.

    Of several rows, draw shap's heat map: a column for each row, in the order of a clustering, and a line for each feature,
    summed over time.

    Parameters
    ----------
    explanation : Explanation
        Of one output and one row, values (steps, features), or several rows (rows, steps, features); of players accordingly.
    """
    if not isinstance(explanation, JointAttributions) and explanation._rows and len(explanation.values) > 1:
        return heatmap_of_rows(explanation, max_display, unit, ax)
    sequence = read_row(explanation, "heatmap").keep_largest(max_display)
    time = timeline(sequence.labels, sequence.values.shape[1], time_label, sequence.time_label)
    matrix = time.sums(sequence.values[0]).T  # (features, columns)
    height = float(np.clip(0.23 * len(matrix), 0.9, 8))
    heights = [0.9, height] if sequence.data is None else [0.9, height, max(0.9, 0.75 * height)]
    ax = style.new_axes(ax, 10, sum(heights) + 1.2)
    panels = style.Panels(ax, heights, style.panel_widths(ax, [7.2, 1.2, 0.14], 0.1), gaps=(0.2, 0.1))

    middle = panels(1, label="attributions")
    errors = sequence.error_of(lambda array: time.sums(array[0]).T)
    mesh = style.draw_evidence(
        middle, time.edges, matrix, style.color_limit(matrix[sequence.named], robust=robust), errors
    )
    style.write_in_cells(middle, time.centers, matrix, mesh.get_clim()[1])
    style.label_rows(middle, sequence.features)
    style.evidence_bar(mesh, matrix, style.with_unit("attribution", unit), panels.bar(1, 2, "scale of attributions"))
    sums, limit = sequence.per_feature[0], style.color_limit(sequence.per_feature[0, sequence.named], robust=robust)
    shown = np.clip(sums, -limit, limit)
    style.draw_sums(panels(1, 1, label="sums"), sums, (shown.min(), shown.max()), _errors_of_sums(sequence))

    top = panels(0, sharex=middle, label="output")
    _draw_running_output(top, time, sequence, unit)
    _title(top, sequence)
    if sequence.data is None:
        time.format_axis(middle)
        return ax
    bottom = panels(2, sharex=middle, label="inputs")
    _draw_inputs(bottom, panels.bar(2, 2, "scale of inputs"), time, sequence)
    time.format_axis(bottom)
    middle.tick_params(labelbottom=False)
    return ax


@plot("row", ", or the inputs are unknown or no numbers")
def signal(
    explanation: Attributions,
    *,
    max_display: int = 6,
    robust: bool = False,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the inputs of one sequence as lines, coloured by what they contributed; below each, its attributions as bars.

    Features come in their order, those with the largest attributions, their bars on one scale; what the others contributed
    are the last bars, on a scale of their own. A step without neighbours is a dot. With more steps than there is room for,
    a line is the average of some steps, with their range around it.
    """
    sequence = read_row(explanation, "signal").keep_largest(max_display)
    if sequence.data is None:
        raise InputError(
            "plots.signal draws the inputs, and this explanation has none that are numbers: set explanation.display_data "
            "to an array of the shape of the values."
        )
    time = timeline(sequence.labels, sequence.values.shape[1], time_label, sequence.time_label)
    matrix = time.sums(sequence.values[0]).T
    errors = sequence.error_of(lambda array: time.sums(array[0]).T)
    span = 0 if errors is None else style.ERRORS * errors
    reach = np.stack([matrix - span, matrix + span])
    has_line = [
        bool(np.isfinite(series).any()) for series in sequence.data[0].T
    ]  # not for the sum of the other features
    limit = style.color_limit(matrix[sequence.named], robust=robust)
    scale = np.clip(reach[:, sequence.named], -limit, limit) if robust else reach[:, sequence.named]
    heights = [size for line in has_line for size in (0.95 * line, 0.45, 0.2)][:-1]  # a line, its bars, room below them
    ax = style.new_axes(ax, 10, sum(heights) + 0.04 * len(heights) + 1)
    panels = style.Panels(ax, heights, style.panel_widths(ax, [8.2, 0.14], 1.0), gaps=(0.04, 1.0))

    base = panels(len(heights) - 1, label=f"attributions of {sequence.features[-1]}")
    for i, name in enumerate(sequence.features):
        last = i == len(has_line) - 1
        bars = base if last else panels(3 * i + 1, sharex=base, label=f"attributions of {name}")
        others = i >= len(matrix[sequence.named])
        style.draw_signed_bars(bars, time.edges, matrix[i], None if errors is None else errors[i])
        _scale_bars(bars, reach[:, i] if others else scale, sequence.per_feature[0, i])
        style.mark_cut(bars, time.centers, np.nan_to_num(matrix[i]))
        bars.tick_params(labelbottom=last)
        top = bars
        if has_line[i]:
            top = panels(3 * i, sharex=base, label=f"inputs of {name}")
            line = _draw_coloured_line(top, time, sequence.data[0, :, i], matrix[i], limit)
        label = f"{style.short(name, 22)}\n(own scale)" if others else style.short(name, 22)
        top.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=style.SMALL + 1)
        if i == 0:
            _title(top, sequence)
    time.format_axis(base)
    if time.binned:
        base.set_xlabel(f"{base.get_xlabel()}; lines: average and range", fontsize=style.SMALL + 1)
    bar = panels(0, 1, 2, label="scale of attributions")
    style.evidence_bar(line, matrix[has_line], style.with_unit("attribution", unit), bar)
    return ax


@plot("row")
def buildup(
    explanation: Attributions,
    *,
    max_display: int = 5,
    unit: str = "",
    time_label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how one output builds up from the base value: a waterfall over time, and the running sums of the features.

    Up to 5 features have a curve of their own. Whiskers show two standard errors of the steps, where these are known.
    """
    sequence = read_row(explanation, "buildup").keep_largest(min(max_display, len(style.CURVES) - 1))
    time = timeline(sequence.labels, sequence.values.shape[1], time_label, sequence.time_label, style.MOST_BARS)
    single = len(sequence.features) == 1
    heights = [2.6] if single else [2.6, 2.2]
    ax = style.new_axes(ax, 10, sum(heights) + 1.3)
    panels = style.Panels(ax, heights, [8.2, 1.4], gaps=(0.3, 0))
    top = panels(0, label="output")
    _draw_waterfall(top, time, sequence, unit)
    _title(top, sequence, pad=20)
    if single:
        time.format_axis(top)
        return ax
    bottom = panels(1, sharex=top, label="features")
    _draw_running_sums(bottom, time, sequence, unit)
    time.format_axis(bottom)
    top.tick_params(labelbottom=False)
    return ax


@plot("row", ", or there is no such row", example="explanation, row=0")
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
    parts = _inputs_of(explanation, row, max_display)
    heights = [max(0.5, 0.24 * len(sequence.features)) for sequence, _ in parts.values()]
    ax = style.new_axes(ax, 10, sum(heights) + 0.75 * len(heights) + 0.8)
    panels = style.Panels(ax, heights, [6.4, 2.0, 0.14], gaps=(0.75, 0.15))
    matrices = [time.sums(sequence.values[0]).T for sequence, time in parts.values()]
    named = [matrix[sequence.named].ravel() for matrix, (sequence, _) in zip(matrices, parts.values(), strict=True)]
    limit = style.color_limit(*named, robust=robust)
    sums = np.concatenate([sequence.per_feature[0, sequence.named] for sequence, _ in parts.values()])
    reach = style.color_limit(sums, robust=robust)
    for place, (name, (sequence, time)) in enumerate(parts.items()):
        left = panels(place, label=name)
        errors = sequence.error_of(lambda array, time=time: time.sums(array[0]).T)  # type: ignore[misc]
        mesh = style.draw_evidence(left, time.edges, matrices[place], limit, errors)
        left.set_title(f"{name}: {style.number(sequence.per_feature.sum())}", fontsize=10, loc="left")
        _label_input(left, sequence, time, time_label)
        low, high = np.clip([sums.min(), sums.max()], -reach, reach)
        style.draw_sums(
            panels(place, 1, label=f"sums of {name}"), sequence.per_feature[0], (low, high), _errors_of_sums(sequence)
        )
    label = style.with_unit("attribution", unit)
    style.evidence_bar(mesh, np.concatenate(named), label, panels.bar(0, 2, "scale of attributions"))
    sequence, total = next(iter(parts.values()))[0], sum(float(part.per_feature.sum()) for part, _ in parts.values())
    base = f"base value {style.number(sequence.base[0], False)}"
    output = sequence.base[0] + total if sequence.outputs is None else sequence.outputs[0]
    style.write_title(ax, sequence.rows[0], sequence.output, base, f"output {style.number(output, False)}", pad=24)
    return ax


@plot("row")
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
    sequence = read_row(explanation.output(0), "output_matrix")
    _, steps, features = sequence.values.shape
    chosen = range(features) if feature is None else [sequence.index_of(feature)]
    count, errors = explanation.values.shape[-1], explanation._errors
    inputs, outputs = timeline(sequence.labels, steps, time_label, sequence.time_label), timeline(None, count, "output")

    def in_cells(array: np.ndarray) -> np.ndarray:  # (outputs, steps)
        row = (array[0] if explanation._rows else array)[:steps].reshape(steps, features, count)
        return outputs.means(inputs.sums(row[:, chosen].sum(1)).T)

    matrix = in_cells(np.asarray(explanation.values, dtype=np.float64))
    names = names_for(explanation.output_names, count) or list(map(str, range(count)))
    ax = style.new_axes(ax, 9, float(np.clip(0.25 * len(matrix) + 1.2, 2.6, 6.5)))
    unsure = None if errors is None else errors.of(in_cells).errors
    mesh = style.draw_evidence(ax, inputs.edges, matrix, style.color_limit(matrix, robust=robust), unsure)
    style.write_in_cells(ax, inputs.centers, matrix, mesh.get_clim()[1])
    style.evidence_bar(mesh, matrix, style.with_unit("attribution", unit))
    style.label_rows(ax, [names[start] for start in outputs.starts])
    inputs.format_axis(ax)
    averaged = "" if len(matrix) == count else f" (averages of {int(np.ceil(count / len(matrix)))})"
    ax.set_ylabel(f"output{averaged}", fontsize=style.SMALL + 1)
    style.write_title(
        ax, "all features" if feature is None else sequence.features[chosen[0]], length=style.LONGEST_NAME
    )
    return ax


def _errors_of_sums(sequence: Sequences) -> np.ndarray | None:
    return sequence.error_of(lambda array: array.sum((0, 1)))


def _title(ax: Axes, sequence: Sequences, pad: float = 6) -> None:
    """Write the names of the row and of the output, if there are any."""
    style.write_title(ax, sequence.rows[0], sequence.output, pad=pad)


# ---------------------------------------------------------------------- parts of the heat map
def _draw_running_output(ax: Axes, time: Timeline, sequence: Sequences, unit: str) -> None:
    """Draw how the output builds up from the base value, and write both beside it."""
    per_step = time.sums(sequence.values[0]).sum(1)
    base = float(sequence.base[0])
    curve = base + np.concatenate([[0.0], np.cumsum(per_step)])
    ax.plot(time.edges, curve, color="black", linewidth=1.2)
    ax.axhline(base, color="0.5", linewidth=0.8, linestyle=":")
    for above, look in ((curve >= base, style.UP), (curve <= base, style.DOWN)):
        ax.fill_between(time.edges, base, curve, where=above, interpolate=True, alpha=0.35, **look)
    _write_ends(ax, sequence)
    ax.set_ylabel(
        style.with_unit("base value\n+ attributions\nso far", unit).replace(" (", "\n("), fontsize=style.SMALL
    )
    style.open_frame(ax)
    ax.locator_params(axis="y", nbins=4)
    ax.tick_params(labelbottom=False)


def _write_ends(ax: Axes, sequence: Sequences) -> None:
    """Write the base value and the output to the right, at their heights; also the sum of what is shown if it is less."""
    base, shown = float(sequence.base[0]), float(sequence.shown[0])
    ends = [(base, "base value", "normal")]
    if sequence.complete:
        ends.append((shown, "output", "bold"))
    else:
        assert sequence.outputs is not None
        output = float(sequence.outputs[0])
        ends += [(shown, "sum of what is shown", "normal"), (output, "output", "bold")]
        ax.axhline(output, color="black", linewidth=0.8, linestyle=":")
    low, high = ax.get_ylim()
    gap = (high - low) * 1.35 * style.SMALL / max(style.points(ax)[1], 1)
    places = style.spread_apart(np.array([height for height, _, _ in ends]), gap)
    for place, (height, what, weight) in zip(places, ends, strict=True):
        _write_beside(ax, place, f"{what} {style.number(height, False)}", fontweight=weight)


def _write_beside(ax: Axes, height: float, text: str, **look: Any) -> None:
    """Write to the right of the axes, at a height of the data."""
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "annotation_clip": False, "va": "center"}
    ax.annotate(text, (1.01, height), fontsize=style.SMALL, **place, **look)


def _draw_inputs(ax: Axes, cax: Axes, time: Timeline, sequence: Sequences) -> None:
    """Draw the inputs in greys, each feature from its lowest to its highest value in this sequence."""
    assert sequence.data is not None
    series = time.means(sequence.data[0]).T
    finite = np.isfinite(series).any(1)
    low, span = np.zeros((len(series), 1)), np.ones((len(series), 1))
    low[finite] = np.nanmin(series[finite], 1, keepdims=True)
    span[finite] = np.nanmax(series[finite], 1, keepdims=True) - low[finite]
    scaled = np.where(span > 0, (series - low) / np.where(span > 0, span, 1), 0.5)
    mesh = style.draw_map(
        ax, time.edges, np.where(np.isfinite(series), scaled, np.nan), cmap="Greys", vmin=0, vmax=1.15
    )
    style.label_rows(ax, sequence.features)
    bar = style.color_bar(mesh, "input, per feature", cax)
    bar.ax.set_ylim(0, 1)
    bar.set_ticks([0, 1], labels=["lowest", "highest"])


# ---------------------------------------------------------------------- parts of the lines
def _draw_coloured_line(
    ax: Axes, time: Timeline, series: np.ndarray, values: np.ndarray, limit: float
) -> LineCollection:
    """Draw a line that changes its colour half-way between the steps, and a dot for a step without neighbours."""
    heights, centers = time.means(series), time.centers
    if time.binned:
        ax.fill_between(centers, *time.envelope(series), color="0.86", linewidth=0)
    x, y = _repeat_ends(centers), _repeat_ends(heights)
    middle_x, middle_y = (x[:-1] + x[1:]) / 2, (y[:-1] + y[1:]) / 2
    before, after = np.stack([middle_x[:-1], middle_y[:-1]], 1), np.stack([middle_x[1:], middle_y[1:]], 1)
    pieces = np.stack([before, np.stack([centers, heights], 1), after], 1)  # (columns, 3, 2)
    colours: dict[str, Any] = {"cmap": style.EVIDENCE_LINE, "norm": Normalize(-limit, limit)}
    line = LineCollection(list(pieces), linewidth=2.2, capstyle="round", **colours)
    line.set_array(values)
    ax.add_collection(line)
    finite = np.pad(np.isfinite(heights), 1)
    lone = finite[1:-1] & ~finite[:-2] & ~finite[2:]
    ax.scatter(centers[lone], heights[lone], 36, values[lone], linewidth=0, **colours)
    ax.autoscale_view()
    ax.margins(y=0.08)
    style.open_frame(ax)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(bottom=False, labelbottom=False)
    ax.locator_params(axis="y", nbins=4)
    return line


def _repeat_ends(series: np.ndarray) -> np.ndarray:
    return np.concatenate([series[:1], series, series[-1:]])


def _scale_bars(ax: Axes, all_values: np.ndarray, total: float) -> None:
    """Give the bars of one feature the scale of all those given, and write their sum beside them."""
    low, high = min(0.0, np.nanmin(all_values)), max(0.0, np.nanmax(all_values))
    margin = 0.06 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + margin)
    _write_beside(ax, 0, style.number(total), color=style.RED if total >= 0 else style.BLUE, fontweight="bold")
    ax.set_yticks([])
    style.bare(ax)


# ---------------------------------------------------------------------- parts of the build-up
def _draw_waterfall(ax: Axes, time: Timeline, sequence: Sequences, unit: str) -> None:
    per_step = time.sums(sequence.values[0]).sum(1)
    base = float(sequence.base[0])
    after = base + np.cumsum(per_step)
    before = after - per_step
    widths = np.diff(time.edges)
    gap = 0.12 * widths if len(widths) <= style.MOST_BARS / 2 else 0 * widths
    for chosen, look in ((per_step >= 0, style.UP), (per_step < 0, style.DOWN)):
        left, height = (time.edges[:-1] + gap)[chosen], per_step[chosen]
        ax.bar(left, height, (widths - 2 * gap)[chosen], bottom=before[chosen], align="edge", **look)
    ax.hlines(after[:-1], time.centers[:-1], time.centers[1:], color="0.35", linewidth=0.6)
    ax.axhline(base, color="0.5", linewidth=0.8, linestyle=":")
    ax.use_sticky_edges = False
    ax.margins(x=0, y=0.12)
    if not per_step.any():  # otherwise the rounding errors of bars without height set the scale
        ax.set_ylim(base - (abs(base) or 1), base + (abs(base) or 1))
    errors = sequence.error_of(lambda array: time.sums(array[0]).sum(1))
    style.whiskers(ax, time.centers, after, errors)
    reach = 0 if errors is None else style.ERRORS * errors
    _write_steps(ax, time, per_step, np.maximum(before, after + reach), np.minimum(before, after - reach))
    style.open_frame(ax)
    ax.set_ylabel(style.with_unit("output", unit), fontsize=style.SMALL + 1)
    _write_ends(ax, sequence)
    style.sign_legend(ax, *([] if errors is None else [style.WHISKER]))


def _write_steps(ax: Axes, time: Timeline, per_step: np.ndarray, tops: np.ndarray, bottoms: np.ndarray) -> None:
    """Write the numbers of all steps, or of the largest where there are many; none too near another, or if all are 0."""
    size = np.abs(per_step)
    if not size.any():
        return
    texts = style.format_fixed(per_step)
    width = (4.6 * max(map(len, texts)) + 4) / max(style.points(ax)[0], 1) * (time.edges[-1] - time.edges[0])
    places = np.clip(
        time.centers, time.edges[0] + width / 2, time.edges[-1] - width / 2
    )  # free: what is beside the axes
    written: list[float] = []
    for i in np.argsort(-size, kind="stable"):
        many = len(size) > FEW_BARS
        if many and (len(written) == 8 or size[i] < size.max() / 20):
            break
        if any(abs(places[i] - position) < width for position in written):
            continue
        written.append(places[i])
        up = per_step[i] >= 0
        near = np.abs(time.centers - places[i]) < (width + np.diff(time.edges)) / 2
        end, shift, va = (tops[near].max(), 2, "bottom") if up else (bottoms[near].min(), -2, "top")
        ax.annotate(
            texts[i], (places[i], end), (0, shift), textcoords="offset points", ha="center", va=va, fontsize=7.5
        )


def _draw_running_sums(ax: Axes, time: Timeline, sequence: Sequences, unit: str) -> None:
    """Draw the running sum of each feature; their last values add up to the output minus the base value."""
    curves = np.cumsum(time.sums(sequence.values[0]), 0)
    curves = np.concatenate([np.zeros((1, curves.shape[1])), curves])
    ax.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
    for curve, (color, dashes) in zip(curves.T, style.CURVES, strict=False):
        ax.plot(time.edges, curve, color=color, linestyle=dashes, linewidth=1.7)
    ax.margins(y=0.08)
    low, high = ax.get_ylim()
    places = style.spread_apart(curves[-1], (high - low) * 1.35 * style.SMALL / max(style.points(ax)[1], 1))
    for place, name, value, (color, _) in zip(places, sequence.features, curves[-1], style.CURVES, strict=False):
        _write_beside(ax, place, f"{style.short(name, 18)} {style.number(value)}", color=color)
    style.open_frame(ax)
    ax.set_ylabel(style.with_unit("running sum\nof attributions", unit), fontsize=style.SMALL + 1)


# ---------------------------------------------------------------------- parts of all inputs
def _inputs_of(explanation: Attributions, row: int | None, max_display: int) -> dict[str, tuple[Sequences, Timeline]]:
    """Return each input of the row with its strongest features, ``max_display`` in all, and its time axis."""
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
    sizes = np.sort(np.concatenate([np.abs(sequence.values[0]).mean(0) for sequence in read.values()]))[::-1]
    least = sizes[min(max_display, len(sizes)) - 1]
    parts = {}
    for name, sequence in read.items():
        sequence = sequence.keep_largest(max(1, int((np.abs(sequence.values[0]).mean(0) >= least).sum())))
        parts[name] = (sequence, timeline(sequence.labels, sequence.values.shape[1], None, sequence.time_label))
    return parts


def _label_input(ax: Axes, sequence: Sequences, time: Timeline, time_label: str | None) -> None:
    """Name the features of an input and its steps; without steps, say what values they have."""
    names = sequence.features
    if not sequence.has_steps and sequence.data is not None:
        numbers = [style.equals(value) for value in sequence.data[0, 0]]
        names = [
            style.short(name, style.LONGEST_NAME - len(value)) + value
            for name, value in zip(names, numbers, strict=True)
        ]
    style.label_rows(ax, names)
    if not sequence.has_steps:
        ax.set_xticks([])
        return
    time.format_axis(ax)
    if time_label is not None:
        ax.set_xlabel(time_label, fontsize=style.SMALL + 1)
