"""Rules that users register for their own operations."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..errors import InputError, of_user
from .registry import framework_of

NAMED_RULES = ("linear", "constant", "elementwise", "quadratic", "smooth", "same")
POSITIONS = "positions"


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
        ``"positions"``, for those that argmax, argsort, sort, topk and their like choose in PyTorch.
    rule : str or callable
        "linear" (affine in its inputs), "constant" (does not depend on their values), "elementwise" (acts on each element
        alone), "quadratic" (of second degree), "smooth" (anything differentiable: path integral along the segment), "same"
        (positions whose use is an error where they differ between example and reference), or
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
    function = _meant(function)
    if isinstance(rule, str) and rule not in NAMED_RULES:
        raise InputError(f"unknown rule {rule!r}: it is a function, or one of {', '.join(NAMED_RULES)}.")
    if not isinstance(rule, str) and not callable(rule):
        raise InputError(f"a rule is a function or a name, not a {type(rule).__name__}.")
    if not isinstance(rule, str):
        rule = UserRule(rule, function if isinstance(function, str) else named(function))
    if framework_of(function) == "keras" or isinstance(function, str):
        from .tensorflow.rule_keys import register

        if rule == "same":
            raise InputError('the rule "same" is for PyTorch: in TensorFlow positions always have to be the same.')
        register(function, rule)
        return
    from .torch import operations
    from .torch.names import key, resolve
    from .torch.table import USER_OPERATIONS

    if not callable(function):
        raise InputError(
            f"a rule is for a function, an autograd.Function or a module class, not a {type(function).__name__}."
        )
    if inspect.isfunction(function) and resolve(function) is None and not _dispatches(function):
        raise InputError(
            f"{function.__name__} is a plain Python function, whose calls torch does not announce; what it calls is explained. "
            "To give it a rule as a whole make it a torch.autograd.Function or a torch.nn.Module."
        )
    kind = operations.INDEX if rule == "same" else rule if isinstance(rule, str) else operations.CUSTOM
    USER_OPERATIONS[key(function)] = operations.Operation(kind, rule if callable(rule) else None)


def _meant(function: Any) -> Any:
    """What stands for the positions that operations of torch choose, or the function itself."""
    if not isinstance(function, str) or function != POSITIONS:
        return function
    from .torch.composites.positions import positions

    return positions


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
    function = _meant(function)
    if framework_of(function) == "keras" or isinstance(function, str):
        from .tensorflow.table import USER_OPERATIONS as OF_KERAS

        if OF_KERAS.pop(function, None) is None:
            raise InputError(f"no rule is registered for {getattr(function, '__name__', function)}.")
        return
    from .torch.names import key
    from .torch.table import USER_OPERATIONS

    if USER_OPERATIONS.pop(key(function), None) is None:
        raise InputError(f"no rule is registered for {getattr(function, '__name__', function)}.")


def registered() -> dict[str, dict[Any, Any]]:
    """All registered rules, by the engine that they are for; ``adopt`` takes them over in another process."""
    tables = {engine: sys.modules.get(f"{__package__}.{engine}.table") for engine in ("torch", "tensorflow")}
    return {engine: dict(table.USER_OPERATIONS) for engine, table in tables.items() if table and table.USER_OPERATIONS}


def adopt(rules: dict[str, dict[Any, Any]]) -> None:
    """Register what ``registered`` found."""
    for engine, found in rules.items():
        import_module(f".{engine}.table", __package__).USER_OPERATIONS.update(found)
