"""Notes what Python objects hold, and puts it back: containers, arrays and attributes, however deep they are nested."""

from __future__ import annotations

import array
import operator
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from itertools import chain, starmap
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from .callables import PLAIN

CONTENT = (dict, list, set, deque, bytearray, array.array, tuple, np.ndarray)
BARE = {*CONTENT, OrderedDict}  # those that have no attributes
EMPTY = {dict, list, set, deque, OrderedDict}
CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
DRAWING = (np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random)
MISSING = object()
Undo = Callable[[], None]
Look = tuple[list[int], list[Any]]  # sizes of containers, and all objects in them


class Kept:
    """What everything that some values reach holds, to be put back.

    ``take`` is shown every object that is no container; where it returns True, the caller looks after it. Random generators
    are put back by ``drawing_kept``.
    """

    def __init__(self, values: Iterable[Any], take: Callable[[Any], bool]) -> None:
        self._containers: list[Any] = []
        self._arrays: list[Any] = []
        self._empty: list[Any] = []
        self._slots: list[tuple[Any, MemberDescriptorType]] = []
        self._owners: list[Any] = []  # objects with attributes
        self._generators: list[Any] = []
        self._look(values, take)
        self._mappings = [held for held in self._containers if isinstance(held, dict)]
        self._contents = [
            held[:] if isinstance(held, array.array) else held.copy() for held in (*self._arrays, *self._containers)
        ]
        self._in_slots = [_in_slot(*place) for place in self._slots]

    def _look(self, values: Iterable[Any], take: Callable[[Any], bool]) -> None:
        seen: set[int] = set()
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            kind, number = type(value), id(value)
            if kind in PLAIN or number in seen:
                continue
            seen.add(number)
            nature = _nature_of(kind)  # type: ignore[arg-type]
            if not nature.bare and (nature.content or not (take(value) or nature.code)):
                if nature.generator:
                    self._generators.append(value)
                if nature.slots:
                    own = [(value, slot) for slot in nature.slots]
                    self._slots += own
                    waiting += [_in_slot(*place) for place in own]
                attributes = getattr(value, "__dict__", None)
                if isinstance(attributes, dict):
                    self._owners.append(value)
                    waiting.append(attributes)
            if nature.array:
                self._arrays.append(value)
            elif nature.content:
                if not nature.fixed:
                    self._containers.append(value)
                held = [one for one in (value.values() if nature.mapping else value) if type(one) not in PLAIN]
                nothing = [one for one in held if type(one) in EMPTY and not one]  # most of what torch's modules hold
                self._empty += nothing
                waiting += [one for one in held if type(one) not in EMPTY or one] if nothing else held

    def now(self) -> Look:
        """What is held now."""
        return [*map(len, self._containers)], [*self._objects()]

    def _objects(self) -> Iterator[Any]:
        """All objects in containers, attributes and slots."""
        contents = chain.from_iterable(self._containers), chain.from_iterable(map(dict.values, self._mappings))
        return chain(*contents, map(vars, self._owners), starmap(_in_slot, self._slots))

    def has_changed(self, since: Look) -> bool:
        """Whether anything is held now that was not then, or no more; arrays are compared with what they held first."""
        if [*map(len, self._containers)] != since[0] or any(self._empty):
            return True
        same = all(map(operator.is_, self._objects(), since[1]))
        return not same or any(map(_differs, self._arrays, self._contents))

    def note_generators(self) -> None:
        """Have ``drawing_kept`` put back the random generators that are held."""
        for generator in self._generators:
            _note_generator(generator)

    def restore(self) -> None:
        """Put everything back."""
        for held, content in zip(reversed((*self._arrays, *self._containers)), reversed(self._contents), strict=True):
            _restore(held, content)
        for held in filter(None, self._empty):
            held.clear()
        for (held, slot), content in zip(self._slots, self._in_slots, strict=True):
            _restore_slot(held, slot, content)


def _differs(held: Any, content: Any) -> bool:
    return bool(held != content) if isinstance(held, bytearray) else held.tobytes() != content.tobytes()


class _Nature(NamedTuple):
    """What objects of a class are."""

    content: bool  # of a container
    bare: bool  # without attributes
    mapping: bool
    fixed: bool  # tuples
    array: bool  # of numbers, or bytes
    code: bool  # functions and the like, modules or classes
    generator: bool  # of random numbers
    slots: list[MemberDescriptorType]  # the places of ``__slots__``, those of the classes it is derived from too


@lru_cache(4096)
def _nature_of(kind: Any) -> _Nature:
    owners = [base for base in kind.__mro__ if base.__dict__.get("__slots__")]
    slots = [one for base in owners for one in vars(base).values() if isinstance(one, MemberDescriptorType)]
    code = issubclass(kind, CODE) or (hasattr(kind, "__get__") and not hasattr(kind, "__set__"))
    mapping, fixed, numbers = (issubclass(kind, some) for some in (dict, tuple, (np.ndarray, bytearray, array.array)))
    return _Nature(
        issubclass(kind, CONTENT), kind in BARE, mapping, fixed, numbers, code, issubclass(kind, DRAWING), slots
    )


def _in_slot(held: Any, slot: MemberDescriptorType) -> Any:
    try:
        return slot.__get__(held)
    except AttributeError:
        return MISSING


def _restore_slot(held: Any, slot: MemberDescriptorType, content: Any) -> None:
    if _in_slot(held, slot) is content:
        return
    if content is MISSING:
        slot.__delete__(held)
    else:
        slot.__set__(held, content)


def _restore(held: Any, content: Any) -> None:
    if isinstance(held, np.ndarray):
        if held.flags.writeable and _differs(held, content):
            held[...] = content
    elif isinstance(held, array.array):
        held[:] = content
    elif not _same(held, content):  # Keras' own lists take note of every change
        held.clear()
        (held.update if isinstance(held, (dict, set)) else held.extend)(content)


def _same(held: Any, content: Any) -> bool:
    """Whether the very same objects are in both, in the same order."""
    if len(held) != len(content):
        return False
    if isinstance(held, dict) and not all(map(operator.is_, held.values(), content.values())):
        return False
    return all(map(operator.is_, held, content))


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put back the random generators of Python and NumPy."""
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(_quick_to_set(numpy))


@contextmanager
def other_draws(ahead: int) -> Iterator[None]:
    """Within it these generators are so many numbers ahead, which shows whether a model draws from them."""
    with generators_kept():
        for _ in range(ahead):
            random.random()
            np.random.random_sample()
        yield


def _quick_to_set(state: Any) -> Any:
    """Numbers in a list, since NumPy takes its 624 one by one: a third of the time that it takes for those of an array."""
    if state["bit_generator"] != "MT19937":
        return state
    return {**state, "state": {**state["state"], "key": state["state"]["key"].tolist()}}


_noted: ContextVar[dict[int, Undo] | None] = ContextVar("_noted", default=None)


@contextmanager
def drawing_kept() -> Iterator[None]:
    """Put back the random generators that models hold, at the end of the outermost of such blocks.

    Within it they go on: each run draws other numbers, which shows that the model draws some.
    """
    if _noted.get() is not None:
        yield
        return
    noted: dict[int, Undo] = {}
    token = _noted.set(noted)
    try:
        yield
    finally:
        _noted.reset(token)
        for undo in noted.values():
            undo()


def note(generator: Any, state: Callable[[], Any], put: Callable[[Any], Any]) -> None:
    """Have a random generator put back by ``drawing_kept``, to the state that it has when it is noted first."""
    noted = _noted.get()
    if noted is not None and id(generator) not in noted:
        noted[id(generator)] = partial(put, state())


def _note_generator(value: Any) -> None:
    if isinstance(value, np.random.Generator):
        value = value.bit_generator
    if isinstance(value, np.random.BitGenerator):
        note(value, lambda: value.state, partial(setattr, value, "state"))
    elif isinstance(value, np.random.RandomState):
        note(value, value.get_state, value.set_state)
    elif isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        note(value, value.getstate, value.setstate)
