"""An LSTM of Keras as a handler: ``deepshap.LSTMShapHandler`` for Keras' layers, under either backend."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from ...errors import InputError
from ...handlers import ModuleCall


class Kept(NamedTuple):
    """What a step leaves for its rule: gates before and after their activations, cell states, and tanh of the new one."""

    z: list[Any]
    a: list[Any]
    before: Any
    new: Any
    tanh: Any


def multipliers(call: ModuleCall) -> list[Any]:
    """Multipliers of the inputs of a ``keras.layers.LSTM`` or ``LSTMCell``, from those of its outputs.

    Both sides run forward, then the multipliers go back through the steps (docs/mathematics.md, "Recurrent cells").

    Raises
    ------
    InputError
        If the layer has other activations, a mask, or keeps its state from call to call.
    """
    cell = _cell_of(call)
    if cell is call.module:
        m_h, m_same_h, m_c = call.multipliers  # a cell returns h, and h and c as its states
        example, reference = (_steps(cell, side, 1) for side in (call.inputs, call.reference_inputs))
        m_x, m_h, m_c = _back([0], m_h + m_same_h, m_c, example, reference, cell)
        return [m_x[0], m_h, m_c]
    m_output, *m_states = call.multipliers
    count, turned = call.inputs[0].shape[1], call.module.go_backwards
    m_h, m_c = m_states or [0, 0]
    at_steps = (
        [m_output[:, k] for k in range(count)] if call.module.return_sequences else [0] * (count - 1) + [m_output]
    )
    example, reference = (_steps(cell, side, count, turned) for side in (call.inputs, call.reference_inputs))
    m_x, *m_start = _back(at_steps, m_h, m_c, example, reference, cell)
    return [ops.stack(m_x[::-1] if turned else m_x, 1), *m_start][: len(call.inputs)]


def _cell_of(call: ModuleCall) -> Any:
    layer = call.module
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


def _steps(cell: Any, inputs: tuple[Any, ...], count: int, turned: bool = False) -> list[Kept]:
    """Run the steps of one side; returns what each leaves for its rule."""
    x, *states = inputs
    steps = [x] if len(x.shape) == 2 else [x[:, k] for k in range(count)]
    h, c = states or [ops.zeros((x.shape[0], cell.units), x.dtype)] * 2
    kept = []
    for step in reversed(steps) if turned else steps:
        z = ops.matmul(step, cell.kernel) + ops.matmul(h, cell.recurrent_kernel)
        z = ops.split(z if cell.bias is None else z + cell.bias, 4, -1)
        i, f, g, o = (ops.tanh(v) if k == 2 else ops.sigmoid(v) for k, v in enumerate(z))
        new = f * c + i * g
        kept.append(Kept(z, [i, f, g, o], c, new, ops.tanh(new)))
        h, c = o * kept[-1].tanh, new
    return kept


def _back(
    at_steps: list[Any], m_h: Any, m_c: Any, example: list[Kept], reference: list[Kept], cell: Any
) -> tuple[list[Any], Any, Any]:
    """Multipliers of the input of every step and of the first states, from the last step to the first."""
    m_x: list[Any] = []
    for m_output, x, r in zip(reversed(at_steps), reversed(example), reversed(reference), strict=True):
        m_h = m_h + m_output
        i, f, g, o = ((a + b) / 2 for a, b in zip(x.a, r.a, strict=True))
        s_i, s_f, s_o = (_sigmoid(x, r, gate) for gate in (0, 1, 3))
        m_c = m_c + m_h * o * _tanh(x.new, r.new, x.tanh, r.tanh)
        m_z = [
            m_c * g * s_i,
            m_c * (x.before + r.before) / 2 * s_f,
            m_c * i * _tanh(x.z[2], r.z[2], x.a[2], r.a[2]),
            m_h * (x.tanh + r.tanh) / 2 * s_o,
        ]
        gates = ops.concatenate(m_z, -1)
        m_x.append(ops.matmul(gates, ops.transpose(cell.kernel)))
        m_h, m_c = ops.matmul(gates, ops.transpose(cell.recurrent_kernel)), m_c * f
    return m_x[::-1], m_h, m_c


def _tanhc(d: Any) -> Any:
    still = ops.equal(d, 0)
    safe = ops.where(still, ops.ones_like(d), d)
    return ops.where(still, ops.ones_like(d), ops.tanh(safe) / safe)


def _tanh(x: Any, r: Any, y: Any, y_r: Any) -> Any:
    return (1 - y * y_r) * _tanhc(x - r)


def _sigmoid(x: Kept, r: Kept, gate: int) -> Any:
    y, y_r = x.a[gate], r.a[gate]
    return (y * (1 - y_r) + y_r * (1 - y)) / 2 * _tanhc((x.z[gate] - r.z[gate]) / 2)
