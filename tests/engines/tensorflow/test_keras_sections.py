"""Loops beside attention: XLA compiles these alone, which changes nothing of what is found."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close
from keras import layers as L
from keras_models import draw_weights
from tiers import mostly_wide

import deepshap
from deepshap.engines.tensorflow import attention, contributions
from deepshap.engines.tensorflow.graphs import ModelGraph, concrete
from deepshap.engines.tensorflow.sections import Section, divided

STEPS, FEATURES = 5, 3
X, R = (
    np.random.default_rng(seed).normal(size=(rows, STEPS, FEATURES)).astype("float32")
    for seed, rows in ((1, 2), (2, 4))
)


def states(layer=L.GRU, units=4):
    return layer(units, return_sequences=True)


def attended(x):
    return L.Attention()([x, x])


def by_hand(x):
    """A loop over plain tensors, without a list."""

    def run(v):
        return tf.while_loop(lambda k, _: k < 3, lambda k, h: (k + 1, tf.tanh(h * 0.5 + v[:, ::-1])), (0, v))[1]

    return L.Lambda(run, output_shape=(STEPS, 4))(L.Dense(4)(x))


def over_a_constant(x):
    """A loop that what is explained does not reach, beside one that it does."""
    made = tf.while_loop(lambda k, h: k < 3, lambda k, h: (k + 1, h * 1.5), (0, tf.ones((1, 1, 4))))[1]
    return L.Lambda(lambda v: v * made)(states()(x))


def twice(x):
    """Attention between two loops beside each other and a third one."""
    both = L.Bidirectional(states(L.LSTM, 2))(x)
    return states(L.SimpleRNN)(attended(both))


FORMS = {
    "gru": (lambda x: attended(states()(x)), 1),
    "both ways": (lambda x: attended(L.Bidirectional(states(L.LSTM, 2))(x)), 2),
    "one behind the other": (lambda x: attended(states(L.SimpleRNN)(states(L.LSTM)(x))), 2),
    "ahead of one": (twice, 3),
    "several heads, and a last state": (
        lambda x: L.MultiHeadAttention(2, 2)(s := states(L.LSTM)(x), s) + L.LSTM(4)(x)[:, None],
        2,
    ),
    "by hand": (lambda x: attended(by_hand(x)), 1),
    "over a constant": (lambda x: attended(over_a_constant(x)), 1),
}


def model_of(form, dtype="float32"):
    given = keras.Input((STEPS, FEATURES), dtype=dtype)
    made = keras.Model(given, L.Dense(2)(L.Flatten()(form(given))))
    draw_weights(made)
    return made


@pytest.fixture
def sections(monkeypatch):
    """The sections of each graph that was divided; functions are compiled after their second run."""
    found = []

    def spied(body):
        parts = divided(body)
        found.append(parts and [op for op in parts.operations if isinstance(op, Section)])
        return parts

    monkeypatch.setattr(contributions, "PAYS", 0.0)
    monkeypatch.setattr(contributions, "PARTS", 400)
    monkeypatch.setattr(contributions, "divided", spied)
    return found


def explained_often(model, **options):
    explainer = deepshap.DeepExplainer(model, R, progress=False, **options)
    with explainer.frozen():
        return [explainer(X) for _ in range(4)]


@pytest.mark.parametrize("name", mostly_wide(FORMS, {"ahead of one", "by hand"}))
def test_sections_find_what_the_whole_finds(name, sections, monkeypatch):
    form, count = FORMS[name]
    ran = []
    pulled = attention.Attention.pulled
    monkeypatch.setattr(attention.Attention, "pulled", lambda self, m: ran.append(self) or pulled(self, m))
    first, *others = explained_often(model_of(form))
    assert [len(found) for found in sections] == [count]
    assert ran  # by the kernel's way, in what was traced anew
    for explanation in others:
        assert_close(explanation.values, first.values, 1e-5)


def test_other_numbers_of_rows_take_the_same_sections(sections):
    model = model_of(FORMS["gru"][0])
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    rows = np.concatenate([X, X])
    with explainer.frozen():
        found = [explainer(rows).values for _ in range(4)]
        both = [explainer(X).values for _ in range(4)]
    assert len(sections) == 1
    for values in (*found, *both):
        assert_close(values[:2], found[0][:2], 1e-5)


@pytest.fixture
def whole(monkeypatch):
    """The functions that XLA would compile as a whole; compiling them takes ten seconds, and would tell nothing more."""
    found = []
    monkeypatch.setattr(contributions.Explained, "_whole", property(lambda self: found.append(self) or self._function))
    return found


def test_without_attention_xla_compiles_the_whole(sections, whole):
    explained_often(model_of(lambda x: L.Dense(3, activation="softmax")(states()(x))))
    assert len(whole) == 1
    assert sections == []


def test_of_little_attention_xla_compiles_the_whole(sections, whole, monkeypatch):
    monkeypatch.setattr(contributions, "PARTS", 401)  # 8 pairs, 2 outputs and 5 x 5 scores are 400
    explained_often(model_of(FORMS["gru"][0]))
    assert len(whole) == 1
    assert sections == []


def body_of(call, *shape):
    return ModelGraph(concrete(call, [tf.TensorSpec(shape, tf.float32)]), {}, []).body


@pytest.mark.parametrize("inside", [False, True])
def test_without_a_loop_of_its_own_nothing_is_divided(inside):
    """Loops within functions that it calls are no sections."""

    @tf.function
    def called(x):
        return tf.while_loop(lambda k, _: k < 2, lambda k, h: (k + 1, tf.sin(h)), (0, x))[1]

    assert divided(body_of(called if inside else tf.sin, None, 2)) is None


def test_what_lies_between_two_parts_of_a_section_belongs_to_it():
    """A list that two loops write to, with something between them."""

    def call(x):
        items = tf.TensorArray(tf.float32, 4, element_shape=x.shape, clear_after_read=False)
        _, items = tf.while_loop(lambda k, _: k < 2, lambda k, a: (k + 1, a.write(k, x)), (0, items))
        between = tf.sin(items.read(1))
        _, items = tf.while_loop(lambda k, _: k < 4, lambda k, a: (k + 1, a.write(k, between)), (2, items))
        return tf.cos(items.stack())

    parts = divided(body_of(call, None, 2))
    (section,) = [op for op in parts.operations if isinstance(op, Section)]
    inside = {op.type for op in section.body.operations}
    assert {"TensorListReserve", "TensorListGetItem", "Sin", "TensorListStack"} <= inside
    assert "Cos" not in inside
    assert [t.dtype for t in section.outputs] == [tf.float32]
    assert not any(t.dtype == tf.variant for t in section.inputs)


def test_loops_that_wait_for_each_other_stay_together_with_all():
    """Two lists, each that of two loops: the first needs the second's, and the other way round."""

    def turned(items, x):
        return tf.while_loop(lambda k, _: k < 2, lambda k, a: (k + 1, a.write(k, x)), (0, items))[1].stack()

    def call(x):
        one, two = (tf.TensorArray(tf.float32, 2, element_shape=x.shape) for _ in range(2))
        start = tf.reduce_sum(turned(one, x), 0), tf.reduce_sum(turned(two, x + 1), 0)
        return turned(two, start[0]) + turned(one, start[1])

    assert divided(body_of(call, None, 2)) is None
