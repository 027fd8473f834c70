"""Inputs as people have them (tensor, array, list, tuple, dict, PackedSequence), rows first inside deepshap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..errors import InputError
from . import keras_layers


class Inputs:
    """The form of a model's inputs, learned from the background, and the background's rows."""

    def __init__(
        self,
        background: Any,
        batch_axis: int | Sequence[int],
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.device, self.dtype, self._batch_axis = device, dtype, batch_axis
        self.background: list[Tensor] = []
        if background is not None:
            self.learn(background, "background")
            self.use(background)

    def learn(self, values: Any, what: str) -> None:
        """Take over the form of some values: their names, number and axes. There is no background then."""
        self.background = []
        self.packed = isinstance(values, PackedSequence)
        self.names = list(values) if isinstance(values, Mapping) else None
        self.several = isinstance(values, (list, tuple)) and not self.packed
        count = len(values) if self.several or self.names else 1
        if count == 0:
            raise InputError(f"the {what} holds no inputs.")
        self.axes = [self._batch_axis] * count if isinstance(self._batch_axis, int) else list(self._batch_axis)
        if len(self.axes) != count:
            raise InputError(f"batch_axis names {len(self.axes)} axes for {count} inputs.")
        self.packed_lengths: Tensor | None = None

    def use(self, background: Any, what: str = "background") -> None:
        """Explain against these rows from now on."""
        self.background = [r.clone() for r in self._tensors(background, what)]
        if self.packed:
            self.packed_lengths = pad_packed_sequence(background, batch_first=True)[1]
        if len(self.background[0]) == 0:
            raise InputError(f"the {what} is empty: it needs at least one reference row.")

    # ------------------------------------------------------------------ reading
    def read(self, X: Any) -> tuple[list[Tensor], tuple[Any, ...]]:
        """Return rows-first tensors for ``X``, checked against the background, and the row arguments they imply."""
        if self.packed and self.background:
            return self._read_packed(X)
        if self.packed:
            raise InputError("a background that is a function takes tensors and arrays, no PackedSequence; pad it.")
        return self.matched(self._tensors(X, "X")), ()

    def matched(self, rows: list[Tensor]) -> list[Tensor]:
        """Rows in the dtype of the background, whose shape and kind they must have, if there is one."""
        if not self.background:
            return rows
        for position, (x, r) in enumerate(zip(rows, self.background, strict=True)):
            name = self.names[position] if self.names else f"input {position}" if self.several else "X"
            if x.shape[1:] != r.shape[1:]:
                raise InputError(
                    f"{name}: rows of X have shape {tuple(x.shape[1:])}, rows of the background {tuple(r.shape[1:])}. They "
                    "must be equal; pad sequences to one length and pass the lengths as additional_forward_args."
                )
            if x.is_floating_point() != r.is_floating_point():
                raise InputError(
                    f"{name}: rows of X have dtype {x.dtype}, rows of the background {r.dtype}. Both must be whole numbers (ids) "
                    "or both floating-point ones: convert one of them."
                )
        return [x.to(r.dtype) for x, r in zip(rows, self.background, strict=True)]

    def _read_packed(self, X: Any) -> tuple[list[Tensor], tuple[Any, ...]]:
        if not isinstance(X, PackedSequence):
            raise InputError(f"the background is a PackedSequence, X is a {type(X).__name__}; pack it too.")
        (rows,) = self._tensors(X, "X")
        lengths = pad_packed_sequence(X, batch_first=True)[1]
        longest = max(rows.shape[1], self.background[0].shape[1])
        self.background = [_pad_steps(self.background[0], longest)]
        return [_pad_steps(rows, longest)], (lengths,)

    def _tensors(self, values: Any, what: str) -> list[Tensor]:
        if self.packed:
            values = [pad_packed_sequence(values, batch_first=True)[0]]
        elif self.names is not None:
            if not isinstance(values, Mapping) or set(values) != set(self.names):
                given = list(values) if isinstance(values, Mapping) else type(values).__name__
                raise InputError(
                    f"{what} must be a dict with the keys {self.names}, as the background is; it is {given}."
                )
            values = [values[name] for name in self.names]
        elif self.several:
            if not isinstance(values, (list, tuple)) or len(values) != len(self.axes):
                raise InputError(f"{what} must be a list of {len(self.axes)} inputs, as the background is.")
        elif isinstance(values, (list, tuple, Mapping)):
            raise InputError(f"{what} is a {type(values).__name__} of inputs, the background a single one.")
        else:
            values = [values]
        tensors = [self._tensor(v, axis, what) for v, axis in zip(values, self.axes, strict=True)]
        if len({len(t) for t in tensors}) > 1:
            raise InputError(f"the inputs of {what} have different numbers of rows: {[len(t) for t in tensors]}.")
        return tensors

    def _tensor(self, value: Any, axis: int, what: str) -> Tensor:
        if hasattr(value, "to_numpy"):
            value = value.to_numpy()
        if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
            raise InputError(f"{what} has dtype {value.dtype}; it must be numeric.")
        if not isinstance(value, (np.ndarray, Tensor)):
            raise InputError(f"{what} must be a tensor or an array, not a {type(value).__name__}.")
        tensor = (torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value).detach()
        if isinstance(value, np.ndarray) and tensor.is_floating_point() and self.dtype is not None:
            tensor = tensor.to(self.dtype)  # NumPy's float64 is a habit, not a choice
        if tensor.is_complex():
            raise InputError(f"{what} is complex; pass real and imaginary parts as two inputs.")
        if tensor.dim() <= axis:
            raise InputError(f"{what} has shape {tuple(tensor.shape)}: there is no batch axis {axis}.")
        tensor = tensor.clone() if tensor.is_inference() else tensor
        tensor = tensor.movedim(axis, 0).to(self.device)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = (~torch.isfinite(tensor)).flatten(1).any(1) if tensor.dim() > 1 else ~torch.isfinite(tensor)
            first = int(bad.nonzero()[0])
            raise InputError(
                f"{what} has NaN or infinite values, first in row {first}. Fill or drop them before explaining."
            )
        return tensor

    # ------------------------------------------------------------------ row arguments
    def read_extra(self, extra: Any, rows: int) -> tuple[Any, ...]:
        """Check ``additional_forward_args``: tensors and arrays have one entry per row."""
        extra = () if extra is None else tuple(extra) if isinstance(extra, (tuple, list)) else (extra,)
        for position, value in enumerate(extra):
            if isinstance(value, (list, tuple, dict)):
                raise InputError(
                    f"additional_forward_args[{position}] is a {type(value).__name__}: give a tensor or an array with one entry "
                    "per row, each as an argument of its own, so that rows can be taken out of it."
                )
        read = tuple(torch.from_numpy(np.array(e)) if isinstance(e, np.ndarray) else e for e in extra)
        for position, value in enumerate(read):
            if isinstance(value, Tensor) and value.dim() and len(value) != rows:
                raise InputError(
                    f"additional_forward_args[{position}] has {len(value)} entries along axis 0 for {rows} rows of X. A tensor "
                    "there describes the rows; bind one that does not into the model (functools.partial or a lambda)."
                )
        return read

    @staticmethod
    def rows_of(extra: Sequence[Any], rows: Any) -> tuple[Any, ...]:
        """Select rows of the row arguments."""
        return tuple(e[rows] if isinstance(e, Tensor) and e.dim() else e for e in extra)

    @staticmethod
    def repeat_rows(extra: Sequence[Any], times: int) -> tuple[Any, ...]:
        """Repeat each row's arguments for all its references."""
        return tuple(e.repeat_interleave(times, 0) if isinstance(e, Tensor) and e.dim() else e for e in extra)

    # ------------------------------------------------------------------ calling
    def call(self, model: Callable[..., Any], rows: Sequence[Tensor], extra: Sequence[Any]) -> Any:
        """Call the model with the rows in the form its user gives them."""
        if self.packed:
            lengths, *extra = extra
            packed = pack_padded_sequence(rows[0], lengths.cpu(), batch_first=True, enforce_sorted=False)
            return model(packed, *extra)
        given = [x if axis == 0 else x.movedim(0, axis) for x, axis in zip(rows, self.axes, strict=True)]
        named = None if self.names is None else dict(zip(self.names, given, strict=True))
        if keras_layers.is_keras(model):
            return keras_layers.call(model, given, named, extra)
        return model(*given, *extra) if named is None else model(*extra, **named)

    def restore(self, values: list[np.ndarray]) -> Any:
        """Give per-input results the form of the inputs: batch axis back in its place, list or dict."""
        placed = [np.moveaxis(v, 0, axis) if axis else v for v, axis in zip(values, self.axes, strict=True)]
        if self.names is not None:
            return dict(zip(self.names, placed, strict=True))
        return placed if self.several else placed[0]


def _pad_steps(rows: Tensor, steps: int) -> Tensor:
    missing = steps - rows.shape[1]
    return torch.cat([rows, rows.new_zeros(len(rows), missing, *rows.shape[2:])], 1) if missing else rows


def take_output(result: Any, output: Any) -> Tensor:
    """Take the explained tensor out of what a model returned."""
    if callable(output):
        result = output(result)
    elif output is not None:
        for key in output if isinstance(output, tuple) else (output,):
            try:
                result = result[key]
            except (KeyError, IndexError, TypeError):
                raise InputError(
                    f"output={output!r} is not among what the model returns: {_outline(result)}."
                ) from None
    if isinstance(result, (tuple, list)) and len(result) == 1:
        (result,) = result
    if not isinstance(result, Tensor):
        raise InputError(
            f"the model returns {_outline(result)}. Say with output= which tensor to explain: an index, a key, a tuple of them "
            "for nested results, or a function."
        )
    return result


def _outline(result: Any) -> str:
    if isinstance(result, Tensor):
        return f"a tensor {tuple(result.shape)}"
    if isinstance(result, Mapping):
        return "{" + ", ".join(f"{key!r}: {_outline(value)}" for key, value in result.items()) + "}"
    if isinstance(result, (tuple, list)):
        return "(" + ", ".join(f"{position}: {_outline(value)}" for position, value in enumerate(result)) + ")"
    return type(result).__name__
