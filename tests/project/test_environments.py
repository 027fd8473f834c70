"""Each framework works where the other is not installed, and without any there is a clear error.

The other packages are hidden from a program of its own, as if they were not there. ``make packages`` runs the same
program in real environments, each with one framework alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[1] / "support" / "one_framework.py"
HIDE = """
import runpy, sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, *place):
        return None if name.partition(".")[0] in {hidden} else super().find_spec(name, *place)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""
RUN = """
sys.argv[1:] = {arguments}
runpy.run_path({program!r}, run_name="__main__")
"""

# What is there, the backend of Keras, and what is hidden.
ENVIRONMENTS = {
    "Keras without torch": ("keras", "tensorflow", {"torch", "captum"}),
    "torch without Keras": ("torch", "tensorflow", {"tensorflow", "keras", "tf_keras"}),
    "Keras on torch without TensorFlow": ("keras", "torch", {"tensorflow", "tf_keras"}),
}


def run(code: str, hidden: set[str], backend: str = "tensorflow") -> str:
    """Run a program from which packages are hidden; return what it prints."""
    program = HIDE.format(hidden=sorted(hidden)) + code
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.wide] if " on " in n else []) for n in ENVIRONMENTS]
)
def test_a_framework_works_alone(name):
    framework, backend, hidden = ENVIRONMENTS[name]
    code = RUN.format(arguments=[framework, *sorted(hidden)], program=str(PROGRAM))
    assert run(code, hidden, backend).strip().endswith("done")


NEITHER = """
import deepshap
import numpy as np
try:
    deepshap.DeepExplainer(lambda x: x, np.zeros((2, 3)))
except ImportError as error:
    print(error)
"""


def test_without_any_framework_the_error_names_the_extras():
    printed = run(NEITHER, {"tensorflow", "keras", "tf_keras", "torch"})
    assert "deepshap[torch]" in printed
    assert "deepshap[keras]" in printed


LAZY = """
import sys
import deepshap
assert {"captum", "datasets", "plots"} <= set(dir(deepshap))
assert not {"matplotlib", "shap", "torch"} & set(sys.modules)
assert len(deepshap.datasets.seattle_weather()) == 1461
assert "matplotlib" not in sys.modules
print(deepshap.plots.heatmap.__name__, "matplotlib" in sys.modules)
"""


def test_subpackages_are_imported_when_they_are_first_used():
    assert run(LAZY, set()).split() == ["heatmap", "True"]


QUICK_START = """
import sys
import torch
import deepshap
class Last(torch.nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0][:, -1]
model = Last(3, 4, batch_first=True)
deepshap.DeepExplainer(model, torch.zeros(4, 5, 3), progress=False).shap_values(torch.ones(2, 5, 3))
print({"sympy", "shap", "pandas", "matplotlib", "torch._dynamo"} & set(sys.modules))
"""


def test_a_first_explanation_does_not_wait_for_what_it_does_not_need():
    assert run(QUICK_START, {"tensorflow", "keras", "tf_keras"}).strip() == "set()"


SHAP_LATER = """
import sys
from importlib.util import find_spec
import torch
import deepshap
explainer = deepshap.DeepExplainer(torch.nn.Linear(3, 2), torch.zeros(4, 3), progress=False)
values = explainer.shap_values(torch.ones(2, 3))
assert find_spec("shap") is not None and "shap" not in sys.modules
import shap
explanation = explainer(torch.ones(2, 3))
assert isinstance(explainer, shap.Explainer) and issubclass(deepshap.DeepExplainer, shap.Explainer)
assert isinstance(explanation, shap.Explanation) and (explanation.values == values).all()
print(type(explainer).__mro__.index(shap.Explainer))
"""


def test_explainers_are_those_of_shap_once_it_is_imported():
    assert int(run(SHAP_LATER, {"tensorflow", "keras", "tf_keras"})) > 0


OTHER_BACKEND = """
import deepshap
import keras
import numpy as np
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
keras.backend.backend = keras.config.backend = lambda: "jax"
try:
    deepshap.DeepExplainer(model, np.zeros((2, 3)))
except deepshap.InputError as error:
    print(error)
"""


def test_a_backend_that_is_not_explained_is_named():
    """A stand-in for a program under KERAS_BACKEND=jax, which need not be installed."""
    printed = run(OTHER_BACKEND, set())
    assert "'jax'" in printed
    assert "KERAS_BACKEND=tensorflow" in printed
    assert "KERAS_BACKEND=torch" in printed
