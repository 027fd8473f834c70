"""A model cut off at one of its layers, whose output is one neuron of that layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...engines.torch.engine import TorchEngine
from ...engines.torch.preserve import ModelState, preserve_run
from ...errors import InputError


class _Reached(BaseException):
    """Carries a layer's value out of the model; the rest of it need not run, nor be supported."""

    def __init__(self, value: Any) -> None:
        self.value = value


def neuron(model: Callable[..., Any], layer: nn.Module, of_input: bool, selector: Any, *args: Any) -> Tensor:
    """Run the model on ``args`` as far as the layer, and return the selected neuron of its output or input, (rows,)."""

    def stop(value: Any) -> None:
        raise _Reached(value)

    try:
        with _hooked(layer, of_input, stop):
            model(*args)
    except _Reached as reached:
        return _select(reached.value, selector)
    raise InputError(f"the layer {type(layer).__name__} is not called by the model.")


def check_called_once(model: Callable[..., Any], layer: nn.Module, inputs: Sequence[Tensor], args: Any) -> None:
    """Run the whole model on the first row, and raise if the layer is called again after its first call."""
    engine = TorchEngine(model)
    points, _ = engine.read(list(inputs), args)
    first = points[:1]
    calls: list[Any] = []
    contents = ModelState(engine.modules, model)
    with engine.running(first), preserve_run(contents), torch.no_grad(), _hooked(layer, False, calls.append):
        first.form.call(model, [x.clone() for x in first.inputs], first.extra)
    if len(calls) > 1:
        raise InputError(
            f"the layer {type(layer).__name__} is called {len(calls)} times by the model: its neurons have several values. Give "
            "each call a layer of its own."
        )


@contextmanager
def _hooked(layer: nn.Module, of_input: bool, look: Callable[[Any], None]) -> Iterator[None]:
    """Show the layer's output, or input, to a function."""

    def before(_: nn.Module, args: tuple[Any, ...]) -> None:
        look(args[0] if len(args) == 1 else args)

    def after(_: nn.Module, args: Any, result: Any) -> None:
        look(result)

    handle = layer.register_forward_pre_hook(before) if of_input else layer.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def _select(value: Any, selector: Any) -> Tensor:
    if callable(selector):
        return _one_per_row(selector(value), "neuron_selector returns")
    if isinstance(value, (tuple, list)) and len(value) == 1:
        (value,) = value
    if not isinstance(value, Tensor):
        raise InputError(
            f"the layer's value is a {type(value).__name__}, not a tensor: give a function of it as neuron_selector, for "
            "instance lambda value: value[0][:, -1, 3]."
        )
    index = selector if isinstance(selector, tuple) else (selector,)
    if not all(isinstance(i, (int, slice)) for i in index):
        raise InputError(
            f"neuron_selector must be an integer, a tuple of integers and slices, or a function, not {selector!r}."
        )
    try:
        chosen = value[(slice(None), *index)]
    except IndexError:
        raise InputError(
            f"the neuron {selector!r} is not in the layer's value, of shape {tuple(value.shape)}."
        ) from None
    if any(isinstance(i, slice) for i in index):
        chosen = chosen.reshape(len(value), -1).sum(1)
    return _one_per_row(chosen, f"the neuron {selector!r} of a layer's value of shape {tuple(value.shape)} is")


def _one_per_row(chosen: Any, what: str) -> Tensor:
    if not isinstance(chosen, Tensor) or chosen.dim() == 0 or chosen[:1].numel() != 1:
        shape = (
            f"a tensor of shape {tuple(chosen.shape)}" if isinstance(chosen, Tensor) else f"a {type(chosen).__name__}"
        )
        raise InputError(
            f"{what} {shape}; there must be one value per row. Name an index for every axis behind the first, or let a function "
            "sum over them: lambda value: value.flatten(1).sum(1)."
        )
    return chosen.reshape(len(chosen))
