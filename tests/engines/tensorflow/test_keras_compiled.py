"""What XLA makes of the function that explains finds the same, and what it cannot compile stays as it is."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close
from keras import layers as L

import deepshap
from deepshap.engines.tensorflow import contributions

X, R = (np.random.default_rng(seed).normal(size=(rows, 4, 2)).astype("float32") for seed, rows in ((1, 2), (2, 3)))


@pytest.fixture
def compiled(monkeypatch):
    """The functions that were given to XLA; each is after its second run."""
    found, function = [], tf.function

    def spied(*arguments, jit_compile=None, **options):
        found.extend(arguments if jit_compile else ())
        return function(*arguments, jit_compile=jit_compile, **options)

    monkeypatch.setattr(tf, "function", spied)
    monkeypatch.setattr(contributions, "PAYS", 0.0)
    return found


def explained_often(model):
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    with explainer.frozen():
        return [explainer.shap_values(X) for _ in range(4)]


def test_a_compiled_loop_finds_the_same(compiled):
    first, *others = explained_often(keras.Sequential([keras.Input((4, 2)), L.LSTM(3), L.Dense(2)]))
    assert len(compiled) == 1
    for values in others:
        assert_close(values, first, 1e-5)


def test_what_cannot_be_compiled_stays_as_it_is(compiled):
    first, *others = explained_often(
        keras.Sequential([keras.Input((4, 2)), L.SimpleRNN(3), L.Lambda(tf.math.special.bessel_j0)])
    )
    assert len(compiled) == 1
    assert all(np.array_equal(values, first) for values in others)
