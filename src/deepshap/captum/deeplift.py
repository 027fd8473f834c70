"""The classes: what is explained (inputs, a layer, a neuron) by what it is compared with (a baseline, a distribution)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..pytorch.engine import TorchEngine
from ..pytorch.inputs import Inputs
from . import arguments
from .bases import GradientAttribution, LayerAttribution, NeuronAttribution
from .neuron import check_called_once, neuron
from .pairs import ATTRIBUTIONS, MULTIPLIERS, Comparison

Custom = Callable[..., tuple[Tensor, ...]]
WITHOUT_EFFECT = {"allow_unused", "materialize_grads", "retain_graph"}  # options of torch.autograd.grad


def _unwrappable(attribute: Callable[..., Any]) -> Callable[..., Any]:
    """Give a method ``__wrapped__``, by which captum's NoiseTunnel calls it."""

    @wraps(attribute)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return attribute(self, *args, **kwargs)

    return call


# ---------------------------------------------------------------------- inputs
class DeepLift(GradientAttribution):
    """DeepLIFT (rescale rule), exactly, for every model that ``deepshap.DeepExplainer`` explains.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Returns one row of output per row of input.
    multiply_by_inputs : bool, default True
        Return attributions: multipliers times differences of the inputs. If False, return the multipliers themselves, which
        are gradients where input and baseline are equal.
    eps : float
        Taken as captum takes it. There is no threshold here: slopes are computed without cancellation.
    """

    _crosswise = False  # whether every row is compared with all baselines

    def __init__(self, model: Callable[..., Any], multiply_by_inputs: bool = True, eps: float = 1e-10) -> None:
        GradientAttribution.__init__(self, model)
        self.model, self.multiply_by_inputs, self.eps = model, multiply_by_inputs, eps

    @property
    def multiplies_by_inputs(self) -> bool:
        """The same by captum's name."""
        return self.multiply_by_inputs

    @_unwrappable
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        custom_attribution_func: Custom | None = None,
    ) -> Any:
        """Attribute the target output of every row to the inputs of that row.

        Parameters
        ----------
        inputs : tensor or tuple of tensors
            The rows to explain, along the first axis.
        baselines : None, number, tensor or tuple of these
            What the rows are compared with: zeros, a number, one row for all or one for each; a tuple for several inputs.
        target : int, tuple, tensor or list, optional
            Which output: its index, or a tuple of indices if the output of a row has several axes. A list, or a tensor of
            integers, for one target per row. Not needed where a row has one output.
        additional_forward_args : optional
            Further arguments of the model, in a tuple if there are several. Tensors have one entry per row; the row's
            baselines share it.
        return_convergence_delta : bool, default False
            Return what the attributions miss, too.
        custom_attribution_func : callable, optional
            Called with ``(multipliers)``, ``(multipliers, inputs)`` or ``(multipliers, inputs, baselines)``, tuples of tensors
            with a row for each pair of row and baseline; returns a tuple of as many tensors, the attributions.

        Returns
        -------
        tensor or tuple of tensors
            Attributions in the form of the inputs, of their shapes, dtypes and devices. With ``return_convergence_delta`` a
            pair ``(attributions, delta)``, the delta of shape (rows,).

        Raises
        ------
        deepshap.DeepShapError
            As ``deepshap.DeepExplainer.shap_values``. Nothing is returned that does not add up.
        """
        asked = (additional_forward_args, return_convergence_delta, custom_attribution_func)
        return self._attribute(inputs, baselines, target, *asked)

    def has_convergence_delta(self) -> bool:
        """Whether ``compute_convergence_delta`` means something here: yes."""
        return True

    def compute_convergence_delta(
        self,
        attributions: Tensor | tuple[Tensor, ...],
        start_point: Any,
        end_point: Tensor | tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Tensor:
        """Return, for every row, the sum of its attributions minus ``f(end_point) - f(start_point)``.

        Parameters are those of ``attribute``: ``end_point`` the inputs, ``start_point`` one baseline for each or for all.
        """
        ends = arguments.read_inputs(end_point)
        engine = TorchEngine(self.model, arguments.one_for_each(ends, start_point))
        rows, extra = engine.read(list(ends), additional_forward_args)
        end, start = (engine.native_outputs(side, extra) for side in (rows, engine.inputs.background))
        columns = arguments.columns(target, engine.output_shape, len(rows[0]))
        difference = np.take_along_axis(end - start, columns, 1)[:, 0]
        sums = sum(a.detach().double().flatten(1).sum(1) if a.dim() > 1 else a for a in arguments.read_inputs(attributions))
        if len(sums) != len(difference):
            raise InputError(f"attributions of {len(sums)} rows for {len(difference)} rows of end_point.")
        return ...

    # ------------------------------------------------------------------ what the variants share
    def _baselines(self, inputs: tuple[Tensor, ...], baselines: Any, form: Any) -> list[Tensor]:
        return arguments.one_for_each(inputs, baselines)
