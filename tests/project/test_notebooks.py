"""The notebooks run from their sources, and what is stored and rendered of them belongs to these sources."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NOTEBOOKS, PAGES = ROOT / "notebooks", ROOT / "docs" / "notebooks"
NAMES = ("speakers", "weather", "weather_keras")
ELSEWHERE = ("darts_weather", "neuralforecast_weather")  # which run in make forecasting


@pytest.fixture(params=(*NAMES, *ELSEWHERE))
def name(request):
    return request.param


@pytest.fixture
def stored(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook):
    return "".join(
        output.text for output in outputs(notebook) if output.output_type == "stream" and output.name == "stdout"
    )


def pictures(notebook):
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def test_all_notebooks_are_built(build):
    assert (build.NAMES, build.FORECASTING) == (NAMES, ELSEWHERE)
    assert {*NAMES, *ELSEWHERE} == {path.stem for path in NOTEBOOKS.glob("*.ipynb")}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("speakers", marks=pytest.mark.wide),
        pytest.param("weather", marks=pytest.mark.long),
        pytest.param("weather_keras", marks=pytest.mark.long),
    ],
    indirect=True,
)
def test_notebook_runs(build, name, stored):
    run = build.run(build.read(NOTEBOOKS / f"{name}.py"))
    assert not [output for output in outputs(run) if output.get("name") == "stderr"]
    assert pictures(run) == pictures(stored)
    gap = float(re.search(r"difference from the model's output: (\S+)", printed(run)).group(1))
    assert 0 <= gap < 1e-4
    if name == "speakers":
        before, after = re.search(
            r"the lead of speaker \d over speaker \d went from (\S+) to (\S+) log-odds", printed(run)
        ).groups()
        assert float(after) < float(before)  # of what the model learned, it may be enough to mend the mistake


def test_stored_notebook_is_run_from_its_source(build, name, stored):
    nbformat.validate(stored)
    source = build.read(NOTEBOOKS / f"{name}.py")
    assert [cell.source for cell in stored.cells] == [cell.source for cell in source.cells], "run: make notebooks"
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert pictures(stored) >= (6 if name in NAMES else 3)
    assert not [output for output in outputs(stored) if output.output_type == "error"]
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 1_000_000


def test_page_shows_the_stored_notebook(name, stored):
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    for cell in stored.cells:
        assert cell.source in page
    linked = re.findall(r"!\[png\]\((\S+)\)", page)
    assert len(linked) == pictures(stored)
    assert {PAGES / link for link in linked} == set((PAGES / f"{name}_files").iterdir())
    assert f"notebooks/{name}.md" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def test_stored_notebook_names_no_machine(name):
    text = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8") + (PAGES / f"{name}.md").read_text(
        encoding="utf-8"
    )
    assert not re.search(r"/home/|/tmp/|/root/|/work/|\.venv", text)
