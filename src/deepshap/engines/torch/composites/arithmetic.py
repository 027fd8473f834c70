"""Arithmetic and activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....errors import UnsupportedOperationError
from ....formulas import secants
from .. import rules
from .._compat import interception_off
from ..operations import linear, primitive


def quotient(a: Any, b: Any) -> Tensor:
    """Return a / b, which is linear if ``b`` is a number.

    The rule of division accepts a divisor of 0, because the model may mask the result later.
    """
    return _over_number(a, b) if isinstance(b, (int, float)) and b != 0 else _quotient(a, b)


@primitive(rules.quotient, broadcastable=True)
def _quotient(a: Any, b: Any) -> Tensor:
    return a / b


@linear
def _over_number(a: Any, b: Any) -> Tensor:
    return a / b


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """Return the quotient, rounded if ``rounding_mode`` is given."""
    exact = quotient(input, other)
    return exact if rounding_mode is None else {"floor": torch.floor, "trunc": torch.trunc}[rounding_mode](exact)


def rdiv(input: Tensor, other: Any) -> Tensor:
    """Return ``other / input``."""
    return div(other, input)


def floor_divide(input: Any, other: Any) -> Tensor:
    """Return the quotient rounded down."""
    dtype = torch.result_type(input, other)
    if dtype.is_floating_point:
        return torch.floor(quotient(input, other))
    return torch.floor(quotient(*(v.to(torch.float64) if isinstance(v, Tensor) else v for v in (input, other)))).to(
        dtype
    )


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """Return the input plus a scaled quotient."""
    return input + value * quotient(tensor1, tensor2)


@primitive(rules.rescale(), broadcastable=True)
def _absolute(x: Tensor) -> Tensor:
    return x.abs()


def absolute(input: Tensor) -> Tensor:
    """Return the absolute value, also of complex numbers."""
    return torch.sqrt(squared(input)) if input.is_complex() else _absolute(input)


def squared(input: Tensor) -> Tensor:
    """Return the squared absolute value, also of complex numbers."""
    return input.real.square() + input.imag.square() if input.is_complex() else input.square()


def angle(input: Tensor) -> Tensor:
    """Return the phase of a complex number; 0 or pi for a real one."""
    if input.is_complex():
        return torch.atan2(input.imag, input.real)
    return (input < 0).to(input.dtype) * math.pi


@primitive(rules.rescale(secants.gelu), broadcastable=True, finite_everywhere=True)
def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x)


@primitive(rules.rescale(secants.gelu_tanh), broadcastable=True, finite_everywhere=True)
def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return the input times its sigmoid; torch computes it for complex numbers, but has no derivative there."""
    return input * torch.sigmoid(input) if input.is_complex() else F.silu(input)


def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """Return the input times the normal distribution function, exactly or by its tanh approximation."""
    return _gelu(input) if approximate == "none" else _gelu_tanh(input)


def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """Replace NaN and infinite values by numbers; they must be at the same positions in example and reference."""
    with interception_off(), torch.no_grad():
        nonfinite = ~input.detach().isfinite()
        numbers = torch.nan_to_num(input.detach(), nan, posinf, neginf).masked_fill(~nonfinite, 0)
    return torch.where(nonfinite, numbers, input)


def rremainder(input: Tensor, other: Any) -> Tensor:
    """Return the remainder of ``other`` divided by ``input``."""
    return other - torch.floor(quotient(other, input)) * input


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Return the powers of x along a new last axis."""
    powers = torch.arange(len(x) if N is None else N, device=x.device)
    return x.unsqueeze(-1).pow(powers if increasing else powers.flip(0))


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """Return the square root of the sum of two squares."""
    return torch.sqrt(input.square() + other.square())


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """Return the input times a power of two."""
    return input * torch.exp2(other)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """Return the first half times the sigmoid of the second."""
    a, b = input.chunk(2, dim)
    return a * torch.sigmoid(b)


def full_like(input: Tensor, fill_value: Any, **options: Any) -> Tensor:
    """Return a tensor filled with a value, which may depend on the explained input."""
    return torch.zeros_like(input, **options) + fill_value


def new_full(input: Tensor, size: Any, fill_value: Any, **options: Any) -> Tensor:
    """Return a tensor filled with a value, which may depend on the explained input."""
    return input.new_zeros(size, **options) + fill_value


def new_tensor(input: Tensor, data: Any, **options: Any) -> Tensor:
    """Return a tensor with the data; a copy of a tensor still depends on the explained input."""
    if isinstance(data, Tensor):
        return data.clone().to(options.get("dtype", data.dtype))
    return torch.tensor(data, **{"dtype": input.dtype, "device": input.device, **options})


def new(input: Tensor, *size_or_data: Any, **options: Any) -> Tensor:
    """Return a new tensor of a size, or with data."""
    if len(size_or_data) == 1 and not isinstance(size_or_data[0], int | torch.Size):
        return new_tensor(input, *size_or_data, **options)
    return input.new_zeros(*(size_or_data or (0,)), **options)


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """Return a complex number from modulus and phase."""
    return torch.complex(abs * torch.cos(angle), abs * torch.sin(angle))


def det(input: Tensor) -> Tensor:
    """Return the determinant, a polynomial whose degree is the size of the matrix."""
    return _determinant(input)


@primitive(rules.polynomial)
def _determinant(input: Tensor) -> Tensor:
    return torch.linalg.det(input)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """Return relu(x) plus a weight per channel times the negative part."""
    weight = weight.reshape(1, -1, *[1] * (input.dim() - 2)) if weight.numel() > 1 else weight.reshape(())
    positive = torch.relu(input)
    return positive + weight * (input - positive)


def rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """Return the leaky ReLU with the mean slope; training mode is random and raises an error."""
    if training:
        raise UnsupportedOperationError("rrelu in training mode is random: put the model into eval mode.")
    return F.leaky_relu(input, (lower + upper) / 2)


def aten_copy(input: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """Return the source in the shape and dtype of the input."""
    return src.to(input.dtype).expand_as(input)


def foreach(function: Callable[..., Tensor]) -> Callable[..., list[Tensor]]:
    """Build ``torch._foreach_*`` from the function that it applies to each tensor of a list."""

    def apply_to_list(tensors: Sequence[Tensor], *others: Any, **kwargs: Any) -> list[Tensor]:
        lists = [v if isinstance(v, (list, tuple)) else [v] * len(tensors) for v in others]
        return [function(*operands, **kwargs) for operands in zip(tensors, *lists, strict=True)]

    apply_to_list.__doc__ = f"Apply ``{getattr(function, '__name__', 'copy')}`` to each tensor of a list."
    return apply_to_list


_LIST_FUNCTIONS = (
    "abs add addcdiv addcmul ceil clamp_max clamp_min cos cosh div erf erfc exp expm1 floor lerp log log10 log1p log2 "
    "maximum minimum mul neg norm pow reciprocal round sigmoid sign sin sinh sqrt sub tan tanh trunc"
)
FOREACH = {f"_foreach_{name}": foreach(getattr(torch, name)) for name in _LIST_FUNCTIONS.split()}
FOREACH["_foreach_copy"] = foreach(aten_copy)
