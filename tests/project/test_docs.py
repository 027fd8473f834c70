"""The documentation runs, and what is generated of it is up to date."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch_operations as document

from deepshap.engines.torch import table

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_BLOCKS = {
    "README.md",
    "adding-a-rule.md",
    "captum.md",
    "cells-and-handlers.md",
    "keras.md",
    "command-line.md",
    "explanations.md",
    "mathematics.md",
    "migration.md",
    "report.md",
    "plots.md",
}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the Python blocks of a page, each with the number of lines before it."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        yield text.count("\n", 0, block.start(1)), block.group(1)


@pytest.fixture
def rules_restored():
    """Forget the rules that a page registers."""
    before = dict(table.USER_OPERATIONS)
    yield
    table.USER_OPERATIONS.clear()
    table.USER_OPERATIONS.update(before)


def test_pages_with_blocks_are_there():
    assert {page.name for page in PAGES} >= WITH_BLOCKS


@pytest.mark.usefixtures("rules_restored")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    torch.manual_seed(0)
    found = list(blocks(page))
    assert found or page.name not in WITH_BLOCKS, f"{page.name} has no ```python block"
    namespace = {"__name__": page.stem}
    for line, code in found:
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(#[^)]*)?\)", page.read_text(encoding="utf-8")):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name} links to {target}{anchor}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_operations_with_exchanged_operands_name_another_operation():
    rows = dict(
        re.findall(r"^\| `([^`]+)` \| As `([^`]+)`, with its first two operands", document.document(), re.MULTILINE)
    )
    assert rows["Tensor.where"] == "where"
    assert rows["rfloor_divide"] == "floor_divide"
    assert set(rows.values()) <= set(table.OPERATIONS)


def test_supported_operations_are_up_to_date():
    written = (ROOT / "docs" / "supported-operations.md").read_text(encoding="utf-8")
    assert written == document.document(), "run: make docs"
