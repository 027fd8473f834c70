"""What a callable holds and reaches, found without running it; and the packages that objects come from."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

PLAIN = {str, bytes, bool, int, float, complex, type(None)}  # values that hold nothing; tables have very many


def packages(value: Any) -> frozenset[str]:
    """The packages of an object's class, or of a class, and of all that it is derived from."""
    kind: Any = value if isinstance(value, type) else type(value)
    return _packages(kind)


@functools.lru_cache(4096)
def _packages(kind: Any) -> frozenset[str]:
    return frozenset(base.__module__.partition(".")[0] for base in kind.__mro__)


CONTAINERS = ("list", "tuple", "dict", "sequence", "mapping", "mutablemapping", "iterable")


def takes_container(model: Any, given: Any, extra: Any = ()) -> bool:
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

    apart = fits(*extra, **given) if isinstance(given, dict) else fits(*given, *extra)
    return fits(given, *extra) and (is_container or not apart)


def is_keras(layer: Any) -> bool:
    """Whether a model or layer is one of Keras, on whichever backend, or derived from one."""
    return not isinstance(layer, type) and "keras" in packages(layer)


def reached(value: Any, is_found: Callable[[Any], bool], depth: float = float("inf")) -> Iterator[Any]:
    """What is found in a value, the nearest first, so deep in what it holds; what is found is not looked into."""
    seen: set[int] = set()
    level = [value]
    while level and depth > 0:
        level = [one for one in {id(one): one for one in level}.values() if id(one) not in seen]
        seen.update(map(id, level))
        found = {id(one) for one in level if is_found(one)}
        yield from (one for one in level if id(one) in found)
        parts = (part for one in level if id(one) not in found for part in held(one))
        level, depth = [part for part in parts if type(part) not in PLAIN], depth - 1


def held(value: Any) -> list[Any]:
    """What a container, a function or an object holds: items, closures, globals that code names, defaults, attributes."""
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
    """What a function of Python has from the functions around it."""
    return [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]


def code_of(function: Any) -> CodeType:
    """Return the compiled code of a Python function, to be read alone."""
    return function.__code__


def globals_of(function: Any) -> dict[str, Any]:
    """The globals that a function of Python names, and those of the functions defined in it."""
    names = sorted({name for code in _codes(code_of(function)) for name in code.co_names})
    return {name: function.__globals__[name] for name in names if name in function.__globals__}


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Code, and that of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from _codes(constant)


def _is_filled(cell: Any) -> bool:
    """Whether a function's closure has put something into a cell."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
