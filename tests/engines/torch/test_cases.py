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

ROWS, REFERENCES = 2, 3
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
real_case = pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.domain != "tokens" and case.through == torch.float64],
    ids=lambda case: case.name,
)


def setting(case: Case, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    """Return model, background, rows to explain and their arguments."""
    return case.model(dtype), case.inputs(REFERENCES, 1, dtype), case.inputs(ROWS, 2, dtype), case.args(ROWS)


def tolerance(case: Case, dtype: torch.dtype) -> float:
    """Return the tolerance of the least precise dtype in the model."""
    promised = TOLERANCE | LOW_PRECISION
    return max(promised[dtype], promised[case.through])


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_case_is_for_both_engines_or_says_why_not():
    assert {case.name for case in CASES if not case.alone} == {shared.name for shared in SHARED}


@pytest.mark.parametrize("dtype", [pytest.param(torch.float64, marks=pytest.mark.fast), torch.float32], ids=str)
@every_case
def test_attributions_add_up_and_leave_the_model_alone(case, dtype):
    model, background, X, args = setting(case, dtype)
    before = snapshot(model)
    values = explain(case, model, background, X, args)
    assert snapshot(model) == before
    outputs, expected = pair_outputs(case, model, background, X, args)
    scale = max(np.abs(outputs).max(), np.abs(expected).max())
    gap = np.abs(totals(values, X) - (outputs - expected.mean(1))).max()
    assert gap <= tolerance(case, dtype) * scale


@every_case
def test_batch_mates_chunks_and_other_references_do_not_matter(case):
    model, background, X, args = setting(case)
    explainer, last = explainer_of(case, model, background), slice(ROWS - 1, ROWS)
    whole = leaves(explainer.shap_values(X, additional_forward_args=args or None))
    with chunks_of(1, 2):
        chunked = leaves(explainer.shap_values(X, additional_forward_args=args or None))
    alone, others = (
        explain(case, model, rows_of(background, some), rows_of(X, last), rows_of_args(args, last))
        for some in (slice(0, 1), slice(1, REFERENCES))
    )
    for i, values in enumerate(whole):
        assert_close(chunked[i], values, tolerance(case, torch.float64))
        assert_close(
            (alone[i] + others[i] * (REFERENCES - 1)) / REFERENCES, values[last], tolerance(case, torch.float64)
        )


@every_case
def test_nothing_to_explain_where_example_and_reference_coincide(case):
    model, _, X, args = setting(case)
    at = slice(0, 1)
    for values in explain(case, model, rows_of(X, at), rows_of(X, at), rows_of_args(args, at)):
        assert np.array_equal(values, np.zeros_like(values))


@pytest.mark.parametrize(("dtype", "step", "error"), [(torch.float64, 1e-6, 1e-6), (torch.float32, 3e-7, 1e-3)])
@real_case
def test_multipliers_tend_to_the_gradient(case, dtype, step, error):
    generator = torch.Generator().manual_seed(0)
    X, args = case.inputs(1, 2, dtype), case.args(1)
    references = change(X, lambda x: x + step * torch.randn(x.shape, generator=generator, dtype=dtype))
    pairs = [(x.double(), r.double()) for x, r in zip(leaves(X), leaves(references), strict=True)]
    differences = np.concatenate([(x - r).flatten().numpy() for x, r in pairs])
    values = explain(case, case.model(dtype), references, X, args)
    found = np.concatenate([v.reshape(x.numel(), -1) for v, x in zip(values, leaves(X), strict=True)])
    slopes, scale = finite_differences(case, case.model(), [(x + r) / 2 for x, r in pairs], args)
    wanted = slopes.reshape(len(differences), -1) * differences[:, None]
    largest = np.abs(differences).max() * (np.abs(slopes).max() + 1e-6 * scale)
    assert np.abs(found - wanted).max() <= error * largest
