"""Settings of the dial and players that make no sense are errors that say so."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from games import explainer, reader, rows
from torch import nn

from deepshap.errors import InputError

R, X = rows(3, 4, 2), rows(2, 4, 2, seed=1)
EFFORT = "effort must be a number of at least 1"
TOLERANCE = "tolerance must lie between 0 and 1"
WRONG = [
    ({"effort": 0}, EFFORT),
    ({"effort": 0.99}, EFFORT),
    ({"effort": -3}, EFFORT),
    ({"effort": math.nan}, EFFORT),
    ({"effort": math.inf}, EFFORT),
    ({"effort": "8"}, EFFORT),
    ({"effort": True}, EFFORT),
    ({"effort": None}, EFFORT),
    ({"tolerance": 0.1, "max_effort": 0.5}, "max_effort must be a number of at least 1"),
    ({"tolerance": 0.1, "max_effort": math.inf}, "max_effort must be a number of at least 1"),
    ({"max_effort": 8}, "max_effort= is the most effort for tolerance=, which is missing"),
    ({"effort": 8, "max_effort": 4}, "max_effort= is the most effort for tolerance=, which is missing"),
    ({"max_effort": 64}, "max_effort= is the most effort for tolerance="),
    ({"tolerance": 0}, TOLERANCE),
    ({"tolerance": 1}, TOLERANCE),
    ({"tolerance": -0.1}, TOLERANCE),
    ({"tolerance": math.nan}, TOLERANCE),
    ({"tolerance": "5 %"}, TOLERANCE),
    ({"tolerance": True}, TOLERANCE),
    ({"effort": 2, "tolerance": 0.1}, "effort= or tolerance=, not both"),
    ({"seed": -1}, "seed must be a whole number"),
    ({"seed": 0.5}, "seed must be a whole number"),
    ({"seed": True}, "seed must be a whole number"),
    ({"players": "step"}, "players='step' is none of 'cells', 'steps', 'features'"),
    ({"players": 0}, "a window has at least one step"),
    ({"players": -2}, "a window has at least one step"),
    ({"players": 5}, "longer than the sequences, which have 4"),
    ({"players": True}, "players=True is none of 'cells', .* a window .* or a mapping"),
    ({"players": None}, "players=None is none of 'cells'"),
    ({"players": 2.5}, "players=2.5 is none of 'cells'"),
    ({"players": [0, 1]}, r"players must be whole numbers of one row's shape \(4, 2\), .* one of 'cells'"),
    ({"players": [[0], [1, 2]]}, "players is ragged"),
    ({"players": np.zeros((2, 4), int)}, r"shape \(4, 2\), not int64 of shape \(2, 4\)"),
    ({"players": np.zeros((4, 2))}, r"shape \(4, 2\), not float64"),
    ({"players": np.zeros((4, 2), bool)}, r"shape \(4, 2\), not bool"),
    ({"players": [["wind"], ["rain"]]}, "must be whole numbers of one row's shape"),
    ({"players": {}}, "names no groups"),
    ({"players": {"a": ["snow"]}}, r"'snow', which is not among 2 features named \['wind', 'rain'\]"),
    ({"players": {"a": [2]}}, "names the feature 2"),
    ({"players": {"a": [-3]}}, "names the feature -3"),
    ({"players": {"a": []}}, r"players\['a'\] is empty"),
    ({"players": {"a": ["wind"], "b": [0]}}, "shares cells with another group"),
    ({"players": {"a": np.zeros((4, 2), bool)}}, r"players\['a'\] is empty"),
    ({"players": {"a": np.ones((2, 4), bool)}}, r"has shape \(2, 4\); a row has shape \(4, 2\)"),
    ({"players": {"a": {"series": [0]}}}, "names the input 'series'"),
    ({"players": {"a": 1.5}}, "names the feature 1.5"),
    ({"players": {"a": None}}, "names the feature None"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(options) for options, _ in WRONG])
def test_invalid_options(options, message):
    made = explainer(reader(), R, feature_names=["wind", "rain"])
    with pytest.raises(InputError, match=message):
        made(X, **options)
    with pytest.raises(InputError, match=message):
        made.shap_values(X, **options)


@pytest.mark.parametrize("options", [{"effort": 2}, {"tolerance": 0.1}, {"players": "steps"}])
def test_an_inner_layer_cannot_be_mixed(options):
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    with pytest.raises(InputError, match="those of an inner layer are explained"):
        explainer((model, model[1]), rows(3, 4))(rows(2, 4), **options)


@pytest.mark.parametrize(
    ("players", "message"),
    [
        ({"a": [0]}, "of several inputs say which"),
        ({"a": {2: [0]}}, "names the input 2"),
        ({"a": {1: ["x"]}}, "names the feature 'x'"),
        ([np.zeros((4, 2), int)], "one array of numbers for each of the inputs"),
        (np.zeros((4, 2), int), "one array of numbers for each of the inputs"),
    ],
    ids=["no input", "unknown input", "unknown feature", "too few arrays", "one array"],
)
def test_nonsense_of_several_inputs(players, message):
    model = reader()
    made = explainer(lambda a, b: model(a) * b, [R, rows(3, 1)])
    with pytest.raises(InputError, match=message):
        made([X, rows(2, 1)], players=players)


def test_steps_need_a_sequence():
    made = explainer(lambda a, b: (a + b).exp(), [rows(3, 1), rows(3, 1, seed=1)])
    with pytest.raises(InputError, match="players by steps are for sequences"):
        made([rows(2, 1), rows(2, 1)], players="steps")


def test_reliability_needs_a_background_of_rows():
    with pytest.raises(InputError, match="reliability needs a background of rows"):
        explainer(reader(), lambda x: R).reliability(X)


@pytest.mark.parametrize("rows_asked", [0, -1, 1.5, True, "4"])
def test_nonsense_for_reliability(rows_asked):
    with pytest.raises(InputError, match="rows"):
        explainer(reader(), R).reliability(X, rows=rows_asked)


def test_nothing_stays_behind_an_error():
    made = explainer(reader(), R)
    before = made(X, effort=3).values
    for options in ({"effort": 0}, {"players": "x"}):
        with pytest.raises(InputError):
            made(X, **options)
    np.testing.assert_array_equal(made(X, effort=3).values, before)
    assert torch.is_grad_enabled()
