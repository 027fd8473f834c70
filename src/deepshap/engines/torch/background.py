"""The background's activations: recorded once, and used again as long as the model is the one they were recorded from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...fingerprint import Fingerprint, fingerprint
from .operations import Operation
from .table import USER_OPERATIONS
from .trace import Tape

SPOT_CHECKED = 8  # references that are run in every call of a model that can be read


@dataclass
class Recorded:
    """A block of references after its forward run."""

    tape: Tape
    outputs: Tensor
    leaves: list[Tensor]


@dataclass
class Kept:
    """Activations of a block of references, and what the model was like when they were recorded.

    ``state`` is what can be read; ``native`` are the outputs of the untouched model on the references ``looked_at``, which
    change with what cannot.
    """

    block: tuple[int, int]
    looked_at: list[Tensor]
    recorded: Recorded
    native: Tensor
    state: State
    checked: bool = True


@dataclass
class State:
    """What tells whether a model's weights, buffers, rules and Python values are the same as before."""

    identities: list[Any]
    sums: list[float]
    rules: dict[Any, Operation]
    reached: Fingerprint


def state_of(model: Any, modules: list[nn.Module], operations: dict[Any, Operation]) -> State:
    """Read the state of a model."""
    values = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    dense = [t.detach() for t in values if t.is_floating_point() and t.layout == torch.strided and t.numel()]
    sums = [_sums(t).cpu() for t in dense]
    rules = {**USER_OPERATIONS, **operations}
    reached = fingerprint([model, *modules], _identity, _attributes)
    return State([_identity(t) for t in values], torch.cat(sums).tolist() if sums else [], rules, reached)


def _sums(t: Tensor) -> Tensor:
    """Of all entries, and of all rows by their numbers: what is written behind autograd's back changes no version."""
    rows = t.reshape(len(t) if t.dim() else 1, -1).sum(1, dtype=torch.float64)
    return torch.stack([rows.sum(), rows @ torch.arange(len(rows), dtype=rows.dtype, device=rows.device)])


def _identity(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return None
    return (
        id(value),
        *((value.data_ptr(), value._version) if value.layout == torch.strided else ()),
        value.shape,
        value.dtype,
    )


def _attributes(value: Any) -> dict[str, Any] | None:
    """Those of a module, but for its mode: it is explained in eval mode."""
    return {**vars(value), "training": None} if isinstance(value, nn.Module) else None


def looked_at(state: State, references: list[Tensor]) -> list[Tensor]:
    """The references that are run in every call: some of them, or all where the model can reach more than can be read."""
    step = -(-len(references[0]) // SPOT_CHECKED) if state.reached.complete else 1
    return [r[::step] for r in references]
