"""Leave models, Keras and TensorFlow as they were; find the layers of a model."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from operator import setitem
from typing import Any

import keras
import tensorflow as tf

from ...errors import InputError
from .._compat import inner_layers
from ..callables import packages, reached
from ..snapshot import ObjectSnapshot, generators_kept
from ._compat import seed_generator

DEPTH = 4  # how far layers are looked for inside of functions and objects
ENDS = keras.layers.Layer, keras.Variable, tf.Tensor, tf.Variable
_one_at_a_time = threading.RLock()  # what one session changes of a model, another must not take for the user's
_in_session: ContextVar[bool] = ContextVar("_in_session", default=False)  # of threads that work for a session


def layers_of(model: Any) -> dict[Any, str]:
    """Return all layers of a model, or of those that a callable refers to, with their qualified names; "" is the model."""
    if isinstance(model, keras.layers.Layer):
        return dict(_named(model, ""))
    objects = reached(model, lambda value: isinstance(value, ENDS), DEPTH)
    roots = [value for value in objects if isinstance(value, keras.layers.Layer)]
    inside = {layer for root in roots for layer, _ in _named(root, "") if layer is not root}
    roots = [root for root in roots if root not in inside]
    if len(roots) == 1:
        return dict(_named(roots[0], ""))
    names: dict[Any, str] = {}
    for root in roots:
        names |= dict(_named(root, root.name))
    return names


def _named(layer: Any, name: str, seen: set[int] | None = None) -> Iterator[tuple[Any, str]]:
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer, name
    for inner in inner_layers(layer):
        yield from _named(inner, f"{name}.{inner.name}" if name else inner.name, seen)


def dtype_of(model: Any, layers: list[Any]) -> str | None:
    """Return the float dtype in which a model computes, from its variables; None if it has none."""
    variables = [w for layer in layers for w in layer.variables]
    variables += list(getattr(model, "variables", ())) if not layers else []
    floats = [keras.backend.standardize_dtype(v.dtype) for v in variables]
    return next((d for d in floats if d in ("float16", "bfloat16", "float32", "float64")), None)


# ---------------------------------------------------------------------- one at a time
@contextmanager
def alone() -> Iterator[None]:
    """Exclude other sessions in the process, except those that begin within this one."""
    with nullcontext() if _in_session.get() else _one_at_a_time:
        yield


@contextmanager
def in_session() -> Iterator[None]:
    """Let a thread of TensorFlow, for which the session waits, belong to the session."""
    token = _in_session.set(True)
    try:
        yield
    finally:
        _in_session.reset(token)


# ---------------------------------------------------------------------- leaving all as it was
@contextmanager
def preserve_model(model: Any, layers: Sequence[Any]) -> Iterator[None]:
    """Restore what running or tracing a model changes of it: attributes and what they reach, random generators.

    Fused kernels are switched off, and stateful layers begin with their current states. Layers that are not built yet stay
    built.
    """
    snapshot = ObjectSnapshot([*(vars(layer) for layer in layers if layer.built), model], _is_of_frameworks)
    snapshot.note_generators()
    try:
        with generators_kept():
            for layer in layers:
                attributes = vars(layer)
                if getattr(layer, "stateful", False) and getattr(layer, "states", None):
                    attributes["get_initial_state"] = _initial_state(layer)
                    layer.stateful = False
                if "use_cudnn" in attributes:
                    layer.use_cudnn = False
            yield
    finally:
        snapshot.restore()


def _is_of_frameworks(value: Any) -> bool:
    """Return whether an object is preserved otherwise: layers one by one, and variables by their values."""
    return bool(packages(value) & {"keras", "tensorflow"})


def replace_attribute(layer: Any, name: str, value: Any) -> Callable[[], Any]:
    """Set an attribute of a layer, unseen by Keras; return the function that restores the previous one."""
    attributes = vars(layer)
    before = attributes.get(name)
    attributes[name] = value
    return (
        functools.partial(attributes.pop, name)
        if before is None
        else functools.partial(setitem, attributes, name, before)
    )


def _initial_state(layer: Any) -> Callable[..., Any]:
    """Return the function for the initial states of a stateful layer's next call, for any number of rows.

    The call does not change the layer's states.
    """
    for state in tf.nest.flatten(layer.states):
        if (state.numpy() != state.numpy()[:1]).any():
            raise InputError(
                f"the stateful layer {layer.name!r} remembers another state for each of its {state.shape[0]} rows: what a row is "
                "explained by would depend on its place in the batch. Reset the states, or give the model a batch of one row."
            )

    def initial_state(batch_size: Any = None) -> Any:
        def for_rows(state: Any) -> Any:
            state = tf.convert_to_tensor(state)[:1]
            return tf.tile(state, tf.concat([[batch_size], tf.ones_like(tf.shape(state)[1:])], 0))

        return tf.nest.map_structure(for_rows, layer.states)

    return initial_state


@contextmanager
def preserve_variables(variables: Sequence[Any]) -> Iterator[None]:
    """Restore variables that a run of the model writes to."""
    values = [(v, v.numpy()) for v in variables]
    try:
        yield
    finally:
        for variable, value in values:
            variable.assign(value)


@contextmanager
def preserve_seeds() -> Iterator[None]:
    """Restore the generator of the seeds of random operations that have no seed."""
    generator = seed_generator()
    state = generator and generator.getstate()
    try:
        yield
    finally:
        if generator:
            generator.setstate(state)
