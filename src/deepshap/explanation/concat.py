"""Rows of several explanations put together, with all that is known of them."""

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


def concatenated(parts: Sequence[Any]) -> Any:
    """See ``Explanation.concat``."""
    if not parts:
        raise InputError("concat needs at least one explanation.")
    kinds = {type(part) for part in parts}
    if len(kinds) > 1 or not isinstance(parts[0], Attributions):
        raise InputError(
            f"concat puts explanations of one kind together, not {sorted(kind.__name__ for kind in kinds)}."
        )
    if not isinstance(parts[0], JointAttributions):
        return _rows_of(parts)
    keys = parts[0].keys()
    if any(part.keys() != keys for part in parts):
        raise InputError(f"concat: the inputs differ, {' and '.join(str(part.keys()) for part in parts)}.")
    found = copy.copy(parts[0])
    joined = {key: _rows_of([part[key] for part in parts]) for key in keys}
    found.parts = joined if isinstance(found.parts, dict) else list(joined.values())
    found.compute_time = _seconds(parts)
    return found


def _rows_of(parts: Sequence[Attributions]) -> Attributions:
    parts = _equally_long(parts)
    shapes = [np.shape(part.values) for part in parts]
    if not all(part._rows for part in parts):
        raise InputError("concat needs an axis of rows: of a single one take explanation[[0]], not explanation[0].")
    if len({shape[1:] for shape in shapes}) > 1:
        raise InputError(f"concat needs rows of one shape, not values of shape {' and '.join(map(str, shapes))}.")
    for name in UNIFORM:
        _check_same(name, [getattr(part, name) for part in parts])
    parts = _with_as_many_replicates(parts)
    tracked = [tracked_arrays(part._s) for part in parts]
    names = dict.fromkeys(name for each in tracked for name in each)
    found = copy.copy(parts[0])
    valid = [part._valid for part in parts]
    joined = {name: _joined(name, [each.get(name, Obj(None)) for each in tracked], shapes, valid) for name in names}
    found._track(**joined)
    found.compute_time = _seconds(parts)
    methods = [text for part in parts if part.method is not None for text in part.method.split(BETWEEN)]
    found.method = BETWEEN.join(dict.fromkeys(methods)) or None
    found.reliability = " ".join(dict.fromkeys(p.reliability for p in parts if p.reliability is not None)) or None
    return found


def _equally_long(parts: Sequence[Attributions]) -> Sequence[Attributions]:
    """Pad sequences to the longest of all, if their lengths are known."""
    steps = [part._steps for part in parts]
    known = all(part._rows and part.lengths is not None for part in parts)
    whole = known and all(np.array_equal(part._s.steps, np.arange(part._steps)) for part in parts)  # none was cut off
    if len(set(steps)) == 1 or not whole:
        return parts
    return [_padded(part, max(steps)) for part in parts]


def _padded(part: Attributions, steps: int) -> Attributions:
    """Return a copy with that many steps; arrays are padded with zeros, labels with what stands for no label."""
    found, axis = copy.copy(part), part._steps_at
    more = steps - part._steps
    for name, one in tracked_arrays(part._s).items():
        if one.o is None or axis not in one.dim:
            continue
        array = np.asarray(one.o)
        fill: Any = NO_LABEL.get(array.dtype.kind, 0) if name == "step_labels" else "" if array.dtype.kind == "U" else 0
        widths = [(0, more if at == axis else 0) for at in one.dim]
        padded = np.pad(array, widths, constant_values=fill)
        found._track(**{name: type(one)(np.arange(steps) if name == "steps" else padded, list(one.dim))})
    return found


def _with_as_many_replicates(parts: Sequence[Attributions]) -> Sequence[Attributions]:
    """The same parts, with as many replicates as that which has the most; where one has none, as they are."""
    counts = [len(part._replicates) for part in parts]
    if len(set(counts)) == 1 or not all(counts):
        return parts
    alike = [copy.copy(part) for part in parts]
    for part in alike:
        part.replicates = spread_over(part._replicates, max(counts))
    return alike


def _joined(name: str, ones: list[Alias | Obj], shapes: list[tuple[int, ...]], valid: list[Any]) -> Alias | Obj:
    """One of the parallel arrays, of all rows."""
    known = [one.o is not None for one in ones]
    if not any(known):
        return ones[0]
    if not all(known):
        raise InputError(
            f"concat: {name} is known of some of the explanations and not of others; set it in all or none."
        )
    if name == "step_labels" and not _same([one.o for one in ones]):
        ones = _labels(ones, shapes, valid)
    _check_same(f"the axes of {name}", [(list(one.dim), isinstance(one, Alias)) for one in ones])
    one = ones[0]
    if 0 not in one.dim:
        _check_same(name, [one.o for one in ones])
        return one
    axis = list(one.dim).index(0)
    arrays = [each.o for each in ones]
    whole = [item for array in arrays for item in array] if isinstance(one, Alias) else np.concatenate(arrays, axis)
    return type(one)(whole, list(one.dim))


def _labels(ones: list[Alias | Obj], shapes: list[tuple[int, ...]], valid: list[Any]) -> list[Alias | Obj]:
    """Return labels that all rows share, (steps,), where those of the longest row hold for all; else labels of each row.

    Labels of padding, NaT and NaN hold for nobody.
    """
    if all(len(one.dim) == 1 and 0 not in one.dim for one in ones):
        known = [
            one.o == one.o if v is None else v.any(0) & (one.o == one.o) for one, v in zip(ones, valid, strict=True)
        ]
        longest = ones[int(np.argmax([one.sum() for one in known]))]
        if all((one.o == longest.o)[there].all() for one, there in zip(ones, known, strict=True)):
            return [longest] * len(ones)
    return [_for_each_row(*each) for each in zip(ones, shapes, strict=True)]


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
        other = next(value for value in values if not _same([values[0], value]))
        raise InputError(f"concat: {what} must be the same in all, not {_short(values[0])} and {_short(other)}.")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _seconds(parts: Sequence[Attributions]) -> float | None:
    times = [part.compute_time for part in parts]
    return None if None in times else sum(times)
