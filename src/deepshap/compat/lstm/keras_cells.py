"""Keras' cells for the hook, under either backend: the explainer follows the cell's own call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from ...errors import InputError
from ...explainer import DeepExplainer
from .handler import Rows


@dataclass(frozen=True)
class Cell:
    """A cell, the states it yields and what it takes, with the number of features of each."""

    layer: Any
    yields: tuple[str, ...]
    widths: dict[str, int]
    explainers: dict[str, Any] = field(default_factory=dict)

    @property
    def takes(self) -> tuple[str, ...]:
        """What the cell takes, in order."""
        return tuple(self.widths)


def reader_of(layer: Any) -> Callable[[], Cell]:
    """Return a function that reads the cell, with its weights at the time of the call."""
    cell = find_cell(layer)
    return lambda: cell


def find_cell(layer: Any) -> Cell:
    """Read what a cell takes and yields.

    Raises
    ------
    InputError
        If it is none of the cells of ``register_lstm_shap_hook``, or has no weights yet.
    """
    name = type(layer).__name__
    if not isinstance(layer, (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell)):
        raise InputError(
            f"{name} is a Keras layer, but no keras.layers.LSTMCell, GRUCell or SimpleRNNCell. Of a recurrent layer pass its "
            "cell (layer.cell); for every other cell use deepshap.DeepExplainer, which follows its call."
        )
    if not layer.built:
        raise InputError(f"the {name} has no weights yet: call it once, or layer.build((None, features)).")
    widths = {"x": layer.kernel.shape[0], "h": layer.units}
    if isinstance(layer, keras.layers.LSTMCell):
        return Cell(layer, ("h", "c"), widths | {"c": layer.units})
    return Cell(layer, ("h",), widths)


class KerasRows(Rows):
    """Reads rows as arrays."""

    def tensor(self, value: Any, cell: Cell) -> np.ndarray:
        """Return a copy in the dtype of the cell's weights."""
        try:
            tensor = keras.ops.cast(keras.ops.convert_to_tensor(value), cell.layer.variable_dtype)
        except (TypeError, ValueError, RuntimeError, NotImplementedError):
            raise InputError(f"expected a tensor, an array or a number, not a {type(value).__name__}.") from None
        return np.array(keras.ops.convert_to_numpy(tensor))

    def expand(self, row: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the value repeated to a shape."""
        return np.broadcast_to(row, shape)

    def is_finite(self, row: np.ndarray) -> bool:
        """Return whether there is neither NaN nor infinity."""
        return bool(np.isfinite(row.astype(np.float64)).all())


ROWS = KerasRows()


@dataclass
class _Step:
    """One step of a cell as a function of x and its states alone."""

    layer: Any
    state: int

    def __call__(self, x: Any, *states: Any) -> Any:
        return self.layer(x, list(states), training=False)[1][self.state]


def new_states(cell: Cell, side: list[np.ndarray]) -> dict[str, Any]:
    """Return the new states of the cell after a step, (batch, hidden)."""
    x, *states = (keras.ops.convert_to_tensor(v) for v in side)
    return dict(zip(cell.yields, cell.layer(x, states, training=False)[1], strict=True))


def by_unit(cell: Cell, output: str, example: list[np.ndarray], base: list[np.ndarray]) -> tuple[Any, list[Any]]:
    """Return the new state (batch, units), and what each unit owes to x and the states, (batch, units, features)."""
    if output not in cell.explainers:
        waiting: list[list[np.ndarray]] = []
        step = _Step(cell.layer, cell.yields.index(output))
        cell.explainers[output] = DeepExplainer(step, lambda _: waiting.pop(0), progress=False), waiting
    explainer, waiting = cell.explainers[output]
    waiting[:] = [[b[row : row + 1] for b in base] for row in range(len(example[0]))]
    values = explainer.shap_values(example)
    attributions = [keras.ops.convert_to_tensor(np.moveaxis(v, -1, 1)) for v in values]
    return new_states(cell, example)[output], attributions
