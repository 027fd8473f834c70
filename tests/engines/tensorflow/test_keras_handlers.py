"""Handlers and rules of users for Keras layers and TensorFlow's operations, checked at every call; as in PyTorch."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import oracle
import pytest
import torch
from helpers import assert_close
from keras import Sequential
from keras import layers as L
from keras_models import PeepholeCell, Subclassed, draw_weights, functional, precision
from test_one_mathematics_models import put_dense
from tiers import mostly_wide
from torch import nn

import deepshap

STEPS, FEATURES = 3, 2
X, R = (np.random.default_rng(seed).normal(size=(rows, STEPS, FEATURES)) for seed, rows in ((1, 2), (2, 3)))


def built(build: Callable[[], Any]) -> Any:
    """A model in float64 with drawn weights."""
    with precision("float64"):
        model = build()
        model(X)
        draw_weights(model)
    return model


def explainer_of(model: Any) -> deepshap.DeepExplainer:
    return deepshap.DeepExplainer(model, R, progress=False)


def sequence(*layers: Any) -> Any:
    """A stack over the sequences of this module."""
    return Sequential([keras.Input((STEPS, FEATURES)), *layers])


# ---------------------------------------------------------------------- handlers
class Recorder:
    """A handler that keeps its calls."""

    def __init__(self, handler: Any):
        self.handler, self.calls = handler, []

    def __call__(self, call: Any) -> Any:
        self.calls.append(call)
        return self.handler(call)


def secant(call: Any) -> np.ndarray:
    """An elementwise layer, by the rescale rule; for either framework, in NumPy."""
    (x,), (r,), (y,), (y_r,), (m,) = (
        [np.asarray(v) for v in side]
        for side in (call.inputs, call.reference_inputs, call.outputs, call.reference_outputs, call.multipliers)
    )
    return m * np.where(x == r, 0, (y - y_r) / np.where(x == r, 1, x - r))


def dense(call: Any) -> np.ndarray:
    """A dense layer with tanh, relu or nothing behind it, by its weights."""
    (y,), (y_r,), (m,) = (
        [np.asarray(v) for v in side] for side in (call.outputs, call.reference_outputs, call.multipliers)
    )
    kernel, bias = call.module.get_weights()
    z, z_r = (np.asarray(side[0]) @ kernel + bias for side in (call.inputs, call.reference_inputs))
    return (m * np.where(z == z_r, 0, (y - y_r) / np.where(z == z_r, 1, z - z_r))) @ kernel.T


def lstm_cell(call: Any) -> list[np.ndarray]:
    """An LSTM cell, by the formulas of docs/mathematics.md; its outputs are h once more, h and c."""
    W, U, b = call.module.get_weights()

    def side(x: Any, h: Any, c: Any) -> list[np.ndarray]:
        z = np.split(np.asarray(x) @ W + np.asarray(h) @ U + b, 4, 1)
        i, f, g, o = oracle.sigmoid(z[0]), oracle.sigmoid(z[1]), np.tanh(z[2]), oracle.sigmoid(z[3])
        return [*z, i, f, g, o, np.asarray(c), f * np.asarray(c) + i * g]

    zi, zf, zg, zo, i, f, g, o, before, c = zip(side(*call.inputs), side(*call.reference_inputs), strict=True)
    m_h, m_c = np.asarray(call.multipliers[0]) + np.asarray(call.multipliers[1]), np.asarray(call.multipliers[2])
    m_o, m_c = m_h * oracle.mean(*map(np.tanh, c)), m_c + m_h * oracle.mean(*o) * oracle.secant(np.tanh, *c)
    shares = [
        (m_c * oracle.mean(*g), oracle.sigmoid, zi),
        (m_c * oracle.mean(*before), oracle.sigmoid, zf),
        (m_c * oracle.mean(*i), np.tanh, zg),
        (m_o, oracle.sigmoid, zo),
    ]
    m_z = np.concatenate([m * oracle.secant(function, *z) for m, function, z in shares], 1)
    return [m_z @ W.T, m_z @ U.T, m_c * oracle.mean(*f)]


# ---------------------------------------------------------------------- wherever the layer is
class Leak(L.LeakyReLU):
    """A layer of a derived type."""


def twice() -> Any:
    """A layer that is called twice."""
    layer = L.Dense(FEATURES, activation="tanh", name="twice")
    return functional((STEPS, FEATURES), lambda x: layer(layer(x)))


def nested() -> Any:
    """A layer in a model in a model, which is called twice."""
    inner = Sequential([keras.Input((FEATURES,)), L.Dense(2, activation="relu", name="bend")], name="inner")
    middle = functional((STEPS, FEATURES), lambda x: inner(x[:, 0]))
    middle.name = "middle"
    return functional((STEPS, FEATURES), lambda x: L.Subtract()([middle(x), middle(x[:, ::-1])]))


PLACES: dict[str, tuple[Callable[[], Any], str | type, Callable[..., Any], set[str]]] = {
    "a name": (lambda: sequence(L.Dense(3, activation="tanh", name="bend")), "bend", dense, {"bend"}),
    "several instances, by type": (
        lambda: sequence(L.Dense(3, "tanh", name="one"), L.LSTM(2), L.Dense(2, name="other")),
        L.Dense,
        dense,
        {"one", "other"},
    ),
    "a base type": (lambda: sequence(Leak(0.2, name="leak"), L.GRU(2)), L.LeakyReLU, secant, {"leak"}),
    "a layer used twice": (twice, "twice", dense, {"twice"}),
    "inside TimeDistributed": (
        lambda: sequence(L.TimeDistributed(L.Dense(3, "tanh", name="each"), name="steps"), L.Flatten()),
        "steps.each",
        dense,
        {"steps.each"},
    ),
    "inside Bidirectional": (
        lambda: sequence(L.Bidirectional(L.LSTM(2), name="both")),
        L.LSTMCell,
        lstm_cell,
        {"both.forward_lstm.lstm_cell", "both.backward_lstm.lstm_cell"},
    ),
    "one direction": (
        lambda: sequence(L.Bidirectional(L.LSTM(2, unroll=True), name="both")),
        "both.backward_lstm.lstm_cell",
        lstm_cell,
        {"both.backward_lstm.lstm_cell"},
    ),
    "inside a cell": (
        lambda: sequence(L.RNN(PeepholeCell(2, name="cell"), name="rnn")), "rnn.cell.dense", dense, {"rnn.cell.dense"}
    ),
    "nested models": (nested, "middle.inner.bend", dense, {"middle.inner.bend"}),
    "a subclassed model": (Subclassed, L.Dense, dense, {"dense", "sequential.dense"}),
}  # fmt: skip


def unnumbered(name: str) -> str:
    """A qualified name without the numbers that Keras puts behind the names of further layers of a kind."""
    return re.sub(r"_\d+\b", "", name)


@pytest.mark.parametrize("place", mostly_wide(PLACES, {"a name", "a layer used twice", "nested models"}))
def test_a_handler_agrees_with_the_built_in_treatment_wherever_the_layer_is(place):
    build, layer, handler, names = PLACES[place]
    model = built(build)
    before = [weight.numpy() for weight in model.weights]
    explainer, recorder = explainer_of(model), Recorder(handler)
    wanted = explainer.shap_values(X)
    if isinstance(layer, str):
        (layer,) = (name for name in explainer.layer_names.values() if unnumbered(name) == layer)
    explainer.register_custom_handler(layer, recorder)
    assert dict(explainer.custom_handlers) == {layer: recorder}
    assert_close(explainer.shap_values(X), wanted, 1e-12)
    assert {unnumbered(call.name) for call in recorder.calls} == names
    assert all(explainer.layer_names[call.module] == call.name for call in recorder.calls)
    count = len(recorder.calls)
    explainer.unregister_custom_handler(layer)
    assert np.array_equal(explainer.shap_values(X), wanted)
    assert len(recorder.calls) == count
    assert not explainer.custom_handlers
    assert not any("call" in vars(one) for one in model._flatten_layers())
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))


def test_names_go_before_types_and_derived_types_before_their_bases():
    class Bend(L.Dense):
        pass

    model = built(lambda: sequence(Bend(3, name="one"), Bend(3, name="two"), L.Dense(2, name="three")))
    explainer = explainer_of(model)
    wanted, used = explainer.shap_values(X), {}

    def handler(key: str, call: Any) -> Any:
        used[call.name] = key
        return dense(call)

    for key, word in ((L.Dense, "base"), (Bend, "type"), ("two", "name")):
        explainer.register_custom_handler(key, partial(handler, word))
    assert_close(explainer.shap_values(X), wanted, 1e-12)
    assert used == {"one": "type", "two": "name", "three": "base"}
    explainer.unregister_custom_handler("two")
    explainer.shap_values(X)
    assert used == {"one": "type", "two": "type", "three": "base"}


class Gated(L.Layer):
    """A layer with a keyword, a constant and two outputs in a dict."""

    def call(self, x: Any, scale: Any, gate: Any = None) -> dict[str, Any]:
        return {"product": x * gate * scale, "x": 2 * x}


def test_a_handler_gets_the_call():
    gated = Gated(name="gated", dtype="float64")

    def run(x: Any) -> Any:
        h = x[:, 0]
        result = gated(h, np.array([1.0, 2.0]), gate=keras.ops.sigmoid(h[:, ::-1]))
        return keras.ops.tanh(result["product"] + result["x"])

    explainer = explainer_of(run)
    wanted = explainer.shap_values(X)

    def handler(call: Any) -> Any:
        (x, scale, gate), (x_r, scale_r, gate_r) = (
            [np.asarray(v) for v in s] for s in (call.inputs, call.reference_inputs)
        )
        assert (call.module, call.name, call.varying) == (gated, "", (True, False, True))
        assert np.array_equal(x, np.repeat(X[:, 0], 3 * 2, 0))  # the two outputs are explained as further rows
        assert np.array_equal(x_r, np.tile(R[:, 0], (2 * 2, 1)))
        assert np.array_equal(scale, [1.0, 2.0])
        assert np.array_equal(scale, scale_r)
        assert np.array_equal(call.arguments[0], x)
        assert np.array_equal(call.keywords["gate"], gate)
        (product, twofold), (product_r, _) = call.outputs, call.reference_outputs
        assert_close(np.asarray(product), x * gate * scale)
        assert_close(np.asarray(product_r), x_r * gate_r * scale)
        assert_close(np.asarray(twofold), 2 * x)
        m_product, m_x = map(np.asarray, call.multipliers)
        return m_product * scale * (gate + gate_r) / 2 + 2 * m_x, None, m_product * scale * (x + x_r) / 2

    recorder = Recorder(handler)
    explainer.register_custom_handler(Gated, recorder)
    assert_close(explainer.shap_values(X), wanted, 1e-12)
    count = len(recorder.calls)
    assert count >= 1
    explainer.shap_values(X)
    assert len(recorder.calls) == 2 * count  # it may keep state: it is called, not traced


# ---------------------------------------------------------------------- beside PyTorch's
class Twins:
    """The same model of both frameworks, with a layer ``bend`` that a handler may explain."""

    def __init__(self) -> None:
        self.keras = built(lambda: sequence(L.Flatten(), L.Dense(3), L.Activation("tanh", name="bend"), L.Dense(2)))
        first, last = nn.Linear(STEPS * FEATURES, 3).double(), nn.Linear(3, 2).double()
        self.torch = nn.Sequential()
        for name, module in (("flat", nn.Flatten()), ("first", first), ("bend", nn.Tanh()), ("last", last)):
            self.torch.add_module(name, module)
        put_dense(self.keras.layers[1], first)
        put_dense(self.keras.layers[3], last)

    def values(self, handler: Callable[..., Any], **options: Any) -> list[np.ndarray]:
        """Attributions of either framework under a handler, which returns NumPy arrays."""
        return [self.explained(model, handler, **options) for model in (self.keras, self.torch)]

    def explained(self, model: Any, handler: Callable[..., Any], **options: Any) -> np.ndarray:
        explainer = explainer_of(model)
        as_torch = (lambda call: _tensors(handler(call))) if model is self.torch else handler
        explainer.register_custom_handler("bend", as_torch)
        return explainer.shap_values(X, **options)


def _tensors(result: Any) -> Any:
    if isinstance(result, (list, tuple)):
        return [_tensors(part) for part in result]
    return torch.as_tensor(result) if isinstance(result, np.ndarray) else result


@pytest.fixture(scope="module")
def twins() -> Twins:
    return Twins()


def equal_parts(call: Any) -> np.ndarray:
    """Another rule that keeps the sums: what a row owes to the layer, in equal parts for all units."""
    sides = (call.inputs, call.reference_inputs, call.outputs, call.reference_outputs, call.multipliers)
    x, r, y, y_r, m = (np.asarray(side[0]) for side in sides)
    return (m * (y - y_r)).sum(1, keepdims=True) / x.shape[1] / (x - r)


def test_a_handler_has_the_same_effect_in_both_frameworks(twins):
    for handler in (secant, equal_parts):
        found, wanted = twins.values(handler)
        assert_close(found, wanted)
    built_in = explainer_of(twins.keras).shap_values(X)
    assert np.abs(found - built_in).max() > 0.1 * np.abs(built_in).max()  # and it has one


def _raising(call: Any) -> Any:
    raise ZeroDivisionError("nothing to share")


FAULTS = {
    "slightly off": (lambda call: 1.001 * secant(call), deepshap.AdditivityError, "of one row .*tolerance 1e-09"),
    "nothing": (lambda call: None, deepshap.AdditivityError, "explain 0 where"),
    "rows exchanged": (lambda call: np.roll(secant(call), 1, 0), deepshap.AdditivityError, "of one row"),
    "NaN": (lambda call: secant(call) * np.nan, deepshap.NonFiniteError, "NaN"),
    "too many": (lambda call: [secant(call)] * 2, deepshap.InputError, r"2 multipliers.*\((6|12), 3\)"),
    "shape": (lambda call: secant(call)[:1], deepshap.InputError, r"shape \(1, 3\) for input 0 of shape \((6|12), 3\)"),
    "type": (lambda call: "text", deepshap.InputError, "returned str for input 0"),
    "its own error": (_raising, deepshap.DeepShapError, "raised ZeroDivisionError: nothing to share"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_failing_handler_is_blamed_by_name_and_alike(twins, name):
    handler, error, message = FAULTS[name]
    for model, kind in ((twins.keras, "Activation"), (twins.torch, "Tanh")):
        with pytest.raises(error, match=rf"(?s)handler .* of layer 'bend' \({kind}\).*{message}") as caught:
            twins.explained(model, handler, check_additivity=False)
        assert type(caught.value) is error
        if name == "its own error":
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
    explainer = explainer_of(twins.keras)
    explainer.register_custom_handler("bend", handler)
    with pytest.raises(error):
        explainer.shap_values(X)
    explainer.unregister_custom_handler("bend")
    assert np.isfinite(explainer.shap_values(X)).all()


WRONG = {
    "a name with a slip": ("bent", secant, "no layer 'bent'. Nearest names: 'bend'"),
    "a type that is not there": (L.GRU, secant, "no layer of type GRU; it has .*Activation, Dense"),
    "a layer": (L.ReLU(), secant, "not for a ReLU; explainer.layer_names"),
    "no function": ("bend", 3, "not a int"),
    "a class": ("bend", Recorder, "not the class Recorder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_registration_errors_name_the_cure(twins, name):
    layer, handler, message = WRONG[name]
    explainer = explainer_of(twins.keras)
    with pytest.raises(deepshap.InputError, match=message):
        explainer.register_custom_handler(layer, handler)
    assert not explainer.custom_handlers
    with pytest.raises(deepshap.InputError, match="registered: none at all"):
        explainer.unregister_custom_handler("bend")


def test_a_handler_and_an_inner_layer(twins):
    """The explained layer may have another with a handler behind it."""
    explainer = deepshap.DeepExplainer((twins.keras, twins.keras.layers[1]), R, progress=False)
    wanted, recorder = explainer.shap_values(X), Recorder(secant)
    explainer.register_custom_handler("bend", recorder)
    assert_close(explainer.shap_values(X), wanted, 1e-12)
    assert recorder.calls
