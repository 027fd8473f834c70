"""Some rows of a data set, in whatever form the explainer takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Batch:
    """The rows of one part.

    Attributes
    ----------
    number : int
        The part, counted from 0.
    X : array, table, Sequences, or list or dict of them
        The rows, rows first; as ``DeepExplainer`` takes them, but for the place of the rows.
    ids : array (rows,)
        The ids, or the rows' places in the data set.
    lengths : array (rows,) of int, optional
        Valid steps, for models that take them as their last argument.
    targets : array (rows,) or (rows, outputs), optional
        True classes or values.
    raw : in the form of X, optional
        The rows as people know them, before scaling: arrays alone.
    """

    number: int
    X: Any
    ids: np.ndarray
    lengths: np.ndarray | None = None
    targets: np.ndarray | None = None
    raw: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> Batch:
        beside = {name: take(getattr(self, name), rows) for name in ("lengths", "targets", "raw")}
        return replace(self, X=take(self.X, rows), ids=self.ids[rows], **beside)


def take(X: Any, rows: Any) -> Any:
    """Some rows of an input, or of each of several; None of what there is not."""
    if X is None:
        return None
    if isinstance(X, Mapping):
        return {key: take(value, rows) for key, value in X.items()}
    if isinstance(X, (list, tuple)):
        return [take(value, rows) for value in X]
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def count(X: Any) -> int:
    """How many rows there are."""
    if isinstance(X, Mapping):
        X = list(X.values())
    first = X[0] if isinstance(X, (list, tuple)) and len(X) else X
    if not hasattr(first, "__len__"):
        raise InputError(f"there must be rows in an array, a table or several of them, not {first!r}.")
    return len(first)
