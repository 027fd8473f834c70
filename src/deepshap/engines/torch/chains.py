"""Chains back to the input past autograd: through linear layers and steps of one operand alone, as in a perceptron.

Multipliers are made for a few references at a time, which stay in the processor's cache, and end as contributions that are
summed over the references.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...mathematics.secants import Secant
from . import one_pass, pairing
from .nodes import Node
from .operations import Operation, Pairs, Step, Sums

BLOCK_BYTES = 2**19  # of multipliers at a time
VIEWS = "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"
# Makes, of multipliers (outputs, references, examples, width), those of what is before it, for some of the references.
Back = Callable[[Tensor, slice], Tensor]


class Entry(NamedTuple):
    """An explained input: what the model was handed, where its contributions go, and both sides, the rows first."""

    inside: Tensor
    sums: Sums
    x: Tensor
    r: Tensor


class Applied(NamedTuple):
    """A step on a chain."""

    step: Step
    operation: Operation


@dataclass(frozen=True)
class Chain:
    """From the outputs of a node back to an explained input; ``links`` are steps, and weights (outputs, inputs)."""

    links: list[Applied | Tensor]
    entry: Entry

    @property
    def width(self) -> int:
        """Of the rows that come out of it."""
        first = self.links[0]
        return first.shape[0] if isinstance(first, Tensor) else first.step.outputs[0].shape[1]

    def from_node(self, references: slice, given: list[Tensor]) -> list[None]:
        """As ``walk``, by multipliers (outputs * references, examples, width)."""
        self.walk(references, given[0].unflatten(0, (-1, references.stop - references.start)))
        return [None]

    def from_seeds(self, references: slice, seeds: Tensor) -> None:
        """As ``walk``, by multipliers (outputs, examples, width) that are the same for all references."""
        links = list(self.links)
        while links and isinstance(first := links[0], Tensor):
            seeds = seeds @ first
            del links[0]
        m = seeds.unsqueeze(1).expand(-1, references.stop - references.start, -1, -1)
        Chain(links, self.entry).walk(references, m)

    def walk(self, references: slice, m: Tensor) -> None:
        """Add the contributions of pairs with some references, by the multipliers (outputs, references, examples, width)."""
        count = references.stop - references.start
        backs = [_back(link, m, self.entry.r.shape[0]) for link in self.links]
        quick = all(also for _, also in backs)
        size = self._at_once(m) if quick else count
        blocks = [slice(at, min(at + size, count)) for at in range(0, count, size)]
        task = partial(self._contributions, [back for back, _ in backs], m, references.start)
        totals = one_pass.in_threads(task, blocks, m.numel()) if quick else [task(blocks)]
        self.entry.sums.add(sum(totals[1:], totals[0]).unflatten(2, self.entry.x.shape[1:]))

    def _at_once(self, m: Tensor) -> int:
        """References whose multipliers stay in the cache."""
        widest = max([m.shape[-1], *(link.shape[1] for link in self.links if isinstance(link, Tensor))])
        return max(1, BLOCK_BYTES // max(1, m[:, 0, :, 0].numel() * widest * m.element_size()))

    def _contributions(self, backs: Sequence[Back], m: Tensor, first: int, blocks: list[slice]) -> Tensor:
        """Of pairs with some blocks of the references that multipliers are of, summed: (outputs, examples, width)."""
        total = m.new_zeros((), dtype=torch.float64)
        x, r = self.entry.x.flatten(1), self.entry.r.flatten(1)
        for block in blocks:
            some, found = slice(first + block.start, first + block.stop), m[:, block]
            for back in backs:
                found = back(found, some)
            total = total + (found * (x - r[some, None])).sum(1, dtype=torch.float64)
        return total


class Chains:
    """The chains in the graph of an output."""

    def __init__(self, output: Tensor, entries: list[Entry], pairs: Pairs) -> None:
        self._last: Any = output.grad_fn
        self._outputs, self._pairs = output.shape[1], pairs
        self._entries = {entry.inside.grad_fn: entry for entry in entries if not entry.inside._version}
        self._known: dict[Step, Chain | None] = {}

    @cached_property
    def whole(self) -> Chain | None:
        """The chain from the output, if the model is nothing else."""
        node = self._last.next_functions[0][0] if self._last.name() in VIEWS else self._last
        chain = None if node in self._entries else self._found(node)
        return chain if chain is not None and chain.width == self._outputs else None

    def of_node(self, node: Any) -> Chain | None:
        """The chain from the node of a step, if there is nothing else on its way, and no other way to what is on it."""
        if node.step not in self._known:
            self._known[node.step] = self._found(node)
        return self._known[node.step]

    def _found(self, node: Any) -> Chain | None:
        links, behind = [], []
        while node not in self._entries:
            link, following = _link(node, self._pairs), [one for one, _ in node.next_functions if one is not None]
            if link is None or len(following) != 1:
                return None
            links.append(link)
            behind.append(node)
            node = following[0]
            if node.name() in VIEWS and node.next_functions[0][0] in self._entries:
                node = node.next_functions[0][0]
        entry = self._entries[node]
        if any(self._uses[one] > 1 for one in behind[1:]) or not _fits(links[-1], entry, self._pairs):
            return None
        return Chain(links, entry)

    @cached_property
    def _uses(self) -> Counter[Any]:
        """How many nodes each one gets multipliers from."""
        uses: Counter[Any] = Counter()
        waiting: list[Any] = [self._last]
        while waiting:
            for following, _ in waiting.pop().next_functions:
                if following is not None:
                    uses[following] += 1
                    if uses[following] == 1:
                        waiting.append(following)
        return uses


def _link(node: Any, pairs: Pairs) -> Applied | Tensor | None:
    """What a node of autograd's graph is on a chain; None for other nodes."""
    return _applied(node, pairs) if isinstance(node, Node._backward_cls) else _weights(node)


def _applied(node: Any, pairs: Pairs) -> Applied | None:
    """The step of a node, if it makes a row (width,) of each row, or else None."""
    step, operation = node.step, node.operation
    if operation.pairs_itself or step.known is not None or len(step.inputs) != 1 or len(step.outputs) != 1:
        return None
    (x,), (y,), (r,) = step.inputs, step.outputs, step.reference.inputs
    plain = x.dim() == 2 and x.shape == y.shape and x.dtype == y.dtype and x.is_floating_point()
    return Applied(step, operation) if plain and pairs.grid == (x.shape[0], r.shape[0]) else None


def with_weights(name: str, arguments: Sequence[Any], product: Any) -> Any:
    """What a call returned; where that is of a linear layer and of rows that are followed, its node knows the weights.

    Those that autograd keeps may be made anew when they are read, which they can be once. Autocast takes others than are given.
    """
    if name != "linear" or len(arguments) < 2 or product.dim() != 2 or not arguments[0].requires_grad:
        return product
    if arguments[1].dtype == product.dtype:
        node: Any = product.grad_fn
        node.metadata["weights"] = arguments[1], arguments[1]._version
    return product


def _weights(node: Any) -> Tensor | None:
    """Of a product of rows with weights that are what they were."""
    if node.name() not in ("AddmmBackward0", "MmBackward0"):
        return None
    weights, version = node.metadata.get("weights", (None, 0))
    return None if weights is None or weights._version != version else weights.detach()


def _fits(link: Applied | Tensor, entry: Entry, pairs: Pairs) -> bool:
    """Whether a link takes the rows of an entry as they are, each as a row (width,)."""
    width = link.shape[1] if isinstance(link, Tensor) else link.step.inputs[0].shape[1]
    x, r = entry.x, entry.r
    return x.dim() > 1 and pairs.grid == (x.shape[0], r.shape[0]) and width == x[0].numel() == r[0].numel()


def _back(link: Applied | Tensor, m: Tensor, references: int) -> tuple[Back, bool]:
    """How multipliers pass a link, and whether that is as quick for few of so many references.

    ``m`` are about as many as those of the link.
    """
    if isinstance(link, Tensor):
        return lambda given, _: given @ link, True
    step, operation = link
    if (kernel := one_pass.for_some(step, operation, m)) is not None:
        return kernel, True
    if operation.secant is not None:
        return _by_slope(step, operation.secant), True

    def by_rule(given: Tensor, some: slice) -> Tensor:
        part = step if some == slice(0, references) else pairing.among(step, some)
        (found,) = pairing.of_pairs(part, operation, [given])
        return torch.zeros_like(given) if found is None else found

    return by_rule, False


def _by_slope(step: Step, secant: Secant) -> Back:
    """How multipliers pass an elementwise function, without the layouts that other rules need."""
    assert step.reference is not None
    x, y = (v.unsqueeze(0) for v in (step.inputs[0], step.outputs[0]))
    r, yr = (v.unsqueeze(1) for v in (step.reference.inputs[0], step.reference.outputs[0]))
    return lambda given, some: given * secant(x, r[some], y, yr[some])
