"""Labels of rows, steps, features and outputs: read them as arrays, and write labels, counts and times as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from html import escape
from typing import Any

import numpy as np

from ..errors import InputError

PADDING = ("[pad]", "<pad>", "<|pad|>", "<blank>", "")  # tokens that fill texts up, in small letters


def numbered(kind: str, count: int) -> list[str]:
    """Return names that count."""
    return [f"{kind} {i}" for i in range(count)]


def plural(count: int, word: str) -> str:
    """Return a count with its word, which gets an s unless the count is 1."""
    return f"{count:,} {word}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Return seconds in words, as "3 min 20 s"."""
    if seconds < 9.5:
        return f"{seconds:.2g} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60} min"


def first_few(names: Sequence[Any]) -> str:
    """Return the first of these names, for messages."""
    return ", ".join(map(str, names[:6])) + (", ..." if len(names) > 6 else "")


def names_for(names: Any, size: int) -> list[str] | None:
    """Return names as a list of str if there is one for each position of an axis, else None."""
    return [str(name) for name in names] if np.ndim(names) == 1 and len(names) == size else None


def as_array(values: Any, what: str) -> np.ndarray:
    """Return values as an array; raise InputError if they are ragged."""
    try:
        return np.asarray(values)
    except ValueError:
        raise InputError(f"{what} is ragged: its rows have different lengths. Fill them up.") from None


def as_labels(labels: Any, what: str) -> np.ndarray | None:
    """Return labels of any kind as an array of str, numbers or datetime64.

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


def to_python_texts(labels: Any) -> Any:
    """Return labels whose texts are Python's own str, which every library accepts, in a read-only copy."""
    texts = np.asarray(labels)
    if texts.dtype.kind != "U":
        return labels
    if not texts.ndim:
        return texts.item()
    texts = texts.astype(object)
    texts.flags.writeable = False
    return texts


def as_texts(labels: Any) -> np.ndarray:
    """Return labels as str: dates without empty hours, numbers without trailing zeros."""
    array = np.asarray(labels)
    if array.dtype.kind == "M":
        units = ("D", "m", "s", "ms", "us", "ns")
        unit: Any = next((u for u in units if np.array_equal(array.astype(f"M8[{u}]"), array, equal_nan=True)), "ns")
        return np.char.replace(np.datetime_as_string(array, unit=unit), "T", " ")
    if array.dtype.kind == "f":
        return np.array([f"{value:g}" for value in array.flat]).reshape(array.shape)
    return array.astype(str)


def model_name(model: Any) -> str | None:
    """Return the class of a model, or the name of a function; None for a lambda."""
    name = getattr(model, "__name__", None) or type(model).__name__
    return None if name == "<lambda>" else name


def verdict_as_html(verdict: str, details: str = "") -> str:
    """Return a verdict in bold and its details in fixed width, as a notebook shows them."""
    rest = f'<pre style="margin:2px 0 0;white-space:pre-wrap">{escape(details)}</pre>' if details else ""
    return f'<div style="font:13px/1.5 system-ui,sans-serif;color:inherit"><b>{escape(verdict)}</b>{rest}</div>'
