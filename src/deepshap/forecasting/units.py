"""From the numbers of a model to the units of its data: transforms of libraries as functions that can be explained."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from ..errors import InputError
from ..explanation.labels import as_labels, as_texts, first_few

ROUNDINGS = 256  # units of it, of the largest number, that two ways of computing the same may differ by

Array = np.ndarray
LIKE_TORCH = {"power": "pow", "float_power": "pow"}  # NumPy's functions that torch calls otherwise


@dataclass(frozen=True)
class Step:
    """A transform of forecasts, undo_steps.

    Attributes
    ----------
    undo : callable
        Of a tensor (rows, horizons, series, parameters of the likelihood) and the tensors of ``numbers``, (rows, steps,
        series, parameters) each.
    numbers : tuple of arrays of shape (steps, series, parameters)
        What it has been fitted to, in one step, or the last known steps that it continues from.
    """

    undo: Callable[..., Any]
    numbers: tuple[Array, ...] = ()


def scaling(scale: Array, shift: Array, spreads: Array) -> Step:
    """Undo an affine scaling, ``scale`` and ``shift`` (series,).

    spreads: (parameters,) bool, which of them only stretch and are not moved.
    """
    moved = np.where(spreads, 0.0, 1.0)
    return Step(_rescaled, (np.outer(scale, np.ones_like(moved))[None], np.outer(shift, moved)[None]))


def _rescaled(y: Any, scale: Any, shift: Any) -> Any:
    return y * scale + shift


def undo_steps(y: Any, steps: Sequence[Step], numbers: Sequence[Any]) -> Any:
    """Undo transforms, the last one first; ``numbers`` are those of all steps, of each row."""
    left = list(numbers)
    for step in steps:
        here, left = left[: len(step.numbers)], left[len(step.numbers) :]
        y = step.undo(y, *here)
    return y


def numbers_of(chains: Sequence[Sequence[Step]], dtype: Any) -> tuple[Array, ...]:
    """Return the parameters of each row's fitted transforms, as arrays with one entry per row."""
    rows = [[number for step in chain for number in step.numbers] for chain in chains]
    return tuple(np.stack(values).astype(dtype) for values in zip(*rows, strict=True))


def without_inference(module: Any) -> Any:
    """Let what a module has kept from runs in inference mode, such as masks, be used where derivatives are taken."""
    for part in module.modules():
        for held in (vars(part), dict(part.named_buffers(recurse=False))):
            held.update({k: v.clone() for k, v in held.items() if getattr(v, "is_inference", bool)()})
    return module


class _OnTorch(NDArrayOperatorsMixin):
    """A tensor that NumPy's functions of elements take."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __array_ufunc__(self, function: np.ufunc, method: str, *operands: Any, **options: Any) -> Any:
        import torch

        operation = getattr(torch, LIKE_TORCH.get(function.__name__, function.__name__), None)
        if method != "__call__" or options or operation is None:
            return NotImplemented
        return _OnTorch(operation(*(o.tensor if isinstance(o, _OnTorch) else o for o in operands)))


def on_torch(function: Callable[[Any], Any], what: str) -> Callable[[Any], Any]:
    """Let a function of arrays, made of operators and NumPy's functions of elements, work on tensors.

    Raises
    ------
    InputError
        When it is called, if it is made of something else.
    """

    def of_tensor(tensor: Any) -> Any:
        try:
            result = function(_OnTorch(tensor))
        except Exception as error:
            raise InputError(
                f"{what} cannot be followed ({error}): make it of operators and NumPy functions."
            ) from error
        if not isinstance(result, _OnTorch):
            raise InputError(f"{what} cannot be followed: make it of operators and NumPy functions such as np.exp.")
        return result.tensor

    return of_tensor


def affine_of(inverse: Callable[[Array], Array], width: int) -> tuple[Array, Array] | None:
    """Return scale and shift, each (width,), of an elementwise transform of arrays (n, width); None if it is not affine.

    It is asked at 0 and 1, and believed where it is affine at other points too.
    """
    probes = np.array([0.0, 1.0, -2.0, 0.5, 7.0])
    values = np.asarray(inverse(np.repeat(probes[:, None], width, 1)), dtype=np.float64)
    shift, scale = values[0], values[1] - values[0]
    expected = probes[:, None] * scale + shift
    close = np.abs(values - expected) <= ROUNDINGS * np.finfo(np.float32).eps * (
        np.abs(expected).max(0) + np.abs(scale)
    )
    return (scale, shift) if np.isfinite(values).all() and close.all() else None


def check_same(predicted: Array, explained: Array, what: str, dtype: Any) -> None:
    """Raise unless what is explained is what the library predicts, to rounding.

    Raises
    ------
    InputError
        If it is not.
    """
    eps = float(np.finfo(dtype).eps)
    scale = np.abs(predicted).max(initial=0) + np.ptp(predicted) if predicted.size else 1.0
    off = np.abs(predicted - explained)
    if not off.max(initial=0) <= ROUNDINGS * eps * scale:
        row, output = np.unravel_index(np.argmax(off), off.shape)
        raise InputError(
            f"{what} predicts {predicted[row, output]:.9g} where its function gives {explained[row, output]:.9g} (row {row}, "
            f"output {output}): what would be explained is not what the library forecasts. A model that draws at random "
            "(dropout that is left on, samples), or a version of the library that is not known, may be the reason."
        )


WITHOUT_TIMES = "or number the rows instead, frame.reset_index(drop=True)"
MOST_LISTED = 1000


def read_times(index: Any, where: str) -> tuple[np.ndarray, Any]:
    """Return the times of an index of pandas, and its frequency as pandas knows it.

    Raises
    ------
    InputError
        If they are no times or numbers that rise strictly, or most times are equally far apart and others are missing.
    """
    times = _read(index)
    if times.ndim != 1 or times.dtype.kind not in "iufMm":
        raise InputError(
            f"{where}: the index must be of times or numbers, for rows to be neighbours, not {index[0]!r}: set it to those of "
            f"pandas.to_datetime, {WITHOUT_TIMES}."
        )
    falls = np.flatnonzero(~(times[1:] > times[:-1]))  # NaT and NaN too
    if len(falls):
        first, second = as_texts(times[falls[0] : falls[0] + 2])
        how = f"{second} is there twice" if first == second else f"{second} stands behind {first}"
        raise InputError(
            f"{where}: the index must rise from row to row, and {how}. Windows take neighbouring rows for neighbouring times: "
            "sort them, frame.sort_index(), and leave one row for each time."
        )
    return times, _frequency(times, where) if times.dtype.kind == "M" and len(times) > 2 else None


def _read(index: Any) -> np.ndarray:
    """Return times, periods by their beginnings; local times of a zone, or UTC where its clock is changed."""
    index = index.to_timestamp() if hasattr(index, "to_timestamp") else index
    if getattr(index, "tz", None) is not None:
        clock, utc = index.tz_localize(None), index.tz_convert("UTC").tz_localize(None)
        are_days = (clock - clock.normalize()).nunique() < 2
        index = clock if are_days or (clock - utc).nunique() < 2 else utc
    labels = as_labels(index, "the index")
    assert labels is not None
    return labels


def _frequency(times: np.ndarray, where: str) -> Any:
    """Return the frequency of dates, such as months or working days; None if they have none.

    Raises
    ------
    InputError
        If dates are missing where most are as far apart as the nearest ones, but for free days between working days.
    """
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions of pandas differ in what they return
        frequency = pd.infer_freq(pd.DatetimeIndex(times))
    if frequency is not None:
        return frequency
    apart = np.diff(times)
    step, gaps = apart.min(), np.flatnonzero(apart > apart.min())
    days = times.astype("M8[D]")
    if step == np.timedelta64(1, "D") and len(np.unique(times - days)) == 1 and np.is_busday(days).all():
        return "B"
    if 2 * len(gaps) >= len(apart):
        return None
    missing = np.concatenate([np.arange(times[at] + step, times[at + 1], step)[:MOST_LISTED] for at in gaps])
    raise InputError(
        f"{where}: most times are {pd.Timedelta(step)} apart, and between others some are missing: "
        f"{first_few([pd.Timestamp(time) for time in missing])}. Windows would take the rows beside a gap for neighbours: fill "
        f"it, frame.asfreq(...).interpolate() say, {WITHOUT_TIMES}."
    )
