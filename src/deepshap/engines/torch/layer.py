"""An inner layer whose inputs, or outputs, are explained in the place of the model's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..shell import called_twice
from .tree import replace, tensors


@contextmanager
def layer_values_through(
    layer: nn.Module, change: Callable[[list[Tensor]], Sequence[Tensor]], output: bool
) -> Iterator[None]:
    """Pass the float inputs of a layer, or its float outputs, through a function, once."""
    calls = 0

    def changed(values: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise called_twice(type(layer).__name__)
        new = iter(change([t for t in tensors(values) if t.is_floating_point()]))
        return replace(values, lambda t: next(new) if t.is_floating_point() else t)

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        taken = iter(changed([a for a in args if isinstance(a, Tensor)]))
        return tuple(next(taken) if isinstance(a, Tensor) else a for a in args)

    def after(_: nn.Module, args: Any, result: Any) -> Any:
        return changed(result)

    handle = layer.register_forward_hook(after) if output else layer.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()
