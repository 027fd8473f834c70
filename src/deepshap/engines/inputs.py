"""The form of a model's inputs (one, a list, a dict; where the rows lie), and what every engine checks of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from operator import getitem
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError, is_whole


def not_finite(what: str, first: int, rows: int, values: Any = None, dtype: Any = None) -> InputError:
    """Return the error of values that are not finite, or were not as the model's ``dtype``; of a single row it is clear which."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f" and np.isfinite(values).all():
        largest = values.flat[np.abs(values).argmax()]
        return InputError(f"{what} holds {largest:g}, which is too large for {str(dtype).removeprefix('torch.')}.")
    where = f", first in row {first}" if rows > 1 else ""
    return InputError(f"{what} has NaN or infinite values{where}. Fill or drop them before explaining.")


def not_an_array(what: str, value: Any) -> InputError:
    """Return the error of an input that is neither a tensor nor an array."""
    nested = (
        " Make it one array; or, if the model takes nested inputs, explain a function that takes one list or dict of tensors and "
        "nests them for the model."
    )
    advice = nested if isinstance(value, (list, tuple, Mapping)) else ""
    return InputError(f"{what} must be a tensor or an array, not a {type(value).__name__}.{advice}")


class InputForm(ABC):
    """The form of a model's inputs: their names, number, axes and dtypes, as some values have them.

    ``values`` are in that form; ``what`` they are is for errors.
    """

    uneven: ClassVar[str]  # what to do with sequences of different lengths
    packed = False  # whether sequences carry their lengths with them

    def __init__(self, values: Any, batch_axis: int | Sequence[int], what: str) -> None:
        self.names = list(values) if isinstance(values, Mapping) else None
        self.several = isinstance(values, (list, tuple))
        count = len(values) if self.several or self.names is not None else 1
        if count == 0:
            raise InputError(f"the {what} holds no inputs.")
        is_list = isinstance(batch_axis, (list, tuple))
        self.axes: list[Any] = list(batch_axis) if is_list else [batch_axis] * count  # type: ignore[arg-type]
        if not all(map(is_whole, self.axes)):
            raise InputError(f"batch_axis must be a whole number, or one for each input, not {batch_axis!r}.")
        if len(self.axes) != count:
            raise InputError(f"batch_axis names {len(self.axes)} axes for {count} inputs.")

    @property
    def way(self) -> Hashable:
        """What decides how a model is called with rows."""
        return self.several, tuple(self.axes), None if self.names is None else tuple(self.names)

    # ------------------------------------------------------------------ what arrays are
    @abstractmethod
    def _array(self, value: Any, axis: int, what: str) -> Any:
        """Return one input as the engine's array, rows first and checked."""

    @staticmethod
    @abstractmethod
    def _is_float(array: Any) -> bool:
        """Return whether an array holds floating-point numbers."""

    @staticmethod
    @abstractmethod
    def _like(array: Any, like: Any) -> Any:
        """Return an array in another's dtype."""

    @staticmethod
    @abstractmethod
    def has_rows(value: Any) -> bool:
        """Return whether a row argument has one entry per row."""

    @staticmethod
    @abstractmethod
    def _argument(value: Any, what: str) -> Any:
        """Return a row argument as the engine's array, or unchanged."""

    @staticmethod
    @abstractmethod
    def where(condition: np.ndarray, a: Any, b: Any) -> Any:
        """Return elements of one array where a condition holds, else those of another."""

    @staticmethod
    @abstractmethod
    def concatenated(arrays: Sequence[Any]) -> Any:
        """Return arrays one after the other, along their rows."""

    # ------------------------------------------------------------------ reading
    def arrays(self, values: Any, what: str) -> list[Any]:
        """Return values as the engine's own arrays, rows first and checked."""
        arrays = [self._array(v, axis, what) for v, axis in zip(self._listed(values, what), self.axes, strict=True)]
        self.axes = [axis % len(a.shape) for axis, a in zip(self.axes, arrays, strict=True)]
        return arrays

    @staticmethod
    def check_rows(arrays: Sequence[Any], what: str) -> None:
        """Raise unless all inputs have the same number of rows, and some."""
        if len({len(a) for a in arrays}) > 1:
            raise InputError(f"the inputs of {what} have different numbers of rows: {[len(a) for a in arrays]}.")
        if not len(arrays[0]):
            raise InputError(f"{what} is empty: there must be at least one row.")

    def _listed(self, values: Any, what: str) -> Sequence[Any]:
        """Return the inputs as a sequence; the values must have the form of the background."""
        if self.names is not None:
            if not isinstance(values, Mapping) or set(values) != set(self.names):
                actual = list(values) if isinstance(values, Mapping) else type(values).__name__
                raise InputError(
                    f"{what} must be a dict with the keys {self.names}, as the background is; it is {actual}."
                )
            return [values[name] for name in self.names]
        if self.several:
            if not isinstance(values, (list, tuple)) or len(values) != len(self.axes):
                raise InputError(f"{what} must be a list of {len(self.axes)} inputs, as the background is.")
            return values
        if isinstance(values, (list, tuple, Mapping)):
            array = "" if isinstance(values, Mapping) else f" Of rows or numbers make one array: numpy.array({what})."
            raise InputError(f"{what} is a {type(values).__name__} of inputs, the background a single one.{array}")
        return [values]

    def implied(self, values: Any) -> tuple[Any, ...]:
        """Return row arguments that the inputs themselves imply, such as the lengths of a PackedSequence."""
        return ()

    def aligned(self, rows: Sequence[Any], references: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return both sides with equally many steps, where the form allows different numbers."""
        return rows, references

    def matched(self, rows: Sequence[Any], references: Sequence[Any]) -> tuple[Any, ...]:
        """Return rows in the dtype of the references, whose shape and kind they must have."""
        for position, (x, r) in enumerate(zip(rows, references, strict=True)):
            name = self.names[position] if self.names else f"input {position}" if self.several else "X"
            if x.shape[1:] != r.shape[1:]:
                where = f"{name}: " if self.names or self.several else ""
                raise InputError(where + self._differing(x, r, self.axes[position]))
            if self._is_float(x) != self._is_float(r):
                raise InputError(
                    f"{name}: rows of X have dtype {x.dtype}, rows of the background {r.dtype}. Both must be whole numbers (ids) "
                    "or both floating-point ones: convert one of them."
                )
        converted = tuple(self._like(x, r) for x, r in zip(rows, references, strict=True))
        for x, as_read in zip(rows, converted, strict=True):
            if x.dtype == as_read.dtype:
                continue
            infinite = float("inf")
            lost = abs(as_read) == infinite if self._is_float(x) else as_read != x
            if bool(lost.any()):
                raise InputError(f"X holds {x[lost].reshape(-1)[0].item():g}, which is too large for {as_read.dtype}.")
        return converted

    def _differing(self, x: Any, r: Any, axis: int) -> str:
        """Return why rows and references do not fit each other, and what to do."""
        shape, row, reference = (*x.shape[1 : axis + 1], x.shape[0], *x.shape[axis + 1 :]), x.shape[1:], r.shape[1:]
        add = f"[{':, ' * axis}None]"
        if shape == tuple(reference):
            return f"X has the shape of one row, {shape}, and no axis of rows: give x{add}."
        if tuple(r.shape) == tuple(row) and not axis:
            return f"the background has the shape of one row of X, {tuple(row)}, and no axis of rows: give background{add}."
        shapes = f"rows of X have shape {tuple(row)}, rows of the background {tuple(reference)}"
        if len(row) == len(reference):
            different = [place for place, sizes in enumerate(zip(row, reference, strict=True)) if len(set(sizes)) > 1]
            if different == [len(row) - 1] and len(row) < 3 and (len(row) == 2 or self._is_float(x)):
                return f"{shapes}: {row[-1]} features where {reference[-1]} are expected. Give all of them, in the same order."
            if different == [0] and len(row) < 3:
                return f"{shapes}: they must have as many steps; {self.uneven}."
        return f"{shapes}. They must be equal."

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
        read = tuple(self._argument(value, f"additional_forward_args[{i}]") for i, value in enumerate(extra))
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


def readable(array: np.ndarray, what: str, kinds: str = "fiub") -> np.ndarray:
    """Return a NumPy array as frameworks can read it: complete, numeric, in this machine's byte order.

    Raises
    ------
    InputError
        If values are masked, or of another kind.
    """
    if np.ma.is_masked(array):
        raise InputError(f"{what} has masked values: fill or drop them, with .filled() or .compressed().")
    if array.dtype.kind not in kinds and array.dtype.name != "bfloat16":
        raise InputError(f"{what} has dtype {array.dtype}; it must be numeric.")
    longer = array.dtype.kind == "f" and array.dtype.itemsize > 8
    return np.asarray(array).astype(np.float64 if longer else array.dtype.newbyteorder("="), copy=False)


# ---------------------------------------------------------------------- what a model returns
def chosen(result: Any, output: Any, tensor: type, part: Callable[[Any, Any], Any] = getitem) -> Any:
    """Return the part of a model's result that ``output`` names, taken out of a list of one."""
    if isinstance(output, bool):
        raise InputError(f"output= must be an index, a key, a tuple of them or a function, not {output}.")
    if callable(output):
        result = output(result)
    elif output is not None:
        for key in output if isinstance(output, tuple) else (output,):
            try:
                if isinstance(result, tensor) and isinstance(key, str):
                    raise TypeError("a tensor has no parts with names")  # torch would warn of its own reading first
                result = getattr(result, key) if is_field(result, key) else part(keyed(result), key)
            except (KeyError, IndexError, TypeError):
                raise InputError(
                    f"output={output!r} is not among what the model returns: {_outline(result, tensor)}."
                ) from None
    if isinstance(result, (tuple, list)) and len(result) == 1:
        (result,) = result
    return result


def is_field(result: Any, key: Any) -> bool:
    """Return whether a key names a field of a named tuple, of which what ``torch.max`` returns is one."""
    return isinstance(result, tuple) and isinstance(key, str) and not hasattr(tuple, key) and hasattr(type(result), key)


# The fields in which Hugging Face's models return what they predict, beside hidden states and scales.
PREDICTED = ("logits", "prediction_logits", "prediction_outputs", "regression_outputs")


def only_tensor(result: Any, tensor: type) -> Any:
    """Return the tensor to explain: the only one in a list or dict, or the prediction of a Hugging Face model."""
    candidates = list(tensors_in(result, tensor))
    if len(candidates) > 1 and is_dataclass(result) and isinstance(result, Mapping):  # a ModelOutput
        candidates = [result[name] for name in PREDICTED if isinstance(result.get(name), tensor)] or candidates
    if not candidates:
        raise InputError(
            f"the model returns {_outline(result, tensor)}, in which there is no tensor to be seen. What happens between its "
            "input and its output is followed on tensors: let it return them as they are, without .numpy(), .tolist() or "
            "float(). One that is part of an object is named by output=lambda result: result.name."
        )
    if len(candidates) > 1:
        raise InputError(
            f"the model returns {_outline(result, tensor)}. Say with output= which tensor to explain: an index, a key, a tuple "
            "of them for nested results, or a function."
        )
    return candidates[0]


def tensors_in(result: Any, tensor: type) -> Iterator[Any]:
    """Yield the tensors in what a model returned."""
    if isinstance(result, tensor):
        yield result
    for part in (_parts(result) or {}).values():
        yield from tensors_in(part, tensor)


def keyed(result: Any) -> Any:
    """Return a model's result, with keys instead of attributes if it is a dataclass or a namespace."""
    return result if isinstance(result, (tuple, list, Mapping)) else _parts(result) or result


def _parts(result: Any) -> Mapping[Any, Any] | None:
    """Return the parts of a model's result by keys; None for a single value."""
    if isinstance(result, (tuple, list)):
        return dict(enumerate(result))
    if isinstance(result, SimpleNamespace) or (is_dataclass(result) and not isinstance(result, Mapping)):
        return getattr(result, "__dict__", None)
    return result if isinstance(result, Mapping) else None


def _outline(result: Any, tensor: type) -> str:
    if isinstance(result, tensor):
        return f"a tensor {tuple(result.shape)}"  # type: ignore[attr-defined]
    parts = _parts(result)
    if parts is None:
        return type(result).__name__
    listed = isinstance(result, (tuple, list))
    if fields := [name for name in dir(type(result)) if name[0] != "_" and is_field(result, name) and listed]:
        parts = {name: getattr(result, name) for name in fields if not name.startswith("n_")}
        listed = False
    texts = (f"{key if listed else repr(key)}: {_outline(value, tensor)}" for key, value in parts.items())
    return f"{'(' if listed else '{'}{', '.join(texts)}{')' if listed else '}'}"
