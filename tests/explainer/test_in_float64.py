"""Where float32 cancels, rows are explained in float64: held against the float64 model, explained as such."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from helpers import snapshot
from torch import Tensor, nn
from torch.nn import functional as F

import deepshap
from deepshap.captum import DeepLiftShap, LayerDeepLift

BIG = 3e4


class Net(nn.Module):
    """Two hidden layers, in front of what cancels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

    def logits(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.logits(x) + BIG, -1)


class Scaled(Net):
    """Logits that are two sums of the same large terms."""

    def forward(self, x: Tensor) -> Tensor:
        shared = 1e5 * torch.relu(self.a(x)).sum(1, keepdim=True)
        return (shared + self.logits(x)).softmax(1)


class CastsToFloat32(Net):
    """As published models do in their norms and attention."""

    def forward(self, x: Tensor) -> Tensor:
        wide = (self.logits(x) + BIG).to(torch.float32)
        return F.softmax(wide.float(), -1, dtype=torch.float32).type(x.dtype)


class Writes(Net):
    """Makes a tensor of its own, and writes into it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.full((3,), BIG))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(len(x), 3)
        out[:, :2] = self.logits(x)[:, :2]
        out[:, 2] = self.logits(x)[:, 2]
        out += self.state
        return out.softmax(1)


class Recurrent(nn.Module):
    """An LSTM, attention and a layer norm before it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.lstm = nn.LSTM(2, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lstm(x.unflatten(1, (3, 2)))[0]
        h = self.norm(h + self.attention(h, h, h)[0])
        return torch.softmax(self.head(h[:, -1]) - BIG, 1)


class Shared(Net):
    """A layer outside of the module tree, in a closure."""

    def __new__(cls):
        net = Net()
        return lambda x: torch.softmax(net.logits(x) + BIG, 1)


MODELS = [Net, Scaled, CastsToFloat32, Writes, Recurrent]


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(12, 6, generator=generator), torch.randn(5, 6, generator=generator)


def in_float64(model: nn.Module, *options, **kwargs) -> deepshap.Explanation:
    """The same model in float64, explained as any float64 model."""
    background, x = rows()
    wide = copy.deepcopy(model).double()
    torch.set_default_dtype(torch.float64)
    try:
        return deepshap.DeepExplainer(wide, background.double(), progress=False)(x.double(), *options, **kwargs)
    finally:
        torch.set_default_dtype(torch.float32)


def assert_float64s(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.astype(np.float32), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", [m for m in MODELS if m is not CastsToFloat32])
def test_values_are_those_of_the_float64_model(make):
    model, (background, x) = make().eval(), rows()
    before = snapshot(model)
    found = deepshap.DeepExplainer(model, background, progress=False)(x)
    assert snapshot(model) == before
    wanted = in_float64(model)
    assert_float64s(found.values, wanted.values)
    np.testing.assert_allclose(found.base_values, wanted.base_values, rtol=1e-6)
    np.testing.assert_allclose(found.outputs, wanted.outputs, rtol=1e-6)
    assert found.gap.max() <= 1e-9


def test_casts_to_float32_inside_are_no_hindrance():
    background, x = rows()
    assert_float64s(deepshap.DeepExplainer(CastsToFloat32(), background).shap_values(x), in_float64(Net()).values)


def test_a_function_that_holds_its_layers():
    background, x = rows()
    assert_float64s(deepshap.DeepExplainer(Shared(), background).shap_values(x), in_float64(Net()).values)


@pytest.mark.parametrize(("dtype", "shift"), [(torch.bfloat16, 120.0), (torch.float16, 400.0)])
def test_lower_precisions(dtype, shift):
    net, (background, x) = Net().to(dtype), (t.to(dtype) for t in rows())
    found = deepshap.DeepExplainer(lambda x: torch.softmax(net.logits(x) + shift, -1), background)(x)
    again = found.gap.max(1) <= 1e-9
    assert again.any()
    wide = copy.deepcopy(net).double()
    wanted = deepshap.DeepExplainer(lambda x: torch.softmax(wide.logits(x), -1), background.double())(x.double())
    np.testing.assert_allclose(found.values[again], wanted.values[again], rtol=1e-5, atol=1e-7)


def test_only_the_rows_that_need_it():
    """A row is explained in the same way whatever it is explained with."""

    def mixed(x: Tensor) -> Tensor:
        return torch.softmax(net.logits(x) + BIG * (x[:, :1] > 0), -1)

    net, (background, x) = Net(), rows()
    background = background.clone()
    background[:, 0] = -1.0
    x[::2, 0], x[1::2, 0] = -1.0, 2.0
    explainer = deepshap.DeepExplainer(mixed, background, progress=False)
    together = explainer.shap_values(x)
    alone = np.concatenate([explainer.shap_values(x[k : k + 1]) for k in range(len(x))])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"effort": 4}, {"players": "features", "effort": 3, "seed": 5}, {"tolerance": 0.3}]
)
def test_the_dial(options):
    model, (background, x) = Scaled(), rows()
    found = deepshap.DeepExplainer(model, background, progress=False)(x, **options)
    assert found.gap.max() <= 1e-9
    total = found.values.astype(np.float64).sum(1)
    if not found.method.startswith("Deep SHAP corrected"):  # outputs alone: those of the model as it is, in float32
        np.testing.assert_allclose(total, found.outputs - found.base_values, atol=1e-6)
        return
    with torch.no_grad():
        wide = copy.deepcopy(model).double()
        difference = wide(x.double()) - wide(background.double()).mean(0)
    np.testing.assert_allclose(total, difference, atol=1e-6)


def test_ranked_outputs_targets_and_functions_as_background():
    model, (background, x) = Net(), rows()
    wanted = in_float64(model)
    explainer = deepshap.DeepExplainer(model, background, progress=False)
    values, columns = explainer.shap_values(x, ranked_outputs=1)
    assert_float64s(values, np.take_along_axis(wanted.values, columns[:, None], 2))
    assert_float64s(explainer.shap_values(x, target=1), wanted.values[..., 1])
    own = deepshap.DeepExplainer(model, lambda _: background, progress=False)
    assert_float64s(own.shap_values(x), wanted.values)


def test_captum_and_inner_layers():
    model, (background, x) = Net(), rows()
    found, delta = DeepLiftShap(model).attribute(x, background, target=1, return_convergence_delta=True)
    assert_float64s(found.numpy(), in_float64(model).values[..., 1])
    assert delta.abs().max() < 1e-9
    wide = copy.deepcopy(model).double()
    layer = LayerDeepLift(model, model.b).attribute(x, background[:5], target=2)
    wanted = LayerDeepLift(wide, wide.b).attribute(x.double(), background[:5].double(), target=2)
    assert_float64s(layer.numpy(), wanted.numpy())


def test_no_warning_where_the_sums_hold_in_float64(recwarn):
    background, x = rows()
    deepshap.DeepExplainer(Net(), background, progress=False).shap_values(x, check_additivity=False)
    assert not recwarn.list


# ---------------------------------------------------------------------- offsets that swallow what they are added to
class Swallowed(Net):
    """A softmax knows no shift: the values are those without it."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(1e-3 * self.logits(x) + self.shift, -1)


@pytest.mark.parametrize("shift", [1e4, 1e5])
def test_numbers_that_vanish_beside_an_offset(shift, recwarn):
    background, x = rows()
    found = deepshap.DeepExplainer(Swallowed(shift), background, progress=False)(x)
    again = found.gap.max(1) <= 1e-9
    assert again.any()
    wanted = in_float64(Swallowed()).values
    np.testing.assert_allclose(found.values[again], wanted[again], rtol=1e-5, atol=1e-9)
    assert not [w for w in recwarn.list if issubclass(w.category, UserWarning)]


NORMS = {
    "layer": lambda: nn.LayerNorm(24),
    "group": lambda: nn.Sequential(nn.Unflatten(1, (4, 6)), nn.GroupNorm(2, 4), nn.Flatten()),
    "instance": lambda: nn.Sequential(nn.Unflatten(1, (4, 6)), nn.InstanceNorm1d(4), nn.Flatten()),
}


@pytest.mark.parametrize("offset", [300, 1013, 5000, 101325])
@pytest.mark.parametrize("norm", NORMS)
def test_norms_of_data_far_from_zero(norm, offset):
    """Kelvin, or pressures: what a norm subtracts inside is rounded as its operand is."""
    for seed in range(3):
        torch.manual_seed(seed)
        rows, model = torch.randn(20, 24) + offset, nn.Sequential(NORMS[norm](), nn.Linear(24, 2))
        found = deepshap.DeepExplainer(model, rows[:10], progress=False)(rows[10:])
        wanted = deepshap.DeepExplainer(model.double(), rows[:10].double(), progress=False)(rows[10:].double())
        np.testing.assert_allclose(found.values, wanted.values, rtol=0, atol=1e-4 * np.abs(wanted.values).max())


def test_squares_that_overflow_in_single_precision():
    rows = 1e20 * torch.randn(8, 4)
    found = deepshap.DeepExplainer(lambda x: x.std(1, keepdim=True), rows[:5], progress=False)(rows[5:])
    np.testing.assert_allclose(found.values.sum(1), found.outputs - found.base_values, rtol=1e-5)
    assert found.gap.max() <= 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shift", [1e9, 1e11])
def test_where_float64_has_too_few_digits_as_well(shift, dtype):
    background, x = (t.to(dtype) for t in rows())
    explainer = deepshap.DeepExplainer(Swallowed(shift).to(dtype), background, progress=False)
    wanted = in_float64(Swallowed()).values
    if dtype == torch.float32:  # whose tolerance is wider
        found = explainer(x)
        again = found.gap.max(1) < 1e-5
        assert again.any()
        np.testing.assert_allclose(found.values[again], wanted[again], rtol=0, atol=1e-2 * np.abs(wanted).max())
        return
    with pytest.raises(deepshap.AdditivityError, match="large numbers cancel") as error:
        explainer(x)
    assert "take out large terms that all rows share" in str(error.value)
    with pytest.warns(deepshap.AdditivityWarning, match="large numbers cancel") as told:
        found = explainer(x, check_additivity=False)
    assert told[0].filename == __file__
    again = found.gap.max(1) < 1e-5
    assert again.any()
    np.testing.assert_allclose(found.values[again], wanted[again], rtol=0, atol=1e-2 * np.abs(wanted).max())


@pytest.mark.parametrize("shift", [-2e7, 2e7, -1e9])
def test_values_are_right_to_rounding_where_the_caller_does_without_the_check(shift):
    torch.manual_seed(0)
    net, background, x = Net().double(), torch.zeros(3, 6).double(), torch.randn(5, 6).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", deepshap.AdditivityWarning)
        explainer = deepshap.DeepExplainer(lambda x: torch.softmax(net.logits(x) + shift, -1), background)
        found = explainer.shap_values(x, check_additivity=False)
    wanted = deepshap.DeepExplainer(lambda x: torch.softmax(net.logits(x), -1), background).shap_values(x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_numbers_that_vanish_in_float64_too_are_the_cause_that_is_named(dtype):
    background, x = (t.to(dtype) for t in rows())
    with pytest.raises(deepshap.AdditivityError, match="large numbers cancel in the model: then take out") as told:
        deepshap.DeepExplainer(Swallowed(1e14).to(dtype), background, progress=False).shap_values(x)
    assert "report" not in str(told.value)


# ---------------------------------------------------------------------- nothing is hidden
class Slightly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


@pytest.mark.parametrize("miss", [3e-4, 1e-3, 0.1])
def test_a_wrong_rule_stays_an_error(miss):
    def wrong(step, m):
        return (
            (1 + miss) * m * (step.outputs[0] - step.reference.outputs[0]) / (step.inputs[0] - step.reference.inputs[0])
        )

    model = nn.Sequential(nn.Linear(6, 4), Slightly(), nn.Linear(4, 2))
    background, x = rows()
    deepshap.register_rule(Slightly, wrong)
    try:
        with pytest.raises(deepshap.AdditivityError, match=r"Slightly.* In float64 they miss it by"):
            deepshap.DeepExplainer(model, background, progress=False).shap_values(x)
    finally:
        deepshap.unregister_rule(Slightly)


def test_a_float64_copy_that_is_another_model_is_no_help():
    class Branches(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return 1.5 * y if x.dtype == torch.float64 else y

    background, x = rows()
    with pytest.raises(
        deepshap.AdditivityError,
        match=r"other outputs: they differ by up to 0\.\d+ of their size",
    ):
        deepshap.DeepExplainer(Branches(), background, progress=False).shap_values(x)


@pytest.mark.parametrize("miss", [1e-6, 1e-3])
def test_a_wrong_rule_in_float64_is_no_rounding(miss):
    model = nn.Sequential(nn.Linear(6, 4), Slightly(), nn.Linear(4, 2)).double()
    background, x = (t.double() for t in rows())
    deepshap.register_rule(
        Slightly,
        lambda step, m: (
            (1 + miss) * m * (step.outputs[0] - step.reference.outputs[0]) / (step.inputs[0] - step.reference.inputs[0])
        ),
    )
    try:
        with pytest.raises(deepshap.AdditivityError, match="Most likely cause: Slightly"):
            deepshap.DeepExplainer(model, background, progress=False).shap_values(x)
    finally:
        deepshap.unregister_rule(Slightly)


def test_a_float64_copy_that_fails_is_told():
    class Refuses(Net):
        def forward(self, x: Tensor) -> Tensor:
            if x.dtype == torch.float64:
                raise TypeError("float32 alone")
            return super().forward(x)

    background, x = rows()
    with pytest.raises(deepshap.AdditivityError, match=r"could not be computed in float64.*float32 alone"):
        deepshap.DeepExplainer(Refuses(), background, progress=False).shap_values(x)


def test_rounding_is_no_excuse_for_mixing_rows():
    background, x = rows()
    net = Net()
    with pytest.raises(deepshap.DeepShapError, match="statistics over the batch"):
        deepshap.DeepExplainer(lambda x: net(x - 1e-3 * x.mean(0)), background, progress=False).shap_values(x)
