"""The curves of a Keras model whose outputs without an input are known."""

import keras
import numpy as np

import deepshap


def test_curves_of_a_linear_model():
    random = np.random.default_rng(0)
    x, background, weights = random.normal(size=(5, 3)), random.normal(size=(8, 3)), random.normal(size=(3, 1))
    model = keras.Sequential(
        [keras.Input((3,), dtype="float64"), keras.layers.Dense(1, use_bias=False, dtype="float64")]
    )
    model.set_weights([weights])
    found = deepshap.faithfulness(deepshap.DeepExplainer(model, background, progress=False), x)
    values = (x - background.mean(0)) * weights[:, 0]
    lost = np.sort(values, 1)[:, ::-1].cumsum(1)
    expected = np.column_stack([x @ weights, x @ weights - lost])
    np.testing.assert_allclose(found.deletion["highest first"], expected, atol=1e-9)
    np.testing.assert_allclose(found.agreement, 1)
