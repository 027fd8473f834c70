"""Settings of all tests, and what several modules of them need once."""

import gc
import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("triton"):
    import triton  # noqa: F401 # Triton aborts a process that has loaded TensorFlow before it

import pytest
import torch

pytest.register_assert_rewrite("helpers", "browser")
torch.set_num_threads(1)
gc.disable()  # until all is imported, of which nothing becomes garbage

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
OF_FOLDER = {"torch": "engines/torch", "tensorflow": "engines/tensorflow"}


def pytest_collection_modifyitems(items):
    """Mark tests of an engine by their folder, and those that need a browser by their fixture; what takes long goes first.

    So no process is left with a long file at the end, when the others have nothing to do.
    """
    for item in items:
        for marker, folder in OF_FOLDER.items():
            if item.path.is_relative_to(Path(__file__).parent / folder):
                item.add_marker(marker)
        if "browser" in item.fixturenames:
            item.add_marker("browser")
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in ("slow", "tensorflow", "browser")])


def pytest_collection_finish():
    """Imports and tests are a million objects, which garbage collection need not look through again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


@pytest.fixture(autouse=True)
def no_figures_of_other_tests():
    """shap's plots draw into the current figure, whoever left it."""
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    """XLA takes seconds, where a busy machine lets a small function look slow: test_keras_backward.py looks at it."""
    contributions = sys.modules.get("deepshap.engines.tensorflow.backward")
    if contributions is not None:
        monkeypatch.setattr(contributions, "PAYS", float("inf"))


@pytest.fixture(autouse=True)
def nothing_done_before(monkeypatch):
    """The work of other tests counts for none: whether a recurrent layer's steps are written out does not depend on these."""
    products = sys.modules.get("deepshap.engines.torch.recurrent.fused")
    threshold = sys.modules.get("deepshap.kernels.jit_threshold")
    if threshold is not None:
        monkeypatch.setattr(threshold, "_compile_all", False)
    if products is not None:
        monkeypatch.setattr(products.THRESHOLD, "work", {})


@pytest.fixture
def register():
    """Register rules for the length of a test."""
    import deepshap

    registered = []

    def add(function, rule):
        deepshap.register_rule(function, rule)
        registered.append(function)

    yield add
    for function in registered:
        deepshap.unregister_rule(function)


@pytest.fixture(scope="session")
def build():
    """What runs the notebooks."""
    spec = importlib.util.spec_from_file_location("build_notebooks", NOTEBOOKS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def models_under_torch(tmp_path_factory, request):
    """What ``keras_checks.py`` finds of Keras models under KERAS_BACKEND=torch, by the name of the model.

    Where long tests run they are examined; the others look at the values alone.
    """
    from filelock import FileLock
    from keras_checks import Findings

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if hasattr(request.config, "workerinput") else folder  # the workers of xdist share one
    file = folder / "models_under_torch"
    with FileLock(f"{file}.lock"):
        if not file.exists():
            program = Path(__file__).parent / "support" / "keras_checks.py"
            environment = {**os.environ, "KERAS_BACKEND": "torch"}
            readers = [item for item in request.session.items if "models_under_torch" in item.fixturenames]
            long = any(item.get_closest_marker("long") for item in readers)
            names = ["all"] if long else sorted({item.callspec.params["case"].name for item in readers})
            command = [sys.executable, str(program), str(file), *names]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            assert done.returncode == 0, done.stderr
    return {name: Findings(**found) for name, found in pickle.loads(file.read_bytes()).items()}


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    from browser import launched

    with launched() as found:
        yield found


@pytest.fixture
def opened(browser, tmp_path):
    """Write an explanation's report and open it; it must stay quiet."""
    from browser import Report

    reports = []

    def write_and_open(explanation, address="", width=1400, scheme="light", **options):
        path = explanation.report(tmp_path / f"report-{len(reports)}.html", **options)
        reports.append(Report(browser, path, width, scheme).open(address))
        return reports[-1]

    yield write_and_open
    for each in reports:
        assert each.problems == []
        each.close()
