"""captum's classes on the exact engine: the forms captum's users know, the values of ``DeepExplainer``."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import captum.attr as theirs
import numpy as np
import pytest
import torch
from captum.attr import visualization
from helpers import assert_close, built, drawn, snapshot, values
from matplotlib import pyplot
from models import Chain, Last, LastValid
from test_devices import every_device, setting
from torch import Tensor, nn

import deepshap
from deepshap import captum as ours

CAPTUM_WARNS = pytest.mark.filterwarnings("ignore::UserWarning:captum")
NAMES = ["DeepLift", "DeepLiftShap", "LayerDeepLift", "LayerDeepLiftShap", "NeuronDeepLift", "NeuronDeepLiftShap"]
X, R = drawn(3, 4, seed=1), drawn(5, 4, seed=2)
SERIES, SERIES_R = drawn(3, 5, 3, seed=3), drawn(4, 5, 3, seed=4)
IMAGES, IMAGES_R = drawn(3, 2, 6, 6, seed=5), drawn(4, 2, 6, 6, seed=6)


class Attend(nn.Module):
    """Self-attention with a residual connection."""

    def __init__(self):
        super().__init__()
        self.attend, self.norm = nn.MultiheadAttention(3, 1, batch_first=True), nn.LayerNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.attend(x, x, x)[0]).mean(1)


class Two(nn.Module):
    """Two inputs that meet in a product."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.tanh(self.first(a)) * torch.sigmoid(self.second(b))


def mlp(outputs: int = 3) -> nn.Sequential:
    """Return a network that captum explains rightly, too."""
    return built(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, outputs)))


def cnn() -> nn.Sequential:
    """Return a network for images, without biases."""
    layers = [nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)]
    return built(nn.Sequential(*layers))


MODELS = {
    "mlp": (mlp, X, R),
    "lstm": (lambda: built(Chain(nn.LSTM(3, 4, batch_first=True), Last(), nn.Linear(4, 3))), SERIES, SERIES_R),
    "gru": (lambda: built(Chain(nn.GRU(3, 4, 2, batch_first=True), Last(), nn.Linear(4, 3))), SERIES, SERIES_R),
    "cnn": (cnn, IMAGES, IMAGES_R),
    "attention": (lambda: built(Attend()), SERIES, SERIES_R),
}


def outputs(model: Any, *inputs: Any) -> np.ndarray:
    """Run the model by itself."""
    with torch.no_grad():
        return model(*inputs).numpy()


# ---------------------------------------------------------------------- the same numbers by every door
@pytest.mark.parametrize("name", MODELS)
def test_deep_lift_shap_is_deep_explainer(name):
    build, x, r = MODELS[name]
    model = build()
    wanted = values(model, x, r)
    differences = outputs(model, x)[:, None] - outputs(model, r)
    for target in range(3):
        found, delta = ours.DeepLiftShap(model).attribute(x, r, target=target, return_convergence_delta=True)
        assert_close(found.numpy(), wanted[..., target], 1e-12)
        assert delta.shape == (len(x) * len(r),)
        assert delta.abs().max() <= 1e-12 * np.abs(differences).max()


@pytest.mark.parametrize("name", MODELS)
def test_deep_lift_is_deep_explainer_with_a_reference_for_each_row(name):
    build, x, r = MODELS[name]
    model, r = build(), r[: len(x)]
    found, delta = ours.DeepLift(model).attribute(x, r, target=1, return_convergence_delta=True)
    wanted = [values(model, x[[i]], r[[i]])[0, ..., 1] for i in range(len(x))]
    assert_close(found.numpy(), np.stack(wanted), 1e-12)
    assert delta.shape == (len(x),)
    assert delta.abs().max() <= 1e-12


@pytest.mark.parametrize("name", MODELS)
def test_multipliers(name):
    build, x, r = MODELS[name]
    model, r = build(), r[: len(x)]
    multipliers = ours.DeepLift(model, multiply_by_inputs=False).attribute(x, r, target=1)
    attributions = ours.DeepLift(model).attribute(x, r, target=1)
    assert_close((multipliers * (x - r)).numpy(), attributions.numpy(), 1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_multipliers_are_gradients_where_nothing_differs(name):
    build, x, _ = MODELS[name]
    model, x = build(), x.clone().requires_grad_()
    wanted = torch.autograd.grad(model(x)[:, 1].sum(), x)[0]
    for kind, baselines in ((ours.DeepLift, x), (ours.DeepLiftShap, x[:1])):
        rows = slice(0, len(baselines))
        found = kind(model, multiply_by_inputs=False).attribute(x[rows], baselines, target=1)
        assert_close(found.numpy(), wanted[rows].numpy())


def test_multipliers_of_a_function_with_a_closed_form():
    r = R[:3].clone()
    r[:, :2] = X[:, :2]
    found = ours.DeepLift(lambda x: torch.tanh(x).sum(1), False).attribute(X, r)
    wanted = (X.tanh() - r.tanh()) / (X - r)
    wanted[:, :2] = 1 - X[:, :2].tanh() ** 2
    assert_close(found.numpy(), wanted.numpy(), 1e-12)


@pytest.mark.parametrize("kind", ["DeepLift", "DeepLiftShap"])
@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_small_chunks_change_nothing(kind, name, monkeypatch):
    build, x, r = MODELS[name]
    model, r = build(), r[: len(x)]
    asked = {"target": [2, 0, 1], "return_convergence_delta": True}
    whole = getattr(ours, kind)(model).attribute(x, r, **asked)
    monkeypatch.setattr("deepshap.memory.MOST_PAIRS", 2)
    chunked = getattr(ours, kind)(model).attribute(x, r, **asked)
    assert_close(chunked[0].numpy(), whole[0].numpy(), 1e-12)
    assert chunked[1].shape == whole[1].shape


# ---------------------------------------------------------------------- captum where captum is right
@CAPTUM_WARNS
@pytest.mark.parametrize("multiply", [True, False])
@pytest.mark.parametrize("target", [1, torch.tensor(1), torch.tensor([2, 0, 1]), [2, 0, 1]], ids=repr)
def test_agrees_with_captum(multiply, target):
    model = mlp()
    asked = {"target": target, "return_convergence_delta": True}
    for kind, baselines in (("DeepLift", R[:3]), ("DeepLift", R[:1]), ("DeepLift", 0.3), ("DeepLiftShap", R)):
        found, delta = getattr(ours, kind)(model, multiply).attribute(X, baselines, **asked)
        wanted, their_delta = getattr(theirs, kind)(model, multiply).attribute(X, baselines, **asked)
        assert_close(found.numpy(), wanted.detach().numpy())
        np.testing.assert_allclose(delta, their_delta, atol=1e-9)


@CAPTUM_WARNS
@pytest.mark.parametrize("count", [1, 2, 3])
def test_custom_functions_as_captum_calls_them(count):
    def function(*sides: Any) -> Any:
        return tuple(sum((k + 1) * side[i] ** 2 for k, side in enumerate(sides)) for i in range(len(sides[0])))

    custom = [lambda m: function(m), lambda m, x: function(m, x), lambda m, x, r: function(m, x, r)][count - 1]
    asked = {"target": 1, "custom_attribution_func": custom, "return_convergence_delta": True}
    for kind, baselines in (("DeepLift", R[:3]), ("DeepLiftShap", R)):
        found, delta = getattr(ours, kind)(mlp()).attribute(X, baselines, **asked)
        wanted, their_delta = getattr(theirs, kind)(mlp()).attribute(X, baselines, **asked)
        assert_close(found.numpy(), wanted.detach().numpy())
        assert_close(delta.numpy(), their_delta.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_captums(name):
    for method in ("__init__", "attribute"):
        mine, other = (inspect.signature(getattr(getattr(m, name), method)).parameters for m in (ours, theirs))
        assert [(p.name, p.default) for p in mine.values()] == [(p.name, p.default) for p in other.values()]


# ---------------------------------------------------------------------- captum's tools
@pytest.mark.parametrize("name", NAMES)
def test_derives_from_captums_base_classes(name):
    bases = {base for base in getattr(theirs, name).__mro__ if base.__module__ == "captum.attr._utils.attribution"}
    assert bases <= set(getattr(ours, name).__mro__)
    assert getattr(ours, name).get_name() == getattr(theirs, name).get_name()


@pytest.mark.parametrize("kind", ["DeepLift", "DeepLiftShap"])
def test_noise_tunnel(kind):
    model = mlp()
    asked = {"stdevs": 1e-6, "nt_samples": 4, "baselines": R[:1], "target": 1, "return_convergence_delta": True}
    found, delta = theirs.NoiseTunnel(getattr(ours, kind)(model)).attribute(X, **asked)
    assert_close(found.numpy(), ours.DeepLift(model).attribute(X, R[:1], target=1).numpy(), 1e-4)
    assert len(delta) >= 4 * len(X)
    assert delta.abs().max() <= 1e-12


def test_called_as_insights_calls():
    method = ours.DeepLift(mlp())
    assert "baselines" in inspect.signature(method.attribute).parameters
    given = {"additional_forward_args": None, "target": torch.tensor([2]), "baselines": (R[:1],)}
    (found,) = method.attribute.__wrapped__(method, (X[:1],), **given)
    assert torch.equal(found, method.attribute(X[:1], R[:1], target=2))


def test_visualization():
    found = ours.DeepLift(cnn()).attribute(IMAGES, target=1)
    picture = found[0].permute(1, 2, 0).numpy()
    figure, axes = visualization.visualize_image_attr(picture, sign="all", use_pyplot=False)
    assert axes.images
    pyplot.close(figure)


def test_captum_is_not_needed():
    code = """
import sys
sys.modules["captum"] = None
import deepshap, torch
DeepLift, DeepLiftShap = deepshap.captum.DeepLift, deepshap.captum.DeepLiftShap
from deepshap.captum import LayerDeepLift, NeuronDeepLift
model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
x = torch.ones(1, 2)
method = DeepLift(model)
found, delta = method.attribute(x, return_convergence_delta=True)
assert delta.abs() < 1e-5 and method.forward_func is model and method.has_convergence_delta()
assert torch.equal(found, DeepLiftShap(model).attribute(x, torch.zeros(2, 2)))
layer, neuron = LayerDeepLift(model, model[1]), NeuronDeepLift(model, model[1])
assert layer.layer is model[1] and layer.attribute(x).shape == (1, 2) and layer.has_convergence_delta()
assert neuron.layer is model[1] and neuron.attribute(x, 0).shape == (1, 2) and not neuron.has_convergence_delta()
assert DeepLiftShap.get_name() == "Deep Lift Shap"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------- inputs and baselines
@pytest.mark.parametrize(
    ("baselines", "rows"),
    [
        (None, torch.zeros(3, 4)),
        (0, torch.zeros(3, 4)),
        (0.3, torch.full((3, 4), 0.3, dtype=torch.float64)),
        (torch.tensor(0.25), torch.full((3, 4), 0.25)),
        (R[:1], R[:1].expand(3, 4)),
        (R[:3].float(), R[:3].float()),
    ],
)
def test_baselines_of_deep_lift(baselines, rows):
    method = ours.DeepLift(mlp())
    found, delta = method.attribute(X, baselines, target=1, return_convergence_delta=True)
    assert torch.equal(found, method.attribute(X, rows.double(), target=1))
    assert torch.equal(delta, method.compute_convergence_delta(found, baselines, X, target=1))


@pytest.mark.parametrize("baselines", [lambda: R, lambda x: x.mean() + R, lambda x: (x.mean() + R,)])
def test_functions_as_baselines(baselines):
    method = ours.DeepLiftShap(mlp())
    rows = R if not inspect.signature(baselines).parameters else X.mean() + R
    assert torch.equal(method.attribute(X, baselines, target=1), method.attribute(X, rows, target=1))


def test_functions_as_baselines_may_write_to_the_inputs():
    def baselines(x):
        found = x.mean() + R
        x *= 0
        return found

    x = X.clone()
    found = ours.DeepLiftShap(mlp()).attribute(x, baselines, target=1)
    assert torch.equal(x, X)
    assert torch.equal(found, ours.DeepLiftShap(mlp()).attribute(X, X.mean() + R, target=1))


def test_several_inputs():
    model, a, b = built(Two()), (X, drawn(3, 2, seed=7)), (R, drawn(5, 2, seed=8))
    wanted = deepshap.DeepExplainer(model, list(b), progress=False).shap_values(list(a))
    found, delta = ours.DeepLiftShap(model).attribute(a, b, target=2, return_convergence_delta=True)
    assert isinstance(found, tuple)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one.numpy(), other[..., 2], 1e-12)
    assert delta.abs().max() <= 1e-12
    mixed = ours.DeepLift(model).attribute(a, (0.5, b[1][:1]), target=2)
    plain = ours.DeepLift(model).attribute(a, (torch.full_like(X, 0.5), b[1][[0, 0, 0]]), target=2)
    assert all(torch.equal(one, other) for one, other in zip(mixed, plain, strict=True))
    zeros = ours.DeepLift(model).attribute(a, target=2)
    assert all(
        torch.equal(one, o) for one, o in zip(zeros, ours.DeepLift(model).attribute(a, 0, target=2), strict=True)
    )


def test_a_tuple_of_one_stays_a_tuple():
    (found,) = ours.DeepLift(mlp()).attribute((X,), (R[:3],), target=1)
    assert torch.equal(found, ours.DeepLift(mlp()).attribute(X, R[:3], target=1))


def test_dtypes_and_gradients():
    model = mlp().float()
    found, delta = ours.DeepLiftShap(model).attribute(
        X.float().requires_grad_(), R, target=1, return_convergence_delta=True
    )
    assert found.dtype == delta.dtype == torch.float32
    assert not found.requires_grad
    assert_close(found.numpy(), values(mlp(), X, R)[..., 1], 1e-4)


@every_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_device_and_precision(device, dtype):
    model, x, r, lengths = setting(device, dtype)
    found, delta = ours.DeepLiftShap(model).attribute(x, r, 1, lengths, return_convergence_delta=True)
    assert (found.dtype, found.device, delta.dtype, delta.device) == (dtype, x.device, dtype, x.device)
    assert_close(found.float().cpu().numpy(), values(model, x, r, lengths)[..., 1], 1e-2)
    layer = ours.LayerDeepLift(model, model.front).attribute(x, r[:3], 1, lengths)
    assert (layer.dtype, layer.device, layer.shape) == (dtype, x.device, (3, 8, 5))


def test_integer_inputs():
    ids, others = torch.tensor([[1, 2], [3, 0]]), torch.tensor([[0, 0], [2, 1]])
    model = built(nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 2)))
    found, delta = ours.DeepLiftShap(model).attribute(ids, others, target=1, return_convergence_delta=True)
    assert found.dtype == torch.float64
    assert_close(found.numpy(), values(model, ids, others)[..., 1], 1e-12)
    assert delta.abs().max() <= 1e-12


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_inside_any_gradient_mode(mode):
    model = mlp()
    wanted = ours.DeepLiftShap(model).attribute(X, R, target=1)
    with mode():
        found = ours.DeepLiftShap(model).attribute(X.clone(), R.clone(), target=1)
        _, delta = ours.DeepLift(model).attribute(X.clone(), target=1, return_convergence_delta=True)
    assert torch.equal(found, wanted)
    assert delta.abs().max() <= 1e-12


# ---------------------------------------------------------------------- targets and row arguments
def test_targets():
    plain, wide = mlp(6), nn.Sequential(mlp(6), nn.Unflatten(1, (2, 3)))
    each = torch.stack([ours.DeepLift(plain).attribute(X, target=t) for t in range(6)])
    for model, target, places in (
        (plain, -1, [5, 5, 5]),
        (plain, np.int64(2), [2, 2, 2]),
        (plain, (4,), [4, 4, 4]),
        (plain, torch.tensor([3]), [3, 3, 3]),
        (plain, [0, 5, 2], [0, 5, 2]),
        (plain, torch.tensor([0, 5, 2]), [0, 5, 2]),
        (wide, (1, 2), [5, 5, 5]),
        (wide, (-2, 1), [1, 1, 1]),
        (wide, [(0, 0), (1, 1), (0, 2)], [0, 4, 2]),
        (nn.Sequential(plain, nn.Unflatten(1, (6, 1))), 3, [3, 3, 3]),
    ):
        found, delta = ours.DeepLift(model).attribute(X, target=target, return_convergence_delta=True)
        assert torch.equal(found, each[places, range(3)])
        assert delta.abs().max() <= 1e-12


@pytest.mark.parametrize("model", [mlp(1), nn.Sequential(mlp(1), nn.Flatten(0))], ids=["(rows, 1)", "(rows,)"])
def test_one_output_needs_no_target(model):
    wanted = ours.DeepLift(mlp(1)).attribute(X, target=0)
    assert torch.equal(ours.DeepLift(model).attribute(X), wanted)


def test_row_arguments():
    model, lengths = built(LastValid()), torch.tensor([5, 3, 2])
    wanted = values(model, SERIES, SERIES_R, lengths)
    for args in (lengths, (lengths,)):
        asked = {"target": 1, "additional_forward_args": args, "return_convergence_delta": True}
        found, delta = ours.DeepLiftShap(model).attribute(SERIES, SERIES_R, **asked)
        assert_close(found.numpy(), wanted[..., 1], 1e-12)
        assert delta.abs().max() <= 1e-12
        found, delta = ours.DeepLift(model).attribute(SERIES, SERIES_R[:1], **asked)
        assert_close(found.numpy(), values(model, SERIES, SERIES_R[:1], lengths)[..., 1], 1e-12)
        assert delta.abs().max() <= 1e-12


def test_arguments_that_are_no_rows():
    def model(x: Tensor, factor: float, name: str) -> Tensor:
        return factor * torch.tanh(x).sum(1) if name == "tanh" else x

    found = ours.DeepLift(model).attribute(X, additional_forward_args=(2.0, "tanh"))
    assert_close(found.numpy(), 2 * X.tanh().numpy(), 1e-12)


def test_time_first_outputs_have_targets_too():
    layer = built(nn.LSTM(3, 2, batch_first=True))
    last = ours.DeepLiftShap(lambda x: layer(x)[0][:, -1]).attribute(SERIES, SERIES_R, target=1)
    first = ours.DeepLiftShap(lambda x: layer(x)[1][0]).attribute(
        SERIES, SERIES_R, target=(0, 1), return_convergence_delta=True
    )
    assert_close(first[0].numpy(), last.numpy(), 1e-12)
    assert first[1].abs().max() <= 1e-12


# ---------------------------------------------------------------------- deltas
def test_the_delta_is_what_is_missed():
    model = mlp()
    method = ours.DeepLift(model)
    found = method.attribute(X, R[:3], target=1)
    wrong = found + torch.tensor([0.5, 0.0, -1.0])[:, None] / 4
    delta = method.compute_convergence_delta((wrong,), (R[:3],), (X,), target=[1, 1, 1])
    np.testing.assert_allclose(delta, [0.5, 0.0, -1.0], atol=1e-12)
    multipliers, gap = ours.DeepLift(model, False).attribute(X, R[:3], target=1, return_convergence_delta=True)
    difference = (outputs(model, X) - outputs(model, R[:3]))[:, 1]
    assert_close(gap.numpy(), multipliers.numpy().sum(1) - difference, 1e-12)


@pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap"])
def test_properties(name):
    for multiply in (True, False):
        method = getattr(ours, name)(mlp(), multiply_by_inputs=multiply)
        assert method.multiply_by_inputs is method.multiplies_by_inputs is multiply
        assert method.has_convergence_delta()


# ---------------------------------------------------------------------- never wrong in silence
@pytest.fixture
def wrong_rule():
    """Register a rule that does not add up."""
    deepshap.register_rule(torch.special.i0, "linear")
    yield torch.special.i0
    deepshap.unregister_rule(torch.special.i0)


@pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap"])
def test_what_does_not_add_up_is_refused(name, wrong_rule):
    model = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(deepshap.AdditivityError, match="row"):
        getattr(ours, name)(lambda x: torch.exp(wrong_rule(model(x.float())))).attribute(X, R[:3], target=1)


@pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap"])
def test_unknown_operations_are_refused(name):
    with pytest.raises(deepshap.UnsupportedOperationError, match="bessel_j1"):
        getattr(ours, name)(lambda x: torch.special.bessel_j1(x)).attribute(X, R[:3], target=1)


@pytest.mark.parametrize("name", NAMES[:2])
def test_the_model_is_left_alone(name):
    model = MODELS["lstm"][0]().train()
    before, inputs = snapshot(model), SERIES.clone()
    getattr(ours, name)(model).attribute(inputs, SERIES_R[:3], target=1, return_convergence_delta=True)
    assert snapshot(model) == before
    assert torch.equal(inputs, SERIES)
    assert not inputs.requires_grad


TWO = (X, drawn(3, 2))
ERRORS = {
    "list of inputs": (lambda: ours.DeepLift(mlp()).attribute([X], target=1), "tuple"),
    "array": (lambda: ours.DeepLift(mlp()).attribute(X.numpy(), target=1), "torch.as_tensor"),
    "rows differ": (lambda: ours.DeepLift(Two()).attribute((X, drawn(2, 2))), "numbers of rows"),
    "no rows": (lambda: ours.DeepLift(mlp()).attribute(X[:0], target=1), "empty"),
    "NaN": (lambda: ours.DeepLift(mlp()).attribute(X * torch.nan, target=1), "NaN"),
    "baselines for other rows": (lambda: ours.DeepLift(mlp()).attribute(X, R, target=1), "DeepLiftShap"),
    "shape of baselines": (lambda: ours.DeepLift(mlp()).attribute(X, R[:1, :2], target=1), r"unsqueeze\(0\)"),
    "number of baselines": (lambda: ours.DeepLift(Two()).attribute(TWO, (X,)), "one for each input"),
    "one tensor for two": (lambda: ours.DeepLift(Two()).attribute(TWO, X), "one for each input"),
    "kind of baseline": (lambda: ours.DeepLift(mlp()).attribute(X, "zeros", target=1), "number or a tensor"),
    "fractions": (lambda: ours.DeepLift(nn.Embedding(3, 2)).attribute(torch.ones(1, 1).long(), 0.5), "fractions"),
    "no distribution": (lambda: ours.DeepLiftShap(mlp()).attribute(X, None, target=1), "take DeepLift"),
    "number as distribution": (lambda: ours.DeepLiftShap(mlp()).attribute(X, 0.5, target=1), "take DeepLift"),
    "no target": (lambda: ours.DeepLift(mlp()).attribute(X), "no target"),
    "target out of range": (lambda: ours.DeepLift(mlp()).attribute(X, target=3), "not in the output"),
    "too many indices": (lambda: ours.DeepLift(mlp()).attribute(X, target=(1, 1)), "1 index"),
    "target for one output": (lambda: ours.DeepLift(lambda x: x.sum(1)).attribute(X, target=1), "0 indices"),
    "targets for other rows": (lambda: ours.DeepLift(mlp()).attribute(X, target=[0, 1]), "2 targets for 3 rows"),
    "kind of target": (lambda: ours.DeepLift(mlp()).attribute(X, target="cat"), "integer"),
    "shape of targets": (lambda: ours.DeepLift(mlp()).attribute(X, target=torch.ones(3, 1)), "one axis"),
    "arguments": (lambda: ours.DeepLift(mlp()).attribute(X, additional_forward_args=R), "additional_forward_args"),
    "custom arity": (
        lambda: ours.DeepLift(mlp()).attribute(X, target=1, custom_attribution_func=lambda: ()),
        "takes 0 arguments",
    ),
    "custom result": (
        lambda: ours.DeepLift(mlp()).attribute(X, target=1, custom_attribution_func=lambda m: m[0]),
        "must return a tuple",
    ),
    "custom rows": (
        lambda: ours.DeepLift(mlp()).attribute(X, target=1, custom_attribution_func=lambda m: (m[0].sum(0),)),
        "3 rows",
    ),
    "rows of attributions": (lambda: ours.DeepLift(mlp()).compute_convergence_delta(X[:2], 0, X, 1), "2 rows"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_cure(name):
    call, words = ERRORS[name]
    with pytest.raises(deepshap.InputError, match=words):
        call()
