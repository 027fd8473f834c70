"""Runs that make the calls of one before go the same ways, without a search for them."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import pytest
import torch
from cases.of_torch import CASES
from helpers import LOW_PRECISION, TOLERANCE, assert_close, built, drawn, explainer_of, leaves
from torch import Tensor, nn

import deepshap
from deepshap.engines.torch.trace import Tracer

ROWS, REFERENCES = 2, 3
ELSEWHERE: dict[str, Any] = {}  # what models read, where nobody looks for it


@pytest.fixture
def found_anew(monkeypatch):
    """Names of calls that the tracer looked for a way for."""
    names: list[str] = []
    follow = Tracer._followed

    def followed(tracer: Tracer, call: Any, *given: Any) -> Any:
        names.append(call.name)
        return follow(tracer, call, *given)

    monkeypatch.setattr(Tracer, "_followed", followed)
    return names


class Doing(nn.Module):
    """Does something with its input and a setting from elsewhere."""

    def __init__(self, what: Any, setting: Any = None) -> None:
        super().__init__()
        self.what, ELSEWHERE["setting"] = what, setting
        self.first, self.cell = nn.Linear(4, 4), nn.LSTMCell(4, 4)
        self.register_buffer("factor", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.what(self, x, ELSEWHERE["setting"]).flatten(1).sum(1, keepdim=True)


def in_a_loop(model: Doing, x: Tensor, _: Any) -> Tensor:
    state = x.new_zeros(len(x), 4), x.new_zeros(len(x), 4)
    for step in x.unbind(1):
        state = model.cell(step, state)
    return state[0]


AGAIN = {
    "linear": lambda m, x, _: m.first(x).transpose(1, 2)[:, 1:],
    "elementwise": lambda m, x, _: torch.tanh(m.first(x)) * torch.sigmoid(x),
    "composed": lambda m, x, _: nn.functional.layer_norm(x, (4,)).softmax(-1).cumsum(1).amax(1),
    "products": lambda m, x, _: torch.einsum("bij,bkj->bik", m.first(x), x) / 3,
    "loop of cells": in_a_loop,
    "dropout": lambda m, x, _: nn.functional.dropout(m.first(x), 0.5, training=m.training),
    "casts": lambda m, x, _: m.first(x).float().relu().double(),
    "constants": lambda m, x, _: x * torch.arange(4.0, dtype=x.dtype) + m.factor,
    "numbers": lambda m, x, _: torch.clamp(x, -0.5, 0.5) + 2,
}


@pytest.mark.fast
@pytest.mark.parametrize("name", AGAIN)
@pytest.mark.parametrize("frozen", [False, True])
def test_the_second_call_looks_for_nothing(name, frozen, found_anew):
    model, references, x = built(Doing(AGAIN[name])), drawn(9, 3, 4, seed=2), drawn(2, 3, 4, seed=1)
    explainer = deepshap.DeepExplainer(model, references, progress=False)
    with explainer.frozen() if frozen else nullcontext():
        wanted = explainer.shap_values(x)
        found_anew.clear()
        found = explainer.shap_values(x)
    assert found_anew == []
    np.testing.assert_array_equal(found, wanted)
    other = explainer.shap_values(x + 0.5)
    fresh = deepshap.DeepExplainer(model, references, progress=False).shap_values(x + 0.5)
    np.testing.assert_array_equal(other, fresh)


@pytest.mark.parametrize("name", ["a step in place", "in place"])
def test_what_writes_is_looked_at_each_time(name, found_anew):
    does = {"in place": lambda m, x, _: x.clone().mul_(2), "a step in place": lambda m, x, _: x.clone().relu_()}
    model, references, x = built(Doing(does[name])), drawn(9, 3, 4, seed=2), drawn(2, 3, 4, seed=1)
    explainer = deepshap.DeepExplainer(model, references, progress=False)
    wanted = explainer.shap_values(x)
    found_anew.clear()
    np.testing.assert_array_equal(explainer.shap_values(x), wanted)
    assert found_anew


BECOME_OTHERS = {
    "a number": (lambda m, x, s: x * s, 2.0, 3.0),
    "a number of the same worth": (lambda m, x, s: x.sum(1, keepdim=s), True, False),
    "a function": (lambda m, x, s: s(x), torch.tanh, torch.relu),
    "a constant": (lambda m, x, s: x * s, torch.ones(4), torch.arange(4.0)),
    "a large constant": (
        lambda m, x, s: (x[:, 0, :1] * s).sum(1, keepdim=True),
        torch.ones(20_000),
        torch.arange(20_000.0),
    ),
    "an operand": (lambda m, x, s: (m.first(x), x)[s] * x, 0, 1),
    "inside of what is composed": (lambda m, x, s: nn.functional.layer_norm(x, (4,), eps=s)[..., :1], 1e-5, 1.0),
    "a call more": (lambda m, x, s: torch.tanh(x) if s else torch.tanh(torch.tanh(x)), True, False),
    "a call less": (lambda m, x, s: torch.tanh(torch.tanh(x)) if s else torch.tanh(x), True, False),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", BECOME_OTHERS)
def test_what_has_become_another_is_explained_as_it_is(name, frozen):
    """Also where it was explained within frozen() in between, which promises what is not so."""
    what, before, after = BECOME_OTHERS[name]
    model, references, x = (
        built(Doing(what, before)).float(),
        drawn(9, 3, 4, seed=2).float(),
        drawn(2, 3, 4, seed=1).float(),
    )
    explainer = deepshap.DeepExplainer(model, references, progress=False)
    for _ in range(2):
        explainer.shap_values(x)
    ELSEWHERE["setting"] = after
    if frozen:
        with explainer.frozen(), suppress(deepshap.DeepShapError):
            explainer.shap_values(x)
    found = explainer(x)
    fresh = deepshap.DeepExplainer(model, references, progress=False)(x)
    assert_close(found.values, fresh.values, 1e-6)
    assert_close(found.base_values, fresh.base_values, 1e-6)


def test_an_operator_of_the_users_own_is_looked_at_on_all_references():
    """What it computes, its calls do not tell; two of forty references feel what changes."""
    steps = {"at": np.array([-1.0, 0.0, 1.0, 3.0]), "to": np.array([0.0, 0.2, 0.8, 1.0])}

    @torch.library.custom_op("deepshap_tests::calibrated", mutates_args=())
    def calibrated(x: Tensor) -> Tensor:
        return torch.from_numpy(np.interp(x.detach().numpy(), steps["at"], steps["to"]))

    deepshap.register_rule(torch.ops.deepshap_tests.calibrated, "elementwise")
    try:
        references, x = torch.zeros(40, 3).double(), drawn(2, 3, seed=1).clamp(-0.2, 0.2)
        references[[3, 17], 0] = 2.0
        explainer = deepshap.DeepExplainer(lambda x: calibrated(x.sum(1, keepdim=True)), references, progress=False)
        for _ in range(4):
            explainer(x)
        steps["to"] = np.array([0.0, 0.2, 0.8, 5.0])
        wanted = calibrated(references.sum(1, keepdim=True)).mean(0).numpy()
        for _ in range(3):
            assert_close(explainer(x).base_values[0], wanted, 1e-12)
    finally:
        deepshap.unregister_rule(torch.ops.deepshap_tests.calibrated)


class Gained(nn.Module):
    """Writes to a buffer behind torch's back, as it finds its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4, bias=False)
        self.register_buffer("gain", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            self.gain.numpy()[:] = 2.0 if float(x.detach().max()) > 2 else 1.0
        return torch.tanh(self.layer(x)) * self.gain


def test_buffers_are_compared_with_what_they_held_for_the_references():
    explainer = deepshap.DeepExplainer(built(Gained()).float(), torch.zeros(5, 3), progress=False)
    for _ in range(3):
        explainer.shap_values(torch.full((1, 3), 0.5))
    with pytest.raises(deepshap.UnsupportedOperationError, match="constant differs between example and reference"):
        explainer.shap_values(torch.full((1, 3), 3.0))


@pytest.mark.wide
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("frozen", [False, True])
def test_every_case_again(case, frozen):
    """By the script, and within frozen() without the model's own code."""
    model, background, args = case.model(), case.inputs(REFERENCES, 1), case.args(ROWS) or None
    explainer, rows = explainer_of(case, model, background), [case.inputs(ROWS, seed) for seed in (2, 3, 2, 4)]
    with explainer.frozen() if frozen else nullcontext():
        each = [explainer.shap_values(X, additional_forward_args=args) for X in rows]
    for X, found in zip(rows, each, strict=True):
        fresh = explainer_of(case, model, background).shap_values(X, additional_forward_args=args)
        for one, wanted in zip(leaves(found), leaves(fresh), strict=True):
            assert_close(
                one, wanted, max((TOLERANCE | LOW_PRECISION)[dtype] for dtype in (torch.float64, case.through))
            )
