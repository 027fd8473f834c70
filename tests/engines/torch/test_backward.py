"""Backward passes that take a few references at a time give what one pass over all of them gives, in the memory of a few."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import deepshap
from deepshap.captum import LayerDeepLiftShap
from deepshap.engines.torch import backward, engine
from deepshap.engines.torch.batch_axes import RowSelection
from deepshap.engines.torch.recurrent import cells, context, fused, sequence

STEPS, FEATURES = 6, 3


class Recurrent(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.layer = nn.LSTM(FEATURES, 4, 2, batch_first=True, bidirectional=True, **options)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.read_out = nn.Linear(8, 3)

    def forward(self, x):
        steps = self.layer(x)[0]
        return self.read_out(self.attention(steps, steps, steps)[0].softmax(-1)[:, -1])


class First(nn.Module):
    def forward(self, given):
        return given[0]


class Masked(nn.Module):
    """With a mask and a constant of each row's own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(FEATURES, 4, batch_first=True)

    def forward(self, x, mask, scale):
        steps = self.layer(x)[0].masked_fill(~mask.unsqueeze(-1), 0)
        return torch.tanh((steps * scale[:, None, None]).sum(1))


def convolutions():
    return nn.Sequential(
        nn.Conv1d(STEPS, 5, 2), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)
    )


@pytest.fixture
def passes(monkeypatch):
    """Lets passes be as small as they can be; counts the parts of the references that they took."""
    parts = []
    original = backward.Traced._windows

    def windows(self, width):
        found = original(self, width)
        parts.append([window.stop - window.start for window in found])
        return found

    monkeypatch.setattr(backward.Traced, "_windows", windows)

    def small():
        monkeypatch.setattr(engine, "PASS_BYTES", 1)
        monkeypatch.setattr(engine, "CALL_BYTES", 0)
        parts.clear()

    return small, parts


@pytest.mark.parametrize("examples", [1, 2, 3])
@pytest.mark.parametrize("make", [Recurrent, convolutions], ids=["recurrent", "convolutions"])
def test_a_few_references_at_a_time(make, examples, passes):
    small, parts = passes
    torch.manual_seed(0)
    model, background = make().double().eval(), torch.randn(7, STEPS, FEATURES).double()
    x = torch.randn(examples, STEPS, FEATURES).double()
    whole = deepshap.DeepExplainer(model, background).shap_values(x)
    small()
    found = deepshap.DeepExplainer(model, background).shap_values(x)
    assert len(parts[-1]) > 1
    assert examples not in parts[-1]
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-14)
    with torch.no_grad():
        difference = (model(x) - model(background).mean(0)).numpy()
    np.testing.assert_allclose(found.sum((1, 2)), difference, rtol=0, atol=1e-12)


def test_what_some_references_contribute_is_added_at_once(passes, monkeypatch):
    """Of many outputs it is as large as all that is returned: nothing of it lives until the end."""
    small, parts = passes
    small()
    made, living = [], []
    original = backward.Traced._of_outputs

    def of_outputs(self, *given, **options):
        living.append(sum(one() is not None for one in made))
        found = original(self, *given, **options)
        made.extend(weakref.ref(each) for each in found)
        return found

    monkeypatch.setattr(backward.Traced, "_of_outputs", of_outputs)
    deepshap.DeepExplainer(convolutions(), torch.randn(50, STEPS, FEATURES)).shap_values(
        torch.randn(3, STEPS, FEATURES)
    )
    assert len(parts[-1]) == len(living) == 50
    assert max(living) <= 1


def test_some_rows_of_a_sequence_are_no_copy():
    level = sequence.Level(cells.LSTM, cells.Weights(torch.zeros(8, 3), torch.zeros(8, 2)))
    width = cells.LSTM.width(level.units)
    trace = sequence.Trace(sequence.Steps((5,) * 4), torch.randn(20, 3), torch.randn(20, width))
    part = trace.among(RowSelection(slice(1, 4)))
    assert part.rows is trace.rows
    assert part.inputs is trace.inputs
    rows = trace.rows.unflatten(0, (4, 5))[:, 1:4]
    for t, columns in enumerate(part.columns(level)):
        torch.testing.assert_close(columns, cells.LSTM.split(rows[t]), rtol=0, atol=0)
        torch.testing.assert_close(part.steps.at(part.inputs, t), trace.inputs[5 * t + 1 : 5 * t + 4], rtol=0, atol=0)


def test_a_run_that_no_other_begins_with_is_not_kept(monkeypatch):
    """It would be a second copy of the output of each layer."""
    kept, original = [], context.Run
    monkeypatch.setattr(context, "Run", lambda *given: kept.append(given) or original(*given))
    model = nn.Sequential(nn.LSTM(FEATURES, 4, batch_first=True), First(), nn.Flatten(), nn.Linear(STEPS * 4, 2))
    deepshap.DeepExplainer(model, torch.randn(7, STEPS, FEATURES)).shap_values(torch.randn(3, STEPS, FEATURES))
    assert not kept


@pytest.fixture
def uncollected():
    """Nothing that is in a circle is freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("make", [Recurrent, convolutions], ids=["recurrent", "convolutions"])
def test_a_run_leaves_its_memory_with_its_last_line(make, uncollected, monkeypatch):
    """Else the next one takes as much again, until garbage is collected."""
    steps, original = [], backward.Traced.contributions

    def kept(self, *given):
        steps.extend(map(weakref.ref, self.tracer.tape.records))
        return original(self, *given)

    monkeypatch.setattr(backward.Traced, "contributions", kept)
    explainer = deepshap.DeepExplainer(make().eval(), torch.randn(7, STEPS, FEATURES))
    explainer.shap_values(torch.randn(3, STEPS, FEATURES))
    assert steps
    assert not any(step() is not None for step in steps)


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_input_is_read_a_few_rows_at_a_time(layer, monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(layer(FEATURES, 4, batch_first=True), First(), nn.Flatten(), nn.Linear(STEPS * 4, 2)).double()
    background, x = torch.randn(7, STEPS, FEATURES).double(), torch.randn(3, STEPS, FEATURES).double()
    whole = deepshap.DeepExplainer(model, background).shap_values(x)
    monkeypatch.setattr(cells, "PRODUCT_BYTES", 1)
    found = deepshap.DeepExplainer(model, background).shap_values(x)
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-14)


def test_kernels_get_arrays_without_gaps(passes, monkeypatch):
    """They take others too, but have no vector code for them, and took six times as long."""
    small, parts = passes
    small()
    monkeypatch.setattr(fused.THRESHOLD, "threshold", 0)
    given, original = [], fused.on_cpu.kernel_of

    def kernel_of(*name):
        kernel = original(*name)

        def kept(*arguments):
            given.extend(values for values in arguments if isinstance(values, np.ndarray))
            kernel(*arguments)

        return kept

    monkeypatch.setattr(fused.on_cpu, "kernel_of", kernel_of)
    model = Recurrent().eval()
    deepshap.DeepExplainer(model, torch.randn(7, STEPS, FEATURES)).shap_values(torch.randn(3, STEPS, FEATURES))
    assert set(parts[-1]) == {1}
    assert given
    assert all(values.flags.c_contiguous for values in given)


def test_with_arguments_of_the_rows(passes, monkeypatch):
    monkeypatch.setattr(engine, "is_faster_at_once", lambda *_: False)
    small, parts = passes
    torch.manual_seed(0)
    model, background, x = Masked().double(), torch.randn(60, STEPS, FEATURES).double(), torch.randn(2, STEPS, FEATURES)
    mask = torch.ones(2, STEPS, dtype=torch.bool)
    mask[:, 4:] = False
    given = {"additional_forward_args": (mask, torch.full((2,), 0.5).double())}
    whole = deepshap.DeepExplainer(model, background).shap_values(x.double(), **given)
    small()
    found = deepshap.DeepExplainer(model, background).shap_values(x.double(), **given)
    assert max(map(len, parts)) > 1
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-14)


def test_multipliers_of_pairs_and_what_goes_around_a_layer(passes):
    small, parts = passes
    torch.manual_seed(0)
    inner = nn.Linear(3, 4)

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return torch.tanh(self.inner(x)) @ torch.ones(4, 2).double() + x[:, :2].square()

    model, background, x = Around().double(), torch.randn(7, 3).double(), torch.randn(3, 3).double()

    def explained():
        """Of captum, with multipliers."""
        layer = LayerDeepLiftShap(model, inner, multiply_by_inputs=False)
        return LayerDeepLiftShap(model, inner).attribute(x, background, target=1), layer.attribute(
            x, background, target=1
        )

    whole = explained()
    small()
    found = explained()
    assert len(parts[-1]) > 1
    for one, other in zip(found, whole, strict=True):
        one, other = one.detach(), other.detach()
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-14)
