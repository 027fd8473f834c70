"""The formulas of Deep SHAP, written once for arrays of every framework. docs/mathematics.md derives them.

- ``secants``: slopes between example and reference. ``rules``: multipliers of operations. ``cells``: recurrent cells.
- ``additivity``: the difference between the sum of attributions and the change of the output.
- ``traced``: formulas as single operations of TensorFlow graphs.

``on_torch`` and ``on_tensorflow`` define the same array functions, and ``on_numpy`` a subset for rules that the TensorFlow engine
runs on small NumPy arrays. Apart from these functions, formulas use operators only. A function whose name ends in ``_`` may
overwrite its first argument, which saves memory in torch: pass only arrays that nothing else uses. "last" in a name means the
last axis.
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
