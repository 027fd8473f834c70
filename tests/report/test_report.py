"""The report, as a browser shows it: every number on the page is the explanation's, and nothing leaves the page."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from browser import Report, assert_drawn, assert_shows, assert_sums, parsed
from torch import nn

import deepshap

ROWS, STEPS, FEATURES, CLASSES = 40, 12, 7, 3
SPEAKERS = ["Ann", "Bob", "<b>Cy</b>"]
EVIL = "<img src=x onerror=alert(1)><script>alert(1)</script>"
NAMES = [EVIL, "</script><script>alert(2)</script>", "{{style}}", "a&amp;b <!--", "temp °C", "flow", "flow 2"]


class Classifier(nn.Module):
    """Scores the classes by the valid steps of a sequence."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)

    def forward(self, x, lengths):
        there = (torch.arange(STEPS) < lengths[:, None])[..., None]
        return self.head((torch.tanh(self.inner(x)) * there).sum(1))


@pytest.fixture(scope="module")
def sequences():
    torch.manual_seed(1)
    x, lengths = torch.randn(ROWS, STEPS, FEATURES), torch.randint(3, STEPS + 1, (ROWS,))
    lengths[0] = STEPS
    x[torch.arange(STEPS) >= lengths[:, None]] = 0
    explainer = deepshap.DeepExplainer(
        Classifier(), torch.randn(9, STEPS, FEATURES), feature_names=NAMES, output_names=SPEAKERS
    )
    explanation = explainer(x, additional_forward_args=(lengths,))
    explanation.lengths = lengths.numpy()
    explanation.targets = np.random.default_rng(0).integers(0, CLASSES, ROWS)
    explanation.row_ids = [f"call {i}" for i in range(ROWS)]
    return explanation


@pytest.fixture(scope="module")
def report(browser, sequences, tmp_path_factory):
    opened = Report(browser, sequences.report(tmp_path_factory.mktemp("report") / "report.html")).open()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def quiet(request):
    """No test leaves errors, dialogs or requests behind."""
    yield
    if "report" in request.fixturenames:
        opened = request.getfixturevalue("report")
        assert opened.problems == []
        opened.page.evaluate(
            "for (const id of ['search', 'filter-predicted', 'filter-true', 'filter-wrong']) {"
            "document.getElementById(id).value = ''; document.getElementById(id).dispatchEvent(new Event("
            "id === 'search' ? 'input' : 'change')); } document.activeElement.blur()"
        )


def highest(explanation):
    return explanation.outputs.argmax(1)


# ---------------------------------------------------------------------- the file
def test_file_is_self_contained_and_asks_for_nothing(report, sequences):
    linked = report.evaluate(
        "[...document.querySelectorAll('[src], [href]')].map((e) => e.getAttribute('src') ?? e.getAttribute('href'))"
    )
    assert all(link.startswith(("#", "data:")) for link in linked)
    policy = report.evaluate("document.querySelector('meta[http-equiv]').content")
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    assert report.evaluate("typeof Plotly") == "object"


def test_injected_script_does_not_run(report):
    report.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert report.evaluate("window.ran") is None
    assert any("Content Security Policy" in problem for problem in report.problems)
    report.problems.clear()


def test_key_facts(report, sequences):
    facts = report.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.fact')].map((f) => [f.dataset.fact, f.innerText]))"
    )
    right = (highest(sequences) == sequences.targets).mean()
    assert "Classifier" in facts["Model"]
    assert f"{ROWS}\n{sequences.lengths.min()} to {STEPS} steps × {FEATURES} features" in facts["Examples"]
    assert "Ann, Bob, <b>Cy</b>" in facts["Outputs"]
    assert "9 rows" in facts["Background"]
    assert f"{right:.1%}" in facts["Correct"]
    assert "✓" in facts["Largest gap"]
    assert_shows(facts["Largest gap"].split("\n")[1].removeprefix("✓ "), sequences.gap.max(), 2)
    assert report.page.title() == "Classifier: explanation"
    assert not report.page.is_visible("#notice")


def test_texts_of_the_user_stay_texts(report):
    report.choose(0)
    ticks = report.evaluate("[...document.querySelectorAll('#chart-heat .ytick text')].map((t) => t.textContent)")
    assert {"</script><script>al…)</script>", *NAMES[2:]} <= set(ticks)
    assert report.evaluate("document.querySelectorAll('img, #main script, td b, button b').length") == 0
    assert EVIL in report.text("#chips select")
    assert "<b>Cy</b>" in report.text("#outputs")


# ---------------------------------------------------------------------- overview
@pytest.mark.parametrize(
    ("scope", "measure"), [("all", "size"), ("one", "size"), ("one", "signed"), ("highest", "signed")]
)
def test_global_importance_equals_the_values(report, sequences, scope, measure):
    report.evaluate("location.hash = 'overview'")
    report.page.select_option("#output", {"one": "1", "all": "all", "highest": "-1"}[scope])
    report.page.click(f"#measure [data-value={measure}]")
    values = sequences.values.astype(float)
    if scope == "highest":
        values = np.take_along_axis(values, highest(sequences)[:, None, None, None], 3)[..., 0]
    else:
        values = values[..., 1] if scope == "one" else values
    values = np.abs(values) if measure == "size" else values
    values = values.mean(-1) if scope == "all" else values  # (rows, steps, features)
    there = (np.arange(STEPS) < sequences.lengths[:, None]).sum(0)
    (bars,) = report.traces("features")
    expected = values.sum(1).mean(0)
    assert_sums(bars["x"], expected[np.argsort(-np.abs(expected), kind="stable")])
    assert_sums(report.traces("steps")[0]["y"], values.sum((0, 2)) / there)
    assert_drawn(report.traces("map")[0]["z"], (values.sum(0) / there[:, None]).T)


# ---------------------------------------------------------------------- table
def test_numbers_in_the_table_equal_the_values(report, sequences):
    report.choose(0, 2)
    margin = sequences.outputs[np.arange(ROWS), sequences.targets] - np.where(
        np.arange(CLASSES) == sequences.targets[:, None], -np.inf, sequences.outputs
    ).max(1)
    columns = dict(zip(report.heads(), zip(*report.lines(), strict=True), strict=True))
    assert list(columns) == ["id", "predicted", "true", "error", "output", "size", "gap", "length"]
    assert len(columns["id"]) > 20
    for place, label in enumerate(columns["id"]):
        row = int(label.removeprefix("call "))
        assert columns["predicted"][place] == SPEAKERS[highest(sequences)[row]]
        assert columns["true"][place] == SPEAKERS[sequences.targets[row]]
        assert_shows(columns["error"][place], margin[row])
        assert_shows(columns["output"][place], sequences.outputs[row, 2])
        assert_shows(columns["size"][place], np.abs(sequences.values[row, ..., 2], dtype=float).sum())
        assert_shows(columns["gap"][place], sequences.gap[row, 2], 2)
        assert columns["length"][place] == str(sequences.lengths[row])


def test_worst_predictions_come_first(report):
    report.choose(0)
    report.page.select_option("#sort", "id")
    report.page.select_option("#sort", "error")
    margins = list(map(parsed, report.column("error")))
    assert margins == sorted(margins)
    report.page.click("#direction")
    margins = list(map(parsed, report.column("error")))
    assert margins == sorted(margins, reverse=True)
    report.page.click("#rows th[data-key=size] button")
    sizes = list(map(parsed, report.column("size")))
    assert sizes == sorted(sizes, reverse=True)
    assert report.page.get_attribute("#rows th[data-key=size]", "aria-sort") == "descending"


def test_search_and_filters(report, sequences):
    report.choose(0)
    report.page.fill("#search", "call 17")
    assert report.column("id") == ["call 17"]
    assert report.text("#count") == f"1 of {ROWS} examples"
    report.page.fill("#search", "nowhere to be found")
    assert report.text("#rows tbody") == "No example matches."
    report.page.fill("#search", "")
    report.page.select_option("#filter-true", "Bob")
    report.page.select_option("#filter-wrong", "wrong")
    expected = (sequences.targets == 1) & (highest(sequences) != 1)
    assert set(report.column("id")) == {f"call {row}" for row in np.flatnonzero(expected)}
    kind = highest(sequences)[np.flatnonzero(expected)[0]]
    report.page.select_option("#filter-predicted", SPEAKERS[kind])
    expected &= highest(sequences) == kind
    assert {*report.column("id")} == {f"call {row}" for row in np.flatnonzero(expected)}


def test_long_tables_keep_few_lines_in_the_page(opened):
    values = np.random.default_rng(0).normal(size=(3000, 2))
    report = opened(deepshap.Explanation(values, np.zeros(3000), values), "#example=0")
    assert 10 < len(report.lines()) < 60
    report.evaluate("document.getElementById('scroll').scrollTop = 1e9")
    report.page.wait_for_selector("#rows tr[data-row='2999']")
    assert len(report.lines()) < 60


# ---------------------------------------------------------------------- the chosen example
@pytest.mark.parametrize(("row", "output"), [(0, 0), (7, 2), (23, 1)])
def test_pictures_of_an_example_equal_the_values(report, sequences, row, output):
    report.choose(row, output)
    length = sequences.lengths[row]
    values = sequences.values[row, :length, :, output].astype(float)
    heat, by_step, by_feature = report.traces("heat")
    assert_drawn(heat["z"], values.T)
    assert_sums(by_step["y"], values.sum(1))
    assert_sums(by_feature["x"], values.sum(0))
    build = report.traces("build")[-1]
    assert_sums(build["y"], sequences.base_values[row, output] + np.append(0, np.cumsum(values.sum(1))))
    assert build["y"][-1] == pytest.approx(sequences.outputs[row, output], rel=1e-4, abs=1e-5)
    strength = np.abs(values).sum(0)
    colours, signals = report.traces("signals")[::2], report.traces("signals")[1::2]
    shown = [signal["features"][0] for signal in signals]
    assert_drawn(strength[shown], np.sort(strength)[::-1][:5])
    for feature, colour, signal in zip(shown, colours, signals, strict=True):
        assert_drawn(colour["z"], values[None, :, feature])
        np.testing.assert_array_equal(np.float32(signal["y"]), np.float32(sequences.data[row, :length, feature]))


def test_numbers_of_an_example_equal_the_values(report, sequences):
    report.choose(5, 1)
    shown = report.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#sum b')].map((b) => [b.dataset.value, b.textContent]))"
    )
    assert_shows(shown["base value"], sequences.base_values[5, 1])
    assert_shows(shown["attributions"], sequences.values[5, ..., 1].sum(dtype=float))
    assert_shows(shown["output"], sequences.outputs[5, 1])
    assert report.text("#example-title") == "call 5"
    for shown, value in zip(
        report.evaluate("[...document.querySelectorAll('#outputs .value')].map((v) => v.textContent)"),
        sequences.outputs[5],
        strict=True,
    ):
        assert_shows(shown, value)
    cells = report.evaluate(
        "[...document.querySelectorAll('#top tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))"
    )
    values = sequences.values[5, : sequences.lengths[5], :, 1].astype(float)
    order = np.argsort(-np.abs(values), axis=None, kind="stable")
    for (step, feature, datum, attribution, _), place in zip(cells, order[: len(cells)], strict=True):
        at = np.unravel_index(place, values.shape)
        assert (int(step), feature) == (at[0], NAMES[at[1]])
        assert_shows(datum, sequences.data[5][at])
        assert_shows(attribution, values[at])


def test_click_and_keyboard_choose_examples(report):
    report.choose(3, 0)
    report.page.select_option("#sort", "output")
    report.page.select_option("#sort", "id")
    order = [int(label.removeprefix("call ")) for label in report.column("id")]
    pictures = []

    def chosen(row: int) -> None:
        report.wait_for(row, 0)
        pictures.append(report.traces("heat")[0]["z"])
        assert report.evaluate("document.querySelector('#rows [aria-selected=true]').dataset.row") == str(row)

    report.page.click("#rows tr[data-row='4']")
    chosen(4)
    for key, row in [("j", 5), ("ArrowDown", 6), ("k", 5), ("ArrowUp", 4)]:
        report.page.keyboard.press(key)
        chosen(row)
    report.page.click("#next")
    chosen(5)
    assert order[:5] == [0, 1, 2, 3, 4]
    assert all(one != two for one, two in pairwise(pictures))
    report.page.keyboard.press("/")
    report.page.keyboard.type("call 9j")  # a letter in the search box is a letter
    assert report.page.input_value("#search") == "call 9j"
    report.page.keyboard.press("Escape")
    report.page.keyboard.press("?")
    assert report.page.is_visible("#help")
    report.page.keyboard.press("Escape")
    assert not report.page.is_visible("#help")


def test_outputs_are_chosen_by_list_by_click_and_by_keyboard(report, sequences):
    report.choose(8, 0)
    report.page.keyboard.press("ArrowRight")
    report.wait_for(8, 1)
    assert_drawn(report.traces("heat")[0]["z"], sequences.values[8, : sequences.lengths[8], :, 1].T)
    report.page.select_option("#output", "2")
    report.wait_for(8, 2)
    report.page.click("#outputs li:nth-child(1) button")
    report.wait_for(8, 0)
    report.page.keyboard.press("ArrowLeft")
    report.wait_for(8, int(highest(sequences)[8]))
    assert report.page.input_value("#output") == "-1"
    assert report.evaluate("location.hash") == "#example=8&output=highest"
    report.page.keyboard.press("j")
    report.page.wait_for_selector('body:not([data-shown^="8/"])', state="attached")
    row, output, _ = report.shown()
    assert output == highest(sequences)[row]


def test_address_restores_the_choice(opened, sequences):
    report = opened(sequences[:12], "#example=7&output=1")
    report.wait_for(7, 1)
    assert report.text("#example-title") == "call 7"


def test_hover_tells_the_numbers(report, sequences):
    report.choose(0, 0)
    box = report.page.locator("#chart-heat .nsewdrag").first.bounding_box()
    assert box is not None
    report.page.mouse.move(box["x"] + box["width"] * 2.5 / STEPS, box["y"] + box["height"] * 5.5 / FEATURES)
    report.page.wait_for_selector("#tip:not([hidden])")
    heading, *pairs = report.text("#tip").split("\n")
    shown = dict(zip(pairs[::2], pairs[1::2], strict=True))
    assert (heading, shown["step"]) == ("flow", "2")
    assert_shows(shown["value"], sequences.data[0, 2, 5])
    assert_shows(shown["attribution"], sequences.values[0, 2, 5, 0])


def test_zoom_is_shared_and_undone(report):
    report.choose(0, 0)
    report.page.locator("#chart-build").scroll_into_view_if_needed()
    box = report.page.locator("#chart-build .nsewdrag").first.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    report.page.mouse.move(box["x"] + box["width"] * 0.25, middle)
    report.page.mouse.down()
    report.page.mouse.move(box["x"] + box["width"] * 0.75, middle, steps=4)
    report.page.mouse.up()
    ranges = "['heat', 'build', 'signals'].map((id) => document.getElementById(`chart-${id}`).layout.xaxis.range)"
    report.until(f"{ranges}.every((r, _, all) => r[0] > 0 && String(r) === String(all[0]))")
    zoomed = report.evaluate(ranges)
    np.testing.assert_allclose(zoomed[0], [-0.5 + STEPS / 4, -0.5 + STEPS * 3 / 4], atol=0.3)
    whole = f"{ranges}.every((r) => r[0] === -0.5 && r[1] === {STEPS - 0.5})"
    report.double_click_until(box["x"] + 30, middle, whole)


# ---------------------------------------------------------------------- looks
def luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return float(
        np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    )


def test_light_and_dark(opened, sequences):
    report = opened(sequences[:3], "#example=0", scheme="dark")

    def colours() -> dict[str, str]:
        names = [*texts, "page", "surface", "accent-soft", "notice"]
        style = "getComputedStyle(document.documentElement)"
        return {name: report.evaluate(f"{style}.getPropertyValue('--{name}').trim()") for name in names}

    texts = ("ink", "muted", "red-text", "blue-text", "accent-text", "good", "rough", "bad")
    dark = colours()
    assert luminance(dark["page"]) < 0.05
    dark_picture = report.evaluate("document.getElementById('chart-heat').layout.font.color")
    report.page.click("#theme")
    light = colours()
    assert luminance(light["page"]) > 0.8
    assert report.evaluate("document.getElementById('chart-heat').layout.font.color") != dark_picture
    on = [(text, ground) for text in texts for ground in ("surface", "page")]
    for theme in (light, dark):
        for text, ground in [*on, ("accent-text", "accent-soft"), ("ink", "notice"), ("ink", "accent-soft")]:
            one, two = sorted([luminance(theme[text]), luminance(theme[ground])])
            assert (two + 0.05) / (one + 0.05) >= 4.5, (text, ground, theme)


TOOLS_COVER = """[...document.querySelectorAll('.modebar')].filter((bar) => bar.checkVisibility()).flatMap((bar) => {
  const [card, here] = [bar.closest('.card'), bar.getBoundingClientRect()];
  const found = [...card.querySelectorAll('.main-svg, input')].map((other) => [other, other.getBoundingClientRect()]);
  const texts = document.createTreeWalker(card, NodeFilter.SHOW_TEXT);
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const range = document.createRange();
    range.selectNodeContents(text);
    if (!bar.contains(text)) found.push(...Array.from(range.getClientRects(), (place) => [text, place]));
  }
  const beside = (place) => place.right <= here.left || here.right <= place.left;
  const covers = (place) => place.width && !beside(place) && place.top < here.bottom && here.top < place.bottom;
  return found.filter(([, place]) => covers(place)).map(([other]) => `${card.id}: ${other.data ?? other.outerHTML.slice(0, 60)}`);
})"""


@pytest.mark.parametrize("width", [1400, 420])
@pytest.mark.parametrize(
    ("steps", "features"), [(12, 7), *(pytest.param(*shape, marks=pytest.mark.wide) for shape in ((1, 1), (12, 1)))]
)
def test_tools_of_pictures_cover_nothing(opened, steps, features, width):
    values = np.random.default_rng(0).normal(size=(3, steps, features))
    report = opened(deepshap.Explanation(values, np.zeros(3), values), "#overview", width=width, groups=["a", "b", "a"])
    for address, cards in (("overview", 5 + (features > 1)), ("example=0", 3)):
        report.evaluate(f"location.hash = '{address}'")
        count = "[...document.querySelectorAll('.modebar')].filter((bar) => bar.checkVisibility()).length"
        report.until(f"{count} === {cards}")
        assert report.evaluate(TOOLS_COVER) == []


@pytest.mark.parametrize("width", [1400, 1024, 420])
def test_page_fits_the_screen(report, width):
    report.page.set_viewport_size({"width": width, "height": 900})
    for address in ("overview", "example=0"):
        report.evaluate(f"location.hash = '{address}'")
        chart = "features" if address == "overview" else "heat"
        drawn = f"(document.querySelector('#chart-{chart} svg')?.clientWidth ?? 0)"
        report.until(f"{drawn} > 0 && {drawn} <= {width}")
        assert report.evaluate("document.documentElement.scrollWidth") <= width
    report.page.set_viewport_size({"width": 1400, "height": 900})


def test_controls_have_names(report):
    report.choose(0)
    unnamed = report.evaluate(
        """[...document.querySelectorAll('button, select, input, [role=img]')]
        .filter((e) => e.checkVisibility() && !e.closest('.modebar'))
        .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)).map((e) => e.outerHTML)"""
    )
    assert unnamed == []


# ---------------------------------------------------------------------- decisions
def test_a_search_means_words_of_one_field(opened):
    values = np.random.default_rng(0).normal(size=(30, 3, 4))
    explanation = deepshap.Explanation(values, np.zeros((30, 4)), np.ones((30, 3)))
    explanation.output_names = [f"speaker {k}" for k in range(1, 5)]
    explanation.targets = np.array(explanation.output_names)[np.arange(30) % 4]
    report = opened(explanation, "#example=0")
    said = np.array(explanation.output_names)[values.sum(1).argmax(1)]
    report.page.fill("#search", "speaker 4")
    meant = {str(row) for row in range(30) if row % 4 == 3 or said[row] == "speaker 4"}
    assert set(report.column("id")) == meant
    assert "14" not in meant or said[14] == "speaker 4"
    report.page.fill("#search", "1")
    assert set(report.column("id")) == {
        str(row) for row in range(30) if row == 1 or row % 4 == 0 or said[row] == "speaker 1"
    }
    report.page.fill("#search", "speak")  # a beginning, while it is typed
    assert report.text("#count") == "30 examples"
    truth, four = np.array(explanation.targets), "speaker 4"
    for typed, mask in (
        ("wrong", said != truth),
        ("predicted speaker 4", said == four),
        ('true: "speaker 4"', truth == four),
        ("speaker 4, wrong", ((said == four) | (truth == four)) & (said != truth)),
    ):
        report.page.fill("#search", typed)
        assert set(report.column("id")) == {str(row) for row in np.flatnonzero(mask)}


def test_confusion_matrix_leads_to_its_examples(report, sequences):
    report.page.click("#tab-overview")
    targets, said = sequences.targets, highest(sequences)
    counts = np.zeros((CLASSES, CLASSES), int)
    np.add.at(counts, (targets, said), 1)
    shown = report.evaluate(
        "[...document.querySelectorAll('#confusion tbody tr')].map((r) => [...r.cells].slice(1).map((c) => +c.textContent))"
    )
    assert shown == counts.tolist()  # in the order of the model's outputs
    true, predicted = map(int, np.argwhere(counts)[-1])
    report.page.click(f"#confusion tbody tr:nth-child({true + 1}) td:nth-child({predicted + 2}) button")
    assert set(report.column("id")) == {
        f"call {row}" for row in np.flatnonzero((targets == true) & (said == predicted))
    }


def test_one_output_of_a_row_says_what_was_predicted_and_what_is_explained(opened):
    values = np.random.default_rng(1).normal(size=(6, 5, 2, 3))
    explanation = deepshap.Explanation(values, np.zeros((6, 3)), np.ones((6, 5, 2)), feature_names=["a", "b"])
    explanation.output_names = explanation.classes = ["cat", "dog", "emu"]
    explanation.predictions = values.sum((1, 2))
    explanation.targets = ["dog"] * 6
    explanation.time_label = "time (s)"
    said = np.array(explanation.classes)[explanation.predictions.argmax(1)]
    wrong = int(np.flatnonzero(said != "dog")[0])
    report = opened(explanation.output("cat"), f"#example={wrong}")
    lead = report.text("#example-lead")
    assert f"predicted: {said[wrong]}" in lead
    assert "true: dog" in lead
    assert "wrong" in lead
    assert "explained: cat" in lead
    assert report.text("[data-fact='Explained output'] strong") == "cat"
    assert report.text("[data-fact=Correct] small") == f"{(said == 'dog').sum()} of 6 examples"
    margins = [float(text.replace("\u2212", "-")) for text in report.column("error")]
    other = np.where(np.arange(3) == 1, -np.inf, explanation.predictions).max(1)
    np.testing.assert_allclose(margins, np.sort(explanation.predictions[:, 1] - other), rtol=1e-3)
    assert "time (s)" in report.text("#chart-heat")


def test_static_inputs_stand_beside_sequences(opened):
    random = np.random.default_rng(2)
    series, place = random.normal(size=(4, 5, 2)), random.normal(size=(4, 3))
    parts = [
        deepshap.Explanation(series, np.zeros(4), np.ones((4, 5, 2)), feature_names=["wind", "sun"]),
        deepshap.Explanation(place, np.zeros(4), np.ones((4, 3)), feature_names=["north", "high", "dry"]),
    ]
    report = opened(deepshap.JointExplanation(parts), "#example=2")
    strongest = ["north", "high", "dry"][int(np.abs(place[2]).argmax())]
    assert strongest in report.text("#beside tbody tr:first-child")
    assert f"{place[2].sum():+.4g}".replace("-", "\u2212") in report.text("#beside-lead")
