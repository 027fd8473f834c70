"""Properties under drawn shapes, options and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close, built, drawn, values
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from models import KINDS
from torch import Tensor, nn

import deepshap

mpmath.mp.dps = 60


# ---------------------------------------------------------------------- recurrent layers
class Weighted(nn.Module):
    """A recurrent layer, all of whose results enter one output with drawn weights."""

    def __init__(self, layer: nn.RNNBase, steps: int):
        super().__init__()
        self.layer = layer
        ways = 2 if layer.bidirectional else 1
        width, copies = layer.proj_size or layer.hidden_size, ways * layer.num_layers
        self.of_output = drawn(steps, ways * width, seed=5)
        sizes = [width, layer.hidden_size] if isinstance(layer, nn.LSTM) else [width]
        self.of_state = [drawn(copies, size, seed=6 + i) for i, size in enumerate(sizes)]

    def forward(self, x: Tensor) -> Tensor:
        output, state = self.layer(x)
        states = state if isinstance(state, tuple) else (state,)
        parts = [(output * self.of_output).flatten(1).sum(1)]
        parts += [(s.transpose(0, 1) * w).flatten(1).sum(1) for s, w in zip(states, self.of_state, strict=True)]
        return sum(parts)


@st.composite
def recurrent_layers(draw: Any) -> tuple[Weighted, Tensor, Tensor]:
    """Draw a model, rows and references."""
    kind, features, units, steps = (
        draw(st.sampled_from(list(KINDS))),
        *(draw(st.integers(1, 4)) for _ in range(3)),
    )
    cls, own = KINDS[kind]
    projected = draw(st.booleans()) and kind == "LSTM" and units > 1
    layer = cls(
        features,
        units,
        num_layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
        batch_first=True,
        **own,
        **({"proj_size": draw(st.integers(1, units - 1))} if projected else {}),
    )
    scale = draw(st.sampled_from([0.1, 1.0, 10.0]))
    X, R = (scale * drawn(draw(st.integers(1, 3)), steps, features, seed=seed) for seed in (1, 2))
    return built(Weighted(layer, steps)), X, R


@settings(max_examples=60, deadline=None, derandomize=True)
@given(recurrent_layers())
def test_recurrent_layers_equal_the_oracle(drawing):
    model, X, R = drawing
    found = values(model, X, R)
    state = [np.zeros(part.shape) for part in model.of_state]
    seeds = oracle.extended(model.of_output), [oracle.extended(w) for w in model.of_state]
    for row, x in zip(found, oracle.extended(X), strict=True):
        pairs = [oracle.recurrent(model.layer, x, r, state, state, *seeds)[0] * (x - r) for r in oracle.extended(R)]
        assert_close(row, np.mean(pairs, 0))


# ---------------------------------------------------------------------- elementwise secants
def gauss(x: Any) -> Any:
    """Distribution function of the normal distribution."""
    return mpmath.ncdf(x)


REAL, POSITIVE = (-30.0, 30.0), (1e-3, 50.0)
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Any], Any], tuple[float, float]]] = {
    "tanh": (torch.tanh, mpmath.tanh, REAL),
    "sigmoid": (torch.sigmoid, lambda x: 1 / (1 + mpmath.exp(-x)), REAL),
    "exp": (torch.exp, mpmath.exp, REAL),
    "exp2": (torch.exp2, lambda x: mpmath.power(2, x), REAL),
    "expm1": (torch.expm1, mpmath.expm1, REAL),
    "log": (torch.log, mpmath.log, POSITIVE),
    "log1p": (torch.log1p, mpmath.log1p, POSITIVE),
    "log10": (torch.log10, mpmath.log10, POSITIVE),
    "sqrt": (torch.sqrt, mpmath.sqrt, POSITIVE),
    "rsqrt": (torch.rsqrt, lambda x: 1 / mpmath.sqrt(x), POSITIVE),
    "square": (torch.square, lambda x: x * x, REAL),
    "reciprocal": (torch.reciprocal, lambda x: 1 / x, POSITIVE),
    "pow 3": (lambda x: x**3, lambda x: x**3, REAL),
    "pow 1.5": (lambda x: x**1.5, lambda x: mpmath.power(x, 1.5), POSITIVE),
    "silu": (F.silu, lambda x: x / (1 + mpmath.exp(-x)), REAL),
    "gelu": (F.gelu, lambda x: x * gauss(x), REAL),
    "softplus": (F.softplus, lambda x: mpmath.log1p(mpmath.exp(x)) if x <= 20 else x, (-30.0, 19.9)),
    "logsigmoid": (F.logsigmoid, lambda x: -mpmath.log1p(mpmath.exp(-x)), REAL),
    "mish": (F.mish, lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))), (-30.0, 19.9)),
    "elu": (F.elu, lambda x: x if x > 0 else mpmath.expm1(x), REAL),
    "tanhshrink": (F.tanhshrink, lambda x: x - mpmath.tanh(x), REAL),
    "softsign": (F.softsign, lambda x: x / (1 + abs(x)), REAL),
    "relu": (torch.relu, lambda x: max(x, mpmath.mpf(0)), REAL),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.25), lambda x: x if x > 0 else x / 4, REAL),
    "abs": (torch.abs, abs, REAL),
    "clamp": (lambda x: x.clamp(-1, 2), lambda x: min(max(x, mpmath.mpf(-1)), mpmath.mpf(2)), REAL),
    "erf": (torch.erf, mpmath.erf, REAL),
    "sin": (torch.sin, mpmath.sin, REAL),
    "atan": (torch.atan, mpmath.atan, REAL),
    "cosh": (torch.cosh, mpmath.cosh, REAL),
    "lgamma": (torch.lgamma, mpmath.loggamma, (0.1, 50.0)),
}
KINKED = ["relu", "leaky_relu", "abs", "clamp"]


def points(low: float, high: float) -> st.SearchStrategy[float]:
    """Draw numbers that are not absurdly small."""
    return st.floats(low, high).map(lambda value: round(value, 9))


def beside(start: float, digits: int) -> float:
    """Return a number that shares as many digits with another."""
    return start + 10.0**-digits * max(abs(start), 0.1)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 1e-3)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore::deepshap.AdditivityWarning")
def test_secants(name, dtype, error):
    """Slopes are exact far apart, close together and saturated; at kinks as far as the outputs' rounding lets them."""
    function, exact, domain = FUNCTIONS[name]

    pairs = st.tuples(points(*domain), st.one_of(points(*domain), st.integers(1, 15)))

    @settings(max_examples=6, deadline=None, derandomize=True)
    @given(st.lists(pairs, min_size=10, max_size=10))  # of a row's features each is a pair of its own
    def check(drawn: list[tuple[float, float | int]]) -> None:
        x = torch.tensor([[start for start, _ in drawn]], dtype=dtype)
        r = torch.tensor([[beside(s, other) if isinstance(other, int) else other for s, other in drawn]], dtype=dtype)
        fitting = (domain[0] <= r) & (r <= domain[1]) & (r != x)
        assume(fitting.any())
        x, r = x[fitting][None], r[fitting][None]
        values = deepshap.DeepExplainer(function, r, progress=False).shap_values(x, check_additivity=False)[0]
        assert not (values - np.diag(np.diag(values))).any()
        for value, one, other in zip(np.diag(values), x[0].tolist(), r[0].tolist(), strict=True):
            a, b = mpmath.mpf(one), mpmath.mpf(other)
            at_a, at_b, found = exact(a), exact(b), float(value) / (one - other)
            wanted, outputs = (at_a - at_b) / (a - b), abs(at_a) + abs(at_b)
            steepest = max(abs(wanted), 1e-3 * outputs, mpmath.mpf(1e-3))
            rounding = 8 * torch.finfo(dtype).eps * outputs / abs(a - b) if name in KINKED else 0
            assert abs(found - wanted) <= max(error * steepest, rounding), (one, other)

    check()
