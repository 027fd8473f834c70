"""Keras models against slow, obvious formulas in NumPy with the models' own weights, and against exact Shapley values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf
from helpers import assert_close
from keras import Sequential, ops
from keras import layers as L
from keras_models import draw_weights, functional, precision

import deepshap

STEPS, FEATURES, UNITS = 4, 3, 3
Array = np.ndarray


# ---------------------------------------------------------------------- layers, both sides of one pair
class ResetBefore(oracle.GRU):
    """One step of a GRU that resets the state before the product, and its multipliers."""

    def step(self, x: Array, state: list[Array]) -> dict[str, Any]:
        (h,) = state
        (W_r, W_z, W_n), (U_r, U_z, U_n), (b_r, b_z, b_n) = (np.split(v, 3) for v in (self.W, self.U, sum(self.bias)))
        z_r, z_z = W_r @ x + U_r @ h + b_r, W_z @ x + U_z @ h + b_z
        r, u = oracle.sigmoid(z_r), oracle.sigmoid(z_z)
        z_n = W_n @ x + U_n @ (r * h) + b_n
        n = np.tanh(z_n)
        return {"z_r": z_r, "z_z": z_z, "z_n": z_n, "r": r, "u": u, "n": n, "h": h, "state": [(1 - u) * n + u * h]}

    def back(self, a: dict[str, Any], b: dict[str, Any], M: list[Array]) -> tuple[Array, list[Array]]:
        (M_h,), U_n = M, np.split(self.U, 3)[2]
        m_u = M_h * (oracle.mean(a["h"], b["h"]) - oracle.mean(a["n"], b["n"]))
        m_zz = m_u * oracle.secant(oracle.sigmoid, a["z_z"], b["z_z"])
        m_zn = M_h * (1 - oracle.mean(a["u"], b["u"])) * oracle.secant(np.tanh, a["z_n"], b["z_n"])
        m_reset = U_n.T @ m_zn  # of r * h
        m_zr = m_reset * oracle.mean(a["h"], b["h"]) * oracle.secant(oracle.sigmoid, a["z_r"], b["z_r"])
        of_gates = self.U[: -len(M_h)].T @ np.concatenate([m_zr, m_zz])
        before = of_gates + m_reset * oracle.mean(a["r"], b["r"]) + M_h * oracle.mean(a["u"], b["u"])
        return self.W.T @ np.concatenate([m_zr, m_zz, m_zn]), [before]


def cell_of(layer: Any) -> oracle.LSTM:
    """The slow cell with the weights of one of Keras' layers."""
    kernel, recurrent, bias = (w.T for w in layer.get_weights())
    biases = bias.T if bias.ndim == 2 else (bias, np.zeros_like(bias))
    if isinstance(layer, L.GRU):  # update, reset, candidate there; reset, update, candidate here
        kernel, recurrent, *biases = (
            np.concatenate([np.split(w, 3)[k] for k in (1, 0, 2)]) for w in (kernel, recurrent, *(b.T for b in biases))
        )
    given = {"weight_ih_l0": kernel, "weight_hh_l0": recurrent, "bias_ih_l0": biases[0], "bias_hh_l0": biases[1]}
    kinds = {L.LSTM: oracle.LSTM, L.SimpleRNN: oracle.RNN, L.GRU: oracle.GRU}
    kind = ResetBefore if isinstance(layer, L.GRU) and not layer.reset_after else kinds[type(layer)]
    return kind(SimpleNamespace(**given), "l0")


class Recurrent:
    """A recurrent layer from zeros: all its states, or the last one."""

    def __init__(self, layer: Any, backwards: bool = False, whole: bool | None = None):
        self.cell, self.backwards = cell_of(layer), backwards
        self.whole = layer.return_sequences if whole is None else whole
        self.zeros = [np.zeros(layer.units, np.longdouble)] * (2 if isinstance(layer, L.LSTM) else 1)

    def turned(self, values: Array) -> Array:
        return values[::-1] if self.backwards else values

    def run(self, x: Array, r: Array) -> tuple[Array, Array]:
        self.direction = oracle.Direction(self.cell, self.turned(x), self.turned(r), self.zeros, self.zeros)
        sides = self.direction.outputs()
        return tuple(self.turned(side) if self.whole else side[-1] for side in sides)

    def back(self, m: Array) -> Array:
        steps = len(self.direction.a)
        m = self.turned(m) if self.whole else np.concatenate([np.zeros((steps - 1, len(m))), m[None]])
        return self.turned(self.direction.back(m, self.zeros)[0])


class BothWays:
    """Two directions, side by side, added or multiplied."""

    def __init__(self, layer: Any):
        self.mode, whole = layer.merge_mode, layer.return_sequences
        self.ways = [Recurrent(layer.forward_layer, False, whole), Recurrent(layer.backward_layer, True, whole)]

    def run(self, x: Array, r: Array) -> tuple[Array, Array]:
        (a, a_ref), (b, b_ref) = self.sides = [way.run(x, r) for way in self.ways]
        merged = {"concat": lambda u, v: np.concatenate([u, v], -1), "sum": np.add, "mul": np.multiply}[self.mode]
        return merged(a, b), merged(a_ref, b_ref)

    def back(self, m: Array) -> Array:
        (a, a_ref), (b, b_ref) = self.sides
        of_a, of_b = {
            "concat": lambda: np.split(m, 2, -1),
            "sum": lambda: (m, m),
            "mul": lambda: (m * oracle.mean(b, b_ref), m * oracle.mean(a, a_ref)),
        }[self.mode]()
        return self.ways[0].back(of_a) + self.ways[1].back(of_b)


class Dense:
    """A dense layer, with tanh behind it or not."""

    def __init__(self, layer: Any):
        self.kernel, self.bias = map(oracle.extended, layer.get_weights())
        self.bent = layer.activation is keras.activations.tanh

    def run(self, x: Array, r: Array) -> tuple[Array, Array]:
        self.z = [side @ self.kernel + self.bias for side in (x, r)]
        return tuple(np.tanh(z) if self.bent else z for z in self.z)

    def back(self, m: Array) -> Array:
        return (m * oracle.secant(np.tanh, *self.z) if self.bent else m) @ self.kernel.T


class OwnAttention:
    """Attention of a sequence to itself: softmax(h h') h."""

    def run(self, x: Array, r: Array) -> tuple[Array, Array]:
        self.sides = x, r
        self.scores = [side @ side.T for side in (x, r)]
        self.shares = [np.exp(s) / np.exp(s).sum(1, keepdims=True) for s in self.scores]
        return tuple(p @ side for p, side in zip(self.shares, self.sides, strict=True))

    def back(self, m: Array) -> Array:
        middle = oracle.mean(*self.sides)
        m_p, m_v = m @ middle.T, oracle.mean(*self.shares).T @ m
        m_s = np.stack([oracle.softmax(*rows) for rows in zip(*self.scores, m_p, strict=True)])
        return m_s @ middle + m_s.T @ middle + m_v


class OneHead:
    """Multi-head attention with one head and no biases."""

    def __init__(self, layer: Any):
        *projections, out = layer.get_weights()
        self.weights, self.out = [oracle.extended(w[:, 0].T) for w in projections], oracle.extended(out[0])

    def run(self, x: Array, r: Array) -> tuple[Array, Array]:
        self.sides, found = (x, r), []
        for side in self.sides:
            q, k, v = (side @ w.T for w in self.weights)
            scores = np.exp(q @ k.T / np.sqrt(oracle.extended(q.shape[1])))
            found.append(scores / scores.sum(1, keepdims=True) @ v @ self.out)
        return tuple(found)

    def back(self, m: Array) -> Array:
        return oracle.attention(*self.sides, self.weights, m @ self.out.T)


class Mean:
    """The mean over the steps."""

    def run(self, x: Array, r: Array) -> tuple[Array, Array]:
        self.steps = len(x)
        return x.mean(0), r.mean(0)

    def back(self, m: Array) -> Array:
        return np.tile(m / self.steps, (self.steps, 1))


KINDS: dict[type, Callable[[Any], Any]] = {
    L.LSTM: Recurrent,
    L.GRU: Recurrent,
    L.SimpleRNN: Recurrent,
    L.Bidirectional: BothWays,
    L.Dense: Dense,
    L.Attention: lambda layer: OwnAttention(),
    L.MultiHeadAttention: OneHead,
    L.GlobalAveragePooling1D: lambda layer: Mean(),
}


# ---------------------------------------------------------------------- models
def stack(*layers: Any) -> Any:
    """One layer behind the other; attention is of a sequence to itself."""

    def run(x: Any) -> Any:
        for layer in layers:
            given = {L.MultiHeadAttention: (x, x), L.Attention: ([x, x],)}.get(type(layer), (x,))
            x = layer(*given)
        return x

    return functional((STEPS, FEATURES), run)


def lstm(**options: Any) -> Any:
    """An LSTM."""
    return L.LSTM(UNITS, **options)


MODELS: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: stack(lstm(), L.Dense(2)),
    "LSTM, sequences": lambda: stack(lstm(return_sequences=True)),
    "GRU": lambda: stack(L.GRU(UNITS), L.Dense(2)),
    "GRU, reset before": lambda: stack(L.GRU(UNITS, reset_after=False, return_sequences=True)),
    "SimpleRNN": lambda: stack(L.SimpleRNN(UNITS), L.Dense(2, activation="tanh")),
    "bidirectional LSTM": lambda: stack(L.Bidirectional(lstm()), L.Dense(2)),
    "bidirectional GRU, added": lambda: stack(L.Bidirectional(L.GRU(UNITS, return_sequences=True), merge_mode="sum")),
    "bidirectional RNN, multiplied": lambda: stack(L.Bidirectional(L.SimpleRNN(UNITS), merge_mode="mul")),
    "stack of three": lambda: stack(
        lstm(return_sequences=True), L.GRU(UNITS, reset_after=False, return_sequences=True), L.SimpleRNN(2)
    ),
    "LSTM with attention": lambda: stack(
        lstm(return_sequences=True), L.Attention(), L.GlobalAveragePooling1D(), L.Dense(2)
    ),
    "bidirectional LSTM with a head of attention": lambda: stack(
        L.Bidirectional(lstm(return_sequences=True)),
        L.MultiHeadAttention(1, 4, use_bias=False),
        L.GlobalAveragePooling1D(),
        L.Dense(2, activation="tanh"),
    ),
}


def slowly(model: Any, x: Array, r: Array) -> tuple[Array, Array, Array]:
    """Attributions (..., outputs) of one pair, and both outputs."""
    parts = [KINDS[type(layer)](layer) for layer in model.layers[1:]]
    a, b = sides = oracle.extended(x), oracle.extended(r)
    for part in parts:
        a, b = part.run(a, b)
    columns = []
    for seed in np.eye(a.size, dtype=np.longdouble):
        m = seed.reshape(a.shape)
        for part in reversed(parts):
            m = part.back(m)
        columns.append(m * (sides[0] - sides[1]))
    return np.stack(columns, -1).reshape(*x.shape, *a.shape), a, b


def rows(number: int, seed: int, *shape: int) -> Array:
    """Draw rows in float64."""
    return np.random.default_rng(seed).normal(size=(number, *shape))


@pytest.mark.parametrize("name", MODELS)
def test_the_slow_formulas_agree(name):
    with precision("float64"):
        model = MODELS[name]()
        draw_weights(model)
        X, R = rows(2, 1, STEPS, FEATURES), rows(2, 2, STEPS, FEATURES)
        explanation = deepshap.DeepExplainer(model, R, progress=False)(X)
        outputs = model.predict(X, verbose=0)
    for row, x in enumerate(X):
        found = [slowly(model, x, r) for r in R]
        for values, a, b in found:
            assert_close(values.sum((0, 1)), a - b, 1e-15)  # the formulas are complete, to the rounding of long doubles
            assert_close(a.astype(float), outputs[row], 1e-12)
        wanted = np.mean([values for values, _, _ in found], 0).astype(float)
        assert_close(explanation.values[row], wanted, 1e-10)


# ---------------------------------------------------------------------- where Deep SHAP is the Shapley value
def halves(function: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """A function of the first and the last two of four features."""
    return lambda x: function(x[:, :2], x[:, 2:])


def of_features(*layers: Any) -> Any:
    """A stack on four features."""
    return Sequential([keras.Input((4,)), *layers])


def cell_state() -> Any:
    """The cell state of an LSTM without bends after one step: a product of two linear functions."""
    cell = L.LSTM(2, activation="linear", recurrent_activation="linear", return_state=True)
    return functional((4,), lambda x: cell(ops.expand_dims(x, 1))[2])


EXACT: dict[str, Callable[[], Any]] = {
    "dense": lambda: of_features(L.Dense(3), L.Dense(2)),
    "a recurrent layer without bends": lambda: of_features(L.Reshape((2, 2)), L.SimpleRNN(3, activation="linear")),
    "convolution": lambda: of_features(L.Reshape((4, 1)), L.Conv1D(2, 2), L.AveragePooling1D(2), L.Flatten()),
    "batch norm": lambda: of_features(L.BatchNormalization(), L.Dense(2)),
    "functions of one feature each": lambda: of_features(L.Activation("tanh"), L.Dense(2)),
    "product of two layers": lambda: functional((4,), lambda x: L.Multiply()([L.Dense(2)(x), L.Dense(2)(x)])),
    "dot": lambda: functional((4,), lambda x: L.Dot(1)([L.Dense(3)(x), L.Dense(3)(x)])),
    "scores of attention": lambda: functional(
        (4,), lambda x: (lambda h: ops.matmul(h, ops.swapaxes(h, 1, 2)))(L.Reshape((2, 2))(x))
    ),
    "cell state of one step": cell_state,
    "product": lambda: halves(tf.multiply),
    "quotient": lambda: halves(lambda a, b: a / (b**2 + 1)),
    "maximum of two": lambda: halves(tf.maximum),
    "power": lambda: halves(lambda a, b: (tf.abs(a) + 0.1) ** b),
    "arc tangent of two": lambda: halves(lambda a, b: tf.atan2(tf.abs(a), tf.abs(b))),
    "choice": lambda: halves(lambda a, b: tf.where(a > 0, b, tf.zeros_like(b))),
    "square of a sum": lambda: lambda x: tf.reduce_sum(x, 1, keepdims=True) ** 2,
    "variance": lambda: lambda x: tf.math.reduce_variance(x, 1, keepdims=True),
    "a loop of sums": lambda: lambda x: tf.scan(lambda h, z: h + tf.sin(z), tf.transpose(x))[-1][:, None],
}


def exact_values(call: Callable[[Any], Any], X: Array, R: Array) -> Array:
    """Mean over the references of the Shapley values by all coalitions."""
    return np.stack(
        [np.mean([oracle.shapley(lambda row: np.asarray(call(row[None]))[0], x, r) for r in R], 0) for x in X]
    )


@pytest.mark.parametrize("name", EXACT)
def test_equal_to_all_coalitions(name):
    with precision("float64"):
        model = EXACT[name]()
        if isinstance(model, keras.Model):
            draw_weights(model)
        X, R = rows(1, 1, 4), rows(2, 2, 4)
        found = deepshap.DeepExplainer(model, tf.constant(R), progress=False).shap_values(tf.constant(X))
        assert_close(found, exact_values(lambda row: model(tf.constant(row)), X, R))


def test_tokens_are_players():
    """Where the embeddings are only added up, a token's attribution is its Shapley value."""
    with precision("float64"):
        model = Sequential([keras.Input((4,), dtype="int32"), L.Embedding(9, 3), L.Flatten(), L.Dense(2)])
        draw_weights(model)
        X, R = (np.random.default_rng(seed).integers(0, 9, (number, 4)) for seed, number in ((1, 2), (2, 3)))
        found = deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
        assert_close(found, exact_values(lambda ids: model(np.asarray(ids, "int32")), X, R))


# ---------------------------------------------------------------------- symmetry, and features without influence
SYMMETRIC: Sequence[Callable[[Any], Any]] = (
    lambda x: tf.reduce_max(x, 1, keepdims=True),
    lambda x: tf.reduce_min(x, 1, keepdims=True),
    lambda x: tf.reduce_logsumexp(x, 1, keepdims=True),
    lambda x: tf.norm(x, axis=1, keepdims=True),
    lambda x: tf.math.reduce_std(x, 1, keepdims=True),
    lambda x: tf.reduce_prod(x, 1, keepdims=True),
    lambda x: tf.sort(x, 1),
    lambda x: tf.math.top_k(x, 2).values,
)


def test_the_order_of_the_features_does_not_matter():
    X, R, order = rows(2, 1, 4), rows(3, 2, 4), [2, 0, 3, 1]

    def all_of_them(x: Any) -> Any:
        return tf.concat([function(x) for function in SYMMETRIC], 1)

    def explained(X: Array, R: Array) -> Array:
        return deepshap.DeepExplainer(tf.function(all_of_them), R, progress=False).shap_values(X)

    assert_close(explained(X[:, order], R[:, order]), explained(X, R)[:, order])


def test_features_without_influence_get_exactly_zero():
    model = tf.function(lambda x: tf.tanh(x[:, :2] * x[:, 1:3]))
    found = deepshap.DeepExplainer(model, rows(3, 2, 4), progress=False).shap_values(rows(2, 1, 4))
    assert (found[:, 3] == 0).all()
    assert (found[:, :3] != 0).any((0, 2)).all()
