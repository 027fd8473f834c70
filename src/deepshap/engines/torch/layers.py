"""The unmodified model, as its user would call it: its outputs, and the inputs or outputs of an inner layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
from torch import Tensor, nn

from ...errors import InputError
from ..base import BaseEngine, called_twice
from ..interface import Points
from .backward import as_array, as_numpy
from .custom_functions import Derivatives
from .double import InFloat64
from .inputs import take_output
from .tree import replace, tensors


class UnmodifiedModel(BaseEngine):
    """The part of the engine that runs the model without tracing it."""

    layer_output: bool
    _computing: AbstractContextManager[Any]
    _derivatives: Derivatives

    def _evaluate(self, points: Points) -> np.ndarray:
        output = self._derivatives.run_plain(lambda: self._call(self._copies(points), points))
        return as_numpy(self._flat(output, len(points)))

    def _call(self, rows: Sequence[Tensor], points: Points) -> Tensor:
        extra = replace(points.extra, Tensor.clone)  # the model may write into them
        with self._computing:
            return take_output(points.form.call(self.model, rows, extra), self.output)

    def _copies(self, points: Points) -> list[Tensor]:
        """Return copies of the inputs, because the model may write into them."""
        return [r.clone() for r in self._entering(points)]

    def _entering(self, points: Points) -> list[Tensor]:
        wide = isinstance(self._computing, InFloat64)
        return [r.double() if wide and r.is_floating_point() else r for r in points.inputs]

    def _with_layer_values(self, points: Points) -> tuple[Tensor, list[Tensor]]:
        values: list[Tensor] = []

        def look(inner: list[Tensor]) -> list[Tensor]:
            values.extend(v.clone() for v in inner)  # the model may write into them
            return inner

        def run() -> Tensor:
            values.clear()
            seen = nullcontext() if self.layer is None else layer_values_through(self.layer, look, self.layer_output)
            with seen:
                return self._call(self._copies(points), points)

        output = self._derivatives.run_plain(run)
        if self.layer is not None and not values:
            kind = "output" if self.layer_output else "input"
            raise InputError(
                f"the layer {type(self.layer).__name__} is not called by the model, or has no float {kind}."
            )
        return output, values

    def explained(self, points: Points) -> list[np.ndarray]:
        """Return the explained values, the inputs or those of the inner layer, as arrays with the model's axes."""
        return [as_array(x) for x in (points.inputs if self.layer is None else self.layer_values(points))]

    def layer_values(self, points: Points) -> list[Tensor]:
        """Return the explained values of the inner layer."""
        return self._with_layer_values(points)[1]


@contextmanager
def layer_values_through(
    layer: nn.Module, change: Callable[[list[Tensor]], Sequence[Tensor]], output: bool
) -> Iterator[None]:
    """Pass the float inputs of a layer, or its float outputs, through a function in this context."""
    calls = 0

    def changed(values: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise called_twice(type(layer).__name__)
        new = iter(change([t for t in tensors(values) if t.is_floating_point()]))
        return replace(values, lambda t: next(new) if t.is_floating_point() else t)

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        new_values = iter(changed([a for a in args if isinstance(a, Tensor)]))
        return tuple(next(new_values) if isinstance(a, Tensor) else a for a in args)

    def after(_: nn.Module, args: Any, result: Any) -> Any:
        return changed(result)

    handle = layer.register_forward_hook(after) if output else layer.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()
