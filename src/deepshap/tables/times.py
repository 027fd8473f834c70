"""How the times of a table are read: decided once from the whole column, and then the same for each of its parts.

Numbers, dates and durations order themselves, ordered categories order as their categories do. A text is a date only if
its year has four digits and there is one reading for the whole column. Any other text is a label: the lines must be in its
order already, since nobody can tell where "day 10" or "01:00" belongs. Times with a time zone are the clock times there if
the zone's clocks are never changed, else those of UTC, in which no hour comes twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from ..errors import InputError, import_pyarrow, needed
from .columns import Table, decoded, has_codes, is_missing, is_number, is_text, parsed

ISO = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?)?(Z|[+-]\d{2}:?\d{2})?")
ONE_DIGIT = re.compile(r"(?<=[-T ])\d(?!\d)")  # a month, day or hour without its zero, which ISO 8601 requires
CLOCK = re.compile(r"([T ])\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp][Mm])?")
DATES = {  # the shapes of dates with a year of four digits, and what they may mean
    r"\d{4}([-/.])\d{1,2}\1\d{1,2}": ["%Y{0}%m{0}%d"],
    r"(19|20)\d{6}": ["%Y%m%d"],
    r"\d{1,2}([-/.])\d{1,2}\1\d{4}": ["%d{0}%m{0}%Y", "%m{0}%d{0}%Y"],
    r"\d{1,2}([- ])[A-Za-z]{3,9}\1\d{4}": ["%d{0}%b{0}%Y", "%d{0}%B{0}%Y"],
    r"[A-Za-z]{3,9} \d{1,2}(,? )\d{4}": ["%b %d{0}%Y", "%B %d{0}%Y"],
    r"[A-Za-z]{3,9}([- ])\d{4}": ["%b{0}%Y", "%B{0}%Y"],
    r"\d{4}([-/])\d{2}": ["%Y{0}%m"],
}


@dataclass(frozen=True)
class Times:
    """How a column of times is read.

    Attributes
    ----------
    kind : "number", "date", "duration", "category" or "text"
        What the times are.
    format : str, optional
        Of texts that are dates: "ISO8601", or as ``strptime`` has it.
    zone : str, optional
        Whose clock the labels show, of times with a time zone.
    categories : list of str, optional
        The order of ordered categories.
    """

    kind: str
    format: str | None = None
    zone: str | None = None
    categories: list[str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what was decided, to be stored."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        if self.kind == "text":
            return "texts, in the order of the lines"
        if self.kind == "date":
            zone = "" if self.zone is None else f" ({self.zone})"
            return f"dates{zone}" if self.format is None else f"dates, written as {self.format}{zone}"
        return {"number": "numbers", "duration": "durations", "category": "ordered categories"}[self.kind]

    def read(self, column: Any, name: str, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """Return the label of each line and its rank.

        Raises
        ------
        InputError
            If a time is missing, or is not what all times of the column are; it says where.
        """
        pa = import_pyarrow()
        pc, categories = pa.compute, self.categories
        column = decoded(column)
        empty = np.asarray(column.is_null(nan_is_null=True))
        if is_text(column.type):
            empty |= is_missing(column)
        if empty.any():
            raise InputError(f"column {name!r} is empty in {table.place(int(empty.argmax()))}.")
        if categories is not None:
            labels = column.cast(pa.string()).to_numpy(zero_copy_only=False).astype(str)
            return labels, np.array([categories.index(label) for label in labels], np.int64)
        if self.kind == "text":
            labels = column.cast(pa.string()).to_numpy(zero_copy_only=False).astype(str)
        elif is_text(column.type) and self.kind == "number":
            labels = np.asarray(parsed(column, table.decimal or ".")[0].to_numpy(zero_copy_only=False))
        elif is_text(column.type):
            assert self.format is not None
            labels = np.asarray(_read(column, self.format))
        elif getattr(column.type, "tz", None) is not None:
            clock = pc.local_timestamp(column) if self.zone != "UTC" else column
            labels = clock.cast(pa.timestamp(column.type.unit)).to_numpy(zero_copy_only=False)
        else:
            column = column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column
            labels = column.to_numpy(zero_copy_only=False)
        return labels, np.unique(labels, return_inverse=True)[1]


def decide_times(kind: Any, chunks: Iterable[Any], name: str, decimal: str = ".") -> Times:
    """Decide how a column is read, from its type and, of texts, from all its chunks.

    Raises
    ------
    InputError
        If it holds no times, or dates that can be read in two ways.
    """
    types = import_pyarrow().types
    if types.is_dictionary(kind) and kind.ordered:
        return Times("category", categories=_categories(chunks, name))
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_date(kind) or types.is_timestamp(kind):
        zone = getattr(kind, "tz", None)
        return Times("date", zone=None if zone is None else zone if _is_fixed(zone) else "UTC")
    if types.is_duration(kind):
        return Times("duration")
    if types.is_time(kind):
        return Times("text")
    if is_text(kind):
        return _of_texts(chunks, name, decimal)
    if is_number(kind):
        return Times("number")
    raise InputError(f"column {name!r} is {kind}, which are no times: take one of numbers, dates or texts.")


def _categories(chunks: Iterable[Any], name: str) -> list[str]:
    found: list[str] | None = None
    for chunk in chunks:
        for piece in getattr(chunk, "chunks", [chunk]):
            known = [str(value) for value in piece.dictionary.to_pylist()]
            if found is not None and known != found:
                raise InputError(
                    f"column {name!r} has other categories in some lines than in others: write it as numbers."
                )
            found = known
    return found or []


def _is_fixed(zone: str) -> bool:
    """Return whether the clocks of a zone have not been changed since 1970."""
    if zone == "UTC" or re.fullmatch(r"[+-]\d{2}:?\d{2}", zone):
        return True
    try:
        there = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return False
    months = (datetime(1970 + at // 12, at % 12 + 1, 1, tzinfo=there) for at in range(12 * 68))
    return len({month.utcoffset() for month in months}) == 1


def _of_texts(chunks: Iterable[Any], name: str, decimal: str) -> Times:
    pc = import_pyarrow().compute
    formats: list[str] | None = None
    numeric, seasons, differing = True, True, None
    for chunk in chunks:
        texts = pc.unique(decoded(chunk)).drop_null()
        if not len(texts):
            continue
        numeric = numeric and not has_codes(texts) and not parsed(texts, decimal)[1].any()
        seasons = seasons and all(map(_is_season, texts.to_pylist()))
        if formats is None:
            formats = _formats(texts[0].as_py())
        readings = {form: found for form in formats if (found := _read(texts, form)) is not None}
        formats = list(readings)
        if len(readings) == 2 and differing is None:
            one, two = readings.values()
            at = np.flatnonzero(one != two)
            differing = (texts[int(at[0])].as_py(), one[at[0]], two[at[0]]) if len(at) else None
        if not formats and not numeric:
            break
    if not formats or seasons:
        return Times("number") if numeric and formats is not None else Times("text")
    if len(formats) == 2 and differing is not None:
        text, *dates = (str(value) for value in differing)
        raise InputError(
            f"the dates in column {name!r} can be read in two ways: {text!r} is {dates[1][:10]} or {dates[0][:10]}. Write year, "
            f"month and day (2024-03-01), or convert the column: pandas.to_datetime(..., dayfirst=True)."
        )
    return Times("date", formats[0], "UTC" if formats[0].endswith("%z") else None)


def _is_season(text: str) -> bool:
    """Return whether a text may name two years, as 2010/11 does, which is no month then."""
    match = re.fullmatch(r"\s*(\d{4})[-/](\d{2})\s*", text)
    return match is not None and (int(match[1]) + 1) % 100 == int(match[2])


def _formats(text: str) -> list[str]:
    """Return the formats that a text may have, if it is a date whose year has four digits."""
    text = text.strip()
    iso = ISO.fullmatch(text)
    if iso:
        return ["ISO8601%z" if iso[4] else "ISO8601"]
    clock = CLOCK.search(text)
    date, rest = (text[: clock.start()], text[clock.end() :]) if clock else (text, "")
    if rest and not re.fullmatch(r" ?(Z|[+-]\d{2}:?\d{2})", rest):
        return []
    behind = ""
    if clock:
        hours = "%I" if clock[4] else "%H"
        behind = f"{clock[1]}{hours}:%M{':%S' if clock[2] else ''}{'.%f' if clock[3] else ''}"
        behind += (" %p" if clock[4][0] == " " else "%p") if clock[4] else ""
    behind += (" %z" if rest[0] == " " else "%z") if rest else ""
    for shape, formats in DATES.items():
        match = re.fullmatch(shape, date)
        if match:
            return [form.format(match[1] if match.groups() else "") + behind for form in formats]
    return []


def _read(texts: Any, form: str) -> np.ndarray | None:
    """Return texts as the dates that they are in a format; None where one is not."""
    pd = needed("pandas", "dates need pandas")
    values = texts.to_numpy(zero_copy_only=False)
    if form.startswith("ISO8601"):
        zoned = form.endswith("%z")
        matches = [ISO.fullmatch(text.strip()) for text in values]
        if not all(match and bool(match[4]) == zoned for match in matches):
            return None
        values = [ONE_DIGIT.sub(r"0\g<0>", text) for text in values]
    try:
        read = pd.to_datetime(pd.Series(values).str.strip(), format=form.replace("8601%z", "8601"), utc="%z" in form)
    except (ValueError, TypeError):
        return None
    read = read.dt.tz_localize(None) if "%z" in form else read
    return np.asarray(read).astype("M8[us]")
