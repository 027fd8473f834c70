"""Print docs/supported-keras.md from the table: ``python tools/tensorflow_operations.py``."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from deepshap.engines.tensorflow.operations import COMPOSITE, CONTROL, CUSTOM, ELEMENTWISE, KINDS, VARIABLE, Operation
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

`deepshap` traces a Keras model, or any function of TensorFlow's tensors, into a graph, and explains the graph operation by
operation. Layers need no rules, because the operations that they are made of have them. This page lists the operations, by
kind and by the types that they have in a graph (`tf.raw_ops`). The formulas are in [mathematics.md](mathematics.md). An
operation that is not listed here and depends on the explained input stops the explanation with an error, which names all
such operations and their layers; `deepshap.register_rule("Type", rule)` adds a rule. An operation that does not depend on
the explained input needs none.
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
    if kind == ELEMENTWISE:
        closed = {name: o.secant for name, o in members.items() if o.secant}
        return [
            "With a secant in closed form:\n",
            _table(("Operation", "Secant slope between x and r, with values y and y_r"), closed),
            "With the general secant, and for several varying operands the Shapley share of each:\n",
            _listed(name for name in members if name not in closed),
        ]
    if kind in (CUSTOM, COMPOSITE, CONTROL, VARIABLE):
        return [_table(("Operation", "How"), {name: o.rule or o.function for name, o in members.items()})]
    return [_listed(members)]


def _listed(words: Any) -> str:
    text = ", ".join(f"`{word}`" for word in words)
    return textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False) + "\n"


def _table(head: tuple[str, str], rows: dict[str, Any]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    lines += [f"| `{name}` | {_summary(function)} |" for name, function in rows.items()]
    return "\n".join(lines) + "\n"


def _summary(function: Any) -> str:
    """Return the first line of a docstring; of the builder's, where a function was built by another."""
    builder = getattr(function, "__qualname__", "").partition(".<locals>")[0]
    text = function.__doc__ or getattr(inspect.getmodule(function), builder, function).__doc__ or ""
    line = text.strip().partition("\n")[0].replace("|", "\\|").removeprefix("Build the ")
    return line[:1].upper() + line[1:]


if __name__ == "__main__":
    print(document(), end="")
