"""Operations whose aten signature differs from that of ``torch.nn.functional``.

An exported program calls ``torch.ops.aten``, and so does ``torch.batch_norm``. Their arguments come in the order of the schema,
reductions and modes are numbers, and poolings always return their indices. Each function here has the signature of one schema
and calls the operation under its usual signature. ``names.ATEN`` lists them; the table has them as ``aten.NAME``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import arithmetic, losses, norms, reductions, selection

_REDUCTIONS = "none", "mean", "sum"
_INTERPOLATIONS, _PADDINGS = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")


def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Return the batch norm, arguments in aten's order."""
    return norms.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Return the instance norm, arguments in aten's order."""
    return norms.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def native_batch_norm(input: Tensor, weight: Any, bias: Any, *rest: Any) -> tuple[Tensor, ...]:
    """Return the batch norm and its statistics, which are empty if the running statistics are used."""
    statistics, (training, momentum, eps) = (rest[:2] or (None, None)) if len(rest) == 5 else (None, None), rest[-3:]
    y = norms.batch_norm(input, *statistics, weight, bias, training, momentum, eps)
    if not training:
        return y, input.new_zeros(0), input.new_zeros(0)
    axes = (0, *range(2, input.dim()))
    variance, mean = torch.var_mean(input, axes, correction=0)
    return y, mean, torch.rsqrt(variance + eps)


def batch_norm_without_training(
    input: Tensor, weight: Any, bias: Any, running_mean: Tensor, running_var: Tensor, momentum: float, eps: float
) -> tuple[Tensor, ...]:
    """Return the batch norm of an evaluated model, with two empty statistics."""
    return native_batch_norm(input, weight, bias, running_mean, running_var, False, momentum, eps)


def native_group_norm(
    input: Tensor, weight: Any, bias: Any, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the group norm, its means and inverse standard deviations."""
    variance, mean = torch.var_mean(input.reshape(N, group, -1), -1, correction=0)
    return norms.group_norm(input, group, weight, bias, eps), mean, torch.rsqrt(variance + eps)


def max_pool_with_indices(axes: int, adaptive: bool = False) -> Callable[..., tuple[Tensor, Tensor]]:
    """Build a max pooling that always returns its indices."""
    pool = reductions.max_pool(axes, adaptive)

    def pool_with_indices(input: Tensor, *args: Any, return_indices: bool = True, **kwargs: Any) -> Any:
        return pool(input, *args, return_indices=True, **kwargs)

    return pool_with_indices


def pointwise_loss(loss: Callable[..., Tensor], *names: str) -> Callable[..., Tensor]:
    """Build a loss whose arguments after the target have these names, the reduction among them."""

    def run(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        options = {**dict(zip(names, args, strict=False)), **kwargs}
        return loss(input, target, **{**options, "reduction": _REDUCTIONS[options.get("reduction", 1)]})

    return run


def cross_entropy_loss(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    reduction: int = 1,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross entropy; the reduction is a number."""
    return losses.cross_entropy(
        input,
        target,
        weight,
        ignore_index=ignore_index,
        reduction=_REDUCTIONS[reduction],
        label_smoothing=label_smoothing,
    )


def nll_loss(input: Tensor, target: Tensor, weight: Any = None, reduction: int = 1, ignore_index: int = -100) -> Tensor:
    """Return the negative log likelihood; the reduction is a number."""
    return F.nll_loss(input, target, weight, ignore_index=ignore_index, reduction=_REDUCTIONS[reduction])


def nll_loss_forward(
    input: Tensor, target: Tensor, weight: Any, reduction: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Return the loss and the sum of the weights that it was divided by."""
    included = target != ignore_index
    weights = (
        included.to(input.dtype) if weight is None else torch.where(included, weight[target.where(included, 0)], 0)
    )
    total = weights.sum() if reduction == 1 else input.new_zeros(())
    return nll_loss(input, target, weight, reduction, ignore_index), total


def grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """Return a sampled grid; modes are numbers."""
    mode, padding = _INTERPOLATIONS[interpolation_mode], _PADDINGS[padding_mode]
    return selection.grid_sample(input, grid, mode, padding, align_corners)


def trilinear(
    i1: Tensor,
    i2: Tensor,
    i3: Tensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Tensor:
    """Return the product of three tensors, each expanded along new axes, summed over some axes."""
    operands = []
    for operand, axes in ((i1, expand1), (i2, expand2), (i3, expand3)):
        for axis in sorted(axes):
            operand = operand.unsqueeze(axis)
        operands.append(operand)
    product = operands[0] * operands[1] * operands[2]
    return product.sum(tuple(sumdim)) if sumdim else product


def rrelu_with_noise(
    input: Tensor, noise: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *_: Any
) -> Tensor:
    """Return the evaluated randomized ReLU, which ignores the noise."""
    return arithmetic.rrelu(input, lower, upper, training)


def rrelu_with_noise_functional(input: Tensor, noise: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Return the evaluated randomized ReLU and the noise."""
    return rrelu_with_noise(input, noise, *args, **kwargs), noise


def log_sigmoid_forward(input: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-sigmoid and an empty buffer."""
    return F.logsigmoid(input), input.new_zeros(0)


def cdist_forward(x1: Tensor, x2: Tensor, p: float = 2.0, *_: Any) -> Tensor:
    """Return all distances."""
    return norms.cdist(x1, x2, p)


def fused_rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Any, eps: float | None
) -> tuple[Tensor, Tensor]:
    """Return the RMS norm and the inverse root mean square."""
    axes = tuple(range(-len(normalized_shape), 0))
    mean = input.square().mean(axes, keepdim=True) + (torch.finfo(input.dtype).eps if eps is None else eps)
    return norms.rms_norm(input, normalized_shape, weight, eps), torch.rsqrt(mean)


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """Return the normalized weights and their norms."""
    size = norms.vector_norm(v, 2, tuple(d for d in range(v.dim()) if d != dim % v.dim()), True)
    return v * (g / size), size


def pdist_forward(input: Tensor, p: float = 2.0) -> Tensor:
    """Return the distances between all rows of a matrix."""
    rows, columns = torch.triu_indices(len(input), len(input), 1)
    return norms.vector_norm(input[rows] - input[columns], p, -1)


_WEIGHTED = ("weight", "reduction")
OPERATIONS: dict[str, Callable[..., Any]] = {
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "native_batch_norm": native_batch_norm,
    "_native_batch_norm_legit": native_batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm_without_training,
    "native_group_norm": native_group_norm,
    "_fused_rms_norm": fused_rms_norm,
    "_weight_norm_interface": weight_norm,
    **{f"max_pool{n}d_with_indices": max_pool_with_indices(n) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": max_pool_with_indices(n, adaptive=True) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d_with_indices": max_pool_with_indices(n, adaptive=True) for n in (1, 2, 3)},
    "binary_cross_entropy": pointwise_loss(losses.pointwise_loss(F.binary_cross_entropy), *_WEIGHTED),
    "binary_cross_entropy_with_logits": pointwise_loss(
        losses.pointwise_loss(F.binary_cross_entropy_with_logits), "weight", "pos_weight", "reduction"
    ),
    "kl_div": pointwise_loss(losses.pointwise_loss(F.kl_div), "reduction"),
    "soft_margin_loss": pointwise_loss(losses.pointwise_loss(F.soft_margin_loss), "reduction"),
    "l1_loss": pointwise_loss(losses.l1_loss, "reduction"),
    "smooth_l1_loss": pointwise_loss(losses.smooth_l1_loss, "reduction", "beta"),
    "huber_loss": pointwise_loss(losses.huber_loss, "reduction", "delta"),
    "cross_entropy_loss": cross_entropy_loss,
    "nll_loss": nll_loss,
    "nll_loss_nd": nll_loss,
    "nll_loss2d": nll_loss,
    "nll_loss_forward": nll_loss_forward,
    "nll_loss2d_forward": nll_loss_forward,
    "grid_sampler": grid_sampler,
    "grid_sampler_2d": grid_sampler,
    "grid_sampler_3d": grid_sampler,
    "_trilinear": trilinear,
    "copy": arithmetic.aten_copy,
    "rrelu_with_noise": rrelu_with_noise,
    "rrelu_with_noise_functional": rrelu_with_noise_functional,
    "log_sigmoid_forward": log_sigmoid_forward,
    "_cdist_forward": cdist_forward,
    "_euclidean_dist": cdist_forward,
    "_pdist_forward": pdist_forward,
}
