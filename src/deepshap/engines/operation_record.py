"""From a step, an operation that a model ran, to the mathematics, which knows arrays only, and back: alike in every engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..formulas import Array, namespace, rules
from ..formulas.secants import Secant


class OperationRecord(Protocol):
    """What the rules of every engine see of an operation.

    Attributes
    ----------
    name, place : of the operation, and where the user's model calls it.
    varying : of each tensor among its operands, whether it depends on what is explained.
    """

    name: str
    place: str
    varying: tuple[bool, ...]

    @property
    def inputs(self) -> tuple[Array, ...]:
        """The varying operands, of the example."""

    @property
    def reference_inputs(self) -> tuple[Array, ...]:
        """Those of the reference."""

    @property
    def outputs(self) -> tuple[Array, ...]:
        """The results, of the example."""

    @property
    def reference_outputs(self) -> tuple[Array, ...]:
        """Those of the reference."""

    def sides(self) -> list[rules.Sides]:
        """Return both sides of every operand; a constant is the same on both."""

    def evaluate(self, *inputs: Array) -> Any:
        """Apply the operation as a function of its varying inputs alone."""

    def vjp(self, points: list[Array], multipliers: Sequence[Array]) -> Sequence[Array | None]:
        """Return the gradient at some points, from the multipliers of the outputs."""

    def shares(self, *multipliers: Array) -> list[Array]:
        """Return the multipliers of the varying operands, from those of all operands."""


Rule = Callable[..., Any]  # maps (step, *multipliers of the outputs) to the multipliers of the varying inputs


def of_operands(rule: Callable[..., list[Array]]) -> Rule:
    """Build the rule of an operation that looks at all its operands: ``rule(m, a, b, ...)`` returns all their multipliers."""
    return lambda record, m: record.shares(*rule(m, *record.sides()))


def values(record: OperationRecord) -> tuple[Array, Array, Array, Array]:
    """Return input and output of an operation of one operand: ``(x, r, y, y_r)``."""
    (x,), (r,), (y,), (yr,) = record.inputs, record.reference_inputs, record.outputs, record.reference_outputs
    return x, r, y, yr


def rescale(secant: Secant | None = None) -> Rule:
    """Build the rule of elementwise functions: the multiplier times the secant slope, see ``rules.rescale``.

    Closed forms are of one operand, but that of jumps, and for real numbers.
    """

    def rule(record: OperationRecord, multiplier: Array) -> list[Array]:
        xp, inputs = namespace(multiplier), record.inputs
        if secant is None or len(inputs) > 1 or xp.is_complex(inputs[0]):
            closed_form = None if any(map(xp.is_complex, inputs)) else secant
            slopes = [xp.conj(slope) for slope in _slopes(record, closed_form)]
        else:
            (x,), (r,), (y,), (yr,) = inputs, record.reference_inputs, record.outputs, record.reference_outputs
            slopes = [secant(x, r, xp.match_dtype(y, x), xp.match_dtype(yr, x))]
        return [xp.match_dtype(multiplier, slope) * slope for slope in slopes]

    return rule


def _slopes(record: OperationRecord, secant: Secant | None) -> list[Array]:
    """Return the slopes of an elementwise function of any number of operands, from its values."""
    (y,), (yr,), inputs = record.outputs, record.reference_outputs, record.inputs
    operands, xp = list(zip(inputs, record.reference_inputs, strict=True)), namespace(y)
    if len(operands) == 1 and len(record.varying) > 1:
        operands = [(xp.broadcast(operands[0][0], y), xp.broadcast(operands[0][1], yr))]
    return rules.rescale(record.evaluate, operands, xp.match_dtype(y, inputs[0]), xp.match_dtype(yr, inputs[0]), secant)


def along_segment(nodes: int) -> Rule:
    """Build the rule of smooth functions, see ``rules.along_segment``."""

    def rule(record: OperationRecord, *multipliers: Array) -> list[Array | None]:
        operands = list(zip(record.inputs, record.reference_inputs, strict=True))
        return rules.along_segment(lambda points: record.vjp(points, multipliers), operands, nodes)

    return rule


def polynomial(record: OperationRecord, multiplier: Array) -> list[Array | None]:
    """Apply the rule of a polynomial whose degree is the size of the last axis, exact along the segment."""
    return along_segment((record.inputs[0].shape[-1] + 1) // 2)(record, multiplier)


def local_gap(
    record: OperationRecord, multipliers: Sequence[Array | None], result: Sequence[Array | None]
) -> tuple[Array, Array]:
    """Return by how much an operation misses its own outputs, and the size of what it explains."""
    inputs = zip(result, record.inputs, record.reference_inputs, strict=True)
    outputs = zip(multipliers, record.outputs, record.reference_outputs, strict=True)
    return rules.local_gap(*([term for term in terms if term[0] is not None] for terms in (inputs, outputs)))


UNSUPPORTED = "NO RULE"

# By the kinds of operations, which the engines name alike.
TREATMENTS = {
    "constant": "constant",
    "same": "passed on",
    "linear": "linear: its gradient",
    "multilinear": "product: half of the change to each factor",
    "elementwise": "elementwise: secant slope",
    "quadratic": "quadratic: gradient at the midpoint",
    "smooth": "smooth: path integral",
    "composite": "composed: rules of its parts",
    "control": "followed into its parts",
    "custom": "a rule of its own",
    "cast": "conversion of the dtype",
    "value": "Python value: must not depend on the row",
    "index": "indices: must not depend on the row",
    "random": "random, switched off: the identity",
}


@dataclass
class OperationSummary:
    """An operation that a model uses on what depends on its input.

    Attributes
    ----------
    name : str
        Its canonical name, as in docs/supported-operations.md.
    treatment : str
        How its part in the output is attributed; "NO RULE" if deepshap does not know.
    places : list of str
        Where the model calls it, ``file:line``, once for each call of a run.
    """

    name: str
    treatment: str
    places: list[str] = field(default_factory=list)

    @property
    def supported(self) -> bool:
        """Whether there is a rule."""
        return self.treatment != UNSUPPORTED

    @property
    def times(self) -> int:
        """How often it is called in one run."""
        return len(self.places)


def treatment_of(kind: str | None, varying: int) -> str:
    """Return in a few words how an operation of a kind (None: no rule) with a number of varying inputs is attributed."""
    if kind is None:
        return UNSUPPORTED
    return TREATMENTS["linear" if kind == "multilinear" and varying == 1 else kind]
