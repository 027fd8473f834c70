"""Which values depend on the explained input ("active" values), floats by autograd's graph and integers by their carriers.

A float is active if autograd made it from the input by calls that the tracer has seen: the tracer marks the graph's nodes.
Autograd follows floats alone, so an integer or boolean tensor that depends on the input has a float tensor beside it, its
carrier, on which the same operations run.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import compress, count
from operator import not_
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils.weak import WeakTensorKeyDictionary

from ...errors import UnsupportedOperationError
from ._compat import base_of, is_view
from .calls import Call, place_of_call
from .operations import IndexMismatch
from .tree import detached, is_continuous, replace, tensors

MARK = "deepshap"  # of nodes of the graph, with the number of the value that they made
_numbers = count()
# What autograd puts between a view and its base when it makes a view's node anew, because the base was overwritten.
_VIEWS = (
    "Alias AsStrided Conj Diagonal Expand NegView Permute Real Imag Select Slice Split SplitWithSizes Squeeze "
    "Transpose T Unbind Unfold Unsqueeze View ViewAs ViewAsComplex ViewAsReal"
)
_VIEW_NODES = frozenset(f"{name}Backward{n}" for name in _VIEWS.split() for n in range(4))


def depends(tensor: Tensor) -> bool:
    """Whether autograd has made a tensor from something."""
    return tensor.requires_grad and tensor.grad_fn is not None


def varies(given: Iterable[Tensor]) -> list[bool]:
    """Of each tensor, whether autograd has made it from something."""
    return [t.requires_grad and t.grad_fn is not None for t in given]


def mark(tensor: Tensor) -> None:
    """Note that the tracer has seen a tensor being made, and number it; a base changes with its views."""
    for changed in (tensor, base_of(tensor)):
        node: Any = None if changed is None else changed.grad_fn
        if node is not None:
            node.metadata.setdefault(MARK, next(_numbers))


def next_number() -> int:
    """A number between those of the values that were made before and those of the ones to come."""
    return next(_numbers)


def is_followed(tensor: Tensor) -> bool:
    """Whether a tensor depends on the explained input by ways that the tracer has seen; by others it is an error."""
    node: Any = tensor.grad_fn if tensor.requires_grad else None
    if node is None or MARK in node.metadata:
        return node is not None
    while is_view(tensor) and MARK not in node.metadata and node.name() in _VIEW_NODES:
        node = node.next_functions[0][0]
    if MARK in node.metadata:
        return True
    if not _reaches_mark(node):
        return False
    name = node.name()
    if isinstance(node, BackwardCFunction):
        raise UnsupportedOperationError(
            f"a tensor used at {place_of_call()} depends on the explained input through a custom autograd function ({name}) "
            "whose call deepshap did not see, because it ran in another thread or torch called it in a new way. Call it in "
            "the thread that calls the model, or call its forward instead of apply."
        )
    raise UnsupportedOperationError(
        f"a tensor used at {place_of_call()} depends on the explained input through code that deepshap cannot see "
        f"({name}): a TorchScript module, a C++ extension, or another thread. Use the plain Python module, or wrap "
        "the code in a torch.autograd.Function and give that a rule with deepshap.register_rule."
    )


def _reaches_mark(node: Any) -> bool:
    stack, visited = [node], set()
    while stack:
        node = stack.pop()
        if node in visited:
            continue
        visited.add(node)
        if MARK in node.metadata:
            return True
        stack.extend(parent for parent, _ in node.next_functions if parent is not None)
    return False


class ActivityTracker:
    """Constants of which something is noted, as long as they live."""

    def __init__(self) -> None:
        self._known = WeakTensorKeyDictionary()
        self.some = False  # whether anything has been noted

    def note(self, tensors: Iterable[Tensor], what: Any = True) -> None:
        """Note something of some."""
        self.some = True
        self._known.update(dict.fromkeys(tensors, what))

    def of(self, given: Iterable[Tensor]) -> Any:
        """What is noted of the first of some of which anything is; None for others."""
        return next((self._known[t] for t in given if t in self._known), None) if self.some else None


class Memory:
    """The memory that holds values that depend on the input, to find tensors that share it behind autograd's back."""

    def __init__(self) -> None:
        self._held: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def hold(self, tensor: Tensor) -> None:
        """Note where a followed tensor lies."""
        if tensor.layout is torch.strided and not tensor.is_meta and tensor.numel():
            storage = tensor.untyped_storage()
            held = self._held.get(place := storage.data_ptr())
            if held is None or held() is not storage:  # that of a view is known
                self._held[place] = weakref.ref(storage)

    def check(self, name: str, passive: Iterable[Tensor]) -> None:
        """Raise if a tensor that is not followed lies where one that is followed does."""
        for tensor in passive:
            if tensor.layout is not torch.strided or tensor.is_meta:
                continue
            held = self._held.get(tensor.untyped_storage().data_ptr())
            if held is not None and held() is not None:
                raise UnsupportedOperationError(
                    f"a tensor that {name} takes at {place_of_call()} shares its memory with a value that depends on the "
                    "explained input, and torch does not know that it depends on it too (written through .data or a "
                    "detached alias, viewed as another dtype, taken from a storage or by DLPack). Write "
                    "to the tensor itself, or make a new one with torch's functions."
                )


TAG = "_deepshap"


@dataclass
class Tag:
    """What is known of an integer or boolean tensor that depends on the input.

    ``carrier`` is its value as floats, through which multipliers flow. Without one, ``origin`` says where the tensor
    came from, and using it is an error: it differs between example and reference and nothing can be attributed to it.

    ``present``: the tensor is a constant after all, an index of all places, and this tells, as floats, which of them the
    model means.
    """

    carrier: Tensor | None = None
    origin: str = ""
    present: Tensor | None = None


def tag_of(tensor: Any) -> Tag | None:
    """The tag of a tensor, if it has one."""
    return getattr(tensor, TAG, None)


def is_active(tensor: Tensor) -> bool:
    """Whether a value depends on the input."""
    return tag_of(tensor) is not None or is_followed(tensor)


def split_active(given: list[Tensor]) -> tuple[list[Tensor], list[Tensor], bool]:
    """Arguments that depend on the input, and those that do not; and whether any are integers that do."""
    tags = [getattr(tensor, TAG, None) for tensor in given]
    active = [tag is not None or is_followed(tensor) for tensor, tag in zip(given, tags, strict=True)]
    return [*compress(given, active)], [*compress(given, map(not_, active))], any(tags)


def loses_signal(args: Any, result: Any) -> bool:
    """Whether torch stops following the signal here; a constant that only takes its shape is none."""
    if not isinstance(result, Tensor) or result.grad_fn is not None or tag_of(result) is not None:
        return False
    signal = args[0] if args else None
    return isinstance(signal, Tensor) and is_active(signal)


def give(tensor: Tensor, tag: Tag) -> Tensor:
    """Attach a tag."""
    tensor._deepshap = tag  # type: ignore[attr-defined]
    return tensor


def carried(tensor: Tensor, carrier: Tensor) -> Tensor:
    """Attach a carrier to a tensor, of which there are views where there are views of the tensor."""
    carrier = carrier.contiguous() if tensor.is_contiguous() else carrier
    mark(carrier)
    return give(tensor, Tag(carrier))


def is_lost(tensor: Tensor) -> bool:
    """Whether a tensor differs between the sides and has no carrier."""
    tag = tag_of(tensor)
    return tag is not None and tag.carrier is None


def carrier_of(tensor: Any) -> Tensor | None:
    """The carrier of a tensor; None for one that does not depend on the input, or is followed itself."""
    tag = tag_of(tensor)
    if tag is None or tag.present is not None:
        return None
    if tag.carrier is None:
        raise unsettled(f"the indices from {tag.origin}")
    return tag.carrier


INSTEAD = {
    "sizes": "A size has no attribution: let it be the same for all rows, or pass it as additional_forward_args.",
    "indices": "A selection that depends on the input in this way cannot be attributed: take the values themselves (max, topk, "
    "sort return them), or pass the indices as additional_forward_args.",
    "lengths": "Let pack_padded_sequence sort the rows (enforce_sorted=False); or pass the lengths as additional_forward_args, "
    "which example and reference share; or leave the packing out and keep what a step beyond the length would change: "
    "torch.where(step < lengths, new, old).",
}


def unsettled(what: str, instead: str = "indices") -> IndexMismatch:
    """The error for a selection that differs between the sides."""
    return IndexMismatch(
        f"{what} differ between example and reference and are used at {place_of_call()}. {INSTEAD[instead]}"
    )


def on_carriers(call: Call, args: Any, kwargs: Any, run: Callable[..., Any], rounds: bool = False) -> Any:
    """Run a call's function with integer and boolean inputs replaced by their carriers, and tag what it returns."""
    function = call.own
    tagged = call.tagged and any(map(tag_of, tensors((args, kwargs))))
    if not (rounds or tagged):  # most calls have none at all
        return run(function, args, kwargs, call.given)
    with torch.no_grad():
        native = function(*detached(args), **kwargs)
    if not tagged and isinstance(native, Tensor) and is_continuous(native.dtype):
        return run(function, args, kwargs, call.given)
    if not isinstance(native, Tensor):
        substituted = replace((args, kwargs), _as_float)
        return _tagged_again(native, run(function, *substituted, tensors(substituted)))
    if is_continuous(native.dtype):
        substituted = replace((args, kwargs), lambda t: _as_float(t, native.dtype))
        return run(function, *substituted, tensors(substituted))
    on_floats = _through_integers(function, args, kwargs) if rounds else function
    kwargs = {k: v for k, v in kwargs.items() if k != "dtype"}
    substituted = replace((args, kwargs), _as_float)
    return carried(native, run(on_floats, *substituted, tensors(substituted)))


def _as_float(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    carrier = carrier_of(tensor)
    if carrier is None:
        return tensor
    return carrier if dtype is None else carrier.to(dtype)


def _through_integers(function: Any, args: Any, kwargs: Any) -> Callable[..., Any]:
    """Evaluate on carriers as the model does on integers and booleans, and return floats."""
    dtypes = [t.dtype for t in tensors((args, kwargs))]

    def evaluate(*positional: Any, **keywords: Any) -> Tensor:
        original = iter(dtypes)
        back = replace((positional, keywords), lambda t: t.to(next(original)))
        return function(*back[0], **{**kwargs, **back[1]}).double()

    evaluate.wraps_around = True  # type: ignore[attr-defined] # as integers do that are too large for their dtype
    return evaluate


def _tagged_again(native: Any, result: Any) -> Any:
    """Give each tensor of a multi-output result its native dtype back, with carriers where it is no float."""
    if isinstance(native, Tensor):
        if is_continuous(native.dtype):
            return result.to(native.dtype)
        return carried(native, result) if depends(result) else native
    if isinstance(native, (tuple, list)):
        joined = [_tagged_again(a, b) for a, b in zip(native, result, strict=True)]
        return type(native)(joined) if type(native) in (tuple, list) else tuple(joined)
    return result


def pass_on(call: Call, lost: Tensor) -> Any:
    """Reshape or select indices that differ between the sides: only their use is an error."""
    result = call.function(*detached(call.args), **call.kwargs)
    for tensor in tensors(result):
        give(tensor, lost._deepshap)  # type: ignore[attr-defined]
    return result


def is_varying_mask(index: Any) -> bool:
    """Whether an index is a mask that depends on the input."""
    return isinstance(index, Tensor) and index.dtype == torch.bool and tag_of(index) is not None


def in_memory_of_its_own(tensor: Tensor) -> Tensor:
    """Torch's own function would return new memory in order, on which views and in-place code work."""
    if tensor.is_contiguous() and not is_view(tensor):
        return tensor
    copy, tag = tensor.clone(memory_format=torch.contiguous_format), tag_of(tensor)
    if tag is None or tag.carrier is None:
        return copy if tag is None else give(copy, tag)
    return carried(copy, tag.carrier)
