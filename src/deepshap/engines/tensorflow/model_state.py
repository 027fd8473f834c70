"""Tell without a trace whether a Keras model is unchanged, if all of its code is part of Keras.

The code of Keras' layers computes from the objects that the model consists of, Keras' settings, and Keras' functions and
classes. A ``State`` lists the objects that the model reaches: attributes, items of containers, closures. While the model
is unchanged, all of them hold the very same objects as before; the comparison takes about a millisecond. Values of
variables are not part of the state: a graph reads variables when it runs. A model that reaches other code (a user's layer,
function or class) has no state, because such code may read anything. Such a model is traced again in every call.
"""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import chain
from operator import is_
from types import BuiltinFunctionType, CodeType, EllipsisType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from ..callables import PLAIN, closure_of, code_of, packages
from ._compat import FUNCTIONS, TRACKERS, WRAPPERS, keras_settings

OWN = {"keras", "tensorflow", "deepshap"}  # packages whose code reads nothing but what is compared
BASES = {*OWN, "builtins", "abc", "typing", "collections", "enum", "numpy"}  # whose classes their classes derive from
# What never changes, what a graph reads when it runs, and the books of those who track objects.
FIXED = {*PLAIN, object, range, slice, EllipsisType, CodeType, inspect.Signature}
FIXED |= {type(threading.Lock()), type(threading.RLock())}
FIXED_BASES = np.generic, np.dtype, tf.DType, tf.TensorShape, tf.Tensor, tf.Variable, *TRACKERS
# What training keeps on a model, and TensorFlow on what it tracks: no call reads it.
UNREAD = {"optimizer", "loss", "_loss_tracker", "_compile_loss", "_compile_metrics", "_compile_config", "history"}
UNREAD |= {"train_function", "test_function", "predict_function", "_tracked"}
MOST_OBJECTS, MOST_BYTES = 2**18, 2**24  # that are compared, bytes of arrays: beyond that a trace is faster
Parts = Callable[[Any], list[Any]]


class NotComparable(Exception):
    """A model reaches code that may read anything, or objects that cannot be inspected."""


class State:
    """What the code of a model reads: objects and what they hold, contents of arrays, classes and functions."""

    def __init__(self, *roots: Any) -> None:
        self._roots = [*roots, *_settings()]
        self._held: list[tuple[Parts, Any, list[Any]]] = []  # how to list what a value holds, and what it held
        self._kinds: list[tuple[Any, type]] = []
        self._arrays: list[tuple[Any, Any]] = []
        self._walk()
        loaded = [(name, m) for name, m in [*sys.modules.items()] if type(m) is ModuleType]
        self._modules = [(name, m) for name, m in loaded if name.startswith(FUNCTIONS) or name == "tensorflow"]
        classes = {base for v, kind in self._kinds for base in (v if isinstance(v, type) else kind).__mro__}
        self._spaces: list[Any] = [vars(space) for space in classes if _root(space.__module__) in OWN]
        self._spaces += [vars(module) for _, module in self._modules]
        self._code = [value for space in self._spaces for value in space.values()]

    def _walk(self) -> None:
        waiting, seen, size, count = list(self._roots), set(), 0, len(self._roots)
        while waiting:
            value = waiting.pop()
            kind: Any = type(value)
            if kind in FIXED or id(value) in seen:
                continue
            seen.add(id(value))
            look = _parts_of(kind)
            parts = look(value)
            self._kinds.append((value, kind))
            if look is not _nothing:
                self._held.append((look, value, parts))
            if kind is np.ndarray:
                self._arrays.append((value, _content(value)))
                size += value.nbytes
            count += len(parts)
            if size > MOST_BYTES or count > MOST_OBJECTS:
                raise NotComparable(value)
            waiting += parts

    def is_unchanged(self, *roots: Any) -> bool:
        """Return whether these are the same objects and hold the same, however deep."""
        try:
            return (
                _same([*roots, *_settings()], self._roots)
                and all(type(value) is kind for value, kind in self._kinds)
                and all(_same(look(value), parts) for look, value, parts in self._held)
                and all(_content(array) == content for array, content in self._arrays)
                and all(sys.modules.get(name) is module for name, module in self._modules)
                and sum(map(len, self._spaces)) == len(self._code)
                and all(map(is_, chain.from_iterable(space.values() for space in self._spaces), self._code))
            )
        except NotComparable:
            return False


def state_of(*roots: Any) -> State | None:
    """Return what a model's code reads, or None if it can read what cannot be compared."""
    try:
        return State(*roots)
    except NotComparable:
        return None


def _same(objects: list[Any], before: list[Any]) -> bool:
    return len(objects) == len(before) and all(map(is_, objects, before))


def _content(array: Any) -> Any:
    return array.dtype, array.shape, array.tobytes()


def _nothing(_: Any) -> list[Any]:
    return []


def _settings() -> list[Any]:
    """Return the settings of Keras that are not in its modules, except the numbers for the names of new objects."""
    if (trackers := keras_settings()) is None:
        raise NotComparable("settings of Keras")
    return [value for settings in trackers for name, value in settings.items() if name != "object_name_uids"]


@lru_cache(4096)
def _root(module: Any) -> str:
    return str(module).partition(".")[0]


@lru_cache(4096)
def _parts_of(kind: type) -> Parts:
    """Return the function that lists what objects of a class hold."""
    if issubclass(kind, FIXED_BASES):
        return _nothing
    if issubclass(kind, type):
        return _of_class
    if kind in PARTS:
        return PARTS[kind]
    content = next((parts for base, parts in PARTS.items() if issubclass(kind, base)), None)
    slots = any(vars(base).get("__slots__") for base in kind.__mro__)
    is_own = _root(kind.__module__) in OWN and packages(kind) <= BASES
    if slots or not is_own or not (content or hasattr(kind, "__dict__")):
        return _refuse
    return partial(_of_object, content or _nothing)


def _refuse(value: Any) -> list[Any]:
    raise NotComparable(type(value))


def _of_object(content: Parts, value: Any) -> list[Any]:
    """Return what an object of Keras holds; layers that keep states compare these while they are traced."""
    attributes = getattr(value, "__dict__", {})
    if attributes.get("stateful"):
        raise NotComparable(type(value))
    names = [name for name in attributes if name not in UNREAD and not name.startswith("_self_")]
    return [*content(value), *names, *map(attributes.__getitem__, names)]


def _of_class(kind: Any) -> list[Any]:
    return [] if _root(kind.__module__) in BASES else _refuse(kind)


def _of_function(function: FunctionType) -> list[Any]:
    if _root(function.__globals__.get("__name__")) not in OWN:
        raise NotComparable(function)
    return [code_of(function), function.__defaults__, function.__kwdefaults__, *closure_of(function)]


PARTS: dict[type, Parts] = {
    **dict.fromkeys((list, tuple, deque), list),
    **dict.fromkeys((set, frozenset), partial(sorted, key=id)),  # their order does not last
    **dict.fromkeys((dict, OrderedDict, defaultdict), lambda d: [part for pair in d.items() for part in pair]),
    np.ndarray: lambda array: _refuse(array) if array.dtype.hasobject else [],
    FunctionType: _of_function,
    BuiltinFunctionType: lambda f: [] if isinstance(f.__self__, ModuleType) else [f.__self__],
    ModuleType: lambda m: [] if _root(m.__name__) in OWN else _refuse(m),
    MethodType: lambda m: [m.__self__, m.__func__],
    weakref.ReferenceType: lambda r: [r()],
    partial: lambda p: [p.func, p.args, p.keywords],
    **dict.fromkeys(WRAPPERS, lambda w: [w.__wrapped__]),
}
