"""Norms, distances and normalizations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....errors import UnsupportedOperationError
from .. import rules
from .._compat import interception_off
from ..operations import primitive
from .arithmetic import squared
from .reductions import amax, amin, axes_of
from .selection import where

# For lower precisions some devices compute with more digits than they return.
IN_ONE_CALL = torch.float32, torch.float64


@primitive(rules.ratio, broadcastable=True)
def divide_by_norm(a: Tensor, norm: Tensor) -> Tensor:
    """Divide vectors by their norms."""
    return a / norm


def std(*args: Any, **kwargs: Any) -> Tensor:
    """Return the square root of the variance."""
    return torch.sqrt(torch.var(*args, **kwargs))


def std_mean(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Return standard deviation and mean."""
    variance, mean = torch.var_mean(*args, **kwargs)
    return torch.sqrt(variance), mean


def vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: None = None
) -> Tensor:
    """Return the p-norm, for any p."""
    x = x if dtype is None else x.to(dtype)
    dims, ord = axes_of(x, dim), float(ord)
    if ord == 2:
        return torch.sqrt(squared(x).sum(dims, keepdim))
    if ord == 1:
        return x.abs().sum(dims, keepdim)
    if math.isinf(ord):
        return (amax if ord > 0 else amin)(x.abs(), dims, keepdim)
    if ord == 0:
        return (x != 0).to(x.real.dtype).sum(dims, keepdim)
    return x.abs().pow(ord).sum(dims, keepdim).pow(1 / ord)


def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor:
    """Return a vector norm or the Frobenius norm, for ``torch.norm`` and ``torch.linalg.norm``."""
    p = kwargs.pop("ord", p)
    if p in (None, "fro"):
        p = 2
    elif isinstance(p, str) or (not isinstance(dim, int) and len(axes_of(input, dim)) == 2 and p != 2):
        raise UnsupportedOperationError(f"norm of order {p!r} over {dim}: only vector and Frobenius norms have a rule")
    return vector_norm(input, p, dim, keepdim, **kwargs)


def matrix_norm(
    input: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None, out: None = None
) -> Tensor:
    """Return the Frobenius norm."""
    return norm(input, ord if ord == "fro" else str(ord), dim, keepdim, dtype=dtype)


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
    """Return the input divided by its norm."""
    return divide_by_norm(input, vector_norm(input, p, dim, True).clamp_min(eps))


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Return the inner product of the two directions."""
    x1, x2 = torch.broadcast_tensors(x1, x2)
    return (normalize(x1, 2, dim, eps) * normalize(x2, 2, dim, eps)).sum(dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """Return the norm of the difference."""
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, *_: Any, **__: Any) -> Tensor:
    """Return all distances between two sets of vectors."""
    return vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """Return the norm of the difference of two tensors."""
    return vector_norm(input - other, p)


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Scale down the slices whose norm exceeds the bound."""
    dims = tuple(d for d in range(input.dim()) if d != dim % input.dim())
    size = vector_norm(input, p, dims, True)
    return input * where(size > maxnorm, maxnorm / (size + 1e-7), torch.ones_like(size))


@primitive(rules.standardize, keeps_memory=True, broadcastable=True)
def standardize_last(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, centred: bool) -> Any:
    """Divide by the root mean square over the last axis, after centring if ``centred``.

    For the rule it also returns the values before weight and bias, and the divisor.
    """
    if centred and x.dtype in IN_ONE_CALL:
        y, _, inverse = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        return _affine(y, weight, bias), (y, inverse.reciprocal())
    x = x - x.mean(-1, keepdim=True) if centred else x
    size = torch.sqrt(x.square().mean(-1, keepdim=True) + eps)
    y = x / size
    return _affine(y, weight, bias), (y, size)


def _standardize(
    input: Tensor, axes: int, eps: float, weight: Tensor | None = None, bias: Tensor | None = None, centred: bool = True
) -> Tensor:
    """Standardize over the last axes, with weight and bias of their shape."""
    flat, parameters = input, [weight, bias]
    if axes > 1:
        flat, parameters = input.flatten(-axes), [None if p is None else p.flatten() for p in parameters]
    with interception_off():  # a question about the graph, not part of the model
        varying = any(p is not None and p.grad_fn is not None for p in parameters)
    if varying:
        y = _affine(standardize_last(flat, None, None, eps, centred), *parameters)
    else:
        y = standardize_last(flat, *parameters, eps, centred)
    return y.unflatten(-1, input.shape[-axes:]) if axes > 1 else y


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _per_channel(parameter: Any, like: Tensor) -> Any:
    return None if parameter is None else parameter.reshape(1, -1, *[1] * (like.dim() - 2))


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    """Subtract the mean of the last axes and divide by their standard deviation."""
    return _standardize(input, len(normalized_shape), eps, weight, bias)


def native_layer_norm(input: Tensor, normalized_shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    """Return layer_norm with its statistics."""
    dims = tuple(range(-len(normalized_shape), 0))
    variance, mean = torch.var_mean(input, dims, correction=0, keepdim=True)
    return layer_norm(input, normalized_shape, weight, bias, eps), mean, torch.rsqrt(variance + eps)


def rms_norm(input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    """Divide by the root mean square of the last axes."""
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    return _standardize(input, len(normalized_shape), eps, weight, centred=False)


def group_norm(
    input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    """Standardize over groups of channels."""
    x = _standardize(input.unflatten(1, (num_groups, -1)).flatten(2), 1, eps).reshape(input.shape)
    return _affine(x, _per_channel(weight, input), _per_channel(bias, input))


def instance_norm(
    input: Tensor,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Standardize over the spatial axes, for each row and channel."""
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    x = _standardize(input, input.dim() - 2, eps)
    return _affine(x, _per_channel(weight, input), _per_channel(bias, input))


def batch_norm(
    input: Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Apply the running statistics, an affine function; or those of the batch, if the model uses them."""
    if training or running_mean is None:
        x = _standardize(input.transpose(0, 1), input.dim() - 1, eps).transpose(0, 1)
        return _affine(x, _per_channel(weight, input), _per_channel(bias, input))
    mean, scale = _per_channel(running_mean, input), _per_channel(torch.rsqrt(running_var + eps), input)
    x = _affine(input - mean, scale, None)
    return _affine(x, _per_channel(weight, input), _per_channel(bias, input))


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Divide the input by a power of the mean square of neighbouring channels."""
    flat = input.square().flatten(2).unsqueeze(1)
    padded = F.pad(flat, (0, 0, size // 2, (size - 1) // 2))
    mean = F.avg_pool2d(padded, (size, 1), stride=1).squeeze(1).reshape(input.shape)
    return input / (mean * alpha + k).pow(beta)


def lp_pool(spatial: int) -> Callable[..., Tensor]:
    """Build the power-average pooling as torch defines it; the power must be even or the input positive."""

    def pool(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
        average = getattr(F, f"avg_pool{spatial}d")
        count = kernel_size**spatial if isinstance(kernel_size, int) else math.prod(kernel_size)
        mean = average(input.pow(norm_type), kernel_size, stride, 0, ceil_mode)
        return (torch.sign(mean) * torch.relu(torch.abs(mean))).mul(count).pow(1.0 / norm_type)

    return pool
