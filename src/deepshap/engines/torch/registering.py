"""For which functions of torch a user may register a rule, and the key of the rule."""

from __future__ import annotations

import inspect
from typing import Any

from torch import autograd, nn

from ...errors import InputError
from ..callables import code_of, packages
from . import names
from .composites import positions
from .table import USER_OPERATIONS as RULES

__all__ = ["RULES", "check", "key"]


def key(function: Any) -> Any:
    """Return the canonical name of a function of torch, or the class; a string stands for positions."""
    return names.key(positions.positions if isinstance(function, str) else function)


def check(function: Any, rule: Any) -> None:
    """Refuse functions whose calls torch does not show to function modes."""
    name = getattr(function, "__name__", function)
    if not callable(function):
        raise InputError(
            f"a rule is for a function, an autograd.Function or a module class, not a {type(function).__name__}."
        )
    if not _may_be_shown(function):
        raise InputError(
            f"{name} is no function or operator of torch, no autograd.Function and no torch.nn.Module: torch does not announce "
            "its calls, so that a rule for it would never be asked."
        )
    if inspect.isfunction(function) and names.resolve(function) is None and not _dispatches(function):
        raise InputError(
            f"{name} is a plain Python function, whose calls torch does not announce; what it calls is explained. "
            "To give it a rule as a whole make it a torch.autograd.Function or a torch.nn.Module."
        )


def _may_be_shown(function: Any) -> bool:
    """Return whether torch can show calls of a class, of a function in C or of another object."""
    if isinstance(function, type):
        return issubclass(function, (nn.Module, autograd.Function))
    if names.resolve(function) is not None or inspect.isfunction(function) or inspect.ismethod(function):
        return True
    made_by = {str(function.__module__).partition(".")[0]} if inspect.isbuiltin(function) else packages(function)
    return "torch" in made_by


def _dispatches(function: Any) -> bool:
    """Return whether a Python function shows its calls to torch's function modes, or is one of torch's."""
    used = code_of(function).co_names
    return any(name.startswith(("has_torch_function", "handle_torch_function")) for name in used) or (
        function.__module__ or ""
    ).startswith("torch.")
