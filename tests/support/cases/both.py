"""The operations that every engine must explain exactly, one line each: its name, and its function in each framework.

All run between two fixed linear maps with the same weights in every framework, so that every operand depends on every feature
and the function meets multipliers that differ from element to element. They are tested for all that cases of one framework are,
and ``test_keras_table.py`` finds that the frameworks' values are the same.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
import torch.nn.functional as F
from tensorflow import linalg, math, nn
from torch import Tensor

FEATURES, WIDTH, OUTPUTS = 4, 6, 3
DOMAINS = {"positive": (0.3, 2.5), "unit": (0.05, 0.95), "open": (-0.95, 0.95), "above one": (1.1, 3.0)}


@dataclass(frozen=True)
class Shared:
    """A function of operands (rows, 6), each a linear map of the row's features, in both frameworks.

    ``smooth``: whether the gradient is its limit. ``differs``: why the frameworks' attributions may differ, where they may.
    ``alone``: why there is no function of PyTorch, where there is none.
    """

    name: str
    of_torch: Callable[..., Any]
    of_tensorflow: Callable[..., Any]
    operands: int = 1
    domain: str = "any"
    smooth: bool = True
    differs: str = ""
    alone: str = ""

    def maps(self) -> list[np.ndarray]:
        """The operands' maps (4, 6); outside the domain "any" they take convex combinations."""
        drawn = np.random.default_rng(zlib.crc32(self.name.encode())).normal(size=(self.operands, FEATURES, WIDTH))
        return list(drawn if self.domain == "any" else np.exp(drawn) / np.exp(drawn).sum(1, keepdims=True))

    def rows(self, number: int, seed: int) -> np.ndarray:
        """Draw rows of the domain."""
        generator = np.random.default_rng(seed)
        if self.domain == "any":
            return generator.normal(size=(number, FEATURES))
        return generator.uniform(*DOMAINS[self.domain], size=(number, FEATURES))

    def torch_model(self) -> torch.nn.Module:
        """The function between its maps, in PyTorch."""
        return TorchOp(self)

    def tensorflow_model(self, dtype: str) -> Callable[[Any], Any]:
        """The same in TensorFlow."""
        maps = [tf.constant(m, dtype) for m in self.maps()]

        def run(x: Any) -> Any:
            made = tf.cast(self.of_tensorflow(*(x @ m for m in maps)), dtype)
            flat = tf.reshape(made, (-1, np.prod(made.shape[1:], dtype=int)))
            return flat @ tf.constant(outgoing(flat.shape[1]), dtype)

        return run


class TorchOp(torch.nn.Module):
    """A function between two linear maps."""

    def __init__(self, case: Shared):
        super().__init__()
        self.function = case.of_torch
        for k, mix in enumerate(case.maps()):
            self.register_buffer(f"mix{k}", torch.tensor(mix))

    def forward(self, x: Tensor) -> Tensor:
        flat = self.function(*(x @ mix for mix in self.buffers())).reshape(len(x), -1).to(x.dtype)
        return flat @ torch.tensor(outgoing(flat.shape[1]), dtype=x.dtype)


def outgoing(size: int) -> np.ndarray:
    """The map behind the function (size, 3)."""
    return np.random.default_rng(size).normal(size=(size, OUTPUTS))


def absent(*_: Any) -> Any:
    """In place of the function of the framework that has none."""
    raise NotImplementedError


def of_keras(path: str, *args: Any, of: Callable[[Any], Any] = lambda x: x, **options: Any) -> Callable[..., Any]:
    """A function of Keras with what follows its operand; ``absent`` where the installed Keras is older than it, or an option."""
    module, name = path.split(".")
    function = getattr(getattr(keras, module), name, None)
    if function is None or not set(options) <= set(inspect.signature(function).parameters):
        return absent
    return lambda x: function(of(x), *args, **options)


SHARED: list[Shared] = []


def both(
    name: str, of_torch: Callable[..., Any], of_tensorflow: Callable[..., Any], *args: Any, **options: Any
) -> None:
    """Add a line."""
    SHARED.append(Shared(name, of_torch, of_tensorflow, *args, **options))


def boxes(x: Any) -> Any:
    """Rows as (rows, 2, 3)."""
    return x.reshape(-1, 2, 3) if isinstance(x, Tensor) else tf.reshape(x, (-1, 2, 3))


COMPOSED = "one framework has an operation for it, the other composes it of smaller ones"
TABLE = np.arange(40.0).reshape(10, 4) ** 2

# fmt: off
# ---------------------------------------------------------------------- elementwise
both("abs", torch.abs, tf.abs)
both("cos", torch.cos, tf.cos)
both("cosh", torch.cosh, tf.cosh)
both("elu", F.elu, nn.elu)
both("erf", torch.erf, math.erf)
both("erfc", torch.erfc, math.erfc)
both("exp", torch.exp, tf.exp)
both("expm1", torch.expm1, math.expm1)
both("leaky_relu", lambda x: F.leaky_relu(x, float(np.float32(0.2))), nn.leaky_relu)  # TensorFlow keeps the slope as float32
both("relu", torch.relu, nn.relu)
both("relu6", F.relu6, nn.relu6)
both("selu", F.selu, nn.selu)
both("sigmoid", torch.sigmoid, tf.sigmoid)
both("sin", torch.sin, tf.sin)
both("sinh", torch.sinh, tf.sinh)
both("softplus", F.softplus, nn.softplus)
both("softsign", F.softsign, nn.softsign)
both("square", torch.square, tf.square)
both("tanh", torch.tanh, tf.tanh)
both("atan", torch.atan, tf.atan)
both("asinh", torch.asinh, tf.asinh)
both("gelu", F.gelu, nn.gelu, differs="TensorFlow takes the root of 2 in float32")
both("silu", F.silu, nn.silu)
both("gelu, tanh", lambda x: F.gelu(x, approximate="tanh"), lambda x: nn.gelu(x, approximate=True))
both("celu", F.celu, of_keras("activations.celu"))
both("mish", F.mish, of_keras("activations.mish"))
both("glu", F.glu, of_keras("activations.glu"))
both("logsigmoid", F.logsigmoid, math.log_sigmoid)
both("hardsigmoid", lambda x: F.hardsigmoid(2 * x), of_keras("activations.hard_sigmoid", of=lambda x: 2 * x))
both("hardswish", lambda x: F.hardswish(2 * x), of_keras("activations.hard_swish", of=lambda x: 2 * x))
both("hardtanh", F.hardtanh, of_keras("activations.hard_tanh"))
both("hardshrink", F.hardshrink, of_keras("activations.hard_shrink"), smooth=False)
both("softshrink", F.softshrink, of_keras("activations.soft_shrink"))
both("tanhshrink", F.tanhshrink, of_keras("activations.tanh_shrink"))
both("threshold", lambda x: F.threshold(x, 0.25, -1.0), of_keras("activations.threshold", 0.25, -1.0), smooth=False)
both("log2", torch.log2, of_keras("ops.log2"), 1, "positive")
both("log10", torch.log10, of_keras("ops.log10"), 1, "positive")
both("trunc", torch.trunc, of_keras("ops.trunc"), smooth=False)
both("ceil", torch.ceil, math.ceil, smooth=False)
both("floor", torch.floor, tf.floor, smooth=False)
both("round", torch.round, tf.round, smooth=False)
both("sign", torch.sign, tf.sign, smooth=False)
for _name in ("log", "log1p", "sqrt", "rsqrt", "reciprocal", "lgamma", "digamma"):
    both(_name, getattr(torch, _name), getattr(math, _name), 1, "positive")
for _name in ("asin", "acos", "atanh", "erfinv"):
    both(_name, getattr(torch, _name), getattr(math, _name), 1, "open")
both("ndtri", torch.special.ndtri, math.ndtri, 1, "unit")
both("acosh", torch.acosh, math.acosh, 1, "above one")
both("tan", lambda x: torch.tan(x / 4), lambda x: tf.tan(x / 4))
both("bessel i0e", torch.special.i0e, math.bessel_i0e)
both("sqrt, from 0", lambda x: x.relu().sqrt(), lambda x: tf.sqrt(nn.relu(x)), smooth=False)
both("log1p, from 0", lambda x: x.relu().log1p(), lambda x: math.log1p(nn.relu(x)), smooth=False)
both("power of a constant", lambda x: x**3 + x.abs() ** 1.5, lambda x: x**3 + tf.abs(x) ** 1.5)
both("power", torch.pow, tf.pow, 2, "positive")
both("maximum", torch.maximum, tf.maximum, 2)
both("minimum", torch.minimum, tf.minimum, 2)
both("atan2", torch.atan2, math.atan2, 2)
both("remainder", torch.remainder, math.floormod, 2, "positive", smooth=False)
both("floor division", lambda a, b: a // b, lambda a, b: a // b, 2, "positive", smooth=False, differs=COMPOSED)
both("xlogy", torch.xlogy, math.xlogy, 2, "positive")
both("clip", lambda x: x.clip(-0.5, 0.5), lambda x: tf.clip_by_value(x, -0.5, 0.5))
both("comparisons", lambda a, b: torch.stack([c.to(a.dtype) for c in (a > b, a >= 0, a < b, b <= 0, a == b, a != b)], 1),
     lambda a, b: tf.stack([tf.cast(c, a.dtype) for c in (a > b, a >= 0, a < b, b <= 0, a == b, a != b)], 1), 2, smooth=False)
both("logic", lambda a, b: ((a > 0) & (b > 0) | ~(a > 0.5)).to(a.dtype),
     lambda a, b: tf.cast((a > 0) & (b > 0) | ~(a > 0.5), a.dtype), 2, smooth=False)

# ---------------------------------------------------------------------- products
both("product", torch.mul, tf.multiply, 2)
both("product, broadcast", lambda a, b: a[:, :, None] * b[:, None, :], lambda a, b: a[:, :, None] * b[:, None, :], 2)
both("product with itself", lambda x: x * x, lambda x: x * x)
both("three factors", lambda a, b, c: a * b * c, lambda a, b, c: a * b * c, 3)
both("complex product", lambda a, b: (lambda z: torch.cat([z.real, z.imag], 1))(torch.complex(a, b) * torch.complex(b, a + 1)),
     lambda a, b: (lambda z: tf.concat([math.real(z), math.imag(z)], 1))(tf.complex(a, b) * tf.complex(b, a + 1)), 2)
both("complex quotient", lambda a, b: (lambda z: torch.cat([z.real, z.imag], 1))(torch.complex(a, b) / torch.complex(b, a)),
     lambda a, b: (lambda z: tf.concat([math.real(z), math.imag(z)], 1))(tf.complex(a, b) / tf.complex(b, a)), 2, "positive")
both("quotient", torch.div, tf.divide, 2, "positive")
both("quotient of a constant", lambda x: 3 / x, lambda x: 3 / x, 1, "positive")
both("matmul", lambda a, b: boxes(a) @ b.reshape(-1, 3, 2), lambda a, b: boxes(a) @ tf.reshape(b, (-1, 3, 2)), 2)
both("matmul, transposed", lambda a, b: boxes(a) @ boxes(b).mT, lambda a, b: tf.matmul(boxes(a), boxes(b), transpose_b=True), 2)
both("einsum", lambda a, b: torch.einsum("nij,nkj->nik", boxes(a), boxes(b)),
     lambda a, b: tf.einsum("nij,nkj->nik", boxes(a), boxes(b)), 2)
both("cross", lambda a, b: torch.linalg.cross(a[:, :3], b[:, 3:]), lambda a, b: linalg.cross(a[:, :3], b[:, 3:]), 2)
both("squared difference", lambda a, b: F.mse_loss(a, b, reduction="none"), math.squared_difference, 2)
both("variance", lambda x: boxes(x).var(-1, unbiased=False), lambda x: math.reduce_variance(boxes(x), -1))
both("determinant", lambda x: torch.linalg.det(x[:, :4].reshape(-1, 2, 2))[:, None],
     lambda x: linalg.det(tf.reshape(x[:, :4], (-1, 2, 2)))[:, None])

# ---------------------------------------------------------------------- shapes and sums
both("transpose", lambda x: boxes(x).mT, lambda x: tf.transpose(boxes(x), (0, 2, 1)))
both("transpose, axes from behind", lambda x: boxes(x).permute(0, -1, 1),
     absent if tf.__version__.startswith("2.16.") else lambda x: tf.transpose(boxes(x), (0, -1, 1)))  # aborts there, by itself
both("running sum", lambda x: x.cumsum(1), lambda x: tf.cumsum(x, 1))
both("gather by rows", lambda x: x.gather(1, torch.tensor([[1, 2]]).expand(len(x), 2)),
     lambda x: tf.gather(x, tf.tile([[1, 2]], (tf.shape(x)[0], 1)), batch_dims=1))
both("fourier", lambda x: torch.fft.rfft(x).abs(), lambda x: math.abs(tf.signal.rfft(x)))

# ---------------------------------------------------------------------- choices and ids
both("where", lambda a, b: torch.where(a > b, a * 2, b.sin()), lambda a, b: tf.where(a > b, a * 2, tf.sin(b)), 2, smooth=False)
both("where with -inf, then softmax", lambda x: torch.where(x > -0.5, x, -np.inf).softmax(-1),
     lambda x: nn.softmax(tf.where(x > -0.5, x, -np.inf)), smooth=False)
both("where, undefined where not taken", lambda x: torch.where(x > 0, x.sqrt(), -(-x).sqrt()),
     lambda x: tf.where(x > 0, tf.sqrt(x), -tf.sqrt(-x)), smooth=False)
both("where, product undefined where not taken", lambda x: torch.where(x > 0, x * x.log(), 0.0),
     lambda x: tf.where(x > 0, x * tf.math.log(x), 0.0), smooth=False)
both("where, infinite where not taken", lambda x: torch.where(x > 0, 1 / x.relu() + x.relu().log(), x),
     lambda x: tf.where(x > 0, 1 / nn.relu(x) + math.log(nn.relu(x)), x), smooth=False)
both("where, beyond its domain where not taken",
     lambda x: torch.where(x > 1, x.acosh() + x.log1p(), x.asin() + x.atanh()).where(x > -1, x),
     lambda x: tf.where(x > -1, tf.where(x > 1, math.acosh(x) + math.log1p(x), math.asin(x) + math.atanh(x)), x), smooth=False)
both("log of 0 on both sides", lambda x: torch.cat([x.exp(), (x - 99).relu()], 1).log().sigmoid(),
     lambda x: nn.sigmoid(math.log(tf.concat([tf.exp(x), nn.relu(x - 99)], 1))), smooth=False)
both("one hot", lambda x: F.one_hot((x.abs() * 2).int().clip(0, 3).long(), 4).to(x.dtype),
     lambda x: tf.one_hot(tf.clip_by_value(tf.cast(tf.abs(x) * 2, tf.int32), 0, 3), 4, dtype=x.dtype), smooth=False)
both("table of constants", lambda x: F.embedding((x.abs() * 3).int().clip(0, 9).long(), torch.tensor(TABLE, dtype=x.dtype)),
     lambda x: tf.gather(tf.constant(TABLE, x.dtype), tf.clip_by_value(tf.cast(tf.abs(x) * 3, tf.int32), 0, 9)), smooth=False)

# ---------------------------------------------------------------------- along axes
both("softmax", lambda x: x.softmax(-1), nn.softmax)
both("log_softmax", lambda x: x.log_softmax(-1), nn.log_softmax)
both("softmax over another axis", lambda x: boxes(x).softmax(1), lambda x: nn.softmax(boxes(x), 1))
both("softmax, large", lambda x: (40 * x).softmax(-1), lambda x: nn.softmax(40 * x))
both("logsumexp", lambda x: x.logsumexp(-1, True), lambda x: tf.reduce_logsumexp(x, -1, keepdims=True), differs=COMPOSED)
both("max", lambda x: boxes(x).amax(1), lambda x: tf.reduce_max(boxes(x), 1))
both("max, ties", lambda x: x.relu().amax(1, True), lambda x: tf.reduce_max(nn.relu(x), 1, keepdims=True), smooth=False)
both("min, all axes", lambda x: boxes(x).amin((1, 2))[:, None], lambda x: tf.reduce_min(boxes(x), (1, 2))[:, None])
both("any, all", lambda x: torch.stack([(x > 0.3).any(1), (x > -1.2).all(1)], 1).to(x.dtype),
     lambda x: tf.cast(tf.stack([tf.reduce_any(x > 0.3, 1), tf.reduce_all(x > -1.2, 1)], 1), x.dtype), smooth=False)
both("product over an axis", lambda x: x.prod(-1, True), lambda x: tf.reduce_prod(x, -1, keepdims=True))
both("norm", lambda x: x.norm(dim=-1, keepdim=True), lambda x: tf.norm(x, axis=-1, keepdims=True))
both("norm, from 0", lambda x: (x - 1).relu().norm(dim=-1, keepdim=True),
     lambda x: tf.norm(nn.relu(x - 1), axis=-1, keepdims=True), smooth=False)
both("euclidean norm, from 0", lambda x: torch.linalg.vector_norm((x - 1).relu(), dim=-1, keepdim=True),
     lambda x: math.reduce_euclidean_norm(nn.relu(x - 1), -1, keepdims=True), smooth=False)
both("normalize", lambda x: F.normalize(x, eps=1e-6), lambda x: nn.l2_normalize(x, -1))
both("normalize, zeros and others", lambda x: F.normalize((x - 1).relu(), eps=1e-6),
     lambda x: nn.l2_normalize(nn.relu(x - 1), -1), smooth=False)
both("normalize, several axes", lambda x: F.normalize(boxes(x), 2, (1, 2)),
     of_keras("ops.normalize", (1, 2), of=boxes, epsilon=1e-12))
both("normalize, least norm", lambda x: F.normalize(boxes(x), dim=1, eps=1.5),
     of_keras("ops.normalize", 1, of=boxes, epsilon=1.5), smooth=False)
for _order in (1, 3):
    both(f"normalize, order {_order}, zeros and others", lambda x, _p=_order: F.normalize((x - 1).relu(), _p),
         of_keras("ops.normalize", -1, _order, of=lambda x: nn.relu(x - 1), epsilon=1e-12), smooth=False)
both("top three", lambda x: x.topk(3)[0], lambda x: nn.top_k(x, 3).values)
both("top one", lambda x: x.topk(1)[0], lambda x: nn.top_k(x, 1).values)
both("sorted", lambda x: x.sort(-1)[0], lambda x: tf.sort(x, -1))
both("running product", lambda x: x.cumprod(1), lambda x: math.cumprod(x, 1))
both("running logsumexp", lambda x: x.logcumsumexp(1), lambda x: math.cumulative_logsumexp(x, 1))

# ---------------------------------------------------------------------- images
both("max pool", lambda x: F.max_pool1d(boxes(x), 2, 1), lambda x: tf.transpose(
    nn.max_pool1d(tf.transpose(boxes(x), (0, 2, 1)), 2, 1, "VALID"), (0, 2, 1)))
both("max pool, ties", lambda x: F.max_pool1d(boxes(x.round()), 2, 1), lambda x: tf.transpose(
    nn.max_pool1d(tf.transpose(boxes(tf.round(x)), (0, 2, 1)), 2, 1, "VALID"), (0, 2, 1)), smooth=False)
both("average pool", lambda x: F.avg_pool1d(boxes(x), 2, 1), lambda x: tf.transpose(
    nn.avg_pool1d(tf.transpose(boxes(x), (0, 2, 1)), 2, 1, "VALID"), (0, 2, 1)))
