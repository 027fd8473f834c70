"""Average attributions over pairs of examples and references, in bounded memory, and check that they add up."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import psutil
from tqdm.auto import tqdm

from .engines.inputs import InputForm
from .errors import (
    AdditivityError,
    AdditivityWarning,
    BatchMixingError,
    InputError,
    MemoryBudgetError,
    NonFiniteError,
)

MOST_PAIRS = 4096  # larger chunks are not faster, only larger
SHARE_OF_FREE_MEMORY = 0.25
DEFAULT_BUDGET = 2 * 2**30
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass
class Chunk:
    """Some examples, with their row arguments and explained outputs, and a block of references."""

    examples: list[Any]
    references: list[Any]
    extra: tuple[Any, ...]
    columns: np.ndarray
    block: tuple[int, int]

    @property
    def pairs(self) -> tuple[int, int]:
        """Numbers of examples and references."""
        return len(self.examples[0]), len(self.references[0])

    def halves(self) -> tuple[Chunk, Chunk, str]:
        """Two chunks, and whether the examples are divided between them or, of a single one, the references."""
        examples, references = self.pairs
        if examples > 1:
            cut = examples // 2
            return self._part(slice(0, cut)), self._part(slice(cut, examples)), "examples"
        cut, (start, stop) = references // 2, self.block
        before, after = slice(0, cut), slice(cut, references)
        return (
            replace(self, references=[r[before] for r in self.references], block=(start, start + cut)),
            replace(self, references=[r[after] for r in self.references], block=(start + cut, stop)),
            "references",
        )

    def _part(self, at: slice) -> Chunk:
        extra = tuple(e[at] if getattr(e, "ndim", 0) else e for e in self.extra)
        return replace(self, examples=[x[at] for x in self.examples], extra=extra, columns=self.columns[at])


@dataclass
class Attributions:
    """What explaining some rows gives, before it takes the form the user sees.

    ``values`` holds one array (rows, ..., outputs) per explained tensor; ``outputs`` and ``expected`` have shape
    (rows, outputs), ``gap`` is what the sums miss, relative to the outputs' scale, (rows, outputs).
    """

    values: list[np.ndarray]
    outputs: np.ndarray
    expected: np.ndarray
    gap: np.ndarray


def joined(parts: Sequence[Attributions]) -> Attributions:
    """Attributions of some rows after those of others."""
    values = [np.concatenate(of_input) for of_input in zip(*(part.values for part in parts), strict=True)]
    return Attributions(
        values, *(np.concatenate([getattr(p, n) for p in parts]) for n in ("outputs", "expected", "gap"))
    )


class Engine(Protocol):
    """What a framework's engine offers.

    ``in_float64``: how its users get a copy of a model that computes in float64.
    """

    in_float64: str

    @property
    def inputs(self) -> InputForm:
        """The form of the model's inputs."""

    def attribute(self, chunk: Chunk) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Attributions summed over references (outputs, examples, ...), example outputs, summed reference outputs."""

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether an error says that the device has no memory left; what can be freed then is."""

    def blame(self, chunk: Chunk) -> Any:
        """The operation that explains its own output worst on a single pair."""

    @property
    def tolerance(self) -> float:
        """How far sums may be off, relative to the scale of the outputs."""

    @property
    def eps(self) -> float:
        """Rounding unit of the model's dtype."""


def memory_budget(asked: int | str | None, free: int | None = None) -> int:
    """Bytes that a run may take: what the user asks, else a share of what is free."""
    if asked is None:
        return min(DEFAULT_BUDGET, int(SHARE_OF_FREE_MEMORY * (free or psutil.virtual_memory().available)))
    if isinstance(asked, str):
        text = asked.strip().upper().removesuffix("B").removesuffix("I").strip()
        number = text.rstrip("KMGT ")
        try:
            asked = int(float(number) * UNITS[text[len(number) :].strip()])
        except (ValueError, KeyError, OverflowError):
            raise InputError(f"max_memory={asked!r} is not a size such as '500 MB' or '2 GiB'.") from None
    if asked <= 0:
        raise InputError(f"max_memory must be positive, not {asked}.")
    return int(asked)


class Footprint(NamedTuple):
    """Memory in bytes that each reference, each example and each pair of a chunk takes."""

    reference: int
    example: int
    pair: int


def chunk_sizes(
    examples: int, references: int, footprint: Footprint, budget: int, most_pairs: int = MOST_PAIRS
) -> tuple[int, int]:
    """How many examples and references to take at a time."""
    if sum(footprint) > budget:
        raise MemoryBudgetError(
            f"one pair of example and reference takes about {_size(sum(footprint))}, the budget is {_size(budget)}. "
            "Raise max_memory, or shorten the sequences."
        )
    block = min(references, (budget - footprint.example) // (footprint.reference + footprint.pair), most_pairs)
    left, each = budget - block * footprint.reference, footprint.example + block * footprint.pair
    return max(1, min(examples, left // each, most_pairs // block)), block


def rows_at_once(footprint: Footprint, sizes: tuple[int, int], budget: int) -> int:
    """Multipliers, one for each pair and explained output, that fit beside a chunk's references and examples."""
    examples, block = sizes
    left = budget - block * footprint.reference - examples * footprint.example
    return min(left // footprint.pair, MOST_PAIRS)


def _size(count: float) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**19 else f"{count / 2**10:.1f} KiB"


def explain(
    engine: Engine,
    examples: list[Any],
    references: list[Any],
    extra: tuple[Any, ...],
    columns: np.ndarray,
    sizes: tuple[int, int],
    progress: bool | None,
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Explain all examples against all references.

    ``columns`` (examples, k) names the outputs to explain. Returns the mean attributions per explained tensor (examples,
    ..., k), the outputs and the mean reference outputs of the explained columns (examples, k).
    """
    count, background = len(examples[0]), len(references[0])
    values: list[np.ndarray] = []
    outputs, expected = np.zeros(columns.shape), np.zeros(columns.shape)
    bar = tqdm(
        total=count * background,
        unit="pair",
        disable=progress is False,
        delay=0 if progress else 3,
        leave=bool(progress),
    )
    with bar:
        for chunk, at in chunks(examples, references, extra, columns, sizes):
            totals, fx, fr = _attribute(engine, chunk)
            if not values:
                values = [np.zeros((count, *t.shape[2:], t.shape[0])) for t in totals]
            for value, total in zip(values, totals, strict=True):
                value[at] += np.moveaxis(total, 0, -1) / background
            outputs[at] = np.take_along_axis(fx, chunk.columns, 1)
            expected[at] += np.take_along_axis(fr, chunk.columns, 1) / background
            bar.update(chunk.pairs[0] * chunk.pairs[1])
    return values, outputs, expected


def _attribute(engine: Engine, chunk: Chunk) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Explain a chunk; where the device has not enough memory for it, in halves."""
    try:
        return engine.attribute(chunk)
    except Exception as error:
        if not engine.is_out_of_memory(error):
            raise
        if chunk.pairs == (1, 1):
            raise MemoryBudgetError(
                f"the device has not enough memory for one pair of example and reference ({error}). Free some, shorten the "
                "sequences, or explain a copy of the model on the CPU."
            ) from error
    first, second, together = chunk.halves()  # out of the except block, which keeps the memory of what failed
    (a, fa, ra), (b, fb, rb) = _attribute(engine, first), _attribute(engine, second)
    if together == "examples":
        return (
            [np.concatenate(both, 1) for both in zip(a, b, strict=True)],
            np.concatenate([fa, fb]),
            np.concatenate([ra, rb]),
        )
    return [x + y for x, y in zip(a, b, strict=True)], fa, ra + rb


def chunks(
    examples: list[Any], references: list[Any], extra: tuple[Any, ...], columns: np.ndarray, sizes: tuple[int, int]
) -> Iterator[tuple[Chunk, slice]]:
    """Blocks of references outermost, so that each is run only once."""
    count, background = len(examples[0]), len(references[0])
    for first in range(0, background, sizes[1]):
        block = slice(first, min(first + sizes[1], background))
        for at in _parts(count, sizes[0], block.stop - block.start):
            rows = tuple(e[at] if getattr(e, "ndim", 0) else e for e in extra)
            yield (
                Chunk(
                    [x[at] for x in examples],
                    [r[block] for r in references],
                    rows,
                    columns[at],
                    (block.start, block.stop),
                ),
                at,
            )


def _parts(count: int, size: int, references: int) -> Iterator[slice]:
    """Cut the examples into parts of a size, none as many as the references: engines tell the two sides apart by number."""
    start = 0
    while start < count:
        part = min(size, count - start)
        part = -(-part // 2) if part == references else part
        yield slice(start, start + part)
        start += part


def single_pair(
    engine: Engine,
    examples: list[Any],
    references: list[Any],
    extra: Sequence[Any],
    columns: np.ndarray,
    row: int,
) -> Chunk:
    """The chunk of one row and the first reference."""
    at = slice(row, row + 1)
    one, first = [x[at] for x in examples], [r[:1] for r in references]
    return Chunk(one, first, engine.inputs.rows_of(extra, at), columns[at], (-1, -1))


def _compare_with_native(tolerance: float, traced: np.ndarray, native: np.ndarray, scale: np.ndarray) -> None:
    """Check that the model computed the same among its pairs as by itself."""
    gap = np.abs(traced - native) / scale
    if not (gap <= 10 * tolerance).all():
        row = int(np.unravel_index(np.nanargmax(gap), gap.shape)[0])
        raise BatchMixingError(
            f"the output of row {row} changes by {np.nanmax(gap):.3g} of its scale when the model runs among other batch "
            "mates or once more: it depends on the batch, on random numbers, or on state kept between calls. Such a "
            "model has no attribution per row."
        )


def verified(
    engine: Engine,
    values: list[np.ndarray],
    outputs: np.ndarray,
    native: np.ndarray,
    expected: np.ndarray,
    pair: Callable[[int], Chunk],
    strict: bool = True,
) -> Attributions:
    """Compare a run's attributions with the outputs of the untouched model; raise, or only warn, if they do not add up.

    ``values`` holds one array (rows, ..., outputs) per explained tensor; the other arrays have shape (rows, outputs):
    outputs of the run, of the model by itself, and mean outputs on the references. ``pair(row)`` is a chunk of that row and
    one reference.
    """
    if not np.isfinite(expected).all():
        raise NonFiniteError("the model returns NaN or infinity for a row of the background.")
    _compare_with_native(engine.tolerance, outputs, native, output_scale(native, expected))
    gap = additivity_gap(values, native, expected, engine.tolerance, engine.eps)
    result = Attributions(values, native, expected, gap)
    check(engine, result, pair, engine.tolerance, strict)
    return result


def additivity_gap(
    values: list[np.ndarray], outputs: np.ndarray, expected: np.ndarray, tolerance: float, eps: float
) -> np.ndarray:
    """|sum of attributions - (output - expected output)| over the scale of the outputs, (examples, outputs).

    The scale is the larger of the two outputs, or a thousandth of the largest among all rows where both are small. To it
    comes what rounding of the summands can make of their sum, so that outputs of 0 have a scale too; but never more than
    the largest output, so that attributions which explode do not excuse themselves.
    """
    flat = [v.reshape(len(v), -1, v.shape[-1]) for v in values]
    explained, summands = sum(v.sum(1) for v in flat), sum(np.abs(v).sum(1) for v in flat)
    largest = max(np.abs(outputs).max(initial=0.0), np.abs(expected).max(initial=0.0))
    rounding = np.minimum(64 * eps / tolerance * summands, largest if largest else np.inf)
    scale = output_scale(outputs, expected) + rounding
    return np.abs(explained - (outputs - expected)) / scale


def output_scale(outputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Size of the outputs of each row, not less than a thousandth of the largest."""
    scale = np.maximum(np.abs(outputs), np.abs(expected))
    return np.maximum(scale, scale.max(initial=0.0) * 1e-3) + np.finfo(np.float32).tiny


def check(engine: Engine, result: Attributions, worst_pair: Any, tolerance: float, strict: bool) -> None:
    """Raise, or warn when the caller asked for it, if any row and output does not add up."""
    if all(np.isfinite(v).all() for v in result.values) and (result.gap <= tolerance).all():
        return
    row, column = np.unravel_index(int(np.argmax(np.nan_to_num(result.gap, nan=np.inf))), result.gap.shape)
    message = _gap_message(engine, result, int(row), int(column), tolerance, worst_pair)
    if not strict:
        warnings.warn(message, AdditivityWarning, stacklevel=6)  # the line that called shap_values
    elif np.isfinite(result.gap[row, column]):
        raise AdditivityError(message)
    else:
        raise NonFiniteError(message)


def _gap_message(engine: Engine, result: Attributions, row: int, column: int, tolerance: float, worst_pair: Any) -> str:
    output, expected = result.outputs[row, column], result.expected[row, column]
    gap = result.gap[row, column]
    found = (
        f"the attributions of row {row}, output {column} do not add up: they should sum to {output - expected:.6g} "
        f"(output {output:.6g} minus expected output {expected:.6g}) and miss it by {gap:.3g} of the outputs' scale "
        f"(tolerance {tolerance:.1g}). "
    )
    blame = engine.blame(worst_pair(row))
    if blame is None or not blame.gap > tolerance * max(blame.size, 1e-30):
        return found + (
            "Every operation explains its own output. So either a part of the output reaches the explained input by a way that "
            "is not followed (around the explained layer, or through a rule registered as linear or constant for something that "
            f"is not), or large numbers cancel in the model: then explain a float64 copy of it ({engine.in_float64})."
        )
    return found + (
        f"Most likely cause: {blame.name} at {blame.place}, whose rule misses {blame.gap:.3g} of {blame.size:.3g}. "
        "If its rule is yours, correct it (deepshap.register_rule); if not, please report it."
    )
