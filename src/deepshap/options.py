"""What options of the same name may be wherever they are taken: nonsense is refused before anything is done."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from .errors import InputError
from .names import check_names, check_whole

Check = Callable[[str, Any], None]  # of a name and a value


def check_options(where: str = "", /, **given: Any) -> None:
    """Raise InputError if an option that is known here, by its name, is something that it cannot be.

    ``where`` is put in front of the name, for messages.
    """
    for name, value in given.items():
        if name in OPTIONS:
            OPTIONS[name](where + name, value)


def check_choice(what: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless an option is one of some texts."""
    if not isinstance(value, str) or value not in choices:
        *others, last = map(repr, choices)
        raise InputError(f"{what} must be {', '.join(others)} or {last}, not {value!r}.")


def check_types(what: str, value: Any, types: Any, words: str) -> None:
    """Raise unless a value is of one of some types; ``words`` say what it must be."""
    if not isinstance(value, types):
        raise InputError(f"{what} must be {words}, not {value!r}.")


def check_number(what: str, value: Any, least: float, most: float = math.inf) -> None:
    """Raise unless an option is a finite number within bounds."""
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not least <= value <= most or not math.isfinite(value):
        bounds = f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise InputError(f"{what} must be a number {bounds}, not {value!r}.")


def check_rows(value: Any) -> None:
    """Raise unless the rows to take are a pair of whole numbers, none below 0."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise InputError(f"rows must be a pair, the first row and the one behind the last, not {value!r}.")
    for place in value:
        check_whole("rows", place, 0)


def _check_pair_of_names(what: str, value: Any) -> None:
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(isinstance(name, str) for name in value):
        raise InputError(f"{what} must be a pair of texts, what the two groups are called, not {value!r}.")


def check_shape(what: str, value: Any) -> None:
    """Raise unless a value holds sizes of axes."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)) or not len(value):
        raise InputError(f"{what} must be the sizes of a row's axes, as (steps, features), not {value!r}.")
    for size in value:
        check_whole(f"{what}, a row's sizes,", size, 1)


@contextmanager
def opened(file: Any, mode: str) -> Iterator[Any]:
    """A binary file, from its path or as it is."""
    if isinstance(file, (str, os.PathLike)):
        with open(file, mode) as stream:
            yield stream
    elif hasattr(file, "write" if mode == "wb" else "read") and not isinstance(file, io.TextIOBase):
        yield file
    else:
        raise InputError(f"give a path, or a file that is open as open(path, {mode!r}), not {file!r}.")


def _check_features(what: str, value: Any) -> None:
    if isinstance(value, (Mapping, Set)):
        raise InputError(f"{what} must be a list of names, not {value!r}.")
    if not isinstance(value, str):
        check_names(what, value)


def _check_column(what: str, value: Any) -> None:
    if not isinstance(value, Hashable) or isinstance(value, bool) or hasattr(value, "__array__"):
        raise InputError(f"{what} must be the name of a column, not {value!r}.")


def _check_padding(what: str, value: Any) -> None:
    if not (isinstance(value, str) and value == "last"):
        check_types(what, value, (int, float, np.integer, np.floating), "a number or 'last'")


def _check_layer(what: str, value: Any) -> None:
    from torch import nn

    check_types(what, value, nn.Module, "a layer of the model, a torch.nn.Module")


def _check_axes(what: str, value: Any) -> None:
    from matplotlib.axes import Axes

    check_types(what, value, Axes, "axes of matplotlib, as plt.subplots() returns them")


def _or_none(check: Check) -> Check:
    return lambda what, value: None if value is None else check(what, value)


_flag: Check = partial(check_types, types=(bool, np.bool_), words="True or False")
_text: Check = partial(check_types, types=str, words="a text")
_path: Check = partial(check_types, types=(str, os.PathLike), words="a path")
_positive: Check = partial(check_whole, least=1)

PAGES = (".html", ".htm")  # how the names of reports end
MAX_MEGABYTES = 64.0  # of a page

OPTIONS: dict[str, Check] = {
    # of explanations
    "check_additivity": _flag,
    "progress": _or_none(_flag),
    "seed": partial(check_whole, least=0),
    "references": _positive,
    # of captum's classes
    "layer": _check_layer,
    "multiply_by_inputs": _flag,
    "return_convergence_delta": _flag,
    "attribute_to_layer_input": _flag,
    "attribute_to_neuron_input": _flag,
    "custom_attribution_func": _or_none(partial(check_types, types=Callable, words="a function or None")),
    "grad_kwargs": _or_none(partial(check_types, types=Mapping, words="a dict or None")),
    # of pictures and reports
    "max_display": _positive,
    "align": partial(check_choice, choices=("start", "end", "relative")),
    "per": partial(check_choice, choices=("feature", "step")),
    "channels": _or_none(partial(check_choice, choices=("first", "last"))),
    "robust": _flag,
    "names": _check_pair_of_names,
    "unit": _text,
    "time_label": _or_none(_text),
    "title": _or_none(_text),
    "ax": _or_none(_check_axes),
    "max_megabytes": partial(check_number, least=0),
    # of files and data sets
    "id": _or_none(_check_column),
    "time": _or_none(_check_column),
    "features": _or_none(_check_features),
    "steps": _or_none(_positive),
    "pad": _check_padding,
    "path": _path,
    "folder": _path,
    "shape": _or_none(check_shape),
    "rows_per_part": _positive,
    "workers": _positive,
}
