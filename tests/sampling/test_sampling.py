"""Paths of coalitions: unbiased where they promise it, additive always, and the same numbers for the same seed."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from games import (
    called,
    carried_out,
    explainer,
    keras_twin,
    misses,
    reader,
    rows,
    shapley_values,
    steps_of,
)
from planning import chunks_of
from tiers import mostly_wide

import deepshap
from deepshap.engines.interface import Comparison
from deepshap.sampling import Paths, Players, Sweeps
from deepshap.sampling.choice import Costs, choose
from deepshap.sampling.coalitions import Draws
from deepshap.sampling.paths import cut

STEPS = 6
MODEL = reader(scale=2)
BACKGROUND, X = rows(12, STEPS, 2), rows(3, STEPS, 2, seed=1)


def explained(at=X, made=None, **options):
    return (made or explainer(MODEL, BACKGROUND))(at, **{"effort": 3, "seed": 1} | options)


# ---------------------------------------------------------------------- what is estimated
def of_brute_force(row=0, references=12):
    groups = np.repeat(np.arange(STEPS), 2).reshape(STEPS, 2)
    return shapley_values(called(MODEL), X[row].numpy(), BACKGROUND[:references].numpy(), groups)


@pytest.mark.parametrize(
    "method",
    [
        lambda seed: Paths(steps_of((STEPS, 2)), STEPS, 2, seed, shrinkage=False),
        lambda seed: Sweeps(steps_of((STEPS, 2)), 5, seed),
        lambda seed: Sweeps(steps_of((STEPS, 2)), 7, seed),
    ],
    ids=["some references", "a sweep", "more than a sweep"],
)
def test_single_players_are_unbiased(method):
    made, seeds = explainer(MODEL, BACKGROUND[:5]), range(100)
    with made.frozen():
        found = np.stack([carried_out(made, method(seed), X[:1]).values[0][0] for seed in seeds])
    error = found.std(0, ddof=1) / np.sqrt(len(seeds))
    assert error.min() > 0
    assert (np.abs(found.mean(0) - of_brute_force(references=5)) <= 4 * error).all()


@pytest.mark.parametrize("replicates", [12, 16, 24, 30])
def test_the_noise_that_sweeps_tell_is_that_over_seeds(replicates):
    made, method = explainer(MODEL, BACKGROUND), steps_of((STEPS, 2))
    with made.frozen():
        runs = [carried_out(made, Sweeps(method, replicates, seed), X) for seed in range(30)]
    spread = np.std([run.values[0] for run in runs], axis=0, ddof=1)
    told = np.sqrt(np.mean([run.errors[0] ** 2 for run in runs], axis=0))
    ratio = np.sqrt((told**2).sum() / (spread**2).sum())
    # without a second replicate of any reference it is an upper bound; of four more it is widened
    assert 0.9 <= ratio <= (4 if replicates == 12 else 2)


def test_a_sweep_of_one_reference_and_one_player():
    """Nothing is random then: the player has it all."""
    made = explainer(MODEL, BACKGROUND[:1])
    one = Players((np.zeros((STEPS, 2), int),), ("all",), "groups")
    found = carried_out(made, Sweeps(one, 3), X)
    np.testing.assert_allclose(found.values[0][:, 0], found.outputs - found.expected, atol=1e-12)
    np.testing.assert_allclose(found.errors[0], 0, atol=1e-12)


def test_the_noise_that_paths_tell_is_that_over_seeds():
    made, method = explainer(MODEL, BACKGROUND), steps_of((STEPS, 2))
    with made.frozen():
        runs = [carried_out(made, Paths(method, STEPS, 8, seed, shrinkage=False), X[:1]) for seed in range(40)]
    spread = np.std([run.values[0] for run in runs], axis=0, ddof=1)
    told = np.sqrt(np.mean([run.errors[0] ** 2 for run in runs], axis=0))
    ratio = np.sqrt((told**2).sum() / (spread**2).sum())
    # references are drawn without replacement: 8 of 12 are less noisy than 8 independent ones; widened for 8
    assert 0.8 <= ratio <= 3


def test_one_segment_corrects_nothing():
    """A path of a single segment is Deep SHAP itself, to rounding."""
    made = explainer(MODEL, BACKGROUND)
    found = carried_out(made, Paths(steps_of((STEPS, 2)), 1, 4), X).values[0]
    np.testing.assert_allclose(found, made(X, players="steps").values, atol=1e-12)


def test_more_effort_comes_nearer():
    exact = explained(players="steps", effort=2.0**STEPS).values
    far = [
        np.mean([np.linalg.norm(explained(players="steps", effort=e, seed=s).values - exact) for s in range(3)])
        for e in (1, 4, 12)
    ]
    assert far[0] > 1.5 * far[1] > 1.5 * far[2] > 0


# ---------------------------------------------------------------------- sums
PLAYERS = ("cells", "steps", "features", 4, np.arange(2 * STEPS).reshape(STEPS, 2) % 5, {"first": [0]})


KINDS = pytest.mark.parametrize("players", PLAYERS, ids=["cells", "steps", "features", "window", "array", "names"])


@KINDS
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_values_add_up_at_every_setting(players, dtype, tolerance):
    R, example = (data.numpy().astype(dtype) for data in (BACKGROUND[:4], X[:2]))
    assert_adds_up(explainer(reader(scale=2).to(getattr(torch, dtype)), R), example, players, tolerance)


@pytest.mark.parametrize("players", mostly_wide(PLAYERS[:4], {"cells", 4}))
def test_values_add_up_at_every_setting_in_keras(players):
    assert_adds_up(explainer(keras_twin(MODEL, STEPS), BACKGROUND[:4].numpy()), X[:2].numpy(), players, 1e-12)


def test_values_of_single_precision_add_up_in_keras():
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((STEPS, 2)), keras.layers.LSTM(6), keras.layers.Dense(2)])
    assert_adds_up(explainer(model, BACKGROUND[:4].float().numpy()), X[:2].float().numpy(), "steps", 1e-5)


def assert_adds_up(made, example, players, tolerance):
    with made.frozen():
        for effort in (1, 2, 4, 8, 32):
            found = made(example, effort=effort, players=players)
            assert misses(found) < tolerance, effort
            assert (found.standard_errors is None) == (effort == 1)


# ---------------------------------------------------------------------- seeds
def test_both_engines_draw_and_find_the_same():
    twin = explainer(keras_twin(MODEL, STEPS), BACKGROUND.numpy())
    for options in ({}, {"players": "steps"}, {"players": "features", "effort": 9}):
        mine, other = explained(**options), explained(X.numpy(), twin, **options)
        np.testing.assert_allclose(other.values, mine.values, rtol=0, atol=1e-11)
        np.testing.assert_allclose(other.standard_errors, mine.standard_errors, rtol=0, atol=1e-11)
        assert other.method == mine.method


@pytest.mark.parametrize("players", ["cells", "steps"])
def test_the_same_seed_gives_the_same_numbers_and_another_gives_others(players):
    first, again = explained(players=players), explained(players=players)
    np.testing.assert_array_equal(again.values, first.values)
    np.testing.assert_array_equal(again.standard_errors, first.standard_errors)
    assert np.abs(explained(players=players, seed=2).values - first.values).max() > 1e-3


@pytest.mark.parametrize("players", ["cells", "steps"])
def test_values_do_not_depend_on_other_rows_their_order_or_chunks(players, monkeypatch):
    whole = explained(players=players)
    for order in ([2, 0, 1], [1]):
        part = explained(X[order], players=players)
        np.testing.assert_allclose(part.values, whole.values[order], rtol=0, atol=1e-12)
        np.testing.assert_allclose(part.standard_errors, whole.standard_errors[order], rtol=0, atol=1e-12)
    with chunks_of(2, 3):
        np.testing.assert_allclose(explained(players=players).values, whole.values, rtol=0, atol=1e-12)
    monkeypatch.setattr("deepshap.sampling.coalitions.MOST_POINTS", 5)
    found = explained(players=players)
    np.testing.assert_allclose(found.values, whole.values, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.standard_errors, whole.standard_errors, rtol=0, atol=1e-12)


def test_sweeps_drawn_towards_deep_shap_do_not_depend_on_blocks_of_references():
    method = Sweeps(steps_of((STEPS, 2)), 20, seed=1, shrinkage=True)
    whole = carried_out(explainer(MODEL, BACKGROUND), method, X)
    with chunks_of(2, 3):
        part = carried_out(explainer(MODEL, BACKGROUND), method, X)
    np.testing.assert_allclose(part.values[0], whole.values[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(part.errors[0], whole.errors[0], rtol=0, atol=1e-12)


def test_equal_rows_get_equal_values():
    twice = explained(X[[0, 0]])
    np.testing.assert_allclose(twice.values[0], twice.values[1], rtol=0, atol=1e-13)


def test_rows_draw_orders_and_references_of_their_own():
    drawn = draws()
    assert (drawn.references[0] != drawn.references[1]).any()
    assert (drawn.orders(0, np.arange(3)) != drawn.orders(1, np.arange(3))).any()


def test_every_reference_has_its_turn():
    for row in draws().references:
        assert sorted(row) == list(range(12))


def test_every_player_is_first_equally_often():
    count = np.bincount(draws().orders(0, np.arange(600))[:, 0], minlength=STEPS)
    assert np.abs(count - 100).max() < 4 * np.sqrt(600 * (1 / 6) * (5 / 6))


def draws():
    made = explainer(MODEL, BACKGROUND)
    with made.engine.session():
        examples, background = made.engine.read(X, None, made._background)
    return Draws(Comparison(examples, background, True, np.zeros((len(X), 1), int)), steps_of((STEPS, 2)), 0)


# ---------------------------------------------------------------------- cutting orders
def test_orders_are_cut_at_equal_weights():
    orders = np.array([[3, 1, 0, 2]])
    blocks = cut(orders, np.array([[1.0, 1.0, 6.0, 1.0]]), 2)  # the strong player stands alone
    np.testing.assert_array_equal(blocks, [[0, 0, 1, 0]])
    np.testing.assert_array_equal(cut(orders, np.zeros((1, 4)), 2), [[1, 0, 1, 0]])  # nothing known: by number
    np.testing.assert_array_equal(cut(orders, np.ones((1, 4)), 4), [[2, 1, 3, 0]])


# ---------------------------------------------------------------------- what an effort buys
@pytest.mark.parametrize("noise", [0.25, 1, 8])
@pytest.mark.parametrize(("pair", "output"), [(1.8, 0.37), (4.2, 0.55), (2, 0.05)])
@pytest.mark.parametrize("references", [1, 20, 500])
@pytest.mark.parametrize("count", [2, 6, 50, 150, 2500])
def test_an_effort_is_kept_to_unless_it_is_less_than_the_least(count, references, pair, output, noise):
    """Four replicates of two segments are the least there is to buy."""
    players, pair, output = Players((np.arange(count),)), pair / references, output / references
    costs = Costs(0.5, 0.2, pair, output, noise)
    least = 1.2 + 4 * min(5 * pair, pair + 2 * (count - 1) * output)
    for effort in (2, 8, 32, 64):
        method = choose(effort, players, references, 0, costs)
        if isinstance(method, Sweeps):
            taken = 0.5 + method.shrinkage + method.replicates * 2 * (count - 1) * output
            assert method.replicates >= references + 4
        elif isinstance(method, Paths):
            path = (count - 1) * output if method.by_outputs else pair * method.segments
            taken = 1.2 + method.replicates * (pair + 2 * path)
        else:
            assert 0.5 + 2**count * references * output <= 1.4 * effort
            continue
        assert taken == pytest.approx(method.effort)
        assert taken <= max((1.4 if effort >= 8 else 2) * effort, least) * (1 + 1e-12), method
        assert taken >= 0.7 * effort or taken <= least, method


# ---------------------------------------------------------------------- measured on the model
def measured():
    made = explainer(MODEL, BACKGROUND)
    made._costs = {}
    return made


def test_costs_are_measured_once_and_go_along_with_the_explainer():
    made = measured()
    first = explained(made=made, players="steps")
    (costs,) = made._costs.values()
    for other in (made, pickle.loads(pickle.dumps(made))):
        again = explained(made=other, players="steps")
        assert list(other._costs.values()) == [costs]
        assert again.method == first.method
        np.testing.assert_array_equal(again.values, first.values)


def test_what_is_chosen_does_not_depend_on_the_rows():
    """Beside the clock, which is taken out here: the noise is measured on the background."""
    found = []
    for X_ in (X, 5 * X[:1]):
        made = measured()
        explained(X_, made=made, players="steps")
        (costs,) = made._costs.values()
        found.append(costs.noise)
    assert found[0] == found[1]


@pytest.mark.parametrize("references", [1, 12])
@pytest.mark.parametrize("target", [None, "true"])
def test_effort_of_a_model_that_is_measured_adds_up(references, target):
    made = explainer(MODEL, BACKGROUND[:references])
    made._costs = {}
    truth = {} if target is None else {"targets": np.array([0, 1, 1])}
    for effort in (2, 8):
        found = explained(made=made, effort=effort, target=target, **truth)
        assert misses(found) < 1e-12
    found = made(X, tolerance=0.3, target=target, **truth)
    assert misses(found) < 1e-12


# ---------------------------------------------------------------------- again, by method=
@pytest.mark.parametrize("effort", [1, 3, 8, 200])
@pytest.mark.parametrize("players", ["cells", "steps"])
def test_a_method_is_repeated_by_its_description(players, effort):
    first = explained(players=players, effort=effort)
    again = explainer(MODEL, BACKGROUND)(X[:2], players=players, method=first.method)
    np.testing.assert_allclose(again.values, first.values[:2], rtol=0, atol=1e-12)
    assert again.method.split(", about")[0] == first.method.split(", about")[0]


@pytest.mark.parametrize("text", ["paths", "Deep SHAP; Shapley values from all 4 coalitions of 2 players"])
def test_what_describes_no_method(text):
    with pytest.raises(deepshap.InputError, match="describes no single method for 6 players"):
        explainer(MODEL, BACKGROUND)(X, players="steps", method=text)
