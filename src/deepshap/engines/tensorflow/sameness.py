"""Whether a model is as it was, told without a trace, where all of its code is Keras' own.

That code reads the objects that the model consists of, their classes, the modules that it looks names up in, and the settings
of Keras. All of them are compared, however deep, by identity. Code of others may read anything else, such as files or the
environment: a model that reaches some has no state that could be compared.
"""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from itertools import chain
from types import BuiltinFunctionType, CodeType, EllipsisType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.utils.tracking import Tracker
from tensorflow.python.trackable import data_structures
from tensorflow.python.trackable.base import TrackableReference

from ..callables import PLAIN, closure_of, packages
from .own_code import OWN, Code, Foreign, root, same

KNOWN = {*OWN, "builtins", "abc", "typing", "collections", "enum"}  # whose classes Keras' own may be derived from
LOOKED_UP = "keras.src.", "tensorflow._api.v2."  # modules in which that code finds functions by their names
OLD = "tensorflow._api.v2.compat."
# What never changes, what a graph reads when it runs, and the books of those who track objects.
FIXED = {*PLAIN, object, range, slice, EllipsisType, CodeType, inspect.Signature}
FIXED |= {type(threading.Lock()), type(threading.RLock())}
FIXED_BASES = np.generic, np.dtype, tf.DType, tf.TensorShape, tf.Tensor, tf.Variable, Tracker, TrackableReference
# What training keeps on a model, and TensorFlow on what it tracks: no call reads it.
UNREAD = {"optimizer", "loss", "_loss_tracker", "_compile_loss", "_compile_metrics", "_compile_config", "history"}
UNREAD |= {"train_function", "test_function", "predict_function", "_tracked"}
WRAPPERS = data_structures._DictWrapper, data_structures._TupleWrapper  # of what layers hold
END = object()  # of what an object holds
MOST_OBJECTS, MOST_BYTES = 2**18, 2**24  # that are compared, bytes of arrays: beyond that a trace is quicker
Look = Callable[[Any], list[Any]]


class State:
    """All that the code of a model reads; equal to another one if none of it has changed."""

    def __init__(self, roots: Iterable[Any]) -> None:
        self._met: list[Any] = [*roots, *_settings()]
        self._arrays: list[Any] = []
        self._named = _in_modules()
        waiting, seen, size = list(self._met), set(), 0
        while waiting:
            value = waiting.pop()
            if id(value) in seen:
                continue
            kind = type(value)
            parts = _look(kind)(value)  # type: ignore[arg-type]  # classes are hashable
            if kind is np.ndarray:
                self._arrays.append((value.dtype, value.shape, value.tobytes()))
                size += value.nbytes
            if size > MOST_BYTES or len(self._met) + len(parts) > MOST_OBJECTS:
                raise Foreign(value)
            owner = value if isinstance(value, type) else kind
            if id(owner) not in seen:
                self._met.append(_own(owner, _defined(owner)))
            seen |= {id(value), id(owner)}
            self._met += parts
            self._met.append(END)
            waiting += [part for part in parts if type(part) not in FIXED]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State) or self._arrays != other._arrays:
            return False
        return self._named is other._named and same(self._met, other._met)

    __hash__ = None  # type: ignore[assignment]


def state_of(*roots: Any) -> State | None:
    """The state of a model, and of what else decides how it is called; None if it could read what cannot be compared."""
    try:
        return State(roots)
    except Foreign:
        return None


# ---------------------------------------------------------------------- what code finds by names
_loaded: list[list[Any]] = [[], []]  # all modules, and the names in those in which Keras' code finds functions
_code: dict[Any, Code] = {}  # of these modules, and of classes, as it was last


def _in_modules() -> Code:
    """All that the modules of Keras, and those of TensorFlow that are public, have."""
    modules = list(sys.modules.values())
    if not same(modules, _loaded[0]):
        own = [m for name, m in sys.modules.items() if type(m) is ModuleType and _is_looked_up(name)]
        _loaded[:] = modules, [vars(module) for module in own]
    return _own(None, list(chain.from_iterable(map(dict.values, _loaded[1]))))


def _own(where: Any, values: list[Any]) -> Code:
    """The code of a class, or of the modules."""
    known = _code.get(where)
    if known is None or not known.is_still(values):
        known = _code[where] = Code(values)
    return known


def _is_looked_up(name: str) -> bool:
    return name == "tensorflow" or (name.startswith(LOOKED_UP) and not name.startswith(OLD))


def _defined(kind: type) -> list[Any]:
    """What a class of Keras' own and its bases define, but for annotations, which Python makes when they are asked for."""
    named = (pair for base in _own_bases(kind) for pair in vars(base).items())
    return [value for name, value in named if name != "__annotations__"]


@lru_cache(4096)
def _own_bases(kind: type) -> list[type]:
    return [base for base in kind.__mro__ if root(base.__module__) in OWN]


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
    read = (pair for pair in attributes.items() if pair[0] not in UNREAD and not pair[0].startswith("_self_"))
    return content(value) + [part for pair in read for part in pair]


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
