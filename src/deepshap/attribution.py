"""Attribution: carry out one call of an explainer.

A call is an ``AttributionRequest``: rows read, the references that they are compared with, which outputs are explained, and
what may be spent. ``attribute`` carries the request out and returns an ``AttributionResult``. Five steps lead there:

1. The engine analyzes the model on one pair of example and reference (``Engine.analyze``).
2. The method is chosen: Deep SHAP, or with an effort above 1 a method of ``sampling``. A method yields weighted
   comparisons of examples and references, and may ask for outputs and contributions.
3. Every comparison is run in chunks that fit into the memory budget, and its contributions are added up (``RunningEstimate``).
4. The sums are compared with the outputs of the unmodified model. The difference of outputs that the chunks saw must be the
   model's own (else the output of a row depends on other rows, random numbers or kept state), and the attributions must sum
   to it.
5. Rows that miss their sum in float32 are explained again in float64.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from .engines.interface import Choice, Comparison, Contributions, Engine, ModelProfile, Plan, Points
from .errors import (
    AdditivityError,
    AdditivityWarning,
    BatchMixingError,
    ControlFlowError,
    InputError,
    MemoryBudgetError,
    NonFiniteError,
    UnsupportedOperationError,
    check_whole,
    of_user,
    warn_caller,
)
from .formulas.additivity import additivity_gap, output_scale, select_columns, zero_and_redistribute
from .memory import DEFAULT_BUDGET, MOST_PAIRS, chunks, evenly, plan_for
from .outputs import OutputSelection
from .sampling import (
    Attribution,
    DeepShap,
    Evaluation,
    KnownContribution,
    Method,
    Paths,
    Players,
    Reliability,
    RunningEstimate,
    Sweeps,
    Uncertainty,
    WeightedComparison,
    WeightedDeepShap,
    choice,
)
from .sampling.comparisons import check_method, check_sums
from .sampling.estimates import largest_errors
from .sampling.reliability import distance, effort_for

# what a model that has changed since it was probed may fail by
OF_THE_MODEL = AdditivityError, BatchMixingError, ControlFlowError, NonFiniteError, UnsupportedOperationError
FLOAT64 = 1e-9  # the tolerance of a model that computes in float64 alone
# share of a row's outputs by which those in float64 may differ, if they are the same model's
ANOTHER_MODEL, TOLERANCES = 0.2, 20  # and in very low precision this many of its tolerances
MOST_EFFORT = 64.0  # for a tolerance, unless the user says otherwise
PATIENCE = 3.0  # seconds before a progress bar is shown
FIRST_EFFORT = 2.0  # with a tolerance
MEASURED_ROWS = 6  # on which costs are measured
FEWEST_POINTS, MOST_POINTS = 1024, 4096  # that a processor evaluates at a time: more fall out of its cache
MOST_CELLS = 2**17  # of these points together, if there are more than the fewest
PROBING = 16.0  # effort at which it is told how far Deep SHAP is off
# a chunk, its examples and references, and its contributions
Collect = Callable[[Comparison, slice, slice, Contributions], None]


@dataclass(frozen=True)
class AttributionRequest:
    """What one call asks for.

    Attributes
    ----------
    examples, references : Points
        The rows to explain and what they are compared with.
    choose : callable
        Returns the numbers of the explained outputs of each row, (rows, k), from all outputs (rows, outputs) and the profile.
    all_pairs : bool
        Whether every example is compared with every reference, or row k with row k.
    players, effort, tolerance, max_effort, seed, method
        As for ``DeepExplainer.shap_values``; players that are None attribute each cell by itself.
    memory, most_rows : int
        Budget of one chunk in bytes, and rows that the model takes in one call.
    progress : bool, optional
        Whether to show a bar: always, never, or (None) when it takes longer than a few seconds.
    strict : bool
        Whether attributions that do not add up are an error, or a warning.
    weights : array, optional
        Weights of the references, (references,), which sum to 1; by default they are equal.
    collect : callable, optional
        Gets every chunk with the multipliers of its pairs.
    costs : dict
        What was measured of the model in earlier calls, by ``kind``; what is measured in this one is put there.
    """

    examples: Points
    references: Points
    choose: Choice
    all_pairs: bool = True
    players: Players | None = None
    effort: float = 1
    tolerance: float | None = None
    max_effort: float | None = None
    seed: int = 0
    method: Method | None = None
    memory: int = DEFAULT_BUDGET
    most_rows: int = MOST_PAIRS
    progress: bool | None = None
    strict: bool = True
    weights: np.ndarray | None = None
    collect: Collect | None = None
    costs: dict[Hashable, choice.Costs] = field(default_factory=dict)

    def chosen_method(self) -> Method:
        """Return the user's method, Deep SHAP, or the method that the effort buys for this model."""
        if self.method is not None:
            return self.method
        if self.weights is not None:
            return WeightedDeepShap(self.weights, self.players)
        if self.players is None:
            return DeepShap()
        return choice.choose(self.effort, self.players, len(self.references), self.seed, self.costs.get(self.kind))

    @property
    def kind(self) -> Hashable:
        """What costs depend on beside the model: the shapes of rows, and the numbers of references and players."""
        shapes = [tuple(x.shape[1:]) for x in self.examples.inputs]
        return (*shapes, len(self.references), self.players and self.players.count)

    def comparison(self, columns: np.ndarray) -> Comparison:
        """Return all pairs, with the explained outputs of each row."""
        return Comparison(self.examples, self.references, self.all_pairs, columns)

    def of_rows(self, rows: np.ndarray) -> AttributionRequest:
        """Return the request for some of the rows."""
        references = self.references if self.all_pairs else self.references[rows]

        def choose(predictions: np.ndarray, profile: ModelProfile) -> np.ndarray:
            all_predictions = np.zeros(
                (len(self.examples), predictions.shape[1])
            )  # targets are known by the numbers of the rows
            all_predictions[rows] = predictions
            return self.choose(all_predictions, profile)[rows]

        return replace(self, examples=self.examples[rows], references=references, choose=choose)

    def plan(self, profile: ModelProfile) -> Plan:
        """Return how much is run at a time."""
        counts = len(self.examples), len(self.references)
        return plan_for(profile.footprint, *counts, self.memory, self.most_rows, profile.compiler)


@dataclass
class AttributionResult:
    """What explaining some rows gives; arrays have the rows first.

    Attributes
    ----------
    values : attributions of each explained tensor, (rows, ..., k); with players one array (rows, players, k).
    outputs, expected : the model's outputs and the mean outputs of the references, (rows, k).
    gap : what the sums miss, relative to the outputs' scale, (rows, k).
    columns : numbers of the explained outputs, (rows, k).
    predictions : all outputs of the model, (rows, outputs).
    profile, method : what was found out about the model, and the method that was run.
    description : of the method, or the methods, in words.
    errors : standard errors in the form of the values; None where nothing is estimated.
    replicates : independent estimates in the form of the values; empty where nothing is estimated.
    converged : whether the standard errors are within the tolerance, (rows,); None without one.
    engine : the engine in float64 that all rows needed, if they did.
    """

    values: list[np.ndarray]
    outputs: np.ndarray
    expected: np.ndarray
    gap: np.ndarray
    columns: np.ndarray
    predictions: np.ndarray
    profile: ModelProfile
    method: Method
    description: str
    errors: list[np.ndarray] | None = None
    replicates: list[list[np.ndarray]] | None = None
    converged: np.ndarray | None = None
    engine: Engine | None = None

    @property
    def missed(self) -> np.ndarray:
        """Which rows do not add up, (rows,)."""
        finite = np.all([np.isfinite(v).reshape(len(v), -1).all(1) for v in self.values], 0)
        return ~(finite & (self.gap <= self.profile.tolerance).all(1))

    def of_rows(self, rows: np.ndarray) -> AttributionResult:
        """Return the result of some rows."""
        return _by_row([self], lambda arrays: arrays[0][rows])

    def with_rows(self, rows: np.ndarray, replacement: AttributionResult) -> AttributionResult:
        """Return the same with some rows from another result."""

        def put(arrays: list[np.ndarray]) -> np.ndarray:
            merged = arrays[0].copy()
            merged[rows] = arrays[1]
            return merged

        return _by_row([self, replacement], put)

    @staticmethod
    def joined(parts: list[AttributionResult], rows: list[np.ndarray]) -> AttributionResult:
        """Return the results of parts as one; ``rows`` are the numbers of the rows of each part."""
        if len(parts) == 1:
            return parts[0]
        order = np.argsort(np.concatenate(rows))
        result = _by_row(parts, lambda arrays: np.concatenate(arrays)[order])
        by_first_row = sorted(range(len(parts)), key=lambda part: rows[part][0])
        return replace(result, description="; ".join(dict.fromkeys(parts[at].description for at in by_first_row)))

    def selected(self, selection: OutputSelection) -> AttributionResult:
        """Return the result in terms of what the user asked for, from that of the chosen columns."""
        shape, dtype = self.profile.output_shape, self.profile.dtype
        return replace(
            self,
            values=[selection.combined(v, shape).astype(dtype) for v in self.values],
            errors=None
            if self.errors is None
            else [selection.error_bound(e, shape).astype(dtype) for e in self.errors],
            replicates=[
                [selection.combined(v, shape).astype(dtype) for v in replicate] for replicate in self.replicates or []
            ],
            expected=selection.combined(self.expected, shape),
            outputs=selection.combined(self.outputs, shape),
            gap=selection.worst(self.gap, shape),
        )

    def map(self, change: Callable[[np.ndarray], list[np.ndarray]]) -> AttributionResult:
        """Return the result with each array of values, standard errors and replicates changed into a list of arrays."""
        return replace(
            self,
            values=change(self.values[0]),
            errors=None if self.errors is None else change(self.errors[0]),
            replicates=[change(replicate[0]) for replicate in self.replicates or []],
        )


BY_ROW = (
    "values", "outputs", "expected", "gap", "columns", "predictions",
    "errors", "replicates", "converged",
)  # fmt: skip


def _by_row(results: list[AttributionResult], combine: Callable[[list[np.ndarray]], np.ndarray]) -> AttributionResult:
    """Combine the arrays of results that have the rows first, one field after the other."""

    def combined(parts: Any) -> Any:
        if any(part is None for part in parts):
            return None
        if isinstance(parts[0], list):
            return [combined(arrays) for arrays in zip(*parts, strict=False)]  # some may have no replicates
        return combine(list(parts))

    fields = {name: combined([getattr(result, name) for result in results]) for name in BY_ROW}
    return replace(results[0], **fields)


# ---------------------------------------------------------------------- a request
def check_sampling(effort: Any, tolerance: Any, max_effort: Any, players: Any, seed: Any, method: Any) -> None:
    """Raise InputError for options of a call that make no sense."""
    choice.check_effort(effort, tolerance, max_effort)
    check_whole("seed", seed, 0)
    if isinstance(method, str):
        if effort != 1 or tolerance is not None:
            raise InputError("method= says itself what is run; leave effort= and tolerance= out.")
    elif method is not None:
        check_method(method)
        if not (effort == 1 and tolerance is None and isinstance(players, str) and players == "cells"):
            raise InputError(
                "method= says itself who the players are and what is run; leave effort=, tolerance= and players= out."
            )


def attribute(engine: Engine, request: AttributionRequest) -> AttributionResult:
    """Carry a request out; with a tolerance, repeat it with more effort for the rows that have not converged.

    Raises
    ------
    DeepShapError
        Whatever prevents an explanation that adds up. Nothing is returned then.
    """
    if request.method is None and (request.effort > 1 or request.tolerance is not None):
        _measure_costs(engine, request)
    if request.tolerance is None:
        return _in_cells(run(engine, request), request)
    limit = MOST_EFFORT if request.max_effort is None else request.max_effort
    effort, left = FIRST_EFFORT, np.arange(len(request.examples))
    parts, rows = [], []
    while len(left):
        remaining = request if len(left) == len(request.examples) else request.of_rows(left)
        result = run(engine, replace(remaining, effort=effort))
        assert result.errors is not None
        near = largest_errors(result.errors[0], result.values[0]) <= request.tolerance
        done = np.ones(len(left), bool) if effort >= limit else near
        if done.any():
            parts.append(replace(result, converged=near).of_rows(np.flatnonzero(done)))
            rows.append(left[done])
        left, effort = left[~done], min(4 * effort, limit)
    return _in_cells(AttributionResult.joined(parts, rows), request)


def attribute_combined(
    engine: Engine, request: AttributionRequest, combine: Callable[..., Sequence[Any]]
) -> AttributionResult:
    """Carry a request of Deep SHAP out; a user's function of multipliers, rows and references takes the place of the values.

    The attributions themselves are checked as always; what the function returns need not add up.

    Parameters
    ----------
    engine, request
        As for ``attribute``.
    combine : callable
        ``combine_mult_and_diffref`` of ``DeepExplainer``.
    """
    if request.players is not None or request.weights is not None:
        raise InputError(
            "combine_mult_and_diffref takes the multipliers of Deep SHAP, cell by cell and against rows that count alike: "
            "leave effort=, tolerance=, players= and method= out."
        )
    totals: list[np.ndarray] = []

    def collect(part: Comparison, at: slice, block: slice, contributions: Contributions) -> None:
        assert contributions.multipliers is not None
        multipliers = [m[1] for m in contributions.multipliers]  # (k, examples, references, ...)
        x, references = engine.explained(part.examples), engine.explained(part.references)
        if not (at.start or block.start):  # also where it begins again in float64
            totals[:] = [np.zeros((len(request.examples), *m.shape[3:], len(m))) for m in multipliers]
        for output, example in np.ndindex(multipliers[0].shape[:2]):
            mult = [m[output, example] for m in multipliers]
            with of_user("combine_mult_and_diffref"):
                values = [np.asarray(array) for array in combine(mult, [v[example] for v in x], references)]
            shapes = [m.shape for m in mult]
            if [value.shape for value in values] != shapes:
                raise InputError(
                    f"combine_mult_and_diffref must return a list of arrays of the multipliers' shapes, {shapes}, not "
                    f"{[value.shape for value in values]}."
                )
            for total, value in zip(totals, values, strict=True):
                total[at.start + example, ..., output] += value.sum(0) / len(request.references)

    result = attribute(engine, replace(request, collect=collect))
    name = getattr(combine, "__name__", type(combine).__name__)
    return replace(result, values=totals, description=f"{result.description}, combined by {name}")


def _in_cells(result: AttributionResult, request: AttributionRequest) -> AttributionResult:
    """Give values of players that are cells the shapes of the inputs; behind the ends of packed sequences values are 0."""
    players, examples = request.players, request.examples
    if players is None:
        return result
    if not examples.form.packed:
        return result.map(players.split_by_input)
    (x,), lengths = examples.inputs, np.asarray(examples.extra[0].cpu())
    valid = np.arange(x.shape[1]) < lengths[:, None]
    cells = np.broadcast_to(valid.reshape(*valid.shape, *[1] * (len(x.shape) - 1)), (*x.shape, 1))
    padding = players.summed([cells]) == 0  # where no model reads
    return result.map(lambda values: players.split_by_input(zero_and_redistribute(values, padding, (1,))))


def _measure_costs(engine: Engine, request: AttributionRequest) -> None:
    """Measure on a few rows what the parts of an effort cost, and how noisy orders are, unless that is known.

    The rows are those of the background, if there are enough, and their number is always the same: what is chosen, and
    with it the values of a row, does not depend on the other rows.
    """
    if request.players is None or request.kind in request.costs:
        return
    sample = request.of_rows(np.arange(MEASURED_ROWS) % len(request.examples))
    if representative := request.all_pairs and len(request.references) >= 2 * MEASURED_ROWS:
        rows = request.references[np.linspace(0, len(request.references) - 1, MEASURED_ROWS).astype(int)]
        sample = replace(sample, examples=rows.described_by(sample.examples))
    sample = replace(sample, tolerance=None, progress=False, strict=False, collect=None)

    def timed(method: Method) -> tuple[float, np.ndarray, np.ndarray | None]:
        start = time.process_time()
        result = run(engine, replace(sample, method=method))
        return time.process_time() - start, result.values[0], None if result.errors is None else result.errors[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AdditivityWarning)
        costs = choice.measure(timed, request.players, len(request.references))
    request.costs[request.kind] = costs if representative else replace(costs, noise=1.0)


def reliability(engine: Engine, request: AttributionRequest, rows: int) -> Reliability:
    """Estimate on some of the rows, evenly spread, how far Deep SHAP is from the Shapley values."""
    players, references = request.players, len(request.references)
    assert players is not None
    _measure_costs(engine, request)
    costs = request.costs[request.kind]
    sample = request.of_rows(evenly(len(request.examples), rows))
    deep = run(engine, replace(sample, method=DeepShap(players)))
    nearer = replace(sample, effort=PROBING).chosen_method()
    if isinstance(nearer, Paths | Sweeps):
        nearer = replace(nearer, shrinkage=False)
    result = run(engine, replace(sample, method=nearer))
    estimates = [replicate[0] for replicate in result.replicates or []]
    looked_at = len(sample.examples) / len(request.examples)
    away, error = distance(deep.values[0], result.values[0], estimates, choice.part_left(nearer), looked_at)

    def expected(effort: float) -> float:
        return min(of for _, of in choice.candidates(effort, players, references, 0, costs))

    compared = min(getattr(nearer, "replicates", references), references)
    return Reliability(away, error, len(sample.examples), compared, effort_for(away + error, expected), players.count)


# ---------------------------------------------------------------------- running
class _Missed(Exception):
    """The attributions do not sum to what they should."""

    def __init__(self, result: AttributionResult) -> None:
        self.result = result


def run(engine: Engine, request: AttributionRequest) -> AttributionResult:
    """Carry a request out once, with one method, and check the sums; in float64 where float32 is not enough.

    Raises
    ------
    DeepShapError
        Whatever prevents an explanation that adds up. Where kept activations might be the reason, they are recorded anew
        before; where rounding might be, rows are explained in float64.
    """
    try:
        return _run_fresh(engine, request)
    except (_Missed, AdditivityError, BatchMixingError) as error:
        if error.__cause__ is not None or getattr(error, "certain", False):  # the model failed, or it is no rounding
            raise
        doubt = error
    result = doubt.result if isinstance(doubt, _Missed) else None
    again = _in_float64(engine, request, result)
    if isinstance(again, AttributionResult):
        return again
    if result is None:
        raise doubt
    _complain(again, result, request.comparison(result.columns), request.strict)
    return result


def _run_fresh(engine: Engine, request: AttributionRequest) -> AttributionResult:
    """Run; where what is kept of the model might be the reason of a failure, once more without it."""
    try:
        return _run_once(engine, request)
    except (_Missed, *OF_THE_MODEL):
        if request.collect is not None or not engine.forget():
            raise
    return _run_once(engine, request)


def _run_once(engine: Engine, request: AttributionRequest) -> AttributionResult:
    examples, references = request.examples, request.references
    profile = engine.analyze(examples, references)
    plan = request.plan(profile)
    predictions = engine.outputs(examples, plan.rows)
    if engine.output_shape != profile.output_shape:
        raise BatchMixingError("the shape of the output has changed since the model was probed.")
    comparison = request.comparison(request.choose(predictions, profile))
    shared = request.all_pairs and not examples.extra  # all examples have the same references
    reference_outputs = engine.reference_outputs(references, plan.rows) if shared else None
    method = request.chosen_method()
    sums = RunningEstimate(comparison, method.players)
    with Progress(method.pairs(comparison), request.progress) as bar:
        parts, answer = method.parts(comparison), None
        while (part := _next(parts, answer)) is not None:
            answer = _answer(engine, part, plan, sums, bar, request.collect)
    expected = _expected_outputs(engine, comparison, sums, reference_outputs, plan, request.weights)
    result = _checked(comparison, profile, method, sums, predictions, expected, reference_outputs)
    if result.missed.any():
        raise _Missed(result)
    return result


def _next(parts: Any, answer: Any) -> Any:
    """Return the next part that a method asks for, after an answer to the last one; None at the end."""
    try:
        return parts.send(answer)
    except StopIteration:
        return None


class Progress:
    """Counts pairs that are done. A bar shows them: always, never, or (None) after some seconds; most calls need none."""

    def __init__(self, total: int, shown: bool | None) -> None:
        self._total, self._shown, self._done, self._begun = total, shown, 0, time.monotonic()
        self._bar: Any = self._opened() if shown else None

    def _opened(self) -> Any:
        from tqdm.auto import tqdm  # which takes time

        return tqdm(total=self._total, initial=self._done, unit="pair", leave=bool(self._shown))

    def update(self, pairs: int) -> None:
        """Count pairs that are done."""
        self._done += pairs
        if self._bar is not None:
            self._bar.update(pairs)
        elif self._shown is None and time.monotonic() - self._begun > PATIENCE:
            self._bar = self._opened()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _answer(
    engine: Engine, part: Any, plan: Plan, sums: RunningEstimate, bar: Progress, collect: Collect | None
) -> np.ndarray | None:
    """Do what a method asks for, and answer it."""
    if isinstance(part, Evaluation):
        at_once = plan.aligned if engine.free_memory() is not None else min(plan.aligned, _points_at_once(part.points))
        outputs = engine.outputs(part.points, at_once, "the points between example and reference")
        bar.update(len(part.points))
        return outputs
    if isinstance(part, Attribution):
        contributions: np.ndarray | None = None
        for _, at, of_chunk in _explained(engine, part.comparison, plan, bar, None):
            values = sums.sum_by_players(of_chunk)[0]  # summed over the references of the chunk
            if contributions is None:
                contributions = np.zeros((len(part.comparison.examples), *values.shape[1:]))
            contributions[at] += values
        return contributions
    if isinstance(part, WeightedComparison):
        comparison = part.comparison
        for pairs, at, of_chunk in _explained(engine, comparison, plan, bar, collect):
            share = len(pairs.references) / len(comparison.references) if comparison.all_pairs else 1.0
            sums.add(part, at, pairs.outputs, of_chunk, share)
    elif isinstance(part, KnownContribution):
        sums.add_known(part)
    elif isinstance(part, Uncertainty):
        sums.add_uncertainty(part)
    else:
        raise InputError(f"a method yielded {type(part).__name__}, none of the requests of deepshap.sampling.")
    return None


def _points_at_once(points: Points) -> int:
    """Return how many points a processor evaluates at a time: more of short rows, whose calls take longer than their values."""
    cells = sum(int(np.prod(x.shape[1:])) for x in points.inputs)
    return min(max(MOST_CELLS // max(cells, 1), FEWEST_POINTS), MOST_POINTS)


def _explained(
    engine: Engine, comparison: Comparison, plan: Plan, bar: Progress, collect: Collect | None
) -> Iterator[tuple[Comparison, slice, Contributions]]:
    """Explain a comparison chunk by chunk; yield the chunk, its examples and their contributions."""
    for at, block in chunks(comparison, plan):
        part = comparison.part(at, block)
        contributions = _contributions(engine, part, plan, collect is not None)
        if collect is not None:
            collect(part, at, block, contributions)
        yield part, at, contributions
        bar.update(part.pairs)


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
    count = len(part.examples)
    join, size = (
        (Contributions.of_examples, count) if count > 1 else (Contributions.of_references, len(part.references))
    )
    cuts = slice(0, size // 2), slice(size // 2, size)
    halves = [part.part(cut) if count > 1 else part.part(slice(None), cut) for cut in cuts]
    return join([_contributions(engine, half, plan, multipliers) for half in halves])


def _expected_outputs(
    engine: Engine,
    comparison: Comparison,
    sums: RunningEstimate,
    reference_outputs: np.ndarray | None,
    plan: Plan,
    weights: np.ndarray | None,
) -> np.ndarray:
    """Return the mean output of each row's references, (rows, k); where no part has told it, run the model."""
    if reference_outputs is not None:
        return np.average(reference_outputs, 0, weights)[comparison.outputs]
    if sums.expected is not None:
        return sums.expected
    means = []
    for row, columns in enumerate(comparison.outputs):
        references = comparison.references if comparison.all_pairs else comparison.references[row : row + 1]
        described = references.described_by(comparison.examples[np.full(len(references), row)])
        outputs = engine.outputs(described, plan.rows, "the background")
        means.append(np.average(outputs, 0, weights)[columns])
    return np.stack(means)


# ---------------------------------------------------------------------- against the unmodified model
def _checked(
    comparison: Comparison,
    profile: ModelProfile,
    method: Method,
    sums: RunningEstimate,
    predictions: np.ndarray,
    expected: np.ndarray,
    reference_outputs: np.ndarray | None,
) -> AttributionResult:
    """Compare the sums with the outputs of the unmodified model.

    ``predictions`` are the outputs for the examples, ``reference_outputs`` those for the references if these are the same
    for all rows, both (rows, outputs); ``expected`` is the mean output of each row's references (rows, k).
    """
    columns = comparison.outputs
    outputs = select_columns(predictions, columns)
    if not np.isfinite(expected).all():
        raise NonFiniteError("the model returns NaN or infinity for a row of the background.")
    of_references = (
        np.abs(expected).max(1, initial=0.0)
        if reference_outputs is None
        else np.abs(reference_outputs).max(initial=0.0)
    )
    largest = np.maximum(np.abs(predictions).max(1, initial=0.0), of_references)
    scale = output_scale(outputs, expected, largest)
    check_sums(method, sums.difference, outputs - expected, 10 * profile.tolerance * scale)
    moved = np.abs(sums.difference - (outputs - expected)) / scale
    if not (moved <= 10 * profile.tolerance).all():
        moved = np.nan_to_num(moved, nan=np.inf)
        row = int(np.unravel_index(np.argmax(moved), moved.shape)[0])
        raise BatchMixingError(
            f"the output of row {row} changes by {moved.max():.3g} of its scale when the model runs among other batch "
            "mates or once more: it depends on the batch, on random numbers, on state kept between calls, or asks whether "
            "gradients are recorded (x.requires_grad, torch.is_grad_enabled()), as they are while it is explained. Such a "
            "model has no attribution per row."
        )
    values, errors = sums.values(), sums.standard_errors
    return AttributionResult(
        values,
        outputs,
        expected,
        additivity_gap(values, outputs, expected, largest, profile.tolerance, profile.eps),
        columns,
        predictions,
        profile,
        method,
        method.description,
        errors=None if errors is None else [errors],
        replicates=[[replicate] for replicate in sums.replicates()],
    )


class _Reason(NamedTuple):
    """Why float64 does not help, and the engine that can tell which operation is the cause."""

    text: str
    engine: Engine


def _complain(reason: _Reason, result: AttributionResult, comparison: Comparison, strict: bool) -> None:
    """Raise, or warn when the caller asked for it, that a row and output does not add up."""
    engine, gaps, tolerance = reason.engine, result.gap, result.profile.tolerance
    row, column = map(int, np.unravel_index(int(np.argmax(np.nan_to_num(gaps, nan=np.inf))), gaps.shape))
    output, expected, gap = result.outputs[row, column], result.expected[row, column], gaps[row, column]
    message = (
        f"the attributions of row {row}, output {column} do not add up: they should sum to {output - expected:.6g} "
        f"(output {output:.6g} minus expected output {expected:.6g}) and miss it by {gap:.3g} of the outputs' scale "
        f"(tolerance {tolerance:.1g}). "
    )
    worst = engine.largest_gap(comparison.pair(row))
    if worst is not None and worst.around:
        message += (
            f"A part of the output goes around the explained layer: {worst.name} at {worst.place} also takes a value, such as a "
            "mask, that depends on the model's input without passing through the layer. So the layer's input alone does not "
            "explain the output: explain the model's input, or rows that have this value in common."
        )
    elif worst is None or worst.gap <= engine.tolerance * max(worst.size, 1e-30):
        copied = f"explain a float64 copy of it ({engine.in_float64})"
        way_out = copied if engine.tolerance > FLOAT64 else "take out large terms that all rows share"
        message += (
            "Every operation explains its own output. So either a part of the output reaches the explained input by a way that "
            "is not followed (around the explained layer, or through a rule registered as linear or constant for something that "
            f"is not), or large numbers cancel in the model: then {way_out}."
        )
    elif not np.isfinite(worst.gap):
        message += f"{worst.name} at {worst.place} has a value, or a share of one, that is NaN or infinite."
    else:
        message += (
            f"Most likely cause: {worst.name} at {worst.place}, whose rule misses {worst.gap:.3g} of {worst.size:.3g}. "
        )
        if engine.tolerance <= FLOAT64:
            message += (
                "If large numbers cancel there, even float64 has too few digits: take out large terms that all rows share, a "
                "shift in front of a softmax for instance, or pass check_additivity=False if this error is small enough. "
            )
        message += "If its rule is yours, correct it (deepshap.register_rule); if not, please report it."
    message += reason.text
    if not strict:
        warn_caller(message, AdditivityWarning)
    elif np.isfinite(gap):
        raise AdditivityError(message)
    else:
        raise NonFiniteError(message)


# ---------------------------------------------------------------------- in float64
def _in_float64(
    engine: Engine, request: AttributionRequest, result: AttributionResult | None
) -> AttributionResult | _Reason:
    """Explain again in float64 the rows that the model's own precision cannot; or say why that does not help.

    ``result`` is the result in the model's own precision, if there is one. The values in float64 must add up as the
    model's own precision allows, and the outputs in float64 must be near those of the model.

    Raises
    ------
    BatchMixingError
        If rows depend on each other, or change from call to call, in float64 too.
    """
    part, missed = request, None
    if result is not None and request.collect is None:
        missed = np.flatnonzero(result.missed)
        columns = result.columns[missed]
        part = replace(request.of_rows(missed), method=result.method, choose=lambda *_: columns)
    try:
        exact = engine.in_double()
        if exact is None:
            return _Reason("", engine)
        try:
            better = _run_once(exact, part)
        except _Missed as error:
            better = error.result
        plan = part.plan(better.profile)
        in_float32 = engine.outputs(part.examples, plan.rows)
        apart = np.abs(in_float32 - better.predictions).max(1, initial=0.0) / np.abs(in_float32).max(1, initial=1e-30)
    except BatchMixingError:
        raise
    except Exception as error:
        return _Reason(f" It could not be computed in float64 ({type(error).__name__}: {error}).", engine)
    if better.profile.tolerance > FLOAT64:
        return _Reason(" It turns to lower precision itself, so that a copy in float64 is no help.", engine)
    if not better.gap.max() <= engine.tolerance:
        return _Reason(f" In float64 they miss it by {better.gap.max():.3g}.", exact)
    if apart.max() > max(ANOTHER_MODEL, TOLERANCES * engine.tolerance):
        return _Reason(
            f" A copy that computes in float64 has other outputs: they differ by up to {apart.max():.3g} of their size, so that "
            "it is no help.",
            engine,
        )
    if result is not None and missed is not None:
        return result.with_rows(missed, better)
    return replace(better, profile=replace(better.profile, dtype=np.dtype("float32")), engine=exact)
