"""The documentation runs, and what is generated of it is up to date."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import tensorflow_operations
import torch
import torch_operations
from tiers import mostly_wide

from deepshap.cli import cli
from deepshap.engines.torch import table

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = {
    "plots.md": "plots/test_plot_shapes.py::test_every_picture_of_the_gallery_is_drawn_and_shown",
    "speakers.md": "project/test_notebooks.py::test_notebook_runs",
    "weather.md": "project/test_notebooks.py::test_notebook_runs",
    "weather_keras.md": "project/test_notebooks.py::test_notebook_runs",
    "a-million-rows.md": "dataset/test_ray.py::test_the_recipes_of_the_page_run",
    "forecasting-libraries.md": "forecasting_libraries/test_pages.py::test_the_page_runs",
    "darts_weather.md": "forecasting_libraries/test_forecasting_notebooks.py::test_notebook_runs",
    "neuralforecast_weather.md": "forecasting_libraries/test_forecasting_notebooks.py::test_notebook_runs",
}  # run where their pictures, cluster or libraries are, by these tests
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


WITH_BLOCKS = [page for page in PAGES if page.name not in ELSEWHERE and BLOCK.search(page.read_text(encoding="utf-8"))]
RUN = mostly_wide(WITH_BLOCKS, {page.name for page in WITH_BLOCKS} - {"keras.md"}, key=lambda page: page.name)


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


@pytest.mark.usefixtures("rules_restored")
@pytest.mark.parametrize("page", RUN, ids=lambda p: p.stem)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    torch.manual_seed(0)
    namespace = {"__name__": page.stem}
    for line, code in blocks(page):
        exec(compile("\n" * line + code, str(page), "exec"), namespace)
    plt.close("all")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_pages_that_run_elsewhere_are_named_by_the_test_that_runs_them(name):
    """The test, or the file above it, names the page or, of a notebook, its source."""
    file, _, test = ELSEWHERE[name].partition("::")
    code = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert f"\ndef {test}(" in code
    assert f'"{name}"' in code or f'"{name.removesuffix(".md")}"' in code
    assert name in {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_of_a_kind_that_runs(page):
    """Blocks of Python run above, those of shells are read below; the others are no code."""
    kinds = set(re.findall(r"^```(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert kinds <= {"python", "sh", "math", "diff", "text"}


def test_what_recipes_change_stands_there():
    """Lines that a diff takes away, or leaves, are lines of the code."""
    files = [path for folder in ("src", "tests/support") for path in (ROOT / folder).rglob("*.py")]
    code = {line for path in files for line in path.read_text(encoding="utf-8").splitlines()}
    pages = [page.read_text(encoding="utf-8") for page in (*PAGES, ROOT / "CONTRIBUTING.md")]
    diffs = [
        line
        for text in pages
        for diff in re.findall(r"^```diff\n(.*?)^```$", text, re.M | re.S)
        for line in diff.splitlines()
    ]
    removed = [line[1:] for line in diffs if not line.startswith("+")]
    assert removed
    assert [line for line in removed if line not in code] == []


def commands():
    """Every call of our command line on the pages."""
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] == "deepshap":
                    yield pytest.param(words[1:], id=f"{page.stem}: {' '.join(words[1:])}")


@pytest.mark.parametrize("words", list(commands()))
def test_commands_are_understood(words):
    name, *arguments = words[: words.index(">>")] if ">>" in words else words
    command = cli.commands[name]
    with command.make_context(name, arguments) as context:
        assert context.params


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(#[^)]*)?\)", page.read_text(encoding="utf-8")):
        linked = page.parent / target if target else page
        if target.startswith("../../actions/"):  # GitHub's own pages of a repository
            continue
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name} links to {target}{anchor}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_operations_with_exchanged_operands_name_another_operation():
    rows = dict(
        re.findall(
            r"^\| `([^`]+)` \| As `([^`]+)`, with its first two operands", torch_operations.document(), re.MULTILINE
        )
    )
    assert rows["Tensor.where"] == "where"
    assert rows["rfloor_divide"] == "floor_divide"
    assert set(rows.values()) <= set(table.OPERATIONS)


@pytest.mark.parametrize(
    ("page", "generator"),
    [("supported-operations.md", torch_operations), ("supported-keras.md", tensorflow_operations)],
    ids=["torch", "tensorflow"],
)
def test_supported_operations_are_up_to_date(page, generator):
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert written == generator.document(), "run: make docs"
