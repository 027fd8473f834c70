"""Which engine explains a model: that of PyTorch, or that of Keras and TensorFlow. Found out here alone; others ask here."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .callables import is_keras, packages, reached
from .interface import Engine

if TYPE_CHECKING:  # both keep to the protocol
    from .tensorflow.engine import TensorFlowEngine
    from .torch.engine import TorchEngine

    _KEPT: tuple[type[Engine], ...] = (TorchEngine, TensorFlowEngine)

ENGINES = {"torch": "TorchEngine", "tensorflow": "TensorFlowEngine"}  # by the frameworks, which have a folder each
TENSORFLOW = {"tensorflow", "tf_keras"}
DEPTH = 4  # how far a framework is looked for inside of callables


def engine_for(model: Any, data: Any) -> Callable[..., Engine]:
    """Return the class of the engine that explains a model; for a plain callable, by what it holds or by its data.

    Raises
    ------
    InputError
        For Keras models on another backend than TensorFlow and PyTorch.
    ImportError
        If the framework is not installed; it names the extra.
    """
    framework = framework_of(model, data)
    return getattr(engine_module(framework, "engine"), ENGINES[framework])


def engine_module(framework: str, name: str) -> Any:
    """Return one framework's version of a module that both engines have."""
    if not any(map(find_spec, ENGINES)):
        raise ImportError(
            "explaining a model needs PyTorch or TensorFlow: pip install 'deepshap[torch]' or pip install 'deepshap[keras]'."
        )
    if find_spec(framework) is None:
        extra = "keras" if framework == "tensorflow" else framework
        raise ImportError(f"explaining this model needs {framework}: pip install 'deepshap[{extra}]'.")
    return import_module(f".{framework}.{name}", __package__)


def parts_of(model: Any) -> tuple[Any, Any]:
    """Return a model, and the inner layer to explain, if one is given: ``(model, layer)``.

    Symbolic tensors of Keras, ``(inputs, output)`` as shap takes them, are made a model.
    """
    if not callable(model) and hasattr(model, "signatures"):  # a loaded SavedModel
        return engine_module("tensorflow", "inputs").served(model), None
    if not isinstance(model, (tuple, list)) or len(model) != 2:
        return model, None
    if callable(model[0]):
        return model[0], model[1]
    return engine_module("tensorflow", "inputs").between(*model), None


def framework_of(model: Any, data: Any = None) -> str:
    """Return the framework of a model: "torch" or "tensorflow"."""
    for value, depth in ((model, 2), (data, 2), (model, DEPTH)):  # what they are goes before what they hold
        plain = depth == 2 and callable(value) and _of_type(value) is None
        match = None if plain else next(reached(value, lambda candidate: _of_type(candidate) is not None, depth), None)
        if match is not None:
            return str(_of_type(match))
    return "tensorflow" if "tensorflow" in sys.modules and "torch" not in sys.modules else "torch"


def takes_keras(model: Any) -> bool:
    """Return whether a model computes with what ``keras.ops`` makes: one of Keras, on any backend, or of TensorFlow."""
    return is_keras(model) or framework_of(model) == "tensorflow"


def _of_type(value: Any) -> str | None:
    roots = {value.__name__.partition(".")[0]} if inspect.ismodule(value) else packages(value)
    if "keras" in roots:
        return _of_backend()
    if "torch" in roots:
        return "torch"
    return "tensorflow" if roots & TENSORFLOW else None


def _of_backend() -> str:
    backend = import_module("keras").backend.backend()
    if backend not in ENGINES:
        raise InputError(
            f"Keras runs on the backend {backend!r}; deepshap explains Keras models on TensorFlow and on PyTorch. Save the model "
            "(model.save) and load it under KERAS_BACKEND=tensorflow or KERAS_BACKEND=torch."
        )
    return str(backend)
