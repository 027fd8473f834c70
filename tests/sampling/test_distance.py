"""What is said of the values holds: standard errors, tolerance, and how far Deep SHAP is to be trusted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from games import explainer, keras_twin, misses, reader, rows
from torch import nn

import deepshap

STEPS = 6
ALL = 2.0**STEPS
BACKGROUND, X = rows(20, STEPS, 2), rows(4, STEPS, 2, seed=1)


# ---------------------------------------------------------------------- models from 4 % to 100 % off
class Thresholds(nn.Module):
    """An exclusive or of the first two steps, made of soft thresholds, beside a sum of the others."""

    def forward(self, x):
        a, b, *rest = x.sum(2).unbind(1)

        def on(u):
            return torch.sigmoid(6 * u)

        both, none = on(on(a) + on(b) - 1.5), on(0.5 - on(a) - on(b))
        return (both - none + 0.1 * sum(rest)).unsqueeze(1)


MODELS = {
    "weak reader": reader(scale=1.0),
    "thresholds": Thresholds(),
    "strong reader": reader(3, scale=2.5),
    "wild reader": reader(2, scale=4.0),
    "wilder reader": reader(6, scale=6.0),
    "wildest reader": reader(8, scale=10.0),
    "as far as the values": reader(47, scale=8.0),
}


def distance(model):
    """Between Deep SHAP and the Shapley values, root mean square over that of the values; both by steps."""
    made = explainer(model, BACKGROUND)
    exact = made(X, players="steps", effort=ALL).values
    return np.linalg.norm(made(X, players="steps").values - exact) / np.linalg.norm(exact)


@pytest.fixture(scope="module")
def distances():
    return {name: distance(model) for name, model in MODELS.items()}


def test_the_models_are_from_near_to_far(distances):
    found = sorted(distances.values())
    assert found[0] < 0.05
    assert 0.9 < found[-1] < 1.1
    assert sum(0.05 < d < 0.9 for d in found) >= 3


@pytest.mark.parametrize("name", MODELS)
def test_reliability_tells_the_true_distance_and_its_error(name, distances):
    made, true = explainer(MODELS[name], BACKGROUND), distances[name]
    with made.frozen():
        found = [made.reliability(X, players="steps", seed=seed) for seed in range(6)]
    away = np.array([abs(f.distance - true) for f in found])
    errors = np.array([f.error for f in found])
    assert (away <= 2 * errors + 1e-12).mean() >= 0.8
    assert errors.mean() <= max(3 * away.mean(), true)
    assert np.mean([f.distance for f in found]) == pytest.approx(true, rel=0.5)


def test_reliability_in_words():
    near = explainer(MODELS["weak reader"], BACKGROUND).reliability(X, players="steps")
    far = explainer(MODELS["wild reader"], BACKGROUND).reliability(X, players="steps")
    assert near.distance < far.distance
    assert near.effort < far.effort
    assert "Deep SHAP's shares are good to" in near.verdict
    assert "off by" in far.verdict
    assert f"use effort={far.effort:g} to come within 10 %" in far.verdict
    assert f"{100 * (far.distance + far.error):.0f} %" in far.verdict
    assert str(far).startswith(far.verdict)
    assert f"{100 * far.distance:.1f} %" in str(far)
    assert (far.rows, far.references) == (4, 20)


@pytest.mark.parametrize("count", [6, 10])
def test_reliability_counts_what_there_is(count):
    found = explainer(reader(), BACKGROUND[:count]).reliability(X[:3], rows=100, players="steps")
    assert (found.rows, found.references) == (3, count)
    assert str(found).endswith(f"from 3 rows with {count} references each.")


def test_reliability_of_a_linear_model_is_perfect():
    found = explainer(lambda x: x.sum((1, 2)).unsqueeze(1), BACKGROUND).reliability(X, players="steps")
    assert found.distance < 1e-6
    assert found.effort == 1
    assert found.verdict == "Deep SHAP's shares are good to 1 %"


def test_reliability_is_the_same_in_both_engines():
    model = reader(3, scale=2.0)
    mine = explainer(model, BACKGROUND).reliability(X, players="steps", rows=2)
    other = explainer(keras_twin(model, STEPS), BACKGROUND.numpy()).reliability(X.numpy(), players="steps", rows=2)
    assert other.distance == pytest.approx(mine.distance, abs=1e-9)
    assert (other.rows, other.effort) == (2, mine.effort)


# ---------------------------------------------------------------------- standard errors
def test_standard_errors_are_calibrated():
    """benchmarks/calibration.py has the table, for more models and settings."""
    inside, error, told = [], [], []
    for model in (reader(3, scale=2.5), MODELS["thresholds"]):
        made = explainer(model, BACKGROUND)
        with made.frozen():
            exact = made(X, players="steps", effort=ALL).values
            for effort, seed in ((3, 0), (3, 1), (8, 0), (8, 1)):
                found = made(X, players="steps", effort=effort, seed=seed)
                away = np.abs(found.values - exact)
                inside.append(away <= 2 * found.standard_errors + 1e-12)
                error.append(away.mean())
                told.append(found.standard_errors.mean())
    assert np.mean([i.mean() for i in inside]) >= 0.9
    assert np.mean(told) <= 3 * np.mean(error)


# ---------------------------------------------------------------------- tolerance
def test_a_tolerance_is_reached():
    model = reader(3, scale=1.5)
    made = explainer(model, BACKGROUND)
    found = made(X, players="cells", tolerance=0.15, max_effort=300)
    assert found.converged.dtype == bool
    assert found.converged.shape == (4,)
    assert found.converged.all()
    largest = found.standard_errors.reshape(4, -1).max(1) / np.abs(found.values).reshape(4, -1).max(1)
    assert (largest <= 0.15).all()
    assert misses(found) < 1e-12


def test_everything_tried_has_converged():
    found = explainer(reader(3), BACKGROUND)(X, players="steps", tolerance=1e-6, max_effort=ALL)
    assert found.converged.all()
    assert "all 64 coalitions" in found.method
    np.testing.assert_array_equal(found.standard_errors, 0)


def test_a_limit_is_kept_and_told():
    with pytest.warns(UserWarning, match="tolerance=0.0001 was reached by 0 of"):
        found = explainer(reader(3, scale=2.5), BACKGROUND)(X, tolerance=1e-4, max_effort=3)
    assert not found.converged.any()
    assert found.standard_errors.max() > 0
    assert misses(found) < 1e-12


def test_rows_stop_by_themselves():
    """A row that is near is not worked at again, and has the values it has alone."""
    made = explainer(reader(3, scale=1.5), BACKGROUND)
    options = {"tolerance": 0.2, "max_effort": 30, "players": "steps"}
    whole = made(X, **options)
    for row in range(len(X)):
        alone = made(X[row : row + 1], **options)
        np.testing.assert_allclose(alone.values[0], whole.values[row], rtol=0, atol=1e-12)
        assert alone.converged[0] == whole.converged[row]


def test_without_a_tolerance_nothing_is_said_of_it():
    made = explainer(reader(3), BACKGROUND)
    assert made(X).converged is None
    assert made(X).standard_errors is None
    assert made(X, effort=3).converged is None


# ---------------------------------------------------------------------- what becomes of them
def test_errors_survive_tables_files_and_pictures(tmp_path):
    found = explainer(reader(3), BACKGROUND)(X, effort=3, players="features")
    frame = found.to_dataframe()
    np.testing.assert_allclose(np.sort(frame["standard_error"]), np.sort(found.standard_errors.ravel()), atol=1e-12)
    found.save(tmp_path / "file.parquet")
    again = deepshap.load(tmp_path / "file.parquet")
    np.testing.assert_allclose(again.standard_errors, found.standard_errors, atol=1e-7)
    assert (again.method, again.players) == (found.method, found.players)
    axes = deepshap.plots.importance(found.output(0))
    assert axes.containers or axes.collections or axes.lines


# ---------------------------------------------------------------------- few players
def of_three(x):
    return torch.tanh(x[..., 0] * x[..., 1] * x[..., 2]).sum(1, keepdim=True)


def test_few_players_are_all_tried():
    background, examples = rows(20, 8, 3), rows(12, 8, 3, seed=1)
    made = explainer(of_three, background)
    exact = made(examples, players="features", effort=ALL).values
    plain = made(examples, players="features").values
    true = np.linalg.norm(plain - exact) / np.linalg.norm(exact)
    whole = made.reliability(examples, players="features", rows=12)
    assert whole.distance == pytest.approx(true, abs=1e-9)
    assert whole.error < 1e-9
    assert f"Distance to the Shapley values {100 * true:.1f} %, from" in str(whole)
    assert "players" not in whole.verdict
    assert made(examples, players="features", effort=whole.effort).method.startswith("Shapley values from all 8")
    some = made.reliability(examples, players="features")
    assert abs(some.distance - true) <= 2 * some.error


@pytest.mark.parametrize(
    ("distance", "error", "told"),
    [
        (0.02, 0.01, "are good to 3 %"),
        (0.06, 0.03, "are good to 9 %"),
        (0.1, 0.2, "may be off by up to 30 %; this cannot be told from 4 rows: use rows=16"),
        (0.4, 0.1, "are off by 50 %: use effort=8 to come within 10 %"),
    ],
)
def test_verdicts(distance, error, told):
    found = deepshap.sampling.Reliability(distance, error, 4, 20, 8.0, 12)
    assert found.verdict == f"Deep SHAP's shares {told}"
    assert "only" not in str(found)
