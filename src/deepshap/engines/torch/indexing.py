"""Selection by indices that depend on the input."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .calls import Call
from .carriers import carrier_of
from .tape import Tape
from .tree import replace


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
