"""Attributions of a model with several inputs: one ``Attributions`` for each input.

Fields that describe rows or outputs are shared by all inputs. ``values``, ``data`` and standard errors are lists (dicts) over the
inputs. Other fields of a single input raise an error that names the inputs to choose from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .core import Attributions
from .fields import FACTS

if TYPE_CHECKING:
    from typing_extensions import Self

SHARED = (
    *("row_ids", "targets", "outputs", "predictions", "gap", "converged", *FACTS[:-1]),
    *("output_names", "horizons", "forecast_series", "forecast_parameters", "forecast_times"),
)
OF_EACH = ("values", "data", "standard_errors", "replicates")
OF_ONE = ("shape", "feature_names", "step_labels", "lags", "lengths", "display_data")


class ManyInputsError(InputError, AttributeError):
    """Something was asked of all inputs together that only one of them has; ``hasattr`` says no."""


class JointAttributions(Attributions):
    """What a ``JointExplanation`` is without what is made of it."""

    def __init__(self, parts: Any) -> None:
        self.parts = parts
        self.compute_time = self[self.keys()[0]].compute_time

    def output(self, key: int | str | tuple[int | str, ...]) -> Self:
        """Pick one output, by its index or name, for every input; see ``Explanation.output``."""
        return type(self)(self._each(lambda part: part.output(key)))

    def some_outputs(self, keys: Any) -> Self:
        """Pick outputs by their indexes or names, for every input."""
        return type(self)(self._each(lambda part: part.some_outputs(keys)))

    @property  # type: ignore[misc]
    def base_values(self) -> Any:
        """Mean output over the background, (rows, outputs)."""
        return self[self.keys()[0]].base_values

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, (int, str)) and item in self.keys():
            return self.parts[item]
        raise InputError(f"choose one of the inputs {self.keys()} first: explanation[{self.keys()[0]!r}][...].")

    def keys(self) -> list[Any]:
        """Return the indexes or names of the inputs."""
        return list(self.parts) if isinstance(self.parts, dict) else list(range(len(self.parts)))

    def items(self) -> list[tuple[Any, Attributions]]:
        """Return pairs of an input's index or name and its explanation."""
        return [(key, self.parts[key]) for key in self.keys()]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __copy__(self) -> Self:
        return type(self)(self._each(copy.copy))

    def _each(self, function: Callable[[Any], Any]) -> Any:
        if isinstance(self.parts, dict):
            return {key: function(part) for key, part in self.parts.items()}
        return [function(part) for part in self.parts]

    def __getattr__(self, name: str) -> Any:
        if name not in ("_s", "op_history") and not hasattr(type(self), name):  # what everything else reads
            raise AttributeError(name)
        raise self._ambiguous(name)

    def _first(self, name: str) -> Any:
        """Return the input that a field is read from; the only one if inputs may differ in this field."""
        if name in OF_ONE and len(self.parts) > 1:
            raise self._ambiguous(name)
        return self[self.keys()[0]]

    def _ambiguous(self, name: str) -> ManyInputsError:
        keys, first = self.keys(), f"explanation[{self.keys()[0]!r}]"
        if len(keys) == 1:
            return ManyInputsError(f"this explanation holds its only input, {keys[0]!r}, by that name: take {first}.")
        several = f"this explanation is of {len(keys)} inputs, {', '.join(map(repr, keys))}"
        if name in OF_ONE:
            return ManyInputsError(f"{several}, of which each has {name} of its own: take {first}.{name}.")
        return ManyInputsError(
            f"{several}: take one of them, {first}, or put their features side by side: "
            "explanation[...].hstack(explanation[...])."
        )


def _shared_property(name: str) -> property:
    """Make a property that is the same for all inputs, or that of the only one."""

    def get(joint: JointAttributions) -> Any:
        return getattr(joint._first(name), name)

    def set_(joint: JointAttributions, value: Any) -> None:
        joint._first(name)  # raises where each has its own
        joint._each(lambda part: setattr(part, name, value))

    attribute = getattr(Attributions, name)
    settable = not isinstance(attribute, property) or attribute.fset is not None
    return property(get, set_ if settable else None, doc=attribute.__doc__)


def _property_of_inputs(name: str) -> property:
    """Make a property that is a list (dict) over the inputs."""
    return property(lambda joint: joint._each(lambda part: getattr(part, name)), doc=f"The ``{name}`` of each input.")


for _name in (*SHARED, *OF_ONE):
    setattr(JointAttributions, _name, _shared_property(_name))
for _name in OF_EACH:
    setattr(JointAttributions, _name, _property_of_inputs(_name))
