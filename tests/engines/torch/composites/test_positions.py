"""Positions chosen by value and used as indices: the values at both choices averaged, the effect of choosing to the scores.

Their oracle is ``positions.py``, which TensorFlow's engine is held to as well.
"""

from __future__ import annotations

import numpy as np
import positions
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close
from positions import ROWS, SIZE, averaged
from torch import Tensor

import deepshap

VALUES, SCORES, WEIGHTS = map(torch.as_tensor, (positions.VALUES, positions.SCORES, positions.WEIGHTS))


def explained(model, *inputs: Tensor) -> list[np.ndarray]:
    """Values of each input, summed to be what the outputs differ by."""
    x, r = [v[:ROWS] for v in inputs], [v[ROWS:] for v in inputs]
    found = deepshap.DeepExplainer(model, r, progress=False).shap_values(x)
    total = sum(f.reshape(ROWS, -1, f.shape[-1]).sum(1) for f in found)
    assert_close(total, (model(*x) - model(*r).mean(0)).reshape(ROWS, -1).numpy())
    return found


TAKEN = {
    "gather of argmax": (0, lambda v, s: v.gather(1, s.argmax(1, keepdim=True))),
    "gather of max": (0, lambda v, s: v.gather(1, s.max(1, keepdim=True)[1])),
    "gather of argmin": (0, lambda v, s: v.gather(1, (-s).argmin(1, keepdim=True))),
    "indexing by argmax": (0, lambda v, s: v[torch.arange(len(v)), s.argmax(1)][:, None]),
    "take_along_dim of argsort": (2, lambda v, s: torch.take_along_dim(v, s.argsort(1, descending=True), 1)[:, 2:3]),
    "topk": (1, lambda v, s: v.gather(1, s.topk(3, 1).indices)[:, 1:2]),
    "one-hot of topk": (1, lambda v, s: (F.one_hot(s.topk(3, 1).indices, SIZE)[:, 1] * v).sum(1, keepdim=True)),
    "sort": (SIZE - 2, lambda v, s: v.gather(1, s.sort(1).indices[:, 1:2])),
    "kthvalue": (SIZE - 2, lambda v, s: v.gather(1, s.kthvalue(2, 1, keepdim=True).indices)),
}


@pytest.mark.parametrize(("rank", "model"), TAKEN.values(), ids=TAKEN.keys())
@pytest.mark.fast
def test_a_value_at_a_chosen_position(rank, model):
    for found, wanted in zip(explained(model, VALUES, SCORES), averaged(rank), strict=True):
        assert_close(found[..., 0], wanted)


def test_scattering_to_positions_is_the_transpose_of_taking():
    """<w, scatter(v, p)> = <w[p], v>: with fixed weights the values are explained alike in both forms."""
    weights = WEIGHTS[0].expand(len(VALUES), -1)

    def scattered(v: Tensor, s: Tensor) -> Tensor:
        put = torch.zeros_like(v).scatter_add_(1, s.argsort(1), v)
        return (put * WEIGHTS[0]).sum(1, keepdim=True)

    def taken(v: Tensor, s: Tensor) -> Tensor:
        return (WEIGHTS[0].expand(len(v), -1).gather(1, s.argsort(1)) * v).sum(1, keepdim=True)

    assert weights.shape == VALUES.shape
    for a, b in zip(explained(scattered, VALUES, SCORES), explained(taken, VALUES, SCORES), strict=True):
        assert_close(a, b)


def dense_experts(v: Tensor, s: Tensor) -> Tensor:
    """Two of five experts for each row, mixed by the softmax of their scores: weights looked up, batched products."""
    weights, chosen = torch.softmax(s, 1).topk(2, 1)
    hidden = torch.tanh(WEIGHTS[:, :, None] * WEIGHTS)[chosen] @ v[:, None, :, None]
    return (torch.relu(hidden[..., 0]) * weights[..., None]).sum(1)


FORMS = {
    "experts": dense_experts,
    "a table of rows": lambda v, s: WEIGHTS[s.argmax(1)] * v,
    "two axes": lambda v, s: WEIGHTS[v.argmax(1), s.argmax(1)][:, None] + v,
    "two axes apart": lambda v, s: WEIGHTS.expand(2, -1, -1)[:, s.argmax(1)][0].sin() * v,
    "beside an axis": lambda v, s: v[:, None].sin().expand(-1, 2, -1)[torch.arange(len(v)), :, s.argmax(1)],
    "from the end": lambda v, s: v[torch.arange(len(v)), s.argmax(1) - SIZE][:, None],
    "index_select": lambda v, s: WEIGHTS.index_select(1, s.argmin(1)).T * v,
    "take": lambda v, s: torch.take(WEIGHTS, s.argsort(1)) * v,
    "a mask of the best": lambda v, s: v.masked_fill(v.gt(9).scatter(1, s.topk(2, 1).indices, True), 0).exp(),
    "overwritten": lambda v, s: v.sin().scatter(1, s.topk(2, 1).indices, v[:, :2] * 3),
    "overwritten, in place": lambda v, s: torch.zeros_like(v).scatter_(1, s.topk(2, 1).indices, 1.0) * v,
    "a part of the rows' values": lambda v, s: v.view(-1, 1, SIZE).gather(2, s.argsort(1)[:, None, :2])[:, 0] ** 2,
    "computed positions": lambda v, s: v.gather(1, (s.argsort(1) * 2 + 1) % SIZE),
    "halved positions": lambda v, s: torch.zeros_like(v).scatter_add(1, s.argsort(1) // 2, v),
    "integers looked up": lambda v, s: torch.arange(0, 50, 10)[s.argmax(1)][:, None] * v,
    "compared": lambda v, s: sum((s.argmax(1, keepdim=True) == k) * torch.sin((k + 1) * v) for k in range(SIZE)),
    "put": lambda v, s: put(v.sin(), (torch.arange(len(v)), s.argmax(1)), v[:, 0] ** 2),
    "put in rows": lambda v, s: put(
        WEIGHTS.expand(len(v), -1, -1).clone(), (torch.arange(len(v)), s.argmax(1)), v
    ).flatten(1),
    "put between axes": lambda v, s: put(
        v[:, None] * WEIGHTS, (torch.arange(len(v)), slice(None), s.argmax(1)), 7.0
    ).flatten(1),
    "put by name": lambda v, s: v.cos().index_put((torch.arange(len(v)), s.argmin(1)), v[:, 1].exp()),
    "added twice": lambda v, s: v.index_put(rows_and(s.argsort(1) // 2), (v**2).flatten(), accumulate=True),
    "copied": lambda v, s: torch.stack(
        [a.index_copy(0, b.argsort()[:2], a[:2] * 2) for a, b in zip(v, s, strict=True)]
    ),
    "filled": lambda v, s: torch.stack([a.index_fill(0, b.argsort()[:2], 2.0) for a, b in zip(v, s, strict=True)]),
    "sum of each": lambda v, s: v.scatter_reduce(1, s.argsort(1) // 2, v.sin(), "sum"),
    "sum of others": lambda v, s: v.scatter_reduce(1, s.argsort(1) // 2, v.sin(), "sum", include_self=False),
    "mean of each": lambda v, s: v.scatter_reduce(1, s.argsort(1) // 2, v.sin(), "mean"),
    "mean of others": lambda v, s: v.scatter_reduce(1, s.argsort(1) // 2, v.sin(), "mean", include_self=False),
    "greatest of each": lambda v, s: v.scatter_reduce(1, s.argsort(1) // 2, v.sin(), "amax"),
    "least of others": lambda v, s: v.scatter_reduce(1, s.argsort(1)[:, :3] // 2, v**2, "amin", include_self=False),
    "running maximum": lambda v, s: v.gather(1, s.cummax(1).indices),
    "running minimum": lambda v, s: v.gather(1, s.cummin(1).indices) ** 2,
    "pooled": lambda v, s: v.gather(1, F.max_pool1d(s[:, None], 3, 2, 1, return_indices=True)[1][:, 0]),
    "pooled adaptively": lambda v, s: v.gather(1, F.adaptive_max_pool1d(s[:, None], 2, return_indices=True)[1][:, 0]),
    "unpooled": lambda v, s: F.max_unpool1d(
        *F.max_pool1d((v + s)[:, None], 2, return_indices=True), 2, output_size=(5,)
    )[:, 0],
    "best of infinities": lambda v, s: (
        torch.full_like(s, -torch.inf).scatter(1, s.topk(3, 1)[1], s.topk(3, 1)[0]).softmax(1)
    ),
    "one place in each row": lambda v, s: row_by_row(v, s, lambda a, b: a[b.argmax()]),
    "one place of two axes": lambda v, s: row_by_row(v, s, lambda a, b: a.outer(b)[b.argmax(), b.argmin()]),
    "a place among all rows": lambda v, s: torch.stack([v[k, p] for k, p in enumerate(s.argmax(1))])[:, None],
    "a column": lambda v, s: row_by_row(v, s, lambda a, b: a.outer(b)[..., b.argmax()]),
    "in a list": lambda v, s: row_by_row(v, s, lambda a, b: a.outer(b)[1:3, [b.argmax(), 0]]),
    "selected": lambda v, s: row_by_row(v, s, lambda a, b: a.outer(a).select(1, b.argmax())),
    "index_select of one": lambda v, s: row_by_row(v, s, lambda a, b: a.index_select(0, b.argmax())),
    "narrowed": lambda v, s: row_by_row(v, s, lambda a, b: a.narrow(0, b[:3].argmax(), 2) ** 2),
    "filled at one place": lambda v, s: row_by_row(v, s, lambda a, b: a.index_fill(0, b.argmax(), 2.0)),
    "put at one place": lambda v, s: row_by_row(v, s, lambda a, b: put(a.sin(), b.argmax(), a[0] ** 2)),
    "added at one place": lambda v, s: row_by_row(v, s, lambda a, b: added_at(a.sin(), b.argmax(), a[0])),
    "greatest by slices": lambda v, s: row_by_row(
        v, s, lambda a, b: a.index_reduce(0, b.argsort() // 2, a.sin(), "amax")
    ),
    "scores with infinities": lambda v, s: v.gather(1, s.masked_fill(torch.arange(SIZE) > 3, -torch.inf).argsort(1)),
}


def put(target: Tensor, index, value) -> Tensor:
    target[index] = value
    return target


def added_at(target: Tensor, index, value) -> Tensor:
    target[index] += value
    return target


def row_by_row(v: Tensor, s: Tensor, function) -> Tensor:
    return torch.stack([function(a, b) for a, b in zip(v, s, strict=True)]).reshape(len(v), -1)


def rows_and(positions: Tensor) -> tuple[Tensor, Tensor]:
    return torch.arange(len(positions)).repeat_interleave(positions.shape[1]), positions.flatten()


@pytest.mark.parametrize("model", FORMS.values(), ids=FORMS.keys())
def test_every_form_adds_up(model):
    found = explained(model, VALUES, SCORES)
    assert np.abs(found[1]).max() > 0


WAYS = {
    "put": (
        lambda v, s: put(v.sin(), (torch.arange(len(v)), s.argmax(1)), v[:, 0] ** 2),
        lambda v, s: v.sin().scatter(1, s.argmax(1, keepdim=True), v[:, :1] ** 2),
    ),
    "one place": (
        lambda v, s: torch.stack([a[b.argmax()] for a, b in zip(v, s, strict=True)])[:, None],
        lambda v, s: v.gather(1, s.argmax(1, keepdim=True)),
    ),
    "one window": (
        lambda v, s: v.gather(1, F.max_pool1d(s[:, None], SIZE, return_indices=True)[1][:, 0]),
        lambda v, s: v.gather(1, s.argmax(1, keepdim=True)),
    ),
    "summed": (
        lambda v, s: v.cos().scatter_reduce(1, s.argsort(1) // 2, v, "sum"),
        lambda v, s: v.cos().scatter_add(1, s.argsort(1) // 2, v),
    ),
    "unpooled": (
        lambda v, s: F.max_unpool1d(v[:, None, :2], F.max_pool1d(s[:, None, :4], 2, return_indices=True)[1], 2)[:, 0],
        lambda v, s: torch.zeros_like(v[:, :4]).scatter(
            1, torch.cat([s[:, :2].argmax(1, True), 2 + s[:, 2:4].argmax(1, True)], 1), v[:, :2]
        ),
    ),
    "integers chosen": (
        lambda v, s: torch.where(s > 0, 3, 1) * v,
        lambda v, s: torch.where(s > 0, 3 * torch.ones_like(v), 1.0) * v,
    ),
}


@pytest.mark.parametrize(("one", "other"), WAYS.values(), ids=WAYS.keys())
def test_ways_to_say_the_same_are_explained_alike(one, other):
    for a, b in zip(explained(one, VALUES, SCORES), explained(other, VALUES, SCORES), strict=True):
        assert_close(a, b)


def test_positions_of_the_greatest_of_single_rows_and_ties():
    explained(lambda v, s: v.gather(1, s.argmax(1, keepdim=True)), VALUES, torch.as_tensor(positions.TIED))


def test_they_can_be_refused():
    deepshap.register_rule("positions", "same")
    try:
        for model in (TAKEN["gather of argmax"][1], TAKEN["topk"][1], FORMS["compared"]):
            with pytest.raises(deepshap.ControlFlowError, match=r"test_positions\.py"):
                explained(model, VALUES, SCORES)
        explained(lambda v, s: v.gather(1, (s + 100 * torch.arange(SIZE)).argsort(1)), VALUES, SCORES)
    finally:
        deepshap.unregister_rule("positions")
    explained(TAKEN["topk"][1], VALUES, SCORES)


def test_scattering_twice_to_one_position_is_refused():
    with pytest.raises(deepshap.UnsupportedOperationError, match="twice"):
        explained(lambda v, s: torch.zeros_like(v).scatter(1, s.argsort(1) // 2, v), VALUES, SCORES)
