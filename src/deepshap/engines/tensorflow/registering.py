"""Operations and layers of TensorFlow and Keras for which users register rules."""

from __future__ import annotations

from typing import Any

from ...errors import InputError
from ..callables import packages
from . import table
from .operations import USER_OPERATIONS as RULES

__all__ = ["RULES", "check", "key"]


def key(function: Any) -> Any:
    """Return the key of a rule: the type of an operation, a layer or a class of layers."""
    return function


def check(function: Any, rule: Any) -> None:
    """Raise an error for functions that no graph shows."""
    if rule == "same":
        raise InputError('the rule "same" is for "positions", and for functions of PyTorch.')
    if isinstance(function, str) and not table.is_known(function):
        raise InputError(
            f"TensorFlow has no operation {function!r}. Types of operations, such as 'Erfinv', are those that the error "
            "message lists; tf.raw_ops has all."
        )
    if not isinstance(function, str) and "keras" not in packages(function):
        raise InputError(
            f"{getattr(function, '__name__', function)} is a Python function, which a graph of TensorFlow does not show; what it "
            "calls is explained. Register the type of the operation, such as 'Erfinv', or a Keras layer."
        )
