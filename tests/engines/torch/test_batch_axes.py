"""Rows that share an axis with channels, steps or heads: in any order (outer, rows, inner), either side runs once."""

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
from deepshap.engines.torch import engine
from deepshap.engines.torch.engine import TorchEngine
from deepshap.engines.torch.recurrent import fused
from deepshap.kernels import jit_threshold

STEPS, FEATURES, WIDTH = 6, 4, 8


class Merging(nn.Module):
    """Does something with layers of its own, of which the last one makes two outputs of each row."""

    def __init__(self, what: Callable[..., Tensor], outputs: int, *layers: nn.Module) -> None:
        super().__init__()
        self.what, self.layers, self.head = what, nn.ModuleList(layers), nn.Linear(outputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.what(self.layers, x).reshape(len(x), -1))


def rows(x: Tensor) -> Tensor:
    """Steps of all rows."""
    return x.reshape(-1, FEATURES)


def attention(layers: Any, x: Tensor) -> Tensor:
    heads = [l(rows(x)).reshape(len(x), STEPS, 2, 4).transpose(1, 2).reshape(-1, STEPS, 4) for l in layers]
    return torch.softmax(heads[0] @ heads[1].mT / 2, -1) @ heads[2]


def channels(x: Tensor) -> Tensor:
    """Each feature by itself, (rows and features, 1, steps)."""
    return x.transpose(1, 2).reshape(-1, 1, STEPS)


def in_rows(function: Callable[[Tensor], Tensor], width: int = WIDTH) -> Callable[[], nn.Module]:
    return lambda: Merging(lambda l, x: function(l[0](rows(x))), STEPS * width, nn.Linear(FEATURES, WIDTH))


def at_second(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    """Rows and features on the second axis."""

    def forward(layers: Any, x: Tensor) -> Tensor:
        return function(x.permute(1, 0, 2).reshape(STEPS, -1)).reshape(STEPS, len(x), -1).permute(1, 0, 2)

    return lambda: Merging(forward, STEPS * FEATURES)


def scaled(layers: Any, x: Tensor) -> Tensor:
    """By the mean size of each row; rows in which nothing is observed would take that of the batch."""
    observed = torch.ones_like(x)
    total, count = (x * observed).abs().sum((1, 2), keepdim=True), observed.sum((1, 2), keepdim=True)
    of_all = torch.clamp(total.sum(0) / torch.clamp(count.sum(0), min=1.0), min=1e-3)
    return torch.tanh(x / torch.where(count > 0, total / count, of_all))


def scaled_where_small(layers: Any, x: Tensor) -> Tensor:
    """By the size of each row, where that is large enough; else a row would take that of the batch, a single number."""
    size = x.abs().sum((1, 2), keepdim=True)
    return torch.tanh(x / torch.where(size > 1e-3, size, x.abs().mean()))


def series(x: Tensor) -> Tensor:
    """Each feature by itself, (rows and features, steps, 1)."""
    return channels(x).mT


def in_a_loop(layers: Any, x: Tensor) -> Tensor:
    """Single steps of a cell."""
    steps, cell = series(x), layers[0]
    h = c = steps.new_zeros(len(steps), 3)
    for t in range(STEPS):
        h, c = cell(steps[:, t], (h, c))
    return torch.cat([h, c * steps[:, 0]], 1)


def from_states(layers: Any, x: Tensor) -> Tensor:
    """A layer whose first state depends on the row, read at every step."""
    steps, layer = series(x), layers[0]
    return torch.tanh(layer(steps, torch.tanh(steps.sum(1)).repeat(1, 3)[None])[0])


def in_steps(function: Callable[[Tensor], Tensor], width: int = WIDTH) -> Callable[[], nn.Module]:
    """All rows of the first step, then those of the second one."""

    def forward(layers: Any, x: Tensor) -> Tensor:
        made = function(layers[0](rows(x.transpose(0, 1))))
        return made.reshape(STEPS, len(x), -1).transpose(0, 1)

    return lambda: Merging(forward, STEPS * width, nn.Linear(FEATURES, WIDTH))


def in_columns(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    """Features and rows on the second axis."""

    def forward(layers: Any, x: Tensor) -> Tensor:
        made = function(x.permute(1, 2, 0).reshape(STEPS, -1))
        return made.reshape(STEPS, FEATURES, len(x)).permute(2, 0, 1)

    return lambda: Merging(forward, STEPS * FEATURES)


def of_features(
    function: Callable[..., Tensor], outputs: int, *layers: Callable[[], nn.Module]
) -> Callable[[], nn.Module]:
    """Each feature by itself: all rows of the first feature, (features and rows, 1, steps), then those of the second one."""

    def forward(own: Any, x: Tensor) -> Tensor:
        made = function(own, x.permute(2, 0, 1).reshape(-1, 1, STEPS))
        return made.reshape(FEATURES, len(x), -1).transpose(0, 1)

    return lambda: Merging(forward, FEATURES * outputs, *(layer() for layer in layers))


def attention_of_steps(layers: Any, x: Tensor) -> Tensor:
    """Within groups of features."""
    q, k, v = (l(rows(x.transpose(0, 1))).reshape(-1, 4, 2) for l in layers)
    made = torch.softmax(q @ k.mT / 2, -1) @ v
    return made.reshape(STEPS, len(x), -1).transpose(0, 1)


def sequence(layers: Any, x: Tensor) -> Tensor:
    """A recurrent network with steps first, and what is made of its output at each step."""
    hidden = layers[0](x.transpose(0, 1))[0].reshape(STEPS * len(x), 5)
    made = torch.log_softmax(layers[2](torch.tanh(layers[1](hidden))), -1)
    return made.reshape(STEPS, len(x), -1).transpose(0, 1)


def dilated(layers: Any, x: Tensor) -> Tensor:
    """Every second step is a sequence of its own, beside the others."""
    steps = x.transpose(0, 1)
    hidden = torch.tanh(layers[0](torch.cat([steps[j::2] for j in range(2)], 1))[0])
    return torch.stack(hidden.chunk(2, 1), 1).reshape(STEPS, len(x), -1).transpose(0, 1)


def packed(layers: Any, x: Tensor) -> Tensor:
    """Two layers on packed sequences that end together, and what is made between them of all steps."""
    first, second = layers
    given = nn.utils.rnn.pack_padded_sequence(x, torch.full((len(x),), STEPS), batch_first=True)
    between = first(given)[0]
    turned = between._replace(data=torch.tanh(2 * between.data))
    return nn.utils.rnn.pad_packed_sequence(second(turned)[0], batch_first=True)[0]


def in_a_loop_of_features(layers: Any, x: Tensor) -> Tensor:
    """As ``in_a_loop``, all rows of one feature after the other."""
    cell, steps = layers[0], x.permute(1, 2, 0).reshape(STEPS, -1, 1)
    h = c = x.new_zeros(steps.shape[1], 3)
    for t in range(STEPS):
        h, c = cell(steps[t], (h, c))
    return torch.cat([h, c * steps[0]], 1).reshape(FEATURES, len(x), -1).transpose(0, 1)


def in_both_orders(layers: Any, x: Tensor) -> Tensor:
    """Rows first, and steps first."""
    one = torch.tanh(rows(x)).reshape(x.shape)
    two = torch.sigmoid(rows(x.transpose(0, 1))).reshape(STEPS, len(x), -1).transpose(0, 1)
    return one * two


def some_and_others(layers: Any, x: Tensor) -> Tensor:
    """As graphs have edges of all rows, and then a loop at each of their nodes."""
    made = torch.tanh(torch.cat([rows(x[:, :4]), rows(x[:, 4:])]))
    return torch.cat([part.reshape(len(x), -1) for part in made.split([4 * len(x), 2 * len(x)])], 1)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "relu": in_rows(torch.relu),
    "gelu": in_rows(F.gelu),
    "erf": in_rows(torch.erf),
    "cube": in_rows(lambda x: x**3),
    "layer norm": in_rows(lambda x: F.layer_norm(x, (WIDTH,))),
    "normalize": in_rows(lambda x: F.normalize(x, dim=-1)),
    "softmax": in_rows(lambda x: torch.softmax(x.reshape(-1, 3, WIDTH), 1)),
    "logsumexp": in_rows(lambda x: torch.logsumexp(x, -1), 1),
    "greatest": in_rows(lambda x: x.max(-1)[0], 1),
    "sorted": in_rows(lambda x: x.sort(-1)[0]),
    "products": in_rows(lambda x: x * torch.sigmoid(x)),
    "cumulated products": in_rows(lambda x: x.cumprod(-1)),
    "quotient": in_rows(lambda x: x / (1 + x**2)),
    "constants that have rows": in_rows(lambda x: torch.tanh(x * (torch.arange(STEPS).repeat(len(x) // STEPS)[:, None] + 1.0))),
    "constants that have none": in_rows(lambda x: torch.tanh(x * torch.arange(1.0, WIDTH + 1)) * torch.ones(1, 1)),
    "second axis": at_second(torch.tanh),
    "second axis, softmax": at_second(lambda x: torch.softmax(x.reshape(STEPS, -1, 2, 2), -1)),
    "bilinear": lambda: Merging(
        lambda l, x: l[0](rows(x), torch.tanh(rows(x))), STEPS * WIDTH, nn.Bilinear(FEATURES, FEATURES, WIDTH)
    ),
    "attention": lambda: Merging(attention, STEPS * 8, *(nn.Linear(FEATURES, 8) for _ in range(3))),
    "multi-head attention": lambda: Merging(
        lambda l, x: l[0](*[x.reshape(-1, 3, FEATURES)] * 3)[0],
        STEPS * FEATURES,
        nn.MultiheadAttention(FEATURES, 2, batch_first=True),
    ),
    "convolution": lambda: Merging(
        lambda l, x: torch.relu(l[0](channels(x))), FEATURES * 12, nn.Conv1d(1, 3, 3)
    ),
    "max pooling": lambda: Merging(
        lambda l, x: F.max_pool1d(l[0](channels(x)), 2), FEATURES * 6, nn.Conv1d(1, 3, 3)
    ),
    "a mean over the batch that no row takes": lambda: Merging(scaled, STEPS * FEATURES),
    "a number of the batch that no row takes": lambda: Merging(scaled_where_small, STEPS * FEATURES),
    "batch norm": lambda: Merging(
        lambda l, x: torch.relu(l[1](l[0](rows(x)))), STEPS * WIDTH, nn.Linear(FEATURES, WIDTH), nn.BatchNorm1d(WIDTH)
    ),
    "recurrent": lambda: Merging(
        lambda l, x: l[0](series(x))[0][:, -1], FEATURES * 3, nn.LSTM(1, 3, batch_first=True)
    ),
    "recurrent, deep, steps first": lambda: Merging(
        lambda l, x: l[0](series(x).transpose(0, 1))[1].transpose(0, 1), FEATURES * 12,
        nn.GRU(1, 3, num_layers=2, bidirectional=True),
    ),
    "recurrent, from states": lambda: Merging(from_states, FEATURES * STEPS * 3, nn.RNN(1, 3, batch_first=True)),
    "recurrent, in a loop": lambda: Merging(in_a_loop, FEATURES * 6, nn.LSTMCell(1, 3)),
    "recurrent, of recurrent": lambda: Merging(
        lambda l, x: l[1](l[0](series(x))[0][:, -1].reshape(len(x), FEATURES, 3))[0], FEATURES * 2,
        nn.GRU(1, 3, batch_first=True), nn.LSTM(3, 2, batch_first=True),
    ),
    "steps first": in_steps(torch.tanh),
    "steps first, gelu": in_steps(F.gelu),
    "steps first, erf": in_steps(torch.erf),
    "steps first, layer norm": in_steps(lambda x: F.layer_norm(x, (WIDTH,))),
    "steps first, softmax": in_steps(lambda x: torch.softmax(x.reshape(-1, 4, 2), 1)),
    "steps first, log-softmax": in_steps(lambda x: torch.log_softmax(x, -1)),
    "steps first, logsumexp": in_steps(lambda x: torch.logsumexp(x, -1), 1),
    "steps first, greatest": in_steps(lambda x: x.max(-1)[0], 1),
    "steps first, sorted": in_steps(lambda x: x.sort(-1)[0]),
    "steps first, products": in_steps(lambda x: x * torch.sigmoid(x)),
    "steps first, a unit that is off": in_steps(lambda x: torch.sin(x) * (1 + torch.relu(x - 100))),
    "steps first, cumulated products": in_steps(lambda x: x.cumprod(-1)),
    "steps first, constants": in_steps(
        lambda x: torch.tanh(x * (torch.arange(STEPS).repeat_interleave(len(x) // STEPS)[:, None] + 1.0))
    ),
    "steps first, attention": lambda: Merging(attention_of_steps, STEPS * 8, *(nn.Linear(FEATURES, 8) for _ in range(3))),
    "steps first, multi-head attention": lambda: Merging(
        lambda l, x: l[0](*[rows(x.transpose(0, 1)).reshape(-1, 2, 2)] * 3)[0].reshape(STEPS, len(x), -1).transpose(0, 1),
        STEPS * FEATURES, nn.MultiheadAttention(2, 1, batch_first=True),
    ),
    "steps first, batch norm": lambda: Merging(
        lambda l, x: torch.relu(l[0](rows(x.transpose(0, 1)))).reshape(STEPS, len(x), -1).transpose(0, 1),
        STEPS * FEATURES, nn.BatchNorm1d(FEATURES),
    ),
    "steps in front and behind": lambda: Merging(
        lambda l, x: (
            torch.tanh(rows(x.reshape(len(x), 2, 3, FEATURES).transpose(0, 1)))
            .reshape(2, len(x), 3, FEATURES)
            .transpose(0, 1)
        ),
        STEPS * FEATURES,
    ),
    "in both orders": lambda: Merging(in_both_orders, STEPS * FEATURES),
    "second axis, rows inside": in_columns(torch.tanh),
    "features first, convolution": of_features(lambda l, x: torch.relu(l[0](x)), 12, lambda: nn.Conv1d(1, 3, 3)),
    "features first, max pooling": of_features(lambda l, x: F.max_pool1d(l[0](x), 2), 6, lambda: nn.Conv1d(1, 3, 3)),
    "recurrent, features first": of_features(
        lambda l, x: l[0](x.mT)[0][:, -1], 3, lambda: nn.LSTM(1, 3, batch_first=True)
    ),
    "recurrent, features first, in a loop": lambda: Merging(in_a_loop_of_features, FEATURES * 6, nn.LSTMCell(1, 3)),
    "recurrent, features first, from states": of_features(
        lambda l, x: torch.tanh(l[0](x.mT, torch.tanh(x.sum(2)).repeat(1, 3)[None])[0]), STEPS * 3,
        lambda: nn.RNN(1, 3, batch_first=True),
    ),
    "recurrent, steps first, read at each": lambda: Merging(
        sequence, STEPS * 3, nn.LSTM(FEATURES, 5), nn.Linear(5, 4), nn.Linear(4, 3)
    ),
    "recurrent, packed": lambda: Merging(packed, STEPS * 3, nn.LSTM(FEATURES, 5), nn.GRU(5, 3)),
    "recurrent, dilated": lambda: Merging(dilated, STEPS * 5, nn.GRU(FEATURES, 5)),
}  # fmt: skip

INSIDE = [name for name in MODELS if "first" in name or "inside" in name or "behind" in name]
RECURRENT = [name for name in MODELS if name.startswith("recurrent")]
IN_PARTICULAR = [*dict.fromkeys([*RECURRENT, *INSIDE])]

# Rows lie in no order (outer, rows, inner), or constants could be of any of them.
PAIRWISE: dict[str, Callable[[], nn.Module]] = {
    "a constant beside the second axis": at_second(
        lambda x: torch.maximum(x, torch.arange(1.0, STEPS + 1)[:, None] - 4)
    ),
    "some steps of all rows, then others": lambda: Merging(some_and_others, STEPS * FEATURES),
    "rows among features on the second axis, one constant": in_columns(
        lambda x: torch.maximum(x, torch.arange(1.0, STEPS + 1)[:, None] - 4)
    ),
}


# Rows have an axis of their own, and are in other places, or of another size, in between.
MOVING: dict[str, Callable[[], nn.Module]] = {
    "turned round": lambda: Merging(lambda l, x: torch.tanh(x.flip(0)).flip(0), STEPS * FEATURES),
    "one further": lambda: Merging(lambda l, x: torch.relu(x.roll(1, 0)).roll(-1, 0), STEPS * FEATURES),
    "times their number": lambda: Merging(lambda l, x: torch.relu(x * len(x)) / len(x), STEPS * FEATURES),
}


@pytest.fixture
def ways(monkeypatch) -> list[str]:
    """Which ways explanations take."""
    taken: list[str] = []
    for name in ("_all_pairs", "_aligned_pairs"):
        original = getattr(TorchEngine, name)

        def noted(*args: Any, name: str = name, original: Any = original) -> Any:
            taken.append(name)
            return original(*args)

        monkeypatch.setattr(TorchEngine, name, noted)
    return taken


def on_all_pairs(model: nn.Module, x: Tensor, r: Tensor, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patched:
        patched.setattr(TorchEngine, "_can_run_all_pairs", lambda *_: False)
        return deepshap.DeepExplainer(model, r, progress=False).shap_values(x)


@pytest.mark.parametrize(("examples", "references"), [(2, 3), (1, 5), (5, 1), (3, 3), (4, 120)])
@pytest.mark.parametrize("name", MODELS)
def test_either_side_runs_once(name, examples, references, ways, monkeypatch):
    model, x, r = built(MODELS[name]()), drawn(examples, STEPS, FEATURES), drawn(references, STEPS, FEATURES, seed=1)
    explainer = deepshap.DeepExplainer(model, r, progress=False)
    found = [explainer.shap_values(x) for _ in range(3)]
    assert {*ways} == {"_all_pairs"}
    wanted = on_all_pairs(model, x, r, monkeypatch)
    for values in found:
        assert_close(values, wanted, 1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_by_kernels(name, ways, monkeypatch):
    monkeypatch.setattr(jit_threshold.PAIRS, "threshold", 0)
    monkeypatch.setattr(fused.THRESHOLD, "threshold", 0)
    model, x, r = built(MODELS[name]()), drawn(3, STEPS, FEATURES), drawn(150, STEPS, FEATURES, seed=1)
    found = deepshap.DeepExplainer(model, r, progress=False).shap_values(x)
    assert {*ways} == {"_all_pairs"}
    monkeypatch.setattr(jit_threshold.PAIRS, "threshold", np.inf)
    monkeypatch.setattr(fused.THRESHOLD, "threshold", np.inf)
    assert_close(found, on_all_pairs(model, x, r, monkeypatch), 1e-11)


@pytest.mark.parametrize("name", PAIRWISE)
def test_others_run_on_all_pairs(name, ways, monkeypatch):
    model, x, r = built(PAIRWISE[name]()), drawn(2, STEPS, FEATURES), drawn(5, STEPS, FEATURES, seed=1)
    found = deepshap.DeepExplainer(model, r, progress=False).shap_values(x)
    assert ways[-1] == "_aligned_pairs"
    assert_close(found, on_all_pairs(model, x, r, monkeypatch), 1e-11)


class Turned(torch.autograd.Function):
    """Tanh of rows, one after the other, plus those that come with their steps first."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        y = torch.tanh(a + b.reshape(STEPS, -1, FEATURES).transpose(0, 1).reshape(-1, FEATURES))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, m: Tensor) -> tuple[Tensor, Tensor]:
        (y,) = ctx.saved_tensors
        own = m * (1 - y**2)
        return own, own.reshape(-1, STEPS, FEATURES).transpose(0, 1).reshape(-1, FEATURES)


def test_two_orders_in_one_call(ways, monkeypatch):
    model = built(Merging(lambda l, x: Turned.apply(rows(0.2 * x), rows(0.3 * x.transpose(0, 1))), STEPS * FEATURES))
    x, r = drawn(2, STEPS, FEATURES), drawn(5, STEPS, FEATURES, seed=1)
    deepshap.register_rule(Turned, "smooth")
    try:
        found = deepshap.DeepExplainer(model, r, progress=False).shap_values(x)
        assert ways[-1] == "_aligned_pairs"
        assert_close(found, on_all_pairs(model, x, r, monkeypatch), 1e-11)
    finally:
        deepshap.unregister_rule(Turned)


def test_a_mean_over_the_batch_that_a_row_takes():
    def model(x: Tensor) -> Tensor:
        rows = x.flatten(1)
        return torch.tanh(
            rows / torch.where(rows[:, :1] > 3, rows.abs().sum() / torch.tensor(float(rows.numel())), 1.0)
        )

    x, r = drawn(4, STEPS, FEATURES), drawn(5, STEPS, FEATURES, seed=1)
    x[1, 0, 0] = 4.0
    with pytest.raises(deepshap.BatchMixingError):
        deepshap.DeepExplainer(model, r, progress=False).shap_values(x)


@pytest.mark.parametrize("name", [*PAIRWISE, *INSIDE, "relu", "attention"])
def test_rows_that_are_alike_hide_no_order(name, monkeypatch):
    model, r = built((PAIRWISE | MODELS)[name]()), drawn(4, STEPS, FEATURES)
    x = r[:2].clone()  # the row that the model is probed on is the first reference
    found = deepshap.DeepExplainer(model, r, progress=False).shap_values(x)
    assert_close(found, on_all_pairs(model, x, r, monkeypatch), 1e-11)


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("name", ["steps first", "steps in front and behind"])
def test_an_order_that_the_first_rows_may_hide(name, alike, monkeypatch):
    """Sums do not tell it, on the scale of an output that is a thousand times what there is to explain."""
    model, x, r = built(MODELS[name]()), drawn(4, STEPS, FEATURES), drawn(5, STEPS, FEATURES, seed=1)
    with torch.no_grad():
        model.head.bias += 1e6
    if alike:  # all their entries: any order may be theirs
        x[0], r[0] = 0.3, 0.3
    model, x, r = model.float(), x.float(), r.float()
    found = deepshap.DeepExplainer(model, r, progress=False).shap_values(x, check_additivity=False)
    with monkeypatch.context() as patched:
        patched.setattr(TorchEngine, "_can_run_all_pairs", lambda *_: False)
        explainer = deepshap.DeepExplainer(model, r, progress=False)
        wanted = explainer.shap_values(x, check_additivity=False)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_an_order_behind_units_that_are_off_for_the_first_rows(monkeypatch):
    """What they add to a large output is less than sums of float32 show."""
    head = built(nn.Linear(3 * STEPS, 1))

    def model(x: Tensor) -> Tensor:
        steps = torch.sin(3 * torch.cat(torch.relu(x[..., 1:] - 1.5).unbind(1), 0))
        branch = torch.stack(steps.chunk(STEPS, 0), 1).flatten(1)
        return 300 * x[..., 0].sum(1, keepdim=True) + 0.1 * head(branch)

    x, r = 2 * drawn(3, STEPS, FEATURES), 2 * drawn(4, STEPS, FEATURES, seed=1)
    x[0, :, 1:].clamp_(max=1.2)  # with the first reference the rows that the model is probed on
    r[0, :, 1:].clamp_(max=1.2)
    wanted = on_all_pairs(model, x, r, monkeypatch)[:, :, 1:]
    head.float()
    found = deepshap.DeepExplainer(model, r.float(), progress=False).shap_values(x.float())[:, :, 1:]
    assert_close(found, wanted, 1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_order_that_low_precision_hides(dtype, ways):
    layer = built(nn.Linear(FEATURES, WIDTH))

    def forward(x: Tensor) -> Tensor:
        return torch.sin(layer(rows(x.transpose(0, 1)))).reshape(STEPS, len(x), -1).transpose(0, 1).sum((1, 2))

    x, r = (1 + 0.2 * torch.rand(n, STEPS, FEATURES, generator=torch.Generator().manual_seed(n)) for n in (3, 4))
    layer.to(dtype)
    deepshap.DeepExplainer(forward, r.to(dtype), progress=False).shap_values(x.to(dtype))
    assert ways[-1] == "_aligned_pairs"


def test_a_single_row_that_takes_another_way(ways, monkeypatch):
    def forward(x: Tensor) -> Tensor:
        if len(x) == 1:
            return sum(torch.sin(step).sum(1, keepdim=True) * (k + 1) for k, step in enumerate(x.unbind(1)))
        steps = torch.sin(rows(x.transpose(0, 1))).reshape(STEPS, len(x), FEATURES).sum(2)
        return (steps * torch.arange(1.0, STEPS + 1)[:, None]).sum(0)[:, None]

    x, r = drawn(3, STEPS, FEATURES), drawn(5, STEPS, FEATURES, seed=1)
    found = deepshap.DeepExplainer(forward, r, progress=False).shap_values(x)
    assert ways[-1] == "_aligned_pairs"
    assert_close(found, on_all_pairs(forward, x, r, monkeypatch), 1e-11)


@pytest.mark.parametrize("name", MOVING)
def test_rows_that_are_moved_and_back(name, ways, monkeypatch):
    model, x, r = built(MOVING[name]()), drawn(2, STEPS, FEATURES), drawn(5, STEPS, FEATURES, seed=1)
    found = deepshap.DeepExplainer(model, r, progress=False).shap_values(x)
    assert {*ways} == {"_aligned_pairs"}
    assert_close(found, on_all_pairs(model, x, r, monkeypatch), 1e-11)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", ["attention", *IN_PARTICULAR])
def test_several_passes(name, compiled, monkeypatch):
    """Steps are shown some of the references at a time."""
    monkeypatch.setattr(fused.THRESHOLD, "threshold", 0 if compiled else np.inf)
    model, x, r = built(MODELS[name]()), drawn(3, STEPS, FEATURES), drawn(40, STEPS, FEATURES, seed=1)
    wanted = on_all_pairs(model, x, r, monkeypatch)
    monkeypatch.setattr(engine, "multipliers_of_pass", lambda *_: 2 * 3 * 7)
    assert_close(deepshap.DeepExplainer(model, r, progress=False).shap_values(x), wanted, 1e-11)


def test_parts_of_the_background(monkeypatch):
    model, x, r = built(MODELS["attention"]()), drawn(3, STEPS, FEATURES), drawn(40, STEPS, FEATURES, seed=1)
    found = deepshap.DeepExplainer(model, r, progress=False, max_rows=7).shap_values(x)
    assert_close(found, on_all_pairs(model, x, r, monkeypatch), 1e-11)
