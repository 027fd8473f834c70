"""Tables whose values, names, ids or times could be put in the wrong place: read correctly, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import cli_models
import dataset_models as models
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import xarray
from click.testing import CliRunner

import deepshap
from deepshap import InputError, explain_dataset
from deepshap.cli import cli
from deepshap.forecasting import explain_forecast
from deepshap.tables import Table
from deepshap.tables.columns import matrix

NAMES = ["a", "b", "c"]
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]))


def explained(*arguments):
    """What the command line writes."""
    result = CliRunner().invoke(cli, ["explain", *map(str, arguments), "-o", "why.parquet"])
    assert result.exit_code == 0, result.output
    return deepshap.load("why.parquet")


def refused(*arguments):
    result = CliRunner().invoke(cli, ["explain", *map(str, arguments), "-o", "why.parquet"])
    assert result.exit_code == 1, result.output
    assert not Path("why.parquet").exists()
    return result.stderr


def linear(*weights):
    """A model whose attributions are the products of weights and inputs."""
    return lambda x: x @ torch.tensor([*weights], dtype=x.dtype).reshape(-1, 1)


def drawn(rows=5, columns=3, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def by_name(explanation, row=0):
    """The value of each feature in a row."""
    values = np.asarray(explanation.values[row]).reshape(len(explanation.feature_names), -1)[:, 0]
    return dict(zip(explanation.feature_names, values.tolist(), strict=True))


# ---------------------------------------------------------------------- 1: columns in another order
def tables(values, columns):
    """The same rows in all forms whose columns have names."""
    frame = pd.DataFrame(values, columns=columns)
    yield "pandas", frame
    yield "polars", pl.from_pandas(frame)
    yield "pyarrow", pa.Table.from_pandas(frame)
    yield "xarray", xarray.DataArray(values, {"feature": columns}, ("row", "feature"))
    yield "dataset", xarray.Dataset({name: ("row", values[:, i]) for i, name in enumerate(columns)})


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "xarray", "dataset"])
@pytest.mark.parametrize("named", ["by feature_names", "by the background"])
def test_columns_in_another_order_are_put_in_order(kind, named):
    background, x = drawn(seed=1), drawn()
    explainer = (
        deepshap.DeepExplainer(linear(1.0, 10.0, 100.0), background, feature_names=NAMES)
        if named == "by feature_names"
        else deepshap.DeepExplainer(linear(1.0, 10.0, 100.0), pd.DataFrame(background, columns=NAMES))
    )
    wanted = dict(zip(NAMES, [1.0, 10.0, 100.0] * (x[0] - background.mean(0)), strict=True))
    turned = dict(tables(x[:, [2, 0, 1]], ["c", "a", "b"]))[kind]
    found = explainer(turned)
    assert by_name(found) == pytest.approx(wanted)
    np.testing.assert_allclose(found.outputs[:, 0], x @ [1, 10, 100])
    values = explainer.shap_values(turned)  # has no names: it stands as X does
    np.testing.assert_allclose(values[0, :, 0], [wanted[name] for name in ("c", "a", "b")])
    other = dict(tables(x, ["a", "b", "z"]))[kind]
    with pytest.raises(InputError, match=r"'c' is missing"):
        explainer(other)


def test_sequences_in_another_order_are_put_in_order():
    background = drawn(20).reshape(4, 5, 3)
    frame = pd.DataFrame(drawn(10, seed=3), columns=["c", "a", "b"]).assign(who=np.repeat([0, 1], 5))
    model = lambda x: x.sum(1) @ torch.tensor([[1.0], [10], [100]], dtype=x.dtype)  # noqa: E731
    explainer = deepshap.DeepExplainer(model, background, feature_names=NAMES)
    found = explainer(deepshap.sequences(frame, "who"))
    assert found.feature_names == NAMES
    np.testing.assert_allclose(found.outputs[:, 0], frame.groupby("who")[NAMES].sum().to_numpy() @ [1, 10, 100])


def test_the_names_of_a_background_and_those_given_must_not_differ_in_order():
    with pytest.raises(InputError, match="another order"):
        deepshap.DeepExplainer(linear(1.0, 2.0, 3.0), pd.DataFrame(drawn(), columns=list("cab")), feature_names=NAMES)


@pytest.mark.parametrize("kind", ["Parquet", "pandas", "polars", "pyarrow"])
def test_data_sets_with_columns_in_another_order(kind, tmp_path):
    background, x = drawn(seed=1), drawn()
    explainer = deepshap.DeepExplainer(linear(1.0, 10.0, 100.0), background, feature_names=NAMES, progress=False)
    frame = pd.DataFrame(x, columns=NAMES)[["c", "a", "b"]]
    frame.to_parquet("x.parquet")
    data = {"Parquet": tmp_path / "x.parquet", **dict(tables(x[:, [2, 0, 1]], ["c", "a", "b"]))}[kind]
    found = explain_dataset(explainer, data, tmp_path / "out", progress=False)[:]
    wanted = dict(zip(NAMES, [1.0, 10.0, 100.0] * (x[0] - background.mean(0)), strict=True))
    assert by_name(found) == pytest.approx(wanted, rel=1e-5)
    frame.rename(columns={"c": "z"}).to_parquet("z.parquet")
    with pytest.raises(InputError, match="'c' is missing"):
        explain_dataset(explainer, tmp_path / "z.parquet", tmp_path / "other", progress=False)


# ---------------------------------------------------------------------- 2: --raw
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_raw_values_are_put_beside_their_features(ending):
    frame = pd.DataFrame(drawn(), columns=NAMES)
    write = pd.DataFrame.to_csv if ending == "csv" else pd.DataFrame.to_parquet
    write(frame, f"x.{ending}", index=False)
    write((frame * 10 + 1)[["c", "a", "b"]], f"raw.{ending}", index=False)
    write((frame * 10 + 1).rename(columns={"c": "z"}), f"other.{ending}", index=False)
    found = explained("cli_models:Row", f"x.{ending}", "-b", "zeros", "--raw", f"raw.{ending}")
    np.testing.assert_allclose(found.display_data, frame * 10 + 1)
    Path("why.parquet").unlink()
    message = refused("cli_models:Row", f"x.{ending}", "-b", "zeros", "--raw", f"other.{ending}")
    assert "--raw" in message
    assert "'c' is missing" in message


def test_raw_tables_of_data_sets_are_put_beside_their_features(tmp_path):
    x = pd.DataFrame(drawn(), columns=NAMES)
    explainer = deepshap.DeepExplainer(linear(1.0, 2.0, 3.0), drawn(seed=1), feature_names=NAMES, progress=False)
    found = explain_dataset(explainer, x, tmp_path / "out", raw=(x * 2)[["c", "b", "a"]], progress=False)[:]
    np.testing.assert_allclose(found.display_data, x * 2, rtol=1e-6)


def test_raw_rows_at_other_times_are_refused(tmp_path):
    frame = pd.DataFrame({"who": ["x", "x", "y"], "day": [1, 2, 1], "a": [1.0, 2.0, 3.0], "b": 0.0})
    later = frame.assign(day=frame.day + 1)
    for name, one in (("x", frame), ("raw", later)):
        one.to_csv(f"{name}.csv", index=False)
    options = ["--id", "who", "--time", "day", "-b", "zeros"]
    assert "--raw: the times of row 0" in refused("cli_models:Forecast", "x.csv", *options, "--raw", "raw.csv")
    explainer = deepshap.DeepExplainer(cli_models.Forecast(), np.zeros((1, 2, 2), "f4"), progress=False)
    x, raw = (deepshap.sequences(one, "who", "day") for one in (frame, later))
    with pytest.raises(InputError, match="its times are others"):
        explain_dataset(explainer, x, tmp_path / "out", raw=raw, progress=False)


def test_names_for_the_columns_of_a_table_are_refused():
    pd.DataFrame(drawn(), columns=NAMES).to_csv("x.csv", index=False)
    message = refused("cli_models:Row", "x.csv", "-b", "zeros", "--feature-names", "c,a,b")
    assert "those of a table are its columns, a, b, c" in message


# ---------------------------------------------------------------------- 3: lines that end in a separator
def test_a_comma_more_at_the_end_of_lines_is_refused():
    Path("x.csv").write_text("a,b,c\n1,2,3,\n4,5,6,\n")
    message = refused("cli_models:Row", "x.csv", "-b", "zeros")
    assert "line 2 has 4 cells, and the header (line 1) has 3" in message


@pytest.mark.parametrize("line", ["1,2", "1,2,3,4"])
def test_lines_of_other_lengths_are_refused(line):
    Path("x.csv").write_text(f"a,b,c\n1,2,3\n\n{line}\n4,5,6\n")
    assert f"line 4 has {line.count(',') + 1} cells, and the header (line 1) has 3" in refused(
        "cli_models:Row", "x.csv", "-b", "zeros"
    )


# ---------------------------------------------------------------------- 4: polars
def test_frames_of_polars_keep_names_and_refuse_dates():
    frame = pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0], "day": pd.to_datetime(["2024-01-01", "2024-01-02"])})
    explainer = deepshap.DeepExplainer(linear(1.0, 2.0), frame[["a", "b"]])
    assert explainer(frame[["b", "a"]]).feature_names == ["a", "b"]
    with pytest.raises(InputError, match=r"column 'day' is .*not numeric"):
        deepshap.DeepExplainer(linear(1.0, 2.0, 3.0), frame)


def test_a_column_of_text_without_rows_is_refused():
    """A pipeline knows its columns before it has read a row."""
    table = Table(pa.table({"a": pa.array([], pa.float64()), "name": pa.array([], pa.string())}))
    with pytest.raises(InputError, match="column 'name' is text, not numeric"):
        matrix(table, ["a", "name"])


def test_forecasts_of_frames_of_polars():
    values = np.random.default_rng(0).normal(size=(30, 2))
    days = pd.date_range("2024-01-01", periods=30)
    frame = pl.DataFrame({"day": days, "load": values[:, 0], "wind": values[:, 1]})
    model = lambda x: x[:, -1:, 0]  # noqa: E731
    found = explain_forecast(model, frame[["load", "wind"]], lags=3)
    assert found.feature_names == ["load", "wind"]
    with pytest.raises(InputError, match=r"'day' is timestamp.*not numeric.*belongs into the index"):
        explain_forecast(model, frame, lags=3)


# ---------------------------------------------------------------------- 5: texts that look like dates
def long(times, ids=None):
    return pd.DataFrame({"who": ids or ["ann"] * len(times), "when": times, "x": np.arange(len(times), dtype=float)})


@pytest.mark.parametrize(
    "times",
    [
        [f"t{i:02d}" for i in range(1, 99)],
        [f"31.12.{year}" for year in range(60, 80)],
        ["2024-W01", "2024-W02", "2024-W10"],
        ["08:00", "09:00", "23:00"],
    ],
)
@pytest.mark.parametrize("written", ["frame", "csv"])
def test_texts_in_order_stay_as_they_are(times, written):
    frame = long(times)
    if written == "frame":
        found = deepshap.sequences(frame, "who", "when")
        steps, values = found.step_labels, found.values
    else:
        frame.assign(y=1.0).to_csv("x.csv", index=False)
        explanation = explained("cli_models:Forecast", "x.csv", "--id", "who", "--time", "when", "-b", "zeros")
        steps, values = explanation.step_labels, explanation.data
    assert np.asarray(steps).astype(str).tolist() == times
    assert values[0, :, 0].tolist() == list(range(len(times)))


@pytest.mark.parametrize(
    "times",
    [
        ["22:00", "23:00", "00:00", "01:00"],
        ["Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb", "Mar"],
        ["day 9", "day 10"],
        ["30.12.60", "1.1.61"],
    ],
)
def test_texts_out_of_order_are_refused(times):
    with pytest.raises(InputError, match=r"column 'when' is text.* stands before"):
        deepshap.sequences(long(times), "who", "when")


# ---------------------------------------------------------------------- 6 and 9: decided once
def zoned(count=40, per=3):
    """Hours around the change of the clocks in Berlin, in October: one is there twice."""
    stamps = pd.date_range("2024-10-26 20:00", periods=count * per, freq="h", tz="Europe/Berlin")
    table = pd.DataFrame(drawn(count * per, 2, seed=1), columns=["pulse", "heat"])
    return table.assign(who=np.repeat([f"id-{i:02d}" for i in range(count)], per), day=stamps)


@pytest.mark.parametrize("written", ["zoned", "text"])
def test_times_with_a_zone_do_not_depend_on_the_parts(written, tmp_path):
    table = zoned()
    if written == "text":
        table["day"] = table["day"].map(lambda time: time.isoformat())
    table.to_parquet("x.parquet", row_group_size=7)
    explainer = deepshap.DeepExplainer(cli_models.Forecast(), np.zeros((1, 3, 2), "f4"), progress=False)
    whole = deepshap.sequences(table, "who", "day")
    labels = []
    for size in (1, 5, 100):
        options = {"id": "who", "time": "day", "rows_per_part": size, "progress": False}
        explained_ = explain_dataset(explainer, tmp_path / "x.parquet", tmp_path / str(size), **options)[:]
        labels.append(np.asarray(explained_.step_labels).astype("M8[us]"))
    for found in labels:
        np.testing.assert_array_equal(found, whole.step_labels.astype("M8[us]"))
    utc = pd.to_datetime(table["day"], utc=True).dt.tz_localize(None).to_numpy().astype("M8[us]")
    np.testing.assert_array_equal(labels[0].ravel(), utc)


def test_clocks_that_are_never_changed_show_their_own_times():
    for zone in ("+02:00", "UTC", "Asia/Tokyo"):
        frame = long(list(pd.date_range("2024-10-26", periods=3, tz=zone)))
        assert deepshap.sequences(frame, "who", "when").step_labels[1] == np.datetime64("2024-10-27")


def test_what_is_decided_of_times_is_kept_with_the_run(tmp_path):
    zoned().to_parquet("x.parquet")
    explainer = deepshap.DeepExplainer(cli_models.Forecast(), np.zeros((1, 3, 2), "f4"), progress=False)
    found = explain_dataset(explainer, "x.parquet", tmp_path / "out", id="who", time="day", progress=False)
    decided = found.fingerprint["read_as"]
    assert (decided["features"], decided["times"]["kind"]) == (["pulse", "heat"], "date")


def test_times_that_are_dates_in_one_part_only_are_texts_in_all(tmp_path):
    table = pd.DataFrame(drawn(8, 2), columns=["pulse", "heat"])
    table = table.assign(who=np.repeat(list("abcd"), 2), day=["2024-01-01 22:00", "2024-01-01 23:00"] * 3 + ["x", "y"])
    table.to_parquet("x.parquet")
    explainer = deepshap.DeepExplainer(cli_models.Forecast(), np.zeros((1, 2, 2), "f4"), progress=False)
    options = {"id": "who", "time": "day", "rows_per_part": 1, "progress": False}
    found = explain_dataset(explainer, "x.parquet", tmp_path / "out", **options)[:]
    assert found.step_labels.ravel().tolist() == table["day"].tolist()


def test_rows_with_one_id_stay_apart(tmp_path):
    frame = pd.DataFrame(models.rows(4), columns=list("abcd")).assign(key=["x", "x", "y", "z"])
    frame.to_parquet("x.parquet")
    explainer = models.table_explainer()
    found = explain_dataset(explainer, "x.parquet", tmp_path / "o", id="key", rows_per_part=3, progress=False)[:]
    np.testing.assert_allclose(found.values, explainer(models.rows(4)).values, atol=1e-6)
    assert found.row_ids.tolist() == ["x", "x", "y", "z"]


# ---------------------------------------------------------------------- 7: ids
def test_ids_of_text_files_are_texts():
    frame = pd.DataFrame({"key": ["007", "7", "01234", "NA", "nan", "1e3"], **dict.fromkeys(NAMES, 1.0)})
    frame.to_csv("x.csv", index=False)
    found = explained("cli_models:Row", "x.csv", "--id", "key", "-b", "zeros")
    assert found.row_ids.tolist() == frame.key.tolist()
    lines = pd.DataFrame({"key": ["007", "007", "7", "7"], "when": [1, 2, 1, 2], "x": [1.0, 2, 3, 4], "y": 0.0})
    lines.to_csv("long.csv", index=False)
    found = explained("cli_models:Forecast", "long.csv", "--id", "key", "--time", "when", "-b", "zeros")
    assert found.row_ids.tolist() == ["007", "7"]
    assert found.data[..., 0].tolist() == [[1, 2], [3, 4]]


def test_an_empty_id_is_refused():
    Path("x.csv").write_text("key,a,b,c\n70001,1,2,3\n\n70002,1,2,3\n,1,2,3\n")
    assert "id empty in line 5" in refused("cli_models:Row", "x.csv", "--id", "key", "-b", "zeros")
    frame = pd.DataFrame({"key": [70001, None], **dict.fromkeys(NAMES, 1.0)})
    frame.to_parquet("x.parquet")
    assert "id empty in row 2" in refused("cli_models:Row", "x.parquet", "--id", "key", "-b", "zeros")


# ---------------------------------------------------------------------- 8: large ids, no header
def test_an_id_beyond_the_integers_of_a_program_is_refused():
    program = torch.export.export(
        cli_models.Words().embedding,
        (torch.ones(2, 3, dtype=torch.int32),),
        dynamic_shapes=({0: torch.export.Dim("n")},),
    )
    torch.export.save(program, "words.pt2")
    np.save("ids.npy", np.array([[1, 2, 3], [1, 2**32 + 7, 3]]))
    assert "4294967303 is too large for int32" in refused("words.pt2", "ids.npy", "-b", "zeros")
    explainer = deepshap.DeepExplainer(cli_models.Words().embedding, torch.zeros(1, 3, dtype=torch.int32))
    with pytest.raises(InputError, match=r"too large for torch.int32"):
        explainer(np.load("ids.npy"))


def test_a_file_without_a_header_loses_no_row():
    pd.DataFrame(drawn()).to_csv("x.csv", index=False, header=False)
    message = refused("cli_models:Row", "x.csv", "-b", "zeros")
    assert "line 1 holds numbers where names of columns should stand" in message
    assert "say --header none; if these are the names, say --header 1." in message
    found = explained("cli_models:Row", "x.csv", "-b", "zeros", "--header", "none")
    np.testing.assert_allclose(found.data, drawn(), rtol=1e-6)
    assert found.feature_names == ["column 1", "column 2", "column 3"]


def test_arrays_of_different_lengths_in_a_column_are_refused(tmp_path):
    pq.write_table(pa.table({"x": [[1.0], [2.0, 3.0, 4.0], [5.0, 6.0]]}), "x.parquet")
    explainer = deepshap.DeepExplainer(linear(1.0, 2.0), drawn(4, 2), progress=False)
    with pytest.raises(InputError, match=r"'x' holds 1 number in row 1"):
        explain_dataset(explainer, "x.parquet", tmp_path / "out", shape=(2,), progress=False)


# ---------------------------------------------------------------------- seasons
@pytest.mark.parametrize("times", [["2010/11", "2011/12"], ["2010-11", "2011-12", "2012-13"], ["2009/10"], ["1999/00"]])
@pytest.mark.parametrize("written", ["frame", "csv", "parquet"])
def test_seasons_stay_texts(times, written, tmp_path):
    frame = long(times).assign(y=1.0)
    if written == "parquet":
        frame.to_parquet("x.parquet")
        explainer = deepshap.DeepExplainer(cli_models.Forecast(), np.zeros((1, len(times), 2), "f4"), progress=False)
        found = explain_dataset(explainer, "x.parquet", tmp_path / "o", id="who", time="when", progress=False)[:]
    elif written == "csv":
        frame.to_csv("x.csv", index=False)
        found = explained("cli_models:Forecast", "x.csv", "--id", "who", "--time", "when", "-b", "zeros")
    else:
        found = deepshap.sequences(frame, "who", "when")
    assert np.asarray(found.step_labels).tolist() == times


def test_months_that_are_no_seasons_are_dates():
    found = deepshap.sequences(long(["2010/12", "2010/11", "2010/10"]), "who", "when")
    assert found.values[0, :, 0].tolist() == [2, 1, 0]
    with pytest.raises(InputError, match="stands before"):
        deepshap.sequences(long(["2011/12", "2010/11"]), "who", "when")
