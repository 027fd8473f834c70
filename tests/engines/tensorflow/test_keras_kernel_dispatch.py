"""Rules in one compiled pass: the same as the plain rules, wherever the rows lie together, and the same sums."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import deepshap
from deepshap.engines.tensorflow import kernel_dispatch
from deepshap.kernels import jit_threshold

FEATURES, UNITS = 6, 4
DRAWN = np.random.default_rng(0)
INNER, OUTER = DRAWN.normal(size=(FEATURES, UNITS)), DRAWN.normal(size=(UNITS, 2))
X, REFERENCES = 3 * DRAWN.normal(size=(3, 5, FEATURES)), 3 * DRAWN.normal(size=(4, 5, FEATURES))
X[0] = REFERENCES[1]  # a pair that does not differ
X[1] = REFERENCES[2] + 1e-4 * X[1]  # one that is close


def model(function, folded=False, axis=0):
    """A function of hidden numbers, with the steps as rows of their own, or with the rows on another axis."""

    def run(x):
        hidden = tf.matmul(x, tf.cast(INNER, x.dtype))
        if folded:
            made = tf.reshape(function(tf.reshape(hidden, [-1, UNITS])), [-1, 5, UNITS])
        else:
            order = [1, 0, 2] if axis else [0, 1, 2]
            made = tf.transpose(function(tf.transpose(hidden, order)), order)
        return tf.reduce_sum(tf.matmul(made, tf.cast(OUTER, x.dtype)), 1)

    return run


MASK = np.where(np.arange(UNITS) == 2, -1e9, 0.0)
FUNCTIONS = {
    "relu": tf.nn.relu,
    "tanh": tf.tanh,
    "sigmoid": tf.sigmoid,
    "softmax": tf.nn.softmax,
    "log_softmax": tf.nn.log_softmax,
    "softmax with a mask": lambda z: tf.nn.softmax(z + tf.cast(MASK, z.dtype)),
}


@pytest.fixture
def kernels(monkeypatch):
    """Run kernels for the smallest job and in threads, or none; note which have run."""
    runs, original = [], kernel_dispatch._by_kernel
    monkeypatch.setattr(jit_threshold, "THREADS_BEYOND", 0)
    monkeypatch.setattr(kernel_dispatch, "_by_kernel", lambda name, *given: runs.append(name) or original(name, *given))

    def use(yes):
        monkeypatch.setattr(jit_threshold.PAIRS, "threshold", 0 if yes else np.inf)
        return runs

    return use


def explained(run, dtype):
    """All attributions, of both outputs."""
    explainer = deepshap.DeepExplainer(run, REFERENCES.astype(dtype), progress=False)
    return np.asarray(explainer.shap_values(X.astype(dtype)))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("folded", [False, True], ids=["rows", "rows and steps on one axis"])
def test_one_pass_gives_what_the_plain_rules_give_in_float64(name, folded, kernels):
    run = model(FUNCTIONS[name], folded)
    runs = kernels(False)
    plain = explained(run, "float64")
    assert not runs
    kernels(True)
    for dtype, rounding in (("float64", 1e-13), ("float32", 2e-5)):
        runs.clear()
        np.testing.assert_allclose(explained(run, dtype), plain, atol=rounding * abs(plain).max(), rtol=0)
        assert name.partition(" ")[0] in runs


def test_slopes_are_quotients_of_differences(kernels):
    """By hand: what a kernel makes of relu."""
    runs = kernels(True)
    x, r = (v @ INNER for v in (X[:, None], REFERENCES[None]))
    change = np.maximum(x, 0) - np.maximum(r, 0)
    slopes = np.where(x == r, x > 0, change / np.where(x == r, 1, x - r))
    multipliers = np.einsum("xrsu,fu,uo->xrsfo", slopes, INNER, OUTER)
    expected = (multipliers * (X[:, None] - REFERENCES[None])[..., None]).mean(1)
    np.testing.assert_allclose(explained(model(tf.nn.relu), "float64"), expected, atol=1e-12 * abs(expected).max())
    assert runs


def test_rows_masked_as_a_whole_and_rows_on_other_axes_are_left_to_the_plain_rules(kernels):
    def masked(z):
        return tf.nn.softmax(tf.where(z[:, :, :1] > 2, tf.cast(-1e9, z.dtype), z))

    for run in (model(masked), model(tf.tanh, axis=1)):
        runs = kernels(False)
        plain = explained(run, "float64")
        kernels(True)
        np.testing.assert_allclose(explained(run, "float64"), plain, atol=1e-13 * abs(plain).max(), rtol=0)
        assert not runs


def test_means_of_factors_in_one_pass_are_those_of_both_sides(kernels):
    """Products of values that both vary, against the same in float64 without kernels."""

    def products(z):
        return tf.matmul(tf.nn.softmax(tf.matmul(z, z, transpose_b=True)), z, transpose_a=True)

    kernels(False)
    plain = explained(model(products), "float64")
    runs = kernels(True)
    np.testing.assert_allclose(explained(model(products), "float64"), plain, atol=1e-12 * abs(plain).max(), rtol=0)
    assert "softmax" in runs


def powers_of_two(function):
    """Of rows with as many axes as six halvings make."""
    return lambda x: tf.reduce_sum(function(tf.reshape(x, (-1, *[2] * 6))), range(2, 7)) ** 2


def beside_nothing(x):
    return tf.concat([tf.nn.relu(x[:, 6:]), tf.tanh(x)], 1)


def products_of_nothing(x):
    return x + tf.reduce_sum(tf.matmul(x[:, :, None][:, :, 1:], x[:, None, :][:, 1:]), -1)


SHAPES = {
    "relu over many axes": (powers_of_two(tf.nn.relu), 64),
    "sigmoid over many axes": (powers_of_two(tf.sigmoid), 64),
    "relu of nothing": (beside_nothing, 6),
    "products of nothing": (products_of_nothing, 6),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("name", SHAPES)
def test_many_axes_and_none(name, compiled, kernels):
    kernels(compiled)
    run, features = SHAPES[name]
    x, background = (np.random.default_rng(seed).normal(size=(seed, features)) for seed in (3, 5))
    values = deepshap.DeepExplainer(run, background, progress=False).shap_values(x)
    outputs, expected = (np.asarray(run(tf.constant(rows))) for rows in (x, background))
    np.testing.assert_allclose(values.sum(1), outputs - expected.mean(0), rtol=0, atol=1e-9 * abs(outputs).max())


def test_multipliers_of_unknown_rank():
    """A user's rule in NumPy does not tell the shape of what it returns."""

    class Squared(tf.keras.layers.Layer):
        def call(self, x):
            return x * x

    def rule(step, m):
        sides = [m, step.inputs[0], step.reference_inputs[0]]
        return tf.numpy_function(lambda m, x, r: m * (x + r), sides, m.dtype)

    deepshap.register_rule(Squared, rule)
    try:
        layers = tf.keras.layers
        net = tf.keras.Sequential([tf.keras.Input((4,)), layers.Softmax(), Squared(), layers.Dense(2)])
        x, background = (np.random.default_rng(seed).normal(size=(seed, 4)).astype("float32") for seed in (2, 6))
        values = deepshap.DeepExplainer(net, background, progress=False).shap_values(x)
    finally:
        deepshap.unregister_rule(Squared)
    outputs, expected = (net(rows).numpy() for rows in (x, background))
    np.testing.assert_allclose(values.sum(1), outputs - expected.mean(0), rtol=0, atol=1e-5)
