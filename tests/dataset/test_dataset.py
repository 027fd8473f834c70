"""Data sets in parts: the same numbers as in one call, from every source, however they are cut."""

from __future__ import annotations

import json
import re

import dataset_models as models
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from dataset_models import Picky, Table, long_table, ragged_explainer, rows, table_explainer

import deepshap
from deepshap import InputError, explain_dataset
from deepshap.dataset import run
from deepshap.engines.torch.recurrent import fused
from deepshap.explanation.labels import duration

COUNT = 23


@pytest.fixture(scope="module")
def explainer():
    return table_explainer()


@pytest.fixture(scope="module")
def ragged():
    return ragged_explainer()


@pytest.fixture(scope="module")
def whole(explainer):
    return explainer(rows(COUNT))


def close(found, wanted):
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.base_values, wanted.base_values, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.outputs, wanted.outputs, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.data, wanted.data)


def equal(found, wanted):
    for name in ("values", "data", "base_values", "outputs", "gap", "row_ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


# ---------------------------------------------------------------------- sources
def frame(x=None, ids=None):
    x = rows(COUNT) if x is None else x
    return pd.DataFrame(x, columns=list("abcd"), index=ids)


def as_npy(path):
    np.save(path / "x.npy", rows(COUNT))
    return path / "x.npy", {}


def as_wide(path):
    frame(ids=None).assign(key=np.arange(COUNT) + 100).to_parquet(path / "x.parquet", row_group_size=5)
    return path / "x.parquet", {"id": "key"}


def as_folder(path):
    (path / "rows").mkdir()
    for i, part in enumerate(np.array_split(np.arange(COUNT), 3)):
        frame().iloc[part].to_parquet(path / "rows" / f"{i}.parquet", index=False)
    return path / "rows", {}


def as_nested(path):
    table = pa.table({"x": list(rows(COUNT)), "key": np.arange(COUNT) + 100})
    pq.write_table(table, path / "x.parquet")
    return path / "x.parquet", {"id": "key", "shape": (4,)}


SOURCES = {
    "array": lambda path: (rows(COUNT), {}),
    "tensor": lambda path: (torch.tensor(rows(COUNT)), {}),
    "memory map": as_npy,
    "arrow": lambda path: (pa.Table.from_pandas(frame()), {}),
    "table": lambda path: (frame(ids=np.arange(COUNT) + 100), {}),
    "Parquet": as_wide,
    "folder": as_folder,
    "files": lambda path: (sorted(as_folder(path)[0].iterdir()), {}),
    "a column of arrays": as_nested,
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_numbers_of_one_call(name, explainer, whole, tmp_path):
    data, options = SOURCES[name](tmp_path)
    found = explain_dataset(explainer, data, tmp_path / "out", rows_per_part=4, progress=False, **options)
    close(found[:], whole)
    first = 100 if name in ("table", "Parquet", "a column of arrays") else 0
    np.testing.assert_array_equal(found[:].row_ids, np.arange(COUNT) + first)
    assert len(found.paths) == 6
    assert found.is_complete
    assert found.statistics["rows"] == COUNT
    assert found.statistics["largest_gap"] == pytest.approx(found[:].gap.max())


@pytest.mark.parametrize("lengths", [True, False])
def test_long_tables_are_read_as_sequences(lengths, ragged, tmp_path):
    table = long_table(COUNT)
    table.to_parquet(tmp_path / "long.parquet", row_group_size=7)
    options = {"id": "who", "time": "day", "lengths": lengths, "progress": False}
    wanted = deepshap.sequences(table, "who", "day")
    explainer, arguments = ragged, (wanted.lengths,)
    if not lengths:  # a model that reads all steps
        explainer, arguments = (
            deepshap.DeepExplainer(models.Ragged.__mro__[1](), wanted.values[:4], progress=False),
            None,
        )
    found = explain_dataset(explainer, tmp_path / "long.parquet", tmp_path / "out", rows_per_part=5, **options)[:]
    close(found, explainer(wanted.values, additional_forward_args=arguments))
    np.testing.assert_array_equal(found.row_ids, wanted.row_ids)
    np.testing.assert_array_equal(found.step_labels, wanted.step_labels)
    assert found.feature_names == ["pulse", "heat"]
    if lengths:
        np.testing.assert_array_equal(found.lengths, wanted.lengths)


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
def test_a_line_for_each_value(kind, ragged, tmp_path):
    table = long_table(COUNT)
    lines = table.melt(["who", "day"], var_name="what", value_name="much").sort_values(["who", "day"], kind="stable")
    data = lines if kind == "frame" else tmp_path / f"lines.{kind}"
    if kind != "frame":
        lines.to_csv(data, index=False) if kind == "csv" else lines.to_parquet(data)
    options = {"id": "who", "time": "day", "lengths": True, "rows_per_part": 5, "progress": False}
    options |= {"variable": "what", "value": "much"}
    wanted = deepshap.sequences(table, "who", "day")
    found = explain_dataset(ragged, data, tmp_path / "out", **options)[:]
    close(found, ragged(wanted.values, additional_forward_args=(wanted.lengths,)))
    np.testing.assert_array_equal(found.row_ids, wanted.row_ids)
    assert found.feature_names == ["pulse", "heat"]


def test_lines_for_each_value_that_cannot_be_read(ragged, tmp_path):
    table, options = long_table(COUNT), {"id": "who", "time": "day", "progress": False}
    with pytest.raises(InputError, match="variable= and value= belong together"):
        explain_dataset(ragged, table, tmp_path / "out", variable="what", **options)
    table.to_csv(tmp_path / "a.csv")
    paths = [tmp_path / "a.csv", tmp_path / "a.csv"]
    with pytest.raises(InputError, match="a single file or several Parquet files"):
        explain_dataset(ragged, paths, tmp_path / "out", variable="what", value="much", **options)


def test_a_long_table_out_of_order_is_refused(ragged, tmp_path):
    table = long_table(COUNT)
    pd.concat([table.iloc[20:], table.iloc[:20]]).to_parquet(tmp_path / "long.parquet", row_group_size=7)
    with pytest.raises(InputError, match="not sorted by 'who'"):
        explain_dataset(ragged, tmp_path / "long.parquet", tmp_path / "out", id="who", time="day", lengths=True)


@pytest.mark.fast
def test_lengths_of_arrays(ragged, tmp_path):
    wanted = deepshap.sequences(long_table(COUNT), "who", "day")
    found = explain_dataset(
        ragged, wanted.values, tmp_path / "out", lengths=wanted.lengths, rows_per_part=5, progress=False
    )[:]
    close(found, ragged(wanted.values, additional_forward_args=(wanted.lengths,)))


def test_a_length_beyond_the_steps_is_of_its_row_alone(ragged, tmp_path):
    data = deepshap.sequences(long_table(COUNT), "who", "day")
    lengths = np.where(np.arange(COUNT) == 4, models.STEPS + 1, data.lengths)
    found = explain_dataset(ragged, data.values, tmp_path, lengths=lengths, on_error="keep", progress=False)
    assert found.failed() == [
        (4, f"InputError: a row of {models.STEPS} steps cannot have {models.STEPS + 1} valid ones.")
    ]


def test_whole_numbers_of_a_table_are_numbers(explainer, tmp_path):
    x = np.arange(4 * COUNT).reshape(COUNT, 4) % 7
    found = explain_dataset(explainer, frame(x.astype("int8")), tmp_path, rows_per_part=5, progress=False)
    close(found[:], explainer(x.astype("float32")))


def test_lengths_in_a_column(ragged, tmp_path):
    wanted = deepshap.sequences(long_table(COUNT), "who", "day")
    flat = pd.DataFrame(wanted.values.reshape(COUNT, -1)).rename(columns=str)
    flat.assign(n=wanted.lengths).to_parquet(tmp_path / "x.parquet")
    options = {"shape": (models.STEPS, 2), "lengths": "n", "rows_per_part": 5, "progress": False}
    found = explain_dataset(ragged, tmp_path / "x.parquet", tmp_path / "out", **options)[:]
    close(found, ragged(wanted.values, additional_forward_args=(wanted.lengths,)))
    np.testing.assert_array_equal(found.lengths, wanted.lengths)


def test_a_model_that_reads_its_padding_is_refused_lengths(tmp_path):
    class Reads(models.Ragged):
        def forward(self, x, lengths):
            return self.head(self.lstm(x)[0][:, -1])

    x = np.random.default_rng(0).normal(size=(4, 10, 2)).astype(np.float32)
    explainer = deepshap.DeepExplainer(Reads(), x, progress=False)
    with pytest.raises(InputError, match="steps behind the lengths have attributions"):
        explain_dataset(explainer, x, tmp_path / "out", lengths=np.full(4, 9), progress=False)


def test_several_inputs_and_a_row_axis_of_their_own(tmp_path):
    class Two(torch.nn.Module):
        def forward(self, a, b):
            return torch.tanh(a.transpose(0, 1).sum((1, 2))) * b[:, 0]

    random = np.random.default_rng(0)
    a, b = (random.normal(size=(9, *shape)).astype(np.float32) for shape in ((3, 2), (2,)))
    explainer = deepshap.DeepExplainer(Two(), [np.moveaxis(a[:4], 0, 1), b[:4]], batch_axis=[1, 0], progress=False)
    wanted = explainer([np.moveaxis(a, 0, 1), b])
    found = explain_dataset(explainer, [a, b], tmp_path, rows_per_part=4, progress=False)[:]
    for mine, theirs in zip(found.values, wanted.values, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    np.testing.assert_array_equal(found[0].row_ids, np.arange(9))


def test_ranked_outputs_keep_their_names(explainer, tmp_path):
    wanted = explainer(rows(COUNT), ranked_outputs=1)
    found = explain_dataset(explainer, rows(COUNT), tmp_path, rows_per_part=5, ranked_outputs=1, progress=False)[:]
    close(found, wanted)
    np.testing.assert_array_equal(found.output_names, wanted.output_names)


def test_columns_in_another_order_are_put_in_order(tmp_path):
    explainer = deepshap.DeepExplainer(Table(), frame().iloc[:5], progress=False)
    frame()[list("bacd")].to_parquet(tmp_path / "x.parquet")
    close(explain_dataset(explainer, tmp_path / "x.parquet", tmp_path / "out", progress=False)[:], explainer(frame()))


def test_what_is_known_of_rows_goes_along(tmp_path):
    """True classes, inputs before scaling and predictions are those of one call."""
    x, raw = frame(ids=np.arange(COUNT) + 100), frame(ids=np.arange(COUNT) + 100) * 7 + 3
    true = np.array(["no", "yes"])[(x["a"] > 0).astype(int)]
    explainer = deepshap.DeepExplainer(Table(), x.iloc[:5], output_names=["no", "yes"], progress=False)
    wanted = explainer(x, target="true", targets=true)
    for name, table in (("x", x), ("raw", raw)):
        table.assign(truth=true, key=x.index).to_parquet(tmp_path / f"{name}.parquet", index=False, row_group_size=5)
    options = {"target": "true", "rows_per_part": 5, "progress": False}
    columns = {"id": "key", "targets": "truth", "raw": tmp_path / "raw.parquet"}
    of_files = explain_dataset(explainer, tmp_path / "x.parquet", tmp_path / "files", **columns, **options)[:]
    of_tables = explain_dataset(explainer, x, tmp_path / "tables", targets=true, raw=raw, **options)[:]
    for found in (of_files, of_tables):
        close(found, wanted)
        np.testing.assert_array_equal(found.targets, true)
        np.testing.assert_allclose(found.display_data, raw.to_numpy(), rtol=1e-6)
        assert (found.explained, found.classes) == (wanted.explained, ["no", "yes"])
        np.testing.assert_allclose(found.predictions, wanted.predictions, rtol=1e-6, atol=1e-6)
    page = explain_dataset(explainer, x, tmp_path / "tables", targets=true, raw=raw, **options)
    assert "confusion" in page.report(tmp_path / "why.html", rows=9).read_text(encoding="utf-8").lower()
    with pytest.raises(InputError, match="its ids are others"):
        explain_dataset(explainer, x, tmp_path / "ids", raw=raw.set_axis(raw.index + 1), **options, targets=true)
    turned = explain_dataset(explainer, x, tmp_path / "turned", raw=raw[list("bacd")], **options, targets=true)[:]
    np.testing.assert_array_equal(turned.display_data, of_tables.display_data)
    with pytest.raises(InputError, match="the columns of raw= must be those of the model: 'a' is missing"):
        explain_dataset(explainer, x, tmp_path / "columns", raw=raw.rename(columns={"a": "z"}), **options, targets=true)


def test_inverse_transforms_and_values_for_each_output(tmp_path):
    """What a scaler undoes is beside the input, also where a part holds nothing but failures; padding is cut off."""
    x, true = rows(COUNT), rows(COUNT, seed=5)[:, :2]
    x[10:15, 0] = 13
    explainer = deepshap.DeepExplainer(Picky(), rows(5, seed=1), inverse_transform=lambda z: z * 2, progress=False)
    options = {"on_error": "keep", "rows_per_part": 5, "progress": False}
    found = explain_dataset(explainer, x, tmp_path / "out", targets=true, **options)
    good = np.setdiff1d(np.arange(COUNT), np.arange(10, 15))
    np.testing.assert_array_equal(found[:].data, x[good])
    np.testing.assert_allclose(found[:].display_data, 2 * x[good])
    np.testing.assert_array_equal(found[:].targets, true[good])
    assert len({str(pq.read_schema(path).remove_metadata()) for path in found.paths}) == 1
    explainer.inverse_transform = lambda z: z * 3
    with pytest.raises(InputError, match="made otherwise: names"):
        explain_dataset(explainer, x, tmp_path / "out", targets=true, **options)


def test_raw_sequences_of_different_lengths(ragged, tmp_path):
    table = long_table(COUNT)
    raw = table.assign(pulse=table["pulse"] * 10, heat=table["heat"] + 40)
    table.to_parquet(tmp_path / "x.parquet")
    raw.to_parquet(tmp_path / "raw.parquet")
    options = {"id": "who", "time": "day", "lengths": True, "rows_per_part": 5, "progress": False}
    found = explain_dataset(ragged, tmp_path / "x.parquet", tmp_path / "o", raw=tmp_path / "raw.parquet", **options)[:]
    wanted = deepshap.sequences(raw, "who", "day")
    np.testing.assert_allclose(found.display_data, wanted.values, rtol=1e-6)
    with pytest.raises(InputError, match="players= sums over them"):
        explain_dataset(ragged, wanted, tmp_path / "p", raw=wanted, lengths=True, players="steps", progress=False)


@pytest.mark.parametrize("name", ["array", "Parquet"])
def test_some_rows_of_a_data_set(name, explainer, whole, tmp_path):
    data, options = SOURCES[name](tmp_path)
    options = {"rows_per_part": 4, "progress": False, **options}
    found = explain_dataset(explainer, data, tmp_path / "out", rows=(5, 14), **options)
    close(found[:], whole[5:14])
    np.testing.assert_array_equal(found[:].row_ids, np.arange(5, 14) + (100 if name == "Parquet" else 0))
    with pytest.raises(InputError, match=r"reading \(rows: \[5, 14\] then, \[5, 15\] now\)"):
        explain_dataset(explainer, data, tmp_path / "out", rows=(5, 15), **options)
    with pytest.raises(InputError, match="takes none of the 23 rows"):
        explain_dataset(explainer, data, tmp_path / "none", rows=(COUNT, COUNT + 1), **options)


# ---------------------------------------------------------------------- independent of the split
def test_rows_do_not_depend_on_parts_order_or_batch_mates(explainer, ragged, tmp_path):
    x, order = rows(COUNT), np.random.default_rng(0).permutation(COUNT)
    found = [
        explain_dataset(explainer, x, tmp_path / f"{size}", rows_per_part=size, progress=False)[:]
        for size in (1, 7, COUNT)
    ]
    found.append(explain_dataset(explainer, x[order], tmp_path / "order", rows_per_part=6, progress=False)[:])
    found[-1] = found[-1][np.argsort(order)]
    for other in found[1:]:
        np.testing.assert_allclose(other.values, found[0].values, rtol=1e-5, atol=1e-6)
    again = explain_dataset(explainer, x, tmp_path / "again", rows_per_part=7, progress=False)[:]
    equal(again, found[1])


DIAL = {
    "paths": {"effort": 9, "seed": 5},
    "a tolerance": {"tolerance": 0.05, "max_effort": 20},
    "players": {"players": {"ab": [0, 1], "cd": [2, 3]}, "effort": 20},
}


@pytest.mark.parametrize("name", DIAL)
def test_estimates_do_not_depend_on_the_split_either(name, explainer, tmp_path):
    x, order = rows(COUNT), np.random.default_rng(0).permutation(COUNT)
    wanted = explainer(x, **DIAL[name])
    options = {"progress": False, **DIAL[name]}
    one = explain_dataset(explainer, x, tmp_path / "one", rows_per_part=7, **options)[:]
    other = explain_dataset(explainer, x[order], tmp_path / "other", rows_per_part=5, **options)[:][np.argsort(order)]
    for found in (one, other):
        np.testing.assert_allclose(found.values, wanted.values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.standard_errors, wanted.standard_errors, rtol=1e-3, atol=1e-6)
        assert found.players == wanted.players
        assert found.feature_names == wanted.feature_names
    if name == "a tolerance":
        np.testing.assert_array_equal(one.converged, wanted.converged)
    with pytest.raises(InputError, match="made otherwise: options"):
        explain_dataset(explainer, x, tmp_path / "one", rows_per_part=7, **{**options, "seed": 6})


def test_values_of_steps_as_players(ragged, tmp_path):
    """They do not belong to steps of the input any more: nothing is cut off behind a row's length."""
    table = deepshap.sequences(long_table(7), "who", "day")
    options = {"players": "steps", "effort": 20, "seed": 2}
    wanted = ragged(table, additional_forward_args=(table.lengths,), **options)
    found = explain_dataset(ragged, table, tmp_path, lengths=True, rows_per_part=3, progress=False, **options)[:]
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-5, atol=1e-6)
    assert found.feature_names == wanted.feature_names


def test_rows_of_like_length_are_explained_together(ragged, tmp_path, monkeypatch):
    """Their padding depends on their own length alone, and their order is restored."""
    from deepshap.dataset.row_explainer import RowExplainer, padded_length

    shapes = []
    explained = RowExplainer._explain
    monkeypatch.setattr(
        RowExplainer, "_explain", lambda self, batch: shapes.append(batch.lengths) or explained(self, batch)
    )
    table = deepshap.sequences(long_table(COUNT), "who", "day")
    explain_dataset(ragged, table, tmp_path / "out", lengths=True, rows_per_part=COUNT, progress=False)
    assert len(shapes) == len({padded_length(int(n), models.STEPS) for n in table.lengths}) > 1
    for lengths in shapes:
        assert len({padded_length(int(n), models.STEPS) for n in lengths}) == 1
    assert [padded_length(n, 1000) for n in (1, 5, 100)] == sorted(padded_length(n, 1000) for n in (1, 5, 100))
    assert all(n <= padded_length(n, 1000) <= max(n + 1, 1.25 * n) for n in range(1, 500))


# ---------------------------------------------------------------------- going on
def test_a_run_goes_on_with_what_is_missing(explainer, whole, tmp_path):
    first = explain_dataset(explainer, rows(COUNT), tmp_path, rows_per_part=5, progress=False)
    kept = {path.name: path.stat().st_mtime_ns for path in first.paths}
    for path in (first.paths[1], first.paths[4]):
        path.unlink()
    assert deepshap.status(tmp_path).parts_done == 3
    assert not deepshap.status(tmp_path).is_complete
    again = explain_dataset(explainer, rows(COUNT), tmp_path, rows_per_part=5, progress=False)
    close(again[:], whole)
    assert again.statistics["resumed_parts"] == 3
    assert again.statistics["rows"] == COUNT
    assert {path.name for path in again.paths} == set(kept)  # names hold digests of contents
    same = [path for path in again.paths if path.stat().st_mtime_ns == kept[path.name]]
    assert len(same) == 3
    options = {"rows_per_part": 5, "progress": False, "workers": 2, "ray": "ray://nowhere:1"}
    complete = explain_dataset(
        explainer, rows(COUNT), tmp_path, **options
    )  # nobody is started who would have nothing to do
    assert complete.statistics["resumed_parts"] == 5


def changed_weight(explainer):
    with torch.no_grad():
        explainer.engine.model.net[0].weight[0, 0] += 1e-3


CHANGES = {
    "model": lambda e, x, o: changed_weight(e),
    "background": lambda e, x, o: e._background.inputs[0].add_(1e-3),
    "data": lambda e, x, o: x.__setitem__((3, 2), 0.5),
    "rows_per_part": lambda e, x, o: o.update(rows_per_part=6),
    "options": lambda e, x, o: o.update(ranked_outputs=1),
    "names": lambda e, x, o: setattr(e, "output_names", ["a", "b"]),
    "rules": lambda e, x, o: deepshap.register_rule(torch.special.bessel_j1, "elementwise"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_fingerprint_is_refused_and_says_what_differs(what, tmp_path):
    explainer, x, options = table_explainer(), rows(COUNT), {"rows_per_part": 5, "progress": False}
    explain_dataset(explainer, x, tmp_path, **options)
    before = sorted(path.name for path in tmp_path.iterdir())
    CHANGES[what](explainer, x, options)
    try:
        with pytest.raises(InputError, match=rf"made otherwise: {what}\b"):
            explain_dataset(explainer, x, tmp_path, **options)
    finally:
        if what == "rules":
            deepshap.unregister_rule(torch.special.bessel_j1)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_differs_is_said_in_words(tmp_path):
    options = {"progress": False, "targets": np.zeros(COUNT, int)}
    explain_dataset(table_explainer(), rows(COUNT), tmp_path, **options)
    with pytest.raises(InputError, match=r"otherwise: reading \(targets: others now\)\. "):
        explain_dataset(table_explainer(), rows(COUNT), tmp_path, progress=False, targets=np.ones(COUNT, int))
    with pytest.raises(InputError, match=r"reading \(targets: an array, a long list or a function then, None now\)\. "):
        explain_dataset(table_explainer(), rows(COUNT), tmp_path, progress=False)


@pytest.mark.parametrize("kind", ["array", "Parquet", "Parquet of no types", "long table"])
def test_data_without_rows_make_a_complete_folder(kind, explainer, ragged, tmp_path):
    """With one part, which has no lines but the columns of any other."""
    none, options = frame(rows(0)), {"progress": False}
    if kind == "array":
        data, some = rows(0), rows(4)
    elif kind == "long table":
        explainer, options = ragged, {**options, "id": "who", "time": "day", "lengths": True}
        data, some = tmp_path / "none.parquet", tmp_path / "some.parquet"
        table = pa.Table.from_pandas(long_table(4))
        pq.write_table(table, some)
        pq.write_table(table.slice(0, 0), data)
    else:
        data, some = tmp_path / "none.parquet", tmp_path / "some.parquet"
        (none if kind == "Parquet" else pd.DataFrame(columns=list("abcd"))).to_parquet(data, index=False)
        frame().to_parquet(some, index=False)
    found = explain_dataset(explainer, data, tmp_path / "none", **options)
    assert found.is_complete
    assert deepshap.status(tmp_path / "none").is_complete
    assert (len(found), found.failed(), found.statistics["rows"], found.statistics["parts"]) == (0, [], 0, 1)
    wanted = explain_dataset(explainer, some, tmp_path / "some", **options).parquet().schema
    given = found.parquet().schema
    assert given.names == wanted.names
    if kind != "Parquet of no types":
        assert given.equals(wanted)
    with pytest.raises(InputError, match="holds no rows that could be explained"):
        found[:]
    assert explain_dataset(explainer, data, tmp_path / "none", **options).statistics["resumed_parts"] == 1


def test_a_folder_without_parts_takes_another_fingerprint(explainer, whole, tmp_path):
    for path in explain_dataset(table_explainer(seed=9), rows(COUNT), tmp_path, progress=False).paths:
        path.unlink()
    close(explain_dataset(explainer, rows(COUNT), tmp_path, progress=False)[:], whole)
    close(deepshap.load(tmp_path)[:], whole)


def test_parts_do_not_go_where_data_are_looked_for(explainer, tmp_path):
    data, _ = as_folder(tmp_path)
    before = sorted(data.rglob("*"))
    for folder in (data, data / "out", data / ".." / "rows"):
        for named in (data, [data]):
            with pytest.raises(InputError, match="a folder of its own"):
                explain_dataset(explainer, named, folder, progress=False)
    assert sorted(data.rglob("*")) == before


def test_another_version_is_refused(explainer, tmp_path, monkeypatch):
    explain_dataset(explainer, rows(COUNT), tmp_path, progress=False)
    monkeypatch.setattr(deepshap, "__version__", "0.0.1")
    with pytest.raises(InputError, match=r"versions \(deepshap: .* then, 0.0.1 now\)"):
        explain_dataset(explainer, rows(COUNT), tmp_path, progress=False)


def test_two_runs_on_one_folder(explainer, tmp_path, monkeypatch):
    written = run.write_part

    def write(*arguments):
        assert deepshap.status(tmp_path).running
        with pytest.raises(InputError, match="another run is writing"):
            explain_dataset(explainer, rows(4), tmp_path, progress=False)
        return written(*arguments)

    monkeypatch.setattr(run, "write_part", write)
    assert len(explain_dataset(explainer, rows(8), tmp_path, rows_per_part=4, progress=False)) == 8
    assert not deepshap.status(tmp_path).running


# ---------------------------------------------------------------------- damage
def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flipped, emptied])
def test_damaged_parts_are_noticed_and_made_anew(damage, explainer, tmp_path):
    first = explain_dataset(explainer, rows(COUNT), tmp_path, rows_per_part=5, progress=False)
    wanted = first[:]
    damage(first.paths[2])
    state = deepshap.status(tmp_path)
    assert (state.parts_done, state.damaged_parts, state.is_complete) == (4, 1, False)
    with pytest.raises(InputError, match="damaged: start the run again"):
        deepshap.load(tmp_path)[:]
    again = explain_dataset(explainer, rows(COUNT), tmp_path, rows_per_part=5, progress=False)
    assert again.statistics["damaged_parts"] == 1
    equal(again[:], wanted)


def test_parts_of_two_runs_are_refused(explainer, tmp_path):
    for seed, name in ((2, "a"), (9, "b")):
        explain_dataset(explainer, rows(COUNT, seed=seed), tmp_path / name, rows_per_part=5, progress=False)
    first, other = (sorted((tmp_path / name).iterdir()) for name in "ab")
    first[1].unlink()
    other[1].rename(tmp_path / "a" / other[1].name)
    with pytest.raises(InputError, match="of another run than part-0000000"):
        deepshap.load(tmp_path / "a")
    with pytest.raises(InputError, match="made otherwise: data"):
        explain_dataset(explainer, rows(COUNT), tmp_path / "a", rows_per_part=5, progress=False)


def test_a_part_twice_is_refused(explainer, tmp_path):
    found = explain_dataset(explainer, rows(COUNT), tmp_path, rows_per_part=5, progress=False)
    name = found.paths[0].name
    (tmp_path / name.replace(name.split("-")[2][:4], "0000")).write_bytes(found.paths[0].read_bytes())
    with pytest.raises(InputError, match="are the same part"):
        explain_dataset(explainer, rows(COUNT), tmp_path, rows_per_part=5, progress=False)


# ---------------------------------------------------------------------- rows that fail
def picky_rows():
    x = rows(COUNT)
    x[[4, 11], 0] = 13
    x[12, 0] = 17
    return x


def test_rows_that_fail_are_kept_with_their_errors(tmp_path):
    explainer = table_explainer(Picky())
    options = {"rows_per_part": 5, "progress": False}
    with pytest.raises(deepshap.DeepShapError, match=r"row 4 \(part 0\) .* ValueError: thirteen"):
        explain_dataset(explainer, picky_rows(), tmp_path, **options)
    found = explain_dataset(explainer, picky_rows(), tmp_path, on_error="keep", **options)
    good = np.setdiff1d(np.arange(COUNT), [4, 11, 12])
    close(found[:], explainer(picky_rows()[good]))
    np.testing.assert_array_equal(found[:].row_ids, good)
    assert found.statistics["errors"] == found.errors == {"ValueError": 2, "NonFiniteError": 1}
    assert found.statistics["rows"] == COUNT
    assert [row for row, _ in found.failed()] == [4, 11, 12]
    assert found.failed()[0][1] == "ValueError: thirteen"
    lines = found.parquet().to_table().to_pandas()
    bad = lines[lines["error"].notna()]
    assert bad["row"].tolist() == [4, 11, 12]
    assert bad.drop(columns=["row", "error"]).isna().all(axis=None)


def test_a_missing_value_in_a_long_table_is_of_its_row_alone(ragged, tmp_path):
    table = long_table(COUNT)
    table.loc[table["who"] == "id-00007", "heat"] = np.nan
    table.to_parquet(tmp_path / "long.parquet", row_group_size=7)
    options = {"id": "who", "time": "day", "lengths": True, "rows_per_part": 5, "progress": False}
    with pytest.raises(InputError, match=r"row id-00007 \(part 1\) cannot be explained: .*NaN"):
        explain_dataset(ragged, tmp_path / "long.parquet", tmp_path / "out", **options)
    found = explain_dataset(ragged, tmp_path / "long.parquet", tmp_path / "out", on_error="keep", **options)
    why = "InputError: X has NaN or infinite values in column 'heat'. Fill or drop them before explaining."
    assert found.failed() == [("id-00007", why)]
    assert len(found) == COUNT - 1


def test_a_part_of_nothing_but_failures(tmp_path):
    x = rows(8)
    x[:4, 0] = 13
    found = explain_dataset(table_explainer(Picky()), x, tmp_path, rows_per_part=4, on_error="keep", progress=False)
    assert found.errors == {"ValueError": 4}
    np.testing.assert_array_equal(found[:].row_ids, np.arange(4, 8))
    lines = found.parquet().to_table().to_pandas()
    assert lines["row"].nunique() == 8
    assert len({str(pq.read_schema(path).remove_metadata()) for path in found.paths}) == 1


def test_what_no_row_is_to_blame_for_ends_the_run(tmp_path):
    class Unknown(Table):
        def forward(self, x):
            return torch.special.bessel_j1(super().forward(x))

    with pytest.raises(deepshap.UnsupportedOperationError):
        explain_dataset(table_explainer(Unknown()), rows(COUNT), tmp_path, on_error="keep", progress=False)
    assert deepshap.status(tmp_path).parts_done == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"target": 7}, "no output 7 among 2"),
        ({"ranked_outputs": 3}, "ranked_outputs must be between 1 and the number of outputs, 2"),
        ({"players": np.zeros(5, int)}, "players"),
        ({"target": "true"}, "needs targets="),
        ({"lengths": np.full(COUNT, 3)}, "lengths|argument"),
    ],
)
def test_options_that_fit_no_row_are_errors_of_the_call(options, match, tmp_path):
    with pytest.raises(InputError, match=match) as raised:
        explain_dataset(table_explainer(), rows(COUNT), tmp_path, on_error="keep", progress=False, **options)
    assert "row 0" not in str(raised.value)
    assert deepshap.status(tmp_path).parts_done == 0


def test_a_wrong_class_is_of_its_row_alone(explainer, tmp_path):
    targets = np.arange(COUNT) % 2
    targets[7] = 5
    options = {"target": "true", "targets": targets, "rows_per_part": 5, "progress": False}
    found = explain_dataset(explainer, rows(COUNT), tmp_path, on_error="keep", **options)
    assert [row for row, _ in found.failed()] == [7]


def test_lengths_that_a_row_cannot_have_stop_no_run_of_others(ragged, tmp_path):
    """Options are tried on a row of the background, which has the lengths' argument too."""
    data = np.random.default_rng(0).normal(size=(3, models.STEPS, 2)).astype(np.float32)
    data[1, 0, 0] = np.nan
    options = {"lengths": np.full(3, 4), "on_error": "keep", "progress": False}
    assert [row for row, _ in explain_dataset(ragged, data, tmp_path, **options).failed()] == [1]


def test_an_interrupt_leaves_a_folder_that_goes_on(explainer, whole, tmp_path, monkeypatch):
    written = run.write_part

    def write(folder, number, content):
        if number == 2:
            raise KeyboardInterrupt
        return written(folder, number, content)

    monkeypatch.setattr(run, "write_part", write)
    with pytest.raises(KeyboardInterrupt, match="2 of 5 parts are in"):
        explain_dataset(explainer, rows(COUNT), tmp_path, rows_per_part=5)
    monkeypatch.undo()
    found = explain_dataset(explainer, rows(COUNT), tmp_path, rows_per_part=5, progress=False)
    assert found.statistics["resumed_parts"] == 2
    close(found[:], whole)


# ---------------------------------------------------------------------- reading
def test_parts_do_not_tell_what_their_process_has_done_before(tmp_path, monkeypatch):
    """The name of a part is that of its content."""
    data = tmp_path / "long.parquet"
    long_table(12).to_parquet(data)

    def go(name):
        options = {"id": "who", "time": "day", "lengths": True, "rows_per_part": 3, "progress": False}
        found = explain_dataset(ragged_explainer(), data, tmp_path / name, **options)
        return [path.name for path in found.paths]

    found = go("early")
    monkeypatch.setattr(fused.THRESHOLD, "work", dict.fromkeys(fused.THRESHOLD.work, 10**9))
    assert found == go("late")


def test_any_rows_are_read_and_a_report_says_that_it_is_a_sample(explainer, tmp_path):
    explain_dataset(explainer, rows(COUNT), tmp_path / "out", rows_per_part=5, progress=False)
    found = deepshap.load(tmp_path / "out")
    whole = found[:]
    assert len(found) == COUNT
    for rows_ in (slice(3, 17, 2), [20, 0, 7, 7], np.array([22])):
        equal(found[rows_], whole[rows_])
    np.testing.assert_array_equal(found[-1].values, whole[-1].values)
    np.testing.assert_array_equal(np.concatenate([part.values for part in found.parts()]), whole.values)
    with pytest.raises(IndexError):
        found[COUNT]
    sample = found.sample(6, seed=1)
    assert len(set(sample.row_ids)) == 6
    equal(sample, whole[sample.row_ids])
    page = found.report(tmp_path / "report.html", rows=6).read_text(encoding="utf-8")
    assert f"a sample of 6 of {COUNT} rows" in page


COLUMNS = ["row", "feature", "output", "value", "attribution", "base_value", "model_output", "gap", "error"]


@pytest.mark.parametrize("kind", ["rows", "sequences"])
def test_any_reader_of_parquet_reads_the_folder(kind, explainer, ragged, tmp_path):
    """pandas, polars and pyarrow see one long table, a line per value, and a line for each row that failed."""
    import polars

    if kind == "rows":
        found = explain_dataset(explainer, frame(), tmp_path / "out", rows_per_part=5, progress=False)
        columns, lines = COLUMNS, COUNT * 4 * 2
    else:
        table = deepshap.sequences(long_table(COUNT), "who", "day")
        table.values[4, 0, 0] = np.nan
        options = {"lengths": True, "on_error": "keep", "rows_per_part": 5, "progress": False}
        found = explain_dataset(ragged, table, tmp_path / "out", **options)
        columns, lines = [*COLUMNS[:1], "step", *COLUMNS[1:]], (table.lengths.sum() - table.lengths[4]) * 2 * 3 + 1
    whole = found[:].to_dataframe()
    for read in (pd.read_parquet, lambda p: polars.read_parquet(p).to_pandas(), lambda p: pq.read_table(p).to_pandas()):
        given = read(tmp_path / "out")
        assert list(given) == columns
        assert len(given) == lines
        good = given[given["error"].isna()]
        np.testing.assert_array_equal(good["attribution"], whole["attribution"])
        np.testing.assert_array_equal(good["row"].astype(str), whole["row"].astype(str))
        sums = good.groupby(["row", "output"], observed=True, sort=False)
        first = sums[["base_value", "model_output"]].first()
        np.testing.assert_allclose(
            sums["attribution"].sum(), first["model_output"] - first["base_value"], rtol=1e-4, atol=1e-5
        )
    one = deepshap.load(found.paths[0])  # a part is a file of Explanation.save
    np.testing.assert_array_equal(one.values, next(found.parts()).values)


def test_wrong_calls(explainer, tmp_path):
    for options, match in (
        ({"rows_per_part": 0}, "rows_per_part"),
        ({"workers": 0}, "workers"),
        ({"on_error": "ignore"}, "on_error"),
        ({"additional_forward_args": (1,)}, "cannot be cut"),
        ({"id": "key"}, "name columns of tables"),
        ({"lengths": [1, 2]}, "lengths has shape"),
        ({"shape": (3,)}, "cannot have the shape"),
        ({"targets": [1, 2]}, "targets has shape"),
        ({"raw": rows(COUNT + 1)}, "must have the rows"),
        ({"efort": 3, "on_error": "keep"}, "there is no option efort="),
        ({"max_effort": 8, "on_error": "keep"}, "max_effort= is the most effort for tolerance="),
    ):
        with pytest.raises(InputError, match=match):
            explain_dataset(explainer, rows(COUNT), tmp_path / "out", progress=False, **options)
    for name, array in {"x": rows(COUNT), "objects": np.array([{}])}.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "empty").mkdir()
    x = tmp_path / "x.npy"
    for data, match in (
        (tmp_path / "none.npy", "no file"),
        (tmp_path / "empty", "no Parquet files"),
        (tmp_path / "objects.npy", "no array that can be read"),
        ([x, x], r"give a list of np\.load"),
        ([x, tmp_path / "x.npz"], "no file"),
        ([rows(COUNT), rows(COUNT - 1)], f"the inputs have {COUNT}, {COUNT - 1} rows"),
        (3, "a int is no data set"),
        (iter([rows(4)]), "is no data set: .* Put batches together first"),
    ):
        with pytest.raises(InputError, match=match):
            explain_dataset(explainer, data, tmp_path / "out", progress=False)
    with pytest.raises(InputError, match="is no folder of explanations: explain_dataset has not written a part"):
        deepshap.load(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        deepshap.status(tmp_path / "none")
    with pytest.raises(InputError, match="is a file: name the folder"):
        deepshap.status(x)
    assert json.dumps(explain_dataset(explainer, rows(3), tmp_path / "out", progress=False).statistics)


def test_progress_without_a_terminal_is_a_line_now_and_then(explainer, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "EVERY", 0.0)
    explain_dataset(explainer, rows(COUNT), tmp_path / "a", rows_per_part=10)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(rf"deepshap: 10 of {COUNT} rows, [\d.e+]+ rows/s, \d+ s left", lines[0])
    x = rows(COUNT)
    x[0, 0] = 13
    explain_dataset(table_explainer(Picky()), x[:20], tmp_path / "b", rows_per_part=10, on_error="keep")
    assert capsys.readouterr().err.splitlines()[1].endswith("rows/s, 0 s left, 1 could not be explained")
    explain_dataset(explainer, rows(COUNT), tmp_path / "c", rows_per_part=10, progress=False)
    assert capsys.readouterr().err == ""


def test_times_as_people_say_them():
    said = ["0 s", "0.4 s", "9.5 s", "12 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "2 h 1 min"]
    assert [duration(s) for s in (0, 0.4, 9.46, 12.3, 59.6, 3599, 3600, 7265)] == said
