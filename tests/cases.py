"""The cases: one line per operation or model that deepshap must explain exactly.

``op`` wraps a function of tensors between two fixed linear maps, so that every operand depends on every feature and
the function meets multipliers that differ from element to element. ``model`` takes a module as it is.
Both maps keep to the operand's domain: outside the domain "any" their weights are convex combinations.
Rows are the first axis everywhere. What the cases are tested for is in ``test_cases.py``.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

TOKENS = 7
DOMAINS: dict[str, tuple[float, float]] = {
    "positive": (0.3, 2.5),
    "unit": (0.05, 0.95),
    "open": (-0.95, 0.95),
    "above one": (1.1, 3.0),
    "negative": (-2.5, -0.3),
}


@dataclass(frozen=True)
class Case:
    """A model, the shape of one row of each input, and what else a call needs."""

    name: str
    build: Callable[[], Callable[..., Any]]
    shape: Any = (4,)
    domain: str = "any"
    args: Callable[[int, torch.dtype], tuple[Any, ...]] | None = None
    output: Any = None

    def model(self, dtype: torch.dtype = torch.float64) -> Callable[..., Any]:
        """Build the model, the same at every call, in eval mode and with no parameter left at 0 or 1."""
        torch.manual_seed(zlib.crc32(self.name.encode()))
        built = self.build()
        if not isinstance(built, nn.Module):
            return built
        with torch.no_grad():
            for name, value in (*built.named_parameters(), *built.named_buffers()):
                if value.is_floating_point():
                    value.add_(0.2 * torch.rand_like(value) if "var" in name else 0.2 * torch.randn_like(value))
        return built.eval().to(dtype)

    def inputs(self, rows: int, seed: int, dtype: torch.dtype = torch.float64) -> Any:
        """Draw rows of every input, in the structure of ``shape``."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.name}{seed}".encode()))
        if isinstance(self.shape, dict):
            return {key: draw((rows, *shape), self.domain, dtype, generator) for key, shape in self.shape.items()}
        if isinstance(self.shape, list):
            return [draw((rows, *shape), self.domain, dtype, generator) for shape in self.shape]
        return draw((rows, *self.shape), self.domain, dtype, generator)

    def extra(self, rows: int, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
        """Return the additional forward arguments of that many rows."""
        return self.args(rows, dtype) if self.args else ()

    def call(self, model: Callable[..., Any], inputs: Any, extra: tuple[Any, ...] = ()) -> Any:
        """Call the model the way deepshap does, and pick the explained output."""
        if isinstance(inputs, dict):
            result = model(*extra, **inputs)
        elif isinstance(inputs, list):
            result = model(*inputs, *extra)
        else:
            result = model(inputs, *extra)
        if self.output is None:
            return result
        return self.output(result) if callable(self.output) else result[self.output]


CASES: list[Case] = []


def draw(shape: Iterable[int], domain: str, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Draw a tensor of a domain."""
    shape = tuple(shape)
    if domain == "tokens":
        return torch.randint(0, TOKENS, shape, generator=generator)
    if domain == "any":
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    low, high = DOMAINS[domain]
    return (low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)).to(dtype)


def fixed(like: Tensor, *shape: int) -> Tensor:
    """Return a constant of a shape, neither random nor regular, in the dtype of another tensor."""
    values = np.cos(1.7 * np.arange(1, math.prod(shape) + 1)).reshape(shape)
    return torch.as_tensor(values, dtype=like.dtype)


class Op(nn.Module):
    """A function between two linear maps."""

    def __init__(self, function: Callable[..., Any], width: int, domains: tuple[str, ...]):
        super().__init__()
        self.function = function
        mixes = [torch.randn(width, width) for _ in domains]
        for i, (mix, domain) in enumerate(zip(mixes, domains, strict=True)):
            self.register_buffer(f"mix{i}", mix if domain == "any" else torch.softmax(2 * mix, 0))

    def forward(self, x: Tensor) -> Tensor:
        results = self.function(*(x @ mix for mix in self.buffers()))
        results = results if isinstance(results, (tuple, list)) else [results]
        flat = torch.cat([y.reshape(len(x), -1).to(x.dtype) for y in results], 1)
        return flat @ fixed(x, flat.shape[1], 2)


class OpCase(Case):
    """A case whose model keeps its linear maps as they were drawn."""

    def model(self, dtype: torch.dtype = torch.float64) -> Callable[..., Any]:
        torch.manual_seed(zlib.crc32(self.name.encode()))
        return self.build().to(dtype)


def op(name: str, function: Callable[..., Any], shape: tuple[int, ...] = (4,), domain: str = "any") -> None:
    """Add a function of one operand or, with domains separated by commas, of several."""
    domains = tuple(domain.split(","))
    bounded = [d for d in domains if d != "any"]
    drawn = bounded[0] if bounded else "any"
    CASES.append(OpCase(name, lambda: Op(function, shape[-1], domains), shape, drawn))


def model(name: str, build: Callable[[], Callable[..., Any]], shape: Any = (4,), **special: Any) -> None:
    """Add a model."""
    CASES.append(Case(name, build, shape, **special))


def written(shape: tuple[int, ...] = (4,), domain: str = "any") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a function written out below the decorator."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        op(function.__name__, function, shape, domain)
        return function

    return add


TWO = "any,any"
THREE = "any,any,any"

# ====================================================================== activations
op("relu", torch.relu)
op("relu, method", lambda x: x.relu())
op("relu, functional", F.relu)
op("relu, in place", lambda x: x.relu_())
op("relu, functional in place", lambda x: F.relu(x, inplace=True))
op("relu, torch in place", torch.relu_)
op("leaky_relu", lambda x: F.leaky_relu(x, 0.2))
op("leaky_relu, in place", lambda x: F.leaky_relu_(x, 0.2))
op("prelu", lambda x: F.prelu(x, fixed(x, 1)))
op("prelu, learned by input", lambda x, w: F.prelu(x, w.abs().amax()) if False else torch.where(x > 0, x, w * x), domain=TWO)
op("rrelu", lambda x: F.rrelu(x, 0.1, 0.3))
op("relu6", lambda x: F.relu6(4 * x))
op("elu", lambda x: F.elu(x, 1.3))
op("elu, in place", lambda x: F.elu_(x))
op("selu", F.selu)
op("celu", lambda x: F.celu(x, 0.7))
op("gelu", F.gelu)
op("gelu, tanh", lambda x: F.gelu(x, approximate="tanh"))
op("silu", F.silu)
op("silu, in place", lambda x: F.silu(x, inplace=True))
op("mish", F.mish)
op("softplus", lambda x: F.softplus(x, 2.0, 5.0))
op("softsign", F.softsign)
op("logsigmoid", F.logsigmoid)
op("hardsigmoid", lambda x: F.hardsigmoid(2 * x))
op("hardswish", lambda x: F.hardswish(2 * x))
op("hardtanh", lambda x: F.hardtanh(x, -0.7, 0.9))
op("hardtanh, in place", lambda x: F.hardtanh_(x))
op("hardshrink", lambda x: F.hardshrink(x, 0.6))
op("softshrink", lambda x: F.softshrink(x, 0.4))
op("tanhshrink", F.tanhshrink)
op("threshold", lambda x: F.threshold(x, 0.2, -1.0))
op("threshold, in place", lambda x: F.threshold_(x, 0.2, -1.0))
op("glu", lambda x: F.glu(x))
op("glu, axis", lambda x: F.glu(x, 1), (4, 3))
op("sigmoid", torch.sigmoid)
op("sigmoid, method", lambda x: x.sigmoid())
op("sigmoid, functional", F.sigmoid)
op("sigmoid, in place", lambda x: x.sigmoid_())
op("sigmoid, expit", torch.special.expit)
op("tanh", torch.tanh)
op("tanh, functional", F.tanh)
op("tanh, in place", lambda x: x.tanh_())
op("tanh, aten", torch.ops.aten.tanh.default)
op("tanh, packet", torch.ops.aten.tanh)
op("tanh, out", lambda x: torch.tanh(x, out=torch.empty_like(x)) if False else torch.tanh(x))
for _activation in (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Hardshrink, nn.Softshrink,
    nn.Tanhshrink, nn.Sigmoid, nn.Tanh, nn.GLU,
):  # fmt: skip
    model(f"nn.{_activation.__name__}", lambda a=_activation: nn.Sequential(nn.Linear(4, 4), a(), nn.Linear(2 if a is nn.GLU else 4, 2)))
model("nn.Threshold", lambda: nn.Sequential(nn.Linear(4, 4), nn.Threshold(0.1, 0.3), nn.Linear(4, 2)))
model("nn.ReLU, in place", lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)))
model("nn.PReLU, channels", lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.PReLU(3)), (2, 4))

# ====================================================================== elementwise mathematics
op("exp", torch.exp)
op("exp, in place", lambda x: x.exp_())
op("exp2", torch.exp2)
op("expm1", torch.expm1)
op("log", torch.log, domain="positive")
op("log2", torch.log2, domain="positive")
op("log10", torch.log10, domain="positive")
op("log1p", torch.log1p, domain="positive")
op("sqrt", torch.sqrt, domain="positive")
op("rsqrt", torch.rsqrt, domain="positive")
op("square", torch.square)
op("square, in place", lambda x: x.square_())
op("reciprocal", torch.reciprocal, domain="positive")
op("reciprocal, negative", torch.reciprocal, domain="negative")
op("abs", torch.abs)
op("abs, builtin", abs)
op("abs, in place", lambda x: x.abs_())
op("absolute", torch.absolute)
op("neg", lambda x: -x)
op("neg, in place", lambda x: x.neg_())
op("positive", lambda x: +x)
op("sign", torch.sign)
op("sgn", torch.sgn)
op("signbit", torch.signbit)
op("floor", torch.floor)
op("ceil", torch.ceil)
op("round", torch.round)
op("round, decimals", lambda x: torch.round(x, decimals=1))
op("trunc", torch.trunc)
op("fix", torch.fix)
op("frac", torch.frac)
op("sin", torch.sin)
op("cos", torch.cos)
op("tan", torch.tan, domain="open")
op("asin", torch.asin, domain="open")
op("acos", torch.acos, domain="open")
op("arcsin", torch.arcsin, domain="open")
op("atan", torch.atan)
op("sinh", torch.sinh)
op("cosh", torch.cosh)
op("asinh", torch.asinh)
op("acosh", torch.acosh, domain="above one")
op("atanh", torch.atanh, domain="open")
op("erf", torch.erf)
op("erfc", torch.erfc)
op("erfinv", torch.erfinv, domain="open")
op("sinc", torch.sinc)
op("lgamma", torch.lgamma, domain="positive")
op("digamma", torch.digamma, domain="positive")
op("polygamma", lambda x: torch.polygamma(1, x), domain="positive")
op("mvlgamma", lambda x: torch.mvlgamma(x, 2), domain="above one")
op("logit", torch.logit, domain="unit")
op("logit, eps", lambda x: torch.logit(x, eps=0.2), domain="unit")
op("nan_to_num", torch.nan_to_num)
op("deg2rad", torch.deg2rad)
op("rad2deg", torch.rad2deg)
op("pow 2", lambda x: x**2)
op("pow 3", lambda x: x**3)
op("pow 4", lambda x: torch.pow(x, 4))
op("pow 0.5", lambda x: x**0.5, domain="positive")
op("pow -1", lambda x: x**-1, domain="positive")
op("pow, tensor exponent", lambda x: x ** torch.tensor([1.0, 2.0, 3.0, 2.0], dtype=x.dtype))
op("pow, constant base", lambda x: 2**x)
op("pow, both", lambda x, y: x**y, domain="positive,any")
op("pow, in place", lambda x: x.pow_(2))
op("float_power", lambda x: torch.float_power(x, 1.5), domain="positive")
op("clamp", lambda x: x.clamp(-0.5, 0.8))
op("clamp, min", lambda x: torch.clamp(x, min=-0.3))
op("clamp, max", lambda x: x.clamp_max(0.3))
op("clamp_min", lambda x: x.clamp_min(0.1))
op("clamp, in place", lambda x: x.clamp_(0, 1))
op("clamp, constant tensors", lambda x: torch.clamp(x, fixed(x, 4) - 0.5, fixed(x, 4) + 0.5))
op("clamp, varying bounds", lambda x, low, high: torch.clamp(x, low, high), domain=THREE)
op("clip", lambda x: torch.clip(x, -1, 1))
op("fmod", lambda x: torch.fmod(3 * x, 2))
op("remainder", lambda x: (3 * x) % 2)
op("remainder, both", lambda x, y: torch.remainder(x, y), domain="positive,positive")
op("heaviside", lambda x: torch.heaviside(x, torch.ones(1, dtype=x.dtype)))
op("special.xlog1py", lambda x, y: torch.special.xlog1py(x, y), domain="positive,positive")
op("special.ndtr", torch.special.ndtr)
op("special.log_ndtr", torch.special.log_ndtr)
op("special.ndtri", torch.special.ndtri, domain="unit")
op("special.i0", torch.special.i0)
op("special.i0e", torch.special.i0e)
op("special.i1", torch.special.i1)
op("special.i1e", torch.special.i1e)
op("special.entr", torch.special.entr, domain="unit")
op("special.erfcx", torch.special.erfcx)
op("special.exp2", torch.special.exp2)
op("special.expm1", torch.special.expm1)
op("special.log1p", torch.special.log1p, domain="positive")
op("special.psi", torch.special.psi, domain="positive")
op("special.gammaln", torch.special.gammaln, domain="positive")
op("special.sinc", torch.special.sinc)
op("i0", torch.i0)

# ====================================================================== arithmetic
op("add", torch.add, domain=TWO)
op("add, alpha", lambda x, y: torch.add(x, y, alpha=0.4), domain=TWO)
op("add, operator and constant", lambda x: 1 + x + 2)
op("add, in place", lambda x, y: x.add_(y, alpha=2), domain=TWO)
op("sub", lambda x, y: x - y, domain=TWO)
op("sub, in place", lambda x, y: x.sub_(y), domain=TWO)
op("rsub", lambda x: 1 - x)
op("rsub, function", lambda x, y: torch.rsub(x, y, alpha=0.3), domain=TWO)
op("mul", lambda x, y: x * y, domain=TWO)
op("mul, self", lambda x: x * x)
op("mul, constant", lambda x: 3 * x * fixed(x, 4))
op("mul, broadcast", lambda x, y: x[:, :, None] * y[:, None, :], domain=TWO)
op("mul, broadcast column", lambda x, y: x[:, :1] * y, domain=TWO)
op("mul, in place", lambda x, y: x.mul_(y), domain=TWO)
op("div", lambda x, y: x / y, domain="any,positive")
op("div, constant", lambda x: x / 3)
op("div, under a constant", lambda x: 3 / x, domain="positive")
op("div, function", lambda x, y: torch.div(x, y), domain="any,positive")
op("div, self", lambda x: x / (1 + x), domain="positive")
op("div, in place", lambda x, y: x.div_(y), domain="any,positive")
op("div, floor", lambda x, y: torch.div(3 * x, y, rounding_mode="floor"), domain="any,positive")
op("div, trunc", lambda x, y: torch.div(3 * x, y, rounding_mode="trunc"), domain="any,positive")
op("true_divide", lambda x, y: torch.true_divide(x, y), domain="any,positive")
op("floor_divide", lambda x, y: (4 * x) // y, domain="any,positive")
op("addcmul", lambda x, y, z: torch.addcmul(x, y, z, value=0.7), domain=THREE)
op("addcmul, in place", lambda x, y, z: x.addcmul_(y, z), domain=THREE)
op("addcdiv", lambda x, y, z: torch.addcdiv(x, y, z, value=0.7), domain="any,any,positive")
op("lerp", lambda x, y: torch.lerp(x, y, 0.3), domain=TWO)
op("lerp, varying weight", lambda x, y, w: torch.lerp(x, y, w), domain=THREE)
op("cross", lambda x, y: torch.cross(x, y, dim=1), (3,), TWO)
op("linalg.cross", lambda x, y: torch.linalg.cross(x, y), (3,), TWO)
op("dot, vdot", lambda x, y: torch.stack([torch.vdot(a, b) + torch.dot(b, a) for a, b in zip(x, y, strict=True)]), domain=TWO)
op("linalg.vecdot", lambda x, y: torch.linalg.vecdot(x, y), domain=TWO)
op("outer", lambda x, y: torch.stack([torch.outer(a, b) for a, b in zip(x, y, strict=True)]), domain=TWO)
op("kron", lambda x: torch.kron(x, fixed(x, 1, 2)))
op("kron, both", lambda x, y: torch.stack([torch.kron(a, b) for a, b in zip(x, y, strict=True)]), domain=TWO)
op("inner", lambda x: torch.inner(x, fixed(x, 3, 4)))
op("matmul", lambda x, y: x @ y.mT, (2, 3), TWO)
op("matmul, weight", lambda x: torch.matmul(x, fixed(x, 4, 3)))
op("matmul, weight first", lambda x: fixed(x, 5, 2) @ x, (2, 3))
op("matmul, vector", lambda x: x @ fixed(x, 4))
op("matmul, self", lambda x: x.mT @ x, (2, 3))
op("bmm", lambda x, y: torch.bmm(x, y.transpose(1, 2)), (2, 3), TWO)
op("mm", lambda x: torch.mm(x, fixed(x, 4, 3)))
op("mm, rows apart", lambda x, y: torch.stack([a.mm(b.t()) for a, b in zip(x, y, strict=True)]), (2, 3), TWO)
op("mv", lambda x: torch.mv(x, fixed(x, 4)))
op("mv, rows apart", lambda x: torch.stack([a.mv(a[0]) for a in x]), (2, 3))
op("addmm", lambda x: torch.addmm(fixed(x, 3), x, fixed(x, 4, 3), beta=0.5, alpha=2))
op("addmm, varying", lambda x, y: torch.addmm(y, x, fixed(x, 4, 4)), domain=TWO)
op("addmv", lambda x: torch.addmv(fixed(x, 1).expand(len(x)), x, fixed(x, 4)))
op("addbmm", lambda x, y: torch.stack([torch.addbmm(fixed(x, 2, 2), a[None], b.t()[None]) for a, b in zip(x, y, strict=True)]), (2, 3), TWO)
op("baddbmm", lambda x, y: torch.baddbmm(fixed(x, 2, 2), x, y.mT, beta=0.5, alpha=1.5), (2, 3), TWO)
op("addr", lambda x, y: torch.stack([torch.addr(fixed(x, 4, 4), a, b) for a, b in zip(x, y, strict=True)]), domain=TWO)
op("einsum", lambda x: torch.einsum("nti,io->nto", x, fixed(x, 3, 4)), (2, 3))
op("einsum, two", lambda x, y: torch.einsum("nti,nsi->nts", x, y), (2, 3), TWO)
op("einsum, two and a weight", lambda x, y: torch.einsum("ni,ijk,nj->nk", x, fixed(x, 4, 4, 2), y), domain=TWO)
op("einsum, three", lambda x, y, z: torch.einsum("ni,nj,nk->nijk", x, y, z), (2,), THREE)
op("einsum, square", lambda x: torch.einsum("ni,ni->n", x, x))
op("tensordot", lambda x: torch.tensordot(x, fixed(x, 2, 3, 4), dims=2), (2, 3))
op("bilinear", lambda x, y: F.bilinear(x, y, fixed(x, 3, 4, 4), fixed(x, 3)), domain=TWO)
op("chain_matmul", lambda x: torch.chain_matmul(x, fixed(x, 4, 3), fixed(x, 3, 2)))
op("multi_dot", lambda x: torch.linalg.multi_dot([x, fixed(x, 4, 3), fixed(x, 3, 2)]))
op("linear", lambda x: F.linear(x, fixed(x, 3, 4), fixed(x, 3)))
op("linear, weight from the input", lambda x, y: torch.stack([F.linear(a, b) for a, b in zip(x, y, strict=True)]), (2, 3), TWO)
op("maximum", torch.maximum, domain=TWO)
op("maximum, constant", lambda x: torch.maximum(x, fixed(x, 4)))
op("minimum", torch.minimum, domain=TWO)
op("max, two tensors", lambda x, y: torch.max(x, y), domain=TWO)
op("fmax", torch.fmax, domain=TWO)
op("fmin", torch.fmin, domain=TWO)
op("atan2", torch.atan2, domain="any,positive")
op("hypot", torch.hypot, domain=TWO)
op("logaddexp", torch.logaddexp, domain=TWO)
op("logaddexp2", torch.logaddexp2, domain=TWO)
op("copysign", torch.copysign, domain=TWO)
op("copysign, constant", lambda x: torch.copysign(x, fixed(x, 4)))
op("xlogy", torch.xlogy, domain="any,positive")
op("ldexp", lambda x: torch.ldexp(x, torch.tensor([0, 1, 2, 3])))
op("dist", lambda x, y: torch.stack([torch.dist(a, b) for a, b in zip(x, y, strict=True)]), domain=TWO)
op("determinant", torch.linalg.det, (2, 2))
op("cumulative_trapezoid", lambda x: torch.cumulative_trapezoid(x, dim=1))

# ====================================================================== softmax and attention
op("softmax", lambda x: torch.softmax(x, 1))
op("softmax, functional", lambda x: F.softmax(x, dim=-1))
op("softmax, method", lambda x: x.softmax(1), (3, 2))
op("softmin", lambda x: F.softmin(x, dim=1))
op("log_softmax", lambda x: F.log_softmax(x, 1))
op("log_softmax, method", lambda x: x.log_softmax(-1), (3, 2))
op("logsumexp", lambda x: x.logsumexp(1))
op("logsumexp, keepdim and axes", lambda x: torch.logsumexp(x, (1, 2), keepdim=True), (3, 2))
op("logcumsumexp", lambda x: torch.logcumsumexp(x, 1))
op("softmax, masked by -inf", lambda x: x.masked_fill(torch.tensor([False, True, False, False]), -math.inf).softmax(1))
op("softmax, added -inf", lambda x: (x + torch.tensor([0.0, -math.inf, 0.0, 0.0], dtype=x.dtype)).softmax(1))
op("softmax, large", lambda x: torch.softmax(40 * x, 1))
op("softmax, dtype", lambda x: torch.softmax(x, 1, dtype=x.dtype))
op("gumbel-free temperature", lambda x: F.softmax(x / 0.1, -1))
op("cross_entropy", lambda x: F.cross_entropy(x, torch.ones(len(x), dtype=torch.long), reduction="none"))
op("nll_loss", lambda x: F.nll_loss(x.log_softmax(1), torch.zeros(len(x), dtype=torch.long), reduction="none"))
op("mse_loss", lambda x, y: F.mse_loss(x, y, reduction="none"), domain=TWO)
op("l1_loss", lambda x: F.l1_loss(x, torch.ones_like(x), reduction="none"))
op("huber_loss", lambda x: F.huber_loss(x, torch.zeros_like(x), reduction="none"))
op("smooth_l1_loss", lambda x: F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none"))
op("binary_cross_entropy", lambda x: F.binary_cross_entropy(x, torch.ones_like(x) / 3, reduction="none"), domain="unit")
op("binary_cross_entropy_with_logits", lambda x: F.binary_cross_entropy_with_logits(x, torch.ones_like(x) / 3, reduction="none"))
op("kl_div", lambda x: F.kl_div(x.log_softmax(1), torch.full_like(x, 0.25), reduction="none"))
op("soft_margin_loss", lambda x: F.soft_margin_loss(x, torch.ones_like(x), reduction="none"))

SELF = (3, 4)
op("sdpa", lambda q, k, v: F.scaled_dot_product_attention(q, k, v), SELF, THREE)
op("sdpa, causal", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), SELF, THREE)
op("sdpa, bool mask", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=torch.tensor([True, False, True])), SELF, THREE)
op("sdpa, float mask", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=fixed(q, 3, 3)), SELF, THREE)
op("sdpa, scale", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3), SELF, THREE)
op("sdpa, heads", lambda q, k, v: F.scaled_dot_product_attention(*(t.unflatten(-1, (2, 2)).transpose(1, 2) for t in (q, k, v))), SELF, THREE)
op("sdpa, grouped", lambda q, k, v: F.scaled_dot_product_attention(heads(q, 4), heads(k, 2), heads(v, 2), enable_gqa=True), (3, 8), THREE)


def heads(x: Tensor, number: int) -> Tensor:
    """Split the first two features of as many heads off a sequence."""
    return x[..., : 2 * number].unflatten(-1, (number, 2)).transpose(1, 2)


class Attention(nn.Module):
    """``nn.MultiheadAttention`` as self- or cross-attention."""

    def __init__(self, cross: bool = False, call: dict[str, Any] | None = None, both: bool = False, **options: Any):
        super().__init__()
        self.call, self.cross, self.both = call or {}, cross, both
        self.layer = nn.MultiheadAttention(4, 2, **options)

    def forward(self, x: Tensor) -> Tensor:
        first = x if self.layer.batch_first else x.transpose(0, 1)
        key = first.flip(-1) if self.cross else first
        key, value = key[..., : self.layer.kdim], first[..., : self.layer.vdim]
        call = {k: v(x) if callable(v) else v for k, v in self.call.items()}
        result, weights = self.layer(first, key, value, **call)
        result = result if self.layer.batch_first else result.transpose(0, 1)
        return torch.cat([result.flatten(1), weights.flatten(1)], 1) if self.both else result


def padding(x: Tensor) -> Tensor:
    """Mask the last step."""
    return torch.arange(x.shape[1]).expand(len(x), -1) >= x.shape[1] - 1


def causal(x: Tensor) -> Tensor:
    """Mask the future."""
    return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)


for _name, _options in {
    "self": {"batch_first": True},
    "time first": {},
    "cross": {"cross": True, "batch_first": True},
    "weights": {"both": True, "batch_first": True},
    "weights of all heads": {"both": True, "batch_first": True, "call": {"average_attn_weights": False}},
    "no weights": {"call": {"need_weights": False}, "batch_first": True},
    "key padding": {"call": {"key_padding_mask": padding}, "batch_first": True},
    "key padding, no weights": {"call": {"key_padding_mask": padding, "need_weights": False}, "batch_first": True},
    "causal": {"call": {"attn_mask": causal}, "batch_first": True},
    "float mask": {"call": {"attn_mask": lambda x: fixed(x, 3, 3)}, "batch_first": True},
    "both masks": {"call": {"attn_mask": causal, "key_padding_mask": padding}, "batch_first": True},
    "is_causal": {"call": {"attn_mask": causal, "is_causal": True, "need_weights": False}, "batch_first": True},
    "no bias": {"bias": False, "batch_first": True},
    "bias_kv": {"add_bias_kv": True, "batch_first": True},
    "zero_attn": {"add_zero_attn": True, "batch_first": True},
    "kdim, vdim": {"kdim": 3, "vdim": 2, "cross": True, "batch_first": True},
    "dropout": {"dropout": 0.5, "batch_first": True},
}.items():
    model(f"nn.MultiheadAttention, {_name}", lambda o=_options: Attention(**o), SELF)


class Masked(nn.Module):
    """A layer called with fixed keyword arguments."""

    def __init__(self, layer: nn.Module, **call: Callable[[Tensor], Any]):
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, **{k: v(x) for k, v in self.call.items()})


class Decoding(nn.Module):
    """A transformer decoder (or whole transformer) that reads and attends to two views of one input."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, :2], x.flip(-1)) if isinstance(self.layer, nn.Transformer) else self.layer(x, x.flip(-1)[:, 1:])


def encoder_layer(**options: Any) -> nn.Module:
    """Return a small encoder layer."""
    return nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, **options)


def decoder_layer(**options: Any) -> nn.Module:
    """Return a small decoder layer."""
    return nn.TransformerDecoderLayer(4, 2, 6, batch_first=True, **options)


model("nn.TransformerEncoderLayer", encoder_layer, SELF)
model("nn.TransformerEncoderLayer, norm first, gelu", lambda: encoder_layer(norm_first=True, activation="gelu"), SELF)
model("nn.TransformerEncoderLayer, causal", lambda: Masked(encoder_layer(), src_mask=causal), SELF)
model("nn.TransformerEncoderLayer, padding", lambda: Masked(encoder_layer(), src_key_padding_mask=padding), SELF)
model("nn.TransformerEncoder", lambda: nn.TransformerEncoder(encoder_layer(), 2, nn.LayerNorm(4)), SELF)
model("nn.TransformerEncoder, padding", lambda: Masked(nn.TransformerEncoder(encoder_layer(), 2), src_key_padding_mask=padding), SELF)
model("nn.TransformerEncoder, padding, slow path", lambda: Masked(nn.TransformerEncoder(encoder_layer(norm_first=True), 2, enable_nested_tensor=False), src_key_padding_mask=padding), SELF)
model("nn.TransformerDecoderLayer", lambda: Decoding(decoder_layer()), SELF)
model("nn.TransformerDecoderLayer, norm first", lambda: Decoding(decoder_layer(norm_first=True, activation=F.gelu)), SELF)
model("nn.TransformerDecoder", lambda: Decoding(nn.TransformerDecoder(decoder_layer(), 2)), SELF)
model("nn.Transformer", lambda: Decoding(nn.Transformer(4, 2, 1, 1, 6, batch_first=True)), SELF)


class Additive(nn.Module):
    """Bahdanau attention over an encoded sequence."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.score = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        energy = self.score(torch.tanh(self.query(x[:, -1:]) + self.key(x))).squeeze(-1)
        return torch.bmm(energy.softmax(1).unsqueeze(1), x).squeeze(1)


class DotAttention(nn.Module):
    """Single-head attention by hand."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(4, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(-2, -1) / math.sqrt(3)
        return F.softmax(scores, dim=-1) @ self.value(x)


class TokenMasked(nn.Module):
    """Token ids, with attention and mean masked where the id is 0."""

    def __init__(self):
        super().__init__()
        self.embed, self.attend = nn.Embedding(TOKENS, 4, padding_idx=0), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        kept = ids != 0
        x = self.embed(ids)
        x, _ = self.attend(x, x, x, need_weights=False)
        return (x * kept.unsqueeze(-1)).sum(1) / kept.sum(1, keepdim=True).clamp(min=1)


class TokenScores(nn.Module):
    """Attention by hand whose scores are masked by the token ids."""

    def __init__(self):
        super().__init__()
        self.embed, self.score = nn.Embedding(TOKENS, 4), nn.Linear(4, 1)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        scores = self.score(x).squeeze(-1).masked_fill(ids == 0, -1e9)
        return (scores.softmax(1).unsqueeze(-1) * x).sum(1)


model("additive attention", Additive, SELF)
model("dot attention", DotAttention, SELF)
model("token mask, attention and mean", TokenMasked, (5,), domain="tokens")
model("token mask, scores", TokenScores, (5,), domain="tokens")
