"""What every operation of ``keras_cases.py`` and ``keras_rare_cases.py`` is tested for."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from keras_rare_cases import CASES
from planning import chunks_of

import deepshap

ROWS, REFERENCES = 2, 3
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


def explained(model, background, X):
    explainer = deepshap.DeepExplainer(tf.function(model), background, progress=False)
    return explainer, explainer.shap_values(X)


def settings():
    """Every case in each of its dtypes, in the last with other chunks and more; the first alone is in ``make fast``."""
    for case in CASES:
        first, last = case.dtypes[0], case.dtypes[-1]
        yield pytest.param(case, first, False, id=f"{case.name}-{first}", marks=pytest.mark.fast)
        yield pytest.param(case, last, True, id=f"{case.name}-{last}, chunks")


def test_no_case_has_more_dtypes():
    assert max(len(case.dtypes) for case in CASES) == 2


@pytest.mark.parametrize(("case", "dtype", "chunks"), settings())
def test_an_operation_is_explained_exactly(case, dtype, chunks):
    model, background, X = case.model(dtype), case.rows(REFERENCES, 1, dtype), case.rows(ROWS, 2, dtype)
    explainer, values = explained(model, background, X)
    outputs, expected = (np.asarray(model(tf.constant(v)), np.float64) for v in (X, background))
    scale = max(abs(outputs).max(), abs(expected).max())
    assert abs(values.sum(1, dtype=np.float64) - (outputs - expected.mean(0))).max() <= TOLERANCE[dtype] * scale
    if chunks:
        tolerance = TOLERANCE[dtype] * max(abs(values).max(), 1e-3)
        with chunks_of(1, 2):
            assert abs(explainer.shap_values(X) - values).max() <= tolerance  # batch mates and chunks do not matter
        assert not explained(model, X[:1], X[:1])[1].any()


@pytest.mark.parametrize("case", [c for c in CASES if c.smooth and "float64" in c.dtypes], ids=lambda case: case.name)
def test_multipliers_tend_to_the_gradient(case):
    model, X = case.model("float64"), case.rows(1, 2, "float64")
    change = 1e-6 * np.random.default_rng(0).normal(size=X.shape)
    values = explained(model, X - change, X)[1][0]
    step = 1e-5 * np.eye(X.shape[1])
    middle = X - change / 2
    slopes = (np.asarray(model(tf.constant(middle + step))) - np.asarray(model(tf.constant(middle - step)))) / 2e-5
    wanted = slopes * change.T
    assert (
        abs(values - wanted).max() <= 1e-6 * (abs(slopes).max() + 1e-6 * abs(slopes).max() + 1) * abs(change).max() * 10
    )
