"""The PyTorch engine: run the model on pairs of points and return their contributions.

``TorchEngine.analyze`` runs a model on one example and one reference: it finds the batch axes, the memory that a pair takes,
and whether the two sides can run on rows of their own. ``contributions`` explains a comparison in one of two ways.
With all pairs (``_all_pairs``), N examples and B references run once each, and only multipliers belong to pairs. Aligned
(``_aligned_pairs``, ``_row_by_row``), both sides run on the rows of all pairs. Both ways end in ``_run``: trace the
examples next to the recorded references, then propagate multipliers back.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InputError, UnsupportedOperationError
from ..base import BaseEngine, called_twice
from ..interface import Comparison, Contributions, Footprint, ModelProfile, OperationGap, OperationSummary, Plan, Points
from . import heads as output_heads
from . import inspection
from .backward import (
    Reduce,
    Traced,
    adds_up,
    as_array,
    as_contributions,
    as_numpy,
    of_pairs,
    over_references,
    row_by_row,
)
from .batch_axes import FoldedBatch
from .calls import replace as replace_tensors
from .calls import tensors, translated_errors
from .control_flow import ControlFlowComparison
from .custom_functions import Derivatives, show_calls
from .double import InFloat64
from .handlers import Handlers
from .inputs import Inputs, take_output
from .operations import BackwardOptions, Pairs, TraceMismatch
from .preserve import (
    ModelState,
    check_called_outside,
    check_weights,
    device_and_dtype,
    modules_of,
    preserve_run,
    session_lock,
)
from .recurrent import MEMORY_TYPES
from .recurrent.context import PrefixCache, RecurrentContext
from .reference_cache import Recorded, ReferenceCache
from .tape import Tape
from .tracer import Tracer


class PairedRun(NamedTuple):
    """Examples and recorded references, with the explained outputs of each and the reduction of its pairs."""

    points: Points
    recorded: Recorded
    pairs: Pairs
    columns: np.ndarray
    reduce: Reduce


class UnmodifiedModel(BaseEngine):
    """The part of the engine that runs the model without tracing it."""

    layer_output: bool
    _computing: AbstractContextManager[Any]
    _derivatives: Derivatives

    def _evaluate(self, points: Points) -> np.ndarray:
        output = self._derivatives.run_plain(lambda: self._call(self._copies(points), points))
        return as_numpy(self._flat(output, len(points)))

    def _call(self, rows: Sequence[Tensor], points: Points) -> Tensor:
        extra = replace_tensors(points.extra, Tensor.clone)  # the model may write into them
        with self._computing:
            return take_output(points.form.call(self.model, rows, extra), self.output)

    def _copies(self, points: Points) -> list[Tensor]:
        """Return copies of the inputs, because the model may write into them."""
        return [r.clone() for r in self._entering(points)]

    def _entering(self, points: Points) -> list[Tensor]:
        wide = isinstance(self._computing, InFloat64)
        return [r.double() if wide and r.is_floating_point() else r for r in points.inputs]

    def _with_layer_values(self, points: Points) -> tuple[Tensor, list[Tensor]]:
        values: list[Tensor] = []

        def look(inner: list[Tensor]) -> list[Tensor]:
            values.extend(v.clone() for v in inner)  # the model may write into them
            return inner

        def run() -> Tensor:
            values.clear()
            seen = nullcontext() if self.layer is None else layer_values_through(self.layer, look, self.layer_output)
            with seen:
                return self._call(self._copies(points), points)

        output = self._derivatives.run_plain(run)
        if self.layer is not None and not values:
            kind = "output" if self.layer_output else "input"
            raise InputError(
                f"the layer {type(self.layer).__name__} is not called by the model, or has no float {kind}."
            )
        return output, values

    def explained(self, points: Points) -> list[np.ndarray]:
        """Return the explained values, the inputs or those of the inner layer, as arrays with the model's axes."""
        return [as_array(x) for x in (points.inputs if self.layer is None else self.layer_values(points))]

    def layer_values(self, points: Points) -> list[Tensor]:
        """Return the explained values of the inner layer."""
        return self._with_layer_values(points)[1]


@contextmanager
def layer_values_through(
    layer: nn.Module, change: Callable[[list[Tensor]], Sequence[Tensor]], output: bool
) -> Iterator[None]:
    """Pass the float inputs of a layer, or its float outputs, through a function in this context."""
    calls = 0

    def changed(values: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise called_twice(type(layer).__name__)
        new = iter(change([t for t in tensors(values) if t.is_floating_point()]))
        return replace_tensors(values, lambda t: next(new) if t.is_floating_point() else t)

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        new_values = iter(changed([a for a in args if isinstance(a, Tensor)]))
        return tuple(next(new_values) if isinstance(a, Tensor) else a for a in args)

    def after(_: nn.Module, args: Any, result: Any) -> Any:
        return changed(result)

    handle = layer.register_forward_hook(after) if output else layer.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


class TorchEngine(UnmodifiedModel):
    """Explains one torch model.

    Parameters
    ----------
    layer : the inner layer whose inputs are explained; with ``layer_output`` its outputs.
    around : whether contributions that bypass the layer are returned too, as a last tensor.
    """

    framework = "torch"
    heads: ClassVar[Any] = output_heads
    packages = "torch", "numba"
    as_numbers = staticmethod(torch.as_tensor)
    in_float64 = "model.double()"
    exhausted = (torch.OutOfMemoryError,)
    failures = Exception
    alone = staticmethod(lambda: session_lock)
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
        self._bypass_shapes: list[torch.Size] = []
        if layer is not None and not isinstance(layer, nn.Module):
            raise InputError(f"the layer of (model, layer) must be a torch.nn.Module, not {layer!r}.")
        self._computing: AbstractContextManager[Any] = nullcontext()  # for another precision than the model's own
        self._calls = 0  # number of operations in a run
        self.handlers = Handlers(self)
        self._use_modules(modules_of(model))

    def _use_modules(self, modules: list[nn.Module]) -> None:
        """Set the modules that the model consists of, and forget all that is known."""
        check_weights(modules)
        self.modules, (self.device, self._float) = modules, device_and_dtype(modules)
        self._state = ModelState(modules, self.model)
        self._reset()
        self.handlers.apply()

    def _reset(self) -> None:
        self._derivatives = Derivatives(self._state, self.layer, self.operations)
        self._references = ReferenceCache(self._state, self.operations)

    def _enter(self, stack: ExitStack) -> None:
        check_called_outside()
        if not self.is_frozen and [*map(id, modules := modules_of(self.model))] != [*map(id, self.modules)]:
            self._use_modules(modules)
        stack.enter_context(self._state.session())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())

    def _form(self, values: Any, what: str) -> Inputs:
        return Inputs(values, self.batch_axis, what, self.device, self._float)

    def forget(self) -> bool:
        """Forget what is stored about the model; return whether this call has used any of it."""
        used = self._references.used
        super().forget()
        self._references.forget()
        self._footprint: Footprint | None = None
        self._needs_aligned_pairs = False  # whether both sides must run on all pairs
        self._folded_batch: FoldedBatch | None = None  # how rows share an axis with something else
        self._control_flow = ControlFlowComparison(self._evaluate, self.operations)
        return used

    def _wide(self) -> TorchEngine:
        engine = copy.copy(self)
        engine._computing, engine._dtypes = InFloat64(), set()
        engine._reset()
        engine.forget()
        return engine

    # ------------------------------------------------------------------ what is known of the model
    def free_memory(self) -> int | None:
        """Return the free memory of the model's GPU in bytes; None on the CPU."""
        if self.device is None or self.device.type != "cuda":
            return None
        # Memory that PyTorch has reserved and not allocated is free for its next tensors.
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + cached

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether the model's GPU is out of memory; if so, free the references' activations and torch's cache."""
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
        example, reference = examples[:1], references[:1].described_by(examples[:1])
        if self._footprint is None:
            both = Points.joined([example, reference])
            runs = [r.reshape(-1) for r in self._find_axes(both)]
            self._footprint = self._derivatives.run_supported(lambda: self._measure(example, reference))
            self._check_among_others(both, list(map(as_numpy, runs)))
            if examples.extra:  # check whether row arguments need all pairs
                self._by_arguments(
                    Comparison(example, references[:2], True, np.zeros((1, 1), int)), None, over_references
                )
            self._references.analyzed_on(examples)
        elif not self.is_frozen and (examples.extra or len(references) < 3):  # otherwise runs on many rows show it
            self._check_among_others(Points.joined([example, reference]), [])
        all_pairs = Footprint(0, 0, sum(self._footprint))  # both sides run, and are stored, for every pair
        return self._profile(all_pairs if self._needs_aligned_pairs else self._footprint, examples.form)

    def reference_outputs(self, references: Points, at_once: int) -> np.ndarray:
        """Return ``outputs`` of references whose activations are stored."""
        outputs = self._references.outputs(references, at_once, self.outputs, self.is_frozen, self.eps)
        if self._references.changed:  # perhaps the model has begun to mix rows
            self._sizes.clear()
            self._check_size(references[:at_once], outputs[:at_once])
        return outputs

    # ------------------------------------------------------------------ tracing
    def trace(self, tracer: Tracer, points: Points) -> tuple[Tensor, list[Tensor]]:
        """Run the model, or its recorded program, under a tracer; return its output (rows, outputs) and the leaves."""
        leaves: list[Tensor] = []

        def enter(values: Sequence[Tensor]) -> list[Tensor]:
            entered = [tracer.enter(v) for v in values]
            leaves.extend(leaf for _, leaf in entered)
            return [inside for inside, _ in entered]

        run = self._derivatives.recorded(partial(self._call, points=points), self._entering(points))
        with show_calls(self.modules, tracer.operations), translated_errors(), torch.enable_grad():
            if self.layer is None:
                inside = enter(self._entering(points))
                with tracer:
                    output = run(inside)
            else:
                inside = tracer.enter_around(self._entering(points))
                with layer_values_through(self.layer, enter, self.layer_output), tracer:
                    output = run(inside)
            output = tracer.leave(output)
            leaves.extend(tracer.bypass_leaves or ())
            tracer.finish()
            return self._flat(output, len(points)), leaves

    def record(
        self, references: Points, prefix_cache: PrefixCache | None = None, distinct: int | None = None
    ) -> Recorded:
        """Run the references, ``distinct`` of which are repeated if that is set, and store what the rules need."""
        tracer = Tracer(Pairs(1, len(references)), operations=self._control_flow.operations(references))
        tracer.context = RecurrentContext.of_references(len(references), distinct, prefix_cache)
        tracer.tape.weights = frozenset(id(p) for m in self.modules for p in m.parameters(False))
        with preserve_run(self._state):
            output, leaves = self.trace(tracer, references)
        return Recorded(tracer.tape, output.detach(), [leaf.detach() for leaf in leaves])

    def _measure(self, example: Points, reference: Points) -> Footprint:
        """Trace one example and one reference, and measure what is stored."""
        recorded, tracer = self._control_flow.run(lambda: self._traced_pair(example, reference))
        self._dtypes = {str(dtype).removeprefix("torch.") for dtype in recorded.tape.dtypes}
        self._bypass_shapes = [leaf.shape for leaf in tracer.bypass_leaves or ()]
        self._calls = len(recorded.tape.calls)
        self.takes_python_values = tracer.tape.takes_python_values
        self._needs_aligned_pairs = self._control_flow.is_adapted
        if not self._needs_aligned_pairs:
            both, alone = Points.joined([example, reference]), [tracer.tape, recorded.tape]
            try:
                self._folded_batch = FoldedBatch.find(both, alone, lambda rows: self.record(rows).tape, self.eps)
            except Exception:  # of a model that does not take such rows, too
                self._needs_aligned_pairs = True
        footprint, self._recurrent = footprint_of(recorded.tape, tracer.tape, recorded.leaves)
        return footprint

    def _traced_pair(self, example: Points, reference: Points) -> tuple[Recorded, Tracer]:
        examples, references = self._control_flow.sides(example, reference)
        recorded = self.record(references)
        tracer = Tracer(Pairs(1, len(examples)), recorded.tape, self._control_flow.operations(examples))
        with preserve_run(self._state):
            output, _ = self.trace(tracer, examples)
        self._control_flow.check((output, recorded.outputs), example, reference, self.eps)
        return recorded, tracer

    # ------------------------------------------------------------------ contributions
    def contributions(self, comparison: Comparison, plan: Plan, multipliers: bool = False) -> Contributions:
        """Attribute each example's explained outputs, minus those of its references, to the explained values."""
        reduce = of_pairs if multipliers else over_references if comparison.all_pairs else row_by_row
        if comparison.all_pairs and comparison.examples.extra:
            fit = plan.memory // max(1, len(comparison.references) * sum(self._footprint or ()))
            if self._recurrent and 0 < fit < len(
                comparison.examples
            ):  # pairs of all lengths run together, part by part
                parts = [comparison.part(slice(at, at + fit)) for at in range(0, len(comparison.examples), fit)]
                return Contributions.of_examples([self.contributions(part, plan, multipliers) for part in parts])
            if (contributions := self._by_arguments(comparison, plan, reduce)) is not None:
                return contributions
        elif comparison.all_pairs and self._can_run_all_pairs(comparison):
            for _ in range(2):
                try:
                    contributions = self._all_pairs(comparison, plan, reduce)
                    if self._folded_batch is None or adds_up(
                        contributions, comparison.outputs, self.tolerance, len(comparison.references)
                    ):
                        return contributions
                    break
                except TraceMismatch:
                    if not self._references.drop():  # the stored activations may be those of another model
                        break
            self._needs_aligned_pairs = True
        explain_rows = self._aligned_pairs if comparison.all_pairs else self._row_by_row
        return self._control_flow.explain(lambda part: explain_rows(part, plan, reduce), comparison, self.eps)

    def _can_run_all_pairs(self, comparison: Comparison) -> bool:
        """Return whether each side can run on its own rows. Sizes identify the batch axes, so they must differ."""
        examples, references = len(comparison.examples), len(comparison.references)
        return not self._needs_aligned_pairs and (examples != references or examples == 1)

    def _all_pairs(
        self, comparison: Comparison, plan: Plan | None, reduce: Reduce, prefix_cache: PrefixCache | None = None
    ) -> Contributions:
        """Run each side on its own rows."""
        n, b = len(comparison.examples), len(comparison.references)
        recorded = self._references.recorded(comparison.references, partial(self.record, prefix_cache=prefix_cache))
        pairs = Pairs(n, b, all_pairs=n * b > 1)
        values, output = self._run(PairedRun(comparison.examples, recorded, pairs, comparison.outputs, reduce), plan)
        expected = as_numpy(recorded.outputs.sum(0, keepdim=True, dtype=torch.float64))
        return as_contributions(values, output, np.repeat(expected, n, 0), reduce)

    def _by_arguments(self, comparison: Comparison, plan: Plan | None, reduce: Reduce) -> Contributions | None:
        """Explain groups of examples with equal row arguments, against references that run once with these.

        Returns None if that is not possible, or if running all pairs is faster.
        """
        groups, b = groups_of(comparison.examples), len(comparison.references)
        fit = plan is not None and comparison.pairs * sum(self._footprint or ()) <= plan.memory
        if self._needs_aligned_pairs or (fit and is_faster_at_once(comparison.pairs, len(groups), self._recurrent)):
            return None
        halves = [half for rows in groups for half in np.array_split(rows, 2 if len(rows) == b > 1 else 1)]
        parts, prefix_cache = [], PrefixCache([])
        try:
            for rows in halves:
                examples = comparison.examples[rows]
                references = comparison.references.described_by(examples[np.zeros(b, int)])
                group = Comparison(examples, references, True, comparison.outputs[rows])
                parts.append(self._all_pairs(group, plan, reduce, prefix_cache))
        except (TraceMismatch, UnsupportedOperationError):
            self._needs_aligned_pairs = True
            return None
        contributions = Contributions.of_examples(parts).of_rows(np.argsort(np.concatenate(halves)))
        self._needs_aligned_pairs = not adds_up(contributions, comparison.outputs, self.tolerance, b)
        return None if self._needs_aligned_pairs else contributions

    def _aligned_pairs(self, comparison: Comparison, plan: Plan, reduce: Reduce) -> Contributions:
        """Run both sides on all pairs."""
        n, b, rows = len(comparison.examples), len(comparison.references), comparison.aligned_pairs()
        recorded, pairs, values, output = self._run_aligned(
            rows.examples, rows.references, rows.outputs, b, reduce, plan
        )
        expected = recorded.outputs.unflatten(0, pairs.grid).sum(1, dtype=torch.float64)
        return as_contributions(values, output[::b], as_numpy(expected), reduce).of_rows(np.arange(n))

    def _row_by_row(self, comparison: Comparison, plan: Plan, reduce: Reduce) -> Contributions:
        """Run row k of the examples next to row k of the references."""
        examples = comparison.examples
        recorded, _, values, output = self._run_aligned(
            examples, comparison.references, comparison.outputs, None, reduce, plan
        )
        if reduce is of_pairs:
            values = [f.swapaxes(2, 3) for f in values]
        return as_contributions(values, output, as_numpy(recorded.outputs), reduce).of_rows(np.arange(len(examples)))

    def _run_aligned(
        self,
        examples: Points,
        references: Points,
        columns: np.ndarray,
        pairs_per_example: int | None,
        reduce: Reduce,
        plan: Plan,
    ) -> tuple[Recorded, Pairs, list[np.ndarray], Tensor]:
        """Run row k next to row k, where consecutive rows are pairs of one example; None: of the only one."""
        sides = self._control_flow.sides(examples, references)
        rows = len(sides[0])
        columns = np.tile(columns, (rows // len(examples), 1))
        pairs = Pairs(1, rows) if pairs_per_example is None else Pairs(rows // pairs_per_example, pairs_per_example)
        recorded = self.record(sides[1], None, pairs_per_example)
        values, output = self._run(PairedRun(sides[0], recorded, pairs, columns, reduce), plan)
        self._control_flow.check((output, recorded.outputs), examples, references, self.eps)
        return recorded, pairs, values, output

    def _run(
        self, run: PairedRun, plan: Plan | None, diagnosis: list[Any] | None = None
    ) -> tuple[list[np.ndarray], Tensor]:
        """Return multipliers and differences of every pair, reduced, with the explained outputs first; and the outputs."""
        limit = multipliers_of_pass(plan, self._footprint, self._calls, self.device) if plan else run.pairs.rows
        for zero_unreached in (False, True):
            options = BackwardOptions(diagnosis=diagnosis, zero_unreached=zero_unreached or diagnosis is not None)
            values, output = self._trace_and_propagate(run, limit, options)
            if options.zero_unreached or all(np.isfinite(f).all() for f in values):
                break
        return values, output

    def _trace_and_propagate(
        self, run: PairedRun, limit: int, options: BackwardOptions
    ) -> tuple[list[np.ndarray], Tensor]:
        """Trace the examples of a run and propagate multipliers back, see ``_run``."""
        points, recorded, pairs, columns, reduce = run
        summing = self.layer is None and reduce is over_references and options.diagnosis is None
        tracer = Tracer(pairs, recorded.tape, self._control_flow.operations(points), summing)
        tracer.options = replace(options)  # the backward pass changes them
        if (folded_batch := self._folded_batch if pairs.all_pairs else None) is not None:
            tracer.tape.row_orders = folded_batch.orders
        with preserve_run(self._state), translated_errors():
            output, leaves = self.trace(tracer, points)
            if folded_batch is not None:
                folded_batch.apply(tracer.tape)
            axes = [0] * len(leaves) if self.layer is None else self.layer_axes
            shapes = self._bypass_shapes if self.around else None
            traced = Traced(tracer, output, leaves, recorded.leaves, pairs, axes, shapes)
            values = traced.contributions(columns, reduce, limit)
        return values, output.detach()

    # ------------------------------------------------------------------ looking at a model
    def largest_gap(self, pair: Comparison) -> OperationGap | None:
        """Explain a single pair with every rule checked by itself; return the operation with the largest gap."""
        gaps: list[Any] = []
        try:
            recorded = self.record(pair.references.described_by(pair.examples))
            self._run(PairedRun(pair.examples, recorded, Pairs(1, 1), pair.outputs, row_by_row), None, gaps)
        except (TraceMismatch, ValueError):
            return None
        worst = max(reversed(gaps), key=lambda entry: entry[1] if entry[1] == entry[1] else float("inf"), default=None)
        return worst and OperationGap(worst[0].name, worst[0].place, *worst[1:])

    def list_operations(self, points: Points) -> list[OperationSummary]:
        """Return the operations that the model applies to values that depend on its inputs."""
        self._find_axes(points[[0, 0]])
        with preserve_run(self._state):
            return self._derivatives.run_supported(
                partial(inspection.list_operations, self.operations, self.trace, points[:1])
            )


PAIRS_PER_GROUP = 50  # number of pairs of a group below which running all pairs at once is faster than group by group
# Bytes of multipliers of a backward pass, at least and for each call of the model. More does not fit the caches; with less
# the overhead of calls dominates.
PASS_BYTES, CALL_BYTES = 192 * 2**20, 5 * 2**20


def groups_of(points: Points) -> list[np.ndarray]:
    """Return the row numbers of each group of equal row arguments, largest arguments first (for lengths, the longest)."""
    described = [_bytes(e) for e in points.extra if points.form.has_rows(e)]
    if not described:
        return [np.arange(len(points))]
    _, first, number = np.unique(np.concatenate(described, 1), axis=0, return_index=True, return_inverse=True)
    sizes = np.sum([_totals(e) for e in points.extra if points.form.has_rows(e)], axis=0)
    return [np.flatnonzero(number.ravel() == group) for group in np.argsort(-sizes[first], kind="stable")]


def is_faster_at_once(pairs: int, groups: int, recurrent: bool) -> bool:
    """Return whether running all pairs at once is faster: they are few, or recurrent layers, which run rows once, dominate."""
    return recurrent or pairs < PAIRS_PER_GROUP * groups


def footprint_of(reference: Tape, example: Tape, leaves: list[Tensor]) -> tuple[Footprint, bool]:
    """Return the bytes stored for a reference and an example and computed for a pair, and whether recurrent layers dominate.

    The multipliers of a pair are assumed to be twice as large as the values of the forward pass: they do not all live at the
    same time, and rules create temporaries. The output of a recurrent layer also exists in another order.
    """
    memory, example_bytes, entered = reference.memory, example.nbytes, sum(leaf.nbytes for leaf in leaves)
    recurrent = [s for s in reference.records if isinstance(s.memory, MEMORY_TYPES)]
    most = sum(s.memory.nbytes for s in recurrent) > reference.nbytes
    twice = max((s.outputs[0].nbytes for s in recurrent), default=0)
    return Footprint(reference.nbytes + memory + twice, example_bytes + memory, 2 * (example_bytes + entered)), most


def multipliers_of_pass(plan: Plan, footprint: Footprint | None, calls: int, device: torch.device | None) -> int:
    """Return how many multipliers a backward pass takes: what fits into memory, and on the CPU into the caches."""
    if footprint is None or (device and device.type != "cpu"):
        return plan.multipliers
    return max(1, min(plan.multipliers, max(PASS_BYTES, CALL_BYTES * calls) // footprint.pair))


def _totals(values: Tensor) -> np.ndarray:
    numbers = values.detach().cpu()
    return (numbers.abs() if numbers.is_complex() else numbers).double().reshape(len(numbers), -1).sum(1).numpy()


def _bytes(values: Tensor) -> np.ndarray:
    """Return the bytes of each row, (rows, bytes)."""
    flat = values.detach().cpu().reshape(len(values), -1)
    rows = flat.new_empty(flat.shape).copy_(flat)  # a column of a table is strided, and contiguous() keeps it so
    return rows.view(torch.uint8).numpy() if rows.shape[1] else np.zeros((len(rows), 0), np.uint8)
