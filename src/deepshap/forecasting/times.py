"""The times of a table: that they rise, that none is missing, and how a calendar counts on from them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..errors import InputError
from ..explanation.labels import as_labels, as_texts, first_few

WITHOUT_TIMES = "or number the rows instead, frame.reset_index(drop=True)"
MOST_LISTED = 1000


def read_times(index: Any, where: str) -> tuple[np.ndarray, Any]:
    """Return the times of an index of pandas, and its frequency as pandas knows it.

    Raises
    ------
    InputError
        If they are no times or numbers that rise strictly, or most times are equally far apart and others are missing.
    """
    times = _read(index)
    if times.ndim != 1 or times.dtype.kind not in "iufMm":
        raise InputError(
            f"{where}: the index must be of times or numbers, for rows to be neighbours, not {index[0]!r}: set it to those of "
            f"pandas.to_datetime, {WITHOUT_TIMES}."
        )
    falls = np.flatnonzero(~(times[1:] > times[:-1]))  # NaT and NaN too
    if len(falls):
        first, second = as_texts(times[falls[0] : falls[0] + 2])
        how = f"{second} is there twice" if first == second else f"{second} stands behind {first}"
        raise InputError(
            f"{where}: the index must rise from row to row, and {how}. Windows take neighbouring rows for neighbouring times: "
            "sort them, frame.sort_index(), and leave one row for each time."
        )
    return times, _frequency(times, where) if times.dtype.kind == "M" and len(times) > 2 else None


def _read(index: Any) -> np.ndarray:
    """Return times, periods by their beginnings; local times of a zone, or UTC where its clock is changed."""
    index = index.to_timestamp() if hasattr(index, "to_timestamp") else index
    if getattr(index, "tz", None) is not None:
        clock, utc = index.tz_localize(None), index.tz_convert("UTC").tz_localize(None)
        are_days = (clock - clock.normalize()).nunique() < 2
        index = clock if are_days or (clock - utc).nunique() < 2 else utc
    labels = as_labels(index, "the index")
    assert labels is not None
    return labels


def _frequency(times: np.ndarray, where: str) -> Any:
    """Return the frequency of dates, such as months or working days; None if they have none.

    Raises
    ------
    InputError
        If dates are missing where most are as far apart as the nearest ones, but for free days between working days.
    """
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions of pandas differ in what they return
        frequency = pd.infer_freq(pd.DatetimeIndex(times))
    if frequency is not None:
        return frequency
    apart = np.diff(times)
    step, gaps = apart.min(), np.flatnonzero(apart > apart.min())
    days = times.astype("M8[D]")
    if step == np.timedelta64(1, "D") and len(np.unique(times - days)) == 1 and np.is_busday(days).all():
        return "B"
    if 2 * len(gaps) >= len(apart):
        return None
    missing = np.concatenate([np.arange(times[at] + step, times[at + 1], step)[:MOST_LISTED] for at in gaps])
    raise InputError(
        f"{where}: most times are {pd.Timedelta(step)} apart, and between others some are missing: "
        f"{first_few([pd.Timestamp(time) for time in missing])}. Windows would take the rows beside a gap for neighbours: fill "
        f"it, frame.asfreq(...).interpolate() say, {WITHOUT_TIMES}."
    )
