"""A model that has become another is explained as it is, also where the examples do not feel the change."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import pytest
import torch
from cases.of_torch import CASES
from helpers import LOW_PRECISION, TOLERANCE, assert_close, built, drawn, explainer_of, leaves
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import deepshap

ELSEWHERE: dict[str, Any] = {}  # what models read, where nobody looks for it


class Doing(nn.Module):
    """Does something with its input and a setting from elsewhere."""

    def __init__(self, what: Callable[..., Tensor], setting: Any = None) -> None:
        super().__init__()
        self.what, ELSEWHERE["setting"], ELSEWHERE["weights"] = what, setting, torch.zeros(4, 4, dtype=torch.float64)
        self.first, self.second = (nn.Linear(4, 4, bias=False) for _ in range(2))
        self.embedding = nn.Embedding(6, 4)
        self.register_buffer("factor", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.what(self, x, ELSEWHERE["setting"]).flatten(1).sum(1, keepdim=True)


def explained(model: nn.Module, references: Tensor, **options: Any) -> deepshap.DeepExplainer:
    return deepshap.DeepExplainer(model, references, progress=False, **options)


class Layers(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
            x = x[0] if isinstance(x, tuple) else x
        return x.flatten(1)


# ---------------------------------------------------------------------- models that become others
FACTOR = 2.0


class Times(torch.autograd.Function):
    """Takes a number from elsewhere."""

    @staticmethod
    def forward(ctx, x):
        return x * FACTOR

    @staticmethod
    def backward(ctx, m):
        return m * FACTOR


def _written(m: Doing, x: Tensor, c: float) -> Tensor:
    m.factor.data.fill_(c)
    return x * m.factor


def _exchanged(m: Doing, x: Tensor, c: float) -> Tensor:
    held, ELSEWHERE["weights"][:] = m.second.weight.data, c
    m.second.weight.data = ELSEWHERE["weights"]
    found = torch.maximum(x, m.second.weight[0])
    m.second.weight.data = held
    return found


def _through_numpy(m: Doing, x: Tensor, c: float) -> Tensor:
    memory = m.second.weight.detach().numpy()
    held = memory.copy()
    memory[:] = c
    found = torch.maximum(x, m.second.weight[0])
    memory[:] = held
    return found


def _in_a_mode(m: Doing, x: Tensor, c: float) -> Tensor:
    with Times3() if c else nullcontext():
        return torch.relu(x)


class Times3(TorchDispatchMode):
    """As one that plays at low precision."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        return 3 * found if function is torch.ops.aten.relu.default else found


def _written_to(m: Doing, x: Tensor, c: int) -> Tensor:
    x = x.clone()
    x[..., c] = 0
    return x


class Marked(Tensor):
    """A class of tensors of the user's own."""


def _in_autocast(m: Doing, x: Tensor, c: torch.dtype) -> Tensor:
    with torch.autocast("cpu", c, enabled=c is not torch.float32):
        return nn.functional.linear(x.float(), m.first.weight.float()).double()


def _imaginary(m: Doing, x: Tensor, c: bool) -> Tensor:
    weights = torch.view_as_complex(m.second.weight.unflatten(1, (2, 2)))
    return torch.maximum(x[..., :2], -1.5 - (weights.conj() if c else weights).imag[0])


# What a model does, with a setting that becomes another; of zeros it is the same with both.
CHANGES: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "a number": (lambda m, x, c: torch.relu(x) * c, 2.0, 3.0),
    "as many times fewer as there are fewer examples": (lambda m, x, c: torch.relu(x) * c, 10, 2),
    "a keyword": (lambda m, x, c: x.clamp(**{c: 0.0}), "min", "max"),
    "a word": (lambda m, x, c: torch.einsum(c, x, x), "nij,nij->nij", "nij,nik->nij"),
    "the function": (lambda m, x, c: c(x), torch.sin, torch.tanh),
    "another way to the output": (lambda m, x, c: (torch.relu(x), torch.tanh(x))[c], 0, 1),
    "the order of operands": (lambda m, x, c: torch.sub(*[torch.relu(x), torch.tanh(x)][::c]), 1, -1),
    "an operand": (lambda m, x, c: torch.relu(x) + [x, torch.tanh(x)][c], 0, 1),
    "one of several results": (lambda m, x, c: x.chunk(2, -1)[c], 0, 1),
    "the order in a list": (lambda m, x, c: torch.cat([x, x.relu()][::c], -1)[..., :4], 1, -1),
    "bounds": (lambda m, x, c: x[..., slice(*c)], (None, 2), (2, None)),
    "a place that is written to": (_written_to, 0, 1),
    "an axis": (lambda m, x, c: x.cumsum(c), 1, 2),
    "a sign of zero": (lambda m, x, c: torch.copysign(x, c), 0.0, -0.0),
    "times": (lambda m, x, c: [x := torch.sin(x) for _ in range(c)][-1], 1, 2),
    "which layer": (lambda m, x, c: (m.first, m.second)[c](x), 0, 1),
    "the order of layers": (lambda m, x, c: [x := (m.first, m.second)[k](x).relu() for k in c][-1], (0, 1), (1, 0)),
    "a constant": (lambda m, x, c: x * torch.tensor(c), [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0]),
    "a constant for each row": (lambda m, x, c: x * x.new_full((len(x), 1, 1), c), 2.0, 3.0),
    "a mask": (lambda m, x, c: x.masked_fill(torch.tensor(c), 0.0), [True, False] * 2, [False, True] * 2),
    "an index": (lambda m, x, c: x[..., torch.tensor(c)], [0, 1], [1, 2]),
    "a constant of a class of its own": (lambda m, x, c: x * torch.full((4,), c).as_subclass(Marked), 2.0, 3.0),
    "a buffer while it runs": (_written, 2.0, 3.0),
    "a row at a time": (lambda m, x, c: torch.vmap(lambda row: row.relu() * c)(x), 2.0, 3.0),
    "weights that are put in place of others": (_exchanged, -5.0, -0.1),
    "weights that are written to": (_through_numpy, -5.0, -0.1),
    "a mode below torch's functions": (_in_a_mode, False, True),
    "precision for a while": (_in_autocast, torch.float32, torch.bfloat16),
    "a view of the conjugate": (_imaginary, False, True),
    "a layer's number": (lambda m, x, c: nn.functional.leaky_relu(x, c), 0.1, 0.2),
}
X, R = torch.zeros(2, 3, 4, dtype=torch.float64), drawn(10, 3, 4, seed=3)


def check(model: nn.Module, change: Callable[[], None], **asked: Any) -> None:
    """What nothing shows in the examples' outputs shows in the values."""
    explainer = explained(model, R)
    for _ in range(2):
        before = explainer.shap_values(X, **asked)
    change()
    found = explainer.shap_values(X, **asked)
    wanted = explained(model, R).shap_values(X, **asked)
    assert abs(wanted - before).max() > 1e-9
    assert_close(found, wanted, 1e-12)


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_that_the_examples_do_not_feel(name):
    what, before, after = CHANGES[name]
    model = built(Doing(what, before))
    check(model, lambda: ELSEWHERE.update(setting=after))


def test_all_but_the_first_way_of_values():
    model = built(Doing(lambda m, x, c: torch.relu(x) * c, 2.0))
    check(model, lambda: ELSEWHERE.update(setting=3.0), effort=8)


def test_one_row_then_others():
    model = built(Doing(lambda m, x, c: torch.relu(x) * c, 2.0))
    explainer = explained(model, R)
    for rows in (X, X[:1], X):
        explainer.shap_values(rows)
    ELSEWHERE["setting"] = 3.0
    wanted = explained(model, R).shap_values(X)
    for rows in (X[:1], X, X[:1]):
        assert_close(explainer.shap_values(rows), wanted[: len(rows)], 1e-12)


def test_a_layer_whose_inputs_become_others():
    model = built(Doing(lambda m, x, c: m.second(torch.relu(m.first(torch.relu(x) * c))), 2.0))
    explainer = explained((model, model.second), R)
    for _ in range(2):
        before = explainer.shap_values(X)
    ELSEWHERE["setting"] = 3.0
    found, wanted = explainer.shap_values(X), explained((model, model.second), R).shap_values(X)
    assert abs(wanted - before).max() > 1e-9
    assert_close(found, wanted, 1e-12)


@pytest.mark.parametrize("rule", [None, "linear", "elementwise"])
def test_a_number_that_a_custom_function_takes_from_elsewhere(rule, monkeypatch):
    model = built(Doing(lambda m, x, _: Times.apply(torch.relu(x))))
    if rule:
        deepshap.register_rule(Times, rule)
    try:
        check(model, lambda: monkeypatch.setitem(globals(), "FACTOR", 3.0))
    finally:
        if rule:
            deepshap.unregister_rule(Times)


class Doubled(TorchFunctionMode):
    """Lets ``torch.relu`` be another function."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        return 2 * found if function is torch.relu else found


def _in_mode(explainer: Any, mode: Any) -> np.ndarray:
    with mode:
        return explainer.shap_values(X.float())


@pytest.mark.parametrize("mode", [Doubled(), torch.autocast("cpu", torch.bfloat16)], ids=["a mode", "autocast"])
def test_settings_of_torch(mode):
    model = built(Doing(lambda m, x, _: m.second(torch.relu(m.first(x))))).float()
    explainer = explained(model, R.float())
    for _ in range(2):
        before = explainer.shap_values(X.float())
    found, wanted = _in_mode(explainer, mode), _in_mode(explained(model, R.float()), mode)
    assert abs(wanted - before).max() > 1e-6
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(_in_mode(explainer, nullcontext()), before)


def test_a_model_that_fails_after_a_change_says_so_and_is_explained_when_it_does_not():
    model = built(Doing(lambda m, x, c: torch.relu(x) * c, 2.0))
    explainer = explained(model, R)
    for _ in range(2):
        wanted = explainer.shap_values(X)
    ELSEWHERE["setting"] = "3"
    with pytest.raises(deepshap.InputError, match="the model fails on rows"):
        explainer.shap_values(X)
    ELSEWHERE["setting"] = 2.0
    np.testing.assert_array_equal(explainer.shap_values(X), wanted)


def test_a_model_that_is_functionalized_later():
    model = built(
        Doing(lambda m, x, functional: (torch.func.functionalize(m.first) if functional else m.first)(x), False)
    )
    explainer = explained(model, R)
    for _ in range(2):
        wanted = explainer.shap_values(X)
    ELSEWHERE["setting"] = True
    assert_close(explainer.shap_values(X), wanted, 1e-12)


class Unregistered(nn.Module):
    """Parameters that no module knows, of a small output beside a large one."""

    def __init__(self, way: str, beyond: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.held = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((6, 4), (1, 6))]
        self.layer, self.way, self.beyond = nn.Linear(4, 6, bias=False), way, beyond

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.held
        if self.way == "called with":
            hidden = torch.func.functional_call(self.layer, {"weight": first}, (x,))
        else:
            hidden = nn.functional.linear(x, first[:] if self.way == "viewed" else first)
        return torch.cat([torch.tanh(hidden) @ second.T, self.beyond * x], 1)


@pytest.mark.parametrize("beyond", [1.0, 1e7])
@pytest.mark.parametrize("way", ["in a list", "viewed", "called with"])
def test_parameters_that_no_module_knows(way, beyond):
    model, x, references = Unregistered(way, beyond), drawn(2, 4).float(), drawn(5, 4, seed=1).float()
    explainer = explained(model, references)
    for _ in range(3):
        explainer.shap_values(x)
    with torch.no_grad():
        model.held[0] *= 1.5
    found, wanted = (one.shap_values(x)[..., 0] for one in (explainer, explained(model, references)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_an_output_that_is_larger_than_it_was():
    model = Wider(built(Doing(lambda m, x, _: x)))
    ELSEWHERE["outputs"] = 1
    explainer = explained(model, R)
    for _ in range(2):
        one = explainer.shap_values(X)[..., 0]
    ELSEWHERE["outputs"] = 3
    assert_close(explainer.shap_values(X, target=2), 3 * one, 1e-12)


class Wider(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        outputs = ELSEWHERE["outputs"]
        return self.model(x).expand(-1, outputs) * torch.arange(1, outputs + 1, dtype=x.dtype)


# ---------------------------------------------------------------------- what torch's functions compute
def test_a_function_of_torch_becomes_another(monkeypatch):
    model, relu = built(Layers(nn.Linear(4, 4), nn.ReLU())), torch.relu
    check(model, lambda: monkeypatch.setattr(torch, "relu", lambda x: 2 * relu(x)))


@pytest.mark.filterwarnings("ignore:Warning only once")
def test_an_operation_of_torch_computes_something_else():
    model = built(Layers(nn.Linear(4, 4), nn.ELU()))
    library = torch.library.Library("aten", "IMPL")

    def change() -> None:
        library.impl("elu", lambda x, *given: torch.where(x > 0, 3 * x, x.expm1()), "CPU")

    try:
        check(model, change)
    finally:
        library._destroy()


@pytest.mark.parametrize("last", range(2, 6))
def test_a_run_that_fails_is_not_hidden(last):
    """But for the first one, by which the model is looked at; the call after it is as it was."""

    def failing(m: Doing, x: Tensor, _: Any) -> Tensor:
        ELSEWHERE["left"] -= 1
        if not ELSEWHERE["left"]:
            raise RuntimeError("it is broken")
        return torch.relu(x)

    model = built(Doing(failing))
    explainer = explained(model, R)
    ELSEWHERE["left"] = 0
    for _ in range(2):
        wanted = explainer.shap_values(X)
    runs, ELSEWHERE["left"] = -ELSEWHERE["left"], 0
    explainer.shap_values(X)
    runs = -ELSEWHERE["left"]
    ELSEWHERE["left"] = min(last, runs)
    with pytest.raises((deepshap.InputError, RuntimeError), match="it is broken"):
        explainer.shap_values(X)
    np.testing.assert_array_equal(explainer.shap_values(X), wanted)


# ---------------------------------------------------------------------- within frozen()
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
    """Kept recordings, within frozen() and not, give what a new explainer gives."""
    model, background, args = case.model(), case.inputs(3, 1), case.args(2) or None
    explainer, rows = explainer_of(case, model, background), [case.inputs(2, seed) for seed in (2, 3, 2, 4)]
    with explainer.frozen() if frozen else nullcontext():
        each = [explainer.shap_values(X, additional_forward_args=args) for X in rows]
    for X, found in zip(rows, each, strict=True):
        fresh = explainer_of(case, model, background).shap_values(X, additional_forward_args=args)
        for one, wanted in zip(leaves(found), leaves(fresh), strict=True):
            assert_close(
                one, wanted, max((TOLERANCE | LOW_PRECISION)[dtype] for dtype in (torch.float64, case.through))
            )
