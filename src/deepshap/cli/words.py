"""The words of token ids, which ``--vocabulary`` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError


class Words:
    """The words of token ids, as an inverse transform."""

    def __init__(self, vocabulary: Path) -> None:
        if not vocabulary.exists():
            raise InputError(f"there is no file {vocabulary}.")
        self.words = np.array(vocabulary.read_text(encoding="utf-8").splitlines())

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Look up."""
        if ids.dtype.kind not in "iu":
            raise InputError(
                "--vocabulary is for token ids, and the data are no whole numbers; --dtype int64 changes that."
            )
        count = len(self.words)
        if not 0 <= ids.min() <= ids.max() < count:
            raise InputError(f"--vocabulary has {count} words, ids 0 to {count - 1}; the data go to {ids.max()}.")
        return self.words[ids]


def words_of(
    vocabulary: Path | None, inputs: list[np.ndarray], raw: Path | None, options: dict[str, Any]
) -> Words | None:
    """What tables and reports show for token ids, tried on the inputs; not what sums over them are of."""
    if (vocabulary or raw) and options["players"] not in (None, "cells"):
        raise InputError("--raw and --vocabulary show cells, and --players sums over them: leave one of them out.")
    if vocabulary is None:
        return None
    found = Words(vocabulary)
    found(inputs[0])
    return found
