"""Recurrent layers as torch calls them: ``torch.lstm``, ``torch.gru`` and the others, padded and packed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ....errors import UnsupportedOperationError
from ....formulas.cells import Weights
from ..batch_axes import BatchAxis, flatten_pairs, unflatten_pairs
from ..operations import OperationRecord, Sums, primitive
from . import fused, single, stepwise
from .cells import Cell
from .context import Network, Pairing, PrefixCache, RecurrentContext, RepeatedRows, Result, states_after
from .sequence import Level, Steps, run


@dataclass(frozen=True)
class Settings:
    """Everything about a recurrent network that is not a tensor on which the explained input acts.

    Attributes
    ----------
    levels : for each layer one level per direction.
    sizes : rows of each step; None for padded sequences.
    batch_first : whether a padded sequence is (rows, steps, features), not (steps, rows, features).
    repeated : which rows are equal.
    prefix_cache : runs of which this one may be the beginning.
    sums : collects the input's contributions summed over references, if nothing else is needed of the input.
    """

    levels: list[list[Level]]
    sizes: tuple[int, ...] | None = None
    batch_first: bool = False
    repeated: RepeatedRows = field(default_factory=RepeatedRows)
    prefix_cache: PrefixCache = field(default_factory=PrefixCache)
    sums: Sums | None = None

    @property
    def time_axis(self) -> int:
        """Return the time axis of a padded sequence."""
        return 1 if self.batch_first else 0

    @property
    def row_axis(self) -> int:
        """Return the row axis of a padded sequence."""
        return 1 - self.time_axis


def _rule(record: OperationRecord, m_output: Tensor | None, *m_rest: Tensor) -> list[Tensor | None]:
    """Return multipliers (outputs, references, ...) of what the network took, from those of its results."""
    settings: Settings = record.arguments[-1]
    network = _network(record, settings)
    m_states, selected = m_rest[: len(record.outputs) - 1], m_rest[len(record.outputs) - 1 :]
    shape = *m_states[0].shape[:2], *record.outputs[0].shape
    axis, state_axis = (BatchAxis(settings.row_axis), BatchAxis(1)) if record.pairs.all_pairs else (None, None)
    states = [flatten_pairs(m, state_axis) for m in m_states]
    sums = settings.sums if record.varying[0] else None
    compiled = fused.available(network, shape[0])
    if compiled and sums is None and single.is_possible(network):
        m = (
            None
            if m_output is None and not selected
            else output_multipliers(record, shape, m_output, selected).flatten(2, 3)
        )
        m_x, first = single.run(network, m, list(m_states))
        return [v for v, varies in zip((m_x.reshape(*shape[:-1], -1), *first), record.varying, strict=True) if varies]
    if compiled:
        flat, at = _flat(record, settings, shape, m_output, selected)
        m_x, m_first = fused.run(network, flat, states, sums is not None, at)
        m_x = m_x if sums is not None else m_x.reshape(*shape[:-1], -1)
    else:
        rows = flatten_pairs(output_multipliers(record, shape, m_output, selected), axis)
        m_x, m_first = stepwise.run(network, rows.flatten(1, -2), states, sums is not None)
        m_x = m_x if sums is not None else unflatten_pairs(m_x.reshape(*rows.shape[:-1], -1), record.pairs, axis)
    if sums is not None:
        sums.add(m_x)
    first = [unflatten_pairs(m, record.pairs, state_axis) for m in m_first]
    multipliers = [None if sums is not None else m_x, *first]
    return [m for m, varies in zip(multipliers, record.varying, strict=True) if varies]


def _flat(
    record: OperationRecord,
    settings: Settings,
    shape: Sequence[int],
    m_output: Tensor | None,
    selected: Sequence[Tensor],
) -> tuple[Tensor, dict[int, int] | None]:
    """Return the output's multipliers (outputs, references, flat, features); if only single steps were selected, just those."""
    only_steps = settings.sizes is None and all(where == settings.time_axis for where, _ in record.selected)
    if m_output is not None or not only_steps:
        return output_multipliers(record, shape, m_output, selected).flatten(2, -2), None
    by_step: dict[int, Tensor] = {}
    for (_, t), m in zip(record.selected, selected, strict=True):
        by_step[t] = by_step[t] + m if t in by_step else m
    no_steps = record.outputs[0].new_zeros(*shape[:2], 0, shape[-1])
    return torch.cat([no_steps, *by_step.values()], 2), {t: k for k, t in enumerate(by_step)}


def output_multipliers(
    record: OperationRecord, shape: Sequence[int], m_output: Tensor | None, selected: Sequence[Tensor]
) -> Tensor:
    """Return the output's multipliers at all steps, with those of selected entries added in their positions."""
    if m_output is not None and not selected:
        return m_output
    total = record.outputs[0].new_zeros(shape) if m_output is None else m_output.clone()
    for (axis, index), m in zip(record.selected, selected, strict=True):
        total.select(axis + 2, index).add_(m)
    return total


def _network(record: OperationRecord, settings: Settings) -> Network:
    """Return the network with what its runs on both sides kept for the rule."""
    assert record.reference is not None
    data, sizes = record.arguments[0], settings.sizes
    if sizes is None:
        rows = data.shape[settings.row_axis] * (record.pairs.references if record.pairs.all_pairs else 1)
        sizes = (rows,) * data.shape[settings.time_axis]
    example, reference = record.memory, record.reference.memory
    steps = Steps(sizes, settings.batch_first)
    sides = example.traces[0].steps, reference.traces[0].steps
    pairing = Pairing.of(record.pairs, steps, *sides, record.reference.arguments[-1].repeated.period is not None)
    return Network(settings.levels, example, reference, pairing)


@primitive(_rule, keeps_memory=True, batched_rule=True)
def recurrence(data: Tensor, *rest: Any) -> Any:
    """Run a network on a sequence, then one tensor (layers * directions, rows, units) per state, then the settings.

    Returns the output, in the form of the sequence, and the last states.
    """
    *states, settings = rest
    repeated, axis = settings.repeated, settings.row_axis
    states = [repeated.distinct(s, 1) for s in states]
    if settings.sizes is not None:
        output, last, memory = _packed(settings, settings.sizes, data, states)
        return (output, *last), memory
    rows_before, distinct = data.shape[axis], repeated.distinct(data, axis)
    distinct = distinct.transpose(0, 1) if settings.batch_first else distinct
    count, rows = distinct.shape[:2]
    output, last, memory = settings.prefix_cache.run(
        settings.levels, distinct.flatten(0, 1), states, Steps((rows,) * count)
    )
    output = output.unflatten(0, (count, rows))
    output = output.transpose(0, 1) if settings.batch_first else output
    return (repeated.expand(output, axis, rows_before), *(repeated.expand(s, 1, rows_before) for s in last)), memory


def _packed(settings: Settings, sizes: tuple[int, ...], data: Tensor, states: list[Tensor]) -> Result:
    """Run equal rows once; those that end earlier than others are the beginning of one run."""
    repeated, levels = settings.repeated, settings.levels
    if repeated.period is None:
        steps = Steps(tuple(size // repeated.consecutive for size in sizes))
        output, last, memory = run(levels, repeated.distinct(data, 0), states, steps)
        return repeated.expand(output, 0, len(data)), [repeated.expand(s, 1, sizes[0]) for s in last], memory
    positions = repeated.positions(sizes)
    first = torch.cat([step[: repeated.period] for step in data.split(sizes)])
    output, _, memory = run(levels, first, states, Steps((repeated.period,) * len(sizes)))
    ends = positions[Steps(sizes).ends()]
    return output[positions], states_after(memory, output, ends, len(states)), memory


# ---------------------------------------------------------------------- layers
def layer(cell: Cell) -> Callable[..., Any]:
    """Build ``torch.lstm``, ``torch.gru``, ``torch.rnn_tanh`` or ``torch.rnn_relu``, padded and packed."""

    def call(*args: Any, context: RecurrentContext) -> Any:
        packed = isinstance(args[1], Tensor) and not args[1].is_floating_point() and not args[1].is_complex()
        if packed:
            data, batch_sizes, hx, weights, biases, layers, dropout, training, bidirectional = args
        else:
            data, hx, weights, biases, layers, dropout, training, bidirectional, batch_first = args
        if training and dropout and layers > 1:
            raise UnsupportedOperationError("dropout between recurrent layers is random: put the model into eval mode.")
        states = [hx] if cell.states == 1 else list(hx)
        levels = _levels(cell, weights, biases, layers, 2 if bidirectional else 1)
        if packed and len(sizes := batch_sizes.unique()) == 1:  # sequences of equal length are padded ones
            steps = data.unflatten(0, (-1, int(sizes)))
            output, *last = recurrence(steps, *states, Settings(levels, prefix_cache=context.prefix_cache))
            return (output.flatten(0, 1), *last)
        if packed:
            sizes_of_steps = tuple(batch_sizes.tolist())
            repeated = context.repeated_rows((data, 0), *((s, 1) for s in states), sizes=sizes_of_steps)
            repeated = (
                RepeatedRows() if repeated.period and bidirectional else repeated
            )  # a backward run begins at the end, which differs
            return recurrence(data, *states, Settings(levels, sizes_of_steps, repeated=repeated))
        repeated = context.repeated_rows((data, 0 if batch_first else 1), *((s, 1) for s in states))
        summed = context.sums_of(data, batch_first, repeated.consecutive)
        return recurrence(data, *states, Settings(levels, None, batch_first, repeated, context.prefix_cache, summed))

    return call


def _levels(cell: Cell, weights: Any, biases: bool, layers: int, directions: int) -> list[list[Level]]:
    """Return the levels with their weights, in torch's order."""
    check_constant_weights(weights)
    size = len(weights) // (layers * directions)

    def level(depth: int, direction: int) -> Level:
        at = (depth * directions + direction) * size
        w_ih, w_hh, *rest = (w.detach() for w in weights[at : at + size])
        b = (rest.pop(0), rest.pop(0)) if biases else (None, None)
        return Level(cell, Weights(w_ih, w_hh, *b, *rest), backwards=direction == 1)

    return [[level(depth, direction) for direction in range(directions)] for depth in range(layers)]


def check_constant_weights(weights: Any) -> None:
    """Raise an error if weights depend on the explained input."""
    if any(w.grad_fn is not None for w in weights):
        raise UnsupportedOperationError("recurrent weights that depend on the input have no rule; write the cell out.")
