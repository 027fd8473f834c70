"""Load explanations from files, or from the folder of a run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from glob import glob
from typing import Any

from ..errors import InputError
from ..explanation import storage
from ..results import Explanation, JointExplanation
from .explanation_dataset import ExplanationDataset


def load(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Any:
    """Read what ``Explanation.save`` or ``deepshap explain`` wrote, of one file or several; nothing in them can run code.

    Parameters
    ----------
    path : str, path, or sequence of them
        The Parquet file. The rows of several are put below each other in their order, as by ``Explanation.concat``; so are
        those of a pattern, such as "runs/*.parquet", in the order of their names. Or a folder that ``explain_dataset`` wrote.

    Returns
    -------
    Explanation or ExplanationDataset
        Of files as it was, bit by bit; a JointExplanation if it was one. Of a folder what reads it as it is asked.

    Raises
    ------
    InputError
        If a file or folder was not written by deepshap, or was changed since, or the files do not fit each other.
    ImportError
        If pyarrow is missing.
    """
    if isinstance(path, bytes) or not isinstance(path, (str, os.PathLike, Iterable)):
        raise InputError(f"load takes the path of a file or folder, or several of them, not {path!r}.")
    if not isinstance(path, (str, os.PathLike)):
        return Explanation.concat([load(file) for file in path])
    if "*" in str(path) and not os.path.exists(path):
        paths = sorted(glob(str(path)))
        if not paths:
            raise InputError(f"there are no files {path}.")
        return load(paths)
    if os.path.isdir(path):
        return ExplanationDataset(path)
    parts = storage.read(path, Explanation)
    return parts if isinstance(parts, Explanation) else JointExplanation(parts)
