"""Large and small values, many features and steps, one row, nothing at all: pictures stay readable, and say what they cut."""

from __future__ import annotations

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from plotting import BASE, bars, explanation, image, no_window, numbers, panel, row_names, swarm, words  # noqa: F401

import deepshap
from deepshap import InputError, plots
from deepshap.plots.style import color_limit, is_outlier

pytestmark = pytest.mark.usefixtures("no_window")
CUT = "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}"


@pytest.fixture
def enormous():
    made = explanation(rows=6, steps=7, features=3)
    made.values[2, 3, 1] = 1e4
    return made


def test_what_is_far_out():
    sizes = np.array([0.0, 1, 2, 3, 4, 10.9, 11.1])  # of 1 2 3 4 10.9 11.1: quartiles 2.25 and 9.175
    assert not is_outlier(sizes).any()
    assert (
        is_outlier(np.array([0.0, 1, 2, 3, 4, 5, 12.2])).tolist() == [False] * 7
    )  # quartiles 2.25 and 4.75: up to 12.25
    assert is_outlier(np.array([0.0, 1, 2, 3, 4, 5, 14])).tolist() == [False] * 6 + [True]
    assert color_limit(np.array([-5.0, 1, 2, 3, 4, 14, np.nan]), robust=True) == 5
    assert color_limit(np.zeros(3), robust=True) == 1


@pytest.mark.parametrize("draw", [plots.heatmap, plots.importance_map, plots.outliers])
def test_one_enormous_value_hides_no_others_if_the_scale_is_robust(enormous, draw):
    def full(**options):
        ax = draw(enormous[2] if draw is plots.heatmap else enormous, **options)
        name = {plots.heatmap: "attributions", plots.importance_map: "mean", plots.outliers: "deviations"}[draw]
        mesh = panel(ax, name).collections[0]
        return mesh.get_clim()[1], np.nanmax(mesh.get_array())

    assert full()[0] > 1e3
    limit, largest = full(robust=True)
    assert limit < 50 < 1e3 < largest  # cut, not changed


def test_bars_and_points_beyond_a_robust_scale_are_marked(enormous):
    ax = plots.importance(enormous, robust=True)
    mean = np.abs(enormous.values.sum(1)).mean(0)
    texts = [text.get_text() for text in ax.texts]
    assert [CUT in text for text in texts] == [True, False, False]
    np.testing.assert_allclose(sorted(float(text.strip(f" {CUT}")) for text in texts), np.sort(mean), atol=0.51)
    assert ax.get_xlim()[1] < 100
    ax = plots.beeswarm(enormous, robust=True)
    assert sum(map(len, swarm(ax).values())) == 6 * 3
    assert ax.get_xlim()[1] < 100
    (beyond,) = [line.get_ydata() for line in ax.lines if line.get_marker() == ">" and len(line.get_xdata())]
    assert row_names(ax)[int(beyond[0])] == "f1"
    over = panel(plots.importance_over_time(enormous, robust=True), "importance")
    assert over.get_ylim()[1] < 100
    (cut,) = [line.get_xdata().tolist() for line in over.lines if line.get_marker() == "^" and len(line.get_xdata())]
    assert cut == [3]


def test_points_beyond_a_robust_scale_are_marked_where_their_values_are(enormous):
    ax = plots.scatter(enormous, int(np.abs(enormous.values).max((0, 1)).argmax()), robust=True)
    rows, steps, feature = np.unravel_index(np.abs(enormous.values).argmax(), enormous.values.shape)
    top = ax.get_ylim()[1 if enormous.values[rows, steps, feature] > 0 else 0]
    (cut,) = [line.get_xydata() for line in ax.lines if line.get_marker() in ("^", "v") and len(line.get_xdata())]
    np.testing.assert_allclose(cut, [[enormous.data[rows, steps, feature], top]])
    assert abs(top) < 100


def test_the_sum_of_the_others_sets_no_scale_of_differences():
    made = explanation(rows=6, steps=3, features=40)
    made.values[:3, :, 10:] += 50
    ax = plots.difference(made, [0, 1, 2], max_display=5)
    sums = made.values.sum(1)
    found = sums[:3].mean(0) - sums[3:].mean(0)
    kept, low, high = np.sort(-np.abs(found))[:5], *panel(ax, "sums").get_xlim()
    spread = 1.96 * np.sqrt((sums[:3].var(0, ddof=1) + sums[3:].var(0, ddof=1)) / 3).max()
    assert -low <= abs(kept[0]) + 2 * spread
    assert high <= 1.1 * (abs(kept[0]) + spread)
    (cut,) = [
        line.get_ydata().tolist()
        for line in panel(ax, "sums").lines
        if line.get_marker() == ">" and len(line.get_xdata())
    ]
    assert cut == [5]


def test_differences_of_nothing_have_a_scale():
    made = explanation(rows=4, steps=3, features=2)
    made.values[:] = 0
    assert panel(plots.difference(made, [0]), "sums").get_xlim() == (-1, 1)


def test_the_sum_of_the_others_sets_no_scale():
    made = explanation(rows=5, steps=3, features=40)
    made.values[..., 30:] = 9
    made.values[..., :5] *= 100
    ax = plots.importance(made, max_display=5)
    sizes = np.abs(made.values.sum(1)).mean(0)
    rest = np.abs(made.values[..., 5:].sum((1, 2))).mean()
    assert row_names(ax)[-1] == "other 35 features"
    assert [float(text.get_text().strip(f" {CUT}")) for text in ax.texts][-1] == pytest.approx(rest, abs=0.5)
    reach = np.abs(made.values[..., :5].sum(1))
    low, high = plots.beeswarm(made, max_display=5).get_xlim()
    assert high - low < 2.5 * reach.max()
    assert sizes[:5].max() < rest * 100  # the case at all
    for draw in (plots.outliers, lambda e, **k: plots.importance_by_group(e, [0, 0, 1, 1, 1], **k)):
        ax = draw(made, max_display=5)
        ax = panel(ax, "deviations") if ax.child_axes else ax
        drawn = image(ax)
        assert ax.collections[0].get_clim()[1] == pytest.approx(np.abs(drawn[:, :-1]).max())


def test_thousands_of_steps_are_few_columns():
    made = explanation(rows=3, steps=3000, features=2)
    ax = panel(plots.importance_over_time(made), "importance")
    (mean,) = [line for line in ax.lines if line.get_linewidth() == 1.6]
    assert len(mean.get_xdata()) == 100
    np.testing.assert_allclose(mean.get_ydata().sum(), made.values.sum((1, 2)).mean())
    assert "30 steps each" in ax.get_xlabel()


def test_one_row_does_not_differ():
    made = explanation(rows=1)
    ax = panel(plots.importance_over_time(made), "importance")
    assert "quartiles" not in " ".join(text.get_text() for text in ax.get_legend().get_texts())
    assert [child.get_label() for child in plots.importance_map(made).child_axes] == ["mean", "scale of means"]
    with pytest.raises(InputError, match="compares rows, and there is one"):
        plots.outliers(made)


@pytest.mark.parametrize("size", [1.0, 1e-5, 1e-12, 1e6, 0.0])
def test_numbers_below_a_text_do_not_overlap(size):
    ax = plots.text(words(["so", "very", "good"], list(size * np.array([-0.04, 1.0, 0.3]))))
    (scale,) = ax.child_axes
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in scale.get_xticklabels() if label.get_text()]
    frame = ax.figure.get_window_extent()
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    found = numbers(scale.get_xticklabels())
    assert found == ([0.0] if size == 0 else [0.0, pytest.approx(size, rel=0.01)])


def test_letters_are_white_on_full_colours_and_nothing_has_no_sign():
    made = deepshap.Explanation(np.array([[[1.0, 0.2], [0.0, -1.0]]]), np.zeros(1), np.ones((1, 2, 2)))
    ax = panel(plots.heatmap(made[0]), "attributions")
    assert {text.get_text(): text.get_color() for text in ax.texts} == {
        "+1.00": "white",
        "+0.20": "black",
        "0.00": "black",
        "\N{MINUS SIGN}1.00": "white",
    }


def test_the_axis_of_steps_has_its_own_name_where_it_holds():
    made = explanation(rows=3, steps=6, lengths=[6, 4, 5])
    made.time_label = "time (h)"
    assert panel(plots.heatmap(made[0]), "inputs").get_xlabel() == "time (h)"
    assert panel(plots.heatmap(made[0], time_label="hours"), "inputs").get_xlabel() == "hours"
    for align, label in {"start": "time (h)", "end": "steps before", "relative": "part of the sequence"}.items():
        assert label in plots.importance_over_time(made, align=align).child_axes[-1].get_xlabel()


@pytest.mark.parametrize("draw", [plots.importance, lambda made, ax: plots.cohorts(made, [0], ax=ax)])
@pytest.mark.filterwarnings("error")
def test_a_legend_leaves_narrow_pictures_their_room(draw):
    figure, ax = plt.subplots(figsize=(3.2, 2.4), layout="constrained")
    drawn = draw(explanation(), ax=ax)
    figure.draw_without_rendering()
    box = (drawn.child_axes[0] if drawn.child_axes else drawn).get_window_extent()
    assert box.width > figure.bbox.width / 4
    assert drawn.get_legend().get_window_extent().width < 1.2 * drawn.get_window_extent().width
