"""Explain a data set into a folder of parts, and go on where a run was ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..optional import import_pyarrow, needed
from ..options import check_options, check_rows
from ..sampling.choice import check_effort
from ..tables import order_of
from .batches import Batch
from .columns import Form
from .fingerprint import digest, versions
from .manifest import LOCK, Manifest, check_same, read_manifest
from .opening import check_apart, open_source
from .parts import about, parts_in, remove_leftovers, sound_parts, write_part
from .progress import Progress, Statistics
from .rows import Done, RowExplainer
from .sources import Source, digest_of, parts_for
from .stored import ExplanationDataset
from .workers import Work, here, processes

MOST_SHOWN = 20  # values of a list that people still compare
PATIENCE = 0.2  # seconds in which others that only look at the folder are done


def explain_dataset(
    explainer: Any,
    data: Any,
    folder: str | Path,
    *,
    id: str | None = None,
    time: str | None = None,
    features: Sequence[str] | None = None,
    shape: Sequence[int] | None = None,
    lengths: Any = False,
    targets: Any = None,
    raw: Any = None,
    rows: tuple[int, int] | None = None,
    rows_per_part: int = 1000,
    form: str = "values",
    dtype: str = "float32",
    on_error: str = "raise",
    workers: int = 1,
    ray: str | None = None,
    progress: bool | None = None,
    **options: Any,
) -> ExplanationDataset:
    """Explain a data set of any size into a folder of Parquet files; started again, it goes on where it ended.

    Parameters
    ----------
    explainer : DeepExplainer
        With model, background and names. The model must not change during the run.
    data : path, list of paths, array, table, Sequences, list or dict of arrays, or iterable of batches
        Parquet files or a folder of them; ``.npy`` files and ``numpy.memmap``; tables and arrays in memory; or an iterable
        of batches, each in the form that the explainer takes, rows first, and each a part. To go on, an iterable must give
        the same batches again.
    folder : path
        Where the parts go; it is made if it is not there.
    id : str, optional
        Parquet's column of row ids. Without it the rows are counted from 0.
    time : str, optional
        The column of times of a long table, in which several lines of one id are a row. Its lines must be sorted by id.
    features : sequence of str, optional
        Parquet's columns to explain, by default all others; or one column that holds an array for each row.
    shape : sequence of int, optional
        Shape of one row, such as (30, 4) for 120 columns that are 30 steps of 4 features.
    lengths : bool, str or array (rows,)
        Hand the number of steps of each row to the model, as its last argument: True for long tables and ``Sequences``,
        which know it; a column of Parquet with a line per row; or an array. Rows of similar length are padded and explained
        together then. Otherwise every row is padded to the longest of all.
    targets : str, list of str or array (rows,) or (rows, outputs), optional
        True classes or values: the column (of each output, its column) of Parquet files, or an array. They are written, shown
        in reports, and what ``target="true"`` explains.
    raw : path, array or table, optional
        The data before scaling, in the form of ``data``: written and shown beside them. By default what the explainer's
        ``inverse_transform`` makes of them.
    rows : (int, int), optional
        Explain only the rows from the first number to before the second, counted from 0.
    rows_per_part : int
        Rows that are read, explained and written together.
    form : "values" or "long"
        A line for each row, or for each value. docs/a-million-rows.md lists the columns.
    dtype : "float32" or "float64"
        Of attributions and inputs in the parts.
    on_error : "raise" or "keep"
        At a row that cannot be explained stop, or write its id, nulls and the error's text. Not part of the fingerprint: a
        run that was stopped by a row may go on with "keep".
    workers : int
        Processes of this machine that explain, with the cores shared between them.
    ray : str, optional
        Explain on a Ray cluster instead: its address, or "local" to start one here. ``workers`` actors, each with a core.
    progress : bool, optional
        A bar in a terminal, else a line now and then; False for neither.
    **options
        Of ``explainer(X, ...)``.

    Returns
    -------
    ExplanationDataset
        What is in the folder, with ``statistics`` of the run.

    Raises
    ------
    InputError
        If data or options do not fit; if the folder holds parts that were made otherwise (it says what differs), or another
        run is writing to it.
    DeepShapError
        With ``on_error="raise"``, of the kind that the explainer raises: the row that cannot be explained.
    KeyboardInterrupt
        On Ctrl-C; the folder holds all parts that were done, and the message says how many.
    """
    import_pyarrow()
    check_options(id=id, time=time, features=features, shape=shape)
    check_options(folder=folder, rows_per_part=rows_per_part, workers=workers, progress=progress)
    if not hasattr(explainer, "depends_on"):
        raise InputError(f"explain_dataset takes a deepshap.DeepExplainer, not a {type(explainer).__name__}.")
    if rows is not None:
        check_rows(rows)
    place = Path(folder)
    check_apart(place, data)
    check_effort(options.get("effort", 1), options.get("tolerance"), options.get("max_effort"))  # of no row
    reading: dict[str, Any] = {"id": id, "time": time, "features": features, "shape": shape, "lengths": lengths}
    reading |= {"targets": targets, "rows": rows}
    source = open_source(data, raw=raw, **reading)
    written = Form(form, dtype)
    explain = RowExplainer(explainer, written, on_error, options)
    if raw is not None and not explain.of_cells:
        raise InputError("raw= shows cells, and players= sums over them: leave one of them out.")
    depends: dict[str, Any] = {**made_of(explainer, options), "data": source.digest(), **vars(written)}
    depends |= {"rows_per_part": rows_per_part, "reading": plainly(reading), "read_as": source.read_as()}
    order_of(source.read_as().get("features"), explainer.model_features, "the data")
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place), ExitStack() as stack:
        run = Run(place, source, json.loads(json.dumps(depends)), rows_per_part)
        work = here(explain) if run.is_complete else _work(stack, explain, workers, ray)
        run.go(work, progress)
    found = ExplanationDataset(place)
    found.statistics = run.statistics.as_dict()
    return found


def _work(stack: ExitStack, explain: RowExplainer, workers: int, ray: str | None) -> Work:
    if ray is not None:
        from .on_ray import actors

        return stack.enter_context(actors(explain, workers, ray))
    if workers > 1:
        return stack.enter_context(processes(explain, workers))
    return here(stack.enter_context(explain))


def made_of(explainer: Any, options: dict[str, Any]) -> dict[str, Any]:
    """What the explanation of a row depends on beside the row, by what it is; options as they are by default do not count."""
    found: dict[str, Any] = {name: digest(value) for name, value in explainer.depends_on.items()}
    known = signature(type(explainer).__call__).parameters
    given = {name: value for name, value in options.items() if not _is_default(value, known.get(name))}
    found["options"] = plainly(given)
    return {**found, "versions": versions("deepshap", "numpy", *explainer.engine.packages)}


def _is_default(value: Any, parameter: Parameter | None) -> bool:
    return parameter is not None and _is_plain(value) and value == parameter.default


def plainly(values: dict[str, Any]) -> dict[str, Any]:
    """Values that people can compare as they are, of others their digests."""
    return {name: value if _is_plain(value) else digest(value) for name, value in values.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) < MOST_SHOWN and all(map(_is_plain, value))
    return isinstance(value, (type(None), bool, int, float, str))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    filelock = needed("filelock", "data sets need filelock", "dataset")
    try:
        with filelock.FileLock(folder / LOCK, timeout=PATIENCE):
            yield
    except filelock.Timeout:
        raise InputError(
            f"another run is writing to {folder}: wait until it has ended, or take another folder."
        ) from None


class Run:
    """The parts of a folder that are there, and those that are to be made."""

    def __init__(self, folder: Path, source: Source, depends: dict[str, Any], rows_per_part: int) -> None:
        self.folder, self.source, self.size = folder, source, rows_per_part
        self.statistics = Statistics(str(folder))
        parts = None if source.rows is None else parts_for(source.rows, rows_per_part)
        self.manifest = Manifest(depends, rows_per_part, source.rows, parts)
        before = read_manifest(folder)
        if before is not None and parts_in(folder):
            check_same(folder, before.fingerprint, depends)
        remove_leftovers(folder)
        self.done, damaged = sound_parts(folder)
        for path in self.done.values():
            self._count(about(path, self.manifest.key), resumed=True)
        for path in damaged:
            path.unlink()
        self.statistics.damaged_parts = len(damaged)
        if before != self.manifest:
            self.manifest.write(folder)

    @property
    def is_complete(self) -> bool:
        """Whether it is known that no part is missing."""
        return len(self.done) == self.manifest.parts

    def go(self, work: Work, shown: bool | None) -> None:
        """Make the parts that are missing."""
        progress = Progress(self.statistics, self.source.rows, shown)
        try:
            for batch, found in work(self._missing()):
                self._write(batch, found)
                progress.add(found.rows)
        except KeyboardInterrupt as interrupt:
            parts = f"{len(parts_in(self.folder))} of {self.manifest.parts or '?'} parts"
            raise KeyboardInterrupt(f"stopped; {parts} are in {self.folder}. The same call goes on.") from interrupt
        finally:
            progress.close()
        if self.source.rows is None:
            self.manifest = Manifest(self.manifest.fingerprint, self.size, self.statistics.rows, self.statistics.parts)
            self.manifest.write(self.folder)

    def _missing(self) -> Iterator[Batch]:
        """The batches that are to be explained; those that pass by must be what they were."""
        seen = 0
        for batch in self.source.batches(self.size, set(self.done)):
            seen += 1
            if not len(batch) and self.source.rows is None:
                raise InputError(f"batch {batch.number} has no rows.")
            if batch.number not in self.done:
                yield batch
            elif about(self.done[batch.number], self.manifest.key)["input"] != digest_of(batch.X):
                raise InputError(
                    f"batch {batch.number} is another than in the run that began {self.folder}: to go on, the iterable must "
                    "give the same batches again. Take another folder."
                )
        if self.source.rows is None and any(number >= seen for number in self.done):
            raise InputError(f"the iterable gave {seen} batches, and {self.folder} holds parts of more.")

    def _write(self, batch: Batch, found: Done) -> None:
        told = {
            "fingerprint": self.manifest.key,
            "input": digest_of(batch.X),
            "rows": found.rows,
            "errors": found.errors,
        }
        told |= {"gap": found.gap, "layout": found.layout}
        try:
            write_part(self.folder, batch.number, found.table, told)
        except OSError as error:
            why = f"{error.strerror} while part {batch.number} was written; all parts before stay, and the same call goes on"
            raise OSError(error.errno, why, str(self.folder)) from error
        self._count(told)

    def _count(self, told: dict[str, Any], resumed: bool = False) -> None:
        found = self.statistics
        found.rows += told["rows"]
        found.parts += 1
        found.errors.update(told["errors"])
        found.largest_gap = max(found.largest_gap, told["gap"])
        if resumed:
            found.resumed_rows, found.resumed_parts = found.rows, found.parts
