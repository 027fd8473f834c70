"""The cases: one line per operation or model that deepshap must explain exactly.

``op`` wraps a function of tensors between two fixed linear maps, so that every operand depends on every
feature and the function meets multipliers that differ from element to element. The first map keeps to the
operand's domain: outside the domain "any" it takes convex combinations. ``model`` takes a model as it is.
Rows are the first axis everywhere. What other frameworks have too stands in ``both.py``; here is what TensorFlow has
not, or not so: ``alone`` says why.
"""

from __future__ import annotations

import copy
import math
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from models import (
    DEEP,
    KINDS,
    TOKENS,
    Additive,
    Attention,
    AttentiveLSTM,
    Causal,
    Cells,
    Chain,
    Checkpointed,
    ConvLSTM,
    Decoding,
    DotAttention,
    FixedIds,
    HandGRU,
    HandLSTM,
    Highway,
    Hyper,
    Inputs,
    Last,
    LastValid,
    Likelihood,
    Masked,
    MaskedMean,
    MinimalGated,
    Mixer,
    Mixture,
    NormalisedLSTM,
    OneHot,
    Outputs,
    Packed,
    PeepholeLSTM,
    Positional,
    Recurrent,
    Remembering,
    Residual,
    Reused,
    SeparateGates,
    Seq2Seq,
    Squeeze,
    Sum,
    Swap,
    TokenInfinity,
    TokenLSTM,
    TokenMasked,
    TokenScores,
    TokenTransformer,
    Twice,
    Unpool,
    Windows,
    affine_grid,
    causal,
    decoder_layer,
    each,
    encoder,
    encoder_layer,
    fixed,
    grid,
    grouped_attention,
    heads,
    ids,
    lstm,
    nothing,
    padding,
    parts,
    symmetric,
)
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from cases.both import SHARED, TorchOp

DOMAINS: dict[str, tuple[float, float]] = {
    "positive": (0.3, 2.5),
    "unit": (0.05, 0.95),
    "open": (-0.95, 0.95),
    "above one": (1.1, 3.0),
    "negative": (-2.5, -0.3),
}

# Torch 2.4 itself cannot run three of the cases; beside each stands why. Other versions run all of them.
TORCH_2_4 = torch.__version__.startswith("2.4.")


@dataclass(frozen=True)
class Case:
    """A model, the shape of one row of each input, and what else a call needs.

    Attributes
    ----------
    shape : of one row; a list or a dict of shapes for several inputs.
    domain : what the inputs are drawn from, a key of ``DOMAINS``, "any" or "tokens".
    args : maps the number of rows to the additional forward arguments.
    output : which of the model's outputs is explained.
    alone : why it is a case of PyTorch alone; "" for those of ``both``.
    through : the least precise dtype that the signal passes through in a float64 model; it decides the tolerance.
    """

    name: str
    build: Callable[[], Callable[..., Any]]
    shape: Any = (4,)
    domain: str = "any"
    args: Callable[[int], tuple[Any, ...]] = lambda rows: ()
    output: Any = None
    alone: str = ""
    through: torch.dtype = torch.float64

    def model(self, dtype: torch.dtype = torch.float64) -> Callable[..., Any]:
        """Build the model, the same at every call, with no parameter left at a neutral value."""
        torch.manual_seed(zlib.crc32(self.name.encode()))
        built = self.build()
        if not isinstance(built, nn.Module):
            return built
        with torch.no_grad():
            for name, value in (*built.named_parameters(), *built.named_buffers()):
                if value.is_floating_point() and not isinstance(built, (Op, TorchOp)):
                    value += 0.2 * (torch.rand_like(value) if "var" in name else torch.randn_like(value))
        return built.eval().to(dtype)

    def inputs(self, rows: int, seed: int, dtype: torch.dtype = torch.float64) -> Any:
        """Draw rows of every input, in the structure of ``shape``."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.name}{seed}".encode()))
        several = isinstance(self.shape, (list, dict))
        shapes = list(self.shape.values()) if isinstance(self.shape, dict) else self.shape
        return self.structured(
            [draw((rows, *shape), self.domain, dtype, generator) for shape in (shapes if several else [shapes])]
        )

    def structured(self, inputs: list[Tensor]) -> Any:
        """Return inputs in the structure of ``shape``."""
        if isinstance(self.shape, dict):
            return dict(zip(self.shape, inputs, strict=True))
        return inputs if isinstance(self.shape, list) else inputs[0]

    def call(self, model: Callable[..., Any], inputs: Any, args: tuple[Any, ...] = ()) -> Any:
        """Call the model as deepshap does, and pick the explained output."""
        positional = [] if isinstance(inputs, dict) else inputs if isinstance(inputs, list) else [inputs]
        result = model(*positional, *args, **(inputs if isinstance(inputs, dict) else {}))
        if self.output is None:
            return result
        return self.output(result) if callable(self.output) else result[self.output]


def draw(shape: tuple[int, ...], domain: str, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Draw a tensor of a domain."""
    if domain == "tokens":
        return torch.randint(0, TOKENS, shape, generator=generator)
    if domain == "any":
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    low, high = DOMAINS[domain]
    return (low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)).to(dtype)


class Op(nn.Module):
    """A function between two linear maps."""

    def __init__(self, function: Callable[..., Any], width: int, domains: list[str]):
        super().__init__()
        self.function = function
        for i, domain in enumerate(domains):
            mix = torch.randn(width, width)
            self.register_buffer(f"mix{i}", mix if domain == "any" else torch.softmax(2 * mix, 0))

    def forward(self, x: Tensor) -> Tensor:
        results = self.function(*(x @ mix for mix in self.buffers()))
        results = results if isinstance(results, (tuple, list)) else [results]
        flat = torch.cat([y.reshape(len(x), -1).to(x.dtype) for y in results], 1)
        return flat @ fixed(x, flat.shape[1], 2)


def of_old(function, *args, **kwargs):
    with warnings.catch_warnings():  # that the function will go
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def well_conditioned(x: Tensor) -> Tensor:
    """A matrix that is far from singular."""
    return x.tanh() + 4 * torch.eye(x.shape[-1]).to(x)


def constant_matrix(x: Tensor) -> Tensor:
    """One that does not depend on the input."""
    return well_conditioned(fixed(x, 3, 3))


def softmax_by_hand(z: Tensor) -> Tensor:
    """With the maximum subtracted, as models write it."""
    powers = (z - z.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


def spectrum(x: Tensor) -> Tensor:
    """Of a series."""
    return torch.stft(x, 4, 2, window=torch.hamming_window(4).to(x), return_complex=True)


def nested_vmap(x: Tensor, y: Tensor) -> Tensor:
    """Over rows and features, and over another axis."""
    inner = torch.func.vmap(lambda a, b: a.tanh() * b)
    outer = torch.func.vmap(inner, in_dims=(0, None))(x[..., None], fixed(x, 4, 1))
    return outer + torch.vmap(torch.mul, (1, 1), 1)(x, y)[..., None]


def forces(x: Tensor) -> Tensor:
    """Of points on a line that push one another away, as models of molecules take them."""
    with torch.enable_grad():
        places = x if x.requires_grad else x.detach().requires_grad_()
        distances = (places[:, :, None] - places[:, None]).square() + 0.5
        energy = distances.rsqrt().sum() + (places @ fixed(x, 4, 3)).tanh().sum()
        return -torch.autograd.grad(energy, places, create_graph=True)[0]


def segments(x: Tensor) -> Tensor:
    """Where the parts of each row begin; one has no values."""
    return torch.tensor([0, 1, 1, 3, 4]).repeat(len(x), 1)


def scattered_extreme(x: Tensor, reduce: str, index: Tensor, **options: Any) -> Tensor:
    """The extremes of scattered values, beside other values."""
    return (2 * x.flip(1)).scatter_reduce(1, index.expand(len(x), -1), x, reduce, **options)


def segment_softmax(x: Tensor, segments: Tensor) -> Tensor:
    """As graph attention computes it, over the edges of each node."""
    index = segments.expand(len(x), -1)
    greatest = torch.zeros(len(x), 2).to(x).scatter_reduce(1, index, x, "amax", include_self=False)
    weights = (x - greatest.gather(1, index)).exp()
    return weights / torch.zeros(len(x), 2).to(x).scatter_add(1, index, weights).gather(1, index)


CASES: list[Case] = []
_why: list[str] = []  # sections' reasons; the last one holds


def alone(why: str) -> None:
    """Begin a section; why TensorFlow is not asked for its cases."""
    _why.append(why)


def op(
    name: str,
    function: Callable[..., Any],
    shape: tuple[int, ...] = (4,),
    domain: str = "any",
    **special: Any,
) -> None:
    """Add a function of one operand or, with domains separated by commas, of several."""
    domains = domain.split(",")
    drawn = next((d for d in domains if d != "any"), "any")
    model(name, lambda: Op(function, shape[-1], domains), shape, domain=drawn, **special)


def model(name: str, build: Callable[[], Callable[..., Any]], shape: Any = (4,), **special: Any) -> None:
    """Add a model."""
    CASES.append(Case(name, build, shape, alone=_why[-1], **special))


def written(shape: tuple[int, ...] = (4,), domain: str = "any") -> Callable[..., Callable[..., Any]]:
    """Add the decorated function."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        op(function.__name__, function, shape, domain)
        return function

    return add


def unsorted_lengths(rows: int) -> tuple[Tensor]:
    """Lengths in no order."""
    return (torch.tensor([3, 5, 1, 4, 2]).repeat(rows)[:rows],)


def sorted_lengths(rows: int) -> tuple[Tensor]:
    """Falling lengths."""
    return (torch.arange(5, 5 - rows, -1),)


def step_mask(rows: int) -> tuple[Tensor]:
    """Return a mask of the valid steps."""
    return (torch.arange(5) < unsorted_lengths(rows)[0][:, None],)


TWO, THREE = "any,any", "any,any,any"
SELF, SELF_SQUARE, TABLE, SEQUENCE, SERIES, IMAGE = (3, 4), (3, 3), (3, 4), (4, 3), (2, 6), (2, 4, 5)
TOKEN: dict[str, Any] = {"domain": "tokens"}
SINGLE: dict[str, Any] = {"through": torch.float32}
LENGTHS: dict[str, Any] = {"args": unsorted_lengths}
UNWEIGHTED: dict[str, Any] = {"need_weights": False}
PADDED: dict[str, Any] = {"src_key_padding_mask": padding}
MASK = torch.tensor([True, False, True, False])
RISING = torch.arange(0, 400, 100)
WINDOW: tuple[list[int], ...] = ([2, 2], [1, 1], [0, 0], [1, 1])
aten, attend = torch.ops.aten, F.scaled_dot_product_attention
entropy, logits_entropy = F.binary_cross_entropy, F.binary_cross_entropy_with_logits

for _shared in SHARED:
    CASES.append(Case(_shared.name, _shared.torch_model, domain=_shared.domain))

# fmt: off
# ====================================================================== activations
alone("spellings, forms in place and layers of functions of both.py; the others are compositions in TensorFlow")
op("relu, method", lambda x: x.relu())
op("relu, functional", F.relu)
op("relu, in place", lambda x: x.relu_())
op("relu, functional in place", lambda x: F.relu(x, inplace=True))
op("relu, torch in place", torch.relu_)
op("leaky_relu, in place", lambda x: F.leaky_relu_(x, 0.2))
op("prelu", lambda x: F.prelu(x, fixed(x, 1)))
op("prelu, slope from the input", lambda x, w: torch.where(x > 0, x, w * x), domain=TWO)
op("rrelu", lambda x: F.rrelu(x, 0.1, 0.3))
op("relu6, steep", lambda x: F.relu6(4 * x))
op("elu, alpha", lambda x: F.elu(x, 1.3))
op("elu, in place", lambda x: F.elu_(x))
op("silu, in place", lambda x: F.silu(x, inplace=True))
op("softplus, beta", lambda x: F.softplus(x, 2.0, 5.0))
op("hardtanh, in place", lambda x: F.hardtanh_(x))
op("threshold, in place", lambda x: F.threshold_(x, 0.2, -1.0))
op("glu, axis", lambda x: F.glu(x, 1), (4, 3))
op("sigmoid, method", lambda x: x.sigmoid())
op("sigmoid, functional", F.sigmoid)
op("sigmoid, in place", lambda x: x.sigmoid_())
op("sigmoid, expit", torch.special.expit)
op("tanh, functional", F.tanh)
op("tanh, in place", lambda x: x.tanh_())
op("tanh, aten", torch.ops.aten.tanh.default)
op("tanh, packet", torch.ops.aten.tanh)
for _activation in (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Hardshrink,
    nn.Tanh, nn.GLU, nn.Softshrink, nn.Tanhshrink, nn.Sigmoid,
):
    model(f"nn.{_activation.__name__}", lambda a=_activation: Chain(nn.Linear(4, 4), a()))
model("nn.Threshold", lambda: Chain(nn.Linear(4, 4), nn.Threshold(0.1, 0.3), nn.Linear(4, 2)))
model("nn.ReLU, in place", lambda: Chain(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)))
model("nn.PReLU, channels", lambda: Chain(nn.Conv1d(2, 3, 2), nn.PReLU(3)), (2, 4))

# ====================================================================== elementwise mathematics
alone("spellings and forms in place of functions of both.py; the others have no operation in TensorFlow")
op("exp, in place", lambda x: x.exp_())
op("exp2", torch.exp2)
op("square, in place", lambda x: x.square_())
op("reciprocal, negative", torch.reciprocal, domain="negative")
op("abs, builtin", abs)
op("abs, in place", lambda x: x.abs_())
op("absolute", torch.absolute)
op("neg", lambda x: -x)
op("neg, in place", lambda x: x.neg_())
op("positive", lambda x: +x)
op("sgn", torch.sgn)
op("signbit", torch.signbit)
op("round, decimals", lambda x: torch.round(x, decimals=1))
op("fix", torch.fix)
op("frac", torch.frac)
op("tan, open", torch.tan, domain="open")
op("arcsin", torch.arcsin, domain="open")
op("sinc", torch.sinc)
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
op("pow 0.5, from 0", lambda x: x.relu() ** 0.5)
op("pow, base from 0", lambda x, y: x.relu() ** y, domain="any,positive")
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
op("clip, torch", lambda x: torch.clip(x, -1, 1))
op("fmod", lambda x: torch.fmod(3 * x, 2))
op("remainder, by a constant", lambda x: (3 * x) % 2)
op("remainder, both", lambda x, y: torch.remainder(x, y), domain="positive,positive")
op("remainder, under a constant", lambda x: 7 % x, domain="positive")
op("heaviside", lambda x: torch.heaviside(x, torch.ones(1, dtype=x.dtype)))
op("special.xlog1py", lambda x, y: torch.special.xlog1py(x, y), domain="positive,positive")
op("special.ndtr", torch.special.ndtr)
op("special.log_ndtr", torch.special.log_ndtr)
op("special.ndtri", torch.special.ndtri, domain="unit")
op("special.i0", torch.special.i0)
op("special.i0e", torch.special.i0e)
op("special.i1", torch.special.i1)
op("special.i1e", torch.special.i1e)
op("special.multigammaln", lambda x: torch.special.multigammaln(x, 2), domain="above one")
op("angle", torch.angle)
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
alone("spellings and forms in place of both.py's products and quotients, and what torch has fused")
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
op("floor_divide, under a constant", lambda x: 7 // x, domain="positive")
op("addcmul", lambda x, y, z: torch.addcmul(x, y, z, value=0.7), domain=THREE)
op("addcmul, in place", lambda x, y, z: x.addcmul_(y, z), domain=THREE)
op("addcdiv", lambda x, y, z: torch.addcdiv(x, y, z, value=0.7), domain="any,any,positive")
op("lerp", lambda x, y: torch.lerp(x, y, 0.3), domain=TWO)
op("lerp, varying weight", lambda x, y, w: torch.lerp(x, y, w), domain=THREE)
op("cross, axis", lambda x, y: torch.cross(x, y, dim=1), (3,), TWO)
op("linalg.cross", lambda x, y: torch.linalg.cross(x, y), (3,), TWO)
op("dot, vdot", each(lambda a, b: torch.vdot(a, b) + torch.dot(b, a)), domain=TWO)
op("linalg.vecdot", lambda x, y: torch.linalg.vecdot(x, y), domain=TWO)
op("outer", each(lambda a, b: torch.outer(a, b)), domain=TWO)
op("kron", lambda x: torch.kron(x, fixed(x, 1, 2)))
op("kron, both", each(lambda a, b: torch.kron(a, b)), domain=TWO)
op("inner", lambda x: torch.inner(x, fixed(x, 3, 4)))
op("matmul, weight", lambda x: torch.matmul(x, fixed(x, 4, 3)))
op("matmul, weight first", lambda x: fixed(x, 5, 2) @ x, (2, 3))
op("matmul, vector", lambda x: x @ fixed(x, 4))
op("matmul, self", lambda x: x.mT @ x, (2, 3))
op("matmul, reflected", lambda x: x.__rmatmul__(fixed(x, 5, 2)), (2, 3))
op("bmm", lambda x, y: torch.bmm(x, y.transpose(1, 2)), (2, 3), TWO)
op("mm", lambda x: torch.mm(x, fixed(x, 4, 3)))
op("mm, rows apart", each(lambda a, b: a.mm(b.t())), (2, 3), TWO)
op("mv", lambda x: torch.mv(x, fixed(x, 4)))
op("mv, rows apart", each(lambda a: a.mv(a[0])), (2, 3))
op("addmm", lambda x: torch.addmm(fixed(x, 3), x, fixed(x, 4, 3), beta=0.5, alpha=2))
op("addmm, varying", lambda x, y: torch.addmm(y, x, fixed(x, 4, 4)), domain=TWO)
op("addmv", lambda x: torch.addmv(fixed(x, 1).expand(len(x)), x, fixed(x, 4)))
op("addbmm", each(lambda a, b: torch.addbmm(fixed(a, 2, 2), a[None], b.t()[None])), (2, 3), TWO)
op("baddbmm", lambda x, y: torch.baddbmm(fixed(x, 2, 2), x, y.mT, beta=0.5, alpha=1.5), (2, 3), TWO)
op("addr", each(lambda a, b: torch.addr(fixed(a, 4, 4), a, b)), domain=TWO)
op("einsum, weight", lambda x: torch.einsum("nti,io->nto", x, fixed(x, 3, 4)), (2, 3))
op("einsum, two", lambda x, y: torch.einsum("nti,nsi->nts", x, y), (2, 3), TWO)
op("einsum, weighted", lambda x, y: torch.einsum("ni,ijk,nj->nk", x, fixed(x, 4, 4, 2), y), domain=TWO)
op("einsum, three", lambda x, y, z: torch.einsum("ni,nj,nk->nijk", x, y, z), (2,), THREE)
op("einsum, square", lambda x: torch.einsum("ni,ni->n", x, x))
op("tensordot", lambda x: torch.tensordot(x, fixed(x, 2, 3, 4), dims=2), (2, 3))
op("bilinear", lambda x, y: F.bilinear(x, y, fixed(x, 3, 4, 4), fixed(x, 3)), domain=TWO)
op("chain_matmul", lambda x: torch.chain_matmul(x, fixed(x, 4, 3), fixed(x, 3, 2)))
op("multi_dot", lambda x: torch.linalg.multi_dot([x, fixed(x, 4, 3), fixed(x, 3, 2)]))
op("F.linear", lambda x: F.linear(x, fixed(x, 3, 4), fixed(x, 3)))
op("linear, weight varying", each(lambda a, b: F.linear(a, b)), (2, 3), TWO)
op("maximum, constant", lambda x: torch.maximum(x, fixed(x, 4)))
op("max, two tensors", lambda x, y: torch.max(x, y), domain=TWO)
op("fmax", torch.fmax, domain=TWO)
op("fmin", torch.fmin, domain=TWO)
op("hypot", torch.hypot, domain=TWO)
op("logaddexp", torch.logaddexp, domain=TWO)
op("logaddexp2", torch.logaddexp2, domain=TWO)
op("copysign", torch.copysign, domain=TWO)
op("copysign, constant", lambda x: torch.copysign(x, fixed(x, 4)))
op("ldexp", lambda x: torch.ldexp(x, torch.tensor([0, 1, 2, 3])))
op("dist", each(lambda a, b: torch.dist(a, b)), domain=TWO)
op("cumulative_trapezoid", lambda x: torch.cumulative_trapezoid(x, dim=1))

# ====================================================================== softmax and attention
alone("functions and layers that torch has fused; of Keras' layers see test_keras_models.py")
op("softmax by hand, masked", lambda x: softmax_by_hand(x.masked_fill(MASK, -torch.inf)))
op("softmax by hand, mask added", lambda x: softmax_by_hand(x + torch.where(MASK, -torch.inf, 0.0)))
op("softmax by hand, mask added to the signal", lambda x: softmax_by_hand(torch.where(MASK, x, -torch.inf) + x))
op("sigmoid of masked scores", lambda x: torch.sigmoid(x.masked_fill(MASK, -torch.inf)) * x)
op("tanh of masked scores", lambda x: x.masked_fill(MASK, torch.inf).tanh() * x)
op("softplus of masked scores", lambda x: F.softplus(x.masked_fill(MASK, -torch.inf)))
op("log of masked scores", lambda x: x.exp().masked_fill(MASK, torch.inf).log().neg().exp())
op("softmax, functional", lambda x: F.softmax(x, dim=-1))
op("softmax, method", lambda x: x.softmax(1), (3, 2))
op("softmin", lambda x: F.softmin(x, dim=1))
op("log_softmax, method", lambda x: x.log_softmax(-1), (3, 2))
op("logsumexp, keepdim and axes", lambda x: torch.logsumexp(x, (1, 2), keepdim=True), (3, 2))
op("logcumsumexp", lambda x: torch.logcumsumexp(x, 1))
op("softmax, masked by -inf", lambda x: x.masked_fill(~MASK, -math.inf).softmax(1))
op("softmax, added -inf", lambda x: (x + torch.tensor([0.0, -math.inf, 0.0, 0.0], dtype=x.dtype)).softmax(1))
op("softmax, dtype", lambda x: torch.softmax(x, 1, dtype=x.dtype))
op("softmax, temperature", lambda x: F.softmax(x / 0.1, -1))
op("cross_entropy", lambda x: F.cross_entropy(x, ids(x, 1)[:, 0], reduction="none"))
op("nll_loss", lambda x: F.nll_loss(x.log_softmax(1), ids(x, 0)[:, 0], reduction="none"))
op("mse_loss", lambda x, y: F.mse_loss(x, y, reduction="none"), domain=TWO)
op("l1_loss", lambda x: F.l1_loss(x, torch.ones_like(x), reduction="none"))
op("huber_loss", lambda x: F.huber_loss(x, torch.zeros_like(x), reduction="none"))
op("smooth_l1_loss", lambda x: F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none"))
op("binary_cross_entropy", lambda x: entropy(x, torch.full_like(x, 0.3), reduction="none"), domain="unit")
op("binary_cross_entropy_with_logits", lambda x: logits_entropy(x, torch.full_like(x, 0.3), reduction="none"))
op("cross_entropy, reduce=False", lambda x: F.cross_entropy(x, ids(x, 1)[:, 0], reduce=False))
op("cross_entropy of probabilities, reduce=False", lambda x: F.cross_entropy(x, torch.full_like(x, 0.25), reduce=False))
op("nll_loss, reduce=False", lambda x: F.nll_loss(x.log_softmax(1), ids(x, 0)[:, 0], reduce=False))
op("mse_loss, reduce=False", lambda x, y: F.mse_loss(x, y, reduce=False), domain=TWO)
op("l1_loss, reduce=False", lambda x: F.l1_loss(x, torch.ones_like(x), size_average=True, reduce=False))
op("binary_cross_entropy, reduce=False", lambda x: entropy(x, torch.full_like(x, 0.3), reduce=False), domain="unit")
op("kl_div", lambda x: F.kl_div(x.log_softmax(1), torch.full_like(x, 0.25), reduction="none"))
op("soft_margin_loss", lambda x: F.soft_margin_loss(x, torch.ones_like(x), reduction="none"))

op("sdpa", attend, SELF, THREE)
op("sdpa, causal", lambda q, k, v: attend(q, k, v, is_causal=True), SELF, THREE)
op("sdpa, bool mask", lambda q, k, v: attend(q, k, v, attn_mask=MASK[1:]), SELF, THREE)
op("sdpa, float mask", lambda q, k, v: attend(q, k, v, attn_mask=fixed(q, 3, 3)), SELF, THREE)
op("sdpa, scale", lambda q, k, v: attend(q, k, v, scale=0.3), SELF, THREE)
op("sdpa, heads", lambda *qkv: attend(*(heads(t, 2) for t in qkv)), SELF, THREE)
if not TORCH_2_4:  # scaled_dot_product_attention has no enable_gqa there
    op("sdpa, grouped", grouped_attention, (3, 8), THREE)

for _name, _options in {
    "self": {"batch_first": True},
    "time first": {},
    "cross": {"cross": True, "batch_first": True},
    "weights": {"both": True, "batch_first": True},
    "weights of all heads": {"both": True, "batch_first": True, "call": {"average_attn_weights": False}},
    "no weights": {"call": UNWEIGHTED, "batch_first": True},
    "key padding": {"call": {"key_padding_mask": padding}, "batch_first": True},
    "key padding, no weights": {"call": {"key_padding_mask": padding} | UNWEIGHTED, "batch_first": True},
    "causal": {"call": {"attn_mask": causal}, "batch_first": True},
    "float mask": {"call": {"attn_mask": lambda x: fixed(x, 3, 3)}, "batch_first": True},
    "both masks": {"call": {"attn_mask": causal, "key_padding_mask": padding}, "batch_first": True},
    "is_causal": {"call": {"attn_mask": causal, "is_causal": True} | UNWEIGHTED, "batch_first": True},
    "no bias": {"bias": False, "batch_first": True},
    "bias_kv": {"add_bias_kv": True, "batch_first": True},
    "zero_attn": {"add_zero_attn": True, "batch_first": True},
    "kdim, vdim": {"kdim": 3, "vdim": 2, "cross": True, "batch_first": True},
    "dropout": {"dropout": 0.5, "batch_first": True},
}.items():
    model(f"nn.MultiheadAttention, {_name}", lambda o=_options: Attention(**o), SELF)

model("nn.TransformerEncoderLayer", encoder_layer, SELF)
model("nn.TransformerEncoderLayer, gelu", lambda: encoder_layer(norm_first=True, activation="gelu"), SELF)
model("nn.TransformerEncoderLayer, causal", lambda: Masked(encoder_layer(), src_mask=causal), SELF)
model("nn.TransformerEncoderLayer, padding", lambda: Masked(encoder_layer(), **PADDED), SELF)
model("nn.TransformerEncoder", lambda: nn.TransformerEncoder(encoder_layer(), 2, nn.LayerNorm(4)), SELF)
model("nn.TransformerEncoder, padding", lambda: Masked(encoder(), **PADDED), SELF)
model("nn.TransformerEncoder, padding, norm first", lambda: Masked(encoder(norm_first=True), **PADDED), SELF)
model("nn.TransformerDecoderLayer", lambda: Decoding(decoder_layer()), SELF)
model("nn.TransformerDecoderLayer, norm first", lambda: Decoding(decoder_layer(norm_first=True)), SELF)
model("nn.TransformerDecoder", lambda: Decoding(nn.TransformerDecoder(decoder_layer(), 2)), SELF)
model("nn.Transformer", lambda: Decoding(nn.Transformer(4, 2, 1, 1, 6, batch_first=True)), SELF)

model("additive attention", Additive, SELF)
model("dot attention", DotAttention, SELF)
model("token mask, attention and mean", TokenMasked, (5,), **TOKEN)
model("token mask, scores", TokenScores, (5,), **TOKEN)
model("token mask, transformer", TokenTransformer, (5,), **TOKEN)
model("token mask, -inf", TokenInfinity, (5,), **TOKEN)

# ====================================================================== norms and distances
alone("layers of torch, and distances that TensorFlow composes; of Keras' layers see test_keras_models.py")
model("nn.LayerNorm", lambda: Chain(nn.Linear(4, 4), nn.LayerNorm(4)))
model("nn.LayerNorm, two axes", lambda: nn.LayerNorm((2, 3)), (2, 3))
model("nn.LayerNorm, no affine", lambda: nn.LayerNorm(4, elementwise_affine=False), (2, 4))
op("native_layer_norm", lambda x: torch.native_layer_norm(x, [4], None, fixed(x, 4), 1e-5)[0])
model("nn.GroupNorm", lambda: nn.GroupNorm(2, 4), (4, 3))
model("nn.GroupNorm, one row of features", lambda: nn.GroupNorm(2, 6), (6,))
model("nn.InstanceNorm1d", lambda: nn.InstanceNorm1d(2, affine=True), (2, 5))
model("nn.InstanceNorm2d", lambda: nn.InstanceNorm2d(2), (2, 3, 3))
model("nn.InstanceNorm1d, running statistics", lambda: nn.InstanceNorm1d(2, track_running_stats=True), (2, 5))
model("nn.RMSNorm", lambda: nn.RMSNorm(4), (2, 4))
model("nn.BatchNorm1d", lambda: Chain(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh()))
model("nn.BatchNorm1d, sequence", lambda: nn.BatchNorm1d(3), (3, 5))
model("nn.BatchNorm2d", lambda: nn.BatchNorm2d(2, affine=False), (2, 3, 3))
model("nn.LocalResponseNorm", lambda: nn.LocalResponseNorm(2), (4, 3))
op("cosine_similarity, zeros and others", lambda x: F.cosine_similarity((x - 1).relu(), x))
op("normalize, p=1", lambda x: F.normalize(x, p=1.0, dim=1))
op("cosine_similarity", lambda x, y: F.cosine_similarity(x, y), domain=TWO)
op("cosine_similarity, all pairs", lambda x: F.cosine_similarity(x[:, :, None], x[:, None], dim=-1), (2, 3))
op("pairwise_distance", lambda x, y: F.pairwise_distance(x, y), domain=TWO)
op("cdist", lambda x, y: torch.cdist(x, y), (2, 3), TWO)
op("cdist, fixed points", lambda x: torch.cdist(x, fixed(x, 5, 3)), (2, 3))
op("cdist, p=1", lambda x, y: torch.cdist(x, y, p=1), (2, 3), TWO)
op("norm, p=1", lambda x: torch.norm(x, p=1, dim=1, keepdim=True))
op("norm, p=3", lambda x: torch.norm(x, p=3, dim=1))
op("norm, inf", lambda x: torch.norm(x, p=math.inf, dim=1))
op("linalg.norm", lambda x: torch.linalg.norm(x, dim=1))
op("norm, of zeros and others", lambda x: (x - 1).relu().norm(dim=1))
op("linalg.vector_norm", lambda x: torch.linalg.vector_norm(x, 2, (1, 2)), (2, 3))
op("linalg.vector_norm, p=1", lambda x: torch.linalg.vector_norm(x, 1, -1), (2, 3))
op("linalg.matrix_norm", lambda x: torch.linalg.matrix_norm(x), (2, 3))
op("frobenius norm", lambda x: torch.norm(x, p="fro", dim=(1, 2)), (2, 3))
op("std", lambda x: x.std(1))
op("std, correction", lambda x: torch.std(x, dim=1, correction=0, keepdim=True))
op("var", lambda x: x.var(1, unbiased=False))
op("var, axes", lambda x: torch.var(x, (1, 2)), (2, 3))
op("var_mean", lambda x: torch.var_mean(x, 1))
op("std_mean", lambda x: torch.std_mean(x, 1))
op("batch_norm, own statistics", each(lambda a: F.batch_norm(a, None, None, training=True)), (3, 4))
op("layer_norm, by hand", lambda x: (x - x.mean(1, True)) / torch.sqrt(x.var(1, False, True) + 1e-5))
op("rms, by hand", lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
model("weight_norm", lambda: Chain(parametrizations.weight_norm(nn.Linear(4, 3)), nn.Tanh()))
model("spectral_norm", lambda: Chain(parametrizations.spectral_norm(nn.Linear(4, 3)), nn.Tanh()))
model("weight_norm, old form", lambda: nn.utils.weight_norm(nn.Linear(4, 3)))

model("parametrised weight", symmetric)

# ====================================================================== convolution, pooling, resampling
alone("layout and options of torch; TensorFlow's images are in of_tensorflow.py")
model("nn.Conv1d", lambda: Chain(nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv1d(3, 2, 2)), SERIES)
model("nn.Conv1d, same", lambda: nn.Conv1d(2, 3, 3, padding="same", dilation=2), SERIES)
model("nn.Conv1d, stride and dilation", lambda: nn.Conv1d(2, 3, 2, stride=2, dilation=2), SERIES)
model("nn.Conv1d, groups", lambda: nn.Conv1d(2, 4, 3, groups=2, bias=False), SERIES)
model("nn.Conv2d", lambda: Chain(nn.Conv2d(2, 3, 2), nn.Tanh()), IMAGE)
model("nn.Conv3d", lambda: nn.Conv3d(1, 2, 2), (1, 3, 3, 3))
for _mode in ("circular", "reflect", "replicate"):
    model(f"nn.Conv1d, {_mode}", lambda m=_mode: nn.Conv1d(2, 2, 3, padding=1, padding_mode=m), SERIES)
    model(f"nn.Conv2d, {_mode}", lambda m=_mode: nn.Conv2d(2, 2, 3, padding=1, padding_mode=m), IMAGE)
model("nn.ConvTranspose1d", lambda: nn.ConvTranspose1d(2, 3, 3, stride=2), SERIES)
model("nn.ConvTranspose2d", lambda: nn.ConvTranspose2d(2, 3, 2), IMAGE)
model("nn.ConvTranspose3d", lambda: nn.ConvTranspose3d(1, 2, 2), (1, 2, 2, 2))
op("conv1d, kernel from the input", each(lambda a, b: F.conv1d(a[None], b[None, :, :2])), (2, 4), TWO)
op("convolution", lambda x: torch.convolution(x, fixed(x, 3, 2, 2), None, [1], [0], [1], False, [0], 1), SERIES)
op("conv_tbc", lambda x: torch.conv_tbc(x.permute(2, 0, 1).contiguous(), fixed(x, 3, 2, 4), fixed(x, 4))[1], SERIES)
model("nn.MaxPool1d", lambda: nn.MaxPool1d(2), SERIES)
model("nn.MaxPool1d, overlapping and padded", lambda: nn.MaxPool1d(3, stride=1, padding=1), SERIES)
model("nn.MaxPool1d, dilated", lambda: nn.MaxPool1d(2, stride=1, dilation=2), SERIES)
model("nn.MaxPool2d", lambda: Chain(nn.Conv2d(2, 2, 2), nn.MaxPool2d(2)), IMAGE)
model("nn.MaxPool2d, ceil", lambda: nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), IMAGE)
model("nn.MaxPool2d, indices", lambda: nn.MaxPool2d(2, return_indices=True), IMAGE, output=0)
model("nn.MaxPool3d", lambda: nn.MaxPool3d(2), (1, 2, 2, 4))
model("nn.AdaptiveMaxPool1d", lambda: nn.AdaptiveMaxPool1d(4), SERIES)
model("nn.AdaptiveMaxPool2d", lambda: nn.AdaptiveMaxPool2d((2, None)), IMAGE)
model("nn.AdaptiveMaxPool3d", lambda: nn.AdaptiveMaxPool3d(2), (1, 2, 3, 4))
model("nn.AvgPool1d", lambda: nn.AvgPool1d(2), SERIES)
model("nn.AvgPool2d", lambda: nn.AvgPool2d(2, padding=1, count_include_pad=False), IMAGE)
model("nn.AvgPool3d", lambda: nn.AvgPool3d(2), (1, 2, 2, 4))
model("nn.AdaptiveAvgPool1d", lambda: nn.AdaptiveAvgPool1d(4), SERIES)
model("nn.AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d(1), IMAGE)
model("nn.AdaptiveAvgPool3d", lambda: nn.AdaptiveAvgPool3d(2), (1, 2, 3, 4))
model("nn.LPPool1d", lambda: nn.LPPool1d(2, 2), SERIES)
model("nn.LPPool2d", lambda: nn.LPPool2d(2, 2), IMAGE)
model("nn.LPPool1d, p=3", lambda: nn.LPPool1d(3, 2), SERIES, domain="positive")
model("nn.LPPool3d", lambda: nn.LPPool3d(2, 2), (1, 2, 2, 4))
op("interpolate, nearest", lambda x: F.interpolate(x, scale_factor=2), SERIES)
op("interpolate, linear", lambda x: F.interpolate(x, size=9, mode="linear"), SERIES)
op("interpolate, bilinear", lambda x: F.interpolate(x, None, 2, "bilinear", align_corners=True), IMAGE)
op("interpolate, bicubic", lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), IMAGE)
op("interpolate, area", lambda x: F.interpolate(x, size=3, mode="area"), SERIES)
op("interpolate, nearest-exact", lambda x: F.interpolate(x, size=(3, 3), mode="nearest-exact"), IMAGE)
model("nn.Upsample", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE)
op("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), (4, 2, 2))
op("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), (1, 2, 4))
if not TORCH_2_4:  # which has no derivative of channel_shuffle, so a rule for it is of no use
    op("channel_shuffle", lambda x: F.channel_shuffle(x, 2), (4, 2, 2))
op("unfold", lambda x: F.unfold(x, 2), IMAGE)
op("fold", lambda x: F.fold(x, (3, 3), 2), (4, 4))
op("grid_sample, fixed grid", lambda x: F.grid_sample(x, grid(x), align_corners=False), IMAGE)
op("grid_sample, affine", lambda x: F.grid_sample(x, affine_grid(x), "nearest", align_corners=True), IMAGE)
op("pad", lambda x: F.pad(x, (1, 2)))
op("pad, value", lambda x: F.pad(x, (1, 1, 0, 1), value=3.0), SERIES)
op("pad, reflect", lambda x: F.pad(x, (2, 1), mode="reflect"), SERIES)
op("pad, circular", lambda x: F.pad(x, (2, 1), mode="circular"), SERIES)
op("pad, negative", lambda x: F.pad(x, (-1, 1)))
model("nn.ZeroPad2d", lambda: nn.ZeroPad2d(1), IMAGE)
model("nn.ReflectionPad1d", lambda: nn.ReflectionPad1d(2), SERIES)
model("nn.ReplicationPad2d", lambda: nn.ReplicationPad2d(1), IMAGE)
model("nn.ConstantPad1d", lambda: nn.ConstantPad1d(2, 1.5), SERIES)
model("nn.CircularPad1d", lambda: nn.CircularPad1d(1), SERIES)

model("max_unpool1d, fixed positions", lambda: Unpool(1), (2, 8))
model("max_unpool2d, fixed positions", lambda: Unpool(2), (2, 4, 4))
model("max_unpool3d, fixed positions", lambda: Unpool(3), (1, 2, 4, 4))

# ====================================================================== reductions and order
alone("spellings of both.py's reductions, and orders of torch")
op("sum", lambda x: x.sum(1))
op("sum, axes", lambda x: torch.sum(x, (1, 2), keepdim=True), TABLE)
op("mean", lambda x: x.mean(dim=1), TABLE)
op("nanmean", lambda x: torch.nanmean(x, 1))
op("nansum", lambda x: torch.nansum(x, 1))
op("prod", lambda x: x.prod(1))
op("prod, keepdim", lambda x: torch.prod(x, 2, keepdim=True), TABLE)
op("prod, with zeros", lambda x: (x.clamp(min=-0.5) + 0.5).prod(1))
op("amax", lambda x: x.amax(1))
op("amax, ties", lambda x: x.relu().amax(1))
op("amax, axes", lambda x: torch.amax(x, (1, 2), keepdim=True), TABLE)
op("amin", lambda x: x.amin(-1), TABLE)
op("max, axis", lambda x: x.max(1).values, TABLE)
op("max, keepdim", lambda x: torch.max(x, 2, keepdim=True)[0], TABLE)
op("max, pair", lambda x: x.max(dim=1)[0])
op("max, rows apart", each(lambda a: a.max()), TABLE)
op("min, axis", lambda x: x.min(1)[0], TABLE)
op("view by a count", lambda x: x.view(len(x), (x[:1] > -99).sum() // 2, 2).flatten(1).sin(), (2, 3))
op("min of conditions", lambda x: x * (x > 0).min(1, keepdim=True)[0], TABLE)
op("min, rows apart", each(lambda a: torch.min(a)), TABLE)
op("aminmax", lambda x: torch.aminmax(x, dim=1))
op("median", lambda x: x.median(1).values, (5,))
op("median, even", lambda x: torch.median(x, 1)[0], TABLE)
op("nanmedian", lambda x: torch.nanmedian(x, 1)[0], (5,))
op("quantile", lambda x: torch.quantile(x, 0.3, dim=1), (5,))
op("quantile, several", lambda x: torch.quantile(x, torch.tensor([0.1, 0.5], dtype=x.dtype), dim=1).mT, (5,))
op("nanquantile", lambda x: torch.nanquantile(x, 0.7, dim=1), (5,))
op("kthvalue", lambda x: torch.kthvalue(x, 2, 1)[0], (5,))
op("sort", lambda x: torch.sort(x, 1)[0], (5,))
op("sort, descending", lambda x: x.sort(dim=1, descending=True).values, TABLE)
op("sort of single ones", lambda x: torch.sort(x)[0] + x.median(-1, keepdim=True)[0] + x.kthvalue(1)[0].unsqueeze(-1), (4, 1))
op("msort", lambda x: torch.msort(x.T).T, (5,))
op("topk", lambda x: x.topk(2, 1).values, (5,))
op("topk, smallest", lambda x: torch.topk(x, 2, dim=2, largest=False)[0], TABLE)
op("cumsum", lambda x: x.cumsum(1))
op("cumprod", lambda x: torch.cumprod(x, 1))
op("cummax", lambda x: torch.cummax(x, 1)[0])
op("cummin", lambda x: x.cummin(1).values)
op("diff", lambda x: torch.diff(x, dim=1))
op("trapezoid", lambda x: torch.trapezoid(x, dx=0.5, dim=1))
op("trapz", lambda x: torch.trapz(x, dim=1))
op("renorm", lambda x: torch.renorm(x, 2, 0, 1.0))
op("count_nonzero", lambda x: torch.count_nonzero(x.relu(), 1))
op("any", lambda x: (x > 1).any(1))
op("all", lambda x: (x > -1).all(1))
op("argmax, of the same order", lambda x: (x + RISING.to(x)).argmax(1, keepdim=True) * x)
op("argsort, of the same order", lambda x: x.gather(1, (x + RISING.to(x)).argsort(1, descending=True)))
op("topk, positions as views", lambda x: x.gather(1, (x + RISING.to(x)).topk(2, 1, sorted=False).indices.view(-1).view(-1, 2)))
op("bincount of a constant", lambda x: x * torch.bincount(torch.tensor([0, 1, 1, 3])))

# ====================================================================== derivatives that a model takes of its own
alone("torch's ways to take derivatives inside of a model")
op("autograd.grad", forces)
op("func.jacrev", lambda x: torch.func.vmap(torch.func.jacrev(lambda r: (r @ fixed(x, 4, 2)).softmax(0)))(x))

# ====================================================================== complex numbers
alone("torch's forms of complex numbers, beside both.py's")
op("exp of complex numbers", lambda x, y: torch.view_as_real(torch.complex(x, y).exp()), domain=TWO)
op("tanh of complex numbers", lambda x, y: torch.view_as_real((0.3 * torch.complex(x, y)).tanh()), domain=TWO)
op("power of complex numbers", lambda x, y: torch.view_as_real(torch.complex(x.exp(), y) ** 3), domain=TWO)
op("silu of complex numbers", lambda x, y: torch.view_as_real(F.silu(torch.complex(x, y))), domain=TWO)
if not TORCH_2_4:  # where logsumexp takes no complex numbers
    op("logsumexp of complex numbers", lambda x, y: torch.view_as_real(torch.complex(x, y).logsumexp(1)), domain=TWO)
op("logaddexp of complex numbers", lambda x, y: parts(torch.logaddexp(torch.complex(x, y), torch.complex(y, x))), domain=TWO)
op("norm of complex numbers", lambda x, y: torch.complex(x, y).norm(dim=1), domain=TWO)
op("norm of complex numbers, order 3", lambda x, y: torch.linalg.vector_norm(torch.complex(x, y), 3, dim=1), domain=TWO)
op("norm of a complex matrix", lambda x, y: torch.linalg.matrix_norm(torch.complex(x, y)), TABLE, TWO)
op("normalize complex numbers", lambda x, y: torch.view_as_real(F.normalize(torch.complex(x, y))), domain=TWO)
op("where, complex numbers", lambda x, y: torch.view_as_real(torch.where(x > 0, torch.complex(x, y), 2j * y)), domain=TWO)
op("masked_fill, complex numbers", lambda x, y: torch.view_as_real(torch.complex(x, y).masked_fill(y > x, 1 + 2j)), domain=TWO)
op("spectral layer", lambda x: torch.fft.irfft((0.01 * torch.fft.rfft(x).square()).exp(), 8), (8,))
op("stft", lambda x: torch.stft(x, 4, 2, window=torch.hann_window(4).to(x), return_complex=True).abs(), (8,))
op("istft", lambda x: torch.istft(spectrum(x) * (1 + spectrum(x).abs()), 4, 2, window=torch.hamming_window(4).to(x)), (8,))
op("polar", lambda x, y: torch.view_as_real(torch.polar(x, y)), domain=TWO)
op("inv", lambda x: torch.linalg.inv(well_conditioned(x)), SELF_SQUARE)
op("inverse", lambda x: torch.inverse(well_conditioned(x)).tanh(), SELF_SQUARE)
op("cholesky", lambda x: torch.linalg.cholesky(x @ x.mT + torch.eye(3).to(x)), SELF_SQUARE)
op("cholesky, upper", lambda x: torch.linalg.cholesky(x @ x.mT + torch.eye(3).to(x), upper=True), SELF_SQUARE)
op("solve, right side", lambda x: torch.linalg.solve(constant_matrix(x), x.tanh()), SELF_SQUARE)
op("solve, matrix", lambda x: torch.linalg.solve(well_conditioned(x), fixed(x, 3, 2).expand(len(x), 3, 2)), SELF_SQUARE)
op("solve, both", lambda x: torch.linalg.solve(well_conditioned(x), x), SELF_SQUARE)
op("solve, vectors", lambda x: torch.linalg.solve(well_conditioned(x), x[:, 0]), SELF_SQUARE)
op("solve, from the right", lambda x: torch.linalg.solve(well_conditioned(x), x, left=False), SELF_SQUARE)
op("solve_triangular", lambda x: torch.linalg.solve_triangular(constant_matrix(x), x.sin(), upper=True), SELF_SQUARE)
op("solve_triangular, matrix", lambda x: torch.linalg.solve_triangular(well_conditioned(x), x, upper=False), SELF_SQUARE)
op("solve_triangular, unit", lambda x: torch.linalg.solve_triangular(x, x + 1, upper=True, unitriangular=True), SELF_SQUARE)
op("cholesky_solve", lambda x: torch.cholesky_solve(x.sin(), constant_matrix(x).tril()), SELF_SQUARE)
op("cholesky_solve, factor", lambda x: torch.cholesky_solve(x, well_conditioned(x).tril()), SELF_SQUARE)
op("cholesky_inverse", lambda x: torch.cholesky_inverse(well_conditioned(x).tril()), SELF_SQUARE)
op("cholesky_ex", lambda x: torch.linalg.cholesky_ex(x @ x.mT + torch.eye(3).to(x)).L, SELF_SQUARE)
op("inv_ex", lambda x: torch.linalg.inv_ex(well_conditioned(x)).inverse, SELF_SQUARE)
op("solve_ex", lambda x: torch.linalg.solve_ex(well_conditioned(x), x)[0], SELF_SQUARE)
op("triangular_solve", lambda x: of_old(torch.triangular_solve, x, well_conditioned(x), transpose=True)[0], SELF_SQUARE)
op("lu_solve", lambda x: of_old(torch.lu_solve, x.sin(), *torch.linalg.lu_factor(constant_matrix(x))), SELF_SQUARE)
op("linalg.lu_solve", lambda x: torch.linalg.lu_solve(*torch.linalg.lu_factor(constant_matrix(x)), x), SELF_SQUARE)
op("matrix_power", lambda x: torch.linalg.matrix_power(well_conditioned(x) / 5, 5), SELF_SQUARE)
op("matrix_power, of the inverse", lambda x: torch.matrix_power(well_conditioned(x), -2), SELF_SQUARE)
op("matrix_exp", lambda x: torch.matrix_exp(x / 2), SELF_SQUARE)
op("matrix_exp, of a product", lambda x: (torch.linalg.matrix_exp(x @ x.mT / 9) @ x).tanh(), SELF_SQUARE)
op("logdet", lambda x: torch.logdet(x @ x.mT + torch.eye(3).to(x)), SELF_SQUARE)
op("slogdet", lambda x: torch.stack(torch.linalg.slogdet(well_conditioned(x)), -1), SELF_SQUARE)
op("pinv, tall", lambda x: torch.linalg.pinv(x), (4, 2))
op("pinv, wide", lambda x: torch.pinverse(x), (2, 4))
op("pinv, square", lambda x: torch.linalg.pinv(well_conditioned(x)), SELF_SQUARE)
op("lstsq", lambda x: torch.linalg.lstsq(x[..., :2], x[..., 2:])[0], (4, 3))
op("lstsq, right side", lambda x: torch.linalg.lstsq(fixed(x, 4, 2).expand(len(x), 4, 2), x.sin())[0], (4, 3))
op("lstsq, what is left over", lambda x: torch.linalg.lstsq(x[..., :2], x[..., 2:], driver="gels").residuals, (4, 3))
op("vmap", lambda x: torch.vmap(lambda row: row.softmax(0) * row.sum())(x))
op("vmap, of two, nested", nested_vmap, domain=TWO)
op("new, empty", lambda x: torch.cat([x.new(), x[:, 0]]) ** 2)
op("new", lambda x: x.new(len(x), 4).zero_() + x.tanh())
op("nextafter", lambda x: torch.nextafter(x, 2 * x) * x)
op("rfft", lambda x: torch.fft.rfft(x, dim=1).abs())
op("irfft", lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=1) * 2, n=4, dim=1))
for _transform in (torch.fft.fft, torch.fft.ifft, torch.fft.rfft, torch.fft.ihfft):
    op(_transform.__name__, lambda x, f=_transform: parts(f(x, dim=1)))
for _transform in (torch.fft.fft2, torch.fft.ifft2, torch.fft.rfft2, torch.fft.fftn, torch.fft.ifftn, torch.fft.rfftn):
    op(_transform.__name__, lambda x, f=_transform: parts(f(x, dim=(1, 2))), TABLE)
for _transform in (torch.fft.irfft2, torch.fft.irfftn):
    op(_transform.__name__, lambda x, y, f=_transform: f(torch.complex(x, y), dim=(1, 2)), TABLE, TWO)
op("hfft", lambda x, y: torch.fft.hfft(torch.complex(x, y), dim=1), domain=TWO)
op("fftshift", lambda x: torch.fft.fftshift(x, dim=1) * fixed(x, 4))
op("ifftshift", lambda x: torch.fft.ifftshift(x, dim=1) * fixed(x, 4))
op("complex", lambda x, y: parts(torch.complex(x, y) * torch.complex(y, x)), domain=TWO)
op("real, imag", lambda x: torch.fft.fft(x, dim=1).real * torch.fft.fft(x, dim=1).imag)
op("conj", lambda x: parts(torch.fft.fft(x, dim=1).conj()))
op("resolve_neg", lambda x: torch.fft.fft(x, dim=1).conj().imag.resolve_neg().tanh())

# ====================================================================== structure
alone("views, copies and indices of torch, which TensorFlow's slices and shapes in of_tensorflow.py are the other side of")
op("reshape", lambda x: x.reshape(len(x), 2, 2) * fixed(x, 2, 2))
op("reshape_as", lambda x: x.reshape_as(torch.empty(len(x), 2, 2)).tanh())
op("view", lambda x: x.view(-1, 2, 2).tanh())
op("view_as", lambda x: x.view_as(torch.empty(len(x), 2, 2)))
op("flatten", lambda x: x.flatten(1).tanh(), TABLE)
op("flatten, torch", lambda x: torch.flatten(x, start_dim=1), TABLE)
op("unflatten", lambda x: x.unflatten(1, (2, 2)))
op("ravel", lambda x: x.ravel().reshape(len(x), -1))
op("permute", lambda x: x.permute(0, 2, 1), TABLE)
op("transpose, method", lambda x: x.transpose(1, 2).tanh(), TABLE)
op("swapaxes", lambda x: torch.swapaxes(x, 1, 2), TABLE)
op("swapdims", lambda x: x.swapdims(-1, -2), TABLE)
op("movedim", lambda x: x.movedim(1, -1), TABLE)
op("moveaxis", lambda x: torch.moveaxis(x, 2, 1), TABLE)
op("t", lambda x: x.t().tanh().t())
op("mT", lambda x: x.mT, TABLE)
op("mH", lambda x: x.mH, TABLE)
op("H", each(lambda a: a.H), TABLE)
op("T", lambda x: (x.T * 2).T)
op("adjoint", lambda x: x.adjoint(), TABLE)
op("squeeze", lambda x: x.unsqueeze(1).squeeze(1).tanh())
op("squeeze, axes", lambda x: x[:, None, :, None].squeeze((1, 3)))
op("unsqueeze", lambda x: x.unsqueeze(-1))
op("unsqueeze, in place", lambda x: x.clone().unsqueeze_(1))
op("transpose, in place", lambda x: x.clone().transpose_(1, 2), TABLE)
op("expand", lambda x: x.unsqueeze(1).expand(-1, 3, -1).tanh())
op("expand_as", lambda x: x[:, :1].expand_as(x) * x)
op("repeat", lambda x: x.repeat(1, 2).sigmoid())
op("repeat_interleave", lambda x: x.repeat_interleave(2, dim=1))
op("repeat_interleave, counts alone", lambda x: x[:, torch.repeat_interleave((x[0] * 0 + 2).long())])
op("repeat_interleave, counts", lambda x: torch.repeat_interleave(x, torch.tensor([1, 2, 0, 1]), dim=1))
op("tile", lambda x: torch.tile(x, (1, 2)))
op("cat", lambda x, y: torch.cat([x, y.tanh()], 1), domain=TWO)
op("cat, keyword", lambda x: torch.cat(tensors=(x, x * 2), dim=-1))
op("concat", lambda x, y: torch.concat((x, y), dim=1), domain=TWO)
op("stack", lambda x, y: torch.stack([x, x * y], dim=1), domain=TWO)
op("hstack", lambda x, y: torch.hstack([x, y]), domain=TWO)
op("vstack", lambda x: torch.vstack([a.tanh() for a in x]))
op("dstack", lambda x, y: torch.dstack([x, y]), domain=TWO)
op("column_stack", lambda x, y: torch.column_stack([x, y]), domain=TWO)
op("split", lambda x: [a.tanh() for a in x.split(3, dim=1)])
op("split, sizes", lambda x: [a * i for i, a in enumerate(torch.split(x, [1, 3], 1))])
op("chunk", lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1])
op("tensor_split", lambda x: torch.tensor_split(x, 3, dim=1))
op("hsplit", lambda x: torch.hsplit(x, 2))
op("vsplit", each(lambda a: torch.vsplit(a, 2)[1]), (2, 3))
op("dsplit", lambda x: torch.dsplit(x, 2), TABLE)
op("split_with_sizes", lambda x: torch.split_with_sizes(x, [1, 3], 1))
op("unsafe_split", lambda x: torch.unsafe_split(x, 3, 1))
op("unsafe_chunk", lambda x: torch.unsafe_chunk(x, 2, 1))
op("unbind", lambda x: [a.exp() for a in x.unbind(1)])
op("unbind, iteration", each(lambda a: a.prod(0)))
op("narrow", lambda x: x.narrow(1, 1, 2).tanh())
op("select", lambda x: x.select(1, 2).tanh())
op("index, integer", lambda x: x[:, 1].tanh(), TABLE)
op("index, slice", lambda x: x[:, 1:, ::2].tanh(), TABLE)
op("index, negative and ellipsis", lambda x: x[..., -1], TABLE)
op("index, None", lambda x: x[:, None].sigmoid())
op("index, list", lambda x: x[:, [2, 0]])
op("index, mask", lambda x: x[:, torch.tensor([True, False, True, True])])
op("index, tensor", lambda x: x[:, torch.tensor([3, 3, 1])].tanh())
op("index, two tensors", lambda x: x[torch.arange(len(x)), ids(x, 2)[:, 0]], TABLE)
op("index_select", lambda x: x.index_select(1, torch.tensor([2, 0, 2])))
op("gather", lambda x: x.gather(1, ids(x, 2, 0, 2)))
op("scatter", lambda x, y: x.scatter(1, ids(x, 2, 0), y), domain=TWO)
op("scatter, value", lambda x: x.scatter(1, ids(x, 2), 1.5))
op("scatter, in place", lambda x, y: x.clone().scatter_(1, ids(x, 3, 1), y), domain=TWO)
op("scatter_add", lambda x, y: x.scatter_add(1, ids(x, 2, 2), y), domain=TWO)
op("scatter_reduce, sum", lambda x: torch.zeros_like(x).scatter_reduce(1, ids(x, 1, 1, 0, 3), x, "sum"))
op("scatter_reduce, amax", lambda x: scattered_extreme(x, "amax", torch.tensor([1, 1, 0, 1])))
op("scatter_reduce, amin", lambda x: scattered_extreme(x, "amin", torch.tensor([1, 1, 0, 3]), include_self=False))
op("scatter_reduce, amax, in place", lambda x: x.clone().scatter_reduce_(1, ids(x, 2, 2, 0, 3), x.tanh(), "amax") * x)
op("scatter_reduce, part", lambda x: x.scatter_reduce(1, ids(x, 1, 2, 1), x[:, 1:].exp(), "amax"))
op("scatter_reduce, prod", lambda x: (2 * x).scatter_reduce(1, ids(x, 1, 1, 0, 3), x, "prod"))
op("scatter_reduce, prod of others", lambda x: x.scatter_reduce(1, ids(x, 1, 1, 0, 1), x, "prod", include_self=False))
for _reduce in ("mean", "amax", "amin", "prod"):
    op(f"index_reduce, {_reduce}", lambda x, r=_reduce: (2 * x).index_reduce(1, torch.tensor([2, 0, 2]), x[:, 1:], r))
for _reduce in ("sum", "mean", "max", "min", "prod"):
    op(f"segment_reduce, {_reduce}", lambda x, r=_reduce: torch.segment_reduce(x.T, r, lengths=torch.tensor([3, 1])).T)
op("segment_reduce, offsets", lambda x: torch.segment_reduce(x, "sum", offsets=segments(x), axis=1, initial=2.0) * x)
op("softmax of segments", lambda x: segment_softmax(x, torch.tensor([0, 1, 0, 1])))
op("scatter_reduce, mean", lambda x: torch.zeros_like(x).scatter_reduce(1, ids(x, 1, 1, 0, 3), x, "mean"))
op("index_add", lambda x, y: x.index_add(1, torch.tensor([0, 0, 2, 1]), y, alpha=2), domain=TWO)
op("index_copy", lambda x, y: x.index_copy(1, torch.tensor([3, 1]), y[:, :2]), domain=TWO)
op("index_put", lambda x, y: x.index_put((torch.arange(len(x)), ids(x, 1)[:, 0]), y[:, 0]), domain=TWO)
op("index_put, add", lambda x, y: x.index_put_((torch.arange(len(x)), *ids(x, 2).T), y[:, 0], True), domain=TWO)
op("index_fill", lambda x: x.index_fill(1, torch.tensor([1, 2]), 0.7))
op("select_scatter", lambda x, y: torch.select_scatter(x, y[:, 0], 1, 2), domain=TWO)
op("slice_scatter", lambda x, y: torch.slice_scatter(x, y[:, :2], 1, 1, 3), domain=TWO)
op("diagonal_scatter", each(lambda a, b: torch.diagonal_scatter(a, b[0])), (3, 3), TWO)
op("masked_select, fixed mask", lambda x: x.masked_select(MASK).reshape(len(x), 2))
op("masked_fill", lambda x: x.masked_fill(MASK, 2.0))
op("masked_fill, in place", lambda x: x.clone().masked_fill_(MASK, 2.0))
op("masked_scatter", each(lambda a, b: a.masked_scatter(MASK, b)), domain=TWO)
op("where, method", lambda x: x.where(x > 0, 0.1 * x))
op("where, fixed condition", lambda x, y: torch.where(MASK, x, y), domain=TWO)
op("where, constants", lambda x: torch.where(MASK, x, 0.0))
op("take", each(lambda a: a.take(torch.tensor([5, 0, 5]))), TABLE)
op("take_along_dim", lambda x: torch.take_along_dim(x, torch.tensor([[2, 0, 2]]), dim=1))
op("roll", lambda x: x.roll(1, 1))
op("flip", lambda x: x.flip(1).tanh())
op("fliplr", lambda x: torch.fliplr(x))
op("flipud", each(lambda a: torch.flipud(a)))
op("rot90", lambda x: torch.rot90(x, 1, (1, 2)), TABLE)
op("unfold, method", lambda x: x.unfold(1, 2, 1))
op("as_strided", lambda x: x.contiguous().as_strided((len(x), 2), (4, 2)))
op("diagonal", lambda x: x.diagonal(dim1=1, dim2=2), TABLE)
op("diag", each(lambda a: torch.diag(a)), TABLE)
op("diag_embed", lambda x: torch.diag_embed(x))
op("diagflat", each(torch.diagflat), (2, 2))
op("trace", each(lambda a: torch.trace(a)), TABLE)
op("tril", lambda x: x.tril(), TABLE)
op("triu", lambda x: torch.triu(x, 1), TABLE)
op("tril, in place", lambda x: x.tril_(), TABLE)
op("block_diag", each(lambda a: torch.block_diag(a[:2], a[2:])), (4, 2))
op("broadcast_to", lambda x: torch.broadcast_to(x[:, None], (len(x), 2, 4)).tanh())
op("broadcast_tensors", lambda x, y: torch.broadcast_tensors(x[:, :1], y), domain=TWO)
op("meshgrid", each(lambda a: torch.stack(torch.meshgrid(a, a, indexing="ij"))), (2,))
op("cartesian_prod", each(lambda a: torch.cartesian_prod(a[:2], a[2:])))
op("combinations", each(lambda a: torch.combinations(a)))
op("atleast_3d", lambda x: torch.atleast_3d(x))
op("atleast_2d", lambda x: torch.atleast_2d(x))
op("atleast_1d", each(lambda a: torch.atleast_1d(a[0])))
op("clone", lambda x: x.clone())
op("contiguous", lambda x: x.transpose(1, 2).contiguous().view(len(x), -1), TABLE)
op("detach", lambda x: x.detach().tanh() + x)
op("detach, in place", lambda x: (2 * x).detach_().tanh())
op("deepcopy", lambda x: copy.deepcopy(x.tanh()) * x)
op("data", lambda x: x.data.tanh() + x)
op("to, dtype", lambda x: x.to(torch.float64).tanh().to(x.dtype))
op("to, other", lambda x: x.to(torch.ones(1, dtype=x.dtype)))
op("double", lambda x: x.double().exp())
op("float", lambda x: x.float().tanh(), **SINGLE)
op("float, back and forth", lambda x: x.double().type(torch.float32).tanh().type(torch.float64), **SINGLE)
op("type_as", lambda x: x.double().type_as(x))
op("half", lambda x: x.half().tanh(), through=torch.float16)
op("bfloat16", lambda x: x.bfloat16().tanh(), through=torch.bfloat16)
op("asarray", lambda x: torch.asarray(x).tanh())
op("short", lambda x: (3 * x).short() * x)
op("byte", lambda x: (3 * x).byte() * x, domain="positive")
op("char", lambda x: (3 * x).char() * x)
op("bool", lambda x: x.relu().bool() * x)
op("cpu", lambda x: x.cpu().tanh())
op("rounded to integers", lambda x: (3 * x).long().to(x.dtype) * x)
op("rounded to integers, arithmetic", lambda x: ((3 * x).int() + 2) * 3 - 1)
op("dropout", lambda x: F.dropout(x, 0.5, training=False))
op("requires_grad is left alone", lambda x: x * float(x.requires_grad is not None))
op("alias", lambda x: torch.ops.aten.alias.default(x).tanh())
op("view_as_complex", lambda x: torch.view_as_real(torch.view_as_complex(x.reshape(len(x), 2, 2)) * 2j))
op("new_zeros", lambda x: x.new_zeros(len(x), 2) + x[:, :2])
op("new_full", lambda x: x.new_full((len(x), 4), 0.5) * x)
op("new_tensor", lambda x: x.new_tensor([1.0, 2.0, 3.0, 4.0]) * x)
op("zeros_like", lambda x: torch.zeros_like(x) + torch.ones_like(x) * x)
op("vander", lambda x: torch.vander(x[0, :1].detach() * 0 + 2, 3) * x[:, :3])
model("nn.Dropout, nn.Identity", lambda: Chain(nn.Dropout(), nn.Identity(), nn.Linear(4, 2)))
model("nn.Unflatten", lambda: Chain(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))))
model("nn.Embedding", lambda: Chain(nn.Embedding(TOKENS, 3), nn.Flatten(), nn.Linear(12, 2)), **TOKEN)
model("nn.Embedding, renormed", lambda: Chain(nn.Embedding(TOKENS, 3, max_norm=0.5), nn.Flatten(), nn.Linear(12, 2)), **TOKEN)
model("nn.Embedding, padding", lambda: Chain(nn.Embedding(TOKENS, 3, padding_idx=0), nn.Tanh()), **TOKEN)
model("nn.EmbeddingBag", lambda: nn.EmbeddingBag(TOKENS, 3, mode="mean"), **TOKEN)
model("nn.EmbeddingBag, sum", lambda: Chain(nn.EmbeddingBag(TOKENS, 3, mode="sum"), nn.Tanh()), **TOKEN)
model("one_hot", lambda: OneHot(), **TOKEN)
model("bucketize", lambda: lambda x: torch.bucketize(x, RISING.to(x) / 100 - 1) * x)
model("table of weights at fixed ids", lambda: FixedIds())
model("nn.Bilinear", lambda: Twice(nn.Bilinear(4, 4, 3)))
model("nn.CosineSimilarity", lambda: Twice(nn.CosineSimilarity()))
model("nn.PairwiseDistance", lambda: Twice(nn.PairwiseDistance()))
model("nn.Softmax", lambda: Chain(nn.Linear(4, 3), nn.Softmax(1)))
model("nn.LogSoftmax", lambda: Chain(nn.Linear(4, 3), nn.LogSoftmax(1)))
model("nn.Softmin", lambda: nn.Softmin(1))
model("nn.Softmax2d", lambda: nn.Softmax2d(), IMAGE)

# ====================================================================== conditions on the input
alone("tensors of torch that say where to look; TensorFlow's are in of_tensorflow.py")
op("where, x > 0", lambda x: torch.where(x > 0, x, 0.2 * x))
op("where, two branches", lambda x, y: torch.where(x > y, x * y, y - 1), domain=TWO)
op("where, numbers", lambda x: torch.where(x > 0, 1.0, -2.0), **SINGLE)
op("mask as a factor", lambda x: x * (x > 0))
op("mask, float", lambda x: x * (x.abs() > 0.5).float(), **SINGLE)
op("mask, double", lambda x: (x * (x.abs() > 0.5).double()).to(x.dtype))
op("mask, long", lambda x: (x > 0).long().sum(1, keepdim=True) * x)
op("masked_fill, x < 0", lambda x: x.masked_fill(x < 0, 0.3))
op("masked_fill, softmax of the rest", lambda x: x.masked_fill(x <= x.amin(1, keepdim=True), -1e9).softmax(1))
op("mask and, or, not", lambda x, y: ((x > 0) & ~(y > 0.5) | (x < -1)).to(x.dtype) * y, domain=TWO)
op("mask xor", lambda x, y: ((x > 0) ^ (y > 0)).to(x.dtype), domain=TWO)
op("logical_and, not", lambda x, y: x * torch.logical_and(x > 0, torch.logical_not(y > 0)), domain=TWO)
op("logical_or, xor", lambda x, y: (x > 1).logical_or(y > 1) * x + (x > 0).logical_xor(y > 0), domain=TWO)
op("ge, le", lambda x, y: (x >= y) * y + 2 * torch.le(x, 0.2), domain=TWO)
op("gt, lt", lambda x, y: torch.gt(x, 0.3) * y + x.lt(y), domain=TWO)
op("eq, ne", lambda x: (x.round() == 1) * x + (x.round() != 0).to(x.dtype))
op("isnan, isinf, isfinite", lambda x: torch.where(x.isnan() | torch.isinf(x) | ~torch.isfinite(x), 0.0, x))
op("isposinf, isneginf", lambda x: torch.where(torch.isposinf(x) | torch.isneginf(x), 0.0, x))
op("isclose", lambda x: torch.isclose(x.round(), torch.ones_like(x)) * x)
op("searchsorted", lambda x: torch.searchsorted(RISING.to(x) / 100 - 1, x) * x)
op("clamp by the input", lambda x: torch.minimum(torch.maximum(x, -x[:, :1].abs()), x[:, 1:2].abs()))
op("sign as a factor", lambda x: x.sign() * x.abs().sqrt())
op("inclusive mask of a sum", lambda x: x * (x.sum(1, keepdim=True) > 0).to(x.dtype))
op("any as a factor", lambda x: (x > 1).any(1, keepdim=True) * x)

# ====================================================================== code in place
alone("tensors of TensorFlow cannot be written to")
@written()
def assign_column(x):
    y = torch.zeros_like(x)
    y[:, 0] = x[:, 1].tanh()
    y[:, 1:3] = x[:, :2] * 2
    return y * x


@written()
def assign_where(x):
    y = x.clone()
    y[y < 0] = 0.1
    return y


@written()
def assign_over(x):
    y = x.clone()
    y[:, 0] = y[:, 1] * y[:, 2]
    y[:, 3] = 5.0
    return y


@written()
def view_then_inplace(x):
    y = x * 1.0
    y[:, 0].sigmoid_()
    y[:, 1:].tanh_()
    return y


op("einsum of two, then in place", lambda x: torch.einsum("bij,bkj->bik", x, x).mul_(2).sin(), TABLE)
op("einsum of one, then in place", lambda x: torch.einsum("bij->bji", x.tanh()).add_(1).tanh_(), TABLE)
op("transpose, then in place", lambda x: x.tanh().transpose(1, 2).add_(x.mT).tanh_(), TABLE)
op("linear, then a view in place", lambda x: F.linear(x, fixed(x, 4, 4)).unflatten(-1, (2, 2)).tanh_(), TABLE)


@written()
def cache_overwritten(x):
    cache = torch.linspace(0.5, 2, 4).to(x)
    y = x * cache
    z = torch.where(cache > 1, x.tanh(), y)
    cache.zero_()
    return y.tanh() + z


@written(domain=TWO)
def augmented(x, y):
    z = x * 2
    z *= y
    z += x
    z -= 1
    z /= 1 + y * y
    return z


@written()
def squared_by_itself(x):
    y = x.exp()
    y *= y
    return y


@written()
def overwritten_after_use(x):
    y = x.tanh()
    z = y * y
    y.zero_()
    return z + y


@written()
def filled(x):
    y = x.clone()
    y[:, 2].fill_(0.4)
    return y.relu_()


@written()
def copied(x):
    y = torch.empty_like(x)
    y.copy_(x.tanh())
    return y


@written()
def clamped_view(x):
    y = x + 0
    y[:, ::2].clamp_(-0.5, 0.5)
    return y.mul_(x)


@written((3, 4))
def buffer_of_steps(x):
    outputs = torch.zeros(len(x), 3, 4, dtype=x.dtype)
    state = torch.zeros(len(x), 4, dtype=x.dtype)
    for t in range(3):
        state = torch.tanh(x[:, t] + state * 0.5)
        outputs[:, t] = state
    return outputs


@written((3, 4))
def growing_list(x):
    steps, total = [], 0
    for step in x.unbind(1):
        total = total + step * torch.sigmoid(step)
        steps.append(total)
    return torch.stack(steps, dim=1)


@written()
def without_gradient(x):
    with torch.no_grad():
        scale = x.abs().sum(1, keepdim=True)
    return x / (1 + scale)


@written()
def detached_branch(x):
    return x.tanh() + x.detach().sigmoid()


@written()
def shape_arithmetic(x):
    rows, features = x.size(0), x.shape[-1]
    assert x.numel() == rows * features
    assert not x.is_complex()
    return x.sum(1, keepdim=True) / features

# ====================================================================== values that leave torch
alone("a graph has no values while it is made: test_keras_errors.py")
op("item", lambda x: x * (1 + nothing(x).item()))
op("float of a tensor", lambda x: x * (1 + float(nothing(x))))
op("int of a tensor", lambda x: x[:, int(nothing(x)) :])
op("complex of a tensor", lambda x: x * (1 + complex(nothing(x)).real))
op("index of a tensor", lambda x: x * [2, 3][nothing(x).long()])
op("bool of a tensor", lambda x: x if nothing(x) else 2 * x)
op("is_nonzero", lambda x: x if torch.is_nonzero(nothing(x)) else 2 * x)
op("in", lambda x: x if 1.0 in nothing(x).reshape(1) else 2 * x)
op("tolist", lambda x: x * (1 + nothing(x).reshape(1).tolist()[0]))
op("numpy", lambda x: x * (1 + float(nothing(x).detach().numpy())))
op("array", lambda x: x * (1 + np.asarray(nothing(x).detach()).item()))
op("equal", lambda x: x if torch.equal(nothing(x), torch.zeros((), dtype=x.dtype)) else 2 * x)
op("allclose", lambda x: x if torch.allclose(0 * x, torch.zeros_like(x)) else 2 * x)
op("nonzero", lambda x: x[:, torch.nonzero(0 * x[0] + 1)[1:, 0]].tanh())
op("unique", lambda x: x * torch.unique(0 * x + 3))
op("unique_consecutive", lambda x: x * torch.unique_consecutive(0 * x + 3))
op("bincount", lambda x: x.tanh() * torch.bincount((0 * x[:, 0]).long()).sign())
op("argwhere", lambda x: x[:, torch.argwhere(0 * x[0] + 1)[1:, 0]].tanh())

# ====================================================================== spellings of exported programs
alone("spellings of torch")
op("aten.slice", lambda x: aten.slice(x, 1, 1, 3).tanh())
op("aten.index", lambda x: aten.index(x, [None, torch.tensor([2, 0])]).tanh())
op("aten.im2col, col2im", lambda x: aten.col2im(aten.im2col(x, *WINDOW).tanh(), x.shape[-2:], *WINDOW), IMAGE)
op("aten.lift_fresh", lambda x: aten.lift_fresh(x).tanh())
op("aten.lift_fresh_copy", lambda x: aten.lift_fresh_copy(x).tanh())
op("aten.constant_pad_nd", lambda x: aten.constant_pad_nd(x, [1, 2], 0.5))
op("aten._to_copy", lambda x: aten._to_copy(x, dtype=torch.float64).tanh())
op("aten.log_sigmoid", lambda x: aten.log_sigmoid(x))
op("aten.addmm", lambda x: aten.addmm.default(fixed(x, 3), x, fixed(x, 4, 3)))
op("aten._softmax", lambda x: aten._softmax.default(x, 1, False))
op("aten.convolution", lambda x: aten.convolution(x, fixed(x, 3, 2, 2), None, [1], [0], [1], False, [0], 1), SERIES)
op("aten.native_layer_norm", lambda x: aten.native_layer_norm(x, [4], None, None, 1e-5)[0])
for _axes, _shape in enumerate((SERIES, (1, 3, 4), (1, 3, 3, 2)), 1):
    op(f"aten.reflection_pad{_axes}d", lambda x, n=_axes: getattr(aten, f"reflection_pad{n}d")(x, [1] * 2 * n), _shape)
    op(f"aten.replication_pad{_axes}d", lambda x, n=_axes: getattr(aten, f"replication_pad{n}d")(x, [2] * 2 * n), _shape)
    op(f"aten.upsample_nearest{_axes}d", lambda x, n=_axes: getattr(aten, f"upsample_nearest{n}d")(x, [5] * n), _shape)
op("aten.upsample_linear1d", lambda x: aten.upsample_linear1d(x, [9], False), SERIES)
op("aten.upsample_bilinear2d", lambda x: aten.upsample_bilinear2d(x, [5, 7], True), IMAGE)
op("aten.upsample_bicubic2d", lambda x: aten.upsample_bicubic2d(x, [5, 7], False), IMAGE)
op("aten.upsample_trilinear3d", lambda x: aten.upsample_trilinear3d(x, [3, 4, 3], False), (1, 2, 2, 2))

# ====================================================================== recurrent layers
alone("layers of torch; of Keras' see test_keras_models.py")
LAYERS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "time first": {"batch_first": False},
    "no bias": {"bias": False},
    "stacked": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "deep": DEEP,
    "dropout between layers": {"num_layers": 2, "dropout": 0.5},
}

for _kind in KINDS:
    for _name, _options in LAYERS.items():
        model(f"nn.{_kind}, {_name}", lambda k=_kind, o=_options: Recurrent(k, **o), SEQUENCE)
    for _use in ("h_n", "last", "all"):
        model(f"nn.{_kind}, {_use}", lambda k=_kind, u=_use: Recurrent(k, u), SEQUENCE)
        model(f"nn.{_kind}, {_use}, deep", lambda k=_kind, u=_use: Recurrent(k, u, **DEEP), SEQUENCE)
    for _start in ("constant", "learned", "computed"):
        model(f"nn.{_kind}, state {_start}", lambda k=_kind, s=_start: Recurrent(k, "all", s), SEQUENCE)
        model(f"nn.{_kind}, {_start}, deep", lambda k=_kind, s=_start: Recurrent(k, start=s, **DEEP), SEQUENCE)
model("nn.LSTM, c_n", lambda: Recurrent("LSTM", "c_n"), SEQUENCE)
for _use in ("output", "h_n", "c_n", "all"):
    model(f"nn.LSTM, projected, {_use}", lambda u=_use: Recurrent("LSTM", u, units=3, proj_size=2), SEQUENCE)
model("nn.LSTM, projected, deep", lambda: Recurrent("LSTM", "all", "computed", proj_size=1, **DEEP), SEQUENCE)
model("nn.LSTM, one unit, one step", lambda: Recurrent("LSTM", "all", units=1), (1, 3))
model("nn.LSTM, wide", lambda: Recurrent("LSTM", "last", units=17), SEQUENCE)

model("nn.LSTMCell", lambda: Cells(nn.LSTMCell(3, 2)), SEQUENCE)
model("nn.LSTMCell, all steps", lambda: Cells(nn.LSTMCell(3, 2, bias=False), True), SEQUENCE)
model("nn.LSTMCell, no state", lambda: Cells(nn.LSTMCell(3, 2), given=False), SEQUENCE)
model("nn.GRUCell", lambda: Cells(nn.GRUCell(3, 2)), SEQUENCE)
model("nn.GRUCell, all steps", lambda: Cells(nn.GRUCell(3, 2, bias=False), True, False), SEQUENCE)
model("nn.RNNCell", lambda: Cells(nn.RNNCell(3, 2)), SEQUENCE)
model("nn.RNNCell, relu", lambda: Cells(nn.RNNCell(3, 2, nonlinearity="relu"), True), SEQUENCE)

model("LSTM by hand", HandLSTM, SEQUENCE)
model("LSTM with peepholes", PeepholeLSTM, SEQUENCE)
model("LSTM with layer norm", NormalisedLSTM, SEQUENCE)
model("LSTM with separate gates", SeparateGates, SEQUENCE)
model("GRU by hand", HandGRU, SEQUENCE)
model("minimal gated unit", MinimalGated, SEQUENCE)
model("ConvLSTM", ConvLSTM, (3, 1, 2, 3))

# ====================================================================== models around recurrent layers
alone("modules of torch; of Keras' models see test_keras_models.py")

for _kind in KINDS:
    for _name, _options in {
        "h_n": {},
        "output": {"use": "output"},
        "mean": {"use": "mean"},
        "time first": {"use": "output", "batch_first": False},
        "deep": {"use": "output"} | DEEP,
        "h_n, deep": DEEP,
    }.items():
        model(f"packed {_kind}, {_name}", lambda k=_kind, o=_options: Packed(k, **o), (5, 3), **LENGTHS)
    model(f"packed {_kind}, sorted", lambda k=_kind: Packed(k, sort=True), (5, 3), args=sorted_lengths)
model("packed LSTM, projected", lambda: Packed("LSTM", "output", proj_size=1), (5, 3), **LENGTHS)

model("CNN-LSTM", lambda: Chain(nn.Conv1d(2, 3, 2), nn.ReLU(), nn.MaxPool1d(2), Swap(), lstm()), (2, 9))
model("LSTM-MLP", lambda: Chain(lstm(), Last(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), SEQUENCE)
model("LSTM classifier", lambda: Chain(nn.LayerNorm(3), lstm(), Last(), nn.Softmax(-1)), SEQUENCE)
model("LSTM, then attention", AttentiveLSTM, SEQUENCE)
model("sequence to sequence", Seq2Seq, SEQUENCE)
model("LSTM on flat windows", Windows, (12,))
model("masked mean of an LSTM", MaskedMean, (5, 3), args=step_mask)
model("last valid step of a GRU", LastValid, (5, 3), **LENGTHS)
model("tokens, LSTM", TokenLSTM, (5,), **TOKEN)
model("tokens, packed LSTM", lambda: TokenLSTM(True), (5,), domain="tokens", **LENGTHS)
model("sequence output (N, T, K)", lambda: Chain(lstm(), nn.Linear(2, 2)), SEQUENCE)
model("sequence output (N, T)", lambda: Chain(lstm(), nn.Linear(2, 1), nn.Flatten()), SEQUENCE)
model("output (N,)", lambda: Chain(lstm(), nn.Linear(2, 1), nn.Flatten(), Sum()), SEQUENCE)

# ====================================================================== other models
alone("modules of torch; of Keras' models see test_keras_models.py")

model("MLP", lambda: Chain(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)))
model("MLP, output (N,)", lambda: Chain(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1), nn.Flatten(0)))
model("linear", lambda: nn.Linear(4, 2))
model("residual CNN", lambda: Chain(Residual(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)), IMAGE)
model("temporal convolutional network", lambda: Chain(Causal(1), Causal(2)), SERIES)
model("module used three times", Reused)
model("checkpoint", lambda: Checkpointed(False))
model("checkpoint, reentrant", lambda: Checkpointed(True))
model("likelihood", Likelihood)
model(
    "entropy of a categorical distribution",
    lambda: lambda x: torch.distributions.Categorical(logits=x, validate_args=True).entropy(),
)
model("data parallel", lambda: nn.DataParallel(nn.Sequential(nn.Linear(4, 2), nn.Tanh())))
model("state kept as an attribute", Remembering, SEQUENCE)
model("list of inputs", Inputs, [SEQUENCE, (4,)])
model("dict of inputs", Inputs, {"series": SEQUENCE, "static": (4,)})
model("list of inputs and a number", Inputs, [SEQUENCE, (4,)], args=lambda rows: (0.7,))
model("dict of outputs", Outputs, output="logits")
model("dict of outputs, by function", Outputs, output=lambda o: o["logits"] * o["probabilities"])
model("highway", Highway)
model("mixture of experts", Mixture)
model("weights from the input", Hyper)
model("transformer over tokens", Positional, (5,), **TOKEN)
model("MLP mixer", Mixer, SELF)
model("squeeze and excitation", Squeeze, IMAGE)
model("plain function", lambda: lambda x: torch.tanh(x[:, :2]) * x[:, 2:])
model("constant output beside a varying one", lambda: lambda x: F.pad(x[:, :2].exp(), (0, 1), value=3.0))
