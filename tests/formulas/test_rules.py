"""The rules as pure functions: they keep the sum, equal the slow oracles, and are the same in every framework."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
import tensorflow as tf
import torch
from arrays import every_framework, frameworks_of_models

from deepshap.formulas import cells, rules

RANDOM = np.random.default_rng(0)
M, X, R = RANDOM.normal(size=(3, 4, 5))


def log_of_sum(z: np.ndarray) -> np.ndarray:
    """logsumexp over the last axis, which is kept."""
    with np.errstate(all="ignore"):
        top = np.maximum(z.max(-1, keepdims=True), -1e308)
        return np.log(np.exp(z - top).sum(-1, keepdims=True)) + top


def softmax(z: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    powers = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def of_softmax(array: Any, m: Any, z: Any, r: Any) -> np.ndarray:
    given = m, z, r, softmax(z), softmax(r), log_of_sum(z), log_of_sum(r)
    return np.asarray(rules.softmax(*map(array, given)))


def of_log_softmax(array: Any, m: Any, z: Any, r: Any) -> np.ndarray:
    totals = log_of_sum(z), log_of_sum(r)
    return np.asarray(rules.log_softmax(*map(array, (m, z, r, z - totals[0], r - totals[1], *totals))))


def of_logsumexp(array: Any, m: Any, z: Any, r: Any) -> np.ndarray:
    return np.asarray(rules.logsumexp(*map(array, (m[..., :1], z, r, log_of_sum(z), log_of_sum(r)))))


ALONG_THE_LAST_AXIS = {
    "softmax": (of_softmax, softmax, lambda m: m),
    "log_softmax": (of_log_softmax, lambda z: z - log_of_sum(z), lambda m: m),
    "logsumexp": (of_logsumexp, log_of_sum, lambda m: m[..., :1]),
}
PAIRS = {
    "drawn": (X, R),
    "equal": (X, X),
    "nearly equal": (X, X * (1 + 1e-13)),
    "large": (1e5 * X, 1e5 * R),
    "large and near": (1e5 + X, 1e5 + R),
    "huge": (1e300 * X, 1e300 * R),
    "one far away": (X + 1e4 * np.eye(4, 5), R),
}


@pytest.mark.fast
@every_framework
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", ALONG_THE_LAST_AXIS)
def test_sums_are_kept_along_the_last_axis(name, pair, array):
    (rule, function, of_output), (z, r) = ALONG_THE_LAST_AXIS[name], PAIRS[pair]
    found = rule(array, M, z, r)
    assert np.isfinite(found).all()
    y, yr = function(z), function(r)
    wanted = (of_output(M) * (y - yr)).sum(-1)
    scale = np.abs(M).max() * (np.abs(y).max() + np.abs(yr).max() + np.abs(z).max() + np.abs(r).max())
    assert np.abs((found * (z - r)).sum(-1) - wanted).max() <= 1e-13 * scale


def test_logits_masked_by_the_lowest_number_on_one_side():
    """Their slopes are as small as numbers get; TensorFlow takes those for 0."""
    z = np.where(np.eye(4, 5), np.finfo(float).min, X)
    found, wanted = of_softmax(torch.tensor, M / 8, z, R), M / 8 * (softmax(z) - softmax(R))
    np.testing.assert_allclose((found * (z - R)).sum(-1), wanted.sum(-1), rtol=0, atol=1e-14)


@every_framework
def test_masked_logits_have_no_influence(array):
    z, r = X.copy(), R.copy()
    z[:, 1] = r[:, 1] = -np.inf
    kept = [0, 2, 3, 4]
    for rule in (of_softmax, of_logsumexp):
        found = rule(array, M, z, r)
        assert np.isfinite(found).all()
        wanted = rule(array, M[:, kept], z[:, kept], r[:, kept])
        assert np.abs(found[:, kept] - wanted).max() <= 1e-14


@every_framework
def test_logsumexp_equals_the_oracle(array):
    wanted = np.array([m[:1] * oracle.logsumexp(z, r) for m, z, r in zip(M, X, R, strict=True)], float)
    assert np.abs(of_logsumexp(array, M, X, R) - wanted).max() <= 1e-14


@every_framework
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_products_and_quotients(array, kind):
    imaginary = 1j * np.random.default_rng(1).normal(size=(5, 4, 5)) if kind == "complex" else np.zeros((5, 4, 5))
    m, a, ar, b, br = (v + w for v, w in zip((M, X, R, X + 4, R + 5), imaginary, strict=True))
    for rule, function in ((rules.product, np.multiply), (rules.quotient, np.divide)):
        found = rule(array(m), (array(a), array(ar)), (array(b), array(br)))
        by_a, by_b = map(np.asarray, found)
        explained = (by_a.conj() * (a - ar) + by_b.conj() * (b - br)).real
        assert np.abs(explained - (m.conj() * (function(a, b) - function(ar, br))).real).max() <= 1e-12
    assert np.asarray(rules.contribution(array(m), array(a), array(ar))) == pytest.approx((m.conj() * (a - ar)).real)


@every_framework
def test_products_and_quotients_that_are_zero(array):
    a, ar = X[0], R[0]
    b, br = np.array([0.0, 0.0, 2.0, 3.0, -1.0]), np.array([0.0, 1.5, 0.0, 3.0, 2.0])
    with np.errstate(all="ignore"):
        divided = [np.where(d == 0, 0, v / d) for v, d in ((a, b), (ar, br))]
    a_with_infinity = np.where(b == 0, np.inf, a)
    found = rules.product_or_zero(array(M[0]), (array(a_with_infinity), array(ar)), (array(b), array(br)))
    ours = [np.where(d == 0, 0, v) for v, d in ((a, b), (ar, br))]
    explained = np.asarray(found[0]) * (ours[0] - ours[1]) + np.asarray(found[1]) * (b - br)
    assert explained == pytest.approx(M[0] * (ours[0] * b - ours[1] * br))
    by_a, by_b = map(np.asarray, rules.quotient_or_zero(array(M[0]), (array(a), array(ar)), (array(b), array(br))))
    assert by_a * (a - ar) + by_b * (b - br) == pytest.approx(M[0] * (divided[0] - divided[1]))


@every_framework
def test_a_vector_over_its_norm_where_one_side_is_zero(array):
    a, ar = X[:1], 0 * R[:1]
    b, br = (np.linalg.norm(v, axis=-1, keepdims=True).clip(1e-12) for v in (a, ar))
    by_a, by_b = map(np.asarray, rules.ratio(array(M[:1]), (array(b), array(br)), (array(a / b), array(ar / br))))
    assert by_a * (a - ar) + by_b * (b - br) == pytest.approx(M[:1] * (a / b - ar / br))
    assert np.abs(by_b).max() < 1e3
    whole = np.asarray(rules.normalize(array(M[:1]), (array(a), array(ar)), (array(a / b), array(ar / br)), 1e-12))
    assert (whole * (a - ar)).sum(-1) == pytest.approx((M[:1] * (a / b - ar / br)).sum(-1))
    assert np.abs(whole).max() < 1e3


@every_framework
def test_choices(array):
    c, cr = np.array([0.0, 0.0, 1.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    a, ar, b, br = X[0], R[0], X[1], R[1]
    sides = [(array(v), array(w)) for v, w in ((c, cr), (a, ar), (b, br))]
    by_c, by_a, by_b = map(np.asarray, rules.select(array(M[0]), *sides))
    wanted = M[0] * (np.where(c == 1, a, b) - np.where(cr == 1, ar, br))
    assert by_c * (c - cr) + by_a * (a - ar) + by_b * (b - br) == pytest.approx(wanted)


def standardised(x: np.ndarray, centred: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values, what they are divided by, and their quotient."""
    c = x - x.mean(-1, keepdims=True) if centred else x
    size = np.sqrt((c**2).mean(-1, keepdims=True) + 0.1)
    return c, size, c / size


@every_framework
@pytest.mark.parametrize("centred", [True, False])
def test_standardised_values_are_a_product_a_root_and_squares(centred, array):
    (c, q, y), (c_r, q_r, y_r) = (standardised(v, centred) for v in (X, R))
    by_inverse = (M * (c + c_r) / 2).sum(-1, keepdims=True)
    by_mean_square = by_inverse * (1 / q - 1 / q_r) / (q**2 - q_r**2)
    wanted = M * (1 / q + 1 / q_r) / 2 + by_mean_square * (c + c_r) / 5
    wanted = wanted - wanted.mean(-1, keepdims=True) if centred else wanted
    m, *sides = map(array, (M, y, y_r, q, q_r))
    found = np.asarray(rules.standardize(m, sides[:2], sides[2:], centred))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_allclose((found * (X - R)).sum(-1), (M * (y - y_r)).sum(-1), rtol=1e-10)


@every_framework
@pytest.mark.parametrize("undefined", [np.nan, np.inf, -np.inf])
def test_what_is_undefined_where_it_is_not_taken_does_not_change(array, undefined):
    c, cr = np.array([0.0, 0.0, 1.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    a, ar = (np.where(taken == 1, v, undefined) for taken, v in ((c, X[0]), (cr, R[0])))
    b, br = (np.where(taken == 0, v, undefined) for taken, v in ((c, X[1]), (cr, R[1])))
    sides = [(array(v), array(w)) for v, w in ((c, cr), (a, ar), (b, br))]
    by_c, by_a, by_b = map(np.asarray, rules.select(array(M[0]), *sides))
    wanted = M[0] * (np.where(c == 1, a, b) - np.where(cr == 1, ar, br))
    of_a, of_b = (
        by * np.subtract(*v, where=by != 0, out=np.zeros_like(by)) for by, v in ((by_a, (a, ar)), (by_b, (b, br)))
    )
    assert by_c * (c - cr) + of_a + of_b == pytest.approx(wanted)


@frameworks_of_models
@pytest.mark.parametrize("ties", [False, True], ids=["drawn", "ties"])
def test_the_greatest_and_the_order(array, ties):
    x, r = (np.maximum(v, 0) for v in (X, R)) if ties else (X, R)
    positions = [np.argmax(v, -1)[:, None] for v in (x, r)]
    m = M[:, :1]
    found = np.asarray(rules.window_max(*map(array, (m, x, r, *positions))))
    assert (found * (x - r)).sum(-1) == pytest.approx(m[:, 0] * (x.max(-1) - r.max(-1)))
    assert np.abs(found / m).max() <= 1 + 1e-12
    found = np.asarray(rules.sort(*map(array, (M, x, r))))
    assert (found * (x - r)).sum(-1) == pytest.approx((M * (np.sort(x) - np.sort(r))).sum(-1))


@every_framework
def test_several_operands_get_their_shapley_shares(array):
    def function(a: Any, b: Any) -> Any:
        return a * a * b

    a, b, ar, br = X[0], X[1], R[0], R[1]
    wanted = oracle.two_players(function, a, b, ar, br)

    def found(a: Any, ar: Any, b: Any, br: Any) -> Any:
        return rules.rescale(function, [(a, ar), (b, br)], function(a, b), function(ar, br))

    given = [array(v) for v in (a, ar, b, br)]
    slopes = found(*given) if array is torch.tensor else tf.function(found)(*given)
    for slope, (x, r), of_player in zip(slopes, ((a, ar), (b, br)), wanted, strict=True):
        assert np.asarray(slope) * (x - r) == pytest.approx(of_player)


# ---------------------------------------------------------------------- cells
CELLS = {
    "LSTM": (cells.LSTM, torch.nn.LSTMCell),
    "GRU": (cells.GRU, torch.nn.GRUCell),
    "RNN": (cells.TanhRNN, torch.nn.RNNCell),
}


@frameworks_of_models
@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind, array):
    """Forward as PyTorch's own cell, and back with the sums kept; a sequence of two steps."""
    (cell, own), (xs, rs) = CELLS[kind], np.random.default_rng(2).normal(size=(2, 2, 3, 4))
    made = own(4, 5).double()
    weights = cells.Weights(*(array(p.detach().numpy()) for p in made.parameters()))
    states = [np.random.default_rng(seed).normal(size=(cell.states, 3, 5)) for seed in (3, 4)]
    sides = [
        cells.run(cell, list(map(array, s)), list(map(array, h)), weights)
        for s, h in ((xs, states[0]), (rs, states[1]))
    ]
    last = []
    for steps, state in ((xs, states[0]), (rs, states[1])):
        given, ours = [torch.tensor(s) for s in state], [array(s) for s in state]
        for step in steps:
            new = made(torch.tensor(step), tuple(given) if kind == "LSTM" else given[0])
            given = list(new) if kind == "LSTM" else [new]
            ours, _ = cell.forward(array(step), ours, weights)
        for a, b in zip(ours, given, strict=True):
            assert np.asarray(a) == pytest.approx(b.detach().numpy(), abs=1e-14)
        last.append(list(map(np.asarray, ours)))
    m_state = np.random.default_rng(5).normal(size=(cell.states, 3, 5))
    m_x, m_first = cells.back(cell, [array(np.zeros((3, 5)))] * 2, list(map(array, m_state)), *sides, weights)
    explained = sum((np.asarray(m) * (x - r)).sum() for m, x, r in zip(m_x, xs, rs, strict=True))
    explained += sum((np.asarray(m) * (a - b)).sum() for m, a, b in zip(m_first, *states, strict=True))
    assert explained == pytest.approx(sum((m * (a - b)).sum() for m, a, b in zip(m_state, *last, strict=True)))
