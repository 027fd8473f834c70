"""A method written by a user: the example of docs/architecture.md, on both engines."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import torch

import deepshap
from deepshap.sampling import WeightedComparison
from deepshap.sampling.players import parse_players

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
(CODE,) = re.findall(r"```python\n(.*?class InOrder.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
X1, X2 = np.random.default_rng(2).normal(size=(2, 4, 6))
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
    explanation = deepshap.DeepExplainer(model, array(R))(array(X), method=names["InOrder"]())
    assert explanation.method == "cells in their order"
    for cell in range(6):
        inside, outside = np.arange(6) <= cell, np.arange(6) < cell
        added = [function(np.where(inside, x, R)) - function(np.where(outside, x, R)) for x in X]
        assert np.abs(explanation.values[:, cell] - np.mean(added, 1)).max() < 1e-9


class Halves:
    """The comparison itself with a weight of its own, for players of its own."""

    description = "halves"

    def __init__(self, weight=1.0):
        self.weight, self.players = weight, parse_players("features", [(6,)], [0], [None])

    def pairs(self, comparison):
        return comparison.pairs

    def parts(self, comparison):
        count, weight = len(comparison.examples), self.weight / len(comparison.references)
        yield WeightedComparison(comparison, np.arange(count), np.full(count, weight))


def test_a_method_may_have_players():
    explainer = deepshap.DeepExplainer(of_torch, torch.tensor(X1), progress=False)
    found = explainer.shap_values(torch.tensor(X2), method=Halves())
    np.testing.assert_allclose(found, explainer.shap_values(torch.tensor(X2), players="features"), atol=1e-12)


def test_weights_that_do_not_add_up_are_told():
    explainer = deepshap.DeepExplainer(of_torch, torch.tensor(X1), progress=False)
    with pytest.raises(deepshap.AdditivityError, match=r"^the parts of the method \(halves\) sum to"):
        explainer.shap_values(torch.tensor(X2), method=Halves(0.7))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": Halves}, "Halves is a class"),
        ({"method": 3}, "int has no description, players"),
        ({"method": Halves(), "effort": 4}, "leave effort="),
        ({"method": Halves(), "players": "features"}, "leave effort="),
    ],
)
def test_what_is_no_method(options, match):
    explainer = deepshap.DeepExplainer(of_torch, torch.tensor(X1), progress=False)
    with pytest.raises(deepshap.InputError, match=match):
        explainer(torch.tensor(X2), **options)
