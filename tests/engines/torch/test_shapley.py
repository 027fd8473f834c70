"""Where Deep SHAP must equal exact Shapley values, and what symmetry asks of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import oracle
import pytest
import torch
from helpers import assert_close, drawn, values
from torch import Tensor, nn

WEIGHT = drawn(4, 4, seed=7)

EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x @ WEIGHT,
    "convolution": lambda x: nn.functional.conv1d(x[:, None], WEIGHT[:2, None, :3]).flatten(1),
    "sum of functions of one feature": lambda x: x.tanh() + x.sigmoid().flip(1) * 2,
    "product of two": lambda x: x[:, :2] * x[:, 2:],
    "quadratic form": lambda x: ((x @ WEIGHT) * x).sum(1, keepdim=True),
    "square of a sum": lambda x: x.sum(1, keepdim=True) ** 2,
    "variance": lambda x: x.var(1, keepdim=True),
    "matrix product": lambda x: (x.view(-1, 2, 2) @ x.view(-1, 2, 2)).flatten(1),
    "quotient": lambda x: x[:, :2] / (x[:, 2:] ** 2 + 1),
    "maximum of two": lambda x: torch.maximum(x[:, :2], x[:, 2:]),
    "power": lambda x: (x[:, :2].abs() + 0.1) ** x[:, 2:],
    "arc tangent of two": lambda x: torch.atan2(x[:, :2].abs(), x[:, 2:].abs()),
    "choice between two": lambda x: (x[:, :2] > 0) * x[:, 2:],
}


@pytest.mark.parametrize("references", [1, 3])
@pytest.mark.parametrize("name", EXACT)
def test_equal_to_all_coalitions(name, references):
    function = EXACT[name]
    X, R = drawn(2, 4, seed=1), drawn(references, 4, seed=2)

    def value(row: np.ndarray) -> np.ndarray:
        return function(torch.as_tensor(row, dtype=torch.float64)[None])[0].numpy()

    found = values(function, X, R)
    for row, x in zip(found, X.numpy(), strict=True):
        assert_close(row, np.mean([oracle.shapley(value, x, r) for r in R.numpy()], 0))


def test_features_without_influence_get_exactly_zero():
    found = values(lambda x: (x[:, :2] * x[:, 1:3]).tanh(), drawn(2, 4, seed=1), drawn(3, 4, seed=2))
    assert (found[:, 3] == 0).all()
    assert (found[:, :3] != 0).any((0, 2)).all()


SYMMETRIC: dict[str, Callable[[Tensor], Tensor]] = {
    "amax": lambda x: x.amax(1, keepdim=True),
    "amin": lambda x: x.amin(1, keepdim=True),
    "aminmax": lambda x: torch.stack(x.aminmax(dim=1), 1),
    "logsumexp": lambda x: x.logsumexp(1, keepdim=True),
    "norm": lambda x: x.norm(dim=1, keepdim=True),
    "norm, p=3": lambda x: torch.norm(x, p=3, dim=1, keepdim=True),
    "std": lambda x: x.std(1, keepdim=True),
    "prod": lambda x: x.prod(1, keepdim=True),
    "sort": lambda x: x.sort(1).values,
    "topk": lambda x: x.topk(2, 1).values,
    "median": lambda x: x.median(1, keepdim=True).values,
    "kthvalue": lambda x: x.kthvalue(2, 1, keepdim=True).values,
    "quantile": lambda x: x.quantile(0.3, 1, keepdim=True),
    "einsum": lambda x: torch.einsum("na,nb,nc,nd->n", *x.split(1, 1))[:, None],
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_the_order_of_the_features_does_not_matter(name):
    X, R, order = drawn(2, 4, seed=1), drawn(3, 4, seed=2), torch.tensor([2, 0, 3, 1])
    found = values(SYMMETRIC[name], X[:, order], R[:, order])
    assert_close(found, values(SYMMETRIC[name], X, R)[:, order])
