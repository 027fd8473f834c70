"""``deepshap explain --shards`` and ``deepshap status``: data larger than memory, explained part by part."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..dataset.run import explain_dataset
from ..dataset.sources import Batch, open_source
from ..dataset.stored import status
from ..errors import InputError
from ..explanation.labels import plural
from ..memory import evenly
from ..tables import Sequences, Wide, describe
from ..tables.files import PARQUET
from .data import Data, bounds, read_data, row_array
from .data import Source as Reading
from .dial import LOOKED_AT


@dataclass(frozen=True)
class Sharded:
    """A data set that is read part by part: what ``explain_dataset`` takes, the rows of a background, and some of all rows."""

    data: Any
    options: dict[str, Any]
    sample: Data
    spread: Data
    said: list[str]


def read_sharded(
    path: Path, reading: Reading, background: str, seed: int, raw: Path | None, rows: str | None
) -> Sharded:
    """Open a data set, with as many rows drawn from it as the background is to have."""
    if background == "mean":
        raise InputError("--background mean reads all data at once: with --shards give a file that holds the mean.")
    data, options = _read(path, reading)
    if raw is not None:
        options["raw"] = _read(raw, reading)[0]
    source = open_source(data, **options)
    assert source.rows is not None
    options["rows"] = None if rows is None else bounds(rows, source.rows)
    count = min(int(background), source.rows) if background.isdecimal() else 1
    drawn = np.sort(np.random.default_rng(seed).choice(source.rows, min(max(count, 1), source.rows), replace=False))
    first, last = options["rows"] or (0, source.rows)
    spread = first + evenly(min(last, source.rows) - first, LOOKED_AT)
    read_as = source.read_as()
    said = (
        [f"{path}: {plural(source.rows, 'row')}", describe({"long": False, **read_as})] if "features" in read_as else []
    )
    return Sharded(data, options, _described(source.take(drawn)), _described(source.take(spread)), said)


def _read(path: Path, reading: Reading) -> tuple[Any, dict[str, Any]]:
    """A data set and how it is to be read."""
    large = path.is_dir() or path.suffix.lower() in (*PARQUET, ".npy")
    if large and reading.variable is None and reading.form is None:
        return path, _options(path, reading)
    if path.is_dir():
        raise InputError("--variable and --format are for a single file; name one, or leave them out.")
    return _in_memory(read_data(path, reading))


def _options(path: Path, reading: Reading) -> dict[str, Any]:
    lengths: Any = False
    if reading.lengths is not None:
        lengths = reading.lengths == "table" or reading.lengths
        if isinstance(lengths, str) and lengths.endswith(".npy"):
            lengths = row_array(lengths, "--lengths")
    table = path.is_dir() or path.suffix.lower() in PARQUET
    named = {"id": reading.id_column, "time": reading.time_column, "features": reading.features}
    options = {**(named if table else {}), "shape": reading.shape, "lengths": lengths}
    return options if reading.targets is None else {**options, "targets": _targets(reading.targets, table)}


def _targets(target: str, table: bool) -> Any:
    """What --targets names: columns of a table, or an array of its own."""
    if table and Path(target).suffix != ".npy":
        return [name.strip() for name in target.split(",")]
    return row_array(target, "--targets")


def _in_memory(data: Data) -> tuple[Any, dict[str, Any]]:
    """Rows that were read at once, as a data set."""
    lengths = data.lengths if data.passes_lengths and data.lengths is not None else False
    options: dict[str, Any] = {"lengths": lengths, "targets": data.targets}
    (first, *others) = data.inputs
    if data.step_labels is not None and data.lengths is not None and data.row_ids is not None:
        rows = Sequences(first, data.lengths, data.row_ids, data.step_labels, data.feature_names or [], data.time_label)
        return rows, {**options, "lengths": data.passes_lengths}
    if data.feature_names is not None:
        return Wide(first, data.row_ids, data.feature_names), options
    return data.inputs if others else first, options


def _described(batch: Batch) -> Data:
    """Some rows as the commands know them."""
    X, passes = batch.X, batch.lengths is not None
    if isinstance(X, Sequences):
        data = Data([X.values], X.lengths, X.row_ids, X.step_labels, X.feature_names, time_label=X.time_label)
        return replace(data, passes_lengths=passes)
    if isinstance(X, Wide):
        names = X.feature_names
        return Data([X.values.astype(np.float64)], batch.lengths, feature_names=names, passes_lengths=passes)
    inputs = [np.asarray(one) for one in (X if isinstance(X, list) else [X])]
    return Data(inputs, batch.lengths, passes_lengths=passes)


# ---------------------------------------------------------------------- the commands
def run_sharded(
    explainer: Any,
    found: Sharded,
    folder: Path,
    report: Path | None,
    reliability: str | None,
    quiet: bool,
    **options: Any,
) -> bool:
    """Explain into a folder, and say how it went in one line of JSON; whether all rows could be explained."""
    progress = False if quiet else None
    written = explain_dataset(explainer, found.data, folder, **found.options, **options, progress=progress)
    if len(written) and not quiet:
        click.echo(f"method: {written[0].method}")
    if report is not None:
        written.report(report, seed=options.get("seed", 0), reliability=reliability)
        if not quiet:
            click.echo(f"the report is in {report}")
    click.echo(json.dumps(written.statistics))
    return not written.errors


def print_status(folder: Path) -> bool:
    """Say how far a run is; whether it is complete."""
    found = status(folder)
    click.echo(json.dumps({**vars(found), "complete": found.is_complete}))
    return found.is_complete
