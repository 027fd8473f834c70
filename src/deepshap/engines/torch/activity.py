"""Which values depend on the explained input ("active" values).

A floating-point tensor is active if autograd computed it from the input in calls that the tracer saw: the tracer marks
the nodes of autograd's graph. Autograd does not follow integers and booleans. An integer tensor that depends on the
input therefore has a surrogate, a float tensor with the same values on which the same operations run.
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
from .calls import detached, is_continuous, place_of_call, replace, tensors
from .operations import Call, IndexMismatch

MARK = "deepshap"  # key in the metadata of marked nodes
_numbers = count()
# Nodes that autograd inserts between a view and its base when the base was overwritten.
_VIEWS = (
    "Alias AsStrided Conj Diagonal Expand NegView Permute Real Imag Select Slice Split SplitWithSizes Squeeze "
    "Transpose T Unbind Unfold Unsqueeze View ViewAs ViewAsComplex ViewAsReal"
)
_VIEW_NODES = frozenset(f"{name}Backward{n}" for name in _VIEWS.split() for n in range(4))


def has_history(tensor: Tensor) -> bool:
    """Return whether autograd computed a tensor from others."""
    return tensor.requires_grad and tensor.grad_fn is not None


def have_history(values: Iterable[Tensor]) -> list[bool]:
    """Return for each tensor whether autograd computed it from others."""
    return [t.requires_grad and t.grad_fn is not None for t in values]


def mark_active(tensor: Tensor) -> None:
    """Mark the node of a tensor that the tracer saw, and that of its base, which changes with its views."""
    for changed in (tensor, base_of(tensor)):
        node: Any = None if changed is None else changed.grad_fn
        if node is not None:
            node.metadata.setdefault(MARK, next(_numbers))


def next_number() -> int:
    """Return a number after those of earlier values and before those of later ones."""
    return next(_numbers)


def is_traced(tensor: Tensor) -> bool:
    """Return whether a tensor depends on the explained input through traced calls; raise an error if through other code."""
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
    """Notes about constants, kept as long as the tensors live."""

    def __init__(self) -> None:
        self._notes = WeakTensorKeyDictionary()
        self.any_noted = False

    def note(self, tensors: Iterable[Tensor], content: Any = True) -> None:
        """Attach a note to tensors."""
        self.any_noted = True
        self._notes.update(dict.fromkeys(tensors, content))

    def of(self, tensors: Iterable[Tensor]) -> Any:
        """Return the note of the first tensor that has one, or None."""
        return next((self._notes[t] for t in tensors if t in self._notes), None) if self.any_noted else None


class StorageRegistry:
    """The storages of active values, to find tensors that share their memory without autograd's knowledge."""

    def __init__(self) -> None:
        self._held: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def add(self, tensor: Tensor) -> None:
        """Register the storage of an active tensor."""
        if tensor.layout is torch.strided and not tensor.is_meta and tensor.numel():
            storage = tensor.untyped_storage()
            held = self._held.get(address := storage.data_ptr())
            if held is None or held() is not storage:  # a view has the storage of its base
                self._held[address] = weakref.ref(storage)

    def check(self, name: str, passive: Iterable[Tensor]) -> None:
        """Raise an error if a tensor that is not active shares its storage with one that is."""
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


ATTRIBUTE = "_deepshap"


@dataclass
class Surrogate:
    """Stands for an integer or boolean tensor that depends on the explained input.

    Attributes
    ----------
    values : the tensor's values as floats, through which multipliers flow. If None, using the tensor is an error: it differs
        between example and reference, and nothing can be attributed to it.
    origin : the call that returned a tensor without ``values``.
    present : set for an index of all positions, which is constant: floats that say which positions the model selects.
    """

    values: Tensor | None = None
    origin: str = ""
    present: Tensor | None = None


def surrogate_of(tensor: Any) -> Surrogate | None:
    """Return the surrogate of a tensor, or None."""
    return getattr(tensor, ATTRIBUTE, None)


def is_active(tensor: Tensor) -> bool:
    """Return whether a tensor depends on the explained input."""
    return surrogate_of(tensor) is not None or is_traced(tensor)


def split_active(operands: list[Tensor]) -> tuple[list[Tensor], list[Tensor], bool]:
    """Split tensors into active and passive ones, and return whether any of them have surrogates."""
    surrogates = [getattr(tensor, ATTRIBUTE, None) for tensor in operands]
    active = [
        surrogate is not None or is_traced(tensor) for tensor, surrogate in zip(operands, surrogates, strict=True)
    ]
    return [*compress(operands, active)], [*compress(operands, map(not_, active))], any(surrogates)


def loses_signal(args: Any, result: Any) -> bool:
    """Return whether torch loses track of the signal in a call; a constant that only has its shape is none."""
    if not isinstance(result, Tensor) or result.grad_fn is not None or surrogate_of(result) is not None:
        return False
    signal = args[0] if args else None
    return isinstance(signal, Tensor) and is_active(signal)


def attach(tensor: Tensor, surrogate: Surrogate) -> Tensor:
    """Attach a surrogate to a tensor."""
    tensor._deepshap = surrogate  # type: ignore[attr-defined]
    return tensor


def with_surrogate(tensor: Tensor, values: Tensor) -> Tensor:
    """Attach a surrogate with these values; it has views where the tensor has views."""
    values = values.contiguous() if tensor.is_contiguous() else values
    mark_active(values)
    return attach(tensor, Surrogate(values))


def lacks_values(tensor: Tensor) -> bool:
    """Return whether a tensor differs between the sides and has no surrogate values."""
    surrogate = surrogate_of(tensor)
    return surrogate is not None and surrogate.values is None


def surrogate_values(tensor: Any) -> Tensor | None:
    """Return the surrogate values of a tensor; None for a constant or a float."""
    surrogate = surrogate_of(tensor)
    if surrogate is None or surrogate.present is not None:
        return None
    if surrogate.values is None:
        raise index_mismatch(f"the indices from {surrogate.origin}")
    return surrogate.values


ADVICE = {
    "sizes": "A size has no attribution: let it be the same for all rows, or pass it as additional_forward_args.",
    "indices": "A selection that depends on the input in this way cannot be attributed: take the values themselves (max, topk, "
    "sort return them), or pass the indices as additional_forward_args.",
    "lengths": "Let pack_padded_sequence sort the rows (enforce_sorted=False); or pass the lengths as additional_forward_args, "
    "which example and reference share; or leave the packing out and keep what a step beyond the length would change: "
    "torch.where(step < lengths, new, old).",
}


def index_mismatch(what: str, advice: str = "indices") -> IndexMismatch:
    """Return the error for a selection that differs between the sides."""
    return IndexMismatch(
        f"{what} differ between example and reference and are used at {place_of_call()}. {ADVICE[advice]}"
    )


def run_on_surrogates(call: Call, args: Any, kwargs: Any, run: Callable[..., Any], rounds: bool = False) -> Any:
    """Run a call with integer and boolean inputs replaced by their surrogates, and attach surrogates to its results."""
    function = call.implementation
    has_surrogates = call.has_surrogates and any(map(surrogate_of, tensors((args, kwargs))))
    if not (rounds or has_surrogates):  # most calls
        return run(function, args, kwargs, call.operands)
    with torch.no_grad():
        native = function(*detached(args), **kwargs)
    if not has_surrogates and isinstance(native, Tensor) and is_continuous(native.dtype):
        return run(function, args, kwargs, call.operands)
    if not isinstance(native, Tensor):
        substituted = replace((args, kwargs), _substitute)
        return _restore_dtypes(native, run(function, *substituted, tensors(substituted)))
    if is_continuous(native.dtype):
        substituted = replace((args, kwargs), lambda t: _substitute(t, native.dtype))
        return run(function, *substituted, tensors(substituted))
    on_floats = _through_integers(function, args, kwargs) if rounds else function
    kwargs = {k: v for k, v in kwargs.items() if k != "dtype"}
    substituted = replace((args, kwargs), _substitute)
    return with_surrogate(native, run(on_floats, *substituted, tensors(substituted)))


def _substitute(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    values = surrogate_values(tensor)
    if values is None:
        return tensor
    return values if dtype is None else values.to(dtype)


def _through_integers(function: Any, args: Any, kwargs: Any) -> Callable[..., Any]:
    """Return a function that computes on integers and booleans as the model does, from floats to floats."""
    dtypes = [t.dtype for t in tensors((args, kwargs))]

    def evaluate(*positional: Any, **keywords: Any) -> Tensor:
        original = iter(dtypes)
        cast = replace((positional, keywords), lambda t: t.to(next(original)))
        return function(*cast[0], **{**kwargs, **cast[1]}).double()

    evaluate.wraps_around = True  # type: ignore[attr-defined] # integers overflow in their dtype
    return evaluate


def _restore_dtypes(native: Any, result: Any) -> Any:
    """Give each tensor of a result its native dtype, with a surrogate if that is no float."""
    if isinstance(native, Tensor):
        if is_continuous(native.dtype):
            return result.to(native.dtype)
        return with_surrogate(native, result) if has_history(result) else native
    if isinstance(native, (tuple, list)):
        items = [_restore_dtypes(a, b) for a, b in zip(native, result, strict=True)]
        return type(native)(items) if type(native) in (tuple, list) else tuple(items)
    return result


def pass_without_values(call: Call, source: Tensor) -> Any:
    """Reshape or select indices that differ between the sides; only their use is an error."""
    result = call.function(*detached(call.args), **call.kwargs)
    for tensor in tensors(result):
        attach(tensor, source._deepshap)  # type: ignore[attr-defined]
    return result


def is_active_mask(index: Any) -> bool:
    """Return whether an index is a mask that depends on the explained input."""
    return isinstance(index, Tensor) and index.dtype == torch.bool and surrogate_of(index) is not None


def as_new_tensor(tensor: Tensor) -> Tensor:
    """Copy a view or a tensor that is not contiguous, because torch's own function would return new contiguous memory."""
    if tensor.is_contiguous() and not is_view(tensor):
        return tensor
    copy, surrogate = tensor.clone(memory_format=torch.contiguous_format), surrogate_of(tensor)
    if surrogate is None or surrogate.values is None:
        return copy if surrogate is None else attach(copy, surrogate)
    return with_surrogate(copy, surrogate.values)
