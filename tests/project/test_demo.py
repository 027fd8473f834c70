"""A small run of the demo: its tables hold true explanations, its pictures can be seen."""

import json
import re

import matplotlib.image
import numpy as np
import pyarrow.parquet
import pytest
import torch

import deepshap
from deepshap.datasets import JapaneseVowels, demo, japanese_vowels

pytestmark = pytest.mark.slow

COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    demo.main(folder, utterances=COUNT, background=9)
    return folder


@pytest.fixture(scope="module")
def model():
    return demo.train(japanese_vowels().train, seed=0)


@torch.no_grad()
def log_odds(model, signal, lengths):
    """What the model says (N, 9)."""
    return model(torch.as_tensor(signal), torch.as_tensor(lengths)).numpy()


def table(path):
    return {name: column.to_numpy() for name, column in zip(*_columns(path), strict=True)}


def _columns(path):
    read = pyarrow.parquet.read_table(path)
    return read.column_names, read.columns


def test_attributions_add_up_to_the_difference_of_the_log_odds(folder):
    attributions, utterances = table(folder / "attributions.parquet"), table(folder / "utterances.parquet")
    sums = np.bincount(attributions["row"], weights=attributions["attribution"])
    difference = utterances["log_odds"] - utterances["base"]
    assert np.abs(difference).min() > 1
    np.testing.assert_allclose(sums, difference, rtol=1e-5)


def test_the_table_holds_every_frame_and_no_padding(folder):
    attributions, test = table(folder / "attributions.parquet"), japanese_vowels().test
    assert len(attributions["row"]) == test.lengths[:COUNT].sum() * 12
    frames = (attributions["step"] / JapaneseVowels.FRAME_SHIFT_MS).round().astype(int)
    assert (frames < test.lengths[attributions["row"]]).all()
    channels = np.array([int(name.split()[-1]) for name in attributions["feature"]])
    np.testing.assert_array_equal(attributions["value"], test.signal[attributions["row"], frames, channels - 1])


def test_the_table_is_an_explanation(folder):
    found, test = deepshap.load(folder / "attributions.parquet"), japanese_vowels().test
    assert found.lengths.tolist() == test.lengths[:COUNT].tolist()
    assert found.targets.tolist() == [f"speaker {k + 1}" for k in test.speaker[:COUNT]]
    utterances = table(folder / "utterances.parquet")
    assert found.explained == "predicted"
    assert (found.predictions.argmax(axis=1) + 1).tolist() == utterances["predicted_speaker"].tolist()
    assert found.gap.max() < 1e-4


def test_the_report_is_there(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Who is speaking, and why?" in page
    meta = json.loads(re.search(r'<script type="application/json" id="meta">(.*?)</script>', page).group(1))
    utterances = table(folder / "utterances.parquet")
    assert meta["predicted"] == [f"speaker {k}" for k in utterances["predicted_speaker"]]
    assert meta["explained"] == "predicted"
    assert meta["timeLabel"] == "time (ms)"
    assert meta["faithfulness"]["rows"] == COUNT
    assert len(page) > 100_000


@pytest.mark.wide
def test_the_same_seed_trains_the_model_that_was_explained(folder, model):
    utterances, test = table(folder / "utterances.parquet"), japanese_vowels().test
    found = log_odds(model, test.signal[:COUNT], test.lengths[:COUNT])
    np.testing.assert_array_equal(utterances["predicted_speaker"], found.argmax(axis=1) + 1)
    np.testing.assert_allclose(utterances["log_odds"], found.max(axis=1), atol=1e-4)


def test_the_model_tells_the_speakers_apart(model):
    test = japanese_vowels().test
    answers = log_odds(model, test.signal, test.lengths).argmax(axis=1)
    assert (answers == test.speaker).mean() > 0.9


def test_padding_gets_exactly_nothing(model):
    vowels = japanese_vowels()
    few = demo.select(vowels.test, slice(4))
    explainer = demo.explainer_of(model, demo.balanced_background(vowels.train, 9, seed=0))
    values = demo.explain(explainer, few).explanation.values
    assert (values[~demo.present(few)] == 0).all()
    assert (values[demo.present(few)] != 0).any(axis=1).all()


def test_the_background_is_balanced_and_has_no_padding():
    background = demo.balanced_background(japanese_vowels().train, 18, seed=3)
    assert background.shape == (18, 29, 12)
    assert (background != 0).any(axis=2).all()
    train = japanese_vowels().train
    first_frames = [np.flatnonzero((train.signal[:, 0] == row[0]).all(axis=1)) for row in background]
    speakers = [train.speaker[match[0]] for match in first_frames]
    assert np.bincount(speakers).tolist() == [2] * 9


def test_the_model_agrees_with_its_explanations(model):
    vowels = japanese_vowels()
    few = demo.select(vowels.test, slice(0, 370, 40))
    explainer = demo.explainer_of(model, demo.balanced_background(vowels.train, 9, seed=0))
    found = demo.check(explainer, few, seed=0)
    answers = log_odds(model, few.signal, few.lengths).max(axis=1)
    for curve in found.deletion.values():
        np.testing.assert_allclose(curve[:, 0], answers, atol=1e-4)
    assert found.removed.tolist() == [count / 12 for count in range(13)]
    assert found.separation.mean() > 0.3
    assert found.gap.max() < 1e-3


def test_pictures_can_be_read(folder):
    names = {path.stem for path in folder.glob("*.png")}
    assert {"utterance", "speakers", "check"} <= names <= {"utterance", "mistake", "speakers", "check"}
    for name in names:
        picture = matplotlib.image.imread(folder / f"{name}.png")
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 0.05
