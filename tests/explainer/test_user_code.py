"""What users write for an explanation, and where they call one: failures are deepshap's errors, with the original as cause."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import deepshap
from deepshap.captum import DeepLiftShap

R, X = torch.randn(4, 3), torch.randn(2, 3)


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


class Broken(Exception):
    """Of the user's own."""


def failing(error: BaseException):
    def fails(*_):
        raise error

    return fails


@pytest.fixture
def register():
    yield lambda rule: deepshap.register_rule(Own, rule)
    deepshap.unregister_rule(Own)


@pytest.mark.parametrize(
    "error", [Broken("no"), RuntimeError("no"), TypeError("no"), ZeroDivisionError("no")], ids=repr
)
@pytest.mark.parametrize("options", [{}, {"ranked_outputs": 1}])
def test_a_rule_that_fails_is_named(register, error, options):
    register(failing(error))
    model = nn.Sequential(nn.Linear(3, 2), Own())
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(
        deepshap.UserCodeError, match=r"rule failing.*fails that is registered for Own failed: \w+: no"
    ) as raised:
        deepshap.DeepExplainer(model, R, progress=False).shap_values(X, **options)
    assert raised.value.__cause__ is error
    assert isinstance(raised.value, deepshap.InputError)
    assert all(torch.equal(a, b) and b.requires_grad for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()], ids=repr)
def test_interruptions_are_let_through(register, error):
    register(failing(error))
    with pytest.raises(type(error)):
        deepshap.DeepExplainer(nn.Sequential(nn.Linear(3, 2), Own()), R, progress=False).shap_values(X)


def test_own_errors_are_let_through(register):
    register(failing(deepshap.UnsupportedOperationError("as it is")))
    with pytest.raises(deepshap.UnsupportedOperationError, match=r"^as it is$"):
        deepshap.DeepExplainer(nn.Sequential(nn.Linear(3, 2), Own()), R, progress=False).shap_values(X)


def test_a_function_that_fails_to_return_a_background_is_named():
    error = Broken("no")
    explainer = deepshap.DeepExplainer(nn.Linear(3, 2), failing(error), progress=False)
    with pytest.raises(
        deepshap.UserCodeError, match=r"function failing.* that returns the background, for row 0"
    ) as raised:
        explainer.shap_values(X)
    assert raised.value.__cause__ is error


def test_functions_that_captums_classes_take():
    model, error = nn.Linear(3, 2), Broken("no")
    for options, what in (
        ({"baselines": lambda: failing(error)()}, "the function that returns the baselines failed: Broken: no"),
        (
            {"baselines": R, "custom_attribution_func": lambda m: failing(error)()},
            "custom_attribution_func failed: Broken: no",
        ),
    ):
        with pytest.raises(deepshap.UserCodeError, match=what) as raised:
            DeepLiftShap(model).attribute(X, target=0, **options)
        assert raised.value.__cause__ is error


def test_inside_of_torch_compile():
    explainer = deepshap.DeepExplainer(nn.Linear(3, 2), R, progress=False)
    compiled = torch.compile(lambda x: explainer.shap_values(x), backend="eager")
    try:
        with pytest.raises(deepshap.InputError, match=r"inside of torch\.compile"):
            compiled(X)
    finally:
        torch.compiler.reset()
    assert explainer.shap_values(X).shape == (2, 3, 2)
