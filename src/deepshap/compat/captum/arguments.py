"""captum's forms of inputs, baselines, targets and functions, read and checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from inspect import signature
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError, of_user


class NoDistribution(InputError, AssertionError):
    """Baselines that are no distribution, for which captum's users catch an AssertionError."""


def read_inputs(inputs: Any) -> tuple[Tensor, ...]:
    """Return a tensor, or a tuple of them, as a tuple of tensors with the same number of rows."""
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    if not tensors or not all(isinstance(x, Tensor) and x.dim() for x in tensors):
        raise InputError(
            f"inputs must be a tensor with one row per example, or a tuple of such tensors, not {_outline(inputs)}. "
            "torch.as_tensor makes one of an array, tuple(...) makes a tuple of a list."
        )
    if len({len(x) for x in tensors}) > 1:
        raise InputError(f"the inputs have different numbers of rows: {[len(x) for x in tensors]}.")
    return tuple(x.detach() for x in tensors)


# ---------------------------------------------------------------------- baselines
def one_for_each(inputs: tuple[Tensor, ...], baselines: Any) -> list[Tensor]:
    """Return a baseline for every row: zeros for None, else numbers, one row for all, or a row for each."""
    read = _read(inputs, 0 if baselines is None else baselines)
    for x, r in zip(inputs, read, strict=True):
        if len(r) not in (1, len(x)):
            raise InputError(
                f"{len(r)} baselines for {len(x)} rows: DeepLift takes one for all rows, or one for each. For a distribution of "
                "baselines, which every row is compared with, take DeepLiftShap."
            )
    return [r.expand(len(x), *r.shape[1:]) for x, r in zip(inputs, read, strict=True)]


def distribution(inputs: tuple[Tensor, ...], baselines: Any, form: Any) -> list[Tensor]:
    """Return the baselines that every row is compared with: tensors, or a function (of the inputs) that returns them."""
    if callable(baselines):
        with of_user("the function that returns the baselines"):
            copies = tuple(x.clone() for x in form) if isinstance(form, tuple) else form.clone()  # to be written to
            baselines = baselines(copies) if signature(baselines).parameters else baselines()
    parts = baselines if isinstance(baselines, tuple) else (baselines,)
    if not all(isinstance(r, Tensor) and r.dim() for r in parts):
        raise NoDistribution(
            "DeepLiftShap compares with a distribution of baselines: a tensor with one row per baseline (for several inputs a "
            f"tuple of them), or a function that returns it, not {_outline(baselines)}. For a single one take DeepLift."
        )
    return _read(inputs, baselines)


def _read(inputs: tuple[Tensor, ...], baselines: Any) -> list[Tensor]:
    parts = (
        baselines
        if isinstance(baselines, tuple)
        else (baselines,) * (1 if isinstance(baselines, Tensor) else len(inputs))
    )
    if len(parts) != len(inputs):
        raise InputError(f"{len(parts)} baselines for {len(inputs)} inputs: give a tuple with one for each input.")
    return [_baseline(x, r) for x, r in zip(inputs, parts, strict=True)]


def _baseline(x: Tensor, baseline: Any) -> Tensor:
    """Return the baselines of one input as rows, with its dtype and device."""
    if isinstance(baseline, Real):
        exact = torch.int64 if isinstance(baseline, Integral) else torch.float64
        baseline = torch.tensor(baseline, dtype=exact)
    if not isinstance(baseline, Tensor):
        raise InputError(f"a baseline must be a number or a tensor, not {_outline(baseline)}.")
    if baseline.is_floating_point() and not x.is_floating_point() and bool((baseline != baseline.round()).any()):
        raise InputError(f"a baseline of dtype {baseline.dtype} has fractions, its input has dtype {x.dtype}.")
    rows = baseline.detach().to(x.device, x.dtype)
    if rows.dim() == 0:
        return rows.expand(1, *x.shape[1:])
    if rows.shape[1:] != x.shape[1:]:
        raise InputError(
            f"rows of the baselines have shape {tuple(rows.shape[1:])}, rows of the inputs {tuple(x.shape[1:])}: they must be "
            "equal. The first axis of either holds the rows; baseline.unsqueeze(0) adds it."
        )
    return rows


# ---------------------------------------------------------------------- targets
def columns(target: Any, shape: tuple[int, ...], rows: int) -> np.ndarray:
    """Return the place of each row's target in its flattened output of the given shape, (rows, 1)."""
    if isinstance(target, Tensor):
        target = target.reshape(()).item() if target.numel() == 1 else target.tolist()
    targets = target if isinstance(target, list) else [() if target is None else target] * rows
    if len(targets) != rows:
        raise InputError(
            f"{len(targets)} targets for {rows} rows: give one target for all rows, or a list with one for each."
        )
    return np.array([[_column(row_target, shape)] for row_target in targets])


def _column(target: Any, shape: tuple[int, ...]) -> int:
    index = target if isinstance(target, tuple) else (target,)
    if not all(isinstance(i, Integral) for i in index):
        raise InputError(
            f"a target must be an integer, or a tuple of integers, one for each axis of the output, not {target!r}. Different "
            "targets for the rows go in a list, or in a tensor of integers with one axis."
        )
    if len(index) > len(shape) or math.prod(shape[len(index) :]) != 1:
        raise InputError(
            f"{f'the target {target!r}' if index else 'no target'} does not choose a single value of a row's output, which has "
            f"the shape {shape}: the target must have {len(shape)} {'index' if len(shape) == 1 else 'indices'}."
        )
    if not all(-size <= i < size for i, size in zip(index, shape, strict=False)):
        raise InputError(f"the target {target!r} is not in the output, whose rows have shape {shape}.")
    index = tuple(int(i) % size for i, size in zip(index, shape, strict=False)) + (0,) * (len(shape) - len(index))
    return int(np.ravel_multi_index(index, shape)) if shape else 0


# ---------------------------------------------------------------------- the user's attribution function
def custom(function: Callable[..., Any], axes: Sequence[int], *sides: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Call ``function(multipliers, inputs, baselines)`` with as many of these as it takes; ``axes`` hold the rows."""
    count = len(signature(function).parameters)
    if not 1 <= count <= len(sides):
        raise InputError(
            "custom_attribution_func must take (multipliers), (multipliers, inputs) or (multipliers, inputs, baselines), tuples "
            f"of tensors; it takes {count} arguments."
        )
    with of_user("custom_attribution_func"):
        result = function(*(tuple(side) for side in sides[:count]))
    rows = [m.shape[axis] for m, axis in zip(sides[0], axes, strict=True)]
    attributions = result if isinstance(result, tuple) else ()
    if len(attributions) != len(rows) or any(
        _size(a, axis) != n for a, axis, n in zip(attributions, axes, rows, strict=True)
    ):
        raise InputError(
            f"custom_attribution_func must return a tuple of tensors, one for each of its multipliers, with {rows[0]} rows as "
            f"they have; it returned {_outline(result)}."
        )
    return tuple(a.detach() for a in attributions)


def _size(value: Any, axis: int) -> int | None:
    return value.shape[axis] if isinstance(value, Tensor) and value.dim() > axis else None


def _outline(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} ({', '.join(map(_outline, value))})"
    return f"a {type(value).__name__}"


class Attribution:
    """Holds the explained model as ``forward_func`` and, for layers and neurons, the ``layer``."""

    def __init__(self, forward_func: Callable[..., Any], layer: Any = None, device_ids: Any = None) -> None:
        self.forward_func, self.layer, self.device_ids = forward_func, layer, device_ids

    @classmethod
    def get_name(cls) -> str:
        """Return the class's name in words."""
        return "".join(letter if letter.islower() else f" {letter}" for letter in cls.__name__).strip()


class GradientAttribution(Attribution):
    """Explains the model's inputs."""


class LayerAttribution(Attribution):
    """Explains a layer's values."""


class NeuronAttribution(Attribution):
    """Explains a neuron by the model's inputs."""

    def has_convergence_delta(self) -> bool:
        """Return False: there is no ``compute_convergence_delta``."""
        return False


if not TYPE_CHECKING:
    with suppress(ImportError):
        from captum.attr import GradientAttribution, LayerAttribution, NeuronAttribution

__all__ = ["GradientAttribution", "LayerAttribution", "NeuronAttribution"]
