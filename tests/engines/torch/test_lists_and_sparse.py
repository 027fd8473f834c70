"""Products with sparse matrices and operations on lists of tensors are explained as what they stand for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import deepshap

GENERATOR = torch.Generator().manual_seed(0)
DENSE = torch.rand(6, 6, generator=GENERATOR, dtype=torch.float64) * (torch.rand(6, 6, generator=GENERATOR) > 0.5)
COO = DENSE.to_sparse()


def rows(number: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(number, 6, 2)))


def on_graph(product: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A step of a graph network: the product of a (nodes, nodes) matrix with the features of all rows."""

    def model(x: Tensor) -> Tensor:
        features = torch.tanh(x).permute(1, 0, 2).reshape(6, -1)
        return product(features).reshape(6, -1, 2).permute(1, 0, 2).flatten(1).sin()[:, :3]

    return model


def multiplied_in_place(x: Tensor) -> Tensor:
    made = [x.tanh(), x.sin()]
    torch._foreach_mul_(made, [x, 2.0 * x])
    return sum(made).flatten(1)


def copied(x: Tensor) -> Tensor:
    targets = [torch.zeros_like(x), torch.zeros_like(x)]
    torch._foreach_copy_(targets, [x.tanh(), x.sin()])
    return sum(targets).flatten(1)


CALLS = {
    "torch.sparse.mm": (on_graph(lambda h: torch.sparse.mm(COO, h)), on_graph(lambda h: DENSE @ h)),
    "torch.sparse.addmm": (
        on_graph(lambda h: torch.sparse.addmm(h, COO, h, beta=0.3, alpha=2.0)),
        on_graph(lambda h: 0.3 * h + 2 * (DENSE @ h)),
    ),
    "torch.smm": (on_graph(lambda h: torch.smm(COO, h).to_dense()), on_graph(lambda h: DENSE @ h)),
    "torch.hspmm": (on_graph(lambda h: torch.hspmm(COO, h).to_dense()), on_graph(lambda h: DENSE @ h)),
    "_foreach_mul of lists": (
        lambda x: sum(torch._foreach_mul([x.tanh(), x.sin()], [x, x])).flatten(1),
        lambda x: (x.tanh() * x + x.sin() * x).flatten(1),
    ),
    "_foreach_mul of numbers": (
        lambda x: sum(torch._foreach_mul([x.tanh(), x.sin()], [2.0, 3.0])).flatten(1),
        lambda x: (2 * x.tanh() + 3 * x.sin()).flatten(1),
    ),
    "_foreach_add of a multiple": (
        lambda x: sum(torch._foreach_add([x.tanh(), x.sin()], [x, x], alpha=0.5)).flatten(1),
        lambda x: (x.tanh() + x.sin() + x).flatten(1),
    ),
    "_foreach_mul_": (multiplied_in_place, lambda x: (x.tanh() * x + x.sin() * (2 * x)).flatten(1)),
    "_foreach_copy_": (copied, lambda x: (x.tanh() + x.sin()).flatten(1)),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_explained_as_what_it_stands_for(name: str) -> None:
    called, plain = CALLS[name]
    x, background = rows(3, 0), rows(5, 1)
    torch.testing.assert_close(called(x), plain(x))
    found, expected = (deepshap.DeepExplainer(model, background).shap_values(x) for model in (called, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_sparse_product_that_takes_the_greatest_is_refused() -> None:
    matrix = DENSE.to_sparse_csr()
    model = on_graph(lambda h: torch.sparse.mm(matrix, h, "amax"))
    with pytest.raises(deepshap.UnsupportedOperationError, match="reduce='amax'"):
        deepshap.DeepExplainer(model, rows(5, 1)).shap_values(rows(3, 0))
