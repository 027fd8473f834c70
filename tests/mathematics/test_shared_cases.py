"""Operations that every engine has are explained alike by all: the same weights, the same values, to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from shared_cases import SHARED, Shared

import deepshap


def explained(case: Shared, X: np.ndarray, R: np.ndarray) -> list[np.ndarray]:
    models: list[tuple[Any, Any]] = [
        (case.torch_model(), torch.tensor),
        (tf.function(case.tensorflow_model("float64")), tf.constant),
    ]
    return [deepshap.DeepExplainer(f, array(R), progress=False).shap_values(array(X)) for f, array in models]


def test_names_are_unique():
    assert len({case.name for case in SHARED}) == len(SHARED)


@pytest.mark.parametrize("case", [case for case in SHARED if not case.differs], ids=lambda case: case.name)
def test_engines_agree(case):
    X = case.rows(2, 2)
    R = np.concatenate([case.rows(3, 1), X[:1], X[1:] - 1e-9])  # and one that is equal, and one that is near
    of_torch, of_tensorflow = explained(case, X, R)
    assert np.abs(of_torch - of_tensorflow).max() <= 1e-9 * max(np.abs(of_torch).max(), 1e-3)
