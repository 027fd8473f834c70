"""The formulas exist twice, for PyTorch and for TensorFlow; here they are held against each other."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import tensorflow as tf
import torch

import deepshap
from deepshap.engines.tensorflow import rules as of_keras
from deepshap.engines.tensorflow import secants as keras_secants
from deepshap.engines.torch import rules as of_torch
from deepshap.engines.torch import secants as torch_secants

FUNCTIONS = {
    "tanh": tf.tanh, "sigmoid": tf.sigmoid, "exp": tf.exp, "expm1": tf.math.expm1, "log": tf.math.log, "log1p": tf.math.log1p,
    "sqrt": tf.sqrt, "rsqrt": tf.math.rsqrt, "square": tf.square, "reciprocal": tf.math.reciprocal, "relu": tf.nn.relu,
}  # fmt: skip
POSITIVE = ("log", "log1p", "sqrt", "rsqrt", "reciprocal")


def pairs(positive: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of numbers: far apart, close, equal."""
    generator = np.random.default_rng(0)
    x = 3 * generator.normal(size=400)
    r = np.concatenate([3 * generator.normal(size=200), x[200:300] * (1 + 1e-9), x[300:]])
    return (np.abs(x) + 1e-3, np.abs(r) + 1e-3) if positive else (x, r)


def test_all_closed_forms_are_compared():
    functions = {name: f for name, f in vars(keras_secants).items() if inspect.isfunction(f)}
    defined = {name for name, f in functions.items() if len(inspect.signature(f).parameters) == 4}
    assert defined - {"guarded"} == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_secants_are_the_same(name):
    x, r = pairs(name in POSITIVE)
    values = [np.asarray(FUNCTIONS[name](v)) for v in (x, r)]
    given = x, r, *values
    found = np.asarray(getattr(keras_secants, name)(*map(tf.constant, given)))
    wanted = getattr(torch_secants, name)(*map(torch.tensor, given)).numpy()
    assert np.abs(found - wanted).max() <= 1e-13 * np.abs(wanted).max()


def test_weights_of_logsumexp_are_the_same():
    z, r = 5 * np.random.default_rng(1).normal(size=(2, 30, 7))
    totals = (np.log(np.exp(v).sum(-1, keepdims=True)) for v in (z, r))
    given = z, r, *totals
    found = np.asarray(of_keras.logsumexp_weights(*map(tf.constant, given)))
    wanted = of_torch.logsumexp_weights(*map(torch.tensor, given)).numpy()
    assert np.abs(found - wanted).max() <= 1e-13


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
