"""Print docs/supported-keras.md from the table: ``python tools/tensorflow_operations.py``."""

from __future__ import annotations

from operation_tables import listed

from deepshap.engines.tensorflow.operations import ELEMENTWISE, KINDS, Operation
from deepshap.engines.tensorflow.table import OPERATIONS

TITLES = {
    "constant": "Constant",
    "same": "Passed on",
    "linear": "Linear",
    "multilinear": "Products",
    "elementwise": "Elementwise",
    "quadratic": "Quadratic",
    "custom": "With a rule of their own",
    "composite": "Composed of smaller operations",
    "control": "Control flow",
    "variable": "Variables",
    "index": "Indices",
    "random": "Random",
}

INTRODUCTION = """\
<!-- Written by `python tools/tensorflow_operations.py`. Do not edit by hand. -->

# Supported operations of TensorFlow

This page lists the TensorFlow operations that deepshap explains, by kind of rule, for users who check a model in advance.
`deepshap check` lists the operations of your model. [Mathematics](mathematics.md) has the formulas.

deepshap traces a Keras model, or any function of TensorFlow tensors, into a graph, and explains each operation of the graph.
Layers need no rules. The names are those of the graph (`tf.raw_ops`); `BatchMatMul/V2/V3` stands for three of them.

An operation that is not listed raises an error if it depends on the explained input;
[Adding a rule](adding-a-rule.md) says what to do. Other operations need no rule.
"""


def document() -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for kind, title in TITLES.items():
        members = {name: o for name, o in sorted(OPERATIONS.items()) if o.kind == kind}
        explanation = KINDS[kind]
        parts += [f"## {title}\n", f"{explanation[0].upper()}{explanation[1:]}.\n", *_members(kind, members)]
    return "\n".join(parts)


def _members(kind: str, members: dict[str, Operation]) -> list[str]:
    if kind != ELEMENTWISE:
        return [listed(members)]
    closed = [name for name, o in members.items() if o.secant]
    return [
        "With a [secant in closed form](mathematics.md#functions-of-one-operand), for one varying operand:\n",
        listed(closed),
        "With the general secant, and for several varying operands the Shapley value of each:\n",
        listed(name for name in members if name not in closed),
    ]


if __name__ == "__main__":
    print(document(), end="")
