"""One explainer, used by several threads at once, gives each the values that it gives one alone."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from games import explainer, keras_twin, reader, rows

THREADS, STEPS = 6, 4
MODEL, R = reader(scale=2), rows(3, STEPS, 2).numpy()
CALLS = [{}, {"effort": 2, "players": "steps"}, {"target": lambda y: y * y}, {"ranked_outputs": 1}]
TASKS = [(rows(1 + k % 3, STEPS, 2, seed=k).numpy(), CALLS[k % len(CALLS)]) for k in range(12)]


def own_references(x):
    """As many as the example says, different ones for each, while other threads have their turn."""
    x = np.asarray(x[0])
    time.sleep(abs(x).max() / 100)
    return R[: 1 + int(abs(x).sum() * 10) % 3] + x.mean()


@pytest.fixture
def restless():
    """Threads change all the time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("background", [R, own_references], ids=["rows", "function"])
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_threads_get_what_each_gets_alone(framework, background, restless):
    model = MODEL if framework == "torch" else keras_twin(MODEL, STEPS)
    made, other = (explainer(model, background) for _ in range(2))
    tasks = TASKS if framework == "torch" else TASKS[: len(CALLS)]  # each makes a graph
    alone = [other(x, **call).values for x, call in tasks]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda task: made(task[0], **task[1]).values, tasks))
    for one, wanted in zip(found, alone, strict=True):
        np.testing.assert_allclose(one, wanted, rtol=0, atol=1e-12)


def test_two_explainers_of_a_keras_model_leave_it_as_it_was(restless):
    model = keras_twin(MODEL, STEPS)
    before = [dict(vars(layer)) for layer in model.layers]
    made = [explainer(model, R) for _ in range(2)]
    x = TASKS[0][0]
    alone = made[0](x).values
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda k: made[k % 2](x).values, range(8)))
    np.testing.assert_allclose(found, np.broadcast_to(alone, (8, *alone.shape)), rtol=0, atol=1e-12)
    assert [dict(vars(layer)) for layer in model.layers] == before


def test_a_handler_may_ask_another_explainer_of_keras():
    model = keras_twin(MODEL, STEPS)
    x, other, asked = TASKS[0][0], explainer(keras_twin(MODEL, STEPS), R), []

    def head(call):
        asked.append(other(x).values)
        return call.multipliers[0] @ np.asarray(call.module.kernel).T

    made = explainer(model, R)
    made.register_custom_handler(model.layers[-1].name, head)
    found = made(x).values
    for values in (found, *asked):  # TensorFlow calls the handler in a thread of its own, which must not wait
        np.testing.assert_allclose(values, other(x).values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_frozen_is_the_promise_of_one_thread(framework):
    """The example is 0, so that nothing changes but the outputs on the references, which one thread may keep."""
    model = reader(scale=2)
    model = model if framework == "torch" else keras_twin(model, STEPS)
    factor, x = [1.0], 0 * R[:1]
    made = explainer(lambda x: model(factor[0] * x), R)
    with made.frozen(), ThreadPoolExecutor(1) as other:
        before = made(x).values
        factor[0] = 3.0
        found = other.submit(lambda: made(x).values).result()
    assert np.abs(found - before).max() > 1e-3
    np.testing.assert_allclose(found, explainer(lambda x: model(factor[0] * x), R)(x).values, atol=1e-9)
