"""Private interfaces of TensorFlow, and of Keras on it: why each is needed, and what happens without it.

Everything here exists from TensorFlow 2.16 to 2.21 and from Keras 3.0 to 3.15. A version without one of them never breaks
the import of deepshap: something else takes its place, or the calls that need it raise an error that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import tensorflow as tf

from ...errors import UnsupportedOperationError, find


def _required(path: str, purpose: str) -> Any:
    """Return what a path leads to; without it, something that raises an error when it is called."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise UnsupportedOperationError(
            f"TensorFlow {tf.__version__} has no {path}, which deepshap needs to {purpose}. Install a version of TensorFlow that "
            "docs/versions.md lists, or a newer deepshap."
        )

    return find(path) or refuse


# ---------------------------------------------------------------------- graphs and functions
# The graph of a function that another one calls: TensorFlow shows it as a definition alone. Without it: an error.
graph_of = _required(
    "tensorflow.python.framework.function_def_to_graph.function_def_to_graph", "read functions in graphs"
)
# What TensorFlow knows of a kind of operation: names and types of inputs and outputs. Public for operations in graphs alone, not
# for those in definitions of functions. Without it: an error.
definition_of = _required("tensorflow.python.framework.op_def_registry.get", "read functions in graphs")

_context = _required("tensorflow.python.eager.context.context", "explain in float64")


def add_function(definition: Any) -> None:
    """Add a rewritten function to TensorFlow's context. Without this: an error if float64 is needed."""
    _context().add_function_def(definition)


def remove_function(name: str) -> None:
    """Remove a function from TensorFlow's context."""
    _context().remove_function(name)


def eager_mode() -> AbstractContextManager[Any]:
    """Run operations at once, in a graph that the caller is building too. Without it, ``tf.init_scope`` has to do."""
    eager: Callable[[], AbstractContextManager[Any]] = find("tensorflow.python.eager.context.eager_mode") or nullcontext
    return eager()


def seed_generator() -> Any:
    """Return what draws the seeds of random operations that have none. Without it: None, and it moves on with each call."""
    context = find("tensorflow.python.eager.context.context")
    return context and getattr(context(), "_rng", None)


_IS_STOPPED, _RESTART, _STOP = (
    find(f"tensorflow.python.pywrap_tfe.TFE_Py_TapeSet{name}")
    for name in ("IsStopped", "RestartOnThread", "StopOnThread")
)


@contextmanager
def tapes_recording() -> Iterator[None]:
    """Let gradient tapes inside of a model record, which ``tf.init_scope`` keeps them from.

    Without these names, models that take derivatives of their own fail as they do in ``tf.init_scope``.
    """
    stopped = _IS_STOPPED is not None and _RESTART is not None and _STOP is not None and _IS_STOPPED()
    if stopped:
        _RESTART()
    try:
        yield
    finally:
        if stopped:
            _STOP()


# ---------------------------------------------------------------------- comparing models
# A traced model is compared to what it was. These are books of Keras and TensorFlow, which no call reads, and wrappers of what
# layers hold. Without one of them, models that hold such an object are traced anew in every call.
TRACKERS = tuple(
    wrapper
    for path in ("keras.src.utils.tracking.Tracker", "tensorflow.python.trackable.base.TrackableReference")
    if (wrapper := find(path)) is not None
)
WRAPPERS = tuple(
    wrapper
    for name in ("_DictWrapper", "_TupleWrapper")
    if (wrapper := find(f"tensorflow.python.trackable.data_structures.{name}")) is not None
)
# Modules in which Keras' layers find the functions that they call; by the names of modules alone.
FUNCTIONS = (
    "keras.src.activations",
    "keras.src.ops.",
    "keras.src.backend.tensorflow.",
    "tensorflow._api.v2.nn",
    "tensorflow._api.v2.math",
)
_SETTINGS = [
    find(f"keras.src.backend.common.global_state.{name}")
    for name in ("GLOBAL_STATE_TRACKER", "GLOBAL_SETTINGS_TRACKER")
]


def keras_settings() -> list[dict[str, Any]] | None:
    """Return the settings of Keras that are not in its modules; None where they cannot be read, and models are traced anew."""
    return None if None in _SETTINGS else [vars(tracker) for tracker in _SETTINGS]
