"""Every error that deepshap raises on purpose, and the checks of arguments that raise them.

Each message says what, where, why and what to do.
"""

from __future__ import annotations

import io
import math
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = str(Path(__file__).parent)

EXHAUSTED = "OutOfMemoryError", "ResourceExhaustedError"  # of devices, which explanations have an answer to


class DeepShapError(Exception):
    """Base class of all deepshap errors."""

    __init__ = Exception.__init__  # by which AutoGraph knows that it may raise the same class with a longer message


class InputError(DeepShapError, ValueError):
    """The model's inputs, the background or an option do not fit."""


class NoExpectedValueError(InputError, AttributeError):
    """An explainer has no single expected value, because each row has one of its own."""


class NoHeadError(InputError):
    """The model does not end in a softmax or sigmoid that can be seen."""


class UnsupportedOperationError(DeepShapError, NotImplementedError):
    """The model calls operations for which no rule is known."""


class ControlFlowError(DeepShapError):
    """The model took another path, or used other indices, for the example than for the reference."""


class BatchMixingError(DeepShapError):
    """The output for one row depends on the other rows of its batch.

    Attributes
    ----------
    certain : bool
        Whether rounding cannot be the reason, so that no other precision is tried.
    """

    certain = False


class NonFiniteError(DeepShapError, ArithmeticError):
    """The model returned NaN or infinity, or a multiplier became so."""


class AdditivityError(DeepShapError, AssertionError):
    """The attributions do not add up to the difference of the model's outputs."""


class MemoryBudgetError(DeepShapError, MemoryError):
    """The memory budget does not hold a single pair of example and reference."""


class UserCodeError(InputError, RuntimeError):
    """A rule or a function that the user gave failed; the original error is its cause."""


class AdditivityWarning(UserWarning):
    """The attributions do not add up, and the caller asked not to be stopped."""


def not_a_multiplier(whose: str, returned: str, where: str = "") -> InputError:
    """Return the error of a rule or handler that returned something else than multipliers."""
    return InputError(
        f"{whose} returned {returned}{where}; a multiplier is a dense tensor of floating-point numbers, where its input is, or "
        "None."
    )


@contextmanager
def of_user(what: str) -> Iterator[None]:
    """Raise UserCodeError, which names the user's code, if it fails within the block."""
    try:
        yield
    except (DeepShapError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ in EXHAUSTED:
            raise
        raise UserCodeError(f"{what} failed: {type(error).__name__}: {error}") from error


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's code that called deepshap."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


# ---------------------------------------------------------------------- packages of the extras
def find(path: str) -> Any:
    """Return what a dotted path leads to, or None where the installed version of the package has no such thing.

    The modules called ``_compat`` look all private interfaces of other packages up with it.
    """
    package, *names = path.split(".")
    try:
        value: Any = import_module(package)
        for name in names:
            package = f"{package}.{name}"
            value = getattr(value, name) if hasattr(value, name) else import_module(package)
    except (ImportError, AttributeError):
        return None
    return value


def needed(module: str, why: str, extra: str = "tables") -> Any:
    """Import a module of an extra; where it is missing, say why it is needed and what to install.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{why}: pip install 'deepshap[{extra}]'") from error


def import_pyarrow() -> Any:
    """Return pyarrow with its Parquet files and its functions of columns.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    why = "Parquet files need pyarrow"
    needed("pyarrow.parquet", why)
    needed("pyarrow.compute", why)
    return needed("pyarrow", why)


def import_ray() -> Any:
    """Return ray.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    return needed("ray", "a Ray cluster needs ray", "ray")


# ---------------------------------------------------------------------- names and numbers
def check_names(what: str, names: Sequence[Any], distinct: bool = True) -> None:
    """Raise if names are one text, whose letters would be taken, or in no order, or two are alike: neither could be meant."""
    texts_or_sets = isinstance(names, (str, bytes, bytearray, set, frozenset))
    if texts_or_sets or not isinstance(names, Iterable) or getattr(names, "shape", None) == ():
        description = f"the text {names!r}" if isinstance(names, str) else repr(names)
        raise InputError(f"{what} is {description}, not a list of names; of one name make [{names!r}].")
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
    """Return whether a value is a whole number, and no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_whole(what: str, value: Any, least: int) -> None:
    """Raise unless an option is a whole number that is large enough."""
    if not is_whole(value) or value < least:
        raise InputError(f"{what} must be a whole number of at least {least}, not {value!r}.")


def listed(what: str, names: Any) -> Any:
    """Return names as a list, no two alike; names of several inputs are checked where the inputs are known."""
    if names is None or isinstance(names, Mapping):
        return names
    check_names(what, names, distinct=False)
    names = list(names)
    check_names(what, [name for name in names if isinstance(name, str)])
    return names


# ---------------------------------------------------------------------- options
Check = Callable[[str, Any], None]  # of a name and a value


def check_options(where: str = "", /, **options: Any) -> None:
    """Raise InputError if an option that is known here, by its name, is something that it cannot be.

    ``where`` is put in front of the name, for messages.
    """
    for name, value in options.items():
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
    """Return a binary file, from its path or unchanged."""
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
    "variable": _or_none(_check_column),
    "value": _or_none(_check_column),
    "features": _or_none(_check_features),
    "steps": _or_none(_positive),
    "pad": _check_padding,
    "path": _path,
    "folder": _path,
    "shape": _or_none(check_shape),
    "rows_per_part": _positive,
    "workers": _positive,
}
