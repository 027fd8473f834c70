"""Calls that torch does not show to function modes: custom functions, scripts, vmap, and derivatives that a model takes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, Function, FunctionMeta
from torch.jit import ScriptFunction
from torch.overrides import handle_torch_function, has_torch_function

from ...errors import UnsupportedOperationError
from ._compat import (
    basic_decompositions,
    broadcast_to,
    flatten,
    interception_off,
    python_of_script,
    triton_is_safe,
    unflatten,
    vmap_inputs,
    vmap_replaced,
)
from .autograd import Node
from .calls import DerivativeTaken, replace, tensors, unwritten_message
from .convolutions import Convolution
from .operations import Operation
from .preserve import ModelState, preserve_run
from .table import USER_OPERATIONS


class TracedCallable:
    """A callable outside torch's functions (autograd.Function, module) that has, or needs, a rule."""

    def __init__(self, key: Any, function: Callable[..., Any], name: str) -> None:
        self.key, self.function, self.__name__ = key, function, name

    @property
    def is_custom(self) -> bool:
        """Return whether the callable is a custom function of autograd."""
        return isinstance(self.key, type) and issubclass(self.key, Function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Show the call to the active tracer, or run the function."""
        operands = tuple(tensors((args, kwargs)))
        if has_torch_function(operands):
            return handle_torch_function(self, operands, *args, **kwargs)
        return self.function(*args, **kwargs)


class _Context:
    """What the forward of a custom function may do with its context; the tracer needs none of it."""

    saved_tensors: tuple[Any, ...] = ()

    def __init__(self, inputs: int) -> None:
        self.needs_input_grad = (False,) * inputs

    def save_for_backward(self, *saved: Any) -> None:
        self.saved_tensors = saved

    def mark_dirty(self, *_: Tensor) -> None:
        """Ignore the note; the tracer sees in-place writes as they run."""

    save_for_forward = mark_non_differentiable = set_materialize_grads = mark_dirty


def run_forward(function: type[Function], args: Any, kwargs: Any) -> Any:
    """Run the forward of a custom function as plain code. Inputs that it returns become views, as from autograd."""
    context = () if _has_setup_context(function) else (_Context(len(args)),)
    result = _class_attribute(function, "forward")(*context, *args, **kwargs)
    input_ids = {id(t) for t in tensors(args)}
    return replace(result, lambda t: t.view_as(t) if id(t) in input_ids else t)


# ---------------------------------------------------------------------- custom functions of autograd
# torch does not show ``Function.apply`` to function modes. But whatever calls it, ``F.apply(x)`` or an alias ``f = F.apply`` made
# at import, ``apply`` looks ``forward`` and ``setup_context`` up on the class in each call. Python looks an attribute of a class
# up on its metaclass first, and a descriptor with ``__set__`` found there wins. So during a run FunctionMeta, the metaclass of
# all custom functions, gets descriptors of these two names, which show the call to the tracer.


class CustomFunctionCall(TracedCallable):
    """A call of a custom function of autograd, from inside torch's ``apply``.

    When ``apply`` returns, torch replaces the history (``grad_fn``) of each differentiable output by that of the function's own
    backward. So a traced call hands torch copies without history, marked as not differentiable. The tracer attaches the
    traced history to the copies before anything else is computed from them.
    """

    def __init__(self, key: type[Function], forward: Callable[..., Any]) -> None:
        super().__init__(key, key.apply, key.__qualname__)
        self.forward = forward  # the function's own, which runs where nothing depends on the explained input
        self.awaiting: list[tuple[Tensor, Tensor]] | None = None  # the tracer's list of (copy, traced output)
        self.copies: list[Tensor] = []  # outputs that torch must give no history

    def without_history(self, outputs: Any) -> Any:
        """Return the outputs of a traced call as copies without history."""
        if self.awaiting is None:
            return outputs
        with interception_off():  # a call that the tracer sees would attach the history at once
            return tuple(map(self._copy, outputs)) if isinstance(outputs, tuple) else self._copy(outputs)

    def _copy(self, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        if not output.requires_grad:  # torch would let it depend on the inputs
            self.copies.append(output)
            return output
        assert self.awaiting is not None
        copy = output.detach().clone()
        self.awaiting.append((copy, output))
        self.copies.append(copy)
        return copy


class _ClassAttribute:
    """A descriptor on FunctionMeta for ``forward`` or ``setup_context`` of every custom function."""

    def __init__(self, name: str, replacement: Callable[..., Any]) -> None:
        self._name, self._replacement = name, replacement
        self._ours = {
            function: _class_attribute(function, name) for function in (Node, Convolution)
        }  # called at every step

    def __get__(self, function: Any, owner: Any) -> Any:
        if function is None:
            return self
        if (ours := self._ours.get(function)) is not None:
            return ours
        original = _class_attribute(function, self._name)
        if self._name == "setup_context" and not _has_setup_context(function):
            return original  # torch compares it to the default
        replacement = partial(self._replacement, function, original)
        replacement.__wrapped__ = original  # type: ignore[attr-defined] # torch reads the defaults from its signature
        return replacement

    def __set__(self, function: Any, value: Any) -> None:
        meta: Any = FunctionMeta
        delattr(meta, self._name)
        try:
            setattr(function, self._name, value)
        finally:
            setattr(meta, self._name, self)


class _Pending(threading.local):
    """Outputs of traced calls whose ``setup_context`` torch has yet to call, with those to leave without history."""

    calls: Sequence[tuple[Any, list[Tensor]]] = ()


_PENDING = _Pending()


def _show_forward(function: type[Function], original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Show a custom function to the active tracer, or run it."""
    separate = _has_setup_context(function)
    inputs = args if separate else args[1:]
    called_by_torch = separate or (bool(args) and isinstance(args[0], BackwardCFunction))
    if not called_by_torch or not has_torch_function(tuple(tensors((inputs, kwargs)))):
        return original(*args, **kwargs)  # no tracer is active, or another function calls this forward as plain code
    call = CustomFunctionCall(function, original if separate else partial(original, args[0]))
    outputs = call.without_history(call(*inputs, **kwargs))
    if not separate:
        if call.copies:
            args[0].mark_non_differentiable(*call.copies)
    elif call.awaiting is not None:
        _PENDING.calls = [*_PENDING.calls[-9:], (outputs, call.copies)]
    return outputs


def _show_setup_context(
    function: type[Function], original: Callable[..., Any], context: Any, inputs: Any, output: Any
) -> None:
    """Set up the context of a call; one that was traced needs nothing in it."""
    copies = next((copies for outputs, copies in _PENDING.calls if outputs is output), None)
    if copies is None:
        original(context, inputs, output)
        return
    _PENDING.calls = [c for c in _PENDING.calls if c[0] is not output]
    context.mark_non_differentiable(*copies)


def _class_attribute(function: type[Function], name: str) -> Any:
    """Return an attribute of a class or its bases, past the metaclass."""
    return next(vars(c)[name] for c in function.__mro__ if name in vars(c)).__get__(None, function)


def _has_setup_context(function: type[Function]) -> bool:
    """Return whether a class overrides ``setup_context``; its forward takes no context then."""
    return _class_attribute(function, "setup_context") is not _class_attribute(Function, "setup_context")


@contextmanager
def show_custom_functions() -> Iterator[None]:
    """Show custom functions of autograd, the rows of ``torch.vmap``, and scripted functions to the tracer."""
    if "forward" in vars(FunctionMeta):  # a run within a run
        yield
        return
    meta: Any = FunctionMeta
    meta.forward = _ClassAttribute("forward", _show_forward)
    meta.setup_context = _ClassAttribute("setup_context", _show_setup_context)
    _SCRIPTS.__call__ = run_script_source
    try:
        with vmap_replaced(vmap_by_loop):
            yield
    finally:
        del meta.forward, meta.setup_context
        _PENDING.calls = ()
        _SCRIPTS.__call__ = _SCRIPTED


_SCRIPTS: Any = ScriptFunction
_SCRIPTED = _SCRIPTS.__call__


# ---------------------------------------------------------------------- scripted functions, vmap, and modules with rules
def run_script_source(scripted: Any, *args: Any, **kwargs: Any) -> Any:
    """Run the Python function that a scripted one was compiled from, if there is one."""
    source = python_of_script(scripted)
    if source is None or not has_torch_function(tuple(tensors((args, kwargs)))):
        return _SCRIPTED(scripted, *args, **kwargs)
    return source(*args, **kwargs)


def vmap_by_loop(
    original: Callable[..., Any],
    function: Callable[..., Any],
    in_dims: Any,
    out_dims: Any,
    randomness: str,
    chunk_size: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Compute ``torch.vmap`` by a loop, because the tracer cannot see the calls inside vmap."""
    if not has_torch_function(tuple(tensors((args, kwargs)))):
        return original(function, in_dims, out_dims, randomness, chunk_size, *args, **kwargs)
    size, axes, flat, spec = vmap_inputs(in_dims, args, function)

    def run_row(k: int) -> Any:
        row_args = [a if axis is None else a.select(axis, k) for a, axis in zip(flat, axes, strict=True)]
        return function(*unflatten(row_args, spec), **kwargs)

    flat_rows, specs = zip(*(flatten(run_row(k)) for k in range(size)), strict=True)
    back = broadcast_to(specs[0], out_dims)
    if back is None:
        raise ValueError(f"out_dims of torch.vmap do not fit to its outputs: {out_dims}")
    stacked = [
        values[0] if axis is None else torch.stack(values, axis)
        for values, axis in zip(zip(*flat_rows, strict=True), back, strict=True)
    ]
    return unflatten(stacked, specs[0])


@contextmanager
def show_calls(modules: list[nn.Module], operations: dict[Any, Operation]) -> Iterator[None]:
    """Show custom autograd functions, and modules that have a rule of their own, to the tracer as single calls."""
    ruled = [m for m in modules if m in operations or type(m) in operations]
    for module in ruled:
        key = module if module in operations else type(module)
        module.forward = TracedCallable(key, module.forward, type(module).__name__)
    try:
        with show_custom_functions():
            yield
    finally:
        for module in ruled:
            module.__dict__.pop("forward", None)


T = TypeVar("T")
RowsFunction = Callable[[Sequence[Tensor]], Tensor]


class Derivatives:
    """Detects whether a model takes derivatives of its own, and runs it then.

    While a model is explained, backward passes carry multipliers. A model that takes derivatives is therefore first recorded on
    plain tensors as torch's basic operations, backward ones included, and the recorded program is explained instead.
    """

    def __init__(self, state: ModelState, layer: Any, rules: dict[Any, Any]) -> None:
        self._state, self._layer, self._rules = state, layer, rules
        self.are_taken = False

    def run_plain(self, run: Callable[[], T]) -> T:
        """Run the unmodified model, without gradients unless it asks for some."""
        if not self.are_taken:
            try:
                with preserve_run(self._state), torch.no_grad():
                    return run()
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
        self.are_taken = True
        with preserve_run(self._state), torch.enable_grad():
            return run()

    def run_supported(self, run: Callable[[], T]) -> T:
        """Run, and if the model takes derivatives, run its recorded program.

        The program has no layers and no calls with rules of the user's, so models with these raise an error.
        """
        try:
            return run()
        except DerivativeTaken as error:
            refusal = UnsupportedOperationError(str(error))
            if self._layer is not None:
                raise refusal from None
            if self._rules or USER_OPERATIONS:
                lost = " Without rules that are registered, which would be lost by it, that is done for you."
                raise UnsupportedOperationError(f"{refusal}{lost}") from None
        self.are_taken = True
        try:
            return run()
        except (UnsupportedOperationError, RuntimeError) as error:
            self.are_taken = False
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise UnsupportedOperationError(
                f"{refusal} Recorded as basic operations, what it computes cannot be explained either: {error}"
            ) from error

    def recorded(self, call: RowsFunction, rows: Sequence[Tensor]) -> RowsFunction:
        """Return the model as a function of rows; if it takes derivatives, as its recorded program."""
        if not self.are_taken or self._layer is not None or self._rules or USER_OPERATIONS:
            return call
        if "triton" not in sys.modules and find_spec("triton") is not None and not triton_is_safe():
            raise UnsupportedOperationError(
                "the model takes a derivative of its own. To write that out, torch imports Triton, which ends the process if "
                "TensorFlow has been imported before it. Write `import triton` before `import tensorflow`."
            )
        from torch.fx.experimental.proxy_tensor import make_fx

        try:
            with torch.enable_grad():
                copies = [r.detach().clone() for r in rows]
                graph = make_fx(lambda *inputs: call(inputs), basic_decompositions())(*copies)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise UnsupportedOperationError(unwritten_message(error)) from error
        graph.graph.eliminate_dead_code()  # values of which forward mode used only the shapes
        graph.recompile()
        return lambda inputs: graph(*inputs)
