"""The pictures show the numbers that they were given."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from deepshap import plots

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _no_window(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: pytest.fail("a plot called show"))
    yield
    plt.close("all")


@pytest.fixture
def examples():
    """Attributions (5, 7, 3) with zeros in the padding, lengths and groups; group 1 has no example."""
    random = np.random.default_rng(0)
    lengths = np.array([7, 3, 5, 1, 7])
    values = random.normal(size=(5, 7, 3)) * (np.arange(7) < lengths[:, None])[..., None]
    return values, lengths, np.array([0, 2, 0, 2, 3])


def drawn(ax):
    return np.asarray(ax.images[0].get_array())


def test_heatmap_shows_signal_and_values_with_time_to_the_right():
    random = np.random.default_rng(1)
    values, signal = random.normal(size=(2, 6, 4))
    left, right = plots.sequence_heatmap(values, signal, feature_names="abcd", time=(0, 12), time_label="time (s)")
    np.testing.assert_array_equal(drawn(left), signal.T)
    np.testing.assert_array_equal(drawn(right), values.T)
    assert right.images[0].get_extent()[:2] == [0, 12]
    assert [label.get_text() for label in left.get_yticklabels()] == list("abcd")
    assert left.get_xlabel() == right.get_xlabel() == "time (s)"


def test_zero_is_white_and_both_signs_share_one_scale():
    _, right = plots.sequence_heatmap(np.array([[0.0, 1.0], [-3.0, 2.0]]), np.ones((2, 2)))
    image = right.images[0]
    assert image.get_clim() == (-3, 3)
    np.testing.assert_allclose(image.to_rgba(np.array([[0.0]]))[0, 0], [1, 1, 1, 1], atol=0.01)


def test_heatmap_of_nothing_can_be_drawn():
    left, _ = plots.sequence_heatmap(np.zeros((3, 2)), np.zeros((3, 2)))
    left.figure.canvas.draw()


def test_heatmap_refuses_shapes_that_differ():
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(2, 3\)"):
        plots.sequence_heatmap(np.zeros((3, 2)), np.zeros((2, 3)))


def test_axes_that_are_given_are_used(examples):
    values, lengths, groups = examples
    figure, axes = plt.subplots(1, 4)
    assert plots.sequence_heatmap(values[0], values[0], ax=axes[:2]) == tuple(axes[:2])
    assert plots.feature_importance_by_group(values, groups, ax=axes[2]) is axes[2]
    assert plots.importance_over_time(values, lengths, groups, ax=axes[3]) is axes[3]
    assert plt.get_fignums() == [figure.number]


def test_importance_by_group_is_the_mean_of_sums_over_time(examples):
    values, _, groups = examples
    ax = plots.feature_importance_by_group(values, groups, feature_names="abc")
    expected = [
        (values[0].sum(axis=0) + values[2].sum(axis=0)) / 2,
        np.zeros(3),
        (values[1].sum(axis=0) + values[3].sum(axis=0)) / 2,
        values[4].sum(axis=0),
    ]
    np.testing.assert_allclose(drawn(ax), expected)
    written = [float(text.get_text()) for text in ax.texts]
    np.testing.assert_allclose(written, np.ravel(expected), atol=0.051)


def test_groups_that_are_named_have_a_row_even_without_examples(examples):
    values, lengths, groups = examples
    for ax in (
        plots.feature_importance_by_group(values, groups, group_names="abcdef"),
        plots.importance_over_time(values, lengths, groups, group_names="abcdef"),
    ):
        assert drawn(ax).shape[0] == 6
        assert (drawn(ax)[4:] == 0).all()


def test_importance_over_time_keeps_each_groups_total(examples):
    values, lengths, groups = examples
    picture = drawn(plots.importance_over_time(values, lengths, groups, bins=4))
    assert picture.shape == (4, 4)
    by_feature = drawn(plots.feature_importance_by_group(values, groups))
    np.testing.assert_allclose(picture.sum(axis=1), by_feature.sum(axis=1))


def test_time_profile_stretches_every_sequence_to_the_same_length():
    values = np.array([[1.0, 2.0, 3.0, 4.0], [6.0, 2.0, 99.0, 99.0], [8.0, 99.0, 99.0, 99.0]])
    profile = plots.relative_time_profile(values, np.array([4, 2, 1]), bins=4)
    np.testing.assert_allclose(profile, [[1, 2, 3, 4], [3, 3, 1, 1], [2, 2, 2, 2]])
