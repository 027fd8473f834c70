"""A run that is the same each time: its calls one after the other, without the model's own code around them.

Within ``explainer.frozen()`` the model is promised to stay as it is. What Python code sees of a row is the same for the
references, or the tape says that the two differ; a model that has numbers printed, which no tape sees, runs each time. So the
calls that a model makes with so many rows, and the numbers, words and constants that it hands to them, are those of any others:
they are made again, with the values of these rows in the place of those. The model itself runs on the examples all the same, and
its outputs are what attributions must sum to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Parameter

from .calls import Call
from .carriers import is_active, tag_of
from .foreign import ForeignCall
from .names import resolve
from .operations import INDEX, Misaligned
from .script import Line
from .state import settings
from .tape import base_of
from .tree import LEAVES, TENSORS, replace, tensors
from .witness import Witness

Constant = tuple[Callable[[], Tensor | None], int]  # where a call took one, if it is still there, and its version then

LARGEST = 2**24  # bytes of constants that are kept
SHOWING = {
    "__format__",
    "__repr__",
    "__str__",
    "data_ptr",
    "untyped_storage",
}  # numbers to Python, which nothing can check
NOTHING = None, -1


class Follower(Protocol):
    """What a program asks of a tracer."""

    witness: Witness | None

    def enter(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The value that a model is given, and the leaf that collects its multipliers."""

    def again(self, line: Line, given: list[Tensor], args: Any, kwargs: Any) -> Any:
        """Follow a call as it was followed before."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Follow any call."""

    def leave(self, output: Tensor) -> Tensor:
        """The output, as it is followed."""

    def finish(self) -> None:
        """All calls have been made."""


class Value(NamedTuple):
    """A value that was made in the run before, in the place of which the one of this run goes."""

    number: int


class Again(NamedTuple):
    """A call to be made again, in the way of a line of the script if it has one.

    ``args`` and ``kwargs`` are what it takes, ``made`` the numbers of what it makes, and ``done`` of what nothing takes after it.
    """

    call: Line | Call
    args: Any
    kwargs: Any
    made: list[int]
    done: list[int]


class Program:
    """The calls of a run on rows that lie in memory with these strides, in order, and the number of the output."""

    def __init__(
        self, calls: list[Again], output: int, strides: list[tuple[int, ...]], constants: list[Constant]
    ) -> None:
        self._calls, self._output, self._strides, self._constants = calls, output, strides, constants

    def fits(self, rows: Sequence[Tensor]) -> bool:
        """Whether rows are laid out as those were: code may ask for that."""
        return [r.stride() for r in rows] == self._strides

    def run(self, tracer: Follower, rows: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Make the calls; returns the output and the leaves to be explained.

        Raises
        ------
        Misaligned
            If what the calls took has been written to.
        """
        if not _are_still(self._constants):
            raise Misaligned("constants have been written to")
        entered = [tracer.enter(r) for r in rows]
        values: dict[int, Tensor] = dict(enumerate(inside for inside, _ in entered))
        with torch.enable_grad():
            for call, args, kwargs, made, done in self._calls:
                result = _made(tracer, call, _filled(args, values), _filled(kwargs, values))
                values |= zip(made, filter(is_active, tensors(result)), strict=True)
                for number in done:
                    del values[number]
            output = tracer.leave(values[self._output])
        tracer.finish()
        return output, [leaf for _, leaf in entered]


def _made(tracer: Follower, call: Line | Call, args: Any, kwargs: Any) -> Any:
    """What a call returns."""
    if isinstance(call, Call):
        return tracer.__torch_function__(call.function, (), args, kwargs)
    assert tracer.witness is not None
    tracer.witness.script.open()
    return tracer.again(call, tensors((args, kwargs)), args, kwargs)


def _filled(item: Any, values: dict[int, Tensor]) -> Any:
    """With the values of this run."""
    kind = type(item)
    if kind is Value:
        return values[item.number]
    if kind is tuple or kind is list:
        return kind([_filled(part, values) for part in item])
    if kind is dict:
        return {key: _filled(part, values) for key, part in item.items()}
    return slice(*[_filled(part, values) for part in _ends(item)]) if kind is slice else item


def _ends(item: slice) -> tuple[Any, Any, Any]:
    return item.start, item.stop, item.step


def _are_still(constants: Iterable[Constant]) -> bool:
    """Whether those that are still there are what they were."""
    return all((tensor := place()) is None or tensor._version == version for place, version in constants)


class Recording:
    """Notes the calls of a run."""

    def __init__(self) -> None:
        self._broken = False  # whether a call was made that cannot be made again by itself
        self._settings = settings()
        self._calls: list[Again] = []
        self._count = 0  # of values, which are not kept: each knows its own number
        self._constants: list[Constant] = []
        self._mark = object()  # which values of this run have
        self._strides: list[tuple[int, ...]] = []
        self._nbytes, self._output = 0, -1

    def enter(self, row: Tensor, inside: Tensor) -> Tensor:
        """Rows enter the model."""
        self._strides.append(row.stride())
        self._number(inside)
        return inside

    def note(self, call: Line | Call, args: Any, kwargs: Any, result: Any) -> None:
        """A call has been made, in the way of a line of the script if it has one."""
        self._broken |= settings() != self._settings or (isinstance(call, Call) and not self._is_plain(call))
        if self._broken:
            return
        given = tensors((args, kwargs))
        loose = call.loose if isinstance(call, Line) else [not isinstance(base_of(t), Parameter) for t in given]
        kinds = iter(loose)
        args, kwargs = replace((args, kwargs), lambda t: self._operand(t, next(kinds)))
        made = [t for t in tensors(result) if is_active(t)]
        self._broken |= any((tag := tag_of(t)) is not None and tag.carrier is None for t in made)
        self._calls.append(Again(call, args, kwargs, list(map(self._number, made)), []))

    def look(self, function: Any, args: Any, kwargs: Any) -> None:
        """Something that is not followed has been called."""
        if (spelling := resolve(function)) is not None and spelling.name in SHOWING:
            self._broken |= any(map(is_active, tensors((args, kwargs))))

    def _is_plain(self, call: Call) -> bool:
        """Whether a call writes to values alone, of which there are others in each run, is no code of the user's, takes what
        cannot become something else, and finds no places, which may be constants in one run and not in another.
        """
        own = call.kind != INDEX and all(self._number_of(t) >= 0 for t in call.written())
        return own and not isinstance(call.function, ForeignCall) and _is_fixed((call.args, call.kwargs))

    def leave(self, output: Tensor) -> None:
        """The model returns."""
        self._output = self._number_of(output)

    def program(self) -> Program | None:
        """What makes the calls again, once the run is over; None where that would not be the same."""
        if self._broken or self._output < 0 or not _are_still(self._constants):
            return None
        last: dict[int, Again] = {}
        for call in self._calls:
            last |= dict.fromkeys([*_taken((call.args, call.kwargs)), *call.made], call)
        for number, call in last.items():
            if number != self._output:
                call.done.append(number)
        return Program(self._calls, self._output, self._strides, self._constants)

    def _number(self, value: Tensor) -> int:
        number, self._count = self._count, self._count + 1
        value._deepshap_value = self._mark, number  # type: ignore[attr-defined]
        return number

    def _number_of(self, tensor: Tensor) -> int:
        """That of a value of this run; -1 of anything else."""
        mark, number = getattr(tensor, "_deepshap_value", NOTHING)
        return number if mark is self._mark else -1

    def _operand(self, tensor: Tensor, loose: bool) -> Any:
        """What a call takes: a value of the run, a weight, or a constant, which the model may overwrite later."""
        if (number := self._number_of(tensor)) >= 0:
            return Value(number)
        strided = tensor.layout is torch.strided and not (tensor.is_conj() or tensor.is_neg())
        if is_active(tensor) or tensor.is_inference() or not strided:
            self._broken = True
            return tensor
        self._constants.append((ref(tensor), tensor._version))
        return self._copy(tensor) if loose else tensor

    def _copy(self, constant: Tensor) -> Tensor:
        """A copy that lies in memory in the same way."""
        strides = constant.stride()
        reach = 1 + sum([(size - 1) * stride for size, stride in zip(constant.shape, strides, strict=True)])
        reach = reach if constant.numel() else 0
        self._nbytes += reach * constant.element_size()
        if self._nbytes > LARGEST:
            self._broken = True
            return constant
        with torch.no_grad():
            return constant.as_strided((reach,), (1,)).clone().as_strided(constant.shape, strides)


def _parts(item: Any) -> Iterable[Any]:
    """What is in something that may hold tensors."""
    kind = type(item)
    if kind is slice:
        return _ends(item)
    return item if kind is tuple or kind is list else item.values() if kind is dict else ()


def _is_fixed(item: Any) -> bool:
    """Whether there is nothing in it but tensors, numbers and words."""
    kind = type(item)
    if kind in LEAVES or kind in TENSORS or kind is torch.Size:
        return True
    return kind in (tuple, list, dict, slice) and all(map(_is_fixed, _parts(item)))


def _taken(item: Any) -> list[int]:
    """The numbers of values that a call takes."""
    return [item.number] if type(item) is Value else [number for part in _parts(item) for number in _taken(part)]
