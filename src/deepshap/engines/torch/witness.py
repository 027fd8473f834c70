"""What shows that a model is what it was: a run that makes the same calls, in order, of as many rows.

Python code sees of a row's values only what is the same for the references, or the tape says that the two differ. So where a run
of examples takes the same way through the same operations, with the same constants, numbers and words, as one of as many rows
did when the model was known, the references would take theirs again. What torch's operations compute is not seen here, nor what
only more rows would meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from . import names
from .activity import MARK, next_number, varies
from .calls import Call
from .carriers import tag_of
from .foreign import ForeignCall
from .script import Line, Script, Way
from .tape import base_of, fingerprint, is_weight
from .tree import LEAVES, TENSORS

MOST_KNOWN = 4  # numbers of examples whose runs are known
LARGE = 2**16  # bytes of a constant, which the tape compares with that of the references all the same


class _Untold(Exception):
    """Something that cannot be compared with what it is in another run."""


class Witness:
    """The calls of a run, each with what it takes: values made before it, by their numbers, constants, numbers and words.

    ``held`` are places in memory and versions, by their ids, of the weights and buffers that are compared in every call of the
    explainer. ``script`` is that of runs on as many rows.
    """

    def __init__(self, held: Mapping[int, tuple[int, ...]], script: Script) -> None:
        self._held, self._first = held, next_number()
        self.script = script
        self.calls: list[Any] | None = []  # None where something could not be told
        self._in_full = True  # whether what was told last are all values of constants
        script.begin()

    def note(self, what: Any, *taken: Any) -> None:
        """Note a call, or the output."""
        if self.calls is None:
            return
        try:
            self.calls.append((what, self._told(taken)))
        except _Untold:
            self.calls = None

    def call(
        self, function: Callable[..., Any], spelling: names.Spelling | None, known: bool, args: Any, kwargs: Any
    ) -> None:
        """Note a call of a function of torch's, or of a custom one, which is followed unless a rule for it is ``known``."""
        if torch._C._len_torch_dispatch_stack():  # a mode may change what the function does
            self.calls = None
        elif _is_torchs(function, spelling):
            self.note(function, args, kwargs)
        elif isinstance(function, ForeignCall) and function.is_custom and not known:
            self.note(function.key, args, kwargs)
        else:
            self.calls = None

    # ------------------------------------------------------------------ calls that come again
    def again(self, line: Line, args: Any, kwargs: Any, inside: bool) -> list[Tensor] | None:
        """Note a call as the next one of the script, if it takes what that took; return the tensors that it takes.

        ``inside`` of one that is composed it is no call of its own.
        """
        if torch._C._len_torch_dispatch_stack():
            return None
        told: list[Any] = []
        given: list[Tensor] = []
        try:
            self._tell((args, kwargs), told, given)
        except _Untold:
            return None
        if told != line.told:
            return None
        self.script.open()
        if self.calls is not None and not inside:
            self.calls.append((line.function, line.told))
        return given

    def open(self, args: Any, kwargs: Any) -> tuple[int, list[Any]] | None:
        """Begin a line of the script; return its place and what the call takes, where one is to be written and that is told."""
        place, self._in_full = self.script.open(), True
        if self.script.is_whole:
            return None
        try:
            told = self._told((args, kwargs))
        except _Untold:
            return None
        return (place, told) if self._in_full else None

    def close(self, place: int, told: list[Any], call: Call, ran: tuple[Any, Any, Way] | None, apart: bool) -> None:
        """Write a line, of a call that ``ran`` with what it was given and writes to nothing."""
        if ran is None or ran[0] is not call.args or ran[1] is not call.kwargs:
            return
        if call.operation is None or call.tagged or call.inplace or call.name == "__setitem__":
            return
        if not _is_torchs(call.function, names.resolve(call.function)):
            return  # what it computes is not told by what it takes
        active = tuple(varies(call.given))
        loose = tuple([not (a or is_weight(t, self._held)) for a, t in zip(active, call.given, strict=True)])
        line = Line(call.function, told, call.name, call.operation, ran[2], active, loose, apart)
        self.script.close(place, line)

    def _told(self, items: Iterable[Any]) -> list[Any]:
        told: list[Any] = []
        self._tell(items, told, [])
        return told

    def _tell(self, items: Iterable[Any], told: list[Any], given: list[Tensor]) -> None:
        """Add what some items are, one after the other, and the tensors among them."""
        for item in items:
            kind = type(item)
            if kind in TENSORS:
                given.append(item)
                told.append(self._of_tensor(item))
            elif kind is float or kind is complex:
                told.append(repr(item))  # zeros have signs, and what is no number equals nothing
            elif kind in LEAVES:
                told += kind, item
            elif kind is tuple or kind is list or kind is torch.Size:
                told += kind, len(item)
                self._tell(item, told, given)
            elif kind is dict:
                told += kind, *item
                self._tell(item.values(), told, given)
            elif kind is slice:
                told.append(kind)
                self._tell((item.start, item.stop, item.step), told, given)
            else:
                raise _Untold

    def _of_tensor(self, tensor: Tensor) -> Any:
        node: Any = tensor.grad_fn if tensor.requires_grad else None
        if node is not None:
            number = node.metadata.get(MARK)
            if number is None:
                raise _Untold
            return number - self._first, tensor.output_nr, tensor.dtype
        tag = tag_of(tensor)
        if tag is None:
            return self._constant(tensor)
        if tag.carrier is None or tag.present is not None:
            raise _Untold
        return tensor.dtype, self._of_tensor(tag.carrier)

    def _constant(self, tensor: Tensor) -> Any:
        if tensor.layout is not torch.strided or tensor.is_inference():
            raise _Untold
        base = base_of(tensor)
        form: tuple[Any, ...] = tensor.shape, tensor.dtype, tensor.device
        held = self._held.get(id(base))
        if held is not None:
            if held != (base.data_ptr(), base._version):
                raise _Untold  # it is not what it was when the run began
            form = *form, id(base), tensor.data_ptr(), tensor.stride(), tensor.is_conj(), tensor.is_neg()
            if isinstance(base, Parameter):
                return form
        if tensor.nbytes > LARGE:
            self._in_full = False
            return form
        print_of = fingerprint(tensor)
        if print_of is None and tensor.numel():
            raise _Untold
        return (*form, print_of)


def _is_torchs(function: Callable[..., Any], spelling: names.Spelling | None) -> bool:
    """Whether a function is one of torch's own, or one that these are composed of here."""
    return spelling is not None or hasattr(function, "operation")


class Trust:
    """Whether the model is what it was, in a call of the explainer: granted, until runs show it, or that it is not.

    It ``waits`` for the outputs of a few references.
    """

    def __init__(self) -> None:
        self.granted = self.refuted = self.waits = False
        self._known: dict[int, list[Any]] = {}  # calls of the model as it is known, on so many examples
        self._unheard: dict[int, list[Any]] = {}  # those that nothing was known to be like
        self.changes = 0  # of what the model holds, when that was last shown

    def begin(self) -> None:
        """Begin a call, for which nothing is granted yet."""
        self.granted = self.refuted = self.waits = False
        self._unheard = {}

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
        self.granted, self.waits, self.changes = False, False, changes
        self._known |= self._unheard
        forget_oldest(self._known)


def forget_oldest(known: dict[int, Any]) -> None:
    """Keep what is known of runs on a few numbers of examples."""
    while len(known) > MOST_KNOWN:
        known.pop(next(iter(known)))
