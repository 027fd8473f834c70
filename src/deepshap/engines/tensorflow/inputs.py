"""Inputs and models in the forms that people hand over.

Inputs (arrays, tensors, lists, tuples, dicts) are NumPy arrays with the rows first inside deepshap. Models may be
symbolic tensors, functions or loaded SavedModels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...errors import InputError
from ..callables import packages, takes_container
from ..inputs import InputForm, chosen, not_an_array, not_finite, only_tensor, readable


class Inputs(InputForm):
    """The form of a model's inputs; ``dtype`` is the model's."""

    uneven = "pad sequences to one length and mask the padding"

    def __init__(self, values: Any, batch_axis: int | Sequence[int], what: str, dtype: str | None = None) -> None:
        self.dtype = dtype
        super().__init__(values, batch_axis, what)

    # ------------------------------------------------------------------ reading
    def _array(self, value: Any, axis: int, what: str) -> np.ndarray:
        original = value
        if hasattr(value, "to_numpy"):
            value = value.to_numpy()
        _check_dense(value, what)
        if isinstance(value, (tf.Tensor, tf.Variable)) or hasattr(value, "detach"):
            value = (
                keras.ops.convert_to_numpy(value)
                if isinstance(value, (tf.Tensor, tf.Variable))
                else value.detach().cpu().numpy()
            )
        if not isinstance(value, np.ndarray):
            raise not_an_array(what, value)
        value = readable(value, what)
        if not isinstance(original, tf.Tensor) and self._is_float(value) and self.dtype is not None:
            value = value.astype(self.dtype)  # NumPy's float64 is a habit, not a choice
        if not -value.ndim <= axis < value.ndim:
            raise InputError(f"{what} has shape {value.shape}: there is no batch axis {axis}.")
        value = np.moveaxis(np.array(value), axis, 0)
        if self._is_float(value):
            finite = np.isfinite(value.astype(np.float64)).all(tuple(range(1, value.ndim)))
            if not finite.all():
                raise not_finite(what, int(np.argmin(finite)), len(value), original, self.dtype)
        return value

    @staticmethod
    def _is_float(array: np.ndarray) -> bool:
        return array.dtype.kind == "f" or array.dtype.name == "bfloat16"

    @staticmethod
    def _like(array: np.ndarray, like: np.ndarray) -> np.ndarray:
        return array.astype(like.dtype, copy=False)

    # ------------------------------------------------------------------ row arguments
    @staticmethod
    def has_rows(value: Any) -> bool:
        """Return whether a row argument has one entry per row."""
        return isinstance(value, np.ndarray) and value.ndim > 0

    @staticmethod
    def _argument(value: Any, what: str) -> Any:
        _check_dense(value, what)
        if isinstance(value, (tf.Tensor, tf.Variable)):
            return value.numpy()
        return readable(value, what, "fiubcSU") if isinstance(value, np.ndarray) else value

    @staticmethod
    def where(condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return elements of one array where a condition holds, else those of another."""
        return np.where(condition, a, b)

    @staticmethod
    def concatenated(arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Return arrays one after the other, along their rows."""
        return np.concatenate(arrays)

    # ------------------------------------------------------------------ calling
    def call(self, model: Callable[..., Any], rows: Sequence[Any], extra: Sequence[Any]) -> Any:
        """Call the model with the rows in the form its user gives them."""
        arguments = [x if axis == 0 else _moved(x, axis) for x, axis in zip(rows, self.axes, strict=True)]
        options = {"training": False} if takes_training(model) else {}
        if isinstance(model, tf.types.experimental.ConcreteFunction):
            names = list(_signature(model)[1])
            if names:
                named = dict(zip(self.names or names, [*arguments, *extra], strict=False))
                return model(**named)
        together = takes_one_argument(model) or (
            not isinstance(model, keras.layers.Layer)
            and (self.several or self.names is not None)
            and takes_container(
                model, dict(zip(self.names, arguments, strict=True)) if self.names else arguments, extra
            )
        )
        if self.names is not None:
            named = dict(zip(self.names, arguments, strict=True))
            return model(named, *extra, **options) if together else model(*extra, **named, **options)
        if together and (self.several or extra):
            together_arguments = [*arguments, *extra]
            return model(together_arguments if len(together_arguments) > 1 or self.several else arguments[0], **options)
        return model(*arguments, *extra, **options)


def _check_dense(value: Any, what: str) -> None:
    """Raise an error for tensors that do not have a number in each position."""
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor, tf.IndexedSlices)):
        raise InputError(f"{what} is a {type(value).__name__}; pass a dense tensor, padded, and mask the padding.")
    if isinstance(value, keras.KerasTensor) or (isinstance(value, tf.Tensor) and not hasattr(value, "numpy")):
        raise InputError(
            f"{what} is a {type(value).__name__}, symbolic and without values: call the explainer outside of tf.function."
        )


def _moved(x: Any, axis: int) -> Any:
    order = list(range(1, x.shape.rank))
    order.insert(axis, 0)
    return tf.transpose(x, order)


def takes_training(model: Any) -> bool:
    """Return whether a Keras model takes ``training``."""
    return isinstance(model, keras.layers.Layer) and "training" in inspect.signature(model.call).parameters


def _signature(function: Any) -> tuple[Any, Any]:
    """Return the positional and named arguments of a traced function; a frozen function has no signature."""
    return getattr(function, "structured_input_signature", None) or ((), {})


def takes_one_argument(model: Any) -> bool:
    """Return whether a model takes several inputs as one list or dict, as ``keras.Model.predict`` does."""
    if not isinstance(model, keras.layers.Layer):
        functions = getattr(model, "concrete_functions", None) or [model]  # those of a function of a SavedModel
        signature = _signature(functions[0])
        return len(signature[0]) == 1 and isinstance(signature[0][0], (list, tuple, dict))
    parameters = list(inspect.signature(model.call).parameters.values())
    wanted = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(wanted) == 1 and all(p.kind is not p.VAR_POSITIONAL for p in parameters)


def take_output(result: Any, output: Any) -> Any:
    """Take the explained tensor out of what a model returned."""
    return only_tensor(chosen(result, output, tf.Tensor, _part), tf.Tensor)


def _part(result: Any, key: Any) -> Any:
    if isinstance(result, tf.Tensor) and result.shape.rank and result.shape[0] is None:
        raise TypeError("the first axis has the rows")  # while the model is traced any number would do
    try:
        return result[key]
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise IndexError(str(error)) from error


# ---------------------------------------------------------------------- models
def between(inputs: Any, output: Any) -> Any:
    """Return the model from symbolic inputs to a symbolic output.

    Raises
    ------
    InputError
        If they are not Keras' symbolic tensors, or nothing connects them.
    """
    if isinstance(output, (tuple, list)) and len(output) == 1:
        (output,) = output
    if isinstance(inputs, (tuple, list)) and len(inputs) == 1:
        (inputs,) = inputs
    if isinstance(output, (tuple, list)):
        raise InputError(f"the output to be explained must be a single tensor, not {len(output)} of them.")
    try:
        if "tf_keras" in packages(output):  # Keras 2
            return import_module("tf_keras").Model(inputs, output)
        return keras.Model(inputs, output)
    except (TypeError, ValueError) as error:
        raise InputError(
            "a model is given as (model, layer), or by Keras' symbolic tensors as (inputs, output), such as "
            f"(model.inputs, model.layers[-1].output). Keras says: {error}"
        ) from error


def served(model: Any) -> Any:
    """Return the function that a loaded SavedModel serves, if it is not callable itself.

    Raises
    ------
    InputError
        If it serves nothing.
    """
    signatures = dict(getattr(model, "signatures", {}))
    function = (
        getattr(model, "serve", None) or signatures.get("serving_default") or next(iter(signatures.values()), None)
    )
    if function is None:
        raise InputError("the SavedModel has no function to call; pass one of its functions instead.")
    return function
