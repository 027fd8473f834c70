"""Queries whose keys are all masked, on one side or on both: one rule in both engines, whatever number stands for infinity.

The softmax of such a row is uniform. What each key owes to its own mask is ``v_i (p_i - p_r_i)``; what keys owe that are
masked on both sides is shared equally by those whose mask changes (docs/mathematics.md, "Logsumexp and softmax").
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from helpers import assert_close

import deepshap

KEYS, OUTPUTS = 5, 2
SCORES, VALUES = np.random.default_rng(0).normal(size=KEYS), np.random.default_rng(1).normal(size=(KEYS, OUTPUTS))
NUMBERS = (-1e9, -1e20, -1e30, 0.7 * float(np.finfo("float32").min), float(np.finfo("float64").min))
HUGE = (-1e20, -1e30, 0.7 * float(np.finfo("float32").min), float(np.finfo("float64").min))

ALL, SOME, NONE = [1] * KEYS, [1, 0, 1, 0, 1], [0] * KEYS
SIDES = {
    "masked in the example": (NONE, ALL),
    "masked in the reference": (ALL, NONE),
    "some masked before": (NONE, SOME),
    "some masked after": (SOME, NONE),
}


def flags(kept: list[int], seed: int) -> np.ndarray:
    """A row of numbers that are positive where a key is kept."""
    return (np.abs(np.random.default_rng(seed).normal(size=(1, KEYS))) + 0.1) * (2 * np.array(kept) - 1)


@cache  # of one model of TensorFlow what explains it is traced once
def attend(framework: str, number: float, scored: bool = False, added: bool = False) -> Any:
    """Attention to the keys whose number is positive; ``scored``: their scores depend on it too; ``added``: mask + scores."""
    if framework == "torch":
        scores, values = torch.as_tensor(SCORES), torch.as_tensor(VALUES)

        def by_torch(x: torch.Tensor) -> torch.Tensor:
            s = scores * torch.sin(x) if scored else scores.expand_as(x)
            logits = torch.where(x > 0, torch.zeros_like(x), number) + s if added else torch.where(x > 0, s, number)
            return torch.softmax(logits, -1) @ values

        return by_torch

    @tf.function
    def by_tensorflow(x: Any) -> Any:
        s = SCORES * tf.sin(x) if scored else tf.broadcast_to(tf.constant(SCORES), tf.shape(x))
        number_of = tf.constant(number, x.dtype)
        logits = tf.where(x > 0, tf.zeros([], x.dtype), number_of) + s if added else tf.where(x > 0, s, number_of)
        return tf.nn.softmax(logits) @ VALUES

    return by_tensorflow


def explained(framework: str, x: np.ndarray, r: np.ndarray, *options: Any) -> np.ndarray:
    """Explain in float64."""
    model = attend(framework, *options)
    sides = (torch.as_tensor(x), torch.as_tensor(r)) if framework == "torch" else (x, r)
    return deepshap.DeepExplainer(model, sides[1], progress=False).shap_values(sides[0])[0]


def probabilities(kept: list[int]) -> np.ndarray:
    """The softmax over the keys that are kept; uniform where none is."""
    e = np.exp(SCORES) * kept if any(kept) else np.ones(KEYS)
    return e / e.sum()


@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES.keys())
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_every_key_answers_for_itself(framework, number, sides):
    kept, kept_r = sides
    own = VALUES * (probabilities(kept) - probabilities(kept_r))[:, None]
    piecewise_constant = np.not_equal(kept, kept_r)[:, None]
    wanted = np.where(piecewise_constant, own + own[~piecewise_constant[:, 0]].sum(0) / piecewise_constant.sum(), 0)
    assert_close(explained(framework, flags(kept, 2), flags(kept_r, 3), number), wanted)


@pytest.mark.parametrize("added", [False, True], ids=["chosen", "added"])
@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES.keys())
def test_the_number_that_stands_for_infinity_does_not_matter_nor_does_the_framework(sides, added):
    x, r = flags(sides[0], 2), flags(sides[1], 3)
    wanted = explained("torch", x, r, HUGE[0], True, added)
    for framework in ("torch", "tensorflow"):
        for number in HUGE:
            assert_close(explained(framework, x, r, number, True, added), wanted)


@pytest.mark.parametrize("added", [False, True], ids=["chosen", "added"])
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_what_is_masked_on_both_sides_has_no_influence(framework, added):
    assert not explained(framework, flags(NONE, 2), flags(NONE, 3), -1e30, True, added).any()
