"""One explainer, used by several threads at once, gives each the values that it gives one alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from games import explainer, keras_twin, reader, rows

THREADS, STEPS = 4, 4
MODEL, R = reader(scale=2), rows(3, STEPS, 2).numpy()
TASKS = [rows(1 + k % 3, STEPS, 2, seed=k).numpy() for k in range(8)]


def own_references(x):
    """As many as the example says, different ones for each."""
    x = np.asarray(x[0])
    return R[: 1 + int(abs(x).sum() * 10) % 3] + x.mean()


@pytest.mark.parametrize("background", [R, own_references], ids=["rows", "function"])
@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("options", [{}, {"effort": 2, "players": "steps"}], ids=["plain", "dial"])
def test_threads_get_what_each_gets_alone(framework, background, options):
    model = MODEL if framework == "torch" else keras_twin(MODEL, STEPS)
    made, other = (explainer(model, background) for _ in range(2))
    alone = [other(x, **options).values for x in TASKS]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda x: made(x, **options).values, TASKS))
    for one, wanted in zip(found, alone, strict=True):
        np.testing.assert_allclose(one, wanted, rtol=0, atol=1e-12)
