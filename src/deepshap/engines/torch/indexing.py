"""Selection by indices that depend on the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .calls import Call
from .carriers import carrier_of, tag_of
from .composites.positions import AT_POSITIONS
from .tape import Tape
from .tree import replace, tensors


def at_positions(call: Call) -> Call:
    """Let a call that selects by integers which depend on the input follow what it is composed of."""
    own = AT_POSITIONS.get(call.name)
    if own is None or call.operation is None or not call.operation.indices:
        return call
    indices = list(tensors((_indices(call), [v for k, v in call.kwargs.items() if k in ("index", "indices")])))
    follows = any(tag_of(i) is not None and tag_of(i).carrier is not None for i in indices)  # type: ignore[union-attr]
    return call._replace(operation=own) if follows and all(i.dtype != torch.bool for i in indices) else call


def _indices(call: Call) -> Any:
    return (
        call.args[1:3]
        if call.name in ("gather", "index_select", "scatter", "scatter_add", "index_add")
        else call.args[1:]
    )


def settled_indices(call: Call, tape: Tape) -> Any:
    """Indices that depend on the input must select the same on both sides; then they are constants."""
    args, kwargs = call.args, call.kwargs
    if call.operation is None or not call.operation.indices:
        return args, kwargs
    signal = [0, 2] if call.name in ("__setitem__", "index_put") else [0]

    def settle(tensor: Tensor) -> Tensor:
        if carrier_of(tensor) is None:
            return tensor
        tape.must_be_same(call.name, tensor.detach(), f"an index of {tape.known_as(call.name)}")
        return tensor.detach()

    settled = tuple(a if i in signal else replace(a, settle) for i, a in enumerate(args))
    kept = {k: v if k in ("value", "values", "src", "source") else replace(v, settle) for k, v in kwargs.items()}
    return settled, kept
