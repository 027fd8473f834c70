"""Leave the user's model and torch as they were, whatever happens in between."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..registry import codes, is_filled
from .keras_layers import named_modules, start_from_states, written_when_called
from .precision import full_float32

_one_at_a_time = threading.RLock()  # what one thread changes for a run, another must not take for the user's


def modules_of(model: Callable[..., Any]) -> list[nn.Module]:
    """All modules a model is made of, also behind functions, methods, partials and objects that hold them."""
    roots: list[nn.Module] = []
    _collect(model, roots, set())
    return list({id(m): m for root in roots for _, m in named_modules(root, private=True)}.values())


def _collect(value: Any, roots: list[nn.Module], seen: set[int]) -> None:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        roots.append(value)
        return
    for held in _held(value):
        _collect(held, roots, seen)


def _held(value: Any) -> list[Any]:
    """What a callable, or a container in it, can reach without running."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set)):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if inspect.ismethod(value):
        return [value.__self__, value.__func__]
    if inspect.isfunction(value):
        cells = [c.cell_contents for c in value.__closure__ or () if is_filled(c)]
        names = [name for code in codes(value.__code__) for name in code.co_names]
        named = [value.__globals__[name] for name in names if name in value.__globals__]
        return [*cells, *named, value.__defaults__, value.__kwdefaults__, vars(value)]
    if inspect.isclass(value) or inspect.ismodule(value) or isinstance(value, Tensor):
        return []
    call = getattr(type(value), "__call__", None)  # noqa: B004 (wanted is the function, which may name modules)
    return [*getattr(value, "__dict__", {}).values(), call]


@contextmanager
def preserved(modules: list[nn.Module]) -> Iterator[None]:
    """Put modules into eval mode without parameter gradients, and restore everything about them on the way out."""
    with _one_at_a_time, ExitStack() as stack:
        for module in modules:
            stack.callback(_restorer(module))
        stack.enter_context(_random_state_kept())
        stack.enter_context(full_float32())
        stack.enter_context(_compilation_off())
        stack.enter_context(_fused_transformers_off())
        for module in modules:
            module.training = False
            start_from_states(module)
            for hooks in (
                module._backward_hooks,
                module._backward_pre_hooks,
            ):  # they would see multipliers as gradients
                hooks.clear()
            for parameter in module._parameters.values():
                if parameter is not None and parameter.is_leaf and not parameter.is_inference():
                    parameter.requires_grad_(False)
        yield


def _restorer(module: nn.Module) -> Callable[[], None]:
    attributes = dict(module.__dict__)
    contents = [(v, v.copy()) for v in attributes.values() if isinstance(v, (dict, list, set))]
    gradients = [
        (p, p.requires_grad)
        for p in module._parameters.values()
        if p is not None and p.is_leaf and not p.is_inference()
    ]
    renormed = (
        module._parameters.values() if getattr(module, "max_norm", None) is not None else ()
    )  # in every forward pass
    held = (v for v in attributes.values() if isinstance(v, Tensor))
    tensors = [*renormed, *module._buffers.values(), *held, *written_when_called(module)]
    values = [(t, t._version, t.detach().clone()) for t in tensors if t is not None and not t.is_inference()]

    def restore() -> None:
        module.__dict__.clear()
        module.__dict__.update(attributes)
        for container, content in contents:
            _refill(container, content)
        for parameter, required in gradients:
            parameter.requires_grad_(required)
        with torch.no_grad():
            for tensor, version, value in values:
                if tensor._version != version:
                    tensor.copy_(value)

    return restore


def _refill(container: Any, content: Any) -> None:
    if _same(container, content):  # Keras' own lists take note of every change
        return
    container.clear()
    if isinstance(container, list):
        container.extend(content)
    else:
        container.update(content)


def _same(container: Any, content: Any) -> bool:
    if isinstance(container, dict):
        return list(map(id, container)) == list(map(id, content)) and _same(
            list(container.values()), list(content.values())
        )
    return len(container) == len(content) and all(a is b for a, b in zip(container, content, strict=True))


@contextmanager
def _random_state_kept() -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        yield


@contextmanager
def _compilation_off() -> Iterator[None]:
    """Compiled modules run as plain Python meanwhile, where the tracer can see what they call.

    Without torch._dynamo nothing is compiled. Setting the stance would import it, and Triton with it, which crashes a
    process that has imported TensorFlow before.
    """
    set_stance = getattr(torch.compiler, "set_stance", None) if "torch._dynamo" in sys.modules else None
    if set_stance is None:
        yield
        return
    with set_stance("force_eager"):
        yield


@contextmanager
def _fused_transformers_off() -> Iterator[None]:
    """The fused encoder layers compute other values at padded positions than the layers they stand for."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
