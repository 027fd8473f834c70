"""The recorded reference run, kept from call to call while the model stays the same.

The backward pass needs every operation's values on the references, and these are the same in each call. The engine therefore
records the reference run once (``Recorded``) and reuses it. One rule decides whether it is still valid:

1. Every call evaluates the untouched model on all references and on all examples.
2. If an output of a reference differs from the recorded one by more than rounding, or if the checksum of a weight or buffer
   differs, the reference run is dropped and recorded again.

Within ``explainer.frozen()`` step 1 is skipped for the references, and nothing is compared. The engine's analysis of a
model (batch axes, memory per pair) is reused for rows of one shape and dtype, weights on one device and the same rules.

A change that leaves the outputs of all references and examples the same (a product rewritten as a sum of logarithms, say) is
not detected; the recorded run then explains the outputs just as well.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..interface import Points
from .operations import Operation
from .preserve import ModelState, device_and_dtype, settings
from .table import USER_OPERATIONS
from .tape import Tape, fingerprint

ROUNDING = 16  # units in the last place by which outputs of the same model may differ from run to run
SMALL = 1e-3  # of the largest output; smaller outputs are compared relative to it, as in the check of sums
Evaluate = Callable[[Points, int, str], np.ndarray]


@dataclass
class Recorded:
    """The references after their forward pass under the tracer."""

    tape: Tape
    outputs: Tensor
    leaves: list[Tensor]


class ReferenceCache:
    """Outputs and recorded run of one block of references, and the kind of rows that the model was analyzed on."""

    def __init__(self, state: ModelState, operations: dict[Any, Operation]) -> None:
        self._state, self._operations = state, operations
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"_state": self._state, "_operations": self._operations}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.forget()

    def forget(self) -> None:
        """Forget everything about the model."""
        self.used = False  # whether this call relies on anything from an earlier call
        self.changed = False  # whether outputs or weights differ from the last call
        self._kind: list[Any] | None = None
        self._outputs_key: Hashable = None  # key of the references whose outputs are stored
        self._outputs = np.zeros((0, 0))
        self._checksums: list[Hashable] = []
        self.drop()

    def drop(self) -> bool:
        """Forget the recorded run; return whether this call relies on an earlier one."""
        self._recorded_key: Hashable = None
        self._recorded: Recorded | None = None
        return self.used

    def fits(self, examples: Points) -> bool:
        """Return whether the model was analyzed on rows of this kind. A call begins with this question."""
        self.used = self._kind is not None and self._kind == self._kind_of(examples)
        return self.used

    def analyzed_on(self, examples: Points) -> None:
        """Note that the model has been analyzed on rows of this kind."""
        self._kind = self._kind_of(examples)

    def outputs(self, references: Points, at_once: int, evaluate: Evaluate, frozen: bool, eps: float) -> np.ndarray:
        """Return the unmodified model's outputs on the references; drop the recorded run if they have changed."""
        self.changed, is_known = False, self._outputs_key is not None and self._outputs_key == references.key
        if frozen and is_known:
            return self._outputs
        outputs, checksums = evaluate(references, at_once, "the background"), self._read_checksums()
        self.changed = (
            not is_known or checksums != self._checksums or _distance(outputs, self._outputs) > ROUNDING * eps
        )
        if self.changed:
            self.drop()
        self._outputs_key, self._outputs, self._checksums = references.key, outputs, checksums
        return outputs

    def recorded(self, references: Points, record: Callable[[Points], Recorded]) -> Recorded:
        """Return the references' run; record it unless the stored run is valid."""
        if self._recorded is not None and self._recorded_key is not None and self._recorded_key == references.key:
            return self._recorded
        self._recorded = None  # two blocks would take twice the memory
        recorded = record(references)
        if references.key is not None and self._outputs_key is not None:
            self._recorded_key, self._recorded = references.key, recorded
        return recorded

    def _read_checksums(self) -> list[Hashable]:
        modules = self._state.modules
        tensors = [t for m in modules for t in (*m.parameters(False), *m.buffers(False))]
        return [fingerprint(t) for t in tensors]

    def _kind_of(self, points: Points) -> list[Any]:
        rows = [(x.shape[1:], x.dtype) for x in points.inputs]
        extra = [(e.shape[1:], e.dtype) if points.form.has_rows(e) else (type(e), e) for e in points.extra]
        rules = {**USER_OPERATIONS, **self._operations}
        return [*rows, *extra, device_and_dtype(self._state.modules), *settings(), rules]


def _distance(outputs: np.ndarray, before: np.ndarray) -> float:
    """Return the largest difference of two blocks of outputs, relative to the largest value in its column."""
    if before.shape != outputs.shape:
        return np.inf
    sizes = np.abs(before).max(0, initial=0.0)
    scale = np.maximum(np.maximum(sizes, SMALL * sizes.max(initial=0.0)), np.finfo(np.float64).tiny)
    return float(np.abs((outputs - before) / scale).max(initial=0.0))
