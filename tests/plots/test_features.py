"""Pictures of features: of tables, of all inputs of a model, of two groups, and of what their values do."""

from __future__ import annotations

import numpy as np
import pytest
from plotting import bars, explanation, image, no_window, numbers, panel, row_names, swarm  # noqa: F401

import deepshap
from deepshap import InputError, plots

pytestmark = pytest.mark.usefixtures("no_window")


def table(rows=8, features=3, seed=0):
    random = np.random.default_rng(seed)
    made = deepshap.Explanation(
        random.normal(size=(rows, features)), np.full(rows, 0.5), random.normal(size=(rows, features))
    )
    made.feature_names = ["north", "high", "dry"][:features]
    return made


@pytest.fixture
def joint():
    return deepshap.JointExplanation({"weather": explanation(8, 5, 2, names=["wind", "sun"]), "place": table()})


def lengths_of_bars(ax):
    return [sum(width for _, width in line) for line in bars(ax)]


def test_static_inputs_have_importance_and_beeswarm():
    made = table()
    sizes = np.abs(made.values).mean(0)
    order = np.argsort(-sizes)
    ax = plots.importance(made)
    assert row_names(ax) == [made.feature_names[i] for i in order]
    np.testing.assert_allclose(lengths_of_bars(ax), sizes[order])
    ax = plots.beeswarm(made)
    drawn = swarm(ax)
    assert list(drawn) == [made.feature_names[i] for i in order]
    np.testing.assert_allclose(list(drawn.values()), np.sort(made.values, 0).T[order])
    assert ax.get_xlabel() == "attribution"
    np.testing.assert_allclose(
        image(panel(plots.outliers(made, rows=8), "deviations")).sum(), (made.values - np.median(made.values, 0)).sum()
    )


def test_all_inputs_of_a_model_are_side_by_side(joint):
    totals = np.concatenate([joint["weather"].values.sum(1), joint["place"].values], 1)
    sizes = np.abs(totals).mean(0)
    names = ["wind", "sun", "north", "high", "dry"]
    ax = plots.importance(joint)
    assert row_names(ax) == [names[i] for i in np.argsort(-sizes)]
    np.testing.assert_allclose(lengths_of_bars(ax), np.sort(sizes)[::-1])
    assert ax.get_xlabel() == "mean |attribution summed over time|"
    groups = np.arange(8) % 2
    drawn = image(plots.importance_by_group(joint, groups))
    np.testing.assert_allclose(drawn, [totals[groups == g].mean(0) for g in (0, 1)])
    joint["place"].feature_names = ["wind", "sun", "dry"]
    assert "place: wind" in row_names(plots.importance(joint))


def test_one_row_of_all_inputs_adds_up(joint):
    joint["weather"].replicates = joint["weather"].values + np.random.default_rng(1).normal(size=(3, 8, 5, 2))
    ax = plots.inputs(joint, 3)
    np.testing.assert_allclose(image(panel(ax, "weather")), joint["weather"].values[3].T)
    np.testing.assert_allclose(image(panel(ax, "place"))[:, 0], joint["place"].values[3])
    written = np.concatenate([numbers(panel(ax, f"sums of {name}").texts) for name in ("weather", "place")])
    np.testing.assert_allclose(written, [*joint["weather"].values[3].sum(0), *joint["place"].values[3]], atol=0.06)
    values = [name.split(" = ")[1].replace("\N{MINUS SIGN}", "-") for name in row_names(panel(ax, "place"))]
    np.testing.assert_allclose(np.array(values, float), joint["place"].data[3], rtol=6e-3)
    with pytest.raises(InputError, match=r"row=0"):
        plots.inputs(joint)
    with pytest.raises(InputError, match="no row 8 among 8"):
        plots.inputs(joint, 8)
    few = plots.inputs(joint, -1, max_display=2)
    folded = np.concatenate([image(panel(few, name)).sum(1) for name in ("weather", "place")])
    np.testing.assert_allclose(folded.sum(), joint["weather"].values[-1].sum() + joint["place"].values[-1].sum())


def test_two_groups_are_on_one_scale():
    made = explanation(rows=7, steps=4, features=5)
    chosen = np.array([1, 0, 0, 1, 1, 0, 0], bool)
    ax = plots.cohorts(made, chosen, names=("ill", "well"), max_display=3)
    left, right = panel(ax, "ill (3)"), panel(ax, "well (4)")
    sums = made.values.sum(1)
    means = np.stack([np.abs(sums[mask]).mean(0) for mask in (chosen, ~chosen)])
    kept = np.argsort(-means.mean(0))[:3]
    assert row_names(left) == [*(made.feature_names[i] for i in kept), "other 2 features"]
    for side, mask in ((left, chosen), (right, ~chosen)):
        rest = np.delete(sums[mask], kept, 1).sum(1)
        np.testing.assert_allclose(lengths_of_bars(side), [*np.abs(sums[mask][:, kept]).mean(0), np.abs(rest).mean()])
    assert left.get_xlim() == right.get_xlim()
    with pytest.raises(InputError, match=r"plots.cohorts: rows must be a mask of 7"):
        plots.cohorts(made, [9])


# ---------------------------------------------------------------------- values and attributions
def points(ax):
    return np.concatenate([np.ma.getdata(c.get_offsets()) for c in ax.collections if len(c.get_offsets())])


def in_order(pairs):
    return np.asarray(pairs)[np.lexsort(np.asarray(pairs).T)]


def test_scatter_has_a_point_for_every_step_that_is_no_padding():
    made = explanation(rows=5, steps=6, features=2, lengths=[6, 2, 4, 6, 1])
    there = np.arange(6) < made.lengths[:, None]
    ax = plots.scatter(made, "f1", time_label="time (s)")
    expected = np.stack([made.data[..., 1][there], made.values[..., 1][there]], 1)
    np.testing.assert_allclose(in_order(points(ax)), in_order(expected))
    assert ax.get_xlabel() == "f1"
    last = np.stack([made.data[np.arange(5), made.lengths - 1, 1], made.values[np.arange(5), made.lengths - 1, 1]], 1)
    np.testing.assert_allclose(in_order(points(plots.scatter(made, 1, step=-1))), in_order(last))


def test_scatter_takes_the_strongest_feature_and_refuses_what_is_not_there():
    made = table()
    best = np.abs(made.values).mean(0).argmax()
    ax = plots.scatter(made)
    np.testing.assert_allclose(in_order(points(ax)), in_order(np.stack([made.data[:, best], made.values[:, best]], 1)))
    assert ax.get_xlabel() == made.feature_names[best]
    with pytest.raises(InputError, match="no feature 'rain' among 3"):
        plots.scatter(made, "rain")
    with pytest.raises(InputError, match="no row has step 9"):
        plots.scatter(explanation(), 0, step=9)
    made.data = None
    with pytest.raises(InputError, match="draws values"):
        plots.scatter(made)


# ---------------------------------------------------------------------- images
@pytest.mark.parametrize("channels", ["first", "last", None])
def test_images_sum_their_channels_and_show_each(channels):
    random = np.random.default_rng(3)
    values = random.normal(size=(1, 9, 4, 5)) if channels == "first" else random.normal(size=(1, 4, 5, 3))
    ax = plots.image(deepshap.Explanation(values, np.zeros(1), np.abs(values))[0], channels=channels, max_display=2)
    last = np.moveaxis(values[0], 0, -1) if channels == "first" else values[0]
    found = strengths(panel(ax, "all channels"))
    limit = (
        np.abs(last.sum(-1)).max() if channels != "first" else np.quantile(np.abs(last.sum(-1)), 0.998, method="higher")
    )
    assert np.sign(found).tolist() == np.sign(last.sum(-1)).tolist()
    order = np.argsort(np.abs(found), axis=None)
    assert (np.diff(np.abs(last.sum(-1)).ravel()[order]) >= 0).all()
    assert limit > 0
    names = [child.get_label() for child in ax.child_axes]
    assert ("input" in names) == (channels != "first")
    assert ("other 7 channels" in names) == (channels == "first")


def strengths(ax):
    """Signed opacity of the uppermost picture."""
    shades = np.asarray(ax.images[-1].get_array())
    return np.where(shades[..., 0] > shades[..., 2], 1, -1) * shades[..., 3]


def test_images_without_channels_and_of_unclear_ones():
    flat = deepshap.Explanation(np.random.default_rng(0).normal(size=(2, 6, 6)), np.zeros(2))
    assert [child.get_label() for child in plots.image(flat[0]).child_axes] == ["attributions", "scale of attributions"]
    with pytest.raises(InputError, match="choose one"):
        plots.image(flat)
    cube = deepshap.Explanation(np.ones((1, 3, 4, 3)), np.zeros(1))
    with pytest.raises(InputError, match="channels='first'"):
        plots.image(cube)
    with pytest.raises(InputError, match="'first' or 'last', not 'left'"):
        plots.image(cube, channels="left")
    with pytest.raises(InputError, match=r"not \(3,\)"):
        plots.image(deepshap.Explanation(np.ones((1, 3)), np.zeros(1)))


@pytest.mark.parametrize(
    ("explained", "own"),
    [
        ("predicted", "dog"),
        ("predicted - runner-up", "dog - emu"),
        ("log-odds of true", "emu"),
        ("true - cat", "emu - cat"),
        ("cat", None),
    ],
)
def test_a_picture_of_one_row_says_what_was_predicted(explained, own):
    values = np.random.default_rng(0).normal(size=(3, 4, 2))
    made = deepshap.Explanation(values, np.zeros(3), values)
    made.explained, made.classes, made.targets = explained, ["cat", "dog", "emu"], [0, 2, 1]
    made.output_names = explained
    made.predictions = [[1, 2, 3], [0.1, 0.5, 0.3], [3, 2, 1]]
    title = panel(plots.heatmap(made[1]), "output").get_title()
    assert title == (f"{explained} ({own})" if own else explained)
    assert plots.importance(made).get_title() == explained
    assert explained in panel(plots.difference(made, [0]), "differences").get_title()
