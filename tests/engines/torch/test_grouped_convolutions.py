"""Convolutions whose groups are the rows: each row has weights of its own, made of the row.

The truth is each row against each reference by itself, where the groups are those of one row.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deepshap

INTO, OUT, KERNEL = 4, 6, 3


class Dynamic(nn.Module):
    """Makes a convolution's weights of each row, and applies them to all rows at once: the groups are the rows."""

    def __init__(self, axes: int, transposed: bool, groups: int = 1, **options: Any):
        super().__init__()
        torch.manual_seed(0)
        self.function = getattr(F, f"conv_transpose{axes}d" if transposed else f"conv{axes}d")
        kernel = [KERNEL] * axes
        self.shape = [INTO, OUT // groups, *kernel] if transposed else [OUT, INTO // groups, *kernel]
        self.groups, self.options = groups, options
        self.weights = nn.Linear(INTO * 6**axes, math.prod(self.shape)).double()

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weights(x.flatten(1).tanh()).unflatten(1, self.shape).flatten(0, 1)
        joined = x.reshape(1, len(x) * INTO, *x.shape[2:])
        y = self.function(joined, weights, groups=len(x) * self.groups, **self.options)
        return y.reshape(len(x), -1).sin().cumsum(1)[:, ::5]


OPTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 2},
    {"groups": 2, "padding": 1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("transposed", [False, True], ids=["forward", "transposed"])
@pytest.mark.parametrize("axes", [1, 2])
def test_groups_may_be_rows(axes: int, transposed: bool, options: dict[str, Any]) -> None:
    x, background = (
        torch.from_numpy(np.random.default_rng(seed).normal(size=(n, INTO, *[6] * axes)))
        for seed, n in ((0, 3), (1, 4))
    )
    model = Dynamic(axes, transposed, **options)
    torch.testing.assert_close(model(x), torch.cat([model(row[None]) for row in x]))
    found = deepshap.DeepExplainer(model, background).shap_values(x)
    one_by_one = [
        deepshap.DeepExplainer(model, background[k : k + 1]).shap_values(x[n : n + 1])
        for n in range(3)
        for k in range(4)
    ]
    expected = np.concatenate(one_by_one).reshape(3, 4, *found.shape[1:]).mean(1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_a_transposed_convolution_with_padding_beyond() -> None:
    x, background = torch.randn(3, INTO, 6).double(), torch.randn(4, INTO, 6).double()
    model = Dynamic(1, True, stride=2, output_padding=1)
    found = deepshap.DeepExplainer(model, background).shap_values(x)
    gap = found.sum((1, 2)) - (model(x) - model(background).mean(0)).detach().numpy()
    assert np.abs(gap).max() < 1e-12
