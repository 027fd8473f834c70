"""What shows that a model is what it was: a run that makes the same calls, in order, of as many rows.

Python code sees of a row's values only what is the same for the references, or the tape says that the two differ. So where a run
of examples takes the same way through the same operations, with the same constants, numbers and words, as one of as many rows
did when the model was known, the references would take theirs again, and have the outputs that they had.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from .activity import next_number, number_of
from .carriers import tag_of
from .foreign import ForeignCall
from .names import Spelling
from .tape import fingerprint
from .tree import LEAVES, TENSORS


class _Untold(Exception):
    """Something that cannot be compared with what it is in another run."""


class Witness:
    """The calls of a run, each with what it takes: values made before it, by their numbers, constants, numbers and words.

    ``held`` are the ids of the weights and buffers whose contents are compared in every call of the explainer.
    """

    def __init__(self, held: Collection[int]) -> None:
        self._held, self._first = held, next_number()
        self.calls: list[Any] | None = []  # None where something could not be told

    def note(self, what: Any, taken: Any) -> None:
        """Note a call, or the output."""
        if self.calls is None:
            return
        try:
            self.calls.append((what, self._told(taken)))
        except _Untold:
            self.calls = None

    def call(
        self, function: Callable[..., Any], spelling: Spelling | None, known: bool, args: Any, kwargs: Any
    ) -> None:
        """Note a call of a function of torch's, or of a custom one, which is followed unless a rule for it is ``known``."""
        if spelling is not None or hasattr(function, "operation"):
            self.note(function, (args, kwargs))
        elif isinstance(function, ForeignCall) and function.is_custom and not known:
            self.note(function.key, (args, kwargs))
        else:
            self.calls = None

    def _told(self, value: Any) -> Any:
        kind = type(value)
        if kind in TENSORS:
            return self._of_tensor(value)
        if kind is float or kind is complex:
            return repr(value)  # zeros have signs, and what is no number equals nothing
        if kind in LEAVES:
            return kind, value
        if kind is tuple or kind is list or kind is torch.Size:
            return [kind, *map(self._told, value)]
        if kind is dict:
            return [(key, self._told(item)) for key, item in value.items()]
        if kind is slice:
            return [kind, self._told(value.start), self._told(value.stop), self._told(value.step)]
        raise _Untold

    def _of_tensor(self, tensor: Tensor) -> Any:
        tag = tag_of(tensor)
        if tag is not None:
            if tag.carrier is None or tag.present is not None:
                raise _Untold
            return (tensor.dtype, self._made(tag.carrier))
        return self._made(tensor) if tensor.requires_grad and tensor.grad_fn is not None else self._constant(tensor)

    def _made(self, tensor: Tensor) -> Any:
        number = number_of(tensor)
        if number is None:
            raise _Untold
        return number - self._first, tensor.output_nr

    def _constant(self, tensor: Tensor) -> Any:
        if tensor.layout is not torch.strided or tensor.is_inference():
            raise _Untold
        base = tensor if tensor._base is None else tensor._base
        form = tensor.shape, tensor.dtype, tensor.device
        if id(base) in self._held:
            return (*form, id(base), base._version, tensor.data_ptr(), tensor.stride())
        held = fingerprint(tensor)
        if held is None and tensor.numel():
            raise _Untold
        return (*form, held)
