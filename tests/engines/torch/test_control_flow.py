"""Models that decide in Python by values: by all rows of a batch together, or by each row's own."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
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
    assert explain.engine._control_flow.joins_sides or len(given[0]) > 1


def test_a_row_that_decides_for_itself_is_refused():
    def model(x: Tensor) -> Tensor:
        return torch.stack([row * 2 if row.sum() > 0 else row.exp() for row in x])

    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    with pytest.raises(deepshap.ControlFlowError, match=r"test_control_flow\.py"):
        deepshap.DeepExplainer(model, -x, progress=False).shap_values(x)
    with pytest.raises(deepshap.ControlFlowError, match=r"test_control_flow\.py"):
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


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "fehlberg2", "adaptive_heun", "dopri8"])
def test_an_adaptive_solver_with_steps_of_one_size_takes_whole_batches(method):
    steps = {"first_step": 0.25, "min_step": 0.25, "max_step": 0.25}

    def model(x: Tensor) -> Tensor:
        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return torchdiffeq.odeint(lambda t, y: torch.tanh(y @ WEIGHTS), x, times, method=method, options=steps)[-1]

    x, r = SERIES[:3, 0], SERIES[3:, 0]
    values = deepshap.DeepExplainer(model, r, progress=False).shap_values(x)
    assert_close(values.sum(1), (model(x) - model(r).mean(0)).numpy())


def test_an_adaptive_solver_of_whole_batches_mixes_rows():
    def model(x: Tensor) -> Tensor:
        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return torchdiffeq.odeint(lambda t, y: torch.tanh(y @ WEIGHTS), x, times, rtol=1e-3, atol=1e-3)[-1]

    x = SERIES[:3, 0]
    with pytest.raises(deepshap.BatchMixingError, match="other rows of its batch"):
        deepshap.DeepExplainer(model, x * 1.01, progress=False).shap_values(x[:2])


# ---------------------------------------------------------------------- places told by conditions
EXPERTS, CHOSEN = torch.randn(4, 3, 3, generator=TORCH, dtype=torch.float64), 2
GATE = torch.randn(3, 4, generator=TORCH, dtype=torch.float64)
TOKENS = torch.randn(7, 4, 3, generator=TORCH, dtype=torch.float64)


def mixture(experts) -> Callable[[Tensor], Tensor]:
    """Two experts of four for each token."""

    def model(x: Tensor) -> Tensor:
        tokens = x.reshape(-1, 3)
        weights, chosen = (tokens @ GATE).softmax(-1).topk(CHOSEN, -1)
        return tokens.new_tensor(2.0) * experts(tokens, weights, chosen).reshape(x.shape).sum(1)

    return model


def expert(k: int, tokens: Tensor) -> Tensor:
    return torch.tanh(tokens @ EXPERTS[k]) @ EXPERTS[k].T


def of_all_tokens(tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    out = torch.zeros_like(tokens)
    for k, rank in itertools.product(range(4), range(CHOSEN)):
        out = out + torch.where((chosen[:, rank] == k)[:, None], expert(k, tokens) * weights[:, rank, None], 0.0)
    return out


def of_their_tokens(tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """As transformers' mixtures of experts loop."""
    out = torch.zeros_like(tokens)
    masks = torch.nn.functional.one_hot(chosen, 4).permute(2, 1, 0)
    for hit in masks.sum((-1, -2)).greater(0).nonzero():
        rank, token = torch.where(masks[hit].squeeze(0))
        out.index_add_(0, token, expert(int(hit), tokens[None, token].reshape(-1, 3)) * weights[token, rank, None])
    return out


def of_masked_tokens(tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    out = torch.zeros_like(tokens)
    for k, rank in itertools.product(range(4), range(CHOSEN)):
        token = (chosen[:, rank] == k).nonzero().squeeze(-1)
        if token.numel() == 0:
            continue
        out[token] += expert(k, tokens[token]) * weights[token, rank].unsqueeze(-1)
    return out


def of_counted_tokens(tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    out = torch.zeros_like(tokens)
    for k, rank in itertools.product(range(4), range(CHOSEN)):
        where = (chosen[:, rank] == k).nonzero(as_tuple=True)
        out = out.index_put(where, expert(k, tokens[where]) * weights[where[0], rank, None], accumulate=True)
    return out


@pytest.mark.parametrize("loop", [of_their_tokens, of_masked_tokens, of_counted_tokens])
def test_loops_over_the_tokens_of_an_expert(loop):
    """Explained as if each expert saw all tokens, and what it makes of others counted for nothing."""
    found, wanted = (
        deepshap.DeepExplainer(mixture(experts), TOKENS[3:], progress=False).shap_values(TOKENS[:3])
        for experts in (loop, of_all_tokens)
    )
    assert_close(found, wanted)


def of_sorted_tokens(tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """As DeepSeek's mixtures do without gradients: slices of sorted tokens, by counts in NumPy."""
    counts = torch.nn.functional.one_hot(chosen.view(-1), 4).sum(0)
    order = chosen.view(-1).argsort()
    ends = counts.numpy().cumsum()
    parts = [expert(k, tokens[order[a:b] // CHOSEN]) for k, (a, b) in enumerate(zip([0, *ends], ends, strict=False))]
    out = torch.zeros_like(tokens).repeat_interleave(CHOSEN, 0).index_copy(0, order, torch.cat(parts))
    return (out.view(-1, CHOSEN, 3) * weights[..., None]).sum(1)


def test_counts_of_tokens_are_refused_with_what_to_do():
    line = inspect.getsourcelines(of_sorted_tokens)[1] + 4
    with pytest.raises(
        deepshap.ControlFlowError, match=rf"numpy .* test_control_flow.py:{line} .*find its own by a mask"
    ):
        deepshap.DeepExplainer(mixture(of_sorted_tokens), TOKENS[3:], progress=False).shap_values(TOKENS[:3])


def test_masks_that_choose_as_many_in_each_row_are_positions():
    """The place of a marker, as classifiers of texts take the state at its token."""
    ids = torch.tensor([[5, 2, 9], [2, 5, 9], [9, 3, 2], [7, 2, 5], [2, 3, 4]])
    table = torch.randn(10, 3, generator=TORCH, dtype=torch.float64)

    def by_mask(ids: Tensor) -> Tensor:
        assert len(torch.unique_consecutive(ids.eq(2).sum(1))) == 1
        return torch.tanh(table[ids] @ WEIGHTS)[ids.eq(2), :].view(len(ids), -1, 3)[:, -1]

    def by_places(ids: Tensor) -> Tensor:
        row, place = ids.eq(2).nonzero(as_tuple=True)
        return torch.tanh(table[ids] @ WEIGHTS)[row, place]

    def by_argmax(ids: Tensor) -> Tensor:
        return torch.tanh(table[ids] @ WEIGHTS)[torch.arange(len(ids)), ids.eq(2).double().argmax(1)]

    found = [
        deepshap.DeepExplainer(f, ids[2:], progress=False).shap_values(ids[:2]) for f in (by_argmax, by_mask, by_places)
    ]
    assert_close(found[0].sum(1), (by_argmax(ids[:2]) - by_argmax(ids[2:]).mean(0)).numpy())
    for other in found[1:]:
        assert_close(other, found[0])


def test_sums_of_what_a_mask_chooses():
    x = TOKENS[:, 0]
    values = deepshap.DeepExplainer(
        lambda x: torch.stack([row[row > 0].sum() for row in x]), x[3:], progress=False
    ).shap_values(x[:3])
    relu = deepshap.DeepExplainer(lambda x: torch.where(x > 0, x, 0.0).sum(1), x[3:], progress=False).shap_values(x[:3])
    assert_close(values, relu)


def test_other_numbers_of_what_a_mask_chooses_are_refused():
    """Their mean is not that of all places."""
    x = TOKENS[:, 0].abs() * torch.tensor([1.0, -1.0, 1.0])
    x[0] = x[0].abs()
    with pytest.raises(deepshap.ControlFlowError, match=r"test_control_flow\.py"):
        deepshap.DeepExplainer(
            lambda x: torch.stack([row[row > 0].mean() for row in x]), x[1:], progress=False
        ).shap_values(x[:1])


def test_counts_that_differ_are_named_where_they_are_made():
    def model(x: Tensor) -> Tensor:
        return x * sum(torch.bincount((x > 0).flatten().int(), minlength=2).tolist())

    with pytest.raises(deepshap.ControlFlowError, match=r"from bincount at test_control_flow\.py"):
        deepshap.DeepExplainer(model, TOKENS[3:], progress=False).shap_values(TOKENS[:3])


def medians_of_groups(x: Tensor) -> Tensor:
    """Of two groups in each row, by two sorts of the whole batch, as graph networks take medians."""
    values, order = x.reshape(-1).sort()
    group = (torch.arange(len(x))[:, None] * 2 + torch.tensor([0, 1, 1])).reshape(-1)
    return values[group[order].sort(stable=True).indices].reshape(x.shape)[:, :2]


@pytest.mark.parametrize("rows", [2, 3])
def test_rows_that_meet_in_a_sort_of_the_batch_are_explained_apart(rows):
    x = TOKENS[:, 0]
    assert torch.equal(medians_of_groups(x), torch.stack([x[:, 0], x[:, 1:].min(1)[0]], 1))
    found = deepshap.DeepExplainer(medians_of_groups, x[3:], progress=False).shap_values(x[:rows])
    assert_close(found.sum(1), (medians_of_groups(x[:rows]) - medians_of_groups(x[3:]).mean(0)).numpy())
    alone = [
        np.mean(
            [deepshap.DeepExplainer(medians_of_groups, r[None], progress=False).shap_values(one[None]) for r in x[3:]],
            0,
        )
        for one in x[:rows]
    ]
    assert_close(found, np.concatenate(alone))


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (
            lambda z: torch.select_scatter(z, z[:, 0], 1, 2),
            r"at test_control_flow\.py:\d+ .*derivative.* select_scatter",
        ),
        (
            lambda z: F.bilinear(z, z, torch.ones(1, 3, 3, dtype=z.dtype)),
            r"bilinear at test_control_flow\.py:\d+ .*derivative",
        ),
        (lambda z: F.soft_margin_loss(z, z.abs(), reduction="none"), "no derivative of: soft_margin_loss"),
    ],
)
def test_what_has_no_derivative_is_named(function, told):
    x = TOKENS[:, 0]
    with pytest.raises(deepshap.UnsupportedOperationError, match=told):
        deepshap.DeepExplainer(lambda x: function(torch.complex(x, x)).abs(), x[3:], progress=False).shap_values(x[:3])


SINGULAR = torch.tensor([[1.0, 1.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda a: torch.linalg.pinv(a @ SINGULAR), "no full rank"),
        (lambda a: torch.linalg.lstsq(a @ SINGULAR, a)[0], "no full rank"),
        (lambda a: torch.linalg.lstsq(a, a, driver="gelsd")[0], "'gelsy' has one"),
        (lambda a: torch.linalg.inv_ex(a @ SINGULAR * 0)[0], "inv_ex at .* is singular"),
        (lambda a: torch.linalg.cholesky_ex(-a @ a.mT)[0], "cholesky_ex at .* not positive definite"),
        (lambda a: torch.linalg.lu_solve(*torch.linalg.lu_factor(a), a), "lu_solve at .* linalg.solve has a rule"),
    ],
)
def test_matrices_without_a_rule_are_refused(function, told):
    x = torch.randn(5, 2, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(deepshap.UnsupportedOperationError, match=told):
        deepshap.DeepExplainer(function, x[2:], progress=False).shap_values(x[:2])


def test_a_branch_on_a_statistic_of_the_batch_is_refused_wherever_the_rows_that_it_changes_stand():
    rows = torch.linspace(0.1, 0.9, 40)[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    x = rows[:, None].expand(-1, 3).contiguous()
    x[[0, -1]] = 0.2  # the first and the last row take the batch's branch

    def model(z):
        return (2 * z[:, 0] if z.mean() > 0.5 else z[:, 0])[:, None].tanh()

    with pytest.raises(deepshap.BatchMixingError, match="a Python branch on values of the"):
        deepshap.DeepExplainer(model, torch.full((4, 3), 0.3)).shap_values(x)


def test_a_number_for_the_whole_batch_that_changes_no_row_is_no_matter():
    def model(z):
        assert bool(torch.isfinite(z).all())
        return z[:, : int((z > -1e9).sum(1).max())].tanh().sum(1, keepdim=True)

    x, background = torch.linspace(-1, 1, 120).reshape(40, 3), torch.zeros(4, 3)
    found = deepshap.DeepExplainer(model, background).shap_values(x)
    np.testing.assert_allclose(found[:, :, 0], x.tanh().numpy(), atol=1e-5)
