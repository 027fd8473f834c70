"""A model of Keras' own layers is not traced again while nothing has changed that their code reads."""

from __future__ import annotations

import functools
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_checks import confirm

import deepshap
from deepshap.engines.tensorflow import engine, model_state
from deepshap.engines.tensorflow.model_state import state_of

X = np.random.default_rng(1).normal(size=(3, 5, 2)).astype(np.float32)
R = np.random.default_rng(2).normal(size=(4, 5, 2)).astype(np.float32)


def network():
    """Layers with numbers, an array, a slope, activations and a wrapped layer."""
    keras.utils.set_random_seed(0)
    given = keras.Input((5, 2))
    scaled = keras.layers.Rescaling(np.array([1.0, 2.0], np.float32), offset=0.5)(given)
    bent = keras.layers.LeakyReLU(0.1)(scaled)
    steps = keras.layers.TimeDistributed(keras.layers.Dense(3, activation="tanh", bias_initializer="ones"))(bent)
    pooled = keras.ops.sum(steps, 1)
    return keras.Model(given, keras.layers.Dense(2)(keras.layers.Dropout(0.5)(pooled)))


@pytest.fixture
def traces(monkeypatch):
    """Count traces of the model."""
    made, original = [], engine.trace_model
    monkeypatch.setattr(engine, "trace_model", lambda *a: (made.append(a), original(*a))[1])
    return made


def layer_of(model, kind):
    return next(layer for layer in model.layers if isinstance(layer, kind))


def square(x, **_):
    return x * x


CHANGES = {
    "a number": lambda m, patch: setattr(layer_of(m, keras.layers.Rescaling), "offset", 3.0),
    "an entry of an array": lambda m, patch: layer_of(m, keras.layers.Rescaling).scale.__setitem__(0, 5.0),
    "a slope": lambda m, patch: setattr(layer_of(m, keras.layers.LeakyReLU), "negative_slope", 0.7),
    "an activation": lambda m, patch: setattr(m.layers[-1], "activation", keras.activations.sigmoid),
    "an activation of one's own": lambda m, patch: setattr(m.layers[-1], "activation", square),
    "a wrapped layer": lambda m, patch: setattr(
        layer_of(m, keras.layers.TimeDistributed).layer, "activation", keras.activations.linear
    ),
    "a layer's method": lambda m, patch: setattr(m.layers[-1], "call", lambda x, **_: x[:, :2] ** 2),
    "another kernel": lambda m, patch: vars(m.layers[-1]).update(_kernel=keras.Variable(np.ones((3, 2), np.float32))),
    "no bias": lambda m, patch: setattr(layer_of(m, keras.layers.TimeDistributed).layer, "bias", None),
    "a method of a class": lambda m, patch: patch.setattr(keras.layers.LeakyReLU, "call", lambda self, x: x * x),
    "a function of Keras": lambda m, patch: patch.setattr(keras.src.activations, "leaky_relu", square),
    "a function of TensorFlow": lambda m, patch: patch.setattr(tf.nn, "leaky_relu", square),
}


@pytest.mark.parametrize("change", CHANGES)
def test_traced_again_when_something_has_changed(change, traces, monkeypatch):
    model = network()
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    before = [explainer.shap_values(X) for _ in range(2)][-1]
    made = len(traces)
    CHANGES[change](model, monkeypatch)
    confirm(explainer, model, X, R)
    assert len(traces) > made
    assert abs(explainer.shap_values(X) - before).max() > 1e-4


def test_not_traced_again_while_nothing_has_changed(traces):
    model = network()
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    explainer(X)
    made = len(traces)
    model.set_weights([w + 0.25 for w in model.get_weights()])
    values = explainer(X).values
    assert len(traces) == made
    np.testing.assert_allclose(values.sum((1, 2)), model(X).numpy() - model(R).numpy().mean(0), atol=1e-5)


def test_probed_again_when_values_have_changed(monkeypatch):
    """Rows meet where a weight is not 0, which no trace shows."""
    given = keras.Input((5, 2))
    flat = keras.layers.Flatten()(given)
    together = keras.layers.Dense(1, kernel_initializer="zeros")(keras.ops.mean(flat, 0, keepdims=True))
    model = keras.Model(given, keras.layers.Dense(1)(flat) + together)
    probes, original = [], engine.TensorFlowEngine._probe
    monkeypatch.setattr(engine.TensorFlowEngine, "_probe", lambda *a: (probes.append(a), original(*a))[1])
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    for _ in range(3):
        explainer(X)
    assert len(probes) == 1
    model.layers[-1].set_weights([np.ones((10, 1)), np.zeros(1)])
    with pytest.raises(deepshap.BatchMixingError):
        explainer(X)


def test_what_a_target_makes_of_outputs_is_found_again_when_weights_have_changed():
    """The background gives logits, then probabilities."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    explainer = deepshap.DeepExplainer(model, R[:, 0], progress=False)
    for _ in range(2):
        explainer.shap_values(X[:, 0], target="log-odds")
    kernel = np.random.default_rng(3).normal(size=(2, 3)) / 50
    model.set_weights([kernel - kernel.mean(1, keepdims=True), np.array([0.3, 0.3, 0.4])])
    found = explainer.shap_values(X[:, 0], target="log-odds")
    fresh = deepshap.DeepExplainer(model, R[:, 0], progress=False).shap_values(X[:, 0], target="log-odds")
    np.testing.assert_allclose(found, fresh, atol=1e-6)


def test_tables_are_read_in_every_call():
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)
    keys = tf.constant([1, 2], tf.int64)
    table.insert(keys, tf.constant([0.5, 2.0]))
    given, chosen = keras.Input((2,)), keras.Input((1,), dtype="int64")
    factor = keras.layers.Lambda(table.lookup, output_shape=(1,))(chosen)
    model = keras.Model([given, chosen], keras.layers.Dense(1, activation="tanh")(given) * factor)
    x, r = [X[:2, 0], np.array([[1], [2]])], [R[:3, 0], np.array([[1], [2], [2]])]
    explainer = deepshap.DeepExplainer(model, r, progress=False)
    for _ in range(2):
        explainer.shap_values(x)
    table.insert(keys, tf.constant([4.0, -3.0]))
    fresh = deepshap.DeepExplainer(model, r, progress=False).shap_values(x)
    for one, other in zip(explainer.shap_values(x), fresh, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_takes_longer_to_compare_than_to_trace_has_no_state(monkeypatch):
    model = network()
    assert state_of(model) is not None
    for limit in ("MOST_OBJECTS", "MOST_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(model_state, limit, 4)
            assert state_of(model) is None


def test_training_is_no_change(traces):
    """The first call of ``fit`` leaves its marks on a model, the next ones change weights alone."""
    model = network()
    model.compile("sgd", "mse", metrics=["mae"])
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    for epochs in (1, 1, 2):
        model.fit(X, np.zeros((3, 2), np.float32), epochs=epochs, verbose=0)
        confirm(explainer, model, X, R)
        explainer(X)
    made = len(traces)
    model.fit(X, np.zeros((3, 2), np.float32), verbose=0)
    explainer(X)
    assert len(traces) == made


class Scaled(keras.layers.Layer):
    def call(self, x):
        return x * 2


class Slots:
    __slots__ = ("rate",)


FOREIGN = {
    "a function around it": lambda model: lambda x: model(x),
    "a layer of one's own": lambda model: keras.Sequential([keras.Input((5, 2)), Scaled()]),
    "a lambda": lambda model: keras.Sequential([keras.Input((5, 2)), keras.layers.Lambda(lambda x: 2 * x)]),
    "an activation": lambda model: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation=square)]),
    "an activation with arguments": lambda model: keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, activation=functools.partial(square))]
    ),
    "a function of TensorFlow": lambda model: tf.function(lambda x: model(x)),
    "a stateful layer": lambda model: keras.Sequential(
        [keras.Input((5, 2), batch_size=1), keras.layers.LSTM(2, stateful=True)]
    ),
    "an object": lambda model: setattr(model, "held", {"a": [Slots()]}) or model,
    "an array of objects": lambda model: setattr(model, "held", np.array([{}])) or model,
    "a masked array": lambda model: setattr(model, "held", np.ma.ones(2)) or model,
    "a module": lambda model: setattr(model, "held", [functools]) or model,
    "a class": lambda model: setattr(model, "held", Slots) or model,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_may_read_anything_has_no_state(kind):
    model = network()
    assert state_of(model) is not None
    assert state_of(FOREIGN[kind](model)) is None


def test_a_module_in_the_place_of_another_is_a_change(monkeypatch):
    model = network()
    state = state_of(model)
    monkeypatch.setitem(sys.modules, "keras.src.activations", types.ModuleType("keras.src.activations"))
    assert not state.is_unchanged(model)
