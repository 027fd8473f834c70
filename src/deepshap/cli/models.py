"""Load models from files and factories, without running code that the user did not name; cast inputs, select outputs."""

from __future__ import annotations

import importlib
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from ..engines.inputs import keyed, tensors_in
from ..errors import InputError, check_names
from ..explanation.labels import first_few, plural
from .data import Data
from .files import PICKLES, check_model, no_module

HOW_TO_EXPORT = (
    "torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('rows')},)) with two rows or more in x"
)


@dataclass
class Input:
    """What an exported program says of one of its inputs; sizes of a row that it leaves open are None."""

    name: str
    row_shape: tuple[int | None, ...]
    dtype: torch.dtype
    most_rows: int | None = None


@dataclass
class Model:
    """A model to explain; ``inputs`` are known from exported programs only."""

    name: str
    call: Callable[..., Any]
    inputs: list[Input] | None = None


def read_model(
    source: str,
    weights: Path | None,
    model_options: str | None,
    allow_pickle: bool,
    device: str | None,
    dtype: str | None,
    batch_axis: int,
) -> Model:
    """Read a model as the options of the command line say.

    Raises
    ------
    InputError
        If there is no such model, or it must not or cannot be read.
    """
    path, from_factory = Path(source), check_model(source, weights, model_options)
    suffix = path.suffix.lower()
    if from_factory:
        _make_here_importable()
        model = Model(source.rpartition(":")[2], _from_factory(source, weights, model_options))
    elif suffix == ".keras":
        return Model(path.stem, _from_keras(path))
    elif suffix in PICKLES:
        _make_here_importable()
        model = Model(path.stem, _from_pickle(path, allow_pickle))
    else:
        model = _from_program(path, allow_pickle, batch_axis)
    return _to_device(model, device, dtype)


def _make_here_importable() -> None:
    """Find modules in the working directory from now on, as ``python -m`` does: worker processes import them too."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


# ---------------------------------------------------------------------- factories
def _from_factory(source: str, weights: Path | None, model_options: str | None) -> Callable[..., Any]:
    module_name, _, name = source.rpartition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise no_module(module_name) from None
        raise
    factory: Any = module
    for part in name.split("."):
        factory = getattr(factory, part, None)
    if factory is None:
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise InputError(f"{module_name} has no {name}; it has {', '.join(names) or 'nothing to call'}.")
    arguments = json.loads(model_options or "{}")
    model = factory if isinstance(factory, torch.nn.Module) else factory(**arguments)
    if not callable(model):
        raise InputError(f"{source} returned a {type(model).__name__}, which is no model.")
    if weights is not None:
        _load_weights(model, weights)
    return model


def _load_weights(model: Any, path: Path) -> None:
    if not isinstance(model, torch.nn.Module):
        raise InputError("--weights needs a factory that returns a torch.nn.Module.")
    if path.suffix.lower() == ".safetensors":
        state: Any = _safetensors(path)
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise InputError(
                f"{path} holds more than weights, or is no file of torch.save: save model.state_dict() ({type(error).__name__})."
            ) from None
    if not isinstance(state, dict):
        raise InputError(f"{path} holds a {type(state).__name__}, not a state_dict: save model.state_dict().")
    state = state.get("state_dict", state)  # a training checkpoint
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"the weights in {path} do not fit the model: {' '.join(str(error).split())}") from None


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError("weights in .safetensors need safetensors: pip install safetensors") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is no file of safetensors: {error}") from None


# ---------------------------------------------------------------------- files
def _from_program(path: Path, allow_pickle: bool, batch_axis: int) -> Model:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no program written by torch.export.save.")
    with zipfile.ZipFile(path) as archive:
        constants = [name for name in archive.namelist() if "/data/constants/" in name]
    if not allow_pickle and any(Path(n).name.startswith(("custom_obj", "opaque_obj")) for n in constants):
        raise InputError(
            f"{path} holds pickled objects, and reading them runs code: add --allow-pickle if you trust it."
        )
    with _weights_only(not allow_pickle):
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise InputError(f"{path} cannot be read as an exported program: {_first_line(error)}") from None
    return Model(path.stem, program.module(), _program_inputs(path, program, batch_axis))


def _program_inputs(path: Path, program: Any, batch_axis: int) -> list[Input]:
    """Return the inputs of a program, which must leave the number of rows open."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    inputs: list[Input] = []
    for name in program.graph_signature.user_inputs:
        value = values.get(name)
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{path}: the input {name} is no tensor; bind it before exporting the model.")
        axis = batch_axis if value.dim() > batch_axis else 0
        rows = value.shape[axis] if value.dim() else 1
        if isinstance(rows, int):
            raise InputError(
                f"{path} was exported for exactly {plural(rows, 'row')}, and rows are explained beside references: "
                f"export it with {HOW_TO_EXPORT}."
            )
        bounds = program.range_constraints.get(rows.node.expr)
        most = int(bounds.upper) if bounds is not None and getattr(bounds.upper, "is_Integer", False) else None
        sizes = [*value.shape[:axis], *value.shape[axis + 1 :]]
        shape = tuple(size if isinstance(size, int) else None for size in sizes)
        inputs.append(Input(name, shape, value.dtype, most if most is not None and most < 2**31 else None))
    return inputs


@contextmanager
def _weights_only(wanted: bool) -> Iterator[None]:
    """Keep torch from reading pickles, also where it would fall back to them."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    if wanted:
        os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def _from_keras(path: Path) -> Callable[..., Any]:
    try:
        with _silence_stderr():
            import keras
            import tensorflow

            tensorflow.config.list_physical_devices()
    except ImportError as error:
        raise ImportError("a .keras model needs Keras: pip install 'deepshap[keras]'") from error
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"{path} cannot be read safely as a Keras model: {_first_line(error)}") from None


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """Hide what TensorFlow's libraries print about the machine, which none of their options switches off."""
    sys.stderr.flush()
    stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


def _from_pickle(path: Path, allow_pickle: bool) -> Callable[..., Any]:
    try:
        holds_weights = isinstance(torch.load(path, map_location="cpu", weights_only=True), dict)
    except Exception:  # whatever it is, it is more than weights
        holds_weights = False
    if holds_weights:
        raise InputError(
            f"{path} holds weights without their model: give package.module:factory as MODEL, and --weights {path}."
        )
    if not allow_pickle:
        raise InputError(
            f"{path} is pickled, and reading it runs code that is in it: add --allow-pickle if you trust it, or export the model "
            "(torch.export.save)."
        )
    try:
        model = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise InputError(f"{path} cannot be read: {_first_line(error)}") from None
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"{path} holds a {type(model).__name__}, not a torch.nn.Module.")
    return model


def _to_device(model: Model, device: str | None, dtype: str | None) -> Model:
    """Put the model on a device and into a precision."""
    if not isinstance(model.call, torch.nn.Module):
        return model
    if device is not None:
        try:
            model.call.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"the device {device!r} cannot be used: {_first_line(error)}") from None
    if dtype in ("float32", "float64") and model.inputs is None:  # an exported program keeps its precision
        model.call.to(getattr(torch, dtype))
    return model


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


# ---------------------------------------------------------------------- what models take
def cast(inputs: list[np.ndarray], model: Model, data: Data, dtype: str | None) -> list[np.ndarray]:
    """Give inputs the dtypes that the model takes, and check their number and shapes where the model tells them."""
    if model.inputs is None:
        return inputs if dtype is None else [_as(array, np.dtype(dtype), "the data") for array in inputs]
    expected = model.inputs
    count = len(inputs) + data.passes_lengths
    if count != len(expected):
        raise InputError(
            f"the model takes {len(expected)} inputs ({', '.join(declared.name for declared in expected)}) and gets {count}"
            + ("; does it want --lengths," if count == len(expected) - 1 and not data.passes_lengths else ";")
            + " or an array for each, --array NAME of an .npz file?"
        )
    arrays = []
    for array, declared in zip(inputs, expected, strict=False):
        row_shape, shape, own_dtype = array.shape[1:], declared.row_shape, str(declared.dtype).removeprefix("torch.")
        if dtype not in (None, own_dtype):
            raise InputError(f"--dtype {dtype}: an exported program keeps its own, {own_dtype} for {declared.name}.")
        names = data.feature_names
        if names is not None and shape and shape[-1] not in (None, len(names)):
            raise InputError(f"{declared.name}: {describe_mismatch(names, shape[-1])}")
        if len(row_shape) != len(shape) or any(
            size not in (None, has) for size, has in zip(shape, row_shape, strict=True)
        ):
            described = tuple("any" if size is None else size for size in shape)
            raise InputError(
                f"rows of {declared.name} must have shape {described} for this model, those of the data have {row_shape}; "
                + (
                    "they have different lengths, and this program was exported for one: export it for any number of steps."
                    if data.lengths is not None
                    and len(row_shape) == len(shape)
                    and shape[1:] in (row_shape[1:], (None,))
                    else "--shape can change it."
                )
            )
        arrays.append(_as(array, np.dtype(own_dtype.replace("bfloat16", "float32")), declared.name))
    return arrays


def _as(array: np.ndarray, dtype: np.dtype[Any], name: str) -> np.ndarray:
    if dtype.kind in "iu" and array.dtype.kind == "f" and (array != np.round(array)).any():
        raise InputError(f"{name} must be whole numbers ({dtype}), and the data have fractions.")
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
    wrong = (result != array) if dtype.kind in "iu" else np.isinf(result) & np.isfinite(array)
    if wrong.any():
        raise InputError(f"{name}: {array[wrong][0]} is too large for {dtype}, which the model takes.")
    return result


def describe_mismatch(names: Sequence[str], wanted: int) -> str:
    """Return a message that a table has other columns than the model's features."""
    return f"{len(names)} columns ({first_few(names)}) for {wanted} features: choose with --features."


# ---------------------------------------------------------------------- what models return
@runtime_checkable
class Shaped(Protocol):
    """A tensor of any framework."""

    shape: Any


class Selection:
    """Takes the explained tensor, and of it the chosen classes, out of what the model returns."""

    def __init__(self, tensor: str | None, classes: Sequence[str], class_names: list[str] | None) -> None:
        self.tensor = int(tensor) if tensor is not None and tensor.lstrip("-").isdecimal() else tensor
        self.class_names = class_names
        self.indexes = [self._index(name) for name in classes]
        self.names = class_names
        if self.indexes:
            self.names = [class_names[i] if class_names else f"Output {i}" for i in self.indexes]
            check_names("--class", self.names)

    def _index(self, name: str) -> int:
        if self.class_names and name in self.class_names:
            return self.class_names.index(name)
        if name.isdecimal() and (not self.class_names or int(name) < len(self.class_names)):
            return int(name)
        choices = (
            f"; they are {', '.join(self.class_names)}" if self.class_names else ": give --class-names, or its index"
        )
        raise InputError(f"--class: there is no class {name!r}{choices}.")

    def __call__(self, result: Any) -> Any:
        """Return the explained outputs of what the model returns."""
        result = self._tensor(result)
        outputs = result.shape[-1] if len(result.shape) > 1 else 1
        if self.class_names is not None and len(self.class_names) != outputs:
            raise InputError(f"--class-names: {len(self.class_names)} names for {outputs} outputs of the model.")
        if not self.indexes:
            return result
        if len(result.shape) < 2 or max(self.indexes) >= outputs:
            raise InputError(f"--class {max(self.indexes)}: the model has {outputs} outputs, counted from 0.")
        if isinstance(result, torch.Tensor):
            return result[..., self.indexes]
        from keras import ops

        return ops.take(result, self.indexes, axis=-1)

    def _tensor(self, result: Any) -> Any:
        if self.tensor is not None:
            try:
                if hasattr(result, "shape") and isinstance(self.tensor, str):
                    raise TypeError("a tensor has no parts with names")  # torch would warn of its own reading first
                return keyed(result)[self.tensor]
            except (KeyError, IndexError, TypeError):
                raise InputError(f"--tensor {self.tensor}: the model returns {_outline(result)}.") from None
        tensors = list(tensors_in(result, Shaped))
        if len(tensors) != 1:
            raise InputError(f"the model returns {_outline(result)}: choose what to explain with --tensor.")
        return tensors[0]


def _outline(result: Any) -> str:
    result = keyed(result)
    if isinstance(result, Mapping):
        return f"a dict with the keys {', '.join(map(str, result))}"
    if isinstance(result, (tuple, list)):
        return f"{len(result)} values, 0 to {len(result) - 1}"
    return f"a {type(result).__name__}"
