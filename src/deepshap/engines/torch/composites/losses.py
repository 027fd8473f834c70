"""Losses, elementwise and reduced, and cross entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....errors import UnsupportedOperationError
from .. import rules
from ..operations import primitive


def pointwise_loss(native: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Build a loss of two tensors that is elementwise, then reduced."""

    @primitive(rules.rescale())
    def pointwise(input: Tensor, target: Tensor, options: dict[str, Any]) -> Tensor:
        return native(input, target, reduction="none", **options)

    def loss(
        input: Tensor,
        target: Tensor,
        *args: Any,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
        **options: Any,
    ) -> Tensor:
        if args:
            options["weight"] = args[0]
        values = pointwise(*torch.broadcast_tensors(input, target), options)
        return _reduce_loss(values, _reduction(size_average, reduce, reduction))

    return loss


def difference_loss(native: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Build a loss that is elementwise in the difference of two tensors, then reduced."""

    @primitive(rules.rescale())
    def of_difference(difference: Tensor, options: dict[str, Any]) -> Tensor:
        return native(difference, torch.zeros_like(difference), reduction="none", **options)

    def loss(
        input: Tensor,
        target: Tensor,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
        **options: Any,
    ) -> Tensor:
        values = of_difference(torch.sub(*torch.broadcast_tensors(input, target)), options)
        return _reduce_loss(values, _reduction(size_average, reduce, reduction))

    return loss


l1_loss = difference_loss(F.l1_loss)
smooth_l1_loss = difference_loss(F.smooth_l1_loss)
huber_loss = difference_loss(F.huber_loss)


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """Return the reduction, which torch's older arguments override."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


def _reduce_loss(values: Tensor, reduction: str) -> Tensor:
    if reduction == "batchmean":
        return values.sum() / len(values)
    return values if reduction == "none" else getattr(values, reduction)()


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross entropy of logits, which is linear in their log-softmax."""
    reduction = _reduction(size_average, reduce, reduction)
    classes = 0 if input.dim() == 1 else 1
    log_probabilities = F.log_softmax(input, classes)
    if not target.is_floating_point() and not label_smoothing:
        return F.nll_loss(log_probabilities, target, weight, ignore_index=ignore_index, reduction=reduction)
    if weight is not None:
        raise UnsupportedOperationError("cross_entropy with class weights needs class indices and no label smoothing.")
    if not target.is_floating_point():
        target = F.one_hot(target, input.shape[classes]).movedim(-1, classes).to(input.dtype)
    target = target * (1 - label_smoothing) + label_smoothing / input.shape[classes]
    return _reduce_loss(-(target * log_probabilities).sum(classes), reduction)
