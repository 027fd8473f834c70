"""The folder of a run: a Parquet file for each part, which is complete or not there.

A part is written to a temporary file, flushed, and renamed to a name with the digest of its content, so that a damaged part is
noticed. Its metadata describe the run: the fingerprint of what the results depend on, and the numbers of rows and parts. The
folder holds nothing else, so that pandas, polars and pyarrow read it as one table; the lock that keeps other runs out is a hidden
file beside the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, import_pyarrow, needed

DIGEST = re.compile("[0-9a-f]{64}")  # of what cannot be shown in a line
NAME = re.compile(r"part-(\d{7,})-([0-9a-f]{32})\.parquet")
ASIDE = ".writing-"
DESCRIPTION = "deepshap.part"  # the entry of a part's metadata that says what is in it
PATIENCE = 0.2  # seconds in which others that only look at the folder are done
DAMAGED = "is damaged: start the run again, and it is made anew"


def write_atomically(path: Path, content: Any) -> Path:
    """Write a file aside, make sure that it is on disk, and give it its name."""
    temporary = path.with_name(f"{ASIDE}{path.name}")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the name, too, is to survive a power cut
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


@contextmanager
def run_lock(folder: Path, timeout: float = PATIENCE) -> Iterator[None]:
    """Keep other runs away from a folder.

    Raises
    ------
    InputError
        If another run has it.
    """
    filelock = needed("filelock", "data sets need filelock", "dataset")
    absolute = folder.absolute()
    lock_folder = absolute.parent if os.access(absolute.parent, os.W_OK) else absolute
    try:
        with filelock.FileLock(lock_folder / f".{absolute.name}.lock", timeout=timeout):
            yield
    except filelock.Timeout:
        raise InputError(
            f"another run is writing to {folder}: wait until it has ended, or take another folder."
        ) from None


# ---------------------------------------------------------------------- fingerprints
def check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InputError unless two fingerprints are equal.

    Raises
    ------
    InputError
        If they differ; it says in what.
    """
    differing = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if not differing:
        return
    what = "; ".join(_difference(name, before.get(name), now.get(name)) for name in differing)
    raise InputError(
        f"{folder} holds parts that were made otherwise: {what}. Go on with what they were made with, or take another folder."
    )


def _difference(name: str, before: Any, now: Any) -> str:
    """Return what differs: plain values are shown, digests are not."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        return f"{name} ({', '.join(f'{key}: {_change(before.get(key), now.get(key))}' for key in keys)})"
    return name if _is_digest(before) and _is_digest(now) else f"{name} ({_change(before, now)})"


def _change(before: Any, now: Any) -> str:
    if _is_digest(before) and _is_digest(now):
        return "others now"
    then, now = ("an array, a long list or a function" if _is_digest(value) else value for value in (before, now))
    return f"{then} then, {now} now"


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None


# ---------------------------------------------------------------------- parts
def write_part(folder: Path, number: int, content: Any) -> Path:
    """Write the content of a part, a Parquet file; it is there as a whole or not at all."""
    return write_atomically(folder / f"part-{number:07d}-{_short_digest(content)}.parquet", content)


def _short_digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def parts_in(folder: Path) -> dict[int, Path]:
    """Return the parts of a folder by their numbers, in order.

    Raises
    ------
    InputError
        If two have the same number.
    """
    paths: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = NAME.fullmatch(path.name)
        if match is None:
            continue
        number = int(match[1])
        if number in paths:
            raise InputError(f"{paths[number].name} and {path.name} are the same part: remove one of them.")
        paths[number] = path
    return paths


def intact_parts(folder: Path) -> tuple[dict[int, Path], list[Path]]:
    """Return the parts whose content is what was written, and the paths of the others."""
    paths = parts_in(folder)
    damaged = [path for path in paths.values() if not is_intact(path)]
    return {number: path for number, path in paths.items() if path not in damaged}, damaged


def is_intact(path: Path) -> bool:
    """Return whether a part's content is what was written."""
    match = NAME.fullmatch(path.name)
    return match is not None and _short_digest(path.read_bytes()) == match[2]


def read_part(path: Path) -> Any:
    """Return the content of a part as a buffer of pyarrow.

    Raises
    ------
    InputError
        If it is not what was written.
    """
    with import_pyarrow().OSFile(os.fspath(path)) as file:  # not bytes of Python's: see storage.parse
        content = file.read_buffer()
    match = NAME.fullmatch(path.name)
    if match is None or _short_digest(content) != match[2]:
        raise InputError(f"{path} {DAMAGED}.")
    return content


def remove_leftovers(folder: Path) -> None:
    """Remove what was being written when a run ended."""
    for path in folder.glob(f"{ASIDE}*"):
        path.unlink(missing_ok=True)


def read_description(path: Path) -> dict[str, Any]:
    """Return the metadata of a part: ``fingerprint``, ``run`` (rows) and ``parts`` of the run, the rest of the part.

    Raises
    ------
    InputError
        If it is damaged, or another part than its name says.
    """
    pa = import_pyarrow()
    try:
        description = json.loads((pa.parquet.read_schema(path).metadata or {})[DESCRIPTION.encode()])
        number = description["part"]
    except (pa.ArrowInvalid, OSError, KeyError, ValueError):
        raise InputError(f"{path} {DAMAGED}.") from None
    if not path.name.startswith(f"part-{number:07d}-"):
        raise InputError(f"{path} is part {number} of its run, and its name says another: remove it.")
    return description


def failed_rows(paths: list[Path]) -> Iterator[tuple[Any, str]]:
    """Yield id and error of each row of these parts that could not be explained."""
    pa = import_pyarrow()
    for path in paths:
        table = pa.parquet.read_table(pa.BufferReader(read_part(path)), columns=["row", "error"])
        lines = table.filter(pa.compute.is_valid(table["error"]))
        yield from zip(*lines.to_pydict().values(), strict=True)
