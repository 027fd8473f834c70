"""Random tables in every form: each value stands with its id, its time and its feature, as in arrays that are built by hand."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tempfile
from csv import QUOTE_MINIMAL, QUOTE_NONNUMERIC
from pathlib import Path

import cli_models
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import deepshap
from deepshap import InputError, explain_dataset
from deepshap.dataset.sources import ParquetRows
from deepshap.tables import Columns, as_table, decide, read
from deepshap.tables.files import FileOptions, read_file

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
TEXT_IDS = [
    "007",
    "7",
    "01234",
    "NA",
    "nan",
    "1e3",
    "x;y",
    "a, b",
    'q"uote',
    "åse",
    "#9",
    "true",
    " lead",
    "2024-01-01",
]
NAMES = ["a", "b", "wind, north", "rain fall", "é", "x;y", "0", 'q"uote', "value 1", "time of day"]

numbers = st.floats(allow_nan=False, allow_infinity=False, width=32).map(float) | st.floats(-1e6, 1e6)
columns = st.sampled_from(["float", "int", "bool", "float32"])


@st.composite
def ids_of(draw, count):
    kind = draw(st.sampled_from(["int", "text", "large"]))
    if kind == "text":
        return draw(st.permutations(TEXT_IDS))[:count]
    start = 2**53 if kind == "large" else 0
    return draw(st.lists(st.integers(start, start + 50), min_size=count, max_size=count, unique=True))


@st.composite
def times_of(draw, count):
    kind = draw(st.sampled_from(["int", "float", "date", "datetime", "zoned", "text"]))
    steps = np.array(sorted(draw(st.lists(st.integers(0, 4000), min_size=count, max_size=count, unique=True))))
    if kind == "int":
        return kind, (steps - 2000).tolist()
    if kind == "float":
        return kind, (steps / 8).tolist()
    if kind == "text":
        return kind, [f"t{step:05d}" for step in steps]
    start = pd.Timestamp(
        "2024-03-30" if kind == "zoned" else "1999-12-25", tz="Europe/Berlin" if kind == "zoned" else None
    )
    return kind, [start + pd.Timedelta(int(step), "D" if kind == "date" else "h") for step in steps]


@st.composite
def long_tables(draw):
    """A long table with shuffled lines and columns, and its values by id, time and feature."""
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    ids = draw(ids_of(len(lengths)))
    names = draw(st.permutations(NAMES))[: draw(st.integers(1, 3))]
    kinds = [draw(columns) for _ in names]
    kind, stamps = draw(times_of(max(lengths)))
    lines = []
    for id, length in zip(ids, lengths, strict=True):
        for stamp in stamps[:length]:
            cells = [draw({"int": st.integers(-999, 2**40), "bool": st.booleans()}.get(k, numbers)) for k in kinds]
            lines.append({"who": id, "when": stamp, **dict(zip(names, cells, strict=True))})
    order = list(range(len(lines)))
    if kind != "text":  # texts must stand in their order
        order = draw(st.permutations(order))
    frame = pd.DataFrame([lines[at] for at in order])[draw(st.permutations(["who", "when", *names]))]
    frame = frame.astype({n: "f4" for n, k in zip(names, kinds, strict=True) if k == "float32"})
    frame["when"] = pd.to_datetime(frame["when"]) if kind in ("date", "datetime") else frame["when"]
    return frame, names, kind


def stamp(value):
    """A time as a text that is the same in all forms: of dates the moment in UTC."""
    if isinstance(value, (pd.Timestamp, np.datetime64)):
        value = pd.Timestamp(value)
        value = value.tz_convert("UTC").tz_localize(None) if value.tz is not None else value
        return str(np.datetime64(value.to_datetime64(), "us"))
    return str(float(value)) if not isinstance(value, str) else value


def by_hand(frame, names):
    """Each value by id, time and feature."""
    return {
        (str(line["who"]), stamp(line["when"]), n): float(line[n]) for line in frame.to_dict("records") for n in names
    }


def held(parts):
    """The same of what was read."""
    found = {}
    for X in parts:
        steps = np.broadcast_to(X.step_labels, X.values.shape[:2])
        for row, at in np.argwhere(np.arange(X.values.shape[1]) < X.lengths[:, None]):
            for k, name in enumerate(X.feature_names):
                key = str(X.row_ids[row]), stamp(steps[row, at]), name
                assert key not in found
                found[key] = float(X.values[row, at, k])
        assert all((X.values[row, length:] == 0).all() for row, length in enumerate(X.lengths))
    return found


# ---------------------------------------------------------------------- forms
def as_texts(frame):
    """Times as people write them into texts, and all digits of numbers."""
    frame = frame.astype({name: float for name in frame if frame[name].dtype == np.float32})
    times = frame["when"]
    if hasattr(times.dtype, "tz"):
        return frame.assign(when=[time.isoformat() for time in times])
    return frame


def quoting(frame):
    """Quotes around texts where an id begins with #, which would be refused as a possible comment."""
    marked = frame["who"].astype(str).str.lstrip().str.startswith("#").any()
    return QUOTE_NONNUMERIC if marked else QUOTE_MINIMAL


def csv(frame, folder, draw):
    separator = draw(st.sampled_from([",", ";", "\t", "|"]))
    decimal = draw(st.sampled_from([".", ","])) if separator != "," else "."
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]))
    above = draw(st.sampled_from(["", "# made by hand\n", "Station\n\n"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    packed = draw(st.sampled_from(["", ".gz", ".bz2", ".xz"]))
    path = Path(folder) / f"x.csv{packed}"
    text = above.replace("\n", end) + as_texts(frame).to_csv(
        index=False, sep=separator, decimal=decimal, lineterminator=end, quoting=quoting(frame)
    )
    opened = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[packed]
    with opened(path, "wb") as stream:
        stream.write(text.encode(encoding))
    named = FileOptions(separator, decimal, encoding if encoding == "cp1252" else None)
    return read_file(path, named, ["who", "when"])


def jsonl(frame, folder, draw):
    path = Path(folder) / "x.jsonl"
    lines = json.loads(as_texts(frame).to_json(orient="records", date_format="iso", double_precision=15))
    exact = [
        {name: value if name == "when" else frame[name].tolist()[i] for name, value in line.items()}
        for i, line in enumerate(lines)
    ]
    path.write_text("\n".join(map(json.dumps, exact)), encoding="utf-8")
    return read_file(path)


def feather(frame, folder, draw):
    pyarrow.feather.write_feather(frame, Path(folder) / "x.feather")
    return read_file(Path(folder) / "x.feather")


FORMS = {
    "pandas": lambda frame, folder, draw: as_table(frame),
    "levels": lambda frame, folder, draw: as_table(frame.set_index(["when", "who"]), index=["who", "when"]),
    "polars": lambda frame, folder, draw: as_table(pl.from_pandas(frame)),
    "pyarrow": lambda frame, folder, draw: as_table(pa.Table.from_pandas(frame)),
    "csv": csv,
    "jsonl": jsonl,
    "feather": feather,
}


@pytest.mark.parametrize("form", FORMS)
@settings(QUICK, max_examples=40)
@given(table=long_tables(), data=st.data())
def test_long_tables(form, table, data):
    frame, names, kind = table
    event(kind)
    with tempfile.TemporaryDirectory() as folder:
        opened = FORMS[form](frame, folder, data.draw)
    wanted = data.draw(st.permutations(names)) if data.draw(st.booleans()) else None
    decided = decide(opened, Columns("who", "when", wanted))
    found = read(opened, decided).X
    assert found.feature_names == (wanted or [name for name in frame.columns if name not in ("who", "when")])
    assert held([found]) == by_hand(frame, names)
    if kind != "text":
        assert [str(id) for id in found.row_ids] == [str(id) for id in frame["who"].drop_duplicates()]


@settings(QUICK, max_examples=40)
@given(table=long_tables(), size=st.integers(1, 4), groups=st.integers(1, 9), files=st.integers(1, 2))
def test_long_parquet_in_parts(table, size, groups, files):
    frame, names, kind = table
    by = ["who"] if kind == "text" else ["who", "when"]
    frame = frame.sort_values(by, kind="stable", ignore_index=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.parquet" for i in range(files)]
        for path, lines in zip(paths, np.array_split(np.arange(len(frame)), files), strict=True):
            part = frame.iloc[lines]
            part[part.columns[:: 1 if path is paths[0] else -1]].to_parquet(path, row_group_size=groups, index=False)
        rows = ParquetRows(paths, Columns("who", "when"))
        ranges = [(first, min(first + size, rows.rows)) for first in range(0, rows.rows, size)]
        parts = [one.X for one in rows.read(ranges)]
        some = rows.take(np.arange(0, rows.rows, 2)).X
    assert held(parts) == by_hand(frame, names)
    assert len({str(part.step_labels.dtype) for part in parts if kind != "text"}) <= 1
    chosen = frame[frame["who"].isin(frame["who"].drop_duplicates().iloc[::2])]
    assert held([some]) == by_hand(chosen, names)


@pytest.mark.parametrize("form", ["pandas", "polars", "pyarrow", "csv", "feather"])
@settings(QUICK, max_examples=40)
@given(table=long_tables(), data=st.data())
def test_wide_tables(form, table, data):
    frame, names, _ = table
    frame = frame.drop(columns="when").drop_duplicates("who", ignore_index=True)
    with tempfile.TemporaryDirectory() as folder:
        opened = FORMS[form](frame.assign(when="x"), folder, data.draw)
    found = read(opened, decide(opened, Columns("who", features=names))).X
    assert found.feature_names == list(names)
    values = {
        (str(id), n): float(found.values[i, k]) for i, id in enumerate(found.row_ids) for k, n in enumerate(names)
    }
    assert values == {(str(line["who"]), n): float(line[n]) for line in frame.to_dict("records") for n in names}


@settings(QUICK, max_examples=40)
@given(table=long_tables(), data=st.data())
def test_a_missing_value_is_refused_and_its_line_named(table, data):
    frame, names, _ = table
    at, name = data.draw(st.integers(0, len(frame) - 1)), data.draw(st.sampled_from(names))
    frame = frame.astype({name: object})
    frame.loc[at, name] = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        missing = data.draw(st.sampled_from(["", "NA", "NaN", "null"]))
        as_texts(frame).to_csv(path, index=False, na_rep=missing, quoting=quoting(frame))
        opened = read_file(path, named=["who", "when"])
        with pytest.raises(InputError, match=rf"is missing or infinite at .*line {at + 2}\)"):
            read(opened, decide(opened, Columns("who", "when")))


@settings(QUICK, max_examples=12)
@given(table=long_tables(), size=st.integers(1, 3), data=st.data())
def test_data_sets(table, size, data):
    """What a run has written holds the same values, whatever the order of columns and the parts."""
    frame, names, _ = table
    names = [*names, "other"][:2]
    frame = frame.assign(other=np.arange(len(frame)) * 0.5)[["who", "when", *data.draw(st.permutations(names))]]
    zeros = np.zeros((1, frame.groupby("who").size().max(), 2), "f4")
    explainer = deepshap.DeepExplainer(cli_models.Ragged(), zeros, feature_names=names, progress=False)
    limit = 2.0**30  # what the model can read
    frame = frame.assign(**{name: frame[name].astype(float).clip(-limit, limit) for name in names})
    options = {"id": "who", "time": "when", "lengths": True, "progress": False}
    with tempfile.TemporaryDirectory() as folder:
        whole = explain_dataset(explainer, frame, Path(folder) / "out", rows_per_part=size, **options)[:]
    assert whole.feature_names == names
    found = {}
    steps = np.broadcast_to(whole.step_labels, whole.data.shape[:2])
    for row, at in np.argwhere(np.arange(whole.data.shape[1]) < whole.lengths[:, None]):
        for k, name in enumerate(names):
            found[str(whole.row_ids[row]), stamp(steps[row, at]), name] = float(whole.data[row, at, k])
    assert found == pytest.approx(by_hand(frame, names), rel=1e-6)


@pytest.mark.wide
@pytest.mark.parametrize("workers", [1, 2])
def test_workers(workers, tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=["b", "a"])
    frame = frame.assign(
        who=np.repeat([f"{i:03d}" for i in range(20)], 2),
        when=pd.date_range("2024-10-26", periods=40, freq="h", tz="Europe/Berlin"),
    )
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=7)
    explainer = deepshap.DeepExplainer(
        cli_models.Forecast(), np.zeros((1, 2, 2), "f4"), feature_names=["a", "b"], progress=False
    )
    options = {"id": "who", "time": "when", "rows_per_part": 3, "workers": workers, "progress": False}
    whole = explain_dataset(explainer, tmp_path / "x.parquet", tmp_path / "out", **options)[:]
    lines = {
        (str(whole.row_ids[row]), stamp(whole.step_labels[row, at]), name): float(whole.data[row, at, k])
        for row in range(20)
        for at in range(2)
        for k, name in enumerate(whole.feature_names)
    }
    assert lines == pytest.approx(by_hand(frame, ["a", "b"]), rel=1e-6)


def test_a_title_above_a_header_whose_rows_all_begin_with_a_hash(tmp_path):
    """Found by the test of wide tables: with as many titles as headers, the line with more cells has the names."""
    path = tmp_path / "x.csv"
    path.write_text('Station\n\n"who","a","when"\n"#9",0.5,"x"\n')
    table = read_file(path, FileOptions(","), ["who", "when"])
    assert table.columns.to_pydict() == {"who": ["#9"], "a": ["0.5"], "when": ["x"]}
