"""Standard errors in the report: in pictures, tables and facts, and nothing where they are not known."""

from __future__ import annotations

import numpy as np
import pytest
from browser import Report, assert_drawn, assert_shows, assert_sums

import deepshap

ROWS, STEPS, FEATURES, OUTPUTS, REPLICATES = 6, 5, 3, 2, 4
ERROR_BARS = """((chart) => document.getElementById(chart).data.map((t) => ({
    x: t.error_x?.array && Array.from(t.error_x.array), y: t.error_y?.array && Array.from(t.error_y.array)})))"""


def made(shape=(ROWS, STEPS, FEATURES, OUTPUTS)):
    random = np.random.default_rng(0)
    explanation = deepshap.Explanation(
        random.normal(size=shape), np.zeros((ROWS, OUTPUTS)), random.normal(size=shape[:-1])
    )
    common = random.normal(size=(REPLICATES, ROWS, *(1,) * (len(shape) - 1)))
    explanation.replicates = explanation.values + 0.5 * common + 0.3 * random.normal(size=(REPLICATES, *shape))
    explanation.method, explanation.converged = "Paths of <4> segments.", np.arange(ROWS) < 4
    return explanation


def spread(estimates):
    return estimates.std(0, ddof=1) / np.sqrt(len(estimates))


def opened(browser, explanation, folder):
    return Report(browser, explanation.report(folder / "report.html")).open()


@pytest.fixture(scope="module")
def unsure():
    return made()


@pytest.fixture(scope="module")
def report(browser, unsure, tmp_path_factory):
    report = opened(browser, unsure, tmp_path_factory.mktemp("report"))
    yield report
    assert report.problems == []
    report.close()


def facts(report):
    return report.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.fact')].map((f) => [f.dataset.fact, f.innerText]))"
    )


def test_facts(report, unsure):
    found = facts(report)
    assert "Paths of <4> segments." in found["Method"]
    assert "4 of 6 examples" in found["Largest standard error"]
    assert_shows(found["Largest standard error"].split("\n")[1], unsure.standard_errors.max(), 2)


def test_pictures_of_an_example(report, unsure):
    report.choose(2, 1)
    replicates, values = unsure.replicates[:, 2, ..., 1], unsure.values[2, ..., 1]
    heat = report.traces("heat")
    expected = {tuple(cell) for cell in np.argwhere(np.abs(values) < 2 * spread(replicates)).tolist()}
    assert 0 < len(expected) < values.size
    assert {(int(x), int(y)) for x, y in zip(heat[3]["x"], heat[3]["y"], strict=True)} == expected
    _, by_step, by_feature, _ = report.evaluate(f"{ERROR_BARS}('chart-heat')")
    assert_sums(by_step["y"], 2 * spread(replicates.sum(2)))
    assert_sums(by_feature["x"], 2 * spread(replicates.sum(1)))
    assert_sums(report.evaluate(f"{ERROR_BARS}('chart-build')")[-2]["y"], 2 * spread(replicates.sum(2)))
    lines = report.evaluate(
        "[...document.querySelectorAll('#top tr')].map((r) => [...r.cells].map((c) => c.textContent))"
    )
    assert lines[0][:5] == ["Step", "Feature", "Value", "Attribution", "Standard error"]
    errors = spread(replicates)
    for step, feature, _, attribution, error, _ in lines[1:]:
        place = int(step), unsure.over_time().feature_names.index(feature)
        assert_shows(attribution, values[place])
        assert_shows(error, errors[place], 2)


def test_overview(report, unsure):
    """Means of attributions over all rows have whiskers; the mean |attribution| of cells has none that would be right."""
    of_rows = spread(unsure.replicates.sum(2))  # (rows, features, outputs)
    expected = np.sqrt((of_rows**2).sum(0)) / ROWS
    report.evaluate("location.hash = 'overview'")
    report.page.select_option("#output", "1")
    report.page.click("#measure [data-value=signed]")
    trace = report.traces("features")[0]
    (bars,) = report.evaluate(f"{ERROR_BARS}('chart-features')")
    assert_sums(bars["x"], 2 * expected[trace["features"], 1])
    assert_drawn(trace["x"], unsure.values.sum(1).mean(0)[trace["features"], 1])
    report.page.click("#measure [data-value=size]")
    assert not report.evaluate(f"{ERROR_BARS}('chart-features')")[0].get("x")


def test_groups_and_points(browser, unsure, tmp_path):
    """Means over a group have whiskers; points less than two standard errors from 0 are hollow."""
    first = np.arange(ROWS) < 2
    page = unsure.report(tmp_path / "groups.html", groups=np.where(first, "first", "rest"))
    report = Report(browser, page).open("#overview")
    report.page.select_option("#output", "1")
    report.page.click("#measure [data-value=signed]")
    report.page.wait_for_selector("#groups-lead:has-text('mean attribution')")
    of_rows = spread(unsure.replicates.sum(2))
    order = np.argsort(-np.abs([unsure.values.sum(1)[g].mean(0)[:, 1] for g in (first, ~first)]).max(0), kind="stable")
    for bars, group in zip(report.evaluate(f"{ERROR_BARS}('chart-groups')"), (first, ~first), strict=True):
        expected = np.sqrt((of_rows[group] ** 2).sum(0)) / group.sum()
        assert_sums(bars["x"], 2 * expected[order, 1])
    report.page.select_option("#scatter-feature", "2")
    symbols = report.evaluate("document.getElementById('chart-scatter').data[0].marker.symbol")
    hollow = np.abs(unsure.values) < 2 * unsure.standard_errors
    assert [symbol == "circle-open" for symbol in symbols] == hollow[..., 2, 1].ravel().tolist()
    assert 0 < hollow[..., 2, 1].sum() < ROWS * STEPS
    assert "Hollow" in report.text("#scatter-lead")
    assert report.problems == []
    report.close()


def test_players_stand_in_a_table(browser, tmp_path):
    explanation = made((ROWS, 30, OUTPUTS))
    explanation.feature_names, explanation.players = (
        [f"steps {5 * i}-{5 * i + 4}" for i in range(30)],
        "window of 5 steps",
    )
    report = opened(browser, explanation, tmp_path)
    assert "values of window of 5 steps" in facts(report)["Method"]
    report.choose(1, 0)
    order = np.argsort(-np.abs(explanation.values[1, :, 0]))
    bars, _ = report.evaluate(f"{ERROR_BARS}('chart-waterfall')")
    errors = spread(explanation.replicates[:, 1, :, 0])[order]
    assert_sums(bars["x"], 2 * np.append(errors[:20], errors[20:].sum()))  # of the others' sum, an upper bound
    assert report.problems == []
    report.close()


def test_nothing_where_nothing_is_known(browser, tmp_path):
    explanation = made()
    explanation.replicates = explanation.standard_errors = explanation.method = explanation.converged = None
    report = opened(browser, explanation, tmp_path)
    assert not {"Method", "Largest standard error"} & set(facts(report))
    report.choose(1, 0)
    for chart in ("heat", "build", "features"):
        assert all(
            each == {} or each == {"x": None, "y": None} for each in report.evaluate(f"{ERROR_BARS}('chart-{chart}')")
        )
    assert len(report.traces("heat")) == 3
    assert "tandard error" not in report.evaluate("document.body.innerText")
    assert report.problems == []
    report.close()
