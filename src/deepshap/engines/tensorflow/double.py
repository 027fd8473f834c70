"""Compute a model in float64, whatever it computes in: rewrite its graph with the wider type in place of the narrower ones.

Variables keep their type; their values are widened where they are read.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ._compat import add_function, definition_of, remove_function

NARROW = (tf.float32, tf.float16, tf.bfloat16)
READS = "ReadVariableOp", "ResourceGather", "ResourceGatherNd"  # of variables
WRITES = "AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"
WIDE = tf.float64.as_datatype_enum


def widen_graph(function: Any, inputs: int) -> Any:
    """Return a traced function with the same inputs, of which the first ones are wide, and outputs in float64."""
    graph, captured = function.graph, function.captured_inputs
    wide = _widen_definition(graph.as_graph_def(add_shapes=True))
    entries = graph.inputs[: len(graph.inputs) - len(captured)]
    specs = [
        tf.TensorSpec(t.shape, tf.float64 if t.dtype in NARROW and k < inputs else t.dtype)
        for k, t in enumerate(entries)
    ]

    def call(*arguments: Any) -> Any:
        home = tf.compat.v1.get_default_graph()
        tensors = [*arguments, *(home.capture(t) for t in captured)]
        tensors = [tf.cast(t, tf.float64) if t.dtype in NARROW else t for t in tensors]
        named = {t.name: value for t, value in zip(graph.inputs, tensors, strict=True)}
        names = [t.name for t in graph.outputs]
        return tf.graph_util.import_graph_def(wide, named, names, name="")

    for definition in wide.library.function:  # TensorFlow knows those alone that it has traced itself
        add_function(definition)
    wide_function = tf.function(call, autograph=False).get_concrete_function(*specs)
    weakref.finalize(wide_function, _remove_functions, [f.signature.name for f in wide.library.function]).atexit = False
    return wide_function


def _remove_functions(functions: Sequence[str]) -> None:
    for name in functions:
        remove_function(name)


# ---------------------------------------------------------------------- graphs and functions rewritten
def _widen_definition(definition: Any) -> Any:
    """Return a graph and its functions in float64; the functions get new names."""
    names = {f.signature.name: f"{f.signature.name}_in_float64" for f in definition.library.function}
    wide = type(definition)(versions=definition.versions)
    wide.node.extend(_Rewriting(names, in_function=False).nodes(definition.node))
    for function in definition.library.function:
        wide_body = wide.library.function.add()
        wide_body.CopyFrom(function)
        wide_body.signature.name = names[function.signature.name]
        for argument in (*wide_body.signature.input_arg, *wide_body.signature.output_arg):
            argument.type = _wide_type(argument.type)
            argument.ClearField("experimental_full_type")
        rewriting = _Rewriting(names, in_function=True)
        del wide_body.node_def[:]
        wide_body.node_def.extend(rewriting.nodes(function.node_def))
        for key, name in function.ret.items():
            wide_body.ret[key] = rewriting.renamed.get(name, name)
    return wide


class _Rewriting:
    """Put float64 into the nodes of a graph, or of a function, in which outputs are called by their arguments' names."""

    def __init__(self, names: Mapping[str, str], in_function: bool) -> None:
        self._names, self._in_function = names, in_function
        self.renamed: dict[str, str] = {}
        self._nodes: list[Any] = []

    def nodes(self, definitions: Sequence[Any]) -> list[Any]:
        """Return the nodes, with the casts that they need."""
        for node in definitions:
            self._rewrite(node)
        for node in self._nodes:
            node.input[:] = [self.renamed.get(name, name) for name in node.input]
        return self._nodes

    def _rewrite(self, node: Any) -> None:
        rewritten = _copy(node)
        rewritten.op = self._names.get(node.op, node.op)
        rewritten.attr.pop("_class", None)
        rewritten.ClearField("experimental_type")
        narrow = node.op in (*READS, *WRITES) and tf.as_dtype(node.attr["dtype"].type) in NARROW
        if not narrow:
            for value in rewritten.attr.values():
                self._widen(value)
        elif node.op in WRITES:
            rewritten.input[1] = self._cast(f"{node.name}/narrow", node.input[1], WIDE, node.attr["dtype"].type)
        self._nodes.append(rewritten)
        output = _only_output(rewritten)
        if output is None or not narrow:
            return
        rewritten.name += "/raw"
        at = self._cast(node.name, self._output_reference(rewritten.name, output), node.attr["dtype"].type, WIDE)
        if self._in_function:
            self.renamed[f"{node.name}:{output}:0"] = at

    def _widen(self, value: Any) -> None:
        """Replace narrower types by float64, and functions by their new names, in an attribute."""
        kind = value.WhichOneof("value")
        if kind == "type":
            value.type = _wide_type(value.type)
        elif kind == "list":
            value.list.type[:] = [_wide_type(number) for number in value.list.type]
        elif kind == "tensor" and tf.as_dtype(value.tensor.dtype) in NARROW:
            value.tensor.CopyFrom(tf.make_tensor_proto(tf.make_ndarray(value.tensor).astype(np.float64)))
        for function in [value.func] if kind == "func" else value.list.func if kind == "list" else ():
            function.name = self._names.get(function.name, function.name)

    def _cast(self, name: str, at: str, before: int, after: int) -> str:
        return self._output_reference(self._add(name, "Cast", [at], SrcT=before, DstT=after), "y")

    def _add(self, name: str, operation: str, inputs: Sequence[str], **types: int) -> str:
        node = tf.compat.v1.NodeDef(name=name, op=operation, input=inputs)
        for key, number in types.items():
            node.attr[key].type = number
        self._nodes.append(node)
        return name

    def _output_reference(self, name: str, output: str) -> str:
        return f"{name}:{output}:0" if self._in_function else name


def _copy(message: Any) -> Any:
    duplicate = type(message)()
    duplicate.CopyFrom(message)
    return duplicate


def _only_output(node: Any) -> str | None:
    """Return the name of a node's output, if it has exactly one and that is a tensor of numbers."""
    return _output_type(node) and definition_of(node.op).output_arg[0].name


def _output_type(node: Any) -> str | None:
    """Return the attribute with the type of a node's only output."""
    definition = definition_of(node.op)
    if definition is None or len(definition.output_arg) != 1:
        return None
    output = definition.output_arg[0]
    return None if output.number_attr or output.type_list_attr else output.type_attr or None


def _wide_type(number: int) -> int:
    return WIDE if tf.as_dtype(number) in NARROW else number
