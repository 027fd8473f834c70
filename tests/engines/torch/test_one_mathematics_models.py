"""The same weights in PyTorch, in Keras and in the slow oracle give the same attributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import oracle
import pytest
import torch
from helpers import assert_close, drawn
from keras import Sequential
from keras import layers as L
from keras_models import draw_weights, precision
from torch import Tensor, nn

import deepshap

pytestmark = pytest.mark.long

STEPS, FEATURES, UNITS = 5, 3, 4
DTYPES = {"float64": 1e-7, "float32": 1e-5}


# ---------------------------------------------------------------------- weights of Keras' layers in torch's
def arrays(layer: Any) -> list[np.ndarray]:
    """Return a layer's weights."""
    return [keras.ops.convert_to_numpy(weight) for weight in layer.weights]


def put(parameter: Tensor, value: np.ndarray) -> None:
    """Write a weight."""
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(value))


def put_cell(layer: Any, into: nn.RNNBase, suffix: str) -> None:
    """Write the weights of one direction of an LSTM, GRU (reset after the product) or SimpleRNN."""
    kernel, recurrent, bias = arrays(layer)
    biases = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    for name, value in {
        "weight_ih": kernel.T,
        "weight_hh": recurrent.T,
        "bias_ih": biases[0],
        "bias_hh": biases[1],
    }.items():
        if isinstance(layer, L.GRU):  # update, reset, candidate there; reset, update, candidate in torch
            z, r, n = np.split(value, 3)
            value = np.concatenate([r, z, n])
        put(getattr(into, f"{name}_{suffix}"), value)


def put_dense(layer: Any, into: nn.Module) -> None:
    """Write the weights of a dense layer or a 1D convolution."""
    kernel, bias = arrays(layer)
    put(into.weight, kernel.transpose(*range(kernel.ndim)[::-1]))
    put(into.bias, bias)


def put_attention(layer: Any, into: nn.MultiheadAttention) -> None:
    """Write the weights of multi-head attention."""
    *projections, kernel, bias = arrays(layer)
    width = kernel.shape[-1]
    put(into.in_proj_weight, np.concatenate([p.reshape(width, -1).T for p in projections[::2]]))
    put(into.in_proj_bias, np.concatenate([p.reshape(-1) for p in projections[1::2]]))
    put(into.out_proj.weight, kernel.reshape(-1, width).T)
    put(into.out_proj.bias, bias)


class Read(nn.Module):
    """A recurrent layer of torch, read at its last step (of either direction, in its own sense) or at all."""

    def __init__(self, layer: nn.RNNBase, whole: bool = False):
        super().__init__()
        self.layer, self.whole = layer, whole

    def forward(self, x: Tensor) -> Tensor:
        output, state = self.layer(x)
        if self.whole:
            return output
        state = state[0] if isinstance(state, tuple) else state
        return torch.cat(list(state[-2 if self.layer.bidirectional else -1 :]), 1)


def recurrent(kind: str, layers: list[Any], whole: bool, **options: Any) -> nn.Module:
    """Return torch's twin of a stack of Keras' recurrent layers."""
    twin = getattr(nn, kind)(FEATURES, UNITS, len(layers), batch_first=True, **options)
    for depth, layer in enumerate(layers):
        if isinstance(layer, L.Bidirectional):
            put_cell(layer.forward_layer, twin, f"l{depth}")
            put_cell(layer.backward_layer, twin, f"l{depth}_reverse")
        else:
            put_cell(layer, twin, f"l{depth}")
    return Read(twin, whole)


class ConvolutionThenAttention(nn.Module):
    """Convolution, LSTM, attention, mean, dense."""

    def __init__(self, model: Any):
        super().__init__()
        convolution, lstm, attention, _, dense = model.layers[1:]
        self.convolution, self.dense = nn.Conv1d(FEATURES, UNITS, 2), nn.Linear(UNITS, 2)
        self.recurrent = nn.LSTM(UNITS, UNITS, batch_first=True)
        self.attention = nn.MultiheadAttention(UNITS, 2, batch_first=True)
        put_dense(convolution, self.convolution)
        put_cell(lstm, self.recurrent, "l0")
        put_attention(attention, self.attention)
        put_dense(dense, self.dense)

    def forward(self, x: Tensor) -> Tensor:
        h = self.convolution(x.mT).relu().mT
        h, _ = self.recurrent(h)
        h, _ = self.attention(h, h, h)
        return self.dense(h.mean(1))


class ResetBefore(nn.Module):
    """A GRU that resets the state before the product, as Keras' does with reset_after=False."""

    def __init__(self, layer: Any):
        super().__init__()
        self.kernel, self.recurrent, self.bias = (nn.Parameter(torch.as_tensor(w)) for w in arrays(layer))

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), UNITS)
        W, U = self.recurrent[:, : 2 * UNITS], self.recurrent[:, 2 * UNITS :]
        for t in range(x.shape[1]):
            from_x, of_candidate = (x[:, t] @ self.kernel + self.bias).split([2 * UNITS, UNITS], 1)
            z, r = (from_x + h @ W).sigmoid().chunk(2, 1)
            h = z * h + (1 - z) * torch.tanh(of_candidate + (r * h) @ U)
        return h


# ---------------------------------------------------------------------- the pairs
def stack(*layers: Any) -> Any:
    """Return a Keras stack."""
    return Sequential([keras.Input((STEPS, FEATURES)), *layers])


def convolution_then_attention() -> Any:
    """Return a functional Keras model."""
    inputs = keras.Input((STEPS, FEATURES))
    h = L.LSTM(UNITS, return_sequences=True)(L.Conv1D(UNITS, 2, activation="relu")(inputs))
    h = L.MultiHeadAttention(2, UNITS // 2)(h, h)
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(h)))


def both_ways(kind: Any, **options: Any) -> Any:
    """Return a bidirectional layer."""
    return L.Bidirectional(kind(UNITS, **options))


PAIRS: dict[str, tuple[Callable[[], Any], Callable[[Any], nn.Module]]] = {
    "LSTM": (lambda: stack(L.LSTM(UNITS)), lambda m: recurrent("LSTM", m.layers, False)),
    "LSTM, sequences": (
        lambda: stack(L.LSTM(UNITS, return_sequences=True)),
        lambda m: recurrent("LSTM", m.layers, True),
    ),
    "GRU": (lambda: stack(L.GRU(UNITS)), lambda m: recurrent("GRU", m.layers, False)),
    "GRU, reset before": (lambda: stack(L.GRU(UNITS, reset_after=False)), lambda m: ResetBefore(m.layers[0])),
    "RNN": (lambda: stack(L.SimpleRNN(UNITS)), lambda m: recurrent("RNN", m.layers, False)),
    "RNN, relu": (
        lambda: stack(L.SimpleRNN(UNITS, activation="relu")),
        lambda m: recurrent("RNN", m.layers, False, nonlinearity="relu"),
    ),
    "bidirectional LSTM": (
        lambda: stack(both_ways(L.LSTM)),
        lambda m: recurrent("LSTM", m.layers, False, bidirectional=True),
    ),
    "bidirectional GRU, sequences": (
        lambda: stack(both_ways(L.GRU, return_sequences=True)),
        lambda m: recurrent("GRU", m.layers, True, bidirectional=True),
    ),
    "stacked LSTM": (
        lambda: stack(L.LSTM(UNITS, return_sequences=True), L.LSTM(UNITS)),
        lambda m: recurrent("LSTM", m.layers, False),
    ),
    "stacked bidirectional LSTM": (
        lambda: stack(both_ways(L.LSTM, return_sequences=True), both_ways(L.LSTM)),
        lambda m: recurrent("LSTM", m.layers, False, bidirectional=True),
    ),
    "CNN-LSTM with attention": (convolution_then_attention, ConvolutionThenAttention),
}


def pair(name: str, dtype: str) -> tuple[Any, nn.Module]:
    """Return a Keras model with drawn weights and its twin in torch."""
    build, twin = PAIRS[name]
    model = build()
    draw_weights(model)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))  # the twin's weights are made in it
    try:
        return model, twin(model).eval()
    finally:
        torch.set_default_dtype(before)


def rows(number: int, seed: int, dtype: str) -> np.ndarray:
    """Draw sequences."""
    return drawn(number, STEPS, FEATURES, seed=seed).numpy().astype(dtype)


def explained(model: Any, background: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Explain a model of either framework."""
    return deepshap.DeepExplainer(model, background, progress=False).shap_values(X)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PAIRS)
def test_both_frameworks_agree(name, dtype):
    with precision(dtype):
        model, twin = pair(name, dtype)
        X, background = rows(2, 1, dtype), rows(3, 2, dtype)
        wanted = explained(twin, background, X)
        assert_close(twin(torch.as_tensor(X)).detach().numpy(), model.predict(X, verbose=0), DTYPES[dtype])
        assert_close(explained(model, background, X), wanted, DTYPES[dtype])


@pytest.mark.parametrize(
    "name",
    [name for name in PAIRS if name not in ("CNN-LSTM with attention", "GRU, reset before")],
)
def test_keras_agrees_with_the_oracle(name):
    with precision("float64"):
        model, twin = pair(name, "float64")
        X, background = rows(1, 1, "float64"), rows(1, 2, "float64")
        found = explained(model, background, X)[0]
    layer, (x, r) = twin.layer, (oracle.extended(side[0]) for side in (X, background))
    copies, parts = layer.num_layers * (2 if layer.bidirectional else 1), 2 if layer.mode == "LSTM" else 1
    width = UNITS * (2 if layer.bidirectional else 1)
    zeros = [np.zeros((copies, UNITS), np.longdouble)] * parts
    for place in np.ndindex(found.shape[2:]):
        m_output, m_state = np.zeros((STEPS, width), np.longdouble), [z.copy() for z in zeros]
        if twin.whole:
            m_output[place] = 1
        else:  # the last hidden states of the last layer, one direction after the other
            m_state[0][copies - width // UNITS + place[0] // UNITS, place[0] % UNITS] = 1
        m, _ = oracle.recurrent(layer, x, r, zeros, zeros, m_output, m_state)
        assert_close(found[(..., *place)], (m * (x - r)).astype(float), 1e-9)


def test_the_single_step_agrees_with_torchs():
    """The new cell state of one step, for every size of the original request."""
    for features, units in ((3, 2), (10, 20), (5, 50), (100, 10)):
        with precision("float64"):
            cell = L.LSTMCell(units)
            cell.build((None, features))
            draw_weights(cell)

            class Step(keras.Model):
                def __init__(self, cell: Any, cuts: list[int]):
                    super().__init__()
                    self.cell, self.cuts = cell, cuts

                def call(self, inputs: Any) -> Any:
                    x, h, c = keras.ops.split(inputs, self.cuts, axis=-1)
                    return self.cell(x, [h, c])[1][1]

            X, R = (drawn(2, features + 2 * units, seed=seed).numpy() for seed in (1, 2))
            found = explained(Step(cell, [features, features + units]), R, X)
        twin = nn.LSTMCell(features, units).double()
        kernel, recurrent_kernel, bias = arrays(cell)
        put(twin.weight_ih, kernel.T)
        put(twin.weight_hh, recurrent_kernel.T)
        put(twin.bias_ih, bias)
        put(twin.bias_hh, np.zeros_like(bias))

        def step(inputs: Tensor, twin: nn.LSTMCell = twin, sizes: list[int] = [features, units, units]) -> Tensor:  # noqa: B006
            x, h, c = inputs.split(sizes, 1)
            return twin(x, (h, c))[1]

        assert_close(found, explained(step, torch.as_tensor(R), torch.as_tensor(X)), 1e-7)
