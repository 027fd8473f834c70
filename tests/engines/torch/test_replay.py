"""Within frozen() the calls of a model are made again without its own code, with the values of other rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close, built, drawn
from torch import Tensor, nn

import deepshap
from deepshap.engines.torch import replay
from deepshap.engines.torch.replay import Program

STEPS, FEATURES = 5, 4
ASKED = [0]  # how often models ran


@pytest.fixture
def runs(monkeypatch) -> list[Program]:
    """Programs that ran."""
    ran: list[Program] = []
    run = Program.run

    def noted(program: Program, *given: Any) -> Any:
        ran.append(program)
        return run(program, *given)

    monkeypatch.setattr(Program, "run", noted)
    return ran


class Doing(nn.Module):
    """Does something."""

    def __init__(self, what: Callable[[Doing, Tensor], Tensor]) -> None:
        super().__init__()
        self.what = what
        self.layer, self.norm, self.cell = (
            nn.Linear(FEATURES, FEATURES),
            nn.LayerNorm(FEATURES),
            nn.GRUCell(FEATURES, 3),
        )
        self.recurrent = nn.LSTM(FEATURES, 3, batch_first=True)
        self.attention = nn.MultiheadAttention(FEATURES, 2, batch_first=True)
        self.embedding, self.batch_norm = nn.Embedding(9, FEATURES), nn.BatchNorm1d(STEPS)
        self.register_buffer("kept", torch.arange(1.0, FEATURES + 1))

    def forward(self, x: Tensor) -> Tensor:
        ASKED[0] += 1
        return self.what(self, x).flatten(1).sum(1, keepdim=True) ** 2


def in_a_loop(m: Doing, x: Tensor) -> Tensor:
    state = x.new_zeros(len(x), 3)
    for step in x.unbind(1):
        state = m.cell(step, state)
    return state


def constants_that_change(m: Doing, x: Tensor) -> Tensor:
    """What a call has taken is overwritten after it."""
    factor = torch.ones(FEATURES, dtype=x.dtype)
    first = x * factor
    factor *= 3
    return torch.tanh(first + x * factor)


def buffers_that_change(m: Doing, x: Tensor) -> Tensor:
    """A count of its own calls, say."""
    m.kept += 1
    return torch.tanh(x * m.kept)


def scaled_back(m: Doing, x: Tensor) -> Tensor:
    """What a run leaves in the model, it takes from there."""
    m.mean, m.size = x.mean(1, keepdim=True), x.std(1, keepdim=True)
    return torch.tanh(m.layer((x - m.mean) / m.size)) * m.size + m.mean


def gate(m: Doing, x: Tensor) -> Tensor:
    mask = x > 0
    return torch.where(mask, x.exp(), x / 2).masked_fill(x < -1, 0.0) * mask.sum(1, keepdim=True)


AGAIN: dict[str, Callable[[Doing, Tensor], Tensor]] = {
    "layers": lambda m, x: torch.relu(m.norm(torch.tanh(m.layer(x)))),
    "recurrent": lambda m, x: m.recurrent(x)[0][:, -1],
    "loop of cells": in_a_loop,
    "attention": lambda m, x: m.attention(x, x, x)[0],
    "batch norm": lambda m, x: torch.sigmoid(m.batch_norm(x)),
    "several outputs": lambda m, x: torch.cat([x.max(1)[0], x.std(1), *x.split(2, 1)[0].unbind(1)], 1),
    "lists": lambda m, x: torch.stack([x[:, 0], torch.tanh(x[:, 1])], 1) * torch.cat([x[:, :1], x[:, 2:3]], 1),
    "what does nothing": lambda m, x: torch.tanh(F.dropout(x.contiguous().to(x.dtype), training=m.training)),
    "in place": lambda m, x: x.clone().mul_(2).relu_().add_(m.layer(x)),
    "writing to a part": lambda m, x: (lambda y: y.__setitem__((slice(None), 1), torch.tanh(x[:, 0])) or y)(x * 2),
    "writing to a view": lambda m, x: (lambda y: y[:, 1].mul_(x[:, 2]) is None or y)(torch.tanh(x)),
    "masks": gate,
    "values that it holds": scaled_back,
    "order": lambda m, x: x.sort(1)[0] * x.topk(2, 1)[0][:, :1] + x.gather(1, x.argsort(1)),
    "numbers that are asked for": lambda m, x: torch.tanh(x) * (2 if x.shape[1] > 3 else 1) * x.new_ones(len(x), 1, 1),
    "no gradients": lambda m, x: torch.no_grad()(lambda: torch.tanh(m.layer(x)))(),
    "autocast": lambda m, x: torch.autocast("cpu", torch.bfloat16)(lambda: m.layer(x))().double() + torch.tanh(x),
    "random numbers that nothing takes": lambda m, x: (torch.rand(3), torch.tanh(x))[1],
}


def lists_that_are_filled(m: Doing, x: Tensor) -> Tensor:
    """After the call that took them."""
    dims: list[int] = []
    values = torch.tanh(x.flip(dims) * m.kept)
    dims.append(2)
    return values + 0 * x.flip(dims)


AGAIN["lists that are filled"] = lists_that_are_filled
EACH_TIME: dict[str, Callable[[Doing, Tensor], Tensor]] = {
    "a part": lambda m, x: (lambda y: y.__setitem__((slice(None), 1), torch.tanh(x[:, 0])) or y)(torch.zeros_like(x)),
    "a view": lambda m, x: (lambda y: y[:, 1].copy_(torch.tanh(x[:, 0])) is None or y)(torch.zeros_like(x)),
    "out": lambda m, x: torch.tanh(x, out=torch.empty_like(x)) * x,
    "buffers that change": buffers_that_change,
    "constants that change": constants_that_change,
    "NumPy's numbers": lambda m, x: torch.tanh(x[:, np.array([0, 2])]),
}


def explained(
    what: Callable[[Doing, Tensor], Tensor], rows: list[Tensor], references: Tensor
) -> tuple[Doing, list[Any]]:
    """What is found within frozen()."""
    model = built(Doing(what))
    explainer = deepshap.DeepExplainer(model, references, progress=False)
    with explainer.frozen():
        return model, [explainer.shap_values(x) for x in rows]


def compared(what: Callable[[Doing, Tensor], Tensor], rows: list[Tensor], references: Tensor) -> None:
    """Compare it with what explainers find that know nothing."""
    model, each = explained(what, rows, references)
    for x, found in zip(rows, each, strict=True):
        fresh = deepshap.DeepExplainer(model, references, progress=False).shap_values(x)
        assert_close(found, fresh, 1e-12)


def rows_of(count: int = 6, examples: int = 2) -> list[Tensor]:
    return [drawn(examples, STEPS, FEATURES, seed=seed) for seed in range(1, count + 1)]


@pytest.mark.fast
@pytest.mark.parametrize("name", AGAIN)
def test_other_rows(name, runs):
    compared(AGAIN[name], rows_of(), drawn(7, STEPS, FEATURES))
    assert len(runs) == 4 or name in ("no gradients", "autocast")


@pytest.mark.parametrize("name", EACH_TIME)
def test_a_model_that_writes_to_what_is_no_value_runs_each_time(name, runs):
    compared(EACH_TIME[name], rows_of(), drawn(7, STEPS, FEATURES))
    assert len(runs) <= 1  # that of a buffer is found out by the first run without the model


def test_tokens(runs):
    model = built(Doing(lambda m, x: m.recurrent(m.embedding(x.long()) * (x != 0)[..., None])[0].amax(1)))
    rows = [torch.randint(0, 9, (2, STEPS), generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    explainer = deepshap.DeepExplainer(model, rows.pop().repeat(3, 1) % 7, progress=False)
    with explainer.frozen():
        found = [explainer.shap_values(x) for x in rows]
    assert len(runs) == 3
    for x, values in zip(rows, found, strict=True):
        assert_close(values, explainer.shap_values(x), 1e-12)


def test_the_model_runs_once_in_a_call(runs):
    counts = []
    for calls in (3, 11):
        ASKED[0] = 0
        explained(AGAIN["layers"], rows_of(calls), drawn(7, STEPS, FEATURES))
        counts.append(ASKED[0])
    assert counts[1] == counts[0] + 8
    assert len(runs) == 1 + 9


def test_numbers_of_rows_in_turn(runs):
    rows = [drawn(1 + k % 3, STEPS, FEATURES, seed=k) for k in range(12)]
    compared(AGAIN["layers"], rows, drawn(7, STEPS, FEATURES))
    assert len(runs) == 6


def test_rows_that_lie_in_another_way(runs):
    """Python code may ask for that."""
    rows = [x if k != 4 else x.transpose(1, 2).contiguous().transpose(1, 2) for k, x in enumerate(rows_of())]
    compared(
        lambda m, x: torch.tanh(x.view(len(x), -1) if x.is_contiguous() else x.flatten(1)),
        rows,
        drawn(7, STEPS, FEATURES),
    )
    assert len(runs) >= 2


def test_points_between_run_with_the_model():
    model, references, x = built(Doing(AGAIN["layers"])), drawn(7, STEPS, FEATURES), drawn(2, STEPS, FEATURES, seed=1)
    explainer = deepshap.DeepExplainer(model, references, progress=False)
    with explainer.frozen():
        found = [explainer(x, effort=effort).values for effort in (1, 4, 1, 4, 1, 4)]
    for values, effort in zip(found, (1, 4) * 3, strict=True):
        assert_close(values, explainer(x, effort=effort).values, 1e-12)


def table(m: Doing, x: Tensor) -> Tensor:
    """Where each step is, in a table that is made in each run and written to after it has met the signal."""
    at = torch.zeros(STEPS, FEATURES).type_as(x)
    at[:, 0::2] = torch.arange(STEPS).to(x)[:, None]
    return torch.tanh(x + at)


def causal(m: Doing, x: Tensor) -> Tensor:
    scores = x @ x.mT + torch.full((STEPS, STEPS), -1e9).to(x).triu_(1)
    return scores.softmax(-1) @ x


def number_where(m: Doing, x: Tensor) -> Tensor:
    y = torch.tanh(x)
    y[x > 0.5] = 3.0
    return y


HANDED_BACK = {"table": table, "causal mask": causal, "turned": lambda m, x: torch.tanh(x @ torch.ones(4, 2).to(x).t_().mT),
               "a number where a condition holds": number_where}  # fmt: skip


@pytest.mark.parametrize("name", HANDED_BACK)
def test_constants_that_calls_hand_back_are_no_values(name, runs):
    compared(HANDED_BACK[name], rows_of(), drawn(7, STEPS, FEATURES))
    assert len(runs) == 4


def test_nothing_stays_on_what_a_model_holds():
    model = built(Doing(lambda m, x: torch.tanh(x * m.kept.to(x))))
    explainer = deepshap.DeepExplainer(model, drawn(7, STEPS, FEATURES), progress=False)
    with explainer.frozen():
        for x in rows_of(4):
            explainer.shap_values(x)
    assert not [name for t in (*model.parameters(), *model.buffers()) for name in vars(t)]


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_sparse_constants_are_taken_by_the_model(layout, runs):
    matrix = getattr(torch.eye(FEATURES, dtype=torch.float64), layout)()
    compared(lambda m, x: torch.tanh(F.linear(x[:, 0], matrix)), rows_of(4), drawn(7, STEPS, FEATURES))
    assert not runs


def test_places_that_were_the_same_for_the_rows_before(runs):
    """Which feature a model reads was the same for all rows; then it is another."""

    def what(m: Doing, x: Tensor) -> Tensor:
        at = (x[0, 0] > 5).nonzero().flatten()
        return torch.tanh(x[:, :, at] * 2)

    references, rows = drawn(7, STEPS, FEATURES).clamp(-1, 1), [x.clamp(-1, 1) for x in rows_of(5)]
    for k, x in enumerate((references, *rows)):
        x[:, 0, 2 if k == 5 else 1] = 6.0
    explainer = deepshap.DeepExplainer(built(Doing(what)), references, progress=False)
    with explainer.frozen():
        for x in rows[:4]:
            explainer.shap_values(x)
        with pytest.raises(deepshap.DeepShapError):
            explainer.shap_values(rows[4])


def test_a_program_that_fails_is_not_asked_again(runs, monkeypatch):
    """The model runs in the same call, and from then on."""
    model, references = built(Doing(AGAIN["layers"])), drawn(7, STEPS, FEATURES)
    explainer = deepshap.DeepExplainer(model, references, progress=False)
    wanted = [explainer.shap_values(x) for x in rows_of(8)]
    with explainer.frozen():
        explainer.shap_values(rows_of(1)[0])
        with monkeypatch.context() as patched:
            patched.setattr(replay, "_made", lambda *_: 1 / 0)
            found = [explainer.shap_values(x) for x in rows_of(4)]
        assert len(runs) == 1
        found += [explainer.shap_values(x) for x in rows_of(8)[4:]]
        assert len(runs) == 1
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, 1e-12)


def test_a_program_whose_sums_miss_is_not_asked_again(runs, monkeypatch):
    model, references = built(Doing(AGAIN["layers"])), drawn(7, STEPS, FEATURES)
    explainer = deepshap.DeepExplainer(model, references, progress=False)
    x, filled = rows_of(1)[0], replay._filled
    wanted = explainer.shap_values(x)
    with explainer.frozen():
        for _ in range(2):
            explainer.shap_values(x)
        monkeypatch.setattr(replay, "_filled", lambda item, v: filled(item, {k: t * 1.5 for k, t in v.items()}))
        found = [explainer.shap_values(x) for _ in range(4)]
    assert len(runs) == 1
    for values in found:
        assert_close(values, wanted, 1e-12)


@pytest.mark.parametrize("name", ["kept", "weight"])
def test_what_is_written_to_within_the_block_is_explained_as_it_is(name, runs):
    model, references = built(Doing(lambda m, x: torch.tanh(m.layer(x) * m.kept))), drawn(7, STEPS, FEATURES)
    explainer, x = deepshap.DeepExplainer(model, references, progress=False), rows_of(1)[0]
    with explainer.frozen():
        for _ in range(4):
            explainer.shap_values(x)
        with torch.no_grad():
            (model.kept if name == "kept" else model.layer.weight).mul_(2)
        found = explainer.shap_values(x)
    assert_close(found, deepshap.DeepExplainer(model, references, progress=False).shap_values(x), 1e-12)


def test_chunks_of_a_call(runs):
    model, references, x = built(Doing(table)), drawn(7, STEPS, FEATURES), drawn(40, STEPS, FEATURES, seed=1)
    explainer = deepshap.DeepExplainer(model, references, progress=False, max_memory=60_000)
    with explainer.frozen():
        found = [explainer.shap_values(x) for _ in range(3)]
    assert len(runs) > 3
    for values in found:
        assert_close(values, deepshap.DeepExplainer(model, references, progress=False).shap_values(x), 1e-12)


def test_a_promise_that_is_not_kept(runs):
    """Weights that become others are told or taken as they are, never mixed."""
    model, references = built(Doing(AGAIN["layers"])), drawn(7, STEPS, FEATURES)
    explainer, x = deepshap.DeepExplainer(model, references, progress=False), drawn(2, STEPS, FEATURES, seed=1)
    with explainer.frozen():
        for _ in range(4):
            explainer.shap_values(x)
        with torch.no_grad():
            model.layer.weight *= 2
        found = explainer.shap_values(x)
    assert runs
    assert_close(found, deepshap.DeepExplainer(model, references, progress=False).shap_values(x), 1e-12)


def test_rules_of_the_users_own_run_with_the_model(runs):
    deepshap.register_rule(torch.tanh, "elementwise")
    try:
        compared(AGAIN["layers"], rows_of(4), drawn(7, STEPS, FEATURES))
    finally:
        deepshap.unregister_rule(torch.tanh)
    assert not runs


def test_an_inner_layer_is_looked_at_with_the_model(runs):
    model, references = built(Doing(AGAIN["layers"])), drawn(7, STEPS, FEATURES)
    explainer = deepshap.DeepExplainer((model, model.norm), references, progress=False)
    rows = rows_of(4)
    with explainer.frozen():
        found = [explainer.shap_values(x) for x in rows]
    assert not runs
    for x, values in zip(rows, found, strict=True):
        assert_close(values, explainer.shap_values(x), 1e-12)


def test_what_a_model_reads_of_its_rows_behind_torchs_back(runs):
    """The model itself runs on the rows all the same, and its outputs tell."""

    def what(m: Doing, x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            factor = 2.0 if float(x.detach().max()) > 9 else 1.0
        return torch.tanh(x * torch.tensor(factor))

    model, references, x = built(Doing(what)), drawn(7, STEPS, FEATURES), drawn(2, STEPS, FEATURES, seed=1)
    explainer = deepshap.DeepExplainer(model, references, progress=False)
    with explainer.frozen():
        for _ in range(4):
            explainer.shap_values(x)
        assert runs
        x[0, 0, 0] = 10.0
        with pytest.raises(deepshap.DeepShapError):
            explainer.shap_values(x)


SHOWN: dict[str, Callable[[Tensor], float]] = {
    "format": lambda x: float(f"{x.max()}"),
    "str": lambda x: float(str(x.max()).split("(")[1].split(",")[0]),
    "storage": lambda x: np.frombuffer(bytes(x.untyped_storage().tolist())).max(),
}


@pytest.mark.parametrize("name", SHOWN)
def test_numbers_that_python_is_shown_in_other_ways(name, runs):
    """Where both ways come to the same outputs, these do not tell."""

    def what(m: Doing, x: Tensor) -> Tensor:
        return torch.tanh((torch.abs(x) if SHOWN[name](x.detach().abs().clone()) > 9 else torch.relu(x)) / 9)

    model, references = built(Doing(what)), drawn(7, STEPS, FEATURES)
    explainer = deepshap.DeepExplainer(model, references, progress=False)
    x = drawn(2, STEPS, FEATURES, seed=1).abs()
    with explainer.frozen():
        for _ in range(4):
            explainer.shap_values(x)
        with pytest.raises(deepshap.DeepShapError):
            explainer.shap_values(10 * x)
    assert not runs


def test_parts_of_large_constants(runs):
    """Only what a call takes of them is kept."""
    table = drawn(3_000_000).double()
    compared(
        lambda m, x: torch.tanh(x * table[4:8] + table[3:].as_strided((STEPS, 4), (3, 2))),
        rows_of(),
        drawn(7, STEPS, FEATURES),
    )
    assert runs


def test_a_caller_who_lets_a_call_compute_in_less_precision(runs):
    model = nn.Sequential(nn.Flatten(), nn.Linear(STEPS * FEATURES, 16), nn.Tanh(), nn.Linear(16, 1))
    references, rows = drawn(7, STEPS, FEATURES).float(), [x.float() for x in rows_of()]
    explainer = deepshap.DeepExplainer(model, references, progress=False)
    with explainer.frozen():
        explainer.shap_values(rows[0])
        with torch.autocast("cpu", torch.bfloat16):
            explainer.shap_values(rows[0])
        for x in rows:
            fresh = deepshap.DeepExplainer(model, references, progress=False).shap_values(x)
            assert_close(explainer.shap_values(x), fresh, 1e-6)
