"""The PyTorch engine: run the model on chunks of pairs and return attributions summed over the references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ...errors import BatchMixingError, ControlFlowError, InputError, NonFiniteError
from ...execution import DEFAULT_BUDGET, MOST_PAIRS, Chunk, Footprint
from .background import Kept, Recorded, looked_at, state_of
from .contributions import Reduce, Traced, over_references, row_by_row
from .foreign import ForeignCall, custom_functions_visible
from .inputs import Inputs, take_output
from .operations import Misaligned, Operation, Pairs
from .state import modules_of, preserved
from .trace import Tracer
from .tree import replace, tensors

# float32 and float64 as the rules promise; the lower precisions as their own rounding allows. The least precise dtype that
# the signal passes through decides.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}


@dataclass
class Blame:
    """The operation that explains its own output worst, when the sums do not match."""

    name: str
    place: str
    gap: float
    size: float


class TorchEngine:
    """Explains one torch model against one background."""

    in_float64 = "model.double()"

    def __init__(
        self,
        model: Callable[..., Any],
        background: Any,
        *,
        layer: nn.Module | None = None,
        layer_output: bool = False,
        around: bool = False,
        output: Any = None,
        batch_axis: int | Sequence[int] = 0,
    ) -> None:
        self.model, self.layer, self.output = model, layer, output
        self.layer_output = layer_output  # whether the layer's outputs are explained, not its inputs
        self.around = around  # whether what goes around the layer is returned too, as a last tensor (outputs, rows)
        self._around_shapes: list[torch.Size] = []
        self.modules = modules_of(model)
        if layer is not None and not isinstance(layer, nn.Module):
            raise InputError(f"the layer of (model, layer) must be a torch.nn.Module, not {layer!r}.")
        if any(is_lazy(p) for m in self.modules for p in m._parameters.values() if p is not None):
            raise InputError(
                "the model has lazy layers without weights yet: run it once on data of the right shape first."
            )
        if any(p.is_inference() for m in self.modules for p in m._parameters.values() if p is not None):
            raise InputError(
                "the model's weights were made under torch.inference_mode, and torch follows nothing through them. Copy the "
                "model outside of it (copy.deepcopy), or make it under torch.no_grad."
            )
        self.inputs = Inputs(background, batch_axis, *_home_of(self.modules))
        self.output_axis: int | None = None
        self.output_shape: tuple[int, ...] = ()
        self.dtype = torch.get_default_dtype()
        self.layer_axes: list[int] = []
        self._dtypes: set[torch.dtype] = set()
        self._footprint: Footprint | None = None
        self._pairwise = False  # whether references must be run beside every example
        self.max_memory = DEFAULT_BUDGET
        self.rows_at_once = MOST_PAIRS  # of multipliers, one for each pair and output, that fit into memory
        self._kept: Kept | None = None  # the background's activations
        self.operations: dict[Any, Operation] = {}  # rules for single modules, beside those registered for all

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    # ------------------------------------------------------------------ running the model
    def evaluate(self, rows: list[Tensor], extra: Sequence[Any]) -> Tensor:
        """Run the model as it is. Returns outputs of shape (rows, outputs)."""
        with preserved(self.modules), torch.no_grad():
            return self._flat(self._call([r.clone() for r in rows], extra), len(rows[0]))

    def _call(self, rows: Sequence[Tensor], extra: Sequence[Any]) -> Tensor:
        return take_output(self.inputs.call(self.model, rows, extra), self.output)

    def _flat(self, output: Tensor, rows: int) -> Tensor:
        if self.output_axis is not None:
            output = output.movedim(self.output_axis, 0)
        if output.dim() == 0 or len(output) != rows:
            raise BatchMixingError(
                f"the model returned an output of shape {tuple(output.shape)} for {rows} rows: it must have one entry per "
                "row. A model that aggregates over the batch cannot be explained row by row; if rows lie along another "
                "axis of the input, say so with batch_axis."
            )
        if not output.is_floating_point():
            raise InputError(
                f"the model's output has dtype {output.dtype}; explain its logits or probabilities instead."
            )
        self.output_shape, self.dtype = tuple(output.shape[1:]), output.dtype
        return output.reshape(rows, -1)

    def _find_axes(self, rows: list[Tensor], extra: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Find where the rows lie in the output, from a run on two rows and one on the first alone.

        Returns the first row's output from either run.
        """
        with preserved(self.modules), torch.no_grad():
            two, layers_two = self._with_layer_values(rows, extra)
        with preserved(self.modules), torch.no_grad():
            try:
                one, layers_one = self._with_layer_values(
                    [r[:1] for r in rows], self.inputs.rows_of(extra, slice(0, 1))
                )
            except Exception as error:
                raise BatchMixingError(
                    f"the model runs on two rows and fails on one ({type(error).__name__}: {error}): it needs the other rows "
                    "of its batch, so that a row has no output, and no attribution, of its own."
                ) from error
        self.output_axis = _row_axis(one.shape, two.shape, "output")
        self.layer_axes = [
            _row_axis(a.shape, b.shape, "layer's value") for a, b in zip(layers_one, layers_two, strict=True)
        ]
        self._flat(one, 1)
        return one.movedim(self.output_axis, 0)[0], two.movedim(self.output_axis, 0)[0]

    def _with_layer_values(self, rows: list[Tensor], extra: Sequence[Any]) -> tuple[Tensor, list[Tensor]]:
        """Run the model; return its output and what is explained of the inner layer."""
        values: list[Tensor] = []
        rows = [r.clone() for r in rows]  # the model may write into its input
        if self.layer is None:
            return self._call(rows, extra), values

        def look(found: list[Tensor]) -> list[Tensor]:
            values.extend(found)
            return found

        with self._layer_values_through(look):
            output = self._call(rows, extra)
        if not values:
            raise InputError(
                f"the layer {type(self.layer).__name__} is not called by the model, or has no float "
                f"{'output' if self.layer_output else 'input'}."
            )
        return output, values

    def _layer_values_through(self, change: Callable[[list[Tensor]], Sequence[Tensor]]) -> AbstractContextManager[None]:
        assert self.layer is not None
        return _hooked(self.layer, change, self.layer_output)

    # ------------------------------------------------------------------ what the explainer asks
    @staticmethod
    @contextmanager
    def session() -> Iterator[None]:
        """Work as if the caller had set no gradient mode."""
        with torch.inference_mode(False), torch.enable_grad():
            yield

    def free_memory(self) -> int | None:
        """Free memory of the model's GPU; None on the CPU."""
        device = self.inputs.background[0].device if self.inputs.background else self.inputs.device
        return torch.cuda.mem_get_info(device)[0] if device is not None and device.type == "cuda" else None

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether the model's GPU has no memory left; the background's activations and what torch keeps are freed then."""
        if not isinstance(error, torch.OutOfMemoryError):
            return False
        self._kept = None
        if self.inputs.background[0].device.type == "cuda":
            torch.cuda.empty_cache()
        return True

    def against(self, background: Any, what: str = "background") -> None:
        """Explain against these references from now on."""
        self._kept = None
        self.inputs.use(background, what)

    def read(self, X: Any, additional_forward_args: Any) -> tuple[list[Tensor], tuple[Any, ...]]:
        """Return rows-first inputs and all row arguments."""
        rows, implied = self.inputs.read(X)
        if len(rows[0]) == 0:
            raise InputError("X is empty: there is nothing to explain.")
        return rows, (*implied, *self.inputs.read_extra(additional_forward_args, len(rows[0])))

    def data(self, X: Any, additional_forward_args: Any) -> Any:
        """Return what is explained, the inputs or those of the inner layer, as arrays."""
        rows, extra = self.read(X, additional_forward_args)
        if self.layer is None:
            return self.inputs.restore([_array(r) for r in rows])
        arrays = [_array(v) for v in self.layer_values(rows, extra)]
        return arrays[0] if len(arrays) == 1 else arrays

    def layer_values(self, rows: list[Tensor], extra: Sequence[Any]) -> list[Tensor]:
        """Return what is explained of the inner layer, as it is on these rows."""
        with preserved(self.modules), torch.no_grad():
            return self._with_layer_values(rows, extra)[1]

    def restore(self, values: list[np.ndarray]) -> Any:
        """Give attributions the form of what is explained and the dtype of the output."""
        values = [v.astype(np.float64 if self.dtype == torch.float64 else np.float32) for v in values]
        if self.layer is None:
            return self.inputs.restore(values)
        placed = [np.moveaxis(v, 0, axis) for v, axis in zip(values, self.layer_axes, strict=True)]
        return placed[0] if len(placed) == 1 else placed

    def prepare(self, examples: list[Tensor], extra: Sequence[Any]) -> Footprint:
        """Check once, on an example beside a reference, that the model can be explained.

        Returns the memory that references, examples and pairs take.
        """
        self._check_kept()
        if self._footprint is None:
            rows = [torch.cat([x[:1], r[:1]]) for x, r in zip(examples, self.inputs.background, strict=True)]
            alone, together = self._find_axes(rows, self.inputs.rows_of(extra, [0, 0]))
            footprint = self._measure([x[:1] for x in examples], self.inputs.rows_of(extra, slice(0, 1)))
            behind = self.evaluate([r.flip(0) for r in rows], self.inputs.rows_of(extra, [0, 0]))[1]
            _check_independence(self.eps, alone.reshape(-1), together.reshape(-1), behind)
            self._footprint = footprint
        if extra or self._pairwise:  # everything is run and kept for every pair
            return Footprint(0, 0, sum(self._footprint))
        return self._footprint

    def outputs(self, examples: list[Tensor], extra: Sequence[Any], sizes: tuple[int, int]) -> np.ndarray:
        """Outputs of the untouched model, (rows, outputs)."""
        step = sizes[0] * sizes[1]
        parts = [
            self._evaluate_and_check(
                [x[i : i + step] for x in examples], self.inputs.rows_of(extra, slice(i, i + step)), step
            )
            for i in range(0, len(examples[0]), step)
        ]
        outputs = torch.cat(parts)
        finite = torch.isfinite(outputs).all(1)
        if not bool(finite.all()):
            raise NonFiniteError(f"the model returns NaN or infinity for row {int((~finite).nonzero()[0])} of X.")
        return _numpy(outputs)

    def native_outputs(self, rows: list[Tensor], extra: Sequence[Any]) -> np.ndarray:
        """Outputs of the untouched model, (rows, outputs), wherever it puts the rows."""
        self._find_axes([torch.cat([r[:1], r[-1:]]) for r in rows], self.inputs.rows_of(extra, [0, -1]))
        return self.outputs(rows, extra, (1, MOST_PAIRS))

    def expected_value(self) -> np.ndarray:
        """Mean output over the background."""
        lengths = () if self.inputs.packed_lengths is None else (self.inputs.packed_lengths,)
        try:
            outputs = self.native_outputs(self.inputs.background, lengths)
        except TypeError as error:
            raise InputError(
                f"the model could not be run on the background alone ({error}). If it takes additional_forward_args, each "
                "explained row has its own base value: explainer(X, additional_forward_args=...).base_values."
            ) from error
        mean = outputs.mean(0).reshape(self.output_shape)
        return mean.astype(np.float64 if self.dtype == torch.float64 else np.float32)

    @property
    def tolerance(self) -> float:
        """How far sums may be off, relative to the scale of the outputs, by the least precise dtype in the model."""
        return max(TOLERANCE[dtype] for dtype in (self.dtype, *self._dtypes) if dtype in TOLERANCE)

    @property
    def eps(self) -> float:
        """Rounding unit of the least precise dtype in the model."""
        return max(torch.finfo(dtype).eps for dtype in (self.dtype, *self._dtypes) if dtype in TOLERANCE)

    # ------------------------------------------------------------------ tracing
    def _trace(self, tracer: Tracer, rows: list[Tensor], extra: Sequence[Any]) -> tuple[Tensor, list[Tensor]]:
        """Run the model under a tracer. Returns its output (rows, outputs) and the leaves to be explained."""
        leaves: list[Tensor] = []

        def enter(values: Sequence[Tensor]) -> list[Tensor]:
            entered = [tracer.enter(v) for v in values]
            leaves.extend(leaf for _, leaf in entered)
            return [inside for inside, _ in entered]

        with _foreign_visible(self.modules, tracer), torch.enable_grad():
            if self.layer is None:
                inside = enter(rows)
                with tracer:
                    output = self._call(inside, extra)
            else:
                inside = tracer.follow(rows)
                with self._layer_values_through(enter), tracer:
                    output = self._call(inside, extra)
                leaves.extend(tracer.around or ())
            output = tracer.leave(output)
            tracer.finish()
            return self._flat(output, len(rows[0])), leaves

    def record(self, references: list[Tensor], extra: Sequence[Any]) -> Recorded:
        """Run the references and keep what the rules need."""
        tracer = Tracer(Pairs(1, len(references[0])), operations=self.operations)
        with preserved(self.modules):
            output, leaves = self._trace(tracer, references, extra)
        return Recorded(tracer.tape, output.detach(), [leaf.detach() for leaf in leaves])

    def _measure(self, example: list[Tensor], extra: Sequence[Any]) -> Footprint:
        """Trace one example beside one reference and count what is kept.

        The multipliers of a pair are taken to be twice as large as what was computed on the way forward: they do not all
        live at the same time, and rules make some more.
        """
        recorded = self.record([r[:1] for r in self.inputs.background], extra)
        tracer = Tracer(Pairs(1, 1), recorded.tape, self.operations)
        try:
            with preserved(self.modules):
                self._trace(tracer, example, extra)
        except Misaligned as error:
            raise ControlFlowError(_control_flow_message(error)) from None
        self._dtypes = recorded.tape.dtypes
        self._around_shapes = [leaf.shape for leaf in tracer.around or ()]
        leaves = sum(leaf.nbytes for leaf in recorded.leaves)
        kept = recorded.tape.memory
        own = tracer.tape.nbytes
        return Footprint(recorded.tape.nbytes + kept, own + kept, 2 * (own + leaves))

    # ------------------------------------------------------------------ a chunk of pairs
    def attribute(
        self, chunk: Chunk, reduce: Reduce = over_references
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Explain a chunk of examples against a block of references.

        Returns, per explained tensor, attributions summed over the references, (outputs, examples, ...), or what ``reduce``
        makes of each pair; the outputs of the examples (examples, outputs) and the sum over references of the references'
        outputs (examples, outputs).
        """
        if self._can_be_crossed(chunk):
            try:
                return self._attribute(chunk, False, reduce)
            except Misaligned:
                self._pairwise, self._kept = True, None
        try:
            return self._attribute(chunk, True, reduce)
        except Misaligned as error:
            raise ControlFlowError(_control_flow_message(error)) from None

    def attribute_rows(
        self, chunk: Chunk, reduce: Reduce = row_by_row
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Explain every example against the reference in the same place, instead of all against all.

        Returns attributions (outputs, rows, ...) per explained tensor and the outputs of examples and of references.
        """
        try:
            recorded = self.record(chunk.references, chunk.extra)
            pairs = Pairs(1, len(chunk.examples[0]))
            values, output = self._contributions(chunk.examples, chunk.extra, recorded, pairs, chunk.columns, reduce)
        except Misaligned as error:
            raise ControlFlowError(_control_flow_message(error)) from None
        return values, _numpy(output), _numpy(recorded.outputs)

    def _recorded_block(self, chunk: Chunk) -> Recorded:
        if self._kept is None or self._kept.block != chunk.block:
            self._kept = None  # two blocks would take twice the memory
            recorded, state = self.record(chunk.references, ()), state_of(self.model, self.modules, self.operations)
            some = looked_at(state, chunk.references)
            self._kept = Kept(chunk.block, some, recorded, self.evaluate(some, ()), state)
        return self._kept.recorded

    def _evaluate_and_check(self, rows: list[Tensor], extra: Sequence[Any], most: int) -> Tensor:
        """Run the untouched model, and beside the rows some of the references whose activations are kept.

        If those give other outputs than before, the model is another one, and the activations are forgotten.
        """
        kept = self._kept
        if kept is None or kept.checked:
            return self.evaluate(rows, extra)
        if extra or len(rows[0]) + len(kept.looked_at[0]) > most:
            outputs, again = self.evaluate(rows, extra), self.evaluate(kept.looked_at, ())
        else:
            together = self.evaluate([torch.cat(both) for both in zip(rows, kept.looked_at, strict=True)], ())
            outputs, again = together.tensor_split([len(rows[0])])
        rounding = 16 * self.eps  # other rows in the batch change the order of sums
        if not torch.allclose(again, kept.native, rtol=rounding, atol=rounding * float(kept.native.abs().max())):
            self._kept = None
        kept.checked = True
        return outputs

    def _check_kept(self) -> None:
        """Forget the background's activations if weights, buffers or rules have changed since."""
        if self._kept is None:
            return
        self._kept.checked = False
        if self._kept.state != state_of(self.model, self.modules, self.operations):
            self._kept = None

    def _can_be_crossed(self, chunk: Chunk) -> bool:
        """Whether either side can run on rows of its own; rows are found by their numbers, which must not be equal."""
        examples, references = chunk.pairs
        return not self._pairwise and not chunk.extra and (examples != references or examples == 1)

    def _attribute(
        self, chunk: Chunk, pairwise: bool, reduce: Reduce = over_references, diagnosis: list[Any] | None = None
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Explain a chunk: either side runs on rows of its own or, pairwise, both run on all pairs."""
        n, b = chunk.pairs
        if pairwise:
            rows, columns = [x.repeat_interleave(b, 0) for x in chunk.examples], chunk.columns.repeat(b, 0)
            references = [r.repeat(n, *[1] * (r.dim() - 1)) for r in chunk.references]
            extra = self.inputs.repeat_rows(chunk.extra, b)
            recorded = self.record(references, extra)
        else:
            rows, columns, extra, recorded = chunk.examples, chunk.columns, (), self._recorded_block(chunk)
        pairs = Pairs(n, b, crossed=not pairwise and n * b > 1)
        totals, output = self._contributions(rows, extra, recorded, pairs, columns, reduce, diagnosis)
        expected = recorded.outputs.unflatten(0, (-1, b)).sum(1, dtype=torch.float64).expand(n, -1)
        return totals, _numpy(output[:: b if pairwise else 1]), _numpy(expected)

    def _contributions(
        self,
        rows: list[Tensor],
        extra: Sequence[Any],
        recorded: Recorded,
        pairs: Pairs,
        columns: np.ndarray,
        reduce: Reduce,
        diagnosis: list[Any] | None = None,
    ) -> tuple[list[np.ndarray], Tensor]:
        """Multipliers and differences of every pair (examples, references, ...), reduced, and the rows' outputs.

        ``columns`` (rows, outputs) names the explained outputs of every row. The results of all outputs are stacked along
        the first axis.
        """
        summing = self.layer is None and reduce is over_references and diagnosis is None
        tracer = Tracer(pairs, recorded.tape, self.operations, summing)
        tracer.diagnosis = diagnosis
        with preserved(self.modules):
            output, leaves = self._trace(tracer, rows, extra)
            axes = [0] * len(leaves) if self.layer is None else self.layer_axes
            around = self._around_shapes if self.around else None
            traced = Traced(tracer, output, leaves, recorded.leaves, pairs, axes, around)
            at_once = max(1, self.rows_at_once // pairs.rows) if diagnosis is None else 1
            return traced.contributions(columns, reduce, at_once), output.detach()

    # ------------------------------------------------------------------ blame
    def blame(self, chunk: Chunk) -> Blame | None:
        """Explain a single pair once more, with every rule checked by itself; return the worst."""
        found: list[Any] = []
        try:
            self._attribute(chunk, True, diagnosis=found)
        except (Misaligned, ValueError):
            return None
        worst = max(found, key=lambda entry: entry[1] if entry[1] == entry[1] else float("inf"), default=None)
        if worst is None:
            return None
        step, gap, size = worst
        return Blame(step.name, step.place, gap, size)


# ---------------------------------------------------------------------- helpers
def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _row_axis(one: Sequence[int], two: Sequence[int], what: str) -> int:
    """The axis that grows with the number of rows, from shapes for one and for two rows."""
    axes = [axis for axis, sizes in enumerate(zip(one, two, strict=False)) if sizes == (1, 2)]
    if len(one) != len(two) or len(axes) != 1:
        raise BatchMixingError(
            f"the {what} has shape {tuple(one)} for one row and {tuple(two)} for two: no axis holds the rows. A model that "
            "aggregates over the batch cannot be explained row by row; if rows lie along another axis of the input, say so "
            "with batch_axis."
        )
    return axes[0]


def _check_independence(eps: float, alone: Tensor, *among_others: Tensor) -> None:
    """A row's output must not depend on its batch mates, nor on when it is computed."""
    runs = torch.stack([alone, *among_others])
    gap, scale = float((runs - alone).abs().max()), float(runs.abs().max())
    if gap > eps**0.5 * scale:
        raise BatchMixingError(
            f"the output for a row changes by {gap:.3g} (of {scale:.3g}) with the other row of its batch, or from call to call: "
            "statistics over the batch, random numbers, state kept between calls, or a Python branch on values of the whole "
            "batch. Such a model has no attribution per row; make its output for a row depend on that row alone."
        )


def _home_of(modules: list[nn.Module]) -> tuple[torch.device | None, torch.dtype | None]:
    """Device and float dtype of a model, from its first parameter or buffer; None when it has none."""
    tensors = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    floats = [t.dtype for t in tensors if t.is_floating_point()]
    return next((t.device for t in tensors), None), next(iter(floats), None)


@contextmanager
def _hooked(layer: nn.Module, change: Callable[[list[Tensor]], Sequence[Tensor]], output: bool) -> Iterator[None]:
    """Pass the float inputs of a layer, or its float outputs, through a function, once."""
    calls = 0

    def changed(values: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise InputError(
                f"the layer {type(layer).__name__} is called more than once by the model: it has several inputs and outputs, "
                "one for each call. Explain the model's input, or give each call a layer of its own."
            )
        new = iter(change([t for t in tensors(values) if t.is_floating_point()]))
        return replace(values, lambda t: next(new) if t.is_floating_point() else t)

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        taken = iter(changed([a for a in args if isinstance(a, Tensor)]))
        return tuple(next(taken) if isinstance(a, Tensor) else a for a in args)

    def after(_: nn.Module, args: Any, result: Any) -> Any:
        return changed(result)

    handle = layer.register_forward_hook(after) if output else layer.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _foreign_visible(modules: list[nn.Module], tracer: Tracer) -> Iterator[None]:
    """Let the tracer meet custom autograd functions, and modules that have a rule of their own, as single calls."""
    ruled = [m for m in modules if m in tracer.operations or type(m) in tracer.operations]
    for module in ruled:
        key = module if module in tracer.operations else type(module)
        module.forward = ForeignCall(key, module.forward, type(module).__name__)
    try:
        with custom_functions_visible():
            yield
    finally:
        for module in ruled:
            module.__dict__.pop("forward", None)


def _control_flow_message(error: Misaligned) -> str:
    return (
        f"the model does not run the same way on the example and on the reference: {error}. Deep SHAP compares the two "
        "operation by operation. Write input-dependent branches as torch.where, or pass what decides them (lengths, masks, "
        "flags) as additional_forward_args, which example and reference share."
    )
