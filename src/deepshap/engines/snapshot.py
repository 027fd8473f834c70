"""Preserve what Python objects hold while a model runs: attributes, containers and arrays, and random generators.

``ObjectSnapshot`` copies every container that some values reach (one copy each, not of the items) and puts the copies back.
It follows attributes, ``__slots__`` and items, and stops at code and at what its ``take`` claims, such as tensors.
"""

from __future__ import annotations

import array
import copy
import operator
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from .callables import PLAIN

ARRAYS = np.ndarray, bytearray, array.array
CONTAINERS = dict, list, set, deque
BARE = {dict, list, set, deque, tuple, OrderedDict, np.ndarray, bytearray, array.array}  # classes without attributes
EMPTY = {dict, list, set, deque, OrderedDict}
CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
DRAWING = (np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random)
MISSING = object()
Undo = Callable[[], None]


class ObjectSnapshot:
    """What everything that some values reach holds, to be put back.

    ``take`` is shown every object that is no container; where it returns True, the caller looks after it. Random generators
    are put back by ``drawing_kept``.
    """

    def __init__(self, values: Iterable[Any], take: Callable[[Any], bool]) -> None:
        self._contents: list[tuple[Any, Any]] = []  # containers and arrays with copies of what they hold
        self._empty: list[Any] = []  # containers that hold nothing, as most of those of torch's modules
        self._slots: list[tuple[Any, MemberDescriptorType, Any]] = []
        self._generators: list[Any] = []
        seen: set[int] = set()
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            kind = type(value)
            if kind in PLAIN or id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, ARRAYS):
                self._contents.append((value, _copied(value)))
            elif isinstance(value, (*CONTAINERS, tuple)):
                items = value.values() if isinstance(value, dict) else value
                if kind in EMPTY and not value:
                    self._empty.append(value)
                    continue
                if not isinstance(value, tuple):
                    self._contents.append((value, _copied(value)))
                waiting += [item for item in items if type(item) not in PLAIN]
            elif take(value) or _is_code(kind):  # type: ignore[arg-type]
                continue
            if kind not in BARE:
                waiting += self._attributes(value)

    def _attributes(self, value: Any) -> list[Any]:
        """Record an object's slots; return what its attributes hold."""
        if isinstance(value, DRAWING):
            self._generators.append(value)
        kind: Any = type(value)
        slots = [(value, slot, _in_slot(value, slot)) for slot in _slots_of(kind)]
        self._slots += slots
        attributes = getattr(value, "__dict__", None)
        return [*([attributes] if isinstance(attributes, dict) else []), *(content for *_, content in slots)]

    def again(self) -> ObjectSnapshot:
        """Return a snapshot of the same objects as they are now."""
        snapshot = copy.copy(self)
        snapshot._contents = [(held, _copied(held)) for held, _ in self._contents]
        snapshot._contents += [(held, _copied(held)) for held in self._empty if held]
        snapshot._empty = [held for held in self._empty if not held]
        snapshot._slots = [(value, slot, _in_slot(value, slot)) for value, slot, _ in self._slots]
        return snapshot

    def note_generators(self) -> None:
        """Let ``drawing_kept`` restore the random generators that are held."""
        for generator in self._generators:
            _note_generator(generator)

    def restore(self) -> bool:
        """Put everything back; return whether anything had changed."""
        changed = [_restore(held, content) for held, content in self._contents]
        for held in filter(None, self._empty):
            changed.append(True)
            held.clear()
        changed += [_restore_slot(*slot) for slot in self._slots]
        return any(changed)


def _copied(held: Any) -> Any:
    return held[:] if isinstance(held, array.array) else held.copy()


@lru_cache(4096)
def _is_code(kind: Any) -> bool:
    return issubclass(kind, CODE) or (hasattr(kind, "__get__") and not hasattr(kind, "__set__"))


@lru_cache(4096)
def _slots_of(kind: Any) -> tuple[MemberDescriptorType, ...]:
    owners = [base for base in kind.__mro__ if base.__dict__.get("__slots__")]
    return tuple(
        member for base in owners for member in vars(base).values() if isinstance(member, MemberDescriptorType)
    )


def _in_slot(held: Any, slot: MemberDescriptorType) -> Any:
    try:
        return slot.__get__(held)
    except AttributeError:
        return MISSING


def _restore_slot(held: Any, slot: MemberDescriptorType, content: Any) -> bool:
    if _in_slot(held, slot) is content:
        return False
    if content is MISSING:
        slot.__delete__(held)
    else:
        slot.__set__(held, content)
    return True


def _restore(held: Any, content: Any) -> bool:
    if isinstance(held, ARRAYS):
        same = held == content if isinstance(held, bytearray) else held.tobytes() == content.tobytes()
        if same or (isinstance(held, np.ndarray) and not held.flags.writeable):
            return False
        if isinstance(held, np.ndarray):
            held[...] = content
        else:
            held[:] = content
        return True
    same = len(held) == len(content) and all(map(operator.is_, held, content))
    if same and not (isinstance(held, dict) and not all(map(operator.is_, held.values(), content.values()))):
        return False
    held.clear()
    (held.update if isinstance(held, (dict, set)) else held.extend)(content)
    return True


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
    """Advance these generators within the block, which shows whether a model draws from them."""
    with generators_kept():
        for _ in range(ahead):
            random.random()
            np.random.random_sample()
            random.gauss(0.0, 1.0)  # the generators keep every other normal number
            np.random.standard_normal()
        yield


def _quick_to_set(state: Any) -> Any:
    """Return the state with its numbers in a list, which NumPy sets in a third of the time that an array takes."""
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
    """Let ``drawing_kept`` restore a random generator to the state that it has when it is noted first."""
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
