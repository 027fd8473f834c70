"""The classes: what is explained (inputs, a layer, a neuron) by what it is compared with (a baseline, a distribution)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...engines.torch.engine import TorchEngine
from ...errors import InputError, UnsupportedOperationError, check_options
from . import arguments
from .arguments import GradientAttribution, LayerAttribution, NeuronAttribution
from .neuron import check_called_once, neuron
from .pairs import AT_ONCE, Explained

Tensors = Tensor | tuple[Tensor, ...]
Custom = Callable[..., tuple[Tensor, ...]]
WITHOUT_EFFECT = {"allow_unused", "materialize_grads", "retain_graph"}  # options of torch.autograd.grad


def _unwrappable(attribute: Callable[..., Any]) -> Callable[..., Any]:
    """Give a method ``__wrapped__``, by which captum's NoiseTunnel calls it, and have its options checked."""
    parameters = signature(attribute)

    @wraps(attribute)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_options(**parameters.bind(self, *args, **kwargs).arguments)
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
        are derivatives where an input equals its baseline.
    eps : float
        Accepted, and without effect: slopes are computed without cancellation, so that no threshold is needed.

    Examples
    --------
    >>> deepshap.captum.DeepLift(model).attribute(x, baselines=0.0, target=0).shape
    torch.Size([6, 5, 3])
    """

    _crosswise = False  # whether every row is compared with all baselines

    def __init__(self, model: Callable[..., Any], multiply_by_inputs: bool = True, eps: float = 1e-10) -> None:
        GradientAttribution.__init__(self, model)
        check_options(multiply_by_inputs=multiply_by_inputs)
        self.model, self.multiply_by_inputs, self.eps = model, multiply_by_inputs, eps

    @property
    def multiplies_by_inputs(self) -> bool:
        """The same by captum's name."""
        return self.multiply_by_inputs

    @_unwrappable
    def attribute(
        self,
        inputs: Tensors,
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
            Further arguments of the model, in a tuple if there are several. Tensors have one entry per row, which the row's
            baselines share.
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

    def attribute_future(self, *args: Any, **kwargs: Any) -> Any:
        """Raise an error: as in captum, models that return futures are not explained.

        Raises
        ------
        deepshap.UnsupportedOperationError
            Always.
        """
        raise UnsupportedOperationError(
            "attribute_future is for models that return a torch.futures.Future, which are not explained: call attribute on a "
            "model that waits for it."
        )

    def has_convergence_delta(self) -> bool:
        """Return True: there is a ``compute_convergence_delta``.

        Returns
        -------
        bool
            True.
        """
        return True

    def compute_convergence_delta(
        self,
        attributions: Tensors,
        start_point: Any,
        end_point: Tensors,
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Tensor:
        """Return, for every row, the sum of its attributions minus ``f(end_point) - f(start_point)``.

        Parameters
        ----------
        attributions : tensor or tuple of tensors
            Attributions of the rows, in the form of the inputs.
        start_point : None, number, tensor or tuple of these
            Baselines as in ``DeepLift.attribute``: one for all rows or one for each.
        end_point : tensor or tuple of tensors
            The explained rows.
        target, additional_forward_args : optional
            As in ``DeepLift.attribute``.

        Returns
        -------
        tensor
            What the attributions miss, (rows,).

        Raises
        ------
        deepshap.InputError
            If there are not as many attributions as rows.
        """
        ends, values = arguments.read_inputs(end_point), arguments.read_inputs(attributions)
        engine = TorchEngine(self.model)
        with engine.session():
            references = engine.read_background(arguments.one_for_each(ends, start_point))
            rows, _ = engine.read(list(ends), additional_forward_args, references)
            sides = (rows, references.described_by(rows))
            end, start = (engine.native_outputs(side, AT_ONCE) for side in sides)
        columns = arguments.columns(target, engine.output_shape, len(end))
        if len(values[0]) != len(end):
            raise InputError(f"attributions of {len(values[0])} rows for {len(end)} rows of end_point.")
        sums = sum(a.to("cpu", torch.float64).reshape(len(a), -1).sum(1).numpy() for a in values)
        return _tensor(sums - np.take_along_axis(end - start, columns, 1)[:, 0], ends[0], getattr(torch, engine.dtype))

    # ------------------------------------------------------------------ what the variants share
    def _baselines(self, inputs: tuple[Tensor, ...], baselines: Any, form: Any) -> list[Tensor]:
        return arguments.one_for_each(inputs, baselines)

    def _attribute(
        self,
        inputs: Tensors,
        baselines: Any,
        target: Any,
        args: Any,
        with_delta: bool,
        custom: Custom | None,
        **layer: Any,
    ) -> Any:
        tensors = arguments.read_inputs(inputs)
        engine = TorchEngine(self.model, **layer)
        with engine.session():
            explained = Explained(
                engine, tensors, self._baselines(tensors, baselines, inputs), args, target, self._crosswise
            )
            means, sums = explained.attributions(self.multiply_by_inputs, custom)
            missed = sums - explained.differences() if with_delta else None
        dtype = getattr(torch, engine.dtype)
        likes = [tensors[0]] * len(means) if layer else tensors
        dtypes = [dtype if layer or not x.is_floating_point() else x.dtype for x in likes]
        placed = [np.moveaxis(mean, 0, axis) for mean, axis in zip(means, explained.axes, strict=True)]
        attributions = tuple(_tensor(*entry) for entry in zip(placed, likes, dtypes, strict=True))
        result = attributions if (isinstance(inputs, tuple) and not layer) or len(attributions) > 1 else attributions[0]
        return result if missed is None else (result, _tensor(missed.reshape(-1), tensors[0], dtype))


def _tensor(values: np.ndarray, like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device, dtype)


class DeepLiftShap(DeepLift):
    """Deep SHAP: ``DeepLift`` against each of many baselines, averaged. The values are those of ``deepshap.DeepExplainer``.

    Parameters are those of ``DeepLift``.

    Examples
    --------
    >>> deepshap.captum.DeepLiftShap(model).attribute(x, baselines=background, target=0).shape
    torch.Size([6, 5, 3])
    """

    _crosswise = True

    def __init__(self, model: Callable[..., Any], multiply_by_inputs: bool = True) -> None:
        DeepLift.__init__(self, model, multiply_by_inputs)

    @_unwrappable
    def attribute(
        self,
        inputs: Tensors,
        baselines: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        custom_attribution_func: Custom | None = None,
    ) -> Any:
        """Attribute the target output of every row to its inputs, as ``DeepLift.attribute``, averaged over baselines.

        Parameters
        ----------
        baselines : tensor, tuple of tensors or callable
            The distribution: one row per baseline, or a function, of the inputs or of nothing, that returns it.
        inputs, target, additional_forward_args, return_convergence_delta, custom_attribution_func
            As in ``DeepLift.attribute``.

        Returns
        -------
        tensor or tuple of tensors
            As ``DeepLift.attribute``. The convergence delta has one entry per pair, all baselines of the first row first.

        Raises
        ------
        deepshap.DeepShapError
            As ``DeepLift.attribute``.
        """
        asked = (additional_forward_args, return_convergence_delta, custom_attribution_func)
        return self._attribute(inputs, baselines, target, *asked)

    def _baselines(self, inputs: tuple[Tensor, ...], baselines: Any, form: Any) -> list[Tensor]:
        return arguments.distribution(inputs, baselines, form)


# ---------------------------------------------------------------------- layers
class LayerDeepLift(LayerAttribution, DeepLift):
    """``DeepLift`` for the output, or the input, of an inner layer in place of the model's input.

    Parameters
    ----------
    layer : torch.nn.Module
        A layer that the model calls once.
    model, multiply_by_inputs
        As in ``DeepLift``; the differences are those of the layer's values.

    Examples
    --------
    >>> deepshap.captum.LayerDeepLift(model, model.head).attribute(x, baselines=0.0, target=0).shape
    torch.Size([6, 1])
    """

    def __init__(self, model: Callable[..., Any], layer: nn.Module, multiply_by_inputs: bool = True) -> None:
        check_options(layer=layer)
        DeepLift.__init__(self, model, multiply_by_inputs)
        LayerAttribution.__init__(self, model, layer)

    @_unwrappable
    def attribute(
        self,
        inputs: Tensors,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        custom_attribution_func: Custom | None = None,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Attribute the target output of every row to the layer's output or input.

        Parameters
        ----------
        attribute_to_layer_input : bool, default False
            Attribute to the layer's input in place of its output.
        grad_kwargs : dict, optional
            Options of ``torch.autograd.grad`` that have no effect on values, as captum passes them.
        inputs, baselines, target, additional_forward_args, return_convergence_delta, custom_attribution_func
            As in ``DeepLift.attribute``.

        Returns
        -------
        tensor or tuple of tensors
            Attributions of the shape of the layer's value; a tuple if that consists of several float tensors, in their order.

        Raises
        ------
        deepshap.DeepShapError
            As ``DeepLift.attribute``, and if the model does not call the layer exactly once.
        """
        if refused := set(grad_kwargs or ()) - WITHOUT_EFFECT:
            raise InputError(
                f"grad_kwargs {sorted(refused)} cannot be used: there is no gradient to ask for. Leave them out."
            )
        asked = (additional_forward_args, return_convergence_delta, custom_attribution_func)
        layer = {"layer": self.layer, "layer_output": not attribute_to_layer_input, "around": True}
        return self._attribute(inputs, baselines, target, *asked, **layer)


class LayerDeepLiftShap(LayerDeepLift, DeepLiftShap):
    """``DeepLiftShap`` for the output, or the input, of an inner layer. Parameters are those of ``LayerDeepLift``.

    Examples
    --------
    >>> layer = deepshap.captum.LayerDeepLiftShap(model, model.head)
    >>> layer.attribute(x, baselines=background, target=0).shape
    torch.Size([6, 1])
    """

    @_unwrappable
    def attribute(
        self,
        inputs: Tensors,
        baselines: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        custom_attribution_func: Custom | None = None,
    ) -> Any:
        """Attribute the target output to the layer's output or input, averaged over a distribution of baselines.

        Parameters
        ----------
        baselines : tensor, tuple of tensors or callable
            As in ``DeepLiftShap.attribute``.
        inputs, target, additional_forward_args, return_convergence_delta, attribute_to_layer_input, custom_attribution_func
            As in ``LayerDeepLift.attribute``.

        Returns
        -------
        tensor or tuple of tensors
            As ``LayerDeepLift.attribute``.
        """
        asked = (additional_forward_args, return_convergence_delta, attribute_to_layer_input, custom_attribution_func)
        return LayerDeepLift.attribute(self, inputs, baselines, target, *asked)


# ---------------------------------------------------------------------- neurons
class NeuronDeepLift(NeuronAttribution, GradientAttribution):
    """``DeepLift`` for a neuron of an inner layer in place of the model's output.

    Parameters
    ----------
    layer : torch.nn.Module
        A layer that the model calls once. What comes after it is not run.
    model, multiply_by_inputs
        As in ``DeepLift``.

    Examples
    --------
    >>> neuron = deepshap.captum.NeuronDeepLift(model, model.head)
    >>> neuron.attribute(x, neuron_selector=0, baselines=0.0).shape
    torch.Size([6, 5, 3])
    """

    _method: type[DeepLift] = DeepLift

    def __init__(self, model: Callable[..., Any], layer: nn.Module, multiply_by_inputs: bool = True) -> None:
        GradientAttribution.__init__(self, model)
        NeuronAttribution.__init__(self, model, layer)
        check_options(layer=layer, multiply_by_inputs=multiply_by_inputs)
        self.model, self.multiply_by_inputs = model, multiply_by_inputs

    multiplies_by_inputs = DeepLift.multiplies_by_inputs

    @_unwrappable
    def attribute(
        self,
        inputs: Tensors,
        neuron_selector: Any,
        baselines: Any = None,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
        custom_attribution_func: Custom | None = None,
    ) -> Any:
        """Attribute a neuron of the layer's output or input to the model's inputs.

        Parameters
        ----------
        neuron_selector : int, tuple or callable
            The neuron's index; a tuple with an index for every axis of the layer's value behind the first; or a function of the
            layer's value that returns one number per row. Slices in the tuple select several neurons: their sum is explained.
        attribute_to_neuron_input : bool, default False
            Explain a neuron of the layer's input in place of its output.
        inputs, baselines, additional_forward_args, custom_attribution_func
            As in ``DeepLift.attribute``.

        Returns
        -------
        tensor or tuple of tensors
            As ``DeepLift.attribute``.

        Raises
        ------
        deepshap.DeepShapError
            As ``DeepLift.attribute``, and if the model does not call the layer exactly once or the layer has no such neuron.
        """
        model = partial(neuron, self.model, self.layer, attribute_to_neuron_input, neuron_selector)
        check_called_once(self.model, self.layer, arguments.read_inputs(inputs), additional_forward_args)
        method = self._method(model, self.multiply_by_inputs)
        return method.attribute(
            inputs,
            baselines,
            additional_forward_args=additional_forward_args,
            custom_attribution_func=custom_attribution_func,
        )


class NeuronDeepLiftShap(NeuronDeepLift):
    """``DeepLiftShap`` for a neuron of an inner layer. Parameters are those of ``NeuronDeepLift``.

    Examples
    --------
    >>> neuron = deepshap.captum.NeuronDeepLiftShap(model, model.head)
    >>> neuron.attribute(x, neuron_selector=0, baselines=background).shape
    torch.Size([6, 5, 3])
    """

    _method = DeepLiftShap

    @_unwrappable
    def attribute(
        self,
        inputs: Tensors,
        neuron_selector: Any,
        baselines: Any,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
        custom_attribution_func: Custom | None = None,
    ) -> Any:
        """Attribute a neuron to the model's inputs, averaged over a distribution of baselines.

        Parameters
        ----------
        baselines : tensor, tuple of tensors or callable
            As in ``DeepLiftShap.attribute``.
        inputs, neuron_selector, additional_forward_args, attribute_to_neuron_input, custom_attribution_func
            As in ``NeuronDeepLift.attribute``.

        Returns
        -------
        tensor or tuple of tensors
            As ``DeepLift.attribute``.
        """
        asked = (additional_forward_args, attribute_to_neuron_input, custom_attribution_func)
        return NeuronDeepLift.attribute(self, inputs, neuron_selector, baselines, *asked)
