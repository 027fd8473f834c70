"""TensorFlow, Keras and the model are as they were: after success, after an error, and after an interruption."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close
from keras import Sequential, ops
from keras import layers as L
from keras_checks import distance, snapshot
from keras_models import draw_weights, functional, precision
from tensorflow.python.framework import ops as tf_ops
from tiers import mostly_wide

import deepshap

STEPS, FEATURES = 3, 2
X, R = (
    np.random.default_rng(seed).normal(size=(rows, STEPS, FEATURES)).astype("float32")
    for seed, rows in ((1, 2), (2, 3))
)


def nothing() -> None:
    """What a layer does besides, where a test asks for nothing."""


class Restless(L.Layer):
    """A layer with everything that a call may change: a loss, a metric, seeds, a variable that it writes."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.generator = keras.random.SeedGenerator(7)
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")
        self.kept = self.add_weight(shape=(2,), initializer="ones", name="kept")
        self.hook: Callable[[], Any] = nothing

    def call(self, x: Any) -> Any:
        self.add_loss(ops.mean(x))
        keras.random.normal((2,), seed=self.generator)  # drawn, and not used
        self.count.assign_add(1.0)
        self.kept.assign(ops.clip(self.kept, 0.0, 0.5))  # as layers do that bound their weights
        self.hook()
        return ops.tanh(x) * self.kept[0]


class Interrupting(Exception):
    """What a model's own code raises."""


def model_of() -> Any:
    """A trained model: with an optimizer that has moments, a layer that is frozen, one that was put to training."""
    keras.utils.set_random_seed(0)
    restless = Restless(name="restless")
    model = Sequential([
        keras.Input((STEPS, FEATURES)), L.GaussianNoise(0.1), L.LSTM(3, name="memory"), L.BatchNormalization(), restless,
        L.Dense(2, name="head"),
    ])  # fmt: skip
    model.get_layer("memory").trainable = False
    model.compile("adam", "mse")
    model.fit(R, np.zeros((3, 2)), epochs=2, verbose=0)
    return model


@pytest.fixture(scope="module")
def trained() -> Any:
    """One model for all tests: it must be as it was behind each of them."""
    return model_of()


@pytest.fixture(scope="module")
def outputs(trained: Any) -> np.ndarray:
    """The model's outputs, taken before anything is explained."""
    return trained.predict(X, verbose=0)


@pytest.fixture
def model(trained: Any) -> Any:
    """The model, and what it must be like."""
    tf.random.set_seed(3)
    np.random.seed(3)
    before = everything(trained)
    yield trained
    trained.get_layer("restless").hook = nothing
    after = everything(trained)
    assert [name for name in before if before[name] != after[name]] == []


def everything(model: Any) -> dict[str, Any]:
    """What ``snapshot`` sees, and what training left, and the states of all generators."""
    optimizer = model.optimizer
    return {
        **snapshot(model),
        **{f"optimizer {v.path}": ops.convert_to_numpy(v).tobytes() for v in optimizer.variables},
        "trainable": [(layer.name, layer.trainable) for layer in model._flatten_layers()],
        "weights, identity": [id(w) for w in model.weights],
        "losses": len(model.losses),
        "compiled": (model.compiled, model.run_eagerly, id(model.train_function), id(model.predict_function)),
        "generator of TensorFlow": tf.random.get_global_generator().state.numpy().tobytes(),
        "generator of NumPy": np.random.get_state()[1].tobytes(),
        "device placement": tf.config.get_soft_device_placement(),
        "threads": (
            tf.config.threading.get_intra_op_parallelism_threads(),
            tf.config.threading.get_inter_op_parallelism_threads(),
        ),
        "memory growth": [tf.config.experimental.get_memory_growth(g) for g in tf.config.list_physical_devices("GPU")],
        "optimizers of graphs": tf.config.optimizer.get_experimental_options(),
        "determinism": tf.config.experimental.is_op_determinism_enabled()
        if hasattr(tf.config.experimental, "is_op_determinism_enabled")
        else None,
        "default graph": (tf.executing_eagerly(), tf_ops._default_graph_stack.stack.copy()),
        "image format": keras.config.image_data_format(),
        "epsilon": keras.config.epsilon(),
        "next random numbers": _next_numbers(),
    }


def _next_numbers() -> list[float]:
    """What would be drawn next, without drawing it."""
    from tensorflow.python.eager import context

    rng = getattr(context.context(), "_rng", None)
    return [] if rng is None else list(rng.getstate()[1])


# ---------------------------------------------------------------------- success
@pytest.mark.parametrize("eagerly", [False, True], ids=["graphs", "functions run eagerly"])
def test_everything_is_as_it_was_after_success(outputs, model, eagerly):
    tf.config.run_functions_eagerly(eagerly)
    model.run_eagerly = eagerly
    before = everything(model)
    try:
        explainer = deepshap.DeepExplainer(model, R, progress=False)
        explanation = explainer(X)
        _ = explainer.expected_value
        explainer.shap_values(X, ranked_outputs=1)
        after = everything(model)
        assert [name for name in before if before[name] != after[name]] == []
        assert tf.config.functions_run_eagerly() is eagerly
        assert distance(explanation.values.sum((1, 2)) + explanation.base_values, outputs) < 1e-5
    finally:
        tf.config.run_functions_eagerly(False)
        model.run_eagerly = False


def test_training_goes_on_as_if_nothing_had_been():
    undisturbed, explained = model_of(), model_of()
    deepshap.DeepExplainer(explained, R, progress=False).shap_values(X)
    for one in (undisturbed, explained):
        keras.utils.set_random_seed(1)
        one.fit(R, np.ones((3, 2)), verbose=0)
    for a, b in zip(undisturbed.get_weights(), explained.get_weights(), strict=True):
        assert_close(b, a, 1e-6)


# ---------------------------------------------------------------------- errors and interruptions
ERRORS = pytest.mark.parametrize("error", [Interrupting("stop"), KeyboardInterrupt()], ids=["error", "interruption"])


@ERRORS
@pytest.mark.parametrize("at", [1, 2], ids=["while it is traced", "while it is called"])
def test_everything_is_as_it_was_after_an_error_inside_of_the_model(model, error, at):
    calls = []

    def hook() -> None:
        calls.append(1)
        if len(calls) == at:
            raise error

    model.get_layer("restless").hook = hook
    told = {1: deepshap.UnsupportedOperationError, 2: deepshap.InputError}[at]
    with pytest.raises(told if isinstance(error, Interrupting) else KeyboardInterrupt):
        deepshap.DeepExplainer(model, R, progress=False).shap_values(X)


@ERRORS
def test_everything_is_as_it_was_after_an_error_inside_of_a_rule_or_handler(model, error):
    def stop(*_: Any) -> Any:
        raise error

    explainer = deepshap.DeepExplainer(model, R, progress=False)
    explainer.register_custom_handler("head", stop)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else deepshap.DeepShapError):
        explainer.shap_values(X)
    explainer.unregister_custom_handler("head")
    deepshap.register_rule("Tanh", stop)
    try:
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else deepshap.UserCodeError):
            explainer.shap_values(X)
    finally:
        deepshap.unregister_rule("Tanh")
    assert np.isfinite(explainer.shap_values(X)).all()  # and it works as before


def test_everything_is_as_it_was_after_a_model_that_is_refused(model):
    for refused, error in (
        (lambda x: tf.linalg.inv(model(x)[:, None] * model(x)[:, :, None]), deepshap.UnsupportedOperationError),
        (lambda x: model(x) - ops.mean(model(x), 0), deepshap.BatchMixingError),
        (lambda x: [model(x), model(x)], deepshap.InputError),
    ):
        with pytest.raises(error):
            deepshap.DeepExplainer(refused, R, progress=False).shap_values(X)


# ---------------------------------------------------------------------- stateful layers
def stateful(*layers: Any) -> Any:
    """A model with a batch of two rows that goes on where it stopped."""
    with precision("float64"):
        model = Sequential([keras.Input(batch_shape=(2, STEPS, FEATURES)), *layers])
        draw_weights(model)
    return model


def same_states(layer: Any) -> None:
    """Let all rows of a layer go on from the same state."""
    for state in tf.nest.flatten(layer.states):
        state.assign(np.tile(state.numpy()[:1], (state.shape[0], 1)))


def states_of(model: Any) -> list[Any]:
    return [
        s.numpy() for layer in model._flatten_layers() for s in tf.nest.flatten(getattr(layer, "states", None) or [])
    ]


def attributes(layer: Any) -> set[str]:
    """What is set on a layer itself."""
    return {name for name, value in vars(layer).items() if value is not None}


STATEFUL: dict[str, Callable[[], list[Any]]] = {
    "LSTM": lambda: [L.LSTM(3, stateful=True, return_sequences=True), L.GRU(2, stateful=True)],
    "Bidirectional": lambda: [L.Bidirectional(L.GRU(2, stateful=True))],
    "stacked cells": lambda: [L.RNN([L.LSTMCell(2), L.GRUCell(2)], stateful=True)],
}


@pytest.mark.parametrize("name", mostly_wide(STATEFUL, {"LSTM"}))
def test_states_stay_and_are_where_every_row_begins(name):
    with precision("float64"):
        model = stateful(*STATEFUL[name]())
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False) and not isinstance(layer, (L.Bidirectional, keras.Model)):
            same_states(layer)
    flags = [(layer.name, getattr(layer, "stateful", None)) for layer in model._flatten_layers()]
    before, names = states_of(model), [attributes(layer) for layer in model._flatten_layers()]
    explanation = deepshap.DeepExplainer(model, R, progress=False)(X)
    assert all(np.array_equal(a, b) for a, b in zip(before, states_of(model), strict=True))
    assert flags == [(layer.name, getattr(layer, "stateful", None)) for layer in model._flatten_layers()]
    assert names == [attributes(layer) for layer in model._flatten_layers()]
    assert_close(explanation.values.sum((1, 2)) + explanation.base_values, model(X.astype(float)).numpy())
    assert any((a != b).any() for a, b in zip(before, states_of(model), strict=True))  # its own call goes on


def test_states_that_differ_between_rows_are_refused_and_nothing_has_changed():
    model = stateful(L.LSTM(3, stateful=True, return_sequences=True, name="one"), L.GRU(2, stateful=True, name="two"))
    same_states(model.get_layer("one"))
    before, names = states_of(model), [attributes(layer) for layer in model.layers]
    with pytest.raises(deepshap.InputError, match=r"'two' remembers another state.*[Rr]eset"):
        deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    assert [layer.stateful for layer in model.layers] == [True, True]
    assert names == [attributes(layer) for layer in model.layers]
    assert all(np.array_equal(a, b) for a, b in zip(before, states_of(model), strict=True))
    model.get_layer("two").reset_state()
    assert deepshap.DeepExplainer(model, R, progress=False).shap_values(X).shape == (2, STEPS, FEATURES, 2)


# ---------------------------------------------------------------------- what users set on layers
def test_a_call_that_users_have_put_on_a_layer_stays():
    with precision("float64"):
        model = functional((STEPS, FEATURES), lambda x: L.Dense(2, name="head")(L.Dense(3, name="first")(x)[:, 0]))
        draw_weights(model)
    head = model.get_layer("head")
    plain = head.call
    head.call = own = lambda x, **options: ops.tanh(plain(x))
    inner = deepshap.DeepExplainer((model, head), R, progress=False)
    assert_close(inner.shap_values(X).sum(1), model(X.astype(float)).numpy() - model(R.astype(float)).numpy().mean(0))
    assert head.call is own
    deepshap.register_rule(L.Dense, "smooth")
    try:
        deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    finally:
        deepshap.unregister_rule(L.Dense)
    assert head.call is own
    assert "call" not in vars(model.get_layer("first"))


# ---------------------------------------------------------------------- gradients, graphs, precision
def test_gradients_and_their_registry():
    """A tape of the user's sees nothing of an explanation, and custom gradients stay what they are."""

    @tf.custom_gradient
    def odd(x: Any) -> Any:
        return tf.tanh(x), lambda upstream: 7 * upstream

    explainer = deepshap.DeepExplainer(lambda x: odd(x)[:, 0], R, progress=False)
    names = {name for name in tf_ops.gradient_registry._registry if "CustomGradient" not in name}
    x = tf.Variable(X)
    with tf.GradientTape() as tape:
        values = explainer.shap_values(x)
        y = tf.reduce_sum(odd(x))
    assert np.array_equal(tape.gradient(y, x).numpy(), np.full_like(X, 7))
    assert {name for name in tf_ops.gradient_registry._registry if "CustomGradient" not in name} == names
    assert_close(np.diagonal(values[:, 0], 0, 1, 2), np.tanh(X[:, 0]) - np.tanh(R[:, 0]).mean(0), 1e-6)


def test_inside_of_a_graph_and_a_distribution_strategy():
    model = Sequential([keras.Input((STEPS, FEATURES)), L.LSTM(2)])
    wanted = deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    with tf.Graph().as_default() as graph:
        found = deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
        assert tf.compat.v1.get_default_graph() is graph
        assert not graph.get_operations()
    assert_close(found, wanted, 1e-6)
    with tf.device("CPU:0"), tf.distribute.get_strategy().scope():
        assert_close(deepshap.DeepExplainer(model, R, progress=False).shap_values(X), wanted, 1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_stays_and_is_explained(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = Sequential([keras.Input((STEPS, FEATURES)), L.LSTM(4), L.Dense(2, dtype="float32")])
        explanation = deepshap.DeepExplainer(model, R, progress=False)(X)
        assert keras.config.dtype_policy().name == policy
        total = explanation.values.sum((1, 2)) + explanation.base_values
        assert distance(total, model(X).numpy()) < {"mixed_bfloat16": 6e-2, "mixed_float16": 1e-2}[policy]
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.config.floatx() == "float32"


# ---------------------------------------------------------------------- what layers write to
FOUR = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


class Holder:
    """An object of the user's own."""

    def __init__(self):
        self.count, self.seen = 0, [1]


class Writing(keras.layers.Layer):
    """Writes to everything that it holds."""

    def __init__(self):
        super().__init__()
        self.scale = self.add_weight(shape=(4,), initializer="ones")
        self.nested = {"a": {"b": [1, 2]}}
        self.holder, self.array, self.recent, self.bytes = Holder(), np.zeros(4), deque([1], maxlen=9), bytearray(4)

    def call(self, x):
        self.nested["a"]["b"].append(3)
        self.nested["a"]["c"] = 1
        self.holder.count += 1
        self.holder.seen.append(2)
        self.holder.more = x
        self.array += 1
        self.recent.append(2)
        self.bytes[0] += 1
        self.last = x
        np.random.rand()
        random.random()
        return tf.tanh(x * self.scale)


def contents_of(layer):
    python = layer.nested, layer.holder.count, layer.holder.seen, layer.recent, bytes(layer.bytes), sorted(vars(layer))
    generators = np.random.get_state()
    return repr((python, sorted(vars(layer.holder)), layer.array.tolist())), generators[1].tolist(), random.getstate()


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_layer_writes_to_is_left_as_it_was(fails):
    layer = Writing()
    model = keras.Sequential([keras.Input((4,)), layer])
    if fails:
        model.add(keras.layers.Lambda(lambda x: tf.raw_ops.PopulationCount(x=tf.cast(x, tf.int32))))
    before = contents_of(layer)
    explainer = deepshap.DeepExplainer(model, np.zeros((1, 4)), progress=False)
    for _ in range(2):
        if fails:
            with pytest.raises(deepshap.DeepShapError):
                explainer.shap_values(FOUR)
        else:
            explainer.shap_values(FOUR)
        assert contents_of(layer) == before
