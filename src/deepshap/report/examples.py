"""The rows of a report: the prediction of each, its error, and the choice of the rows that are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .content import Content

NAMELESS = ("output", "output 0")


@dataclass(frozen=True)
class Judgement:
    """The predictions and errors of the rows; a field is None where targets and outputs do not tell.

    Attributes
    ----------
    predicted, true : names of classes, or true values, (rows,).
    target_values : true values, (rows, outputs), where each output has its own.
    wrong : whether the prediction is wrong, (rows,).
    error : large where the model errs, (rows,).
    meaning : what the error measures.
    margin : whether the error is a negative margin.
    """

    predicted: np.ndarray | None = None
    true: np.ndarray | None = None
    target_values: np.ndarray | None = None
    wrong: np.ndarray | None = None
    error: np.ndarray | None = None
    meaning: str = ""
    margin: bool = False


def judge_predictions(content: Content) -> Judgement:
    """Compare outputs with targets: classes by the margin between outputs, values by their distance.

    Raises
    ------
    InputError
        If the targets are neither names nor indexes of the outputs, nor values of a single output or of each.
    """
    targets, outputs = content.targets, content.outputs
    if targets is not None and targets.ndim == 2:
        if not _is_one_hot(targets, content):
            return _judge_each(outputs, targets)
        targets = targets.argmax(1)
    scores, names = _scores(content)
    values = targets is not None and targets.dtype.kind == "f" and outputs.shape[1] == 1  # of the one that is explained
    if scores.shape[1] == 1 or not content.flat or values:
        return Judgement() if targets is None else _judge_value(content, targets)
    predicted = names[np.arange(len(content)), scores.argmax(1)]
    if targets is None:
        return Judgement(predicted=predicted)
    texts = _as_classes(content, targets, names)
    hit = names == texts[:, None]
    here = hit.any(1)  # of the ranked outputs the true one may be missing
    if (names == names[0]).all() and not here.all():
        row = int(np.argmin(here))
        raise InputError(
            f"the target of row {row} is {str(targets[row])!r}: targets must be names or indexes of the {scores.shape[1]} "
            f"outputs. For values, give one for each output, targets of shape {outputs.shape}."
        )
    others = np.where(hit, -np.inf, scores).max(1)
    error = np.where(here, others - np.where(hit, scores, 0).sum(1), np.nan)
    return Judgement(
        predicted,
        texts,
        wrong=predicted != texts,
        error=error,
        meaning="output of the true class minus the highest other one: below 0 the prediction is wrong",
        margin=True,
    )


def _scores(content: Content) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs that the prediction is the highest of, and their names, (rows, classes) both: all, if known."""
    scores, names = content.outputs, content.output_names
    if content.predictions is not None and content.predictions.shape[1] > 1 and content.flat:
        scores = content.predictions
        same = names.shape == scores.shape[1:]
        numbered = names if same else [f"output {i}" for i in range(scores.shape[1])]
        names = np.array(content.classes or numbered, dtype=object)
    return scores, np.broadcast_to(names, scores.shape)


def _as_classes(content: Content, targets: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Return the names of the true classes, from names or indexes."""
    are_indexes = targets.dtype.kind in "iub" and (names == names[0]).all()
    if are_indexes and 0 <= targets.min() <= targets.max() < names.shape[1]:
        return names[0][targets.astype(int)]
    return np.array([str(target) for target in targets], dtype=object)


def _single_output(content: Content) -> tuple[np.ndarray, str | None, bool]:
    """Return the outputs that are judged by themselves, their name if there is one, and whether the model has no others."""
    predictions, name = content.predictions, str(content.output_names.flat[0])
    if predictions is None or predictions.shape[1] > 1:
        return content.outputs, None if name in NAMELESS else name, False
    if content.classes or content.explained:  # whatever was made of the model's output for the explanation
        name = str(content.classes[0]) if content.classes else "output"
    return predictions, None if name in NAMELESS else name, True


def _judge_value(content: Content, targets: np.ndarray) -> Judgement:
    """Judge a single output, whose target is a value, or yes or no; or it is one of several, and cannot be compared."""
    outputs, name, sole = _single_output(content)
    answers = np.array(["0", "1"] if name is None else [f"not {name}", name], dtype=object)
    if sole and targets.dtype.kind not in "biuf" and np.isin(targets, answers).all():
        targets = (targets == answers[1]).astype(int)
    numbers = targets.dtype.kind in "biuf"
    true = np.array([float(t) if numbers else str(t) for t in targets], dtype=object)
    picked = not sole and name is not None  # one of several classes, perhaps: its whole numbers may be their indexes
    if outputs.shape[1] > 1 or not numbers or (picked and targets.dtype.kind in "biu"):
        return Judgement(true=true)
    output, value = outputs[:, 0], targets.astype(np.float64)
    if not np.isin(value, (0, 1)).all() or targets.dtype.kind not in "biu":
        return Judgement(None, true, error=np.abs(output - value), meaning="|output − target|")
    error, threshold = _distance_beyond(output, value)
    meaning = f"how far the output lies on the right side of {threshold}: below 0 the prediction is wrong"
    said = answers[(np.where(value == 1, -error, error) > 0).astype(int)]
    return Judgement(said, answers[value.astype(int)], wrong=error > 0, error=error, meaning=meaning, margin=True)


def _is_one_hot(targets: np.ndarray, content: Content) -> bool:
    """Return whether targets (rows, outputs) mark one class of each row."""
    marks = content.flat and targets.dtype.kind in "biuf" and np.isin(targets, (0, 1)).all()
    return bool(marks) and bool((targets.sum(1) == 1).all())


def _judge_each(outputs: np.ndarray, targets: np.ndarray) -> Judgement:
    """Judge outputs that have targets of their own, (rows, outputs): values, or yes and no."""
    if targets.dtype.kind not in "biuf":
        return Judgement()
    values = targets.astype(np.float64)
    if targets.dtype.kind in "biu" and np.isin(values, (0, 1)).all():
        errors, threshold = _distance_beyond(outputs, values)
        meaning = f"how far the worst output lies on the right side of {threshold}: below 0 a prediction is wrong"
        error = errors.max(1)
        return Judgement(target_values=values, wrong=error > 0, error=error, meaning=meaning, margin=True)
    finite = np.isfinite(values)
    sums, counts = np.where(finite, np.abs(outputs - values), 0.0).sum(1), finite.sum(1)
    error = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return Judgement(target_values=values, error=error, meaning="|output − target|, mean over the outputs")


def _distance_beyond(outputs: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the distance by which outputs lie on the wrong side of the threshold (0 or 0.5), and the threshold."""
    threshold = 0.5 if ((outputs >= 0) & (outputs <= 1)).all() else 0.0
    return (1 - 2 * truth) * (outputs - threshold), f"{threshold:g}"


# ---------------------------------------------------------------------- choosing
def priorities(content: Content, judged: Judgement, seed: int) -> np.ndarray:
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


def select_outputs(content: Content, judged: Judgement, count: int) -> np.ndarray:
    """Choose ``count`` outputs, in their order: those that are true or highest most often, then by attribution."""
    names = content.output_names
    if count >= content.outputs.shape[1]:
        return np.arange(content.outputs.shape[1])
    often = np.bincount(content.outputs.argmax(1), minlength=content.outputs.shape[1]).astype(float)
    if judged.true is not None and names.ndim == 1:
        often += (judged.true[:, None] == names).sum(0)
    size = content.total_abs.mean(0)
    return np.sort(np.lexsort((-size, -often))[:count])
