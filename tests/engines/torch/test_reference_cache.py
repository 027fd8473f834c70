"""The background's activations are kept between calls, and never used for another model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import assert_close, drawn, values
from models import Chain, Last
from planning import chunks_of
from torch import Tensor, nn

import deepshap
from deepshap.engines.torch.engine import TorchEngine


class Scaled(nn.Module):
    """A network with a number, a list and a function of Python that matter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)
        self.register_buffer("shift", torch.zeros(4))
        self.scale, self.powers, self.activation = 1.0, [1.0], torch.tanh

    def forward(self, x: Tensor) -> Tensor:
        h = self.lstm(x * self.scale)[0][:, -1] + self.shift
        return self.head(self.activation(h)) * self.powers[0]


X, R = drawn(2, 5, 3, seed=1), drawn(4, 5, 3, seed=2)


@pytest.fixture
def recordings(monkeypatch):
    """Sizes of the blocks of references that were run for their activations."""
    sizes = []
    original = TorchEngine.record

    def record(engine, references, prefix_cache=None):
        sizes.append(len(references))
        return original(engine, references, prefix_cache)

    monkeypatch.setattr(TorchEngine, "record", record)
    return sizes


def test_recorded_once_for_all_calls(recordings):
    explainer = deepshap.DeepExplainer(Scaled().double(), R, progress=False)
    explainer.shap_values(X)
    recordings.clear()
    for rows in (X, X[:1], 2 * X):
        explainer.shap_values(rows)
    assert recordings == []


CHANGES = {
    "a step of training": lambda m: torch.optim.SGD(m.parameters(), 0.5).step() or m.head.weight.grad,
    "weights in place": lambda m: m.lstm.weight_hh_l0.mul_(1.5),
    "weights behind autograd's back": lambda m: m.lstm.weight_hh_l0.data.mul_(1.5),
    "rows exchanged behind autograd's back": lambda m: m.lstm.weight_hh_l0.data.__setitem__(
        slice(0, 2), m.lstm.weight_hh_l0.data[[1, 0]]
    ),
    "other weights": lambda m: setattr(m, "head", nn.Linear(4, 2).double()),
    "a buffer": lambda m: m.shift.add_(0.3),
    "a number": lambda m: setattr(m, "scale", 0.5),
    "an item of a list": lambda m: m.powers.__setitem__(0, 2.0),
    "a function": lambda m: setattr(m, "activation", torch.sigmoid),
    "a hook": lambda m: m.lstm.register_forward_hook(lambda _, __, output: (2 * output[0], output[1])),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_recorded_anew_when_the_model_has_changed(change):
    model = Scaled().double()
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    before = explainer.shap_values(X)
    model(X).sum().backward()
    with torch.no_grad():
        change(model)
    found = explainer.shap_values(X)
    assert abs(found - before).max() > 1e-6
    assert_close(found, deepshap.DeepExplainer(model, R, progress=False).shap_values(X), 1e-12)


class Slotted:
    """What nobody can look into."""

    __slots__ = ("limit",)


LIMIT = 5.0


def _global_limit(_):
    return LIMIT


def _set_global(_, value):
    global LIMIT
    LIMIT = value


def _default_limit(_, box=[5.0]):  # noqa: B006 (that it stays one object is what is tested)
    return box[0]


def _filled(array):
    return lambda m, value: array(m).__setitem__(0, value)


# Where a number may be that a model reads, and how it is changed.
PLACES = {
    "a namespace": (lambda m: m.config.limit, lambda m, value: setattr(m.config, "limit", value)),
    "a list that holds itself": (lambda m: m.settings[0], _filled(lambda m: m.settings)),
    "a long list": (lambda m: m.long[0], _filled(lambda m: m.long)),
    "an array": (lambda m: float(m.array[0]), _filled(lambda m: m.array)),
    "a large array": (lambda m: float(m.large[0]), _filled(lambda m: m.large)),
    "a tensor": (lambda m: float(m.tensor[0]), _filled(lambda m: m.tensor)),
    "a set": (lambda m: max(m.set), lambda m, value: (m.set.clear(), m.set.add(value))),
    "a global variable": (_global_limit, _set_global),
    "a default": (_default_limit, _filled(lambda _: _default_limit.__defaults__[0])),
    "slots": (lambda m: m.slotted.limit, lambda m, value: setattr(m.slotted, "limit", value)),
    "a class attribute": (lambda m: Capped.limit, lambda m, value: setattr(Capped, "limit", value)),
}


class Capped(nn.Module):
    """Cuts off sums beyond a number that it reads from somewhere."""

    limit = 5.0

    def __init__(self, place: str) -> None:
        super().__init__()
        self.read = PLACES[place][0]
        if place == "slots":
            self.slotted = Slotted()
            self.slotted.limit = 5.0
        if place == "a large array":
            self.large = np.full(10**6, 5.0)
        self.config, self.settings, self.long = SimpleNamespace(limit=5.0), [5.0], [5.0, *range(100)]
        self.array, self.tensor, self.set = np.full(3, 5.0), torch.full((3,), 5.0), {5.0}
        self.settings.append(self.settings)

    def forward(self, x: Tensor) -> Tensor:
        return x.sum((1, 2)).clamp(max=self.read(self))[:, None]


@pytest.mark.parametrize("as_module", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_a_change_that_one_reference_notices(place, as_module):
    change, module = PLACES[place][1], Capped(place)
    references = torch.zeros(60, 2, 2, dtype=torch.float64)
    references[1] = 1  # its sum is 4, beyond the new limit
    x = torch.full((2, 2, 2), 0.5, dtype=torch.float64)
    explainer = deepshap.DeepExplainer(module if as_module else lambda x: module(x), references, progress=False)
    try:
        explainer.shap_values(x)
        change(module, 3.0)
        assert_close(explainer.shap_values(x).reshape(2, 4).sum(1), np.full(2, 2 - 3 / 60), 1e-12)
    finally:
        change(module, 5.0)


def test_recorded_anew_when_a_rule_has_changed(recordings):
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, m):
            return 2 * m

    layer = nn.LSTM(3, 2, batch_first=True).double()
    explainer = deepshap.DeepExplainer(lambda x: Twice.apply(layer(x)[0][:, -1]), R, progress=False)
    deepshap.register_rule(Twice, "linear")
    try:
        wanted = explainer.shap_values(X)
        deepshap.register_rule(Twice, "elementwise")
        recordings.clear()
        assert_close(explainer.shap_values(X), wanted, 1e-12)
        assert recordings[-1] == 4
    finally:
        deepshap.unregister_rule(Twice)


def test_a_background_in_several_blocks(recordings):
    model = Chain(nn.LSTM(3, 2, batch_first=True), Last()).double()
    wanted = deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    with chunks_of(2, 3):
        for _ in range(2):
            assert_close(explainer.shap_values(X), wanted, 1e-12)


# ---------------------------------------------------------------------- memory that runs out
def scarce(monkeypatch, most):
    """Let the device have no memory for more than so many pairs, as torch says it."""
    original, done = TorchEngine.contributions, []

    def contributions(engine, comparison, *arguments):
        if comparison.pairs > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        done.append(comparison.pairs)
        return original(engine, comparison, *arguments)

    monkeypatch.setattr(TorchEngine, "contributions", contributions)
    return done


@pytest.mark.parametrize("lengths", [None, torch.tensor([2, 5, 3])])
def test_chunks_shrink_until_they_fit(monkeypatch, lengths):
    lstm = nn.LSTM(3, 2, batch_first=True).double()
    rows, args = drawn(3, 5, 3, seed=1), () if lengths is None else (lengths,)

    def model(x, lengths=None):
        h = lstm(x)[0]
        return h[:, -1] if lengths is None else h[torch.arange(len(x)), lengths - 1]

    wanted = values(model, rows, R, *args)
    done = scarce(monkeypatch, 2)
    assert_close(values(model, rows, R, *args), wanted, 1e-12)
    assert sum(done) == 12
    assert max(done) == 2


def test_no_memory_for_a_single_pair(monkeypatch):
    scarce(monkeypatch, 0)
    with pytest.raises(deepshap.MemoryBudgetError, match="not enough memory for one pair"):
        values(Chain(nn.LSTM(3, 2, batch_first=True), Last()).double(), X, R)


def test_outputs_are_those_of_the_rows_of_this_call():
    model = Scaled().double()
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    for rows in (X, X.flip(0), R[:3], X[:1], X[:1] + 1, R):
        explanation = explainer(rows)
        found = explanation.base_values + explanation.values.sum((1, 2))
        np.testing.assert_allclose(found, model(rows).detach().numpy(), rtol=1e-9)
