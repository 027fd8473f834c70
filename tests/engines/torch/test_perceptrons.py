"""Perceptrons: their values are those of loops over pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import extended
from torch import nn

import deepshap
from deepshap.kernels import jit_threshold

FUNCTIONS = {
    "relu": nn.ReLU(),
    "tanh": nn.Tanh(),
    "gelu": nn.GELU(),
    "leaky relu": nn.LeakyReLU(),
    "softmax": nn.Softmax(1),
}


def by_hand(model, x, r):
    """Contributions (rows, ..., outputs) of a sequence of layers, elementwise ones by quotients, pair by pair."""
    outputs = model(x).shape[1]
    total = np.zeros((*x.shape, outputs))
    for n in range(len(x)):
        for b in range(len(r)):
            sides, m = [x[n : n + 1], r[b : b + 1]], np.eye(outputs)
            seen = [sides]
            for layer in model:
                seen.append([layer(side) for side in seen[-1]])
            for k in range(len(model) - 1, -1, -1):
                if isinstance(model[k], nn.Linear):
                    m = m @ extended(model[k].weight)
                elif not isinstance(model[k], nn.Flatten):
                    (a, c), (y, z) = (map(extended, pair) for pair in (seen[k], seen[k + 1]))
                    m = m * ((y - z) / (a - c))
            difference = extended(sides[0] - sides[1]).reshape(-1)
            total[n] += (m * difference).T.reshape(total[n].shape) / len(r)
    return total


def perceptron(name, dtype=torch.float64):
    torch.manual_seed(0)
    own = FUNCTIONS[name]
    layers = [nn.Flatten(), nn.Linear(6, 7), own, nn.Linear(7, 5, bias=False), own, nn.Linear(5, 3)]
    return nn.Sequential(*layers).to(dtype), torch.randn(4, 2, 3, dtype=dtype), torch.randn(6, 2, 3, dtype=dtype)


@pytest.mark.parametrize("most", [10**6, 30], ids=["at once", "in windows"])
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "plain"])
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "softmax"])
def test_perceptrons(name, compiled, most, monkeypatch):
    monkeypatch.setattr(jit_threshold.PAIRS, "threshold", 0 if compiled else np.inf)
    monkeypatch.setattr("deepshap.explainer.MOST_PAIRS", most)
    model, x, background = perceptron(name)
    values = deepshap.DeepExplainer(model, background).shap_values(x)
    np.testing.assert_allclose(values, by_hand(model, x, background).astype(float), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "layers", [1, 2, 3, 7], ids=["nothing", "a layer", "a function behind it", "a function at the end"]
)
def test_parts_of_perceptrons(layers):
    whole, x, background = perceptron("tanh")
    model = nn.Sequential(*[*whole, nn.Sigmoid()][:layers])
    values = deepshap.DeepExplainer(model, background).shap_values(x)
    expected = by_hand(model, x, background).astype(float)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)


def test_in_float32(monkeypatch):
    monkeypatch.setattr(jit_threshold.PAIRS, "threshold", 0)
    model, x, background = perceptron("relu", torch.float32)
    values = deepshap.DeepExplainer(model, background).shap_values(x)
    np.testing.assert_allclose(values, by_hand(model, x, background).astype(float), rtol=0, atol=1e-6)


def test_steps_over_a_row():
    model, x, background = perceptron("softmax")
    values = deepshap.DeepExplainer(model, background).shap_values(x)
    plain = sum(deepshap.DeepExplainer(model, r[None]).shap_values(x) for r in background) / len(background)
    one_by_one = [deepshap.DeepExplainer(model, r[None]).shap_values(row[None])[0] for row in x for r in background]
    np.testing.assert_allclose(values, np.reshape(one_by_one, (4, 6, 2, 3, 3)).mean(1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(values, plain, rtol=0, atol=1e-12)


class Branches(nn.Module):
    """A layer before two others, which end in one: around the second by a connection, or each in a function of its own."""

    def __init__(self, around):
        super().__init__()
        self.one, self.two, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.around = around

    def forward(self, x):
        first = self.one(x)
        if self.around:
            hidden = torch.relu(first)
            return self.last(torch.relu(self.two(hidden)) + hidden)
        return self.last(torch.relu(first) + torch.tanh(first))

    def by_hand(self, x, r):
        """Of one pair."""
        w1, w2, w3 = (extended(layer.weight) for layer in (self.one, self.two, self.last))

        def slope(function, a, c):
            return extended(function(a) - function(c)) / extended(a - c)

        first = [self.one(side) for side in (x, r)]
        if self.around:
            second = [self.two(torch.relu(side)) for side in first]
            m = (w3 * slope(torch.relu, *second)) @ w2 + w3
            return ((m * slope(torch.relu, *first)) @ w1 * extended(x - r)).T
        slopes = slope(torch.relu, *first) + slope(torch.tanh, *first)
        return ((w3 * slopes) @ w1 * extended(x - r)).T


@pytest.mark.parametrize("around", [True, False])
def test_what_is_used_twice_goes_back_once(around):
    torch.manual_seed(0)
    model, x, background = Branches(around).double(), torch.randn(3, 6).double(), torch.randn(5, 6).double()
    values = deepshap.DeepExplainer(model, background).shap_values(x)
    expected = [[model.by_hand(row, r).astype(float) for r in background] for row in x]
    np.testing.assert_allclose(values, np.mean(expected, 1), rtol=0, atol=1e-12)


def test_inputs_that_are_written_to():
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x):
            x *= 2
            return self.two(torch.relu(self.one(x)))

    torch.manual_seed(0)
    model, x, background = Writing().double(), torch.randn(2, 3).double(), torch.randn(3, 3).double()
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    plain[0].weight.data, plain[0].bias.data = 2 * model.one.weight.data, model.one.bias.data
    plain[2].weight.data, plain[2].bias.data = model.two.weight.data, model.two.bias.data
    values = deepshap.DeepExplainer(model, background).shap_values(x)
    np.testing.assert_allclose(values, by_hand(plain, x, background).astype(float), rtol=0, atol=1e-12)


class OfWeights(nn.Module):
    """The input makes the weights, or the bias, of a layer whose rows are constants."""

    def __init__(self, what):
        super().__init__()
        self.what, self.layer, self.last = what, nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x):
        rows, weights, bias = x, self.layer.weight, self.layer.bias
        if self.what == "weights":
            rows, weights = torch.ones(1, 1, dtype=x.dtype), x.reshape(-1, 1)
            bias = None
        elif self.what == "bias":
            rows, bias = torch.ones(len(x), 3, dtype=x.dtype), torch.cat([x, x[:, :1]], 1)
        hidden = nn.functional.linear(rows, weights, bias)
        if self.what == "weights":
            hidden = torch.cat([hidden.reshape(x.shape), x[:, :1]], 1)
        return self.last(torch.tanh(hidden))


@pytest.mark.parametrize("what", ["weights", "bias"])
def test_what_only_looks_like_a_layer_of_rows(what):
    torch.manual_seed(0)
    model, x, background = OfWeights(what).double(), torch.randn(2, 3).double(), torch.randn(4, 3).double()
    values = deepshap.DeepExplainer(model, background).shap_values(x)
    gap = values.sum(1) - (model(x) - model(background).mean(0)).detach().numpy()
    assert np.abs(gap).max() < 1e-12


def test_weights_that_are_written_to_later():
    class Later(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 4, bias=False), nn.Linear(4, 1)

        def forward(self, x):
            weights = 2 * self.one.weight
            hidden = torch.tanh(nn.functional.linear(x, weights))
            weights.zero_()
            return self.two(hidden)

    torch.manual_seed(0)
    model, x, background = Later().double(), torch.randn(2, 3).double(), torch.randn(3, 3).double()
    values = deepshap.DeepExplainer(model, background).shap_values(x)
    model.one.weight.data *= 2
    plain = nn.Sequential(model.one, nn.Tanh(), model.two)
    np.testing.assert_allclose(values, by_hand(plain, x, background).astype(float), rtol=0, atol=1e-12)


def test_autocast_has_weights_of_its_own():
    """Rows may be as narrow as it makes weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

    def narrow(x):
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    background, x = torch.randn(4, 3).bfloat16(), torch.randn(2, 3).bfloat16()
    values = deepshap.DeepExplainer(narrow, background).shap_values(x)
    wide = deepshap.DeepExplainer(model, background.float()).shap_values(x.float())
    np.testing.assert_allclose(values, wide, rtol=0, atol=0.03 * np.abs(wide).max())
