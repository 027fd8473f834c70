"""What XLA makes of the function that explains finds the same; models that XLA compiles are explained like plain ones."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close
from keras import layers as L
from keras_models import draw_weights
from planning import profile
from tiers import mostly_wide

import deepshap
from deepshap.engines.tensorflow import backward, engine
from deepshap.engines.tensorflow.pairing import Unpaired

X, R = (np.random.default_rng(seed).normal(size=(rows, 4, 2)).astype("float32") for seed, rows in ((1, 2), (2, 3)))


@pytest.fixture
def compiled(monkeypatch):
    """The functions that were given to XLA; each is after its second run."""
    found, function = [], tf.function

    def spied(*arguments, jit_compile=None, **options):
        found.extend(arguments if jit_compile else ())
        return function(*arguments, jit_compile=jit_compile, **options)

    monkeypatch.setattr(tf, "function", spied)
    monkeypatch.setattr(backward, "PAYS", 0.0)
    return found


def explained_often(model, times=4):
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    with explainer.frozen():
        return [explainer.shap_values(X) for _ in range(times)]


def test_a_compiled_loop_finds_the_same(compiled):
    first, *others = explained_often(keras.Sequential([keras.Input((4, 2)), L.LSTM(3), L.Dense(2)]))
    assert len(compiled) == 1
    for values in others:
        assert_close(values, first, 1e-5)


@pytest.mark.parametrize(
    "dot",
    mostly_wide([L.Attention, lambda: L.Dot((2, 2)), lambda: L.Dot((1, 1))], {L.Attention}),
    ids=["attention", "k^T", "q^T"],
)
def test_products_and_softmax_behind_a_loop_are_those_of_all_pairs(dot, compiled, monkeypatch):
    def model():
        given = keras.Input((4, 2))
        states = L.GRU(3, return_sequences=True)(given)
        both = [states, L.Activation("tanh")(states)]
        made = keras.Model(given, L.Dense(2)(L.Flatten()(L.Softmax()(dot()(both)))))
        draw_weights(made)
        return made

    found = explained_often(model())
    assert len(compiled) == 1
    explained = backward.ExplanationFunction

    def on_pairs(graph, analysis, options):
        if options.pairing == backward.ALL_PAIRS:
            raise Unpaired
        return explained(graph, analysis, options)

    monkeypatch.setattr(backward, "ExplanationFunction", on_pairs)
    expected, *_ = explained_often(model())
    assert len(compiled) == 1
    for values in found:
        assert_close(values, expected, 1e-5)


def test_chunks_leave_room_for_what_is_compiled(compiled, monkeypatch):
    """In a budget for all pairs as they are, and not for all of them compiled."""
    monkeypatch.setattr(engine, "COMPILER", 10_000)
    monkeypatch.setattr(backward, "COMPILER", 10_000)
    model = keras.Sequential([keras.Input((4, 2)), L.SimpleRNN(3), L.Dense(2)])
    rows, references = (np.random.default_rng(seed).normal(size=(60, 4, 2)).astype("float32") for seed in (1, 2))
    explainer = deepshap.DeepExplainer(model, references, progress=False)
    footprint = profile(explainer, rows).footprint
    needed = 60 * (footprint.reference + footprint.example + 60 * footprint.pair)
    whole = explainer.shap_values(rows)
    assert compiled == []  # of the first run of each size
    explainer.max_memory = int(1.5 * needed) + 10_000
    with explainer.frozen():
        for _ in range(3):
            assert_close(explainer.shap_values(rows), whole, 1e-5)
    assert len(compiled) == 1


def test_what_cannot_be_compiled_stays_as_it_is(compiled):
    first, *others = explained_often(
        keras.Sequential([keras.Input((4, 2)), L.SimpleRNN(3), L.Lambda(tf.math.special.bessel_j0)])
    )
    assert len(compiled) == 1
    assert all(np.array_equal(values, first) for values in others)


@pytest.mark.parametrize("axis", mostly_wide([1, 2], {2}))
def test_what_is_sorted_behind_a_loop_is_compiled(axis, compiled):
    """A slice in a loop has a width that XLA does not know, and may take for that of the whole."""
    given = keras.Input((4, 2))
    states = L.LSTM(8, return_sequences=True)(given)
    model = keras.Model(given, L.Dense(2)(L.Flatten()(L.Lambda(lambda v: tf.sort(v, axis))(states))))
    draw_weights(model)
    first, *others = explained_often(model, 6)  # float64, which mends what does not add up, is compiled too by then
    assert_close(others[-1], first, 1e-5)
    assert len(compiled) == 1
    assert not np.array_equal(others[-1], first)  # by what was compiled


def test_what_xla_computes_wrongly_stays_as_it_is(compiled, monkeypatch):
    wrong = property(lambda self: lambda *given: [1.01 * v for v in self._function(*given)])
    monkeypatch.setattr(backward.ExplanationFunction, "_by_xla", wrong)
    first, *others = explained_often(keras.Sequential([keras.Input((4, 2)), L.LSTM(3), L.Dense(2)]))
    assert all(np.array_equal(values, first) for values in others)


# ---------------------------------------------------------------------- models with XLA inside
class Part(L.Layer):
    """A layer that compiles its own call, or does not."""

    def __init__(self, jit):
        super().__init__()
        self.dense = L.Dense(3)
        self.run = tf.function(lambda x: tf.tanh(self.dense(x)), jit_compile=jit)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.run(x)


def network(*layers):
    found = keras.Sequential([keras.Input((4, 2)), *layers, L.SimpleRNN(3), L.Dense(2)])
    draw_weights(found)
    return found


def inside(jit):
    model = network()
    first = tf.function(lambda x: x * tf.tanh(x), jit_compile=jit)
    last = tf.function(lambda x: tf.nn.softmax(model(first(x)) + 1.0), jit_compile=jit)
    return lambda x: 2 * last(x)


def loop(jit):
    def run(x):
        h = tf.zeros_like(x[:, 0])
        for t in tf.range(4):
            h = tf.tanh(h + x[:, t])
        return h

    return tf.function(run, jit_compile=jit)


def fitted(jit):
    model = network()
    model.compile("sgd", "mse", jit_compile=jit)
    model.fit(X, np.ones((2, 2), "float32"), verbose=0)
    return model


MODELS = {"parts": inside, "a layer": lambda jit: network(Part(jit)), "a loop": loop, "fitted": fitted}


@pytest.mark.parametrize("name", mostly_wide(MODELS, {"a layer", "a loop"}))
def test_models_that_xla_compiles_are_explained_like_plain_ones(name):
    model = MODELS[name](True)
    found = deepshap.DeepExplainer(model, R, progress=False)(X)
    plain = deepshap.DeepExplainer(MODELS[name](False), R, progress=False)(X)
    assert_close(found.outputs, np.asarray(model(X)), 1e-5)
    assert_close(found.values, plain.values, 1e-4)
