"""Lengths and masks beside the rows: references run once for all examples that have the same, and as if for every pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import deepshap
from deepshap.engines.torch import engine
from deepshap.engines.torch import engine as engine_module
from deepshap.engines.torch.recurrent import context, fused, layers, loops, sequence

STEPS, FEATURES = 6, 3


class Packed(nn.Module):
    """Packs, or runs over the padding; reads the last hidden state, or the mean over what was packed."""

    def __init__(self, kind="LSTM", read="last", sort=False, **options):
        super().__init__()
        self.recurrent = getattr(nn, kind)(FEATURES, 4, batch_first=True, **options)
        width = options.get("proj_size") or 4
        self.head, self.read, self.sort = nn.Linear(width * (1 + options.get("bidirectional", 0)), 2), read, sort

    def forward(self, x, lengths):
        if self.read == "step":
            return self.head(self.recurrent(x)[0][torch.arange(len(x)), lengths - 1])
        output, last = self.recurrent(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=self.sort))
        if self.read == "mean":
            return self.head(torch.tanh(pad_packed_sequence(output, batch_first=True, total_length=STEPS)[0]).mean(1))
        last = last[0] if isinstance(last, tuple) else last
        return self.head(last.transpose(0, 1).flatten(1)[:, -self.head.in_features :])


class Masked(nn.Module):
    """Attention, with a mask for each row."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)
        self.embed = nn.Linear(FEATURES, 4)

    def forward(self, x, padding):
        h = self.embed(x)
        return self.head(self.attention(h, h, h, key_padding_mask=padding, need_weights=False)[0].mean(1))


MODELS = {
    "LSTM": Packed(),
    "GRU": Packed("GRU"),
    "RNN": Packed("RNN"),
    "two layers": Packed(num_layers=2),
    "two layers of GRU": Packed("GRU", num_layers=2),
    "both ways": Packed(bidirectional=True),
    "projected": Packed(proj_size=2),
    "what was packed": Packed(read="mean"),
    "over the padding": Packed(read="step"),
    "over the padding, GRU": Packed("GRU", read="step"),
}


@pytest.fixture
def crossed_runs(monkeypatch):
    """Count the examples of every crossed run."""
    sizes, original = [], engine_module.TorchEngine._all_pairs

    def all_pairs(engine, comparison, *rest):
        sizes.append(len(comparison.examples))
        return original(engine, comparison, *rest)

    monkeypatch.setattr(engine_module.TorchEngine, "_all_pairs", all_pairs)
    return sizes


@pytest.fixture
def groups(crossed_runs, monkeypatch):
    """Group wherever that is possible."""
    monkeypatch.setattr(engine_module, "is_faster_at_once", lambda *_: False)
    return crossed_runs


@pytest.fixture
def rows_run(monkeypatch):
    """Count the rows of the first step of every run of recurrent layers."""
    counts, original = [], sequence.run

    def run(levels, x, states, steps):
        counts.append(steps.rows)
        return original(levels, x, states, steps)

    def build_traces(steps):
        counts.extend(len(x) for x, *_ in steps.operands[len(steps.traces) :])
        original_build(steps)

    for module in (context, layers):
        monkeypatch.setattr(module, "run", run)
    original_build = loops.CellSequence.build_traces
    monkeypatch.setattr(loops.CellSequence, "build_traces", build_traces)
    return counts


LENGTHS = torch.tensor([4, 6, 2, 4, 1, 6, 4])


@pytest.mark.parametrize("compiled", [True, False], ids=["by kernels", "step by step"])
@pytest.mark.parametrize("name", MODELS)
def test_pairs_share_what_is_alike(name, compiled, rows_run, monkeypatch):
    """Each example and each reference runs once, and each pair stops at its own end: as if they were cut there."""
    monkeypatch.setattr(fused.THRESHOLD, "threshold", 0 if compiled else np.inf)
    torch.manual_seed(0)
    model = MODELS[name].double()
    background, x = (torch.randn(rows, STEPS, FEATURES, dtype=torch.float64) for rows in (11, 7))
    explainer = deepshap.DeepExplainer(model, background)
    explainer.shap_values(x, additional_forward_args=(LENGTHS,))
    rows_run.clear()
    found = explainer.shap_values(x, additional_forward_args=(LENGTHS,))
    assert max(rows_run) == (77 if name == "both ways" else 11)  # backwards, references begin where examples end
    assert rows_run.count(7) == 1
    for row, (values, length) in enumerate(zip(found, LENGTHS.tolist(), strict=True)):
        cut = deepshap.DeepExplainer(model, background[:, :length])
        alone = cut.shap_values(x[row : row + 1, :length], additional_forward_args=(LENGTHS[row : row + 1],))
        np.testing.assert_allclose(values[:length], alone[0], rtol=0, atol=1e-14)
        assert np.all(values[length:] == 0)


def rows_of_a_call(make, rows_run):
    """Of the first steps that run in a second call, which explains each row as it is by itself."""
    torch.manual_seed(0)
    model = make().double()
    background, x = (torch.randn(rows, STEPS, FEATURES, dtype=torch.float64) for rows in (11, 7))
    explainer = deepshap.DeepExplainer(model, background)
    explainer.shap_values(x, additional_forward_args=(LENGTHS,))
    rows_run.clear()
    found = explainer.shap_values(x, additional_forward_args=(LENGTHS,))
    counts = sorted(set(rows_run))
    alone = [explainer.shap_values(x[k : k + 1], additional_forward_args=(LENGTHS[k : k + 1],))[0] for k in range(7)]
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-14)
    return counts


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_cells_share_what_is_alike(kind, rows_run):
    """A loop over the steps that each row has, by a mask."""

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = getattr(nn, f"{kind}Cell")(FEATURES, 4), nn.Linear(4, 1)

        def forward(self, x, lengths):
            state, read = None, 0
            for t, step in enumerate(x.unbind(1)):
                state = self.cell(step, state)
                h = state[0] if isinstance(state, tuple) else state
                read = read + h * (lengths == t + 1).to(h)[:, None]
            return self.head(read)

    assert rows_of_a_call(Loop, rows_run) == [7, 11]


def test_rows_that_only_seem_alike_run_by_themselves(rows_run):
    """What is read differs by the row arguments."""

    class Scaled(Packed):
        def forward(self, x, lengths):
            return super().forward(x * lengths[:, None, None], lengths)

    assert rows_of_a_call(Scaled, rows_run) == [7, 77]


def pairwise(model, background, x, given):
    """By runs on all pairs."""
    explainer = deepshap.DeepExplainer(model, background)
    explainer.engine._by_arguments = lambda *_: None
    return explainer.shap_values(x, additional_forward_args=given)


@pytest.mark.parametrize("name", MODELS)
def test_groups_are_as_all_pairs(name, groups):
    torch.manual_seed(0)
    model = MODELS[name].double()
    background, x = (torch.randn(rows, STEPS, FEATURES, dtype=torch.float64) for rows in (20, 7))
    lengths = torch.tensor([4, 6, 2, 4, 1, 6, 4])
    wanted = pairwise(model, background, x, (lengths,))
    assert groups == []
    found = deepshap.DeepExplainer(model, background).shap_values(x, additional_forward_args=(lengths,))
    assert groups[-4:] == [2, 3, 1, 1]  # the longest first
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)
    assert np.all(found[2, 2:] == 0)


def test_masks(groups):
    torch.manual_seed(0)
    model = Masked().double()
    background, x = (torch.randn(rows, STEPS, FEATURES, dtype=torch.float64) for rows in (5, 6))
    padding = torch.arange(STEPS) >= torch.tensor([4, 6, 2, 4, 3, 6])[:, None]
    wanted = pairwise(model, background, x, (padding,))
    found = deepshap.DeepExplainer(model, background).shap_values(x, additional_forward_args=(padding,))
    assert sorted(groups[-4:]) == [1, 1, 2, 2]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)


def test_as_many_examples_as_references(groups):
    """Rows are found by their numbers, which must not be equal."""
    torch.manual_seed(0)
    model = MODELS["LSTM"].double()
    background, x = (torch.randn(4, STEPS, FEATURES, dtype=torch.float64) for _ in range(2))
    lengths = torch.full((4,), 5)
    wanted = pairwise(model, background, x, (lengths,))
    found = deepshap.DeepExplainer(model, background).shap_values(x, additional_forward_args=(lengths,))
    assert groups[-2:] == [2, 2]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)


def test_references_run_once_to_the_longest_end(groups, monkeypatch):
    torch.manual_seed(0)
    steps, original = [], sequence.run
    monkeypatch.setattr(
        context, "run", lambda levels, x, states, s: steps.append(len(x)) or original(levels, x, states, s)
    )
    model, background = MODELS["LSTM"].float(), torch.randn(20, STEPS, FEATURES)
    explainer = deepshap.DeepExplainer(model, background)
    given = (torch.tensor([2, 5, 3]),)
    explainer.shap_values(torch.randn(3, STEPS, FEATURES), additional_forward_args=given)
    steps.clear()
    explainer.shap_values(torch.randn(3, STEPS, FEATURES), additional_forward_args=given)
    assert [n for n in steps if n % 20 == 0] == [20 * 5]


def test_a_run_that_was_overwritten_begins_none(groups):
    """A model that scales its own input in place after the layer has read it."""

    class Scaling(Packed):
        def forward(self, x, lengths):
            x = x * 1.0
            answer = super().forward(x, lengths)
            x.mul_(0.5)
            return answer + x.mean((1, 2))[:, None]

    torch.manual_seed(0)
    model = Scaling(read="step").double()
    background, x = (torch.randn(rows, STEPS, FEATURES, dtype=torch.float64) for rows in (20, 3))
    lengths = torch.tensor([4, 6, 2])
    wanted = pairwise(model, background, x, (lengths,))
    found = deepshap.DeepExplainer(model, background).shap_values(x, additional_forward_args=(lengths,))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)


def test_rows_that_end_together_stay_in_place(groups):
    """More than sixteen of them torch's sort would mix, and each side in its own way."""
    torch.manual_seed(0)
    model = MODELS["LSTM"].double()
    background, x = (torch.randn(rows, STEPS, FEATURES, dtype=torch.float64) for rows in (70, 40))
    lengths = torch.full((40,), 5)
    found = deepshap.DeepExplainer(model, background).shap_values(x, additional_forward_args=(lengths,))
    assert groups[-1] == 40
    some = pairwise(model, background, x[:2], (lengths[:2],))
    np.testing.assert_allclose(found[:2], some, rtol=0, atol=1e-14)


def test_a_model_that_moves_rows_by_arguments_is_run_on_all_pairs(groups):
    """Sums tell where rows are not where they seem to be."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(FEATURES, 4), nn.Linear(4, 1)

        def forward(self, x, lengths):
            order = torch.arange(len(x) - 1, -1, -1)
            hidden = torch.tanh(self.one(x[order, lengths[order] - 1]))
            return self.two(hidden)[order]

    torch.manual_seed(0)
    model = Turned().double()
    background, x = (torch.randn(rows, STEPS, FEATURES, dtype=torch.float64) for rows in (5, 3))
    lengths = torch.tensor([4, 4, 2])
    wanted = pairwise(model, background, x, (lengths,))
    explainer = deepshap.DeepExplainer(model, background)
    found = explainer.shap_values(x, additional_forward_args=(lengths,))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)
    assert explainer.engine._needs_aligned_pairs


@pytest.mark.parametrize(
    ("memory", "parts", "alone"), [("1 GB", 1, 0), ("200 kB", 5, 0), ("28 kB", 60, 0), ("12 kB", 0, 60)]
)
def test_pairs_of_recurrent_layers_run_together_as_far_as_memory_allows(
    memory, parts, alone, crossed_runs, monkeypatch
):
    """Where not even one example fits with the references of a chunk, they go by their lengths."""
    torch.manual_seed(0)
    runs, original = [], engine_module.TorchEngine._aligned_pairs

    def on_all_pairs(engine, comparison, *rest):
        runs.append(len(comparison.examples))
        return original(engine, comparison, *rest)

    monkeypatch.setattr(engine_module.TorchEngine, "_aligned_pairs", on_all_pairs)
    model, background = MODELS["LSTM"].double(), torch.randn(10, STEPS, FEATURES, dtype=torch.float64)
    x, lengths = torch.randn(30, STEPS, FEATURES, dtype=torch.float64), torch.arange(30) % STEPS + 1
    explainer = deepshap.DeepExplainer(model, background, max_memory=memory)
    explainer.shap_values(x[:1], additional_forward_args=(lengths[:1],))
    runs.clear()
    crossed_runs.clear()
    found = explainer.shap_values(x, additional_forward_args=(lengths,))
    assert (len(runs), len(crossed_runs)) == (parts, alone)
    whole = deepshap.DeepExplainer(model, background).shap_values(x, additional_forward_args=(lengths,))
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-14)


def test_groups_of_rows():
    form = deepshap.DeepExplainer(nn.Linear(2, 1), torch.randn(2, 2)).engine.read_background(torch.zeros(4, 2))
    lengths, masks = torch.tensor([3, 5, 3, 5]), torch.tensor([[0, 1], [1, 1], [0, 1], [1, 0]]).bool()
    points = deepshap.engines.interface.Points(form.form, form.inputs, (lengths, 2.0, masks))
    assert [rows.tolist() for rows in engine.groups_of(points)] == [[1], [3], [0, 2]]
    column = torch.stack([lengths, lengths], 1)[:, 0]  # of a table
    points = deepshap.engines.interface.Points(form.form, form.inputs, (column,))
    assert [rows.tolist() for rows in engine.groups_of(points)] == [[1, 3], [0, 2]]
    nothing = deepshap.engines.interface.Points(form.form, form.inputs, (2.0,))
    assert [rows.tolist() for rows in engine.groups_of(nothing)] == [[0, 1, 2, 3]]
