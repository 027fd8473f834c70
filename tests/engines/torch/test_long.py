"""Long sequences: errors do not compound over time steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import TOLERANCE, drawn
from models import Chain, Last
from tiers import mostly_wide
from torch import nn

import deepshap

STEPS = 1000


@pytest.mark.parametrize("dtype", mostly_wide(TOLERANCE, {torch.float64}), ids=str)
@pytest.mark.parametrize(
    ("layer", "steps"), [(nn.GRU, STEPS), pytest.param(nn.LSTM, 3 * STEPS, marks=pytest.mark.wide)]
)
def test_thousands_of_steps(layer, steps, dtype):
    torch.manual_seed(0)
    model = Chain(layer(2, 6, batch_first=True, bidirectional=True), Last(), nn.Linear(12, 1)).to(dtype)
    X, R = drawn(2, steps, 2, seed=1).to(dtype), drawn(2, steps, 2, seed=2).to(dtype)
    values = deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    with torch.no_grad():
        outputs, expected = model(X).double().numpy(), model(R).double().numpy()
    gap = np.abs(values.sum((1, 2), dtype=np.float64) - (outputs - expected.mean(0)))
    assert gap.max() <= TOLERANCE[dtype] * max(np.abs(outputs).max(), np.abs(expected).max())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_thousand_steps_with_memory_of_the_first(dtype):
    """Forget gates wide open: the first step matters as much as the last."""
    torch.manual_seed(0)
    layer = nn.LSTM(1, 4, batch_first=True)
    with torch.no_grad():
        for weight in (layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0):
            weight.zero_()
        layer.bias_ih_l0[4:8] = 12.0
    X, R = drawn(1, STEPS, 1, seed=1).to(dtype).abs() * 0.01, drawn(1, STEPS, 1, seed=2).to(dtype) * 0.001
    model = Chain(layer, Last()).to(dtype)
    values = deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    with torch.no_grad():
        output, expected = model(X).double().numpy(), model(R).double().numpy()
    gap = np.abs(values.sum((1, 2), dtype=np.float64) - (output - expected))
    assert gap.max() <= TOLERANCE[dtype] * np.abs(output).max()
    early, late = (np.abs(values[0, at]).mean() for at in (slice(0, 100), slice(STEPS - 100, STEPS)))
    assert early > late / 10
