"""Notes what Python objects hold, and puts it back: containers, arrays and attributes, however deep they are nested."""

from __future__ import annotations

import inspect
import operator
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

CONTAINERS = (dict, list, set, deque, bytearray)
PLAIN = {str, bytes, bool, int, float, complex, type(None)}
Undo = Callable[[], None]


def keep(values: Iterable[Any], take: Callable[[Any], bool]) -> Undo:
    """Return what puts back the contents of everything that values reach.

    ``take`` is shown every object that is no container; where it returns True, the caller looks after it.
    """
    kept: list[tuple[Any, Any]] = []
    seen: set[int] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if type(value) in PLAIN or id(value) in seen:
            continue
        seen.add(id(value))
        held = _contents(value)
        if held is None and not take(value) and _has_state(value):
            held = vars(value)
        if held is None:
            continue
        if isinstance(held, np.ndarray):
            kept.append((held, held.copy()))
            continue
        if not isinstance(held, bytearray):
            waiting += held.values() if isinstance(held, dict) else held
        if not isinstance(held, tuple):
            kept.append((held, held.copy() if held else ()))  # most of what torch's modules hold is empty

    def undo() -> None:
        for held, content in reversed(kept):
            if isinstance(held, np.ndarray) or held or content:
                _restore(held, content)

    return undo


def _contents(value: Any) -> Any:
    return value if isinstance(value, (*CONTAINERS, tuple, np.ndarray)) else None


def _has_state(value: Any) -> bool:
    code = inspect.isroutine(value) or inspect.ismodule(value) or inspect.isclass(value)
    return not code and isinstance(getattr(value, "__dict__", None), dict)


def _restore(held: Any, content: Any) -> None:
    if isinstance(held, np.ndarray):
        if held.flags.writeable and held.tobytes() != content.tobytes():
            held[...] = content
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
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
