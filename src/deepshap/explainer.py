"""DeepExplainer: Deep SHAP in the shape of ``shap.DeepExplainer``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import shap

from . import attribution
from .errors import InputError, NonFiniteError

if TYPE_CHECKING:
    import torch

ORDERS = {"max": lambda v: -v, "min": lambda v: v, "max_abs": lambda v: -np.abs(v)}


class DeepExplainer:
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
        Names for the last axis of the input and of the output; they travel in the explanation.

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
        feature_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
    ) -> None:
        from .pytorch.engine import TorchEngine

        model, layer = model if isinstance(model, tuple) else (model, None)
        if not callable(model):
            raise InputError(f"the model must be a torch.nn.Module or a callable, not a {type(model).__name__}.")
        self.engine = TorchEngine(model, data, layer=layer, output=output, batch_axis=batch_axis)
        self.max_memory = attribution.memory_budget(max_memory, self.engine.free_memory())
        self.progress = progress
        self.feature_names = None if feature_names is None else list(feature_names)
        self.output_names = None if output_names is None else list(output_names)
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

    def __call__(
        self, X: Any, *, check_additivity: bool = True, additional_forward_args: Any = None
    ) -> shap.Explanation:
        """Explain ``X``; as ``shap_values``, with base values, data and names in one object.

        Returns
        -------
        shap.Explanation
            ``values`` as from ``shap_values``, ``base_values`` (rows, outputs) the mean output over the background as
            each row sees it.
        """
        start = time.perf_counter()
        result, _ = self._explain(X, None, "max", check_additivity, additional_forward_args)
        return shap.Explanation(
            values=self._shaped(result.values, None),
            base_values=result.expected.reshape(len(result.expected), *self.engine.output_shape),
            data=self.engine.data(X, additional_forward_args),
            feature_names=self.feature_names,
            output_names=self.output_names,
            compute_time=time.perf_counter() - start,
        )

    # ------------------------------------------------------------------ steps of an explanation
    def _explain(
        self, X: Any, ranked_outputs: int | None, order: str, check_additivity: bool, additional_forward_args: Any
    ) -> tuple[attribution.Attributions, np.ndarray]:
        engine = self.engine
        examples, extra = engine.read(X, additional_forward_args)
        references = engine.inputs.background
        needed = engine.prepare(examples, extra)
        sizes = attribution.chunk_sizes(len(examples[0]), len(references[0]), *needed, self.max_memory)
        native = engine.outputs(examples, extra, sizes)
        columns = _ranked(native, ranked_outputs, order)
        values, outputs, expected = attribution.explain(
            engine, examples, references, extra, columns, sizes, self.progress
        )
        if not np.isfinite(expected).all():
            raise NonFiniteError("the model returns NaN or infinity for a row of the background.")
        chosen = np.take_along_axis(native, columns, 1)
        engine.compare_with_native(outputs, chosen, attribution.output_scale(chosen, expected))
        gap = attribution.additivity_gap(values, chosen, expected, engine.tolerance, engine.eps)
        result = attribution.Attributions(values, chosen, expected, gap)

        def pair(row: int) -> attribution.Chunk:
            return engine.single_pair(examples, references, extra, columns, row)

        attribution.check(engine, result, pair, engine.tolerance, check_additivity)
        return result, columns

    def _shaped(self, values: list[np.ndarray], ranked_outputs: int | None) -> Any:
        """Give outputs their axes back, and results the dtype and form of the input."""
        axes = self.engine.output_shape if ranked_outputs is None else (values[0].shape[-1],)
        return self.engine.restore([v.reshape(*v.shape[:-1], *axes) for v in values])


def _ranked(outputs: np.ndarray, ranked_outputs: int | None, order: str) -> np.ndarray:
    """Which outputs of each row to explain, (rows, k)."""
    if ranked_outputs is None:
        return np.tile(np.arange(outputs.shape[1]), (len(outputs), 1))
    if order not in ORDERS:
        raise InputError(f"output_rank_order must be 'max', 'min' or 'max_abs', not {order!r}.")
    if not 1 <= ranked_outputs <= outputs.shape[1]:
        raise InputError(f"ranked_outputs must be between 1 and the number of outputs, {outputs.shape[1]}.")
    return np.argsort(ORDERS[order](outputs), axis=1, kind="stable")[:, :ranked_outputs]
