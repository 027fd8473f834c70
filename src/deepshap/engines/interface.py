"""The interface between methods, engines and attribution.

A *method* (``sampling``) says which pairs of points are compared and with which weights. An *engine*, one for each
framework, returns the contributions of pairs. *Attribution* (``attribution.py``) divides the pairs into chunks that fit into
memory, runs them, adds up and checks. What they hand to one another is defined here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from .inputs import InputForm
from .operation_record import OperationSummary as OperationSummary


# ---------------------------------------------------------------------- points and pairs of them
@dataclass(frozen=True)
class Points:
    """Rows of a model's inputs in the engine's own arrays, rows first, with the arguments that describe each row.

    Attributes
    ----------
    form : the form in which the model takes them.
    inputs : one array (rows, ...) for each input.
    extra : row arguments (lengths, masks): arrays with one entry per row, or values that hold for all.
    key : what tells these rows from others without a look at them. Engines keep activations of rows that have one.
    """

    form: InputForm
    inputs: tuple[Any, ...]
    extra: tuple[Any, ...] = ()
    key: Hashable = None

    def __len__(self) -> int:
        return int(self.inputs[0].shape[0])

    def __getitem__(self, rows: Any) -> Points:
        """Return some of the rows, by a slice or by their numbers."""
        bounds = rows.indices(len(self)) if isinstance(rows, slice) else None
        if bounds == (0, len(self), 1):
            return self
        key = (self.key, *bounds) if self.key is not None and bounds is not None else None
        return Points(self.form, tuple(x[rows] for x in self.inputs), self.form.rows_of(self.extra, rows), key)

    def described_by(self, other: Points) -> Points:
        """Return the same inputs with another's row arguments: a reference is evaluated with those of its example."""
        return replace(self, extra=other.extra, key=None) if self.extra or other.extra else self

    def mixed(self, other: Points, masks: Sequence[np.ndarray]) -> Points:
        """Return these values where ``masks``, (rows, ...) for each input, are True, else those of the same row of another."""
        return self.coalitions(other, [mask[:, None] for mask in masks])

    def coalitions(self, other: Points, masks: Sequence[np.ndarray]) -> Points:
        """Return ``mixed`` rows for several masks of each row, (rows, masks, ...): those of a row stand together."""
        inputs = tuple(
            self.form.where(mask, x[:, None], y[:, None]).reshape(-1, *x.shape[1:])
            for mask, x, y in zip(masks, self.inputs, other.inputs, strict=True)
        )
        rows = np.repeat(np.arange(len(self)), masks[0].shape[1])
        return Points(self.form, inputs, self.form.rows_of(self.extra, rows))

    @staticmethod
    def joined(parts: Sequence[Points]) -> Points:
        """Return all rows of several points."""
        first, form = parts[0], parts[0].form
        inputs = tuple(form.concatenated(arrays) for arrays in zip(*(p.inputs for p in parts), strict=True))
        extra = tuple(
            form.concatenated(arguments) if form.has_rows(arguments[0]) else arguments[0]
            for arguments in zip(*(p.extra for p in parts), strict=True)
        )
        return Points(first.form, inputs, extra)


@dataclass(frozen=True)
class Comparison:
    """Examples and what they are compared with.

    Attributes
    ----------
    examples, references : the two sides.
    all_pairs : whether every example is compared with every reference, or row k with row k alone.
    outputs : numbers of the explained outputs of each example, (examples, k).
    """

    examples: Points
    references: Points
    all_pairs: bool
    outputs: np.ndarray

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.examples) * (len(self.references) if self.all_pairs else 1)

    def part(self, examples: Any, references: slice = slice(None)) -> Comparison:
        """Return some examples, and some references if every example is compared with all."""
        of_references = references if self.all_pairs else examples
        all_references = self.all_pairs and references == slice(None)
        return Comparison(
            self.examples[examples],
            self.references if all_references else self.references[of_references],
            self.all_pairs,
            self.outputs[examples],
        )

    def aligned_pairs(self) -> Comparison:
        """Return every pair of an all-pairs comparison as aligned rows, examples outermost."""
        n, b = len(self.examples), len(self.references)
        examples, references = self.examples[np.repeat(np.arange(n), b)], self.references[np.tile(np.arange(b), n)]
        return Comparison(examples, references, False, self.outputs.repeat(b, 0))

    def pair(self, row: int) -> Comparison:
        """Return the comparison of one example and one of its references."""
        at = slice(row, row + 1)
        return replace(self.part(at, slice(0, 1)), all_pairs=False)


# ---------------------------------------------------------------------- what engines say
class Footprint(NamedTuple):
    """Memory in bytes that each reference, each example and each pair of a chunk takes."""

    reference: int
    example: int
    pair: int

    @property
    def compiled(self) -> Footprint:
        """The same of code that XLA has made, which takes up to twice as much."""
        return Footprint(*(2 * size for size in self))


@dataclass(frozen=True)
class ModelProfile:
    """What an engine found out about a model on one pair.

    Attributes
    ----------
    output_shape : of one row.
    axes : where the rows lie in each explained tensor.
    dtype : of results, float32 or float64.
    tolerance : how far sums may be off, relative to the scale of the outputs.
    eps : rounding unit of the least precise dtype in the model.
    footprint : memory of a chunk.
    compiler : bytes that a compiler takes for itself, where the engine has the work compiled; else 0.
    recurrent : whether recurrent layers do most of the work. Of these a pair of each with each takes little more than its
        multipliers, and aligned rows take their forward runs too.
    """

    output_shape: tuple[int, ...]
    axes: tuple[int, ...]
    dtype: np.dtype[Any]
    tolerance: float
    eps: float
    footprint: Footprint
    recurrent: bool = False
    compiler: int = 0


@dataclass(frozen=True)
class Plan:
    """How much is taken at a time.

    Attributes
    ----------
    examples, references : of a chunk of pairs, each with each.
    aligned : rows of a chunk in which row k is compared with row k.
    multipliers : of pairs, one for each explained output, that fit into memory together.
    memory : the budget in bytes.
    """

    examples: int
    references: int
    aligned: int
    multipliers: int
    memory: int

    @property
    def rows(self) -> int:
        """Rows of the model at a time, where nothing is kept of them."""
        return self.examples * self.references


@dataclass
class Contributions:
    """What an engine returns for a comparison.

    Attributes
    ----------
    values : attributions of each explained tensor, (k, examples, ...), summed over the references of each example. What goes
        around an explained layer comes last, (k, examples).
    outputs : all outputs of the examples, (examples, outputs).
    reference_outputs : those of the references, summed over the references of each example.
    multipliers : where they were asked for, attributions and multipliers of each pair, (2, k, examples, references, ...).
    """

    values: list[np.ndarray]
    outputs: np.ndarray
    reference_outputs: np.ndarray
    multipliers: list[np.ndarray] | None = None

    def of_rows(self, rows: np.ndarray) -> Contributions:
        """Return the contributions of some of the examples, or of all in another order."""
        pairs = None if self.multipliers is None else [m[:, :, rows] for m in self.multipliers]
        return Contributions([v[:, rows] for v in self.values], self.outputs[rows], self.reference_outputs[rows], pairs)

    @staticmethod
    def of_examples(parts: Sequence[Contributions]) -> Contributions:
        """Return contributions of parts with different examples and the same references."""
        return Contributions(
            [np.concatenate(arrays, 1) for arrays in zip(*(p.values for p in parts), strict=True)],
            np.concatenate([p.outputs for p in parts]),
            np.concatenate([p.reference_outputs for p in parts]),
            _joined([p.multipliers for p in parts], 2),
        )

    @staticmethod
    def of_references(parts: Sequence[Contributions]) -> Contributions:
        """Return contributions of parts with the same examples and different references."""
        return Contributions(
            [sum(arrays[1:], arrays[0]) for arrays in zip(*(p.values for p in parts), strict=True)],
            parts[0].outputs,
            sum((p.reference_outputs for p in parts[1:]), parts[0].reference_outputs),
            _joined([p.multipliers for p in parts], 3),
        )


def _joined(multipliers: Sequence[list[np.ndarray] | None], axis: int) -> list[np.ndarray] | None:
    present = [m for m in multipliers if m is not None]
    return [np.concatenate(arrays, axis) for arrays in zip(*present, strict=True)] if present else None


@dataclass(frozen=True)
class OperationGap:
    """The operation that explains its own output worst, when the sums do not match.

    ``around``: no rule is to blame, but the operation takes a value that reaches it around the explained layer.
    """

    name: str
    place: str
    gap: float
    size: float
    around: bool = False


# ---------------------------------------------------------------------- the protocol
class Engine(Protocol):
    """What a framework's engine offers for one model.

    It is used by one thread at a time, inside of ``session()``. ``framework`` is "torch" or "tensorflow", and
    ``packages`` are those whose versions its results may depend on; ``in_float64`` says
    in words how its users get a copy of a model that computes in float64; ``operations`` holds rules for single layers;
    ``heads`` is the module that finds what the model computes before its last softmax or sigmoid.
    """

    framework: ClassVar[str]
    packages: ClassVar[tuple[str, str]]
    in_float64: ClassVar[str]
    heads: ClassVar[Any]
    model: Any
    layer: Any
    output: Any
    output_shape: tuple[int, ...]
    layer_axes: list[int]
    operations: dict[Any, Any]

    def session(self) -> AbstractContextManager[None]:
        """Run alone and in a clean state of the framework."""

    def frozen(self) -> AbstractContextManager[None]:
        """Promise that the model does not change within the block: what is known of it is kept."""

    def read_background(self, values: Any, what: str = "background", form: InputForm | None = None) -> Points:
        """Return the references; everything that is compared with them must have their form."""

    def read(
        self, X: Any, additional_forward_args: Any, background: Points | None = None
    ) -> tuple[Points, Points | None]:
        """Return rows in the form of the background, if there is one, and the background aligned with them."""

    def analyze(self, examples: Points, references: Points) -> ModelProfile:
        """Check on an example and a reference that the model can be explained, and describe it."""

    def outputs(self, points: Points, at_once: int, what: str = "X") -> np.ndarray:
        """Return outputs of the model as its user calls it, (rows, outputs), ``at_once`` rows at a time."""

    def native_outputs(self, points: Points, at_once: int, what: str = "X") -> np.ndarray:
        """Return ``outputs`` of a model that was not probed on such points."""

    def as_output(self, values: np.ndarray) -> np.ndarray:
        """Return values (outputs,) in the form and precision of the model's output for a row."""

    def as_numbers(self, values: np.ndarray) -> Any:
        """Return values as shap returns them for models of the framework."""

    def explained(self, points: Points) -> list[np.ndarray]:
        """Return the explained inputs, or values of the inner layer, as arrays with the model's axis of rows."""

    def reference_outputs(self, references: Points, at_once: int) -> np.ndarray:
        """Return ``outputs`` of references whose activations are kept; these are forgotten if the model has changed."""

    def contributions(self, comparison: Comparison, plan: Plan, multipliers: bool = False) -> Contributions:
        """Attribute each example's explained outputs, minus those of its references, to what is explained."""

    def forget(self) -> bool:
        """Forget everything kept of the model; return whether any of it was used, or relied on, in this call."""

    def largest_gap(self, pair: Comparison) -> OperationGap | None:
        """Return the operation that explains its own output worst on a single pair."""

    def in_double(self) -> Engine | None:
        """Return an engine of the same model that computes in float64; None if this one does."""

    def with_output(self, key: Hashable, model: Callable[..., Any], output: Any) -> Engine:
        """Return an engine of another output of the model, with the same handlers, lock and promises; the last few are kept."""

    def cached(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return ``compute()``, computed in every call, or only once while the model does not change and there is a key."""

    def list_operations(self, points: Points) -> list[OperationSummary]:
        """Return the operations that the model applies to what depends on its inputs."""

    def free_memory(self) -> int | None:
        """Return the free memory of the model's device in bytes; None if it is the machine's."""

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether an error says that the device has no memory left, after freeing what can be freed."""

    @property
    def tolerance(self) -> float:
        """How far sums may be off, relative to the scale of the outputs."""

    @property
    def handlers(self) -> Any:
        """The layers that code of the user treats as a whole."""


Choice = Callable[
    [np.ndarray, ModelProfile], np.ndarray
]  # from outputs (rows, outputs) to the numbers of the explained ones
