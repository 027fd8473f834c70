"""Files that could be read in two ways, or hold a cell that does not fit: the error says where."""

from __future__ import annotations

import os
from pathlib import Path

import cli_models
import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import deepshap
from deepshap import InputError, explain_dataset
from deepshap.cli import cli

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]))


def explainer(steps=None):
    background = np.zeros((1, 3), "f4") if steps is None else np.zeros((1, steps, 2), "f4")
    return deepshap.DeepExplainer(
        cli_models.Row() if steps is None else cli_models.Forecast(), background, progress=False
    )


def run(*arguments, background="zeros"):
    command = ["explain", *map(str, arguments), "-b", background, "-o", "why.parquet"]
    return CliRunner().invoke(cli, command)


def explained(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return deepshap.load("why.parquet"), result.stdout


def refused(*arguments, **options):
    result = run(*arguments, **options)
    assert result.exit_code == 1, result.output
    assert not Path("why.parquet").exists()
    return result.stderr


# ---------------------------------------------------------------------- headers
@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("2019,2020,2021", []),
        ("1,2,3", []),
        ("p,1,2,3", ["--id", "p"]),
        ("p,2019,2020,2021", ["--id", "p"]),
        ("a,0.5,c", []),
        ("-1,b,c", []),
    ],
)
def test_a_first_line_with_numbers_is_not_taken_for_names(header, options):
    names = header.split(",")
    rows = [[f"id {row}"] * (len(names) - 3) + [1.5, 2.5, row] for row in range(2)]
    Path("x.csv").write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
    message = refused("cli_models:Row", "x.csv", *options)
    assert f"line 1 holds numbers where names of columns should stand ({', '.join(names)})" in message
    assert "say --header none; if these are the names, say --header 1." in message
    with pytest.raises(InputError, match=r"read it with pandas\.read_csv\(path, header=None\)"):
        explain_dataset(explainer(), "x.csv", "out", id=options[1] if options else None, progress=False)
    assert not Path("out").exists()
    found, said = explained("cli_models:Row", "x.csv", *options, "--header", "1")
    assert found.feature_names == names[-3:]
    assert len(found.data) == 2
    assert f"names in line 1 ({', '.join(names)})" in said


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("0,1,2", []),
        (",0,1,2", ["--features", "0,1,2"]),
        ("who,t,1,2", ["--id", "who", "--time", "t"]),
        ("who,7,8,9", ["--id", "who", "--features", "7,8,9"]),
    ],
)
def test_numbers_are_names_where_nothing_else_can_be_meant(header, options):
    Path("x.csv").write_text(f"{header}\n" + "".join(f"{row}{',1' * header.count(',')}\n" for row in range(2)))
    model = "cli_models:Forecast" if "--time" in options else "cli_models:Row"
    found, said = explained(model, "x.csv", *options)
    assert len(found.data) == 2
    assert f"names in line 1 ({', '.join(header.split(',')) if header[0] != ',' else 'Unnamed: 0, 0, 1, 2'})" in said


@pytest.mark.parametrize("options", [[], ["--id", "id"], ["--id", "#id"]])
def test_names_behind_a_mark_of_comments_are_asked_for(options):
    Path("x.csv").write_text("#id,a,b,c\n1,1,2,3\n2,4,5,6\n")
    message = refused("cli_models:Row", "x.csv", *options)
    assert "line 1 (#id, a, b, c) begins with '#' and is taken for a comment" in message
    assert "If line 1 names the columns, say --header 1." in message
    found, _ = explained("cli_models:Row", "x.csv", "--id", "id", "--header", "1")
    assert (found.row_ids.tolist(), found.feature_names) == (["1", "2"], ["a", "b", "c"])


def test_a_column_more_than_an_array_background_is_named():
    pd.DataFrame(np.ones((2, 3)), columns=list("abc")).to_csv("x.csv")
    np.save("b.npy", np.zeros((2, 3)))
    message = refused("cli_models:Row", "x.csv", background="b.npy")
    assert "4 columns (Unnamed: 0, a, b, c) for the 3 features of b.npy: choose with --features." in message


# ---------------------------------------------------------------------- cells
@pytest.mark.parametrize(
    ("cells", "cell", "row"),
    [
        ([1, 2, "x"], "'x'", 4),
        ([1, "5", 7], "'5'", 3),
        ([1, None, "NA"], "'NA'", 4),
        (["1,5", 2, 3], "'1,5'", 2),
        ([1, 2, True], "'True'", 4),
        (["5", "x", 3], "'5'", 2),
    ],
)
@pytest.mark.parametrize("above", [0, 2])
def test_the_first_text_among_the_numbers_of_a_sheet(cells, cell, row, above):
    book = openpyxl.Workbook()
    for _ in range(above):
        book.active.append([])
    for line in [["a", "b", "c"], *([value, 1, 2] for value in cells)]:
        book.active.append(line)
    book.save("x.xlsx")
    message = f"x.xlsx: column 'a' is text, {cell} in row {row + above}, not numeric"
    assert message in refused("cli_models:Row", "x.xlsx")
    with pytest.raises(InputError, match=message):
        explain_dataset(explainer(), "x.xlsx", "out", progress=False)


def test_the_first_text_among_the_numbers_of_json_lines():
    Path("x.jsonl").write_text("".join(f'{{"a": {cell}, "b": 1, "c": 2}}\n' for cell in ("1", "null", '"2"', '"x"')))
    assert "column 'a' is text, '2' in line 3" in refused("cli_models:Row", "x.jsonl")


@pytest.mark.parametrize(
    ("cells", "shape", "message"),
    [
        ([[[1.0, 2], [3.0]], [[1.0, 2], [3, 4]]], "2,2", "holds a list of 1 number in row 1 "),
        ([[[1.0, 2, 3], [4.0]], [[1.0, 2], [3, 4]]], "2,2", "holds a list of 3 numbers in row 1 "),
        ([[[1.0, 2], [3, 4]], [[1.0, 2]]], "2,2", "holds 1 lists in row 2 "),
        ([[[1.0, 2, 3], [4, 5, 6]]] * 2, "3,2", "holds 2 lists in row 1 "),  # features before steps
        ([[1.0, 2, 3, 4], [1.0]], "2,2", "holds 1 number in row 2 "),
        ([[[1.0], [2], [3], [4]]] * 2, "4", "arrays of 2 axes, and the shape (4,) has 1"),
        ([[1.0, 2, 3, 4], None], "2,2", "holds 0 numbers in row 2 "),
    ],
)
def test_arrays_of_another_shape_in_a_column_are_refused(cells, shape, message):
    pq.write_table(pa.table({"x": cells}), "x.parquet")
    assert message in refused("cli_models:Forecast", "x.parquet", "--shape", shape)
    sizes = tuple(map(int, shape.split(",")))
    for data in ("x.parquet", pa.table({"x": cells})):
        options = {"features": ["x"], "shape": sizes, "progress": False, "rows_per_part": 1}
        with pytest.raises(InputError, match=message.partition("(")[0]):
            explain_dataset(explainer(2), data, "out", **options)


@pytest.mark.parametrize("nested", [False, True])
def test_whole_numbers_with_a_shape(nested):
    numbers = np.arange(8).reshape(2, 2, 2)
    frame = pd.DataFrame(numbers.reshape(2, 4), columns=list("abcd"))
    (pd.DataFrame({"x": [row.tolist() for row in numbers]}) if nested else frame).to_parquet("x.parquet")
    assert "whole numbers; --dtype float32 changes that" in refused(
        "cli_models:Forecast", "x.parquet", "--shape", "2,2"
    )
    found = explain_dataset(explainer(2), "x.parquet", "out", shape=(2, 2), progress=False)[:]
    np.testing.assert_array_equal(found.data, numbers)


def test_an_index_in_a_sheet_is_a_column_without_a_name():
    pd.DataFrame(np.ones((2, 3)), columns=list("abc")).to_excel("x.xlsx")
    assert "4 columns (Unnamed: 0, a, b, c) for 3 features" in refused("cli_models:Row", "x.xlsx")
    assert explained("cli_models:Row", "x.xlsx", "--features", "a,b,c")[0].feature_names == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a::b::c\n1::2::3\n", ["--separator", "::"], "--separator is a single character or tab, not '::'"),
        ("Station,North\nUnits,mm\na,b,c\n1,2,3\n2,3,4\n", [], "stand in another line, say --header."),
    ],
)
def test_files_that_cannot_be_taken_apart(content, options, message):
    Path("x.csv").write_text(content)
    assert message in refused("cli_models:Row", "x.csv", *options)


def test_a_comment_with_a_cell_for_each_column_is_no_row():
    Path("x.csv").write_text('p,a,b,c\n\n"x\u2028\nw",1,2,3\n#y,4,5,6\nz,7,8,9\n')
    message = refused("cli_models:Row", "x.csv", "--id", "p")
    assert "line 5 begins with '#' and has a cell for each column" in message


@pytest.mark.parametrize(("first", "second"), [("x", '"#y"'), ("#x", "#y")])
def test_ids_with_a_mark_of_comments_are_rows(first, second):
    Path("x.csv").write_text(f"p,a,b,c\n{first},1,2,3\n{second},4,5,6\n")
    found, _ = explained("cli_models:Row", "x.csv", "--id", "p")
    assert found.row_ids.tolist() == [first, second.strip('"')]
    assert found.data.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("option", "cells"),
    [("target", ["0", ""]), ("target", ["0", "NA"]), ("target", ["p", ""]), ("length", ["1", ""])],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_empty_target_or_length_is_said_with_its_line(option, cells, ending):
    table = pd.DataFrame(np.ones((2, 3)), columns=list("abc")).assign(y=cells)
    place = "line 3"
    if ending == "parquet":
        place = "row 2"
        table["y"] = [cells[0] if cells[0] == "p" else int(cells[0]), None]
    getattr(table, f"to_{ending}")(f"x.{ending}", index=False)
    message = refused("cli_models:Row", f"x.{ending}", f"--{option}s", "y")
    assert f"{option} empty in {place}" in message
    assert "(column 'y'): fill it or drop the line." in message


def test_an_empty_target_of_a_long_table_is_said_with_its_line():
    Path("x.csv").write_text("k,t,a,b,y\n1,1,2,3,0\n1,2,2,3,0\n2,1,2,3,\n2,2,2,3,\n")
    message = refused("cli_models:Forecast", "x.csv", "--id", "k", "--time", "t", "--targets", "y")
    assert "target empty in line 4 (column 'y')" in message


@pytest.mark.parametrize(
    ("name", "content"), [("x.jsonl", '{"a": 1}\n\n{"a": 1,\n'), ("x.json", '[{"a": 1},\n\n{"a": 1,\n')]
)
def test_json_that_ends_early_is_said_with_its_line(name, content):
    Path(name).write_text(content)
    assert f"in line {3 if name == 'x.jsonl' else 4}, column" in refused("cli_models:Row", name)


def test_a_name_that_a_record_holds_twice_is_refused():
    Path("x.jsonl").write_text('{"a": 1, "b": 2, "c": 3, "a": 5}\n')
    assert "'a' is there twice" in refused("cli_models:Row", "x.jsonl")


@pytest.mark.parametrize("codes", [["01234", "1234"], ["007", "7"], ["+01", "1"]])
def test_labels_that_begin_with_zeros_stay_texts(codes):
    pd.DataFrame({"a": [1.0, 2], "b": 1, "c": 2, "z": codes}).to_csv("x.csv", index=False)
    found, _ = explained("cli_models:Row", "x.csv", "--targets", "z")
    assert found.targets.tolist() == codes


@pytest.mark.parametrize("time", ["NA", "nan", "null", "NaT", " ", "?"])
@pytest.mark.parametrize("others", [["1", "2"], ["2024-01-01", "2024-01-02"], ["x", "y"]])
def test_a_missing_time_is_refused(time, others):
    frame = pd.DataFrame({"k": ["p", "p", "p"], "t": [others[0], time, others[1]], "a": 1.0, "b": 2.0})
    frame.to_csv("x.csv", index=False)
    assert "column 't' is empty in line 3" in refused("cli_models:Forecast", "x.csv", "--id", "k", "--time", "t")
    frame.to_parquet("x.parquet")
    with pytest.raises(InputError, match="column 't' is empty in row 2"):
        explain_dataset(explainer(3), "x.parquet", "out", id="k", time="t", progress=False)


# ---------------------------------------------------------------------- .ts files with times
TS = "@problemName p\n@timeStamps true\n@univariate false\n@dimensions 2\n@classLabel true a b\n@data\n"


@pytest.mark.parametrize(
    "stamps",
    [["0", "2", "10"], ["2006-01-01 00:00:00", "2006-01-01 09:30:00", "2006-01-02 10:00:00"], ["1.5", "2.5", "9"]],
)
def test_ts_files_with_times(stamps):
    def line(values, label):
        dimensions = (",".join(f"({time},{value + k})" for time, value in values) for k in (0, 10))
        return ":".join([*dimensions, label])

    values = list(zip(stamps, [1.5, 2.5, 3.5], strict=True))
    Path("x.ts").write_text(TS + line(values[::-1], "a") + "\n" + line(values[:1], "b") + "\n")
    found, said = explained("cli_models:Ragged", "x.ts", "--lengths", "table", "--targets", "class")
    assert "time 'step' as" in said
    np.testing.assert_allclose(found.data[0], [[1.5, 11.5], [2.5, 12.5], [3.5, 13.5]])
    assert (found.lengths.tolist(), found.targets.tolist()) == ([3, 1], ["a", "b"])
    texts = [stamp.replace(" ", "T") for stamp in stamps]
    wanted = np.array(texts, "M8[s]") if "T" in texts[0] else np.array(texts, float)
    np.testing.assert_array_equal(found.step_labels, wanted)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("(0,1),(1,2):(0,1),(2,2):a", "the dimensions in line 7 have different times"),
        ("1,2:3,4:a", "line 7 must hold steps as (time,value)"),
        ("(0,1),(1,2:(0,1),(1,2):a", "line 7 must hold steps as (time,value)"),
        ("(0,1),(0,2):(0,1),(0,2):a", "two lines for step 0"),
        ("(0,x):(0,1):a", "line 7"),
    ],
)
def test_ts_files_with_wrong_times(line, message):
    Path("x.ts").write_text(TS + line + "\n")
    assert message in refused("cli_models:Forecast", "x.ts")
