"""The background's activations: recorded once, and used again as long as they are those of the model as it is.

In every call the state of all weights and buffers is compared, what the model does with the examples to what it did with as many
when it was known (``witness.py``), and its outputs on a few references, other ones each time. Where that does not tell, it runs
on all references; where these are new, or are run with row arguments, on the rows that it was probed on. Where anything differs
from what it was when the activations were recorded, they are recorded anew. Inside of ``explainer.frozen()`` nothing is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ...errors import DeepShapError
from ..api import Points
from .operations import Operation
from .replay import Program, Recording
from .script import Script
from .state import Contents, settings
from .table import USER_OPERATIONS
from .tape import Tape, fingerprint
from .trace import Tracer
from .witness import Trust, Witness, forget_oldest

ROUNDING = 16  # units in the last place by which outputs of the same model may differ from run to run
Evaluate = Callable[[Points, int, str], np.ndarray]
FEW = 2  # references that run in every call
TINY = np.finfo(np.float64).tiny
SMALL = 1e-3  # of the largest output: a smaller one is measured against that, as it is where sums are checked


@dataclass
class Recorded:
    """Points after their forward run as references."""

    tape: Tape
    outputs: Tensor
    leaves: list[Tensor]


@dataclass
class State:
    """What tells whether a model's weights, buffers and rules, and torch's settings, are the same as before."""

    identities: list[Any]
    fingerprints: list[Hashable]
    rules: dict[Any, Operation]
    settings: list[Any]
    modes: list[Any]  # that may change what torch's functions do

    @cached_property
    def held(self) -> dict[int, tuple[int, ...]]:
        """Places in memory and versions of weights and buffers, by their ids."""
        return {number: tuple(place) for number, *place, _, _ in self.identities if place}


class Background:
    """What is kept of the references of one model."""

    def __init__(self, contents: Contents, operations: dict[Any, Operation], followed: bool, computing: Any) -> None:
        self._contents, self._operations = contents, operations
        self._followed = followed  # whether the tracer sees all that the model does with its inputs
        self._computing = computing  # a context that the model runs in, where its numbers are wider
        self.replayed = False  # whether calls of the model were made again without it, in this call
        self._followed_always = False  # since that has failed
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("_contents", "_operations", "_followed", "_computing")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, replayed=False, _followed_always=False)
        self.forget()

    def forget(self) -> None:
        """Forget everything, but that the calls of the model cannot be made without it: something has failed where they were."""
        self._followed_always |= self.replayed
        self._key: Hashable = None  # of the references whose outputs are known
        self._outputs = np.zeros((0, 0))
        self._at_once = 1
        self._state: State | None = None
        self._probed: tuple[Points, np.ndarray] | None = None  # rows that the model was probed on, with their outputs
        self._block: Hashable = None  # the references whose activations are kept
        self._recorded: Recorded | None = None
        self._earlier = False  # whether these were recorded in an earlier call
        self._scripts: dict[int, Script] = {}  # of runs against them, by the number of examples
        self._single: Recorded | None = None  # a row that shows the model's calls, in one call
        self.used_again = False
        self._frozen = False  # in this call
        # How far rounding has moved outputs of a few references; and may have, in this call.
        self._moved = self._doubt = 0.0
        self._asked: Points | None = None  # references of this call
        self._turn = 0  # of the references that run in it
        self.trust = Trust()

    def note(self, probed: tuple[Points, np.ndarray] | None = None) -> None:
        """Take the model as it is for the one that is known, by the rows that it was probed on if they are others."""
        self._probed = probed or self._probed
        self._state = _state_of(self._contents.modules, self._operations)

    def drop(self) -> bool:
        """Forget the activations; say whether they were recorded in an earlier call."""
        earlier, self._recorded, self._block, self._earlier = self._earlier, None, None, False
        self._scripts = {}
        return earlier

    def holds(
        self, examples: Points, references: Points, frozen: bool, evaluate: Evaluate, eps: float, confirmed: bool
    ) -> bool:
        """Whether the model is what it was when it was probed, as far as it is known, and that was on rows of this kind.

        What runs of examples will show is taken for granted until ``confirm`` is asked, unless it is to be ``confirmed`` here.
        """
        self._earlier, self.used_again, self._single = self._recorded is not None, False, None
        self._doubt, self._frozen, self._asked = 0.0, frozen, references
        self.trust.begin()
        if self._state is None or self._probed is None or _kind_of(self._probed[0]) != _kind_of(examples):
            return False
        if frozen:
            return self._state.settings == settings()
        if self._state != _state_of(self._contents.modules, self._operations):
            return False
        if self.knows(references):
            self._contents.make_ready()
            self.trust.granted = True
            later = not confirmed and self.trust.changes == self._contents.changes and self._is_kept(references)
            self.trust.waits = later
            return later or self.confirm(evaluate, eps)
        self.drop()
        self._key = None
        now = _outputs(evaluate, self._probed[0], len(self._probed[0]))
        return now is not None and _apart(now, self._probed[1], self._probed[1]) <= ROUNDING * eps

    def outputs_beside(self, examples: Points, at_once: int, evaluate: Evaluate, eps: float) -> np.ndarray:
        """Outputs of examples, the last of them beside a few references, where these are to show that the model is the same.

        Where they are others, and all references have the outputs that they had, rounding is larger than it was known to be.
        """
        if not self.trust.waits or self._asked is None:
            return evaluate(examples, at_once, "X")
        rows, last = self._few(), (len(examples) - 1) // at_once * at_once
        now = _outputs(evaluate, Points.joined([examples[last:], self._asked[rows]]), at_once + FEW)
        if now is None:  # for the examples' sake, or for the references'
            return evaluate(examples, at_once, "X")
        own, few = np.split(now, [len(examples) - last])
        moved = _apart(few, self._outputs[rows], self._outputs)
        self.trust.waits = moved > max(ROUNDING * eps, 2 * self._moved)
        self._doubt = moved if self.trust.waits else 0.0
        return np.concatenate([evaluate(examples[:last], at_once, "X"), own]) if last else own

    def _few(self) -> np.ndarray:
        count, self._turn = len(self._outputs), self._turn + 1
        return (self._turn + np.arange(min(FEW, count)) * count // FEW) % count

    def confirm(self, evaluate: Evaluate, eps: float) -> bool:
        """Whether the model is what it was taken for: what runs have not shown, its outputs on all references do."""
        if self.trust.refuted:
            return False
        if self.trust.granted or self.trust.waits:
            assert self._asked is not None
            now = _outputs(evaluate, self._asked, self._at_once)
            if now is None or _apart(now, self._outputs, self._outputs) > ROUNDING * eps:
                return False
            self._outputs = now
            if self._moved < self._doubt <= eps**0.5:  # which more than rounding would be
                self._moved = self._doubt
        self.trust.shown(self._contents.changes)
        return True

    def witness(self, recorded: Recorded, examples: int, operations: dict[Any, Operation]) -> Witness | None:
        """What is to follow a run of so many examples against references, where their activations are kept."""
        if not self._followed or recorded is not self._recorded or self._state is None or self._state.modes:
            return None
        script = self._scripts.get(examples)
        if script is None or script.operations != operations:
            script = Script(operations)
        return Witness(self._state.held, script)

    def program(self, tracer: Tracer, points: Points) -> Program | None:
        """What makes the calls of a model that is promised to stay as it is; until that is known, have them noted."""
        plain = type(self._computing) is nullcontext and not (tracer.operations or points.extra)
        if tracer.witness is None or self._followed_always or not (self._frozen and plain):
            return None
        script = tracer.witness.script
        if script.is_whole and not script.is_settled:
            tracer.recording = Recording()
        if script.program is None or not script.program.fits(points.inputs):
            return None
        self._contents.make_ready()
        self.replayed = True
        return script.program

    def rest(self) -> None:
        """The call is over."""
        self.replayed = False

    def give_up(self, tracer: Tracer) -> None:
        """A program has failed."""
        assert tracer.witness is not None
        tracer.witness.script.program, self.replayed = None, False

    def hear(self, examples: int, tracer: Tracer) -> None:
        """Take what a run of so many examples shows."""
        witness = tracer.witness
        if witness is not None:
            if tracer.recording is not None:
                witness.script.program, witness.script.is_settled = tracer.recording.program(), True
            witness.script.is_whole = True
            self._scripts[examples] = witness.script
            forget_oldest(self._scripts)
        if not self._frozen:
            self.trust.hear(examples, witness if self._contents.left_alone else None)

    def _is_kept(self, references: Points) -> bool:
        return self._block is not None and self._block == references.key

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
        if self._recorded is not None and self._is_kept(references):
            self.used_again = self._earlier
            return self._recorded
        self.drop()  # two blocks would take twice the memory
        self.trust.forget()
        recorded = record(references)
        self.note()
        if references.key is not None:
            self._block, self._recorded = references.key, recorded
        return recorded


def _outputs(evaluate: Evaluate, points: Points, at_once: int) -> np.ndarray | None:
    try:
        return evaluate(points, at_once, "the background")
    except DeepShapError:  # said where the model is probed anew
        return None


def _apart(now: np.ndarray, before: np.ndarray, others: np.ndarray) -> float:
    """How far outputs are apart, on the scale that each of them has in others."""
    if before.shape != now.shape:
        return np.inf
    sizes = np.abs(others).max(0, initial=0.0)
    scale = np.maximum(sizes, SMALL * sizes.max(initial=0.0))
    return float(np.abs((now - before) / np.where(scale > 0, scale, TINY)).max(initial=0.0))


def _kind_of(points: Points) -> list[Any]:
    """What is found out about a model holds for rows of one kind: of one shape and dtype, with row arguments alike."""
    rows = [(x.shape[1:], x.dtype) for x in points.inputs]
    return [*rows, *((e.shape[1:], e.dtype) if points.form.has_rows(e) else (type(e), e) for e in points.extra)]


def _state_of(modules: list[nn.Module], operations: dict[Any, Operation]) -> State:
    """Read the state of a model."""
    values = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    rules = {**USER_OPERATIONS, **operations}
    modes = [*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]
    return State([_identity(t) for t in values], list(map(fingerprint, values)), rules, settings(), modes)


def _identity(value: Tensor) -> Any:
    version = None if value.is_inference() else value._version
    place = (value.data_ptr(), version) if value.layout == torch.strided else ()
    return (id(value), *place, value.shape, value.dtype)
