"""The command line: models and data from files, attributions in a file, every failure in one line."""

import gzip
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cli_models
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

import deepshap
from deepshap.cli import cli
from deepshap.cli.sampling import to_command_line
from deepshap.engines.torch import table
from deepshap.engines.torch.recurrent import fused
from deepshap.errors import MAX_MEGABYTES
from deepshap.kernels import jit_threshold

ROWS, STEPS = 9, 5
TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS / "support"), os.environ.get("PYTHONPATH", "")]))
    before = dict(table.USER_OPERATIONS)
    yield
    table.USER_OPERATIONS.clear()
    table.USER_OPERATIONS.update(before)


def run(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="deepshap")


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments, code=1):
    """The one line that says why, and nothing was written."""
    before = sorted(Path().iterdir())
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("deepshap: error: ")
    assert result.stderr.count("\n") == 1
    assert sorted(Path().iterdir()) == before
    return result.stderr


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def x():
    array = drawn(ROWS, STEPS, 2)
    np.save("x.npy", array)
    return array


@pytest.fixture
def long():
    """A long table of rows of different lengths, with a class for each."""
    lengths, values = [5, 3, 4, 2], drawn(14, 2, seed=4)
    ids = np.repeat(["ann", "bob", "eve", "joe"], lengths)
    days = np.concatenate([pd.date_range("2024-01-01", periods=n) for n in lengths])
    frame = pd.DataFrame({"who": ids, "day": days, "pulse": values[:, 0], "temperature": values[:, 1]})
    frame["ill"] = frame["who"].map({"ann": 0, "bob": 2, "eve": 1, "joe": 0})
    frame = frame.sample(frac=1, random_state=0)
    frame.to_csv("long.csv", index=False)
    frame.to_parquet("long.parquet")
    return deepshap.sequences(
        frame.drop(columns="ill").set_index("who").loc[["ann", "bob", "eve", "joe"]].reset_index(), "who", "day"
    )


def export(model, example, path, **dims):
    shapes = ({0: torch.export.Dim("rows", **dims)},) if dims is not None else None
    torch.export.save(torch.export.export(model.eval(), (example,), dynamic_shapes=shapes), path)


def explained(model, background, x, **options):
    arguments = options.pop("arguments", None)
    return deepshap.DeepExplainer(model, background, progress=False, **options)(x, additional_forward_args=arguments)


def sample(array, count, seed=0):
    return array[np.sort(np.random.default_rng(seed).choice(len(array), count, replace=False))]


# ---------------------------------------------------------------------- models
@pytest.mark.fast
def test_an_exported_program(x):
    export(cli_models.Forecast(), torch.randn(2, STEPS, 2), "model.pt2")
    result = done("explain", "model.pt2", "x.npy", "-b", 4, "-o", "why.parquet")
    assert "explained 9 rows × 4 references" in result.stdout
    found = deepshap.load("why.parquet")
    wanted = explained(cli_models.Forecast(), sample(x, 4), x)
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-7)
    np.testing.assert_allclose(found.base_values, wanted.base_values, atol=1e-6)
    assert found.background == {"rows": 4, "description": "4 rows of x.npy, drawn with seed 0"}
    assert found.model == "model"
    assert len(pd.read_parquet("why.parquet")) == found.values.size


@pytest.mark.parametrize("weights", ["w.pt", "w.safetensors", "checkpoint.pth"])
def test_a_factory_with_weights(x, weights):
    model = cli_models.Forecast(hidden=3)
    torch.nn.init.constant_(model.head.bias, 0.25)
    torch.nn.init.eye_(model.head.weight)
    torch.save(model.state_dict(), "w.pt")
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, "checkpoint.pth")
    save_file(model.state_dict(), "w.safetensors")
    options = ["--weights", weights, "--model-options", json.dumps({"hidden": 3})]
    done("explain", "cli_models:Forecast", "x.npy", "-b", "zeros", *options)
    found = deepshap.load("attributions.parquet")
    np.testing.assert_array_equal(found.values, explained(model, np.zeros((1, STEPS, 2), np.float32), x).values)
    assert found.model == "Forecast"


@pytest.mark.usefixtures("x")
def test_values_do_not_tell_what_the_process_has_explained_before(monkeypatch):
    """Compiled kernels round otherwise, and a process takes them after some work: commands take them from the start."""
    monkeypatch.setattr(fused.THRESHOLD, "work", {})
    for name, has_worked in (("fresh", False), ("later", True)):
        monkeypatch.setattr(jit_threshold, "_compile_all", has_worked)
        done("explain", "cli_models:Forecast", "x.npy", "-b", "zeros", "-o", f"{name}.parquet")
    np.testing.assert_array_equal(deepshap.load("fresh.parquet").values, deepshap.load("later.parquet").values)


def test_a_factory_of_a_plain_function(x):
    done("explain", "cli_models:plain_function", "x.npy", "-b", "zeros")
    np.testing.assert_allclose(deepshap.load("attributions.parquet").outputs, x.sum(1), rtol=1e-5)
    message = refused("explain", "cli_models:plain_function", "x.npy", "--weights", "x.npy", "-o", "y.parquet")
    assert "--weights needs a factory that returns a torch.nn.Module" in message


def test_a_pickled_module_only_on_demand(x):
    torch.save(cli_models.Forecast(), "model.pt")
    assert "runs code that is in it: add --allow-pickle" in refused("explain", "model.pt", "x.npy")
    done("explain", "model.pt", "x.npy", "-b", "mean", "--allow-pickle")
    background = np.broadcast_to(x.mean((0, 1)), (1, STEPS, 2))
    np.testing.assert_allclose(
        deepshap.load("attributions.parquet").values, explained(cli_models.Forecast(), background, x).values, atol=1e-7
    )


def test_no_pickle_is_read_from_an_exported_program(x, tmp_path):
    """An archive whose weights or example are pickles is refused before they run."""
    import zipfile

    export(cli_models.Forecast(), torch.randn(2, STEPS, 2), "model.pt2")

    class Evil:
        def __reduce__(self):
            return (open, ("evil.txt", "w"))

    torch.save((Evil(),), "evil.pt")
    with zipfile.ZipFile("model.pt2") as good, zipfile.ZipFile("evil.pt2", "w") as bad:
        for name in good.namelist():
            evil = name.endswith(("sample_inputs/model.pt", "serialized_example_inputs.pt"))  # of torch 2.4
            bad.writestr(name, Path("evil.pt").read_bytes() if evil else good.read(name))
    assert "cannot be read as an exported program" in refused("explain", "evil.pt2", "x.npy")
    assert not Path("evil.txt").exists()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("missing.pt2", [], "there is no model missing.pt2"),
        ("missing", [], "a factory is written package.module:factory"),
        ("cli_models:Nothing", [], "cli_models has no Nothing; it has"),
        ("no_such_module:Model", [], "there is no module no_such_module"),
        ("x.npy", [], "x.npy is no model that can be read"),
        ("text.pt2", [], "text.pt2 is no program written by torch.export.save"),
        ("weights.pt", [], "holds weights without their model"),
        ("cli_models:Forecast", ["--weights", "none.pt"], "there are no weights none.pt"),
        ("cli_models:Row", ["--weights", "weights.pt"], "do not fit the model"),
        ("cli_models:Forecast", ["--weights", "module.pt"], "holds more than weights"),
        ("cli_models:Forecast", ["--model-options", "hidden=3"], "--model-options is no JSON"),
        ("cli_models:Forecast", ["--device", "cuda:7"], "the device 'cuda:7' cannot be used"),
        ("module.pt", ["--weights", "weights.pt"], "a file has its own weights"),
        (
            "epoch.ckpt",
            [],
            "epoch.ckpt is a checkpoint, which holds weights without their model: give package.module:factory",
        ),
        ("script.pt", [], "script.pt is a TorchScript archive, whose operations nobody can look into: export"),
        ("script.pt", ["--allow-pickle"], "script.pt is a TorchScript archive"),
    ],
)
@pytest.mark.usefixtures("x")
def test_wrong_models(model, options, message):
    Path("text.pt2").write_text("text")
    torch.save(cli_models.Forecast().state_dict(), "weights.pt")
    torch.save(cli_models.Forecast(), "module.pt")
    torch.save({"state_dict": {}}, "epoch.ckpt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), "script.pt")
    assert message in refused("explain", model, "x.npy", *options)


def test_a_keras_model(x):
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input((STEPS, 2)), keras.layers.LSTM(4), keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential(layers)
    model.save("model.keras")
    keras.Sequential([layers[0], keras.layers.Lambda(lambda x: 2 * x), layers[1]]).save("code.keras")
    done("explain", "model.keras", "x.npy", "-b", 4, "--class", 2, "--class", 0)
    found, wanted = deepshap.load("attributions.parquet"), explained(model, sample(x, 4), x)
    np.testing.assert_allclose(found.values, wanted.values[..., [2, 0]], atol=1e-7)
    np.testing.assert_allclose(
        found.values.sum((1, 2)) + found.base_values, model.predict(x, verbose=0)[:, [2, 0]], atol=1e-6
    )
    listed = done("check", "model.keras", "--input-shape", "5,2").stdout
    assert "Softmax" in listed
    assert "Every operation has a rule" in listed
    message = refused("explain", "code.keras", "x.npy", "-o", "y.parquet")
    assert "code.keras cannot be read safely as a Keras model" in message
    message = refused("explain", "model.keras", "x.npy", "--tensor", "logits", "-o", "y.parquet")
    assert "--tensor logits: the model returns" in message


@pytest.mark.usefixtures("x")
def test_programs_for_a_fixed_number_of_rows():
    torch.export.save(torch.export.export(cli_models.Forecast().eval(), (torch.randn(3, STEPS, 2),)), "static.pt2")
    for call in (("explain", "static.pt2", "x.npy"), ("check", "static.pt2")):
        message = refused(*call)
        assert "exported for exactly 3 rows" in message
        assert "dynamic_shapes=({0: torch.export.Dim('rows')},)" in message
    export(cli_models.Forecast(), torch.randn(2, STEPS, 2), "few.pt2", max=40)
    export(cli_models.Forecast(), torch.randn(2, STEPS, 2), "many.pt2")
    for program in ("few", "many"):
        done("explain", f"{program}.pt2", "x.npy", "-o", f"{program}.parquet")
    few, many = deepshap.load("few.parquet"), deepshap.load("many.parquet")
    np.testing.assert_allclose(few.values, many.values, atol=1e-6)


@pytest.mark.usefixtures("x")
def test_programs_that_want_other_inputs():
    export(cli_models.Forecast(), torch.randn(2, STEPS + 1, 2), "longer.pt2")
    message = refused("explain", "longer.pt2", "x.npy")
    assert "rows of x must have shape (6, 2) for this model, those of the data have (5, 2)" in message
    export(cli_models.Words().embedding, torch.ones(2, 3, dtype=torch.int64), "words.pt2")
    np.save("fractions.npy", drawn(4, 3))
    assert "must be whole numbers (int64), and the data have fractions" in refused(
        "explain", "words.pt2", "fractions.npy"
    )
    np.savez("two.npz", a=drawn(4, 3), b=drawn(4, 3))
    message = refused("explain", "longer.pt2", "two.npz", "--array", "a", "--array", "b")
    assert "takes 1 inputs (x) and gets 2" in message


# ---------------------------------------------------------------------- data
@pytest.mark.parametrize("file", ["long.csv", "long.parquet"])
def test_a_long_table(long, file):
    names = ["--id", "who", "--time", "day", "--targets", "ill", "--class-names", "well,cold,flu"]
    done("explain", "cli_models:Ragged", file, *names, "--lengths", "table", "-b", 3, "-o", "why.parquet")
    found = deepshap.load("why.parquet")
    order = [long.row_ids.tolist().index(name) for name in found.row_ids]
    rows = long[order]
    last = np.take_along_axis(rows.values, np.minimum(np.arange(5), rows.lengths[:, None] - 1)[..., None], 1)
    wanted = explained(cli_models.Ragged(), sample(last, 3), rows.values, arguments=(torch.as_tensor(rows.lengths),))
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-5, atol=1e-8)  # in other batches: by length
    assert found.lengths.tolist() == rows.lengths.tolist()
    assert found.feature_names == ["pulse", "temperature"]
    assert found.output_names == ["well", "cold", "flu"]
    assert dict(zip(found.row_ids, found.targets, strict=True)) == {"ann": 0, "bob": 2, "eve": 1, "joe": 0}
    frame = pd.read_parquet("why.parquet")
    assert len(frame) == 14 * 2 * 3
    line = frame[
        (frame.row == "bob") & (frame.step == "2024-01-02") & (frame.feature == "pulse") & (frame.output == "flu")
    ]
    row = found.row_ids.tolist().index("bob")
    assert line.attribution.item() == found.values[row, 1, 0, 2]


def test_a_wide_table():
    frame = pd.DataFrame(drawn(20, 3, seed=2), columns=list("uvw")).assign(id=range(100, 120), y=drawn(20))
    frame.to_csv("wide.csv", index=False)
    frame.head(6)[["u", "v", "w", "id"]].to_parquet("few.parquet")
    done(
        "explain",
        "cli_models:Row",
        "wide.csv",
        "--id",
        "id",
        "--targets",
        "y",
        "-b",
        "few.parquet",
        "--rows",
        "3:7",
        "-q",
    )
    found = deepshap.load("attributions.parquet")
    table = pd.read_csv("wide.csv")
    wanted = explained(cli_models.Row(), frame.head(6)[list("uvw")], table[list("uvw")][3:7])
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-6)
    assert found.row_ids.tolist() == ["103", "104", "105", "106"]
    np.testing.assert_array_equal(found.targets, table.y[3:7])
    assert found.feature_names == list("uvw")
    assert found.background["description"] == "6 rows of few.parquet"


def test_several_arrays(x):
    row, y = drawn(ROWS, 3, seed=5), np.arange(ROWS) % 3
    np.savez("both.npz", series=x, row=row, y=y)
    done(
        "explain", "cli_models:Both", "both.npz", "--array", "series", "--array", "row", "--targets", "y", "-b", "zeros"
    )
    found = deepshap.load("attributions.parquet")
    torch.manual_seed(0)
    total = found.values[0].sum((1, 2)) + found.values[1].sum(1) + found.base_values
    np.testing.assert_allclose(total, found.outputs, atol=1e-6)
    assert [v.shape for v in found.values] == [(ROWS, STEPS, 2, 3), (ROWS, 3, 3)]
    np.testing.assert_array_equal(found.targets, y)
    message = refused("explain", "cli_models:Both", "both.npz")
    assert "has several arrays, choose with --array: series, row, y" in message
    assert "no array z" in refused("explain", "cli_models:Both", "both.npz", "--array", "z").replace("'", "")


def test_lengths_from_an_array(x):
    lengths = np.arange(ROWS) % STEPS + 1
    np.savez("x.npz", x=x, n=lengths)
    np.save("n.npy", lengths)
    done("explain", "cli_models:Ragged", "x.npz", "--lengths", "n", "-b", "zeros", "-o", "a.parquet")
    done("explain", "cli_models:Ragged", "x.npy", "--lengths", "n.npy", "-b", "zeros", "-o", "b.parquet")
    one, two = deepshap.load("a.parquet"), deepshap.load("b.parquet")
    np.testing.assert_array_equal(one.values, two.values)
    assert one.lengths.tolist() == lengths.tolist()
    assert "the model fails on rows" in (message := refused("explain", "cli_models:Ragged", "x.npy"))
    assert "give --lengths" in message


def test_token_ids_and_their_words():
    ids = np.random.default_rng(0).integers(0, 6, (4, 3))
    np.save("ids.npy", ids)
    words = ["the", "cat", "sat", "on", "a", "mat"]
    Path("words.txt").write_text("\n".join(words))
    done("explain", "cli_models:Words", "ids.npy", "-b", "zeros", "--tensor", "scores", "--vocabulary", "words.txt")
    found = deepshap.load("attributions.parquet")
    wanted = explained(cli_models.Words(), np.zeros((1, 3), int), ids, output="scores")
    np.testing.assert_array_equal(found.values, wanted.values)
    frame = pd.read_parquet("attributions.parquet")
    assert list(frame.columns)[:6] == ["row", "step", "output", "value", "input", "attribution"]
    assert frame.value[::2].tolist() == [words[i] for i in ids.ravel()]
    message = refused("explain", "cli_models:Words", "ids.npy")
    assert "a dict with the keys states, scores: choose what to explain with --tensor" in message
    assert "--tensor score: the model returns" in refused("explain", "cli_models:Words", "ids.npy", "--tensor", "score")
    Path("words.txt").write_text("the\ncat")
    message = refused("explain", "cli_models:Words", "ids.npy", "--tensor", "scores", "--vocabulary", "words.txt")
    assert "--vocabulary has 2 words" in message


def test_raw_data_are_shown(x):
    np.save("raw.npy", 10 * x + 1)
    done("explain", "cli_models:Forecast", "x.npy", "--raw", "raw.npy", "--rows", 2, "--feature-names", "wind,rain")
    found = deepshap.load("attributions.parquet")
    np.testing.assert_array_equal(found.display_data, 10 * x[:2] + 1)
    np.testing.assert_array_equal(found.data, x[:2])
    assert found.feature_names == ["wind", "rain"]
    np.save("raw.npy", x[:, :3])
    assert "--raw: shapes" in refused("explain", "cli_models:Forecast", "x.npy", "--raw", "raw.npy", "-o", "y.parquet")


def test_shapes_and_axes(x):
    pd.DataFrame(x.reshape(ROWS, -1)).to_parquet("flat.parquet")
    done("explain", "cli_models:Forecast", "flat.parquet", "--shape", "5,2", "-b", "zeros", "-o", "a.parquet")
    done("explain", "cli_models:TimeFirst", "x.npy", "--time-first", "-b", "zeros", "-o", "b.parquet")
    wanted = explained(cli_models.Forecast(), np.zeros((1, STEPS, 2), np.float32), x)
    np.testing.assert_allclose(deepshap.load("a.parquet").values, wanted.values, atol=1e-7)
    np.testing.assert_allclose(deepshap.load("b.parquet").values, wanted.values, atol=1e-7)


def test_precision_and_outputs(x):
    arguments = ["explain", "cli_models:Forecast", "x.npy", "-b", 3, "--seed", 1]
    done(*arguments, "--dtype", "float64", "--class", 2, "--class", "0", "-o", "a.parquet")
    done(*arguments, "--ranked-outputs", 1, "--class-names", "a,b,c", "-o", "b.parquet")
    done(*arguments, "--class", "b", "--class-names", "a,b,c", "--max-memory", "1 MB", "-o", "c.parquet")
    wanted = explained(cli_models.Forecast().double(), sample(x, 3, seed=1), x)
    a, b, c = (deepshap.load(f"{name}.parquet") for name in "abc")
    np.testing.assert_array_equal(a.values, wanted.values[..., [2, 0]])
    assert a.values.dtype == np.float64
    assert a.output_names == ["Output 2", "Output 0"]
    top = wanted.outputs.argmax(1)
    np.testing.assert_allclose(b.values[..., 0], [wanted.values[i, ..., k] for i, k in enumerate(top)], atol=1e-6)
    assert b.output_names[:, 0].tolist() == ["abc"[k] for k in top]
    np.testing.assert_allclose(c.values, wanted.values[..., [1]], atol=1e-6)
    assert c.output_names == ["b"]


@pytest.mark.usefixtures("long")
def test_targets_of_several_outputs(x):
    frame = pd.read_csv("long.csv").rename(columns={"ill": "tomorrow"})
    frame.assign(later=2.0 * frame.tomorrow).to_csv("forecast.csv", index=False)
    names = ["--id", "who", "--time", "day", "--features", "pulse,temperature", "--class", 0, "--class", 1]
    done("explain", "cli_models:Forecast", "forecast.csv", *names, "--targets", "tomorrow,later", "-o", "a.parquet")
    found = deepshap.load("a.parquet")
    assert dict(zip(found.row_ids, found.targets.tolist(), strict=True))["bob"] == [2, 4]
    np.save("y.npy", x[:, 0, :])
    done("explain", "cli_models:Forecast", "x.npy", "--class", 0, "--class", 1, "--targets", "y.npy", "-o", "b.parquet")
    np.testing.assert_array_equal(deepshap.load("b.parquet").targets, x[:, 0, :])


# ---------------------------------------------------------------------- wrong calls
@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("none.csv", [], "there is no file none.csv"),
        ("text.txt", [], "neither a table"),
        ("text.npy", [], "cannot be read as an array"),
        ("text.parquet", [], "cannot be read as a table"),
        ("objects.npy", [], "cannot be read as an array"),
        ("long.csv", ["--id", "whom", "--time", "day"], "no column 'whom'; it has who, day, pulse"),
        ("long.csv", ["--id", "who", "--time", "when"], "no column 'when'"),
        ("long.csv", ["--time", "day"], "a long table needs --id"),
        ("long.csv", ["--id", "who", "--time", "day", "--features", "pulse,rain"], "no column 'rain'"),
        (
            "long.csv",
            ["--id", "who", "--time", "day"],
            "fails on rows of shape (5, 3) of float32: RuntimeError",
        ),
        ("long.csv", ["--id", "who", "--time", "day", "--targets", "pulse"], "'pulse' changes within a row"),
        ("long.csv", [], "column 'who' is"),
        ("twice.csv", ["--id", "who", "--time", "day"], "two lines for day"),
        ("nan.csv", ["--id", "who", "--time", "day"], "'pulse' is missing or infinite at ann, 2024-01-01"),
        ("nan.npy", [], "nan.npy has a missing or infinite value in row 2"),
        ("empty.npy", [], "empty.npy has no rows"),
        ("scalar.npy", [], "scalar.npy holds a single value without an axis of rows"),
        ("scalar.npz", [], "scalar.npz, array 'y', holds a single value"),
        ("x.npy", ["-b", "scalar.npy"], "scalar.npy holds a single value"),
        ("x.npy", ["--id", "who"], "--id, --time, --features and --format are for tables"),
        ("x.npy", ["--shape", "3,3"], "rows of 10 values cannot have shape (3, 3)"),
        ("x.npy", ["--shape", "five"], "--shape must be whole numbers"),
        ("x.npy", ["--class", "flu"], "there is no class 'flu': give --class-names, or its index"),
        ("x.npy", ["--class", "flu", "--class-names", "a,b,c"], "there is no class 'flu'; they are a, b, c"),
        ("x.npy", ["--class", "3"], "--class 3: the model has 3 outputs, counted from 0"),
        ("x.npy", ["--class-names", "a,b"], "2 names for 3 outputs"),
        ("x.npy", ["--ranked-outputs", "4"], "ranked_outputs must be between 1 and the number of outputs, 3"),
        ("x.npy", ["--feature-names", "a,b,c"], "feature_names holds 3 names for an axis of 2"),
        ("x.npy", ["--feature-names", "a,a"], "--feature-names: 'a' is there twice"),
        ("x.npy", ["--class-names", "a,a,b", "--class", "a"], "--class-names: 'a' is there twice"),
        ("x.npy", ["--class-names", "a,b,c", "--class", "b", "--class", "1"], "--class: 'b' is there twice"),
        ("x.npy", ["--class", "0", "--class", "0"], "--class: 'Output 0' is there twice"),
        (
            "long.csv",
            ["--id", "who", "--time", "day", "--features", "pulse,pulse"],
            "--features: 'pulse' is there twice",
        ),
        ("x.npy", ["--tensor", "logits"], "--tensor logits: the model returns a Tensor"),
        ("x.npy", ["--rows", "20:30"], "--rows 20:30 takes none of the 9 rows"),
        ("x.npy", ["--rows", "some"], "--rows must be a number or A:B"),
        ("x.npy", ["-b", "0"], "at least one row to compare with"),
        ("x.npy", ["-b", "median"], "'median' is no file, number, 'zeros' or 'mean'"),
        ("x.npy", ["-b", "none.npy"], "there is no file none.npy"),
        ("x.npy", ["-b", "nan.npy"], "nan.npy has a missing or infinite value"),
        ("x.npy", ["-b", "shorter.npy"], "rows of X have shape (5, 2), rows of the background (4, 2)"),
        ("x.npy", ["--lengths", "n"], "--lengths: 'n' is neither a column or array of the data nor a .npy file"),
        ("x.npy", ["--lengths", "shorter.npy"], "--lengths: shape (9, 4, 2) does not fit 9 rows"),
        ("x.npy", ["--lengths", "table"], "--lengths table is for long tables"),
        ("x.npy", ["--lengths", "x.npy"], "--lengths: shape (9, 5, 2) does not fit 9 rows"),
        ("x.npy", ["--lengths", "none.npy"], "--lengths: there is no file none.npy"),
        ("x.npy", ["--lengths", "nine.npy"], "--lengths says 9 for row 0 of x.npy, whose rows have 5 steps at most"),
        (
            "x.npy",
            ["--lengths", "halves.npy"],
            "--lengths must be whole numbers, one for each row, and these are float64",
        ),
        ("two.npz", ["--array", "a", "--lengths", "table"], "--lengths table is for long tables"),
        ("twice.csv", ["--features", "pulse", "--lengths", "n"], "--lengths: twice.csv has no column 'n'; it has who"),
        ("long.csv", ["--id", "who", "--time", "day", "--lengths", "nine.npy"], "--lengths table hands that on"),
        ("x.npy", ["--raw", "two.npz"], "--raw, which is read with the options of DATA: two.npz has several arrays"),
        (
            "long.csv",
            ["--id", "who", "--time", "day", "--raw", "others.csv"],
            "--raw: the id of row 0 is mr ann, and eve in the data: give the same rows in their order",
        ),
        ("x.npy", ["--targets", "y"], "--targets: 'y' is neither"),
        ("two.npz", ["--targets", "z"], "--targets: two.npz has no array 'z'; it has a, b"),
        ("long.csv", ["--id", "who", "--time", "day", "--targets", "il"], "--targets: long.csv has no column 'il'"),
        ("x.npy", ["--groups", "x.npy"], "--groups are compared in the report"),
        ("x.npy", ["--groups", "x.npy", "--report", "r.html"], "--groups: shape (9, 5, 2) does not fit 9 rows"),
        ("x.npy", ["--groups", "x.npy", "--report", "r.html", "--shards", "out"], "leave out --shards"),
        ("x.npy", ["-o", "x.txt"], "let the name end in .parquet"),
        ("long.parquet", ["--id", "who", "--time", "day", "-o", "long.parquet"], "would overwrite what is read"),
        ("x.npy", ["-b", "long.parquet", "-o", "long.parquet"], "would overwrite what is read"),
        ("x.npy", ["--report", "attributions.parquet"], "would overwrite what is read"),
        ("x.npy", ["--report", "r.pdf"], "--report r.pdf: a report is written as HTML, so let the name end in .html"),
        ("x.npy", ["--report", "nowhere/r.html"], "there is no folder nowhere"),
        ("one.npy", [], "one.npy has one row, which cannot be its own background"),
        ("model.pt2", [], "MODEL comes before DATA"),
        ("words.csv", ["--id", "who", "--time", "day"], "'day 9' stands before 'day 10'"),
        ("x.npy", ["--max-memory", "10"], "Raise max_memory"),
        ("x.npy", ["--max-memory", "much"], "is not a size"),
        ("x.npy", ["-o", "nowhere/a.parquet"], "there is no folder nowhere"),
        ("whole.npy", [], "--dtype float32 changes that"),
    ],
)
@pytest.mark.filterwarnings("error::UserWarning")  # torch would warn of an index that is a text
@pytest.mark.usefixtures("long")
def test_wrong_data_and_options(x, data, options, message):
    for name in ("text.txt", "text.npy", "text.parquet"):
        Path(name).write_text("text")
    np.save("objects.npy", np.array([{}, {}]))
    np.save("nan.npy", np.where(np.arange(ROWS)[:, None, None] == 2, np.nan, x))
    np.save("empty.npy", x[:0])
    np.save("scalar.npy", 3.0)
    np.savez("scalar.npz", y=3.0)
    np.save("shorter.npy", x[:, 1:])
    np.save("one.npy", x[:1])
    np.save("nine.npy", np.full(ROWS, 9))
    np.save("halves.npy", np.full(ROWS, 0.5))
    np.savez("two.npz", a=x, b=x)
    Path("model.pt2").write_text("text")
    words = {"who": ["ann"] * 2, "day": ["day 9", "day 10"], "pulse": [1.0, 2.0], "temperature": [1.0, 2.0]}
    pd.DataFrame(words).to_csv("words.csv", index=False)
    np.save("whole.npy", np.ones((ROWS, STEPS, 2), np.int64))
    frame = pd.read_csv("long.csv").sort_values(["who", "day"], ignore_index=True)
    pd.concat([frame, frame.head(1)]).to_csv("twice.csv", index=False)
    frame.assign(pulse=frame.pulse.where(frame.index != 0)).to_csv("nan.csv", index=False)
    frame.assign(who="mr " + frame.who).to_csv("others.csv", index=False)
    assert message in refused("explain", "cli_models:Forecast", data, *options)


# A table of which one line is empty, and one row has two.
GAPS = 'who,day,pulse,note\nann,1,70,\n\nann,2,71,"slept\nbadly"\nann,3,72,\n{},4,73,\nann,5,{},\n'


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (("", 74), ["--id", "who", "--time", "day", "--features", "pulse"], "id empty in line 7"),
        (("ann", ""), ["--features", "pulse"], "'pulse' is missing in line 8"),
    ],
)
def test_lines_of_text_files_are_those_of_the_file(suffix, cells, options, message):
    text = GAPS.format(*cells).replace(",", "\t" if suffix == ".tsv" else ",")
    opened = gzip.open if suffix == ".csv.gz" else open
    with opened(f"gaps{suffix}", "wt", encoding="utf-8") as file:
        file.write(text)
    assert message in refused("explain", "cli_models:Forecast", f"gaps{suffix}", *options)


def test_rows_of_other_tables_are_counted_from_one():
    frame = pd.DataFrame({"who": ["ann", "ann", None, "bob"], "day": [1, 2, 3, 4], "pulse": [70.0, 71, 72, np.nan]})
    frame.to_parquet("gaps.parquet")
    message = refused("explain", "cli_models:Forecast", "gaps.parquet", "--id", "who", "--time", "day")
    assert "id empty in row 3 (counted from 1)" in message
    message = refused("explain", "cli_models:Forecast", "gaps.parquet", "--features", "pulse")
    assert "'pulse' is missing in row 4 (counted from 1)" in message


@pytest.mark.usefixtures("x")
def test_a_program_keeps_its_precision():
    export(cli_models.Forecast(), torch.randn(2, STEPS, 2), "model.pt2")
    export(cli_models.Words().embedding, torch.ones(2, 3, dtype=torch.int64), "words.pt2")
    np.save("ids.npy", np.ones((4, 3)))
    for dtype in ("int64", "float64"):
        message = refused("explain", "model.pt2", "x.npy", "--dtype", dtype)
        assert f"--dtype {dtype}: an exported program keeps its own, float32 for x." in message
    assert "keeps its own, float32" in refused("check", "model.pt2", "--dtype", "int64")
    assert "keeps its own, int64" in refused("explain", "words.pt2", "ids.npy", "--dtype", "float32")
    done("explain", "model.pt2", "x.npy", "--dtype", "float32", "-o", "a.parquet")
    done("explain", "words.pt2", "ids.npy", "--dtype", "int64", "-b", "zeros", "-o", "b.parquet")


def test_a_program_of_double_precision_may_be_told_so(x):
    export(cli_models.Forecast().double(), torch.randn(2, STEPS, 2, dtype=torch.float64), "model.pt2")
    done("explain", "model.pt2", "x.npy", "-b", "zeros", "--dtype", "float64")
    wanted = explained(cli_models.Forecast().double(), np.zeros((1, STEPS, 2)), x.astype(float))
    np.testing.assert_allclose(deepshap.load("attributions.parquet").values, wanted.values, rtol=1e-12, atol=1e-15)
    assert "keeps its own, float64" in refused("explain", "model.pt2", "x.npy", "--dtype", "float32")


@pytest.mark.usefixtures("x")
def test_what_cannot_be_explained():
    message = refused("explain", "cli_models:Bessel", "x.npy")
    assert "no rule for 1 call of the model, nothing was computed: torch.special.bessel_j1 at cli_models.py" in message
    message = refused("explain", "cli_models:Wrong", "x.npy", code=3)
    assert "do not add up" in message
    assert "a rule registered as linear" in message


@pytest.mark.usefixtures("x")
def test_tracebacks_on_demand():
    result = run("explain", "cli_models:Bessel", "x.npy", "--traceback")
    assert isinstance(result.exception, deepshap.UnsupportedOperationError)


@pytest.mark.parametrize(
    "arguments", [["explain"], ["explain", "m", "x", "--seed", "one"], ["explian"], ["check", "--nonsense"]]
)
def test_wrong_calls(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: deepshap" in result.stderr


def test_a_model_that_reads_padding_gets_a_warning(long):
    names = ["--id", "who", "--time", "day", "--features", "pulse,temperature"]
    result = done("explain", "cli_models:Forecast", "long.csv", *names, "-q")
    assert "warning: rows have different lengths" in result.stderr
    assert result.stdout == ""
    assert len(pd.read_parquet("attributions.parquet")) == 4 * 5 * 2 * 3


# ---------------------------------------------------------------------- check
def test_check_lists_operations():
    result = done("check", "cli_models:Forecast", "--input-shape", "5,2")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["operation", "times", "treatment", "where"]
    assert any(line.startswith("lstm ") and "exact recursion" in line and "cli_models.py" in line for line in lines)
    assert lines[-1] == "Every operation has a rule: the model can be explained."


def test_check_finds_what_has_no_rule():
    result = run("check", "cli_models:Bessel", "--input-shape", "5,2")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1].split()[:4] == ["torch.special.bessel_j1", "1", "NO", "RULE"]
    assert "1 without a rule: torch.special.bessel_j1" in result.stdout


def test_check_takes_shapes_from_programs_data_and_options(x):
    export(cli_models.Forecast(), torch.randn(2, STEPS, 2), "model.pt2")
    assert "lstm" in done("check", "model.pt2").stdout
    assert "lstm" in done("check", "cli_models:Forecast", "--data", "x.npy").stdout
    assert "lstm" in done("check", "cli_models:Ragged", "--input-shape", "5,2", "--lengths", "table").stdout
    assert "lstm" in done("check", "cli_models:Both", "--input-shape", "5,2", "--input-shape", "3").stdout
    words = done("check", "cli_models:Words", "--input-shape", "3", "--dtype", "int64", "--tensor", "scores").stdout
    assert "embedding" in words
    assert "the shape of the input is not known" in refused("check", "cli_models:Forecast")


def test_check_in_python():
    found = deepshap.check(cli_models.Bessel(), torch.randn(1, STEPS, 2))
    assert not found.supported
    assert {use.name: use.supported for use in found.uses} == {
        "torch.special.bessel_j1": False,
        "lstm": True,
        "__getitem__": True,
        "linear": True,
    }
    assert [use.times for use in found.uses] == [1, 1, 1, 1]
    twice = deepshap.check(lambda x: torch.tanh(x) * torch.tanh(2 * x), torch.randn(1, 3))
    kinds = {use.name: (use.times, use.treatment.partition(":")[0]) for use in twice.uses}
    assert kinds["tanh"] == (2, "elementwise")
    assert {use.treatment.partition(":")[0] for use in twice.uses if use.name == "mul"} == {"linear", "product"}
    model = cli_models.Forecast().train()
    deepshap.check(model, torch.randn(1, STEPS, 2))
    assert model.training


# ---------------------------------------------------------------------- report, completion, and as a program
def test_report(x):
    done("explain", "cli_models:Forecast", "x.npy", "-b", 3, "--report", "direct.html")
    result = done("report", "attributions.parquet", "--title", "Why this forecast?")
    assert "attributions.html" in result.stdout
    assert "Why this forecast?" in Path("attributions.html").read_text(encoding="utf-8")
    assert Path("direct.html").stat().st_size > 10_000
    assert "no Parquet file" in refused("report", "x.npy")
    assert "none.parquet" in refused("report", "none.parquet")


def test_a_report_is_as_large_as_one_from_python():
    (option,) = (one for one in cli.commands["report"].params if one.name == "max_megabytes")
    assert option.default == MAX_MEGABYTES


@pytest.mark.usefixtures("long")
def test_groups_and_faithfulness_stand_in_the_report():
    """Groups are no features, the background may be the same table, and the axis of steps has the name of its column."""
    frame = pd.read_csv("long.csv")
    frame["ward"] = frame["who"].map({"ann": "north", "bob": "south", "eve": "north", "joe": "south"})
    frame.to_csv("wards.csv", index=False)
    ask = ["--id", "who", "--time", "day", "--targets", "ill", "--groups", "ward", "--faithfulness", "-b", "wards.csv"]
    told = done("explain", "cli_models:Ragged", "wards.csv", *ask, "--lengths", "table", "--report", "why.html").stdout
    assert "another sign with other references" in told
    page = Path("why.html").read_text(encoding="utf-8")
    meta = json.loads(re.search(r'<script[^>]*id="meta"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    counts = {group["name"]: group["count"] for group in meta["groups"]}
    assert (counts["north"], counts["south"]) == (2, 2)
    assert meta["faithfulness"]["rows"] == 4
    assert meta["timeLabel"] == deepshap.load("attributions.parquet").time_label == "day"
    assert meta["parts"][0]["features"] == ["pulse", "temperature"]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("attributions.parquet", "--output attributions.parquet would overwrite what is read"),
        ("nowhere/why.html", "there is no folder nowhere to write why.html to"),
        ("why.txt", "--output why.txt: a report is written as HTML, so let the name end in .html"),
    ],
)
@pytest.mark.usefixtures("x")
def test_reports_that_are_not_written(page, message):
    done("explain", "cli_models:Forecast", "x.npy", "-b", "zeros")
    before = Path("attributions.parquet").read_bytes()
    assert message in refused("report", "attributions.parquet", "-o", page)
    assert Path("attributions.parquet").read_bytes() == before


def test_demo_hands_its_options_on(monkeypatch):
    calls = []
    monkeypatch.setattr("deepshap.datasets.demo.main", lambda output, report: calls.append((output, report)))
    done("demo")
    done("demo", "-o", "there", "--no-report")
    assert calls == [(Path("demo-output"), True), (Path("there"), False)]


def test_the_commands_on_the_page_are_right():
    page = (TESTS.parent / "docs" / "command-line.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    calls = [shlex.split(line, comments=True) for line in blocks.splitlines() if line.startswith("deepshap ")]
    assert {call[1] for call in calls} == {"explain", "check", "report", "demo", "completion", "status"}
    for _, command, *arguments in calls:
        cli.commands[command].make_context(command, list(itertools.takewhile(lambda a: a != ">>", arguments)))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    assert "_DEEPSHAP_COMPLETE" in done("completion", shell).stdout


def program(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "deepshap", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_the_program_explains(x):
    ran = program("explain", "cli_models:Forecast", "x.npy", "-b", "zeros")
    assert ran.returncode == 0, ran.stderr
    assert "the attributions are in attributions.parquet" in ran.stdout
    wanted = explained(cli_models.Forecast(), np.zeros((1, STEPS, 2), np.float32), x)
    np.testing.assert_allclose(deepshap.load("attributions.parquet").values, wanted.values, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("target", "words"),
    [("predicted", "predicted"), ("true", "true"), ("cold", "cold"), ("-1", "flu"), ("flu - cold", "flu - cold")],
)
def test_what_a_decision_is_about(x, target, words):
    np.save("truth.npy", np.arange(ROWS) % 3)
    names = ["well", "cold", "flu"]
    result = done(
        "explain", "cli_models:Likely", "x.npy", "-b", "zeros", "--class-names", ",".join(names), "--target", target,
        "--targets", "truth.npy", "-o", "why.parquet", "--report", "why.html",
    )  # fmt: skip
    assert f"explained output: {words}" in result.stdout
    assert words in Path("why.html").read_text()
    found = deepshap.load("why.parquet")
    explainer = deepshap.DeepExplainer(cli_models.Likely(), np.zeros((1, STEPS, 2), "f4"), output_names=names)
    wanted = explainer(x, target=target, targets=np.arange(ROWS) % 3)
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-7)
    assert (found.explained, found.output_names, found.targets.tolist()) == (words, words, [0, 1, 2] * 3)
    assert set(pd.read_parquet("why.parquet").output) == {words}


def test_logits_and_log_odds_are_reached_and_offered(x):
    rows = torch.export.Dim("rows")
    export = torch.export.export(cli_models.Likely().eval(), (torch.randn(2, STEPS, 2),), dynamic_shapes=({0: rows},))
    torch.export.save(export, "model.pt2")
    assert "--target log-odds explains odds" in done("explain", "model.pt2", "x.npy", "-b", "zeros").stdout
    assert "--target" not in done("explain", "model.pt2", "x.npy", "-b", "zeros", "--target", "logits").stdout
    wanted = explained(cli_models.Forecast(), np.zeros((1, STEPS, 2), "f4"), x)
    np.testing.assert_allclose(deepshap.load("attributions.parquet").values, wanted.values, atol=1e-6)
    done("explain", "model.pt2", "x.npy", "-b", "zeros", "--target", "log-odds", "--shards", "parts")
    assert deepshap.load("parts")[:].explained == "log-odds of predicted"
    for options in (["--class", "1"], ["--ranked-outputs", "1"]):
        assert "which output" in refused("explain", "model.pt2", "x.npy", "--target", "predicted", *options)


@pytest.mark.parametrize(
    ("separator", "name", "said"),
    [(";", "a.csv", "semicolons"), ("\t", "a.csv", "tabs"), ("|", "a.csv", "bars"), (",", "a.tsv", "commas")],
)
def test_other_separators_are_found_and_said(separator, name, said):
    frame = pd.DataFrame(drawn(4, 3), columns=list("abc"))
    frame.to_csv(name, sep=separator, index=False)
    told = done("explain", "cli_models:Row", name, "-b", "zeros").stdout.splitlines()
    assert told[:2] == [f"{name}: separated by {said}, 4 rows", "features a, b, c"]
    np.testing.assert_allclose(deepshap.load("attributions.parquet").data, frame, rtol=1e-6)


def test_the_only_tensor_and_the_other_input(x):
    done("explain", "cli_models:Hugging", "x.npy", "-b", "zeros")
    assert "--array NAME for each" in refused("explain", "cli_models:Both", "x.npy", "-b", "zeros")


@pytest.mark.wide
def test_the_program_fails_in_one_line(x):
    ran = program("explain", "cli_models:Wrong", "x.npy", "-o", "y.parquet")
    assert ran.returncode == 3
    assert ran.stdout == "the weights are those that cli_models:Wrong gives the model; others come with --weights\n"
    *_, last = ran.stderr.splitlines()  # a slow machine shows a bar before
    assert last.startswith(
        "deepshap: error: row 0 (part 0) cannot be explained: AdditivityError: the attributions of row"
    )
    assert not Path("y.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "model.pt2", "none.csv"], "there is no file none.csv"),
        (["explain", "none.pt2", "x.npy"], "there is no model none.pt2"),
        (["explain", "model.txt", "x.npy"], "model.txt is no model that can be read"),
        (["explain", "cli_models:Forecast", "x.npy", "--weights", "w.pt"], "there are no weights w.pt"),
        (["explain", "cli_models:Forecast", "x.npy", "-b", "none.npy"], "there is no file none.npy"),
        (["explain", "cli_models:Forecast", "x.npy", "-o", "a.txt"], "let the name end in .parquet"),
        (["explain", "cli_models:Forecast", "x.npy", "--target", "true", "--class", "1"], "give one of them"),
        (["explain", "cli_models:Forecast", "x.npy", "--shape", "five"], "--shape must be whole numbers"),
        (["explain", "cli_models:Forecast", "x.npy", "--device", "foo"], "--device 'foo' is no device"),
        (["explain", "cli_models:Forecast", "x.npy", "--max-memory", "foo"], "--max-memory 'foo' is not a size"),
        (["check", "cli_models:Forecast", "--input-shape", "foo"], "--input-shape must be whole numbers"),
        (["check", "cli_models:Forecast", "--device", "cuda:x"], "--device 'cuda:x' is no device"),
        (["explain", "cli_models:Forecast", "x.npy", "--players", "{"], "--players is no valid JSON"),
        (["explain", "cli_models:Forecast", "x.npy", "--rows", "20:30"], "--rows 20:30 takes none of the 9 rows"),
        (["explain", "cli_models:Forecast", "x.npy", "--rows", "foo"], "--rows must be a number or A:B, not 'foo'"),
        (["explain", "no_such.module:Net", "x.npy"], "there is no module no_such.module"),
        (["check", "no_such:Net", "--input-shape", "5"], "there is no module no_such"),
        (["explain", "cli_models:Forecast", "wide.csv", "--features", "a,z"], "no column 'z'"),
        (["check", "none.keras"], "there is no model none.keras"),
        (["report", "none.parquet"], "there is no file none.parquet"),
        (["status", "none"], "there is no folder none"),
    ],
)
def test_wrong_calls_are_told_before_a_framework_is_imported(arguments, message, x):
    """Which takes seconds."""
    Path("model.txt").write_text("text")
    Path("model.pt2").write_text("text")
    pd.DataFrame({"a": [1.0], "b": [2.0]}).to_csv("wide.csv", index=False)
    heavy = "{'torch', 'tensorflow', 'keras', 'shap', 'numba', 'matplotlib'}"
    code = f"""
import sys
from deepshap.cli import cli
try:
    cli({arguments!r}, prog_name="deepshap")
finally:
    print({heavy} & set(sys.modules), file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said, imported = ran.stderr.strip().splitlines()
    assert ran.returncode == 1
    assert said.startswith("deepshap: error: ")
    assert message in said
    assert imported == "set()"


def test_help_is_quick_and_imports_nothing_heavy():
    code = "import sys, deepshap.cli; assert not {'torch', 'shap', 'pandas', 'pyarrow'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)
    for command in ([], ["explain"], ["check"], ["report"], ["demo"], ["completion"]):
        assert "Usage: deepshap" in done(*command, "--help").stdout
    completed = program(_DEEPSHAP_COMPLETE="bash_complete", COMP_WORDS="deepshap ex", COMP_CWORD="1")
    assert "explain" in completed.stdout


# ---------------------------------------------------------------------- the dial
@pytest.mark.filterwarnings("ignore:tolerance=0.001 was reached:UserWarning")
def test_the_dial(x):
    options = ["cli_models:Forecast", "x.npy", "-b", 4, "--seed", 3]
    result = done("explain", *options, "--effort", 4, "--players", "steps")
    found, R = deepshap.load("attributions.parquet"), sample(x, 4, seed=3)
    made = deepshap.DeepExplainer(cli_models.Forecast(), R, progress=False)
    wanted = made(x, players="steps", method=found.method)  # what was chosen depends on what the clock told
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-6)
    np.testing.assert_allclose(found.standard_errors, wanted.standard_errors, atol=1e-6)
    assert found.players == "steps"
    assert f"method: {found.method}" in result.stdout
    assert "reliability" not in result.stdout

    with pytest.warns(UserWarning, match="tolerance=1e-06 was reached by"):
        done("explain", *options, "--tolerance", 1e-6, "--max-effort", 1.5)
    least = deepshap.load("attributions.parquet")
    np.testing.assert_allclose(least.values, made(x, method=least.method).values, atol=1e-6)
    assert not least.converged.any()

    done("explain", *options, "--tolerance", 0.3, "--players", 2)
    assert deepshap.load("attributions.parquet").converged.shape == (ROWS,)


@pytest.mark.parametrize(
    ("said", "players"),
    [
        ('{"wind": ["a"]}', {"wind": ["a"]}),
        ("groups.npy", np.arange(2 * STEPS).reshape(STEPS, 2) // 3),
        ("features", "features"),
    ],
)
def test_players(x, said, players):
    np.save("groups.npy", np.arange(2 * STEPS).reshape(STEPS, 2) // 3)
    done("explain", "cli_models:Forecast", "x.npy", "-b", "zeros", "--players", said, "--feature-names", "a,b")
    found, zeros = deepshap.load("attributions.parquet"), np.zeros((1, STEPS, 2), np.float32)
    wanted = explained(cli_models.Forecast(), zeros, x, feature_names=["a", "b"]).values
    groups = {"features": [[0, 1]] * STEPS, '{"wind": ["a"]}': [[0, 1]] * STEPS}.get(said, players)
    sums = [
        (wanted * (np.array(groups) == g)[..., None].reshape(STEPS, 2, *[1] * (wanted.ndim - 3)))
        for g in np.unique(groups)
    ]
    np.testing.assert_allclose(found.values, np.stack([s.sum((1, 2)) for s in sums], 1), atol=1e-6)


def test_reliability_is_told_unless_it_is_not_wanted(x):
    options = ["explain", "cli_models:Forecast", "x.npy", "-b", 4]
    result = done(*options, "--report", "page.html")
    wanted = deepshap.DeepExplainer(cli_models.Forecast(), sample(x, 4), progress=False).reliability(x)
    found = deepshap.load("attributions.parquet").reliability
    assert found == str(wanted)
    assert f"reliability: {to_command_line(str(wanted))}\n" in result.stdout
    assert 'data-fact="Reliability"' in Path("page.html").read_text()
    result = done(*options, "--no-reliability")
    assert "reliability" not in result.stdout
    assert "method: Deep SHAP\n" in result.stdout
    assert deepshap.load("attributions.parquet").reliability is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("use effort=8 to come within", "use --effort 8 to come within"),
        (
            "(effort=64 or more, or tolerance=), (players='steps')",
            "(--effort 64 or more, or --tolerance), (--players 'steps')",
        ),
    ],
)
def test_advice_names_options(said, told):
    assert to_command_line(said) == told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--effort", 0.5], "effort must be a number of at least 1"),
        (["--effort", 2, "--tolerance", 0.1], "give --effort or --tolerance, not both"),
        (["--max-effort", 2], "--max-effort is the most effort for --tolerance, which is missing"),
        (["--target", "true"], "--target 'true' needs --targets, the true class"),
        (["--target", "dog"], "names are given as --class-names"),
        (["--players", "people"], "--players 'people' is none of"),
        (["--players", "{"], "--players is no valid JSON"),
        (["--players", "none.npy"], "there is no file none.npy"),
        (["--players", "steps", "--raw", "x.npy"], "leave one of them out"),
    ],
)
def test_nonsense_about_the_dial(x, options, message):
    assert message in refused("explain", "cli_models:Forecast", "x.npy", "-b", "zeros", *options)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--tolerance", "-1", "--tolerance must lie between 0 and 1"),
        ("--effort", "-1", "--effort must be a number of at least 1, not -1"),
        ("--effort", "nan", "--effort must be a number of at least 1, not nan"),
        ("--max-effort", "0", "--max-effort must be a number of at least 1, not 0"),
        ("--players", "foo", "--players 'foo' is none of"),
    ],
)
def test_wrong_sampling_options_are_refused_without_importing_a_framework(tmp_path, option, value, said):
    """Neither torch nor TensorFlow is imported before the error."""
    import subprocess
    import sys

    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    code = (
        "import sys; from deepshap.cli import cli\n"
        "try: cli(sys.argv[1:])\n"
        "finally: print([m for m in ('torch', 'tensorflow') if m in sys.modules])"
    )
    call = [sys.executable, "-c", code, "explain", "m:f", str(tmp_path / "x.csv"), option, value]
    run = subprocess.run(call, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert said in run.stderr
    assert run.stdout.strip() == "[]"
