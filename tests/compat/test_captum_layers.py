"""Layers and neurons through captum's classes: what the inner value is, and every way around it."""

from __future__ import annotations

from typing import Any

import captum.attr as theirs
import numpy as np
import pytest
import torch
from helpers import assert_close, built, snapshot, values
from models import Chain, Last
from test_captum import CAPTUM_WARNS, SERIES, SERIES_R, Attend, R, X, mlp, outputs
from torch import Tensor, nn

import deepshap
from deepshap import captum as ours


def layered(model: nn.Module, layer: nn.Module, x: Any, r: Any, **options: Any) -> Any:
    """Attribute output 1 to a layer, averaged over references."""
    return ours.LayerDeepLiftShap(model, layer).attribute(x, r, target=1, **options)


# ---------------------------------------------------------------------- layers that everything passes through
@CAPTUM_WARNS
@pytest.mark.parametrize("multiply", [True, False])
@pytest.mark.parametrize("place", range(5))
def test_layers_agree_with_captum(place, multiply):
    model = mlp()
    # captum takes a nonlinear layer's own slope for its input to be the gradient; see the next test for those
    for of_input in (False, True) if place % 2 == 0 else (False,):
        asked = {"target": 1, "return_convergence_delta": True, "attribute_to_layer_input": of_input}
        for kind, baselines in (("LayerDeepLift", R[:3]), ("LayerDeepLiftShap", R)):
            found, delta = getattr(ours, kind)(model, model[place], multiply).attribute(X, baselines, **asked)
            wanted, missed = getattr(theirs, kind)(model, model[place], multiply).attribute(X, baselines, **asked)
            assert_close(found.numpy(), wanted.detach().numpy())
            np.testing.assert_allclose(delta, missed, atol=1e-9)


@pytest.mark.parametrize("place", range(5))
def test_layers_equal_the_rest_of_the_model(place):
    model = mlp()
    for of_input in (False, True):
        first, rest = model[: place + 1 - of_input], model[place + 1 - of_input :]
        found, delta = layered(
            model, model[place], X, R, attribute_to_layer_input=of_input, return_convergence_delta=True
        )
        h, h_r = (first(v).detach() for v in (X, R))
        wanted = values(rest, h, h_r)[..., 1] if len(rest) else (h - h_r.mean(0)).numpy() * [0, 1, 0]
        assert_close(found.numpy(), wanted, 1e-12)
        assert delta.abs().max() <= 1e-12


@CAPTUM_WARNS
def test_custom_functions_get_the_values_of_the_layer():
    def function(multipliers: Any, inputs: Any, baselines: Any) -> Any:
        return tuple(m * x * r for m, x, r in zip(multipliers, inputs, baselines, strict=True))

    model = mlp()
    for kind, baselines in (("LayerDeepLift", R[:3]), ("LayerDeepLiftShap", R)):
        found, wanted = (
            getattr(m, kind)(model, model[2]).attribute(X, baselines, target=1, custom_attribution_func=function)
            for m in (ours, theirs)
        )
        assert_close(found.numpy(), wanted.detach().numpy())


def test_a_layer_with_several_outputs():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = nn.LSTM(3, 4, num_layers=2, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            series, (h, c) = self.lstm(x)
            return self.out(torch.tanh(series[:, 0] * h[-1]) + c.sum(0))

    model = built(Recurrent())
    found, delta = layered(model, model.lstm, SERIES, SERIES_R, return_convergence_delta=True)
    assert [tuple(f.shape) for f in found] == [(3, 5, 4), (2, 3, 4), (2, 3, 4)]
    assert delta.abs().max() <= 1e-12
    (series, (h, c)), (series_r, (h_r, c_r)) = (model.lstm(v) for v in (SERIES, SERIES_R))
    sides = [[s.detach(), h[-1].detach(), c.sum(0).detach()] for s, h, c in ((series, h, c), (series_r, h_r, c_r))]
    rest = deepshap.DeepExplainer(lambda s, h, c: model.out(torch.tanh(s[:, 0] * h) + c), sides[1], progress=False)
    wanted = rest.shap_values(sides[0])
    assert_close(found[0].numpy(), wanted[0][..., 1], 1e-12)
    assert_close(found[1][-1].numpy(), wanted[1][..., 1], 1e-12)
    assert_close(found[2].sum(0).numpy(), wanted[2][..., 1], 1e-12)
    assert torch.equal(found[1][0], torch.zeros(3, 4))


def test_time_first_layers_keep_their_axes():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.out = nn.GRU(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.gru(x.transpose(0, 1))[0]).sigmoid().sum(0)

    model = built(TimeFirst())
    rest = values(
        lambda h: model.out(h.transpose(0, 1)).sigmoid().sum(0), *(first_of(model, v) for v in (SERIES, SERIES_R))
    )
    custom = {"custom_attribution_func": lambda m, x, r: tuple(a * (b - c) for a, b, c in zip(m, x, r, strict=True))}
    for options in ({}, custom):
        (series, last), delta = layered(model, model.gru, SERIES, SERIES_R, return_convergence_delta=True, **options)
        assert_close(series.transpose(0, 1).numpy(), rest[..., 1], 1e-12)
        assert torch.equal(last, torch.zeros(1, 3, 4))
        assert delta.abs().max() <= 1e-12


def first_of(model: Any, x: Tensor) -> Tensor:
    """Return what the layer of ``TimeFirst`` gives, rows first."""
    return model.gru(x.transpose(0, 1))[0].detach().transpose(0, 1)


def test_an_embedding_is_explained_at_its_output():
    model = built(Chain(nn.Embedding(7, 3), nn.LSTM(3, 4, batch_first=True), Last(), nn.Linear(4, 2)))
    ids, others = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[0, 0, 0], [6, 1, 2], [3, 3, 1]])
    found, delta = layered(model, model[0], ids, others, return_convergence_delta=True)
    wanted = values(Chain(*model[1:]), *(model[0](v).detach() for v in (ids, others)))
    assert_close(found.numpy(), wanted[..., 1], 1e-12)
    assert delta.abs().max() <= 1e-12
    assert found.dtype == torch.float64


def test_row_arguments_reach_the_layer():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.out = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.out(torch.tanh(self.first(x * scale[:, None])))

    model, scale, one = built(Scaled()), torch.tensor([1.0, 2.0, 0.5]).double(), torch.ones(1)
    function = {"custom_attribution_func": lambda m, x, r: (m[0] * (x[0] - r[0]),)}
    for options in ({}, function):
        found, delta = layered(
            model, model.first, X, R, additional_forward_args=scale, return_convergence_delta=True, **options
        )
        assert delta.abs().max() <= 1e-12
        alone = [
            layered(model, model.first, X[[i]] * k, R * k, additional_forward_args=one) for i, k in enumerate(scale)
        ]
        assert_close(found.numpy(), torch.cat(alone).numpy(), 1e-12)


# ---------------------------------------------------------------------- ways around the layer
class Around(nn.Module):
    """A layer whose output meets the model's input once more."""

    def __init__(self, meet: Any):
        super().__init__()
        self.layer, self.out, self.meet = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2), meet

    def forward(self, x: Tensor) -> Tensor:
        return self.meet(self, self.layer(x), x)


def in_place(model: Any, h: Tensor, x: Tensor) -> Tensor:
    x = x.clone()
    x += h
    return model.out(torch.tanh(x))


def part_of_a_buffer(model: Any, h: Tensor, x: Tensor) -> Tensor:
    buffer = torch.zeros_like(x)
    buffer[:, 2:].add_(x[:, :2])
    buffer[:, 1:3].mul_(h[:, :2])
    buffer[:, 0] = h[:, 3]
    return model.out(torch.sin(buffer))


def changed_later(model: Any, h: Tensor, x: Tensor) -> Tensor:
    x = 1 * x
    met = torch.tanh(h + x)
    x.mul_(2)
    return model.out(met * x)


def steps_among_rows(model: Any, h: Tensor, x: Tensor) -> Tensor:
    merged = torch.stack([x, x**2], 1).flatten(0, 1)
    return model.out(merged * h.repeat_interleave(2, 0)).unflatten(0, (-1, 2)).sum(1)


MEETINGS = {
    "sum": lambda m, h, x: m.out(torch.tanh(h + x)),
    "gate": lambda m, h, x: m.out(h * torch.sigmoid(x)),
    "concatenated": lambda m, h, x: torch.softmax(torch.cat([h, x], 1)[:, 2:6] * torch.cat([x, h], 1)[:, 2:6], 1),
    "condition": lambda m, h, x: m.out(torch.where(x > 0, h, x)),
    "mask": lambda m, h, x: m.out(h.masked_fill(x > 0, 0.0)),
    "einsum": lambda m, h, x: torch.einsum("bi,bj->bij", h, torch.sin(x)).tanh().sum(2),
    "expanded": lambda m, h, x: m.out(torch.tanh(h * x[:, :1].expand(-1, 4))),
    "time first": lambda m, h, x: m.out(torch.tanh(h + torch.stack([x, x.sin()])).prod(0)),
    "out=": lambda m, h, x: m.out(torch.tanh(torch.mul(h, x, out=torch.empty_like(x)))),
    "nothing": lambda m, h, x: m.out(h),
    "in place": in_place,
    "part of a buffer": part_of_a_buffer,
    "changed later": changed_later,
    "steps among rows": steps_among_rows,
}


@pytest.mark.parametrize("name", MEETINGS)
def test_what_goes_around_a_layer_is_not_taken_for_it(name):
    model = built(Around(MEETINGS[name]))
    h, h_r = (model.layer(v).detach() for v in (X, R))
    rest = deepshap.DeepExplainer(lambda h, x: MEETINGS[name](model, h.clone(), x.clone()), [h_r, R], progress=False)
    before = snapshot(model)
    found, delta = layered(model, model.layer, X, R, return_convergence_delta=True)
    wanted, around = rest.shap_values([h, X])
    assert_close(found.numpy(), wanted[..., 1], 1e-12)
    assert_close(delta.unflatten(0, (3, 5)).mean(1).numpy(), -around[..., 1].sum(1), 1e-9)
    found = ours.LayerDeepLift(model, model.layer).attribute(X, R[:3], target=1)
    one = deepshap.DeepExplainer(rest.engine.model, [h_r[1:2], R[1:2]], progress=False).shap_values([h[1:2], X[1:2]])
    assert_close(found[1:2].numpy(), one[0][..., 1], 1e-12)
    assert snapshot(model) == before


def test_zero_baselines_do_not_hide_a_gate():
    model = Around(lambda m, h, x: h * torch.sigmoid(x)).double()
    nn.init.zeros_(model.layer[0].bias)
    h = model.layer(X).detach().numpy()
    found = ours.LayerDeepLift(model, model.layer).attribute(X, target=1)
    assert_close(found[:, 1].numpy(), h[:, 1] * (X[:, 1].sigmoid().numpy() + 0.5) / 2, 1e-12)


@pytest.mark.parametrize("same", [True, False])
def test_masks_made_of_tokens(same):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(6, 4), nn.Linear(4, 2)
            self.encode = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

        def forward(self, ids: Tensor) -> Tensor:
            padded = ids == 0
            h = self.encode(self.embed(ids), src_key_padding_mask=padded)
            return self.out(h.masked_fill(padded[..., None], 0.0).sum(1))

    model = built(Tokens())
    ids, others = torch.tensor([[1, 2, 3, 0], [4, 5, 1, 0]]), torch.tensor([[5, 5, 5, 0], [2, 3, 1, 0 if same else 4]])
    if not same:
        with pytest.raises(deepshap.NonFiniteError, match="additional_forward_args"):
            layered(model, model.embed, ids, others)
        return
    found, delta = layered(model, model.embed, ids, others, return_convergence_delta=True)
    assert delta.abs().max() <= 1e-12
    assert torch.equal(found[:, 3], torch.zeros(2, 4))


def test_deep_explainer_refuses_a_way_around():
    model = built(Around(MEETINGS["sum"]))
    with pytest.raises(deepshap.AdditivityError, match="around the explained layer"):
        values((model, model.layer), X, R)


# ---------------------------------------------------------------------- neurons
@CAPTUM_WARNS
@pytest.mark.parametrize("multiply", [True, False])
@pytest.mark.parametrize("selector", [2, (1,), (slice(0, 2),), lambda h: 3 * h[:, 0], lambda h: h.sum(1, keepdim=True)])
def test_neurons_agree_with_captum(selector, multiply):
    model = mlp()
    for place in range(5):
        for of_input in (False, True):
            asked = {"attribute_to_neuron_input": of_input}
            for kind, baselines in (("NeuronDeepLift", R[:3]), ("NeuronDeepLiftShap", R)):
                other = (lambda h: selector(h)[:, 0]) if callable(selector) and selector(X).dim() > 1 else selector
                found = getattr(ours, kind)(model, model[place], multiply).attribute(X, selector, baselines, **asked)
                wanted = getattr(theirs, kind)(model, model[place], multiply).attribute(X, other, baselines, **asked)
                assert_close(found.numpy(), wanted.detach().numpy())


def test_neurons_of_larger_values():
    model = built(Chain(nn.Conv1d(5, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)))
    wanted = values(model[:2], SERIES, SERIES_R)
    for selector, place in (
        ((3, 1), wanted[..., 3, 1]),
        ((slice(None), 0), wanted[..., 0].sum(-1)),
        ((-1, slice(0, 2)), wanted[..., 3, :].sum(-1)),
        (lambda h: h[:, 1:3].flatten(1).sum(1), wanted[..., 1:3, :].sum((-2, -1))),
    ):
        found = ours.NeuronDeepLiftShap(model, model[1]).attribute(SERIES, selector, SERIES_R)
        assert_close(found.numpy(), place, 1e-12)


def test_neurons_of_a_layer_with_several_outputs():
    model = built(Chain(nn.LSTM(3, 4, batch_first=True), Last(), nn.Linear(4, 2)))
    method = ours.NeuronDeepLiftShap(model, model[0])
    found = method.attribute(SERIES, lambda value: value[1][1][0, :, 2], SERIES_R)
    assert_close(found.numpy(), values(lambda x: model[0](x)[1][1][0, :, 2], SERIES, SERIES_R), 1e-12)
    with pytest.raises(deepshap.InputError, match="function"):
        method.attribute(SERIES, 2, SERIES_R)


def test_what_comes_after_a_neuron_is_not_run():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    whole = ours.NeuronDeepLift(model, model[1]).attribute(X, 0)
    cut = ours.NeuronDeepLift(lambda x: torch.special.bessel_j1(model(x)), model[1]).attribute(X, 0)
    assert torch.equal(whole, cut)


def test_custom_functions_for_neurons():
    model = mlp()
    asked = {"custom_attribution_func": lambda m: tuple(2 * v for v in m)}
    found = ours.NeuronDeepLift(model, model[1]).attribute(X, 3, R[:3], **asked)
    assert torch.equal(found, 2 * ours.NeuronDeepLift(model, model[1], False).attribute(X, 3, R[:3]))


# ---------------------------------------------------------------------- errors
class Reused(nn.Module):
    """A layer called twice, and one that is not called."""

    def __init__(self):
        super().__init__()
        self.twice, self.never = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(torch.tanh(self.twice(x)))


REUSED, MODEL = built(Reused()), mlp()
ERRORS = {
    "layer called twice": (lambda: layered(REUSED, REUSED.twice, X, R), "layer of its own"),
    "layer not called": (lambda: layered(REUSED, REUSED.never, X, R), "not called"),
    "input of an embedding": (
        lambda: layered(nn.Embedding(3, 2), nn.Embedding(3, 2), torch.ones(1, 1).long(), torch.zeros(1, 1).long()),
        "not called",
    ),
    "grad_kwargs": (
        lambda: ours.LayerDeepLift(MODEL, MODEL[1]).attribute(X, target=1, grad_kwargs={"create_graph": True}),
        "create_graph",
    ),
    "neuron of a layer called twice": (
        lambda: ours.NeuronDeepLift(REUSED, REUSED.twice).attribute(X, 1),
        "called 2 times",
    ),
    "neuron of a layer not called": (lambda: ours.NeuronDeepLift(REUSED, REUSED.never).attribute(X, 1), "not called"),
    "neuron out of range": (lambda: ours.NeuronDeepLift(MODEL, MODEL[1]).attribute(X, 6), "not in the layer's value"),
    "several neurons": (lambda: ours.NeuronDeepLift(MODEL, MODEL[1]).attribute(X, ()), "one value per row"),
    "sum over rows": (lambda: ours.NeuronDeepLift(MODEL, MODEL[1]).attribute(X, lambda h: h.sum()), r"flatten\(1\)"),
    "kind of selector": (lambda: ours.NeuronDeepLift(MODEL, MODEL[1]).attribute(X, "first"), "function"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_cure(name):
    call, words = ERRORS[name]
    with pytest.raises(deepshap.InputError, match=words):
        call()


def test_grad_kwargs_without_effect_are_taken():
    found = ours.LayerDeepLift(MODEL, MODEL[1]).attribute(X, target=1, grad_kwargs={"allow_unused": True})
    assert torch.equal(found, ours.LayerDeepLift(MODEL, MODEL[1]).attribute(X, target=1))


@pytest.mark.parametrize("kind", ["LayerDeepLift", "LayerDeepLiftShap", "NeuronDeepLift", "NeuronDeepLiftShap"])
def test_the_model_is_left_alone(kind):
    model = built(Attend()).train()
    before, method = snapshot(model), getattr(ours, kind)(model, model.norm)
    if "Layer" in kind:
        method.attribute(SERIES, SERIES_R[:3], target=1)
    else:
        method.attribute(SERIES, (1, 2), SERIES_R[:3])
    assert snapshot(model) == before
    assert method.layer is model.norm
    assert method.multiplies_by_inputs
    assert method.has_convergence_delta() == ("Layer" in kind)


def test_noise_tunnel_for_layers():
    model = mlp()
    tunnel = theirs.NoiseTunnel(ours.LayerDeepLift(model, model[1]))
    found = tunnel.attribute(X, stdevs=1e-6, nt_samples=3, baselines=R[:1], target=1)
    assert_close(found.numpy(), ours.LayerDeepLift(model, model[1]).attribute(X, R[:1], target=1).numpy(), 1e-4)
    larger = theirs.LayerAttribution.interpolate(found[:, None], (12,))
    assert larger.shape == (3, 1, 12)
    assert outputs(model, X).shape == (3, 3)
