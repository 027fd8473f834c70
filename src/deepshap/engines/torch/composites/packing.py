"""Packed sequences of equal length, as padded sequences in another layout.

torch packs and unpacks in native code, for one batch. When all rows of a batch have the same length, packing is a
transposition, which also works for a batch of several references at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._compat import pack_padded_sequence, pad_packed_sequence


def pack(input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """Return the time steps of padded rows one after the other, and the number of rows at each step."""
    steps, padded_steps = int(lengths[0]), input.shape[1 if batch_first else 0]
    if not 0 < steps <= padded_steps or bool((lengths != steps).any()):
        return pack_padded_sequence(input, lengths, batch_first)
    by_step = input.transpose(0, 1) if batch_first else input
    return by_step[:steps].flatten(0, 1), torch.full((steps,), len(lengths), dtype=torch.int64)


def unpack(
    data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int
) -> tuple[Tensor, Tensor]:
    """Return the padded rows of a packed batch, and the length of each row."""
    rows, steps = int(batch_sizes[0]), len(batch_sizes)
    if bool((batch_sizes != rows).any()):
        return pad_packed_sequence(data, batch_sizes, batch_first, padding_value, total_length)
    by_step = data.unflatten(0, (steps, rows))
    padding = data.new_full((max(total_length - steps, 0), *by_step.shape[1:]), padding_value)
    padded = torch.cat([by_step, padding])
    return padded.transpose(0, 1) if batch_first else padded, torch.full((rows,), steps, dtype=torch.int64)
