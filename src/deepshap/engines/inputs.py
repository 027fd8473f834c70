"""The form of a model's inputs (one, a list, a dict; where the rows lie), and what every engine checks of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from operator import getitem
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError


class InputForm(ABC):
    """The form of a model's inputs: their names, number, axes and dtypes, as some values have them.

    ``values`` are in that form; ``what`` they are is for errors.
    """

    uneven: ClassVar[str]  # what to do with sequences of different lengths
    packed = False  # whether sequences carry their lengths with them

    def __init__(self, values: Any, batch_axis: int | Sequence[int], what: str) -> None:
        self.names = list(values) if isinstance(values, Mapping) else None
        self.several = isinstance(values, (list, tuple))
        count = len(values) if self.several or self.names else 1
        if count == 0:
            raise InputError(f"the {what} holds no inputs.")
        self.axes = [batch_axis] * count if isinstance(batch_axis, int) else list(batch_axis)
        if len(self.axes) != count:
            raise InputError(f"batch_axis names {len(self.axes)} axes for {count} inputs.")

    # ------------------------------------------------------------------ what arrays are
    @abstractmethod
    def _array(self, value: Any, axis: int, what: str) -> Any:
        """One input as the engine's array, rows first and checked."""

    @staticmethod
    @abstractmethod
    def _is_float(array: Any) -> bool:
        """Whether an array holds floating-point numbers."""

    @staticmethod
    @abstractmethod
    def _like(array: Any, other: Any) -> Any:
        """An array in another's dtype."""

    @staticmethod
    @abstractmethod
    def has_rows(value: Any) -> bool:
        """Whether a row argument has one entry per row."""

    @staticmethod
    @abstractmethod
    def _argument(value: Any) -> Any:
        """A row argument as the engine takes it."""

    @staticmethod
    @abstractmethod
    def where(condition: np.ndarray, a: Any, b: Any) -> Any:
        """Elements of one array where a condition holds, else those of another."""

    @staticmethod
    @abstractmethod
    def concatenated(arrays: Sequence[Any]) -> Any:
        """Arrays one after the other, along their rows."""

    # ------------------------------------------------------------------ reading
    def arrays(self, values: Any, what: str) -> list[Any]:
        """Values as the engine's own arrays, rows first and checked."""
        arrays = [self._array(v, axis, what) for v, axis in zip(self._listed(values, what), self.axes, strict=True)]
        self.axes = [axis % len(a.shape) for axis, a in zip(self.axes, arrays, strict=True)]
        if len({len(a) for a in arrays}) > 1:
            raise InputError(f"the inputs of {what} have different numbers of rows: {[len(a) for a in arrays]}.")
        return arrays

    def _listed(self, values: Any, what: str) -> Sequence[Any]:
        """The inputs one by one, of values that must have the form of the background."""
        if self.names is not None:
            if not isinstance(values, Mapping) or set(values) != set(self.names):
                given = list(values) if isinstance(values, Mapping) else type(values).__name__
                raise InputError(
                    f"{what} must be a dict with the keys {self.names}, as the background is; it is {given}."
                )
            return [values[name] for name in self.names]
        if self.several:
            if not isinstance(values, (list, tuple)) or len(values) != len(self.axes):
                raise InputError(f"{what} must be a list of {len(self.axes)} inputs, as the background is.")
            return values
        if isinstance(values, (list, tuple, Mapping)):
            raise InputError(f"{what} is a {type(values).__name__} of inputs, the background a single one.")
        return [values]

    def implied(self, values: Any) -> tuple[Any, ...]:
        """Row arguments that the inputs themselves imply, such as the lengths of a PackedSequence."""
        return ()

    def aligned(self, rows: Sequence[Any], references: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        """Both sides with as many steps, where the form allows for different numbers."""
        return rows, references

    def matched(self, rows: Sequence[Any], references: Sequence[Any]) -> tuple[Any, ...]:
        """Rows in the dtype of the references, whose shape and kind they must have."""
        for position, (x, r) in enumerate(zip(rows, references, strict=True)):
            name = self.names[position] if self.names else f"input {position}" if self.several else "X"
            if x.shape[1:] != r.shape[1:]:
                raise InputError(
                    f"{name}: rows of X have shape {tuple(x.shape[1:])}, rows of the background {tuple(r.shape[1:])}. They "
                    f"must be equal; {self.uneven}."
                )
            if self._is_float(x) != self._is_float(r):
                raise InputError(
                    f"{name}: rows of X have dtype {x.dtype}, rows of the background {r.dtype}. Both must be whole numbers (ids) "
                    "or both floating-point ones: convert one of them."
                )
        return tuple(self._like(x, r) for x, r in zip(rows, references, strict=True))

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
        read = tuple(map(self._argument, extra))
        for position, value in enumerate(read):
            if self.has_rows(value) and len(value) != rows:
                raise InputError(
                    f"additional_forward_args[{position}] has {len(value)} entries along axis 0 for {rows} rows of X. A tensor "
                    "there describes the rows; bind one that does not into the model (functools.partial or a lambda)."
                )
        return read

    def rows_of(self, extra: Sequence[Any], rows: Any) -> tuple[Any, ...]:
        """Select rows of the row arguments."""
        return tuple(e[rows] if self.has_rows(e) else e for e in extra)

    # ------------------------------------------------------------------ calling, and results
    @abstractmethod
    def call(self, model: Callable[..., Any], rows: Sequence[Any], extra: Sequence[Any]) -> Any:
        """Call the model with the rows in the form its user gives them."""

    def restore(self, values: list[np.ndarray]) -> Any:
        """Give per-input results the form of the inputs: batch axis back in its place, list or dict."""
        placed = [np.moveaxis(v, 0, axis) if axis else v for v, axis in zip(values, self.axes, strict=True)]
        if self.names is not None:
            return dict(zip(self.names, placed, strict=True))
        return placed if self.several else placed[0]


# ---------------------------------------------------------------------- what a model returns
def chosen(result: Any, output: Any, tensor: type, part: Callable[[Any, Any], Any] = getitem) -> Any:
    """Of what a model returned what ``output`` names, out of a list of one."""
    if callable(output):
        result = output(result)
    elif output is not None:
        for key in output if isinstance(output, tuple) else (output,):
            try:
                if isinstance(result, tensor) and isinstance(key, str):
                    raise TypeError("a tensor has no parts with names")  # torch would warn of its own reading first
                result = part(result, key)
            except (KeyError, IndexError, TypeError):
                raise InputError(
                    f"output={output!r} is not among what the model returns: {_outline(result, tensor)}."
                ) from None
    if isinstance(result, (tuple, list)) and len(result) == 1:
        (result,) = result
    return result


def only_tensor(result: Any, tensor: type) -> Any:
    """What is to be explained, if it is one tensor."""
    if not isinstance(result, tensor):
        raise InputError(
            f"the model returns {_outline(result, tensor)}. Say with output= which tensor to explain: an index, a key, a tuple "
            "of them for nested results, or a function."
        )
    return result


def _outline(result: Any, tensor: type) -> str:
    if isinstance(result, tensor):
        return f"a tensor {tuple(result.shape)}"  # type: ignore[attr-defined]
    if isinstance(result, Mapping):
        return "{" + ", ".join(f"{key!r}: {_outline(value, tensor)}" for key, value in result.items()) + "}"
    if isinstance(result, (tuple, list)):
        return "(" + ", ".join(f"{place}: {_outline(value, tensor)}" for place, value in enumerate(result)) + ")"
    return type(result).__name__
