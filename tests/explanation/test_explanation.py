"""deepshap.Explanation: shap's, with sums over sequences that lose nothing."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import shap
import torch
from torch import nn

import deepshap

ROWS, STEPS, FEATURES, OUTPUTS = 4, 6, 3, 2
NAMES, CLASSES = ["wind", "rain", "sun"], ["no", "yes"]


class Series(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(FEATURES, 5, batch_first=True), nn.Linear(5, OUTPUTS)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class WithStatic(nn.Module):
    """A sequence and a row of other features."""

    def __init__(self):
        super().__init__()
        self.series, self.static = Series(), nn.Linear(4, OUTPUTS)

    def forward(self, series, static):
        return torch.tanh(self.series(series) + self.static(static))


def series(rows, seed):
    return torch.randn(rows, STEPS, FEATURES, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Series()


@pytest.fixture(scope="module")
def explanation(model):
    names = {"feature_names": NAMES, "output_names": CLASSES}
    return deepshap.DeepExplainer(model, series(9, 1), progress=False, **names)(series(ROWS, 2))


@pytest.fixture(scope="module")
def joint():
    torch.manual_seed(3)
    explainer = deepshap.DeepExplainer(WithStatic(), [series(9, 4), torch.randn(9, 4)], progress=False)
    return explainer([series(ROWS, 5), torch.randn(ROWS, 4)])


# ---------------------------------------------------------------------- sums
@pytest.mark.fast
def test_over_time_sums_the_steps(explanation, model):
    found = explanation.over_time()
    assert isinstance(found, deepshap.Explanation)
    np.testing.assert_array_equal(found.values, explanation.values.sum(1, dtype=np.float64))
    np.testing.assert_array_equal(found.data, explanation.data.mean(1))
    np.testing.assert_array_equal(found.base_values, explanation.base_values)
    assert found.shape == (ROWS, FEATURES, OUTPUTS)
    assert (found.feature_names, found.output_names) == (NAMES, CLASSES)
    outputs = model(series(ROWS, 2)).detach().numpy()
    np.testing.assert_allclose(found.values.sum(1) + found.base_values, outputs, atol=1e-6)


def test_over_features_sums_the_features(explanation, model):
    found = explanation.over_features()
    np.testing.assert_array_equal(found.values, explanation.values.sum(2, dtype=np.float64))
    assert found.data is None  # features have units of their own
    np.testing.assert_array_equal(explanation.over_features(np.mean).data, explanation.data.mean(2))
    np.testing.assert_array_equal(explanation[:, :, [1]].over_features().data, explanation.data[..., 1])
    np.testing.assert_array_equal(found.base_values, explanation.base_values)
    assert found.shape == (ROWS, STEPS, OUTPUTS)
    assert (found.feature_names, found.output_names) == ([f"Step {i}" for i in range(STEPS)], CLASSES)
    outputs = model(series(ROWS, 2)).detach().numpy()
    np.testing.assert_allclose(found.values.sum(1) + found.base_values, outputs, atol=1e-6)


@pytest.mark.parametrize("method", ["over_time", "over_features"])
def test_the_total_is_kept_in_double_precision(explanation, method):
    total = explanation.values.sum((1, 2), dtype=np.float64)
    np.testing.assert_allclose(getattr(explanation, method)().values.sum(1), total, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("method", ["over_time", "over_features"])
def test_sums_slices_and_outputs_commute(explanation, method):
    whole = getattr(explanation, method)()
    for one in (getattr(explanation[2], method)()[..., 1], getattr(explanation.output("yes"), method)()[2]):
        np.testing.assert_array_equal(one.values, whole.values[2, :, 1])
        np.testing.assert_array_equal(one.data, None if whole.data is None else whole.data[2])
        assert one.base_values == whole.base_values[2, 1]
        assert (one.feature_names, one.output_names) == (whole.feature_names, "yes")


def test_a_model_with_one_number_per_row():
    torch.manual_seed(0)
    net = nn.LSTM(FEATURES, 1, batch_first=True)
    found = deepshap.DeepExplainer(lambda x: net(x)[0][:, -1, 0], series(5, 1), progress=False)(series(ROWS, 2))
    assert found.over_time().shape == (ROWS, FEATURES)
    assert found[0].over_features().shape == (STEPS,)
    with pytest.raises(deepshap.InputError, match="one output only"):
        found.output(0)


def test_an_output_with_several_axes():
    torch.manual_seed(0)
    net = nn.LSTM(FEATURES, OUTPUTS, batch_first=True)
    explainer = deepshap.DeepExplainer(lambda x: net(x)[0], series(5, 1), progress=False, output_names=CLASSES)
    found = explainer(series(ROWS, 2))
    assert found.shape == (ROWS, STEPS, FEATURES, STEPS, OUTPUTS)
    assert found.output_names == CLASSES
    last = found.over_time().output((-1, "yes"))
    np.testing.assert_array_equal(last.values, found.values[..., -1, 1].sum(1, dtype=np.float64))
    np.testing.assert_array_equal(last.base_values, found.base_values[:, -1, 1])
    with pytest.raises(deepshap.InputError, match=r"shape \(6, 2\): give a tuple of 2 keys"):
        found.output(1)
    with pytest.raises(deepshap.InputError, match="no output 'yes' among 6 outputs"):
        found.output(("yes", 1))


def test_what_stands_for_the_data(explanation):
    np.testing.assert_array_equal(explanation.over_time(np.max).data, explanation.data.max(1))
    assert explanation.over_time(None).data is None
    words = np.array([[f"word {row} {step}" for step in range(STEPS)] for row in range(ROWS)])
    found = explanation.over_features(words, step_names=[f"day {i}" for i in range(STEPS)])
    assert found[1].data[3] == "word 1 3"
    assert found[:, "day 3"].data[1] == "word 1 3"
    assert explanation.over_time(None)[0].output(1).data is None


def test_default_names_of_features(model):
    found = deepshap.DeepExplainer(model, series(5, 1), progress=False)(series(ROWS, 2))
    assert found.feature_names == found.over_time().feature_names == ["Feature 0", "Feature 1", "Feature 2"]
    assert found.output_names == ["Output 0", "Output 1"]
    found.feature_names = None
    assert found.over_time().feature_names == ["Feature 0", "Feature 1", "Feature 2"]


# ---------------------------------------------------------------------- names are on the axes they belong to
def test_names_follow_their_axes_whatever_the_sizes():
    """As many rows, steps and features: shap would name the steps."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    names = {"feature_names": NAMES, "output_names": ["a", "b", "c"]}
    found = deepshap.DeepExplainer(net, torch.randn(4, 3, 3), progress=False, **names)(torch.randn(3, 3, 3))
    np.testing.assert_array_equal(found[:, :, "rain"].values, found.values[:, :, 1])
    np.testing.assert_array_equal(found[..., "b"].values, found.values[..., 1])
    assert found[0].feature_names == found[:, 0].feature_names == NAMES
    assert found[:, :, 1].feature_names == "rain"


def test_names_can_be_assigned(explanation):
    twin = copy.copy(explanation)
    twin.feature_names = ["x", "y", "z"]
    twin.output_names = ["u", "v"]
    np.testing.assert_array_equal(twin[..., "z", "v"].values, explanation.values[..., 2, 1])
    assert twin[0, 0].feature_names == ["x", "y", "z"]
    assert explanation.feature_names == NAMES


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"feature_names": ["a", "b"]}, "feature_names holds 2 names for an axis of 3"),
        ({"output_names": ["a", "b", "c"]}, "output_names holds 3 names for an axis of 2"),
        ({"feature_names": {"a": ["b"]}}, "feature_names"),
    ],
)
def test_a_wrong_number_of_names_is_refused(model, names, message):
    with pytest.raises(deepshap.InputError, match=message):
        deepshap.DeepExplainer(model, series(5, 1), progress=False, **names)(series(ROWS, 2))


# ---------------------------------------------------------------------- still shap's
def test_it_is_shaps(explanation):
    assert isinstance(explanation, shap.Explanation)
    assert str(type(explanation)).endswith("Explanation'>")  # how shap's force plot recognises it
    assert explanation.compute_time > 0


LIKE_SHAP = [
    lambda e: e[1],
    lambda e: e[1:3],
    lambda e: e[[0, 2]],
    lambda e: e[np.array([True, False, True, False])],
    lambda e: e[..., 0],
    lambda e: e[:, 1, 2],
    lambda e: e.abs,
    lambda e: e.mean(0),
    lambda e: e.abs.mean(0),
    lambda e: e.abs.max(0),
    lambda e: e.sample(2),
    lambda e: e + 1,
    lambda e: e - e,
    lambda e: 2 * e,
    copy.copy,
    copy.deepcopy,
    lambda e: pickle.loads(pickle.dumps(e)),
]


@pytest.mark.parametrize("take", LIKE_SHAP)
def test_what_shap_makes_of_it_is_the_same_and_ours(explanation, take):
    shaps = shap.Explanation(explanation.values, explanation.base_values, explanation.data, output_names=CLASSES)
    found, wanted = take(explanation), take(shaps)
    assert type(found) is deepshap.Explanation
    np.testing.assert_array_equal(found.values, wanted.values)
    np.testing.assert_array_equal(found.data, wanted.data)
    np.testing.assert_array_equal(found.base_values, wanted.base_values)
    assert found.output_names == wanted.output_names


@pytest.fixture
def described():
    """All that runs along an axis."""
    random = np.random.default_rng(0)
    base = random.normal(size=(ROWS, OUTPUTS))
    found = deepshap.Explanation(
        random.normal(size=(ROWS, STEPS, FEATURES, OUTPUTS)), base, np.ones((ROWS, STEPS, FEATURES)), compute_time=4.0
    )
    found.feature_names, found.output_names, found.row_ids = NAMES, CLASSES, list("abcd")
    found.step_labels, found.targets = np.arange(STEPS) * 10, [0, 1, 1, 0]
    return found


AXES_LEFT = {  # feature names, output names, ids, steps, outputs' axes, shape of the data
    0: (NAMES, CLASSES, None, STEPS, (2,), (STEPS, FEATURES)),
    1: (NAMES, CLASSES, list("abcd"), None, (2,), (ROWS, FEATURES)),
    2: (None, CLASSES, list("abcd"), STEPS, (2,), (ROWS, STEPS)),
    3: (NAMES, None, list("abcd"), STEPS, (), (ROWS, STEPS, FEATURES)),
    -1: (NAMES, None, list("abcd"), STEPS, (), (ROWS, STEPS, FEATURES)),
}


@pytest.mark.parametrize("axis", AXES_LEFT)
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "percentile"])
def test_what_is_aggregated_has_what_belongs_to_the_other_axes(described, name, axis):
    features, outputs, ids, steps, output_dims, data = AXES_LEFT[axis]
    found = described.percentile(30, axis) if name == "percentile" else getattr(described, name)(axis)
    wanted = np.percentile(described.values, 30, axis) if name == "percentile" else None
    np.testing.assert_array_equal(found.values, getattr(np, name)(described.values, axis) if wanted is None else wanted)
    assert (found.feature_names, found.output_names, found.output_dims) == (features, outputs, output_dims)
    assert (found.row_ids if found.row_ids is None else list(found.row_ids)) == ids
    assert (found.step_labels is None, np.shape(found.data)) == (steps is None, data)
    assert (found._rows, found.compute_time) == (int(axis != 0), 4.0)
    assert found.op_history[-1].name == name
    assert ("1 row:" in repr(found)) == (axis == 0)
    assert found.to_dataframe()["attribution"].size == found.values.size


def test_sums_and_base_values_are_still_the_output(described):
    outputs = described.base_values + described.values.sum((1, 2))
    for found in (described.sum(1).sum(1), described.sum(2).sum(1)):
        np.testing.assert_allclose(found.base_values + found.values, outputs)
    both = described.sum(3)
    np.testing.assert_allclose(both.base_values + both.values.sum((1, 2)), outputs.sum(1))
    for found in (described.mean(1), described.max(3), described.sum()):
        assert found.base_values is None
    assert described.sum(3)[1:, 3].output_dims == ()


@pytest.mark.parametrize("base", [None, np.zeros((ROWS, OUTPUTS))], ids=["without", "with"])
def test_totals_are_shown_and_saved(described, base, tmp_path):
    found = deepshap.Explanation(described.values, base, described.data, output_names=CLASSES)
    found._count_steps(1)
    found.feature_names = NAMES
    assert "4 rows × 6 steps" in repr(found)
    for total in (found.sum(), found.mean(0).mean(0).mean(0).mean(0), found[0][0][0].mean(0)):
        assert "1 number" in repr(total)
        assert "1 number" in total._repr_html_()
        assert (total.values.shape, total._rows) == ((), 0)
    np.testing.assert_allclose(found.sum().values, described.values.sum())
    row = found[0]
    assert "1 row: 6 steps × 3 features" in repr(row)
    assert row[2].shape == (FEATURES, OUTPUTS)
    row.save(tmp_path / "row.parquet")
    for again in (deepshap.load(tmp_path / "row.parquet"), deepshap.Explanation.from_xarray(row.to_xarray())):
        assert repr(again) == repr(row)
    with pytest.raises(deepshap.InputError, match="nothing to take the sum of"):
        found.sum().sum()
    with pytest.raises(deepshap.InputError, match="axis must be one of"):
        found.sum(4)


def test_features_are_put_beside_each_other_without_base_values(described):
    found = deepshap.Explanation(described.values, None, described.data, output_names=CLASSES)
    assert found.hstack(found).shape == (ROWS, STEPS, 2 * FEATURES, OUTPUTS)
    with pytest.raises(deepshap.InputError, match="same base values"):
        found.hstack(described)
    outputs_alone = described.sum(1).sum(1)
    with pytest.raises(deepshap.InputError, match=r"of shape \(4, 2\) have none"):
        outputs_alone.hstack(outputs_alone)


def test_names_behind_an_ellipsis(explanation):
    np.testing.assert_array_equal(explanation[..., "yes"].values, explanation.values[..., 1])
    np.testing.assert_array_equal(explanation[1, ..., np.int64(1)].values, explanation.values[1, ..., 1])


def test_cohorts(explanation):
    found = explanation.over_time().output("yes").cohorts(["a", "b", "a", "b"])
    assert {name: cohort.shape for name, cohort in found.cohorts.items()} == {"a": (2, 3), "b": (2, 3)}
    assert len(explanation.over_time().output("yes").cohorts(2).cohorts) == 2


def test_a_copy_does_not_share_what_is_assigned(explanation):
    before = explanation.values.copy()
    twin = copy.copy(explanation)
    twin.values = twin.values + 1
    np.testing.assert_array_equal(explanation.values, before)


def test_output_axes_follow_slices(explanation):
    assert explanation.output_dims == (3,)
    assert explanation[0].output_dims == (2,)
    assert explanation[..., 0].output_dims == ()
    assert explanation.over_time()[0].output_dims == (1,)


def test_names_given_at_once_are_those_of_the_features(explanation):
    made = deepshap.Explanation(
        explanation.values, explanation.base_values, explanation.data, feature_names=NAMES, output_names=CLASSES
    )
    assert (made[1:, 2:, :2].feature_names, made[0, :, :, 1].output_names) == (NAMES[:2], CLASSES[1])
    assert made[:, 1].feature_names == made.over_time().feature_names == NAMES


def test_a_single_output_has_a_name():
    net = nn.LSTM(FEATURES, 1, batch_first=True)
    explainer = deepshap.DeepExplainer(
        lambda x: net(x)[0][:, -1, 0], series(9, 1), feature_names=NAMES, output_names="risk"
    )
    found = explainer(series(ROWS, 2))
    assert found.output_names == found[1:].output_names == found.over_time()[0].output_names == "risk"
    assert set(found.to_dataframe().output) == {"risk"}


def test_columns_side_by_side(explanation):
    time, features = explanation.over_time(), explanation.over_features(np.mean)
    both = time.hstack(features)
    assert type(both) is deepshap.Explanation
    np.testing.assert_array_equal(both.values, np.concatenate([time.values, features.values], 1))
    np.testing.assert_array_equal(both.data, np.concatenate([time.data, features.data], 1))
    assert both.feature_names == [*NAMES, *(f"Step {i}" for i in range(STEPS))]
    assert both[0, :, 1].hstack(time[0, :, 1]).shape == (2 * FEATURES + STEPS,)
    with pytest.raises(deepshap.InputError, match="equal shapes"):
        time.hstack(features[:2])
    with pytest.raises(deepshap.InputError, match="base values"):
        time.hstack(features + 1)


def test_steps_may_have_one_name():
    """Words come again in a text."""
    words = ["the", "cat", "and", "the", "dog", "sat"]
    net = nn.LSTM(FEATURES, 1, batch_first=True)
    found = deepshap.DeepExplainer(lambda x: net(x)[0][:, -1], series(5, 1), progress=False)(series(ROWS, 2))
    assert found.over_features(step_names=words).feature_names == words


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e[:, 2].over_time(), r"over_time\(\) is for sequences.*\(4, 3\)"),
        (lambda e: e.over_features().over_features(), r"over_features\(\) is for sequences.*\(4, 6\)"),
        (lambda e: e.over_features(step_names=["a"]), "step_names holds 1 names for an axis of 6"),
        (lambda e: e.over_features(step_names="abcdef"), "step_names is the text 'abcdef', not a list of names"),
        (lambda e: e.over_time(np.zeros((2, 2))), r"data has shape \(2, 2\).*\(4, 3\)"),
        (lambda e: e.output("maybe"), r"no output 'maybe' among 2 outputs named \['no', 'yes'\]"),
        (lambda e: e.output(2), "no output 2 among 2 outputs"),
        (lambda e: e.output((0, 1)), "give a tuple of 1 keys"),
        (lambda e: e.output(0).output(0), "one output only"),
    ],
)
def test_bad_input_is_refused(explanation, call, message):
    with pytest.raises(deepshap.InputError, match=message):
        call(explanation)


def test_images_are_no_sequences():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    found = deepshap.DeepExplainer(net, torch.randn(3, 1, 3, 4), progress=False)(torch.randn(2, 1, 3, 4))
    for one in (found, found[0], found[..., 0]):
        with pytest.raises(deepshap.InputError, match="for sequences"):
            one.over_time()


# ---------------------------------------------------------------------- rows first
def test_time_first_inputs_are_explained_rows_first():
    torch.manual_seed(0)
    net = nn.LSTM(FEATURES, OUTPUTS)
    background, x = series(5, 1).transpose(0, 1), series(ROWS, 2).transpose(0, 1)
    explainer = deepshap.DeepExplainer(lambda x: net(x)[0][-1], background, batch_axis=1, progress=False)
    found = explainer(x)
    assert found.shape == (ROWS, STEPS, FEATURES, OUTPUTS)
    np.testing.assert_array_equal(np.moveaxis(found.values, 0, 1), explainer.shap_values(x))
    np.testing.assert_array_equal(found.data, series(ROWS, 2).numpy())
    total = found.over_time().values.sum(1) + found.base_values
    np.testing.assert_allclose(total, net(x)[0][-1].detach().numpy(), atol=1e-6)


def test_an_inner_time_first_layer_is_explained_rows_first():
    torch.manual_seed(0)
    net = nn.LSTM(FEATURES, OUTPUTS)

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(torch.tanh(x).transpose(0, 1))[0][-1]

    model = Turned()
    found = deepshap.DeepExplainer((model, model.net), series(5, 1), progress=False)(series(ROWS, 2))
    assert found.shape == (ROWS, STEPS, FEATURES, OUTPUTS)
    np.testing.assert_allclose(found.data, np.tanh(series(ROWS, 2).numpy()), atol=1e-6)
    total = found.over_time().values.sum(1) + found.base_values
    np.testing.assert_allclose(total, model(series(ROWS, 2)).detach().numpy(), atol=1e-6)


# ---------------------------------------------------------------------- several inputs
def test_several_inputs(joint):
    assert isinstance(joint, shap.Explanation)
    assert [v.shape for v in joint.values] == [(ROWS, STEPS, FEATURES, OUTPUTS), (ROWS, 4, OUTPUTS)]
    assert [d.shape for d in joint.data] == [(ROWS, STEPS, FEATURES), (ROWS, 4)]
    assert len(joint) == len(list(joint)) == 2
    assert joint[0].feature_names == ["Input 0, feature 0", "Input 0, feature 1", "Input 0, feature 2"]
    np.testing.assert_array_equal(joint.output(1)[1].values, joint.values[1][..., 1])


def test_all_inputs_in_one_matrix(joint):
    both = joint[0].over_time().hstack(joint[1])
    assert both.shape == (ROWS, FEATURES + 4, OUTPUTS)
    total = joint.values[0].sum((1, 2), dtype=np.float64) + joint.values[1].sum(1, dtype=np.float64)
    np.testing.assert_allclose(both.values.sum(1), total, rtol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda e: e.shape,
        lambda e: e.abs,
        lambda e: e.mean(0),
        lambda e: e + 1,
        lambda e: e.over_time(),
        lambda e: e.over_features(),
        lambda e: e.hstack(e),
        lambda e: e[0, 1],
        lambda e: e[..., 1],
        lambda e: e["static"],
        lambda e: e.feature_names,
    ],
)
def test_what_needs_one_input_says_so(joint, call):
    with pytest.raises(deepshap.InputError, match=r"explanation\[0\]"):
        call(joint)


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_several_inputs_are_copied(joint, twin):
    found = twin(joint)
    assert type(found) is deepshap.JointExplanation
    for one, two in zip(found.values, joint.values, strict=True):
        np.testing.assert_array_equal(one, two)
    assert "base values" in repr(found)


def test_inputs_by_name():
    torch.manual_seed(3)
    background = {"series": series(9, 4), "static": torch.randn(9, 4)}
    explainer = deepshap.DeepExplainer(
        WithStatic(), background, progress=False, feature_names={"series": NAMES}, output_names=CLASSES
    )
    found = explainer({"series": series(ROWS, 5), "static": torch.randn(ROWS, 4)})
    assert list(found) == list(found.values) == ["series", "static"]
    assert found["series"].over_time().feature_names == NAMES
    assert found["static"].feature_names[2] == "static, feature 2"
    assert found.output("yes")["static"].shape == (ROWS, 4)
    assert dict(found.items())["static"] is found["static"]
    with pytest.raises(deepshap.InputError, match=r"choose one of the inputs \['series', 'static'\]"):
        found[0]


@pytest.mark.parametrize("names", [NAMES, [NAMES], {"other": NAMES}, [NAMES, "abcd"]])
def test_names_of_several_inputs(names):
    background = [series(9, 4), torch.randn(9, 4)]
    with pytest.raises(deepshap.InputError, match=r"a list of names for each of the inputs \[0, 1\]"):
        deepshap.DeepExplainer(WithStatic(), background, progress=False, feature_names=names)


def test_what_was_predicted_travels_along(tmp_path):
    random = np.random.default_rng(3)
    explanation = deepshap.Explanation(random.normal(size=(5, 4, 2, 3)), np.zeros((5, 3)), np.ones((5, 4, 2)))
    explanation.predictions, explanation.classes = random.normal(size=(5, 3)), ["cat", "dog", "emu"]
    explanation.time_label = "time (s)"
    with pytest.raises(deepshap.InputError, match="predictions has shape"):
        explanation.predictions = np.zeros((4, 3))
    picked = explanation.output(1)[[3, 0]].over_time()
    assert (picked.explained, picked.classes, picked.time_label) == ("Output 1", ["cat", "dog", "emu"], "time (s)")
    np.testing.assert_array_equal(picked.predictions, explanation.predictions[[3, 0]])
    np.testing.assert_array_equal(explanation[2].predictions, explanation.predictions[2])
    assert explanation.mean(0).predictions is None
    explanation.save(tmp_path / "why.parquet")
    for again in (deepshap.load(tmp_path / "why.parquet"), deepshap.Explanation.from_xarray(explanation.to_xarray())):
        np.testing.assert_array_equal(again.predictions, explanation.predictions)
        assert (again.classes, again.time_label) == (explanation.classes, "time (s)")
    both = deepshap.Explanation.concat([explanation[:2], explanation[2:]])
    np.testing.assert_array_equal(both.predictions, explanation.predictions)


def test_an_explanation_is_printed_in_a_few_lines():
    explanation = deepshap.Explanation(np.ones((5, 4, 2, 3)), np.zeros((5, 3)), np.ones((5, 4, 2)))
    explanation.model = "Forecaster"
    printed = str(explanation)
    assert "5 rows × 4 steps × 2 features × 3 outputs" in printed
    assert "Forecaster" in printed
    assert len(printed) < 300
    joint = deepshap.JointExplanation([explanation, explanation])
    assert repr(joint).count("5 rows") == 2


def test_a_joint_explanation_has_no_shape_and_says_so():
    part = deepshap.Explanation(np.ones((5, 4)), np.zeros(5), np.ones((5, 4)))
    joint = deepshap.JointExplanation([part, part])
    assert not hasattr(joint, "shape")
    assert not hasattr(joint, "nonsense")
    with pytest.raises(deepshap.InputError, match="of 2 inputs"):
        _ = joint.shape


@pytest.mark.fast
def test_what_a_single_input_by_name_has_is_read_and_assigned_through():
    part = deepshap.Explanation(np.ones((2, 3, 2, 4)), np.zeros((2, 4)), np.ones((2, 3, 2)))
    part.feature_names, part.output_names, part.lags = ["wind", "rain"], list("abcd"), [-2, -1, 0]
    joint = deepshap.JointExplanation({"past": part})
    assert (joint.shape, joint.feature_names, joint.output_names) == ((2, 3, 2, 4), ["wind", "rain"], list("abcd"))
    assert (joint.lags.tolist(), joint.lengths, joint.display_data, joint.keys()) == ([-2, -1, 0], None, None, ["past"])
    joint.step_labels, joint.feature_names = ["mon", "tue", "wed"], ["gust", "hail"]
    assert part.step_labels.tolist() == joint.step_labels.tolist() == ["mon", "tue", "wed"]
    assert part.feature_names == ["gust", "hail"]
    with pytest.raises(deepshap.InputError, match=r"only input, 'past', by that name: take explanation\['past'\]"):
        joint.over_time()


@pytest.mark.fast
@pytest.mark.parametrize("name", ["shape", "feature_names", "step_labels", "lags", "lengths", "display_data"])
def test_what_several_inputs_differ_in_is_refused_with_their_names(name):
    one, two = (deepshap.Explanation(np.ones((2, n, 2, 3)), np.zeros((2, 3)), np.ones((2, n, 2))) for n in (4, 5))
    joint = deepshap.JointExplanation({"target": one, "static": two})
    joint.output_names = ["+1", "+2", "+3"]
    assert joint.output_names == one.output_names == two.output_names == ["+1", "+2", "+3"]
    wanted = (
        rf"of 2 inputs, 'target', 'static', of which each has {name} of its own: take explanation\['target'\]\.{name}"
    )
    with pytest.raises(deepshap.InputError, match=wanted):
        getattr(joint, name)
    assert not hasattr(joint, name)


@pytest.mark.fast
def test_ids_that_are_texts_are_plain_str():
    explanation = deepshap.Explanation(np.ones((2, 3)), np.zeros(2), np.ones((2, 3)))
    explanation.row_ids = np.array(["2024-02-27", "2024-02-28"])
    assert {type(one) for one in (*explanation.row_ids, explanation[1].row_ids)} == {str}
    assert explanation[[1]].row_ids.tolist() == ["2024-02-28"]
    with pytest.raises(ValueError, match="read-only"):  # it is a copy
        explanation.row_ids[0] = "other"
    joint = deepshap.JointExplanation([explanation, explanation])
    assert type(joint.row_ids[0]) is str
    explanation.row_ids = [3, 5]
    assert explanation.row_ids.dtype.kind == "i"


def test_csv_holds_the_table(tmp_path):
    explanation = deepshap.Explanation(np.arange(8.0).reshape(2, 4), np.zeros(2), np.ones((2, 4)))
    explanation.save(tmp_path / "why.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "why.csv"), explanation.to_dataframe(), check_dtype=False)


@pytest.mark.parametrize(
    "name",
    [
        "feature_names",
        "output_names",
        "lengths",
        "display_data",
        "predictions",
        "converged",
        "standard_errors",
        "replicates",
    ],
)
def test_nonsense_in_fields(explanation, name):
    for value in (5, object(), [[1], [2, 3]], np.zeros((9, 9))):
        with pytest.raises(deepshap.InputError, match=name.rstrip("s")):
            setattr(explanation, name, value)


def test_places_of_words_are_steps():
    torch.manual_seed(0)
    model, ids = torch.nn.Sequential(torch.nn.Embedding(7, 3), torch.nn.Flatten()), torch.randint(7, (4, 5))
    found = deepshap.DeepExplainer(model, ids)(ids)
    assert found.feature_names is None
    assert list(found.to_dataframe().columns) == ["row", "step", "output", "value", "attribution"]
    assert "4 rows × 5 steps × 15 outputs" in repr(found)
    assert "by step" in found._repr_html_()
    assert "by feature" not in found._repr_html_()
    named = deepshap.DeepExplainer(model, ids, feature_names=list("abcde"))(ids)  # whole numbers of a table
    assert named.feature_names == list("abcde")
    assert "feature" in named.to_dataframe().columns


def test_nonsense_in_arguments(explanation):
    for call in (
        lambda: explanation.to_dataframe(outputs=1.5),
        lambda: deepshap.Explanation.concat(5),
        lambda: deepshap.Explanation.from_xarray(5),
    ):
        with pytest.raises(deepshap.InputError):
            call()


@pytest.mark.parametrize("name", ["x.xlsx", "x.json", "x.csv.gz", "x.npz"])
def test_other_formats_are_not_written(explanation, tmp_path, name):
    with pytest.raises(deepshap.InputError, match="written as Parquet, or as CSV"):
        explanation.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("feature_names", ["wind"], "feature_names holds 1 names for 3 features"),
        ("feature_names", np.array(["a", "b", "c", "d"]), "feature_names holds 4 names for 3 features"),
        ("output_names", ["yes"], "output_names holds 1 names for 2 outputs"),
        ("base_values", np.zeros(3), r"base_values has shape \(3,\); here it must be \(4, 2\)"),
        ("base_values", 0.0, r"base_values has shape \(\); here it must be \(4, 2\)"),
        ("data", np.zeros((4, 3)), r"data has shape \(4, 3\); here it must be \(4, 5, 3\)"),
        ("featurenames", ["a", "b", "c"], "no attribute 'featurenames'; did you mean feature_names?"),
        ("colour", "red", "no attribute 'colour'"),
    ],
)
def test_what_does_not_fit_is_not_assigned(name, value, message):
    random = np.random.default_rng(0)
    found = deepshap.Explanation(random.normal(size=(4, 5, 3, 2)), np.zeros((4, 2)), random.normal(size=(4, 5, 3)))
    found.feature_names, found.output_names = ["wind", "rain", "sun"], ["no", "yes"]
    with pytest.raises(deepshap.InputError, match=message):
        setattr(found, name, value)
    found.data, found.base_values = found.data + 1, found.base_values + 2
    assert found[1, :, 2, 0].base_values == 2
    assert found[1:3].data.shape == (2, 5, 3)
    assert (found.feature_names, found.output_names) == (["wind", "rain", "sun"], ["no", "yes"])
    assert found.output("yes").abs.mean(0).feature_names == ["wind", "rain", "sun"]
