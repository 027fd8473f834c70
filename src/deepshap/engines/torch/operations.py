"""What an operation is, and what its rule gets to see. The table of all of them is in ``table.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import UnsupportedOperationError
from ...formulas import secants
from ...formulas.rules import SMOOTH_NODES
from ...formulas.secants import Secant
from ..operation_record import Rule, along_segment, rescale
from .tree import replace, tensors

CONSTANT = "constant"
LINEAR = "linear"
MULTILINEAR = "multilinear"
ELEMENTWISE = "elementwise"
QUADRATIC = "quadratic"
SMOOTH = "smooth"
COMPOSITE = "composite"
CUSTOM = "custom"
CAST = "cast"
VALUE = "value"
INDEX = "index"
RANDOM = "random"

KINDS = {
    CONSTANT: "does not depend on the values of its inputs (shapes, dtypes, `zeros_like`)",
    LINEAR: "affine in all its varying inputs together: the ordinary gradient",
    MULTILINEAR: "affine in each of its varying inputs: the gradient at the midpoint (half-split of products)",
    ELEMENTWISE: "rescale rule: the secant slope of each element (two-player Shapley for two operands)",
    QUADRATIC: "of second degree in its inputs: the gradient at the midpoint",
    SMOOTH: "path integral of the gradient along the segment from reference to example",
    COMPOSITE: "composed of smaller operations, each with its own rule",
    CUSTOM: "a rule of its own",
    CAST: "converts the dtype: the identity, or a step when it rounds",
    VALUE: "leaves torch as a Python value, which must be the same for example and reference",
    INDEX: "yields positions; their use is an error where they differ between example and reference",
    RANDOM: "random: refused, since example and reference must see the same function",
}


class Pairs(NamedTuple):
    """The pairs of a chunk: every example beside every reference.

    Crossed, either side runs on rows of its own, and only their multipliers belong to pairs. Else both sides run on all
    pairs, examples outermost: row ``n * references + b`` pairs example n and reference b. Where rows share
    an axis with something else, all of them come there ``outer`` times, see ``batch_axes.py``.
    """

    examples: int
    references: int
    all_pairs: bool = False
    outer: int = 1

    @property
    def rows(self) -> int:
        """Number of pairs."""
        return self.examples * self.references

    @property
    def grid(self) -> tuple[int, int]:
        """Numbers of examples and references."""
        return self.examples, self.references


class TraceMismatch(Exception):
    """The recorded reference cannot be laid beside the example: other calls, or rows that cannot be matched."""


class IndexMismatch(TraceMismatch):
    """The sides select by indices that differ."""


@dataclass
class Sums:
    """Takes contributions of an explained input, summed over references, that a rule knows without its multipliers."""

    total: Tensor | None = None

    def add(self, contributions: Tensor) -> None:
        """Add contributions of shape (outputs, examples, ...)."""
        self.total = contributions if self.total is None else self.total + contributions

    def take(self) -> Tensor | None:
        """Return what was added, and begin anew."""
        total, self.total = self.total, None
        return total


@dataclass(eq=False)
class OperationRecord:
    """One nonlinear operation of the model, as its rule sees it.

    Attributes
    ----------
    name : canonical name of the operation.
    place : where the user's code calls it.
    function, arguments, keywords : the call.
    varying : of each tensor among the arguments, whether it depends on the explained input.
    inputs, outputs : varying inputs and float outputs on the example side.
    reference : the same step on the reference side.
    reference_inputs, reference_outputs : its varying inputs and float outputs.
    memory : whatever the operation's forward pass kept for its rule.
    selections : multipliers of entries of the first output, which come past autograd, see ``autograd.py``.
    selected : what the last multipliers that a rule gets belong to: an axis of the first output, and an entry of it.
    form : how the outputs are nested, while they are made.
    uses : how often the outputs of a recurrent one were taken by calls; 0 where that is not counted.
    known : multipliers of its inputs, where the rule of a step behind it has found them already, see ``recurrent.loops``.
    """

    name: str
    place: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    varying: tuple[bool, ...]
    pairs: Pairs
    reference: OperationRecord | None = None
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    memory: Any = None
    selections: list[tuple[int, int, Tensor]] = field(default_factory=list)
    selected: tuple[tuple[int, int], ...] = ()
    form: Any = None
    uses: int = 0
    known: list[Tensor | None] | None = None

    def changed(self, **own: Any) -> OperationRecord:
        """A copy with some attributes of its own; ``dataclasses.replace`` takes ten times as long."""
        other = object.__new__(OperationRecord)
        other.__dict__.update(self.__dict__, **own)
        return other

    def take(self, selection: tuple[int, int, Tensor]) -> bool:
        """Take the multiplier of an entry of the first output past autograd."""
        self.selections.append(selection)
        return True

    def evaluate(self, *inputs: Tensor) -> Any:
        """The operation as a function of its varying inputs alone."""
        if len(inputs) == len(self.arguments) == 1 and not self.keywords and isinstance(self.arguments[0], Tensor):
            return self.function(*inputs)  # as most functions are called
        given, varying = iter(inputs), iter(self.varying)

        def operand(t: Tensor) -> Tensor:
            return next(given) if next(varying) else t

        return self.function(*replace(self.arguments, operand), **replace(self.keywords, operand))

    @property
    def reference_inputs(self) -> tuple[Tensor, ...]:
        """Inputs on the reference side, as rules see them beside the example's."""
        assert self.reference is not None
        return self.reference.inputs

    @property
    def reference_outputs(self) -> tuple[Tensor, ...]:
        """Outputs on the reference side, as rules see them beside the example's."""
        assert self.reference is not None
        return self.reference.outputs

    @property
    def memories(self) -> tuple[Any, Any]:
        """What the forward pass kept on either side, as rules see it."""
        assert self.reference is not None
        return self.memory, self.reference.memory

    def vjp(self, points: Sequence[Tensor], multipliers: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """The gradient at some points, from the multipliers of the float outputs."""
        try:
            with torch.enable_grad():
                points = [point.detach().requires_grad_() for point in points]
                made = tensors(self.evaluate(*points))
            floats = [v for v in made if v.is_floating_point() or v.is_complex()]
            outputs = [(v, m) for v, m in zip(floats, multipliers, strict=True) if v.requires_grad]
            reached, weights = zip(*outputs, strict=True)
            return torch.autograd.grad(reached, points, weights, allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError) as error:
            raise UnsupportedOperationError(
                f"the rule of {self.name} at {self.place} asks for its derivative, and torch has none ({error}). Register it as "
                '"elementwise", or with a rule of its own.'
            ) from error

    def sides(self) -> list[tuple[Any, Any]]:
        """Example and reference side of every positional argument; a constant is the same on both."""
        inputs = iter(zip(self.inputs, self.reference_inputs, strict=True))
        varying = iter(self.varying)
        return [next(inputs) if isinstance(a, Tensor) and next(varying) else (a, a) for a in self.arguments]

    def shares(self, *multipliers: Tensor) -> list[Tensor]:
        """Of the multipliers of all operands, keep those of the varying ones."""
        tensors = [m for m, a in zip(multipliers, self.arguments, strict=False) if isinstance(a, Tensor)]
        return [m for m, varies in zip(tensors, self.varying, strict=False) if varies]

    @property
    def memory_bytes(self) -> int:
        """Bytes of what the forward pass kept."""
        return sum(getattr(v, "nbytes", 0) for v in (self.memory if isinstance(self.memory, tuple) else (self.memory,)))

    def kept(self) -> tuple[Any, ...]:
        """Everything that is kept for the rule."""
        return self.arguments, self.keywords, self.inputs, self.outputs

    def save_from_overwriting(self, storage: int) -> None:
        """Keep copies of the values whose memory is about to be overwritten in place."""
        kept = replace(self.kept(), lambda t: t.clone() if t.untyped_storage().data_ptr() == storage else t)
        self.arguments, self.keywords, self.inputs, self.outputs = kept
        if hasattr(self.memory, "save_from_overwriting"):
            self.memory.save_from_overwriting(storage)


@dataclass(frozen=True)
class Operation:
    """A line of the table.

    Attributes
    ----------
    kind : one of ``KINDS``.
    rule : maps ``(step, *output multipliers)`` to input multipliers (custom operations, and products of two).
    secant : maps ``(x, r, y, y_r)`` to the slope (elementwise operations with a closed form).
    function : stands in for the called function (composites, and functions that hide a dependence).
    indices : the operation selects by indices or masks among its arguments.
    keeps_memory : the function returns ``(outputs, memory)``.
    batched_rule : the rule takes and returns multipliers of several explained outputs and references at once, (outputs,
        references, *shape of an example's value), and sees both sides as they ran. The first output's is None where nothing
        reaches it, and after those of all outputs come those of single entries of the first one, see
        ``OperationRecord.selected``.
    broadcastable : the rule takes any two sides, and multipliers, that broadcast to one another. It may return multipliers
        that are still to be summed over axes along which an operand was broadcast.
    piecewise_constant : elementwise, and constant between jumps.
    finite_everywhere : elementwise, and it and its derivative are finite on all numbers, so that a compiled pass may make its
        slopes.
    masks : what does the operation's work where a mask among its indices depends on the input.
    recurrent : the function asks how many consecutive rows are one example's, and whether its input's contributions are
        wanted summed over references.
    """

    kind: str
    rule: Rule | None = None
    secant: Secant | None = None
    function: Callable[..., Any] | None = None
    indices: bool = False
    masks: Callable[..., Any] | None = None
    keeps_memory: bool = False
    batched_rule: bool = False
    broadcastable: bool = False
    piecewise_constant: bool = False
    finite_everywhere: bool = False
    recurrent: bool = False

    @cached_property
    def of_one(self) -> Operation:
        """What an elementwise operation does where one of its operands varies."""
        secant = None if self.rule else secants.piecewise_constant if self.piecewise_constant else self.secant
        rule = self.rule or rescale(secant)
        return Operation(
            CUSTOM, rule, secant, broadcastable=self.broadcastable, finite_everywhere=self.finite_everywhere
        )

    @cached_property
    def of_several(self) -> Operation:
        """What an elementwise operation does where several vary."""
        rule = self.rule or rescale(secants.piecewise_constant if self.piecewise_constant else None)
        return Operation(CUSTOM, rule, broadcastable=self.broadcastable)

    @cached_property
    def of_two(self) -> Operation:
        """What a product of two does where both vary."""
        return Operation(CUSTOM, self.rule, broadcastable=True)

    @property
    def rounds(self) -> bool:
        """Whether it may make integers of floats: what has a slope does not."""
        return self.kind in (ELEMENTWISE, CAST) and self.secant is None and not self.finite_everywhere

    def on(self, args: Any, kwargs: Any, varying: int) -> Operation | None:
        """What it is where so many of its operands vary; None where it is linear in these."""
        if self.kind == MULTILINEAR and varying == 1:
            return None
        if self.kind == MULTILINEAR:
            of_two = self.rule and varying == len(args) == 2 and not kwargs and all(t.dim() > 1 for t in args)
            return self.of_two if of_two else along((varying + 1) // 2)
        if self.kind in (ELEMENTWISE, CAST):
            return self.of_one if varying == 1 else self.of_several
        return along({QUADRATIC: 1, SMOOTH: SMOOTH_NODES}[self.kind]) if self.kind in (QUADRATIC, SMOOTH) else self


@cache
def along(nodes: int) -> Operation:
    """The path integral along the segment, with so many nodes."""
    return Operation(CUSTOM, along_segment(nodes))


@dataclass
class BackwardOptions:
    """How a backward pass reads the steps.

    Attributes
    ----------
    references : those whose pairs it takes, of all that an example is crossed with; None for all.
    diagnosis : collects each step with how far it is from explaining its own outputs, and the size of what it explains.
    zero_unreached : whether what nothing reaches gets 0, also where a slope is no number.
    """

    references: slice | None = None
    diagnosis: list[tuple[OperationRecord, float, float]] | None = None
    zero_unreached: bool = False


def primitive(rule: Rule, **options: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function of deepshap's own an operation that the tracer meets like one of torch's; options are those of that."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        return _met(function, Operation(CUSTOM, rule, None, function, **options))  # type: ignore[arg-type]

    return wrap


def linear(function: Callable[..., Any]) -> Callable[..., Any]:
    """As ``primitive``, of what is linear."""
    return _met(function, Operation(LINEAR, function=function))


def _met(function: Callable[..., Any], operation: Operation) -> Callable[..., Any]:
    """A function that the tracer meets as this operation."""

    def call(*args: Any, **kwargs: Any) -> Any:
        tensors = tuple(a for a in args if isinstance(a, Tensor))
        if torch.overrides.has_torch_function(tensors):
            return torch.overrides.handle_torch_function(call, tensors, *args, **kwargs)
        result = function(*args, **kwargs)
        return result[0] if operation.keeps_memory else result

    call.__name__ = call.__qualname__ = function.__name__
    call.__doc__ = function.__doc__
    call.operation = operation  # type: ignore[attr-defined]
    return call
