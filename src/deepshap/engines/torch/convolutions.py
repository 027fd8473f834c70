"""Convolutions with constant weights on the CPU, with a way back of their own.

Torch's own takes pairs as they come, but it copies an input that it does not need, and of few input channels it makes no use of
vector units: half as fast as what is here for series, a third as fast for pictures of one channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from . import one_pass
from .nodes import applied, for_several, several_at_once

FEW_CHANNELS = 4  # of which oneDNN's vectors would be mostly empty
WIDEST = 4  # so many times as many columns as channels may be laid out
BLOCK = 2**18  # numbers laid out at a time, to stay in the cache
BACK = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
Back = Callable[[Tensor, Tensor], Tensor]  # weight and multipliers


class Geometry(NamedTuple):
    """Of a convolution, an entry for each axis: the input's sizes, and how the kernel passes over them."""

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def is_product(self) -> bool:
        """Whether every place of the output sees one of the input."""
        return set(self.kernel) == set(self.stride) == {1} and not any(self.padding)


class Convolution(Function):
    """A convolution, whose way back takes rows of any number."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], back: Back, x: Tensor, weight: Tensor) -> Tensor:  # noqa: D102
        ctx.back = back
        ctx.save_for_backward(weight)
        return function(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, m: Tensor) -> Any:  # noqa: D102
        (weight,) = ctx.saved_tensors
        back = partial(ctx.back, weight)

        def find(given: list[Any]) -> list[Any]:
            (rows,) = given
            return [back(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])]

        return None, None, *(for_several("a convolution", find, [m]) if several_at_once() else [back(m)]), None


def with_own_way_back(convolution: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Build ``conv1d``, ``conv2d`` or ``conv3d`` with a way back for multipliers."""

    @wraps(convolution)
    def call(input: Tensor, weight: Tensor, *rest: Any, **options: Any) -> Tensor:
        options = {**_named(rest), **options}
        if (back := _way_back(input, weight, **options)) is None:
            return convolution(input, weight, **options)
        return applied(Convolution, partial(convolution, **options), back, input, weight)

    return call


def _named(rest: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("bias", "stride", "padding", "dilation", "groups"), rest, strict=False))


def _way_back(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Back | None:
    """From multipliers of the output to those of the input; None where torch's own has to do."""
    plain = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.dim() == weight.dim()
    constant = not weight.requires_grad and (bias is None or not bias.requires_grad)
    if not plain or not constant or not x.requires_grad or isinstance(padding, str):
        return None
    kernel = tuple(weight.shape[2:])
    each = (tuple(_of_axes(v, len(kernel))) for v in (stride, padding, dilation))
    of = Geometry(tuple(x.shape[2:]), kernel, *each)
    channels, columns = weight.shape[1], math.prod(weight.shape[1:])
    if groups == 1 and of.is_product:
        return _by_product
    if groups == 1 and len(kernel) < 3 and channels <= FEW_CHANNELS and columns <= WIDEST * len(weight):
        return partial(_folded, of)
    return partial(_transposed, of, groups)


def _of_axes(value: Any, axes: int) -> tuple[int, ...]:
    given = tuple(map(int, value if isinstance(value, (list, tuple)) else (value,)))
    return given * axes if len(given) == 1 else given


def _by_product(weight: Tensor, m: Tensor) -> Tensor:
    return torch.matmul(weight.flatten(1).mT, m.flatten(2)).unflatten(2, m.shape[2:])


def _transposed(of: Geometry, groups: int, weight: Tensor, m: Tensor) -> Tensor:
    beyond = [(size + 2 * p - d * (k - 1) - 1) % s for size, k, s, p, d in zip(*of, strict=True)]
    return BACK[len(of.kernel)](m, weight, None, of.stride, of.padding, beyond, groups, of.dilation)


def _folded(of: Geometry, weight: Tensor, m: Tensor) -> Tensor:
    """Everything that a place of the output saw, added where it was seen; a series is a picture of one line."""
    if line := len(of.sizes) == 1:
        of = Geometry(*((least, *sizes) for least, sizes in zip((1, 1, 1, 0, 1), of, strict=True)))
    found, turned = m.new_zeros(len(m), weight.shape[1], *of.sizes), weight.flatten(1).mT
    at_once = max(1, BLOCK // (len(turned) * math.prod(m.shape[2:])))
    for start in range(0, len(m), at_once):
        part = slice(start, start + at_once)
        columns = (turned @ m[part].flatten(2)).contiguous()
        seen = columns.view(len(columns), weight.shape[1], *of.kernel, *([1] if line else []), *m.shape[2:])
        if not one_pass.folded(seen, found[part], (of.stride, of.padding, of.dilation)):
            found[part] = F.fold(columns, of.sizes, of.kernel, of.dilation, of.padding, of.stride)
    return found.squeeze(2) if line else found
