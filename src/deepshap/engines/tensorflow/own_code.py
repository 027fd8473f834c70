"""The code of Keras and TensorFlow: whether all that their classes and modules define is theirs, and whether it is as it was.

What somebody else puts there (a function, a property, a mock) may read anything, and is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache, partial, partialmethod
from operator import attrgetter, is_
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from ..callables import PLAIN, closure_of

OWN = {"keras", "tensorflow", "deepshap"}  # packages whose code reads nothing but what is compared
BORROWED = {
    *OWN,
    *sys.stdlib_module_names,
    "numpy",
    "scipy",
    "ml_dtypes",
    "packaging",
    "absl",
    "optree",
    "google",
    "wrapt",
}
BORROWED |= {"h5py", "rich", "namex", "sklearn", "PIL"}  # whose functions, classes and objects theirs may have
BORROWED -= {"unittest"}  # of which mocks are
Parts = Callable[[Any], Iterable[Any]]


class Foreign(Exception):
    """A model reaches what may read anything, or what cannot be looked into."""


class Code:
    """What classes or modules define, all of it their own; equal to other code where nothing has changed.

    Raises
    ------
    Foreign
        If somebody else has put something there.
    """

    def __init__(self, values: list[Any]) -> None:
        self.values, self._functions = values, []
        waiting, seen = list(values), set()
        while waiting:
            value = waiting.pop()
            if type(value) in PLAIN or id(value) in seen:
                continue
            seen.add(id(value))
            if type(value) is FunctionType:
                self._functions.append(value)
            waiting += _parts(value)
        self._read = self._now()

    def is_still(self, values: list[Any]) -> bool:
        """Whether these are the very same values, and their functions have the code that they had."""
        return same(values, self.values) and same(self._now(), self._read)

    def _now(self) -> list[Any]:
        codes, defaults = (map(attrgetter(name), self._functions) for name in ("__code__", "__defaults__"))
        return [*codes, *defaults]


def same(some: list[Any], others: list[Any]) -> bool:
    """Whether the very same objects are in both."""
    return some is others or (len(some) == len(others) and all(map(is_, some, others)))


@lru_cache(4096)
def root(module: Any) -> str:
    """The package of a module."""
    return str(module).partition(".")[0]


def _parts(value: Any) -> Iterable[Any]:
    """What code is made of; Foreign where it is not of these packages."""
    kind = type(value)
    if kind is FunctionType:
        home = value.__globals__.get("__name__")
    else:
        home = value.__module__ if issubclass(kind, type) else kind.__module__
    if root(home) not in BORROWED and not str(home).startswith("namedtuple_"):  # what Python itself writes
        raise Foreign(value)
    return PARTS[kind](value) if kind in PARTS else ()


PARTS: dict[type, Parts] = {
    FunctionType: lambda f: (*closure_of(f), *vars(f).values()),
    MethodType: lambda m: (m.__func__, m.__self__),
    BuiltinFunctionType: lambda f: () if isinstance(f.__self__, ModuleType) else (f.__self__,),
    property: lambda p: (p.fget, p.fset, p.fdel),
    cached_property: lambda p: (p.func,),
    staticmethod: lambda m: (m.__func__,),
    classmethod: lambda m: (m.__func__,),
    partial: lambda p: (p.func, *p.args, *p.keywords.values()),
    partialmethod: lambda p: (p.func, *p.args, *p.keywords.values()),
    type(lru_cache(root)): lambda f: (f.__wrapped__,),
}
