"""Rules that users register for operations of TensorFlow and for Keras layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close
from keras import Sequential
from keras import layers as L
from keras_models import functional, precision

import deepshap

X, R = (np.random.default_rng(seed).normal(size=(rows, 4)) for seed, rows in ((1, 2), (2, 3)))
TRIANGLE = np.tril(np.random.default_rng(3).normal(size=(4, 4))) + 2 * np.eye(4)


def explain(model: Any, **options: Any) -> np.ndarray:
    return deepshap.DeepExplainer(model, tf.constant(R), progress=False).shap_values(tf.constant(X), **options)


def fake_quantised(x: Any) -> Any:
    """An elementwise operation that deepshap does not know, for float32 only."""
    return tf.quantization.fake_quant_with_min_max_args(tf.cast(x, tf.float32), -2, 2, 4)


QUANTISED = "FakeQuantWithMinMaxArgs"


class Energy(L.Layer):
    """A layer that is quadratic."""

    def call(self, x: Any) -> Any:
        return keras.ops.sum(x * x, -1, keepdims=True)


def energy_rule(step: Any, multiplier: Any) -> Any:
    """The rule of ``Energy``: x^2 - r^2 = (x + r) (x - r)."""
    (x,), (r,) = step.inputs, step.reference_inputs
    return multiplier * (x + r)


# ---------------------------------------------------------------------- operations
def test_elementwise(register):
    with pytest.raises(deepshap.UnsupportedOperationError, match=QUANTISED):
        explain(fake_quantised)
    register(QUANTISED, "elementwise")
    found = explain(fake_quantised)
    wanted = np.asarray(fake_quantised(X)) - np.asarray(fake_quantised(R)).mean(0)
    assert_close(np.diagonal(found, 0, 1, 2), wanted, 1e-5)
    assert (found[:, 0, 1:] == 0).all()


def test_linear(register):
    def solved(x: Any) -> Any:
        return tf.transpose(tf.linalg.triangular_solve(tf.constant(TRIANGLE), tf.transpose(x)))

    register("MatrixTriangularSolve", "linear")
    assert_close(explain(solved), (X - R.mean(0))[:, :, None] * np.linalg.inv(TRIANGLE).T)


def test_smooth(register):
    def inverted(x: Any) -> Any:
        return tf.reshape(tf.linalg.inv(5 * tf.eye(2, dtype=x.dtype) + tf.reshape(x, (-1, 2, 2))), (-1, 4))

    register("MatrixInverse", "smooth")
    assert_close(explain(inverted).sum(1), np.asarray(inverted(X)) - np.asarray(inverted(R)).mean(0))


def test_smooth_asks_for_a_derivative(register):
    register("SoftsignGrad", "smooth")
    with pytest.raises(deepshap.UnsupportedOperationError, match=r"SoftsignGrad.*derivative"):
        explain(lambda x: tf.raw_ops.SoftsignGrad(gradients=x, features=tf.ones_like(x)))


def test_a_rule_in_a_loop_and_in_a_function(register):
    def looping(x: Any) -> Any:
        step = tf.function(lambda h: tf.cast(fake_quantised(h), x.dtype) * x)
        return tf.while_loop(lambda t, h: t < 3, lambda t, h: (t + 1, step(h)), (0, x))[1]

    register(QUANTISED, "elementwise")
    found = explain(looping)
    assert_close(found.sum(1), np.asarray(looping(tf.constant(X))) - np.asarray(looping(tf.constant(R))).mean(0), 1e-5)


def test_what_a_rule_gets_to_see(register):
    seen = []

    def rule(step: Any, multiplier: Any) -> Any:
        seen.append((step.name, step.place, step.varying))
        y, y_r = step.evaluate(step.inputs[0]), step.evaluate(step.reference_inputs[0])
        return multiplier * (y - y_r) / (step.inputs[0] - step.reference_inputs[0])

    with precision("float64"):
        model = Sequential([keras.Input((4,)), L.Activation("tanh", name="bend")])
        wanted = explain(model)
        register("Tanh", rule)
        assert_close(explain(model), wanted)
    assert {(name, varying) for name, _, varying in seen} == {("Tanh", (True,))}
    assert all("bend" in place for _, place, _ in seen)


def test_a_rule_replaces_the_built_in_one_and_is_blamed(register):
    register("Tanh", lambda step, m: m * 2)
    with pytest.raises(deepshap.AdditivityError, match=r"(?s)do not add up.*Tanh.*register_rule"):
        explain(tf.tanh)
    with pytest.warns(deepshap.AdditivityWarning, match="Tanh"):
        explain(tf.tanh, check_additivity=False)


def test_a_rule_that_takes_too_much_for_linear_is_found_out(register):
    register(QUANTISED, "constant")
    with pytest.raises(deepshap.AdditivityError, match="do not add up"):
        explain(lambda x: fake_quantised(x) + tf.cast(x, tf.float32))


def test_a_rule_that_returns_too_little_or_another_shape(register):
    register("Tanh", lambda step, m: ())
    with pytest.raises((TypeError, deepshap.DeepShapError), match="Tanh"):
        explain(tf.tanh)
    register("Sin", lambda step, m: tf.reduce_sum(m, -1))
    with pytest.raises((TypeError, deepshap.DeepShapError), match=r"Sin.*shape"):
        explain(tf.sin)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda step, m: m[:1], r"of shape \d+ 4 for an input of shape \d+ 4"),
        (lambda step, m: tf.boolean_mask(m, m[:, 0] > 0), r"of shape \d+ 4 for an input of shape \d+ 4"),
        (lambda step, m: m > 0, "a tensor of bool"),
        (lambda step, m: tf.strings.as_string(m), "a tensor of string"),
        (lambda step, m: "m", "str;"),
    ],
    ids=["the first row", "some rows", "booleans", "texts", "a text"],
)
def test_what_is_no_multiplier_is_named(register, rule, words):
    register("Softsign", rule)
    with pytest.raises(deepshap.InputError, match=f"the rule of Softsign returned .*{words}"):
        explain(tf.nn.softsign)


# ---------------------------------------------------------------------- layers
@pytest.mark.parametrize("rule", ["quadratic", energy_rule], ids=["quadratic", "a function"])
def test_a_layer_class_an_instance_and_where_it_is(register, rule):
    with precision("float64"):
        layer = Energy(name="energy")
        inner = Sequential([keras.Input((4,)), L.Dense(3), layer])
        model = functional((4,), lambda x: L.Subtract()([inner(x), inner(x[:, ::-1])]))
        wanted = explain(model)
        for key in (Energy, layer):
            register(key, rule)
            assert_close(explain(model), wanted)
        assert not any("call" in vars(one) for one in model._flatten_layers())


def test_a_layer_that_cannot_be_followed(register):
    class Opaque(L.Layer):
        def call(self, x: Any) -> Any:
            found = tf.numpy_function(lambda v: np.tanh(v) * 2, [x], x.dtype)
            found.set_shape(x.shape)
            return found

    with precision("float64"):
        model = Sequential([keras.Input((4,)), L.Dense(3), Opaque(name="opaque"), L.Dense(2)])
        with pytest.raises(deepshap.UnsupportedOperationError, match="opaque"):
            explain(model)
        register(Opaque, "elementwise")
        outputs, expected = (model.predict(side, verbose=0) for side in (X, R))
        assert_close(explain(model).sum(1), outputs - expected.mean(0))


def test_the_last_registration_counts_and_an_unregistered_one_is_forgotten(register):
    register(QUANTISED, "linear")
    deepshap.register_rule(QUANTISED, "elementwise")
    assert np.isfinite(explain(fake_quantised)).all()
    explainer = deepshap.DeepExplainer(fake_quantised, tf.constant(R), progress=False)
    explainer.shap_values(tf.constant(X))
    deepshap.unregister_rule(QUANTISED)
    with pytest.raises(deepshap.UnsupportedOperationError):
        explainer.shap_values(tf.constant(X))
    with pytest.raises(deepshap.InputError, match=QUANTISED):
        deepshap.unregister_rule(QUANTISED)
    deepshap.register_rule(QUANTISED, "elementwise")


@pytest.mark.parametrize(
    ("function", "rule", "words"),
    [
        ("Tanhh", "linear", "no operation 'Tanhh'"),
        (tf.tanh, "linear", "tanh is a Python function.*Register the type"),
        ("Tanh", "magic", "magic"),
        ("Tanh", 3, "int"),
        (Energy, "magic", "magic"),
    ],
)
def test_what_cannot_be_registered(function, rule, words):
    with pytest.raises(deepshap.InputError, match=words):
        deepshap.register_rule(function, rule)
