"""What notebooks show of an explanation."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

import deepshap
from deepshap import Explanation, JointExplanation


class Page(HTMLParser):
    """Texts and attributes of a page whose elements are all closed."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.elements.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def sequences() -> Explanation:
    random = np.random.default_rng(0)
    values = random.normal(size=(6, 20, 3, 2)) * np.array([1, 10, 0.1])[:, None]
    explanation = Explanation(values, np.tile([0.25, -1.5], (6, 1)), random.normal(size=(6, 20, 3)), compute_time=2.5)
    explanation.feature_names = ["wind", "<script>alert(1)</script>", "rain"]
    explanation.output_names = ["up", "down"]
    explanation.background, explanation.model = {"rows": 50, "description": "last year"}, "Net"
    return explanation


@pytest.mark.fast
def test_sequences():
    explanation = sequences()
    page = Page(explanation._repr_html_())
    for text in (
        "6 rows × 20 steps × 3 features × 2 outputs",
        "Net",
        "50 rows, last year",
        "up, down",
        "0.25, -1.5",
        "2.5 s",
    ):
        assert text in page.text
    size = np.abs(explanation.values).mean(-1)
    by_feature = size.sum(1).mean(0)
    numbers = [f"{by_feature[i]:.4g}" for i in (1, 0, 2)]
    assert [text for text in page.texts if text in numbers] == numbers  # the largest first
    shades = [float(attributes["fill-opacity"]) for tag, attributes in page.elements if tag == "rect"]
    by_step = size.sum(2).mean(0)
    np.testing.assert_allclose(shades, by_step / by_step.max(), atol=6e-4)


def test_names_are_escaped_and_nothing_is_fetched():
    page = Page(sequences()._repr_html_())
    tags = {tag for tag, _ in page.elements}
    assert tags <= {"div", "span", "b", "svg", "rect"}
    assert not {"src", "href", "onload"} & {name for _, attributes in page.elements for name in attributes}
    assert "<script>alert(1)</script>" in page.texts


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (lambda e: e.over_time(), "6 rows × 3 features × 2 outputs"),
        (lambda e: e.over_features(), "6 rows × 20 steps × 2 outputs"),
        (lambda e: e[2], "1 row: 20 steps × 3 features × 2 outputs"),
        (lambda e: e.output("up")[2].over_time(), "1 row: 3 features"),
        (lambda e: JointExplanation({"weather": e, "season": e.over_time()}), "weather: 6 rows × 20 steps"),
        (lambda e: e[:0], "0 rows"),
        (lambda e: Explanation(np.ones((2, 3, 8, 8)), np.zeros(2), np.ones((2, 3, 8, 8))), "2 rows × 3 × 8 × 8"),
        (lambda e: Explanation(np.ones((2, 3)), None, None), "2 rows × 3 features"),
    ],
)
def test_every_explanation_has_a_look(view, text):
    assert text in Page(view(sequences())._repr_html_()).text


def test_padding_does_not_thin_out_the_steps():
    values = np.ones((4, 10, 1))
    values[:3, 5:] = 0
    explanation = deepshap.Explanation(values, np.zeros(4), values)
    explanation.lengths = [5, 5, 5, 10]
    shades = [a["fill-opacity"] for tag, a in Page(explanation._repr_html_()).elements if tag == "rect"]
    assert shades == ["1.000"] * 10
