"""Selection by indices that depend on the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .activity import Tag, carrier_of, give, is_lost, is_varying_mask, tag_of, unsettled
from .calls import Call, place_of_call
from .composites.mask_indices import at_all_positions, presence_of
from .composites.positions import AT_POSITIONS
from .operations import CAST, COMPOSITE, LINEAR, Operation
from .tape import Tape
from .tree import detached, replace, tensors

# Whose further arguments are sizes, which may be counts that depend on the input.
SIZED = {"view", "reshape", "expand", "broadcast_to", "repeat", "tile", "unflatten"}


def at_positions(call: Call) -> Call:
    """Let a call that selects by integers which depend on the input follow what it is composed of."""
    own = AT_POSITIONS.get(call.name) if call.tagged else None
    if own is None or call.operation is None or not call.operation.indices:
        return call
    indices = _indices(call)
    if any(i.dtype == torch.bool for i in indices):
        own = _at_masks(call, indices)
    elif any(presence_of(i) is not None for i in indices):
        own = Operation(COMPOSITE, function=at_all_positions(call.name, call.function))
    elif not any(map(_has_carrier, indices)):
        own = None
    return call if own is None else call._replace(operation=own)


def only_passes_on(call: Call, active: list[Tensor]) -> bool:
    """Whether a call reshapes indices that differ, or takes some of them: only their use is an error."""
    if not call.tagged or call.operation is None or call.kind not in (LINEAR, CAST) or not all(map(is_lost, active)):
        return False
    return not call.operation.indices or all(presence_of(i) is None for i in _indices(call))


def _at_masks(call: Call, indices: list[Tensor]) -> Operation | None:
    """Masks that are not taken as they are; one that chooses where a single number is written is a condition."""
    assert call.operation is not None
    if call.operation.masks is None or not any(map(is_varying_mask, indices)):
        return None
    if call.name == "__setitem__" and is_varying_mask(call.args[1]) and not getattr(call.args[2], "shape", ()):
        return None
    return Operation(COMPOSITE, function=call.operation.masks)


def _indices(call: Call) -> list[Tensor]:
    """The tensors that a call selects by; none where they are bounds of slices, which cannot differ."""
    if call.name in ("__getitem__", "__setitem__"):
        entries = call.args[1] if isinstance(call.args[1], (tuple, list)) else (call.args[1],)
        own = [t for e in entries if isinstance(e, (Tensor, list)) for t in tensors(e)]
        return own if len(own) == len(tensors(entries)) else []
    by_name = [call.kwargs[key] for key in ("index", "indices") if key in call.kwargs]
    return tensors((call.args[1:2] if call.name == "index_put" else call.args[1:3], by_name))


def _has_carrier(index: Tensor) -> bool:
    tag = tag_of(index)
    return tag is not None and tag.carrier is not None


def _is_of_counts(call: Call) -> bool:
    """Whether it is ``repeat_interleave(counts)``, which has no signal."""
    return call.name == "repeat_interleave" and len(call.args) == 1 and "repeats" not in call.kwargs


def settled_indices(call: Call, tape: Tape) -> Any:
    """Indices that depend on the input must select the same on both sides; then they are constants."""
    args, kwargs = call.args, call.kwargs
    sized = call.name in SIZED
    if not call.tagged or call.operation is None or not (sized or call.operation.indices):
        return args, kwargs
    signal = [] if _is_of_counts(call) else [0, 2] if call.name in ("__setitem__", "index_put") else [0]

    def settle(tensor: Tensor) -> Any:
        if carrier_of(tensor) is not None:
            tape.call(call.name)
            if not tape.is_same(call.name, tensor.detach()):
                kind = "sizes" if sized else "lengths" if call.name == "_pack_padded_sequence" else "indices"
                raise unsettled(f"the {kind} of {tape.known_as(call.name).strip('_')}", kind)
            tensor = tensor.detach()
        return int(tensor) if sized else tensor

    settled = tuple(a if i in signal else replace(a, settle) for i, a in enumerate(args))
    kept = {k: v if k in ("value", "values", "src", "source") else replace(v, settle) for k, v in kwargs.items()}
    return settled, kept


def places_found(call: Call, tape: Tape) -> Any:
    """What a call finds that returns places, as ``nonzero`` does; where they are not those of the reference, they say so."""
    with torch.no_grad():
        result = call.function(*detached(call.args), **call.kwargs)
    tape.call(call.name)
    origin = f"{tape.known_as(call.name)} at {place_of_call()}"
    same, as_many = (tape.is_same(call.name, v) for v in (result, [t.shape for t in tensors(result)]))
    if not (same or as_many):  # their number may be used, which nothing shows
        raise unsettled(f"the numbers of what {origin} finds")
    for tensor in () if same else tensors(result):
        give(tensor, Tag(origin=origin))
    return result
