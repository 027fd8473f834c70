"""Rules in one compiled pass: the same as the plain rules, in any layout, and the same sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import deepshap
from deepshap.engines.torch import kernel_dispatch
from deepshap.formulas import secants
from deepshap.kernels import attention, jit_threshold, pairs

WEIGHT = torch.linspace(-1, 2, 6)


class OverOne(nn.Module):
    """A function over the second axis, of size 6 or 3, with the rows before or behind."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x.movedim(1, -1)).movedim(-1, 1)


FUNCTIONS = {
    "relu": nn.ReLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "gelu": nn.GELU(),
    "gelu by tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "softplus": nn.Softplus(),
    "leaky relu": nn.LeakyReLU(),
    "elu": nn.ELU(),
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(),
    "softmax": nn.Softmax(1),  # with the rows before, and behind: the axis is moved to the end
    "log softmax": nn.LogSoftmax(1),
    "layer norm": OverOne(lambda x: nn.functional.layer_norm(x, x.shape[-1:], *2 * [WEIGHT[: x.shape[-1]].to(x)], 0.1)),
    "rms norm": OverOne(lambda x: nn.functional.rms_norm(x, x.shape[-1:])),
}
OVER_ONE = ("softmax", "log softmax", "layer norm", "rms norm")


class Rows(nn.Module):
    """Has the rows first, in the middle or last where the function is applied."""

    def __init__(self, function, axis):
        super().__init__()
        self.one, self.two, self.function, self.axis = nn.Linear(4, 6), nn.Linear(18, 3), function, axis

    def forward(self, x):  # (rows, 3, 4)
        hidden = self.one(x).movedim(0, self.axis)
        return self.two(self.function(hidden).movedim(self.axis, 0).flatten(1))


@pytest.fixture
def passes(monkeypatch):
    """Use kernels for the smallest job and in threads, and count what they run."""
    runs, original = [], kernel_dispatch._run
    monkeypatch.setattr(jit_threshold, "THREADS_BEYOND", 0)
    monkeypatch.setattr(
        kernel_dispatch, "_run", lambda *given, **options: runs.append(given) or original(*given, **options)
    )

    def use(yes):
        monkeypatch.setattr(jit_threshold.PAIRS, "threshold", 0 if yes else np.inf)

    torch.set_num_threads(2)
    yield use, runs
    torch.set_num_threads(1)


def assert_as_in_float64(model, background, x, passes):
    """One pass gives what the plain rule gives in float64, to the rounding of x."""
    use, runs = passes
    runs.clear()
    use(True)
    found = deepshap.DeepExplainer(model, background).shap_values(x)
    assert len(runs) == 1
    use(False)
    plain = deepshap.DeepExplainer(model.double(), background.double()).shap_values(x.double())
    rounding = 1e-13 if x.dtype == torch.float64 else 2e-6
    np.testing.assert_allclose(found, plain, rtol=0, atol=rounding * np.abs(plain).max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("name", "axis"),
    [
        pytest.param(name, axis, marks=pytest.mark.wide if axis else ())
        for name in FUNCTIONS
        for axis in (0, 1, 2)
        if name not in OVER_ONE or axis != 1
    ],
)
def test_one_pass_is_the_plain_rule(name, axis, dtype, passes):
    torch.manual_seed(0)
    model = Rows(FUNCTIONS[name], axis).to(dtype)
    background, x = 3 * torch.randn(5, 3, 4, dtype=dtype), 3 * torch.randn(4, 3, 4, dtype=dtype)
    background[0] = x[0]  # no difference
    background[1] = x[1] + 1e-5  # hardly any
    assert_as_in_float64(model, background, x, passes)


POOLS = {
    "over a line": (nn.MaxPool1d(2), (6, 5)),
    "that overlaps and is padded": (nn.MaxPool1d(3, stride=2, padding=1), (6, 5)),
    "over a plane": (nn.MaxPool2d(2), (2, 4, 4)),
    "adaptive": (nn.AdaptiveMaxPool1d(2), (6, 5)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", POOLS)
def test_pooling(name, dtype, passes):
    torch.manual_seed(0)
    pool, shape = POOLS[name]
    model = nn.Sequential(
        nn.Linear(7, int(np.prod(shape))), nn.Unflatten(1, shape), pool, nn.Flatten(), nn.LazyLinear(3)
    )
    model = model.to(dtype)
    model(torch.zeros(2, 7, dtype=dtype))
    background, x = torch.randn(5, 7, dtype=dtype), torch.randn(4, 7, dtype=dtype)
    background[0] = x[0]
    assert_as_in_float64(model, background, x, passes)


def test_greatest_values_that_tie(passes):
    """Binary features tie everywhere: the positions of either side are what counts."""
    use, runs = passes
    model = nn.Sequential(nn.Unflatten(1, (2, 4)), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(4, 2))
    background, x = torch.randint(0, 2, (6, 8)).float(), torch.randint(0, 2, (5, 8)).float()
    found = {}
    for yes in (False, True):
        use(yes)
        found[yes] = deepshap.DeepExplainer(model, background).shap_values(x)
    assert len(runs) == 1
    np.testing.assert_allclose(found[True], found[False], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_contributions_are_summed_over_references(axis, dtype, passes):
    torch.manual_seed(0)
    m, x, r = (torch.randn(*shape, dtype=dtype) for shape in ((5, 4, 3, 6), (4, 3, 6), (5, 3, 6)))
    x[:, 0, 0] = r[:, 0, 0] = np.inf  # equal infinities, as in masks, do not differ
    expected = torch.zeros(4, 3, 6, dtype=torch.float64)
    for b, n, i, j in np.ndindex(5, 4, 3, 6):
        expected[n, i, j] += 0 if (i, j) == (0, 0) else (m[b, n, i, j] * (x[n, i, j] - r[b, i, j])).double()
    given = m.movedim(1, axis + 1), x.movedim(0, axis), r.movedim(0, axis), axis
    passes[0](False)
    assert kernel_dispatch.contributions(*given) is None
    passes[0](True)
    found = kernel_dispatch.contributions(*given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14 if dtype is torch.float64 else 1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["softsign", "relu6", "hardtanh", "hardsigmoid", "tanhshrink"])
def test_far_from_zero_slopes_keep_their_digits(name, dtype, passes):
    """Where a function saturates, its differences are small beside its arguments, and nothing but they count."""
    function = getattr(nn.functional, name)
    for size in (1e3, 1e5, 1e8, 1e16):
        background, x = size * torch.randn(7, 4, dtype=dtype), size * torch.randn(3, 4, dtype=dtype)
        values = {}
        for compiled in (True, False):
            passes[0](compiled)
            values[compiled] = deepshap.DeepExplainer(lambda x: 2 * function(x), background).shap_values(x)
        rounding = 32 * torch.finfo(dtype).eps
        np.testing.assert_allclose(values[True], values[False], rtol=0, atol=rounding * np.abs(values[False]).max())


def test_infinite_values_take_the_plain_rule(passes):
    use, runs = passes
    use(True)

    class Masked(nn.Module):
        def forward(self, x):
            hidden = torch.cat([x, 2 * x], 1).masked_fill(torch.arange(6) == 3, float("-inf"))
            return nn.functional.softplus(hidden).sum(1, keepdim=True)

    model, background, x = Masked(), torch.randn(3, 3), torch.randn(2, 3)
    values = deepshap.DeepExplainer(model, background).shap_values(x)
    assert not runs
    np.testing.assert_allclose(values.sum((1, 2)), (model(x) - model(background).mean(0))[:, 0], atol=1e-5)


@pytest.mark.parametrize("name", ["gelu", "silu", "softplus", "mish"])
def test_slopes_by_derivatives(name):
    """Times the distance they are the difference of the outputs to rounding; of near points they are the derivative."""
    function, r = FUNCTIONS[name], torch.linspace(-6, 6, 241).repeat_interleave(12)
    distances = torch.tensor([0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 1.0, 3.0, -2.0]).repeat(241)
    x = r + distances
    y, y_r, s, s_r = function(x), function(r), *(torch.func.vmap(torch.func.grad(function))(v) for v in (x, r))
    sides = [v[None, None, :] for v in (x, r, y, y_r, s, s_r)]
    m = torch.ones(1, 1, 1, 1, len(x))
    found = kernel_dispatch._run(pairs.smooth(), m, torch.empty_like(m), 1, sides).flatten()
    gap = found.double() * (x.double() - r.double()) - (y.double() - y_r.double())
    size = x.abs() + r.abs() + y.abs() + y_r.abs()
    assert bool((gap.abs() <= 5 * torch.finfo(torch.float32).eps * size).all())
    assert (found - s)[distances.abs() < 2e-5].abs().max() < 3e-5


class Attention(nn.Module):
    """Softmax over logits of which a mask takes some away: for all rows alike, or where the input is low."""

    def __init__(self, mask, fill):
        super().__init__()
        self.query, self.key, self.mask, self.fill = nn.Linear(4, 4), nn.Linear(4, 4), mask, fill

    def forward(self, x):
        logits = self.query(x) @ self.key(x).mT
        mask = torch.ones(3, 3, dtype=torch.bool).triu(1) if self.mask == "causal" else x[:, None, :, 0] < -1
        return (torch.softmax(logits.masked_fill(mask, self.fill), -1) @ x).flatten(1)


@pytest.mark.parametrize("fill", [float("-inf"), -1e9, -3e38])
@pytest.mark.parametrize(("mask", "runs_at_all"), [("causal", True), ("by value", False)])
def test_masks(mask, runs_at_all, fill, passes):
    use, runs = passes
    torch.manual_seed(0)
    model = Attention(mask, fill)
    background, x = torch.randn(5, 3, 4), torch.randn(4, 3, 4)
    found = {}
    for yes in (False, True):
        use(yes)
        found[yes] = deepshap.DeepExplainer(model, background).shap_values(x)
    assert bool(runs) == runs_at_all
    np.testing.assert_allclose(found[True], found[False], rtol=0, atol=2e-6 * np.abs(found[False]).max())


def test_other_functions_take_the_plain_rule(passes):
    use, runs = passes
    use(True)
    model = nn.Sequential(nn.Linear(3, 4), nn.Hardshrink(), nn.Linear(4, 1), nn.Threshold(0.1, 0.0))
    deepshap.DeepExplainer(model, torch.randn(3, 3)).shap_values(torch.randn(2, 3))
    assert not runs


def test_only_enough_work_is_compiled_for(passes, monkeypatch):
    _, runs = passes
    model = nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 4)), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1))
    explainer, x = deepshap.DeepExplainer(model, torch.randn(5, 3)), torch.randn(2, 3)
    monkeypatch.setattr(jit_threshold.PAIRS, "work", {})
    monkeypatch.setattr(jit_threshold.PAIRS, "threshold", 3 * 2 * 5 * 8)
    counts = []
    for _ in range(4):
        explainer.shap_values(x)
        counts.append(len(runs))
    assert counts == [0, 0, 1, 2]


# ---------------------------------------------------------------------- attention
class OfThree(nn.Module):
    """By heads, and with a mask; or of one head, with more queries than keys, and numbers in another order in memory."""

    def __init__(self, heads, mask=None):
        super().__init__()
        self.heads = heads
        self.register_buffer("mask", mask)
        self.mixed = nn.MultiheadAttention(4, heads or 1, batch_first=True)
        self.q, self.k, self.v = (nn.Linear(4, width) for width in (3, 3, 5))
        self.read_out = nn.Linear(4 if heads else 9, 2)

    def forward(self, x):
        if self.heads:
            y = self.mixed(x, x, x, attn_mask=self.mask, need_weights=False)[0]
            return self.read_out(torch.tanh(y)).mean(1)
        q, k, v = self.q(x), self.k(x[:, 2:]).mT.contiguous().mT, self.v(x[:, 2:]).mT.contiguous().mT
        y = nn.functional.scaled_dot_product_attention(q, k, v, scale=0.7)
        return self.read_out(torch.tanh(y).mT).mean(1)


MASKS = {
    "none": None,
    "causal": torch.ones(9, 9, dtype=torch.bool).triu(1),
    "added": torch.linspace(-2, 3, 81).reshape(9, 9),
}


@pytest.mark.parametrize("at_once", [3, 9], ids=["some queries at a time", "all queries"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("heads", "mask"), [(2, name) for name in MASKS] + [(0, "none")])
def test_attention(heads, mask, dtype, at_once, passes, monkeypatch):
    monkeypatch.setattr(attention, "queries_at_once", lambda *_: at_once)
    monkeypatch.setattr(kernel_dispatch, "FEWEST_QUERIES", 1)
    original, runs = kernel_dispatch._attention, passes[1]
    monkeypatch.setattr(kernel_dispatch, "_attention", lambda *given: runs.append(given) or original(*given))
    monkeypatch.setitem(kernel_dispatch.ELEMENTWISE, secants.tanh, None)  # attention alone
    torch.manual_seed(0)
    model = OfThree(heads, MASKS[mask]).to(dtype)
    background, x = 2 * torch.randn(5, 9, 4, dtype=dtype), 2 * torch.randn(4, 9, 4, dtype=dtype)
    background[0] = x[0]
    assert_as_in_float64(model, background, x, passes)
