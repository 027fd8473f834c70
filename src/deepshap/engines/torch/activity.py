"""Which values depend on the explained input: autograd's graph, marked wherever the tracer has seen it being made."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils.weak import WeakTensorKeyDictionary

from ...errors import UnsupportedOperationError
from ._compat import base_of, is_view
from .calls import place_of_call

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


class Noted:
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
