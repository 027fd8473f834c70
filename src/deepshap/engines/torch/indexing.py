"""Selection by indices that depend on the explained input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .activity import Surrogate, attach, index_mismatch, is_active_mask, lacks_values, surrogate_of, surrogate_values
from .calls import Call, place_of_call
from .composites.mask_indices import at_all_positions, presence_of
from .composites.positions import AT_POSITIONS
from .operations import CAST, COMPOSITE, LINEAR, Operation
from .tape import Tape
from .tree import detached, replace, tensors

# Operations whose further arguments are sizes, which may be counts that depend on the input.
SIZED = {"view", "reshape", "expand", "broadcast_to", "repeat", "tile", "unflatten"}


def at_positions(call: Call) -> Call:
    """Replace the operation of a call that selects by indices which depend on the input."""
    operation = AT_POSITIONS.get(call.name) if call.has_surrogates else None
    if operation is None or call.operation is None or not call.operation.indices:
        return call
    indices = _indices(call)
    if any(i.dtype == torch.bool for i in indices):
        operation = _at_masks(call, indices)
    elif any(presence_of(i) is not None for i in indices):
        operation = Operation(COMPOSITE, function=at_all_positions(call.name, call.function))
    elif not any(map(_has_values, indices)):
        operation = None
    return call if operation is None else call._replace(operation=operation)


def only_passes_on(call: Call, active: list[Tensor]) -> bool:
    """Return whether a call only reshapes or selects indices that differ between the sides."""
    if (
        not call.has_surrogates
        or call.operation is None
        or call.kind not in (LINEAR, CAST)
        or not all(map(lacks_values, active))
    ):
        return False
    return not call.operation.indices or all(presence_of(i) is None for i in _indices(call))


def _at_masks(call: Call, indices: list[Tensor]) -> Operation | None:
    """Return the operation for active masks; None for a mask that selects where a single number is written."""
    assert call.operation is not None
    if call.operation.masks is None or not any(map(is_active_mask, indices)):
        return None
    if call.name == "__setitem__" and is_active_mask(call.args[1]) and not getattr(call.args[2], "shape", ()):
        return None
    return Operation(COMPOSITE, function=call.operation.masks)


def _indices(call: Call) -> list[Tensor]:
    """Return the tensors that a call selects by; none for bounds of slices, which cannot differ."""
    if call.name in ("__getitem__", "__setitem__"):
        entries = call.args[1] if isinstance(call.args[1], (tuple, list)) else (call.args[1],)
        index_tensors = [t for e in entries if isinstance(e, (Tensor, list)) for t in tensors(e)]
        return index_tensors if len(index_tensors) == len(tensors(entries)) else []
    by_name = [call.kwargs[key] for key in ("index", "indices") if key in call.kwargs]
    return tensors((call.args[1:2] if call.name == "index_put" else call.args[1:3], by_name))


def _has_values(index: Tensor) -> bool:
    surrogate = surrogate_of(index)
    return surrogate is not None and surrogate.values is not None


def _repeats_by_counts(call: Call) -> bool:
    """Return whether the call is ``repeat_interleave(counts)``, which has no signal."""
    return call.name == "repeat_interleave" and len(call.args) == 1 and "repeats" not in call.kwargs


def equal_indices(call: Call, tape: Tape) -> Any:
    """Return the arguments with active indices checked to be equal on both sides, and then constant."""
    args, kwargs = call.args, call.kwargs
    sized = call.name in SIZED
    if not call.has_surrogates or call.operation is None or not (sized or call.operation.indices):
        return args, kwargs
    signal = [] if _repeats_by_counts(call) else [0, 2] if call.name in ("__setitem__", "index_put") else [0]

    def check_equal(tensor: Tensor) -> Any:
        if surrogate_values(tensor) is not None:
            tape.call(call.name)
            if not tape.equals_recorded(call.name, tensor.detach()):
                kind = "sizes" if sized else "lengths" if call.name == "_pack_padded_sequence" else "indices"
                raise index_mismatch(f"the {kind} of {tape.user_name(call.name).strip('_')}", kind)
            tensor = tensor.detach()
        return int(tensor) if sized else tensor

    new_args = tuple(a if i in signal else replace(a, check_equal) for i, a in enumerate(args))
    new_kwargs = {
        k: v if k in ("value", "values", "src", "source") else replace(v, check_equal) for k, v in kwargs.items()
    }
    return new_args, new_kwargs


def find_positions(call: Call, tape: Tape) -> Any:
    """Return the result of a call that finds positions, such as ``nonzero``; mark it if it differs from the reference's."""
    with torch.no_grad():
        result = call.function(*detached(call.args), **call.kwargs)
    tape.call(call.name)
    origin = f"{tape.user_name(call.name)} at {place_of_call()}"
    same, as_many = (tape.equals_recorded(call.name, v) for v in (result, [t.shape for t in tensors(result)]))
    if not (same or as_many):  # the model may use their number without a traced call
        raise index_mismatch(f"the numbers of what {origin} finds")
    for tensor in () if same else tensors(result):
        attach(tensor, Surrogate(origin=origin))
    return result
