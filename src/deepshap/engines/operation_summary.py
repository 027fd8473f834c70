"""What engines tell of the operations that a model uses, before it is explained."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """Return in a few words how an operation of a kind (None: no rule) with so many varying inputs is attributed."""
    if kind is None:
        return UNSUPPORTED
    return TREATMENTS["linear" if kind == "multilinear" and varying == 1 else kind]
