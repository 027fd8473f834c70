"""Rules of few numbers, which NumPy computes: the same as those of many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import deepshap
from deepshap.engines.torch import pairing

FUNCTIONS = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "square root": lambda x: x.abs().sqrt(),
    "powers": lambda x: x**2 + x.pow(3) + (x.abs() + 1) ** 0.5 + (x.abs() + 1).pow(-0.5) + (x + 9) ** -1 + x**4,
    "steps": lambda x: x * ((x > 0) & (x < 1)) + x.round() + (x > x.flip(-1)).to(x.dtype),
    "casts": lambda x: x * x.long() + x.bool(),
    "product": lambda x: x * x[..., :1],
    "product with a broadcast row": lambda x: x * x.mean((1, 2)).unsqueeze(-1).unsqueeze(-1),
    "quotient": lambda x: (
        x / (1 + x.flip(-1).square())
        + 2 / (1 + x.square())
        + torch.tensor([200], dtype=torch.uint8) / (x + 9)
        + torch.tensor([2**27 + 1]) / (2**27 + x)
    ),
    "over constants": lambda x: x / 3 + x / torch.arange(1, 7),
    "matrices": lambda x: x @ x.mT @ x,
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "softmax": lambda x: torch.softmax(x.masked_fill(torch.eye(3, 6).bool(), -torch.inf), -1),
    "log softmax": lambda x: torch.log_softmax(x, 1),
    "logsumexp": lambda x: x + x.logsumexp(-1, keepdim=True),
    "layer norm": lambda x: F.layer_norm(x, (6,), torch.arange(6.0).to(x), torch.ones(6).to(x)),
    "weights of lower precision": lambda x: F.rms_norm(x, (6,)) * torch.arange(6, dtype=torch.bfloat16),
    "maximum": lambda x: x - x.amax(-1, keepdim=True),
    "of two": lambda x: torch.maximum(x, x.flip(-1)) + torch.atan2(x, 2 + x.flip(-1)),
    "choice": lambda x: torch.where(x > x.flip(-1), x, x.square()),
    "norm": lambda x: F.normalize(x, dim=-1),
    "embedding": lambda x: F.embedding(x.clamp(0, 3).long(), torch.arange(8.0).view(4, 2).to(x)).sum(-1),
}


class Model(nn.Module):
    """A function of hidden values with the rows on some axis."""

    def __init__(self, function, axis):
        super().__init__()
        self.one, self.two, self.function, self.axis = nn.Linear(4, 6), nn.Linear(18, 2), function, axis

    def forward(self, x):  # (rows, 3, 4)
        hidden = self.one(x)
        if self.axis:  # an elementwise function meets them there
            hidden = torch.tanh(hidden.movedim(0, self.axis)).movedim(self.axis, 0)
        return self.two(self.function(hidden).flatten(1))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_few_numbers_are_as_many(name, dtype, axis, monkeypatch):
    torch.manual_seed(0)
    model = Model(FUNCTIONS[name], axis).to(dtype)
    background, x = torch.randn(3, 3, 4, dtype=dtype), torch.randn(4, 3, 4, dtype=dtype)
    background[0], x[1, 0] = x[0], background[1, 0]
    seen, original = [], pairing.numbers
    monkeypatch.setattr(pairing, "numbers", lambda v: seen.append(v) or original(v))
    found = deepshap.DeepExplainer(model, background).shap_values(x)
    assert seen or (name in ("over constants", "embedding") and not axis)
    seen.clear()
    monkeypatch.setattr(pairing, "FEW", 0)
    wanted = deepshap.DeepExplainer(model, background).shap_values(x)
    assert not seen
    np.testing.assert_allclose(found, wanted, rtol=0, atol=500 * torch.finfo(dtype).eps * np.abs(wanted).max())


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
