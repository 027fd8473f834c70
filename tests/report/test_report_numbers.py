"""Groups, scatter plots, faithfulness and images: every number in the report is the explanation's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from browser import assert_drawn, assert_sums
from tiers import mostly_wide

import deepshap
from deepshap import InputError
from deepshap.evaluation import Faithfulness

ROWS, STEPS, FEATURES, CLASSES = 20, 6, 3, 2


@pytest.fixture(scope="module")
def sequences():
    random = np.random.default_rng(5)
    lengths = random.integers(2, STEPS + 1, ROWS)
    there = (np.arange(STEPS) < lengths[:, None])[..., None]
    data = random.normal(size=(ROWS, STEPS, FEATURES)) * there
    values = random.normal(size=(ROWS, STEPS, FEATURES, CLASSES)) * there[..., None]
    made = deepshap.Explanation(values, np.zeros((ROWS, CLASSES)), data, feature_names=["rain", "wind", "sun"])
    made.output_names, made.lengths = ["cat", "dog"], lengths
    made.targets = random.integers(0, CLASSES, ROWS)
    return made


@pytest.mark.parametrize("measure", mostly_wide(["size", "signed"], {"signed"}))
def test_any_two_groups_are_side_by_side(opened, sequences, measure):
    places = np.array(["north", "south", "east"])[np.arange(ROWS) % 3]
    report = opened(sequences, groups=places)
    names = report.evaluate("[...document.querySelectorAll('#group-a option')].map((o) => o.textContent)")
    said = sequences.values.sum((1, 2)).argmax(1)
    assert [name.split(" (")[0] for name in names] == [
        *("east", "north", "south", "right", "wrong"),
        *("true: cat", "true: dog", "predicted: cat", "predicted: dog"),
    ]
    chosen = {"south": places == "south", "wrong": said != sequences.targets}
    for side, (name, mask) in zip("ab", chosen.items(), strict=True):
        report.page.select_option(f"#group-{side}", label=f"{name} ({mask.sum()})")
    report.page.select_option("#output", "1")
    report.page.click(f"#measure [data-value={measure}]")
    report.page.wait_for_selector("#groups-lead:has-text('output: dog')")
    values = sequences.values[..., 1] if measure == "signed" else np.abs(sequences.values[..., 1])
    features = np.stack([values[mask].sum(1).mean(0) for mask in chosen.values()])
    order = np.argsort(-np.abs(features).max(0), kind="stable")
    assert_sums([bars["x"] for bars in report.traces("groups")], features[:, order])
    there = np.arange(STEPS) < sequences.lengths[:, None]
    counts = [np.where(there[mask].any(0), there[mask].sum(0), np.nan) for mask in chosen.values()]
    steps = [values[mask].sum((0, 2)) / count for mask, count in zip(chosen.values(), counts, strict=True)]
    assert_sums([line["y"] for line in report.traces("group-steps")], steps)


def test_groups_are_labels_of_rows(tmp_path, sequences):
    with pytest.raises(InputError, match=r"one label for each of 20 rows, not shape \(2,\)"):
        sequences.report(tmp_path / "report.html", groups=["north", "south"])


def test_nothing_to_compare_is_not_shown(opened):
    report = opened(deepshap.Explanation(np.ones((4, 3)), np.zeros(4), np.ones((4, 3))))
    assert not report.page.is_visible("#card-groups")
    assert not report.page.is_visible("#card-faithful")


def test_points_are_values_and_attributions_of_steps(opened, sequences):
    report = opened(sequences)
    report.page.select_option("#output", "0")
    report.page.select_option("#scatter-feature", label="sun")
    report.page.wait_for_selector("#scatter-lead:has-text('output: cat')")
    (drawn,) = report.traces("scatter")
    there = np.arange(STEPS) < sequences.lengths[:, None]
    assert_sums(drawn["x"], sequences.data[..., 2][there])
    assert_drawn(drawn["y"], sequences.values[..., 2, 0][there])
    assert f"{there.sum()} steps" in report.text("#scatter-lead")


# ---------------------------------------------------------------------- faithfulness
def found(rows=6, points=5):
    random = np.random.default_rng(2)
    removed = np.linspace(0, 1, points)
    orders = ("highest first", "in random order", "lowest first")
    deletion = {name: np.sort(random.normal(size=(rows, points)))[:, ::-1] for name in orders}
    shares = random.random((2, rows))
    agreement = np.append(random.random(rows - 1), np.nan)
    per_player = random.normal(size=(3, rows, 4))
    return Faithfulness(
        "features",
        "predicted",
        removed,
        deletion,
        agreement,
        np.full(rows, 1e-6),
        *per_player[:2],
        np.abs(per_player[2]) * 0.1,
        *shares,
    )


def test_faithfulness_is_a_section(opened, sequences):
    result = found()
    report = opened(sequences, faithfulness=result)
    for line, curve in zip(report.traces("faithful"), result.deletion.values(), strict=True):
        assert_sums(line["x"], 100 * result.removed)
        assert_sums(line["y"], curve.mean(0))
    said = report.text("#faithful-numbers")
    assert f"{result.separation.mean():.2f}" in said
    assert f"{np.nanmean(result.agreement):.2f}" in said
    assert f"{result.doubtful.mean():.0%}" in said
    assert f"{result.noise_changes.mean():.1%}" in said
    assert "(predicted) of 6 examples" in report.text("#faithful-lead")


def test_what_faithfulness_cannot_tell_is_no_number(tmp_path, sequences):
    unknown = np.full(6, np.nan)
    result = replace(found(), sign_changes=np.full((6, 4), np.nan), noise_changes=unknown, output_changes=unknown)
    page = sequences.report(tmp_path / "why.html", faithfulness=result).read_text(encoding="utf-8")
    assert '["Doubtful signs", "–", "one reference' in page
    assert '["Moved by noise", "–", "there is none' in page


def test_faithfulness_is_nothing_else(tmp_path, sequences):
    with pytest.raises(InputError, match=r"what deepshap\.faithfulness.*returns, not float"):
        sequences.report(tmp_path / "report.html", faithfulness=0.9)


# ---------------------------------------------------------------------- images
@pytest.mark.parametrize("channels", mostly_wide(["first", "last"], {"first"}))
def test_an_image_is_laid_over_its_input(opened, channels):
    random = np.random.default_rng(3)
    values, data = random.normal(size=(2, 4, 3, 6, 8))
    at = 1 if channels == "first" else 3
    values, data = (array if at == 1 else np.moveaxis(array, 1, 3) for array in (values, data))
    report = opened(deepshap.Explanation(values, np.zeros(4), data), "#example=2")
    under, over = report.traces("heat")
    assert_sums(under["z"], data[2].mean(at - 1))
    assert_drawn(over["z"], values[2].sum(at - 1))
    assert not report.page.is_visible("#card-build")
    report.page.click("#tab-overview")
    report.page.wait_for_selector("#map-lead:not(:empty)")
    assert_drawn(report.traces("map")[0]["z"], np.abs(values.sum(at)).mean(0))
    assert "8 × 6 pixels" in report.text("[data-fact=Examples]")
    assert not report.page.is_visible("#card-features")


def test_channels_of_a_grid_are_inputs(opened):
    values = np.random.default_rng(4).normal(size=(3, 5, 7, 6))  # (rows, channels, height, width)
    report = opened(deepshap.Explanation(values, np.zeros(3)), "#example=1&input=3")
    assert report.evaluate("JSON.parse(document.getElementById('meta').textContent).parts.map((p) => p.name)") == [
        f"channel {k}" for k in range(5)
    ]
    assert_drawn(report.traces("heat")[0]["z"], values[1, 3])
