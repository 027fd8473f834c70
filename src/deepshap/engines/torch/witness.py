"""What shows that a model is what it was: a run that makes the same calls, in order, of as many rows.

Python code sees of a row's values only what is the same for the references, or the tape says that the two differ. So where a run
of examples takes the same way through the same operations, with the same constants, numbers and words, as one of as many rows
did when the model was known, the references would take theirs again. What torch's operations compute is not seen here, nor what
only more rows would meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from .activity import depends, next_number, number_of
from .carriers import tag_of
from .foreign import ForeignCall
from .names import Spelling
from .tape import fingerprint
from .tree import LEAVES, TENSORS

MOST_KNOWN = 4  # numbers of examples whose runs are known
LARGE = 2**16  # bytes of a constant, which the tape compares with that of the references all the same


class _Untold(Exception):
    """Something that cannot be compared with what it is in another run."""


class Witness:
    """The calls of a run, each with what it takes: values made before it, by their numbers, constants, numbers and words.

    ``held`` are places in memory and versions, by their ids, of the weights and buffers that are compared in every call of the
    explainer.
    """

    def __init__(self, held: Mapping[int, tuple[int, ...]]) -> None:
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
        if torch._C._len_torch_dispatch_stack():  # a mode may change what the function does
            self.calls = None
        elif spelling is not None or hasattr(function, "operation"):
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
        return self._made(tensor) if depends(tensor) else self._constant(tensor)

    def _made(self, tensor: Tensor) -> Any:
        number = number_of(tensor)
        if number is None:
            raise _Untold
        return number - self._first, tensor.output_nr, tensor.dtype

    def _constant(self, tensor: Tensor) -> Any:
        if tensor.layout is not torch.strided or tensor.is_inference():
            raise _Untold
        base = tensor if tensor._base is None else tensor._base
        form = tensor.shape, tensor.dtype, tensor.device
        if (held := self._held.get(id(base))) is not None:
            if held != (base.data_ptr(), base._version):
                raise _Untold  # it is not what it was when the run began
            return (*form, id(base), tensor.data_ptr(), tensor.stride(), tensor.is_conj(), tensor.is_neg())
        if isinstance(base, Parameter):
            raise _Untold
        if tensor.nbytes > LARGE:
            return form
        print_of = fingerprint(tensor)
        if print_of is None and tensor.numel():
            raise _Untold
        return (*form, print_of)


class Trust:
    """Whether the model is what it was, in a call of the explainer: granted, until runs show it, or that it is not."""

    def __init__(self) -> None:
        self.granted = self.refuted = False
        self._known: dict[int, list[Any]] = {}  # calls of the model as it is known, on so many examples
        self._unheard: dict[int, list[Any]] = {}  # those that nothing was known to be like
        self.changes = 0  # of what the model holds, when that was last shown

    def begin(self) -> None:
        """Begin a call, for which nothing is granted yet."""
        self.granted, self.refuted, self._unheard = False, False, {}

    def forget(self) -> None:
        """Forget the calls that are known: others are compared from now on."""
        self._known, self._unheard = {}, {}

    def hear(self, examples: int, witness: Witness | None) -> None:
        """Take what a run of so many examples shows."""
        calls = None if witness is None else witness.calls
        if calls is None:
            return
        known = self._known.get(examples)
        if known is None:
            self._unheard[examples] = calls
        elif known == calls:
            self.granted = False
        else:
            self.refuted = True

    def shown(self, changes: int) -> None:
        """The model is what it was, or is known from now on."""
        self.granted, self.changes = False, changes
        self._known |= self._unheard
        while len(self._known) > MOST_KNOWN:
            self._known.pop(next(iter(self._known)))
