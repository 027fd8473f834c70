"""Check files and options before any slow import, so that a wrong call fails at once."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import PAGES, InputError

# What PyTorch and its extensions call devices; asking torch.device would import torch.
DEVICES = ("cpu", "cuda", "hip", "hpu", "ipu", "maia", "meta", "mps", "mtia", "npu", "privateuseone", "xla", "xpu")  # fmt: skip
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin")


@dataclass(frozen=True)
class Kind:
    """What is written to a file, and the endings that its name may have."""

    what: str
    endings: tuple[str, ...]


ATTRIBUTIONS = Kind("attributions are written as Parquet or CSV", (".parquet", ".pq", ".csv"))
REPORT = Kind("a report is written as HTML", PAGES)


def check_can_write(writes: Sequence[tuple[str, Path | None, Kind]], reads: Sequence[Path | None]) -> None:
    """Check the files of options, (option, file, what goes there), before anything is read.

    Raises
    ------
    InputError
        If a folder is missing, a file is read or written already, or its name says that it is something else.
    """
    taken = {path.resolve() for path in reads if path is not None}
    for option, path, kind in writes:
        if path is None:
            continue
        if not path.absolute().parent.is_dir():
            raise InputError(f"there is no folder {path.parent} to write {path.name} to.")
        if path.resolve() in taken:
            raise InputError(f"{option} {path} would overwrite what is read: choose another name.")
        if path.suffix.lower() not in kind.endings:
            raise InputError(f"{option} {path}: {kind.what}, so let the name end in {kind.endings[0]}.")
        taken.add(path.resolve())


def check_can_read(paths: Sequence[Path | None]) -> None:
    """Raise unless there are these files."""
    missing = next((path for path in paths if path is not None and not path.exists()), None)
    if missing is not None:
        raise InputError(f"there is no file {missing}.")


def check_model(source: str, weights: Path | None, model_options: str | None) -> bool:
    """Check that MODEL can be read, as far as names tell; return whether it is a factory.

    Raises
    ------
    InputError
        If there is no such file, it is no model, or its options are of another kind of model.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if ":" in source and not path.exists():
        check_module(source.rpartition(":")[0])
        if weights is not None and not weights.exists():
            raise InputError(f"there are no weights {weights}.")
        try:
            arguments = json.loads(model_options or "{}")
        except json.JSONDecodeError as error:
            raise InputError(f"--model-options is no JSON: {error}.") from None
        if not isinstance(arguments, dict):
            raise InputError("""--model-options must be a JSON object, such as '{"hidden": 64}'.""")
        return True
    if weights or model_options:
        raise InputError("--weights and --model-options are for package.module:factory; a file has its own weights.")
    if not path.exists():
        hint = "" if suffix else "; a factory is written package.module:factory"
        raise InputError(f"there is no model {source}{hint}.")
    if suffix == ".ckpt":
        raise InputError(
            f"{source} is a checkpoint, which holds weights without their model: give package.module:factory as MODEL, and "
            f"--weights {source}."
        )
    if suffix in PICKLES and is_script(path):
        raise InputError(
            f"{source} is a TorchScript archive, whose operations nobody can look into: export the Python module instead "
            "(torch.export.save), or give package.module:factory with --weights."
        )
    if suffix not in (".pt2", ".keras", *PICKLES):
        raise InputError(f"{source} is no model that can be read: give .pt2, .keras or package.module:factory.")
    return False


def no_module(name: str) -> InputError:
    """Return the error of a factory whose module cannot be found."""
    return InputError(f"there is no module {name} here or among what is installed.")


def check_module(name: str) -> None:
    """Raise unless the package of a module can be found here or among what is installed; nothing is imported."""
    package = name.partition(".")[0]
    here = PathFinder.find_spec(package, [str(Path.cwd())])
    if package not in sys.modules and here is None and find_spec(package) is None:
        raise no_module(name)


def check_sampling(arguments: dict[str, Any]) -> None:
    """Check the numbers and words of --effort, --tolerance, --max-effort and --players without importing NumPy.

    Raises
    ------
    InputError
        If one of them can be meant by no model and no data.
    """
    effort, tolerance, players = arguments["effort"], arguments["tolerance"], arguments["players"]
    for name in ("effort", "max_effort"):
        value = arguments[name]
        if value is not None and not 1 <= value < float("inf"):
            raise InputError(f"--{name.replace('_', '-')} must be a number of at least 1, not {value:g}.")
    if tolerance is not None and not 0 < tolerance < 1:
        raise InputError(
            f"--tolerance must lie between 0 and 1, a share of the row's largest value, not {tolerance:g}."
        )
    if arguments["max_effort"] is not None and tolerance is None:
        raise InputError("--max-effort is the most effort for --tolerance, which is missing.")
    if tolerance is not None and effort not in (None, 1):
        raise InputError("give --effort or --tolerance, not both: a tolerance takes as much effort as it needs.")
    if players is None or players in ("cells", "steps", "features") or players.isdecimal() or players.startswith("{"):
        return
    if not players.endswith(".npy"):
        raise InputError(
            f"--players {players!r} is none of 'cells', 'steps', 'features', a number of steps, a .npy file with the number of "
            "each cell's group, or groups of features as JSON."
        )
    check_can_read([Path(players)])


def parse_sizes(text: str | None, option: str) -> tuple[int, ...] | None:
    """Return the numbers between the commas of an option; None without the option."""
    if text is None:
        return None
    try:
        numbers = tuple(int(size) for size in text.replace("x", ",").split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise InputError(f"{option} must be whole numbers between commas, such as 30,4, not {text!r}.")
    return numbers


def parse_rows(text: str) -> tuple[int, int | None]:
    """Return the first row of --rows N (that many) or A:B, and the row behind the last; None for the end."""
    first, colon, last = text.partition(":")
    try:
        return (int(first or 0), int(last) if last else None) if colon else (0, int(first))
    except ValueError:
        raise InputError(f"--rows must be a number or A:B, not {text!r}.") from None


def check_device(device: str | None) -> None:
    """Check that --device names a kind of device, without asking PyTorch which there are."""
    kind, colon, number = (device or "cpu").partition(":")
    if kind not in DEVICES or (colon and not number.isdecimal()):
        raise InputError(f"--device {device!r} is no device: give one such as cpu, cuda, cuda:1 or mps.")


def is_script(path: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())


def check_call(arguments: dict[str, Any], folder: Path | None) -> None:
    """Check the options of ``deepshap explain`` and the files that they name.

    Raises
    ------
    InputError
        If options exclude one another, a file is missing, or what is written would overwrite what is read.
    """
    check_sampling(arguments)
    check_device(arguments["device"])
    parse_sizes(arguments["shape"], "--shape")
    if arguments["rows"] is not None:
        parse_rows(arguments["rows"])
    if arguments["max_memory"] is not None:
        from ..memory import memory_budget  # imports NumPy

        memory_budget(arguments["max_memory"])
    data, raw, vocabulary = arguments["data"], arguments["raw"], arguments["vocabulary"]
    background = Path(arguments["background"])
    if arguments["groups"] is not None and arguments["report"] is None:
        raise InputError("--groups are compared in the report: give --report too.")
    if folder is not None and (arguments["groups"] is not None or arguments["faithfulness"]):
        raise InputError(
            "--groups and --faithfulness look at all rows together: leave out --shards, or take some --rows."
        )
    if arguments["target"] is not None and arguments["classes"]:
        raise InputError("--target and --class both say which output to explain: give one of them.")
    if (raw or vocabulary) and arguments["players"] not in (None, "cells"):
        raise InputError("--raw and --vocabulary show cells, and --players sums over them: leave one of them out.")
    output = [] if folder else [("--output", arguments["output"], ATTRIBUTIONS)]
    check_can_write([*output, ("--report", arguments["report"], REPORT)], [data, raw, vocabulary, background])
    check_can_read([data, raw, vocabulary, background if background.suffix else None])
    check_model(arguments["model"], arguments["weights"], arguments["model_options"])
