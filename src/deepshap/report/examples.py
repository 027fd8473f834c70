"""The rows of a report: what the model said of each, how wrong it was, and which of them are worth a place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .content import Content


@dataclass(frozen=True)
class Judged:
    """How the model did on each row; everything is None where the targets or the outputs do not tell.

    predicted, true: (rows,) names of classes, or true values. each: (rows, outputs) true values, where the outputs have
    values of their own. wrong: (rows,) bool. error: (rows,), large where the model errs; ``meaning`` says what it
    measures. margin: the error is a margin with the sign turned.
    """

    predicted: np.ndarray | None = None
    true: np.ndarray | None = None
    each: np.ndarray | None = None
    wrong: np.ndarray | None = None
    error: np.ndarray | None = None
    meaning: str = ""
    margin: bool = False


def judge(content: Content) -> Judged:
    """Compare outputs with targets: classes by the margin between outputs, values by their distance.

    Raises
    ------
    InputError
        If the targets are neither names nor indexes of the outputs, nor values of a single output or of each.
    """
    targets, outputs, rows = content.targets, content.outputs, np.arange(len(content))
    names = np.broadcast_to(content.output_names, outputs.shape)
    if targets is None:
        ranked = outputs.shape[1] > 1 and content.flat
        return Judged(predicted=names[rows, outputs.argmax(1)] if ranked else None)
    if targets.ndim == 2 and not _is_one_hot(targets, content):
        return _judge_each(outputs, targets)
    if targets.ndim == 2:
        targets = targets.argmax(1)
    if outputs.shape[1] == 1 or not content.flat:
        return _judge_value(content, targets)
    texts = _as_classes(content, targets, names)
    hit = names == texts[:, None]
    here = hit.any(1)  # of the ranked outputs the true one may be missing
    if content.output_names.ndim == 1 and not here.all():
        row = int(np.argmin(here))
        raise InputError(
            f"the target of row {row} is {str(targets[row])!r}: targets must be names or indexes of the {outputs.shape[1]} "
            f"outputs. For values, give one for each output, targets of shape {outputs.shape}."
        )
    other = np.where(hit, -np.inf, outputs).max(1)
    error = np.where(here, other - np.where(hit, outputs, 0).sum(1), np.nan)
    predicted = names[rows, outputs.argmax(1)]
    return Judged(
        predicted,
        texts,
        wrong=predicted != texts,
        error=error,
        meaning="output of the true class minus the highest other one: below 0 the prediction is wrong",
        margin=True,
    )


def _as_classes(content: Content, targets: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Names of the true classes, from names or indexes."""
    count = names.shape[1]
    whole = targets.dtype.kind in "iub" and content.output_names.ndim == 1
    if whole and 0 <= targets.min() <= targets.max() < count:
        return content.output_names[targets.astype(int)]
    return np.array([str(target) for target in targets], dtype=object)


def _judge_value(content: Content, targets: np.ndarray) -> Judged:
    """Judge a single output, whose target is a value, or one of two classes, or cannot be compared."""
    true = np.array([float(t) if targets.dtype.kind in "iuf" else str(t) for t in targets], dtype=object)
    chosen = content.output_names[0] != "output"  # one of several classes: its target is not a value
    if content.outputs.shape[1] > 1 or targets.dtype.kind not in "biuf" or (chosen and targets.dtype.kind in "biu"):
        return Judged(true=true)
    output, value = content.outputs[:, 0], targets.astype(np.float64)
    if np.isin(value, (0, 1)).all() and targets.dtype.kind in "biu":
        error, threshold = _beyond(output, value)
        meaning = f"how far the output lies on the right side of {threshold}: below 0 the prediction is wrong"
        return Judged(None, true, wrong=error > 0, error=error, meaning=meaning, margin=True)
    return Judged(None, true, error=np.abs(output - value), meaning="|output − target|")


def _is_one_hot(targets: np.ndarray, content: Content) -> bool:
    """Tell whether targets (rows, outputs) mark one class of each row."""
    marks = content.flat and targets.dtype.kind in "biuf" and np.isin(targets, (0, 1)).all()
    return bool(marks) and bool((targets.sum(1) == 1).all())


def _judge_each(outputs: np.ndarray, targets: np.ndarray) -> Judged:
    """Judge outputs that have targets of their own, (rows, outputs): values, or yes and no."""
    if targets.dtype.kind not in "biuf":
        return Judged()
    values = targets.astype(np.float64)
    if targets.dtype.kind in "biu" and np.isin(values, (0, 1)).all():
        errors, threshold = _beyond(outputs, values)
        meaning = f"how far the worst output lies on the right side of {threshold}: below 0 a prediction is wrong"
        error = errors.max(1)
        return Judged(each=values, wrong=error > 0, error=error, meaning=meaning, margin=True)
    known = np.isfinite(values)
    sums, counts = np.where(known, np.abs(outputs - values), 0.0).sum(1), known.sum(1)
    error = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return Judged(each=values, error=error, meaning="|output − target|, mean over the outputs")


def _beyond(outputs: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, str]:
    """How far outputs lie on the wrong side of the threshold between 0 and 1, and which it is."""
    threshold = 0.5 if ((outputs >= 0) & (outputs <= 1)).all() else 0.0
    return (1 - 2 * truth) * (outputs - threshold), f"{threshold:g}"


# ---------------------------------------------------------------------- choosing
def priorities(content: Content, judged: Judged, seed: int) -> np.ndarray:
    """Order all rows by how much they deserve a place (rows,).

    The worst predictions, the largest attributions and rows drawn at random take turns.
    """
    rows = len(content)
    largest = np.argsort(-content.total_abs.max(1), kind="stable")
    lines = [largest, np.random.default_rng(seed).permutation(rows)]
    if judged.error is not None:
        lines.insert(0, np.argsort(-np.nan_to_num(judged.error, nan=-np.inf), kind="stable"))
    turns = np.stack(lines, axis=1).ravel()
    return turns[np.sort(np.unique(turns, return_index=True)[1])]


def outputs_worth_showing(content: Content, judged: Judged, count: int) -> np.ndarray:
    """Choose ``count`` outputs, in their order: those that are true or highest most often, then by attribution."""
    names = content.output_names
    if count >= content.outputs.shape[1]:
        return np.arange(content.outputs.shape[1])
    often = np.bincount(content.outputs.argmax(1), minlength=content.outputs.shape[1]).astype(float)
    if judged.true is not None and names.ndim == 1:
        often += (judged.true[:, None] == names).sum(0)
    size = content.total_abs.mean(0)
    return np.sort(np.lexsort((-size, -often))[:count])
