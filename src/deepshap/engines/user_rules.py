"""Rules that users register for their own operations."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, of_user
from .callables import packages
from .registry import framework_of, room

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
    if isinstance(rule, str) and rule not in NAMED_RULES:
        raise InputError(f"unknown rule {rule!r}: it is a function, or one of {', '.join(NAMED_RULES)}.")
    if not isinstance(rule, str) and not callable(rule):
        raise InputError(f"a rule is a function or a name, not a {type(rule).__name__}.")
    framework = _framework_of(function)
    if rule == "same" and framework == "tensorflow":
        raise InputError('the rule "same" is for PyTorch: in TensorFlow positions always have to be the same.')
    _check(function, framework)
    operations = room(framework, "operations")
    kind = operations.INDEX if rule == "same" else rule if isinstance(rule, str) else operations.CUSTOM
    own = None if isinstance(rule, str) else UserRule(rule, function if isinstance(function, str) else named(function))
    room(framework, "table").USER_OPERATIONS[_key(function, framework)] = operations.Operation(kind, own)


def _framework_of(function: Any) -> str:
    if isinstance(function, str):
        return "torch" if function == POSITIONS else "tensorflow"
    return framework_of(function)


def _key(function: Any, framework: str) -> Any:
    """Under what a rule is kept: the canonical name of a function of torch, the type of an operation, a layer, a class."""
    if framework == "tensorflow":
        return function
    if isinstance(function, str):
        function = room("torch", "composites.positions").positions
    return room("torch", "names").key(function)


def _check(function: Any, framework: str) -> None:
    """Refuse what never meets an engine as an operation."""
    name = getattr(function, "__name__", function)
    if framework == "tensorflow":
        if isinstance(function, str) and not room("tensorflow", "operations").is_known(function):
            raise InputError(
                f"TensorFlow has no operation {function!r}. Types of operations, such as 'Erfinv', are those that the error "
                "message lists; tf.raw_ops has all."
            )
        if not isinstance(function, str) and "keras" not in packages(function):
            raise InputError(
                f"{name} is a Python function, which a graph of TensorFlow does not show; what it calls is explained. Register "
                "the type of the operation, such as 'Erfinv', or a Keras layer."
            )
    elif not callable(function) and function != POSITIONS:
        raise InputError(
            f"a rule is for a function, an autograd.Function or a module class, not a {type(function).__name__}."
        )
    elif (
        inspect.isfunction(function) and room("torch", "names").resolve(function) is None and not _dispatches(function)
    ):
        raise InputError(
            f"{name} is a plain Python function, whose calls torch does not announce; what it calls is explained. "
            "To give it a rule as a whole make it a torch.autograd.Function or a torch.nn.Module."
        )


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
    framework = _framework_of(function)
    if room(framework, "table").USER_OPERATIONS.pop(_key(function, framework), None) is None:
        raise InputError(f"no rule is registered for {getattr(function, '__name__', function)}.")


def registered() -> dict[str, dict[Any, Any]]:
    """All registered rules, by the engine that they are for; ``adopt`` takes them over in another process."""
    tables = {engine: sys.modules.get(f"{__package__}.{engine}.table") for engine in ("torch", "tensorflow")}
    return {engine: dict(table.USER_OPERATIONS) for engine, table in tables.items() if table and table.USER_OPERATIONS}


def adopt(rules: dict[str, dict[Any, Any]]) -> None:
    """Register what ``registered`` found."""
    for engine, found in rules.items():
        room(engine, "table").USER_OPERATIONS.update(found)
