"""Packed sequences whose lengths depend on the explained input.

They run as padded sequences, in which the steps beyond the length of a row change nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from traceback import walk_stack
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import rnn

from ....errors import UnsupportedOperationError
from .._compat import interception_off
from ..activity import surrogate_of
from ..calls import is_ours
from ..operations import COMPOSITE, Operation
from . import packing, reductions

CELLS: dict[str, Callable[..., Any]] = {
    "lstm": torch.lstm_cell,
    "gru": torch.gru_cell,
    "rnn_tanh": torch.rnn_tanh_cell,
    "rnn_relu": torch.rnn_relu_cell,
}


def length_operations(layers: dict[str, Operation]) -> dict[Any, Operation]:
    """Return the operations that replace packing, recurrent layers and unpacking where lengths differ."""
    return {
        "sort": Operation(COMPOSITE, function=sort),
        "_pack_padded_sequence": Operation(COMPOSITE, function=pack),
        "_pad_packed_sequence": Operation(COMPOSITE, function=unpack),
        **{
            name: Operation(COMPOSITE, function=partial(run, cell, layers[name].function), recurrent=True)
            for name, cell in CELLS.items()
        },
    }


def lengths_of(sizes: Any) -> Tensor | None:
    """Return the lengths that belong to batch sizes, if they depend on the explained input."""
    return getattr(sizes, "_deepshap_lengths", None)


def sort(input: Tensor, *args: Any, **options: Any) -> Any:
    """Sort values, except lengths that are about to be packed: ``pack`` needs no order."""
    if surrogate_of(input) is None or not _is_packing():
        return reductions.sort(input, *args, **options)
    return input.clone(), torch.arange(len(input), device=input.device)


def _is_packing() -> bool:
    """Return whether ``torch.nn.utils.rnn.pack_padded_sequence`` makes the traced call."""
    caller = next((frame for frame, _ in walk_stack(inspect.currentframe()) if not is_ours(frame)), None)
    return caller is not None and caller.f_code.co_name == "pack_padded_sequence" and caller.f_globals is vars(rnn)


def pack(input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """Concatenate all steps of all rows; the batch sizes hold the lengths if these depend on the explained input."""
    if surrogate_of(lengths) is None:
        return packing.pack(input, lengths, batch_first)
    by_step = input.transpose(0, 1) if batch_first else input
    with interception_off():
        sizes: Any = torch.full((int(lengths.max()),), len(lengths))
    sizes._deepshap_lengths = lengths
    return by_step.flatten(0, 1), sizes


def unpack(data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int) -> Any:
    """Return the steps of each row, and padding after its end."""
    lengths = lengths_of(batch_sizes)
    if lengths is None:
        return packing.unpack(data, batch_sizes, batch_first, padding_value, total_length)
    padded, _ = packing.unpack(
        data, batch_sizes.new_full((len(data) // len(lengths),), len(lengths)), False, padding_value, total_length
    )
    padded = padded[:total_length]
    inside = (torch.arange(total_length, device=lengths.device)[:, None] < lengths).to(data.device)
    padded = torch.where(inside.reshape(*inside.shape, *[1] * (padded.dim() - 2)), padded, padding_value)
    return padded.transpose(0, 1) if batch_first else padded, lengths


def run(cell: Any, layer: Any, data: Tensor, sizes: Any, *rest: Any, **options: Any) -> Any:
    """Run a recurrent network step by step; after the end of a row its states stay constant."""
    lengths = lengths_of(sizes)
    if lengths is None:
        return layer(data, sizes, *rest, **options)
    hx, weights, biases, layers, _, _, bidirectional = rest
    per_layer, directions = (4 if biases else 2), 2 if bidirectional else 1
    if len(weights) != per_layer * layers * directions:
        raise UnsupportedOperationError(
            "an LSTM with proj_size has no rule where lengths of packed rows depend on the input."
        )
    steps = data.unflatten(0, (-1, len(lengths)))
    inside = [(lengths > t).to(data.device).unsqueeze(-1) for t in range(len(steps))]
    states, last = (list(hx) if isinstance(hx, (tuple, list)) else [hx]), []
    for depth in range(layers):
        outputs = []
        for k in range(depth * directions, (depth + 1) * directions):
            layer_cell = partial(cell_of(cell), weights=weights[k * per_layer : (k + 1) * per_layer])
            output, state = run_direction(
                layer_cell, steps, inside, [s[k] for s in states], backwards=k % directions == 1
            )
            outputs.append(output)
            last.append(state)
        steps = torch.cat(outputs, -1)
    return (steps.flatten(0, 1), *(torch.stack(s) for s in zip(*last, strict=True)))


def cell_of(cell: Any) -> Callable[..., list[Tensor]]:
    """Return the cell as a function from a list of states to a list of states."""

    def step(x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
        new = cell(x, tuple(states) if len(states) > 1 else states[0], *weights)
        return list(new) if isinstance(new, tuple) else [new]

    return step


def run_direction(
    record: Callable[..., list[Tensor]], x: Tensor, inside: list[Tensor], states: list[Tensor], backwards: bool
) -> tuple[Tensor, list[Tensor]]:
    """Return the outputs of all steps in one direction, and the last states of each row."""
    outputs: dict[int, Tensor] = {}
    for t in reversed(range(len(x))) if backwards else range(len(x)):
        new = record(x[t], states)
        states = [torch.where(inside[t], *pair) for pair in zip(new, states, strict=True)]
        outputs[t] = torch.where(inside[t], new[0], 0.0)
    return torch.stack([outputs[t] for t in range(len(x))]), states
