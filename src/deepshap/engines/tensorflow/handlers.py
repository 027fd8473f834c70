"""Handlers of Keras' layers; what they have in common with those of PyTorch is in ``engines/handlers.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ...formulas.rules import Term
from ..handlers import HandlerRule, ModuleCall
from ..handlers import Handlers as AnyHandlers
from .operations import CUSTOM, Operation
from .regions import Region, RegionStep
from .rules import misfit
from .state import in_session


class Handlers(AnyHandlers):
    """The layers of one engine's model, and the handlers registered for them."""

    @property
    def names(self) -> dict[Any, str]:
        """Qualified name of every layer; "" is the model itself."""
        return dict(self.engine.layers)

    def apply(self) -> None:
        """Make each handled layer one operation; once more for an engine that has a copy of the model."""
        self.engine.operations.clear()
        for layer, name in self.names.items():
            handler = self.handler_of(layer, name)
            if handler is not None:
                self.engine.operations[layer] = Operation(CUSTOM, LayerRule(handler, layer, name))
        self.engine.forget()


@dataclass(eq=False)
class LayerRule(HandlerRule):
    """Shows a call to a handler, outside of the graph, and checks what comes back.

    ``error`` holds what the handler raised, which TensorFlow would pass on as text only.
    """

    misfit = staticmethod(misfit)
    error: BaseException | None = None

    @staticmethod
    def row_sums(values: np.ndarray) -> np.ndarray:
        """The sum of each row, in double precision."""
        return values.sum(1)

    def __call__(self, record: RegionStep, *multipliers: Any) -> list[Any]:
        """Multipliers of the layer's varying inputs."""
        record.run.checks = True
        pairing = record.run.pairing
        given = [pairing.spread(v) if v.active else (v.p, v.p) for v in record.operands]
        made = [pairing.spread(v) for v in record.results]
        sides = [*zip(*given, strict=True), *zip(*made, strict=True)]
        flat = [t for side in sides for t in side] + list(multipliers)
        region, varying = record.region, record.varying

        def run(*values: Any) -> list[Any]:
            try:
                taken = iter(values)
                inputs, reference_inputs, outputs, reference_outputs = ([next(taken) for _ in side] for side in sides)
                with in_session():  # the handler may ask another explainer
                    return self._run(region, varying, inputs, reference_inputs, outputs, reference_outputs, list(taken))
            except BaseException as error:
                self.error = self.raised(error)
                raise

        dtypes = [t.dtype for t in record.inputs]
        found = tf.py_function(lambda *v: [tf.cast(m, d) for m, d in zip(run(*v), dtypes, strict=True)], flat, dtypes)
        for tensor, like in zip(found, record.inputs, strict=True):
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
            self.module,
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
        found = [m if m is None else tf.convert_to_tensor(m) for m in self.read(self.handler(call), call)]
        read = [m for m, varies in zip(found, call.varying, strict=True) if varies]
        pairs = [p for p, v in zip(zip(inputs, reference_inputs, strict=True), varying, strict=True) if v]
        self._check(
            [(m, *pair) for m, pair in zip(read, pairs, strict=True) if m is not None],
            list(zip(multipliers, outputs, reference_outputs, strict=True)),
        )
        return [tf.zeros(tf.shape(x)) if m is None else m for m, (x, _) in zip(read, pairs, strict=True)]

    def _check(self, inputs: list[Term], outputs: list[Term]) -> None:
        """The handler must keep the sums, row by row where all values have their rows first."""
        terms = [*inputs, *outputs]
        rows = {m.shape[0] if m.shape.rank else 1 for m, _, _ in terms}
        count = rows.pop() if len(rows) == 1 else 1
        names = [v.dtype.name for _, v, _ in terms if v.dtype.is_floating]
        numbers = [(_numbers(m, count), _numbers(v, count), _numbers(r, count)) for m, v, r in terms]
        self.check_sums([numbers], len(inputs), names)


def _numbers(tensor: Any, rows: int) -> np.ndarray:
    """In double precision, rows first."""
    array = np.asarray(tensor)
    return array.astype(complex if array.dtype.kind == "c" else float).reshape(rows, -1)
