"""SHA-256 digests of what the results of a run depend on, the same in every process.

A digest covers values, not modules of code: the weights of a model, its layers with their settings and how Keras joins them; the
bytes of arrays; the content of files; and the code and closure of a function such as ``output=``. A change in the code of a
model, or of a function that is called, is not noticed.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from ..engines._compat import all_layers
from ..engines.callables import closure_of, code_of, globals_of

PLAIN = (type(None), bool, int, float, complex, str, bytes)
BLOCK = 2**24  # bytes that are read at a time


def digest(value: Any) -> str:
    """Return the SHA-256 digest of a value and what it holds."""
    sha = hashlib.sha256()
    _feed(sha, value, {})
    return sha.hexdigest()


def _feed(sha: Any, value: Any, seen: dict[int, Any]) -> None:
    """Add a value to a digest; each object is added once, and kept alive so that no other one gets its id."""

    def feed_all(kind: str, values: Iterable[Any]) -> None:
        sha.update(f"<{kind}".encode())
        for item in values:
            _feed(sha, item, seen)
        sha.update(b">")

    if isinstance(value, PLAIN):
        sha.update(f"{type(value).__name__} {value!r};".encode("utf-8", "surrogatepass"))
        return
    array = _as_array(value)
    if array is not None and array.dtype != object:
        sha.update(f"{getattr(value, 'dtype', '')} {array.shape}".encode())
        _feed_bytes(sha, array)
        return
    if id(value) in seen:
        return
    seen[id(value)] = value
    if array is not None:
        feed_all(f"objects {array.shape}", array.flat)
    elif isinstance(value, Mapping):
        feed_all("mapping", (entry for item in value.items() for entry in item))
    elif isinstance(value, (list, tuple)):
        feed_all(type(value).__name__, value)
    elif isinstance(value, (set, frozenset)):
        feed_all("set", sorted(map(digest, value)))
    elif isinstance(value, type):
        sha.update(value.__qualname__.encode())
    else:
        feed_all(f"{type(value).__qualname__} {getattr(value, '__qualname__', '')}", _state(value))


def _state(value: Any) -> list[Any]:
    """Return what an object is made of: of models weights and settings, of functions code and closure, of others attributes."""
    if isinstance(value, FunctionType):
        constants = [entry for entry in code_of(value).co_consts if isinstance(entry, PLAIN)]
        named = [entry for entry in globals_of(value).values() if isinstance(entry, PLAIN) or _holds_weights(entry)]
        return [code_of(value).co_code, constants, value.__defaults__, value.__kwdefaults__, closure_of(value), named]
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if callable(getattr(value, "named_modules", None)):  # a torch.nn.Module
        modules = [(name, type(entry).__qualname__, _settings(entry)) for name, entry in value.named_modules()]
        tensors = [*value.named_parameters(), *value.named_buffers(), *value.state_dict().items()]
        return [modules, dict(tensors), str(getattr(value, "code", ""))]
    if all(hasattr(value, name) for name in ("get_config", "weights", "layers")):  # a keras.Model
        layers = [(type(layer).__qualname__, _settings(layer)) for layer in all_layers(value)]
        return [_wiring(value), layers, list(value.weights)]
    if _holds_weights(value):  # a SavedModel or tf.function
        return [list(value.variables)]
    text = repr(value)
    return [vars(value)] if hasattr(value, "__dict__") else ["" if " at 0x" in text else text]


def _holds_weights(value: Any) -> bool:
    return any(hasattr(value, name) for name in ("named_modules", "weights", "variables")) and not isinstance(
        value, type
    )


def _settings(layer: Any) -> dict[str, Any]:
    """Return the attributes of a layer that are plain values or arrays, but its name and mode."""
    public = {name: attribute for name, attribute in vars(layer).items() if not name.startswith("_")}
    settings = {
        name: attribute
        for name, attribute in public.items()
        if isinstance(attribute, PLAIN) or _as_array(attribute) is not None
    }
    lists = {
        name: attribute
        for name, attribute in public.items()
        if isinstance(attribute, (list, tuple)) and all(isinstance(entry, PLAIN) for entry in attribute)
    }
    return {
        name: attribute
        for name, attribute in {**settings, **lists}.items()
        if name not in ("name", "built", "training")
    }


def _wiring(model: Any) -> str:
    """Return how the layers of a Keras model are set and joined, under names that count from 0 in every model."""
    try:
        text = model.to_json()
    except (NotImplementedError, TypeError, ValueError):  # a class of the user's
        return ""
    for place, name in enumerate(dict.fromkeys(re.findall(r'"name": "([^"]+)"', text))):
        text = text.replace(f'"{name}"', f'"#{place}"')
    return text


def _as_array(value: Any) -> np.ndarray | None:
    """Return arrays and tensors of any framework as an array; tensors of torch as their bytes."""
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    if isinstance(value, type) or not (hasattr(value, "dtype") and hasattr(value, "shape")):
        return None
    if hasattr(value, "untyped_storage"):
        torch = sys.modules["torch"]
        dense = value.detach().to_dense() if value.layout is not torch.strided else value.detach()
        flat = dense.cpu().contiguous()
        return flat.view(torch.uint8).numpy() if flat.dim() else flat[None].view(torch.uint8).numpy()
    return np.asarray(value) if callable(getattr(value, "numpy", None)) else None


def _feed_bytes(sha: Any, array: np.ndarray) -> None:
    """Add the bytes of an array, of one on disk a piece at a time."""
    sha.update(str(array.dtype).encode())
    rows = max(1, BLOCK // max(1, array[:1].nbytes)) if array.ndim else 1
    for start in range(0, len(array) if array.ndim else 1, rows):
        sha.update(np.ascontiguousarray(array[start : start + rows] if array.ndim else array).tobytes())


def source_digest(paths: Iterable[Path]) -> str:
    """Return the digest of the contents of files, one after the other."""
    return digest([file_digest(path) for path in paths])


def file_digest(path: Path) -> str:
    """Return the digest of a file's content."""
    sha = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            sha.update(block)
    return sha.hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of packages, and of Python."""
    of_packages = {name: str(import_module(name).__version__) for name in packages}
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}", **of_packages}
