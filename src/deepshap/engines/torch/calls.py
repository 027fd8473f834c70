"""Calls of torch: the tensors in their nested arguments, where the user's code makes them, and how errors describe them."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from traceback import walk_stack, walk_tb
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import DeepShapError, UnsupportedOperationError
from ...explanation.labels import plural

_DERIVATIVES = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "")
_TORCH = os.path.join(os.path.dirname(torch.__file__), "")  # not torchdiffeq and others
_DISTRIBUTIONS = os.path.join(_TORCH, "distributions", "")

UNKNOWN, RECORDED = "unknown place", "the model's derivatives, written out"  # see custom_functions.py
_WRITE_OUT = (
    "Write the derivative out with torch's operations (of tanh it is 1 - tanh(x) ** 2), and what runs under torch.func with "
    "batched operations."
)


class DerivativeTaken(UnsupportedOperationError):
    """The model takes a derivative of its own, which torch does not show to function modes."""


# Most arguments of a call have one of these classes, which are compared first because that is fastest.
WORDS = {int, float, bool, str, complex}
NOTHING = {type(None), type(...), torch.dtype, torch.device}
LEAVES = WORDS | NOTHING
TENSORS = {Tensor, torch.nn.Parameter}
EMPTY = {dict, tuple, list}
NUMBERS = (int, float, complex, str, np.generic)


def tensors(tree: Any) -> list[Tensor]:
    """Return all tensors."""
    return [tree] if isinstance(tree, Tensor) else split_tensors(tree)[0]


def split_tensors(tree: Any) -> tuple[list[Tensor], list[Any]]:
    """Return all tensors, and all numbers, flags and strings."""
    tensors_and_words: tuple[list[Tensor], list[Any]] = [], []
    _split(tree if type(tree) is tuple else (tree,), *tensors_and_words)
    return tensors_and_words


def _split(items: Iterable[Any], tensors: list[Tensor], words: list[Any]) -> None:
    for item in items:
        kind = type(item)
        if kind in TENSORS:
            tensors.append(item)
        elif kind in WORDS:
            words.append(item)
        elif kind in NOTHING or (kind in EMPTY and not item):
            continue
        elif kind is tuple or kind is list:
            _split(item, tensors, words)
        elif kind is dict:
            _split(item.values(), tensors, words)
        elif isinstance(item, Tensor):
            tensors.append(item)
        elif isinstance(item, (tuple, list)):
            _split(item, tensors, words)
        elif isinstance(item, dict):
            _split(item.values(), tensors, words)
        elif isinstance(item, slice):
            _split((item.start, item.stop, item.step), tensors, words)
        elif isinstance(item, NUMBERS):
            words.append(item)


def replace(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """Copy the tree with every tensor changed."""
    kind = type(tree)
    if kind in LEAVES:
        return tree
    if kind in EMPTY and not tree:
        return kind()  # a new one, because its owner may fill the old one later
    if kind in TENSORS or isinstance(tree, Tensor):
        return change(tree)
    if kind is dict:
        return {key: item if type(item) in LEAVES else replace(item, change) for key, item in tree.items()}
    if kind is tuple:
        return tuple(
            [change(v) if type(v) in TENSORS else v if type(v) in LEAVES else replace(v, change) for v in tree]
        )
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[replace(item, change) for item in tree])
    if isinstance(tree, (tuple, list)):
        return type(tree)([replace(item, change) for item in tree])
    if isinstance(tree, dict):
        return {key: replace(item, change) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*[replace(item, change) for item in (tree.start, tree.stop, tree.step)])
    return tree


def detached(tree: Any) -> Any:
    """Copy the tree with every tensor off the graph."""
    return replace(tree, Tensor.detach)


def is_continuous(dtype: torch.dtype) -> bool:
    """Return whether autograd follows values of this dtype."""
    return dtype.is_floating_point or dtype.is_complex


def in_grad_mode(enabled: bool, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a function with gradients on or off, and restore the mode, which the function may change too."""
    before = torch.is_grad_enabled()
    if before != enabled:
        torch.set_grad_enabled(enabled)
    try:
        return function(*args, **kwargs)
    finally:
        torch.set_grad_enabled(before)


@cache
def _parameters(function: Any) -> dict[str, tuple[int, Any]]:
    """Return positions and defaults of a function's parameters; empty if it has no signature."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: (at, p.default) for at, p in enumerate(parameters)}


def _argument(name: str, function: Any, args: Any, kwargs: Any) -> Any:
    """Return the argument or default of a function's parameter; None if it has no such parameter."""
    if name in kwargs:
        return kwargs[name]
    position, default = _parameters(function).get(name, (len(args), None))
    return args[position] if position < len(args) else default


def without_inplace_flag(function: Any, args: Any, kwargs: Any) -> tuple[Any, Any, bool]:
    """Return the arguments with ``inplace=True`` removed, and whether it was set."""
    if "inplace" in kwargs:
        return (args, {**kwargs, "inplace": False}, True) if kwargs["inplace"] is True else (args, kwargs, False)
    for position, value in enumerate(args):
        if value is True and _parameters(function).get("inplace", (None,))[0] == position:
            return (*args[:position], False, *args[position + 1 :]), kwargs, True
    return args, kwargs, False


def switched_off(function: Any, args: Any, kwargs: Any) -> bool:
    """Return whether a random function such as dropout does nothing in this call."""
    if "training" in _parameters(function):
        options = (_argument(name, function, args, kwargs) for name in ("training", "p"))
        return not next(options) or next(options) == 0
    name = getattr(function, "__name__", "")
    return "dropout" in name and len(args) >= 3 and not args[2]


def place_of_call() -> str:
    """Return ``file:line`` of the innermost frame outside torch and deepshap, and the torch module around it."""
    return _innermost_place(walk_stack(inspect.currentframe()))


def in_distributions() -> bool:
    """Return whether torch.distributions makes the call: it validates its arguments, and decides nothing else by them."""
    caller = next(frame for frame, _ in walk_stack(inspect.currentframe()) if _name_of(frame.f_code.co_filename) != "")
    return caller.f_code.co_filename.startswith(_DISTRIBUTIONS)


def _innermost_place(frames: Iterable[tuple[FrameType, int]]) -> str:
    inside = ""
    for frame, line in frames:
        name = _name_of(frame.f_code.co_filename)
        if name is None:
            if not inside and frame.f_code.co_name == "forward":
                inside = f" in {type(frame.f_locals.get('self')).__name__}"
        elif name is RECORDED:
            return name
        elif name:
            return f"{name}:{line}{inside}"
    return UNKNOWN


@lru_cache(4096)
def _name_of(path: str) -> str | None:
    """Return the name of a user's file; None for a file of torch, "" for ours, ``RECORDED`` for code that replaces a model."""
    if path.startswith("<eval_with_key>"):
        return RECORDED
    return None if path.startswith(_TORCH) else "" if path.startswith(_PACKAGE) else os.path.basename(path)


def is_ours(frame: FrameType) -> bool:
    """Return whether a frame runs code of this package."""
    return _name_of(frame.f_code.co_filename) == ""


def check_no_derivative(function: Any, name: str, transformed: bool) -> None:
    """Refuse derivatives that the model takes itself: how they depend on the input cannot be traced."""
    if not transformed and function not in _DERIVATIVES:
        return
    how = "a transform of torch.func (grad, jvp, jacrev)" if transformed else f"torch's {name}"
    raise DerivativeTaken(
        f"the model takes a derivative of its own by {how} at {place_of_call()}, and deepshap cannot see how that depends on the "
        "input: while a model is explained, backward passes carry multipliers. " + _WRITE_OUT
    )


def unwritten_message(error: Exception) -> str:
    """Return why the computation of a model could not be recorded."""
    return (
        "the model takes a derivative of its own, and what it computes cannot be recorded as a list of operations "
        f"({' '.join(str(error).split()).removesuffix('.')}). " + _WRITE_OUT
    )


def unsupported_message(calls: list[tuple[str, str]]) -> str:
    """List calls (name, place) that cannot be explained, and say what to do about them."""
    lines = "\n".join(f"  {name}  at {place}" for name, place in calls)
    if not (ruleless := [name for name, _ in calls if " " not in name]):
        return f"the model cannot be explained with these calls in it, nothing was computed:\n{lines}\n" + _cures(calls)
    example = ruleless[0]
    return (
        f"no rule for {plural(len(calls), 'call')} of the model, nothing was computed:\n{lines}\n"
        "Say what such a function is, and it will be explained:\n"
        f'  deepshap.register_rule({example}, "elementwise")  # acts on each element alone\n'
        f'  deepshap.register_rule({example}, "linear")       # affine in its inputs\n'
        f'  deepshap.register_rule({example}, "smooth")       # anything differentiable (path integral)\n'
        f"  deepshap.register_rule({example}, rule)           # rule(step, *multipliers) -> input multipliers\n"
        "docs/adding-a-rule.md has examples. " + _cures(calls)
    )


_CURES = {
    r"dropout.*\(random\)": "Functional dropout is on unless it is told otherwise: give it training=self.training, since "
    "example and reference have to see the same function.",
    r"^(?!.*dropout).*\(random\)": "Random functions must be switched off or moved out of the model, since example and reference "
    "have to see the same function.",
    r"inference_mode": "torch.inference_mode inside the model must give way to torch.no_grad.",
    r"does not follow": "What torch does not follow must be written with operations that it can differentiate.",
}


def _cures(calls: list[tuple[str, str]]) -> str:
    """Return what to do about calls that no rule could help."""
    return " ".join(cure for kind, cure in _CURES.items() if any(re.search(kind, name) for name, _ in calls))


@contextmanager
def translated_errors() -> Iterator[None]:
    """Translate torch's errors.

    Errors of ours are raised as they are if torch's C code continued after one (``Tensor.set_``), of which Python complains.
    """
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, DeepShapError):
            raise error.__cause__ from None
        raise
    except RuntimeError as error:
        if "does not support automatic differentiation" not in str(error):
            raise
        place = _innermost_place(reversed(list(walk_tb(error.__traceback__))))
        at = "" if place == UNKNOWN else f" at {place}"  # a backward pass has none
        raise UnsupportedOperationError(
            f"the model calls{at} what torch has no derivative of: {str(error).removesuffix('.')}. Write it with other "
            "operations, of complex numbers for instance with those of their real and imaginary parts."
        ) from error
