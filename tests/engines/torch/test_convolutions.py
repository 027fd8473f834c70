"""The way back of convolutions: as torch's own, whichever way it is taken."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close, drawn, values
from torch import nn

import deepshap
from deepshap.engines.torch import convolutions
from deepshap.kernels import jit_threshold

SIZES = 7, 6, 8
CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
BY_PRODUCT, FOLDED, TRANSPOSED = "_backward_by_product", "_backward_by_fold", "_backward_by_transpose"


@pytest.fixture
def ways(monkeypatch):
    """Which ways back were taken."""
    taken = []

    def noted(name, original):
        return lambda *rest: taken.append(name) or original(*rest)

    for name in (BY_PRODUCT, FOLDED, TRANSPOSED):
        monkeypatch.setattr(convolutions, name, noted(name, getattr(convolutions, name)))
    monkeypatch.setattr(convolutions, "BLOCK", 200)  # a few rows at a time
    return taken


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("channels", [(1, 4), (2, 2), (6, 2), (4, 6)], ids=str)
@pytest.mark.parametrize("axes", CONVOLUTIONS)
def test_the_way_back_is_torchs(axes, channels, compiled, ways, monkeypatch):
    monkeypatch.setattr(jit_threshold.PAIRS, "threshold", 0 if compiled else np.inf)
    torch.manual_seed(0)
    (ahead, behind), native = channels, CONVOLUTIONS[axes]
    own, expected = convolutions.with_fast_backward(native), set()
    x = torch.randn(3, ahead, *SIZES[:axes], dtype=torch.float64, requires_grad=True)
    for kernel, stride, padding, dilation, groups in product((1, 2, 3), (1, 2), (0, 1), (1, 2), (1, 2)):
        if ahead % groups:
            continue
        weight, bias = (
            torch.randn(*shape).double() for shape in ([behind, ahead // groups, *[kernel] * axes], [behind])
        )
        options = {"stride": [stride] * axes, "padding": padding, "dilation": dilation, "groups": groups}
        y, z = native(x, weight, bias, **options), own(x, weight, bias, **options)
        m = torch.randn(5, *y.shape, dtype=torch.float64)
        wanted = [torch.autograd.grad(y, x, one, retain_graph=True)[0] for one in m]
        found = torch.vmap(lambda one, z=z: torch.autograd.grad(z, x, one, retain_graph=True)[0])(m)
        torch.testing.assert_close(found, torch.stack(wanted), rtol=0, atol=1e-12)
        torch.testing.assert_close(torch.autograd.grad(z, x, m[0])[0], wanted[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(z, y, rtol=0, atol=0)
        few = groups == 1 and axes < 3 and ahead <= 4 and ahead * kernel**axes <= 4 * behind
        is_product = groups == 1 and kernel == stride == 1 and not padding
        expected.add(BY_PRODUCT if is_product else FOLDED if few else TRANSPOSED)
        assert ways[-1] == (BY_PRODUCT if is_product else FOLDED if few else TRANSPOSED)
    assert set(ways) == expected


@pytest.mark.parametrize("change", ["weight", "bias", "name", "unbatched", "bfloat16"])
def test_torchs_own_where_there_is_no_other(change):
    x, weight, bias = torch.randn(2, 3, 6, requires_grad=True), torch.randn(4, 3, 3), torch.randn(4)
    padding = "same" if change == "name" else 1
    given = [x[0] if change == "unbatched" else x, weight, bias]
    if change in ("weight", "bias"):
        given[1 if change == "weight" else 2].requires_grad_()
    given = [v.bfloat16() for v in given] if change == "bfloat16" else given
    found = convolutions.with_fast_backward(torch.conv1d)(*given, padding=padding)
    assert type(found.grad_fn) is type(F.conv1d(*given, padding=padding).grad_fn)


@pytest.mark.parametrize("number", [np.int64, torch.tensor])
def test_sizes_may_be_any_whole_numbers(number):
    x, r, weight = torch.randn(2, 2, 9), torch.randn(3, 2, 9), torch.randn(3, 2, 2)

    def explained(of):
        def model(x):
            return F.conv1d(x, weight, stride=of(2), padding=of(1), dilation=of(3)).flatten(1)

        return deepshap.DeepExplainer(model, r, progress=False).shap_values(x)

    np.testing.assert_array_equal(explained(number), explained(int))


class Pictures(nn.Module):
    """Of one channel, then of several."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 6, 3, stride=2, groups=3)
        self.head = nn.Linear(24, 2)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x[:, None])))).flatten(1))


@pytest.mark.parametrize("rows", [(3, 4), (1, 4), (3, 1), (1, 1), (3, 3)], ids=str)
def test_explanations_are_those_of_torchs_own(rows, monkeypatch):
    model, x, r = Pictures().double(), drawn(rows[0], 6, 6, seed=1), drawn(rows[1], 6, 6, seed=2)
    found = values(model, x, r)
    monkeypatch.setattr(convolutions, "_backward_of", lambda *_, **__: None)
    assert_close(found, values(model, x, r), 1e-12)
