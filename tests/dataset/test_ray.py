"""Explaining on a Ray cluster: a step of Ray Data, and the parts of a run; actors and nodes that die."""

from __future__ import annotations

import os
from pathlib import Path

import dataset_models as models
import numpy as np
import pytest
from dataset_models import rows, table_explainer

import deepshap
from deepshap import explain_dataset

COUNT = 40
SUPPORT = str(Path(models.__file__).parent)
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
os.environ["PYTHONPATH"] = os.pathsep.join([SUPPORT, os.environ.get("PYTHONPATH", "")])  # of Ray's processes

import ray  # noqa: E402  what it reads of the environment it reads when it is imported


@pytest.fixture(scope="module")
def cluster():
    """A head without cores to explain with, and two nodes with a core each."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture(scope="module")
def whole():
    return table_explainer()(rows(COUNT))


def test_a_step_of_ray_data(cluster, whole):
    import pandas as pd

    frame = pd.DataFrame(rows(COUNT), columns=list("abcd")).assign(key=np.arange(COUNT))
    ds = ray.data.from_pandas(frame).repartition(4)
    found = deepshap.ray.explain(ds, table_explainer(), id="key", batch_size=7, concurrency=2).to_pandas()
    found = found.sort_values("id")
    np.testing.assert_array_equal(found["id"], np.arange(COUNT))
    np.testing.assert_allclose(np.stack(found["values"]).reshape(COUNT, 4, 2), whole.values, atol=1e-6)


def test_parts_on_actors(cluster, whole, tmp_path):
    found = explain_dataset(
        table_explainer(), rows(COUNT), tmp_path, rows_per_part=6, workers=2, ray="auto", progress=False
    )
    np.testing.assert_allclose(found[:].values, whole.values, atol=1e-6)
