"""What a model's answers may depend on beside its weights: the Python values that its code can reach.

An explainer keeps what it has computed of a model from call to call. It may, as long as nothing has changed that the model
reads: numbers, arrays, functions, in attributes, closures, defaults and global variables.
"""

from __future__ import annotations

import argparse
import enum
import functools
import inspect
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .engines.registry import codes, is_filled

# Packages whose code and objects are taken as they are; of all others that are installed only the code is.
KNOWN = frozenset({"torch", "tensorflow", "keras", "numpy", "deepshap"}) | sys.stdlib_module_names
INSTALLED = frozenset({"site-packages", "dist-packages"})
MOST_VALUES = 20_000
MOST_BYTES = 2**20  # of an array that is read
DATA = (types.SimpleNamespace, argparse.Namespace)  # of known packages, but made by users
PLAIN = (type(None), bool, int, complex, str, bytes, enum.Enum)


@dataclass
class Fingerprint:
    """What was found, and whether that is everything; ``alive`` keeps objects, which are known by identity, from going."""

    values: list[Any]
    complete: bool
    alive: list[Any] = field(compare=False)


def fingerprint(
    roots: Iterable[Any], of_tensor: Callable[[Any], Any], of_layer: Callable[[Any], dict[str, Any] | None]
) -> Fingerprint:
    """Read what can be reached from a model and its layers.

    ``of_tensor`` returns what tells the state of a framework's tensor, ``of_layer`` the attributes of its layers that matter;
    both None for anything else.
    """
    reader = _Reader(of_tensor, of_layer)
    reader.read(list(roots))
    return Fingerprint(reader.values, reader.complete, reader.alive)


class _Reader:
    def __init__(self, of_tensor: Callable[[Any], Any], of_layer: Callable[[Any], dict[str, Any] | None]) -> None:
        self.of_tensor, self.of_layer = of_tensor, of_layer
        self.values: list[Any] = []
        self.complete = True
        self.alive: list[Any] = []
        self._seen: set[int] = set()

    def read(self, waiting: list[Any]) -> None:
        while waiting:
            value = waiting.pop()
            if isinstance(value, PLAIN):
                self.values.append((type(value), value))
            elif isinstance(value, float):
                self.values.append(repr(value))  # NaN is not equal to itself
            elif id(value) not in self._seen:
                self._seen.add(id(value))
                self.alive.append(value)
                try:
                    waiting.extend(self._inside(value))
                except Exception:  # an object may do anything when it is looked into
                    self.complete = False
            if len(self._seen) > MOST_VALUES:
                self.complete = False
                return

    def _inside(self, value: Any) -> Iterable[Any]:
        """Note what is known of a value by itself, and return what is to be read of it."""
        state = self.of_tensor(value)
        if state is not None:
            self.values.append(state)
            return ()
        if isinstance(value, (np.ndarray, np.generic)):
            return self._array(np.asarray(value))
        if isinstance(value, dict):
            return (len(value), *value.keys(), *value.values())
        if isinstance(value, (list, tuple, deque)):
            return (len(value), *value)
        if isinstance(value, (set, frozenset)):
            return (len(value), *sorted(value, key=lambda item: (str(type(item)), hash(item))))
        self.values.append(id(value))
        if isinstance(value, functools.partial):
            return value.func, value.args, value.keywords
        if inspect.ismethod(value):
            return value.__self__, value.__func__
        if inspect.isfunction(value):
            return () if _is_foreign(value) else (value.__code__, *_of_function(value))
        if isinstance(value, type):
            return [] if _is_known(value) else _of_class(value)
        if isinstance(value, (property, classmethod, staticmethod)):
            return [getattr(value, name, None) for name in ("fget", "__func__")]
        if isinstance(value, (types.ModuleType, types.CodeType, types.BuiltinFunctionType)):
            return ()
        return self._of_object(value)

    def _array(self, array: np.ndarray) -> Iterable[Any]:
        readable = array.nbytes <= MOST_BYTES and array.dtype != object
        self.complete &= readable
        return (array.shape, str(array.dtype), array.tobytes()) if readable else (id(array),)

    def _of_object(self, value: Any) -> Iterable[Any]:
        found = self.of_layer(value)
        if found is None and _is_known(type(value)) and not isinstance(value, DATA):
            return ()
        if found is None and not hasattr(value, "__dict__"):
            self.complete = False
            return ()
        found = vars(value) if found is None else found
        return (type(value), *found.keys(), *found.values())


def _is_known(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] in KNOWN


def _is_foreign(function: Any) -> bool:
    return _is_installed(str(function.__module__))


@functools.cache
def _is_installed(module: str) -> bool:
    """Whether a module is of a package that its users have installed and not written."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return module.partition(".")[0] in KNOWN or not INSTALLED.isdisjoint(Path(file).parts)


def _of_class(cls: type) -> list[Any]:
    own = {name: v for base in reversed(cls.__mro__) if not _is_known(base) for name, v in vars(base).items()}
    return [v for name, v in own.items() if name not in ("__dict__", "__weakref__", "__doc__", "__annotations__")]


def _of_function(function: Any) -> Iterator[Any]:
    """Closure, defaults and global variables that its code names; of a module, what is named of it."""
    yield from (cell.cell_contents for cell in function.__closure__ or () if is_filled(cell))
    yield from (function.__defaults__, function.__kwdefaults__)
    names = list(_names(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        yield value
        if inspect.ismodule(value) and not _is_installed(value.__name__):
            yield from (vars(value).get(other) for other in names)


def names_in(cls: type) -> set[str]:
    """Everything that the functions of a class name, but for classes of known packages that it derives from."""
    functions = [value for value in _of_class(cls) if inspect.isfunction(value)]
    return {name for function in functions for name in _names(function.__code__)}


def _names(code: types.CodeType) -> Iterator[str]:
    """Names, and texts, which ``getattr`` may take for names."""
    for each in codes(code):
        yield from each.co_names
        yield from (constant for constant in each.co_consts if isinstance(constant, str))
