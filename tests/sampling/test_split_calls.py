"""Rows explained in several calls have the values of one call, at every effort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from games import explainer, reader, rows
from torch import nn

import deepshap
from deepshap.explanation.uncertainty import spread_over
from deepshap.sampling import choice

R, X = rows(8, 4, 2), rows(5, 4, 2, seed=1)
X[:3, 0, 0], X[3:, 0, 0] = 1, -1


def by_attention():
    """Some rows come near with few replicates, and others do not."""
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval().double()
    torch.manual_seed(5)
    background, rows = (
        torch.randn(30, 9, 4).double(),
        torch.randn(11, 9, 4).double(),
    )  # single rows are rounded otherwise
    return deepshap.DeepExplainer(lambda x: model(x)[:, -1, :3], background, progress=False), rows[4:9]


def with_references_of_their_own():
    """Two for some rows, eight for others."""
    return explainer(reader(), lambda x: R[: 2 if x[0][0, 0] > 0 else 8]), X


# As measured for by_attention: on a busy machine other costs may be measured, and the rows choose another way.
COSTS = choice.Costs(call=0.42, pairs=0.84, pair=0.0186, output=0.0046, noise=2)

CASES = {
    "replicates as many as it takes": (by_attention, {"tolerance": 0.15, "max_effort": 12}),
    "references of their own": (with_references_of_their_own, {"effort": 5}),
}


def arrays(explanation):
    """Values and standard errors, and those of the sums that there are."""
    forms = [explanation]
    if explanation.players is None:
        forms += [explanation.over_time(), explanation.over_features()]
    return [array for form in forms for array in (form.values, form.standard_errors, form.replicates)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:tolerance=0.15 was reached:UserWarning")
def test_rows_alone_are_those_of_one_call(case, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "measure", lambda *_: COSTS)
    make, options = CASES[case]
    made, examples = make()
    alone = [made(examples[i : i + 1], **options) for i in range(len(examples))]
    for i, one in enumerate(alone):
        one.save(tmp_path / f"{i:02}.parquet")
    assert len({one.method for one in alone}) > 1  # the rows took different effort
    whole = made(examples, **options)
    assert (whole.over_time() if whole.players is None else whole).standard_errors.any()
    for together in (deepshap.Explanation.concat(alone), deepshap.load(tmp_path / "*.parquet")):
        assert together.method == whole.method
        for mine, others in zip(arrays(together), arrays(whole), strict=True):
            np.testing.assert_allclose(mine, others, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("few", "many"), [(2, 3), (4, 8), (5, 8), (7, 8)])
def test_more_estimates_tell_the_same_of_every_sum(few, many):
    """Their covariance, over their number, is the same: so is the standard error of any weighted sum."""
    drawn = np.random.default_rng(few).normal(size=(few, 6))
    spread = np.stack(spread_over(list(drawn), many))
    assert spread.shape == (many, 6)
    np.testing.assert_allclose(spread.mean(0), drawn.mean(0), atol=1e-14)
    np.testing.assert_allclose(np.cov(spread.T) / many, np.cov(drawn.T) / few, atol=1e-13)
