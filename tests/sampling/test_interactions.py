"""Games and interactions: against Shapley's definition, computed from every coalition by hand."""

from __future__ import annotations

import itertools
import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
import shapiq
import torch

import deepshap
import deepshap.plots

matplotlib.use("Agg")
GENERATOR = np.random.default_rng(0)
X, BACKGROUND = (torch.from_numpy(GENERATOR.normal(size=(n, 5, 4))) for n in (3, 6))
NAMES = ["pulse", "pressure", "age", "weight"]


def model(x):
    """Features interact in pairs and in a triple, over all steps."""
    a, b, c, d = x.sum(1).tanh().unbind(1)
    return torch.stack([a * b + 0.5 * b * c * d + d, (a - c).sin()], 1)


def explainer(**options):
    return deepshap.DeepExplainer(model, BACKGROUND, feature_names=NAMES, **options)


def values_by_hand(row):
    """The first output for each coalition of features, averaged over the background."""
    found = {}
    for inside in itertools.product([False, True], repeat=4):
        mixed = torch.where(torch.tensor(inside), X[row], BACKGROUND)
        found[inside] = float(model(mixed)[:, 0].mean())
    return found


def by_hand(row):
    """Shapley values and interaction indices by their definitions."""
    values, count = values_by_hand(row), 4
    shapley, pairs = np.zeros(count), np.zeros((count, count))
    for inside, value in values.items():
        size = sum(inside)
        for i in range(count):
            with_i = tuple(member or k == i for k, member in enumerate(inside))
            if not inside[i]:
                weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
                shapley[i] += weight * (values[with_i] - value)
            for j in range(i + 1, count):
                if inside[i] or inside[j]:
                    continue
                with_j = tuple(member or k == j for k, member in enumerate(inside))
                both = tuple(member or k in (i, j) for k, member in enumerate(inside))
                weight = math.factorial(size) * math.factorial(count - size - 2) / math.factorial(count - 1)
                pairs[i, j] += weight * (values[both] - values[with_i] - values[with_j] + value)
    return shapley, pairs + pairs.T


def test_a_game_has_the_models_values():
    game = explainer().game(X[:1], target=0)
    assert isinstance(game, shapiq.Game)
    values = values_by_hand(0)
    inside = np.array(list(values))
    empty = values[(False,) * 4]
    np.testing.assert_allclose(game(inside), np.array(list(values.values())) - empty, atol=1e-12)
    assert game.base_value == pytest.approx(empty)
    assert game.player_name_lookup == {name: k for k, name in enumerate(NAMES)}


@pytest.mark.parametrize("row", [X[0], X[0].numpy(), X[:1]])
def test_a_row_may_come_without_the_axis_of_rows(row):
    every = np.array(list(itertools.product([False, True], repeat=4)))
    np.testing.assert_allclose(explainer().game(row, target=0)(every), explainer().game(X[:1], target=0)(every))


def test_the_row_of_a_table_is_a_row():
    frame = pd.DataFrame(X[:, 0].numpy(), columns=NAMES)
    on_table = deepshap.DeepExplainer(lambda x: x.prod(1, keepdim=True), frame)
    every = np.array(list(itertools.product([False, True], repeat=4)))
    np.testing.assert_allclose(on_table.game(frame.iloc[1])(every), on_table.game(frame.iloc[1:2])(every))


def test_shapiqs_approximators_run_on_a_game():
    game = explainer().game(X[:1], target=0)
    found = shapiq.KernelSHAP(n=game.n_players, random_state=0).approximate(budget=16, game=game)
    np.testing.assert_allclose(found.get_n_order_values(1), by_hand(0)[0], atol=1e-6)


def test_exact_interactions_are_those_of_the_definition():
    found = explainer().interactions(X, target=0)
    assert found.exact
    assert found.coalitions == 16
    assert found.names == NAMES
    for row, values in enumerate(found.values):
        shapley, pairs = by_hand(row)
        np.testing.assert_allclose(values.sum(1), shapley, atol=1e-10)
        off = ~np.eye(4, dtype=bool)
        np.testing.assert_allclose(values[off], pairs[off] / 2, atol=1e-10)
    np.testing.assert_allclose(found.values.sum((1, 2)), found.outputs - found.base_values, atol=1e-10)
    np.testing.assert_allclose(found.outputs, model(X)[:, 0].numpy())


def test_estimated_interactions_have_honest_errors_and_add_up():
    generator = np.random.default_rng(1)
    x, background = (torch.from_numpy(generator.normal(size=(n, 12))) for n in (1, 4))
    weights = torch.from_numpy(generator.normal(size=(12, 12)))

    def quadratic(z):
        return ((z @ weights) * z).sum(1, keepdim=True)

    found = deepshap.DeepExplainer(quadratic, background).interactions(x, effort=300)
    assert not found.exact
    assert found.coalitions == 900
    expected = np.zeros(
        (12, 12)
    )  # of a product z_i z_j: the product of what both differ by, averaged over the background
    difference = (x - background).numpy()
    for i, j in itertools.combinations(range(12), 2):
        factor = float(weights[i, j] + weights[j, i])
        expected[i, j] = expected[j, i] = factor * (difference[:, i] * difference[:, j]).mean() / 2
    off = ~np.eye(12, dtype=bool)
    distance = np.linalg.norm(found.values[0][off] - expected[off]) / np.linalg.norm(expected[off])
    assert distance < 0.05
    assert distance / 3 < found.relative_error < 3 * distance
    np.testing.assert_allclose(found.values.sum((1, 2)), found.outputs - found.base_values, atol=1e-6)


def test_estimates_that_say_nothing_warn():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(12, 20, generator=generator, dtype=torch.float64)
    explainer = deepshap.DeepExplainer(
        lambda z: (3 * z @ weights).sin().prod(1, keepdim=True), torch.zeros(2, 12).double()
    )
    with pytest.warns(UserWarning, match="standard error of .* of their size"):
        explainer.interactions(torch.ones(1, 12).double(), effort=60)


def test_a_table_and_a_picture():
    found = explainer().interactions(X, target=0)
    table = found.to_dataframe()
    assert list(table.columns) == ["row", "first", "second", "value"]
    sums = table.groupby("row")["value"].sum()
    np.testing.assert_allclose(sums, found.outputs - found.base_values, atol=1e-10)
    pair = table[(table["first"] == "pulse") & (table["second"] == "pressure") & (table["row"] == 1)]["value"]
    np.testing.assert_allclose(pair, 2 * found.values[1, 0, 1])
    assert "all 16 coalitions" in repr(found)
    axes = deepshap.plots.interactions(found, 1)
    drawn = np.ma.filled(axes.collections[0].get_array(), np.nan).reshape(4, 4)
    shown = [NAMES.index(label.get_text()) for label in axes.get_yticklabels()]
    matrix = (found.values[1] * (2 - np.eye(4)))[np.ix_(shown, shown)]
    np.testing.assert_allclose(drawn[np.tri(4, dtype=bool)], matrix[np.tri(4, dtype=bool)])
    assert np.isnan(drawn[0, 1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: explainer().game(X, target=0), "a game is of one row, and X has 3"),
        (lambda: explainer().game(X[:1]), "the model has 2 outputs, and a game has one"),
        (lambda: explainer().interactions(X, target=0, order=3), "order=2"),
        (lambda: explainer().interactions(X, target=0, players="cells", effort=2), "need 422 at least: effort=141"),
        (lambda: explainer().interactions(X, target=0, players={"all": [0, 1, 2, 3]}), "two players"),
        (lambda: deepshap.plots.interactions(explainer().interactions(X, target=0), 7), "there is no row 7 among 3"),
        (lambda: deepshap.DeepExplainer(model, lambda x: BACKGROUND).game(X[:1], target=0), "here it is a function"),
    ],
)
def test_what_a_hurried_user_may_ask_for(call, words):
    with pytest.raises(deepshap.InputError, match=words):
        call()


def test_log_odds_are_a_game_too():
    def classifier(x):
        return model(x).softmax(1)

    found = deepshap.DeepExplainer(classifier, BACKGROUND).interactions(X, target="log-odds of 0")
    values = found.shapley_values
    shapley = (
        deepshap.DeepExplainer(lambda x: model(x)[:, :1] - model(x)[:, 1:], BACKGROUND).interactions(X).shapley_values
    )
    np.testing.assert_allclose(values, shapley, atol=1e-8)
