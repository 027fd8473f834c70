"""Explain a data set into a folder of parts, and resume a run where it ended."""

from __future__ import annotations

import json
import sys
import time as clock
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..errors import InputError, check_options, check_rows, import_pyarrow
from ..explanation.labels import duration
from ..sampling.choice import check_effort
from ..tables import order_of
from .explanation_dataset import ExplanationDataset
from .fingerprint import digest, versions
from .folder import check_same, intact_parts, parts_in, read_description, remove_leftovers, run_lock, write_part
from .row_explainer import RowExplainer
from .sources import Batch, Source, check_separate, count_parts, open_source
from .workers import Work, in_this_process, processes

MOST_SHOWN = 20  # values of a list that people still compare
EVERY = 30.0  # seconds between lines of progress


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
    variable: str | None = None,
    value: str | None = None,
    rows_per_part: int = 1000,
    on_error: str = "raise",
    workers: int = 1,
    ray: str | None = None,
    progress: bool | None = None,
    **options: Any,
) -> ExplanationDataset:
    """Explain a data set of any size into a folder of Parquet files; the same call resumes a run that ended early.

    Parameters
    ----------
    explainer : DeepExplainer
        With model, background and names. The model must not change during the run.
    data : path, list of paths, array, table, Sequences, list or dict of arrays
        Parquet files or a folder of them; ``.npy`` files and ``numpy.memmap``; tables and arrays in memory, rows first.
    folder : path
        Where the parts go; it is made if it is not there.
    id : str, optional
        The column of row ids. Without it the rows are counted from 0.
    time : str, optional
        The column of times of a long table, in which several lines of one id are a row. Its lines must be sorted by id.
    features : sequence of str, optional
        The columns to explain, by default all others; or one column that holds an array for each row.
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
    variable, value : str, optional
        Columns with the name and the value of one feature in each line of a long table, which is read at once: a table in
        memory or a single file.
    rows_per_part : int
        Rows that are read, explained and written together.
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

    Examples
    --------
    >>> results = deepshap.explain_dataset(explainer, x, "attributions")
    >>> len(results), results[:2].values.shape
    (6, (2, 5, 3, 1))
    """
    import_pyarrow()
    check_options(id=id, time=time, features=features, shape=shape, variable=variable, value=value)
    check_options(folder=folder, rows_per_part=rows_per_part, workers=workers, progress=progress)
    if not hasattr(explainer, "depends_on"):
        raise InputError(f"explain_dataset takes a deepshap.DeepExplainer, not a {type(explainer).__name__}.")
    if rows is not None:
        check_rows(rows)
    place = Path(folder)
    check_separate(place, data)
    check_effort(options.get("effort", 1), options.get("tolerance"), options.get("max_effort"))  # of no row
    reading: dict[str, Any] = {"id": id, "time": time, "features": features, "shape": shape, "lengths": lengths}
    reading |= {"targets": targets, "rows": rows, "variable": variable, "value": value}
    source = open_source(data, raw=raw, **reading)
    explain = RowExplainer(explainer, on_error, options)
    if raw is not None and not explain.of_cells:
        raise InputError("raw= shows cells, and players= sums over them: leave one of them out.")
    depends: dict[str, Any] = {**fingerprint_explainer(explainer, options), "data": source.digest()}
    depends |= {"rows_per_part": rows_per_part, "reading": plain_or_digest(reading), "read_as": source.read_as()}
    features = source.read_as().get("features")
    if not isinstance(explainer.model_features, Mapping) and features and isinstance(features[0], str):
        order_of(features, explainer.model_features, "the data")  # of several inputs, when they are read
    place.mkdir(parents=True, exist_ok=True)
    with run_lock(place), ExitStack() as stack:
        run = Run(place, source, json.loads(json.dumps(depends)), rows_per_part)
        explain.of_run = run.described
        work = in_this_process(explain) if run.is_complete else _work(stack, explain, workers, ray)
        run.execute(work, progress)
    results = ExplanationDataset(place)
    results.statistics = run.statistics.as_dict()
    return results


def _work(stack: ExitStack, explain: RowExplainer, workers: int, ray: str | None) -> Work:
    if ray is not None:
        from .ray_actors import actors

        return stack.enter_context(actors(explain, workers, ray))
    if workers > 1:
        return stack.enter_context(processes(explain, workers))
    return in_this_process(stack.enter_context(explain))


def fingerprint_explainer(explainer: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return what an explanation depends on apart from the row, as digests; default options do not count."""
    digests: dict[str, Any] = {name: digest(value) for name, value in explainer.depends_on.items()}
    parameters = signature(type(explainer).__call__).parameters
    changed = {name: value for name, value in options.items() if not _is_default(value, parameters.get(name))}
    digests["options"] = plain_or_digest(changed)
    return {**digests, "versions": versions("deepshap", "numpy", *explainer.engine.packages)}


def _is_default(value: Any, parameter: Parameter | None) -> bool:
    return parameter is not None and _is_plain(value) and value == parameter.default


def plain_or_digest(values: dict[str, Any]) -> dict[str, Any]:
    """Return values that people can compare unchanged, and digests of the others."""
    return {name: value if _is_plain(value) else digest(value) for name, value in values.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) < MOST_SHOWN and all(map(_is_plain, value))
    return isinstance(value, (type(None), bool, int, float, str))


@dataclass
class Statistics:
    """Counts of a run, and how long it took; ``as_dict`` is what goes into its last line."""

    folder: str
    rows: int = 0
    parts: int = 0
    resumed_rows: int = 0
    resumed_parts: int = 0
    damaged_parts: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    largest_gap: float = 0.0
    seconds: float = 0.0

    def add(self, rows: int, errors: dict[str, int], gap: float) -> None:
        """Add a part to the counts."""
        self.rows += rows
        self.parts += 1
        self.errors.update(errors)
        self.largest_gap = max(self.largest_gap, gap)

    @property
    def rows_per_second(self) -> float:
        """Return the speed of the rows that were explained now."""
        return (self.rows - self.resumed_rows) / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        seconds, rate = round(self.seconds, 3), round(self.rows_per_second, 1)
        return {**vars(self), "errors": dict(self.errors), "seconds": seconds, "rows_per_second": rate}

    def line(self, of: int) -> str:
        """Return rows, rows per second and the time that is left."""
        rate = self.rows_per_second
        left = f", {duration(round((of - self.rows) / rate))} left" if rate else ""
        failed = f", {self.errors.total()} could not be explained" if self.errors else ""
        return f"deepshap: {self.rows} of {of} rows, {rate:.3g} rows/s{left}{failed}"


class Run:
    """The parts of a folder that are there, and those that are to be made."""

    def __init__(self, folder: Path, source: Source, depends: dict[str, Any], rows_per_part: int) -> None:
        self.folder, self.source, self.size = folder, source, rows_per_part
        self.statistics = Statistics(str(folder))
        self.parts = count_parts(source.rows, rows_per_part)
        self.described = {"fingerprint": depends, "run": source.rows, "parts": self.parts}
        remove_leftovers(folder)
        self.done, damaged = intact_parts(folder)
        for path in self.done.values():
            description = read_description(path)
            check_same(folder, description["fingerprint"], depends)
            self.statistics.add(description["rows"], description["errors"], description["gap"])
        for path in damaged:
            path.unlink()
        statistics = self.statistics
        statistics.resumed_rows, statistics.resumed_parts, statistics.damaged_parts = (
            statistics.rows,
            statistics.parts,
            len(damaged),
        )

    @property
    def is_complete(self) -> bool:
        """Return whether no part is missing."""
        return len(self.done) == self.parts

    def execute(self, work: Work, shown: bool | None) -> None:
        """Make the parts that are missing; ``shown`` None is a bar in a terminal, else a line now and then."""
        statistics, begun, terminal = self.statistics, clock.monotonic(), sys.stderr.isatty()
        said, hidden = begun, shown is False or not terminal
        options = {"initial": statistics.rows, "unit": "row", "unit_scale": True, "disable": hidden}
        with tqdm(total=self.source.rows, **options) as bar:
            try:
                for batch, part in work(self.source.batches(self.size, set(self.done))):
                    self._write(batch, part.content)
                    statistics.add(part.rows, part.errors, part.gap)
                    now = clock.monotonic()  # no clock that can be set
                    statistics.seconds = now - begun
                    bar.update(part.rows)
                    if shown is not False and not terminal and now - said >= EVERY:
                        said = now
                        print(statistics.line(self.source.rows), file=sys.stderr, flush=True)
            except KeyboardInterrupt as interrupt:
                parts = f"{len(parts_in(self.folder))} of {self.parts} parts"
                raise KeyboardInterrupt(
                    f"stopped; {parts} are in {self.folder}. The same call resumes the run."
                ) from interrupt
            finally:
                statistics.seconds = clock.monotonic() - begun

    def _write(self, batch: Batch, content: Any) -> None:
        try:
            write_part(self.folder, batch.number, content)
        except OSError as error:
            why = (
                f"{error.strerror} while part {batch.number} was written; all parts before stay; the same call resumes"
            )
            raise OSError(error.errno, why, str(self.folder)) from error
