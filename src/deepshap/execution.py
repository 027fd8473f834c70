"""Execution: run a method's terms on an engine, in bounded memory, and add up what they contribute; where it fails, again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .engines.api import Choice, Comparison, Contributions, Engine, Plan, Points, Profile
from .errors import (
    AdditivityError,
    AdditivityWarning,
    BatchMixingError,
    ControlFlowError,
    MemoryBudgetError,
    NonFiniteError,
    UnsupportedOperationError,
)
from .estimates import RunningEstimate
from .methods import Evaluation, Known, Method, Parts, Term
from .outcome import FLOAT64, Outcome, Why, checked, complain
from .own_methods import pairs_of, parts_of
from .planning import Settings, chunks, ends_of_ways, plan_for
from .progress import Progress

# what a model that has changed since it was probed may fail by
OF_THE_MODEL = AdditivityError, BatchMixingError, ControlFlowError, NonFiniteError, UnsupportedOperationError
ROUNDINGS = 16  # one in each result moves outputs so many times less than all that a sum of many terms takes
CREDIBLE = 0.01  # of the outputs' scale; what misses more in float64 is a fault, whatever rounding seems to be
MethodFor = Callable[[Profile], Method]
# a chunk, its examples and references, what they gave
Collect = Callable[[Comparison, slice, slice, Contributions], None]


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
        before; where rounding might be, rows are explained in float64.
    """
    task = _Task(method, examples, references, choose, settings, crossed, collect)
    try:
        return _fresh(engine, task)
    except (_Missed, AdditivityError, BatchMixingError) as error:
        if error.__cause__ is not None:  # the model failed
            raise
        doubt = error
    found = doubt.found if isinstance(doubt, _Missed) else None
    again = _in_float64(engine, task, found)
    if isinstance(again, Outcome):
        return again
    if found is None:
        raise doubt
    complain(again, found, task.compared(found.columns), settings.strict)
    return found


@dataclass(frozen=True)
class _Task:
    """What ``run`` is asked."""

    method: MethodFor
    examples: Points
    references: Points
    choose: Choice
    settings: Settings
    crossed: bool
    collect: Collect | None

    def compared(self, columns: np.ndarray) -> Comparison:
        return Comparison(self.examples, self.references, self.crossed, columns)

    def of_rows(self, rows: np.ndarray, found: Outcome) -> _Task:
        """That of some rows, in the way that the others were explained."""
        columns = found.columns[rows]
        return replace(
            self,
            method=lambda _: found.method,
            examples=self.examples[rows],
            references=self.references if self.crossed else self.references[rows],
            choose=lambda *_: columns,
        )


class _Missed(Exception):
    """Attributions do not sum to what they should."""

    def __init__(self, found: Outcome) -> None:
        self.found = found


class _Stale(Exception):
    """The model is not what it was taken for."""


def _fresh(engine: Engine, task: _Task) -> Outcome:
    """Explain; where what is kept of the model might be the reason of a failure, once more without it."""
    try:
        return _run(engine, task)
    except (_Missed, _Stale, *OF_THE_MODEL):
        if task.collect is not None or not engine.forget():
            raise
    except Exception:
        if task.collect is not None or engine.confirm():
            raise
        engine.forget()
    return _run(engine, task)


def _run(engine: Engine, task: _Task) -> Outcome:
    examples, references, settings = task.examples, task.references, task.settings
    profile = engine.probe(examples, references, confirmed=task.collect is not None)
    plan = _plan(profile, task)
    native = engine.example_outputs(examples, plan.rows)
    whole = task.compared(task.choose(native, profile))
    known = engine.reference_outputs(references, plan.rows) if task.crossed and not examples.extra else None
    method = task.method(profile)
    sums = RunningEstimate(whole, method.players, method.shrinks)
    with Progress(pairs_of(method, whole), settings.progress) as bar:
        _follow(parts_of(method, whole), engine, plan, sums, bar, task.collect)
    sums.close()
    if not engine.confirm():
        raise _Stale
    expected = _expected(engine, whole, sums, known, plan)
    found = checked(whole, profile, method, sums, native, expected, known)
    if found.missed.any():
        raise _Missed(found)
    return found


def _follow(
    parts: Parts, engine: Engine, plan: Plan, sums: RunningEstimate, bar: Progress, collect: Collect | None
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
    engine: Engine, term: Term, plan: Plan, sums: RunningEstimate, bar: Progress, collect: Collect | None
) -> np.ndarray | None:
    """Add a term's contributions, chunk by chunk; return those of replicates by players, (examples, players, k)."""
    term, by_players = _fitting(term, engine, plan), []
    comparison = term.comparison
    for at, block in chunks(comparison, plan):
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
    if before is None or (shared and np.diff(ends_of_ways(before), prepend=0).max() <= plan.beside):
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


# ---------------------------------------------------------------------- in float64
def _in_float64(engine: Engine, task: _Task, found: Outcome | None) -> Outcome | Why:
    """Explain again in float64 the rows that the model's own precision cannot; or say why that is no way out.

    ``found`` is what was found in the model's own precision, if anything. The values in float64 must add up as float64
    allows, and its outputs may differ from the model's own by what rounding can make of these.
    """
    missed = None if found is None or task.collect is not None else np.flatnonzero(found.missed)
    part = task if found is None or missed is None else task.of_rows(missed, found)
    try:
        exact = engine.in_double()
        if exact is None:
            return found if found is not None and _by_rounding(engine, task, found) else Why("", engine)
        better = _even_if_missed(exact, part)
        if better.profile.tolerance > FLOAT64:
            return Why(" It turns to lower precision itself, so that a copy in float64 is no help.", engine)
        if better.missed.any() and not _by_rounding(exact, part, better):
            return Why(f" In float64 they miss it by {better.gap.max():.3g}.", exact)
        if unlike := _unlike(engine, exact, part, better):
            return Why(unlike, engine)
    except Exception as error:
        return Why(f" It could not be computed in float64 ({type(error).__name__}: {error}).", engine)
    if found is not None and missed is not None:
        return found.with_rows(missed, better)
    return replace(better, profile=replace(better.profile, dtype=np.dtype("float32")), engine=exact)


def _even_if_missed(engine: Engine, task: _Task) -> Outcome:
    try:
        return _run(engine, task)
    except _Missed as error:
        return error.found


def _by_rounding(engine: Engine, task: _Task, found: Outcome) -> bool:
    """Whether what sums in float64 miss is no more than rounding makes of the outputs, which is measured; then say so."""
    moved = [engine.rounding(points, _rows_at_once(found, task)) for points in _sides(task)]
    limit = ROUNDINGS * (moved[0] + (moved[-1].max(0) if task.crossed else moved[-1]))
    sums = sum(v.reshape(len(v), -1, v.shape[-1]).sum(1) for v in found.values)
    missed = np.abs(sums - (found.outputs - found.expected))
    if found.gap.max() > CREDIBLE or not (missed <= np.take_along_axis(limit, found.columns, 1)).all():
        return False
    warnings.warn(
        f"large numbers cancel in the model: even in float64 attributions miss their sums by up to {found.gap.max():.3g} of the "
        f"outputs' scale (tolerance {found.profile.tolerance:.1g}). Rounding of what the model computes is the cause, and "
        "moves the outputs themselves by as much. Take large terms out that all rows share, a shift in front of a softmax for "
        "instance.",
        AdditivityWarning,
        stacklevel=8,  # the line that called shap_values
    )
    return True


def _sides(task: _Task) -> tuple[Points, ...]:
    """What is compared; references that every example would give other row arguments are left out."""
    sides = task.examples, task.references.described_by(task.examples)
    return sides if not task.examples.extra or not task.crossed else sides[:1]


def _plan(profile: Profile, task: _Task) -> Plan:
    return plan_for(profile.footprint, len(task.examples), len(task.references), task.settings, profile.compiler)


def _rows_at_once(found: Outcome, task: _Task) -> int:
    return _plan(found.profile, task).rows


def _unlike(engine: Engine, exact: Engine, task: _Task, better: Outcome) -> str:
    """Why the model in float64 is another one than the model as it is, if it is."""
    at_once = _rows_at_once(better, task)
    for points in _sides(task):
        own, wide = engine.outputs(points, at_once), exact.outputs(points, at_once)
        size, moved = np.abs(own).max(1, initial=0.0, keepdims=True), engine.rounding(points, at_once)
        if not (np.abs(own - wide) <= engine.tolerance * size + ROUNDINGS * moved).all():
            return (
                f" A copy that computes in float64 has other outputs than rounding explains (they differ by up to "
                f"{np.abs(own - wide).max():.3g}, rounding moves them by {moved.max():.3g}), so that it is no help."
            )
    return ""


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
