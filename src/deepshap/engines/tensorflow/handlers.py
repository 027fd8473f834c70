"""Layers that are treated as one operation: those with a registered rule or a handler.

Calls of such a layer are marked while the model is traced, and found again in the graph by these marks. A handler runs
outside of the graph. What handlers of Keras and of PyTorch share is in ``engines/handlers.py``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import InputError
from ...formulas.rules import Term
from ..handlers import HandlerRule, ModuleCall
from ..handlers import Handlers as AnyHandlers
from .operations import CUSTOM, Operation
from .pairing import OperationRecord, Value
from .preserve import in_session, replace_attribute
from .rules import mismatch

MARK = re.compile(r"deepshap_(enter|leave)_(\d+)(?:_\d+)?$")


@dataclass
class LayerCall:
    """One call of a marked layer.

    Attributes
    ----------
    layer, name : the layer and its qualified name.
    operation : its rule; None for the layer whose inputs are explained.
    form : the arguments and keywords of the call; tensors among them enter in order.
    """

    layer: Any
    name: str
    operation: Operation | None
    form: Any
    inside: tuple[Any, ...] = ()

    def call(self, tensors: Sequence[Any]) -> list[Any]:
        """Call the layer on other tensors and return its output tensors."""
        args, kwargs = self.filled(tensors)
        return [t for t in tf.nest.flatten(self.layer(*args, **kwargs)) if tf.is_tensor(t)]

    def filled(self, tensors: Sequence[Any]) -> Any:
        """Return arguments and keywords with other tensors in them."""
        replacements = iter(tensors)
        return tf.nest.map_structure(lambda v: next(replacements) if tf.is_tensor(v) else v, self.form)


def parse_mark(op: Any) -> tuple[bool, int] | None:
    """Return whether an operation marks the beginning (or the end) of a call, and the number of the call; None for others."""
    match = MARK.search(op.name) if op.type == "IdentityN" else None
    return (match[1] == "enter", int(match[2])) if match else None


@contextmanager
def mark_layers(layers: Mapping[Any, tuple[str, Operation | None]], layer_calls: list[LayerCall]) -> Iterator[None]:
    """Mark the calls of layers; each call is appended to ``layer_calls``."""
    restore: list[Callable[[], Any]] = []
    try:
        for layer, (name, operation) in layers.items():
            restore.append(replace_attribute(layer, "call", _marking(layer, layer.call, name, operation, layer_calls)))
        yield
    finally:
        for undo in restore:
            undo()


@contextmanager
def note_scopes(layers: Mapping[Any, str], scopes: dict[str, str]) -> Iterator[None]:
    """Note the name scopes in which layers are called, for messages: TensorFlow numbers the layers' names anew."""
    restore: list[Callable[[], Any]] = []
    try:
        for layer, name in layers.items():
            restore.append(replace_attribute(layer, "call", _noting(layer.call, name, scopes)))
        yield
    finally:
        for undo in restore:
            undo()


def _noting(call: Callable[..., Any], name: str, scopes: dict[str, str]) -> Callable[..., Any]:
    @functools.wraps(call)
    def noting(*args: Any, **kwargs: Any) -> Any:
        scope = tf.get_current_name_scope()
        if scope:
            scopes.setdefault(scope, name)
        return call(*args, **kwargs)

    return noting


def _marking(
    layer: Any, call: Callable[..., Any], name: str, operation: Operation | None, layer_calls: list[LayerCall]
) -> Callable[..., Any]:
    @functools.wraps(call)
    def marking(*args: Any, **kwargs: Any) -> Any:
        number = len(layer_calls)
        layer_call = LayerCall(layer, name, operation, (args, kwargs))
        layer_calls.append(layer_call)
        args, kwargs = layer_call.filled(_through(layer_call.form, f"deepshap_enter_{number}"))
        layer_call.inside = tuple(t for t in tf.nest.flatten((args, kwargs)) if tf.is_tensor(t))
        result = call(*args, **kwargs)
        if operation is None:
            return result
        left = iter(_through(result, f"deepshap_leave_{number}"))
        return tf.nest.map_structure(lambda v: next(left) if tf.is_tensor(v) else v, result)

    return marking


def _through(structure: Any, name: str) -> list[Any]:
    tensors = [t for t in tf.nest.flatten(structure) if tf.is_tensor(t)]
    if not tensors:
        raise InputError("a layer with a rule or handler of its own was called without a tensor.")
    return list(tf.identity_n(tensors, name=name))


class LayerRecord(OperationRecord):
    """The call of a layer, as a rule sees it."""

    def __init__(self, run: Any, layer_call: LayerCall, operands: Sequence[Value], results: Sequence[Value]) -> None:
        self.run, self.layer_call, self.operands, self.results = run, layer_call, list(operands), list(results)
        self.name, self.place = type(layer_call.layer).__name__, f"layer {layer_call.name!r}"
        self.varying = tuple(v.active for v in operands)

    def evaluate(self, *inputs: Any) -> Any:
        """Return the layer's output for varying inputs, or a list of several outputs."""
        results = self.linearised(*inputs)
        return results[0] if len(results) == 1 else results

    def linearised(self, *inputs: Any) -> list[Any]:
        """Return the layer's outputs."""
        cast = [tf.cast(t, v.x.dtype) for t, v in zip(self._filled(inputs), self.operands, strict=True)]
        return [self.run.floating(t) for t in self.layer_call.call(cast)]


# ---------------------------------------------------------------------- handlers
class Handlers(AnyHandlers):
    """The layers of one engine's model, and the handlers registered for them."""

    @property
    def names(self) -> dict[Any, str]:
        """Qualified name of every layer; "" is the model itself."""
        return dict(self.engine.layers)

    def apply(self) -> None:
        """Make each handled layer one operation; repeated for an engine that has a copy of the model."""
        self.engine.operations.clear()
        for layer, name in self.names.items():
            handler = self.handler_of(layer, name)
            if handler is not None:
                self.engine.operations[layer] = Operation(CUSTOM, LayerRule(handler, layer, name))
        self.engine.forget()


@dataclass(eq=False)
class LayerRule(HandlerRule):
    """Show a call to a handler, outside of the graph, and check what it returns.

    ``error`` holds what the handler raised; TensorFlow would pass on only its text.
    """

    mismatch = staticmethod(mismatch)
    error: BaseException | None = None

    @staticmethod
    def row_sums(values: np.ndarray) -> np.ndarray:
        """Return the sum of each row, in double precision."""
        return values.sum(1)

    def __call__(self, record: LayerRecord, *multipliers: Any) -> list[Any]:
        """Return the multipliers of the layer's varying inputs."""
        record.run.checks = True
        pairing = record.run.pairing
        operands = [pairing.spread(v) if v.active else (v.p, v.p) for v in record.operands]
        results = [pairing.spread(v) for v in record.results]
        sides = [*zip(*operands, strict=True), *zip(*results, strict=True)]
        flat = [t for side in sides for t in side] + list(multipliers)
        layer_call, varying = record.layer_call, record.varying

        def run(*values: Any) -> list[Any]:
            try:
                taken = iter(values)
                inputs, reference_inputs, outputs, reference_outputs = ([next(taken) for _ in side] for side in sides)
                with in_session():  # the handler may ask another explainer
                    return self._run(
                        layer_call, varying, inputs, reference_inputs, outputs, reference_outputs, list(taken)
                    )
            except BaseException as error:
                self.error = self.raised(error)
                raise

        dtypes = [t.dtype for t in record.inputs]
        returned = tf.py_function(
            lambda *v: [tf.cast(m, d) for m, d in zip(run(*v), dtypes, strict=True)], flat, dtypes
        )
        for tensor, like in zip(returned, record.inputs, strict=True):
            tensor.set_shape(like.shape)
        return list(returned)

    def _run(
        self,
        layer_call: LayerCall,
        varying: Sequence[bool],
        inputs: list[Any],
        reference_inputs: list[Any],
        outputs: list[Any],
        reference_outputs: list[Any],
        multipliers: list[Any],
    ) -> list[Any]:
        shown = [k for k, x in enumerate(inputs) if varying[k] or x.dtype.is_floating]
        args, kwargs = layer_call.filled(inputs)
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
        answered = [m if m is None else tf.convert_to_tensor(m) for m in self.read(self.handler(call), call)]
        read = [m for m, varies in zip(answered, call.varying, strict=True) if varies]
        pairs = [p for p, v in zip(zip(inputs, reference_inputs, strict=True), varying, strict=True) if v]
        self._check(
            [(m, *pair) for m, pair in zip(read, pairs, strict=True) if m is not None],
            list(zip(multipliers, outputs, reference_outputs, strict=True)),
        )
        return [tf.zeros(tf.shape(x)) if m is None else m for m, (x, _) in zip(read, pairs, strict=True)]

    def _check(self, inputs: list[Term], outputs: list[Term]) -> None:
        """Check that the handler keeps the sums, row by row if all values have their rows first."""
        terms = [*inputs, *outputs]
        rows = {m.shape[0] if m.shape.rank else 1 for m, _, _ in terms}
        count = rows.pop() if len(rows) == 1 else 1
        names = [v.dtype.name for _, v, _ in terms if v.dtype.is_floating]
        numbers = [(_numbers(m, count), _numbers(v, count), _numbers(r, count)) for m, v, r in terms]
        self.check_sums([numbers], len(inputs), names)


def _numbers(tensor: Any, rows: int) -> np.ndarray:
    """Return a tensor in double precision, rows first."""
    array = np.asarray(tensor)
    return array.astype(complex if array.dtype.kind == "c" else float).reshape(rows, -1)
