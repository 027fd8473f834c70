"""One operation of the model on the pairs, as its rule sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

import tensorflow as tf

from ...errors import UnsupportedOperationError
from .pairing import Pairing
from .values import Value


class Run(Protocol):
    """What a step asks of the run that it belongs to."""

    pairing: Pairing
    checks: bool
    has_kernels: bool

    def floating(self, tensor: Any) -> Any:
        """Integers and booleans as floats."""

    def float_of(self, value: Value) -> tf.DType:
        """Dtype of a value's multipliers."""

    def place(self, op: Any) -> str:
        """The layer of an operation."""

    def emit(self, op: Any, inputs: Sequence[Any], retyped: bool = False) -> list[Any]:
        """Run an operation on other inputs; ``retyped`` where their dtypes differ from its own."""


class OperationRecord:
    """One operation of the model on the pairs, as its rule sees it.

    Attributes
    ----------
    op : the operation in the traced graph; ``op.get_attr`` has its attributes.
    name : type of the operation, as in docs/supported-keras.md.
    place : the layer it belongs to.
    varying : of each operand, whether it depends on what is explained.
    """

    def __init__(self, run: Run, op: Any, operands: Sequence[Value], results: Sequence[Value]) -> None:
        self.run, self.op, self.operands, self.results = run, op, list(operands), list(results)
        self.name, self.place = op.type, run.place(op)
        self.varying = tuple(v.active for v in operands)

    @cached_property
    def _inputs(self) -> list[tuple[Any, ...]]:
        return [self._spread(v) for v in self.operands if v.active]

    @cached_property
    def _outputs(self) -> list[tuple[Any, ...]]:
        return [self._spread(v) for v in self.results]

    def _spread(self, value: Value) -> tuple[Any, ...]:
        return tuple(map(self.run.floating, self.run.pairing.spread(value)))

    @property
    def inputs(self) -> tuple[Any, ...]:
        """Varying operands on the example side, row by row of the pairs, integers and booleans as floats."""
        return tuple(x for x, _ in self._inputs)

    @property
    def reference_inputs(self) -> tuple[Any, ...]:
        """The same on the reference side."""
        return tuple(r for _, r in self._inputs)

    @property
    def outputs(self) -> tuple[Any, ...]:
        """Results on the example side."""
        return tuple(y for y, _ in self._outputs)

    @property
    def reference_outputs(self) -> tuple[Any, ...]:
        """Results on the reference side."""
        return tuple(yr for _, yr in self._outputs)

    def sides(self) -> list[tuple[Any, Any]]:
        """Both sides of every operand, floats; a constant is the same on both."""
        varying = iter(self._inputs)
        constants = (self.run.floating(v.p) for v in self.operands)
        return [next(varying) if v.active else (c, c) for v, c in zip(self.operands, constants, strict=True)]

    def static(self, k: int) -> Any:
        """The value of a constant operand that is known while tracing, as an array; else None."""
        return tf.get_static_value(self.operands[k].p)

    def points(self) -> list[Any]:
        """Tensors of the shapes of the varying operands, whose values do not matter."""
        return [self.run.pairing.blank(v, self.run.float_of(v)) for v in self.operands if v.active]

    def _filled(self, inputs: Sequence[Any]) -> list[Any]:
        given = iter(inputs)
        return [next(given) if v.active else v.p for v in self.operands]

    def evaluate(self, *inputs: Any) -> Any:
        """The operation as a function of its varying inputs alone; its output, or a list of several."""
        cast = [tf.cast(t, v.x.dtype) for t, v in zip(self._filled(inputs), self.operands, strict=True)]
        floats = [self.run.floating(r) for r in self.run.emit(self.op, cast)]
        return floats[0] if len(floats) == 1 else floats

    def linearised(self, *inputs: Any) -> list[Any]:
        """As ``evaluate``, computed in floats throughout, so that gradients reach the inputs."""
        return self.run.emit(self.op, self._filled(inputs), retyped=True)

    def vjp(self, points: Sequence[Any], multipliers: Sequence[Any]) -> list[Any]:
        """The gradient at some points, from the multipliers of the outputs, of those that have one."""
        pairs = zip(self.linearised(*points), multipliers, strict=True)
        reached = [(v, tf.cast(m, v.dtype)) for v, m in pairs if m is not None]
        try:
            gradients = tf.gradients([v for v, _ in reached], points, [m for _, m in reached])
        except LookupError as error:
            raise UnsupportedOperationError(
                f"the rule of {self.name} in {self.place} asks for its derivative, and TensorFlow has none ({error}). Register "
                'it as "elementwise", or with a rule of its own.'
            ) from error
        return [None if g is None else tf.convert_to_tensor(g) for g in gradients]

    def shares(self, *multipliers: Any) -> list[Any]:
        """Of the multipliers of all operands, keep those of the varying ones, summed over broadcast axes."""
        return self.unbroadcast([m for m, v in zip(multipliers, self.operands, strict=False) if v.active])

    def unbroadcast(self, multipliers: Sequence[Any]) -> list[Any]:
        """Sum multipliers of the varying operands over the axes along which they were broadcast."""
        varying = [v for v in self.operands if v.active]
        single = len(self.operands) == 1
        return [m if single else self._unbroadcast(m, v) for m, v in zip(multipliers, varying, strict=True)]

    def _unbroadcast(self, multiplier: Any, operand: Value) -> Any:
        made, own = self.results[0].layout, operand.layout
        if made and own and None not in (made.numbers, own.numbers) and multiplier.shape.rank == len(made.shape):
            return _summed(multiplier, made.static, own.static, lambda: self.run.pairing.shape(operand))
        wanted, given = operand.x.shape, multiplier.shape
        if wanted.is_fully_defined() and given.is_fully_defined() and wanted == given:
            return multiplier
        shape = self.run.pairing.shape(operand)
        _, axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(multiplier), s1=shape)
        return tf.reshape(tf.reduce_sum(multiplier, axes), shape)


def _summed(tensor: Any, made: Sequence[Any], own: Sequence[Any], shape: Callable[[], Any]) -> Any:
    """A tensor summed over the axes along which a shape was broadcast to another one; None are the rows."""
    missing = len(made) - len(own)
    axes = [k for k, size in enumerate(made) if k < missing or size != own[k - missing]]
    return tf.reshape(tf.reduce_sum(tensor, axes), shape()) if axes else tensor
