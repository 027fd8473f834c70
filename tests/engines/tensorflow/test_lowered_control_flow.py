"""Frozen graphs, whose loops and branches have the form of TensorFlow 1, are explained as the models they were made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import deepshap

STEPS, FEATURES = 5, 3
RANDOM = np.random.default_rng(0)
X, BACKGROUND = (RANDOM.normal(size=(rows, STEPS, FEATURES)).astype("float32") for rows in (3, 4))
LOWERED = {"Enter", "Exit", "Switch", "Merge", "LoopCond", "NextIteration"}


def frozen(call: Callable[..., Any]) -> Any:
    function = tf.function(lambda x: call(x)).get_concrete_function(tf.TensorSpec((None, STEPS, FEATURES)))
    frozen_function = convert_variables_to_constants_v2(function)
    assert LOWERED & {node.op for node in frozen_function.graph.as_graph_def().node}
    return frozen_function


def explain(model: Any) -> np.ndarray:
    return np.asarray(deepshap.DeepExplainer(model, BACKGROUND, progress=False)(X).values)


def recurrent(*layers: Any) -> keras.Model:
    return keras.Sequential([keras.Input((STEPS, FEATURES)), *layers, L.Dense(2, activation="tanh")])


def loop_in_a_loop(x: Any) -> Any:
    def turn(step: Any, state: Any) -> tuple[Any, Any]:
        def inner(k: Any, s: Any) -> tuple[Any, Any]:
            return k + 1, tf.tanh(s + x[:, step])

        return step + 1, tf.while_loop(lambda k, s: k < 2, inner, (0, 0.5 * state))[1]

    return tf.while_loop(lambda step, state: step < STEPS, turn, (0, tf.zeros_like(x[:, 0])))[1]


def branch_in_a_loop(x: Any) -> Any:
    def turn(step: Any, state: Any) -> tuple[Any, Any]:
        now = tf.cond(step % 2 == 0, lambda: tf.sigmoid(x[:, step]), lambda: state * x[:, step])
        return step + 1, state + now

    return tf.while_loop(lambda step, state: step < STEPS, turn, (0, tf.zeros_like(x[:, 0])))[1]


def loop_in_a_branch(x: Any) -> Any:
    width = tf.shape(x)[2]
    return tf.cond(width > 2, lambda: loop_in_a_loop(x), lambda: branch_in_a_loop(x))


def branch_in_a_branch(x: Any) -> Any:
    width = tf.shape(x)[2]
    inner = lambda: tf.cond(width > 5, lambda: x[:, 0] ** 3, lambda: tf.exp(x[:, 1]))  # noqa: E731
    return tf.cond(width > 2, inner, lambda: x[:, 2])


def growing(x: Any) -> Any:
    """A variable that becomes longer in each turn."""
    start = (0, x[:, :1])
    shapes = (tf.TensorShape([]), tf.TensorShape([None, None, FEATURES]))
    joined = tf.while_loop(
        lambda k, y: k < 3, lambda k, y: (k + 1, tf.concat([y, tf.tanh(y[:, -1:] + x[:, 1:2])], 1)), start, shapes
    )[1]
    return tf.reduce_sum(joined**2, 1)


MODELS: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: recurrent(L.LSTM(4)),
    "GRU": lambda: recurrent(L.GRU(4)),
    "masked": lambda: recurrent(L.Masking(), L.LSTM(4)),
    "bidirectional": lambda: recurrent(L.Bidirectional(L.LSTM(3, return_sequences=True)), L.GRU(3)),
    "loop in a loop": lambda: loop_in_a_loop,
    "branch in a loop": lambda: branch_in_a_loop,
    "loop in a branch": lambda: loop_in_a_branch,
    "branch in a branch": lambda: branch_in_a_branch,
    "growing": lambda: growing,
}


@pytest.mark.parametrize("name", MODELS)
def test_frozen_models_have_the_attributions_of_the_model(name):
    model = MODELS[name]()
    np.testing.assert_allclose(explain(frozen(model)), explain(model), rtol=1e-5, atol=1e-6)


def test_a_graph_that_is_imported_from_a_file(tmp_path: Path):
    model = recurrent(L.LSTM(4))
    function = frozen(model)
    tf.io.write_graph(function.graph, str(tmp_path), "model.pb", as_text=False)
    definition = tf.compat.v1.GraphDef.FromString((tmp_path / "model.pb").read_bytes())
    names = function.inputs[0].name, function.outputs[0].name
    imported = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(definition, name=""), [])
    np.testing.assert_allclose(explain(imported.prune(*names)), explain(model), rtol=1e-5, atol=1e-6)


def test_a_branch_on_the_batch_is_refused_as_in_the_model():
    with pytest.raises(deepshap.BatchMixingError):
        explain(frozen(lambda x: tf.cond(tf.reduce_mean(x) > 0, lambda: tf.exp(x[:, 0]), lambda: x[:, 1])))
