"""One table in every form that people have it in: the same values, ids, names and times."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import zipfile
from pathlib import Path

import cli_models
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import xarray
from click.testing import CliRunner

import deepshap
from deepshap import InputError, explain_dataset
from deepshap.cli import cli

SUPPORT = Path(__file__).parents[1] / "support"
DATA = Path(__file__).parents[1] / "data"
IDS = ["007", "7", "åse, jr."]
LENGTHS = [3, 1, 2]
NAMES = ["wind, north", "rain fall"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]))


def table():
    """A long table whose lines are shuffled."""
    values = np.random.default_rng(0).normal(size=(6, 2)).round(3)
    days = np.concatenate([pd.date_range("2024-01-30", periods=n).to_numpy() for n in LENGTHS])
    frame = pd.DataFrame({"who": np.repeat(IDS, LENGTHS), "day": days, NAMES[0]: values[:, 0], NAMES[1]: values[:, 1]})
    return frame.iloc[[4, 0, 3, 1, 5, 2]].reset_index(drop=True)


def wanted(frame):
    """The value of each feature by id and day, by hand."""
    return {(line["who"], str(line["day"])[:10], name): line[name] for _, line in frame.iterrows() for name in NAMES}


def held(values, lengths, ids, steps, names):
    """The values of sequences by id, day and feature."""
    steps = np.broadcast_to(steps, values.shape[:2])
    return {
        (str(ids[row]), str(steps[row, at])[:10], names[k]): values[row, at, k]
        for row in range(len(values))
        for at in range(lengths[row])
        for k in range(len(names))
    }


def run(*arguments):
    result = CliRunner().invoke(
        cli, ["explain", "cli_models:Ragged", *map(str, arguments), "-b", "zeros", "-o", "y.parquet"]
    )
    assert result.exit_code == 0, result.output
    return deepshap.load("y.parquet"), result.stdout


def check_file(name, *options, features=None):
    """Check a file as the command line and as Python reads it."""
    frame, names = table(), features or NAMES
    chosen = ["--features", '"wind, north",rain fall'] if features is None else []
    found, _ = run(name, "--id", "who", "--time", "day", "--lengths", "table", *chosen, *options)
    as_read = held(found.data, found.lengths, found.row_ids, found.step_labels, names)
    assert as_read == pytest.approx({k: np.float32(v) for k, v in wanted(frame).items()}, rel=1e-6)
    assert found.feature_names == NAMES
    if not options:
        read = deepshap.sequences(name, "who", "day")
        assert held(read.values, read.lengths, read.row_ids, read.step_labels, read.feature_names) == wanted(frame)


# ---------------------------------------------------------------------- texts
def text(**options):
    return table().to_csv(index=False, **options)


def wide_unless_one_differs(separator, encoding, end):
    differing = (separator != ",") + (encoding != "utf-8") + (end != "\n")
    return pytest.param(separator, encoding, end, marks=[pytest.mark.wide] if differing > 1 else [])


@pytest.mark.parametrize(
    ("separator", "encoding", "end"),
    [
        wide_unless_one_differs(separator, encoding, end)
        for separator in (",", ";", "\t", "|")
        for encoding in ("utf-8", "utf-8-sig", "utf-16")
        for end in ("\n", "\r\n")
    ],
)
def test_separators_and_encodings(separator, encoding, end):
    Path("x.csv").write_bytes(text(sep=separator, lineterminator=end).encode(encoding))
    check_file("x.csv")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le"])
def test_encodings_that_must_be_named(encoding):
    Path("x.csv").write_bytes(text().encode(encoding))
    check_file("x.csv", "--encoding", encoding)
    with pytest.raises(InputError, match=r"read it with pandas.read_csv\(path, encoding='"):
        deepshap.sequences("x.csv", "who", "day")
    message = CliRunner().invoke(cli, ["explain", "cli_models:Row", "x.csv", "-b", "zeros"]).stderr
    assert "line 2 on: say --encoding cp1252 or another encoding." in message


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas(separator):
    Path("x.csv").write_text(text(sep=separator, decimal=","), encoding="utf-8")
    check_file("x.csv")


def test_commas_that_may_be_thousands_are_not_guessed():
    frame = pd.DataFrame({"a": ["1,234", "2,500"], "b": ["1", "2"], "c": ["1", "2"]})
    frame.to_csv("x.csv", sep=";", index=False)
    arguments = ["explain", "cli_models:Row", "x.csv", "-b", "zeros", "-o", "y.parquet"]
    assert "say --decimal" in CliRunner().invoke(cli, arguments).stderr
    assert CliRunner().invoke(cli, [*arguments, "--decimal", ","]).exit_code == 0
    np.testing.assert_allclose(deepshap.load("y.parquet").data[:, 0], [1.234, 2.5], rtol=1e-6)
    frame.assign(a=["1.234,5", "2"]).to_csv("x.csv", sep=";", index=False)
    message = CliRunner().invoke(cli, [*arguments, "--decimal", ","]).stderr
    assert "'1.234,5' in line 2" in message


@pytest.mark.parametrize(
    "above", ["# hourly values\n# of, two, stations, and, more\n", "Station north\n\n", "Station north\nUnits: mm\n"]
)
def test_lines_above_the_names(above):
    Path("x.csv").write_text(above + text(), encoding="utf-8")
    check_file("x.csv")
    said = run("x.csv", "--id", "who", "--time", "day", "--lengths", "table")[1]
    assert f"names in line {above.count(chr(10)) + 1}" in said


def test_a_header_that_is_named():
    Path("x.csv").write_text("made,by,hand,now\n" + text(), encoding="utf-8")
    check_file("x.csv", "--header", "2")


def test_comments_between_the_lines_are_left_out():
    lines = text().splitlines()
    Path("x.csv").write_text("\n".join([*lines[:3], "# a pause", "", *lines[3:]]), encoding="utf-8")
    check_file("x.csv")
    assert "1 lines of comments" in run("x.csv", "--id", "who", "--time", "day", "--lengths", "table")[1]


def test_two_separators_that_fit_are_refused():
    Path("x.csv").write_text("a,1;b,2;c\n1,2;3,4;5\n1,2;3,4;5\n")
    with pytest.raises(InputError, match=r"may be separated by commas or semicolons: read it with pandas\.read_csv"):
        deepshap.sequences("x.csv", "id")
    message = CliRunner().invoke(cli, ["explain", "cli_models:Row", "x.csv", "-b", "zeros"]).stderr
    assert "may be separated by commas or semicolons: say --separator." in message


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz", ".zip", ".zst"])
def test_packed_files(packed):
    content, name = text().encode(), f"x.csv{packed}"
    opened = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(packed)
    if opened:
        with opened(name, "wb") as stream:
            stream.write(content)
    elif packed == ".zip":
        with zipfile.ZipFile(name, "w") as archive:
            archive.writestr("x.csv", content)
    else:
        with pa.CompressedOutputStream(name, "zstd") as stream:
            stream.write(content)
    check_file(name)


# ---------------------------------------------------------------------- other files
def as_json(frame):
    lines = [{**line, "day": str(line["day"])[:10]} for line in frame.to_dict("records")]
    Path("x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


WRITERS = {
    "x.parquet": lambda frame: frame.to_parquet("x.parquet", index=False),
    "x.feather": lambda frame: pyarrow.feather.write_feather(frame, "x.feather"),
    "x.jsonl": as_json,
    "x.xlsx": lambda frame: frame.to_excel("x.xlsx", index=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_other_files(name):
    WRITERS[name](table())
    check_file(name)


@pytest.mark.parametrize("name", [*WRITERS, "x.csv"])
def test_data_sets_of_any_file(name, tmp_path):
    WRITERS.get(name, lambda frame: frame.to_csv("x.csv", index=False))(table().sort_values(["who", "day"]))
    explainer = deepshap.DeepExplainer(cli_models.Ragged(), np.zeros((1, 3, 2), "f4"), progress=False)
    options = {"id": "who", "time": "day", "lengths": True, "progress": False, "rows_per_part": 2}
    found = explain_dataset(explainer, tmp_path / name, tmp_path / "out", **options)[:]
    as_read = held(found.data, found.lengths, found.row_ids, found.step_labels, found.feature_names)
    assert as_read == pytest.approx(wanted(table()), rel=1e-6)


def test_sheets_are_said():
    with pd.ExcelWriter("x.xlsx") as book:
        table().to_excel(book, sheet_name="values", index=False)
        pd.DataFrame({"note": ["none"]}).to_excel(book, sheet_name="notes", index=False)
    assert "sheet 'values', the first of 2" in run("x.xlsx", "--id", "who", "--time", "day", "--lengths", "table")[1]
    pd.DataFrame({"a": [1, "many"], "b": 1, "c": 2}).to_excel("y.xlsx", index=False)
    result = CliRunner().invoke(cli, ["explain", "cli_models:Row", "y.xlsx"])
    assert "column 'a' is text, 'many' in row 3, not numeric" in result.stderr


TS = """#a comment
@problemName Vowels
@timeStamps false
@univariate false
@dimensions 2
@equalLength false
@classLabel true a b
@data
1.5,2.5,3.5:0.1,0.2,0.3:a
4.5:0.4:b
"""
ARFF = """@relation vowels
@attribute series relational
  @attribute t1 numeric
  @attribute t2 numeric
  @attribute t3 numeric
@end series
@attribute class {a,b}
@data
'1.5,2.5,3.5\\n0.1,0.2,0.3',a
'4.5\\n0.4',b
"""


@pytest.mark.parametrize(("name", "content"), [("x.ts", TS), ("x.arff", ARFF)])
def test_files_of_the_archive(name, content):
    Path(name).write_text(content)
    found, _ = run(name, "--lengths", "table", "--targets", "class")
    np.testing.assert_allclose(found.data[0], [[1.5, 0.1], [2.5, 0.2], [3.5, 0.3]], rtol=1e-6)
    np.testing.assert_allclose(found.data[1, :1], [[4.5, 0.4]], rtol=1e-6)
    assert (found.lengths.tolist(), found.targets.tolist()) == ([3, 1], ["a", "b"])
    assert found.feature_names == ["dimension 1", "dimension 2"]


def test_a_data_set_of_the_archive(tmp_path):
    Path("x.ts").write_text(TS)
    explainer = deepshap.DeepExplainer(cli_models.Ragged(), np.zeros((1, 3, 2), "f4"), progress=False)
    found = explain_dataset(explainer, "x.ts", tmp_path / "out", lengths=True, targets="class", progress=False)[:]
    assert found.data[..., 0].tolist() == [[1.5, 2.5, 3.5], [4.5, 0, 0]]
    assert found.targets.tolist() == ["a", "b"]


def test_an_arff_table():
    Path("x.arff").write_text(
        "@relation r\n@attribute 'wind speed' numeric\n@attribute b numeric\n@attribute c real\n"
        "@attribute class {x,y}\n@data\n1,2,3,x\n\n4,5,6,y\n"
    )
    result = CliRunner().invoke(cli, ["explain", "cli_models:Row", "x.arff", "--targets", "class", "-b", "zeros"])
    assert result.exit_code == 0, result.output
    found = deepshap.load("attributions.parquet")
    assert found.feature_names == ["wind speed", "b", "c"]
    assert found.data.tolist() == [[1, 2, 3], [4, 5, 6]]


# ---------------------------------------------------------------------- frames
FRAMES = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "pyarrow": pa.Table.from_pandas,
    "levels of an index": lambda frame: frame.set_index(["who", "day"]),
    "a named index": lambda frame: frame.set_index("who"),
    "categories": lambda frame: frame.astype({"who": "category"}),
    "decimals": lambda frame: pa.Table.from_pandas(frame).set_column(
        2, NAMES[0], pa.array(frame[NAMES[0]].round(3)).cast(pa.decimal128(9, 3))
    ),
    "periods": lambda frame: frame.assign(day=frame.day.dt.to_period("D")),
    "Python's dates": lambda frame: frame.assign(day=frame.day.dt.date),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames(kind, tmp_path):
    frame = FRAMES[kind](table())
    found = deepshap.sequences(frame, "who", "day")
    as_read = held(found.values, found.lengths, found.row_ids, found.step_labels, found.feature_names)
    assert as_read == wanted(table())
    explainer = deepshap.DeepExplainer(cli_models.Ragged(), np.zeros((1, 3, 2), "f4"), progress=False)
    options = {"id": "who", "time": "day", "lengths": True, "progress": False}
    again = explain_dataset(explainer, frame, tmp_path / "out", rows_per_part=2, **options)[:]
    as_read = held(again.data, again.lengths, again.row_ids, again.step_labels, again.feature_names)
    assert as_read == pytest.approx(wanted(table()), rel=1e-6)


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
def test_a_variable_and_a_value_in_each_line(kind, tmp_path):
    lines = table().melt(["who", "day"], var_name="what", value_name="reading").sample(frac=1, random_state=0)
    if kind == "frame":
        found = deepshap.sequences(lines, "who", "day", NAMES, variable="what", value="reading")
        values, lengths, steps = found.values, found.lengths, found.step_labels
    else:
        lines.to_csv("x.csv", index=False) if kind == "csv" else lines.to_parquet("x.parquet", index=False)
        options = ["--id", "who", "--time", "day", "--variable", "what", "--value", "reading", "--lengths", "table"]
        found, _ = run(f"x.{kind}", *options, "--features", '"wind, north",rain fall')
        values, lengths, steps = found.data, found.lengths, found.step_labels
    as_read = held(values, lengths, found.row_ids, steps, found.feature_names)
    assert as_read == pytest.approx(wanted(table()), rel=1e-6)
    assert found.feature_names == NAMES
    with pytest.raises(InputError, match=r"'rain fall' is missing or infinite at|'wind, north' is missing"):
        deepshap.sequences(lines.iloc[1:], "who", "day", variable="what", value="reading")
    with pytest.raises(InputError, match="two values of"):
        deepshap.sequences(pd.concat([lines, lines.head(1)]), "who", "day", variable="what", value="reading")


@pytest.mark.parametrize("kind", ["pandas", "polars", "parquet"])
def test_ordered_categories_are_times(kind, tmp_path):
    months = ["Jan", "Feb", "Mar", "Apr"]
    frame = pd.DataFrame({"who": "x", "month": ["Mar", "Jan", "Apr", "Feb"], "a": [3.0, 1, 4, 2], "b": 0.0})
    if kind == "polars":
        given = pl.from_pandas(frame).with_columns(pl.col("month").cast(pl.Enum(months)))
    else:
        given = frame.assign(month=pd.Categorical(frame.month, months, ordered=True))
    if kind == "parquet":
        given.to_parquet("x.parquet")
        explainer = deepshap.DeepExplainer(cli_models.Forecast(), np.zeros((1, 4, 2), "f4"), progress=False)
        found = explain_dataset(explainer, "x.parquet", tmp_path / "o", id="who", time="month", progress=False)[:]
        values, steps = found.data, found.step_labels
    else:
        read = deepshap.sequences(given, "who", "month")
        values, steps = read.values, read.step_labels
    assert values[0, :, 0].tolist() == [1, 2, 3, 4]
    assert np.asarray(steps).astype(str).tolist() == months
    with pytest.raises(InputError, match="stands before"):
        deepshap.sequences(frame, "who", "month")


def test_an_index_of_pandas_in_parquet():
    frame = pd.DataFrame(np.arange(6.0).reshape(2, 3), columns=list("abc"), index=pd.Index(["x", "y"], name="key"))
    for name, one in (("named", frame), ("unnamed", frame.rename_axis(None))):
        one.to_parquet("x.parquet")
        result = CliRunner().invoke(cli, ["explain", "cli_models:Row", "x.parquet", "-b", "zeros"])
        assert result.exit_code == 0, (name, result.output)
        found = deepshap.load("attributions.parquet")
        assert found.row_ids.tolist() == ["x", "y"]
        assert found.feature_names == list("abc")


def test_a_column_of_arrays():
    rows = np.random.default_rng(0).normal(size=(4, 5, 2))
    pq.write_table(pa.table({"x": [list(map(list, row)) for row in rows], "who": list("abcd")}), "x.parquet")
    result = CliRunner().invoke(
        cli, ["explain", "cli_models:Forecast", "x.parquet", "--id", "who", "--shape", "5,2", "-b", "zeros"]
    )
    assert result.exit_code == 0, result.output
    found = deepshap.load("attributions.parquet")
    np.testing.assert_allclose(found.data, rows, rtol=1e-6)
    assert found.row_ids.tolist() == list("abcd")


def test_a_dataset_of_xarray():
    rows = np.random.default_rng(0).normal(size=(3, 5, 2)).astype("f4")
    coords = {"station": list("xyz"), "hour": range(5)}
    data = xarray.Dataset({name: (("station", "hour"), rows[..., i]) for i, name in enumerate(["a", "b"])}, coords)
    explainer = deepshap.DeepExplainer(cli_models.Forecast(), rows, feature_names=["b", "a"], progress=False)
    found = explainer(data)
    np.testing.assert_array_equal(found.data, rows[..., ::-1])
    assert (found.row_ids.tolist(), found.feature_names, found.time_label) == (list("xyz"), ["b", "a"], "hour")


def test_a_single_series_is_told_of_forecasts():
    table().drop(columns="who").sort_values("day").to_csv("x.csv", index=False)
    result = CliRunner().invoke(cli, ["explain", "cli_models:Forecast", "x.csv", "--time", "day"])
    assert "deepshap.forecasting.explain_forecast" in result.stderr
