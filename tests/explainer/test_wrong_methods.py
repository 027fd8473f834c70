"""What is wrong with a method of one's own is told: it yields no request, or its parts do not add up."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import deepshap
from deepshap.engines.interface import Comparison
from deepshap.errors import AdditivityError, InputError
from deepshap.sampling import Attribution, Evaluation, KnownContribution, Uncertainty, WeightedComparison
from deepshap.sampling.players import parse_players

X, R = np.random.default_rng(0).normal(size=(2, 3)), np.random.default_rng(1).normal(size=(1, 3))
CELLS = parse_players("cells", [(3,)], [0], [None])


def model(x):
    return torch.stack([x[:, 0] * x[:, 1] * x[:, 2], x[:, 0] * x[:, 1]], 1)


def explain(method):
    return deepshap.DeepExplainer(model, torch.tensor(R), progress=False)(torch.tensor(X), method=method)


class Own:
    """A method of a function that yields its parts."""

    description = "of my own"

    def __init__(self, parts, players=CELLS):
        self.parts, self.players = parts, players

    def pairs(self, comparison):
        return comparison.pairs


def of_orders(comparison, weight=1.0):
    """All orders of three cells, segment by segment, as corrections of Deep SHAP."""
    rows = np.arange(2)
    yield WeightedComparison(comparison, rows, np.full(2, weight))
    x, r = comparison.examples, comparison.references[np.zeros(2, int)]
    of_rules = yield Attribution(Comparison(x, r, False, comparison.outputs))
    found = []
    for order in itertools.permutations(range(3)):
        inside, before, values = np.zeros((2, 3), bool), r, 0
        for cell in order:
            inside[:, cell] = True
            after = x.mixed(r, [inside.copy()])
            values = values + (yield Attribution(Comparison(after, before, False, comparison.outputs)))
            before = after
        found.append(values - of_rules)
    yield KnownContribution(np.mean(found, 0), rows, np.ones(2))
    yield Uncertainty(np.std(found, 0), np.stack(found) - np.mean(found, 0))


def gains(x, order):
    """What each cell adds to the outputs when it enters, (cells, outputs)."""
    now, found = R[0].copy(), np.zeros((3, 2))
    for cell in order:
        after = now.copy()
        after[cell] = x[cell]
        found[cell] = [after.prod() - now.prod(), after[:2].prod() - now[:2].prod()]
        now = after
    return found


def test_all_orders_are_the_shapley_values():
    """The mean over all orders, by the definition; their spread is what the method says of it."""
    each = np.array([[gains(x, order) for order in itertools.permutations(range(3))] for x in X])
    found = explain(Own(of_orders))
    np.testing.assert_allclose(found.values, each.mean(1), atol=1e-12)
    np.testing.assert_allclose(found.standard_errors, each.std(1), atol=1e-12)


def test_what_is_no_request():
    def parts(comparison):
        yield WeightedComparison(comparison, np.arange(2), np.ones(2))
        yield comparison

    with pytest.raises(InputError, match="a method yielded Comparison, none of the requests"):
        explain(Own(parts))


@pytest.mark.parametrize("weight", [0.7, np.nan])
def test_parts_that_do_not_add_up(weight):
    with pytest.raises(AdditivityError, match=r"^the parts of the method \(of my own\) sum to .* Look at the weights"):
        explain(Own(lambda comparison: of_orders(comparison, weight)))


def test_a_contribution_too_much():
    def parts(comparison):
        yield WeightedComparison(comparison, np.arange(2), np.ones(2))
        outputs = yield Evaluation(comparison.examples)
        yield KnownContribution(np.repeat(outputs[:, None], 3, 1), np.arange(2), np.ones(2))

    with pytest.raises(AdditivityError, match=r"the parts of the method \(of my own\) sum to"):
        explain(Own(parts))
