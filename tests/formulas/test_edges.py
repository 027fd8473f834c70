"""Infinite logits, low logits that are no masks, values that tie: where a rule must not depend on how numbers are written."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from arrays import every_framework, frameworks_of_models

from deepshap.formulas import rules, secants

RANDOM = np.random.default_rng(0)
INFINITIES = {
    "exp": (-np.inf, np.exp),
    "sigmoid": (-np.inf, lambda x: 1 / (1 + np.exp(-x))),
    "tanh": (np.inf, np.tanh),
    "log": (np.inf, np.log),
    "log1p": (np.inf, np.log1p),
}


@every_framework
@pytest.mark.parametrize("name", INFINITIES)
def test_equal_infinities_do_not_differ(name, array):
    infinity, function = INFINITIES[name]
    x, r = np.array([infinity, 0.5]), np.array([infinity, 0.2])
    with np.errstate(over="ignore"):
        y, yr = function(x), function(r)
    found = np.asarray(getattr(secants, name)(*map(array, (x, r, y, yr))))
    assert np.isfinite(found).all()
    assert found[0] == (0 if name != "tanh" else found[0])
    assert abs(found[1] - (y[1] - yr[1]) / 0.3) < 1e-12


def of_softmax(array: Any, m: Any, z: Any, r: Any) -> np.ndarray:
    sides = [np.exp(v - v.max(-1, keepdims=True)) for v in (z, r)]
    totals = [np.log(p.sum(-1, keepdims=True)) + v.max(-1, keepdims=True) for p, v in zip(sides, (z, r), strict=True)]
    normal = [p / p.sum(-1, keepdims=True) for p in sides]
    return np.asarray(rules.softmax(*map(array, (m, z, r, *normal, *totals))))


@every_framework
def test_differences_of_logits_may_sum_to_more_than_the_largest_number(array):
    m, r = RANDOM.normal(size=(2, 1, 4))
    z = np.array([[0.5, -2.5e38, -2.5e38, 1.0]])
    found = of_softmax(lambda v: array(v.astype(np.float32)), m, z, r)
    assert np.allclose(found, of_softmax(array, m, z, r), rtol=1e-5, atol=1e-7)


@every_framework
@pytest.mark.parametrize("shift", [-12_000.0, -200_000.0])
def test_log_likelihoods_are_no_masks(shift, array):
    """A shift of both sides changes nothing; the multipliers of one side's shift stay those of the rule for any size."""
    m, z, r = RANDOM.normal(size=(3, 2, 4))
    assert np.allclose(of_softmax(array, m, z + shift, r + shift), of_softmax(array, m, z, r), rtol=0, atol=1e-9)
    near, far = (of_softmax(array, m, z + s, r) for s in (-9_000.0, shift))
    assert np.abs(near.sum(-1)).max() < 1e-3  # a feature that moves all logits alike gets as good as nothing
    assert np.abs(far.sum(-1)).max() < 1e-3


def ordered(array: Any, m: Any, x: Any, r: Any) -> np.ndarray:
    return np.asarray(rules.sort(*map(array, (m, x, r))))


def maximum(array: Any, m: Any, x: Any, r: Any) -> np.ndarray:
    return np.asarray(rules.maximum(*map(array, (m[..., -1:], x, r))))


@pytest.mark.parametrize(
    ("rule", "array"),
    [*itertools.product([ordered, maximum], [torch.tensor, tf.constant]), (maximum, np.array)],
)
def test_ties_are_shared(rule, array):
    """Whatever the order in which equal elements are stored; it is their mean over all orders by the rule for each."""
    x, r = (RANDOM.integers(0, 2, size=(40, 4)).astype(float) for _ in range(2))
    m = RANDOM.normal(size=(40, 4))
    found = rule(array, m, x, r)
    for order in map(list, itertools.permutations(range(4))):
        assert np.allclose(rule(array, m, x[:, order], r[:, order]), found[:, order], rtol=0, atol=1e-12)
    wanted = (m * (np.sort(x) - np.sort(r)))[:, slice(None) if rule is ordered else slice(3, 4)].sum(1)
    assert np.allclose((found * (x - r)).sum(1), wanted, rtol=0, atol=1e-12)


@frameworks_of_models
def test_values_without_ties_are_as_before(array):
    m, x, r = RANDOM.normal(size=(3, 40, 4))
    positions = (v.argmax(-1, keepdims=True) for v in (x, r))
    wanted = np.asarray(rules.window_max(*map(array, (m[:, -1:], x, r, *positions))))
    assert np.allclose(maximum(array, m, x, r), wanted, rtol=0, atol=1e-12)


@frameworks_of_models
def test_complex_secants(array):
    x, r = RANDOM.normal(size=(2, 50)) + 1j * RANDOM.normal(size=(2, 50))
    r[:20] = x[:20] * (1 + 1e-12)
    function = torch.exp if array is torch.tensor else tf.exp
    secant = secants.from_function(function)
    run = secant if array is torch.tensor else tf.function(secant)
    found = np.asarray(run(*map(array, (x, r, np.exp(x), np.exp(r)))))
    d = x - r
    series = np.exp(r) * (1 + d / 2 + d * d / 6)
    assert (
        np.abs(found - np.where(np.abs(d) < 1e-6, series, (np.exp(x) - np.exp(r)) / d)).max()
        < 1e-4 * np.abs(found).max()
    )
    assert np.abs(found * d - (np.exp(x) - np.exp(r))).max() < 1e-13 * np.abs(np.exp(x)).max()
