"""A method of a user's own, in both engines: docs/architecture.md shows it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from games import carried_out, explainer, keras_twin, reader, rows

from deepshap.engines.interface import Comparison
from deepshap.errors import AdditivityError
from deepshap.sampling import Evaluation, KnownContribution, WeightedComparison

STEPS = 3
MODEL = reader(scale=2)
R, X = rows(3, STEPS, 2), rows(2, STEPS, 2, seed=1)


@dataclass(frozen=True)
class StraightLine:
    """Deep SHAP along the straight line from each reference to the example, segment by segment."""

    segments: int
    players = None
    description = "straight lines"

    def pairs(self, comparison):
        return comparison.pairs * self.segments

    def parts(self, comparison):
        rows, references = np.indices((len(comparison.examples), len(comparison.references))).reshape(2, -1)
        ends, starts = (
            comparison.examples[rows],
            comparison.references[references].described_by(comparison.examples[rows]),
        )

        def point(share):
            mixed = tuple(share * x + (1 - share) * r for x, r in zip(ends.inputs, starts.inputs, strict=True))
            return replace(ends, inputs=mixed)

        weights = np.full(len(rows), 1 / len(comparison.references))
        for k in range(self.segments):
            end, start = point((k + 1) / self.segments), point(k / self.segments)
            yield WeightedComparison(Comparison(end, start, False, comparison.outputs[rows]), rows, weights)


@pytest.fixture(params=["torch", "tensorflow"])
def made(request):
    if request.param == "torch":
        return explainer(MODEL, R)
    return explainer(keras_twin(MODEL, STEPS), R.numpy())


def data(made):
    return X if made.engine.framework == "torch" else X.numpy()


def test_one_segment_is_deep_shap(made):
    found = carried_out(made, StraightLine(1), data(made)).values[0]
    np.testing.assert_allclose(found, made(data(made)).values, atol=1e-12)


def test_many_segments_are_the_path_integral(made):
    """Integrated gradients, averaged over the references: by the rule of midpoints, in PyTorch."""
    import torch

    found = carried_out(made, StraightLine(40), data(made))
    shares = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    for row, x in enumerate(X):
        wanted = 0
        for r in R:
            points = (r + shares[:, None, None] * (x - r)).requires_grad_()
            grads = [torch.autograd.grad(MODEL(points)[:, k].sum(), points)[0] for k in range(2)]
            wanted = wanted + torch.stack([g.mean(0) * (x - r) for g in grads], -1) / len(R)
        # the rules are secants: their error falls with the square of the segments
        np.testing.assert_allclose(found.values[0][row], wanted.numpy(), atol=3e-3 * float(wanted.abs().max()))


def test_what_does_not_telescope_is_an_error():
    class Half(StraightLine):
        def parts(self, whole):
            yield next(iter(super().parts(whole)))

    with pytest.raises(AdditivityError, match=r"the parts of the method .* sum to"):
        carried_out(explainer(MODEL, R), Half(2), X)


def test_row_arguments():
    """The mean output of the references is asked of the model where no term compares with them directly."""
    import torch

    lengths = torch.tensor([2, 3])
    made = explainer(MODEL, R)
    found = carried_out(made, StraightLine(1), X, (lengths,))
    wanted = made(X, additional_forward_args=(lengths,))
    np.testing.assert_allclose(found.values[0], wanted.values, atol=1e-12)
    np.testing.assert_allclose(found.expected, wanted.base_values, atol=1e-12)


class FirstAndRest:
    """Made of outputs alone: what is lost without the first step, and the rest."""

    description = "the first step, and the rest"

    def __init__(self, players):
        self.players = players

    def pairs(self, whole):
        return whole.pairs

    def parts(self, whole):
        own = np.array([[False, True, True]])
        for row in range(len(whole.examples)):
            for reference in range(len(whole.references)):
                x, r = whole.examples[[row]], whole.references[[reference]]
                full = yield Evaluation(x)
                without = yield Evaluation(x.mixed(r, self.players.spread(own)))
                empty = yield Evaluation(r)
                values = np.stack([full - without, without - empty, 0 * full], 1)
                yield KnownContribution(values, np.array([row]), np.array([1 / len(whole.references)]))


def test_a_method_made_of_outputs(made):
    from games import called, steps_of

    found = carried_out(made, FirstAndRest(steps_of((STEPS, 2))), data(made)).values[0]
    call = called(MODEL)
    for row, x in enumerate(X.numpy()):
        without = np.where(np.arange(STEPS)[:, None] == 0, R.numpy(), x)
        np.testing.assert_allclose(found[row, 0], call(x[None])[0] - call(without).mean(0), atol=1e-12)
        np.testing.assert_allclose(found[row, 1], (call(without) - call(R.numpy())).mean(0), atol=1e-12)
