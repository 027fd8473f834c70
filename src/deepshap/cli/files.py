"""The files that commands write: what cannot be written is refused before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PAGES, InputError


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
