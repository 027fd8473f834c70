"""What users write for an explanation, and where they call one: failures are deepshap's errors, with the original as cause."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.masked import masked_tensor

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


@pytest.mark.parametrize("inside", ["make_fx", "torch.jit.trace", "FakeTensorMode"])
@pytest.mark.filterwarnings("ignore")
def test_inside_of_what_records(inside):
    explainer = deepshap.DeepExplainer(nn.Linear(3, 2), R, progress=False)

    def explained(x):
        return torch.as_tensor(explainer.shap_values(x))

    def with_fakes():
        with FakeTensorMode():
            explained(torch.zeros(2, 3))

    calls = {
        "make_fx": lambda: make_fx(explained)(X),
        "torch.jit.trace": lambda: torch.jit.trace(explained, X),
        "FakeTensorMode": with_fakes,
    }
    with pytest.raises(deepshap.InputError, match=f"cannot be called inside of .*{inside}"):
        calls[inside]()
    assert explained(X).shape == (2, 3, 2)


def repeated_by_counts(x):
    counts = [torch.arange(3.0).repeat_interleave((row > 0).long()).sum() for row in x]
    return x + torch.stack(counts)[:, None]


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (lambda x: masked_tensor(x.tanh(), x > 0), deepshap.InputError, "output is a MaskedTensor"),
        (repeated_by_counts, deepshap.ControlFlowError, "repeat_interleave"),
        (lambda x: x.tanh() if x.requires_grad else x, deepshap.BatchMixingError, "x.requires_grad"),
        (lambda x: x.tanh() if torch.is_grad_enabled() else x, deepshap.BatchMixingError, "is_grad_enabled"),
    ],
    ids=["masked tensor", "repeats", "requires_grad", "is_grad_enabled"],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")
def test_models_with_what_cannot_be_followed(model, error, words):
    with pytest.raises(error, match=words):
        deepshap.DeepExplainer(model, R, progress=False).shap_values(X)


def test_repeats_that_are_the_same_on_both_sides():
    def model(x):
        return x.repeat_interleave((x[:, 0] < 1e9).long().sum().expand(3) // len(x) * 2, 1)

    found = deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    assert np.allclose(found.sum(1), (model(X) - model(R).mean(0)).numpy(), atol=1e-5)
