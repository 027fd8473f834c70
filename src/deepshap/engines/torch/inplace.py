"""In-place code: what it writes to, and old values that are still needed."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from ...errors import UnsupportedOperationError
from ._compat import is_view
from .activity import carried, carrier_of, give, tag_of
from .calls import place_of_call
from .operations import IndexMismatch, OperationRecord
from .tape import Tape
from .tree import is_continuous, tensors


class InplaceWrites:
    """Knows which steps, and which constants on a tape, have values in which memory."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._steps_at: defaultdict[int, list[OperationRecord]] = defaultdict(list)
        self._looked_at = 0  # steps of the tape whose memory is known; most models overwrite nothing

    def _look_at_steps(self) -> None:
        for step in self._tape.steps[self._looked_at :]:
            for tensor in tensors(step.kept()):
                self._steps_at[tensor.untyped_storage().data_ptr()].append(step)
        self._looked_at = len(self._tape.steps)

    def before(self, target: Tensor) -> None:
        """Let steps and tape copy what is about to be overwritten."""
        self._tape.overwrites(target)
        self._look_at_steps()
        storage = target.untyped_storage().data_ptr()
        for step in self._steps_at.pop(storage, ()):
            step.save_from_overwriting(storage)

    def overwrite(self, target: Tensor, result: Tensor) -> Tensor:
        """Copy a result into its target, and let autograd follow the copy."""
        self.before(target)
        if target.shape != result.shape and not target.numel():  # out=torch.empty(0)
            with torch.no_grad():
                target.resize_(result.shape)
        tag = tag_of(result)
        if tag is None:
            target.copy_(result)
            return target
        if is_view(target):
            raise UnsupportedOperationError(
                f"an in-place change of a view of an integer or boolean tensor at {place_of_call()}: "
                "write it out of place (for instance with torch.where)."
            )
        with torch.no_grad():
            target.copy_(result)
        return give(target, tag)

    def set_item(self, function: Any, target: Tensor, index: Any, value: Any) -> None:
        """``target[index] = value``."""
        carrier = carrier_of(value) if isinstance(value, Tensor) else None
        if is_continuous(target.dtype):
            function(target, index, value if carrier is None else carrier.to(target.dtype))
            return
        replaced = target.clone()
        tagged = carrier_of(target)
        floats = target.double() if tagged is None else tagged.clone()
        with torch.no_grad():
            function(replaced, index, value)
        function(floats, index, value if carrier is None else carrier)
        self.overwrite(target, carried(replaced, floats))


def masked(target: Tensor, mask: Tensor, value: Any) -> Tensor:
    """What ``target[mask] = value`` makes of the target, by a mask that depends on the input."""
    if isinstance(value, Tensor) and value.dim():
        raise IndexMismatch(
            f"an assignment of several values through a mask that depends on the input at {place_of_call()}: use torch.where."
        )
    return torch.where(mask.reshape(*mask.shape, *[1] * (target.dim() - mask.dim())), value, target)
