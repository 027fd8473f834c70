"""Execution: run a method's terms on an engine, in bounded memory, add up what they contribute, and check the sums."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import psutil
from tqdm.auto import tqdm

from .additivity import additivity_gap, output_scale
from .engines.api import Choice, Comparison, Contributions, Engine, Footprint, Plan, Points, Profile
from .errors import (
    AdditivityError,
    AdditivityWarning,
    BatchMixingError,
    ControlFlowError,
    InputError,
    MemoryBudgetError,
    NonFiniteError,
)
from .estimates import RunningEstimate
from .methods import Evaluation, Known, Method, Parts, Term

MOST_PAIRS = 4096  # larger chunks are not faster, only larger
SHARE_OF_FREE_MEMORY = 0.25
DEFAULT_BUDGET = 2 * 2**30
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
MethodFor = Callable[[Profile], Method]
Collect = Callable[
    [Comparison, slice, slice, Contributions], None
]  # a chunk, its examples and references, what they gave


# ---------------------------------------------------------------------- settings and results
@dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes
    ----------
    memory : the budget for the activations of one chunk, in bytes.
    most_rows : that the model takes in one call.
    progress : whether to show a bar: always, never, or (None) when it takes longer than a few seconds.
    strict : whether sums that do not match are an error, or a warning.
    """

    memory: int = DEFAULT_BUDGET
    most_rows: int = MOST_PAIRS
    progress: bool | None = None
    strict: bool = True


@dataclass
class Outcome:
    """What explaining some rows gives, before it takes the form the user sees.

    Attributes
    ----------
    values : attributions of each explained tensor, (rows, ..., k).
    outputs, expected : the model's outputs and those it is compared with, (rows, k).
    gap : what the sums miss, relative to the outputs' scale, (rows, k).
    columns : numbers of the explained outputs, (rows, k).
    predictions : all outputs of the model, (rows, outputs).
    profile : what was found out about the model.
    method : by which they were found.
    estimate : the running sums, with the noise of values that are estimated.
    """

    values: list[np.ndarray]
    outputs: np.ndarray
    expected: np.ndarray
    gap: np.ndarray
    columns: np.ndarray
    predictions: np.ndarray
    profile: Profile
    method: Method
    estimate: RunningEstimate

    def of_rows(self, rows: np.ndarray) -> Outcome:
        """That of some rows."""
        if len(rows) == len(self.outputs):
            return self
        arrays = {name: getattr(self, name)[rows] for name in ("outputs", "expected", "gap", "columns", "predictions")}
        return replace(self, values=[v[rows] for v in self.values], estimate=self.estimate.of_rows(rows), **arrays)


# ---------------------------------------------------------------------- planning
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
    if isinstance(asked, bool) or not isinstance(asked, (int, float, np.number)) or not 0 < asked < np.inf:
        raise InputError(f"max_memory must be a positive number of bytes, or a size such as '500 MB', not {asked!r}.")
    return int(asked)


def plan_for(footprint: Footprint, examples: int, references: int, settings: Settings) -> Plan:
    """How many examples and references to take at a time, and multipliers beside them."""
    budget, most = settings.memory, settings.most_rows
    if sum(footprint) > budget:
        raise MemoryBudgetError(
            f"one pair of example and reference takes about {_size(sum(footprint))}, the budget is {_size(budget)}. "
            "Raise max_memory, or shorten the sequences."
        )
    block = min(references, (budget - footprint.example) // (footprint.reference + footprint.pair), most)
    left, each = budget - block * footprint.reference, footprint.example + block * footprint.pair
    count = max(1, min(examples, left // each, most // block))
    spare = budget - block * footprint.reference - count * footprint.example
    beside = min(budget // sum(footprint), most)
    return Plan(count, block, beside, min(spare // footprint.pair, MOST_PAIRS), budget)


def _size(count: float) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**19 else f"{count / 2**10:.1f} KiB"


def _chunks(comparison: Comparison, plan: Plan) -> Iterator[tuple[slice, slice]]:
    """Chunks of a comparison; blocks of references outermost, so that each is run only once."""
    count = len(comparison.examples)
    if comparison.before is not None:
        yield from ((at, slice(None)) for at in _whole_ways(comparison.before, plan.beside))
        return
    if not comparison.crossed:
        yield from ((at, slice(None)) for at in _slices(count, plan.beside))
        return
    for block in _slices(len(comparison.references), plan.references):
        yield from ((at, block) for at in _slices(count, plan.examples, block.stop - block.start))


def _whole_ways(before: np.ndarray, size: int) -> Iterator[slice]:
    """Cut points into parts of whole ways, none of which is longer than a part may be."""
    ends, first = _ends_of_ways(before), 0
    while first < len(before):
        last = int(ends[np.searchsorted(ends, first + size, "right") - 1])
        yield slice(first, last)
        first = last


def _ends_of_ways(before: np.ndarray) -> np.ndarray:
    return np.append(np.flatnonzero(before == np.arange(len(before)))[1:], len(before))


def _slices(count: int, size: int, references: int = 0) -> Iterator[slice]:
    """Cut rows into parts of a size, none as many as the references: engines tell the two sides apart by number."""
    start = 0
    while start < count:
        part = min(size, count - start)
        part = -(-part // 2) if part == references else part
        yield slice(start, start + part)
        start += part


# ---------------------------------------------------------------------- running
def run(
    engine: Engine,
    method: MethodFor,
    examples: Points,
    references: Points,
    choose: Choice,
    settings: Settings,
    crossed: bool = True,
    collect: Collect | None = None,
) -> Outcome:
    """Explain examples against references, each with each or row k with row k, by a method.

    ``method`` is chosen when the profile of the model is known, and ``choose`` says which outputs of the rows to explain.
    ``collect`` is shown every chunk, with the multipliers of its pairs.

    Raises
    ------
    DeepShapError
        Whatever prevents an explanation that adds up. Where kept activations might be the reason, they are recorded anew
        before.
    """
    arguments = engine, method, examples, references, choose, settings, crossed, collect
    try:
        return _run(*arguments)
    except (AdditivityError, BatchMixingError, ControlFlowError, NonFiniteError):
        if collect is not None or not engine.forget():
            raise
    return _run(*arguments)


def _run(
    engine: Engine,
    method: MethodFor,
    examples: Points,
    references: Points,
    choose: Choice,
    settings: Settings,
    crossed: bool,
    collect: Collect | None,
) -> Outcome:
    profile = engine.probe(examples, references)
    plan = plan_for(profile.footprint, len(examples), len(references), settings)
    native = engine.outputs(examples, plan.rows)
    columns = choose(native, profile)
    whole = Comparison(examples, references, crossed, columns)
    known = engine.reference_outputs(references, plan.rows) if crossed and not examples.extra else None
    chosen = method(profile)
    sums = RunningEstimate(whole, chosen.players, chosen.shrinks)
    bar = tqdm(
        total=chosen.pairs(whole),
        unit="pair",
        disable=settings.progress is False,
        delay=0 if settings.progress else 3,
        leave=bool(settings.progress),
    )
    with bar:
        _follow(chosen.parts(whole), engine, plan, sums, bar, collect)
    sums.close()
    expected = _expected(engine, whole, sums, known, plan)
    return _checked(engine, whole, profile, chosen, sums, native, expected, known, settings.strict)


def _follow(
    parts: Parts, engine: Engine, plan: Plan, sums: RunningEstimate, bar: tqdm, collect: Collect | None
) -> None:
    """Do what a method asks for, part by part, and answer it."""
    answer: np.ndarray | None = None
    while True:
        try:
            part = parts.send(answer)
        except StopIteration:
            return
        if isinstance(part, Evaluation):
            answer = engine.outputs(part.points, plan.rows, "the points between example and reference")
            bar.update(len(part.points))
            continue
        sums.begin(part)
        if isinstance(part, Known):
            sums.add_known(part)
            answer = None
        else:
            answer = _add(engine, part, plan, sums, bar, collect)


def _add(
    engine: Engine, term: Term, plan: Plan, sums: RunningEstimate, bar: tqdm, collect: Collect | None
) -> np.ndarray | None:
    """Add a term's contributions, chunk by chunk; return those of replicates by players, (examples, players, k)."""
    term, by_players = _fitting(term, engine, plan), []
    comparison = term.comparison
    for at, block in _chunks(comparison, plan):
        part = comparison.part(at, block)
        found = _contributions(engine, part, plan, collect is not None)
        if collect is not None:
            collect(part, at, block, found)
        share = len(part.references) / len(comparison.references) if comparison.crossed else 1.0
        by_players.append(sums.add(term, at, part.outputs, found, share))
        bar.update(part.pairs)
    return None if term.replicates is None else np.concatenate([v for v in by_players if v is not None])


def _fitting(term: Term, engine: Engine, plan: Plan) -> Term:
    """Points of ways that the engine runs twice anyway, or that are too long for memory, become pairs like any others."""
    before = term.comparison.before
    shared = engine.shares and not term.comparison.examples.extra
    if before is None or (shared and np.diff(_ends_of_ways(before), prepend=0).max() <= plan.beside):
        return term
    return term.apart()


def _contributions(engine: Engine, part: Comparison, plan: Plan, multipliers: bool) -> Contributions:
    """Explain a chunk; where the device has not enough memory for it, in halves."""
    try:
        return engine.contributions(part, plan, multipliers)
    except Exception as error:
        if not engine.is_out_of_memory(error):
            raise
        if part.pairs == 1:
            raise MemoryBudgetError(
                f"the device has not enough memory for one pair of example and reference ({error}). Free some, shorten the "
                "sequences, or explain a copy of the model on the CPU."
            ) from error
    # out of the except block, which keeps the memory of what failed
    part = part.apart()
    count = len(part.examples)
    join, size = (
        (Contributions.of_examples, count) if count > 1 else (Contributions.of_references, len(part.references))
    )
    cuts = slice(0, size // 2), slice(size // 2, size)
    halves = [part.part(cut) if count > 1 else part.part(slice(None), cut) for cut in cuts]
    return join([_contributions(engine, half, plan, multipliers) for half in halves])


# ---------------------------------------------------------------------- checking
def _checked(
    engine: Engine,
    whole: Comparison,
    profile: Profile,
    method: Method,
    sums: RunningEstimate,
    native: np.ndarray,
    expected: np.ndarray,
    known: np.ndarray | None,
    strict: bool,
) -> Outcome:
    """Compare what was found with the outputs of the untouched model; raise, or only warn, if it does not add up.

    ``native`` are the model's outputs for the examples, ``known`` those for the references if they are the same for all
    rows, both (rows, outputs); ``expected`` is the mean output of each row's references (rows, k).
    """
    columns = whole.outputs
    outputs = np.take_along_axis(native, columns, 1)
    if not np.isfinite(expected).all():
        raise NonFiniteError("the model returns NaN or infinity for a row of the background.")
    of_references = np.abs(expected).max(1, initial=0.0) if known is None else np.abs(known).max(initial=0.0)
    largest = np.maximum(np.abs(native).max(1, initial=0.0), of_references)
    _compare_with_native(profile.tolerance, sums, outputs, expected, output_scale(outputs, expected, largest))
    values = sums.values()
    gap = additivity_gap(values, outputs, expected, largest, profile.tolerance, profile.eps)
    found = Outcome(values, outputs, expected, gap, columns, native, profile, method, sums)
    _check(engine, found, whole, strict)
    return found


def _expected(
    engine: Engine, whole: Comparison, sums: RunningEstimate, known: np.ndarray | None, plan: Plan
) -> np.ndarray:
    """Mean output of each row's references, (rows, k); where no term has told it, the model is asked."""
    if known is not None:
        return known.mean(0)[whole.outputs]
    if sums.expected is not None:
        return sums.expected
    means = []
    for row, columns in enumerate(whole.outputs):
        own = whole.references if whole.crossed else whole.references[row : row + 1]
        described = own.described_by(whole.examples[np.full(len(own), row)])
        means.append(engine.outputs(described, plan.rows, "the background").mean(0)[columns])
    return np.stack(means)


def _compare_with_native(
    tolerance: float, sums: RunningEstimate, outputs: np.ndarray, expected: np.ndarray, scale: np.ndarray
) -> None:
    """Check that the model computed the same among its pairs as by itself."""
    gap = np.abs(sums.difference - (outputs - expected)) / scale
    if not (gap <= 10 * tolerance).all():
        row = int(np.unravel_index(np.nanargmax(gap), gap.shape)[0])
        raise BatchMixingError(
            f"the output of row {row} changes by {np.nanmax(gap):.3g} of its scale when the model runs among other batch "
            "mates or once more: it depends on the batch, on random numbers, or on state kept between calls. Such a "
            "model has no attribution per row."
        )


def _check(engine: Engine, found: Outcome, whole: Comparison, strict: bool) -> None:
    """Raise, or warn when the caller asked for it, if any row and output does not add up."""
    tolerance = found.profile.tolerance
    if all(np.isfinite(v).all() for v in found.values) and (found.gap <= tolerance).all():
        return
    row, column = np.unravel_index(int(np.argmax(np.nan_to_num(found.gap, nan=np.inf))), found.gap.shape)
    message = _gap_message(engine, found, int(row), int(column), whole)
    if not strict:
        warnings.warn(message, AdditivityWarning, stacklevel=7)  # the line that called shap_values
    elif np.isfinite(found.gap[row, column]):
        raise AdditivityError(message)
    else:
        raise NonFiniteError(message)


def _gap_message(engine: Engine, found: Outcome, row: int, column: int, whole: Comparison) -> str:
    output, expected = found.outputs[row, column], found.expected[row, column]
    gap, tolerance = found.gap[row, column], found.profile.tolerance
    missed = (
        f"the attributions of row {row}, output {column} do not add up: they should sum to {output - expected:.6g} "
        f"(output {output:.6g} minus expected output {expected:.6g}) and miss it by {gap:.3g} of the outputs' scale "
        f"(tolerance {tolerance:.1g}). "
    )
    blame = engine.blame(whole.pair(row))
    if blame is None or not blame.gap > tolerance * max(blame.size, 1e-30):
        return missed + (
            "Every operation explains its own output. So either a part of the output reaches the explained input by a way that "
            "is not followed (around the explained layer, or through a rule registered as linear or constant for something that "
            f"is not), or large numbers cancel in the model: then explain a float64 copy of it ({engine.in_float64})."
        )
    return missed + (
        f"Most likely cause: {blame.name} at {blame.place}, whose rule misses {blame.gap:.3g} of {blame.size:.3g}. "
        "If its rule is yours, correct it (deepshap.register_rule); if not, please report it."
    )
