"""One recurrent cell by hand: what every unit of the new state owes to every input.

``register_lstm_shap_hook`` explains one call of one cell, unit by unit; ``gate_attribution`` and
``product_attribution`` are the two steps it is made of. For models, and for everything that is not one of these cells,
there is ``DeepExplainer``. What is particular to a framework: ``torch_cells.py`` and ``keras_cells.py``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...engines.callables import is_keras
from ...errors import InputError

if TYPE_CHECKING:
    from .torch_cells import gate_attribution, product_attribution

__all__ = ["LSTMShapBackwardHook", "gate_attribution", "product_attribution", "register_lstm_shap_hook"]


def __getattr__(name: str) -> Any:
    """Import the building blocks, which need PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".torch_cells", __package__), name)


# ---------------------------------------------------------------------- the hook
def register_lstm_shap_hook(
    lstm_cell: Any, x_base: Any, h_base: Any, c_base: Any = None, *, output: str | None = None
) -> LSTMShapBackwardHook:
    """Prepare a cell to be explained against a baseline.

    Parameters
    ----------
    lstm_cell : torch.nn.Module or keras.layers.Layer
        An ``nn.LSTMCell``, ``nn.GRUCell`` or ``nn.RNNCell``, or a cell with one ``nn.Linear`` per gate and side: ``fc_ii``,
        ``fc_hi`` (input gate), ``fc_if``, ``fc_hf`` (forget gate), ``fc_ig``, ``fc_hg`` (cell gate), ``fc_io``, ``fc_ho``
        (output gate), with or without bias. Without an output gate the cell yields a cell state only. Or a
        ``keras.layers.LSTMCell``, ``GRUCell`` or ``SimpleRNNCell`` that has weights; tensors are those of Keras' backend then.
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

    Examples
    --------
    >>> hook = deepshap.register_lstm_shap_hook(torch.nn.LSTMCell(3, 2), torch.zeros(3), torch.zeros(2), torch.zeros(2))
    >>> hook.base_output.shape
    torch.Size([2])
    """

    def __init__(self, module: Any, x_base: Any, h_base: Any, c_base: Any = None, *, output: str | None = None) -> None:
        self.module, self._cells = module, _cells_of(module)
        self._cell = self._cells.reader_of(module)
        cell = self._cell()
        self.output = _explained(cell, output)
        self._base = self._cells.ROWS.read(cell, (x_base, h_base, c_base), suffix="_base")

    @property
    def base_output(self) -> Any:
        """The explained state at the baseline."""
        cell = self._cell()
        (base,), single = self._cells.ROWS.beside(self._cells.ROWS.read(cell, self._base))
        new = self._cells.new_states(cell, base)[self.output]
        return new[0] if single else new

    def calculate_shap(self, x: Any, h: Any, c: Any = None) -> dict[str, Any]:
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

    def __call__(self, x: Any, h: Any, c: Any = None) -> tuple[Any, dict[str, Any]]:
        """Return the new state, ``(batch, hidden)`` or ``(hidden,)``, and the attributions of ``calculate_shap``."""
        cell = self._cell()
        rows = self._cells.ROWS
        (example, base), single = rows.beside(rows.read(cell, (x, h, c)), rows.read(cell, self._base))
        new, attributions = self._cells.by_unit(cell, self.output, example, base)
        values = dict(zip(("shap_x", "shap_h", "shap_c"), attributions, strict=False))
        return (new[0], {key: v[0] for key, v in values.items()}) if single else (new, values)


def _cells_of(module: Any) -> Any:
    """Return the module for the cells of a framework."""
    return import_module(".keras_cells" if is_keras(module) else ".torch_cells", __package__)


def _explained(cell: Any, output: str | None) -> str:
    """Return the state to explain after checking its name."""
    if output is None:
        return str(cell.yields[-1])
    if output not in cell.yields:
        raise InputError(f"output={output!r}: this cell yields {' and '.join(map(repr, cell.yields))}.")
    return output


# ---------------------------------------------------------------------- reading rows
