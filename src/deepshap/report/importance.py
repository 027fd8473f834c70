"""What matters overall: attributions summed over all rows of an explanation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .content import Part
from .packing import decimal

MOST_WORDS = 300


@dataclass(frozen=True)
class Importance:
    """Means over all rows of the attributions to one input, float64.

    Where a model has several outputs, they are followed by two more: all outputs together (their mean), and the highest
    output of each row, if the outputs can be compared.

    size, signed: (outputs, steps, features), the mean |attribution| and the mean attribution over the rows that have the
    step. feature_size, feature_signed: (outputs, features), summed over the steps of a row and averaged over all rows.
    step_size, step_signed: (outputs, steps), summed over the features. rows: (steps,), how many rows have the step.
    limit: (outputs,), the largest |attribution|. outputs: how many the model has. names: one for each feature, or word
    of a text. counts: how often each word occurs, or None. feature_error: standard errors of feature_signed, or None.
    """

    size: np.ndarray
    signed: np.ndarray
    feature_size: np.ndarray
    feature_signed: np.ndarray
    step_size: np.ndarray
    step_signed: np.ndarray
    rows: np.ndarray
    limit: np.ndarray
    outputs: int
    names: list[str]
    counts: np.ndarray | None
    feature_error: np.ndarray | None = None

    def packed(self, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """What the page needs for these outputs; what follows the outputs is always kept."""
        kept = np.append(outputs, np.arange(self.outputs, len(self.size)))
        content = {"limit": self.limit[kept].astype(np.float32)}
        for name in ("feature_size", "feature_signed", "step_size", "step_signed", "feature_error"):
            if getattr(self, name) is not None:
                content[name] = getattr(self, name)[kept].astype(np.float32)
        return content | decimal("size", self.size[kept]) | decimal("signed", self.signed[kept])


def importance(part: Part, highest: np.ndarray | None) -> Importance:
    """Average over all rows, block by block; ``highest`` (rows,) is the index of each row's highest output."""
    shape = part.values.shape
    axes = (*shape[1:3], shape[3] + (highest is not None))
    size, signed, limit = np.zeros(axes), np.zeros(axes), np.zeros(axes[-1])
    for rows, values in part.blocks():
        values = with_highest(values, highest, rows)
        signed += values.sum(0)
        np.abs(values, out=values)
        size += values.sum(0)
        limit = np.maximum(limit, values.max((0, 1, 2)))
    rows = (np.arange(shape[1])[:, None] < part.lengths).sum(1)
    per_row, per_step = 1 / shape[0], 1 / np.maximum(rows, 1)[:, None, None]
    means = {"feature_size": size.sum(0) * per_row, "feature_signed": signed.sum(0) * per_row}
    names, counts = part.feature_names, None
    if part.kind == "text":
        names, counts, means = _words(part, highest)
    elif part.errors is not None:
        errors = part.errors.of(lambda array: with_highest(array, highest, slice(None)).sum(1))
        means["feature_error"] = errors.of_mean()
    size, signed = size * per_step, signed * per_step
    means |= {"step_size": size.sum(1), "step_signed": signed.sum(1), "size": size, "signed": signed}
    means = {name: with_all(np.moveaxis(mean, -1, 0), shape[3]) for name, mean in means.items()}
    return Importance(**means, outputs=shape[3], rows=rows, limit=with_all(limit, shape[3]), names=names, counts=counts)


def with_highest(values: np.ndarray, highest: np.ndarray | None, rows: slice) -> np.ndarray:
    """Put the highest output of each row behind the outputs."""
    if highest is None:
        return values
    return np.concatenate([values, np.take_along_axis(values, highest[rows, None, None, None], -1)], -1)


def with_all(means: np.ndarray, outputs: int) -> np.ndarray:
    """Put the mean of several outputs behind them, in front of the highest."""
    return np.insert(means, outputs, means[:outputs].mean(0), axis=0) if outputs > 1 else means


def _words(part: Part, highest: np.ndarray | None) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    """Attributions by word instead of by feature, those with the largest share first; (words, outputs)."""
    assert part.data is not None
    there = np.arange(part.values.shape[1]) < part.lengths[:, None]
    words, index = np.unique(part.data[..., 0][there].astype(str), return_inverse=True)
    values = with_highest(part.values, highest, slice(None))[..., 0, :][there].astype(np.float64)
    size, signed = np.zeros((len(words), values.shape[1])), np.zeros((len(words), values.shape[1]))
    np.add.at(size, index, np.abs(values))
    np.add.at(signed, index, values)
    order = np.argsort(-size.sum(1), kind="stable")[:MOST_WORDS]
    count = np.bincount(index, minlength=len(words))[order]
    means = {"feature_size": size[order] / len(there), "feature_signed": signed[order] / len(there)}
    return [str(word) for word in words[order]], count, means
