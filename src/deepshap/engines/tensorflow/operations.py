"""What an operation is. The table of all of them is in ``table.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ...formulas.secants import Secant
from ...formulas.traced import create_operation
from ..operation_record import Rule

CONSTANT = "constant"
IDENTITY = "same"
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
    IDENTITY: "passes its inputs on as they are, gradients or not",
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


@dataclass(frozen=True)
class Operation:
    """A line of the table.

    Attributes
    ----------
    kind : one of ``KINDS``.
    rule : maps ``(step, *output multipliers)`` to multipliers of the varying inputs (custom operations).
    secant : maps ``(x, r, y, y_r)`` to the slope (elementwise operations with a closed form).
    function : maps ``(tracer, op, inputs, tape)`` to outputs (composites and control flow).
    positions : which of its outputs are indices, chosen by values, that users may refuse to differ.
    """

    kind: str
    rule: Rule | None = None
    secant: Secant | None = None
    function: Callable[..., Any] | None = None
    positions: tuple[int, ...] = ()


DATA = ("T", "Tparams", "dtype", "SrcT", "Treal", "Tcomplex")  # type attributes of what operations compute with


POSITIONS = "positions"  # under which users refuse that positions differ
USER_OPERATIONS: dict[Any, Operation] = {}


def is_registered(operation: Operation) -> bool:
    """Return whether users have registered an operation."""
    return any(operation is registered for registered in USER_OPERATIONS.values())


LOOPS = "While", "StatelessWhile"

SIZES = {
    "OneHot": (1,),
    "DenseBincount": (1,),
    "ScatterNd": (2,),
    "UnsortedSegmentSum": (2,),
}  # operands that are sizes


def fixed_operands(op: Any) -> list[bool]:
    """Return for each input whether it says where or how (shapes, axes, indices), and not what to compute with."""
    if op.type in SIZES:
        return [position in SIZES[op.type] for position in range(len(op.inputs))]
    return [
        not a.type_list_attr and a.type_attr not in DATA and not t.dtype.is_floating
        for a, t in zip(arguments(op), op.inputs, strict=True)
    ]


def arguments(op: Any) -> list[Any]:
    """Return for each input the argument in the operation's definition; an argument may be several inputs."""
    per_input = []
    for argument in op.op_def.input_arg:
        number = op.get_attr(argument.number_attr) if argument.number_attr else 1
        per_input += [argument] * (len(op.get_attr(argument.type_list_attr)) if argument.type_list_attr else number)
    return per_input


# ---------------------------------------------------------------------- emitting
def emit(op: Any, inputs: Sequence[Any], retyped: bool = False) -> list[Any]:
    """Run an operation of a traced graph on other inputs; ``retyped`` if their dtypes differ from its own."""
    attributes = {k: v for k, v in op.node_def.attr.items() if not k.startswith("_")}
    if retyped:
        inputs = _retype(op, list(inputs), attributes)
    outputs = create_operation(op.type, inputs, attributes)
    for output, original in zip(outputs, op.outputs, strict=True):
        if output.shape.rank is None:  # TensorFlow's Python code knows more than the operation itself
            output.set_shape(original.shape)
    return outputs


def _retype(op: Any, inputs: list[Any], attributes: dict[str, Any]) -> list[Any]:
    """Set the type attributes to the dtypes of the inputs, and cast the inputs that share them."""
    typed = [argument.type_attr for argument in arguments(op)]
    wanted: dict[str, Any] = {}
    for name, x in zip(typed, inputs, strict=True):
        if name and x.dtype != op.get_attr(name):
            wanted.setdefault(name, x.dtype)
    attributes |= {name: type(attributes[name])(type=dtype.as_datatype_enum) for name, dtype in wanted.items()}
    return [tf.cast(x, wanted[name]) if name in wanted else x for name, x in zip(typed, inputs, strict=True)]
