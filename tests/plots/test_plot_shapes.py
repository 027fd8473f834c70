"""Every picture can be drawn, for every shape of the explanation; what cannot be drawn is refused."""

from __future__ import annotations

import importlib
import itertools
import re
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from plotting import explanation, image, panel, row_names, swarm, words
from plotting import no_window as no_window
from tiers import mostly_wide

import deepshap
from deepshap import InputError, plots

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_window")]

ROOT = Path(__file__).parents[2]
ONE_ROW = {"heatmap": plots.heatmap, "signal": plots.signal, "buildup": plots.buildup, "waterfall": plots.waterfall}
MANY_ROWS = {
    "importance": plots.importance,
    "importance_over_time": plots.importance_over_time,
    "importance_map": plots.importance_map,
    "importance_by_group": lambda e, **options: plots.importance_by_group(e, np.arange(len(e.values)) % 3, **options),
    "importance_by_group_per_step": lambda e, **options: plots.importance_by_group(
        e, np.arange(len(e.values)) % 3, per="step", **options
    ),
    "bar": plots.bar,
    "heatmap_of_rows": plots.heatmap,
    "beeswarm": plots.beeswarm,
    "scatter": plots.scatter,
    "cohorts": lambda e, **options: plots.cohorts(e, [0, 2], **options),
    "difference": lambda e, **options: plots.difference(e, [0, 2], **options),
    "outliers": plots.outliers,
    "outliers_per_step": lambda e, **options: plots.outliers(e, per="step", **options),
}


@pytest.mark.parametrize(
    "shape",
    mostly_wide([(1, 1), (1, 40), (5, 500), (60, 1), (60, 40), (5000, 40)], {(1, 1), (5, 500), (60, 40)}),
    ids=str,
)
def test_pictures_of_one_row_can_be_drawn_in_every_shape(shape):
    one = explanation(1, *shape)[0]
    for plot in ONE_ROW.values():
        ax = plot(one, unit="°C")
        ax.figure.canvas.draw()
        assert plt.get_fignums() == [ax.figure.number]
        plt.close(ax.figure)


@pytest.mark.parametrize(
    "shape",
    mostly_wide([(3, 1, 1), (3, 5, 1), (30, 60, 40), (4, 700, 3), (4, 5, 500)], {(3, 1, 1), (30, 60, 40)}),
    ids=str,
)
@pytest.mark.parametrize("name", MANY_ROWS)
def test_pictures_of_a_data_set_can_be_drawn_in_every_shape(name, shape):
    ax = MANY_ROWS[name](explanation(*shape), unit="log-odds")
    ax.figure.canvas.draw()
    assert plt.get_fignums() == [ax.figure.number]


@pytest.mark.wide
def test_five_thousand_steps_of_a_data_set_can_be_drawn():
    for plot in (plots.importance_over_time, plots.importance_map):
        plot(explanation(3, 5000, 4)).figure.canvas.draw()


@pytest.mark.parametrize("name", [*ONE_ROW, *MANY_ROWS, "text"])
def test_axes_that_are_given_are_used_and_nothing_leaves_them(name):
    figure, axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    if name == "text":
        assert plots.text(words(["so", "good"], [1.0, -2.0]), ax=axes[0]) is axes[0]
    elif name in ONE_ROW:
        assert ONE_ROW[name](explanation()[0], ax=axes[0]) is axes[0]
    else:
        assert MANY_ROWS[name](explanation(), ax=axes[0]) is axes[0]
    figure.canvas.draw()
    assert plt.get_fignums() == [figure.number]
    assert axes[1].get_position().width > 0.25
    limits = axes[0].get_position()
    for child in axes[0].child_axes:
        place = child.get_position()
        assert limits.x0 - 1e-6 <= place.x0 < place.x1 <= limits.x1 + 1e-6
        assert limits.y0 - 1e-6 <= place.y0 < place.y1 <= limits.y1 + 1e-6


@pytest.mark.parametrize("name", [*ONE_ROW, *MANY_ROWS])
def test_attributions_that_are_all_zero_can_be_drawn(name):
    nothing = explanation()
    nothing.values = 0 * nothing.values
    picture = ONE_ROW[name](nothing[0]) if name in ONE_ROW else MANY_ROWS[name](nothing)
    picture.figure.canvas.draw()


@pytest.mark.parametrize("name", [*ONE_ROW, *MANY_ROWS])
def test_inputs_may_be_missing(name):
    gaps = explanation()
    gaps.data[0, 2:4, 1] = np.nan
    gaps.data[:, :, 2] = np.nan
    picture = ONE_ROW[name](gaps[0]) if name in ONE_ROW else MANY_ROWS[name](gaps)
    picture.figure.canvas.draw()
    if name == "beeswarm":
        assert [len(values) for values in swarm(picture).values()] == [4, 4, 4]


@pytest.mark.parametrize("name", [*ONE_ROW, *MANY_ROWS])
def test_names_with_dollars_umlauts_and_great_length_can_be_drawn(name):
    named = explanation(names=["$a$ and $b", "größe in µm_²", "x" * 500])
    picture = ONE_ROW[name](named[0]) if name in ONE_ROW else MANY_ROWS[name](named)
    picture.figure.canvas.draw()


# ---------------------------------------------------------------------- what has to be chosen first
@pytest.mark.parametrize("name", [*ONE_ROW, *MANY_ROWS])
def test_one_of_several_outputs_has_to_be_chosen(name):
    several = explanation(outputs=2)
    several.output_names = ["no", "yes"]
    plot = ONE_ROW.get(name) or MANY_ROWS[name]
    with pytest.raises(InputError, match=r"has 2: no, yes.*output\('no'\)"):
        plot(several[0] if name in ONE_ROW else several)
    plot(several.output("yes")[0] if name in ONE_ROW else several.output("yes"))


def test_the_only_output_need_not_be_chosen():
    single = explanation(outputs=1)
    ax = plots.heatmap(single[1])
    np.testing.assert_allclose(image(panel(ax, "attributions")), single.values[1, :, :, 0].T)


@pytest.mark.parametrize("name", ["signal", "buildup", "waterfall"])
def test_one_row_has_to_be_chosen(name):
    with pytest.raises(InputError, match=r"single row; there are 4.*explanation\[0\]"):
        getattr(plots, name)(explanation())
    getattr(plots, name)(explanation()[2:3])


@pytest.mark.parametrize(
    "name", ["heatmap", "signal", "buildup", "importance_over_time", "importance_map", "difference"]
)
def test_tables_are_refused(name):
    table = deepshap.Explanation(np.ones((4, 3)), np.zeros(4), np.ones((4, 3)))
    with pytest.raises(InputError, match=r"is for sequences.*\(3,\)|is for sequences.*\(4, 3\)"):
        (ONE_ROW.get(name) or MANY_ROWS[name])(table[0] if name in ONE_ROW else table)


def test_other_things_are_refused():
    joint = deepshap.JointExplanation([explanation(), explanation()])
    with pytest.raises(InputError, match=r"one of \[0, 1\], explanation\[0\]"):
        plots.heatmap(joint)
    with pytest.raises(InputError, match=r"deepshap\.Explanation\(values, base_values, data\)"):
        plots.importance(np.ones((2, 3, 4)))
    with pytest.raises(InputError, match="max_display"):
        plots.importance(explanation(), max_display=0)
    with pytest.raises(InputError, match="align"):
        plots.importance_map(explanation(), align="middle")
    with pytest.raises(InputError, match="per must be"):
        plots.outliers(explanation(), per="row")
    with pytest.raises(InputError, match="nothing to draw"):
        plots.importance(explanation()[:0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", [*ONE_ROW, *MANY_ROWS])
def test_what_is_no_number_is_refused(name, value):
    found = explanation(1) if name in ONE_ROW else explanation()
    found.values[0, 1, 2] = value
    with pytest.raises(InputError, match=r"^plots\.\w+: the attributions hold NaN or infinity"):
        (ONE_ROW | MANY_ROWS)[name](found)
    joint = deepshap.JointExplanation({"near": explanation(1), "far": found})
    with pytest.raises(InputError, match=r"^plots\.inputs: the attributions to 'far' hold NaN"):
        plots.inputs(joint, row=0)


def test_groups_have_two_names():
    for plot in (plots.cohorts, plots.difference):
        for names in [("x",), "xy", ("x", 3)]:
            with pytest.raises(InputError, match=f"^plots.{plot.__name__}: names must be a pair of texts"):
                plot(explanation(), [0, 2], names=names)


def test_arrays_and_unknown_options_are_refused_by_name():
    with pytest.raises(InputError, match=r"plots\.inputs takes a deepshap\.Explanation, .* not ndarray"):
        plots.inputs(np.ones((2, 3, 4)))
    with pytest.raises(
        TypeError, match=r"^plots\.heatmap: got an unexpected keyword argument 'colour'; it takes .* unit"
    ):
        plots.heatmap(explanation()[0], colour="red")


def test_a_matrix_of_steps_is_a_sequence():
    whole = explanation()
    ax = plots.heatmap(whole.over_features()[0])
    np.testing.assert_allclose(image(panel(ax, "attributions")), whole.values[0].sum(1)[None])
    ax = plots.heatmap(whole[0, :, 1])
    np.testing.assert_allclose(image(panel(ax, "attributions")), whole.values[0, :, 1][None])
    assert row_names(panel(ax, "attributions")) == ["f1"]


@pytest.mark.wide
def test_every_picture_of_the_gallery_is_drawn_and_shown(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    gallery = importlib.import_module("gallery")
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # training may warn
        gallery.main(["--quick", "--output", str(tmp_path)])
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == set(
        re.findall(r"images/plots/(\w+\.png)", (ROOT / "docs" / "plots.md").read_text(encoding="utf-8"))
    )
    assert drawn == {path.name for path in (ROOT / "docs" / "images" / "plots").glob("*")}
    assert {path.stem for path in tmp_path.glob("*.png")} == set(plots.__all__) - {"BLUE", "RED", "text_html", "force"}


@pytest.mark.parametrize(("name", "dated"), [("signal", "attributions of f2"), ("heatmap", "inputs")])
def test_in_narrow_axes_the_colour_bar_keeps_its_size_and_dates_stand_apart(name, dated):
    one = explanation(rows=1, steps=24)
    one.step_labels = np.datetime64("2026-03-01T00") + np.arange(24)
    figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
    ax = ONE_ROW[name](one[0], ax=axes[0])
    figure.draw_without_rendering()
    assert panel(ax, "scale of attributions").get_window_extent().width / figure.dpi > 0.08
    boxes = [text.get_window_extent() for text in panel(ax, dated).get_xticklabels() if text.get_text()]
    assert len(boxes) > 1
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
