"""Rules that users register for their own operations."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..errors import InputError, of_user
from .callables import packages
from .registry import framework_of, room

NAMED_RULES = ("linear", "constant", "elementwise", "quadratic", "smooth", "same")
POSITIONS = "positions"
TABLES = {"torch": "table", "tensorflow": "operations"}  # modules that hold what is registered


@dataclass(frozen=True)
class UserRule:
    """A rule of the user's own, which is named if it fails."""

    rule: Callable[..., Any]
    of: str

    def __call__(self, step: Any, *multipliers: Any) -> Any:
        """Call it."""
        with of_user(f"the rule {named(self.rule)} that is registered for {self.of}"):
            return self.rule(step, *multipliers)


def named(function: Any) -> str:
    """What a function of the user is called in messages."""
    return str(getattr(function, "__qualname__", type(function).__name__))


def register_rule(function: Any, rule: str | Callable[..., Any]) -> None:
    """Say how an operation is to be explained.

    Parameters
    ----------
    function : callable, torch.autograd.Function subclass, torch.nn.Module subclass, str or keras.layers.Layer
        A torch function (``torch.stft``, ``torch.Tensor.erfinv``, ``torch.ops.mylib.op.default``), a custom autograd
        function, or a module class, all of whose instances are then treated as one operation. For TensorFlow the type of an
        operation, ``"Erfinv"``, as error messages name it, or a Keras layer or layer class, treated as one operation. Or
        ``"positions"``, for those that argmax, argsort, sort, topk and their like choose, in every framework.
    rule : str or callable
        "linear" (affine in its inputs), "constant" (does not depend on their values), "elementwise" (acts on each element
        alone), "quadratic" (of second degree), "smooth" (anything differentiable: path integral along the segment), "same"
        (positions whose use is an error where they differ between example and reference; the only one for "positions"), or
        a function ``rule(step, *multipliers)`` that returns one multiplier per varying input. ``step`` has ``inputs``,
        ``outputs``, ``reference_inputs``, ``reference_outputs`` and ``evaluate``; the rule must keep
        ``sum(m * (input - reference_input)) == sum(multiplier * (output - reference_output))``.

    Raises
    ------
    InputError
        If the function cannot be called, or the rule is neither a callable nor one of the names.

    Examples
    --------
    >>> register_rule(torch.special.bessel_j0, "elementwise")
    >>> register_rule("Erfinv", "elementwise")
    """
    if isinstance(rule, str) and rule not in NAMED_RULES:
        raise InputError(f"unknown rule {rule!r}: it is a function, or one of {', '.join(NAMED_RULES)}.")
    if not isinstance(rule, str) and not callable(rule):
        raise InputError(f"a rule is a function or a name, not a {type(rule).__name__}.")
    for framework in _frameworks_of(function):
        _check(function, framework, rule)
        operations = room(framework, "operations")
        kind = operations.INDEX if rule == "same" else rule if isinstance(rule, str) else operations.CUSTOM
        own = (
            None
            if isinstance(rule, str)
            else UserRule(rule, function if isinstance(function, str) else named(function))
        )
        _table(framework)[_key(function, framework)] = operations.Operation(kind, own)


def _frameworks_of(function: Any) -> list[str]:
    """The frameworks whose operation is meant; positions are those of all that are installed."""
    if isinstance(function, str):
        return [name for name in TABLES if find_spec(name)] if function == POSITIONS else ["tensorflow"]
    return [framework_of(function)]


def _table(framework: str) -> dict[Any, Any]:
    """The rules that users have registered for a framework."""
    found: dict[Any, Any] = room(framework, TABLES[framework]).USER_OPERATIONS
    return found


def _key(function: Any, framework: str) -> Any:
    """Under what a rule is kept: the canonical name of a function of torch, the type of an operation, a layer, a class."""
    if framework == "tensorflow":
        return function
    if isinstance(function, str):
        function = room("torch", "composites.positions").positions
    return room("torch", "names").key(function)


def _check(function: Any, framework: str, rule: Any) -> None:
    """Refuse what never meets an engine as an operation, or has another rule."""
    name = getattr(function, "__name__", function)
    if isinstance(function, str) and function == POSITIONS:
        if rule != "same":
            raise InputError('the only rule for "positions" is "same": without it they are explained.')
    elif framework == "tensorflow":
        if rule == "same":
            raise InputError('the rule "same" is for "positions", and for functions of PyTorch.')
        if isinstance(function, str) and not room("tensorflow", "table").is_known(function):
            raise InputError(
                f"TensorFlow has no operation {function!r}. Types of operations, such as 'Erfinv', are those that the error "
                "message lists; tf.raw_ops has all."
            )
        if not isinstance(function, str) and "keras" not in packages(function):
            raise InputError(
                f"{name} is a Python function, which a graph of TensorFlow does not show; what it calls is explained. Register "
                "the type of the operation, such as 'Erfinv', or a Keras layer."
            )
    elif not callable(function):
        raise InputError(
            f"a rule is for a function, an autograd.Function or a module class, not a {type(function).__name__}."
        )
    elif not _meets_torch(function):
        raise InputError(
            f"{name} is no function or operator of torch, no autograd.Function and no torch.nn.Module: torch does not announce "
            "its calls, so that a rule for it would never be asked."
        )
    elif (
        inspect.isfunction(function) and room("torch", "names").resolve(function) is None and not _dispatches(function)
    ):
        raise InputError(
            f"{name} is a plain Python function, whose calls torch does not announce; what it calls is explained. "
            "To give it a rule as a whole make it a torch.autograd.Function or a torch.nn.Module."
        )


def _meets_torch(function: Any) -> bool:
    """Whether calls of a class, of a function in C or of another object can be ones that torch shows."""
    from torch import autograd, nn

    if isinstance(function, type):
        return issubclass(function, (nn.Module, autograd.Function))
    if (
        room("torch", "names").resolve(function) is not None
        or inspect.isfunction(function)
        or inspect.ismethod(function)
    ):
        return True
    made_by = {str(function.__module__).partition(".")[0]} if inspect.isbuiltin(function) else packages(function)
    return "torch" in made_by


def _dispatches(function: Any) -> bool:
    """Whether a Python function shows its calls to torch's function modes, or is one of torch's."""
    names = function.__code__.co_names
    return any(name.startswith(("has_torch_function", "handle_torch_function")) for name in names) or (
        function.__module__ or ""
    ).startswith("torch.")


def unregister_rule(function: Any) -> None:
    """Forget a registered rule.

    Raises
    ------
    InputError
        If none is registered.
    """
    if None in [_table(name).pop(_key(function, name), None) for name in _frameworks_of(function)]:
        raise InputError(f"no rule is registered for {getattr(function, '__name__', function)}.")


def registered() -> dict[str, dict[Any, Any]]:
    """All registered rules, by the engine that they are for; ``adopt`` takes them over in another process."""
    tables = {engine: sys.modules.get(f"{__package__}.{engine}.{module}") for engine, module in TABLES.items()}
    return {engine: dict(table.USER_OPERATIONS) for engine, table in tables.items() if table and table.USER_OPERATIONS}


def adopt(rules: dict[str, dict[Any, Any]]) -> None:
    """Register what ``registered`` found."""
    for engine, found in rules.items():
        _table(engine).update(found)
