"""The kernels for a GPU, run by Triton's interpreter on the CPU: ``test_triton.py`` runs this with TRITON_INTERPRET=1."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from helpers import assert_close, built, drawn, values
from models import KINDS, Chain, Last, Packed, Recurrent
from test_fused import OPTIONS, models, step_by_step
from test_oracle import DEEP, oracle_values
from torch import nn

from deepshap.engines.torch.recurrent import fused
from deepshap.kernels import steps_on_gpu

assert os.environ["TRITON_INTERPRET"] == "1"


@pytest.fixture
def interpreted(monkeypatch):
    """Use these kernels on the CPU, in programs so small that there are several, and count what they run."""
    runs, original = [], fused.run

    def run(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(fused, "_kernels_for", lambda _: steps_on_gpu)
            runs.append(arguments)
            return original(*arguments)

    monkeypatch.setattr(fused.THRESHOLD, "threshold", 0)
    monkeypatch.setattr(fused, "run", run)
    monkeypatch.setattr(steps_on_gpu, "TILE", 64)
    monkeypatch.setattr(steps_on_gpu, "WIDTH", 4)
    monkeypatch.setattr(steps_on_gpu, "REFERENCES", 2)
    monkeypatch.setattr(steps_on_gpu, "FEATURES", 2)
    return runs


@pytest.mark.parametrize("options", ["plain", "deep"])
@pytest.mark.parametrize("kind", KINDS)
def test_oracles(interpreted, kind, options):
    model = built(Recurrent(kind, "all", "computed", **OPTIONS[options]))
    X, R = drawn(1, 3, 3, seed=1), drawn(2, 3, 3, seed=2)
    wanted = np.mean([oracle_values(model, X[0], r) for r in R], 0)
    assert_close(values(model, X, R)[0], wanted)
    assert interpreted


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_step_by_step(interpreted, monkeypatch, kind, dtype, tolerance):
    model = models(kind, dtype)["input explained" if dtype == torch.float64 else "every step"]
    steps = 3 if dtype == torch.float64 else 7  # the layer behind every step takes 7
    X, R = drawn(2, steps, 3, seed=1).to(dtype), drawn(3, steps, 3, seed=2).to(dtype)
    wanted = step_by_step(monkeypatch, model, X, R)
    assert not interpreted
    assert_close(values(model, X, R), wanted, tolerance)
    assert interpreted


@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences(interpreted, monkeypatch, kind):
    model, lengths = built(Packed(kind, "output", **DEEP)), torch.tensor([2, 3, 1])
    X, R = drawn(3, 3, 3, seed=1), drawn(2, 3, 3, seed=2)
    wanted = step_by_step(monkeypatch, model, X, R, lengths)
    assert_close(values(model, X, R, lengths), wanted, 1e-12)
    assert interpreted


def test_saturated_and_equal_values(interpreted):
    layer = built(nn.LSTM(2, 2, batch_first=True))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(30)
    X = drawn(2, 4, 2, seed=1)
    R = torch.cat([X, X + 1e-9, X + 0.5, 1e3 * X])
    assert np.isfinite(values(Chain(layer, Last()), X, R)).all()
    assert not values(Chain(layer, Last()), X[:1], X[:1]).any()
    assert interpreted


def test_a_machine_on_which_triton_does_not_work(monkeypatch):
    device = torch.device("cpu")
    steps_on_gpu.works.cache_clear()
    assert steps_on_gpu.works(device)
    steps_on_gpu.works.cache_clear()
    monkeypatch.setattr(steps_on_gpu, "_nothing", None)
    with pytest.warns(
        UserWarning, match="Triton does not work on this machine .*: recurrent networks are explained without"
    ):
        assert not steps_on_gpu.works(device)
    assert not steps_on_gpu.works(device)  # says so once
    steps_on_gpu.works.cache_clear()
