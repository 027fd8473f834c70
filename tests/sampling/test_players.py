"""Players of every kind, for every form of inputs; and what stands behind the end of a sequence never plays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from games import called, explainer, misses, reader, rows, shapley_values
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import deepshap
from deepshap.sampling.players import parse_players

ALL = 2.0**8
STEPS = 4
R, X = rows(3, STEPS, 2), rows(2, STEPS, 2, seed=1)


# ---------------------------------------------------------------------- what a user says of them
@pytest.mark.parametrize(
    ("players", "names", "groups"),
    [
        ("steps", ["Step 0", "Step 1", "Step 2", "Step 3"], [[0, 0], [1, 1], [2, 2], [3, 3]]),
        ("features", ["wind", "rain"], [[0, 1]] * 4),
        (3, ["Steps 0 to 2", "Steps 3 to 3"], [[0, 0], [0, 0], [0, 0], [1, 1]]),
        (np.array([[7, 7], [7, 3], [3, 3], [3, 3]]), ["Group 3", "Group 7"], [[1, 1], [1, 0], [0, 0], [0, 0]]),
        ({"weather": ["rain"]}, ["weather", "others"], [[1, 0]] * 4),
        ({"all": ["rain", 0]}, ["all"], [[0, 0]] * 4),
        (
            {"late": np.array([[False] * 2] * 2 + [[True] * 2] * 2), "wind at 0": np.eye(1, 8).reshape(4, 2) > 0},
            ["late", "wind at 0", "others"],
            [[1, 2], [2, 2], [0, 0], [0, 0]],
        ),
    ],
)
def test_what_a_user_says(players, names, groups):
    model, groups = reader(scale=2), np.array(groups)
    found = explainer(model, R, feature_names=["wind", "rain"])(X, players=players, effort=ALL)
    assert found.feature_names == names
    assert found.values.shape == (2, len(names), 2)
    assert found.players is not None
    for x, values in zip(X.numpy(), found.values, strict=True):
        np.testing.assert_allclose(values, shapley_values(called(model), x, R.numpy(), groups), atol=1e-12)
    means = [[x[groups == g].mean() for g in range(len(names))] for x in X.numpy()]
    np.testing.assert_allclose(found.data, means, atol=1e-12)


@pytest.mark.parametrize(
    ("players", "column", "names"),
    [
        ("steps", "step", ["Step 0", "Step 1", "Step 2", "Step 3"]),
        (2, "window", ["Steps 0 to 1", "Steps 2 to 3"]),
        ("features", "feature", ["wind", "rain"]),
        ({"weather": ["rain"]}, "group", ["weather", "others"]),
    ],
    ids=str,
)
def test_tables_call_players_what_they_are(players, column, names, tmp_path):
    found = explainer(reader(), R, feature_names=["wind", "rain"])(X, players=players, effort=ALL)
    table = found.to_dataframe()
    assert list(table) == ["row", column, "output", "value", "attribution", "standard_error"]
    assert table[column].tolist() == np.tile(np.repeat(names, 2), 2).tolist()
    np.testing.assert_array_equal(table["attribution"], found.values.ravel())
    assert found[:, 1].to_dataframe()[column].unique().tolist() == names[1:2]
    found.save(tmp_path / "found.parquet")
    again = deepshap.load(tmp_path / "found.parquet")
    pd.testing.assert_frame_equal(again.to_dataframe(), table)
    assert pd.read_parquet(tmp_path / "found.parquet")[column].tolist() == table[column].tolist()


def test_deep_shap_by_players_is_the_sum_of_its_cells():
    made = explainer(reader(), R)
    cells = made(X).values
    np.testing.assert_allclose(made(X, players="steps").values, cells.sum(2), atol=1e-13)
    np.testing.assert_allclose(made(X, players="features").values, cells.sum(1), atol=1e-13)


# ---------------------------------------------------------------------- several inputs
class Two(nn.Module):
    """A sequence and a row of features, which interact."""

    def __init__(self):
        super().__init__()
        self.reader = reader(scale=2)

    def forward(self, series, season):
        return self.reader(series) * (1 + season[:, :1] * season[:, 1:])


def brute_of_two(at, groups):
    """Of both inputs as one row of ten numbers."""
    model, flat = Two().double(), lambda a, b: np.concatenate([a.reshape(len(a), -1), b], 1)

    def call(z):
        return called(lambda z: model(z[:, :8].reshape(-1, 4, 2), z[:, 8:]))(z)

    return shapley_values(call, flat(X.numpy(), S.numpy())[at], flat(R.numpy(), SR.numpy()), np.array(groups))


SR, S = rows(3, 2, seed=2), rows(2, 2, seed=3)
OF_SEVERAL = [
    ("steps", [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
    ("features", [0, 1] * 4 + [2, 3]),
    ([np.array([[0, 1]] * 4), np.array([2, 0])], [0, 1] * 4 + [2, 0]),
]


@pytest.mark.parametrize(("players", "groups"), OF_SEVERAL, ids=["steps", "features", "arrays"])
def test_players_may_span_several_inputs(players, groups):
    found = explainer(Two().double(), [R, SR])([X, S], players=players, effort=ALL)
    for at in range(2):
        np.testing.assert_allclose(found.values[at], brute_of_two(at, groups), atol=1e-12)


@pytest.mark.parametrize(
    ("players", "groups"),
    [
        ({"series": np.array([[0, 1]] * 4), "season": np.array([1, 2])}, [0, 1] * 4 + [1, 2]),
        ({"mine": {"series": [0], "season": [1]}, "rest": {"season": [0]}}, [0, 2] * 4 + [1, 0]),
    ],
    ids=["arrays", "names"],
)
def test_players_of_inputs_by_keyword(players, groups):
    model = Two().double()
    made = explainer(lambda series, season: model(series, season), {"series": R, "season": SR})
    found = made({"series": X, "season": S}, players=players, effort=ALL)
    for at in range(2):
        np.testing.assert_allclose(found.values[at], brute_of_two(at, groups), atol=1e-12)


def test_cells_of_several_inputs_keep_their_shapes():
    found = explainer(Two().double(), [R, SR])([X, S], effort=4)
    assert [part.values.shape for _, part in found.items()] == [(2, 4, 2, 2), (2, 2, 2)]
    assert [part.standard_errors.shape for _, part in found.items()] == [(2, 4, 2, 2), (2, 2, 2)]
    assert misses(found) < 1e-12


# ---------------------------------------------------------------------- token ids, time first
def test_token_ids():
    torch.manual_seed(0)
    embedding, body = nn.Embedding(9, 2).double(), reader(scale=2)

    def model(tokens):
        return body(embedding(tokens))

    background, tokens = torch.randint(9, (3, STEPS)), torch.randint(9, (2, STEPS))
    found = explainer(model, background)(tokens, effort=ALL)
    for x, values in zip(tokens.numpy(), found.values, strict=True):
        wanted = shapley_values(called(model), x, background.numpy(), np.arange(STEPS))
        np.testing.assert_allclose(values, wanted, atol=1e-12)
    sampled = explainer(model, background)(tokens, effort=3, players="steps")
    assert misses(sampled) < 1e-12


@pytest.mark.parametrize("options", [{"effort": 3}, {"effort": 3, "players": "steps"}, {"effort": ALL}])
def test_time_first_is_the_same(options):
    model = reader(scale=2)
    first = explainer(lambda x: model(x.transpose(0, 1)), R.transpose(0, 1), batch_axis=1)
    found, wanted = first(X.transpose(0, 1), **options), explainer(model, R)(X, **options)
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-12)
    if "players" not in options:
        values = first.shap_values(X.transpose(0, 1), **options)
        np.testing.assert_allclose(values, np.moveaxis(wanted.values, 0, 1), atol=1e-12)


# ---------------------------------------------------------------------- padding
LENGTHS = torch.tensor([4, 2, 3])
SEQUENCES = rows(3, 4, 2, seed=4)
SETTINGS = [
    {"effort": 3},
    {"effort": 40},
    {"effort": 3, "players": "steps"},
    {"effort": 40, "players": "steps"},
    {"effort": ALL, "players": "steps"},
]


def padded(fill, steps=4):
    """The same sequences, with something else behind their ends, and so many steps in all."""
    wide = torch.cat([SEQUENCES, SEQUENCES.new_zeros(3, steps - 4, 2)], 1)
    return torch.where((torch.arange(steps) < LENGTHS[:, None])[..., None], wide, fill)


def assert_nothing(values, method):
    """Zeros; where differences of outputs tell what players add, rounding of the model's outputs (of about 1)."""
    by_outputs = "permutation" in method or "coalitions" in method
    assert np.abs(values).max() <= (1e-15 if by_outputs else 0)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_padding_never_plays(options):
    made = explainer(reader(scale=2), rows(3, 4, 2))
    found, other = (made(padded(fill), additional_forward_args=(LENGTHS,), **options) for fill in (0.0, 5.0))
    behind = np.arange(4) >= LENGTHS.numpy()[:, None]
    for one in (found, other):
        assert_nothing(one.values[behind], one.method)
        assert_nothing(one.standard_errors[behind], one.method)
    np.testing.assert_allclose(other.values, found.values, rtol=0, atol=1e-12)
    np.testing.assert_allclose(other.standard_errors, found.standard_errors, rtol=0, atol=1e-12)
    assert misses(found) < 1e-12


def test_more_padding_changes_nothing():
    more = torch.cat([rows(3, 4, 2), torch.zeros(3, 3, 2)], 1)
    for options in ({"effort": 3}, {"effort": 3, "players": "steps"}):
        found = explainer(reader(scale=2), rows(3, 4, 2))(padded(0.0), additional_forward_args=(LENGTHS,), **options)
        longer = explainer(reader(scale=2), more)(padded(0.0, 7), additional_forward_args=(LENGTHS,), **options)
        if longer.method == found.method:
            np.testing.assert_allclose(longer.values[:, :4], found.values, rtol=0, atol=1e-12)
        assert_nothing(longer.values[:, 4:], longer.method)


class Packed(nn.Module):
    """Reads a PackedSequence as the same network reads padded ones with their lengths."""

    def __init__(self):
        super().__init__()
        self.reader = reader(scale=2)

    def forward(self, packed):
        out, lengths = pad_packed_sequence(self.reader.lstm(packed)[0], batch_first=True)
        return self.reader.head(out[torch.arange(len(out)), lengths - 1])


def pack(x, lengths):
    return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_packed_sequences_are_as_padded_ones(options):
    made = explainer(Packed(), pack(R, torch.full((3,), STEPS)))
    found = made(pack(padded(0.0), LENGTHS), **options)
    wanted = explainer(reader(scale=2), R)(padded(0.0), additional_forward_args=(LENGTHS,), **options)
    np.testing.assert_allclose(found.values, wanted.values, rtol=0, atol=1e-12)
    alone = made(pack(padded(0.0)[1:2, :2], LENGTHS[1:2]), **options)
    np.testing.assert_allclose(alone.values[0, :2], found.values[1, :2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{"effort": 8}, {"effort": 80}, {"effort": ALL}], ids=str)
@pytest.mark.parametrize("players", ["cells", "steps", 2])
def test_padding_of_packed_sequences_is_exactly_nothing(options, players):
    made = explainer(Packed().float(), pack(R.float(), torch.full((3,), STEPS)))
    found = made(pack(padded(0.0).float(), LENGTHS), players=players, **options)
    each = {"cells": 1, "steps": 1, 2: 2}[players]
    behind = np.arange(0, STEPS, each) >= LENGTHS.numpy()[:, None]
    for one in (found.values, found.standard_errors, *(found.replicates if found.replicates is not None else [])):
        assert not one[behind].any()
        assert one[~behind].any(-1).all() or one is found.standard_errors
    assert misses(found) < 1e-6
    if players == "cells":
        assert found.lengths.tolist() == LENGTHS.tolist()
    values = made.shap_values(pack(padded(0.0).float(), LENGTHS), players=players, **options)
    np.testing.assert_array_equal(values, found.values)


@pytest.mark.parametrize("options", [{"effort": 8}, {"effort": ALL}], ids=str)
def test_lengths_of_padded_sequences_may_be_said_afterwards(options):
    made = explainer(reader(scale=2).float(), R.float())
    found = made(padded(5.0).float(), additional_forward_args=(LENGTHS,), **options)
    sums = found.values.sum((1, 2), dtype=np.float64)
    found.lengths = LENGTHS.numpy()
    behind = np.arange(STEPS) >= LENGTHS.numpy()[:, None]
    assert not found.values[behind].any()
    assert not found.standard_errors[behind].any()
    np.testing.assert_allclose(found.values.sum((1, 2), dtype=np.float64), sums, atol=1e-7)
    assert misses(found) < 1e-6


# ---------------------------------------------------------------------- numbers
def test_every_cell_has_exactly_one_player():
    shapes, keys, names = [(4, 2), (3,)], ["a", "b"], [None, ["x", "y", "z"]]
    for spec in ("cells", "steps", "features", 2, {"one": {"a": [1], "b": ["z"]}}):
        players = parse_players(spec, shapes, keys, names)
        assert [c.shape for c in players.cells] == shapes
        assert sorted(set(players.flat)) == list(range(players.count))
        assert players.names is None or len(players.names) == players.count
