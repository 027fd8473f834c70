"""Build the TensorFlow function that explains examples against references, for any number of both.

The function runs the traced model on both sides with a ``Tracer``, seeds the multiplier of the explained output of each
pair, pulls multipliers back over the tape, and multiplies those of the inputs by the differences of the two sides. If
the rows of all values are known, each side runs on its own rows; otherwise both run on all pairs. Models with loops are
compiled by XLA once that pays, if the compiled function returns the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ...errors import ControlFlowError, InputError
from ...formulas.additivity import TOLERANCE
from ..base import control_flow_message
from ..interface import Footprint
from . import adjoints, kernel_dispatch
from .batch_axes import Layouts
from .graph_analysis import GraphAnalysis
from .graphs import ModelGraph, trace_function
from .pairing import ROWS, AllPairs, Pairing, Unpaired, Value
from .rules import MISFIT
from .tracer import DIVERGED, Diagnosis, Tape, Tracer, as_footprint, as_vector, is_known

COMPILER = 150 * 2**20  # bytes that XLA takes for itself, whatever it compiles
PAYS = 0.1  # seconds after which a function is compiled; compiling takes some seconds, and halves the time


# How the two sides lie beside each other.
ALL_PAIRS = "all pairs"  # every example with every reference, each side on its own rows where these can be told
BROADCAST = "broadcast"  # the same, both sides repeated to all pairs
ALIGNED = "aligned"  # each example with the reference of its row


class Options(NamedTuple):
    """What a function that explains is traced for.

    Attributes
    ----------
    inputs : the number of inputs that are explained, or that the rows of an inner layer's inputs come from.
    output_axis : the axis of the output that holds the rows.
    layer_axes : those axes of an inner layer's inputs; None where the model's inputs are explained.
    pairing : how the two sides lie beside each other.
    multipliers : return those of the pairs too.
    diagnosis : return the gap of every rule instead.
    zero_unreached : what nothing reaches gets 0, whatever slope it has.
    """

    inputs: int
    output_axis: int
    layer_axes: tuple[int, ...] | None
    pairing: str
    multipliers: bool = False
    diagnosis: bool = False
    zero_unreached: bool = False


def trace_explanation(graph: ModelGraph, analysis: GraphAnalysis, options: Options) -> ExplanationFunction:
    """Trace the function that explains; each side on its own rows if the rows of all values are found."""
    if options.pairing == ALL_PAIRS:
        extra = len(graph.body.inputs) - len(graph.captured) - options.inputs
        if not extra and options.layer_axes is None:
            try:
                return ExplanationFunction(graph, analysis, options)
            except Unpaired:
                pass
        options = options._replace(pairing=BROADCAST)
    return ExplanationFunction(graph, analysis, options)


class ExplanationFunction:
    """Explain examples against references, by one traced function."""

    def __init__(self, graph: ModelGraph, analysis: GraphAnalysis, options: Options) -> None:
        self.graph, self.analysis, self.options = graph, analysis, options
        self.is_separate, self.layouts = options.pairing == ALL_PAIRS, Layouts()
        self._has_kernels = self.is_separate and not (
            options.diagnosis or options.zero_unreached or graph.library.has_loops
        )
        self.steps: list[tuple[str, str]] = []
        self.dtypes: set[tf.DType] = set()
        self._footprint: Footprint | None = None  # where shapes alone tell it
        entries = graph.body.inputs[: len(graph.body.inputs) - len(graph.captured)]
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in entries]
        if self.is_separate:
            trace_function(self._scan)
        rows, extra = specs[: options.inputs], specs[options.inputs :]
        columns = tf.TensorSpec([None], tf.int32)
        self._function = trace_function(self._explain, rows, list(rows), extra, columns)
        self._compiled: dict[tuple[int, ...], Any] = {}

    def footprint(self, row: Any, reference: Any, extra: Any) -> Footprint:
        """Return the bytes that each reference, each example and each pair takes.

        The number of turns of loops is found by explaining the given pair.
        """
        if self._footprint is None:
            *_, numbers = self._run(self._function, list(row), list(reference), list(extra), tf.constant([0]))
            self._footprint = as_footprint(numbers.numpy())
        return self._footprint

    def __call__(self, rows: Any, references: Any, extra: Any, columns: np.ndarray, budget: int = 0) -> Any:
        """Return attributions of each example summed over references, outputs of examples, and summed outputs of references."""
        function, sizes = self._function, (len(rows[0]), len(references[0]))
        if self.compiles and self._may_be_compiled(*sizes, budget):
            function = self._compiled_for(sizes)
        results = self._run(function, list(rows), list(references), list(extra), tf.constant(columns))
        return results[:-1] if self._counts else results

    def _may_be_compiled(self, examples: int, references: int, budget: int) -> bool:
        """Return whether the budget has room for the compiler and for the compiled function."""
        if self._footprint is None:
            return False
        per_reference, per_example, per_pair = self._footprint.compiled
        bytes_needed = references * per_reference + examples * per_example + examples * references * per_pair
        return COMPILER + bytes_needed <= budget

    def _run(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except tf.errors.OpError as error:
            self._raise_of_handlers()
            if text := _assertion_message(error, MISFIT):
                raise InputError(f"{text}: they must be equal.") from None
            if not (text := _assertion_message(error, DIVERGED)):
                raise
            raise ControlFlowError(control_flow_message(text, "tf.where")) from None

    def _raise_of_handlers(self) -> None:
        for layer_call in self.graph.layer_calls:
            rule: Any = layer_call.operation.rule if layer_call.operation else None
            error = getattr(rule, "error", None)
            if error is not None:
                rule.error = None
                raise error from error.__cause__

    def _compiled_for(self, sizes: tuple[int, ...]) -> Any:
        """Return the function for these numbers of rows, which XLA compiles once that pays."""
        if sizes not in self._compiled:
            tolerance = max((TOLERANCE.get(dtype.name, 0.0) for dtype in self.dtypes), default=0.0)
            self._compiled[sizes] = _Compiled(self._function, lambda: self._by_xla, tolerance)
        return self._compiled[sizes]

    @cached_property
    def _by_xla(self) -> Any:
        return tf.function(self._function, jit_compile=True, autograph=False)

    # ------------------------------------------------------------------ tracing
    def _scan(self) -> None:
        """Find the axis of the rows in all values."""
        inputs = self.graph.body.inputs
        count = len(inputs) - len(self.graph.captured)
        tensors = [tf.raw_ops.Placeholder(dtype=t.dtype, shape=[ROWS, *t.shape[1:]]) for t in inputs[:count]]
        self.layouts.scan(self.analysis, self.graph.body, [*tensors, *self.graph.captured])

    def _tracer(self, count: Any, block: Any) -> Tracer:
        multiplier_dtype = tf.float64 if self.graph.output.dtype == tf.float64 else tf.float32
        pairing = AllPairs(count, block, self.graph.library.has_loops) if self.is_separate else Pairing()
        diagnoses: list[Diagnosis] | None = [] if self.options.diagnosis else None
        tracer = Tracer(self.analysis, pairing, self.layouts, multiplier_dtype, diagnoses, self.options.zero_unreached)
        tracer.has_kernels = self._has_kernels
        tracer.layer_calls, tracer.constants_differ = (
            self.graph.layer_calls,
            self.is_separate or self.options.layer_axes is not None,
        )
        return tracer

    def _constants(self, extra: Any, block: Any) -> list[Value]:
        return [Value(t, t) for t in (*(_repeat_rows(e, block) for e in extra), *self.graph.captured)]

    def _explain(self, rows: Any, references: Any, extra: Any, columns: Any) -> list[Any]:
        count = tf.shape(rows[0])[0]
        block = tf.constant(1) if self.options.pairing == ALIGNED else tf.shape(references[0])[0]
        tracer, inner = self._tracer(count, block), self.options.layer_axes is not None
        tape, pairing, diagnoses = Tape(tracer), tracer.pairing, tracer.diagnosis
        values = self._values(rows, references, count, block)
        tracer.count_inputs(values)
        (result,) = tracer.run(self.graph.body, [*values, *self._constants(extra, block)], tape)
        y, yr = (self._flat(side) for side in (result.x, result.r))
        seed = tf.one_hot(_repeat_rows(columns, block), tf.shape(y)[1], dtype=y.dtype)
        if result.active:
            tape.add(result, self._unflat(seed, pairing.shape(result)))
        tape.pull()
        explained = tracer.leaves if inner else values
        self.dtypes, numbers = tracer.dtypes, tracer.bytes.footprint(self.is_separate)
        self._footprint = as_footprint(numbers) if is_known(numbers) else None
        self._counts = self._footprint is None and diagnoses is None
        self.loops = bool(tracer.loops)
        self.compiles = tracer.loops and not tracer.checks and self.is_separate  # XLA leaves checks out
        if diagnoses is not None:
            diagnosis = Diagnosis.of_all(diagnoses)
            self.steps = diagnosis.steps
            return [diagnosis.gaps[0], diagnosis.gaps[1]]
        axes = self.options.layer_axes or (0,) * len(explained)
        per_input = [
            self._attributions(tape.multipliers.get(value), value, axis, count, block)
            for value, axis in zip(explained, axes, strict=True)
        ]
        results = self._results(
            [v for parts in zip(*per_input, strict=True) for v in parts], y, yr, tf.stack([count, block, -1])
        )
        return [*results, as_vector(numbers)] if self._counts else results

    def _attributions(self, multiplier: Any, value: Value, axis: int, count: Any, block: Any) -> list[Any]:
        """Return attributions of one explained value, and its multipliers if they are asked for."""
        if self._has_kernels and multiplier is not None:
            attributions = _attributions_by_kernel(multiplier, value)
            if attributions is not None:
                return [attributions]
        m, d = self._of_pairs(multiplier, value, axis, count, block)
        total = tf.reduce_sum(tf.cast(m * d, tf.float64), 1)
        return [total, tf.cast(m[:, 0], tf.float64)] if self.options.multipliers else [total]

    def _results(self, totals: list[Any], y: Any, yr: Any, grouped: Any) -> list[Any]:
        """Return attributions, and the outputs of both sides."""
        y, yr = (tf.cast(v, tf.float64) for v in (y, yr))
        if self.is_separate:
            return [*totals, y, tf.broadcast_to(tf.reduce_sum(yr, 0), tf.shape(y))]
        return [*totals, tf.reshape(y, grouped)[:, 0], tf.reduce_sum(tf.reshape(yr, grouped), 1)]

    def _values(self, rows: Sequence[Any], references: Sequence[Any], count: Any, block: Any) -> list[Value]:
        active = self.options.layer_axes is None
        if self.is_separate:
            layouts = [self.layouts.of(t) for t in self.graph.body.inputs]
            return [Value(x, r, active, layout=k) for x, r, k in zip(rows, references, layouts, strict=False)]
        if self.options.pairing == ALIGNED:
            return [Value(x, r, active) for x, r in zip(rows, references, strict=True)]
        several = [tf.concat([[count], tf.ones_like(tf.shape(r)[1:])], 0) for r in references]
        return [
            Value(_repeat_rows(x, block), tf.tile(r, times), active)
            for x, r, times in zip(rows, references, several, strict=True)
        ]

    def _of_pairs(self, multiplier: Any, value: Value, axis: int, count: Any, block: Any) -> tuple[Any, Any]:
        """Return multipliers and differences of one explained value, (examples, references of each, ...), the rows first."""
        x, r = (_rows_first(side, axis) for side in (value.x, value.r))
        multiplier = _rows_first(multiplier, axis)
        grouped = tf.concat([[count, block], tf.shape(x)[1:]], 0)
        dtype = x.dtype if multiplier is None and x.dtype.is_floating else tf.float64
        x, r = (tf.cast(v, dtype if multiplier is None else multiplier.dtype) for v in (x, r))
        difference = x[:, None] - r[None] if self.is_separate else tf.reshape(x - r, grouped)
        if multiplier is None:
            return tf.zeros_like(difference), difference
        return tf.reshape(multiplier, grouped), difference

    # ------------------------------------------------------------------ rows first
    def _flat(self, output: Any) -> Any:
        output = tf.transpose(output, self._order(output.shape.rank)) if self.options.output_axis else output
        return tf.reshape(output, tf.stack([tf.shape(output)[0], -1]))

    def _order(self, rank: int) -> list[int]:
        return [self.options.output_axis, *(k for k in range(rank) if k != self.options.output_axis)]

    def _unflat(self, seed: Any, shape: Any) -> Any:
        if not self.options.output_axis:
            return tf.reshape(seed, shape)
        order = self._order(self.graph.output.shape.rank)
        return tf.transpose(tf.reshape(seed, tf.gather(shape, order)), np.argsort(order).tolist())


def _attributions_by_kernel(multiplier: Any, value: Value) -> Any | None:
    """Return attributions of one explained value by a kernel, on the nonzero slice of its multiplier; None without a kernel."""
    part = adjoints.nonzero_slice(multiplier)
    inner = part and adjoints.slice_value(value, *part)
    if part is None or inner is None:
        return kernel_dispatch.attributions(multiplier, value)
    attributions = kernel_dispatch.attributions(part[0], inner)
    return None if attributions is None else adjoints.pad(attributions, part[1])


def _assertion_message(error: tf.errors.OpError, mark: str) -> str:
    """Return the text of an assertion of deepshap in an error, after its mark; "" if there is none."""
    text = str(error.message).partition(mark)[2].replace("] [", " ")
    return text.partition("]")[0].replace("\\'", "'")


def _repeat_rows(rows: Any, times: Any) -> Any:
    """Repeat each row, in fewer operations than ``tf.repeat`` has."""
    return tf.gather(rows, tf.range(tf.shape(rows)[0] * times) // times)


def _rows_first(tensor: Any, axis: int) -> Any:
    if tensor is None or axis == 0:
        return tensor
    return tf.transpose(tensor, [axis, *(k for k in range(tensor.shape.rank) if k != axis)])


class _Compiled:
    """Run a function as it is until it has taken long enough for XLA to pay, for one size of its arguments.

    The function stays as it is if XLA cannot compile it, or if the compiled function returns something else.
    """

    def __init__(self, function: Any, by_xla: Callable[[], Any], tolerance: float) -> None:
        self._function, self._by_xla, self._tolerance = function, by_xla, tolerance
        self._runs, self._spent, self._waits = 0, 0.0, True

    def __call__(self, *arguments: Any) -> Any:
        """Run."""
        if self._waits and self._spent > PAYS:
            return self._replace(arguments)
        start = time.perf_counter()
        result = self._function(*arguments)
        self._spent += (time.perf_counter() - start) * (self._runs > 0)  # the first run is slower than the next
        self._runs += 1
        return result

    def _replace(self, arguments: Sequence[Any]) -> Any:
        """Return what the function returns, and replace the function by XLA's if that returns the same."""
        self._waits, expected = False, self._function(*arguments)
        try:
            by_xla = self._by_xla()
            compiled = by_xla(*arguments)
        except tf.errors.OpError:
            return expected
        if all(_is_close(*pair, self._tolerance) for pair in zip(compiled, expected, strict=True)):
            self._function = by_xla
        return expected


def _is_close(actual: Any, expected: Any, tolerance: float) -> bool:
    """Return whether arrays are equal to rounding, relative to the largest number."""
    actual, expected = actual.numpy(), expected.numpy()
    largest = np.abs(expected).max(initial=0.0)
    return np.allclose(actual, expected, rtol=0.0, atol=tolerance * largest, equal_nan=True)
