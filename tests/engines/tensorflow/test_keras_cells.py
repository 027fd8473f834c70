"""Single cells of Keras: as those of PyTorch with the same weights, exact for every unit; and the LSTM handler."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers import assert_close, drawn
from keras import Sequential
from keras import layers as L
from keras_models import draw_weights, precision
from test_cells import SIZES
from test_keras_torch_backend import run
from tiers import mostly_wide
from torch import nn

import deepshap

DTYPES = {"float64": 1e-12, "float32": 1e-6}
every_size = pytest.mark.parametrize(("features", "units"), SIZES, ids=lambda size: str(size))


def built(kind: Any, features: int, units: int, dtype: str = "float64", **options: Any) -> Any:
    """A cell with drawn weights."""
    with precision(dtype):
        cell = kind(units, **options)
        cell.build((None, features))
        draw_weights(cell)
        for weight in cell.weights:  # gates that are not shut, as after training
            weight.assign(weight / (features + units) ** 0.5)
    return cell


def twin(cell: Any, features: int, dtype: str = "float64") -> nn.Module:
    """The cell of PyTorch with the same weights."""
    kernel, recurrent, *bias = (keras.ops.convert_to_numpy(w) for w in cell.weights)
    bias = bias[0] if bias else np.zeros(kernel.shape[1], dtype)
    biases = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    kinds = {L.LSTMCell: nn.LSTMCell, L.GRUCell: nn.GRUCell, L.SimpleRNNCell: nn.RNNCell}
    made = kinds[type(cell)](features, cell.units).to(getattr(torch, dtype))
    with torch.no_grad():
        for name, value in zip(
            ("weight_ih", "weight_hh", "bias_ih", "bias_hh"), (kernel.T, recurrent.T, *biases), strict=True
        ):
            if type(cell) is L.GRUCell:  # update, reset, candidate there; reset, update, candidate in torch
                z, r, n = np.split(value, 3)
                value = np.concatenate([r, z, n])
            getattr(made, name).copy_(torch.as_tensor(np.ascontiguousarray(value)))
    return made


def inputs(features: int, units: int, states: int, rows: int = 3, seed: int = 0, dtype: str = "float64") -> list[Any]:
    """Draw x and the states."""
    widths = [features, units, units][: 1 + states]
    return [drawn(rows, width, seed=seed + k).numpy().astype(dtype) for k, width in enumerate(widths)]


def total(values: dict[str, Any]) -> np.ndarray:
    """What every unit owes to all elements."""
    return sum(np.asarray(v, np.float64).sum(-1) for v in values.values())


@every_size
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output", ["c", "h"])
def test_an_lstm_cell_is_as_torchs(output, dtype, features, units):
    cell = built(L.LSTMCell, features, units, dtype)
    example, base = (inputs(features, units, 2, seed=seed, dtype=dtype) for seed in (1, 5))
    base = [b[:1] for b in base]
    hook = deepshap.register_lstm_shap_hook(cell, *base, output=output)
    new, values = hook(*example)
    wanted_new, wanted = deepshap.register_lstm_shap_hook(twin(cell, features, dtype), *base, output=output)(*example)
    tolerance = DTYPES[dtype]
    assert_close(np.asarray(new), wanted_new.numpy(), tolerance)
    for name, value in wanted.items():
        assert np.asarray(values[name]).dtype == dtype
        assert_close(np.asarray(values[name]), value.numpy(), tolerance)
    change = np.asarray(new, np.float64) - np.asarray(hook.base_output, np.float64)
    assert np.abs(total(values) - change).max() <= (1e-13 if dtype == "float64" else 1e-5) * max(1, np.abs(new).max())
    off_diagonal = ~np.eye(units, dtype=bool)
    assert not np.asarray(values["shap_c"])[:, off_diagonal].any()


@pytest.mark.parametrize(
    ("kind", "options"),
    [(L.GRUCell, {}), (L.SimpleRNNCell, {}), (L.LSTMCell, {"implementation": 1, "use_bias": False})],
)
def test_other_cells_are_as_torchs(kind, options):
    cell = built(kind, 4, 3, **options)
    states = 2 if kind is L.LSTMCell else 1
    example, base = inputs(4, 3, states, seed=1), inputs(4, 3, states, seed=5)  # a baseline of its own for each row
    hook = deepshap.register_lstm_shap_hook(cell, *base)
    new, values = hook(*example)
    wanted_new, wanted = deepshap.register_lstm_shap_hook(twin(cell, 4), *base)(*example)
    assert list(values) == list(wanted)
    assert_close(np.asarray(new), wanted_new.numpy(), 1e-12)
    for name, value in wanted.items():
        assert_close(np.asarray(values[name]), value.numpy(), 1e-12)


def test_single_rows_numbers_and_weights_that_change():
    cell = built(L.LSTMCell, 4, 3)
    example, base = inputs(4, 3, 2, seed=1), inputs(4, 3, 2, rows=1, seed=5)
    hook = deepshap.register_lstm_shap_hook(cell, *(b[0] for b in base))
    new, values = hook(*example)
    assert hook.base_output.shape == (3,)
    for row in range(3):
        new_row, values_row = hook(*(v[row] for v in example))
        assert_close(np.asarray(new_row), np.asarray(new)[row])
        for name, value in values_row.items():
            assert_close(np.asarray(value), np.asarray(values[name])[row])
    numbers = deepshap.register_lstm_shap_hook(cell, np.zeros(4), 0.0, 0)
    zeros = deepshap.register_lstm_shap_hook(cell, *(np.zeros_like(b) for b in base))
    assert_close(np.asarray(numbers(*example)[1]["shap_x"]), np.asarray(zeros(*example)[1]["shap_x"]))
    cell.kernel.assign(2 * cell.kernel)
    again, changed = hook(*example)
    assert_close(total(changed), np.asarray(again) - np.asarray(hook.base_output))
    assert np.abs(np.asarray(changed["shap_x"]) - np.asarray(values["shap_x"])).max() > 0.01


def hook_of(cell: Any, *base: Any, **options: Any) -> Any:
    return deepshap.register_lstm_shap_hook(cell, *(base or (0.0, 0.0, 0.0)), **options)


ERRORS = {
    "a layer": (lambda: hook_of(L.LSTM(3)), r"LSTM is a Keras layer, but no .*layer\.cell.*DeepExplainer"),
    "no weights": (lambda: hook_of(L.LSTMCell(3)), r"LSTMCell has no weights yet: call it once, or layer\.build"),
    "width": (lambda: hook_of(built(L.LSTMCell, 4, 3))(np.zeros((2, 5)), 0, 0), r"x has shape \(2, 5\).*\(batch, 4\)"),
    "rows": (lambda: hook_of(built(L.LSTMCell, 4, 3))(np.zeros((2, 4)), np.zeros((5, 3)), 0), "2, 5 rows"),
    "no c": (lambda: hook_of(built(L.LSTMCell, 4, 3), 0.0, 0.0), "c_base is missing"),
    "c of a GRU": (lambda: hook_of(built(L.GRUCell, 4, 3)), "no cell state: leave c_base out"),
    "NaN": (lambda: hook_of(built(L.LSTMCell, 4, 3))(np.nan, 0, 0), "x has NaN"),
    "no tensor": (lambda: hook_of(built(L.LSTMCell, 4, 3))(object(), 0, 0), "not a object"),
    "output": (lambda: hook_of(built(L.GRUCell, 4, 3), 0.0, 0.0, output="c"), "yields 'h'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_cure(name):
    explained, message = ERRORS[name]
    with pytest.raises(deepshap.InputError, match=message):
        explained()


# ---------------------------------------------------------------------- the handler
STEPS, FEATURES = 4, 3


def starting(x: Any) -> Any:
    """An LSTM whose beginning is computed."""
    return L.Concatenate()(L.LSTM(3, return_state=True)(x, initial_state=[L.Dense(3)(x[:, 0]), L.Dense(3)(x[:, 1])]))


def functional(run_on: Any) -> Any:
    """A functional model of one sequence."""
    x = keras.Input((STEPS, FEATURES))
    return keras.Model(x, run_on(x))


MODELS = {
    "last state": lambda: Sequential([keras.Input((STEPS, FEATURES)), L.LSTM(3), L.Dense(2)]),
    "sequences": lambda: Sequential([keras.Input((STEPS, FEATURES)), L.LSTM(3, return_sequences=True)]),
    "backwards": lambda: Sequential(
        [keras.Input((STEPS, FEATURES)), L.LSTM(3, return_sequences=True, go_backwards=True, use_bias=False)]
    ),
    "states": lambda: functional(lambda x: L.Concatenate()(L.LSTM(3, return_state=True)(x))),
    "beginning": lambda: functional(starting),
}


@pytest.mark.parametrize("name", mostly_wide(MODELS, {"states", "backwards"}))
def test_the_handler_agrees_with_the_built_in_treatment(name):
    with precision("float64"):
        model = MODELS[name]()
        draw_weights(model)
    x, r = drawn(2, STEPS, FEATURES, seed=1).numpy(), drawn(3, STEPS, FEATURES, seed=2).numpy()
    explainer = deepshap.DeepExplainer(model, r, progress=False)
    wanted = explainer.shap_values(x)
    explainer.register_custom_handler(L.LSTM, deepshap.LSTMShapHandler())
    assert_close(explainer.shap_values(x), wanted, 1e-12)


def test_the_handler_explains_a_cell():
    cell = built(L.LSTMCell, FEATURES, 2)

    class Step(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def call(self, x: Any) -> Any:
            x, h, c = keras.ops.split(x, [FEATURES, FEATURES + 2], axis=-1)
            h, (_, c) = self.cell(x, [h, c])
            return keras.ops.concatenate([h, c], -1)

    x, r = drawn(2, FEATURES + 4, seed=1).numpy(), drawn(3, FEATURES + 4, seed=2).numpy()
    with precision("float64"):
        explainer = deepshap.DeepExplainer(Step(), r, progress=False)
        wanted = explainer.shap_values(x)
        explainer.register_custom_handler(L.LSTMCell, deepshap.LSTMShapHandler())
        assert_close(explainer.shap_values(x), wanted, 1e-12)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: L.LSTM(2, activation="relu"), "other activations"),
        (lambda: L.GRU(2), "it is a GRU"),
    ],
)
def test_the_handler_refuses_what_it_cannot_explain(layer, message):
    layer = layer()
    model = Sequential([keras.Input((STEPS, FEATURES)), layer])
    explainer = deepshap.DeepExplainer(model, np.zeros((1, STEPS, FEATURES), "float32"), progress=False)
    explainer.register_custom_handler(type(layer), deepshap.LSTMShapHandler())
    with pytest.raises(deepshap.InputError, match=f"{message}.*built-in treatment"):
        explainer.shap_values(np.ones((1, STEPS, FEATURES), "float32"))


UNDER_TORCH = """
import keras, numpy as np, torch, deepshap
from keras import layers as L
rng = np.random.default_rng(0)
cell = L.LSTMCell(3)
cell.build((None, 4))
rows, base = ([rng.normal(size=(n, k)).astype("float32") for k in (4, 3, 3)] for n in (2, 1))
hook = deepshap.register_lstm_shap_hook(cell, *base)
new, values = hook(*rows)
assert isinstance(new, torch.Tensor) and values["shap_x"].shape == (2, 3, 4)
total = sum(v.sum(-1) for v in values.values())
assert (total - (new - hook.base_output)).abs().max() < 1e-6
twin = torch.nn.LSTMCell(4, 3)
kernel, recurrent, bias = (keras.ops.convert_to_numpy(w) for w in cell.weights)
with torch.no_grad():
    for name, value in (("weight_ih", kernel.T), ("weight_hh", recurrent.T), ("bias_ih", bias), ("bias_hh", 0 * bias)):
        getattr(twin, name).copy_(torch.as_tensor(np.ascontiguousarray(value)))
wanted = deepshap.register_lstm_shap_hook(twin, *base)(*rows)[1]
assert all((values[name] - wanted[name]).abs().max() < 1e-6 for name in wanted)
x, r = (rng.normal(size=(n, 5, 4)).astype("float32") for n in (2, 3))
model = keras.Sequential([keras.Input((5, 4)), L.LSTM(3, return_sequences=True)])
explainer = deepshap.DeepExplainer(model, r, progress=False)
built_in = explainer.shap_values(x)
explainer.register_custom_handler(L.LSTM, deepshap.LSTMShapHandler())
assert np.abs(explainer.shap_values(x) - built_in).max() < 1e-5
assert "tensorflow" not in __import__("sys").modules
print("done")
"""


@pytest.mark.wide
def test_cells_and_the_handler_under_torch():
    assert run(UNDER_TORCH).strip() == "done"
