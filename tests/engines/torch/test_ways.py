"""Points on ways, run once for both sides, are what they are as pairs of rows like any others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import deepshap
from deepshap.attribution import AttributionRequest, run
from deepshap.engines.api import Comparison
from deepshap.memory import plan_for
from deepshap.paths import Paths
from deepshap.players import players_of

STEPS, FEATURES = 6, 3
torch.manual_seed(0)
X, R = torch.randn(3, STEPS, FEATURES).double(), torch.randn(5, STEPS, FEATURES).double()


class Reader(nn.Module):
    def __init__(self, layer, width, last=True):
        super().__init__()
        self.layer, self.head, self.last = layer, nn.Linear(width, 2), last

    def forward(self, x):
        out = self.layer(x)
        out = out[0] if isinstance(out, tuple) else out
        return self.head(out[:, -1] if self.last else out.mean(1))


class Sorted(nn.Module):
    """Takes the rows in another order, as packing does, and back."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.GRU(FEATURES, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        order = torch.arange(len(x)).flip(0)
        return self.head(self.layer(x[order])[0][:, -1])[order]


class Merged(nn.Module):
    """Has no axis of its own for the rows in between."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(FEATURES, 4), nn.Linear(STEPS * 4, 2)

    def forward(self, x):
        return self.two(torch.tanh(self.one(x.reshape(-1, FEATURES))).reshape(len(x), -1))


def large(module):
    """Of a size at which kernels are compiled."""
    return Reader(module(FEATURES, 32, 2, batch_first=True, bidirectional=True), 64)


SHARING = {
    "LSTM": lambda: Reader(nn.LSTM(FEATURES, 4, batch_first=True), 4),
    "LSTM, kernels": lambda: large(nn.LSTM),
    "GRU, kernels": lambda: large(nn.GRU),
    "RNN": lambda: Reader(nn.RNN(FEATURES, 4, 2, batch_first=True), 4, last=False),
    "transformer": lambda: Reader(nn.TransformerEncoderLayer(FEATURES, 1, 8, 0.0, batch_first=True), FEATURES, False),
    "convolution": lambda: nn.Sequential(
        nn.Conv1d(STEPS, 4, 2), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(4, 2), nn.Softmax(-1)
    ),
    "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(18), nn.Linear(18, 5), nn.GELU(), nn.Linear(5, 2)),
    "rows and steps merged": Merged,
}
NOT_SHARING = {"sorted rows": Sorted}


def carried_out(model, rows_run=None, shares=True, memory=2**31):
    """Attributions by paths, the runs of the model's forward in between, and whether points were run once."""
    torch.manual_seed(1)
    explainer = deepshap.DeepExplainer(model.double().eval(), R, progress=False)
    engine = explainer.engine
    engine.shares = shares
    method = Paths(players_of("cells", [(STEPS, FEATURES)], [None], [None]), 4, 6)
    counted = [] if rows_run is None else rows_run
    handle = model.register_forward_pre_hook(lambda _, given: counted.append(len(given[0])))
    with engine.session():
        x, background = engine.read(X, None, explainer._background)
        every = lambda outputs, profile: np.tile([0, 1], (len(outputs), 1))  # noqa: E731
        found = run(engine, AttributionRequest(x, background, every, method=method, memory=memory, progress=False))
    handle.remove()
    return found.values[0], engine.shares


@pytest.mark.parametrize("name", {**SHARING, **NOT_SHARING})
def test_points_that_are_run_once_give_the_same(name):
    torch.manual_seed(2)
    model = {**SHARING, **NOT_SHARING}[name]()
    values, shared = carried_out(model)
    apart, _ = carried_out(model, shares=False)
    assert shared == (name in SHARING)
    np.testing.assert_allclose(values, apart, rtol=0, atol=1e-13 * np.abs(apart).max())


def test_every_point_is_run_once():
    model = SHARING["LSTM"]()
    once, twice = [], []
    carried_out(model, once)
    carried_out(model, twice, shares=False)
    pairs, segments = 3 * 6, 4
    inner = 2 * (segments - 1) * pairs  # at most: a block may be empty
    ends = 3 * pairs  # the reference, and the example at the end of either order
    saved = sum(twice) - sum(once)
    assert 0.7 * (inner - pairs) <= saved <= inner + ends


def test_memory_for_less_than_a_way():
    """Then points are rows beside rows again, a few at a time."""
    model = SHARING["LSTM"]()
    whole, _ = carried_out(model)
    explainer = deepshap.DeepExplainer(model, R)
    with explainer.engine.session():
        x, background = explainer.engine.read(X, None, explainer._background)
        footprint = explainer.engine.probe(x, background).footprint
    budget = 4 * sum(footprint)
    assert plan_for(footprint, 3, 5, budget).beside < 9
    few, _ = carried_out(model, memory=budget)
    np.testing.assert_allclose(few, whole, rtol=0, atol=1e-13 * np.abs(whole).max())


def test_a_point_beside_itself_gets_nothing():
    explainer = deepshap.DeepExplainer(SHARING["LSTM"]().double(), R)
    engine = explainer.engine
    with engine.session():
        x, background = engine.read(X, None, explainer._background)
        profile = engine.probe(x, background)
        plan = plan_for(profile.footprint, 3, 5)
        ways = Comparison.of_way(x, np.array([0, 0, 2]), np.zeros((3, 1), int))
        found = engine.contributions(ways, plan)
    assert engine.shares
    assert not found.values[0][0, [0, 2]].any()
    np.testing.assert_allclose(found.values[0][0, 1].sum(), found.outputs[1, 0] - found.outputs[0, 0], atol=1e-14)
