"""The interface: forms of inputs and outputs, and what shap does in the same place."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import shap
import torch
from helpers import assert_close, built, drawn, snapshot
from models import Chain, Inputs, Last, Outputs, Packed, lstm
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import deepshap
from deepshap import attribution

X, R = drawn(3, 4, seed=1), drawn(5, 4, seed=2)
SERIES, SERIES_R = drawn(3, 5, 3, seed=3), drawn(4, 5, 3, seed=4)


def mlp(outputs: int = 3) -> nn.Sequential:
    """Return a ReLU network."""
    return built(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, outputs)))


def values(model: Any, background: Any, rows: Any, args: Any = None, **options: Any) -> Any:
    """Explain without a progress bar."""
    explainer = deepshap.DeepExplainer(model, background, progress=False, **options)
    return explainer.shap_values(rows, additional_forward_args=args)


# ---------------------------------------------------------------------- beside shap
@pytest.mark.fast
def test_equals_shap_on_a_relu_network():
    model = mlp().float()
    theirs, ours = shap.DeepExplainer(model, R.float()), deepshap.DeepExplainer(model, R.float())
    assert_close(ours.shap_values(X.float()), theirs.shap_values(X.float()), 1e-5)
    assert_close(ours.expected_value, theirs.expected_value, 1e-5)


@pytest.mark.parametrize("order", ["max", "min", "max_abs"])
def test_ranked_outputs_equal_shap(order):
    model = mlp().float()
    theirs = shap.DeepExplainer(model, R.float()).shap_values(X.float(), 2, order, check_additivity=False)
    ours = deepshap.DeepExplainer(model, R.float()).shap_values(X.float(), 2, order)
    assert_close(ours[0], theirs[0], 1e-5)
    assert np.array_equal(ours[1], theirs[1])


def test_the_input_of_a_layer_equals_shap():
    model = mlp().float()
    theirs = shap.DeepExplainer((model, model[2]), R.float()).shap_values(X.float())
    ours = deepshap.DeepExplainer((model, model[2]), R.float()).shap_values(X.float())
    assert_close(ours, theirs, 1e-5)


def test_one_output_equals_shap():
    model = mlp(1).float()
    ours = values(model, R.float(), X.float())
    assert ours.shape == (3, 4, 1)
    assert_close(ours, shap.DeepExplainer(model, R.float()).shap_values(X.float()), 1e-5)


def test_several_inputs_have_the_form_that_shap_gives_them():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.relu, self.head = nn.Linear(4, 3), nn.Linear(2, 3), nn.ReLU(), nn.Linear(6, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.head(self.relu(torch.cat([self.a(a), self.b(b)], 1)))

    model = built(Two()).float()
    rows, references = [X.float(), X[:, :2].float()], [R.float(), R[:, :2].float()]
    theirs, ours = shap.DeepExplainer(model, references).shap_values(rows), values(model, references, rows)
    assert type(ours) is type(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine, other, 1e-5)


# ---------------------------------------------------------------------- inputs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_arrays_are_read_like_tensors(dtype):
    model = mlp().to(dtype)
    wanted = values(model, R.to(dtype), X.to(dtype))
    assert wanted.dtype == (np.float32 if dtype == torch.float32 else np.float64)
    assert_close(values(model, R.numpy(), X.numpy()), wanted, 1e-5 if dtype == torch.float32 else 1e-12)
    assert_close(values(model, R.to(dtype).numpy(), X.to(dtype)), wanted)


def test_lists_tuples_and_dicts():
    model = built(Inputs())
    as_list = values(model, [SERIES_R, R[:4]], [SERIES, X])
    as_tuple = values(model, (SERIES_R, R[:4]), (SERIES, X))
    as_dict = values(model, {"static": R[:4], "series": SERIES_R}, {"series": SERIES, "static": X})
    assert isinstance(as_list, list)
    assert set(as_dict) == {"series", "static"}
    for i, name in enumerate(["series", "static"]):
        assert_close(as_tuple[i], as_list[i])
        assert_close(as_dict[name], as_list[i])


def test_numbers_among_the_additional_arguments():
    model = built(Inputs())
    twice = values(lambda a, b: model(a, b, 2.0), [SERIES_R, R[:4]], [SERIES, X])
    for found, wanted in zip(values(model, [SERIES_R, R[:4]], [SERIES, X], (2.0,)), twice, strict=True):
        assert_close(found, wanted)


def test_lengths_as_array_and_as_tensor():
    model, lengths = built(Packed("GRU")), torch.tensor([2, 5, 3])
    wanted = values(model, SERIES_R, SERIES, (lengths,))
    assert_close(values(model, SERIES_R, SERIES, (lengths.numpy(),)), wanted)
    assert_close(values(model, SERIES_R, SERIES, lengths), wanted)


def test_packed_sequences():
    layer, lengths = built(lstm()), torch.tensor([5, 3, 2])
    packed = pack_padded_sequence(SERIES, lengths, batch_first=True)
    background = pack_padded_sequence(SERIES_R, torch.full((4,), 5), batch_first=True)
    found = values(lambda p: layer(p)[1][0][0], background, packed)
    assert_close(found, values(lambda x, n: packed_last(layer, x, n), SERIES_R, SERIES, (lengths,)))


def packed_last(layer: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    """Return the last hidden state of packed rows."""
    return layer(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[1][0][0]


def test_rows_along_another_axis():
    layer = built(nn.LSTM(3, 2))
    first = built(nn.LSTM(3, 2, batch_first=True))
    first.load_state_dict(layer.state_dict())
    found = values(lambda x: layer(x)[0][-1], SERIES_R.transpose(0, 1), SERIES.transpose(0, 1), batch_axis=1)
    assert found.shape == (5, 3, 3, 2)
    assert_close(found.swapaxes(0, 1), values(Chain(first, Last()), SERIES_R, SERIES))


def test_axes_counted_from_the_end():
    layer = built(nn.LSTM(3, 2, batch_first=True))
    background, rows = SERIES_R.permute(1, 2, 0), SERIES.permute(1, 2, 0)
    model = lambda x: layer(x.permute(2, 0, 1))[0][:, -1]  # noqa: E731
    found = [values(model, background, rows, batch_axis=axis) for axis in (2, -1)]
    assert found[0].shape == (5, 3, 3, 2)
    assert np.array_equal(*found)


def test_rows_along_another_axis_of_the_output_too():
    layer = built(nn.LSTM(3, 2))
    first = built(nn.LSTM(3, 2, batch_first=True))
    first.load_state_dict(layer.state_dict())
    found = values(lambda x: layer(x)[0], SERIES_R.transpose(0, 1), SERIES.transpose(0, 1), batch_axis=1)
    assert found.shape == (5, 3, 3, 5, 2)
    assert_close(found.swapaxes(0, 1), values(Chain(first), SERIES_R, SERIES))


def test_a_batch_axis_for_each_input():
    model = built(Inputs())

    def turned(series: Tensor, static: Tensor) -> Tensor:
        return model(series.transpose(0, 1), static)

    wanted = values(model, [SERIES_R, R[:4]], [SERIES, X])
    background, rows = [SERIES_R.transpose(0, 1), R[:4]], [SERIES.transpose(0, 1), X]
    found = values(turned, background, rows, batch_axis=[1, 0])
    assert_close(found[0].swapaxes(0, 1), wanted[0])
    assert_close(found[1], wanted[1])


# ---------------------------------------------------------------------- outputs
def test_shapes_of_values_and_expected_value():
    layer = built(lstm())
    for model, shape in (
        (lambda x: layer(x)[0], (5, 2)),
        (lambda x: layer(x)[0][..., 0], (5,)),
        (lambda x: layer(x)[0][:, -1], (2,)),
        (lambda x: layer(x)[0][:, -1, 0], ()),
    ):
        explainer = deepshap.DeepExplainer(model, SERIES_R, progress=False)
        assert explainer.shap_values(SERIES).shape == (3, 5, 3, *shape)
        assert np.shape(explainer.expected_value) == shape
        with torch.no_grad():
            assert np.allclose(explainer.expected_value, model(SERIES_R).mean(0).numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("model", "output"),
    [
        (lambda x: (x.exp(), x.tanh()), 1),
        (lambda x: {"a": x.exp(), "b": x.tanh()}, "b"),
        (lambda x: (x.exp(), [x, {"b": x.tanh()}]), (1, 1, "b")),
        (lambda x: {"a": x.exp(), "b": x.tanh()}, lambda result: result["b"]),
        (lambda x: (x.tanh(),), None),
    ],
    ids=["index", "key", "path", "function", "single"],
)
def test_models_with_several_outputs(model, output):
    assert_close(values(model, R, X, output=output), values(torch.tanh, R, X))


def test_outputs_that_are_not_explained_may_be_anything():
    model = built(Outputs())
    assert_close(values(model, R, X, output="logits"), values(model.linear, R, X))


def test_ranked_outputs_are_those_of_the_full_explanation():
    model = mlp(5)
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    found, indexes = explainer.shap_values(X, ranked_outputs=2)
    assert found.shape == (3, 4, 2)
    assert np.array_equal(indexes, model(X).argsort(1, descending=True)[:, :2].numpy())
    assert_close(found, np.take_along_axis(explainer.shap_values(X), indexes[:, None], 2))


# ---------------------------------------------------------------------- the explanation object
def test_explanation():
    model, lengths = built(Packed("LSTM")), torch.tensor([2, 5, 3])
    names = {"feature_names": ["a", "b", "c"], "output_names": ["u", "v"]}
    explainer = deepshap.DeepExplainer(model, SERIES_R, progress=False, output=lambda h: h[:, 0], **names)
    explanation = explainer(SERIES, additional_forward_args=(lengths,))
    assert isinstance(explanation, shap.Explanation)
    assert explanation.values.shape == (3, 5, 3, 2)
    assert np.array_equal(explanation.data, SERIES.numpy())
    assert explanation.feature_names == names["feature_names"]
    assert explanation.output_names == names["output_names"]
    with torch.no_grad():
        expected = [model(SERIES_R, n.repeat(4))[:, 0].mean(0).numpy() for n in lengths]
        outputs = model(SERIES, lengths)[:, 0].numpy()
    assert_close(explanation.base_values, np.stack(expected))
    assert_close(explanation.values.sum((1, 2)) + explanation.base_values, outputs)


def test_an_explanation_for_each_of_several_inputs():
    model = built(Inputs())
    explainer = deepshap.DeepExplainer(model, [SERIES_R, R[:4]], progress=False)
    series, static = explainer([SERIES, X])
    for explanation, rows in ((series, SERIES), (static, X)):
        assert isinstance(explanation, shap.Explanation)
        assert explanation.values.shape == (*rows.shape, 2)
        assert np.array_equal(explanation.data, rows.numpy())
    total = series.values.sum((1, 2)) + static.values.sum(1) + series.base_values
    assert_close(total, model(SERIES, X).detach().numpy())


def test_an_explanation_for_each_of_several_named_inputs():
    background, rows = {"series": SERIES_R, "static": R[:4]}, {"series": SERIES, "static": X}
    found = deepshap.DeepExplainer(built(Inputs()), background, progress=False)(rows)
    assert {name: e.values.shape for name, e in found.items()} == {"series": (3, 5, 3, 2), "static": (3, 4, 2)}


def test_explanations_feed_shaps_plots():
    explanation = deepshap.DeepExplainer(mlp(), R, progress=False)(X)
    one = explanation[0, :, 1]
    assert one.values.shape == (4,)
    assert_close(one.values.sum() + one.base_values, mlp()(X)[0, 1].detach().numpy())
    assert explanation[..., 0].abs.mean(0).values.shape == (4,)


# ---------------------------------------------------------------------- kinds of models
def test_partials_methods_and_functions():
    model = mlp()
    wanted = values(model, R, X)
    for other in (functools.partial(model), model.forward, lambda x: model(x), functools.partial(call, model)):
        assert_close(values(other, R, X), wanted)


def call(model: nn.Module, x: Tensor) -> Tensor:
    """Call a model."""
    return model(x)


def test_a_compiled_model():
    model = mlp()
    assert_close(values(torch.compile(model), R, X), values(model, R, X))


def test_an_exported_model():
    model = mlp()
    rows = torch.export.Dim("rows", min=1, max=100)
    exported = torch.export.export(model, (X,), dynamic_shapes=({0: rows},)).module()
    assert_close(values(exported, R, X), values(model, R, X))


def test_an_exported_recurrent_model():
    model = Chain(built(lstm()), Last())
    rows = torch.export.Dim("rows", min=1, max=100)
    exported = torch.export.export(model, (SERIES,), dynamic_shapes=({0: rows},)).module()
    assert_close(values(exported, SERIES_R, SERIES), values(model, SERIES_R, SERIES))


def test_training_mode_is_left_and_taken_up_again():
    model = built(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Linear(3, 2)))
    wanted = values(model, R, X)
    model.train()
    model[3].eval()
    before = snapshot(model)
    assert_close(values(model, R, X), wanted)
    assert snapshot(model) == before
    assert [module.training for module in model] == [True, True, True, False]


def test_gradients_and_hooks_of_the_user_stay():
    model = mlp()
    model(X).sum().backward()
    gradient = model[0].weight.grad.clone()
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    rows = X.clone().requires_grad_()
    wanted = values(mlp(), R, X)
    assert_close(values(model, R, rows), wanted)
    assert torch.equal(model[0].weight.grad, gradient)
    assert rows.grad is None
    assert rows.requires_grad
    assert calls
    assert len(model[1]._forward_hooks) == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_inside_any_gradient_mode(mode):
    model = mlp()
    wanted = values(model, R, X)
    with mode():
        assert_close(values(model, R, X), wanted)


def test_frozen_and_shared_parameters():
    model = mlp()
    wanted = values(model, R, X)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert_close(values(nn.Sequential(model, nn.Identity()), R, X), wanted)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)], ids=str)
def test_low_precision(dtype, error):
    model = Chain(built(lstm()), Last(), nn.Tanh())
    wanted = values(model, SERIES_R, SERIES)
    assert_close(values(model.to(dtype), SERIES_R.to(dtype), SERIES.to(dtype)).astype(np.float64), wanted, error)


# ---------------------------------------------------------------------- memory, progress, additivity
@pytest.mark.parametrize("budget", [2**63, 30_000, "40 KB", "1 MB", "2GiB", None])
def test_memory_budgets_change_nothing_else(budget):
    model = Chain(built(nn.LSTM(3, 4, num_layers=2, batch_first=True)), Last())
    background, rows = drawn(23, 5, 3, seed=5), drawn(11, 5, 3, seed=6)
    assert_close(values(model, background, rows, max_memory=budget), values(model, background, rows))


def test_progress_bar(capsys):
    explainer = deepshap.DeepExplainer(mlp(), R, progress=True)
    explainer.shap_values(X)
    assert "15/15" in capsys.readouterr().err
    deepshap.DeepExplainer(mlp(), R, progress=False).shap_values(X)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("patience", "shown"), [(-1.0, True), (1000.0, False)])
def test_a_bar_comes_by_itself_where_a_call_takes_long(patience, shown, capsys, monkeypatch):
    monkeypatch.setattr(attribution, "PATIENCE", patience)
    deepshap.DeepExplainer(mlp(), R).shap_values(X)
    assert ("/15" in capsys.readouterr().err) == shown


def test_an_explainer_can_be_used_again():
    explainer = deepshap.DeepExplainer(mlp(), R, progress=False)
    first = explainer.shap_values(X)
    explainer.shap_values(drawn(2, 4, seed=9))
    assert np.array_equal(explainer.shap_values(X), first)


def test_changed_weights_are_seen():
    model = mlp()
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    explainer.shap_values(X)
    with torch.no_grad():
        model[4].weight *= 2
    found = explainer.shap_values(X)
    assert_close(found, values(model, R, X))
    with torch.no_grad():
        model[4].weight /= 2


def test_the_users_tensors_are_not_written_to():
    rows, references = X.clone(), R.clone()
    values(lambda x: x.tanh_() * 2, references, rows)
    assert torch.equal(rows, X)
    assert torch.equal(references, R)
