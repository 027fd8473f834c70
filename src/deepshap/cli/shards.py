"""``deepshap explain --shards`` and ``deepshap status``: data larger than memory, explained part by part."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

from ..dataset.batches import Batch
from ..dataset.opening import PARQUET, open_source
from ..dataset.run import explain_dataset
from ..dataset.stored import status
from ..errors import InputError
from ..tables import Sequences
from .data import Data, read_data
from .data import Source as Reading

WHOLE = {"report": "--report", "rows": "--rows", "raw": "--raw", "vocabulary": "--vocabulary", "target": "--target"}


@dataclass(frozen=True)
class Sharded:
    """A data set that is read part by part: what ``explain_dataset`` takes, and a few rows to know it by."""

    data: Any
    options: dict[str, Any]
    sample: Data


def read_sharded(path: Path, reading: Reading, background: str, seed: int) -> Sharded:
    """Open a data set, with as many rows drawn from it as the background is to have."""
    if background == "mean":
        raise InputError("--background mean reads all data at once: with --shards give a file that holds the mean.")
    data, options = (path, _options(path, reading)) if _is_large(path) else _in_memory(read_data(path, reading))
    source = open_source(data, **options)
    assert source.rows is not None
    count = min(int(background), source.rows) if background.isdecimal() else 1
    drawn = np.sort(np.random.default_rng(seed).choice(source.rows, max(count, 1), replace=False))
    return Sharded(data, options, _described(source.take(drawn)))


def _is_large(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in (*PARQUET, ".npy")


def check_options(folder: Path, data: Path, arguments: dict[str, Any]) -> None:
    """Refuse what needs all rows at once.

    Raises
    ------
    InputError
        If such an option is given, or the folder is a file.
    """
    for name, option in WHOLE.items():
        if arguments[name] is not None:
            raise InputError(
                f"{option} needs all rows at once, and --shards takes them part by part: leave one of them out."
            )
    if folder.is_file() or folder.resolve() == data.resolve():
        raise InputError(f"--shards {folder} must be a folder of its own.")


def _options(path: Path, reading: Reading) -> dict[str, Any]:
    lengths: Any = False
    if reading.lengths is not None:
        lengths = reading.lengths == "table" or reading.lengths
        if isinstance(lengths, str) and lengths.endswith(".npy"):
            lengths = np.load(lengths)
    table = path.is_dir() or path.suffix.lower() in PARQUET
    named = {"id": reading.id_column, "time": reading.time_column, "features": reading.features}
    return {**(named if table else {}), "shape": reading.shape, "lengths": lengths}


def _in_memory(data: Data) -> tuple[Any, dict[str, Any]]:
    """Rows that were read at once, as a data set."""
    lengths = data.lengths if data.passes_lengths and data.lengths is not None else False
    (first, *others) = data.inputs
    if data.step_labels is not None and data.lengths is not None and data.row_ids is not None:
        names = data.feature_names or []
        return Sequences(first, data.lengths, data.row_ids, data.step_labels, names), {"lengths": data.passes_lengths}
    if data.feature_names is not None:
        return pd.DataFrame(first, index=data.row_ids, columns=data.feature_names), {"lengths": lengths}
    return data.inputs if others else first, {"lengths": lengths}


def _described(batch: Batch) -> Data:
    """Some rows as the commands know them."""
    X, passes = batch.X, batch.lengths is not None
    if isinstance(X, Sequences):
        return Data([X.values], X.lengths, X.row_ids, X.step_labels, X.feature_names, passes_lengths=passes)
    if isinstance(X, pd.DataFrame):
        names = [str(name) for name in X.columns]
        return Data([X.to_numpy(np.float64)], batch.lengths, feature_names=names, passes_lengths=passes)
    inputs = [np.asarray(one) for one in (X if isinstance(X, list) else [X])]
    return Data(inputs, batch.lengths, passes_lengths=passes)


# ---------------------------------------------------------------------- the commands
def run_sharded(explainer: Any, found: Sharded, folder: Path, quiet: bool, **options: Any) -> bool:
    """Explain into a folder, and say how it went in one line of JSON; whether all rows could be explained."""
    written = explain_dataset(
        explainer, found.data, folder, **found.options, **options, progress=False if quiet else None
    )
    click.echo(json.dumps(written.statistics))
    return not written.errors


def print_status(folder: Path) -> bool:
    """Say how far a run is; whether it is complete."""
    found = status(folder)
    click.echo(json.dumps({**vars(found), "complete": found.is_complete}))
    return found.is_complete
