"""The array functions that the formulas use, one module of them per framework.

``on_torch`` and ``on_tensorflow`` define the same functions. ``on_numpy`` defines a subset, for rules that the TensorFlow
engine runs on small NumPy arrays. Apart from these functions, formulas use operators only. A function whose name ends in
``_`` may overwrite its first argument, which saves memory in torch; pass only arrays that nothing else uses. "Last" in a name
means the last axis. A test compares the modules.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

Array = Any  # a tensor of torch or of TensorFlow, or an array of NumPy
FRAMEWORKS = ("torch", "tensorflow", "numpy")


def namespace(array: Array) -> Any:
    """Return the module of functions for an array."""
    kind: Any = type(array)
    return _module(kind)


@cache
def _module(kind: type) -> Any:
    roots = [base.__module__.partition(".")[0] for base in kind.__mro__]
    frameworks = [root for root in roots if root in FRAMEWORKS]
    if not frameworks:
        raise TypeError(f"a {kind.__name__} is an array of none of {', '.join(FRAMEWORKS)}")
    return import_module(f".on_{frameworks[0]}", __package__)
