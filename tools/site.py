"""Hooks of MkDocs: pages that lie beside docs/ for those who look there, and formulas as MathML, without a script."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BESIDE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?:\(|\[)(?P<latex>.*?)\\(?:\)|\])</(?P=tag)>', re.DOTALL
)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from beside docs/."""
    for source, page in BESIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=relinked(text, "")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to these pages lead to their copies."""
    return relinked(markdown, "../" * (page.file.src_uri.count("/") + 1))


def relinked(markdown: str, up: str) -> str:
    """Exchange links to the pages beside docs/, `up` from here."""
    for source, page in BESIDE.items():
        markdown = markdown.replace(f"]({up}{source}", f"]({up.removeprefix('../')}{page}")
    return markdown


def on_page_content(content: str, **_: Any) -> str:
    """Write formulas as MathML."""
    return FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found["tag"] == "div" else "inline"
    return convert(html.unescape(found["latex"]).strip(), display=display)
