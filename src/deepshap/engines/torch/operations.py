"""Operations and their records: what the table says of an operation, and what a rule sees of a call."""

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
from ._compat import base_of
from .calls import replace, tensors

CONSTANT = "constant"
LINEAR = "linear"
MULTILINEAR = "multilinear"
ELEMENTWISE = "elementwise"
QUADRATIC = "quadratic"
SMOOTH = "smooth"
COMPOSITE = "composite"
CUSTOM = "custom"
CAST = "cast"
TO_PYTHON = "value"
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
    TO_PYTHON: "leaves torch as a Python value, which must be the same for example and reference",
    INDEX: "yields positions; their use is an error where they differ between example and reference",
    RANDOM: "random: refused, since example and reference must see the same function",
}


class Pairs(NamedTuple):
    """The pairs of a chunk: every example with every reference.

    With ``all_pairs``, each side runs on its own rows, and only their multipliers belong to pairs. Otherwise both sides run
    on all pairs, examples outermost: row ``n * references + b`` pairs example n and reference b. If rows share an axis with
    something else, all of them occur there ``outer`` times, see ``batch_axes.py``.
    """

    examples: int
    references: int
    all_pairs: bool = False
    outer: int = 1

    @property
    def rows(self) -> int:
        """Return the number of pairs."""
        return self.examples * self.references

    @property
    def grid(self) -> tuple[int, int]:
        """Return the numbers of examples and references."""
        return self.examples, self.references


class TraceMismatch(Exception):
    """The runs of example and reference differ: other calls, or rows that cannot be matched."""


class IndexMismatch(TraceMismatch):
    """Example and reference select by different indices."""


@dataclass
class Sums:
    """Collects the contributions of an explained input, summed over references, that a rule computes without its multipliers."""

    total: Tensor | None = None

    def add(self, contributions: Tensor) -> None:
        """Add contributions of shape (outputs, examples, ...)."""
        self.total = contributions if self.total is None else self.total + contributions

    def take(self) -> Tensor | None:
        """Return the sum so far, and start again."""
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
    varying : for each tensor among the arguments, whether it depends on the explained input.
    inputs, outputs : active inputs and float outputs on the example side.
    reference : the record of the same operation on the reference side.
    reference_inputs, reference_outputs : its active inputs and float outputs.
    memory : what the operation's forward pass keeps for its rule.
    selections : multipliers of entries of the first output, which bypass autograd, see ``autograd.py``.
    selected : for each multiplier of an entry that a rule gets, the axis and index of the entry in the first output.
    form : how the outputs are nested, while they are computed.
    use_count : number of calls that used outputs of a recurrent operation; 0 if they are not counted.
    known_multipliers : multipliers of its inputs, if the rule of a later step has computed them, see ``recurrent.loops``.
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
    use_count: int = 0
    known_multipliers: list[Tensor | None] | None = None

    def with_changes(self, **attributes: Any) -> OperationRecord:
        """Return a copy with some attributes changed; ``dataclasses.replace`` takes ten times as long."""
        record = object.__new__(OperationRecord)
        record.__dict__.update(self.__dict__, **attributes)
        return record

    def take(self, selection: tuple[int, int, Tensor]) -> bool:
        """Store the multiplier of an entry of the first output, which bypasses autograd."""
        self.selections.append(selection)
        return True

    def evaluate(self, *inputs: Tensor) -> Any:
        """Return the operation as a function of its active inputs alone."""
        if len(inputs) == len(self.arguments) == 1 and not self.keywords and isinstance(self.arguments[0], Tensor):
            return self.function(*inputs)  # as most functions are called
        values, varying = iter(inputs), iter(self.varying)

        def operand(t: Tensor) -> Tensor:
            return next(values) if next(varying) else t

        return self.function(*replace(self.arguments, operand), **replace(self.keywords, operand))

    @property
    def reference_inputs(self) -> tuple[Tensor, ...]:
        """Return the inputs on the reference side, as rules see them."""
        assert self.reference is not None
        return self.reference.inputs

    @property
    def reference_outputs(self) -> tuple[Tensor, ...]:
        """Return the outputs on the reference side, as rules see them."""
        assert self.reference is not None
        return self.reference.outputs

    @property
    def memories(self) -> tuple[Any, Any]:
        """Return what the forward pass kept on either side, as rules see it."""
        assert self.reference is not None
        return self.memory, self.reference.memory

    def vjp(self, points: Sequence[Tensor], multipliers: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """Return the gradient at some points, from the multipliers of the float outputs."""
        try:
            with torch.enable_grad():
                points = [point.detach().requires_grad_() for point in points]
                results = tensors(self.evaluate(*points))
            floats = [v for v in results if v.is_floating_point() or v.is_complex()]
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
        """Return example and reference side of every positional argument; a constant is the same on both."""
        inputs = iter(zip(self.inputs, self.reference_inputs, strict=True))
        varying = iter(self.varying)
        return [next(inputs) if isinstance(a, Tensor) and next(varying) else (a, a) for a in self.arguments]

    def shares(self, *multipliers: Tensor) -> list[Tensor]:
        """Return the multipliers of active operands, from those of all operands."""
        tensors = [m for m, a in zip(multipliers, self.arguments, strict=False) if isinstance(a, Tensor)]
        return [m for m, varies in zip(tensors, self.varying, strict=False) if varies]

    @property
    def memory_bytes(self) -> int:
        """Return the bytes of what the forward pass kept."""
        return sum(getattr(v, "nbytes", 0) for v in (self.memory if isinstance(self.memory, tuple) else (self.memory,)))

    def saved(self) -> tuple[Any, ...]:
        """Return everything that is saved for the rule."""
        return self.arguments, self.keywords, self.inputs, self.outputs

    def save_from_overwriting(self, storage: int) -> None:
        """Copy saved values in a storage that is about to be overwritten in place."""
        saved = replace(self.saved(), lambda t: t.clone() if t.untyped_storage().data_ptr() == storage else t)
        self.arguments, self.keywords, self.inputs, self.outputs = saved
        if hasattr(self.memory, "save_from_overwriting"):
            self.memory.save_from_overwriting(storage)


@dataclass(frozen=True)
class Operation:
    """A row of the table.

    Attributes
    ----------
    kind : one of ``KINDS``.
    rule : maps ``(record, *output multipliers)`` to input multipliers (custom operations, and products of two).
    secant : maps ``(x, r, y, y_r)`` to the slope (elementwise operations with a closed form).
    function : replaces the called function (composites, and functions that hide a dependence).
    indices : the operation selects by indices or masks among its arguments.
    keeps_memory : the function returns ``(outputs, memory)``.
    batched_rule : the rule maps multipliers of several explained outputs and references at once, (outputs, references,
        *shape of an example's value), and sees both sides as they ran. The first output's multiplier is None if nothing
        reaches it, and the multipliers of single entries of the first output follow those of all outputs, see
        ``OperationRecord.selected``.
    broadcastable : the rule accepts sides and multipliers that broadcast to one another. It may return multipliers that are
        still to be summed over axes along which an operand was broadcast.
    piecewise_constant : elementwise, and constant between jumps.
    finite_everywhere : elementwise, and finite on all numbers with its derivative, so that a compiled kernel may compute its
        slopes.
    masks : does the work of the operation if a mask among its indices depends on the explained input.
    recurrent : the function has a parameter ``context``: which rows repeat, and whether contributions of its input are
        summed over references.
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
    def with_one_active(self) -> Operation:
        """Return the operation if one operand of an elementwise function depends on the input."""
        secant = None if self.rule else secants.piecewise_constant if self.piecewise_constant else self.secant
        rule = self.rule or rescale(secant)
        return Operation(
            CUSTOM, rule, secant, broadcastable=self.broadcastable, finite_everywhere=self.finite_everywhere
        )

    @cached_property
    def with_several_active(self) -> Operation:
        """Return the operation if several operands of an elementwise function depend on the input."""
        rule = self.rule or rescale(secants.piecewise_constant if self.piecewise_constant else None)
        return Operation(CUSTOM, rule, broadcastable=self.broadcastable)

    @cached_property
    def with_two_active(self) -> Operation:
        """Return the operation if both factors of a product depend on the input."""
        return Operation(CUSTOM, self.rule, broadcastable=True)

    @property
    def rounds(self) -> bool:
        """Return whether the operation may map floats to integers; one with a slope does not."""
        return self.kind in (ELEMENTWISE, CAST) and self.secant is None and not self.finite_everywhere

    def for_active(self, args: Any, kwargs: Any, active: int) -> Operation | None:
        """Return the operation for this number of active operands, or None if it is linear in them."""
        if self.kind == MULTILINEAR and active == 1:
            return None
        if self.kind == MULTILINEAR:
            both_active = self.rule and active == len(args) == 2 and not kwargs and all(t.dim() > 1 for t in args)
            return self.with_two_active if both_active else path_integral((active + 1) // 2)
        if self.kind in (ELEMENTWISE, CAST):
            return self.with_one_active if active == 1 else self.with_several_active
        return (
            path_integral({QUADRATIC: 1, SMOOTH: SMOOTH_NODES}[self.kind]) if self.kind in (QUADRATIC, SMOOTH) else self
        )


@cache
def path_integral(nodes: int) -> Operation:
    """Return the path integral along the segment, with this number of nodes."""
    return Operation(CUSTOM, along_segment(nodes))


@dataclass
class BackwardOptions:
    """Options of a backward pass.

    Attributes
    ----------
    references : the references whose pairs the pass covers; None for all.
    diagnosis : collects each record with its gap (how far it is from explaining its own outputs) and the size of the outputs.
    zero_unreached : whether inputs of unreached outputs get multiplier 0, also if the slope there is NaN.
    """

    references: slice | None = None
    diagnosis: list[tuple[OperationRecord, float, float]] | None = None
    zero_unreached: bool = False


def primitive(rule: Rule, **options: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn a function into an operation that the tracer intercepts like one of torch's."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        return _intercepted(function, Operation(CUSTOM, rule, None, function, **options))  # type: ignore[arg-type]

    return wrap


def linear(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a linear function into an operation that the tracer intercepts like one of torch's."""
    return _intercepted(function, Operation(LINEAR, function=function))


def _intercepted(function: Callable[..., Any], operation: Operation) -> Callable[..., Any]:
    """Return a function that shows its calls to the tracer as this operation."""

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


class Call(NamedTuple):
    """A call that the model makes, and its operation in the table."""

    function: Callable[..., Any]
    operation: Operation | None
    name: str
    inplace: bool
    args: Any
    kwargs: Any
    operands: list[Tensor]  # all tensors among the arguments
    has_surrogates: bool = True  # whether one of them may have a surrogate

    def with_arguments(self, args: Any, kwargs: Any) -> Call:
        """Return the call with other arguments."""
        return self._replace(args=args, kwargs=kwargs, operands=tensors((args, kwargs)), has_surrogates=True)

    @property
    def kind(self) -> str | None:
        """Return the kind of the operation; None for an unknown operation."""
        return None if self.operation is None else self.operation.kind

    @property
    def implementation(self) -> Callable[..., Any]:
        """Return the function that replaces the called one, or the called one."""
        return (self.operation and self.operation.function) or self.function

    def written(self) -> list[Tensor]:
        """Return what the call writes to, each after the tensor that it is a view of."""
        targets = tensors(self.kwargs["out"]) if "out" in self.kwargs else []
        if self.inplace or self.name == "__setitem__":
            targets.extend(tensors(self.args[0]))  # those of torch._foreach_copy_ are a list
        return [t for target in targets for t in (base_of(target), target) if t is not None]

    def run_stably(self) -> Any:
        """Run the call on constants. Sorting is stable, so that rows of equal length keep their order."""
        args, kwargs = self.args, self.kwargs
        if self.name in ("data", "detach") and not args[0].requires_grad:  # a write to it reaches the tensor itself
            return self.implementation(*args)
        if self.name in ("sort", "argsort") and "stable" not in kwargs:
            positional = dict(zip(("dim", "descending"), args[1:], strict=False))
            args, kwargs = args[:1], {**positional, **kwargs, "stable": True}
        return self.function(*args, **kwargs)

    def with_ordinary_tensors(self) -> Call:
        """Replace constants made in inference mode, which autograd refuses, by copies."""
        if not any(map(Tensor.is_inference, self.operands)):
            return self
        return self.with_arguments(*replace((self.args, self.kwargs), lambda t: t.clone() if t.is_inference() else t))
