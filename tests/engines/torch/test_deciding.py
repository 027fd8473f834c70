"""Models that decide in Python by values: by all rows of a batch together, or by each row's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchdiffeq
from helpers import assert_close
from torch import Tensor

import deepshap

TORCH = torch.Generator().manual_seed(0)
LENGTHS = torch.tensor([4, 6, 2, 5, 3, 6, 1])
MASKS = (torch.arange(6) < LENGTHS[:, None]).double()
SERIES = torch.randn(7, 6, 3, generator=TORCH, dtype=torch.float64) * MASKS[..., None]
WEIGHTS = torch.randn(3, 3, generator=TORCH, dtype=torch.float64)


def means(x: Tensor, mask: Tensor) -> Tensor:
    """Of what is not padded, without a branch."""
    return (torch.tanh(x @ WEIGHTS) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def means_or_all(x: Tensor, mask: Tensor) -> Tensor:
    """As ``means``, with a short cut where nothing is padded."""
    return torch.tanh(x @ WEIGHTS).mean(1) if mask.bool().all() else means(x, mask)


def means_of_trimmed(x: Tensor, mask: Tensor) -> Tensor:
    """As ``means``, of no more steps than the longest row has."""
    longest = int(mask.sum(1).max())
    return means(x[:, :longest], mask[:, :longest])


@pytest.mark.parametrize("model", [means_or_all, means_of_trimmed])
@pytest.mark.parametrize("rows", [slice(0, 3), slice(1, 2)], ids=["several", "one"])
def test_short_cuts_by_all_rows_change_nothing(model, rows):
    explain, plain = (deepshap.DeepExplainer(f, [SERIES[3:], MASKS[3:]], progress=False) for f in (model, means))
    given = [SERIES[rows], MASKS[rows]]
    for a, b in zip(explain.shap_values(given), plain.shap_values(given), strict=True):
        assert_close(a, b)
    assert explain.engine._agreement.together or len(given[0]) > 1


def test_a_row_that_decides_for_itself_is_refused():
    def model(x: Tensor) -> Tensor:
        return torch.stack([row * 2 if row.sum() > 0 else row.exp() for row in x])

    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    with pytest.raises(deepshap.ControlFlowError, match=r"test_deciding\.py"):
        deepshap.DeepExplainer(model, -x, progress=False).shap_values(x)
    with pytest.raises(deepshap.ControlFlowError, match=r"test_deciding\.py"):
        deepshap.DeepExplainer(lambda x: x * 2 if x.sum() > 0 else x.exp(), -x, progress=False).shap_values(x)


@pytest.mark.parametrize("method", ["dopri5", "dopri8"])
def test_adaptive_solvers_whose_steps_depend_on_the_input(method):
    """Their steps are part of the model: exact where rows are solved by themselves, in as many steps on either side."""

    def each_row(x: Tensor) -> Tensor:
        field, times = (lambda t, y: -torch.tanh(y) * (2 + y.flip(0))), torch.linspace(0, 1, 3).double()
        solved = [torchdiffeq.odeint(field, row, times, method=method, rtol=1e-3, atol=1e-3) for row in x]
        return torch.stack([y[-1] for y in solved])

    x, r = (
        torch.full((2, 3), 0.3).double(),
        torch.tensor([[0.2, 0.25, 0.3], [0.3, 0.3, 0.35], [0.28, 0.2, 0.3]]).double(),
    )
    values = deepshap.DeepExplainer(each_row, r, progress=False).shap_values(x)
    assert_close(values.sum(1), (each_row(x) - each_row(r).mean(0)).numpy())
    assert np.abs(values).max() > 1e-3


def test_an_adaptive_solver_of_whole_batches_mixes_rows():
    def model(x: Tensor) -> Tensor:
        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return torchdiffeq.odeint(lambda t, y: torch.tanh(y @ WEIGHTS), x, times, rtol=1e-3, atol=1e-3)[-1]

    x = SERIES[:3, 0]
    with pytest.raises(deepshap.BatchMixingError, match="other rows of its batch"):
        deepshap.DeepExplainer(model, x * 1.01, progress=False).shap_values(x[:2])
