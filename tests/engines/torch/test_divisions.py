"""Powers of integers, and divisions by numbers and by 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import deepshap


def test_integers_that_wrap_around_have_no_closed_power():
    def model(x):
        return (x.to(torch.uint8) ** 2).double().sum(1, keepdim=True)

    background, x = torch.tensor([[3.0, 20.0]]), torch.tensor([[17.0, 4.0]])
    found = deepshap.DeepExplainer(model, background).shap_values(x)
    assert found.ravel() == pytest.approx([(17 * 17) % 256 - 9, 16 - 400 % 256])


def test_divisions_by_numbers():
    x = torch.randn(4, 3)
    explainer = deepshap.DeepExplainer(lambda x: (x / 4).sum(1, keepdim=True), torch.zeros(1, 3))
    assert np.allclose(explainer.shap_values(x)[..., 0], x / 4, rtol=1e-6)


STD, MEAN = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 0.0])
MASKED = {
    "chosen": lambda x: torch.where(STD > 0, (x - MEAN) / STD, torch.zeros(())),
    "replaced": lambda x: torch.nan_to_num((x - MEAN) / STD),
    "filled": lambda x: ((x - MEAN) / STD).masked_fill(STD == 0, 0.0),
    "left out": lambda x: ((x - MEAN) / STD)[:, [0, 2]],
    "by no number": lambda x: torch.where(torch.tensor([True, False, True]), x, x / torch.tensor(0.0)),
}


@pytest.mark.parametrize("name", MASKED)
def test_what_is_divided_by_0_and_masked_gets_nothing(name):
    """A feature that is the same in all rows, standardised."""
    generator = torch.Generator().manual_seed(0)
    x, references = torch.randn(2, 3, generator=generator), torch.randn(4, 3, generator=generator)
    x[:, 1] = references[:, 1] = 1.0

    def model(x):
        return torch.tanh(MASKED[name](x)).sum(1, keepdim=True)

    values = deepshap.DeepExplainer(model, references, progress=False).shap_values(x)
    np.testing.assert_allclose(values.sum(1), model(x) - model(references).mean(0), atol=1e-6)
    assert not values[:, 1].any()
