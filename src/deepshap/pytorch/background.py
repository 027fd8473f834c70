"""The background's activations: recorded once, and used again as long as the model is the one they were recorded from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .operations import Operation
from .table import USER_OPERATIONS
from .trace import Tape


@dataclass
class Recorded:
    """A block of references after its forward run."""

    tape: Tape
    outputs: Tensor
    leaves: list[Tensor]


@dataclass
class Kept:
    """Activations of a block of references, and what the model was like when they were recorded.

    ``native`` are the outputs of the untouched model on the block: they change with anything that changes the activations
    of interest, a Python attribute for instance; ``state`` is what can change without them.
    """

    block: tuple[int, int]
    recorded: Recorded
    native: Tensor
    state: Any
    checked: bool = True


def state_of(modules: list[nn.Module], operations: dict[Any, Operation]) -> Any:
    """What tells whether a model's weights, buffers and rules are the same as before."""
    values = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    identity = [(t.data_ptr(), t._version, t.shape, t.dtype) for t in values]
    sums = [t.detach().sum(dtype=torch.float64).cpu() for t in values if t.is_floating_point() and not t.is_sparse]
    rules = {**USER_OPERATIONS, **operations}
    return identity, torch.stack(sums).tolist() if sums else [], rules
