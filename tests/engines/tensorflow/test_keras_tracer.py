"""What the Keras engine says about memory: loops count as often as they turn, and a budget below one pair is an error."""

from __future__ import annotations

from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import Sequential
from keras import layers as L
from planning import profile
from tiers import mostly_wide

import deepshap
from deepshap import attribution
from deepshap.memory import Footprint

FEATURES, UNITS, FLOAT = 2, 3, 4


def lstm(steps: int, **options: Any) -> Any:
    """A recurrent model of sequences of one length."""
    return Sequential([keras.Input((steps, FEATURES)), L.LSTM(UNITS, **options)])


def by_hand(steps: int) -> Any:
    """A loop whose number of turns no shape and no option tells."""

    @tf.function
    def model(x: Any) -> Any:
        turns = tf.reduce_sum(tf.ones_like(x[0, :, 0]))  # a constant, but TensorFlow does not know it

        def step(t: Any, h: Any) -> Any:
            return t + 1, tf.tanh(h + x[:, 0])

        return tf.while_loop(lambda t, h: t < turns, step, [tf.zeros([]), tf.zeros_like(x[:, 0])])[1]

    return model


def nested(steps: int) -> Any:
    """A loop in every turn of a loop."""

    @tf.function
    def model(x: Any) -> Any:
        def outer(t: Any, h: Any) -> Any:
            return t + 1, tf.while_loop(lambda k, g: k < steps, lambda k, g: (k + 1, tf.sin(g) + x[:, t]), [0, h])[1]

        return tf.while_loop(lambda t, h: t < 2, outer, [0, x[:, 0]])[1]

    return model


def by_rows(steps: int) -> Any:
    """A loop in a map over rows, which runs on pairs from the start."""
    return tf.function(lambda x: tf.map_fn(lambda r: tf.scan(lambda h, z: tf.tanh(h + z), r)[-1], x))


def rows(number: int, steps: int) -> np.ndarray:
    """Draw sequences."""
    return np.random.default_rng(0).normal(size=(number, steps, FEATURES)).astype("float32")


def footprint(model: Any, steps: int) -> Footprint:
    """What the engine says that references, examples and pairs take."""
    explainer = deepshap.DeepExplainer(model, rows(2, steps), progress=False)
    return profile(explainer, rows(1, steps)).footprint


MODELS = {
    "LSTM": lstm,
    "sequences": lambda steps: lstm(steps, return_sequences=True),
    "turns that no shape tells": by_hand,
    "nested": nested,
    "map over rows": by_rows,
}


@pytest.mark.parametrize("name", mostly_wide(MODELS, {"LSTM", "nested"}))
def test_memory_grows_with_the_steps(name):
    few, more, most = (footprint(MODELS[name](steps), steps) for steps in (8, 16, 32))
    for a, b, c in zip(few, more, most, strict=True):
        assert c - b == pytest.approx(2 * (b - a))  # linear in the steps
    assert sum(more) - sum(few) > 0


def test_an_lstm_takes_at_least_what_it_must_keep():
    for steps in (8, 64):
        found = footprint(lstm(steps), steps)
        states = 2 * UNITS * FLOAT * steps  # h and c before each step
        inputs = FEATURES * FLOAT * steps
        assert found.example == found.reference >= states + inputs
        assert found.pair >= 2 * inputs  # the multipliers of the inputs, and of the list that the loop reads


@pytest.mark.wide
def test_chunks_shrink_as_sequences_grow():
    sizes = {}
    for steps in (16, 128):
        model, background = lstm(steps), rows(40, steps)
        explainer = deepshap.DeepExplainer(model, background, max_memory="100 KB", progress=False)
        with mock.patch.object(attribution, "chunks", wraps=attribution.chunks) as spied:
            values = explainer.shap_values(rows(3, steps))
        sizes[steps] = spied.call_args.args[1].rows
        whole = deepshap.DeepExplainer(model, background, progress=False).shap_values(rows(3, steps))
        np.testing.assert_allclose(values, whole, rtol=0, atol=1e-5 * np.abs(whole).max())
    assert sizes[16] > 4 * sizes[128] > 0


def test_a_budget_below_one_pair_is_an_error():
    explainer = deepshap.DeepExplainer(lstm(512), rows(2, 512), max_memory="16 KB", progress=False)
    with pytest.raises(
        deepshap.MemoryBudgetError, match=r"one pair of example and reference takes about .* max_memory"
    ):
        explainer.shap_values(rows(1, 512))
    assert deepshap.DeepExplainer(lstm(8), rows(2, 8), max_memory="16 KB", progress=False).shap_values(rows(1, 8)).any()
