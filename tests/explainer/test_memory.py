"""What is taken at a time fits into the budget, and there are no fewer chunks that would."""

from __future__ import annotations

import itertools
import math

import pytest

from deepshap.engines.interface import Footprint
from deepshap.memory import evenly, plan_for

FOOTPRINTS = Footprint(157, 147, 12), Footprint(15_681, 14_561, 962), Footprint(0, 0, 40), Footprint(3, 900, 50)


def taken(footprint: Footprint, examples: int, references: int) -> int:
    return references * footprint.reference + examples * (footprint.example + references * footprint.pair)


@pytest.mark.parametrize("most", [1, 30, 4096])
@pytest.mark.parametrize(("examples", "references"), [(1, 1), (8, 100), (60, 30), (1, 40), (40, 1)])
@pytest.mark.parametrize("footprint", FOOTPRINTS, ids=str)
def test_the_fewest_chunks_that_fit(footprint, examples, references, most):
    def chunks(n: int, b: int) -> int:
        return math.ceil(examples / n) * math.ceil(references / b)

    for pairs in (1, 7, 300, 10_000):
        budget = pairs * sum(footprint)
        sizes = itertools.product(range(1, examples + 1), range(1, references + 1))
        fitting = [(n, b) for n, b in sizes if taken(footprint, n, b) <= budget and n * b <= most]
        plan = plan_for(footprint, examples, references, budget, most)
        found = plan.examples, plan.references
        assert found in fitting
        assert chunks(*found) == (fewest := min(itertools.starmap(chunks, fitting)))
        assert found[::-1] == max((b, n) for n, b in fitting if chunks(n, b) == fewest)


@pytest.mark.parametrize("pairs", [200, 700, 5_000, 10_000_000])
@pytest.mark.parametrize("footprint", FOOTPRINTS, ids=str)
def test_what_is_compiled_has_room_for_that(footprint, pairs):
    compiler = 10_000
    budget = compiler + pairs * sum(footprint)
    plan = plan_for(footprint, 60, 300, budget, compiler=compiler)
    assert 2 * taken(footprint, plan.examples, plan.references) + compiler <= budget
    assert plan.memory == budget
    if pairs == 10_000_000:
        assert plan.rows == plan_for(footprint, 60, 300, budget).rows


def test_a_few_pairs_are_not_worth_compiling():
    budget = 10_000 + 127 * sum(FOOTPRINTS[0])
    assert plan_for(FOOTPRINTS[0], 60, 300, budget, compiler=10_000) == plan_for(FOOTPRINTS[0], 60, 300, budget)


@pytest.mark.parametrize(
    ("count", "most", "rows"), [(10, 4, [0, 3, 6, 9]), (3, 50, [0, 1, 2]), (5, 1, [0]), (0, 4, [])]
)
def test_rows_are_spread_evenly(count, most, rows):
    assert evenly(count, most).tolist() == rows
