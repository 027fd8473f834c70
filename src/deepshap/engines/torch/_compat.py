"""Private interfaces of PyTorch, and of Keras on PyTorch: why each is needed, since when it exists, and what happens without it.

Everything here exists from torch 2.4 to 2.15 unless another version is named. A version of torch without one of them never breaks
the import of deepshap. Either a public interface takes its place, or the calls that need it raise an error that says so.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UnsupportedOperationError, find


def _missing(path: str, purpose: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise UnsupportedOperationError(
            f"torch {torch.__version__} has no {path}, which deepshap needs to {purpose}. Install a version of torch that "
            "docs/versions.md lists, or a newer deepshap."
        )

    return refuse


def _required(path: str, purpose: str) -> Any:
    """Return what a path leads to; without it, something that raises an error when it is called."""
    return find(path) or _missing(path, purpose)


def _attribute(name: str, purpose: str) -> Callable[[Any], Any]:
    path = f"torch.Tensor.{name}"
    return attrgetter(name) if find(path) is not None else _missing(path, purpose)


# ---------------------------------------------------------------------- tensors
# The tensor that a view is of: code that writes to a view writes to its base. Without it: an error.
base_of = _attribute("_base", "follow code that works in place")
# How often a tensor has been written to. Without it: an error.
version_of = _attribute("_version", "notice code that works in place")


def is_view(tensor: Tensor) -> bool:
    """Return whether a tensor is a view of another."""
    return base_of(tensor) is not None


# Operations inside of it are hidden from the tracer, which is a function mode; torch.overrides has no public form. Without it:
# an error.
interception_off = _required("torch._C.DisableTorchFunction", "compute something that the tracer should not see")


# ---------------------------------------------------------------------- names of operations
# Modules of C functions that functions of torch.nn.functional call, and that function modes are shown. No public module holds
# all of them. Without one of them, calls of its functions are operations without a rule, which the error lists.
FUNCTION_MODULES = [
    module
    for name in ("_VariableFunctions", "_nn", "_linalg", "_special", "_fft")
    if (module := find(f"torch._C.{name}")) is not None
]
# Packing and unpacking of sequences as single operations; the functions of torch.nn.utils.rnn are made of them.
pack_padded_sequence = _required("torch._VF._pack_padded_sequence", "pack sequences")
pad_packed_sequence = _required("torch._VF._pad_packed_sequence", "unpack sequences")


# ---------------------------------------------------------------------- backward passes
# A backward pass for several seeds at once runs under torch.vmap. Its rules need the plain tensors behind those of vmap:
# ``Function.vmap``, the public way, takes 74 microseconds per node instead of 6. Without any of these: one pass per seed.
_FUNCTORCH = find("torch._C._functorch")
_VMAP_PARTS = (
    "peek_interpreter_stack",
    "pop_dynamic_layer_stack",
    "push_dynamic_layer_stack",
    "CVmapInterpreterPtr",
    "TransformType",
    "_add_batch_dim",
    "_unwrap_batched",
)
HAS_VMAP = all(find(f"torch._C._functorch.{name}") is not None for name in _VMAP_PARTS)


def inside_transform() -> bool:
    """Return whether a transform of ``torch.func`` is active: vmap over seeds, or one of the model."""
    return HAS_VMAP and _FUNCTORCH.peek_interpreter_stack() is not None


def innermost_vmap() -> tuple[int, int] | None:
    """Return level and size of the innermost transform, or None if that is not a vmap."""
    innermost = _FUNCTORCH.peek_interpreter_stack()
    if innermost is None or innermost.key() != _FUNCTORCH.TransformType.Vmap:
        return None
    return innermost.level(), _FUNCTORCH.CVmapInterpreterPtr(innermost).batchSize()


def to_vmap(tensor: Tensor, level: int | None = None) -> Tensor:
    """Hand a tensor to a vmap, the innermost by default, with the first axis as the one that is mapped."""
    level = _FUNCTORCH.peek_interpreter_stack().level() if level is None else level
    return _FUNCTORCH._add_batch_dim(tensor, 0, level)


def from_vmap(tensor: Tensor, level: int) -> tuple[Tensor, int | None]:
    """Return the tensor behind one of a vmap, and the axis that is mapped, if any."""
    return _FUNCTORCH._unwrap_batched(tensor, level)


@contextmanager
def outside_innermost_vmap() -> Iterator[None]:
    """Compute with the tensors behind those of the innermost vmap."""
    layer = _FUNCTORCH.pop_dynamic_layer_stack()
    try:
        yield
    finally:
        _FUNCTORCH.push_dynamic_layer_stack(layer)


_ENTRY = "_saved_self_sym_sizes", "_saved_dim", "_saved_index"


def entry_of(node: Any) -> tuple[Sequence[int], int, int] | None:
    """Return sizes, axis and index of the value that a ``select`` in autograd's graph took an entry of.

    Returns None if the node does not tell, and the multipliers of the entry then go by autograd: slower, and the same.
    """
    if not all(hasattr(node, name) for name in _ENTRY):
        return None
    sizes, axis, index = (getattr(node, name) for name in _ENTRY)
    axis = _signed(axis) % len(sizes)
    return sizes, axis, _signed(index) % sizes[axis]


def _signed(number: int) -> int:
    """Autograd shows negative numbers as 64 bits without a sign."""
    return number - 2**64 if number >= 2**63 else number


def basic_decompositions() -> Any:
    """Return how torch's operations are made of its basic ones, for models that take derivatives of their own.

    ``torch.export.default_decompositions`` is public, since torch 2.6.
    """
    public = find("torch.export.default_decompositions")
    return (public or _required("torch._decomp.core_aten_decompositions", "explain models that take derivatives"))()


# ---------------------------------------------------------------------- modules
def backward_hooks(module: nn.Module) -> list[dict[Any, Any]]:
    """Return a module's hooks of backward passes, which would take multipliers for gradients. Without them: none are removed."""
    return [hooks for name in ("_backward_hooks", "_backward_pre_hooks") if (hooks := getattr(module, name, None))]


@contextmanager
def keras_normalize_replaced(function: Callable[..., Any]) -> Iterator[None]:
    """Let Keras on PyTorch normalize vectors by another function meanwhile. Without ``_normalize``, its own is explained."""
    functions: Any = sys.modules.get("keras.src.ops.nn")
    written = getattr(functions, "_normalize", None)
    if written is None or functions.backend.backend() != "torch":
        yield
        return
    functions._normalize = function
    try:
        yield
    finally:
        functions._normalize = written


def look_experts_up(config: Any) -> None:
    """Let mixtures of experts of transformers multiply each token by the weights of its experts."""
    if getattr(config, "_experts_implementation", None) is not None:
        config._experts_implementation = "batched_mm"


# ---------------------------------------------------------------------- scripted and compiled code, vmap in models
def python_of_script(scripted: Any) -> Callable[..., Any] | None:
    """Return the Python function that a scripted one was made of; None where torch does not keep it, or it is from a file."""
    return getattr(scripted, "_torchdynamo_inline", None)


def dynamo_is_loaded() -> bool:
    """Return whether anything can have been compiled. To ask torch.compiler would load Triton."""
    return "torch._dynamo" in sys.modules


def called_inside() -> str | None:
    """Return what records or transforms the caller's code, or None. Without one of these names, that one is not noticed."""
    if inside_transform():
        return "torch.vmap or torch.func"
    compiling = find("torch._C._dynamo.eval_frame.get_eval_frame_callback")  # since torch 2.6
    if compiling is not None and compiling():  # before what dynamo cannot read
        return "torch.compile"
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return "torch.jit.trace"
    modes = find("torch.utils._python_dispatch._get_current_dispatch_mode_stack")
    if modes is not None and any(type(mode).__name__ in _TRACING for mode in modes()):
        return "make_fx or FakeTensorMode"
    return None


_TRACING = "FakeTensorMode", "ProxyTorchDispatchMode", "FunctionalTensorMode"  # under which tensors may have no values

_APIS = find("torch._functorch.apis")
_VMAP = find("torch._functorch.apis.vmap_impl")
_INPUTS = find("torch._functorch.vmap._process_batched_inputs")
_PYTREE = find("torch.utils._pytree")


@contextmanager
def vmap_replaced(loop: Callable[..., Any]) -> Iterator[None]:
    """Let ``torch.vmap``, wrappers made earlier among it, call ``loop(original, function, in_dims, out_dims, ...)`` meanwhile.

    Inside of vmap the tracer sees nothing. Without these names, models that call vmap are refused as transformed.
    """
    if _VMAP is None or _INPUTS is None or not hasattr(_PYTREE, "_broadcast_to_and_flatten"):
        yield
        return
    apis: Any = _APIS
    apis.vmap_impl = lambda *args, **kwargs: loop(_VMAP, *args, **kwargs)
    try:
        yield
    finally:
        apis.vmap_impl = _VMAP


def vmap_inputs(in_dims: Any, args: Any, function: Callable[..., Any]) -> tuple[int, list[Any], list[Any], Any]:
    """Return the size of a vmap, the mapped axis of each input, the inputs as a list, and their structure."""
    return _INPUTS(in_dims, args, function)


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """Return the leaves of nested containers, and their structure."""
    return _PYTREE.tree_flatten(tree)


def unflatten(leaves: Sequence[Any], structure: Any) -> Any:
    """Return nested containers of leaves."""
    return _PYTREE.tree_unflatten(leaves, structure)


def broadcast_to(structure: Any, tree: Any) -> list[Any] | None:
    """Return the leaves of a tree that may be a prefix of a structure, one for each of its leaves; None if it is not."""
    return _PYTREE._broadcast_to_and_flatten(tree, structure)


# ---------------------------------------------------------------------- threads
OMP_PAUSE_SOFT = 1


@cache
def _openmp() -> ctypes.CDLL | None:
    """Return the OpenMP runtime that torch has loaded, if it is GNU's."""
    try:
        return ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except (OSError, AttributeError):
        return None


def dismiss_waiting_threads() -> None:
    """Let OpenMP's threads go, which wait for torch's next operation by counting, for 10 ms on cores that are needed here.

    They come back with that operation, in a fraction of a millisecond; ``omp_pause_soft`` keeps all settings. Torch has nothing
    public for it. Without OpenMP 5.0: they go on counting, and an LSTM with 8 x 100 pairs on two cores takes 1.2 to 1.4 times as
    long.
    """
    pause = getattr(_openmp(), "omp_pause_resource_all", None)
    if pause is not None:
        pause(OMP_PAUSE_SOFT)


# ---------------------------------------------------------------------- Triton
def triton_is_safe() -> bool:
    """Return whether Triton is there and can be imported: TensorFlow and it hold two copies of LLVM, which may abort the process.

    Seen with TensorFlow 2.21 imported before Triton 3.8 or 3.9; not with Triton 3.5, nor with Triton imported first.
    """
    if "triton" in sys.modules:
        return True
    if find_spec("triton") is None:
        return False
    version = tuple(int(part) for part in metadata.version("triton").split(".")[:2])
    return "tensorflow" not in sys.modules or version <= (3, 5)
