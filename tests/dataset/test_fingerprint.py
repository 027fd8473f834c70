"""Fingerprints: the same in every process, another for whatever changes results."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict

import dataset_models as models
import numpy as np
import pytest
import torch
from cli_models import Forecast
from dataset_models import ragged_explainer, rows, table_explainer

import deepshap
from deepshap import InputError, explain_dataset
from deepshap.dataset import run
from deepshap.dataset.fingerprint import digest
from deepshap.sampling import DeepShap

SCALE = 2.0


def function(x, factor=3.0):
    return SCALE * factor * x


def made(code, **names):
    """A function of some code, as a user's module has it."""
    namespace = {"__name__": "somewhere", **names}
    exec(code, namespace)
    return namespace["f"]


class Plain:
    def __init__(self, value):
        self.value, self.me = value, self


def closure(value):
    return lambda x: x * value


def with_attribute(value):
    layer = torch.nn.Identity()
    layer.scale = value
    return layer


EQUAL = {
    "numbers": lambda: [1, 2.5, None, True, "text", b"bytes", float("nan")],
    "arrays": lambda: np.arange(6.0).reshape(2, 3),
    "objects in arrays": lambda: np.array(["a", None, 1.5], dtype=object),
    "tensors": lambda: torch.arange(6.0, dtype=torch.bfloat16).reshape(2, 3),
    "a single number in a tensor": lambda: torch.tensor(3.0),
    "a sparse tensor": lambda: torch.eye(3).to_sparse(),
    "sets": lambda: {"b", "a", frozenset({1, 2})},
    "objects with a way back": lambda: Plain([1, {"a": Plain(2)}]),
    "functions": lambda: made("def f(x):\n    return x + g(x)", g=len),
    "closures": lambda: closure(3),
    "partials and methods": lambda: [functools.partial(function, factor=2), Plain(1).__init__, np.tanh, torch.tanh],
    "models": lambda: Forecast(),
    "generators of numbers": lambda: np.random.default_rng(0),
    "types": lambda: [torch.float32, np.dtype("f4"), slice(1, 2), range(3), OrderedDict],
}


@pytest.mark.parametrize("name", EQUAL)
def test_what_is_made_again_is_the_same(name):
    assert digest(EQUAL[name]()) == digest(EQUAL[name]())


DIFFERENT = {
    "a number": (1, 2),
    "the type of a number": (1, 1.0),
    "an order": ([1, 2], [2, 1]),
    "an array": (np.zeros(3), np.array([0, 0, 1e-300])),
    "a shape": (np.zeros((2, 3)), np.zeros((3, 2))),
    "a dtype": (np.zeros(2, np.float32), np.zeros(1)),
    "a tensor's dtype": (torch.zeros(2, dtype=torch.float16), torch.zeros(2, dtype=torch.bfloat16)),
    "code": (made("def f(x):\n    return x + 1"), made("def f(x):\n    return x - 1")),
    "a constant in code": (made("def f(x):\n    return x + 1"), made("def f(x):\n    return x + 2")),
    "a default": (made("def f(x, a=1):\n    return a"), made("def f(x, a=2):\n    return a")),
    "a weight of a model that a function calls": (closure(torch.nn.Linear(2, 1)), closure(torch.nn.Linear(2, 1))),
    "an attribute of a layer": (with_attribute(1), with_attribute(2)),
    "a tensor of a layer": (with_attribute(torch.ones(2)), with_attribute(torch.zeros(2))),
    "an argument of a partial": (functools.partial(function, factor=1), functools.partial(function, factor=2)),
    "a global variable": (made("def f(x):\n    return x * g", g=1), made("def f(x):\n    return x * g", g=2)),
    "a closure": (closure(1), closure(2)),
    "an attribute": (Plain(1), Plain(2)),
    "the layers' order": (
        torch.nn.Sequential(torch.nn.Tanh(), torch.nn.ReLU()),
        torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Tanh()),
    ),
    "an option of a layer": (torch.nn.LeakyReLU(0.1), torch.nn.LeakyReLU(0.2)),
    "a function of a package": (np.tanh, np.sinh),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_is_different_differs(name):
    one, other = DIFFERENT[name]
    assert digest(one) != digest(other)


def test_arrays_on_disk_are_read_in_pieces(tmp_path):
    array = np.random.default_rng(0).normal(size=(70_000, 40))
    np.save(tmp_path / "x.npy", array)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert digest(mapped) == digest(np.array(mapped)) == digest(array)
    assert digest(array[::-1]) != digest(array)


def test_what_cannot_be_read_does_not_count():
    assert digest({"a": threading.Lock()}) == digest({"a": threading.Lock()}) != digest({"b": threading.Lock()})


def depends(explainer):
    return {name: digest(value) for name, value in explainer.depends_on.items()}


def test_explaining_changes_nothing():
    explainer = table_explainer()
    before = depends(explainer)
    explainer(rows(3))
    assert depends(explainer) == before
    explainer.engine.model.train()
    assert depends(explainer) == before
    assert depends(table_explainer()) == before


PROGRAM = """
import json
from dataset_models import ragged_explainer, table_explainer
from deepshap.dataset.fingerprint import digest
print(json.dumps([{n: digest(v) for n, v in e().depends_on.items()} for e in (ragged_explainer, table_explainer)]))
"""


@pytest.mark.wide
def test_another_process_finds_the_same():
    importlib.import_module("tensorflow")  # whether it is loaded, and its engine, must not matter
    importlib.import_module("deepshap.engines.tensorflow.table")
    support = os.path.dirname(models.__file__)
    path = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONHASHSEED": "12", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == [depends(ragged_explainer()), depends(table_explainer())]


RESULTS = {
    "effort": {"effort": 9},
    "seed": {"effort": 9, "seed": 1},
    "tolerance": {"tolerance": 0.1},
    "most effort": {"tolerance": 0.1, "max_effort": 9},
    "players": {"players": "features"},
    "groups of players": {"players": np.array([0, 0, 1, 1])},
    "ranked": {"ranked_outputs": 1},
    "lowest": {"ranked_outputs": 1, "output_rank_order": "min"},
    "a target": {"target": "predicted"},
    "true classes": {"target": "predicted", "targets": np.zeros(5, int)},
    "other classes": {"target": "predicted", "targets": np.ones(5, int)},
    "some rows": {"rows": (0, 4)},
    "other rows": {"rows": (1, 5)},
    "raw": {"raw": np.ones((5, 4))},
    "parts": {"rows_per_part": 2},
    "a method": {"method": DeepShap(description="by another name")},
    "nothing": {},
}
NOT_RESULTS = {
    "what is so by default": {"effort": 1.0, "players": "cells", "tolerance": None, "seed": 0},
    "what is done about errors": {"on_error": "keep"},
    "who explains": {"workers": 1},
    "a bar": {"progress": None},
}


def manifest(folder, explainer=None, x=None, **options):
    """The fingerprint of a run, of which nothing is explained."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Run, "execute", lambda self, *_: found.update(self.described["fingerprint"]))
        patch.setattr(run, "ExplanationDataset", Plain)
        explain_dataset(explainer or table_explainer(), rows(5) if x is None else x, folder, **options)
    return found


def test_all_options_that_change_results_and_no_others_change_the_fingerprint(tmp_path):
    found = {name: manifest(tmp_path / name, **options) for name, options in RESULTS.items()}
    assert len({json.dumps(one) for one in found.values()}) == len(RESULTS)
    for name, options in NOT_RESULTS.items():
        assert manifest(tmp_path / name, **options) == found["nothing"], name
    explainer = table_explainer()
    explainer.max_memory //= 2
    assert manifest(tmp_path / "memory", explainer) == found["nothing"]
    explainer(rows(2), effort=9)
    assert manifest(tmp_path / "used", explainer) == found["nothing"]
    np.save(tmp_path / "moved.npy", rows(5))
    assert manifest(tmp_path / "file", x=tmp_path / "moved.npy") == found["nothing"]


def test_every_option_of_an_explainer_is_thought_of():
    """What a call of the explainer takes beside its rows, and explain_dataset hands on or gives by itself."""
    taken = set(inspect.signature(deepshap.DeepExplainer.__call__).parameters) - {"self", "X"}
    tried = {name for options in RESULTS.values() for name in options}
    assert taken - tried == {"additional_forward_args", "check_additivity"}  # refused; another option's errors


PRECISIONS = {
    "the model's": lambda: table_explainer(models.Table().double()),
    "the background's": lambda: table_explainer(references=6),
    "what is explained": lambda: deepshap.DeepExplainer(models.Table(), rows(5, seed=1), output=lambda y: y[:, :1]),
    "a layer": lambda: deepshap.DeepExplainer((model := models.Table(), model.net[1]), rows(5, seed=1)),
    "names": lambda: deepshap.DeepExplainer(models.Table(), rows(5, seed=1), feature_names=list("abcd")),
}


@pytest.mark.parametrize("name", PRECISIONS)
def test_what_an_explainer_is_made_of_changes_the_fingerprint(name, tmp_path):
    assert manifest(tmp_path / "a") != manifest(tmp_path / "b", PRECISIONS[name]())


def test_keras_models(tmp_path):
    import keras

    def model(activation="tanh"):
        keras.utils.set_random_seed(0)
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, activation), keras.layers.Dense(2)])

    def explainer(model):
        return deepshap.DeepExplainer(model, rows(5, seed=1), progress=False)

    wanted = explainer(model())(rows(9))
    found = explain_dataset(explainer(model()), rows(9), tmp_path, rows_per_part=4, progress=False)
    np.testing.assert_allclose(found[:].values, wanted.values, rtol=1e-5, atol=1e-6)
    again = explain_dataset(explainer(model()), rows(9), tmp_path, rows_per_part=4, progress=False)
    assert again.statistics["resumed_parts"] == 3
    changed = model()
    changed.weights[0].assign(changed.weights[0] + 1e-3)
    for other in (changed, model("relu")):
        with pytest.raises(InputError, match="made otherwise: model"):
            explain_dataset(explainer(other), rows(9), tmp_path, rows_per_part=4, progress=False)


def test_keras_models_of_a_class_have_their_attributes():
    import keras

    class Scaled(keras.Model):
        def __init__(self, scale):
            super().__init__()
            self.dense, self.scale = keras.layers.Dense(2, kernel_initializer="ones"), scale

        def call(self, x):
            return self.dense(x) * self.scale

    def built(scale):
        model = Scaled(scale)
        model(rows(1))
        return model

    assert digest(built(1.0)) == digest(built(1.0))
    assert digest(built(1.0)) != digest(built(2.0))
