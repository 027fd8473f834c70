"""What a callable holds and reaches, found without running it; and the packages that objects come from."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

PLAIN = {str, bytes, bool, int, float, complex, type(None)}  # values that hold nothing; tables have very many


def packages(value: Any) -> frozenset[str]:
    """Return the packages of an object's class, or of a class, and of all its base classes."""
    kind: Any = value if isinstance(value, type) else type(value)
    return _packages(kind)


@functools.lru_cache(4096)
def _packages(kind: Any) -> frozenset[str]:
    return frozenset(base.__module__.partition(".")[0] for base in kind.__mro__)


CONTAINERS = ("list", "tuple", "dict", "sequence", "mapping", "mutablemapping", "iterable")


def takes_container(model: Any, inputs: Any, extra: Any = ()) -> bool:
    """Return whether a callable takes several inputs as one list, or one dict, rather than each as an argument.

    Its signature decides: inputs are arguments where they fit, unless the first parameter is annotated as a container.
    """
    try:
        signature = inspect.signature(getattr(model, "forward", model))
    except (TypeError, ValueError):
        return False
    first = next(iter(signature.parameters.values()), None)
    annotation = "" if first is None or first.annotation is first.empty else first.annotation
    named = getattr(annotation, "__name__", None) or getattr(annotation, "_name", None) or str(annotation)
    is_container = named.rpartition(".")[2].partition("[")[0].lower() in CONTAINERS

    def fits(*args: Any, **kwargs: Any) -> bool:
        try:
            signature.bind(*args, **kwargs)
        except TypeError:
            return False
        return True

    fits_separately = fits(*extra, **inputs) if isinstance(inputs, dict) else fits(*inputs, *extra)
    return fits(inputs, *extra) and (is_container or not fits_separately)


def is_keras(layer: Any) -> bool:
    """Return whether a model or layer is one of Keras, on any backend, or derived from one."""
    return not isinstance(layer, type) and "keras" in packages(layer)


def reached(value: Any, is_match: Callable[[Any], bool], depth: float = float("inf")) -> Iterator[Any]:
    """Yield matches in a value and in what it holds down to a depth, the nearest first; matches are not searched."""
    seen: set[int] = set()
    level = [value]
    while level and depth > 0:
        level = [
            candidate
            for candidate in {id(candidate): candidate for candidate in level}.values()
            if id(candidate) not in seen
        ]
        seen.update(map(id, level))
        matches = {id(candidate) for candidate in level if is_match(candidate)}
        yield from (candidate for candidate in level if id(candidate) in matches)
        parts = (part for candidate in level if id(candidate) not in matches for part in held(candidate))
        level, depth = [part for part in parts if type(part) not in PLAIN], depth - 1


def held(value: Any) -> list[Any]:
    """Return what a container, function or object holds: items, closures, named globals, defaults, attributes."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set)):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if inspect.ismethod(value):
        return [value.__self__, value.__func__]
    if inspect.isclass(value) or inspect.ismodule(value):
        return []
    if inspect.isfunction(value):
        named = globals_of(value).values()
        return [*closure_of(value), *named, value.__defaults__, value.__kwdefaults__, *vars(value).values()]
    if hasattr(type(value), "python_function"):  # a tf.function
        return [value.python_function]
    attributes = list(getattr(value, "__dict__", {}).values())
    return [*attributes, type(value).__call__] if callable(value) else attributes


def closure_of(function: Any) -> list[Any]:
    """Return the values in a Python function's closure."""
    return [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]


def code_of(function: Any) -> CodeType:
    """Return the compiled code of a Python function, to be read alone."""
    return function.__code__


def globals_of(function: Any) -> dict[str, Any]:
    """Return the globals that a function of Python names, and those of the functions defined in it."""
    names = sorted({name for code in _codes(code_of(function)) for name in code.co_names})
    return {name: function.__globals__[name] for name in names if name in function.__globals__}


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code, and that of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from _codes(constant)


def _is_filled(cell: Any) -> bool:
    """Return whether a cell of a closure has a value."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
