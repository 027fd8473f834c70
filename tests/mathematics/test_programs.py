"""Programs in both frameworks have the same attributions."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import torch

import deepshap

PROGRAMS = {
    "product": lambda m, x: x[:, :3] * x[:, 3:],
    "quotient": lambda m, x: x[:, :3] / (m.exp(x[:, 3:])),
    "maximum": lambda m, x: m.maximum(x[:, :3], x[:, 3:]),
    "where": lambda m, x: m.where(x[:, :3] > 0, x[:, 3:], m.sin(x[:, :3])),
    "abs, erf": lambda m, x: m.abs(x) * (m.math.erf(x) if m is tf else m.erf(x)),
    "softmax": lambda m, x: m.nn.softmax(x) if m is tf else m.softmax(x, -1),
    "log_softmax": lambda m, x: m.nn.log_softmax(x) if m is tf else m.log_softmax(x, -1),
    "max": lambda m, x: m.reduce_max(x, -1, keepdims=True) if m is tf else m.amax(x, -1, keepdim=True),
    "product over an axis": lambda m, x: (
        m.reduce_prod(x, -1, keepdims=True) if m is tf else m.prod(x, -1, keepdim=True)
    ),
    "top three": lambda m, x: m.nn.top_k(x, 3).values if m is tf else m.topk(x, 3)[0],
    "running product": lambda m, x: m.math.cumprod(x, 1) if m is tf else m.cumprod(x, 1),
    "power": lambda m, x: m.pow(m.exp(x[:, :3]), x[:, 3:]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_have_the_same_attributions(name):
    program = PROGRAMS[name]
    X, R = np.random.default_rng(2).normal(size=(3, 6)), np.random.default_rng(3).normal(size=(4, 6))
    found = deepshap.DeepExplainer(lambda x: program(tf, x), tf.constant(R), progress=False).shap_values(tf.constant(X))
    wanted = deepshap.DeepExplainer(lambda x: program(torch, x), torch.tensor(R), progress=False).shap_values(
        torch.tensor(X)
    )
    assert np.abs(found - wanted).max() <= 1e-9 * np.abs(wanted).max()
