"""A model traced by TensorFlow: its graph, and the graphs of the functions, loops and branches in it."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from ._compat import definition_of, graph_of
from .lowered_control_flow import LOWERED, functional_outputs
from .operations import LOOPS, emit

READS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp"}
READS |= {"LookupTableFindV2", "LookupTableSizeV2", "LookupTableExportV2"}
RESOURCE = tf.resource.as_datatype_enum


class Body:
    """A graph with inputs and outputs; ``operations`` are those that its outputs need, and ``writers``, in order."""

    def __init__(
        self, inputs: Sequence[Any], outputs: Sequence[Any], operations: Sequence[Any], writers: Sequence[Any] = ()
    ) -> None:
        self.inputs, self.outputs = list(inputs), list(outputs)
        entering = {id(t) for t in self.inputs}
        used = select_needed(operations, [*(t.op for t in self.outputs), *writers])
        self.operations = [op for op in used if op.type != "Placeholder"]
        self.constants = [op for op in self.operations if op.type == "Const"]
        self.sources = [source(t, entering) for t in self.outputs]

    def position(self, output: int) -> int | None:
        """Return which input an output passes on unchanged, or None."""
        return next((k for k, t in enumerate(self.inputs) if t is self.sources[output]), None)

    def reads(self, k: int, apart_from: Iterable[str]) -> bool:
        """Return whether other operations than these use an input, or outputs do; these may use it as their first operand."""
        return any(
            t is self.inputs[k] and not (place == 0 and op.type in apart_from)
            for op in self.operations
            for place, t in enumerate(op.inputs)
        )


def source(tensor: Any, inputs: set[int]) -> Any:
    """Return the tensor that identities pass on."""
    while id(tensor) not in inputs and tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def select_needed(operations: Sequence[Any], wanted: Iterable[Any]) -> list[Any]:
    """Return the operations that the wanted ones are computed from, and these."""
    waiting, selected = list(wanted), set()
    while waiting:
        op = waiting.pop()
        if op not in selected:
            selected.add(op)
            waiting += [t.op for t in op.inputs]
    return [op for op in operations if op in selected]


class Library:
    """The functions that a traced graph calls, as bodies, and the layers that its operations belong to.

    ``scopes``: the qualified names of layers, by the name scopes that they are called in.
    """

    def __init__(self, graph: Any, scopes: Mapping[str, str]) -> None:
        definition = graph.as_graph_def()
        library = definition.library
        self._definitions = {f.signature.name: f for f in library.function}
        nodes = [node.op for node in itertools.chain(definition.node, *(f.node_def for f in library.function))]
        kinds, self.size = set(nodes), len(nodes) * BYTES_PER_NODE
        self.calls_python = any("PyFunc" in kind for kind in kinds)
        self.has_loops = not kinds.isdisjoint((*LOOPS, "LoopCond"))
        self._home = tf.Graph()  # knows all functions, for those that call others
        with self._home.as_default():
            tf.graph_util.import_graph_def(tf.compat.v1.GraphDef(library=library), name="")
        self._bodies: dict[str, Body] = {}
        self._direct: dict[str, bool] = {}  # whether operations of a type take what can be written to
        self._writing: dict[str, bool] = {}  # whether functions write
        self.scopes = scopes

    def body(self, op: Any, attribute: str) -> Body:
        """Return the function that an attribute of an operation names."""
        return self.named(op.get_attr(attribute).name)

    def named(self, name: str) -> Body:
        """Return a function by its name."""
        if name not in self._bodies:
            with self._home.as_default():
                graph = graph_of(self._definitions[name])
            self._bodies[name] = self.body_of(graph)
        return self._bodies[name]

    def body_of(self, graph: Any, outputs: int | None = None) -> Body:
        """Return the graph of a function, with the first outputs only, as a body."""
        operations = graph.get_operations()
        if not LOWERED.isdisjoint(op.type for op in operations):
            graph = self._functional(graph)
            operations = graph.get_operations()
        return Body(graph.inputs, graph.outputs[:outputs], operations, self.writers(operations))

    def _functional(self, graph: Any) -> Any:
        """Return an equal graph that has its loops and branches as functions; these are added to the library."""

        def outputs(*values: Any) -> list[Any]:
            return functional_outputs(graph.inputs, graph.outputs, values)

        functional = trace_function(outputs, *(tf.TensorSpec(t.shape, t.dtype) for t in graph.inputs)).graph
        library = functional.as_graph_def().library
        with self._home.as_default():
            tf.graph_util.import_graph_def(tf.compat.v1.GraphDef(library=library), name="")
        self._definitions.update((f.signature.name, f) for f in library.function)
        return functional

    def writers(self, operations: Sequence[Any]) -> list[Any]:
        """Return the operations that write to variables, tables and the like, or call a function that does."""
        return [op for op in operations if self._writes(op.node_def)]

    def _writes(self, node: Any) -> bool:
        if node.op in READS:
            return False
        if node.op not in self._direct:
            definition = definition_of(node.op)
            self._direct[node.op] = definition is not None and any(a.type == RESOURCE for a in definition.input_arg)
        called = [f.name for value in node.attr.values() for f in (value.func, *value.list.func) if f.name]
        return self._direct[node.op] or any(map(self._function_writes, called))

    def _function_writes(self, name: str) -> bool:
        if name not in self._writing:
            self._writing[name] = False  # should it call itself
            self._writing[name] = any(map(self._writes, self._definitions[name].node_def))
        return self._writing[name]

    def place(self, op: Any) -> str:
        """Return the layer that an operation belongs to, from its name."""
        scope = at = op.name.rpartition("/")[0]
        while at and at not in self.scopes:
            at = at.rpartition("/")[0]
        if self.scopes.get(at):
            return f"layer {self.scopes[at]!r}"
        return "the model" if at or not scope else repr(scope)


def trace_model(call: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> Any:
    """Trace a call; Python branches on tensors are rewritten if there are any."""
    try:
        return tf.function(call, autograph=False).get_concrete_function(*specs)
    except tf.errors.OperatorNotAllowedInGraphError:
        return tf.function(call, autograph=True).get_concrete_function(*specs)


def trace_function(call: Callable[..., Any], *specs: Any) -> Any:
    """Trace a call of deepshap, which writes nothing: only inputs determine the order of operations."""
    attributes = {"_disable_acd": True}  # automatic control dependencies take a tenth of the time of tracing
    function = tf.function(call, autograph=False, experimental_attributes=attributes)
    return function.get_concrete_function(*specs)


def signature(function: Any) -> Hashable:
    """Return what a traced function computes, without the values of its variables: equal for two traces of the same code.

    Names that TensorFlow numbers anew at each trace are left out.
    """
    graph = function.graph
    definition = graph.as_graph_def()
    library = {f.signature.name: f for f in definition.library.function}
    functions: dict[str, Hashable] = {}

    def attribute(value: Any) -> Hashable:
        if value.HasField("func"):
            return of(value.func.name)
        if value.list.func:
            return tuple(of(f.name) for f in value.list.func)
        return value.SerializeToString(deterministic=True)

    def nodes(definitions: Sequence[Any], entries: Mapping[str, str]) -> Hashable:
        numbered = [(place, n.name) for place, n in enumerate(definitions) if n.name.rpartition("/")[2].isdigit()]
        places = {**entries, **{name: f"#{place}" for place, name in numbered}}

        def node(n: Any) -> Hashable:
            attributes = ((k, attribute(n.attr[k])) for k in sorted(n.attr) if not k.startswith("_"))
            return n.op, places.get(n.name, n.name), tuple(places.get(i, i) for i in n.input), tuple(attributes)

        return tuple(map(node, definitions))

    def of(name: str) -> Hashable:
        if name not in functions and name in library:
            body = library[name]
            entries = {a.name: f"${place}" for place, a in enumerate(body.signature.input_arg)}
            returned = (body.ret[a.name] for a in body.signature.output_arg)
            functions[name] = (nodes(body.node_def, entries), tuple(entries.get(r, r) for r in returned))
        return functions.get(name, name)

    captured = tuple(id(external) for external, _ in graph.captures)
    return nodes(definition.node, {}), tuple(t.name for t in graph.outputs), captured


class ModelGraph:
    """A model as a graph, whose first output is explained.

    ``analyses`` and ``functions`` store a ``GraphAnalysis`` and an ``ExplanationFunction`` by all that they depend on. Most
    traces are only compared with an earlier graph, by signature; everything else is computed on demand.
    """

    def __init__(self, function: Any, scopes: Mapping[str, str], layer_calls: Sequence[Any]) -> None:
        self.function, self.layer_calls, self.scopes = function, layer_calls, scopes
        self.signature = signature(function)
        self.output = function.graph.outputs[0]
        self.captured = list(self.function.captured_inputs)
        self.analyses: dict[Hashable, Any] = {}
        self.functions: dict[Hashable, Any] = {}
        self.decides_by_values = False  # whether a branch or loop depends on values; set by the analysis

    @cached_property
    def library(self) -> Library:
        """The functions that the graph calls."""
        return Library(self.function.graph, self.scopes)

    @cached_property
    def body(self) -> Body:
        """Its operations."""
        return self.library.body_of(self.function.graph, outputs=1)

    @cached_property
    def written(self) -> list[Any]:
        """The variables that it may write to."""
        return list(self.function.graph.variables) if self._writers else []

    def values(self) -> list[bytes] | None:
        """Return the values of the variables that it reads; None if they are large, or if it reads anything else."""
        variables = self.function.graph.variables
        others = {id(t) for t in self.captured if t.dtype == tf.resource} - {id(v.handle) for v in variables}
        if others or sum(v.shape.num_elements() * v.dtype.size for v in variables) > MOST_BYTES:
            return None
        read = (tf.raw_ops.ReadVariableOp(resource=v.handle, dtype=v.dtype) for v in variables)
        return [np.asarray(tensor).tobytes() for tensor in read]

    @cached_property
    def _writers(self) -> list[Any]:
        return self.library.writers(self.function.graph.get_operations())


# Of variables that are kept, and compared in every call: of larger models to run a few rows is quicker.
MOST_BYTES = 2**24
BYTES_PER_NODE = 50_000  # that a graph and the functions made of it take, as measured
MOST_BYTES_OF_GRAPHS = 2**29  # bytes of graphs that are kept of a model, the last ones used
_GRAPHS: dict[int, dict[Hashable, ModelGraph]] = {}  # by models, and signatures


def share_graph(model: Any, graph_now: ModelGraph) -> ModelGraph:
    """Return an equal graph of this model that another explainer has traced; else store this one and return it.

    Graphs are stored as long as their model lives, the last used ones if they exceed ``MOST_BYTES_OF_GRAPHS``. Graphs with
    rules and handlers of layers belong to one explainer and are not shared. Nor are those that call Python, which may hold the
    model and is another function at each trace.
    """
    if graph_now.layer_calls or graph_now.library.calls_python:
        return graph_now
    if id(model) not in _GRAPHS:
        try:
            weakref.finalize(model, _GRAPHS.pop, id(model)).atexit = False
        except TypeError:  # nothing tells when it goes
            return graph_now
        _GRAPHS[id(model)] = {}
    graphs = _GRAPHS[id(model)]
    graph = graphs[graph_now.signature] = graphs.pop(graph_now.signature, graph_now)
    size = 0
    for signature in reversed([*graphs]):
        size += graphs[signature].library.size
        if size > MOST_BYTES_OF_GRAPHS and graphs[signature] is not graph:
            del graphs[signature]
    return graph


def static_value(tensor: Any, cache: dict[Any, Any] | None = None) -> Any:
    """Return the value of a tensor that depends on no data, as an array; else None.

    Unlike ``tf.get_static_value``, it computes axes that TensorFlow itself computes, as ``tf.vectorized_map`` does.
    """
    value = tf.get_static_value(tensor)
    if value is not None:
        return value
    cache = {} if cache is None else cache
    if tensor.ref() not in cache:
        cache[tensor.ref()] = _computed(tensor, cache)
    return cache[tensor.ref()]


def _computed(tensor: Any, cache: dict[Any, Any]) -> Any:
    op = tensor.op
    calls = any(value.HasField("func") or value.list.func for value in op.node_def.attr.values())
    if not op.inputs or calls or op.op_def.is_stateful:
        return None
    inputs = []
    for operand in op.inputs:
        inputs.append(static_value(operand, cache))
        if inputs[-1] is None:
            return None
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        return session.run(emit(op, [tf.constant(v) for v in inputs])[tensor.value_index])
