"""The notebooks of the forecasting libraries run from their sources, and what they explain adds up."""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("name", ["darts_weather", "neuralforecast_weather"])
def test_notebook_runs(build, name):
    run = outputs(build.run(build.read(NOTEBOOKS / f"{name}.py")))
    stored = outputs(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4))
    assert not [output for output in run if output.get("name") == "stderr"]
    drawn = [sum("image/png" in output.get("data", {}) for output in each) for each in (run, stored)]
    assert drawn[0] == drawn[1] >= 3
    printed = "".join(output.text for output in run if output.output_type == "stream")
    assert 0 <= float(re.search(r"difference from the model's output: (\S+)", printed)[1]) < 1e-3
