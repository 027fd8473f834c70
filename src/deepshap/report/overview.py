"""Summaries over all rows: importance, groups of rows, values against attributions, faithfulness.

Means over the rows are computed block by block. If a model has several outputs, two more follow them: the mean of all outputs,
and the highest output of each row, if the outputs can be compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .content import Content, Part
from .examples import Judgement

MOST_WORDS = 300
MOST_GROUPS = 40
MOST_NUMBERS = 200_000  # of all groups, and of all points
MOST_POINTS = 1500
DIGITS = 4  # significant decimal digits of a packed attribution


# ---------------------------------------------------------------------- numbers
def decimal(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Round to ``DIGITS`` significant decimal digits: ``mantissa * 10 ** exponent``, two int16 arrays.

    A page that shows that many digits then shows those of the value itself, and the arrays compress to about two bytes
    per value.
    """
    values = np.asarray(values, np.float64)
    size = np.abs(values)
    there = size >= 1e-300
    exponent = np.floor(np.log10(size, where=there, out=np.zeros_like(size))).astype(np.int16) - (DIGITS - 1)
    # positive powers of ten are exact up to 10 ** 22, so divide by them
    mantissa = np.rint(
        np.where(there, values, 0.0) * 10.0 ** np.maximum(-exponent, 0) / 10.0 ** np.maximum(exponent, 0)
    )
    over = np.abs(mantissa) >= 10**DIGITS  # 9.9996 rounds up to a digit more
    exponent = np.where(there, exponent + over, 0).astype(np.int16)
    mantissa = np.where(over, np.sign(mantissa) * 10 ** (DIGITS - 1), mantissa).astype(np.int16)
    return {f"{name}_mantissa": mantissa, f"{name}_exponent": exponent}


def number(value: float, digits: int) -> str:
    """Write a number as the scripts do."""
    text = f"{value:.{digits}g}" if 1e-4 <= abs(value) < 10**digits or not value else f"{value:.{digits - 1}e}"
    head, _, power = text.partition("e")
    head = head.rstrip("0").rstrip(".") if "." in head else head
    return (f"{head}e{int(power)}" if power else head).replace("-", "−")


def natural_order(name: str) -> list[Any]:
    """Return a key that sorts names with the numbers in them by size."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


# ---------------------------------------------------------------------- importance
@dataclass(frozen=True)
class Importance:
    """Means over all rows of the attributions to one input, float64.

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
        """Return what the page needs for these outputs; what follows the outputs is always kept."""
        selected = np.append(outputs, np.arange(self.outputs, len(self.size)))
        content = {"limit": self.limit[selected].astype(np.float32)}
        for name in ("feature_size", "feature_signed", "step_size", "step_signed", "feature_error"):
            if getattr(self, name) is not None:
                content[name] = getattr(self, name)[selected].astype(np.float32)
        return content | decimal("size", self.size[selected]) | decimal("signed", self.signed[selected])


def importance(part: Part, highest: np.ndarray | None) -> Importance:
    """Average over all rows, block by block; ``highest`` (rows,) is the index of each row's highest output."""
    shape = part.values.shape
    axes = (*shape[1:3], shape[3] + (highest is not None))
    size, signed, limit = np.zeros(axes), np.zeros(axes), np.zeros(axes[-1])
    for rows, values in part.blocks():
        values = _append_highest(values, highest, rows)
        signed += values.sum(0)
        np.abs(values, out=values)
        size += values.sum(0)
        limit = np.maximum(limit, values.max((0, 1, 2)))
    rows = part.there.sum(0)
    per_row, per_step = 1 / shape[0], 1 / np.maximum(rows, 1)[:, None, None]
    means = {"feature_size": size.sum(0) * per_row, "feature_signed": signed.sum(0) * per_row}
    names, counts = part.feature_names, None
    if part.kind == "text":
        names, counts, means = _sum_by_word(part, highest)
    elif part.errors is not None:
        means["feature_error"] = part.errors.of(lambda array: _append_highest(array, highest).sum(1)).of_mean()
    size, signed = size * per_step, signed * per_step
    means |= {"step_size": size.sum(1), "step_signed": signed.sum(1), "size": size, "signed": signed}
    means = {name: _append_all(np.moveaxis(mean, -1, 0), shape[3]) for name, mean in means.items()}
    return Importance(
        **means, outputs=shape[3], rows=rows, limit=_append_all(limit, shape[3]), names=names, counts=counts
    )


def _append_highest(values: np.ndarray, highest: np.ndarray | None, rows: Any = slice(None)) -> np.ndarray:
    """Put the highest output of each row behind the outputs."""
    if highest is None:
        return values
    return np.concatenate([values, np.take_along_axis(values, highest[rows, None, None, None], -1)], -1)


def _append_all(means: np.ndarray, outputs: int) -> np.ndarray:
    """Put the mean of several outputs behind them, in front of the highest."""
    return np.insert(means, outputs, means[:outputs].mean(0), axis=0) if outputs > 1 else means


def _sum_by_word(part: Part, highest: np.ndarray | None) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    """Sum attributions by word instead of by feature, the largest share first; (words, outputs). Padding is no word."""
    assert part.data is not None
    data = part.data[..., 0]
    there = part.there & (data != None)  # noqa: E711 (of an array)
    words, index = np.unique(data[there].astype(str), return_inverse=True)
    values = _append_highest(part.values, highest)[..., 0, :][there].astype(np.float64)
    size, signed = np.zeros((len(words), values.shape[1])), np.zeros((len(words), values.shape[1]))
    np.add.at(size, index, np.abs(values))
    np.add.at(signed, index, values)
    order = np.argsort(-size.sum(1), kind="stable")[:MOST_WORDS]
    count = np.bincount(index, minlength=len(words))[order]
    means = {"feature_size": size[order] / len(there), "feature_signed": signed[order] / len(there)}
    return [str(word) for word in words[order]], count, means


# ---------------------------------------------------------------------- groups of rows, and points
def group_masks(content: Content, judged: Judgement, labels: Any) -> dict[str, np.ndarray]:
    """Name groups of rows, each with its mask: those of the user, right and wrong ones, by true and by predicted class.

    Raises
    ------
    InputError
        If ``labels`` are not one for each row.
    """
    rows = len(content)
    named: list[tuple[str, Any]] = []
    if labels is not None:
        if np.shape(labels) != (rows,):
            raise InputError(f"groups must have one label for each of {rows} rows, not shape {np.shape(labels)}.")
        named.append(("", np.array([str(label) for label in labels], dtype=object)))
    if judged.wrong is not None:
        named.append(("", np.where(judged.wrong, "wrong", "right").astype(object)))
    if judged.predicted is not None:
        named += [
            (f"{what}: ", row_labels) for what, row_labels in (("true", judged.true), ("predicted", judged.predicted))
        ]
    masks: dict[str, np.ndarray] = {}
    for what, row_labels in named:
        for label in (
            [] if row_labels is None else sorted({str(row_label) for row_label in row_labels}, key=natural_order)
        ):
            mask = np.array([str(row_label) == label for row_label in row_labels])
            masks |= {} if mask.all() else {f"{what}{label}": mask}
    size = max((content.outputs.shape[1] + 2) * sum(part.values.shape[1:3]) for part in content.parts)
    most = min(MOST_GROUPS, MOST_NUMBERS // (4 * size))
    return dict(list(masks.items())[: most if most > 1 else 0])


@dataclass(frozen=True)
class Breakdown:
    """Means of groups and sampled points of one input: arrays whose first axis is the outputs, and shared arrays."""

    outputs: int
    per_output: dict[str, np.ndarray]
    shared: dict[str, np.ndarray]

    @classmethod
    def of(cls, part: Part, masks: dict[str, np.ndarray], highest: np.ndarray | None, seed: int) -> Breakdown:
        """Return the means of groups and a sample of points."""
        if part.kind not in ("sequence", "table"):
            return cls(part.values.shape[3], {}, {})
        drawn, shared = _sample_points(part, highest, seed)
        return cls(part.values.shape[3], _average_groups(part, masks, highest) | drawn, shared)

    def packed(self, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return what the page needs for these outputs."""
        if not self.per_output:
            return self.shared
        selected = np.append(outputs, np.arange(self.outputs, len(next(iter(self.per_output.values())))))
        return {name: array[selected] for name, array in self.per_output.items()} | self.shared


def _average_groups(part: Part, masks: dict[str, np.ndarray], highest: np.ndarray | None) -> dict[str, np.ndarray]:
    """Average over the rows of each group, as in ``Importance``: (outputs, groups, features) and (outputs, groups, steps).

    A step that no row of a group has is NaN. ``feature_error`` are standard errors of ``feature_signed``, if there are any.
    """
    if not masks:
        return {}
    members = np.stack(list(masks.values())).astype(np.float64)
    there = members @ part.there
    counts = members.sum(1)[:, None, None]
    sums: dict[str, Any] = {}
    for rows, values in part.blocks():
        values = _append_highest(values, highest, rows)
        for name, contributions in (("size", np.abs(values)), ("signed", values)):
            for axis, what in ((1, "feature"), (2, "step")):
                key = f"{what}_{name}"
                sums[key] = sums.get(key, 0) + np.tensordot(members[:, rows], contributions.sum(axis), 1)
    means = {
        name: total / (counts if name.startswith("feature") else np.where(there > 0, there, np.nan)[..., None])
        for name, total in sums.items()
    }
    if part.errors is not None:
        errors = part.errors.of(lambda array: _append_highest(array, highest).sum(1))
        means["feature_error"] = np.stack([errors.of_rows(mask).of_mean() for mask in masks.values()])
    return {
        name: _append_all(np.moveaxis(mean, -1, 0), part.values.shape[3]).astype(np.float32)
        for name, mean in means.items()
    }


def _sample_points(
    part: Part, highest: np.ndarray | None, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return values and attributions of steps drawn at random: (outputs, points, features), and what all outputs share."""
    if part.data is None or part.data.dtype.kind not in "biuf":
        return {}, {}
    features, outputs = part.values.shape[2:]
    rows, step = np.nonzero(part.there)
    most = min(MOST_POINTS, max(50, MOST_NUMBERS // (features * (outputs + 2))))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])
    rows, step = rows[drawn], step[drawn]

    def at(array: np.ndarray) -> np.ndarray:  # (outputs, points, features)
        selected = array[rows, step][:, None].astype(np.float64)
        selected = _append_highest(selected, None if highest is None else highest[rows])[:, 0]
        return _append_all(np.moveaxis(selected, -1, 0), outputs)

    shared = {"data": part.data[rows, step], "row": rows, "step": step}
    arrays = decimal("points", at(part.values))
    if part.errors is not None:
        arrays["point_error"] = at(part.errors.errors).astype(np.float32)
    return arrays, {f"point_{name}": array.astype(np.float32) for name, array in shared.items()}


# ---------------------------------------------------------------------- faithfulness
def faithfulness_section(result: Any) -> dict[str, Any] | None:
    """Return what the page says of a ``deepshap.Faithfulness``: mean curves, and numbers with their names and meanings.

    Raises
    ------
    InputError
        If it is something else.
    """
    if result is None:
        return None
    if not hasattr(result, "deletion"):
        raise InputError(
            f"faithfulness= takes what deepshap.faithfulness(explainer, X) returns, not {type(result).__name__}."
        )
    moved, doubtful = np.mean(result.noise_changes), np.mean(result.doubtful)
    agreement = result.agreement[np.isfinite(result.agreement)]
    area = "area between the outer curves over their range; random: 0"
    losses = "correlation of what attributions tell of random sets with what the output loses without them; at most 1"
    signs = "of |attribution| would have another sign with other references in one case of twenty"
    noise = f"of |attribution|; outputs move by {np.mean(result.output_changes):.1%}"
    unknown = "one reference does not tell what others would"
    return {
        "players": result.players,
        "explained": result.explained,
        "rows": len(result.gap),
        "removed": (100 * result.removed).tolist(),
        "curves": {name: curve.mean(0).tolist() for name, curve in result.deletion.items()},
        "numbers": [
            ("Separation", f"{np.mean(result.separation):.2f}", area),
            ("Agreement", f"{agreement.mean():.2f}" if len(agreement) else "–", losses),
            ("Largest error of the sums", number(float(np.max(result.gap)), 2), "evaluated anew, in the output’s unit"),
            ("Doubtful signs", *(("–", unknown) if np.isnan(doubtful) else (f"{doubtful:.0%}", signs))),
            ("Moved by noise", *(("–", "there is none to be added") if np.isnan(moved) else (f"{moved:.1%}", noise))),
        ],
    }
