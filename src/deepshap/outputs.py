"""Outputs: which outputs of each row are explained, and transforms of the model's output.

``output_selection`` reads the options ``ranked_outputs``, ``output_rank_order``, ``target`` and ``targets`` of a call into an
``OutputSelection``. Attributions are linear in the explained output. A difference of two outputs is therefore explained as
the difference of their attributions. Logits, log-odds and functions of the output are transforms that the model is run with:
``with_output_transform`` returns an engine of the transformed model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .engines.interface import Engine, ModelProfile, Points
from .errors import InputError, NoHeadError, check_choice, check_count, is_whole
from .explanation.labels import as_labels

ORDERS = {"max": lambda v: -v, "min": lambda v: v, "max_abs": lambda v: -np.abs(v)}
LOGITS, LOG_ODDS = "logits", "log-odds"
PREDICTED, TRUE, RUNNER_UP = "predicted", "true", "runner-up"
UNCLEAR = (
    "Nor does the background tell logits from probabilities: several outputs that sum to 1 in all of its rows are probabilities, "
    "one below 0 or above 1 is a logit. A background that is a function tells nothing, and with arguments of each row it must "
    "tell the same for all of them."
)


@dataclass(frozen=True)
class OutputSelection:
    """Which outputs of each row are explained.

    Without ``terms`` these are all outputs or, with ``count``, the first ``count`` of each row in an ``order``. With ``terms``
    it is one number of each row: an output, or the difference of two.

    Attributes
    ----------
    names : names of the outputs, if they are known.
    count, order : how many outputs, by "max", "min" or "max_abs".
    terms : "predicted", "runner-up", "true", or the index or name of an output; one or two of these.
    transform : what is done to the model's output before: "logits" (the input of its softmax or sigmoid), "log-odds" of each
        class against all others, or a function of the user.
    words : what is explained, for people.
    truth : the true class of each row, if it is known.
    signs : 1 or -1 of each row, where a single output answers yes or no and speaks for either.
    """

    names: Sequence[str] | None = None
    count: int | None = None
    order: str = "max"
    terms: tuple[Any, ...] = ()
    transform: str | Callable[[Any], Any] | None = None
    words: str | None = None
    truth: np.ndarray | None = None
    signs: np.ndarray | None = None
    log_odds: bool = False

    @property
    def weights(self) -> np.ndarray:
        """Weights of the terms."""
        return np.array([1.0, -1.0])[: len(self.terms)]

    # ------------------------------------------------------------------ which outputs
    def columns(self, outputs: np.ndarray, profile: ModelProfile) -> np.ndarray:
        """Return the numbers of the explained outputs of each row, (rows, k)."""
        shape = profile.output_shape
        check_output_names(self.names, shape)
        if not self.terms:
            return self._ranked(outputs)
        if len(shape) > 1 and not all(isinstance(term, tuple) for term in self.terms):
            raise InputError(
                f"target={self.words!r}: the outputs of a row have shape {shape}; give a tuple of indexes, or pick some with "
                "output=."
            )
        return np.stack([self._column(term, outputs, shape) for term in self.terms], 1)

    def _ranked(self, outputs: np.ndarray) -> np.ndarray:
        if self.count is None:
            return np.tile(np.arange(outputs.shape[1]), (len(outputs), 1))
        if not is_whole(self.count) or not 1 <= self.count <= outputs.shape[1]:
            raise InputError(
                f"ranked_outputs must be between 1 and the number of outputs, {outputs.shape[1]}, not {self.count!r}."
            )
        return np.argsort(ORDERS[self.order](outputs), axis=1, kind="stable")[:, : self.count]

    def _column(self, term: Any, outputs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        rows, count = outputs.shape
        if count == 1 and self.log_odds and term in (PREDICTED, TRUE, *yes_and_no(self.names)):
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
            return self._true(rows, lambda true_class: class_of(true_class, self.names, count))
        if isinstance(term, tuple):
            try:
                return np.full(rows, np.ravel_multi_index([i % n for i, n in zip(term, shape, strict=True)], shape))
            except (ValueError, TypeError):
                raise InputError(f"there is no output {term} among outputs of shape {shape}.") from None
        return np.full(rows, index_of(term, self.names, count, f", or {PREDICTED!r}, {RUNNER_UP!r}, {TRUE!r}"))

    def _true(self, rows: int, read: Callable[[Any], Any]) -> np.ndarray:
        if self.truth is None:
            raise InputError("target='true' needs targets=, the true class of each row.")
        check_truth(self.truth, rows, dims=1)
        return np.array([read(true_class) for true_class in self.truth.tolist()])

    def resolved(self, outputs: np.ndarray) -> OutputSelection:
        """Return the selection with the signs of rows, from the log-odds (rows, 1) of a single output; else as it is."""
        if not self.log_odds or outputs.shape[1] > 1:
            return self
        (term,), (yes, no) = self.terms, yes_and_no(self.names)
        if term == TRUE:
            for_it = self._true(len(outputs), lambda answer: is_yes(answer, yes, no))
        else:
            for_it = outputs[:, 0] > 0 if term == PREDICTED else np.full(len(outputs), term != no)
        return replace(self, signs=np.where(for_it, 1.0, -1.0))

    # ------------------------------------------------------------------ from columns to what is explained
    def combined(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return what is explained from the chosen columns, (rows, ..., k): with the output's axes, of ranks, or one number."""
        if not self.terms:
            return array.reshape(*array.shape[:-1], *(shape if self.count is None else array.shape[-1:]))
        selected: np.ndarray = array @ self.weights
        return selected if self.signs is None else selected * self.signs.reshape(-1, *[1] * (selected.ndim - 1))

    def error_bound(self, errors: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return standard errors of what is explained, at most, from those of the columns: these may be correlated."""
        return errors @ np.abs(self.weights) if self.terms else self.combined(errors, shape)

    def worst(self, gap: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the gap of what is explained, the largest of the columns' gaps."""
        return gap.max(1) if self.terms else self.combined(gap, shape)

    # ------------------------------------------------------------------ in words
    def described(self, shape: tuple[int, ...]) -> str | None:
        """Return what is explained of outputs of this shape, in words: the only output of a model was not chosen."""
        if self.terms == (PREDICTED,) and not self.log_odds and math.prod(shape) == 1:
            return str(self.names[0]) if self.names else "output 0"
        return self.words

    def explained_names(self, columns: np.ndarray, shape: tuple[int, ...]) -> Any:
        """Return names of what is explained; where each row has outputs of its own, (rows, ranked outputs)."""
        if self.terms:
            return self.described(shape)
        if self.count is None:
            return self.names
        if self.names is not None and len(shape) == 1:
            return np.asarray(self.names)[columns]
        places = np.stack(np.unravel_index(columns, shape), -1).tolist()
        return np.array([["Output " + ", ".join(map(str, place)) for place in row] for row in places])


# ---------------------------------------------------------------------- reading the options
def output_selection(
    ranked_outputs: int | None, order: str, target: Any, targets: Any, names: Sequence[str] | None
) -> OutputSelection:
    """Return which outputs a call asks for, by rank or by a target.

    Parameters
    ----------
    ranked_outputs, order
        How many outputs, and by which order.
    target : str, int, tuple or callable, optional
        "predicted", "true", "runner-up", an output's name or index, "A - B" of two such; "logits"; "log-odds" (of what is
        predicted), "log-odds of A"; or a function of the model's output.
    targets : array, optional
        True classes, by index or name.
    names : sequence of str, optional
        Names of the outputs.

    Raises
    ------
    InputError
        If the target cannot be read, or both are given.
    """
    check_choice("output_rank_order", order, tuple(ORDERS))
    if target is None:
        return OutputSelection(names, ranked_outputs, order)
    if ranked_outputs is not None:
        raise InputError("target= and ranked_outputs= both say which outputs to explain: give one of them.")
    truth, known_names = as_labels(targets, "targets"), list(names or [])
    if isinstance(target, str) and target not in known_names and re.fullmatch(r"-?\d+", target.strip()):
        target = int(target)
    if callable(target):
        name = getattr(target, "__name__", "<lambda>")
        return OutputSelection(transform=target, words="a function of the outputs" if name == "<lambda>" else name)
    if isinstance(target, tuple) and len(target) == 1:
        (target,) = target
    if isinstance(target, tuple) or is_whole(target):
        named = known_names and is_whole(target) and -len(known_names) <= target < len(known_names)
        words = str(known_names[int(target)]) if named else f"output {target}"
        return OutputSelection(names, terms=(target,), words=words, truth=truth)
    if not isinstance(target, str):
        raise InputError(f"target must be a text, an index or a function of the outputs, not {type(target).__name__}.")
    if target == LOGITS:
        return OutputSelection(names, transform=LOGITS, words=LOGITS)
    text, transform = target.strip(), None
    if text not in known_names and re.match(rf"{LOG_ODDS}(\s|$)", text):
        text, transform = re.sub(rf"^{LOG_ODDS}(\s+of\s+)?", "", text).strip() or PREDICTED, LOG_ODDS
    terms = (text,) if text in known_names else tuple(part.strip() for part in re.split(r"\s[-\u2212\u2013]\s", text))
    if len(terms) > 2 or not all(terms):
        raise InputError(f"target={target!r} is neither an output nor the difference of two, 'A - B'.")
    words = f"{LOG_ODDS} of {text}" if transform else text
    return OutputSelection(
        names, terms=terms, transform=transform, words=words, truth=truth, log_odds=transform is not None
    )


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
    """Return what a single output answers, by its name: "ill", "not ill"."""
    return (str(names[0]), f"not {names[0]}") if names else ("1", "0")


def is_yes(answer: Any, yes: str, no: str) -> bool:
    """Return whether a true answer is yes, from 0 and 1, or its name."""
    if isinstance(answer, str) and answer in (yes, no):
        return answer == yes
    if not isinstance(answer, str) and answer in (0, 1):
        return bool(answer)
    raise InputError(f"targets: {answer!r} is neither 1 nor 0, {yes!r} nor {no!r}, which a single output may answer.")


def index_of(key: Any, names: Sequence[str] | None, count: int, besides: str = "") -> int:
    """Return the number of an output, from its name or index; ``besides`` says what else might have been meant."""
    if isinstance(key, str) and key in (names or []):
        return list(names or []).index(key)
    if isinstance(key, str) and key.lstrip("-").isdecimal():
        key = int(key)
    if is_whole(key) and -count <= key < count:
        return int(key) % count
    hint = f", named {list(names)}" if names else "; names are given as output_names"
    raise InputError(f"there is no output {key!r} among {count}{hint}{besides}.")


def class_of(true: Any, names: Sequence[str] | None, count: int) -> int:
    """Return the number of a true class, from its name or number; none is counted from the end: -1 stands for no label."""
    number = index_of(true, names, count)
    if true not in (names or []) and int(true) < 0:
        raise InputError(f"targets: there is no class {true!r}; classes are numbered from 0 to {count - 1}.")
    return number


# ---------------------------------------------------------------------- transforms
def kind_of(outputs: np.ndarray) -> str:
    """Return what outputs (rows, outputs) may be: "probabilities", "unclear" (from 0 to 1, no sum of 1), or "logits"."""
    if not outputs.size or outputs.min() < 0 or outputs.max() > 1:
        return "logits"
    return "probabilities" if outputs.shape[1] > 1 and np.allclose(outputs.sum(1), 1, atol=1e-3) else "unclear"


def with_output_transform(
    engine: Engine, transform: Any, examples: Points, references: Points | None, outputs: np.ndarray, at_once: int
) -> Engine:
    """Return the engine of a transform of the model's output.

    Where no softmax or sigmoid is to be seen, what the background gives says whether outputs are logits or probabilities:
    that of a row by itself might be taken for either.

    Raises
    ------
    InputError
        If that cannot be said, or ``outputs``, those of the examples, contradict it.
    """

    def transformed(otherwise: str) -> Engine:
        model, output = engine.heads.changed(engine.model, engine.output, transform, otherwise)
        return engine.with_output((transform, otherwise), model, output)

    if callable(transform):
        return transformed("refuse")
    try:
        before = transformed("refuse")
        engine.heads.look(before, examples[:1])
        return before
    except NoHeadError as error:
        if transform == LOGITS:
            raise
        kind = _kind_on_background(engine, examples, references, at_once)
        if kind == "unclear":
            raise InputError(f"{error} {UNCLEAR}") from error
    strange = [row for row in range(len(outputs)) if kind == "probabilities" and kind_of(outputs[[row]]) != kind]
    if strange:
        raise InputError(
            f"row {strange[0]} of X: the model returns {outputs[strange[0]]}, which are no probabilities, and for the background "
            "it returns probabilities. Their logarithm, of which log-odds are made, has a meaning for all rows or for none: "
            "explain a function of the output."
        )
    return transformed(kind)


def _kind_on_background(engine: Engine, examples: Points, references: Points | None, at_once: int) -> str:
    """Return what the model's outputs on the background are, as each row sees it: "unclear" too where that depends on the row."""
    if references is None:
        return "unclear"
    described = any(map(examples.form.has_rows, examples.extra))
    kinds = set()
    for row in range(len(examples) if described else 1):
        seen = references.described_by(examples[np.full(len(references), row)])
        kinds.add(engine.cached(seen.key, lambda: kind_of(engine.outputs(seen, at_once, "the background"))))  # noqa: B023
    return kinds.pop() if len(kinds) == 1 else "unclear"
