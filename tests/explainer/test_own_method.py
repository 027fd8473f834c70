"""A method written by a user of the interface: the one of docs/architecture.md, on both engines."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import torch

import deepshap
from deepshap import execution

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
(CODE,) = re.findall(r"```python\n(.*?class InOrder.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
WEIGHTS = np.random.default_rng(0).normal(size=(6, 4))


def function(x):
    """Products of cells, so that their order matters."""
    return np.tanh(x @ WEIGHTS[:, :2]) * (x @ WEIGHTS[:, 2:])


def of_torch(x):
    weights = torch.tensor(WEIGHTS)
    return torch.tanh(x @ weights[:, :2]) * (x @ weights[:, 2:])


def of_tensorflow(x):
    return tf.tanh(x @ WEIGHTS[:, :2]) * (x @ WEIGHTS[:, 2:])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("model", "array"),
    [(of_torch, torch.tensor), (tf.function(of_tensorflow), tf.constant)],
    ids=["torch", "TensorFlow"],
)
def test_what_each_cell_adds_to_the_output(model, array):
    names: dict = {}
    exec(CODE, names)
    random = np.random.default_rng(1)
    X, R = random.normal(size=(3, 6)), random.normal(size=(4, 6))
    engine = deepshap.DeepExplainer(model, array(R)).engine
    with engine.session():
        examples, references = engine.read(array(X), None, engine.read_background(array(R)))
        every = np.tile(np.arange(2), (3, 1))
        arguments = examples, references, lambda outputs, profile: every, execution.Settings(progress=False)
        outcome = execution.run(engine, lambda profile: names["InOrder"](), *arguments)
    for cell in range(6):
        inside, outside = np.arange(6) <= cell, np.arange(6) < cell
        added = [function(np.where(inside, x, R)) - function(np.where(outside, x, R)) for x in X]
        assert np.abs(outcome.values[0][:, cell] - np.mean(added, 1)).max() < 1e-9
