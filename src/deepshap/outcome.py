"""What explaining some rows gives, compared with the outputs of the untouched model: sums that miss are complained of."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .additivity import additivity_gap, chosen, output_scale
from .engines.api import Comparison, Engine, Profile
from .errors import AdditivityError, AdditivityWarning, BatchMixingError, NonFiniteError
from .estimates import RunningEstimate, put
from .methods import Method
from .own_methods import check_sums

FLOAT64 = 1e-9  # the tolerance of a model that computes in float64 alone
BY_ROW = "outputs", "expected", "gap", "columns", "predictions"


@dataclass
class Outcome:
    """What explaining some rows gives, before it takes the form the user sees.

    Attributes
    ----------
    values : attributions of each explained tensor, (rows, ..., k).
    outputs, expected : the model's outputs and those it is compared with, (rows, k).
    gap : what the sums miss, relative to the outputs' scale, (rows, k).
    columns : numbers of the explained outputs, (rows, k).
    predictions : all outputs of the model, (rows, outputs).
    profile : what was found out about the model.
    method : by which they were found.
    estimate : the running sums, with the noise of values that are estimated.
    engine : that computed again, in float64, what the model's own precision could not; None where nothing was.
    """

    values: list[np.ndarray]
    outputs: np.ndarray
    expected: np.ndarray
    gap: np.ndarray
    columns: np.ndarray
    predictions: np.ndarray
    profile: Profile
    method: Method
    estimate: RunningEstimate
    engine: Engine | None = None

    @property
    def missed(self) -> np.ndarray:
        """Which rows do not add up, (rows,)."""
        finite = np.all([np.isfinite(v).reshape(len(v), -1).all(1) for v in self.values], 0)
        return ~(finite & (self.gap <= self.profile.tolerance).all(1))

    def of_rows(self, rows: np.ndarray) -> Outcome:
        """That of some rows."""
        if len(rows) == len(self.outputs):
            return self
        arrays: dict[str, Any] = {name: getattr(self, name)[rows] for name in BY_ROW}
        return replace(self, values=[v[rows] for v in self.values], estimate=self.estimate.of_rows(rows), **arrays)

    def with_rows(self, rows: np.ndarray, other: Outcome) -> Outcome:
        """The same with some rows from another."""
        arrays: dict[str, Any] = {name: put(getattr(self, name), rows, getattr(other, name)) for name in BY_ROW}
        values = [put(v, rows, w) for v, w in zip(self.values, other.values, strict=True)]
        return replace(self, values=values, estimate=self.estimate.with_rows(rows, other.estimate), **arrays)


# ---------------------------------------------------------------------- against the untouched model
def checked(
    whole: Comparison,
    profile: Profile,
    method: Method,
    sums: RunningEstimate,
    native: np.ndarray,
    expected: np.ndarray,
    known: np.ndarray | None,
) -> Outcome:
    """Compare what was found with the outputs of the untouched model.

    ``native`` are the model's outputs for the examples, ``known`` those for the references if they are the same for all
    rows, both (rows, outputs); ``expected`` is the mean output of each row's references (rows, k).
    """
    columns = whole.outputs
    outputs = chosen(native, columns)
    if not np.isfinite(expected).all():
        raise NonFiniteError("the model returns NaN or infinity for a row of the background.")
    of_references = np.abs(expected).max(1, initial=0.0) if known is None else np.abs(known).max(initial=0.0)
    largest = np.maximum(np.abs(native).max(1, initial=0.0), of_references)
    scale = output_scale(outputs, expected, largest)
    check_sums(method, sums.difference, outputs - expected, sums.beyond, 10 * profile.tolerance * scale)
    _compare_with_native(profile.tolerance, sums, outputs, expected, scale)
    values = sums.values()
    gap = additivity_gap(values, outputs, expected, largest, profile.tolerance, profile.eps)
    return Outcome(values, outputs, expected, gap, columns, native, profile, method, sums)


def _compare_with_native(
    tolerance: float, sums: RunningEstimate, outputs: np.ndarray, expected: np.ndarray, scale: np.ndarray
) -> None:
    """Check that the model computed the same among its pairs as by itself."""
    gap = np.abs(sums.difference - (outputs - expected)) / scale
    if not (gap <= 10 * tolerance).all():
        gap = np.nan_to_num(gap, nan=np.inf)
        row = int(np.unravel_index(np.argmax(gap), gap.shape)[0])
        raise BatchMixingError(
            f"the output of row {row} changes by {gap.max():.3g} of its scale when the model runs among other batch "
            "mates or once more: it depends on the batch, on random numbers, on state kept between calls, or asks whether "
            "gradients are recorded (x.requires_grad, torch.is_grad_enabled()), as they are while it is explained. Such a "
            "model has no attribution per row."
        )


# ---------------------------------------------------------------------- what is said of a miss
class Why(NamedTuple):
    """Why float64 is no way out, and the engine that can tell which operation is the cause."""

    text: str
    engine: Engine


def complain(why: Why, found: Outcome, whole: Comparison, strict: bool) -> None:
    """Raise, or warn when the caller asked for it, that a row and output does not add up."""
    row, column = np.unravel_index(int(np.argmax(np.nan_to_num(found.gap, nan=np.inf))), found.gap.shape)
    message = _gap_message(why.engine, found, int(row), int(column), whole) + why.text
    if not strict:
        warnings.warn(message, AdditivityWarning, stacklevel=7)  # the line that called shap_values
    elif np.isfinite(found.gap[row, column]):
        raise AdditivityError(message)
    else:
        raise NonFiniteError(message)


def _gap_message(engine: Engine, found: Outcome, row: int, column: int, whole: Comparison) -> str:
    output, expected = found.outputs[row, column], found.expected[row, column]
    gap, tolerance = found.gap[row, column], found.profile.tolerance
    missed = (
        f"the attributions of row {row}, output {column} do not add up: they should sum to {output - expected:.6g} "
        f"(output {output:.6g} minus expected output {expected:.6g}) and miss it by {gap:.3g} of the outputs' scale "
        f"(tolerance {tolerance:.1g}). "
    )
    blame = engine.blame(whole.pair(row))
    if blame is None or blame.gap <= engine.tolerance * max(blame.size, 1e-30):
        copied = f"explain a float64 copy of it ({engine.in_float64})"
        way_out = copied if engine.tolerance > FLOAT64 else "take out large terms that all rows share"
        return missed + (
            "Every operation explains its own output. So either a part of the output reaches the explained input by a way that "
            "is not followed (around the explained layer, or through a rule registered as linear or constant for something that "
            f"is not), or large numbers cancel in the model: then {way_out}."
        )
    if not np.isfinite(blame.gap):
        return missed + f"{blame.name} at {blame.place} has a value, or a share of one, that is NaN or infinite."
    return missed + (
        f"Most likely cause: {blame.name} at {blame.place}, whose rule misses {blame.gap:.3g} of {blame.size:.3g}. "
        "If its rule is yours, correct it (deepshap.register_rule); if not, please report it."
    )
