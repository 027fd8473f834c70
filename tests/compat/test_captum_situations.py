"""Situations of captum's own tests of its six classes that others do not cover; docs/captum.md lists what is left out."""

from __future__ import annotations

import pytest
import torch
from helpers import built, drawn
from torch import Tensor, nn

import deepshap
from deepshap import captum as ours

X, R = drawn(3, 4, seed=1), drawn(5, 4, seed=2)


class Branching(nn.Module):
    """Ends in a layer's value, or in one made beside it; or takes some of its units."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.first, self.second, self.layer = nn.Linear(4, 3), nn.Linear(4, 3), nn.Tanh()
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(self.first(x))
        if self.use == "no unit":
            return self.second(x).sigmoid()
        if self.use == "no unit, linearly":
            return self.second(x)
        if self.use == "the input itself":
            return x
        return torch.cat([h[:, :1], self.second(x)[:, 1:]], 1)


@pytest.mark.parametrize("use", ["no unit", "no unit, linearly", "the input itself", "one unit"])
@pytest.mark.parametrize("kind", ["LayerDeepLift", "LayerDeepLiftShap"])
def test_a_layer_of_which_little_or_nothing_reaches_the_output(kind, use):
    model = built(Branching(use))
    method = getattr(ours, kind)(model, model.layer)
    for target in range(3):
        found, delta = method.attribute(X, R[:3], target=target, return_convergence_delta=True)
        used = use == "one unit" and target == 0
        difference = model(X)[:, target] - (model(R[:3])[:, target] if kind == "LayerDeepLift" else 0)
        if kind == "LayerDeepLift":  # all goes through the layer, or nothing
            torch.testing.assert_close(delta, torch.zeros(3).double() if used else -difference.detach())
        assert (found[:, 1:] == 0).all()
        assert bool((found != 0).any()) is used


class Pooled(nn.Module):
    """What the layer returns is overwritten by the next one."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.pool, self.relu = nn.MaxPool1d(3), nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.pool(x)).sum((1, 2))[:, None]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("of_input", [False, True])
def test_custom_functions_see_values_before_they_are_overwritten(inplace, of_input):
    x, r = drawn(2, 2, 3, seed=3), drawn(2, 2, 3, seed=4)
    model, seen = Pooled(inplace), []

    def custom(multipliers, inputs, baselines):
        seen.extend([multipliers[0], inputs[0], baselines[0]])
        return tuple(m * (a - b) for m, a, b in zip(multipliers, inputs, baselines, strict=True))

    layer = model.relu if of_input else model.pool
    found = ours.LayerDeepLift(model, layer).attribute(
        x, r, custom_attribution_func=custom, attribute_to_layer_input=of_input
    )
    values, values_r = model.pool(x), model.pool(r)
    torch.testing.assert_close(seen[1], values)
    torch.testing.assert_close(seen[2], values_r)
    slope = (values.relu() - values_r.relu()) / (values - values_r)
    torch.testing.assert_close(seen[0], slope)
    torch.testing.assert_close(found, values.relu() - values_r.relu())


@pytest.mark.parametrize("baselines", [([[0.0] * 4] * 2, [[1.0] * 4] * 2), (0.0, 0.5), [[0.0] * 4]])
def test_functions_that_return_no_tensors(baselines):
    """captum asserts it; its users catch an AssertionError."""
    inputs = (X, X) if isinstance(baselines, tuple) else X
    with pytest.raises(deepshap.InputError, match="distribution of baselines") as raised:
        ours.DeepLiftShap(lambda *x: sum(x)).attribute(inputs, lambda: baselines, target=0)
    assert isinstance(raised.value, AssertionError)


@pytest.mark.parametrize("kind", ["DeepLift", "DeepLiftShap", "LayerDeepLift", "LayerDeepLiftShap"])
def test_futures_are_not_explained(kind):
    model = nn.Sequential(nn.Linear(4, 2))
    method = getattr(ours, kind)(model, *([model[0]] if kind.startswith("Layer") else []))
    with pytest.raises(NotImplementedError, match="Future") as raised:
        method.attribute_future()
    assert isinstance(raised.value, deepshap.DeepShapError)


def test_modules_that_are_used_twice():
    """An error in captum; here the multipliers are those of the same network with a module for each use."""
    relu, a, b = nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2)
    again = built(nn.Sequential(relu, a, relu, b))
    apart = nn.Sequential(nn.ReLU(), a, nn.ReLU(), b)
    found, wanted = (ours.DeepLift(model).attribute(X, R[:3], target=1) for model in (again, apart))
    torch.testing.assert_close(found, wanted)


class Shift(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1e5


@pytest.mark.parametrize("kind", ["DeepLift", "LayerDeepLift"])
def test_float32_that_cancels(kind):
    """The delta is that of float64, in which such rows are explained."""
    model = built(nn.Sequential(nn.Linear(4, 3), Shift(), nn.Softmax(1))).float()
    method = getattr(ours, kind)(model, *([model[0]] if kind.startswith("Layer") else []))
    _, delta = method.attribute(X.float(), R[:3].float(), target=1, return_convergence_delta=True)
    assert delta.dtype == torch.float32
    assert delta.abs().max() <= 1e-9
