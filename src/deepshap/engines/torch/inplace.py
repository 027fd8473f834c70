"""In-place writes, and the old values that rules still need."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from ...errors import UnsupportedOperationError
from ._compat import is_view
from .activity import attach, surrogate_of, surrogate_values, with_surrogate
from .calls import place_of_call
from .operations import IndexMismatch, OperationRecord
from .tape import Tape
from .tree import is_continuous, tensors


class InplaceWrites:
    """Tracks which operation records, and which constants on a tape, have values in which storage."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._records_at: defaultdict[int, list[OperationRecord]] = defaultdict(list)
        self._registered = 0  # number of records whose storages are known; most models overwrite nothing

    def _register_records(self) -> None:
        for record in self._tape.records[self._registered :]:
            for tensor in tensors(record.saved()):
                self._records_at[tensor.untyped_storage().data_ptr()].append(record)
        self._registered = len(self._tape.records)

    def before(self, target: Tensor) -> None:
        """Copy what is about to be overwritten, in records and tape."""
        self._tape.copy_constants(target)
        self._register_records()
        storage = target.untyped_storage().data_ptr()
        for record in self._records_at.pop(storage, ()):
            record.save_from_overwriting(storage)

    def overwrite(self, target: Tensor, result: Tensor) -> Tensor:
        """Copy a result into its target, so that autograd follows the copy."""
        self.before(target)
        if target.shape != result.shape and not target.numel():  # out=torch.empty(0)
            with torch.no_grad():
                target.resize_(result.shape)
        surrogate = surrogate_of(result)
        if surrogate is None:
            target.copy_(result)
            return target
        if is_view(target):
            raise UnsupportedOperationError(
                f"an in-place change of a view of an integer or boolean tensor at {place_of_call()}: "
                "write it out of place (for instance with torch.where)."
            )
        with torch.no_grad():
            target.copy_(result)
        return attach(target, surrogate)

    def set_item(self, function: Any, target: Tensor, index: Any, value: Any) -> None:
        """Run ``target[index] = value``."""
        new_values = surrogate_values(value) if isinstance(value, Tensor) else None
        if is_continuous(target.dtype):
            function(target, index, value if new_values is None else new_values.to(target.dtype))
            return
        replaced = target.clone()
        old_values = surrogate_values(target)
        floats = target.double() if old_values is None else old_values.clone()
        with torch.no_grad():
            function(replaced, index, value)
        function(floats, index, value if new_values is None else new_values)
        self.overwrite(target, with_surrogate(replaced, floats))


def masked(target: Tensor, mask: Tensor, value: Any) -> Tensor:
    """Return the target after ``target[mask] = value``, for a mask that depends on the input."""
    if isinstance(value, Tensor) and value.dim():
        raise IndexMismatch(
            f"an assignment of several values through a mask that depends on the input at {place_of_call()}: use torch.where."
        )
    return torch.where(mask.reshape(*mask.shape, *[1] * (target.dim() - mask.dim())), value, target)
