"""Formulas in TensorFlow's graphs: each is traced once in a process, and is one operation wherever it is asked for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import tensorflow as tf


def created(kind: str, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> list[Any]:
    """Put an operation into the graph that is being made.

    By ``create_op`` without its decorators, which read the signature at every call: a tenth of the time that tracing takes.
    """
    graph = tf.compat.v1.get_default_graph()
    return list(_create_op(graph, kind, list(inputs), attrs=attributes, name=kind).outputs)


_create_op = inspect.unwrap(tf.Graph.create_op)


class _Formula:
    """A formula for arrays of some dtypes and ranks."""

    def __init__(self, run: Callable[..., Any], tensors: Sequence[Any]) -> None:
        specs = [tf.TensorSpec(None if t.shape.rank is None else [None] * t.shape.rank, t.dtype) for t in tensors]
        with tf.init_scope():
            self._function = tf.function(run, autograph=False).get_concrete_function(*specs)
        self._kind, self._several = "", False
        self._attributes: dict[str, Any] = {}

    def __call__(self, tensors: Sequence[Any]) -> Any:
        if self._kind:  # the first call has told what TensorFlow makes of one; its checks take five times as long
            self._function.add_to_graph(tf.compat.v1.get_default_graph())
            made = created(self._kind, tensors, self._attributes)
            return made if self._several else made[0]
        found = self._function(*tensors)
        self._several = isinstance(found, (list, tuple))
        op = (found[0] if self._several else found).op
        self._attributes = {k: v for k, v in op.node_def.attr.items() if not k.startswith("_")}
        self._kind = op.type
        return found


_MADE: dict[Hashable, _Formula] = {}
_tracing: list[Hashable] = []  # formulas that are part of others are traced with them


@functools.cache
def once(formula: Callable[..., Any]) -> Callable[..., Any]:
    """A formula of arrays, or of pairs of them, as one operation in a graph: it is traced once in a process, for each dtype.

    A call takes a tenth of the time that tracing it again would. It may look at dtypes and ranks, and at which of its
    arrays are one and the same, but not at sizes.
    """

    @functools.wraps(formula)
    def called(*given: Any) -> Any:
        if _tracing or tf.executing_eagerly():
            return formula(*given)
        leaves = tf.nest.flatten(given)
        different = list({id(t): t for t in leaves}.values())
        places = {id(t): k for k, t in enumerate(different)}
        form = tf.nest.pack_sequence_as(given, [places[id(t)] for t in leaves])
        key = formula, form, tuple((t.dtype, t.shape.rank) for t in different)
        if key not in _MADE:
            _tracing.append(key)
            try:
                run = functools.partial(_filled, formula, form)
                _MADE[key] = _Formula(lambda *tensors: run(tensors), different)
            finally:
                _tracing.pop()
        return _MADE[key](different)

    return called


def _filled(formula: Callable[..., Any], form: Any, tensors: Sequence[Any]) -> Any:
    return formula(*tf.nest.map_structure(lambda place: tensors[place], form))
