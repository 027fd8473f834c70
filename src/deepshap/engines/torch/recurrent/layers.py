"""Recurrent layers as torch calls them: ``torch.lstm`` and its kin, padded and packed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ....errors import UnsupportedOperationError
from ....formulas.cells import Weights
from ..batch_axes import BatchAxis, from_rows, to_rows
from ..operations import OperationRecord, Sums, primitive
from . import fused, single, stepwise
from .cells import Cell
from .context import Network, Pairing, PrefixCache, RecurrentContext, RepeatedRows, Result, states_after
from .sequence import Level, Steps, run


@dataclass(frozen=True)
class Settings:
    """Everything about a recurrent network that is not a varying tensor.

    Attributes
    ----------
    levels : for each layer one level per direction.
    sizes : rows of each step; None for padded sequences.
    batch_first : whether a padded sequence is (rows, steps, features), not (steps, rows, features).
    alike : which rows are alike.
    begun : runs of which this may be the beginning.
    sums : takes the input's contributions summed over references, where they are all that is wanted of them.
    """

    levels: list[list[Level]]
    sizes: tuple[int, ...] | None = None
    batch_first: bool = False
    alike: RepeatedRows = field(default_factory=RepeatedRows)
    begun: PrefixCache = field(default_factory=PrefixCache)
    sums: Sums | None = None

    @property
    def time_axis(self) -> int:
        """Of a padded sequence."""
        return 1 if self.batch_first else 0

    @property
    def row_axis(self) -> int:
        """Of a padded sequence."""
        return 1 - self.time_axis


def _rule(step: OperationRecord, m_output: Tensor | None, *others: Tensor) -> list[Tensor | None]:
    """Multipliers (outputs, references, ...) from the network's results to what it was given."""
    settings: Settings = step.arguments[-1]
    network = _network(step, settings)
    m_states, selected = others[: len(step.outputs) - 1], others[len(step.outputs) - 1 :]
    shape = *m_states[0].shape[:2], *step.outputs[0].shape
    place, of_states = (BatchAxis(settings.row_axis), BatchAxis(1)) if step.pairs.all_pairs else (None, None)
    states = [to_rows(m, of_states) for m in m_states]
    sums = settings.sums if step.varying[0] else None
    compiled = fused.available(network, shape[0])
    if compiled and sums is None and single.is_possible(network):
        m = None if m_output is None and not selected else whole(step, shape, m_output, selected).flatten(2, 3)
        m_x, first = single.run(network, m, list(m_states))
        return [v for v, varies in zip((m_x.reshape(*shape[:-1], -1), *first), step.varying, strict=True) if varies]
    if compiled:
        flat, at = _flat(step, settings, shape, m_output, selected)
        m_x, m_first = fused.run(network, flat, states, sums is not None, at)
        m_x = m_x if sums is not None else m_x.reshape(*shape[:-1], -1)
    else:
        rows = to_rows(whole(step, shape, m_output, selected), place)
        m_x, m_first = stepwise.run(network, rows.flatten(1, -2), states, sums is not None)
        m_x = m_x if sums is not None else from_rows(m_x.reshape(*rows.shape[:-1], -1), step.pairs, place)
    if sums is not None:
        sums.add(m_x)
    first = [from_rows(m, step.pairs, of_states) for m in m_first]
    found = [None if sums is not None else m_x, *first]
    return [m for m, varies in zip(found, step.varying, strict=True) if varies]


def _flat(
    step: OperationRecord, settings: Settings, shape: Sequence[int], m_output: Tensor | None, selected: Sequence[Tensor]
) -> tuple[Tensor, dict[int, int] | None]:
    """The output's multipliers (outputs, references, flat, features); if they came step by step, only those, and which."""
    only_steps = settings.sizes is None and all(where == settings.time_axis for where, _ in step.selected)
    if m_output is not None or not only_steps:
        return whole(step, shape, m_output, selected).flatten(2, -2), None
    found: dict[int, Tensor] = {}
    for (_, t), m in zip(step.selected, selected, strict=True):
        found[t] = found[t] + m if t in found else m
    nothing = step.outputs[0].new_zeros(*shape[:2], 0, shape[-1])
    return torch.cat([nothing, *found.values()], 2), {t: k for k, t in enumerate(found)}


def whole(step: OperationRecord, shape: Sequence[int], m_output: Tensor | None, selected: Sequence[Tensor]) -> Tensor:
    """The output's multipliers at all steps, with those of single entries of it in their places."""
    if m_output is not None and not selected:
        return m_output
    whole = step.outputs[0].new_zeros(shape) if m_output is None else m_output.clone()
    for (axis, index), m in zip(step.selected, selected, strict=True):
        whole.select(axis + 2, index).add_(m)
    return whole


def _network(step: OperationRecord, settings: Settings) -> Network:
    """The network with what its runs on both sides left."""
    assert step.reference is not None
    data, sizes = step.arguments[0], settings.sizes
    if sizes is None:
        rows = data.shape[settings.row_axis] * (step.pairs.references if step.pairs.all_pairs else 1)
        sizes = (rows,) * data.shape[settings.time_axis]
    example, reference = step.memory, step.reference.memory
    steps = Steps(sizes, settings.batch_first)
    sides = example.traces[0].steps, reference.traces[0].steps
    pairing = Pairing.of(step.pairs, steps, *sides, step.reference.arguments[-1].alike.every is not None)
    return Network(settings.levels, example, reference, pairing)


@primitive(_rule, keeps_memory=True, batched_rule=True)
def recurrence(data: Tensor, *rest: Any) -> Any:
    """Run a network on a sequence, then one tensor (layers * directions, rows, units) per state, then the settings.

    Returns the output, of the sequence's form, and the last states.
    """
    *states, settings = rest
    alike, axis = settings.alike, settings.row_axis
    states = [alike.once(s, 1) for s in states]
    if settings.sizes is not None:
        output, last, memory = _packed(settings, settings.sizes, data, states)
        return (output, *last), memory
    every, once = data.shape[axis], alike.once(data, axis)
    once = once.transpose(0, 1) if settings.batch_first else once
    count, rows = once.shape[:2]
    output, last, memory = settings.begun.run(settings.levels, once.flatten(0, 1), states, Steps((rows,) * count))
    output = output.unflatten(0, (count, rows))
    output = output.transpose(0, 1) if settings.batch_first else output
    return (alike.all_of(output, axis, every), *(alike.all_of(s, 1, every) for s in last)), memory


def _packed(settings: Settings, sizes: tuple[int, ...], data: Tensor, states: list[Tensor]) -> Result:
    """Rows that are alike run once; where they end earlier than others, that is the beginning of one run."""
    alike, levels = settings.alike, settings.levels
    if alike.every is None:
        steps = Steps(tuple(size // alike.each for size in sizes))
        output, last, memory = run(levels, alike.once(data, 0), states, steps)
        return alike.all_of(output, 0, len(data)), [alike.all_of(s, 1, sizes[0]) for s in last], memory
    places = alike.places(sizes)
    first = torch.cat([step[: alike.every] for step in data.split(sizes)])
    output, _, memory = run(levels, first, states, Steps((alike.every,) * len(sizes)))
    ends = places[Steps(sizes).ends()]
    return output[places], states_after(memory, output, ends, len(states)), memory


# ---------------------------------------------------------------------- layers
def layer(cell: Cell) -> Callable[..., Any]:
    """Build ``torch.lstm``, ``torch.gru``, ``torch.rnn_tanh`` or ``torch.rnn_relu``, padded and packed."""

    def call(*args: Any, handed: RecurrentContext) -> Any:
        packed = isinstance(args[1], Tensor) and not args[1].is_floating_point() and not args[1].is_complex()
        if packed:
            data, batch_sizes, hx, weights, biases, layers, dropout, training, bidirectional = args
        else:
            data, hx, weights, biases, layers, dropout, training, bidirectional, batch_first = args
        if training and dropout and layers > 1:
            raise UnsupportedOperationError("dropout between recurrent layers is random: put the model into eval mode.")
        states = [hx] if cell.states == 1 else list(hx)
        levels = _levels(cell, weights, biases, layers, 2 if bidirectional else 1)
        if packed and len(sizes := batch_sizes.unique()) == 1:  # those that end together are padded ones
            steps = data.unflatten(0, (-1, int(sizes)))
            output, *last = recurrence(steps, *states, Settings(levels, begun=handed.begun))
            return (output.flatten(0, 1), *last)
        if packed:
            each_step = tuple(batch_sizes.tolist())
            grouped = handed.alike((data, 0), *((s, 1) for s in states), sizes=each_step)
            grouped = (
                RepeatedRows() if grouped.every and bidirectional else grouped
            )  # backwards they begin where they end
            return recurrence(data, *states, Settings(levels, each_step, alike=grouped))
        grouped = handed.alike((data, 0 if batch_first else 1), *((s, 1) for s in states))
        summed = handed.sums_of(data, batch_first, grouped.each)
        return recurrence(data, *states, Settings(levels, None, batch_first, grouped, handed.begun, summed))

    return call


def _levels(cell: Cell, weights: Any, biases: bool, layers: int, directions: int) -> list[list[Level]]:
    """Weights of every layer and direction, in torch's order."""
    refuse_varying(weights)
    size = len(weights) // (layers * directions)

    def level(depth: int, direction: int) -> Level:
        at = (depth * directions + direction) * size
        w_ih, w_hh, *others = (w.detach() for w in weights[at : at + size])
        b = (others.pop(0), others.pop(0)) if biases else (None, None)
        return Level(cell, Weights(w_ih, w_hh, *b, *others), backwards=direction == 1)

    return [[level(depth, direction) for direction in range(directions)] for depth in range(layers)]


def refuse_varying(weights: Any) -> None:
    """Weights are constants."""
    if any(w.grad_fn is not None for w in weights):
        raise UnsupportedOperationError("recurrent weights that depend on the input have no rule; write the cell out.")
