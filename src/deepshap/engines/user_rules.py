"""Rules that users register for their own operations."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..errors import InputError, of_user
from .registry import ENGINES, engine_module, framework_of

NAMED_RULES = ("linear", "constant", "elementwise", "quadratic", "smooth", "same")
POSITIONS = "positions"
OF_TYPES = "tensorflow"  # whose operations have types, by which they are named


@dataclass(frozen=True)
class UserRule:
    """A rule of the user's own, which is named if it fails."""

    rule: Callable[..., Any]
    of: str

    def __call__(self, record: Any, *multipliers: Any) -> Any:
        """Call it."""
        with of_user(f"the rule {named(self.rule)} that is registered for {self.of}"):
            return self.rule(record, *multipliers)


def named(function: Any) -> str:
    """Return the name of a user's function for messages."""
    return str(getattr(function, "__qualname__", type(function).__name__))


def register_rule(function: Any, rule: str | Callable[..., Any]) -> None:
    """Register how an operation is explained.

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
    of_positions = isinstance(function, str) and function == POSITIONS
    if of_positions and rule != "same":
        raise InputError('the only rule for "positions" is "same": without it they are explained.')
    for framework in _frameworks_of(function):
        registry, operations = _registry(framework), engine_module(framework, "operations")
        if not of_positions:
            registry.check(function, rule)
        kind = operations.INDEX if rule == "same" else rule if isinstance(rule, str) else operations.CUSTOM
        user_rule = (
            None
            if isinstance(rule, str)
            else UserRule(rule, function if isinstance(function, str) else named(function))
        )
        registry.RULES[registry.key(function)] = operations.Operation(kind, user_rule)


def _frameworks_of(function: Any) -> list[str]:
    """Return the frameworks whose operation is meant; for positions all that are installed."""
    if isinstance(function, str):
        return [name for name in ENGINES if find_spec(name)] if function == POSITIONS else [OF_TYPES]
    return [framework_of(function)]


def _registry(framework: str) -> Any:
    """Return an engine's module of registered rules (RULES) and of what it accepts as an operation."""
    return engine_module(framework, "registering")


def unregister_rule(function: Any) -> None:
    """Forget a registered rule.

    Parameters
    ----------
    function
        As for ``register_rule``.

    Raises
    ------
    InputError
        If none is registered.

    Examples
    --------
    >>> deepshap.register_rule(torch.special.bessel_j1, "elementwise")
    >>> deepshap.unregister_rule(torch.special.bessel_j1)
    """
    registries = map(_registry, _frameworks_of(function))
    if None in [registry.RULES.pop(registry.key(function), None) for registry in registries]:
        raise InputError(f"no rule is registered for {getattr(function, '__name__', function)}.")


def registered() -> dict[str, dict[Any, Any]]:
    """Return all registered rules, by the engine that they are for."""
    registries = {engine: sys.modules.get(f"{__package__}.{engine}.registering") for engine in ENGINES}
    return {engine: dict(registry.RULES) for engine, registry in registries.items() if registry and registry.RULES}


def with_rules(what: Any) -> dict[str, Any]:
    """Return an object to send to another process, with the rules that it needs there."""
    return {"what": what, "rules": registered()}


def received(sent: dict[str, Any]) -> Any:
    """Return what was sent ``with_rules``, after registering these rules here."""
    for engine, rules in sent["rules"].items():
        _registry(engine).RULES.update(rules)
    return sent["what"]
