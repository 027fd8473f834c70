"""Functions written out in smaller ones, each of which has a rule.

They run while the tracer listens, so every call in them is an operation of the table; a ``primitive`` is an
operation of our own. Where the original takes arguments that do not change the value (``cudnn_enabled`` and such),
``*_`` takes them up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UnsupportedOperationError
from . import rules, secants
from .operations import ELEMENTWISE, INDEX, Operation, primitive


# ---------------------------------------------------------------------- primitives
@primitive(rules.quotient)
def quotient(a: Any, b: Any) -> Tensor:
    """First over second."""
    return a / b


@primitive(rules.ratio)
def over_norm(a: Tensor, norm: Tensor) -> Tensor:
    """Vectors over their norms."""
    return a / norm


@primitive(rules.select)
def select(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Take a where the condition holds, else b; the condition is the float carrier of a mask."""
    return torch.where(condition != 0, a, b)


@primitive(rules.lookup)
def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of a table."""
    return table[ids.long()]


@primitive(rules.logsumexp)
def logsumexp_last(z: Tensor) -> Tensor:
    """Over the last axis."""
    return z.logsumexp(-1)


@primitive(rules.log_softmax)
def log_softmax_last(z: Tensor) -> Tensor:
    """Over the last axis."""
    return torch.log_softmax(z, -1)


@primitive(rules.softmax)
def softmax_last(z: Tensor) -> Tensor:
    """Over the last axis."""
    return torch.softmax(z, -1)


@primitive(rules.greatest, keeps_memory=True)
def greatest(x: Tensor, positions: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Values at the positions of the greatest ones, along the last axis."""
    index = positions(x)
    return x.gather(-1, index), index


@primitive(rules.greatest)
def chosen(x: Tensor, positions: Callable[[Tensor], Tensor]) -> Tensor:
    """Only the positions; they are not to be used where they differ between example and reference."""
    return positions(x)


chosen.operation = Operation(INDEX)  # type: ignore[attr-defined]


# ---------------------------------------------------------------------- views
def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Consecutive parts, each a view of its own: torch forbids in-place code on parts that are made together."""
    size = tensor.shape[dim]
    if isinstance(split_size_or_sections, int):
        starts = list(range(0, size, max(split_size_or_sections, 1)))
        return _parts(tensor, [*starts, size], dim)
    return _parts(tensor, [0, *itertools.accumulate(split_size_or_sections)], dim)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """A number of equal parts."""
    return split(input, max(1, -(-input.shape[dim] // chunks)), dim)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Parts between positions, or a number of nearly equal parts."""
    size = input.shape[dim]
    if isinstance(indices_or_sections, int):
        small, larger = divmod(size, indices_or_sections)
        sizes = [small + (k < larger) for k in range(indices_or_sections)]
        return _parts(input, [0, *itertools.accumulate(sizes)], dim)
    within = [min(max(int(p) + (size if p < 0 else 0), 0), size) for p in indices_or_sections]
    return _parts(input, [0, *within, size], dim)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All slices along an axis."""
    return tuple(input.select(dim, k) for k in range(input.shape[dim]))


def _parts(tensor: Tensor, bounds: list[int], dim: int) -> tuple[Tensor, ...]:
    return tuple(tensor.narrow(dim, a, max(b - a, 0)) for a, b in itertools.pairwise(bounds))


# ---------------------------------------------------------------------- arithmetic
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """Quotient, rounded on request."""
    exact = quotient(input, other)
    return exact if rounding_mode is None else {"floor": torch.floor, "trunc": torch.trunc}[rounding_mode](exact)


def rdiv(input: Tensor, other: Any) -> Tensor:
    """The other over this one."""
    return div(other, input)


def floor_divide(input: Any, other: Any) -> Tensor:
    """Quotient rounded down."""
    return torch.floor(quotient(input, other))


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """A scaled quotient added."""
    return input + value * quotient(tensor1, tensor2)


@primitive(rules.rescale())
def _absolute(x: Tensor) -> Tensor:
    return x.abs()


def absolute(input: Tensor) -> Tensor:
    """|x|, of complex numbers too."""
    return hypot(input.real, input.imag) if input.is_complex() else _absolute(input)


def angle(input: Tensor) -> Tensor:
    """Phase of a complex number; 0 or pi for real ones."""
    if input.is_complex():
        return torch.atan2(input.imag, input.real)
    return (input < 0).to(input.dtype) * math.pi


@primitive(rules.rescale(secants.gelu))
def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x)


@primitive(rules.rescale(secants.gelu_tanh))
def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """Input times the normal distribution function, exactly or by its tanh approximation."""
    return _gelu(input) if approximate == "none" else _gelu_tanh(input)


def rremainder(input: Tensor, other: Any) -> Tensor:
    """What is left of the other over this one: the quotient's steps times this one."""
    return other - torch.floor(quotient(other, input)) * input


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Powers of x along a new last axis."""
    powers = torch.arange(len(x) if N is None else N, device=x.device)
    return x.unsqueeze(-1).pow(powers if increasing else powers.flip(0))


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """Root of the sum of two squares."""
    return torch.sqrt(input.square() + other.square())


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """Times a power of two."""
    return input * torch.exp2(other)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """First half times the sigmoid of the second."""
    a, b = input.chunk(2, dim)
    return a * torch.sigmoid(b)


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """Choice between two branches; the condition may depend on the input."""
    if input is None:
        return torch.nonzero(condition, as_tuple=True)
    if not getattr(condition, "_deepshap", None):
        return _where(condition, input, other)
    dtype = torch.result_type(input, other)
    branches = (torch.as_tensor(v, dtype=dtype, device=condition.device) for v in (input, other))
    return select(condition.to(torch.float64), *(_finite_branch(b, dtype) for b in branches))


@primitive(lambda step, m: step.shares(m, *_branches(step, m)))
def _where(condition: Tensor, a: Any, b: Any) -> Tensor:
    return torch.where(condition, a, b)


def _branches(step: Any, m: Tensor) -> tuple[Tensor, Tensor]:
    condition = step.arguments[0]
    return torch.where(condition, m, 0.0), torch.where(condition, 0.0, m)


def _finite_branch(value: Tensor, dtype: torch.dtype) -> Tensor:
    """-inf under an input-dependent mask becomes a number whose exponential is 0: a jump of infinity has no share."""
    if not dtype.is_floating_point or not bool(torch.isinf(value).any()):
        return value
    bound = 3e4 if dtype == torch.float16 else 1e9
    return value.clamp(-bound, bound)


def searchsorted(sorted_sequence: Tensor, input: Any, **options: Any) -> Tensor:
    """Where values fall between fixed bounds."""
    if sorted_sequence.grad_fn is not None:
        raise UnsupportedOperationError("searchsorted in bounds that depend on the input has no rule.")
    return _searchsorted(sorted_sequence, input, options)


@primitive(rules.rescale())
def _searchsorted(bounds: Tensor, values: Any, options: dict[str, Any]) -> Tensor:
    return torch.searchsorted(bounds, values, **options)


_searchsorted.operation = Operation(ELEMENTWISE, function=_searchsorted.operation.function)  # type: ignore[attr-defined]


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """Value where the mask holds."""
    return where(mask, value, input)


def scatter(input: Tensor, dim: int, index: Tensor, *args: Any, reduce: str | None = None, **kwargs: Any) -> Tensor:
    """Scattered values; only what the index covers of a source counts, which torch's gradient insists on."""
    source = _covered(kwargs.get("src", kwargs.get("value", args[0] if args else None)), index)
    if reduce == "multiply":
        raise UnsupportedOperationError("scatter with reduce='multiply' has no rule.")
    return torch.scatter(input, dim, index, source) if reduce is None else torch.scatter_add(input, dim, index, source)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Sums of scattered values."""
    return torch.scatter_add(input, dim, index, _covered(src, index))


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Sums and means of scattered values."""
    if reduce not in ("sum", "mean"):
        raise UnsupportedOperationError(f"scatter_reduce with reduce={reduce!r} has no rule; sum and mean have.")
    return torch.scatter_reduce(input, dim, index, _covered(src, index), reduce, include_self=include_self)


def _covered(source: Any, index: Tensor) -> Any:
    return source[tuple(slice(size) for size in index.shape)] if isinstance(source, Tensor) else source


def full_like(input: Tensor, fill_value: Any, **options: Any) -> Tensor:
    """A constant, or a value that depends on the input."""
    return torch.zeros_like(input, **options) + fill_value


def new_full(input: Tensor, size: Any, fill_value: Any, **options: Any) -> Tensor:
    """A constant, or a value that depends on the input."""
    return input.new_zeros(size, **options) + fill_value


def new_tensor(input: Tensor, data: Any, **options: Any) -> Tensor:
    """A copy of a tensor keeps its dependence on the input."""
    if isinstance(data, Tensor):
        return data.clone().to(options.get("dtype", data.dtype))
    return torch.tensor(data, **{"dtype": input.dtype, "device": input.device, **options})


# ---------------------------------------------------------------------- softmax and its kin
def _over_last(function: Callable[[Tensor], Tensor], input: Tensor, dim: int, dtype: torch.dtype | None) -> Tensor:
    input = input if dtype is None else input.to(dtype)
    return function(input.movedim(dim, -1)).movedim(-1, dim)


def _dim_and_dtype(input: Tensor, dim: int | None, rest: tuple[Any, ...], dtype: Any) -> tuple[int, Any]:
    if dim is None:
        dim = 0 if input.dim() in (0, 1, 3) else 1  # the choice that torch makes, with a warning
    found = [r for r in rest if isinstance(r, torch.dtype)]
    return dim, dtype or (found[0] if found else None)


def softmax(input: Tensor, dim: int | None = None, *rest: Any, dtype: Any = None, **_: Any) -> Tensor:
    """Exponential of log_softmax."""
    dim, dtype = _dim_and_dtype(input, dim, rest, dtype)
    return _over_last(softmax_last, input, dim, dtype)


def log_softmax(input: Tensor, dim: int | None = None, *rest: Any, dtype: Any = None, **_: Any) -> Tensor:
    """The input minus its logsumexp."""
    dim, dtype = _dim_and_dtype(input, dim, rest, dtype)
    return _over_last(log_softmax_last, input, dim, dtype)


def softmin(input: Tensor, dim: int | None = None, *rest: Any, dtype: Any = None, **_: Any) -> Tensor:
    """Softmax of the negative."""
    return softmax(-input, dim, *rest, dtype=dtype)


def logsumexp(input: Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Log of the sum of exponentials."""
    return _reduced(logsumexp_last, input, dim, keepdim)


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """Logsumexp of two."""
    return logsumexp_last(torch.stack(torch.broadcast_tensors(input, other), -1))


def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """Logsumexp of two, to base 2."""
    return logaddexp(input * math.log(2), other * math.log(2)) / math.log(2)


def _reduced(function: Callable[[Tensor], Tensor], input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Apply a function of the last axis over one axis, several, or all."""
    dims = _dims(input, dim)
    if not dims:
        return function(input.unsqueeze(-1))
    moved = input.movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims))
    result = function(moved)
    for axis in sorted(dims) if keepdim else ():
        result = result.unsqueeze(axis)
    return result


def _dims(input: Tensor, dim: Any) -> tuple[int, ...]:
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(input.dim()))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(d % max(input.dim(), 1) for d in dims) if input.dim() else ()


# ---------------------------------------------------------------------- extremes
def _argmax_last(x: Tensor) -> Tensor:
    return x.argmax(-1, keepdim=True)


def _greatest_last(x: Tensor) -> Tensor:
    return greatest(x, _argmax_last).squeeze(-1)


def amax(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Greatest value over axes."""
    return _reduced(_greatest_last, input, dim, keepdim)


def amin(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Least value over axes."""
    return -amax(-input, dim, keepdim)


def maximum_of(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """torch.max in its three forms: of all, over an axis (with positions), of two tensors."""
    return _extreme(amax, torch.argmax, torch.maximum, torch.return_types.max, input, dim, keepdim, other)


def minimum_of(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """torch.min in its three forms."""
    return _extreme(amin, torch.argmin, torch.minimum, torch.return_types.min, input, dim, keepdim, other)


def _extreme(over: Any, arg: Any, of_two: Any, form: Any, input: Any, dim: Any, keepdim: bool, other: Any) -> Any:
    other = dim if isinstance(dim, Tensor) else other
    if other is not None:
        return of_two(input, other)
    if dim is None:
        return over(input)
    return form((over(input, dim, keepdim), arg(input, dim, keepdim)))


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """Least and greatest value."""
    return torch.return_types.aminmax((amin(input, dim, keepdim), amax(input, dim, keepdim)))


def any_of(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether any condition holds: the greatest of them."""
    return amax((input != 0).to(torch.float64), dim, keepdim).to(torch.bool)


def all_of(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether all conditions hold: the least of them."""
    return amin((input != 0).to(torch.float64), dim, keepdim).to(torch.bool)


def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """Number of values that are not 0."""
    return (input != 0).sum(_dims(input, dim))


def max_pool(spatial: int, adaptive: bool = False) -> Callable[..., Any]:
    """Build the max pooling over one, two or three axes, with cross-max in every window."""
    native = getattr(F, f"adaptive_max_pool{spatial}d" if adaptive else f"max_pool{spatial}d")

    def pool(input: Tensor, *args: Any, return_indices: bool = False, **kwargs: Any) -> Any:
        shape = tuple(input.shape[-spatial:])
        windows: list[tuple[int, ...]] = []

        def positions(flat: Tensor) -> Tensor:
            _, index = native(flat.unflatten(-1, shape), *args, return_indices=True, **kwargs)
            windows.append(tuple(index.shape[-spatial:]))
            return index.flatten(-spatial)

        flat = input.flatten(-spatial)
        values = greatest(flat, positions)
        values = values.unflatten(-1, windows[0])
        if not return_indices:
            return values
        return values, chosen(flat, positions).unflatten(-1, windows[0])

    return pool


# ---------------------------------------------------------------------- order
@primitive(rules.ordered)
def ordered(x: Tensor) -> Tensor:
    """Ascending along the last axis."""
    return x.sort(-1)[0]


def _ordered(input: Tensor, dim: int, descending: bool = False) -> tuple[Tensor, Tensor]:
    """Sorted values and their positions, along the last axis."""
    last = input.movedim(dim, -1) if input.dim() else input.unsqueeze(0)
    values = -ordered(-last) if descending else ordered(last)
    return values, chosen(last, lambda x: torch.argsort(x, dim=-1, descending=descending, stable=True))


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """Sorted values and positions."""
    values, index = _ordered(input, dim, descending)
    return torch.return_types.sort((values.movedim(-1, dim), index.movedim(-1, dim)))


def msort(input: Tensor) -> Tensor:
    """Sorted along the first axis."""
    return sort(input, 0)[0]


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k greatest (or least) values, in order."""
    if k == 1:
        return torch.return_types.topk((maximum_of if largest else minimum_of)(input, dim, True))
    values, index = _ordered(input, dim, descending=largest)
    return torch.return_types.topk((values[..., :k].movedim(-1, dim), index[..., :k].movedim(-1, dim)))


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th least value."""
    values, index = _ordered(input, dim)
    pair = [v[..., k - 1 : k].movedim(-1, dim) for v in (values, index)]
    value, index = pair if keepdim else (v.squeeze(dim) for v in pair)
    return torch.return_types.kthvalue((value, index))


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median."""
    if dim is None:
        return kthvalue(input.flatten(), (input.numel() + 1) // 2)[0]
    return torch.return_types.median(kthvalue(input, (input.shape[dim] + 1) // 2, dim, keepdim))


def quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """Quantiles of the sorted values."""
    flat = input.flatten() if dim is None else input.movedim(dim, -1)
    values, _ = _ordered(flat, -1)
    q = torch.as_tensor(q, dtype=input.dtype, device=input.device)
    place = q.reshape(-1) * (values.shape[-1] - 1)
    below, above = values[..., place.floor().long()], values[..., place.ceil().long()]
    weight = {
        "linear": place - place.floor(),
        "lower": torch.zeros_like(place),
        "higher": torch.ones_like(place),
        "midpoint": torch.full_like(place, 0.5),
        "nearest": (place - place.floor()).round(),
    }[interpolation]
    result = (below + (above - below) * weight).movedim(-1, 0)
    if keepdim:
        result = result.unsqueeze(1 + dim % input.dim()) if dim is not None else result.reshape(-1, *[1] * input.dim())
    return result if q.dim() else result[0]


# ---------------------------------------------------------------------- cumulative and products
def _scan(combine: Callable[[Tensor, Tensor], Tensor], input: Tensor, dim: int) -> Tensor:
    slices = list(input.unbind(dim))
    for k in range(1, len(slices)):
        slices[k] = combine(slices[k - 1], slices[k])
    return torch.stack(slices, dim)


def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running product, one half-split after the other."""
    return _scan(torch.mul, input if dtype is None else input.to(dtype), dim)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """Running logsumexp."""
    return _scan(logaddexp, input, dim)


def cummax(input: Tensor, dim: int) -> Any:
    """Running maximum."""
    index = chosen(input, lambda x: torch.cummax(x, dim)[1])
    return torch.return_types.cummax((_scan(torch.maximum, input, dim), index))


def cummin(input: Tensor, dim: int) -> Any:
    """Running minimum."""
    index = chosen(input, lambda x: torch.cummin(x, dim)[1])
    return torch.return_types.cummin((_scan(torch.minimum, input, dim), index))


@primitive(rules.polynomial)
def product_last(x: Tensor) -> Tensor:
    """Product over the last axis."""
    return x.prod(-1)


def prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Product over an axis."""
    return _reduced(product_last, input if dtype is None else input.to(dtype), dim, keepdim)


# ---------------------------------------------------------------------- norms and distances
def std(*args: Any, **kwargs: Any) -> Tensor:
    """Square root of the variance."""
    return torch.sqrt(torch.var(*args, **kwargs))


def std_mean(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean."""
    variance, mean = torch.var_mean(*args, **kwargs)
    return torch.sqrt(variance), mean


def vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: None = None
) -> Tensor:
    """The p-norm, for any p."""
    x = x if dtype is None else x.to(dtype)
    dims, ord = _dims(x, dim), float(ord)
    if ord == 2:
        return torch.sqrt(x.square().sum(dims, keepdim))
    if ord == 1:
        return x.abs().sum(dims, keepdim)
    if math.isinf(ord):
        return (amax if ord > 0 else amin)(x.abs(), dims, keepdim)
    if ord == 0:
        return (x != 0).to(x.dtype).sum(dims, keepdim)
    return x.abs().pow(ord).sum(dims, keepdim).pow(1 / ord)


def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor:
    """torch.norm and torch.linalg.norm of vectors, and the Frobenius norm."""
    p = kwargs.pop("ord", p)
    if p in (None, "fro"):
        p = 2
    elif isinstance(p, str) or (not isinstance(dim, int) and len(_dims(input, dim)) == 2 and p != 2):
        raise UnsupportedOperationError(f"norm of order {p!r} over {dim}: only vector and Frobenius norms have a rule")
    return vector_norm(input, p, dim, keepdim, **kwargs)


def matrix_norm(
    input: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None, out: None = None
) -> Tensor:
    """The Frobenius norm."""
    return norm(input, ord if ord == "fro" else str(ord), dim, keepdim, dtype=dtype)


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
    """Input over its norm."""
    return over_norm(input, vector_norm(input, p, dim, True).clamp_min(eps))


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Product of the two directions."""
    x1, x2 = torch.broadcast_tensors(x1, x2)
    return (normalize(x1, 2, dim, eps) * normalize(x2, 2, dim, eps)).sum(dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """Norm of the difference."""
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, *_: Any, **__: Any) -> Tensor:
    """All distances between two sets of vectors."""
    return vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """Norm of the difference of two tensors."""
    return vector_norm(input - other, p)


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Scale down the slices whose norm is above the bound."""
    dims = tuple(d for d in range(input.dim()) if d != dim % input.dim())
    size = vector_norm(input, p, dims, True)
    return input * where(size > maxnorm, maxnorm / (size + 1e-7), torch.ones_like(size))


def _standardised(input: Tensor, dims: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = input.mean(dims, keepdim=True)
    centred = input - mean
    scale = torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)
    return centred * scale, mean, scale


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _per_channel(parameter: Any, like: Tensor) -> Any:
    return None if parameter is None else parameter.reshape(1, -1, *[1] * (like.dim() - 2))


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    """Mean, variance, rsqrt and product over the last axes."""
    return native_layer_norm(input, normalized_shape, weight, bias, eps)[0]


def native_layer_norm(input: Tensor, normalized_shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    """layer_norm with its statistics."""
    x, mean, scale = _standardised(input, tuple(range(-len(normalized_shape), 0)), eps)
    return _affine(x, weight, bias), mean, scale


def rms_norm(input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    """Input over its root mean square."""
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    dims = tuple(range(-len(normalized_shape), 0))
    return _affine(input * torch.rsqrt(input.square().mean(dims, keepdim=True) + eps), weight, None)


def group_norm(
    input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    """Standardised over groups of channels."""
    grouped = input.unflatten(1, (num_groups, -1)).flatten(2)
    x = _standardised(grouped, (2,), eps)[0]
    x = x.reshape(input.shape)
    return _affine(x, _per_channel(weight, input), _per_channel(bias, input))


def instance_norm(
    input: Tensor,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Standardised over space, per row and channel."""
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    x = _standardised(input, tuple(range(2, input.dim())), eps)[0]
    return _affine(x, _per_channel(weight, input), _per_channel(bias, input))


def batch_norm(
    input: Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Affine with the running statistics; with those of the batch where the model asks for it."""
    if training or running_mean is None:
        standardised = _standardised(input, (0, *range(2, input.dim())), eps)[0]
        return _affine(standardised, _per_channel(weight, input), _per_channel(bias, input))
    mean, scale = _per_channel(running_mean, input), _per_channel(torch.rsqrt(running_var + eps), input)
    x = _affine(input - mean, scale, None)
    return _affine(x, _per_channel(weight, input), _per_channel(bias, input))


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Input over a power of the mean square of neighbouring channels."""
    flat = input.square().flatten(2).unsqueeze(1)
    padded = F.pad(flat, (0, 0, size // 2, (size - 1) // 2))
    mean = F.avg_pool2d(padded, (size, 1), stride=1).squeeze(1).reshape(input.shape)
    return input / (mean * alpha + k).pow(beta)


def lp_pool(spatial: int) -> Callable[..., Tensor]:
    """Build the power-average pooling, for even or positive input as torch defines it."""

    def pool(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
        average = getattr(F, f"avg_pool{spatial}d")
        count = kernel_size**spatial if isinstance(kernel_size, int) else math.prod(kernel_size)
        mean = average(input.pow(norm_type), kernel_size, stride, 0, ceil_mode)
        return (torch.sign(mean) * torch.relu(torch.abs(mean))).mul(count).pow(1.0 / norm_type)

    return pool


def det(input: Tensor) -> Tensor:
    """Determinant: a polynomial of the matrix's size."""
    return _determinant(input)


@primitive(rules.polynomial)
def _determinant(input: Tensor) -> Tensor:
    return torch.linalg.det(input)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """relu(x) plus weight times the negative part, the weight per channel."""
    weight = weight.reshape(1, -1, *[1] * (input.dim() - 2)) if weight.numel() > 1 else weight.reshape(())
    positive = torch.relu(input)
    return positive + weight * (input - positive)


def rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """Leaky ReLU with the mean slope; random in training."""
    if training:
        raise UnsupportedOperationError("rrelu in training mode is random: put the model into eval mode.")
    return F.leaky_relu(input, (lower + upper) / 2)


# ---------------------------------------------------------------------- losses
def pointwise_loss(native: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Build a loss of two tensors: elementwise, then reduced."""

    @primitive(rules.rescale())
    def pointwise(input: Tensor, target: Tensor, options: dict[str, Any]) -> Tensor:
        return native(input, target, reduction="none", **options)

    def loss(input: Tensor, target: Tensor, *args: Any, reduction: str = "mean", **options: Any) -> Tensor:
        if args:
            options["weight"] = args[0]
        values = pointwise(*torch.broadcast_tensors(input, target), options)
        return _reduce_loss(values, reduction)

    return loss


def _reduce_loss(values: Tensor, reduction: str) -> Tensor:
    if reduction == "batchmean":
        return values.sum() / len(values)
    return values if reduction == "none" else getattr(values, reduction)()


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of logits: linear in their log-softmax."""
    classes = 0 if input.dim() == 1 else 1
    log_probabilities = F.log_softmax(input, classes)
    if not target.is_floating_point() and not label_smoothing:
        return F.nll_loss(log_probabilities, target, weight, ignore_index=ignore_index, reduction=reduction)
    if weight is not None:
        raise UnsupportedOperationError("cross_entropy with class weights needs class indices and no label smoothing.")
    if not target.is_floating_point():
        target = F.one_hot(target, input.shape[classes]).movedim(-1, classes).to(input.dtype)
    target = target * (1 - label_smoothing) + label_smoothing / input.shape[classes]
    return _reduce_loss(-(target * log_probabilities).sum(classes), reduction)


# ---------------------------------------------------------------------- embedding and attention
def embedding(input: Tensor, weight: Tensor, *_: Any, **__: Any) -> Tensor:
    """Rows of the table; ``F.embedding(ids, weight)`` and ``torch.embedding(weight, ids)`` alike."""
    ids, table = (weight, input) if input.is_floating_point() else (input, weight)
    return lookup(table, ids)


def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """Rows of the identity; the number of classes must be given, since it must not depend on the input."""
    if num_classes < 0:
        raise UnsupportedOperationError("one_hot of the explained ids needs num_classes: give it in the model.")
    return lookup(torch.eye(num_classes, dtype=torch.float64, device=input.device), input).to(torch.int64)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Any = None,
    max_norm: Any = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sum, mean or maximum of the rows of each bag."""
    if offsets is not None or (mode == "max" and padding_idx is not None):
        raise UnsupportedOperationError("embedding_bag: pass ids (rows, bag size), and no padding_idx with mode 'max'.")
    rows = embedding(input, weight)
    if mode == "max":
        return amax(rows, -2)
    counted = torch.ones_like(rows[..., 0])
    if padding_idx is not None:
        counted = (input != padding_idx).to(rows.dtype)
    weights = counted if per_sample_weights is None else counted * per_sample_weights
    total = (rows * weights.unsqueeze(-1)).sum(-2)
    return total if mode == "sum" else quotient(total, counted.sum(-1, keepdim=True).clamp_min(1))


def grid_sample(input: Tensor, grid: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Interpolated at fixed points."""
    if grid.grad_fn is not None:
        raise UnsupportedOperationError("grid_sample at points that depend on the input has no exact rule.")
    return _grid_sample(input, grid, *args, **kwargs)


@primitive(rules.along_segment(nodes=1))
def _grid_sample(input: Tensor, grid: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return F.grid_sample(input, grid, *args, **kwargs)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    **_: Any,
) -> Tensor:
    """softmax(q k^T scale + mask) v."""
    if dropout_p:
        raise UnsupportedOperationError("attention dropout is random: pass dropout_p=0 when the model is evaluated.")
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    scores = torch.matmul(query, key.mT) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = torch.masked_fill(scores, future, -math.inf)
    return torch.matmul(torch.softmax(_masked(scores, attn_mask, keep=True), -1), value)


def _masked(scores: Tensor, mask: Tensor | None, keep: bool) -> Tensor:
    """Add a float mask, or fill with -inf where a boolean one does not keep (or does hide)."""
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        return torch.masked_fill(scores, ~mask if keep else mask, -math.inf)
    return scores + mask


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention, time first: query (T, N, E), key and value (S, N, E)."""
    if training and dropout_p:
        raise UnsupportedOperationError("attention dropout is random: put the model into eval mode.")
    if query.dim() == 2:
        raise UnsupportedOperationError("attention on an unbatched sequence mixes the rows; give it a batch axis.")
    steps, rows, embed = query.shape
    weights = (
        (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else in_proj_weight.chunk(3)  # type: ignore[union-attr]
    )
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (F.linear(s, w, b) for s, w, b in zip((query, key, value), weights, biases, strict=True))
    if bias_k is not None and bias_v is not None:
        k, v = (torch.cat([t, b.repeat(1, rows, 1)]) for t, b in ((k, bias_k), (v, bias_v)))
    q, k, v = (t.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3) for t in (q, k, v))  # (N, heads, T, E / heads)
    k, v = k if static_k is None else static_k, v if static_v is None else static_v
    if add_zero_attn:
        k, v = (torch.cat([t, torch.zeros_like(t[..., :1, :])], -2) for t in (k, v))
    scores = torch.matmul(q, k.mT) * (q.shape[-1] ** -0.5)
    if attn_mask is not None:
        attn_mask = attn_mask.unflatten(0, (rows, num_heads)) if attn_mask.dim() == 3 else attn_mask
        scores = _masked(scores, _widened(attn_mask, scores.shape[-1]), keep=False)
    if key_padding_mask is not None:
        scores = _masked(scores, _widened(key_padding_mask, scores.shape[-1])[:, None, None, :], keep=False)
    attention = torch.softmax(scores, -1)
    mixed = torch.matmul(attention, v).permute(2, 0, 1, 3).reshape(steps, rows, embed)
    output = F.linear(mixed, out_proj_weight, out_proj_bias)
    if not need_weights:
        return output, None
    return output, attention.mean(1) if average_attn_weights else attention


def _widened(mask: Tensor, width: int) -> Tensor:
    """Columns for the appended bias and zero positions are never masked."""
    return F.pad(mask, (0, width - mask.shape[-1])) if mask.shape[-1] < width else mask
