"""Errors about tables say what is wrong, where, and what to do; the command line says how it read a file."""

from __future__ import annotations

import os
from pathlib import Path

import cli_models
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import deepshap
from deepshap.cli import cli

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]))


def run(*arguments, background="zeros"):
    return CliRunner().invoke(cli, ["explain", *map(str, arguments), "-b", background, "-o", "why.parquet"])


def refused(*arguments, background="zeros"):
    result = run(*arguments, background=background)
    assert result.exit_code == 1, result.output
    return result.stderr


def exported(model, shape, name):
    program = torch.export.export(
        model.eval(), (torch.randn(2, *shape),), dynamic_shapes=({0: torch.export.Dim("rows")},)
    )
    torch.export.save(program, name)


@pytest.mark.parametrize("model", ["cli_models:Row", "row.pt2"])
def test_a_column_more(model):
    exported(cli_models.Row(), (3,), "row.pt2")
    pd.DataFrame(np.ones((2, 3)), columns=list("abc")).to_csv("x.csv")
    message = refused(model, "x.csv")
    assert "4 columns (Unnamed: 0, a, b, c) for 3 features: choose with --features" in message
    assert "--shape" not in message


def test_a_column_more_of_a_long_table():
    exported(cli_models.Forecast(), (5, 2), "model.pt2")
    Path("x.csv").write_text(",who,t,a,b\n0,x,1,1,2\n1,x,2,1,2\n2,y,1,1,2\n")
    message = refused("model.pt2", "x.csv", "--id", "who", "--time", "t")
    assert "3 columns (Unnamed: 0, a, b) for 2 features: choose with --features" in message
    assert "different lengths" not in message


def test_a_background_without_ids():
    """Rows of a background need no ids; the numbers are those of Python."""
    rows, background = np.array([[1.0, 2, 3], [4, 5, 7]]), np.array([[0.5, 1, 0], [1, 0, 2]])
    pd.DataFrame(rows, ["007", "7"], list("abc")).to_csv("x.csv", index_label="who")
    pd.DataFrame(background, columns=list("abc")).to_csv("b.csv", index=False)
    torch.manual_seed(0)
    model = cli_models.Row()
    torch.save(model.state_dict(), "weights.pt")
    result = run("cli_models:Row", "x.csv", "--id", "who", "--weights", "weights.pt", background="b.csv")
    assert result.exit_code == 0, result.output
    found = deepshap.load("why.parquet")
    wanted = deepshap.DeepExplainer(model, torch.tensor(background, dtype=torch.float32)).shap_values(
        torch.tensor(rows, dtype=torch.float32)
    )
    assert list(found.row_ids) == ["007", "7"]
    np.testing.assert_allclose(found.values, wanted.reshape(found.values.shape), rtol=1e-5)


def test_columns_of_data_and_background():
    """The order of the model is known only where both files agree or the user says it."""
    pd.DataFrame(np.ones((2, 3)), columns=list("abc")).to_csv("b.csv", index=False)
    pd.DataFrame(np.ones((2, 3)), columns=list("cab")).to_csv("x.csv", index=False)
    message = refused("cli_models:Row", "x.csv", background="b.csv")
    assert "in the order a, b, c in b.csv, and in the order c, a, b in x.csv" in message
    assert "--features" in message
    assert run("cli_models:Row", "x.csv", "--features", "a,b,c", background="b.csv").exit_code == 0
    pd.DataFrame(np.ones((2, 3)), columns=list("abc")).to_csv("more.csv")
    message = refused("cli_models:Row", "more.csv", background="b.csv")
    assert "4 columns (Unnamed: 0, a, b, c) for the 3 features of b.csv (a, b, c)" in message
    assert "--features a,b,c" in message


def test_more_columns_than_a_row_has_values():
    pd.DataFrame(np.ones((2, 5)), columns=list("zabcd")).to_csv("x.csv", index=False)
    assert "5 columns (z, a, b, c, d) for the 4 values of a row of shape (2, 2)" in refused(
        "cli_models:Forecast", "x.csv", "--shape", "2,2"
    )


@pytest.mark.parametrize(
    ("cells", "found", "line"),
    [
        (["1", "1,234.5", "x"], "'1,234.5'", 3),
        (["$5", "1", "2"], "'$5'", 2),
        (["mm", "1", "2"], "'mm'", 2),
        (["1", "2", "3 %"], "'3 %'", 4),
        (["1", "0x10", "3"], "'0x10'", 3),
    ],
)
def test_the_first_text_among_numbers(cells, found, line):
    pd.DataFrame({"a": cells, "b": 1, "c": 2}).to_csv("x.csv", index=False)
    assert f"x.csv: column 'a' is not numeric: {found} in line {line}" in refused("cli_models:Row", "x.csv")


@pytest.mark.parametrize("missing", ["", "NA", "nan", "NULL"])
def test_what_is_missing(missing):
    Path("x.csv").write_text(f"a,b,c\n1,True,2\n1,{missing},2\n1,False,2\n")
    assert "'b' is missing in line 3" in refused("cli_models:Row", "x.csv")
    pd.DataFrame({"a": [1, 1], "b": [True, None], "c": 2}).to_parquet("x.parquet")
    assert "'b' is missing in row 2" in refused("cli_models:Row", "x.parquet")


def test_true_and_false_are_numbers():
    Path("x.csv").write_text("a,b,c\n1,True,2\n1,false,2\n")
    assert run("cli_models:Row", "x.csv").exit_code == 0
    assert deepshap.load("why.parquet").data[:, 1].tolist() == [1, 0]


def test_numbers_that_are_too_large():
    exported(cli_models.Row(), (3,), "row.pt2")
    Path("x.csv").write_text("a,b,c\n1,2,3\n1e39,2,3\n")
    for model in ("cli_models:Row", "row.pt2"):
        assert "too large for float32" in refused(model, "x.csv")
    explainer = deepshap.DeepExplainer(cli_models.Row(), np.zeros((2, 3), "f4"))
    with pytest.raises(deepshap.InputError, match=r"X holds 1e\+39, which is too large for float32"):
        explainer(np.array([[1.0, 2, 1e39]]))


def test_ids_beyond_the_vocabulary():
    np.save("ids.npy", np.array([[1, 2, 9], [1, 2, 3]]))
    message = refused("cli_models:Words", "ids.npy", "--tensor", "scores")
    assert "ids must be below the vocabulary's size; the largest is 9" in message
    assert "--dtype" not in message


def test_how_a_file_was_read_is_said_once():
    Path("x.csv").write_text(
        "# hourly\nkey;day;a;b\nx;03.01.2024;1,5;2\nx;31.01.2024;2,5;2\ny;31.01.2024;1,25;0\n", encoding="utf-8"
    )
    result = run("cli_models:Forecast", "x.csv", "--id", "key", "--time", "day")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:2] == [
        "x.csv: separated by semicolons, decimal comma, names in line 2, 2 rows of 1 to 2 steps",
        "id 'key'; time 'day' as dates, written as %d.%m.%Y; features a, b",
    ]
    assert run("cli_models:Forecast", "x.csv", "--id", "key", "--time", "day", "-q").stdout == ""
