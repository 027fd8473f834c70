"""Hostile cases of Keras: random models against the slow oracle, and models that are edited between two calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close
from keras import Sequential, ops
from keras import layers as L
from keras_models import draw_weights, functional, precision
from keras_oracle import Residual, slowly
from programs import WIDTH, Line, attributions, drawn_program
from programs import outputs as outputs_of
from tiers import mostly_wide

import deepshap

STEPS, FEATURES = 4, 3


def explainer_of(model: Any, background: Any) -> deepshap.DeepExplainer:
    return deepshap.DeepExplainer(model, background, progress=False)


# ---------------------------------------------------------------------- random programs
UNARY: dict[
    str, list[Callable[[], Callable[[Any], Any]]]
] = {  # made anew, since layers compute in the precision of their time
    "tanh": [lambda: L.Activation("tanh"), lambda: ops.tanh, lambda: L.Lambda(tf.tanh)],
    "sigmoid": [lambda: L.Activation("sigmoid"), lambda: ops.sigmoid, lambda: L.Lambda(lambda v: 1 / (1 + tf.exp(-v)))],
    "relu": [
        lambda: L.ReLU(),
        lambda: ops.relu,
        lambda: lambda v: ops.maximum(v, 0),
        lambda: L.Lambda(lambda v: tf.where(v > 0, v, tf.zeros_like(v))),
    ],
    "exp": [lambda: ops.exp, lambda: L.Lambda(tf.exp)],
}


def in_keras(line: Line, values: list[Any]) -> Any:
    """A line of a program on symbolic tensors."""
    a, b = (values[k] for k in line.of)
    if line.kind in UNARY:
        spellings = UNARY[line.kind]
        return spellings[line.spelling % len(spellings)]()(a * 0.5)
    match line.kind:
        case "product":
            return [
                lambda: a * b,
                lambda: L.Multiply()([a, b]),
                lambda: ops.einsum("ni,ni->ni", a, b),
                lambda: ops.multiply(b, a),
            ][line.spelling]()
        case "quotient":
            return a / (1 + b * b) if line.spelling % 2 else ops.divide(a, 1 + ops.square(b))
        case "sum":
            return a + 2 * b if line.spelling % 2 else L.Add()([a, b, b])
        case "joined":
            return L.Concatenate()([a[:, : WIDTH // 2], b[:, WIDTH // 2 :]])
        case "linear":
            layer = L.Dense(WIDTH, use_bias=False)
            found = layer(a)
            layer.set_weights([line.weight.T])
            return found
        case "softmax":
            return L.Softmax()(a) if line.spelling % 2 else ops.softmax(a, -1)
        case "norm":
            return L.LayerNormalization(epsilon=1e-2)(a)
        case "greatest":
            return b + (ops.max(a, 1, keepdims=True) if line.spelling % 2 else ops.amax(a, -1, True))
    return ops.flip(a, 1)


def program(lines: list[Line]) -> Any:
    """A functional model of the lines; its last two values are its output."""

    def run(x: Any) -> Any:
        values = [x]
        for line in lines:
            values.append(in_keras(line, values))
        return L.Concatenate()(values[-2:])

    return functional((WIDTH,), run)


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_equal_the_oracle(seed):
    random, lines = np.random.default_rng(seed), drawn_program(600 + seed)
    x, r = random.normal(size=(2, WIDTH)), random.normal(size=(2, WIDTH))
    x[0, 1], x[1, :2], r[1, 3] = r[0, 1], 0.5, 0.0
    with precision("float64"):
        explanation = explainer_of(program(lines), r)(x)
    for row, values, outputs in zip(x, explanation.values, explanation.outputs, strict=True):
        assert_close(values, np.mean([attributions(lines, row, other) for other in r], 0))
        assert_close(outputs, outputs_of(lines, row))


# ---------------------------------------------------------------------- random stacks
BENDS = ["tanh", "sigmoid", "relu", "linear"]
Chance = np.random.Generator


def recurrent(chance: Chance, **options: Any) -> Any:
    units, kind = int(chance.integers(1, 4)), chance.choice(3)
    if kind == 0:
        return L.GRU(units, reset_after=bool(chance.integers(2)), **options)
    return (L.SimpleRNN, L.LSTM)[kind - 1](units, **options)


def both_ways(chance: Chance) -> Any:
    return L.Bidirectional(
        recurrent(chance, return_sequences=True), merge_mode=str(chance.choice(["concat", "sum", "mul"]))
    )


LAYERS: list[Callable[[Chance, int], Any]] = [
    lambda chance, width: recurrent(chance, return_sequences=True),
    lambda chance, width: both_ways(chance),
    lambda chance, width: L.Dense(3, activation=str(chance.choice(BENDS))),
    lambda chance, width: L.Conv1D(
        int(chance.integers(1, 4)), 2, activation="relu", padding=str(chance.choice(["valid", "causal"]))
    ),
    lambda chance, width: L.LayerNormalization(epsilon=1e-2),
    lambda chance, width: Residual(L.Dense(width, activation=str(chance.choice(BENDS)))),
    lambda chance, width: L.Activation(str(chance.choice(BENDS))),
    lambda chance, width: L.Lambda(ops.exp),
    lambda chance, width: L.Attention(),
    lambda chance, width: L.MultiHeadAttention(
        1, int(chance.choice([1, 4])), use_bias=False
    ),  # Keras rounds other scales
]


def drawn_stack(chance: Chance) -> Any:
    """Three layers over a sequence, its end, and a head."""

    def run(x: Any) -> Any:
        for number in chance.choice(len(LAYERS), 3, replace=False):
            layer = LAYERS[number](chance, x.shape[-1])
            given = {L.MultiHeadAttention: (x, x), L.Attention: ([x, x],)}.get(type(layer), (x,))
            x = layer(*given)
        end = L.GlobalAveragePooling1D() if chance.integers(2) else recurrent(chance)
        return L.Dense(2, activation=str(chance.choice(BENDS)))(end(x))

    return functional((STEPS, FEATURES), run)


@pytest.mark.parametrize("seed", mostly_wide(range(10), range(4)))
def test_random_stacks_equal_the_oracle(seed):
    chance = np.random.default_rng(seed)
    with precision("float64"):
        model = drawn_stack(chance)
        draw_weights(model, seed)
        x, r = chance.normal(size=(2, STEPS, FEATURES)), chance.normal(size=(2, STEPS, FEATURES))
        x[0, 1], r[1, 0] = r[0, 1], 0
        explanation = explainer_of(model, r)(x)
    for row, values, outputs in zip(x, explanation.values, explanation.outputs, strict=True):
        pairs = [slowly(model, row, other) for other in r]
        assert_close(outputs, pairs[0][1].astype(float))
        assert_close(values, np.mean([found for found, _, _ in pairs], 0).astype(float))


# ---------------------------------------------------------------------- models that are edited between two calls
X, R = (
    np.random.default_rng(seed).normal(size=(rows, STEPS, FEATURES)).astype("float32")
    for seed, rows in ((1, 2), (2, 3))
)


def inner_model() -> Any:
    return Sequential([keras.Input((STEPS, FEATURES)), L.Dense(3, activation="tanh"), L.Dense(3, activation="relu")])


class Holder(keras.Model):
    """A model of one's own around another."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.head = inner, L.Dense(2)

    def call(self, x: Any) -> Any:
        return self.head(ops.tanh(self.inner(x))[:, -1])


AROUND: dict[str, Callable[[Any], Any]] = {
    "alone": lambda inner: inner,
    "in a stack": lambda inner: Sequential([keras.Input((STEPS, FEATURES)), inner, L.Flatten()]),
    "in a stack of a stack": lambda inner: Sequential([Sequential([inner, L.Activation("tanh")]), L.Flatten()]),
    "functional": lambda inner: functional((STEPS, FEATURES), lambda x: ops.tanh(inner(x)) + x),
    "subclassed": Holder,
    "a function": lambda inner: lambda x: tf.tanh(inner(x)) * 2,
    "a function of TensorFlow": lambda inner: tf.function(lambda x: tf.tanh(inner(x)) * 2),
}
EDITS: dict[str, Callable[[Any], Any]] = {
    "pop": lambda inner: inner.pop(),
    "add": lambda inner: inner.add(L.Dense(3, activation="sigmoid")),
    "pop and add": lambda inner: (inner.pop(), inner.add(L.Dense(3, activation="gelu"))),
    "a layer without weights": lambda inner: inner.add(L.Lambda(lambda x: x * x)),
}


@pytest.mark.parametrize("around", mostly_wide(AROUND, {"in a stack of a stack", "a function of TensorFlow"}))
def test_edited_models_are_explained_as_they_are(around):
    chance, inner = np.random.default_rng([*AROUND].index(around)), inner_model()
    model = AROUND[around](inner)
    explainer = explainer_of(model, R)
    explainer(X)
    for name in chance.choice(list(EDITS), 2, replace=False):
        EDITS[name](inner)
        found, outputs = explainer(X), np.asarray(model(X))
        assert_close(found.outputs, outputs, 1e-5)
        assert_close(explainer.expected_value, np.asarray(model(R)).mean(0), 1e-5)
        assert_close(found.values, explainer_of(model, R).shap_values(X), 1e-5)
        assert_close(found.values.sum((1, 2)), outputs - np.asarray(model(R)).mean(0), 1e-5)
