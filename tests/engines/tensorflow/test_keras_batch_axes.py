"""Where rows lie: parts of space that become rows, and come back, keep examples and references apart."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close

import deepshap
from deepshap.engines.tensorflow import backward

X, R = (np.random.default_rng(seed).normal(size=(rows, 6, 2)) for seed, rows in ((1, 3), (2, 4)))


def in_rows(function, *blocks, loop=False):
    """A function of parts of a series, which are rows of their own meanwhile; a loop makes nothing else of the sum."""

    def run(x):
        for block in blocks:
            x = tf.space_to_batch_nd(x, [block], [[0, 0]])
        x = function(x)
        for block in reversed(blocks):
            x = tf.batch_to_space(x, [block], [[0, 0]])
        y = tf.reduce_sum(x, [1, 2])
        return tf.while_loop(lambda k, _: k < 1, lambda k, y: (k + 1, -y), (tf.constant(0), -y))[1] if loop else y

    return run


@pytest.fixture
def apart(monkeypatch):
    """How the functions that explain lay out the sides."""
    found, original = [], backward.ExplanationFunction.__init__

    def noted(self, *given):
        original(self, *given)
        found.append(self.options.pairing)

    monkeypatch.setattr(backward.ExplanationFunction, "__init__", noted)
    return found


@pytest.mark.parametrize("loop", [False, True], ids=["without a loop", "beside one, for XLA"])
@pytest.mark.parametrize("blocks", [(2,), (2, 3)], ids=str)
def test_parts_of_space_as_rows(blocks, loop, apart):
    values = deepshap.DeepExplainer(in_rows(tf.tanh, *blocks, loop=loop), R, progress=False).shap_values(X)
    expected = (np.tanh(X)[:, None] - np.tanh(R)[None]).mean(1)  # every number by itself
    assert_close(values, expected, 1e-12)
    assert apart == [backward.ALL_PAIRS]


def test_parts_that_come_back_in_another_order_are_explained_on_all_pairs(apart):
    def run(x):
        x = tf.tanh(tf.space_to_batch_nd(x, [2], [[0, 0]]))  # (2 rows, 3, 2)
        x = tf.transpose(tf.reshape(x, [2, -1, 3, 2]), [1, 2, 0, 3])
        return tf.reduce_sum(x, [1, 2, 3])

    values = deepshap.DeepExplainer(run, R, progress=False).shap_values(X)
    assert_close(values, (np.tanh(X)[:, None] - np.tanh(R)[None]).mean(1), 1e-12)
    assert apart == [backward.BROADCAST]
