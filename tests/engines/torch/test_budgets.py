"""What torch allocates during a call, as its own profiler counts it, stays within the budget."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import profile

import deepshap

BUDGET = 8 * 2**20


class LastStep(nn.Module):
    def __init__(self, layer: nn.Module, units: int):
        super().__init__()
        self.layer, self.read_out = layer, nn.Linear(units, 1)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.layer(x)
        return self.read_out((steps[0] if isinstance(steps, tuple) else steps)[:, -1])


LAYERS = {
    "lstm": lambda: LastStep(nn.LSTM(1, 32, batch_first=True), 32),
    "lstm of two layers, both ways": lambda: LastStep(nn.LSTM(1, 8, 2, batch_first=True, bidirectional=True), 16),
    "gru": lambda: LastStep(nn.GRU(1, 32, batch_first=True), 32),
    "dense": lambda: LastStep(nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh()), 32),
}


def peak(run) -> int:
    """The most bytes that are allocated at a time."""
    with profile(profile_memory=True) as found:
        run()
    events = found.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(itertools.accumulate(change for _, change in changes))


@pytest.mark.parametrize("name", LAYERS)
def test_allocations_stay_within_the_budget(name):
    torch.manual_seed(0)
    model, x, background = LAYERS[name]().eval(), torch.randn(1, 100, 1), torch.randn(300, 100, 1)

    def explain() -> None:
        deepshap.DeepExplainer(model, background, progress=False, max_memory=BUDGET).shap_values(x)

    explain()
    taken = peak(explain)
    assert BUDGET / 4 < taken <= BUDGET


def test_memory_that_torch_has_cached_counts_as_free(monkeypatch):
    """Else a call after a training loop would be cut into tiny chunks."""
    engine = deepshap.DeepExplainer(nn.Linear(2, 1), torch.zeros(1, 2), progress=False).engine
    monkeypatch.setattr(engine, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 60 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 20 * 2**30)
    assert engine.free_memory() == 43 * 2**30
