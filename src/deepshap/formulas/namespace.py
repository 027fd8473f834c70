"""The operations on arrays that the mathematics stands on, and where those of an array's framework are.

Each framework has a module of the same functions: ``on_torch`` and ``on_tensorflow``; ``on_numpy`` has those that rules of few
numbers ask for.
Beside these the mathematics uses operators only. A function whose name ends in ``_`` may overwrite its first argument, so that
torch needs no memory for the result: it is given what nobody else holds. "Last" means the last axis. A test holds the modules
against each other.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

Array = Any  # a tensor of torch or of TensorFlow, or an array of NumPy
FRAMEWORKS = ("torch", "tensorflow", "numpy")


def namespace(array: Array) -> Any:
    """The module of functions for an array."""
    kind: Any = type(array)
    return _module(kind)


@cache
def _module(kind: type) -> Any:
    roots = [base.__module__.partition(".")[0] for base in kind.__mro__]
    found = [root for root in roots if root in FRAMEWORKS]
    if not found:
        raise TypeError(f"a {kind.__name__} is an array of none of {', '.join(FRAMEWORKS)}")
    return import_module(f".on_{found[0]}", __package__)
