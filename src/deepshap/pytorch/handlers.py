"""Handlers: a user's own treatment of a whole layer of one model, checked at every call.

A rule (``deepshap.register_rule``) belongs to an operation and holds for every model; a handler belongs to layers of one
explainer, named or of one type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import AdditivityError, DeepShapError, InputError, NonFiniteError
from .keras_layers import named_modules
from .operations import CUSTOM, Operation, Step
from .recurrent import LSTM, Weights
from .rules import inner
from .state import modules_of
from .tree import tensors

if TYPE_CHECKING:
    from .engine import TorchEngine

Pair = tuple[Tensor, Tensor]


# ---------------------------------------------------------------------- what a handler gets
@dataclass(frozen=True)
class ModuleCall:
    """One call of one layer, example beside reference, row by row.

    Attributes
    ----------
    module : the layer.
    name : its qualified name in the model.
    inputs, reference_inputs : its float tensor inputs on both sides, positional ones first. Inputs that do not depend on
        what is explained are the same on both sides.
    varying : of each input, whether it depends on what is explained.
    outputs, reference_outputs : its float tensor outputs on both sides, nested ones (an LSTM's ``output, (h, c)``) in order.
    multipliers : of each output, how much of the explained output one unit of it explains; of the output's shape.
    arguments, keywords : the call as the model makes it, on the example side.
    """

    module: nn.Module
    name: str
    inputs: tuple[Tensor, ...]
    reference_inputs: tuple[Tensor, ...]
    varying: tuple[bool, ...]
    outputs: tuple[Tensor, ...]
    reference_outputs: tuple[Tensor, ...]
    multipliers: tuple[Tensor, ...]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


Handler = Callable[[ModuleCall], "Tensor | Sequence[Tensor | None] | None"]


# ---------------------------------------------------------------------- the worked example
class LSTMShapHandler:
    """The rules of an LSTM as a handler: for ``nn.LSTMCell``, and ``nn.LSTM`` of one layer and one direction.

    LSTMs need no handler. This one is the pattern for layers of your own: both sides forward, then the multipliers back
    through the steps, in the formulas of docs/mathematics.md ("Recurrent cells"). It agrees with the built-in treatment to
    rounding error.

    Examples
    --------
    >>> explainer.register_custom_handler(torch.nn.LSTM, LSTMShapHandler())
    """

    def __call__(self, call: ModuleCall) -> list[Tensor]:
        """Return the multipliers of x and, where they are given, of h and c."""
        weights = _lstm_weights(call)
        cell, batch_first = isinstance(call.module, nn.LSTMCell), getattr(call.module, "batch_first", False)

        def time_first(sequence: Tensor) -> Tensor:
            return sequence.transpose(0, 1) if batch_first else sequence

        def steps(inputs: tuple[Tensor, ...]) -> list[dict[str, Tensor]]:
            x, *state = (v.unsqueeze(0) for v in inputs) if cell else inputs
            return _forward(time_first(x), [s[0] for s in state], weights)

        x, *state = call.multipliers
        m_output, m_h, m_c = (x.new_zeros(1, *x.shape), x, *state) if cell else (time_first(x), *(s[0] for s in state))
        m_x, *m_state = _backward(m_output, [m_h, m_c], steps(call.inputs), steps(call.reference_inputs), weights)
        if cell:
            return [m_x[0], *m_state][: len(call.inputs)]
        return [time_first(m_x), *(m.unsqueeze(0) for m in m_state)][: len(call.inputs)]


def _lstm_weights(call: ModuleCall) -> Weights:
    module = call.module
    if isinstance(module, nn.LSTMCell):
        return Weights(module.weight_ih, module.weight_hh, module.bias_ih, module.bias_hh)
    packed = any(isinstance(a, PackedSequence) for a in call.arguments)
    if not isinstance(module, nn.LSTM) or module.num_layers > 1 or module.bidirectional or packed:
        raise InputError(
            f"LSTMShapHandler explains nn.LSTMCell, and nn.LSTM with one layer and one direction on padded sequences; "
            f"{call.name!r} is {module}. Unregister it there: the built-in treatment knows all recurrent layers."
        )
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0")
    return Weights(*(getattr(module, name, None) for name in names))  # type: ignore[arg-type]


def _forward(x: Tensor, state: list[Tensor], weights: Weights) -> list[dict[str, Tensor]]:
    """Run the steps of ``x`` (steps, rows, input); returns what each leaves for its rule."""
    sizes = weights.w_hh.shape[1], len(weights.w_hh) // 4
    state = state or [x.new_zeros(x.shape[1], size) for size in sizes]
    kept: list[dict[str, Tensor]] = []
    for z in LSTM.input_share(x, weights):
        state, values = LSTM.forward(z, state, weights)
        kept.append(values)
    return kept


def _backward(
    m_output: Tensor, m_state: list[Tensor], example: list[Any], reference: list[Any], weights: Weights
) -> tuple[Tensor, Tensor, Tensor]:
    """Multipliers of the input (steps, rows, input) and of the first states, from the last step to the first."""
    m_h, m_c = m_state
    m_x: list[Tensor] = []
    for m, a, b in zip(m_output.flip(0), reversed(example), reversed(reference), strict=True):
        m_z, m_h, (m_c,) = LSTM.multipliers([m_h + m, m_c], a, b, weights)
        m_x.append(m_z @ weights.w_ih)
    return torch.stack(m_x[::-1]), m_h, m_c


# ---------------------------------------------------------------------- the handlers of one engine
@dataclass
class Handlers:
    """The layers of one engine's model, and the handlers registered for them."""

    engine: TorchEngine
    names: dict[nn.Module, str] = field(init=False)
    registered: dict[str | type, Handler] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = layer_names(self.engine.model)

    def register(self, layer: str | type, handler: Handler) -> None:
        """Use a handler for a layer, or for all layers of a type."""
        if not callable(handler) or isinstance(handler, type):
            kind = f"the class {handler.__name__}" if isinstance(handler, type) else f"a {type(handler).__name__}"
            raise InputError(
                f"a handler is a function of one ModuleCall, or an object with __call__ such as LSTMShapHandler(), not {kind}."
            )
        self._check(layer)
        self.registered[layer] = handler
        self._apply()

    def unregister(self, layer: str | type) -> None:
        """Go back to the built-in treatment."""
        if self.registered.pop(layer, None) is None:
            known = ", ".join(map(_spelled, self.registered)) or "none at all"
            raise InputError(f"no handler is registered for {_spelled(layer)}; registered: {known}.")
        self._apply()

    def _check(self, layer: Any) -> None:
        """The layer must be in the model."""
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

    def _apply(self) -> None:
        """Make each handled layer one operation, and forget what was prepared without that."""
        operations = self.engine.operations
        for module, operation in list(operations.items()):
            if isinstance(operation.rule, _HandlerRule):
                del operations[module]
        for module, name in self.names.items():
            handler = next(
                (self.registered[key] for key in (name, *type(module).__mro__) if key in self.registered), None
            )
            if handler is not None:
                operations[module] = Operation(CUSTOM, _HandlerRule(handler, module, name))
        self.engine._kept, self.engine._footprint, self.engine._pairwise = None, None, False


def layer_names(model: Any) -> dict[nn.Module, str]:
    """Qualified names of all modules of a model, as torch names them; of Keras models, by the names of their layers.

    Of a function that holds one module these are the names within that module; of several, each module's class name goes
    before the names within it, numbered where it occurs twice.
    """
    roots = [model] if isinstance(model, nn.Module) else _outermost(modules_of(model))
    if len(roots) == 1:
        return {module: name for name, module in named_modules(roots[0])}
    kinds = [type(root).__name__ for root in roots]
    names: dict[nn.Module, str] = {}
    for position, (root, kind) in enumerate(zip(roots, kinds, strict=True)):
        prefix = f"{kind}_{kinds[:position].count(kind)}" if kinds.count(kind) > 1 else kind
        names |= {module: name for name, module in named_modules(root, prefix)}
    return names


def _outermost(modules: list[nn.Module]) -> list[nn.Module]:
    inside = {id(part) for module in modules for _, part in named_modules(module, private=True) if part is not module}
    return [module for module in modules if id(module) not in inside]


def _spelled(layer: Any) -> str:
    return layer.__name__ if isinstance(layer, type) else repr(layer)


# ---------------------------------------------------------------------- the rule that calls a handler
@dataclass(frozen=True, eq=False)
class _HandlerRule:
    """Shows a step to a handler as a ``ModuleCall`` and checks what comes back."""

    handler: Handler
    module: nn.Module
    name: str

    def __call__(self, step: Step, *multipliers: Tensor) -> list[Tensor | None]:
        call = self._call(step, multipliers)
        try:
            found = self.handler(call)
        except DeepShapError:
            raise
        except Exception as error:
            raise DeepShapError(f"{self._who} raised {type(error).__name__}: {error}") from error
        result = self._read(found, call)
        sides = zip(call.inputs, call.reference_inputs, strict=True)
        kept = [(m, pair) for m, pair, varies in zip(result, sides, call.varying, strict=True) if varies]
        self._check_sums(step, [(m, *pair) for m, pair in kept if m is not None], multipliers)
        return [m for m, _ in kept]

    def _call(self, step: Step, multipliers: tuple[Tensor, ...]) -> ModuleCall:
        both = zip(step.inputs, step.reference_inputs, strict=True)
        given = zip(tensors((step.arguments, step.keywords)), step.varying, strict=True)
        sides = [
            (*(next(both) if varies else (t, t)), varies) for t, varies in given if varies or t.is_floating_point()
        ]
        inputs, reference_inputs, varying = (tuple(s) for s in zip(*sides, strict=True))
        return ModuleCall(
            self.module,
            self.name,
            inputs,
            reference_inputs,
            varying,
            step.outputs,
            step.reference_outputs,
            multipliers,
            step.arguments,
            step.keywords,
        )

    @property
    def _who(self) -> str:
        kind = getattr(self.handler, "__name__", type(self.handler).__name__)
        return f"the handler {kind} of layer {self.name!r} ({type(self.module).__name__})"

    def _read(self, result: Any, call: ModuleCall) -> list[Tensor | None]:
        """One multiplier per input, each of its input's shape."""
        read = list(result) if isinstance(result, (tuple, list)) else [result]
        if len(read) == sum(call.varying) < len(call.varying):  # those of the varying inputs alone
            rest = iter(read)
            read = [next(rest) if varies else None for varies in call.varying]
        shapes = ", ".join(str(tuple(i.shape)) for i in call.inputs)
        if len(read) != len(call.inputs):
            raise InputError(
                f"{self._who} returned {len(read)} multipliers; it must return one per input (None for no influence), for "
                f"inputs of shapes {shapes}."
            )
        for position, (m, given) in enumerate(zip(read, call.inputs, strict=True)):
            if m is not None and not isinstance(m, Tensor):
                raise InputError(
                    f"{self._who} returned {type(m).__name__} for input {position}; a multiplier is a tensor or None."
                )
            if m is not None and m.shape != given.shape:
                raise InputError(
                    f"{self._who} returned a multiplier of shape {tuple(m.shape)} for input {position} of shape "
                    f"{tuple(given.shape)}; they must be equal."
                )
        return read

    def _check_sums(self, step: Step, inputs: list[Term], multipliers: Sequence[Tensor]) -> None:
        """The handler must keep the sums, row by row where rows can be told, to the tolerance of the dtypes."""
        from .engine import TOLERANCE

        outputs = list(zip(multipliers, step.outputs, step.reference_outputs, strict=True))
        if not _finite(multipliers):
            return  # not the handler's doing
        if not _finite([m for m, _, _ in inputs]):
            raise NonFiniteError(f"{self._who} returned multipliers with NaN or infinite values.")
        dtypes = [t.dtype for t in (*step.inputs, *step.outputs) if t.dtype in TOLERANCE] or [torch.float64]
        tolerance, eps = max(TOLERANCE[d] for d in dtypes), max(torch.finfo(d).eps for d in dtypes)
        layouts = _rows_first([*inputs, *outputs], step.pairs.rows)
        gap, explained, wanted = min(_worst(terms, len(inputs), eps / tolerance) for terms in layouts)
        if not gap <= tolerance:
            rows = "one row" if len(layouts[0][0][0]) > 1 else "all rows"
            raise AdditivityError(
                f"{self._who} does not explain its own output: of {rows} its multipliers explain {explained:.6g} where the "
                f"output's explain {wanted:.6g}, a gap of {abs(explained - wanted):.3g}, {gap:.3g} of its scale (tolerance "
                f"{tolerance:.1g}). It must keep sum(m * (input - reference_input)) == sum(multiplier * (output - "
                "reference_output))."
            )


Term = tuple[Tensor, Tensor, Tensor]  # a multiplier, and the value that it belongs to on both sides


def _finite(values: Sequence[Tensor]) -> bool:
    return all(bool(torch.isfinite(v).all()) for v in values)


def _rows_first(terms: list[Term], rows: int) -> list[list[Term]]:
    """The terms with the rows on their first axis, in every way that the shapes allow; else all rows as one."""
    axes = [[k for k, size in enumerate(value.shape) if size == rows] for _, value, _ in terms]
    if rows == 1 or not 1 <= math.prod(map(len, axes)) <= 64:
        return [[(m.reshape(1, -1), v.reshape(1, -1), r.reshape(1, -1)) for m, v, r in terms]]
    return [
        [(m.movedim(k, 0), v.movedim(k, 0), r.movedim(k, 0)) for k, (m, v, r) in zip(layout, terms, strict=True)]
        for layout in product(*axes)
    ]


def _worst(terms: list[Term], inputs: int, rounding: float) -> tuple[float, float, float]:
    """The largest gap of a row, relative to its scale as in ``additivity_gap``, and both sums of that row."""

    def total(values: Iterable[Tensor]) -> Tensor:
        return sum((v.double().reshape(len(v), -1).sum(1) for v in values), zeros)

    zeros = torch.zeros(len(terms[-1][0]), dtype=torch.float64, device=terms[-1][0].device)
    differences = [inner(m, v - r) for m, v, r in terms]
    explained, wanted = total(differences[:inputs]), total(differences[inputs:])
    operands = total(m.abs() * (v.abs() + r.abs()) for m, v, r in terms)
    scale = total(d.abs() for d in differences[inputs:]) + 64 * rounding * operands + torch.finfo(torch.float32).tiny
    gaps = (explained - wanted).abs() / scale
    row = int(gaps.argmax())
    return float(gaps[row]), float(explained[row]), float(wanted[row])
