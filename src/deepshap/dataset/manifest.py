"""What a run is: a file in its folder that says on what its results depend and how they are cut into parts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .fingerprint import digest
from .parts import write_whole

FILE = "manifest.json"
LOCK = ".lock"  # held by the process that runs it
FORMAT = 1
DIGEST = re.compile("[0-9a-f]{32}")  # of what cannot be shown in a line


@dataclass(frozen=True)
class Manifest:
    """The fingerprint by what it is of, rows in a part, and rows and parts, as far as these are known."""

    fingerprint: dict[str, Any]
    rows_per_part: int | None
    rows: int | None
    parts: int | None

    @property
    def key(self) -> str:
        """The fingerprint as parts have it."""
        return _key(self.fingerprint)

    def write(self, folder: Path) -> None:
        """Write the manifest; it is there as a whole or not at all."""
        content = {"format": FORMAT, **vars(self)}
        write_whole(folder / FILE, json.dumps({**content, "digest": _key(content)}, indent=1).encode())


def _key(content: dict[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True))


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None if there is none, or it is not what was written.

    Raises
    ------
    InputError
        If a newer version wrote it.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] > FORMAT:
            newer = f"{path} was written by a newer deepshap (format {found['format']}, this one reads {FORMAT})."
            raise InputError(newer)
        whole = found.pop("digest") == _key(found)
        del found["format"]
        return Manifest(**found) if whole else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        return None


def check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare two fingerprints.

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
    """Plain values are shown, digests are not."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        return f"{name} ({', '.join(f'{key}: {_change(before.get(key), now.get(key))}' for key in keys)})"
    return name if _is_digest(before) and _is_digest(now) else f"{name} ({_change(before, now)})"


def _change(before: Any, now: Any) -> str:
    return "others now" if _is_digest(before) and _is_digest(now) else f"{_shown(before)} then, {_shown(now)} now"


def _shown(value: Any) -> str:
    return "an array, a long list or a function" if _is_digest(value) else str(value)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None
