"""Read an explanation of any kind into the form that a report shows.

Every input becomes one or several ``Part`` objects with values (rows, steps, features, outputs): a table has one step, a text one
feature, and an image has columns of pixels as steps and lines of pixels as features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..explanation.core import Attributions
from ..explanation.grids import channel_axis
from ..explanation.labels import PADDING, as_texts, names_for, numbered
from ..explanation.long_form import facts
from ..explanation.uncertainty import Errors
from ..formulas.additivity import additivity_gap

Kind = Literal["sequence", "text", "table", "image"]
BLOCK = 2**22  # values that are summed at a time
COLOURS = 4  # of an image, at most
TOLERANCE = 1e-4  # of the check of float32 models


@dataclass(frozen=True)
class Part:
    """Attributions to one input of the model.

    kind: what the axes mean. A text has one feature, its words; a table one step; an image has columns of pixels as steps, and
    lines of pixels as features.
    values: (rows, steps, features, outputs). data: (rows, steps, features) numbers or objects, or None. Words that are padding
    are None.
    feature_names: one per feature. step_labels: (steps,) or (rows, steps) of str, or None. lengths: (rows,).
    errors: standard errors of the values, or None.
    """

    name: str
    kind: Kind
    values: np.ndarray
    data: np.ndarray | None
    feature_names: list[str]
    step_labels: np.ndarray | None
    lengths: np.ndarray
    errors: Errors | None

    @property
    def there(self) -> np.ndarray:
        """Return which steps each row has, (rows, steps)."""
        return np.arange(self.values.shape[1]) < self.lengths[:, None]

    def words(self, row: int) -> list[str]:
        """Return the words of a text, without padding; none of another input."""
        if self.kind != "text" or self.data is None:
            return []
        return [str(word) for word in self.data[row, : self.lengths[row], 0] if word is not None]

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the values block by block, in float64."""
        size = max(1, BLOCK // max(1, self.values[0].size))
        for start in range(0, len(self.values), size):
            rows = slice(start, start + size)
            yield rows, self.values[rows].astype(np.float64)


@dataclass(frozen=True)
class Content:
    """All that a report is made of.

    output_names: (outputs,), or (rows, outputs) where each row has outputs of its own.
    row_ids: (rows,) of str. outputs, base, total, total_abs, gap: (rows, outputs) float64; ``total`` is the sum of the
    attributions and ``total_abs`` that of their absolute values. base and gap are None where they are not known.
    targets: (rows,), (rows, outputs) or None. converged: (rows,) or None. flat: there is at most one axis of outputs.
    predictions: all outputs of the model (rows, classes), whichever are explained; None where they are not known.
    What follows is known of the explanation as a whole: its ``long_form.FACTS``.
    """

    parts: list[Part]
    output_names: np.ndarray
    flat: bool
    row_ids: list[str]
    outputs: np.ndarray
    base: np.ndarray | None
    total: np.ndarray
    total_abs: np.ndarray
    gap: np.ndarray | None
    targets: np.ndarray | None
    predictions: np.ndarray | None
    converged: np.ndarray | None
    background: dict[str, Any] | None
    model: str | None
    method: str | None
    reliability: str | None
    players: str | None
    explained: str | None
    classes: list[str] | None
    time_label: str | None
    compute_time: float | None

    def __len__(self) -> int:
        return len(self.row_ids)


def read(explanation: Attributions) -> Content:
    """Read an explanation, of one input or of several.

    Raises
    ------
    InputError
        If the input of the model is neither a table, nor a sequence, nor a text, or if attributions are not finite.
    """
    named = [("" if key is None else key, part) for key, part in explanation.items()]
    first = named[0][1]
    shape = tuple(np.shape(first.values)[axis] for axis in first.output_dims)
    parts = [
        part
        for key, attributions in named
        for part in _parts(f"input {key}" if isinstance(key, int) else key, attributions, shape)
    ]
    count, outputs = len(parts[0].values), int(np.prod(shape))
    signed = np.stack([_sums(part) for part in parts])  # (parts, 2, rows, outputs): of the positive and the negative
    total, total_abs = signed.sum((0, 1)), np.abs(signed).sum((0, 1))
    base = _per_row(first.base_values, count, outputs)
    stored = _per_row(first.outputs, count, outputs)
    values = stored if stored is not None else total if base is None else base + total
    gap = None
    if stored is not None and base is not None:
        largest = np.maximum(np.abs(stored), np.abs(base)).max(1, initial=0.0)
        eps = float(np.finfo(np.float32).eps)
        gap = additivity_gap(list(np.moveaxis(signed, 1, 2)), stored, base, largest, TOLERANCE, eps)
        stored_gap = _per_row(first.gap, count, outputs)
        gap = (
            gap if stored_gap is None else np.where(np.abs(gap - stored_gap) > TOLERANCE, gap, stored_gap)
        )  # told: before rounding
    ids = _first_field(named, "row_ids")
    return Content(
        parts=parts,
        output_names=_output_names(first, shape, count),
        flat=len(shape) < 2,
        row_ids=[str(i) for i in (range(count) if ids is None else np.atleast_1d(as_texts(ids)))],
        outputs=values,
        base=base,
        total=total,
        total_abs=total_abs,
        gap=gap,
        targets=_targets(_first_field(named, "targets"), count, outputs),
        predictions=_predictions(first, count),
        converged=None if first.converged is None else np.atleast_1d(first.converged),
        **facts(first),
    )


def is_words(array: Any) -> bool:
    """Return whether all entries are strings."""
    array = np.asarray(array)
    return array.dtype.kind in "US" or (array.dtype == object and all(isinstance(word, str) for word in array.ravel()))


# ---------------------------------------------------------------------- one input
def _parts(name: str, explanation: Attributions, outputs: tuple[int, ...]) -> list[Part]:
    """Return one part for an input, or one for each channel of a grid that has many."""
    shape = np.shape(explanation.values)
    axes = shape[explanation._rows : len(shape) - len(outputs)]
    is_image = len(axes) == 3 and axes[0] != axes[2] and all(shape)
    return _images(name, explanation, axes) if is_image else [_part(name, explanation, outputs)]


def _images(name: str, explanation: Attributions, axes: tuple[int, ...]) -> list[Part]:
    """Read the channels of an image together, if they are few enough for colours; else each by itself."""
    axis, rows = channel_axis(axes), len(explanation.values) if explanation._rows else 1
    assert axis is not None
    height, width = (size for place, size in enumerate(axes) if place != axis)
    count, data = axes[axis], explanation.data if explanation.display_data is None else explanation.display_data
    names = (names_for(explanation.feature_names, count) if axis == 2 else None) or numbered("channel", count)

    def lay(array: Any) -> np.ndarray:  # (channels, rows, width, height, outputs)
        pixels = np.asarray(array).reshape(rows, *axes, -1)
        return np.moveaxis(pixels, 1 + axis, 0).swapaxes(2, 3)

    has_numbers = data is not None and np.asarray(data).dtype.kind in "biuf" and np.shape(data)[-3:] == axes
    groups = [slice(None)] if count <= COLOURS else [slice(channel, channel + 1) for channel in range(count)]
    parts = []
    for chosen in groups:
        errors = explanation._errors
        part = Part(
            name=", ".join(filter(None, (name, names[chosen.start] if count > COLOURS else ""))),
            kind="image",
            values=lay(explanation.values)[chosen].sum(0),
            data=lay(data)[chosen, ..., 0].mean(0) if has_numbers else None,
            feature_names=[str(line) for line in range(height)],
            step_labels=None,
            lengths=np.full(rows, width),
            errors=errors and errors.of(lambda array, chosen=chosen: lay(array)[chosen].sum(0)),  # type: ignore[misc]
        )
        _check_finite(part)
        parts.append(part)
    return parts


def _part(name: str, explanation: Attributions, outputs: tuple[int, ...]) -> Part:
    values, single = np.asarray(explanation.values), not explanation._rows
    values = values[None] if single else values
    axes = values.shape[1 : values.ndim - len(outputs)]
    if not values.size:
        raise InputError(f"there is nothing to report: the attributions have shape {values.shape}.")
    if len(axes) > 2:
        raise InputError(
            f"a report shows tables (rows, features), texts (rows, steps), sequences (rows, steps, features) and images (rows, "
            f"channels, height, width), each with or without outputs; {name or 'this explanation'} has values of "
            f"shape {values.shape}, {len(axes)} axes of which "
            "belong to one row of the input, or whose channels may be first or last. Sum the others first, as with images over "
            "their channels: "
            "deepshap.Explanation(values.sum(axis=...), base_values, data)."
        )
    data = explanation.data if explanation.display_data is None else explanation.display_data
    data = None if data is None else np.asarray(data)[None] if single else np.asarray(data)
    if data is not None and data.shape != values.shape[: 1 + len(axes)]:
        raise InputError(
            f"the data have shape {data.shape}, the attributions {values.shape}: give data for each attribution."
        )
    kind, names, steps = _meaning(explanation, axes, data)
    count = len(values)
    shape = (count, *axes) if len(axes) == 2 else (count, 1, *(axes or (1,))) if kind == "table" else (count, *axes, 1)
    values, data = values.reshape(*shape, -1), None if data is None else data.reshape(shape)
    lengths = shape[1] if explanation.lengths is None or kind == "table" else explanation.lengths
    lengths = np.broadcast_to(np.maximum(lengths, 1), count)
    if kind == "text":
        assert data is not None
        data = np.where(_is_padding(data, lengths), None, data.astype(object))  # type: ignore[call-overload]
    part = Part(
        name=name,
        kind=kind,
        values=values,
        data=data,
        feature_names=names,
        step_labels=None if steps is None else as_texts(steps),
        lengths=np.maximum(lengths, _last(values)),
        errors=explanation._errors and explanation._errors.of(lambda array: array.reshape(*shape, -1)),
    )
    _check_finite(part)
    return part


def _meaning(explanation: Attributions, axes: tuple[int, ...], data: np.ndarray | None) -> tuple[Kind, list[str], Any]:
    """Return the kind of the input, the names of its features and the labels of its steps."""
    names, steps = explanation.feature_names, explanation.step_labels
    if not axes:
        return "table", names_for(names, 1) or [names if isinstance(names, str) else "Feature 0"], None
    names = names_for(names, axes[-1])
    if len(axes) == 2:
        return "sequence", names or numbered("Feature", axes[1]), steps
    counted = names in (None, numbered("Step", axes[0]), numbered("Feature", axes[0]))
    if counted and data is not None and is_words(data):
        return "text", ["word"], steps
    if names == numbered("Step", axes[0]) or explanation._steps_at is not None:
        return "sequence", ["all features"], steps
    return "table", names or numbered("Feature", axes[0]), None


def _is_padding(words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return which places of texts (rows, steps, 1) hold padding: those behind the lengths, and tokens that say so."""
    behind = np.arange(words.shape[1]) >= lengths[:, None]
    return behind[..., None] | np.isin(np.char.lower(words.astype(str)), PADDING)


def _last(values: np.ndarray) -> np.ndarray:
    """Return how many steps of each row have attributions; longer references give some to steps behind the row's end."""
    reached: np.ndarray = np.any(values != 0, axis=(2, 3))
    return np.where(reached.any(1), reached.shape[1] - reached[:, ::-1].argmax(1), 0)


def _check_finite(part: Part) -> None:
    for _, values in part.blocks():
        if not np.isfinite(values).all():
            raise InputError(f"the attributions{part.name and ' to ' + part.name} hold NaN or infinity.")


def _sums(part: Part) -> np.ndarray:
    """Sum the positive and the negative attributions, (2, rows, outputs)."""
    blocks = [np.stack([v.clip(min=0).sum((1, 2)), v.clip(max=0).sum((1, 2))]) for _, v in part.blocks()]
    return np.concatenate(blocks, axis=1)


# ---------------------------------------------------------------------- what all inputs share
def _first_field(named: list[tuple[Any, Attributions]], attribute: str) -> Any:
    return next(
        (value for _, explanation in named if (value := getattr(explanation, attribute, None)) is not None), None
    )


def _per_row(values: Any, rows: int, outputs: int) -> np.ndarray | None:
    """Return numbers for each row and output, (rows, outputs) float64, from (rows[, outputs]), (outputs,) or a single number."""
    if values is None:
        return None
    array = np.asarray(values, np.float64)
    if array.size == rows * outputs:
        return array.reshape(rows, outputs)
    return np.broadcast_to(
        array.reshape(-1, 1) if array.size == rows and outputs == 1 else array.ravel(), (rows, outputs)
    )


def _targets(targets: Any, rows: int, outputs: int) -> np.ndarray | None:
    """Return true classes or values (rows,), or those of each of several outputs (rows, outputs)."""
    if targets is None:
        return None
    array = np.asarray(targets)
    return array.reshape(rows) if array.size == rows else array.reshape(rows, outputs)


def _predictions(explanation: Attributions, rows: int) -> np.ndarray | None:
    """Return all outputs of the model (rows, classes); None if they are not known."""
    predictions = explanation.predictions
    return None if predictions is None else np.asarray(predictions, np.float64).reshape(rows, -1)


def _output_names(explanation: Attributions, shape: tuple[int, ...], rows: int) -> np.ndarray:
    names = explanation.output_names
    if not shape:
        return np.array([names if isinstance(names, str) else "output"], dtype=object)
    if names is not None and np.ndim(names) == 2 and np.shape(names) == (rows, shape[-1]) and len(shape) == 1:
        return as_texts(names)
    last = names_for(names, shape[-1]) or [f"output {i}" if len(shape) == 1 else str(i) for i in range(shape[-1])]
    first = [", ".join(map(str, index)) for index in np.ndindex(shape[:-1])]
    return np.array([f"{where} · {name}" if where else name for where in first for name in last], dtype=object)
