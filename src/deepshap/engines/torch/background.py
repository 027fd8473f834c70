"""The background's activations: recorded once, and used again as long as they are those of the model as it is.

In every call the state of all weights and buffers is compared, and the untouched model runs on all references: where
anything differs from what it was when the activations were recorded, they are recorded anew. Inside of
``explainer.frozen()`` nothing is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..api import Points
from .operations import Operation
from .table import USER_OPERATIONS
from .tape import Tape, fingerprint

ROUNDING = 16  # units in the last place by which outputs of the same model may differ from run to run
Evaluate = Callable[[Points, int, str], np.ndarray]


@dataclass
class Recorded:
    """Points after their forward run as references."""

    tape: Tape
    outputs: Tensor
    leaves: list[Tensor]


@dataclass
class State:
    """What tells whether a model's weights, buffers and rules are the same as before."""

    identities: list[Any]
    fingerprints: list[Hashable]
    rules: dict[Any, Operation]


class Background:
    """What is kept of the references of one model."""

    def __init__(self, model: Callable[..., Any], modules: list[nn.Module], operations: dict[Any, Operation]) -> None:
        self._model, self._modules, self._operations = model, modules, operations
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"_model": self._model, "_modules": self._modules, "_operations": self._operations}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.forget()

    def forget(self) -> None:
        """Forget everything."""
        self._key: Hashable = None  # of the references whose outputs are known
        self._outputs: np.ndarray | None = None
        self._at_once = 1
        self._state: State | None = None
        self._block: Hashable = None  # the references whose activations are kept
        self._recorded: Recorded | None = None
        self._earlier = False  # whether these were recorded in an earlier call
        self._single: Recorded | None = None  # a row that shows the model's calls, in one call
        self.used_again = False

    def note(self) -> None:
        """Take the model as it is for the one that is known."""
        self._state = _state_of(self._modules, self._operations)

    def drop(self) -> bool:
        """Forget the activations; say whether they were recorded in an earlier call."""
        earlier, self._recorded, self._block, self._earlier = self._earlier, None, None, False
        return earlier

    def holds(self, references: Points, frozen: bool, evaluate: Evaluate, eps: float) -> bool:
        """Whether the model is what it was in the last call, as far as it is known."""
        self._earlier, self.used_again, self._single = self._recorded is not None, False, None
        if self._state is None or frozen:
            return self._state is not None
        if self._state != _state_of(self._modules, self._operations):
            return False
        if self._key is None or self._key != references.key or self._outputs is None:
            self.drop()
            self._key = None
            return True
        before, self._outputs = self._outputs, evaluate(references, self._at_once, "the background")
        size = ROUNDING * eps * np.abs(before).max(initial=0.0)
        return before.shape == self._outputs.shape and bool((np.abs(self._outputs - before) <= size).all())

    def native(self, references: Points, at_once: int, evaluate: Evaluate) -> np.ndarray:
        """Outputs of the untouched model on the references."""
        known = self._outputs if self._key is not None and self._key == references.key else None
        if known is None:
            known = evaluate(references, at_once, "the background")
            self._key, self._outputs, self._at_once = references.key, known, at_once
        return known

    def single(self, one: Points, record: Callable[[Points], Recorded]) -> Recorded:
        """A row after its forward run, by which others know the calls of the model and the axes of rows."""
        if self._single is None:
            self._single = record(one)
        return self._single

    def recorded(self, references: Points, record: Callable[[Points], Recorded]) -> Recorded:
        """The references after their forward run."""
        if self._recorded is not None and self._block is not None and self._block == references.key:
            self.used_again = self._earlier
            return self._recorded
        self.drop()  # two blocks would take twice the memory
        recorded = record(references)
        self.note()
        if references.key is not None:
            self._block, self._recorded = references.key, recorded
        return recorded


def _state_of(modules: list[nn.Module], operations: dict[Any, Operation]) -> State:
    """Read the state of a model."""
    values = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    rules = {**USER_OPERATIONS, **operations}
    return State([_identity(t) for t in values], list(map(fingerprint, values)), rules)


def _identity(value: Tensor) -> Any:
    version = None if value.is_inference() else value._version
    place = (value.data_ptr(), version) if value.layout == torch.strided else ()
    return (id(value), *place, value.shape, value.dtype)
