"""Concatenate the rows of several explanations, with all fields.

Arrays with an axis of rows are joined along it. Everything else (names, background, players) must be equal in all explanations.
Sequences are padded to the longest one if their lengths are known, and step labels that differ become labels of each row.
Replicates are expanded to the same number, which leaves all standard errors unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from slicer import Alias, Obj

from ..errors import InputError
from ._compat import tracked_arrays
from .core import Attributions
from .fields import FACTS
from .joint import JointAttributions
from .uncertainty import spread_over

NO_LABEL = {"M": "NaT", "m": "NaT", "f": np.nan, "i": -1, "U": ""}
BETWEEN = "; "  # sentences of a method's description
UNIFORM = (*FACTS[:-3], "output_dims")


def concat_explanations(parts: Sequence[Any]) -> Any:
    """Return the rows of several explanations below each other; see ``Explanation.concat``."""
    if not parts:
        raise InputError("concat needs at least one explanation.")
    kinds = {type(part) for part in parts}
    if len(kinds) > 1 or not isinstance(parts[0], Attributions):
        raise InputError(
            f"concat puts explanations of one kind together, not {sorted(kind.__name__ for kind in kinds)}."
        )
    if not isinstance(parts[0], JointAttributions):
        return _join_rows(parts)
    keys = parts[0].keys()
    if any(part.keys() != keys for part in parts):
        raise InputError(f"concat: the inputs differ, {' and '.join(str(part.keys()) for part in parts)}.")
    result = copy.copy(parts[0])
    joined = {key: _join_rows([part[key] for part in parts]) for key in keys}
    result.parts = joined if isinstance(result.parts, dict) else list(joined.values())
    result.compute_time = _seconds(parts)
    return result


def _join_rows(parts: Sequence[Attributions]) -> Attributions:
    parts = _pad_to_longest(parts)
    shapes = [np.shape(part.values) for part in parts]
    if not all(part._rows for part in parts):
        raise InputError("concat needs an axis of rows: of a single one take explanation[[0]], not explanation[0].")
    if len({shape[1:] for shape in shapes}) > 1:
        raise InputError(f"concat needs rows of one shape, not values of shape {' and '.join(map(str, shapes))}.")
    for name in UNIFORM:
        _check_same(name, [getattr(part, name) for part in parts])
    parts = _equalize_replicates(parts)
    tracked = [tracked_arrays(part._s) for part in parts]
    names = dict.fromkeys(name for arrays in tracked for name in arrays)
    result = copy.copy(parts[0])
    valid = [part._valid for part in parts]
    joined = {
        name: _join_arrays(name, [arrays.get(name, Obj(None)) for arrays in tracked], shapes, valid) for name in names
    }
    result._track(**joined)
    result.compute_time = _seconds(parts)
    methods = [text for part in parts if part.method is not None for text in part.method.split(BETWEEN)]
    result.method = BETWEEN.join(dict.fromkeys(methods)) or None
    result.reliability = " ".join(dict.fromkeys(p.reliability for p in parts if p.reliability is not None)) or None
    return result


def _pad_to_longest(parts: Sequence[Attributions]) -> Sequence[Attributions]:
    """Pad sequences to the longest of all, if their lengths are known."""
    steps = [part._steps for part in parts]
    have_lengths = all(part._rows and part.lengths is not None for part in parts)
    are_complete = have_lengths and all(
        np.array_equal(part._s.steps, np.arange(part._steps)) for part in parts
    )  # none was cut off
    if len(set(steps)) == 1 or not are_complete:
        return parts
    return [_pad_steps(part, max(steps)) for part in parts]


def _pad_steps(part: Attributions, steps: int) -> Attributions:
    """Return a copy with that many steps; arrays are padded with zeros, labels with what stands for no label."""
    result, axis = copy.copy(part), part._steps_at
    more = steps - part._steps
    for name, tracked in tracked_arrays(part._s).items():
        if tracked.o is None or axis not in tracked.dim:
            continue
        array = np.asarray(tracked.o)
        fill: Any = NO_LABEL.get(array.dtype.kind, 0) if name == "step_labels" else "" if array.dtype.kind == "U" else 0
        widths = [(0, more if at == axis else 0) for at in tracked.dim]
        padded = np.pad(array, widths, constant_values=fill)
        result._track(**{name: type(tracked)(np.arange(steps) if name == "steps" else padded, list(tracked.dim))})
    return result


def _equalize_replicates(parts: Sequence[Attributions]) -> Sequence[Attributions]:
    """Return the parts with equally many replicates, as many as the most that one has; unchanged if one has none."""
    counts = [len(part._replicates) for part in parts]
    if len(set(counts)) == 1 or not all(counts):
        return parts
    alike = [copy.copy(part) for part in parts]
    for part in alike:
        part.replicates = spread_over(part._replicates, max(counts))
    return alike


def _join_arrays(name: str, tracked: list[Alias | Obj], shapes: list[tuple[int, ...]], valid: list[Any]) -> Alias | Obj:
    """Return one of the parallel arrays for the rows of all parts."""
    is_present = [entry.o is not None for entry in tracked]
    if not any(is_present):
        return tracked[0]
    if not all(is_present):
        raise InputError(
            f"concat: {name} is known of some of the explanations and not of others; set it in all or none."
        )
    if name == "step_labels" and not _same([entry.o for entry in tracked]):
        tracked = _labels(tracked, shapes, valid)
    _check_same(f"the axes of {name}", [(list(entry.dim), isinstance(entry, Alias)) for entry in tracked])
    first = tracked[0]
    if 0 not in first.dim:
        _check_same(name, [entry.o for entry in tracked])
        return first
    axis = list(first.dim).index(0)
    arrays = [entry.o for entry in tracked]
    joined = [item for array in arrays for item in array] if isinstance(first, Alias) else np.concatenate(arrays, axis)
    return type(first)(joined, list(first.dim))


def _labels(tracked: list[Alias | Obj], shapes: list[tuple[int, ...]], valid: list[Any]) -> list[Alias | Obj]:
    """Return labels that all rows share, (steps,), where those of the longest row hold for all; else labels of each row.

    Labels of padding, NaT and NaN hold for nobody.
    """
    if all(len(labels.dim) == 1 and 0 not in labels.dim for labels in tracked):
        is_label = [
            labels.o == labels.o if v is None else v.any(0) & (labels.o == labels.o)
            for labels, v in zip(tracked, valid, strict=True)
        ]
        longest = tracked[int(np.argmax([labels.sum() for labels in is_label]))]
        if all((labels.o == longest.o)[there].all() for labels, there in zip(tracked, is_label, strict=True)):
            return [longest] * len(tracked)
    return [_for_each_row(*row_labels) for row_labels in zip(tracked, shapes, strict=True)]


def _for_each_row(labels: Obj, shape: tuple[int, ...]) -> Obj:
    """Return labels that a single array shares, (steps,), as labels of each row."""
    if 0 in labels.dim:
        return labels
    (axis,) = labels.dim or (None,)
    wide = np.broadcast_to(labels.o, (shape[0], shape[axis]) if axis is not None else shape[:1])
    return Obj(wide, [0] if axis is None else [0, axis])


def _same(values: Sequence[Any]) -> bool:
    first = np.asarray(values[0], dtype=object)
    return all(np.array_equal(first, np.asarray(value, dtype=object)) for value in values[1:])


def _check_same(what: str, values: Sequence[Any]) -> None:
    if not _same(values):
        different = next(value for value in values if not _same([values[0], value]))
        raise InputError(f"concat: {what} must be the same in all, not {_short(values[0])} and {_short(different)}.")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _seconds(parts: Sequence[Attributions]) -> float | None:
    times = [part.compute_time for part in parts]
    return None if None in times else sum(times)
