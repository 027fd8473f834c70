"""Models of Keras' layers on TensorFlow: exact, and equal to what the PyTorch engine finds under KERAS_BACKEND=torch."""

from __future__ import annotations

import pytest
from keras_checks import COVERED, ONE_OF_A_KIND, TOLERANCE, distance, examine
from keras_models import CASES

ALIKE = {"float64": 1e-7, "float32": 1e-5}


def tier(case):
    if case.name.startswith(COVERED):
        return pytest.mark.long
    return () if case.name in ONE_OF_A_KIND else pytest.mark.wide


@pytest.mark.parametrize("case", [pytest.param(case, marks=tier(case)) for case in CASES], ids=lambda case: case.name)
def test_a_model_is_explained_exactly(case, models_under_torch):
    found = examine(case)
    assert found.gap <= TOLERANCE[case.widest]
    assert found.gap32 <= 1e-4
    assert found.chunks <= TOLERANCE[case.widest]
    assert found.nothing == 0
    assert not found.changed
    for values, wanted in zip(found.values, models_under_torch[case.name].values, strict=True):
        assert distance(values, wanted) <= ALIKE[case.widest]
