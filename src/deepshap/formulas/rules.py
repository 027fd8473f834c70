"""The rules: from the multipliers of an operation's outputs to those of its inputs.

Every rule keeps ``sum_k m_k * (input_k - reference_input_k) = m_out * (output - reference_output)``; that is all it takes
for a whole model to be complete. The functions here are pure: they know arrays, two sides ``(example, reference)`` of each
operand, and nothing of how a framework runs or lays out a model. Formulas and sources: docs/mathematics.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from math import comb

import numpy as np

from . import secants
from .namespace import Array, namespace

Sides = tuple[Array, Array]
Function = Callable[..., Array]
Choice = tuple[int, ...]  # of each of several operands a side: 0 for the example, 1 for the reference
Slope = Callable[[Array, Array, Array], Array]  # of exponentials: of their arguments' distance, and both of them

SMOOTH_NODES = 32
# A row of logits is masked as a whole by a number that stands for infinity. Log-likelihoods may be as low as the first of
# these numbers and yet tell the logits apart; below the second one nothing does.
MASKED, SWALLOWED = 1e4, 1e7


# ---------------------------------------------------------------------- elementwise functions, and smooth ones
def rescale(
    evaluate: Callable[..., Array], operands: Sequence[Sides], y: Array, yr: Array, secant: secants.Secant | None = None
) -> list[Array]:
    """Slopes of an elementwise function with regard to each of its operands (Shrikumar et al. 2017).

    With several varying operands each gets its Shapley share: its function averaged over the other operands being at the
    example and at the reference, in all orders. ``secant`` holds for those averages too; ``secants.of`` if there is none.
    """
    if len(operands) == 1:
        return [(secant or secants.of(evaluate))(*operands[0], y, yr)]
    known = {(0,) * len(operands): y, (1,) * len(operands): yr}

    def at(sides: Choice) -> Array:
        if sides not in known:
            known[sides] = evaluate(*[operand[side] for operand, side in zip(operands, sides, strict=True)])
        return known[sides]

    return [_share(evaluate, operands, player, at, secant) for player in range(len(operands))]


def _share(f: Function, operands: Sequence[Sides], player: int, at: Function, secant: secants.Secant | None) -> Array:
    """The slope of one operand; ``at`` tells the function's value by the side of each operand."""
    players, xp, beside = len(operands), namespace(operands[player][0]), [*operands[:player], *operands[player + 1 :]]

    def averaged(value: Callable[[Choice], Array], like: Array) -> Array:
        """Over the sides of the others."""
        total = 0
        for others in itertools.product((0, 1), repeat=players - 1):
            weight = 1 / (players * comb(players - 1, sum(others)))
            total = total + weight * xp.matched(value(others), like)
        return total

    def function(own: Array) -> Array:
        def value(others: Choice) -> Array:
            rest = [operand[side] for operand, side in zip(beside, others, strict=True)]
            return f(*rest[:player], own, *rest[player:])

        return averaged(value, own)

    def end(side: int, like: Array) -> Array:
        return averaged(lambda others: at((*others[:player], side, *others[player:])), like)

    y, yr = at((0,) * players), at((1,) * players)
    x, r = (xp.broadcast(side, y, yr) for side in operands[player])
    return (secant or secants.of(function))(x, r, end(0, x), end(1, r))


def along_segment(
    vjp: Callable[[list[Array]], Sequence[Array | None]], operands: Sequence[Sides], nodes: int
) -> list[Array | None]:
    """The gradient averaged along the segment from reference to example, by Gauss-Legendre nodes.

    ``vjp`` maps points to the gradients there. Exact for polynomials of degree ``2 * nodes``: one node, the midpoint, does
    products and everything quadratic. For other smooth functions this is the Aumann-Shapley rule (Sundararajan et al. 2017).
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
    """(x + r) / 2; a constant is its own."""
    return namespace(sides[0]).half_sum(*sides)


def product(m: Array, a: Sides, b: Sides) -> list[Array]:
    """y = a b, element by element: m mean(b) and m mean(a) (half-split)."""
    conj = namespace(m).conj
    return [m * conj(mean(b)), m * conj(mean(a))]


def product_or_zero(m: Array, a: Sides, b: Sides) -> list[Array]:
    """As ``product``, of a product that is 0 wherever b is, whatever a is."""
    xp = namespace(m)
    there = tuple(xp.where(xp.equal(factor, 0), 0.0, v) for v, factor in zip(a, b, strict=True))
    return product(m, there, b)


def quotient(m: Array, a: Sides, b: Sides) -> list[Array]:
    """y = a / b as the product of a and 1 / b: m (1/b + 1/b_r) / 2 and -m (a + a_r) / (2 b b_r)."""
    conj = namespace(m).conj
    return [m * conj((1 / b[0] + 1 / b[1]) / 2), m * conj(-(a[0] + a[1]) / (2 * b[0] * b[1]))]


def quotient_or_zero(m: Array, a: Sides, b: Sides) -> list[Array]:
    """As ``quotient``, of a quotient that is 0 where b is 0: the product of a and that reciprocal."""
    xp, (b, br) = namespace(m), b
    inverse, inverse_r = (secants.quotient_where(~xp.equal(v, 0), xp.ones_like(v), v) for v in (b, br))
    jumps = xp.equal(b, 0) | xp.equal(br, 0)
    slope = xp.where(jumps, secants.quotient_where(~xp.equal(b, br), inverse - inverse_r, b - br), -inverse * inverse_r)
    by_a, by_inverse = product(m, a, (inverse, inverse_r))
    return [by_a, by_inverse * xp.conj(slope)]


def ratio(m: Array, b: Sides, y: Sides) -> list[Array]:
    """y = a / b as what times b is a, for a vector a over its norm b: m / mean(b) and -m mean(y) / mean(b).

    As complete as ``quotient``, and bounded where the norm of one side vanishes.
    """
    share = m * 2 / (b[0] + b[1])
    return [share, -share * namespace(m).conj(mean(y))]


def select(m: Array, c: Sides, a: Sides, b: Sides) -> list[Array]:
    """y = c a + (1 - c) b with a condition c in {0, 1} that depends on the input: half-splits of two products.

    A branch that is not finite on a side which does not take it (the root of what is below 0) counts as if it did not change.
    """
    xp = namespace(m)
    chosen, taken = xp.cast(c[0] + c[1], m) / 2, ~xp.equal(c[0], 0)
    (of_a, counts_a), (of_b, counts_b) = _mean_of_branch(a, taken), _mean_of_branch(b, ~taken)
    jump = xp.where(xp.equal(*c), 0.0, of_a - of_b)
    return [m * xp.conj(jump), xp.where(counts_a, m * chosen, 0.0), xp.where(counts_b, m * (1 - chosen), 0.0)]


def _mean_of_branch(sides: Sides, taken: Array) -> tuple[Array, Array]:
    """The mean of both sides, and whether it is finite; else the side that is taken, infinity as a number."""
    xp, both = namespace(sides[0]), mean(sides)
    counts = xp.isfinite(both)
    return bounded(xp.where(counts, both, xp.where(taken, *sides))), counts


def bounded(x: Array) -> Array:
    """Numbers in the place of infinity, and of what stands for it near the largest of a dtype: their exponential is 0."""
    xp = namespace(x)
    if xp.is_complex(x):
        return x
    bound = 1e30 if xp.lowest(x) < -1e30 else 3e4
    return xp.clip(x, -bound, bound)


def on_change(explained: Array, x: Array, r: Array) -> Array:
    """What is explained of a change from r to x, as a multiplier of that change: for ids, which have no slope."""
    xp = namespace(x)
    return secants.quotient_where(~xp.equal(x, r), xp.matched(explained, x), x - r)


def jump_of_lookup(found: Sequence[Sequence[Array]]) -> Array:
    """The ids' share of a change of looked-up rows; ``found[t][i]`` are the rows of table t at ids i, example first.

    Two-player Shapley of table and ids: the change by the ids, averaged over both tables.
    """
    return (found[0][0] - found[0][1] + found[1][0] - found[1][1]) / 2


# ---------------------------------------------------------------------- softmax and logsumexp, over the last axis
def logsumexp(m: Array, z: Array, r: Array, y: Array, yr: Array) -> Array:
    """The logarithm y of the sum of exponentials of z, its axis kept."""
    xp = namespace(z)  # softmax keeps its digits when all logits are large; exp(z - y) does not
    return m * _weights(_difference(z, r), xp.softmax(z), xp.softmax(r), y - yr)


def _weights(d: Array, p: Array, pr: Array, D: Array, slope: Slope = secants.exponential) -> Array:
    """Slope of logsumexp with regard to each term.

    The slope of term i is ``secant_log(S, S_r) * secant_exp(z_i, r_i)`` with S the sum of exponentials. It is written
    with the normalised terms p = exp(z - total) of either side, so that no shift is needed and nothing overflows:
    ``p decay(d) / decay(D)`` with d = z - r and D = total - total_r, or the same with the sides exchanged, whichever has
    only decaying exponentials.
    """
    xp, scale = namespace(d), secants.decay(D)
    rising, falling = (xp.exp(xp.clip(side, None, 0.0)) / scale for side in (D, -D))
    return slope(d, p * rising, pr * falling)


def _difference(z: Array, r: Array) -> Array:
    """Logits minus logits of the reference; those masked by -inf on both sides do not differ."""
    xp, d = namespace(z), z - r

    def masked() -> Array:
        lowest = xp.lowest(z) / 2
        return xp.where(xp.isfinite(d), d, xp.clip(z, lowest) - xp.clip(r, lowest))

    return xp.cond(xp.all_finite(d), lambda: d, masked)


def log_softmax(
    m: Array, z: Array, r: Array, u: Array, ur: Array, total: Array, total_r: Array, slope: Slope = secants.exponential
) -> Array:
    """u = z - total with total = logsumexp(z); ``slope`` is that of exponentials."""
    xp = namespace(z)
    weights = _weights(_difference(z, r), xp.exp(u), xp.exp(ur), total - total_r, slope)
    found = _normalise(m, weights)
    somewhere = xp.anywhere((total < -MASKED) | (total_r < -MASKED))
    return xp.cond(somewhere, lambda: _where_masked(m, z, r, total, total_r, found), lambda: found)


def softmax(
    m: Array, z: Array, r: Array, p: Array, pr: Array, total: Array, total_r: Array, slope: Slope = secants.exponential
) -> Array:
    """p = exp(log_softmax(z)): independent of a shift of both sides, finite under -inf masks."""
    xp, d, D = namespace(z), _difference(z, r), total - total_r
    masked = (total < -MASKED) | (total_r < -MASKED)  # there digits are lost in both terms
    weights = _weights(d, p, pr, D, slope)

    def of_logs(change: Array) -> Array:
        return m * slope(change, p, pr)

    def with_masks() -> Array:
        given = of_logs(xp.where(masked, _change(z, r), d - D))
        return _where_masked(given, z, r, total, total_r, _normalise(given, weights))

    # One choice between the whole formulas: of smaller ones XLA computes both sides.
    return xp.cond(xp.anywhere(masked), with_masks, lambda: _normalise(of_logs(d - D), weights))


def _change(z: Array, r: Array) -> Array:
    """Normalised logits minus those of the reference."""
    xp = namespace(z)
    u, ur = xp.log_softmax(z), xp.log_softmax(r)
    return xp.where(xp.equal(u, ur), 0.0, u - ur)


def _normalise(m: Array, weights: Array) -> Array:
    """From the multipliers of the normalised logits to those of the logits."""
    return m - weights * namespace(m).sum_last(m)


def _where_masked(m: Array, z: Array, r: Array, total: Array, total_r: Array, otherwise: Array) -> Array:
    """The same where rows may be masked as a whole."""
    return _of_masked_rows(m, z, r, (_is_masked(z, total), _is_masked(r, total_r)), otherwise)


def _is_masked(z: Array, total: Array) -> Array:
    """Whether logits are those of a mask: low, and one and the same number or one that swallows what it is added to."""
    xp = namespace(z)
    others = xp.sum_last(xp.cast(~xp.equal(z, z[..., :1]), z))
    return (total < -MASKED) & ((total < -SWALLOWED) | xp.equal(others, 0))


def _of_masked_rows(m: Array, z: Array, r: Array, masked: Sides, otherwise: Array) -> Array:
    """Rows that are masked as a whole: what stands for infinity has swallowed all their logits.

    Masked on one side, the row jumps by it: each logit answers for its own output, and all that jump for those of the logits
    that were masked before. Masked on both, none has an influence.
    """
    xp, still = namespace(z), namespace(z).equal(z, r)
    shares, moved = m * _change(z, r), xp.sum_last(xp.cast(~still, z))
    rest = xp.sum_last(xp.where(still, shares, 0.0)) / xp.clip(moved, 1.0)
    own = secants.quotient_where(~still, shares + rest, z - r)
    swallowed = masked[0] & masked[1] & xp.equal(moved, 0)
    return xp.where(masked[0] ^ masked[1], own, xp.where(swallowed, 0.0, otherwise))


# ---------------------------------------------------------------------- vectors over their size, along the last axis
def standardised(m: Array, y: Sides, size: Sides, centred: bool) -> Array:
    """y = c / q with q = sqrt(mean(c^2) + eps), of c = x - mean(x) or c = x itself.

    The product of c and 1 / q, half-split, and the secants of the reciprocal square root and of squares. With the mean of
    both sides ``u = (c + c_r) / (q + q_r)`` all that becomes the derivative's own form:
    ``(1 / q + 1 / q_r) / 2 (m - mean(m) - u mean(m u))``.
    """
    xp, (q, qr) = namespace(m), size
    u = (y[0] * q + y[1] * qr) / (q + qr)
    found = m - u * xp.mean_last(m * u)
    if centred:
        found = found - xp.mean_last(m)
    return found * xp.half_sum(1 / q, 1 / qr)


def normalised(m: Array, x: Sides, y: Sides, bound: float) -> Array:
    """y = x / b with the norm b = max(sqrt(sum(x^2)), bound): ``ratio``, and the secants of all that the norm is made of.

    The product of x and 1 / b would not do: where one side is 0 its shares are as large as 1 / bound, and cancel.
    """
    xp = namespace(m)
    n, nr = norms = [xp.sqrt(xp.sum_last(side * side)) for side in x]
    b, br = sizes = xp.clip(n, bound), xp.clip(nr, bound)
    by_x, by_size = ratio(m, sizes, y)
    slope = secants.quotient_where(~xp.equal(n, nr), b - br, n - nr, xp.cast(n > bound, n))
    return by_x + xp.sum_last(by_size) * slope * secants.sqrt(n * n, nr * nr, *norms) * (x[0] + x[1])


# ---------------------------------------------------------------------- order, along the last axis
def greatest(m: Array, x: Array, r: Array, i: Array, j: Array) -> Array:
    """Cross-max of each of some windows, in which nothing ties; x is greatest at the positions i, r at j.

    With ``y = x_i`` and ``y_r = r_j`` a rise goes to i and a fall to j; there the input changed at least as much as
    the output, so the slope is at most 1.
    """
    xp, same = namespace(x), namespace(x).equal(i, j)
    y, yr = xp.take(x, i), xp.take(r, j)
    change = y - yr
    to_i = xp.where(same, 1.0, secants.quotient_where(change > 0, change, y - xp.take(r, i)))
    to_j = xp.where(same, 0.0, secants.quotient_where(change < 0, change, xp.take(x, j) - yr))
    return xp.put(x, (i, m * to_i), (j, m * to_j))


def maximum(m: Array, x: Array, r: Array) -> Array:
    """Cross-max of the one greatest value, shared by all elements that have it: it does not depend on their order."""
    xp = namespace(x)
    return m * slopes_of_greatest(x, r, xp.max_last(x), xp.max_last(r), xp.sum_last)


def slopes_of_greatest(x: Array, r: Array, y: Array, yr: Array, count: Callable[[Array], Array]) -> Array:
    """Cross-max of the greatest of some elements, y of x and yr of r, shared by all that have the one that counts.

    ``count`` sums over the elements among which each one is.
    """
    xp, still = namespace(x), namespace(x).equal(y, yr)
    at, at_r = xp.equal(x, y), xp.equal(r, yr)
    own = (at & (y > yr)) | (at_r & (y < yr)) | (at & at_r & still)
    share = xp.cast(own, x)
    return secants.quotient_where(own & ~still, y - yr, x - r, 1.0) * share / xp.clip(count(share), 1.0)


def ordered(m: Array, x: Array, r: Array) -> Array:
    """Values in ascending order: the share of the way from reference to example that an element holds a rank.

    Along the segment sorting only permutes, and the permutation changes where two elements cross; between crossings an
    element's slope is the multiplier of its rank. So the path integral (Aumann-Shapley) is a finite sum, and exact.
    Elements that are equal all the way share the multipliers of their ranks.
    """
    xp, size = namespace(x), x.shape[-1]
    if size == 1:
        return m + xp.zeros_like(x)
    times = _crossings(r, x - r)

    def between(k: Array, total: Array) -> Array:
        start, end = times[..., k, None], times[..., k + 1, None]  # of k : k + 1 XLA does not know how wide it is

        def held() -> Array:
            point = xp.lerp(r, x, (start + end) / 2)
            order = xp.argsort(point)
            return total + (end - start) * xp.unsorted(order, _shared(m, xp.take(point, order)))

        return xp.cond(xp.anywhere(end > start), held, lambda: total)

    return xp.fold(between, size * (size - 1) // 2 + 1, xp.zeros_like(x))


def chosen(m: Array, x: Array, r: Array, p: Array, pr: Array) -> Array:
    """Positions of the greatest values in descending order, K of them: p of x and pr of r.

    What a position explains is given to the values that made the choice, in proportion to their changes: of those that rose
    past its rank the ones that grew, of those that fell behind it the ones that shrank. There always is one.
    """
    xp, most = namespace(x), -namespace(x).lowest(x) / 2
    d = xp.clip(x, -most, most) - xp.clip(r, -most, most)  # infinities of both sides do not differ
    level, effect = xp.count_up(xp.ones_like(m)) - 1, xp.matched(m, x) * xp.matched(p - pr, x)
    level, effect, rank, rank_r = level[..., None], effect[..., None], _ranks(x)[..., None, :], _ranks(r)[..., None, :]
    rose = ((rank <= level) & (rank_r > level)) | ((rank < level) & (rank_r >= level))
    fell = ((rank_r <= level) & (rank > level)) | ((rank_r < level) & (rank >= level))
    up, down = (xp.cast(moved & (sign * d[..., None, :] > 0), x) for moved, sign in ((rose, 1), (fell, -1)))
    total = xp.sum_last(up * d[..., None, :] - down * d[..., None, :])
    share = secants.quotient_where(total > 0, effect, total)
    return xp.sum_rows((up - down) * share)


def _ranks(x: Array) -> Array:
    """How many values are before each one in descending order; of equal ones the first is before the others."""
    xp = namespace(x)
    return xp.unsorted(xp.argsort(-x), xp.count_up(xp.ones_like(x)) - 1)


def coordinates(explained: Array, sides: Sequence[Sides]) -> list[Array]:
    """A place told by coordinates: what it explains is shared equally by those that differ."""
    xp = namespace(explained)
    differing = sum(xp.cast(~xp.equal(p, q), explained) for p, q in sides)
    return [on_change(secants.quotient_where(differing > 0, explained, differing), p, q) for p, q in sides]


def _shared(m: Array, ascending: Array) -> Array:
    """Multipliers of ranks, each the mean over the ranks of equal values."""
    xp = namespace(m)
    steps = ~xp.equal(ascending[..., 1:], ascending[..., :-1])
    group = xp.count_up(xp.concat([steps[..., :1] & False, steps]))
    sums, counts = (xp.put(m, (group, values)) for values in (m, xp.ones_like(m)))
    return xp.take(sums, group) / xp.take(counts, group)


def _crossings(r: Array, change: Array) -> Array:
    """Sorted times in [0, 1], both ends included, at which two elements of ``r + t change`` are equal."""
    xp, (i, j) = namespace(r), np.triu_indices(r.shape[-1], 1)
    closing = xp.columns(change, i) - xp.columns(change, j)
    times = secants.quotient_where(~xp.equal(closing, 0), xp.columns(r, j) - xp.columns(r, i), closing, 1.0)
    times = xp.where((times > 0) & (times < 1), times, 1.0)
    return xp.sort(xp.concat([xp.zeros_like(r[..., :1]), xp.ones_like(r[..., :1]), times]))


# ---------------------------------------------------------------------- what a step explains
def where_reached(m: Array, found: Array) -> Array:
    """What a rule has found, with 0 where nothing reaches an element whose slope is no number: a branch that is not taken."""
    xp = namespace(found)
    return xp.where(xp.equal(m, 0) & xp.isnan(found), 0.0, found)


def inner(m: Array, x: Array, r: Array) -> Array:
    """What a multiplier explains of a difference, real; the multipliers of complex values are conjugated, as gradients are."""
    xp = namespace(m)
    return explained(m, xp.matched(xp.where(xp.equal(x, r) | xp.equal(m, 0), 0.0, x - r), m))


def explained(m: Array, difference: Array) -> Array:
    """As ``inner``, of a difference."""
    xp = namespace(m)
    return xp.real(xp.conj(m) * difference)


Term = tuple[Array, Array, Array]  # a multiplier, and the two sides of what it belongs to


def local_gap(inputs: Sequence[Term], outputs: Sequence[Term]) -> tuple[Array, Array]:
    """How far one step is from explaining its own outputs, and the size of what it explains, in double precision."""
    explained, wanted = ([inner(*term) for term in terms] for terms in (inputs, outputs))
    gap = sum(namespace(e).total(e) for e in explained) - sum(namespace(w).total(w) for w in wanted)
    return abs(gap), sum(namespace(w).total(abs(w)) for w in wanted)
