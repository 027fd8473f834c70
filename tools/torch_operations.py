"""Print docs/supported-operations.md from the table: ``python tools/torch_operations.py``."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from deepshap.engines.torch import names
from deepshap.engines.torch.operations import COMPOSITE, ELEMENTWISE, KINDS, LINEAR, RANDOM, Operation
from deepshap.engines.torch.table import OPERATIONS
from deepshap.formulas import cells

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
    "composite": "Composed of smaller operations",
    "custom": "With a rule of their own",
    "cast": "Conversions",
    "value": "Leaving torch",
    "index": "Indices",
    "random": "Random",
}

INTRODUCTION = """\
<!-- Written by `python tools/torch_operations.py`. Do not edit by hand. -->

# Supported operations

`deepshap` looks at every call of torch that a model makes. This page lists the calls that have a rule, by kind. The
formulas are in [mathematics.md](mathematics.md). A call that is not listed here and depends on the explained input
stops the explanation with an error; [adding-a-rule.md](adding-a-rule.md) says how to go on. A call that does not depend
on the explained input needs no rule.
"""

SPELLINGS = """\
## Spellings

torch has many names for one operation. The lists below give one name for each. It stands for all of these, where they
exist:

| Spelling | Example |
| --- | --- |
| function of `torch` | `torch.tanh(x)` |
| method of a tensor | `x.tanh()` |
| in place | `x.tanh_()`, `torch.tanh_(x)` |
| function of `torch.nn.functional` | `F.tanh(x)`, `F.relu(x, inplace=True)` |
| function of `torch.special`, `torch.linalg`, `torch.fft` | `torch.special.expit(x)`, `torch.linalg.norm(x)` |
| operator | `a + b`, `b - a`, `a @ b`, `a += b`, `a > b`, `x[i]` |
| ATen operator, as in an exported program | `torch.ops.aten.tanh.default(x)` |

These are taken for second names of listed operations:
"""

EXPORTED = """\
## As exported programs write them

An exported program calls some operations of `torch.ops.aten` with arguments other than those of `torch` or
`torch.nn.functional`. These have the rules of the operations above:
"""

LISTS = """\
These functions apply an operation above to each tensor of a list:
"""

RECURRENT = """\
## Recurrent layers

A recurrent layer is one operation with the exact recursion of its cell; see
[Recurrent cells](mathematics.md#recurrent-cells). Layers may have several levels, two directions, no biases,
projections (`proj_size`), any initial state, and padded or packed input. Their weights must not depend on the
explained input.
"""

MODULES = """\
## Modules

Modules need no rules, because the functions that they call have them. With torch {version}, the following classes of
`torch.nn` call nothing but functions of this page in their `forward` methods. A module may still refuse some of its
options, with an error that says so. Losses that average over the batch mix the rows and cannot be explained; with
`reduction="none"` they can.
"""

CONTAINERS = """\
These classes run other modules, and call nothing else but functions of this page:
"""


def document() -> str:
    """Return the page."""
    parts = [INTRODUCTION, SPELLINGS, _aliases()]
    for kind, explanation in KINDS.items():
        members = {name: operation for name, operation in sorted(OPERATIONS.items()) if operation.kind == kind}
        members = {name: o for name, o in members.items() if not (o.recurrent or name.startswith((ATEN, FOREACH)))}
        if members:
            parts += [f"## {TITLES[kind]}\n", f"{explanation[0].upper()}{explanation[1:]}.\n", *_members(kind, members)]
    exported = (name.removeprefix(ATEN) for name in sorted(OPERATIONS) if name.startswith(ATEN))
    lists = (f"torch.{name}" for name in sorted(OPERATIONS) if name.startswith(FOREACH))
    parts += [EXPORTED, _listed(exported), LISTS, _listed(lists)]
    leaves, containers = _modules()
    version = ".".join(torch.__version__.split(".")[:2])
    parts += [RECURRENT, _recurrent(), MODULES.format(version=version), _listed(leaves)]
    return "\n".join([*parts, CONTAINERS, _listed(containers)])


def _members(kind: str, members: dict[str, Operation]) -> Iterator[str]:
    if kind == COMPOSITE:
        rows = {name: _summary(o.function) or _exchanged(name) for name, o in members.items()}
        yield _table(("Operation", "What it is"), rows)
    elif kind == ELEMENTWISE:
        closed = {name: _summary(o.secant) for name, o in members.items() if o.secant}
        yield "With a secant in closed form, for one varying operand:\n"
        yield _table(("Operation", "Secant slope between x and r, with values y and y_r"), closed)
        yield "With the general secant, and for several varying operands the Shapley share of each:\n"
        yield _listed(name for name in members if name not in closed)
    elif kind == LINEAR:
        yield _listed(name for name, o in members.items() if not o.indices)
        yield "These select by index. Indices that depend on the input must be the same for example and reference:\n"
        yield _listed(name for name, o in members.items() if o.indices)
    elif kind == RANDOM:
        yield "Functions with a `training` flag that is off, such as dropout in eval mode, are the identity.\n"
        yield _listed(members)
    else:
        yield _listed(members)


def _exchanged(name: str) -> str:
    """Say what a reflected operator (r...) is, or a method whose tensor is the second argument of the function."""
    method = name.startswith("Tensor.")
    return f"As `{name.removeprefix('Tensor.' if method else 'r')}`, with its first two operands exchanged."


# ---------------------------------------------------------------------- Markdown
def _listed(words: Any) -> str:
    text = ", ".join(f"`{word}`" for word in words)
    return textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False) + "\n"


def _table(head: tuple[str, str], rows: dict[str, str]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    lines += [f"| `{name}` | {text} |" for name, text in rows.items()]
    return "\n".join(lines) + "\n"


def _summary(function: Any) -> str:
    """Return the first line of a docstring; of the builder's, where a function was built by another."""
    builder = getattr(function, "__qualname__", "").partition(".<locals>")[0]
    text = function.__doc__ or getattr(inspect.getmodule(function), builder, function).__doc__ or ""
    line = text.strip().partition("\n")[0].replace("|", "\\|")
    line = re.sub(r"^(Build|Return) ((the|an?) )?(?!whether)", "", line)
    return line[:1].upper() + line[1:] if re.match("[a-z]{2,}[-, .]", line) else line  # no formula


def _aliases() -> str:
    words = {a: name for a, name in sorted(names._ALIASES.items()) if not a.startswith("_") and name in OPERATIONS}
    public = {a: name for a, name in words.items() if hasattr(torch, a) or hasattr(torch.Tensor, a)}
    text = ", ".join(f"`{alias}` (`{name}`)" for alias, name in public.items())
    return textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False) + "\n"


def _recurrent() -> str:
    rows: dict[str, str] = {}
    for name, operation in sorted(OPERATIONS.items()):
        if operation.recurrent:
            cell = inspect.getclosurevars(operation.function).nonlocals["cell"]  # type: ignore[arg-type]
            formulas = next(c for c in cell.__mro__ if c.__module__ == cells.__name__)
            rows[name] = formulas.__doc__.strip().partition("\n")[0]
    return _table(("Operation", "One step"), rows)


# ---------------------------------------------------------------------- modules, by what their code calls
def _modules() -> tuple[list[str], list[str]]:
    """Classes of torch.nn that call only functions of the table, and those of them that also call other modules."""
    leaves: list[str] = []
    containers: list[str] = []
    for name in sorted(n for n in dir(nn) if not n.startswith("_")):
        module = getattr(nn, name)
        if not (isinstance(module, type) and issubclass(module, nn.Module)):
            continue
        if module.forward is nn.Module.forward or module.__module__.startswith("torch.nn.parallel"):
            continue
        called, children = _calls(module)
        if all(_has_rule(c) for c in called) and (called or children):
            (containers if children else leaves).append(name)
    return leaves, containers


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
