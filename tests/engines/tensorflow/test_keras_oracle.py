"""Keras models against slow, obvious formulas in NumPy with the models' own weights, and against exact Shapley values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf
from helpers import assert_close
from keras import Sequential, ops
from keras import layers as L
from keras_models import draw_weights, functional, precision
from keras_oracle import Array, slowly
from tiers import mostly_wide

import deepshap

STEPS, FEATURES, UNITS = 4, 3, 3


# ---------------------------------------------------------------------- models
def stack(*layers: Any) -> Any:
    """One layer behind the other; attention is of a sequence to itself."""

    def run(x: Any) -> Any:
        for layer in layers:
            given = {L.MultiHeadAttention: (x, x), L.Attention: ([x, x],)}.get(type(layer), (x,))
            x = layer(*given)
        return x

    return functional((STEPS, FEATURES), run)


def lstm(**options: Any) -> Any:
    """An LSTM."""
    return L.LSTM(UNITS, **options)


MODELS: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: stack(lstm(), L.Dense(2)),
    "LSTM, sequences": lambda: stack(lstm(return_sequences=True)),
    "GRU": lambda: stack(L.GRU(UNITS), L.Dense(2)),
    "GRU, reset before": lambda: stack(L.GRU(UNITS, reset_after=False, return_sequences=True)),
    "SimpleRNN": lambda: stack(L.SimpleRNN(UNITS), L.Dense(2, activation="tanh")),
    "bidirectional LSTM": lambda: stack(L.Bidirectional(lstm()), L.Dense(2)),
    "bidirectional GRU, added": lambda: stack(L.Bidirectional(L.GRU(UNITS, return_sequences=True), merge_mode="sum")),
    "bidirectional RNN, multiplied": lambda: stack(L.Bidirectional(L.SimpleRNN(UNITS), merge_mode="mul")),
    "stack of three": lambda: stack(
        lstm(return_sequences=True), L.GRU(UNITS, reset_after=False, return_sequences=True), L.SimpleRNN(2)
    ),
    "LSTM with attention": lambda: stack(
        lstm(return_sequences=True), L.Attention(), L.GlobalAveragePooling1D(), L.Dense(2)
    ),
    "bidirectional LSTM with a head of attention": lambda: stack(
        L.Bidirectional(lstm(return_sequences=True)),
        L.MultiHeadAttention(1, 4, use_bias=False),
        L.GlobalAveragePooling1D(),
        L.Dense(2, activation="tanh"),
    ),
}


def rows(number: int, seed: int, *shape: int) -> Array:
    """Draw rows in float64."""
    return np.random.default_rng(seed).normal(size=(number, *shape))


@pytest.mark.parametrize(
    "name", mostly_wide(MODELS, {"LSTM", "GRU", "bidirectional RNN, multiplied", "LSTM with attention"})
)
def test_the_slow_formulas_agree(name):
    with precision("float64"):
        model = MODELS[name]()
        draw_weights(model)
        X, R = rows(2, 1, STEPS, FEATURES), rows(2, 2, STEPS, FEATURES)
        explanation = deepshap.DeepExplainer(model, R, progress=False)(X)
        outputs = model.predict(X, verbose=0)
    for row, x in enumerate(X):
        found = [slowly(model, x, r) for r in R]
        for values, a, b in found:
            assert_close(values.sum((0, 1)), a - b, 1e-15)  # the formulas are complete, to the rounding of long doubles
            assert_close(a.astype(float), outputs[row], 1e-12)
        wanted = np.mean([values for values, _, _ in found], 0).astype(float)
        assert_close(explanation.values[row], wanted, 1e-10)


# ---------------------------------------------------------------------- where Deep SHAP is the Shapley value
def halves(function: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """A function of the first and the last two of four features."""
    return lambda x: function(x[:, :2], x[:, 2:])


def of_features(*layers: Any) -> Any:
    """A stack on four features."""
    return Sequential([keras.Input((4,)), *layers])


def cell_state() -> Any:
    """The cell state of an LSTM without bends after one step: a product of two linear functions."""
    cell = L.LSTM(2, activation="linear", recurrent_activation="linear", return_state=True)
    return functional((4,), lambda x: cell(ops.expand_dims(x, 1))[2])


EXACT: dict[str, Callable[[], Any]] = {
    "dense": lambda: of_features(L.Dense(3), L.Dense(2)),
    "a recurrent layer without bends": lambda: of_features(L.Reshape((2, 2)), L.SimpleRNN(3, activation="linear")),
    "convolution": lambda: of_features(L.Reshape((4, 1)), L.Conv1D(2, 2), L.AveragePooling1D(2), L.Flatten()),
    "batch norm": lambda: of_features(L.BatchNormalization(), L.Dense(2)),
    "functions of one feature each": lambda: of_features(L.Activation("tanh"), L.Dense(2)),
    "product of two layers": lambda: functional((4,), lambda x: L.Multiply()([L.Dense(2)(x), L.Dense(2)(x)])),
    "dot": lambda: functional((4,), lambda x: L.Dot(1)([L.Dense(3)(x), L.Dense(3)(x)])),
    "scores of attention": lambda: functional(
        (4,), lambda x: (lambda h: ops.matmul(h, ops.swapaxes(h, 1, 2)))(L.Reshape((2, 2))(x))
    ),
    "cell state of one step": cell_state,
    "product": lambda: halves(tf.multiply),
    "quotient": lambda: halves(lambda a, b: a / (b**2 + 1)),
    "maximum of two": lambda: halves(tf.maximum),
    "power": lambda: halves(lambda a, b: (tf.abs(a) + 0.1) ** b),
    "arc tangent of two": lambda: halves(lambda a, b: tf.atan2(tf.abs(a), tf.abs(b))),
    "choice": lambda: halves(lambda a, b: tf.where(a > 0, b, tf.zeros_like(b))),
    "square of a sum": lambda: lambda x: tf.reduce_sum(x, 1, keepdims=True) ** 2,
    "variance": lambda: lambda x: tf.math.reduce_variance(x, 1, keepdims=True),
    "a loop of sums": lambda: lambda x: tf.scan(lambda h, z: h + tf.sin(z), tf.transpose(x))[-1][:, None],
}


def exact_values(call: Callable[[Any], Any], X: Array, R: Array) -> Array:
    """Mean over the references of the Shapley values by all coalitions."""
    return np.stack(
        [np.mean([oracle.shapley(lambda row: np.asarray(call(row[None]))[0], x, r) for r in R], 0) for x in X]
    )


@pytest.mark.parametrize("name", EXACT)
def test_equal_to_all_coalitions(name):
    with precision("float64"):
        model = EXACT[name]()
        if isinstance(model, keras.Model):
            draw_weights(model)
        X, R = rows(1, 1, 4), rows(2, 2, 4)
        found = deepshap.DeepExplainer(model, tf.constant(R), progress=False).shap_values(tf.constant(X))
        assert_close(found, exact_values(lambda row: model(tf.constant(row)), X, R))


def test_tokens_are_players():
    """Where the embeddings are only added up, a token's attribution is its Shapley value."""
    with precision("float64"):
        model = Sequential([keras.Input((4,), dtype="int32"), L.Embedding(9, 3), L.Flatten(), L.Dense(2)])
        draw_weights(model)
        X, R = (np.random.default_rng(seed).integers(0, 9, (number, 4)) for seed, number in ((1, 2), (2, 3)))
        found = deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
        assert_close(found, exact_values(lambda ids: model(np.asarray(ids, "int32")), X, R))


# ---------------------------------------------------------------------- symmetry, and features without influence
SYMMETRIC: Sequence[Callable[[Any], Any]] = (
    lambda x: tf.reduce_max(x, 1, keepdims=True),
    lambda x: tf.reduce_min(x, 1, keepdims=True),
    lambda x: tf.reduce_logsumexp(x, 1, keepdims=True),
    lambda x: tf.norm(x, axis=1, keepdims=True),
    lambda x: tf.math.reduce_std(x, 1, keepdims=True),
    lambda x: tf.reduce_prod(x, 1, keepdims=True),
    lambda x: tf.sort(x, 1),
    lambda x: tf.math.top_k(x, 2).values,
)


def test_the_order_of_the_features_does_not_matter():
    X, R, order = rows(2, 1, 4), rows(3, 2, 4), [2, 0, 3, 1]

    def all_of_them(x: Any) -> Any:
        return tf.concat([function(x) for function in SYMMETRIC], 1)

    def explained(X: Array, R: Array) -> Array:
        return deepshap.DeepExplainer(tf.function(all_of_them), R, progress=False).shap_values(X)

    assert_close(explained(X[:, order], R[:, order]), explained(X, R)[:, order])


def test_features_without_influence_get_exactly_zero():
    model = tf.function(lambda x: tf.tanh(x[:, :2] * x[:, 1:3]))
    found = deepshap.DeepExplainer(model, rows(3, 2, 4), progress=False).shap_values(rows(2, 1, 4))
    assert (found[:, 3] == 0).all()
    assert (found[:, :3] != 0).any((0, 2)).all()
