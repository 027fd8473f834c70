"""Leave the user's model and torch as they were, whatever happens in between."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ...errors import InputError
from ..callables import reached
from ..keeping import generators_kept, keep, note
from .keras_layers import is_keras, named_modules, norms_in_one_step, start_from_states, written_when_called
from .precision import full_float32

_one_at_a_time = threading.RLock()  # what one thread changes for a run, another must not take for the user's


def modules_of(model: Callable[..., Any]) -> list[nn.Module]:
    """All modules a model is made of, also behind functions, methods, partials and objects that hold them."""
    roots = [one for one in reached(model, _is_of_torch) if isinstance(one, nn.Module)]
    return list({id(m): m for root in roots for _, m in named_modules(root, private=True)}.values())


def home_of(modules: list[nn.Module]) -> tuple[torch.device | None, torch.dtype | None]:
    """Device and float dtype of a model, from its first parameter or buffer; None when it has none."""
    tensors = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    floats = [t.dtype for t in tensors if t.is_floating_point()]
    return next((t.device for t in tensors), None), next(iter(floats), None)


def check_weights(modules: list[nn.Module]) -> None:
    """Refuse weights that are not made yet, or that torch cannot follow values through."""
    parameters = [p for m in modules for p in m._parameters.values() if p is not None]
    if any(map(is_lazy, parameters)):
        raise InputError("the model has lazy layers without weights yet: run it once on data of the right shape first.")
    if any(p.is_inference() for p in parameters):
        raise InputError(
            "the model's weights were made under torch.inference_mode, and torch follows nothing through them. Copy the "
            "model outside of it (copy.deepcopy), or make it under torch.no_grad."
        )


def _is_of_torch(value: Any) -> bool:
    return isinstance(value, (nn.Module, Tensor))


class Contents:
    """What modules hold, and a model that is an object of the user's own. Read at every run, or once in a session."""

    def __init__(self, modules: list[nn.Module], model: Callable[..., Any]) -> None:
        self.modules, self._model = modules, getattr(model, "__self__", model)
        self.keras = list(filter(is_keras, modules))
        self._sessions = 0
        self._known: list[Callable[[], None]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": 0, "_known": None}

    @contextmanager
    def session(self) -> Iterator[None]:
        """The runs within leave the model as it was before the first of them."""
        self._sessions += 1
        try:
            yield
        finally:
            self._sessions -= 1
            self._known = self._known if self._sessions else None

    def undo(self) -> list[Callable[[], None]]:
        """What puts everything back, the last one first."""
        if self._known is not None:
            return self._known
        unknown = any(_leaves_parameters(m) is None for m in self.modules)
        found = _contents_kept(self.modules, self._model, unknown)
        if self._sessions and not unknown:  # whose parameters need no copies is found by running, and asked again
            self._known = found
        return found


@contextmanager
def preserved(contents: Contents) -> Iterator[None]:
    """Put modules into eval mode without parameter gradients, and restore everything about them on the way out."""
    with _one_at_a_time, ExitStack() as stack:
        for undo in contents.undo():
            stack.callback(undo)
        stack.enter_context(generators_kept())
        stack.enter_context(_random_state_kept())
        stack.enter_context(full_float32())
        stack.enter_context(_compilation_off())
        stack.enter_context(_fused_transformers_off())
        stack.enter_context(norms_in_one_step())
        for module in contents.keras:
            start_from_states(module)
        _look_experts_up(contents.modules)
        for module in contents.modules:
            if module.training:
                module.training = False
            for hooks in (
                module._backward_hooks,
                module._backward_pre_hooks,
            ):  # they would take multipliers for gradients
                hooks.clear()
            for parameter in module._parameters.values():
                if parameter is not None and parameter.requires_grad and parameter.is_leaf:
                    parameter.requires_grad_(False)
        yield


def _look_experts_up(modules: list[nn.Module]) -> None:
    """Let mixtures of experts of transformers look up the weights of each token's experts.

    Their other ways run each expert on its tokens of all rows, whose number depends on the input.
    """
    configs = {id(found): found for m in modules if (found := m.__dict__.get("config")) is not None}
    for config in configs.values():
        if getattr(config, "_experts_implementation", None) is not None:
            config._experts_implementation = "batched_mm"


def _contents_kept(modules: list[nn.Module], model: Any, unknown: bool) -> list[Callable[[], None]]:
    """Everything that modules hold: attributes, nested containers and objects, arrays, tensors.

    ``unknown``: of some it is not known whether they leave their parameters alone.
    """
    tensors: list[Tensor] = []

    def take(value: Any) -> bool:
        if (
            isinstance(value, Tensor)
            and value.layout == torch.strided
            and not value.is_inference()
            and not value.is_meta
        ):
            tensors.append(value)
        if isinstance(value, torch.Generator):
            note(value, value.get_state, value.set_state)
        return isinstance(value, (Tensor, torch.Generator))

    undo = [keep([*modules, model], take)]
    undo.append(keep([t for m in modules for t in written_when_called(m)], take))
    parameters = {id(p): p for m in modules if _leaves_parameters(m) for p in m._parameters.values() if p is not None}
    quiet = set() if sum(p.nbytes for p in parameters.values()) <= COPIED_BYTES else set(parameters)
    held = [_Held(t, copied=id(t) not in quiet) for t in {id(t): t for t in tensors}.values()]

    def note_writers() -> None:
        changed = {id(h.tensor) for h in held if h.is_written_to()}
        for module in modules:
            if _leaves_parameters(module) is None:
                _quiet[module] = not any(id(p) in changed for p in module._parameters.values())

    return [*undo, *(h.restore for h in held), *([note_writers] if unknown else ())]  # the last one comes first


# Whether modules leave their own parameters alone, as one run has shown; then those are not copied before every run where all
# together are larger than this.
COPIED_BYTES = 2**24
_quiet: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _leaves_parameters(module: nn.Module) -> bool | None:
    return False if module.__dict__.get("max_norm") is not None else _quiet.get(module)


class _Held:
    """A tensor, with what it was like before the model ran."""

    def __init__(self, tensor: Tensor, copied: bool) -> None:
        self.tensor, self.followed, self.required = tensor, tensor.grad_fn is not None, tensor.requires_grad
        self.grad = tensor.grad if tensor.is_leaf else None
        self.value = tensor.detach().clone() if copied else None
        self._version = None if copied or tensor.is_inference() else tensor._version
        self.grad_value = self.grad.clone() if copied and self.grad is not None else None

    def is_written_to(self) -> bool:
        """Whether a copy of it is needed, or of its gradient."""
        pairs = ((self.tensor.detach(), self.value), (self.grad, self.grad_value))
        return any(now is not None and before is not None and not torch.equal(now, before) for now, before in pairs)

    def restore(self) -> None:
        if self.tensor.grad_fn is not None and not self.followed:  # the signal was written to it
            self.tensor.detach_()
        if self._version is not None and self._version != self.tensor._version:
            raise InputError(
                f"the model has written to a weight of shape {tuple(self.tensor.shape)} while it ran, which it had not done "
                "before. Its weights are too large to be copied for every run, so that one is as the model has left it."
            )
        if self.value is not None and not torch.equal(self.tensor.detach(), self.value):
            self.tensor.data.copy_(self.value)
        if self.tensor.is_leaf:
            if self.tensor.requires_grad != self.required:
                self.tensor.requires_grad_(self.required)
            if self.tensor.grad is not self.grad:
                self.tensor.grad = self.grad
            if self.grad is not None and self.grad_value is not None:
                self.grad.data.copy_(self.grad_value)


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


# ---------------------------------------------------------------------- the caller's
TRACING = "FakeTensorMode", "ProxyTorchDispatchMode", "FunctionalTensorMode"  # under which tensors may have no values


def check_called_outside() -> None:
    """Refuse to explain while torch records or transforms what the caller does."""
    compiling = getattr(torch._C._dynamo.eval_frame, "get_eval_frame_callback", None)  # since torch 2.6
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise _called_inside("torch.vmap or torch.func")
    if compiling is not None and compiling():  # before what dynamo cannot read
        raise _called_inside("torch.compile")
    if torch._C._is_tracing():
        raise _called_inside("torch.jit.trace")
    if any(type(mode).__name__ in TRACING for mode in _get_current_dispatch_mode_stack()):
        raise _called_inside("make_fx or FakeTensorMode")


def _called_inside(what: str) -> InputError:
    return InputError(
        f"an explainer cannot be called inside of {what}: call it outside, on whole batches. Models may be compiled."
    )
