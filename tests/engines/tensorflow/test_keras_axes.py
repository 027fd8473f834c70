"""Products over axes of unknown size, against sums over all orders; axes that TensorFlow computes itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close

import deepshap
from deepshap.engines.tensorflow.axes import gauss_legendre
from deepshap.engines.tensorflow.graphs import emit, static_value


def aumann_shapley(x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Shares of the change of a product: the path integral, by the polynomial's coefficients in exact order."""
    n = len(x)
    shares = []
    for i in range(n):
        coefficients = np.array([1.0], np.longdouble)  # of the product of the others at r + t (x - r)
        for j in range(n):
            if j != i:
                coefficients = np.convolve(coefficients, np.array([r[j], x[j] - r[j]], np.longdouble))
        shares.append((x[i] - r[i]) * sum(c / (k + 1) for k, c in enumerate(coefficients)))
    return np.array(shares, float)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 15])
def test_a_product_over_an_axis_of_unknown_size(size):
    generator = np.random.default_rng(size)
    x, r = generator.normal(size=(2, 2, size + 1)), generator.normal(size=(1, 2, size + 1))
    x[0, 0, 0] = r[0, 0, 0] = 0.0  # a factor of 0 on both sides

    @tf.function
    def model(v):
        kept = tf.boolean_mask(v, [True] * size + [False], axis=2)
        assert kept.shape[2] is None
        return tf.reduce_prod(kept, 2)

    values = deepshap.DeepExplainer(model, r, progress=False).shap_values(x)
    for row, series, output in itertools.product(range(2), range(2), range(2)):
        wanted = aumann_shapley(x[row, series, :size], r[0, series, :size]) if series == output else np.zeros(size)
        assert_close(values[row, series, :size, output], wanted)
    assert not values[:, :, size].any()


@pytest.mark.parametrize("nodes", [1, 2, 7, 40])
def test_nodes_of_a_number_that_a_tensor_holds(nodes):
    positions, weights = np.polynomial.legendre.leggauss(nodes)
    found = tf.function(gauss_legendre, autograph=False)(tf.constant(nodes))
    assert_close(found[0].numpy(), (1 + positions) / 2, 1e-13)
    assert_close(found[1].numpy(), weights / 2, 1e-12)
    assert math.isclose(float(tf.reduce_sum(found[1])), 1, rel_tol=1e-13)


def test_what_depends_on_no_data_is_known_and_the_rest_is_not():
    found = {}

    @tf.function
    def model(x):
        axes = tf.constant([0, -1]) + tf.cast(tf.constant([0, -1]) >= 0, tf.int32)
        found["axes"], found["rank"] = static_value(axes), static_value(tf.rank(x) - 1)
        found["rows"], found["data"] = static_value(tf.shape(x)[0] + 1), static_value(tf.cast(x[0, 0], tf.int32) + 1)
        return x

    model.get_concrete_function(tf.TensorSpec([None, 2], tf.float32))
    assert found["axes"].tolist() == [1, -1]
    assert found["rank"] == 1
    assert found["rows"] is None
    assert found["data"] is None


def test_an_operation_of_integers_takes_numbers_on_either_side():
    graph = tf.function(tf.add).get_concrete_function(*[tf.TensorSpec([2], tf.int32)] * 2).graph
    (op,) = (op for op in graph.get_operations() if op.type == "AddV2")
    run = tf.function(lambda a, b: emit(op, [a, b], retyped=True)[0])
    whole, broken = tf.constant([1, 2]), tf.constant([0.5, 1.5])
    assert run(broken, whole).numpy().tolist() == run(whole, broken).numpy().tolist() == [1.5, 3.5]
