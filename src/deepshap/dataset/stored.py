"""What a run wrote, read back: a part, some rows, a sample, or everything. A part is a file of ``Explanation.save``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, check_options, import_pyarrow
from ..explanation import storage
from ..results import Explanation, JointExplanation
from .folder import about, failures, is_sound, locked, parts_in, read_part
from .rows import rows_of

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
        self.paths, self._told = _parts_of(self.folder)
        if not self.paths:
            raise InputError(
                f"{folder} is no folder of explanations: explain_dataset has not written a part to it{_hint(self.folder)}."
            )

    def __repr__(self) -> str:
        return (
            f"<ExplanationDataset {self.folder}: {len(self)} of {self._told[0]['run']} rows in {len(self.paths)} parts>"
        )

    # ------------------------------------------------------------------ what is there
    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Return on what the explanations depend: digests, and options as they are."""
        fingerprint: dict[str, Any] = self._told[0]["fingerprint"]
        return fingerprint

    @property
    def is_complete(self) -> bool:
        """Return whether all parts are there."""
        return len(self.paths) == self._told[0]["parts"]

    @property
    def errors(self) -> dict[str, int]:
        """How many rows could not be explained, by the kind of error."""
        found: Counter[str] = Counter()
        for told in self._told:
            found.update(told["errors"])
        return dict(found)

    def failed(self) -> list[tuple[Any, str]]:
        """Return id and error of each row that could not be explained."""
        return list(failures([path for path, told in zip(self.paths, self._told, strict=True) if told["errors"]]))

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
        """Yield the explanations part by part, of those parts that have some."""
        for place, rows in enumerate(np.diff(self._ends, prepend=0)):
            if rows:
                yield self._part(place)

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

    def _part(self, place: int) -> Explanation:
        """Return the explanation of the rows of a part that could be explained."""
        path = self.paths[place]
        found = storage.parse(import_pyarrow().BufferReader(read_part(path)), Explanation, path)
        return found if isinstance(found, Explanation) else JointExplanation(found)

    def _taken(self, places: np.ndarray) -> Explanation:
        if not len(places):
            raise InputError(
                "no rows were asked for." if len(self) else f"{self.folder} holds no rows that could be explained."
            )
        of_part = np.searchsorted(self._ends, places, side="right")
        found = []
        for part in np.unique(of_part):
            local = places[of_part == part] - (self._ends[part - 1] if part else 0)
            whole = self._part(part)
            found.append(
                whole if len(whole.gap) == len(local) and (np.diff(local) == 1).all() else rows_of(whole, local)
            )
        joined = found[0] if len(found) == 1 else type(found[0]).concat(found)
        order = np.argsort(np.argsort(of_part, kind="stable"), kind="stable")
        return joined if (np.diff(order) == 1).all() else rows_of(joined, order)


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

    Raises
    ------
    InputError
        If there is no such folder, or something else is in it.
    """
    check_options(folder=folder)
    place = Path(folder)
    found = list(parts_in(_checked(place)).values())
    if not found and _hint(place):
        raise InputError(f"{folder} holds no run of explain_dataset{_hint(place)}.")
    sound = [about(path) for path in found if is_sound(path)]
    errors: Counter[str] = Counter()
    for told in sound:
        errors.update(told["errors"])
    try:
        with locked(place, 0):
            running = False
    except InputError:
        running = True
    rows, parts = (sound[0]["run"], sound[0]["parts"]) if sound else (None, None)
    done = sum(told["rows"] for told in sound)
    return Status(done, rows, len(sound), parts, len(found) - len(sound), dict(errors), running)


def _parts_of(folder: Path) -> tuple[list[Path], list[dict[str, Any]]]:
    """Return the parts of a run, and what their metadata say.

    Raises
    ------
    InputError
        If there is no such folder, or its parts are of several runs.
    """
    paths = list(parts_in(_checked(folder)).values())
    told = [about(path) for path in paths]
    other = next(
        (path for path, one in zip(paths, told, strict=True) if one["fingerprint"] != told[0]["fingerprint"]), None
    )
    if other is not None:
        raise InputError(f"{other} is of another run than {paths[0].name}: remove one of them.")
    return paths, told


def _checked(folder: Path) -> Path:
    if folder.is_file():
        raise InputError(f"{folder} is a file: name the folder that a run writes to.")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}.")
    return folder


def _hint(folder: Path) -> str:
    """Return what to do with other Parquet files in a folder."""
    return f"; of files in it load({str(folder / '*.parquet')!r})" if any(folder.glob("*.parquet")) else ""
