"""Names and data travel along: tables in, long form and xarray out, files that give back every bit."""

import base64
import copy
import io
import json
import pickle
import zlib

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import torch
import xarray
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import deepshap
from deepshap.errors import InputError

LENGTHS = np.array([6, 4, 2, 5])
ROWS, STEPS, FEATURES = 4, 6, ["wind", "rain", "sun"]
DAYS = np.arange("2024-02-27", "2024-03-04", dtype="M8[D]")


class Series(nn.Module):
    """An LSTM that reads as many steps as a row has."""

    def __init__(self):
        super().__init__()
        self.net = nn.LSTM(3, 2, batch_first=True)

    def forward(self, x, lengths=None):
        if lengths is not None:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.net(x)[1][0][-1]


class Mixed(nn.Module):
    """Words and a row of numbers."""

    def __init__(self):
        super().__init__()
        self.words, self.net, self.row = nn.Embedding(9, 3), nn.LSTM(3, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, words, row):
        return torch.tanh(self.net(self.words(words))[0][:, -1] + self.row(row))


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Series()


@pytest.fixture(scope="module")
def bare(model):
    names = {"feature_names": FEATURES, "output_names": ["no", "yes"]}
    explainer = deepshap.DeepExplainer(model, drawn(7, STEPS, 3, seed=1), progress=False, **names)
    return explainer(drawn(ROWS, STEPS, 3, seed=2), additional_forward_args=(torch.as_tensor(LENGTHS),))


@pytest.fixture
def explanation(bare):
    full = copy.deepcopy(bare)
    full.row_ids = ["a", "b", "c", "d"]
    full.lengths = LENGTHS
    full.step_labels = DAYS
    full.targets = [1, 0, 1, 1]
    full.display_data = 10 * full.data + 3
    full.background = {"rows": 7, "description": "drawn"}
    return full


@pytest.fixture
def joint():
    torch.manual_seed(3)
    ids = torch.randint(9, (5, STEPS), generator=torch.Generator().manual_seed(1))
    explainer = deepshap.DeepExplainer(Mixed(), [ids, drawn(5, 4, seed=3)], progress=False)
    found = explainer([ids[:3], drawn(3, 4, seed=4)])
    found.row_ids = [7, 3, 5]
    return found


# ---------------------------------------------------------------------- what an explanation carries
def test_outputs_gap_and_background_come_from_the_explainer(bare, model):
    outputs = model(drawn(ROWS, STEPS, 3, seed=2), torch.as_tensor(LENGTHS)).detach().numpy()
    np.testing.assert_allclose(bare.outputs, outputs, atol=1e-7)
    total = bare.values.sum((1, 2), dtype=np.float64) + bare.base_values
    assert np.abs(total - bare.outputs).max() < 1e-6
    assert bare.gap.shape == (ROWS, 2)
    assert (bare.gap < 1e-5).all()
    assert (bare.background, bare.model) == ({"rows": 7}, "Series")
    for name in ("outputs", "gap"):
        with pytest.raises(AttributeError):
            setattr(bare, name, 0)


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_fields_are_copied(explanation, twin):
    assert_same(twin(explanation), explanation)


def test_fields_are_sliced(explanation):
    part = explanation[[2, 0], 1:4, :, 1]
    assert part.row_ids.tolist() == ["c", "a"]
    assert part.lengths.tolist() == [1, 3]
    assert part.step_labels.tolist() == DAYS[1:4].tolist()
    assert part.targets.tolist() == [1, 1]
    np.testing.assert_array_equal(part.display_data, explanation.display_data[[2, 0], 1:4])
    np.testing.assert_array_equal(part.outputs, explanation.outputs[[2, 0], 1])
    np.testing.assert_array_equal(part.gap, explanation.gap[[2, 0], 1])
    one = explanation[1]
    assert (one.row_ids, one.lengths, one.targets) == ("b", 4, 0)
    assert explanation[:, 2].step_labels == DAYS[2]
    assert explanation[:, ::-1].lengths is None  # the padding comes first
    assert explanation[explanation.targets == 0].row_ids.tolist() == ["b"]


def test_targets_of_each_output_travel_along(explanation, tmp_path):
    targets = np.arange(ROWS * 2.0).reshape(ROWS, 2)
    explanation.targets = targets
    assert explanation[1:3].output("yes").targets.tolist() == targets[1:3, 1].tolist()
    assert explanation.over_time()[2].targets.tolist() == targets[2].tolist()
    explanation.save(tmp_path / "why.parquet")
    for again in (deepshap.load(tmp_path / "why.parquet"), deepshap.Explanation.from_xarray(explanation.to_xarray())):
        np.testing.assert_array_equal(again[:, 1:].targets, targets)
    with pytest.raises(InputError, match=r"targets has shape .*; here it must be"):
        explanation.targets = targets[:, :1]


def test_labels_of_each_row_are_sliced_with_it(explanation):
    explanation.step_labels = DAYS + np.arange(ROWS)[:, None]
    assert explanation[2, 1].step_labels == DAYS[1] + 2
    assert explanation[1:3, 4:].step_labels.tolist() == (DAYS[4:] + np.array([[1], [2]])).tolist()
    assert explanation.over_features().feature_names[:2] == ["Step 0", "Step 1"]


def test_sums_keep_what_still_holds(explanation):
    features, steps = explanation.over_time(), explanation.over_features(np.mean)
    for one in (features, steps):
        assert one.row_ids.tolist() == ["a", "b", "c", "d"]
        np.testing.assert_array_equal(one.gap, explanation.gap)
    assert (features.lengths, features.step_labels) == (None, None)
    assert steps.lengths.tolist() == LENGTHS.tolist()
    assert steps.feature_names == [str(day) for day in DAYS]
    for row, length in enumerate(LENGTHS):  # means leave the padding out
        np.testing.assert_allclose(features.data[row], explanation.data[row, :length].mean(0), rtol=1e-6)
        np.testing.assert_allclose(
            features.display_data[row], explanation.display_data[row, :length].mean(0), rtol=1e-6
        )
    np.testing.assert_allclose(steps.display_data, explanation.display_data.mean(2), rtol=1e-6)


def test_arithmetic_forgets_what_no_longer_holds(explanation):
    shifted, mean = explanation + 1, explanation.abs.mean(0)
    assert (shifted.gap, shifted.outputs) == (None, None)
    assert shifted.row_ids is not None
    assert [getattr(mean, name) for name in ("row_ids", "targets", "lengths", "gap", "outputs", "display_data")] == [
        None
    ] * 6
    assert mean.step_labels.tolist() == DAYS.tolist()
    beside = explanation.over_time().hstack(explanation.over_features())
    assert (beside.step_labels, beside.lengths) == (None, None)
    assert beside.row_ids.tolist() == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("row_ids", ["a"], r"row_ids has shape \(1,\); here it must be \(4,\)"),
        ("targets", [[1, 0, 1, 1]], r"targets has shape \(1, 4\)"),
        ("lengths", [6, 6, 6, 7], "whole numbers from 0 to 6"),
        ("lengths", [6.0, 4.0, 2.0, 5.0], "whole numbers"),
        ("lengths", [5, 4, 2, 5], r"up to 0\.\d+: the model reads its padding"),
        ("step_labels", DAYS[:5], r"step_labels has shape \(5,\); here it must be \(6,\)"),
        ("step_labels", [[1, 2], [3]], "step_labels is ragged"),
        ("display_data", np.zeros((4, 6)), r"display_data has shape \(4, 6\); here it must be \(4, 6, 3\)"),
    ],
)
def test_fields_that_do_not_fit_are_refused(explanation, name, value, message):
    before = getattr(explanation, name)
    with pytest.raises(deepshap.InputError, match=message):
        setattr(explanation, name, value)
    assert getattr(explanation, name) is before or np.array_equal(getattr(explanation, name), before)
    setattr(explanation, name, None)
    assert getattr(explanation, name) is None


def estimated(behind, errors=True):
    """Values of two rows of three steps, estimated by differences of outputs, with something behind the second's end."""
    values = np.array([[[1.0, 2.0]] * 3, [[3.0, -4.0], behind, behind]])
    found = deepshap.Explanation(values, np.array([0.5, 2.0]), values)
    found.standard_errors = np.full(values.shape, 0.25) if errors else None
    return found


def test_rounding_behind_the_lengths_goes_to_the_other_steps():
    found = estimated([1e-14, -2e-14])
    found.lengths = [3, 1]
    assert not found.values[1, 1:].any()
    assert not found.standard_errors[1, 1:].any()
    np.testing.assert_array_equal(found.values[0], [[1.0, 2.0]] * 3)
    np.testing.assert_allclose(found.values[1, 0], [3 - 2e-14 * 3 / 7, -4 - 2e-14 * 4 / 7], rtol=1e-15)
    assert found.lengths.tolist() == [3, 1]


@pytest.mark.parametrize(("behind", "errors"), [([1e-13, -1e-13], True), ([1e-15, 0.0], False)])
def test_more_than_rounding_behind_the_lengths_is_refused(behind, errors):
    """And any number where values are not estimated: rules give padding exactly 0."""
    found = estimated(behind, errors)
    with pytest.raises(InputError, match=r"up to 1e-1\d: the model reads its padding"):
        found.lengths = [3, 1]
    assert found.values[1, 1].tolist() == behind
    assert found.lengths is None


def test_labels_of_any_kind(explanation):
    for labels, kind in (
        (pd.date_range("2024-01-01", periods=STEPS), "M"),
        ([pd.Timestamp("2024-01-01 12:30")] * STEPS, "M"),
        (pd.Series(list("abcdef"), dtype="category"), "U"),
        (torch.arange(STEPS), "i"),
        (range(STEPS), "i"),
    ):
        explanation.step_labels = labels
        assert explanation.step_labels.dtype.kind == kind
        assert explanation[0].step_labels.shape == (STEPS,)
    explanation.step_labels = pd.date_range("2024-01-01 06:00", periods=STEPS, freq="6h")
    assert explanation.over_features().feature_names[0] == "2024-01-01 06:00"


def test_a_lone_axis_becomes_steps_when_it_gets_labels(joint):
    words = joint[0]
    words.feature_names = None
    words.step_labels = range(STEPS)
    assert "step" in words.to_dataframe().columns
    assert words[:, 2:].step_labels.tolist() == [2, 3, 4, 5]
    with pytest.raises(deepshap.InputError, match="there are no steps"):
        words[:, 2].step_labels = [1]


def test_a_joint_explanation_shares_what_belongs_to_rows(joint):
    assert joint.row_ids.tolist() == joint[1].row_ids.tolist() == [7, 3, 5]
    joint.targets = ["x", "y", "x"]
    assert joint[0].targets.tolist() == ["x", "y", "x"]
    np.testing.assert_array_equal(joint.gap, joint[1].gap)
    with pytest.raises(deepshap.InputError, match=r"take explanation\[0\]\.step_labels"):
        joint.step_labels = range(STEPS)
    with pytest.raises(AttributeError):
        joint.gap = 1


def test_ranked_outputs_are_named_row_by_row(model):
    explainer = deepshap.DeepExplainer(model, drawn(7, STEPS, 3, seed=1), progress=False, output_names=["no", "yes"])
    x = drawn(ROWS, STEPS, 3, seed=2)
    whole, ranked = explainer(x), explainer(x, ranked_outputs=1)
    top = whole.outputs.argmax(1)
    assert ranked.output_names[:, 0].tolist() == [["no", "yes"][k] for k in top]
    np.testing.assert_allclose(
        ranked.values[..., 0], np.stack([whole.values[i, ..., k] for i, k in enumerate(top)]), atol=1e-7
    )
    np.testing.assert_array_equal(ranked.outputs[:, 0], whole.outputs.max(1))
    lines = ranked.output(0).to_dataframe()
    assert lines.groupby("row")["output"].first().tolist() == ranked.output_names[:, 0].tolist()


# ---------------------------------------------------------------------- tables in
def table(lengths=LENGTHS, seed=0, first="2024-01-01"):
    """A long table whose lines are shuffled, and the arrays that it holds."""
    random = np.random.default_rng(seed)
    arrays = [random.normal(size=(n, 3)) for n in lengths]
    stamps = pd.date_range(first, periods=max(lengths))
    lines = [
        {"place": f"p{i}", "day": stamps[t], **dict(zip(FEATURES, row, strict=True))}
        for i, array in enumerate(arrays)
        for t, row in enumerate(array)
    ]
    return pd.DataFrame(lines), arrays


def test_sequences_from_a_long_table():
    frame, arrays = table()
    found = deepshap.sequences(frame.sample(frac=1, random_state=1), id="place", time="day")
    order = [int(i[1:]) for i in found.row_ids]
    assert found.lengths.tolist() == LENGTHS[order].tolist()
    assert found.feature_names == FEATURES
    for row, i in enumerate(order):
        np.testing.assert_array_equal(found.values[row, : LENGTHS[i]], arrays[i])
        assert (found.values[row, LENGTHS[i] :] == 0).all()
    assert found.step_labels.tolist() == pd.date_range("2024-01-01", periods=6).to_numpy().tolist()
    assert found[[2, 0]].row_ids.tolist() == found.row_ids[[2, 0]].tolist()
    assert (len(found[1]), len(found)) == (1, ROWS)


def test_padding_steps_and_columns_can_be_chosen():
    frame, arrays = table()
    found = deepshap.sequences(frame, "place", "day", ["sun", "wind"], steps=8, pad="last")
    assert found.values.shape == (ROWS, 8, 2)
    np.testing.assert_array_equal(found.values[2, 2:], np.repeat(arrays[2][None, -1][:, [2, 0]], 6, axis=0))
    assert np.isnan(deepshap.sequences(frame, "place", "day", pad=np.nan).values[2, 2:]).all()
    assert deepshap.sequences(frame.drop(columns="day"), "place").step_labels.tolist() == list(range(6))


def test_rows_with_other_times_have_labels_of_their_own():
    frame, _ = table()
    frame.loc[frame.place == "p1", "day"] += pd.Timedelta(days=30)
    found = deepshap.sequences(frame, "place", "day")
    assert found.step_labels.shape == (ROWS, STEPS)
    assert found.step_labels[1, 0] == np.datetime64("2024-01-31")
    assert np.isnat(found.step_labels[1, 4:]).all()
    frame["day"] -= pd.Timestamp("2024-01-01")
    durations = deepshap.sequences(frame, "place", "day").step_labels
    np.testing.assert_array_equal(durations, found.step_labels - np.datetime64("2024-01-01"))


@pytest.mark.parametrize("written", ["%Y-%m-%d", "%Y%m%d", "%Y/%m/%d %H:%M", "%d %b %Y", "%Y-%m-%dT%H:%M:%SZ"])
def test_dates_are_read_as_they_are_written(written):
    frame, _ = table()
    found = deepshap.sequences(frame.assign(day=frame.day.dt.strftime(written)), "place", "day")
    assert found.step_labels.tolist() == deepshap.sequences(frame, "place", "day").step_labels.tolist()


def test_days_before_months_where_they_can_be_nothing_else():
    frame, _ = table()
    frame["day"] += pd.Timedelta(days=9)  # the tenth to the fifteenth
    found = deepshap.sequences(frame.assign(day=frame.day.dt.strftime("%d/%m/%Y")), "place", "day")
    assert found.step_labels.tolist() == deepshap.sequences(frame, "place", "day").step_labels.tolist()


@pytest.mark.parametrize("written", ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y"])
def test_dates_that_can_be_read_in_two_ways_are_refused(written):
    frame, _ = table()
    with pytest.raises(
        deepshap.InputError, match=r"'day' can be read in two ways: '.*2024' is 2024-.*Write year, month"
    ):
        deepshap.sequences(frame.assign(day=frame.day.dt.strftime(written)), "place", "day")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename(columns={"day": "time"}), "no column 'day'; it has place, time, wind"),
        (lambda f: f.assign(sun="bright"), "column 'sun' is .*not numeric"),
        (lambda f: pd.concat([f, f.tail(1)]), "p3 has two lines for day 2024-01-05"),
        (lambda f: f.assign(rain=f.rain.where(f.index != 3)), "'rain' is missing or infinite at p0, 2024-01-04"),
        (lambda f: f.assign(day=f.day.where(f.index != 3)), r"column 'day' is empty in row 4 \(counted from 1\)"),
        (lambda f: f.assign(place=f.place.where(f.index != 3)), r"id empty in row 4 \(counted from 1\)"),
        (
            lambda f: f.rename(columns={"rain": "sun"}),
            "the columns of the table: 'sun' is there twice, and names must differ",
        ),
        (lambda f: f.head(0), "nothing to read"),
        (lambda f: f[["place", "day"]], "no columns to explain beside place, day"),
    ],
)
def test_wrong_tables_are_refused(change, message):
    with pytest.raises(deepshap.InputError, match=message):
        deepshap.sequences(change(table()[0]), id="place", time="day")


def test_one_feature_and_other_tables():
    assert deepshap.sequences(table()[0], "place", "day", "rain").feature_names == ["rain"]
    with pytest.raises(
        deepshap.InputError,
        match=r"must be a pandas.DataFrame, or a frame of polars or pyarrow in memory, not a ndarray",
    ):
        deepshap.sequences(table()[0].to_numpy(), "place", "day")


def test_longer_rows_than_steps_are_refused():
    with pytest.raises(deepshap.InputError, match="p0 has 6 lines, more than 5 steps"):
        deepshap.sequences(table()[0], "place", "day", steps=5)


def test_sequences_are_explained_with_their_names(model):
    x = deepshap.sequences(table()[0], "place", "day")
    background = deepshap.sequences(table(seed=1)[0], "place", "day", pad="last")
    found = deepshap.DeepExplainer(model, background, progress=False)(
        x, additional_forward_args=(torch.as_tensor(x.lengths),)
    )
    plain = deepshap.DeepExplainer(model, background.values, progress=False)
    np.testing.assert_array_equal(
        found.values, plain.shap_values(x.values, additional_forward_args=(torch.as_tensor(x.lengths),))
    )
    assert found.feature_names == FEATURES
    assert found.row_ids.tolist() == ["p0", "p1", "p2", "p3"]
    assert found.lengths.tolist() == LENGTHS.tolist()
    assert found.step_labels[0] == np.datetime64("2024-01-01")
    assert found.time_label == x[:2].time_label == "day"


def test_a_model_that_reads_padding_is_told_of(model):
    x = deepshap.sequences(table()[0], "place", "day")
    with pytest.warns(UserWarning, match="the model reads its padding"):
        found = deepshap.DeepExplainer(model, x, progress=False)(x)
    assert found.lengths is None


def test_time_first_models_get_tables_turned(model):
    turned = lambda x: model(x.transpose(0, 1))  # noqa: E731
    x = deepshap.sequences(table([6, 6, 6])[0], "place", "day")
    found = deepshap.DeepExplainer(turned, x, batch_axis=1, progress=False)(x)
    np.testing.assert_allclose(found.values, deepshap.DeepExplainer(model, x, progress=False)(x).values, atol=1e-7)
    assert found.row_ids.tolist() == ["p0", "p1", "p2"]


def test_packed_sequences_bring_their_lengths(model):
    x = pack_padded_sequence(drawn(ROWS, STEPS, 3, seed=2), torch.as_tensor(LENGTHS), True, enforce_sorted=False)
    found = deepshap.DeepExplainer(lambda packed: model.net(packed)[1][0][-1], x, progress=False)(x)
    assert found.lengths.tolist() == LENGTHS.tolist()


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def test_a_data_frame_names_features_and_rows():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(9, 3)), columns=FEATURES)
    named = frame.set_axis([f"row {i}" for i in range(9)])
    explainer = deepshap.DeepExplainer(linear(), frame, progress=False)
    found = explainer(named[4:])
    assert found.feature_names == FEATURES
    assert found.row_ids.tolist() == [f"row {i}" for i in range(4, 9)]
    assert explainer(frame).row_ids is None  # the index only counts
    np.testing.assert_allclose(found.values, explainer(frame.to_numpy())[4:].values, atol=1e-7)
    turned = explainer(frame[FEATURES[::-1]])
    assert turned.feature_names == FEATURES
    np.testing.assert_array_equal(turned.values, explainer(frame).values)
    with pytest.raises(deepshap.InputError, match=r"'sun' is missing\. X has 3, wind, rain, moon; 3 are expected, "):
        explainer(frame.rename(columns={"sun": "moon"}))
    with pytest.raises(deepshap.InputError, match=r"X: column 'wind' is .*not numeric"):
        explainer(frame.assign(wind="strong"))


def test_columns_of_one_name_are_refused():
    frame = pd.DataFrame(np.zeros((5, 3)), columns=["wind", "rain", "wind"])
    with pytest.raises(deepshap.InputError, match="the columns of the background: 'wind' is there twice"):
        deepshap.DeepExplainer(linear(), frame)
    with pytest.raises(deepshap.InputError, match="features: 'wind' is there twice"):
        deepshap.sequences(table()[0], "place", "day", ["wind", "wind"])


def test_ids_of_rows_may_come_again():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(3, 3)), index=["a", "b", "a"])
    found = deepshap.DeepExplainer(linear(), frame, progress=False)(frame)
    assert found.row_ids.tolist() == found.to_xarray().row.to_numpy().tolist() == ["a", "b", "a"]
    assert found.to_dataframe().row.tolist() == np.repeat(["a", "b", "a"], 6).tolist()


def test_nullable_mixed_and_named_columns():
    frame = pd.DataFrame({"a": pd.array([1, 2], "Int64"), "b": [True, False], ("c", 1): [0.5, 1.5]})
    found = deepshap.DeepExplainer(linear(), frame, progress=False)(frame.set_axis([("x", 1), ("x", 2)]))
    assert found.feature_names == ["a", "b", "c, 1"]
    np.testing.assert_array_equal(found.data, [[1, 1, 0.5], [2, 0, 1.5]])
    with pytest.raises(deepshap.InputError, match="NaN or infinite values, first in row 1"):
        deepshap.DeepExplainer(linear(), frame.assign(a=pd.array([1, None], "Int64")))


def test_an_xarray_names_every_axis(model):
    values = drawn(ROWS, STEPS, 3, seed=2).numpy()
    coords = {"row": list("abcd"), "step": DAYS, "feature": FEATURES}
    array = xarray.DataArray(values, coords, ("row", "step", "feature"))
    explainer = deepshap.DeepExplainer(model, array, progress=False)
    found = explainer(array.transpose("feature", "row", "step"))
    np.testing.assert_array_equal(found.values, explainer(values).values)
    assert found.row_ids.tolist() == list("abcd")
    assert found.feature_names == FEATURES
    assert found.step_labels.tolist() == DAYS.astype("M8[s]").tolist()
    other = explainer(xarray.DataArray(values, {"station": [3, 1, 2, 0]}, ("station", "hour", "sensor")))
    assert other.row_ids.tolist() == [3, 1, 2, 0]
    assert (found.time_label, other.time_label) == (None, "hour")


def test_tables_for_several_inputs_must_have_the_same_rows():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 4)), index=list("abcde"), columns=list("wxyz"))
    ids = torch.randint(9, (5, STEPS), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    explainer = deepshap.DeepExplainer(Mixed(), [ids, frame], progress=False)
    found = explainer([ids, frame])
    assert found[1].feature_names == list("wxyz")
    assert found[0].row_ids.tolist() == found.row_ids.tolist() == list("abcde")
    numbered = pd.DataFrame(ids.numpy(), index=list("abcde"))
    assert explainer([numbered, frame.to_numpy()])[0].feature_names == list("012345")  # nothing to compare them with
    np.testing.assert_array_equal(explainer([ids, frame[list("zyxw")]]).values[1], found.values[1])
    back = explainer.shap_values([ids, frame[list("zyxw")]])[1]  # as X has them
    np.testing.assert_array_equal(back, found.values[1][:, ::-1])
    with pytest.raises(deepshap.InputError, match=r"X\[1\] must be those of the model: 'z' is missing"):
        explainer([ids, frame.rename(columns={"z": "a"})])
    words = pd.DataFrame(ids.numpy(), index=list("abced"))
    with pytest.raises(deepshap.InputError, match="different row ids"):
        explainer([words, frame])


# ---------------------------------------------------------------------- raw inputs
class Scaler:
    """As scikit-learn's, (n, features) in and out."""

    def inverse_transform(self, scaled):
        assert scaled.ndim == 2
        return scaled * np.array([2.0, 3.0, 4.0]) + 1


def test_raw_inputs_are_shown(model):
    explainer = deepshap.DeepExplainer(
        model, drawn(5, STEPS, 3, seed=1), progress=False, inverse_transform=Scaler().inverse_transform
    )
    found = explainer(drawn(ROWS, STEPS, 3, seed=2))
    np.testing.assert_allclose(found.display_data, found.data * np.array([2.0, 3.0, 4.0]) + 1)
    np.testing.assert_array_equal(found.to_dataframe()["value"][::2], found.display_data.ravel())


def test_transforms_that_work_in_place(model):
    def doubled(scaled):
        scaled *= 2
        return scaled

    x = drawn(ROWS, STEPS, 3, seed=2)
    before = x.clone()
    found = deepshap.DeepExplainer(model, drawn(5, STEPS, 3, seed=1), progress=False, inverse_transform=doubled)(x)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(found.data, before)
    np.testing.assert_array_equal(found.display_data, 2 * before)


def test_transforms_that_do_not_fit_are_refused(model):
    background = drawn(5, STEPS, 3, seed=1)
    explainer = deepshap.DeepExplainer(model, background, progress=False, inverse_transform=lambda x: x[:, :2])
    with pytest.raises(deepshap.InputError, match=r"inverse_transform returned shape \(30, 2\) for \(30, 3\)"):
        explainer(background)
    with pytest.raises(deepshap.InputError, match="the input of an inner layer has no raw form"):
        deepshap.DeepExplainer((model, model.net), background, inverse_transform=lambda x: x)


def test_transforms_of_several_inputs():
    ids = torch.randint(9, (5, STEPS), generator=torch.Generator().manual_seed(1))
    inputs = [ids, drawn(5, 4, seed=3)]
    explainer = deepshap.DeepExplainer(Mixed(), inputs, progress=False, inverse_transform=[None, lambda x: 2 * x])
    found = explainer(inputs)
    assert found[0].display_data is None
    np.testing.assert_array_equal(found[1].display_data, 2 * inputs[1].numpy())
    explainer.inverse_transform = [None]
    with pytest.raises(deepshap.InputError, match=r"one, or None, for each of the inputs \[0, 1\]"):
        explainer(inputs)


# ---------------------------------------------------------------------- long form
def test_the_long_form_has_every_attribution_once(explanation):
    frame = explanation.to_dataframe()
    assert list(frame.columns) == ["row", "step", "feature", "output", "value", "input", "attribution"]
    assert len(frame) == LENGTHS.sum() * 3 * 2  # no padding
    one = frame[(frame.row == "b") & (frame.step == DAYS[3]) & (frame.feature == "sun") & (frame.output == "yes")]
    assert one.attribution.item() == explanation.values[1, 3, 2, 1]
    assert one.value.item() == explanation.display_data[1, 3, 2]
    assert one.input.item() == explanation.data[1, 3, 2]
    total = frame.groupby(["row", "output"], observed=True)["attribution"].sum().to_numpy().reshape(ROWS, 2)
    np.testing.assert_allclose(total, explanation.values.sum((1, 2)), atol=1e-6)


def test_the_long_form_of_some_outputs(explanation, joint):
    frame = explanation.to_dataframe()
    for keys in ("yes", 1, [1], ["yes"]):
        found = explanation.to_dataframe(keys)
        wanted = frame[frame.output == "yes"].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, wanted, check_categorical=False)
    assert explanation.to_dataframe(["yes", "no"]).output.tolist()[:2] == ["yes", "no"]
    assert len(joint.to_dataframe(0)) == len(joint.to_dataframe()) / 2
    with pytest.raises(deepshap.InputError, match="no output 'maybe'"):
        explanation.to_dataframe("maybe")
    with pytest.raises(deepshap.InputError, match="exactly one axis of outputs"):
        explanation.output(0).to_dataframe(0)


def test_the_long_form_without_names():
    found = deepshap.Explanation(np.arange(24.0).reshape(2, 4, 3), np.zeros(2), np.ones((2, 4, 3)))
    frame = found.to_dataframe()
    assert list(frame.columns) == ["row", "step", "feature", "value", "attribution"]
    assert frame.iloc[-1].tolist() == [1, 3, 2, 1, 23]
    assert found[:, 2:].to_dataframe().step.unique().tolist() == [2, 3]


@pytest.mark.parametrize(
    ("take", "columns"),
    [
        (lambda e: e[0], "row step feature output value input attribution"),
        (lambda e: e.output("yes"), "row step feature output value input attribution"),
        (lambda e: e.over_time(), "row feature output value input attribution"),
        (lambda e: e.over_features(), "row step output attribution"),
        (lambda e: e[:, :, 1], "row step feature output value input attribution"),
        (lambda e: e.abs.mean(0), "step feature output value attribution"),
        (lambda e: e.over_time(None), "row feature output attribution"),
        (lambda e: e[0, 0, 0, 0], "row step feature output value input attribution"),
    ],
)
def test_parts_and_sums_have_the_axes_that_they_have(explanation, take, columns):
    part = take(explanation)
    frame = part.to_dataframe()
    assert list(frame.columns) == columns.split()
    np.testing.assert_allclose(frame.attribution.sum(), np.sum(part.values), rtol=1e-5)


def test_images_have_numbered_axes():
    found = deepshap.Explanation(np.zeros((2, 1, 3, 4, 5)), np.zeros((2, 5)), np.zeros((2, 1, 3, 4)))
    assert list(found.to_dataframe().columns) == ["row", "axis_1", "axis_2", "axis_3", "output", "value", "attribution"]


def test_shifted_padding_is_not_hidden(explanation):
    assert len((explanation + 1).to_dataframe()) == ROWS * STEPS * 3 * 2


def test_several_inputs_below_each_other(joint):
    frame = joint.to_dataframe()
    assert list(frame.columns) == ["input_name", "row", "step", "feature", "output", "value", "attribution"]
    assert frame.step.dropna().unique().tolist() == list(range(STEPS))  # places of words are no features
    assert frame[frame.feature.notna()].feature.nunique() == 4
    assert len(frame) == 3 * (STEPS + 4) * 2
    assert frame.row.unique().tolist() == [7, 3, 5]


# ---------------------------------------------------------------------- there and back again
PARTS = {
    "whole": lambda e: e,
    "one row": lambda e: e[1],
    "one output": lambda e: e.output("yes"),
    "features": lambda e: e.over_time(),
    "steps": lambda e: e.over_features(),
    "one step": lambda e: e[:, 2],
    "later steps": lambda e: e[:, 2:],
    "a number": lambda e: e[0, 1, 2, 1],
    "shifted": lambda e: e + 1,
    "mean": lambda e: e.mean(0),
}


def assert_same(found, wanted):
    """All parallel arrays are equal, bit by bit, along the same axes."""
    assert type(found) is type(wanted)
    if isinstance(found, deepshap.JointExplanation):
        for (key, one), (other, two) in zip(found.items(), wanted.items(), strict=True):
            assert key == other
            assert_same(one, two)
        return
    mine, theirs = (dict(e._s._iter_tracked(include_aliases=True)) for e in (found, wanted))
    for name, two in theirs.items():
        one = mine.get(name)
        if two.o is None:
            assert one is None or one.o is None
            continue
        assert (type(one), one.dim) == (type(two), two.dim)
        if isinstance(two.o, (np.ndarray, np.generic)):
            assert (one.o.dtype, np.shape(one.o)) == (two.o.dtype, np.shape(two.o)), name
            assert one.o.tobytes() == two.o.tobytes(), name
        else:
            assert one.o == two.o
    for name in ("output_dims", "background", "model", "compute_time"):
        assert getattr(found, name) == getattr(wanted, name)


@pytest.mark.parametrize("take", PARTS.values(), ids=PARTS)
def test_files_give_back_every_bit(explanation, tmp_path, take):
    part = take(explanation)
    part.save(tmp_path / "x.parquet")
    assert_same(deepshap.load(tmp_path / "x.parquet"), part)
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]
    frame = pd.read_parquet(tmp_path / "x.parquet")
    wanted = part.to_dataframe()
    pd.testing.assert_frame_equal(frame[list(wanted)], wanted, check_dtype=False, check_categorical=False)
    extra = [name for name in frame if name not in wanted]
    assert extra == [n for n, f in OF_ROWS.items() if getattr(part, f) is not None]


OF_ROWS = {"base_value": "base_values", "model_output": "outputs", "gap": "gap", "target": "targets"}


def test_files_say_of_each_line_what_the_model_returned(explanation, tmp_path):
    explanation.save(tmp_path / "x.parquet")
    frame = pd.read_parquet(tmp_path / "x.parquet")
    sums = frame.groupby(["row", "output"], observed=True)
    first = sums[list(OF_ROWS)].first()
    np.testing.assert_allclose(
        first["base_value"] + sums["attribution"].sum(), first["model_output"], rtol=1e-5, atol=1e-6
    )
    assert first.loc[("b", "yes"), "model_output"] == explanation.outputs[1, 1]
    assert first["target"].unstack()["no"].tolist() == [1, 0, 1, 1]


def test_files_keep_unusual_numbers(explanation, tmp_path):
    explanation.values = explanation.values.copy()
    explanation.values[0, 0, 0] = [np.nan, -0.0]
    explanation.values[2, 4, 1] = -0.0  # in the padding
    explanation.data[0, 0, 0] = np.inf
    explanation.display_data = explanation.display_data.astype(np.float16)
    explanation.step_labels = (DAYS + np.arange(ROWS)[:, None]).astype("M8[ns]")
    explanation.save(tmp_path / "x.parquet")
    assert_same(deepshap.load(tmp_path / "x.parquet"), explanation)


def test_files_of_several_inputs(joint, tmp_path):
    joint.save(tmp_path / "x.parquet")
    assert_same(deepshap.load(tmp_path / "x.parquet"), joint)
    words = joint[0]
    words.feature_names = None
    words.step_labels = range(STEPS)
    words.display_data = np.array(list("dogcat"))[words.data % 6]  # words beside numbers in one column
    joint.save(tmp_path / "x.parquet")
    assert_same(deepshap.load(tmp_path / "x.parquet"), joint)
    named = deepshap.JointExplanation({"words": words, "row": joint[1]})
    named.save(tmp_path / "x.parquet")
    assert_same(deepshap.load(tmp_path / "x.parquet"), named)


def test_blocks_of_large_files_join(explanation, tmp_path, monkeypatch):
    monkeypatch.setattr("deepshap.explanation.storage.LINES_PER_BLOCK", 30)
    explanation.background = {"rows": np.int64(7), "mean": np.float32(0.5)}
    explanation.save(tmp_path / "x.parquet")
    assert pyarrow.parquet.ParquetFile(tmp_path / "x.parquet").num_row_groups > 2
    assert_same(deepshap.load(tmp_path / "x.parquet"), explanation)


def test_other_files_are_refused(explanation, tmp_path):
    path = tmp_path / "x.parquet"
    explanation.save(path)
    saved = pyarrow.parquet.read_table(path)
    for changed in (saved.slice(1), saved.sort_by("attribution")):
        pyarrow.parquet.write_table(changed, path)
        with pytest.raises(deepshap.InputError, match="filtered, sorted or damaged"):
            deepshap.load(path)
    saved.to_pandas().to_parquet(path)
    with pytest.raises(deepshap.InputError, match="no explanation"):
        deepshap.load(path)
    newer = saved.schema.metadata[b"deepshap"].replace(b'"format": 3', b'"format": 99')
    pyarrow.parquet.write_table(saved.replace_schema_metadata({**saved.schema.metadata, b"deepshap": newer}), path)
    with pytest.raises(deepshap.InputError, match="written by a newer deepshap"):
        deepshap.load(path)
    path.write_text("nothing")
    with pytest.raises(deepshap.InputError, match="no Parquet file"):
        deepshap.load(path)
    with pytest.raises(FileNotFoundError):
        deepshap.load(tmp_path / "missing.parquet")


def test_damaged_files_are_refused(explanation, tmp_path):
    path = tmp_path / "x.parquet"
    explanation.save(path)
    saved, whole = pyarrow.parquet.read_table(path), path.read_bytes()
    known = saved.schema.metadata
    generator = np.random.default_rng(0)
    outcomes = {"as it was": 0, "refused": 0}
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert_same(deepshap.load(path), explanation)  # damaged where nothing is read
            outcomes["as it was"] += 1
        except deepshap.InputError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 75

    def with_metadata(**entries):
        changed = {**known, **{name.replace("_", ".").encode(): value for name, value in entries.items()}}
        kept = {name: value for name, value in changed.items() if value is not None}
        pyarrow.parquet.write_table(saved.replace_schema_metadata(kept), path)

    header = json.loads(known[b"deepshap"])
    texts = [b"", b"{", b"[]", b"5", b"null", b"{}", b"\xff", b"[" * 99999]
    texts += [json.dumps({**header, name: None}).encode() for name in ("format", "parts")]
    texts += [json.dumps({**header, "parts": [{**header["parts"][0], "tracked": {}}]}).encode()]
    for checksum in (known[b"deepshap.checksum"], None):
        for text in texts:
            with_metadata(deepshap=text, deepshap_checksum=checksum)
            with pytest.raises(deepshap.InputError, match="damaged"):
                deepshap.load(path)
        for packed in (None, b"", b"!", b"QUJD", known[b"deepshap.arrays"][:-99]):
            with_metadata(deepshap_arrays=packed, deepshap_checksum=checksum)
            with pytest.raises(deepshap.InputError, match="damaged"):
                deepshap.load(path)
    with_metadata(deepshap=known[b"deepshap"].replace(b"Series", b"Serial"))
    with pytest.raises(deepshap.InputError, match="damaged"):
        deepshap.load(path)


def test_small_files_that_unpack_to_much_are_refused(explanation, tmp_path):
    path = tmp_path / "x.parquet"
    explanation.save(path)
    saved, stream = pyarrow.parquet.read_table(path), io.BytesIO()
    np.savez_compressed(stream, large=np.zeros(2**24))
    metadata = {**saved.schema.metadata, b"deepshap.arrays": base64.b64encode(stream.getvalue())}
    metadata[b"deepshap.checksum"] = str(zlib.crc32(metadata[b"deepshap"] + metadata[b"deepshap.arrays"]))
    pyarrow.parquet.write_table(saved.replace_schema_metadata(metadata), path)
    with pytest.raises(deepshap.InputError, match="would unpack to 134,2"):
        deepshap.load(path)


@pytest.mark.parametrize("path", [5, None, b"x.parquet", [None], object()])
def test_what_is_no_path_is_not_read(path):
    with pytest.raises(deepshap.InputError, match="takes the path of a file"):
        deepshap.load(path)


def test_what_cannot_be_written_leaves_the_old_file(explanation, tmp_path):
    path = tmp_path / "x.parquet"
    explanation.save(path)
    before = path.read_bytes()
    explanation.background = {"model": object()}
    with pytest.raises(deepshap.InputError, match="plain enough to be written as JSON"):
        explanation.save(path)
    explanation.background, explanation.display_data = None, np.full((4, 6, 3), object())
    with pytest.raises(deepshap.InputError, match="Python objects"):
        explanation.save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_datasets_of_several_inputs_are_read_one_by_one(joint):
    datasets = joint.to_xarray()
    with pytest.raises(
        deepshap.InputError, match=r"from_xarray reads one dataset, .* read each, and put them together"
    ):
        deepshap.Explanation.from_xarray(datasets)
    again = deepshap.JointExplanation([deepshap.Explanation.from_xarray(one) for one in datasets])
    for one, two in zip(again.values, joint.values, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_folder_of_files_is_no_run(explanation, tmp_path):
    explanation.save(tmp_path / "x.parquet")
    with pytest.raises(deepshap.InputError, match=r"is no folder of explanations: .* load\('.*\*\.parquet'\)"):
        deepshap.load(tmp_path)


@pytest.mark.parametrize("take", [PARTS[name] for name in ("whole", "one row", "one output", "features", "steps")])
def test_xarray_and_back(explanation, take, tmp_path):
    part = take(explanation)
    dataset = part.to_xarray()
    found = deepshap.Explanation.from_xarray(dataset)
    fields = (
        "values",
        "base_values",
        "data",
        "display_data",
        "outputs",
        "gap",
        "row_ids",
        "step_labels",
        "lengths",
        "targets",
    )
    for name in fields:
        np.testing.assert_array_equal(getattr(found, name), getattr(part, name), err_msg=name)
    assert (found.output_dims, found.output_names, found.background) == (
        part.output_dims,
        part.output_names,
        part.background,
    )
    if "feature" in dataset.dims:
        assert found.feature_names == FEATURES
        rain = np.take(part.values, 1, dataset.attribution.get_axis_num("feature"))
        np.testing.assert_array_equal(dataset.attribution.sel(feature="rain"), rain)


def test_an_xarray_from_elsewhere_is_refused():
    with pytest.raises(deepshap.InputError, match="no variable 'attribution'"):
        deepshap.Explanation.from_xarray(xarray.Dataset({"a": 1}))
