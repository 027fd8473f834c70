"""Single steps of recurrent cells, ``torch.lstm_cell`` and its kin, and what loops of them may take together.

A step leaves what it took; of that the traces of many steps are made at once. Where its new states go to the next step alone,
no other multipliers reach them: the rule of the last of such steps goes through all of them at once, and leaves to each what it
found of that one's inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ....formulas.cells import Weights
from ..autograd import recurrent_step
from ..batch_axes import FIRST, Chosen, from_rows, to_rows
from ..operations import CUSTOM, Operation, OperationRecord
from ..tree import detached
from . import fused, single, stepwise
from .cells import Cell
from .context import Network, Pairing, RecurrentContext
from .layers import refuse_varying, whole
from .sequence import Level, Steps, Trace, one_step


@dataclass
class CellSequence:
    """Steps of one cell in one run of a model: what they took, and their traces, all made at once when the run is over.

    A trace of a few rows is twenty calls of torch, whose own cell is one.
    """

    level: Level
    given: list[list[Tensor]] = field(default_factory=list)
    made: list[Trace] = field(default_factory=list)

    @torch.no_grad()
    def make(self) -> None:
        """Make the traces of the steps so far."""
        if waiting := self.given[len(self.made) :]:
            x, *state = map(torch.cat, zip(*waiting, strict=True))
            _, whole = one_step(self.level, x, *state)
            sizes = [len(each[0]) for each in waiting]
            firsts = accumulate(sizes[:-1], initial=0)
            steps = [Steps((size,), False, len(x), first) for size, first in zip(sizes, firsts, strict=True)]
            self.made.extend(replace(whole, steps=of_one) for of_one in steps)
            self.given[-len(waiting) :] = [[]] * len(waiting)


@dataclass
class OfStep:
    """What the rule of one step needs, in place of ``Memory``.

    Attributes
    ----------
    together : the steps of its cell.
    place : its place among these.
    nbytes : memory of its trace.
    before : the step whose new states were this one's old ones.
    again : whether the rows ran once for all examples, as often as they came.
    chosen : which rows these are, if not all.
    """

    together: CellSequence
    place: int
    nbytes: int
    before: OperationRecord | None = None
    again: bool = False
    chosen: Chosen | None = None

    @property
    def cell(self) -> Cell:
        """Its formulas."""
        return self.together.level.cell

    @property
    def traces(self) -> list[Trace]:
        """The trace."""
        trace = self.together.made[self.place]
        return [trace if self.chosen is None else trace.among(self.chosen)]

    def among(self, chosen: Chosen) -> OfStep:
        """That of some rows."""
        return replace(self, chosen=chosen)

    def save_from_overwriting(self, _: int) -> None:
        """Make the trace before what it is made of is overwritten."""
        self.together.make()


Chain = list[tuple[OperationRecord, tuple[OfStep, OfStep]]]


def single_step(cell: Cell, native: Callable[..., Any]) -> Operation:
    """Build the operation ``torch.lstm_cell``, ``torch.gru_cell``, ``torch.rnn_tanh_cell`` or ``torch.rnn_relu_cell``."""

    def call(*args: Any, **named: Any) -> Any:
        return _forward(cell, native, *args, **named)

    return Operation(CUSTOM, _rule, function=call, keeps_memory=True, batched_rule=True, recurrent=True)


# ---------------------------------------------------------------------- forward
def _forward(
    cell: Cell,
    native: Callable[..., Any],
    input: Tensor,
    hx: Any,
    *weights: Any,
    handed: RecurrentContext,
    **named: Any,
) -> Any:
    """As torch's function, and what the rule needs."""
    states = [hx] if cell.states == 1 else list(hx)
    own = [*weights, *named.values()]
    refuse_varying([w for w in own if w is not None])
    given = input, *states
    alike = handed.alike(*((v, 0) for v in given))
    x, *once = (alike.once(v, 0) for v in given)
    new = native(x, once[0] if cell.states == 1 else once, *weights, **named)
    key = cell, *named, *[w if w is None else (w.data_ptr(), w.shape, w.stride()) for w in own]
    if key not in handed.together:
        handed.together[key] = CellSequence(_level(cell, weights, named))
    together = handed.together[key]
    # Constants may lie in memory that others change without torch's knowing.
    together.given.append([v if t.requires_grad else v.clone() for t, v in zip(given, (x, *once), strict=True)])
    size = len(x) * cell.width(together.level.units) * x.itemsize + x.nbytes
    memory = OfStep(together, len(together.given) - 1, size, _step_before(states), alike.every is not None)
    if cell.states == 1:
        return alike.all_of(new, 0, len(input)), memory
    return tuple([alike.all_of(s, 0, len(input)) for s in new]), memory


def _level(cell: Cell, weights: Any, named: dict[str, Any]) -> Level:
    """With the weights as they are now: ``.data`` of a parameter may become another tensor."""
    now, others = detached((weights, named))
    return Level(cell, Weights(*now, **others))


def _step_before(states: list[Tensor]) -> OperationRecord | None:
    """The step of a cell that made all states, each in its place."""
    made = [recurrent_step(s, k) for k, s in enumerate(states)]
    before = made[0]
    return before if before and isinstance(before.memory, OfStep) and all(s is before for s in made) else None


# ---------------------------------------------------------------------- the rule
def _rule(step: OperationRecord, m_h: Tensor | None, *others: Tensor) -> list[Tensor | None]:
    """Multipliers (outputs, references, ...) from the new states of a single step to what it was given."""
    count = len(step.outputs)
    shape = [*(others[0] if m_h is None else m_h).shape[:2], *step.outputs[0].shape]
    states = [whole(step, shape, m_h, others[count - 1 :]), *others[: count - 1]]
    sides = _sides(step)
    network = _network(step, *sides)
    if fused.available(network, shape[0]) and single.is_possible(network):
        found = _by_kernels(network, _alone(step, sides), states)
    else:
        place = FIRST if step.pairs.all_pairs else None
        rows = [to_rows(m, place) for m in states]
        m_x, first = stepwise.run(network, torch.zeros_like(rows[0]), [m.unsqueeze(1) for m in rows], False)
        found = [from_rows(m, step.pairs, place) for m in (m_x, *(m.squeeze(1) for m in first))]
    return _of_varying(step, found)


def _of_varying(step: OperationRecord, found: list[Any]) -> list[Tensor | None]:
    return [m for m, varies in zip(found, step.varying, strict=False) if varies]


def _network(step: OperationRecord, example: OfStep, reference: OfStep) -> Network:
    """One layer of one step, with what it left on both sides."""
    rows = len(step.outputs[0]) * (step.pairs.references if step.pairs.all_pairs else 1)
    steps = Steps((rows,)), example.traces[0].steps, reference.traces[0].steps
    beside = Pairing.of(step.pairs, *steps, reference.again)
    _, _, *weights = step.arguments
    return Network([[_level(example.cell, weights, step.keywords)]], example, reference, beside)


def _sides(step: OperationRecord, chosen: Chosen | None = None) -> tuple[OfStep, OfStep]:
    assert step.reference is not None
    reference = step.reference
    return step.memory, reference.memory if chosen is None else reference.memory.among(chosen)


def _by_kernels(network: Network, chain: Chain, m_states: list[Tensor]) -> list[Tensor | None]:
    """Those of the first step's operands; the steps before it get theirs too."""
    outputs, references, examples = m_states[0].shape[:3]
    steps, sides = zip(*chain, strict=True)
    rows = single.rows_of(network, outputs, references)
    traces = [(x.traces[0], r.traces[0]) for x, r in sides]
    m_x, first = single.back_through(network.flat_levels[0], traces, rows, [m.flatten(0, 2) for m in m_states])
    for k, (before, m) in enumerate(zip(steps[1:], m_x[1:], strict=True), 2):
        of_states = first if k == len(steps) else [None] * len(first)
        found = [None if v is None else v.unflatten(0, (-1, examples)) for v in (m, *of_states)]
        before.known = _of_varying(before, found)
    of_states = first if len(steps) == 1 else [None] * len(first)
    return [None if v is None else v.unflatten(0, (outputs, references, examples)) for v in (m_x[0], *of_states)]


def _alone(step: OperationRecord, sides: tuple[OfStep, OfStep]) -> Chain:
    """A step, and those before it of the same cell that hand their states on to the next one alone, with their sides."""
    chain, chosen, before = [(step, sides)], sides[1].chosen, sides[0].before
    while before is not None and before.uses == len(before.outputs) and before.memory.together is step.memory.together:
        own = _sides(before, chosen)
        alike = [one.traces[0].steps.sizes == two.traces[0].steps.sizes for one, two in zip(own, sides, strict=True)]
        if before.pairs.outer != step.pairs.outer or not all(alike):
            break
        chain.append((before, own))
        before = own[0].before
    return chain
