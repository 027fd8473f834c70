"""One canonical name for every spelling of a torch function.

``torch.tanh``, ``Tensor.tanh_``, ``F.tanh`` and ``torch.ops.aten.tanh.default`` are one operation, ``tanh``.
Functions are recognised by identity, so that somebody's own function called ``tanh`` is not taken for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import BuiltinFunctionType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from ._compat import FUNCTION_MODULES

OpOverload, OpOverloadPacket = type(torch.ops.aten.add.Tensor), type(torch.ops.aten.add)


class Spelling(NamedTuple):
    """The canonical name of a function, and whether this spelling works in place."""

    name: str
    inplace: bool = False


_NAMESPACES = [
    *FUNCTION_MODULES,
    torch,
    torch.functional,
    torch.linalg,
    torch.special,
    torch.fft,
    F,
    torch.Tensor,
]
_PREFIXES = ("special_", "linalg_", "fft_")
_OPERATORS = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "matmul",
    "mod",
    "pow",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
]
_ALIASES = {
    "truediv": "div",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "__invert__": "bitwise_not",
    "__neg__": "neg",
    "__pos__": "positive",
    "__abs__": "abs",
    "__eq__": "eq",
    "__ne__": "ne",
    "__lt__": "lt",
    "__le__": "le",
    "__gt__": "gt",
    "__ge__": "ge",
    "__rdiv__": "rdiv",
    "__rtruediv__": "rdiv",
    "__rmatmul__": "rmatmul",
    "__rfloordiv__": "rfloor_divide",
    "__rmod__": "rremainder",
    "__rsub__": "rsub",
    "__rpow__": "rpow",
    "__idiv__": "div",
    "__div__": "div",
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
    "not_equal": "ne",
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "clip": "clamp",
    "divide": "div",
    "true_divide": "div",
    "multiply": "mul",
    "subtract": "sub",
    "negative": "neg",
    "fix": "trunc",
    "sgn": "sign",
    "concat": "cat",
    "concatenate": "cat",
    "row_stack": "vstack",
    "expit": "sigmoid",
    "swish": "silu",
    "psi": "digamma",
    "gammaln": "lgamma",
    "moveaxis": "movedim",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "ger": "outer",
    "trapz": "trapezoid",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "_unsafe_view": "view",
    "upsample_nearest": "interpolate",
    "upsample_bilinear": "interpolate",
    "upsample": "interpolate",
    "matrix_transpose": "mT",
    "spmm": "mm",
    "dsmm": "mm",
    "hsmm": "mm",
    "saddmm": "addmm",
    "inverse": "inv",
    "pinverse": "pinv",
}

# Operations whose aten signature differs from that of torch.nn.functional: "aten.NAME" in the table, see composites/aten.py.
ATEN = frozenset(
    {
        "batch_norm",
        "instance_norm",
        "native_batch_norm",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "native_group_norm",
        "_fused_rms_norm",
        "_weight_norm_interface",
        "max_pool1d_with_indices",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
        "adaptive_max_pool1d_with_indices",
        "adaptive_max_pool2d_with_indices",
        "adaptive_max_pool3d_with_indices",
        "max_unpool2d",
        "max_unpool3d",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "kl_div",
        "soft_margin_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "cross_entropy_loss",
        "nll_loss",
        "nll_loss_nd",
        "nll_loss2d",
        "nll_loss_forward",
        "nll_loss2d_forward",
        "grid_sampler",
        "grid_sampler_2d",
        "grid_sampler_3d",
        "_trilinear",
        "copy",
        "rrelu_with_noise",
        "rrelu_with_noise_functional",
        "log_sigmoid_forward",
        "_cdist_forward",
        "_euclidean_dist",
        "_pdist_forward",
    }
)


def _canonical(name: str) -> Spelling:
    if name.startswith("__") and name.endswith("__"):
        inner = name[2:-2]
        if name in _ALIASES:
            return Spelling(_ALIASES[name])
        if inner in _OPERATORS:
            return Spelling(_ALIASES.get(inner, inner))
        if inner[:1] in "ri" and inner[1:] in _OPERATORS:
            return Spelling(_ALIASES.get(inner[1:], inner[1:]), inplace=inner[0] == "i")
        return Spelling(name)
    if name == "requires_grad_":  # not the property in place, but a call
        return Spelling(name)
    inplace = name.endswith("_") and not name.endswith("__")
    name = name.rstrip("_") if inplace else name
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return Spelling(_ALIASES.get(name, name), inplace)


def _of_aten(spelling: Spelling) -> Spelling:
    is_aten = spelling.name in ATEN and not spelling.inplace
    return spelling._replace(name=f"aten.{spelling.name}") if is_aten else spelling


def _spellings() -> dict[Any, Spelling]:
    spellings: dict[Any, Spelling] = {}
    for namespace in _NAMESPACES:
        for name in dir(namespace):
            function = getattr(namespace, name, None)
            if callable(function) and not isinstance(function, type):
                spelling = _canonical(name)
                builtin = isinstance(function, BuiltinFunctionType) or name.endswith("_with_indices")
                spellings[function] = _of_aten(spelling) if namespace is not torch.Tensor and builtin else spelling
    for name in dir(torch.Tensor):
        descriptor: Any = getattr(torch.Tensor, name, None)
        if hasattr(descriptor, "__get__") and not callable(descriptor):
            spellings[descriptor.__get__] = _canonical(name)
            if hasattr(descriptor, "__set__"):
                spellings[descriptor.__set__] = Spelling(f"{name}.__set__")
    return spellings


_SPELLINGS = _spellings()
_SPELLINGS.update({torch.sparse.mm: Spelling("sparse.mm"), torch.sparse.addmm: Spelling("sparse.addmm")})
_SPELLINGS[torch.Tensor.where] = Spelling("Tensor.where")  # the condition is its second argument


def key(function: Any) -> Any:
    """Return the key of a function's rule: the canonical name for torch's functions, else the function or operator."""
    spelling = resolve(function)
    if spelling is not None:
        return spelling.name
    return function.overloadpacket if isinstance(function, OpOverload) else function


def resolve(function: Callable[..., Any]) -> Spelling | None:
    """Return the canonical spelling of a torch function, or None when it is not one of torch's."""
    try:
        spelling = _SPELLINGS.get(function)
    except TypeError:  # unhashable callables are not torch's
        return None
    if spelling is None and isinstance(function, OpOverload):
        return _overload(*function.name().split("::"))
    if spelling is None and isinstance(function, OpOverloadPacket):
        return _overload(*str(function).split("."))
    return spelling


@cache
def _overload(namespace: str, name: str) -> Spelling | None:
    if namespace != "aten":
        return None
    return _of_aten(_canonical(name.partition(".")[0]))


@cache
def functional(name: str) -> Callable[..., Any]:
    """Return the out-of-place function behind a canonical name, for an in-place spelling of it."""
    for namespace in (torch, F, torch.Tensor, torch.special, torch.linalg):
        function = getattr(namespace, name, None)
        if function is not None:
            return function
    raise LookupError(name)
