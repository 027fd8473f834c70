"""Whether a model is as it was, told without a trace, where all of its code is Keras' own.

That code reads the objects that the model consists of, their classes, the modules that it looks names up in, and the settings
of Keras. All of them are compared, however deep, by identity. Which modules these are is seen while the model is traced: the
same code runs again if nothing has changed that it has read. Code of others may read anything else, such as files or the
environment: a model that reaches some has no state that could be compared.
"""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache, partial
from operator import is_
from types import BuiltinFunctionType, CodeType, EllipsisType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.utils.tracking import Tracker
from tensorflow.python.trackable import data_structures
from tensorflow.python.trackable.base import TrackableReference

from ..callables import PLAIN, closure_of, packages
from .own_code import OWN, Code, Foreign, Ran, root, same

KNOWN = {*OWN, "builtins", "abc", "typing", "collections", "enum"}  # whose classes Keras' own may be derived from
# What never changes, what a graph reads when it runs, and the books of those who track objects.
FIXED = {*PLAIN, object, range, slice, EllipsisType, CodeType, inspect.Signature}
FIXED |= {type(threading.Lock()), type(threading.RLock())}
FIXED_BASES = np.generic, np.dtype, tf.DType, tf.TensorShape, tf.Tensor, tf.Variable, Tracker, TrackableReference
# What training keeps on a model, and TensorFlow on what it tracks: no call reads it.
UNREAD = {"optimizer", "loss", "_loss_tracker", "_compile_loss", "_compile_metrics", "_compile_config", "history"}
UNREAD |= {"train_function", "test_function", "predict_function", "_tracked"}
WRAPPERS = data_structures._DictWrapper, data_structures._TupleWrapper  # of what layers hold
MOST_OBJECTS, MOST_BYTES = 2**18, 2**24  # that are compared, bytes of arrays: beyond that a trace is quicker
Look = Callable[[Any], list[Any]]
T = TypeVar("T")


class State:
    """All that the code of a model reads, as it was when it was traced."""

    def __init__(self, roots: Iterable[Any]) -> None:
        self._roots = [*roots, *_settings()]
        self._values: list[Any] = []  # all that these reach
        self._kinds: list[type] = []
        self._held: list[tuple[Look, Any, list[Any]]] = []  # how to find what a value holds, and what it held
        self._arrays: list[tuple[Any, Any]] = []
        self._walk()
        classes = {v if isinstance(v, type) else kind for v, kind in zip(self._values, self._kinds, strict=True)}
        self._orders = [(kind, kind.__mro__) for kind in classes]  # in which names are looked for
        self._modules: list[tuple[str, Any]] = []
        self._code: Code | None = None

    def _walk(self) -> None:
        waiting, seen, size, count = list(self._roots), set(), 0, len(self._roots)
        while waiting:
            value = waiting.pop()
            if id(value) in seen:
                continue
            seen.add(id(value))
            parts = self._note(value)
            size += value.nbytes if type(value) is np.ndarray else 0
            count += len(parts)
            if size > MOST_BYTES or count > MOST_OBJECTS:
                raise Foreign(value)
            waiting += [part for part in parts if type(part) not in FIXED]

    def _note(self, value: Any) -> list[Any]:
        """Take note of a value, and return what it holds."""
        kind: Any = type(value)
        look = _look(kind)
        parts = look(value)
        self._values.append(value)
        self._kinds.append(kind)
        if look is not _nothing:
            self._held.append((look, value, parts))
        if kind is np.ndarray:
            self._arrays.append((value, _content(value)))
        return parts

    def look_up(self, ran: Ran) -> None:
        """Take note of the modules that code has looked names up in when it ran."""
        modules = ran.modules()
        bases = {base for _, order in self._orders for base in order if root(base.__module__) in OWN}
        self._modules = [(name, sys.modules.get(name)) for name in modules]
        self._code = _code_of(bases, list(modules.values()))

    def is_still(self, *roots: Any) -> bool:
        """Whether these are the same, and hold the same, however deep."""
        try:
            return (
                same([*roots, *_settings()], self._roots)
                and all(map(is_, map(type, self._values), self._kinds))
                and all(same(look(value), parts) for look, value, parts in self._held)
                and all(_content(array) == content for array, content in self._arrays)
                and all(kind.__mro__ is order for kind, order in self._orders)
                and all(sys.modules.get(name) is module for name, module in self._modules)
                and self._code is not None
                and self._code.is_still()
            )
        except Foreign:
            return False


def traced(trace: Callable[[], T], *roots: Any) -> tuple[T, State | None]:
    """A trace of a model, and the state of it and of what else decides how it is called.

    None in its place if it could read what cannot be compared.
    """
    try:
        state = State(roots)
    except Foreign:
        return trace(), None
    with Ran() as ran:
        made = trace()
    try:
        state.look_up(ran)
    except Foreign:
        return made, None
    return made, state


def _content(array: Any) -> Any:
    return array.dtype, array.shape, array.tobytes()


_code: OrderedDict[Hashable, Code] = OrderedDict()
MOST_CODE = 32  # combinations of classes and modules that are kept


def _code_of(classes: set[type], modules: list[Any]) -> Code:
    """What classes and modules define, which is looked through once while nothing in it changes."""
    key = frozenset(classes), frozenset(map(id, modules))  # which stay as long as their code is kept
    known = _code.get(key)
    if known is None or not known.is_still():
        known = _code[key] = Code([*map(vars, classes), *modules])
        while len(_code) > MOST_CODE:
            _code.popitem(last=False)
    return known


def _settings() -> list[Any]:
    """The settings of Keras that are not in its modules, but for the numbers that it names new objects by."""
    found = vars(global_state.GLOBAL_STATE_TRACKER), vars(global_state.GLOBAL_SETTINGS_TRACKER)
    return [value for each in found for name, value in each.items() if name != "object_name_uids"]


# ---------------------------------------------------------------------- what objects hold
@lru_cache(4096)
def _look(kind: type) -> Look:
    """How to find what objects of a class hold."""
    if kind in FIXED or issubclass(kind, FIXED_BASES):
        return _nothing
    if issubclass(kind, type):
        return _of_class
    if kind in LOOKS:
        return LOOKS[kind]
    content = next((look for base, look in LOOKS.items() if issubclass(kind, base)), None)
    slots = any(vars(base).get("__slots__") for base in kind.__mro__)
    if slots or not (
        root(kind.__module__) in OWN and packages(kind) <= KNOWN and (content or hasattr(kind, "__dict__"))
    ):
        return _refuse
    return partial(_of_object, content or _nothing)


def _nothing(_: Any) -> list[Any]:
    return []


def _refuse(value: Any) -> list[Any]:
    raise Foreign(type(value))


def _of_object(content: Look, value: Any) -> list[Any]:
    """What an object of a class of Keras' own holds; layers that keep states check these while they are traced."""
    attributes = getattr(value, "__dict__", {})
    if attributes.get("stateful"):
        raise Foreign(type(value))
    names = [name for name in attributes if name not in UNREAD and not name.startswith("_self_")]
    return [*content(value), *names, *map(attributes.__getitem__, names)]


def _of_class(kind: Any) -> list[Any]:
    if root(kind.__module__) not in {*KNOWN, "numpy"}:
        raise Foreign(kind)
    return []


def _of_function(function: FunctionType) -> list[Any]:
    if root(function.__globals__.get("__name__")) not in OWN:
        raise Foreign(function)
    return [function.__code__, function.__defaults__, function.__kwdefaults__, *closure_of(function)]


def _of_array(array: Any) -> list[Any]:
    return _refuse(array) if array.dtype.hasobject else []


def _of_builtin(function: Any) -> list[Any]:
    return [] if isinstance(function.__self__, ModuleType) else [function.__self__]


def _of_module(module: ModuleType) -> list[Any]:
    return [] if root(module.__name__) in OWN else _refuse(module)


LOOKS: dict[type, Look] = dict.fromkeys((list, tuple, deque), list)
LOOKS |= {kind: partial(sorted, key=id) for kind in (set, frozenset)}  # their order does not last
LOOKS |= {kind: lambda d: [part for pair in d.items() for part in pair] for kind in (dict, OrderedDict, defaultdict)}
LOOKS |= {np.ndarray: _of_array, FunctionType: _of_function, BuiltinFunctionType: _of_builtin, ModuleType: _of_module}
LOOKS |= {MethodType: lambda m: [m.__self__, m.__func__], weakref.ReferenceType: lambda r: [r()]}
LOOKS |= {partial: lambda p: [p.func, p.args, p.keywords], **dict.fromkeys(WRAPPERS, lambda w: [w.__wrapped__])}
