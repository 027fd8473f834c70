"""What is wrong with a method of one's own is said of the method, by its description, and not of the model."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import deepshap
from deepshap.engines.api import Comparison
from deepshap.errors import AdditivityError, InputError, UserCodeError
from deepshap.methods import Evaluation, Known, Term
from deepshap.players import players_of

X, R = np.random.default_rng(0).normal(size=(2, 3)), np.random.default_rng(1).normal(size=(1, 3))
CELLS = players_of("cells", [(3,)], [0], [None])


def model(x):
    return torch.stack([x[:, 0] * x[:, 1] * x[:, 2], x[:, 0] * x[:, 1]], 1)


def explain(method):
    return deepshap.DeepExplainer(model, torch.tensor(R), progress=False).shap_values(torch.tensor(X), method=method)


class Own:
    """A method of a function that yields its parts."""

    shrinks, description = False, "of my own"

    def __init__(self, parts, players=CELLS, pairs=1):
        self.parts, self.players, self._pairs = parts, players, pairs

    def pairs(self, whole):
        return self._pairs


def the_whole(whole, **changed):
    """Deep SHAP itself: one reference."""
    return replace(Term(whole, np.arange(2), np.ones(2)), **changed)


def of_orders(whole, taken=-0.5, halves=(0, 1)):
    """All orders of three cells, each with its reverse, as corrections of Deep SHAP."""
    yield the_whole(whole)
    rows = np.arange(2)
    x, r = whole.examples, whole.references[np.zeros(2, int)]
    beside = Comparison(x, r, False, whole.outputs)
    for replicate, order in enumerate([(0, 1, 2), (0, 2, 1), (1, 0, 2)]):
        for half in halves:
            number = np.full(2, 2 * replicate + half)
            yield Term(beside, rows, np.full(2, taken), number)
            inside, before = np.zeros((2, 3), bool), r
            for cell in (order, order[::-1])[half]:
                inside[:, cell] = True
                after = x.mixed(r, [inside.copy()])
                yield Term(Comparison(after, before, False, whole.outputs), rows, np.full(2, 0.5), number)
                before = after


def gains(x, order):
    """What each cell adds to the outputs when it enters, (cells, outputs)."""
    now, found = R[0].copy(), np.zeros((3, 2))
    for cell in order:
        after = now.copy()
        after[cell] = x[cell]
        found[cell] = [after.prod() - now.prod(), after[:2].prod() - now[:2].prod()]
        now = after
    return found


def test_replicates_correct_what_belongs_to_all():
    """All orders of the cells: their mean is the Shapley value by its definition."""
    wanted = [np.mean([gains(x, order) for order in itertools.permutations(range(3))], 0) for x in X]
    np.testing.assert_allclose(explain(Own(of_orders)), wanted, atol=1e-12)


NUMBERS = np.zeros(2, int)
WRONG_PARTS = {
    "nothing": (lambda w: None, "yielded NoneType; a part is a Term"),
    "a comparison": (lambda w: w, "yielded Comparison; a part is a Term"),
    "an evaluation of an array": (lambda w: Evaluation(np.ones(3)), "an Evaluation of ndarray; it takes Points"),
    "a term of points": (lambda w: the_whole(w, comparison=w.examples), "whose comparison is Points"),
    "other outputs": (lambda w: the_whole(w, comparison=replace(w, outputs=w.outputs[:1])), r"outputs of shape \(1, 2\)"),
    "sides": (lambda w: the_whole(w, comparison=replace(w, crossed=False)), "2 examples, row by row, with 1 references"),
    "rows behind the last": (lambda w: the_whole(w, rows=np.array([0, 2])), "rows must be 0 or more, 1 at most, not 2"),
    "negative rows": (lambda w: the_whole(w, rows=np.array([0, -1])), "rows must be 0 or more, 1 at most, not -1"),
    "rows as numbers": (lambda w: the_whole(w, rows=np.ones(2)), r"rows must .* of 2 whole numbers.* not float64"),
    "too few weights": (lambda w: the_whole(w, weights=np.ones(1)), r"weights must .* of 2 numbers.*shape \(1,\)"),
    "a list of weights": (lambda w: the_whole(w, weights=[1, 1]), "weights must be a NumPy array .* not list"),
    "NaN weights": (lambda w: the_whole(w, weights=np.array([1, np.nan])), "weights must be finite, not nan"),
    "a replicate below 0": (lambda w: the_whole(w, replicates=NUMBERS - 1), "replicates must be 0 or more, not -1"),
    "no examples": (lambda w: Known(np.ones((0, 3, 2)), NUMBERS[:0], np.ones(0)), "Known without examples"),
    "known of other players": (lambda w: Known(np.ones((2, 4, 2)), NUMBERS, np.ones(2)), r"\(2, 4, 2\); .* \(2, 3, 2\)"),
    "half a replicate": (lambda w: the_whole(w, replicates=NUMBERS), "no part of half 1 of replicate 0 for row 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_PARTS)
def test_parts_that_are_none(case):
    part, message = WRONG_PARTS[case]

    def parts(whole):
        yield the_whole(whole)
        yield part(whole)

    with pytest.raises(InputError, match=r"the method \(of my own\) .*" + message):
        explain(Own(parts))


def in_turn(*replicates):
    """The whole, and replicates of nothing in some order."""

    def parts(whole):
        yield the_whole(whole)
        for numbers in replicates:
            yield Known(np.zeros((2, 3, 2)), np.arange(2), np.ones(2), np.array(numbers))

    return parts


def fails(whole):
    yield the_whole(whole)
    raise ZeroDivisionError("too few cells")


WRONG_METHODS = {
    "a list": (Own(lambda w: [the_whole(w)]), InputError, r"\(of my own\) must yield them .* and returned list"),
    "fails at once": (Own(lambda w: 1 / 0), UserCodeError, r"\(of my own\) failed: ZeroDivisionError"),
    "fails later": (Own(fails), UserCodeError, r"\(of my own\) failed: ZeroDivisionError: too few cells"),
    "no parts": (Own(lambda w: iter_of()), InputError, r"\(of my own\) yielded no part that belongs to all"),
    "a number of pairs that is none": (Own(of_orders, pairs="many"), InputError, r"\(of my own\) says that it runs str"),
    "a number of pairs beyond numbers": (Own(of_orders, pairs=np.nan), InputError, r"\(of my own\) says that it runs nan"),
    "players of other rows": (
        Own(of_orders, players_of("cells", [(4,)], [0], [None])),
        InputError,
        r"the players of the method \(of my own\) are for \[\(4,\)\]; rows here are \[\(3,\)\]",
    ),
    "players in a word": (Own(of_orders, "cells"), InputError, "the players of Own are str"),
    "replicates without players": (Own(of_orders, None), InputError, r"\(of my own\) .* with replicates, .* give it players"),
    "one half of each": (
        Own(lambda w: of_orders(w, halves=[0])),
        InputError,
        "no part of half 1 of replicate 0 for row 0: a replicate r has two halves",
    ),
    "a half of some rows": (Own(in_turn([0, 0], [1, 2], [3, 3])), InputError, "no part of half 1 of replicate 0 for row 1"),
    "back to the first": (Own(in_turn([0, 0], [1, 1], [2, 2], [1, 1])), InputError, "replicate 0 after .* from 1 on"),
    "wholes as replicates": (
        Own(lambda w: of_orders(w, taken=0.0)),
        AdditivityError,
        r"a replicate of the method \(of my own\) explains .* row \d, output \d, .* must sum to 0",
    ),
    "too much": (
        Own(lambda w: iter_of(the_whole(w, weights=np.array([1.0, 2.0])))),
        AdditivityError,
        r"^the parts of the method \(of my own\) sum to {:.6g} for row 1, output 1, where the outputs differ by {:.6g}:",
    ),
}  # fmt: skip


def iter_of(*parts):
    yield from parts


@pytest.mark.parametrize("case", WRONG_METHODS)
def test_methods_that_are_wrong(case):
    method, kind, message = WRONG_METHODS[case]
    difference = X[1, :2].prod() - R[0, :2].prod()
    with pytest.raises(kind, match=message.format(2 * difference, difference) if case == "too much" else message):
        explain(method)


def test_what_a_method_writes_stays_with_it():
    explainer, rows = deepshap.DeepExplainer(model, torch.tensor(R), progress=False), torch.tensor(X)
    wanted = explainer.shap_values(rows)

    def writing(whole):
        for points in (whole.references, whole.examples):
            points.inputs[0].mul_(2)
        whole.outputs[:] = 0
        yield the_whole(whole)

    with pytest.raises((AdditivityError, InputError)):
        explainer.shap_values(rows, method=Own(writing))
    np.testing.assert_array_equal(rows, X)
    np.testing.assert_array_equal(explainer.shap_values(rows), wanted)
