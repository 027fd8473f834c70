"""Custom functions of autograd whose forward is plain torch are explained by it, however they are written and called."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close, drawn, values
from torch import Tensor
from torch.autograd.function import FunctionMeta

import deepshap

# The matrix of versions runs these: torch 2.15 calls custom functions in another way than 2.14.
pytestmark = pytest.mark.fast

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


class NestedAlone(Wrong):
    """Returns what another custom function, whose context is set up apart, returns."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Apart.apply(Silu.apply(x), 2)


class SeveralApart(Wrong):
    """Several results, one of which is no tensor, and setup_context."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, str]:
        return x * y, x > y, "word"

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs)


class Listed(Wrong):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> list[Any]:
        return [x.exp(), {"tanh": x.tanh()}]


class WithConstant(Wrong):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.exp(), torch.full((4,), 3.0, dtype=x.dtype)


class Nothing(Wrong):
    """What torch's own checkpoints call: no numbers that could depend on anything."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.empty(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)


class Inherited(Silu):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Silu.forward(ctx, x) + 1


class OfWeights(Wrong):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return weight.exp()


silu, view, same, apart, in_place = Silu.apply, View.apply, Same.apply, Apart.apply, InPlace.apply
several, listed, inherited, of_weights, nested = (f.apply for f in (SeveralApart, Listed, Inherited, OfWeights, Nested))
WEIGHT = torch.nn.Parameter(torch.linspace(-1, 1, 4, dtype=torch.float64))


def of_several(x: Tensor) -> Tensor:
    product, greater, word = several(x, x.tanh())
    return torch.where(greater, product, x) if word == "word" else x


def without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        return silu(view(x.tanh()).relu_())


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
    "nested, returned as it is": (lambda x: NestedAlone.apply(x), lambda x: (x * torch.sigmoid(x)).tanh() ** 2),
    "nested, taken before": (lambda x: nested(x), lambda x: x * torch.sigmoid(x) * 2),
    "context apart, taken before": (lambda x: apart(silu(x), 2), lambda x: (x * torch.sigmoid(x)).tanh() ** 2),
    "several, context apart": (of_several, lambda x: torch.where(x > x.tanh(), x * x.tanh(), x)),
    "in place, and so after it": (lambda x: in_place(x * 2).mul_(3).relu_(), lambda x: ((x * 2).sin() * 3).relu()),
    "a result in place": (lambda x: silu(x).add_(1).relu_() * x, lambda x: (x * x.sigmoid() + 1).relu() * x),
    "in a list": (lambda x: listed(x)[0] + listed(x)[1]["tanh"], lambda x: x.exp() + x.tanh()),
    "by another's forward": (lambda x: inherited(x) * x, lambda x: (x * x.sigmoid() + 1) * x),
    "one output is constant": (lambda x: torch.mul(*WithConstant.apply(x)).tanh(), lambda x: (3 * x.exp()).tanh()),
    "an output without numbers": (lambda x: x.tanh() + Nothing.apply(x).sum(), torch.tanh),
    "of weights": (lambda x: (of_weights(WEIGHT) * x).tanh(), lambda x: (WEIGHT.exp() * x).tanh()),
    "without gradients": (without_gradients, lambda x: x.tanh().relu() * torch.sigmoid(x.tanh().relu())),
}


@pytest.mark.parametrize("custom", BOTH)
def test_the_forward_is_explained(custom):
    function, plain = BOTH[custom]
    before = dict(vars(FunctionMeta))
    found = values(function, X, R)
    assert dict(vars(FunctionMeta)) == before
    assert_close(found, values(plain, X, R))
    with torch.no_grad():
        assert_close(found.sum(1), (plain(X) - plain(R).mean(0)).numpy())


def test_calls_in_another_thread_are_refused():
    def model(x: Tensor) -> Tensor:
        found: list[Tensor] = []
        thread = threading.Thread(target=lambda: found.append(silu(x)))
        thread.start()
        thread.join()
        return found[0].tanh()

    with pytest.raises(deepshap.UnsupportedOperationError, match=r"custom autograd function \(SiluBackward\)"):
        values(model, X, R)


def test_an_error_in_a_forward_leaves_the_metaclass_as_it_was():
    class Failing(Wrong):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            if "forward" in vars(FunctionMeta):
                raise LookupError("of the model")
            return x.tanh()

    before = dict(vars(FunctionMeta))
    with pytest.raises(Exception, match="of the model"):
        values(Failing.apply, X, R)
    assert dict(vars(FunctionMeta)) == before


def test_a_model_that_replaces_a_forward():
    class Exchanged(Wrong):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x

    def model(x: Tensor) -> Tensor:
        Exchanged.forward = staticmethod(lambda ctx, x: x.tanh())  # type: ignore[method-assign,assignment]
        return Exchanged.apply(x)

    assert_close(values(model, X, R), values(torch.tanh, X, R))


def test_torch_calls_custom_functions_as_before():
    values(silu, X, R)
    x = X.clone().requires_grad_()
    silu(x).sum().backward()
    assert np.array_equal(x.grad.numpy(), np.full(x.shape, 7.0))
