"""Texts show every token, on a shade that says what it contributed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from plotting import no_window as no_window
from plotting import words

import deepshap
from deepshap import InputError, plots
from deepshap.plots.style import EVIDENCE

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_window")]


class Parser(HTMLParser):
    """Collects words with their tooltips, tags and text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.spans, self.text = [], [], ""
        self._open = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "span" and dict(attrs)["title"]:
            self.spans.append([dict(attrs)["title"], ""])
            self._open = True

    def handle_endtag(self, tag):
        self._open = False

    def handle_data(self, data):
        self.text += data
        if self._open:
            self.spans[-1][1] += data


def test_text_writes_every_token_on_its_shade():
    values = [0.5, -1.0, 0.0, 0.25]
    ax = plots.text(words(["what", "a", "good", "film"], values))
    assert [text.get_text() for text in ax.texts] == ["what", "a", "good", "film"]
    for text, value in zip(ax.texts, values, strict=True):
        assert text.get_bbox_patch().get_facecolor() == EVIDENCE(0.5 + value / 2)
    assert ax.texts[1].get_bbox_patch().get_linestyle() == "--"  # in print without colour
    assert ax.get_title(loc="left") == "base value 0.25 · output 0"


def test_text_of_embeddings_sums_their_dimensions():
    values = np.random.default_rng(0).normal(size=(2, 3, 8))
    made = deepshap.Explanation(values, np.zeros(2), values)
    with pytest.raises(InputError, match=r"needs the words.*display_data.*\(3,\)"):
        plots.text(made[0])
    made.step_labels = np.array([["so", "very", "good"], ["not", "my", "taste"]])
    parsed = Parser(plots.text_html(made))
    assert [word for _, word in parsed.spans] == ["so", "very", "good", "not", "my", "taste"]
    drawn = [float(value.replace("\N{MINUS SIGN}", "-")) for value, _ in parsed.spans]
    np.testing.assert_allclose(drawn, values.sum(2).ravel(), atol=0.006)


def test_padding_of_texts_is_left_out():
    made = deepshap.Explanation(
        np.array([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]),
        np.zeros(2),
        np.array([["a", "b", "[PAD]"], ["c", "[PAD]", "[PAD]"]]),
    )
    made.lengths = [2, 1]
    assert [word for _, word in Parser(plots.text_html(made)).spans] == ["a", "b", "c"]
    assert [text.get_text() for text in plots.text(made[1]).texts] == ["c"]


def test_padding_with_attributions_is_a_number_and_no_word():
    ax = plots.text(words(["<pad>", "so", "good", "[PAD]"], [0.25, 1.0, -2.0, 0.5]))
    assert [text.get_text() for text in ax.texts] == ["so", "good"]
    assert ax.get_title(loc="left") == "base value 0.25 · output 0 · padding +0.75"


def test_padding_that_longer_references_give_attributions_is_a_number():
    made = words(["so", "good", "zero", "zero"], [1.0, -2.0, 0.5, 0.25])
    made.lengths = 2
    ax = plots.text(made)
    assert [text.get_text() for text in ax.texts] == ["so", "good"]
    assert ax.get_title(loc="left") == "base value 0.25 · output 0 · padding +0.75"
    drawn = " ".join(text.get_text() for text in plots.waterfall(made).texts)
    assert "\N{MINUS SIGN}0.25" in drawn  # all that leads from the base value to the output


def test_html_of_a_text_is_escaped_and_has_no_script():
    evil = ["<script>alert(1)</script>", "&amp;", '"quoted"', "it's", "</span>"]
    made = words(evil, [1.0, -1.0, 0.5, -0.5, 0.2])
    html = plots.text_html(made, unit="<b>")
    parsed = Parser(html)
    assert set(parsed.tags) == {"div", "p", "span"}
    assert [word for _, word in parsed.spans] == evil
    assert "script>" not in html
    assert html._repr_html_() == html
    assert not re.search(r"https?:|url\(|on\w+=", html)


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        (["play", "##ing", "now", "."], "playing now."),
        (["Ġplay", "ing", "Ġnow", "."], "playing now."),
        (["▁play", "ing", "▁now", "."], "playing now."),
        (["play", "ing ", "now", "."], "playing now."),
        (["playing", "now", "."], "playing now."),
    ],
)
def test_spaces_of_tokens_are_kept(tokens, shown):
    html = plots.text_html(words(tokens, list(np.ones(len(tokens)))))
    paragraph = re.search(r"<p.*?</p>", html).group()
    assert Parser(paragraph).text.strip() == shown


@pytest.mark.parametrize("plot", [plots.text, plots.text_html])
def test_numbers_of_a_table_are_no_words(plot):
    table = deepshap.Explanation(np.ones((4, 3)), np.zeros(4), np.full((4, 3), 0.5))
    with pytest.raises(InputError, match=r"needs the words: set explanation.display_data"):
        plot(table[0])
    table.display_data = np.full((4, 3), "word")
    plot(table[0])


def test_long_texts_are_wrapped_and_kept_inside():
    tokens = [f"word{i}" for i in range(300)]
    values = np.random.default_rng(0).normal(size=300)
    ax = plots.text(words(tokens, values))
    figure = ax.figure
    figure.canvas.draw()
    frame = figure.get_window_extent()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == 300
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)
    heights = [box.y0 for box in boxes]
    assert all(a.x1 <= b.x0 for a, b in pairwise(boxes) if abs(a.y0 - b.y0) < 3)
    assert np.all(np.diff(heights) < 3)  # later words are never higher
    with pytest.raises(InputError, match="300 tokens do not fit"):
        plots.text(words(tokens, values), ax=plt.subplots(figsize=(2, 2))[1])
