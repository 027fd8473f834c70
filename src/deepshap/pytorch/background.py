"""The background's activations: recorded once, and used again as long as the model is the one they were recorded from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .operations import Operation
from .table import USER_OPERATIONS
from .trace import Tape

LEGIBLE, LEGIBLE_DEPTH = 64, 6  # entries of a container that is read off, and containers in containers
SPOT_CHECKED = 16  # references whose outputs tell whether a module is still the one that was recorded


@dataclass
class Recorded:
    """A block of references after its forward run."""

    tape: Tape
    outputs: Tensor
    leaves: list[Tensor]


@dataclass
class Kept:
    """Activations of a block of references, and what the model was like when they were recorded.

    ``state`` is what can be read off; ``native`` are the outputs of the untouched model on the references ``looked_at``,
    which change with what cannot: a function that the model calls, a global variable, an array.
    """

    block: tuple[int, int]
    looked_at: list[Tensor]
    recorded: Recorded
    native: Tensor
    state: Any
    checked: bool = True


def state_of(modules: list[nn.Module], operations: dict[Any, Operation]) -> Any:
    """What tells whether a model's weights, buffers, attributes and rules are the same as before."""
    values = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    identity = [(t.data_ptr(), t._version, t.shape, t.dtype) for t in values]
    sums = [t.detach().sum(dtype=torch.float64).cpu() for t in values if t.is_floating_point() and not t.is_sparse]
    rules = {**USER_OPERATIONS, **operations}
    attributes = [_legible({**vars(m), "training": None}) for m in modules]
    return identity, torch.stack(sums).tolist() if sums else [], rules, attributes


def _legible(value: Any, depth: int = 0) -> Any:
    """Numbers and texts as they are, in small containers too; anything else by its identity."""
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    if not isinstance(value, (list, tuple, dict)) or len(value) > LEGIBLE or depth > LEGIBLE_DEPTH:
        return id(value)
    items = value.items() if isinstance(value, dict) else value
    return [_legible(item, depth + 1) for item in items]


def looked_at(model: Any, references: list[Tensor]) -> list[Tensor]:
    """The references that are run in every call: some of them for a module, whose state can be read, all for others."""
    step = -(-len(references[0]) // SPOT_CHECKED) if isinstance(model, nn.Module) else 1
    return [r[::step] for r in references]
