"""The library's multipliers equal the slow ones of ``oracle.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
import torch
from helpers import assert_close, built, drawn, values
from models import DEEP, KINDS, Cells, Chain, HandGRU, HandLSTM, Packed, Recurrent
from torch import Tensor, nn

import deepshap


# ---------------------------------------------------------------------- recurrent layers
def oracle_values(model: Recurrent, x: Tensor, r: Tensor) -> np.ndarray:
    """Explain one row of a ``Recurrent`` that returns all its results, flattened."""
    layer, sides = model.layer, [oracle.extended(x), oracle.extended(r)]
    states = [[oracle.extended(part[:, 0]) for part in initial(model, side)] for side in (x, r)]
    steps, width = len(x), layer(x[None])[0].shape[-1]
    parts = [np.zeros((steps, width)), *(np.zeros_like(part) for part in states[0])]
    if len(states[0]) == 1:
        parts.append(np.zeros_like(parts[1]))  # GRU and RNN hand out h_n once more in place of c_n
    size = sum(part.size for part in parts)
    columns = []
    for column in range(size):
        seeds = np.split(np.eye(size)[column], np.cumsum([part.size for part in parts])[:-1])
        m_output, *m_state = (seed.reshape(part.shape) for seed, part in zip(seeds, parts, strict=True))
        if len(states[0]) == 1:
            m_state = [m_state[0] + m_state[1]]
        m, m_first = oracle.recurrent(layer, *sides, *states, m_output, m_state)
        columns.append(m * (sides[0] - sides[1]) + through_start(model, m_first, sides))
    return np.stack(columns, -1)


def initial(model: Recurrent, x: Tensor) -> tuple[Tensor, ...]:
    """Return the initial state of one row."""
    if model.start == "zeros":
        return tuple(torch.zeros(copies, 1, size) for copies, size in model.sizes)
    return tuple(model.first(i, x[None], *size) for i, size in enumerate(model.sizes))


def through_start(model: Recurrent, m_first: list[np.ndarray], sides: list[np.ndarray]) -> np.ndarray:
    """Attributions that reach the first step through a computed initial state."""
    result = np.zeros_like(sides[0])
    if model.start == "computed":
        for encode, m in zip(model.encode, m_first, strict=True):
            result[0] += (m.flatten() @ oracle.extended(encode.weight)) * (sides[0] - sides[1])[0]
    return result


@pytest.mark.parametrize("start", ["zeros", "learned", "computed"])
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"num_layers": 3}, {"bidirectional": True}, DEEP],
    ids=lambda options: ", ".join(options) or "plain",
)
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_layers(kind, options, start):
    model = built(Recurrent(kind, "all", start, **options))
    X, R = drawn(1, 4, 3, seed=1), drawn(2, 4, 3, seed=2)
    wanted = np.mean([oracle_values(model, X[0], r) for r in R], 0)
    assert_close(values(model, X, R)[0], wanted)


@pytest.mark.parametrize("options", [{}, DEEP], ids=["plain", "deep"])
def test_projected_lstm(options):
    model = built(Recurrent("LSTM", "all", "computed", units=3, proj_size=2, **options))
    X, R = drawn(1, 4, 3, seed=1), drawn(1, 4, 3, seed=2)
    assert_close(values(model, X, R)[0], oracle_values(model, X[0], R[0]))


@pytest.mark.parametrize("use", ["output", "h_n"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_layers_equal_each_row_cut_to_its_length(kind, use):
    model, cut = built(Packed(kind, use, **DEEP)), built(Recurrent(kind, use, **DEEP))
    X, R, lengths = drawn(3, 4, 3, seed=1), drawn(2, 4, 3, seed=2), torch.tensor([2, 4, 1])
    cut.layer = model.layer
    found = values(model, X, R, lengths)
    for row, length in enumerate(lengths.tolist()):
        wanted = np.zeros_like(found[row])
        part = values(cut, X[row : row + 1, :length], R[:, :length])[0]
        wanted[tuple(slice(0, size) for size in part.shape)] = part
        assert_close(found[row], wanted)


# ---------------------------------------------------------------------- twins
@pytest.mark.parametrize(
    ("cells", "layer"), [(nn.LSTMCell, nn.LSTM), (nn.GRUCell, nn.GRU), (nn.RNNCell, nn.RNN)], ids=["LSTM", "GRU", "RNN"]
)
def test_a_loop_over_cells_equals_the_layer(cells, layer):
    loop, whole = built(Cells(cells(3, 2), collect=True)), built(Chain(layer(3, 2, batch_first=True)))
    copy(loop.cell.state_dict().values(), whole[0])
    X, R = drawn(2, 4, 3, seed=1), drawn(3, 4, 3, seed=2)
    assert_close(values(loop, X, R), values(whole, X, R))


@pytest.mark.parametrize(("hand", "layer"), [(HandLSTM, nn.LSTM), (HandGRU, nn.GRU)], ids=["LSTM", "GRU"])
def test_a_cell_by_hand_equals_the_layer(hand, layer):
    twin, whole = built(hand()), built(Chain(layer(3, 2, batch_first=True)))
    weights = [twin.input.weight, twin.hidden.weight, twin.input.bias, twin.hidden.bias]
    copy(weights, whole[0])
    X, R = drawn(2, 4, 3, seed=1), drawn(3, 4, 3, seed=2)
    wanted = values(whole, X, R)
    found = values(twin, X, R)
    assert_close(found, wanted if found.shape == wanted.shape else wanted[..., -1, :])


def copy(weights: Any, layer: nn.Module) -> None:
    """Copy weights into a recurrent layer."""
    with torch.no_grad():
        for target, weight in zip(layer.parameters(), weights, strict=True):
            target.copy_(weight)


# ---------------------------------------------------------------------- other rules
def check(function: Any, multipliers: Any, X: Tensor, R: Tensor) -> None:
    """Compare with an oracle that maps (x, r, m) to multipliers, output by output."""
    found = values(function, X, R)[0]
    x, r = oracle.extended(X[0]), oracle.extended(R[0])
    outputs = function(X)[0].shape
    seeds = np.eye(int(np.prod(outputs)), dtype=np.longdouble).reshape(-1, *outputs)
    wanted = np.stack([multipliers(x, r, seed) * (x - r) for seed in seeds], -1)
    assert_close(found, wanted.reshape(found.shape))


@pytest.mark.parametrize("seed", range(5))
def test_softmax(seed):
    X, R = drawn(1, 4, seed=seed), drawn(1, 4, seed=seed + 10)
    check(lambda z: z.softmax(1), oracle.softmax, X, R)
    check(lambda z: z.log_softmax(1), oracle.log_softmax, X, R)
    check(lambda z: z.logsumexp(1, keepdim=True), lambda x, r, m: m * oracle.logsumexp(x, r), X, R)


def test_softmax_does_not_depend_on_a_shift_of_either_side():
    X, R = drawn(2, 4, seed=1), drawn(3, 4, seed=2)
    shifted = values(lambda z: (z + 300).softmax(1), X, R)
    assert_close(shifted, values(lambda z: z.softmax(1), X, R))


@pytest.mark.parametrize("seed", range(5))
def test_maximum_of_a_vector(seed):
    X, R = drawn(1, 4, seed=seed), drawn(1, 4, seed=seed + 10)
    for function in (
        lambda x: x.amax(1, keepdim=True),
        lambda x: x.max(1, keepdim=True).values,
        lambda x: nn.functional.max_pool1d(x[:, None], 4)[:, 0],
        lambda x: x.topk(1, 1).values,
    ):
        check(function, lambda x, r, m: m * oracle.greatest(x, r), X, R)


@pytest.mark.parametrize("seed", range(3))
def test_layer_norm(seed):
    X, R, weight = drawn(1, 5, seed=seed), drawn(1, 5, seed=seed + 10), drawn(5, seed=seed + 20)

    def multipliers(x, r, m):
        return oracle.layer_norm(x, r, oracle.extended(weight), m)

    check(lambda x: nn.functional.layer_norm(x, (5,), weight), multipliers, X, R)
    check(lambda x: nn.functional.group_norm(x, 1, weight), multipliers, X, R)


TWO_OPERANDS = {
    "product": (lambda a, b: a * b, oracle.product),
    "quotient": (lambda a, b: a / b, oracle.quotient),
    "power": (lambda a, b: a**b, None),
    "maximum": (torch.maximum, None),
    "minimum": (torch.minimum, None),
    "atan2": (torch.atan2, None),
    "remainder": (torch.remainder, None),
}
IN_NUMPY = {"power": np.power, "maximum": np.maximum, "minimum": np.minimum, "atan2": np.arctan2, "remainder": np.mod}


@pytest.mark.parametrize("name", TWO_OPERANDS)
def test_functions_of_two_operands(name):
    function, rule = TWO_OPERANDS[name]
    X, R = drawn(1, 8, seed=1).abs() + 0.2, drawn(1, 8, seed=2).abs() + 0.2
    found = np.diagonal(values(lambda x: function(x[:, :4], x[:, 4:]), X, R)[0].reshape(2, 4, 4), 0, 1, 2)
    sides = [part for side in (X[0], R[0]) for part in np.split(oracle.extended(side), 2)]
    if rule is None:
        wanted = np.stack(oracle.two_players(IN_NUMPY[name], *sides))
    else:
        a, b, a_ref, b_ref = sides
        wanted = np.stack(rule(*sides)) * np.stack([a - a_ref, b - b_ref])
    assert_close(found, wanted)


@pytest.mark.parametrize("seed", range(3))
def test_attention(seed):
    X, R = drawn(1, 3, 4, seed=seed), drawn(1, 3, 4, seed=seed + 10)
    weights = [drawn(2, 4, seed=seed + 20 + i) for i in range(3)]

    def by_hand(x: Tensor) -> Tensor:
        q, k, v = (x @ w.T for w in weights)
        return (q @ k.mT / 2**0.5).softmax(-1) @ v

    def built_in(x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(*(x @ w.T for w in weights))

    def multipliers(x, r, m):
        return oracle.attention(x, r, [oracle.extended(w) for w in weights], m)

    check(by_hand, multipliers, X, R)
    check(built_in, multipliers, X, R)


def test_heads_are_joined_by_a_view():
    """torch's kernel of attention returns memory in which the heads of a step are neighbours; the rule does not."""
    X, R, weight = drawn(2, 3, 4), drawn(3, 3, 4, seed=1), drawn(12, 4, seed=2)

    def heads(x: Tensor) -> list[Tensor]:
        return [part.reshape(-1, 3, 2, 2).transpose(1, 2) for part in (x @ weight.T).chunk(3, -1)]

    def by_hand(x: Tensor) -> Tensor:
        q, k, v = heads(x)
        return ((q @ k.mT / 2**0.5).softmax(-1) @ v).transpose(1, 2).reshape(-1, 3, 4).tanh().sum(1)

    def by_view(x: Tensor) -> Tensor:
        joined = nn.functional.scaled_dot_product_attention(*heads(x)).transpose(1, 2)
        return joined.view(-1, 3, 4).tanh().sum(1)

    def written(x: Tensor) -> Tensor:
        joined = nn.functional.scaled_dot_product_attention(*heads(x)).transpose(1, 2)
        joined.view(-1, 12)[:, 0] = 0
        return joined.reshape(-1, 3, 4).tanh().sum(1)

    assert_close(values(by_view, X, R), values(by_hand, X, R))
    with pytest.raises(deepshap.BatchMixingError):  # the write reaches a copy
        values(written, X, R)


def test_multihead_attention_equals_its_formula():
    layer = built(nn.MultiheadAttention(2, 1, bias=False, batch_first=True))
    X, R = drawn(1, 3, 2, seed=1), drawn(1, 3, 2, seed=2)
    weights = oracle.extended(layer.in_proj_weight).reshape(3, 2, 2)

    def multipliers(x, r, m):
        return oracle.attention(x, r, weights, m @ oracle.extended(layer.out_proj.weight))

    check(lambda x: layer(x, x, x)[0], multipliers, X, R)


def test_the_exponential_of_a_matrix():
    """Between eigenvectors of both sides, its multipliers are the slopes of exp between their eigenvalues."""
    x, r = (a + a.T for a in torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    found = values(lambda a: torch.matrix_exp((a + a.mT) / 2).flatten(1), x[None], r[None])[0]

    def change(direction, side, other):
        (a, v), (b, w) = (np.linalg.eigh(s.numpy()) for s in (side, other))
        slopes = (np.exp(a)[:, None] - np.exp(b)) / (a[:, None] - b)
        return v @ ((v.T @ direction @ w) * slopes) @ w.T

    cells = np.eye(9).reshape(9, 3, 3)
    wanted = [sum(change((d + d.T) / 2, *sides) for sides in ((x, r), (r, x))).reshape(9) / 2 for d in cells]
    assert_close(found.reshape(9, 9), np.stack(wanted) * (x - r).reshape(9, 1).numpy())


def test_the_rescale_rule():
    X, R = drawn(1, 6, seed=1), drawn(1, 6, seed=2)
    for function, in_numpy in (
        (torch.tanh, np.tanh),
        (torch.sigmoid, oracle.sigmoid),
        (torch.relu, oracle.relu),
        (torch.exp, np.exp),
    ):
        check(function, lambda x, r, m, f=in_numpy: m * oracle.secant(f, x, r), X, R)
