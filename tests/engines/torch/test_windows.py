"""Where elements of a pooling window tie, they share: held against a window by window loop, in every way of pooling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import deepshap
from deepshap.kernels import jit_threshold

INDEX = torch.tensor([[0, 2, 0, 2, 3, 0, 2, 3]])


def scattered(reduce: str, include_self: bool) -> Callable[[Tensor], Tensor]:
    """Eight values, and four of the targets' own."""

    def pool(x: Tensor) -> Tensor:
        index = INDEX.expand(len(x), -1)
        return x[:, 8:].scatter_reduce(1, index, x[:, :8], reduce, include_self=include_self)

    return pool


POOLS = {
    "line": ((6,), lambda x: F.max_pool1d(x, 2)),
    "line, overlapping and padded": ((6,), lambda x: F.max_pool1d(x, 3, stride=1, padding=1)),
    "line, dilated": ((7,), lambda x: F.max_pool1d(x, 2, stride=2, dilation=3)),
    "plane": ((4, 5), lambda x: F.max_pool2d(x, 2)),
    "plane, ceil": ((5, 4), lambda x: F.max_pool2d(x, (3, 2), stride=(2, 3), padding=(1, 0), ceil_mode=True)),
    "plane, positions too": ((4, 4), lambda x: torch.max_pool2d(x, [3], [1], [1], [1])),
    "space": ((2, 3, 2), lambda x: F.max_pool3d(x, (2, 2, 1), stride=1)),
    "adaptive line": ((7,), lambda x: F.adaptive_max_pool1d(x, 3)),
    "adaptive plane": ((3, 5), lambda x: F.adaptive_max_pool2d(x, (2, None))),
    "adaptive space": ((2, 3, 2), lambda x: F.adaptive_max_pool3d(x, (1, 2, 2))),
    "the whole": ((3, 4), lambda x: F.adaptive_max_pool2d(x, 1)),
    "an axis": ((3, 4), lambda x: x.amax(-1)),
    "an axis with positions": ((3, 4), lambda x: x.max(2).values),
    "scattered": ((12,), lambda x: scattered("amax", True)(x[:, 0])),
    "scattered apart from the targets": ((12,), lambda x: scattered("amax", False)(x[:, 0])),
}


class Pooled(torch.nn.Module):
    """Small whole numbers, so that most windows tie: weighted, pooled, weighted."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sizes, self.pool = POOLS[name]
        self.into = torch.randint(-1, 2, (4, int(np.prod(self.sizes)))).double()
        self.windows = self.made(torch.eye(len(self.into[0])).double()).bool()  # (elements, windows)
        self.out = torch.randn(self.windows.shape[1], 2).double()

    def made(self, flat: Tensor) -> Tensor:
        return self.pool(flat.unflatten(1, (1, *self.sizes))).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.made(x @ self.into.to(x)) @ self.out.to(x)


def cross_max(x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Multipliers of a window: a rise to what is the greatest, a fall to what was, and what stays to what stays so."""
    y, yr = x.max(), r.max()
    deciding = [k for k in range(len(x)) if (x[k] == y or y < yr) and (r[k] == yr or y > yr)]
    found = np.zeros(len(x))
    for k in deciding:
        found[k] = (1 if y == yr else (y - yr) / (x[k] - r[k])) / len(deciding)
    return found


def wanted(model: Pooled, X: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Attributions (rows, inputs, outputs)."""
    into, windows, out = (t.numpy() for t in (model.into, model.windows, model.out))
    found = np.zeros((len(X), X.shape[1], out.shape[1]))
    for n, x in enumerate(X):
        for r in R:
            for w, inside in enumerate(windows.T):
                slopes = cross_max(*((side @ into)[inside] for side in (x, r)))
                found[n] += np.outer((x - r) * (into[:, inside] @ slopes), out[w]) / len(R)
    return found


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("name", POOLS)
def test_ties_are_shared(name, compiled, monkeypatch):
    monkeypatch.setattr(jit_threshold.PAIRS, "threshold", 0 if compiled else np.inf)
    model, random = Pooled(name), np.random.default_rng(1)
    X, R = (random.integers(0, 2, size=(n, 4)).astype(float) for n in (6, 5))
    found = deepshap.DeepExplainer(model, R).shap_values(X)
    np.testing.assert_allclose(found, wanted(model, X, R), rtol=0, atol=1e-12)


def test_least_values_of_groups():
    X, R = (torch.randint(0, 2, (n, 12)).double() for n in (5, 4))
    for include_self in (True, False):
        most = deepshap.DeepExplainer(scattered("amax", include_self), -R).shap_values(-X)
        least = deepshap.DeepExplainer(scattered("amin", include_self), R).shap_values(X)
        np.testing.assert_allclose(least, -most, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [(3, 4), (4, 4), (1, 1)])
def test_windows_of_infinities(rows):
    """Masked steps in front of a pooling, some of them whole windows."""
    X, R = (torch.randint(0, 2, (n, 1, 6)).double() for n in rows)
    hidden = torch.arange(6) < 3

    def model(x: Tensor) -> Tensor:
        return torch.relu(F.max_pool1d(x.masked_fill(hidden, -torch.inf), 2)).sum(2)

    found = deepshap.DeepExplainer(model, R).shap_values(X)
    np.testing.assert_allclose(found.sum((1, 2)), model(X) - model(R).mean(0), atol=1e-12)
    assert not found[:, :, :3].any()
