"""Tables and xarray as inputs: values go where dimensions and columns say, and errors name the column."""

from __future__ import annotations

import itertools
from datetime import date, datetime

import cli_models
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import xarray

import deepshap
from deepshap import InputError, explain_dataset
from deepshap.forecasting import explain_forecast

VALUES = np.random.default_rng(0).normal(size=(3, 3, 3)).astype("f4")
IDS, TIMES, NAMES = ["x", "y", "z"], [10, 20, 30], ["a", "b", "c"]


def linear(*weights):
    return lambda x: x @ torch.tensor([*weights], dtype=x.dtype).reshape(-1, 1)


def summed(x):
    """A model of (rows, steps, features) that weights steps and features, so that no two axes can be taken for each other."""
    steps = torch.tensor([1.0, 10.0, 100.0], dtype=x.dtype)
    return (x * steps[:, None] * torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype)).sum((1, 2))[:, None]


WANTED = (VALUES * np.array([1.0, 10, 100])[:, None] * np.array([1.0, 2, 3])).sum((1, 2))


# ---------------------------------------------------------------------- xarray
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize(
    "dims",
    [
        ("sample", "time", "feature"),
        ("batch", "step", "channel"),
        ("Samples", "Timesteps", "Variables"),
        ("station", "hour", "feature"),
        ("row", "lead", "variable"),
        ("case", "date", "quantity"),
    ],
)
def test_dimensions_lie_as_their_names_say(dims, order):
    data = xarray.DataArray(VALUES, dict(zip(dims, (IDS, TIMES, NAMES), strict=True)), dims)
    explainer = deepshap.DeepExplainer(summed, np.zeros((1, 3, 3), "f4"), feature_names=NAMES, progress=False)
    found = explainer(data.transpose(*(dims[i] for i in order)))
    np.testing.assert_array_equal(found.data, VALUES)
    np.testing.assert_allclose(found.outputs[:, 0], WANTED, rtol=1e-5)
    assert (found.row_ids.tolist(), found.step_labels.tolist(), found.feature_names) == (IDS, TIMES, NAMES)
    assert found.time_label == (None if dims[1] == "step" else dims[1])
    background = deepshap.DeepExplainer(summed, data.transpose(*(dims[i] for i in order)), progress=False)
    np.testing.assert_allclose(background.expected_value, WANTED.mean(), rtol=1e-4)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_dataset_lies_as_its_dimensions_are_named(order, mixed):
    dims = ("station", "time")
    turned = {name: (dims, VALUES[..., i]) for i, name in enumerate(NAMES)}
    data = xarray.Dataset(turned, {"station": IDS, "time": TIMES})
    data = data.transpose(*(dims[i] for i in order))
    data = data.assign(b=data["b"].transpose()) if mixed else data
    explainer = deepshap.DeepExplainer(summed, np.zeros((1, 3, 3), "f4"), feature_names=NAMES, progress=False)
    found = explainer(data)
    np.testing.assert_array_equal(found.data, VALUES)
    assert (found.row_ids.tolist(), found.step_labels.tolist(), found.time_label) == (IDS, TIMES, "time")


def test_a_coordinate_of_dates_or_of_the_models_features_tells_too():
    coordinates = {"x": NAMES, "y": pd.date_range("2024-01-01", periods=3), "z": IDS}
    data = xarray.DataArray(VALUES.transpose(2, 1, 0), coordinates, ("x", "y", "z"))
    explainer = deepshap.DeepExplainer(summed, np.zeros((1, 3, 3), "f4"), feature_names=NAMES, progress=False)
    found = explainer(data)
    np.testing.assert_array_equal(found.data, VALUES)
    assert (found.row_ids.tolist(), found.time_label) == (IDS, "y")


def test_dimensions_without_a_meaning_lie_as_the_axes_of_arrays_do():
    explainer = deepshap.DeepExplainer(summed, np.zeros((1, 3, 3), "f4"), progress=False)
    for dims in (("p", "q", "r"), ("dim_0", "dim_1", "dim_2"), ("station", "time", "quantity")):
        np.testing.assert_array_equal(explainer(xarray.DataArray(VALUES, dims=dims)).data, VALUES)


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        (("time", "station", "quantity"), (3, 3, 3)),
        (("feature", "day", "hour"), (3, 3, 3)),
        (("p", "feature", "q"), (3, 3, 3)),
        (("time", "station"), (3, 3)),
        (("hour", "p"), (3, 3)),
    ],
)
@pytest.mark.parametrize("what", ["X", "the background"])
def test_dimensions_that_leave_the_rows_open_are_refused(dims, shape, what):
    data, model = xarray.DataArray(np.ones(shape, "f4"), dims=dims), lambda x: x.flatten(1).sum(1, keepdim=True)
    background = deepshap.DeepExplainer(model, np.ones((1, *shape[1:]), "f4"), progress=False)
    read = background if what == "X" else lambda data: deepshap.DeepExplainer(model, data)
    message = rf"{what} has the dimensions {', '.join(dims)}, and which .* rows is not clear"
    with pytest.raises(InputError, match=message):
        read(data)


def test_times_may_be_the_rows():
    data = xarray.DataArray(VALUES[0], {"time": TIMES, "feature": NAMES}, ("time", "feature"))
    explainer = deepshap.DeepExplainer(linear(1.0, 10.0, 100.0), np.zeros((1, 3), "f4"), feature_names=NAMES)
    for turned in (data, data.T):
        found = explainer(turned)
        np.testing.assert_array_equal(found.data, VALUES[0])
        assert (found.row_ids.tolist(), found.feature_names) == (TIMES, NAMES)


def test_samples_behind_the_features_are_the_rows():
    data = xarray.DataArray(VALUES[0].T, {"quantity": NAMES, "sample": IDS}, ("quantity", "sample"))
    explainer = deepshap.DeepExplainer(linear(1.0, 10.0, 100.0), np.zeros((1, 3), "f4"))
    found = explainer(data)
    np.testing.assert_array_equal(found.data, VALUES[0])
    assert (found.row_ids.tolist(), found.feature_names) == (IDS, NAMES)


def test_rows_of_images_are_found_by_name():
    pixels = np.random.default_rng(1).normal(size=(2, 3, 4, 5)).astype("f4")
    explainer = deepshap.DeepExplainer(lambda x: x.sum((2, 3)), np.zeros((1, 3, 4, 5), "f4"), progress=False)
    data = xarray.DataArray(pixels, dims=("sample", "channel", "y", "x"))
    for turned in (data, data.transpose("channel", "y", "x", "sample")):
        np.testing.assert_array_equal(explainer(turned).data, pixels)


@pytest.mark.parametrize("kind", ["DataArray", "Dataset", "without names"])
def test_arrays_of_xarray_are_data_sets(kind, tmp_path):
    values = np.random.default_rng(2).normal(size=(4, 3, 3)).astype("f4")
    dims, coordinates = ("sample", "time", "feature"), {"sample": list("wxyz"), "time": TIMES, "feature": NAMES}
    data = xarray.DataArray(values, coordinates, dims).transpose("time", "feature", "sample")
    if kind == "Dataset":
        data = xarray.Dataset({name: data.sel(feature=name, drop=True) for name in NAMES})
    if kind == "without names":
        data = data.drop_vars(["sample", "feature"])
    explainer = deepshap.DeepExplainer(summed, np.zeros((1, 3, 3), "f4"), progress=False)
    found = explain_dataset(explainer, data, tmp_path / "out", rows_per_part=3, progress=False)[:]
    np.testing.assert_array_equal(found.data, values)
    assert found.step_labels.tolist() == TIMES
    if kind != "without names":
        assert (found.row_ids.tolist(), found.feature_names) == (list("wxyz"), NAMES)


@pytest.mark.parametrize("kind", [list, dict])
def test_several_tables_are_a_data_set(kind, tmp_path):
    first = pd.DataFrame(VALUES[0], columns=NAMES)
    second = pd.DataFrame(VALUES[1][:, :2], columns=["u", "v"])
    together = {dict: {"p": first, "q": second}, list: [first, second]}[kind]
    turned = {
        dict: {"p": first[["c", "b", "a"]], "q": second[["v", "u"]]},
        list: [first[["c", "b", "a"]], second[["v", "u"]]],
    }
    weights = torch.tensor([[1.0], [10], [100]])
    models = {dict: lambda x: x["p"] @ weights + x["q"][:, :1], list: lambda p, q: p @ weights + q[:, :1]}
    explainer = deepshap.DeepExplainer(models[kind], together, progress=False)
    found = explain_dataset(explainer, turned[kind], tmp_path / "out", progress=False)[:]
    for part, table in zip(dict(found.items()).values(), (first, second), strict=True):
        assert part.feature_names == list(table.columns)
        np.testing.assert_array_equal(part.data, table)


# ---------------------------------------------------------------------- errors that name the column
FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize(
    "column",
    [
        pd.array([True, None, False], "boolean"),
        pd.array([1, None, 2], "Int64"),
        pd.Series([True, None, False], dtype=object),
        [1.0, np.nan, 2.0],
        [1.0, -np.inf, 2.0],
    ],
)
@pytest.mark.parametrize("polars", [False, True])
def test_a_missing_value_is_said_with_its_column(column, polars, tmp_path):
    frame = FRAME.assign(b=column)
    given = pl.from_pandas(frame) if polars else frame
    explainer = deepshap.DeepExplainer(linear(1.0, 2.0), np.zeros((1, 2)), progress=False)
    with pytest.raises(InputError, match=r"X has NaN or infinite values, first in row 1, column 'b'"):
        explainer(given)
    with pytest.raises(InputError, match=r"background has NaN or infinite values, first in row 1, column 'b'"):
        deepshap.DeepExplainer(linear(1.0, 2.0), given)
    with pytest.raises(InputError, match=r"row 1 .* X has NaN or infinite values in column 'b'"):
        explain_dataset(explainer, given, tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([1, 2, "x"], r"\(int, str\), the first of another kind is 'x' in row 3"),
        ([1.5, "2.5", None], r"\(float, str\), the first of another kind is '2.5' in row 2"),
        (["x", 1, 2], r"\(str, int\), the first of another kind is 'x' in row 1"),
        ([None, 3, b"y"], r"\(int, bytes\), the first of another kind is b'y' in row 3"),
        ([True, "yes", False], r"\(bool, str\), the first of another kind is 'yes' in row 2"),
    ],
)
def test_a_column_of_several_kinds_is_said_with_its_first_cell(cells, message):
    frame = FRAME.assign(b=pd.Series(cells, dtype=object))
    explainer = deepshap.DeepExplainer(linear(1.0, 2.0), np.zeros((1, 2)), progress=False)
    for read in (explainer, lambda frame: deepshap.sequences(frame.assign(who=1), "who")):
        with pytest.raises(InputError, match=rf"column 'b' holds values of several kinds {message}"):
            read(frame)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([date(2024, 1, 1), datetime(2024, 1, 2, 5)], r"\(date, datetime\), .* 5, 0\) in row 2"),
        ([datetime(2024, 1, 1, 5), date(2024, 1, 2)], r"\(datetime, date\), .* 1, 2\) in row 2"),
        (
            [datetime(2024, 1, 1), pd.Timestamp("2024-01-02", tz="Asia/Tokyo")],
            r"\(datetime, datetime with a time zone\)",
        ),
        ([pd.Timestamp("2024-01-02", tz="Asia/Tokyo"), None, datetime(2024, 1, 1)], r"in row 3"),
    ],
)
def test_times_of_several_kinds_are_refused(times, message):
    """pyarrow reads them as one kind, and drops the hours of some or the time zones of others."""
    frame = pd.DataFrame({"who": 1, "when": pd.Series(times, dtype=object), "b": 1.0})
    with pytest.raises(InputError, match=rf"column 'when' holds values of several kinds .*{message}"):
        deepshap.sequences(frame, "who", "when")


def test_times_of_one_kind_in_objects_are_read():
    times = [datetime(2024, 1, 2, 5), pd.Timestamp("2024-01-01 07:00")]
    frame = pd.DataFrame({"who": 1, "when": pd.Series(times, dtype=object), "b": [2.0, 1.0]})
    read = deepshap.sequences(frame, "who", "when")
    assert read.step_labels.tolist() == [datetime(2024, 1, 1, 7), datetime(2024, 1, 2, 5)]
    assert read.values.ravel().tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [(pd.arrays.SparseArray([0.0, 2.0]), "Sparse"), ([1j, 2j], "complex128 with values of type complex")],
)
def test_a_dtype_that_cannot_be_read_is_named(cells, dtype):
    frame = pd.DataFrame({"who": 1, "b": cells})
    with pytest.raises(InputError, match=rf"column 'b' is of dtype {dtype}.*: convert it to numbers"):
        deepshap.sequences(frame, "who")


def test_texts_in_views_are_read(tmp_path):
    """A ``string_view`` of pyarrow has few functions of its own."""
    texts = {"who": ["x", "x", "y"], "when": ["2024-01-02", "2024-01-01", "2024-01-01"]}
    views = {name: pa.array(column, pa.string_view()) for name, column in texts.items()}
    table = pa.table(views | {"a": [2.0, 1.0, 3.0]})
    pq.write_table(table, tmp_path / "x.parquet")
    for source in (table, tmp_path / "x.parquet"):
        read = deepshap.sequences(source, "who", "when")
        assert (read.row_ids.tolist(), read.lengths.tolist()) == (["x", "y"], [2, 1])
        assert read.values[..., 0].tolist() == [[1.0, 2.0], [3.0, 0.0]]


@pytest.mark.parametrize("index", [[1.0, None], [("x", 1), ("y", None)], ["x", np.nan]])
def test_a_missing_id_in_an_index_is_refused(index):
    tuples = isinstance(index[0], tuple)
    frame = FRAME[:2].set_index(pd.MultiIndex.from_tuples(index) if tuples else pd.Index(index))
    explainer = deepshap.DeepExplainer(linear(1.0, 2.0), np.zeros((1, 2)), progress=False)
    with pytest.raises(InputError, match="id empty in row 2"):
        explainer(frame)


def test_a_column_more_than_an_array_has_is_named():
    frame = pd.DataFrame(np.ones((2, 3)), columns=["Unnamed: 0", "a", "b"])
    explainer = deepshap.DeepExplainer(linear(1.0, 2.0), np.zeros((1, 2)), progress=False)
    with pytest.raises(InputError, match=r'3 columns \(Unnamed: 0, a, b\) for 2 features: .* X\[\["a", "b"\]\]'):
        explainer(frame)
    sequences = deepshap.sequences(frame.assign(who=1), "who")
    explainer = deepshap.DeepExplainer(lambda x: x.sum(1), np.zeros((1, 2, 2)), progress=False)
    with pytest.raises(InputError, match=r"3 columns \(Unnamed: 0, a, b\) for 2 features"):
        explainer(sequences)


@pytest.mark.parametrize("smallest", [-1, -100])
def test_negative_ids_are_not_blamed_on_the_vocabulary(smallest):
    explainer = deepshap.DeepExplainer(cli_models.Words().embedding, torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(InputError, match=f"none may be negative; the smallest is {smallest}") as caught:
        explainer(np.array([[1, 2, smallest], [1, 2, 3]]))
    assert "vocabulary" not in str(caught.value)


# ---------------------------------------------------------------------- frames that are yet to be computed
def test_lazy_frames_are_collected(tmp_path):
    frame = pl.DataFrame({"a": np.arange(30.0), "b": np.arange(30.0)[::-1]})
    explainer = deepshap.DeepExplainer(linear(1.0, 2.0), frame.lazy(), progress=False)
    wanted = deepshap.DeepExplainer(linear(1.0, 2.0), frame, progress=False)(frame)
    for found in (
        explainer(frame.lazy().select("b", "a")),
        explain_dataset(explainer, frame.lazy(), tmp_path / "1", progress=False)[:],
        explain_dataset(explainer, frame.with_row_index("k").lazy(), tmp_path / "2", id="k", progress=False)[:],
    ):
        np.testing.assert_allclose(found.values, wanted.values, atol=1e-9)
        assert found.feature_names == ["a", "b"]
    read = deepshap.sequences(frame.with_columns(k=pl.lit("x")).lazy(), "k")
    np.testing.assert_array_equal(read.values[0], frame.to_numpy())
    forecast = explain_forecast(lambda x: x[:, -1:, 0], frame.lazy(), lags=3)
    assert forecast.feature_names == ["a", "b"]
