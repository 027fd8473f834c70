"""Print docs/supported-operations.md from the table: ``python tools/torch_operations.py``."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from operation_tables import listed, summary, table
from torch import nn

from deepshap.engines.torch import names
from deepshap.engines.torch.operations import COMPOSITE, CONSTANT, ELEMENTWISE, KINDS, LINEAR, RANDOM, Operation
from deepshap.engines.torch.table import OPERATIONS

# Shortcuts inside torch's modules, switched off while a model is explained (state.py).
FUSED = {"_transformer_encoder_layer_fwd", "_native_multi_head_attention"}

ATEN, FOREACH = "aten.", "_foreach_"

TITLES = {
    "constant": "Constant",
    "linear": "Linear",
    "multilinear": "Products",
    "elementwise": "Elementwise",
    "quadratic": "Quadratic",
    "smooth": "Smooth",
    "composite": "Composite",
    "custom": "With a rule of their own",
    "cast": "Conversions",
    "value": "Leaving torch",
    "index": "Indices",
    "random": "Random",
}

INTRODUCTION = """\
<!-- Written by `python tools/torch_operations.py`. Do not edit by hand. -->

# Supported operations

This page lists the PyTorch operations that deepshap explains, by kind of rule, for users who check a model in advance.
`deepshap check` lists the operations of your model. [Mathematics](mathematics.md) has the formulas.

An operation that is not listed raises an error if it depends on the explained input;
[Adding a rule](adding-a-rule.md) says what to do. An operation on constants needs no rule.
"""

SPELLINGS = """\
## Spellings

Each name below stands for all its spellings in torch:

| Spelling | Example |
| --- | --- |
| function of `torch`, `torch.nn.functional`, `torch.special`, `torch.linalg`, `torch.fft` | `F.tanh(x)`, `torch.linalg.norm(x)` |
| method of a tensor, also in place | `x.tanh()`, `x.tanh_()` |
| operator | `a + b`, `a @ b`, `a += b`, `a > b`, `x[i]` |
| ATen operator of an exported program | `torch.ops.aten.tanh.default(x)` |

`conv1d/2d/3d` stands for `conv1d`, `conv2d` and `conv3d`. Other names:
"""

VARIANTS = """\
## Variants

{exported} operations that only exported programs call (`torch.ops.aten`, such as `{example}`) have the same rules. So do {lists}
`torch._foreach_` functions, which apply an operation to each tensor of a list.
"""

RECURRENT = """\
## Recurrent layers

A recurrent layer is one operation with the exact recursion of its [cell](mathematics.md#recurrent-cells). Layers may be stacked,
bidirectional, without biases, or projected (`proj_size`), with any initial state and padded or packed input. Their weights
must not depend on the explained input.
"""

MODULES = """\
## Modules

A module needs no rule of its own. In torch {version}, {number} classes of `torch.nn` call only operations of this page. Some of
their options may still raise an error. Losses need `reduction="none"`, because averages over the batch mix the rows.

These classes call other operations, at least with some of their options:
"""


def document() -> str:
    """Return the page."""
    parts = [INTRODUCTION, SPELLINGS, _aliases()]
    for kind, explanation in KINDS.items():
        members = {name: operation for name, operation in sorted(OPERATIONS.items()) if operation.kind == kind}
        members = {name: o for name, o in members.items() if not (o.recurrent or name.startswith((ATEN, FOREACH)))}
        if members:
            parts += [f"## {TITLES[kind]}\n", f"{explanation[0].upper()}{explanation[1:]}.\n", *_members(kind, members)]
    exported = [name.removeprefix(ATEN) for name in sorted(OPERATIONS) if name.startswith(ATEN)]
    lists = sum(name.startswith(FOREACH) for name in OPERATIONS)
    parts.append(VARIANTS.format(exported=len(exported), example=exported[0], lists=lists))
    supported, others = _modules()
    version = ".".join(torch.__version__.split(".")[:2])
    parts += [RECURRENT, listed(sorted(name for name, operation in OPERATIONS.items() if operation.recurrent))]
    return "\n".join([*parts, MODULES.format(version=version, number=len(supported)), listed(others)])


def _members(kind: str, members: dict[str, Operation]) -> Iterator[str]:
    if kind == COMPOSITE:
        rows = {name: summary(o.function) or _exchanged(name) for name, o in members.items()}
        noted = {name: text for name, text in rows.items() if ";" in text or "exchanged" in text}
        yield listed(name for name in rows if name not in noted)
        yield "With a remark:\n"
        yield table(("Operation", "Remark"), noted)
    elif kind == ELEMENTWISE:
        closed = [name for name, o in members.items() if o.secant]
        yield "With a [secant in closed form](mathematics.md#functions-of-one-operand), for one varying operand:\n"
        yield listed(closed)
        yield "With the general secant, and for several varying operands the Shapley value of each:\n"
        yield listed(name for name in members if name not in closed)
    elif kind == LINEAR:
        yield listed(name for name, o in members.items() if not o.indices)
        yield "These select by index. Indices that depend on the input must be the same for example and reference:\n"
        yield listed(name for name, o in members.items() if o.indices)
    elif kind == RANDOM:
        yield "Functions with a `training` flag that is off, such as dropout in eval mode, are the identity.\n"
        yield listed(members)
    elif kind != CONSTANT:
        yield listed(members)


def _exchanged(name: str) -> str:
    """Say what a reflected operator (r...) is, or a method whose tensor is the second argument of the function."""
    method = name.startswith("Tensor.")
    return f"As `{name.removeprefix('Tensor.' if method else 'r')}`, with its first two operands exchanged."


# ---------------------------------------------------------------------- Markdown
def _aliases() -> str:
    words = {a: name for a, name in sorted(names._ALIASES.items()) if not a.startswith("_") and name in OPERATIONS}
    public = {a: name for a, name in words.items() if hasattr(torch, a) or hasattr(torch.Tensor, a)}
    text = ", ".join(f"`{alias}` (`{name}`)" for alias, name in public.items())
    return textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False) + "\n"


# ---------------------------------------------------------------------- modules, by what their code calls
def _modules() -> tuple[list[str], list[str]]:
    """Return the classes of torch.nn that call only operations of the table, and the other ones that have a forward method."""
    supported: list[str] = []
    others: list[str] = []
    for name in sorted(n for n in dir(nn) if not n.startswith("_")):
        module = getattr(nn, name)
        if not (isinstance(module, type) and issubclass(module, nn.Module)):
            continue
        if module.forward is nn.Module.forward or module.__module__.startswith("torch.nn.parallel"):
            continue
        called, children = _calls(module)
        if called or children:
            (supported if all(_has_rule(c) for c in called) else others).append(name)
    return supported, others


def _has_rule(name: str) -> bool:
    operation = OPERATIONS.get(name)
    if operation is None or operation.kind != RANDOM:
        return name in FUSED or operation is not None
    return hasattr(F, name) and "training" in inspect.signature(getattr(F, name)).parameters


def _calls(module: type[nn.Module]) -> tuple[set[str], bool]:
    """Return the torch functions that a module's forward and its own methods call, and whether it calls modules."""
    called: set[str] = set()
    children = False
    waiting, visited = ["forward"], set()
    while waiting:
        method = waiting.pop()
        function = getattr(module, method, None)
        if method in visited or not inspect.isfunction(function):
            continue
        visited.add(method)
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        for chain in _called_names(tree):
            if chain[0] == "self" and len(chain) == 2 and hasattr(module, chain[1]):
                waiting.append(chain[1])
            elif (chain[0] == "self" and len(chain) == 2) or (len(chain) == 1 and chain[0] in _looped_over(tree)):
                children = True
            else:
                called |= _torch_function(chain, function.__globals__)
    return called, children


def _called_names(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield what is called, as dotted names; a call on an expression becomes ("", method)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            chain: list[str] = []
            inner: ast.expr = node.func
            while isinstance(inner, ast.Attribute):
                chain.append(inner.attr)
                inner = inner.value
            chain.append(inner.id if isinstance(inner, ast.Name) else "")
            yield tuple(reversed(chain))


def _looped_over(tree: ast.AST) -> set[str]:
    """Return the variables of for loops: ``for layer in self.layers``."""
    return {
        node.target.id for node in ast.walk(tree) if isinstance(node, ast.For) and isinstance(node.target, ast.Name)
    }


@cache
def _overridable() -> frozenset[Any]:
    return frozenset(f for group in torch.overrides.get_overridable_functions().values() for f in group)


def _torch_function(chain: tuple[str, ...], namespace: dict[str, Any]) -> set[str]:
    """Return the canonical name of the torch function that a dotted name means, if it means one."""
    value: Any = namespace.get(chain[0], torch.Tensor)
    for attribute in chain[1:] if chain[0] in namespace else chain[-1:]:
        value = getattr(value, attribute, None)
    spelling = names.resolve(value)
    if spelling is None:
        return set()
    return {spelling.name} if spelling.name in OPERATIONS or value in _overridable() else set()


if __name__ == "__main__":
    print(document(), end="")
