"""The pictures show the numbers of the explanation."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib import dates
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from plotting import BASE, bars, explainer, explanation, image, numbers, panel, row_names, swarm
from plotting import no_window as no_window

import deepshap
from deepshap import InputError, plots
from deepshap.plots.style import DOWN, EVIDENCE, LOW_HIGH, UP, short, spread_apart
from deepshap.plots.timeline import stretch

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_window")]


# ---------------------------------------------------------------------- one row
@pytest.mark.fast
def test_heatmap_shows_attributions_sums_inputs_and_the_output():
    one = explanation()[1]
    ax = plots.heatmap(one, unit="mm")
    attributions = panel(ax, "attributions")
    np.testing.assert_allclose(image(attributions), one.values.T)
    assert row_names(attributions) == ["f0", "f1", "f2"]
    assert attributions.get_ylim() == (2.5, -0.5)  # the first feature on top
    sums = [width for ((_, width),) in bars(panel(ax, "sums"))]
    np.testing.assert_allclose(sums, one.values.sum(0))
    np.testing.assert_allclose(numbers(panel(ax, "sums").texts), one.values.sum(0), atol=0.051)
    curve = panel(ax, "output").lines[0].get_ydata()
    np.testing.assert_allclose(curve, BASE + np.append(0, one.values.sum(1).cumsum()))
    inputs = image(panel(ax, "inputs"))
    np.testing.assert_allclose(inputs, ((one.data - one.data.min(0)) / np.ptp(one.data, 0)).T)
    assert panel(ax, "scale of attributions").get_ylabel().split() == ["attribution", "(mm)"]


def test_zero_is_white_and_both_signs_share_one_scale():
    mesh = panel(plots.heatmap(explanation()[0]), "attributions").collections[0]
    low, high = mesh.get_clim()
    assert low == -high
    np.testing.assert_allclose(mesh.to_rgba(np.array([[0.0]]))[0, 0], [1, 1, 1, 1], atol=0.01)


def test_shap_red_is_up_and_blue_is_down_and_hatched():
    assert np.allclose(EVIDENCE(1.0), matplotlib.colors.to_rgba("#ff0051"), atol=0.01)
    assert np.allclose(EVIDENCE(0.0), matplotlib.colors.to_rgba("#008bfb"), atol=0.01)
    ax = plots.buildup(explanation()[0])
    per_step = explanation().values[0].sum(1)
    waterfall = panel(ax, "output").patches
    assert {bar.get_hatch() for bar in waterfall if bar.get_height() > 0} == {None}
    assert all(bar.get_hatch() for bar in waterfall if bar.get_height() < 0)
    assert len(waterfall) == len(per_step)


def test_cells_that_push_down_are_hatched():
    one = explanation(1, 3, 2)[0]
    one.values = np.array([[1.0, -1.0], [0.5, 2.0], [-2.0, 0.0]])
    attributions = panel(plots.heatmap(one), "attributions")
    (hatched,) = [patch for patch in attributions.patches if patch.get_hatch()]
    centers = hatched.get_path().vertices.reshape(-1, 5, 2)[:, :4].mean(1)
    assert sorted(map(tuple, centers)) == [(0.0, 1.0), (2.0, 0.0)]  # (step, feature)


def test_inputs_before_scaling_are_shown_where_they_are_known():
    one = explanation()[0]
    one.display_data = one.data**3
    ax = plots.signal(one)
    line = next(c for c in panel(ax, "inputs of f1").collections if isinstance(c, LineCollection))
    np.testing.assert_allclose(
        [piece[1] for piece in line.get_segments()], np.stack([np.arange(7), one.data[:, 1] ** 3], 1)
    )


def test_signal_is_coloured_by_the_attributions_and_has_them_as_bars():
    one = explanation()[3]
    ax = plots.signal(one)
    for i, name in enumerate(one.feature_names):
        line = next(c for c in panel(ax, f"inputs of {name}").collections if isinstance(c, LineCollection))
        np.testing.assert_allclose(line.get_array(), one.values[:, i])
        pieces = np.array(line.get_segments())
        np.testing.assert_allclose(pieces[:, 1], np.stack([np.arange(7), one.data[:, i]], 1))
        np.testing.assert_allclose(pieces[1:, 0], pieces[:-1, 2])  # without gaps
        found = {
            round(b.get_x() + b.get_width() / 2): b.get_height() for b in panel(ax, f"attributions of {name}").patches
        }
        np.testing.assert_allclose([found[step] for step in range(7)], one.values[:, i])


def test_signal_draws_steps_without_neighbours_as_dots_in_the_colour_of_their_attribution():
    one = explanation(lengths=[1, 7, 7, 7])
    one.data[1, [1, 3], 0] = np.nan  # step 2 stands alone, and so does step 0
    for row, lone in ((0, [0]), (1, [0, 2])):
        top = panel(plots.signal(one[row]), "inputs of f0")
        (dots,) = [c for c in top.collections if isinstance(c, PathCollection)]
        np.testing.assert_allclose(dots.get_offsets(), np.stack([lone, one.data[row, lone, 0]], 1))
        (line,) = [c for c in top.collections if isinstance(c, LineCollection)]
        np.testing.assert_allclose(dots.get_array(), one.values[row, lone, 0])
        np.testing.assert_array_equal(dots.to_rgba(dots.get_array()), line.to_rgba(dots.get_array()))


def test_signal_needs_numbers():
    unknown = deepshap.Explanation(np.ones((2, 5, 3)), np.zeros(2))
    with pytest.raises(InputError, match="display_data"):
        plots.signal(unknown[0])


def test_features_that_are_not_drawn_complete_the_sum():
    one = explanation(1, 12, 30)[0]
    strongest = set(np.argsort(-np.abs(one.values).mean(0))[:5])
    ax = plots.heatmap(one, max_display=5)
    drawn = image(panel(ax, "attributions"))
    assert row_names(panel(ax, "attributions")) == [*(f"f{i}" for i in sorted(strongest)), "other 25 features"]
    np.testing.assert_allclose(drawn[:5], one.values[:, sorted(strongest)].T)
    np.testing.assert_allclose(drawn.sum(0), one.values.sum(1))
    ax = plots.signal(one, max_display=5)
    rest = sum(bar.get_height() for bar in panel(ax, "attributions of other 25 features").patches)
    np.testing.assert_allclose(rest, np.delete(one.values, list(strongest), 1).sum())
    ax = plots.buildup(one, max_display=3)
    ends = [line.get_ydata()[-1] for line in panel(ax, "features").lines if len(line.get_xdata()) == 13]
    assert len(ends) == 4
    np.testing.assert_allclose(sum(ends), one.values.sum())


def test_other_features_set_no_scale():
    values = np.ones((8, 40))
    values[:, :3] = 2
    one = deepshap.Explanation(values[None], np.zeros(1), values[None])[0]
    for ax in (
        plots.heatmap(one, max_display=3),
        plots.importance_map(deepshap.Explanation(values[None], np.zeros(1)), max_display=3),
    ):
        (mesh,) = [c for c in ax.child_axes[0].collections if isinstance(c, QuadMesh)]
        assert mesh.get_clim() == (-2, 2)
    ax = plots.signal(one, max_display=3)
    assert panel(ax, "attributions of Feature 0").get_ylim()[1] < 3
    assert panel(ax, "attributions of other 37 features").get_ylim()[1] > 37


def test_a_single_other_feature_is_shown_itself():
    ax = plots.heatmap(explanation(1, 5, 4)[0], max_display=3)
    assert row_names(panel(ax, "attributions")) == ["f0", "f1", "f2", "f3"]


def test_many_steps_are_summed_in_bins_and_the_axis_says_so():
    one = explanation(1, 5000, 2)[0]
    ax = plots.heatmap(one)
    drawn = image(panel(ax, "attributions"))
    assert drawn.shape[1] == 385  # of 13 steps
    np.testing.assert_allclose(drawn[:, 0], one.values[:13].sum(0))
    np.testing.assert_allclose(drawn.sum(1), one.values.sum(0))
    assert panel(ax, "inputs").get_xlabel() == "step (attributions summed over 13 steps each)"
    ax = plots.signal(one)
    bottom = panel(ax, "attributions of f1")
    assert "average and range" in bottom.get_xlabel()
    envelope = panel(ax, "inputs of f0").collections[0].get_paths()[0].vertices
    assert envelope[:, 1].max() == one.data[:, 0].max()
    assert envelope[:, 1].min() == one.data[:, 0].min()


def test_buildup_starts_at_the_base_value_and_ends_at_the_output():
    one = explanation()[2]
    ax = plots.buildup(one)
    top, steps = panel(ax, "output"), one.values.sum(1)
    waterfall = sorted((b for b in top.patches if b.get_height()), key=lambda b: b.get_x())
    np.testing.assert_allclose([b.get_height() for b in waterfall], steps)
    before = BASE + np.append(0, steps.cumsum()[:-1])
    np.testing.assert_allclose([b.get_y() for b in waterfall], before)
    texts = [t.get_text().replace("\N{MINUS SIGN}", "-") for t in top.texts]
    assert f"base value {BASE}" in texts
    assert float(next(t for t in texts if t.startswith("output")).split()[1]) == pytest.approx(
        BASE + steps.sum(), abs=0.006
    )
    for line, total in zip(panel(ax, "features").lines[1:], one.values.sum(0), strict=True):
        assert line.get_ydata()[0] == 0
        assert line.get_ydata()[-1] == pytest.approx(total)


def test_few_steps_have_their_numbers_written():
    one = explanation(1, 5, 1)[0]
    written = [t for t in panel(plots.buildup(one), "output").texts if t.get_text()[0] in "+\N{MINUS SIGN}"]
    np.testing.assert_allclose(np.sort(numbers(written)), np.sort(one.values.sum(1)), atol=0.006)


def test_numbers_of_steps_stay_beside_what_is_written_around_the_axes():
    values = np.zeros((1, 60, 1))
    values[0, [0, -1]] = [[-2.34e-10], [3.45e-10]]
    ax = plots.buildup(deepshap.Explanation(values, np.zeros(1), values)[0])
    ax.figure.canvas.draw()
    top = panel(ax, "output")
    numbers_drawn = [text for text in top.texts if "e" in text.get_text() and text.get_text()[0] in "+\N{MINUS SIGN}"]
    assert len(numbers_drawn) == 2
    limits = top.get_window_extent()
    for text in numbers_drawn:
        box = text.get_window_extent()
        assert limits.x0 - 1 <= box.x0 < box.x1 <= limits.x1 + 1


@pytest.mark.parametrize("scale", [1e11, 1e-9])
@pytest.mark.parametrize("name", ["buildup", "importance_over_time"])
def test_powers_of_ten_are_not_written_over_the_legend(name, scale):
    made = explanation()
    made.values, made.base_values = made.values * scale, made.base_values * scale
    ax = getattr(plots, name)(made[0] if name == "buildup" else made)
    ax.figure.canvas.draw()
    top = ax.child_axes[0]
    power = top.yaxis.get_offset_text()
    assert power.get_text().startswith("1e")
    assert not power.get_window_extent().overlaps(top.get_legend().get_window_extent())


@pytest.mark.parametrize("base", [0, 0.25, 3e11])
@pytest.mark.parametrize("steps", [7, 60])
def test_nothing_but_zeros_has_a_scale_around_them_and_no_numbers(base, steps):
    nothing = explanation(steps=steps)
    nothing.values, nothing.base_values = 0 * nothing.values, np.full(4, float(base))
    top = panel(plots.buildup(nothing[0]), "output")
    low, high = top.get_ylim()
    assert (low + high) / 2 == pytest.approx(base)
    assert high - low >= 0.1 * (base or 1)
    assert [text.get_text() for text in top.texts if text.get_text().strip("+\N{MINUS SIGN}0.") == ""] == []
    top = panel(plots.importance_over_time(nothing), "importance")
    assert top.get_ylim() == (-1, 1)
    assert top.get_yticks() == [0]


def test_padding_is_left_out():
    whole = explanation(lengths=[7, 4, 1, 5])
    ax = plots.heatmap(whole[1])
    np.testing.assert_allclose(image(panel(ax, "attributions")), whole.values[1, :4].T)
    assert len([b for b in panel(plots.buildup(whole[3]), "output").patches if b.get_height()]) == 5
    plots.signal(whole[2]).figure.canvas.draw()


def test_time_stamps_make_a_date_axis():
    one = explanation()[0]
    days = np.datetime64("2026-02-26") + np.arange(7) * np.timedelta64(1, "D")
    one.step_labels = days
    for label, plot in (("inputs", plots.heatmap), ("features", plots.buildup), ("attributions of f2", plots.signal)):
        ax = panel(plot(one), label)
        assert isinstance(ax.xaxis.get_major_formatter(), dates.ConciseDateFormatter)
        np.testing.assert_allclose(ax.get_xlim(), dates.date2num(days[[0, -1]]) + np.array([-0.5, 0.5]))


def test_time_stamps_may_be_uneven_numbers():
    one = explanation()[0]
    one.step_labels = [0, 1, 2, 4, 8, 16, 32.0]
    mesh = panel(plots.heatmap(one, time_label="seconds"), "inputs").collections[0]
    assert mesh.axes.get_xlabel() == "seconds"
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [-0.5, 0.5, 1.5, 3, 6, 12, 24, 40])


def test_labels_of_steps_are_written_or_thinned():
    one = explanation()[0]
    one.step_labels = list("abcdefg")
    ticks = panel(plots.heatmap(one), "inputs").get_xticklabels()
    assert [tick.get_text() for tick in ticks] == list("abcdefg")
    long = explanation(1, 300, 2)[0]
    long.step_labels = [f"label {i}" for i in range(300)]
    ticks = panel(plots.heatmap(long), "inputs").get_xticklabels()
    assert 10 < len(ticks) < 80
    assert ticks[1].get_text() == f"label {round(ticks[1].get_position()[0])}"


def test_numbers_of_steps_stay_when_steps_are_taken_out():
    ax = panel(plots.heatmap(explanation()[0, 3:]), "inputs")
    assert ax.get_xlim() == (2.5, 6.5)


def test_names_are_written_as_they_are():
    ax = plots.heatmap(explanation(names=["$a$ and $b", "c_d^e", r"\alpha"])[0])
    for label in ("attributions", "inputs"):
        assert row_names(panel(ax, label)) == [r"\$a\$ and \$b", "c_d^e", r"\alpha"]  # no formulas


def test_titles_name_the_row_and_the_output():
    several = explanation(outputs=2)
    several.output_names = ["no", "yes"]
    several.row_ids = ["anna", "bert", "carl", "dora"]
    for plot in (plots.heatmap, plots.signal, plots.buildup):
        ax = plot(several.output("yes")[1])
        assert "bert · yes" in [child.get_title() for child in ax.child_axes]


def test_an_output_that_rests_on_more_than_is_shown_says_so():
    whole = explainer()(torch.ones(2, 5, 3))
    output = float(whole.outputs[0])
    for shown, mark in ((whole, ""), (whole[:, :3], "sum of what is shown")):
        for plot in (plots.heatmap, plots.buildup):
            ax = panel(plot(shown[0]), "output")
            texts = [text.get_text() for text in ax.texts]
            assert any(text.startswith("sum of what is shown") for text in texts) == bool(mark)
            (written,) = [text.replace("\N{MINUS SIGN}", "-") for text in texts if text.startswith("output ")]
            assert float(written.split()[1]) == pytest.approx(output, rel=0.01)
            low, high = ax.get_ylim()
            assert low <= output <= high
        shown.display_data = np.full(shown.shape, "word")
        text = plots.text_html(shown.over_features(data=np.full(shown.shape[:2], "word")))
        assert ("sum of what is shown" in text) == bool(mark)


# ---------------------------------------------------------------------- an output per step
def test_output_matrix_has_a_row_for_each_output():
    several = explanation(outputs=5)
    ax = plots.output_matrix(several[2])
    np.testing.assert_allclose(image(ax), several.values[2].sum(1).T)
    assert len(row_names(ax)) == 5
    np.testing.assert_allclose(image(plots.output_matrix(several[2], "f1")), several.values[2, :, 1].T)
    np.testing.assert_allclose(image(plots.output_matrix(several[2:3], -1)), several.values[2, :, 2].T)


def test_output_matrix_of_long_sequences_is_binned():
    several = explanation(1, 900, 1, outputs=800)
    drawn = image(plots.output_matrix(several[0]))
    assert drawn.shape == (400, 300)
    np.testing.assert_allclose(drawn[3, 5], several.values[0, 15:18, 0, 6:8].sum(0).mean())
    np.testing.assert_allclose(drawn.sum(), several.values.sum() / 2)


def test_output_matrix_refuses_what_does_not_fit():
    with pytest.raises(InputError, match="0 axes"):
        plots.output_matrix(explanation()[0])
    with pytest.raises(InputError, match="no feature 'rain' among 3 features: f0, f1, f2"):
        plots.output_matrix(explanation(outputs=2)[0], "rain")
    with pytest.raises(InputError, match="single row"):
        plots.output_matrix(explanation(outputs=2))


# ---------------------------------------------------------------------- data sets
def test_importance_is_the_mean_of_absolute_sums():
    whole = explanation(9, 6, 4)
    sums = whole.values.sum(1)
    order = np.argsort(-np.abs(sums).mean(0))
    ax = plots.importance(whole)
    assert row_names(ax) == [f"f{i}" for i in order]
    up, down = np.maximum(sums, 0).mean(0)[order], np.maximum(-sums, 0).mean(0)[order]
    np.testing.assert_allclose(bars(ax), [[(0, u), (u, d)] for u, d in zip(up, down, strict=True)])
    np.testing.assert_allclose(numbers(ax.texts), up + down, rtol=0.05)
    spread = next(c for c in ax.collections if isinstance(c, LineCollection)).get_segments()
    quartiles = np.quantile(np.abs(sums), (0.25, 0.75), axis=0).T[order]
    np.testing.assert_allclose([segment[:, 0] for segment in spread], quartiles)


def test_importance_of_the_other_features_is_their_common_contribution():
    whole = explanation(6, 4, 500)
    ax = plots.importance(whole)
    assert row_names(ax)[-1] == "other 480 features"
    drawn = bars(ax)
    assert len(drawn) == 21
    balance = sum(up - down for (_, up), (_, down) in drawn)
    np.testing.assert_allclose(balance, whole.values.sum((1, 2)).mean())


def test_importance_over_time_averages_the_rows_that_have_a_step():
    lengths = np.array([7, 4, 1, 5])
    whole = explanation(lengths=lengths)
    per_step = whole.values.sum(2)
    ax = plots.importance_over_time(whole)
    mean = panel(ax, "importance").lines[-1].get_ydata()
    np.testing.assert_allclose(mean, [per_step[lengths > step, step].mean() for step in range(7)])
    np.testing.assert_allclose(
        panel(ax, "rows").patches[0].get_data()[0], [(lengths > step).sum() for step in range(7)]
    )
    ax = plots.importance_over_time(whole, align="end")
    mean = panel(ax, "importance").lines[-1].get_ydata()
    from_end = [[per_step[row, n - back] for row, n in enumerate(lengths) if n >= back] for back in range(7, 0, -1)]
    np.testing.assert_allclose(mean, [np.mean(values) for values in from_end])
    low = panel(ax, "importance").lines[-3].get_ydata()
    np.testing.assert_allclose(low, [np.quantile(values, 0.25) for values in from_end])
    assert panel(ax, "rows").get_xlim() == (-6.5, 0.5)


def test_importance_over_time_keeps_the_sum_when_stretched():
    lengths = [7, 4, 1, 5]
    ax = panel(plots.importance_over_time(explanation(lengths=lengths), align="relative"), "importance")
    total = explanation(lengths=lengths).values.sum((1, 2)).mean()
    np.testing.assert_allclose(ax.lines[-1].get_ydata().sum(), total)
    assert ax.get_xlim() == (0, 100)


def test_sequences_are_stretched_to_the_same_length():
    values = np.array([[1.0, 2.0, 3.0, 4.0], [6.0, 2.0, 99.0, 99.0], [8.0, 99.0, 99.0, 99.0]])[..., None]
    profile = stretch(values, np.array([4, 2, 1]), parts=4)[..., 0]
    np.testing.assert_allclose(profile, [[1, 2, 3, 4], [3, 3, 1, 1], [2, 2, 2, 2]])


def test_importance_map_shows_mean_and_deviation():
    lengths = np.array([7, 4, 1, 5])
    whole = explanation(lengths=lengths)
    ax = plots.importance_map(whole)
    mean = np.stack([whole.values[lengths > step, step].mean(0) for step in range(7)], 1)
    deviation = np.stack([whole.values[lengths > step, step].std(0) for step in range(7)], 1)
    np.testing.assert_allclose(image(panel(ax, "mean")), mean)
    np.testing.assert_allclose(image(panel(ax, "spread")), deviation, atol=1e-12)


def test_dates_that_all_rows_share_are_kept():
    whole = explanation()
    whole.step_labels = np.datetime64("2026-01-01") + np.arange(7)
    ax = panel(plots.importance_map(whole), "spread")
    assert isinstance(ax.xaxis.get_major_formatter(), dates.ConciseDateFormatter)
    whole.step_labels = np.datetime64("2026-01-01") + np.arange(7) + np.arange(4)[:, None]
    assert panel(plots.importance_map(whole), "spread").get_xlabel() == "step"


def test_beeswarm_has_a_point_for_every_row():
    whole = explanation(50, 5, 3)
    sums = whole.values.sum(1)
    order = np.argsort(-np.abs(sums).mean(0))
    ax = plots.beeswarm(whole)
    drawn = swarm(ax)
    assert list(drawn) == [f"f{i}" for i in order]
    np.testing.assert_allclose(list(drawn.values()), np.sort(sums, 0).T[order])
    mean = whole.data.mean(1)
    for points in [c for c in ax.collections if len(c.get_offsets()) > 1]:
        feature = order[2 - round(np.ma.getdata(points.get_offsets())[:, 1].mean())]
        rows = [np.abs(sums[:, feature] - value).argmin() for value in points.get_offsets()[:, 0]]
        shades = points.get_array()
        middle = (shades > shades.min()) & (shades < shades.max())
        assert np.corrcoef(shades[middle], mean[rows, feature][middle])[0, 1] == pytest.approx(1)


def test_beeswarm_at_a_step():
    lengths = np.array([7, 4, 1, 5])
    whole = explanation(lengths=lengths)
    whole.step_labels = list("abcdefg")

    def drawn(step):
        return np.sort(np.concatenate(list(swarm(plots.beeswarm(whole, step=step)).values())))

    np.testing.assert_allclose(drawn(3), np.sort(whole.values[lengths > 3, 3].ravel()))
    np.testing.assert_allclose(drawn("d"), drawn(3))
    np.testing.assert_allclose(drawn(-1), np.sort(whole.values[np.arange(4), lengths - 1].ravel()))
    with pytest.raises(InputError, match="longest has 7"):
        drawn(7)
    with pytest.raises(InputError, match="no step 'z'"):
        drawn("z")


def test_beeswarm_without_data_and_with_other_features():
    whole = explanation(10, 3, 30)
    unknown = deepshap.Explanation(whole.values, whole.base_values)
    ax = plots.beeswarm(unknown, max_display=4)
    np.testing.assert_allclose(sum(values.sum() for values in swarm(ax).values()), whole.values.sum())


def test_groups_are_averaged():
    whole = explanation(5, 4, 3)
    groups = np.array(["b", "a", "b", "c", "a"])
    ax = plots.importance_by_group(whole, groups)
    means = [whole.values[groups == group].sum(1).mean(0) for group in "abc"]
    np.testing.assert_allclose(image(ax), means)
    np.testing.assert_allclose(numbers(ax.texts), np.ravel(means), atol=0.051)
    assert row_names(ax) == ["a", "b", "c"]
    per_step = plots.importance_by_group(whole, groups, per="step", align="start")
    np.testing.assert_allclose(image(per_step), [whole.values[groups == group].sum(2).mean(0) for group in "abc"])
    with pytest.raises(InputError, match="one label for each of 5 rows"):
        plots.importance_by_group(whole, groups[:3])


def test_groups_of_many_features_keep_their_sums():
    whole = explanation(5, 4, 60)
    drawn = image(plots.importance_by_group(whole, [0, 1, 0, 1, 0], max_display=7))
    assert drawn.shape == (2, 8)
    np.testing.assert_allclose(
        drawn.sum(1), [whole.values[0::2].sum((1, 2)).mean(), whole.values[1::2].sum((1, 2)).mean()]
    )


def test_difference_of_two_groups():
    whole = explanation(8, 5, 3)
    first = np.arange(8) < 3
    ax = plots.difference(whole, first, names=("early", "late"))
    np.testing.assert_allclose(image(panel(ax, "differences")), (whole.values[:3].mean(0) - whole.values[3:].mean(0)).T)
    assert panel(ax, "differences").get_title() == "early (3) minus late (5)"
    sums = whole.values.sum(1)
    difference = sums[:3].mean(0) - sums[3:].mean(0)
    np.testing.assert_allclose([width for ((_, width),) in bars(panel(ax, "sums"))], difference)
    error = 1.96 * np.sqrt(sums[:3].var(0, ddof=1) / 3 + sums[3:].var(0, ddof=1) / 5)
    lines = next(c for c in panel(ax, "sums").collections if isinstance(c, LineCollection)).get_segments()
    np.testing.assert_allclose([line[:, 0] for line in lines], np.stack([difference - error, difference + error], 1))
    numbered = plots.difference(whole, [0, 1, 2], [4, -1])
    np.testing.assert_allclose(
        image(panel(numbered, "differences")), (whole.values[:3].mean(0) - whole.values[[4, 7]].mean(0)).T
    )


def test_difference_is_empty_where_a_group_has_no_step():
    whole = explanation(lengths=[7, 4, 1, 5])
    drawn = image(panel(plots.difference(whole, [1, 2]), "differences"))
    assert np.isnan(drawn[:, 4:]).all()
    assert np.isfinite(drawn[:, :4]).all()


@pytest.mark.parametrize(
    ("rows", "match"), [([], "rows must be|empty"), ([9], "below 4"), ([True], "mask of 4"), ([0.5], "mask")]
)
def test_difference_needs_rows_that_exist(rows, match):
    with pytest.raises(InputError, match=match):
        plots.difference(explanation(), rows)
    with pytest.raises(InputError, match="there are none"):
        plots.difference(explanation(), [0, 1, 2, 3])


def test_outliers_come_first():
    whole = explanation(20, 5, 3)
    whole.values[13] += 10
    whole.values[4, :, 1] -= 9
    whole.row_ids = [f"id{i}" for i in range(20)]
    ax = plots.outliers(whole, rows=5)
    left = panel(ax, "deviations")
    assert row_names(left)[:2] == ["id13", "id4"]
    sums = whole.values.sum(1)
    deviations = sums - np.median(sums, 0)
    order = np.argsort(-np.abs(deviations).sum(1))[:5]
    np.testing.assert_allclose(image(left), deviations[order])
    np.testing.assert_allclose([width for ((_, width),) in bars(panel(ax, "sums"))], np.abs(deviations[order]).sum(1))
    per_step = whole.values.sum(2)
    deviations = per_step - np.median(per_step, 0)
    order = np.argsort(-np.abs(deviations).sum(1))[:2]
    np.testing.assert_allclose(image(panel(plots.outliers(whole, rows=2, per="step"), "deviations")), deviations[order])


# ---------------------------------------------------------------------- small parts
def test_labels_are_moved_apart_and_keep_their_order():
    moved = spread_apart(np.array([0.0, 0.1, 5.0, 0.05]), 1.0)
    assert np.all(np.diff(np.sort(moved)) > 0.99)
    assert list(np.argsort(moved)) == [0, 3, 1, 2]


def test_short_names():
    assert short("a$b") == r"a\$b"
    assert len(short("x" * 99)) == 28
    assert short("two\nlines") == "two lines"


def test_up_and_down_and_low_and_high_differ_without_colour():
    assert "hatch" not in UP
    assert DOWN["hatch"]
    colors = LOW_HIGH(np.linspace(0, 1, 20))[:, :3]
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0).all()
    assert luminance[0] > 4 * luminance[-1]


HOURS = np.datetime64("2026-03-01T00", "ns") + np.arange(7) * np.timedelta64(1, "h")


@pytest.mark.parametrize("pair", [("heatmap", "signal"), ("signal", "signal"), ("signal", "buildup")])
def test_pictures_beside_each_other_share_the_room(pair):
    figure, axes = plt.subplots(1, 2, figsize=(14, 5), layout="constrained")
    for name, ax in zip(pair, axes, strict=True):
        getattr(plots, name)(explanation(1, 7, 3)[0], ax=ax)
    figure.canvas.draw()
    assert [ax.get_position().width > 0.3 for ax in axes] == [True, True]


def test_times_are_written_short_on_the_scale_of_steps():
    found = explanation(5, 7, 3)
    found.step_labels = HOURS
    (bar,) = [ax for ax in plots.scatter(found, 0).figure.axes if ax.get_label() == "<colorbar>"]
    assert [text.get_text() for text in bar.get_yticklabels()][:2] == ["2026-03-01 00:00", "2026-03-01 01:00"]


def test_a_single_time_is_written_and_has_no_length():
    found = explanation(1, 1, 3)
    found.step_labels = HOURS[:1] + np.timedelta64(90, "m")
    axis = panel(plots.heatmap(found[0]), "inputs").xaxis
    assert [text.get_text() for text in axis.get_ticklabels()] == ["2026-03-01 01:30"]
