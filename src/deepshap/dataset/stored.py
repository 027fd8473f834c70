"""What a run wrote, read back: a part, some rows, a sample, or everything."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..optional import import_pyarrow
from ..options import check_options
from ..results import Explanation
from .columns import Layout, explanation_of
from .lines import widened
from .manifest import FILE, LOCK, Manifest, read_manifest
from .parts import about, is_sound, parts_in, tables

SAMPLE = 1000


class ExplanationDataset:
    """The explanations in a folder that ``explain_dataset`` wrote, read as they are asked for.

    ``len(found)`` is the number of rows that could be explained. ``found[10:20]``, ``found[5]`` and ``found[[3, 1]]`` are
    an ``Explanation`` of those, ``found[:]`` of all; they have the ``row_ids`` of the rows. Rows that could not be
    explained are in ``failed()``.

    Attributes
    ----------
    statistics : dict or None
        Of the run that returned this; None if it was loaded.
    """

    statistics: dict[str, Any] | None = None

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.manifest = manifest_of(self.folder)
        self.paths = list(parts_in(self.folder).values())
        self._told = [about(path, self.manifest.key) for path in self.paths]

    def __repr__(self) -> str:
        of = "" if self.manifest.rows is None else f" of {self.manifest.rows}"
        return f"<ExplanationDataset {self.folder}: {len(self)}{of} rows in {len(self.paths)} parts>"

    # ------------------------------------------------------------------ what is there
    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def is_complete(self) -> bool:
        """Whether all parts are there."""
        return len(self.paths) == self.manifest.parts

    @property
    def errors(self) -> dict[str, int]:
        """How many rows could not be explained, by the kind of error."""
        found: Counter[str] = Counter()
        for told in self._told:
            found.update(told["errors"])
        return dict(found)

    def failed(self) -> list[tuple[Any, str]]:
        """Id and error of each row that could not be explained."""
        compute = import_pyarrow().compute
        found: list[tuple[Any, str]] = []
        for table in tables([path for path, told in zip(self.paths, self._told, strict=True) if told["errors"]]):
            lines = table.select(["id", "error"]).filter(compute.is_valid(table["error"]))
            found += zip(*lines.to_pydict().values(), strict=True)
        return found

    def parquet(self) -> Any:
        """All columns of all parts, as a ``pyarrow.dataset.Dataset``, for queries."""
        import pyarrow.dataset

        return pyarrow.dataset.dataset([str(path) for path in self.paths], format="parquet")

    # ------------------------------------------------------------------ explanations
    def __getitem__(self, rows: Any) -> Explanation:
        places = np.arange(len(self))[rows]
        one = places.ndim == 0
        explanation = self._taken(np.atleast_1d(places))
        return explanation[0] if one else explanation

    def parts(self) -> Iterator[Explanation]:
        """The explanations part by part, of those parts that have some."""
        for place, rows in enumerate(np.diff(self._ends, prepend=0)):
            if rows:
                yield explanation_of(self._rows(place), self._layout)

    def sample(self, rows: int = SAMPLE, seed: int = 0) -> Explanation:
        """The explanation of rows drawn at random, in their order; of all, where there are no more."""
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
        """Write a report of a sample of the rows, which says that it is one; see ``Explanation.report``.

        ``reliability`` is ``str(explainer.reliability(X))``: how far the values can be trusted, for the report to say.
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
        return np.cumsum([told["rows"] - sum(told["errors"].values()) for told in self._told], dtype=np.int64)

    @cached_property
    def _layout(self) -> Layout:
        layouts = [told["layout"] for told in self._told if told["layout"] is not None]
        if not layouts:
            raise InputError(f"{self.folder} holds no rows that could be explained.")
        methods = dict.fromkeys(layout["method"] for layout in layouts if layout["method"] is not None)
        return {**layouts[0], "method": " ".join(methods) or None}  # how much was drawn may differ from part to part

    def _rows(self, place: int) -> Any:
        """The rows of a part that could be explained, a line each."""
        (table,) = tables([self.paths[place]])
        good = table.filter(import_pyarrow().compute.is_null(table["error"]))
        return widened(good, self._layout) if self.manifest.fingerprint["kind"] == "long" else good

    def _taken(self, places: np.ndarray) -> Explanation:
        if not len(places):
            raise InputError("no rows were asked for.")
        of_part = np.searchsorted(self._ends, places, side="right")
        found = []
        for part in np.unique(of_part):
            first = self._ends[part - 1] if part else 0
            found.append(self._rows(part).take(places[of_part == part] - first))
        order = np.argsort(np.argsort(of_part, kind="stable"), kind="stable")
        return explanation_of(import_pyarrow().concat_tables(found).take(order), self._layout)


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
    """How far the run in a folder is; every part is read and compared with what was written.

    Raises
    ------
    InputError
        If there is no run in the folder.
    """
    from filelock import FileLock, Timeout

    check_options(folder=folder)
    place = Path(folder)
    manifest = manifest_of(place)
    paths = list(parts_in(place).values())
    sound = [path for path in paths if is_sound(path)]
    errors: Counter[str] = Counter()
    rows = 0
    for path in sound:
        told = about(path, manifest.key)
        rows += told["rows"]
        errors.update(told["errors"])
    try:
        with FileLock(place / LOCK, timeout=0):
            running = False
    except Timeout:
        running = True
    return Status(rows, manifest.rows, len(sound), manifest.parts, len(paths) - len(sound), dict(errors), running)


def manifest_of(folder: Path) -> Manifest:
    """The manifest of a folder that has one.

    Raises
    ------
    InputError
        If it has none, or it was cut off.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file: name the folder that a run writes to.")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}.")
    found = read_manifest(folder)
    if found is None:
        raise InputError(f"{folder / FILE} is missing or damaged: start the run again, and it is made anew.")
    return found
