"""What every operation of ``cases.of_tensorflow`` and ``cases.rare_of_tensorflow`` is tested for; the table and the cases agree.

A case is one test: the function that explains it takes long to make, and serves every check.
"""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from cases.both import SHARED, absent
from cases.rare_of_tensorflow import CASES
from packaging.version import Version
from planning import chunks_of, with_background
from tiers import mostly_wide

import deepshap
from deepshap.engines.tensorflow.engine import TensorFlowEngine
from deepshap.engines.tensorflow.graph_analysis import ACTIVE, STATIC, GraphAnalysis
from deepshap.engines.tensorflow.table import OPERATIONS

ROOT = Path(__file__).parents[3]
ROWS, REFERENCES = 2, 3
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


BOTH = [case for case in CASES if set(case.dtypes) == {"float64", "float32"}]
FIRST_BOTH = mostly_wide(CASES, {""}, key=lambda case: case.shared.alone)
TOGETHER = [BOTH[i : i + 8] for i in range(0, len(BOTH), 8)]


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_case_is_for_both_engines_or_says_why_not():
    shared = {shared.name for shared in SHARED if shared.of_tensorflow is not absent}
    assert {case.name for case in CASES if not case.shared.alone} == shared


def test_only_versions_older_than_the_pinned_ones_leave_cases_out():
    pins = dict(re.findall(r"^(keras|tensorflow)==(.*)$", (ROOT / "constraints-dev.txt").read_text(), re.MULTILINE))
    older = any(Version(package.__version__) < Version(pins[package.__name__]) for package in (keras, tf))
    assert older or [shared.name for shared in SHARED if shared.of_tensorflow is absent] == []


@pytest.mark.fast
@pytest.mark.parametrize("case", FIRST_BOTH, ids=lambda case: case.name)
def test_an_operation_is_explained_exactly(case):
    dtype = case.dtypes[0]
    model, background, X = case.model(dtype), case.rows(REFERENCES, 1, dtype), case.rows(ROWS, 2, dtype)
    explainer = deepshap.DeepExplainer(tf.function(model, autograph=False), background, progress=False)
    values = explainer.shap_values(X)
    assert_sums(values, model, background, X, TOLERANCE[dtype])
    tolerance = TOLERANCE[dtype] * max(abs(values).max(), 1e-3)
    with explainer.frozen():
        with chunks_of(1, 2):
            assert abs(explainer.shap_values(X) - values).max() <= tolerance  # batch mates and chunks do not matter
        assert not with_background(explainer, X[:1]).shap_values(X[:1]).any()
        if dtype == "float64":
            if case.smooth:
                assert_tends_to_the_gradient(explainer, model, X[:1])
            if case.in_both:
                assert_engines_agree(explainer, case, X, background)


@pytest.mark.wide
@pytest.mark.parametrize("cases", TOGETHER, ids=lambda cases: f"{cases[0].name} to {cases[-1].name}")
def test_operations_are_explained_in_single_precision(cases):
    """Side by side in one model, each of inputs of its own."""
    models = [case.model("float32") for case in cases]
    background, X = (
        [case.rows(number, seed, "float32") for case in cases] for number, seed in ((REFERENCES, 1), (ROWS, 2))
    )
    widths = [x.shape[1] for x in X]

    @tf.function(autograph=False)
    def together(x):
        return tf.concat([model(part) for model, part in zip(models, tf.split(x, widths, 1), strict=True)], 1)

    explainer = deepshap.DeepExplainer(together, np.concatenate(background, 1), progress=False)
    x = np.concatenate(X, 1)
    values = explainer.shap_values(x, check_additivity=False)  # which would turn to float64
    with chunks_of(1, 2):
        chunked = explainer.shap_values(x, check_additivity=False)
    assert not with_background(explainer, x[:1]).shap_values(x[:1]).any()
    feature = output = 0
    for case, model, r, part in zip(cases, models, background, X, strict=True):
        count = model(tf.constant(part)).shape[1]
        own = np.s_[:, feature : feature + part.shape[1], output : output + count]
        assert_sums(values[own], model, r, part, TOLERANCE["float32"])
        assert abs(chunked[own] - values[own]).max() <= TOLERANCE["float32"] * max(abs(values[own]).max(), 1e-3), (
            case.name
        )
        feature, output = feature + part.shape[1], output + count


def assert_sums(values, model, background, X, tolerance):
    outputs, expected = (np.asarray(model(tf.constant(v)), np.float64) for v in (X, background))
    scale = max(abs(outputs).max(), abs(expected).max())
    assert abs(values.sum(1, dtype=np.float64) - (outputs - expected.mean(0))).max() <= tolerance * scale


def assert_tends_to_the_gradient(explainer, model, x):
    change = 1e-6 * np.random.default_rng(0).normal(size=x.shape)
    values = with_background(explainer, x - change).shap_values(x)[0]
    step, middle = 1e-5 * np.eye(x.shape[1]), x - change / 2
    slopes = (np.asarray(model(tf.constant(middle + step))) - np.asarray(model(tf.constant(middle - step)))) / 2e-5
    wanted = slopes * change.T
    assert (
        abs(values - wanted).max() <= 1e-6 * (abs(slopes).max() + 1e-6 * abs(slopes).max() + 1) * abs(change).max() * 10
    )


def assert_engines_agree(explainer, case, X, background):
    """The same weights, the same values, to rounding; with a reference that is equal to an example, and one that is near."""
    R = np.concatenate([background, X[:1], X[1:] - 1e-9])
    of_tensorflow = with_background(explainer, R).shap_values(X)
    of_torch = deepshap.DeepExplainer(case.shared.torch_model(), torch.tensor(R), progress=False).shap_values(
        torch.tensor(X)
    )
    assert abs(of_torch - of_tensorflow).max() <= 1e-9 * max(abs(of_torch).max(), 1e-3)


# ---------------------------------------------------------------------- the table
# Other spellings of operations that are met, which TensorFlow itself no longer writes into graphs.
OLD = {
    "Add", "AccumulateNV2", "BatchMatMul", "BatchMatMulV3", "Div", "Inv", "Gather", "MaxPoolV2", "TopK", "Concat",
    "BiasAddV1", "MatrixDiag", "MatrixDiagV2", "MatrixDiagPart", "MatrixDiagPartV2", "MatrixSetDiag", "MatrixSetDiagV2",
    "Conv3DBackpropInput", "Snapshot", "CheckNumericsV2", "DebugIdentityV2", "PlaceholderWithDefault", "DeepCopy",
}  # fmt: skip
CREATED = {"EmptyTensorList", "TensorListReserve"}  # lists that hold nothing yet


def met(model, rows):
    """The types of the operations that what depends on the input passes through."""
    engine = TensorFlowEngine(model)
    with engine.session():
        points, _ = engine.read(rows, None)
        graph = engine.graph(points)
        analysis = GraphAnalysis(graph.library, OPERATIONS)
        given = len(points.inputs)
        analysis.run(graph.body, [ACTIVE] * given + [STATIC] * (len(graph.body.inputs) - given))
    return analysis.met


def test_the_operations_of_the_table_are_tensorflows():
    assert [name for name in OPERATIONS if not hasattr(tf.raw_ops, name)] == []


@pytest.mark.wide
def test_every_operation_of_the_table_is_met_by_a_case():
    seen = set()
    for case in CASES:
        seen |= met(tf.function(case.model("float32"), autograph=False), case.rows(1, 1, "float32"))
    expected = {
        name for name, operation in OPERATIONS.items() if operation.kind not in ("constant", "random", "variable")
    }
    assert sorted(expected - seen - OLD - CREATED) == []
    assert sorted(seen & OLD) == []
