"""The cells of PyTorch for the hook of ``deepshap.compat.lstm``, and the two steps that a cell is made of.

Derivation: docs/tex/lstm_shap_generic.tex; the formulas' code: ``deepshap.formulas.cells``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...engines.torch.calls import tensors
from ...engines.torch.preserve import ModelState, preserve_run
from ...errors import InputError
from ...formulas import cells, rules
from ...formulas.cells import Weights
from .handler import Rows

GATES = "ifgo"  # input, forget, cell and output gate, in torch's order


# ---------------------------------------------------------------------- finding the weights
class Cell(NamedTuple):
    """A recognised cell: its formulas, its weights, the states it yields, what it takes, and the module."""

    formula: Any
    weights: Weights
    yields: tuple[str, ...]
    takes: tuple[str, ...]
    module: Any = None

    @property
    def widths(self) -> dict[str, int]:
        """Number of features of everything that the cell takes."""
        size = self.weights.w_hh.shape[1]
        return dict(zip(self.takes, (self.weights.w_ih.shape[1], size, size), strict=False))


def reader_of(module: nn.Module) -> Callable[[], Cell]:
    """Return a function that reads the cell, with its weights at the time of the call."""
    find_cell(module)
    return partial(find_cell, module)


def find_cell(module: nn.Module) -> Cell:
    """Find the weights of a cell.

    Raises
    ------
    InputError
        If it is none of the cells of ``register_lstm_shap_hook``.
    """
    if isinstance(module, (nn.LSTMCell, nn.GRUCell, nn.RNNCell)):
        weights = Weights(module.weight_ih, module.weight_hh, module.bias_ih, module.bias_hh)
        if isinstance(module, nn.LSTMCell):
            return Cell(cells.LSTM, weights, ("h", "c"), ("x", "h", "c"), module)
        plain = cells.ReluRNN if getattr(module, "nonlinearity", "tanh") == "relu" else cells.TanhRNN
        return Cell(cells.GRU if isinstance(module, nn.GRUCell) else plain, weights, ("h",), ("x", "h"), module)
    gates = {name: getattr(module, name, None) for name in _linear_names(GATES)}
    names = [name for name, gate in gates.items() if isinstance(gate, nn.Linear)]
    complete = GATES if set(names) == set(gates) else GATES[:3]
    if names != _linear_names(complete):
        raise InputError(_unrecognised(module, names))
    return _gathered({name: gates[name] for name in names}, complete)._replace(module=module)


def _linear_names(gates: str) -> list[str]:
    return [f"fc_{side}{gate}" for gate in gates for side in "ih"]


def _gathered(linears: dict[str, Any], gates: str) -> Cell:
    """Put one linear layer per gate and side into torch's layout; an output gate that is missing gets weights 0."""
    weights = [[linears[f"fc_{side}{gate}"].weight.detach() for gate in gates] for side in "ih"]
    size = len(weights[0][0])
    shapes = [{tuple(w.shape) for w in side} for side in weights]
    if [len(s) for s in shapes] != [1, 1] or shapes[1] != {(size, size)}:
        shapes_by_name = ", ".join(f"{name} {tuple(linear.weight.shape)}" for name, linear in linears.items())
        raise InputError(
            "the weights of the cell's gates must have the shape (hidden, input) for all fc_i* and (hidden, hidden) for all "
            f"fc_h*; they are {shapes_by_name}."
        )
    missing = [size * (len(GATES) - len(gates))]
    stacked = [torch.cat([*side, side[0].new_zeros(*missing, side[0].shape[1])]) for side in weights]
    biases = [[linears[f"fc_{side}{gate}"].bias for gate in gates] for side in "ih"]
    zero = weights[0][0].new_zeros(size)
    shifts = [
        torch.cat([*(zero if b is None else b.detach() for b in side), zero.new_zeros(missing)]) for side in biases
    ]
    yields = ("h", "c") if gates == GATES else ("c",)
    return Cell(cells.LSTM, Weights(*stacked, *shifts), yields, ("x", "h", "c"))


def _unrecognised(module: Any, names: list[str]) -> str:
    return (
        f"the weights of {type(module).__name__} could not be found. Looked for a torch.nn.LSTMCell, GRUCell or RNNCell, and "
        f"for one nn.Linear per gate and side, {', '.join(_linear_names(GATES[:3]))} and, for an output gate, both fc_io and "
        f"fc_ho; found {', '.join(names) or 'none of them'}. Rename the layers, or use deepshap.DeepExplainer, which follows "
        "the forward pass of any module."
    )


def new_states(cell: Cell, side: list[Tensor]) -> dict[str, Tensor]:
    """Return the new states of the cell after a step, (batch, hidden)."""
    with torch.no_grad():
        new, _ = cell.formula.forward(side[0], side[1:], cell.weights)
    states = dict(zip("hc", new, strict=False))
    return {name: states[name] for name in cell.yields}


def _confirm(module: nn.Module, example: list[Tensor], new: dict[str, Tensor]) -> None:
    """Raise unless the cell's ``forward``, where it can be called, returns the state that its weights imply."""
    if type(module) in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
        return
    x, *states = example
    for arguments in ((x, *states), (x, tuple(states))):
        try:
            with preserve_run(ModelState(list(module.modules()), module)), torch.no_grad():
                returned = tensors(module(*arguments))
        except Exception:  # another signature, or none
            continue
        if not any(_equal(r, n) for r in returned for n in new.values()):
            raise InputError(
                f"{type(module).__name__}.forward returns other values than an LSTM, GRU or RNN cell with its weights: the hook "
                "would explain another function. Use deepshap.DeepExplainer, which follows the forward pass itself."
            )
        return


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not a.is_floating_point():
        return False
    return bool(((a - b).abs() <= torch.finfo(b.dtype).eps ** 0.5 * b.abs().clamp(min=1)).all())


# ---------------------------------------------------------------------- what the hook asks
class TorchRows(Rows):
    """Reads rows as tensors of torch."""

    def tensor(self, value: Any, cell: Cell) -> Tensor:
        """Return a copy with the dtype and the device of the cell's weights."""
        return _floating(value).to(cell.weights.w_ih, copy=True)

    def expand(self, row: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the value repeated to a shape."""
        return row.expand(shape)

    def is_finite(self, row: Tensor) -> bool:
        """Return whether there is neither NaN nor infinity."""
        return bool(torch.isfinite(row).all())


ROWS = TorchRows()


def _floating(value: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"expected a tensor, an array or a number, not a {type(value).__name__}.") from None
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())


def by_unit(cell: Cell, output: str, example: list[Tensor], base: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the new state (batch, units), and what each unit owes to x and the states, (batch, units, features)."""
    _confirm(cell.module, example, new_states(cell, example))
    new, _, attributions = _by_unit(cell.formula, cell.weights, example, base, 0 if output == "h" else 1)
    return new, attributions


@torch.no_grad()
def _by_unit(
    formula: Any, weights: Weights, example: list[Tensor], base: list[Tensor], which: int = 0
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Explain every unit of one new state at once: the cell's own multipliers, for each unit's multiplier 1.

    ``example`` and ``base`` hold x and the states, each (batch, features). Returns both sides' new state (batch, units),
    and per input its attributions (batch, units, features).
    """
    (new, values), (new_base, base_values) = (formula.forward(x, state, weights) for x, *state in (example, base))
    rows, units = new[which].shape
    ones = torch.eye(units, dtype=new[which].dtype, device=new[which].device).expand(rows, units, units)
    seeds = [ones if state == which else torch.zeros_like(ones) for state in range(len(new))]
    sides = ({name: v.unsqueeze(1) for name, v in side.items()} for side in (values, base_values))
    m_z, m_h, rest = formula.multipliers(seeds, *sides, weights)
    multipliers = (m_z @ weights.w_ih, m_h, *rest)
    attributions = [m * (a - b).unsqueeze(1) for m, a, b in zip(multipliers, example, base, strict=True)]
    return new[which], new_base[which], attributions


# ---------------------------------------------------------------------- building blocks
class GateAttribution(NamedTuple):
    """What ``gate_attribution`` returns: shapes (batch, hidden, input), (batch, hidden, hidden), twice (batch, hidden)."""

    r_x: Tensor
    r_h: Tensor
    output: Tensor
    base_output: Tensor


_ACTIVATIONS = {"sigmoid": cells.SigmoidRNN, "tanh": cells.TanhRNN}


def gate_attribution(
    x: Any,
    h: Any,
    x_base: Any,
    h_base: Any,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    activation: str = "sigmoid",
) -> GateAttribution:
    """Attribute a gate ``y = activation(w_ih x + b_ih + w_hh h + b_hh)`` to x and h, unit by unit.

    ``r_x[j, i] = s_j w_ih[j, i] (x_i - x_base_i)`` with s the secant slope of the activation, and alike for h. It is the
    familiar share of unit j's own denominator, ``w_ih[j, i] (x_i - x_base_i) / (z_j - z_base_j)``, times the change of
    the gate, without the division.

    Parameters
    ----------
    x, h, x_base, h_base : tensor, array or number
        ``(batch, input)`` and ``(batch, hidden)``, or single rows ``(input,)`` and ``(hidden,)``.
    w_ih, w_hh : Tensor
        Weights ``(units, input)`` and ``(units, hidden)``.
    b_ih, b_hh : Tensor, optional
        Biases ``(units,)``.
    activation : {"sigmoid", "tanh"}
        What makes the gate of the weighted sum.

    Returns
    -------
    GateAttribution
        ``r_x`` (batch, units, input), ``r_h`` (batch, units, hidden), ``output`` and ``base_output`` (batch, units), without
        the batch axis if all four are single rows. ``r_x.sum(-1) + r_h.sum(-1) == output - base_output``.

    Raises
    ------
    InputError
        If the activation is neither, or a shape does not fit.

    Examples
    --------
    >>> weights = torch.randn(4, 3), torch.randn(4, 2)
    >>> gate = deepshap.gate_attribution(torch.ones(3), torch.ones(2), torch.zeros(3), torch.zeros(2), *weights)
    >>> gate.r_x.shape, gate.r_h.shape
    (torch.Size([4, 3]), torch.Size([4, 2]))
    """
    if activation not in _ACTIVATIONS:
        raise InputError(f"activation must be 'sigmoid' or 'tanh', not {activation!r}.")
    weights = Weights(w_ih, w_hh, b_ih, b_hh)
    cell = Cell(_ACTIVATIONS[activation], weights, ("h",), ("x", "h"))
    (example, base), single = ROWS.beside(ROWS.read(cell, (x, h)), ROWS.read(cell, (x_base, h_base), suffix="_base"))
    output, base_output, (r_x, r_h) = _by_unit(cell.formula, weights, example, base)
    result = GateAttribution(r_x, r_h, output, base_output)
    return GateAttribution(*(v[0] for v in result)) if single else result


def product_attribution(a: Any, b: Any, a_base: Any, b_base: Any) -> tuple[Tensor, Tensor]:
    """Attribute an elementwise product ``y = a b`` to its factors.

    ``R[a] = (a - a_base) (b + b_base) / 2`` and alike for b: the Shapley values of the game of two players.

    Parameters
    ----------
    a, b, a_base, b_base : tensor, array or number
        Of shapes that broadcast.

    Returns
    -------
    tuple of tensors
        ``R[a]`` and ``R[b]`` of the product's shape; ``R[a] + R[b] == a b - a_base b_base``.

    Raises
    ------
    InputError
        If the shapes do not broadcast.

    Examples
    --------
    >>> a, b = deepshap.product_attribution(3.0, 2.0, 1.0, 0.0)
    >>> a.item(), b.item()  # sum to 3 * 2 - 1 * 0
    (2.0, 4.0)
    """
    sides = [_floating(v) for v in (a, b, a_base, b_base)]
    try:
        a, b, a_base, b_base = torch.broadcast_tensors(*sides)
    except RuntimeError:
        shapes = ", ".join(str(tuple(s.shape)) for s in sides)
        raise InputError(f"the factors and their baselines have shapes that do not broadcast: {shapes}.") from None
    m_a, m_b = rules.product(torch.ones_like(a), (a, a_base), (b, b_base))
    return m_a * (a - a_base), m_b * (b - b_base)
