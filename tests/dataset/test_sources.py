"""Several files as one data set: what their columns are is decided before anything is written."""

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
from deepshap import InputError, explain_dataset
from deepshap.cli import cli

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]))


def write(frames, folder="parts"):
    Path(folder).mkdir()
    for number, frame in enumerate(frames):
        frame.to_parquet(f"{folder}/{number}.parquet", index=False)
    return Path(folder)


def explainer(steps=None):
    if steps is not None:
        return deepshap.DeepExplainer(cli_models.Forecast(), np.zeros((1, steps, 2), "f4"), progress=False)
    model = lambda x: x @ torch.tensor([[1.0], [10.0]], dtype=x.dtype)  # noqa: E731
    return deepshap.DeepExplainer(model, np.zeros((1, 2)), progress=False)


def refused(message, frames, *, steps=None, **options):
    folder = write(frames)
    with pytest.raises(InputError, match=message):
        explain_dataset(explainer(steps), folder, "out", progress=False, rows_per_part=1, **options)
    with pytest.raises(InputError, match=message):
        explain_dataset(explainer(steps), sorted(folder.iterdir()), "out", progress=False, rows_per_part=1, **options)
    assert not Path("out").exists()
    arguments = [f"--{name}={value}" for name, value in options.items()]
    model = "cli_models:Row" if steps is None else "cli_models:Forecast"
    result = CliRunner().invoke(cli, ["explain", model, "parts", "--shards", "out", "-b", "zeros", *arguments])
    assert result.exit_code == 1, result.output
    assert message.partition(r"\[")[0].partition(" .*")[0] in result.stderr
    assert not Path("out").exists()


def visits(who, zone=None, unit="us"):
    days = pd.Series(pd.date_range("2024-01-01", periods=2, freq="h", tz=zone)).dt.as_unit(unit)
    return pd.DataFrame({"who": who, "t": days, "a": [1.0, 2.0], "b": [3.0, 4.0]})


def keyed(ids):
    return pd.DataFrame({"k": ids, "a": [1.0, 2.0], "b": [3.0, 4.0]})


@pytest.mark.parametrize("zones", [("Europe/Berlin", "Asia/Tokyo"), (None, "UTC"), ("UTC", "+02:00")])
def test_times_of_two_zones_are_refused(zones):
    frames = [visits(who, zone) for who, zone in zip("pq", zones, strict=True)]
    refused(r"column 't' is timestamp\[.*0.parquet and timestamp.*1.parquet: write it in one time zone", frames,
            steps=2, id="who", time="t")  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1, 2], ["x", "y"]),
        ([2**53 + 1, 2], [1.5, 2.5]),
        ([1.5, 2.5], [2**53 + 1, 2]),
        ([1, 2], pd.to_datetime(["2024-01-01", "2024-01-02"])),
        ([1, 2], [True, False]),
        ([1, 2], np.array([2**63, 2**63 + 1], np.uint64)),
        ([2**53 + 1, 2], [3, None]),
    ],
)
def test_ids_of_two_kinds_are_refused(first, second):
    refused(r"column 'k' is .* in parts.0.parquet and .* in parts.1.parquet: write it in one type",
            [keyed(first), keyed(second)], id="k")  # fmt: skip


def test_features_of_two_kinds_are_refused():
    refused("column 'a' is int64 in .*: write it in one type", [
        pd.DataFrame({"a": [1, 2], "b": [1.0, 2]}), pd.DataFrame({"a": ["x", "y"], "b": [1.0, 2]})])  # fmt: skip


def test_whole_numbers_and_fractions_are_one_kind_of_features():
    frames = [pd.DataFrame({"a": [2**53 + 1, 2], "b": [1, 2]}), pd.DataFrame({"a": [1.5, 2.5], "b": [1.0, 2]})]
    found = explain_dataset(explainer(), write(frames), "out", progress=False, rows_per_part=1)[:]
    np.testing.assert_array_equal(found.data, np.vstack([frame.to_numpy(float) for frame in frames]))


@pytest.mark.parametrize("units", [("us", "ns"), ("s", "ms"), ("ms", "s")])
def test_times_of_two_units_are_one_kind(units):
    frames = [visits(who, unit=unit) for who, unit in zip("pq", units, strict=True)]
    found = explain_dataset(explainer(2), write(frames), "out", id="who", time="t", progress=False)[:]
    assert found.step_labels.astype("M8[s]").tolist() == visits("p")["t"].to_numpy().astype("M8[s]").tolist()


def test_texts_and_categories_are_one_kind_of_ids():
    frames = [keyed(["x", "y"]), keyed(["y", "z"]).astype({"k": "category"})]
    found = explain_dataset(explainer(), write(frames), "out", id="k", progress=False)[:]
    assert found.row_ids.tolist() == ["x", "y", "y", "z"]


def test_a_line_is_named_by_its_file():
    write([keyed(["x", "y"]), keyed(["z", None])])
    with pytest.raises(InputError, match=r"id empty in row 2 of parts.1.parquet \(counted from 1\)"):
        explain_dataset(explainer(), "parts", "out", id="k", progress=False, rows_per_part=1, on_error="raise")


@pytest.mark.parametrize("form", ["folder", "list", "command line"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_variable_and_a_value_in_several_files(form, shuffled):
    table = pd.concat([visits(who).assign(a=[k, k + 1.0]) for k, who in enumerate("pqr")])
    lines = table.melt(["who", "t"], var_name="what", value_name="reading")
    lines = lines.sample(frac=1, random_state=0) if shuffled else lines
    folder = write([lines.iloc[:5], lines.iloc[5:9], lines.iloc[9:]])
    options = {"id": "who", "time": "t", "variable": "what", "value": "reading"}
    if form == "command line":
        arguments = [f"--{name}={value}" for name, value in options.items()]
        result = CliRunner().invoke(
            cli, ["explain", "cli_models:Forecast", "parts", *arguments, "-b", "zeros", "-o", "y.parquet"]
        )
        assert result.exit_code == 0, result.output
        found = deepshap.load("y.parquet")
    else:
        data = folder if form == "folder" else sorted(folder.iterdir())
        found = explain_dataset(explainer(2), data, "out", **options, progress=False, rows_per_part=2)[:]
    values = {
        (who, name): found.data[row, :, k].tolist()
        for row, who in enumerate(found.row_ids.tolist())
        for k, name in enumerate(found.feature_names)
    }
    assert values == {(who, name): group[name].tolist() for who, group in table.groupby("who") for name in "ab"}
