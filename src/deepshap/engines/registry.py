"""Which engine explains a model: that of PyTorch, or that of Keras and TensorFlow. The one place that asks."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import InputError
from .api import Engine

TENSORFLOW, TORCH, KERAS = ("tensorflow", "tf_keras"), ("torch",), ("keras",)
PACKAGES = {"torch": "torch", "keras": "keras"}
DEPTH = 4  # how far a framework is looked for inside of callables


def engine_for(model: Any, data: Any) -> Callable[..., Engine]:
    """The class of the engine that explains a model; of a plain callable, by what it holds or by its data.

    Raises
    ------
    InputError
        For Keras models on another backend than TensorFlow and PyTorch.
    ImportError
        If the framework is not installed; it names the extra.
    """
    framework = framework_of(model, data)
    return getattr(room(framework, "engine"), "KerasEngine" if framework == "keras" else "TorchEngine")


def room(framework: str, name: str) -> Any:
    """A module that the engines of both frameworks have, of one of them."""
    package, needed = ("tensorflow", "tensorflow") if framework == "keras" else ("torch", "torch")
    return _imported(framework, f".{package}.{name}", needed)


def parts_of(model: Any) -> tuple[Any, Any]:
    """A model, and the inner layer that is to be explained, if one is given: ``(model, layer)``.

    Symbolic tensors of Keras, ``(inputs, output)`` as shap takes them, are made a model.
    """
    if not callable(model) and hasattr(model, "signatures"):  # a loaded SavedModel
        return room("keras", "models").served(model), None
    if not isinstance(model, (tuple, list)) or len(model) != 2:
        return model, None
    if callable(model[0]):
        return model[0], model[1]
    return room("keras", "models").between(*model), None


def framework_of(model: Any, data: Any = None) -> str:
    """The framework of a model: "torch" or "keras"."""
    for value, depth in ((model, 2), (data, 2), (model, DEPTH)):  # what they are goes before what they hold
        plain = depth == 2 and callable(value) and _of_type(value) is None
        found = None if plain else next(_frameworks(value, depth, set()), None)
        if found is not None:
            return found
    return "keras" if "tensorflow" in sys.modules and "torch" not in sys.modules else "torch"


def is_keras(layer: Any) -> bool:
    """Whether a model or layer is one of Keras, on whichever backend, or derived from one."""
    return any(base.__module__.partition(".")[0] == "keras" for base in type(layer).__mro__)


def _imported(extra: str, module: str, package: str) -> Any:
    if not any(map(find_spec, ("torch", "tensorflow"))):
        raise ImportError(
            "explaining a model needs PyTorch or TensorFlow: pip install 'deepshap[torch]' or pip install 'deepshap[keras]'."
        )
    if find_spec(package) is None:
        raise ImportError(f"explaining this model needs {package}: pip install 'deepshap[{extra}]'.")
    return import_module(module, __package__)


def _frameworks(value: Any, depth: int, seen: set[int]) -> Iterator[str]:
    """Frameworks of a value and of what it holds, the nearest first."""
    if depth == 0 or id(value) in seen:
        return
    seen.add(id(value))
    framework = _of_type(value)
    if framework is not None:
        yield framework
        return
    for part in _held(value):
        yield from _frameworks(part, depth - 1, seen)


def _of_type(value: Any) -> str | None:
    if inspect.ismodule(value):
        packages = {value.__name__.partition(".")[0]}
    elif isinstance(value, type):
        packages = {base.__module__.partition(".")[0] for base in value.__mro__}
    else:
        packages = {base.__module__.partition(".")[0] for base in type(value).__mro__}
    if packages & set(KERAS):
        return _of_backend()
    if packages & set(TORCH):
        return "torch"
    return "keras" if packages & set(TENSORFLOW) else None


def _of_backend() -> str:
    backend = import_module("keras").backend.backend()
    if backend not in ("tensorflow", "torch"):
        raise InputError(
            f"Keras runs on the backend {backend!r}; deepshap explains Keras models on TensorFlow and on PyTorch. Save the model "
            "(model.save) and load it under KERAS_BACKEND=tensorflow or KERAS_BACKEND=torch."
        )
    return "keras" if backend == "tensorflow" else "torch"


def _held(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set)):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if inspect.ismethod(value):
        return [value.__self__, value.__func__]
    if inspect.isfunction(value):
        cells = [cell.cell_contents for cell in value.__closure__ or () if is_filled(cell)]
        names = [name for code in codes(value.__code__) for name in code.co_names]
        return [*cells, *(value.__globals__[name] for name in names if name in value.__globals__)]
    if isinstance(value, type) or not callable(value):
        return []
    return [*getattr(value, "__dict__", {}).values(), getattr(type(value), "__call__", None)]  # noqa: B004


def codes(code: Any) -> Iterator[Any]:
    """Code, and that of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from codes(constant)


def is_filled(cell: Any) -> bool:
    """Whether a function's closure has put something into a cell."""
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
