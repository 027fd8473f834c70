"""The slow oracle of Keras' layers: both sides of one pair through each, and multipliers back, in long doubles.

It stands on the cells and rules of ``oracle.py`` and knows a layer by its weights and options. Nothing here knows of the engines.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import oracle
from keras import layers as L

Array = np.ndarray


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


FUNCTIONS: dict[Any, Callable[[Array], Array]] = {
    keras.activations.linear: lambda z: z,
    keras.activations.tanh: np.tanh,
    keras.activations.sigmoid: oracle.sigmoid,
    keras.activations.relu: oracle.relu,
    keras.ops.exp: np.exp,
}


class Bent:
    """A function of each element."""

    def __init__(self, function: Any):
        self.function = FUNCTIONS[function]

    def run(self, x: Array, r: Array) -> tuple[Array, Array]:
        self.z = x, r
        return self.function(x), self.function(r)

    def back(self, m: Array) -> Array:
        linear = self.function is FUNCTIONS[keras.activations.linear]
        return m if linear else m * oracle.secant(self.function, *self.z)


class Dense:
    """A dense layer and its activation."""

    def __init__(self, layer: Any):
        self.kernel, self.bias = map(oracle.extended, layer.get_weights())
        self.bent = Bent(layer.activation)

    def run(self, x: Array, r: Array) -> tuple[Array, Array]:
        return self.bent.run(*(side @ self.kernel + self.bias for side in (x, r)))

    def back(self, m: Array) -> Array:
        return self.bent.back(m) @ self.kernel.T


class Convolution:
    """A convolution over the steps and its activation: a dense layer on windows, from the first step on or from zeros."""

    def __init__(self, layer: Any):
        kernel, self.bias = map(oracle.extended, layer.get_weights())
        self.size, self.kernel = len(kernel), kernel.reshape(-1, kernel.shape[-1])
        self.before, self.bent = (self.size - 1) * (layer.padding == "causal"), Bent(layer.activation)

    def windows(self, x: Array) -> Array:
        padded = np.concatenate([np.zeros((self.before, x.shape[1]), x.dtype), x])
        return np.stack([padded[t : t + self.size].ravel() for t in range(len(padded) - self.size + 1)])

    def run(self, x: Array, r: Array) -> tuple[Array, Array]:
        self.shape = x.shape
        return self.bent.run(*(self.windows(side) @ self.kernel + self.bias for side in (x, r)))

    def back(self, m: Array) -> Array:
        of_windows = self.bent.back(m) @ self.kernel.T
        found = np.zeros((self.before + self.shape[0], self.shape[1]), m.dtype)
        for t, window in enumerate(of_windows):
            found[t : t + self.size] += window.reshape(self.size, -1)
        return found[self.before :]


class Norm:
    """Layer norm of each step."""

    def __init__(self, layer: Any):
        (self.gamma, self.beta), self.eps = map(oracle.extended, layer.get_weights()), np.longdouble(layer.epsilon)

    def run(self, x: Array, r: Array) -> tuple[Array, Array]:
        self.sides, found = (x, r), []
        for side in self.sides:
            d = side - side.mean(-1, keepdims=True)
            found.append(d / np.sqrt((d**2).mean(-1, keepdims=True) + self.eps) * self.gamma + self.beta)
        return found[0], found[1]

    def back(self, m: Array) -> Array:
        steps = zip(*self.sides, m, strict=True)
        return np.stack([oracle.layer_norm(x, r, self.gamma, each, self.eps) for x, r, each in steps])


class Residual(L.Layer):
    """A layer of Keras: another one and its input."""

    def __init__(self, inner: Any):
        super().__init__()
        self.inner = inner

    def call(self, x: Any) -> Any:
        return x + self.inner(x)


class Sum:
    """What is around a layer, and the layer."""

    def __init__(self, layer: Any):
        self.part = KINDS[type(layer.inner)](layer.inner)

    def run(self, x: Array, r: Array) -> tuple[Array, Array]:
        y, y_ref = self.part.run(x, r)
        return x + y, r + y_ref

    def back(self, m: Array) -> Array:
        return m + self.part.back(m)


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
    L.Conv1D: Convolution,
    L.LayerNormalization: Norm,
    L.Activation: lambda layer: Bent(layer.activation),
    L.Lambda: lambda layer: Bent(layer.function),
    Residual: Sum,
    L.Attention: lambda layer: OwnAttention(),
    L.MultiHeadAttention: OneHead,
    L.GlobalAveragePooling1D: lambda layer: Mean(),
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
