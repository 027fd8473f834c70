"""Standard errors in pictures: whiskers, bands and dots where they belong, and nothing where they are not known."""

import inspect

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import PathPatch
from plotting import explanation, no_window, panel  # noqa: F401

import deepshap
from deepshap import plots

ROWS, STEPS, FEATURES, REPLICATES = 5, 6, 3, 4
pytestmark = pytest.mark.usefixtures("no_window")


@pytest.fixture
def unsure():
    made = explanation(ROWS, STEPS, FEATURES)
    random = np.random.default_rng(9)
    common = random.normal(size=(REPLICATES, ROWS, 1, 1))  # so that errors of sums are not sums of errors
    made.replicates = made.values + 0.5 * common + 0.5 * random.normal(size=(REPLICATES, ROWS, STEPS, FEATURES))
    return made


def spread(estimates):
    """Standard error of the mean of the first axis."""
    return estimates.std(0, ddof=1) / np.sqrt(len(estimates))


def dotted(ax):
    """Middles (column, row) of the dotted cells of a map of steps."""
    (patch,) = [p for p in ax.patches if isinstance(p, PathPatch) and p.get_hatch() == "...."]
    corners = patch.get_path().vertices.reshape(-1, 5, 2)[:, :4]
    return {tuple(middle) for middle in corners.mean(1).round(6).tolist()}


def whiskers(ax):
    """Half lengths of the whiskers, and where they are."""
    (bars,) = [c for c in ax.containers if type(c).__name__ == "ErrorbarContainer"]
    segments = np.array(bars.lines[2][0].get_segments())  # (bars, ends, 2)
    return np.ptp(segments, axis=1).max(1) / 2, segments.mean(1)


def test_a_heat_map_dots_what_is_below_two_errors(unsure):
    one = unsure[1]
    ax = plots.heatmap(one)
    errors = spread(unsure.replicates[:, 1])
    expected = {(step, row) for step, row in np.argwhere(np.abs(one.values) < 2 * errors).tolist()}
    assert 0 < len(expected) < one.values.size
    assert dotted(panel(ax, "attributions")) == expected
    sizes, _ = whiskers(panel(ax, "sums"))
    np.testing.assert_allclose(sizes, 2 * spread(unsure.replicates[:, 1].sum(1)), rtol=1e-9)


def test_a_waterfall_has_whiskers_of_each_step(unsure):
    one = unsure[2]
    sizes, places = whiskers(panel(plots.buildup(one), "output"))
    np.testing.assert_allclose(sizes, 2 * spread(unsure.replicates[:, 2].sum(2)), rtol=1e-9)
    np.testing.assert_allclose(places[:, 1], one.base_values + one.values.sum(1).cumsum(), rtol=1e-9)


def test_importance_has_whiskers_of_the_mean_over_independent_rows(unsure):
    per_feature = unsure.values.sum(1)
    sizes, places = whiskers(plots.importance(unsure))
    order = np.argsort(-np.abs(per_feature).mean(0))
    of_rows = spread(unsure.replicates.sum(2))  # (rows, features)
    np.testing.assert_allclose(sizes, 2 * np.sqrt((of_rows**2).sum(0))[order] / ROWS, rtol=1e-9)
    np.testing.assert_allclose(places[:, 0], np.abs(per_feature).mean(0)[order], rtol=1e-9)


def test_the_others_are_one_sum(unsure):
    sizes, _ = whiskers(plots.importance(unsure[0:1], max_display=1))
    order = np.argsort(-np.abs(unsure.values[0].sum(0)))
    replicates = unsure.replicates[:, 0].sum(1)
    assert len(sizes) == 2
    np.testing.assert_allclose(sizes[1], 2 * spread(replicates[:, order[1:]].sum(1)), rtol=1e-9)


def test_errors_alone_add_up():
    """Without replicates nothing is known of how errors go together: whiskers are upper bounds."""
    made = explanation(ROWS, STEPS, FEATURES)
    made.standard_errors = np.full(made.values.shape, 0.1)
    sizes, _ = whiskers(plots.importance(made))
    np.testing.assert_allclose(sizes, 2 * 0.1 * STEPS)
    sizes, _ = whiskers(panel(plots.buildup(made[0]), "output"))
    np.testing.assert_allclose(sizes, 2 * 0.1 * FEATURES)


def test_means_over_rows_of_different_lengths(unsure):
    made = explanation(ROWS, STEPS, FEATURES, lengths=[6, 4, 2, 6, 3])
    there = made.values != 0
    made.replicates = made.values + there * np.random.default_rng(1).normal(size=(REPLICATES, ROWS, STEPS, FEATURES))
    counts = there.any(2).sum(0)
    mean = made.values.sum(0) / counts[:, None]
    errors = np.sqrt((spread(made.replicates) ** 2).sum(0)) / counts[:, None]
    expected = {(step, row) for step, row in np.argwhere(np.abs(mean) < 2 * errors).tolist()}
    assert expected
    assert dotted(panel(plots.importance_map(made), "mean")) == expected
    ax = panel(plots.importance_over_time(made), "importance")
    (band,) = [c for c in ax.collections if np.allclose(c.get_facecolor()[0][:3], to_rgba("0.62")[:3], atol=0.01)]
    heights = band.get_paths()[0].get_extents().get_points()[:, 1]
    of_steps = np.sqrt((spread(made.replicates.sum(3)) ** 2).sum(0)) / counts
    np.testing.assert_allclose(heights.max(), (mean.sum(1) + 2 * of_steps).max(), rtol=1e-9)
    np.testing.assert_allclose(heights.min(), (mean.sum(1) - 2 * of_steps).min(), rtol=1e-9)


def test_groups(unsure):
    unsure.standard_errors, groups = None, np.array([0, 1, 0, 1, 1])
    unsure.replicates = unsure.values + 0.3 * (unsure.replicates - unsure.values)
    ax = plots.importance_by_group(unsure, groups)
    expected = set()
    for group in (0, 1):
        rows = groups == group
        mean = unsure.values[rows].sum(1).mean(0)
        errors = np.sqrt((spread(unsure.replicates[:, rows].sum(2)) ** 2).sum(0)) / rows.sum()
        expected |= {(int(column), group) for column in np.flatnonzero(np.abs(mean) < 2 * errors)}
    assert 0 < len(expected) < 6
    assert dotted(ax) == expected


def test_outputs_at_every_step():
    made = explanation(1, STEPS, FEATURES, outputs=4)
    made.replicates = made.values + np.random.default_rng(1).normal(size=(REPLICATES, *made.values.shape))
    matrix = made.values[0].sum(1)  # (steps, outputs)
    errors = spread(made.replicates[:, 0].sum(2))
    expected = {(step, output) for step, output in np.argwhere(np.abs(matrix) < 2 * errors).tolist()}
    assert dotted(plots.output_matrix(made[0])) == expected


@pytest.mark.parametrize(
    "name", ["heatmap", "buildup", "signal", "importance", "importance_over_time", "importance_map"]
)
def test_nothing_is_drawn_that_is_not_known(name):
    made = explanation(ROWS, STEPS, FEATURES)
    ax = getattr(plots, name)(made[0] if name in ("heatmap", "buildup", "signal") else made)
    for each in (ax, *ax.child_axes):
        assert not [c for c in each.containers if type(c).__name__ == "ErrorbarContainer"]
        assert not [p for p in each.patches if p.get_hatch() == "...."]
        legend = each.get_legend()
        assert legend is None or not [t for t in legend.get_texts() if "standard error" in t.get_text()]


# ---------------------------------------------------------------------- players
def players(kind):
    made = explanation(ROWS, 1, 4)[:, 0]
    made._forget("steps")
    made.feature_names, made.players = ["one", "two", "three", "four"], kind
    return made


def test_players_in_time_are_steps():
    ax = panel(plots.buildup(players("window of 5 steps")[0]), "output")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["one", "two", "three", "four"]


@pytest.mark.parametrize("kind", ["groups", "features"])
def test_other_players_are_features(kind):
    made = players(kind)
    ax = plots.importance(made)
    order = np.argsort(-np.abs(made.values).mean(0))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [made.feature_names[i] for i in order]
    panels = plots.heatmap(made[0])
    assert [t.get_text() for t in panel(panels, "attributions").get_yticklabels()] == made.feature_names


# ---------------------------------------------------------------------- docstrings
@pytest.mark.parametrize("name", [name for name in plots.__all__ if callable(getattr(plots, name))])
def test_every_parameter_is_described_once(name):
    function = getattr(plots, name)
    text = inspect.cleandoc(function.__doc__)
    described = text.partition("Parameters\n----------\n")[2].partition("\n\nReturns\n")[0]
    found = [item for line in described.splitlines() if line[:1].strip() for item in line.split(" : ")[0].split(", ")]
    assert sorted(found) == sorted(inspect.signature(function).parameters)
    assert text.count("Returns\n-------") == text.count("Raises\n------") == 1
    assert max(map(len, text.splitlines())) <= 130


def test_words_are_dotted_below_two_errors():
    random = np.random.default_rng(4)
    made = deepshap.Explanation(random.normal(size=(1, 6)), np.zeros(1), np.array([list("abcdef")]))
    made.standard_errors = np.abs(random.normal(size=(1, 6)))
    expected = (np.abs(made.values[0]) < 2 * made.standard_errors[0]).tolist()
    assert 0 < sum(expected) < 6
    ax = plots.text(made[0])
    assert [text.get_bbox_patch().get_hatch() == "...." for text in ax.texts] == expected
    spans = plots.text_html(made).split("</span>")[:6]
    assert ["underline dotted" in span for span in spans] == expected


def test_points_are_hollow_below_two_errors(unsure):
    sums, errors = unsure.values.sum(1), spread(unsure.replicates.sum(2))
    found = {
        round(float(value), 9): face[3] == 0
        for points in [c for c in plots.beeswarm(unsure).collections if len(c.get_offsets())]
        for value, face in zip(points.get_offsets()[:, 0], points.get_facecolor(), strict=True)
    }
    hollow = np.abs(sums) < 2 * errors
    assert [found[round(value, 9)] for value in sums.ravel()] == hollow.ravel().tolist()
    assert 0 < hollow.sum() < hollow.size
    dots = next(c for c in plots.scatter(unsure, 1).collections if len(c.get_offsets()))
    found = {
        tuple(point): face[3] == 0
        for point, face in zip(np.asarray(dots.get_offsets()).round(9).tolist(), dots.get_facecolor(), strict=True)
    }
    cells = np.abs(unsure.values[..., 1]) < 2 * spread(unsure.replicates[..., 1])
    for value, data, unsure_one in zip(
        unsure.values[..., 1].ravel(), unsure.data[..., 1].ravel(), cells.ravel(), strict=True
    ):
        assert found[round(data, 9), round(value, 9)] == unsure_one


def test_bars_and_waterfalls_of_shap_have_whiskers(unsure):
    per_feature, of_rows = unsure.values.sum(1), spread(unsure.replicates.sum(2))
    order = np.argsort(-np.abs(per_feature).mean(0))
    sizes, places = whiskers(plots.bar(unsure))
    np.testing.assert_allclose(sizes, 2 * np.sqrt((of_rows**2).sum(0))[order] / ROWS, rtol=1e-9)
    np.testing.assert_allclose(places[:, 0], np.abs(per_feature).mean(0)[order], rtol=1e-9)
    order = np.argsort(-np.abs(per_feature[1]))
    sizes, places = whiskers(plots.bar(unsure[1]))
    np.testing.assert_allclose(sizes, 2 * of_rows[1][order], rtol=1e-9)
    np.testing.assert_allclose(places[:, 0], per_feature[1][order], rtol=1e-9)
    drawn = [c.lines[2][0].get_segments()[0] for c in plots.waterfall(unsure[1]).containers if hasattr(c, "lines")]
    found = {round(float(line[0, 1])): np.ptp(line[:, 0]) / 2 for line in drawn}
    np.testing.assert_allclose([found[place] for place in (2, 1, 0)], 2 * of_rows[1][order], rtol=1e-9)


def test_outliers_are_dotted_below_two_errors(unsure):
    ax = panel(plots.outliers(unsure), "deviations")
    sums, errors = unsure.values.sum(1), spread(unsure.replicates.sum(2))
    deviations = sums - np.median(sums, 0)
    order = np.argsort(-np.abs(deviations).sum(1), kind="stable")
    expected = np.abs(deviations)[order] < 2 * errors[order]
    assert dotted(ax) == {(column, row) for row, column in np.argwhere(expected).tolist()}
