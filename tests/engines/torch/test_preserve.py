"""What a model writes to while it runs is put back: not only buffers, and not only what torch takes note of."""

from __future__ import annotations

import array
import copy
import random
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close, drawn, values
from torch import Tensor, nn

import deepshap
from deepshap.engines.torch import preserve as kept

X, R = drawn(3, 4, seed=1), drawn(2, 4, seed=2)


class State:
    """An object of the user's own."""

    def __init__(self) -> None:
        self.memory, self.count, self.seen = torch.zeros(4).double(), 0, [1]


class Slots:
    """An object without a dict."""

    __slots__ = ("count", "later", "memory")

    def __init__(self) -> None:
        self.memory, self.count = torch.zeros(4).double(), 0


class Told(list):
    """A list with attributes."""


class Inner(nn.Module):
    """A module that torch does not see in its parent."""

    count = 0


class Writing(nn.Module):
    """Writes to everything that it holds, by the way that a test chooses."""

    def __init__(self, write: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4).double())
        self.register_buffer("buffer", torch.zeros(4).double())
        self.nested = {"a": {"b": [1, 2]}, "tensors": [torch.zeros(4).double()]}
        self.state, self.array, self.recent, self.bytes = State(), np.zeros(4), deque([1], maxlen=9), bytearray(4)
        self.numbers = array.array("d", [0.0, float("nan")])
        self.slots, self.told, self.inner = Slots(), Told([1]), [Inner()]
        self.told.count_of_calls = 0
        self.generators = [np.random.default_rng(0), np.random.RandomState(0), random.Random(0), torch.Generator()]
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        self.write(self, x)
        return (x * torch.arange(1.0, 5.0).double()).tanh()


def contents(model: Writing) -> dict[str, Any]:
    """All that can be told of the model, by value."""
    tensors = [model.weight, model.buffer, model.nested["tensors"][0], model.state.memory, model.slots.memory]
    flags = [(t.requires_grad, t.is_leaf, None if t.grad is None else t.grad.tolist()) for t in tensors]
    python = (
        model.nested,
        model.state.seen,
        model.state.count,
        model.recent,
        bytes(model.bytes),
        model.numbers,
        sorted(vars(model)),
    )
    objects = model.slots.count, hasattr(model.slots, "later"), vars(model.told), vars(model.inner[0]), list(model.told)
    own = model.generators
    states = [own[0].bit_generator.state, own[1].get_state(), own[2].getstate(), own[3].get_state().tolist()]
    generators = np.random.get_state()[1:3]
    return {
        "tensors": [t.tolist() for t in tensors],
        "flags": flags,
        "python": repr((python, objects, states)),
        "array": model.array.tolist(),
        "numpy": (generators[0].tolist(), generators[1]),
    }


def parameter_by_data(model: Writing, x: Tensor) -> None:
    model.weight.data[0] += 2


def parameter(model: Writing, x: Tensor) -> None:
    with torch.no_grad():
        model.weight.mul_(1.5)


def buffer_by_data(model: Writing, x: Tensor) -> None:
    model.buffer.data.fill_(3)


def buffer_by_numpy(model: Writing, x: Tensor) -> None:
    model.buffer.numpy()[:] = 3


def buffer_by_signal(model: Writing, x: Tensor) -> None:
    model.buffer.copy_(x[0])


def gradient(model: Writing, x: Tensor) -> None:
    model.weight.grad = torch.ones(4).double() if model.weight.grad is None else model.weight.grad.add_(1)


def nested(model: Writing, x: Tensor) -> None:
    model.nested["a"]["b"].append(3)
    model.nested["a"]["c"] = 1
    model.nested["tensors"][0].add_(1)


def state(model: Writing, x: Tensor) -> None:
    model.state.count += 1
    model.state.seen.append(2)
    model.state.memory.add_(1)
    model.state.more = 1


def arrays(model: Writing, x: Tensor) -> None:
    model.array += 1
    model.recent.append(2)
    model.bytes[0] += 1
    model.numbers[0] += 1
    model.numbers.append(2.0)


def numbers(model: Writing, x: Tensor) -> None:
    np.random.rand()
    model.last = x


def objects(model: Writing, x: Tensor) -> None:
    model.slots.count += 1
    model.slots.later = x
    model.slots.memory.add_(1)
    model.told.count_of_calls += 1
    model.told.append(x)
    model.inner[0].count += 1


def generators(model: Writing, x: Tensor) -> None:
    for generator in model.generators[:3]:
        generator.random() if hasattr(generator, "random") else generator.rand()
    model.generators[3].manual_seed(model.generators[3].initial_seed() + 1)


WRITERS = [
    parameter_by_data, parameter, buffer_by_data, buffer_by_numpy, buffer_by_signal, gradient, nested, state, arrays, numbers,
    objects, generators,
]  # fmt: skip


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("write", WRITERS)
def test_the_model_is_left_as_it_was(write, trained):
    model = Writing(write)
    if trained:
        model.weight.grad = torch.full((4,), 7.0).double()
    before = contents(model)
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    for _ in range(2):
        found = explainer.shap_values(X)
        assert contents(model) == before
    wanted = deepshap.DeepExplainer(Writing(lambda *_: None), R, progress=False).shap_values(X)
    assert np.array_equal(found, wanted)


def test_it_is_left_so_after_an_error_too():
    def write(model: Writing, x: Tensor) -> None:
        for writer in WRITERS:
            writer(model, x)
        torch.special.bessel_j0(x)

    model = Writing(write)
    before = contents(model)
    with pytest.raises(deepshap.UnsupportedOperationError):
        deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    assert contents(model) == before


class Called:
    """A model that is no module, and holds one."""

    def __init__(self) -> None:
        self.layer, self.count, self.seen = nn.Linear(4, 2).double(), 0, [1]

    def __call__(self, x: Tensor) -> Tensor:
        self.count += 1
        self.seen.append(x)
        self.last = x
        return self.layer(x).tanh()

    def method(self, x: Tensor) -> Tensor:
        return self(x)


@pytest.mark.parametrize("method", [False, True])
def test_objects_that_are_called(method):
    model = Called()
    found = deepshap.DeepExplainer(model.method if method else model, R, progress=False).shap_values(X)
    assert (model.count, model.seen, sorted(vars(model))) == (0, [1], ["count", "layer", "seen"])
    wanted = deepshap.DeepExplainer(nn.Sequential(model.layer, nn.Tanh()), R, progress=False).shap_values(X)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_row_arguments_that_the_model_writes_to():
    def model(x: Tensor, shift: Tensor) -> Tensor:
        shift += 1
        return x * shift

    shift = torch.zeros(3, 4).double()
    found = deepshap.DeepExplainer(model, R, progress=False).shap_values(X, additional_forward_args=(shift,))
    assert (shift == 0).all()
    wanted = torch.diag_embed(X - R.mean(0)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_generators_that_a_model_holds_do_not_hide_that_it_draws():
    class Drawing(Writing):
        def forward(self, x: Tensor) -> Tensor:
            return (x + self.generators[0].normal()).tanh()

    model = Drawing(None)
    before = contents(model)
    with pytest.raises(deepshap.DeepShapError):
        deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    assert contents(model) == before


@pytest.mark.parametrize("large", [False, True], ids=["copied", "too large to be copied"])
def test_a_model_that_begins_to_write_to_its_weights(large, monkeypatch):
    """One run has shown that it did not."""
    monkeypatch.setattr(kept, "COPIED_BYTES", 0 if large else 2**20)
    model, background, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), torch.randn(5, 3), torch.randn(4, 3)
    deepshap.DeepExplainer(model, background).shap_values(x)

    def clamp(layer, _):
        layer.weight.clamp_(-0.05, 0.05)

    model[0].register_forward_pre_hook(clamp)
    before = model[0].weight.detach().clone()
    if large:
        with pytest.raises(deepshap.InputError, match="written to a weight of shape"):
            deepshap.DeepExplainer(model, background).shap_values(x)
    else:
        deepshap.DeepExplainer(model, background).shap_values(x)
        assert torch.equal(before, model[0].weight)


@pytest.mark.parametrize("units", [3, 600], ids=["compared by torch", "by NumPy"])
def test_what_happens_between_calls_is_no_run_of_the_model(units):
    """What an earlier call has noted is not put back in a later one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, units), nn.Tanh(), nn.Linear(units, 2)).double()
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    weight = model[0].weight

    def explained(meanwhile: Any) -> None:
        meanwhile()
        before = weight.detach().clone(), weight.dtype, None if weight.grad is None else weight.grad.to_dense()
        wanted = values(copy.deepcopy(model), X.to(weight.dtype), R.to(weight.dtype))
        for _ in range(2):
            own = deepshap.DeepExplainer(model, R.to(weight.dtype)) if weight.dtype != R.dtype else explainer
            assert_close(own.shap_values(X.to(weight.dtype)), wanted, 1e-5 if weight.dtype == torch.float32 else 1e-9)
        assert torch.equal(weight, before[0])
        assert (weight.dtype, weight.requires_grad, model.training) == (before[1], True, True)
        assert (weight.grad is None) == (before[2] is None)
        assert weight.grad is None or torch.equal(weight.grad.to_dense(), before[2])

    explained(lambda: None)
    explained(lambda: weight.data.mul_(2))
    explained(lambda: setattr(weight, "grad", torch.ones_like(weight)))
    explained(lambda: weight.grad.add_(1))
    explained(lambda: setattr(weight, "grad", torch.ones_like(weight).to_sparse()))
    explained(lambda: setattr(weight, "grad", None))
    explained(lambda: setattr(weight, "data", torch.randn_like(weight)))
    explained(model.float)
    explained(model.double)


class Noting(nn.Module):
    """Notes each run in a list, a nested dict, an array and an object of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.runs, self.nested, self.counts, self.state = [0], {"seen": [1]}, np.zeros(2), State()

    def forward(self, x: Tensor) -> Tensor:
        self.runs.append(len(x))
        self.nested["seen"].append(2)
        self.counts += 1
        self.state.count += 1
        return x.tanh()


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda model: None,
        lambda model: model.runs.append(7),
        lambda model: model.nested.update(other=[3]),
        lambda model: setattr(model, "nested", {"seen": [4]}),
        lambda model: model.counts.fill(5),
        lambda model: setattr(model, "counts", np.ones(3)),
        lambda model: setattr(model, "state", State()),
        lambda model: model.train(not model.training),
    ],
)
def test_what_the_model_holds_by_the_second_call_is_restored(meanwhile):
    model = Noting()
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    explainer.shap_values(X)
    for _ in range(2):
        meanwhile(model)
        before = copy.deepcopy((model.runs, model.nested, model.counts.tolist(), model.state.count, model.training))
        explainer.shap_values(X)
        assert (model.runs, model.nested, model.counts.tolist(), model.state.count, model.training) == before


@pytest.mark.parametrize("compiled", ["script", "trace"])
@pytest.mark.parametrize("inside", [False, True])
def test_scripts_keep_their_mode_and_their_gradients(compiled, inside):
    """What TorchScript holds is no attribute of its modules."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            part = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
            self.gate = (
                torch.jit.script(part) if compiled == "script" else torch.jit.trace(part.eval(), torch.ones(1, 4))
            )
            self.last = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.gate(x) if inside else x * self.gate(torch.ones(1, 4, dtype=x.dtype)))

    model = Gated().train()
    explainer = deepshap.DeepExplainer(model, drawn(5, 4).float(), progress=False)
    for mode in (True, False, True):
        model.train(mode)
        if inside:
            with pytest.raises(deepshap.UnsupportedOperationError, match="TorchScript"):
                explainer.shap_values(drawn(2, 4).float())
        else:
            explainer.shap_values(drawn(2, 4).float())
        assert [m.training for m in model.modules()] == [mode] * len([*model.modules()])
        assert all(p.requires_grad for p in model.parameters())
