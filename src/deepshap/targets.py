"""Which outputs of each row are explained: all, the highest, or what a decision is about."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .engines.api import Profile
from .errors import InputError
from .names import as_labels, check_count, is_whole
from .options import check_choice

ORDERS = {"max": lambda v: -v, "min": lambda v: v, "max_abs": lambda v: -np.abs(v)}
LOGITS, LOG_ODDS = "logits", "log-odds"
PREDICTED, TRUE, RUNNER_UP = "predicted", "true", "runner-up"
Change = str | Callable[[Any], Any] | None  # of the model's output, before outputs are picked


@dataclass(frozen=True)
class Ranked:
    """All outputs, or the first so many of each row in an order."""

    count: int | None = None
    order: str = "max"
    change: Change = None
    words: str | None = None
    names: Sequence[str] | None = None

    def columns(self, outputs: np.ndarray, profile: Profile) -> np.ndarray:
        """Numbers of the explained outputs of each row, (rows, k)."""
        check_output_names(self.names, profile.output_shape)
        if self.count is None:
            return np.tile(np.arange(outputs.shape[1]), (len(outputs), 1))
        if not is_whole(self.count) or not 1 <= self.count <= outputs.shape[1]:
            raise InputError(
                f"ranked_outputs must be between 1 and the number of outputs, {outputs.shape[1]}, not {self.count!r}."
            )
        return np.argsort(ORDERS[self.order](outputs), axis=1, kind="stable")[:, : self.count]

    def shaped(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Give explained outputs, (..., k), the axes that the model's have, or one of ranks."""
        return array.reshape(*array.shape[:-1], *(shape if self.count is None else array.shape[-1:]))

    worst = bound = shaped

    def turned(self, outputs: np.ndarray) -> Ranked:
        """As it is: an output is not turned."""
        return self

    def worded(self, shape: tuple[int, ...]) -> str | None:
        """What is explained of outputs of this shape, for people."""
        return self.words


@dataclass(frozen=True)
class Target:
    """One number for each row: an output, or the difference of two.

    Attributes
    ----------
    terms : "predicted", "runner-up", "true", or the index or name of an output.
    weights : of the terms, 1 and -1.
    change : what is done to the model's output before: "logits" (what its softmax or sigmoid gets), "log-odds" of each class
        against all others, or a function of the user.
    words : what is explained, for people.
    names, truth : names of the outputs, and the true class of each row, if they are known.
    odds : whether these are log-odds. The only output of a model then answers yes or no, and speaks for either.
    signs : 1 or -1 of each row, where one output is turned to what it speaks for.
    """

    terms: tuple[Any, ...]
    weights: np.ndarray
    change: Change
    words: str
    names: Sequence[str] | None
    truth: np.ndarray | None
    odds: bool = False
    signs: np.ndarray | None = None

    def columns(self, outputs: np.ndarray, profile: Profile) -> np.ndarray:
        """Numbers of the explained outputs of each row, (rows, terms)."""
        check_output_names(self.names, profile.output_shape)
        if len(profile.output_shape) > 1 and not all(isinstance(term, tuple) for term in self.terms):
            raise InputError(
                f"target={self.words!r}: the outputs of a row have shape {profile.output_shape}; give a tuple of indexes, or "
                "pick some with output=."
            )
        return np.stack([self._column(term, outputs, profile.output_shape) for term in self.terms], 1)

    def shaped(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The one number from those of the terms, (rows, ..., terms)."""
        found = array @ self.weights
        return found if self.signs is None else found * self.signs.reshape(-1, *[1] * (found.ndim - 1))

    def turned(self, outputs: np.ndarray) -> Target:
        """With the signs of rows, from the log-odds (rows, 1) of a single output; else as it is."""
        if not self.odds or outputs.shape[1] > 1:
            return self
        (term,), (yes, no) = self.terms, yes_and_no(self.names)
        if term == TRUE:
            for_it = self._truth(len(outputs), lambda one: is_yes(one, yes, no))
        else:
            for_it = outputs[:, 0] > 0 if term == PREDICTED else np.full(len(outputs), term != no)
        return replace(self, signs=np.where(for_it, 1.0, -1.0))

    def worded(self, shape: tuple[int, ...]) -> str:
        """What is explained of outputs of this shape, for people: a single output is nothing that was chosen."""
        if self.terms == (PREDICTED,) and not self.odds and math.prod(shape) == 1:
            return str(self.names[0]) if self.names else "output 0"
        return self.words

    def bound(self, errors: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """At most the standard error of the one number, from those of the terms: they may go together."""
        return errors @ np.abs(self.weights)

    def worst(self, gap: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Largest gap of the terms, (rows,)."""
        return gap.max(1)

    def _column(self, term: Any, outputs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        rows, count = outputs.shape
        if count == 1 and self.odds and term in (PREDICTED, TRUE, *yes_and_no(self.names)):
            return np.zeros(rows, int)
        if term == PREDICTED:
            return outputs.argmax(1)
        if count == 1 and term in (RUNNER_UP, TRUE):
            raise InputError(
                f"there is no {term} output to choose: the model has a single output. What speaks for its answer, yes or no, "
                f"is target={LOG_ODDS!r}, for the true one {LOG_ODDS + ' of true'!r}; the output itself is 0, or its name."
            )
        if term == RUNNER_UP:
            return np.argsort(-outputs, axis=1, kind="stable")[:, 1]
        if term == TRUE:
            return self._truth(rows, lambda one: class_of(one, self.names, count))
        if isinstance(term, tuple):
            try:
                return np.full(rows, np.ravel_multi_index([i % n for i, n in zip(term, shape, strict=True)], shape))
            except (ValueError, TypeError):
                raise InputError(f"there is no output {term} among outputs of shape {shape}.") from None
        return np.full(rows, index_of(term, self.names, count, f", or {PREDICTED!r}, {RUNNER_UP!r}, {TRUE!r}"))

    def _truth(self, rows: int, read: Callable[[Any], Any]) -> np.ndarray:
        if self.truth is None:
            raise InputError("target='true' needs targets=, the true class of each row.")
        check_truth(self.truth, rows, dims=1)
        return np.array([read(one) for one in self.truth.tolist()])


Wish = Ranked | Target


def check_output_names(names: Sequence[str] | None, shape: tuple[int, ...] | None) -> None:
    """Raise unless there are as many names as outputs, where both are known."""
    if names is not None and shape is not None:
        check_count("output_names", names, shape[-1] if shape else 1)


def check_truth(targets: Any, rows: int, dims: int | None = None) -> None:
    """Raise unless there is a true class, or value, of each row, where there are any."""
    truth = as_labels(targets, "targets")
    if truth is not None and (truth.shape[:1] != (rows,) or dims not in (None, truth.ndim)):
        raise InputError(f"targets has shape {truth.shape} for {rows} rows: give the true class of each row.")


def yes_and_no(names: Sequence[str] | None) -> tuple[str, str]:
    """What a single output answers, by its name: "ill", "not ill"."""
    return (str(names[0]), f"not {names[0]}") if names else ("1", "0")


def is_yes(answer: Any, yes: str, no: str) -> bool:
    """Whether a true answer is yes, from 0 and 1, or its name."""
    if isinstance(answer, str) and answer in (yes, no):
        return answer == yes
    if not isinstance(answer, str) and answer in (0, 1):
        return bool(answer)
    raise InputError(f"targets: {answer!r} is neither 1 nor 0, {yes!r} nor {no!r}, which a single output may answer.")


def index_of(key: Any, names: Sequence[str] | None, count: int, besides: str = "") -> int:
    """Number of an output, from its name or index; ``besides`` says what else might have been meant."""
    if isinstance(key, str) and key in (names or []):
        return list(names or []).index(key)
    if isinstance(key, str) and key.lstrip("-").isdecimal():
        key = int(key)
    if is_whole(key) and -count <= key < count:
        return int(key) % count
    known = f", named {list(names)}" if names else "; names are given as output_names"
    raise InputError(f"there is no output {key!r} among {count}{known}{besides}.")


def class_of(true: Any, names: Sequence[str] | None, count: int) -> int:
    """Number of a true class, from its name or number; none is counted from the end: -1 is what has no label."""
    found = index_of(true, names, count)
    if true not in (names or []) and int(true) < 0:
        raise InputError(f"targets: there is no class {true!r}; classes are numbered from 0 to {count - 1}.")
    return found


def wish_of(ranked_outputs: int | None, order: str, target: Any, targets: Any, names: Sequence[str] | None) -> Wish:
    """Which outputs a call asks for; either by rank or by a target."""
    check_choice("output_rank_order", order, tuple(ORDERS))
    if target is None:
        return Ranked(ranked_outputs, order, names=names)
    if ranked_outputs is not None:
        raise InputError("target= and ranked_outputs= both say which outputs to explain: give one of them.")
    return read_target(target, targets, names)


def read_target(target: Any, targets: Any, names: Sequence[str] | None) -> Wish:
    """Read what the user wants to be explained.

    Parameters
    ----------
    target : str, int, tuple or callable
        "predicted", "true", "runner-up", an output's name or index, "A - B" of two such; "logits"; "log-odds" (of what is
        predicted), "log-odds of A"; or a function of the model's output.
    targets : array, optional
        True classes, by index or name.
    names : sequence of str, optional
        Of the outputs.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    truth = as_labels(targets, "targets")
    if isinstance(target, str) and target not in (names or []) and re.fullmatch(r"-?\d+", target.strip()):
        target = int(target)
    if callable(target):
        name = getattr(target, "__name__", "<lambda>")
        words = "a function of the outputs" if name == "<lambda>" else name
        return Ranked(change=target, words=words)
    if isinstance(target, tuple) and len(target) == 1:
        (target,) = target
    if isinstance(target, tuple):
        return Target((target,), np.ones(1), None, f"output {target}", names, truth)
    if is_whole(target):
        known = names is not None and -len(names) <= target < len(names)
        words = str(list(names or [])[int(target)]) if known else f"output {target}"
        return Target((target,), np.ones(1), None, words, names, truth)
    if not isinstance(target, str):
        raise InputError(f"target must be a text, an index or a function of the outputs, not {type(target).__name__}.")
    if target == LOGITS:
        return Ranked(change=LOGITS, words=LOGITS, names=names)
    text, change = target.strip(), None
    if text not in (names or []) and re.match(rf"{LOG_ODDS}(\s|$)", text):
        text, change = re.sub(rf"^{LOG_ODDS}(\s+of\s+)?", "", text).strip() or PREDICTED, LOG_ODDS
    terms = (text,) if text in (names or []) else tuple(part.strip() for part in re.split(r"\s[-\u2212\u2013]\s", text))
    if len(terms) > 2 or not all(terms):
        raise InputError(f"target={target!r} is neither an output nor the difference of two, 'A - B'.")
    words = f"{LOG_ODDS} of {text}" if change else text
    return Target(terms, np.array([1.0, -1.0])[: len(terms)], change, words, names, truth, change is not None)


def kind_of(outputs: np.ndarray) -> str:
    """What outputs (rows, outputs) may be: "probabilities", "unclear" (from 0 to 1, no sum of 1), or "logits"."""
    if not outputs.size or outputs.min() < 0 or outputs.max() > 1:
        return "logits"
    return "probabilities" if outputs.shape[1] > 1 and np.allclose(outputs.sum(1), 1, atol=1e-3) else "unclear"
