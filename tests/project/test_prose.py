"""The documentation avoids archaic phrases, and stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PHRASES = re.compile(
    r"\b(in the place of|mend(s|ed)?|a dear one|goes on|so many|so manieth|wildly|over night|whomever)\b", re.IGNORECASE
)
LIMITS = {
    "README.md": 900,
    "docs/architecture.md": 2500,
    "docs/keras.md": 1100,
    "docs/plots.md": 1000,
    "docs/supported-models.md": 1200,
    "docs/a-million-rows.md": 1200,
    "docs/mathematics.md": 2700,
    "docs/mathematics-of-effort.md": 800,
    "docs/dial.md": 650,
    "docs/time-against-accuracy.md": 600,
    "docs/supported-operations.md": 1700,
    "docs/supported-keras.md": 700,
    "docs/benchmarks.md": 2000,
    "docs/guide/faq.md": 1050,
    "docs/report.md": 1280,
    "docs/migration.md": 1300,
    "docs/explanations.md": 1430,
    "docs/command-line.md": 1480,
    "docs/cells-and-handlers.md": 1340,
    "docs/captum.md": 1340,
    "docs/adding-a-rule.md": 1310,
}  # words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_archaic_phrase(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [(number, line) for number, line in enumerate(lines, 1) if PHRASES.search(line)] == []


def test_no_archaic_phrase_in_docstrings_comments_and_messages():
    lines = [
        (path.name, number, line)
        for path in sorted((ROOT / "src").rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    ]
    assert [line for line in lines if PHRASES.search(line[2])] == []


@pytest.mark.parametrize("page", LIMITS)
def test_length(page):
    assert len((ROOT / page).read_text(encoding="utf-8").split()) <= LIMITS[page]


def test_length_of_all_pages():
    """Words outside of code blocks, tables of operations and models included."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    assert sum(len(re.sub(r"```.*?```", "", text, flags=re.DOTALL).split()) for text in texts) <= 35_000


def test_modules_of_the_architecture_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(named) > 30
    assert [name for name in sorted(named) if not list((ROOT / "src").rglob(name))] == []
