"""Custom functions of autograd whose forward is plain torch are explained by it, however they are written and called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close, drawn, values
from torch import Tensor

X, R = drawn(3, 4, seed=1), drawn(5, 4, seed=2)


class Wrong(torch.autograd.Function):
    """With a gradient that belongs to no forward."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return 7 * gradients[0]


class Silu(Wrong):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            s = torch.sigmoid(x)
        ctx.save_for_backward(x, s)
        return x * s


class Apart(Wrong):
    """The context is set up elsewhere, and an argument has a default."""

    @staticmethod
    def forward(x: Tensor, power: int = 3) -> Tensor:
        return x.tanh() ** power

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])


class View(Wrong):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)


class Same(Wrong):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x


class InPlace(Wrong):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.sin_()


class Two(Wrong):
    """With a result that is said to have no gradient, though it depends on the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = x > 0
        ctx.mark_non_differentiable(kept)
        ctx.set_materialize_grads(False)
        return x.exp(), kept


class Step(Wrong):
    """A threshold that passes gradients on as they are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype) if ctx.needs_input_grad is not None else x


class Nested(Wrong):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Silu.apply(x) * 2


silu, view, same = Silu.apply, View.apply, Same.apply
BOTH: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "plain": (lambda x: Silu.apply(2 * x), lambda x: 2 * x * torch.sigmoid(2 * x)),
    "taken before": (lambda x: silu(2 * x), lambda x: 2 * x * torch.sigmoid(2 * x)),
    "context apart": (lambda x: Apart.apply(2 * x), lambda x: (2 * x).tanh() ** 3),
    "context apart, keyword": (lambda x: Apart.apply(2 * x, 2), lambda x: (2 * x).tanh() ** 2),
    "view": (lambda x: View.apply(x) * x.sigmoid(), lambda x: x * x.sigmoid()),
    "view, taken before": (lambda x: view(x) * x.sigmoid(), lambda x: x * x.sigmoid()),
    "view of a part": (lambda x: view(x[:, :2]).tanh(), lambda x: x[:, :2].tanh()),
    "gradient reversed": (lambda x: same(x.tanh(), 0.5).square(), lambda x: x.tanh().square()),
    "in place": (lambda x: InPlace.apply(x * 2) + 1, lambda x: (x * 2).sin() + 1),
    "two results": (
        lambda x: torch.where(Two.apply(x)[1], *Two.apply(x)[:1], x),
        lambda x: torch.where(x > 0, x.exp(), x),
    ),
    "step": (lambda x: Step.apply(x) * x, lambda x: (x > 0).to(x.dtype) * x),
    "nested": (lambda x: Nested.apply(x), lambda x: x * torch.sigmoid(x) * 2),
}


@pytest.mark.parametrize("custom", BOTH)
def test_the_forward_is_explained(custom):
    function, plain = BOTH[custom]
    before = torch.autograd.Function.apply.__func__.__code__
    found = values(function, X, R)
    assert torch.autograd.Function.apply.__func__.__code__ is before
    assert_close(found, values(plain, X, R))
    with torch.no_grad():
        assert_close(found.sum(1), (plain(X) - plain(R).mean(0)).numpy())


def test_torch_calls_custom_functions_as_before():
    values(silu, X, R)
    x = X.clone().requires_grad_()
    silu(x).sum().backward()
    assert np.array_equal(x.grad.numpy(), np.full(x.shape, 7.0))
