"""Where the Shapley values are known, or can be counted, the dial finds them."""

from __future__ import annotations

import numpy as np
import pytest
from games import FRAMEWORKS, GAMES, array, called, explainer, misses, operations, reader, rows, shapley_values

from deepshap.sampling.players import Players

ALL = 2.0**8  # the effort at which all coalitions of up to eight players are tried


def play(game, framework, **options):
    ops = operations(framework)
    made = explainer(lambda x: game.call(x, ops), array(framework, [game.reference]))
    return made(array(framework, [game.x]), **options)


# ---------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("name", GAMES)
def test_the_definition_gives_the_closed_forms(name):
    """What other tests compare with: brute force in NumPy."""
    game = GAMES[name]

    def call(x):
        return game.call(x, np)

    found = shapley_values(call, np.array(game.x), np.array([game.reference]), np.arange(3))
    np.testing.assert_allclose(found[:, 0], game.values, atol=1e-12)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", GAMES)
def test_all_coalitions_give_the_closed_forms(name, framework):
    found = play(GAMES[name], framework, effort=ALL)
    np.testing.assert_allclose(found.values[0, :, 0], GAMES[name].values, atol=1e-12)
    np.testing.assert_array_equal(found.standard_errors, 0)
    assert found.method == "Shapley values from all 8 coalitions of 3 players"


@pytest.mark.parametrize("effort", [1, 2, 5])
@pytest.mark.parametrize("name", ["linear", "product of two", "exclusive or, both"])
def test_games_that_the_rules_or_one_order_share_rightly_are_exact_at_every_setting(name, effort):
    """An order and its reverse are exact for all interactions of two players, and so are the rules for one product."""
    found = play(GAMES[name], "torch", effort=effort, players=np.array([0, 1, 2]))
    np.testing.assert_allclose(found.values[0, :, 0], GAMES[name].values, atol=1e-12)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_more_coalitions_than_a_float_can_count(framework):
    """Of 1 100 players two multiply: half of the product belongs to each."""
    x = np.ones((1, 1100))
    made = explainer(lambda x: x[:, :1] * x[:, 1:2] + x[:, 2:3], array(framework, 0 * x))
    found = made(array(framework, x), effort=2)
    np.testing.assert_allclose(found.values.ravel(), [0.5, 0.5, 1, *np.zeros(1097)], atol=1e-12)


@pytest.mark.parametrize("effort", [2, 30])
def test_a_dummy_gets_nothing_and_the_sum_is_right_at_every_setting(effort):
    def model(x):
        return (x[:, :4].exp().prod(1, keepdim=True) + x[:, 4:5] * x[:, 5:6] * x[:, 6:7]) * 1.0

    found = explainer(model, rows(5, 8))(rows(2, 8, seed=1), effort=effort, players=np.arange(8))
    np.testing.assert_array_equal(found.values[:, 7], 0)
    assert misses(found) < 1e-12


# ---------------------------------------------------------------------- brute force
@pytest.mark.parametrize(
    ("players", "groups"),
    [
        ("steps", np.repeat(np.arange(4), 2).reshape(4, 2)),
        ("features", np.tile([0, 1], 4).reshape(4, 2)),
        ("cells", np.arange(8).reshape(4, 2)),
        (3, np.repeat([0, 0, 0, 1], 2).reshape(4, 2)),
    ],
)
def test_everything_tried_is_brute_force(players, groups):
    model, R, X = reader(scale=2), rows(3, 4, 2), rows(2, 4, 2, seed=1)
    found = explainer(model, R)(X, players=players, effort=ALL)
    for x, values in zip(X.numpy(), found.values, strict=True):
        wanted = shapley_values(called(model), x, R.numpy(), groups)
        np.testing.assert_allclose(values.reshape(wanted.shape), wanted, atol=1e-12)
    assert found.method.startswith("Shapley values from all")
    np.testing.assert_array_equal(found.standard_errors, 0)


def test_everything_tried_of_some_outputs():
    model, R, X = reader(scale=2), rows(3, 4, 2), rows(3, 4, 2, seed=1)
    whole = explainer(model, R)(X, players="steps", effort=ALL)
    values, columns = explainer(model, R).shap_values(X, players="steps", effort=ALL, ranked_outputs=1)
    np.testing.assert_allclose(values, np.take_along_axis(whole.values, columns[:, None], 2), atol=1e-13)


def test_everything_tried_against_a_function_as_background():
    model, X = reader(scale=2), rows(2, 4, 2, seed=1)
    own = [rows(3, 4, 2, seed=5), rows(2, 4, 2, seed=6)]
    found = explainer(model, lambda x: own[0] if np.array_equal(x[0], X[0]) else own[1])(X, players="steps", effort=ALL)
    groups = np.repeat(np.arange(4), 2).reshape(4, 2)
    for x, R, values in zip(X.numpy(), own, found.values, strict=True):
        np.testing.assert_allclose(values, shapley_values(called(model), x, R.numpy(), groups), atol=1e-12)


def test_players_sum_what_their_cells_contribute():
    numbers = np.array([[0, 1], [2, 0]])
    values = np.random.default_rng(0).normal(size=(3, 2, 2, 5))
    found = Players((numbers,), ("a", "b", "c"), "groups").summed([values])
    wanted = [values[:, 0, 0] + values[:, 1, 1], values[:, 0, 1], values[:, 1, 0]]
    np.testing.assert_allclose(found, np.stack(wanted, 1), atol=1e-15)
