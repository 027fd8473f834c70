"""``deepshap.LSTMShapHandler``, the worked example of a handler: an LSTM of PyTorch or of Keras, treated as a whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ...engines.callables import is_keras
from ...engines.handlers import ModuleCall
from ...errors import InputError
from ...formulas import Array
from ...formulas.cells import LSTM, Weights, back, run


class LSTMShapHandler:
    """The rules of an LSTM as a handler: for ``nn.LSTMCell``, ``nn.LSTM`` of one layer and one direction, and Keras' two.

    LSTMs need no handler. This one is the pattern for layers of your own: both sides forward, then the multipliers back
    through the steps, in the formulas of docs/mathematics.md ("Recurrent cells"). It agrees with the built-in treatment to
    rounding error. The formulas' code is in ``formulas/cells.py``, for tensors of every framework.

    Examples
    --------
    >>> explainer.register_custom_handler(torch.nn.LSTM, LSTMShapHandler())
    """

    def __call__(self, call: ModuleCall) -> list[Array]:
        """Return the multipliers of x and, where they are given, of h and c.

        Raises
        ------
        InputError
            For any other layer.
        """
        form = (_of_keras if is_keras(call.module) else _of_torch)(call)
        example, reference = (
            run(LSTM, *form.read(*inputs), form.weights) for inputs in (call.inputs, call.reference_inputs)
        )
        m_x, m_state = back(LSTM, form.m_steps, form.m_state, example, reference, form.weights)
        return [form.join(m_x), *form.give_state(m_state)][: len(call.inputs)]


class _Form(NamedTuple):
    """How a layer lays out what the formulas take, step by step: an input and its states, and multipliers of its results."""

    weights: Weights
    read: Callable[..., tuple[list[Array], list[Array]]]
    m_steps: list[Array]
    m_state: list[Array]
    join: Callable[[list[Array]], Array]
    give_state: Callable[[list[Array]], list[Array]]


def _of_torch(call: ModuleCall) -> _Form:
    import torch
    from torch import nn
    from torch.nn.utils.rnn import PackedSequence

    layer: Any = call.module
    if isinstance(layer, nn.LSTMCell):
        weights = Weights(layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh)
        zeros = [torch.zeros_like(m) for m in call.multipliers]
        return _cell(weights, zeros, list(call.multipliers))
    packed = any(isinstance(a, PackedSequence) for a in call.arguments)
    if not isinstance(layer, nn.LSTM) or layer.num_layers > 1 or layer.bidirectional or packed:
        raise InputError(
            f"LSTMShapHandler explains nn.LSTMCell, and nn.LSTM with one layer and one direction on padded sequences; "
            f"{call.name!r} is {layer}. Unregister it there: the built-in treatment knows all recurrent layers."
        )
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0")
    m_output, *m_state = call.multipliers
    zeros, axis = [torch.zeros_like(m[0]) for m in m_state], int(layer.batch_first)
    return _Form(
        Weights(*(getattr(layer, name, None) for name in names)),
        lambda x, *state: (list(x.unbind(axis)), [s[0] for s in state] or zeros),
        list(m_output.unbind(axis)),
        [m[0] for m in m_state],
        lambda steps: torch.stack(steps, axis),
        lambda state: [m.unsqueeze(0) for m in state],
    )


def _of_keras(call: ModuleCall) -> _Form:
    from keras import ops

    layer, cell = call.module, _cell_of_keras(call)
    w_ih, w_hh = (ops.transpose(v) for v in (cell.kernel, cell.recurrent_kernel))
    weights = Weights(w_ih, w_hh, None if cell.bias is None else ops.convert_to_tensor(cell.bias))
    zeros = [ops.zeros((call.inputs[0].shape[0], cell.units), call.inputs[0].dtype)] * 2
    if cell is layer:
        m_h, m_same_h, m_c = call.multipliers  # a cell returns h, and h and c as its states
        return _cell(weights, zeros, [m_h + m_same_h, m_c])
    turn = slice(None, None, -1 if layer.go_backwards else 1)
    m_output, *m_state = call.multipliers
    last = [zeros[0]] * (call.inputs[0].shape[1] - 1) + [m_output]
    return _Form(
        weights,
        lambda x, *state: (ops.unstack(x, axis=1)[turn], list(state) or zeros),
        ops.unstack(m_output, axis=1) if layer.return_sequences else last,
        m_state or zeros,
        lambda steps: ops.stack(steps[turn], 1),
        list,
    )


def _cell_of_keras(call: ModuleCall) -> Any:
    import keras

    layer: Any = call.module
    cell = getattr(layer, "cell", layer)
    if not isinstance(layer, (keras.layers.LSTM, keras.layers.LSTMCell)):
        wrong = f"it is a {type(layer).__name__}"
    elif cell.activation is not keras.activations.tanh or cell.recurrent_activation is not keras.activations.sigmoid:
        wrong = "it has other activations than tanh and sigmoid"
    elif getattr(layer, "stateful", False) or call.keywords.get("mask") is not None:
        wrong = "it is stateful or masked"
    else:
        return cell
    raise InputError(
        f"LSTMShapHandler explains keras.layers.LSTM and LSTMCell with their usual activations, without masks; {call.name!r} "
        f"is not of this kind: {wrong}. Unregister it there: the built-in treatment knows all recurrent layers."
    )


def _cell(weights: Weights, zeros: list[Array], m_state: list[Array]) -> _Form:
    """Return a single step, whose output is its state."""
    return _Form(
        weights, lambda x, *state: ([x], list(state) or zeros), [zeros[0]], m_state, lambda steps: steps[0], list
    )


class Rows(ABC):
    """Reads what users give as x and the states: numbers, single rows, or batches. One for each framework."""

    @abstractmethod
    def tensor(self, value: Any, cell: Any) -> Any:
        """Return a copy with the dtype and the device of the cell's weights."""

    @abstractmethod
    def expand(self, row: Any, shape: tuple[int, ...]) -> Any:
        """Return the value repeated to a shape."""

    @abstractmethod
    def is_finite(self, row: Any) -> bool:
        """Return whether there is neither NaN nor infinity."""

    def read(self, cell: Any, values: Sequence[Any], suffix: str = "") -> list[Any]:
        """Return tensors (batch, features) with the weights' dtype and device; a single row is (features,)."""
        if "c" not in cell.takes and any(v is not None for v in values[2:]):
            raise InputError(f"this cell has no cell state: leave c{suffix} out.")
        return [self._row(cell, name, name + suffix, value) for name, value in zip(cell.takes, values, strict=False)]

    def _row(self, cell: Any, part: str, name: str, value: Any) -> Any:
        width = cell.widths[part]
        if value is None:
            raise InputError(f"{name} is missing: pass a tensor (batch, {width}) or ({width},), or 0.0 for zeros.")
        row = self.tensor(value, cell)
        if row.ndim == 0:
            row = self.expand(row, (width,))
        if row.ndim > 2 or row.shape[-1] != width:
            raise InputError(
                f"{name} has shape {tuple(row.shape)}; this cell takes (batch, {width}), or ({width},) for a single row."
            )
        if not self.is_finite(row):
            raise InputError(f"{name} has NaN or infinite values.")
        return row

    def beside(self, *sides: list[Any]) -> tuple[list[list[Any]], bool]:
        """Broadcast all sides to one batch; also say whether all of the first were single rows, and so is the result."""
        rows = {len(t) for side in sides for t in side if t.ndim == 2}
        batch = max(rows - {1}, default=1)
        if rows - {1, batch}:
            raise InputError(
                f"the inputs and the baseline have {', '.join(map(str, sorted(rows)))} rows: give all the same number of rows, "
                "or a single row to be used for all."
            )
        single = batch == 1 and all(t.ndim == 1 for t in sides[0])
        return [[self.expand(t, (batch, t.shape[-1])) for t in side] for side in sides], single
