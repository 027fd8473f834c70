"""Explaining on a Ray cluster: a step of Ray Data, and the parts of a run; actors and nodes that die."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import dataset_models as models
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from dataset_models import rows, table_explainer

import deepshap
from deepshap import InputError, explain_dataset
from deepshap.dataset.folder import parts_in

pytestmark = pytest.mark.slow

COUNT = 40
SUPPORT = str(Path(models.__file__).parent)
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", DAFT_RUNNER="native")
os.environ["PYTHONPATH"] = os.pathsep.join([SUPPORT, os.environ.get("PYTHONPATH", "")])  # of Ray's processes

import ray  # noqa: E402  what it reads of the environment it reads when it is imported


class Here(models.Table):
    """A model of a module that other processes do not find."""


@pytest.fixture(scope="module")
def cluster():
    """One node with three cores by its own account: as many processes are started beforehand."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture(scope="module")
def whole():
    return table_explainer()(rows(COUNT))


def close(found, whole):
    """A line per value, those of a row together."""
    found = found.sort_values("key", kind="stable")
    np.testing.assert_array_equal(found["key"], np.repeat(np.arange(COUNT), 4 * 2))
    np.testing.assert_allclose(found["attribution"].to_numpy().reshape(COUNT, 4, 2), whole.values, atol=1e-6)


def test_a_step_of_ray_data(cluster, whole):
    frame = pd.DataFrame(rows(COUNT), columns=list("abcd")).assign(key=np.arange(COUNT))
    explained = deepshap.ray.explain(ray.data.from_pandas(frame), table_explainer(), id="key", batch_size=7)
    close(explained.to_pandas(), whole)


@pytest.mark.long
def test_a_step_of_ray_data_goes_on_where_it_ended(cluster, whole, tmp_path):
    """With Ray's own checkpoints: what is written is left out, and nothing of another model is written beside it."""
    frame = pd.DataFrame(rows(COUNT), columns=list("abcd")).assign(key=np.arange(COUNT))
    (tmp_path / "x").mkdir()

    def explained(explainer=None):
        options = {"id": "key", "batch_size": 7, "checkpoint": tmp_path / "checkpoint"}
        ds = ray.data.read_parquet(str(tmp_path / "x"))  # of several paths Ray's threads fall over each other
        return deepshap.ray.explain(ds, explainer or table_explainer(), **options)

    frame.iloc[:25].to_parquet(tmp_path / "x" / "0.parquet")
    explained().write_parquet(str(tmp_path / "out"))
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert sum(map(len, map(pd.read_parquet, first))) == 25 * 4 * 2
    frame.iloc[25:].to_parquet(tmp_path / "x" / "1.parquet")
    explained().write_parquet(str(tmp_path / "out"))
    assert {path: path.stat().st_mtime_ns for path in first} == first
    close(pd.read_parquet(tmp_path / "out"), whole)
    with pytest.raises(InputError, match="made otherwise: background"):
        explained(table_explainer(seed=9))
    (tmp_path / "checkpoint" / "made-of.json").write_bytes(b"{")
    with pytest.raises(InputError, match="does not say what its checkpoints are of"):
        explained()
    assert ray.data.DataContext.get_current().checkpoint_config is None


def test_actors_that_leave_no_core_to_read_are_warned_of(cluster):
    ds = ray.data.from_items([{"key": 0, "a": 0.0}])
    with pytest.warns(UserWarning, match=r"3 actors of 1 cores take all 3 .* num_cpus=0\.5"):
        deepshap.ray.explain(ds, table_explainer(), id="key", concurrency=(3, 9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        deepshap.ray.explain(ds, table_explainer(), id="key", concurrency=3, num_cpus=0.5)
        deepshap.ray.explain(ds, table_explainer(), id="key", concurrency=9, num_gpus=1)


@pytest.mark.wide
def test_wrong_columns_are_errors_of_the_call(cluster, tmp_path):
    pd.DataFrame(rows(4), columns=list("abcd")).assign(key=np.arange(4), name="x").to_parquet(tmp_path / "x.parquet")
    ds = ray.data.read_parquet(str(tmp_path / "x.parquet"))
    for options, match in (
        ({"id": "customer"}, "no column 'customer'; it has a, b, c, d, key, name"),
        ({"features": ["a", "e"]}, "no column 'e'"),
        ({"lengths": "steps"}, "no column 'steps'"),
        ({}, "'name'"),  # text
        ({"features": list("abcd"), "efort": 3}, "there is no option efort="),
    ):
        with pytest.raises(InputError, match=match):
            deepshap.ray.explain(ds, table_explainer(), **{"id": "key", **options})
    later = ds.map_batches(lambda batch: batch)  # nobody knows its columns before it runs
    explained = deepshap.ray.explain(later, table_explainer(), id="key", features=["a", "e"])
    with pytest.raises(Exception, match="InputError: the table has no column 'e'"):
        explained.take_all()


@pytest.mark.long
def test_actors_that_cannot_load_the_model_say_why(cluster, tmp_path):
    explainer = table_explainer(Here())
    with pytest.raises(InputError, match=r"an actor cannot load the model: ModuleNotFoundError: .*test_ray") as raised:
        explain_dataset(explainer, rows(COUNT), tmp_path, ray="auto", progress=False)
    assert "memory" not in str(raised.value)


@pytest.mark.long
def test_the_command_on_a_cluster_that_it_starts(whole, tmp_path):
    """In a process of its own, which is not connected to another cluster."""
    np.save(tmp_path / "x.npy", rows(COUNT))
    np.save(tmp_path / "background.npy", np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32))
    command = [sys.executable, "-m", "deepshap", "explain", "dataset_models:Table", "x.npy", "-b", "background.npy"]
    command += ["--shards", "out", "--ray", "local", "--workers", "2", "--rows-per-part", "6"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == COUNT
    np.testing.assert_allclose(deepshap.load(tmp_path / "out")[:].values, whole.values, atol=1e-6)


# ---------------------------------------------------------------------- what dies
def node_of(cluster):
    return cluster.add_node(num_cpus=2, resources={"far": 2})


def during(folder, parts, what):
    """Do something when a run has written that many parts."""

    def watch():
        while not (folder.exists() and len(parts_in(folder)) >= parts):
            time.sleep(0.01)
        what()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def actor_processes():
    return [
        p
        for p in psutil.process_iter(["cmdline"])
        if p.info["cmdline"] and p.info["cmdline"][0] == "ray::_Actor.explain"
    ]


@pytest.mark.long
def test_an_actor_that_is_killed_is_started_anew(cluster, tmp_path):
    explainer = table_explainer(models.Slow())
    wanted = explain_dataset(explainer, rows(COUNT), tmp_path / "one", rows_per_part=5, progress=False)
    killed = []

    def kill():
        while not killed:
            for process in actor_processes()[:1]:
                process.kill()
                killed.append(process.pid)

    watching = during(tmp_path / "two", 2, kill)
    found = explain_dataset(
        explainer, rows(COUNT), tmp_path / "two", rows_per_part=5, workers=2, ray="auto", progress=False
    )
    watching.join()
    assert killed
    assert [path.name for path in found.paths] == [path.name for path in wanted.paths]


def test_a_row_that_fails_on_an_actor(cluster, tmp_path):
    x = rows(COUNT)
    x[7, 0] = 13
    explainer = table_explainer(models.Picky())
    with pytest.raises(deepshap.DeepShapError, match=r"row 7 \(part 1\) .* thirteen"):
        explain_dataset(explainer, x, tmp_path, rows_per_part=6, ray="auto", progress=False)
    found = explain_dataset(explainer, x, tmp_path, rows_per_part=6, on_error="keep", progress=False)  # in this process
    assert found.errors == {"ValueError": 1}
    assert len(found) == COUNT - 1


@pytest.mark.long
def test_the_node_of_the_actors_dies(cluster, tmp_path):
    """The actors are on a node of their own; its raylet is killed, and they go on elsewhere."""
    explainer = table_explainer(models.Slow())
    wanted = explain_dataset(explainer, rows(COUNT), tmp_path / "one", rows_per_part=5, progress=False)
    blocker = ray.remote(num_cpus=3)(models.Blocker).remote()  # so that the actors begin on the other node
    ray.get(blocker.here.remote())
    node = node_of(cluster)
    cluster.wait_for_nodes()

    def kill():
        ray.kill(blocker)
        cluster.remove_node(node, allow_graceful=False)

    watching = during(tmp_path / "two", 2, kill)
    found = explain_dataset(
        explainer, rows(COUNT), tmp_path / "two", rows_per_part=5, workers=2, ray="auto", progress=False
    )
    watching.join()
    assert [path.name for path in found.paths] == [path.name for path in wanted.paths]
    until = time.monotonic() + 60  # the cluster takes some seconds to find a node dead
    while (alive := len([one for one in ray.nodes() if one["Alive"]])) > 1 and time.monotonic() < until:
        time.sleep(0.1)
    assert alive == 1


# ---------------------------------------------------------------------- recipes of the documentation
PAGE = Path(__file__).parents[2] / "docs" / "a-million-rows.md"


class Spark:
    """As much of Spark as the recipe uses: batches of a Parquet file through a function, checked against the schema."""

    @property
    def read(self):
        return self

    write = read

    def parquet(self, path):
        if Path(path).exists():
            self.frame = pd.read_parquet(path)
        else:
            self.written.to_parquet(path)
        return self

    def mapInPandas(self, function, schema):
        batches = (self.frame.iloc[i : i + 700] for i in range(0, len(self.frame), 700))
        self.written = pd.concat(function(batches), ignore_index=True)
        assert [part.split()[0] for part in schema.split(", ")] == list(self.written)
        return self


def blocks_of_the_page():
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_recipe_for_daft(tmp_path):
    names = ["age", "visits", "spent", "days"]
    model, x = torch.nn.Linear(4, 1), np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    table = pd.DataFrame(x, columns=names)
    table.insert(0, "customer", np.arange(70_000, 70_012))
    table.to_parquet(tmp_path / "customers.parquet")
    explainer = deepshap.DeepExplainer(model, torch.zeros(1, 4))
    (recipe,) = [code for code in blocks_of_the_page() if "import daft" in code]
    exec(compile(recipe, str(PAGE), "exec"), {"np": np, "here": tmp_path, "load": lambda: explainer})
    found = pd.read_parquet(tmp_path / "attributions-daft").sort_values("customer")
    wanted = x * model.weight.detach().numpy()
    np.testing.assert_allclose(np.stack(found["values"]).reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_the_recipes_of_the_page_run(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page", "spark": Spark()}
    for code in blocks_of_the_page():
        exec(compile(code, str(PAGE), "exec"), namespace)
    wanted = namespace["found"][:]
    for name in ("ray", "spark"):
        found = pd.read_parquet(tmp_path / f"attributions-{name}").sort_values("customer", kind="stable")
        np.testing.assert_array_equal(found["customer"][::4], wanted.row_ids, err_msg=name)
        np.testing.assert_allclose(found["attribution"], wanted.values.ravel(), rtol=1e-5, atol=1e-6, err_msg=name)
    found = pd.read_parquet(tmp_path / "attributions-daft").sort_values("customer")
    np.testing.assert_allclose(np.stack(found["values"]), wanted.values[..., 0], rtol=1e-5, atol=1e-6)
