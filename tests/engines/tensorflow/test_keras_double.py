"""Keras and TensorFlow: where float32 cancels, rows are explained in float64, as the float64 model is."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tiers import mostly_wide

import deepshap

BIG = 3e4


@keras.saving.register_keras_serializable()
class Shift(layers.Layer):
    def call(self, x):
        return x + BIG


def ends(x, h):
    return keras.Model(x, layers.Softmax()(Shift()(layers.Dense(3)(h))))


def dense():
    x = keras.Input((6,))
    return ends(x, layers.Dense(8, activation="relu")(x))


def lstm():
    x = keras.Input((4, 3))
    return ends(x, layers.LSTM(5)(x))


def attention():
    x = keras.Input((4, 3))
    h = layers.Dense(6, activation="tanh")(x)
    h = layers.LayerNormalization()(h + layers.MultiHeadAttention(2, 4)(h, h))
    return ends(x, layers.Flatten()(h))


def convolution():
    x = keras.Input((6, 6, 1))
    h = layers.BatchNormalization()(layers.Conv2D(3, 3, activation="tanh")(x))
    return ends(x, layers.Flatten()(layers.AveragePooling2D(2)(h)))


MODELS = [dense, lstm, attention, convolution]


def rows(shape):
    random = np.random.default_rng(3)
    return random.normal(size=(6, *shape)).astype("float32"), random.normal(size=(4, *shape)).astype("float32")


def in_float64(make, model):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        wide = make()
    finally:
        keras.config.set_dtype_policy(policy)
    wide.set_weights(model.get_weights())
    return wide


@pytest.mark.parametrize("make", mostly_wide(MODELS, {lstm}))
def test_values_are_those_of_the_float64_model(make):
    keras.utils.set_random_seed(1)
    model = make()
    background, x = rows(model.input_shape[1:])
    weights = model.get_weights()
    found = deepshap.DeepExplainer(model, background, progress=False)(x)
    again = found.gap.max(1) <= 1e-9
    assert again.any()
    wanted = deepshap.DeepExplainer(in_float64(make, model), background.astype(float), progress=False)(x.astype(float))
    np.testing.assert_allclose(found.values[again], wanted.values[again], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found.outputs[again], wanted.outputs[again], rtol=1e-6)
    assert found.values.dtype == np.float32
    assert all((a == b).all() for a, b in zip(weights, model.get_weights(), strict=True))


def test_handlers_are_asked_in_float64_too():
    """One that shares with all inputs alike what its layer gives: other values than without it, which a float64 model has."""
    keras.utils.set_random_seed(1)
    model, dtypes = dense(), set()
    background, x = rows((6,))

    def handler(call):
        dtypes.add(call.inputs[0].dtype.name)
        given = call.inputs[0] - call.reference_inputs[0]
        made = tf.reduce_sum(call.multipliers[0] * (call.outputs[0] - call.reference_outputs[0]), -1, keepdims=True)
        return made / given / given.shape[-1]

    found = []
    for one, dtype in ((model, "float32"), (in_float64(dense, model), "float64")):
        explainer = deepshap.DeepExplainer(one, background.astype(dtype), progress=False)
        explainer.register_custom_handler(one.layers[1].name, handler)
        dtypes.clear()
        found.append(explainer(x.astype(dtype)))
        assert "float64" in dtypes
    again = found[0].gap.max(1) <= 1e-9
    assert again.any()
    np.testing.assert_allclose(found[0].values[again], found[1].values[again], rtol=1e-5, atol=1e-9)


def test_an_inner_layer_and_captured_tensors():
    keras.utils.set_random_seed(1)
    model = dense()
    wide = in_float64(dense, model)
    background, x = rows((6,))
    shift = tf.constant([0.5, 1.0, -0.5])

    def function(x):
        return tf.nn.softmax(model.layers[2](model.layers[1](x)) + shift + BIG)

    def function_in_float64(x):
        return tf.nn.softmax(wide.layers[2](wide.layers[1](x)) + tf.cast(shift, tf.float64) + BIG)

    found = deepshap.DeepExplainer(function, background, progress=False)(x)
    again = found.gap.max(1) <= 1e-9
    assert again.any()
    wanted = deepshap.DeepExplainer(function_in_float64, background.astype(float), progress=False)(x.astype(float))
    np.testing.assert_allclose(found.values[again], wanted.values[again], rtol=1e-5, atol=1e-9)
    found = deepshap.DeepExplainer((model, model.layers[2]), background, progress=False)(x)
    again = found.gap.max(1) <= 1e-9
    assert again.any()
    wanted = deepshap.DeepExplainer((wide, wide.layers[2]), background.astype(float), progress=False)(x.astype(float))
    np.testing.assert_allclose(found.values[again], wanted.values[again], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("shift", [1e5, 1e9])
def test_numbers_that_vanish_beside_an_offset(shift):
    """A softmax knows no shift: the values are those without it."""
    keras.utils.set_random_seed(1)
    logits = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(3)])
    background, x = rows((6,))
    found = deepshap.DeepExplainer(lambda x: tf.nn.softmax(1e-3 * logits(x) + shift), background, progress=False)(x)
    wanted, again = (
        deepshap.DeepExplainer(lambda x: tf.nn.softmax(1e-3 * logits(x)), background, progress=False)(x),
        found.gap.max(1) <= 1e-6,
    )
    assert again.any()
    np.testing.assert_allclose(
        found.values[again], wanted.values[again], rtol=0, atol=1e-4 * np.abs(wanted.values).max()
    )


class Slightly(layers.Layer):
    def call(self, x):
        return 2.0 * x


@pytest.mark.parametrize("miss", [3e-4, 0.1])
def test_a_wrong_rule_stays_an_error(miss):
    def wrong(step, m):
        return 2.0 * (1 + miss) * m

    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), Slightly(), layers.Dense(2)])
    background, x = rows((6,))
    deepshap.register_rule(Slightly, wrong)
    try:
        with pytest.raises(deepshap.AdditivityError, match="In float64 they miss it by"):
            deepshap.DeepExplainer(model, background, progress=False).shap_values(x)
    finally:
        deepshap.unregister_rule(Slightly)


@pytest.mark.parametrize(
    "model",
    [lambda x: tf.reduce_sum(x * np.arange(1.0, 7), -1, keepdims=True), tf.nn.softmax],
    ids=["a sum", "softmax"],
)
def test_float32_that_a_model_widens_is_as_exact_as_float32(model):
    X, R = rows((6,))
    found = deepshap.DeepExplainer(lambda x: model(tf.cast(x, tf.float64)), R, progress=False).shap_values(X)
    wanted = deepshap.DeepExplainer(model, R.astype(np.float64), progress=False).shap_values(X.astype(np.float64))
    assert np.abs(found - wanted).max() <= 1e-6 * np.abs(wanted).max()


# ---------------------------------------------------------------------- no way round other errors
def test_random_numbers_of_numpy_are_refused_in_float32_too():
    """The float64 graph holds one draw as a constant, and would add up."""
    background, x = rows((6,))

    def drawn(t):
        return tf.tanh(t) * float(np.random.default_rng().normal())

    with pytest.raises(deepshap.BatchMixingError, match="random numbers of NumPy"):
        deepshap.DeepExplainer(drawn, tf.constant(background), progress=False).shap_values(x)


def test_a_branch_on_eager_execution_is_refused():
    background, x = rows((6,))

    def branching(t):
        return tf.tanh(t) * (1.5 if tf.inside_function() else 1.0)

    with pytest.raises(deepshap.BatchMixingError, match="its graph"):
        deepshap.DeepExplainer(branching, tf.constant(background), progress=False).shap_values(x)
