"""Targets of Keras models, against log-odds that are computed the obvious way."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from tiers import mostly_wide

import deepshap

RANDOM = np.random.default_rng(0)
X, BACKGROUND = RANDOM.normal(size=(5, 4, 3)), RANDOM.normal(size=(9, 4, 3))


def made(first, *last):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 3), dtype="float64")
    out = first(inputs)
    for layer in last:
        out = layer(out)
    return keras.Model(inputs, out)


def dense(outputs, activation=None):
    return keras.layers.Dense(outputs, activation=activation, kernel_initializer="glorot_uniform", dtype="float64")


def flat():
    """A beginning that is traced faster than a recurrent one."""
    return keras.Sequential([keras.layers.Flatten(dtype="float64"), dense(6, "tanh")])


HEADS = {
    "recurrent, dense with softmax": lambda: (keras.layers.GRU(6, dtype="float64"), dense(3, "softmax")),
    "softmax as a layer": lambda: (flat(), dense(3), keras.layers.Softmax(dtype="float64")),
    "softmax, and what changes nothing": lambda: (
        flat(),
        dense(3, "softmax"),
        keras.layers.Dropout(0.2, dtype="float64"),
        keras.layers.Flatten(dtype="float64"),
    ),
    "softmax as an activation": lambda: (flat(), dense(3), keras.layers.Activation("softmax", dtype="float64")),
}


@pytest.mark.parametrize("head", mostly_wide(HEADS, [*HEADS][:2]))
def test_log_odds_and_logits(head):
    model = made(*HEADS[head]())
    probability = model(X).numpy()
    explainer = deepshap.DeepExplainer(model, BACKGROUND, output_names=["a", "b", "c"])
    found = explainer(X, target="log-odds")
    best = probability.max(1)
    np.testing.assert_allclose(found.outputs, np.log(best / (1 - best)), atol=1e-9)
    np.testing.assert_allclose(found.values.sum((1, 2)), found.outputs - found.base_values, atol=1e-9)
    logits = explainer(X, target="logits")
    ratio = np.exp(logits.outputs - logits.outputs.max(1, keepdims=True))
    np.testing.assert_allclose(ratio / ratio.sum(1, keepdims=True), probability, atol=1e-9)
    difference = explainer(X, target="a - b")
    np.testing.assert_allclose(difference.outputs, probability[:, 0] - probability[:, 1], atol=1e-12)


def test_a_sigmoid_and_a_function():
    model = made(flat(), dense(1, "sigmoid"))
    probability = model(X).numpy()[:, 0]
    explainer = deepshap.DeepExplainer(model, BACKGROUND)
    found = explainer(X, target="log-odds")
    np.testing.assert_allclose(
        found.outputs, np.abs(np.log(probability / (1 - probability))), atol=1e-9
    )  # of the answer
    squared = explainer(X, target=lambda p: p[:, 0] ** 2)
    np.testing.assert_allclose(squared.outputs, probability**2)
    with pytest.raises(deepshap.InputError, match="out of reach"):
        deepshap.DeepExplainer(lambda x: keras.ops.sigmoid(model(x)) * 0.5, BACKGROUND)(X, target="log-odds")


def test_a_head_is_looked_for_in_the_model_as_it_is():
    model = keras.Sequential([keras.Input((4, 3), dtype="float64"), flat(), dense(3, "softmax")])
    explainer = deepshap.DeepExplainer(model, BACKGROUND)
    explainer(X, target="logits")
    model.pop()
    model.add(dense(2, "softmax"))
    z = explainer(X, target="logits").outputs
    np.testing.assert_allclose(np.exp(z) / np.exp(z).sum(1, keepdims=True), model(X).numpy(), atol=1e-9)


def test_a_handler_of_the_head_and_of_another_layer():
    model = made(keras.layers.Flatten(dtype="float64"), dense(4), dense(3, "softmax"))
    explainer = deepshap.DeepExplainer(model, BACKGROUND)
    expected, called = explainer.shap_values(X, target="logits"), []

    def handler(call):
        called.append(call.name)
        return call.multipliers[0] @ keras.ops.transpose(call.module.kernel)

    explainer.register_custom_handler(model.layers[-2].name, handler)
    np.testing.assert_allclose(explainer.shap_values(X, target="logits"), expected, atol=1e-9)
    assert set(called) == {model.layers[-2].name}
    explainer.register_custom_handler(model.layers[-1].name, handler)
    with pytest.raises(deepshap.InputError, match="treats its softmax too"):
        explainer.shap_values(X, target="logits")


KINDS = (lambda z: keras.ops.softmax(z) * 1.0, lambda z: 1.5 + keras.ops.softplus(z), lambda z: z)


@pytest.mark.parametrize(("before", "now"), [(0, 1), (1, 0), (2, 0), (1, 2)])
def test_what_the_outputs_are_is_asked_in_every_call(before, now):
    """Probabilities or logits: a function that turned from one to the other is explained as it is."""
    weights, kind = RANDOM.normal(size=(12, 3)), [before]

    def model(x):
        return KINDS[kind[0]](keras.ops.reshape(x, (-1, 12)) @ weights)

    used = deepshap.DeepExplainer(model, BACKGROUND, progress=False)
    used.shap_values(X, target="log-odds")
    kind[0] = now
    fresh = deepshap.DeepExplainer(model, BACKGROUND, progress=False)
    wanted = fresh.shap_values(X, target="log-odds")
    np.testing.assert_allclose(used.shap_values(X, target="log-odds"), wanted, atol=1e-12)
