"""Leave the user's model and torch as they were, whatever happens in between."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def modules_of(model: Callable[..., Any]) -> list[nn.Module]:
    """All modules a model is made of, also behind methods, functions and partials that hold them."""
    roots: list[nn.Module] = []
    _collect(model, roots, depth=3)
    return list({id(m): m for root in roots for m in root.modules()}.values())


def _collect(value: Any, roots: list[nn.Module], depth: int) -> None:
    if isinstance(value, nn.Module):
        roots.append(value)
    elif depth and isinstance(value, (list, tuple)):
        for item in value:
            _collect(item, roots, depth - 1)
    elif depth and hasattr(value, "func") and hasattr(value, "args"):
        _collect([value.func, *value.args, *value.keywords.values()], roots, depth)
    elif depth and inspect.ismethod(value):
        _collect(value.__self__, roots, depth - 1)
    elif depth and inspect.isfunction(value):
        cells = [c.cell_contents for c in value.__closure__ or () if _filled(c)]
        named = [value.__globals__[n] for n in value.__code__.co_names if n in value.__globals__]
        _collect([*cells, *named], roots, depth - 1)


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


@contextmanager
def preserved(modules: list[nn.Module]) -> Iterator[None]:
    """Put modules into eval mode without parameter gradients, and restore everything about them on the way out."""
    with ExitStack() as stack:
        for module in modules:
            stack.callback(_restorer(module))
        stack.enter_context(_random_state_kept())
        stack.enter_context(_compilation_off())
        stack.enter_context(_fused_transformers_off())
        for module in modules:
            module.training = False
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
    tensors = [*module._buffers.values(), *(v for v in attributes.values() if isinstance(v, Tensor))]
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
    container.clear()
    if isinstance(container, list):
        container.extend(content)
    else:
        container.update(content)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        yield


@contextmanager
def _compilation_off() -> Iterator[None]:
    """Compiled modules run as plain Python meanwhile, where the tracer can see what they call."""
    set_stance = getattr(torch.compiler, "set_stance", None)
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
