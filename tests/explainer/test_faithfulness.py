"""Whether explanations are true of models: against models for which everything is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import deepshap

WEIGHTS = torch.tensor([1.0, 2.0, -3.0, 0.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(5)
    return torch.randn(6, 4).double(), torch.randn(40, 4).double()


@pytest.fixture(scope="module")
def linear(data):
    x, background = data
    explainer = deepshap.DeepExplainer(lambda x: (x @ WEIGHTS)[:, None], background, progress=False)
    return deepshap.faithfulness(explainer, x, references=40)


def test_curves_of_a_linear_model(data, linear):
    """Taking a player away takes exactly its attribution away; the order is that of the attributions."""
    x, background = data
    values = ((x - background.mean(0)) * WEIGHTS).numpy()
    output = (x @ WEIGHTS).numpy()
    np.testing.assert_allclose(linear.attributions, values, atol=1e-12)
    for order, ranked in (("highest first", -values), ("lowest first", values)):
        lost = np.take_along_axis(values, ranked.argsort(1), 1).cumsum(1)
        expected = np.column_stack([output, output[:, None] - lost])
        np.testing.assert_allclose(linear.deletion[order], expected, atol=1e-12)
    np.testing.assert_allclose(linear.removed, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(linear.agreement, 1)
    assert linear.gap.max() < 1e-12
    assert (linear.separation > 0).all()


def test_insertion_is_deletion_from_the_other_end(data, linear):
    _, background = data
    values = linear.attributions
    base = (background @ WEIGHTS).mean().item()
    best = np.sort(values, 1)[:, ::-1].cumsum(1)
    np.testing.assert_allclose(
        linear.insertion["highest first"], np.column_stack([np.full(6, base), base + best]), atol=1e-12
    )


def test_signs_that_another_background_changes(data, linear):
    """Against the normal approximation of the bootstrap, P(mean of a sample < 0) = Phi(-mean / error)."""
    x, background = data
    each = (x[:, None] - background) * WEIGHTS
    error = each.std(1, unbiased=True).numpy() / math.sqrt(40)
    np.testing.assert_allclose(linear.background_errors, error, atol=1e-12)
    values = linear.attributions[:, :3]
    expected = 0.5 * np.vectorize(math.erfc)(np.abs(values) / error[:, :3] / math.sqrt(2))
    np.testing.assert_allclose(linear.sign_changes[:, :3], expected, atol=0.05)
    assert (linear.sign_changes[:, 3] == 0).all()


def test_an_order_that_says_nothing_separates_nothing(data):
    x, background = data
    explainer = deepshap.DeepExplainer(lambda x: ((x**3) @ WEIGHTS)[:, None], background, progress=False)
    good = deepshap.faithfulness(explainer, x)
    assert good.separation.min() > 0.2
    assert good.agreement.min() > 0.999  # of a sum of functions of single inputs
    nothing = replace(good, deletion=dict.fromkeys(good.deletion, good.deletion["in random order"]))
    np.testing.assert_allclose(nothing.separation, 0)
    turned = replace(good, deletion=dict(zip(good.deletion, reversed(good.deletion.values()), strict=True)))
    np.testing.assert_allclose(turned.separation, -good.separation)


class Series(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(packed)[1][0][-1]).softmax(-1)


@pytest.mark.parametrize(("players", "count"), [("features", 3), ("steps", 5), ("cells", 15)])
def test_players_lengths_and_targets(players, count):
    torch.manual_seed(6)
    x, lengths, background = torch.randn(4, 5, 3), torch.tensor([5, 3, 4, 2]), torch.randn(12, 5, 3)
    x[torch.arange(5) >= lengths[:, None]] = 0
    explainer = deepshap.DeepExplainer(Series().eval(), background, progress=False)
    found = deepshap.faithfulness(
        explainer, x, players=players, target="log-odds", additional_forward_args=(lengths,), points=3
    )
    explained = explainer(x, target="log-odds", additional_forward_args=(lengths,))
    sums = {
        "features": explained.values.sum(1),
        "steps": explained.values.sum(2),
        "cells": explained.values.reshape(4, -1),
    }
    np.testing.assert_allclose(found.attributions, sums[players], atol=1e-6)
    assert found.attributions.shape == (4, count)
    np.testing.assert_allclose(found.deletion["highest first"][:, 0], explained.outputs, atol=1e-6)
    np.testing.assert_allclose(found.deletion["lowest first"][:, -1], explained.base_values, atol=1e-6)
    assert found.noise_changes.max() < 0.2


def test_token_ids_get_no_noise_and_are_exchanged_whole():
    torch.manual_seed(7)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2)).eval()
    ids, background = torch.randint(9, (3, 5)), torch.randint(9, (10, 5))
    found = deepshap.faithfulness(deepshap.DeepExplainer(model, background, progress=False), ids)
    assert found.attributions.shape == (3, 5)
    assert np.isnan(found.noise_changes).all()
    assert "noise: there is none" in str(found)
    assert "explanations of predicted, by tokens" in str(found)
    np.testing.assert_allclose(found.agreement, 1, atol=1e-5)


def test_one_reference_tells_nothing_of_others(data):
    x, background = data
    explainer = deepshap.DeepExplainer(lambda x: (x @ WEIGHTS)[:, None], background[:1], progress=False)
    found = deepshap.faithfulness(explainer, x[:1])
    for unknown in (
        found.sign_changes,
        found.doubtful,
        found.background_errors,
        found.noise_changes,
        found.output_changes,
    ):
        assert np.isnan(unknown).all()
    assert "one reference does not tell what others would" in str(found)
    assert "faithfulness of 1 explanation of output 0" in str(found)
    assert "doubtful" not in found.plot().get_title()


def test_several_inputs_share_the_players():
    torch.manual_seed(8)
    a, b = torch.randn(3, 4, 2), torch.randn(3, 3)
    background = [torch.randn(7, 4, 2), torch.randn(7, 3)]
    explainer = deepshap.DeepExplainer(
        lambda a, b: a.sum((1, 2))[:, None] + 2 * b.sum(1, keepdim=True), background, progress=False
    )
    found = deepshap.faithfulness(explainer, [a, b])
    expected = [(a - background[0].mean(0)).sum(1), 2 * (b - background[1].mean(0))]
    np.testing.assert_allclose(found.attributions, torch.cat(expected, 1), atol=1e-5)


def test_the_same_seed_gives_the_same(data, linear):
    x, background = data
    explainer = deepshap.DeepExplainer(lambda x: (x @ WEIGHTS)[:, None], background, progress=False)
    again = deepshap.faithfulness(explainer, x, references=40)
    np.testing.assert_array_equal(again.sign_changes, linear.sign_changes)
    np.testing.assert_array_equal(again.deletion["in random order"], linear.deletion["in random order"])


def test_as_text_table_and_picture(linear):
    assert "another sign" in str(linear)
    assert list(linear.to_dataframe().columns)[:2] == ["separation", "agreement"]
    for option in ({"unit": 3}, {"ax": "x"}):
        with pytest.raises(deepshap.InputError, match=f"^plots.faithfulness: {next(iter(option))} must be"):
            linear.plot(**option)
    ax = linear.plot(unit="°C")
    drawn = {tuple(np.round(line.get_ydata(), 9)) for line in ax.get_lines()}
    assert drawn == {tuple(np.round(curve.mean(0), 9)) for curve in linear.deletion.values()}
    assert {text.get_text() for text in ax.texts} == set(linear.deletion)


def test_what_cannot_be_tried(data):
    x, background = data
    explainer = deepshap.DeepExplainer(nn.Linear(4, 3).double(), background)
    with pytest.raises(deepshap.InputError, match="players must be"):
        deepshap.faithfulness(explainer, x, players="words")
    with pytest.raises(deepshap.InputError, match="one number of each row"):
        deepshap.faithfulness(explainer, x, target=lambda y: y)
    with pytest.raises(deepshap.InputError, match="rows as its background"):
        deepshap.faithfulness(deepshap.DeepExplainer(nn.Linear(4, 3).double(), lambda _: background), x)


def test_rows_along_the_second_axis():
    torch.manual_seed(0)
    lstm, head = nn.LSTM(3, 4), nn.Linear(4, 2)
    rows, background = torch.randn(4, 5, 3), torch.randn(6, 5, 3)

    def steps_first(x):
        return head(lstm(x)[0][-1])

    wanted = deepshap.faithfulness(deepshap.DeepExplainer(lambda x: steps_first(x.transpose(0, 1)), background), rows)
    explainer = deepshap.DeepExplainer(steps_first, background.transpose(0, 1), batch_axis=1)
    found = deepshap.faithfulness(explainer, rows.transpose(0, 1))
    for name in ("noise_changes", "output_changes", "separation", "agreement", "gap"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-3, atol=1e-6)
