"""The function of TensorFlow that explains examples against references, for any number of both."""

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
from .graph_analysis import Survey
from .graphs import ModelGraph, traced
from .pairing import ROWS, Crossed, Pairing, Unpaired, Value
from .rules import MISFIT
from .tracer import DIVERGED, Diagnosis, Tape, Tracer, as_footprint, as_vector, is_known

COMPILER = 150 * 2**20  # bytes that XLA takes for itself, whatever it compiles
PAYS = 0.1  # seconds after which a function is compiled; compiling takes some seconds, and halves the time


# How the two sides lie beside each other.
CROSSED = "crossed"  # every example with every reference, each side on rows of its own where these can be told
ON_ALL_PAIRS = "on all pairs"  # the same, both sides repeated to all pairs
ROW_BY_ROW = "row by row"


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


def explained(graph: ModelGraph, survey: Survey, options: Options) -> Explained:
    """Trace the function that explains; examples and references by themselves where their rows can be told."""
    if options.pairing == CROSSED:
        extra = len(graph.body.inputs) - len(graph.captured) - options.inputs
        if not extra and options.layer_axes is None:
            try:
                return Explained(graph, survey, options)
            except Unpaired:
                pass
        options = options._replace(pairing=ON_ALL_PAIRS)
    return Explained(graph, survey, options)


class Explained:
    """A function that explains examples against references."""

    def __init__(self, graph: ModelGraph, survey: Survey, options: Options) -> None:
        self.graph, self.survey, self.options = graph, survey, options
        self.apart, self.layouts = options.pairing == CROSSED, Layouts()
        self._has_kernels = self.apart and not (options.diagnosis or options.zero_unreached or graph.library.has_loops)
        self.steps: list[tuple[str, str]] = []
        self.dtypes: set[tf.DType] = set()
        self._footprint: Footprint | None = None  # where shapes alone tell it
        given = graph.body.inputs[: len(graph.body.inputs) - len(graph.captured)]
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in given]
        if self.apart:
            traced(self._scan)
        rows, extra = specs[: options.inputs], specs[options.inputs :]
        columns = tf.TensorSpec([None], tf.int32)
        self._function = traced(self._explain, rows, list(rows), extra, columns)
        self._compiled: dict[tuple[int, ...], Any] = {}

    def footprint(self, row: Any, reference: Any, extra: Any) -> Footprint:
        """Memory that each reference, each example and each pair takes.

        How often loops turn is found by explaining the single pair that is given.
        """
        if self._footprint is None:
            *_, numbers = self._run(self._function, list(row), list(reference), list(extra), tf.constant([0]))
            self._footprint = as_footprint(numbers.numpy())
        return self._footprint

    def __call__(self, rows: Any, references: Any, extra: Any, columns: np.ndarray, budget: int = 0) -> Any:
        """Attributions of each example summed over references, outputs of examples, and of references, summed."""
        function, sizes = self._function, (len(rows[0]), len(references[0]))
        if self.compiles and self._may_be_compiled(*sizes, budget):
            function = self._compiled_for(sizes)
        made = self._run(function, list(rows), list(references), list(extra), tf.constant(columns))
        return made[:-1] if self._counts else made

    def _may_be_compiled(self, examples: int, references: int, budget: int) -> bool:
        """Whether the budget has room for the compiler, and for what it makes."""
        if self._footprint is None:
            return False
        per_reference, per_example, per_pair = self._footprint.compiled
        needed = references * per_reference + examples * per_example + examples * references * per_pair
        return COMPILER + needed <= budget

    def _run(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except tf.errors.OpError as error:
            self._raise_of_handlers()
            if told := _told(error, MISFIT):
                raise InputError(f"{told}: they must be equal.") from None
            if not (told := _told(error, DIVERGED)):
                raise
            raise ControlFlowError(control_flow_message(told, "tf.where")) from None

    def _raise_of_handlers(self) -> None:
        for region in self.graph.regions:
            rule: Any = region.operation.rule if region.operation else None
            error = getattr(rule, "error", None)
            if error is not None:
                rule.error = None
                raise error from error.__cause__

    def _compiled_for(self, sizes: tuple[int, ...]) -> Any:
        """The function, by XLA once that pays, for so many rows."""
        if sizes not in self._compiled:
            tolerance = max((TOLERANCE.get(dtype.name, 0.0) for dtype in self.dtypes), default=0.0)
            self._compiled[sizes] = _Compiled(self._function, lambda: self._by_xla, tolerance)
        return self._compiled[sizes]

    @cached_property
    def _by_xla(self) -> Any:
        return tf.function(self._function, jit_compile=True, autograph=False)

    # ------------------------------------------------------------------ tracing
    def _scan(self) -> None:
        """Find where the rows lie in all values."""
        inputs = self.graph.body.inputs
        count = len(inputs) - len(self.graph.captured)
        tensors = [tf.raw_ops.Placeholder(dtype=t.dtype, shape=[ROWS, *t.shape[1:]]) for t in inputs[:count]]
        self.layouts.scan(self.survey, self.graph.body, [*tensors, *self.graph.captured])

    def _tracer(self, count: Any, block: Any) -> Tracer:
        carrier = tf.float64 if self.graph.output.dtype == tf.float64 else tf.float32
        pairing = Crossed(count, block, self.graph.library.has_loops) if self.apart else Pairing()
        diagnoses: list[Diagnosis] | None = [] if self.options.diagnosis else None
        tracer = Tracer(self.survey, pairing, self.layouts, carrier, diagnoses, self.options.zero_unreached)
        tracer.has_kernels = self._has_kernels
        tracer.regions, tracer.constants_differ = self.graph.regions, self.apart or self.options.layer_axes is not None
        return tracer

    def _constants(self, extra: Any, block: Any) -> list[Value]:
        return [Value(t, t) for t in (*(_repeated(e, block) for e in extra), *self.graph.captured)]

    def _explain(self, rows: Any, references: Any, extra: Any, columns: Any) -> list[Any]:
        count = tf.shape(rows[0])[0]
        block = tf.constant(1) if self.options.pairing == ROW_BY_ROW else tf.shape(references[0])[0]
        tracer, inner = self._tracer(count, block), self.options.layer_axes is not None
        tape, pairing, diagnoses = Tape(tracer), tracer.pairing, tracer.diagnosis
        values = self._values(rows, references, count, block)
        tracer.count_inputs(values)
        (result,) = tracer.run(self.graph.body, [*values, *self._constants(extra, block)], tape)
        y, yr = (self._flat(side) for side in (result.x, result.r))
        seed = tf.one_hot(_repeated(columns, block), tf.shape(y)[1], dtype=y.dtype)
        if result.active:
            tape.add(result, self._unflat(seed, pairing.shape(result)))
        tape.pull()
        explained = tracer.leaves if inner else values
        self.dtypes, numbers = tracer.dtypes, tracer.bytes.footprint(self.apart)
        self._footprint = as_footprint(numbers) if is_known(numbers) else None
        self._counts = self._footprint is None and diagnoses is None
        self.loops = bool(tracer.loops)
        self.compiles = tracer.loops and not tracer.checks and self.apart  # XLA leaves checks out
        if diagnoses is not None:
            diagnosis = Diagnosis.of_all(diagnoses)
            self.steps = diagnosis.steps
            return [diagnosis.gaps[0], diagnosis.gaps[1]]
        axes = self.options.layer_axes or (0,) * len(explained)
        found = [
            self._explained(tape.multipliers.get(value), value, axis, count, block)
            for value, axis in zip(explained, axes, strict=True)
        ]
        made = self._results(
            [v for each in zip(*found, strict=True) for v in each], y, yr, tf.stack([count, block, -1])
        )
        return [*made, as_vector(numbers)] if self._counts else made

    def _explained(self, multiplier: Any, value: Value, axis: int, count: Any, block: Any) -> list[Any]:
        """Attributions, and multipliers if they are asked for, of one explained value."""
        if self._has_kernels and multiplier is not None:
            found = _in_one_pass(multiplier, value)
            if found is not None:
                return [found]
        m, d = self._of_pairs(multiplier, value, axis, count, block)
        total = tf.reduce_sum(tf.cast(m * d, tf.float64), 1)
        return [total, tf.cast(m[:, 0], tf.float64)] if self.options.multipliers else [total]

    def _results(self, totals: list[Any], y: Any, yr: Any, grouped: Any) -> list[Any]:
        """What was found, and outputs of both sides."""
        y, yr = (tf.cast(v, tf.float64) for v in (y, yr))
        if self.apart:
            return [*totals, y, tf.broadcast_to(tf.reduce_sum(yr, 0), tf.shape(y))]
        return [*totals, tf.reshape(y, grouped)[:, 0], tf.reduce_sum(tf.reshape(yr, grouped), 1)]

    def _values(self, rows: Sequence[Any], references: Sequence[Any], count: Any, block: Any) -> list[Value]:
        active = self.options.layer_axes is None
        if self.apart:
            layouts = [self.layouts.of(t) for t in self.graph.body.inputs]
            return [Value(x, r, active, layout=k) for x, r, k in zip(rows, references, layouts, strict=False)]
        if self.options.pairing == ROW_BY_ROW:
            return [Value(x, r, active) for x, r in zip(rows, references, strict=True)]
        several = [tf.concat([[count], tf.ones_like(tf.shape(r)[1:])], 0) for r in references]
        return [
            Value(_repeated(x, block), tf.tile(r, times), active)
            for x, r, times in zip(rows, references, several, strict=True)
        ]

    def _of_pairs(self, multiplier: Any, value: Value, axis: int, count: Any, block: Any) -> tuple[Any, Any]:
        """Multipliers and differences of one explained value, (examples, references of each, ...), the rows first."""
        x, r = (_rows_first(side, axis) for side in (value.x, value.r))
        multiplier = _rows_first(multiplier, axis)
        grouped = tf.concat([[count, block], tf.shape(x)[1:]], 0)
        dtype = x.dtype if multiplier is None and x.dtype.is_floating else tf.float64
        x, r = (tf.cast(v, dtype if multiplier is None else multiplier.dtype) for v in (x, r))
        difference = x[:, None] - r[None] if self.apart else tf.reshape(x - r, grouped)
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


def _in_one_pass(multiplier: Any, value: Value) -> Any | None:
    """Attributions of one explained value by a kernel, if it has one, on the band of its multiplier alone."""
    band = adjoints.band(multiplier)
    part = band and adjoints.within(value, *band)
    if band is None or part is None:
        return kernel_dispatch.explained(multiplier, value)
    found = kernel_dispatch.explained(band[0], part)
    return None if found is None else adjoints.padded(found, band[1])


def _told(error: tf.errors.OpError, mark: str) -> str:
    """What an assertion of ours says in an error, after its mark; "" if it is none."""
    text = str(error.message).partition(mark)[2].replace("] [", " ")
    return text.partition("]")[0].replace("\\'", "'")


def _repeated(rows: Any, times: Any) -> Any:
    """Each row several times, as tf.repeat does it in twenty operations."""
    return tf.gather(rows, tf.range(tf.shape(rows)[0] * times) // times)


def _rows_first(tensor: Any, axis: int) -> Any:
    if tensor is None or axis == 0:
        return tensor
    return tf.transpose(tensor, [axis, *(k for k in range(tensor.shape.rank) if k != axis)])


class _Compiled:
    """Runs a function as it is until that has taken long enough for XLA to pay, for one size of its arguments.

    It stays as it is where XLA cannot compile it, or returns anything else.
    """

    def __init__(self, function: Any, by_xla: Callable[[], Any], tolerance: float) -> None:
        self._function, self._by_xla, self._tolerance = function, by_xla, tolerance
        self._runs, self._spent, self._waits = 0, 0.0, True

    def __call__(self, *arguments: Any) -> Any:
        """Run."""
        if self._waits and self._spent > PAYS:
            return self._replaced(arguments)
        start = time.perf_counter()
        result = self._function(*arguments)
        self._spent += (time.perf_counter() - start) * (self._runs > 0)  # the first run is slower than the next
        self._runs += 1
        return result

    def _replaced(self, arguments: Sequence[Any]) -> Any:
        """What the function returns, which is what XLA's must return to take its place."""
        self._waits, expected = False, self._function(*arguments)
        try:
            by_xla = self._by_xla()
            found = by_xla(*arguments)
        except tf.errors.OpError:
            return expected
        if all(_agree(*each, self._tolerance) for each in zip(found, expected, strict=True)):
            self._function = by_xla
        return expected


def _agree(found: Any, expected: Any, tolerance: float) -> bool:
    """Whether arrays are equal to rounding, relative to the largest number."""
    found, expected = found.numpy(), expected.numpy()
    largest = np.abs(expected).max(initial=0.0)
    return np.allclose(found, expected, rtol=0.0, atol=tolerance * largest, equal_nan=True)
