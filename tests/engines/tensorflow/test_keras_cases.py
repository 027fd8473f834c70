"""What every operation of ``cases.of_tensorflow`` and ``cases.rare_of_tensorflow`` is tested for.

A case is one test: the function that explains it takes long to make, and serves every check.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import torch
from cases.both import SHARED
from cases.rare_of_tensorflow import CASES
from planning import chunks_of, with_background

import deepshap

ROWS, REFERENCES = 2, 3
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


def settings():
    """Every case in each of its dtypes; the first alone is in ``make fast``."""
    for case in CASES:
        for number, dtype in enumerate(case.dtypes):
            yield pytest.param(case, dtype, id=f"{case.name}-{dtype}", marks=() if number else pytest.mark.fast)


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_case_is_for_both_engines_or_says_why_not():
    assert {case.name for case in CASES if not case.shared.alone} == {shared.name for shared in SHARED}


@pytest.mark.parametrize(("case", "dtype"), list(settings()))
def test_an_operation_is_explained_exactly(case, dtype):
    model, background, X = case.model(dtype), case.rows(REFERENCES, 1, dtype), case.rows(ROWS, 2, dtype)
    explainer = deepshap.DeepExplainer(tf.function(model, autograph=False), background, progress=False)
    values = explainer.shap_values(X)
    assert_sums(values, model, background, X, TOLERANCE[dtype])
    tolerance = TOLERANCE[dtype] * max(abs(values).max(), 1e-3)
    with chunks_of(1, 2):
        assert abs(explainer.shap_values(X) - values).max() <= tolerance  # batch mates and chunks do not matter
    assert not with_background(explainer, X[:1]).shap_values(X[:1]).any()
    if dtype == "float64":
        if case.smooth:
            assert_tends_to_the_gradient(explainer, model, X[:1])
        if case.in_both:
            assert_engines_agree(explainer, case, X, background)


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
