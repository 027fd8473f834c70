"""The parts of a run on disk: each complete and as it was written, or not there.

A part is written aside, flushed, and renamed to a name that holds the digest of its content. So nothing else needs to be
kept in step with it, and what was cut off or damaged shows.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..optional import import_pyarrow
from .fingerprint import file_digest

NAME = re.compile(r"part-(\d{7,})-([0-9a-f]{32})\.parquet")
ASIDE = ".writing-"
ABOUT = b"deepshap.part"


def write_part(folder: Path, number: int, table: Any, about: dict[str, Any]) -> Path:
    """Write a part; it is there as a whole, with what ``about`` says of it, or not at all."""
    pa = import_pyarrow()
    sink = pa.BufferOutputStream()
    described = table.replace_schema_metadata({ABOUT: json.dumps({**about, "part": number})})
    pa.parquet.write_table(described, sink, compression="zstd", use_dictionary=_texts(table.schema))
    content = sink.getvalue()
    name = f"part-{number:07d}-{hashlib.blake2b(content, digest_size=16).hexdigest()}.parquet"
    return write_whole(folder / name, memoryview(content))


def _texts(schema: Any) -> list[str]:
    """The columns of text, whose values come again and again; numbers in a dictionary take more room, and five times as long."""
    types = import_pyarrow().types
    listed = [f.name for f in schema if types.is_list(f.type) and types.is_string(f.type.value_type)]
    return [*(f.name for f in schema if types.is_string(f.type)), *(f"{name}.list.element" for name in listed)]


def write_whole(path: Path, content: bytes | memoryview) -> Path:
    """Write a file aside, make sure that it is on disk, and give it its name."""
    aside = path.with_name(f"{ASIDE}{path.name}")
    try:
        with open(aside, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    if os.name == "posix":  # the name, too, is to survive a power cut
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


def parts_in(folder: Path) -> dict[int, Path]:
    """The parts of a folder by their numbers, in order.

    Raises
    ------
    InputError
        If two have the same number.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = NAME.fullmatch(path.name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            raise InputError(f"{found[number].name} and {path.name} are the same part: remove one of them.")
        found[number] = path
    return found


def sound_parts(folder: Path) -> tuple[dict[int, Path], list[Path]]:
    """Those parts whose content is what was written, and those of which it is not."""
    found = parts_in(folder)
    damaged = [path for path in found.values() if not is_sound(path)]
    return {number: path for number, path in found.items() if path not in damaged}, damaged


def is_sound(path: Path) -> bool:
    """Whether a part's content is what was written."""
    match = NAME.fullmatch(path.name)
    return match is not None and file_digest(path) == match[2]


def remove_leftovers(folder: Path) -> None:
    """Remove what was being written when a run ended."""
    for path in folder.glob(f"{ASIDE}*"):
        path.unlink(missing_ok=True)


def about(path: Path, key: str) -> dict[str, Any]:
    """What was written of a part beside its lines.

    Raises
    ------
    InputError
        If it is of a run with another fingerprint than ``key``, or another part than its name says.
    """
    pa = import_pyarrow()
    try:
        metadata = pa.parquet.read_schema(path).metadata or {}
        found = json.loads(metadata[ABOUT])
        run, number = found["fingerprint"], found["part"]
    except (pa.ArrowInvalid, OSError, KeyError, ValueError):
        raise InputError(f"{path} is damaged: start the run again, and it is made anew.") from None
    if run != key:
        raise InputError(f"{path} is of another run: take another folder.")
    if not path.name.startswith(f"part-{number:07d}-"):
        raise InputError(f"{path} is part {number} of its run, and its name says another: remove it.")
    return found


def tables(paths: list[Path]) -> Iterator[Any]:
    """The lines of parts, one part after the other.

    Raises
    ------
    InputError
        If one is not what was written.
    """
    for path in paths:
        if not is_sound(path):
            raise InputError(f"{path} is damaged: start the run again, and it is made anew.")
        yield import_pyarrow().parquet.read_table(path, partitioning=None)
