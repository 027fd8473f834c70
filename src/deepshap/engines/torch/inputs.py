"""Inputs in the forms of PyTorch (tensor, array, list, tuple, dict, PackedSequence), with rows first inside deepshap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ...errors import InputError
from ..callables import takes_container
from ..inputs import InputForm, chosen, not_an_array, not_finite, only_tensor, readable
from . import preserve
from ._compat import interception_off


class Inputs(InputForm):
    """The form of a model's inputs; ``device`` and ``dtype`` are the model's."""

    uneven = "pad sequences to one length and pass the lengths as additional_forward_args"

    def __init__(
        self,
        values: Any,
        batch_axis: int | Sequence[int],
        what: str,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.device, self.dtype = device, dtype
        self.packed = isinstance(values, PackedSequence)
        super().__init__(None if self.packed else values, batch_axis, what)  # a tuple, but one input

    # ------------------------------------------------------------------ reading
    def implied(self, values: Any) -> tuple[Any, ...]:
        """Return the lengths of a PackedSequence."""
        return (pad_packed_sequence(values, batch_first=True)[1],) if self.packed else ()

    def aligned(
        self, rows: Sequence[Tensor], references: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Pad packed sequences to the longest of both sides."""
        if not self.packed:
            return rows, references
        longest = max(side[0].shape[1] for side in (rows, references))
        return [_pad_steps(rows[0], longest)], [_pad_steps(references[0], longest)]

    def _listed(self, values: Any, what: str) -> Sequence[Any]:
        if not self.packed:
            return super()._listed(values, what)
        if not isinstance(values, PackedSequence):
            raise InputError(f"the background is a PackedSequence, {what} is a {type(values).__name__}; pack it too.")
        return [pad_packed_sequence(values, batch_first=True)[0]]

    def _array(self, value: Any, axis: int, what: str) -> Tensor:
        if hasattr(value, "to_numpy"):
            value = value.to_numpy()
        if not isinstance(value, (np.ndarray, Tensor)):
            raise not_an_array(what, value)
        tensor = _tensor(value, what).detach()
        if isinstance(value, np.ndarray) and tensor.is_floating_point() and self.dtype is not None:
            tensor = tensor.to(self.dtype)  # NumPy's float64 is a habit, not a choice
        if tensor.is_complex():
            raise InputError(f"{what} is complex; pass real and imaginary parts as two inputs.")
        if tensor.is_floating_point() and tensor.dtype.itemsize < 2:
            raise InputError(f"{what} has dtype {tensor.dtype}, in which nothing can be computed; convert it.")
        if not -tensor.dim() <= axis < tensor.dim():
            raise InputError(f"{what} has shape {tuple(tensor.shape)}: there is no batch axis {axis}.")
        tensor = tensor.clone() if tensor.is_inference() else tensor
        tensor = tensor.movedim(axis, 0).to(self.device)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = (~torch.isfinite(tensor)).flatten(1).any(1) if tensor.dim() > 1 else ~torch.isfinite(tensor)
            raise not_finite(what, int(bad.nonzero()[0]), len(tensor), value, self.dtype)
        return tensor

    @staticmethod
    def _is_float(array: Tensor) -> bool:
        return array.is_floating_point()

    @staticmethod
    def _like(array: Tensor, like: Tensor) -> Tensor:
        return array.to(like.dtype)

    # ------------------------------------------------------------------ row arguments
    @staticmethod
    def has_rows(value: Any) -> bool:
        """Return whether a row argument has one entry per row."""
        return isinstance(value, Tensor) and value.dim() > 0

    @staticmethod
    def _argument(value: Any, what: str) -> Any:
        return _tensor(value, what, "fiubc") if isinstance(value, (np.ndarray, Tensor)) else value

    @staticmethod
    def where(condition: np.ndarray, a: Tensor, b: Tensor) -> Tensor:
        """Return elements of one tensor where a condition is true, else those of another."""
        return torch.where(torch.tensor(condition, device=a.device), a, b)

    @staticmethod
    def concatenated(arrays: Sequence[Tensor]) -> Tensor:
        """Concatenate tensors along their rows."""
        return torch.cat(list(arrays))

    # ------------------------------------------------------------------ calling
    def call(self, model: Callable[..., Any], rows: Sequence[Tensor], extra: Sequence[Any]) -> Any:
        """Call the model with the rows in the form that its user gives them."""
        if self.packed:
            lengths, *extra = extra
            packed = pack_padded_sequence(rows[0], lengths.cpu(), batch_first=True, enforce_sorted=False)
            return model(packed, *extra)
        inputs = [x if axis == 0 else x.movedim(0, axis) for x, axis in zip(rows, self.axes, strict=True)]
        named = None if self.names is None else dict(zip(self.names, inputs, strict=True))
        if preserve.is_keras(model):
            return preserve.call(model, inputs, named, extra)
        if (self.several or named is not None) and takes_container(model, named or inputs, extra):
            return model(named or inputs, *extra)
        return model(*inputs, *extra) if named is None else model(*extra, **named)


def _tensor(value: np.ndarray | Tensor, what: str, kinds: str = "fiub") -> Tensor:
    """Return an array or tensor as a dense tensor."""
    if isinstance(value, Tensor):
        return dense(value, what)
    array = readable(value, what, kinds)
    return torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "V" else array.copy())


def dense(tensor: Tensor, what: str) -> Tensor:
    """Return a tensor that has a number at each position, as all explained values must."""
    with interception_off():  # questions about the tensor, not part of the model
        _check_dense(tensor, what)
    return tensor


def _check_dense(tensor: Tensor, what: str) -> None:
    if tensor.is_nested or tensor.layout is not torch.strided:
        raise InputError(f"{what} is nested, sparse or of another layout than strided; give a dense tensor, padded.")
    if tensor.is_meta or tensor.is_quantized:
        raise InputError(
            f"{what} is {'on the meta device, without values' if tensor.is_meta else 'quantized'}; give numbers."
        )
    if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:  # masked, fake, distributed tensors
        raise InputError(
            f"{what} is a {type(tensor).__name__}, of a kind with operations of its own; give a plain tensor."
        )


def _pad_steps(rows: Tensor, steps: int) -> Tensor:
    missing = steps - rows.shape[1]
    return torch.cat([rows, rows.new_zeros(len(rows), missing, *rows.shape[2:])], 1) if missing else rows


def take_output(result: Any, output: Any) -> Tensor:
    """Return the explained tensor of a model's result."""
    return dense(only_tensor(chosen(result, output, Tensor), Tensor), "the model's output")
