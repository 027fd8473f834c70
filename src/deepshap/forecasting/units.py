"""From the numbers of a model to the units of its data: transforms of libraries as functions that can be explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from ..errors import InputError

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
        What it has been fitted to, in one step, or the last known steps that it goes on from.
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
