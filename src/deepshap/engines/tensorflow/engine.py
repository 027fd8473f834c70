"""The Keras and TensorFlow engine: trace the model, run it on pairs of points, return their contributions."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from ...errors import BatchMixingError, DeepShapError, InputError, UnsupportedOperationError
from ..base import BaseEngine, called_twice, spread
from ..callables import packages
from ..interface import Comparison, Contributions, ModelProfile, OperationGap, OperationSummary, Plan, Points
from ..snapshot import other_draws
from . import heads as output_heads
from ._compat import eager_mode, tapes_recording
from .backward import ALIGNED, ALL_PAIRS, BROADCAST, COMPILER, ExplanationFunction, Options, trace_explanation
from .double import NARROW, widen_graph
from .graph_analysis import ACTIVE, ROW_COUNT, STATIC, DecisionSearch, GraphAnalysis, OperationCollector
from .graphs import ModelGraph, share_graph, trace_model
from .handlers import Handlers, LayerCall, mark_layers, note_scopes
from .inputs import Inputs, take_output
from .model_state import State, state_of
from .operations import USER_OPERATIONS, Operation
from .preserve import alone, dtype_of, layers_of, preserve_model, preserve_seeds, preserve_variables
from .table import OPERATIONS
from .tracer import AROUND

MOST_BY_ROUNDING = 0.01  # of the output, between a model as it is called and its graph
OUT_OF_RANGE = re.compile(r"= -?\d+ is not in \[0, \d+\)$")
MOST_FOUND = 16  # things found of a model that are kept, outputs on references among them


class TensorFlowEngine(BaseEngine):
    """Explain one Keras model, or one callable that takes TensorFlow's tensors."""

    framework = "tensorflow"
    heads: ClassVar[Any] = output_heads
    packages = "tensorflow", "keras"
    as_numbers = staticmethod(np.asarray)
    exhausted = (tf.errors.ResourceExhaustedError,)
    failures = tf.errors.OpError
    alone = staticmethod(alone)
    in_float64 = 'built behind keras.config.set_dtype_policy("float64"), with the weights of this one'

    def __init__(
        self, model: Any, *, layer: Any = None, output: Any = None, batch_axis: int | Sequence[int] = 0
    ) -> None:
        super().__init__(model, layer, output, batch_axis)
        self.layers = layers_of(model)
        if layer is not None and "tf_keras" in packages(layer):
            raise InputError(
                f"{layer!r} is a layer of Keras 2 (tf_keras), and inner layers can be explained of Keras 3 alone. Explain the "
                "model from the layer's input on, as a function or by symbolic tensors (layer.output, model.output), or build "
                "the model with Keras 3."
            )
        if layer is not None and layer not in self.layers:
            raise InputError(
                f"the layer of (model, layer) must be a layer of the model, such as model.layers[0], not {layer!r}."
            )
        self._in_float64 = False  # whatever the model computes in
        self.forget()
        self.handlers = Handlers(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without graphs, which cannot be pickled, and layers, which are searched for in the copy."""
        layer = self.layers.get(self.layer)
        state = {**super().__getstate__(), "layer": layer, "layers": {}, "operations": {}}
        return {k: v for k, v in state.items() if k not in ("_graphs", "_confirmed", "_compared")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.forget()
        self.layers = layers_of(self.model)
        if self.layer is not None:
            self.layer = next(layer for layer, name in self.layers.items() if name == state["layer"])
        self.handlers.apply()

    def _enter(self, stack: ExitStack) -> None:
        stack.enter_context(tf.init_scope())
        stack.enter_context(eager_mode())
        if not self.is_frozen:
            self._confirmed.clear()  # the model may run before it is probed, if it is at all
            self._is_unchanged = False

    def _form(self, values: Any, what: str) -> Inputs:
        return Inputs(values, self.batch_axis, what, dtype_of(self.model, list(self.layers)))

    def forget(self) -> bool:
        """Forget all that is stored of the model."""
        self._graphs: dict[Any, tuple[ModelGraph, State | None]] = {}  # with the model's state when they were traced
        self._confirmed: set[Any] = set()  # keys of the graphs that are known to be those of the model in this call
        self._compared: set[ModelGraph] = set()  # graphs that compute what the model returns as it is called
        self._is_comparable = False  # whether all that the model's code reads can be compared
        self._is_unchanged = False  # whether what was found once is known to be of the model as it is in this call
        self._values: Any = None  # of the model's variables when it was found out what is found once
        return super().forget()

    # ------------------------------------------------------------------ the model as a graph
    def graph(self, points: Points) -> ModelGraph:
        """Return the model's graph for rows of this shape; it is kept while the model is unchanged.

        Every call compares the model's state, or traces the model again if its state cannot be compared.
        """
        self._build(points)
        tensors = [e for e in points.extra if Inputs.has_rows(e)]
        marks = self._marks()
        key = (
            tuple(marks.items()),
            points.form.way,
            tuple((r.shape[1:], r.dtype.name) for r in (*points.inputs, *tensors)),
            tuple(repr(e) for e in points.extra if not Inputs.has_rows(e)),
        )
        if key not in self._confirmed:
            self._update_graph(key, points, marks)
            self._confirmed.add(key)
        return self._graphs[key][0]

    def _update_graph(self, key: Any, points: Points, marks: dict[Any, tuple[str, Operation | None]]) -> None:
        """Trace the model, unless it is unchanged; keep the earlier graph, with all that was made of it, if both are equal."""
        graph_before, state = self._graphs.get(key, (None, None))
        if state is not None and state.is_unchanged(self.model, self.output):
            self._is_comparable = True
            return
        self._cached_values.clear()
        graph = self._trace(points, marks)
        state = state_of(self.model, self.output)  # after the trace, which loads modules
        self._is_comparable = state is not None
        if graph_before is None or graph_before.signature != graph.signature:
            graph_before = share_graph(self.model, graph)
            self._sizes.clear()
        self._graphs[key] = graph_before, state

    def _trace(self, points: Points, marks: dict[Any, tuple[str, Operation | None]]) -> ModelGraph:
        form, inputs = points.form, points.inputs
        specs = [tf.TensorSpec((None, *r.shape[1:]), r.dtype) for r in inputs]
        specs += [tf.TensorSpec((None, *e.shape[1:]), e.dtype) for e in points.extra if Inputs.has_rows(e)]
        layer_calls: list[LayerCall] = []
        scopes: dict[str, str] = {}

        def call(*tensors: Any) -> Any:
            rest = iter(tensors[len(inputs) :])
            arguments = [next(rest) if Inputs.has_rows(e) else e for e in points.extra]
            output = self._explained_tensor(form.call(self.model, tensors[: len(inputs)], arguments))
            return [output, *self._layer_inputs(layer_calls, output)]

        with (
            preserve_model(self.model, list(self.layers)),
            note_scopes(self.layers, scopes),
            mark_layers(marks, layer_calls),
            tapes_recording(),
        ):
            try:
                return self._in_precision(ModelGraph(trace_model(call, specs), scopes, layer_calls), len(inputs))
            except DeepShapError:
                raise
            except Exception as error:
                self._refuse(error, points)
                raise

    def _in_precision(self, graph: ModelGraph, inputs: int) -> ModelGraph:
        """Return the graph in the precision that the engine computes in."""
        if not self._in_float64:
            return graph
        wide = ModelGraph(widen_graph(graph.function, inputs), graph.library.scopes, graph.layer_calls)
        wide.written = graph.written
        return wide

    def _refuse(self, error: Exception, points: Points) -> None:
        """Raise for a model that cannot be traced: its own error if it does not run at all."""
        with preserve_variables([v for layer in self.layers for v in layer.variables]), preserve_seeds():
            self._call_model(points[:1])
        raise UnsupportedOperationError(
            f"the model runs, but TensorFlow cannot make a graph of it ({type(error).__name__}: {str(error).strip()}). Values of "
            "tensors that go through Python or NumPy (float(x), x.numpy(), `if` and loops that depend on them) cannot be "
            "followed: write them with TensorFlow or keras.ops (tf.where, tf.cond, tf.while_loop). Of a Keras model give the "
            "model itself, not its predict."
        ) from error

    def _marks(self) -> dict[Any, tuple[str, Operation | None]]:
        """Return the layers that are treated as one operation, and the one whose inputs are explained."""
        rules = {layer: self.operations.get(layer) or USER_OPERATIONS.get(layer) for layer in self.layers}
        rules = {layer: rule or USER_OPERATIONS.get(type(layer)) for layer, rule in rules.items()}
        return {
            layer: (name, None if layer is self.layer else rules[layer])
            for layer, name in self.layers.items()
            if layer is self.layer or rules[layer] is not None
        }

    def _layer_inputs(self, layer_calls: list[LayerCall], output: Any) -> list[Any]:
        """Return the explained inputs of the inner layer."""
        if self.layer is None:
            return []
        calls = [layer_call for layer_call in layer_calls if layer_call.layer is self.layer]
        tensors = [t for layer_call in calls for t in layer_call.inside if t.dtype.is_floating]
        if not tensors:
            raise InputError(f"the layer {self.layer.name!r} is not called by the model, or has no float input.")
        if len(calls) > 1 or any(t.graph is not output.graph for t in tensors):
            raise called_twice(repr(self.layer.name))
        return tensors

    def _explained_tensor(self, result: Any) -> Any:
        """Take the explained tensor out of what the model returned; Keras' names of outputs are keys."""
        first = self.output[0] if isinstance(self.output, tuple) and self.output else self.output
        names = getattr(self.model, "output_names", None)
        if isinstance(first, str) and names and isinstance(result, (list, tuple)) and len(names) == len(result):
            result = dict(zip(names, result, strict=True))
        return take_output(result, self.output)

    def _build(self, points: Points) -> None:
        """Build a model that has no weights yet, as its first call does; update its layers."""
        if isinstance(self.model, keras.layers.Layer) and not self.model.built:
            self._call_model(points[:1])
        self.layers = layers_of(self.model)

    # ------------------------------------------------------------------ the model by itself
    def _call_model(self, points: Points) -> Any:
        """Call the model as its user does, without a graph."""
        arguments = [tf.constant(e) if Inputs.has_rows(e) else e for e in points.extra]
        with self.running(points), tapes_recording():
            return points.form.call(self.model, [tf.constant(r) for r in points.inputs], arguments)

    @staticmethod
    def _message(error: Exception) -> str:
        """Return what an error says, without the lines that say where in Keras the graph was made."""
        text = str(getattr(error, "message", error)).partition("[[{{node")[0].strip()
        text = text.rpartition("\n\n")[2] if text.startswith("Graph execution error") else text
        if OUT_OF_RANGE.search(text):
            text += ": an id is outside of the table that it is looked up in (input_dim of an Embedding)"
        return text

    def _evaluate(self, points: Points) -> np.ndarray:
        return self._flat(self._native(points)[0], len(points))

    def _native(self, points: Points) -> list[np.ndarray]:
        """Return the model's output, and the inputs of the inner layer."""
        graph = self.graph(points)
        tensors = [*self._input_tensors(points), *(tf.constant(e) for e in points.extra if Inputs.has_rows(e))]
        with preserve_variables(graph.written):
            return [t.numpy() for t in graph.function(*tensors)]

    def _input_tensors(self, points: Points, repeats: int = 1) -> list[Any]:
        """Return the inputs of points as tensors in the precision of the engine, each row repeated."""
        wide = [self._in_float64 and tf.as_dtype(r.dtype) in NARROW for r in points.inputs]
        values = [r.astype(np.float64) if w else r for r, w in zip(points.inputs, wide, strict=True)]
        return _tensors(values, repeats)

    def _compare(self, points: Points, row: np.ndarray) -> None:
        """Check on the first of some rows that the graph computes what the model returns when it is called."""
        graph = self.graph(points)
        if graph in self._compared or self._in_float64:
            return

        def called(draw: int) -> np.ndarray:
            with (
                preserve_model(self.model, list(self.layers)),
                preserve_variables(graph.written),
                preserve_seeds(),
                other_draws(draw),
            ):
                return self._flat(self._explained_tensor(self._call_model(points)).numpy(), len(points))[0]

        once = called(1)
        gap, scale = spread([row, once])
        if gap > self.eps**0.5 * scale:
            error = BatchMixingError(
                f"the output for a row differs by {gap:.3g} (of {scale:.3g}) between the model as it is called and its graph, "
                "as predict runs it. A graph does not see what Python does anew at each call: random numbers of NumPy, state "
                "kept in Python. Such a model has no attribution per row; make its output depend on its input and its "
                "variables alone."
            )
            error.certain = gap > MOST_BY_ROUNDING * scale or spread([once, called(2)])[0] > self.eps**0.5 * scale
            raise error
        self._compared.add(graph)

    @staticmethod
    def _rows_first(output: np.ndarray, axis: int) -> np.ndarray:
        return np.moveaxis(output, axis, 0)

    def _with_layer_values(self, points: Points) -> tuple[np.ndarray, list[np.ndarray]]:
        output, *layers = self._native(points)
        return output, layers

    def explained(self, points: Points) -> list[np.ndarray]:
        """Return the explained arrays, the inputs or those of the inner layer, with the rows where the model has them."""
        return list(points.inputs) if self.layer is None else self._native(points)[1:]

    # ------------------------------------------------------------------ what is known of the model
    @property
    def declared_shape(self) -> tuple[int, ...] | None:
        """Shape of the output for a row, if a Keras model declares it."""
        shape = getattr(self.model, "output_shape", None) if isinstance(self.model, keras.Model) else None
        return shape[1:] if isinstance(shape, tuple) and all(isinstance(size, int) for size in shape[1:]) else None

    def free_memory(self) -> int | None:
        """Return None: the budget's default is the free memory of the machine."""
        return None

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether TensorFlow says that the device has no memory left."""
        return isinstance(error, self.exhausted)

    def analyze(self, examples: Points, references: Points) -> ModelProfile:
        """Check on an example and a reference that the model can be explained, once while it does not change."""
        if not self.is_frozen:
            self._confirmed.clear()
        self._analysis(examples)  # before a model is run that will be refused
        self.takes_python_values = self.graph(examples).decides_by_values
        self._confirm_cache(examples)
        key = self.graph(examples), _rules_of_users()
        properties = self.cached(key, lambda: self._probe(examples, references))
        self.output_axis, self.layer_axes, self._recurrent, footprint, compiler, self.output_shape, self.dtype = (
            properties
        )
        return self._profile(footprint, examples.form, compiler)

    def _confirm_cache(self, points: Points) -> None:
        """Forget the stored properties of the model unless it and the values of its variables are known to be unchanged."""
        if self.is_frozen:
            return
        values = self.graph(points).values() if self._is_comparable else None
        if values is None or values != self._values or len(self._cached_values) > MOST_FOUND:
            self._cached_values.clear()
        self._values, self._is_unchanged = values, values is not None

    @property
    def is_cached(self) -> bool:
        """Whether the model is frozen, or found unchanged in this call."""
        return self.is_frozen or self._is_unchanged

    def _probe(self, examples: Points, references: Points) -> tuple[Any, ...]:
        """Return what an example and a reference show: axes, whether there are loops, memory, and the output's form."""
        example, reference = examples[:1], references[:1].described_by(examples[:1])
        both = Points.joined([example, reference])
        runs = [run.reshape(-1) for run in self._find_axes(both)]
        function = self._function(both, ALL_PAIRS)
        self._check_among_others(both, runs)
        self._compare(both, runs[0])
        extra = tuple(tf.constant(e) for e in example.extra if Inputs.has_rows(e))
        footprint = function.footprint(
            tuple(self._input_tensors(example)), tuple(self._input_tensors(reference)), extra
        )
        compiler = COMPILER if function.compiles else 0
        return self.output_axis, self.layer_axes, function.loops, footprint, compiler, self.output_shape, self.dtype

    def reference_outputs(self, references: Points, at_once: int) -> np.ndarray:
        """Return ``outputs`` of references, computed once while the model does not change."""
        key = None if references.key is None else ("outputs", references.key, at_once)
        return self.cached(key, lambda: self.outputs(references, at_once, "the background"))

    # ------------------------------------------------------------------ contributions
    def contributions(self, comparison: Comparison, plan: Plan, multipliers: bool = False) -> Contributions:
        """Attribute each example's explained outputs, minus those of its references, to the explained inputs."""
        if multipliers and comparison.all_pairs:
            return self._of_pairs(comparison, plan)
        n, outputs = comparison.outputs.shape
        function = self._function(comparison.examples, ALL_PAIRS if comparison.all_pairs else ALIGNED, multipliers)
        pairs = len(comparison.references) if comparison.all_pairs else 1
        together = max(1, min(outputs, plan.multipliers // (n * pairs)))  # outputs are explained as further examples
        parts = [
            self._outputs_as_examples(function, comparison, slice(k, k + together), plan)
            for k in range(0, outputs, together)
        ]
        arrays = [np.concatenate(part) for part in zip(*(values for values, _, _ in parts), strict=True)]
        y, yr = parts[-1][1:]
        if not multipliers:
            return Contributions(arrays, y, yr)
        half = len(arrays) // 2
        both = [np.stack(pair)[:, :, :, None] for pair in zip(arrays[:half], arrays[half:], strict=True)]
        return Contributions(arrays[:half], y, yr, both)

    def _of_pairs(self, comparison: Comparison, plan: Plan) -> Contributions:
        """Return attributions and multipliers of every pair, each explained as an aligned row."""
        n, b = len(comparison.examples), len(comparison.references)
        aligned = self.contributions(comparison.aligned_pairs(), plan, True)
        assert aligned.multipliers is not None
        both = [m.reshape(*m.shape[:2], n, b, *m.shape[4:]) for m in aligned.multipliers]
        expected = aligned.reference_outputs.reshape(n, b, -1).sum(1)
        return Contributions([m[0].sum(2) for m in both], aligned.outputs[::b], expected, both)

    def _outputs_as_examples(
        self, function: ExplanationFunction, comparison: Comparison, selected: slice, plan: Plan
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Return contributions to some outputs, (k, examples, ...), and the outputs of both sides."""
        columns = comparison.outputs[:, selected]
        count = columns.shape[1]
        examples = comparison.examples
        extra = _tensors([e for e in examples.extra if Inputs.has_rows(e)], count)
        others = self._input_tensors(comparison.references, 1 if comparison.all_pairs else count)
        indices = columns.ravel().astype(np.int32)
        arguments = self._input_tensors(examples, count), others, extra, indices, plan.memory
        *sums, y, yr = function(*arguments)
        if not all(np.isfinite(f).all() for f in sums):
            options = function.options
            *sums, y, yr = self._function(examples, options.pairing, options.multipliers, zero_unreached=True)(
                *arguments
            )
        values = [np.moveaxis(f.numpy().reshape(*columns.shape, *f.shape[1:]), 1, 0) for f in sums]
        return values, *(v.numpy().astype(np.float64)[::count] for v in (y, yr))

    def _function(self, points: Points, pairing: str, multipliers: bool = False, **flags: bool) -> ExplanationFunction:
        graph, layer_axes = self.graph(points), None if self.layer is None else tuple(self.layer_axes)
        options = Options(len(points.inputs), self.output_axis or 0, layer_axes, pairing, multipliers, **flags)
        key = options, _rules_of_users()
        if key not in graph.functions:
            graph.functions[key] = trace_explanation(graph, self._analysis(points), options)
        self._dtypes |= {dtype.name for dtype in graph.functions[key].dtypes}
        return graph.functions[key]

    def _analysis(self, points: Points) -> GraphAnalysis:
        """Return which values depend on the inputs; raise an error if some of these have no rule."""
        graph = self.graph(points)
        count = len(points.inputs)
        key = count, _rules_of_users()
        if key not in graph.analyses:
            of_rows = ACTIVE if self.layer is None else ROW_COUNT
            flags = [of_rows] * count + [STATIC] * (len(graph.body.inputs) - count)
            analysis = GraphAnalysis(graph.library, {**OPERATIONS, **USER_OPERATIONS}, graph.layer_calls)
            analysis.run(graph.body, flags)
            analysis.refuse()
            graph.analyses[key] = analysis
            search = DecisionSearch(graph.library, analysis.operations)
            captured = len(graph.captured)
            search.run(graph.body, [ACTIVE] * (len(graph.body.inputs) - captured) + [STATIC] * captured)
            graph.decides_by_values = search.is_found
        return graph.analyses[key]

    # ------------------------------------------------------------------ in float64
    def _wide(self) -> TensorFlowEngine:
        twin = self._twin()
        twin._in_float64 = True
        return twin

    # ------------------------------------------------------------------ looking at a model
    def largest_gap(self, pair: Comparison) -> OperationGap | None:
        """Explain a single pair once more, with every rule checked by itself; return the worst."""
        function = self._function(pair.examples, BROADCAST, diagnosis=True, zero_unreached=True)
        extra = [tf.constant(e) for e in pair.examples.extra if Inputs.has_rows(e)]
        row, reference = self._input_tensors(pair.examples), self._input_tensors(pair.references)
        gaps_of_rules, around = [], []
        for column in pair.outputs.T:
            gaps, sizes = function(row, reference, extra, column.astype(np.int32))
            for (name, place), gap, size in zip(function.steps, gaps.numpy(), sizes.numpy(), strict=True):
                if not place.startswith(AROUND):
                    gaps_of_rules.append(OperationGap(name, place, float(gap), float(size)))
                elif gap:
                    around.append(OperationGap(name, place.removeprefix(AROUND), 0.0, 0.0, around=True))
        worst = max(
            gaps_of_rules, key=lambda entry: entry.gap if entry.gap == entry.gap else float("inf"), default=None
        )
        is_to_blame = worst is not None and not worst.gap <= self.tolerance * max(worst.size, 1e-30)
        return worst if is_to_blame or not around else around[0]

    def list_operations(self, points: Points) -> list[OperationSummary]:
        """Return the operations that the model uses on values that depend on its inputs."""
        self._confirmed.clear()
        graph = self.graph(points)
        witness = OperationCollector(graph.library, {**OPERATIONS, **USER_OPERATIONS})
        count = len(points.inputs)
        witness.run(graph.body, [ACTIVE] * count + [STATIC] * (len(graph.body.inputs) - count))
        return witness.uses


# ---------------------------------------------------------------------- helpers
def _tensors(arrays: Sequence[Any], repeats: int) -> list[Any]:
    """Return arrays as tensors, each row repeated."""
    return [tf.constant(np.repeat(a, repeats, 0) if repeats > 1 else a) for a in arrays]


def _rules_of_users() -> Hashable:
    """Return the registered rules of operations; those of layers are in the graph itself."""
    return tuple((name, rule) for name, rule in USER_OPERATIONS.items() if isinstance(name, str))
