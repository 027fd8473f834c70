"""The code of Keras and TensorFlow: what of it runs, whether all that its classes and modules define is theirs, and as it was.

What somebody else puts there (a function, a property, a mock) may read anything, and is refused.
"""

from __future__ import annotations

import cProfile
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial, partialmethod
from itertools import chain
from operator import attrgetter, is_
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from ..callables import PLAIN, closure_of

if TYPE_CHECKING:
    from typing_extensions import Self

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
LOOKED_UP = "keras.src.", "tensorflow._api.v2."  # modules in which Keras' code finds functions by their names
OLD = "tensorflow._api.v2.compat."
READ = "__code__", "__defaults__"  # of functions, which may be put into them
Parts = Callable[[Any], Iterable[Any]]


class Foreign(Exception):
    """A model reaches what may read anything, or what cannot be looked into."""


class Code:
    """What classes or modules define, all of it their own, in some namespaces.

    Raises
    ------
    Foreign
        If somebody else has put something there.
    """

    def __init__(self, spaces: Sequence[Mapping[str, Any]]) -> None:
        self._spaces, self._defined = spaces, [value for space in spaces for value in space.values()]
        functions, waiting, seen = [], list(self._defined), set()
        while waiting:
            value = waiting.pop()
            if type(value) in PLAIN or id(value) in seen:
                continue
            seen.add(id(value))
            if type(value) is FunctionType:
                functions.append(value)
            waiting += _parts(value)
        self._functions = functions
        self._read = [[getattr(function, name) for function in functions] for name in READ]

    def is_still(self) -> bool:
        """Whether the very same values are there, and their functions have the code that they had."""
        if sum(map(len, self._spaces)) != len(self._defined):
            return False
        values = chain.from_iterable(space.values() for space in self._spaces)
        return all(map(is_, values, self._defined)) and all(
            all(map(is_, map(attrgetter(name), self._functions), read))
            for name, read in zip(READ, self._read, strict=True)
        )


class Ran:
    """The code of Keras that has run within ``with`` this, and the modules that it finds names in.

    Those are the modules that it stands in, those that it imports, and those that are in these under names that it says.
    """

    def __init__(self) -> None:
        self._profiler = cProfile.Profile(subcalls=False, builtins=False)  # of code in C, which takes little time
        self._is_told = sys.getprofile() is None  # else another profiler looks on, and is not disturbed

    def __enter__(self) -> Self:
        if self._is_told:
            try:
                self._profiler.enable()
            except ValueError:  # of Python 3.12 and later: there is another one
                self._is_told = False
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_told:
            self._profiler.disable()

    def modules(self) -> dict[str, dict[str, Any]]:
        """What the modules define, by their names; where it could not be told which these are, all modules."""
        loaded = {name: vars(m) for name, m in sys.modules.items() if type(m) is ModuleType and _is_looked_up(name)}
        if not self._is_told:
            return loaded
        codes = [entry.code for entry in self._profiler.getstats() if type(entry.code) is CodeType]
        files = {found.get("__file__"): name for name, found in loaded.items()}
        own = [(code, files[code.co_filename]) for code in codes if code.co_filename in files]
        said = {name for code, _ in own for name in _said(code)}
        modules = {name: loaded[name] for name in {name for _, name in own} | (said & loaded.keys())}
        waiting = list(modules.values())
        while waiting:
            found = waiting.pop()
            inner = [vars(v) for name, v in found.items() if type(v) is ModuleType and name in said]
            new = {
                one["__name__"]: one
                for one in inner
                if _is_looked_up(one["__name__"]) and one["__name__"] not in modules
            }
            modules |= new
            waiting += new.values()
        return modules if own else loaded


def _said(code: CodeType) -> Iterator[str]:
    """The names in some code, and its words, under which it may find something too."""
    waiting = [code.co_names, code.co_consts]
    while waiting:
        for value in waiting.pop():
            if type(value) is str:
                yield value
            elif type(value) in (tuple, frozenset):
                waiting.append(value)


def _is_looked_up(module: str) -> bool:
    return module == "tensorflow" or (module.startswith(LOOKED_UP) and not module.startswith(OLD))


def same(some: list[Any], others: list[Any]) -> bool:
    """Whether the very same objects are in both."""
    return len(some) == len(others) and all(map(is_, some, others))


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
