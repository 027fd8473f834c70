"""Slow, obvious versions of the rules: one pair of example and reference, loops over steps, NumPy.

Everything is written from the formulas of docs/mathematics.md, knows nothing of the library, and works in extended
precision, where a secant is simply a quotient. ``a`` is the example's side, ``b`` the reference's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
from torch import nn

Array = np.ndarray


def extended(values: Any) -> Array:
    """Return an array (or tensor) in extended precision."""
    return np.asarray(values.detach().numpy() if hasattr(values, "detach") else values).astype(np.longdouble)


# ---------------------------------------------------------------------- functions, derivatives, secants
def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z))."""
    return 1 / (1 + np.exp(-z))


def relu(z: Array) -> Array:
    """max(z, 0)."""
    return np.maximum(z, 0)


DERIVATIVES: dict[Callable[[Array], Array], Callable[[Array], Array]] = {
    np.tanh: lambda z: 1 - np.tanh(z) ** 2,
    np.exp: np.exp,
    np.log: lambda z: 1 / z,
    sigmoid: lambda z: sigmoid(z) * (1 - sigmoid(z)),
    relu: lambda z: (z > 0).astype(z.dtype),
}


def secant(function: Callable[[Array], Array], a: Array, b: Array) -> Array:
    """(f(a) - f(b)) / (a - b), the derivative where a and b are the same."""
    distance = np.where(a == b, 1, a - b)
    return np.where(a == b, DERIVATIVES[function](a), (function(a) - function(b)) / distance)


def mean(a: Array, b: Array) -> Array:
    """Mean of the two sides."""
    return (a + b) / 2


# ---------------------------------------------------------------------- rules
def product(a: Array, b: Array, a_ref: Array, b_ref: Array) -> tuple[Array, Array]:
    """Multipliers of both factors of a product."""
    return mean(b, b_ref), mean(a, a_ref)


def quotient(a: Array, b: Array, a_ref: Array, b_ref: Array) -> tuple[Array, Array]:
    """Multipliers of a / b."""
    return mean(1 / b, 1 / b_ref), -(a + a_ref) / (2 * b * b_ref)


def two_players(
    function: Callable[[Array, Array], Array], a: Array, b: Array, a_ref: Array, b_ref: Array
) -> tuple[Array, Array]:
    """Attributions (not multipliers) of both arguments of any function."""
    of_a = (function(a, b) - function(a_ref, b) + function(a, b_ref) - function(a_ref, b_ref)) / 2
    of_b = (function(a, b) - function(a, b_ref) + function(a_ref, b) - function(a_ref, b_ref)) / 2
    return of_a, of_b


def logsumexp(z: Array, r: Array) -> Array:
    """Multipliers of logsumexp: secant of the logarithm times secants of the exponentials."""
    return secant(np.log, np.exp(z).sum(), np.exp(r).sum()) * secant(np.exp, z, r)


def log_softmax(z: Array, r: Array, m: Array) -> Array:
    """Multipliers of log_softmax for the output multipliers m."""
    return m - m.sum() * logsumexp(z, r)


def softmax(z: Array, r: Array, m: Array) -> Array:
    """Multipliers of softmax = exp(log_softmax)."""
    u, u_ref = (side - np.log(np.exp(side).sum()) for side in (z, r))
    return log_softmax(z, r, m * secant(np.exp, u, u_ref))


def greatest(x: Array, r: Array) -> Array:
    """Multipliers of the maximum of a vector: a rise goes to its new place, a fall to its old one."""
    i, j, m = int(np.argmax(x)), int(np.argmax(r)), np.zeros_like(x)
    if i == j:
        m[i] = 1
    elif x[i] > r[j]:
        m[i] = (x[i] - r[j]) / (x[i] - r[i])
    else:
        m[j] = (x[i] - r[j]) / (x[j] - r[j])
    return m


def layer_norm(x: Array, r: Array, weight: Array, m: Array, eps: float = 1e-5) -> Array:
    """Multipliers of layer norm: mean, variance, reciprocal root and product."""
    d, d_ref = x - x.mean(), r - r.mean()
    variance, variance_ref = (d**2).mean() + eps, (d_ref**2).mean() + eps
    q, q_ref = 1 / np.sqrt(variance), 1 / np.sqrt(variance_ref)
    root = -q * q_ref / (np.sqrt(variance) + np.sqrt(variance_ref))
    m_d, m_q = m * weight * mean(q, q_ref), (m * weight * mean(d, d_ref)).sum()
    m_d = m_d + m_q * root * (d + d_ref) / len(x)
    return m_d - m_d.mean()


def attention(x: Array, r: Array, weights: Sequence[Array], m: Array) -> Array:
    """Multipliers of one head of attention, softmax(Q K' / sqrt d) V, on a sequence (steps, features)."""
    (q, k, v), (q_ref, k_ref, v_ref) = ([side @ w.T for w in weights] for side in (x, r))
    scale = 1 / np.sqrt(extended(q.shape[-1]))
    scores, scores_ref = q @ k.T * scale, q_ref @ k_ref.T * scale
    p, p_ref = (np.exp(s) / np.exp(s).sum(1, keepdims=True) for s in (scores, scores_ref))
    m_p, m_v = m @ mean(v, v_ref).T, mean(p, p_ref).T @ m
    m_s = np.stack([softmax(*rows) for rows in zip(scores, scores_ref, m_p, strict=True)]) * scale
    m_q, m_k = m_s @ mean(k, k_ref), m_s.T @ mean(q, q_ref)
    return sum(m_part @ w for m_part, w in zip((m_q, m_k, m_v), weights, strict=True))


# ---------------------------------------------------------------------- Shapley values
def shapley(function: Callable[[Array], Array], x: Array, r: Array) -> Array:
    """Shapley values of a vector's elements, from all coalitions: (elements, *outputs)."""
    players = range(len(x))

    def value(coalition: tuple[int, ...]) -> Array:
        return function(np.where(np.isin(players, coalition), x, r))

    def share(player: int) -> Array:
        others = [p for p in players if p != player]
        return sum(
            factorial(size)
            * factorial(len(others) - size)
            / factorial(len(x))
            * (value((*coalition, player)) - value(coalition))
            for size in range(len(x))
            for coalition in combinations(others, size)
        )

    return np.stack([share(player) for player in players])


# ---------------------------------------------------------------------- recurrent cells
class LSTM:
    """One LSTM step and its multipliers; the state is (h, c)."""

    def __init__(self, layer: nn.RNNBase, suffix: str):
        self.W, self.U = (extended(getattr(layer, f"weight_{side}h_{suffix}")) for side in "ih")
        zeros = np.zeros(len(self.W))
        self.bias = [extended(getattr(layer, f"bias_{s}h_{suffix}", zeros)) for s in "ih"]
        self.P = extended(getattr(layer, f"weight_hr_{suffix}", np.eye(self.W.shape[0] // 4)))

    def step(self, x: Array, state: list[Array]) -> dict[str, Any]:
        h, c_before = state
        z = np.split(self.W @ x + self.U @ h + sum(self.bias), 4)
        i, f, g, o = sigmoid(z[0]), sigmoid(z[1]), np.tanh(z[2]), sigmoid(z[3])
        c = f * c_before + i * g
        return {
            "z": z,
            "i": i,
            "f": f,
            "g": g,
            "o": o,
            "c_before": c_before,
            "c": c,
            "state": [self.P @ (o * np.tanh(c)), c],
        }

    def back(self, a: dict[str, Any], b: dict[str, Any], M: list[Array]) -> tuple[Array, list[Array]]:
        M_h, M_c = self.P.T @ M[0], M[1]
        m_o = M_h * mean(np.tanh(a["c"]), np.tanh(b["c"]))
        M_c = M_c + M_h * mean(a["o"], b["o"]) * secant(np.tanh, a["c"], b["c"])
        m_i, m_g = M_c * mean(a["g"], b["g"]), M_c * mean(a["i"], b["i"])
        m_f, M_c_before = M_c * mean(a["c_before"], b["c_before"]), M_c * mean(a["f"], b["f"])
        gates = zip((m_i, m_f, m_g, m_o), (sigmoid, sigmoid, np.tanh, sigmoid), a["z"], b["z"], strict=True)
        m_z = np.concatenate([m * secant(function, *sides) for m, function, *sides in gates])
        return self.W.T @ m_z, [self.U.T @ m_z, M_c_before]


class GRU(LSTM):
    """One GRU step and its multipliers; the state is (h,)."""

    def step(self, x: Array, state: list[Array]) -> dict[str, Any]:
        (h,) = state
        from_x, from_h = np.split(self.W @ x + self.bias[0], 3), np.split(self.U @ h + self.bias[1], 3)
        z_r, z_z, q = from_x[0] + from_h[0], from_x[1] + from_h[1], from_h[2]
        z_n = from_x[2] + sigmoid(z_r) * q
        update, candidate = sigmoid(z_z), np.tanh(z_n)
        return {
            "z_r": z_r, "z_z": z_z, "z_n": z_n, "q": q, "r": sigmoid(z_r), "u": update, "n": candidate, "h": h,
            "state": [(1 - update) * candidate + update * h],
        }  # fmt: skip

    def back(self, a: dict[str, Any], b: dict[str, Any], M: list[Array]) -> tuple[Array, list[Array]]:
        (M_h,) = M
        m_u = M_h * (mean(a["h"], b["h"]) - mean(a["n"], b["n"])) * secant(sigmoid, a["z_z"], b["z_z"])
        m_n = M_h * (1 - mean(a["u"], b["u"])) * secant(np.tanh, a["z_n"], b["z_n"])
        m_r = m_n * mean(a["q"], b["q"]) * secant(sigmoid, a["z_r"], b["z_r"])
        m_q = m_n * mean(a["r"], b["r"])
        before = self.U.T @ np.concatenate([m_r, m_u, m_q]) + M_h * mean(a["u"], b["u"])
        return self.W.T @ np.concatenate([m_r, m_u, m_n]), [before]


class RNN(LSTM):
    """One step of a simple recurrent cell; the state is (h,)."""

    function: Callable[[Array], Array] = staticmethod(np.tanh)

    def step(self, x: Array, state: list[Array]) -> dict[str, Any]:
        z = self.W @ x + self.U @ state[0] + sum(self.bias)
        return {"z": z, "state": [self.function(z)]}

    def back(self, a: dict[str, Any], b: dict[str, Any], M: list[Array]) -> tuple[Array, list[Array]]:
        m_z = M[0] * secant(self.function, a["z"], b["z"])
        return self.W.T @ m_z, [self.U.T @ m_z]


class ReluRNN(RNN):
    """The same with ReLU."""

    function = staticmethod(relu)


CELLS = {"LSTM": LSTM, "GRU": GRU, "RNN_TANH": RNN, "RNN_RELU": ReluRNN}


# ---------------------------------------------------------------------- recurrent layers
class Direction:
    """One direction of one layer, run on both sides of a pair."""

    def __init__(self, cell: LSTM, x: Array, r: Array, state: list[Array], state_ref: list[Array]):
        self.cell = cell
        self.a, self.b = self._run(x, state), self._run(r, state_ref)

    def _run(self, x: Array, state: list[Array]) -> list[dict[str, Any]]:
        steps = []
        for row in x:
            steps.append(self.cell.step(row, state))
            state = steps[-1]["state"]
        return steps

    def outputs(self) -> tuple[Array, Array]:
        """Return the hidden states of all steps, both sides."""
        return tuple(np.stack([step["state"][0] for step in side]) for side in (self.a, self.b))

    def back(self, m_output: Array, M: list[Array]) -> tuple[Array, list[Array]]:
        """Multipliers of the input and of the initial state, from those of the output and the last state."""
        m_x = []
        for a, b, m in zip(self.a[::-1], self.b[::-1], m_output[::-1], strict=True):
            m_step, M = self.cell.back(a, b, [M[0] + m, *M[1:]])
            m_x.append(m_step)
        return np.stack(m_x[::-1]), M


def recurrent(
    layer: nn.RNNBase, x: Array, r: Array, state: Any, state_ref: Any, m_output: Array, m_state: Any
) -> tuple[Array, list[Array]]:
    """Multipliers of the input (steps, features) and of the initial states of a recurrent layer.

    ``state``, ``state_ref`` and ``m_state`` hold one array (layers * directions, units) per part of the state.
    """
    ways, cell = 2 if layer.bidirectional else 1, CELLS[layer.mode]
    runs: list[list[Direction]] = []
    a, b = x, r
    for depth in range(layer.num_layers):
        suffixes = [f"l{depth}", f"l{depth}_reverse"][:ways]
        runs.append([])
        for way, suffix in enumerate(suffixes):
            first, first_ref = ([part[depth * ways + way] for part in s] for s in (state, state_ref))
            sides = (a, b) if way == 0 else (a[::-1], b[::-1])
            runs[-1].append(Direction(cell(layer, suffix), *sides, first, first_ref))
        outputs = [run.outputs() for run in runs[-1]]
        a, b = (np.concatenate([o[s] if way == 0 else o[s][::-1] for way, o in enumerate(outputs)], 1) for s in (0, 1))
    m, m_first = m_output, [np.zeros_like(part) for part in m_state]
    for depth in reversed(range(layer.num_layers)):
        parts = np.split(m, ways, 1)
        m = 0
        for way, run in enumerate(runs[depth]):
            at = depth * ways + way
            m_way, M = run.back(parts[way] if way == 0 else parts[way][::-1], [part[at] for part in m_state])
            m = m + (m_way if way == 0 else m_way[::-1])
            for part, value in zip(m_first, M, strict=True):
                part[at] = value
    return m, m_first
