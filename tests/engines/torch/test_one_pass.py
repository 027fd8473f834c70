"""Elementwise rules in one compiled pass: the same as the plain rules, in any layout, and the same sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import deepshap
from deepshap.engines.torch import one_pass

FUNCTIONS = {
    "relu": nn.ReLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "softmax": nn.Softmax(1),  # with the rows before, and behind: the axis is moved to the end
    "log softmax": nn.LogSoftmax(1),
}


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
    runs, original = [], one_pass._run
    monkeypatch.setattr(one_pass, "THREADS_BEYOND", 0)
    monkeypatch.setattr(one_pass, "_run", lambda *given, **options: runs.append(given) or original(*given, **options))

    def use(yes):
        monkeypatch.setattr(one_pass, "COMPILE_BEYOND", 0 if yes else np.inf)

    torch.set_num_threads(2)
    yield use, runs
    torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("name", "axis"), [(n, a) for n in FUNCTIONS for a in (0, 1, 2) if "softmax" not in n or a != 1]
)
def test_one_pass_is_the_plain_rule(name, axis, dtype, passes):
    use, runs = passes
    torch.manual_seed(0)
    model = Rows(FUNCTIONS[name], axis).to(dtype)
    background, x = 3 * torch.randn(5, 3, 4, dtype=dtype), 3 * torch.randn(4, 3, 4, dtype=dtype)
    background[0] = x[0]  # no difference
    background[1] = x[1] + 1e-5  # hardly any
    found = {}
    for yes in (False, True):
        use(yes)
        found[yes] = deepshap.DeepExplainer(model, background).shap_values(x)
    assert len(runs) == 1
    rounding = 1e-13 if dtype == torch.float64 else 2e-6
    np.testing.assert_allclose(found[True], found[False], rtol=0, atol=rounding * np.abs(found[False]).max())


class Attention(nn.Module):
    """Softmax over logits of which a mask takes some away: for all rows alike, or where the input is low."""

    def __init__(self, mask, fill):
        super().__init__()
        self.query, self.key, self.mask, self.fill = nn.Linear(4, 4), nn.Linear(4, 4), mask, fill

    def forward(self, x):
        logits = self.query(x) @ self.key(x).mT
        mask = torch.ones(3, 3, dtype=torch.bool).triu(1) if self.mask == "causal" else x[:, None, :, 0] < -1
        return (torch.softmax(logits.masked_fill(mask, self.fill), -1) @ x).flatten(1)


@pytest.mark.parametrize("fill", [float("-inf"), -1e9, -3e38])
@pytest.mark.parametrize(("mask", "runs_at_all"), [("causal", True), ("by value", False)])
def test_masks(mask, runs_at_all, fill, passes):
    use, runs = passes
    torch.manual_seed(0)
    model = Attention(mask, fill)
    background, x = torch.randn(5, 3, 4), torch.randn(4, 3, 4)
    found = {}
    for yes in (False, True):
        use(yes)
        found[yes] = deepshap.DeepExplainer(model, background).shap_values(x)
    assert bool(runs) == runs_at_all
    np.testing.assert_allclose(found[True], found[False], rtol=0, atol=2e-6 * np.abs(found[False]).max())


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
    monkeypatch.setattr(one_pass, "_work", {})
    monkeypatch.setattr(one_pass, "COMPILE_BEYOND", 3 * 2 * 5 * 8)
    counts = []
    for _ in range(4):
        explainer.shap_values(x)
        counts.append(len(runs))
    assert counts == [0, 0, 1, 2]
