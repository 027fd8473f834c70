"""Handlers: a layer's treatment by the user's own code, checked at every call."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close, drawn
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import deepshap
from deepshap import LSTMShapHandler, ModuleCall


class Net(nn.Module):
    """A nested model: an encoder around an LSTM, a loop over a cell that first gets no state, a head."""

    def __init__(self, batch_first: bool = True, start: bool = False, **options: Any):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.ModuleDict({"lstm": nn.LSTM(3, 4, batch_first=batch_first, **options)})
        self.cell = nn.LSTMCell(options.get("proj_size", 0) or 4, 2)
        self.relu = nn.ReLU()
        self.head = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2))
        self.batch_first, self.start = batch_first, start

    def first(self, x: Tensor) -> Any:
        """Return an initial state of which h depends on the input and c does not."""
        width = self.encoder["lstm"].proj_size or 4
        return x[:, 0, :1].expand(-1, width)[None].contiguous(), x.new_full((1, len(x), 4), 0.5)

    def forward(self, x: Tensor) -> Tensor:
        steps, (h, c) = self.encoder["lstm"](
            x if self.batch_first else x.transpose(0, 1), self.first(x) if self.start else None
        )
        state = None
        for step in steps.unbind(1 if self.batch_first else 0):
            state = self.cell(step, state)
        return self.head(self.relu(state[0] + h[0, :, :2] + c[0, :, :2]))


def sides(
    dtype: torch.dtype = torch.float64, rows: int = 3, references: int = 4, steps: int = 5
) -> tuple[Tensor, Tensor]:
    """Draw examples and a background."""
    return drawn(rows, steps, 3, seed=1, dtype=dtype), drawn(references, steps, 3, seed=2, dtype=dtype)


def explainer_of(model: nn.Module, background: Tensor) -> deepshap.DeepExplainer:
    return deepshap.DeepExplainer(model, background, progress=False)


def secant(call: ModuleCall) -> Tensor:
    """Explain an elementwise layer by the rescale rule."""
    (x,), (r,), (y,), (y_r,) = call.inputs, call.reference_inputs, call.outputs, call.reference_outputs
    slope = torch.where(x == r, 0.0, (y - y_r) / torch.where(x == r, 1.0, x - r))
    return call.multipliers[0] * slope


# ---------------------------------------------------------------------- the worked example
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("start", [False, True], ids=["zeros", "start given"])
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"proj_size": 3}, {"batch_first": False}],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_the_lstm_handler_agrees_with_the_built_in_treatment(options, start, dtype, tolerance):
    model = Net(start=start, **options).to(dtype)
    X, background = sides(dtype)
    explainer = explainer_of(model, background)
    wanted = explainer.shap_values(X)
    for key in ("encoder.lstm", "cell"):
        explainer.register_custom_handler(key, LSTMShapHandler())
        assert_close(explainer.shap_values(X), wanted, tolerance)
    by_type = explainer_of(model, background)
    by_type.register_custom_handler(nn.LSTM, LSTMShapHandler())
    by_type.register_custom_handler(nn.LSTMCell, LSTMShapHandler())
    assert_close(by_type.shap_values(X), wanted, tolerance)


@pytest.mark.parametrize(("features", "units"), [(3, 2), (10, 20), (5, 50), (100, 10)], ids=str)
def test_the_lstm_handler_agrees_on_layers_of_any_size(features, units):
    layer = nn.LSTM(features, units, batch_first=True).double()
    X, background = drawn(2, 4, features, seed=1), drawn(3, 4, features, seed=2)
    explainer = deepshap.DeepExplainer(lambda x: layer(x)[0][:, -1], background, progress=False)
    wanted = explainer.shap_values(X)
    explainer.register_custom_handler(nn.LSTM, LSTMShapHandler())
    assert_close(explainer.shap_values(X), wanted, 1e-12)


def test_long_sequences_stay_within_the_tolerance():
    model = Net().float()
    X, background = sides(torch.float32, steps=300)
    explainer = explainer_of(model, background)
    wanted = explainer.shap_values(X)
    explainer.register_custom_handler(nn.LSTM, LSTMShapHandler())
    assert_close(explainer.shap_values(X), wanted, 1e-4)


class PackedNet(nn.Module):
    """An LSTM on a packed sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, torch.tensor([x.shape[1]] * len(x)), batch_first=True)
        return self.lstm(packed)[1][0][0]


@pytest.mark.parametrize(
    "model",
    [Net(num_layers=2), Net(bidirectional=True), PackedNet()],
    ids=["layers", "directions", "packed"],
)
def test_the_lstm_handler_says_what_it_does_not_do(model):
    if getattr(model, "encoder", None) and model.encoder["lstm"].bidirectional:
        model.cell = nn.LSTMCell(8, 2)
    X, background = sides(torch.float32)
    explainer = explainer_of(model, background)
    explainer.register_custom_handler(nn.LSTM, LSTMShapHandler())
    with pytest.raises(deepshap.InputError, match=r"lstm' is LSTM\(.*Unregister it"):
        explainer.shap_values(X)
    explainer.unregister_custom_handler(nn.LSTM)
    assert explainer.shap_values(X).shape[:3] == X.shape


# ---------------------------------------------------------------------- what a handler gets
class Recorder:
    """A handler that keeps its calls."""

    def __init__(self, handler: Any):
        self.handler, self.calls = handler, []

    def __call__(self, call: ModuleCall) -> Any:
        self.calls.append(call)
        return self.handler(call)


def test_a_handler_gets_the_call():
    model = Net().double()
    X, background = sides()
    explainer = explainer_of(model, background)
    recorder = Recorder(LSTMShapHandler())
    explainer.register_custom_handler("encoder.lstm", recorder)
    explainer.shap_values(X)
    call = recorder.calls[-1]
    layer = model.encoder["lstm"]
    assert (call.module, call.name, call.varying) == (layer, "encoder.lstm", (True,))
    assert torch.equal(call.inputs[0], X.repeat_interleave(4, 0))
    assert torch.equal(call.reference_inputs[0], background.repeat(3, 1, 1))
    output, (h, c) = layer(X.repeat_interleave(4, 0))
    for found, wanted in zip(call.outputs, (output, h, c), strict=True):
        assert_close(found.numpy(), wanted.detach().numpy())
    assert (
        [m.shape for m in call.multipliers]
        == [o.shape for o in call.outputs]
        == [o.shape for o in call.reference_outputs]
    )
    assert len(recorder.calls) == 2  # one for each of the model's outputs


def test_inputs_that_do_not_vary_are_there_and_need_no_multiplier():
    model = Net(start=True).double()
    X, background = sides()
    explainer = explainer_of(model, background)
    wanted = explainer.shap_values(X)
    whole = Recorder(LSTMShapHandler())
    explainer.register_custom_handler("encoder.lstm", whole)
    assert_close(explainer.shap_values(X), wanted)
    assert whole.calls[0].varying == (True, True, False)
    assert torch.equal(whole.calls[0].inputs[2], whole.calls[0].reference_inputs[2])
    explainer.register_custom_handler("encoder.lstm", lambda call: LSTMShapHandler()(call)[:2])
    assert_close(explainer.shap_values(X), wanted)
    explainer.register_custom_handler("encoder.lstm", lambda call: [*LSTMShapHandler()(call)[:2], None])
    assert_close(explainer.shap_values(X), wanted)


class Gated(nn.Module):
    """A module with a keyword, a constant and two outputs in a dict."""

    def forward(self, x: Tensor, scale: Tensor, *, gate: Tensor) -> dict[str, Tensor]:
        return {"product": x * gate * scale, "x": 2 * x}


class WithGated(nn.Module):
    """Calls ``Gated`` and uses both outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.gated = Gated()

    def forward(self, x: Tensor) -> Tensor:
        result = self.gated(x, x.new_tensor([1.0, 2.0, 3.0]), gate=x.flip(-1).sigmoid())
        return (result["product"] + result["x"]).tanh()


def test_keywords_constants_and_nested_outputs():
    X, background = drawn(2, 3, seed=1), drawn(3, 3, seed=2)
    explainer = explainer_of(WithGated(), background)
    wanted = explainer.shap_values(X)

    def handler(call: ModuleCall) -> tuple[Tensor | None, ...]:
        (x, scale, gate), (x_r, _, gate_r) = call.inputs, call.reference_inputs
        m_product, m_x = call.multipliers
        assert call.varying == (True, False, True)
        assert list(call.keywords) == ["gate"]
        return m_product * scale * (gate + gate_r) / 2 + 2 * m_x, None, m_product * scale * (x + x_r) / 2

    explainer.register_custom_handler(Gated, handler)
    assert_close(explainer.shap_values(X), wanted)


def test_a_handler_may_keep_state():
    model = Net().double()
    X, background = sides()
    explainer = explainer_of(model, background)
    seen: list[float] = []

    def handler(call: ModuleCall) -> Tensor:
        seen.append(float(call.multipliers[0].abs().sum()))
        return secant(call)

    explainer.register_custom_handler("head.1", handler)
    explainer.shap_values(X)
    explainer.shap_values(X)
    assert len(seen) == 4
    assert seen[:2] == seen[2:]


# ---------------------------------------------------------------------- registering
def test_layer_names_are_torchs():
    model = Net()
    explainer = explainer_of(model.double(), sides()[1])
    assert explainer.layer_names == {module: name for name, module in model.named_modules()}
    assert explainer.layer_names[model.encoder["lstm"]] == "encoder.lstm"


def test_layer_names_of_functions():
    one, other = Net().double(), nn.Linear(2, 2).double()
    background = sides()[1]
    names = deepshap.DeepExplainer(lambda x: one(x).exp(), background).layer_names
    assert names[one.cell] == "cell"
    names = deepshap.DeepExplainer(partial(one.forward), background).layer_names
    assert names[one.cell] == "cell"
    names = deepshap.DeepExplainer(lambda x: other(one(x)), background).layer_names
    assert (names[one.cell], names[other]) == ("Net.cell", "Linear")
    second = nn.Linear(2, 2).double()
    names = deepshap.DeepExplainer(lambda x: other(one(x)) + second(one(x)), background).layer_names
    assert {names[other], names[second]} == {"Linear_0", "Linear_1"}
    assert deepshap.DeepExplainer(torch.tanh, background).layer_names == {}


def test_names_go_before_types_and_derived_types_before_their_bases():
    model = Net().double()
    X, background = sides()
    explainer = explainer_of(model, background)
    used: dict[str, str] = {}

    def handler(key: str, call: ModuleCall) -> Any:
        used[call.name] = key
        return LSTMShapHandler()(call)

    explainer.register_custom_handler(nn.modules.rnn.RNNCellBase, partial(handler, "base"))
    explainer.register_custom_handler(nn.LSTM, partial(handler, "type"))
    explainer.shap_values(X)
    assert used == {"encoder.lstm": "type", "cell": "base"}
    explainer.register_custom_handler("encoder.lstm", partial(handler, "name"))
    explainer.register_custom_handler(nn.LSTMCell, partial(handler, "derived"))
    explainer.shap_values(X)
    assert used == {"encoder.lstm": "name", "cell": "derived"}
    explainer.unregister_custom_handler("encoder.lstm")
    explainer.shap_values(X)
    assert used == {"encoder.lstm": "type", "cell": "derived"}


def test_registering_takes_effect_at_once_and_can_be_undone():
    model = Net().double()
    X, background = sides()
    explainer = explainer_of(model, background)
    wanted = explainer.shap_values(X)
    recorder = Recorder(secant)
    explainer.register_custom_handler("relu", recorder)
    assert dict(explainer.custom_handlers) == {"relu": recorder}
    explainer.shap_values(X)
    assert recorder.calls
    explainer.unregister_custom_handler("relu")
    count = len(recorder.calls)
    assert np.array_equal(explainer.shap_values(X), wanted)
    assert len(recorder.calls) == count
    assert not explainer.custom_handlers
    assert "forward" not in vars(model.relu)


def test_other_rules_of_the_engine_are_kept():
    model = Net().double()
    X, background = sides()
    explainer = explainer_of(model, background)
    wanted = explainer.shap_values(X)
    deepshap.register_rule(nn.Tanh, "elementwise")
    try:
        explainer = explainer_of(model, background)
        explainer.register_custom_handler("relu", secant)
        assert_close(explainer.shap_values(X), wanted)
        explainer.register_custom_handler(nn.Tanh, secant)
        assert_close(explainer.shap_values(X), wanted)
        explainer.unregister_custom_handler(nn.Tanh)
        assert_close(explainer.shap_values(X), wanted)
    finally:
        deepshap.unregister_rule(nn.Tanh)


def test_an_inner_layer_may_have_a_handler_too():
    model = Net().double()
    X, background = sides()
    explainer = deepshap.DeepExplainer((model, model.cell), background, progress=False)
    with pytest.raises(deepshap.InputError, match="called more than once"):
        explainer.shap_values(X)
    explainer = deepshap.DeepExplainer((model, model.head), background, progress=False)
    wanted = explainer.shap_values(X)
    recorder = Recorder(secant)
    explainer.register_custom_handler("head.1", recorder)
    assert_close(explainer.shap_values(X), wanted)
    assert recorder.calls


def test_explainers_with_handlers_can_be_pickled():
    model = Net().double()
    X, background = sides()
    explainer = explainer_of(model, background)
    explainer.register_custom_handler("encoder.lstm", LSTMShapHandler())
    again = pickle.loads(pickle.dumps(explainer))
    assert list(again.custom_handlers) == ["encoder.lstm"]
    assert_close(again.shap_values(X), explainer.shap_values(X))
    again.unregister_custom_handler("encoder.lstm")
    assert_close(again.shap_values(X), explainer.shap_values(X))


# ---------------------------------------------------------------------- checks
def shuffled(call: ModuleCall) -> Tensor:
    """Right in total over all rows, wrong in each: one row's explanation goes to another."""
    m = secant(call)
    difference = call.inputs[0] - call.reference_inputs[0]
    return torch.where(difference == 0, 0.0, (m * difference).roll(1, 0) / difference)


FAULTS = {
    "slightly off": (
        lambda call: 1.001 * secant(call),
        deepshap.AdditivityError,
        "of one row .*gap of .*tolerance 1e-09",
    ),
    "nothing": (lambda call: None, deepshap.AdditivityError, "explain 0 where"),
    "rows exchanged": (shuffled, deepshap.AdditivityError, "of one row"),
    "NaN": (lambda call: secant(call) * float("nan"), deepshap.NonFiniteError, "NaN"),
    "too many": (lambda call: (secant(call), secant(call)), deepshap.InputError, r"2 multipliers.*\(12, 5\)"),
    "shape": (lambda call: secant(call)[:1], deepshap.InputError, r"shape \(1, 5\) for input 0 of shape \(12, 5\)"),
    "type": (lambda call: secant(call).numpy(), deepshap.InputError, "ndarray for input 0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_failing_handler_is_blamed_by_name(name):
    handler, error, message = FAULTS[name]
    model = Net().double()
    X, background = sides()
    explainer = explainer_of(model, background)
    explainer.register_custom_handler("head.1", handler)
    with pytest.raises(error, match=rf"(?s)handler .* of layer 'head.1' \(Tanh\).*{message}"):
        explainer.shap_values(X, check_additivity=False)
    assert "forward" not in vars(model.head[1])
    explainer.unregister_custom_handler("head.1")
    assert np.isfinite(explainer.shap_values(X)).all()


def test_a_class_or_its_name_is_in_the_blame():
    class Careless:
        def __call__(self, call: ModuleCall) -> Tensor:
            return torch.zeros_like(call.inputs[0])

    explainer = explainer_of(Net().double(), sides()[1])
    explainer.register_custom_handler("relu", Careless())
    with pytest.raises(deepshap.AdditivityError, match=r"the handler Careless of layer 'relu' \(ReLU\)"):
        explainer.shap_values(sides()[0])


@pytest.mark.parametrize(
    ("batch_first", "rows", "steps"),
    [(True, 3, 5), (False, 3, 5), (False, 1, 4)],
    ids=["batch first", "time first", "as many steps as rows"],
)
def test_rows_are_checked_one_by_one_wherever_they_lie(batch_first, rows, steps):
    X, background = sides(rows=rows, steps=steps)
    explainer = explainer_of(Net(batch_first=batch_first).double(), background)
    wanted = explainer.shap_values(X)
    explainer.register_custom_handler(nn.LSTM, LSTMShapHandler())
    assert_close(explainer.shap_values(X), wanted)
    explainer.register_custom_handler(nn.LSTM, lambda call: [1.01 * m for m in LSTMShapHandler()(call)])
    with pytest.raises(deepshap.AdditivityError, match="of one row"):
        explainer.shap_values(X)


class Flat(nn.Module):
    """Puts rows and steps on one axis, as a layer may that sees only single vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.tanh = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.tanh(x.flatten(0, 1)).unflatten(0, x.shape[:2]).sum(1)


def test_rows_that_cannot_be_told_are_checked_in_total():
    X, background = sides()
    explainer = explainer_of(Flat(), background)
    wanted = explainer.shap_values(X)
    explainer.register_custom_handler("tanh", secant)
    assert_close(explainer.shap_values(X), wanted)
    explainer.register_custom_handler("tanh", lambda call: 1.01 * secant(call))
    with pytest.raises(deepshap.AdditivityError, match="of all rows"):
        explainer.shap_values(X)


def test_a_layer_that_overwrites_its_input_says_so():
    model = Net().double()
    model.relu.inplace = True
    explainer = explainer_of(model, sides()[1])
    explainer.register_custom_handler("relu", secant)
    with pytest.raises(deepshap.UnsupportedOperationError, match=r"ReLU at .*overwrites its input.*inplace=False"):
        explainer.shap_values(sides()[0])


# ---------------------------------------------------------------------- errors
WRONG = {
    "a name with a slip": ("encoder.lstn", secant, "no layer 'encoder.lstn'. Nearest names: 'encoder.lstm'"),
    "a name far from all": ("zzz", secant, "Nearest names: 'encoder'"),
    "a type that is not there": (nn.GRU, secant, "no layer of type GRU; it has .*LSTM, LSTMCell"),
    "a module": (nn.ReLU(), secant, "not for a ReLU; explainer.layer_names"),
    "no function": ("relu", 3, "not a int"),
    "a class": (nn.LSTM, LSTMShapHandler, "not the class LSTMShapHandler"),
}


@pytest.mark.parametrize("name", WRONG)
def test_registration_errors_name_the_cure(name):
    layer, handler, message = WRONG[name]
    explainer = explainer_of(Net().double(), sides()[1])
    with pytest.raises(deepshap.InputError, match=message):
        explainer.register_custom_handler(layer, handler)
    assert not explainer.custom_handlers


def test_unregistering_what_was_not_registered():
    explainer = explainer_of(Net().double(), sides()[1])
    with pytest.raises(deepshap.InputError, match="no handler is registered for 'relu'; registered: none at all"):
        explainer.unregister_custom_handler("relu")
    explainer.register_custom_handler(nn.LSTM, LSTMShapHandler())
    with pytest.raises(deepshap.InputError, match="no handler is registered for LSTMCell; registered: LSTM"):
        explainer.unregister_custom_handler(nn.LSTMCell)
