"""Adjoints of several operations at once: attention, and convolutions with their padding and blocks.

Both are recognised by their last operation, while the tape is recorded, and return multipliers of their first operands.
Rules are linear in multipliers. So the multiplier of the last result can pass at once to the first operands, whoever
else uses the values between them: those multipliers pass through the single operations.

Attention is softmax(scale q k^T + mask) v; one kernel computes the multipliers of q, k and v. The adjoint of a
convolution is a convolution with the filters reversed. The padding of that one replaces what was padded and cut, and its
dilation replaces blocks, so that multipliers of all pairs are laid out only once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import tensorflow as tf

from ...formulas import rules
from ...kernels import jit_threshold
from . import adjoints, kernel_dispatch
from .adjoints import Margins
from .pairing import OperationRecord, Value

SCORES = 1_000_000  # that pairs have at once where rules run one after the other
FEWEST_QUERIES = 8  # at once; with less, larger products in several passes are quicker
WANTED = "nhti", "nhsi", "nhws", "nhts"  # how the kernel takes queries, keys, values, and scores and weights
MADE = "bnhti", "bnhsi", "bnhsw"  # and what it makes; b are the references


@dataclass(frozen=True)
class Attention:
    """Queries, keys and values, scores as softmax gets them, and weights.

    ``names`` are the axes of the first four and of the result: rows n, heads h (if there are any), queries t, keys s, and the
    axes i and w, which the products sum over or keep.
    """

    operands: tuple[Value, Value, Value]
    scores: Value
    weights: Value
    scale: float
    names: tuple[str, ...]

    def fits(self, product: Value, result: Value) -> bool:
        """Return whether all values have the rows first, and sizes that are known and equal for equal names."""
        values = *self.operands, self.scores, result, product, self.weights
        sizes: dict[str, int] = {}
        for value, name in zip(values, (*self.names, *[self.names[3]] * 2), strict=True):
            shape = kernel_dispatch.row_shape(value)
            if len(shape) != len(name) or value.x.dtype != result.x.dtype:
                return False
            for axis, size in zip(name, shape, strict=True):
                if size is None or sizes.setdefault(axis, size) != size:
                    return False
        return True

    def pull(self, m: Any) -> list[Any]:
        """Return the multipliers of the operands, from that of the result."""
        values = *self.operands, self.scores, self.weights
        sides = [side for v in values for side in (v.x, v.r)]
        sides += [tf.reduce_logsumexp(side, -1) for side in (self.scores.x, self.scores.r)]
        run = _rule(self.names, self.scale)
        multipliers = tf.numpy_function(run, [m, *sides], [m.dtype] * 3, stateful=False)
        return [tf.ensure_shape(g, [None, *v.x.shape[1:]]) for g, v in zip(multipliers, self.operands, strict=True)]


# ---------------------------------------------------------------------- in the graph
def match_attention(record: OperationRecord, makers: Mapping[Value, OperationRecord]) -> Attention | None:
    """Return the attention that a record ends, or None; ``makers`` are the records with rules of the table, by results."""
    weights = next((v for v in record.operands if v in makers and makers[v].name == "Softmax"), None)
    if weights is None or not kernel_dispatch.has_kernels(weights.x.dtype):
        return None
    scores = makers[weights].operands[0]
    product, scale = _scores_product(scores, makers)
    first, last = _axis_names(product), _axis_names(record)
    if product is None or first is None or last is None:
        return None
    *factors, z = first
    (q_name, q), (k_name, k) = sorted(
        zip(factors, product.operands, strict=True), key=lambda factor: z[-1] in factor[0]
    )
    *factors, y = last
    (p_name, _), (v_name, v) = sorted(
        zip(factors, record.operands, strict=True), key=lambda factor: factor[1] is not weights
    )
    names = _canonical_names(q_name, k_name, z, p_name, v_name, y)
    attention = Attention((q, k, v), scores, weights, scale, names)
    return attention if names and attention.fits(product.results[0], record.results[0]) else None


def _scores_product(scores: Value, makers: Mapping[Value, OperationRecord]) -> tuple[OperationRecord | None, float]:
    """Return the product before masks were added to scores and numbers multiplied them, and these numbers' product."""
    scale = 1.0
    while (step := makers.get(scores)) is not None and step.name in ("Mul", "AddV2") and sum(step.varying) == 1:
        at = step.varying.index(True)
        if step.name == "Mul":
            factor = step.static(1 - at)
            if factor is None or factor.size != 1:
                return None, scale
            scale *= float(factor.item())
        scores = step.operands[at]
    return step, scale


def _axis_names(record: OperationRecord | None) -> list[str] | None:
    """Return names of the axes of two factors that vary, and of their product."""
    if record is None or record.varying != (True, True):
        return None
    if record.name == "Einsum":
        equation = record.op.get_attr("equation").decode()
        return None if "." in equation else equation.replace("->", ",").split(",")
    rank = record.results[0].x.shape.rank or 0
    if record.name != "BatchMatMulV2" or rank not in (3, 4):
        return None
    batch, turned = "nh"[: rank - 2], [record.op.get_attr(side) for side in ("adj_x", "adj_y")]
    return [batch + ("ia" if turned[0] else "ai"), batch + ("bi" if turned[1] else "ib"), batch + "ab"]


def _canonical_names(q: str, k: str, z: str, p: str, v: str, y: str) -> tuple[str, ...]:
    """Return the names of ``Attention``, from those of two products; nothing if these are other products."""

    def alone(names: str, others: str) -> str:
        return "".join(c for c in names if c not in others)

    queries, inner, width = alone(q, k), alone(q, z), alone(v, p)
    heads = alone(z[1:-1], queries)
    letters = dict(zip(z[:1] + heads + queries + z[-1:] + inner, "n" + "h" * len(heads) + "tsi", strict=False))
    scores = ["".join(letters.get(c, "?") for c in name) for name in (q, k, z)]
    letters = dict(zip(p + width, scores[2] + "w", strict=False))
    values = ["".join(letters.get(c, "?") for c in name) for name in (v, y)]
    renamed = *scores[:2], values[0], scores[2], values[1]
    wanted = [alone(name, "" if heads else "h") for name in (*WANTED, "nhtw")]
    return renamed if [*map(sorted, renamed)] == [*map(sorted, wanted)] else ()


# ---------------------------------------------------------------------- when it runs
@cache
def _rule(names: tuple[str, ...], scale: float) -> Callable[..., list[np.ndarray]]:
    """Return the rule for arrays whose axes have these names; TensorFlow stores it for ever."""
    *of_operands, z, y = names

    def run(m: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
        of_sides = [name for name in (*of_operands, z, z) for _ in "xr"]
        wanted = [name for name in (*WANTED, WANTED[3]) for _ in "xr"]
        sides = [np.ascontiguousarray(_transpose_to(*v)) for v in zip(arrays, of_sides, wanted, strict=False)]
        sides += [np.ascontiguousarray(_transpose_to(total, z[:-1], "nht")) for total in arrays[-2:]]
        n, b = len(arrays[0]), len(arrays[1])
        grid = _transpose_to(m.reshape(n, b, *m.shape[1:]), "nb" + y[1:], "bnhtw")
        multipliers = _by_kernel(grid, sides, scale, of_operands)
        multipliers = _by_formulas(grid, sides, scale) if multipliers is None else multipliers
        flat = [_transpose_to(v, w, "nb" + name[1:]) for v, w, name in zip(multipliers, MADE, of_operands, strict=True)]
        return [np.ascontiguousarray(v).reshape(n * b, *v.shape[2:]) for v in flat]

    return run


def _transpose_to(array: np.ndarray, names: str, wanted: str) -> np.ndarray:
    """Return an array with its axes in another order; a single head has no axis if its name is missing."""
    if "h" in wanted and "h" not in names:
        array, names = array[None], "h" + names
    if "h" in names and "h" not in wanted:
        array, names = array.squeeze(names.index("h")), names.replace("h", "")
    return array.transpose([names.index(k) for k in wanted])


def _by_kernel(
    m: np.ndarray, sides: Sequence[np.ndarray], scale: float, names: Sequence[str]
) -> list[np.ndarray] | None:
    """Return multipliers of queries, keys and values, in the memory order of these; None if there is too little work."""
    b, n, heads, queries, width = m.shape
    keys, inner = sides[2].shape[-2:]
    pairs = b * n * heads * queries * keys
    if not (
        kernel_dispatch.is_unmasked(*sides[6:8], *sides[10:])
        and jit_threshold.PAIRS.reached(("attention", m.dtype), pairs)
    ):
        return None
    from ...kernels import attention

    at_once = attention.queries_at_once(queries, keys, max(inner, width))
    if not kernel_dispatch.is_compiled() or at_once < min(queries, FEWEST_QUERIES):
        return None
    sizes = {"b": b, "n": n, "h": heads, "t": queries, "s": keys, "i": inner, "w": width}
    multipliers = [_allocate(name, produced, sizes, m.dtype) for name, produced in zip(names, MADE, strict=True)]
    locations = [part for v in multipliers for part in _flat_and_strides(v)]
    kernel, number = attention.kernel_of(m.dtype), m.dtype.type
    kernel_dispatch.in_blocks(
        partial(kernel, *_flat_and_strides(m), *sides, *locations, 1, number(scale), at_once), b, m.size
    )
    return multipliers


def _allocate(name: str, wanted: str, sizes: Mapping[str, int], dtype: Any) -> np.ndarray:
    """Allocate multipliers in the memory order of a value, but with the last axis that kernels want."""
    order = "nb" + name[1:].replace(wanted[-1], "") + wanted[-1]
    return _transpose_to(np.empty([sizes[k] for k in order], dtype), order, wanted)


def _flat_and_strides(v: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the numbers as they lie in memory, and the strides along one output and the axes but the last."""
    v = v if v.strides[-1] == v.itemsize else np.ascontiguousarray(v)
    reach = 1 + sum((size - 1) * stride // v.itemsize for size, stride in zip(v.shape, v.strides, strict=True))
    flat = np.lib.stride_tricks.as_strided(v, (reach,), (v.itemsize,))
    return flat, (0, *(stride // v.itemsize for stride in v.strides[:-1]))


def _by_formulas(m: np.ndarray, sides: Sequence[np.ndarray], scale: float) -> list[np.ndarray]:
    """Apply the rules of both products and of softmax, to a part of the pairs at a time."""
    (b, n), scores, xs, rs = m.shape[:2], sides[6][0].size, sides[::2], sides[1::2]
    multipliers = [np.empty((b, n, *x.shape[1:]), m.dtype) for x in (*xs[:2], xs[2].swapaxes(-1, -2))]
    examples = max(1, min(n, SCORES // scores))
    references = max(1, SCORES // (examples * scores))
    for k, j in product(range(0, b, references), range(0, n, examples)):
        of_k, of_j = slice(k, k + references), slice(j, j + examples)
        pairs = [(x[None, of_j], r[of_k, None]) for x, r in zip(xs, rs, strict=True)]
        for all_pairs, part in zip(multipliers, _part_by_formulas(m[of_k, of_j], pairs, scale), strict=True):
            all_pairs[of_k, of_j] = part
    return multipliers


def _part_by_formulas(m: np.ndarray, pairs: Sequence[tuple[np.ndarray, np.ndarray]], scale: float) -> list[np.ndarray]:
    *pairs, p, total = pairs
    q, k, v, z = [(x + r) / 2 for x, r in pairs[:3]] + pairs[3:]
    scores = [np.broadcast_arrays(*pair) for pair in (z, p, [side[..., None] for side in total])]
    with tf.init_scope():
        tensors = map(tf.constant, (m @ v, *(side for pair in scores for side in pair)))
        of_scores: np.ndarray = rules.softmax(*tensors).numpy() * m.dtype.type(scale)
    return [of_scores @ k, of_scores.swapaxes(-1, -2) @ q, ((p[0] + p[1]) / 2).swapaxes(-1, -2) @ m]


# ---------------------------------------------------------------------- convolutions
@dataclass(frozen=True)
class Convolution:
    """A value, filters (height, width, channels, filters), their dilations, and the padding of multipliers."""

    operands: tuple[Value]
    filters: Any
    dilations: list[int]
    paddings: Margins

    def pull(self, m: Any) -> list[Any]:
        """Return the multiplier of the operand, from that of the result."""
        single = m.shape.rank == 3
        inner, paddings, ends = self._clip_padding(m, single)
        convolved = tf.raw_ops.Conv2D(
            input=tf.expand_dims(inner, 1) if single else inner,
            filter=tf.reverse(tf.transpose(self.filters, [0, 1, 3, 2]), [0, 1]),
            strides=[1] * 4,
            padding="EXPLICIT",
            explicit_paddings=[0, 0, *(size for both in paddings for size in both), 0, 0],
            dilations=[1, *self.dilations, 1],
        )
        return [adjoints.pad(tf.squeeze(convolved, 1) if single else convolved, ends)]

    def _clip_padding(self, m: Any, single: bool) -> tuple[Any, Margins, Margins]:
        """Return the nonzero slice of a multiplier, its padding, and the zeros around the result."""
        part = adjoints.nonzero_slice(m)
        if part is None or np.any(part[1][-1]):
            return m, self.paddings, [[0, 0]] * m.shape.rank
        inner, zeros = part
        axes = len(zeros) - 2
        paddings, ends = self.paddings[: 2 - axes], [[0, 0]]
        for k, (outer_zeros, inner_padding) in enumerate(
            zip(zeros[1:-1], self.paddings[2 - axes :], strict=True), 2 - axes
        ):
            reach = (self.filters.shape[k] - 1) * self.dilations[k]
            spare = [max(0, outer + size - reach) for outer, size in zip(outer_zeros, inner_padding, strict=True)]
            paddings.append(
                [outer + size - more for outer, size, more in zip(outer_zeros, inner_padding, spare, strict=True)]
            )
            ends.append(spare)
        return inner, paddings, [*ends, [0, 0]]


def match_convolution(record: OperationRecord, makers: Mapping[Value, OperationRecord]) -> Convolution | None:
    """Return the convolution that a record ends, or None; ``makers`` are the records with rules of the table, by results."""

    def before(at: OperationRecord | None, name: str) -> OperationRecord | None:
        previous = None if at is None else makers.get(at.operands[0])
        return previous if previous is not None and previous.name == name else None

    joined = record if record.name == "BatchToSpaceND" else None
    inner = record if joined is None else makers.get(record.operands[0])
    squeezed = inner if inner is not None and inner.name == "Squeeze" else None
    conv = inner if squeezed is None else before(squeezed, "Conv2D")
    if conv is None or conv.name != "Conv2D" or not _is_plain(conv):
        return None
    first, split = conv, None
    if squeezed is not None:
        expanded = before(first, "ExpandDims")
        if expanded is None or conv.operands[1].x.shape[0] != 1 or conv.operands[0].x.shape[1] != 1:
            return None
        first = expanded
    if joined is not None:
        split = before(first, "SpaceToBatchND")
        if split is None or conv.op.get_attr("padding") != b"VALID":
            return None
        first = split
    pad = before(first, "Pad")
    return _convolution((pad or first).operands[0], pad, split, conv, joined, record.results[0])


def _is_plain(conv: OperationRecord) -> bool:
    """Return whether a convolution has no strides, its channels last, and filters that do not vary."""
    x, filters = conv.operands
    if conv.varying != (True, False) or conv.op.get_attr("data_format") != b"NHWC":
        return False
    steps = *conv.op.get_attr("strides"), *conv.op.get_attr("dilations")
    return set(steps) == {1} and filters.x.shape.is_fully_defined() and x.x.shape[-1] == filters.x.shape[2]


def _convolution(
    operand: Value,
    pad: OperationRecord | None,
    split: OperationRecord | None,
    conv: OperationRecord,
    joined: OperationRecord | None,
    result: Value,
) -> Convolution | None:
    """Return several operations as one convolution, if all sizes are known and the rows are the first axis."""
    sizes_in, sizes_out = (kernel_dispatch.row_shape(v)[1:-1] for v in (operand, result))
    axes = len(sizes_in)
    if axes not in (1, 2) or len(sizes_out) != axes or None in (*sizes_in, *sizes_out):
        return None
    blocks, again = (_per_axis(step, 1, axes, 1) for step in (split, joined))
    padded = None if pad is None else pad.static(1)
    added, cut = (_per_axis(step, 2, axes, [0, 0]) for step in (split, joined))
    if blocks is None or blocks != again or added is None or cut is None:
        return None
    if pad is not None and (padded is None or padded[[0, -1]].any()):
        return None
    of_pad: Margins = [[0, 0]] * axes if padded is None else padded[1:-1].tolist()
    sizes = conv.operands[1].x.shape.as_list()[2 - axes : 2]
    paddings = []
    for k, (padding, size) in enumerate(zip(_own_padding(conv)[-axes:], sizes, strict=True)):
        reach = (size - 1) * blocks[k]
        lead = padding + of_pad[k][0] + added[k][0] - cut[k][0]
        paddings.append([reach - lead, lead + sizes_in[k] - sizes_out[k]])
    if min(map(min, paddings)) < 0:
        return None
    missing = 2 - axes
    return Convolution((operand,), conv.operands[1].p, [1] * missing + blocks, [[0, 0]] * missing + paddings)


def _per_axis(record: OperationRecord | None, operand: int, axes: int, default: Any) -> list[Any] | None:
    """Return what an operand says of each axis, which may be of the first axes only; None if that is not known."""
    numbers = np.array([]) if record is None else record.static(operand)
    return None if numbers is None else [*numbers.tolist(), *[default] * (axes - len(numbers))]


def _own_padding(conv: OperationRecord) -> list[int]:
    """Return the padding that a convolution itself has ahead of each of its two axes."""
    kind = conv.op.get_attr("padding")
    if kind == b"EXPLICIT":
        return list(conv.op.get_attr("explicit_paddings"))[2:6:2]
    return [(size - 1) // 2 if kind == b"SAME" else 0 for size in conv.operands[1].x.shape.as_list()[:2]]
