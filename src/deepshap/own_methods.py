"""Methods of the user's own: what they yield is checked as it comes, and what is wrong with it is said of them."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np

from .engines.api import Comparison, Points
from .errors import AdditivityError, InputError, of_user
from .methods import DeepShap, Evaluation, Known, Method, Parts, Request, Term
from .paths import AllCoalitions, Paths
from .players import Players

OURS = DeepShap, Paths, AllCoalitions


def check_method(method: Any) -> None:
    """Raise InputError for what cannot be a method."""
    what = _lacking(method)
    if what is not None:
        raise InputError(f"method must be an object with all that deepshap.methods.Method has: {what}.")


def _lacking(method: Any) -> str | None:
    """Why it cannot be a method, if it cannot."""
    if isinstance(method, type):
        return f"{method.__name__} is a class, not one of its objects"
    kind = type(method).__name__
    lacks = [name for name in ("description", "players", "shrinks", "pairs", "parts") if not hasattr(method, name)]
    if lacks:
        return f"{kind} has no {', '.join(lacks)}"
    if not isinstance(method.description, str):
        return f"the description of {kind} is no text"
    if not (method.players is None or isinstance(method.players, Players)):
        return f"the players of {kind} are {type(method.players).__name__}, no deepshap.players.Players (or None)"
    return None


def pairs_of(method: Method, whole: Comparison) -> int:
    """How many pairs and points a method says that it runs."""
    if isinstance(method, OURS):
        return method.pairs(whole)
    with of_user(f"{_named(method)}, asked for its pairs,"):
        count = method.pairs(whole)
    if not isinstance(count, Real) or not math.isfinite(count):
        said = repr(count) if isinstance(count, Real) else type(count).__name__
        raise InputError(f"{_named(method)} says that it runs {said} of pairs, which is no number of them.")
    return int(count)


def parts_of(method: Method, whole: Comparison) -> Parts:
    """The parts of a method; of the user's own each is checked.

    Raises
    ------
    InputError
        If a part of the user's method is none, or does not fit the comparison.
    UserCodeError
        If the method fails.
    """
    return method.parts(whole) if isinstance(method, OURS) else _checked(method, _handed_out(whole))


def _handed_out(whole: Comparison) -> Comparison:
    """The same in arrays of its own: what a method writes into them stays its own affair."""
    x, r = (replace(Points.joined([points]), key=points.key) for points in (whole.examples, whole.references))
    return Comparison(x, r, whole.crossed, whole.outputs.copy(), whole.before)


def check_sums(method: Method, found: np.ndarray, wanted: np.ndarray, beyond: np.ndarray, allowed: np.ndarray) -> None:
    """Raise AdditivityError where the parts of a user's method do not add up to the comparison; all are (rows, k).

    ``found`` and ``wanted`` are differences of outputs, those of the parts and those of the model. ``beyond`` is the most
    that any replicate explains beyond what belongs to all.
    """
    if isinstance(method, OURS):
        return
    missed = np.nan_to_num(np.abs(found - wanted) - allowed, nan=np.inf)
    if (missed > 0).any():
        at = np.unravel_index(np.argmax(missed), missed.shape)
        raise AdditivityError(
            f"the parts of {_named(method)} sum to {found[at]:.6g} for row {at[0]}, output {at[1]}, where the outputs differ by "
            f"{wanted[at]:.6g}: weighted, the differences of outputs of its pairs must add up to the row's output minus the mean "
            "output of its references. Look at its weights and rows. (If they are right, the model's output depends on the "
            "batch, on random numbers or on state kept between calls.)"
        )
    if (beyond > allowed).any():
        at = np.unravel_index(np.nanargmax(beyond - allowed), beyond.shape)
        raise AdditivityError(
            f"a replicate of {_named(method)} explains {beyond[at]:.6g} for row {at[0]}, output {at[1]}, beyond the parts that "
            "belong to all: these explain the whole difference of outputs, so that the parts of each replicate must sum to 0. "
            "Yield with each replicate, with weights of the other sign, what it is an estimate of."
        )


def _named(method: Method) -> str:
    return f"the method ({method.description})"


# ---------------------------------------------------------------------- parts as they come
def _checked(method: Method, whole: Comparison) -> Parts:
    who, players = _named(method), method.players
    shapes = [tuple(x.shape[1:]) for x in whole.examples.inputs]
    if players is not None and [cells.shape for cells in players.cells] != shapes:
        raise InputError(f"the players of {who} are for {[c.shape for c in players.cells]}; rows here are {shapes}.")
    with of_user(who):
        parts: Any = method.parts(whole)
    if not isinstance(parts, Generator):
        raise InputError(f"parts of {who} must yield them (be a generator), and returned {type(parts).__name__}.")
    halves, answer, of_all = _Halves(who, len(whole.examples)), None, False
    while True:
        with of_user(who):
            try:
                part = parts.send(answer)
            except StopIteration:
                break
        _check(who, part, whole, players)
        if not isinstance(part, Evaluation):
            of_all |= part.replicates is None
            halves.take(part)
        answer = yield part
    halves.check()
    if not of_all:
        raise InputError(
            f"{who} yielded no part that belongs to all replicates (replicates=None): these add up to the whole comparison."
        )


def _check(who: str, part: Request, whole: Comparison, players: Players | None) -> None:
    """Raise InputError for a part that is none, or does not fit."""
    kind = type(part).__name__
    if isinstance(part, Evaluation):
        if not isinstance(part.points, Points):
            raise InputError(f"{who} yielded an Evaluation of {type(part.points).__name__}; it takes Points.")
        return
    if not isinstance(part, Term | Known):
        raise InputError(f"{who} yielded {kind}; a part is a Term, an Evaluation or Known of deepshap.methods.")
    yielded = f"{who} yielded {kind}"
    if players is None and (isinstance(part, Known) or part.replicates is not None):
        needing = "" if isinstance(part, Known) else " with replicates"
        raise InputError(
            f"{yielded}{needing}, which is for players: give it players (those of all cells, for instance)."
        )
    explained = whole.outputs.shape[1]
    count = _count_of_pairs(yielded, part, explained) if isinstance(part, Term) else np.size(part.rows)
    if count == 0:
        raise InputError(f"{yielded} without examples.")
    if isinstance(part, Known) and players is not None and np.shape(part.values) != (count, players.count, explained):
        raise InputError(
            f"{yielded} with values of shape {np.shape(part.values)}; (examples, players, outputs) are here "
            f"{(count, players.count, explained)}."
        )
    most = len(whole.examples) - 1
    _check_numbers(f"{yielded}, whose rows", part.rows, count, "i", (0, most))
    _check_numbers(f"{yielded}, whose weights", part.weights, count, "fi", (-math.inf, math.inf))
    if part.replicates is not None:
        _check_numbers(f"{yielded}, whose replicates", part.replicates, count, "i", (0, math.inf))


def _count_of_pairs(yielded: str, term: Term, explained: int) -> int:
    """Number of examples of a term, whose comparison must fit together."""
    pairs = term.comparison
    if not isinstance(pairs, Comparison):
        raise InputError(f"{yielded}, whose comparison is {type(pairs).__name__}, no deepshap.engines.api.Comparison.")
    count = len(pairs.examples)
    if np.shape(pairs.outputs) != (count, explained):
        raise InputError(
            f"{yielded}, whose comparison has outputs of shape {np.shape(pairs.outputs)}; here it must be {(count, explained)}: "
            "those of the row that each example belongs to, whole.outputs[rows]."
        )
    if not pairs.crossed and len(pairs.references) != count:
        raise InputError(
            f"{yielded}, which compares {count} examples, row by row, with {len(pairs.references)} references."
        )
    return count


def _check_numbers(what: str, array: Any, count: int, kinds: str, within: tuple[float, float]) -> None:
    """Raise InputError for what is no array of one number for each example, between two or finite."""
    of = "whole numbers" if kinds == "i" else "numbers"
    if not isinstance(array, np.ndarray) or array.shape != (count,) or array.dtype.kind not in kinds:
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{what} must be a NumPy array of {count} {of}, one for each example, not {found}.")
    low, high = within
    wrong = array[~(np.isfinite(array) & (array >= low) & (array <= high))]
    if len(wrong):
        allowed = "finite" if low == -math.inf else f"0 or more{'' if high == math.inf else f', {high} at most'}"
        raise InputError(f"{what} must be {allowed}, not {wrong[0]}.")


@dataclass
class _Halves:
    """Halves of replicates that have come, of which rows; all of a replicate before the next but one begins."""

    who: str
    rows: int
    came: dict[int, np.ndarray] = field(default_factory=dict)
    first: int = 0

    def take(self, part: Term | Known) -> None:
        if part.replicates is None:
            return
        first = int(part.replicates.min()) // 2
        if first < self.first:
            raise InputError(
                f"{self.who} yielded a part of replicate {first} after parts of replicates from {self.first} on: both halves of "
                "a replicate come together, one replicate after the other."
            )
        self.first = first
        self.check(first)
        for half in np.unique(part.replicates):
            came = self.came.setdefault(int(half), np.zeros(self.rows, bool))
            came[part.rows[part.replicates == half]] = True

    def check(self, before: float = math.inf) -> None:
        """Raise InputError if one of the replicates before a number is not complete."""
        for number in sorted({half // 2 for half in self.came if half // 2 < before}):
            for half in (2 * number, 2 * number + 1):
                came = self.came.pop(half, np.zeros(self.rows, bool))
                if not came.all():
                    raise InputError(
                        f"{self.who} yielded no part of half {half} of replicate {number} for row {np.argmin(came)}: a replicate "
                        "r has two halves, 2 r and 2 r + 1 (an order and its reverse, say), each of all rows."
                    )
