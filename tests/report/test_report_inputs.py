"""Reports of every kind of input; and where a report leaves something out, or refuses."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from browser import assert_drawn, assert_shows, assert_sums
from slicer import Obj
from tiers import mostly_wide
from torch import nn

import deepshap
from deepshap.errors import InputError
from deepshap.report import write_report
from deepshap.report.content import read
from deepshap.report.examples import judge_predictions
from deepshap.report.overview import decimal
from deepshap.report.page import render


@pytest.fixture(scope="module")
def sequences():
    """Of different lengths, with three named outputs and targets."""
    torch.manual_seed(2)
    random, lengths = np.random.default_rng(2), np.array([6, 3, 5, 4, 6, 2])
    values = random.normal(size=(6, 6, 2, 3)) * (np.arange(6) < lengths[:, None])[..., None, None]
    model = nn.Linear(12, 3).double()
    x = torch.tensor(values[..., 0])
    explainer = deepshap.DeepExplainer(
        lambda x: model(x.flatten(1)), torch.zeros(1, 6, 2).double(), output_names=["Ann", "Bob", "Cy"]
    )
    explanation = explainer(x)
    explanation.lengths = lengths
    explanation.targets = [0, 1, 2, 0, 1, 2]
    return explanation


# ---------------------------------------------------------------------- kinds of input
def test_text(opened):
    words = np.array(
        [["a", "good", "film", "<pad>"], ["bad", "</p><script>alert(1)</script>", "so", "bad"]], dtype=object
    )
    values = np.array([[0.1, 2.0, -0.3, 0], [-1.5, 0.25, 0.05, -1.25]])
    ids = np.array([[3, 1, 4, 0], [2, 9, 8, 2]])
    text = deepshap.Explanation(values, np.full(2, 0.5), ids)
    text.display_data = words
    text.lengths = [3, 4]
    report = opened(text, "#example=1")
    assert report.text("#words").split() == ["bad", "</p><script>alert(1)</script>", "so", "bad"]
    assert report.evaluate("[...document.querySelectorAll('#words span')].map((s) => s.className)") == [
        "negative",
        "positive",
        "positive",
        "negative",
    ]
    shades = report.evaluate(
        "[...document.querySelectorAll('#words span')].map((s) => parseFloat(s.style.getPropertyValue('--shade')))"
    )
    np.testing.assert_allclose(shades, 100 * np.abs(values[1]) / 1.5, atol=0.5)
    assert_sums(report.traces("build")[-1]["y"], 0.5 + np.append(0, np.cumsum(values[1])))
    report.page.fill("#search", "film")
    assert report.column("id") == ["0"]
    report.evaluate("location.hash = 'overview'")
    report.page.wait_for_selector("#features-lead:not(:empty)")
    bars = report.traces("features")[0]
    assert_sums(bars["x"][:3], np.array([2.75, 2.0, 0.3]) / 2)
    ticks = report.evaluate("[...document.querySelectorAll('#chart-features .ytick text')].map((t) => t.textContent)")
    assert ticks[:3] == ["bad", "good", "film"]


def test_padding_that_longer_references_give_attributions_is_no_word(opened):
    text = deepshap.Explanation(np.array([[0.5, -1.0, 3.0, -2.0]]), np.zeros(1), np.array([[3, 1, 0, 0]]))
    text.display_data = np.array([["good", "film", "zero", "zero"]])
    text.lengths = [2]
    assert text.lengths.tolist() == [2]
    report = opened(text, "#example=0")
    assert report.text("#words").split() == ["good", "film", "and", "padding", "+1"]
    report.evaluate("location.hash = 'overview'")
    report.page.wait_for_selector("#features-lead:not(:empty)")
    ticks = report.evaluate("[...document.querySelectorAll('#chart-features .ytick text')].map((t) => t.textContent)")
    assert "zero" not in ticks
    assert ticks[:2] == ["film", "good"]


def test_table(opened):
    random = np.random.default_rng(3)
    data, values = random.normal(size=(20, 30)), random.normal(size=(20, 30))
    table = deepshap.Explanation(values, np.full(20, 2.0), data)
    table.feature_names = [f"column {i}" for i in range(30)]
    table.targets = random.normal(size=20)
    report = opened(table, "#example=4")
    (bars,) = report.traces("waterfall")
    order = np.argsort(-np.abs(values[4]), kind="stable")
    rest = values[4][order[20:]].sum()
    assert_sums(bars["x"], np.append(values[4][order[:20]], rest))
    assert_sums(np.add(bars["x"], bars["base"])[:1], [2 + values[4].sum()])
    report.page.click("#waterfall-more")
    assert_sums(report.traces("waterfall")[0]["x"], values[4][order])
    assert not report.page.is_visible("#card-heat")
    assert not report.page.is_visible("#card-signals")
    error = np.abs(2 + values.sum(1) - table.targets)
    for label, shown in zip(report.column("id"), report.column("error"), strict=True):
        assert_shows(shown, error[int(label)])


def ticks_of(report, chart):
    return report.evaluate(f"[...document.querySelectorAll('#chart-{chart} .ytick text')].map((t) => t.textContent)")


@pytest.mark.wide
def test_long_names_stay_apart_and_are_told_whole(opened):
    random = np.random.default_rng(0)
    names = [f"a very long name of a feature, in °C per 15 minutes, sensor {i}" for i in range(6)]
    explanation = deepshap.Explanation(
        random.normal(size=(5, 8, 6, 3)), np.zeros((5, 3)), random.normal(size=(5, 8, 6))
    )
    explanation.feature_names = names
    explanation.output_names = [f"the extraordinarily long name of output number {i}" for i in range(3)]
    explanation.row_ids = [f"patient with an incredibly long identifier, ward 12, {i}" for i in range(5)]
    report = opened(explanation, "#overview")
    ends = {f"sensor {i}" for i in range(6)}
    for chart in ("features", "map"):
        assert {tick[-8:] for tick in ticks_of(report, chart)} >= ends
    report.choose(0)
    assert {tick[-8:] for tick in ticks_of(report, "heat")} >= ends
    signals = report.evaluate(
        "[...document.querySelectorAll('#chart-signals .annotation-text')].map((t) => t.textContent)"
    )
    assert len({text[-8:] for text in signals} & ends) == 5
    options = report.evaluate("[...document.querySelectorAll('#output option')].map((o) => [o.textContent, o.title])")
    assert [(text[-7:], title) for text, title in options[2:]] == [
        (name[-7:], name) for name in explanation.output_names
    ]
    for selector, whole in (
        ("#rows td[data-key=id]", explanation.row_ids),
        ("#outputs .name", explanation.output_names),
        ("#top td.feature", names),
    ):
        cells = report.evaluate(
            f"""[...document.querySelectorAll('{selector}')].map((cell) => {{
              const [head, tail] = [cell.querySelector('.cut span'), cell.querySelector('.cut').lastChild];
              const range = document.createRange();
              range.selectNode(tail);
              const [end, box] = [range.getBoundingClientRect(), cell.getBoundingClientRect()];
              return [cell.title, head.textContent + tail.data, end.right <= box.right + 1 && end.width > 30];
            }})"""
        )
        assert {title for title, _, _ in cells} <= set(whole)
        assert len({title for title, _, _ in cells}) >= 3
        for title, text, is_whole in cells:
            assert (text, is_whole) == (title, True)


@pytest.mark.wide
def test_names_and_values_of_a_table_are_both_told_on_a_small_screen(opened):
    values = np.random.default_rng(0).normal(size=(2, 21)) + 2
    table = deepshap.Explanation(values, np.zeros(2), np.arange(21) + np.zeros((2, 21)))
    table.feature_names = [f"a very long name of a feature, number {i:02}" for i in range(21)]
    report = opened(table, "#example=0", width=420)
    ticks = ticks_of(report, "waterfall")
    assert ticks[-1] == "1 other feature"
    for tick in ticks[:-1]:
        name, value = tick.split(" = ")
        assert int(name[-2:]) == int(value)
    labels = "#chart-waterfall .bartext"
    right = report.evaluate(
        f"Math.max(...[...document.querySelectorAll('{labels}')].map((t) => t.getBoundingClientRect().right))"
    )
    assert right <= report.evaluate("document.getElementById('chart-waterfall').getBoundingClientRect().right")


@pytest.mark.wide
def test_picture_of_a_table_is_as_wide_as_its_card(opened):
    values = np.ones((2, 3))
    report = opened(deepshap.Explanation(values, np.zeros(2), values), "#overview")
    widths = report.evaluate(
        "['#chart-features .main-svg', '#chart-features'].map((e) => document.querySelector(e).clientWidth)"
    )
    assert widths[0] == widths[1]


@pytest.mark.parametrize(
    ("shape", "said"), [((1, 1, 1), "1 step × 1 feature"), ((3, 1, 5), "1 step × 5 features"), ((2, 1), "1 feature")]
)
def test_one_of_a_kind_is_singular(shape, said):
    values = np.ones(shape)
    explanation = deepshap.Explanation(values, np.zeros(shape[0]), values)
    explanation.background = {"rows": 1}
    page = render(explanation, None, 64, 0).decode()
    assert f"<small>{said}</small>" in page
    assert "<strong>1 row</strong>" in page


def test_one_word_and_one_right_example_are_singular():
    words = np.array([["good"]])
    text = deepshap.Explanation(np.ones((1, 1, 2)), np.zeros((1, 2)), words)
    text.output_names, text.targets = ["no", "yes"], ["no"]
    page = render(text, None, 64, 0).decode()
    assert "<small>1 word</small>" in page
    assert "<small>1 of 1 example</small>" in page


@pytest.mark.parametrize("scale", mostly_wide([1e12, 1e-9], {1e-9}))
def test_large_and_small_numbers_of_axes_are_powers_of_ten(opened, scale):
    values = np.random.default_rng(0).normal(size=(2, 25, 3)) * scale
    report = opened(deepshap.Explanation(values, np.zeros(2), values), "#overview")
    ticks = "[...document.querySelectorAll('#chart-features .xtick text')].map((t) => t.textContent)"
    assert all(tick == "0" or "×10" in tick for tick in report.evaluate(ticks))
    report.choose(0)
    assert report.evaluate("document.querySelectorAll('#chart-heat .x2tick text').length") == 0  # no room


@pytest.mark.wide
def test_button_for_more_signals_says_how_many_there_are(opened):
    values = np.random.default_rng(0).normal(size=(2, 4, 6))
    report = opened(deepshap.Explanation(values, np.zeros(2), values), "#example=0")
    assert report.text("#chips .link") == "1 more"


def test_several_inputs_add_up_together(opened):
    torch.manual_seed(0)
    inner, head = nn.Linear(10, 4).double(), nn.Linear(7, 2).double()

    def model(history, season):
        return head(torch.cat([torch.tanh(inner(history.flatten(1))), season], -1))

    background = [torch.randn(6, 5, 2).double(), torch.randn(6, 3).double()]
    joint = deepshap.DeepExplainer(model, background)([torch.randn(4, 5, 2).double(), torch.randn(4, 3).double()])
    report = opened(joint, "#example=2&output=1")
    report.wait_for(2, 1)
    assert_drawn(report.traces("heat")[0]["z"], joint[0].values[2, ..., 1].T)
    end = report.traces("build")[-1]["y"]
    assert_sums(end[-1:], joint[0].outputs[2:3, 1])
    assert_sums(end[:1], joint[0].base_values[2:3, 1] + joint[1].values[2, :, 1].sum())
    report.page.select_option("#part", "1")
    report.wait_for(2, 1, 1)
    bars = report.traces("waterfall")[0]
    assert_sums(sorted(bars["x"]), sorted(joint[1].values[2, :, 1]))
    shown = report.evaluate("document.querySelector('#sum b[data-value=attributions]').textContent")
    assert_shows(shown, joint[0].values[2, ..., 1].sum() + joint[1].values[2, :, 1].sum())


def test_outputs_of_every_step_have_labels(opened):
    values = np.random.default_rng(0).normal(
        size=(3, 4, 2, 4, 2)
    )  # (rows, steps, features, steps of the output, classes)
    explanation = deepshap.Explanation(values, np.zeros((3, 4, 2)), np.ones((3, 4, 2)))
    report = opened(explanation, "#example=1&output=5")
    assert_drawn(report.traces("heat")[0]["z"], values[1, :, :, 2, 1].T)
    assert report.evaluate("[...document.querySelectorAll('#output option')].map((o) => o.textContent)")[5].startswith(
        "2 · "
    )


@pytest.mark.wide
def test_ranked_outputs_have_names_of_their_own(opened):
    torch.manual_seed(0)
    model = nn.Linear(3, 5).double()
    explainer = deepshap.DeepExplainer(model, torch.randn(4, 3).double(), output_names=list("abcde"))
    x = torch.randn(6, 3).double()
    explanation = explainer(x, ranked_outputs=2)
    report = opened(explanation, "#example=3&output=1")
    second = int(model(x)[3].argsort(descending=True)[1])
    assert (
        report.evaluate("[...document.querySelectorAll('#outputs .name')].map((n) => n.textContent.split(' ')[0])")[1]
        == "abcde"[second]
    )
    assert_sums(sorted(report.traces("waterfall")[0]["x"]), sorted(explanation.values[3, :, 1]))


@pytest.mark.wide
def test_steps_have_time_stamps(opened):
    explanation = deepshap.Explanation(np.ones((2, 48, 1)), np.zeros(2), np.ones((2, 48, 1)))
    explanation.step_labels = np.datetime64("2026-03-01T00", "h") + np.arange(48) + np.array([[0], [24]])
    report = opened(explanation, "#example=1")
    ticks = report.evaluate("[...document.querySelectorAll('#chart-build .xtick text')].map((t) => t.textContent)")
    assert (ticks[0], ticks[-1].strip(), len(ticks) < 12) == ("2026-03-02 00:00", "2026-03-03 23:00", True)
    assert report.text("#top tbody td").startswith("2026-03-02")


def test_single_row_and_sums(opened, sequences):
    one = opened(sequences[3], "#example=0&output=1")
    assert_drawn(one.traces("heat")[0]["z"], sequences.values[3, : sequences.lengths[3], :, 1].T)
    steps = opened(sequences.output("Bob").over_features(), "#example=2")
    values = sequences.values[2, : sequences.lengths[2], :, 1].sum(-1, dtype=float)
    assert_drawn(steps.traces("heat")[0]["z"], values[None])
    features = opened(sequences.output("Bob").over_time(), "#example=2")
    assert_sums(sorted(features.traces("waterfall")[0]["x"]), sorted(sequences.values[2, ..., 1].sum(0, dtype=float)))


# ---------------------------------------------------------------------- limits
def test_sampling_keeps_what_matters_and_says_so(opened):
    random = np.random.default_rng(0)
    values = random.normal(size=(400, 20, 10))
    values[123] *= 50  # the largest attributions
    explanation = deepshap.Explanation(values, np.zeros(400), values)
    explanation.targets = values.sum((1, 2)) + random.normal(size=400) * 0.1
    explanation.targets[77] += 1000  # the worst prediction
    report = opened(explanation, max_megabytes=5.2)
    rows = report.evaluate("JSON.parse(document.getElementById('meta').textContent).rows")
    assert 20 < len(rows) < 200
    assert {77, 123} <= set(rows)
    assert f"{len(rows)} of 400 examples are shown" in report.text("#notice")
    assert "seed 0" in report.text("#notice")
    order = np.argsort(-np.abs(values).sum(1).mean(0), kind="stable")
    assert_sums(report.traces("features")[0]["x"], np.abs(values).sum(1).mean(0)[order])  # over all rows
    error = np.abs(values.sum((1, 2)) - explanation.targets)
    assert set(np.argsort(-error)[: len(rows) // 4]) <= set(rows)
    other = explanation.report(
        report.url.removeprefix("file://").replace(".html", "-2.html"), max_megabytes=5.2, seed=1
    )
    assert other.stat().st_size <= 5.2e6
    again = re.search(r'"rows": (\[[^]]*\])', other.read_text(encoding="utf-8"))
    assert again is not None
    assert again.group(1) != str(rows)


def test_outputs_are_left_out_where_they_do_not_fit(opened):
    values = np.random.default_rng(0).normal(size=(30, 20, 10, 40))
    explanation = deepshap.Explanation(values, np.zeros((30, 40)), values[..., 0])
    explanation.targets = np.full(30, 33)
    report = opened(explanation, max_megabytes=5.3)
    names = report.evaluate("JSON.parse(document.getElementById('meta').textContent).outputs")
    assert 1 < len(names) < 40
    assert any("33" in name for name in names)
    assert f"{len(names)} of 40 outputs are shown" in report.text("#notice")


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.ones((2, 3, 8, 8, 4)), {}, r"tables .*sequences .*images .*\(2, 3, 8, 8, 4\).*Sum the others"),
        (np.ones((2, 8, 3, 8)), {}, r"\(2, 8, 3, 8\).*channels may be first or last"),
        (np.full((2, 3, 4), np.nan), {}, "NaN or infinity"),
        (np.ones((2, 0, 4)), {}, "nothing to report"),
        (np.ones((2, 3, 4)), {"max_megabytes": 1}, "raise max_megabytes"),
    ],
)
def test_refusals(tmp_path, values, options, message):
    with pytest.raises(InputError, match=message):
        deepshap.Explanation(values, np.zeros(2), values).report(tmp_path / "report.html", **options)
    assert not (tmp_path / "report.html").exists()


def test_outputs_with_values_of_their_own(opened, sequences):
    explanation = sequences[:4]
    targets = explanation.outputs + np.array([[1.0, 0, 2], [3, 3, 3], [0, 0, 0], [np.nan, -6, 0]])
    explanation.targets = targets
    report = opened(explanation, "#example=1")
    assert report.column("id") == ["1", "3", "0", "2"]  # by the mean error over what is known: 3, 3, 1, 0
    assert [float(error) for error in report.column("error")] == [3, 3, 1, 0]
    report.evaluate("location.hash = 'example=0&output=2'")
    report.page.wait_for_selector("body[data-shown='0/2/0']")
    assert_shows(report.page.inner_text("[data-value=target]"), targets[0, 2])
    assert "highest" not in report.page.inner_text("#output")


def test_one_hot_targets_are_classes(sequences):
    content = read(sequences)
    classes, marks = judge_predictions(content), judge_predictions(replace(content, targets=np.eye(3)[content.targets]))
    assert marks.true.tolist() == classes.true.tolist() == ["Ann", "Bob", "Cy"] * 2
    np.testing.assert_array_equal(marks.error, classes.error)


def test_yes_and_no_for_each_output(sequences):
    content = read(sequences)
    found = judge_predictions(replace(content, targets=(content.outputs > 0).astype(int)))
    assert not found.wrong.any()
    np.testing.assert_allclose(-found.error, np.abs(content.outputs).min(1))


@pytest.mark.wide
def test_unknown_targets_are_shown_as_such(opened, sequences):
    one = sequences.output("Bob")
    one.targets = [0.5, np.nan, 0.25, 1.5, 2.5, np.nan]
    assert opened(one, "#example=1").column("true").count("–") == 2


def test_wrong_targets_are_refused(tmp_path, sequences):
    explanation = sequences[:4]
    explanation.targets = ["Ann", "Bob", "Dora", "Ann"]
    with pytest.raises(InputError, match="target of row 2 is 'Dora'"):
        explanation.report(tmp_path / "report.html")


def test_only_explanations_make_reports(tmp_path):
    with pytest.raises(InputError, match=r"deepshap\.Explanation"):
        write_report(np.ones((2, 3)), tmp_path / "report.html")


def test_missing_plotly_names_the_extra(tmp_path, sequences, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    monkeypatch.delitem(sys.modules, "deepshap.report.page", raising=False)
    with pytest.raises(ImportError, match=r"deepshap\[report\]"):
        sequences.report(tmp_path / "report.html")


def test_sums_that_do_not_match_are_shown_as_such(opened, sequences):
    explanation = sequences[:5]
    explanation.values = explanation.values * 1.5
    fact = opened(explanation).text(".fact.bad")
    assert "do not add up" in fact
    assert "✗" in fact


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e-4, 1.0, 1e6, 1e30])
def test_packed_digits_are_those_of_the_value(scale):
    values = np.concatenate([np.random.default_rng(0).normal(size=500) * scale, [0, 9.99951 * scale, -9.9999 * scale]])
    packed = decimal("v", values)
    shown = [
        float(f"{m}e{e}") for m, e in zip(packed["v_mantissa"].tolist(), packed["v_exponent"].tolist(), strict=True)
    ]
    assert shown == [float(f"{value:.3e}") for value in values]


# ---------------------------------------------------------------------- one output: yes or no, or a value
def single(outputs, name):
    """The explanation of a model with one output."""
    outputs = np.asarray(outputs, float)
    explanation = deepshap.Explanation(outputs[:, None], np.zeros(len(outputs)), np.ones((len(outputs), 1)))
    explanation.output_names = name
    explanation.predictions = outputs[:, None]
    return explanation


@pytest.mark.parametrize("outputs", [[-2.0, 0.5, 3.0, -0.1], [0.1, 0.6, 0.9, 0.4]])
def test_a_head_of_one_output_is_judged_and_says_what_it_predicts(outputs):
    explanation = single(outputs, "ill")
    explanation.targets = [1, 1, 0, 0]
    found = judge_predictions(read(explanation))
    assert found.predicted.tolist() == ["not ill", "ill", "ill", "not ill"]
    assert found.true.tolist() == ["ill", "ill", "not ill", "not ill"]
    assert found.wrong.tolist() == [True, False, True, False]
    threshold = 0.0 if min(outputs) < 0 else 0.5
    np.testing.assert_allclose(-found.error, (np.array(outputs) - threshold) * [1, 1, -1, -1])


@pytest.mark.parametrize("targets", [[1, 0, 0], ["ill", "not ill", "not ill"]])
@pytest.mark.parametrize("target", ["log-odds", "log-odds of true", "predicted", lambda p: p[:, 0] ** 2])
def test_what_is_explained_of_a_single_output_changes_nothing_about_its_answer(target, targets):
    weights = torch.tensor([[3.0], [-2.0]])
    explainer = deepshap.DeepExplainer(lambda x: torch.sigmoid(x @ weights), torch.zeros(1, 2), output_names=["ill"])
    explanation = explainer(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), target=target, targets=[1, 0, 0])
    explanation.targets = targets
    found = judge_predictions(read(explanation))
    assert found.predicted.tolist() == ["ill", "not ill", "ill"]
    assert found.true.tolist() == ["ill", "not ill", "not ill"]
    p = 1 / (1 + np.exp(-np.array([3.0, -2.0, 1.0])))
    np.testing.assert_allclose(-found.error, (p - 0.5) * [1, -1, -1], atol=1e-6)


def test_whole_numbers_are_values_where_the_output_is_a_value():
    explanation = single([1.5, 3.0, 7.5], "price")
    explanation.targets = [1, 3, 9]
    found = judge_predictions(read(explanation))
    assert found.predicted is None
    assert found.wrong is None
    np.testing.assert_allclose(found.error, [0.5, 0, 1.5])


# ---------------------------------------------------------------------- padding, ids, the input that matters most
def test_padding_is_no_word(opened):
    """Neither by its token nor behind the length; against longer references it has attributions, told as one number."""
    words = np.array([["good", "film", "[PAD]", "x"], ["bad", "film", "indeed", "."]], dtype=object)
    values = np.array([[0.5, -0.25, 1.0, 2.0], [-1.5, 0.125, 0.0625, -1.25]])
    text = deepshap.Explanation(values, np.zeros(2), words)
    text.step_labels = range(4)
    text._track(valid_steps=Obj(np.array([3, 4]), [0]))
    report = opened(text, "#example=0")
    assert report.text("#words").split() == ["good", "film", "and", "padding", "+3"]
    assert report.column("text") == ["good film", "bad film indeed ."]
    assert report.evaluate("[...document.querySelectorAll('#top td.word')].map((cell) => cell.textContent)") == [
        "good",
        "film",
    ]
    assert report.traces("build")[-1]["y"][-1] == pytest.approx(values[0].sum())
    assert "2 to 4 words" in report.text("[data-fact=Examples]")
    report.page.click("#tab-overview")
    report.page.wait_for_selector("#features-lead:not(:empty)")
    assert ticks_of(report, "features") == ["bad", ".", "good", "film", "indeed"]


def test_category_ids_are_one_feature(opened):
    values, ids = np.array([0.5, -1.0, 2.0]), np.array([3, 1, 4])
    report = opened(deepshap.Explanation(values, np.zeros(3), ids), "#example=2")
    assert_sums(report.traces("waterfall")[0]["x"], [2.0])
    assert report.evaluate("[...document.querySelectorAll('#top tbody td')].map((c) => c.textContent)")[:3] == [
        "Feature 0",
        "4",
        "+2",
    ]
    assert "1 feature" in report.text("[data-fact=Examples]")


def test_the_input_of_the_largest_influence_comes_first(opened):
    random = np.random.default_rng(0)
    shapes = {"past": (3, 4, 2), "static": (3, 2), "future": (3, 5, 1)}
    parts = {
        name: deepshap.Explanation((name == "future") + random.random(shape), np.zeros(3), np.ones(shape))
        for name, shape in shapes.items()
    }
    report = opened(deepshap.JointExplanation(parts))
    assert report.page.input_value("#part") == "2"
