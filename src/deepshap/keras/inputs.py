"""Inputs as people have them (array, tensor, list, tuple, dict), rows first and NumPy arrays inside deepshap."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import InputError


class Inputs:
    """The form of a model's inputs, learned from the background, and the background's rows."""

    def __init__(self, background: Any, batch_axis: int | Sequence[int], dtype: str | None = None) -> None:
        self.dtype, self._batch_axis = dtype, batch_axis
        self.background: list[np.ndarray] = []
        if background is not None:
            self.learn(background, "background")
            self.use(background)

    def learn(self, values: Any, what: str) -> None:
        """Take over the form of some values: their names, number and axes. There is no background then."""
        self.background = []
        self.names = list(values) if isinstance(values, Mapping) else None
        self.several = isinstance(values, (list, tuple))
        count = len(values) if self.several or self.names else 1
        if count == 0:
            raise InputError(f"the {what} holds no inputs.")
        self.axes = [self._batch_axis] * count if isinstance(self._batch_axis, int) else list(self._batch_axis)
        if len(self.axes) != count:
            raise InputError(f"batch_axis names {len(self.axes)} axes for {count} inputs.")

    def use(self, background: Any, what: str = "background") -> None:
        """Explain against these rows from now on."""
        self.background = self._arrays(background, what)
        if len(self.background[0]) == 0:
            raise InputError(f"the {what} is empty: it needs at least one reference row.")

    # ------------------------------------------------------------------ reading
    def read(self, X: Any) -> list[np.ndarray]:
        """Return rows-first arrays for ``X``, checked against the background."""
        return self.matched(self._arrays(X, "X"))

    def matched(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        """Rows in the dtype of the background, whose shape and kind they must have, if there is one."""
        if not self.background:
            return rows
        for position, (x, r) in enumerate(zip(rows, self.background, strict=True)):
            name = self.names[position] if self.names else f"input {position}" if self.several else "X"
            if x.shape[1:] != r.shape[1:]:
                raise InputError(
                    f"{name}: rows of X have shape {x.shape[1:]}, rows of the background {r.shape[1:]}. They must be equal; pad "
                    "sequences to one length and mask the padding."
                )
            if _is_float(x) != _is_float(r):
                raise InputError(
                    f"{name}: rows of X have dtype {x.dtype}, rows of the background {r.dtype}. Both must be whole numbers (ids) "
                    "or both floating-point ones: convert one of them."
                )
        return [x.astype(r.dtype, copy=False) for x, r in zip(rows, self.background, strict=True)]

    def _arrays(self, values: Any, what: str) -> list[np.ndarray]:
        if self.names is not None:
            if not isinstance(values, Mapping) or set(values) != set(self.names):
                given = list(values) if isinstance(values, Mapping) else type(values).__name__
                raise InputError(
                    f"{what} must be a dict with the keys {self.names}, as the background is; it is {given}."
                )
            values = [values[name] for name in self.names]
        elif self.several:
            if not isinstance(values, (list, tuple)) or len(values) != len(self.axes):
                raise InputError(f"{what} must be a list of {len(self.axes)} inputs, as the background is.")
        elif isinstance(values, (list, tuple, Mapping)):
            raise InputError(f"{what} is a {type(values).__name__} of inputs, the background a single one.")
        else:
            values = [values]
        arrays = [self._array(v, axis, what) for v, axis in zip(values, self.axes, strict=True)]
        if len({len(a) for a in arrays}) > 1:
            raise InputError(f"the inputs of {what} have different numbers of rows: {[len(a) for a in arrays]}.")
        return arrays

    def _array(self, value: Any, axis: int, what: str) -> np.ndarray:
        given = value
        if hasattr(value, "to_numpy"):
            value = value.to_numpy()
        if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)):
            raise InputError(f"{what} is a {type(value).__name__}; pass a dense tensor, padded, and mask the padding.")
        if isinstance(value, (tf.Tensor, tf.Variable)) or hasattr(value, "detach"):
            value = (
                keras.ops.convert_to_numpy(value)
                if isinstance(value, (tf.Tensor, tf.Variable))
                else value.detach().cpu().numpy()
            )
        if not isinstance(value, np.ndarray):
            raise InputError(f"{what} must be a tensor or an array, not a {type(value).__name__}.")
        if not (value.dtype.kind in "fiub" or _is_float(value)):
            raise InputError(f"{what} has dtype {value.dtype}; it must be numeric.")
        if not isinstance(given, tf.Tensor) and _is_float(value) and self.dtype is not None:
            value = value.astype(self.dtype)  # NumPy's float64 is a habit, not a choice
        if value.ndim <= axis:
            raise InputError(f"{what} has shape {value.shape}: there is no batch axis {axis}.")
        value = np.moveaxis(np.array(value), axis, 0)
        if _is_float(value):
            finite = np.isfinite(value.astype(np.float64)).all(tuple(range(1, value.ndim)))
            if not finite.all():
                raise InputError(
                    f"{what} has NaN or infinite values, first in row {int(np.argmin(finite))}. Fill or drop them before "
                    "explaining."
                )
        return value

    # ------------------------------------------------------------------ row arguments
    def read_extra(self, extra: Any, rows: int) -> tuple[Any, ...]:
        """Check ``additional_forward_args``: tensors and arrays have one entry per row."""
        extra = () if extra is None else tuple(extra) if isinstance(extra, (tuple, list)) else (extra,)
        for position, value in enumerate(extra):
            if isinstance(value, (list, tuple, dict)):
                raise InputError(
                    f"additional_forward_args[{position}] is a {type(value).__name__}: give a tensor or an array with one entry "
                    "per row, each as an argument of its own, so that rows can be taken out of it."
                )
        read = tuple(e.numpy() if isinstance(e, (tf.Tensor, tf.Variable)) else e for e in extra)
        for position, value in enumerate(read):
            if isinstance(value, np.ndarray) and value.ndim and len(value) != rows:
                raise InputError(
                    f"additional_forward_args[{position}] has {len(value)} entries along axis 0 for {rows} rows of X. A tensor "
                    "there describes the rows; bind one that does not into the model (functools.partial or a lambda)."
                )
        return read

    @staticmethod
    def rows_of(extra: Sequence[Any], rows: Any) -> tuple[Any, ...]:
        """Select rows of the row arguments."""
        return tuple(e[rows] if is_rows(e) else e for e in extra)

    # ------------------------------------------------------------------ calling
    def call(self, model: Callable[..., Any], rows: Sequence[Any], extra: Sequence[Any]) -> Any:
        """Call the model with the rows in the form its user gives them."""
        given = [x if axis == 0 else _moved(x, axis) for x, axis in zip(rows, self.axes, strict=True)]
        options = {"training": False} if takes_training(model) else {}
        if isinstance(model, tf.types.experimental.ConcreteFunction):
            names = list(model.structured_input_signature[1])
            if names:
                named = dict(zip(self.names or names, [*given, *extra], strict=False))
                return model(**named)
        together = takes_one_argument(model)
        if self.names is not None:
            named = dict(zip(self.names, given, strict=True))
            return model(named, *extra, **options) if together else model(*extra, **named, **options)
        if together and (self.several or extra):
            together_given = [*given, *extra]
            return model(together_given if len(together_given) > 1 or self.several else given[0], **options)
        return model(*given, *extra, **options)

    def restore(self, values: list[np.ndarray]) -> Any:
        """Give per-input results the form of the inputs: batch axis back in its place, list or dict."""
        placed = [np.moveaxis(v, 0, axis) if axis else v for v, axis in zip(values, self.axes, strict=True)]
        if self.names is not None:
            return dict(zip(self.names, placed, strict=True))
        return placed if self.several else placed[0]


def is_rows(value: Any) -> bool:
    """Whether a row argument has one entry per row."""
    return isinstance(value, np.ndarray) and value.ndim > 0


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _moved(x: Any, axis: int) -> Any:
    order = list(range(1, x.shape.rank))
    order.insert(axis, 0)
    return tf.transpose(x, order)


def takes_training(model: Any) -> bool:
    """Whether a Keras model is told that it is not being trained."""
    return isinstance(model, keras.layers.Layer) and bool(getattr(model, "_call_has_training_arg", False))


def takes_one_argument(model: Any) -> bool:
    """Whether several inputs are handed to a model as one list or dict, as ``keras.Model.predict`` does it."""
    if not isinstance(model, keras.layers.Layer):
        traced = getattr(model, "concrete_functions", None) or [model]  # those of a function of a SavedModel
        signature: Any = getattr(traced[0], "structured_input_signature", ((), {}))
        return len(signature[0]) == 1 and isinstance(signature[0][0], (list, tuple, dict))
    parameters = list(inspect.signature(model.call).parameters.values())
    wanted = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(wanted) == 1 and all(p.kind is not p.VAR_POSITIONAL for p in parameters)


def take_output(result: Any, output: Any) -> Any:
    """Take the explained tensor out of what a model returned."""
    if callable(output):
        result = output(result)
    elif output is not None:
        for key in output if isinstance(output, tuple) else (output,):
            try:
                result = _part(result, key)
            except (KeyError, IndexError, TypeError, ValueError, tf.errors.InvalidArgumentError):
                raise InputError(
                    f"output={output!r} is not among what the model returns: {_outline(result)}."
                ) from None
    if isinstance(result, (tuple, list)) and len(result) == 1:
        (result,) = result
    if isinstance(result, Mapping) and len(result) == 1:
        (result,) = result.values()
    if not isinstance(result, tf.Tensor):
        raise InputError(
            f"the model returns {_outline(result)}. Say with output= which tensor to explain: an index, a key, a tuple of them "
            "for nested results, or a function."
        )
    return result


def _part(result: Any, key: Any) -> Any:
    if isinstance(result, tf.Tensor) and result.shape.rank and result.shape[0] is None:
        raise TypeError("the first axis has the rows")  # while the model is traced any number would do
    return result[key]


def _outline(result: Any) -> str:
    if isinstance(result, tf.Tensor):
        return f"a tensor {tuple(result.shape)}"
    if isinstance(result, Mapping):
        return "{" + ", ".join(f"{key!r}: {_outline(value)}" for key, value in result.items()) + "}"
    if isinstance(result, (tuple, list)):
        return "(" + ", ".join(f"{position}: {_outline(value)}" for position, value in enumerate(result)) + ")"
    return type(result).__name__
