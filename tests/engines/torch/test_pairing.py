"""Examples and references run on rows of their own, and meet in the backward pass."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close, drawn, values
from models import Last
from torch import Tensor, nn

import deepshap
from deepshap import memory
from deepshap.engines.torch import pairing
from deepshap.engines.torch.engine import TorchEngine
from deepshap.engines.torch.operations import Pairs

X, R = drawn(3, 6, 4, seed=1), drawn(5, 6, 4, seed=2)


class Normalised(nn.Module):
    """Convolution, norms, maxima, a quotient and a choice, rows along the second axis meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv1d(4, 6, 3), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.conv(x.transpose(1, 2))).permute(2, 0, 1)  # steps, rows, channels
        h = self.norm(h) / (1 + h.square().sum(-1, keepdim=True))
        h = torch.where(h > 0, h, nn.functional.gelu(2 * h)).amax(0)
        return self.head(h).log_softmax(-1)


def made(build):
    torch.manual_seed(0)
    return build().double().eval()


MODELS = {
    "norms, maxima, choices": Normalised,
    "encoder": lambda: nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), Last()),
    "LSTM": lambda: nn.Sequential(nn.LSTM(4, 3, batch_first=True), FirstOf(), Last()),
}


class FirstOf(nn.Module):
    """The first of several outputs."""

    def forward(self, outputs: tuple[Tensor, ...]) -> Tensor:
        return outputs[0]


@pytest.fixture
def runs(monkeypatch):
    """Pairs of every backward pass, as they are run."""
    seen: list[Pairs] = []
    original = TorchEngine._run

    def run(engine, met, *rest):
        seen.append(met.pairs)
        assert len(met.points) == (met.pairs.examples if met.pairs.all_pairs else met.pairs.rows)
        return original(engine, met, *rest)

    monkeypatch.setattr(TorchEngine, "_run", run)
    return seen


def pairwise(monkeypatch, model, rows, background):
    with monkeypatch.context() as patched:
        patched.setattr(TorchEngine, "_can_run_all_pairs", lambda *_: False)
        return values(model, rows, background)


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("block", [1, 2**18])
def test_the_same_as_on_all_pairs(build, block, runs, monkeypatch):
    monkeypatch.setattr(pairing, "BLOCK_BYTES", block)
    model = made(build)
    found = values(model, X, R)
    assert runs == [Pairs(3, 5, all_pairs=True)]
    assert_close(found, pairwise(monkeypatch, model, X, R), 1e-12)
    assert runs[1:] == [Pairs(3, 5)]


@pytest.mark.parametrize(("examples", "references"), [(1, 1), (1, 5), (3, 1), (3, 3), (2, 2)])
def test_any_numbers_of_rows(examples, references, runs, monkeypatch):
    model = made(Normalised)
    found = values(model, X[:examples], R[:references])
    assert all(pairs.all_pairs or pairs.rows == 1 for pairs in runs)
    assert_close(found, pairwise(monkeypatch, model, X[:examples], R[:references]), 1e-12)


def test_parts_cover_the_examples_and_are_never_as_many_as_the_references():
    for count in range(1, 12):
        for size in range(1, 12):
            for references in range(1, 12):
                parts = list(memory.slices(count, size, references))
                sizes = [part.stop - part.start for part in parts]
                assert [row for part in parts for row in range(part.start, part.stop)] == list(range(count))
                assert max(sizes) <= size
                assert references == 1 or references not in sizes


def test_a_backward_pass_that_takes_no_several_references_runs_pairwise(runs):
    class Twice(torch.autograd.Function):
        """Its backward pass leaves torch."""

        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, m):
            return torch.from_numpy(2 * m.numpy())

    deepshap.register_rule(Twice, "linear")
    try:
        found = values(lambda x: torch.tanh(Twice.apply(x)).sum(2), X, R)
    finally:
        deepshap.unregister_rule(Twice)
    assert [pairs.all_pairs for pairs in runs] == [True, False]
    assert_close(found, values(lambda x: torch.tanh(2 * x).sum(2), X, R), 1e-12)


def test_a_rule_of_the_user_sees_the_rows_of_pairs():
    class Cube(nn.Module):
        """Rows along its second axis."""

        def forward(self, x: Tensor) -> Tensor:
            return x**3

    seen, cube = [], Cube()

    def rule(step, m):
        (x,), (r,) = step.inputs, step.reference_inputs
        seen.append((x, r, m.shape))
        return m * (x * x + x * r + r * r)

    deepshap.register_rule(Cube, rule)
    try:
        found = values(lambda x: cube(x.transpose(0, 1)).transpose(0, 1).sum(2), X, R)
    finally:
        deepshap.unregister_rule(Cube)
    x, r, shape = seen[-1]
    assert torch.equal(x, X.repeat_interleave(5, 0).transpose(0, 1))
    assert torch.equal(r, R.repeat(3, 1, 1).transpose(0, 1))
    assert x.shape == r.shape == shape
    assert_close(found, values(lambda x: (x**3).sum(2), X, R), 1e-12)
