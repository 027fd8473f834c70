"""Names, labels and numbers of options: what may be one, and how labels, counts and times are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import numpy as np

from .errors import InputError

PADDING = ("[pad]", "<pad>", "<|pad|>", "<blank>", "")  # tokens that fill texts up, in small letters


def check_names(what: str, names: Sequence[Any], distinct: bool = True) -> None:
    """Raise if names are one text, whose letters would be taken, or in no order, or two are alike: neither could be meant."""
    texts_or_sets = isinstance(names, (str, bytes, bytearray, set, frozenset))
    if texts_or_sets or not isinstance(names, Iterable) or getattr(names, "shape", None) == ():
        given = f"the text {names!r}" if isinstance(names, str) else repr(names)
        raise InputError(f"{what} is {given}, not a list of names; of one name make [{names!r}].")
    wrong = [name for name in names if isinstance(name, (bytes, Mapping, list, set, np.ndarray))] if distinct else []
    if wrong:
        raise InputError(f"{what}: {wrong[0]!r} is no name.")
    again = [name for name, times in Counter(map(str, names)).items() if times > 1] if distinct else []
    if again:
        raise InputError(f"{what}: {again[0]!r} is there twice, and names must differ.")


def check_count(what: str, names: Sequence[str], size: int, distinct: bool = True) -> None:
    """Raise unless there are as many names as the axis is long, no two of them alike if they must be distinct."""
    check_names(what, names, distinct)
    if isinstance(names, Mapping) or len(names) != size:
        raise InputError(f"{what} holds {len(names)} names for an axis of {size}.")


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, and no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_whole(what: str, value: Any, least: int) -> None:
    """Raise unless an option is a whole number that is large enough."""
    if not is_whole(value) or value < least:
        raise InputError(f"{what} must be a whole number of at least {least}, not {value!r}.")


def numbered(kind: str, count: int) -> list[str]:
    """Return names that count."""
    return [f"{kind} {i}" for i in range(count)]


def plural(count: int, word: str) -> str:
    """A count with its word, which gets an s unless there is one."""
    return f"{count:,} {word}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 9.5:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def shortened(names: Sequence[Any]) -> str:
    """The first of some names, for messages."""
    return ", ".join(map(str, names[:6])) + (", ..." if len(names) > 6 else "")


def listed(what: str, names: Any) -> Any:
    """Names as a list, no two alike; the names of each of several inputs are checked where the inputs are known."""
    if names is None or isinstance(names, Mapping):
        return names
    check_names(what, names, distinct=False)
    names = list(names)
    check_names(what, [name for name in names if isinstance(name, str)])
    return names


def names_for(names: Any, size: int) -> list[str] | None:
    """Names as a list of str if there is one for each place of an axis, else None."""
    return [str(name) for name in names] if np.ndim(names) == 1 and len(names) == size else None


def as_array(values: Any, what: str) -> np.ndarray:
    """Values as an array, which they must fill."""
    try:
        return np.asarray(values)
    except ValueError:
        raise InputError(f"{what} is ragged: its rows have different lengths. Fill them up.") from None


def as_labels(labels: Any, what: str) -> np.ndarray | None:
    """Labels of any kind as an array of str, numbers or datetime64.

    Raises
    ------
    InputError
        If they are no rectangle.
    """
    if labels is None:
        return None
    array = as_array(labels, what)
    if array.dtype != object:
        return array
    if array.size and all(isinstance(v, date) and getattr(v, "tzinfo", None) is None for v in array.flat):
        return array.astype("datetime64[us]" if isinstance(array.flat[0], datetime) else "datetime64[D]")
    return np.array([str(v) for v in array.flat], str).reshape(array.shape)


def with_plain_texts(labels: Any) -> Any:
    """Labels whose texts are Python's own str, which every library takes; such an array is a copy, and read only."""
    texts = np.asarray(labels)
    if texts.dtype.kind != "U":
        return labels
    if not texts.ndim:
        return texts.item()
    texts = texts.astype(object)
    texts.flags.writeable = False
    return texts


def as_texts(labels: Any) -> np.ndarray:
    """Labels as str: dates without empty hours, numbers without trailing zeros."""
    array = np.asarray(labels)
    if array.dtype.kind == "M":
        units = ("D", "m", "s", "ms", "us", "ns")
        unit: Any = next((u for u in units if np.array_equal(array.astype(f"M8[{u}]"), array, equal_nan=True)), "ns")
        return np.char.replace(np.datetime_as_string(array, unit=unit), "T", " ")
    if array.dtype.kind == "f":
        return np.array([f"{value:g}" for value in array.flat]).reshape(array.shape)
    return array.astype(str)


def name_of(model: Any) -> str | None:
    """The class of a model, or the name of a function."""
    name = getattr(model, "__name__", None) or type(model).__name__
    return None if name == "<lambda>" else name
