"""Handlers: a user's own treatment of a whole layer of one Keras model, checked at every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from ..errors import AdditivityError, DeepShapError, InputError, NonFiniteError
from . import secants
from .operations import CUSTOM, Operation
from .regions import Region, RegionStep

if TYPE_CHECKING:
    from .engine import KerasEngine


@dataclass(frozen=True)
class ModuleCall:
    """One call of one layer, example beside reference, row by row; as ``deepshap.ModuleCall``, with TensorFlow's tensors.

    Attributes
    ----------
    module : the layer.
    name : its qualified name in the model.
    inputs, reference_inputs : its float inputs on both sides, and others that depend on what is explained. Inputs that do
        not depend on it are the same on both sides.
    varying : of each input, whether it depends on what is explained.
    outputs, reference_outputs : its outputs on both sides.
    multipliers : of each output, how much of the explained output one unit of it explains; of the output's shape.
    arguments, keywords : the call as the model makes it, on the example side.
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


Handler = Callable[[ModuleCall], Any]


@dataclass
class Handlers:
    """The layers of one engine's model, and the handlers registered for them."""

    engine: KerasEngine
    registered: dict[str | type, Handler] = field(default_factory=dict)

    @property
    def names(self) -> dict[Any, str]:
        """Qualified name of every layer; "" is the model itself."""
        return self.engine.layers

    def register(self, layer: str | type, handler: Handler) -> None:
        """Use a handler for a layer, or for all layers of a type."""
        if not callable(handler) or isinstance(handler, type):
            kind = f"the class {handler.__name__}" if isinstance(handler, type) else f"a {type(handler).__name__}"
            raise InputError(f"a handler is a function of one ModuleCall, or an object with __call__, not {kind}.")
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
        elif not any(isinstance(one, layer) for one in self.names):
            types = sorted({type(one).__name__ for one in self.names})
            raise InputError(f"the model has no layer of type {layer.__name__}; it has {', '.join(types) or 'none'}.")

    def _apply(self) -> None:
        """Make each handled layer one operation."""
        self.engine.operations.clear()
        for layer, name in self.names.items():
            keys = (name, *type(layer).__mro__)
            handler = next((self.registered[key] for key in keys if key in self.registered), None)
            if handler is not None:
                self.engine.operations[layer] = Operation(CUSTOM, HandlerRule(handler, layer, name))


def _spelled(layer: Any) -> str:
    return layer.__name__ if isinstance(layer, type) else repr(layer)


@dataclass(eq=False)
class HandlerRule:
    """Shows a call to a handler, outside of the graph, and checks what comes back.

    ``error`` holds what the handler raised, which TensorFlow would pass on as text only.
    """

    handler: Handler
    layer: Any
    name: str
    error: Exception | None = None

    def __call__(self, step: RegionStep, *multipliers: Any) -> list[Any]:
        """Multipliers of the layer's varying inputs."""
        step.walk.checks = True
        pairing = step.walk.pairing
        given = [pairing.spread(v) if v.active else (v.p, v.p) for v in step.operands]
        made = [pairing.spread(v) for v in step.results]
        sides = [*zip(*given, strict=True), *zip(*made, strict=True)]
        flat = [t for side in sides for t in side] + list(multipliers)
        region, varying = step.region, step.varying

        def run(*values: Any) -> list[Any]:
            try:
                taken = iter(values)
                inputs, reference_inputs, outputs, reference_outputs = ([next(taken) for _ in side] for side in sides)
                return self._run(region, varying, inputs, reference_inputs, outputs, reference_outputs, list(taken))
            except Exception as error:
                self.error = error if isinstance(error, DeepShapError) else self._raised(error)
                raise

        dtypes = [t.dtype for t in step.inputs]
        found = tf.py_function(lambda *v: [tf.cast(m, d) for m, d in zip(run(*v), dtypes, strict=True)], flat, dtypes)
        for tensor, like in zip(found, step.inputs, strict=True):
            tensor.set_shape(like.shape)
        return list(found)

    def _run(
        self,
        region: Region,
        varying: Sequence[bool],
        inputs: list[Any],
        reference_inputs: list[Any],
        outputs: list[Any],
        reference_outputs: list[Any],
        multipliers: list[Any],
    ) -> list[Any]:
        shown = [k for k, x in enumerate(inputs) if varying[k] or x.dtype.is_floating]
        args, kwargs = region.filled(inputs)
        call = ModuleCall(
            self.layer,
            self.name,
            tuple(inputs[k] for k in shown),
            tuple(reference_inputs[k] for k in shown),
            tuple(varying[k] for k in shown),
            tuple(outputs),
            tuple(reference_outputs),
            tuple(multipliers),
            args,
            kwargs,
        )
        read = [m for m, varies in zip(self._read(self.handler(call), call), call.varying, strict=True) if varies]
        pairs = [p for p, v in zip(zip(inputs, reference_inputs, strict=True), varying, strict=True) if v]
        self._check_sums(
            [(m, *pair) for m, pair in zip(read, pairs, strict=True) if m is not None],
            list(zip(multipliers, outputs, reference_outputs, strict=True)),
        )
        return [tf.zeros(tf.shape(x)) if m is None else m for m, (x, _) in zip(read, pairs, strict=True)]

    @property
    def _who(self) -> str:
        kind = getattr(self.handler, "__name__", type(self.handler).__name__)
        return f"the handler {kind} of layer {self.name!r} ({type(self.layer).__name__})"

    def _raised(self, error: Exception) -> DeepShapError:
        return DeepShapError(f"{self._who} raised {type(error).__name__}: {error}")

    def _read(self, result: Any, call: ModuleCall) -> list[Any]:
        """One multiplier per input, each of its input's shape."""
        read = list(result) if isinstance(result, (tuple, list)) else [result]
        if len(read) == sum(call.varying) < len(call.varying):  # those of the varying inputs alone
            rest = iter(read)
            read = [next(rest) if varies else None for varies in call.varying]
        if len(read) != len(call.inputs):
            shapes = ", ".join(str(tuple(i.shape)) for i in call.inputs)
            raise InputError(
                f"{self._who} returned {len(read)} multipliers; it must return one per input (None for no influence), for "
                f"inputs of shapes {shapes}."
            )
        for position, (m, given) in enumerate(zip(read, call.inputs, strict=True)):
            if m is None:
                continue
            if not isinstance(m, (tf.Tensor, np.ndarray)):
                raise InputError(
                    f"{self._who} returned {type(m).__name__} for input {position}; a multiplier is a tensor or None."
                )
            if tuple(m.shape) != tuple(given.shape):
                raise InputError(
                    f"{self._who} returned a multiplier of shape {tuple(m.shape)} for input {position} of shape "
                    f"{tuple(given.shape)}; they must be equal."
                )
        return [m if m is None else tf.convert_to_tensor(m) for m in read]

    def _check_sums(self, inputs: list[Any], outputs: list[Any]) -> None:
        """The handler must keep the sums, row by row where all values have their rows first."""
        from .engine import TOLERANCE

        if not all(np.isfinite(m).all() for m, _, _ in outputs):
            return  # not the handler's doing
        if not all(np.isfinite(m).all() for m, _, _ in inputs):
            raise NonFiniteError(f"{self._who} returned multipliers with NaN or infinite values.")
        dtypes = [v.dtype for _, v, _ in (*inputs, *outputs) if v.dtype in TOLERANCE] or [tf.float64]
        tolerance, eps = max(TOLERANCE[d] for d in dtypes), max(map(secants.eps, dtypes))
        rows = {m.shape[0] if m.shape.rank else 1 for m, _, _ in (*inputs, *outputs)}
        count = rows.pop() if len(rows) == 1 else 1
        terms = [[_numbers(v, count) for v in term] for term in (*inputs, *outputs)]
        differences = [(m * (v - r)).sum(1) for m, v, r in terms]
        explained, wanted = (
            sum(part, np.zeros(count)) for part in (differences[: len(inputs)], differences[len(inputs) :])
        )
        size = sum((np.abs(m) * (np.abs(v) + np.abs(r))).sum(1) for m, v, r in terms)
        scale = sum((np.abs(d) for d in differences[len(inputs) :]), np.zeros(count)) + 64 * eps / tolerance * size
        gaps = np.abs(explained - wanted) / (scale + np.finfo(np.float32).tiny)
        row = int(np.argmax(gaps))
        if not gaps[row] <= tolerance:
            raise AdditivityError(
                f"{self._who} does not explain its own output: of {'one row' if count > 1 else 'all rows'} its multipliers "
                f"explain {explained[row]:.6g} where the output's explain {wanted[row]:.6g}, a gap of "
                f"{abs(explained[row] - wanted[row]):.3g}, {gaps[row]:.3g} of its scale (tolerance {tolerance:.1g}). It must "
                "keep sum(m * (input - reference_input)) == sum(multiplier * (output - reference_output))."
            )


def _numbers(tensor: Any, rows: int) -> np.ndarray:
    return np.asarray(tensor).astype(np.float64).reshape(rows, -1)
