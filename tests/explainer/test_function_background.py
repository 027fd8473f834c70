"""A background that is a function of the example, as shap takes it: the same in both frameworks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers import assert_close
from keras import layers as L
from torch import nn

import deepshap

STEPS, FEATURES, ROWS = 4, 3, 3
X = np.random.default_rng(1).normal(size=(ROWS, STEPS, FEATURES)).astype("float32")
PLACES = np.random.default_rng(2).normal(size=(ROWS, 2)).astype("float32")
NOISE = np.random.default_rng(3).normal(size=(5, STEPS, FEATURES)).astype("float32")


class TorchPair(nn.Module):
    """A sequence and a vector."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(FEATURES, 4, batch_first=True), nn.Linear(6, 2)

    def forward(self, series: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.lstm(series)[0][:, -1], place], 1))


def keras_pair() -> Any:
    """The same in Keras."""
    series, place = keras.Input((STEPS, FEATURES), name="series"), keras.Input((2,), name="place")
    return keras.Model([series, place], L.Dense(2)(L.Concatenate()([L.LSTM(4)(series), place])))


class TorchSingle(nn.Module):
    """A sequence alone."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = TorchPair()

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        return self.pair(series, series[:, 0, :2])


def keras_single() -> Any:
    """The same in Keras."""
    return keras.Sequential([keras.Input((STEPS, FEATURES)), L.LSTM(4), L.Dense(2)])


SINGLE: dict[str, Callable[[], Any]] = {"torch": TorchSingle, "keras": keras_single}
PAIR: dict[str, Callable[[], Any]] = {"torch": TorchPair, "keras": keras_pair}
either = pytest.mark.parametrize("framework", ["torch", "keras"])


def references(series: Any, number: int = 0) -> np.ndarray:
    """As many references as the example says, around its mean."""
    series = np.asarray(series)
    number = number or 2 + int(np.abs(series).sum()) % 3
    return (series.mean() + NOISE[:number]).astype("float32")


def explainer(model: Any, background: Any, **options: Any) -> deepshap.DeepExplainer:
    return deepshap.DeepExplainer(model, background, progress=False, **options)


@either
def test_every_row_is_explained_against_its_own_references(framework):
    model, shapes = SINGLE[framework](), []

    def background(example: list[Any]) -> Any:
        shapes.append([tuple(part.shape) for part in example])
        return references(example[0])

    explanation = explainer(model, background)(X)
    assert shapes == [[(STEPS, FEATURES)]] * ROWS
    for row in range(ROWS):
        alone = explainer(model, references(X[row]))(X[row : row + 1])
        assert_close(explanation.values[row], alone.values[0], 1e-6)
        assert_close(explanation.base_values[row], alone.base_values[0], 1e-6)
    assert len({len(references(x)) for x in X}) > 1
    assert_close(explainer(model, lambda example: [references(example[0])]).shap_values(X), explanation.values, 1e-6)


@either
def test_several_inputs(framework):
    model = PAIR[framework]()
    values = explainer(model, lambda example: [references(example[0], 3), np.tile(example[1], (3, 1)) * 0.5])
    found = values.shap_values([X, PLACES])
    for row in range(ROWS):
        beside = [references(X[row], 3), np.tile(PLACES[row], (3, 1)) * 0.5]
        wanted = explainer(model, beside).shap_values([X[row : row + 1], PLACES[row : row + 1]])
        for part, whole in zip(wanted, found, strict=True):
            assert_close(whole[row], part[0], 1e-6)
    by_name = explainer(model, lambda example: {k: np.stack([v] * 2) * 0.5 for k, v in named(example).items()})
    assert set(by_name.shap_values({"series": X, "place": PLACES})) == {"series", "place"}


def named(example: dict[str, Any]) -> dict[str, np.ndarray]:
    """The inputs of an example by name, as arrays."""
    return {name: np.asarray(value) for name, value in example.items()}


@either
def test_ranked_outputs_chunks_and_what_is_written_down(framework):
    model = SINGLE[framework]()
    whole = explainer(model, lambda example: references(example[0]))
    values, columns = whole.shap_values(X, ranked_outputs=1)
    all_values = whole.shap_values(X)
    assert_close(values[..., 0], np.take_along_axis(all_values, columns[:, None, None, :], -1)[..., 0], 1e-6)
    assert whole(X).background == {"description": "references of its own for each row"}
    with pytest.raises(
        deepshap.InputError, match=r"each explained row has its own base value: explainer\(X\)\.base_values"
    ):
        whole.expected_value  # noqa: B018


@either
def test_errors_say_which_row(framework):
    model = SINGLE[framework]()
    wrong = {
        r"background of row 0 must be a tensor or an array, not a str": lambda _: "x",
        r"rows of X have shape \(4, 3\), rows of the background \(2, 3\)": lambda _: NOISE[:, :2],
        r"background of row 0 is empty": lambda _: NOISE[:0],
        r"background of row 0 has NaN": lambda _: NOISE * np.nan,
        r"background of row 0 must be|background of row 0 is a list": lambda _: [NOISE, NOISE],
    }
    for message, background in wrong.items():
        with pytest.raises(deepshap.InputError, match=message):
            explainer(model, background).shap_values(X)
    with pytest.raises(deepshap.InputError, match="X is empty"):
        explainer(model, lambda _: NOISE).shap_values(X[:0])


@either
def test_it_may_write_to_its_example(framework):
    def background(example: list[Any]) -> np.ndarray:
        (part,) = example
        found = references(part)
        part *= 0
        return found

    model = SINGLE[framework]()
    x = torch.tensor(X) if framework == "torch" else X.copy()
    found = explainer(model, background).shap_values(x)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(found, explainer(model, lambda example: references(example[0])).shap_values(X))
