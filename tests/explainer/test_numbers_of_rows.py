"""A model whose output for a row depends on how many rows there are, however many that takes, is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import deepshap

WEIGHTS = torch.tensor([[1.0, -2.0], [0.5, 1.0], [2.0, 0.3]])


def linear(x: Tensor) -> Tensor:
    return x @ WEIGHTS


MODELS = {
    "one more for many rows": lambda x, most: linear(x) + float(len(x) > most),
    "twice for many rows": lambda x, most: linear(x) * (2 if x.shape[0] > most else 1),
    "another activation for many rows": lambda x, most: linear(x).tanh() if len(x) > most else linear(x),
    "by the place of the row": lambda x, most: linear(x) + (torch.arange(len(x)) > most - 1)[:, None],
    "by the number of rows beyond": lambda x, most: linear(x) / max(len(x), most),
    "blocks of rows": lambda x, most: torch.cat(
        [part - part[:1] * (k > 0) for k, part in enumerate(linear(x).split(most))]
    ),
}


@pytest.mark.parametrize(("rows", "references"), [(12, 3), (1, 12), (12, 13), (7, 7), (3, 40)])
@pytest.mark.parametrize("name", MODELS)
def test_dependence_on_the_number_of_rows_is_refused(name, rows, references):
    generator = torch.Generator().manual_seed(0)
    x, background = torch.randn(rows, 3, generator=generator), torch.randn(references, 3, generator=generator)
    with pytest.raises(deepshap.BatchMixingError):
        deepshap.DeepExplainer(lambda x: MODELS[name](x, 6), background, progress=False).shap_values(x)


def test_a_branch_by_the_first_row_is_refused():
    x = torch.tensor([[-1.0, -2.0], [-2.0, -1.0], [-3.0, -1.0], [-0.5, -2.0], [-1.0, -0.1]])
    x[-1] *= -1
    with pytest.raises(deepshap.BatchMixingError):
        deepshap.DeepExplainer(lambda x: -x if x[0, 0] > 0 else x, -torch.rand(4, 2), progress=False).shap_values(x)


def test_a_limit_that_is_never_reached_is_no_matter():
    x, background = torch.randn(3, 3), torch.randn(4, 3)
    found = deepshap.DeepExplainer(lambda x: MODELS["twice for many rows"](x, 50), background).shap_values(x)
    wanted = deepshap.DeepExplainer(linear, background).shap_values(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_each_number_of_rows_is_looked_at_once():
    calls: list[int] = []

    def model(x: Tensor) -> Tensor:
        calls.append(len(x))
        return linear(x)

    explainer = deepshap.DeepExplainer(model, torch.randn(9, 3), progress=False)
    for _ in range(2):
        explainer.shap_values(torch.randn(5, 3))
    calls.clear()
    explainer.shap_values(torch.randn(5, 3))
    assert calls == [
        5,
        9,
        5,
    ]  # the rows and all references by themselves, which tells whether the model has changed; the rows, followed
