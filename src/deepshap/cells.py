"""One recurrent cell by hand: what every unit of the new state owes to every input.

``register_lstm_shap_hook`` explains one call of one cell, unit by unit; ``gate_attribution`` and
``product_attribution`` are the two steps it is made of. For models, and for everything that is not one of these cells,
there is ``DeepExplainer``. Derivation: docs/tex/lstm_shap_generic.tex; the formulas' code: ``pytorch/recurrent.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .errors import InputError
from .pytorch import recurrent, rules, secants
from .pytorch.operations import Pairs, Step
from .pytorch.recurrent import Weights
from .pytorch.state import preserved
from .pytorch.tree import tensors

GATES = "ifgo"  # input, forget, cell and output gate, in torch's order


# ---------------------------------------------------------------------- the hook
def register_lstm_shap_hook(
    lstm_cell: nn.Module, x_base: Any, h_base: Any, c_base: Any = None, *, output: str | None = None
) -> LSTMShapBackwardHook:
    """Prepare a cell to be explained against a baseline.

    Parameters
    ----------
    lstm_cell : torch.nn.Module
        An ``nn.LSTMCell``, ``nn.GRUCell`` or ``nn.RNNCell``, or a cell with one ``nn.Linear`` per gate and side: ``fc_ii``,
        ``fc_hi`` (input gate), ``fc_if``, ``fc_hf`` (forget gate), ``fc_ig``, ``fc_hg`` (cell gate), ``fc_io``, ``fc_ho``
        (output gate), with or without bias. Without an output gate the cell yields a cell state only.
    x_base, h_base, c_base : tensor, array or number
        The baseline: one row ``(input,)``, ``(hidden,)``, ``(hidden,)`` for all examples, or one row per example. GRU and
        RNN cells have no ``c``: leave ``c_base`` out.
    output : {"c", "h"}, optional
        The state to explain: the new cell state (default), or the new hidden state, which is all that GRU and RNN cells
        have.

    Returns
    -------
    LSTMShapBackwardHook
        Call it: ``new_c, shap_values = hook(x, h, c)``. Nothing is attached to the module.

    Raises
    ------
    InputError
        If the cell is none of these, the baseline does not fit it, or it has no such output.

    Examples
    --------
    >>> hook = register_lstm_shap_hook(torch.nn.LSTMCell(3, 2), torch.zeros(3), torch.zeros(2), torch.zeros(2))
    >>> new_c, shap_values = hook(torch.randn(5, 3), torch.randn(5, 2), torch.randn(5, 2))
    >>> shap_values["shap_x"].shape, shap_values["shap_h"].shape, shap_values["shap_c"].shape
    (torch.Size([5, 2, 3]), torch.Size([5, 2, 2]), torch.Size([5, 2, 2]))
    """
    return LSTMShapBackwardHook(lstm_cell, x_base, h_base, c_base, output=output)


class LSTMShapBackwardHook:
    """Explains calls of one cell against one baseline; see ``register_lstm_shap_hook`` for the parameters.

    Attributes
    ----------
    module : the cell. Its weights are read at every call, so it may go on training.
    output : "c" or "h", the state that is explained.
    base_output : the explained state at the baseline, (hidden,) or (batch, hidden).
    """

    def __init__(
        self, module: nn.Module, x_base: Any, h_base: Any, c_base: Any = None, *, output: str | None = None
    ) -> None:
        self.module = module
        cell = find_cell(module)
        self.output = _explained(cell, output)
        self._base = [b.clone() for b in _read(cell, (x_base, h_base, c_base), suffix="_base")]

    @property
    def base_output(self) -> Tensor:
        """The explained state at the baseline."""
        cell = find_cell(self.module)
        (base,), single = _beside(_read(cell, self._base))
        new = _new_states(cell, base)[self.output]
        return new[0] if single else new

    def calculate_shap(self, x: Any, h: Any, c: Any = None) -> dict[str, Tensor]:
        """Attribute every unit of the new state to every element of the input and of the old states.

        Parameters
        ----------
        x, h, c : tensor, array or number
            ``(batch, input)``, ``(batch, hidden)``, ``(batch, hidden)``, or single rows without the batch axis. They and
            the baseline are broadcast to a common batch. GRU and RNN cells take no ``c``.

        Returns
        -------
        dict
            ``shap_x`` (batch, hidden, input), ``shap_h`` (batch, hidden, hidden) and, where there is a cell state,
            ``shap_c`` (batch, hidden, hidden); without the batch axis for single rows. ``[..., j, i]`` is what unit j of
            the new state owes to element i, so that the sums over the last axes, all three together, are the new state
            minus the new state at the baseline. A unit's old cell state reaches no other unit: ``shap_c`` is diagonal.

        Raises
        ------
        InputError
            If a shape does not fit, a value is not finite, or the cell's own ``forward`` computes something else than
            these gates.
        """
        return self(x, h, c)[1]

    def __call__(self, x: Any, h: Any, c: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the new state, ``(batch, hidden)`` or ``(hidden,)``, and the attributions of ``calculate_shap``."""
        cell = find_cell(self.module)
        (example, base), single = _beside(_read(cell, (x, h, c)), _read(cell, self._base))
        _confirm(self.module, example, _new_states(cell, example))
        which = 0 if self.output == "h" else 1
        new, _, attributions = _by_unit(cell.formula, cell.weights, example, base, which)
        values = dict(zip(("shap_x", "shap_h", "shap_c"), attributions, strict=False))
        return (new[0], {key: v[0] for key, v in values.items()}) if single else (new, values)


@torch.no_grad()
def _by_unit(
    formula: Any, weights: Weights, example: list[Tensor], base: list[Tensor], which: int = 0
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Explain every unit of one new state at once: the cell's own multipliers, for each unit's multiplier 1.

    ``example`` and ``base`` hold x and the states, each (batch, features). Returns both sides' new state (batch, units),
    and per input its attributions (batch, units, features).
    """
    (new, kept), (new_base, kept_base) = (_forward(formula, weights, side) for side in (example, base))
    rows, units = new[which].shape
    ones = torch.eye(units, dtype=new[which].dtype, device=new[which].device).expand(rows, units, units)
    seeds = [ones if state == which else torch.zeros_like(ones) for state in range(len(new))]
    sides = ({name: v.unsqueeze(1) for name, v in side.items()} for side in (kept, kept_base))
    m_z, m_h, rest = formula.multipliers(seeds, *sides, weights)
    multipliers = (m_z @ weights.w_ih, m_h, *rest)
    attributions = [m * (a - b).unsqueeze(1) for m, a, b in zip(multipliers, example, base, strict=True)]
    return new[which], new_base[which], attributions


def _forward(formula: Any, weights: Weights, side: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    x, *states = side
    return formula.forward(formula.input_share(x, weights), states, weights)


# ---------------------------------------------------------------------- building blocks
class GateAttribution(NamedTuple):
    """What ``gate_attribution`` returns: shapes (batch, hidden, input), (batch, hidden, hidden), twice (batch, hidden)."""

    r_x: Tensor
    r_h: Tensor
    output: Tensor
    base_output: Tensor


class _SigmoidGate(recurrent.TanhRNN):
    activation = staticmethod(torch.sigmoid)
    secant = staticmethod(secants.sigmoid)


_ACTIVATIONS = {"sigmoid": _SigmoidGate, "tanh": recurrent.TanhRNN}


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
    """
    if activation not in _ACTIVATIONS:
        raise InputError(f"activation must be 'sigmoid' or 'tanh', not {activation!r}.")
    weights = Weights(w_ih, w_hh, b_ih, b_hh)
    cell = Cell(_ACTIVATIONS[activation], weights, ("h",), ("x", "h"))
    (example, base), single = _beside(_read(cell, (x, h)), _read(cell, (x_base, h_base), suffix="_base"))
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
    """
    sides = [_floating(v) for v in (a, b, a_base, b_base)]
    try:
        a, b, a_base, b_base = torch.broadcast_tensors(*sides)
    except RuntimeError:
        shapes = ", ".join(str(tuple(s.shape)) for s in sides)
        raise InputError(f"the factors and their baselines have shapes that do not broadcast: {shapes}.") from None
    example, base = _product(a, b), _product(a_base, b_base)
    example.reference = base
    m_a, m_b = rules.along_segment(nodes=1)(example, torch.ones_like(a))  # type: ignore[misc]
    return m_a * (a - a_base), m_b * (b - b_base)


def _product(a: Tensor, b: Tensor) -> Step:
    pairs = Pairs(1, a.shape[0] if a.dim() else 1)
    return Step(
        "mul", "product_attribution", torch.mul, (a, b), {}, (True, True), pairs, inputs=(a, b), outputs=(a * b,)
    )


# ---------------------------------------------------------------------- finding the weights
class Cell(NamedTuple):
    """A recognised cell: its formulas, its weights, the states it yields and what it takes."""

    formula: Any
    weights: Weights
    yields: tuple[str, ...]
    takes: tuple[str, ...]

    @property
    def widths(self) -> dict[str, int]:
        """Number of features of everything that the cell takes."""
        size = self.weights.w_hh.shape[1]
        return dict(zip(self.takes, (self.weights.w_ih.shape[1], size, size), strict=False))


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
            return Cell(recurrent.LSTM, weights, ("h", "c"), ("x", "h", "c"))
        plain = recurrent.ReluRNN if getattr(module, "nonlinearity", "tanh") == "relu" else recurrent.TanhRNN
        return Cell(recurrent.GRU if isinstance(module, nn.GRUCell) else plain, weights, ("h",), ("x", "h"))
    gates = {name: getattr(module, name, None) for name in _linear_names(GATES)}
    found = [name for name, gate in gates.items() if isinstance(gate, nn.Linear)]
    complete = GATES if set(found) == set(gates) else GATES[:3]
    if found != _linear_names(complete):
        raise InputError(_unrecognised(module, found))
    return _gathered({name: gates[name] for name in found}, complete)


def _linear_names(gates: str) -> list[str]:
    return [f"fc_{side}{gate}" for gate in gates for side in "ih"]


def _gathered(linears: dict[str, Any], gates: str) -> Cell:
    """Put one linear layer per gate and side into torch's layout; an output gate that is missing gets weights 0."""
    weights = [[linears[f"fc_{side}{gate}"].weight.detach() for gate in gates] for side in "ih"]
    size = len(weights[0][0])
    shapes = [{tuple(w.shape) for w in side} for side in weights]
    if [len(s) for s in shapes] != [1, 1] or shapes[1] != {(size, size)}:
        found = ", ".join(f"{name} {tuple(linear.weight.shape)}" for name, linear in linears.items())
        raise InputError(
            "the weights of the cell's gates must have the shape (hidden, input) for all fc_i* and (hidden, hidden) for all "
            f"fc_h*; they are {found}."
        )
    missing = [size * (len(GATES) - len(gates))]
    stacked = [torch.cat([*side, side[0].new_zeros(*missing, side[0].shape[1])]) for side in weights]
    biases = [[linears[f"fc_{side}{gate}"].bias for gate in gates] for side in "ih"]
    zero = weights[0][0].new_zeros(size)
    shifts = [
        torch.cat([*(zero if b is None else b.detach() for b in side), zero.new_zeros(missing)]) for side in biases
    ]
    yields = ("h", "c") if gates == GATES else ("c",)
    return Cell(recurrent.LSTM, Weights(*stacked, *shifts), yields, ("x", "h", "c"))


def _unrecognised(module: Any, found: list[str]) -> str:
    if type(module).__module__.partition(".")[0] in ("keras", "tf_keras", "tensorflow"):
        return (
            f"{type(module).__name__} is a Keras cell; the hook takes PyTorch cells. Copy its weights into a "
            "torch.nn.LSTMCell, GRUCell or RNNCell."
        )
    return (
        f"the weights of {type(module).__name__} could not be found. Looked for a torch.nn.LSTMCell, GRUCell or RNNCell, and "
        f"for one nn.Linear per gate and side, {', '.join(_linear_names(GATES[:3]))} and, for an output gate, both fc_io and "
        f"fc_ho; found {', '.join(found) or 'none of them'}. Rename the layers, or use deepshap.DeepExplainer, which follows "
        "the forward pass of any module."
    )


def _explained(cell: Cell, output: str | None) -> str:
    """The state to explain, checked."""
    if output is None:
        return cell.yields[-1]
    if output not in cell.yields:
        raise InputError(f"output={output!r}: this cell yields {' and '.join(map(repr, cell.yields))}.")
    return output


def _new_states(cell: Cell, side: list[Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        new, _ = _forward(cell.formula, cell.weights, side)
    states = dict(zip("hc", new, strict=False))
    return {name: states[name] for name in cell.yields}


def _confirm(module: nn.Module, example: list[Tensor], new: dict[str, Tensor]) -> None:
    """Where the cell's own ``forward`` can be called, it must return a state that its weights say."""
    if type(module) in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
        return
    x, *states = example
    for arguments in ((x, *states), (x, tuple(states))):
        try:
            with preserved(list(module.modules())), torch.no_grad():
                returned = list(tensors(module(*arguments)))
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


# ---------------------------------------------------------------------- reading rows
def _floating(value: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"expected a tensor, an array or a number, not a {type(value).__name__}.") from None
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())


def _read(cell: Cell, values: Sequence[Any], suffix: str = "") -> list[Tensor]:
    """Tensors (batch, features), or (features,) where a single row is given, of the weights' dtype and device."""
    if "c" not in cell.takes and any(v is not None for v in values[2:]):
        raise InputError(f"this cell has no cell state: leave c{suffix} out.")
    like, given = cell.weights.w_ih, zip(cell.takes, values, strict=False)
    return [_row(name + suffix, value, cell.widths[name], like) for name, value in given]


def _row(name: str, value: Any, width: int, like: Tensor) -> Tensor:
    if value is None:
        raise InputError(f"{name} is missing: pass a tensor (batch, {width}) or ({width},), or 0.0 for zeros.")
    tensor = _floating(value).to(like)
    if tensor.dim() == 0:
        tensor = tensor.expand(width)
    if tensor.dim() > 2 or tensor.shape[-1] != width:
        raise InputError(
            f"{name} has shape {tuple(tensor.shape)}; this cell takes (batch, {width}), or ({width},) for a single row."
        )
    if not bool(torch.isfinite(tensor).all()):
        raise InputError(f"{name} has NaN or infinite values.")
    return tensor


def _beside(*sides: list[Tensor]) -> tuple[list[list[Tensor]], bool]:
    """Broadcast all sides to one batch; also say whether all of the first were single rows, and so is the result."""
    rows = {len(t) for side in sides for t in side if t.dim() == 2}
    batch = max(rows - {1}, default=1)
    if rows - {1, batch}:
        raise InputError(
            f"the inputs and the baseline have {', '.join(map(str, sorted(rows)))} rows: give all the same number of rows, or "
            "a single row to be used for all."
        )
    single = batch == 1 and all(t.dim() == 1 for t in sides[0])
    return [[t.expand(batch, t.shape[-1]) for t in side] for side in sides], single
