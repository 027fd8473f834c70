"""Grouped matrix products, which torch computes in float32 and below only, against products of each group."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close, drawn, values
from torch import Tensor

A, B = drawn(2, 16, 8, seed=3).float(), drawn(2, 8, 16, seed=4).float()
X, R = (0.1 * drawn(rows, 8, 16, seed=seed).float() for rows, seed in ((2, 1), (3, 2)))
ENDS = torch.tensor([4, 8], dtype=torch.int32)


def groups_of_rows(product: Callable[..., Tensor], x: Tensor) -> Tensor:
    return torch.stack([product(row.tanh(), A, offs=ENDS).sin() for row in x])


def groups_of_columns(product: Callable[..., Tensor], x: Tensor) -> Tensor:
    return torch.stack([product(B, row.tanh().T.contiguous(), offs=ENDS) for row in x])


def groups_of_summands(product: Callable[..., Tensor], x: Tensor) -> Tensor:
    ends = torch.tensor([8, 16], dtype=torch.int32)
    return torch.stack([product(row.tanh(), row.exp().T.contiguous(), offs=ends) for row in x])


def of_stacks(product: Callable[..., Tensor], x: Tensor) -> Tensor:
    return torch.stack([product(row.tanh().expand(2, 8, 16).contiguous(), A) for row in x])


def by_hand(a: Tensor, b: Tensor, offs: Tensor | None = None) -> Tensor:
    if offs is None:
        return a @ b
    first, second = slice(0, int(offs[0])), slice(int(offs[0]), int(offs[1]))
    if b.dim() == 3:
        return torch.cat([a[first] @ b[0], a[second] @ b[1]])
    if a.dim() == 3:
        return torch.cat([a[0] @ b[:, first], a[1] @ b[:, second]], 1)
    return torch.stack([a[:, first] @ b[first], a[:, second] @ b[second]])


@pytest.mark.parametrize("form", [groups_of_rows, groups_of_columns, groups_of_summands, of_stacks])
def test_groups_are_products_of_their_own(form):
    found = values(lambda x: form(F.grouped_mm, x), X, R)
    assert_close(found, values(lambda x: form(by_hand, x), X, R), 1e-4)
