"""The compiled kernels of recurrent networks: against the oracles, against torch written out step by step, and when they run."""

from __future__ import annotations

import sys

import numba
import numpy as np
import psutil
import pytest
import torch
from helpers import assert_close, built, drawn, values
from models import KINDS, Chain, Last, Packed, Recurrent
from test_oracle import DEEP, oracle_values
from torch import nn

import deepshap
from deepshap.engines.torch import _compat
from deepshap.engines.torch.recurrent import Weights, cells, fused
from deepshap.kernels import steps

OPTIONS = {"plain": {}, "without bias": {"bias": False}, "bidirectional": {"bidirectional": True}, "deep": DEEP}


@pytest.fixture
def compiled(monkeypatch):
    """Use kernels for the smallest job, and count what they run."""
    runs, threads = [], torch.get_num_threads()
    original = fused.run
    torch.set_num_threads(2)
    monkeypatch.setattr(fused.THRESHOLD, "threshold", 0)
    monkeypatch.setattr(fused, "run", lambda *arguments: runs.append(arguments) or original(*arguments))
    yield runs
    torch.set_num_threads(threads)


def step_by_step(monkeypatch, model, X, R, *args):
    """Explain without kernels."""
    with monkeypatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        return values(model, X, R, *args)


@pytest.mark.parametrize("start", ["zeros", "computed"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_oracles(compiled, kind, options, start):
    model = built(Recurrent(kind, "all", start, **options))
    X, R = drawn(1, 4, 3, seed=1), drawn(2, 4, 3, seed=2)
    wanted = np.mean([oracle_values(model, X[0], r) for r in R], 0)
    assert_close(values(model, X, R)[0], wanted)
    assert compiled


def models(kind: str, dtype: torch.dtype) -> dict[str, nn.Module]:
    """Networks that differ in what becomes of their input and of their output."""
    torch.manual_seed(0)
    layer, own = KINDS[kind]
    deep = {"num_layers": 2, "bidirectional": True, **own}
    parts = {
        "input explained": [layer(3, 6, batch_first=True, **deep), Last(), nn.Linear(12, 3)],
        "behind a layer": [nn.Linear(3, 4), nn.Tanh(), layer(4, 6, batch_first=True, **deep), Last(), nn.Linear(12, 3)],
        "every step": [layer(3, 6, batch_first=True, **deep), nn.Flatten(), nn.Linear(7 * 12, 2)],
    }
    return {name: Chain(*part).to(dtype) for name, part in parts.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=str)
@pytest.mark.parametrize("use", models("LSTM", torch.float32))
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_step_by_step(compiled, monkeypatch, kind, use, dtype, tolerance):
    """Many blocks, of several examples and references each."""
    model = models(kind, dtype)[use]
    X, R = drawn(19, 7, 3, seed=1).to(dtype), drawn(31, 7, 3, seed=2).to(dtype)
    wanted = step_by_step(monkeypatch, model, X, R)
    assert not compiled
    monkeypatch.setattr(fused, "BLOCK_BYTES", 4 * 6 * 8 * 50)
    monkeypatch.setattr(fused, "THREADS_BEYOND", 0)
    assert_close(values(model, X, R), wanted, tolerance)
    assert compiled


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_one_kernel_takes_any_number_of_units(compiled, monkeypatch, kind, outputs):
    original, (layer, own) = steps.kernel_of, KINDS[kind]
    monkeypatch.setattr(steps, "kernel_of", lambda cell, _: original(cell, 0))
    X, R = drawn(4, 7, 3, seed=1), drawn(5, 7, 3, seed=2)
    for units in (1, 6, 9):
        model = built(Chain(layer(3, units, num_layers=2, batch_first=True, **own), Last(), nn.Linear(units, outputs)))
        wanted = step_by_step(monkeypatch, model, X, R)
        assert_close(values(model, X, R), wanted, 1e-12)
    assert len(compiled) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences(compiled, monkeypatch, kind):
    model, lengths = built(Packed(kind, "output", **DEEP)), torch.tensor([2, 4, 1, 3, 4])
    X, R = drawn(5, 4, 3, seed=1), drawn(6, 4, 3, seed=2)
    wanted = step_by_step(monkeypatch, model, X, R, lengths)
    assert_close(values(model, X, R, lengths), wanted, 1e-12)
    assert compiled


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", ["their ends", "no step", "their ends and the state"])
def test_pairs_begin_where_something_reaches_them(compiled, monkeypatch, kind, use):
    """Of padded rows that are read at different steps, some not at all."""
    layer, own = KINDS[kind]
    recurrent = built(layer(3, 4, num_layers=2, batch_first=True, **own))
    read_out = built(nn.Linear(4, 2))

    def model(x, lengths):
        steps, last = recurrent(x)
        read = steps[torch.arange(len(x)), lengths - 1] * (lengths > 1).unsqueeze(1)
        read = read * 0 if use == "no step" else read
        state = (last[0] if isinstance(last, tuple) else last)[0] * (lengths == 2).unsqueeze(1)
        return read_out(read + state if "state" in use else read)

    lengths = torch.tensor([5, 2, 6, 1, 3])
    X, R = drawn(5, 6, 3, seed=1), drawn(4, 6, 3, seed=2)
    wanted = step_by_step(monkeypatch, model, X, R, lengths)
    monkeypatch.setattr(fused, "BLOCK_BYTES", 4 * 4 * 8 * 7)
    monkeypatch.setattr(fused, "THREADS_BEYOND", 0)
    assert_close(values(model, X, R, lengths), wanted, 1e-12)
    assert compiled
    assert wanted.any() == (use != "no step")


def test_time_first_networks_and_time_first_inputs(compiled):
    layer = built(nn.LSTM(3, 2))
    first = built(nn.LSTM(3, 2, batch_first=True))
    X, R = drawn(4, 5, 3, seed=1), drawn(6, 5, 3, seed=2)
    wanted = values(Chain(first, Last()), X, R)
    turned = deepshap.DeepExplainer(lambda x: layer(x)[0][-1], R.transpose(0, 1), batch_axis=1, progress=False)
    assert_close(turned.shap_values(X.transpose(0, 1)).swapaxes(0, 1), wanted)
    assert_close(values(lambda x: layer(x.transpose(0, 1))[0][-1], X, R), wanted)


def test_an_input_that_the_model_changes_or_uses_twice(compiled, monkeypatch):
    torch.manual_seed(0)
    layer, read_out = nn.LSTM(3, 2, batch_first=True).double(), nn.Linear(3, 2).double()

    def overwritten(x):
        x[:, 0] = 2 * x[:, 0]
        return layer(x)[0][:, -1]

    def overwritten_afterwards(x):
        h = layer(x)[0][:, -1]
        x += 1
        x.mul_(x)
        return read_out(h.new_zeros(len(h), 3)) + h + x.mean(1)[:, :2]

    def twice(x):
        return layer(x)[0][:, -1] * read_out(x[:, 1]) + layer(x.flip(1))[0].sum(1)

    def kept_elsewhere(x):
        return overwritten_afterwards(x.clone())

    X, R = drawn(3, 5, 3, seed=1), drawn(4, 5, 3, seed=2)
    for model in (overwritten, twice, overwritten_afterwards):
        assert_close(values(model, X, R), step_by_step(monkeypatch, model, X, R), 1e-12)
    for x, r in ((X, R), (X[:1], R), (X, R[:1])):  # of a single row no copy is made in passing
        assert_close(values(overwritten_afterwards, x, r), values(kept_elsewhere, x, r), 1e-12)


def test_saturated_and_equal_values(compiled):
    """Quotients of differences far apart, closed forms near by: no digits are lost, and no division by 0 is left."""
    layer = built(nn.LSTM(2, 2, batch_first=True))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(30)
    X = drawn(3, 6, 2, seed=1)
    R = torch.cat([X, X + 1e-9, X + 0.5, 1e3 * X])
    found = values(Chain(layer, Last()), X, R)
    assert np.isfinite(found).all()
    assert not values(Chain(layer, Last()), X[:1], X[:1]).any()


def test_the_secants_of_the_kernels_are_those_of_the_rules():
    from deepshap.formulas import secants
    from deepshap.kernels import numbers

    x = torch.cat([torch.linspace(-30, 30, 4001, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    for distance in (0.0, 1e-12, 1e-3, 0.3, 0.4999, 0.5001, 0.999, 1.001, 5.0, 60.0):
        r = x - distance
        for name, function in (("tanh", torch.tanh), ("sigmoid", torch.sigmoid), ("relu", torch.relu)):
            wanted = getattr(secants, name)(x, r, function(x), function(r))
            kernel = numba.vectorize(getattr(numbers, name).py_func)
            with np.errstate(divide="ignore", invalid="ignore"):  # LLVM divides where that is not chosen, too
                found = kernel(*(v.numpy() for v in (x, r, function(x), function(r))))
            # The difference of the outputs, which is what has to be right, to their rounding.
            rounding = 4 * np.finfo(float).eps / np.maximum(distance, 0.25)
            assert np.abs(found - wanted.numpy()).max() <= rounding, (name, distance)


# ---------------------------------------------------------------------- when they run
def test_small_jobs_do_not_wait_for_a_compiler(monkeypatch):
    made = []
    monkeypatch.setattr(steps, "kernel_of", lambda *key: made.append(key))
    layer = nn.LSTM(3, 5, batch_first=True)
    values(Chain(layer, Last()), torch.randn(2, 4, 3), torch.randn(3, 4, 3))
    assert not made


def test_many_steps_are_worth_a_kernel_however_little_they_hold(monkeypatch):
    made, original = [], steps.kernel_of
    monkeypatch.setattr(steps, "kernel_of", lambda *key: made.append(key) or original(*key))
    values(Chain(nn.LSTM(1, 2, batch_first=True), Last()), torch.randn(1, 300, 1), torch.randn(1, 300, 1))
    assert made


@pytest.mark.parametrize("what", ["work", "least"])
def test_work_adds_up_until_a_kernel_is_worth_it(what):
    layer = nn.LSTM(3, 5)
    weights = Weights(layer.weight_ih_l0, layer.weight_hh_l0)
    half = fused.THRESHOLD.threshold // 2
    found = [fused.is_worth_compiling(cells.LSTM, weights, **{"work": 10, what: half}) for _ in range(3)]
    assert found == [False, True, True]
    assert fused.kernel_units(cells.LSTM, weights) == (5 if what == "work" else 0)


def test_torch_and_the_processor_are_left_as_they_were(compiled):
    threads = torch.get_num_threads()
    layer = nn.LSTM(3, 2, batch_first=True)
    values(Chain(layer, Last()), torch.randn(9, 4, 3), torch.randn(40, 4, 3))
    assert compiled
    assert torch.get_num_threads() == threads
    assert float(torch.tensor(1e-40) * 1) > 0  # numbers below 1e-38 still exist


def test_errors_in_a_thread_reach_the_user(compiled, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("in a block")

    monkeypatch.setattr(fused._Block, "run", broken)
    with pytest.raises(ZeroDivisionError, match="in a block"):
        values(Chain(nn.LSTM(3, 2, batch_first=True), Last()), torch.randn(9, 4, 3), torch.randn(40, 4, 3))
    assert float(torch.tensor(1e-40) * 1) > 0


# ---------------------------------------------------------------------- beside torch's threads
def test_waiting_threads_are_sent_away_and_come_back(compiled):
    if _compat._openmp() is None:
        assert sys.platform != "linux"
        return
    square = torch.ones(500, 500)
    wanted, before = square @ square, psutil.Process().num_threads()
    _compat.dismiss_waiting_threads()
    assert psutil.Process().num_threads() < before
    assert torch.equal(square @ square, wanted)
    assert psutil.Process().num_threads() == before
