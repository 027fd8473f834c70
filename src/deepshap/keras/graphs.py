"""A model traced by TensorFlow: its graph, and the graphs of the functions, loops and branches in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

WRITES = ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")


class Body:
    """A graph with inputs and outputs; ``operations`` are those that its outputs need, in order."""

    def __init__(self, inputs: Sequence[Any], outputs: Sequence[Any], operations: Sequence[Any]) -> None:
        self.inputs, self.outputs = list(inputs), list(outputs)
        entering = {id(t) for t in self.inputs}
        self.operations = [op for op in _needed(operations, self.outputs) if op.type != "Placeholder"]
        self.constants = [op for op in self.operations if op.type == "Const"]
        self.sources = [source(t, entering) for t in self.outputs]

    def position(self, output: int) -> int | None:
        """Which input an output passes on unchanged."""
        return next((k for k, t in enumerate(self.inputs) if t is self.sources[output]), None)

    def reads(self, k: int, apart_from: Iterable[str]) -> bool:
        """Whether an input is used by other operations than these, as their first operand, and by the outputs."""
        return any(
            t is self.inputs[k] and not (place == 0 and op.type in apart_from)
            for op in self.operations
            for place, t in enumerate(op.inputs)
        )


def source(tensor: Any, inputs: set[int]) -> Any:
    """What a tensor is, before identities."""
    while id(tensor) not in inputs and tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _needed(operations: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """The operations that the outputs are computed from, and the writes to variables before them."""
    waiting = [t.op for t in outputs] + [op for op in operations if op.type in WRITES]
    needed = set()
    while waiting:
        op = waiting.pop()
        if op not in needed:
            needed.add(op)
            waiting += [t.op for t in op.inputs]
    return [op for op in operations if op in needed]


class Library:
    """The functions that a traced graph calls, as bodies."""

    def __init__(self, graph: Any, layers: Iterable[str] = ()) -> None:
        library = graph.as_graph_def().library
        self._definitions = {f.signature.name: f for f in library.function}
        self._home = tf.Graph()  # knows all functions, for those that call others
        with self._home.as_default():
            tf.graph_util.import_graph_def(tf.compat.v1.GraphDef(library=library), name="")
        self._bodies: dict[str, Body] = {}
        self._layers = set(layers)

    def body(self, op: Any, attribute: str) -> Body:
        """The function that an attribute of an operation names."""
        return self.named(op.get_attr(attribute).name)

    def named(self, name: str) -> Body:
        """A function by its name."""
        if name not in self._bodies:
            with self._home.as_default():
                graph = function_def_to_graph(self._definitions[name])
            self._bodies[name] = Body(graph.inputs, graph.outputs, graph.get_operations())
        return self._bodies[name]

    def place(self, op: Any) -> str:
        """The layer that an operation belongs to, from its name."""
        parts = op.name.split("/")[:-1]
        known = [k for k, part in enumerate(parts) if part in self._layers]
        if known:
            return f"layer {'/'.join(parts[: known[-1] + 1])!r}"
        return f"{'/'.join(parts)!r}" if parts else "the model"


def _concrete(call: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> Any:
    """Trace a call; Python branches on tensors are rewritten if there are any."""
    try:
        return tf.function(call, autograph=False).get_concrete_function(*specs)
    except tf.errors.OperatorNotAllowedInGraphError:
        return tf.function(call, autograph=True).get_concrete_function(*specs)


class Traced:
    """A model as a graph; its first output is explained."""

    def __init__(self, call: Callable[..., Any], specs: Sequence[tf.TensorSpec], layers: Iterable[str] = ()) -> None:
        self.function = _concrete(call, specs)
        graph = self.function.graph
        self.library = Library(graph, layers)
        self.body = Body(graph.inputs, graph.outputs[:1], graph.get_operations())
        self.output = graph.outputs[0]
        self.captured = list(self.function.captured_inputs)
        self.regions: Sequence[Any] = ()
        writes = any(op.type in WRITES for op in graph.get_operations())
        calls = any(node.op in WRITES for f in graph.as_graph_def().library.function for node in f.node_def)
        self.written = [v for v in graph.variables if not v.trainable] if writes or calls else []


# ---------------------------------------------------------------------- emitting
def emit(op: Any, inputs: Sequence[Any], retyped: bool = False) -> list[Any]:
    """Run an operation of a traced graph on other inputs; ``retyped`` where their dtypes differ from its own."""
    attributes = {k: v for k, v in op.node_def.attr.items() if not k.startswith("_")}
    if retyped:
        inputs = _retype(op, list(inputs), attributes)
    graph = tf.compat.v1.get_default_graph()
    return list(graph.create_op(op.type, list(inputs), attrs=attributes, name=op.type).outputs)


def _retype(op: Any, inputs: list[Any], attributes: dict[str, Any]) -> list[Any]:
    """Set the type attributes that float inputs want, and cast the inputs that share them."""
    position = 0
    for argument in op.op_def.input_arg:
        number = op.get_attr(argument.number_attr) if argument.number_attr else 1
        number = len(op.get_attr(argument.type_list_attr)) if argument.type_list_attr else number
        at = range(position, position + number)
        position += number
        if not argument.type_attr:
            continue
        declared = tf.as_dtype(attributes[argument.type_attr].type)
        changed = [inputs[k].dtype for k in at if inputs[k].dtype != declared]
        if changed:
            attributes[argument.type_attr] = type(attributes[argument.type_attr])(type=changed[0].as_datatype_enum)
    position = 0
    for argument in op.op_def.input_arg:  # once more, for those that came before the one that changed
        number = op.get_attr(argument.number_attr) if argument.number_attr else 1
        number = len(op.get_attr(argument.type_list_attr)) if argument.type_list_attr else number
        for k in range(position, position + number):
            if argument.type_attr:
                inputs[k] = tf.cast(inputs[k], attributes[argument.type_attr].type)
        position += number
    return inputs
