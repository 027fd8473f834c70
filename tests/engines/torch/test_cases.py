"""What every case of the table is tested for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases.both import SHARED
from cases.of_torch import CASES, Case
from helpers import (
    LOW_PRECISION,
    TOLERANCE,
    assert_close,
    change,
    explain,
    explainer_of,
    finite_differences,
    leaves,
    pair_outputs,
    rows_of,
    rows_of_args,
    snapshot,
    totals,
)
from planning import chunks_of
from tiers import mostly_wide

ROWS, REFERENCES = 2, 3
STEP = {torch.float64: 1e-6, torch.float32: 3e-7}  # between a reference and an example close to it
NEAR = {torch.float64: 1e-6, torch.float32: 1e-3}  # and how far its slopes may be from the gradient
THIRD = {case.name for case in CASES[::3]}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def tolerance(case: Case, dtype: torch.dtype) -> float:
    """Return the tolerance of the least precise dtype in the model."""
    promised = TOLERANCE | LOW_PRECISION
    return max(promised[dtype], promised[case.through])


def is_real(case: Case) -> bool:
    """Whether the case has a gradient that finite differences find."""
    return case.domain != "tokens" and case.through == torch.float64


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_case_is_for_both_engines_or_says_why_not():
    assert {case.name for case in CASES if not case.alone} == {shared.name for shared in SHARED}


@pytest.mark.fast
@every_case
def test_attributions_add_up_whatever_the_chunks_and_leave_the_model_alone(case):
    """A row alone, with two references at a time and then one: batch mates and other references do not matter."""
    model, background, X, args = case.model(), case.inputs(REFERENCES, 1), case.inputs(ROWS, 2), case.args(ROWS)
    before, explainer = snapshot(model), explainer_of(case, model, background)
    values = leaves(explainer.shap_values(X, additional_forward_args=args or None))
    assert snapshot(model) == before
    assert_sums(case, model, background, X, args, values, torch.float64)
    last = slice(ROWS - 1, ROWS)
    with chunks_of(1, 2):
        alone = explainer.shap_values(rows_of(X, last), additional_forward_args=rows_of_args(args, last) or None)
    for found, wanted in zip(leaves(alone), values, strict=True):
        assert_close(found, wanted[last], tolerance(case, torch.float64))


@every_case
def test_no_difference_has_no_attribution_and_a_small_one_that_of_the_gradient(case):
    model, reference, X, args = beside_a_reference(case, torch.float64)
    values = explain(case, model, reference, X, args)
    assert_nothing(values, 0)
    assert_tends_to_the_gradient(case, values, 1, reference, X, args, torch.float64)


@pytest.mark.parametrize("case", mostly_wide(CASES, THIRD, key=lambda case: case.name), ids=lambda case: case.name)
def test_the_same_in_single_precision(case):
    model, reference, X, args = beside_a_reference(case, torch.float32, further=1)
    values = explain(case, model, reference, X, args)
    assert_sums(case, model, reference, X, args, values, torch.float32)
    assert_nothing(values, 0)
    assert_tends_to_the_gradient(case, values, 1, reference, X, args, torch.float32)


def beside_a_reference(case: Case, dtype: torch.dtype, further: int = 0) -> tuple[Any, ...]:
    """Return model, a reference, and rows: the reference itself, one close to it, and further ones; their arguments."""
    generator, drawn = torch.Generator().manual_seed(0), case.inputs(1 + further, 2, dtype)

    def beside(x: torch.Tensor) -> torch.Tensor:
        moves = STEP[dtype] * torch.randn(x[:1].shape, generator=generator, dtype=dtype) if is_real(case) else 0
        return torch.cat([x[:1] + moves, x])

    X = change(drawn, beside)
    return case.model(dtype), rows_of(X, slice(0, 1)), X, case.args(2 + further)


def assert_sums(case: Case, model: Any, background: Any, X: Any, args: Any, values: Any, dtype: torch.dtype) -> None:
    """Attributions add up to the differences of outputs, as the model's user would compute them."""
    outputs, expected = pair_outputs(case, model, background, X, args)
    scale = max(np.abs(outputs).max(), np.abs(expected).max())
    gap = np.abs(totals(values, X) - (outputs - expected.mean(1))).max()
    assert gap <= tolerance(case, dtype) * scale


def assert_nothing(values: list[np.ndarray], row: int) -> None:
    """A row that is its own reference has no attributions at all."""
    assert all(np.array_equal(found[row], np.zeros_like(found[row])) for found in values)


def assert_tends_to_the_gradient(
    case: Case, values: list[np.ndarray], row: int, reference: Any, X: Any, args: Any, dtype: torch.dtype
) -> None:
    """Attributions of a row close to its reference are differences times slopes."""
    if not is_real(case):
        return
    at = slice(row, row + 1)
    X, args = rows_of(X, at), rows_of_args(args, at)
    pairs = [(x.double(), r.double()) for x, r in zip(leaves(X), leaves(reference), strict=True)]
    differences = np.concatenate([(x - r).flatten().numpy() for x, r in pairs])
    found = np.concatenate([v[at].reshape(x.numel(), -1) for v, x in zip(values, leaves(X), strict=True)])
    slopes, scale = finite_differences(case, case.model(), [(x + r) / 2 for x, r in pairs], args)
    wanted = slopes.reshape(len(differences), -1) * differences[:, None]
    largest = np.abs(differences).max() * (np.abs(slopes).max() + 1e-6 * scale)
    assert np.abs(found - wanted).max() <= NEAR[dtype] * largest
