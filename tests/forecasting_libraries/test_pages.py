"""The page on forecasting libraries runs."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "forecasting-libraries.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_there_is_a_block_for_each_library():
    assert [re.search(r"explanation = explain_forecast\(\s*(\w+)", block)[1] for block in BLOCKS] == [
        "model",
        "library",
        "tft",
    ]


@pytest.mark.usefixtures("quiet")
def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    torch.manual_seed(0)
    names = {"__name__": "page"}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    assert {path.name for path in tmp_path.glob("*.html")} == {"darts.html", "neuralforecast.html", "tft.html"}
    plt.close("all")
