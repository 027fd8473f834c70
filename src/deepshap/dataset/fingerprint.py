"""What the results of a run depend on, as digests that are the same in every process.

A model is read as deep as Python allows: weights by value, code of the user's own functions and classes by what it does,
installed packages by name and version. What cannot be read is an error: it could change unnoticed.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import re
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.callables import closure_of, globals_of
from ..errors import InputError

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
INSTALLED = frozenset({"site-packages", "dist-packages"})
NOT_RESULTS = frozenset({"training", "__dict__", "__weakref__", "__doc__", "__annotations__", "__firstlineno__"})


def digest(value: Any) -> str:
    """Digest of a value and all that it is made of, equal for equal values in any process.

    Raises
    ------
    InputError
        If something in it can neither be read nor pickled.
    """
    try:
        return _Reader().read(value)
    except RecursionError:
        raise InputError(
            f"a {type(value).__name__} is nested too deeply to tell whether it is the same in another run."
        ) from None


class _Reader:
    """Digests of values; each object is read once, and a way back to one that is being read is noted as such."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        self._alive: list[Any] = []  # or another object might get its id
        self._open: list[int] = []

    def read(self, value: Any) -> str:
        if isinstance(value, PLAIN):
            return _hashed("plain", type(value).__name__, repr(value))
        key = id(value)
        if key in self._open:
            return _hashed("cycle", str(len(self._open) - self._open.index(key)))
        if key not in self._known:
            self._open.append(key)
            self._alive.append(value)
            self._known[key] = self._inside(value)
            self._open.pop()
        return self._known[key]

    def _all(self, kind: str, values: Iterable[Any]) -> str:
        return _hashed(kind, *map(self.read, values))

    def _inside(self, value: Any) -> str:
        array = _as_array(value)
        if array is not None:
            return self._array(*array)
        if isinstance(value, enum.Enum):
            return self._all("enum", (type(value), value.name))
        if isinstance(value, Mapping):
            return self._all("mapping", (part for item in value.items() for part in item))
        if isinstance(value, (list, tuple, deque)):
            return self._all("sequence", value)
        if isinstance(value, (set, frozenset)):
            return _hashed("set", *sorted(map(self.read, value)))
        reader = next((read for kind, read in self._READERS if isinstance(value, kind)), type(self)._object)
        return reader(self, value)

    def _array(self, kind: str, array: np.ndarray) -> str:
        if array.dtype == object:
            return self._all("objects", (array.shape, *array.flat))
        return _hashed("array", kind, str(array.shape), content(array))

    # ------------------------------------------------------------------ code
    def _function(self, function: Any) -> str:
        if _is_installed(function.__module__):
            return self._named(function)
        named = list(globals_of(function).items())
        parts = (function.__code__, closure_of(function), function.__defaults__, function.__kwdefaults__, named)
        return self._all("function", parts)

    def _code(self, code: types.CodeType) -> str:
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        return self._all("code", (code.co_code, code.co_consts, names, code.co_flags))

    def _class(self, cls: type) -> str:
        if _is_installed(cls.__module__):
            return self._named(cls)
        own = {name: v for name, v in vars(cls).items() if name not in NOT_RESULTS and name != "__module__"}
        return self._all("class", (cls.__qualname__, cls.__bases__, own))

    def _named(self, value: Any) -> str:
        """What belongs to a package is known by its name and the package's version."""
        module = getattr(value, "__module__", None) or ""
        version = str(getattr(sys.modules.get(module.partition(".")[0]), "__version__", ""))
        return _hashed("named", module, getattr(value, "__qualname__", ""), version)

    def _module(self, module: types.ModuleType) -> str:
        return _hashed("module", module.__name__)

    def _nothing(self, value: Any) -> str:
        return _hashed("reference")  # of weak references, what they refer to is reached otherwise

    def _partial(self, value: Any) -> str:
        return self._all("partial", (value.func, value.args, value.keywords))

    def _method(self, value: Any) -> str:
        return self._all("method", (value.__self__, value.__func__))

    def _descriptor(self, value: Any) -> str:
        return self._all("descriptor", [getattr(value, name, None) for name in ("fget", "fset", "__func__")])

    # ------------------------------------------------------------------ objects
    def _object(self, value: Any) -> str:
        state = _state(value)
        if state is not None:
            return self._all("object", (type(value), {k: v for k, v in state.items() if k not in NOT_RESULTS}))
        try:
            return self._all("reduced", (type(value), value.__reduce_ex__(4)))
        except (TypeError, AttributeError):
            raise InputError(
                f"the model, its background or an option holds a {type(value).__module__}.{type(value).__qualname__}, of which "
                "nobody can tell whether it is the same in another run: leave it out, or keep plain values in its place."
            ) from None

    _READERS: tuple[tuple[Any, Callable[[Any, Any], str]], ...] = (
        (types.FunctionType, _function),
        (types.CodeType, _code),
        (type, _class),
        (types.ModuleType, _module),
        ((types.GetSetDescriptorType, types.MemberDescriptorType), _named),
        ((types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, np.ufunc), _named),
        ((weakref.ref, weakref.ProxyType), _nothing),
        (functools.partial, _partial),
        (types.MethodType, _method),
        ((property, classmethod, staticmethod), _descriptor),
    )


def content(array: np.ndarray) -> str:
    """Digest of an array's bytes; of one on disk, a piece at a time."""
    found = hashlib.blake2b(str(array.dtype).encode(), digest_size=16)
    rows = max(1, 2**24 // max(1, array[:1].nbytes)) if array.ndim else 1
    for start in range(0, len(array) if array.ndim else 1, rows):
        piece = array[start : start + rows] if array.ndim else array
        found.update(np.ascontiguousarray(piece).view(np.uint8).data if piece.size and piece.ndim else piece.tobytes())
    return found.hexdigest()


def _hashed(*texts: str) -> str:
    found = hashlib.blake2b(digest_size=16)
    for text in texts:
        found.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def _as_array(value: Any) -> tuple[str, np.ndarray] | None:
    """Arrays and tensors of any framework as an array, with their type."""
    if isinstance(value, (np.ndarray, np.generic)):
        return str(value.dtype), np.asarray(value)
    if isinstance(value, type):
        return None
    if hasattr(value, "detach") and hasattr(value, "untyped_storage"):
        flat = value.detach().cpu().contiguous().flatten()
        return f"{value.dtype}{tuple(value.shape)}", flat.view(sys.modules["torch"].uint8).numpy()
    if callable(getattr(value, "numpy", None)) and hasattr(value, "dtype") and hasattr(value, "shape"):
        return str(value.dtype), np.asarray(value)
    return None


def _state(value: Any) -> dict[str, Any] | None:
    """The attributes that make an object; None if it has none."""
    if all(hasattr(value, name) for name in ("get_config", "weights", "layers")):  # a Keras model
        layers = [(type(layer), _settings(layer)) for layer in value._flatten_layers()]
        return {"wiring": _wiring(value), "weights": [np.asarray(w) for w in value.weights], "layers": layers}
    found = getattr(value, "__dict__", None)
    if found is not None and hasattr(value, "graph") and hasattr(value, "code"):  # a torch.fx.GraphModule
        return {"code": value.code, **{name: found.get(name) for name in ("_parameters", "_buffers", "_modules")}}
    return found


def _wiring(model: Any) -> str:
    """How the layers of a Keras model are set and joined, under names that count from 0 in every model."""
    try:
        text = model.to_json()
    except (NotImplementedError, TypeError, ValueError):  # a class of the user's, which is read as code
        return ""
    for place, name in enumerate(dict.fromkeys(re.findall(r'"name": "([^"]+)"', text))):
        text = text.replace(f'"{name}"', f'"#{place}"')
    return text


def _settings(layer: Any) -> dict[str, Any]:
    """What the code of a Keras layer may read of it, beside its weights."""
    kinds = (bool, int, float, str, list, tuple, np.ndarray, types.FunctionType)
    named = {name: v for name, v in vars(layer).items() if not name.startswith("_") and name not in ("name", "built")}
    return {name: v for name, v in named.items() if isinstance(v, kinds) and not _holds_layers(v)}


def _holds_layers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(hasattr(one, "weights") for one in value)


@functools.cache
def _is_installed(module: str | None) -> bool:
    """Whether a module belongs to Python or to a package that its users have installed, not written."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        return True
    file = getattr(sys.modules.get(module or ""), "__file__", None) or ""
    return top == "deepshap" or top == "builtins" or not INSTALLED.isdisjoint(Path(file).parts)


def source_digest(paths: Iterable[Path]) -> str:
    """Digest of the contents of files, one after the other."""
    found = hashlib.blake2b(digest_size=16)
    for path in paths:
        found.update(file_digest(path).encode())
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """Digest of what is in a file."""
    found = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            found.update(block)
    return found.hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Versions of packages, and of Python."""
    found = {name: str(import_module(name).__version__) for name in packages}
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}", **found}
