"""Calls that torch does not announce to function modes: custom functions of autograd, and modules with rules of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import apis
from torch._functorch.vmap import _process_batched_inputs
from torch.autograd.function import Function
from torch.jit import ScriptFunction
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils._pytree import _broadcast_to_and_flatten, tree_flatten, tree_unflatten

from .composites import lengths
from .nodes import Node
from .operations import Operation
from .tree import replace, tensors


class ForeignCall:
    """A callable outside torch's functions (autograd.Function, module) that has, or needs, a rule."""

    def __init__(self, key: Any, function: Callable[..., Any], name: str) -> None:
        self.key, self.function, self.__name__ = key, function, name

    @property
    def is_custom(self) -> bool:
        """Whether it is a custom function of autograd."""
        return isinstance(self.key, type) and issubclass(self.key, Function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Show the call to the active tracer, or run it."""
        given = tuple(tensors((args, kwargs)))
        if has_torch_function(given):
            return handle_torch_function(self, given, *args, **kwargs)
        return self.function(*args, **kwargs)


class _Context:
    """What the forward of a custom function may do with its context; nothing of it is needed."""

    saved_tensors: tuple[Any, ...] = ()

    def __init__(self, inputs: int) -> None:
        self.needs_input_grad = (False,) * inputs

    def save_for_backward(self, *saved: Any) -> None:
        self.saved_tensors = saved

    def mark_dirty(self, *_: Tensor) -> None:
        """In-place code is followed as it runs."""

    save_for_forward = mark_non_differentiable = set_materialize_grads = mark_dirty


def run_forward(function: type[Function], args: Any, kwargs: Any) -> Any:
    """Run the forward of a custom function as the plain code that it is. Inputs come back as views, as from autograd."""
    separate = function.setup_context is not Function.setup_context  # forward takes no context then
    result = function.forward(*(() if separate else (_Context(len(args)),)), *args, **kwargs)
    given = {id(t) for t in tensors(args)}
    return replace(result, lambda t: t.view_as(t) if id(t) in given else t)


@contextmanager
def custom_functions_visible() -> Iterator[None]:
    """Let the tracer see custom functions of autograd, packing, what ``torch.vmap`` does to each row, and scripted functions.

    The codes of apply and packing are exchanged, not attributes: programs write ``f = F.apply`` when they are imported.
    """
    if _APPLY.__code__ is _ANNOUNCING:  # a run within a run
        yield
        return
    _APPLY.__code__, _APIS.vmap_impl, _SCRIPTS.__call__ = _ANNOUNCING, row_by_row, as_written
    lengths.PACK.__code__ = _packing.__code__
    try:
        yield
    finally:
        _APPLY.__code__, _APIS.vmap_impl, _SCRIPTS.__call__ = _NATIVE.__code__, _VMAP, _SCRIPTED
        lengths.PACK.__code__ = lengths.NATIVE.__code__


def _with_cell(__class__: Any) -> Any:
    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        __class__  # noqa: B018 (torch's code has this cell too)
        from deepshap.engines.torch.foreign import announced  # runs among the globals of torch's module

        return announced(cls, *args, **kwargs)

    return apply


def _packing(input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True) -> Any:
    from deepshap.engines.torch.composites.lengths import announced  # runs among the globals of torch's module

    return announced(input, lengths, batch_first, enforce_sorted)


_APIS: Any = apis
_VMAP = _APIS.vmap_impl
_SCRIPTS: Any = ScriptFunction
_SCRIPTED = _SCRIPTS.__call__
_APPLY: Any = Function.__dict__["apply"].__func__
_NATIVE: Any = FunctionType(_APPLY.__code__, _APPLY.__globals__, "apply", _APPLY.__defaults__, _APPLY.__closure__)
_ANNOUNCING = _with_cell(None).__code__


def announced(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
    """Show a custom function to the active tracer, or run it."""
    run = _NATIVE.__get__(cls)
    if issubclass(cls, Node) or not has_torch_function(tuple(tensors(args))):
        return run(*args, **kwargs)
    return ForeignCall(cls, run, cls.__qualname__)(*args, **kwargs)


def as_written(scripted: Any, *args: Any, **kwargs: Any) -> Any:
    """Run the Python function that a scripted one was made of, as torch.compile does; those from files have none."""
    own = getattr(scripted, "_torchdynamo_inline", None)
    if own is None or not has_torch_function(tuple(tensors((args, kwargs)))):
        return _SCRIPTED(scripted, *args, **kwargs)
    return own(*args, **kwargs)


def row_by_row(
    function: Callable[..., Any],
    in_dims: Any,
    out_dims: Any,
    randomness: str,
    chunk_size: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """What ``torch.vmap`` computes, by a loop: inside it, nothing could be seen of what depends on the input."""
    if not has_torch_function(tuple(tensors((args, kwargs)))):
        return _VMAP(function, in_dims, out_dims, randomness, chunk_size, *args, **kwargs)
    size, axes, flat, spec = _process_batched_inputs(in_dims, args, function)

    def row(k: int) -> Any:
        chosen = [a if axis is None else a.select(axis, k) for a, axis in zip(flat, axes, strict=True)]
        return function(*tree_unflatten(chosen, spec), **kwargs)

    flat_rows, specs = zip(*(tree_flatten(row(k)) for k in range(size)), strict=True)
    back = _broadcast_to_and_flatten(out_dims, specs[0])
    if back is None:
        raise ValueError(f"out_dims of torch.vmap do not fit to its outputs: {out_dims}")
    stacked = [
        values[0] if axis is None else torch.stack(values, axis)
        for values, axis in zip(zip(*flat_rows, strict=True), back, strict=True)
    ]
    return tree_unflatten(stacked, specs[0])


@contextmanager
def foreign_visible(modules: list[nn.Module], operations: dict[Any, Operation]) -> Iterator[None]:
    """Let the tracer meet custom autograd functions, and modules that have a rule of their own, as single calls."""
    ruled = [m for m in modules if m in operations or type(m) in operations]
    for module in ruled:
        key = module if module in operations else type(module)
        module.forward = ForeignCall(key, module.forward, type(module).__name__)
    try:
        with custom_functions_visible():
            yield
    finally:
        for module in ruled:
            module.__dict__.pop("forward", None)
