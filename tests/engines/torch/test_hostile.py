"""Hostile cases: random models against a slow oracle, random changes between calls, random faults, and what wraps tensors."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from helpers import assert_close, drawn, snapshot
from models import KINDS as LAYERS
from programs import WIDTH, Program, attributions, drawn_program
from programs import outputs as outputs_of
from torch import Tensor, nn
from torch.nn.utils import parametrize

import deepshap
from deepshap.engines.torch.recurrent import fused
from deepshap.kernels import jit_threshold


def data(seed: int) -> tuple[Tensor, Tensor]:
    """Rows and references, some of whose elements are the same, or the same as one another."""
    x, r = drawn(3, WIDTH, seed=seed), drawn(2, WIDTH, seed=seed + 1000)
    x[0, 1], x[1, :2], r[1, 3] = r[0, 1], 0.5, 0.0
    return x, r


def explainer_of(model: Any, background: Tensor) -> deepshap.DeepExplainer:
    return deepshap.DeepExplainer(model, background, progress=False)


# ---------------------------------------------------------------------- random models
@pytest.mark.parametrize("kernels_", ["plain", "one pass"])
@pytest.mark.parametrize("seed", range(30))
def test_random_models_equal_the_oracle(seed, kernels_, monkeypatch):
    if kernels_ == "one pass":
        monkeypatch.setattr(jit_threshold.PAIRS, "threshold", 0)
    lines, (x, r) = drawn_program(seed), data(seed)
    explanation = explainer_of(Program(lines), r)(x)
    for row in range(len(x)):
        wanted = np.mean([attributions(lines, x[row].numpy(), other.numpy()) for other in r], 0)
        assert_close(explanation.values[row], wanted)
        assert_close(explanation.outputs[row], outputs_of(lines, x[row].numpy()))


@pytest.mark.parametrize("seed", range(12))
def test_enough_effort_gives_the_shapley_values(seed):
    lines, (x, r) = drawn_program(100 + seed), data(seed)
    found = explainer_of(Program(lines), r)(x[:1], effort=40).values[0]
    pairs = [
        oracle.shapley(lambda v: outputs_of(lines, v), oracle.extended(x[0]), oracle.extended(other)) for other in r
    ]
    assert_close(found, np.mean(pairs, 0))


@pytest.mark.parametrize("seed", range(12))
def test_the_dial_keeps_the_sums_and_does_not_depend_on_the_other_rows(seed):
    random = np.random.default_rng(seed)
    lines, (x, r) = drawn_program(200 + seed), data(seed)
    players = [*random.permutation([0, 0, 1, 2])] if seed % 2 else "cells"
    options = {
        "effort": float(random.uniform(1.5, 30)),
        "players": np.array(players) if seed % 2 else players,
        "seed": seed,
    }
    explainer = explainer_of(Program(lines), r)
    together = explainer(x, **options)
    wanted = [
        outputs_of(lines, row) - np.mean([outputs_of(lines, other) for other in r.numpy()], 0) for row in x.numpy()
    ]
    assert_close(together.values.sum(1), np.stack(wanted))
    alone = explainer(x[1:2], **options)
    assert_close(together.values[1], alone.values[0])


# ---------------------------------------------------------------------- random changes between two calls
def change(model: Program, kind: str, random: np.random.Generator) -> None:  # noqa: C901  (a table of changes)
    number = int(random.integers(len(model.lines)))
    weight = model.weights[number]
    match kind:
        case "a weight":
            with torch.no_grad():
                weight[int(random.integers(WIDTH)), 0] += 0.7
        case "a weight by data":
            weight.data.mul_(1.3)
        case "a weight by NumPy":
            weight.detach().numpy()[:] *= -1
        case "another parameter":
            model.weights[number] = nn.Parameter(weight.detach() + 0.1)
        case "all weights swapped":
            model.load_state_dict({k: v.flip(0) if v.dim() > 1 else v for k, v in model.state_dict().items()})
        case "the buffer":
            model.scale.fill_(1.7)
        case "another buffer":
            model.scale = torch.full((1,), 0.3).double()
        case "a number":
            model.factor = 2.5
        case "a line":
            model.lines[number] = drawn_program(int(random.integers(1000)), 1)[0]
        case "fewer lines":
            model.lines, model.weights = model.lines[:-1], model.weights[:-1]
        case "a method":
            model.after = lambda at, value: value * (1.5 if at == number else 1.0)
        case "a hook":
            model.register_forward_hook(lambda module, args, result: result * 1.1)
        case "a hook before":
            model.register_forward_pre_hook(lambda module, args: (args[0] + 0.2,))
        case "the order":
            model.lines = [*model.lines]
            model.lines[number] = copy.copy(model.lines[number])
            model.lines[number].of = (0, 0)


CHANGES = [
    "a weight", "a weight by data", "a weight by NumPy", "another parameter", "all weights swapped", "the buffer",
    "another buffer", "a number", "a line", "fewer lines", "a method", "a hook", "a hook before", "the order",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", CHANGES)
def test_after_a_change_an_explainer_is_as_good_as_new(kind, seed):
    random = np.random.default_rng(seed)
    model, (x, r) = Program(drawn_program(300 + seed)), data(seed)
    explainer = explainer_of(model, r)
    explainer.shap_values(x)
    for name in (kind, str(random.choice(CHANGES))):
        change(model, name, random)
        found, fresh = explainer.shap_values(x), explainer_of(model, r).shap_values(x)
        assert_close(found, fresh, 1e-12)


# ---------------------------------------------------------------------- random faults
class Fault(Exception):
    """Of the model's own."""


class Faulty(Program):
    """Fails at a certain operation, counted over all runs."""

    def __init__(self, lines: Any, error: BaseException) -> None:
        super().__init__(lines)
        self.countdown, self.error = [0], error

    def after(self, number: int, value: Tensor) -> Tensor:
        COUNT[0] -= 1
        if COUNT[0] == 0:
            raise self.error
        return value


COUNT = [0]  # outside of the model, which is put back


@pytest.mark.parametrize("error", [Fault("stop"), KeyboardInterrupt(), MemoryError()], ids=repr)
@pytest.mark.parametrize("at", [1, 5, 9, 17, 23, 31, 40, 44, 52, 60])
def test_a_fault_anywhere_leaves_all_as_it_was(at, error):
    lines, (x, r) = drawn_program(400 + at), data(at)
    model = Faulty(lines, error).train()
    model.weights[0].grad = torch.ones(WIDTH, WIDTH).double()
    model.weights[1].requires_grad_(False)
    explainer = explainer_of(model, r)
    before = snapshot(model)
    COUNT[0] = at
    try:
        with pytest.raises((deepshap.DeepShapError, type(error))):
            explainer.shap_values(x)
        assert COUNT[0] <= 0
        assert snapshot(model) == before
    finally:
        COUNT[0] = 0
    assert_close(explainer.shap_values(x), explainer_of(Program(lines), r).shap_values(x), 1e-12)


# ---------------------------------------------------------------------- recurrent kernels at kernel sizes
class Summed(nn.Module):
    """A recurrent layer whose results are weighted and summed."""

    def __init__(self, layer: nn.RNNBase, weights: Tensor) -> None:
        super().__init__()
        self.layer, self.weights = layer, weights

    def forward(self, x: Tensor) -> Tensor:
        return (self.layer(x)[0] * self.weights).flatten(1).sum(1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["GRU", "RNN", "RNN, relu"])
def test_recurrent_kernels_equal_the_oracle(kind, seed, monkeypatch):
    monkeypatch.setattr(fused.THRESHOLD, "threshold", 0)
    random = np.random.default_rng(seed)
    cls, own = LAYERS[kind]
    units, steps, features = int(random.choice([8, 16, 33, 64])), int(random.integers(1, 7)), int(random.integers(1, 6))
    options = {"bidirectional": bool(seed % 2), "num_layers": 1 + seed % 3 // 2, "bias": bool(seed % 4)}
    torch.manual_seed(seed)
    layer = cls(features, units, batch_first=True, **own, **options).double()
    weights = drawn(steps, units * (2 if seed % 2 else 1), seed=seed)
    x, r = 2 * drawn(2, steps, features, seed=seed + 1), drawn(3, steps, features, seed=seed + 2)
    x[0, 0] = r[0, 0]
    found = explainer_of(Summed(layer, weights), r).shap_values(x)
    state = [np.zeros((options["num_layers"] * (2 if seed % 2 else 1), units))]
    for row, values in zip(oracle.extended(x), found, strict=True):
        pairs = [
            oracle.recurrent(layer, row, other, state, state, oracle.extended(weights), [0 * state[0]])[0]
            * (row - other)
            for other in oracle.extended(r)
        ]
        assert_close(values, np.mean(pairs, 0))


# ---------------------------------------------------------------------- tensor subclasses
class Named(Tensor):
    """A subclass without a will of its own."""


class Counting(Tensor):
    """Counts what is called on it."""

    calls = 0

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.calls += 1
        return super().__torch_function__(function, types, args, kwargs or {})


class Doubling(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


@pytest.mark.parametrize("cls", [Named, Counting, nn.Parameter, nn.Buffer])
@pytest.mark.parametrize("where", ["rows", "background", "buffer", "weight"])
def test_subclasses_of_tensors(cls, where):
    def dressed(value: Tensor) -> Tensor:
        return cls(value.clone()) if cls in (nn.Parameter, nn.Buffer) else value.clone().as_subclass(cls)

    lines, (x, r) = drawn_program(500), data(500)
    wanted = explainer_of(Program(lines), r).shap_values(x)
    model = Program(lines)
    if where == "buffer":
        model._buffers["scale"] = dressed(model.scale)
    if where == "weight":
        model.weights._parameters["0"] = dressed(model.weights[0].detach())
    background, rows = (dressed(v) if where == name else v for name, v in (("background", r), ("rows", x)))
    found = explainer_of(model, background).shap_values(rows)
    assert type(found) is np.ndarray
    assert_close(found, wanted, 1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_parametrized_weights(seed):
    lines, (x, r) = drawn_program(510 + seed), data(seed)
    layer, model = nn.Linear(WIDTH, WIDTH).double(), Program(lines)
    plain = copy.deepcopy(layer)
    plain.weight.data.mul_(2)
    parametrize.register_parametrization(layer, "weight", Doubling())
    found = explainer_of(nn.Sequential(layer, model), r).shap_values(x)
    assert_close(found, explainer_of(nn.Sequential(plain, model), r).shap_values(x), 1e-12)
    assert parametrize.is_parametrized(layer, "weight")


# ---------------------------------------------------------------------- hooks that change the graph
def registered(model: nn.Sequential, kind: str) -> list[Any]:
    first = model[0]
    match kind:
        case "result":
            return [first.register_forward_hook(lambda m, args, y: y.tanh())]
        case "argument":
            return [first.register_forward_pre_hook(lambda m, args: args[0] * 2)]
        case "keywords":
            return [first.register_forward_pre_hook(lambda m, args, kw: ((args[0] * 2,), kw), with_kwargs=True)]
        case "in place":
            return [first.register_forward_hook(lambda m, args, y: y.mul_(0.5))]
        case "detached":
            return [first.register_forward_hook(lambda m, args, y: y.detach().sigmoid())]
        case "always":
            return [first.register_forward_hook(lambda m, args, y: y + args[0], always_call=True)]
        case "prepended":
            one = first.register_forward_hook(lambda m, args, y: y * 3)
            return [one, first.register_forward_hook(lambda m, args, y: y + 1, prepend=True)]
        case "global":
            return [nn.modules.module.register_module_forward_hook(lambda m, args, y: y * 1.5 if m is first else y)]
        case "global before":
            return [
                nn.modules.module.register_module_forward_pre_hook(
                    lambda m, args: (args[0] + 1,) if m is first else args
                )
            ]
    return [first.register_full_backward_hook(lambda m, gi, go: tuple(g * 100 for g in gi if g is not None))]


PLAIN = {
    "result": lambda f, x: f(x).tanh(),
    "argument": lambda f, x: f(x * 2),
    "keywords": lambda f, x: f(x * 2),
    "in place": lambda f, x: f(x) * 0.5,
    "detached": lambda f, x: f(x).sigmoid(),
    "always": lambda f, x: f(x) + x,
    "prepended": lambda f, x: (f(x) + 1) * 3,
    "global": lambda f, x: f(x) * 1.5,
    "global before": lambda f, x: f(x + 1),
    "backward": lambda f, x: f(x),
}


@pytest.mark.parametrize("when", ["before", "between"])
@pytest.mark.parametrize("kind", PLAIN)
def test_hooks_that_change_the_graph(kind, when):
    first, rest, (x, r) = nn.Linear(WIDTH, WIDTH).double(), Program(drawn_program(520)), data(520)
    wanted = explainer_of(lambda v: rest(PLAIN[kind](copy.deepcopy(first), v)), r).shap_values(x)
    model = nn.Sequential(first, rest)
    explainer = explainer_of(model, r)
    without = explainer.shap_values(x) if when == "between" else None
    handles = registered(model, kind)
    try:
        assert_close(explainer.shap_values(x), wanted, 1e-12)
    finally:
        for handle in handles:
            handle.remove()
    if without is not None:
        assert_close(explainer.shap_values(x), without, 1e-12)
