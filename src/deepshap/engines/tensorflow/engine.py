"""The Keras and TensorFlow engine: trace the model, run it on chunks of pairs, return attributions summed over references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from ...errors import (
    BatchMixingError,
    DeepShapError,
    InputError,
    NonFiniteError,
    UnsupportedOperationError,
)
from ...execution import DEFAULT_BUDGET, MOST_PAIRS, Chunk, Footprint
from ...fingerprint import Fingerprint
from ...mathematics.on_tensorflow import rounding
from .contributions import Explained, explained
from .graphs import Traced
from .inputs import Inputs, take_output
from .operations import Operation
from .regions import Region, marked, scoped
from .state import layers_of, preserved, seeds_kept, state_of, variables_kept
from .survey import ACTIVE, COUNTED, STILL, Survey
from .table import OPERATIONS, USER_OPERATIONS

# float32 and float64 as the rules promise; the lower precisions as their own rounding allows. The least precise dtype that
# the signal passes through decides.
TOLERANCE = {tf.float64: 1e-9, tf.float32: 1e-4, tf.float16: 1e-2, tf.bfloat16: 6e-2}


@dataclass
class Blame:
    """The operation that explains its own output worst, when the sums do not match."""

    name: str
    place: str
    gap: float
    size: float


class KerasEngine:
    """Explains one Keras model, or one callable of TensorFlow's tensors, against one background."""

    in_float64 = 'built behind keras.config.set_dtype_policy("float64"), with the weights of this one'

    def __init__(
        self,
        model: Any,
        background: Any,
        *,
        layer: Any = None,
        output: Any = None,
        batch_axis: int | Sequence[int] = 0,
    ) -> None:
        self.model, self.layer, self.output = model, layer, output
        self.layers = layers_of(model)
        if layer is not None and layer not in self.layers:
            raise InputError(
                f"the layer of (model, layer) must be a layer of the model, such as model.layers[0], not {layer!r}."
            )
        self.inputs = Inputs(background, batch_axis, _dtype_of(model, list(self.layers)))
        self.operations: dict[Any, Operation] = {}  # rules for single layers, beside those registered for all
        self.output_axis: int | None = None
        self.output_shape: tuple[int, ...] = ()
        self.dtype: tf.DType = tf.float32
        self.layer_axes: list[int] = []
        self._dtypes: set[tf.DType] = set()
        self._traces: dict[Any, Traced] = {}
        self._functions: dict[Any, Any] = {}
        self._state: Fingerprint | None = None  # of the model when it was traced
        self._doubtful = False  # whether not all of it could be read, so that graphs are compared with it in every call
        self.rows_at_once = MOST_PAIRS  # pairs, one for each explained output, that fit into memory
        self.max_memory = DEFAULT_BUDGET

    def __getstate__(self) -> dict[str, Any]:
        """Graphs cannot be pickled, and layers are found anew: a copy of the model has copies of them."""
        layer = self.layers.get(self.layer)
        return {
            **self.__dict__,
            "layer": layer,
            "layers": {},
            "operations": {},
            "_traces": {},
            "_functions": {},
            "_state": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.layers = layers_of(self.model)
        if self.layer is not None:
            self.layer = next(layer for layer, name in self.layers.items() if name == state["layer"])

    # ------------------------------------------------------------------ running the model
    def traced(self, rows: Sequence[np.ndarray], extra: Sequence[Any]) -> Traced:
        """The model's graph for rows of this shape, traced once."""
        tensors = [e for e in extra if Inputs.has_rows(e)]
        marks = self._marks()
        key = (
            tuple(marks.items()),
            tuple((r.shape[1:], r.dtype.name) for r in (*rows, *tensors)),
            tuple(repr(e) for e in extra if not Inputs.has_rows(e)),
        )
        if key not in self._traces:
            specs = [tf.TensorSpec((None, *r.shape[1:]), r.dtype) for r in (*rows, *tensors)]

            def call(*given: Any) -> Any:
                later = iter(given[len(rows) :])
                arguments = [next(later) if Inputs.has_rows(e) else e for e in extra]
                output = take_output(self.inputs.call(self.model, given[: len(rows)], arguments), self.output)
                return [output, *self._layer_inputs(regions, output)]

            self._build(rows, extra)
            regions: list[Region] = []
            scopes: dict[str, str] = {}
            with preserved(list(self.layers)), scoped(self.layers, scopes), marked(marks, regions):
                try:
                    self._traces[key] = Traced(call, specs, scopes)
                except DeepShapError:
                    raise
                except Exception as error:
                    self._refuse(error, rows, extra)
            self._traces[key].regions = regions
            self._state = state_of(self.model, list(self.layers))
        return self._traces[key]

    def _refuse(self, error: Exception, rows: Sequence[np.ndarray], extra: Sequence[Any]) -> None:
        """Raise for a model that cannot be traced: its own error if it does not run at all."""
        one = [tf.constant(r[:1]) for r in rows]
        with variables_kept([v for layer in self.layers for v in layer.variables]), seeds_kept():
            self.inputs.call(self.model, one, [tf.constant(e[:1]) if Inputs.has_rows(e) else e for e in extra])
        raise UnsupportedOperationError(
            f"the model runs, but TensorFlow cannot make a graph of it ({type(error).__name__}: {str(error).strip()}). Values of "
            "tensors that go through Python or NumPy (float(x), x.numpy(), `if` and loops that depend on them) cannot be "
            "followed: write them with TensorFlow or keras.ops (tf.where, tf.cond, tf.while_loop). Of a Keras model give the "
            "model itself, not its predict."
        ) from error

    def _marks(self) -> dict[Any, tuple[str, Operation | None]]:
        """Layers that are treated as a whole, and the one whose inputs are explained."""
        rules = {layer: self.operations.get(layer) or USER_OPERATIONS.get(layer) for layer in self.layers}
        rules = {layer: rule or USER_OPERATIONS.get(type(layer)) for layer, rule in rules.items()}
        return {
            layer: (name, None if layer is self.layer else rules[layer])
            for layer, name in self.layers.items()
            if layer is self.layer or rules[layer] is not None
        }

    def _layer_inputs(self, regions: list[Region], output: Any) -> list[Any]:
        """What is explained of the inner layer."""
        if self.layer is None:
            return []
        calls = [region for region in regions if region.layer is self.layer]
        found = [t for region in calls for t in region.inside if t.dtype.is_floating]
        if not found:
            raise InputError(f"the layer {self.layer.name!r} is not called by the model, or has no float input.")
        if len(calls) > 1 or any(t.graph is not output.graph for t in found):
            raise InputError(
                f"the layer {self.layer.name!r} is called more than once by the model: it has several inputs, one set for each "
                "call. Explain the model's input, or give each call a layer of its own."
            )
        return found

    def _build(self, rows: Sequence[np.ndarray], extra: Sequence[Any]) -> None:
        """Let a model that has no weights yet make them, as its first call would."""
        if isinstance(self.model, keras.layers.Layer) and not self.model.built:
            self.inputs.call(self.model, [tf.constant(r[:1]) for r in rows], self.inputs.rows_of(extra, slice(0, 1)))
            self.layers = layers_of(self.model)

    def evaluate(self, rows: Sequence[np.ndarray], extra: Sequence[Any]) -> np.ndarray:
        """Run the model as it is. Returns outputs of shape (rows, outputs)."""
        return self._flat(self._native(rows, extra)[0], len(rows[0]))

    def _native(self, rows: Sequence[np.ndarray], extra: Sequence[Any]) -> list[np.ndarray]:
        """The model's output, and the inputs of the inner layer."""
        traced = self.traced(rows, extra)
        tensors = [tf.constant(r) for r in (*rows, *(e for e in extra if Inputs.has_rows(e)))]
        with variables_kept(traced.written):
            return [t.numpy() for t in traced.function(*tensors)]

    def _called(self, traced: Traced, rows: Sequence[np.ndarray], extra: Sequence[Any]) -> np.ndarray:
        """Run the model as its user calls it, without a graph, which would not show what Python does anew at each call."""
        given = [tf.constant(e) if Inputs.has_rows(e) else e for e in extra]
        with preserved(list(self.layers)), variables_kept(traced.written), seeds_kept():
            result = self.inputs.call(self.model, [tf.constant(r) for r in rows], given)
            return self._flat(take_output(result, self.output).numpy(), len(rows[0]))

    def _flat(self, output: np.ndarray, rows: int) -> np.ndarray:
        if self.output_axis is not None:
            output = np.moveaxis(output, self.output_axis, 0)
        if output.ndim == 0 or len(output) != rows:
            raise BatchMixingError(
                f"the model returned an output of shape {output.shape} for {rows} rows: it must have one entry per row. A "
                "model that aggregates over the batch cannot be explained row by row; if rows lie along another axis of the "
                "input, say so with batch_axis."
            )
        dtype = tf.as_dtype(output.dtype)
        if not dtype.is_floating:
            raise InputError(f"the model's output has dtype {dtype.name}; explain its logits or probabilities instead.")
        self.output_shape, self.dtype = tuple(output.shape[1:]), dtype
        return output.reshape(rows, -1)

    def _find_axes(self, rows: Sequence[np.ndarray], extra: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Find where the rows lie in the output, from a run on two rows and one on the first alone.

        Returns the first row's output from either run.
        """
        two, *layer_two = self._native(rows, extra)
        try:
            one, *layer_one = self._native([r[:1] for r in rows], self.inputs.rows_of(extra, slice(0, 1)))
        except tf.errors.OpError as error:
            raise BatchMixingError(
                f"the model runs on two rows and fails on one ({type(error).__name__}: {error.message}): it needs the other "
                "rows of its batch, so that a row has no output, and no attribution, of its own."
            ) from error
        self.output_axis = _row_axis(one.shape, two.shape, "output")
        self.layer_axes = [
            _row_axis(a.shape, b.shape, "layer's value") for a, b in zip(layer_one, layer_two, strict=True)
        ]
        self._flat(one, 1)
        return np.moveaxis(one, self.output_axis, 0)[0], np.moveaxis(two, self.output_axis, 0)[0]

    # ------------------------------------------------------------------ what the explainer asks
    @staticmethod
    @contextmanager
    def session() -> Iterator[None]:
        """Work as if the caller had set nothing up."""
        with tf.init_scope(), context.eager_mode():
            yield

    def free_memory(self) -> int | None:
        """Free memory as the budget's default counts it: that of the machine."""
        return None

    @staticmethod
    def is_out_of_memory(error: Exception) -> bool:
        """Whether TensorFlow says that the device has no memory left."""
        return isinstance(error, tf.errors.ResourceExhaustedError)

    def against(self, background: Any, what: str = "background") -> None:
        """Explain against these references from now on."""
        self.inputs.use(background, what)

    def _forget_if_changed(self) -> None:
        """Forget the graphs of a model whose Python values have changed since; look again where not all can be read."""
        if not self._traces:
            return
        state = state_of(self.model, list(self.layers))
        if state != self._state:
            self._forget()
        elif not state.complete:
            self._doubtful = True
            for traced in self._traces.values():
                traced.compared = False

    def _forget(self) -> None:
        self._traces.clear()
        self._functions.clear()
        self.layers = layers_of(self.model)
        self._doubtful = False

    def read(self, X: Any, additional_forward_args: Any) -> tuple[list[np.ndarray], tuple[Any, ...]]:
        """Return rows-first inputs and all row arguments."""
        self._forget_if_changed()
        rows = self.inputs.read(X)
        if len(rows[0]) == 0:
            raise InputError("X is empty: there is nothing to explain.")
        return rows, self.inputs.read_extra(additional_forward_args, len(rows[0]))

    def data(self, X: Any, additional_forward_args: Any) -> Any:
        """Return what is explained as arrays."""
        rows, extra = self.read(X, additional_forward_args)
        if self.layer is None:
            return self.inputs.restore(rows)
        values = self._native(rows, extra)[1:]
        return values[0] if len(values) == 1 else values

    def restore(self, values: list[np.ndarray]) -> Any:
        """Give attributions the form of what is explained and the dtype of the output."""
        values = [v.astype(np.float64 if self.dtype == tf.float64 else np.float32) for v in values]
        if self.layer is None:
            return self.inputs.restore(values)
        placed = [np.moveaxis(v, 0, axis) for v, axis in zip(values, self.layer_axes, strict=True)]
        return placed[0] if len(placed) == 1 else placed

    def prepare(self, examples: list[np.ndarray], extra: Sequence[Any]) -> Footprint:
        """Check once, on an example beside a reference, that the model can be explained.

        Returns the memory that references, examples and pairs take.
        """
        try:
            return self._prepare(examples, extra)
        except BatchMixingError:
            if not self._doubtful:
                raise
            self._forget()  # the graph was that of the model as it was before
            return self._prepare(examples, extra)

    def _prepare(self, examples: list[np.ndarray], extra: Sequence[Any]) -> Footprint:
        rows = [np.concatenate([x[:1], r[:1]]) for x, r in zip(examples, self.inputs.background, strict=True)]
        pairs = self.inputs.rows_of(extra, [0, 0])
        runs = [run.reshape(-1) for run in self._find_axes(rows, pairs)]
        runs.append(self.evaluate([r[::-1] for r in rows], pairs)[1])
        function, traced = self._function(examples, extra), self.traced(rows, pairs)
        _check_independence(self.eps, *runs)
        if not traced.compared:
            _check_graph(self.eps, runs[0], self._called(traced, rows, pairs)[0])
            traced.compared = True
            self._state = state_of(
                self.model, list(self.layers)
            )  # what a call itself changes, a counter say, is no change
        given = (examples, self.inputs.background, [e for e in extra if Inputs.has_rows(e)])
        row, reference, beside = ([tf.constant(v[:1]) for v in values] for values in given)
        return function.footprint(row, reference, beside)

    def outputs(self, examples: list[np.ndarray], extra: Sequence[Any], sizes: tuple[int, int]) -> np.ndarray:
        """Outputs of the untouched model, (rows, outputs)."""
        step = sizes[0] * sizes[1]
        parts = [
            self.evaluate([x[i : i + step] for x in examples], self.inputs.rows_of(extra, slice(i, i + step)))
            for i in range(0, len(examples[0]), step)
        ]
        outputs = np.concatenate(parts).astype(np.float64)
        finite = np.isfinite(outputs).all(1)
        if not finite.all():
            raise NonFiniteError(f"the model returns NaN or infinity for row {int(np.argmin(finite))} of X.")
        return outputs

    def expected_value(self) -> np.ndarray:
        """Mean output over the background."""
        self._forget_if_changed()
        rows = self.inputs.background
        try:
            self._find_axes([np.concatenate([r[:1], r[-1:]]) for r in rows], ())
            outputs = self.outputs(rows, (), (1, MOST_PAIRS))
        except TypeError as error:
            raise InputError(
                f"the model could not be run on the background alone ({error}). If it takes additional_forward_args, each "
                "explained row has its own base value: explainer(X, additional_forward_args=...).base_values."
            ) from error
        mean = outputs.mean(0).reshape(self.output_shape)
        return mean.astype(np.float64 if self.dtype == tf.float64 else np.float32)

    @property
    def tolerance(self) -> float:
        """How far sums may be off, relative to the scale of the outputs, by the least precise dtype in the model."""
        return max(TOLERANCE[dtype] for dtype in (self.dtype, *self._dtypes) if dtype in TOLERANCE)

    @property
    def eps(self) -> float:
        """Rounding unit of the least precise dtype in the model."""
        return max(rounding(dtype) for dtype in (self.dtype, *self._dtypes) if dtype in TOLERANCE)

    # ------------------------------------------------------------------ a chunk of pairs
    def attribute(self, chunk: Chunk) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Explain a chunk of examples against a block of references.

        Returns, per explained tensor, attributions summed over the references, (outputs, examples, ...), the outputs of the
        examples (examples, outputs) and the sum over references of the references' outputs (examples, outputs).
        """
        (n, b), outputs = chunk.pairs, chunk.columns.shape[1]
        function = self._function(chunk.examples, chunk.extra)
        references = list(map(tf.constant, chunk.references))
        together = max(1, min(outputs, self.rows_at_once // (n * b)))  # outputs are explained as further examples
        totals: list[list[np.ndarray]] = []
        for first in range(0, outputs, together):
            columns = chunk.columns[:, first : first + together]
            rows, extra = (
                [tf.constant(np.repeat(x, columns.shape[1], 0)) for x in given]
                for given in (chunk.examples, filter(Inputs.has_rows, chunk.extra))
            )
            wanted = columns.ravel().astype(np.int32)
            *found, y, yr = function(rows, references, extra, wanted, self.max_memory)
            totals.append([np.moveaxis(f.numpy().reshape(*columns.shape, *f.shape[1:]), 1, 0) for f in found])
            fx, fr = (v.numpy().astype(np.float64)[:: columns.shape[1]] for v in (y, yr))
        return [np.concatenate(t) for t in zip(*totals, strict=True)], fx, fr

    def _function(self, rows: Sequence[np.ndarray], extra: Sequence[Any], diagnosis: bool = False) -> Explained:
        traced = self.traced(rows, extra)
        key = id(traced), diagnosis, tuple(USER_OPERATIONS.items())
        if key not in self._functions:
            of_rows = ACTIVE if self.layer is None else COUNTED
            flags = [of_rows] * len(rows) + [STILL] * (len(traced.body.inputs) - len(rows))
            survey = Survey(traced.library, {**OPERATIONS, **USER_OPERATIONS}, traced.regions)
            survey.run(traced.body, flags)
            if survey.unsupported:
                raise UnsupportedOperationError(_unsupported_message(list(survey.unsupported)))
            self._functions[key] = explained(
                traced,
                survey,
                len(rows),
                self.output_axis or 0,
                self.layer_axes if self.layer is not None else None,
                diagnosis,
            )
            self._dtypes |= self._functions[key].dtypes
        return self._functions[key]

    # ------------------------------------------------------------------ blame
    def blame(self, chunk: Chunk) -> Blame | None:
        """Explain a single pair once more, with every rule checked by itself; return the worst."""
        function = self._function(chunk.examples, chunk.extra, diagnosis=True)
        extra = [tf.constant(e) for e in chunk.extra if Inputs.has_rows(e)]
        found: list[Blame] = []
        for column in chunk.columns.T:
            gaps, sizes = function(
                list(map(tf.constant, chunk.examples)),
                list(map(tf.constant, chunk.references)),
                extra,
                column.astype(np.int32),
            )
            found += [
                Blame(name, place, float(gap), float(size))
                for (name, place), gap, size in zip(function.steps, gaps.numpy(), sizes.numpy(), strict=True)
            ]
        return max(found, key=lambda entry: entry.gap if entry.gap == entry.gap else float("inf"), default=None)


# ---------------------------------------------------------------------- helpers
def _unsupported_message(calls: list[tuple[str, str]]) -> str:
    listed = "\n".join(f"  {name} in {place}" for name, place in calls)
    first = calls[0][0].partition(" ")[0]
    return (
        f"the model uses operations for which no rule is known:\n{listed}\n"
        f'Say how to explain them with deepshap.register_rule("{first}", rule), where rule is "linear", "constant", '
        '"elementwise", "quadratic", "smooth" or a function; see docs/adding-a-rule.md.'
    )


def _dtype_of(model: Any, layers: list[Any]) -> str | None:
    """Float dtype in which a model computes, from its variables; None when it has none."""
    variables = [w for layer in layers for w in layer.variables]
    variables += list(getattr(model, "variables", ())) if not layers else []
    floats = [keras.backend.standardize_dtype(v.dtype) for v in variables]
    return next((d for d in floats if d in ("float16", "bfloat16", "float32", "float64")), None)


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


def _check_independence(eps: float, *runs: np.ndarray) -> None:
    """A row's output must not depend on its batch mates, nor on when it is computed."""
    gap, scale = _spread(runs)
    if gap > eps**0.5 * scale:
        raise BatchMixingError(
            f"the output for a row changes by {gap:.3g} (of {scale:.3g}) with the other row of its batch, or from call to call: "
            "statistics over the batch, random numbers, state kept between calls, or a Python branch on values of the whole "
            "batch. Such a model has no attribution per row; make its output for a row depend on that row alone."
        )


def _check_graph(eps: float, *runs: np.ndarray) -> None:
    """The graph must compute what the model returns when it is called."""
    gap, scale = _spread(runs)
    if gap > eps**0.5 * scale:
        raise BatchMixingError(
            f"the output for a row differs by {gap:.3g} (of {scale:.3g}) between the model as it is called and its graph, as "
            "predict runs it. A graph does not see what Python does anew at each call: random numbers of NumPy, state kept in "
            "Python. Such a model has no attribution per row; make its output depend on its input and its variables alone."
        )


def _spread(runs: Sequence[np.ndarray]) -> tuple[float, float]:
    """How far several runs are apart, and their size."""
    outputs = np.stack(runs).astype(np.float64)
    return float(np.abs(outputs - outputs[0]).max()), float(np.abs(outputs).max())
