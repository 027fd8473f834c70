"""What the repr of explainers and results says, and when they warn."""

from __future__ import annotations

import html

import numpy as np
import pytest
import torch
from torch import nn

import deepshap
from deepshap import plots
from deepshap.sampling import Reliability


class Region(nn.Module):
    """Reads ids of categories, (rows,)."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 1)

    def forward(self, ids):
        return self.embedding(ids)


# ---------------------------------------------------------------------- ids of categories, (rows,)
@pytest.fixture(scope="module")
def region():
    torch.manual_seed(0)
    return deepshap.DeepExplainer(Region(), torch.arange(5), feature_names=["region"], output_names=["price"])


@pytest.mark.parametrize("players", ["cells", "features", {"place": ["region"]}])
def test_ids_of_categories_are_one_feature(region, players):
    ids = torch.tensor([3, 1, 2])
    weights = region.engine.model.embedding.weight.detach().double().numpy()[:, 0]
    explanation = region(ids, players=players)
    np.testing.assert_allclose(explanation.values.ravel(), weights[ids] - weights.mean(), atol=1e-6)
    ax = plots.importance(explanation)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [
        "place" if players not in ("cells", "features") else "region"
    ]
    for draw in (plots.bar, plots.beeswarm):
        draw(explanation)
    plots.waterfall(explanation[1])


def test_ids_of_categories_are_an_input_beside_others(region):
    explanation = region(torch.tensor([3, 1, 2]))
    parts = {
        "region": explanation,
        "size": deepshap.Explanation(np.ones((3, 2, 1)), explanation.base_values, np.ones((3, 2))),
    }
    ax = plots.inputs(deepshap.JointExplanation(parts), 0)
    (place,) = [child for child in ax.child_axes if child.get_label() == "region"]
    assert [tick.get_text() for tick in place.get_yticklabels()] == ["region = 3"]


# ---------------------------------------------------------------------- in a few words
@pytest.fixture(scope="module")
def recurrent():
    torch.manual_seed(0)
    lstm, head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)
    explainer = deepshap.DeepExplainer(
        lambda x: 9 * head(lstm(x)[0][:, -1]), torch.randn(6, 5, 3), output_names=["no", "yes"], progress=False
    )
    return explainer, torch.randn(8, 5, 3)


def test_an_explainer_says_what_it_explains(recurrent, region):
    assert repr(recurrent[0]) == "DeepExplainer of a function against 6 references of shape (5, 3); outputs: no, yes"
    assert repr(region) == "DeepExplainer of Region against 5 references of shape (); outputs: price"
    assert "references of its own for each row" in repr(deepshap.DeepExplainer(nn.Linear(3, 1), lambda x: x))


def test_players_are_called_by_what_they_are(recurrent):
    explainer, x = recurrent
    for players, words in (
        ("steps", "5 steps"),
        (2, "3 windows"),
        ({"wind": [0]}, "2 groups"),
        ("features", "3 features"),
    ):
        explanation = explainer(x, players=players)
        assert f"8 rows × {words} × 2 outputs" in repr(explanation)
        assert f"by {words.split()[1][:-1]}<" in explanation._repr_html_()


def test_a_missed_tolerance_is_told(recurrent):
    explainer, x = recurrent
    with pytest.warns(UserWarning, match=r"tolerance=1e-08 was reached by 0 of 8 rows; .*max_effort="):
        explanation = explainer(x, tolerance=1e-8, max_effort=2)
    assert "converged on 0 of 8 rows" in repr(explanation)
    assert "on 0 of 8 rows" in explanation._repr_html_()
    explanation.converged = np.arange(8) < 3
    assert "converged on 3 of 8 rows" in repr(explanation)


def test_results_begin_with_their_verdict(recurrent):
    explainer, x = recurrent
    told = repr(deepshap.faithfulness(explainer, x[:3], points=3)).splitlines()
    assert told[0] == "faithful: what attributions say agrees with what the model does"
    assert len(told) < 9
    assert repr(deepshap.check(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), x[:, 0])).startswith(
        "supported: each of 2 operations"
    )
    refused = deepshap.check(lambda x: torch.linalg.eigvals(torch.einsum("ni,nj->nij", x, x)).real, x[:, 0])
    assert repr(refused).startswith("not supported: 1 of 3 operations has no rule: torch.linalg.eigvals")
    reliability = Reliability(0.02, 0.001, rows=5, references=6, effort=1, players=15)
    assert repr(reliability).startswith("Deep SHAP's shares are good to 2 %")


def test_notebooks_show_the_verdict_in_bold(recurrent):
    explainer, x = recurrent
    faithful = deepshap.faithfulness(explainer, x[:3], points=3)
    reliability = Reliability(0.02, 0.001, rows=5, references=6, effort=1, players=15)
    inspection = deepshap.check(lambda x: (x > 0).float() * x.tanh(), x[:, 0])
    for told, verdict in (
        (explainer, repr(explainer)),
        (faithful, faithful.verdict),
        (reliability, "Deep SHAP's shares are good to 2 %"),
        (inspection, "supported: each of "),
    ):
        assert f"<b>{html.escape(verdict)}" in told._repr_html_()
    assert "5 rows with 6 references" in reliability._repr_html_()
    assert "tanh" in inspection._repr_html_()
    assert "separation of the curves" in faithful._repr_html_()


# ---------------------------------------------------------------------- scales
@pytest.mark.parametrize(
    ("background", "x", "warns"),
    [
        (torch.randn(20, 3), 500 + 100 * torch.randn(4, 3), True),
        (torch.rand(20, 2, 3), 255 * torch.rand(4, 2, 3), True),
        (torch.randn(20, 3), 3 + torch.randn(4, 3), False),
        (torch.zeros(20, 3), 500 + torch.randn(4, 3), False),  # a baseline
        (torch.eye(200)[:, :3], torch.eye(3)[:1], False),  # rare features
    ],
)
def test_inputs_on_another_scale_than_the_background_warn_once(background, x, warns, recwarn):
    explainer = deepshap.DeepExplainer(nn.Flatten(), background, progress=False)
    explainer(x)
    explainer(x)
    told = [str(warning.message) for warning in recwarn if "different scales" in str(warning.message)]
    assert len(told) == warns
    assert all("standard deviations of the background apart" in text for text in told)
