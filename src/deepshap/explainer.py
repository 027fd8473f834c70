"""DeepExplainer: Deep SHAP in the shape of ``shap.DeepExplainer``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import shap

from . import attribution
from .errors import InputError
from .explanation import Explanation, assemble

if TYPE_CHECKING:
    import torch

    from .pytorch.handlers import Handlers

ORDERS = {"max": lambda v: -v, "min": lambda v: v, "max_abs": lambda v: -np.abs(v)}


class DeepExplainer(shap.Explainer):
    """Exact Deep SHAP values of a PyTorch model.

    For every example the attributions sum to the model's output minus its mean over the background, to rounding error:
    DeepLIFT multipliers (Shrikumar et al. 2017) for each pair of example and reference, averaged over the background
    (Lundberg & Lee 2017), with an exact rule for every operation. Formulas: docs/mathematics.md.

    Parameters
    ----------
    model : torch.nn.Module, callable or tuple
        Anything that maps tensors with one row per example to outputs with one row per example. A tuple
        ``(model, layer)`` explains the input of that inner layer.
    data : tensor, array, list, tuple, dict or PackedSequence
        The background: rows that stand for "nothing known". A list or tuple for several inputs, a dict for inputs by
        keyword. 100 rows are usually plenty; the cost is linear in their number.
    output : int, key, tuple or callable, optional
        Which tensor to explain when the model returns a tuple or dict: its index, its key, a tuple of them for nested
        results, or a function of the result.
    batch_axis : int or sequence of int, default 0
        Where the rows lie in the input (each input); 1 for time-first sequences.
    max_memory : int or str, optional
        Memory for the activations of one chunk of pairs, in bytes or as "500 MB"; by default a quarter of what is free
        and at most 2 GiB.
    progress : bool, optional
        Show a progress bar: always, never, or (default) when a run takes longer than a few seconds.
    feature_names, output_names : sequence of str, optional
        Names for the last axis of the input and of the output; they travel in the explanation. For several inputs a list
        (dict) of feature names for each.

    Raises
    ------
    InputError
        If the background is empty, not finite, or in a form that cannot be read.

    Examples
    --------
    >>> explainer = DeepExplainer(lstm, background)            # background (100, steps, features)
    >>> explanation = explainer(x)                             # x (rows, steps, features)
    >>> explanation.values                                     # (rows, steps, features, outputs)
    """

    def __init__(
        self,
        model: Callable[..., Any] | tuple[Callable[..., Any], torch.nn.Module],
        data: Any,
        *,
        output: Any = None,
        batch_axis: int | Sequence[int] = 0,
        max_memory: int | str | None = None,
        progress: bool | None = None,
        feature_names: Sequence[Any] | Mapping[str, Sequence[str]] | None = None,
        output_names: Sequence[str] | None = None,
    ) -> None:
        from .pytorch.engine import TorchEngine

        model, layer = model if isinstance(model, tuple) else (model, None)
        if not callable(model):
            raise InputError(f"the model must be a torch.nn.Module or a callable, not a {type(model).__name__}.")
        with TorchEngine.session():
            self.engine = TorchEngine(model, data, layer=layer, output=output, batch_axis=batch_axis)
        self.max_memory = attribution.memory_budget(max_memory, self.engine.free_memory())
        self.progress = progress
        self.feature_names = feature_names if isinstance(feature_names, Mapping) else _listed(feature_names)
        self.output_names = _listed(output_names)
        self._expected_value: np.ndarray | None = None

    # ------------------------------------------------------------------ the shap interface
    @property
    def expected_value(self) -> Any:
        """Mean output over the background, of the output's shape without the batch axis.

        Raises
        ------
        InputError
            If the model takes ``additional_forward_args``: then each explained row has a base value of its own, in
            ``explainer(X, additional_forward_args=...).base_values``.
        """
        if self._expected_value is None:
            with self.engine.session():
                self._expected_value = self.engine.expected_value()
        return self._expected_value

    def shap_values(
        self,
        X: Any,
        ranked_outputs: int | None = None,
        output_rank_order: str = "max",
        check_additivity: bool = True,
        *,
        additional_forward_args: Any = None,
    ) -> Any:
        """Attribute the model's outputs on ``X`` to its inputs.

        Parameters
        ----------
        X : tensor, array, list, tuple, dict or PackedSequence
            Rows to explain, in the form of the background.
        ranked_outputs : int, optional
            Explain only that many outputs of each row, the top ones by ``output_rank_order``.
        output_rank_order : "max", "min" or "max_abs"
            How outputs are ranked.
        check_additivity : bool, default True
            Raise if the attributions do not sum to the difference of outputs. If False, warn instead.
        additional_forward_args : tuple, optional
            Further arguments of the model that describe rows and carry no signal (lengths, masks). Tensors and arrays have
            one entry per row; each row's references are evaluated with that row's own. Other values are passed as they are.

        Returns
        -------
        numpy.ndarray, list, dict or tuple
            Attributions of the input's shape with the output's axes behind it: ``(rows, steps, features, outputs)``
            for a sequence and several outputs. A list (dict) for several inputs. With ``ranked_outputs`` a pair
            ``(values, indexes)``, the indexes of shape (rows, ranked_outputs).

        Raises
        ------
        InputError, UnsupportedOperationError, ControlFlowError, BatchMixingError, NonFiniteError, AdditivityError,
        MemoryBudgetError
            See ``deepshap.errors``; nothing is returned then, and the model is as it was.
        """
        result, columns = self._explain(X, ranked_outputs, output_rank_order, check_additivity, additional_forward_args)
        values = self._shaped(result.values, ranked_outputs)
        return values if ranked_outputs is None else (values, columns)

    def __call__(self, X: Any, *, check_additivity: bool = True, additional_forward_args: Any = None) -> Explanation:
        """Explain ``X``; as ``shap_values``, with base values, data and names in one object.

        Returns
        -------
        Explanation
            A ``shap.Explanation``: ``values`` as from ``shap_values`` and ``data``, the rows first in both;
            ``base_values`` (rows, outputs) the mean output over the background as each row sees it. For several inputs
            a ``JointExplanation``, ``explanation[0]`` or ``explanation["name"]`` that of one of them.

        Raises
        ------
        InputError
            If there are not as many names as features or outputs; and whatever ``shap_values`` raises.
        """
        start = time.perf_counter()
        result, _ = self._explain(X, None, "max", check_additivity, additional_forward_args)
        return assemble(
            self._shaped(result.values, None),
            self.engine.data(X, additional_forward_args),
            self.engine.inputs.axes if self.engine.layer is None else self.engine.layer_axes,
            result.expected.reshape(len(result.expected), *self.engine.output_shape),
            self.feature_names,
            self.output_names,
            time.perf_counter() - start,
        )

    def save(self, out_file: Any) -> None:
        """Write the explainer, with its model and background, to a binary file that is open."""
        cloudpickle.dump(self, out_file)

    @classmethod
    def load(cls, in_file: Any) -> DeepExplainer:
        """Read what ``save`` wrote. Like every pickle it can run code: load only what you trust."""
        return cloudpickle.load(in_file)

    # ------------------------------------------------------------------ layers with a treatment of their own
    def register_custom_handler(self, layer_name_or_type: str | type, handler: Callable[..., Any]) -> None:
        """Replace the treatment of a whole layer; see docs/cells-and-handlers.md.

        Parameters
        ----------
        layer_name_or_type : str or type
            A layer's qualified name, as in ``layer_names``, or a type: all layers of that type or derived from it. A name
            goes before a type, a derived type before its base.
        handler : callable
            Gets a ``ModuleCall`` (module, name, inputs, outputs, reference_inputs, reference_outputs, multipliers of the
            outputs) and returns one multiplier per float tensor input, of its shape, or None for no influence. It must keep
            ``sum(m * (input - reference_input)) == sum(multiplier * (output - reference_output))``. It is called once per
            call of the layer, chunk of rows and explained output, and may keep state.

        Raises
        ------
        InputError
            If the model has no such layer, or the handler cannot be called. While explaining: ``InputError`` if the handler
            returns multipliers of the wrong number or shape, ``AdditivityError`` if they do not keep the sum.

        Examples
        --------
        >>> explainer.register_custom_handler("encoder.lstm", LSTMShapHandler())
        """
        self._handlers.register(layer_name_or_type, handler)

    def unregister_custom_handler(self, layer_name_or_type: str | type) -> None:
        """Go back to the built-in treatment of a layer.

        Raises
        ------
        InputError
            If no handler is registered under this name or type.
        """
        self._handlers.unregister(layer_name_or_type)

    @property
    def custom_handlers(self) -> Mapping[str | type, Callable[..., Any]]:
        """The registered handlers, by name or type (read only)."""
        return MappingProxyType(self._handlers.registered)

    @property
    def layer_names(self) -> dict[torch.nn.Module, str]:
        """Qualified name of every layer, as ``named_modules`` has them; "" is the model itself."""
        return dict(self._handlers.names)

    @cached_property
    def _handlers(self) -> Handlers:
        from .pytorch.handlers import Handlers

        return Handlers(self.engine)

    # ------------------------------------------------------------------ steps of an explanation
    def _explain(
        self, X: Any, ranked_outputs: int | None, order: str, check_additivity: bool, additional_forward_args: Any
    ) -> tuple[attribution.Attributions, np.ndarray]:
        self._expected_value = None  # the weights may have changed since it was computed
        with self.engine.session():
            return self._explain_rows(
                *self.engine.read(X, additional_forward_args), ranked_outputs, order, check_additivity
            )

    def _explain_rows(
        self,
        examples: list[Any],
        extra: tuple[Any, ...],
        ranked_outputs: int | None,
        order: str,
        check_additivity: bool,
    ) -> tuple[attribution.Attributions, np.ndarray]:
        engine = self.engine
        references = engine.inputs.background
        footprint = engine.prepare(examples, extra)
        sizes = attribution.chunk_sizes(len(examples[0]), len(references[0]), footprint, self.max_memory)
        native = engine.outputs(examples, extra, sizes)
        columns = _ranked(native, ranked_outputs, order)
        values, outputs, expected = attribution.explain(
            engine, examples, references, extra, columns, sizes, self.progress
        )
        native = np.take_along_axis(native, columns, 1)

        def pair(row: int) -> attribution.Chunk:
            return engine.single_pair(examples, references, extra, columns, row)

        return attribution.verified(engine, values, outputs, native, expected, pair, check_additivity), columns

    def _shaped(self, values: list[np.ndarray], ranked_outputs: int | None) -> Any:
        """Give outputs their axes back, and results the dtype and form of the input."""
        axes = self.engine.output_shape if ranked_outputs is None else (values[0].shape[-1],)
        return self.engine.restore([v.reshape(*v.shape[:-1], *axes) for v in values])


def _listed(names: Sequence[Any] | None) -> list[Any] | None:
    return None if names is None else list(names)


def _ranked(outputs: np.ndarray, ranked_outputs: int | None, order: str) -> np.ndarray:
    """Which outputs of each row to explain, (rows, k)."""
    if order not in ORDERS:
        raise InputError(f"output_rank_order must be 'max', 'min' or 'max_abs', not {order!r}.")
    if ranked_outputs is None:
        return np.tile(np.arange(outputs.shape[1]), (len(outputs), 1))
    whole = isinstance(ranked_outputs, (int, np.integer)) and not isinstance(ranked_outputs, bool)
    if not whole or not 1 <= ranked_outputs <= outputs.shape[1]:
        raise InputError(
            f"ranked_outputs must be between 1 and the number of outputs, {outputs.shape[1]}, not {ranked_outputs!r}."
        )
    return np.argsort(ORDERS[order](outputs), axis=1, kind="stable")[:, :ranked_outputs]
