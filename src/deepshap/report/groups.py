"""What stands beside the importance over all rows: groups of rows, values against attributions, and whether all that is true."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .content import Content, Part
from .examples import Judged
from .facts import number
from .importance import with_all, with_highest
from .packing import decimal

MOST_GROUPS = 40
MOST_NUMBERS = 200_000  # of all groups, and of all points
MOST_POINTS = 1500


def groups_of(content: Content, judged: Judged, labels: Any) -> dict[str, np.ndarray]:
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
        named += [(f"{what}: ", found) for what, found in (("true", judged.true), ("predicted", judged.predicted))]
    masks: dict[str, np.ndarray] = {}
    for what, found in named:
        for label in [] if found is None else sorted({str(one) for one in found}, key=in_order):
            mask = np.array([str(one) == label for one in found])
            masks |= {} if mask.all() else {f"{what}{label}": mask}
    size = max((content.outputs.shape[1] + 2) * sum(part.values.shape[1:3]) for part in content.parts)
    most = min(MOST_GROUPS, MOST_NUMBERS // (4 * size))
    return dict(list(masks.items())[: most if most > 1 else 0])


def in_order(name: str) -> list[Any]:
    """Key that sorts names with the numbers in them by size."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


@dataclass(frozen=True)
class Beside:
    """What the page has of one input beside its importance: arrays of the outputs, which come first, and shared ones.

    As in ``Importance`` the outputs are followed by all of them together, and by the highest of each row.
    """

    outputs: int
    each: dict[str, np.ndarray]
    shared: dict[str, np.ndarray]

    @classmethod
    def of(cls, part: Part, masks: dict[str, np.ndarray], highest: np.ndarray | None, seed: int) -> Beside:
        """Take the means of groups, and points."""
        drawn, shared = points(part, highest, seed)
        return cls(part.values.shape[3], in_groups(part, masks, highest) | drawn, shared)

    def packed(self, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """What the page needs for these outputs."""
        if not self.each:
            return self.shared
        kept = np.append(outputs, np.arange(self.outputs, len(next(iter(self.each.values())))))
        return {name: array[kept] for name, array in self.each.items()} | self.shared


def in_groups(part: Part, masks: dict[str, np.ndarray], highest: np.ndarray | None) -> dict[str, np.ndarray]:
    """Means over the rows of each group, as in ``Importance``: (outputs, groups, features) and (outputs, groups, steps).

    A step that no row of a group has is NaN. ``feature_error`` are standard errors of ``feature_signed``, if there are any.
    """
    if not masks or part.kind not in ("sequence", "table"):
        return {}
    members = np.stack(list(masks.values())).astype(np.float64)
    there = members @ (np.arange(part.values.shape[1]) < part.lengths[:, None])
    counts = members.sum(1)[:, None, None]
    sums: dict[str, Any] = {}
    for rows, values in part.blocks():
        values = with_highest(values, highest, rows)
        for name, found in (("size", np.abs(values)), ("signed", values)):
            for axis, what in ((1, "feature"), (2, "step")):
                key = f"{what}_{name}"
                sums[key] = sums.get(key, 0) + np.tensordot(members[:, rows], found.sum(axis), 1)
    means = {
        name: total / (counts if name.startswith("feature") else np.where(there > 0, there, np.nan)[..., None])
        for name, total in sums.items()
    }
    if part.errors is not None:
        errors = part.errors.of(lambda array: with_highest(array, highest, slice(None)).sum(1))
        means["feature_error"] = np.stack([errors.of_rows(mask).of_mean() for mask in masks.values()])
    return {
        name: with_all(np.moveaxis(mean, -1, 0), part.values.shape[3]).astype(np.float32)
        for name, mean in means.items()
    }


def points(part: Part, highest: np.ndarray | None, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Values and attributions of steps drawn at random: (outputs, points, features), and what all outputs share."""
    if part.kind not in ("sequence", "table") or part.data is None or part.data.dtype.kind not in "biuf":
        return {}, {}
    _, steps, features, outputs = part.values.shape
    rows, step = np.nonzero(np.arange(steps) < part.lengths[:, None])
    most = min(MOST_POINTS, max(50, MOST_NUMBERS // (features * (outputs + 2))))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])
    rows, step = rows[drawn], step[drawn]

    def at(array: np.ndarray) -> np.ndarray:  # (outputs, points, features)
        found = array[rows, step][:, None].astype(np.float64)
        found = with_highest(found, None if highest is None else highest[rows], slice(None))[:, 0]
        return with_all(np.moveaxis(found, -1, 0), outputs)

    shared = {"data": part.data[rows, step], "row": rows, "step": step}
    own = decimal("points", at(part.values))
    if part.errors is not None:
        own["point_error"] = at(part.errors.errors).astype(np.float32)
    return own, {f"point_{name}": array.astype(np.float32) for name, array in shared.items()}


def faithfulness_section(result: Any) -> dict[str, Any] | None:
    """What the page says of a ``deepshap.Faithfulness``: mean curves, and numbers with their meaning.

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
    return {
        "players": result.players,
        "explained": result.explained,
        "rows": len(result.gap),
        "removed": (100 * result.removed).tolist(),
        "curves": {name: curve.mean(0).tolist() for name, curve in result.deletion.items()},
        "numbers": _told(result),
    }


def _told(result: Any) -> list[tuple[str, str, str]]:
    """Numbers of a ``deepshap.Faithfulness``, each with its name and meaning."""
    moved, doubtful = np.mean(result.noise_changes), np.mean(result.doubtful)
    agreement = result.agreement[np.isfinite(result.agreement)]
    return [
        (
            "Separation",
            f"{np.mean(result.separation):.2f}",
            "area between the outer curves over their range; random: 0",
        ),
        (
            "Agreement",
            f"{agreement.mean():.2f}" if len(agreement) else "–",
            "correlation of what attributions tell of random sets with what the output loses without them; at most 1",
        ),
        ("Largest error of the sums", number(float(np.max(result.gap)), 2), "evaluated anew, in the output’s unit"),
        ("Doubtful signs", "–", "one reference does not tell what others would")
        if np.isnan(doubtful)
        else (
            "Doubtful signs",
            f"{doubtful:.0%}",
            "of |attribution| would have another sign with other references in one case of twenty",
        ),
        ("Moved by noise", "–", "there is none to be added")
        if np.isnan(moved)
        else (
            "Moved by noise",
            f"{moved:.1%}",
            f"of |attribution|; outputs move by {np.mean(result.output_changes):.1%}",
        ),
    ]
