"""Attribution rules: from the multipliers of an operation's outputs to those of its inputs.

Every rule satisfies ``sum_k m_k * (input_k - reference_input_k) = m_out * (output - reference_output)``, DeepLIFT's
summation-to-delta property. By the chain rule of multipliers (Shrikumar et al. 2017) the attributions of a model then add up
to the change of its output. The rules are pure functions of arrays: of multipliers ``m`` and of both sides ``(example,
reference)`` of each operand. They depend on no engine and no layout of rows. Formulas and sources: docs/mathematics.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from math import comb

import numpy as np

from . import Array, namespace, secants

Sides = tuple[Array, Array]
Function = Callable[..., Array]
Choice = tuple[int, ...]  # the side of each operand: 0 for the example, 1 for the reference
Slope = Callable[[Array, Array, Array], Array]  # the secant of exp, of z - r, exp(z) and exp(r)

SMOOTH_NODES = 32
# Models mask rows of logits by a large negative number. A row with logsumexp below -MASKED counts as masked if its logits are
# equal, and below -SWALLOWED in any case: there rounding absorbs the differences between logits.
MASKED, SWALLOWED = 1e4, 1e7


# ---------------------------------------------------------------------- elementwise functions, and smooth ones
def rescale(
    evaluate: Callable[..., Array], operands: Sequence[Sides], y: Array, yr: Array, secant: secants.Secant | None = None
) -> list[Array]:
    """Return the slopes of an elementwise function for each operand (Shrikumar et al. 2017).

    Several operands get Shapley values: the slope of an operand is the secant of the function averaged over the sides of the
    other operands with Shapley weights. ``secant`` must hold for these averages too; the default is ``secants.from_function``.
    """
    if len(operands) == 1:
        return [(secant or secants.from_function(evaluate))(*operands[0], y, yr)]
    values = {(0,) * len(operands): y, (1,) * len(operands): yr}

    def value_at(sides: Choice) -> Array:
        if sides not in values:
            values[sides] = evaluate(*[operand[side] for operand, side in zip(operands, sides, strict=True)])
        return values[sides]

    return [_share(evaluate, operands, player, value_at, secant) for player in range(len(operands))]


def _share(
    f: Function, operands: Sequence[Sides], player: int, value_at: Function, secant: secants.Secant | None
) -> Array:
    """Return the slope of an operand; ``value_at`` maps the side of each operand to the function's value."""
    players, xp, fixed = len(operands), namespace(operands[player][0]), [*operands[:player], *operands[player + 1 :]]

    def averaged(value: Callable[[Choice], Array], like: Array) -> Array:
        """Average values over the sides of the other operands with Shapley weights."""
        total = 0
        for others in itertools.product((0, 1), repeat=players - 1):
            weight = 1 / (players * comb(players - 1, sum(others)))
            total = total + weight * xp.match_dtype(value(others), like)
        return total

    def function(operand_value: Array) -> Array:
        def value(others: Choice) -> Array:
            rest = [operand[side] for operand, side in zip(fixed, others, strict=True)]
            return f(*rest[:player], operand_value, *rest[player:])

        return averaged(value, operand_value)

    def end(side: int, like: Array) -> Array:
        return averaged(lambda others: value_at((*others[:player], side, *others[player:])), like)

    y, yr = value_at((0,) * players), value_at((1,) * players)
    x, r = (xp.broadcast(side, y, yr) for side in operands[player])
    return (secant or secants.from_function(function))(x, r, end(0, x), end(1, r))


def along_segment(
    vjp: Callable[[list[Array]], Sequence[Array | None]], operands: Sequence[Sides], nodes: int
) -> list[Array | None]:
    """Return the gradient averaged along the segment from reference to example, by Gauss-Legendre quadrature.

    ``vjp`` maps points to the gradients there. The result is exact for polynomials of degree ``2 * nodes``: a single node,
    the midpoint, suffices for products and quadratic functions. For other smooth functions this approximates the
    Aumann-Shapley rule (integrated gradients, Sundararajan et al. 2017).
    """
    if nodes == 1:
        return list(vjp([namespace(x).half_sum(x, r) for x, r in operands]))
    total: list[Array | None] = [None] * len(operands)
    for position, weight in _gauss_legendre(nodes):
        for i, gradient in enumerate(vjp([namespace(x).lerp(r, x, position) for x, r in operands])):
            if gradient is not None:
                total[i] = weight * gradient if total[i] is None else total[i] + weight * gradient
    return total


@cache
def _gauss_legendre(nodes: int) -> tuple[tuple[float, float], ...]:
    positions, weights = np.polynomial.legendre.leggauss(nodes)
    return tuple(((1 + float(p)) / 2, float(w) / 2) for p, w in zip(positions, weights, strict=True))


# ---------------------------------------------------------------------- products, quotients, choices
def mean(sides: Sides) -> Array:
    """Return (x + r) / 2, the value of a constant."""
    return namespace(sides[0]).half_sum(*sides)


def product(m: Array, a: Sides, b: Sides) -> list[Array]:
    """Return the multipliers of y = a b, elementwise: m mean(b) and m mean(a), each factor's Shapley value (half-split)."""
    conj = namespace(m).conj
    return [m * conj(mean(b)), m * conj(mean(a))]


def product_or_zero(m: Array, a: Sides, b: Sides) -> list[Array]:
    """Return the multipliers of a product that is 0 wherever b is 0, even if a is not finite."""
    xp = namespace(m)
    a_or_zero = tuple(xp.where(xp.equal(factor, 0), 0.0, v) for v, factor in zip(a, b, strict=True))
    return product(m, a_or_zero, b)


def quotient(m: Array, a: Sides, b: Sides) -> list[Array]:
    """Return the multipliers of y = a / b, a product of a and 1 / b: m (1/b + 1/b_r) / 2 and -m (a + a_r) / (2 b b_r)."""
    conj = namespace(m).conj
    return [m * conj((1 / b[0] + 1 / b[1]) / 2), m * conj(-(a[0] + a[1]) / (2 * b[0] * b[1]))]


def quotient_or_zero(m: Array, a: Sides, b: Sides) -> list[Array]:
    """Return the multipliers of a quotient that is 0 where b is 0: of a times such a reciprocal."""
    xp, (b, br) = namespace(m), b
    inverse, inverse_r = (secants.quotient_where(~xp.equal(v, 0), xp.ones_like(v), v) for v in (b, br))
    jumps = xp.equal(b, 0) | xp.equal(br, 0)
    slope = xp.where(jumps, secants.quotient_where(~xp.equal(b, br), inverse - inverse_r, b - br), -inverse * inverse_r)
    by_a, by_inverse = product(m, a, (inverse, inverse_r))
    return [by_a, by_inverse * xp.conj(slope)]


def ratio(m: Array, b: Sides, y: Sides) -> list[Array]:
    """Return the multipliers of y = a / b, a vector over its norm, from the half-split of a = y b.

    They are m / mean(b) and -m mean(y) / mean(b). Unlike those of ``quotient`` they stay bounded if the norm of one side
    vanishes.
    """
    share = m * 2 / (b[0] + b[1])
    return [share, -share * namespace(m).conj(mean(y))]


def select(m: Array, c: Sides, a: Sides, b: Sides) -> list[Array]:
    """Return the multipliers of y = c a + (1 - c) b, with a condition c in {0, 1} that depends on the input.

    They are the half-splits of two products. A branch that is not finite on the side that does not take it, such as the root
    of a negative number, counts as unchanged.
    """
    xp = namespace(m)
    chosen, taken = xp.cast(c[0] + c[1], m) / 2, ~xp.equal(c[0], 0)
    (of_a, a_is_finite), (of_b, b_is_finite) = _mean_of_branch(a, taken), _mean_of_branch(b, ~taken)
    jump = xp.where(xp.equal(*c), 0.0, of_a - of_b)
    return [m * xp.conj(jump), xp.where(a_is_finite, m * chosen, 0.0), xp.where(b_is_finite, m * (1 - chosen), 0.0)]


def _mean_of_branch(sides: Sides, taken: Array) -> tuple[Array, Array]:
    """Return the mean of both sides where it is finite, else the side that takes the branch, and where the mean is finite."""
    xp, average = namespace(sides[0]), mean(sides)
    is_finite = xp.isfinite(average)
    return clip_infinities(xp.where(is_finite, average, xp.where(taken, *sides))), is_finite


def clip_infinities(x: Array) -> Array:
    """Clip infinities, and the finite numbers near the limit of a dtype that stand for them; the exponential of either is 0."""
    xp = namespace(x)
    if xp.is_complex(x):
        return x
    bound = 1e30 if xp.lowest(x) < -1e30 else 3e4
    return xp.clip(x, -bound, bound)


def per_change(explained: Array, x: Array, r: Array) -> Array:
    """Return the multiplier of a change from r to x that explains ``explained``: for ids, which have no slope."""
    xp = namespace(x)
    return secants.quotient_where(~xp.equal(x, r), xp.match_dtype(explained, x), x - r)


def lookup_change(rows: Sequence[Sequence[Array]]) -> Array:
    """Return the share of the ids in a change of looked-up rows; ``rows[t][i]`` are the rows of table t at ids i, example first.

    This is the Shapley value of the ids in a game of table and ids: their change, averaged over both tables.
    """
    return (rows[0][0] - rows[0][1] + rows[1][0] - rows[1][1]) / 2


# ---------------------------------------------------------------------- softmax and logsumexp, over the last axis
def logsumexp(m: Array, z: Array, r: Array, y: Array, yr: Array) -> Array:
    """Return the multipliers of z for y = log(sum(exp(z))) over the last axis, with the axis."""
    xp = namespace(z)  # unlike exp(z - y), softmax is exact for large logits
    return m * _weights(_difference(z, r), xp.softmax(z), xp.softmax(r), y - yr)


def _weights(d: Array, p: Array, pr: Array, D: Array, slope: Slope = secants.exponential) -> Array:
    """Return the slope of logsumexp for each term.

    The slope of term i is ``secant_log(S, S_r) * secant_exp(z_i, r_i)``, where S is the sum of exponentials. In terms of
    p = exp(z - total), d = z - r and D = total - total_r, it is ``p decay(d) / decay(D)``, or the same with the sides
    exchanged. The form with decaying exponentials is used, so that nothing overflows.
    """
    xp, scale = namespace(d), secants.decay(D)
    rising, falling = (xp.exp(xp.clip(side, None, 0.0)) / scale for side in (D, -D))
    return slope(d, p * rising, pr * falling)


def _difference(z: Array, r: Array) -> Array:
    """Return z - r, and 0 where both are -inf."""
    xp, d = namespace(z), z - r

    def masked() -> Array:
        lowest = xp.lowest(z) / 2
        return xp.where(xp.isfinite(d), d, xp.clip(z, lowest) - xp.clip(r, lowest))

    return xp.cond(xp.all_finite(d), lambda: d, masked)


def log_softmax(
    m: Array, z: Array, r: Array, u: Array, ur: Array, total: Array, total_r: Array, slope: Slope = secants.exponential
) -> Array:
    """Return the multipliers of z for u = z - total with total = logsumexp(z); ``slope`` is the secant of exp."""
    xp = namespace(z)
    weights = _weights(_difference(z, r), xp.exp(u), xp.exp(ur), total - total_r, slope)
    multipliers = _normalise(m, weights)
    any_masked = xp.any_element((total < -MASKED) | (total_r < -MASKED))
    return xp.cond(any_masked, lambda: _where_masked(m, z, r, total, total_r, multipliers), lambda: multipliers)


def softmax(
    m: Array, z: Array, r: Array, p: Array, pr: Array, total: Array, total_r: Array, slope: Slope = secants.exponential
) -> Array:
    """Return the multipliers of z for p = exp(log_softmax(z)): independent of shifts of both sides, finite under -inf masks."""
    xp, d, D = namespace(z), _difference(z, r), total - total_r
    masked = (total < -MASKED) | (total_r < -MASKED)  # there both terms lose digits
    weights = _weights(d, p, pr, D, slope)

    def of_logs(change: Array) -> Array:
        return m * slope(change, p, pr)

    def with_masks() -> Array:
        m_u = of_logs(xp.where(masked, _change(z, r), d - D))
        return _where_masked(m_u, z, r, total, total_r, _normalise(m_u, weights))

    # A single conditional around the formulas: XLA computes both branches of smaller ones.
    return xp.cond(xp.any_element(masked), with_masks, lambda: _normalise(of_logs(d - D), weights))


def _change(z: Array, r: Array) -> Array:
    """Return log_softmax(z) - log_softmax(r)."""
    xp = namespace(z)
    u, ur = xp.log_softmax(z), xp.log_softmax(r)
    return xp.where(xp.equal(u, ur), 0.0, u - ur)


def _normalise(m: Array, weights: Array) -> Array:
    """Return the multipliers of the logits from those of the normalized logits."""
    return m - weights * namespace(m).sum_last(m)


def _where_masked(m: Array, z: Array, r: Array, total: Array, total_r: Array, otherwise: Array) -> Array:
    """Return the multipliers ``otherwise``, or those of rows of logits that are entirely masked."""
    return _of_masked_rows(m, z, r, (_is_masked(z, total), _is_masked(r, total_r)), otherwise)


def _is_masked(z: Array, total: Array) -> Array:
    """Return whether a row of logits is entirely masked: low, and all equal or low enough to absorb differences by rounding."""
    xp = namespace(z)
    unequal = xp.sum_last(xp.cast(~xp.equal(z, z[..., :1]), z))
    return (total < -MASKED) & ((total < -SWALLOWED) | xp.equal(unequal, 0))


def _of_masked_rows(m: Array, z: Array, r: Array, masked: Sides, otherwise: Array) -> Array:
    """Return the multipliers of rows of logits that may be entirely masked.

    If a row is masked on one side, each logit that changes explains its own output, and all of them share the outputs of the
    unchanged logits. If a row is masked on both sides and does not change, its multipliers are 0.
    """
    xp, unchanged = namespace(z), namespace(z).equal(z, r)
    shares, changed = m * _change(z, r), xp.sum_last(xp.cast(~unchanged, z))
    remainder = xp.sum_last(xp.where(unchanged, shares, 0.0)) / xp.clip(changed, 1.0)
    jumps = secants.quotient_where(~unchanged, shares + remainder, z - r)
    without_influence = masked[0] & masked[1] & xp.equal(changed, 0)
    return xp.where(masked[0] ^ masked[1], jumps, xp.where(without_influence, 0.0, otherwise))


# ---------------------------------------------------------------------- vectors over their size, along the last axis
def standardize(m: Array, y: Sides, size: Sides, centred: bool) -> Array:
    """Return the multipliers of x for y = c / q with q = sqrt(mean(c^2) + eps), where c is x, or x - mean(x) if ``centred``.

    They combine the half-split of the product of c and 1 / q with the secants of the reciprocal root and of squares. With
    ``u = (c + c_r) / (q + q_r)`` they have the form of the derivative, ``(1 / q + 1 / q_r) / 2 (m - mean(m) - u mean(m u))``.
    """
    xp, (q, qr) = namespace(m), size
    u = (y[0] * q + y[1] * qr) / (q + qr)
    result = m - u * xp.mean_last(m * u)
    if centred:
        result = result - xp.mean_last(m)
    return result * xp.half_sum(1 / q, 1 / qr)


def normalize(m: Array, x: Sides, y: Sides, bound: float) -> Array:
    """Return the multipliers of x for y = x / b with the norm b = max(sqrt(sum(x^2)), bound).

    They combine ``ratio`` with the secants of maximum, root and squares. The half-split of the product of x and 1 / b would
    have shares as large as 1 / bound that cancel if one side is 0.
    """
    xp = namespace(m)
    n, nr = norms = [xp.sqrt(xp.sum_last(side * side)) for side in x]
    b, br = sizes = xp.clip(n, bound), xp.clip(nr, bound)
    by_x, by_size = ratio(m, sizes, y)
    slope = secants.quotient_where(~xp.equal(n, nr), b - br, n - nr, xp.cast(n > bound, n))
    return by_x + xp.sum_last(by_size) * slope * secants.sqrt(n * n, nr * nr, *norms) * (x[0] + x[1])


# ---------------------------------------------------------------------- order, along the last axis
def window_max(m: Array, x: Array, r: Array, i: Array, j: Array) -> Array:
    """Return the multipliers of the maximum of each window without ties (cross-max); x is greatest at positions i, r at j.

    With ``y = x_i`` and ``y_r = r_j``, i explains a rise and j a fall. The input there changed at least as much as
    the output, so that the slope is at most 1.
    """
    xp, unmoved = namespace(x), namespace(x).equal(i, j)
    y, yr = xp.take(x, i), xp.take(r, j)
    change = y - yr
    to_i = xp.where(unmoved, 1.0, secants.quotient_where(change > 0, change, y - xp.take(r, i)))
    to_j = xp.where(unmoved, 0.0, secants.quotient_where(change < 0, change, xp.take(x, j) - yr))
    return xp.scatter_add(x, (i, m * to_i), (j, m * to_j))


def maximum(m: Array, x: Array, r: Array) -> Array:
    """Return the multipliers of the maximum over the last axis (cross-max); tied elements share it, whatever their order."""
    xp = namespace(x)
    return m * max_slopes(x, r, xp.max_last(x), xp.max_last(r), xp.sum_last)


def max_slopes(x: Array, r: Array, y: Array, yr: Array, count: Callable[[Array], Array]) -> Array:
    """Return the slopes of the maximum, y of x and yr of r (cross-max), shared by the elements that attain the larger of both.

    ``count`` sums over the elements that a maximum is taken of.
    """
    xp, unchanged = namespace(x), namespace(x).equal(y, yr)
    at, at_r = xp.equal(x, y), xp.equal(r, yr)
    decisive = (at & (y > yr)) | (at_r & (y < yr)) | (at & at_r & unchanged)
    share = xp.cast(decisive, x)
    return secants.quotient_where(decisive & ~unchanged, y - yr, x - r, 1.0) * share / xp.clip(count(share), 1.0)


def sort(m: Array, x: Array, r: Array) -> Array:
    """Return the multipliers of x for its values in ascending order.

    Along the segment from r to x, sorting is a permutation that changes where two elements cross. Between crossings the slope
    of an element is the multiplier of its rank. So the path integral (Aumann-Shapley) is a finite sum, and exact: multipliers
    of ranks, weighted by the length of the segment on which the element has the rank. Elements that are equal along the
    segment share the multipliers of their ranks.
    """
    xp, size = namespace(x), x.shape[-1]
    if size == 1:
        return m + xp.zeros_like(x)
    times = _crossings(r, x - r)

    def between(k: Array, total: Array) -> Array:
        start, end = times[..., k, None], times[..., k + 1, None]  # XLA cannot infer the width of k : k + 1

        def held() -> Array:
            point = xp.lerp(r, x, (start + end) / 2)
            order = xp.argsort(point)
            return total + (end - start) * xp.unsort(order, _shared(m, xp.take(point, order)))

        return xp.cond(xp.any_element(end > start), held, lambda: total)

    return xp.fori_loop(between, size * (size - 1) // 2 + 1, xp.zeros_like(x))


def topk_indices(m: Array, x: Array, r: Array, p: Array, pr: Array) -> Array:
    """Return the multipliers of x for the positions of its K greatest values in descending order, p of x and pr of r.

    The effect of a position's change goes to the values that caused it, in proportion to their changes: to those that grew
    and rose past its rank, and to those that shrank and fell behind it. There always is such a value.
    """
    xp, limit = namespace(x), -namespace(x).lowest(x) / 2
    d = xp.clip(x, -limit, limit) - xp.clip(r, -limit, limit)  # equal infinities do not differ
    level, effect = xp.cumsum(xp.ones_like(m)) - 1, xp.match_dtype(m, x) * xp.match_dtype(p - pr, x)
    level, effect, rank, rank_r = level[..., None], effect[..., None], _ranks(x)[..., None, :], _ranks(r)[..., None, :]
    rose = ((rank <= level) & (rank_r > level)) | ((rank < level) & (rank_r >= level))
    fell = ((rank_r <= level) & (rank > level)) | ((rank_r < level) & (rank >= level))
    up, down = (xp.cast(moved & (sign * d[..., None, :] > 0), x) for moved, sign in ((rose, 1), (fell, -1)))
    total = xp.sum_last(up * d[..., None, :] - down * d[..., None, :])
    share = secants.quotient_where(total > 0, effect, total)
    return xp.sum_rows((up - down) * share)


def _ranks(x: Array) -> Array:
    """Return the rank of each value in descending order, stable for equal values."""
    xp = namespace(x)
    return xp.unsort(xp.argsort(-x), xp.cumsum(xp.ones_like(x)) - 1)


def share_coordinates(explained: Array, sides: Sequence[Sides]) -> list[Array]:
    """Return the multipliers of coordinates of a position: those that differ share equally what the position explains."""
    xp = namespace(explained)
    differing = sum(xp.cast(~xp.equal(p, q), explained) for p, q in sides)
    return [per_change(secants.quotient_where(differing > 0, explained, differing), p, q) for p, q in sides]


def _shared(m: Array, ascending: Array) -> Array:
    """Average the multipliers of ranks over groups of equal values."""
    xp = namespace(m)
    steps = ~xp.equal(ascending[..., 1:], ascending[..., :-1])
    group = xp.cumsum(xp.concat([steps[..., :1] & False, steps]))
    sums, counts = (xp.scatter_add(m, (group, values)) for values in (m, xp.ones_like(m)))
    return xp.take(sums, group) / xp.take(counts, group)


def _crossings(r: Array, change: Array) -> Array:
    """Return 0, 1 and the times t in between at which two elements of ``r + t change`` are equal, sorted."""
    xp, (i, j) = namespace(r), np.triu_indices(r.shape[-1], 1)
    closing = xp.columns(change, i) - xp.columns(change, j)
    times = secants.quotient_where(~xp.equal(closing, 0), xp.columns(r, j) - xp.columns(r, i), closing, 1.0)
    times = xp.where((times > 0) & (times < 1), times, 1.0)
    return xp.sort(xp.concat([xp.zeros_like(r[..., :1]), xp.ones_like(r[..., :1]), times]))


# ---------------------------------------------------------------------- contributions
def where_reached(m: Array, result: Array) -> Array:
    """Replace NaN in a rule's result by 0 where the multiplier m is 0, as in a branch that is not taken."""
    xp = namespace(result)
    return xp.where(xp.equal(m, 0) & xp.isnan(result), 0.0, result)


def contribution(m: Array, x: Array, r: Array) -> Array:
    """Return the contribution m * (x - r), real; multipliers of complex values are conjugated like gradients."""
    xp = namespace(m)
    return contribution_of(m, xp.match_dtype(xp.where(xp.equal(x, r) | xp.equal(m, 0), 0.0, x - r), m))


def contribution_of(m: Array, difference: Array) -> Array:
    """Return the contribution of a difference, real."""
    xp = namespace(m)
    return xp.real(xp.conj(m) * difference)


Term = tuple[Array, Array, Array]  # a multiplier, and both sides of its operand


def local_gap(inputs: Sequence[Term], outputs: Sequence[Term]) -> tuple[Array, Array]:
    """Return the gap between the contributions of an operation's inputs and outputs, and the outputs' size, in float64."""
    explained, expected = ([contribution(*term) for term in terms] for terms in (inputs, outputs))
    gap = sum(namespace(e).total(e) for e in explained) - sum(namespace(w).total(w) for w in expected)
    return abs(gap), sum(namespace(w).total(abs(w)) for w in expected)
