"""Read explanations for plots: checks of arguments, shared docstrings, and arrays of one output, rows first.

Every explanation is read into ``Sequences``, attributions (rows, steps, features). A table has one step. Players that follow each
other in time are steps. The channels of an image are features. Ids of categories are one feature.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from textwrap import fill, indent
from typing import Any, TypeVar, cast

import matplotlib.pyplot as plt
import numpy as np

from deepshap.errors import InputError, check_options
from deepshap.explanation.core import Attributions
from deepshap.explanation.grids import channel_axis, channels_last
from deepshap.explanation.joint import JointAttributions
from deepshap.explanation.labels import names_for, numbered
from deepshap.explanation.uncertainty import Errors
from deepshap.plots.style import short
from deepshap.plots.timeline import nan_mean

Array = np.ndarray
Layout = Callable[[np.ndarray], np.ndarray]
Function = TypeVar("Function", bound=Callable[..., object])

EXPLAINED = {
    "rows": "Of one output: values (rows, steps, features), or of players (rows, players).",
    "row": "Of one row and one output: values (steps, features), or of players (players,).",
}
REFUSED = {
    "rows": "If there are several outputs, or these are not sequences",
    "row": "If there are several rows or outputs, or this is not a sequence",
}
PARAMETERS = {
    "align": (
        '"start", "end" or "relative"',
        "How sequences of different lengths are laid over each other: by their first steps, by their last steps, or "
        "stretched\nto the same length.",
    ),
    "max_display": (
        "int",
        "How many features are drawn, those with the largest values; the others are summed in one more.",
    ),
    "robust": (
        "bool",
        "Scale by what is not far out, at most three interquartile ranges above the quartiles: one enormous value does not "
        "hide all\nothers. What lies beyond is cut, and marked.",
    ),
    "unit": ("str, optional", "Of the output, and so of the attributions."),
    "time_label": ("str, optional", "Label of the time axis, by default ``explanation.time_label``."),
    "ax": ("Axes, optional", "Where to draw; panels (``ax.child_axes``) share its place. By default a new figure."),
}
RETURNS = "Returns\n-------\nAxes\n    ``ax``, or the axes of the new figure."


def plot(of: str, refuses: str = "", example: str = "") -> Callable[[Function], Function]:
    """Complete a plot of "rows" or a "row": the docstring by what it does not describe, and checks of the options.

    ``example`` holds the arguments of the docstring's example; by default the explanation alone.
    """

    def complete(function: Function) -> Function:
        head, _, described_parameters = inspect.cleandoc(function.__doc__ or "").partition(
            "\n\nParameters\n----------\n"
        )
        parameters = inspect.signature(function).parameters
        described = {"explanation": ("Explanation", EXPLAINED[of]), **PARAMETERS}
        lines = [
            f"{name} : {kind}\n{indent(text, '    ')}"
            for name, (kind, text) in described.items()
            if name in parameters and f"{name} :" not in described_parameters
        ]
        lines.insert(0 if "explanation :" in described_parameters else 1, described_parameters)
        refused = REFUSED[of] + refuses + (", or ``align`` is something else" if "align" in parameters else "")
        raises = fill(f"{refused}.", 120, initial_indent="    ", subsequent_indent="    ")
        parts = [head, "Parameters\n----------\n" + "\n".join(filter(None, lines)), RETURNS]
        call = example or {"rows": "explanation", "row": "explanation[0]"}[of]
        parts.append(f"Raises\n------\nInputError\n{raises}")
        parts.append(f"Examples\n--------\n>>> ax = deepshap.plots.{function.__name__}({call})")
        function.__doc__ = "\n\n".join(parts)
        return check_arguments(function)

    return complete


def check_arguments(function: Function) -> Function:
    """Make a plot check its explanation and its options before it draws."""
    signature, name = inspect.signature(function), function.__name__

    @wraps(function)
    def draw(*arguments: Any, **options: Any) -> Any:
        show = options.pop("show", False)  # an option of all of shap's plots
        if not isinstance(show, bool):
            raise InputError(f"plots.{name}: show must be True or False, not {show!r}.")
        try:
            bound = signature.bind(*arguments, **options).arguments
        except TypeError as error:
            raise TypeError(f"plots.{name}: {error}; it takes {', '.join(signature.parameters)}.") from None
        check_options(f"plots.{name}: ", **bound)
        if "explanation" in bound:
            check_attributions(bound["explanation"], name)
        drawn = function(*arguments, **options)
        if show:
            plt.show()
        return drawn

    return cast(Function, draw)


@dataclass(frozen=True)
class Sequences:
    """Attributions to one output of the model.

    values: (rows, steps, features) float64. base: (rows,).
    data: (rows, steps, features) float64, what is shown of the inputs; None if unknown.
    features: names. lengths: (rows,), steps that are no padding. labels: (steps,) or (rows, steps), or None.
    time_label: name of the steps' axis, or None. rows: names. output: name, or "".
    outputs: (rows,), what the model returned; None if unknown.
    errors: standard errors of the values, or None. is_folded: whether the last feature is the sum of others.
    is_summed: whether the values have been summed over time.
    """

    values: np.ndarray
    base: np.ndarray
    data: np.ndarray | None
    features: list[str]
    lengths: np.ndarray
    labels: np.ndarray | None
    time_label: str | None
    rows: list[str]
    output: str
    outputs: np.ndarray | None
    errors: Errors | None = None
    is_folded: bool = False
    is_summed: bool = False

    def errors_of(self, total: Callable[[np.ndarray], np.ndarray]) -> Errors | None:
        """Return the errors of sums of the values, if they are known."""
        return None if self.errors is None else self.errors.of(total)

    def error_of(self, total: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
        """Return the standard errors alone of sums of the values, if they are known."""
        return None if self.errors is None else self.errors.of(total).errors

    @property
    def named(self) -> slice:
        """The features that are no sum of others; that sum may be far larger than each of them, and sets no scale."""
        return slice(len(self.features) - self.is_folded)

    @property
    def has_steps(self) -> bool:
        """Whether there is more than one."""
        return self.values.shape[1] > 1

    @property
    def per_feature(self) -> np.ndarray:
        """Attributions summed over the steps (rows, features)."""
        return self.values.sum(1)

    @property
    def shown(self) -> np.ndarray:
        """Base value and attributions, summed (rows,)."""
        return self.base + self.values.sum((1, 2))

    def index_of(self, feature: int | str) -> int:
        """Return the number of a feature from its index or name."""
        if isinstance(feature, str) and feature in self.features:
            return self.features.index(feature)
        count = len(self.features)
        if isinstance(feature, (int, np.integer)) and -count <= feature < count:
            return int(feature) % count
        raise InputError(f"there is no feature {feature!r} among {count} features: {', '.join(self.features[:20])}.")

    @property
    def complete(self) -> bool:
        """Whether that is the output: no other inputs, no steps or features left out."""
        if self.outputs is None:
            return True
        scale = np.abs(self.values).sum((1, 2)) + np.abs(self.outputs)
        return bool((np.abs(self.outputs - self.shown) <= 1e-3 * scale).all())

    @property
    def mean_data(self) -> np.ndarray | None:
        """Inputs averaged over the steps that are no padding and known, (rows, features); NaN where none is."""
        if self.data is None:
            return None
        present = np.arange(self.data.shape[1]) < self.lengths[:, None]
        return nan_mean(np.where(present[..., None], self.data, np.nan).swapaxes(0, 1))

    def keep_largest(self, count: int) -> Sequences:
        """Keep the ``count`` features of the largest mean |attribution|, in their order; the others become one, last."""
        fold, names, largest = fold_smallest(self.values.reshape(-1, len(self.features)), self.features, count)
        data, is_folded = self.data, len(largest) < len(names)
        if data is not None and is_folded:
            data = np.concatenate([data[..., largest], np.full((*data.shape[:-1], 1), np.nan)], -1)
        return replace(
            self, values=fold(self.values), data=data, features=names, errors=self.errors_of(fold), is_folded=is_folded
        )


def fold_smallest(
    values: np.ndarray, names: list[str], count: int, by_size: bool = False
) -> tuple[Layout, list[str], np.ndarray]:
    """Sum up all but the ``count`` columns of the largest mean |value|, (..., columns).

    Returns what does so with any array, the names of the columns that it leaves, and which of them are kept: in their order, or
    the largest first.
    """
    order = np.argsort(-np.nan_to_num(np.abs(values)).mean(0), kind="stable")
    largest = (
        order if len(order) <= count + 1 else order[:count]
    )  # a line for one other feature might as well show that
    largest, rest = largest if by_size else np.sort(largest), np.setdiff1d(order, largest)

    def fold(array: np.ndarray) -> np.ndarray:
        left = array[..., largest]
        return np.concatenate([left, array[..., rest].sum(-1, keepdims=True)], -1) if len(rest) else left

    return fold, [*(names[i] for i in largest), *([f"other {len(rest)} features"] if len(rest) else [])], largest


# ---------------------------------------------------------------------- from an explanation
def read_features(explanation: Attributions, what: str) -> Sequences:
    """Read an explanation for plots of features: tables, and all inputs of a joint explanation, become one step."""
    if isinstance(explanation, JointAttributions):
        return _concat_inputs([(key, read_features(part, what)) for key, part in explanation.items()])
    return read_rows(explanation, what, table=True)


def _concat_inputs(parts: list[tuple[Any, Sequences]]) -> Sequences:
    """Return the features of several inputs side by side, summed over time."""
    first, names = parts[0][1], [name for _, part in parts for name in part.features]
    if len(set(names)) < len(names):
        names = [f"{key}: {name}" for key, part in parts for name in part.features]
    data = [part.mean_data for _, part in parts]
    of_inputs = [
        part.per_feature * np.nan if entry is None else entry for entry, (_, part) in zip(data, parts, strict=True)
    ]
    errors = [part.errors_of(lambda array: array.sum(1, keepdims=True)) for _, part in parts]
    return replace(
        first,
        values=np.concatenate([part.per_feature for _, part in parts], 1)[:, None],
        data=None if all(entry is None for entry in data) else np.concatenate(of_inputs, 1)[:, None],
        features=names,
        lengths=np.ones(len(first.values), int),
        labels=None,
        time_label=None,
        is_summed=any(part.has_steps for _, part in parts),
        errors=None if any(entry is None for entry in errors) else Errors.beside([entry for entry in errors if entry]),
    )


def read_rows(explanation: Attributions, what: str, *, text: bool = False, table: bool = False) -> Sequences:
    """Read the explanation of one output for any number of rows; an InputError says what to choose first.

    text: whether a lone axis behind the rows is that of the steps, as with token ids; table: or else that of the features.
    """
    explanation = only_output(explanation, what)
    values = np.asarray(explanation.values, dtype=np.float64)
    if not values.size:
        raise InputError(f"plots.{what} has nothing to draw: the attributions have shape {values.shape}.")
    inputs, names = explanation._inputs - explanation._rows, explanation.feature_names
    if inputs == 1 and explanation.players is not None:  # those that follow each other in time are steps
        player_names = names_for(names, values.shape[-1]) or numbered("Player", values.shape[-1])
        if explanation.players == "steps" or str(explanation.players).startswith("window"):
            return replace(
                _sequences(explanation, _reshape(-1, len(player_names), 1), ["all features"]),
                labels=np.array(player_names),
            )
        return _sequences(explanation, _reshape(-1, 1, len(player_names)), player_names)
    is_sequence = explanation._steps_at == explanation._rows or (text and inputs == 1)
    if inputs < 2 and table and not is_sequence:
        count = values.shape[-1] if inputs else 1  # ids of categories, (rows,), are one feature
        features = [names] if isinstance(names, str) and count == 1 else names_for(names, count)
        return _sequences(explanation, _reshape(-1, 1, count), features or numbered("Feature", count))
    if inputs > 2 or not is_sequence:
        lone = f"explanation.step_labels = range({values.shape[-1]})" if inputs else ""
        raise InputError(
            f"plots.{what} is for sequences, attributions of shape (rows, steps, features); these have shape {values.shape}. "
            f"{f'If the last axis is the steps, say so: {lone}. ' if lone else ''}For tables there are plots.bar, "
            "plots.waterfall and plots.beeswarm."
        )
    shape = values.shape if inputs == 2 else (*values.shape, 1)  # as over_features() returns
    if inputs == 1:
        features = [names if isinstance(names, str) else "all features"]
    else:
        features = names_for(names, shape[-1]) or numbered("Feature", shape[-1])
    return _sequences(explanation, _reshape(-1, *shape[-2:]), features)


def _reshape(*shape: int) -> Layout:
    return lambda array: array.reshape(shape)


def _sequences(explanation: Attributions, lay: Layout, features: list[str]) -> Sequences:
    """Read an explanation whose arrays a function lays out as (rows, steps, features)."""
    values, errors = lay(np.asarray(explanation.values, np.float64)), explanation._errors
    rows, steps, _ = values.shape
    return Sequences(
        values=values,
        base=per_row(explanation.base_values, rows, 0.0),
        data=_shown_data(explanation, lay),
        features=features,
        lengths=np.clip(per_row(explanation._reached, rows, steps).astype(int), 1, steps),
        labels=_step_labels(explanation, steps),
        time_label=explanation.time_label,
        rows=_row_names(explanation, rows),
        output=_output_name(explanation),
        outputs=None if explanation.outputs is None else per_row(explanation.outputs, rows, np.nan),
        errors=None if errors is None else errors.of(lay),
    )


def read_grid(explanation: Attributions, what: str, channels: str | None) -> tuple[Sequences, tuple[int, int]]:
    """Read the explanation of one output for images: their pixels are the steps, their channels the features; height, width."""
    explanation = only_output(explanation, what)
    shape = np.shape(explanation.values)[explanation._rows :]
    axis = channel_axis(shape, channels)
    count = 1 if axis is None else shape[axis]
    height, width = (size for place, size in enumerate(shape) if place != axis)
    names = names_for(explanation.feature_names, count) if axis == 2 else None
    names = names or ([""] if axis is None else numbered("channel", count))
    images = _sequences(
        explanation, lambda a: channels_last(a.reshape(-1, *shape), axis).reshape(-1, height * width, count), names
    )
    return images, (height, width)


def read_row(explanation: Attributions, what: str, *, table: bool = False) -> Sequences:
    """Read the explanation of one output for a single row, without its padding."""
    sequence = read_rows(explanation, what, table=table)
    check_single(len(sequence.values), what)
    length = sequence.lengths[0]
    labels = sequence.labels if sequence.labels is None or sequence.labels.ndim == 1 else sequence.labels[0]
    return replace(
        sequence,
        values=sequence.values[:, :length],
        data=None if sequence.data is None else sequence.data[:, :length],
        errors=sequence.errors_of(lambda array: array[:, :length]),
        labels=None if labels is None else labels[:length],
    )


def check_single(rows: int, what: str) -> None:
    """Refuse more than one row."""
    if rows != 1:
        raise InputError(f"plots.{what} draws a single row; there are {rows}: choose one, explanation[0].")


def check_attributions(explanation: Any, what: str) -> None:
    """Refuse what is no explanation, and numbers that nothing can be drawn of."""
    if not isinstance(explanation, Attributions):
        raise InputError(
            f"plots.{what} takes a deepshap.Explanation, what explainer(x) returns, not {type(explanation).__name__}; "
            "of arrays make one: deepshap.Explanation(values, base_values, data)."
        )
    for key, part in explanation.items():
        if not np.isfinite(np.asarray(part.values, np.float64)).all():
            of = "" if key is None else f" to {key!r}"
            raise InputError(f"plots.{what}: the attributions{of} hold NaN or infinity, of which there is no picture.")


def check(explanation: Attributions, what: str) -> None:
    """Refuse explanations of several inputs."""
    if isinstance(explanation, JointAttributions):
        keys = [key for key, _ in explanation.items()]
        raise InputError(f"plots.{what} draws one input: choose one of {keys}, explanation[{keys[0]!r}].")


def only_output(explanation: Attributions, what: str) -> Attributions:
    """Drop the axes of the output of a single input, if there is only one."""
    check(explanation, what)
    shape = tuple(explanation.values.shape[axis] for axis in explanation.output_dims)
    if not shape:
        return explanation
    if set(shape) == {1}:
        return explanation.output((0,) * len(shape))
    names = explanation.output_names
    named = np.ndim(names) == 1 and len(shape) == 1
    choices = f": {', '.join(short(name) for name in names[:8])}{', ...' if len(names) > 8 else ''}" if named else ""
    key = (0,) * len(shape) if len(shape) > 1 else names[0] if named else 0
    raise InputError(
        f"plots.{what} draws one output and the explanation has {shape[0] if len(shape) == 1 else shape}{choices}. "
        f"Choose one with .output(key): explanation.output({key!r})."
    )


def per_row(values: Any, rows: int, default: float) -> np.ndarray:
    """Return a number for every row."""
    values = default if values is None else np.asarray(values, dtype=np.float64)
    return np.broadcast_to(values, (rows,))


def _shown_data(explanation: Attributions, lay: Layout) -> np.ndarray | None:
    """Return the inputs as they are shown, if they are numbers: before scaling, where these are known."""
    for data in (explanation.display_data, explanation.data):
        if data is not None and np.asarray(data).dtype.kind in "biuf" and np.size(data) == explanation.values.size:
            return lay(np.asarray(data, dtype=np.float64))
    return None


def _output_name(explanation: Attributions) -> str:
    """Return the name of the output, or of its selection if each row has its own; for one row with that row's output."""
    names = explanation.output_names
    name = names if isinstance(names, str) else explanation.explained or ""
    row_name = _name_in_row(explanation, name)
    return f"{name} ({row_name})" if row_name else name


def _name_in_row(explanation: Attributions, name: str) -> str | None:
    """Return what "predicted" and the like are in a single row, as "flu - cold"; None if unknown or unchanged."""
    classes = explanation.classes or []
    scores = np.atleast_2d(np.array([] if explanation.predictions is None else explanation.predictions))
    if len(scores) > 1 or scores.shape[1] < 2 or name != explanation.explained or name in classes:
        return None
    outputs = dict(zip(("predicted", "runner-up"), np.argsort(-scores[0], kind="stable").tolist(), strict=False))
    targets = np.ravel([] if explanation.targets is None else explanation.targets).tolist()
    if len(targets) == 1:
        outputs["true"] = targets[0]

    def substitute(match: re.Match[str]) -> str:
        key = outputs.get(match[0], match[0])
        return key if isinstance(key, str) else str(classes[int(key)]) if classes else f"output {int(key)}"

    terms = name.removeprefix("log-odds of ")
    words_of_row = re.sub("predicted|runner-up|true", substitute, terms)
    return None if words_of_row == terms else words_of_row


def _step_labels(explanation: Attributions, steps: int) -> np.ndarray | None:
    """Return the labels, or else the numbers of the steps if some have been taken out."""
    if explanation.step_labels is not None:
        return np.asarray(explanation.step_labels)
    numbers = explanation._tracked("steps")
    return None if numbers is None or np.array_equal(numbers, np.arange(steps)) else np.asarray(numbers)


def _row_names(explanation: Attributions, rows: int) -> list[str]:
    ids = explanation.row_ids
    if ids is None:
        return [f"row {i}" for i in range(rows)] if rows > 1 else [""]
    ids = np.atleast_1d(np.asarray(ids))
    return [f"row {name}" if ids.dtype.kind in "iu" else str(name) for name in ids]
