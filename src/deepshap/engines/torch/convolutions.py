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

from . import kernel_dispatch
from .autograd import applied, for_several, several_at_once
from .calls import Call

FEW_CHANNELS = 4  # of which oneDNN's vectors would be mostly empty
WIDEST = 4  # so many times as many columns as channels may be laid out
BLOCK = 2**18  # numbers laid out at a time, to stay in the cache
# What follows input and weight in conv1d, conv_transpose1d and aten's convolution.
_ARGUMENTS = (
    ("bias", "stride", "padding", "dilation", "groups"),
    ("bias", "stride", "padding", "output_padding", "groups", "dilation"),
    ("bias", "stride", "padding", "dilation", "transposed", "output_padding", "groups"),
)
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
    return dict(zip(_ARGUMENTS[0], rest, strict=False))


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


def by_windows(call: Call) -> Callable[..., Tensor] | None:
    """Return a grouped convolution as a product of windows and weights, or None where the weights do not vary.

    The groups may be rows: dynamic convolutions join them with the channels. Their number then differs between the two sides,
    and the pairs of both cannot run as one convolution.
    """
    names = ("input", "weight", *_ARGUMENTS[call.name.startswith("conv_transpose") + 2 * (call.name == "convolution")])
    options = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
    weight = options["weight"]
    if options.get("groups", 1) == 1 or not isinstance(weight, Tensor) or not weight.requires_grad:
        return None
    transposed = options.pop("transposed", call.name.startswith("conv_transpose"))
    if not transposed:
        options.pop("output_padding", None)
    function = _transposed_windows if transposed else _windows
    return lambda *args, **kwargs: function(**{**dict(zip(names, args, strict=False)), **kwargs, **_known(options)})


def _known(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in ("input", "weight", "bias")}


def _windows(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    axes = weight.dim() - 2
    kernel, stride, dilation = weight.shape[2:], _of_axes(stride, axes), _of_axes(dilation, axes)
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if isinstance(padding, str):
        both = [(s // 2, s - s // 2) if padding == "same" else (0, 0) for s in spans]
    else:
        both = [(p, p) for p in _of_axes(padding, axes)]
    x = F.pad(input, [p for pair in reversed(both) for p in pair])
    for axis in range(axes):
        x = x.unfold(2 + axis, spans[axis] + 1, stride[axis])[..., :: dilation[axis]]
    out, inner = "xyz"[:axes], "uvw"[:axes]
    equation = f"ngi{out}{inner},goi{inner}->ngo{out}"
    y = torch.einsum(equation, x.unflatten(1, (groups, -1)), weight.unflatten(0, (groups, -1))).flatten(1, 2)
    return y if bias is None else y + bias.reshape(-1, *[1] * axes)


def _transposed_windows(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """As the convolution of the input with zeros between its entries, with the weights reversed."""
    axes = weight.dim() - 2
    given = [_of_axes(v, axes) for v in (stride, padding, output_padding, dilation)]
    x, widths = input, []
    for axis, (s, p, beyond, d) in enumerate(zip(*given, strict=True)):
        length, reach = x.shape[2 + axis], d * (weight.shape[2 + axis] - 1) - p
        spread = F.pad(x.unsqueeze(3 + axis), [0, 0] * (axes - axis - 1) + [0, s - 1])
        x = spread.flatten(2 + axis, 3 + axis).narrow(2 + axis, 0, (length - 1) * s + 1)
        widths.append((reach, reach + beyond))
    x = F.pad(x, [w for pair in reversed(widths) for w in pair])
    spatial = tuple(range(3, 3 + axes))
    turned = weight.unflatten(0, (groups, -1)).transpose(1, 2).flip(spatial).flatten(0, 1)
    return _windows(x, turned, bias, dilation=dilation, groups=groups)


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
        if not kernel_dispatch.folded(seen, found[part], (of.stride, of.padding, of.dilation)):
            found[part] = F.fold(columns, of.sizes, of.kernel, of.dilation, of.padding, of.stride)
    return found.squeeze(2) if line else found
