"""Statistics that leave out what is no number: those of the columns that are left."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from torch import Tensor

import deepshap

X = torch.randn(7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
THERE = torch.tensor([True, False, True, True, False, True])
LEVELS = torch.tensor([0.2, 0.8], dtype=torch.float64)


def holes(x: Tensor) -> Tensor:
    return x.masked_fill(~THERE, torch.nan)


STATISTICS = {
    "nanmedian": (lambda x: holes(x).nanmedian(1)[0], lambda x: x.median(1)[0]),
    "nanmedian, axis kept": (lambda x: holes(x).nanmedian(dim=1, keepdim=True).values[:, 0], lambda x: x.median(1)[0]),
    "position of nanmedian": (lambda x: x.gather(1, holes(x).nanmedian(1, True)[1])[:, 0], lambda x: x.median(1)[0]),
    "nanmean": (lambda x: holes(x).nanmean(1), lambda x: x.mean(1)),
    "nansum": (lambda x: holes(x).nansum(1), lambda x: x.sum(1)),
    "nanquantile": (lambda x: holes(x).nanquantile(LEVELS, 1).T, lambda x: x.quantile(LEVELS, 1).T),
    "nanquantile, nearest": (
        lambda x: holes(x).nanquantile(0.3, 1, interpolation="nearest"),
        lambda x: x.quantile(0.3, 1, interpolation="nearest"),
    ),
}


@pytest.mark.parametrize(("with_holes", "of_the_rest"), STATISTICS.values(), ids=STATISTICS.keys())
def test_what_is_missing_is_left_out(with_holes, of_the_rest):
    found = deepshap.DeepExplainer(with_holes, X[3:], progress=False).shap_values(X[:3])
    wanted = deepshap.DeepExplainer(lambda x: of_the_rest(x[:, THERE]), X[3:], progress=False).shap_values(X[:3])
    if with_holes is not STATISTICS["position of nanmedian"][0]:
        assert_close(found, wanted)
    expected = with_holes(X[:3]) - with_holes(X[3:]).mean(0)
    assert_close(found.sum(1), expected.numpy())


def test_windows_without_a_number_have_no_median():
    """As scalers of windows have it: where nothing is there, 0 stands for it."""

    def model(x: Tensor) -> Tensor:
        level = torch.nan_to_num(torch.full_like(x, torch.nan).nanmedian(1, True)[0] + 0 * x[:, :1], nan=0.0)
        return (x - level).tanh().sum(1)

    values = deepshap.DeepExplainer(model, X[3:], progress=False).shap_values(X[:3])
    plain = deepshap.DeepExplainer(lambda x: x.tanh().sum(1), X[3:], progress=False).shap_values(X[:3])
    assert_close(values, plain)
