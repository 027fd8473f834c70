"""Softmax, log-softmax, softmin and attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....errors import UnsupportedOperationError
from .. import rules
from ..activity import surrogate_of
from ..operations import primitive


@primitive(rules.log_softmax, keeps_memory=True, broadcastable=True)
def log_softmax_last(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return log_softmax over the last axis, and logsumexp(z) for the rule."""
    return torch.log_softmax(z, -1), z.logsumexp(-1, True)


@primitive(rules.softmax, keeps_memory=True, broadcastable=True)
def softmax_last(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return softmax over the last axis, and logsumexp(z) for the rule."""
    return torch.softmax(z, -1), z.logsumexp(-1, True)


def _over_last(function: Callable[[Tensor], Tensor], input: Tensor, dim: int, dtype: torch.dtype | None) -> Tensor:
    input = input if dtype is None else input.to(dtype)
    if dim in (-1, input.dim() - 1):
        return function(input)
    return function(input.movedim(dim, -1)).movedim(-1, dim)


def _dim_and_dtype(input: Tensor, dim: int | None, rest: tuple[Any, ...], dtype: Any) -> tuple[int, Any]:
    if dim is None:
        dim = 0 if input.dim() in (0, 1, 3) else 1  # the choice that torch makes, with a warning
    dtypes = [r for r in rest if isinstance(r, torch.dtype)]
    return dim, dtype or (dtypes[0] if dtypes else None)


def softmax(input: Tensor, dim: int | None = None, *rest: Any, dtype: Any = None, **_: Any) -> Tensor:
    """Return the exponential of log_softmax."""
    dim, dtype = _dim_and_dtype(input, dim, rest, dtype)
    return _over_last(softmax_last, input, dim, dtype)


def log_softmax(input: Tensor, dim: int | None = None, *rest: Any, dtype: Any = None, **_: Any) -> Tensor:
    """Return the input minus its logsumexp."""
    dim, dtype = _dim_and_dtype(input, dim, rest, dtype)
    return _over_last(log_softmax_last, input, dim, dtype)


def softmin(input: Tensor, dim: int | None = None, *rest: Any, dtype: Any = None, **_: Any) -> Tensor:
    """Return the softmax of the negative input."""
    return softmax(-input, dim, *rest, dtype=dtype)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    **_: Any,
) -> Tensor:
    """Return softmax(q k^T scale + mask) v."""
    if dropout_p:
        raise UnsupportedOperationError("attention dropout is random: pass dropout_p=0 when the model is evaluated.")
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    masks = [] if attn_mask is None else [~attn_mask if attn_mask.dtype == torch.bool else attn_mask]
    if is_causal:
        masks.append(torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).triu(1))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return _attention(query, key, value, scale, masks)


def _attention(query: Tensor, key: Tensor, value: Tensor, scale: float, masks: Sequence[Tensor]) -> Tensor:
    """Apply one rule to all three operands if they all depend on the explained input and no mask does; else multiply in steps."""
    operands = query, key, value
    varying = all(t.grad_fn is not None for t in operands)
    masks_vary = any(h.grad_fn is not None or surrogate_of(h) is not None for h in masks)
    if varying and not masks_vary and len({t.dim() for t in operands}) == 1:
        return attend(*operands, scale, *masks)
    return torch.matmul(torch.softmax(_scores(query, key, scale, masks), -1), value)


@primitive(rules.attention, keeps_memory=True, broadcastable=True)
def attend(query: Tensor, key: Tensor, value: Tensor, scale: float, *masks: Tensor) -> Any:
    """Return softmax(q k^T scale + masks) v, and for the rule the scores, their softmax and logsumexp."""
    scores = _scores(query, key, scale, masks)
    weights = torch.softmax(scores, -1)
    return torch.matmul(weights, value), (scores, weights, scores.logsumexp(-1, True))


def _scores(query: Tensor, key: Tensor, scale: float, masks: Sequence[Tensor]) -> Tensor:
    """Return the scores of queries and keys. Float masks are added; boolean masks set entries to -inf."""
    scores = torch.matmul(query, key.mT) * scale
    for mask in masks:
        scores = torch.masked_fill(scores, mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return multi-head attention, time first: query (T, N, E), key and value (S, N, E)."""
    if training and dropout_p:
        raise UnsupportedOperationError("attention dropout is random: put the model into eval mode.")
    if query.dim() == 2:
        raise UnsupportedOperationError("attention on an unbatched sequence mixes the rows; give it a batch axis.")
    # With rows first in memory, one product covers all rows and steps of all pairs.
    operands = [t.transpose(0, 1).contiguous() for t in (query, key, value)]
    weights = (
        (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else in_proj_weight.chunk(3)  # type: ignore[union-attr]
    )
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (F.linear(s, w, b) for s, w, b in zip(operands, weights, biases, strict=True))
    if bias_k is not None and bias_v is not None:
        k, v = (torch.cat([t, b.repeat(len(t), 1, 1)], 1) for t, b in ((k, bias_k), (v, bias_v)))
    q, k, v = (t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in (q, k, v))  # (N, heads, T, E / heads)
    k, v = k if static_k is None else static_k, v if static_v is None else static_v
    if add_zero_attn:
        k, v = (torch.cat([t, torch.zeros_like(t[..., :1, :])], -2) for t in (k, v))
    masks = []
    if attn_mask is not None:
        attn_mask = attn_mask.unflatten(0, (len(q), num_heads)) if attn_mask.dim() == 3 else attn_mask
        masks.append(_pad_mask(attn_mask, k.shape[-2]))
    if key_padding_mask is not None:
        masks.append(_pad_mask(key_padding_mask, k.shape[-2])[:, None, None, :])
    mixed = _attention(q, k, v, q.shape[-1] ** -0.5, masks)
    output = F.linear(mixed.transpose(1, 2).flatten(2), out_proj_weight, out_proj_bias).transpose(0, 1)
    if not need_weights:
        return output, None
    attention = torch.softmax(_scores(q, k, q.shape[-1] ** -0.5, masks), -1)
    return output, attention.mean(1) if average_attn_weights else attention


def _pad_mask(mask: Tensor, width: int) -> Tensor:
    """Pad a mask for the appended bias and zero positions, which are never masked."""
    return F.pad(mask, (0, width - mask.shape[-1])) if mask.shape[-1] < width else mask
