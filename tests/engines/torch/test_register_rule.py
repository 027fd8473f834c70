"""Rules that users register."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close, drawn, values
from torch import Tensor, nn

import deepshap

X, R = drawn(3, 4, seed=1), drawn(5, 4, seed=2)
SPECIAL = torch.special.airy_ai


class Squared(torch.autograd.Function):
    """x^2 with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 0


class Opaque(nn.Module):
    """A module that computes what the library cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j1(x) * 2


def test_elementwise(register):
    register(SPECIAL, "elementwise")
    found = values(SPECIAL, X, R)
    wanted = SPECIAL(X).numpy() - SPECIAL(R).mean(0).numpy()
    assert_close(np.diagonal(found, 0, 1, 2), wanted)
    assert (found[:, 0, 1:] == 0).all()


def test_smooth(register):
    def exponential(x: Tensor) -> Tensor:
        return torch.matrix_exp(x.view(-1, 2, 2)).flatten(1)

    register(torch.matrix_exp, "smooth")
    found = values(exponential, X, R)
    assert_close(found.sum(1), (exponential(X) - exponential(R).mean(0)).numpy())


def test_smooth_asks_for_a_derivative(register):
    register(SPECIAL, "smooth")
    with pytest.raises(deepshap.DeepShapError, match="airy_ai"):
        values(SPECIAL, X, R)


def test_linear_and_constant(register):
    register(Opaque, "constant")
    register(SPECIAL, "linear")
    opaque = Opaque()
    assert_close(values(lambda x: opaque(x) * 0 + x, X, R), values(lambda x: x.clone(), X, R))


def test_a_custom_autograd_function(register):
    register(Squared, "quadratic")

    class Wrong(Squared):
        pass

    wanted = values(lambda x: x.square(), X, R)
    assert_close(values(lambda x: Wrong.apply(x), X, R), wanted)  # by its forward
    register(Wrong, lambda step, m: m * (step.inputs[0] + step.reference_inputs[0]))
    assert_close(values(lambda x: Wrong.apply(x), X, R), wanted)
    with pytest.raises(deepshap.AdditivityError):
        values(lambda x: Squared.apply(x), X, R)  # "quadratic" asks the function's own gradient, which is wrong here


class Scaled(torch.autograd.Function):
    """Something of the input that a rule calls constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.detach() * 0 + torch.arange(4)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class ScaledApart(Scaled):
    """The same, with a context that is set up elsewhere."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.detach() * 0 + torch.arange(4)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)


@pytest.mark.parametrize("function", [Scaled, ScaledApart])
def test_a_constant_custom_function(function, register):
    register(function, "constant")
    found = values(lambda x: x * function.apply(x), X, R)
    assert_close(found, np.einsum("bi,io->bio", X - R.mean(0), np.diag(np.arange(4.0))))


def test_a_module_class(register):
    model = nn.Sequential(nn.Linear(4, 3), Opaque(), nn.Linear(3, 2)).double()
    register(Opaque, "elementwise")
    found = values(model, X, R)
    with torch.no_grad():
        assert_close(found.sum(1), (model(X) - model(R).mean(0)).numpy())
    assert "forward" not in model[1].__dict__


def test_a_function_of_two_tensors(register):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
            return a * b

    def rule(step: Any, multiplier: Tensor) -> tuple[Tensor, Tensor]:
        (a, b), (a_ref, b_ref) = step.inputs, step.reference_inputs
        return multiplier * (b + b_ref) / 2, multiplier * (a + a_ref) / 2

    register(Product, rule)
    found = values(lambda x: Product.apply(x[:, :2], x[:, 2:]), X, R)
    assert_close(found, values(lambda x: x[:, :2] * x[:, 2:], X, R))


def test_what_a_rule_gets_to_see(register):
    steps = []

    def rule(step: Any, multiplier: Tensor) -> Tensor:
        steps.append(step)
        y, y_ref = step.evaluate(step.inputs[0]), step.evaluate(step.reference_inputs[0])
        assert torch.equal(y, step.outputs[0])
        assert torch.equal(y_ref, step.reference_outputs[0])
        assert multiplier.shape == step.outputs[0].shape
        return multiplier * (y - y_ref) / (step.inputs[0] - step.reference_inputs[0])

    register(SPECIAL, rule)
    assert_close(values(SPECIAL, X, R).sum(1), (SPECIAL(X) - SPECIAL(R).mean(0)).numpy())
    assert steps


def test_a_rule_replaces_the_built_in_one(register):
    register(torch.tanh, lambda step, m: m * 2)
    with pytest.raises(deepshap.AdditivityError, match="tanh"):
        values(torch.tanh, X, R)


NO_MULTIPLIERS = {
    "a tensor of torch.bool": lambda m: m > 0,
    "a tensor of torch.int32": lambda m: m.int(),
    "a tensor on the device meta": lambda m: m.to("meta"),
    "a tensor of layout torch.sparse_coo": lambda m: m.to_sparse(),
    "a nested tensor": lambda m: torch.nested.nested_tensor(list(m)),
}


@pytest.mark.parametrize("words", NO_MULTIPLIERS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_is_no_multiplier_is_named(register, words):
    made = NO_MULTIPLIERS[words]
    register(SPECIAL, lambda step, m: made(m))
    with pytest.raises(deepshap.InputError, match=f"the rule of .*airy_ai returned {words}"):
        values(SPECIAL, X, R)
    explainer = deepshap.DeepExplainer(nn.Sequential(nn.Linear(4, 4).double(), nn.Tanh()), R, progress=False)
    explainer.register_custom_handler("1", lambda call: made(call.multipliers[0]))
    with pytest.raises(deepshap.InputError, match=rf"handler .* of layer '1' \(Tanh\) returned {words} for input 0"):
        explainer.shap_values(X)


def test_the_last_registration_counts(register):
    register(torch.special.bessel_y0, "linear")
    register(SPECIAL, "linear")
    deepshap.register_rule(SPECIAL, "elementwise")
    assert np.isfinite(values(SPECIAL, X, R)).all()


def test_an_unregistered_rule_is_forgotten():
    deepshap.register_rule(SPECIAL, "elementwise")
    deepshap.unregister_rule(SPECIAL)
    with pytest.raises(deepshap.UnsupportedOperationError):
        values(SPECIAL, X, R)
    with pytest.raises(deepshap.InputError, match="airy_ai"):
        deepshap.unregister_rule(SPECIAL)


@pytest.mark.parametrize(
    ("function", "rule", "word"), [(3, "linear", "int"), (SPECIAL, "magic", "magic"), (SPECIAL, 3, "int")]
)
def test_what_cannot_be_registered(function, rule, word):
    with pytest.raises(deepshap.InputError, match=word):
        deepshap.register_rule(function, rule)


def test_a_rule_that_returns_too_little(register):
    register(SPECIAL, lambda step, m: ())
    with pytest.raises((TypeError, deepshap.DeepShapError), match="airy_ai"):
        values(SPECIAL, X, R)
