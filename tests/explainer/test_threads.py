"""One explainer, used by several threads at once, gives each the values that it gives one alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from games import explainer, keras_twin, reader, rows

THREADS, STEPS = 4, 4
MODEL, R = reader(scale=2), rows(3, STEPS, 2).numpy()
DIAL = {"effort": 2, "players": "steps"}
TASKS = [rows(1 + k % 3, STEPS, 2, seed=k).numpy() for k in range(8)]


def own_references(x):
    """As many as the example says, different ones for each."""
    x = np.asarray(x[0])
    return R[: 1 + int(abs(x).sum() * 10) % 3] + x.mean()


@pytest.mark.parametrize(
    ("framework", "background", "options"),
    [  # the lock is that of both engines: twice is enough where each call makes a graph
        pytest.param("torch", R, {}, id="torch-rows-plain"),
        pytest.param("torch", R, DIAL, id="torch-rows-dial"),
        pytest.param("torch", own_references, {}, id="torch-function-plain"),
        pytest.param("torch", own_references, DIAL, id="torch-function-dial"),
        pytest.param("keras", R, DIAL, id="keras-rows-dial"),
        pytest.param("keras", own_references, {}, id="keras-function-plain"),
    ],
)
def test_threads_get_what_each_gets_alone(framework, background, options):
    model = MODEL if framework == "torch" else keras_twin(MODEL, STEPS)
    made, other = (explainer(model, background) for _ in range(2))
    alone = [other(x, **options).values for x in TASKS]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda x: made(x, **options).values, TASKS))
    for one, wanted in zip(found, alone, strict=True):
        np.testing.assert_allclose(one, wanted, rtol=0, atol=1e-12)
