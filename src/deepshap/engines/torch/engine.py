"""The PyTorch engine: run the model on pairs of points and return their contributions.

``TorchEngine.analyze`` looks at a model with one example and one reference: where its rows lie, how much memory a pair takes,
whether the two sides can run on rows of their own. ``contributions`` explains a comparison in one of two ways. Crossed
(``_crossed``): N examples and B references run once each, and only multipliers belong to pairs. Side by side
(``_on_all_pairs``): both sides run on all pairs. Either way ends in ``_run``: trace the examples beside the recorded
references, then go back with the multipliers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InputError, UnsupportedOperationError
from ..interface import Comparison, Contributions, Footprint, ModelProfile, OperationGap, OperationSummary, Plan, Points
from . import heads as output_heads
from . import inspection
from .backward import Reduce, Traced, adds_up, as_numpy, gathered, of_pairs, over_references, row_by_row
from .batch_axes import FoldedBatch
from .calls import errors_told
from .control_flow import ControlFlowComparison
from .custom_functions import Derivatives, foreign_visible
from .double import InFloat64
from .handlers import Handlers
from .inputs import Inputs
from .layers import UnmodifiedModel, layer_values_through
from .operations import BackwardOptions, Pairs, TraceMismatch
from .preserve import Contents, check_called_outside, check_weights, home_of, modules_of, one_at_a_time, preserved
from .recurrent import MEMORY_TYPES
from .recurrent.context import PrefixCache, RecurrentContext
from .reference_cache import Recorded, ReferenceCache
from .tape import Tape
from .tracer import Tracer


class Meeting(NamedTuple):
    """Examples beside recorded references: which outputs of each are explained, and what its pairs are reduced to."""

    points: Points
    recorded: Recorded
    pairs: Pairs
    columns: np.ndarray
    reduce: Reduce


class TorchEngine(UnmodifiedModel):
    """Explains one torch model.

    Parameters
    ----------
    layer : the inner layer whose inputs are explained; with ``layer_output`` its outputs.
    around : whether what goes around the layer is returned too, as a last tensor.
    """

    framework = "torch"
    heads: ClassVar[Any] = output_heads
    packages = "torch", "numba"
    as_numbers = staticmethod(torch.as_tensor)
    in_float64 = "model.double()"
    exhausted = (torch.OutOfMemoryError,)
    failures = Exception
    alone = staticmethod(lambda: one_at_a_time)
    _rows_first = staticmethod(lambda output, axis: output.movedim(axis, 0) if axis else output)

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        layer: nn.Module | None = None,
        layer_output: bool = False,
        around: bool = False,
        output: Any = None,
        batch_axis: int | Sequence[int] = 0,
    ) -> None:
        super().__init__(model, layer, output, batch_axis)
        self.layer_output, self.around = layer_output, around
        self._around_shapes: list[torch.Size] = []
        if layer is not None and not isinstance(layer, nn.Module):
            raise InputError(f"the layer of (model, layer) must be a torch.nn.Module, not {layer!r}.")
        self._computing: AbstractContextManager[Any] = nullcontext()  # in another precision than the model's own
        self._calls = 0  # of operations, in a run
        self.handlers = Handlers(self)
        self._take(modules_of(model))

    def _take(self, modules: list[nn.Module]) -> None:
        """Take these modules for those that the model is made of, of which nothing is known yet."""
        check_weights(modules)
        self.modules, (self.device, self._float) = modules, home_of(modules)
        self._contents = Contents(modules, self.model)
        self._begin()
        self.handlers.apply()

    def _begin(self) -> None:
        self._derivatives = Derivatives(self._contents, self.layer, self.operations)
        self._references = ReferenceCache(self._contents, self.operations)

    def _enter(self, stack: ExitStack) -> None:
        check_called_outside()
        if not self.is_frozen and [*map(id, found := modules_of(self.model))] != [*map(id, self.modules)]:
            self._take(found)
        stack.enter_context(self._contents.session())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())

    def _form(self, values: Any, what: str) -> Inputs:
        return Inputs(values, self.batch_axis, what, self.device, self._float)

    def forget(self) -> bool:
        """Forget whatever is kept of the model; say whether any of it has been used, or taken for granted, in this call."""
        used = self._references.used
        super().forget()
        self._references.forget()
        self._footprint: Footprint | None = None
        self._pairwise = False  # whether references must be run beside every example
        self._merged: FoldedBatch | None = None  # rows that share an axis with something else
        self._agreement = ControlFlowComparison(self._evaluate, self.operations)
        return used

    def _wide(self) -> TorchEngine:
        other = copy.copy(self)
        other._computing, other._dtypes = InFloat64(), set()
        other._begin()
        other.forget()
        return other

    # ------------------------------------------------------------------ what is known of the model
    def free_memory(self) -> int | None:
        """Free memory of the model's GPU; None on the CPU."""
        if self.device is None or self.device.type != "cuda":
            return None
        # What PyTorch has reserved and not allocated is free for its next tensors.
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + cached

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether the model's GPU has no memory left; the background's activations and what torch keeps are freed then."""
        if not isinstance(error, self.exhausted):
            return False
        self._references.drop()
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.empty_cache()
        return True

    def analyze(self, examples: Points, references: Points) -> ModelProfile:
        """Check on an example and a reference that the model can be explained, once for rows of one kind."""
        if not self._references.fits(examples):
            self.forget()
        one, two = examples[:1], references[:1].described_by(examples[:1])
        if self._footprint is None:
            both = Points.joined([one, two])
            runs = [r.reshape(-1) for r in self._find_axes(both)]
            self._footprint = self._derivatives.allowed(lambda: self._measure(one, two))
            self._check_among_others(both, list(map(as_numpy, runs)))
            if examples.extra:  # is there a way for them but all pairs?
                self._by_arguments(Comparison(one, references[:2], True, np.zeros((1, 1), int)), None, over_references)
            self._references.analyzed_on(examples)
        elif not self.is_frozen and (examples.extra or len(references) < 3):  # else runs on many rows show it
            self._check_among_others(Points.joined([one, two]), [])
        together = Footprint(0, 0, sum(self._footprint))  # where everything is run and kept for every pair
        return self._profile(together if self._pairwise else self._footprint, examples.form)

    def reference_outputs(self, references: Points, at_once: int) -> np.ndarray:
        """As ``outputs``, of references whose activations are kept."""
        outputs = self._references.outputs(references, at_once, self.outputs, self.is_frozen, self.eps)
        if self._references.changed:  # perhaps the model has begun to mix rows
            self._sizes.clear()
            self._check_size(references[:at_once], outputs[:at_once])
        return outputs

    # ------------------------------------------------------------------ tracing
    def trace(self, tracer: Tracer, points: Points) -> tuple[Tensor, list[Tensor]]:
        """Run the model, or what stands for it, under a tracer. Returns its output (rows, outputs) and the leaves."""
        leaves: list[Tensor] = []

        def enter(values: Sequence[Tensor]) -> list[Tensor]:
            entered = [tracer.enter(v) for v in values]
            leaves.extend(leaf for _, leaf in entered)
            return [inside for inside, _ in entered]

        run = self._derivatives.written_out(partial(self._call, points=points), self._entering(points))
        with foreign_visible(self.modules, tracer.operations), errors_told(), torch.enable_grad():
            if self.layer is None:
                inside = enter(self._entering(points))
                with tracer:
                    output = run(inside)
            else:
                inside = tracer.follow(self._entering(points))
                with layer_values_through(self.layer, enter, self.layer_output), tracer:
                    output = run(inside)
            output = tracer.leave(output)
            leaves.extend(tracer.around or ())
            tracer.finish()
            return self._flat(output, len(points)), leaves

    def record(self, references: Points, prefix_cache: PrefixCache | None = None, each: int | None = None) -> Recorded:
        """Run the references, of which ``each`` may come again and again, and keep what the rules need."""
        tracer = Tracer(Pairs(1, len(references)), operations=self._agreement.operations(references))
        tracer.context = RecurrentContext.of_references(len(references), each, prefix_cache)
        tracer.tape.weights = frozenset(id(p) for m in self.modules for p in m.parameters(False))
        with preserved(self._contents):
            output, leaves = self.trace(tracer, references)
        return Recorded(tracer.tape, output.detach(), [leaf.detach() for leaf in leaves])

    def _measure(self, example: Points, reference: Points) -> Footprint:
        """Trace one example beside one reference, and look at what is kept."""
        recorded, tracer = self._agreement.find(lambda: self._traced_pair(example, reference))
        self._dtypes = {str(dtype).removeprefix("torch.") for dtype in recorded.tape.dtypes}
        self._around_shapes = [leaf.shape for leaf in tracer.around or ()]
        self._calls = len(recorded.tape.calls)
        self.takes_python_values = tracer.tape.takes_python_values
        self._pairwise = self._agreement.found
        if not self._pairwise:
            both, alone = Points.joined([example, reference]), [tracer.tape, recorded.tape]
            try:
                self._merged = FoldedBatch.find(both, alone, lambda rows: self.record(rows).tape, self.eps)
            except Exception:  # of a model that does not take such rows, too
                self._pairwise = True
        footprint, self._recurrent = footprint_of(recorded.tape, tracer.tape, recorded.leaves)
        return footprint

    def _traced_pair(self, example: Points, reference: Points) -> tuple[Recorded, Tracer]:
        examples, references = self._agreement.sides(example, reference)
        recorded = self.record(references)
        tracer = Tracer(Pairs(1, len(examples)), recorded.tape, self._agreement.operations(examples))
        with preserved(self._contents):
            output, _ = self.trace(tracer, examples)
        self._agreement.check((output, recorded.outputs), example, reference, self.eps)
        return recorded, tracer

    # ------------------------------------------------------------------ contributions
    def contributions(self, comparison: Comparison, plan: Plan, multipliers: bool = False) -> Contributions:
        """Attribute each example's explained outputs, minus those of its references, to what is explained."""
        reduce = of_pairs if multipliers else over_references if comparison.all_pairs else row_by_row
        if comparison.all_pairs and comparison.examples.extra:
            fit = plan.memory // max(1, len(comparison.references) * sum(self._footprint or ()))
            if self._recurrent and 0 < fit < len(comparison.examples):  # pairs of all lengths run together, in parts
                parts = [comparison.part(slice(at, at + fit)) for at in range(0, len(comparison.examples), fit)]
                return Contributions.of_examples([self.contributions(part, plan, multipliers) for part in parts])
            if (found := self._by_arguments(comparison, plan, reduce)) is not None:
                return found
        elif comparison.all_pairs and self._can_be_crossed(comparison):
            for _ in range(2):
                try:
                    found = self._crossed(comparison, plan, reduce)
                    if self._merged is None or adds_up(
                        found, comparison.outputs, self.tolerance, len(comparison.references)
                    ):
                        return found
                    break
                except TraceMismatch:
                    if not self._references.drop():  # the activations may have been those of another model
                        break
            self._pairwise = True
        beside = self._on_all_pairs if comparison.all_pairs else self._beside
        return self._agreement.explained(lambda part: beside(part, plan, reduce), comparison, self.eps)

    def _can_be_crossed(self, comparison: Comparison) -> bool:
        """Whether either side can run on rows of its own; rows are found by their numbers, which must not be equal."""
        examples, references = len(comparison.examples), len(comparison.references)
        return not self._pairwise and (examples != references or examples == 1)

    def _crossed(
        self, comparison: Comparison, plan: Plan | None, reduce: Reduce, prefix_cache: PrefixCache | None = None
    ) -> Contributions:
        """Either side runs on rows of its own."""
        n, b = len(comparison.examples), len(comparison.references)
        recorded = self._references.recorded(comparison.references, partial(self.record, prefix_cache=prefix_cache))
        pairs = Pairs(n, b, all_pairs=n * b > 1)
        found, output = self._run(Meeting(comparison.examples, recorded, pairs, comparison.outputs, reduce), plan)
        expected = as_numpy(recorded.outputs.sum(0, keepdim=True, dtype=torch.float64))
        return gathered(found, output, np.repeat(expected, n, 0), reduce)

    def _by_arguments(self, comparison: Comparison, plan: Plan | None, reduce: Reduce) -> Contributions | None:
        """Examples that have the same row arguments, against references that ran once with these.

        None where that is not possible, or to run all pairs is quicker.
        """
        groups, b = groups_of(comparison.examples), len(comparison.references)
        fit = plan is not None and comparison.pairs * sum(self._footprint or ()) <= plan.memory
        if self._pairwise or (fit and quicker_together(comparison.pairs, len(groups), self._recurrent)):
            return None
        halves = [half for rows in groups for half in np.array_split(rows, 2 if len(rows) == b > 1 else 1)]
        found, prefix_cache = [], PrefixCache([])
        try:
            for rows in halves:
                examples = comparison.examples[rows]
                references = comparison.references.described_by(examples[np.zeros(b, int)])
                part = Comparison(examples, references, True, comparison.outputs[rows])
                found.append(self._crossed(part, plan, reduce, prefix_cache))
        except (TraceMismatch, UnsupportedOperationError):
            self._pairwise = True
            return None
        whole = Contributions.of_examples(found).of_rows(np.argsort(np.concatenate(halves)))
        self._pairwise = not adds_up(whole, comparison.outputs, self.tolerance, b)
        return None if self._pairwise else whole

    def _on_all_pairs(self, comparison: Comparison, plan: Plan, reduce: Reduce) -> Contributions:
        """Both sides run on all pairs."""
        n, b, rows = len(comparison.examples), len(comparison.references), comparison.aligned_pairs()
        recorded, pairs, found, output = self._side_by_side(
            rows.examples, rows.references, rows.outputs, b, reduce, plan
        )
        expected = recorded.outputs.unflatten(0, pairs.grid).sum(1, dtype=torch.float64)
        return gathered(found, output[::b], as_numpy(expected), reduce).of_rows(np.arange(n))

    def _beside(self, comparison: Comparison, plan: Plan, reduce: Reduce) -> Contributions:
        """Row k beside row k."""
        examples = comparison.examples
        recorded, _, found, output = self._side_by_side(
            examples, comparison.references, comparison.outputs, None, reduce, plan
        )
        if reduce is of_pairs:
            found = [f.swapaxes(2, 3) for f in found]
        return gathered(found, output, as_numpy(recorded.outputs), reduce).of_rows(np.arange(len(examples)))

    def _side_by_side(
        self, examples: Points, references: Points, columns: np.ndarray, each: int | None, reduce: Reduce, plan: Plan
    ) -> tuple[Recorded, Pairs, list[np.ndarray], Tensor]:
        """Row k beside row k, of which so many are one example's; None: all are pairs of one example's."""
        sides = self._agreement.sides(examples, references)
        rows = len(sides[0])
        columns = np.tile(columns, (rows // len(examples), 1))
        pairs = Pairs(1, rows) if each is None else Pairs(rows // each, each)
        recorded = self.record(sides[1], None, each)
        found, output = self._run(Meeting(sides[0], recorded, pairs, columns, reduce), plan)
        self._agreement.check((output, recorded.outputs), examples, references, self.eps)
        return recorded, pairs, found, output

    def _run(
        self, met: Meeting, plan: Plan | None, diagnosis: list[Any] | None = None
    ) -> tuple[list[np.ndarray], Tensor]:
        """Multipliers and differences of every pair, reduced, with the explained outputs first; and the points' outputs."""
        most = multipliers_of_pass(plan, self._footprint, self._calls, self.device) if plan else met.pairs.rows
        for zero_unreached in (False, True):
            reading = BackwardOptions(diagnosis=diagnosis, zero_unreached=zero_unreached or diagnosis is not None)
            found, output = self._followed(met, most, reading)
            if reading.zero_unreached or all(np.isfinite(f).all() for f in found):
                break
        return found, output

    def _followed(self, met: Meeting, most: int, reading: BackwardOptions) -> tuple[list[np.ndarray], Tensor]:
        """As ``_run``."""
        points, recorded, pairs, columns, reduce = met
        summing = self.layer is None and reduce is over_references and reading.diagnosis is None
        tracer = Tracer(pairs, recorded.tape, self._agreement.operations(points), summing)
        tracer.reading = replace(reading)  # which the way back writes to
        if (merged := self._merged if pairs.all_pairs else None) is not None:
            tracer.tape.orders = merged.orders
        with preserved(self._contents), errors_told():
            output, leaves = self.trace(tracer, points)
            if merged is not None:
                merged.show(tracer.tape)
            axes = [0] * len(leaves) if self.layer is None else self.layer_axes
            shapes = self._around_shapes if self.around else None
            traced = Traced(tracer, output, leaves, recorded.leaves, pairs, axes, shapes)
            found = traced.contributions(columns, reduce, most)
        return found, output.detach()

    # ------------------------------------------------------------------ looking at a model
    def largest_gap(self, pair: Comparison) -> OperationGap | None:
        """Explain a single pair once more, with every rule checked by itself; return the worst."""
        found: list[Any] = []
        try:
            recorded = self.record(pair.references.described_by(pair.examples))
            self._run(Meeting(pair.examples, recorded, Pairs(1, 1), pair.outputs, row_by_row), None, found)
        except (TraceMismatch, ValueError):
            return None
        worst = max(reversed(found), key=lambda entry: entry[1] if entry[1] == entry[1] else float("inf"), default=None)
        return worst and OperationGap(worst[0].name, worst[0].place, *worst[1:])

    def uses(self, points: Points) -> list[OperationSummary]:
        """The operations that the model uses on what depends on its inputs."""
        self._find_axes(points[[0, 0]])
        with preserved(self._contents):
            return self._derivatives.allowed(partial(inspection.uses, self.operations, self.trace, points[:1]))


WORTHWHILE = 50  # pairs of a group, below which running all pairs at once is quicker than group by group
# What a backward pass makes, at least and for each call that the model makes: more neither fits the caches nor is at hand
# already, and with less the calls themselves take the time.
PASS_BYTES, CALL_BYTES = 192 * 2**20, 5 * 2**20


def groups_of(points: Points) -> list[np.ndarray]:
    """Numbers of the rows of each group, of those with the largest arguments first: where these are lengths, the longest."""
    described = [_bytes(e) for e in points.extra if points.form.has_rows(e)]
    if not described:
        return [np.arange(len(points))]
    _, first, number = np.unique(np.concatenate(described, 1), axis=0, return_index=True, return_inverse=True)
    sizes = np.sum([_totals(e) for e in points.extra if points.form.has_rows(e)], axis=0)
    return [np.flatnonzero(number.ravel() == group) for group in np.argsort(-sizes[first], kind="stable")]


def quicker_together(pairs: int, groups: int, recurrent: bool) -> bool:
    """Whether all pairs are better run at once: there are few, or recurrent layers, which run rows once, do most of the work."""
    return recurrent or pairs < WORTHWHILE * groups


def footprint_of(reference: Tape, example: Tape, leaves: list[Tensor]) -> tuple[Footprint, bool]:
    """What is kept of a reference and an example, and made of a pair; and whether recurrent layers keep most of it.

    The multipliers of a pair are taken to be twice as large as what was computed on the way forward: they do not all live at the
    same time, and rules make some more. What a recurrent layer returns was in another order before.
    """
    kept, own, entered = reference.memory, example.nbytes, sum(leaf.nbytes for leaf in leaves)
    recurrent = [s for s in reference.steps if isinstance(s.memory, MEMORY_TYPES)]
    most = sum(s.memory.nbytes for s in recurrent) > reference.nbytes
    twice = max((s.outputs[0].nbytes for s in recurrent), default=0)
    return Footprint(reference.nbytes + kept + twice, own + kept, 2 * (own + entered)), most


def multipliers_of_pass(plan: Plan, footprint: Footprint | None, calls: int, device: torch.device | None) -> int:
    """How many a backward pass of so many calls takes: what fits into memory, and on the CPU passes through it quickly."""
    if footprint is None or (device and device.type != "cpu"):
        return plan.multipliers
    return max(1, min(plan.multipliers, max(PASS_BYTES, CALL_BYTES * calls) // footprint.pair))


def _totals(values: Tensor) -> np.ndarray:
    numbers = values.detach().cpu()
    return (numbers.abs() if numbers.is_complex() else numbers).double().reshape(len(numbers), -1).sum(1).numpy()


def _bytes(values: Tensor) -> np.ndarray:
    """Of each row, (rows, bytes)."""
    given = values.detach().cpu().reshape(len(values), -1)
    rows = given.new_empty(given.shape).copy_(
        given
    )  # a column of a table lies far apart, and contiguous() lets a single one so
    return rows.view(torch.uint8).numpy() if rows.shape[1] else np.zeros((len(rows), 0), np.uint8)
