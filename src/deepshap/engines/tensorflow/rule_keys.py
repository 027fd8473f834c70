"""Rules that users register for operations of TensorFlow and for layers of Keras."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ...errors import InputError
from .operations import CUSTOM, Operation
from .table import USER_OPERATIONS


def register(function: Any, rule: str | Callable[..., Any]) -> None:
    """Keep a rule under the type of an operation, a layer or a layer class.

    Raises
    ------
    InputError
        If the operation is not known, or the function is a plain one of Python.
    """
    if isinstance(function, str):
        if not hasattr(tf.raw_ops, function):
            raise InputError(
                f"TensorFlow has no operation {function!r}. Types of operations, such as 'Erfinv', are those that the error "
                "message lists; tf.raw_ops has all."
            )
    elif not isinstance(function, keras.layers.Layer) and not (
        inspect.isclass(function) and issubclass(function, keras.layers.Layer)
    ):
        raise InputError(
            f"{getattr(function, '__name__', function)} is a Python function, which a graph of TensorFlow does not show; what it "
            "calls is explained. Register the type of the operation, such as 'Erfinv', or a Keras layer."
        )
    USER_OPERATIONS[function] = Operation(rule) if isinstance(rule, str) else Operation(CUSTOM, rule)
