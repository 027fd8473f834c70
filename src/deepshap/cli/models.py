"""Models from files and factories, without running code that the user did not name."""

from __future__ import annotations

import importlib
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..explanation.labels import plural

PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".bin"}
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
    path = Path(source)
    suffix = path.suffix.lower()
    from_factory = ":" in source and not path.exists()
    if not from_factory and (weights or model_options):
        raise InputError("--weights and --model-options are for package.module:factory; a file has its own weights.")
    if from_factory:
        _make_here_importable()
        model = Model(source.rpartition(":")[2], _from_factory(source, weights, model_options))
    elif not path.exists():
        hint = "" if suffix else "; a factory is written package.module:factory"
        raise InputError(f"there is no model {source}{hint}.")
    elif suffix == ".pt2":
        model = _from_program(path, allow_pickle, batch_axis)
    elif suffix == ".keras":
        return Model(path.stem, _from_keras(path))
    elif suffix in PICKLES:
        _make_here_importable()
        model = Model(path.stem, _from_pickle(path, allow_pickle))
    else:
        raise InputError(f"{source} is no model that can be read: give .pt2, .keras or package.module:factory.")
    return _moved(model, device, dtype)


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
            raise InputError(f"there is no module {module_name} here or among what is installed.") from None
        raise
    factory: Any = module
    for part in name.split("."):
        factory = getattr(factory, part, None)
    if factory is None:
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise InputError(f"{module_name} has no {name}; it has {', '.join(names) or 'nothing to call'}.")
    try:
        arguments = json.loads(model_options or "{}")
    except json.JSONDecodeError as error:
        raise InputError(f"--model-options is no JSON: {error}.") from None
    if not isinstance(arguments, dict):
        raise InputError("""--model-options must be a JSON object, such as '{"hidden": 64}'.""")
    model = factory if isinstance(factory, torch.nn.Module) else factory(**arguments)
    if not callable(model):
        raise InputError(f"{source} returned a {type(model).__name__}, which is no model.")
    if weights is not None:
        _load_weights(model, weights)
    return model


def _load_weights(model: Any, path: Path) -> None:
    if not isinstance(model, torch.nn.Module):
        raise InputError("--weights needs a factory that returns a torch.nn.Module.")
    if not path.exists():
        raise InputError(f"there are no weights {path}.")
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
    """The inputs of a program, which must leave the number of rows open."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    found: list[Input] = []
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
        found.append(Input(name, shape, value.dtype, most if most is not None and most < 2**31 else None))
    return found


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
        with _silenced():
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
def _silenced() -> Iterator[None]:
    """Keep to itself what TensorFlow's libraries tell of the machine, which no option of theirs switches off."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


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


def _moved(model: Model, device: str | None, dtype: str | None) -> Model:
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
