"""Read the folder of a run: a part, some rows, a sample, or everything. A part is a file of ``Explanation.save``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, check_options, import_pyarrow
from ..explanation import storage
from ..results import Explanation, JointExplanation
from .folder import failed_rows, is_intact, parts_in, read_description, read_part, run_lock
from .row_explainer import select_rows

SAMPLE = 1000


class ExplanationDataset:
    """The explanations in a folder that ``explain_dataset`` wrote, read as they are asked for.

    ``len(results)`` is the number of rows that could be explained. ``results[10:20]``, ``results[5]`` and
    ``results[[3, 1]]`` are an ``Explanation`` of these rows, ``results[:]`` of all; they have the ``row_ids`` of the rows.
    Rows that could not be explained are in ``failed()``.

    Attributes
    ----------
    statistics : dict or None
        Of the run that returned this; None if it was loaded.

    Examples
    --------
    >>> results = deepshap.explain_dataset(explainer, x, "attributions")
    >>> results[[3, 1]].row_ids.tolist()
    [3, 1]
    """

    statistics: dict[str, Any] | None = None

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.paths, self._descriptions = _describe_parts(self.folder)
        if not self.paths:
            raise InputError(
                f"{folder} is no folder of explanations: explain_dataset has not written a part to it{_hint(self.folder)}."
            )

    def __repr__(self) -> str:
        rows = self._descriptions[0]["run"]
        return f"<ExplanationDataset {self.folder}: {len(self)} of {rows} rows in {len(self.paths)} parts>"

    # ------------------------------------------------------------------ what is there
    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Return on what the explanations depend: digests, and options as they are."""
        fingerprint: dict[str, Any] = self._descriptions[0]["fingerprint"]
        return fingerprint

    @property
    def is_complete(self) -> bool:
        """Return whether all parts are there."""
        return len(self.paths) == self._descriptions[0]["parts"]

    @property
    def errors(self) -> dict[str, int]:
        """How many rows could not be explained, by the kind of error."""
        counts: Counter[str] = Counter()
        for description in self._descriptions:
            counts.update(description["errors"])
        return dict(counts)

    def failed(self) -> list[tuple[Any, str]]:
        """Return which rows could not be explained.

        Returns
        -------
        list of tuple
            Id and error message of each such row.
        """
        return list(
            failed_rows(
                [
                    path
                    for path, description in zip(self.paths, self._descriptions, strict=True)
                    if description["errors"]
                ]
            )
        )

    def parquet(self) -> Any:
        """Return all columns of all parts for queries.

        Returns
        -------
        pyarrow.dataset.Dataset
        """
        import pyarrow.dataset

        return pyarrow.dataset.dataset([str(path) for path in self.paths], format="parquet")

    # ------------------------------------------------------------------ explanations
    def __getitem__(self, rows: Any) -> Explanation:
        places = np.arange(len(self))[rows]
        is_single = places.ndim == 0
        explanation = self._select(np.atleast_1d(places))
        return explanation[0] if is_single else explanation

    def parts(self) -> Iterator[Explanation]:
        """Yield the explanations part by part.

        Yields
        ------
        Explanation
            The rows of a part; parts without rows are left out.
        """
        for place, rows in enumerate(np.diff(self._ends, prepend=0)):
            if rows:
                yield self._part(place)

    def sample(self, rows: int = SAMPLE, seed: int = 0) -> Explanation:
        """Return the explanation of rows drawn at random.

        Parameters
        ----------
        rows : int
            How many; all rows if the data set has no more.
        seed : int
            Seed of the draw.

        Returns
        -------
        Explanation
            The rows in their order.
        """
        if rows >= len(self):
            return self[:]
        return self[np.sort(np.random.default_rng(seed).choice(len(self), rows, replace=False))]

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        rows: int = SAMPLE,
        seed: int = 0,
        title: str | None = None,
        reliability: str | None = None,
        **options: Any,
    ) -> Path:
        """Write a report of a sample of the rows; the report says how large the sample is.

        Parameters
        ----------
        path : path
            The HTML file.
        rows, seed : int
            Size and seed of the sample.
        title : str, optional
            Title of the report.
        reliability : str, optional
            ``str(explainer.reliability(X))``, how far the values are from the Shapley values, for the report to say.
        **options
            As for ``Explanation.report``.

        Returns
        -------
        Path
            The file.
        """
        sample = self.sample(rows, seed)
        sample.reliability = reliability
        title = title or sample.model or "Explanation"
        if rows < len(self):
            title = f"{title}: a sample of {rows} of {len(self)} rows (seed {seed})"
        return sample.report(path, title=title, seed=seed, **options)

    # ------------------------------------------------------------------ reading
    @cached_property
    def _ends(self) -> np.ndarray:
        """How many rows were explained up to the end of each part."""
        return np.cumsum(
            [description["rows"] - sum(description["errors"].values()) for description in self._descriptions],
            dtype=np.int64,
        )

    def _part(self, place: int) -> Explanation:
        """Return the explanation of the rows of a part that could be explained."""
        path = self.paths[place]
        explanation = storage.parse(import_pyarrow().BufferReader(read_part(path)), Explanation, path)
        return explanation if isinstance(explanation, Explanation) else JointExplanation(explanation)

    def _select(self, places: np.ndarray) -> Explanation:
        if not len(places):
            raise InputError(
                "no rows were asked for." if len(self) else f"{self.folder} holds no rows that could be explained."
            )
        of_part = np.searchsorted(self._ends, places, side="right")
        explanations = []
        for part in np.unique(of_part):
            local = places[of_part == part] - (self._ends[part - 1] if part else 0)
            explanation = self._part(part)
            explanations.append(
                explanation
                if len(explanation.gap) == len(local) and (np.diff(local) == 1).all()
                else select_rows(explanation, local)
            )
        joined = explanations[0] if len(explanations) == 1 else type(explanations[0]).concat(explanations)
        order = np.argsort(np.argsort(of_part, kind="stable"), kind="stable")
        return joined if (np.diff(order) == 1).all() else select_rows(joined, order)


@dataclass(frozen=True)
class Status:
    """How far a run is; ``rows`` and ``parts`` are None where nobody knows how many there will be."""

    rows_done: int
    rows: int | None
    parts_done: int
    parts: int | None
    damaged_parts: int
    errors: dict[str, int]
    running: bool

    @property
    def is_complete(self) -> bool:
        """Whether all parts are there and sound."""
        return self.parts_done == self.parts and not self.damaged_parts


def status(folder: str | os.PathLike[str]) -> Status:
    """Return how far the run in a folder is; every part is read and compared with what was written.

    Parameters
    ----------
    folder : path
        The folder of ``explain_dataset``.

    Returns
    -------
    Status
        Numbers of rows and parts, and which parts are missing or damaged.

    Raises
    ------
    InputError
        If there is no such folder, or something else is in it.

    Examples
    --------
    >>> results = deepshap.explain_dataset(explainer, x, "attributions")
    >>> deepshap.status("attributions").is_complete
    True
    """
    check_options(folder=folder)
    place = Path(folder)
    paths = list(parts_in(_existing_folder(place)).values())
    if not paths and _hint(place):
        raise InputError(f"{folder} holds no run of explain_dataset{_hint(place)}.")
    sound = [read_description(path) for path in paths if is_intact(path)]
    errors: Counter[str] = Counter()
    for description in sound:
        errors.update(description["errors"])
    try:
        with run_lock(place, 0):
            running = False
    except InputError:
        running = True
    rows, parts = (sound[0]["run"], sound[0]["parts"]) if sound else (None, None)
    done = sum(description["rows"] for description in sound)
    return Status(done, rows, len(sound), parts, len(paths) - len(sound), dict(errors), running)


def _describe_parts(folder: Path) -> tuple[list[Path], list[dict[str, Any]]]:
    """Return the parts of a run, and what their metadata say.

    Raises
    ------
    InputError
        If there is no such folder, or its parts are of several runs.
    """
    paths = list(parts_in(_existing_folder(folder)).values())
    descriptions = [read_description(path) for path in paths]
    foreign = next(
        (
            path
            for path, description in zip(paths, descriptions, strict=True)
            if description["fingerprint"] != descriptions[0]["fingerprint"]
        ),
        None,
    )
    if foreign is not None:
        raise InputError(f"{foreign} is of another run than {paths[0].name}: remove one of them.")
    return paths, descriptions


def _existing_folder(folder: Path) -> Path:
    if folder.is_file():
        raise InputError(f"{folder} is a file: name the folder that a run writes to.")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}.")
    return folder


def _hint(folder: Path) -> str:
    """Return what to do with other Parquet files in a folder."""
    return f"; of files in it load({str(folder / '*.parquet')!r})" if any(folder.glob("*.parquet")) else ""


def load(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Any:
    """Read what ``Explanation.save`` or ``deepshap explain`` wrote, of one file or several; nothing in them can run code.

    Parameters
    ----------
    path : str, path, or sequence of them
        The Parquet file. The rows of several are put below each other in their order, as by ``Explanation.concat``; so are
        those of a pattern, such as "runs/*.parquet", in the order of their names. Or a folder that ``explain_dataset`` wrote.

    Returns
    -------
    Explanation or ExplanationDataset
        Of files as it was, bit by bit; a JointExplanation if it was one. Of a folder what reads it as it is asked.

    Raises
    ------
    InputError
        If a file or folder was not written by deepshap, or was changed since, or the files do not fit each other.
    ImportError
        If pyarrow is missing.

    Examples
    --------
    >>> path = explanation.save("why.parquet")
    >>> deepshap.load("why.parquet").values.shape
    (6, 5, 3, 1)
    """
    if isinstance(path, bytes) or not isinstance(path, (str, os.PathLike, Iterable)):
        raise InputError(f"load takes the path of a file or folder, or several of them, not {path!r}.")
    if not isinstance(path, (str, os.PathLike)):
        return Explanation.concat([load(file) for file in path])
    if "*" in str(path) and not os.path.exists(path):
        paths = sorted(glob(str(path)))
        if not paths:
            raise InputError(f"there are no files {path}.")
        return load(paths)
    if os.path.isdir(path):
        return ExplanationDataset(path)
    parts = storage.read(path, Explanation)
    return parts if isinstance(parts, Explanation) else JointExplanation(parts)
