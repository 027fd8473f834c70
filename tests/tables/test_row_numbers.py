"""Row numbers that pandas writes as a range, digits that are no numbers, and columns of one part alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import deepshap

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [10.0, 20.0, 30.0, 40.0]})
EXPLAINER = deepshap.DeepExplainer(
    torch.nn.Linear(2, 1), pd.DataFrame({"a": [0.0, 1.0], "b": [0.0, 1.0]}), progress=False
)


def ids_of(folder):
    """The ids of the rows of a run, in their order."""
    return list(dict.fromkeys(pd.read_parquet(folder)["row"].tolist()))


@pytest.mark.parametrize("rows", [FRAME.iloc[[1, 0]], FRAME[1:], FRAME.set_index(pd.RangeIndex(70001, 70005))])
def test_a_range_that_is_not_that_of_the_lines_is_refused(rows, tmp_path):
    rows.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(deepshap.InputError, match=r"numbered from \d+ in steps of -?1 .* index=True"):
        deepshap.explain_dataset(EXPLAINER, tmp_path / "x.parquet", tmp_path / "out")
    rows.to_parquet(tmp_path / "y.parquet", index=True)
    deepshap.explain_dataset(EXPLAINER, tmp_path / "y.parquet", tmp_path / "out")
    assert ids_of(tmp_path / "out") == list(rows.index)


def test_parts_of_one_frame_are_counted_on(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    FRAME[:2].to_parquet(folder / "1.parquet")
    FRAME[2:].to_parquet(folder / "2.parquet")
    deepshap.explain_dataset(EXPLAINER, folder, tmp_path / "out")
    assert ids_of(tmp_path / "out") == [0, 1, 2, 3]


def test_a_column_more_in_a_later_part_is_refused(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    FRAME[:2].to_parquet(folder / "1.parquet")
    FRAME[2:].assign(z=1.0).reset_index(drop=True).to_parquet(folder / "2.parquet")
    with pytest.raises(deepshap.InputError, match="has a column 'z'"):
        deepshap.explain_dataset(EXPLAINER, folder, tmp_path / "out")


@pytest.mark.parametrize("times", [["2200", "2300", "0000", "0100"], ["30042024", "01052024", "02052024", "03052024"]])
def test_digits_with_zeros_before_them_are_not_sorted_as_numbers(times):
    table = pd.DataFrame({"id": 1, "t": times, "a": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(deepshap.InputError, match="'t' is text, in no clear order"):
        deepshap.sequences(table, id="id", time="t", features=["a"])
    found = deepshap.sequences(table.assign(t=["01", "02", "10", "11"]), id="id", time="t", features=["a"])
    assert list(np.asarray(found.values)[0, :, 0]) == [1.0, 2.0, 3.0, 4.0]
