"""Elementwise rules in one compiled pass: the same as the plain rules, in any layout, and the same sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import deepshap
from deepshap.engines.torch import elementwise

FUNCTIONS = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid()}


class Rows(nn.Module):
    """Has the rows first, in the middle or last where the function is applied."""

    def __init__(self, function, axis):
        super().__init__()
        self.one, self.two, self.function, self.axis = nn.Linear(4, 6), nn.Linear(18, 3), function, axis

    def forward(self, x):  # (rows, 3, 4)
        hidden = self.one(x).movedim(0, self.axis)
        return self.two(self.function(hidden).movedim(self.axis, 0).flatten(1))


@pytest.fixture
def passes(monkeypatch):
    """Use kernels for the smallest job and in threads, and count what they run."""
    runs, original = [], elementwise._pass
    monkeypatch.setattr(elementwise, "THREADS_BEYOND", 0)
    monkeypatch.setattr(elementwise, "_pass", lambda *arguments: runs.append(arguments) or original(*arguments))

    def use(yes):
        monkeypatch.setattr(elementwise, "COMPILE_BEYOND", 0 if yes else np.inf)

    torch.set_num_threads(2)
    yield use, runs
    torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_pass_is_the_plain_rule(name, axis, dtype, passes):
    use, runs = passes
    torch.manual_seed(0)
    model = Rows(FUNCTIONS[name], axis).to(dtype)
    background, x = torch.randn(5, 3, 4, dtype=dtype), torch.randn(4, 3, 4, dtype=dtype)
    background[0] = x[0]  # no difference
    background[1] = x[1] + 1e-5  # hardly any
    found = {}
    for yes in (False, True):
        use(yes)
        found[yes] = deepshap.DeepExplainer(model, background).shap_values(x)
    assert len(runs) == 1
    rounding = 1e-13 if dtype == torch.float64 else 2e-6
    np.testing.assert_allclose(found[True], found[False], rtol=0, atol=rounding * np.abs(found[False]).max())


def test_other_functions_take_the_plain_rule(passes):
    use, runs = passes
    use(True)
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1), nn.Threshold(0.1, 0.0))
    deepshap.DeepExplainer(model, torch.randn(3, 3)).shap_values(torch.randn(2, 3))
    assert not runs


def test_only_enough_work_is_compiled_for(passes, monkeypatch):
    _, runs = passes
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    explainer, x = deepshap.DeepExplainer(model, torch.randn(5, 3)), torch.randn(2, 3)
    monkeypatch.setattr(elementwise, "_work", {})
    monkeypatch.setattr(elementwise, "COMPILE_BEYOND", 3 * 2 * 5 * 8)
    counts = []
    for _ in range(4):
        explainer.shap_values(x)
        counts.append(len(runs))
    assert counts == [0, 0, 1, 2]
