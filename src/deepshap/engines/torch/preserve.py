"""Leave the user's model and torch as they were, whatever happens in between."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ...errors import InputError
from .._compat import inner_layers, variables_written
from ..callables import is_keras as is_keras
from ..callables import reached
from ..snapshot import ObjectSnapshot, generators_kept, note
from ._compat import (
    backward_hooks,
    called_inside,
    dynamo_is_loaded,
    keras_normalize_replaced,
    look_experts_up,
    version_of,
)
from .tape import IN_NUMPY

one_at_a_time = threading.RLock()  # what one thread changes for a session, another must not take for the user's


def modules_of(model: Callable[..., Any]) -> list[nn.Module]:
    """All modules a model is made of, also behind functions, methods, partials and objects that hold them."""
    roots = [one for one in reached(model, _is_of_torch) if isinstance(one, nn.Module)]
    return list({id(m): m for root in roots for _, m in named_modules(root, private=True)}.values())


def home_of(modules: list[nn.Module]) -> tuple[torch.device | None, torch.dtype | None]:
    """Device and float dtype of a model, from its first parameter or buffer; None when it has none."""
    tensors = [t for m in modules for t in (*m.parameters(False), *m.buffers(False))]
    floats = [t.dtype for t in tensors if t.is_floating_point()]
    return next((t.device for t in tensors), None), next(iter(floats), None)


def check_weights(modules: list[nn.Module]) -> None:
    """Refuse weights that are not made yet, or that torch cannot follow values through."""
    parameters = [p for m in modules for p in m.parameters(False)]
    if any(map(is_lazy, parameters)):
        raise InputError("the model has lazy layers without weights yet: run it once on data of the right shape first.")
    if any(p.is_meta for p in parameters):
        raise InputError(
            "the model is on the meta device and has no weights: load them, model.to_empty(device='cpu') first."
        )
    if any(p.is_inference() for p in parameters):
        raise InputError(
            "the model's weights were made under torch.inference_mode, and torch follows nothing through them. Copy the "
            "model outside of it (copy.deepcopy), or make it under torch.no_grad."
        )


def _is_of_torch(value: Any) -> bool:
    return isinstance(value, (nn.Module, Tensor))


class Contents:
    """What modules hold, and a model that is an object of the user's own: made ready for runs, and put back."""

    def __init__(self, modules: list[nn.Module], model: Callable[..., Any]) -> None:
        self.modules, self._model = modules, getattr(model, "__self__", model)
        self.keras = list(filter(is_keras, modules))
        self._is_open = False
        self._original: _Snapshot | None = None  # as it was before the session
        self._ready: _Snapshot | None = None  # as every run finds it

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_is_open": False, "_original": None, "_ready": None}

    @contextmanager
    def session(self) -> Iterator[None]:
        """The runs within leave the model, and torch, as they were before the first of them."""
        if self._is_open:
            yield
            return
        with one_at_a_time, full_float32(), _compilation_off(), _fused_transformers_off(), norms_in_one_step():
            self._is_open = True
            try:
                yield
            finally:
                original, self._original, self._ready, self._is_open = self._original, None, None, False
                if original is not None:
                    original.restore()

    def make_ready(self) -> None:
        """Put modules into eval mode without parameter gradients, as they stay until the session is over."""
        if self._ready is not None:
            return
        if self._original is None:
            self._original = _Snapshot([*self.modules, self._model], self.modules, self.keras)
            self._original.note_generators()
        self._prepare()
        self._ready = self._original.again()

    def rewind(self) -> None:
        """Let the next run find what the one before found."""
        assert self._ready is not None
        self._ready.restore()

    def _prepare(self) -> None:
        for module in self.keras:
            start_from_states(module)
        _look_experts_up(self.modules)
        for module in self.modules:
            if module.training:
                module.training = False
            for hooks in backward_hooks(module):  # they would take multipliers for gradients
                hooks.clear()
            for parameter in module.parameters(False):
                if parameter.requires_grad and parameter.is_leaf:
                    parameter.requires_grad_(False)


@contextmanager
def preserved(contents: Contents) -> Iterator[None]:
    """A run of the model, which leaves all that it changes as it was, the random generators among it."""
    with nullcontext() if contents._is_open else contents.session(), generators_kept():
        contents.make_ready()
        own, cuda = torch.default_generator.get_state(), torch.cuda.is_initialized()
        devices = torch.cuda.get_rng_state_all() if cuda else []
        try:
            yield
        finally:
            contents.rewind()
            torch.default_generator.set_state(own)
            if cuda:
                torch.cuda.set_rng_state_all(devices)


def _look_experts_up(modules: list[nn.Module]) -> None:
    """Let mixtures of experts of transformers look up the weights of each token's experts.

    Their other ways run each expert on its tokens of all rows, whose number depends on the input.
    """
    configs = {id(found): found for m in modules if (found := m.__dict__.get("config")) is not None}
    for config in configs.values():
        look_experts_up(config)


COPIED_BYTES = 2**24  # of parameters together; larger ones are not copied, but for those that their modules write to
QUICK_BYTES = 2**14  # that torch compares as quickly as NumPy


class _Snapshot:
    """Everything that modules, and a model, hold: attributes, nested containers and objects, arrays, tensors."""

    def __init__(self, values: list[Any], modules: list[nn.Module], keras: list[nn.Module]) -> None:
        found: dict[int, Tensor] = {}
        self._generators: list[torch.Generator] = []

        def take(value: Any) -> bool:
            if isinstance(value, Tensor):
                if value.layout == torch.strided and not value.is_inference() and not value.is_meta:
                    found[id(value)] = value
                return True
            if isinstance(value, torch.fx.Graph):  # a program, not a state; exports note tensors without values in it
                return True
            if type(value) is not torch.Generator:
                return False
            self._generators.append(value)
            return True

        scripted = [m for m in modules if isinstance(m, torch.jit.ScriptModule)]  # whose contents are no attributes
        of_scripts = [t for m in scripted for t in (*m.parameters(False), *m.buffers(False))]
        self._scripted = [(m, m.training) for m in scripted]
        self._kept = ObjectSnapshot([*values, *of_scripts, *(t for m in keras for t in written_when_called(m))], take)
        parameters = {id(p): p for m in modules if "max_norm" not in m.__dict__ for p in m.parameters(False)}
        large = sum(p.nbytes for p in parameters.values()) > COPIED_BYTES
        self._tensors = [_HeldTensor(t, copied=not (large and number in parameters)) for number, t in found.items()]

    def again(self) -> _Snapshot:
        """The same objects as they are now; their tensors hold what they held."""
        other = copy.copy(self)
        other._kept, other._scripted = self._kept.again(), [(m, m.training) for m, _ in self._scripted]
        other._tensors = [held.again() for held in self._tensors]
        return other

    def note_generators(self) -> None:
        """Have ``drawing_kept`` put back the random generators that are held."""
        self._kept.note_generators()
        for generator in self._generators:
            note(generator, generator.get_state, generator.set_state)

    def restore(self) -> None:
        """Put everything back."""
        with ExitStack() as stack:  # all of it, whatever fails
            stack.callback(self._kept.restore)
            for tensor in self._tensors:
                stack.callback(tensor.restore)
            for module, training in self._scripted:
                stack.callback(setattr, module, "training", training)


class _HeldTensor:
    """A tensor, with what it was like before the model ran."""

    def __init__(self, tensor: Tensor, copied: bool) -> None:
        self.tensor, self.followed, self.required = tensor, tensor.grad_fn is not None, tensor.requires_grad
        self.grad = tensor.grad if tensor.is_leaf else None
        self.value = tensor.detach().clone() if copied else None
        self._version = None if copied or tensor.is_inference() else version_of(tensor)
        self.grad_value = self.grad.clone() if copied and self.grad is not None else None

    def again(self) -> _HeldTensor:
        """The same, with the flag for gradients as it is now."""
        other = copy.copy(self)
        other.required = self.tensor.requires_grad
        return other

    def restore(self) -> None:
        tensor = self.tensor
        if tensor.grad_fn is not None and not self.followed:  # the signal was written to it
            tensor.detach_()
        if self._version is not None and self._version != version_of(tensor):
            raise InputError(
                f"the model has written to a weight of shape {tuple(tensor.shape)} while it ran. Its weights are too large to "
                "be copied for every call, so that one is as the model has left it."
            )
        if self.value is not None and not _is_still(tensor, self.value):
            tensor.data.copy_(self.value)
        if tensor.is_leaf:
            if tensor.requires_grad != self.required:
                tensor.requires_grad_(self.required)
            if tensor.grad is not self.grad:
                tensor.grad = self.grad
            if self.grad is not None and self.grad_value is not None and not _is_still(self.grad, self.grad_value):
                self.grad.data.copy_(self.grad_value)


def _is_still(tensor: Tensor, before: Tensor) -> bool:
    """Whether a tensor is what a copy of it is; of sparse gradients that is not told."""
    if tensor.dtype != before.dtype or tensor.device != before.device or tensor.layout is not torch.strided:
        return False
    if before.nbytes > QUICK_BYTES and tensor.is_cpu and tensor.dtype in IN_NUMPY and not tensor.is_neg():
        own = tensor.detach().numpy()
        return own.shape == before.shape and bool((own == before.detach().numpy()).all())  # in a fourth of the time
    return torch.equal(tensor, before)


@contextmanager
def _compilation_off() -> Iterator[None]:
    """Compiled modules run as plain Python meanwhile, where the tracer can see what they call.

    Without torch._dynamo nothing is compiled. Setting the stance would import it, and Triton with it, which crashes a
    process that has imported TensorFlow before.
    """
    set_stance = getattr(torch.compiler, "set_stance", None) if dynamo_is_loaded() else None
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
AUTOCAST = torch.is_autocast_enabled, torch.get_autocast_dtype


def settings() -> list[Any]:
    """Those of torch that change what its functions compute."""
    return [torch.get_default_dtype(), *(setting(kind) for setting in AUTOCAST for kind in ("cpu", "cuda"))]


def check_called_outside() -> None:
    """Refuse to explain while torch records or transforms what the caller does."""
    if (what := called_inside()) is not None:
        raise InputError(
            f"an explainer cannot be called inside of {what}: call it outside, on whole batches. Models may be compiled."
        )


BACKENDS: Any = torch.backends
PRODUCTS = BACKENDS.cuda.matmul, BACKENDS.cudnn
# Since torch 2.9 there is a second set of switches, and torch wants the two to agree.
KINDS = (BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn) if hasattr(BACKENDS.cudnn, "rnn") else ()


@contextmanager
def full_float32() -> Iterator[None]:
    """Multiply float32 numbers as float32 meanwhile, whatever the user allows torch otherwise."""
    put_back: list[Callable[[], None]] = [partial(setattr, k, "fp32_precision", k.fp32_precision) for k in KINDS]
    try:
        _set_matmul_precision(put_back)
        for product in PRODUCTS:
            _note(put_back, product)
        for product in PRODUCTS:
            product.allow_tf32 = False
        for kind in KINDS:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for one in reversed(put_back):
            one()


def _note(put_back: list[Callable[[], None]], product: Any) -> None:
    try:
        put_back.append(partial(setattr, product, "allow_tf32", product.allow_tf32))
    except RuntimeError:  # the user set the newer switches, and torch refuses to read the older
        return


def _set_matmul_precision(put_back: list[Callable[[], None]]) -> None:
    try:
        put_back.append(partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()))
    except RuntimeError:
        return
    torch.set_float32_matmul_precision("highest")  # of a processor too


def call(model: Any, given: Sequence[Tensor], named: dict[str, Tensor] | None, extra: Sequence[Any]) -> Any:
    """Call a Keras model for inference, as ``keras.Model.predict`` does: several inputs are one list, or one dict.

    Models whose ``call`` takes several arguments get them one by one.
    """
    together = _takes_one_argument(model)
    if named is not None:
        return model(named, *extra, training=False) if together else model(*extra, **named, training=False)
    if together and len(given) + len(extra) > 1:
        return model([*given, *extra], training=False)
    return model(*given, *extra, training=False)


def _takes_one_argument(model: Any) -> bool:
    parameters = inspect.signature(model.call).parameters.values()
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return len(required) == 1 and all(p.kind is not p.VAR_POSITIONAL for p in parameters)


def named_modules(module: nn.Module, name: str = "", private: bool = False) -> list[tuple[str, nn.Module]]:
    """As torch's ``named_modules``, with the layers of Keras models under Keras' names.

    ``private``: also what Keras keeps for itself, such as the functional model inside of a sequential one.
    """
    found: dict[int, tuple[str, nn.Module]] = {}
    waiting = [(name, module)]
    while waiting:
        name, module = waiting.pop()
        if id(module) in found:
            continue
        found[id(module)] = name, module
        waiting += [(f"{name}.{own}" if name else own, child) for own, child in reversed(_children(module, private))]
    return list(found.values())


def _children(module: nn.Module, private: bool) -> list[tuple[str, nn.Module]]:
    held = list(module.named_children())
    if not is_keras(module):
        return held
    layers = [(layer.name, layer) for layer in inner_layers(module)]
    return [*layers, *(pair for pair in held if private or not pair[0].startswith("_"))]


def written_when_called(module: nn.Module) -> list[Tensor]:
    """What a Keras layer may write to in a call: states that it keeps from call to call, and those of its random generators."""
    if not is_keras(module):
        return []
    return [variable.value for variable in variables_written(module)]


def norms_in_one_step() -> AbstractContextManager[None]:
    """Let Keras call torch's function meanwhile where it divides vectors by their norms: its rule is bounded where one is 0."""
    return keras_normalize_replaced(_normalized)


def _normalized(x: Any, axis: Any = -1, order: int = 2, epsilon: float | None = None) -> Tensor:
    from keras import config, ops

    return F.normalize(ops.convert_to_tensor(x), order, axis, config.epsilon() if epsilon is None else epsilon)


def start_from_states(module: nn.Module) -> None:
    """Let a stateful recurrent layer start every row from the state that it has now. Undone with the module's attributes.

    Raises
    ------
    InputError
        If the rows of the state differ: it belongs to a batch that went before, not to the rows that are explained.
    """
    attributes = module.__dict__
    if not (is_keras(module) and attributes.get("stateful") and attributes.get("states") is not None):
        return

    def first_of(state: Any) -> Any:  # keras.tree does as much, but Keras 3.0 has none
        if isinstance(state, (list, tuple)):
            return [first_of(part) for part in state]
        value = state.value.detach().clone()
        if bool((value != value[:1]).any()):
            raise InputError(
                f"the stateful layer {module.name!r} keeps another state for each row of the batch that it saw last. Call "
                "its reset_state() first: then all rows start from zero."
            )
        return value[:1]

    def expanded(state: Any, rows: Any) -> Any:
        if isinstance(state, list):
            return [expanded(part, rows) for part in state]
        return state.expand(rows, *state.shape[1:])

    states = first_of(attributes["states"])

    def initial(batch_size: Any) -> Any:
        return expanded(states, batch_size)

    attributes.update(stateful=False, get_initial_state=initial)
