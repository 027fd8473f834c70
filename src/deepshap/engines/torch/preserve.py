"""Leave the user's model and torch as they were, whatever happens in between.

A session saves the model's modules and everything that they hold, puts them into eval mode without parameter gradients,
and restores them at its end. Each run within the session starts from the same state.
"""

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

session_lock = threading.RLock()  # a session changes the model; another thread must not save the changed state


def modules_of(model: Callable[..., Any]) -> list[nn.Module]:
    """Return all modules of a model, also behind functions, methods, partials and objects that hold them."""
    roots = [value for value in reached(model, _is_of_torch) if isinstance(value, nn.Module)]
    return list({id(m): m for root in roots for _, m in named_modules(root, private=True)}.values())


def device_and_dtype(modules: list[nn.Module]) -> tuple[torch.device | None, torch.dtype | None]:
    """Return device and float dtype of a model's first parameter or buffer; None if it has none."""
    tensors = [t for m in modules for t in (*m.parameters(False), *m.buffers(False))]
    floats = [t.dtype for t in tensors if t.is_floating_point()]
    return next((t.device for t in tensors), None), next(iter(floats), None)


def check_weights(modules: list[nn.Module]) -> None:
    """Refuse weights that do not exist yet, or that autograd refuses."""
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


class ModelState:
    """The state of the modules of a model, and of a model that is an object of the user's own: prepared, saved and restored."""

    def __init__(self, modules: list[nn.Module], model: Callable[..., Any]) -> None:
        self.modules, self._model = modules, getattr(model, "__self__", model)
        self.keras = list(filter(is_keras, modules))
        self._is_open = False
        self._original: _Snapshot | None = None  # before the session
        self._ready: _Snapshot | None = None  # at the start of every run

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_is_open": False, "_original": None, "_ready": None}

    @contextmanager
    def session(self) -> Iterator[None]:
        """Restore the model, and torch, at the end to what they were at the start."""
        if self._is_open:
            yield
            return
        with session_lock, full_float32(), _compilation_off(), _fused_transformers_off(), normalize_by_torch():
            self._is_open = True
            try:
                yield
            finally:
                original, self._original, self._ready, self._is_open = self._original, None, None, False
                if original is not None:
                    original.restore()

    def make_ready(self) -> None:
        """Put modules into eval mode without parameter gradients for the rest of the session."""
        if self._ready is not None:
            return
        if self._original is None:
            self._original = _Snapshot([*self.modules, self._model], self.modules, self.keras)
            self._original.note_generators()
        self._prepare()
        self._ready = self._original.updated()

    def rewind(self) -> None:
        """Restore the state at the start of a run."""
        assert self._ready is not None
        self._ready.restore()

    def _prepare(self) -> None:
        for module in self.keras:
            start_from_states(module)
        _look_experts_up(self.modules)
        for module in self.modules:
            if module.training:
                module.training = False
            for hooks in backward_hooks(module):  # they would receive multipliers as gradients
                hooks.clear()
            for parameter in module.parameters(False):
                if parameter.requires_grad and parameter.is_leaf:
                    parameter.requires_grad_(False)


@contextmanager
def preserve_run(state: ModelState) -> Iterator[None]:
    """Run the model in this context, and restore all that the run changes, random generators included."""
    with nullcontext() if state._is_open else state.session(), generators_kept():
        state.make_ready()
        cpu_state, cuda = torch.default_generator.get_state(), torch.cuda.is_initialized()
        devices = torch.cuda.get_rng_state_all() if cuda else []
        try:
            yield
        finally:
            state.rewind()
            torch.default_generator.set_state(cpu_state)
            if cuda:
                torch.cuda.set_rng_state_all(devices)


def _look_experts_up(modules: list[nn.Module]) -> None:
    """Let mixtures of experts of transformers look up the weights of each token's experts.

    Their other implementations run each expert on its tokens of all rows, whose number depends on the input.
    """
    configs = {id(config): config for m in modules if (config := m.__dict__.get("config")) is not None}
    for config in configs.values():
        look_experts_up(config)


COPIED_BYTES = 2**24  # total of all parameters; above it only parameters that their modules write to are copied
SMALL_BYTES = 2**14  # torch compares as fast as NumPy up to this size


class _Snapshot:
    """Everything that modules, and a model, hold: attributes, nested containers and objects, arrays, tensors."""

    def __init__(self, values: list[Any], modules: list[nn.Module], keras: list[nn.Module]) -> None:
        tensors_by_id: dict[int, Tensor] = {}
        self._generators: list[torch.Generator] = []

        def take(value: Any) -> bool:
            if isinstance(value, Tensor):
                if value.layout == torch.strided and not value.is_inference() and not value.is_meta:
                    tensors_by_id[id(value)] = value
                return True
            if isinstance(value, torch.fx.Graph):  # a program, not a state; exports store tensors without values in it
                return True
            if type(value) is not torch.Generator:
                return False
            self._generators.append(value)
            return True

        scripted = [m for m in modules if isinstance(m, torch.jit.ScriptModule)]  # their contents are no attributes
        script_tensors = [t for m in scripted for t in (*m.parameters(False), *m.buffers(False))]
        self._scripted = [(m, m.training) for m in scripted]
        self._held_objects = ObjectSnapshot(
            [*values, *script_tensors, *(t for m in keras for t in written_when_called(m))], take
        )
        parameters = {id(p): p for m in modules if "max_norm" not in m.__dict__ for p in m.parameters(False)}
        large = sum(p.nbytes for p in parameters.values()) > COPIED_BYTES
        self._tensors = [
            _TensorState(t, copied=not (large and number in parameters)) for number, t in tensors_by_id.items()
        ]

    def updated(self) -> _Snapshot:
        """Return a snapshot of the same objects as they are now, with the old values of tensors."""
        snapshot = copy.copy(self)
        snapshot._held_objects, snapshot._scripted = (
            self._held_objects.again(),
            [(m, m.training) for m, _ in self._scripted],
        )
        snapshot._tensors = [tensor.updated() for tensor in self._tensors]
        return snapshot

    def note_generators(self) -> None:
        """Let ``generators_kept`` restore the random generators in the snapshot."""
        self._held_objects.note_generators()
        for generator in self._generators:
            note(generator, generator.get_state, generator.set_state)

    def restore(self) -> None:
        """Restore everything."""
        with ExitStack() as stack:  # continue if one of them fails
            stack.callback(self._held_objects.restore)
            for tensor in self._tensors:
                stack.callback(tensor.restore)
            for module, training in self._scripted:
                stack.callback(setattr, module, "training", training)


class _TensorState:
    """A tensor and its state before the model ran."""

    def __init__(self, tensor: Tensor, copied: bool) -> None:
        self.tensor, self.followed, self.required = tensor, tensor.grad_fn is not None, tensor.requires_grad
        self.grad = tensor.grad if tensor.is_leaf else None
        self.value = tensor.detach().clone() if copied else None
        self._version = None if copied or tensor.is_inference() else version_of(tensor)
        self.grad_value = self.grad.clone() if copied and self.grad is not None else None

    def updated(self) -> _TensorState:
        """Return the state with the present flag for gradients."""
        state = copy.copy(self)
        state.required = self.tensor.requires_grad
        return state

    def restore(self) -> None:
        tensor = self.tensor
        if tensor.grad_fn is not None and not self.followed:  # an active value was written to it
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
    """Return whether a tensor equals a copy of it; False for sparse gradients."""
    if tensor.dtype != before.dtype or tensor.device != before.device or tensor.layout is not torch.strided:
        return False
    if before.nbytes > SMALL_BYTES and tensor.is_cpu and tensor.dtype in IN_NUMPY and not tensor.is_neg():
        values = tensor.detach().numpy()
        return values.shape == before.shape and bool(
            (values == before.detach().numpy()).all()
        )  # in a fourth of the time
    return torch.equal(tensor, before)


@contextmanager
def _compilation_off() -> Iterator[None]:
    """Run compiled modules as plain Python in this context, where the tracer sees their calls.

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
    """Switch the fused encoder layers off, which compute other values at padded positions than the plain layers."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


# ---------------------------------------------------------------------- the caller's
AUTOCAST = torch.is_autocast_enabled, torch.get_autocast_dtype


def settings() -> list[Any]:
    """Return the settings of torch that change what its functions compute."""
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
    """Multiply float32 numbers in full precision in this context, whatever the user allows torch."""
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
        for restore in reversed(put_back):
            restore()


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
    torch.set_float32_matmul_precision("highest")  # also for the CPU


def call(model: Any, inputs: Sequence[Tensor], named: dict[str, Tensor] | None, extra: Sequence[Any]) -> Any:
    """Call a Keras model for inference, as ``keras.Model.predict`` does: several inputs are one list, or one dict.

    A model whose ``call`` has several parameters gets them one by one.
    """
    takes_one = _takes_one_argument(model)
    if named is not None:
        return model(named, *extra, training=False) if takes_one else model(*extra, **named, training=False)
    if takes_one and len(inputs) + len(extra) > 1:
        return model([*inputs, *extra], training=False)
    return model(*inputs, *extra, training=False)


def _takes_one_argument(model: Any) -> bool:
    parameters = inspect.signature(model.call).parameters.values()
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return len(required) == 1 and all(p.kind is not p.VAR_POSITIONAL for p in parameters)


def named_modules(module: nn.Module, name: str = "", private: bool = False) -> list[tuple[str, nn.Module]]:
    """Return torch's ``named_modules``, with the layers of Keras models under Keras' names.

    ``private``: also modules that Keras hides, such as the functional model inside of a sequential one.
    """
    named: dict[int, tuple[str, nn.Module]] = {}
    waiting = [(name, module)]
    while waiting:
        name, module = waiting.pop()
        if id(module) in named:
            continue
        named[id(module)] = name, module
        waiting += [(f"{name}.{part}" if name else part, child) for part, child in reversed(_children(module, private))]
    return list(named.values())


def _children(module: nn.Module, private: bool) -> list[tuple[str, nn.Module]]:
    held = list(module.named_children())
    if not is_keras(module):
        return held
    layers = [(layer.name, layer) for layer in inner_layers(module)]
    return [*layers, *(pair for pair in held if private or not pair[0].startswith("_"))]


def written_when_called(module: nn.Module) -> list[Tensor]:
    """Return what a Keras layer may write to in a call: its states and those of its random generators."""
    if not is_keras(module):
        return []
    return [variable.value for variable in variables_written(module)]


def normalize_by_torch() -> AbstractContextManager[None]:
    """Let Keras call torch's function in this context where it normalizes vectors: its rule is bounded at 0."""
    return keras_normalize_replaced(_normalized)


def _normalized(x: Any, axis: Any = -1, order: int = 2, epsilon: float | None = None) -> Tensor:
    from keras import config, ops

    return F.normalize(ops.convert_to_tensor(x), order, axis, config.epsilon() if epsilon is None else epsilon)


def start_from_states(module: nn.Module) -> None:
    """Let a stateful recurrent layer start every row from its present state. Restoring the module's attributes undoes this.

    Raises
    ------
    InputError
        If the rows of the state differ: it belongs to an earlier batch, not to the rows that are explained.
    """
    attributes = module.__dict__
    if not (is_keras(module) and attributes.get("stateful") and attributes.get("states") is not None):
        return

    def first_row(state: Any) -> Any:  # keras.tree does as much, but Keras 3.0 has none
        if isinstance(state, (list, tuple)):
            return [first_row(part) for part in state]
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

    states = first_row(attributes["states"])

    def initial(batch_size: Any) -> Any:
        return expanded(states, batch_size)

    attributes.update(stateful=False, get_initial_state=initial)
