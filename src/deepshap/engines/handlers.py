"""Handlers: a user's own treatment of a whole layer of one model, checked at every call.

A rule (``deepshap.register_rule``) belongs to an operation and holds for every model; a handler belongs to layers of one
explainer, named or of one type. What is particular to a framework: ``engines/torch/handlers.py`` and
``engines/tensorflow/handlers.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import AdditivityError, DeepShapError, InputError, NonFiniteError, not_a_multiplier
from ..formulas import namespace
from ..formulas.additivity import EPS, TOLERANCE
from ..formulas.rules import Term, contribution


# ---------------------------------------------------------------------- what a handler gets
@dataclass(frozen=True)
class ModuleCall:
    """One call of one layer, example beside reference, row by row, with tensors of the model's framework.

    Attributes
    ----------
    module : the layer.
    name : its qualified name in the model.
    inputs, reference_inputs : its float tensor inputs on both sides, positional ones first, and others that depend on what
        is explained. Inputs that do not depend on it are the same on both sides.
    varying : of each input, whether it depends on what is explained.
    outputs, reference_outputs : its float tensor outputs on both sides, nested ones (an LSTM's ``output, (h, c)``) in order.
    multipliers : of each output, how much of the explained output one unit of it explains; of the output's shape.
    arguments, keywords : the call as the model makes it, on the example side.

    Examples
    --------
    >>> def twice(call):  # a handler: returns the multipliers of each input
    ...     return [2 * m for m in call.multipliers]
    """

    module: Any
    name: str
    inputs: tuple[Any, ...]
    reference_inputs: tuple[Any, ...]
    varying: tuple[bool, ...]
    outputs: tuple[Any, ...]
    reference_outputs: tuple[Any, ...]
    multipliers: tuple[Any, ...]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


Handler = Callable[[ModuleCall], Any]  # returns a multiplier, or a sequence of them and None


# ---------------------------------------------------------------------- the handlers of one engine
@dataclass
class Handlers(ABC):
    """The layers of one engine's model, and the handlers registered for them."""

    engine: Any
    registered: dict[str | type, Handler] = field(default_factory=dict)

    @property
    @abstractmethod
    def names(self) -> Mapping[Any, str]:
        """Qualified name of every layer; "" is the model itself."""

    @abstractmethod
    def apply(self) -> None:
        """Make each handled layer one operation, and forget what was prepared without that."""

    def register(self, layer: str | type, handler: Handler) -> None:
        """Use a handler for a layer, or for all layers of a type."""
        if not callable(handler) or isinstance(handler, type):
            kind = f"the class {handler.__name__}" if isinstance(handler, type) else f"a {type(handler).__name__}"
            raise InputError(
                f"a handler is a function of one ModuleCall, or an object with __call__ such as LSTMShapHandler(), not {kind}."
            )
        self._check(layer)
        self.registered[layer] = handler
        self.apply()

    def unregister(self, layer: str | type) -> None:
        """Restore the built-in treatment."""
        if self.registered.pop(layer, None) is None:
            registered = ", ".join(map(_spelled, self.registered)) or "none at all"
            raise InputError(f"no handler is registered for {_spelled(layer)}; registered: {registered}.")
        self.apply()

    def handler_of(self, layer: Any, name: str) -> Handler | None:
        """Return the handler for a layer: by its name, its type, or a base class of its type."""
        return next((self.registered[key] for key in (name, *type(layer).__mro__) if key in self.registered), None)

    def _check(self, layer: Any) -> None:
        """Raise unless the layer is in the model."""
        names = list(self.names.values())
        if isinstance(layer, str):
            if layer not in names:
                near = get_close_matches(layer, names, n=5, cutoff=0.4) or [n for n in names if n][:5]
                raise InputError(
                    f"the model has no layer {layer!r}. Nearest names: {', '.join(map(repr, near)) or 'none, it has no layers'}. "
                    "explainer.layer_names lists all."
                )
        elif not isinstance(layer, type):
            raise InputError(
                f"a handler is registered for the name or the type of a layer, not for a {type(layer).__name__}; "
                "explainer.layer_names[layer] is a layer's name."
            )
        elif not any(isinstance(module, layer) for module in self.names):
            types = sorted({type(module).__name__ for module in self.names})
            raise InputError(f"the model has no layer of type {layer.__name__}; it has {', '.join(types) or 'none'}.")


def _spelled(layer: Any) -> str:
    return layer.__name__ if isinstance(layer, type) else repr(layer)


# ---------------------------------------------------------------------- the rule that calls a handler
@dataclass(eq=False)
class HandlerRule(ABC):
    """What the rules that call a handler have in common: whose fault an error is, and what may come back."""

    handler: Handler
    module: Any
    name: str

    @staticmethod
    @abstractmethod
    def mismatch(result: Any, value: Any) -> str:
        """Return in words what cannot be a multiplier of a value; "" if it can be one."""

    @staticmethod
    @abstractmethod
    def row_sums(values: Any) -> np.ndarray:
        """Return the sum of each row, in double precision."""

    @property
    def who(self) -> str:
        """The handler and its layer, in words."""
        kind = getattr(self.handler, "__name__", type(self.handler).__name__)
        return f"the handler {kind} of layer {self.name!r} ({type(self.module).__name__})"

    def raised(self, error: BaseException) -> BaseException:
        """Return the error to show for an error in the handler; deepshap's own and interruptions pass unchanged."""
        if isinstance(error, DeepShapError) or not isinstance(error, Exception):
            return error
        shown = DeepShapError(f"{self.who} raised {type(error).__name__}: {error}")
        shown.__cause__ = error
        return shown

    def read(self, result: Any, call: ModuleCall) -> list[Any]:
        """Return one multiplier per input, each of its input's shape."""
        read: list[Any] = list(result) if isinstance(result, (tuple, list)) else [result]
        if len(read) == sum(call.varying) < len(call.varying):  # those of the varying inputs alone
            rest = iter(read)
            read = [next(rest) if varies else None for varies in call.varying]
        if len(read) != len(call.inputs):
            shapes = ", ".join(str(tuple(i.shape)) for i in call.inputs)
            raise InputError(
                f"{self.who} returned {len(read)} multipliers; it must return one per input (None for no influence), for "
                f"inputs of shapes {shapes}."
            )
        for position, (m, operand) in enumerate(zip(read, call.inputs, strict=True)):
            if problem := self.mismatch(m, operand):
                raise not_a_multiplier(self.who, problem, f" for input {position}")
            if m is not None and tuple(m.shape) != tuple(operand.shape):
                raise InputError(
                    f"{self.who} returned a multiplier of shape {tuple(m.shape)} for input {position} of shape "
                    f"{tuple(operand.shape)}; they must be equal."
                )
        return read

    def check_sums(self, layouts: Sequence[Sequence[Term]], inputs: int, dtypes: Iterable[str]) -> None:
        """Raise unless the handler keeps the sums, row by row, to the tolerance of the dtypes.

        A layout has the terms of the inputs and behind them those of the outputs, with rows first. Of several, which the shapes
        leave open, one must hold.
        """
        if not _finite(layouts[0][inputs:]):
            return  # not the handler's doing
        if not _finite(layouts[0][:inputs]):
            raise NonFiniteError(f"{self.who} returned multipliers with NaN or infinite values.")
        names = list(dtypes) or ["float64"]
        tolerance, eps = (max(table[name] for name in names) for table in (TOLERANCE, EPS))
        gap, explained, wanted = min(self._worst(terms, inputs, eps / tolerance) for terms in layouts)
        if not gap <= tolerance:
            rows = "one row" if len(layouts[0][0][0]) > 1 else "all rows"
            raise AdditivityError(
                f"{self.who} does not explain its own output: of {rows} its multipliers explain {explained:.6g} where the "
                f"output's explain {wanted:.6g}, a gap of {abs(explained - wanted):.3g}, {gap:.3g} of its scale (tolerance "
                f"{tolerance:.1g}). It must keep sum(m * (input - reference_input)) == sum(multiplier * (output - "
                "reference_output))."
            )

    def _worst(self, terms: Sequence[Term], inputs: int, rounding: float) -> tuple[float, float, float]:
        """Return the largest gap of a row, relative to its scale as in ``additivity_gap``, and both sums of that row."""
        with np.errstate(all="ignore"):
            differences = [contribution(m, v, r) for m, v, r in terms]
            size = sum(self.row_sums(abs(d)) for d in differences[inputs:])
            operands = sum(self.row_sums(abs(m) * (abs(v) + abs(r))) for m, v, r in terms)
        scale = size + 64 * rounding * operands + np.finfo(np.float32).tiny
        nothing: Any = np.zeros_like(scale)
        explained, wanted = (
            sum(map(self.row_sums, terms_of_side), nothing)
            for terms_of_side in (differences[:inputs], differences[inputs:])
        )
        gaps = abs(explained - wanted) / scale
        row = int(gaps.argmax())
        return float(gaps[row]), float(explained[row]), float(wanted[row])


def _finite(terms: Sequence[Term]) -> bool:
    return all(bool(namespace(m).isfinite(m).all()) for m, _, _ in terms)


# ---------------------------------------------------------------------- for explainers
class TakesHandlers:
    """What an explainer has for layers with a treatment of their own."""

    engine: Any

    def register_custom_handler(self, layer_name_or_type: str | type, handler: Callable[..., Any]) -> None:
        """Replace the treatment of a whole layer; see docs/cells-and-handlers.md.

        Parameters
        ----------
        layer_name_or_type : str or type
            A layer's qualified name, as in ``layer_names``, or a type: all layers of that type or derived from it. A name
            goes before a type, a derived type before its base.
        handler : callable
            Gets a ``ModuleCall`` (module, name, inputs, outputs, reference_inputs, reference_outputs, multipliers of the
            outputs) and returns one multiplier per float tensor input, of its shape, or None for no influence. It must keep
            ``sum(m * (input - reference_input)) == sum(multiplier * (output - reference_output))``. It is called once per
            call of the layer, chunk of rows and explained output, and may keep state.

        Raises
        ------
        InputError
            If the model has no such layer, or the handler cannot be called. While explaining: ``InputError`` if the handler
            returns multipliers of the wrong number or shape, ``AdditivityError`` if they do not keep the sum.

        Examples
        --------
        >>> explainer.register_custom_handler("lstm", deepshap.LSTMShapHandler())
        """
        self._handlers.register(layer_name_or_type, handler)

    def unregister_custom_handler(self, layer_name_or_type: str | type) -> None:
        """Restore the built-in treatment of a layer.

        Raises
        ------
        InputError
            If no handler is registered under this name or type.
        """
        self._handlers.unregister(layer_name_or_type)

    @property
    def custom_handlers(self) -> Mapping[str | type, Callable[..., Any]]:
        """The registered handlers, by name or type (read only)."""
        return MappingProxyType(self._handlers.registered)

    @property
    def layer_names(self) -> dict[Any, str]:
        """Qualified name of every layer, as ``named_modules`` has them; "" is the model itself."""
        return dict(self._handlers.names)

    @property
    def _handlers(self) -> Handlers:
        return self.engine.handlers
