"""``deepshap explain --shards`` and ``deepshap status``: part by part from files, the same numbers, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cli_models
import dataset_models as models
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import deepshap
from deepshap.cli import cli

COUNT = 17


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="deepshap")


def done(*arguments, code=0):
    result = run(*arguments)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.splitlines()[-1])


def wide():
    table = pd.DataFrame(models.rows(COUNT), columns=list("abcd"))
    table.assign(key=np.arange(COUNT) + 7).to_parquet("x.parquet", index=False, row_group_size=4)
    return table


TABLE = ("explain", "dataset_models:Table", "x.parquet", "--id", "key", "--background", 6, "--rows-per-part", 5)


def test_part_by_part_as_at_once():
    table = wide()
    told = done(*TABLE, "--shards", "out", "--class-names", "no,yes")
    assert (told["rows"], told["parts"], told["errors"], told["resumed_parts"]) == (COUNT, 4, {}, 0)
    assert done(*TABLE, "--shards", "out", "--class-names", "no,yes")["resumed_parts"] == 4
    found = deepshap.load("out")[:]
    drawn = np.sort(np.random.default_rng(0).choice(COUNT, 6, replace=False))
    wanted = deepshap.DeepExplainer(models.Table(), table.iloc[drawn].to_numpy(), progress=False)(table.to_numpy())
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.row_ids, np.arange(COUNT) + 7)
    assert (found.feature_names, found.output_names) == (list("abcd"), ["no", "yes"])


def test_long_tables_with_lengths():
    table = models.long_table(COUNT)
    table.to_parquet("long.parquet", index=False, row_group_size=9)
    options = ("--id", "who", "--time", "day", "--lengths", "table", "--background", 4)
    done("explain", "cli_models:Ragged", "long.parquet", *options, "--shards", "out", "--rows-per-part", 6)
    done_at_once = run("explain", "cli_models:Ragged", "long.parquet", *options, "-o", "once.parquet")
    assert done_at_once.exit_code == 0, done_at_once.output
    found, wanted = deepshap.load("out")[:], deepshap.load("once.parquet")
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.lengths, wanted.lengths)
    np.testing.assert_array_equal(found.row_ids, wanted.row_ids)


def test_arrays_and_small_files():
    x = np.random.default_rng(0).normal(size=(COUNT, 5, 2)).astype(np.float32)
    np.save("x.npy", x)
    np.savez("x.npz", x=x)
    pd.DataFrame(models.rows(COUNT), columns=list("abcd")).to_csv("x.csv", index=False)
    for name, model in (
        ("x.npy", "cli_models:Forecast"),
        ("x.npz", "cli_models:Forecast"),
        ("x.csv", "dataset_models:Table"),
    ):
        told = done("explain", model, name, "--shards", f"{name}.out", "--background", "zeros")
        assert told["rows"] == COUNT
    np.save("zeros.npy", np.zeros((1, 5, 2), np.float32))
    explainer = deepshap.DeepExplainer(cli_models.Forecast(), torch.zeros(1, 5, 2), progress=False)
    for name in ("x.npy.out", "x.npz.out"):
        np.testing.assert_allclose(deepshap.load(name)[:].values, explainer(x).values, atol=1e-6)


def test_status_and_exit_codes():
    wide()
    done(*TABLE, "--shards", "out")
    told = done("status", "out")
    assert (told["rows_done"], told["parts"], told["complete"]) == (COUNT, 4, True)
    deepshap.load("out").paths[0].unlink()
    assert done("status", "out", code=1)["parts_done"] == 3
    assert "made otherwise: rows_per_part (5 then, 6 now)" in run(*TABLE[:-1], 6, "--shards", "out").stderr
    assert run("status", "none").stderr == "deepshap: error: there is no folder none.\n"


def test_rows_that_fail_show_in_the_exit_code():
    x = models.rows(COUNT)
    x[5, 0] = 13
    np.save("x.npy", x)
    command = ("explain", "dataset_models:Picky", "x.npy", "--background", "zeros", "--shards", "out")
    failed = run(*command)
    assert failed.exit_code == 1
    assert "row 5 (part 0) cannot be explained: ValueError: thirteen" in failed.stderr
    assert done(*command, "--on-error", "keep", code=4)["errors"] == {"ValueError": 1}


def test_an_option_that_fits_no_row_is_an_error_of_the_call():
    wide()
    for command in ((*TABLE, "--shards", "out", "--on-error", "keep"), (*TABLE[:-2], "-o", "once.parquet")):
        found = run(*command, "--class", 3)
        assert found.exit_code == 1
        assert found.stderr.endswith("error: --class 3: the model has 2 outputs, counted from 0.\n")
    assert done("status", "out", code=1)["parts_done"] == 0


def test_files_without_rows():
    table = wide()
    table.iloc[:0].assign(key=np.arange(0)).to_parquet("x.parquet", index=False)
    np.save("x.npy", models.rows(0))
    background = ("--background", "zeros")
    for data, options in (("x.parquet", ("--id", "key")), ("x.npy", ())):
        told = done("explain", "dataset_models:Table", data, *options, *background, "--shards", f"{data}.out")
        assert (told["rows"], told["parts"]) == (0, 1)
        assert done("status", f"{data}.out")["complete"]
    assert (
        "x.npy has no rows to draw one from" in run("explain", "dataset_models:Table", "x.npy", "--shards", "a").stderr
    )


def test_what_is_known_of_rows_is_as_at_once():
    """True classes, the data before scaling, some of the rows; and a report of them."""
    table = wide()
    raw = table * 7 + 3
    true = np.where(table["a"] > 0, "yes", "no")
    for name, one in (("x", table), ("raw", raw)):
        one.assign(key=np.arange(COUNT) + 7, truth=true).to_parquet(f"{name}.parquet", index=False, row_group_size=4)
    options = ("--targets", "truth", "--raw", "raw.parquet", "--rows", "2:13", "--class-names", "no,yes")
    done(*TABLE, *options, "--shards", "out", "--report", "why.html")
    at_once = run(*TABLE[:-2], *options, "-o", "once.parquet")
    assert at_once.exit_code == 0, at_once.output
    found, wanted = deepshap.load("out")[:], deepshap.load("once.parquet")
    for name in ("values", "display_data", "predictions", "base_values"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(found.row_ids, wanted.row_ids)
    np.testing.assert_array_equal(found.targets, wanted.targets)
    assert found.classes == wanted.classes == ["no", "yes"]
    page = Path("why.html").read_text(encoding="utf-8")
    assert "11 examples" in page
    assert re.search(r"from 4 rows with 6 references each", page)


def test_words_of_token_ids():
    np.save("ids.npy", np.random.default_rng(0).integers(0, 3, (COUNT, 4)))
    Path("words.txt").write_text("nothing\ngood\nbad\n", encoding="utf-8")
    options = ("-b", "zeros", "--tensor", "scores", "--vocabulary", "words.txt")
    done("explain", "cli_models:Words", "ids.npy", *options, "--shards", "out", "--rows-per-part", 5)
    run("explain", "cli_models:Words", "ids.npy", *options, "-o", "once.parquet")
    found, wanted = deepshap.load("out")[:], deepshap.load("once.parquet")
    np.testing.assert_array_equal(found.display_data, wanted.display_data)
    np.testing.assert_array_equal(found.step_labels, wanted.step_labels)
    assert found.feature_names is wanted.feature_names is None


def test_what_cannot_be_done_part_by_part_is_refused():
    wide()
    assert "--background mean reads all data" in run(*TABLE, "--shards", "out", "--background", "mean").stderr
    assert "must be a folder" in run(*TABLE, "--shards", "x.parquet").stderr
    assert "there is no folder none" in run(*TABLE, "--shards", "out", "--report", "none/why.html").stderr
    players = ("--raw", "x.parquet", "--players", "features", "--effort", 9)
    assert "--players sums over them" in run(*TABLE, "--shards", "out", *players).stderr
    assert not Path("out").exists()


@pytest.mark.wide
def test_workers_import_the_model_from_the_working_directory(tmp_path):
    Path("of_mine.py").write_text("from dataset_models import Table\n\n\nclass Mine(Table):\n    pass\n")
    np.save("x.npy", models.rows(COUNT))
    paths = [str(Path(models.__file__).parent), os.environ.get("PYTHONPATH", "")]
    script = tmp_path / "bin" / "script.py"  # in whose folder, like that of what is installed, there are no models
    script.parent.mkdir()
    script.write_text('if __name__ == "__main__":\n    from deepshap.cli import main\n\n    main()\n')
    call = [sys.executable, script, "explain", "of_mine:Mine", "x.npy", "--background", "6", "--quiet"]
    call += ["--rows-per-part", "5", "--shards", "out", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    found = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout.splitlines()[-1])["rows"] == COUNT


def test_what_is_told_at_once_is_told_of_parts_too():
    wide()
    told = run(*TABLE, "--shards", "out").stdout.splitlines()
    assert told[:2] == ["x.parquet: 17 rows", "id 'key'; features a, b, c, d"]
    assert told[2].startswith("the weights are those that dataset_models:Table gives")
    assert told[3] == "method: Deep SHAP"
    assert re.fullmatch(r"reliability: .* from 4 rows with 6 references each\.", told[4])
    assert len(run(*TABLE, "--shards", "out", "--quiet").stdout.splitlines()) == 1
    dialled = run(*TABLE, "--shards", "more", "--effort", 9).stdout
    assert "reliability" not in dialled
    assert "reliability" not in run(*TABLE, "--shards", "out", "--no-reliability").stdout


def test_whole_numbers_of_a_table_are_read_as_at_once():
    table = (wide() * 3).round().astype("int64")
    table.assign(key=np.arange(COUNT)).to_parquet("x.parquet", index=False)
    done(*TABLE, "--shards", "out")
    assert run(*TABLE[:-2], "--output", "once.parquet").exit_code == 0
    np.testing.assert_allclose(
        deepshap.load("out")[:].values, deepshap.load("once.parquet").values, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "options", [("--workers", 1), ("--on-error", "keep"), ("--ray", "local"), ("--shards", "out", "-o", "y.csv")]
)
def test_options_of_the_other_kind_of_run_are_refused(options):
    found = run("explain", "dataset_models:Table", "x.parquet", *options)
    assert found.exit_code == 2
    assert "for --shards" in found.stderr
