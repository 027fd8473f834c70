"""Lists and tables of operations for the pages that the tools of this folder write."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any


def listed(words: Any) -> str:
    """Return the names as a paragraph; names that differ in the number of axes or in the version become one."""
    grouped: dict[str, list[str]] = {}
    for word in words:
        ending = re.search("([123][dD]|V[2-9])$", word)
        stem = word[: ending.start()] if ending else word
        grouped.setdefault(stem, []).append(word.removeprefix(stem))
    text = ", ".join(f"`{stem}{'/'.join(endings)}`" for stem, endings in grouped.items())
    return textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False) + "\n"


def table(head: tuple[str, str], rows: dict[str, str]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    lines += [f"| `{name}` | {text} |" for name, text in rows.items()]
    return "\n".join(lines) + "\n"


def summary(function: Any) -> str:
    """Return the first line of a docstring; of the builder's, where a function was built by another."""
    builder = getattr(function, "__qualname__", "").partition(".<locals>")[0]
    text = function.__doc__ or getattr(inspect.getmodule(function), builder, function).__doc__ or ""
    line = text.strip().partition("\n")[0].replace("|", "\\|")
    line = re.sub(r"^(Build|Return) ((the|an?) )?(?!whether)", "", line)
    return line[:1].upper() + line[1:] if re.match("[a-z]{2,}[-, .]", line) else line  # no formula
