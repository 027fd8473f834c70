"""The background's activations: recorded once, and used again as long as they are those of the model as it is.

In every call the state of all weights and buffers is compared, and the untouched model runs on all references, in one run with
the examples where these are few: where anything differs from what it was when the activations were recorded, they are recorded
anew. Where these references are new, or are run with row arguments, it runs on the rows that it was probed on. Inside of
``explainer.frozen()`` nothing is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import DeepShapError
from ..api import Points
from .operations import Operation
from .table import USER_OPERATIONS
from .tape import Tape, fingerprint

ROUNDING = 16  # units in the last place by which outputs of the same model may differ from run to run
Evaluate = Callable[[Points, int, str], np.ndarray]
Run = Callable[[Points], np.ndarray]


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

    def __init__(self, modules: list[nn.Module], operations: dict[Any, Operation]) -> None:
        self._modules, self._operations = modules, operations
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"_modules": self._modules, "_operations": self._operations}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.forget()

    def forget(self) -> None:
        """Forget everything."""
        self._key: Hashable = None  # of the references whose outputs are known
        self._outputs = np.zeros((0, 0))
        self._at_once = 1
        self._joined = True  # whether examples may run with them, as far as is known
        self._beside: tuple[Points, np.ndarray] | None = None  # examples that did in this call, and their outputs
        self._state: State | None = None
        self._probed: tuple[Points, np.ndarray] | None = None  # rows that the model was probed on, with their outputs
        self._block: Hashable = None  # the references whose activations are kept
        self._recorded: Recorded | None = None
        self._earlier = False  # whether these were recorded in an earlier call
        self._single: Recorded | None = None  # a row that shows the model's calls, in one call
        self.used_again = False

    def note(self, probed: tuple[Points, np.ndarray] | None = None) -> None:
        """Take the model as it is for the one that is known, by the rows that it was probed on if they are others."""
        self._probed = probed or self._probed
        self._state = _state_of(self._modules, self._operations)

    def drop(self) -> bool:
        """Forget the activations; say whether they were recorded in an earlier call."""
        earlier, self._recorded, self._block, self._earlier = self._earlier, None, None, False
        return earlier

    def holds(
        self, examples: Points, references: Points, frozen: bool, evaluate: Evaluate, run: Run, eps: float
    ) -> bool:
        """Whether the model is what it was when it was probed, as far as it is known, and that was on rows of this kind."""
        self._earlier, self.used_again, self._single = self._recorded is not None, False, None
        self._beside = None
        if self._state is None or self._probed is None or _kind_of(self._probed[0]) != _kind_of(examples):
            return False
        if frozen:
            return True
        if self._state != _state_of(self._modules, self._operations):
            return False
        if self.knows(references):
            if self._holds_beside(examples, references, run, eps):
                return True
            points, before, at_once = references, self._outputs, self._at_once
        else:
            self.drop()
            self._key = None
            points, before = self._probed
            at_once = len(points)
        try:
            now = evaluate(points, at_once, "the background")
        except DeepShapError:  # said where the model is probed anew
            return False
        if self._key is not None:
            self._outputs = now
        return _is_close(now, before, eps)

    def _holds_beside(self, examples: Points, references: Points, run: Run, eps: float) -> bool:
        """Whether the references, in one run with few examples, have the outputs that they had; else they run by themselves."""
        count, few = len(references), len(examples) <= len(references)
        if not (self._joined and few and count + len(examples) <= self._at_once + 1) or examples.extra:
            return False
        try:
            both = run(Points.joined([references, examples]))
            self._joined = _is_close(both[:count], self._outputs, eps)
        except Exception:  # the model says so where it runs by itself
            self._joined = False
        if self._joined and np.isfinite(both).all():
            self._beside = examples, both[count:]
        return self._joined

    def outputs_beside(self, points: Points) -> np.ndarray | None:
        """Outputs of examples that ran with the references in this call; told once."""
        found, self._beside = self._beside, None
        return found[1] if found is not None and found[0] is points else None

    def knows(self, references: Points) -> bool:
        """Whether the outputs on these references are known."""
        return self._key is not None and self._key == references.key

    def native(self, references: Points, at_once: int, evaluate: Evaluate) -> np.ndarray:
        """Outputs of the untouched model on the references."""
        if not self.knows(references):
            self._outputs = evaluate(references, at_once, "the background")
            self._key, self._at_once = references.key, at_once
        return self._outputs

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


def _is_close(now: np.ndarray, before: np.ndarray, eps: float) -> bool:
    """Whether outputs are the same but for rounding."""
    size = ROUNDING * eps * np.abs(before).max(initial=0.0)
    return before.shape == now.shape and bool((np.abs(now - before) <= size).all())


def _kind_of(points: Points) -> list[Any]:
    """What is found out about a model holds for rows of one kind: of one shape and dtype, with row arguments alike."""
    rows = [(x.shape[1:], x.dtype) for x in points.inputs]
    return [*rows, *((e.shape[1:], e.dtype) if points.form.has_rows(e) else (type(e), e) for e in points.extra)]


def _state_of(modules: list[nn.Module], operations: dict[Any, Operation]) -> State:
    """Read the state of a model."""
    values = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    rules = {**USER_OPERATIONS, **operations}
    return State([_identity(t) for t in values], list(map(fingerprint, values)), rules)


def _identity(value: Tensor) -> Any:
    version = None if value.is_inference() else value._version
    place = (value.data_ptr(), version) if value.layout == torch.strided else ()
    return (id(value), *place, value.shape, value.dtype)
