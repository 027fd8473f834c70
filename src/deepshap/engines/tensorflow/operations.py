"""What an operation is, and what its rule gets to see. The table of all of them is in ``table.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ...errors import UnsupportedOperationError
from ...mathematics.secants import Secant
from ..steps import Rule

if TYPE_CHECKING:
    from .pairing import Layout
    from .trace import Walk

CONSTANT = "constant"
SAME = "same"
LINEAR = "linear"
MULTILINEAR = "multilinear"
ELEMENTWISE = "elementwise"
QUADRATIC = "quadratic"
SMOOTH = "smooth"
CUSTOM = "custom"
COMPOSITE = "composite"
CONTROL = "control"
VARIABLE = "variable"
INDEX = "index"
RANDOM = "random"

KINDS = {
    CONSTANT: "does not depend on the values of its inputs (shapes, `ZerosLike`)",
    SAME: "passes its inputs on as they are, gradients or not",
    LINEAR: "affine in all its varying inputs together: the ordinary gradient",
    MULTILINEAR: "affine in each of its varying inputs: the gradient at the midpoint (half-split of products)",
    ELEMENTWISE: "rescale rule: the secant slope of each element (two-player Shapley for two operands)",
    QUADRATIC: "of second degree in its inputs: the gradient at the midpoint",
    SMOOTH: "path integral of the gradient along the segment from reference to example",
    CUSTOM: "a rule of its own",
    COMPOSITE: "composed of smaller operations, each with its own rule",
    CONTROL: "functions, loops, branches and lists of tensors: followed into their parts",
    VARIABLE: "reads a variable, or writes it: writing is noted for later reads and not carried out",
    INDEX: "yields indices; their use is an error where they differ between example and reference",
    RANDOM: "random: refused where it meets the signal, since example and reference must see the same function",
}


@dataclass(eq=False)
class Value:
    """A tensor of the model on both sides of the pairs.

    Attributes
    ----------
    x, r : on the example side and on the reference side; one and the same tensor where they cannot differ.
    active : whether it depends on the explained inputs.
    p : of a constant: what it is when the model runs on all pairs; ``x`` by default.
    layout : of an active value: where the rows lie in ``x`` and ``r``, if that is known.
    origin : of indices that may differ between the sides: where they come from.
    """

    x: Any
    r: Any
    active: bool = False
    p: Any = None
    layout: Layout | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        self.p = self.x if self.p is None else self.p

    @property
    def is_list(self) -> bool:
        """Whether it is a list of tensors."""
        return self.x.dtype == tf.variant


@dataclass(frozen=True)
class Operation:
    """A line of the table.

    Attributes
    ----------
    kind : one of ``KINDS``.
    rule : maps ``(step, *output multipliers)`` to multipliers of the varying inputs (custom operations).
    secant : maps ``(x, r, y, y_r)`` to the slope (elementwise operations with a closed form).
    function : maps ``(walk, op, inputs, tape)`` to outputs (composites and control flow).
    positions : which of its outputs are indices.
    """

    kind: str
    rule: Rule | None = None
    secant: Secant | None = None
    function: Callable[..., Any] | None = None
    positions: tuple[int, ...] = ()


class Step:
    """One operation of the model on the pairs, as its rule sees it.

    Attributes
    ----------
    op : the operation in the traced graph; ``op.get_attr`` has its attributes.
    name : type of the operation, as in docs/supported-keras.md.
    place : the layer it belongs to.
    varying : of each operand, whether it depends on what is explained.
    """

    def __init__(self, walk: Walk, op: Any, operands: Sequence[Value], results: Sequence[Value]) -> None:
        self.walk, self.op, self.operands, self.results = walk, op, list(operands), list(results)
        self.name, self.place = op.type, walk.place(op)
        self.varying = tuple(v.active for v in operands)

    @cached_property
    def _spread(self) -> tuple[list[tuple[Any, Any]], list[tuple[Any, Any]]]:
        pairing, floating = self.walk.pairing, self.walk.floating
        groups = [v for v in self.operands if v.active], self.results
        inputs, outputs = ([tuple(map(floating, pairing.spread(v))) for v in group] for group in groups)
        return inputs, outputs

    @property
    def inputs(self) -> tuple[Any, ...]:
        """Varying operands on the example side, row by row of the pairs, integers and booleans as floats."""
        return tuple(x for x, _ in self._spread[0])

    @property
    def reference_inputs(self) -> tuple[Any, ...]:
        """The same on the reference side."""
        return tuple(r for _, r in self._spread[0])

    @property
    def outputs(self) -> tuple[Any, ...]:
        """Results on the example side."""
        return tuple(y for y, _ in self._spread[1])

    @property
    def reference_outputs(self) -> tuple[Any, ...]:
        """Results on the reference side."""
        return tuple(yr for _, yr in self._spread[1])

    def sides(self) -> list[tuple[Any, Any]]:
        """Both sides of every operand, floats; a constant is the same on both."""
        varying = iter(self._spread[0])
        constants = (self.walk.floating(v.p) for v in self.operands)
        return [next(varying) if v.active else (c, c) for v, c in zip(self.operands, constants, strict=True)]

    def static(self, k: int) -> Any:
        """The value of a constant operand that is known while tracing, as an array; else None."""
        return tf.get_static_value(self.operands[k].p)

    def points(self) -> list[Any]:
        """Tensors of the shapes of the varying operands, whose values do not matter."""
        return [self.walk.pairing.blank(v, self.walk.float_of(v)) for v in self.operands if v.active]

    def _filled(self, inputs: Sequence[Any]) -> list[Any]:
        given = iter(inputs)
        return [next(given) if v.active else v.p for v in self.operands]

    def evaluate(self, *inputs: Any) -> Any:
        """The operation as a function of its varying inputs alone; its output, or a list of several."""
        cast = [tf.cast(t, v.x.dtype) for t, v in zip(self._filled(inputs), self.operands, strict=True)]
        floats = [self.walk.floating(r) for r in self.walk.emit(self.op, cast)]
        return floats[0] if len(floats) == 1 else floats

    def linearised(self, *inputs: Any) -> list[Any]:
        """As ``evaluate``, computed in floats throughout, so that gradients reach the inputs."""
        return self.walk.emit(self.op, self._filled(inputs), retyped=True)

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
        made = self.results[0].layout
        if (
            made is not None
            and operand.layout is not None
            and made.shape == operand.layout.shape
            and None not in made.shape
        ):
            return multiplier
        wanted, given = operand.x.shape, multiplier.shape
        if wanted.is_fully_defined() and given.is_fully_defined() and wanted == given:
            return multiplier
        shape = self.walk.pairing.shape(operand)
        _, axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(multiplier), s1=shape)
        return tf.reshape(tf.reduce_sum(multiplier, axes), shape)


DATA = ("T", "Tparams", "dtype", "SrcT", "Treal", "Tcomplex")  # type attributes of what operations compute with


SIZES = {"OneHot": (1,), "DenseBincount": (1,)}  # operands that are sizes, of operations that look at ids


def places(op: Any) -> list[bool]:
    """Of each input, whether it says where or how (shapes, axes, indices), and not what to compute with."""
    found: list[bool] = []
    for argument in op.op_def.input_arg:
        number = op.get_attr(argument.number_attr) if argument.number_attr else 1
        number = len(op.get_attr(argument.type_list_attr)) if argument.type_list_attr else number
        fixed = not argument.type_attr and not argument.type_list_attr
        found += [fixed or bool(argument.type_attr and argument.type_attr not in DATA)] * number
    if op.type in SIZES:
        return [position in SIZES[op.type] for position in range(len(found))]
    return [where and not t.dtype.is_floating for where, t in zip(found, op.inputs, strict=True)]
