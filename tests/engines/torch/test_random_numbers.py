"""Random numbers matter only where the explained output is made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import distributions, nn

import deepshap

torch.manual_seed(0)
MEAN, SCALE, TO_PYTHON = (nn.Linear(6, width).double() for width in (3, 3, 1))
X, BACKGROUND = (torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 6))) for seed, n in ((0, 3), (1, 5)))


def mean(x):
    return MEAN(x).tanh()


def value(x):
    return TO_PYTHON(x.tanh())


def autoencoder(x):
    return mean(x) + torch.randn(len(x), 3, dtype=x.dtype) * SCALE(x).exp(), mean(x)


def like_the_signal(x):
    h = mean(x)
    return h + torch.randn_like(h) * SCALE(x).exp(), h


def policy(x):
    choice = distributions.Categorical(logits=MEAN(x))
    action = choice.sample()
    return choice.log_prob(action), value(x)


def continuous_policy(x):
    choice = distributions.Normal(MEAN(x), SCALE(x).exp())
    action = choice.rsample()
    return choice.log_prob(action), value(x)


def dropped(x):
    return F.dropout(mean(x), 0.5, True), mean(x)


def written_in_place(x):
    h, noise = mean(x), torch.zeros(len(x), 3, dtype=x.dtype)
    noise.copy_(torch.randn_like(h))
    noise.mul_(h)
    return noise, h


def overwritten_later(x):
    h = mean(x)
    twice = 2 * h
    h.add_(torch.randn_like(h))
    return h, twice


BESIDE = {
    autoencoder: mean,
    like_the_signal: mean,
    policy: value,
    continuous_policy: value,
    dropped: mean,
    written_in_place: mean,
    overwritten_later: lambda x: 2 * mean(x),
}


@pytest.mark.parametrize("model", BESIDE)
def test_an_output_beside_random_numbers_is_explained_as_without_them(model):
    found = deepshap.DeepExplainer(model, BACKGROUND, output=1).shap_values(X)
    expected = deepshap.DeepExplainer(BESIDE[model], BACKGROUND).shap_values(X)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("model", BESIDE)
def test_an_output_that_is_made_of_random_numbers_is_refused(model):
    with pytest.raises(deepshap.UnsupportedOperationError, match=r"\(random\)"):
        deepshap.DeepExplainer(model, BACKGROUND, output=0).shap_values(X)


def view_of_what_is_overwritten(x):
    h = mean(x)
    first = h[:, :1]
    h.add_(torch.randn(1))
    return first.sin()


def part_of_what_is_overwritten(x):
    h = mean(x).clone()
    h[:, 1:].add_(torch.randn(len(x), 2))
    return h[:, :2].sin()


MADE_OF = {
    "a view whose base is overwritten": view_of_what_is_overwritten,
    "a base whose view is overwritten": part_of_what_is_overwritten,
    "one number": lambda x: x.tanh() + torch.randn(1),
    "a branch": lambda x: x.tanh() if torch.rand(1) < 0.5 else 2 * x.tanh(),
    "a size": lambda x: x[:, : 1 + int(torch.randint(3, (1,)))].sum(1, keepdim=True),
}


@pytest.mark.parametrize("name", MADE_OF)
def test_random_numbers_that_reach_the_output_in_other_ways_are_refused(name):
    with pytest.raises(deepshap.UnsupportedOperationError, match=r"\(random\)"):
        deepshap.DeepExplainer(MADE_OF[name], BACKGROUND).shap_values(X)
