"""Cells of recurrent networks, ``torch.lstm_cell`` and the others, which a model calls in a loop of its own.

Each step stores its operands, and the traces of many steps are computed at once (``CellSequence``). If the new states of a
step go to the next step alone, no other multipliers reach them. The rule of the last of such steps then goes back through
all of them in one kernel pass, and stores the multipliers of the other steps' inputs in their records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ....formulas.cells import Weights
from ..autograd import recurrent_record
from ..batch_axes import FIRST, RowSelection, flatten_pairs, unflatten_pairs
from ..calls import detached
from ..operations import CUSTOM, Operation, OperationRecord
from . import fused, single, stepwise
from .cells import Cell
from .context import Network, Pairing, RecurrentContext
from .layers import check_constant_weights, output_multipliers
from .sequence import Level, Steps, Trace, one_step


@dataclass
class CellSequence:
    """The steps of one cell in one run of a model: their operands, and their traces, computed together when the run is over.

    Tracing a few rows takes twenty calls of torch, running torch's own cell takes one.
    """

    level: Level
    operands: list[list[Tensor]] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)

    @torch.no_grad()
    def build_traces(self) -> None:
        """Compute the traces of the steps so far."""
        if waiting := self.operands[len(self.traces) :]:
            x, *state = map(torch.cat, zip(*waiting, strict=True))
            _, trace = one_step(self.level, x, *state)
            sizes = [len(values[0]) for values in waiting]
            firsts = accumulate(sizes[:-1], initial=0)
            steps = [Steps((size,), False, len(x), first) for size, first in zip(sizes, firsts, strict=True)]
            self.traces.extend(replace(trace, steps=part) for part in steps)
            self.operands[-len(waiting) :] = [[]] * len(waiting)


@dataclass
class CellStep:
    """What the rule of one step needs, used like ``Memory``.

    Attributes
    ----------
    sequence : the steps of its cell.
    index : its number among these.
    nbytes : size of its trace.
    previous : the step whose new states were this step's old ones.
    tiled : whether the rows ran once for all examples, in the numbers in which they came.
    selection : which rows these are, if not all.
    """

    sequence: CellSequence
    index: int
    nbytes: int
    previous: OperationRecord | None = None
    tiled: bool = False
    selection: RowSelection | None = None

    @property
    def cell(self) -> Cell:
        """Return the cell, which has its formulas."""
        return self.sequence.level.cell

    @property
    def traces(self) -> list[Trace]:
        """Return the trace."""
        trace = self.sequence.traces[self.index]
        return [trace if self.selection is None else trace.among(self.selection)]

    def among(self, selection: RowSelection) -> CellStep:
        """Return the step for some rows."""
        return replace(self, selection=selection)

    def save_from_overwriting(self, _: int) -> None:
        """Compute the trace before its operands are overwritten."""
        self.sequence.build_traces()


Chain = list[tuple[OperationRecord, tuple[CellStep, CellStep]]]


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
    context: RecurrentContext,
    **named: Any,
) -> Any:
    """Run torch's function, and return what the rule needs."""
    states = [hx] if cell.states == 1 else list(hx)
    all_weights = [*weights, *named.values()]
    check_constant_weights([w for w in all_weights if w is not None])
    operands = input, *states
    repeated = context.repeated_rows(*((v, 0) for v in operands))
    x, *distinct = (repeated.distinct(v, 0) for v in operands)
    new = native(x, distinct[0] if cell.states == 1 else distinct, *weights, **named)
    key = cell, *named, *[w if w is None else (w.data_ptr(), w.shape, w.stride()) for w in all_weights]
    if key not in context.sequences:
        context.sequences[key] = CellSequence(_level(cell, weights, named))
    sequence = context.sequences[key]
    # The memory of constants may be changed without torch's knowledge.
    sequence.operands.append(
        [v if t.requires_grad else v.clone() for t, v in zip(operands, (x, *distinct), strict=True)]
    )
    size = len(x) * cell.width(sequence.level.units) * x.itemsize + x.nbytes
    memory = CellStep(sequence, len(sequence.operands) - 1, size, _step_before(states), repeated.period is not None)
    if cell.states == 1:
        return repeated.expand(new, 0, len(input)), memory
    return tuple([repeated.expand(s, 0, len(input)) for s in new]), memory


def _level(cell: Cell, weights: Any, named: dict[str, Any]) -> Level:
    """Return the level with the present weights: ``.data`` of a parameter may become another tensor."""
    now, others = detached((weights, named))
    return Level(cell, Weights(*now, **others))


def _step_before(states: list[Tensor]) -> OperationRecord | None:
    """Return the step of a cell that made all states, each in its position."""
    makers = [recurrent_record(s, k) for k, s in enumerate(states)]
    before = makers[0]
    return before if before and isinstance(before.memory, CellStep) and all(s is before for s in makers) else None


# ---------------------------------------------------------------------- the rule
def _rule(record: OperationRecord, m_h: Tensor | None, *m_rest: Tensor) -> list[Tensor | None]:
    """Return multipliers (outputs, references, ...) of what a single step took, from those of its new states."""
    count = len(record.outputs)
    shape = [*(m_rest[0] if m_h is None else m_h).shape[:2], *record.outputs[0].shape]
    states = [output_multipliers(record, shape, m_h, m_rest[count - 1 :]), *m_rest[: count - 1]]
    sides = _sides(record)
    network = _network(record, *sides)
    if fused.available(network, shape[0]) and single.is_possible(network):
        multipliers = _by_kernels(network, _chain(record, sides), states)
    else:
        axis = FIRST if record.pairs.all_pairs else None
        rows = [flatten_pairs(m, axis) for m in states]
        m_x, first = stepwise.run(network, torch.zeros_like(rows[0]), [m.unsqueeze(1) for m in rows], False)
        multipliers = [unflatten_pairs(m, record.pairs, axis) for m in (m_x, *(m.squeeze(1) for m in first))]
    return _select_varying(record, multipliers)


def _select_varying(record: OperationRecord, multipliers: list[Any]) -> list[Tensor | None]:
    return [m for m, varies in zip(multipliers, record.varying, strict=False) if varies]


def _network(record: OperationRecord, example: CellStep, reference: CellStep) -> Network:
    """Return one layer with one step, and what the step kept on both sides."""
    rows = len(record.outputs[0]) * (record.pairs.references if record.pairs.all_pairs else 1)
    steps = Steps((rows,)), example.traces[0].steps, reference.traces[0].steps
    pairing = Pairing.of(record.pairs, *steps, reference.tiled)
    _, _, *weights = record.arguments
    return Network([[_level(example.cell, weights, record.keywords)]], example, reference, pairing)


def _sides(record: OperationRecord, selection: RowSelection | None = None) -> tuple[CellStep, CellStep]:
    assert record.reference is not None
    reference = record.reference
    return record.memory, reference.memory if selection is None else reference.memory.among(selection)


def _by_kernels(network: Network, chain: Chain, m_states: list[Tensor]) -> list[Tensor | None]:
    """Return the multipliers of the first step's operands, and store those of the steps before it in their records."""
    outputs, references, examples = m_states[0].shape[:3]
    records, sides = zip(*chain, strict=True)
    rows = single.rows_of(network, outputs, references)
    traces = [(x.traces[0], r.traces[0]) for x, r in sides]
    m_x, first = single.back_through(network.flat_levels[0], traces, rows, [m.flatten(0, 2) for m in m_states])
    for k, (earlier, m) in enumerate(zip(records[1:], m_x[1:], strict=True), 2):
        m_first = first if k == len(records) else [None] * len(first)
        multipliers = [None if v is None else v.unflatten(0, (-1, examples)) for v in (m, *m_first)]
        earlier.known_multipliers = _select_varying(earlier, multipliers)
    m_first = first if len(records) == 1 else [None] * len(first)
    return [None if v is None else v.unflatten(0, (outputs, references, examples)) for v in (m_x[0], *m_first)]


def _chain(record: OperationRecord, sides: tuple[CellStep, CellStep]) -> Chain:
    """Return a step, and the steps of the same cell before it that pass their states to the next one alone, with their sides."""
    chain, selection, previous = [(record, sides)], sides[1].selection, sides[0].previous
    while (
        previous is not None
        and previous.use_count == len(previous.outputs)
        and previous.memory.sequence is record.memory.sequence
    ):
        previous_sides = _sides(previous, selection)
        equal_sizes = [
            a.traces[0].steps.sizes == b.traces[0].steps.sizes for a, b in zip(previous_sides, sides, strict=True)
        ]
        if previous.pairs.outer != record.pairs.outer or not all(equal_sizes):
            break
        chain.append((previous, previous_sides))
        previous = previous_sides[0].previous
    return chain
