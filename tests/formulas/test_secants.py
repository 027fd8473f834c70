"""The secants, on awkward numbers: their slope explains the difference, in every framework, and to rounding the same."""

from __future__ import annotations

import itertools
from typing import Any

import mpmath
import numpy as np
import pytest
import tensorflow as tf
import torch
from scipy import special as scipy_special

from deepshap.formulas import on_numpy, on_tensorflow, on_torch, secants

FRAMEWORKS = pytest.mark.parametrize("framework", [torch, tf, np], ids=["torch", "tensorflow", "numpy"])
EPS = np.finfo(float).eps
FUNCTIONS = {  # by the names of their secants, in double precision
    "tanh": np.tanh, "sigmoid": scipy_special.expit, "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p,
    "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "square": np.square, "reciprocal": np.reciprocal,
    "relu": lambda x: np.maximum(x, 0), "silu": lambda x: x * scipy_special.expit(x), "gelu": lambda x: x * scipy_special.ndtr(x),
    "gelu_tanh": lambda x: x * scipy_special.expit(2 * (2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)),
    "cube": lambda x: x * x * x, "piecewise_constant": np.floor,
    "tanhshrink": lambda x: x - np.tanh(x), "tanh_fused": np.tanh, "sigmoid_fused": scipy_special.expit,
}  # fmt: skip
NOT_NEGATIVE, POSITIVE = ("sqrt", "log1p"), ("log", "rsqrt", "reciprocal")
AWKWARD = [
    0.0,
    -0.0,
    1e-300,
    1e-30,
    1e-8,
    0.1,
    0.1 + 1e-17,
    0.1 + 1e-12,
    1.0,
    1 + EPS,
    3.0,
    35.0,
    36.5,
    300.0,
    1e6,
    1e100,
]
LARGEST = {"reciprocal": 1e150}  # of the values: the product of two must not overflow


def numbers(name: str) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of awkward numbers at which the function is finite."""
    both = np.array(AWKWARD if name in (*NOT_NEGATIVE, *POSITIVE) else [*AWKWARD, *(-v for v in AWKWARD)])
    with np.errstate(all="ignore"):
        fine = [
            v for v in both if abs(FUNCTIONS[name](v)) <= LARGEST.get(name, 1e308) and (name not in POSITIVE or v > 0)
        ]
    return tuple(np.array(list(itertools.product(fine, fine))).T)  # type: ignore[return-value]


def slopes(name: str, framework: Any, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    secant = getattr(secants, name)
    with np.errstate(all="ignore"):
        given = x, r, FUNCTIONS[name](x), FUNCTIONS[name](r)
    if framework is not tf:
        return np.asarray(secant(*(given if framework is np else map(torch.tensor, given))))
    return tf.function(secant)(*map(tf.constant, given)).numpy()


def sizes(name: str, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Of the numbers whose rounding is that of the outputs."""
    y, yr = FUNCTIONS[name](x), FUNCTIONS[name](r)
    return sum(np.abs(v) for v in ((y, yr, x, r) if name == "tanhshrink" else (y, yr)))


def test_every_secant_is_here():
    closed = {
        name for name, f in vars(secants).items() if callable(f) and getattr(f, "__module__", "") == secants.__name__
    }
    helpers = {
        "exponential",
        "exponential_fused",
        "tanhc",
        "decay",
        "log1pc",
        "quotient_where",
        "from_function",
        "zero_infinities",
    }
    assert {name for name in closed if not name.startswith("_")} - helpers == set(FUNCTIONS)


@FRAMEWORKS
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_slope_explains_the_difference(name, framework):
    x, r = numbers(name)
    found = slopes(name, framework, x, r)
    assert np.isfinite(found).all()
    y, yr = FUNCTIONS[name](x), FUNCTIONS[name](r)
    with np.errstate(over="ignore", invalid="ignore"):
        gap, size = np.abs(found * (x - r) - (y - yr)), sizes(name, x, r)
    assert (gap <= 64 * EPS * size + 1e-200).all(), (x[gap > 64 * EPS * size], r[gap > 64 * EPS * size])


@pytest.mark.parametrize("framework", [tf, np], ids=["tensorflow", "numpy"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_frameworks_agree(name, framework):
    x, r = numbers(name)
    found, wanted = slopes(name, framework, x, r), slopes(name, torch, x, r)
    # Where the values' own digits are lost, only what the slope explains is determined.
    explained = np.abs((found - wanted) * (x - r)) <= 64 * EPS * sizes(name, x, r)
    assert np.where(x == r, np.abs(found - wanted) <= 64 * EPS * np.maximum(np.abs(wanted), 1e-3), explained).all()


@FRAMEWORKS
@pytest.mark.parametrize("name", ["sqrt", "rsqrt", "log", "reciprocal"])
def test_an_infinite_slope_of_an_operand_that_does_not_change_explains_nothing(name, framework):
    nothing = np.zeros(1)
    with np.errstate(all="ignore"):
        found = slopes(name, framework, nothing, nothing)
    assert not np.isinf(found).any()


@pytest.mark.parametrize("framework", [torch, tf], ids=["torch", "tensorflow"])
@pytest.mark.parametrize(
    ("of_torch", "of_tensorflow", "exact"),
    [
        (torch.erf, tf.math.erf, mpmath.erf),
        (torch.sin, tf.sin, mpmath.sin),
        (torch.abs, tf.abs, abs),
        (torch.floor, tf.floor, mpmath.floor),
    ],
    ids=["erf", "sin", "abs", "floor"],
)
def test_the_secant_of_any_function(of_torch, of_tensorflow, exact, framework):
    x, r = map(np.array, zip(*itertools.product([-3.0, -1e-9, 0.0, 0.3, 0.3 + 1e-14, 2.5], repeat=2), strict=True))
    if framework is torch:
        given = [torch.tensor(v) for v in (x, r)]
        found = secants.from_function(of_torch)(*given, *map(of_torch, given)).numpy()
    else:
        compiled = tf.function(
            lambda x, r: secants.from_function(of_tensorflow)(x, r, of_tensorflow(x), of_tensorflow(r))
        )
        found = compiled(tf.constant(x), tf.constant(r)).numpy()
    change = np.array([float(exact(mpmath.mpf(a)) - exact(mpmath.mpf(b))) for a, b in zip(x, r, strict=True)])
    assert np.abs(found * (x - r) - change).max() <= 16 * EPS * 5


def test_the_namespaces_have_the_same_functions_numpys_some_of_them():
    names = [
        {name for name, f in vars(module).items() if callable(f) and name.islower() and not name.startswith("_")}
        for module in (on_torch, on_tensorflow, on_numpy)
    ]
    assert names[0] - names[1] == set()
    assert names[1] - names[0] == {"rounding"}
    assert names[2] - names[0] == set()


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_fused_slopes_are_the_same_in_every_precision_and_at_infinities(name, dtype):
    both = [0.0, 1e-3, 0.3, -0.5, 0.74, 3.0, -8.0, 60.0, np.inf, -np.inf]
    x, r = (tf.constant(v, dtype) for v in zip(*itertools.product(both, repeat=2), strict=True))
    given = x, r, *map(getattr(tf, name), (x, r))
    found, wanted = (getattr(secants, form)(*given) for form in (f"{name}_fused", name))
    eps = on_tensorflow.rounding(dtype)
    assert np.abs(np.asarray(found - wanted, float)).max() <= 8 * eps


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64], ids=lambda dtype: dtype.name)
def test_fused_slopes_of_exponentials_are_the_same_in_every_precision(dtype):
    both = [0.0, -1e-3, -0.3, -0.5, -0.98, -1.02, -3.0, -8.0, -60.0, -np.inf]
    x, r = (tf.constant(v, dtype) for v in zip(*itertools.product(both, repeat=2), strict=True))
    given = tf.where(x == r, tf.zeros_like(x), x - r), tf.exp(x), tf.exp(r)
    found, wanted = (np.asarray(slope(*given), float) for slope in (secants.exponential_fused, secants.exponential))
    assert np.abs(found - wanted).max() <= 8 * on_tensorflow.rounding(dtype)
