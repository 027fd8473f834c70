"""Keras models under KERAS_BACKEND=torch are explained by the PyTorch engine, exactly and on the same cases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from keras_checks import TOLERANCE
from keras_models import CASES

pytestmark = [pytest.mark.slow, pytest.mark.long]

HERE = Path(__file__).parents[2] / "support"
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every_case
def test_a_model_under_torch_is_explained(case, models_under_torch):
    found = models_under_torch[case.name]
    assert not found.error
    assert found.gap <= TOLERANCE[case.widest]
    assert found.gap32 <= 1e-4
    assert found.nothing == 0
    assert not found.changed


def run(code: str, backend: str = "torch") -> str:
    """Run a program under a backend of Keras; return what it prints."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(HERE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


AS_USERS_TYPE_IT = """
import keras, numpy as np, pytest, shap, torch
from keras import layers as L
import deepshap

rng = np.random.default_rng(0)
series, names, static = rng.normal(size=(6, 4, 3)).astype("float32"), list("abc"), rng.normal(size=(6, 2)).astype("float32")
model = keras.Sequential([keras.Input((4, 3)), L.LSTM(5, name="memory"), L.Dropout(0.5), L.Dense(2, name="head")])

# results, names and the model's layers
explainer = deepshap.DeepExplainer(model, series, feature_names=names, output_names=["no", "yes"], progress=False)
explanation = explainer(series[:3])
assert explanation.values.shape == (3, 4, 3, 2) and explanation.base_values.shape == (3, 2)
assert np.abs(explanation.values.sum((1, 2)) + explanation.base_values - model.predict(series[:3], verbose=0)).max() < 1e-5
assert np.allclose(explainer.expected_value, model.predict(series, verbose=0).mean(0), atol=1e-6)
ranked, indexes = explainer.shap_values(series[:3], ranked_outputs=1)
assert ranked.shape == (3, 4, 3, 1) and indexes.shape == (3, 1)
assert {"", "memory", "memory.lstm_cell", "dropout", "head"} <= set(explainer.layer_names.values())

# shap's form, patched
with deepshap.patch_shap():
    assert np.allclose(shap.DeepExplainer(model, series).shap_values(series[:3]), explanation.values, atol=1e-6)

# an inner layer, and a handler
inner = deepshap.DeepExplainer((model, model.get_layer("head")), series, progress=False)
assert inner.shap_values(series[:3]).shape == (3, 5, 2)
explainer.register_custom_handler("head", lambda call: call.multipliers[0] @ call.module.kernel.value.T)
assert np.allclose(explainer.shap_values(series[:3]), explanation.values, atol=1e-6)
explainer.register_custom_handler(L.Dense, lambda call: 2 * call.multipliers[0] @ call.module.kernel.value.T)
explainer.unregister_custom_handler("head")
with pytest.raises(deepshap.AdditivityError, match="of layer 'head'"):
    explainer.shap_values(series[:3])

# several inputs: a list, a dict, lengths beside them, arguments of their own
def two(one, other):
    return L.Dense(2)(L.Concatenate()([L.GRU(3)(one), other]))

inputs = [keras.Input((4, 3), name="series"), keras.Input((2,), name="static")]
both = keras.Model(inputs, two(*inputs))
as_list = deepshap.DeepExplainer(both, [series, static], progress=False).shap_values([series, static])
as_dict = deepshap.DeepExplainer(both, {"series": series, "static": static}, progress=False).shap_values(
    {"series": series, "static": static})
assert [v.shape for v in as_list] == [(6, 4, 3, 2), (6, 2, 2)]
assert all(np.allclose(a, as_dict[name]) for name, a in zip(("series", "static"), as_list))
beside = deepshap.DeepExplainer(both, series, progress=False).shap_values(series, additional_forward_args=static)
assert beside.shape == (6, 4, 3, 2)

class Apart(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = both
    def call(self, series, static):
        return self.inner([series, static])

apart = deepshap.DeepExplainer(Apart(), [series, static], progress=False).shap_values([series, static])
assert all(np.allclose(a, b) for a, b in zip(apart, as_list))

# a function around a model; the state of a layer that goes on belongs to the rows of another batch
wrapped = deepshap.DeepExplainer(lambda x: model(x)[:, 1], series, progress=False).shap_values(series[:3])
assert np.allclose(wrapped, explanation.values[..., 1], atol=1e-6)
stateful = keras.Sequential([keras.Input(batch_shape=(6, 4, 3)), L.LSTM(3, stateful=True)])
stateful(series)
with pytest.raises(deepshap.InputError, match=r"reset_state\\(\\)"):
    deepshap.DeepExplainer(stateful, series, progress=False).shap_values(series)
stateful.layers[0].reset_state()
assert deepshap.DeepExplainer(stateful, series, progress=False).shap_values(series).shape == (6, 4, 3, 3)
assert stateful.layers[0].stateful and not any(np.any(s.value.numpy(force=True)) for s in stateful.layers[0].states)

# Keras' own float64 computes products in float32 under torch
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
double = keras.Sequential([keras.Input((4, 3)), L.SimpleRNN(5), L.Dense(2)])
values = deepshap.DeepExplainer(double, series.astype("float64"), progress=False).shap_values(series.astype("float64"))
assert values.dtype == np.float64
assert "tensorflow" not in __import__("sys").modules
print("done")
"""


def test_what_users_type_works_under_torch():
    assert run(AS_USERS_TYPE_IT).strip() == "done"
