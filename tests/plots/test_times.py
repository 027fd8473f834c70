"""Times of long tables: in order, with time zones, as text."""

import pandas as pd
import pytest

import deepshap
from deepshap.errors import InputError
from deepshap.explanation.labels import as_texts


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        (["2024-03-10", "2024-03-9", "2024-3-8"], ["2024-03-08", "2024-03-09", "2024-03-10"]),
        (
            ["2024-3-10 10:00", "2024-3-10 9:30", "2024-03-9"],
            ["2024-03-09 00:00", "2024-03-10 09:30", "2024-03-10 10:00"],
        ),
        (
            ["2024-03-10 10:00 PM", "2024-03-10 11:00 AM", "2024-03-10 9:00 AM"],
            ["2024-03-10 09:00", "2024-03-10 11:00", "2024-03-10 22:00"],
        ),
        (
            ["2026-10-25 02:00:00+01:00", "2026-10-25 02:30:00+02:00", "2026-10-25 01:30:00+02:00"],
            ["2026-10-24 23:30", "2026-10-25 00:30", "2026-10-25 01:00"],
        ),
        (pd.date_range("2026-03-01", periods=3, tz="Asia/Tokyo")[::-1], ["2026-03-01", "2026-03-02", "2026-03-03"]),
        (["2026-W09", "2026-W10", "2026-W11"], ["2026-W09", "2026-W10", "2026-W11"]),
    ],
)
def test_times_are_put_in_order(times, wanted):
    frame = pd.DataFrame({"id": 1, "time": times, "x": [3.0, 2.0, 1.0]})
    found = deepshap.sequences(frame, "id", "time")
    assert as_texts(found.step_labels).tolist() == wanted
    assert found.values.ravel().tolist() == ([3, 2, 1] if wanted[0] == times[0] else [1, 2, 3])


def test_text_in_no_clear_order_is_refused():
    frame = pd.DataFrame({"id": 1, "time": ["day 9", "day 10"], "x": [1.0, 2.0]})
    with pytest.raises(InputError, match="'day 9' stands before 'day 10'"):
        deepshap.sequences(frame, "id", "time")
