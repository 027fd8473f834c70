"""Every call explains the current model, whatever has changed; within ``frozen()`` nothing is checked again."""

from __future__ import annotations

import contextlib
import contextvars
import enum
import functools
import os
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

import deepshap

X = np.random.default_rng(1).normal(size=(2, 4, 2))
R = np.random.default_rng(2).normal(size=(3, 4, 2))
CONTEXT = contextvars.ContextVar("rate", default=1.0)


class Rate(float):
    """A number with an attribute."""

    by = 1.0


class Table(dict):
    pass


class Listed(list):
    pass


class Mode(enum.Enum):
    SLOW = 1.0
    FAST = 3.0


class Slots:
    __slots__ = ("rate",)


class Held:
    """What a model computes with, in all the places where Python keeps values."""

    def __init__(self) -> None:
        self.table, self.listed, self.rate, self.mode = Table(rate=1.0), Listed([1.0]), Rate(1), Mode.SLOW
        self.slots, self.bytes, self.masked = Slots(), bytearray([1]), np.ma.masked_array([1.0, 5.0], [False, True])
        self.slots.rate = 1.0
        self.module = types.ModuleType("held")
        self.module.inner = types.ModuleType("inner")
        self.module.inner.rate = 1.0
        self.array, self.distribution = np.ones(1), torch.distributions.Normal(torch.ones(1), 1.0)
        self.factor = 1.0
        self.cached = functools.lru_cache(lambda: self.factor)

    def number(self) -> float:
        """One, until something changes."""
        import freshness_settings  # reached by an import inside of a function

        parts = [self.table["rate"], self.listed[0], self.rate.by, self.mode.value, self.slots.rate, self.bytes[0]]
        parts += [self.masked.filled(1.0).prod(), self.module.inner.rate, self.array[0], CONTEXT.get(), self.cached()]
        parts += [float(self.distribution.mean), freshness_settings.rate, float(os.environ.get("FRESHNESS", "1"))]
        return float(np.prod(parts))


def forget_cache(held):
    held.factor = 3.0
    held.cached.cache_clear()


def hook_on_all(_):
    return nn.modules.module.register_module_forward_hook(
        lambda module, _, result: 3 * result if isinstance(module, nn.Linear) else None
    )


CHANGES = {
    "a subclass of dict": lambda h: h.table.__setitem__("rate", 3.0),
    "a subclass of list": lambda h: h.listed.__setitem__(0, 3.0),
    "a subclass of float": lambda h: setattr(h.rate, "by", 3.0),
    "a member of an enum": lambda h: setattr(h, "mode", Mode.FAST),
    "slots": lambda h: setattr(h.slots, "rate", 3.0),
    "a bytearray": lambda h: h.bytes.__setitem__(0, 3),
    "a mask": lambda h: h.masked.mask.__setitem__(1, False),
    "a module in a module": lambda h: setattr(h.module.inner, "rate", 3.0),
    "an array": lambda h: h.array.__setitem__(0, 3.0),
    "a context variable": lambda h: CONTEXT.set(3.0),
    "a cache": forget_cache,
    "an import inside of a function": lambda h: setattr(sys.modules["freshness_settings"], "rate", 3.0),
    "the environment": lambda h: os.environ.__setitem__("FRESHNESS", "3"),
    "a distribution": lambda h: setattr(h, "distribution", torch.distributions.Normal(3 * torch.ones(1), 1.0)),
    "a tensor in a distribution": lambda h: h.distribution.loc.data.fill_(3.0),
}


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    settings = types.ModuleType("freshness_settings")
    settings.rate = 1.0
    monkeypatch.setitem(sys.modules, "freshness_settings", settings)
    monkeypatch.setenv("FRESHNESS", "1")
    CONTEXT.set(1.0)
    yield
    CONTEXT.set(1.0)


class TorchModel(nn.Module):
    def __init__(self, held):
        super().__init__()
        torch.manual_seed(0)
        self.held, self.lstm, self.head = held, nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 1)
        self.register_buffer("places", torch.tensor([0, 1]))
        self.outside = [torch.ones(1, dtype=torch.float64)]
        self.double().eval()

    def forward(self, x):
        return self.head(self.lstm(x[:, :, self.places] * self.held.number() * self.outside[0])[0][:, -1])


class KerasModel(keras.Model):
    def __init__(self, held):
        super().__init__(dtype="float64")
        self.held, self.head = held, keras.layers.Dense(1, activation="tanh", dtype="float64")

    def call(self, x):
        return self.head(keras.ops.reshape(x * self.held.number(), (-1, X[0].size)))


def assert_seen(model, change):
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    before = explainer.shap_values(X)
    change()
    found = explainer.shap_values(X)
    assert np.abs(found - before).max() > 1e-4
    np.testing.assert_allclose(found, deepshap.DeepExplainer(model, R, progress=False).shap_values(X), atol=1e-12)


@pytest.mark.parametrize("kind", [TorchModel, KerasModel], ids=["torch", "keras"])
@pytest.mark.parametrize("change", CHANGES)
def test_values_of_python(kind, change):
    held = Held()
    assert_seen(kind(held), lambda: CHANGES[change](held))


OF_TORCH = {
    "an integer buffer": lambda m: m.places.__setitem__(0, 1),
    "a tensor outside of modules, by .data": lambda m: m.outside[0].data.fill_(3.0),
    "a tensor outside of modules, by NumPy": lambda m: m.outside[0].numpy().fill(3.0),
    "weights by NumPy": lambda m: m.head.weight.detach().numpy().__imul__(3.0),
}


@pytest.mark.parametrize("change", OF_TORCH)
def test_memory_of_torch(change):
    model = TorchModel(Held())
    assert_seen(model, lambda: OF_TORCH[change](model))


class Numbers(nn.Module):
    """Two numbers that references do not reach, and what is computed with them."""

    def __init__(self, compute, numbers):
        super().__init__()
        self.compute, self.numbers = compute, numbers

    def forward(self, x):
        return self.compute(x, self.numbers)


def by_pairs(function):
    return lambda x, c: function(x[:, :1], c[0]) + function(x[:, 1:], c[1])


def held_as(kind):
    return {
        "attribute": torch.tensor([[2.0, 3.0]]),
        "parameter": nn.Parameter(torch.tensor([[2.0, 3.0]])),
        "buffer": nn.Buffer(torch.tensor([[2.0, 3.0]])),
    }[kind]


def in_place(model):
    with torch.no_grad():
        model.numbers.copy_(torch.tensor([[3.0, 2.0]]))


UNREACHED = {
    **{
        f"{kind}, {name}": (
            lambda kind=kind: Numbers(lambda x, c: torch.minimum(x, c).sum(1, True), held_as(kind)),
            change,
            5,
        )
        for kind in ("attribute", "parameter", "buffer")
        for name, change in {
            "in place": in_place,
            "data": lambda model: model.numbers.data.copy_(torch.tensor([[3.0, 2.0]])),
            "NumPy's memory": lambda model: model.numbers.detach().numpy().__setitem__(slice(None), [[3.0, 2.0]]),
        }.items()
    },
    **{
        name: (
            lambda function=function: Numbers(by_pairs(function), [2.0, 3.0]),
            lambda model: model.numbers.reverse(),
            r,
        )
        for name, function, r in (
            ("bound", lambda x, c: x.clamp(max=c), 5),
            ("slope", lambda x, c: torch.nn.functional.leaky_relu(x, c), 1),
            ("steepness", lambda x, c: torch.nn.functional.softplus(x, beta=c), 0.3),
            ("exponent", lambda x, c: x**c, 1.5),
            ("whole exponent", lambda x, c: x ** int(c), 1.5),
        )
    },
    "columns": (
        lambda: Numbers(lambda x, c: (x[:, c[0]] * 2 - x[:, c[1]]).relu()[:, None], [0, 1]),
        lambda model: model.numbers.reverse(),
        0,
    ),
}


@pytest.mark.parametrize("name", UNREACHED)
def test_what_references_do_not_tell(name):
    """Their outputs are the same before and after, and their activations are not."""
    make, change, reference = UNREACHED[name]
    model, background = make(), torch.full((5, 2), float(reference))
    x = (
        torch.tensor([[1.0, 1.0], [0.5, 2.5], [-4.0, 1.0]]).abs()
        if "exponent" in name
        else torch.tensor([[1.0, 1.0], [-4.0, 2.5]])
    )
    explainer = deepshap.DeepExplainer(model, background)
    before = explainer.shap_values(x)
    change(model)
    found = explainer.shap_values(x)
    np.testing.assert_allclose(found, deepshap.DeepExplainer(model, background).shap_values(x), rtol=0, atol=1e-6)
    assert not np.allclose(found, before)


def test_a_hook_on_all_modules():
    handles = []
    try:
        assert_seen(TorchModel(Held()), lambda: handles.append(hook_on_all(None)))
    finally:
        handles[0].remove()


@pytest.mark.parametrize("nested", [False, True])
def test_layers_that_come_and_go(nested):
    inner = keras.Sequential(
        [keras.Input((4, 2)), keras.layers.Flatten(), keras.layers.Dense(2), keras.layers.Dense(2)]
    )
    model = keras.Sequential([keras.Input((4, 2)), inner]) if nested else inner
    explainer = deepshap.DeepExplainer(model, R.astype("float32"), progress=False)
    for change in (inner.pop, lambda: inner.add(keras.layers.Dense(2, activation="tanh"))):
        change()
        explanation = explainer(X.astype("float32"))
        fresh = deepshap.DeepExplainer(model, R.astype("float32"), progress=False)(X.astype("float32"))
        np.testing.assert_allclose(explanation.values, fresh.values, atol=1e-6)
        native = np.asarray(model(tf.constant(X, "float32")))
        np.testing.assert_allclose(explanation.outputs, native, atol=1e-6)


# ---------------------------------------------------------------------- what is found out once, by a probe
class Changing(nn.Module):
    """Does something else with its output from some time on; may be told which step of each row is its last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dense, self.change = nn.Linear(2, 2), None

    def forward(self, x, lengths=None):
        y = torch.tanh(self.dense(x)).cumsum(1)
        y = y if lengths is None else y[torch.arange(len(x)), lengths - 1][:, None]
        return y if self.change is None else self.change(y)


X32, R32 = X.astype("float32"), R.astype("float32")
WAYS = {  # a background, and row arguments
    "rows": (R32, None),
    "a function": (lambda x: R32, None),
    "lengths": (R32, (torch.tensor([4, 2]),)),
}
IN_SHAPE = {
    "another shape": lambda y: y.mean(1),
    "another axis of rows": lambda y: y.transpose(0, 1),
    "rounding inside": lambda y: y.half().float() + y,
}
MIXING = {
    "all rows": lambda y: y - y.mean(0, keepdim=True),
    "many rows": lambda y: y - y.mean(0, keepdim=True) if len(y) > 2 else y,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", IN_SHAPE)
def test_a_model_is_probed_again_when_it_changes(way, change):
    (background, arguments), model = WAYS[way], Changing()
    used, fresh = (deepshap.DeepExplainer(model, background, progress=False) for _ in range(2))
    used.shap_values(X32, additional_forward_args=arguments)
    model.change = IN_SHAPE[change]
    found, wanted = (e.shap_values(X32, additional_forward_args=arguments) for e in (used, fresh))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", MIXING)
def test_rows_that_begin_to_meet_are_refused(way, change):
    (background, arguments), model = WAYS[way], Changing()
    arguments = arguments and (arguments[0][:1],)
    explainer = deepshap.DeepExplainer(model, background, progress=False)
    explainer.shap_values(X32[:1], additional_forward_args=arguments)
    model.change = MIXING[change]
    with pytest.raises(deepshap.BatchMixingError):
        explainer.shap_values(X32[:1], additional_forward_args=arguments)


@pytest.mark.parametrize("frozen", [False, True])
def test_other_rows_and_arguments_are_probed_anew(frozen):
    """Outputs of each step, of the last one, and of more steps, from one explainer."""
    model = Changing()
    calls = [(X32, None), (X32, (torch.tensor([4, 2]),)), (np.concatenate([X32, X32], 1), None)]
    used = deepshap.DeepExplainer(model, lambda given: 0 * given[0][None], progress=False)
    with used.frozen() if frozen else contextlib.nullcontext():
        found = [used.shap_values(x, additional_forward_args=arguments) for x, arguments in calls]
    for values, (x, arguments) in zip(found, calls, strict=True):
        assert np.abs(values).max() > 1e-2
        given = [torch.as_tensor(x), *(arguments or ())]
        with torch.no_grad():
            rise = model(*given) - model(0 * given[0], *given[1:])
        np.testing.assert_allclose(values.sum((1, 2)), rise, atol=1e-5)


# ---------------------------------------------------------------------- layers that come after the explainer
def hooked():
    layer = nn.Linear(8, 1)
    layer.register_full_backward_hook(lambda module, given, made: tuple(None if g is None else 0 * g for g in given))
    return layer


ENTERING = {
    "dropout": lambda model: model.insert(1, nn.Dropout(0.5)),
    "norm": lambda model: model.insert(1, nn.BatchNorm1d(8)),
    "a hook": lambda model: model.__setitem__(2, hooked()),
}


@pytest.mark.parametrize("as_function", [False, True])
@pytest.mark.parametrize("change", ENTERING)
def test_layers_that_enter_later_are_known(change, as_function):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(8, 1)).train()
    called = (lambda x: model(x)) if as_function else model
    explainer = deepshap.DeepExplainer(called, R32, progress=False)
    explainer.shap_values(X32)
    ENTERING[change](model)
    found = explainer.shap_values(X32)
    assert all(module.training for module in model)
    model.eval()
    with torch.no_grad():
        rise = model(torch.as_tensor(X32)) - model(torch.as_tensor(R32)).mean(0)
    np.testing.assert_allclose(found.sum((1, 2)), rise, atol=1e-5)


def test_a_handler_of_a_type_takes_layers_that_enter_later():
    called = []

    def handler(call):
        called.append(call.module)
        return call.multipliers[0] @ call.module.weight

    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.Tanh())
    explainer = deepshap.DeepExplainer(model, R32, progress=False)
    explainer.register_custom_handler(nn.Linear, handler)
    model.append(nn.Linear(4, 1))
    explainer.shap_values(X32)
    assert set(called) == {model[1], model[3]}


# ---------------------------------------------------------------------- frozen
@pytest.fixture
def found_out(monkeypatch):
    """How often what an engine knows of a model was found out: recordings of references, and traces."""
    from deepshap.engines.tensorflow import engine as of_keras
    from deepshap.engines.torch.engine import TorchEngine

    times = []
    record, explained = TorchEngine.record, of_keras.trace_explanation
    monkeypatch.setattr(TorchEngine, "record", lambda *a, **k: (times.append("torch"), record(*a, **k))[1])
    monkeypatch.setattr(of_keras, "trace_explanation", lambda *a: (times.append("keras"), explained(*a))[1])
    return times


@pytest.mark.parametrize("kind", [TorchModel, KerasModel], ids=["torch", "keras"])
def test_frozen_finds_out_once_and_keeps_what_it_knows(kind, found_out):
    held = Held()
    calls, model = [], kind(held)
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    with explainer.frozen():
        before = explainer.shap_values(X)
        once = len(found_out)
        number = held.number
        held.number = lambda: (calls.append(1), number())[1]
        np.testing.assert_array_equal(explainer.shap_values(X), before)
        np.testing.assert_array_equal(explainer.shap_values(X), before)
        assert len(found_out) == once > 0
    held.table["rate"] = 3.0
    assert np.abs(explainer.shap_values(X) - before).max() > 1e-4


@pytest.mark.parametrize("kind", [TorchModel, KerasModel], ids=["torch", "keras"])
def test_what_changed_before_the_block_is_seen_in_it(kind):
    held = Held()
    explainer = deepshap.DeepExplainer(kind(held), R, progress=False)
    before = explainer.shap_values(X)
    held.table["rate"] = 3.0
    with explainer.frozen():
        assert np.abs(explainer.shap_values(X) - before).max() > 1e-4


def test_a_model_that_changes_in_the_block_is_explained_as_it_was_or_as_it_is():
    """What does not fit together is found out anew; never a mixture of both."""
    held = Held()
    model = TorchModel(held)
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    with explainer.frozen():
        before = explainer.shap_values(X)
        held.table["rate"] = 3.0
        found = explainer.shap_values(X)
    now = deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    assert min(np.abs(found - before).max(), np.abs(found - now).max()) < 1e-12
