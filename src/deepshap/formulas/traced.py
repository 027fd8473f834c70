"""Formulas in TensorFlow graphs: each is traced once per process and becomes one operation in every graph that uses it.

A call of a traced formula takes a tenth of the time of tracing its operations again.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import tensorflow as tf


def create_operation(op_type: str, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> list[Any]:
    """Add an operation to the current graph and return its outputs.

    Calls ``create_op`` without its decorators: they read the signature at every call, which takes a tenth of the time of
    tracing.
    """
    graph = tf.compat.v1.get_default_graph()
    return list(_create_op(graph, op_type, list(inputs), attrs=attributes, name=op_type).outputs)


_create_op = inspect.unwrap(tf.Graph.create_op)


class _Formula:
    """A formula traced for tensors of given dtypes and ranks."""

    def __init__(self, formula: Callable[..., Any], tensors: Sequence[Any]) -> None:
        specs = [tf.TensorSpec(None if t.shape.rank is None else [None] * t.shape.rank, t.dtype) for t in tensors]
        with tf.init_scope():
            self._function = tf.function(formula, autograph=False).get_concrete_function(*specs)
        self._kind, self._several = "", False
        self._attributes: dict[str, Any] = {}

    def __call__(self, tensors: Sequence[Any]) -> Any:
        if self._kind:  # known from the first call; TensorFlow's checks take five times as long
            self._function.add_to_graph(tf.compat.v1.get_default_graph())
            outputs = create_operation(self._kind, tensors, self._attributes)
            return outputs if self._several else outputs[0]
        results = self._function(*tensors)
        self._several = isinstance(results, (list, tuple))
        op = (results[0] if self._several else results).op
        self._attributes = {k: v for k, v in op.node_def.attr.items() if not k.startswith("_")}
        self._kind = op.type
        return results


_TRACED: dict[Hashable, _Formula] = {}
_tracing: list[Hashable] = []  # a formula called while another is traced becomes part of it


@functools.cache
def cached(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Make a formula of tensors, or of pairs of tensors, one operation in graphs, traced once per process and dtype.

    The formula may depend on dtypes, on ranks and on which arguments are the same tensor, but not on sizes.
    """

    @functools.wraps(formula)
    def called(*arguments: Any) -> Any:
        if _tracing or tf.executing_eagerly():
            return formula(*arguments)
        leaves = tf.nest.flatten(arguments)
        distinct = list({id(t): t for t in leaves}.values())
        positions = {id(t): k for k, t in enumerate(distinct)}
        structure = tf.nest.pack_sequence_as(arguments, [positions[id(t)] for t in leaves])
        key = formula, structure, tuple((t.dtype, t.shape.rank) for t in distinct)
        if key not in _TRACED:
            _tracing.append(key)
            try:
                run = functools.partial(_filled, formula, structure)
                _TRACED[key] = _Formula(lambda *tensors: run(tensors), distinct)
            finally:
                _tracing.pop()
        return _TRACED[key](distinct)

    return called


def _filled(formula: Callable[..., Any], structure: Any, tensors: Sequence[Any]) -> Any:
    return formula(*tf.nest.map_structure(lambda position: tensors[position], structure))
