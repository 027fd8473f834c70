"""Calls of torch: their arguments, where the user's code makes them, and how errors describe them."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from traceback import walk_stack, walk_tb
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import DeepShapError, UnsupportedOperationError
from ...explanation.labels import plural
from ._compat import base_of
from .operations import Operation
from .tree import replace, tensors

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


class Call(NamedTuple):
    """A call that the model makes, and its operation in the table."""

    function: Callable[..., Any]
    operation: Operation | None
    name: str
    inplace: bool
    args: Any
    kwargs: Any
    operands: list[Tensor]  # all tensors among the arguments
    has_surrogates: bool = True  # whether one of them may have a surrogate

    def with_arguments(self, args: Any, kwargs: Any) -> Call:
        """Return the call with other arguments."""
        return self._replace(args=args, kwargs=kwargs, operands=tensors((args, kwargs)), has_surrogates=True)

    @property
    def kind(self) -> str | None:
        """Return the kind of the operation; None for an unknown operation."""
        return None if self.operation is None else self.operation.kind

    @property
    def implementation(self) -> Callable[..., Any]:
        """Return the function that replaces the called one, or the called one."""
        return (self.operation and self.operation.function) or self.function

    def written(self) -> list[Tensor]:
        """Return what the call writes to, each after the tensor that it is a view of."""
        targets = tensors(self.kwargs["out"]) if "out" in self.kwargs else []
        if self.inplace or self.name == "__setitem__":
            targets.extend(tensors(self.args[0]))  # those of torch._foreach_copy_ are a list
        return [t for target in targets for t in (base_of(target), target) if t is not None]


def in_grad_mode(enabled: bool, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a function with gradients on or off, and restore the mode, which the function may change too."""
    before = torch.is_grad_enabled()
    if before != enabled:
        torch.set_grad_enabled(enabled)
    try:
        return function(*args, **kwargs)
    finally:
        torch.set_grad_enabled(before)


def run_stably(call: Call) -> Any:
    """Run a call on constants. Sorting is stable, so that rows of equal length keep their order."""
    args, kwargs = call.args, call.kwargs
    if call.name in ("data", "detach") and not args[0].requires_grad:  # a write to it reaches the tensor itself
        return call.implementation(*args)
    if call.name in ("sort", "argsort") and "stable" not in kwargs:
        args, kwargs = args[:1], {**dict(zip(("dim", "descending"), args[1:], strict=False)), **kwargs, "stable": True}
    return call.function(*args, **kwargs)


def with_ordinary_tensors(call: Call) -> Call:
    """Replace constants made in inference mode, which autograd refuses, by copies."""
    if not any(map(Tensor.is_inference, call.operands)):
        return call
    return call.with_arguments(*replace((call.args, call.kwargs), lambda t: t.clone() if t.is_inference() else t))


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


def check_no_derivative(call: Call, transformed: bool) -> None:
    """Refuse derivatives that the model takes itself: how they depend on the input cannot be traced."""
    if not transformed and call.function not in _DERIVATIVES:
        return
    how = "a transform of torch.func (grad, jvp, jacrev)" if transformed else f"torch's {call.name}"
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
